"""The scheduler's side of the host's socket, in Python, with canned snapshots."""

import itertools
import os
import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cloudpickle
from oxidask.host.link import Closed, Link, decode

SOURCES = Path(__file__).parent.parent


class HostProcess:
    """A host process and a small scheduler for it.

    ``snapshots`` maps what is asked to a value or a function of the arguments; ``rpcs`` likewise.
    """

    def __init__(self, snapshots=None, rpcs=None):
        ours, theirs = socket.socketpair()
        env = {**os.environ, "PYTHONPATH": str(SOURCES)}
        self.process = subprocess.Popen([sys.executable, "-m", "oxidask.host"], stdin=theirs, env=env)
        theirs.close()
        self.link = Link(ours)
        self.ids = itertools.count(1)
        self.snapshots = snapshots or {}
        self.rpcs = rpcs or {}
        self.asked = []
        self.results = {}
        self.items = {}
        self.news = threading.Condition()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        try:
            while True:
                head, frames = self.link.read()
                self._receive(head, decode(frames))
        except (Closed, OSError):
            pass

    def _receive(self, head, body):
        kind = head["t"]
        with self.news:
            if kind in ("result", "error"):
                self.results[head["id"]] = (kind, body)
                self.news.notify_all()
                return
            self.asked.append((kind, head["op"], body))
            reply = None
            if kind == "item":
                self.items.setdefault(int(head["op"]), []).append(body)
            elif kind in ("snapshot", "rpc"):
                reply = (self.snapshots if kind == "snapshot" else self.rpcs).get(head["op"])
                reply = reply(body) if callable(reply) else reply
            self.news.notify_all()
        self.link.send({"t": "reply", "id": head["id"]}, reply)

    def start(self, op, args=None):
        """Send a request; its number."""
        number = next(self.ids)
        self.link.send({"t": "call", "id": number, "op": op}, args)
        return number

    def wait(self, condition, timeout=30):
        """Wait until ``condition()``."""
        with self.news:
            assert self.news.wait_for(condition, timeout)

    def call(self, op, args=None):
        """A request's result; raises what the host raises."""
        number = self.start(op, args)
        self.wait(lambda: number in self.results)
        kind, body = self.results.pop(number)
        if kind == "error":
            raise pickle.loads(body["exception"])
        return body

    def run(self, function, *args, **kwargs):
        """As ``Client.run_on_scheduler``."""
        dumps = cloudpickle.dumps
        response = self.call(
            "run_function", {"function": dumps(function), "args": dumps(args), "kwargs": dumps(kwargs), "wait": True}
        )
        if response["status"] == "error":
            raise pickle.loads(response["exception"])
        return response["result"]

    def events(self, *events):
        """Send events."""
        self.link.send({"t": "events", "id": 0, "op": ""}, list(events))

    def close(self):
        """End the host; its exit code."""
        self.link.sock.shutdown(socket.SHUT_RDWR)
        return self.process.wait(10)
