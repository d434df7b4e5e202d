"""`course check`: the visible criteria against a saved notebook, shown in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from course_utils.checking.fresh_process import Checked, check_notebook
from course_utils.checking.terminal import results_table
from course_utils.handed_out import HandedOut


def check_saved(assignment: HandedOut, names: Sequence[str], console: Console) -> Checked:
    """Hold the visible criteria of some exercises, or of all, against the notebook as it is on disk.

    Raises
    ------
    InputError
        Where there is no such exercise, or the notebook cannot be read.
    """
    with console.status(f"{assignment.name}: starting Python") as status:
        return check_notebook(assignment, names, progress=lambda what: status.update(f"{assignment.name}: {what}"))


def print_checked(checked: Checked, console: Console, *, brief: bool) -> None:
    """Print the table, what went wrong in cells, and what all of it comes to."""
    table = results_table(checked.results, brief=brief)
    console.print(table, soft_wrap=False)
    for name, error in checked.cell_errors.items():
        console.print(f"{_cell(name)} {error}.", markup=False, highlight=False)
    for oddity in checked.oddities:
        console.print(oddity, markup=False, highlight=False)
    done = sum(all(c.passed for c in r.criteria) for r in checked.results)
    score, most = (sum(getattr(r, what) for r in checked.results) for what in ("score", "max_score"))
    console.print(
        f"{done} of {len(checked.results)} exercises meet all visible criteria, {score:g} of their {most:g} points. "
        "Grading adds hidden ones.",
        highlight=False,
    )


def _cell(name: str) -> str:
    if name.startswith("setup "):
        return f"The notebook's own cell {name.removeprefix('setup ')}"
    return name.capitalize() if name.startswith("cell ") else f"The cell of {name}"
