"""Options of the command line, from text to objects."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from dist_relu import nn
from dist_relu.cli.model_file import model_from_file
from dist_relu.cli.types import MODEL_FORMS
from dist_relu.data import Augment, Split
from dist_relu.data.dataset import looks_channels_first
from dist_relu.engine.normalizing import How, normalized
from dist_relu.errors import DataError
from dist_relu.nn import Flatten, Sequential, actor, cnn, mlp, resnet, rnn
from dist_relu.optim import LAMB, LARS, SGD, Adam, AdamW, Optimizer, RMSprop, Schedule


class Rule(NamedTuple):
    """An optimiser of the command line.  make: it, from (learning rate, momentum, weight decay).  lr: the default."""

    make: Callable[[Schedule, float, float], Optimizer]
    lr: float


OPTIMIZERS = {
    "sgd": Rule(lambda lr, momentum, decay: SGD(lr, momentum=momentum, weight_decay=decay), 0.1),
    "nesterov": Rule(lambda lr, momentum, decay: SGD(lr, momentum=momentum, nesterov=True, weight_decay=decay), 0.1),
    "adam": Rule(lambda lr, _, decay: Adam(lr, weight_decay=decay), 0.001),
    "adamw": Rule(lambda lr, _, decay: AdamW(lr, weight_decay=decay), 0.001),
    "rmsprop": Rule(lambda lr, momentum, decay: RMSprop(lr, momentum=momentum, weight_decay=decay), 0.001),
    "lars": Rule(lambda lr, momentum, decay: LARS(lr, momentum=momentum, weight_decay=decay), 5.0),
    "lamb": Rule(lambda lr, _, decay: LAMB(lr, weight_decay=decay), 0.01),
}

ACTIVATIONS: dict[str, Callable[[], nn.Layer]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "relu6": nn.ReLU6,
    "squared-relu": nn.SquaredReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "hardswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}

INITIALIZERS: dict[str, nn.Initializer] = {
    "he-normal": nn.HeNormal(),
    "he-uniform": nn.HeUniform(),
    "glorot-normal": nn.GlorotNormal(),
    "glorot-uniform": nn.GlorotUniform(),
    "orthogonal": nn.Orthogonal(),
    "normal": nn.Normal(0.01),
}


def parse_recurrent_init(text: str) -> nn.Initializer:
    """From "identity", "identity:SCALE" or the name of an initialiser.  Raises ValueError for any other text."""
    name, colon, scale = text.partition(":")
    try:
        if name == "identity":
            return nn.Identity(float(scale) if colon else 1.0)
        return INITIALIZERS[text]
    except (ValueError, KeyError):
        raise ValueError(
            f"--init {text}: expected identity, identity:SCALE, or one of {', '.join(INITIALIZERS)}."
        ) from None


def parse_model(text: str, data: Split, dtype: str | None) -> Sequential:
    """A model for `data`, from one of `MODELS`, or from "file.py:function", which returns a model.

    dtype: by default float32, or that of the model from a file, which keeps the parameters that it has.
    Raises ValueError for any other text.
    """
    kind, _, rest = text.rpartition(":")
    if text.endswith(".py"):
        raise ValueError(f"--model {text}: which function of it? Expected {text}:function.")
    if kind.endswith(".py"):
        return model_from_file(Path(kind), rest, dtype)
    name, _, arguments = text.partition(":")
    if name not in MODELS:
        raise ValueError(f"--model {text}: expected {MODEL_FORMS} or path/to/file.py:function.")
    return MODELS[name](arguments, data, dtype or "float32")


def parse_new_model(text: str, data: Split, dtype: str | None) -> Sequential:
    """`parse_model`, where parameters are to be drawn anew.  Raises ValueError for a model that has some."""
    model = parse_model(text, data, dtype)
    if model.has_values:
        raise ValueError(
            f"--model {text}: returned a model with parameters, but here they are drawn; return it without."
        )
    return model


def with_normalization(how: str, model: Sequential, data: Split) -> Sequential:
    """The model with samples that are scaled as --normalize says; the model itself does it, whoever passes them.

    Raises ValueError where samples are symbols, or no images.
    """
    if how == "none":
        return model
    try:
        return normalized(model, data.train, cast("How", how))
    except (ValueError, DataError) as error:
        raise ValueError(f"--normalize {how}: {error}") from None


def with_activation_and_init(model: Sequential, activation: str | None, init: str | None) -> Sequential:
    """`model` with another activation for every ReLU, and other initial weights of dense layers and convolutions."""

    def change(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(change, value))
        if activation and isinstance(value, nn.ReLU):
            return ACTIVATIONS[activation]()
        if init and isinstance(value, nn.Dense | nn.Conv2d):
            return dataclasses.replace(value, init=INITIALIZERS[init])
        if isinstance(value, nn.Residual):
            return nn.Residual(change(value.body), change(value.shortcut))
        if isinstance(value, nn.Parallel):
            return nn.Parallel(change(value.branches))
        return value

    return Sequential(*change(model.blueprint().layers), dtype=model.dtype)


def with_recurrent_init(model: Sequential, init: nn.Initializer) -> Sequential:
    """`model` with other initial recurrent weights."""
    layers = model.blueprint().layers
    changed = (dataclasses.replace(one, recurrent_init=init) if isinstance(one, nn.RNN) else one for one in layers)
    return Sequential(*changed, dtype=model.dtype)


def with_depth(text: str, depth: int | None) -> str:
    """The name of an mlp of `depth` hidden layers, from that of one with a single one: "mlp:100"."""
    if depth is None:
        return text
    name, _, sizes = text.partition(":")
    if name != "mlp" or "," in sizes:
        raise ValueError(f"--depth {depth} is for a model mlp:UNITS, of which it makes so many layers, not for {text}.")
    return "mlp:" + ",".join([sizes] * depth)


def _mlp(text: str, data: Split, dtype: str) -> Sequential:
    model = mlp(_sizes_of("mlp", text), data.num_outputs(), dtype)
    return model if data.train.rows.ndim == 2 else Sequential(Flatten(), *model.layers, dtype=dtype)


def _policy(text: str, data: Split, dtype: str) -> Sequential:
    return actor(_sizes_of("policy", text), data.num_outputs(), dtype=dtype)


def _cnn(text: str, data: Split, dtype: str) -> Sequential:
    if text:
        raise ValueError(f"--model cnn:{text}: cnn takes no numbers.")
    return cnn(_image_shape("cnn", data), data.num_outputs(), dtype)


def _resnet(text: str, data: Split, dtype: str) -> Sequential:
    if not text:
        raise ValueError("--model resnet: how deep? Expected resnet:8, resnet:14, resnet:20, ...")
    depth = _whole(text, f"--model resnet:{text}")
    return resnet(depth, _image_shape("resnet", data), data.num_outputs(), dtype)


def _rnn(text: str, data: Split, dtype: str) -> Sequential:
    """Sequences as they are; images row by row, or pixel by pixel."""
    if not text:
        raise ValueError("--model rnn: how many units? Expected rnn:UNITS, such as rnn:100.")
    size, comma, unit = text.partition(",")
    units = _whole(size, f"--model rnn:{text}")
    if comma and unit != "pixels":
        raise ValueError(f"--model rnn:{text}: expected rnn:UNITS or rnn:UNITS,pixels.")
    if data.train.rows.ndim == 3 and not comma:
        return rnn(units, data.num_outputs(), dtype=dtype)
    height, width, channels = _image_shape(f"rnn:{text}", data)
    rows = (height * width, channels) if comma else (height, width * channels)
    return rnn(units, data.num_outputs(), rows, dtype)


MODELS: dict[str, Callable[[str, Split, str], Sequential]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "rnn": _rnn,
    "policy": _policy,
}

NORMALIZATIONS = ["none", *get_args(How)]


def parse_sizes(option: str, text: str) -> list[int]:
    """From "UNITS,UNITS,..."; option: what the user wrote before that.  Raises ValueError for any other text."""
    return [_whole(size, f"{option}{text}") for size in text.split(",")]


def parse_words(option: str, text: str) -> list[str]:
    """From words as a shell takes them.  option: whose they are.  Raises ValueError for a quote without an end."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{option} {text}: {str(error)[:1].lower()}{str(error)[1:]}.") from None


def _sizes_of(name: str, text: str) -> list[int]:
    if not text:
        raise ValueError(f"--model {name}: how many units? Expected {name}:UNITS,UNITS,..., such as {name}:256,128.")
    return parse_sizes(f"--model {name}:", text)


def _image_shape(name: str, data: Split) -> tuple[int, int, int]:
    if data.train.image_shape:
        return data.train.image_shape
    if data.train.rows.ndim == 4:
        height, width, channels = data.train.sample_shape
        if looks_channels_first((height, width, channels)):
            raise ValueError(
                f"--model {name}: images are NHWC, (N, height, width, channels); yours, {data.train.rows.shape}, look "
                "like NCHW: nn.FromNCHW. Begin a model of your own (file.py:function) with it, or save "
                "x.transpose(0, 2, 3, 1)."
            )
        return height, width, channels
    raise ValueError(
        f"--model {name}: the samples are no images; expected x of shape (N, height, width, channels), "
        f"not {data.train.rows.shape}."
    )


def parse_augment(text: str | None, mixup: float) -> Augment | None:
    """From "crop:PIXELS", "flip", or both with a comma between them; None for nothing, and no mixup either.

    Raises ValueError for any other text.
    """
    crop, flip = 0, False
    for change in text.split(",") if text else []:
        name, _, rest = change.strip().partition(":")
        if name == "crop":
            crop = _whole(rest, f"--augment {text}")
        elif change.strip() == "flip":
            flip = True
        else:
            raise ValueError(f"--augment {text}: expected crop:PIXELS, flip, or both with a comma between them.")
    return Augment(crop, flip, mixup) if crop or flip or mixup else None


def _whole(text: str, where: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"{where}: {text!r} is no whole number of at least 1.")
    return int(text)
