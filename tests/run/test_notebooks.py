"""In notebooks models and results are tables, a line shows how a run goes on, and interrupted cells break nothing."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import pytest

import dist_relu as dr
from dist_relu import nn, optim
from tests.programs import ROOT, run


class Texts(HTMLParser):
    """Checks that tags are closed in their order, and gathers the text of cells and captions."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def texts_of(value: Any) -> list[str]:
    html = value._repr_html_()
    assert len(html) < 20_000
    return Texts(html).texts


@dataclass(eq=False)
class Labelled(nn.Layer):
    """Does nothing, under a name of the user's."""

    label: str

    def build(self, input_shape: nn.layer.Shape) -> nn.layer.Shape:
        return input_shape

    def params(self) -> list[nn.Param]:
        return []

    def forward(self, x: Any, run: nn.Pass = nn.PLAIN) -> Any:
        return x

    def backward(self, dy: Any, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Any:
        return dy


def test_a_model_is_a_table_of_its_layers() -> None:
    model = nn.mlp((64,), 10)
    assert "0 Dense(units=64)" in texts_of(model)
    assert "Sequential, float32, not built yet" in texts_of(model)
    texts = texts_of(model.build((20,)))
    assert "Sequential, float32, 1,994 parameters" in texts
    assert {"(64,)", "1,344", "650"} <= set(texts)


def test_what_comes_of_a_run_is_tables(digits: dr.data.Split) -> None:
    model = nn.mlp((16,), 10)
    with (
        dr.start(backend="serial") as coordinator,
        coordinator.trainer(
            model, digits.train, optim.SGD(0.1), batch_size=64, shards=4, watch=dr.Watch(every=10)
        ) as trainer,
    ):
        result = trainer.fit(epochs=30, validation=digits.test)
        evaluation = coordinator.evaluate(model, digits.test)
        assert evaluation.accuracy is not None
        assert f"{evaluation.accuracy:.2%}" in texts_of(evaluation)
        assert f"{evaluation.accuracy:.2%}" in texts_of(trainer)
        assert {"epoch 29", "validation loss"} <= set(texts_of(result))
        assert {"batch_size", "64"} <= set(texts_of(trainer.state()))
        assert "0.weight" in texts_of(result.watched[0])
        assert f"{result.validations[-1].loss:.4g}" in texts_of(result.validations[-1])


def test_what_users_name_is_escaped() -> None:
    html = nn.Sequential(Labelled("<script>"), nn.Dense(3))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_progress_in_a_file_is_a_line_for_every_epoch(digits: dr.data.Split) -> None:
    stream = io.StringIO()
    live = dr.LiveProgress(stream)
    with dr.start(backend="serial") as coordinator:
        result = coordinator.fit(
            nn.mlp((16,), 10),
            digits.train,
            optim.SGD(0.1),
            epochs=3,
            batch_size=64,
            shards=4,
            validation=digits.test,
            on_progress=live,
            callbacks=[live],
        )
    lines = stream.getvalue().splitlines()
    accuracy = result.validations[-1].accuracy
    assert [line.split("  ")[1] for line in lines] == ["epoch 0", "epoch 1", "epoch 2"]
    assert lines[-1].endswith(f"validation loss {result.validations[-1].loss:.4g}, accuracy {accuracy:.2%}")


NOTEBOOK = """
import os, signal
os.setsid()
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

shell = InteractiveShell.instance()


def cell(source):
    with capture_output() as captured:
        result = shell.run_cell(source)
    return result, captured


def done(source):
    result, captured = cell(source)
    result.raise_error()
    return result.result, captured


done('''
import os, signal
import dist_relu as dr
from dist_relu import nn, optim

digits = dr.data.load("digits")
coordinator = dr.start(2, backend="local")
model = nn.mlp((16,), 10)
trainer = coordinator.trainer(model, digits.train, optim.SGD(0.1), batch_size=64, shards=4, seed=1)

class CtrlC:
    every = 30
    def on_steps(self, trainer):
        os.killpg(0, signal.SIGINT)  # as Jupyter does, and terminals
''')
result, _ = cell("trainer.fit(epochs=5, callbacks=[CtrlC()])")
assert isinstance(result.error_in_exec, KeyboardInterrupt), result
assert done("trainer.step")[0] >= 30
stopped, _ = done("coordinator.evaluate(model, digits.test).accuracy")
assert stopped > 0.1

done('''
trainer.fit(steps=5 * trainer.steps_per_epoch - trainer.step)
undisturbed = nn.mlp((16,), 10)
coordinator.fit(undisturbed, digits.train, optim.SGD(0.1), epochs=5, batch_size=64, shards=4, seed=1)
assert model.sha256() == undisturbed.sha256()
''')

_, captured = done("live = dr.LiveProgress(); result = trainer.fit(epochs=5, on_progress=live, callbacks=[live])")
assert captured.stdout == "", captured.stdout
shown = captured.outputs
assert "<progress" in shown[0].data["text/html"], shown[0].data
assert shown[-1].update and "epoch 9" in shown[-1].data["text/plain"], shown[-1].data
assert "Sequential" in done("from IPython.display import display; display(model)")[1].outputs[0].data["text/html"]
done("trainer.close(); coordinator.close()")
"""


@pytest.mark.long
def test_an_interrupted_cell_leaves_workers_and_run_as_they_were() -> None:
    pytest.importorskip("IPython", reason="IPython is not installed: pip install 'dist_relu[test]'")
    done = run([sys.executable, "-c", NOTEBOOK], cwd=ROOT)
    assert done.returncode == 0, done.stderr + done.stdout
