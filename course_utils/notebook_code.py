"""Read what a student's notebook says: the code to judge, the answers in words, and whatever is odd about it.

Nothing in the notebook but its sources decides anything: cells are recognised by what they define, so that
changed metadata, points, ids, order, copies and deletions of cells make no difference to the marks.  `course check`
reads a notebook with this, and so does grading (`autograder.submission`, which bounds time and memory too).
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import symtable
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from course_utils.sure_definitions import cannot_fail

NOTHING: Mapping[str, str] = MappingProxyType({})
MAX_BYTES = 32 << 20  # of a notebook file
MAX_PARTS = 1_000_000  # lists and objects in a notebook's JSON, each of which takes a hundred bytes of memory
MAX_CELLS = 5_000
MAX_SOURCE = 100_000  # characters of one cell
MAX_CODE = 400_000  # characters of all code cells; a syntax tree takes a hundred times as much memory
MAX_NESTING = 200  # of a cell's syntax tree, whose readers are recursive
MAX_MAGICS = 1_000_000  # characters, times lines with magics: IPython reads the cell again for each
MAX_PIECES = 50  # of a cell's assignments that are run one by one
MAX_TURNS = 500  # in an exercise's cell, from definitions to other statements and back


# A cell magic makes a string of the cell; without these the cell does the same, and can be read.
_HARMLESS_MAGIC = re.compile(r"[ \t]*%%(time|timeit|capture|prun)\b")
# No pattern here may cross lines: on many empty ones it would take time that grows with their square.
_MAGIC_LINE = re.compile(r"^[ \t]*[%!?,;/]|\?[ \t]*$|=[ \t]*[%!]", re.M)
_LABELLED_ID = re.compile(r"(written|experiment)-([A-Za-z_]\w*)")  # some editors drop a cell's metadata
_MAGIC_CALLS = {"run_line_magic", "run_cell_magic", "system", "getoutput"}


@dataclass
class StudentCell:
    """One piece of a student's code.

    Attributes
    ----------
    name : str
        What to call it in reports: the exercise it defines, or "cell 7".
    source : str
        What is run: plain Python, with IPython's magics taken out.
    tree : ast.Module, optional
        Its syntax tree; None for code of ours, and for what cannot be read.
    error : str
        Why it cannot be read, as the end of a sentence; it is not run then, because nobody knows what it would do.
    """

    name: str
    source: str
    tree: ast.Module | None
    error: str = ""

    @property
    def title(self) -> str:
        """What to call it at the start of a sentence."""
        return self.name.capitalize() if self.name.startswith("cell ") else f"The cell of {self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        # A syntax tree cannot be pickled where it is deep; the source says the same.
        return _read_again, (self.name, self.source, self.error, self.tree is not None)


def _read_again(name: str, source: str, error: str, has_tree: bool) -> StudentCell:
    return StudentCell(name, source, _parse(source)[1] if has_tree else None, error)


@dataclass
class Submission:
    """One student's notebook for one assignment.

    Attributes
    ----------
    cells : list of StudentCell
        The code to run, in order: exercise cells whole; of other cells the imports, functions and classes, and the
        assignments that an exercise needs.
    written : dict
        Answers in words by name.
    texts : list of tuple
        The other text cells in order, as they are: each with the name of the question in words that it stands under
        (with nothing but such cells between), or None, and its source.
    pictures : dict
        For each question the attachments (pictures put into a text cell) of its answer, by name, as they are in the
        notebook (not to be trusted).
    outputs : dict
        Saved outputs of experiments by name, as they are in the notebook (not to be trusted).
    oddities : list of str
        Whatever a person should know, a sentence each.
    defined : set of str
        The exercises that the notebook defines.
    shown : dict
        For a person to read: the source of each exercise and experiment by name.
    spare : list of str
        Other code cells, as the student wrote them.
    """

    cells: list[StudentCell] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    texts: list[tuple[str | None, str]] = field(default_factory=list)
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)
    shown: dict[str, str] = field(default_factory=dict)
    spare: list[str] = field(default_factory=list)

    def trees(self) -> list[ast.Module]:
        """The syntax trees of what is judged."""
        return [c.tree for c in self.cells if c.tree is not None]

    def code(self) -> str:
        """All code that is judged, as one text."""
        return "\n\n".join(c.source for c in self.cells)


def read_content(data: bytes, exercises: set[str], experiments: Mapping[str, str] = NOTHING) -> Submission:
    """Read a notebook's bytes; what cannot be read gives a submission without code and says so.

    Parameters
    ----------
    data : bytes
        The notebook file.
    exercises : set of str
        Names of the assignment's exercises.
    experiments : mapping
        The code of the assignment's experiments, by name.
    """
    if data.count(b"{") + data.count(b"[") > MAX_PARTS:
        return Submission(oddities=[f"The notebook has more than {MAX_PARTS} parts; nothing of it was read."])
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Submission(oddities=["The notebook is not UTF-8 text; nothing of it was read."])
    except (ValueError, RecursionError):
        return Submission(oddities=["The notebook is not valid JSON; nothing of it was read."])
    cells, count = _cells(notebook)
    if cells is None:
        return Submission(oddities=["The file is JSON but not a notebook: it has no list of cells."])
    submission = Submission()
    if count > MAX_CELLS:
        submission.oddities.append(f"The notebook has {count} cells; only the first {MAX_CELLS} were read.")
    _read_cells(submission, cells, exercises, experiments)
    return submission


def read_program(text: str, exercises: Iterable[str], name: str = "the file") -> Submission:
    """Read a Python file as a notebook of one cell."""
    submission = Submission()
    program, tree, error = _parse(text)
    submission.cells = [StudentCell(name, program, tree, error)]
    submission.defined = _defined(program, tree, set(exercises))
    return submission


def _cells(notebook: object) -> tuple[list[dict[str, Any]] | None, int]:
    """The notebook's first cells with source as text, formats 3 and 4 alike, and how many there are of all."""
    if not isinstance(notebook, dict):
        return None, 0
    cells = notebook.get("cells")
    if cells is None and isinstance(notebook.get("worksheets"), list):  # format 3
        sheets = [s for s in notebook["worksheets"] if isinstance(s, dict)]
        lists = [s["cells"] for s in sheets if isinstance(s.get("cells"), list)]
        cells = [c for cells in lists for c in cells]
    if not isinstance(cells, list):
        return None, 0
    read = []
    for cell in cells[:MAX_CELLS]:
        if not isinstance(cell, dict):
            continue
        source = cell.get("source", cell.get("input", ""))
        if isinstance(source, list):
            source = "".join(s for s in source if isinstance(s, str))
        metadata = cell.get("metadata")
        outputs = cell.get("outputs")
        read.append(
            {
                "kind": cell.get("cell_type"),
                "source": _lines(source) if isinstance(source, str) else "",
                "metadata": metadata if isinstance(metadata, dict) else {},
                "id": cell.get("id"),
                "attachments": cell.get("attachments"),
                "outputs": outputs if isinstance(outputs, list) else [],
            }
        )
    return read, len(cells)


def _lines(text: str) -> str:
    return _writable(text).replace("\r\n", "\n").replace("\r", "\n")


def _writable(text: str) -> str:
    """Text that can be written as UTF-8: JSON can hold halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def _label(cell: dict[str, Any]) -> tuple[str | None, str | None]:
    """The role and name that our metadata or id gave a cell: a hint for answers and outputs, never for code."""
    ours, graders = cell["metadata"].get("course"), cell["metadata"].get("nbgrader")
    role = ours.get("role") if isinstance(ours, dict) else None
    name = ours.get("name") if isinstance(ours, dict) else None
    if name is None and isinstance(graders, dict):
        name = graders.get("grade_id")
    if role is None and name is None and (by_id := _LABELLED_ID.fullmatch(str(cell["id"])[:200])):
        role, name = by_id.groups()
    return (role if isinstance(role, str) else None), (name if isinstance(name, str) else None)


def _read_cells(
    submission: Submission, cells: list[dict[str, Any]], exercises: set[str], experiments: Mapping[str, str]
) -> None:
    by_source = {source.strip(): name for name, source in experiments.items()}
    places: dict[str, list[int]] = {}
    others: list[_Other] = []
    kept: dict[int, list[StudentCell]] = {}
    code = 0
    question: str | None = None  # that the cell stands under
    for number, cell in enumerate(cells, start=1):
        role, name = _label(cell)
        source = cell["source"]
        if cell["kind"] == "code":
            question = None
        else:
            if name is not None and role in ("written", None):
                question = name
                if name not in submission.written:
                    submission.written[name] = source[:MAX_SOURCE]
                else:  # a cell that was split, or copied
                    submission.texts.append((name, source[:MAX_SOURCE]))
            elif source.strip():
                question = question if role is None else None
                submission.texts.append((question, source[:MAX_SOURCE]))
            if question is not None and isinstance(cell["attachments"], dict):
                submission.pictures.setdefault(question, {}).update(cell["attachments"])
            looks_like_code = "def " in source and any(
                re.search(rf"^[ \t]*def {re.escape(e)}[ \t]*\(", source[:MAX_SOURCE], re.M) for e in exercises
            )
            if looks_like_code:
                submission.oddities.append(f"Cell {number} holds code but is not a code cell; it was not run.")
            continue
        as_handed_out = source.strip() in by_source
        if as_handed_out:  # an experiment, whatever its metadata says now
            role, name = "experiment", by_source[source.strip()]
        known = role == "experiment" and name in experiments
        if known and name is not None and name not in submission.outputs:
            submission.outputs[name] = cell["outputs"]
            submission.shown[name] = source[:MAX_SOURCE]
        if not source.strip():
            continue
        if len(source) > MAX_SOURCE:
            submission.oddities.append(f"Cell {number} has {len(source)} characters; it was not run.")
            continue
        code += len(source)
        if code > MAX_CODE:
            if code - len(source) <= MAX_CODE:
                text = f"The notebook has more than {MAX_CODE} characters of code; from cell {number} on none was run."
                submission.oddities.append(text)
            continue
        program, tree, error = _parse_once(source) if as_handed_out else _parse(source)
        defined = _defined(program, tree, exercises)
        if defined:
            for exercise in defined:
                places.setdefault(exercise, []).append(number)
                submission.shown[exercise] = source
            whole = StudentCell(" and ".join(sorted(defined)), program, tree, error)
            kept[number] = _apart(whole)
            continue
        if not known and role not in ("check", "setup"):
            submission.spare.append(source)
        if tree is not None:
            others.append(_Other(number, program, tree, known))
    submission.defined = set(places)
    for exercise, numbers in places.items():
        if len(numbers) > 1:
            shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
            submission.oddities.append(f"{exercise} is defined in {len(numbers)} cells ({shown}); the last one counts.")
    kept |= _needed([c.tree for cells in kept.values() for c in cells if c.tree], others)
    submission.cells = [cell for n in sorted(kept) for cell in kept[n]]


@lru_cache(maxsize=256)  # one class has the same of them in every notebook
def _parse_once(source: str) -> tuple[str, ast.Module | None, str]:
    return _parse(source)


def _parse(source: str) -> tuple[str, ast.Module | None, str]:
    """A cell as plain Python with the same lines, its syntax tree, and why it has none."""
    program = _without_cell_magics(source)
    try:
        try:
            tree = ast.parse(program)
        except SyntaxError:
            if not 0 < len(_MAGIC_LINE.findall(program)) * len(program) <= MAX_MAGICS:
                raise
            program = TransformerManager().transform_cell(program)
            tree = ast.parse(program)
        if "get_ipython" in program:
            program = _without_magics(program, tree)
            tree = ast.parse(program)
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""
        return program, None, f"raised {type(error).__name__}: {error.msg}{where}"
    except (ValueError, RecursionError, MemoryError, OverflowError, RuntimeError):
        return program, None, "cannot be read as Python"
    if _nesting(tree) > MAX_NESTING:
        return program, None, f"is nested more than {MAX_NESTING} deep, which cannot be read"
    return program, constant_getattr(tree) if "getattr" in program else tree, ""


def _without_cell_magics(source: str) -> str:
    lines = source.split("\n")
    for k, line in enumerate(lines):
        if _HARMLESS_MAGIC.match(line):
            lines[k] = "#"
        elif line.strip():
            break
    return "\n".join(lines)


def _without_magics(program: str, tree: ast.Module) -> str:
    """Put None in the place of IPython's magics and shell lines: grading needs none, and what they do is hidden."""
    lines = program.encode().split(b"\n")
    calls = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and n.func.attr in _MAGIC_CALLS
        and isinstance(n.func.value, ast.Call)
        and isinstance(n.func.value.func, ast.Name)
        and n.func.value.func.id == "get_ipython"
        and n.lineno == n.end_lineno
        and all(isinstance(a, ast.Constant) for a in n.args)
    ]
    for call in sorted(calls, key=lambda c: -c.col_offset):
        line = lines[call.lineno - 1]
        lines[call.lineno - 1] = line[: call.col_offset] + b"None" + line[call.end_col_offset :]
    return b"\n".join(lines).decode()


def _nesting(tree: ast.AST) -> int:
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _defined(source: str, tree: ast.Module | None, exercises: set[str]) -> set[str]:
    """The exercises that a cell defines at its top level, also inside `if` and the like."""
    if tree is None:
        return {e for e in exercises if re.search(rf"^((def|class)\s+{e}\b|{e}\s*=)", source, re.M)}
    return {name for statement in tree.body for name in bound_names(statement)} & exercises


@dataclass
class _Other:
    """A code cell that defines no exercise."""

    number: int
    program: str
    tree: ast.Module
    is_experiment: bool


def _needed(exercises: list[ast.Module], others: list[_Other]) -> dict[int, list[StudentCell]]:
    """Of the cells that define no exercise: what an exercise needs, directly or through other such statements.

    Imports, functions and classes come from any of them, assignments from none of our experiments.
    """
    makers: dict[str, list[tuple[int, ast.stmt]]] = {}
    wanted = list(set().union(*map(_globals, exercises)))
    for other in others:
        for statement in other.tree.body:
            if _makes_check(statement):
                continue
            if _defines(statement) or (isinstance(statement, ast.Assign | ast.AnnAssign) and not other.is_experiment):
                for name in bound_names(statement) | _roots(statement):
                    makers.setdefault(name, []).append((other.number, statement))
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                wanted.append("*")
    chosen: dict[int, set[ast.stmt]] = {o.number: set() for o in others}
    while wanted:
        for number, statement in makers.pop(wanted.pop(), []):
            if statement not in chosen[number]:
                chosen[number].add(statement)
                wanted += _globals(ast.Module([statement], []))
    return {o.number: pieces for o in others if (pieces := _pieces(o, chosen[o.number]))}


def _defines(statement: ast.stmt) -> bool:
    """Whether a statement is an import or a definition, also inside `if` and `try`."""
    if isinstance(statement, ast.If | ast.Try):
        blocks = [statement.body, statement.orelse]
        if isinstance(statement, ast.Try):
            blocks += [statement.finalbody, *(h.body for h in statement.handlers)]
        return all(_defines(s) or isinstance(s, ast.Assign | ast.Pass) for block in blocks for s in block)
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _makes_check(statement: ast.stmt) -> bool:
    """Whether a statement makes the notebook's own `check`; grading has another, which does nothing."""
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Name)
        and statement.value.func.id == "checker"
    )


def _roots(statement: ast.stmt) -> set[str]:
    """The names in whose entries or attributes an assignment puts something: `table` in ``table["f"] = f``."""
    roots = set()
    for target in statement.targets if isinstance(statement, ast.Assign) else []:
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name):
            roots.add(target.id)
    return roots


def _pieces(other: _Other, chosen: set[ast.stmt]) -> list[StudentCell]:
    """The chosen statements of a cell, every assignment that may fail apart.

    An assignment that fails, for want of what an experiment makes, then stops nothing else.
    """
    body = [s for s in other.tree.body if s in chosen]
    return _apart(StudentCell(f"cell {other.number}", other.program, ast.Module(body, [])), MAX_PIECES) if body else []


def _apart(cell: StudentCell, alone: int = 0) -> list[StudentCell]:
    """A cell in pieces, so that a statement that fails does not keep a definition below it from running.

    Otherwise a name would keep what an earlier cell gave it, which is not what is read.

    Parameters
    ----------
    cell : StudentCell
        The cell; of its source only what is in its tree is run.
    alone : int
        How many assignments at most get a piece of their own; 0 for a cell that is run as a whole.
    """
    if cell.tree is None or (not alone and len(set(map(cannot_fail, cell.tree.body))) <= 1):
        return [cell]
    pieces: list[list[ast.stmt]] = []
    last: object = None
    for k, statement in enumerate(cell.tree.body):
        kind: object = cannot_fail(statement)
        if not kind and alone and isinstance(statement, ast.Assign | ast.AnnAssign):
            alone, kind = alone - 1, f"the assignment {k}"
        if kind != last:
            pieces.append([])
        pieces[-1].append(statement)
        last = kind
    if len(pieces) > MAX_TURNS:
        why = f"changes between definitions and other code more than {MAX_TURNS} times"
        return [StudentCell(cell.name, cell.source, None, why)]
    return [StudentCell(cell.name, text_of(cell.source, body), ast.Module(body, [])) for body in pieces]


def text_of(program: str, body: list[ast.stmt], new: Collection[ast.stmt] = ()) -> str:
    """The statements as they stand in their cell, comments in place of all else, so that lines keep their numbers.

    Those that are `new` stand in the place of others.
    """
    lines = program.split("\n")
    kept = ["#"] * len(lines)  # IPython drops empty lines at the start
    for statement in body:
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(d.lineno for d in decorators)]) - 1
        kept[first : statement.end_lineno] = lines[first : statement.end_lineno]
        if statement in new:
            kept[first : statement.end_lineno] = [ast.unparse(statement)] + ["#"] * (statement.end_lineno - first - 1)
    text = "\n".join(kept[: body[-1].end_lineno])
    with contextlib.suppress(SyntaxError):
        if ast.dump(constant_getattr(ast.parse(text))) == ast.dump(ast.Module(body, [])):
            return text
    return ast.unparse(ast.Module(body, []))  # where statements share a line


def _globals(tree: ast.Module) -> set[str]:
    """The global names that a cell's code reads; variables of its functions are none."""
    try:
        table = symtable.symtable(ast.unparse(tree), "cell", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    names = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    tables = list(table.get_children())
    while tables:
        inner = tables.pop()
        names |= {s.get_name() for s in inner.get_symbols() if s.is_global() and s.is_referenced()}
        tables += inner.get_children()
    return names


def bound_names(statement: ast.AST) -> set[str]:
    """The names to which a statement gives a value where it stands, also inside `if` and the like."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {a.asname or a.name.split(".")[0] for a in statement.names}
    names: set[str] = set()
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            names |= bound_names(child)
        else:
            names |= {n.id for n in ast.walk(child) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


def constant_getattr(tree: ast.Module) -> ast.Module:
    """Write `getattr(x, "name")` as `x.name`, so that it is read like any other attribute."""

    class Rewrite(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            if (
                isinstance(node.func, ast.Name)
                and node.func.id == "getattr"
                and len(node.args) >= 2
                and isinstance(node.args[1], ast.Constant)
                and isinstance(node.args[1].value, str)
                and node.args[1].value.isidentifier()
                # Python reads an identifier in another form than a string, which stays as it is.
                and unicodedata.is_normalized("NFKC", node.args[1].value)
            ):
                attribute = ast.Attribute(value=node.args[0], attr=node.args[1].value, ctx=ast.Load())
                return ast.copy_location(attribute, node)
            return node

    return ast.fix_missing_locations(Rewrite().visit(tree))
