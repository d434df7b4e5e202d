"""Builds notebooks from an assignment's source: nbgrader's source notebook, the student's, and the reference."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from autograder.assignment import Assignment
from autograder.atomic_write import atomic_write
from autograder.errors import CourseError
from autograder.gradebook import make_gradebook
from autograder.source import Cell

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
SCHEMA_VERSION = 3  # of nbgrader's cell metadata
MAX_ID = 64  # nbformat's limit on the length of a cell id


@dataclass(frozen=True)
class Built:
    """What `build` found.

    Attributes
    ----------
    path : Path
        The student notebook.
    stale : bool
        Whether what stood there was not what the source says (or nothing stood there).
    changed : tuple of str
        The ids of the cells that differ, in the order of the new notebook.
    """

    path: Path
    stale: bool
    changed: tuple[str, ...]


def build(assignment: Assignment, *, check: bool = False) -> Built:
    """Build the student notebook of an assignment and put it in its folder.

    Parameters
    ----------
    assignment : Assignment
        What to build.
    check : bool
        Only say whether the committed notebook is stale; write nothing.

    Raises
    ------
    CourseError
        Where nbgrader refuses the source notebook.
    """
    data = notebook_bytes(student_notebook(assignment))
    path = assignment.notebook
    old = path.read_bytes() if path.is_file() else b""
    stale = old != data
    if stale and not check:
        atomic_write(path, data)
    return Built(path, stale, _changed_cells(old, data) if stale else ())


def grade_id(cell: Cell) -> str | None:
    """The name under which nbgrader knows a cell: "softmax", "check-softmax"; None for cells that it does not know."""
    if cell.role in ("exercise", "written"):
        return cell.name
    return f"{cell.role}-{cell.name}" if cell.role in ("check", "setup") else None


def cell_id(cell: Cell) -> str:
    """An id made of role and name: the same cell has the same id in every build."""
    own = f"{cell.role}-{cell.name}"
    if len(own) <= MAX_ID:
        return own
    return f"{own[: MAX_ID - 9]}-{hashlib.sha256(own.encode()).hexdigest()[:8]}"


def source_notebook(assignment: Assignment) -> NotebookNode:
    """The notebook with solutions and nbgrader's metadata, as nbgrader expects it in a course's source/ folder."""
    return _notebook(assignment, [_nbgrader_cell(assignment, c) for c in assignment.cells])


def reference_notebook(assignment: Assignment) -> NotebookNode:
    """The solved notebook to run and to read: without nbgrader's metadata and the lines that mark solutions."""
    return _notebook(assignment, [_plain_cell(c, c.solved) for c in assignment.cells])


def student_notebook(assignment: Assignment) -> NotebookNode:
    """The notebook handed out, made of the source notebook by nbgrader's own `generate_assignment`."""
    with tempfile.TemporaryDirectory(prefix="build-") as folder:
        root = Path(folder).resolve()
        source = root / "source" / assignment.name / f"{assignment.name}.ipynb"
        source.parent.mkdir(parents=True)
        source.write_bytes(notebook_bytes(source_notebook(assignment)))
        generate_release(root, assignment.name, f"sqlite:///{root / 'gradebook.db'}")
        return nbformat.read(root / "release" / assignment.name / source.name, as_version=4)


def generate_release(root: Path, assignment: str, db_url: str, course_id: str = "") -> None:
    """Run nbgrader's `generate_assignment` in a course folder: source/ to release/, and its cells to the gradebook.

    Raises
    ------
    CourseError
        With what nbgrader logged, where it fails.
    """
    messages: list[str] = []
    log = logging.Logger("nbgrader", logging.ERROR)  # one of our own: nbgrader's chatter belongs in no command's output
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    course = CourseDirectory(config=Config(), root=str(root), db_url=db_url, course_id=course_id, log=log)
    course.assignment_id = assignment
    make_gradebook(db_url)
    try:
        GenerateAssignment(coursedir=course, config=Config(), force=True, log=log).start()
    except NbGraderException:
        lines = [line for m in messages for line in m.strip().splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "no reason given")
        raise CourseError(f"nbgrader cannot generate {assignment}: {reason.strip()}") from None


def notebook_bytes(notebook: NotebookNode) -> bytes:
    """A notebook as stable JSON: sorted keys, one space of indent, a newline at the end."""
    nbformat.validate(notebook)
    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode()


def _notebook(assignment: Assignment, cells: list[NotebookNode]) -> NotebookNode:
    return new_notebook(
        cells=cells,
        metadata={
            "course": {"assignment": assignment.name},
            "kernelspec": dict(KERNEL),
            "language_info": {"name": "python"},
        },
    )


def _plain_cell(cell: Cell, text: str) -> NotebookNode:
    make = new_code_cell if cell.kind == "code" else new_markdown_cell
    return make(text, id=cell_id(cell), metadata={"course": {"role": cell.role, "name": cell.name}})


def _nbgrader_cell(assignment: Assignment, cell: Cell) -> NotebookNode:
    text = cell.text
    graded = cell.role in ("check", "written")
    points = cell.points
    if cell.role == "check":
        exercise = assignment.exercises[cell.name]
        worth = _points(exercise.max_score, "bonus " if exercise.bonus else "")
        hidden = sum(c.points for c in exercise.criteria if not c.visible)
        text = f"# {worth}{f', {hidden:g} of them for criteria that only grading adds' if hidden else ''}\n{text}"
        points = 0.0 if exercise.bonus else exercise.max_score  # nbgrader adds every cell's points to the maximum
    elif cell.role == "written":
        text = f"*Written answer, {_points(cell.points or 0.0)}*\n\n{text}"
    node = _plain_cell(cell, text)
    own_id = grade_id(cell)
    if own_id is not None:
        metadata: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "grade_id": own_id,
            "grade": graded,
            "solution": cell.role in ("exercise", "written"),
            "locked": cell.role in ("check", "setup"),
            "task": False,
        }
        if graded:
            metadata["points"] = points
        node.metadata["nbgrader"] = metadata
    return node


def _points(points: float, kind: str = "") -> str:
    return f"{points:g} {kind}point" + ("" if points == 1 else "s")


def _changed_cells(old: bytes, new: bytes) -> tuple[str, ...]:
    try:
        before = {c.get("id"): c for c in nbformat.reads(old.decode(), as_version=4).cells}
    except (ValueError, KeyError, AttributeError):  # nothing there, or no notebook
        before = {}
    after = {c["id"]: c for c in nbformat.reads(new.decode(), as_version=4).cells}
    changed = [i for i, cell in after.items() if before.get(i) != cell]
    return (*changed, *(i for i in before if i not in after))
