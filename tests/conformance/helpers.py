"""Functions that tests send to workers. Importable there (PYTHONPATH), so they travel by reference."""

from __future__ import annotations

import os
import time


def inc(x):
    return x + 1


def double(x):
    return 2 * x


def add(x, y):
    return x + y


def slow_inc(x, delay=0.05):
    time.sleep(delay)
    return x + 1


def boom(x=0):
    raise ZeroDivisionError(f"boom {x}")


def exit_process(*_):
    os._exit(11)


def wait_for_file(path, result=None, timeout=30):
    """Blocks the task until the test creates `path`: an event that needs no scheduler."""
    deadline = time.monotonic() + timeout
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.005)
    return result


def address(*_):
    from distributed import get_worker

    return get_worker().address


def worker_name(*_):
    from distributed import get_worker

    return get_worker().name


def fail_until(path, attempts):
    """Appends one byte to `path` each time it is called; raises until it was called `attempts` times before."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"x")
    os.close(fd)
    if os.path.getsize(path) <= attempts:
        raise OSError("not yet")
    return os.path.getsize(path)


class Counter:
    """The actor of the tests."""

    n = 0

    def __init__(self, start=0):
        self.n = start

    def increment(self, by=1):
        self.n += by
        return self.n

    def fail(self):
        raise ValueError("actor says no")

    def pid(self):
        return os.getpid()
