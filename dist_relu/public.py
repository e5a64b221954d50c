"""The public names of the package, which imports this module when the first of them is asked for."""

from dist_relu import activations, analysis, compression, data, metrics, nn, optim, rl
from dist_relu.checkpoint import load_model, save_model
from dist_relu.coordinator import Coordinator, start
from dist_relu.data import Dataset
from dist_relu.distributed_relu import DistributedReLU
from dist_relu.engine.diagnosis import NotFinite
from dist_relu.engine.normalizing import normalized
from dist_relu.engine.results import Evaluation, FitResult, Validated
from dist_relu.engine.watch.records import (
    PREACTIVATION_EDGES,
    EpochSummary,
    Watch,
    WatchedLayer,
    WatchedParam,
    WatchedStep,
)
from dist_relu.errors import (
    BackendError,
    CheckpointError,
    DataError,
    DataWarning,
    DistReluError,
    FaultyWorker,
    NoRoom,
    PartitionError,
    TrainingDiverged,
    TrainingWarning,
    UnsuitableBackend,
    WorkerLost,
    WriteError,
)
from dist_relu.run.autotune import Tuning, autotune
from dist_relu.run.callbacks import BestModel, EarlyStopping, ReduceOnPlateau
from dist_relu.run.checkpoints import Checkpoint, newest_state
from dist_relu.run.csv_log import CSVLog
from dist_relu.run.learning_rate import LearningRateCurve, LearningRateFinder
from dist_relu.run.live_progress import LiveProgress
from dist_relu.run.state import RunState
from dist_relu.run.state_file import load_state, save_state
from dist_relu.run.tracing.summary import Phases
from dist_relu.run.tracing.trace import Trace
from dist_relu.run.trainer import Trainer
from dist_relu.runtime.backends import Backend
from dist_relu.runtime.recovery import Recovery
from dist_relu.runtime.world import World

__all__ = [
    "PREACTIVATION_EDGES",
    "Backend",
    "BackendError",
    "BestModel",
    "CSVLog",
    "Checkpoint",
    "CheckpointError",
    "Coordinator",
    "DataError",
    "DataWarning",
    "Dataset",
    "DistReluError",
    "DistributedReLU",
    "EarlyStopping",
    "EpochSummary",
    "Evaluation",
    "FaultyWorker",
    "FitResult",
    "LearningRateCurve",
    "LearningRateFinder",
    "LiveProgress",
    "NoRoom",
    "NotFinite",
    "PartitionError",
    "Phases",
    "Recovery",
    "ReduceOnPlateau",
    "RunState",
    "Trace",
    "Trainer",
    "TrainingDiverged",
    "TrainingWarning",
    "Tuning",
    "UnsuitableBackend",
    "Validated",
    "Watch",
    "WatchedLayer",
    "WatchedParam",
    "WatchedStep",
    "WorkerLost",
    "World",
    "WriteError",
    "activations",
    "analysis",
    "autotune",
    "compression",
    "data",
    "load_model",
    "load_state",
    "metrics",
    "newest_state",
    "nn",
    "normalized",
    "optim",
    "rl",
    "save_model",
    "save_state",
    "start",
]
