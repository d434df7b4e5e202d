"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from autograder.mistakes_table import Row
from autograder.published import Comparison
from course_utils.checking import Mistake


def result_table(result: dict[str, Any]) -> Table:
    """One judged submission: a line for each exercise, and below it what went wrong."""
    table = Table(title=result["assignment"], title_justify="left")
    table.add_column("exercise", no_wrap=True)
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("what went wrong")
    for name, exercise in result["exercises"].items():
        points = f"{exercise['score']:g} / {exercise['max_score']:g}"
        failed = [c for c in exercise["criteria"] if not c["passed"]]
        lines = exercise["diagnosis"] or [f"{c['name']}: {c['message']}" for c in failed[:2]]
        if exercise["carried_forward"]:
            lines = [*lines, "carried forward: judged with the reference in place of an earlier exercise"]
        style = "" if not failed else "yellow" if exercise["score"] else "red"
        table.add_row(name, points, escape("\n".join(lines)), style=style)
    return table


def class_table(results: Mapping[str, dict[str, Any]], stories: dict[str, str] | None = None) -> Table:
    """A line a student: points, and what went wrong in which exercise, known mistakes by name."""
    table = Table()
    table.add_column("student", no_wrap=True)
    if stories is not None:
        table.add_column("handed in", ratio=2)
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("bonus", justify="right", no_wrap=True)
    table.add_column("what went wrong", ratio=5)
    for student, result in results.items():
        lines = [f"{n}: {e['diagnosis'][0]}" for n, e in result["exercises"].items() if e["diagnosis"]]
        lines += [f"odd: {o}" for o in result["oddities"]]
        shown = lines[:4] + ([f"… and {len(lines) - 4} more"] if len(lines) > 4 else [])
        row = [student, *([stories.get(student, "")] if stories is not None else [])]
        points = f"{result['score']:g} / {result['max_score']:g}"
        table.add_row(*map(escape, row), points, f"{result['bonus']:g}", escape("\n".join(shown)), end_section=True)
    return table


def mistakes_table(rows: list[Row]) -> Table:
    """Every known mistake and alternative: what caught it, what it cost, whether it was named."""
    table = Table()
    for column in ("exercise", "submitted", "caught by", "lost", "told", "verdict"):
        table.add_column(column, justify="right" if column == "lost" else "left", overflow="fold")
    for row in rows:
        wrong = isinstance(row.variant, Mistake)
        told = "by name" if isinstance(row.variant, Mistake) and row.variant.says in row.diagnosis else ""
        verdict = "; ".join(row.faults) or ("caught" if wrong else "full marks")
        table.add_row(
            row.variant.exercise,
            row.variant.name,
            ", ".join(row.caught_by),
            f"{row.points_lost:g}",
            told,
            escape(verdict),
            style="red" if row.faults else "" if wrong else "dim",
        )
    return table


def comparison_table(comparisons: Mapping[str, Sequence[Comparison]]) -> Table:
    """Numbers of reference notebooks beside the published ones, by assignment."""
    table = Table()
    several = len(comparisons) > 1
    for column in (*(["assignment"] if several else []), "number", "here", "published", "accepted", "verdict"):
        table.add_column(column, justify="right" if column in ("here", "published", "accepted") else "left")
    for name, found in comparisons.items():
        for c in found:
            cells = [name] if several else []
            cells += [c.number.shows, c.reached, c.number.range, c.number.accepted, c.verdict]
            quiet = c.verdict in ("shown only", "not measured")
            table.add_row(*map(escape, cells), style="red" if c.fails else "dim" if quiet else "")
    return table
