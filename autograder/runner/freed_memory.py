"""Keep the memory that is freed, for the next tensor of the same size.

The C library gives large pieces back to the kernel as soon as they are free, and the kernel hands them out again page
by page, each with a fault: for a batch of images that takes longer than to compute with it.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # see mallopt(3)
KEPT = 64 << 20  # bytes that may lie free at the end of the heap
LARGEST = 32 << 20  # bytes of a piece that comes from the heap


def keep_freed_memory() -> None:
    """Let this process, and those that it forks, keep what they free; without effect where the C library is another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)
