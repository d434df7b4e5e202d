"""Grade the submissions of a course folder: judge in parallel, record in batches, go on where a run stopped."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import nbformat
from nbformat import NotebookNode

from autograder.assignment import Assignment
from autograder.atomic_write import atomic_write
from autograder.cores import usable_cores
from autograder.errors import CourseError
from autograder.fingerprint import Fingerprints, digest
from autograder.gradebook import open_gradebook
from autograder.judging import Outcome, Settings, Work, submission_secret
from autograder.record import Recorded, Recorder
from autograder.result import KeptExercise
from autograder.result_files import ResultFiles, StoredResult
from autograder.submission import Unreadable, file_bytes
from autograder.workers import judge_all

FLUSH_SECONDS = 1.0  # between two transactions at least
FLUSH_MANY = 100  # submissions in one transaction at most


@dataclass
class Graded:
    """What a grading run did.

    Attributes
    ----------
    results : ResultFiles
        The result of every submission by student, as plain data; those of earlier runs too.
    judged : list of str
        The students whose submissions were judged in this run; the others were unchanged.
    missing : list of str
        Students known to the gradebook without a submission.
    failed : dict
        Why a submission could not be judged, by student; its marks are as they were.
    exercises_judged : dict
        For each of `judged` the exercises that were judged; the others' results were kept.
    """

    results: ResultFiles
    judged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    exercises_judged: dict[str, list[str]] = field(default_factory=dict)


def grade(
    assignment: Assignment,
    course: Path,
    settings: Settings,
    db_url: str,
    *,
    course_id: str = "",
    students: Iterable[str] = (),
    force: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    started: Callable[[int], None] = lambda total: None,
    progress: Callable[[], None] = lambda: None,
) -> Graded:
    """Judge the submissions in ``course/submitted`` and record their marks.

    What is judged is written at once, notebook first and then the result's file, and reaches the gradebook within a
    second or so, many students in one transaction.  A run that is killed at any point is completed by the next one:
    it judges what has no result file that fits, and records what the gradebook does not hold.

    Parameters
    ----------
    assignment : Assignment
        What to grade.
    course : Path
        nbgrader's course folder.
    settings : Settings
        Secret, isolation and limits.
    db_url, course_id : str
        nbgrader's gradebook.
    students : iterable of str
        Only these; all who handed in when empty.
    force : bool
        Judge also what is unchanged.
    workers : int, optional
        Worker processes.
    scheduler : str, optional
        Address of a Dask scheduler whose workers judge instead of local processes.
    started, progress : callable
        Told how many submissions there are to judge, and after each one.

    Raises
    ------
    CourseError
        When the course folder or the gradebook is not as it should be, or another run is at work.
    """
    students = set(students)
    found = submissions_of(course, assignment.name)
    unknown = sorted(students - set(found))
    if unknown:
        raise CourseError(f"{', '.join(unknown)} handed in nothing for {assignment.name} in {course / 'submitted'}.")
    chosen = {s: p for s, p in found.items() if not students or s in students}
    files = ResultFiles(course, assignment.name)
    files.folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(files.folder / ".lock", timeout=0), open_gradebook(db_url, course_id) as gradebook:
            run = _Run(assignment, course, settings, files, Recorder(gradebook, assignment.name))
            waiting = [s for s, path in chosen.items() if run.is_waiting(s, path, force)]
            run.recorder.flush()
            started(len(waiting))
            works = (run.work(s, chosen[s], force) for s in waiting)
            try:
                if waiting:
                    enough = min(workers or usable_cores(), len(waiting))
                    for outcome in judge_all(run.settings, works, enough, scheduler):
                        run.take(outcome, chosen[outcome.key])
                        progress()
            finally:
                run.recorder.flush()
            run.graded.missing = sorted(run.recorder.students() - set(found))
    except filelock.Timeout:
        raise CourseError(f"Another run is grading {assignment.name} in {course}; wait until it has ended.") from None
    return run.graded


class _Run:
    """One grading run: decides what to judge, and takes what was judged."""

    def __init__(
        self, assignment: Assignment, course: Path, settings: Settings, files: ResultFiles, recorder: Recorder
    ) -> None:
        self.files = files
        self.recorder = recorder
        self.graded = Graded(files)
        self._assignment = assignment
        self._course = course
        self._prints = Fingerprints(assignment)
        released = nbformat.writes(released_notebook(assignment, course)).encode()
        self._released = digest(released)
        self.settings = dataclasses.replace(settings, released=released, checkout=self._prints.checkout)
        self._recorded = recorder.recorded()
        self._sent: dict[str, tuple[str, bool]] = {}
        self._flushed = time.monotonic()
        files.clean()

    def is_waiting(self, student: str, path: Path, force: bool) -> bool:
        """Whether a submission is to be judged; one that is not, but is not recorded either, will be."""
        base, stored = self._base(path)[0], self.files.read(student)
        if force or stored is None or not self._is_unchanged(student, stored, base):
            return True
        stamp = timestamp(path)
        expected = self.recorder.expected(stored.result, stored.written, stamp)
        if not self._recorded.get(student, NOTHING).holds(expected):
            self._record(student, stored, stamp)
        self.files.show(student)
        return False

    def work(self, student: str, path: Path, force: bool) -> Work:
        """What to send to a worker."""
        base, data, unreadable = self._base(path)
        stored = self.files.read(student)
        self._sent[student] = base, stored is None or stored.base != base
        secret = submission_secret(self.settings.secret, data)
        work = Work(student, data, secret, unreadable)
        if force or stored is None or stored.base != base:
            return work
        kept = self._kept(stored)
        outputs = self._check_outputs(student) if kept else {}
        if not set(kept) <= set(outputs):
            return work
        return dataclasses.replace(work, kept=kept, kept_outputs=outputs, cell_oddities=stored.cell_oddities)

    def take(self, outcome: Outcome, path: Path) -> None:
        """Write a judged submission: notebook, result, and now and then the gradebook."""
        student = outcome.key
        base, new_work = self._sent.pop(student)
        if outcome.failure:
            self.graded.failed[student] = outcome.failure
            if self.files.read(student) is not None:
                self.files.show(student)
            return
        prints = self._prints
        stand_ins = {e for kept in outcome.exercises.values() for e in kept.leaning.stand_ins}
        stored = StoredResult(
            result=outcome.result,
            exercises=outcome.exercises,
            base=base,
            exercise_prints={name: prints.exercises[name] for name in outcome.exercises},
            reference_prints={e: prints.references[e] for e in self._assignment.exercises if e in stand_ins},
            released=self._released,
            cell_oddities=outcome.cell_oddities,
            written=outcome.written,
            new_work=new_work,
            seconds=outcome.seconds,
            exercise_seconds=self._exercise_seconds(student, outcome),
        )
        self._write_notebook(student, outcome.notebook)
        self.files.write(student, stored)
        self._record(student, stored, timestamp(path))
        self.graded.judged.append(student)
        judged = set(outcome.judged)
        self.graded.exercises_judged[student] = [name for name in self._assignment.exercises if name in judged]

    def _exercise_seconds(self, student: str, outcome: Outcome) -> dict[str, float]:
        """The time of each exercise's criteria; of those that were kept, as it was."""
        before = self.files.read(student)
        known = (before.exercise_seconds if before else {}) | outcome.exercise_seconds
        return {name: known[name] for name in outcome.exercises if name in known}

    def _record(self, student: str, stored: StoredResult, stamp: str | None) -> None:
        self.recorder.add(student, stored.result, stored.written, stamp, stored.new_work)
        now = time.monotonic()
        if self.recorder.waiting >= FLUSH_MANY or now - self._flushed > FLUSH_SECONDS:
            self.recorder.flush()
            self._flushed = now

    def _base(self, path: Path) -> tuple[str, bytes, str]:
        """The fingerprint of a submission and of what all its exercises depend on, its bytes, or why there are none."""
        try:
            data, unreadable = file_bytes(path), ""
        except Unreadable as why:
            data, unreadable = b"", str(why)
        settings = self.settings
        secret = submission_secret(settings.secret, data)
        how = settings.isolation, settings.time_limits, settings.limits
        return digest(self._prints.shared, secret, *how, unreadable), data, unreadable

    def _kept(self, stored: StoredResult) -> dict[str, KeptExercise]:
        """The exercises whose results hold under the criteria as they are now."""
        prints = self._prints
        return {
            name: kept
            for name, kept in stored.exercises.items()
            if stored.exercise_prints.get(name) == prints.exercises.get(name)
            and all(stored.reference_prints.get(e) == prints.references.get(e) for e in kept.leaning.stand_ins)
        }

    def _is_unchanged(self, student: str, stored: StoredResult, base: str) -> bool:
        complete = len(self._kept(stored)) == len(self._assignment.exercises)
        there = self._notebook_path(student).is_file()
        return stored.base == base and stored.released == self._released and complete and there

    def _check_outputs(self, student: str) -> dict[str, list[Any]]:
        """What the checks of an earlier run showed, by exercise."""
        try:
            cells = nbformat.read(self._notebook_path(student), as_version=4).cells
            marked = [(c, c.metadata.get("course", {})) for c in cells]
            return {m["name"]: c.outputs for c, m in marked if m.get("role") == "check" and c.outputs}
        except (OSError, ValueError, KeyError, AttributeError):
            return {}

    def _notebook_path(self, student: str) -> Path:
        name = self._assignment.name
        return self._course / "autograded" / student / name / f"{name}.ipynb"

    def _write_notebook(self, student: str, notebook: str) -> None:
        path = self._notebook_path(student)
        for left in path.parent.glob(".*.????????"):  # by a run that was killed while it wrote
            left.unlink(missing_ok=True)
        atomic_write(path, notebook)
        stamp = self._course / "submitted" / student / self._assignment.name / "timestamp.txt"
        if stamp.is_file() and not stamp.is_symlink():
            atomic_write(path.parent / "timestamp.txt", stamp.read_text(errors="replace")[:60])


NOTHING = Recorded("", None)


def submissions_of(course: Path, assignment: str) -> dict[str, Path]:
    """The notebook of every student who handed in, by student, sorted.

    A student's folder may hold other files; a notebook of another name counts where it is the only one.
    """
    folder = course / "submitted"
    if not folder.is_dir():
        raise CourseError(f"There is no folder {folder}; `autograder collect` makes it from what students handed in.")
    found = {}
    for student in sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()):
        place = student / assignment
        if not place.is_dir() or place.is_symlink():
            continue
        notebooks = sorted(place.glob("*.ipynb"))
        named = place / f"{assignment}.ipynb"
        found[student.name] = notebooks[0] if not named.exists() and len(notebooks) == 1 else named
    return found


def released_notebook(assignment: Assignment, course: Path | None = None) -> NotebookNode:
    """The notebook as students got it: the course's release, else the assignment's."""
    places = [course / "release" / assignment.name / f"{assignment.name}.ipynb"] if course else []
    for path in [*places, assignment.notebook]:
        if path.is_file():
            return nbformat.read(path, as_version=4)
    raise CourseError(f"{assignment.notebook} is not there; run `autograder build {assignment.name}`.")


def timestamp(notebook: Path) -> str | None:
    """When a submission was handed in, as nbgrader's timestamp.txt beside it says."""
    path = notebook.parent / "timestamp.txt"
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_text(errors="replace").strip()[:60] or None
