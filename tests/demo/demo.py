"""`make demo`: our scheduler, two stock workers, an analysis with the stock client; then everything is stopped.

Only loopback ports that are free are used. The exit status is the analysis's. Ctrl-C leaves nothing behind.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(command, log):
    """In a process group of its own, so that Ctrl-C reaches only this script, which then stops all in order."""
    with open(log, "wb") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0, preexec_fn=die_with_parent
        )


def stop(processes):
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + 4
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def wait_for(condition, process, log, what, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{what} did not start:\n{Path(log).read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)


def scheduler_binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("OXIDASK_SCHEDULER", str(target / "fast" / "oxidask-scheduler"))


def run(folder, processes):
    os.environ["OXIDASK_PYTHON"] = sys.executable
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    file, log = folder / "scheduler.json", folder / "scheduler.log"
    command = [scheduler_binary(), "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    processes.append(start([*command, "--scheduler-file", str(file)], log))
    wait_for(lambda: file.exists() and file.read_text().strip().endswith("}"), processes[-1], log, "the scheduler")
    identity = json.loads(file.read_text())
    address, port = identity["address"], identity["services"]["dashboard"]
    print(f"scheduler  {address}\nHTTP       http://127.0.0.1:{port}   (/health, /metrics, /json/counts.json, /info)")

    workers = []
    for name in ("one", "two"):
        log = folder / f"worker-{name}.log"
        command = [sys.executable, "-m", "dask", "worker", address, "--name", name, "--nthreads", "1", "--no-nanny"]
        command += ["--no-dashboard", "--host", "127.0.0.1", "--memory-limit", "2GiB", "--local-directory", str(folder)]
        workers.append((start(command, log), log))
        processes.append(workers[-1][0])
    for process, log in workers:
        wait_for(lambda log=log: "Registered to:" in log.read_text(errors="replace"), process, log, "a worker")
    print("workers    two stock `dask worker` processes\n")

    data = folder / "data"
    data.mkdir()
    command = [sys.executable, str(HERE / "analysis.py"), address, str(data)]
    analysis = subprocess.Popen(command, process_group=0, preexec_fn=die_with_parent)
    try:
        return analysis.wait()
    finally:
        analysis.kill()
        analysis.wait()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="oxidask-demo-"))
    processes = []
    status = 1
    try:
        status = run(folder, processes)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        status = 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop(processes[::-1])
        if status not in (0, 130):
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    print("demo: everything ran and was stopped" if status == 0 else f"demo: exit status {status}")
    return status


if __name__ == "__main__":
    sys.exit(main())
