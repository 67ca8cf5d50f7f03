"""Specifications of peer-to-peer shuffles: objects in Python, of which the scheduler needs the placement only."""

import pickle

from distributed.protocol.pickle import dumps
from distributed.shuffle._core import P2PBarrierTask, ShuffleRunSpec
from distributed.shuffle._exceptions import P2PIllegalStateError


def _loads(run_spec):
    data, *buffers = run_spec
    return pickle.loads(data, buffers=buffers)


def _pinned(shuffle_id, existing):
    """Where other shuffles of the same output tasks have put their partitions."""
    pinned = {}
    for other in existing:
        theirs = _loads(other).worker_for
        for partition in pinned.keys() & theirs.keys():
            if pinned[partition] != theirs[partition]:
                raise P2PIllegalStateError(
                    f"Failed to initialize shuffle {shuffle_id} because it cannot align output partition mappings "
                    f"between existing shuffles. Mismatch encountered for output partition {partition!r}: "
                    f"{pinned[partition]} != {theirs[partition]}."
                )
        pinned.update(theirs)
    return pinned


def run_spec(barrier, workers, run_id, span_id=None, existing=()):
    """The run of a shuffle: which workers take part, and the pickle they get.

    Parameters
    ----------
    barrier:
        The barrier task's pickle and its buffers.
    workers:
        Addresses to choose from, already rotated.
    run_id:
        Number of this run.
    existing:
        Pickled runs of active shuffles that share output tasks; their partitions stay where they are.
    """
    task = _loads(barrier)
    if not isinstance(task, P2PBarrierTask):
        raise TypeError(f"{task!r} is not the barrier of a shuffle")
    spec = task.spec
    pinned = _pinned(spec.id, existing)
    workers = list(workers)
    worker_for = {
        partition: pinned[partition] if partition in pinned else spec.pick_worker(partition, workers)
        for partition in spec.output_partitions
    }
    run = ShuffleRunSpec(spec=spec, worker_for=worker_for, span_id=span_id)
    object.__setattr__(run, "run_id", run_id)
    return {"run_spec": dumps(run), "participants": sorted(set(worker_for.values()))}
