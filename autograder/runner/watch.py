"""What a submission's processes use together, read from /proc by the zygote.

The kernel's resource limits hold for each process by itself; a control group would bound their sum, but needs rights
that not every user has.  So the zygote looks, many times a second, and ends a submission that uses too much.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autograder.runner.namespaces import Limits

PAGE = resource.getpagesize()
FIELDS = {"PPid:", "RssAnon:", "Threads:"}


@dataclass(frozen=True)
class Usage:
    """What one process uses.

    Attributes
    ----------
    parent : int
        Its parent.
    anonymous : int
        Bytes of memory that no file stands behind, what it shares with the zygote since the fork included.
    touched : int
        Bytes of the pages that it has written to or brought in, counted each time.
    threads : int
        Its threads.
    """

    parent: int
    anonymous: int
    touched: int
    threads: int


def usage(pid: int | str) -> Usage | None:
    """What a process uses; None where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        faults = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
    except (OSError, IndexError, ValueError):
        return None
    found = {parts[0]: int(parts[1]) for line in lines if (parts := line.split())[0] in FIELDS}
    return Usage(found.get("PPid:", 0), found.get("RssAnon:", 0) * 1024, faults * PAGE, found.get("Threads:", 1))


def overdrawn(runners: Iterable[int], limits: dict[int, Limits]) -> dict[int, str]:
    """The runners whose processes together use too much, and what: "memory" or "processes".

    Of the pages that a process shares with the zygote since the fork, as many count as it can have copied.
    """
    own = usage("self")
    if own is None:  # no /proc to read from
        return {}
    everyone = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (used := usage(path.name)) is not None:
            everyone[int(path.name)] = used
    children: dict[int, list[int]] = {}
    for pid, used in everyone.items():
        children.setdefault(used.parent, []).append(pid)
    found = {}
    for runner in runners:
        memory = threads = 0
        queue = list(children.get(runner, ()))  # the first process is ours and only waits
        while queue:
            pid = queue.pop()
            queue += children.get(pid, ())
            used = everyone[pid]
            memory += max(used.anonymous - own.anonymous, 0) + min(own.anonymous, used.touched)
            threads += used.threads
        if memory > limits[runner].memory + 2 * own.anonymous:  # a notebook's process and an exercise's
            found[runner] = "memory"
        elif threads > limits[runner].processes:
            found[runner] = "processes"
    return found
