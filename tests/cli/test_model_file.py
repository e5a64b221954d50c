"""`--model file.py:function`: the user's file, whatever its name is and whatever it does."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.cli.model_file import model_from_file

NET = "from dist_relu import nn\ndef net(): return nn.Sequential(nn.Dense(3))\n"


def test_a_file_takes_the_place_of_no_module(tmp_path: Path) -> None:
    path = tmp_path / "random.py"
    path.write_text("import random\nassert random.random() < 1\n" + NET)
    model = model_from_file(path, "net", "float64")
    assert model.dtype == np.float64
    import random as there

    assert there is random
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    for units in (3, 4):
        path.write_text(NET.replace("3", str(units)))
        assert model_from_file(path, "net", "float32").build((2,)).output_shape == (units,)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def net(:\n", r"SyntaxError: invalid syntax"),
        ("x = 1\n\nx / 0\n", r"ZeroDivisionError: division by zero \(line 3\)\.$"),
        ("def net():\n    return missing\n", r"NameError: name 'missing' is not defined \(line 2\)\.$"),
        ("import nowhere_at_all\n", r"ModuleNotFoundError: No module named 'nowhere_at_all' \(line 1\)\.$"),
        ("import sys\nsys.exit(3)\n", r"it exits with 3 instead of returning a model \(line 2\)\.$"),
        ("def net():\n    raise SystemExit\n", r"it exits with None instead of returning a model \(line 2\)\.$"),
        ("net = 3\n", "has no function net"),
        ("", "has no function net"),
        ("def net(units, *, bias): return 1\n", r"without arguments, not with \['units', 'bias'\]"),
        ("def net(): return 1\n", "returned int; expected an nn.Sequential"),
        ("net = dict\n", r"net: (ValueError: no signature found|returned dict)"),
        ("async def net(): return 1\n", "returned coroutine"),
        ("def net(): yield 1\n", "returned generator"),
        ("\0", "SyntaxError: source code string cannot contain null bytes|ValueError: source code string"),
        ("(" * 1000, "SyntaxError: too many nested parentheses"),
        ("def net():\n    return net()\n", r"RecursionError: maximum recursion depth exceeded"),
        ("def __getattr__(name): raise OSError(name)\n", "OSError: net"),
        (
            "from dist_relu.nn import Sequential as net\n",
            "ValueError: Sequential() needs at least one layer".replace("()", r"\(\)"),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_goes_wrong_in_a_file_is_told_with_its_line(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "net.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=message) as raised:
        model_from_file(path, "net", "float32")
    assert str(raised.value).startswith(f"--model {path}:net: ")
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_bytes(b"\xff\xfe" + NET.encode("utf-16-le"))
    with pytest.raises(ValueError, match="SyntaxError"):
        model_from_file(path, "net", "float32")


def test_ctrl_c_in_a_file_is_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        model_from_file(path, "net", "float32")


def test_what_a_model_brings_is_not_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from dist_relu import nn\n"
        "def ready(): return nn.Sequential(nn.Dense(3)).build((2,)).initialize(5)\n"
        "def wide(): return nn.Sequential(nn.Dense(3), dtype='float64')\n"
    )
    assert model_from_file(path, "ready", "float32").has_values
    with pytest.raises(ValueError, match=r"the model is of float32, not of float64. Pass --dtype float32"):
        model_from_file(path, "ready", "float64")
    with pytest.raises(ValueError, match=r"the model is of float64, not of float32. Pass --dtype float64"):
        model_from_file(path, "wide", "float32")


@pytest.mark.long
def test_layers_of_a_file_work_on_workers_and_come_back_from_files(tmp_path: Path, digits: dr.data.Split) -> None:
    path = tmp_path / "copy.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from dist_relu import nn\n"
        "TWO = 2\n"
        "@dataclass(eq=False)\n"
        "class Scale(nn.Layer):\n"
        "    factor: float = 3.0\n"
        "    def build(self, input_shape): return input_shape\n"
        "    def params(self): return []\n"
        "    def forward(self, x, run=nn.PLAIN):\n"
        "        return np.multiply(x, TWO * self.factor, out=run.empty(x.shape, x.dtype))\n"
        "    def backward(self, dy, run=nn.PLAIN, *, wants_dx=True):\n"
        "        return np.multiply(dy, TWO * self.factor, out=run.empty(dy.shape, dy.dtype))\n"
        "def net(): return nn.Sequential(nn.Dense(5), Scale(0.5), nn.Dense(10))\n"
    )
    digests = set()
    for backend, workers in (("serial", 1), ("local", 2)):
        model = model_from_file(path, "net", "float32")
        with dr.start(workers, backend=backend) as coordinator:
            coordinator.fit(model, digits.train, dr.optim.SGD(0.01), epochs=1, batch_size=200, shards=2)
        digests.add(model.sha256())
    assert len(digests) == 1
    dr.save_model(model, tmp_path / "model.safetensors")
    loaded = dr.load_model(tmp_path / "model.safetensors", classes=[type(model.layers[1])])
    assert loaded.sha256() == model.sha256()
