"""Models as Python modules that need NumPy alone, with their parameters in them."""

from __future__ import annotations

import ast
import inspect
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from math import isinf, prod
from typing import Any, final

import numpy as np

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is
from dist_relu.export import numpy_functions as functions
from dist_relu.nn import Layer, Param, Sequential
from dist_relu.nn.description import copy_unbuilt
from dist_relu.nn.layer import Shape
from dist_relu.nn.layers.windows import Padding, Size, pair, windows

_MODULE = '''\
"""{about}.  Needs nothing but NumPy.

forward(x) gives the model's outputs (N, {outputs}) for samples x (N, {inputs}).
Parameters: SHA-256 {sha256}.
"""

import base64{imports}

import numpy as np

{functions}


def forward(x):
    """The outputs (N, {outputs}) for samples x (N, {inputs})."""
    x = np.asarray(x, "{dtype}")
    if x.shape[1:] != {input_shape}:
        raise ValueError(f"x has shape {{x.shape}}; expected (N, {inputs}).")
    with np.errstate(all="ignore"):
{statements}
    return x

{more}
def _array(text, *shape):
    return np.frombuffer(base64.b64decode(text), "{dtype}").reshape(shape)


PARAMETERS = {{
{parameters}
}}
'''

_CLASSES = '''
CLASSES = {names}


def predict(x):
    """The names of the classes of samples x (N, {inputs})."""
    return [CLASSES[number] for number in forward(x).argmax(axis=1)]

'''

Arguments = Callable[[Any, Shape], tuple[Any, ...]]


def numpy_source(model: Sequential, about: str = "A model of dist_relu") -> str:
    """The source of a Python module with a model's parameters in it, and a function forward(x) of them.

    It computes what `model.forward` does in evaluation, but with NumPy's products and exponentials, whose last digits
    may differ. A model whose classes have names also gets predict(x).
    Raises ValueError for a model without parameters, or with layers of the user's own.
    """
    return numpy_source_with(model, about, _predictions(model))


def numpy_source_with(model: Sequential, about: str, more: str) -> str:
    """The same module, with other functions in it, which may call forward(x)."""
    check_is("model", model, Sequential)
    check_is("about", about, str)
    if not model.has_values:
        raise ValueError("The model has no parameters yet: fit it, or build and initialize it.")
    body = _Body(dict(zip(model.params, model.names, strict=True)))
    body.add(model.layers, "x", model.input_shape)
    parameters = zip(model.names, model.views(model.values), strict=True)
    sources = "\n\n".join(f"\n{_source_of(each)}" for each in _needed(body.functions))
    return _MODULE.format(
        about=about.replace("\\", "/").replace('"', "'").rstrip("."),
        inputs=_listed(model.input_shape),
        outputs=_listed(model.output_shape),
        input_shape=model.input_shape,
        sha256=model.sha256(),
        imports="\nimport math" if "math." in sources else "",
        functions=sources,
        dtype=f"<f{model.dtype.itemsize}",
        statements="\n".join(f"        {statement}" for statement in body.statements),
        more=more,
        parameters="\n".join(f'    "{name}": {_text(value)},' for name, value in parameters),
    )


def numpy_function(model: Sequential) -> Callable[[Any], Array]:
    """`forward` of the module that `numpy_source` gives."""
    module: dict[str, Any] = {}
    exec(numpy_source(model), module)
    forward: Callable[[Any], Array] = module["forward"]
    return forward


def _predictions(model: Sequential) -> str:
    if model.classes is None:
        return ""
    return _CLASSES.format(names=list(model.classes), inputs=_listed(model.input_shape))


@final
class _Body:
    """The statements of `forward`, and the functions that they call.  names: of parameters."""

    def __init__(self, names: dict[Param, str]) -> None:
        self.statements: list[str] = []
        self.functions: list[Callable[..., Any]] = []
        self._names = names

    def add(self, layers: Sequence[Layer], x: str, shape: Shape) -> None:
        """Let the variable `x`, samples of a shape, go through layers."""
        for number, layer in enumerate(layers):
            if isinstance(layer, nn.Residual):
                self._add_branches([layer.body, layer.shortcut], x, shape, f"{x}_{number}")
                self.statements.append(f"{x} = {x}_{number}_0 + {x}_{number}_1")
            elif isinstance(layer, nn.Parallel):
                self._add_branches(layer.branches, x, shape, f"{x}_{number}")
                parts = ", ".join(f"{x}_{number}_{branch}" for branch in range(len(layer.branches)))
                self.statements.append(f"{x} = np.concatenate([{parts}], axis=1)")
            elif not isinstance(layer, nn.Dropout | nn.ActivityPenalty):
                self._add_call(layer, x, shape)
            shape = copy_unbuilt(layer).build(shape)

    def _add_branches(self, branches: Sequence[Sequence[Layer]], x: str, shape: Shape, name: str) -> None:
        for number, branch in enumerate(branches):
            self.statements.append(f"{name}_{number} = {x}")
            self.add(branch, f"{name}_{number}", shape)

    def _add_call(self, layer: Layer, x: str, shape: Shape) -> None:
        function, arguments = self._function(layer, shape)
        self.statements.append(f"{x} = {function}({', '.join([x, *arguments])})")

    def _function(self, layer: Layer, shape: Shape) -> tuple[str, list[str]]:
        """The name of the function that does what a layer does, and its arguments behind the samples."""
        if type(layer) not in _FUNCTIONS:
            raise ValueError(
                f"{type(layer).__name__} can't be exported: it is a layer of your own, which is not plain NumPy. "
                "Expected layers of dist_relu.nn alone."
            )
        function, arguments = _FUNCTIONS[type(layer)]
        if isinstance(layer, nn.GELU) and layer.approximate == "tanh":
            function = functions.gelu_tanh
        self.functions.append(function)
        return function.__name__, [self._argument(value) for value in arguments(layer, shape)]

    def _argument(self, value: Any) -> str:
        if isinstance(value, Param):
            return f'PARAMETERS["{self._names[value]}"]'
        if isinstance(value, Layer):
            function, arguments = self._function(value, ())
            return f"lambda z: {function}({', '.join(['z', *arguments])})"
        if isinstance(value, float) and isinf(value):
            return "np.inf" if value > 0 else "-np.inf"
        return repr(value)


def _nothing(layer: Any, shape: Shape) -> tuple[Any, ...]:
    return ()


def _convolution(layer: nn.Conv2d, shape: Shape) -> tuple[Any, ...]:
    outputs, margin = _windows(shape, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    stride, dilation = pair(layer.stride), pair(layer.dilation)
    return layer.weight, layer.offset, outputs, stride, dilation, margin, layer.groups


def _pooling(layer: nn.MaxPool2d | nn.AvgPool2d, shape: Shape) -> tuple[Any, ...]:
    stride = layer.kernel_size if layer.stride is None else layer.stride
    outputs, margin = _windows(shape, layer.kernel_size, stride, layer.padding)
    return pair(layer.kernel_size), outputs, pair(stride), margin


def _windows(shape: Shape, size: Size, stride: Size, padding: Padding, dilation: Size = 1) -> tuple[Any, Any]:
    """Height and width of outputs, and the margin above and to the left."""
    w = windows("Layer", shape, size, stride, padding, dilation)
    return (w.out_height, w.out_width), (w.top, w.left)


_FUNCTIONS: dict[type[Layer], tuple[Callable[..., Array], Arguments]] = {
    nn.ReLU: (functions.relu, _nothing),
    nn.LeakyReLU: (functions.leaky_relu, lambda layer, shape: (layer.negative_slope,)),
    nn.RReLU: (functions.leaky_relu, lambda layer, shape: ((layer.lower + layer.upper) / 2,)),
    nn.PReLU: (functions.leaky_relu, lambda layer, shape: (layer.weight,)),
    nn.ReLU6: (functions.relu6, _nothing),
    nn.Threshold: (functions.threshold, lambda layer, shape: (layer.threshold, layer.value)),
    nn.SquaredReLU: (functions.squared_relu, _nothing),
    nn.ELU: (functions.elu, lambda layer, shape: (layer.alpha,)),
    nn.SELU: (functions.selu, _nothing),
    nn.CELU: (functions.celu, lambda layer, shape: (layer.alpha,)),
    nn.GELU: (functions.gelu, _nothing),
    nn.SiLU: (functions.silu, _nothing),
    nn.Mish: (functions.mish, _nothing),
    nn.Softplus: (functions.softplus, lambda layer, shape: (layer.beta, layer.threshold)),
    nn.Hardswish: (functions.hardswish, _nothing),
    nn.Hardsigmoid: (functions.hardsigmoid, _nothing),
    nn.Hardtanh: (functions.hardtanh, lambda layer, shape: (layer.min_val, layer.max_val)),
    nn.Sigmoid: (functions.sigmoid, _nothing),
    nn.Tanh: (functions.tanh, _nothing),
    nn.CReLU: (functions.crelu, _nothing),
    nn.Softmax: (functions.softmax, _nothing),
    nn.LogSoftmax: (functions.log_softmax, _nothing),
    nn.GLU: (functions.glu, _nothing),
    nn.ReGLU: (functions.reglu, _nothing),
    nn.SwiGLU: (functions.swiglu, _nothing),
    nn.Dense: (functions.dense, lambda layer, shape: tuple(layer.params())),
    nn.Conv2d: (functions.convolution, _convolution),
    nn.MaxPool2d: (functions.max_pool, _pooling),
    nn.AvgPool2d: (functions.average_pool, _pooling),
    nn.GlobalAvgPool2d: (functions.global_average, _nothing),
    nn.BatchNorm: (functions.batch_norm, lambda layer, shape: (*layer.params(), layer.epsilon)),
    nn.LayerNorm: (functions.layer_norm, lambda layer, shape: (*layer.params(), layer.epsilon)),
    nn.Standardize: (functions.standardize, lambda layer, shape: (tuple(layer.mean), tuple(layer.deviation))),
    nn.Embedding: (functions.embedding, lambda layer, shape: (layer.weight,)),
    nn.RNN: (functions.recurrence, lambda layer, shape: (*layer.params(), layer.activation, layer.sequences)),
    nn.Reshape: (functions.reshape, lambda layer, shape: tuple(layer.shape)),
    nn.Flatten: (functions.reshape, lambda layer, shape: (prod(shape),)),
    nn.FromNCHW: (functions.from_nchw, _nothing),
    nn.Categorical: (functions.categorical, _nothing),
    nn.TanhGaussian: (functions.tanh_gaussian, lambda layer, shape: (layer.action_width,)),
}
"""The function that does what a layer does, and its arguments behind x, from the layer and the shape of its samples."""


def _needed(called: Sequence[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """These functions and those that they call, once each, in the order of their module."""
    found: set[str] = set()
    waiting = [function.__name__ for function in called]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [other for other in vars(functions)[name].__code__.co_names if other in _OURS]
    return [_OURS[name] for name in _OURS if name in found]


_OURS = {name: value for name, value in vars(functions).items() if inspect.isfunction(value)}


def _source_of(function: Callable[..., Any]) -> str:
    """The source of a function, without types."""
    tree = ast.parse(inspect.getsource(function))
    for node in _definitions(tree):
        node.returns = None
        for argument in [*node.args.args, *filter(None, [node.args.vararg])]:
            argument.annotation = None
    return ast.unparse(tree)


def _definitions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _text(values: Array) -> str:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return f'_array("{b64encode(little.tobytes()).decode()}", {", ".join(map(str, values.shape))})'


def _listed(shape: Shape) -> str:
    return ", ".join(map(str, shape))
