"""Workers, tasks, groups, prefixes and clients as the mirror shows them: objects of the stock classes whose attributes
are read from the scheduler when they are touched, and again once the code that touched them has given way."""

import weakref
from collections import defaultdict, deque
from collections.abc import Mapping

from distributed.core import Status
from distributed.scheduler import (
    ALL_TASK_STATES,
    ClientState,
    TaskGroup,
    TaskPrefix,
    TaskState,
    WorkerState,
)

#: Fields of a task's record, in the scheduler's order.
TASK_FIELDS = (
    "key state group prefix nbytes type priority who_has processing_on dependencies dependents waiting_on waiters "
    "who_wants retries suspicious worker_restrictions host_restrictions resource_restrictions loose_restrictions actor "
    "has_run_spec exception traceback exception_text traceback_text exception_blame erred_on has_lost_dependencies "
    "run_id annotations metadata _queueable"
).split()
_AT = {name: i for i, name in enumerate(TASK_FIELDS)}
#: The scheduler's order of task states.
STATE_ORDER = ("released", "waiting", "no-worker", "queued", "processing", "memory", "erred", "forgotten")


def ghost(key, state, group, prefix, nbytes=-1):
    """The record of a task of which only an event is known."""
    record = [None] * len(TASK_FIELDS)
    for name in ("who_has", "dependencies", "dependents", "waiting_on", "waiters", "who_wants"):
        record[_AT[name]] = ()
    known = {"key": key, "state": state, "group": group, "prefix": prefix, "nbytes": nbytes}
    defaults = {"retries": 0, "suspicious": 0, "loose_restrictions": False, "actor": False, "_queueable": True}
    for name, value in {**known, **defaults}.items():
        record[_AT[name]] = value
    return record


def _plain(name):
    at = _AT[name]
    return property(lambda self: self._now()[at], doc=getattr(TaskState, name, None).__doc__)


def _tasks(name, optional=False):
    at = _AT[name]

    def get(self):
        keys = self._now()[at]
        if optional and not keys:
            return None
        view = self._mirror.task_view
        return {view(key) for key in keys}

    return property(get)


def _set_or_none(name):
    at = _AT[name]

    def get(self):
        items = self._now()[at]
        return set(items) if items else None

    return property(get)


class TaskView(TaskState):
    """A task."""

    __slots__ = ("_mirror", "_record", "_epoch")

    def __init__(self, mirror, key, record=None):
        self._mirror = mirror
        self.key = key
        self._hash = hash(key)
        self._record = record
        self._epoch = -1 if record is None else mirror.epoch

    def _now(self):
        mirror = self._mirror
        if self._epoch != mirror.epoch:
            record = mirror.task_record(self.key)
            if record is None:
                # Gone: what was known last stays, as it does for whoever holds a stock task.
                record = list(self._record or ghost(self.key, "forgotten", *mirror.group_names(self.key)))
                record[_AT["state"]] = "forgotten"
            self._record = record
            self._epoch = mirror.epoch
        return self._record

    state = _state = _plain("state")
    nbytes = _plain("nbytes")
    type = _plain("type")
    retries = _plain("retries")
    suspicious = _plain("suspicious")
    loose_restrictions = _plain("loose_restrictions")
    actor = _plain("actor")
    exception = _plain("exception")
    traceback = _plain("traceback")
    exception_text = _plain("exception_text")
    traceback_text = _plain("traceback_text")
    has_lost_dependencies = _plain("has_lost_dependencies")
    run_id = _plain("run_id")
    annotations = _plain("annotations")
    metadata = _plain("metadata")
    resource_restrictions = _plain("resource_restrictions")
    priority = _plain("priority")
    _queueable = _plain("_queueable")
    dependencies = _tasks("dependencies")
    dependents = _tasks("dependents")
    waiting_on = _tasks("waiting_on", optional=True)
    waiters = _tasks("waiters", optional=True)
    worker_restrictions = _set_or_none("worker_restrictions")
    host_restrictions = _set_or_none("host_restrictions")
    erred_on = _set_or_none("erred_on")

    @property
    def group(self):
        return self._mirror.group_view(self._now()[_AT["group"]], self._now()[_AT["prefix"]])

    @property
    def who_has(self):
        workers = self._mirror.workers
        found = {workers[a] for a in self._now()[_AT["who_has"]] if a in workers}
        return found or None

    @property
    def processing_on(self):
        return self._mirror.workers.get(self._now()[_AT["processing_on"]])

    @property
    def who_wants(self):
        clients = self._mirror.clients
        found = {clients[name] for name in self._now()[_AT["who_wants"]] if name in clients}
        return found or None

    @property
    def exception_blame(self):
        key = self._now()[_AT["exception_blame"]]
        return None if key is None else self._mirror.task_view(key)

    @property
    def run_spec(self):
        if not self._now()[_AT["has_run_spec"]]:
            return None
        return self._mirror.link.ask("snapshot", "run_spec", {"key": self.key})

    def __reduce__(self):
        raise TypeError("a task of the scheduler's mirror cannot be sent: return the attributes you need")


class Tasks(Mapping):
    """``scheduler.tasks``."""

    def __init__(self, mirror):
        self._mirror = mirror

    def __getitem__(self, key):
        record = self._mirror.task_record(key)
        if record is None:
            raise KeyError(key)
        return self._mirror.task_view(key)

    def __contains__(self, key):
        return self._mirror.task_record(key) is not None

    def __iter__(self):
        return iter(self._mirror.task_keys())

    def __len__(self):
        return self._mirror.info["n_tasks_known"]

    def __bool__(self):
        return len(self) > 0

    def values(self):
        self._mirror.load_all_tasks()
        return super().values()

    def items(self):
        self._mirror.load_all_tasks()
        return super().items()

    def copy(self):
        return dict(self.items())

    def __repr__(self):
        return f"<{len(self)} tasks of the scheduler>"


def _of_worker(name):
    return property(lambda self: self._now()[name])


def _worker_tasks(name):
    def get(self):
        view = self._mirror.task_view
        return {view(key) for key in self._tasks()[name]}

    return property(get)


class WorkerView(WorkerState):
    """A worker."""

    __slots__ = ("_mirror", "_record", "_epoch", "__weakref__")

    def __init__(self, mirror, record):
        self._mirror = mirror
        self._record = record
        self._epoch = mirror.epoch
        self.address = record["address"]
        self.host = record["host"]
        self.server_id = record["server_id"]
        self._hash = hash(self.server_id)
        self.scheduler_ref = weakref.ref(mirror)
        self._occupancy_cache = None

    def _now(self):
        mirror = self._mirror
        if self._epoch != mirror.epoch:
            # A worker that has left keeps what was known last.
            self._record = mirror.worker_records().get(self.address) or {**self._record, "status": "closed"}
            self._epoch = mirror.epoch
        return self._record

    def _tasks(self):
        return self._mirror.worker_tasks(self.address)

    status = property(lambda self: Status.lookup.get(self._now()["status"], Status.undefined))
    pid = _of_worker("pid")
    name = _of_worker("name")
    nthreads = _of_worker("nthreads")
    memory_limit = _of_worker("memory_limit")
    local_directory = _of_worker("local_directory")
    services = _of_worker("services")
    versions = _of_worker("versions")
    nanny = _of_worker("nanny")
    extra = _of_worker("extra")
    nbytes = _of_worker("nbytes")
    metrics = _of_worker("metrics")
    last_seen = _of_worker("last_seen")
    time_delay = _of_worker("time_delay")
    bandwidth = _of_worker("bandwidth")
    resources = _of_worker("resources")
    used_resources = _of_worker("used_resources")
    occupancy = _of_worker("occupancy")
    _network_occ = _of_worker("network_occ")
    _memory_unmanaged_old = _of_worker("unmanaged_old")
    _memory_unmanaged_history = property(lambda self: deque())
    task_prefix_count = property(lambda self: defaultdict(int, self._now()["prefix_count"]))
    processing = _worker_tasks("processing")
    long_running = _worker_tasks("long_running")
    actors = _worker_tasks("actors")

    @property
    def executing(self):
        view = self._mirror.task_view
        return {view(key): seconds for key, seconds in self._tasks()["executing"]}

    @property
    def needs_what(self):
        view = self._mirror.task_view
        return {view(key): n for key, n in self._tasks()["needs_what"]}

    @property
    def _has_what(self):
        return dict.fromkeys(map(self._mirror.task_view, self._tasks()["has_what"]))

    @property
    def has_what(self):
        return self._has_what.keys()

    def __reduce__(self):
        raise TypeError("a worker of the scheduler's mirror cannot be sent: return the attributes you need")


def _states(counts):
    return dict.fromkeys(ALL_TASK_STATES, 0) | dict(zip(STATE_ORDER, counts))




class _Collection:
    """What groups and prefixes have in common."""

    def __init__(self, mirror, name):
        self._mirror = mirror
        self.name = name

    _KIND = None

    def _now(self):
        return self._mirror.collection_records(self._KIND).get(self.name) or self._nothing()

    states = property(lambda self: _states(self._now()["states"]))
    nbytes_total = property(lambda self: self._now()["nbytes_total"])
    _all_durations_us = property(
        lambda self: defaultdict(int, {a: round(s * 1e6) for a, s in self._now()["durations"]})
    )
    _duration_us = property(lambda self: sum(self._all_durations_us.values()))
    _size = property(lambda self: sum(self._now()["states"]))
    _types = property(lambda self: defaultdict(int))

    def _nothing(self):
        return {"states": (0,) * len(STATE_ORDER), "nbytes_total": 0, "durations": ()}


class GroupView(_Collection, TaskGroup):
    """A group of tasks."""

    _KIND = "groups"

    def __init__(self, mirror, name, prefix):
        super().__init__(mirror, name)
        self._prefix_name = prefix

    prefix = property(lambda self: self._mirror.prefix_view(self._prefix_name))
    start = property(lambda self: self._now().get("start", 0.0))
    stop = property(lambda self: self._now().get("stop", 0.0))
    last_worker = property(lambda self: None)
    last_worker_tasks_left = property(lambda self: 0)
    span_id = property(lambda self: None)

    @property
    def dependencies(self):
        groups = self._mirror.task_groups
        return {groups[name] for name in self._now().get("dependencies", ()) if name in groups}


class PrefixView(_Collection, TaskPrefix):
    """All tasks of one operation name."""

    _KIND = "prefixes"

    duration_average = property(lambda self: self._now().get("duration_average", -1))
    max_exec_time = property(lambda self: self._now().get("max_exec_time", -1))
    suspicious = property(lambda self: self._now().get("suspicious", 0))

    @property
    def state_counts(self):
        return defaultdict(int, zip(STATE_ORDER, self._now().get("state_counts", ())))

    @property
    def _groups(self):
        groups = self._mirror.task_groups.values()
        return {g: None for g in groups if g._prefix_name == self.name}


class ClientView(ClientState):
    """A client."""

    __slots__ = ("_mirror",)

    def __init__(self, mirror, record):
        super().__init__(record["name"], versions=record.get("versions") or None)
        self._mirror = mirror
        self.last_seen = record.get("last_seen", 0.0)

    @property
    def wants_what(self):
        keys = self._mirror.link.ask("snapshot", "client_keys", {"client": self.client_key})
        return {self._mirror.task_view(key) for key in keys}

    @wants_what.setter
    def wants_what(self, value):
        pass
