"""Messages between the host and the scheduler, in both directions at once.

A message is framed as on every other connection of the scheduler. Its first frame is a small msgpack map that says
what it is (``t``), which request it belongs to (``id``) and what is asked (``op``); the other frames are a message of
the wire protocol of their own, the body. So a body that cannot be read fails its own request only.

A thread reads. The event loop writes and waits, and may wait without giving way: user code expects attributes such as
``dask_scheduler.workers`` to be there at once.
"""

import asyncio
import itertools
import queue
import struct
import threading

import msgpack
from distributed.core import clean_exception
from distributed.protocol.core import dumps, loads

_U64 = struct.Struct("<Q")
_MAX_IOV = 512
#: Frames are never compressed: both ends are on one machine.
_CONTEXT = {"compression": None}


class Closed(Exception):
    """The scheduler has closed the socket."""


def encode(head, body=None):
    """The frames of a message."""
    return [msgpack.packb(head), *dumps(body, context=_CONTEXT)]


def decode(frames):
    """The body of a message given by its frames after the first."""
    return loads(frames, deserialize=True)


class Link:
    """The scheduler's end of the socket, as the host sees it."""

    def __init__(self, sock):
        self.sock = sock
        self.ids = itertools.count(1)
        self.pending = {}
        self.writing = threading.Lock()
        self.loop = None
        self.receive = None

    def start(self, receive):
        """Begin to read; ``receive(head, frames)`` is called in the event loop for what is no reply, None at the end."""
        self.loop = asyncio.get_running_loop()
        self.receive = receive
        threading.Thread(target=self._read_all, name="oxidask-link", daemon=True).start()

    # ---- reading

    def _read_exactly(self, n):
        buffer = bytearray(n)
        view = memoryview(buffer)
        at = 0
        while at < n:
            got = self.sock.recv_into(view[at:])
            if not got:
                raise Closed
            at += got
        return buffer

    def read(self):
        """The next message's head and its other frames; blocks."""
        # The first read's length is of no use here: the table of lengths says it all.
        _, count = struct.unpack("<2Q", self._read_exactly(16))
        lengths = struct.unpack(f"<{count}Q", self._read_exactly(8 * count))
        body = memoryview(self._read_exactly(sum(lengths)))
        frames, at = [], 0
        for length in lengths:
            frames.append(body[at : at + length])
            at += length
        return msgpack.unpackb(frames[0]), frames[1:]

    def _read_all(self):
        try:
            while True:
                head, frames = self.read()
                waiter = self.pending.pop(head["id"], None) if head["t"] == "reply" else None
                if waiter is not None:
                    waiter(frames)
                elif head["t"] != "reply":
                    self.loop.call_soon_threadsafe(self.receive, head, frames)
        except (Closed, OSError, RuntimeError):
            pass
        for waiter in list(self.pending.values()):
            waiter(None)
        try:
            self.loop.call_soon_threadsafe(self.receive, None, None)
        except RuntimeError:  # the loop has ended
            pass

    # ---- writing

    def send(self, head, body=None):
        """Write a message; blocks while the scheduler doesn't read."""
        self.write(encode(head, body))

    def write(self, frames):
        """Write the frames of a message."""
        lengths = [memoryview(f).nbytes for f in frames]
        table = struct.pack(f"<{len(lengths) + 2}Q", 8 * (len(lengths) + 1) + sum(lengths), len(lengths), *lengths)
        parts = [table, *(memoryview(f).cast("B") for f in frames if memoryview(f).nbytes)]
        with self.writing:
            if sum(map(len, parts)) < 65536:
                self.sock.sendall(b"".join(parts))
                return
            while parts:
                sent = self.sock.sendmsg(parts[:_MAX_IOV])
                while parts and sent >= len(parts[0]):
                    sent -= len(parts.pop(0))
                if sent:
                    parts[0] = memoryview(parts[0])[sent:]

    # ---- requests

    def ask(self, kind, op, body=None):
        """Ask the scheduler and wait for its answer without giving way to the event loop."""
        answer = queue.SimpleQueue()
        self._ask(kind, op, body, answer.put)
        return self._result(answer.get())

    async def ask_async(self, kind, op, body=None):
        """Ask the scheduler."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def done(frames):
            loop.call_soon_threadsafe(lambda: answer.done() or answer.set_result(frames))

        self._ask(kind, op, body, done)
        return self._result(await answer)

    def _ask(self, kind, op, body, waiter):
        number = next(self.ids)
        self.pending[number] = waiter
        try:
            self.send({"t": kind, "id": number, "op": op}, body)
        except BaseException:
            self.pending.pop(number, None)
            raise

    @staticmethod
    def _result(frames):
        if frames is None:
            raise OSError("the scheduler has closed the connection to this process")
        result = decode(frames)
        if isinstance(result, dict) and result.get("status") == "uncaught-error":
            _, exception, traceback = clean_exception(result["exception"], result["traceback"])
            raise exception.with_traceback(traceback)
        return result
