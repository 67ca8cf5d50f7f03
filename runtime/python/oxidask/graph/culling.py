"""Culling in linear time.

``HighLevelGraph.cull`` hands *all* wanted keys to every layer, and a layer of one task copies and walks them: that is
quadratic for ``dask.delayed``, where each call is a layer. The tasks left over are the same here.
"""

from dask import highlevelgraph
from dask._task_spec import GraphNode
from dask.base import flatten
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer

_stock_graph_cull = HighLevelGraph.cull
_stock_layer_cull = Layer.cull


def _flat_tasks(graph):
    """All tasks in one mapping, if nothing is known per layer; else None."""
    tasks = {}
    for layer in graph.layers.values():
        if type(layer) is not MaterializedLayer or layer.annotations or layer.collection_annotations:
            return None
        tasks.update(layer.mapping)
    if not all(isinstance(t, GraphNode) for t in tasks.values()):
        return None
    return tasks


def _cull_graph(self, keys):
    wanted = set(flatten(keys))
    if not wanted or type(self) is not HighLevelGraph or len(self.layers) < 8:
        return _stock_graph_cull(self, keys)
    tasks = _flat_tasks(self)
    if tasks is None:
        return _stock_graph_cull(self, keys)
    out = {}
    work = list(wanted)
    while work:
        key = work.pop()
        if key in out:
            continue
        task = tasks.get(key)
        if task is not None:
            out[key] = task
            work.extend(task.dependencies)
    return HighLevelGraph({"culled": MaterializedLayer(out)}, {"culled": set()})


def _cull_layer(self, keys, all_hlg_keys):
    if len(self) < len(keys):
        own = [key for key in self if key in keys]
        if self.has_legacy_tasks or len(own) < len(keys):
            keys = set(own)
    return _stock_layer_cull(self, keys, all_hlg_keys)


def install():
    """Put both in dask's place."""
    if hasattr(highlevelgraph, "MaterializedLayer"):
        HighLevelGraph.cull = _cull_graph
        Layer.cull = _cull_layer
