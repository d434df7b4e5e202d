"""Grade the submissions of a course folder: judge in parallel, record one by one, go on where a run stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

import autograder
import course_utils.checking
from autograder.assignment import Assignment
from autograder.atomic_write import atomic_write
from autograder.errors import CourseError
from autograder.gradebook import open_gradebook
from autograder.rebuild import rebuild
from autograder.record import answered, record
from autograder.submission import Submission, read_notebook
from autograder.workers import Outcome, Settings, judge_all

RESULTS = "results"  # folder of the course in which the results lie, one file a student


@dataclass
class Graded:
    """What a grading run did.

    Attributes
    ----------
    results : dict
        The result of every submission by student, as plain data; those of earlier runs too.
    judged : list of str
        The students whose submissions were judged in this run; the others were unchanged.
    missing : list of str
        Students known to the gradebook without a submission.
    failed : dict
        Why a submission could not be judged, by student; its marks are as they were.
    """

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    judged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


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
    started: Callable[[int], None] = lambda total: None,
    progress: Callable[[], None] = lambda: None,
) -> Graded:
    """Judge the submissions in ``course/submitted`` and record their marks.

    Each submission is recorded as soon as it is judged, notebook first, marks second, and last the file that says
    so; a run that is killed at any point is completed by the next one.

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
    started, progress : callable
        Told how many submissions there are to judge, and after each one.

    Raises
    ------
    CourseError
        When the course folder or the gradebook is not as it should be.
    """
    found = submissions_of(course, assignment.name)
    unknown = sorted(set(students) - set(found))
    if unknown:
        raise CourseError(f"{', '.join(unknown)} handed in nothing for {assignment.name} in {course / 'submitted'}.")
    chosen = {s: p for s, p in found.items() if not students or s in set(students)}
    released = released_notebook(assignment, course)
    criteria = criteria_fingerprint(assignment)
    graded, waiting = Graded(), []
    prints: dict[str, str] = {}
    submissions: dict[str, Submission] = {}
    for student, path in chosen.items():
        prints[student] = _fingerprint(path, criteria, settings)
        old = _read_result(course, assignment.name, student)
        if not force and old is not None and old["fingerprint"] == prints[student]:
            graded.results[student] = old["result"]
            continue
        submissions[student] = read_notebook(path, assignment.exercises, assignment.experiments)
        waiting.append((student, submissions[student]))
    started(len(waiting))
    with open_gradebook(db_url, course_id) as gradebook:
        for outcome in judge_all(settings, waiting, workers) if waiting else ():
            student = outcome.key
            if outcome.failure:
                graded.failed[student] = outcome.failure
                progress()
                continue
            notebook = rebuild(released, submissions.pop(student), outcome.result, outcome.tables)
            _write_autograded(course, assignment.name, student, notebook)
            stamp = timestamp(chosen[student])
            record(gradebook, assignment.name, student, outcome.result, answered(notebook), stamp)
            _write_result(course, assignment.name, outcome, prints[student])
            graded.results[student] = outcome.result
            graded.judged.append(student)
            progress()
        graded.missing = sorted({s.id for s in gradebook.students} - set(found))
    graded.results = dict(sorted(graded.results.items()))
    return graded


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


def criteria_fingerprint(assignment: Assignment) -> str:
    """Changes when anything changes that a mark or a message depends on."""
    digest = hashlib.sha256()
    engine = Path(autograder.__file__).parent
    files = [
        *sorted(Path(course_utils.checking.__file__).parent.rglob("*.py")),
        *sorted(engine.rglob("*.py")),
        assignment.folder / "checks.py",
        *sorted(assignment.solution_folder.glob("*.py")),
    ]
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def timestamp(notebook: Path) -> str | None:
    """When a submission was handed in, as nbgrader's timestamp.txt beside it says."""
    path = notebook.parent / "timestamp.txt"
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_text(errors="replace").strip()[:60] or None


def _fingerprint(path: Path, criteria: str, settings: Settings) -> str:
    digest = hashlib.sha256(f"{criteria}\n{settings.secret}\n{settings.isolation}\n{timestamp(path)}\n".encode())
    if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 28:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _result_path(course: Path, assignment: str, student: str) -> Path:
    return course / RESULTS / assignment / f"{student}.json"


def _read_result(course: Path, assignment: str, student: str) -> dict[str, Any] | None:
    try:
        stored = json.loads(_result_path(course, assignment, student).read_text())
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and {"fingerprint", "result"} <= stored.keys() else None


def _write_result(course: Path, assignment: str, outcome: Outcome, fingerprint: str) -> None:
    stored = {"fingerprint": fingerprint, "seconds": outcome.seconds, "result": outcome.result}
    path = _result_path(course, assignment, outcome.key)
    atomic_write(path, json.dumps(stored, indent=1, ensure_ascii=False))


def _write_autograded(course: Path, assignment: str, student: str, notebook: NotebookNode) -> None:
    folder = course / "autograded" / student / assignment
    atomic_write(folder / f"{assignment}.ipynb", nbformat.writes(notebook))
    stamp = course / "submitted" / student / assignment / "timestamp.txt"
    if stamp.is_file() and not stamp.is_symlink():
        atomic_write(folder / "timestamp.txt", stamp.read_text(errors="replace")[:60])
