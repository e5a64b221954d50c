"""Layers, losses, initialisers and the model that holds them.  Knows nothing of processes."""

from dist_relu.nn.activations import (
    CELU,
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    Mish,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softplus,
    SquaredReLU,
    Tanh,
    Threshold,
)
from dist_relu.nn.dense import Dense
from dist_relu.nn.embedding import Embedding
from dist_relu.nn.initializers import Constant, GlorotNormal, GlorotUniform, HeNormal, HeUniform, Initializer, Normal
from dist_relu.nn.layer import PLAIN, Layer, Param, PlainRun, Run
from dist_relu.nn.losses import CrossEntropy, Loss, MeanSquaredError
from dist_relu.nn.models import mlp
from dist_relu.nn.normalization import BatchNorm, Dropout, LayerNorm
from dist_relu.nn.recurrent import RNN
from dist_relu.nn.residual import Residual
from dist_relu.nn.row_activations import GLU, CReLU, LogSoftmax, PReLU, ReGLU, RReLU, Softmax, SwiGLU
from dist_relu.nn.sequential import Sequential

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "PLAIN",
    "RNN",
    "SELU",
    "BatchNorm",
    "CReLU",
    "Constant",
    "CrossEntropy",
    "Dense",
    "Dropout",
    "Embedding",
    "GlorotNormal",
    "GlorotUniform",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Loss",
    "MeanSquaredError",
    "Mish",
    "Normal",
    "PReLU",
    "Param",
    "PlainRun",
    "RReLU",
    "ReGLU",
    "ReLU",
    "ReLU6",
    "Residual",
    "Run",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SquaredReLU",
    "SwiGLU",
    "Tanh",
    "Threshold",
    "mlp",
]
