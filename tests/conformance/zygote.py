"""Starts `dask worker` (and stock `dask scheduler`) processes in milliseconds.

Importing distributed, numpy and pandas takes two seconds on a busy core; a test that wants its own three workers
should not pay them three times. This process imports once and forks a child per request; the child runs the
unmodified command line of Dask. Not for tests about environment variables read at import.

Protocol, one JSON document a line: {"argv": [...], "env": {...}, "log": path} -> {"pid": n}. The exit status of each
child is written to `log` + ".rc". When standard input closes, every child is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def child(request: dict) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request.get("cwd", "/"))

    import dask.config

    dask.config.refresh()
    sys.argv = ["dask", *request["argv"]]
    from dask.__main__ import main

    main()


def reap(logs: dict[int, str]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        log = logs.pop(pid, None)
        if log:
            with contextlib.suppress(OSError):  # the test may have removed its folder
                with open(log + ".rc.new", "w") as f:
                    f.write(str(os.waitstatus_to_exitcode(status)))
                os.rename(log + ".rc.new", log + ".rc")


def main() -> None:

    logs: dict[int, str] = {}
    held = {signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, lambda *_: reap(logs))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, held)
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
            status = 1
            try:
                child(request)
                status = 0
            except SystemExit as e:
                status = e.code if isinstance(e.code, int) else int(e.code is not None)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        logs[pid] = request["log"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
        print(json.dumps({"pid": pid}), flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in list(logs):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


if __name__ == "__main__":
    main()
