"""Configuration as stock: environment, YAML, flags, the scheduler file."""

import base64
import json
import os
import subprocess

import pytest
import yaml
from harness import STOCK, Process, environment, scheduler_command, wait_until
from helpers import inc


def configured(client, key):
    return client.run_on_scheduler(lambda: __import__("dask").config.get(key))


def encoded(config):
    return base64.urlsafe_b64encode(json.dumps(config).encode()).decode()


def saturation_of(cluster):
    """How many of 50 blocked root tasks two one-thread workers hold: the setting as it acts."""
    from helpers import wait_for_file

    with cluster.client() as client:
        client.wait_for_workers(2)
        flag = cluster.dir / "go"
        futures = client.map(wait_for_file, [str(flag)] * 50, pure=False)
        wait_until(lambda: sum(map(len, client.processing().values())) >= 2, 10)
        count = sum(map(len, client.processing().values()))
        flag.touch()
        client.gather(futures)
    return count


def test_s187_environment(make_cluster):
    assert saturation_of(make_cluster(2, env={"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf"})) == 50


def test_s187_environment_hyphen_and_underscore(make_cluster, tmp_path):
    config = tmp_path / "conf"
    config.mkdir()
    (config / "a.yaml").write_text(yaml.safe_dump({"distributed": {"scheduler": {"worker_saturation": float("inf")}}}))
    assert saturation_of(make_cluster(2, env={"DASK_CONFIG": str(config)})) == 50


def test_s187_inherited_config(make_cluster):
    inherit = encoded({"distributed": {"scheduler": {"worker-saturation": "inf"}}})
    assert saturation_of(make_cluster(2, env={"DASK_INTERNAL_INHERIT_CONFIG": inherit})) == 50


def test_s187_environment_wins_over_yaml(make_cluster, tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text("distributed:\n  scheduler:\n    worker-saturation: 1.0\n    allowed-failures: 0\n")
    env = {"DASK_CONFIG": str(file), "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf"}
    assert saturation_of(make_cluster(2, env=env)) == 50


def test_s187_home_config(make_cluster, tmp_path):
    home = tmp_path / "home"
    (home / ".config" / "dask").mkdir(parents=True)
    (home / ".config" / "dask" / "dask.yaml").write_text("distributed:\n  scheduler:\n    worker-saturation: .inf\n")
    # The stock scheduler reads the place at import, before the fork: ours is started by its own command line.
    if STOCK:
        pytest.skip("the stock scheduler is forked from a process that has read its home already")
    assert saturation_of(make_cluster(2, env={"HOME": str(home), "XDG_CACHE_HOME": str(tmp_path)})) == 50


def test_s187_odd_settings_do_not_stop_the_scheduler(make_cluster, tmp_path):
    (tmp_path / "bad.yaml").write_text("distributed: {scheduler: {no-such-setting: [1, 2]}}\nunknown: 5\n")
    cluster = make_cluster(1, env={"DASK_CONFIG": str(tmp_path), "DASK_MY__OWN": "{'a': 1}"})
    with cluster.client() as client:
        assert client.submit(inc, 1).result(timeout=20) == 2


def test_scheduler_file(make_cluster):
    cluster = make_cluster()
    found = json.loads(cluster.file.read_text())
    assert found["type"] == "Scheduler" and found["address"] == cluster.address and found["workers"] == {}
    from distributed import Client

    process = Process.start(
        ["dask", "worker", "--scheduler-file", str(cluster.file), "--no-nanny", "--name", "by-file", "--no-dashboard"],
        {**cluster.env, "PATH": os.path.dirname(os.sys.executable) + ":" + os.environ["PATH"]},
        cluster.dir / "by-file.log",
        cwd=str(cluster.dir),
    )
    try:
        with Client(scheduler_file=str(cluster.file), set_as_default=False) as client:
            client.wait_for_workers(1, timeout=30)
            assert client.submit(inc, 1).result(timeout=20) == 2
    finally:
        process.close()


def test_pid_file_and_port(make_cluster, tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pid = tmp_path / "pid"
    cluster = make_cluster(scheduler_args=("--port", str(port), "--pid-file", str(pid)))
    assert cluster.address == f"tcp://127.0.0.1:{port}"
    wait_until(pid.exists, 5)
    assert int(pid.read_text()) == cluster.scheduler.pid


def test_s174_operator_command_line(make_cluster):
    """The arguments dask-kubernetes gives its scheduler pod."""
    cluster = make_cluster(scheduler_args=("--host", "0.0.0.0"))
    from distributed import Client

    with Client(f"tcp://127.0.0.1:{cluster.port}", set_as_default=False) as client:
        assert client.scheduler_info()["type"] == "Scheduler"


def test_scheduler_env_address_for_workers(make_cluster):
    cluster = make_cluster()
    cluster.add_worker(env={"DASK_SCHEDULER_ADDRESS": cluster.address}, wait=True)


def test_no_dashboard(make_cluster):
    cluster = make_cluster(1, scheduler_args=("--no-dashboard",))
    with cluster.client() as client:
        assert client.submit(inc, 1).result(timeout=20) == 2


def test_preload_and_help_and_version():
    for flag in ("--help", "--version"):
        out = subprocess.run(
            [*scheduler_command(), flag], env=environment(), capture_output=True, text=True, timeout=30, cwd="/"
        )
        assert out.returncode == 0 and out.stdout
    assert (
        "--scheduler-file"
        in subprocess.run(
            [*scheduler_command(), "--help"], env=environment(), capture_output=True, text=True, timeout=30, cwd="/"
        ).stdout
    )


@pytest.mark.skipif(STOCK, reason="the stock scheduler has it")
def test_jupyter_is_refused_clearly():
    out = subprocess.run(
        [*scheduler_command(), "--jupyter"], env=environment(), capture_output=True, text=True, timeout=30
    )
    assert out.returncode != 0 and "not supported" in out.stdout + out.stderr


def test_unknown_flag_is_refused():
    out = subprocess.run(
        [*scheduler_command(), "--no-such-flag"], env=environment(), capture_output=True, text=True, timeout=30, cwd="/"
    )
    assert out.returncode != 0 and "no-such-flag" in out.stderr


def test_port_taken(make_cluster):
    cluster = make_cluster()
    command = [*scheduler_command(), "--host", "127.0.0.1", "--port", str(cluster.port), "--no-dashboard"]
    out = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, cwd="/")
    assert out.returncode != 0 and "in use" in out.stdout + out.stderr


@pytest.mark.cluster(workers=1, config={"distributed.scheduler.blocked-handlers": "['run_function']"})
def test_blocked_handlers(own):
    _, client = own
    with pytest.raises(ValueError, match="explicitly disallowed"):
        client.run_on_scheduler(inc, 1)
    assert client.submit(inc, 1).result(timeout=10) == 2


@pytest.mark.cluster(workers=1, config={"distributed.admin.low-level-log-length": "10"})
def test_event_log_length(own):
    _, client = own
    for i in range(25):
        client.log_event("long", i)
    wait_until(lambda: [m for _, m in client.get_events("long")][-1] == 24, 5)
    assert [m for _, m in client.get_events("long")] == list(range(15, 25))
