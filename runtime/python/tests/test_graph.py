"""The helper's answers beside those of the stock scheduler's own functions."""

import asyncio
import functools
import operator
from collections import namedtuple

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from dask import delayed
from dask._expr import FinalizeCompute, LLGExpr
from dask._task_spec import Task, TaskRef, _execute_subgraph
from dask.base import collections_to_expr
from dask.tokenize import tokenize
from distributed.client import Future, _MapExpr
from distributed.protocol import deserialize, serialize, to_serialize
from distributed.scheduler import _cull, _materialize_graph
from helper_client import HelperError, HelperProcess

Point = namedtuple("Point", "x y")


@pytest.fixture(scope="module")
def helper():
    h = HelperProcess()
    yield h
    assert h.close() == 0


def by_value(f):
    """As a function of a notebook: pickled by value, importable nowhere."""
    f.__module__ = "__main__"
    return f


@by_value
def inc(x, y=1):
    return x + y


@by_value
def add(x, y):
    return x + y


@by_value
async def wait(x):
    await asyncio.sleep(0)
    return x


def comparable(x):
    """Something to compare nodes by: their slots, with functions by code or name."""
    if isinstance(x, (list, tuple)):
        return type(x).__name__, [comparable(v) for v in x]
    if isinstance(x, dict):
        return "dict", sorted([(comparable(k), comparable(v)) for k, v in x.items()], key=repr)
    if isinstance(x, TaskRef):
        return type(x).__name__, x.key
    if hasattr(x, "get_all_slots"):
        slots = [s for s in type(x).get_all_slots() if s != "constructor" and hasattr(x, s)]
        values = {s: comparable(getattr(x, s)) for s in slots}
        if getattr(x, "func", None) is _execute_subgraph:
            # Stock orders a fused task's outer dependencies by hash, which differs between processes.
            inner, out, external, *refs = x.args
            values["args"] = comparable([inner, out]), sorted(map(repr, external)), sorted(map(repr, refs))
        return type(x).__name__, values
    if isinstance(x, functools.partial):
        return "partial", comparable(x.func), comparable(x.args), comparable(x.keywords)
    if hasattr(x, "__code__"):
        return x.__module__, x.__qualname__, x.__code__.co_code, x.__defaults__
    if callable(x):
        return getattr(x, "__qualname__", type(x).__name__)
    if isinstance(x, np.ndarray):
        return "ndarray", x.dtype.str, x.shape, x.tolist()
    if isinstance(x, (str, bytes, int, float, frozenset, slice, type(None))):
        return type(x).__name__, x
    return type(x).__name__, tokenize(x)


def check(helper, expr, keys=None, **common):
    """The helper's graph equals what stock would send to workers; returns it and stock's tasks."""
    header, frames = serialize(to_serialize(expr), on_error="raise")
    frames = [bytes(f) for f in frames]
    loaded = deserialize(header, frames)
    stock, layers = _materialize_graph(loaded, validate=True)
    graph = helper.graph(header, frames, common or None)
    assert graph.head["cull"] == isinstance(loaded, LLGExpr)
    keys = keys or list(dask.core.flatten(expr.__dask_keys__() if hasattr(expr, "__dask_keys__") else expr.keys))
    stock = _cull(stock, keys)
    ours = graph.tasks()
    missing = set(stock) - set(ours)
    assert not missing
    deps = dict(zip(graph.keys, graph.deps))
    flags = dict(zip(graph.keys, graph.flags))
    for key, node in stock.items():
        mine = ours[key]
        theirs = _resent(node)
        assert type(mine) is type(theirs)
        assert mine.key == theirs.key == key
        assert comparable(mine) == comparable(theirs)
        assert deps[key] == node.dependencies
        assert bool(flags[key] & 1) == bool(node.data_producer)
        assert bool(flags[key] & 2) == (type(node).__name__ == "P2PBarrierTask")
    return graph, ours, stock, layers


def _resent(node):
    from distributed.protocol.pickle import dumps, loads

    buffers = []
    return loads(dumps(node, buffer_callback=buffers.append), buffers=buffers)


def expression(*collections, optimize=True):
    expr = collections_to_expr(list(collections), optimize)
    return FinalizeCompute(expr).optimize()


def run(graph, tasks, key):
    """Compute a key from the tasks as unpickled."""
    memo = {}

    def value(k):
        if k not in memo:
            node = tasks[k]
            memo[k] = node({d: value(d) for d in node.dependencies})
        return memo[k]

    return value(key)


def mapped(f, *iterables, key="f", pure=False, **kwargs):
    return _MapExpr(f, list(iterables), key=key, pure=pure, annotations={}, kwargs=kwargs)


PLAIN_COLUMNS = {
    "ints": [0, 1, 255, 256, 65535, 65536, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**63), 2**64 - 1],
    "floats": [0.0, -1.5, 1e300, float("inf"), 2.0],
    "strings": ["", "a", "ä" * 200, "x" * 70000],
    "bytes": [b"", b"abc", b"z" * 300],
    "mixed": [None, True, False, 1, 1.0, "1"],
}


@pytest.mark.parametrize("kind", PLAIN_COLUMNS)
def test_map_of_plain_values(helper, kind):
    expr = mapped(inc, PLAIN_COLUMNS[kind])
    graph, *_ = check(helper, expr, list(expr.keys))
    assert graph.templates == []  # columns only


def test_map_of_two_columns_with_keywords(helper):
    expr = mapped(add, range(5), "abcde", y=3)
    check(helper, expr, list(expr.keys))


@pytest.mark.parametrize(
    "column",
    [
        [2**70, 1],
        [(1, 2), [3], {"a": 4}, {5}],
        [np.float64(1.5), np.int64(3)],
        [np.arange(4), np.arange(5.0)],
        [Point(1, 2), Point(3, 4)],
        [[np.ones(3)], [np.zeros(2)]],
        [complex(1, 2), slice(1, 2)],
    ],
    ids=repr,
)
def test_map_of_other_values(helper, column):
    expr = mapped(inc, column)
    check(helper, expr, list(expr.keys))


def test_map_of_futures(helper):
    column = [Future("x"), [Future("y"), 1], {"k": Future(("z", 1))}, Point(Future("w"), 2)]
    expr = mapped(inc, column)
    graph, *_ = check(helper, expr, list(expr.keys))
    assert set(graph.externals) == {"x", "y", ("z", 1), "w"}


def test_map_with_large_keyword_and_duplicate_keys(helper):
    expr = mapped(inc, range(3), y=np.ones(50_000))
    graph, *_ = check(helper, expr, list(expr.keys))
    assert "y" in graph.keys
    expr = mapped(inc, range(3), key=["a", "b", "a"])
    check(helper, expr, ["a", "b"])


def test_map_of_lambda_partial_method_and_coroutine(helper):
    for f in (lambda x: x + 1, functools.partial(inc, y=2), "abc".startswith, operator.neg, wait):
        expr = mapped(f, range(3))
        check(helper, expr, list(expr.keys))


def test_submit(helper):
    for task in (
        Task("a", inc, 1),
        Task("a", inc, TaskRef("b"), y=TaskRef(("c", 1))),
        Task("a", np.sum, np.arange(100_000)),
        Task("a", wait, 1),
        Task("a", lambda: 1),
    ):
        check(helper, LLGExpr({"a": task}), ["a"])


def test_get_of_legacy_graph(helper):
    dsk = {
        "x": 1,
        "y": (inc, "x"),
        ("z", 0): (sum, ["x", "y", 3]),
        "alias": "y",
        "nested": [("z", 0), {"a": 1}, "plain"],
        "deep": (add, (inc, "x"), (inc, (inc, "y"))),
        "future": Future("persisted"),
        "self": Future("self"),
        "point": Point("x", 2),
        "unused": (inc, "x"),
        "array": np.arange(10),
    }
    graph, tasks, *_ = check(helper, LLGExpr(dsk), ["deep", "nested", "alias", "future", "point", "array"])
    assert "self" not in graph.keys
    assert run(graph, tasks, "deep") == 6


def test_delayed_tree(helper):
    f, g = delayed(add, pure=False), delayed(inc, pure=False)
    level = [g(i) for i in range(64)]
    while len(level) > 1:
        level = [f(a, b) for a, b in zip(level[::2], level[1::2])]
    graph, tasks, *_ = check(helper, expression(level[0]))
    assert len(graph.templates) == 2
    assert run(graph, tasks, level[0].key) == sum(range(1, 65))


def test_delayed_with_containers_and_arrays(helper):
    f = delayed(lambda *a, **k: (a, k))
    check(helper, expression(f([f(1), (f(2), {"k": f(3)})], np.arange(5), s=slice(f(4), None))))


def test_delayed_annotated_and_many_layers_is_linear(helper):
    f = delayed(inc, pure=False)
    with dask.annotate(priority=3, workers=lambda k: ["w"]):
        some = [f(i) for i in range(20)]
    out = delayed(sum, pure=False)(some + [f(1)])
    graph, *_ = check(helper, expression(out))
    places, values = graph.head["annotations"]["priority"]
    assert len(places) == 20 and set(values) == {3}
    assert {graph.keys[i] for i in places} == {s.key for s in some}


def test_arrays(helper):
    x = da.ones((40, 40), chunks=(4, 4))
    y = ((x + 1) * 2 - x.T).sum()
    graph, tasks, *_ = check(helper, expression(y))
    assert run(graph, tasks, expression_key(graph, tasks)) == y.compute(scheduler="sync")
    check(helper, expression(x.map_blocks(lambda b: b * 2), da.from_array(np.arange(1000), chunks=100)[::3]))
    check(helper, expression(da.random.random((20, 20), chunks=5).mean(axis=0)))


def expression_key(graph, tasks):
    return (set(graph.keys) - set().union(*graph.deps)).pop()


def test_several_collections_and_annotated_blockwise(helper):
    x = da.arange(100, chunks=10)
    with dask.annotate(resources={"GPU": 1}):
        y = x + 1
    graph, *rest = check(helper, expression(y.sum(), delayed(inc)(1), db.range(10, 2).sum(), optimize=False))
    layers = rest[-1]
    for name, per_key in layers.items():
        places, values = graph.head["annotations"][name]
        assert {graph.keys[i]: v for i, v in zip(places, values)} == dict(per_key)


def test_bag(helper):
    b = db.from_sequence(range(50), npartitions=5).map(lambda x: {"age": x}).filter(lambda r: r["age"] > 3)
    check(helper, expression(b.pluck("age").fold(operator.add)))


def test_dataframes_with_shuffle(helper):
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    df = dd.from_pandas(pd.DataFrame({"a": range(100), "b": np.arange(100.0), "c": ["x", "y"] * 50}), npartitions=5)
    check(helper, FinalizeCompute(collections_to_expr([df.groupby("a").b.mean()], True)).optimize())
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        expr = FinalizeCompute(collections_to_expr([df.shuffle("a")], True)).optimize()
        graph, *_ = check(helper, expr)
    assert sum(bool(f & 2) for f in graph.flags) == 1
    assert any(f & 1 for f in graph.flags)


def test_global_annotations(helper):
    expr = mapped(inc, range(3), key=["a", "b", "c"])
    header, frames = serialize(to_serialize(expr), on_error="raise")
    common = {"priority": lambda k: ord(k), "workers": {"w1"}, "odd": Point(1, 2), "resources": {"GPU": 1}, "f": object}
    graph = helper.graph(header, frames, {k: v for k, v in common.items() if k != "f"}, spans={"collections": []})
    assert graph.head["annotations"] == {"priority": ([0, 1, 2], [97, 98, 99])} or graph.head["annotations"] == {
        "priority": ((0, 1, 2), (97, 98, 99))
    }
    assert graph.head["global"]["workers"] == {"w1"}
    assert graph.head["global"]["resources"] == {"GPU": 1}
    assert graph.head["spans"] == {"collections": ()}


def test_compressed_and_split_frames(helper):
    from distributed.protocol.compression import maybe_compress

    expr = mapped(inc, [f"{i}" * 1000 for i in range(100)])
    header, frames = serialize(to_serialize(expr), on_error="raise")
    name, data = maybe_compress(b"".join(frames), compression="zlib")
    assert name == "zlib"
    graph = helper.graph({**header, "compression": [name]}, [data])
    assert len(graph.keys) == 100


def fails():
    raise ValueError("no graph today")


class Exploding:
    def __reduce__(self):
        return fails, ()


def test_failures(helper):
    with pytest.raises(HelperError) as e:
        helper.graph(*serialize(to_serialize({}), on_error="raise"))
    assert isinstance(e.value.exception, AttributeError)
    assert str(e.value.exception) == "'dict' object has no attribute '__dask_graph__'"

    import pickle

    header = {"serializer": "pickle", "writeable": (), "num-sub-frames": 1}
    with pytest.raises(HelperError) as e:
        helper.graph(header, [b"cno_such_module\nthing\n."])
    exception = e.value.exception
    assert isinstance(exception, RuntimeError)
    assert str(exception).startswith("Error during deserialization of the task graph")
    assert isinstance(exception.__cause__, ModuleNotFoundError)
    assert "'no_such_module'" in e.value.head["hint"] and "install" in e.value.head["hint"]
    assert pickle.loads(e.value.traceback) is not None

    with pytest.raises(HelperError) as e:
        helper.graph(header, [pickle.dumps(Exploding())])
    assert "no_such_module" not in repr(e.value.exception)
    check(helper, LLGExpr({"a": Task("a", inc, 1)}), ["a"])  # still there


def test_keys(helper):
    numpy_keys = dict.fromkeys([("x", np.int64(1)), np.str_("y"), 3, 4.5, ("x", ("y", 1))], "v")
    graph = helper.graph(*serialize(to_serialize(LLGExpr(numpy_keys)), on_error="raise"))
    assert graph.keys == list(numpy_keys)
    for bad in (None, b"x", True, ("x", None)):
        with pytest.raises(HelperError, match="Unexpected key type"):
            helper.graph(*serialize(to_serialize(LLGExpr({bad: "v"})), on_error="raise"))


def test_versions_are_those_of_distributed(helper):
    from distributed.versions import get_versions

    assert helper.hello["versions"] == get_versions()


def test_upload_and_path(helper, tmp_path):
    (tmp_path / "uploaded_mod.py").write_text("def f(x):\n    return x * 2\n")
    assert helper.request({"op": "upload", "path": str(tmp_path / "uploaded_mod.py")})[0]["t"] == "ok"
    header = {"serializer": "pickle", "writeable": (), "num-sub-frames": 1}
    pick = b"cuploaded_mod\nf\n."
    with pytest.raises(HelperError, match="__dask_graph__"):
        helper.graph(header, [pick])
    (tmp_path / "broken_mod.py").write_text("1/0\n")
    with pytest.raises(HelperError, match="ZeroDivisionError"):
        helper.request({"op": "upload", "path": str(tmp_path / "broken_mod.py")})
    assert helper.request({"op": "path", "path": str(tmp_path)})[0]["t"] == "ok"


def test_memory_limit():
    helper = HelperProcess(OXIDASK_MEMORY_LIMIT=str(3 << 30))
    with pytest.raises(HelperError) as e:
        helper.graph(*serialize(to_serialize(LLGExpr({"a": (bytes, 1)})), on_error="raise")[:1], [b"x"])
    header = {"serializer": "pickle", "writeable": (), "num-sub-frames": 1}
    with pytest.raises(HelperError) as e:
        helper.graph(header, [b"cbuiltins\nbytearray\n(L10000000000L\ntR."])
    assert isinstance(e.value.exception.__cause__, MemoryError)
    assert "oxidask.graph.memory-limit" in e.value.head["hint"]
    helper.close()
