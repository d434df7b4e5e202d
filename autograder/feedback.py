"""Make every student's feedback page, through nbgrader's own `generate_feedback`."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from nbgrader.converters import GenerateFeedback
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from autograder.course import Course
from autograder.errors import CourseError
from autograder.workers import usable_cores

# nbgrader's page loads scripts from elsewhere for mathematics; a feedback page shows a student's work to others.
MATHJAX = "https://cdnjs.cloudflare.com"
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    f"style-src 'unsafe-inline' {MATHJAX}; font-src data: {MATHJAX}; script-src {MATHJAX} 'unsafe-eval'\">"
)


def make_feedback(
    course: Course,
    assignment: str,
    *,
    force: bool = False,
    workers: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Make the feedback pages of an assignment.

    Parameters
    ----------
    course : Course
        The course folder.
    assignment : str
        Name of the assignment.
    force : bool
        Make also the pages that are there and newer than what was graded.
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
        When nothing is graded yet, or nbgrader fails.
    """
    graded = sorted((course.folder / "autograded").glob(f"*/{assignment}/{assignment}.ipynb"))
    if not graded:
        raise CourseError(f"Nothing of {assignment} is graded in {course.folder}; run `autograder grade` first.")
    pages, waiting = [], []
    for notebook in graded:
        student = notebook.parts[-3]
        page = course.folder / "feedback" / student / assignment / f"{assignment}.html"
        pages.append(page)
        if force or not page.is_file() or page.stat().st_mtime < notebook.stat().st_mtime:
            waiting.append((student, page))
        else:
            progress()
    workers = min(workers or usable_cores(), len(waiting))
    if workers <= 1:
        for student, page in waiting:
            _make_page(course, assignment, student, page)
            progress()
        return pages
    # nbconvert takes seconds for a notebook of this size.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_make_page, course, assignment, student, page) for student, page in waiting]
        for future in as_completed(futures):
            future.result()
            progress()
    return pages


def _make_page(course: Course, assignment: str, student: str, page: Path) -> None:
    _convert(course, assignment, student)
    _restrict(page)


def _convert(course: Course, assignment: str, student: str) -> None:
    log = logging.Logger("nbgrader", logging.CRITICAL)
    config = Config()
    config.GenerateFeedback.force = True
    config.HTMLExporter.exclude_input_prompt = True
    directory = CourseDirectory(
        config=config, root=str(course.folder), db_url=course.db_url, course_id=course.course_id, log=log
    )
    directory.assignment_id, directory.student_id = assignment, student
    try:
        GenerateFeedback(coursedir=directory, config=config, force=True, log=log).start()
    except NbGraderException as error:
        raise CourseError(f"nbgrader made no feedback for {student}: {error}") from None


def _restrict(page: Path) -> None:
    """Let the page run no script but the one that sets mathematics."""
    text = page.read_text(encoding="utf-8")
    head = text.find("<head>")
    if head >= 0 and POLICY not in text:
        page.chmod(0o644)
        page.write_text(text[: head + 6] + POLICY + text[head + 6 :], encoding="utf-8")
