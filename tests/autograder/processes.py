"""Processes below another one, seen in /proc."""

from __future__ import annotations

import re
import time
from pathlib import Path


def children(pid: int) -> set[int]:
    """All processes below a process."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = re.search(r"PPid:\s+(\d+)", (entry / "status").read_text())
            except OSError:
                continue
            if parent is not None:
                parents[int(entry.name)] = int(parent[1])
    below, found = {pid}, set()
    while below:
        below = {child for child, parent in parents.items() if parent in below}
        found |= below
    return found


def gone(pids: set[int], seconds: float = 20.0) -> set[int]:
    """Those that still run after a while."""
    until = time.monotonic() + seconds
    while pids and time.monotonic() < until:
        pids = {p for p in pids if _runs(p)}
        time.sleep(0.05)
    return pids


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
