"""Update rules on flat vectors, and learning-rate schedules."""

from dist_relu.optim.rules import SGD, Adam, AdamW, Optimizer
from dist_relu.optim.schedules import Constant, Cosine, Schedule, Step, WarmUp

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Optimizer",
    "Schedule",
    "Step",
    "WarmUp",
]
