"""A student's folder with a small assignment, as it lies there after the bundle was unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CHECKS = '''"""What your notebook checks."""

import torch

from course_utils.checking import Exercise, expect

double = Exercise("double", forbidden=("torch.add",))
halve = Exercise("halve", bonus=True)


@double.criterion(points=1)
def doubles_every_entry(student, draw):
    """Every entry is doubled."""
    x = draw.normal(5)
    expect(student.double(x)).close_to(2 * x)


@double.criterion(points=0.5)
def works_for_one_entry(student, draw):
    """A single entry is doubled too."""
    x = draw.normal(1)
    expect(student.double(x)).close_to(2 * x)


@halve.criterion(points=2)
def halves_every_entry(student, draw):
    """Every entry is halved."""
    x = draw.normal(5)
    expect(student.halve(x)).close_to(x / 2)
'''

DOUBLE = "def double(x):\n    return x + x\n"
HALVE = "def halve(x):\n    return x / two\n"
HELPER = "two = 2.0\n"
EMPTY = "def {}(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()\n"
NAME = "a7_doubling"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def cell(source: str, role: str = "", name: str = "", kind: str = "code", **extra: Any) -> NotebookNode:
    """A cell with the metadata of a handed-out notebook."""
    make = new_code_cell if kind == "code" else new_markdown_cell
    metadata = {"course": {"role": role, "name": name}} if role else {}
    return make(source, metadata=metadata, **extra)


def cells(double: str = DOUBLE, halve: str = HALVE, *more: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook: all that the exercises need, an experiment that was run, and a written answer."""
    figure = new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure size 640x480>"})
    printed = new_output("stream", name="stdout", text="the last value is 8.0\n")
    experiment = "open('the_experiment_ran', 'w').close()\nplt.plot([double(4.0)])"
    return [
        cell("# Assignment 7: doubling", "text", "doubling", "markdown"),
        cell("import torch", "setup", "setup"),
        cell("import checks\nfrom course_utils.checking import checker\ncheck = checker(checks)", "setup", "check"),
        cell("## 1 Double", "text", "double", "markdown"),
        cell(double, "exercise", "double"),
        cell('check("double")', "check", "double", outputs=[new_output("stream", text="checked")]),
        cell("## 2 Growth", "text", "growth", "markdown"),
        cell(experiment, "experiment", "growth", outputs=[printed, figure], execution_count=3),
        cell(
            "*Written answer, 3 points*\n\nWhy does doubling grow?\n\nBecause $2 > 1$, and **every** step multiplies.",
            "written",
            "why",
            "markdown",
        ),
        cell(HELPER),
        cell(halve, "exercise", "halve"),
        *more,
    ]


def write_folder(root: Path, notebook_cells: list[NotebookNode]) -> Path:
    """Write the folder of a bundle; returns the notebook's path."""
    folder = root / "assignments" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checks.py").write_text(CHECKS)
    notebook = folder / f"{NAME}.ipynb"
    nbformat.write(new_notebook(cells=notebook_cells, metadata={"course": {"assignment": NAME}}), notebook)
    return notebook
