"""What a student may want to finish before handing in: exercises, written answers, experiments without their output."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from course_utils.checking.display import headline, untouched
from course_utils.checking.fresh_process import Checked
from course_utils.handed_out import CHECKS, outputs_of, role_of, source_of

ANSWER_STUB = "YOUR ANSWER HERE"
_DRAWS = re.compile(r"\bplot_|\bplt\.|\.(plot|imshow|show|bar|hist|scatter)\(")


def unfinished(checked: Checked, folder: Path) -> list[str]:
    """A sentence for each thing that is not finished, in the order of exercises, answers and experiments.

    Parameters
    ----------
    checked : Checked
        What the check of the notebook found.
    folder : Path
        The folder of the notebook, whose modules are not handed in.
    """
    open_ones = [r for r in checked.results if not all(c.passed for c in r.criteria)]
    empty = [r.exercise.name for r in open_ones if untouched(r)]
    sentences = [f"Nothing is written yet in {', '.join(empty)}."] if empty else []
    sentences += [headline(r) for r in open_ones if not untouched(r)]
    sentences += [f"The cell {name} {error}." for name, error in checked.cell_errors.items() if " " not in name]
    sentences += unanswered(checked.cells) + without_output(checked.cells)
    return sentences + _modules(checked.cells, folder)


def unanswered(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The written questions without an answer, in sentences."""
    found, empty = [], []
    for cell in cells:
        role, name = role_of(cell)
        if role != "written":
            continue
        before, stub, after = source_of(cell).partition(ANSWER_STUB)
        if stub and not after.strip():
            empty.append(name)
        elif stub:
            found.append(f"The written answer {name} still says {ANSWER_STUB}.")
        elif not before.strip():
            empty.append(name)
    return [f"Not answered: {', '.join(empty)}.", *found] if empty else found


def without_output(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The experiments that were not run, failed, or lack their figure, in sentences."""
    found, not_run = [], []
    for cell in cells:
        role, name = role_of(cell)
        if role != "experiment" or not source_of(cell).strip():
            continue
        outputs = outputs_of(cell)
        error = next((o for o in outputs if o.get("output_type") == "error"), None)
        pictures = [o for o in outputs if any(str(kind).startswith("image/") for kind in o.get("data") or ())]
        if error is not None:
            found.append(f"The experiment {name} stopped with {error.get('ename', 'an error')}.")
        elif not outputs and not cell.get("execution_count"):
            not_run.append(name)
        elif not pictures and _DRAWS.search(source_of(cell)):
            found.append(f"The experiment {name} has no figure; run it again and save the notebook.")
    return [f"Experiments not run: {', '.join(not_run)}.", *found] if not_run else found


def _modules(cells: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """Imports of files beside the notebook: grading has the notebook alone."""
    imported = set()
    for cell in cells:
        try:
            tree = ast.parse(source_of(cell) if cell.get("cell_type") == "code" else "")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # the check tells, or it holds a magic
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {a.name.split(".")[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    own = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    return [
        f"The notebook imports {name}, which is not handed in: move what you need of it into a cell."
        for name in sorted(imported & own - {Path(CHECKS).stem})
    ]
