"""Failures as the client expects them: a pickled exception and traceback, and their texts."""

import textwrap

from distributed.core import error_message

DESERIALIZATION = textwrap.dedent("""\
    Error during deserialization of the task graph. This frequently
    occurs if the Scheduler and Client have different environments.
    For more information, see
    https://docs.dask.org/en/stable/deployment-considerations.html#consistent-software-environments
""")


def _causes(e):
    seen = set()
    while e is not None and id(e) not in seen:
        seen.add(id(e))
        yield e
        e = e.__cause__ or e.__context__


def hint(e):
    """What the person can do about it, or an empty string."""
    for cause in _causes(e):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return (
                f"The scheduler's Python has no module {cause.name!r}: install it in the scheduler's environment, "
                "or send it there with Client.upload_file."
            )
        if isinstance(cause, MemoryError):
            return "The graph needs more memory than the scheduler's graph helper may use (oxidask.graph.memory-limit)."
    return ""


# Unpickling a longer traceback can itself exceed the client's recursion limit.
LONGEST_TRACEBACK = 100


def _sendable(e):
    """The exception as a client can take it (one that would end its event loop or break it becomes another), and
    whether its traceback can be sent."""
    if not isinstance(e, Exception):
        text = f"The graph raised {e!r}, which would end the process that makes its tasks; it was given up"
        return RuntimeError(text), True
    frames, tb = 0, e.__traceback__
    while tb is not None and frames <= LONGEST_TRACEBACK:
        frames, tb = frames + 1, tb.tb_next
    if frames <= LONGEST_TRACEBACK:
        return e, True
    try:
        return type(e)(*e.args), False
    except Exception:
        return RuntimeError(repr(e)), False


def report(e):
    """The error's message: its map and its frames (exception, traceback)."""
    e, with_traceback = _sendable(e)
    if isinstance(e, MemoryError) and not e.args:
        e.args = (hint(e),)
    msg = error_message(e)
    exception = getattr(msg["exception"], "data", None) or b""
    traceback = (getattr(msg["traceback"], "data", None) or b"") if with_traceback else b""
    head = {
        "t": "error",
        "exception_text": msg["exception_text"],
        "traceback_text": msg["traceback_text"],
        "hint": hint(e),
    }
    return head, exception, traceback
