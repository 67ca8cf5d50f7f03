"""From the client's pickled expression to tasks: what the stock scheduler does in ``update_graph`` before it touches
its own state. Ordering and culling by wanted keys are the scheduler's."""

import pickle
import sys
from array import array
from itertools import chain
from operator import attrgetter
from time import perf_counter

import msgpack
from dask._expr import LLGExpr
from dask._task_spec import Alias, DataNode, Task
from distributed.protocol.compression import decompress
from distributed.protocol.core import dumps as stock_message
from distributed.protocol.serialize import merge_and_deserialize, msgpack_decode_default, msgpack_encode_default
from distributed.protocol.utils import msgpack_opts
from distributed.utils import ensure_memoryview

from .errors import DESERIALIZATION, hint
from .maps import plain_map
from .specs import SpecPickler
from .tuning import convert_legacy_graph
from .wire import check_keys, pack

DATA_PRODUCER = 1
P2P_BARRIER = 2
#: A value, no work: it has no say in the order.
DATA_NODE = 4
#: A chunk of specifications goes out when it holds this many bytes or tasks.
CHUNK_BYTES = 512 << 10
CHUNK_TASKS = 8192

_dependencies = attrgetter("_dependencies")
_is_producer = attrgetter("_data_producer")
#: Node classes whose ``dependencies`` and ``data_producer`` are known to be plain.
_KNOWN = {Task, Alias, DataNode}


def load_expression(header, frames):
    """The expression, or stock's RuntimeError with the cause chained."""
    try:
        header = msgpack.loads(header, object_hook=msgpack_decode_default, use_list=False, **msgpack_opts)
        if any(header.get("compression") or ()):
            frames = decompress(header, frames)
        return merge_and_deserialize(header, frames)
    except Exception as e:
        raise RuntimeError(DESERIALIZATION + hint(e)) from e


def load_pickled(frames):
    """The object of a ``ToPickle`` payload given as sub-header and buffers."""
    header, *buffers = frames
    header = msgpack.loads(header)
    if any(header.get("compression") or ()):
        buffers = decompress(header, buffers)
    return pickle.loads(header["pickled-obj"], buffers=buffers)


class Structure:
    """Keys, edges and flags of a graph, as columns."""

    def __init__(self, keys, nodes):
        self.keys = keys
        index = dict(zip(keys, range(len(keys))))
        kinds = set(map(type, nodes))
        known = kinds <= _KNOWN
        deps = list(map(_dependencies, nodes)) if known else [node.dependencies for node in nodes]
        self.counts = array("I", map(len, deps))
        try:
            self.deps = array("I", map(index.__getitem__, chain.from_iterable(deps)))
            self.externals = []
        except KeyError:
            self.deps, self.externals = _with_externals(index, deps)
        self.flags = _flags(kinds, nodes)


def _with_externals(index, deps):
    n = len(index)
    out = array("I")
    externals = {}
    for key in chain.from_iterable(deps):
        at = index.get(key)
        out.append(n + externals.setdefault(key, len(externals)) if at is None else at)
    return out, list(externals)


def _flags(kinds, nodes):
    """A byte per node; empty when all are zero."""
    if kinds == {Task}:
        flags = bytes(map(_is_producer, nodes))
    else:
        shuffle = sys.modules.get("distributed.shuffle._core")
        barrier = getattr(shuffle, "P2PBarrierTask", ())
        flags = bytes(
            (DATA_PRODUCER if node.data_producer else 0)
            | (P2P_BARRIER if isinstance(node, barrier) else 0)
            | (DATA_NODE if isinstance(node, DataNode) else 0)
            for node in nodes
        )
    return flags if any(flags) else b""


def annotations(expr, common, keys):
    """Per annotation its tasks and values, and what is the same for all tasks.

    Values of layers come before those common to all, whose callables are called with every key.
    """
    layers = expr.__dask_annotations__()
    callables = {name: f for name, f in (common or {}).items() if callable(f)}
    rest = {name: value for name, value in (common or {}).items() if name not in callables}
    per_task = {}
    if layers or callables:
        index = dict(zip(keys, range(len(keys))))
        for name, f in callables.items():
            per_task[name] = {i: f(key) for key, i in index.items()}
        for name, values in layers.items():
            own = per_task.setdefault(name, {})
            for key, value in values.items():
                i = index.get(key)
                if i is not None and value is not None:
                    own[i] = value
    return {name: [list(own), list(own.values())] for name, own in per_task.items() if own}, rest


def _encode_head(head):
    """Message frames of a map that may hold anything."""
    try:
        return [msgpack.packb(head, default=msgpack_encode_default, use_bin_type=True)]
    except TypeError:
        return stock_message(head)


class Answer:
    """Sends one graph's answer over ``channel``."""

    def __init__(self, channel, request):
        self.channel = channel
        self.request = request
        self.pickler = SpecPickler()
        self.start = perf_counter()
        self.seconds = 0.0

    def run(self, expr, common, spans):
        """Materialise and send; the number of tasks. Raises whatever the graph raises."""
        plain = plain_map(expr, self.pickler)
        if plain is not None:
            self._run_plain(expr, plain, common, spans)
            return len(plain.keys)
        nodes_by_key = convert_legacy_graph(expr.__dask_graph__())
        keys, nodes = list(nodes_by_key), list(nodes_by_key.values())
        check_keys(keys)
        per_task, rest = annotations(expr, common, keys)
        cull = isinstance(expr, LLGExpr)
        del expr, nodes_by_key
        self.seconds = perf_counter() - self.start
        self._head(Structure(keys, nodes), cull, per_task, rest, spans)
        self._specs(nodes)
        return len(keys)

    def _run_plain(self, expr, plain, common, spans):
        per_task, rest = annotations(expr, common, plain.keys)
        self.seconds = perf_counter() - self.start
        structure = Structure.__new__(Structure)
        structure.keys = plain.keys
        structure.counts = array("I", bytes(4 * len(plain.keys)))
        structure.deps, structure.externals, structure.flags = array("I"), [], b""
        self._head(structure, False, per_task, rest, spans)
        head = {"t": "map", "ncolumns": plain.ncolumns, "seconds": self.seconds}
        self.channel.queue([pack(head), plain.before, plain.middle, plain.after, *plain.packed])
        self.channel.flush()

    def _head(self, structure, cull, per_task, rest, spans):
        head = {"t": "head", "id": self.request, "n": len(structure.keys), "cull": cull}
        if per_task:
            head["annotations"] = per_task
        if rest:
            head["global"] = rest
        if spans:
            head["spans"] = spans
        frames = _encode_head(head)
        counts, deps = structure.counts.tobytes(), structure.deps.tobytes()
        columns = [pack(structure.keys), counts, deps, structure.flags, pack(structure.externals)]
        self.channel.queue([*frames, *columns])
        if len(structure.keys) > 64:
            self.channel.flush()

    def _specs(self, nodes):
        pickler = self.pickler
        dump, tell, buffers = pickler.dump, pickler.out.tell, pickler.buffers
        at, n, done = 0, len(nodes), 0
        # Nodes are dropped once pickled, so that a large graph's memory goes as its pickles come.
        nodes.reverse()
        while True:
            ids, ends, nbuffers, nseen = array("I"), array("Q"), array("I"), 0
            while nodes:
                ids.append(dump(nodes.pop()))
                at = tell()
                ends.append(at)
                if len(buffers) > nseen:
                    nbuffers.extend([0] * (len(ids) - len(nbuffers)))
                    nbuffers[-1] = len(buffers) - nseen
                    nseen = len(buffers)
                if at >= CHUNK_BYTES or len(ids) >= CHUNK_TASKS:
                    break
            done += len(ids)
            self._send_specs(ids, ends, nbuffers, last=done == n)
            if done == n:
                return
            pickler.out.seek(0)
            pickler.out.truncate()
            buffers.clear()

    def _send_specs(self, ids, ends, nbuffers, last):
        pickler = self.pickler
        templates = [t.before for t in pickler.take_templates()]
        head = {"t": "specs", "n": len(ids), "templates": len(templates), "last": last, "seconds": self.seconds}
        columns = [ids.tobytes(), ends.tobytes(), nbuffers.tobytes(), pickler.out.getvalue()]
        buffers = [ensure_memoryview(b) for b in pickler.buffers]
        self.channel.queue([pack(head), *columns, *templates, *buffers])
        self.channel.flush()
