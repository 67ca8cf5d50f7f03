"""The scheduler's events, given to plugins in their order."""

import asyncio
import inspect
import logging

from distributed.diagnostics.plugin import SchedulerPlugin

from . import views

logger = logging.getLogger("distributed.scheduler")

#: Hooks that follow from logged events of the topic "all": by the event's action, the hook's name.
_LOGGED = {
    "add-worker": "add_worker",
    "remove-worker": "remove_worker",
    "add-client": "add_client",
    "remove-client": "remove_client",
    "restart": "restart",
    "restart-workers": None,
}


def has_hook(plugin, name):
    """Whether a plugin does something in a hook."""
    method = getattr(plugin, name, None)
    return method is not None and getattr(method, "__func__", method) is not getattr(SchedulerPlugin, name, None)


def wants(plugins):
    """Which events the scheduler must send for these plugins."""
    plugins = [p for p in plugins if not getattr(p, "internal", False)]

    def any_has(*names):
        return any(has_hook(p, name) for p in plugins for name in names)

    return {
        "transitions": any_has("transition"),
        "log": any_has("log_event", "add_worker", "remove_worker", "add_client", "remove_client", "restart"),
        "graphs": any_has("update_graph"),
        "downscaling": any_has("valid_workers_downscaling"),
    }


class Events:
    """Gives batches of events to plugins, one after the other."""

    def __init__(self, mirror):
        self.mirror = mirror
        self.batches = asyncio.Queue()

    async def run(self):
        """Work for ever."""
        while True:
            batch = await self.batches.get()
            self.mirror.expect([event[1] for event in batch if event[0] == "transition"])
            try:
                for event in batch:
                    await self._dispatch(event)
            finally:
                self.mirror.expect(())
                self.batches.task_done()

    async def _dispatch(self, event):
        kind, *fields = event
        if kind == "transition":
            self._transition(*fields)
        elif kind == "log":
            await self._logged(*fields)
        elif kind == "graph":
            client, tasks, keys, annotations, priority, stimulus = fields
            await self._call(
                "update_graph",
                self.mirror,
                client=client,
                keys=set(keys),
                tasks=list(tasks),
                annotations=annotations,
                priority=priority,
                stimulus_id=stimulus,
            )

    def _transition(self, key, start, finish, stimulus, nbytes, extra):
        hooks = [p for p in self.mirror.plugins.values() if has_hook(p, "transition")]
        if not hooks:
            return
        if finish == "forgotten":
            self.mirror.ghosts[key] = views.ghost(key, finish, *self.mirror.group_names(key), nbytes)
        try:
            for plugin in hooks:
                try:
                    plugin.transition(key, start, finish, stimulus_id=stimulus, **extra or {})
                except Exception:
                    logger.info("Plugin failed with exception", exc_info=True)
        finally:
            self.mirror.ghosts.pop(key, None)

    async def _logged(self, topic, msg):
        await self._call("log_event", topic, msg)
        if topic != "all" or not isinstance(msg, dict):
            return
        hook = _LOGGED.get(msg.get("action"))
        if hook in ("add_client", "remove_client"):
            await self._call(hook, self.mirror, msg["client"])
        elif hook == "add_worker":
            await self._call(hook, self.mirror, msg["worker"])
        elif hook == "remove_worker":
            await self._call(hook, self.mirror, msg["worker"], stimulus_id=msg.get("stimulus_id", "remove-worker"))
        elif hook == "restart":
            await self._call(hook, self.mirror)

    async def _call(self, hook, *args, **kwargs):
        for plugin in list(self.mirror.plugins.values()):
            if not has_hook(plugin, hook):
                continue
            try:
                result = getattr(plugin, hook)(*args, **kwargs)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("%s hook of %s failed", hook, type(plugin).__qualname__)
