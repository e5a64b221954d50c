"""Update rules on flat vectors, and learning-rate schedules."""

from dist_relu.optim.averaging import DiLoCo, LocalSGD
from dist_relu.optim.groups import Group, Groups, no_decay
from dist_relu.optim.layerwise import LAMB, LARS
from dist_relu.optim.lbfgs import LBFGS, Iteration, Minimum
from dist_relu.optim.rates import scaled
from dist_relu.optim.rules import (
    SGD,
    Adam,
    AdamW,
    ElementwiseOptimizer,
    LayerwiseOptimizer,
    Optimizer,
    RMSprop,
)
from dist_relu.optim.schedules import (
    Constant,
    Cosine,
    Exponential,
    LargeBatch,
    OneCycle,
    Polynomial,
    Scaled,
    Schedule,
    Step,
    WarmUp,
)

__all__ = [
    "LAMB",
    "LARS",
    "LBFGS",
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "DiLoCo",
    "ElementwiseOptimizer",
    "Exponential",
    "Group",
    "Groups",
    "Iteration",
    "LargeBatch",
    "LayerwiseOptimizer",
    "LocalSGD",
    "Minimum",
    "OneCycle",
    "Optimizer",
    "Polynomial",
    "RMSprop",
    "Scaled",
    "Schedule",
    "Step",
    "WarmUp",
    "no_decay",
    "scaled",
]
