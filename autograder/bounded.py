"""Bounds on code of ours that runs on arguments of a student's choosing: time and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator

PAGE = resource.getpagesize()  # bytes


class Overrun(Exception):
    """The code ran longer than it may."""

    def __str__(self) -> str:
        return "it takes too long"


@contextlib.contextmanager
def bounded(deadline: float, memory: int = 1 << 30) -> Iterator[None]:
    """Run the block until `deadline` (of `time.monotonic`), and let it take `memory` bytes more than there are now.

    A signal ends what runs too long, so in another thread than the main one only memory is bounded.  Blocks may
    be inside one another; an inner one has no more time than an outer one.

    Raises
    ------
    Overrun
        When the time is over.
    MemoryError, RuntimeError
        Python's and torch's own, when memory is refused.
    """

    def stop(number: int, frame: object) -> None:
        raise Overrun

    timed = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, stop) if timed else None
    began, outer = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)[0] if timed else 0.0
    try:
        with bounded_memory(memory):
            if timed:
                left = [deadline - began, outer] if outer else [deadline - began]
                signal.setitimer(signal.ITIMER_REAL, max(min(left), 1e-3))
            yield
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            if outer:
                signal.setitimer(signal.ITIMER_REAL, max(began + outer - time.monotonic(), 1e-3))


@contextlib.contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Let the block use this much processor time of this process; waiting for others is free.

    As with `bounded`, only in the main thread.

    Raises
    ------
    Overrun
        When the time is used up, and every second after that: the block may have taken it for an error of its own.
    """

    def stop(number: int, frame: object) -> None:
        raise Overrun

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, stop)
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """Let the block take `size` bytes of address space more than there are now; `MemoryError` is what comes else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        if (pages := _address_space()) is not None:
            limit = pages * PAGE + size
            tightest = [limit, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY)]
            resource.setrlimit(resource.RLIMIT_AS, (min(tightest), hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int | None:
    """Pages of this process's address space; None where the system does not tell."""
    try:  # without pathlib: this stands around every call back
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None
    try:
        return int(os.read(descriptor, 64).split()[0])
    finally:
        os.close(descriptor)
