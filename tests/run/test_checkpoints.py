"""Checkpoints are written while a run goes on, whatever becomes of their folder, and runs go on from the newest."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim

RNG = np.random.default_rng(3)
X = RNG.standard_normal((40, 6)).astype("float32")
Y = RNG.integers(0, 3, 40)
VALIDATION = RNG.standard_normal((40, 6)).astype("float32"), RNG.integers(0, 3, 40)
"""Noise, so that validation gets worse while training learns the samples by heart."""
STEPS_PER_EPOCH = 5
STATE_BYTES = 400_000
"""What the states of these tests take, about."""


@pytest.fixture(scope="module")
def coordinator() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as started:
        yield started


def trainer_of(coordinator: dr.Coordinator, state: dr.RunState | None = None, lr: float = 0.05) -> dr.Trainer:
    optimizer = optim.SGD(lr, momentum=0.9)
    return coordinator.trainer(nn.mlp((200, 200), 3), (X, Y), optimizer, batch_size=8, shards=4, seed=5, state=state)


@pytest.fixture(scope="module")
def undisturbed(coordinator: dr.Coordinator) -> str:
    """The digest after 20 steps."""
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=20)
        return trainer.model.sha256()


class At:
    """Does something after one step."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self._step, self._action = step, action

    def on_steps(self, trainer: dr.Trainer) -> None:
        if trainer.step == self._step:
            self._action()


class Patience:
    """Waits after steps that are written until they are, so that no state gives way to another."""

    def __init__(self, folder: Path, every: int) -> None:
        self._folder, self._every = folder, every

    def on_settled(self, trainer: dr.Trainer) -> None:
        while trainer.step % self._every == 0 and trainer.step not in steps_in(self._folder):
            time.sleep(0.001)


def interrupt() -> None:
    raise KeyboardInterrupt


def steps_in(folder: Path) -> list[int]:
    """The steps of the files in a folder, in the order of their names."""
    return [int(name.removeprefix("step-").removesuffix(".safetensors")) for name in sorted(os.listdir(folder))]


def test_the_last_states_are_kept_and_the_end_of_each_call(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    folder = tmp_path / "of" / "run"
    callbacks = [dr.Checkpoint(folder, every=2, keep=3), Patience(folder, 2)]
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=3, callbacks=callbacks)
        assert steps_in(folder) == [2, 3]
        trainer.fit(steps=6, callbacks=callbacks)
        assert steps_in(folder) == [6, 8, 9]
        assert dr.newest_state(folder) == trainer.state()


@pytest.mark.parametrize(("every", "first"), [("4steps", 4), ("1epoch", 5), ("1h", 7)])
def test_how_often_can_be_said_in_several_ways(
    coordinator: dr.Coordinator, tmp_path: Path, every: str, first: int
) -> None:
    callbacks = [dr.Checkpoint(tmp_path, every=every), Patience(tmp_path, first)]
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=7, callbacks=callbacks)
    assert steps_in(tmp_path) == sorted({first, 7})


def test_an_object_may_serve_one_run_after_another(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    checkpoint = dr.Checkpoint(tmp_path, every="1h")
    for _ in range(2):
        with trainer_of(coordinator) as trainer:
            trainer.fit(steps=4, callbacks=[checkpoint])
        assert steps_in(tmp_path) == [4]
        (tmp_path / "step-000000004.safetensors").unlink()


@pytest.mark.parametrize("best", ["validation_loss", "validation_accuracy", None])
def test_the_best_state_is_kept_too(coordinator: dr.Coordinator, tmp_path: Path, best: str | None) -> None:
    with trainer_of(coordinator, lr=0.2) as trainer:
        trainer.fit(
            steps=20,
            validation=VALIDATION,
            validate_every=3,
            callbacks=[dr.Checkpoint(tmp_path, every=5, keep=1, best=best)],
        )
        found = trainer.validations
    chosen = {
        "validation_loss": min(found, key=lambda one: one.loss).step,
        "validation_accuracy": max(found, key=lambda one: one.accuracy or 0).step,
        None: 20,
    }[best]
    assert steps_in(tmp_path) == sorted({chosen, 20})
    assert best is None or chosen < 18


def test_an_accuracy_that_there_is_none_of_is_refused(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    data = X, X[:, :1]
    checkpoint = dr.Checkpoint(tmp_path, best="validation_accuracy")
    trainer = coordinator.trainer(nn.mlp((8,), 1), data, optim.SGD(0.01), batch_size=8)
    with trainer, pytest.raises(ValueError, match="there is no accuracy without classes"):
        trainer.fit(epochs=1, validation=data, callbacks=[checkpoint])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"every": "often"}, "every='often'"), ({"keep": 0}, r"keep\)?=0"), ({"best": "loss"}, "best")],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dr.Checkpoint(tmp_path, **arguments)


def test_a_new_run_is_warned_of_another_one_in_its_folder(coordinator: dr.Coordinator, folder: Path) -> None:
    reason = "holds checkpoints already, up to step 6, which this run may take for its own"
    with trainer_of(coordinator) as trainer, pytest.warns(dr.TrainingWarning, match=reason):
        trainer.fit(steps=2, callbacks=[dr.Checkpoint(folder)])
    with trainer_of(coordinator, dr.newest_state(folder)) as trainer:
        trainer.fit(steps=2, callbacks=[dr.Checkpoint(folder)])


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(dr.WriteError, match="file/folder can't be written"):
        dr.Checkpoint(tmp_path / "file" / "folder")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, StopIteration])
def test_a_call_that_is_ended_leaves_its_last_state(
    coordinator: dr.Coordinator, tmp_path: Path, undisturbed: str, error: type[BaseException]
) -> None:
    def end() -> None:
        raise error

    with trainer_of(coordinator) as trainer:
        with suppress(error):
            trainer.fit(steps=20, callbacks=[dr.Checkpoint(tmp_path, every="1h")], on_progress=lambda _: end())
        assert steps_in(tmp_path)[-1] == trainer.step < 20
    with trainer_of(coordinator, dr.newest_state(tmp_path)) as resumed:
        resumed.fit(steps=20 - resumed.step)
        assert resumed.model.sha256() == undisturbed


class Count:
    """Counts validations, and remembers their number; the third one is interrupted once."""

    def __init__(self, *, is_interrupted: bool = False) -> None:
        self.number, self._is_interrupted = 0, is_interrupted

    def on_validation(self, trainer: dr.Trainer, validated: dr.Validated) -> None:
        if self.number == 2 and self._is_interrupted:
            raise KeyboardInterrupt
        self.number += 1

    def state(self) -> dict[str, int]:
        return {"number": self.number}

    def restore(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def test_no_state_has_what_some_callbacks_know_of_a_step_and_others_do_not(
    coordinator: dr.Coordinator, tmp_path: Path
) -> None:
    """The state with the third validation is not written when that one is interrupted, so it comes again."""
    callbacks = [dr.Checkpoint(tmp_path, every=2), Count(), Count(is_interrupted=True), Count()]
    with trainer_of(coordinator) as trainer, pytest.raises(KeyboardInterrupt):
        trainer.fit(steps=20, validation=VALIDATION, validate_every=4, callbacks=callbacks)
    assert 0 < steps_in(tmp_path)[-1] < trainer.step == 12
    counts = [Count(), Count(), Count()]
    with trainer_of(coordinator, dr.newest_state(tmp_path)) as resumed:
        callbacks = [dr.Checkpoint(tmp_path, every=2), *counts]
        resumed.fit(steps=20 - resumed.step, validation=VALIDATION, validate_every=4, callbacks=callbacks)
    assert [count.number for count in counts] == [5, 5, 5]


def test_training_does_not_wait_and_a_state_that_waits_gives_way_to_a_newer_one(
    coordinator: dr.Coordinator, tmp_path: Path
) -> None:
    """The second state goes into a pipe that nobody reads for a while."""
    pipe = tmp_path / "step-000000002.safetensors"
    opened: list[int] = []

    def read() -> None:
        with os.fdopen(opened[0], "rb") as file:
            assert file.read()

    with trainer_of(coordinator) as trainer:
        trainer.fit(
            steps=8,
            callbacks=[
                At(1, lambda: os.mkfifo(pipe)),
                At(3, lambda: opened.append(os.open(pipe, os.O_RDONLY))),  # waits until it is opened for writing
                At(7, read),
                dr.Checkpoint(tmp_path, every=2),
            ],
        )
    assert {2, 8} <= set(steps_in(tmp_path)) <= {2, 6, 8}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for some states."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={4 * STATE_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (disk / "junk").write_bytes(b"x" * 5 * STATE_BYTES)


DISTURBANCES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object], str]] = {
    "full": (fill, lambda disk: (disk / "junk").unlink(), "No space left on device"),
    "read-only": (lambda disk: remount(disk, "ro"), lambda disk: remount(disk, "rw"), "can't be written to|Read-only"),
    "removed": (
        lambda disk: shutil.rmtree(disk / "run"),
        lambda disk: (disk / "run").mkdir(),
        "the folder .* does not exist or can't be written to",
    ),
}


@pytest.mark.parametrize("kind", DISTURBANCES)
def test_a_disk_that_takes_no_files_does_not_end_training(
    coordinator: dr.Coordinator, small_disk: Path, undisturbed: str, kind: str
) -> None:
    """It is warned of once, leaves nothing behind, and is tried again."""
    disturb, repair, reason = DISTURBANCES[kind]
    checkpoint = dr.Checkpoint(small_disk / "run", every=2, keep=2)
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=3, callbacks=[checkpoint])
        disturb(small_disk)
        with pytest.warns(dr.TrainingWarning, match=rf"({reason}).*\. Training goes on, and tries again") as told:
            trainer.fit(steps=10, callbacks=[checkpoint])
        assert len(told) == 1
        repair(small_disk)
        trainer.fit(steps=7, callbacks=[checkpoint])
        assert trainer.model.sha256() == undisturbed
    assert steps_in(small_disk / "run")[-1] == 20
    assert os.listdir(small_disk) == ["run"]


def test_a_state_that_nothing_can_go_on_from_is_not_written(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    with trainer_of(coordinator, lr=1e37) as trainer, pytest.raises(dr.TrainingDiverged):
        trainer.fit(steps=20, callbacks=[dr.Checkpoint(tmp_path, every=1, keep=20)])
    newest = dr.newest_state(tmp_path)
    assert newest is not None
    assert np.isfinite(newest.vectors[0]).all()


@pytest.fixture
def folder(coordinator: dr.Coordinator, tmp_path: Path) -> Path:
    """With checkpoints of steps 2, 4 and 6."""
    with trainer_of(coordinator) as trainer:
        for _ in range(3):
            trainer.fit(steps=2)
            dr.save_state(trainer.state(), tmp_path / f"step-{trainer.step:09}.safetensors")
    return tmp_path


def test_the_newest_whole_state_is_taken(folder: Path) -> None:
    newest = dr.newest_state(folder)
    assert newest is not None
    assert newest.step == 6
    path = folder / "step-000000006.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    reason = (
        r"step-000000006.* bytes of tensors in place of .* An older checkpoint is taken: step-000000004\.safetensors"
    )
    with pytest.warns(dr.TrainingWarning, match=reason):
        newest = dr.newest_state(folder)
    assert newest is not None
    assert newest.step == 4


def test_where_none_is_whole_each_is_told(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(dr.CheckpointError, match=r"has no checkpoint that is whole\. .*006.*it ends after .*004.*002"):
        dr.newest_state(folder)


def test_a_folder_without_any_has_no_newest_state(tmp_path: Path) -> None:
    (tmp_path / "step-1.txt").touch()
    assert dr.newest_state(tmp_path) is None
    assert dr.newest_state(tmp_path / "none") is None


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    coordinator: dr.Coordinator, tmp_path: Path
) -> None:
    """With a learning rate that falls on plateaus of validation; calls end without a last state."""

    def callbacks() -> list[Any]:
        return [dr.ReduceOnPlateau(factor=0.5, patience=0), dr.Checkpoint(tmp_path, every=2)]

    options: dict[str, Any] = {"validation": VALIDATION, "validate_every": 3}
    with trainer_of(coordinator, lr=0.2) as trainer:
        trainer.fit(steps=30, callbacks=callbacks()[:1], **options)
        expected, scale = trainer.model.sha256(), trainer.lr_scale
    assert scale < 0.2
    for end in (3, 9, 12, 21, 22):
        with trainer_of(coordinator, dr.newest_state(tmp_path), lr=0.2) as trainer, pytest.raises(KeyboardInterrupt):
            trainer.fit(steps=30 - trainer.step, callbacks=[*callbacks(), At(end, interrupt)], **options)
    with trainer_of(coordinator, dr.newest_state(tmp_path), lr=0.2) as trainer:
        trainer.fit(steps=30 - trainer.step, callbacks=callbacks(), **options)
        assert (trainer.model.sha256(), trainer.lr_scale) == (expected, scale)


def test_ctrl_c_may_come_while_a_state_is_handed_over(
    coordinator: dr.Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_interrupted(thread: threading.Thread) -> None:
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGINT)
        start(thread)

    with trainer_of(coordinator) as trainer:
        monkeypatch.setattr(threading.Thread, "start", start_interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(epochs=2, callbacks=[dr.Checkpoint(tmp_path, every=1)])
    state = dr.newest_state(tmp_path)
    assert state is not None
    assert state.step == 1
