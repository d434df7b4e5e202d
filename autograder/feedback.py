"""Make every student's feedback page, in parallel."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from nbgrader.api import (
    BaseCell,
    Comment,
    Grade,
    GradeCell,
    MissingEntry,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from autograder.cores import usable_cores
from autograder.course import Course
from autograder.errors import CourseError
from autograder.feedback_page import CellMark, Marks, make_page, page_state
from autograder.gradebook import open_gradebook

ENOUGH = 8  # pages that are worth a process, which loads its libraries first
NO_SENTENCES: Mapping[str, Iterable[str]] = {}


def make_feedback(
    course: Course,
    assignment: str,
    *,
    title: str = "",
    sentences: Mapping[str, Iterable[str]] = NO_SENTENCES,
    force: bool = False,
    workers: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Make the feedback pages of an assignment.

    A page is made again where the notebook, a mark or a comment changed since.

    Parameters
    ----------
    course : Course
        The course folder.
    assignment : str
        Name of the assignment.
    title : str
        Of the course, as pages show it.
    sentences : mapping of str to iterable of str
        By student what to say of the mark as a whole.
    force : bool
        Make also the pages that are up to date.
    workers : int, optional
        Worker processes; as many as there are cores when not given.
    progress : callable
        Called after each page.

    Returns
    -------
    list of Path
        All pages of the assignment, sorted by student.

    Raises
    ------
    CourseError
        When nothing is graded yet.
    """
    graded = sorted((course.folder / "autograded").glob(f"*/{assignment}/{assignment}.ipynb"))
    if not graded:
        raise CourseError(f"Nothing of {assignment} is graded in {course.folder}; run `autograder grade` first.")
    known = _marks(course, assignment, title, sentences)
    pages, waiting = [], []
    for notebook in graded:
        student = notebook.parts[-3]
        page = course.folder / "feedback" / student / assignment / f"{assignment}.html"
        marks = known.get(student, Marks(title))
        pages.append(page)
        if force or page_state(page) != marks.state(notebook):
            waiting.append((notebook, page, student, marks))
        else:
            progress()
    workers = min(workers or usable_cores(), len(waiting) // ENOUGH)
    if workers <= 1:
        for work in waiting:
            make_page(*work)
            progress()
        return pages
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(make_page, *work) for work in waiting]
        for future in as_completed(futures):
            future.result()
            progress()
    return pages


def _marks(course: Course, assignment: str, title: str, sentences: Mapping[str, Iterable[str]]) -> dict[str, Marks]:
    """What the gradebook has of every student, in three queries."""
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        try:
            key = gradebook.find_assignment(assignment).id
        except MissingEntry:
            raise CourseError(f"The gradebook does not know the assignment {assignment}.") from None
        db = gradebook.db
        names = {
            i: " ".join(filter(None, (first, last)))
            for i, first, last in db.execute(select(Student.id, Student.first_name, Student.last_name))
        }
        cells: dict[str, list[CellMark]] = {}
        columns = Grade.auto_score, Grade.manual_score, Grade.extra_credit, Grade.needs_manual_grade
        most = {i: points for i, points in db.execute(select(GradeCell.id, GradeCell.max_score))}
        for student, name, cell, auto, manual, extra, asks in _of_cells(db, Grade, key, BaseCell.id, *columns):
            given = auto if manual is None else manual
            points = (given or 0.0) + (extra or 0.0)
            mark = CellMark(name, points, most.get(cell) or 0.0, manual is not None, asks)
            cells.setdefault(student, []).append(mark)
        comments: dict[str, dict[str, str]] = {}
        persons: dict[str, set[str]] = {}
        for student, name, auto, manual in _of_cells(db, Comment, key, Comment.auto_comment, Comment.manual_comment):
            if manual:
                persons.setdefault(student, set()).add(name)
            if manual or auto:
                comments.setdefault(student, {})[name] = manual or auto
        db.rollback()
    return {
        s: Marks(
            title,
            names.get(s, ""),
            tuple(sorted(cells[s], key=lambda m: m.name)),
            dict(sorted(comments.get(s, {}).items())),
            frozenset(persons.get(s, ())),
            tuple(sentences.get(s, ())),
        )
        for s in cells
    }


def _of_cells(db: Session, table: type, assignment: str, *columns: object) -> Iterable[tuple]:  # type: ignore[type-arg]
    """Student, cell's name, and columns of every grade or comment of an assignment."""
    submission, notebook, cell = (t.__table__ for t in (SubmittedAssignment, SubmittedNotebook, BaseCell))
    query = (
        select(submission.c.student_id, cell.c.name, *columns)  # type: ignore[call-overload]
        .select_from(submission)
        .join(notebook, notebook.c.assignment_id == submission.c.id)
        .join(table.__table__, table.notebook_id == notebook.c.id)  # type: ignore[attr-defined]
        .join(cell, cell.c.id == table.cell_id)  # type: ignore[attr-defined]
        .where(submission.c.assignment_id == assignment)
    )
    return db.execute(query).all()
