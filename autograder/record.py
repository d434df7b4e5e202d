"""Write results into nbgrader's gradebook: the engine's columns only, never a person's."""

from __future__ import annotations

import hashlib
import html
import re
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import uuid4

from nbgrader.api import (
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.utils import compute_checksum, parse_utc
from sqlalchemy import insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from autograder.errors import CourseError


class Recorder:
    """Writes the results of one assignment, many at a time.

    nbgrader's own functions ask and commit for every cell; this asks for all cells of all waiting students at once and
    commits once.  The rows are the same.

    Parameters
    ----------
    gradebook : Gradebook
        An open gradebook that knows the assignment.
    assignment : str
        Its name.

    Raises
    ------
    CourseError
        When the gradebook does not know the assignment.
    """

    def __init__(self, gradebook: Gradebook, assignment: str) -> None:
        self._db = gradebook.db
        self._waiting: dict[str, _Entry] = {}
        try:
            found = gradebook.find_assignment(assignment)
        except MissingEntry:
            raise CourseError(
                f"The gradebook does not know the assignment {assignment}; "
                "run `autograder build` for this course again."
            ) from None
        self._assignment: str = found.id
        self._graded: list[_Cell] = []
        self._commented: list[_Cell] = []
        self._notebooks: list[str] = []
        for notebook in found.notebooks:
            self._notebooks.append(notebook.id)
            tasks = [_Cell(notebook.id, c.id, c.name) for c in notebook.task_cells]
            self._graded += [_Cell(notebook.id, c.id, c.name) for c in notebook.grade_cells] + tasks
            self._commented += [_Cell(notebook.id, c.id, c.name) for c in notebook.solution_cells] + tasks
        self._db.rollback()  # ends the transaction that reading began

    def add(
        self,
        student: str,
        result: dict[str, Any],
        written: dict[str, bool],
        timestamp: str | None = None,
        new_work: bool = True,
    ) -> None:
        """Put one submission's marks among those that the next `flush` writes.

        Parameters
        ----------
        student : str
            Whose marks these are.
        result : dict
            The judged submission as plain data (`autograder.result`).
        written : dict
            For each question answered in words whether there is an answer; without one it gets 0 points.
        timestamp : str, optional
            When the submission was handed in, as in nbgrader's timestamp.txt; text that is no time is passed over.
        new_work : bool
            Whether the submission is another one than that which a person may have marked.
        """
        self._waiting[student] = _Entry(*self._columns(result, written), _time(timestamp), new_work)

    @property
    def waiting(self) -> int:
        """How many submissions wait to be written."""
        return len(self._waiting)

    def flush(self) -> None:
        """Write what waits, in one transaction.

        Raises
        ------
        CourseError
            When the gradebook cannot be written.
        """
        if not self._waiting:
            return
        try:
            self._write(self._waiting)
            self._db.commit()
        except SQLAlchemyError as error:
            self._db.rollback()
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise CourseError(
                f"The gradebook could not be written ({reason}); run the same command again to go on."
            ) from error
        except BaseException:
            self._db.rollback()
            raise
        self._waiting = {}

    def recorded(self) -> dict[str, Recorded]:
        """What the gradebook holds in the engine's columns, by student, as `expected` gives it."""
        held: dict[str, dict[str, str]] = {"grade": {}, "comment": {}}
        submission = SubmittedAssignment.__table__.c
        lines = (
            (Grade.auto_score, Grade.cell_id, Grade.notebook_id, "grade"),
            (Comment.auto_comment, Comment.cell_id, Comment.notebook_id, "comment"),
        )
        for value, cell, notebook, kind in lines:
            query = (
                select(submission.student_id, BaseCell.__table__.c.name, value)
                .select_from(SubmittedAssignment.__table__)
                .join(SubmittedNotebook.__table__, SubmittedNotebook.__table__.c.assignment_id == submission.id)
                .join(value.class_.__table__, notebook == SubmittedNotebook.__table__.c.id)
                .join(BaseCell.__table__, BaseCell.__table__.c.id == cell)
                .where(submission.assignment_id == self._assignment)
                .order_by(submission.student_id)
            )
            rows = self._db.execute(query.execution_options(yield_per=1000))
            for student, of_student in groupby(rows, key=itemgetter(0)):
                held[kind][student] = _digest(kind, {name: value for _, name, value in of_student})
        times = self._db.execute(
            select(submission.student_id, submission.timestamp).where(submission.assignment_id == self._assignment)
        )
        made = {
            student: Recorded("".join(held[kind].get(student) or _digest(kind, {}) for kind in held), time)
            for student, time in times
        }
        self._db.rollback()
        return made

    def expected(self, result: dict[str, Any], written: dict[str, bool], timestamp: str | None) -> Recorded:
        """What `recorded` gives once this result is recorded; no time where none is known."""
        scores, remarks = self._columns(result, written)
        return Recorded(_digest("grade", scores) + _digest("comment", remarks), _time(timestamp))

    def students(self) -> set[str]:
        """All students that the gradebook knows."""
        known = {s for (s,) in self._db.execute(select(Student.id))}
        self._db.rollback()
        return known

    def _columns(
        self, result: dict[str, Any], written: dict[str, bool]
    ) -> tuple[dict[str, float | None], dict[str, str | None]]:
        scores = {c.name: auto_score(c.name, result, written) for c in self._graded}
        return scores, {c.name: remark(c.name, result, written) for c in self._commented}

    def _write(self, entries: dict[str, _Entry]) -> None:
        students = list(entries)
        known = {s for (s,) in self._db.execute(select(Student.id).where(Student.id.in_(students)))}
        new = [{"id": s} for s in students if s not in known]
        if new:
            self._db.execute(insert(Student), new)
        query = select(SubmittedAssignment.id, SubmittedAssignment.student_id, SubmittedAssignment.timestamp).where(
            SubmittedAssignment.assignment_id == self._assignment, SubmittedAssignment.student_id.in_(students)
        )
        old = {row.student_id: row for row in self._db.execute(query)}
        times = [
            {"id": row.id, "timestamp": entries[s].time}
            for s, row in old.items()
            if entries[s].time not in (None, row.timestamp)
        ]
        if times:
            self._db.execute(update(SubmittedAssignment), times)
        self._insert({s: e for s, e in entries.items() if s not in old})
        if old:
            self._update({row.id: entries[s] for s, row in old.items()})

    def _insert(self, entries: dict[str, _Entry]) -> None:
        rows: dict[Any, list[dict[str, Any]]] = {SubmittedAssignment: [], SubmittedNotebook: [], Grade: [], Comment: []}
        for student, entry in entries.items():
            submission = uuid4().hex
            when = {"id": submission, "assignment_id": self._assignment, "student_id": student, "timestamp": entry.time}
            rows[SubmittedAssignment].append(when)
            notebooks = {n: uuid4().hex for n in self._notebooks}
            for original, own in notebooks.items():
                rows[SubmittedNotebook].append({"id": own, "notebook_id": original, "assignment_id": submission})
            for cell in self._graded:
                auto = entry.scores[cell.name]
                place = {"cell_id": cell.id, "notebook_id": notebooks[cell.notebook]}
                rows[Grade].append({**place, "auto_score": auto, "needs_manual_grade": auto is None})
            for cell in self._commented:
                place = {"cell_id": cell.id, "notebook_id": notebooks[cell.notebook]}
                rows[Comment].append({**place, "auto_comment": entry.remarks[cell.name]})
        for table, made in rows.items():
            if made:
                self._db.execute(insert(table), made)

    def _update(self, entries: dict[str, _Entry]) -> None:
        notebook, cell = SubmittedNotebook.__table__, BaseCell.__table__

        def rows(table: Any, *columns: Any) -> Any:
            query = (
                select(notebook.c.assignment_id, cell.c.name, table.id, *columns)
                .select_from(table.__table__)
                .join(notebook, table.notebook_id == notebook.c.id)
                .join(cell, table.cell_id == cell.c.id)
                .where(notebook.c.assignment_id.in_(list(entries)))
            )
            return self._db.execute(query)

        grades = []
        for submission, name, own, before, manual, needs in rows(
            Grade, Grade.auto_score, Grade.manual_score, Grade.needs_manual_grade
        ):
            entry = entries[submission]
            auto = entry.scores.get(name)
            # A person's mark stands, and asks for a look when what it was based on may have changed.
            asks = manual is not None or auto is None if entry.new_work or auto != before else needs
            if (auto, asks) != (before, needs):
                grades.append({"id": own, "auto_score": auto, "needs_manual_grade": asks})
        comments = [
            {"id": own, "auto_comment": entries[submission].remarks.get(name)}
            for submission, name, own, before in rows(Comment, Comment.auto_comment)
            if entries[submission].remarks.get(name) != before
        ]
        if grades:
            self._db.execute(update(Grade), grades)
        if comments:
            self._db.execute(update(Comment), comments)


@dataclass(frozen=True)
class Recorded:
    """What is recorded of one submission, or should be.

    Attributes
    ----------
    digest : str
        Of the engine's marks and comments.
    time : datetime, optional
        When it was handed in.
    """

    digest: str
    time: datetime | None

    def holds(self, other: Recorded) -> bool:
        """Whether recording the other one would change nothing."""
        return self.digest == other.digest and other.time in (None, self.time)


@dataclass(frozen=True)
class _Cell:
    notebook: str
    id: str
    name: str


@dataclass(frozen=True)
class _Entry:
    scores: dict[str, float | None]
    remarks: dict[str, str | None]
    time: datetime | None
    new_work: bool


def _digest(kind: str, values: dict[str, Any]) -> str:
    text = "\n".join(f"{kind} {name} {values[name]!r}" for name in sorted(values))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def record(
    gradebook: Gradebook,
    assignment: str,
    student: str,
    result: dict[str, Any],
    written: dict[str, bool],
    timestamp: str | None = None,
) -> None:
    """Record one submission's marks in one transaction; see `Recorder`."""
    recorder = Recorder(gradebook, assignment)
    recorder.add(student, result, written, timestamp)
    recorder.flush()


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
