"""The scheduler's side of the helper's socket, in Python: what the Rust side does, for tests and measurements."""

import os
import pickle
import socket
import struct
import subprocess
import sys
from array import array
from pathlib import Path

import msgpack
from distributed.protocol.core import loads as load_message

SOURCES = Path(__file__).parent.parent
sys.path.insert(0, str(SOURCES))

from oxidask.graph.specs import AFTER, WHOLE  # noqa: E402
from oxidask.graph.wire import Channel  # noqa: E402


class HelperError(Exception):
    """The helper's error message."""

    def __init__(self, head, exception, traceback):
        super().__init__(head["exception_text"])
        self.head = head
        self.exception = pickle.loads(exception)
        self.traceback = traceback


def _str(s):
    b = s.encode()
    return b"\x8c" + bytes([len(b)]) + b if len(b) < 256 else b"X" + struct.pack("<I", len(b)) + b


def opcodes(v):
    """Pickle opcodes of a plain value."""
    if v is None:
        return b"N"
    if v is True or v is False:
        return b"\x88" if v else b"\x89"
    if type(v) is int:
        if 0 <= v < 256:
            return b"K" + bytes([v])
        if -(2**31) <= v < 2**31:
            return b"J" + struct.pack("<i", v)
        b = pickle.encode_long(v)
        return b"\x8a" + bytes([len(b)]) + b
    if type(v) is float:
        return b"G" + struct.pack(">d", v)
    if type(v) is bytes:
        return b"C" + bytes([len(v)]) + v if len(v) < 256 else b"B" + struct.pack("<I", len(v)) + v
    return _str(v)


class Graph:
    """An answer, decoded: per task its pickle and buffers."""

    def __init__(self, head, frames):
        *payload, keys, counts, deps, flags, externals = frames
        self.head = load_message([head, *payload])
        unpack = lambda b: msgpack.unpackb(b, use_list=False, strict_map_key=False)
        self.keys = list(unpack(keys))
        self.externals = list(unpack(externals))
        names = self.keys + self.externals
        counts, deps = array("I", bytes(counts)), array("I", bytes(deps))
        self.deps = []
        at = 0
        for c in counts:
            self.deps.append({names[d] for d in deps[at : at + c]})
            at += c
        self.flags = bytes(flags) or bytes(len(self.keys))
        self.pickles = []
        self.templates = []

    def add(self, head, frames):
        frames = [bytes(f) for f in frames]
        if head["t"] == "map":
            before, middle, after, *columns = frames
            rows = zip(*(msgpack.unpackb(c) for c in columns))
            for key, args in zip(self.keys, rows):
                own = b"(" + b"".join(map(opcodes, args)) + b"t" + middle + _str(key)
                self.pickles.append((before + own + after, []))
            return True
        ids, ends, nbuffers, blob, *rest = frames
        self.templates += rest[: head["templates"]]
        buffers = rest[head["templates"] :]
        ids, ends = array("I", ids), array("Q", ends)
        nbuffers = array("I", nbuffers).tolist() + [0] * len(ids)
        start = 0
        for t, end, nb in zip(ids, ends, nbuffers):
            piece = blob[start:end]
            start = end
            if t != WHOLE:
                piece = self.templates[t] + piece[:-1] + AFTER
            self.pickles.append((piece, buffers[:nb]))
            buffers = buffers[nb:]
        assert not buffers
        return head["last"]

    def tasks(self):
        """The nodes as a worker gets them."""
        return {k: pickle.loads(p, buffers=b) for k, (p, b) in zip(self.keys, self.pickles)}


class HelperProcess:
    """A helper process and its socket."""

    def __init__(self, **environ):
        ours, theirs = socket.socketpair()
        env = {**os.environ, "PYTHONPATH": str(SOURCES), **environ}
        self.process = subprocess.Popen([sys.executable, "-m", "oxidask.graph"], stdin=theirs, env=env)
        theirs.close()
        self.channel = Channel(ours)
        self.hello, _ = self.channel.read()
        self.ready, _ = self.channel.read()

    def close(self):
        self.channel.sock.close()
        return self.process.wait(10)

    def answer(self):
        """The next message's map and frames; errors are raised."""
        head, frames = self.channel.read()
        if head["t"] == "error":
            raise HelperError(head, *map(bytes, frames))
        return head, frames

    def request(self, head, *frames):
        self.channel.send(head, *frames)
        return self.answer()

    def graph(self, header, frames, annotations=None, spans=None):
        """Materialise an expression that is serialized already."""
        common = pickled(annotations) if annotations is not None else []
        spans = pickled(spans) if spans is not None else []
        expr = [msgpack.packb(header), *frames]
        head = {"op": "graph", "id": 1, "expr": len(expr), "annotations": len(common)}
        begun, _ = self.request(head, *expr, *common, *spans)
        assert begun["t"] == "begun"
        n = struct.unpack("<I", self.channel._read(4))[0]
        lengths = struct.unpack(f"<{n}Q", self.channel._read(8 * n))
        raw = [bytes(self.channel._read(k)) for k in lengths]
        first = msgpack.unpackb(raw[0], strict_map_key=False)
        if first["t"] == "error":
            raise HelperError(first, *raw[1:])
        graph = Graph(raw[0], raw[1:])
        while not graph.add(*self.answer()):
            pass
        return graph


def pickled(obj):
    """Frames of a ``ToPickle`` payload."""
    import cloudpickle

    buffers = []
    data = cloudpickle.dumps(obj, protocol=5, buffer_callback=buffers.append)
    header = {"pickled-obj": data, "compression": [None] * len(buffers), "num-sub-frames": len(buffers)}
    return [msgpack.packb(header), *(bytes(b) for b in buffers)]
