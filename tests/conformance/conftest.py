"""Fixtures: a cluster shared by the session, a client on it per test, clusters of a test's own."""

from __future__ import annotations

import shutil

import harness
import pytest
from harness import Cluster, wait_until

SHARED_WORKERS = 3


class Shared:
    """The session's cluster; made again when a test has left it broken."""

    def __init__(self):
        self.cluster = None

    def get(self) -> Cluster:
        if self.cluster is None:
            cluster = Cluster(execute=True)
            cluster.add_worker(name="alice", nthreads=2)
            cluster.add_worker(name="bob", nthreads=1)
            cluster.add_worker("--resources", "GPU=1 MEM=100", name="carol", nthreads=1)
            self.cluster = cluster
        return self.cluster

    def drop(self) -> None:
        if self.cluster is not None:
            self.cluster.close()
            shutil.rmtree(self.cluster.dir, ignore_errors=True)
            self.cluster = None


SHARED = Shared()


@pytest.fixture(scope="session", autouse=True)
def _end_of_session():
    yield
    SHARED.drop()
    harness.ZYGOTE.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the end of every process's log, and has the shared cluster made again."""
    outcome = yield
    report = outcome.get_result()
    if report.when in ("call", "setup") and report.failed:
        clusters = [v for v in getattr(item, "funcargs", {}).values() if isinstance(v, Cluster)]
        clusters += getattr(item, "own_clusters", [])
        for cluster in clusters:
            report.sections.append(("processes", cluster.logs()))
        if "shared" in getattr(item, "fixturenames", ()):
            item.session.shared_suspect = True


@pytest.fixture
def shared(request) -> Cluster:
    """Three workers: alice (2 threads), bob (1), carol (1, GPU=1 MEM=100)."""
    if getattr(request.session, "shared_suspect", False):
        SHARED.drop()
        request.session.shared_suspect = False
    return SHARED.get()


@pytest.fixture
def client(shared, request):
    """A client of the shared cluster. After the test nothing may be left on the scheduler."""
    try:
        client = shared.client(set_as_default=True)
        client.wait_for_workers(SHARED_WORKERS, timeout=60)
    except BaseException:
        request.session.shared_suspect = True
        raise
    yield client
    try:
        client.close(timeout=5)
        with shared.client() as check:
            wait_until(lambda: not left_behind(check), 10, "tasks left behind")
            assert len(check.ncores()) == SHARED_WORKERS
    except BaseException as error:
        request.session.shared_suspect = True
        # The end of a broken client may be a CancelledError, which pytest would not survive.
        raise AssertionError(f"the cluster was not left as it was: {error!r}") from None


def left_behind(client):
    return [*client.who_has(), *(key for keys in client.processing().values() for key in keys)]


@pytest.fixture
def client2(shared):
    with shared.client() as client:
        yield client


@pytest.fixture
def make_cluster(request):
    """Cluster(...) of the test's own, closed with the test."""
    request.node.own_clusters = clusters = []

    def make(*args, **kwargs) -> Cluster:
        cluster = Cluster(*args, **kwargs)
        clusters.append(cluster)
        return cluster

    yield make
    for cluster in clusters:
        cluster.close()
        shutil.rmtree(cluster.dir, ignore_errors=True)


@pytest.fixture
def own(make_cluster, request):
    """(cluster, client): a cluster for this test alone; @pytest.mark.cluster(workers=2, …) gives its arguments."""
    marker = request.node.get_closest_marker("cluster")
    cluster = make_cluster(**(marker.kwargs if marker else {"workers": 2}))
    client = cluster.client(set_as_default=True)
    if cluster.workers:
        client.wait_for_workers(len(cluster.workers), timeout=60)
    yield cluster, client
    client.close(timeout=2)
