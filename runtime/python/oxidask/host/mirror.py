"""``dask_scheduler``: what functions and plugins see of the scheduler.

An object of the stock class without its state. What code reads is asked of the scheduler when it is touched and kept
until that code gives way to the event loop, so that it sees one consistent state meanwhile, as it does in a stock
scheduler. What code changes goes through the scheduler's own operations.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import weakref
from collections import defaultdict, deque
from types import SimpleNamespace

import dask
import psutil
from dask.utils import key_split
from distributed.core import ConnectionPool, Status
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler
from distributed.security import Security
from distributed.system_monitor import SystemMonitor
from distributed.utils import key_split_group
from sortedcontainers import SortedDict
from tornado.ioloop import IOLoop, PeriodicCallback

from . import remote, views

#: Single tasks asked for, one after the other, before all are loaded at once.
MANY_MISSES = 256
#: Of more tasks than this all are never loaded because of that.
MANY_TASKS = 500_000
#: Up to so many tasks a function sees all of them as of one moment; of more, each as of when it looks.
AT_ONCE = 5_000
#: The same while a plugin is made: what it counts at first must fit the events that come then.
AT_ONCE_FOR_PLUGINS = 200_000
#: Extensions of a stock scheduler. They are the scheduler's own here.
EXTENSIONS = (
    "locks multi_locks publish replay-tasks queues variables semaphores events amm memory_sampler shuffle spans stealing"
).split()


class Extension:
    """Stands for an extension of the scheduler, which Python code cannot reach."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise NotImplementedError(f"the extension {self._name!r} is not in Python here: {attribute!r} cannot be reached")

    def __repr__(self):
        return f"<extension {self._name!r} of the scheduler>"


class ShuffleWorkers(SchedulerPlugin):
    """Keeps workers that take part in a shuffle when workers are chosen to be closed."""

    internal = True

    def valid_workers_downscaling(self, scheduler, workers):
        busy = set(scheduler.snapshot("shuffle_workers"))
        return [w for w in workers if w.address not in busy]


class Plugins(dict):
    """``scheduler.plugins``: tells when plugins come and go."""

    def __init__(self, changed):
        super().__init__(shuffle=ShuffleWorkers())
        self._changed = changed

    def __setitem__(self, name, plugin):
        super().__setitem__(name, plugin)
        self._changed()

    def __delitem__(self, name):
        super().__delitem__(name)
        self._changed()

    def pop(self, *args):
        plugin = super().pop(*args)
        self._changed()
        return plugin


def _info(name):
    return property(lambda self: self.info[name])


@remote.install
class MirrorScheduler(Scheduler):
    """The scheduler as Python code sees it."""

    status = Status.running

    def __init__(self, link, plugins_changed):
        self.link = link
        self.epoch = 0
        self._cache = {}
        self._records = {}
        self._all_loaded = False
        self._misses = 0
        self._hint = ()
        self.limits = []
        self._tasks = weakref.WeakValueDictionary()
        self._workers = {}
        self._collections = {}
        #: Records of tasks that an event is about and that may be gone.
        self.ghosts = {}
        self.loop = self.io_loop = IOLoop.current()
        self.tasks = views.Tasks(self)
        self.plugins = Plugins(plugins_changed)
        self.extensions = {name: Extension(name) for name in EXTENSIONS}
        # Files and packages that are uploaded to the scheduler lie there.
        self.local_directory = tempfile.mkdtemp(prefix="oxidask-host-")
        sys.path.insert(0, self.local_directory)
        self.task_metadata = {}
        self.computations = deque()
        self.bandwidth_workers = defaultdict(float)
        self.bandwidth_types = defaultdict(float)
        self.periodic_callbacks = {}
        self.handlers = {}
        self.stream_handlers = {}
        self.client_comms = {}
        self.stream_comms = {}
        self.preloads = []
        self.validate = False
        self._ongoing_background_tasks = SimpleNamespace(call_soon=self._call_soon)
        self._background = set()

    # ---- reading

    def forget(self):
        """Drop what was read: the next look asks again."""
        self.epoch += 1
        self._cache = {}
        self._records = {}
        self._all_loaded = False
        self._misses = 0

    def _will_forget(self):
        if not self._cache and not self._records:
            try:
                asyncio.get_running_loop().call_soon(self.forget)
            except RuntimeError:  # another thread
                self.loop.asyncio_loop.call_soon_threadsafe(self.forget)

    def snapshot(self, what, **args):
        """A part of the state."""
        key = (what, *args.values())
        if key not in self._cache:
            self._will_forget()
            self._cache[key] = self.link.ask("snapshot", what, args)
        return self._cache[key]

    @property
    def info(self):
        """Figures about the whole scheduler."""
        return self.snapshot("info")

    def task_record(self, key):
        """A task's record, or None."""
        if key in self.ghosts:
            return self.ghosts[key]
        try:
            return self._records[key]
        except KeyError:
            if self._all_loaded:
                return None
        self._misses += 1
        n = self.info["n_tasks_known"]
        if n <= max(self.limits, default=0) or (self._misses == MANY_MISSES and n < MANY_TASKS):
            self.load_all_tasks()
        else:
            self._will_forget()
            keys = {key, *self._hint}
            more = min(4 * self._misses, 1024)
            self._add_records(self.link.ask("snapshot", "tasks", {"keys": list(keys), "more": more}))
            for missing in keys:
                self._records.setdefault(missing, None)
        return self._records.get(key)

    def _add_records(self, records):
        self._records.update((record[0], record) for record in records)

    def load_all_tasks(self):
        """Read all tasks at once."""
        if not self._all_loaded:
            self._will_forget()
            self._records = {}
            self._add_records(self.link.ask("snapshot", "tasks", {"keys": None}))
            self._all_loaded = True

    @contextlib.contextmanager
    def seen_at_once(self, limit):
        """All tasks are read together, if they are at most ``limit``."""
        self.limits.append(limit)
        try:
            yield
        finally:
            self.limits.remove(limit)

    def expect(self, keys):
        """Tasks that code will probably look at next: they are read together."""
        self._hint = keys

    def task_keys(self):
        """Keys of all tasks."""
        if self._all_loaded:
            return [key for key, record in self._records.items() if record is not None]
        return self.snapshot("keys")

    def task_view(self, key):
        """The object of a task."""
        view = self._tasks.get(key)
        if view is None:
            self._tasks[key] = view = views.TaskView(self, key)
        return view

    def group_names(self, key):
        """Names of the group and the prefix that a key belongs to."""
        return key_split_group(key), key_split(key)

    def worker_records(self):
        """Workers' records by address."""
        if ("workers by address",) not in self._cache:
            records = {record["address"]: record for record in self.snapshot("workers")}
            self._cache[("workers by address",)] = records
        return self._cache[("workers by address",)]

    def worker_tasks(self, address):
        """Keys of a worker's tasks."""
        return self.snapshot("worker_tasks", address=address)

    def collection_records(self, kind):
        """Records of groups or prefixes by name."""
        if (kind, "by name") not in self._cache:
            self._cache[(kind, "by name")] = {record["name"]: record for record in self.snapshot(kind)}
        return self._cache[(kind, "by name")]

    def group_view(self, name, prefix):
        """The object of a group."""
        view = self._collections.get(("group", name))
        if view is None:
            self._collections[("group", name)] = view = views.GroupView(self, name, prefix)
        return view

    def prefix_view(self, name):
        """The object of a prefix."""
        view = self._collections.get(("prefix", name))
        if view is None:
            self._collections[("prefix", name)] = view = views.PrefixView(self, name)
        return view

    @property
    def workers(self):
        records = self.worker_records()
        if ("worker views",) not in self._cache:
            known, self._workers = self._workers, {}
            for address, record in records.items():
                view = known.get(address)
                if view is None or view.server_id != record["server_id"]:
                    view = views.WorkerView(self, record)
                self._workers[address] = view
            self._cache[("worker views",)] = SortedDict(self._workers)
        return self._cache[("worker views",)]

    @property
    def clients(self):
        if ("client views",) not in self._cache:
            made = {record["name"]: views.ClientView(self, record) for record in self.snapshot("clients")}
            self._cache[("client views",)] = made
        return self._cache[("client views",)]

    @property
    def task_groups(self):
        if ("group views",) not in self._cache:
            records = self.collection_records("groups")
            if len(self._collections) > 10_000 + 2 * len(records):
                self._collections = {}
            self._cache[("group views",)] = {name: self.group_view(name, r["prefix"]) for name, r in records.items()}
        return self._cache[("group views",)]

    @property
    def task_prefixes(self):
        return {name: self.prefix_view(name) for name in self.collection_records("prefixes")}

    def _named_workers(name):  # noqa: N805
        def get(self):
            workers = self.workers
            return [workers[a] for a in self.info[name] if a in workers]

        return get

    idle = property(lambda self, get=_named_workers("idle"): SortedDict((ws.address, ws) for ws in get(self)))
    idle_task_count = property(lambda self, get=_named_workers("idle_task_count"): set(get(self)))
    saturated = property(lambda self, get=_named_workers("saturated"): set(get(self)))
    running = property(lambda self: {ws for ws in self.workers.values() if ws.status is Status.running})
    unrunnable = property(lambda self: {self.task_view(k): since for k, since in self.info["unrunnable"]})
    queued = property(lambda self: [self.task_view(k) for k in self.snapshot("queued")])
    replicated_tasks = property(lambda self: {ts for ts in self.tasks.values() if len(ts.who_has or ()) > 1})
    address = _info("address")
    contact_address = _info("address")
    id = _info("id")
    name = _info("id")
    services = _info("services")
    time_started = _info("started")
    bandwidth = _info("bandwidth")
    total_nthreads = _info("total_nthreads")
    total_memory = _info("total_memory")
    total_occupancy = _info("total_occupancy")
    transition_counter = _info("transition_counter")
    n_tasks = _info("n_tasks")
    resources = _info("resources")
    aliases = _info("aliases")
    idle_since = _info("idle_since")
    host_info = property(lambda self: self.snapshot("hosts"))
    transition_log = property(lambda self: deque(self.snapshot("transition_log")))
    erred_tasks = property(lambda self: deque(self.snapshot("erred_tasks")))
    events = property(lambda self: self.get_events())
    listen_address = property(lambda self: self.address)
    is_idle = property(lambda self: self.info["is_idle"])

    @property
    def security(self):
        """The certificates of the scheduler."""
        with dask.config.set(self.info.get("tls") or {}):
            return Security()

    @property
    def connection_args(self):
        return self.security.get_connection_args("scheduler")

    @property
    def rpc(self):
        """Connections to workers, as ``scheduler.rpc(address)``."""
        if "_pool" not in vars(self):
            self._pool = ConnectionPool(limit=64, deserialize=True, connection_args=self.connection_args, server=None)
            # What its coroutine `start` does.
            self._pool.semaphore = asyncio.Semaphore(self._pool.limit)
            self._pool.status = Status.running
        return self._pool

    @property
    def monitor(self):
        """Figures of the scheduler's process, from the first look on."""
        if "_monitor" not in vars(self):
            self._monitor = SystemMonitor()
            self._monitor.proc = psutil.Process(os.getppid())
            self._monitor.update()
            self._monitor_callback = PeriodicCallback(self._monitor.update, 500)
            self._monitor_callback.start()
        return self._monitor

    # ---- changing

    def _call_soon(self, function, *args, **kwargs):
        task = self.loop.asyncio_loop.create_task(function(*args, **kwargs))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self, timeout=None, reason="unknown"):
        """Ask the scheduler to end."""
        await self.link.ask_async("rpc", "terminate", {})

    async def finished(self):
        """Wait for ever: this process ends with the scheduler."""
        await asyncio.Event().wait()

    def run_function(self, comm, function, args=(), kwargs=None, wait=True):
        """As the stock method: ``function`` is pickled."""
        from distributed.worker import run

        return run(self, comm, function=function, args=args, kwargs=kwargs, wait=wait)

    async def upload_file(self, filename, data, load=True):
        """Keep a file and import it, here and where graphs are made."""
        data = data.encode() if isinstance(data, str) else data
        result = await Scheduler.upload_file(self, filename, data, load=load)
        if load and os.path.splitext(filename)[1] in (".py", ".zip", ".egg", ".pyz"):
            await self.link.ask_async("upload", filename, {"data": bytes(data)})
        return result

    def worker_send(self, worker, msg):
        """Send a message on a worker's stream."""
        self.send_all({}, {worker: [msg]})

    def client_send(self, client, msg):
        """Send a message on a client's stream."""
        self.send_all({client: [msg]}, {})

    def send_all(self, client_msgs, worker_msgs):
        """Send messages on streams."""
        self.link.ask("rpc", "oxidask_send", {"clients": client_msgs, "workers": worker_msgs})

    def story(self, *keys_or_tasks):
        """Transitions of tasks, or caused by stimuli."""
        keys = [getattr(k, "key", k) for k in keys_or_tasks]
        return self.link.ask("rpc", "get_story", {"keys_or_stimuli": keys})

    def stimulus_cancel(self, keys, client, force=False, reason="", msg=None):
        """Cancel tasks for a client."""
        self.link.ask("rpc", "oxidask_cancel", {"keys": list(keys), "client": client, "force": force, "reason": reason})

    async def performance_report(self, start, last_count, code="", mode=None):
        """The stock report, of this mirror."""
        return await Scheduler.performance_report(self, start, last_count, code=code, mode=mode)

    @property
    def worker_plugins(self):
        return self.snapshot("worker_plugins")

    @property
    def nanny_plugins(self):
        return self.snapshot("nanny_plugins")

