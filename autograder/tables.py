"""Tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from autograder.mistakes_table import Row
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
