"""What a graph costs per task, stage by stage, in the stock scheduler's code and in the helper.

    python measure_graphs.py [case ...]

The helper's figures hold everything from the request to the last byte of the answer, which this process reads.
"""

import gc
import struct
import sys
import time

import cloudpickle
import dask.array as da
import dask.order
import msgpack
from dask import delayed
from dask._expr import FinalizeCompute, LLGExpr
from dask._task_spec import Task
from dask.base import collections_to_expr
from distributed.client import _MapExpr
from distributed.protocol import deserialize
from distributed.protocol.pickle import dumps
from distributed.scheduler import _materialize_graph
from helper_client import HelperProcess


def inc(x):
    return x + 1


def add(x, y):
    return x + y


def client_map(n):
    expr = _MapExpr(inc, [list(range(n))], key="inc", pure=False, annotations={}, kwargs={})
    expr.keys  # noqa: B018 - made here, as the client does
    return expr


def merge(n):
    f = delayed(inc, pure=False)
    return delayed(sum, pure=False)([f(i) for i in range(n)])


def tree(depth):
    f = delayed(add, pure=False)
    level = list(range(2**depth))
    while len(level) > 1:
        level = [f(a, b) for a, b in zip(level[::2], level[1::2])]
    return level[0]


def array(side):
    x = da.ones((side * 4, side * 4), chunks=(4, 4))
    return ((x + 1) * 2 - x.T).sum()


CASES = {
    "submit": lambda: LLGExpr({"a": Task("a", inc, 1)}),
    "map": lambda: client_map(50_000),
    "merge": lambda: merge(5_000),
    "tree": lambda: tree(13),
    "array": lambda: array(100),
}


def serialized(obj):
    expr = obj if hasattr(obj, "_parameters") else FinalizeCompute(collections_to_expr([obj], True)).optimize()
    buffers = []
    data = cloudpickle.dumps(expr, protocol=5, buffer_callback=buffers.append)
    header = {"serializer": "pickle", "writeable": (False,) * len(buffers), "num-sub-frames": 1 + len(buffers)}
    return header, [data, *(bytes(b) for b in buffers)]


def stock(header, frames, ordered):
    """Seconds of unpickling, materialising, ordering, pickling; and the number of tasks."""
    gc.collect()
    times = [time.perf_counter()]
    expr = deserialize(header, frames)
    times.append(time.perf_counter())
    dsk, _ = _materialize_graph(expr, False)
    times.append(time.perf_counter())
    if ordered:
        dask.order.order(dsk)
    times.append(time.perf_counter())
    for node in dsk.values():
        dumps(node, buffer_callback=lambda b: None)
    times.append(time.perf_counter())
    return [b - a for a, b in zip(times, times[1:])], len(dsk)


def helped(helper, header, frames):
    """Seconds from the request to the last byte; nothing is decoded."""
    channel = helper.channel
    header = msgpack.packb(header)
    start = time.perf_counter()
    channel.send({"op": "graph", "id": 1, "expr": 1 + len(frames), "annotations": 0}, header, *frames)
    while True:
        (n,) = struct.unpack("<I", channel._read(4))
        lengths = struct.unpack(f"<{n}Q", channel._read(8 * n))
        head, *_ = [channel._read(length) for length in lengths]
        head = msgpack.unpackb(bytes(head), strict_map_key=False)
        if head["t"] == "map" or head.get("last"):
            return time.perf_counter() - start


def main():
    helper = HelperProcess()
    print(f"{'us per task':10} {'tasks':>7} | unpickle  materialise  order  pickle  = stock | helper")
    for name in sys.argv[1:] or CASES:
        header, frames = serialized(CASES[name]())
        repeat = 100 if name == "submit" else 3
        runs = [stock(header, frames, name not in ("map", "submit")) for _ in range(repeat)]
        stages, n = min(runs, key=lambda run: sum(run[0]))
        ours = min(helped(helper, header, frames) for _ in range(repeat))
        columns = "  ".join(f"{1e6 * s / n:8.1f}" for s in [*stages, sum(stages)])
        print(f"{name:10} {n:7} | {columns} | {1e6 * ours / n:6.2f}")
    helper.close()


if __name__ == "__main__":
    main()
