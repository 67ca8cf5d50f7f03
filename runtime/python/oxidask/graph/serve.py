"""The helper's loop: one request at a time, until the scheduler closes the socket.

The scheduler keeps no second request waiting here, so whatever a graph does to this process is that graph's failure.
"""

import gc
import os
import signal
import sys
import threading
import time

from .versions import get_versions
from .wire import Channel, Closed

#: After a graph of this many tasks the garbage is collected and the heap trimmed.
LARGE_GRAPH = 5_000
#: Small graphs between two collections.
COLLECT_EVERY = 200


def limit_memory(nbytes):
    """Bound the address space, so that a graph that needs more gets a MemoryError."""
    if nbytes:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = nbytes if hard == resource.RLIM_INFINITY else min(nbytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def trim_heap():
    """Give freed memory back to the system, where the C library can."""
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except Exception:  # not glibc
        pass


def end_with_parent():
    """End this process when the scheduler has gone, even while a graph keeps the main thread from its socket."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


class Helper:
    """State of this process between requests."""

    def __init__(self, channel):
        self.channel = channel
        self.small_graphs = 0

    def prepare(self):
        """Import dask and set what differs from a client's process."""
        import dask

        # Futures in a graph must stay inert: nothing here may connect to a scheduler.
        dask.config.set({"scheduler-address": None})
        from . import culling, errors, materialise, tuning

        culling.install()
        tuning.install()
        self.materialise = materialise
        self.errors = errors
        gc.collect()
        gc.freeze()
        gc.disable()

    def serve(self):
        """Answer requests until the scheduler goes away."""
        while True:
            head, frames = self.channel.read()
            op = head["op"]
            try:
                done = getattr(self, "op_" + op)(head, frames)
            except Closed:
                raise
            except BaseException as e:
                done = 0
                self.fail(e)
            del frames
            self.tidy(done or 0)

    def fail(self, e):
        """Tell why a request failed. What was queued of its answer is dropped: the scheduler must not take it."""
        self.channel.parts.clear()
        head, exception, traceback = self.errors.report(e)
        self.channel.send(head, exception, traceback)

    def tidy(self, ntasks):
        """Collect what reference counting has left."""
        self.small_graphs += 1
        if ntasks < LARGE_GRAPH and self.small_graphs < COLLECT_EVERY:
            return
        self.small_graphs = 0
        gc.collect()
        if ntasks >= LARGE_GRAPH:
            trim_heap()

    def op_graph(self, head, frames):
        """Materialise an expression: frames are the expression's, the annotations' and the span's payloads."""
        # From here on a crash is this graph's; before, the process had died while it was idle.
        self.channel.send({"t": "begun"})
        load = self.materialise
        nexpr, nannotations = head["expr"], head["annotations"]
        answer = load.Answer(self.channel, head["id"])
        rest = frames[nexpr:]
        common = load.load_pickled(rest[:nannotations]) if nannotations else None
        spans = load.load_pickled(rest[nannotations:]) if len(rest) > nannotations else None
        # No name for the expression here: its tasks' memory goes as they are pickled.
        return answer.run(load.load_expression(frames[0], frames[1:nexpr]), common, spans)

    def op_path(self, head, frames):
        """Put a folder or archive in front of ``sys.path``."""
        path = head["path"]
        if path not in sys.path:
            sys.path.insert(0, path)
        self.channel.send({"t": "ok"})

    def op_upload(self, head, frames):
        """Import (again) the modules of an uploaded file, as the stock scheduler's ``upload_file`` does."""
        from distributed.utils import import_file

        path = head["path"]
        folder = os.path.dirname(path)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        import_file(path)
        self.channel.send({"t": "ok"})


def main(sock, memory_limit=0):
    """Entry point of the helper process."""
    # An interrupt at the terminal is for the scheduler to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    channel = Channel(sock)
    channel.send({"t": "hello", "pid": os.getpid(), "versions": get_versions()})
    try:
        helper = Helper(channel)
        try:
            helper.prepare()
        except BaseException as e:
            channel.send({"t": "broken", "text": f"{type(e).__name__}: {e}"})
            raise
        limit_memory(memory_limit)
        channel.send({"t": "ready"})
        helper.serve()
    except (Closed, ConnectionError):
        pass
