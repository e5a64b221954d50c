"""Layers, losses, initialisers and the model that holds them.  Knows nothing of processes."""

from dist_relu.nn.activations import ReLU, Softmax
from dist_relu.nn.dense import Dense
from dist_relu.nn.embedding import Embedding
from dist_relu.nn.initializers import Constant, GlorotNormal, GlorotUniform, HeNormal, HeUniform, Initializer, Normal
from dist_relu.nn.layer import PLAIN, Layer, Param, PlainRun, Run
from dist_relu.nn.losses import CrossEntropy, Loss, MeanSquaredError
from dist_relu.nn.models import mlp
from dist_relu.nn.normalization import BatchNorm, Dropout, LayerNorm
from dist_relu.nn.residual import Residual
from dist_relu.nn.sequential import Sequential

__all__ = [
    "PLAIN",
    "BatchNorm",
    "Constant",
    "CrossEntropy",
    "Dense",
    "Dropout",
    "Embedding",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "Layer",
    "LayerNorm",
    "Loss",
    "MeanSquaredError",
    "Normal",
    "Param",
    "PlainRun",
    "ReLU",
    "Residual",
    "Run",
    "Sequential",
    "Softmax",
    "mlp",
]
