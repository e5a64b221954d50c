"""What the units of a first layer look for: their weights, as images.  H W C of an image, K units."""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.nn import Conv2d, Dense, Sequential
from dist_relu.nn.structure import layer_names
from dist_relu.reports.plots.style import PLAIN, Form, draw

_MAX_UNITS, _COLUMNS = 64, 16
_RGB = 3


def draw_weights(
    model: Sequential,
    path: Path,
    image_shape: tuple[int, ...] | None = None,
    *,
    form: Form = PLAIN,
    about: str = "",
) -> None:
    """The weights of the first dense layer or convolution, one image for each unit; the strongest 64 units.

    image_shape: (H, W) or (H, W, C) of samples, for models that don't hold it. By default that of a square of grey
    pixels. Where images have three channels, they are red, green and blue, and grey is 0; other numbers of channels
    stand side by side. Raises ValueError for a model whose first weights are no images.
    """
    name, images = first_weights(model, image_shape)
    norms = np.sqrt(np.square(images, dtype=np.float64).sum(axis=(1, 2, 3)))
    strongest = np.argsort(-norms, kind="stable")[:_MAX_UNITS]
    limit = float(np.abs(images[strongest]).max()) or 1.0
    mosaic = _mosaic(images[strongest])
    height, width = mosaic.shape[:2]

    def paint(axes: Any) -> None:
        what = f"weights of layer {name}, {'×'.join(map(str, images.shape[1:3]))}"
        few = f"the strongest {len(strongest)} of {len(images)} units" if len(images) > len(strongest) else "all units"
        axes.set_title(f"{what}: {few}")
        axes.axis("off")
        if mosaic.shape[2] == _RGB:
            axes.imshow(np.nan_to_num(0.5 + mosaic / (2 * limit), nan=1.0), interpolation="nearest")
        else:
            colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            image = axes.imshow(mosaic[..., 0], interpolation="nearest", **colours)
            axes.figure.colorbar(image, ax=axes, label="weight", fraction=0.02, pad=0.01)

    inches = 10, min(max(9 * height / width, 1) + 0.5, 12)
    draw(1, paint, path, panel_inches=inches, form=form, about=about)


def first_weights(model: Sequential, image_shape: tuple[int, ...] | None = None) -> tuple[str, Array]:
    """The name of the first layer with weights, and these as images (K, H, W, C); see `draw_weights`."""
    shapes = [model.input_shape, *model.layer_shapes]
    for number, (name, layer) in enumerate(zip(layer_names(model), model.layers, strict=True)):
        if isinstance(layer, Conv2d):
            return name, np.moveaxis(layer.weight.value, -1, 0)
        if isinstance(layer, Dense):
            shape = image_shape or next((shape for shape in shapes[number::-1] if len(shape) == 3), None)
            return name, layer.weight.value.T.reshape(-1, *_image_shape(layer.weight.value.shape[0], shape))
        if layer.params():
            raise ValueError(f"The first layer with parameters is {name}; only those of Dense and Conv2d are images.")
    raise ValueError("The model has no dense layer and no convolution.")


def _image_shape(num_inputs: int, given: tuple[int, ...] | None) -> tuple[int, int, int]:
    """(H, W, C) of so many inputs."""
    if given is None:
        side = isqrt(num_inputs)
        if side * side != num_inputs:
            raise ValueError(
                f"The first layer has {num_inputs} inputs, which are no square image. If they are an image of another "
                "shape, pass --shape HEIGHT,WIDTH or HEIGHT,WIDTH,CHANNELS."
            )
        return side, side, 1
    height, width, channels = (*given, 1)[:3]
    if height * width * channels != num_inputs:
        raise ValueError(f"The first layer has {num_inputs} inputs, not {'·'.join(map(str, given))}.")
    return height, width, channels


def _mosaic(images: Array) -> Array:
    """Rows of images with gaps between them: (height, width, C) for 3 channels, otherwise (height, width, 1)."""
    if images.shape[-1] != _RGB:
        images = np.moveaxis(images, -1, 2).reshape(*images.shape[:2], -1, 1)
    num_images, height, width, channels = images.shape
    columns = min(_COLUMNS, num_images)
    rows = -(-num_images // columns)
    gap = max(height // 12, 1)
    cells = np.full((rows * columns, height + gap, width + gap, channels), np.nan)
    cells[:num_images, :height, :width] = images
    grid = cells.reshape(rows, columns, height + gap, width + gap, channels)
    whole: Array = grid.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), channels)
    return whole[:-gap, :-gap]
