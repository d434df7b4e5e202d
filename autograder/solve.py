"""Runs the reference notebook with its experiments, and writes it with its figures and numbers."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

import course_utils
from autograder.assignment import Assignment
from autograder.atomic_write import atomic_folder, atomic_write
from autograder.build import notebook_bytes, reference_notebook
from autograder.errors import CourseError
from autograder.fingerprint import digest, libraries_and
from autograder.kernel_run import CellRaised, KernelEnded, run_cells
from course_utils.data.registry import read_registry

JSON = "application/json"

# Runs after the last cell, in the kernel: the notebook's `numbers` as plain JSON.
COLLECT_NUMBERS = """
def _plain(value):
    if hasattr(value, "tolist"):  # tensors and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)  # JSON has no NaN and no infinity
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


display({"application/json": {"numbers": _plain(globals().get("numbers", {}))}}, raw=True)
"""


@dataclass(frozen=True)
class Solved:
    """What a run of the reference notebook wrote.

    Attributes
    ----------
    folder, notebook, page, numbers : Path
        The folder, and in it the executed notebook, the same as an HTML page, and numbers.json.
    figures : tuple of Path
        PNG files, in the order of the notebook, each named after its experiment.
    seconds : float
        Wall time of all cells.
    """

    folder: Path
    notebook: Path
    page: Path
    numbers: Path
    figures: tuple[Path, ...]
    seconds: float


class Watch:
    """Told how the run of a notebook goes; this one keeps it to itself."""

    def total(self, cells: int) -> None:
        """So many code cells will run."""

    def started(self, cell: str) -> None:
        """A cell begins."""

    def done(self, cell: str, seconds: float | None) -> None:
        """A cell is done; `seconds` are an experiment's."""


def solve(
    assignment: Assignment, *, data: str = "auto", output: Path | None = None, watch: Watch | None = None
) -> Solved:
    """Run the reference notebook of an assignment, experiments and checks included.

    The notebook runs in a kernel of its own, with one thread, in a temporary folder that holds what a student's
    folder holds.  A check that is not passed is an error, as everywhere else.

    Parameters
    ----------
    assignment : Assignment
        What to solve.
    data : str
        What to run on, told to the notebook as $COURSE_DATA_SET: a set of the registry, the path of a text file, or
        "auto".
    output : Path, optional
        The folder to write; build/solve/<name> under the course's root when not given.  What stood there before is
        replaced when everything is ready, and not before.
    watch : Watch, optional
        Told how it goes.

    Raises
    ------
    CourseError
        With the name of the cell that failed.  The notebook up to there is kept beside `output` with ".failed".
    """
    data = known_data(data)
    folder = (output or solved_folder(assignment)).resolve()
    if folder.exists() and not _ours(folder, assignment):
        raise CourseError(f"{folder} holds something else than a solved {assignment.name}; give another folder.")
    notebook = reference_notebook(assignment)
    failed = folder.with_name(f"{folder.name}.failed.ipynb")
    start = time.perf_counter()
    try:
        numbers, seconds = _run(assignment, notebook, data, watch or Watch())
    except CourseError as error:
        atomic_write(failed, notebook_bytes(notebook))
        raise CourseError(f"{error}\nThe notebook up to there is in {failed}.") from error.__cause__
    total = time.perf_counter() - start
    with atomic_folder(folder) as temporary:
        (temporary / f"{assignment.name}.ipynb").write_bytes(notebook_bytes(notebook))
        (temporary / f"{assignment.name}.html").write_text(_page(assignment, notebook), encoding="utf-8")
        figures = _write_figures(notebook, temporary / "figures")
        report = {
            "assignment": assignment.name,
            "data": data,
            "made from": made_from(assignment, data),
            "numbers": numbers,
            "printed": _printed(notebook),
            "seconds": seconds,
        }
        (temporary / "numbers.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    failed.unlink(missing_ok=True)  # of an earlier run
    return Solved(
        folder=folder,
        notebook=folder / f"{assignment.name}.ipynb",
        page=folder / f"{assignment.name}.html",
        numbers=folder / "numbers.json",
        figures=tuple(folder / "figures" / name for name in figures),
        seconds=total,
    )


def known_data(data: str) -> str:
    """What to run on, with the whole path of a text file, because the notebook runs in another folder.

    Raises
    ------
    CourseError
        Where it is neither a set of the registry nor a file.
    """
    sets = ("auto", *read_registry())
    if data in sets:
        return data
    if not Path(data).is_file():
        raise CourseError(f"There is no data set {data!r}; choose one of {', '.join(sets)}, or a text file.")
    return str(Path(data).resolve())


def solved_folder(assignment: Assignment) -> Path:
    """Where an assignment is solved when no folder is given."""
    return assignment.root / "build" / "solve" / assignment.name


def made_from(assignment: Assignment, data: str) -> str:
    """Changes with whatever the numbers follow from: the source, what is handed out, course_utils and the libraries."""
    files = [p for p in sorted(assignment.folder.iterdir()) if p.is_file() and p.suffix != ".ipynb"]
    return digest(
        libraries_and(course_utils), assignment.source.read_bytes(), *((p.name, p.read_bytes()) for p in files), data
    )


def _ours(folder: Path, assignment: Assignment) -> bool:
    """Whether a folder may be replaced: an earlier result of the same assignment, or empty."""
    return folder.is_dir() and ((folder / f"{assignment.name}.ipynb").is_file() or not any(folder.iterdir()))


def _run(
    assignment: Assignment, notebook: NotebookNode, data: str, watch: Watch
) -> tuple[dict[str, Any], dict[str, float]]:
    """Run all cells in place; returns the notebook's `numbers`, and the seconds of each code cell by its id."""
    seconds: dict[str, float] = {}
    started = 0.0
    running: NotebookNode | None = None
    last = new_code_cell(COLLECT_NUMBERS, id="numbers", metadata={"course": {"role": "numbers"}})

    def on_start(cell: NotebookNode) -> None:
        nonlocal started, running
        started, running = time.perf_counter(), cell
        watch.started(_label(cell))

    def on_executed(cell: NotebookNode) -> None:
        if cell.id == last.id:
            return
        seconds[cell.id] = round(time.perf_counter() - started, 3)
        watch.done(_label(cell), seconds[cell.id] if cell.metadata["course"]["role"] == "experiment" else None)

    watch.total(sum(c.cell_type == "code" for c in notebook.cells))
    with tempfile.TemporaryDirectory(prefix="solve-") as name:
        place = Path(name).resolve() / "notebook"
        place.mkdir()
        for path in assignment.folder.iterdir():
            if path.is_file() and path.suffix != ".ipynb":
                shutil.copy(path, place)
        notebook.cells.append(last)
        try:
            environment = _environment(assignment.root, data)
            run_cells(notebook, place, place.parent, environment, on_start=on_start, on_executed=on_executed)
        except (CellRaised, KernelEnded) as error:
            raise CourseError(_failure(assignment, running, error)) from error
        finally:
            notebook.cells.pop()
    return next(o.data[JSON]["numbers"] for o in last.outputs if JSON in o.get("data", {})), seconds


def _environment(root: Path, data: str) -> dict[str, str]:
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "COURSE_DATA_SET": data,
        "NBGRADER_EXECUTION": "validate",  # `check` raises where a criterion is not met
        "PYTHONPATH": os.pathsep.join(paths),
    }


def _label(cell: NotebookNode) -> str:
    course = cell.metadata["course"]
    return f"{course['role']} {course['name']}" if "name" in course else course["role"]


def _failure(assignment: Assignment, cell: NotebookNode | None, error: Exception) -> str:
    if cell is None:
        return f"The notebook's kernel did not start: {error or 'it gave no reason'}."
    course = cell.metadata["course"]
    where = f"{assignment.source}"
    if "name" in course:
        where += f":{assignment.cell(course['role'], course['name']).line}"
    if isinstance(error, CellRaised):
        return f"The cell {_label(cell)} ({where}) raised {error}"
    return f"The cell {_label(cell)} ({where}) ended the kernel, by a crash or for want of memory."


def _write_figures(notebook: NotebookNode, folder: Path) -> list[str]:
    folder.mkdir()
    names: list[str] = []
    for cell in notebook.cells:
        pictures = [o.data["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        course = cell.metadata["course"]
        stem = course["name"] if course["role"] == "experiment" else cell.id
        for number, picture in enumerate(pictures, 1):
            names.append(f"{stem}.png" if number == 1 else f"{stem}_{number}.png")
            (folder / names[-1]).write_bytes(base64.b64decode(picture))
    return names


def _printed(notebook: NotebookNode) -> dict[str, str]:
    """What each experiment printed, by name; tables and other results as their plain text."""
    printed: dict[str, str] = {}
    for cell in notebook.cells:
        if cell.metadata["course"]["role"] != "experiment":
            continue
        texts = [o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout"]
        texts += [
            o.data["text/plain"]
            for o in cell.outputs
            if "text/plain" in o.get("data", {}) and "image/png" not in o.data
        ]
        if any(t.strip() for t in texts):
            printed[cell.metadata["course"]["name"]] = "\n".join(t.rstrip("\n") for t in texts)
    return printed


def _page(assignment: Assignment, notebook: NotebookNode) -> str:
    log = logging.Logger("nbconvert", logging.ERROR)  # it warns of every figure without a text for screen readers
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True, log=log)
    titled = nbformat.from_dict({**notebook, "metadata": {**notebook.metadata, "title": assignment.title}})
    return exporter.from_notebook_node(titled)[0]
