"""A peer on a bare socket, for what the stock client would never send."""

from __future__ import annotations

import os
import socket
import struct

import msgpack

HANDSHAKE = {"compression": None, "python": [3, 11, 0], "pickle-protocol": 5}


def frames(*parts: bytes) -> bytes:
    """One message of these frames, as they stand on the wire."""
    lengths = struct.pack(f"<{len(parts)}Q", *map(len, parts))
    size = 8 + len(lengths) + sum(map(len, parts))
    return struct.pack("<QQ", size, len(parts)) + lengths + b"".join(parts)


def message(value) -> bytes:
    return frames(msgpack.packb(value, use_bin_type=True))


class Peer:
    def __init__(self, port: int, handshake: bool = True, timeout: float = 10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.settimeout(timeout)
        if handshake:
            self.send(message(HANDSHAKE))
            assert "pickle-protocol" in self.receive()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            chunk = self.socket.recv(n - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def receive(self):
        """The head frame of the next message; EOFError when the other side has closed."""
        _, count = struct.unpack("<QQ", self.exactly(16))
        lengths = struct.unpack(f"<{count}Q", self.exactly(8 * count))
        parts = [self.exactly(n) for n in lengths]
        return msgpack.unpackb(parts[0], strict_map_key=False)

    def call(self, **request):
        self.send(message(request))
        return self.receive()

    def register_client(self, name: str | None = None) -> str:
        name = name or f"Raw-{os.urandom(4).hex()}"
        self.send(message({"op": "register-client", "client": name, "reply": False, "versions": {}}))
        assert self.receive()[0]["op"] == "stream-start"
        return name

    def closed(self, timeout: float = 10) -> bool:
        """Whether the other side closes within `timeout` seconds (what it still sends is read and dropped)."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
