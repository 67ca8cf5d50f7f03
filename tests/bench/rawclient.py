"""A client on a bare socket: one task at a time, messages serialised beforehand with the stock code."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import contextmanager

import msgpack


def frame(value) -> bytes:
    body = msgpack.packb(value, use_bin_type=True)
    return struct.pack("<QQQ", 16 + len(body), 1, len(body)) + body


def message(value) -> bytes:
    from distributed.protocol.core import dumps

    parts = [bytes(part) for part in dumps(value)]
    lengths = struct.pack(f"<{len(parts) + 1}Q", len(parts), *map(len, parts))
    return struct.pack("<Q", len(lengths) + sum(map(len, parts))) + lengths + b"".join(parts)


class Reader:
    def __init__(self, sock):
        self.socket, self.buffer = sock, bytearray()

    def message(self):
        """The head frame of the next message."""
        while True:
            if len(self.buffer) >= 16:
                (count,) = struct.unpack_from("<Q", self.buffer, 8)
                start = 16 + 8 * count
                if len(self.buffer) >= start:
                    lengths = struct.unpack_from(f"<{count}Q", self.buffer, 16)
                    end = start + sum(lengths)
                    if len(self.buffer) >= end:
                        head = bytes(self.buffer[start : start + lengths[0]])
                        del self.buffer[:end]
                        return msgpack.unpackb(head, strict_map_key=False)
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError("the scheduler closed the connection")
            self.buffer += data


def one_task(key: str) -> bytes:
    from dask._expr import LLGExpr
    from dask._task_spec import Task
    from distributed.protocol import Serialized, ToPickle, serialize, to_serialize
    from distributed.spans import SpanMetadata

    expression = LLGExpr({key: Task(key, len, "abc")})
    return message(
        [
            {
                "op": "update-graph",
                "expr_ser": Serialized(*serialize(to_serialize(expression), on_error="raise")),
                "keys": {key},
                "internal_priority": {key: 0},
                "submitting_task": None,
                "fifo_timeout": 0.1,
                "actors": False,
                "code": ToPickle(()),
                "annotations": ToPickle({}),
                "span_metadata": ToPickle(SpanMetadata(collections=[])),
            }
        ]
    )


@contextmanager
def latencies(address: str):
    """Gives a function (count, gap in seconds) -> seconds from update-graph to key-in-memory, one per task."""
    from distributed.versions import get_versions

    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    with socket.create_connection((host, int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = Reader(sock)
        sock.sendall(frame({"compression": None, "python": [3, 11, 0], "pickle-protocol": 5}))
        reader.message()
        register = {"op": "register-client", "client": "Raw-1", "reply": False, "versions": get_versions()}
        sock.sendall(frame(register))
        assert reader.message()[0]["op"] == "stream-start"

        def measure(count: int, gap: float) -> list[float]:
            keys = [f"inc-{os.urandom(8).hex()}" for _ in range(count)]
            messages = [one_task(key) for key in keys]
            times = []
            for key, submit in zip(keys, messages):
                if gap:
                    time.sleep(gap)
                start = time.perf_counter()
                sock.sendall(submit)
                while True:
                    got = [m for m in reader.message() if isinstance(m, dict)]
                    assert not [m for m in got if m.get("op") in ("task-erred", "cancelled-keys")], got
                    if any(m.get("op") == "key-in-memory" and m.get("key") == key for m in got):
                        break
                times.append(time.perf_counter() - start)
                sock.sendall(frame([{"op": "client-releases-keys", "keys": [key], "client": "Raw-1"}]))
            return times

        yield measure
