"""What a class's results say about the assignment, its exercises and its submissions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from autograder.assignment import Assignment
from autograder.final_marks import Mark
from autograder.reaching import reaches
from autograder.result_files import StoredResult
from autograder.similarity import Alike, normalised, suspiciously_alike, with_what_it_uses

CLOSE = 1e-9
ENOUGH_STUDENTS = 5  # for a discrimination


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of some numbers, and how many they are."""

    mean: float
    deviation: float
    count: int


@dataclass
class CriterionStatistics:
    """One criterion: its points, whether students see it, and the share of the class that meets it."""

    name: str
    points: float
    visible: bool
    met: float


@dataclass
class ExerciseStatistics:
    """One exercise.

    Attributes
    ----------
    name : str
        Which.
    bonus : bool
        Whether it is a bonus exercise.
    max_points : float
        What it is worth.
    untried : float
        Share of the class that wrote nothing.
    mean : float
        Mean share of its points, from 0 to 1: its difficulty, the easier the larger.
    full : float
        Share of the class with all its points.
    discrimination : float, optional
        Correlation of its points with those of all other exercises; None for few students, or where all are alike.
    lines, seconds : Spread, optional
        Of the right solutions: lines of code (without what was handed out, comments and docstrings), and wall time of
        judging.
    criteria : list of CriterionStatistics
        In order.
    """

    name: str
    bonus: bool
    max_points: float
    untried: float
    mean: float
    full: float
    discrimination: float | None
    lines: Spread | None
    seconds: Spread | None
    criteria: list[CriterionStatistics]


@dataclass(frozen=True)
class MistakeCount:
    """A mistake that students made: in which exercise, its name ("" for a cause without one), its words, who."""

    exercise: str
    name: str
    says: str
    students: tuple[str, ...]


@dataclass
class ClassStatistics:
    """A class.

    Attributes
    ----------
    students : list of str
        Who was graded.
    shares : dict of str to float
        Points for the exercises (a person's marks included, without bonus) as a share of what could be earned.
    exercises : list of ExerciseStatistics
        In the notebook's order.
    mistakes : list of MistakeCount
        The most common first.
    alike : list of Alike
        Suspiciously alike submissions.
    oddities : list of (str, tuple of str)
        What was odd, and about whom.
    reaching : dict of str to list of str
        By student what the code reaches for.
    written : dict of str to Spread or None
        For each question in words the points that persons gave.
    """

    students: list[str]
    shares: dict[str, float] = field(default_factory=dict)
    exercises: list[ExerciseStatistics] = field(default_factory=list)
    mistakes: list[MistakeCount] = field(default_factory=list)
    alike: list[Alike] = field(default_factory=list)
    oddities: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    reaching: dict[str, list[str]] = field(default_factory=dict)
    written: dict[str, Spread | None] = field(default_factory=dict)


def class_statistics(
    assignment: Assignment, results: Mapping[str, StoredResult], marks: Mapping[str, Mark], autograded: Path
) -> ClassStatistics:
    """Gather what a class's results say.

    Parameters
    ----------
    assignment : Assignment
        Which.
    results : mapping of str to StoredResult
        By student.
    marks : mapping of str to Mark
        By student; those without a result are left out.
    autograded : Path
        nbgrader's folder of graded notebooks, which hold the students' code.
    """
    students = sorted(results)
    made = ClassStatistics(students)
    cells = {s: _cells(autograded / s / assignment.name / f"{assignment.name}.ipynb") for s in students}
    released = {c.name: c.handout for c in assignment.cells if c.role == "exercise"}
    code = {s: {n: source for n, source in cells[s].items() if n in released} for s in students}
    counted = [n for n, e in assignment.exercises.items() if not e.bonus]
    earned = {n: np.array([_points(marks.get(s), results[s], n) for s in students]) for n in assignment.exercises}
    total = sum((earned[n] for n in counted), np.zeros(len(students)))
    made.shares = {s: float(t) / assignment.max_score for s, t in zip(students, total, strict=True)}
    for name in assignment.exercises:
        others = total - earned[name] if name in counted else total
        made.exercises.append(_exercise(assignment, name, results, code, released[name], earned[name], others))
    made.mistakes = _mistakes(assignment, results)
    whole = {s: with_what_it_uses(code[s], [c for n, c in cells[s].items() if n not in released]) for s in students}
    made.alike = suspiciously_alike(whole, released)
    made.oddities = _oddities(results)
    handed_out = set().union(*(reaches(c.program) for c in assignment.cells if c.kind == "code"))
    for student in students:
        found = set().union(*(reaches(source) for source in cells[student].values())) - handed_out
        if found:
            made.reaching[student] = sorted(found)
    for question in assignment.written:
        given = [x.points for m in marks.values() for x in m.lines if x.exercise == question and not x.message]
        made.written[question] = _spread(given)
    return made


def _cells(notebook: Path) -> dict[str, str]:
    """The code of a graded notebook by exercise; spare cells by their own names."""
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError, KeyError, AttributeError):
        return {}
    found = {}
    for number, cell in enumerate(cells):
        course = cell.metadata.get("course", {})
        if cell.cell_type == "code" and course.get("role", "spare") in ("exercise", "experiment", "spare"):
            name = course.get("name", "")
            found[name if course.get("role") == "exercise" else f" {number}"] = cell.source
    return found


def _points(mark: Mark | None, stored: StoredResult, exercise: str) -> float:
    """A person's points where there are any, else the engine's."""
    if mark is not None:
        return sum(x.points for x in mark.lines if x.exercise == exercise)
    return float(stored.result["exercises"].get(exercise, {}).get("score", 0.0))


def _exercise(
    assignment: Assignment,
    name: str,
    results: Mapping[str, StoredResult],
    code: Mapping[str, Mapping[str, str]],
    released: str,
    earned: np.ndarray,
    others: np.ndarray,
) -> ExerciseStatistics:
    known, students = assignment.exercises[name], sorted(results)
    lines = {s: len(normalised(code[s].get(name, ""), released)) for s in students}
    judged = {s: results[s].result["exercises"].get(name) for s in students}
    right = [
        s
        for s, e in judged.items()
        if e is not None and e["score"] >= e["max_score"] - CLOSE and not e["carried_forward"] and lines[s]
    ]
    share = earned / known.max_score if known.max_score else np.ones_like(earned)
    met: dict[str, list[bool]] = defaultdict(list)
    for e in judged.values():
        for c in e["criteria"] if e else ():
            met[c["name"]].append(c["passed"])
    return ExerciseStatistics(
        name,
        known.bonus,
        known.max_score,
        untried=sum(n == 0 for n in lines.values()) / len(students),
        mean=float(share.mean()),
        full=float((share >= 1 - CLOSE).mean()),
        discrimination=_correlation(earned, others),
        lines=_spread([lines[s] for s in right]),
        seconds=_spread([t for s in right if (t := results[s].exercise_seconds.get(name)) is not None]),
        criteria=[
            CriterionStatistics(c.name, c.points, c.visible, float(np.mean(met[c.name])))
            for c in known.criteria
            if met[c.name]
        ],
    )


def _correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    if len(one) < ENOUGH_STUDENTS or one.std() < CLOSE or other.std() < CLOSE:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _spread(values: list[Any]) -> Spread | None:
    if not values:
        return None
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, len(values))


def _mistakes(assignment: Assignment, results: Mapping[str, StoredResult]) -> list[MistakeCount]:
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for m in assignment.mistakes:
        names[m.exercise, m.says].append(m.name)
    made: dict[tuple[str, str], list[str]] = defaultdict(list)
    for student, stored in results.items():
        for exercise, judged in stored.result["exercises"].items():
            if _forbidden(exercise, stored):
                continue  # an oddity, told there
            for says in judged["diagnosis"]:
                made[exercise, says].append(student)
    counts = [
        MistakeCount(exercise, " or ".join(names[exercise, says]), says, tuple(sorted(students)))
        for (exercise, says), students in made.items()
    ]
    return sorted(counts, key=lambda m: (-len(m.students), not m.name, m.exercise, m.name))


def _forbidden(exercise: str, stored: StoredResult) -> bool:
    return any(o.startswith(f"{exercise} uses ") for o in stored.result["oddities"])


def _oddities(results: Mapping[str, StoredResult]) -> list[tuple[str, tuple[str, ...]]]:
    about: dict[str, list[str]] = defaultdict(list)
    for student, stored in results.items():
        for oddity in _together(stored.result["oddities"], list(stored.result["exercises"])):
            about[oddity].append(student)
    return sorted(((o, tuple(sorted(s))) for o, s in about.items()), key=lambda item: (-len(item[1]), item[0]))


def _together(oddities: list[str], exercises: list[str]) -> list[str]:
    """The oddities with one sentence for all exercises of which the same is said."""
    said: dict[str, list[str]] = {}
    for oddity in oddities:
        first, _, rest = oddity.partition(" uses ")
        said.setdefault(f" uses {rest}" if rest and first in exercises else oddity, []).append(first)
    made = []
    for text, names in said.items():
        if not text.startswith(" uses "):
            made.append(text)
        elif len(names) > 3:
            made.append(f"{names[0]} and {len(names) - 1} other exercises use{text.removeprefix(' uses')}")
        else:
            made.append(", ".join(names) + (text if len(names) == 1 else f" use{text.removeprefix(' uses')}"))
    return made
