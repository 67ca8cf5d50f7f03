"""``Client.map`` without a Task object per item.

Most maps are one function over numbers or strings. All their tasks have the same pickle but for the arguments and the
key, and those are few, simple opcodes. So only columns of plain values leave this process, with the bytes that go
around them, and the scheduler writes the opcodes.
"""

from itertools import chain

from dask._task_spec import GraphNode, Task, parse_input
from dask.sizeof import sizeof
from distributed.client import _MapExpr

from .specs import HAS_MEMO, _get
from .wire import pack

#: Exact types that the scheduler can write as pickle opcodes. None of them is touched by ``parse_input``.
PLAIN = {int, float, str, bytes, bool, type(None)}
_SLOTS = ("_data_producer", "_dependencies", "_is_coro", "_repr", "_token", "args", "func", "key", "kwargs")
_POSSIBLE = HAS_MEMO and tuple(Task.get_all_slots()) == _SLOTS
#: Pickle of False, an empty frozenset, None, None, None: the state's slots before the arguments.
_BEFORE_ARGS = b"(\x89(\x91NNN"


class PlainMap:
    """A map whose arguments and keys are plain values."""

    def __init__(self, keys, columns, before, middle, after, packed):
        self.keys = keys
        self.ncolumns = len(columns)
        self.before = before
        self.middle = middle
        self.after = after
        self.packed = packed


def plain_map(expr, pickler):
    """The map as columns, or None if it needs the general way."""
    if type(expr) is not _MapExpr or not _POSSIBLE or not expr.iterables:
        return None
    kwargs = expr.kwargs or {}
    for value in kwargs.values():
        if sizeof(value) > 1e5 or isinstance(parse_input(value), GraphNode):
            return None
    columns = [c if type(c) is list else list(c) for c in expr.iterables]
    keys = list(expr.keys)
    n = min(len(keys), *map(len, columns))
    if not n:
        return None
    keys, columns = keys[:n], [c if len(c) == n else c[:n] for c in columns]
    types = set(map(type, chain.from_iterable(columns)))
    if not types <= PLAIN or set(map(type, keys)) != {str} or len(set(keys)) != n:
        return None
    try:
        packed = [pack(c) for c in columns]
        template = pickler.template([expr.func, kwargs] if kwargs else [expr.func])
    except Exception:
        return None  # integers beyond 64 bit, lone surrogates, unpicklable functions: the general way says what
    pickler.take_templates()
    memo = template.memo.copy()
    func = _get(memo[id(expr.func)][0])
    after = (_get(memo[id(kwargs)][0]) if kwargs else b"}") + b"tb."
    return PlainMap(keys, columns, template.before + _BEFORE_ARGS, func, after, packed)
