"""Show what criteria found in a terminal: one table for all exercises."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from course_utils.checking.display import AGAIN, headline, new_remarks, repeated, verdict, without_result
from course_utils.checking.verdict import CriterionResult, ExerciseResult

COLOURS = {"yes": "green", "no": "red", "wait": "yellow"}


def results_table(results: Sequence[ExerciseResult], *, brief: bool) -> RenderableType:
    """A section for each exercise: its criteria with their messages, as `check` shows them in a notebook.

    Parameters
    ----------
    results : sequence of ExerciseResult
        What was found.
    brief : bool
        Give one line to an exercise whose criteria are all met, and to one that is not written yet.
    """
    table = Table(box=box.HORIZONTALS, show_edge=False, pad_edge=False)
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Criterion")
    table.add_column("Points", justify="right", no_wrap=True)
    for result in results:
        met = all(c.passed for c in result.criteria)
        short = brief and (met or without_result(result))
        if not short:
            table.add_section()
        name = result.exercise.name + (" (bonus)" if result.exercise.bonus else "")
        points = f"{result.score:g} / {result.max_score:g}"
        if short:
            mark = Text("✓ met", "green") if met else Text("… to do", "yellow")
            table.add_row(mark, Text(headline(result)), points)
            continue
        title = Text(name, "bold")
        title.append(f"\n{result.advice}" if result.advice else "", "not bold")
        table.add_row("", title, Text(points, "bold"))
        again, remarks = repeated(result), new_remarks(result)
        for number, criterion in enumerate(result.criteria, start=1):
            last = number == len(result.criteria)
            name = criterion.criterion.name
            table.add_row(*_row(criterion, remarks[name], name in again), end_section=last)
    return table


def _row(result: CriterionResult, remarks: Sequence[str], again: bool) -> tuple[Text, Text, str]:
    """A criterion's row; a message that stood in the table above is not said `again` in full."""
    mark, kind = ("✓ met", "yes") if result.passed else verdict(result)
    lines = Text(result.criterion.title)
    why = result.unmet
    if again:
        lines.append(f"\n{AGAIN}", "dim")
    elif why is not None:
        lines.append(f"\n{why.message}", "default" if kind == "no" else "dim")
        for cause in why.causes[:2]:
            lines.append("\nLikely cause: ", "italic")
            lines.append(cause)
    for remark in remarks:
        lines.append(f"\nYour function warned: {remark}", "dim")
    points = f"{result.criterion.points if result.passed else 0:g} / {result.criterion.points:g}"
    return Text(mark, COLOURS[kind]), lines, points
