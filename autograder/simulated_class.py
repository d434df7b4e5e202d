"""A class of simulated students, for the demo, tests and benchmarks: no two hand in the same quality of work."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from autograder.assignment import Assignment
from autograder.grade import released_notebook
from autograder.variant_programs import program_of
from course_utils.checking import Mistake

HOSTILE = """
import builtins, os, socket, sys
import torch

stolen = []
for place in ("/etc/passwd", "/proc/self/environ", "/course", os.getcwd()):
    try:
        stolen.append(open(place).read() if os.path.isfile(place) else os.listdir(place))
    except OSError as error:
        stolen.append(str(error))
try:
    socket.create_connection(("127.0.0.1", 80), timeout=1)
except OSError as error:
    stolen.append(str(error))
try:
    import course_utils.checking.expect as e
    e.Expectation.close_to = lambda self, *a, **k: self  # switch all assertions off
    import course_utils.checking.verdict as v
    v.CriterionResult.passed = property(lambda self: True)
except Exception as error:
    stolen.append(str(error))


class EqualToAll:
    def __eq__(self, other):
        return True

    def __getattr__(self, name):
        return lambda *args, **kwargs: True


def {name}(*args, **kwargs):
    print(stolen)
    return EqualToAll()
"""


@dataclass(frozen=True)
class SimulatedStudent:
    """One student who never was.

    Attributes
    ----------
    name : str
        The id under which the work is handed in.
    story : str
        What is special about the work.
    notebook : bytes
        What is handed in.
    mistakes : tuple of str
        Names of the known mistakes in it.
    """

    name: str
    story: str
    notebook: bytes
    mistakes: tuple[str, ...] = ()


class _Desk:
    """Fills in the released notebook."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.released = released_notebook(assignment)
        self.right = {c.name: c.solved for c in assignment.cells if c.role == "exercise"}

    def write(self, sources: dict[str, str], change: Callable[[NotebookNode], None] | None = None) -> bytes:
        """A notebook with these exercises filled in, and answers in words where anything is."""
        notebook = copy.deepcopy(self.released)
        for cell in notebook.cells:
            role, name = (cell.metadata.get("course", {}).get(k) for k in ("role", "name"))
            if role == "exercise" and name in sources:
                cell.source = sources[name]
            elif role == "written" and sources:
                cell.source = "An answer in words, for a person to mark."
        if change is not None:
            change(notebook)
        return nbformat.writes(notebook).encode()


def simulated_class(assignment: Assignment, size: int = 20, seed: int = 0) -> list[SimulatedStudent]:
    """Make a class of `size` ≥ 1 students; the first twenty are one of each kind and some with mistakes.

    The same seed gives the same class.
    """
    desk, rng = _Desk(assignment), random.Random(seed)
    exercises = list(assignment.exercises)
    first, last = exercises[0], exercises[-1]
    kinds: list[Callable[[], tuple[str, bytes, tuple[str, ...]]]] = [
        lambda: ("everything right", desk.write(desk.right), ()),
        lambda: _alternatives(desk, rng),
        lambda: ("nothing written", desk.write({}), ()),
        lambda: _half(desk, rng),
        lambda: ("a cell that ends the process", desk.write({**desk.right, last: "import os\nos._exit(0)\n"}), ()),
        lambda: ("hostile: breaks out, switches checks off", _hostile(desk, first), ()),
        lambda: ("a syntax error", desk.write({**desk.right, first: f"def {first}(X:\n    return X\n"}), ()),
        lambda: ("a loop without end", _endless(desk, first), ()),
        lambda: ("cells copied, reordered, metadata gone", desk.write(desk.right, _shuffle), ()),
    ]
    students = []
    for k in range(size):
        story, notebook, mistakes = kinds[k]() if k < len(kinds) else _mistaken(desk, rng, 1 + k % 3)
        students.append(SimulatedStudent(f"student{k + 1:0{len(str(size))}d}", story, notebook, mistakes))
    return students


def _mistaken(desk: _Desk, rng: random.Random, count: int) -> tuple[str, bytes, tuple[str, ...]]:
    chosen: dict[str, Mistake] = {}
    for mistake in rng.sample(desk.assignment.mistakes, min(3 * count, len(desk.assignment.mistakes))):
        if len(chosen) < count:
            chosen.setdefault(mistake.exercise, mistake)
    sources = {**desk.right, **{e: program_of(m) for e, m in chosen.items()}}
    named = ", ".join(f"{e}: {m.name}" for e, m in chosen.items())
    return (
        f"{len(chosen)} mistake{'s' * (len(chosen) > 1)} ({named})",
        desk.write(sources),
        tuple(m.name for m in chosen.values()),
    )


def _alternatives(desk: _Desk, rng: random.Random) -> tuple[str, bytes, tuple[str, ...]]:
    unusual = {
        a.exercise: program_of(a) for a in rng.sample(desk.assignment.alternatives, k=len(desk.assignment.alternatives))
    }
    return "right in unusual ways", desk.write({**desk.right, **unusual}), ()


def _half(desk: _Desk, rng: random.Random) -> tuple[str, bytes, tuple[str, ...]]:
    names = list(desk.right)
    return "half done", desk.write({n: desk.right[n] for n in names[: len(names) // 2]}), ()


def _endless(desk: _Desk, name: str) -> bytes:
    return desk.write({**desk.right, name: f"def {name}(*args):\n    while True:\n        pass\n"})


def _hostile(desk: _Desk, name: str) -> bytes:
    def deface(notebook: NotebookNode) -> None:
        attack = new_output("display_data", data={"text/html": "<script>alert('marks')</script>"})
        for cell in notebook.cells:
            if cell.metadata.get("course", {}).get("role") == "experiment":
                cell.outputs = [attack]

    return desk.write({name: HOSTILE.replace("{name}", name)}, deface)


def _shuffle(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.cells.reverse()
    copied = [c for c in notebook.cells if c.cell_type == "code"][:3]
    notebook.cells += [new_code_cell(c.source) for c in copied]
