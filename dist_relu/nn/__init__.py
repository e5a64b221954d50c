"""Layers, losses, initialisers and the model that holds them.  Knows nothing of processes."""

from dist_relu.nn.activations import ReLU, Softmax
from dist_relu.nn.dense import Dense
from dist_relu.nn.initializers import GlorotNormal, GlorotUniform, HeNormal, HeUniform, Initializer, Zeros
from dist_relu.nn.layer import PLAIN, Layer, Param, PlainRun, Run
from dist_relu.nn.losses import CrossEntropy, Loss, MeanSquaredError
from dist_relu.nn.models import mlp
from dist_relu.nn.sequential import Sequential

__all__ = [
    "PLAIN",
    "CrossEntropy",
    "Dense",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "Layer",
    "Loss",
    "MeanSquaredError",
    "Param",
    "PlainRun",
    "ReLU",
    "Run",
    "Sequential",
    "Softmax",
    "Zeros",
    "mlp",
]
