"""Where data sets come from: by name, made up, from folders of IDX files, from .npz files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dist_relu.data.adding import adding
from dist_relu.data.dataset import Split
from dist_relu.data.digits import load_digits
from dist_relu.data.downloads import mnist_folder
from dist_relu.data.folders import find_files, find_sets
from dist_relu.data.idx_sets import load_idx
from dist_relu.data.numpy_files import load_npz
from dist_relu.data.splitting import held_back
from dist_relu.errors import DataError


def load(source: str | Path, validation: float | None = None) -> Split:
    """A data set, in two parts: to train on, and to test with; and one to validate with, where that is wanted.

    source: "digits" (1797 images of 8x8 that come with the package), "mnist" (70,000 of 28x28), "adding:STEPS"
    (100,000 and 10,000 sequences of `adding`, as many as in its paper), a folder of IDX files, or a .npz file.

    IDX files are named as those of MNIST, plain or gzipped, or as those of EMNIST; of a folder with several of its
    sets, say which: FOLDER/emnist-letters. What torchvision downloaded is found below its root. Images become rows in
    [0, 1]: bytes are divided by 255, floats must lie there, and of other types nothing tells the scale.

    A .npz file has arrays x and y, and perhaps x_test and y_test, or, as Keras writes them, x_train, y_train, x_test
    and y_test. The weights of samples are sample_weight, and sample_weight_test; others in it are not looked at.
    Without a test part a fifth of the samples is set apart, always the same. Here too unsigned bytes (uint8) are taken
    for images and become float32 in [0, 1]; other types stay as they are.

    Class numbers may be of any type, as long as they are whole numbers.

    validation: this share of the samples to train on is held back, always the same ones; see `held_back`.
    Raises `DataError` when there is no such data, or it can't be trained on.
    """
    data = _load(source)
    return data if validation is None else held_back(data, validation)


def _load(source: str | Path) -> Split:
    text, path = str(source), Path(source)
    name, _, rest = text.partition(":")
    if text in NAMED:
        return NAMED[text]()
    if name == "adding":
        return _load_adding(rest)
    if path.is_dir():
        return load_idx(find_files(path))
    if path.suffix.lower() == ".npz":
        return load_npz(path)
    if path.exists():
        raise DataError(_how_to_convert(path))
    if path.parent.is_dir() and path.name in find_sets(path.parent):
        return load_idx(find_files(path.parent, path.name))
    if text.lower() in NAMED:
        return NAMED[text.lower()]()
    raise DataError(
        f"There is no data set {text!r}. Expected one of {', '.join(NAMED)}, adding:STEPS, a folder of IDX "
        "files, or a .npz file with x and y."
    )


def _how_to_convert(path: Path) -> str:
    """What to do with a file of a kind that is not read."""
    to_npz = {
        ".npy": "It holds a single array; put samples and targets into one file: np.savez('data.npz', x=x, y=y).",
        ".csv": f"Convert it: t = np.loadtxt({str(path)!r}, delimiter=','); np.savez('data.npz', x=t[:, :-1], "
        "y=t[:, -1].astype(int)) where the last column has class numbers.",
    }
    advice = to_npz.get(path.suffix.lower(), "Put its arrays into one: np.savez('data.npz', x=x, y=y).")
    return f"{path} is there, but of a kind that is not read; expected a folder of IDX files or a .npz file. {advice}"


def _load_adding(steps: str) -> Split:
    if not steps.isdecimal() or int(steps) < 2:
        raise DataError(f"adding:{steps}: expected a whole number of steps, at least 2, such as adding:150.")
    return Split(adding(100_000, int(steps), seed=0), adding(10_000, int(steps), seed=1))


def _load_mnist() -> Split:
    return load_idx(find_files(mnist_folder()))


NAMED: dict[str, Callable[[], Split]] = {"digits": load_digits, "mnist": _load_mnist}
