"""What a model computes, for programs that run its ONNX file elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from math import isnan, prod
from pathlib import Path
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.files import write_file
from dist_relu.core.untrusted import made, parse_json, read_file, reading
from dist_relu.errors import CheckpointError, DataError
from dist_relu.nn import Embedding, Sequential
from dist_relu.nn.structure import every_layer
from dist_relu.partition.rng import Purpose, generator

_FORMAT = "dist_relu certificate 1"
_MOST_SAMPLES, _MOST_NUMBERS = 4, 2**16
_MOST_BYTES = 2**28
_TOLERANCE = {"float32": 1e-4, "float64": 1e-7}
"""What programs may differ by, of numbers of up to 1; of larger ones, in proportion."""


@final
@dataclass(frozen=True)
class Certificate:
    """A certificate says which file holds which parameters, and what the model gives for some samples.

    file_sha256: of the ONNX file.  params_sha256: of the parameters, as `Sequential.sha256` has it.
    inputs, outputs: a few samples drawn from `seed`, and what the model makes of them; lists in lists.
    onnxruntime: the version that has run the file, None where it is not installed or can't run such a model.
    largest_difference: the largest distance between its outputs and the model's, NaN where there are none.
    """

    file: str
    file_sha256: str
    params_sha256: str
    dist_relu: str
    dtype: str
    seed: int
    inputs: list[Any]
    outputs: list[Any]
    onnxruntime: str | None
    largest_difference: float
    format: str = _FORMAT

    def write(self, path: Path) -> None:
        """Write it beside the ONNX file.  Raises `WriteError`."""
        content = dataclasses.asdict(self)
        content["largest_difference"] = None if isnan(self.largest_difference) else self.largest_difference
        numbers = {name: content.pop(name) for name in ("inputs", "outputs")}
        lines = json.dumps(content, indent=2).removesuffix("\n}")
        for name, samples in numbers.items():
            rows = ",\n    ".join(json.dumps(sample) for sample in samples)
            lines += f',\n  "{name}": [\n    {rows}\n  ]'
        write_file(path.with_suffix(".json"), lines + "\n}\n")


def certify(model: Sequential, name: str, content: bytes) -> Certificate:
    """The certificate of a model, and of its ONNX file, of that name and content."""
    seed = 0
    x = _samples(model, seed)
    y = model.forward(x)
    difference, runtime = float("nan"), None
    try:
        outputs, runtime = _run(content, x)
        difference = float(np.abs(outputs - y).max(initial=0))
    except (_CantRun, ImportError):
        pass
    return Certificate(
        file=name,
        file_sha256=hashlib.sha256(content).hexdigest(),
        params_sha256=model.sha256(),
        dist_relu=version("dist_relu"),
        dtype=model.dtype.name,
        seed=seed,
        inputs=x.tolist(),
        outputs=y.tolist(),
        onnxruntime=runtime,
        largest_difference=difference,
    )


def verify(path: str | Path) -> float:
    """Run an ONNX file by onnxruntime on the samples of its certificate; returns the largest difference of outputs.

    Raises `CheckpointError` for a file that is not the one of the certificate, or that gives other outputs: further
    away than 1e-4 of numbers up to 1, in proportion above (1e-7 in float64, for ONNX has arguments of layers as
    float32); `DataError` without onnxruntime.
    """
    path = Path(path)
    certificate = read_certificate(path.with_suffix(".json"))
    with reading(path, CheckpointError, "ONNX"):
        content = read_file(path, 2**31)
    if hashlib.sha256(content).hexdigest() != certificate.file_sha256:
        raise CheckpointError(f"{path} is not the file of its certificate: its SHA-256 is another one.")
    dtype = np.dtype(certificate.dtype)
    x, y = np.array(certificate.inputs, dtype), np.array(certificate.outputs, dtype)
    try:
        found, _ = _run(content, x)
    except ImportError as error:
        raise DataError(f"To verify ONNX files needs onnxruntime: pip install 'dist_relu[onnx]'. ({error})") from None
    except _CantRun as error:
        raise DataError(f"{path}: onnxruntime can't run it: {error}") from None
    if found.shape != y.shape:
        raise CheckpointError(f"{path} gives outputs of shape {found.shape}; its certificate has {y.shape}.")
    differences = np.abs(found - y)
    wrong = ~(differences <= _TOLERANCE[certificate.dtype] * np.maximum(np.abs(y), 1))
    if wrong.any():
        largest = differences[wrong].max()
        raise CheckpointError(f"{path} gives other outputs than its certificate has: they differ by {largest:.3g}.")
    return float(differences.max(initial=0))


def read_certificate(path: str | Path) -> Certificate:
    """The certificate in a file.  Raises `CheckpointError` for what is none."""
    with reading(path, CheckpointError, "a certificate"):
        certificate = made(Certificate, parse_json(read_file(path, _MOST_BYTES)))
        if certificate.format != _FORMAT:
            raise ValueError(f"its format is {certificate.format!r}; expected {_FORMAT!r}")
        if certificate.dtype not in _TOLERANCE:
            raise ValueError(f"its dtype is {certificate.dtype!r}; expected float32 or float64")
        for name in ("inputs", "outputs"):
            np.array(getattr(certificate, name), certificate.dtype)  # raises ValueError for what is no array
    return certificate


def _samples(model: Sequential, seed: int) -> Array:
    """A few samples as the model might get them: normal numbers, or symbols."""
    rng = generator(seed, Purpose.INITIAL_WEIGHTS, 0)
    num = max(min(_MOST_SAMPLES, _MOST_NUMBERS // prod(model.input_shape)), 1)
    shape = (num, *model.input_shape)
    symbols = [layer.symbols for layer in every_layer(model.layers) if isinstance(layer, Embedding)]
    if symbols:
        return rng.integers(min(symbols), size=shape).astype(model.dtype)
    return rng.standard_normal(shape).astype(model.dtype)


class _CantRun(Exception):
    """What onnxruntime has no kernels for, or what it says of a graph."""


def _run(content: bytes, x: Array) -> tuple[Array, str]:
    """What onnxruntime makes of samples, and its version.  Raises ImportError and `_CantRun`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (outputs,) = session.run(None, {session.get_inputs()[0].name: x})
    except Exception as error:  # it has many kinds, and none in common
        raise _CantRun(str(error).splitlines()[0]) from error
    return np.asarray(outputs), onnxruntime.__version__
