"""Make every student's feedback page, in parallel."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from autograder.cores import usable_cores
from autograder.course import Course
from autograder.errors import CourseError
from autograder.feedback_page import make_page

ENOUGH = 8  # pages that are worth a process, which loads nbconvert first


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
            waiting.append(student)
        else:
            progress()
    how = course.folder, course.db_url, course.course_id, assignment
    workers = min(workers or usable_cores(), len(waiting) // ENOUGH)
    if workers <= 1:
        for student in waiting:
            make_page(*how, student)
            progress()
        return pages
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(make_page, *how, student) for student in waiting]
        for future in as_completed(futures):
            future.result()
            progress()
    return pages
