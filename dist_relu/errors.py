"""What can go wrong, as a tree:

    DistReluError
    ├── DataError (ValueError)          a data set or file that can't be trained on
    ├── PartitionError (ValueError)     numbers of samples, shards and workers that don't fit together
    ├── CheckpointError (ValueError)    a file that is not a whole, unchanged model
    ├── WriteError (OSError)            a file that can't be written
    ├── TrainingDiverged (ArithmeticError)  the loss is no number any more
    └── BackendError (RuntimeError)     workers that can't be started or reached
        ├── UnsuitableBackend (ValueError)  one that can't be had with these arguments, or in this environment
        ├── NoRoom                      a cluster that has no room for so many workers
        ├── WorkerLost                  a worker that died
        └── FaultyWorker                a worker that computes wrong
    TrainingWarning (UserWarning)       a training that is hardly what was meant

Arguments that are wrong in themselves raise `ValueError` or `TypeError`. All of these survive pickling.
`DataWarning` (UserWarning) tells what data are taken for, where they could be meant otherwise.
"""

from collections.abc import Sequence
from typing import Any


class DistReluError(Exception):
    """The root of this package's own errors."""


class DataError(DistReluError, ValueError):
    """A data set or data file that can't be used; the message says where and why."""


class DataWarning(UserWarning):
    """Data that are probably not what they are taken for; the message says what that is, and what to do otherwise."""


class PartitionError(DistReluError, ValueError):
    """Numbers of samples, shards and workers that don't fit together."""


class CheckpointError(DistReluError, ValueError):
    """A file that is not a whole, unchanged model."""


class WriteError(DistReluError, OSError):
    """A file that can't be written; the message names it and says why.  What stood there before is as it was."""


class TrainingDiverged(DistReluError, ArithmeticError):
    """The loss, a gradient or a parameter became NaN or infinite; the message names the step, and where in it.

    step: its number.  shard, layer, sample, parameter: see `NotFinite`; None where nothing of the kind is known.
    state: the `RunState` before that step, from which it can be taken again, on any backend:
    `coordinator.trainer(..., state=error.state).fit(steps=1)`. None where it is lost.
    watched: what `Coordinator.fit(..., watch=...)` saw until then.
    """

    step: int | None = None
    shard: int | None = None
    layer: str | None = None
    sample: int | None = None
    parameter: str | None = None
    state: Any = None
    watched: Sequence[Any] = ()


class TrainingWarning(UserWarning):
    """What was asked for can be done, but is hardly what was meant: samples of 0 to 255, a loss that has grown."""


class BackendError(DistReluError, RuntimeError):
    """Workers that can't be started or reached."""


class UnsuitableBackend(BackendError, ValueError):
    """A backend that can't be had with these arguments, or in this environment; the message says what to do."""


class NoRoom(BackendError):
    """A cluster has no room for so many workers.

    room: how many there could be, those included that there are.
    """

    room: int = 0


class WorkerLost(BackendError):
    """A worker died; the message names its rank, its process and what killed it.

    ranks: of those that are known to be lost.
    """

    ranks: Sequence[int] = ()


class FaultyWorker(BackendError):
    """A worker has computed other bits than others have for the same shard; the message names it, and what to do.

    step, shard: where it was found.  workers, hosts: ranks, and where they run: one, or all that may be meant.
    """

    step: int
    shard: int
    workers: Sequence[int]
    hosts: Sequence[str]
