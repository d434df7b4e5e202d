"""Write final marks for Canvas, for Moodle or as a plain table, and beside it a line for each criterion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autograder.assignment import Assignment
from autograder.atomic_write import atomic_write
from autograder.course import Course
from autograder.course_settings import CourseSettings
from autograder.csv_table import csv_table
from autograder.errors import CourseError
from autograder.final_marks import Mark, final_marks, students_of, total
from autograder.gradebook import open_gradebook
from autograder.roster import Person, Roster

EXPORTED = "exported"  # folder of the course
TRACE = ("student", "assignment", "exercise", "item", "kind", "counts as", "points", "of", "message")
Rows = list[list[object]]


@dataclass
class Exported:
    """What was written.

    Attributes
    ----------
    table, trace : Path
        The marks, and the lines that they are made of.
    count : int
        Students in the table.
    open : dict of str to list of str
        What a person has to mark yet, by student.
    left_out : list of str
        Who is not in the table and why, a sentence each.
    """

    table: Path
    trace: Path
    count: int = 0
    open: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Class:
    """All marks: by assignment and student."""

    assignments: Sequence[Assignment]
    marks: dict[str, dict[str, Mark]]
    people: dict[str, Person]
    settings: CourseSettings

    def of(self, student: str) -> list[Mark | None]:
        """One student's marks, one an assignment."""
        return [self.marks[a.name].get(student) for a in self.assignments]

    def open(self, student: str) -> list[str]:
        """What of a student's work a person has to mark yet."""
        return [f"{m.assignment}: {o}" for m in self.of(student) if m is not None for o in m.open]


def export_marks(
    assignments: Sequence[Assignment],
    course: Course,
    settings: CourseSettings,
    to: str,
    *,
    roster: Roster | None = None,
    output: Path | None = None,
    provisional: bool = False,
) -> Exported:
    """Write the final marks of one or several assignments.

    Parameters
    ----------
    assignments : sequence of Assignment
        Which; several give a total and a grade of the course as well.
    course : Course
        Gradebook and results.
    settings : CourseSettings
        Late policy, grades and bonus rule.
    to : str
        "canvas" (its gradebook's import), "moodle" (the grading worksheet of one assignment) or "csv".
    roster : Roster, optional
        The students' numbers in Canvas and Moodle.
    output : Path, optional
        The table; course/exported/<assignment>_<to>.csv when not given.  The lines go beside it, as "…_trace.csv".
    provisional : bool
        For Canvas and Moodle, export also marks in which a person has something to mark yet, as if it earned nothing.

    Raises
    ------
    CourseError
        When the numbers that Canvas or Moodle need are not known, or gradebook and results differ.
    """
    writers: dict[str, Callable[[_Class, list[str], Exported], tuple[Sequence[str], Rows]]] = {
        "canvas": _canvas,
        "moodle": _moodle,
        "csv": _plain,
    }
    if to not in writers:
        raise CourseError(f"Marks are exported to one of {', '.join(writers)}, not to {to!r}.")
    if to == "moodle" and len(assignments) != 1:
        raise CourseError("Moodle's grading worksheet holds one assignment; name it.")
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        marks = {a.name: final_marks(a, course, settings, gradebook) for a in assignments}
        names = students_of(gradebook)
    people = {s: Person(s, name) for s, name in names.items()} | ({p.student: p for p in roster} if roster else {})
    of_class = _Class(assignments, marks, dict(sorted(people.items())), settings)
    stem = assignments[0].name if len(assignments) == 1 else "course"
    table = output or course.folder / EXPORTED / f"{stem}_{'marks' if to == 'csv' else to}.csv"
    done = Exported(table, table.with_name(f"{table.stem}_trace.csv"))
    done.open = {s: o for s in of_class.people if (o := of_class.open(s))}
    shown = []
    for student in of_class.people:
        if to != "csv" and student in done.open and not provisional:
            done.left_out.append(f"{student}: waits for a person ({', '.join(done.open[student])}).")
        else:
            shown.append(student)
    header, rows = writers[to](of_class, shown, done)
    done.count = len(rows) - (to == "canvas")  # its second line is the points possible
    if to != "csv" and done.count == 0 and of_class.people and not done.open:
        raise CourseError(
            f"None of the {len(of_class.people)} students has a number for {to.capitalize()}; give --roster the "
            f"{'exported gradebook of Canvas' if to == 'canvas' else 'grading worksheet of Moodle'}."
        )
    atomic_write(done.trace, csv_table(TRACE, _trace(of_class)))
    atomic_write(done.table, csv_table(header, rows))
    return done


def _trace(of_class: _Class) -> Rows:
    """A line for each number that a mark is made of; the points of a student's lines add up to the mark."""
    return [
        [s, a.name, x.exercise, x.item, x.kind, x.counts_as, x.points, x.max_points, x.message]
        for s in of_class.people
        for a in of_class.assignments
        if (mark := of_class.marks[a.name].get(s)) is not None
        for x in mark.lines
    ]


def _plain(of_class: _Class, students: list[str], done: Exported) -> tuple[Sequence[str], Rows]:
    of_one = ("points", "of", "bonus", "days late", "grade without bonus", "grade")
    several = len(of_class.assignments) > 1
    header = ["student", "name", "email", *(f"{a.name} {c}" for a in of_class.assignments for c in of_one)]
    rows: Rows = []
    most = _max_points(of_class)
    for student in students:
        person, marks = of_class.people[student], of_class.of(student)
        row: list[object] = [student, person.name, person.email]
        for assignment, m in zip(of_class.assignments, marks, strict=True):
            if m is None:
                row += ["", most[assignment.name], "", "", "", of_class.settings.failing_grade]
            else:
                row += [m.points, m.max_points, m.bonus, m.days_late, m.grade_without_bonus, m.grade]
        if several:
            whole = total(marks, sum(most.values()), of_class.settings)
            row += [whole.points, whole.max_points, whole.bonus, whole.grade]
        missing = [a.name for a, m in zip(of_class.assignments, marks, strict=True) if m is None]
        rows.append([*row, ", ".join(missing), ", ".join(done.open.get(student, []))])
    return [*header, *(["points", "of", "bonus", "grade"] if several else []), "not handed in", "to be marked"], rows


def _canvas(of_class: _Class, students: list[str], done: Exported) -> tuple[Sequence[str], Rows]:
    names = [a.name for a in of_class.assignments]
    several = len(names) > 1
    columns = [f"{n}{what}" for n in names for what in ("", " bonus", " grade")] + ["Course grade"] * several
    most = _max_points(of_class)
    possible = [v for a in of_class.assignments for v in (most[a.name], a.max_bonus, "")] + [""] * several
    rows: Rows = [["    Points Possible", "", "", "", "", *possible]]
    for student in students:
        person = of_class.people[student]
        if not person.canvas_id:
            done.left_out.append(f"{student}: the roster has no number in Canvas.")
            continue
        row: list[object] = [person.name or student, person.canvas_id, person.sis_id, person.login, person.section]
        marks = of_class.of(student)
        for m in marks:
            row += ["", "", ""] if m is None else [m.points, m.bonus, m.grade]
        if several:
            row.append(total(marks, sum(most.values()), of_class.settings).grade)
        rows.append(row)
    return ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *columns], rows


def _moodle(of_class: _Class, students: list[str], done: Exported) -> tuple[Sequence[str], Rows]:
    header = (
        "Identifier",
        "Full name",
        "Email address",
        "Status",
        "Grade",
        "Maximum grade",
        "Grade can be changed",
        "Last modified (submission)",
        "Last modified (grade)",
        "Feedback comments",
    )
    rows: Rows = []
    most = _max_points(of_class)[of_class.assignments[0].name]
    for student in students:
        person, m = of_class.people[student], of_class.of(student)[0]
        if not person.moodle_id:
            done.left_out.append(f"{student}: the roster has no participant's number in Moodle.")
            continue
        comment = "" if m is None else f"Grade {m.grade}. {m.bonus:g} bonus points." if m.bonus else f"Grade {m.grade}."
        late = f" {m.days_late} day{'s' * (m.days_late > 1)} late." if m is not None and m.days_late else ""
        status = "No submission" if m is None else "Submitted for grading"
        grade = "" if m is None else m.points
        who = [f"Participant {person.moodle_id}", person.name, person.email]
        rows.append([*who, status, grade, most, "Yes", "-", "-", comment + late])
    return header, rows


def _max_points(of_class: _Class) -> dict[str, float]:
    return {a.name: a.max_score + a.max_written for a in of_class.assignments}
