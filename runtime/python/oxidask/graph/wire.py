"""Messages over the scheduler's socket: a list of frames, the first of them a msgpack map.

Layout, little-endian: ``u32 n``, ``n`` times ``u64 length``, then the frames.
"""

import struct
from itertools import chain

import msgpack

_COUNT = struct.Struct("<I")
_MAX_IOV = 512


def plain_number(obj):
    """msgpack's ``default``: numpy numbers and strings in keys."""
    item = getattr(obj, "item", None)
    if item is not None:
        value = item()
        if type(value) in (int, float, str, bool):
            return value
    raise TypeError(f"can not serialize {type(obj).__qualname__!r} object")


_KEY_TYPES = {str, int, float, tuple}
_PART_TYPES = {str, int, float}


def check_keys(keys):
    """Raise stock's TypeError for keys that are none; numbers of numpy pass, as they do in stock without validation."""
    types = set(map(type, keys))
    if types <= _KEY_TYPES:
        tuples = [key for key in keys if type(key) is tuple] if tuple in types else []
        if set(map(type, chain.from_iterable(tuples))) <= _PART_TYPES:
            return
    for key in keys:
        _check_key(key)


def _check_key(key):
    if type(key) is tuple:
        for part in key:
            _check_key(part)
    elif isinstance(key, bool) or not (isinstance(key, (str, int, float)) or hasattr(key, "dtype")):
        raise TypeError(f"Unexpected key type {type(key)} (value: {key!r})")


def pack(obj):
    """Msgpack bytes of plain data."""
    return msgpack.packb(obj, use_bin_type=True, default=plain_number)


def unpack(data):
    """Plain data from msgpack bytes; arrays become tuples."""
    return msgpack.unpackb(data, raw=False, use_list=False, strict_map_key=False)


class Closed(Exception):
    """The scheduler has closed the socket."""


class Channel:
    """Blocking, framed messages over a stream socket."""

    def __init__(self, sock):
        self.sock = sock
        self.parts = []

    def _read(self, n):
        buf = bytearray(n)
        view = memoryview(buf)
        got = 0
        while got < n:
            k = self.sock.recv_into(view[got:])
            if not k:
                raise Closed
            got += k
        return buf

    def read(self):
        """The next message: its map and its other frames (views of one buffer)."""
        (n,) = _COUNT.unpack(self._read(4))
        lengths = struct.unpack(f"<{n}Q", self._read(8 * n))
        body = memoryview(self._read(sum(lengths)))
        frames = []
        at = 0
        for length in lengths:
            frames.append(body[at : at + length])
            at += length
        return unpack(frames[0]), frames[1:]

    def queue(self, frames):
        """Add a message to what the next ``flush`` sends."""
        lengths = [f.nbytes if type(f) is memoryview else len(f) for f in frames]
        self.parts.append(struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths))
        self.parts.extend(f for f in frames if len(f))

    def flush(self):
        """Send all queued messages."""
        parts, self.parts = self.parts, []
        if sum(map(len, parts)) < 65536:
            self.sock.sendall(b"".join(parts))
            return
        at = 0
        while at < len(parts):
            chunk = parts[at : at + _MAX_IOV]
            sent = self.sock.sendmsg(chunk)
            while chunk and sent >= len(chunk[0]):
                sent -= len(chunk[0])
                chunk.pop(0)
                at += 1
            if sent:
                parts[at] = memoryview(parts[at])[sent:]

    def send(self, *frames):
        """Send one message; its first frame may be given as a map."""
        head, *rest = frames
        self.queue([pack(head) if type(head) is dict else head, *rest])
        self.flush()
