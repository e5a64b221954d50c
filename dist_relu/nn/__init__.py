"""Layers, losses, initialisers and the model that holds them.  Knows nothing of processes."""

from dist_relu.nn.activations import ReLU, Softmax
from dist_relu.nn.dense import Dense
from dist_relu.nn.initializers import (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    Initializer,
    Orthogonal,
    Zeros,
    gain,
)
from dist_relu.nn.layer import PLAIN, Layer, Param, PlainRun, Run
from dist_relu.nn.losses import CrossEntropy, Loss, MeanSquaredError, MixedTargets
from dist_relu.nn.lsuv import lsuv
from dist_relu.nn.models import mlp
from dist_relu.nn.sequential import Sequential

__all__ = [
    "PLAIN",
    "Constant",
    "CrossEntropy",
    "Dense",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "Layer",
    "Loss",
    "MeanSquaredError",
    "MixedTargets",
    "Orthogonal",
    "Param",
    "PlainRun",
    "ReLU",
    "Run",
    "Sequential",
    "Softmax",
    "Zeros",
    "gain",
    "lsuv",
    "mlp",
]
