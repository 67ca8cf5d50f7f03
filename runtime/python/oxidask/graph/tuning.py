"""Faster forms of what dominates the materialisation of arrays in dask, with the same results.

They replace dask's own only in the release that they were compared with; any other release runs as it is.
"""

from itertools import chain, product
from types import BuiltinFunctionType, FunctionType

import dask
from dask import _task_spec, blockwise
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, parse_input

COMPARED_WITH = "2026.8."

#: Exact types of arguments that are neither nodes nor references.
_LITERALS = {
    *(str, int, float, bool, complex, bytes, tuple, list, dict, set, frozenset, slice, range, type(None), type),
    *(FunctionType, BuiltinFunctionType),
}
_stock_substitute = Task.substitute
_stock_convert = _task_spec.convert_legacy_graph
_no_deps = frozenset()


def _init(self, key, func, /, *args, _data_producer=False, **kwargs):
    self.key = key
    self.func = func
    if isinstance(func, Task):
        raise TypeError("Cannot nest tasks")
    self.args = args
    self.kwargs = kwargs
    dependencies = None
    for arg in chain(args, kwargs.values()) if kwargs else args:
        cls = type(arg)
        if cls is TaskRef:
            found = (arg.key,)
        elif cls in _LITERALS:
            continue
        elif isinstance(arg, TaskRef):
            found = (arg.key,)
        elif isinstance(arg, GraphNode):
            found = arg.dependencies
            if not found:
                continue
        else:
            continue
        if dependencies is None:
            dependencies = set(found)
        else:
            dependencies.update(found)
    self._dependencies = frozenset(dependencies) if dependencies else _no_deps
    self._is_coro = None
    self._token = None
    self._repr = None
    self._data_producer = _data_producer


def _substitute(self, subs, key=None):
    if type(self) is not Task:
        return _stock_substitute(self, subs, key)
    wanted = {}
    if subs:
        for k in self._dependencies:
            if k in subs:
                value = subs[k]
                if value != k:
                    wanted[k] = value
    if not wanted:
        if key is None or key == self.key:
            return self
        return Task(key, self.func, *self.args, **self.kwargs, _data_producer=self._data_producer)
    args = [
        a if type(a) in _LITERALS or not isinstance(a, (GraphNode, TaskRef)) else a.substitute(wanted)
        for a in self.args
    ]
    kwargs = self.kwargs
    if kwargs:
        kwargs = {k: a.substitute(wanted) if isinstance(a, (GraphNode, TaskRef)) else a for k, a in kwargs.items()}
    return Task(key or self.key, self.func, *args, **kwargs, _data_producer=self._data_producer)


def _make_blockwise_graph(
    task,
    output,
    out_indices,
    *arrind_pairs,
    numblocks=None,
    concatenate=None,
    new_axes=None,
    output_blocks=None,
    dims=None,
    io_deps=None,
    keys=None,
):
    """Dask's, but with all arguments of a block substituted at once."""
    if numblocks is None:
        raise ValueError("Missing required numblocks argument.")
    io_deps = io_deps or {}
    argpairs = list(zip(arrind_pairs[::2], arrind_pairs[1::2]))
    if concatenate is True:
        from dask.array.core import concatenate_axes as concatenate
    dims = dims or blockwise._make_dims(argpairs, numblocks, new_axes or {})
    coord_maps, concat_axes, dummies = blockwise._get_coord_mapping(dims, out_indices, numblocks, argpairs, concatenate)
    if not len(coord_maps) == len(concat_axes) == len(argpairs) == len(keys):
        raise ValueError("zip() arguments have different lengths")
    output_blocks = output_blocks or list(product(*[range(dims[i]) for i in out_indices]))
    constant = {}
    plan = []
    for cmap, axes, (arg, ind), key in zip(coord_maps, concat_axes, argpairs, keys):
        if key not in task.dependencies:
            continue
        if ind is None:
            constant[key] = arg if isinstance(arg, (GraphNode, TaskRef)) else DataNode(None, arg)
        else:
            plan.append((cmap, axes, arg, key, io_deps.get(arg) if arg in io_deps else None))
    graph = {}
    for out_coords in output_blocks:
        coords = out_coords + dummies
        subs = dict(constant)
        for cmap, axes, arg, key, source in plan:
            arg_coords = tuple([coords[c] for c in cmap])
            if source is not None:
                value = parse_input(source.get(arg_coords, arg_coords))
                subs[key] = value if isinstance(value, GraphNode) else DataNode(None, value)
            elif axes:
                blocks = blockwise._lol_product((arg,), arg_coords, as_taskref=True)
                subs[key] = Task(key, concatenate, blocks, axes) if concatenate else blocks
            else:
                subs[key] = (arg, *arg_coords)
        new_key = (output,) + out_coords
        made = task.substitute(subs, key=new_key)
        assert isinstance(made, Task)
        graph[new_key] = made
    return graph


def convert_legacy_graph(dsk, all_keys=None):
    """Dask's, without a call per task for graphs that have no legacy tasks."""
    types = set(map(type, dsk.values()))
    if not all(issubclass(cls, GraphNode) for cls in types):
        return _stock_convert(dsk, all_keys)
    if any(issubclass(cls, Alias) for cls in types):
        return {k: t for k, t in dsk.items() if not (isinstance(t, Alias) and t.target == k)}
    return dict(dsk)


def install():
    """Put them in dask's place, if this is the release they were compared with."""
    if not dask.__version__.startswith(COMPARED_WITH):
        return
    Task.__init__ = _init
    Task.substitute = _substitute
    # Modules of collections are imported later and take this one.
    _task_spec.convert_legacy_graph = convert_legacy_graph
    blockwise._make_blockwise_graph = _make_blockwise_graph
