"""PyTorch's weights in models of ours.  What PyTorch computes with them stands in test_torch_peers.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import dist_relu as dr
from dist_relu import nn
from dist_relu.integrations.torch_weights import load_state_dict
from tests.twin import Array

RNG = np.random.default_rng(4)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape, np.float32)


def mlp() -> nn.Sequential:
    return nn.mlp([4, 4], 3).build((4,))


def linears(*names: str) -> dict[str, Array]:
    """Weights of linear layers from 4 to 4 units, the last to 3."""
    sizes = [4] * (len(names) - 1) + [3]
    return {
        f"{name}.{kind}": normal(size, 4) if kind == "weight" else normal(size)
        for name, size in zip(names, sizes, strict=True)
        for kind in ("weight", "bias")
    }


def test_linear_layers_are_transposed(tmp_path: Path) -> None:
    weights = linears("0", "2", "4")
    save_file(weights, tmp_path / "a.safetensors")
    model = load_state_dict(mlp(), tmp_path / "a.safetensors")
    x = normal(5, 4)
    y = x
    for name in ("0", "2", "4"):
        y = y @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        y = y if name == "4" else np.maximum(y, 0)
    np.testing.assert_allclose(model.forward(x), y, rtol=1e-5, atol=1e-6)


def test_numbers_in_names_are_numbers(tmp_path: Path) -> None:
    weights = linears("layers.9.fc", "layers.10.fc", "out")
    save_file(weights, tmp_path / "a.safetensors")
    model = load_state_dict(mlp(), tmp_path / "a.safetensors")
    np.testing.assert_array_equal(model.params[0].value, weights["layers.9.fc.weight"].T)


def test_layers_that_could_be_mistaken_are_asked_for(tmp_path: Path) -> None:
    weights = linears("encoder", "decoder", "out")
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(
        dr.CheckpointError, match=r'which of decoder, encoder are which of 0, 2\?.*mapping={"0": "decoder"'
    ):
        load_state_dict(mlp(), tmp_path / "a.safetensors")
    model = load_state_dict(mlp(), tmp_path / "a.safetensors", {"0": "encoder", "2": "decoder"})
    np.testing.assert_array_equal(model.params[0].value, weights["encoder.weight"].T)
    model = load_state_dict(mlp(), tmp_path / "a.safetensors", {"0": "encoder"})  # one is enough
    np.testing.assert_array_equal(model.params[2].value, weights["decoder.weight"].T)


def test_a_single_parameter_may_be_named(tmp_path: Path) -> None:
    weights = {"w": normal(3, 4), "b": normal(3)}
    save_file(weights, tmp_path / "a.safetensors")
    model = nn.Sequential(nn.Dense(3)).build((4,))
    load_state_dict(model, tmp_path / "a.safetensors", {"0.weight": "w", "0.bias": "b"})
    np.testing.assert_array_equal(model.params[0].value, weights["w"].T)


def network() -> nn.Sequential:
    body = [nn.Conv2d(4, 3, padding=1, bias=False), nn.BatchNorm(), nn.ReLU(), nn.Conv2d(4, 3, padding=1, bias=False)]
    return nn.Sequential(
        nn.FromNCHW(),
        nn.Conv2d(4, 5, padding=2),
        nn.PReLU(4),
        nn.Residual([*body, nn.BatchNorm()]),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Dense(6),
        nn.LayerNorm(),
        nn.Dense(3, bias=False),
    ).build((3, 4, 4))


def test_convolution_statistics_and_the_order_of_images(tmp_path: Path) -> None:
    weights: dict[str, Array] = {"conv.weight": normal(4, 3, 5, 5), "conv.bias": normal(4), "act.weight": normal(4)}
    for number in (1, 2):
        weights[f"block.conv{number}.weight"] = normal(4, 4, 3, 3)
        weights |= {f"block.bn{number}.{kind}": normal(4) for kind in ("weight", "bias", "running_mean")}
        weights[f"block.bn{number}.running_var"] = np.abs(normal(4))
        weights[f"block.bn{number}.num_batches_tracked"] = np.array(7)
    weights |= {"fc.weight": normal(6, 16), "fc.bias": normal(6), "norm.weight": normal(6), "norm.bias": normal(6)}
    weights["head.weight"] = normal(3, 6)
    save_file(weights, tmp_path / "a.safetensors")
    model = load_state_dict(network(), tmp_path / "a.safetensors")
    values = dict(zip(model.names, model.views(model.values), strict=True))
    np.testing.assert_array_equal(values["1.weight"], weights["conv.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(values["3.body.4.running_variance"], weights["block.bn2.running_var"])
    np.testing.assert_array_equal(values["3.body.3.weight"], weights["block.conv2.weight"].transpose(2, 3, 1, 0))
    images = normal(4, 2, 2)  # (C, H, W)
    rows = np.ascontiguousarray(images.transpose(1, 2, 0)).reshape(-1)
    np.testing.assert_allclose(rows @ values["7.weight"], images.reshape(-1) @ weights["fc.weight"].T, rtol=1e-5)


def test_a_recurrence_has_the_sum_of_both_biases(tmp_path: Path) -> None:
    weights = {"rnn.weight_ih_l0": normal(3, 3), "rnn.weight_hh_l0": normal(3, 3)}
    weights |= {
        "rnn.bias_ih_l0": normal(3),
        "rnn.bias_hh_l0": normal(3),
        "out.weight": normal(2, 3),
        "out.bias": normal(2),
    }
    save_file(weights, tmp_path / "a.safetensors")
    model = load_state_dict(nn.rnn(3, 2).build((4, 3)), tmp_path / "a.safetensors")
    values = dict(zip(model.names, model.views(model.values), strict=True))
    np.testing.assert_array_equal(values["0.weight"], weights["rnn.weight_ih_l0"].T)
    np.testing.assert_array_equal(values["0.recurrent"], weights["rnn.weight_hh_l0"].T)
    np.testing.assert_array_equal(values["0.bias"], weights["rnn.bias_ih_l0"] + weights["rnn.bias_hh_l0"])


def test_half_precision_becomes_the_type_of_the_model(tmp_path: Path) -> None:
    weights = {name: array.astype(np.float16) for name, array in linears("0", "2", "4").items()}
    save_file(weights, tmp_path / "a.safetensors")
    assert load_state_dict(mlp(), tmp_path / "a.safetensors").values.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"4.weight": normal(5, 4), "4.bias": normal(5)},
            r"has 0 layers with bias \(3,\), weight \(3, 4\); the model has 1",
        ),
        ({"extra.weight": normal(2)}, r"has extra\.weight of shape \(2,\), which no layer takes"),
        ({"0.weight": np.zeros((4, 4), np.int64)}, r"0\.weight is of I64; expected F16, F32, F64"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change: dict[str, Array], message: str, tmp_path: Path) -> None:
    save_file(linears("0", "2", "4") | change, tmp_path / "a.safetensors")
    with pytest.raises(dr.CheckpointError, match=message):
        load_state_dict(mlp(), tmp_path / "a.safetensors")


def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_file(linears("0", "2", "4"), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="the model has no layer with parameters '1'; expected one of 0, 2, 4"):
        load_state_dict(mlp(), tmp_path / "a.safetensors", {"1": "0"})
    with pytest.raises(dr.CheckpointError, match=r"9\.weight, for 0\.weight, is missing"):
        load_state_dict(mlp(), tmp_path / "a.safetensors", {"0": "9", "2": "2", "4": "4"})
    with pytest.raises(
        dr.CheckpointError, match=r"4\.weight, for 0\.weight, has the shape \(3, 4\); expected shape \(4, 4\)"
    ):
        load_state_dict(mlp(), tmp_path / "a.safetensors", {"0": "4", "2": "2", "4": "0"})


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"x"])
def test_what_is_no_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(dr.CheckpointError, match="can't be read as a state dict"):
        load_state_dict(mlp(), tmp_path / "a.safetensors")


def test_a_model_that_was_not_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="build it first"):
        load_state_dict(nn.mlp([4], 3), tmp_path / "a.safetensors")
