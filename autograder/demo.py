"""The demo: a class of simulated students from notebook to gradebook and feedback, with nothing downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autograder.assignment import Assignment
from autograder.atomic_write import atomic_write
from autograder.build import build
from autograder.collect import collect
from autograder.course import Course, create_course
from autograder.course_settings import read_settings
from autograder.feedback import make_feedback
from autograder.final_marks import final_marks
from autograder.grade import Graded, grade
from autograder.gradebook import open_gradebook
from autograder.judging import Settings
from autograder.report import make_report
from autograder.secret import course_secret
from autograder.simulated_class import SimulatedStudent, simulated_class
from autograder.summary import summary_csv


@dataclass
class Demo:
    """What the demo made.

    Attributes
    ----------
    course : Course
        nbgrader's course folder.
    students : list of SimulatedStudent
        The class.
    graded : Graded
        Their results.
    pages : list of Path
        Their feedback pages.
    table : Path
        The summary as CSV.
    report : Path
        The page on the class.
    """

    course: Course
    students: list[SimulatedStudent]
    graded: Graded
    pages: list[Path]
    table: Path
    report: Path


def run_demo(
    assignment: Assignment,
    folder: Path,
    *,
    size: int = 20,
    isolation: str = "bubblewrap",
    workers: int | None = None,
    step: Callable[[str, int], Callable[[], None]],
) -> Demo:
    """Build an assignment, make a class, and grade it.

    Parameters
    ----------
    assignment : Assignment
        What the class works on.
    folder : Path
        The course folder to make; running again goes on where it stopped.
    size : int
        Number of students.
    isolation : str
        "bubblewrap" or "none".
    workers : int, optional
        Worker processes.
    step : callable
        `step(title, total)` announces a part of the work and returns what to call after each piece of it.
    """
    advance = step("Building the notebook", 1)
    build(assignment)
    course = create_course(folder, [assignment], isolation=isolation)
    advance()
    students = simulated_class(assignment, size)
    advance = step("Students hand in", len(students))
    for student in students:
        handed_in = course.folder / "handed_in" / f"{student.name}.ipynb"
        if not handed_in.is_file() or handed_in.read_bytes() != student.notebook:
            atomic_write(handed_in, student.notebook)
        advance()
    collect([course.folder / "handed_in"], assignment.name, course.folder)
    settings = read_settings(assignment.root)
    limits, secret = settings.limits, course_secret(course.folder)
    how = Settings(assignment.name, assignment.root, secret, isolation, limits.time_limits(), limits.resources())
    bars: list[Callable[[], None]] = []
    graded = grade(
        assignment,
        course.folder,
        how,
        course.db_url,
        course_id=course.course_id,
        workers=workers,
        started=lambda total: bars.append(step("Judging in the jail", total)),
        progress=lambda: bars[0](),
    )
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        marks = final_marks(assignment, course, settings, gradebook)
    pages = make_feedback(
        course,
        assignment.name,
        title=settings.title,
        sentences={s: m.sentences() for s, m in marks.items()},
        progress=step("Writing feedback", len(graded.results)),
    )
    report = make_report(assignment, course, settings)
    table = course.folder / "summary.csv"
    atomic_write(table, summary_csv(graded.results))
    return Demo(course, students, graded, pages, table, report.page)
