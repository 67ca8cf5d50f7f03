"""dask.array, dask.bag, xarray, and conversions; equal to NumPy and to plain Python."""

import collections
import itertools

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from distributed import wait
from helpers import inc


def test_s019_array_reductions(client):
    x = np.random.default_rng(0).random((300, 200))
    y = da.from_array(x, chunks=(70, 60))
    for name in ("sum", "mean", "std", "var", "min", "max", "prod"):
        np.testing.assert_allclose(getattr(y, name)().compute(), getattr(x, name)())
        np.testing.assert_allclose(getattr(y, name)(axis=0).compute(), getattr(x, name)(axis=0))
    np.testing.assert_allclose(da.average(da.arange(1000, chunks=100)).compute(), 499.5)
    np.testing.assert_allclose((y + y[::-1]).T.dot(y).compute(), (x + x[::-1]).T.dot(x))


def test_s083_array_functions(client):
    x = np.random.default_rng(1).random((60, 60))
    y = da.from_array(x, chunks=(20, 20))
    np.testing.assert_allclose(y.map_blocks(lambda b: b * 2).compute(), x * 2)
    np.testing.assert_allclose(da.topk(y.ravel(), 5).compute(), np.sort(x.ravel())[::-1][:5])
    q, r = da.linalg.qr(da.from_array(x, chunks=(20, 60)))
    np.testing.assert_allclose((q @ r).compute(), x, atol=1e-10)
    np.testing.assert_allclose(da.linalg.svd(da.from_array(x, chunks=(20, 60)))[1].compute(), np.linalg.svd(x)[1])


def test_s083_array_map_overlap(client):
    x = np.arange(100.0)
    y = da.from_array(x, chunks=25)
    rolled = y.map_overlap(lambda b: (np.roll(b, 1) + b + np.roll(b, -1)) / 3, depth=1, boundary="periodic")
    np.testing.assert_allclose(rolled.compute(), (np.roll(x, 1) + x + np.roll(x, -1)) / 3)


def test_s040_many_chunks(client):
    assert da.ones(400, chunks=1).sum().compute() == 400


def test_s040_unknown_chunks(client):
    x = da.random.default_rng(0).random(1000, chunks=100)
    kept = x[x > 0.5]
    assert np.isnan(kept.shape[0])
    kept.compute_chunk_sizes()
    assert kept.shape[0] == int((x > 0.5).sum().compute())


@pytest.mark.parametrize("method", ["tasks", "p2p"])
def test_s040_rechunk(client, method):
    x = np.arange(40_000.0).reshape(200, 200)
    y = da.from_array(x, chunks=(50, 200)).rechunk((200, 40), method=method)
    assert y.chunks == ((200,), (40,) * 5)
    np.testing.assert_array_equal(y.compute(), x)


def test_array_persist_store_and_slices(client):
    x = da.arange(1000, chunks=100).persist()
    wait(x)
    target = np.zeros(1000, dtype=int)
    assert x[250:350].sum().compute() == sum(range(250, 350))
    assert x[[1, 999]].compute().tolist() == [1, 999]
    x.store(target)
    assert target.sum() in (0, 499500)


def test_array_histogram_unique_random(client):
    rng = da.random.default_rng(3)
    x = rng.integers(0, 5, size=1000, chunks=100)
    counts, _ = da.histogram(x, bins=5, range=(0, 5))
    assert dask.compute(counts)[0].sum() == 1000
    np.testing.assert_array_equal(da.unique(x).compute(), np.arange(5))
    again = da.random.default_rng(3).integers(0, 5, size=1000, chunks=100)
    np.testing.assert_array_equal(x.compute(), again.compute())


def test_s034_sparse_blocks(client):
    sparse = pytest.importorskip("sparse")
    x = np.random.default_rng(0).random((40, 40))
    x[x < 0.9] = 0
    y = da.from_array(x, chunks=10).map_blocks(sparse.COO)
    result = (y + y.T).sum(axis=0).compute()
    np.testing.assert_allclose(result.todense(), (x + x.T).sum(axis=0))


def test_s034_class_with_array_moves_between_workers(client):
    class Holder:
        def __init__(self, n):
            self.data = np.arange(n)

    first = client.submit(Holder, 100_000, workers="alice", pure=False)
    assert client.submit(lambda h: int(h.data.sum()), first, workers="bob").result(timeout=20) == sum(range(100_000))


TEXT = ["the quick brown fox", "the lazy dog", "jumps over the dog"] * 10


def test_s020_bag_word_count(client):
    words = db.from_sequence(TEXT, npartitions=4).map(str.split).flatten()
    expected = collections.Counter(w for line in TEXT for w in line.split())
    assert dict(words.frequencies().compute()) == expected
    folded = words.foldby(lambda w: w, lambda n, _: n + 1, 0, lambda a, b: a + b, 0)
    assert dict(folded.compute()) == expected
    assert words.filter(lambda w: w.startswith("d")).count().compute() == 20


def test_s020_bag_operations(client):
    numbers = db.range(100, npartitions=5)
    assert numbers.map(inc).sum().compute() == 5050
    assert sorted(numbers.map_partitions(lambda p: [sum(p)]).compute()) == [190, 590, 990, 1390, 1790]
    assert numbers.topk(2).compute() == [99, 98]
    assert numbers.fold(max).compute() == 99
    assert numbers.repartition(npartitions=2).npartitions == 2
    assert db.from_delayed([delayed(range)(3), delayed(range)(4)]).sum().compute() == 9
    assert numbers.take(3) == (0, 1, 2)
    assert db.zip(numbers, numbers.map(inc)).take(2) == ((0, 1), (1, 2))


@pytest.mark.parametrize("method", ["tasks", "disk"])
def test_s020_bag_groupby(client, method):
    with dask.config.set({"scheduler": client.get}):
        groups = db.range(60, npartitions=3).groupby(lambda x: x % 7, shuffle=method).compute()
    found = {k: sorted(v) for k, v in groups}
    expected = {k: sorted(v) for k, v in itertools.groupby(sorted(range(60), key=lambda x: x % 7), lambda x: x % 7)}
    assert found == expected


def test_s018_conversions(client):
    parts = [delayed(lambda i: list(range(i * 5, i * 5 + 5)))(i) for i in range(4)]
    bag = db.from_delayed(parts)
    frame = bag.map(lambda x: {"x": x, "y": x * 2}).to_dataframe()
    array = frame.to_dask_array(lengths=True)
    np.testing.assert_array_equal(array.sum(axis=0).compute(), [190, 380])
    assert sum(part["x"].sum() for part in dask.compute(*frame.to_delayed())) == 190
    assert frame.to_bag().map(sum).sum().compute() == 570
    assert db.from_delayed(bag.to_delayed()).sum().compute() == 190
    back = da.from_delayed(delayed(np.ones)(5), shape=(5,), dtype=float)
    assert back.sum().compute() == 5
    assert isinstance(frame.head(2), pd.DataFrame)


def test_s033_functions_of_every_kind(client):
    big = np.arange(1000)

    def outer(n):
        return 1 if n < 2 else n * outer(n - 1)

    class Local:
        def __call__(self, x):
            return x + big.sum()

    assert client.submit(lambda: int(big.sum())).result() == 499500
    assert client.submit(outer, 5).result() == 120
    assert int(client.submit(Local(), 1).result()) == 499501
    assert client.submit(str.upper, "x").result() == "X"
    assert client.gather(client.map(np.sqrt, [1.0, 4.0])) == [1, 2]


def test_s033_main_module(shared, tmp_path):
    """Functions and classes of __main__ travel by value."""
    import subprocess
    import sys

    from harness import environment

    script = tmp_path / "main_script.py"
    script.write_text(
        "import sys, dask\n"
        "from distributed import Client\n"
        "OFFSET = 10\n"
        "class Pair:\n"
        "    def __init__(self, a): self.a = a\n"
        "def shift(p): return Pair(p.a + OFFSET)\n"
        "@dask.delayed\n"
        "def total(ps): return sum(p.a for p in ps)\n"
        "if __name__ == '__main__':\n"
        "    with Client(sys.argv[1]) as client:\n"
        "        futures = client.map(shift, [Pair(i) for i in range(5)])\n"
        "        assert [f.result().a for f in futures] == [10, 11, 12, 13, 14]\n"
        "        assert total(futures).compute() == 60\n"
        "        assert total([dask.delayed(shift)(Pair(1))]).compute() == 11\n"
        "        print('fine')\n"
    )
    command = [sys.executable, str(script), shared.address]
    out = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "fine", out.stderr


def test_xarray(client):
    xr = pytest.importorskip("xarray")
    rng = np.random.default_rng(0)
    data = rng.random((48, 10, 12))
    times = pd.date_range("2026-01-01", periods=48, freq="7D")
    plain = xr.DataArray(data, dims=("time", "lat", "lon"), coords={"time": times}, name="t")
    chunked = plain.chunk({"time": 12, "lat": 5})
    xr.testing.assert_allclose(chunked.mean("time").compute(), plain.mean("time"))
    climate = chunked.groupby("time.month").mean()
    xr.testing.assert_allclose(climate.compute(), plain.groupby("time.month").mean())
    anomaly = (chunked.groupby("time.month") - climate).std().compute()
    assert float(anomaly) > 0
    kept = chunked.to_dataset().persist()
    xr.testing.assert_allclose(kept["t"].isel(time=0).compute(), plain.isel(time=0))
    doubled = xr.map_blocks(lambda d: d * 2, chunked, template=chunked)
    xr.testing.assert_allclose(doubled.compute(), plain * 2)
