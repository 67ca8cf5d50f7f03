"""Writes graphs with the priorities that dask.order gives them, for the tests of the native ordering.

Usage: python export_order_graphs.py FILE

Format, little-endian u32 unless said otherwise: number of graphs; per graph: length of its name, its name in UTF-8, number
of tasks n; n bytes (1 where the node is data); per task the number of dependencies and the dependencies as differences
to the task's own index (zigzag); all of these as LEB128 numbers; then the rank of each task's name among all names and
its priority, also as LEB128.
"""

import struct
import sys

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask._task_spec import DataNode, convert_legacy_graph
from dask.order import order


def graph_of(*collections):
    from dask._expr import HLGExpr  # noqa: F401
    from dask.base import collections_to_expr

    expr = collections_to_expr(collections).optimize()
    dsk = expr.__dask_graph__()
    return convert_legacy_graph(dict(dsk))


def leb(number):
    out = bytearray()
    while True:
        byte = number & 0x7F
        number >>= 7
        out.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(out)


def zigzag(number):
    return number * 2 if number >= 0 else -number * 2 - 1


def dump(name, dsk):
    keys = list(dsk)
    index = {key: i for i, key in enumerate(keys)}
    priority = order(dsk)
    by_name = {key: i for i, key in enumerate(sorted(keys, key=str))}
    out = [struct.pack("<I", len(name)), name.encode(), struct.pack("<I", len(keys))]
    out.append(bytes(isinstance(dsk[key], DataNode) for key in keys))
    for i, key in enumerate(keys):
        deps = sorted(index[dep] for dep in dsk[key].dependencies)
        out.append(leb(len(deps)))
        out.extend(leb(zigzag(i - dep)) for dep in deps)
    out.extend(leb(by_name[key]) for key in keys)
    out.extend(leb(priority[key]) for key in keys)
    print(f"{name}: {len(keys)} tasks, {sum(len(dsk[k].dependencies) for k in keys)} dependencies", file=sys.stderr)
    return b"".join(out)


def delayed_merges():
    load = dask.delayed(lambda i: i, pure=False)
    merge = dask.delayed(lambda *xs: xs, pure=False)
    level = [load(i) for i in range(243)]
    while len(level) > 1:
        level = [merge(*level[i : i + 3]) for i in range(0, len(level), 3)]
    return level[0]


def iterations():
    step = dask.delayed(lambda *xs: xs, pure=False)
    state = [step(i) for i in range(8)]
    losses = []
    for _ in range(40):
        gradients = [step(s) for s in state]
        total = step(*gradients)
        losses.append(step(total))
        state = [step(s, total) for s in state]
    return step(*losses), step(*state)


def cross_product():
    load = dask.delayed(lambda i: i, pure=False)
    pair = dask.delayed(lambda a, b: (a, b), pure=False)
    left, right = [load(i) for i in range(20)], [load(i) for i in range(20)]
    return load([pair(a, b) for a in left for b in right])


def climatology():
    x = da.random.random((36 * 12, 40, 40), chunks=(12, 20, 20))
    mean = x.reshape(36, 12, 40, 40).mean(axis=0)
    return (x.reshape(36, 12, 40, 40) - mean[None]).sum(axis=(0, 1))


def frame():
    pdf = pd.DataFrame({"id": np.arange(400) % 17, "x": np.arange(400.0), "y": np.arange(400)})
    return dd.from_pandas(pdf, npartitions=40)


def graphs():
    scale = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    x = da.random.random((200 * scale, 200 * scale), chunks=(10, 10))
    yield "sum", (x.sum(),)
    yield "x plus transpose", ((x + x.T).sum(axis=0),)
    yield "std", (x.std(),)
    yield "mean over one axis, subtracted", ((x - x.mean(axis=0)).sum(),)
    y = da.random.random((100 * scale, 100 * scale), chunks=(10, 10))
    yield "tensordot", (da.tensordot(y, y.T, axes=1),)
    yield "tensordot sum", (da.tensordot(y, y, axes=1).sum(),)
    yield "rechunk", (da.random.random((400 * scale, 400 * scale), chunks=(400 * scale, 20)).rechunk((20, 400 * scale), method="tasks").sum(),)
    yield "overlap", (x.map_overlap(lambda b: b, depth=1, boundary="none").sum(),)
    yield "slices", (x[::2, 5:].sum(axis=1), x[3:50].max())
    yield "store of results", (x + 1, x * 2, (x + 1).sum())
    yield "svd", da.linalg.svd(da.random.random((400 * scale, 20), chunks=(20, 20)))
    yield "cumulative sum", (da.random.random((100 * scale, 30), chunks=(5, 10)).cumsum(axis=0).sum(axis=1),)
    yield "climatology", (climatology(),)
    yield "delayed merges", (delayed_merges(),)
    yield "iterations", iterations()
    yield "cross product", (cross_product(),)
    ddf = frame()
    yield "dataframe sums", (ddf.x.sum(), ddf.y.mean(), ddf.x.std())
    yield "groupby", (ddf.groupby("id").agg({"x": "mean", "y": "max"}),)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        yield "shuffle", (ddf.shuffle("id").map_partitions(len),)
        yield "merge", (ddf.merge(ddf.shuffle("x"), on="id", how="inner").x_x.sum(),)
        yield "groupby apply", (ddf.groupby("id").apply(len, meta=("x", int)),)
    bag = db.range(400, npartitions=40)
    yield "bag fold", (bag.map(lambda i: i).filter(lambda i: i % 2).fold(lambda a, b: a + b),)
    yield "bag groupby", (bag.groupby(lambda i: i % 7, shuffle="tasks").map(len),)
    yield "bag frequencies", (bag.frequencies(split_every=4),)


def main():
    dumped = [dump(name, graph_of(*collections)) for name, collections in graphs()]
    with open(sys.argv[1], "wb") as file:
        file.write(struct.pack("<I", len(dumped)) + b"".join(dumped))


if __name__ == "__main__":
    main()
