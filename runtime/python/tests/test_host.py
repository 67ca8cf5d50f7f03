"""The host process against canned snapshots: operations, the mirror, plugins and their events."""

import pickle
import time

import cloudpickle
import pytest
from distributed import SchedulerPlugin
from host_client import HostProcess
from oxidask.host.views import TASK_FIELDS

ADDRESS = "tcp://10.0.0.2:1234"


def task(key, state="memory", dependencies=(), dependents=(), **fields):
    """A task's record."""
    record = dict.fromkeys(TASK_FIELDS)
    record.update(
        key=key, state=state, group=key.split("-")[0], prefix=key.split("-")[0], nbytes=8, type="int",
        priority=(0.0, 1.0, 0), who_has=(ADDRESS,) if state == "memory" else (), dependencies=dependencies,
        dependents=dependents, waiting_on=(), waiters=(), who_wants=("client-1",), retries=0, suspicious=0,
        loose_restrictions=False, actor=False, has_run_spec=True, erred_on=(), has_lost_dependencies=False, run_id=1,
        _queueable=True,
    )  # fmt: skip
    record.update(fields)
    return tuple(record.values())


WORKER = {
    "address": ADDRESS,
    "host": "10.0.0.2",
    "name": "alice",
    "server_id": "Worker-1",
    "status": "running",
    "pid": 7,
    "nthreads": 4,
    "memory_limit": 1000,
    "local_directory": "/tmp",
    "services": {},
    "versions": {},
    "nanny": None,
    "extra": {},
    "nbytes": 16,
    "metrics": {"memory": 100, "managed_bytes": 16, "spilled_bytes": {"memory": 0, "disk": 0}},
    "last_seen": 1.0,
    "time_delay": 0.0,
    "bandwidth": 1e8,
    "resources": {"GPU": 1.0},
    "used_resources": {"GPU": 0.0},
    "occupancy": 0.5,
    "network_occ": 0,
    "unmanaged_old": 0,
    "prefix_count": {},
}


class Scheduler:
    """What the canned snapshots are made of."""

    def __init__(self):
        self.tasks = [task("inc-1", dependents=("sum-1",)), task("sum-1", "processing", dependencies=("inc-1",))]
        self.snapshots = {
            "info": lambda args: {
                "address": "tcp://10.0.0.1:8786",
                "id": "Scheduler-1",
                "n_tasks_known": len(self.tasks),
                "total_nthreads": 4,
                "idle": (ADDRESS,),
                "saturated": (),
            },
            "keys": lambda args: [t[0] for t in self.tasks],
            "tasks": lambda args: [t for t in self.tasks if args["keys"] is None or t[0] in args["keys"]],
            "workers": lambda args: [WORKER],
            "worker_tasks": lambda args: {
                "processing": ["sum-1"], "has_what": ["inc-1"], "long_running": [], "actors": [],
                "executing": [("sum-1", 0.5)], "needs_what": [],
            },  # fmt: skip
            "clients": lambda args: [{"name": "client-1"}],
            "groups": lambda args: [
                {"name": "inc", "prefix": "inc", "states": (0, 0, 0, 0, 0, 1, 0, 0), "nbytes_total": 8,
                 "durations": [("compute", 0.25)], "dependencies": ()},
            ],  # fmt: skip
            "prefixes": lambda args: [
                {"name": "inc", "states": (0, 0, 0, 0, 0, 1, 0, 0), "nbytes_total": 8, "durations": (),
                 "duration_average": 0.25, "state_counts": (1, 1, 0, 0, 1, 1, 0, 0)},
            ],  # fmt: skip
            "shuffle_workers": lambda args: [],
        }


@pytest.fixture
def host():
    scheduler = Scheduler()
    process = HostProcess(scheduler.snapshots, {"log_event": None, "broadcast": {ADDRESS: "OK"}})
    process.scheduler = scheduler
    process.call("ready")
    yield process
    assert process.close() == 0


def test_functions(host):
    assert host.run(lambda x, y=1: x + y, 2, y=3) == 5
    assert host.run(lambda dask_scheduler: dask_scheduler.address) == "tcp://10.0.0.1:8786"
    with pytest.raises(ZeroDivisionError):
        host.run(lambda: 1 / 0)
    with pytest.raises(NotImplementedError, match="retire_workers"):
        host.run(lambda dask_scheduler: dask_scheduler.transition("x", "memory", stimulus_id="s"))


def test_tasks_and_workers(host):
    def look(dask_scheduler):
        ws = dask_scheduler.workers["tcp://10.0.0.2:1234"]
        ts = dask_scheduler.tasks["sum-1"]
        (dep,) = ts.dependencies
        assert dep is dask_scheduler.tasks["inc-1"] and dep.who_has == {ws}
        assert ws.processing == {ts} and ws.has_what == {dep} and ws.executing == {ts: 0.5}
        assert dask_scheduler.idle == {ws.address: ws} and dask_scheduler.saturated == set()
        group = dep.group
        return {
            "worker": (ws.name, ws.nthreads, ws.status.name, ws.memory.process, ws.resources, ws.host),
            "task": (ts.state, dep.state, ts.priority, repr(dep), [c.client_key for c in ts.who_wants]),
            "group": (group.name, len(group), group.duration, group.done, repr(group), group.prefix.duration_average),
            "ncores": dask_scheduler.get_ncores(),
            "who_has": dask_scheduler.get_who_has(["inc-1", "nothing"]),
            "memory": dask_scheduler.memory.process,
            "n": len(dask_scheduler.tasks),
        }

    seen = host.run(look)
    assert seen["worker"] == ("alice", 4, "running", 100, {"GPU": 1.0}, "10.0.0.2")
    assert seen["task"] == ("processing", "memory", (0.0, 1.0, 0), "<TaskState 'inc-1' memory>", ["client-1"])
    assert seen["group"] == ("inc", 1, 0.25, True, "<inc: memory: 1>", 0.25)
    assert seen["ncores"] == {ADDRESS: 4} and seen["memory"] == 100 and seen["n"] == 2
    assert seen["who_has"] == {"inc-1": [ADDRESS], "nothing": []}


def test_state_stands_still_until_code_gives_way(host):
    async def look(dask_scheduler):
        import asyncio

        def states():
            return [t.state for t in dask_scheduler.tasks.values()]

        first = states()
        assert states() == first
        ts = dask_scheduler.tasks["sum-1"]
        await asyncio.sleep(0.3)
        return first, states(), ts.state

    number = host.start(
        "run_function", {"function": cloudpickle.dumps(look), "args": cloudpickle.dumps(()), "wait": True}
    )
    host.wait(lambda: any(op == "tasks" for _, op, _ in host.asked))
    host.scheduler.tasks.pop()
    host.wait(lambda: number in host.results)
    _, response = host.results[number]
    assert response["result"] == (["memory", "processing"], ["memory"], "forgotten")
    assert sum(op == "tasks" for _, op, _ in host.asked) <= 3


def test_methods_ask_the_scheduler(host):
    async def ask(dask_scheduler):
        dask_scheduler.log_event("topic", {"a": 1})
        return await dask_scheduler.broadcast(msg={"op": "ping"}, workers=["alice"])

    assert host.run(ask) == {ADDRESS: "OK"}
    assert ("rpc", "log_event", {"topic": "topic", "msg": {"a": 1}}) in host.asked
    assert ("rpc", "broadcast", {"msg": {"op": "ping"}, "workers": ("alice",)}) in host.asked


class Counter(SchedulerPlugin):
    name = "counter"

    def __init__(self):
        self.seen = []

    def transition(self, key, start, finish, *args, stimulus_id, **kwargs):
        self.seen.append((key, start, finish))

    def add_client(self, scheduler, client):
        self.seen.append(client)


def register(host, plugin, **kwargs):
    return host.call("register_scheduler_plugin", {"plugin": cloudpickle.dumps(plugin), "idempotent": False, **kwargs})


def wanted(host):
    return [body for kind, _, body in host.asked if kind == "tap"][-1]


def seen(host, name="counter"):
    return host.run(lambda name, dask_scheduler=None: dask_scheduler.plugins[name].seen, name)


def test_plugins_and_events(host):
    cloudpickle.register_pickle_by_value(__import__(__name__))
    host.events(("transition", "before", "released", "waiting", "s", -1, {}))
    assert register(host, Counter()) == "counter"
    assert wanted(host) == {"transitions": True, "log": True, "graphs": False, "downscaling": False}
    host.events(
        ("transition", "x", "processing", "memory", "s", 8, {"worker": ADDRESS}),
        ("log", "all", {"action": "add-client", "client": "c"}),
        ("log", "c", {"action": "add-client", "client": "c"}),
        ("transition", "x", "memory", "forgotten", "s", 8, {}),
    )
    expected = [("x", "processing", "memory"), "c", ("x", "memory", "forgotten")]
    deadline = time.monotonic() + 10
    while seen(host) != expected:
        assert time.monotonic() < deadline, seen(host)
    host.call("unregister_scheduler_plugin", {"name": "counter"})
    assert not any(wanted(host).values())
    with pytest.raises(ValueError, match="counter"):
        host.call("unregister_scheduler_plugin", {"name": "counter"})


def test_a_plugin_that_fails_harms_no_other(host):
    cloudpickle.register_pickle_by_value(__import__(__name__))

    class Bad(SchedulerPlugin):
        name = "bad"

        def transition(self, *args, **kwargs):
            raise RuntimeError("bad plugin")

    register(host, Bad())
    register(host, Counter())
    host.events(("transition", "x", "processing", "memory", "s", 8, {}))
    deadline = time.monotonic() + 10
    while seen(host) != [("x", "processing", "memory")]:
        assert time.monotonic() < deadline


def test_forgotten_tasks_are_there_for_plugins(host):
    class Names(SchedulerPlugin):
        name = "names"

        def __init__(self):
            self.seen = []

        async def start(self, scheduler):
            self.scheduler = scheduler

        def transition(self, key, start, finish, *args, **kwargs):
            ts = self.scheduler.tasks[key]
            self.seen.append((ts.state, ts.prefix.name, ts.group.name, ts.nbytes))

    register(host, Names())
    host.events(("transition", "gone-1234abcd", "memory", "forgotten", "s", 8, {}))
    deadline = time.monotonic() + 10
    while not seen(host, "names"):
        assert time.monotonic() < deadline
    assert seen(host, "names") == [("forgotten", "gone", "gone", 8)]


def test_feed(host):
    calls = {
        "setup": cloudpickle.dumps(lambda scheduler: {"n": 0}),
        "function": cloudpickle.dumps(lambda scheduler, state: state.update(n=state["n"] + 1) or state["n"]),
        "teardown": cloudpickle.dumps(lambda scheduler, state: scheduler.log_event("feed", "end")),
        "interval": "1ms",
    }
    number = host.start("feed", calls)
    host.wait(lambda: len(host.items.get(number, ())) >= 3)
    assert host.items[number][:3] == [1, 2, 3]
    host.link.send({"t": "cancel", "id": number, "op": ""})
    host.wait(lambda: number in host.results)
    assert ("rpc", "log_event", {"topic": "feed", "msg": "end"}) in host.asked


def test_shuffle_spec(host):
    from dask._task_spec import TaskRef
    from distributed.shuffle._core import P2PBarrierTask, ShuffleRunSpec
    from distributed.shuffle._rechunk import ArrayRechunkSpec, p2p_barrier

    spec = ArrayRechunkSpec(id="abc", disk=True, new=((5, 5),), old=((10,),))
    barrier = P2PBarrierTask("shuffle-barrier-abc", p2p_barrier, "abc", TaskRef("t"), spec=spec)
    args = {"barrier": (pickle.dumps(barrier),), "workers": ("w1", "w2"), "run_id": 7, "existing": ()}
    made = host.call("shuffle_spec", args)
    run = pickle.loads(made["run_spec"])
    assert isinstance(run, ShuffleRunSpec) and (run.run_id, run.id, run.span_id) == (7, "abc", None)
    assert set(run.worker_for) == {(0,), (1,)}
    assert set(made["participants"]) == set(run.worker_for.values())
    again = host.call("shuffle_spec", {**args, "workers": ("w3",), "existing": ((made["run_spec"],),)})
    assert pickle.loads(again["run_spec"]).worker_for == run.worker_for
    with pytest.raises(TypeError, match="barrier"):
        host.call("shuffle_spec", {**args, "barrier": (pickle.dumps(1),)})


def test_worker_plugin_of_shuffles():
    """The bytes in ``scheduler/shuffle``."""
    from distributed.protocol.pickle import dumps
    from distributed.shuffle._worker_plugin import ShuffleWorkerPlugin

    pickled = (
        b"\x80\x05\x95A\x00\x00\x00\x00\x00\x00\x00\x8c\"distributed.shuffle._worker_plugin"
        b"\x94\x8c\x13ShuffleWorkerPlugin\x94\x93\x94)\x81\x94."
    )
    assert dumps(ShuffleWorkerPlugin()) == pickled
