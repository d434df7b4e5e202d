"""Make forks of a process that has loaded the libraries cheap.

A fork copies the page table of all memory that the process has written, and its end takes the copy down again:
with torch and torchvision loaded that is 400 MB in pages of 4 KiB, 10 ms for a fork and as much for its end.  In
huge pages of 2 MiB there is next to nothing to copy.  And a garbage collection in a fork writes to every object, so
that the kernel has to copy all their memory; objects that are frozen are passed over.
"""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

HUGE = 2 << 20  # bytes of a huge page
MADV_COLLAPSE = 25  # Linux 6.1 and later; see madvise(2)
_WRITABLE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(\[heap\])?$", re.M)


def freeze() -> None:
    """Keep the objects that are there now out of all later garbage collections."""
    gc.collect()
    gc.freeze()


def use_huge_pages() -> int:
    """Move the heap to huge pages; returns how many there are, 0 where the kernel has none to give."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    collapsed = 0
    for found in _WRITABLE.finditer(Path("/proc/self/maps").read_text()):
        start, end = (int(found[k], 16) for k in (1, 2))
        for address in range(-(-start // HUGE) * HUGE, end // HUGE * HUGE, HUGE):
            collapsed += libc.madvise(address, HUGE, MADV_COLLAPSE) == 0
    return collapsed
