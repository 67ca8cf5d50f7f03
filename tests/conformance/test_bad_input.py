"""Bad input on the socket: that connection ends, memory stays bounded, everyone else is served."""

import contextlib
import os
import pickle
import random
import resource
import socket
import struct
import time

import msgpack
import pytest
from harness import STOCK, rss
from helpers import inc
from rawpeer import HANDSHAKE, Peer, frames, message

pytestmark = pytest.mark.skipif(STOCK, reason="bounds of our own; the stock scheduler has none of them")
ROOM = 60_000_000


@pytest.fixture(scope="module")
def victim():
    """A cluster of this module's own: one worker, and a client that has to be served throughout."""
    from harness import Cluster

    with Cluster(1, config={"oxidask.client-buffer-limit": "32MiB"}) as cluster, cluster.client() as client:
        client.wait_for_workers(1, timeout=60)
        client.submit(inc, 0).result(timeout=30)
        cluster.bystander = client
        yield cluster


@pytest.fixture(autouse=True)
def others_are_served(victim):
    """What a test leaves behind stays within `victim.room` (freed memory may wait in the allocator for its thread)."""
    victim.rest, victim.room = rss(victim.scheduler.pid), ROOM
    yield
    assert victim.scheduler.alive(), victim.scheduler.text()[-3000:]
    value = random.randrange(1 << 40)
    assert victim.bystander.submit(inc, value).result(timeout=10) == value + 1
    assert len(victim.bystander.ncores()) == 1
    assert rss(victim.scheduler.pid) < victim.rest + victim.room
    assert "panicked" not in victim.scheduler.text()


def test_random_bytes(victim):
    rng = random.Random(0)
    for size in (1, 7, 8, 15, 16, 100, 4096, 100_000):
        for handshake in (False, True):
            with Peer(victim.port, handshake) as peer:
                with contextlib.suppress(OSError):
                    peer.send(b"\xff" * 16 + rng.randbytes(size))
                    assert peer.closed(), f"{size} bytes, handshake {handshake}"


def test_http_request_on_the_port(victim):
    with Peer(victim.port, handshake=False) as peer:
        peer.send(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.closed()


@pytest.mark.parametrize(
    "prelude",
    [
        struct.pack("<QQ", 24, 1 << 62),
        struct.pack("<QQ", (1 << 64) - 1, (1 << 64) - 1),
        struct.pack("<QQQ", 1 << 62, 1, 1 << 62),
        struct.pack("<QQQ", 24, 1, (1 << 64) - 1),
        struct.pack("<QQQQ", 1 << 60, 2, 1 << 63, 1 << 63),
        struct.pack("<QQ", 0, 0),
        struct.pack("<QQ", 8, 0),
        struct.pack("<QQQ", 3, 1, 10),
    ],
    ids=["frames", "all-ones", "exabytes", "length", "overflow", "zero", "no-frame", "short-first-read"],
)
def test_absurd_lengths(victim, prelude):
    for handshake in (False, True):
        with Peer(victim.port, handshake) as peer:
            peer.send(prelude)
            with contextlib.suppress(OSError):
                peer.send(b"\0" * 64)
            assert peer.closed()


def test_large_announcement_reserves_nothing(victim):
    """Gigabytes announced, little sent: memory follows what has arrived."""
    peers = [Peer(victim.port) for _ in range(20)]
    for peer in peers:
        peer.send(struct.pack("<QQQ", 24 + (2 << 30), 1, 2 << 30) + b"\x81" * 100_000)
    assert victim.bystander.submit(inc, 77).result(timeout=10) == 78
    assert rss(victim.scheduler.pid) < victim.rest + ROOM
    for peer in peers:
        peer.close()


def test_truncated_frames(victim):
    whole = message({"op": "identity"})
    for cut in range(1, len(whole), 3):
        with Peer(victim.port) as peer:
            peer.send(whole[:cut])
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.closed()


def test_bytes_one_at_a_time(victim):
    with Peer(victim.port, handshake=False) as peer:
        for byte in message(HANDSHAKE) + message({"op": "identity", "n_workers": 0}):
            peer.send(bytes([byte]))
        assert peer.receive()["pickle-protocol"]
        assert peer.receive()["type"] == "Scheduler"


def test_bad_msgpack(victim):
    deep = b"\x91" * 100_000 + b"\xc0"
    for head in (
        b"\xc1",
        b"\x81",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xffabc",
        deep,
        b"",
    ):
        with Peer(victim.port) as peer:
            peer.send(frames(head))
            assert peer.closed(), head[:10]


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "text",
        [],
        [1, 2, 3],
        {},
        {"op": None},
        {"op": 5},
        {"op": ["list"]},
        {"no-op": 1},
        {1: 2},
        {"op": {"__Serialized__": 7}},
        {"op": {"__Pickled__": 1}},
    ],
    ids=repr,
)
def test_wrong_shapes(victim, value):
    with Peer(victim.port) as peer:
        peer.send(message(value))
        with contextlib.suppress(EOFError, OSError):
            peer.receive()


def test_unknown_op_is_answered_with_nil(victim):
    with Peer(victim.port) as peer:
        assert peer.call(op="no-such-op") is None
        assert peer.call(op="no-such-op", reply=True, argument=[1, {"a": b"b"}]) is None
        assert peer.call(op="identity", n_workers=0)["type"] == "Scheduler"


WRONG = [
    None,
    True,
    -1,
    1 << 63,
    1.5,
    "x",
    b"\xff\x00",
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    [["x", 1]],
    {"x": []},
    {("t", 1): 2} and {"x": {"y": None}},
    float("nan"),
    "x" * 10_000,
]

ARGUMENTS = {
    "identity": ["n_workers"],
    "scatter": ["data", "workers", "client", "broadcast", "timeout"],
    "gather": ["keys", "serializers"],
    "retry": ["keys", "client"],
    "feed": ["function", "setup", "teardown", "interval"],
    "broadcast": ["msg", "workers", "hosts", "nanny", "on_error"],
    "proxy": ["msg", "worker"],
    "ncores": ["workers"],
    "has_what": ["workers"],
    "who_has": ["keys"],
    "processing": ["workers"],
    "call_stack": ["keys"],
    "profile": ["workers", "start", "stop", "key"],
    "logs": ["start", "n", "timestamps"],
    "worker_logs": ["n", "workers", "nanny"],
    "log_event": ["topic", "msg"],
    "events": ["topic"],
    "nbytes": ["keys", "summary"],
    "versions": ["packages"],
    "add_keys": ["worker", "keys"],
    "rebalance": ["keys", "workers"],
    "replicate": ["keys", "n", "workers", "branching_factor"],
    "run_function": ["function", "args", "kwargs", "wait"],
    "restart_workers": ["workers", "timeout", "on_error"],
    "update_data": ["who_has", "nbytes", "client"],
    "set_resources": ["worker", "resources"],
    "retire_workers": ["workers", "names", "stimulus_id"],
    "get_metadata": ["keys", "default"],
    "set_metadata": ["keys", "value"],
    "set_restrictions": ["worker"],
    "heartbeat_worker": ["address", "metrics", "executing", "extensions", "now"],
    "get_task_status": ["keys"],
    "get_task_stream": ["start", "stop", "count"],
    "register_scheduler_plugin": ["plugin", "name", "idempotent"],
    "unregister_scheduler_plugin": ["name"],
    "unregister_worker_plugin": ["name"],
    "unregister_nanny_plugin": ["name"],
    "register_nanny": ["address"],
    "adaptive_target": ["target_duration"],
    "workers_to_close": ["memory_ratio", "n", "key", "minimum", "target", "attribute"],
    "start_task_metadata": ["name"],
    "stop_task_metadata": ["name"],
    "get_story": ["keys_or_stimuli"],
    "unregister": ["address", "stimulus_id", "expected"],
    "multi_lock_acquire": ["locks", "id", "timeout", "num_locks"],
    "multi_lock_release": ["id"],
    "publish_put": ["names", "keys", "data", "override", "client"],
    "publish_get": ["names"],
    "publish_delete": ["names", "client"],
    "queue_create": ["name", "maxsize"],
    "queue_put": ["name", "key", "data", "client", "timeout"],
    "queue_qsize": ["name"],
    "variable_set": ["name", "key", "data", "client", "timeout"],
    "semaphore_register": ["name", "max_leases", "lease_timeout"],
    "semaphore_release": ["name", "lease_id"],
    "semaphore_refresh_leases": ["name", "lease_ids"],
    "semaphore_value": ["name"],
    "event_set": ["name"],
    "event_is_set": ["name"],
    "amm_handler": ["method"],
    "memory_sampler_start": ["client", "measure", "interval"],
    "memory_sampler_stop": ["key"],
    "shuffle_get": ["id", "worker"],
    "shuffle_get_or_create": ["shuffle_id", "key", "worker"],
    "shuffle_barrier": ["id", "run_id", "consistent"],
    "shuffle_restrict_task": ["id", "run_id", "key", "worker"],
    "get_runspec": ["key"],
    "get_error_cause": ["keys"],
}


def test_wrong_types_in_every_rpc(make_cluster):
    """Each operation with arguments missing, of wrong types and unknown: an answer or a closed connection, no more."""
    cluster = make_cluster()
    rng = random.Random(1)
    peer = Peer(cluster.port)
    for op, names in ARGUMENTS.items():
        trials = [{}, {"surprise": 1}, dict.fromkeys(names, None)]
        trials += [{name: rng.choice(WRONG) for name in names} for _ in range(4)]
        for arguments in trials:
            for name in ("timeout", "interval"):
                if name in arguments:
                    arguments[name] = rng.choice([0, "1ms", [], "x"])
            try:
                peer.socket.settimeout(2)
                peer.send(message({"op": op, **arguments, "reply": True}))
                peer.receive()
            except (EOFError, OSError):
                peer.close()
                peer = Peer(cluster.port)
            assert cluster.scheduler.alive(), f"{op} {arguments}: {cluster.scheduler.text()[-2000:]}"
    peer.close()
    assert "panicked" not in cluster.scheduler.text()
    with cluster.client() as client:
        cluster.add_worker()
        assert client.submit(inc, 1).result(timeout=30) == 2


STREAM_OPS = {
    "update-graph": "expr_ser keys internal_priority submitting_task fifo_timeout actors code annotations",
    "client-desires-keys": "keys client",
    "client-releases-keys": "keys client",
    "update-data": "who_has nbytes client",
    "report-key": "key",
    "cancel-keys": "keys force reason msg",
    "subscribe-topic": "topic client",
    "unsubscribe-topic": "topic client",
    "publish_flush_batched_send": "uid",
    "queue-future-release": "key name client",
    "queue_release": "name",
    "variable-future-received-confirm": "name key token",
    "variable_delete": "name",
    "task-finished": "key run_id nbytes type typename startstops stimulus_id worker",
    "task-erred": "key run_id exception traceback exception_text stimulus_id",
    "release-worker-data": "key worker stimulus_id",
    "add-keys": "keys worker stimulus_id",
    "long-running": "key run_id compute_duration worker stimulus_id",
    "reschedule": "key worker stimulus_id",
    "worker-status-change": "status worker stimulus_id",
    "log-event": "topic msg worker",
    "request-refresh-who-has": "keys worker stimulus_id",
    "steal-response": "key state stimulus_id worker",
    "heartbeat-client": "",
    "no-such-op": "anything",
}


def test_wrong_types_on_a_client_stream(victim):
    rng = random.Random(2)
    for op, names in STREAM_OPS.items():
        for trial in range(4):
            with Peer(victim.port) as peer:
                peer.register_client()
                arguments = {name: rng.choice(WRONG) for name in names.split()} if trial else {}
                with contextlib.suppress(OSError):
                    peer.send(message([{"op": op, **arguments}]))
                    peer.send(message([5, None, "x"]))
                    peer.send(message({"op": "close-client"}))
    assert victim.bystander.submit(inc, 4).result(timeout=10) == 5


def test_wrong_registration_of_a_worker(victim):
    for fields in ({}, {"address": 5}, {"address": "nonsense"}, {"address": "tcp://127.0.0.1:1", "nthreads": -5}):
        with Peer(victim.port) as peer:
            peer.send(message({"op": "register-worker", "reply": False, **fields}))
            with contextlib.suppress(EOFError, OSError):
                answer = peer.receive()
                assert answer.get("status") != "OK", answer
    assert len(victim.bystander.ncores()) == 1


def test_two_clients_of_one_name(victim):
    with Peer(victim.port) as one, Peer(victim.port) as two:
        one.register_client("Twin")
        with contextlib.suppress(EOFError, OSError, AssertionError):
            two.register_client("Twin")


def test_client_that_never_reads(victim):
    """It subscribes to a topic that gets megabytes: what is queued for it is bounded, the publisher is not held up."""
    victim.room = 6 * ROOM
    with Peer(victim.port) as deaf:
        name = deaf.register_client()
        deaf.send(message([{"op": "subscribe-topic", "topic": "flood", "client": name}]))
        text = "x" * 200_000
        with Peer(victim.port) as flood:
            for _ in range(1500):
                flood.call(op="log_event", topic="flood", msg=text)
        assert victim.bystander.submit(inc, 5).result(timeout=10) == 6
        # 1,000 events are kept as stock does (200 MB here): only what comes on top counts.
        assert rss(victim.scheduler.pid) < victim.rest + 1000 * len(text) + 4 * ROOM
    with Peer(victim.port) as flood:
        for _ in range(1000):
            flood.call(op="log_event", topic="flood", msg="")


def test_rpc_answers_nobody_reads(victim):
    with Peer(victim.port) as deaf:
        deaf.socket.setblocking(False)
        request = message({"op": "identity"})
        with contextlib.suppress(BlockingIOError):
            for _ in range(20_000):
                deaf.socket.send(request)
        assert victim.bystander.submit(inc, 6).result(timeout=10) == 7
        assert rss(victim.scheduler.pid) < victim.rest + ROOM


def half_open(port, count, payload, seen):
    """`count` connections that say too little; `seen` is called while all are open."""
    sockets = []
    try:
        for i in range(count):
            s = socket.socket()
            s.setblocking(False)
            # Loopback has many addresses: 10,000 connections need not exhaust one's ports.
            s.bind((f"127.0.{1 + i // 5000}.1", 0))
            with contextlib.suppress(BlockingIOError):
                s.connect(("127.0.0.1", port))
            sockets.append(s)
            if i % 250 == 249:
                for s in sockets[-250:]:
                    s.setblocking(True)
                    s.settimeout(10)
                    with contextlib.suppress(OSError):
                        s.send(payload)
        seen()
    finally:
        for s in sockets:
            s.close()


def test_ten_thousand_half_open_connections(victim):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 500)

    def served():
        before = time.monotonic()
        assert victim.bystander.submit(inc, os.getpid()).result(timeout=20) == os.getpid() + 1
        assert time.monotonic() - before < 10
        with Peer(victim.port) as peer:
            assert peer.call(op="identity", n_workers=0)["type"] == "Scheduler"
        assert rss(victim.scheduler.pid) < victim.rest + 4 * ROOM

    victim.room = 4 * ROOM
    half_open(victim.port, count, b"\x3a\0\0", served)


def test_compressed_head_and_odd_frames(victim):
    head = msgpack.packb({"op": "identity", "n_workers": 0})
    with Peer(victim.port) as peer:
        peer.send(frames(head, b"", b"surplus"))
        with contextlib.suppress(EOFError, OSError):
            peer.receive()
    with Peer(victim.port) as peer:
        peer.send(frames(*([b""] * 5000)))
        assert peer.closed()


def test_update_graph_of_garbage(victim):
    """Bytes that are no pickle: the client that sent them hears of it, nobody else."""
    sub = msgpack.packb({"serializer": "pickle", "writeable": [], "num-sub-frames": 1})
    plain = [msgpack.packb({"pickled-obj": pickle.dumps(v), "compression": [], "num-sub-frames": 0}) for v in ((), {})]
    graph = {"op": "update-graph", "keys": ["garbage"], "internal_priority": None, "submitting_task": None}
    graph |= {"fifo_timeout": 0.1, "actors": False, "expr_ser": {"__Serialized__": 1}}
    graph |= {"code": {"__Pickled__": 3}, "annotations": {"__Pickled__": 4}, "span_metadata": {"__Pickled__": 5}}
    for garbage in (b"", b"garbage", os.urandom(200), b"\x80\x05cos\n_exit\n(I3\ntR."):
        with Peer(victim.port) as peer:
            peer.register_client()
            peer.send(frames(msgpack.packb([graph]), sub, garbage, plain[0], plain[1], plain[1]))
            answers = []
            while not any(isinstance(m, dict) and m.get("op") == "task-erred" for m in answers):
                answers += peer.receive()
