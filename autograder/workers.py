"""Judge many submissions on local worker processes, each with a zygote of its own."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autograder.assignment import load_assignment
from autograder.cores import usable_cores
from autograder.errors import CourseError
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.runner.namespaces import Limits
from autograder.session import TimeLimits
from autograder.submission import Submission
from course_utils.checking.display import exercise_html

log = logging.getLogger(__name__)
_judge: Judge | None = None


@dataclass(frozen=True)
class Settings:
    """What every worker needs to judge.

    Attributes
    ----------
    assignment : str
        Name of the assignment.
    root : Path
        The checkout that holds it.
    secret : str
        Makes the criteria's inputs unforeseeable.
    isolation : str
        "bubblewrap" or "none".
    time_limits, limits
        What each submission may use.
    """

    assignment: str
    root: Path
    secret: str = ""
    isolation: str = "bubblewrap"
    time_limits: TimeLimits = field(default_factory=TimeLimits)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Outcome:
    """One submission judged.

    Attributes
    ----------
    key : str
        Which one: a student's name, or a mistake's.
    result : dict
        The result as plain data (`autograder.result`).
    tables : dict
        For each exercise the table of its criteria as HTML.
    seconds : float
        Wall time of judging.
    failure : str
        Why there is no result: a fault of the engine's that this submission brought out; empty as a rule.
    """

    key: str
    result: dict[str, Any]
    tables: dict[str, str]
    seconds: float
    failure: str = ""


def judge_all(
    settings: Settings,
    submissions: Iterable[tuple[str, Submission]],
    workers: int | None = None,
    reference_first: bool = False,
    affected_only: bool = False,
) -> Iterator[Outcome]:
    """Judge submissions and give the outcomes as they come, in no particular order.

    Parameters
    ----------
    settings : Settings
        What to judge by.
    submissions : iterable of (str, Submission)
        Keys and submissions.
    workers : int, optional
        Worker processes; as many as there are cores when not given.
    reference_first : bool
        Run the reference's cells before each submission's.
    affected_only : bool
        Leave out the exercises that are the reference's and call nothing of the submission's.
    """
    waiting = list(submissions)
    workers = max(1, min(workers or usable_cores(), len(waiting)))
    if workers == 1:
        judge, zygote = _make(settings)
        with zygote:
            for key, submission in waiting:
                yield _outcome(judge, key, submission, reference_first, affected_only)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(settings,)) as pool:
        how = reference_first, affected_only
        futures = [pool.submit(_judge_one, key, submission, *how) for key, submission in waiting]
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    raise CourseError(
                        "A worker process was killed, perhaps for want of memory; run the same command again to go on."
                    ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _make(settings: Settings) -> tuple[Judge, Zygote]:
    torch.set_num_threads(1)
    # The zygote imports torch while this process does the same and loads the assignment.
    checks = settings.root / "assignments" / settings.assignment / "checks.py"
    zygote = Zygote(checks, settings.isolation, settings.limits)
    assignment = load_assignment(settings.assignment, settings.root)
    return Judge(assignment, zygote, settings.secret, settings.time_limits), zygote


def _start(settings: Settings) -> None:
    global _judge
    _judge, _ = _make(settings)


def _judge_one(key: str, submission: Submission, reference_first: bool, affected_only: bool) -> Outcome:
    assert _judge is not None, "the worker was not started"
    return _outcome(_judge, key, submission, reference_first, affected_only)


def _outcome(judge: Judge, key: str, submission: Submission, reference_first: bool, affected_only: bool) -> Outcome:
    try:
        judged = judge.judge(submission, reference_first, affected_only)
    except CourseError:
        raise
    except Exception as error:
        log.exception("%s could not be judged", key)
        return Outcome(key, {}, {}, 0.0, f"{type(error).__name__}: {error}")
    tables = {name: exercise_html(e.result) for name, e in judged.exercises.items()}
    return Outcome(key, judged.to_json(), tables, judged.seconds)
