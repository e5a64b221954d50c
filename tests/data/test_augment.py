"""Random changes of samples, against the same things done slowly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_relu import nn
from dist_relu.data import Augment, Dataset
from dist_relu.data.augment import Mixture
from dist_relu.errors import DataError
from dist_relu.kernels import augment as kernels
from tests.twin import Array


def shifted_and_flipped(image: Array, down: int, right: int, *, flip: bool) -> Array:
    """Pad with zeros, cut the window out, mirror it."""
    margin = max(abs(down), abs(right))
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    height, width, _ = image.shape
    window = padded[margin + down : margin + down + height, margin + right : margin + right + width]
    return window[:, ::-1] if flip else window


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 3),
    reach=st.integers(0, 8),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)
def test_windows_are_cut_out_of_padded_images(
    height: int, width: int, channels: int, reach: int, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((7, height, width, channels)).astype(dtype)
    rows, shifts, flips = rng.integers(0, 7, 5), rng.integers(-reach, reach + 1, (5, 2)), rng.random(5) < 0.5
    out = np.full((5, height, width * channels), np.nan, dtype)
    kernels.shift_and_flip(images.reshape(7, height, -1), channels, 1, rows, 0, 5, shifts, flips, out)
    for n in range(5):
        expected = shifted_and_flipped(images[rows[n]], *shifts[n], flip=flips[n])
        np.testing.assert_array_equal(out[n].reshape(expected.shape), expected)


def gather(augment: Augment, x: Array, seed: int = 0, num_rows: int = 200) -> tuple[Array, Array, Mixture | None]:
    """Augmented samples, those that they came from, and how they were mixed."""
    rng = np.random.default_rng(seed)
    data = Dataset(x, np.zeros(len(x), np.int64), (4, 4, 1))
    rows = rng.integers(0, len(x), num_rows)
    out, scratch = np.empty((num_rows, *x.shape[1:])), np.empty((num_rows, *x.shape[1:]))
    mixture = augment.gather(x, rows, augment.image_shape(data), rng, out, scratch)
    return out, x[rows], mixture


def test_crops_reach_every_offset_alike_and_flips_half_of_the_images() -> None:
    x = np.zeros((1, 16))
    x[0, 5] = 1.0  # row 1, column 1
    out, _, _ = gather(Augment(crop=1), x, num_rows=9000)
    where = np.bincount(out.argmax(axis=1), minlength=16).reshape(4, 4)
    np.testing.assert_allclose(where[:3, :3], 1000, rtol=0.15)
    assert where.sum() == where[:3, :3].sum()
    out, _, _ = gather(Augment(flip=True), x, num_rows=9000)
    assert out[:, 5].mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(out[:, 5] + out[:, 6], 1)


def test_images_with_their_channels_first_change_as_those_with_channels_last(rng: np.random.Generator) -> None:
    last = rng.standard_normal((9, 6, 5, 3))
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    augment, rows = Augment(crop=2, flip=True), rng.integers(0, 9, 40)
    results = []
    for x, channels_first in ((last, None), (first, (3, 6, 5))):
        out = np.empty((40, *x.shape[1:]))
        shape = augment.image_shape(Dataset(x, np.zeros(9, int), None), channels_first)
        augment.gather(x, rows, shape, np.random.default_rng(1), out, np.empty_like(out))
        results.append(out)
    np.testing.assert_array_equal(results[1], results[0].transpose(0, 3, 1, 2))


def test_where_the_channels_of_images_stand_must_be_known() -> None:
    x, y = np.zeros((2, 3, 8, 8)), np.zeros(2, int)
    with pytest.raises(DataError, match=r"look like \(channels, height, width\).*nn.FromNCHW\(\)"):
        Augment(flip=True).image_shape(Dataset(x, y))
    assert Augment(flip=True).image_shape(Dataset(x, y, (3, 8, 8))) == (1, 3, 8, 8)
    for data in (Dataset(np.zeros((2, 12)), y), Dataset(np.zeros((2, 3, 4)), y)):
        with pytest.raises(DataError, match="they are no images"):
            Augment(crop=1).image_shape(data)


def test_mixup_mixes_samples_and_losses_in_the_same_share(rng: np.random.Generator) -> None:
    x = rng.standard_normal((50, 16))
    out, rows, mixture = gather(Augment(mixup=0.4), x)
    assert mixture is not None
    partners, share = mixture
    assert sorted(partners) == list(range(200))
    np.testing.assert_allclose(out, share * rows + (1 - share) * rows[partners], rtol=1e-12, atol=1e-12)


def test_shares_are_those_of_the_beta_distribution(rng: np.random.Generator) -> None:
    mixtures = [gather(Augment(mixup=0.4), rng.standard_normal((5, 16)), seed)[2] for seed in range(500)]
    shares = [mixture.share for mixture in mixtures if mixture]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.8), rel=0.15)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_mixed_targets_are_the_loss_of_mixed_probabilities(share: float, rng: np.random.Generator) -> None:
    z = rng.standard_normal((6, 4))
    first, second = rng.integers(0, 4, 6), rng.integers(0, 4, 6)
    probabilities = share * np.eye(4)[first] + (1 - share) * np.eye(4)[second]
    log_softmax = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    d_z = np.empty_like(z)
    loss, num_correct = nn.MixedTargets(nn.CrossEntropy(), second, share).backward(z, first, 0.5, d_z)
    assert loss == pytest.approx(-(probabilities * log_softmax).sum())
    assert num_correct == (z.argmax(axis=1) == (first if share > 0.5 else second)).sum()
    np.testing.assert_allclose(d_z, 0.5 * (np.exp(log_softmax) - probabilities), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_spreads_a_share_over_all_classes(smoothing: float, rng: np.random.Generator) -> None:
    z, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    probabilities = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    log_softmax = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    d_z = np.empty_like(z)
    loss, _ = nn.CrossEntropy(smoothing).backward(z, labels, 0.5, d_z)
    assert loss == pytest.approx(-(probabilities * log_softmax).sum())
    np.testing.assert_allclose(d_z, 0.5 * (np.exp(log_softmax) - probabilities), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.peer
def test_label_smoothing_agrees_with_pytorch(dtype: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    z, labels = rng.standard_normal((9, 5)).astype(dtype), rng.integers(0, 5, 9)
    theirs = torch.tensor(z, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), label_smoothing=0.2, reduction="sum")
    expected.backward()
    d_z = np.empty_like(z)
    loss, _ = nn.CrossEntropy(label_smoothing=0.2).backward(z, labels, 1.0, d_z)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert loss == pytest.approx(expected.item(), rel=tolerance)
    np.testing.assert_allclose(d_z, theirs.grad.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("make", [lambda: Augment(crop=-1), lambda: Augment(mixup=-0.1), lambda: nn.CrossEntropy(1.0)])
def test_arguments_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()  # type: ignore[operator]
