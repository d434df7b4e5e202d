"""Code of ours on arguments of a student's choosing ends in time and takes no more memory than it may."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time

import pytest
import torch

from autograder.bounded import Overrun, bounded, bounded_memory, processor_time


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


def test_an_inner_block_has_no_more_time_than_an_outer_one() -> None:
    start = time.monotonic()
    with pytest.raises(Overrun), bounded(start + 0.3):
        with bounded(start + 60):
            pass
        with bounded(start + 60):
            time.sleep(30)
    assert time.monotonic() - start < 10


def test_an_outer_block_goes_on_after_an_inner_one() -> None:
    start = time.monotonic()
    with pytest.raises(Overrun), bounded(start + 0.3):
        with bounded(start + 60):
            pass
        time.sleep(30)
    assert time.monotonic() - start < 10


def test_processor_time_is_bounded_and_waiting_is_free() -> None:
    with processor_time(0.2):
        time.sleep(0.5)
    with pytest.raises(Overrun, match="too long"), processor_time(0.2):
        while True:
            pass


def test_what_takes_the_end_of_its_time_for_an_error_of_its_own_is_ended_again() -> None:
    ended = 0
    with processor_time(0.1):
        while ended < 2:
            with contextlib.suppress(Overrun):
                while True:
                    pass
            ended += 1


def test_memory_is_bounded_by_itself() -> None:
    with pytest.raises(MemoryError), bounded_memory(100 << 20):
        bytearray(400 << 20)
    assert len(bytearray(400 << 20)) == 400 << 20
