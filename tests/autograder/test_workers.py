"""Judging many: every submission has an outcome, whatever one of them brings out, wherever it is judged."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from processes import children, gone

from autograder.assignment import load_assignment
from autograder.errors import CourseError
from autograder.fingerprint import Fingerprints
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.judging import Outcome, Settings, Station, Work, ZygoteDied
from autograder.submission import Submission
from autograder.workers import ENDED, judge_all

NAME = "tiny_doubling"
RIGHT = "def double(x):\n    return x + x\n\ndef halve(x):\n    return x / 2\n"
WRONG = "def double(x):\n    return x * x\n\ndef halve(x):\n    return double(x) / 4\n"


def work(key: str, code: str) -> Work:
    return Work(key, code.encode(), f"the secret of {key}", program="the file")


@pytest.fixture
def settings(tiny_root: Path) -> Settings:
    return Settings(NAME, tiny_root, "secret", checkout=Fingerprints(load_assignment(NAME, tiny_root)).checkout)


@pytest.fixture
def station(settings: Settings, tiny_zygote: Zygote) -> Station:
    return Station(settings, tiny_zygote)


def test_every_submission_has_its_outcome(station: Station) -> None:
    works = [work("anna", RIGHT), work("ben", "x = 1"), Work("cleo", b"", "", "Nothing.")]
    outcomes = {w.key: station.judge(w) for w in works}
    assert {k: o.result["score"] for k, o in outcomes.items()} == {"anna": 2.5, "ben": 0, "cleo": 0}
    assert outcomes["anna"].failure == "" and outcomes["anna"].judged == ["double", "halve"]
    assert outcomes["cleo"].result["oddities"] == ["Nothing."]


def test_a_fault_of_ours_stops_one_submission_only(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Judge.judge

    def judge(self: Judge, submission: Submission, *how: bool, **more: Any) -> object:
        if "ben" in submission.code():
            raise KeyError("something that nobody thought of")
        return honest(self, submission, *how, **more)

    monkeypatch.setattr(Judge, "judge", judge)
    ben = station.judge(work("ben", "ben = 1"))
    assert "KeyError" in ben.failure and ben.result == {}
    assert station.judge(work("anna", RIGHT)).result["score"] == 2.5


def test_a_result_that_a_dying_jail_gave_counts_for_nothing(settings: Settings) -> None:
    killer = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n" + RIGHT
    with Station(dataclasses.replace(settings, isolation="none")) as station, pytest.raises(ZygoteDied):
        station.judge(work("anna", killer))


def test_another_checkout_is_refused_with_one_sentence(settings: Settings, tiny_zygote: Zygote) -> None:
    with pytest.raises(CourseError, match="install the same commit"):
        Station(dataclasses.replace(settings, checkout="another"), tiny_zygote)


def test_a_worker_that_cannot_judge_says_why(settings: Settings) -> None:
    with pytest.raises(CourseError, match="There is no isolation 'wishful'"):
        list(judge_all(dataclasses.replace(settings, isolation="wishful"), [work("anna", RIGHT)], workers=1))


# A submission without a jail that ends the process which judges it: its zygote's parent.
KILLER = """
import os, re, signal
zygote = os.getppid()
judge = int(re.search(r"PPid:\\s+(\\d+)", open(f"/proc/{zygote}/status").read())[1])
os.kill(judge, signal.SIGKILL)
"""


def test_what_ends_its_process_three_times_is_given_up_and_the_batch_goes_on(settings: Settings) -> None:
    works = [work("killer", KILLER + RIGHT), work("anna", RIGHT), work("ben", WRONG)]
    outcomes = {o.key: o for o in judge_all(dataclasses.replace(settings, isolation="none"), works, workers=1)}
    assert outcomes["killer"].failure == ENDED and "three times" in ENDED
    assert {k: o.result["score"] for k, o in outcomes.items() if k != "killer"} == {"anna": 2.5, "ben": 0}


# --- The same wherever it is judged, and whoever is killed meanwhile -------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two workers on loopback: its address, and the workers' processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "distributed.cli"]
    scheduler = start(f"{dask[-1]}.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    how = "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"
    workers = [start(f"{dask[-1]}.dask_worker", address, *how) for _ in range(2)]
    try:
        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, workers
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", module, *arguments], **quiet)  # type: ignore[call-overload,no-any-return]


def plain(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    return {key: dataclasses.replace(outcomes[key], seconds=0.0, exercise_seconds={}) for key in sorted(outcomes)}


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_results_are_the_same_in_this_process_in_two_and_on_a_cluster_that_loses_a_worker(
    settings: Settings, station: Station, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    programs = [RIGHT, WRONG, "x = 1", RIGHT.replace("x / 2", "double(x) / 4"), "def double(x):\n    return -x\n"]
    works = [work(f"student{k}", programs[k % len(programs)] + f"\n# {k}") for k in range(12)]
    here = {w.key: station.judge(w) for w in works}
    before, judging = children(os.getpid()), set()
    local = {}
    for outcome in judge_all(settings, works, workers=2):
        local[outcome.key] = outcome
        judging |= {p for p in children(os.getpid()) - before if b"autograder.judging" in command_line(p)}
    assert plain(local) == plain(here)
    assert len(judging) == 2, "two workers are two judging processes"

    address, workers = cluster
    remote: dict[str, Outcome] = {}
    for outcome in judge_all(settings, works, scheduler=address):
        remote[outcome.key] = outcome
        if len(remote) == 3:
            orphans = children(workers[0].pid)
            workers[0].kill()
    assert plain(remote) == plain(here)
    assert orphans and not gone(orphans), "processes of the killed worker are left"


def test_no_scheduler_is_one_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.workers.CONNECT_SECONDS", 1)
    with pytest.raises(CourseError, match="No Dask scheduler answers at tcp"):
        list(judge_all(settings, [work("anna", RIGHT)], scheduler="tcp://127.0.0.1:9"))


def test_a_killed_judging_process_is_replaced_and_leaves_nothing(settings: Settings) -> None:
    works = [work(f"student{k}", RIGHT + f"\n# {k}") for k in range(6)]
    before = children(os.getpid())
    outcomes = {}
    for outcome in judge_all(settings, works, workers=1):
        outcomes[outcome.key] = outcome
        if len(outcomes) == 2:
            started = children(os.getpid()) - before
            for pid in started:
                if b"autograder.judging" in command_line(pid):
                    os.kill(pid, signal.SIGKILL)
            assert not gone(started), "processes of the killed judge are left"
    assert {o.result["score"] for o in outcomes.values()} == {2.5} and len(outcomes) == 6
    assert not gone(children(os.getpid()) - before)
