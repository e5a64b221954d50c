"""Memory that kernels free stays with the process, for those that want it next."""

from __future__ import annotations

import numpy as np

_SIZE_BYTES = 31 << 20
"""Almost the 32 MiB up to which the C library learns, see M_MMAP_THRESHOLD in mallopt(3)."""


def keep_freed_memory() -> None:
    """Let the C library keep what is freed at the end of its heap, up to twice `_SIZE_BYTES`.

    glibc gives it back to the system from 128 KiB on. So each kernel with more scratch memory than that would get new
    pages whenever it is called, which took up to a third of the time of convolutions. Once it has seen a large array
    freed it keeps as much. No page of this one is ever touched; other C libraries take no notice.
    """
    np.empty(_SIZE_BYTES, np.uint8)
