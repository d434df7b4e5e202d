"""Write results into nbgrader's gradebook: the engine's columns only, never a person's."""

from __future__ import annotations

import html
import re
from datetime import datetime
from typing import Any

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.utils import compute_checksum, parse_utc

from autograder.errors import CourseError


def record(
    gradebook: Gradebook,
    assignment: str,
    student: str,
    result: dict[str, Any],
    written: dict[str, bool],
    timestamp: str | None = None,
) -> None:
    """Record one submission's marks in one transaction.

    Parameters
    ----------
    gradebook : Gradebook
        An open gradebook that knows the assignment.
    assignment, student : str
        Whose marks these are.
    result : dict
        The judged submission as plain data (`autograder.result`).
    written : dict
        For each question answered in words whether there is an answer; without one it gets 0 points.
    timestamp : str, optional
        When the submission was handed in, as in nbgrader's timestamp.txt; text that is no time is passed over.

    Raises
    ------
    CourseError
        When the gradebook does not know the assignment as it is now.
    """
    gradebook.update_or_create_student(student)
    try:
        time = _time(timestamp)
        when = {} if time is None else {"timestamp": time}
        submission = gradebook.update_or_create_submission(assignment, student, **when)
    except MissingEntry:
        raise CourseError(
            f"The gradebook does not know the assignment {assignment}; run `autograder build` for this course again."
        ) from None
    for notebook in submission.notebooks:
        for grade in notebook.grades:
            auto = auto_score(grade.name, result, written)
            grade.auto_score = auto
            # A person's mark stands, and asks for a look when what it was based on may have changed.
            grade.needs_manual_grade = grade.manual_score is not None or auto is None
        for comment in notebook.comments:
            comment.auto_comment = remark(comment.name, result, written)
    gradebook.db.commit()


def _time(text: str | None) -> datetime | None:
    """A time as nbgrader reads it; the file that says it may be the student's."""
    if text is None or not re.fullmatch(r"\d{4}-\d\d-\d\d[ T][\d:.]{5,15}( ?[A-Za-z0-9+-]+(/[A-Za-z_]+)*)?", text):
        return None
    try:
        return parse_utc(text)
    except (ValueError, OverflowError, TypeError):
        return None


def auto_score(cell: str, result: dict[str, Any], written: dict[str, bool]) -> float | None:
    """The engine's points for a grade cell; None where a person has to mark it."""
    exercise = result["exercises"].get(cell.removeprefix("check-"))
    if cell.startswith("check-") and exercise is not None:
        return float(exercise["score"])
    return None if written.get(cell) else 0.0


def remark(cell: str, result: dict[str, Any], written: dict[str, bool]) -> str | None:
    """The engine's comment on a solution cell; what nbgrader shows is rendered as Markdown, so it is escaped."""
    exercise = result["exercises"].get(cell)
    if exercise is not None:
        return " ".join(html.escape(d) for d in exercise["diagnosis"]) or None
    return None if written.get(cell) else "No response."


def answered(notebook: Any) -> dict[str, bool]:
    """For each question in words of a rebuilt notebook, whether its cell was changed since it was handed out."""
    found = {}
    for cell in notebook.cells:
        role, name = (cell.metadata.get("course", {}).get(k) for k in ("role", "name"))
        if role == "written":
            found[name] = cell.metadata.get("nbgrader", {}).get("checksum") != compute_checksum(cell)
    return found
