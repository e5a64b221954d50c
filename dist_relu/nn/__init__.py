"""Layers, losses, initialisers and the model that holds them.  Knows nothing of processes."""

from dist_relu.nn.activations import ReLU, Softmax
from dist_relu.nn.convolution import Conv2d
from dist_relu.nn.dense import Dense
from dist_relu.nn.initializers import GlorotNormal, GlorotUniform, HeNormal, HeUniform, Initializer, Zeros
from dist_relu.nn.layer import PLAIN, Layer, Param, PlainRun, Run
from dist_relu.nn.losses import CrossEntropy, Loss, MeanSquaredError
from dist_relu.nn.models import cnn, mlp
from dist_relu.nn.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from dist_relu.nn.reshaping import Flatten, FromNCHW, Reshape
from dist_relu.nn.sequential import Sequential

__all__ = [
    "PLAIN",
    "AvgPool2d",
    "Conv2d",
    "CrossEntropy",
    "Dense",
    "Flatten",
    "FromNCHW",
    "GlobalAvgPool2d",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "Layer",
    "Loss",
    "MaxPool2d",
    "MeanSquaredError",
    "Param",
    "PlainRun",
    "ReLU",
    "Reshape",
    "Run",
    "Sequential",
    "Softmax",
    "Zeros",
    "cnn",
    "mlp",
]
