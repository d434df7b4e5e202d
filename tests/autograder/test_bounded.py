"""Code of ours on arguments of a student's choosing ends in time and takes no more memory than it may."""

from __future__ import annotations

import resource
import signal
import threading
import time

import pytest
import torch

from autograder.bounded import Overrun, bounded


def test_what_does_not_end_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(Overrun), bounded(start + 0.2):
        while True:
            pass
    assert time.monotonic() - start < 5


def test_a_deadline_that_is_past_ends_it_at_once() -> None:
    with pytest.raises(Overrun), bounded(time.monotonic() - 1):
        time.sleep(5)


def test_memory_is_refused() -> None:
    with pytest.raises((RuntimeError, MemoryError)), bounded(time.monotonic() + 5, memory=64 << 20):
        torch.ones(1 << 28)
    torch.ones(1 << 10)


def test_all_is_as_before_afterwards() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    with bounded(time.monotonic() + 5):
        assert torch.ones(3).sum() == 3
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_another_thread_is_bounded_in_memory() -> None:
    seen: list[str] = []

    def work() -> None:
        try:
            with bounded(time.monotonic() + 5, memory=64 << 20):
                torch.ones(1 << 28)
        except (RuntimeError, MemoryError) as error:
            seen.append(type(error).__name__)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(seen) == 1
