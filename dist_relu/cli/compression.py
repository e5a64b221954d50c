"""Compressions of gradients, from the text of --compress to objects."""

from __future__ import annotations

from dist_relu.cli.types import COMPRESSION_FORMS
from dist_relu.compression import Compression, PowerSGD, Rounded, TopK


def parse_compression(text: str | None, groups: int | None) -> Compression | None:
    """From one of `COMPRESSION_FORMS`.  groups: None for as many as there are shards.

    Raises ValueError for any other text, and for groups of what has none.
    """
    if text is None:
        return None
    name, colon, number = text.partition(":")
    try:
        if name in ("bf16", "fp16") and not colon:
            return Rounded("bfloat16" if name == "bf16" else "float16", groups)
        if name == "topk":
            return TopK(float(number), groups) if colon else TopK(groups=groups)
        if name == "powersgd":
            if groups is not None:
                raise ValueError("it is the same for any groups. Leave --groups away.")
            return PowerSGD(int(number)) if colon else PowerSGD()
    except ValueError as error:
        raise ValueError(f"--compress {text}: {error}") from None
    raise ValueError(f"--compress {text}: expected {COMPRESSION_FORMS}.")
