"""Reads the one source of a notebook, a jupytext percent script, into cells that each have a role."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import jupytext
from jupytext.magics import comment_magic

from autograder.errors import CourseError

Role = Literal["text", "setup", "exercise", "check", "experiment", "written"]
Kind = Literal["code", "markdown"]

CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"  # nbgrader's own stubs
TEXT_STUB = "YOUR ANSWER HERE"
BEGIN, END = "BEGIN SOLUTION", "END SOLUTION"  # nbgrader looks for these anywhere in a line

_MARKER = re.compile(r"#\s*%%+(\s|$)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JUPYTEXT_OPTIONS = {"lines_to_next_cell", "lines_to_end_of_cell_marker", "lines_to_begin_of_cell_marker"}


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook's source.

    Attributes
    ----------
    role : str
        "text", "setup", "exercise", "check", "experiment" or "written".
    name : str
        What it is about: the exercise's name, the experiment's, …; unique among the cells of its role.
    kind : str
        "code" or "markdown".
    text : str
        The cell with the solution and the lines that mark it.
    points : float, optional
        What a written answer is worth; None for every other role.
    line : int
        The line of the file that holds the cell's marker.
    """

    role: Role
    name: str
    kind: Kind
    text: str
    points: float | None = None
    line: int = 0

    @property
    def is_check_setup(self) -> bool:
        """Whether this is the setup cell that makes `check`, which grading has no use for."""
        return self.role == "setup" and self.name == "check"

    @property
    def is_for_notebooks(self) -> bool:
        """Whether this setup cell is about the place where a student works, which grading has no use for."""
        return self.role == "setup" and self.name in ("check", "install")

    @property
    def solved(self) -> str:
        """The cell with its solution, without the lines that mark it."""
        return "\n".join(line for line in self.text.split("\n") if BEGIN not in line and END not in line)

    @property
    def handout(self) -> str:
        """The cell as the student gets it: each solution replaced by nbgrader's stub."""
        stub = (CODE_STUB if self.kind == "code" else TEXT_STUB).split("\n")
        lines: list[str] = []
        for line, inside in _with_solution_flag(self.text):
            if BEGIN in line:
                indent = line[: len(line) - len(line.lstrip())]
                lines += [indent + s for s in stub]
            elif not inside:
                lines.append(line)
        return "\n".join(lines)

    @property
    def solution_lines(self) -> list[str]:
        """The lines between the marks, which no student may see before handing in."""
        return [line for line, inside in _with_solution_flag(self.text) if inside and BEGIN not in line]

    @property
    def program(self) -> str:
        """The solved cell as plain Python: IPython's magics are comments.  Keeps the number of lines of `text`."""
        lines = ["" if BEGIN in line or END in line else line for line in self.text.split("\n")]
        return "\n".join(comment_magic(lines))


def read_source(path: Path) -> list[Cell]:
    """Read a jupytext percent script.

    What stands before the first ``# %%`` (a module docstring, jupytext's own header) belongs to the file and not to
    the notebook.

    Parameters
    ----------
    path : Path
        Such as ``solutions/a1_linear_classifiers/a1_linear_classifiers.py``.

    Returns
    -------
    list of Cell
        In the order of the notebook.

    Raises
    ------
    CourseError
        With the file and the line where a cell is not what its options say.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CourseError(f"Cannot read {path}: {error.strerror}.") from None
    markers = _marker_lines(path, text)
    try:
        notebook = jupytext.reads(text, fmt="py:percent")
    except Exception as error:  # jupytext raises what its parsers raise
        raise CourseError(f"{path} is not a jupytext percent script: {error}") from None
    found = notebook.cells[len(notebook.cells) - len(markers) :]
    if not markers:
        raise CourseError(f"{path} has no cell; start each with a line such as `# %% [markdown]`.")
    used: dict[tuple[str, str], int] = {}
    cells: list[Cell] = []
    for raw, line in zip(found, markers, strict=True):
        cell = _typed(path, raw.cell_type, raw.metadata, raw.source.rstrip("\n"), line, cells)
        if (cell.role, cell.name) in used:
            raise CourseError(
                f'{path}:{line}: there is already a cell {cell.role}="{cell.name}" in line '
                f"{used[cell.role, cell.name]}; give each a name of its own."
            )
        used[cell.role, cell.name] = line
        cells.append(cell)
    _check_order(path, cells)
    return cells


def _marker_lines(path: Path, text: str) -> list[int]:
    """The lines that start a cell; a ``# %%`` inside a string is none."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        where = error.args[1][0] if isinstance(error, tokenize.TokenError) else error.lineno
        raise CourseError(f"{path}:{where}: this is not Python: {error.args[0]}.") from None
    return [t.start[0] for t in tokens if t.type == tokenize.COMMENT and t.start[1] == 0 and _MARKER.match(t.string)]


def _typed(path: Path, kind: str, options: dict[str, object], text: str, line: int, before: list[Cell]) -> Cell:
    here = f"{path}:{line}"
    given = {k: v for k, v in options.items() if k not in _JUPYTEXT_OPTIONS and k != "title"}
    points = given.pop("points", None)
    if "title" in options:  # jupytext's word for `# %% setup`, an option without a value
        if options["title"] != "setup":
            raise CourseError(
                f'{here}: a cell cannot be marked `{options["title"]}`; roles are written exercise="name", '
                'check="name", experiment="name", written="name" points=1, or setup.'
            )
        given["setup"] = ""
    if len(given) > 1:
        raise CourseError(f"{here}: a cell has one role, but this one has {' and '.join(sorted(given))}.")
    role, name = next(iter(given.items())) if given else ("text", "")
    if role not in get_args(Role) or (role == "text" and given):
        raise CourseError(
            f"{here}: there is no role `{role}`; the roles are setup, exercise, check, experiment, written."
        )
    if role == "text" and kind != "markdown":
        raise CourseError(f"{here}: this code cell has no role; mark it setup, exercise, check or experiment.")
    if kind not in ("code", "markdown") or (role not in ("text", "written") and kind != "code"):
        raise CourseError(f"{here}: a cell with the role {role} holds code, but this one is {kind}.")
    if role == "written" and kind != "markdown":
        raise CourseError(f'{here}: a written answer is a markdown cell: `# %% [markdown] written="{name}" points=1`.')
    if role == "written":
        if isinstance(points, bool) or not isinstance(points, int | float) or points <= 0:
            raise CourseError(f'{here}: written="{name}" needs its points, more than 0, as in `points=3`.')
    elif points is not None:
        raise CourseError(f"{here}: only written answers say points here; those of an exercise stand in its criteria.")
    if role == "text" or (role == "setup" and name == ""):
        name = _own_name(role, text, before)
    elif not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CourseError(f"{here}: {role}={name!r} is no name; use letters, digits and underscores.")
    cell = Cell(role, name, kind, text, float(points) if role == "written" else None, line)  # type: ignore[arg-type]
    _check_solution(here, cell)
    if role == "exercise":
        _check_exercise(here, cell)
    elif role == "check":
        _check_check(here, cell)
    return cell


def _own_name(role: str, text: str, before: list[Cell]) -> str:
    """A name for a cell that has none: a text's heading or the cell it follows, numbered where it comes again."""
    if role == "setup":
        stem = "setup"
    else:
        heading = re.search(r"^#+\s+(.*)$", text, re.MULTILINE)
        words = re.findall(r"[a-z0-9]+", heading.group(1).lower()) if heading else []
        stem = "_".join(words) or ("after_" + before[-1].name.removeprefix("after_") if before else "opening")
    stem = stem[:48].rstrip("_")
    taken = {c.name for c in before if c.role == role}
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name


def _with_solution_flag(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it belongs to a solution (its two marks included)."""
    inside = False
    for line in text.split("\n"):
        inside = inside or BEGIN in line
        yield line, inside
        if END in line:
            inside = False


def _check_solution(here: str, cell: Cell) -> None:
    marks = [mark for line in cell.text.split("\n") for mark in (BEGIN, END) if mark in line]
    if marks and cell.role not in ("exercise", "written"):
        raise CourseError(
            f"{here}: a solution belongs in an exercise or a written answer, not in a cell of {cell.role}."
        )
    if marks != [BEGIN, END] * (len(marks) // 2):
        raise CourseError(f"{here}: every `### {BEGIN}` needs one `### {END}` after it in the same cell.")
    if cell.role == "written" and not marks:
        raise CourseError(
            f'{here}: put the model answer to "{cell.name}" between `<!-- {BEGIN} -->` and `<!-- {END} -->`; '
            "what stands outside is the question."
        )
    if cell.role == "exercise" and not marks:
        raise CourseError(f"{here}: the exercise {cell.name} has no solution between `### {BEGIN}` and `### {END}`.")


def _defined(tree: ast.Module) -> set[str]:
    """Names that a cell binds at its top level by def, class or assignment."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(t.id for t in targets if isinstance(t, ast.Name))
    return names


def _check_exercise(here: str, cell: Cell) -> None:
    for text, what in (
        (cell.program, "with its solution"),
        ("\n".join(comment_magic(cell.handout.split("\n"))), "as handed out"),
    ):
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            raise CourseError(
                f"{here}: the exercise {cell.name} {what} is not Python: {error.msg} (line {error.lineno} of the cell)."
            ) from None
        if cell.name not in _defined(tree):
            raise CourseError(f"{here}: the exercise {cell.name} {what} does not define `{cell.name}`.")


def _check_check(here: str, cell: Cell) -> None:
    try:
        tree = ast.parse(textwrap.dedent(cell.program))
    except SyntaxError as error:
        raise CourseError(f"{here}: the check of {cell.name} is not Python: {error.msg}.") from None
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "check"]
    if cell.name in [a.value for c in calls for a in c.args if isinstance(a, ast.Constant)]:
        return
    raise CourseError(f'{here}: the cell check="{cell.name}" must call `check("{cell.name}")`.')


def _check_order(path: Path, cells: list[Cell]) -> None:
    exercises = {c.name: c for c in cells if c.role == "exercise"}
    checks = {c.name: c for c in cells if c.role == "check"}
    for name, cell in checks.items():
        if name not in exercises:
            raise CourseError(f'{path}:{cell.line}: check="{name}" has no exercise of that name.')
        if cell.line < exercises[name].line:
            raise CourseError(f"{path}:{cell.line}: the check of {name} stands before the exercise itself.")
    for name, cell in exercises.items():
        if name not in checks:
            raise CourseError(f'{path}:{cell.line}: the exercise {name} has no cell check="{name}" after it.')
    for cell in cells:
        if cell.role == "written" and cell.name in exercises:
            raise CourseError(f"{path}:{cell.line}: {cell.name} is the name of an exercise; call the answer otherwise.")
    makes_check = [c for c in cells if c.is_check_setup]
    if checks and not makes_check:
        raise CourseError(f'{path}: no cell makes `check`; add one marked `# %% setup="check"` after the first setup.')
    if checks and makes_check[0].line > min(c.line for c in checks.values()):
        raise CourseError(f'{path}:{makes_check[0].line}: the cell setup="check" must come before the first check.')
