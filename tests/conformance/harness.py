"""Processes under test: a scheduler by command, stock workers, and how to wait for what they do.

OXIDASK_TEST_SCHEDULER says which scheduler: unset, the binary that `make` built; `stock`, the one of dask.distributed
(to show that a test itself is right); anything else, a command line to which flags are appended.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CHOICE = os.environ.get("OXIDASK_TEST_SCHEDULER", "")
STOCK = CHOICE == "stock"
START_S = 60
STOP_S = 15


def scheduler_command() -> list[str]:
    if STOCK:
        return [sys.executable, "-m", "dask", "scheduler"]
    if CHOICE:
        return shlex.split(CHOICE)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return [str(target / "fast" / "oxidask-scheduler")]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a process under test: without the caller's Dask settings, with threads kept few."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("DASK_")}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env[name] = "1"
    env["PYTHONPATH"] = str(HERE)
    env["OXIDASK_PYTHON"] = sys.executable
    env.update(extra)
    return env


def wait_until(condition, timeout: float = 10, message: str = "", interval: float = 0.01):
    """The first true value of `condition()`; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {message or condition}")
        time.sleep(interval)
        interval = min(interval * 1.5, 0.1)


class Process:
    """A process with a log file; killed with its group at the end."""

    def __init__(self, pid: int, log: Path, popen: subprocess.Popen | None = None):
        self.pid = pid
        self.log = log
        self.popen = popen
        self.fd = os.pidfd_open(pid)

    @classmethod
    def start(cls, command: list[str], env: dict[str, str], log: Path, cwd: str | None = None) -> Process:
        with open(log, "ab") as out:
            popen = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=cwd
            )
        return cls(popen.pid, log, popen)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def alive(self) -> bool:
        return not select.select([self.fd], [], [], 0)[0]

    def wait(self, timeout: float = STOP_S) -> int:
        """Exit status (negative: the signal); AssertionError if it still runs after `timeout` seconds."""
        if not select.select([self.fd], [], [], timeout)[0]:
            raise AssertionError(f"process {self.pid} still runs after {timeout} s:\n{self.text()[-3000:]}")
        if self.popen:
            return self.popen.wait(5)
        rc = Path(f"{self.log}.rc")
        wait_until(rc.exists, 5, "exit status of a forked process")
        return int(rc.read_text())

    def send(self, sig: int) -> None:
        if self.fd < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, sig)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        self.send(signal.SIGTERM)
        try:
            self.wait(STOP_S)
        except AssertionError:
            pass
        self.close()

    def close(self) -> None:
        """Kills what is left of the process and of its group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.send(signal.SIGKILL)
        if self.popen:
            self.popen.wait()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Zygote:
    """See zygote.py. Started at the first use."""

    def __init__(self):
        self.popen = None

    def start(self, argv: list[str], env: dict[str, str], log: Path, cwd: str | None = None) -> Process:
        if self.popen is None:
            self.popen = subprocess.Popen(
                [sys.executable, str(HERE / "zygote.py")],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert "ready" in json.loads(self.popen.stdout.readline())
        request = {"argv": argv, "env": env, "log": str(log), "cwd": cwd or "/"}
        self.popen.stdin.write(json.dumps(request) + "\n")
        self.popen.stdin.flush()
        return Process(json.loads(self.popen.stdout.readline())["pid"], log)

    def close(self) -> None:
        if self.popen:
            self.popen.stdin.close()
            self.popen.wait(10)


ZYGOTE = Zygote()


def rss(pid: int) -> int:
    """Resident bytes of one process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 if match else 0


def children(pid: int) -> list[int]:
    """Processes started by `pid`, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *children(int(child))]
    return found


class Cluster:
    """One scheduler and the workers started for it. A context manager; nothing outlives it."""

    def __init__(
        self,
        workers: int = 0,
        *,
        nthreads: int = 1,
        nanny: bool = False,
        config: dict[str, object] | None = None,
        scheduler_args: tuple[str, ...] = (),
        worker_args: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        execute: bool = False,
    ):
        """`config`: Dask settings of every process ({"distributed.worker.…": value}). `execute`: real command lines
        for the workers too, not forks of the zygote."""
        self.dir = Path(tempfile.mkdtemp(prefix="oxidask-test-"))
        self.env = environment(**(env or {}))
        for key, value in (config or {}).items():
            self.env["DASK_" + key.upper().replace(".", "__").replace("-", "_")] = str(value)
        self.execute = execute
        self.processes: list[Process] = []
        self.workers: list[Process] = []
        self.count = 0
        self.scheduler = self.start_scheduler(scheduler_args)
        try:
            self.wait_ready()
            for _ in range(workers):
                self.add_worker(*worker_args, nthreads=nthreads, nanny=nanny)
        except BaseException:
            self.close()
            raise

    # -- scheduler
    def start_scheduler(self, args: tuple[str, ...]) -> Process:
        self.file = self.dir / "scheduler.json"
        flags = ["--scheduler-file", str(self.file)]
        if "--host" not in args:
            flags += ["--host", "127.0.0.1"]
        if "--port" not in args:
            flags += ["--port", "0"]
        if "--dashboard-address" not in args and "--no-dashboard" not in args:
            flags += ["--dashboard-address", "127.0.0.1:0"]
        env = dict(self.env)
        log = self.dir / "scheduler.log"
        if STOCK:
            env.setdefault("DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES", repr(STOCK_ROUTES))
            process = ZYGOTE.start(["scheduler", *flags, *args], env, log, cwd=str(self.dir))
        else:
            process = Process.start([*scheduler_command(), *flags, *args], env, log, cwd=str(self.dir))
        self.processes.append(process)
        return process

    def wait_ready(self) -> None:
        def ready():
            assert self.scheduler.alive(), f"the scheduler ended:\n{self.scheduler.text()[-3000:]}"
            with suppress(OSError, ValueError):
                return json.loads(self.file.read_text())

        self.identity = wait_until(ready, START_S, f"{self.file} with the scheduler's address")
        self.address = self.identity["address"]

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.identity['services']['dashboard']}"

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    # -- workers
    def add_worker(
        self,
        *args: str,
        nthreads: int = 1,
        nanny: bool = False,
        name: str | None = None,
        env: dict[str, str] | None = None,
        address: str | None = None,
        wait: bool = False,
        execute: bool | None = None,
    ) -> Process:
        self.count += 1
        name = name or f"w{self.count}"
        argv = ["worker", address or self.address, "--nthreads", str(nthreads), "--name", name]
        argv += ["--nanny" if nanny else "--no-nanny", "--no-dashboard", "--local-directory", str(self.dir / name)]
        if "--memory-limit" not in args:
            argv += ["--memory-limit", "2GiB"]
        if "--host" not in args and "--listen-address" not in args:
            argv += ["--host", "127.0.0.1"]
        argv += args
        (self.dir / name).mkdir(exist_ok=True)
        log = self.dir / f"{name}.{self.count}.log"
        environ = {**self.env, **(env or {})}
        if self.execute if execute is None else execute:
            process = Process.start([sys.executable, "-m", "dask", *argv], environ, log, cwd=str(self.dir))
        else:
            process = ZYGOTE.start(argv, environ, log, cwd=str(self.dir))
        process.name = name
        self.processes.append(process)
        self.workers.append(process)
        if wait:
            wait_until(lambda: "Registered to:" in process.text(), START_S, f"{name} registered: {process.text()}")
        return process

    def client(self, **kwargs):
        from distributed import Client

        client = Client(kwargs.pop("address", self.address), **{"set_as_default": False, "timeout": 30, **kwargs})
        return client

    def logs(self) -> str:
        parts = []
        for process in self.processes:
            parts.append(f"--- {process.log.name}\n{process.text()[-4000:]}")
        return "\n".join(parts)

    def close(self) -> None:
        """Workers are killed; the scheduler is asked first, so that it can end its helpers."""
        for process in self.workers:
            process.close()
        for process in self.processes:
            if process not in self.workers and process.fd >= 0:
                process.send(signal.SIGTERM)
                with suppress(AssertionError):
                    process.wait(3)
                process.close()
        self.processes.clear()
        self.workers.clear()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc) -> None:
        self.close()


STOCK_ROUTES = [
    "distributed.http.scheduler.prometheus",
    "distributed.http.scheduler.info",
    "distributed.http.scheduler.json",
    "distributed.http.scheduler.api",
    "distributed.http.health",
    "distributed.http.proxy",
    "distributed.http.statics",
]


def state(client, key):
    """The scheduler's state of a task ("processing", "memory", …), None if it does not know it."""
    return client.sync(client.scheduler.get_task_status, keys=[key]).get(key)


def holders(client, key) -> tuple[str, ...]:
    """Addresses of the workers that hold the result of `key`."""
    return tuple(client.sync(client.scheduler.who_has, keys=[key])[key])
