"""Final marks: points after the late policy, the grade after the bonus rule, and the numbers they are made of.

What a person set in formgrader stands.  Every mark comes with its lines, whose points add up to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nbgrader.api import BaseCell, Grade, Gradebook, Student, SubmittedAssignment, SubmittedNotebook
from sqlalchemy import select

from autograder.assignment import Assignment
from autograder.collect import days_late, read_collected
from autograder.course import Course
from autograder.course_settings import CourseSettings
from autograder.errors import CourseError
from autograder.result_files import ResultFiles

CLOSE = 1e-9  # points, and shares of points: sums of the same numbers in another order


@dataclass(frozen=True)
class Line:
    """One number that a mark is made of.

    Attributes
    ----------
    exercise, item : str
        Of which exercise or question, and what of it: a criterion's name, or "" for the whole.
    kind : str
        "criterion", "exercise", "written answer", "person" (what a person's mark adds to or takes from the criteria),
        "extra credit", or "late".
    counts_as : str
        "points" or "bonus".
    points, max_points : float
        Earned, and to be earned.
    message : str
        What went wrong, or what a person should know.
    """

    exercise: str
    item: str
    kind: str
    counts_as: str
    points: float
    max_points: float
    message: str = ""


@dataclass
class Mark:
    """One student's mark for one assignment.

    Attributes
    ----------
    student, assignment : str
        Whose, for what.
    max_points : float
        Of exercises and written answers, without bonus.
    lines : list of Line
        What it is made of.
    days_late : int
        Days begun after the deadline.
    open : list of str
        What a person has to mark, or to look at again.
    passed : bool
        Whether the points suffice.
    grade_without_bonus, grade : str
        Before and after the bonus rule.
    """

    student: str
    assignment: str
    max_points: float
    lines: list[Line] = field(default_factory=list)
    days_late: int = 0
    open: list[str] = field(default_factory=list)
    passed: bool = False
    grade_without_bonus: str = ""
    grade: str = ""

    def sum(self, counts_as: str) -> float:
        """The sum of the lines that count as points or as bonus."""
        return sum(line.points for line in self.lines if line.counts_as == counts_as)

    @property
    def points(self) -> float:
        """Points after the late policy, without bonus."""
        return self.sum("points")

    @property
    def bonus(self) -> float:
        """Bonus points that count."""
        return self.sum("bonus")

    def sentences(self) -> list[str]:
        """What to tell the student of the mark as a whole."""
        told = [line.message for line in self.lines if line.kind == "late"]
        if self.open:
            return told
        lifted = (
            f", lifted from {self.grade_without_bonus} by the bonus" if self.grade != self.grade_without_bonus else ""
        )
        return [*told, f"Grade {self.grade}{lifted}."]


@dataclass(frozen=True)
class Total:
    """One student's marks of several assignments together."""

    points: float
    max_points: float
    bonus: float
    grade: str
    open: list[str]


def final_marks(
    assignment: Assignment, course: Course, settings: CourseSettings, gradebook: Gradebook
) -> dict[str, Mark]:
    """The final marks of an assignment by student, sorted; of those who handed in.

    Parameters
    ----------
    assignment : Assignment
        Which.
    course : Course
        Where the results and what was collected are.
    settings : CourseSettings
        Late policy, grades and bonus rule.
    gradebook : Gradebook
        Open.

    Raises
    ------
    CourseError
        When the gradebook and the results differ, as after a run that was killed.
    """
    cells = _cells(gradebook, assignment.name)
    collected = read_collected(course.folder, assignment.name)
    results = ResultFiles(course.folder, assignment.name)
    marks = {}
    for student in sorted(cells):
        mark = Mark(student, assignment.name, assignment.max_score + assignment.max_written)
        stored = results.read(student)
        for cell in cells[student]:
            exercise = cell.name.removeprefix("check-")
            if cell.name.startswith("check-") and exercise in assignment.exercises:
                judged = stored.result["exercises"].get(exercise) if stored else None
                _add_exercise(mark, exercise, cell, judged, assignment)
            else:
                _add_written(mark, cell, assignment)
        if student in collected:
            mark.days_late = days_late(collected[student], assignment.name, settings)
        elif assignment.name in settings.deadlines and (time := cells[student][0].time) is not None:
            due = settings.deadlines[assignment.name].astimezone(UTC).replace(tzinfo=None)
            mark.days_late = settings.late.days(time - due)
        _apply_late_policy(mark, settings)
        needed = settings.points_to_pass.get(assignment.name)
        lowest = next(iter(settings.grades.values())) / 100 * mark.max_points
        mark.passed = mark.points >= (lowest if needed is None else needed) - CLOSE
        mark.grade_without_bonus = grade_of(settings, mark.points, mark.max_points, 0.0, mark.passed)
        mark.grade = grade_of(settings, mark.points, mark.max_points, mark.bonus, mark.passed)
        marks[student] = mark
    return marks


def grade_of(settings: CourseSettings, points: float, max_points: float, bonus: float, passed: bool) -> str:
    """The grade that points give; bonus points lift it by no more than the rule's steps, and only if it passes."""
    if not passed:
        return settings.failing_grade
    names, percentages = list(settings.grades), list(settings.grades.values())

    def step(earned: float) -> int:
        share = 100 * earned / max_points if max_points else 100.0
        return max(0, sum(share >= p - CLOSE for p in percentages) - 1)

    return names[min(step(points + bonus), step(points) + settings.bonus.steps_at_most)]


def total(marks: Iterable[Mark | None], max_points: float, settings: CourseSettings) -> Total:
    """The marks of one student together: passed where every assignment is, graded by all points.

    Parameters
    ----------
    marks : iterable of Mark or None
        One an assignment; None where nothing was handed in.
    max_points : float
        Of all assignments.
    settings : CourseSettings
        Grades and bonus rule.
    """
    marks = list(marks)
    handed_in = [m for m in marks if m is not None]
    points, bonus = sum(m.points for m in handed_in), sum(m.bonus for m in handed_in)
    passed = len(handed_in) == len(marks) and all(m.passed for m in handed_in)
    grade = grade_of(settings, points, max_points, bonus, passed)
    return Total(points, max_points, bonus, grade, [f"{m.assignment}: {o}" for m in handed_in for o in m.open])


@dataclass(frozen=True)
class _Cell:
    name: str
    auto: float | None
    manual: float | None
    extra: float | None
    asks: bool
    time: datetime | None


def _cells(gradebook: Gradebook, assignment: str) -> dict[str, list[_Cell]]:
    """The grade cells of every submission by student, in one query."""
    submission, notebook, cell = (t.__table__ for t in (SubmittedAssignment, SubmittedNotebook, BaseCell))
    known = gradebook.find_assignment(assignment)
    query = (
        select(
            submission.c.student_id,
            cell.c.name,
            Grade.auto_score,
            Grade.manual_score,
            Grade.extra_credit,
            Grade.needs_manual_grade,
            submission.c.timestamp,
        )
        .select_from(submission)
        .join(notebook, notebook.c.assignment_id == submission.c.id)
        .join(Grade.__table__, Grade.notebook_id == notebook.c.id)
        .join(cell, cell.c.id == Grade.cell_id)
        .where(submission.c.assignment_id == known.id)
        .order_by(submission.c.student_id)
    )
    found: dict[str, list[_Cell]] = {}
    for student, *values in gradebook.db.execute(query):
        found.setdefault(student, []).append(_Cell(*values))
    gradebook.db.rollback()
    return found


def students_of(gradebook: Gradebook) -> dict[str, str]:
    """The names of all students that the gradebook knows, by id."""
    students = Student.__table__.c
    rows = gradebook.db.execute(select(students.id, students.first_name, students.last_name)).all()
    gradebook.db.rollback()
    return {i: " ".join(filter(None, (first, last))) for i, first, last in sorted(rows)}


def _add_exercise(
    mark: Mark, exercise: str, cell: _Cell, judged: dict[str, Any] | None, assignment: Assignment
) -> None:
    known = assignment.exercises[exercise]
    counts_as = "bonus" if known.bonus else "points"
    auto = cell.auto or 0.0
    if judged is None:  # by nbgrader's own autograde, which keeps no criteria
        mark.lines.append(Line(exercise, "", "exercise", counts_as, auto, known.max_score))
    else:
        if abs(judged["score"] - auto) > CLOSE:
            raise CourseError(
                f"{mark.student}, {exercise}: the gradebook has {auto:g} points and the result {judged['score']:g}; "
                f"run `autograder grade {mark.assignment}` again."
            )
        for c in judged["criteria"]:
            points = c["points"] if c["passed"] else 0.0
            mark.lines.append(
                Line(exercise, c["name"], "criterion", counts_as, points, c["points"], c["message"] or "")
            )
    if cell.manual is not None:
        mark.lines.append(
            Line(exercise, "", "person", counts_as, cell.manual - auto, 0.0, f"A person gave {cell.manual:g} points.")
        )
    _add_extra(mark, exercise, counts_as, cell)
    if cell.asks:
        mark.open.append(exercise)


def _add_written(mark: Mark, cell: _Cell, assignment: Assignment) -> None:
    known = assignment.written.get(cell.name)
    given = cell.auto if cell.manual is None else cell.manual
    said = "" if cell.manual is not None else "No answer." if cell.auto is not None else "Not marked yet."
    most = (known.points or 0.0) if known else 0.0
    mark.lines.append(Line(cell.name, "", "written answer", "points", given or 0.0, most, said))
    _add_extra(mark, cell.name, "points", cell)
    if cell.asks:
        mark.open.append(cell.name)


def _add_extra(mark: Mark, exercise: str, counts_as: str, cell: _Cell) -> None:
    if cell.extra:
        mark.lines.append(Line(exercise, "", "extra credit", counts_as, cell.extra, 0.0, "Given by a person."))


def _apply_late_policy(mark: Mark, settings: CourseSettings) -> None:
    if not mark.days_late:
        return
    days = f"{mark.days_late} day{'s' * (mark.days_late > 1)} late"
    kept = settings.late.kept(mark.days_late)
    for counts_as, share in (("points", kept), ("bonus", kept if settings.bonus.when_late else 0.0)):
        earned = mark.sum(counts_as)
        if earned and share < 1:
            text = f"{days}: {100 * share:.3g} % of {earned:.10g} {counts_as} count."
            mark.lines.append(Line("", "", "late", counts_as, earned * (share - 1), 0.0, text))
