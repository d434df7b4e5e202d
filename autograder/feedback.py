"""Make every student's feedback page, through nbgrader's own `generate_feedback`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from nbgrader.converters import GenerateFeedback
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from autograder.course import Course
from autograder.errors import CourseError

# nbgrader's page loads scripts from elsewhere for mathematics; a feedback page shows a student's work to others.
MATHJAX = "https://cdnjs.cloudflare.com"
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    f"style-src 'unsafe-inline' {MATHJAX}; font-src data: {MATHJAX}; script-src {MATHJAX} 'unsafe-eval'\">"
)


def make_feedback(
    course: Course, assignment: str, *, force: bool = False, progress: Callable[[], None] = lambda: None
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
    pages = []
    for notebook in graded:
        student = notebook.parts[-3]
        page = course.folder / "feedback" / student / assignment / f"{assignment}.html"
        if force or not page.is_file() or page.stat().st_mtime < notebook.stat().st_mtime:
            _convert(course, assignment, student)
            _restrict(page)
        pages.append(page)
        progress()
    return pages


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
