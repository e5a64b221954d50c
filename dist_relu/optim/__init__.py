"""Update rules on flat vectors, and learning-rate schedules."""

from dist_relu.optim.layerwise import LAMB, LARS
from dist_relu.optim.rules import (
    SGD,
    Adam,
    AdamW,
    ElementwiseOptimizer,
    LayerwiseOptimizer,
    Optimizer,
    RMSprop,
)
from dist_relu.optim.schedules import Constant, Cosine, Schedule, Step, WarmUp

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "ElementwiseOptimizer",
    "LayerwiseOptimizer",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "Step",
    "WarmUp",
]
