"""Bodies of requests and responses: JSON as TensorFlow Serving and KServe have it, and arrays as np.save writes them.

Bodies come from strangers. They are of bounded length when they get here, and nothing in them is unpickled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, final

import numpy as np

from dist_relu.activations import sigmoid, softmax
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_ints
from dist_relu.core.untrusted import parse_json, printable
from dist_relu.data.numpy_files import samples_in
from dist_relu.engine.arguments import checked_samples
from dist_relu.errors import DataError
from dist_relu.nn import LogSoftmax, Sequential, Softmax
from dist_relu.nn.structure import tells_classes, tells_labels

JSON, NPY = "application/json", "application/x-npy"
_ALSO_NPY = {NPY, "application/npy", "application/octet-stream"}

_DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
"""What the Open Inference Protocol (V2) calls types."""

_NUMBERS = {"UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BOOL"}


class Refused(Exception):
    """A request that gets no prediction.  status: the code of HTTP that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, printable(message)


@final
@dataclass(frozen=True, kw_only=True)
class Question:
    """The body of a request for predictions.  is_v2: in the form of the Open Inference Protocol."""

    content: bytes
    media_type: str
    accept: str
    is_v2: bool


@final
@dataclass(frozen=True, kw_only=True)
class Reply:
    """What becomes of a question: status and body of the response, and what is counted.

    rows, batch_rows: of the request, and of all that were computed together with it.  version: of the model.
    """

    status: int
    content: bytes
    media_type: str = JSON
    rows: int = 0
    batch_rows: int = 0
    version: str = ""


def refusal(error: Refused) -> Reply:
    return Reply(status=error.status, content=as_json({"error": error.message}))


def as_json(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def samples_of(question: Question, model: Sequential) -> Array:
    """The samples (N, *input_shape) in a question, N > 0.  Raises `Refused`."""
    media_type = question.media_type.partition(";")[0].strip().lower()
    try:
        if media_type in _ALSO_NPY and not question.is_v2:
            x = samples_in(question.content, "The body")
        elif media_type in ("", JSON, "text/json", "application/x-www-form-urlencoded"):  # the last one is curl's
            content = _parsed(question.content)
            x = _from_v2(content) if question.is_v2 else _from_v1(content)
        else:
            expected = JSON if question.is_v2 else f"{JSON} or {NPY}"
            raise Refused(415, f"Content-Type {media_type!r}: expected {expected}.")
        if not len(x):
            raise Refused(400, "There are no samples in the body; expected at least one.")
        if x.shape[1:] != model.input_shape:
            raise Refused(
                400, f"The samples have shape {x.shape[1:]}; this model takes samples of shape {model.input_shape}."
            )
        return np.asarray(checked_samples(model, x))
    except (DataError, ValueError, TypeError) as error:
        raise Refused(400, str(error)) from None


def wants_npy(question: Question) -> bool:
    """Whether the answer is to be an array: what is accepted says so, or else the form of the question."""
    if question.is_v2:
        return False
    accepted = [part.partition(";")[0].strip().lower() for part in question.accept.split(",")]
    for kind in accepted:
        if kind in _ALSO_NPY:
            return True
        if kind == JSON:
            return False
    return question.media_type.partition(";")[0].strip().lower() in _ALSO_NPY


def answer_of(question: Question, model: Sequential, outputs: Array, version: str, name: str) -> tuple[str, bytes]:
    """Media type and body of an answer.  outputs: (N, *output_shape)."""
    if wants_npy(question):
        content = io.BytesIO()
        np.save(content, outputs)
        return NPY, content.getvalue()
    if question.is_v2:
        return JSON, as_json(_as_v2(question, model, outputs, version, name))
    return JSON, as_json({"predictions": _as_v1(model, outputs)})


def _as_v1(model: Sequential, outputs: Array) -> list[Any]:
    """For each sample its class, or its labels, with probabilities; or the numbers of a regression."""
    probabilities = _probabilities(model, outputs)
    if probabilities is None:
        return _plain(outputs)
    rows = _plain(probabilities)
    if model.predicts == "labels":
        return [
            {"labels": there, "probabilities": row}
            for there, row in zip((outputs > 0).astype(int).tolist(), rows, strict=True)
        ]
    predictions: list[Any] = []
    for number, row in zip(_classes(outputs).tolist(), rows, strict=True):
        named = {"name": model.classes[number]} if model.classes and number < len(model.classes) else {}
        predictions.append({"class": number, **named, "probabilities": row})
    return predictions


def _as_v2(question: Question, model: Sequential, outputs: Array, version: str, name: str) -> dict[str, Any]:
    tensors = {"outputs": outputs}
    if (probabilities := _probabilities(model, outputs)) is not None:
        tensors["probabilities"] = probabilities
        if model.predicts != "labels":
            tensors["class"] = _classes(outputs)
    answer: dict[str, Any] = {"model_name": name, "model_version": version}
    if (number := _parsed(question.content).get("id")) is not None:
        answer["id"] = number
    answer["outputs"] = [
        {**_described(tensor_name, array.dtype.name, array.shape), "data": _plain(array.reshape(-1))}
        for tensor_name, array in tensors.items()
    ]
    return answer


def inputs_of(model: Sequential) -> list[dict[str, Any]]:
    """The tensors that a model takes, as V2 describes them."""
    return [_described("inputs", model.dtype.name, (-1, *model.input_shape))]


def outputs_of(model: Sequential) -> list[dict[str, Any]]:
    """The tensors that its answers have."""
    none = np.empty((0, *model.output_shape), model.dtype)
    outputs = [_described("outputs", model.dtype.name, (-1, *model.output_shape))]
    if (probabilities := _probabilities(model, none)) is not None:
        outputs.append(_described("probabilities", model.dtype.name, (-1, *probabilities.shape[1:])))
        if model.predicts != "labels":
            outputs.append(_described("class", "int64", (-1,)))
    return outputs


def _described(name: str, dtype: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "datatype": _DATATYPES[dtype]}


def _probabilities(model: Sequential, outputs: Array) -> Array | None:
    """Those of each class or label, (N, classes); None of a model that predicts neither."""
    if tells_labels(model):
        there = sigmoid(outputs)
        return there if model.predicts == "labels" else np.concatenate([1 - there, there], axis=1)
    if not tells_classes(model):
        return None
    match model.layers[-1]:
        case Softmax():
            return outputs
        case LogSoftmax():
            return np.exp(outputs)
    return softmax(outputs)


def _classes(outputs: Array) -> Array:
    """The class of each sample, (N,) int64.  A single output tells two apart."""
    return outputs.argmax(axis=1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).astype(np.int64)


def _plain(array: Array) -> list[Any]:
    """Lists of numbers, and of None for what JSON has no word for."""
    numbers: Array = array if np.isfinite(array).all() else array.astype(object)
    if numbers.dtype == object:
        numbers[~np.isfinite(array)] = None
    plain: list[Any] = numbers.tolist()
    return plain


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        parsed = parse_json(content)
    except RecursionError:
        raise Refused(400, "The body is nested too deep to be JSON of samples.") from None
    except ValueError as error:
        raise Refused(400, f"The body is no JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise Refused(400, f"The body is a JSON {type(parsed).__name__}; expected an object.")
    return parsed


def _from_v1(content: dict[str, Any]) -> Array:
    if "instances" not in content:
        raise Refused(400, 'The body has no "instances"; expected {"instances": [sample, ...]}.')
    return _numbers("instances", content["instances"])


def _from_v2(content: dict[str, Any]) -> Array:
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(400, 'Expected one tensor: {"inputs": [{"name", "shape", "datatype", "data"}]}.')
    missing = [key for key in ("shape", "datatype", "data") if key not in inputs[0]]
    if missing:
        raise Refused(400, f'inputs[0] has no "{missing[0]}".')
    datatype, data = inputs[0]["datatype"], _numbers("inputs[0].data", inputs[0]["data"])
    if datatype not in _NUMBERS:
        raise Refused(400, f"inputs[0].datatype is {datatype!r}; expected one of {', '.join(sorted(_NUMBERS))}.")
    shape = _shape(inputs[0]["shape"])
    if prod(shape) != data.size:
        raise Refused(400, f"inputs[0] has {data.size} numbers; its shape {shape} needs {prod(shape)}.")
    return data.reshape(shape)


def _shape(value: Any) -> Sequence[int]:
    if not isinstance(value, list) or not value:
        raise Refused(400, "inputs[0].shape is no list of whole numbers, of which the first counts samples.")
    return check_ints("inputs[0].shape", value, 0)


def _numbers(name: str, value: Any) -> Array:
    if not isinstance(value, list):
        raise Refused(400, f"{name} is a JSON {type(value).__name__}; expected a list of samples.")
    try:
        array = np.array(value, np.float64)  # of a given type, or long text among numbers would take memory for each
    except (ValueError, TypeError) as error:
        what = "lists of unequal lengths" if "inhomogeneous" in str(error) else "what are no numbers"
        raise Refused(400, f"{name} holds {what}; expected samples of one shape, of numbers.") from None
    if not np.isfinite(array).all():
        raise Refused(400, f"{name} holds numbers that are none or infinite.")
    return array
