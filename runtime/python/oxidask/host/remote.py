"""Which methods of ``dask_scheduler`` are the stock ones, which ask the scheduler, and which refuse."""

import inspect
import logging

from distributed.scheduler import Scheduler

logger = logging.getLogger("distributed.scheduler")

#: Coroutines of the stock scheduler, by the operation that does the same.
ASYNCHRONOUS = {
    "benchmark_hardware": "benchmark_hardware",
    "broadcast": "broadcast",
    "gather": "gather",
    "get_call_stack": "call_stack",
    "get_cluster_state": "get_cluster_state",
    "get_profile": "profile",
    "get_story": "get_story",
    "get_worker_logs": "worker_logs",
    "proxy": "proxy",
    "rebalance": "rebalance",
    "register_nanny_plugin": "register_nanny_plugin",
    "register_worker_plugin": "register_worker_plugin",
    "remove_worker": "unregister",
    "replicate": "replicate",
    "restart": "restart",
    "restart_workers": "restart_workers",
    "retire_workers": "retire_workers",
    "scatter": "scatter",
    "unregister_nanny_plugin": "unregister_nanny_plugin",
    "unregister_worker_plugin": "unregister_worker_plugin",
}
#: Plain methods: their caller waits without giving way.
SYNCHRONOUS = {
    "adaptive_target": "adaptive_target",
    "add_keys": "add_keys",
    "add_resources": "set_resources",
    "check_idle": "check_idle",
    "get_events": "events",
    "get_logs": "get_logs",
    "get_metadata": "get_metadata",
    "get_nbytes": "nbytes",
    "get_task_prefix_states": "get_task_prefix_states",
    "get_task_status": "get_task_status",
    "get_task_stream": "get_task_stream",
    "get_task_stream_index": "get_task_stream_index",
    "identity": "identity",
    "log_event": "log_event",
    "set_metadata": "set_metadata",
    "set_restrictions": "set_restrictions",
    "start_task_metadata": "start_task_metadata",
    "stimulus_retry": "retry",
    "stop_task_metadata": "stop_task_metadata",
    "update_data": "update_data",
    "versions": "versions",
}
#: Methods that only read what the mirror shows, or that are about plugins.
STOCK = {
    "_get_prefix_duration",
    "_repr_html_",
    "add_plugin",
    "coerce_address",
    "coerce_hostname",
    "dump_cluster_state_to_url",
    "feed",
    "get_comm_cost",
    "get_has_what",
    "get_ncores",
    "get_ncores_running",
    "get_processing",
    "get_who_has",
    "get_worker_monitor_info",
    "get_worker_service_addr",
    "log_worker_event",
    "performance_report",
    "register_scheduler_plugin",
    "remove_plugin",
    "unregister_scheduler_plugin",
    "upload_file",
    "worker_objective",
    "workers_list",
    "workers_to_close",
}
#: Arguments that the operations don't take.
_LOCAL_ARGUMENTS = ("comm", "self", "safe")


def _message(signature, args, kwargs):
    """The operation's keyword arguments."""
    bound = signature.bind(None, *args, **kwargs)
    message = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            message.update(value)
        elif name not in _LOCAL_ARGUMENTS:
            message[name] = sorted(value) if isinstance(value, (set, frozenset)) and name == "workers" else value
    return message


def _asks(name, op, wait):
    stock = inspect.getattr_static(Scheduler, name)
    function = inspect.unwrap(getattr(stock, "__func__", stock))
    signature = inspect.signature(function)
    if wait:

        def method(self, *args, **kwargs):
            result = self.link.ask("rpc", op, _message(signature, args, kwargs))
            self.forget()
            return result

    else:

        async def method(self, *args, **kwargs):
            return await self.link.ask_async("rpc", op, _message(signature, args, kwargs))

    method.__name__ = name
    method.__qualname__ = f"Scheduler.{name}"
    method.__doc__ = getattr(stock, "__doc__", None)
    return method


def _refuses(name):
    def method(self, *args, **kwargs):
        raise NotImplementedError(
            f"Scheduler.{name} works on the scheduler's own state, which is not in Python here: functions and plugins "
            "see a mirror of it. Use the methods that a Client has, too (retire_workers, broadcast, set_restrictions, "
            "rebalance, ...)."
        )

    method.__name__ = name
    method.__qualname__ = f"Scheduler.{name}"
    return method


def install(cls):
    """Class decorator: replace what ``cls`` inherits from the stock scheduler and doesn't define itself."""
    own = set(vars(cls))
    for name in dir(Scheduler):
        if name.startswith("__") or name in own or name in STOCK:
            continue
        if name in ASYNCHRONOUS:
            setattr(cls, name, _asks(name, ASYNCHRONOUS[name], wait=False))
        elif name in SYNCHRONOUS:
            setattr(cls, name, _asks(name, SYNCHRONOUS[name], wait=True))
        elif inspect.isfunction(inspect.getattr_static(Scheduler, name)):
            setattr(cls, name, _refuses(name))
    return cls
