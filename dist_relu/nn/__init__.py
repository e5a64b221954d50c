"""Layers, losses, initialisers and the model that holds them.  Knows nothing of processes."""

from dist_relu.nn.initializers import (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    Initializer,
    Normal,
    Orthogonal,
    gain,
)
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, PlainPass
from dist_relu.nn.layers.activations import (
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
from dist_relu.nn.layers.convolution import Conv2d
from dist_relu.nn.layers.dense import Dense
from dist_relu.nn.layers.embedding import Embedding
from dist_relu.nn.layers.normalization import BatchNorm, Dropout, LayerNorm
from dist_relu.nn.layers.parallel import Parallel
from dist_relu.nn.layers.penalty import ActivityPenalty
from dist_relu.nn.layers.policy_heads import Categorical, PolicyHead, TanhGaussian
from dist_relu.nn.layers.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from dist_relu.nn.layers.recurrent import RNN
from dist_relu.nn.layers.reshaping import Flatten, FromNCHW, Reshape
from dist_relu.nn.layers.residual import Residual
from dist_relu.nn.layers.row_activations import GLU, CReLU, LogSoftmax, PReLU, ReGLU, RReLU, Softmax, SwiGLU
from dist_relu.nn.layers.standardize import Standardize, standardized
from dist_relu.nn.losses.classification import CrossEntropy
from dist_relu.nn.losses.composed import MixedTargets
from dist_relu.nn.losses.labels import BinaryCrossEntropy, Focal
from dist_relu.nn.losses.loss import Loss
from dist_relu.nn.losses.regression import Huber, MeanAbsoluteError, MeanSquaredError
from dist_relu.nn.lsuv import lsuv
from dist_relu.nn.models import actor, cnn, mlp, policy, resnet, rnn
from dist_relu.nn.sequential import Sequential
from dist_relu.nn.summary import summary

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "PLAIN",
    "RNN",
    "SELU",
    "ActivityPenalty",
    "AvgPool2d",
    "BatchNorm",
    "BinaryCrossEntropy",
    "CReLU",
    "Categorical",
    "Constant",
    "Conv2d",
    "CrossEntropy",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "Focal",
    "FromNCHW",
    "GlobalAvgPool2d",
    "GlorotNormal",
    "GlorotUniform",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HeNormal",
    "HeUniform",
    "Huber",
    "Identity",
    "Initializer",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Loss",
    "MaxPool2d",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Mish",
    "MixedTargets",
    "Normal",
    "Orthogonal",
    "PReLU",
    "Parallel",
    "Param",
    "Pass",
    "PlainPass",
    "PolicyHead",
    "RReLU",
    "ReGLU",
    "ReLU",
    "ReLU6",
    "Reshape",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SquaredReLU",
    "Standardize",
    "SwiGLU",
    "Tanh",
    "TanhGaussian",
    "Threshold",
    "actor",
    "cnn",
    "gain",
    "lsuv",
    "mlp",
    "policy",
    "resnet",
    "rnn",
    "standardized",
    "summary",
]
