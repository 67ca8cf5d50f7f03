"""The HTTP server: health, metrics, JSON, the operator's API, pages."""

import json
import urllib.error
import urllib.request

import pytest
from harness import STOCK, wait_until
from helpers import boom, inc
from prometheus_client.parser import text_string_to_metric_families


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None


def get(url, data=None, follow=True):
    opener = urllib.request.build_opener(*([] if follow else [NoRedirect()]))
    headers = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(url, json.dumps(data).encode() if data is not None else None, headers)
    try:
        with opener.open(request, timeout=20) as reply:
            return reply.status, reply.headers, reply.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read().decode()


def test_health(shared):
    status, _, body = get(f"{shared.http}/health")
    assert (status, body) == (200, "ok")


def test_s204_metrics(client, shared):
    kept = client.map(inc, range(5), pure=False)
    client.gather(kept)
    bad = client.submit(boom)
    assert bad.exception() is not None
    status, headers, body = get(f"{shared.http}/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(body)}
    names = """clients client_connections_added client_connections_removed desired_workers workers workers_added
        workers_removed tasks tasks_suspicious tasks_forgotten task_groups tasks_compute_seconds tasks_output_bytes
        prefix_state_totals tick_count tick_duration_maximum_seconds""".split()
    missing = [n for n in names if f"dask_scheduler_{n}" not in families]
    assert not missing
    value = lambda name, **labels: next(s.value for s in families[name].samples if s.labels == labels)
    assert value("dask_scheduler_clients") >= 1
    assert value("dask_scheduler_tasks", state="memory") == 5 and value("dask_scheduler_tasks", state="erred") == 1
    assert {s.labels["state"] for s in families["dask_scheduler_workers"].samples} == {
        "idle",
        "partially_saturated",
        "saturated",
        "paused",
        "retiring",
    }
    assert sum(s.value for s in families["dask_scheduler_workers"].samples) == 3
    assert value("dask_scheduler_tasks_compute_seconds", task_prefix_name="inc") >= 0
    assert "dask_stealing_request_count" in families and "dask_semaphore_max_leases" in families


def test_json_routes(client, shared):
    future = client.submit(inc, 1)
    future.result()
    status, _, body = get(f"{shared.http}/json/counts.json")
    counts = json.loads(body)
    fields = """bytes clients cores erred hosts idle memory processing released saturated tasks unrunnable waiting
        waiting_data workers desired_workers""".split()
    assert status == 200 and set(fields) <= set(counts)
    assert counts["workers"] == 3 and counts["cores"] == 4 and counts["memory"] >= 1
    if not STOCK:  # answers 500 once a worker has reported metrics with tuples as keys
        identity = json.loads(get(f"{shared.http}/json/identity.json")[2])
        assert identity["type"] == "Scheduler" and len(identity["workers"]) == 3
    assert get(f"{shared.http}/json/index.html")[0] == 200


def test_info_pages(client, shared):
    future = client.submit(inc, 1, key="shown-on-a-page")
    future.result()
    worker = next(iter(client.ncores()))
    escaped = urllib.request.quote(worker, safe="")
    pages = ["main/workers.html", "main/exceptions.html", "main/logs.html"]
    pages += [f"worker/{escaped}.html", f"logs/{escaped}.html", f"call-stacks/{escaped}.html"]
    pages += ["task/shown-on-a-page.html"]
    for page in pages:
        status, headers, body = get(f"{shared.http}/info/{page}")
        assert status == 200 and "text/html" in headers["Content-Type"] and "<" in body, page
    assert "shown-on-a-page" in get(f"{shared.http}/info/task/shown-on-a-page.html")[2]
    assert get(f"{shared.http}/info/task/unknown.html")[0] == 404
    assert get(f"{shared.http}/info/worker/unknown.html")[0] == 404
    assert get(f"{shared.http}/info", follow=False)[0] in (301, 302)


def test_s197_workers_page_shows_each_worker(client, shared):
    body = get(f"{shared.http}/info/main/workers.html")[2]
    assert all(name in body for name in ("alice", "bob", "carol"))


def test_sitemap_and_unknown(shared):
    if not STOCK:
        paths = json.loads(get(f"{shared.http}/sitemap.json")[2])["paths"]
        assert any("health" in p for p in paths)
    assert get(f"{shared.http}/no/such/page")[0] == 404
    assert get(f"{shared.http}/individual-plots.json")[0] == 200


def test_s031_root_redirects(shared):
    status, headers, _ = get(f"{shared.http}/", follow=False)
    assert status in (301, 302, 307, 308) and headers["Location"].endswith("/status")


@pytest.mark.cluster(workers=2)
def test_api(own):
    """dask-kubernetes and others drive the scheduler with these."""
    cluster, client = own
    api = f"{cluster.http}/api/v1"
    assert get(api)[0] == 200
    found = json.loads(get(f"{api}/get_workers")[2])
    assert found["num_workers"] == 2 and {w["name"] for w in found["workers"]} == {"w1", "w2"}
    assert json.loads(get(f"{api}/adaptive_target")[2]) == {"workers": 0}
    assert "idle_since" in json.loads(get(f"{api}/check_idle")[2])
    kept = client.map(inc, range(10))
    client.gather(kept)
    status, _, body = get(f"{api}/retire_workers", {"n": 1})
    assert status == 200 and len(json.loads(body)) == 1
    wait_until(lambda: len(client.ncores()) == 1, 20)
    assert client.gather(kept) == list(range(1, 11))
    del kept
    wait_until(lambda: not client.who_has(), 10)
    [last] = client.ncores()
    assert get(f"{api}/retire_workers", {"workers": [last]})[0] == 200
    wait_until(lambda: not client.ncores(), 20)
    assert get(f"{api}/retire_workers", {"nonsense": 5})[0] in (200, 400, 500)


def test_s032_dashboard_prefix(make_cluster):
    cluster = make_cluster(scheduler_args=("--dashboard-prefix", "/some/where"))
    assert get(f"{cluster.http}/some/where/health")[0] == 200


def test_eventstream_websocket(client, shared):
    import asyncio

    import aiohttp

    async def listen():
        url = shared.http.replace("http", "ws") + "/eventstream"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
            await ws.send_json({"name": "ping"})
            names = []
            futures = client.map(inc, range(3), pure=False)
            # The stock scheduler closes the socket when it meets a value that is not JSON.
            while not {"add_worker", *([] if STOCK else ["pong", "transition"])} <= set(names):
                names.append((await ws.receive_json(timeout=10))["name"])
            client.gather(futures)

    asyncio.run(asyncio.wait_for(listen(), 20))
