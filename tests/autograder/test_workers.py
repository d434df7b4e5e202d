"""Judging many: every submission has an outcome, whatever one of them brings out."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder import workers
from autograder.assignment import load_assignment
from autograder.errors import CourseError
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.submission import Submission, read_program
from autograder.workers import Settings, judge_all

RIGHT = "def double(x):\n    return x + x\n\ndef halve(x):\n    return x / 2\n"


@pytest.fixture
def settings(tiny_root: Path, tiny_zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a worker that uses the tests' zygote."""

    class Kept:
        def __enter__(self) -> Zygote:
            return tiny_zygote

        def __exit__(self, *error: object) -> None: ...

    judge = Judge(load_assignment("tiny_doubling", tiny_root), tiny_zygote, "secret")
    monkeypatch.setattr(workers, "_make", lambda settings: (judge, Kept()))
    return Settings("tiny_doubling", tiny_root, "secret")


def read(code: str) -> Submission:
    return read_program(code, ("double", "halve"))


def test_every_submission_has_its_outcome(settings: Settings) -> None:
    waiting = [("anna", read(RIGHT)), ("ben", read("x = 1")), ("cleo", Submission(oddities=["Nothing."]))]
    outcomes = {o.key: o for o in judge_all(settings, waiting, workers=1)}
    assert {k: o.result["score"] for k, o in outcomes.items()} == {"anna": 2.5, "ben": 0, "cleo": 0}
    assert "all 2 criteria are met" in outcomes["anna"].tables["double"] and outcomes["anna"].failure == ""
    assert outcomes["cleo"].result["oddities"] == ["Nothing."]


def test_a_fault_of_ours_stops_one_submission_only(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Judge.judge

    def judge(self: Judge, submission: Submission, *how: bool) -> object:
        if "ben" in submission.code():
            raise KeyError("something that nobody thought of")
        return honest(self, submission, *how)

    monkeypatch.setattr(Judge, "judge", judge)
    waiting = [("ben", read("ben = 1")), ("anna", read(RIGHT))]
    outcomes = {o.key: o for o in judge_all(settings, waiting, workers=1)}
    assert "KeyError" in outcomes["ben"].failure and outcomes["ben"].result == {}
    assert outcomes["anna"].result["score"] == 2.5


def test_a_jail_that_is_gone_stops_all_with_one_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Zygote) -> None:
        raise CourseError("The jail's zygote died.")

    monkeypatch.setattr(Zygote, "start", gone)
    with pytest.raises(CourseError, match="zygote died"):
        list(judge_all(settings, [("anna", read(RIGHT))], workers=1))
