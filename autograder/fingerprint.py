"""What the result of an exercise depends on, in short texts that change when any of it does.

A result is kept as long as its fingerprint stays the same.  An exercise's fingerprint covers its criteria and its
mistakes, with every function, class and constant that they reach by name in the assignment's files, and the reference
cells that its criteria may call.  What no name leads to counts for all exercises, as do the engine and the libraries.
"""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

import autograder
import course_utils
from autograder.assignment import Assignment
from autograder.scopes import Scopes
from course_utils.checking import Exercise
from course_utils.notebook_code import bound_names

KNOWN = ("checks", "hidden_checks", "mistakes")  # files of an assignment that are read statement by statement
NO_MATTER = ("alternatives.py", "published.toml")  # those that no result depends on
Node = ast.AST


def digest(*parts: object) -> str:
    """One short text for several."""
    made = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        made.update(b"%d:" % len(data) + data)
    return made.hexdigest()[:32]


def engine_fingerprint() -> str:
    """Changes with the engine, with what notebooks import, and with the libraries that compute."""
    return libraries_and(autograder, course_utils)


def libraries_and(*modules: ModuleType) -> str:
    """Changes with these packages of ours, and with the libraries that compute."""
    packages = [Path(package.__file__ or "").parent for package in modules]
    files = [
        (f"{p.name}/{path.relative_to(p)}", path.read_bytes()) for p in packages for path in sorted(p.rglob("*.py"))
    ]
    versions = platform.python_version_tuple()[:2], torch.__version__, np.__version__
    return digest(versions, *(part for file in files for part in file))


class Fingerprints:
    """The fingerprints of an assignment.

    Parameters
    ----------
    assignment : Assignment
        As it is loaded now.

    Attributes
    ----------
    shared : str
        Of what every result depends on.
    exercises : dict of str to str
        For each exercise, of what only some results depend on.
    references : dict of str to str
        For each exercise, of the reference that may stand in for it.
    checkout : str
        Of all together: two machines with the same one judge alike.
    """

    def __init__(self, assignment: Assignment) -> None:
        names = list(assignment.exercises)
        mistakes = f"solutions.{assignment.name}.mistakes"
        files = {
            f"assignments.{assignment.name}.checks": assignment.folder / "checks.py",
            f"solutions.{assignment.name}.hidden_checks": assignment.solution_folder / "hidden_checks.py",
            mistakes: assignment.solution_folder / "mistakes.py",
        }
        program = _Program({m: p.read_text(encoding="utf-8") for m, p in files.items() if p.is_file()})
        cells = assignment.reference_cells()
        reference = _Program({"reference": "\n".join(c.program for c in cells if c.role == "exercise")})
        self.references = {
            n: digest(*reference.texts(reference.reached(reference.defining("reference", n)))) for n in names
        }
        self.shared = digest(
            engine_fingerprint(),
            *(c.program for c in cells if c.role == "setup"),
            names,
            sorted(assignment.experiments.items()),
            *_other_files(assignment),
        )
        criteria = [m for m in (assignment.checks, assignment.hidden_checks) if m is not None]
        variables = {m.__name__: {v: e.name for v, e in _exercise_variables(m).items()} for m in criteria}
        self.exercises = {}
        for name in names:
            roots = [s for s in program.statements() if name in s.about(variables) or s.is_for_all(variables)]
            for mistake in (m for m in assignment.mistakes if m.exercise == name):
                roots += program.defining(mistakes, mistake.name) or program.all_of(mistakes)
            reached = program.reached(roots)
            reached = program.reached([*reached, *program.changing(reached)])
            called = sorted({w for s in reached for w in s.words} & set(names) - {name})
            self.exercises[name] = digest(*program.texts(reached), *(self.references[c] for c in called))
        self.checkout = digest(self.shared, sorted(self.exercises.items()), sorted(self.references.items()))


def _exercise_variables(module: ModuleType) -> dict[str, Exercise]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Exercise)}


def _other_files(assignment: Assignment) -> Iterator[bytes]:
    """Files of the assignment's folders that nothing is known about; their names too."""
    names = (*NO_MATTER, *(f"{stem}.py" for stem in (*KNOWN, assignment.name)))
    for folder in (assignment.folder, assignment.solution_folder):
        for path in sorted(folder.rglob("*")):
            known = path.parent == folder and path.name in names
            if path.is_file() and not known and path.suffix not in (".ipynb", ".pyc") and "." not in path.parts[-1][:1]:
                yield str(path.relative_to(folder)).encode()
                yield path.read_bytes()


@dataclass(eq=False)
class _Statement:
    """One top-level statement of a module.

    Attributes
    ----------
    module : str
        Whose it is.
    node : ast.stmt
        The statement.
    registers : bool
        Whether it is a definition with a decorator of this module's own, which may do anything with it.
    names : set of str
        The module's names that it mentions anywhere.
    touched : set of str
        Those that it mentions in what runs when the module is imported.
    words : set of str
        Names, attributes and texts in it that could be an exercise's name.
    """

    module: str
    node: ast.stmt
    registers: bool = False
    names: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)

    @property
    def text(self) -> str:
        """Its meaning: neither comments nor layout."""
        return f"{self.module}: {ast.dump(self.node)}"

    @property
    def only_defines(self) -> bool:
        """Whether it does nothing but give something a name."""
        if isinstance(self.node, ast.Assign | ast.AnnAssign):
            targets = self.node.targets if isinstance(self.node, ast.Assign) else [self.node.target]
            return all(isinstance(n, ast.Name | ast.Tuple) for n in targets)
        if isinstance(self.node, ast.Expr):
            return isinstance(self.node.value, ast.Constant)  # a docstring
        definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
        return isinstance(self.node, definitions) and not self.registers

    def about(self, variables: dict[str, dict[str, str]]) -> set[str]:
        """The exercises that it does something with when the module is imported."""
        known = variables.get(self.module, {})
        return {known[n] for n in self.touched if n in known}

    def is_for_all(self, variables: dict[str, dict[str, str]]) -> bool:
        """Whether it does something that nobody knows whom it concerns."""
        return not self.only_defines and not self.about(variables)


class _Program:
    """The statements of some modules that import from one another."""

    def __init__(self, sources: dict[str, str]) -> None:
        self._modules: dict[str, list[_Statement]] = {}
        self._defined: dict[tuple[str, str], list[_Statement]] = {}
        self._imported: dict[tuple[str, str], tuple[str, str]] = {}
        for module, source in sources.items():
            tree = ast.parse(source)
            scopes = Scopes([tree])
            self._modules[module] = [_read(module, node, scopes) for node in tree.body]
            for statement in self._modules[module]:
                for name in bound_names(statement.node):
                    self._defined.setdefault((module, name), []).append(statement)
            own = {n for (m, n), by in self._defined.items() if m == module and not any(_is_import(s) for s in by)}
            for statement in self._modules[module]:
                decorators = getattr(statement.node, "decorator_list", [])
                statement.registers = any(
                    isinstance(n, ast.Name) and n.id in own for d in decorators for n in ast.walk(d)
                )
        for statement in self.statements():
            if isinstance(statement.node, ast.ImportFrom):
                for a in statement.node.names:
                    origin = statement.node.module or ""
                    self._imported[statement.module, a.asname or a.name] = (origin, a.name)

    def statements(self) -> list[_Statement]:
        """All statements, in order."""
        return [s for statements in self._modules.values() for s in statements]

    def all_of(self, module: str) -> list[_Statement]:
        """All statements of one module."""
        return self._modules.get(module, [])

    def defining(self, module: str, name: str) -> list[_Statement]:
        """The statements that give a name its value."""
        return self._defined.get((module, name), [])

    def reached(self, roots: Iterable[_Statement]) -> list[_Statement]:
        """The statements and all that the names in them lead to, in order."""
        waiting, found = list(roots), set()
        while waiting:
            statement = waiting.pop()
            if statement in found:
                continue
            found.add(statement)
            for name in statement.names:
                waiting += self.defining(statement.module, name)
                origin, original = self._imported.get((statement.module, name), ("", ""))
                waiting += self.defining(origin, original)
                waiting += self.all_of(f"{origin}.{original}")  # a module as a whole
            if isinstance(statement.node, ast.Import):
                for a in statement.node.names:
                    waiting += self.all_of(a.name)
            if isinstance(statement.node, ast.ImportFrom) and statement.node.names[0].name == "*":
                waiting += self.all_of(statement.node.module or "")
        return [s for s in self.statements() if s in found]

    def changing(self, reached: Iterable[_Statement]) -> list[_Statement]:
        """The statements about other exercises that are given data which these read, and may change it."""
        data = {
            (s.module, n)
            for s in reached
            if isinstance(s.node, ast.Assign | ast.AnnAssign)
            for n in bound_names(s.node)
        }
        return [s for s in self.statements() if not s.only_defines and any((s.module, n) in data for n in s.touched)]

    @staticmethod
    def texts(statements: Iterable[_Statement]) -> list[str]:
        """What to take a fingerprint of."""
        return [s.text for s in statements]


def _is_import(statement: _Statement) -> bool:
    return isinstance(statement.node, ast.Import | ast.ImportFrom)


def _read(module: str, node: ast.stmt, scopes: Scopes) -> _Statement:
    statement = _Statement(module, node)
    now = set(_run_on_import(node))
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            statement.words.add(part.id)
            if scopes.is_global(part):
                statement.names.add(part.id)
                if part in now:
                    statement.touched.add(part.id)
        elif isinstance(part, ast.Attribute):
            statement.words.add(part.attr)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isidentifier():
            statement.words.add(part.value)
    return statement


def _run_on_import(node: Node) -> Iterator[Node]:
    """The nodes of a statement that run when the module is imported: not the insides of functions."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts: list[Node] = [*node.decorator_list, node.args]
    elif isinstance(node, ast.Lambda):
        parts = [node.args]
    else:
        parts = list(ast.iter_child_nodes(node))
    for part in parts:
        yield from _run_on_import(part)
