"""Runs the reference notebooks one after another, and says how their numbers stand to the published ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.assignment import Assignment
from autograder.errors import CourseError
from autograder.published import Comparison, Published, compare, read_published
from autograder.solve import Watch, made_from, solve, solved_folder
from course_utils.data.errors import DataError
from course_utils.data.registry import read_registry
from course_utils.data.store import fetch, find


@dataclass(frozen=True)
class Reference:
    """One reference notebook of a run of several.

    Attributes
    ----------
    assignment : Assignment
        Whose.
    data : str
        On what it was asked to run.
    folder : Path
        Where its notebook, figures and numbers are.
    report : dict
        What its numbers.json says; empty where it failed.
    comparisons : list of Comparison
        Its numbers beside the published ones.
    failure : str
        Why there is no result; empty where there is one.
    kept : bool
        Whether an earlier run's result was still good.
    """

    assignment: Assignment
    data: str
    folder: Path
    report: dict[str, Any] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    failure: str = ""
    kept: bool = False

    @property
    def seconds(self) -> float:
        """How long all cells took."""
        return sum(self.report.get("seconds", {}).values())

    @property
    def fails(self) -> bool:
        """Whether it has no result, or a number that has left its range."""
        return bool(self.failure) or any(c.fails for c in self.comparisons)


def data_for(assignment: Assignment, published: Published | None, asked: str) -> str:
    """The data set on which an assignment runs when one is asked for that may be of another kind.

    A notebook about texts does not run on images.  In place of a set that it does not know it takes one of its own:
    the embedded one where an embedded set is asked for, and else the one of its published numbers.  "auto" is the
    first of its sets that is on this machine.

    Raises
    ------
    CourseError
        Where the set does not exist, or is a text file, which would be for one assignment only.
    """
    sets = read_registry()
    if asked != "auto" and asked not in sets:
        raise CourseError(
            f"All notebooks together run on sets of the registry: {', '.join(sets)}, or auto; and {asked!r} is none. "
            "A text of yours is for one assignment: `autograder solve a4 --text FILE`."
        )
    if published is None or asked in published.data:
        return asked
    if asked == "auto":
        there = (name for name in published.data if sets[name].kind == "embedded" or find(sets[name]))
        return next(there, published.data[0])
    of_its_kind = [name for name in published.data if sets[name].kind == "embedded"]
    if sets[asked].kind != "embedded":
        of_its_kind = published.data
    if not of_its_kind:
        raise CourseError(
            f"{assignment.name} does not run on {asked}, and {assignment.solution_folder / 'published.toml'} names no "
            f"embedded set for it; it runs on {', '.join(published.data)}."
        )
    return of_its_kind[0]


def solve_all(
    assignments: Sequence[Assignment],
    *,
    data: str = "auto",
    output: Path | None = None,
    fresh: bool = False,
    watch: Callable[[str], Watch] = lambda name: Watch(),
    finished: Callable[[Reference], None] = lambda reference: None,
) -> list[Reference]:
    """Run the reference notebooks one after another; one that fails does not keep the others from running.

    Each is written when it is done, so what an interrupted run has finished stays, and the next run goes on behind it.

    Parameters
    ----------
    assignments : sequence of Assignment
        Whose notebooks.
    data : str
        A set of the registry or "auto"; `data_for` says what a notebook takes that cannot run on it.
    output : Path, optional
        The folder in which each gets one of its own; build/solve under the course's root when not given.
    fresh : bool
        Run also what has not changed since it was run on the same data.
    watch : callable
        Makes, of an assignment's name, what is told how its run goes.
    finished : callable
        Called with each when it is done.

    Raises
    ------
    CourseError
        Before anything runs: where a set does not exist or cannot be had, or a published.toml is wrong.
    """
    published = [read_published(a) for a in assignments]
    chosen = [data_for(a, p, data) for a, p in zip(assignments, published, strict=True)]
    _have(chosen)
    references = []
    for assignment, known, name in zip(assignments, published, chosen, strict=True):
        folder = output / assignment.name if output else solved_folder(assignment)
        kept = not fresh and _report(folder).get("made from") == made_from(assignment, name)
        failure = ""
        if not kept:
            try:
                solve(assignment, data=name, output=folder, watch=watch(assignment.name))
            except CourseError as error:
                failure = str(error)
        report = {} if failure else _report(folder)
        comparisons = compare(known, report["numbers"]) if known and report else []
        references.append(Reference(assignment, name, folder, report, comparisons, failure, kept))
        finished(references[-1])
    return references


def compared_with_published(assignment: Assignment, folder: Path) -> list[Comparison]:
    """The numbers of a solved notebook beside the published ones; none where nothing was published."""
    published, report = read_published(assignment), _report(folder)
    return compare(published, report["numbers"]) if published and report else []


def _have(names: Sequence[str]) -> None:
    """Fetch what is not there, before hours of running."""
    sets = read_registry()
    for name in dict.fromkeys(names):
        if name != "auto" and sets[name].kind != "embedded":
            try:
                fetch(sets[name])
            except DataError as error:
                raise CourseError(str(error)) from None


def _report(folder: Path) -> dict[str, Any]:
    """What an earlier run wrote; empty where there is none, or one that cannot be read."""
    try:
        read = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) and isinstance(read.get("numbers"), dict) else {}
