"""Leave out of a notebook what runs with its cells though nobody can read what it does.

Where something may not be called, what hides its calls could call it, or put it in the place of anything else: `exec`,
`gc`, `sys.modules`.  As a rule it is harmless (a look at a function's source, a file that is read), and no exercise
needs it.  So it is not run: then it costs nothing but the exercises that it makes.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from autograder.rules import hidden_when_run
from autograder.submitted_source import Source
from course_utils.notebook_code import StudentCell, bound_names, text_of

MAX_ROUNDS = 5  # what is left out may have kept a name from meaning what it means now
MAX_TOLD = 10


@dataclass
class Kept:
    """What is run of a submission.

    Attributes
    ----------
    cells : list of StudentCell
        Its cells, in order.
    source : Source
        Their source.
    told : list of str
        What was left out of them, a sentence each.
    refused : dict
        The exercises that would have been made by what was left out; why, for each.
    """

    cells: list[StudentCell]
    source: Source
    told: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def leave_out_hidden(cells: Sequence[StudentCell], setup: Sequence[ast.Module], exercises: Collection[str]) -> Kept:
    """Leave out of the cells what hides its calls when it runs.

    An assignment to plain names gives them None instead, so that what asks for them later goes on.

    Parameters
    ----------
    cells : sequence of StudentCell
        The submission's, in order.
    setup : sequence of ast.Module
        What runs before them.
    exercises : collection of str
        Names of the exercises, which are made or not, but never None.
    """
    kept = Kept(list(cells), _source(cells, setup))
    for _ in range(MAX_ROUNDS):
        before = len(kept.told)
        kept.cells = [_without_hidden(cell, kept, exercises) for cell in kept.cells]
        if len(kept.told) == before:
            break
        kept.source = _source(kept.cells, setup)
    if len(kept.told) > MAX_TOLD:
        kept.told[MAX_TOLD:] = [f"{len(kept.told) - MAX_TOLD} more statements were not run for the same reason."]
    return kept


def _source(cells: Sequence[StudentCell], setup: Sequence[ast.Module]) -> Source:
    return Source([c.tree for c in cells if c.tree is not None], setup)


def _without_hidden(cell: StudentCell, kept: Kept, exercises: Collection[str]) -> StudentCell:
    if cell.tree is None:
        return cell
    body: list[ast.stmt] = []
    new: list[ast.stmt] = []
    for statement in cell.tree.body:
        found = hidden_when_run(kept.source, statement)
        if not found:
            body.append(statement)
            continue
        kept.told.append(f"{cell.title}: line {statement.lineno} was not run, because of {found[0]}.")
        made = bound_names(statement) & set(exercises)
        kept.refused |= dict.fromkeys(made, found[0])
        names = sorted(_plain_targets(statement)) if not made else []
        if names:
            nothing = ast.Assign([ast.Name(n, ast.Store()) for n in names], ast.Constant(None))
            new.append(ast.fix_missing_locations(ast.copy_location(nothing, statement)))
            body.append(new[-1])
    if len(body) - len(new) == len(cell.tree.body):
        return cell
    return StudentCell(cell.name, text_of(cell.source, body, new) if body else "#", ast.Module(body, []))


def _plain_targets(statement: ast.stmt) -> set[str]:
    """The names that an assignment binds, where it does nothing else."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    parts = [p for t in targets for p in (t.elts if isinstance(t, ast.Tuple | ast.List) else [t])]
    return {p.id for p in parts if isinstance(p, ast.Name)} if all(isinstance(p, ast.Name) for p in parts) else set()
