"""The report on a class: one page that needs nothing else, and the same numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from autograder.assignment import Assignment
from autograder.atomic_write import atomic_write
from autograder.charts import exercises_chart, marks_chart
from autograder.class_statistics import ClassStatistics, Spread, class_statistics
from autograder.course import Course
from autograder.course_settings import CourseSettings
from autograder.csv_table import csv_table
from autograder.errors import CourseError
from autograder.final_marks import final_marks
from autograder.gradebook import open_gradebook
from autograder.result_files import ResultFiles

REPORTS = "reports"  # folder of the course
TEMPLATES = Path(__file__).parent / "templates"
MANY = 8  # students named one by one
HARD = 12  # criteria shown


@dataclass(frozen=True)
class Report:
    """Where the page and its tables are: exercises with criteria, mistakes, and pairs that are alike."""

    page: Path
    exercises: Path
    mistakes: Path
    alike: Path


def make_report(assignment: Assignment, course: Course, settings: CourseSettings) -> Report:
    """Write the report on an assignment into ``course/reports``.

    Raises
    ------
    CourseError
        When nothing is graded, or gradebook and results differ.
    """
    files = ResultFiles(course.folder, assignment.name)
    results = {p.stem: r for p in sorted(files.folder.glob("*.json")) if (r := files.read(p.stem)) is not None}
    if not results:
        raise CourseError(f"Nothing of {assignment.name} is graded in {course.folder}; run `autograder grade` first.")
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        marks = final_marks(assignment, course, settings, gradebook)
    found = class_statistics(assignment, results, marks, course.folder / "autograded")
    stem = course.folder / REPORTS / assignment.name
    made = Report(*(stem.with_name(f"{stem.name}{end}") for end in (".html", ".csv", "_mistakes.csv", "_alike.csv")))
    late = sum(m.days_late > 0 for m in marks.values())
    to_mark = sum(bool(m.open) for m in marks.values())
    hard = sorted(((e, c) for e in found.exercises for c in e.criteria if c.met < 1), key=lambda pair: pair[1].met)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=assignment.title,
            course=settings.title,
            css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            facts=[*_facts(found), (late, "late"), (to_mark, "wait for a person's marks")],
            marks_chart=Markup(marks_chart(list(found.shares.values()))),
            exercises_chart=Markup(exercises_chart(found.exercises)),
            written_points={n: c.points or 0.0 for n, c in assignment.written.items()},
            hard=hard[:HARD],
            **{"class": found},
        )
    )
    _write_tables(found, made)
    atomic_write(made.page, page)
    return made


def _facts(found: ClassStatistics) -> list[tuple[object, str]]:
    shares = 100 * np.array(list(found.shares.values()))
    quarter, middle, three = np.percentile(shares, (25, 50, 75))
    full = int((shares >= 100 - 1e-9).sum())
    return [
        (len(shares), "graded"),
        (f"{shares.mean():.0f} %", f"mean, sd {shares.std(ddof=1) if len(shares) > 1 else 0:.0f}"),
        (f"{middle:.0f} %", f"median; half between {quarter:.0f} and {three:.0f} %"),
        (full, "with all points"),
    ]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {"percent": _percent, "spread": _shown_spread, "who": _who}
    environment.filters |= {"points": lambda p: f"{p:g}", **filters}
    return environment


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _shown_spread(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.mean:.2g} ± {spread.deviation:.1g}"


def _who(students: Iterable[str]) -> str:
    students = list(students)
    more = f" and {len(students) - MANY} more" if len(students) > MANY else ""
    return ", ".join(students[:MANY]) + more


def _write_tables(found: ClassStatistics, made: Report) -> None:
    header = (
        "exercise",
        "criterion",
        "bonus",
        "points",
        "mean share",
        "all points",
        "nothing written",
        "discrimination",
        "lines of right ones",
        "seconds of right ones",
        "right ones",
    )
    rows: list[list[object]] = []
    for e in found.exercises:
        lines, seconds = (s.mean if s else None for s in (e.lines, e.seconds))
        count = e.lines.count if e.lines else 0
        of_exercise = [e.mean, e.full, e.untried, e.discrimination, lines, seconds, count]
        rows.append([e.name, "", e.bonus, e.max_points, *of_exercise])
        rows += [[e.name, c.name, e.bonus, c.points, c.met, c.met, *[None] * 5] for c in e.criteria]
    atomic_write(made.exercises, csv_table(header, rows))
    mistakes = [[m.exercise, m.name, m.says, len(m.students), " ".join(m.students)] for m in found.mistakes]
    atomic_write(made.mistakes, csv_table(("exercise", "mistake", "says", "count", "students"), mistakes))
    alike = [
        [*a.students, a.score, a.text, " ".join(f"{n}={s:.3f}" for n, s in a.exercises.items())] for a in found.alike
    ]
    atomic_write(made.alike, csv_table(("student", "other student", "closeness", "as written", "exercises"), alike))
