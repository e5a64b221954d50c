"""Models as ONNX: what the files compute, what stands in them, and that they come back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import reference

import dist_relu as dr
from dist_relu import nn
from dist_relu.integrations.onnx import export_model, import_model, read_certificate, to_onnx, verify
from tests.cases import long
from tests.integrations.models import OF_LAYERS, OF_MODELS, of_layers, of_models, samples, with_numbers
from tests.nn.test_played_passes import Scale
from tests.twin import Array


def small_model() -> nn.Sequential:
    return with_numbers(nn.mlp([8], 3).build((4,)))


def computed(model: nn.Sequential, proto: object, x: Array) -> Array:
    """What ONNX's own, slow and simple, program makes of samples."""
    (y,) = reference.ReferenceEvaluator(proto).run(None, {"x": x})
    return np.asarray(y)


@pytest.mark.parametrize("dtype", ["float32", *long("float64")])
@pytest.mark.parametrize("number", range(len(OF_LAYERS)))
def test_every_layer_computes_the_same_in_onnx(number: int, dtype: str) -> None:
    model = of_layers(number, dtype)
    x = samples(model)
    proto = to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    tolerance = 2e-6 if dtype == "float32" else 2e-7  # ONNX has arguments of layers as float32
    np.testing.assert_allclose(computed(model, proto, x), model.forward(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", OF_MODELS)
def test_onnxruntime_computes_what_models_do(name: str, tmp_path: Path) -> None:
    model = of_models(name)
    certificate = export_model(model, tmp_path / "model.onnx")
    assert certificate.onnxruntime is not None
    largest = np.abs(certificate.outputs).max()
    assert certificate.largest_difference <= 2e-6 * largest
    assert verify(tmp_path / "model.onnx") == certificate.largest_difference


@pytest.mark.parametrize("name", OF_MODELS)
def test_models_come_back_with_the_same_digest(name: str, tmp_path: Path) -> None:
    model = of_models(name)
    model.predicts = "classes"
    model.classes = ("cat", "dog")
    model.loss = nn.Focal(1.5)
    export_model(model, tmp_path / "model.onnx")
    back = import_model(tmp_path / "model.onnx")
    assert (back.sha256(), repr(back)) == (model.sha256(), repr(model))
    assert (back.predicts, back.classes, repr(back.loss)) == ("classes", ("cat", "dog"), repr(model.loss))


@pytest.mark.parametrize("number", range(len(OF_LAYERS)))
def test_layers_come_back_as_they_were(number: int, tmp_path: Path) -> None:
    model = of_layers(number, "float32")
    export_model(model, tmp_path / "model.onnx")
    back = import_model(tmp_path / "model.onnx")
    assert (back.sha256(), repr(back)) == (model.sha256(), repr(model))


def without_metadata(proto: onnx.ModelProto, folder: Path) -> Path:
    del proto.metadata_props[:]
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("name", OF_MODELS)
def test_models_come_back_without_metadata(name: str, tmp_path: Path) -> None:
    model = of_models(name)
    back = import_model(without_metadata(to_onnx(model), tmp_path))
    assert back.sha256() == model.sha256()
    x = samples(model)
    np.testing.assert_array_equal(back.forward(x), model.forward(x))


@pytest.mark.parametrize("number", range(len(OF_LAYERS) - 1))
def test_layers_come_back_without_metadata(number: int, tmp_path: Path) -> None:
    model = of_layers(number, "float32")
    back = import_model(without_metadata(to_onnx(model), tmp_path))
    assert back.sha256() == model.sha256()
    x = samples(model)
    np.testing.assert_allclose(back.forward(x), model.forward(x), rtol=1e-6, atol=1e-6)


def test_metadata_that_tell_of_another_graph_are_not_believed(tmp_path: Path) -> None:
    model = small_model()
    proto = to_onnx(model)
    (entry,) = [one for one in proto.metadata_props if one.key == "dist_relu.layers"]
    entry.value = entry.value.replace('"ReLU"', '"Tanh"')
    onnx.save(proto, tmp_path / "model.onnx")
    assert repr(import_model(tmp_path / "model.onnx")) == repr(nn.mlp([8], 3))


def test_images_are_transposed_only_where_layers_need_it() -> None:
    model = with_numbers(nn.Sequential(nn.FromNCHW(), nn.Conv2d(4, 3), nn.BatchNorm(), nn.ReLU()).build((2, 5, 5)))
    operators = [node.op_type for node in to_onnx(model).graph.node]
    assert operators == ["Conv", "BatchNormalization", "Relu", "Transpose", "Identity"]
    model = of_models("resnet")
    operators = [node.op_type for node in to_onnx(model).graph.node]
    assert operators.count("Transpose") == 1  # of the images


def test_files_say_what_they_are() -> None:
    model = small_model()
    proto = to_onnx(model)
    metadata = {one.key: one.value for one in proto.metadata_props}
    assert metadata["dist_relu.params_sha256"] == model.sha256()
    assert proto.doc_string == repr(model)
    assert [one.version for one in proto.opset_import] == [20]
    assert proto.graph.node[0].doc_string == "Dense(units=8)"
    assert [one.name for one in proto.graph.initializer] == model.names


def test_batches_may_have_any_size() -> None:
    model = of_models("cnn")
    proto = to_onnx(model)
    for num in (1, 3):
        assert computed(model, proto, samples(model, num)).shape == (num, 10)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_model(of_models("policy"), tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_certificate_holds_samples_and_outputs(tmp_path: Path) -> None:
    model = small_model()
    written = export_model(model, tmp_path / "model.onnx")
    certificate = read_certificate(tmp_path / "model.json")
    assert certificate == written
    x = np.array(certificate.inputs, np.float32)
    np.testing.assert_array_equal(model.forward(x), np.array(certificate.outputs, np.float32))
    assert certificate.params_sha256 == model.sha256()


def test_what_onnxruntime_has_not_is_certified_without_it(tmp_path: Path) -> None:
    model = with_numbers(nn.Sequential(nn.FromNCHW(), nn.Conv2d(2, 3), dtype="float64").build((1, 4, 4)))
    certificate = export_model(model, tmp_path / "model.onnx")
    assert certificate.onnxruntime is None
    assert np.isnan(read_certificate(tmp_path / "model.json").largest_difference)
    with pytest.raises(dr.DataError, match="can't run it"):
        verify(tmp_path / "model.onnx")


def test_another_file_than_that_of_its_certificate_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_model(small_model(), path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(dr.CheckpointError, match="not the file of its certificate"):
        verify(path)


def test_other_outputs_than_those_of_a_certificate_are_told(tmp_path: Path) -> None:
    export_model(small_model(), tmp_path / "model.onnx")
    content = json.loads((tmp_path / "model.json").read_text())
    content["outputs"][1][2] += 0.01
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(dr.CheckpointError, match=r"differ by 0\.01"):
        verify(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("key", "value"), [("format", "x"), ("dtype", "int8"), ("inputs", [[1], [1, 2]]), ("seed", 1.5)]
)
def test_a_damaged_certificate_is_told(key: str, value: object, tmp_path: Path) -> None:
    export_model(small_model(), tmp_path / "model.onnx")
    content = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(content | {key: value}))
    with pytest.raises(dr.CheckpointError, match="can't be read as a certificate"):
        verify(tmp_path / "model.onnx")


def test_without_onnx_it_is_said_how_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_model(small_model(), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: to_onnx(small_model()), lambda: import_model(tmp_path / "model.onnx")):
        with pytest.raises(dr.DataError, match=r"needs the package onnx: pip install 'dist_relu\[onnx\]'"):
            call()


def test_without_onnxruntime_models_export_and_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_model(small_model(), tmp_path / "model.onnx").onnxruntime is None
    with pytest.raises(dr.DataError, match=r"needs onnxruntime: pip install 'dist_relu\[onnx\]'"):
        verify(tmp_path / "model.onnx")


def test_a_layer_of_ones_own_is_refused_by_its_name() -> None:
    model = nn.Sequential(nn.Dense(2), Scale()).build((3,)).initialize()
    with pytest.raises(ValueError, match="Scale can't be exported: it is a layer of your own"):
        to_onnx(model)


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameters yet"):
        to_onnx(nn.mlp([2], 2).build((3,)))
