"""A model at a glance."""

from __future__ import annotations

from math import prod

from dist_relu.core.checks import check_is
from dist_relu.nn.sequential import Sequential


def summary(model: Sequential) -> str:
    """A table of the layers of a built model: output shape, parameters, and the bytes of both for one sample.

    Raises ValueError for a model that is not built.
    """
    check_is("model", model, Sequential)
    itemsize = model.dtype.itemsize
    rows = [("layer", "output shape", "parameters", "bytes of parameters", "bytes of output")]
    total = 0
    for number, (layer, shape) in enumerate(zip(model.layers, model.layer_shapes, strict=True)):
        num_params = sum(prod(param.shape) for param in layer.params())
        total += num_params
        name = f"{number} {type(layer).__name__}"
        bytes_of_output = prod(shape) * itemsize
        rows.append((name, str(shape), f"{num_params:,}", f"{num_params * itemsize:,}", f"{bytes_of_output:,}"))
    rows.append(("all", str(model.output_shape), f"{total:,}", f"{total * itemsize:,}", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([cells[0].ljust(widths[0]), cells[1].ljust(widths[1]), *map(str.rjust, cells[2:], widths[2:])])
        for cells in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
