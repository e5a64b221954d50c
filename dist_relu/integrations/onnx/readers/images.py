"""Convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dist_relu import nn
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.readers.table import reads
from dist_relu.integrations.onnx.source import Node
from dist_relu.nn.layers.windows import Size, pair, windows


@reads("Conv")
def _(assembly: Assembly, node: Node) -> None:
    weight, bias = assembly.source.needed(node, 1), assembly.source.constant(node, 2)
    if weight.ndim != 4:
        raise node.refuse(f"has filters of shape {weight.shape}; expected those of images: (K, C, height, width).")
    assembly.need_images(node)
    kernel, stride = weight.shape[2:], node.numbers("strides", (1, 1))
    dilation, groups = node.numbers("dilations", (1, 1)), int(node.attributes.get("group", 1))
    if weight.shape[1] * groups != assembly.shape[2]:
        raise node.refuse(f"has filters of shape {weight.shape} in {groups} groups for {assembly.shape[2]} channels.")
    padding = _padding(assembly, node, kernel, stride, dilation)
    assembly.margins = None
    layer = nn.Conv2d(
        weight.shape[0], _short(kernel), _short(stride), padding, _short(dilation), groups, bias is not None
    )
    values = weight.transpose(2, 3, 1, 0), *([] if bias is None else [bias.reshape(-1)])
    assembly.add(node, layer, *values)


@reads("Pad")
def _(assembly: Assembly, node: Node) -> None:
    pads = assembly.source.whole_numbers(node, 1) or []
    value = assembly.source.constant(node, 2)
    if node.attributes.get("mode", "constant") != "constant" or (value is not None and value.any()):
        raise node.refuse("pads by something else than zeros; no layer does this.")
    if assembly.source.whole_numbers(node, 3) is not None or len(pads) != 2 * len(assembly.axes) or min(pads) < 0:
        raise node.refuse(f"has pads={pads}; expected those of all axes of images, (N, C, H, W).")
    if not any(pads):
        return
    assembly.need_images(node)
    assembly.settle()
    if pads[0] or pads[1] or pads[4] or pads[5] or assembly.margins is not None:
        raise node.refuse(f"has pads={pads}; expected zeros around images alone.")
    assembly.margins = [pads[2], pads[3], pads[6], pads[7]]


def _padding(
    assembly: Assembly, node: Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> Literal["same"] | Size:
    """The padding of ours that is that of a node; "same" or a margin on both sides."""
    word = node.attributes.get("auto_pad", "NOTSET")
    if word not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.refuse(f"has auto_pad={word!r}, which ONNX does not have.")
    pads = node.numbers("pads", (0, 0, 0, 0)) if word == "NOTSET" else [0, 0, 0, 0]
    if len(pads) != 4 or min(pads) < 0:
        raise node.refuse(f"has pads={pads}; expected four numbers of at least 0.")
    pads = [a + b for a, b in zip(pads, assembly.margins or [0, 0, 0, 0], strict=True)]
    w = windows(node.operator, assembly.shape, tuple(kernel), tuple(stride), "same", tuple(dilation))
    bottom = (w.out_height - 1) * w.stride_h + w.dilation_h * (w.kernel_h - 1) + 1 - w.height - w.top
    right = (w.out_width - 1) * w.stride_w + w.dilation_w * (w.kernel_w - 1) + 1 - w.width - w.left
    same = [w.top, w.left, max(bottom, 0), max(right, 0)]
    if word.startswith("SAME"):
        pads = same if word == "SAME_UPPER" else [same[2], same[3], same[0], same[1]]
    if pads == same and any(pads):
        return "same"
    if pads[:2] != pads[2:]:
        raise node.refuse(
            f"has {pads[0]} and {pads[2]} zeros above and below, {pads[1]} and {pads[3]} at the sides; expected as "
            f'many on both sides, or padding="same": {same}.'
        )
    return _short(pads[:2])


def _short(numbers: Sequence[int]) -> int | tuple[int, int]:
    """One number for height and width, where they are the same."""
    first, second = (int(number) for number in numbers)
    return first if first == second else (first, second)


@reads("MaxPool", "AveragePool")
def _(assembly: Assembly, node: Node) -> None:
    assembly.need_images(node)
    kernel = node.numbers("kernel_shape", ())
    stride = node.numbers("strides", (1, 1))
    if len(kernel) != 2 or node.numbers("dilations", (1, 1)) != [1, 1]:
        raise node.refuse(f"has kernel_shape={kernel}, dilations={node.numbers('dilations', (1, 1))}; expected images.")
    margin = _padding(assembly, node, kernel, stride)
    if margin == "same":
        w = windows(node.operator, assembly.shape, tuple(kernel), tuple(stride), "same")
        margin = _short((w.top, w.left))
        if (w.top, w.left) != _behind(assembly, kernel, stride, margin):
            raise node.refuse("pads more below than above; pooling here pads both sides alike.")
    if node.attributes.get("ceil_mode", 0) and any(
        (size + 2 * m - k) % s for size, m, k, s in zip(assembly.shape, pair(margin), kernel, stride, strict=False)
    ):
        raise node.refuse("has ceil_mode=1, and windows that reach beyond images; no layer has these.")
    size, step = _short(kernel), _short(stride)
    if node.operator == "MaxPool":
        assembly.add(node, nn.MaxPool2d(size, None if step == size else step, margin))
        return
    if any(pair(margin)) and not node.attributes.get("count_include_pad", 0):
        raise node.refuse("leaves zeros around images out of means (count_include_pad=0); no layer does this.")
    assembly.add(node, nn.AvgPool2d(size, None if step == size else step, margin))


def _behind(
    assembly: Assembly, kernel: Sequence[int], stride: Sequence[int], margin: int | tuple[int, int]
) -> tuple[int, int]:
    """How far windows that "same" has reach beyond images, below and to the right."""
    reach = [
        max((-(-size // s) - 1) * s + k - size - m, 0)
        for size, k, s, m in zip(assembly.shape, kernel, stride, pair(margin), strict=False)
    ]
    return reach[0], reach[1]


@reads("GlobalAveragePool")
def _(assembly: Assembly, node: Node) -> None:
    assembly.need_images(node)
    assembly.add(node, nn.GlobalAvgPool2d())
    assembly.axes = (0, 1, None, None)


@reads("ReduceMean")
def _(assembly: Assembly, node: Node) -> None:
    axes = assembly.source.whole_numbers(node, 1)
    places = sorted(assembly.axis(node, axis) for axis in axes or [])
    if [assembly.axes[place] for place in places] == [2, 3] and assembly.is_plain:
        assembly.need_images(node)
    if len(assembly.shape) != 3 or sorted(str(assembly.axes[place]) for place in places) != ["1", "2"]:
        raise node.refuse(f"takes the mean over axes {axes}; expected height and width of images.")
    channels = [None if axis in (1, 2) else 1 if axis == 3 else axis for axis in assembly.axes]
    assembly.add(node, nn.GlobalAvgPool2d())
    keeps = node.attributes.get("keepdims", 1)
    assembly.axes = tuple(axis for axis in channels if keeps or axis is not None)
