"""Pickling task specifications: one cheap pickle per task instead of one cloudpickle per task.

A worker wants, for every task, a pickle of one ``dask._task_spec.GraphNode``. Tasks of one layer have most of that
pickle in common: the function (by value, when it lives in ``__main__``), the classes, shared arguments. So what
several tasks share by identity is pickled once into a *prelude*; a task is then::

    prelude  POP  <Task class> () NEWOBJ    |    pickle of its state, without STOP    |    BUILD STOP

which plain ``pickle.loads`` reads. The second part refers to the prelude's objects by their memo index, because its
pickler starts with the prelude's memo. First and last part are the *template*; they are sent once per graph.

Anything out of the ordinary falls back to ``distributed.protocol.pickle.dumps``, as the stock scheduler does.
"""

import copyreg
import io
import sys
from operator import attrgetter
from pickle import Pickler
from types import FunctionType

import cloudpickle
from dask._task_spec import Alias, DataNode, Dict, List, Set, Task, TaskRef, Tuple, _execute_subgraph
from distributed.protocol.pickle import dumps as stock_dumps

PROTOCOL = 5
#: Template number of a task whose pickle stands alone.
WHOLE = 0xFFFFFFFF
#: What comes after a task's own part.
AFTER = b"b."
#: Shared objects larger than this stay out of the prelude, unless they are the task's function.
MAX_SHARED_BYTES = 4096
#: A template that still misses objects after this many extensions is left as it is.
MAX_GROWTH = 4
#: Kinds of task that one graph may have; more are pickled on their own.
MAX_KINDS = 20_000

_TASK_SLOTS = Task.get_all_slots()
_task_state = attrgetter(*_TASK_SLOTS)
_new = copyreg.__newobj__


def _reduce_task(t):
    return _new, (Task,), _task_state(t)


def _container_reducer(cls):
    slots = cls.get_all_slots()
    state_of, kwargs_at = attrgetter(*slots), slots.index("kwargs")

    def reduce(t):
        state = list(state_of(t))
        kwargs = state[kwargs_at].copy()
        kwargs.pop("constructor", None)
        state[kwargs_at] = kwargs
        return _new, (cls,), state

    return reduce


#: Templates rest on the memo of CPython's C pickler. Elsewhere every task is pickled as stock does it.
HAS_MEMO = Pickler.__module__ == "_pickle"

#: The nodes' own ``__reduce__``/``__getstate__``, without the generator expressions.
_REDUCERS = {
    Task: _reduce_task,
    TaskRef: lambda t: (TaskRef, (t.key,)),
    Alias: lambda t: (Alias, (t.key, t.target)),
    DataNode: lambda t: (DataNode, (t.key, t.value)),
}
_REDUCERS.update({cls: _container_reducer(cls) for cls in (List, Tuple, Set, Dict)})
_SINGLETON_TYPES = (type(None), type(...), type(NotImplemented))


class Needs(Exception):
    """The task refers to an object that can only be pickled by value and isn't in the prelude."""


def importable(obj):
    """Whether ``obj`` (a function or class) can be pickled as a name that a worker imports."""
    module = getattr(obj, "__module__", None)
    if module is None:
        return True  # left to pickle
    if module == "__main__":
        return False
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", "")
    try:
        found = sys.modules.get(module) or __import__(module) and sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except Exception:
        return False
    return found is obj


class _NodePickler(Pickler):
    """A plain pickler that knows the graph nodes and refuses what needs cloudpickle."""

    def __init__(self, file, callback, by_name):
        super().__init__(file, PROTOCOL, buffer_callback=callback)
        self.by_name = by_name

    def reducer_override(self, obj):
        cls = type(obj)
        reduce = _REDUCERS.get(cls)
        if reduce is not None:
            return reduce(obj)
        if cls is FunctionType or issubclass(cls, type):
            known = self.by_name.get(id(obj))
            if known is None:
                known = obj in _SINGLETON_TYPES if cls is not FunctionType else False
                known = (known or importable(obj), obj)
                self.by_name[id(obj)] = known
            if not known[0]:
                raise Needs(obj)
        return NotImplemented


class _Prelude(cloudpickle.Pickler):
    """Pickles what tasks share; its memo is where their own picklers start."""

    def reducer_override(self, obj):
        reduce = _REDUCERS.get(type(obj))
        return reduce(obj) if reduce is not None else super().reducer_override(obj)


class Template:
    """The part of the pickle that tasks of one kind share."""

    __slots__ = ("id", "before", "memo", "shared", "grown")

    def __init__(self, number, shared, grown=0):
        file = io.BytesIO()
        pickler = _Prelude(file, protocol=PROTOCOL)
        pickler.dump((Task, *shared))
        # The prelude's value itself isn't wanted, only its memo: POP instead of STOP.
        head = bytearray(file.getvalue())
        head[-1:] = b"0"
        file.seek(0)
        file.truncate()
        self.memo = pickler.memo
        task = _get(self.memo.copy()[id(Task)][0])
        self.id = number
        self.before = bytes(head) + task + b")\x81"
        self.shared = shared
        self.grown = grown


def _get(index):
    """The opcode that fetches a memo entry."""
    return b"h" + bytes((index,)) if index < 256 else b"j" + index.to_bytes(4, "little")


def _small(obj):
    """Whether ``obj`` may travel with every task of its kind: short, and without out-of-band buffers."""
    buffers = []
    try:
        data = cloudpickle.dumps(obj, protocol=PROTOCOL, buffer_callback=buffers.append)
    except Exception:
        return False
    return not buffers and len(data) <= MAX_SHARED_BYTES


class SpecPickler:
    """Pickles the nodes of one graph.

    ``dump`` writes to ``out`` (a BytesIO that the caller empties between chunks) and returns the template's number;
    ``take_templates`` gives the templates made since the last call.
    """

    def __init__(self):
        self.out = io.BytesIO()
        self.buffers = []
        self.by_name = {}
        self.kinds = {}
        self.fresh = []
        self.ntemplates = 0
        self.keep = []
        self.pickler = _NodePickler(self.out, self.buffers.append, self.by_name)

    def template(self, shared, grown=0):
        """A new template whose prelude holds the objects ``shared``."""
        made = Template(self.ntemplates, shared, grown)
        self.ntemplates += 1
        self.fresh.append(made)
        return made

    def take_templates(self):
        """Templates made since the last call."""
        fresh, self.fresh = self.fresh, []
        return fresh

    def dump(self, node):
        """Write ``node``'s part and return its template's number, or WHOLE."""
        if type(node) is not Task:
            return self._dump_other(node)
        if not HAS_MEMO:
            return self._dump_stock(node)
        kind = _kind(node)
        known = self.kinds.get(kind)
        if type(known) is Template:
            return self._dump_with(kind, known, node)
        return self._dump_first(kind, known, node)

    def _rewind(self, start):
        """Take back what a failed dump has written."""
        at, nbuffers = start
        self.out.seek(at)
        self.out.truncate()
        del self.buffers[nbuffers:]

    def _position(self):
        return self.out.tell(), len(self.buffers)

    def _dump_with(self, kind, template, node):
        start = self._position()
        pickler = self.pickler
        pickler.memo = template.memo
        try:
            pickler.dump(_task_state(node))
            return template.id
        except Needs as e:
            self._rewind(start)
            if template.grown >= MAX_GROWTH:
                return self._dump_stock(node)
            return self._grow(kind, node, [*template.shared, e.args[0]], template.grown + 1)
        except Exception:
            self._rewind(start)
            return self._dump_stock(node)

    def _grow(self, kind, node, shared, grown):
        try:
            template = self.template(shared, grown)
        except Exception:
            return self._dump_stock(node)
        self.kinds[kind] = template
        return self._dump_with(kind, template, node)

    def _dump_first(self, kind, earlier, node):
        """The first two tasks of a kind stand alone; what both refer to becomes the template."""
        start = self._position()
        pickler = _NodePickler(self.out, self.buffers.append, self.by_name)
        try:
            pickler.dump(node)
        except Needs as e:
            self._rewind(start)
            needed = e.args[0]
            return self._grow(kind, node, [needed] if needed is node.func else [node.func, needed], 0)
        except Exception:
            self._rewind(start)
            return self._dump_stock(node)
        if earlier is None:
            if len(self.kinds) < MAX_KINDS:
                self.kinds[kind] = pickler
        else:
            try:
                self.kinds[kind] = self.template(_shared(earlier, pickler, node.func))
            except Exception:
                self.kinds[kind] = None
        return WHOLE

    def _dump_other(self, node):
        start = self._position()
        pickler = self.pickler
        pickler.clear_memo()
        try:
            if type(node) in _REDUCERS:
                pickler.dump(node)
                return WHOLE
        except Exception:
            self._rewind(start)
        return self._dump_stock(node)

    def _dump_stock(self, node):
        self.out.write(stock_dumps(node, buffer_callback=self.buffers.append))
        return WHOLE


def _kind(node):
    """Tasks that probably share most of their pickle: same layer, same function."""
    key, func = node.key, node.func
    layer = key[0] if type(key) is tuple else None
    if func is _execute_subgraph and layer is None:
        inner = node.args[0] if node.args else None
        if type(inner) is dict:
            return tuple([id(getattr(t, "func", None)) for t in inner.values()])
    return layer, id(func) if hasattr(func, "__name__") else type(func)


def _shared(one, other, func):
    """Objects that two tasks of a kind both refer to, the function first."""
    theirs = one.memo.copy()
    both = [(index, obj) for i, (index, obj) in other.memo.copy().items() if i in theirs]
    both.sort(key=lambda pair: pair[0])
    shared = [obj for _, obj in both if obj is not func and obj is not Task and type(obj) is not str and _small(obj)]
    return [func, *shared] if id(func) in theirs else shared
