"""The host process: operations, each in a task of its own, until the scheduler closes the socket."""

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import pickle
import shutil
import sys

from dask.utils import parse_timedelta
from distributed.core import error_message

from .link import Link, decode
from .shuffle import run_spec

logger = logging.getLogger("oxidask.host")


class Host:
    """State of this process."""

    def __init__(self, link):
        # Not before the link is up: the scheduler may already wait for an answer.
        from .events import Events, wants
        from .mirror import MirrorScheduler

        self.link = link
        self.tasks = {}
        self.tapped = wants(())
        self.listeners = 0
        self.sys_path = list(sys.path)
        self.mirror = MirrorScheduler(link, self.plugins_changed)
        self.uploads = self.mirror.local_directory
        self.events = Events(self.mirror)
        self.consumer = asyncio.ensure_future(self.events.run())
        self.ended = asyncio.Event()

    # ---- messages

    def receive(self, head, frames):
        """A message of the scheduler, or its end."""
        if head is None:
            self.ended.set()
        elif head["t"] == "call":
            self.tasks[head["id"]] = asyncio.ensure_future(self.answer(head, frames))
        elif head["t"] == "events":
            self.events.batches.put_nowait(decode(frames))
        elif head["t"] == "cancel":
            task = self.tasks.get(head["id"])
            if task is not None:
                task.cancel()

    async def answer(self, head, frames):
        """Run one operation."""
        number, op = head["id"], head["op"]
        try:
            operation = getattr(self, "op_" + op)
            args = decode(frames)
            result = await (operation(args, number) if op == "feed" else operation(args))
            self.share_sys_path()
            self.link.send({"t": "result", "id": number}, result)
        except asyncio.CancelledError:
            self.link.send({"t": "result", "id": number}, None)
        except OSError if op == "feed" else ():
            self.link.send({"t": "result", "id": number}, None)
        except BaseException as e:
            if not isinstance(e, Exception):
                logger.warning("%s ended with %r", op, e)
            self.link.send({"t": "error", "id": number}, error_message(e, status="uncaught-error"))
        finally:
            self.tasks.pop(number, None)

    def plugins_changed(self):
        """Tell the scheduler which events are wanted now."""
        from .events import wants

        wanted = wants(self.mirror.plugins.values())
        if self.listeners:
            wanted.update(transitions=True, log=True, graphs=True)
        if wanted != self.tapped:
            self.tapped = wanted
            self.link.ask("tap", "", wanted)
            # What was read before may have changed before events were on: it must be read again.
            self.mirror.forget()

    @contextlib.contextmanager
    def listening(self):
        """All events while a plugin is being made: it may look at the state first and be added later."""
        from .mirror import AT_ONCE_FOR_PLUGINS

        self.listeners += 1
        self.plugins_changed()
        self.mirror.forget()
        try:
            with self.mirror.seen_at_once(AT_ONCE_FOR_PLUGINS):
                yield
        finally:
            self.listeners -= 1
            self.plugins_changed()

    def share_sys_path(self):
        """What functions and plugins put on ``sys.path`` is for graphs, too."""
        for path in reversed([p for p in sys.path if p not in self.sys_path]):
            if path != self.uploads or os.listdir(path):
                self.sys_path.append(path)
                self.link.ask("path", os.path.abspath(path))

    # ---- operations

    async def op_ready(self, args):
        """The first one: everything is imported."""
        return os.getpid()

    async def op_run_function(self, args):
        """``Client.run_on_scheduler``."""
        from .mirror import AT_ONCE

        self.mirror.forget()
        names = ("function", "args", "kwargs", "wait")
        with self.mirror.seen_at_once(AT_ONCE):
            return await self.mirror.run_function(None, **{k: args[k] for k in names if args.get(k) is not None})

    async def op_register_scheduler_plugin(self, args):
        """Register a plugin; the name under which it is known."""
        from distributed.diagnostics.plugin import SchedulerPlugin, _get_plugin_name

        plugin = args["plugin"]
        plugin = plugin if isinstance(plugin, SchedulerPlugin) else pickle.loads(plugin)
        name = args.get("name") or _get_plugin_name(plugin)
        idempotent = args.get("idempotent")
        if idempotent is None:
            idempotent = getattr(plugin, "idempotent", False)
        with self.listening():
            await self.mirror.register_scheduler_plugin(plugin, name=name, idempotent=idempotent)
        return name

    async def op_preload(self, args):
        """Import modules and run their ``dask_setup``."""
        from distributed.preloading import process_preloads

        self.mirror.preloads = process_preloads(self.mirror, list(args["preload"]), list(args["argv"]))
        with self.listening():
            await self.mirror.preloads.start()

    async def op_unregister_scheduler_plugin(self, args):
        """Take a plugin away."""
        await self.mirror.unregister_scheduler_plugin(args["name"])

    async def op_feed(self, args, number):
        """Call a function again and again and pass its values on, as the stock ``Scheduler.feed``."""
        interval = parse_timedelta(args.get("interval") or "1s")
        names = ("function", "setup", "teardown")
        function, setup, teardown = (pickle.loads(args[n]) if args.get(n) else None for n in names)
        state = None
        if setup:
            with self.listening():
                state = setup(self.mirror)
                if inspect.isawaitable(state):
                    state = await state
        try:
            while True:
                value = function(self.mirror) if state is None else function(self.mirror, state)
                # Waits until the connection has taken the value before.
                await self.link.ask_async("item", str(number), value)
                await asyncio.sleep(interval)
        finally:
            if teardown:
                teardown(self.mirror, state)

    async def op_performance_report(self, args):
        """The stock report as HTML."""
        names = ("start", "last_count", "code", "mode")
        return await self.mirror.performance_report(**{k: args[k] for k in names if k in args})

    async def op_workers_to_close(self, args):
        """With a key function, or plugins that have a say."""
        names = ("memory_ratio", "n", "key", "minimum", "target", "attribute")
        return self.mirror.workers_to_close(**{k: args[k] for k in names if args.get(k) is not None})

    async def op_dump_cluster_state_to_url(self, args):
        """Write the state to any file system that fsspec knows."""
        options = dict(args)
        url, exclude = options.pop("url"), options.pop("exclude", ())
        form = options.pop("format", "msgpack")
        for name in ("op", "reply", "close", "serializers"):
            options.pop(name, None)
        await self.mirror.dump_cluster_state_to_url(url, exclude, form, **options)

    async def op_get_versions(self, args):
        """What is installed here."""
        from distributed.versions import get_versions

        return get_versions(packages=args.get("packages") if args else None)

    async def op_warm(self, args):
        """A shuffle is coming: import what its specification will need."""
        for name in ("distributed.shuffle._shuffle", "distributed.shuffle._rechunk", "pyarrow", "pandas"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)

    async def op_shuffle_spec(self, args):
        """Placement and pickle of a shuffle's run."""
        return run_spec(**args)

    async def op_close(self, args):
        """Let plugins and preloaded modules end."""
        for hook in ("before_close", "close"):
            if hook == "close" and self.mirror.preloads:
                await self.mirror.preloads.teardown()
            for plugin in list(self.mirror.plugins.values()):
                try:
                    if hasattr(plugin, hook):
                        await getattr(plugin, hook)()
                except Exception:
                    logger.exception("Plugin call failed during scheduler.%s", hook)


async def serve(sock):
    """Serve until the scheduler goes away."""
    link = Link(sock)
    early = []
    handler = [lambda *message: early.append(message)]
    link.start(lambda *message: handler[0](*message))
    host = Host(link)
    handler[0] = host.receive
    for message in early:
        host.receive(*message)
    try:
        await host.ended.wait()
    finally:
        shutil.rmtree(host.mirror.local_directory, ignore_errors=True)


def main(sock):
    """Entry point of the process."""
    logging.basicConfig(level=logging.INFO, format="%(name)s - %(levelname)s - %(message)s", stream=sys.stderr)
    try:
        asyncio.run(serve(sock))
    except KeyboardInterrupt:
        pass
    finally:
        # Threads of user code (trackers, servers) must not keep the process when the scheduler has gone.
        os._exit(0)
