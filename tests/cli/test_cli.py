"""The command line, as a user meets it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

import dist_relu as dr
from dist_relu.cli.main import main, program
from dist_relu.cli.parsing import OPTIMIZERS
from dist_relu.cli.types import OPTION_GROUPS, GroupedCommand
from tests.cases import long
from tests.programs import run

REPORT_KEYS = {
    *("backend", "workers", "nodes", "shards", "seed", "epochs", "steps", "train_loss", "test_accuracy", "seconds"),
    *("samples_per_second", "step_ms_median", "params_sha256", "versions", "cpu", "blas"),
}


_ONLY_WHERE_IT_IS_SLOW = re.compile(r"^(.* \.\.\.|Compiling kernels, .*)\n", re.MULTILINE)
"""What is told of things that take long, which they may do or not."""


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process; returns exit code, output and errors."""
    code = 0
    try:
        main(list(arguments))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    captured = capsys.readouterr()
    return code, _ONLY_WHERE_IT_IS_SLOW.sub("", captured.out), captured.err


def commands(command: click.Command) -> Iterator[click.Command]:
    """All below a command that do something."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from commands(each)
    else:
        yield command


def test_help_says_of_each_command_what_its_own_help_does(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "--help")
    said = " ".join(out.split())
    for name, command in program.commands.items():
        assert f" {name} {command.get_short_help_str(limit=1000)} " in said


def train(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    return call(capsys, "train", "--backend", "serial", *options)


@pytest.fixture
def npz(tmp_path: Path, rng: np.random.Generator) -> Path:
    x = rng.standard_normal((100, 4)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    return tmp_path / "data.npz"


def test_train_says_how_it_goes_and_what_it_reached(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = train(capsys, "--epochs", "3")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert len(lines) == 5
    assert lines[0] == (
        "10 classes, cross-entropy; sgd, lr 0.1, cosine. 1,438 samples of 64 numbers from 0 to 1 (mean 0.3053), "
        "50,826 parameters, 1 worker (serial)."
    )
    assert lines[3].startswith("epoch 3/3  loss 0.")
    assert "accuracy" in lines[3]
    assert "samples/s" in lines[3]
    assert "Test accuracy 9" in lines[4]
    assert "on 359 unseen samples" in lines[4]
    assert "for 3 epochs in" in lines[4]


def test_one_epoch_is_not_called_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Trained on 1,438 for 1 epoch in " in train(capsys, "--epochs", "1")[1]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(capsys, "--epochs", "1", "--quiet") == (0, "", "")


def test_the_report_holds_what_a_scaling_experiment_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    assert train(capsys, "--epochs", "2", "--seed", "5", "--shards", "3", "--report", str(path))[0] == 0
    report = json.loads(path.read_text())
    assert report.keys() >= REPORT_KEYS
    assert (report["shards"], report["seed"], report["epochs"], report["steps"]) == (3, 5, 2, 46)
    assert len(report["params_sha256"]) == 64


def test_a_saved_model_evaluates_and_predicts(tmp_path: Path, npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(tmp_path / "model.safetensors")
    assert train(capsys, "--data", str(npz), "--model", "mlp:8", "--batch-size", "10", "--save", model)[0] == 0
    code, output, _ = call(capsys, "evaluate", model, "--data", str(npz), "--backend", "serial")
    assert code == 0
    assert output.startswith("Test accuracy ")
    code, output, _ = call(capsys, "predict", model, str(npz), "--backend", "serial")
    labels = np.array(output.split(), int)
    with np.load(npz) as file:
        assert (labels == file["y"]).mean() > 0.9
    outputs = tmp_path / "outputs.npy"
    assert call(capsys, "predict", model, str(npz), "--backend", "serial", "--output", str(outputs))[0] == 0
    assert (np.load(outputs).argmax(axis=1) == labels).all()


def test_evaluation_measures_what_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, path = str(tmp_path / "model.safetensors"), tmp_path / "e.json"
    assert train(capsys, "--epochs", "1", "--save", model)[0] == 0
    code, output, _ = call(capsys, "evaluate", model, "--backend", "serial", "--metrics", "all", "--json", str(path))
    assert code == 0
    metrics = json.loads(path.read_text())["metrics"]
    assert f"{'f1_macro':<20}{metrics['f1_macro']:.4f}" in output
    assert "class  precision  recall      f1  support" in output
    assert "true \\ predicted" in output
    assert np.array(metrics["confusion"]).sum() == json.loads(path.read_text())["samples"]
    assert metrics["report"]["3"].keys() == {"precision", "recall", "f1", "support"}
    code, output, _ = call(capsys, "evaluate", model, "--backend", "serial", "--metrics", "confusion, f1")
    assert (code, "f1  0." in output, "class" in output) == (0, True, False)
    code, _, errors = call(capsys, "evaluate", model, "--backend", "serial", "--metrics", "f2")
    assert code == 2
    assert "--metrics f2: the targets are classes; expected all, accuracy, precision," in errors


def test_the_folder_of_a_run_stands_for_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, path, samples = tmp_path / "run", tmp_path / "e.json", tmp_path / "x.npy"
    assert train(capsys, "--epochs", "2", "--model", "mlp:30", "--log-dir", str(folder))[0] == 0
    code, output, _ = call(capsys, "evaluate", str(folder), "--backend", "serial", "--json", str(path))
    assert code == 0
    numbers = json.loads(path.read_text())
    assert f"Test accuracy {numbers['accuracy']:.2%} on {numbers['samples']} unseen samples" in output
    np.save(samples, dr.data.load("digits").test.x[:5])
    code, output, _ = call(capsys, "predict", str(folder), str(samples), "--backend", "serial")
    assert (code, len(output.split())) == (0, 5)
    assert call(capsys, "analyze", "activations", str(folder), "--backend", "serial")[0] == 0
    code, _, errors = call(capsys, "evaluate", str(tmp_path), "--backend", "serial")
    assert code == 2
    assert "has no model.safetensors: expected a saved model, or the folder of a finished run." in errors
    run_info = json.loads((folder / "run.json").read_text())
    assert run_info["options"]["lr"] == 0.1


def test_names_of_other_libraries_files_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = train(capsys, "--epochs", "1", "--model", "mlp:4", "--save", str(tmp_path / "m.pt"))
    assert code == 0
    assert "m.pt: the file will be safetensors" in errors


@pytest.mark.parametrize("options", [["--optimizer", "Adam"], ["--data", "Digits"], ["--model", "MLP:8"]])
def test_names_may_be_written_in_capitals(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert train(capsys, "--epochs", "1", "--quiet", *options) == (0, "", "")


def test_real_targets_are_predicted_as_numbers(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    x = rng.standard_normal((200, 3))
    np.savez(tmp_path / "data.npz", x=x, y=x @ rng.standard_normal((3, 2)))
    code, output, _ = train(capsys, "--data", str(tmp_path / "data.npz"), "--lr", "0.05")
    assert code == 0
    assert "Test loss" in output
    assert "accuracy" not in output


def test_a_model_may_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from dist_relu import nn\ndef net():\n    return nn.Sequential(nn.Dense(20), nn.ReLU(), nn.Dense(10))\n"
    )
    assert train(capsys, "--model", f"{path}:net", "--epochs", "1", "--dtype", "float64")[0] == 0


@pytest.mark.parametrize("model", ["cnn", "resnet:8", "rnn:30", "rnn:30,pixels", "policy:20,20"])
def test_models_come_by_name(capsys: pytest.CaptureFixture[str], model: str) -> None:
    assert train(capsys, "--model", model, "--epochs", "1", "--quiet", "--lr", "0.01") == (0, "", "")


@pytest.mark.parametrize(
    "schedule",
    [
        "step:1,0.5",
        "warmup:1+cosine",
        *long("constant", "cosine", "warmup:1", "onecycle", "polynomial:2", "exponential:0.9"),
    ],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_takes_every_schedule(
    capsys: pytest.CaptureFixture[str], npz: Path, optimizer: str, schedule: str
) -> None:
    options = "--epochs", "2", "--optimizer", optimizer, "--schedule", schedule, "--data", str(npz), "--quiet"
    assert train(capsys, *options) == (0, "", "")


def test_training_options_reach_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = set()
    for number, options in enumerate(
        [
            [],
            ["--clip-norm", "0.1"],
            ["--weight-decay", "0.1"],
            ["--weight-decay", "0.1", "--no-decay", "biases, norms"],
            ["--clip-value", "0.001"],
            ["--accumulate", "2"],
            ["--ema-decay", "0.5"],
            ["--label-smoothing", "0.1"],
            ["--mixup", "0.2"],
            ["--augment", "crop:1"],
            ["--augment", "flip"],
            ["--augment", "crop:1,flip"],
            ["--scale-lr", "linear", "--base-batch-size", "32"],
            ["--scale-lr", "sqrt", "--base-batch-size", "32", "--warm-up", "0"],
            ["--compress", "bf16"],
            ["--compress", "topk:0.5"],
            ["--compress", "powersgd:2"],
        ]
    ):
        path = tmp_path / f"{number}.json"
        assert train(capsys, "--epochs", "1", "--quiet", "--report", str(path), *options) == (0, "", "")
        digests.add(json.loads(path.read_text())["params_sha256"])
    assert len(digests) == number + 1


def test_a_short_run_warms_up_for_a_part_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    scaled = ["--epochs", "2", "--model", "mlp:8", "--batch-size", "256", "--scale-lr", "linear", "--lr", "0.01"]
    code, output, errors = train(capsys, *scaled)
    assert (code, errors) == (0, "")
    assert "lr 0.01 scaled to 0.04 over 0.5 epochs, " in output
    assert "over 5 epochs, " in train(capsys, *scaled, "--epochs", "20")[1]


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--scale-lr", "sqrt", "--warm-up", "2"], "--warm-up 2"), (["--schedule", "warmup:2"], "--schedule warmup:2")],
)
def test_a_warm_up_as_long_as_the_run_is_told(
    capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    short = ["--model", "mlp:8", "--batch-size", "256", *options]
    code, _, errors = train(capsys, *short, "--epochs", "2")
    assert code == 0
    assert errors.count(f"warning: {told} takes the whole run") == 1
    assert "Pass a number below 2, or --epochs above 2." in errors
    assert train(capsys, *short, "--epochs", "3")[2] == ""


def test_the_average_is_what_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, model = tmp_path / "report.json", tmp_path / "model"
    assert train(capsys, "--epochs", "2", "--ema-decay", "0.9", "--report", str(report), "--save", str(model))[0] == 0
    assert dr.load_model(model).sha256() == json.loads(report.read_text())["params_sha256"]


def test_real_targets_can_not_be_smoothed(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "real.npz", x=rng.standard_normal((50, 4)), y=rng.standard_normal((50, 2)))
    code, _, errors = train(capsys, "--data", str(tmp_path / "real.npz"), "--label-smoothing", "0.1")
    assert code == 2
    assert "--label-smoothing is for class numbers" in errors


def test_samples_that_are_no_images_are_not_cropped(npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = train(capsys, "--data", str(npz), "--augment", "flip")
    assert code == 2
    assert "they are no images" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "There is no data set 'nowhere'. Expected one of digits, mnist"),
        (["--model", "gru:3"], "--model gru:3: expected mlp:UNITS"),
        (["--model", "cnn:3"], "cnn takes no numbers"),
        (["--model", "resnet:9"], "8, 14, 20, ..., not 9"),
        (["--model", "rnn:many"], "'many' is no whole number"),
        (["--model", "rnn:30,columns"], "--model rnn:30,columns: expected rnn:UNITS or rnn:UNITS,pixels."),
        (["--data", "adding:1"], "adding:1: expected a whole number of steps, at least 2"),
        (["--data", "adding:9", "--model", "rnn:5,pixels"], "--model rnn:5,pixels: the samples are no images"),
        (["--model", "mlp:"], "--model mlp: how many units? Expected mlp:UNITS,UNITS,..., such as mlp:256,128."),
        (["--model", "mlp"], "--model mlp: how many units? Expected mlp:UNITS"),
        (["--model", "policy"], "--model policy: how many units?"),
        (["--model", "rnn"], "--model rnn: how many units? Expected rnn:UNITS, such as rnn:100."),
        (["--model", "resnet"], "--model resnet: how deep? Expected resnet:8, resnet:14"),
        (["--model", "net.py"], "--model net.py: which function of it? Expected net.py:function."),
        (["--lr", "-1"], "Invalid value for '--lr': -1 must be above 0 and finite"),
        (["--lr", "nan"], "Invalid value for '--lr': nan must be above 0 and finite"),
        (["--lr", "1e400"], "Invalid value for '--lr': 1e400 must be above 0 and finite"),
        (["--learning-rate", "1"], "No such option: --learning-rate. Did you mean --lr?"),
        (["--activation", "tanh"], "Did you mean `dist-relu analyze training --activation`"),
        (["--epoch", "1"], "--epochs"),
        (["--workers", "100", "--backend", "local"], "Pass --workers <= 64 or --batch-size >= 100."),
        (["--backend", "local", "--address", "h:1"], "--address h:1 is that of a Ray cluster; with --backend local"),
        (["--model", "mlp:0"], "'0' is no whole number of at least 1"),
        (["--model", "mlp:-5"], "'-5' is no whole number of at least 1"),
        (["--model", "nowhere.py:net"], "there is no file nowhere.py"),
        (["--epochs", "0"], "Invalid value for '--epochs': 0 is not in the range x>=1"),
        (["--epochs", "many"], "'many' is not a valid integer"),
        (["--batch-size", "-1"], "-1 is not in the range x>=1"),
        (["--workers", "0"], "'--workers': 0: expected a number from 1 on, or two such as 2:8"),
        (["--optimizer", "sdg"], "'sdg' is not one of"),
        (["--backend", "tpu"], "'tpu' is not one of"),
        (["--dtype", "float16"], "'float16' is not one of"),
        (["--clip-norm", "0"], "Invalid value for '--clip-norm': 0 must be above 0"),
        (["--clip-norm", "nan"], "Invalid value for '--clip-norm': nan must be above 0"),
        (["--clip-norm", "much"], "Invalid value for '--clip-norm': 'much' is not a valid float"),
        (["--clip-value", "-1"], "Invalid value for '--clip-value': -1 must be above 0"),
        (["--clip-value", "nan"], "Invalid value for '--clip-value': nan must be above 0"),
        (["--ema-decay", "1"], "'--ema-decay': 1 must be at least 0 and below 1"),
        (["--ema-decay", "nan"], "'--ema-decay': nan must be at least 0 and below 1"),
        (["--accumulate", "0"], "0 is not in the range x>=1"),
        (["--label-smoothing", "1"], "'--label-smoothing': 1 must be at least 0 and below 1"),
        (["--label-smoothing", "nan"], "'--label-smoothing': nan must be at least 0 and below 1"),
        (["--mixup", "-1"], "'--mixup': -1 must be at least 0"),
        (["--mixup", "inf"], "'--mixup': inf must be at least 0 and finite"),
        (["--augment", "rotate"], "--augment rotate: expected crop:PIXELS, flip"),
        (["--augment", "crop:x"], "'x' is no whole number of at least 1"),
        (["--schedule", "square"], "--schedule square: expected constant"),
        (["--schedule", "step:x"], "--schedule step:x: 'x' are no numbers with commas between them. Expected constant"),
        (["--no-decay", "biases"], "--no-decay goes with --weight-decay: nothing decays without"),
        (["--no-decay", "conv", "--weight-decay", "0.1"], "suits no parameter that no group before it suits"),
        (["--schedule", "onecycle:2"], "--schedule onecycle:2: OneCycle(rise=2.0): must be above 0 and below 1"),
        (["--schedule", "plateau:0.1,1.5"], "--schedule plateau:0.1,1.5: PATIENCE 1.5 is no whole number"),
        (["--warm-up", "1"], "--warm-up goes with --scale-lr: the learning rate stays as it is without"),
        (["--compress", "gzip"], "--compress gzip: expected bf16, fp16, topk:SHARE, powersgd:RANK"),
        (["--compress", "topk:2"], "--compress topk:2: TopK(share=2.0): must be above 0 and at most 1"),
        (["--compress", "powersgd", "--groups", "2"], "it is the same for any groups. Leave --groups away"),
        (["--compress", "topk", "--groups", "3", "--shards", "4"], "Pass --groups 1 or 2 or 4"),
        (["--groups", "2"], "--groups goes with --compress: there are no groups without"),
        (["--replicas", "2"], "--replicas goes with --local-steps: they are never averaged without"),
        (["--outer-lr", "1"], "--outer-lr goes with --replicas: there is nothing to average without"),
        (["--replicas", "2", "--local-steps", "3", "--shards", "5"], "5 shards can't be shared equally by 2 replicas"),
        (["--replicas", "2", "--local-steps", "3", "--workers", "3"], "Pass --workers <= 2 or --replicas >= 3"),
        (["--lr", "0"], "'--lr': 0 must be above 0"),
        (["--momentum", "1"], "'--momentum': 1 must be at least 0 and below 1"),
        (["--weight-decay", "-1"], "must be at least 0"),
        (["--batch-size", "3", "--shards", "4"], "A batch of 3 can't be cut into 4 shards"),
        (["--workers", "2"], "has one worker, not 2"),
        (["--save", "/nowhere/model"], "--save /nowhere/model can't be written: the folder /nowhere does not exist"),
        (["--report", "/nowhere/report"], "the folder /nowhere does not exist"),
        (["--nonsense"], "No such option"),
        (["--lr", "inf"], "'--lr': inf must be above 0 and finite"),
        (["--lr", "nan"], "'--lr': nan must be above 0 and finite"),
        (["--weight-decay", "inf"], "'--weight-decay': inf must be at least 0 and finite"),
        (["--schedule", "step:nan"], "--schedule step:nan: Step(every=nan): must be above 0"),
        (["--model", "mlp:1\u00b2"], "is no whole number"),
        (["--save", "same", "--report", "same"], "--save and --json name the same file"),
        (["--save", __file__ + "/model"], "does not exist or can't be written to"),
        (["--workers", "500", "--batch-size", "100", "--backend", "local"], "a batch of 100 has no sample for each"),
        (["--shards", "500", "--batch-size", "100"], "Pass --batch-size >= 500 or --shards <= 100."),
        (["--shards", "2000", "--batch-size", "2000"], "1438 samples can't be cut into 2000 shards"),
    ],
)
def test_bad_input_gets_one_clear_line(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    code, output, errors = train(capsys, *options)
    assert code == 2
    assert message in errors
    assert errors.startswith("dist-relu: error: ")
    assert errors.count("\n") == 1
    assert output == ""


def test_what_is_missing_is_told_with_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = call(capsys, "analyze", "activations")
    assert code == 2
    assert errors == "dist-relu: error: Missing argument 'MODEL'. See dist-relu analyze activations --help.\n"


def test_more_workers_than_shards_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = call(capsys, "train", "--backend", "local", "--workers", "3", "--shards", "2")
    assert code == 2
    assert errors == (
        "dist-relu: error: 2 shards leave 1 of 3 workers without work. Pass --workers <= 2 or --shards >= 3.\n"
    )


def test_a_loss_that_is_no_number_ends_the_run_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model"
    code, _, errors = train(capsys, "--lr", "1e9", "--save", str(path))
    assert code == 1
    assert "The loss became" in errors
    assert errors.count("\n") == 1
    assert not path.exists()


def test_the_checkpoint_of_a_run_that_diverged_takes_the_same_step_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "--lr", "1e9", "--shards", "2", "--checkpoint", str(tmp_path), "--quiet"
    _, _, errors = train(capsys, *arguments)
    assert re.search(r"in step \d+ .* First in shard \d the output of layer \d \w+ is \S+ for sample \d+", errors)
    code, _, again = train(capsys, *arguments, "--backend", "serial", "--resume")
    assert (code, again) == (1, errors)


def test_steps_that_lead_to_no_numbers_can_be_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.npz"
    x = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    x[7] = 3e38
    np.savez(data, x_train=x, y_train=np.arange(100) % 2, x_test=x[20:], y_test=np.arange(20, 100) % 2)
    arguments = "--data", str(data), "--epochs", "2", "--batch-size", "10", "--quiet", "--verify-every", "2"
    report = tmp_path / "report.json"
    assert train(capsys, *arguments, "--on-nan", "skip", "--json", str(report))[0] == 0
    assert np.isfinite(json.loads(report.read_text())["test_loss"])
    assert train(capsys, *arguments)[0] == 1


def test_parameters_that_are_no_numbers_are_no_result(npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--data", str(npz), "--lr", "1e38", "--epochs", "1", "--batch-size", "80", "--schedule", "constant"
    code, _, errors = train(capsys, *options)
    assert code == 1
    assert "Parameters became NaN or infinite in step 0" in errors or "The loss on unseen samples is" in errors
    assert errors.count("\n") == 1


@pytest.mark.long
def test_a_model_of_a_file_may_have_layers_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from dist_relu import nn\n"
        "@dataclass(eq=False)\n"
        "class Same(nn.Layer):\n"
        "    def build(self, shape): return shape\n"
        "    def params(self): return []\n"
        "    def forward(self, x, run=nn.PLAIN): return x\n"
        "    def backward(self, dy, run=nn.PLAIN, *, wants_dx=True): return dy\n"
        "def net(): return nn.Sequential(nn.Dense(20), Same(), nn.Dense(10))\n"
    )
    options = "--model", f"{path}:net", "--epochs", "1", "--quiet"
    assert call(capsys, "train", "--backend", "local", "--workers", "2", *options) == (0, "", "")


def test_a_damaged_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"nonsense")
    code, _, errors = call(capsys, "evaluate", str(path))
    assert code == 2
    assert errors.count("\n") == 1


def test_summary_shows_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = call(capsys, "summary", "--model", "mlp:256,128")
    assert code == 0
    assert output.splitlines()[1].split()[:4] == ["0", "Dense", "(256,)", "16,640"]


def test_help_names_every_option_among_those_of_its_kind() -> None:
    grouped = {name for names in OPTION_GROUPS.values() for name in names.split()}
    for command in commands(program):
        shown = command.get_help(click.Context(command))
        visible = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
        options = [option.opts[0] for option in visible]
        assert [option for option in options if option not in shown] == []
        if isinstance(command, GroupedCommand):
            assert set(options) <= grouped, "see OPTION_GROUPS"


def test_importing_the_package_imports_nothing_optional() -> None:
    optional = "{'mpi4py', 'ray', 'sklearn', 'pooch', 'matplotlib', 'pyarrow', 'h5py', 'PIL', 'pandas'}"
    done = run([sys.executable, "-c", f"import sys, dist_relu; print({optional} & sys.modules.keys())"])
    assert done.stdout.strip() == "set()"


def test_versions_agree() -> None:
    from importlib import metadata

    assert metadata.version("dist_relu") == dr.__version__


@pytest.mark.long
def test_bench_kernels_times_every_activation_in_both_directions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = call(capsys, "bench", "kernels", "--rounds", "1", "--json", str(tmp_path / "kernels.json"))
    rows = json.loads((tmp_path / "kernels.json").read_text())["rows"]
    assert code == 0
    assert "leaky_relu" in out
    assert {row["direction"] for row in rows} == {"forward", "backward"}
    assert {"relu", "prelu", "gelu_tanh", "softmax", "swiglu"} <= {row["activation"] for row in rows}
    assert all(row["torch_ms"] is None for row in rows)


def test_bench_sklearn_trains_by_turns_to_about_the_same_accuracy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--rounds", "1", "--workers", "1", "--json", str(tmp_path / "sklearn.json")]
    code, out, err = call(capsys, "bench", "sklearn", *options)
    assert code == 0, err
    assert "MLPClassifier/ours" in out
    rows = json.loads((tmp_path / "sklearn.json").read_text())["rows"]
    assert [row["dtype"] for row in rows] == ["float32", "float64"]
    assert all(row["ours_s"] > 0 and row["our_accuracy"] > 0 for row in rows)
