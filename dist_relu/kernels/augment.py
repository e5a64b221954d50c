"""Random changes of samples on their way into a batch.

N samples of the data set, n of the batch, H W height and width, C channels.
"""

from __future__ import annotations

from dist_relu.arrays import Array
from dist_relu.kernels.compile import kernel


@kernel
def shift_and_flip(images: Array, rows: Array, shifts: Array, flips: Array, out: Array) -> None:
    """Gather images, each moved by its shift, with zeros behind it, and then mirrored or not.

    images: (N, H, W, C).  rows: (n,) of them.  shifts: (n, 2), how far down and right the window moves over the image.
    flips: (n,) bool.  out: (n, H, W, C).
    """
    _, height, width, channels = images.shape
    for n in range(rows.shape[0]):
        image, target, flip = images[rows[n]], out[n], flips[n]
        down, right = shifts[n, 0], shifts[n, 1]
        for h in range(height):
            for w in range(width):
                source_h = h + down
                source_w = (width - 1 - w if flip else w) + right
                inside = 0 <= source_h < height and 0 <= source_w < width
                for c in range(channels):
                    target[h, w, c] = image[source_h, source_w, c] if inside else 0


@kernel
def mix(x: Array, partners: Array, share: float, out: Array) -> None:
    """out = share x + (1 - share) x[partners].  x, out: (n, F), of different memory.  partners: (n,)."""
    mine = x.dtype.type(share)
    theirs = x.dtype.type(1 - share)
    for n in range(x.shape[0]):
        row, other, target = x[n], x[partners[n]], out[n]
        for f in range(row.shape[0]):
            target[f] = mine * row[f] + theirs * other[f]
