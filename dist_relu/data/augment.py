"""Random changes of training samples: crops, flips, mixtures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_bool, check_fields, check_int, check_not_negative
from dist_relu.data.dataset import Dataset, looks_channels_first
from dist_relu.errors import DataError
from dist_relu.kernels import augment as kernels


class Mixture(NamedTuple):
    """Sample i became share·(sample i) + (1 - share)·(sample partners[i]).  partners: (n,)."""

    partners: Array
    share: float


class ImageShape(NamedTuple):
    """How images lie in memory, (planes, height, width, channels): in one plane, or each channel in a plane."""

    planes: int
    height: int
    width: int
    channels: int


@final
@dataclass(frozen=True)
class Augment:
    """What happens to samples each time they are trained on; nothing by default.

    crop: pad images with so many zeros on each side, and cut a random window of their own size out of that.
    flip: mirror half of the images, left to right.
    mixup: alpha of the beta distribution that a share is drawn from; samples are mixed in that share with others of
    their shard, and so are their losses. Zhang et al. (2018), "mixup: beyond empirical risk minimization".
    """

    crop: int = 0
    flip: bool = False
    mixup: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, crop=partial(check_int, least=0), flip=check_bool, mixup=check_not_negative)

    def image_shape(self, data: Dataset, channels_first: tuple[int, ...] | None = None) -> ImageShape | None:
        """The shape of the images that are to be cropped or flipped; None without either.

        channels_first: (channels, height, width) of samples that a model takes so; its first layer is `FromNCHW`.
        Raises `DataError` when the samples are no images.
        """
        if not (self.crop or self.flip):
            return None
        if channels_first is not None:
            planes, height, width = channels_first
            return ImageShape(planes, height, width, 1)
        shape = data.image_shape or data.sample_shape
        if len(shape) != 3:
            raise DataError(
                f"Samples of shape {shape} can't be cropped or flipped: they are no images. "
                "Make them (height, width, channels), or say so: Dataset(x, y, image_shape=...)."
            )
        if looks_channels_first(shape) and data.image_shape is None:
            raise DataError(
                f"Samples of shape {shape} look like (channels, height, width). To crop or flip them, let the model "
                "begin with nn.FromNCHW(), or pass x.transpose(0, 2, 3, 1). If they are (height, width, channels), "
                f"say so: Dataset(x, y, image_shape={shape})."
            )
        return ImageShape(1, *shape)

    def gather(
        self,
        samples: Array,
        rows: Array,
        image_shape: ImageShape | None,
        rng: np.random.Generator,
        out: Array,
        scratch: Array,
    ) -> Mixture | None:
        """out = samples[rows], changed at random; returns how they were mixed, or None.

        samples: (N, ...).  rows: (n,).  out, scratch: (n, ...), in one piece.  Raises ValueError for other shapes, and
        for rows that there are none of.
        """
        shape = (len(rows), *samples.shape[1:])
        if not (out.shape == scratch.shape == shape and out.flags.carray and scratch.flags.carray):
            raise ValueError(f"out and scratch must be arrays of shape {shape} in one piece, to write to.")
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < len(samples))).all():
            raise ValueError(f"rows must be numbers of the {len(samples)} samples, from 0 on.")
        if image_shape is not None and prod(image_shape) != prod(shape[1:]):
            raise ValueError(f"image_shape={image_shape} is not that of samples of shape {shape[1:]}.")
        return self.gather_inside(samples, rows, image_shape, rng, out, scratch)

    def gather_inside(
        self,
        samples: Array,
        rows: Array,
        image_shape: ImageShape | None,
        rng: np.random.Generator,
        out: Array,
        scratch: Array,
    ) -> Mixture | None:
        """`gather` for those who have made all these arrays."""
        gathered = scratch if self.mixup else out
        if image_shape is None:
            np.take(samples, rows, axis=0, out=gathered, mode="clip")
        else:
            shifts = rng.integers(-self.crop, self.crop, (len(rows), 2), endpoint=True)
            flips = rng.random(len(rows)) < (0.5 if self.flip else 0.0)
            planes, height, width, channels = image_shape
            kernels.shift_and_flip(
                samples.reshape(-1, height, width * channels),
                channels,
                planes,
                rows,
                0,
                len(rows),
                shifts,
                flips,
                gathered.reshape(-1, height, width * channels),
            )
        if not self.mixup:
            return None
        mixture = Mixture(rng.permutation(len(rows)), float(rng.beta(self.mixup, self.mixup)))
        kernels.mix(gathered.reshape(len(rows), -1), *mixture, out.reshape(len(rows), -1))
        return mixture
