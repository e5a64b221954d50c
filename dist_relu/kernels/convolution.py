"""Unfolding of images into the rows of a matrix product, its inverse, and depthwise convolution.

N batch, H W height and width, C channels, I J height and width of the output, A B those of the kernel.
"""

from __future__ import annotations

from dist_relu.arrays import Array
from dist_relu.kernels.compile import kernel
from dist_relu.kernels.update import add
from dist_relu.kernels.windows import Windows, span


@kernel
def _runs(w: Windows, channels: int, depth: int) -> tuple[int, int]:
    """How a row of a window lies in memory: the number of runs, and the length of each."""
    if depth == channels and w.dilation_w == 1:
        return 1, w.kernel_w * depth
    return w.kernel_w, depth


@kernel
def unfold(x: Array, w: Windows, channels: int, first: int, cols: Array) -> None:
    """cols = the windows on x, one in each row; of all channels or only of some from `first` on.

    x: (N, H, W C).  cols: (N, I, J, A, B D), with D the number of channels taken; padding becomes 0.
    """
    depth = cols.shape[4] // w.kernel_w
    num_runs, length = _runs(w, channels, depth)
    for n in range(cols.shape[0]):
        for i in range(w.out_height):
            for a in range(w.kernel_h):
                h = i * w.stride_h + a * w.dilation_h - w.top
                if h < 0 or h >= w.height:
                    for j in range(w.out_width):
                        cols[n, i, j, a, :] = 0
                    continue
                row = x[n, h]
                for j in range(w.out_width):
                    run = cols[n, i, j, a]
                    for b in range(num_runs):
                        start = (j * w.stride_w + b * w.dilation_w - w.left) * channels + first
                        begin, end = max(start, 0), min(start + length, row.shape[0])
                        if begin > start or end < start + length:
                            run[b * length : (b + 1) * length] = 0
                        if begin < end:
                            _copy(row[begin:end], run[b * length + begin - start : b * length + end - start])


@kernel
def _copy(source: Array, target: Array) -> None:
    for i in range(target.shape[0]):
        target[i] = source[i]


@kernel
def fold(cols: Array, w: Windows, channels: int, first: int, x: Array) -> None:
    """x += the rows of `cols`, each where its window lies: the transpose of `unfold`, with the same shapes."""
    depth = cols.shape[4] // w.kernel_w
    num_runs, length = _runs(w, channels, depth)
    for n in range(cols.shape[0]):
        for i in range(w.out_height):
            for a in range(w.kernel_h):
                h = i * w.stride_h + a * w.dilation_h - w.top
                if h < 0 or h >= w.height:
                    continue
                row = x[n, h]
                for j in range(w.out_width):
                    run = cols[n, i, j, a]
                    for b in range(num_runs):
                        start = (j * w.stride_w + b * w.dilation_w - w.left) * channels + first
                        begin, end = max(start, 0), min(start + length, row.shape[0])
                        if begin < end:
                            add(row[begin:end], run[b * length + begin - start : b * length + end - start])


@kernel
def unfold_planes(x: Array, w: Windows, first: int, padded: Array, cols: Array) -> None:
    """cols = the windows on x, one in each column: fast where channels are too few for runs of several pixels.

    x: (N, H, W, C).  padded: scratch for the channels from `first` on, each an image with its padding; (D, N, rows,
    columns that windows touch).  cols: (A, B, D, N, I, J).
    """
    padded[:] = 0
    bottom, right = min(padded.shape[2] - w.top, w.height), min(padded.shape[3] - w.left, w.width)
    for d in range(padded.shape[0]):
        for n in range(padded.shape[1]):
            for h in range(bottom):
                for v in range(right):
                    padded[d, n, h + w.top, v + w.left] = x[n, h, v, first + d]
    for a in range(w.kernel_h):
        for b in range(w.kernel_w):
            for d in range(padded.shape[0]):
                for n in range(padded.shape[1]):
                    for i in range(w.out_height):
                        row = padded[d, n, i * w.stride_h + a * w.dilation_h, b * w.dilation_w :]
                        target = cols[a, b, d, n, i]
                        if w.stride_w == 1:
                            _copy(row, target)
                        else:
                            for j in range(w.out_width):
                                target[j] = row[j * w.stride_w]


@kernel
def fold_planes(cols: Array, w: Windows, first: int, padded: Array, x: Array) -> None:
    """x += the columns of `cols` in the channels from `first` on, each added where its window lies.

    The transpose of `unfold_planes`, with the same shapes.
    """
    padded[:] = 0
    for a in range(w.kernel_h):
        for b in range(w.kernel_w):
            for d in range(padded.shape[0]):
                for n in range(padded.shape[1]):
                    for i in range(w.out_height):
                        row = padded[d, n, i * w.stride_h + a * w.dilation_h, b * w.dilation_w :]
                        source = cols[a, b, d, n, i]
                        for j in range(w.out_width):
                            row[j * w.stride_w] += source[j]
    bottom, right = min(padded.shape[2] - w.top, w.height), min(padded.shape[3] - w.left, w.width)
    for d in range(padded.shape[0]):
        for n in range(padded.shape[1]):
            for h in range(bottom):
                for v in range(right):
                    x[n, h, v, first + d] += padded[d, n, h + w.top, v + w.left]


@kernel
def depthwise(x: Array, weight: Array, w: Windows, channels: int, z: Array) -> None:
    """z = every channel's windows times its weights.

    x: (N, H, W C).  weight: (A, B, J C), repeated for each pixel of a row, so that a row is one loop.  z: (N, I, J C).
    """
    z[:] = 0
    for n in range(z.shape[0]):
        for i in range(w.out_height):
            for a in range(w.kernel_h):
                h = i * w.stride_h + a * w.dilation_h - w.top
                if h < 0 or h >= w.height:
                    continue
                for b in range(w.kernel_w):
                    offset, begin, end = span(w, b)
                    pixels = max(end - begin, 1) if w.stride_w == 1 else 1
                    size = pixels * channels
                    for j in range(begin, end, pixels):
                        at, x_at = j * channels, (j * w.stride_w + offset) * channels
                        x_run, weight_run = x[n, h, x_at : x_at + size], weight[a, b, at : at + size]
                        _add_product(z[n, i, at : at + size], x_run, weight_run)


@kernel
def depthwise_backward_x(dz: Array, weight: Array, w: Windows, channels: int, dx: Array) -> None:
    """dx = the gradient of the input of `depthwise`, with the same shapes."""
    dx[:] = 0
    for n in range(dz.shape[0]):
        for i in range(w.out_height):
            for a in range(w.kernel_h):
                h = i * w.stride_h + a * w.dilation_h - w.top
                if h < 0 or h >= w.height:
                    continue
                for b in range(w.kernel_w):
                    offset, begin, end = span(w, b)
                    pixels = max(end - begin, 1) if w.stride_w == 1 else 1
                    size = pixels * channels
                    for j in range(begin, end, pixels):
                        at, x_at = j * channels, (j * w.stride_w + offset) * channels
                        dz_run, weight_run = dz[n, i, at : at + size], weight[a, b, at : at + size]
                        _add_product(dx[n, h, x_at : x_at + size], dz_run, weight_run)


@kernel
def depthwise_backward_weight(x: Array, dz: Array, w: Windows, channels: int, d_weight: Array) -> None:
    """d_weight = the gradients of the repeated weights of `depthwise`, with the same shapes."""
    d_weight[:] = 0
    for n in range(dz.shape[0]):
        for i in range(w.out_height):
            for a in range(w.kernel_h):
                h = i * w.stride_h + a * w.dilation_h - w.top
                if h < 0 or h >= w.height:
                    continue
                for b in range(w.kernel_w):
                    offset, begin, end = span(w, b)
                    pixels = max(end - begin, 1) if w.stride_w == 1 else 1
                    size = pixels * channels
                    for j in range(begin, end, pixels):
                        at, x_at = j * channels, (j * w.stride_w + offset) * channels
                        x_run, dz_run = x[n, h, x_at : x_at + size], dz[n, i, at : at + size]
                        _add_product(d_weight[a, b, at : at + size], x_run, dz_run)


@kernel
def _add_product(total: Array, x: Array, y: Array) -> None:
    for c in range(total.shape[0]):
        total[c] += x[c] * y[c]
