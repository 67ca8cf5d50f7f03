"""Data on workers: scatter, who_has, replicate, rebalance, publish, gather, nbytes."""

import numpy as np
import pytest
from distributed import wait
from harness import holders, wait_until
from helpers import add, inc


def test_scatter_single_list_dict(client):
    assert client.scatter("five").result() == "five"
    futures = client.scatter([1, 2, 3])
    assert client.gather(futures) == [1, 2, 3]
    named = client.scatter({"x": 10, "y": 20})
    assert {k: f.result() for k, f in named.items()} == {"x": 10, "y": 20}
    assert client.submit(add, named["x"], y=named["y"]).result() == 30


def test_scatter_broadcast(client):
    future = client.scatter("everywhere-data" * 10, broadcast=True)
    wait_until(lambda: len(client.who_has([future])[future.key]) == 3, 5)
    assert future.result() == "everywhere-data" * 10


def test_scatter_broadcast_some(client):
    future = client.scatter("some", broadcast=2)
    wait_until(lambda: len(client.who_has([future])[future.key]) == 2, 5)


def test_scatter_hash(client):
    one, two = client.scatter([1234567])[0], client.scatter([1234567])[0]
    assert one.key == two.key
    other = client.scatter([1234567], hash=False)[0]
    assert other.key != one.key and other.result() == 1234567


def test_scatter_workers_and_direct(client):
    addr = next(iter(client.ncores()))
    future = client.scatter(b"there", workers=[addr])
    assert list(client.who_has([future])[future.key]) == [addr]
    direct = client.scatter([b"direct"], direct=True, hash=False)[0]
    assert direct.result() == b"direct"
    assert client.submit(len, direct).result() == 6


def test_scatter_numpy(client):
    x = np.arange(30_000.0).reshape(100, 300)
    future = client.scatter(x)
    np.testing.assert_array_equal(future.result(), x)
    assert client.submit(np.sum, future).result() == x.sum()
    np.testing.assert_array_equal(client.gather(future, direct=True), x)


def test_who_has_has_what_nbytes(client):
    futures = client.map(inc, range(6))
    wait(futures)
    who = client.who_has(futures)
    assert set(who) == {f.key for f in futures} and all(len(v) == 1 for v in who.values())
    has = client.has_what()
    assert set(has) == set(client.ncores())
    assert sorted(k for keys in has.values() for k in keys) == sorted(who)
    assert client.nbytes(summary=False)[futures[0].key] > 0
    assert client.nbytes(summary=True)["inc"] > 0
    assert holders(client, "unknown") == ()


def test_ncores_nthreads(client):
    assert sorted(client.nthreads().values()) == [1, 1, 2]
    assert client.ncores() == client.nthreads()


def test_processing(client, tmp_path):
    from helpers import wait_for_file

    flag = tmp_path / "go"
    future = client.submit(wait_for_file, str(flag))
    wait_until(lambda: any(future.key in keys for keys in client.processing().values()))
    flag.touch()
    wait(future)
    wait_until(lambda: not any(client.processing().values()))


def test_replicate(client):
    future = client.submit(inc, 1)
    wait(future)
    client.replicate(future, n=2)
    assert len(client.who_has(future)[future.key]) == 2
    client.replicate(future)
    assert len(client.who_has(future)[future.key]) == 3
    client.replicate(future, n=1)
    wait_until(lambda: len(client.who_has(future)[future.key]) == 1, 5)
    target = list(client.ncores())[:1]
    client.replicate(future, workers=target)
    assert target[0] in client.who_has(future)[future.key]


def test_rebalance(make_cluster):
    cluster = make_cluster(
        2,
        config={
            "distributed.worker.memory.rebalance.measure": "managed",
            "distributed.worker.memory.rebalance.sender-min": 0,
            "distributed.worker.memory.rebalance.sender-recipient-gap": 0,
        },
    )
    with cluster.client() as client:
        client.wait_for_workers(2)
        first = list(client.ncores())[0]
        futures = client.scatter([np.ones(20_000) * i for i in range(10)], workers=[first], hash=False)
        assert len(client.has_what()[first]) == 10
        client.rebalance()
        counts = {a: len(keys) for a, keys in client.has_what().items()}
        assert all(3 <= n <= 7 for n in counts.values()), counts
        assert [f.result()[0] for f in futures] == list(range(10))


def test_publish_dataset(client, client2):
    future = client.submit(inc, 1, pure=False)
    client.publish_dataset(answer=future)
    client.publish_dataset([1, 2, 3], name="numbers")
    try:
        assert set(client2.list_datasets()) == {"answer", "numbers"}
        del future
        assert client2.get_dataset("answer").result(timeout=10) == 2
        assert client2.get_dataset("numbers") == [1, 2, 3]
        with pytest.raises(KeyError):
            client.publish_dataset(answer=5)
        client.publish_dataset(5, name="answer", override=True)
        assert client2.datasets["answer"] == 5
        with pytest.raises(KeyError):
            client2.get_dataset("absent")
        assert client2.get_dataset("absent", default=7) == 7
    finally:
        client.unpublish_dataset("answer")
        client.unpublish_dataset("numbers")
    assert client.list_datasets() == ()


def test_publish_collection_outlives_client(client, shared):
    import dask.array as da

    with shared.client(set_as_default=False) as publisher:
        x = publisher.persist(da.arange(20, chunks=5))
        publisher.publish_dataset(x=x)
    loaded = client.get_dataset("x")
    assert client.compute(loaded.sum()).result(timeout=10) == 190
    client.unpublish_dataset("x")


def test_metadata(client):
    client.set_metadata(["outer", "inner"], {"a": 1})
    assert client.get_metadata(["outer", "inner"]) == {"a": 1}
    assert client.get_metadata(["outer", "inner", "a"]) == 1
    assert client.get_metadata(["none"], default=None) is None
    with pytest.raises(KeyError):
        client.get_metadata(["none"])


def test_gather_from_worker_that_is_gone(own):
    cluster, client = own
    futures = client.map(inc, range(20))
    wait(futures)
    cluster.workers[0].kill()
    assert client.gather(futures) == list(range(1, 21))


def test_s039_big_partition_between_workers(make_cluster):
    """Frames over 64 MiB are cut in shards by the sender."""
    cluster = make_cluster(2)
    with cluster.client() as client:
        client.wait_for_workers(2)
        a, b = client.ncores()
        big = client.submit(np.ones, 20_000_000, workers=[a])
        assert client.submit(np.sum, big, workers=[b]).result(timeout=60) == 20_000_000
        assert client.gather(big, direct=False).nbytes == 160_000_000
