"""Loads an assignment by its folder: cells, exercises with all their criteria, mistakes, and the reference."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from autograder.errors import CourseError
from autograder.source import Cell, read_source
from course_utils.checking import Alternative, Exercise, Mistake, exercises_of, variants_of


@dataclass(frozen=True)
class Assignment:
    """One assignment: what its two folders say.

    Attributes
    ----------
    name : str
        Of its folders: "a1_linear_classifiers".
    title : str
        The notebook's first heading.
    root : Path
        The folder that holds assignments/ and solutions/.
    cells : tuple of Cell
        The notebook's source, in order.
    exercises : dict of str to Exercise
        In the order of the notebook, each with its visible and then its hidden criteria.
    checks, hidden_checks : module
        The visible criteria (with the props they name), and those that only grading adds.
    mistakes : tuple of Mistake
        Known wrong solutions.
    alternatives : tuple of Alternative
        Right but unusual ones.
    """

    name: str
    title: str
    root: Path
    cells: tuple[Cell, ...]
    exercises: dict[str, Exercise]
    checks: ModuleType
    hidden_checks: ModuleType | None
    mistakes: tuple[Mistake, ...]
    alternatives: tuple[Alternative, ...]

    @property
    def folder(self) -> Path:
        """What a student opens."""
        return self.root / "assignments" / self.name

    @property
    def solution_folder(self) -> Path:
        """What only staff open."""
        return self.root / "solutions" / self.name

    @property
    def source(self) -> Path:
        """The one source of the notebook."""
        return self.solution_folder / f"{self.name}.py"

    @property
    def notebook(self) -> Path:
        """The student notebook, built from the source."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def written(self) -> dict[str, Cell]:
        """The questions answered in words, by name."""
        return {c.name: c for c in self.cells if c.role == "written"}

    @property
    def experiments(self) -> dict[str, str]:
        """The experiments' code as students get it, by name."""
        return {c.name: c.handout for c in self.cells if c.role == "experiment"}

    @property
    def max_score(self) -> float:
        """Points of all exercises that are no bonus; written answers not included."""
        return sum(e.max_score for e in self.exercises.values() if not e.bonus)

    @property
    def max_bonus(self) -> float:
        """Points of the bonus exercises."""
        return sum(e.max_score for e in self.exercises.values() if e.bonus)

    @property
    def max_written(self) -> float:
        """Points of the answers that a person marks."""
        return sum(c.points or 0.0 for c in self.written.values())

    def with_variants_of(self, exercises: Sequence[str]) -> Assignment:
        """The same assignment with the mistakes and alternatives of these exercises only.

        Raises
        ------
        CourseError
            Where there is no such exercise.
        """
        for name in exercises:
            if name not in self.exercises:
                close = difflib.get_close_matches(name, self.exercises, 1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise CourseError(
                    f"{self.name} has no exercise {name!r}; there are: {', '.join(self.exercises)}.{hint}"
                )
        return replace(
            self,
            mistakes=tuple(m for m in self.mistakes if m.exercise in exercises),
            alternatives=tuple(a for a in self.alternatives if a.exercise in exercises),
        )

    def cell(self, role: str, name: str) -> Cell:
        """The cell of that role and name; KeyError where there is none."""
        for cell in self.cells:
            if (cell.role, cell.name) == (role, name):
                return cell
        raise KeyError((role, name))

    def reference_cells(self) -> list[Cell]:
        """What makes the reference: the setup (but not what makes `check` or installs) and the exercises, in order."""
        return [c for c in self.cells if (c.role == "setup" and not c.is_for_notebooks) or c.role == "exercise"]

    def reference(self) -> dict[str, Any]:
        """The right solution: a fresh namespace after setup and exercise cells ran in this process.

        Raises
        ------
        CourseError
            Where a cell raises an exception.
        """
        namespace: dict[str, Any] = {"__name__": "__main__"}  # as in a notebook
        for cell in self.reference_cells():
            tree = ast.increment_lineno(ast.parse(cell.program), cell.line)
            try:
                exec(compile(tree, str(self.source), "exec"), namespace)
            except Exception as error:
                where = f"{self.source}:{cell.line}: the {cell.role} cell {cell.name}"
                raise CourseError(f"{where} raised {type(error).__name__}: {error}") from error
        return namespace


def find_root(start: Path | None = None) -> Path:
    """The folder that holds assignments/ and solutions/: the working folder or one above it, else this checkout.

    Raises
    ------
    CourseError
        Where there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "assignments").is_dir() and (folder / "solutions").is_dir():
            return folder
    raise CourseError(
        f"Neither {here} nor a folder above it holds assignments/ and solutions/; go to the course's checkout."
    )


def assignment_names(root: Path | None = None) -> list[str]:
    """The assignments of a course, sorted: every folder of solutions/ that holds a source of its name."""
    folder = (root or find_root()) / "solutions"
    return sorted(p.name for p in folder.iterdir() if (p / f"{p.name}.py").is_file())


def load_assignment(name_or_path: str | Path, root: Path | None = None) -> Assignment:
    """Load an assignment.

    Parameters
    ----------
    name_or_path : str or Path
        Its name, a short form of it ("a1" for "a1_linear_classifiers"), or the path of one of its folders.
    root : Path, optional
        The folder that holds assignments/ and solutions/; `find_root()` when not given.

    Raises
    ------
    CourseError
        When there is no such assignment, or when its cells and its criteria do not agree.
    """
    name, root = _locate(name_or_path, root)
    source = root / "solutions" / name / f"{name}.py"
    cells = tuple(read_source(source))
    _forget(name)
    checks = _import(root, f"assignments.{name}.checks")
    if checks is None:
        raise CourseError(f"{root / 'assignments' / name / 'checks.py'} is missing; it holds the visible criteria.")
    hidden = _import(root, f"solutions.{name}.hidden_checks")
    exercises = _merged(checks, hidden, cells, source)
    variants: list[Mistake | Alternative] = []
    for stem in ("mistakes", "alternatives"):
        module = _import(root, f"solutions.{name}.{stem}")
        variants += variants_of(module) if module else []
    _check_variants(variants, exercises, root / "solutions" / name)
    return Assignment(
        name=name,
        title=_title(cells, name),
        root=root,
        cells=cells,
        exercises=exercises,
        checks=checks,
        hidden_checks=hidden,
        mistakes=tuple(v for v in variants if isinstance(v, Mistake)),
        alternatives=tuple(v for v in variants if isinstance(v, Alternative)),
    )


def _locate(name_or_path: str | Path, root: Path | None) -> tuple[str, Path]:
    path = Path(name_or_path)
    if path.is_dir() and path.resolve().parent.name in ("assignments", "solutions"):
        path = path.resolve()
        return full_name(path.name, path.parents[1]), path.parents[1]
    root = (root or find_root()).resolve()
    return full_name(str(name_or_path), root), root


def full_name(name: str, root: Path) -> str:
    """The name of an assignment that is given by its name or a short form of it.

    Raises
    ------
    CourseError
        When there is no such assignment.
    """
    names = assignment_names(root)
    if name in names:
        return name
    short = [n for n in names if n.startswith(f"{name}_")]
    if len(short) == 1:
        return short[0]
    if not names:
        raise CourseError(
            f"There is no assignment in {root / 'solutions'}; a folder `x` there needs its source `x/x.py`."
        )
    close = difflib.get_close_matches(name, names, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise CourseError(f"There is no assignment called {name!r}; there are: {', '.join(names)}.{hint}")


def _forget(name: str) -> None:
    """Drop what an earlier call imported: files change, and hidden criteria are added to the visible exercises."""
    prefixes = (f"assignments.{name}", f"solutions.{name}")
    for module in [m for m in sys.modules if m in prefixes or m.startswith(tuple(f"{p}." for p in prefixes))]:
        del sys.modules[module]
    for package in ("assignments", "solutions"):
        sys.modules.pop(package, None)


def _import(root: Path, module: str) -> ModuleType | None:
    """Import a module of the course from `root`; None where it has no file."""
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        return None
    if sys.path[0] != str(root):
        sys.path[:] = [str(root), *(p for p in sys.path if p != str(root))]
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise CourseError(f"Cannot import {path}: {type(error).__name__}: {error}") from error


def _title(cells: tuple[Cell, ...], name: str) -> str:
    for cell in cells:
        for line in cell.text.split("\n") if cell.kind == "markdown" else ():
            if line.startswith("# "):
                return line[2:].strip()
    return name.replace("_", " ")


def _merged(
    checks: ModuleType, hidden: ModuleType | None, cells: tuple[Cell, ...], source: Path
) -> dict[str, Exercise]:
    """The exercises in the notebook's order, those that only `hidden` defines anew merged into the visible ones."""
    visible = exercises_of(checks)
    for name, extra in (exercises_of(hidden) if hidden else {}).items():
        if name not in visible:
            raise CourseError(
                f"The hidden criteria of {source.parent.name} are about {name}, which {checks.__file__} does not know; "
                "every exercise has a visible criterion."
            )
        if extra is visible[name]:
            continue
        whole = visible[name].with_criteria([*visible[name].criteria, *extra.criteria], extra.forbidden)
        names = [c.name for c in whole.criteria]
        double = next((n for n in names if names.count(n) > 1), None)
        if double:
            raise CourseError(f"{name} has two criteria called {double}; rename the hidden one.")
        visible[name] = whole
    in_notebook = {c.name: c for c in cells if c.role == "exercise"}
    for name, exercise in visible.items():
        if name not in in_notebook:
            raise CourseError(f'{checks.__file__}: the exercise {name} has no cell exercise="{name}" in {source}.')
        if not any(c.visible for c in exercise.criteria):
            raise CourseError(f"{checks.__file__}: the exercise {name} has no visible criterion.")
    for name, cell in in_notebook.items():
        if name not in visible:
            raise CourseError(f"{source}:{cell.line}: the exercise {name} has no criteria in {checks.__file__}.")
    return {name: visible[name] for name in in_notebook}


def _check_variants(variants: list[Mistake | Alternative], exercises: dict[str, Exercise], folder: Path) -> None:
    for v in variants:
        if v.exercise not in exercises:
            file = folder / ("mistakes.py" if isinstance(v, Mistake) else "alternatives.py")
            close = difflib.get_close_matches(v.exercise, exercises, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            names = ", ".join(exercises)
            raise CourseError(f"{file}: {v.name} is for {v.exercise!r}, no exercise; there are: {names}.{hint}")
