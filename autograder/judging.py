"""Turn submissions into outcomes: read, judge, and make the notebook that shows the result.

`main` does so for another process that sends the work (`autograder.judge_process`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import pickle
import platform
import signal
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import nbformat
import torch

from autograder.assignment import find_root, load_assignment
from autograder.errors import CourseError
from autograder.fingerprint import Fingerprints
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.rebuild import rebuild
from autograder.record import answered
from autograder.result import KeptExercise
from autograder.runner.namespaces import Limits, die_with_parent
from autograder.session import TimeLimits
from autograder.submission import Submission, read_notebook_bytes, read_program
from course_utils.checking.display import exercise_html

log = logging.getLogger(__name__)

IDLE_SECONDS = 600  # after which a process that nobody sends work goes away


@dataclass(frozen=True)
class Settings:
    """What every worker needs to judge.

    Attributes
    ----------
    assignment : str
        Name of the assignment.
    root : Path
        The checkout that holds it; on another machine its own.
    secret : str
        The course's, from which those of submissions follow; it stays with who sends the work.
    isolation : str
        "bubblewrap" or "none".
    time_limits, limits
        What each submission may use.
    released : bytes
        The notebook as students got it, into which the results are put; none is made without.
    checkout : str
        `Fingerprints.checkout` of who sends the work; not looked at when empty.
    """

    assignment: str
    root: Path
    secret: str = ""
    isolation: str = "bubblewrap"
    time_limits: TimeLimits = field(default_factory=TimeLimits)
    limits: Limits = field(default_factory=Limits)
    released: bytes = b""
    checkout: str = ""


@dataclass(frozen=True)
class Work:
    """One submission to judge.

    Attributes
    ----------
    key : str
        Which one: a student's name, or a mistake's.
    data : bytes
        The notebook's bytes; of a program, its text.
    secret : str
        Makes the inputs of this submission's criteria unforeseeable.
    unreadable : str
        Why there are no bytes, a sentence; empty as a rule.
    program : str
        The file's name where it is a program.
    reference_first, affected_only : bool
        As for `Judge.judge`.
    kept : dict
        Exercises that need no judging, by name.
    kept_outputs : dict
        What their checks showed, by name.
    cell_oddities : list of str
        What was odd when the cells ran the last time.
    """

    key: str
    data: bytes
    secret: str
    unreadable: str = ""
    program: str = ""
    reference_first: bool = False
    affected_only: bool = False
    kept: dict[str, KeptExercise] = field(default_factory=dict)
    kept_outputs: dict[str, list[Any]] = field(default_factory=dict)
    cell_oddities: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """One submission judged.

    Attributes
    ----------
    key : str
        Which one.
    result : dict
        The result as plain data (`autograder.result`).
    exercises : dict
        Its exercises as they are kept.
    judged : list of str
        Those that were judged; the others were kept.
    cell_oddities : list of str
        What was odd when the cells ran.
    notebook : str
        The notebook that shows the result.
    written : dict
        For each question answered in words whether there is an answer.
    seconds : float
        Wall time of judging.
    exercise_seconds : dict
        Wall time of the criteria of each exercise that was judged.
    failure : str
        Why there is no result: a fault of the engine's that this submission brought out; empty as a rule.
    """

    key: str
    result: dict[str, Any] = field(default_factory=dict)
    exercises: dict[str, KeptExercise] = field(default_factory=dict)
    judged: list[str] = field(default_factory=list)
    cell_oddities: list[str] = field(default_factory=list)
    notebook: str = ""
    written: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0
    exercise_seconds: dict[str, float] = field(default_factory=dict)
    failure: str = ""


class ZygoteDied(CourseError):
    """The jail's zygote ended while a submission was judged, whose result therefore counts for nothing."""


class Station:
    """A judge with its zygote, where one submission after the other is judged.

    Parameters
    ----------
    settings : Settings
        What to judge by.
    zygote : Zygote, optional
        A running jail for this assignment; one is started when not given.

    Raises
    ------
    CourseError
        When the jail cannot be started, or this checkout is another one than that of who sends the work.
    """

    def __init__(self, settings: Settings, zygote: Zygote | None = None) -> None:
        torch.set_num_threads(1)
        root = settings.root
        if not (root / "solutions" / settings.assignment).is_dir():  # another machine's
            root = find_root()
        # The zygote imports torch while this process does the same and loads the assignment.
        checks = root / "assignments" / settings.assignment / "checks.py"
        self._borrowed = zygote is not None
        self._zygote = zygote or Zygote(checks, settings.isolation, settings.limits)
        try:
            self._assignment = load_assignment(settings.assignment, root)
            if settings.checkout and Fingerprints(self._assignment).checkout != settings.checkout:
                raise CourseError(
                    f"The worker on {platform.node()} has another engine, assignment, Python, torch or numpy than "
                    "this machine; install the same commit with the same versions there."
                )
            self._judge = Judge(self._assignment, self._zygote, limits=settings.time_limits)
            self._zygote.wait()
        except BaseException:
            self.close()
            raise
        self._released = nbformat.reads(settings.released.decode(), as_version=4) if settings.released else None

    def judge(self, work: Work) -> Outcome:
        """Judge one submission.

        Raises
        ------
        ZygoteDied
            When the zygote ended meanwhile; this station is of no more use then.
        CourseError
            When nothing can be judged here.
        """
        deaths = self._zygote.deaths
        try:
            outcome = self._outcome(work)
        except CourseError as error:
            if self._zygote.deaths > deaths:
                raise ZygoteDied(str(error)) from error
            raise
        except Exception as error:
            log.exception("%s could not be judged", work.key or "This submission")
            outcome = Outcome(work.key, failure=f"{type(error).__name__}: {error}")
        if self._zygote.deaths > deaths or not self._zygote.alive:
            raise ZygoteDied("The jail's zygote died.")
        return outcome

    def _outcome(self, work: Work) -> Outcome:
        submission = self._read(work)
        judged = self._judge.judge(
            submission, work.reference_first, work.affected_only, secret=work.secret, kept=work.kept
        )
        if judged.kept and not judged.ran:
            judged.cell_oddities = list(work.cell_oddities)
        result = judged.to_json()
        made = Outcome(
            work.key,
            result,
            judged.plain(),
            list(judged.exercises),
            judged.cell_oddities,
            seconds=judged.seconds,
            exercise_seconds={n: sum(c.seconds for c in e.result.criteria) for n, e in judged.exercises.items()},
        )
        if self._released is None:
            return made
        tables = {name: exercise_html(e.result) for name, e in judged.exercises.items()}
        notebook = rebuild(self._released, submission, result, tables)
        for cell in notebook.cells:
            role, name = (cell.metadata.get("course", {}).get(k) for k in ("role", "name"))
            if role == "check" and name in judged.kept:
                cell.outputs = work.kept_outputs[name]
        return dataclasses.replace(made, notebook=nbformat.writes(notebook), written=answered(notebook))

    def _read(self, work: Work) -> Submission:
        assignment = self._assignment
        if work.unreadable:
            return Submission(oddities=[work.unreadable])
        if work.program:
            return read_program(work.data.decode(), assignment.exercises, work.program)
        return read_notebook_bytes(work.data, assignment.exercises, assignment.experiments)

    def close(self) -> None:
        """End the zygote, where it is this station's own."""
        if not self._borrowed:
            self._zygote.close()

    def __enter__(self) -> Station:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def submission_secret(secret: str, data: bytes) -> str:
    """A submission's own secret: the same for the same file, and not to be foreseen without the course's."""
    return hashlib.sha256(secret.encode() + b"\n" + data).hexdigest()


def judge_here(settings: Settings, work: Work) -> Outcome:
    """Judge one submission in this process."""
    with Station(settings) as station:
        return station.judge(work)


def serve(connection: Connection) -> None:
    """Judge what comes over a connection: pickled settings first, then pickled work; each has its reply."""
    try:
        settings = pickle.loads(connection.recv_bytes())
        with Station(settings) as station:
            connection.send(("ready", b""))
            while connection.poll(IDLE_SECONDS):
                work = pickle.loads(connection.recv_bytes())
                outcome = station.judge(work)
                connection.send(("outcome", pickle.dumps(outcome)))
    except ZygoteDied:
        return  # whoever sent the work sees this process end, and sends it again to another
    except CourseError as error:
        connection.send(("refused", str(error).encode()))
    except (EOFError, ConnectionError):
        return


def main() -> None:
    """Serve on the inherited descriptor that the first argument names, for the parent that the second names."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    die_with_parent()
    if os.getppid() == int(sys.argv[2]):  # else it was gone before this process could ask
        serve(Connection(int(sys.argv[1])))
