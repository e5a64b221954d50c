"""ONNX as other libraries write it, as models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dist_relu as dr
from dist_relu import nn
from dist_relu.integrations.onnx import import_model
from tests.twin import Array

RNG = np.random.default_rng(3)


def normal(*shape: int) -> Array:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


def graph(
    nodes: list[Any],
    shape: list[Any],
    constants: dict[str, Array],
    outputs: dict[str, int] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A graph from x (N, ...) to y."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
            [
                helper.make_tensor_value_info(name, kind, None)
                for name, kind in (outputs or {"y": TensorProto.FLOAT}).items()
            ],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)],
    )


def imported(proto: onnx.ModelProto, folder: Path, **options: Any) -> nn.Sequential:
    onnx.save(proto, folder / "graph.onnx")
    return import_model(folder / "graph.onnx", **options)


def check_same(proto: onnx.ModelProto, folder: Path, x: Array) -> nn.Sequential:
    """Import a graph, and compare with what onnxruntime computes, to 1e-6 of the largest output."""
    model = imported(proto, folder)
    expected = computed(proto, x)
    found = model.forward(x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))
    return model


def computed(proto: onnx.ModelProto, x: Array) -> Array:
    """What onnxruntime makes of samples, as the output that is named last."""
    proto.ir_version = 9
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[-1])


def convolution(
    constants: dict[str, Array], name: str, x: str, channels: tuple[int, int], size: int, **more: Any
) -> Any:
    fan_in = channels[0] * size * size
    constants[f"{name}.weight"] = normal(channels[1], channels[0], size, size) / (0.3 * np.sqrt(fan_in).astype("f"))
    bias = []
    if more.pop("bias", False):
        constants[f"{name}.bias"] = normal(channels[1])
        bias = [f"{name}.bias"]
    pads = [more.pop("pad", 0)] * 4
    return helper.make_node(
        "Conv", [x, f"{name}.weight", *bias], [name], name, pads=pads, kernel_shape=[size, size], **more
    )


def normalisation(constants: dict[str, Array], name: str, x: str, channels: int) -> Any:
    names = [f"{name}.{each}" for each in ("weight", "bias", "running_mean", "running_var")]
    for each in names:
        constants[each] = normal(channels) + (1 if each.endswith(("weight", "var")) else 0)
    return helper.make_node("BatchNormalization", [x, *names], [name], name, epsilon=1e-5, momentum=0.9)


def torchvision_graph() -> onnx.ModelProto:
    """A network as torchvision's resnet18 is, and as torch.onnx.export writes it; with fewer blocks and channels."""
    constants: dict[str, Array] = {}
    nodes = [
        convolution(constants, "conv1", "x", (3, 8), 7, pad=3, strides=[2, 2]),
        normalisation(constants, "bn1", "conv1", 8),
        helper.make_node("Relu", ["bn1"], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["maxpool"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    before = "maxpool"
    for name, (channels, filters), stride in [("layer1.0", (8, 8), 1), ("layer2.0", (8, 16), 2)]:
        nodes += [
            convolution(constants, f"{name}.conv1", before, (channels, filters), 3, pad=1, strides=[stride, stride]),
            normalisation(constants, f"{name}.bn1", f"{name}.conv1", filters),
            helper.make_node("Relu", [f"{name}.bn1"], [f"{name}.relu1"]),
            convolution(constants, f"{name}.conv2", f"{name}.relu1", (filters, filters), 3, pad=1),
            normalisation(constants, f"{name}.bn2", f"{name}.conv2", filters),
        ]
        identity = before
        if stride > 1:
            nodes += [
                convolution(constants, f"{name}.down", before, (channels, filters), 1, strides=[stride, stride]),
                normalisation(constants, f"{name}.down.1", f"{name}.down", filters),
            ]
            identity = f"{name}.down.1"
        nodes += [
            helper.make_node("Add", [f"{name}.bn2", identity], [f"{name}.sum"]),
            helper.make_node("Relu", [f"{name}.sum"], [name]),
        ]
        before = name
    constants |= {"fc.weight": normal(10, 16), "fc.bias": normal(10)}
    nodes += [
        helper.make_node("GlobalAveragePool", [before], ["avgpool"]),
        helper.make_node("Flatten", ["avgpool"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    return graph(nodes, [3, 32, 32], constants)


def test_a_residual_network_of_torchvision(tmp_path: Path) -> None:
    x = normal(2, 3, 32, 32)
    model = check_same(torchvision_graph(), tmp_path, x)
    assert [type(layer).__name__ for layer in model.layers] == [
        *("FromNCHW", "Conv2d", "BatchNorm", "ReLU", "MaxPool2d", "Residual", "ReLU", "Residual", "ReLU"),
        *("GlobalAvgPool2d", "Dense"),
    ]


def test_flattened_images_keep_the_order_that_their_dense_layer_was_trained_in(tmp_path: Path) -> None:
    """As in torchvision's VGG and AlexNet, with `x.view(x.size(0), -1)` as the exporter writes it."""
    constants = {"fc": normal(6 * 4 * 4, 5), "b": normal(5), "zero": np.array(0), "-1": np.array([-1])}
    nodes = [
        convolution(constants, "conv", "x", (3, 6), 3, pad=1, bias=True),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["pool"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axis"], ["batch1"]),
        helper.make_node("Concat", ["batch1", "-1"], ["to"], axis=0),
        helper.make_node("Reshape", ["pool", "to"], ["flat"]),
        helper.make_node("Dropout", ["flat"], ["dropped"]),
        helper.make_node("MatMul", ["dropped", "fc"], ["product"]),
        helper.make_node("Add", ["b", "product"], ["y"]),
    ]
    constants["axis"] = np.array([0])
    model = check_same(graph(nodes, [3, 8, 8], constants), tmp_path, normal(3, 3, 8, 8))
    assert isinstance(model.layers[-1], nn.Dense)
    assert model.layers[-1].bias


def test_a_network_of_keras(tmp_path: Path) -> None:
    """As tf2onnx writes it: images with channels last, transposed at both ends of what convolves, padding as "same"."""
    constants: dict[str, Array] = {"w": normal(4 * 4 * 6, 5), "b": normal(5), "-1": np.array([-1, 4 * 4 * 6])}
    conv = convolution(constants, "conv", "first", (3, 6), 3, bias=True, strides=[2, 2])
    del conv.attribute[:]
    conv.attribute.extend(
        [helper.make_attribute("strides", [2, 2]), helper.make_attribute("auto_pad", "SAME_UPPER")],
    )
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        conv,
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Transpose", ["relu"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "-1"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=-1),
    ]
    model = check_same(graph(nodes, [8, 8, 3], constants), tmp_path, normal(3, 8, 8, 3))
    assert [type(layer).__name__ for layer in model.layers] == ["Conv2d", "ReLU", "Flatten", "Dense", "Softmax"]
    assert "padding" not in repr(model)  # it is "same", as our default


def scikit_learn_graph(model: Any, outputs: int) -> onnx.ModelProto:
    """A multilayer perceptron as skl2onnx writes it."""
    activations = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}
    nodes = [helper.make_node("Cast", ["x"], ["0"], to=TensorProto.FLOAT)]
    constants: dict[str, Array] = {}
    for number, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        constants |= {
            f"coefficient{number}": weight.astype("f"),
            f"intercepts{number}": bias.astype("f").reshape(1, -1),
        }
        nodes += [
            helper.make_node("MatMul", [str(number), f"coefficient{number}"], [f"mul{number}"]),
            helper.make_node("Add", [f"mul{number}", f"intercepts{number}"], [f"add{number}"]),
        ]
        if number < len(model.coefs_) - 1:
            nodes.append(helper.make_node(activations[model.activation], [f"add{number}"], [str(number + 1)]))
    last = f"add{len(model.coefs_) - 1}"
    if isinstance(model, MLPRegressor):
        constants["shape"] = np.array([-1, 1])
        nodes.append(helper.make_node("Reshape", [last, "shape"], ["y"]))
        return graph(nodes, [10], constants)
    if outputs == 2:
        constants["one"] = np.array([1], np.float32)
        nodes += [
            helper.make_node("Sigmoid", [last], ["positive"]),
            helper.make_node("Sub", ["one", "positive"], ["negative"]),
            helper.make_node("Concat", ["negative", "positive"], ["y"], axis=1),
        ]
    else:
        nodes.append(helper.make_node("Softmax", [last], ["y"], axis=1))
    constants["classes"] = np.arange(outputs)
    nodes += [
        helper.make_node("ArgMax", ["y"], ["argmax"], axis=1),
        helper.make_node("ArrayFeatureExtractor", ["classes", "argmax"], ["label"], domain="ai.onnx.ml"),
    ]
    return graph(nodes, [10], constants, {"label": TensorProto.INT64, "y": TensorProto.FLOAT})


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_classifier_of_scikit_learn(activation: str, classes: int, tmp_path: Path) -> None:
    x, labels = normal(60, 10), np.arange(60) % classes
    peer = MLPClassifier(hidden_layer_sizes=[16, 8], activation=activation, max_iter=3, random_state=1).fit(x, labels)
    model = imported(scikit_learn_graph(peer, classes), tmp_path)
    np.testing.assert_allclose(model.forward(x), peer.predict_proba(x.astype("d")), atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_regressor_of_scikit_learn(tmp_path: Path) -> None:
    x = normal(60, 10)
    peer = MLPRegressor(hidden_layer_sizes=[16], max_iter=3, random_state=1).fit(x, x[:, 0])
    model = imported(scikit_learn_graph(peer, 1), tmp_path)
    np.testing.assert_allclose(model.forward(x)[:, 0], peer.predict(x.astype("d")), atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_pipeline_of_scikit_learn(tmp_path: Path) -> None:
    x, labels = 3 * normal(60, 10) + 1, np.arange(60) % 3
    peer = make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=[16], max_iter=3, random_state=1))
    peer.fit(x, labels)
    proto = scikit_learn_graph(peer[1], 3)
    scaler = helper.make_node(
        "Scaler", ["x"], ["scaled"], domain="ai.onnx.ml", offset=peer[0].mean_, scale=1 / peer[0].scale_
    )
    proto.graph.node[0].input[0] = "scaled"
    proto.graph.node.insert(0, scaler)
    model = imported(proto, tmp_path)
    np.testing.assert_allclose(model.forward(x), peer.predict_proba(x.astype("d")), atol=1e-6)


def test_a_recurrence_of_torch_and_its_last_state(tmp_path: Path) -> None:
    """nn.RNN(batch_first=True), then out[:, -1]: with a state of zeros to begin with, as many as there are samples."""
    constants = {"w": normal(1, 6, 3), "r": normal(1, 6, 6), "b": normal(1, 12), "zero": np.zeros((1, 1, 6), "f")}
    constants |= {"one": np.array([1]), "last": np.array(-1), "units": np.array([6]), "axis": np.array([1])}
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("Shape", ["steps"], ["batch"], start=1, end=2),
        helper.make_node("Concat", ["one", "batch", "units"], ["shape"], axis=0),
        helper.make_node("Expand", ["zero", "shape"], ["start"]),
        helper.make_node(
            "RNN", ["steps", "w", "r", "b", "", "start"], ["all", "h"], hidden_size=6, activations=["Relu"]
        ),
        helper.make_node("Squeeze", ["all", "axis"], ["states"]),
        helper.make_node("Transpose", ["states"], ["by sample"], perm=[1, 0, 2]),
        helper.make_node("Gather", ["by sample", "last"], ["y"], axis=1),
    ]
    model = check_same(graph(nodes, [5, 3], constants), tmp_path, normal(4, 5, 3))
    assert repr(model.layers) == repr((nn.RNN(6),))


ACTIVATIONS: list[tuple[list[Any], dict[str, float], nn.Layer]] = [
    ([("Sigmoid", ["x"], "s"), ("Mul", ["s", "x"], "y")], {}, nn.SiLU()),
    (
        [
            *(("Div", ["x", "c"], "d"), ("Erf", ["d"], "e"), ("Add", ["e", "1"], "a"), ("Mul", ["x", "a"], "m")),
            ("Mul", ["m", "h"], "y"),
        ],
        {"c": 2**0.5, "1": 1, "h": 0.5},
        nn.GELU(),
    ),
    (
        [
            *(("Pow", ["x", "3"], "p"), ("Mul", ["p", "c"], "q"), ("Add", ["x", "q"], "r"), ("Mul", ["r", "s"], "t")),
            *(("Tanh", ["t"], "u"), ("Add", ["u", "1"], "v"), ("Mul", ["x", "h"], "w"), ("Mul", ["w", "v"], "y")),
        ],
        {"3": 3, "c": 0.044715, "s": 0.7978845608028654, "1": 1, "h": 0.5},
        nn.GELU("tanh"),
    ),
    ([("Softplus", ["x"], "s"), ("Tanh", ["s"], "t"), ("Mul", ["x", "t"], "y")], {}, nn.Mish()),
    ([("Clip", ["x", "0", "6"], "y")], {"0": 0, "6": 6}, nn.ReLU6()),
    ([("Clip", ["x", "0", ""], "y")], {"0": 0}, nn.ReLU()),
    ([("Max", ["x", "0"], "y")], {"0": 0}, nn.ReLU()),
    ([("Relu", ["x"], "r"), ("Mul", ["r", "r"], "y")], {}, nn.SquaredReLU()),
    ([("Relu", ["x"], "r"), ("Pow", ["r", "2"], "y")], {"2": 2}, nn.SquaredReLU()),
]


@pytest.mark.parametrize(("nodes", "constants", "layer"), ACTIVATIONS, ids=lambda value: str(value)[:40])
def test_activations_that_are_written_as_several_nodes(
    nodes: list[Any], constants: dict[str, float], layer: nn.Layer, tmp_path: Path
) -> None:
    arrays = {name: np.array(value, np.float32) for name, value in constants.items()}
    made = [helper.make_node(operator, inputs, [output]) for operator, inputs, output in nodes]
    model = check_same(graph(made, [4], arrays), tmp_path, 2 * normal(5, 4))
    assert repr(model.layers) == repr((layer,))


def test_samples_that_are_normalised_by_the_graph(tmp_path: Path) -> None:
    constants = {"mean": normal(1, 3, 1, 1), "std": np.abs(normal(1, 3, 1, 1)) + 1}
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normal"]),
        convolution(constants, "y", "normal", (3, 4), 1, bias=True),
        helper.make_node("GlobalAveragePool", ["y"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
    ]
    proto = graph(nodes, [3, 4, 4], constants, {"flat": TensorProto.FLOAT})
    model = imported(proto, tmp_path)
    x = normal(2, 3, 4, 4)
    expected = computed(proto, x)
    np.testing.assert_allclose(model.forward(x), expected, atol=1e-6)
    assert isinstance(model.layers[1], nn.Standardize)


def dense(output: str = "y") -> list[Any]:
    return [helper.make_node("MatMul", ["x", "w"], [output], "dense")]


REFUSED: list[tuple[list[Any], list[Any], dict[str, Array], str]] = [
    (
        [helper.make_node("Erf", ["x"], ["y"], "e")],
        [3],
        {},
        r"node 'e' \(Erf\) is nothing that a layer here does; expected",
    ),
    ([helper.make_node("LSTM", ["x", "w", "w"], ["y"], "l")], [3, 2], {"w": normal(1, 8, 2)}, r"node 'l' \(LSTM\)"),
    (dense(), ["steps"], {"w": normal(3, 2)}, r"leaves samples open. Pass input_shape"),
    (
        dense(),
        [4],
        {"w": normal(3, 2)},
        r"node 'dense' \(MatMul\) multiplies by a matrix of shape \(3, 2\); expected 4",
    ),
    (dense(), [3], {"w": normal(3, 2).astype(np.float16)}, "numbers of float16; expected float32"),
    (
        [helper.make_node("Mul", ["x", "c"], ["y"], "m")],
        [3],
        {"c": -(normal(1) ** 2)},
        r"node 'm' \(Mul\) multiplies by",
    ),
    (
        [*dense("a"), helper.make_node("Mul", ["a", "x"], ["y"], "m")],
        [3],
        {"w": normal(3, 3)},
        r"node 'm' \(Mul\) puts branches together; expected Add",
    ),
    (
        [*dense("a"), helper.make_node("Add", ["a", "x"], ["b"]), helper.make_node("Add", ["b", "a"], ["y"])],
        [3],
        {"w": normal(3, 3)},
        "goes into several branches that begin elsewhere",
    ),
    (
        [helper.make_node("AveragePool", ["x"], ["y"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        [3, 4, 4],
        {},
        r"node 'p' \(AveragePool\) leaves zeros around images out of means",
    ),
    (
        [helper.make_node("MaxPool", ["x"], ["y"], "p", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)],
        [3, 5, 5],
        {},
        r"node 'p' \(MaxPool\) has ceil_mode=1",
    ),
    (
        [helper.make_node("Softmax", ["x"], ["y"], "s", axis=1)],
        [4, 5],
        {},
        r"node 's' \(Softmax\) works along axis 1 of an array whose samples have shape \(4, 5\)",
    ),
]


@pytest.mark.parametrize(("nodes", "shape", "constants", "message"), REFUSED)
def test_what_no_layer_does_is_refused_by_node_and_operator(
    nodes: list[Any], shape: list[Any], constants: dict[str, Array], message: str, tmp_path: Path
) -> None:
    with pytest.raises(dr.CheckpointError, match=message):
        imported(graph(nodes, shape, constants), tmp_path)


def test_samples_that_a_file_leaves_open_are_asked_for(tmp_path: Path) -> None:
    proto = graph(dense(), ["features"], {"w": normal(3, 2)})
    assert imported(proto, tmp_path, input_shape=(3,)).input_shape == (3,)


def test_one_of_several_outputs_is_asked_for(tmp_path: Path) -> None:
    nodes = [*dense("logits"), helper.make_node("Softmax", ["logits"], ["p"])]
    proto = graph(nodes, [3], {"w": normal(3, 2)}, {"logits": TensorProto.FLOAT, "p": TensorProto.FLOAT})
    with pytest.raises(dr.CheckpointError, match="has the outputs 'logits', 'p'; say which one"):
        imported(proto, tmp_path)
    assert len(imported(proto, tmp_path, output="logits").layers) == 1
    with pytest.raises(dr.CheckpointError, match="has no output 'z'"):
        imported(proto, tmp_path, output="z")


def save_with_weights_beside(folder: Path, location: str) -> Path:
    proto = graph(dense(), [3], {"w": normal(3, 2)})
    onnx.save(proto, folder / "graph.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    proto = onnx.load(folder / "graph.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "graph.onnx").write_bytes(proto.SerializeToString())
    return folder / "graph.onnx"


def test_weights_in_a_file_beside_are_read(tmp_path: Path) -> None:
    assert import_model(save_with_weights_beside(tmp_path, "weights.bin")).num_params == 6


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "link", "missing", ""])
def test_weights_outside_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = save_with_weights_beside(folder, location)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "link").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(dr.CheckpointError, match=r"constant 'w' lies in .*; expected a file in"):
        import_model(path)


def test_constants_that_claim_to_be_large_take_no_memory(tmp_path: Path) -> None:
    path = save_with_weights_beside(tmp_path, "weights.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].dims[:] = [3, 10**12]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(dr.CheckpointError, match="is larger than the file it lies in"):
        import_model(path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"x" * 1000, b"{}"])
def test_what_is_no_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(dr.CheckpointError, match=r"a\.onnx"):
        import_model(tmp_path / "a.onnx")
