"""Judge every known mistake and every alternative solution, and say how well the criteria tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from autograder.assignment import Assignment
from autograder.judging import Outcome, Settings, Work, submission_secret
from autograder.variant_programs import program_of
from autograder.workers import judge_all
from course_utils.checking import Alternative, Mistake


@dataclass
class Row:
    """What judging one variant found.

    Attributes
    ----------
    variant : Mistake or Alternative
        What was submitted in place of the reference.
    caught_by : list of str
        The criteria of its exercise that it failed.
    points_lost : float
        In its exercise.
    diagnosis : list of str
        What the student would be told.
    faults : list of str
        Why the criteria, or the variant's entry, are wrong; empty where all is well.
    """

    variant: Mistake | Alternative
    caught_by: list[str] = field(default_factory=list)
    points_lost: float = 0.0
    diagnosis: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def judge_variants(
    assignment: Assignment,
    settings: Settings,
    workers: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Submit every mistake and alternative of an assignment in place of the reference.

    Returns
    -------
    list of Row
        In the order of the assignment's files, mistakes first.
    """
    variants: list[Mistake | Alternative] = [*assignment.mistakes, *assignment.alternatives]
    works = []
    for k, variant in enumerate(variants):
        data = program_of(variant).encode()
        secret = submission_secret(settings.secret, data)
        works.append(Work(str(k), data, secret, program="the file", reference_first=True, affected_only=True))
    rows: dict[int, Row] = {}
    for outcome in judge_all(settings, works, workers):
        rows[int(outcome.key)] = _row(variants[int(outcome.key)], outcome)
        progress()
    return [rows[k] for k in range(len(variants))]


def _row(variant: Mistake | Alternative, outcome: Outcome) -> Row:
    row = Row(variant)
    if outcome.failure:
        row.faults.append(f"could not be judged: {outcome.failure}")
        return row
    exercises = outcome.result["exercises"]
    own = exercises[variant.exercise]
    row.caught_by = [c["name"] for c in own["criteria"] if not c["passed"]]
    row.points_lost = own["max_score"] - own["score"]
    row.diagnosis = own["diagnosis"]
    for name, exercise in exercises.items():
        if name != variant.exercise and exercise["score"] < exercise["max_score"]:
            lost = [c["name"] for c in exercise["criteria"] if not c["passed"]]
            row.faults.append(f"loses points elsewhere: {name} ({', '.join(lost)})")
    messages = {c["name"]: c["message"] for c in own["criteria"] if not c["passed"]}
    if isinstance(variant, Alternative):
        if row.caught_by:
            row.faults.append(f"is right but fails: {messages[row.caught_by[0]]}")
        return row
    passed = [name for name in variant.caught_by if name not in messages]
    more = [name for name in row.caught_by if name not in variant.caught_by]
    if not row.caught_by:
        row.faults.append("survives")
    elif passed:
        row.faults.append(f"should fail {', '.join(passed)}")
    if more:
        row.faults.append(f"also fails {', '.join(more)}: {messages[more[0]]}")
    if row.caught_by and variant.says not in row.diagnosis:
        row.faults.append("is not named")
    return row
