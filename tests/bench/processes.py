"""Schedulers, workers and fake workers as processes, and what they cost, read from /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = Path(tempfile.gettempdir()) / "oxidask-bench"
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """CPU seconds (user and system) of a process, ended threads included; 0 once it is gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK
    return 0.0


def rss(pid: int) -> int:
    """Resident bytes; 0 once the process is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def helpers(pid: int) -> list[int]:
    """The Python processes a scheduler has started (graph helpers, the host), found among its descendants."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += helpers(child)
                if b"oxidask." in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def busy() -> float:
    """CPU seconds spent by everything on the machine."""
    p = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(map(int, (p[1], p[2], p[3], p[6], p[7], p[8]))) / TICK


def wait_for(condition, what: str, timeout: float = 60):
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


@dataclass
class Side:
    """One of the schedulers that are compared."""

    name: str
    command: list[str]


@dataclass
class Usage:
    """A reading of clocks and CPU counters."""

    when: float
    scheduler: float
    helpers: float
    workers: float
    client: float
    busy: float


@dataclass
class Cluster:
    """One scheduler and its workers, for one measurement."""

    side: Side
    workers: int = 0
    saturation: str = "1.1"
    processes: list[subprocess.Popen] = field(default_factory=list)
    worker_pids: list[int] = field(default_factory=list)
    helper_peak: dict[int, float] = field(default_factory=dict)

    def __enter__(self) -> Cluster:
        SCRATCH.mkdir(exist_ok=True)
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.side.name}-", dir=SCRATCH))
        file = self.dir / "scheduler.json"
        env = {k: v for k, v in os.environ.items() if not k.startswith("DASK_")}
        env["DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION"] = self.saturation
        env["OXIDASK_PYTHON"] = sys.executable
        env["PYTHONPATH"] = str(Path(__file__).parent)
        self.env = env
        flags = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        scheduler = self.start([*self.side.command, *flags], "scheduler")
        self.pid = scheduler.pid
        try:
            wait_for(lambda: file.exists() and file.read_text().endswith("}"), f"{self.side.name} scheduler", 30)
            import json

            self.address = json.loads(file.read_text())["address"]
            self.rest = rss(self.pid)
            for i in range(self.workers):
                name = f"w{i}"
                command = [sys.executable, "-m", "dask", "worker", self.address, "--nthreads", "1", "--no-nanny"]
                command += ["--memory-limit", "6GiB", "--host", "127.0.0.1", "--no-dashboard", "--name", name]
                worker = self.start([*command, "--local-directory", str(self.dir)], name)
                self.worker_pids.append(worker.pid)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, command: list[str], name: str, **kwargs) -> subprocess.Popen:
        with open(self.dir / f"{name}.log", "ab") as log:
            out = {"stdout": log, "stderr": log, **kwargs}
            process = subprocess.Popen(command, env=self.env, cwd=self.dir, start_new_session=True, **out)
        self.processes.append(process)
        return process

    def client(self):
        from distributed import Client

        client = Client(self.address, set_as_default=True)
        if self.workers:
            client.wait_for_workers(self.workers, timeout=60)
        return client

    def usage(self) -> Usage:
        for pid in helpers(self.pid):
            self.helper_peak[pid] = cpu(pid)
        return Usage(
            when=time.perf_counter(),
            scheduler=cpu(self.pid),
            helpers=sum(self.helper_peak.values()),
            workers=sum(map(cpu, self.worker_pids)),
            client=time.process_time(),
            busy=busy(),
        )

    def helper_rss(self) -> int:
        return sum(map(rss, helpers(self.pid)))

    def __exit__(self, *exc) -> None:
        for process in reversed(self.processes):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def costs(a: Usage, b: Usage, tasks: int) -> dict[str, float]:
    """What happened between two readings."""
    wall = b.when - a.when
    scheduler, helper = b.scheduler - a.scheduler, b.helpers - a.helpers
    own = scheduler + helper + (b.workers - a.workers) + (b.client - a.client)
    return {
        "wall_s": wall,
        "tasks_per_s": tasks / wall,
        "scheduler_us": scheduler / tasks * 1e6,
        "helper_us": helper / tasks * 1e6,
        "both_us": (scheduler + helper) / tasks * 1e6,
        "client_us": (b.client - a.client) / tasks * 1e6,
        "workers_us": (b.workers - a.workers) / tasks * 1e6,
        "other_load": (b.busy - a.busy - own) / wall,
    }


class Fakes:
    """Zero workers (the `zworker` binary) connected to a cluster's scheduler."""

    def __init__(self, cluster: Cluster, count: int):
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        binary = next(p for p in (target / d / "zworker" for d in ("release", "fast")) if p.exists())
        self.process = cluster.start(
            [str(binary), cluster.address, str(count)],
            "zworker",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        if line.split() != ["registered", str(count)]:
            log = cluster.dir / "zworker.log"
            raise RuntimeError(f"zworker: {line!r} {log.read_text() if log.exists() else ''}")
        cluster.worker_pids.append(self.process.pid)

    def ask(self, line: str) -> dict[str, float]:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        names = "tasks messages_in bytes_in messages_out bytes_out first last cpu".split()
        return dict(zip(names, map(float, self.process.stdout.readline().split())))
