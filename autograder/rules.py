"""Read from a student's source whether an exercise calls what it is meant to write.

An exercise's code is its own function and whatever helpers, classes, imports and aliases it reaches by name, up
to other exercises (those are judged by themselves).  Code whose calls cannot be read from the source
(`getattr` with a computed name, `eval`, `__dict__`) is refused where anything is forbidden.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# Ways of calling something whose name does not stand in the source.
UNREADABLE_CALLS = {"eval", "exec", "compile", "__import__", "globals", "locals", "vars", "get_ipython", "open"}
UNREADABLE_MODULES = (
    "builtins",
    "codecs",
    "ctypes",
    "gc",
    "importlib",
    "inspect",
    "marshal",
    "operator.attrgetter",
    "operator.methodcaller",
    "pickle",
    "pkgutil",
    "pydoc",
    "runpy",
    "subprocess",
    "sys.modules",
    "torch._C",
    "torch._refs",
    "torch._prims",
    "torch._decomp",
    "torch.jit",
    "torch.library",
    "torch.ops",
    "torch.package",
    "torch.load",
    "types",
    "zipimport",
)
READABLE_DUNDERS = {
    "__abs__",
    "__add__",
    "__call__",
    "__class__",
    "__contains__",
    "__doc__",
    "__enter__",
    "__eq__",
    "__exit__",
    "__future__",
    "__getitem__",
    "__init__",
    "__iter__",
    "__len__",
    "__matmul__",
    "__mul__",
    "__name__",
    "__neg__",
    "__next__",
    "__post_init__",
    "__repr__",
    "__setitem__",
    "__str__",
    "__sub__",
    "__truediv__",
    "__version__",
}
AUTOGRAD_WORDS = {"backward", "requires_grad", "requires_grad_"}


@dataclass
class Reading:
    """What reading one exercise's source found.

    Attributes
    ----------
    violations : list of str
        What is used though it is forbidden, each as a short text.
    exercises : set of str
        Other exercises that the code refers to, directly or through helpers and further exercises.
    """

    violations: list[str] = field(default_factory=list)
    exercises: set[str] = field(default_factory=set)


class Source:
    """All top-level names of a submission, and the code behind each.

    Parameters
    ----------
    modules : sequence of ast.Module
        The parsed cells, in the order in which they run; a later definition replaces an earlier one.
    setup : sequence of ast.Module
        What runs before them; only its imports matter.
    """

    def __init__(self, modules: Sequence[ast.Module], setup: Sequence[ast.Module] = ()) -> None:
        self.statements = [s for module in modules for s in module.body]
        self.bound: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, set[str]] = {}
        self.star_imports: list[str] = []
        self.own_methods: set[str] = set()
        for module in setup:
            for node in ast.walk(module):
                self._import(node)
        # A name that is also a variable somewhere may be anything there.
        self.variables: set[str] = set()
        for statement in self.statements:
            self._bind(statement)
            for node in ast.walk(statement):
                self._import(node)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    self.variables.add(node.id)
                elif isinstance(node, ast.arg):
                    self.variables.add(node.arg)
                elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                    self.variables.add(node.name)
                elif isinstance(node, ast.ClassDef):
                    self.own_methods |= {m.name for m in node.body if isinstance(m, ast.FunctionDef)}
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    self.variables.add(node.name)

    def _bind(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.bound[statement.name] = [statement]
            return
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for a in statement.names:
                self.bound.setdefault(a.asname or a.name.split(".")[0], [])
            return
        names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        names |= {n.name for n in ast.walk(statement) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        for name in names:
            plain = isinstance(statement, ast.Assign | ast.AnnAssign)
            self.bound[name] = [statement] if plain else [*self.bound.get(name, []), statement]

    def _import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for a in node.names:
                name = a.asname or a.name.split(".")[0]
                self.imported.setdefault(name, set()).add(a.name if a.asname else name)
        elif isinstance(node, ast.ImportFrom):
            for a in node.names:
                if a.name == "*":
                    self.star_imports.append(node.module or "")
                else:
                    self.imported.setdefault(a.asname or a.name, set()).add(f"{node.module}.{a.name}")

    def resolve(self, node: ast.AST) -> str | None:
        """The dotted name of a module's member that an expression names, where only one is possible."""
        if isinstance(node, ast.Name):
            meanings = self.imported.get(node.id, set())
            return next(iter(meanings)) if len(meanings) == 1 and node.id not in self.variables else None
        if isinstance(node, ast.Attribute):
            base = self.resolve(node.value)
            return f"{base}.{node.attr}" if base else None
        return None

    def reach(self, start: str, stops: Iterable[str]) -> tuple[list[ast.stmt], set[str], set[str]]:
        """The code that `start` reaches by name, the names met on the way, and those in `stops` where it ended."""
        stops, seen, met = set(stops) - {start}, {start}, set()
        queue, code = [start], []
        while queue:
            for node in self.bound.get(queue.pop(), []):
                code.append(node)
                for name in _names(node):
                    if name in stops:
                        met.add(name)
                    elif name in self.bound and name not in seen:
                        seen.add(name)
                        queue.append(name)
        return code, seen, met

    def connected(self, names: set[str], stops: Iterable[str]) -> set[str]:
        """All top-level names that share a statement with one of `names`, directly or over others."""
        groups = [_names(s) & set(self.bound) - set(stops) for s in self.statements]
        grown = set(names)
        while True:
            more = set().union(*(g for g in groups if g & grown)) - grown
            if not more:
                return grown
            grown |= more


def _names(node: ast.AST) -> set[str]:
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names | {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def read(source: Source, exercise: str, forbidden: Sequence[str], exercises: Sequence[str]) -> Reading:
    """What the code of one exercise uses though it may not, and which other exercises it leans on."""
    code, own, met = source.reach(exercise, exercises)
    reading = Reading(exercises=set(met))
    queue = list(met)
    while queue:
        for name in source.reach(queue.pop(), exercises)[2] - reading.exercises - {exercise}:
            reading.exercises.add(name)
            queue.append(name)
    if forbidden:
        code = code + _side_doors(source, code, own, forbidden, exercises)
        reading.violations = list(dict.fromkeys(v for node in code for v in _violations(source, node, forbidden)))
    return reading


def _side_doors(
    source: Source, code: list[ast.stmt], own: set[str], forbidden: Sequence[str], exercises: Sequence[str]
) -> list[ast.stmt]:
    """Top-level statements that the exercise does not name but that may hand it something forbidden.

    Such as ``table["f"] = torch.softmax`` where the exercise calls ``table["f"]``, or ``torch.f = torch.softmax``.
    A comparison with the forbidden function, as a test of one's own, is none.
    """
    words = {n.attr for node in code for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    related = source.connected(own - set(exercises), exercises)
    doors = []
    for statement in source.statements:
        if statement in code or getattr(statement, "name", None) in exercises:
            continue
        stored = {n.attr for n in ast.walk(statement) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        called = {n.func.id for n in ast.walk(statement) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        hides = called & {"exec", "eval", "setattr", "globals", "__import__"}
        if hides or ((stored & words or _names(statement) & related) and _violations(source, statement, forbidden)):
            doors.append(statement)
    return doors


def _violations(source: Source, code: ast.AST, forbidden: Sequence[str]) -> list[str]:
    return [text for node in ast.walk(code) if (text := _violation(source, node, forbidden))]


def _violation(source: Source, node: ast.AST, forbidden: Sequence[str]) -> str | None:
    if isinstance(node, ast.Call):
        return _call(source, node)
    if isinstance(node, ast.keyword) and node.arg == "requires_grad" and "torch.autograd.*" in forbidden:
        off = isinstance(node.value, ast.Constant) and node.value.value is False
        return None if off else "requires_grad (autograd)"
    if isinstance(node, ast.ImportFrom):
        for a in node.names:
            text = _dotted(f"{node.module}.{a.name}", forbidden)
            if text and a.name != "*":
                return text
        return None
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        possible = list(source.imported.get(node.id, ()))
        if node.id not in source.variables:
            possible += [f"{module}.{node.id}" for module in source.star_imports]
        return next((text for dotted in possible if (text := _dotted(dotted, forbidden))), None)
    if isinstance(node, ast.Attribute):
        return _attribute(source, node, forbidden)
    return None


def _call(source: Source, node: ast.Call) -> str | None:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    if name in source.variables:
        return None
    if name in UNREADABLE_CALLS:
        return f"{name}(), which hides what is called"
    if name in ("getattr", "setattr", "hasattr", "delattr"):
        key = node.args[1] if len(node.args) > 1 else None
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            return f"{name} with a computed name, which hides what is called"
    return None


def _attribute(source: Source, node: ast.Attribute, forbidden: Sequence[str]) -> str | None:
    dotted = source.resolve(node)
    if dotted:
        return _dotted(dotted, forbidden)
    if node.attr.startswith("__") and node.attr.endswith("__") and node.attr not in READABLE_DUNDERS:
        return f"{node.attr}, which hides what is called"
    if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and node.attr in source.own_methods:
        return None
    for rule in forbidden:
        parts = rule.split(".")
        if parts[0] != "torch":
            continue
        if parts[-1] != "*" and node.attr == parts[-1]:
            return f".{node.attr} (as {rule})"
        if parts[-1] == "*" and len(parts) == 3 and node.attr == parts[1] and parts[1] != "special":
            return f".{node.attr} (as {rule})"
    if "torch.autograd.*" in forbidden and node.attr in AUTOGRAD_WORDS:
        if node.attr == "requires_grad" and isinstance(node.ctx, ast.Load):
            return None
        return f".{node.attr} (autograd)"
    return None


def _dotted(dotted: str, forbidden: Sequence[str]) -> str | None:
    for rule in forbidden:
        if rule.endswith(".*"):
            if dotted.startswith(rule[:-1]):
                return dotted
        elif (
            dotted == rule
            or (
                rule.startswith("torch.")
                and dotted.startswith(("torch.Tensor.", "torch.special.", "torch.masked.", "torch.sparse."))
                and dotted.split(".")[-1] == rule.split(".")[-1]
            )
            or (rule.startswith("torch.") and dotted in (f"torch._{rule[6:]}", f"torch.{rule[6:]}_"))
        ):
            return dotted
    for module in UNREADABLE_MODULES:
        if dotted == module or dotted.startswith(module + "."):
            return f"{dotted}, which hides what is called"
    last = dotted.split(".")[-1]
    if last.startswith("__") and last.endswith("__") and last not in READABLE_DUNDERS:
        return f"{dotted}, which hides what is called"
    return None


def constant_getattr(tree: ast.AST) -> ast.AST:
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
            ):
                attribute = ast.Attribute(value=node.args[0], attr=node.args[1].value, ctx=ast.Load())
                return ast.copy_location(attribute, node)
            return node

    return ast.fix_missing_locations(Rewrite().visit(tree))
