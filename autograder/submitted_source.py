"""The source of a submission: what its top-level names are bound to, what they reach, what runs with the cells."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Sequence
from functools import cached_property

from autograder.library_names import exports, imported, is_module, real_name
from autograder.scopes import Function, Scopes
from autograder.unreadable import KNOWN_ROOTS, is_below
from course_utils.sure_definitions import cannot_fail

# Decorators that keep the function for later, and bases that do nothing with a class that is made of them.
ONLY_WRAP = {"functools.cache", "functools.lru_cache", "torch.enable_grad", "torch.inference_mode", "torch.no_grad"}
ONLY_INHERITED = ("torch.nn", "torch.utils.data.Dataset", "torch.utils.data.IterableDataset")


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
        self.scopes = Scopes([*setup, *modules])
        self.hidden: dict[ast.AST, list[str]] = {}  # what `autograder.rules` has found in parts that run
        self._globals: dict[ast.AST, frozenset[str]] = {}  # asked for again and again
        self._add_star_imports()
        self.bound: dict[str, list[ast.stmt]] = {}  # at the end of the notebook
        self.ever: dict[str, list[ast.stmt]] = {}
        self.final_imports: dict[str, set[str]] = {}
        for statement in self.statements:
            self._bind(statement)
        self._forget_replaced_imports()
        self.classes = {s.name: s for s in self.statements if isinstance(s, ast.ClassDef)}
        self._used_unbound = self._find_unbound_uses()
        self.splats_into_torch = any(
            isinstance(n, ast.Call) and any(k.arg is None for k in n.keywords) and self._is_torch(n.func)
            for s in self.statements
            for n in ast.walk(s)
        )
        self.own_methods = {m.name for c in self.classes.values() for m in c.body if isinstance(m, ast.FunctionDef)}
        self.passes_modules = any(self._passes_module(s) for s in self.statements)

    def _add_star_imports(self) -> None:
        """Turn `from torch import *` into imports of the names that the source uses."""
        used = {n.id for s in self.statements for n in ast.walk(s) if isinstance(n, ast.Name)}
        for module in self.scopes.module.star_imports:
            exported = exports(module)
            for name in used if exported is None else used & exported:
                if exported is not None or not self.scopes.module.binds(name):
                    self.scopes.module.imports.setdefault(name, set()).add(f"{module}.{name}")

    def _bind(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, dotted in imported(statement):
                self.bound.setdefault(name, [])
                self.final_imports.setdefault(name, set()).add(dotted)
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                for name in set(self.bound) & (exports(statement.module or "") or set()):
                    self.final_imports.setdefault(name, set()).add(f"{statement.module}.{name}")
            return
        names = self._stored(statement)
        for name in names:
            # What may fail leaves the name as it was: then what it was bound to before counts too.
            if cannot_fail(statement):
                self.bound[name] = [statement]
                self.final_imports.pop(name, None)
            else:
                self.bound[name] = [*self.bound.get(name, []), statement]
        for name in names:
            self.ever.setdefault(name, []).append(statement)
        for node in ast.walk(statement):
            if isinstance(node, ast.Global):
                for name in node.names:
                    self.bound[name] = [*self.bound.get(name, []), statement]
            elif not isinstance(statement, Function | ast.ClassDef) and isinstance(node, ast.Import | ast.ImportFrom):
                for name, dotted in imported(node):
                    self.final_imports.setdefault(name, set()).add(dotted)

    def _forget_replaced_imports(self) -> None:
        """Let a name that is imported, and then defined before anything uses it, stand for the definition alone."""
        imports = self.scopes.module.imports
        declared = {name for s in self.statements for n in ast.walk(s) if isinstance(n, ast.Global) for name in n.names}
        mentioned = set(declared)
        for statement in self.statements:
            for name in self._stored(statement) & set(imports) - mentioned:
                if self.bound[name] == [statement] and name not in self.final_imports:
                    del imports[name]
            mentioned |= self.globals_in(statement)

    def _stored(self, statement: ast.stmt) -> set[str]:
        """The module's names that a statement binds, definitions inside an `if` and the like included."""
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return {statement.name}
        names = set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and self.scopes.is_global(node):
                names.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.MatchMapping):
                captured = node.rest if isinstance(node, ast.MatchMapping) else node.name
                names |= {captured} if captured else set()
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {name for name, _ in imported(node)}
        return names

    def _find_unbound_uses(self) -> set[str]:
        """Classes from which a method is taken without an instance, so that its `self` may be anything."""
        found = set()
        for node in (n for s in self.statements for n in ast.walk(s)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.classes:
                method = method_of(self.classes[node.value.id], node.attr)
                if method is not None and not _decorators(method) & {"staticmethod", "classmethod"}:
                    found.add(node.value.id)
        return found

    def _passes_module(self, statement: ast.stmt) -> bool:
        """Whether a module of torch is used as a value, so that any variable may be one."""
        bases = {n.value for n in ast.walk(statement) if isinstance(n, ast.Attribute)}
        for node in ast.walk(statement):
            if isinstance(node, ast.Name | ast.Attribute) and node not in bases and isinstance(node.ctx, ast.Load):
                for dotted in self.meanings(node)[0]:
                    if is_module(dotted) and dotted.startswith(KNOWN_ROOTS):
                        return True
        return False

    def _is_torch(self, node: ast.AST) -> bool:
        dotted, other = self.meanings(node)
        return other or any(d.startswith("torch") for d in dotted)

    def meanings(self, node: ast.AST) -> tuple[set[str], bool]:
        """The dotted names that an expression may stand for, and whether it may be anything else too."""
        if isinstance(node, ast.Attribute):
            bases, other = self.meanings(node.value)
            if node.attr == "__call__":  # which is the function itself
                return bases, other
            return {f"{base}.{node.attr}" for base in bases}, other
        if not isinstance(node, ast.Name):
            return set(), True
        scope = self.scopes.of(node)
        meant = scope.imports.get(node.id, set())
        return {real_name(dotted) for dotted in meant}, not meant or node.id in scope.bindings

    def is_builtin(self, node: ast.Name) -> bool:
        """Whether a name is one of Python's own that nothing binds anew."""
        return hasattr(builtins, node.id) and self.scopes.is_global(node) and not self.scopes.module.binds(node.id)

    def globals_in(self, node: ast.AST) -> frozenset[str]:
        """The module's names that some code mentions."""
        if node not in self._globals:
            names = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            self._globals[node] = frozenset(n.id for n in names if self.scopes.is_global(n))
        return self._globals[node]

    def reach(self, start: Iterable[str], stops: Iterable[str]) -> tuple[list[ast.stmt], set[str], set[str]]:
        """The code that `start` reaches by name, the names met on the way, and those in `stops` where it ended."""
        seen, met = set(start), set()
        stops = set(stops) - seen
        queue, code = list(seen), []
        while queue:
            for node in self.bound.get(queue.pop(), []):
                if node in code:
                    continue
                code.append(node)
                for name in self.globals_in(node):
                    if name in stops:
                        met.add(name)
                    elif name in self.bound and name not in seen:
                        seen.add(name)
                        queue.append(name)
        return code, seen, met

    @cached_property
    def executed(self) -> list[ast.AST]:
        """What runs when the cells run: statements, the heads of definitions, and the functions that those reach."""
        return self.reached_by(self.statements)

    def reached_by(self, statements: Iterable[ast.stmt]) -> list[ast.AST]:
        """The same for some statements."""
        found = [part for s in statements for part in _immediate(self, s)]
        seen: set[str] = set()
        for part in found:  # grows while it is read
            for name in self.globals_in(part) - seen:
                seen.add(name)
                found += [s for s in self.ever.get(name, []) if isinstance(s, Function | ast.ClassDef)]
        return found

    def holds_nothing(self, name: str) -> bool:
        """Whether a top-level name stands for a function, a module or a constant, in which nothing can be put."""
        return all(
            isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(s, ast.Assign | ast.AnnAssign) and s.value is not None and is_constant(s.value))
            for s in self.bound.get(name, [])
        )

    def owner(self, node: ast.AST) -> ast.ClassDef | None:
        """The student's own class of which an expression is surely an instance (or which it is itself)."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._plain_class(node.func.id) if self.scopes.is_global(node.func) else None
        if not isinstance(node, ast.Name):
            return None
        scope = self.scopes.of(node)
        bindings = scope.bindings.get(node.id, [])
        if node.id in scope.imports or not bindings:
            return None
        if all(isinstance(b, ast.Call) for b in bindings):
            owners = {self.owner(b) for b in bindings}
            return owners.pop() if len(owners) == 1 else None
        if len(bindings) == 1 and isinstance(scope.node, ast.FunctionDef) and scope.parent is not None:
            first, around = [*scope.node.args.posonlyargs, *scope.node.args.args][:1], scope.parent.node
            if first == bindings and isinstance(around, ast.ClassDef) and not scope.node.decorator_list:
                return self._plain_class(around.name)
        return None

    def _plain_class(self, name: str, heirs: tuple[str, ...] = ()) -> ast.ClassDef | None:
        """A class whose instances have what stands in it, and nothing of torch's."""
        found = self.classes.get(name)
        bases = [b.id if isinstance(b, ast.Name) else "" for b in found.bases] if found else []
        if (
            found is None
            or name in heirs  # no program, but it can be written
            or self.scopes.module.bindings.get(name) != [found]
            or name in self._used_unbound
            or found.keywords
            or not _decorators(found) <= {"dataclass"}
            or any(b != "object" and self._plain_class(b, (*heirs, name)) is None for b in bases)
        ):
            return None
        return found

    def owner_itself(self, node: ast.Attribute) -> ast.ClassDef | None:
        """The student's own class of which an expression takes a static method or class method."""
        if not isinstance(node.value, ast.Name) or not self.scopes.is_global(node.value):
            return None
        found = self._plain_class(node.value.id)
        method = method_of(found, node.attr) if found else None
        return found if method is not None and _decorators(method) & {"staticmethod", "classmethod"} else None

    def has_own(self, owner: ast.ClassDef, attribute: str) -> bool:
        """Whether a class of the student's defines a method, or sets an attribute of its instances."""
        for node in ast.walk(owner):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == attribute:
                return True
        if method_of(owner, attribute) is not None:
            return True
        bases = [self.classes[b.id] for b in owner.bases if isinstance(b, ast.Name) and b.id in self.classes]
        return any(self.has_own(b, attribute) for b in bases)


def _immediate(source: Source, statement: ast.stmt) -> list[ast.AST]:
    """What of a statement runs with the cell: all of it, but of a definition only its head.

    A definition is handed as a whole to its decorators and its bases, so where it has any, the whole counts.
    """
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        given: list[ast.AST] = [*statement.args.defaults, *(d for d in statement.args.kw_defaults if d is not None)]
        hints = [a.annotation for a in ast.walk(statement.args) if isinstance(a, ast.arg) and a.annotation is not None]
        given += [h for h in [*hints, statement.returns] if h is not None and not is_hint(source, h)]
        given += statement.decorator_list
        return given if all(_only_wraps(source, d) for d in statement.decorator_list) else [statement]
    if isinstance(statement, ast.ClassDef):
        if _decorators(statement) - {"dataclass"} or statement.keywords or not _is_only_inherited(source, statement):
            return [statement]
        return [part for s in statement.body for part in _immediate(source, s)]
    return [] if isinstance(statement, ast.Import | ast.ImportFrom) else [statement]


def _only_wraps(source: Source, decorator: ast.expr) -> bool:
    """Whether a decorator calls nothing of the function that it is handed before somebody calls that."""
    head = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(head, ast.Name) and head.id in ("property", "staticmethod", "classmethod"):
        return source.is_builtin(head)
    dotted, other = source.meanings(head)
    return bool(dotted) and not other and dotted <= ONLY_WRAP


def _is_only_inherited(source: Source, definition: ast.ClassDef, heirs: tuple[str, ...] = ()) -> bool:
    """Whether the bases of a class call nothing of it when it is made: torch's modules, and their heirs."""
    for base in definition.bases:
        own = source.classes.get(base.id) if isinstance(base, ast.Name) else None
        if own is not None and own.name not in heirs:
            if source.scopes.module.bindings.get(own.name) != [own] or method_of(own, "__init_subclass__"):
                return False
            if own.keywords or own.decorator_list or not _is_only_inherited(source, own, (*heirs, own.name)):
                return False
        else:
            dotted, other = source.meanings(base)
            if other or not dotted or not all(is_below(d, ONLY_INHERITED) for d in dotted):
                return False
    return True


def _decorators(definition: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """The names of a definition's decorators, where they are plain names or calls of one."""
    heads = [d.func if isinstance(d, ast.Call) else d for d in definition.decorator_list]
    return {h.id if isinstance(h, ast.Name) else ast.unparse(h) for h in heads}


def method_of(owner: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    """The method that stands in a class under this name; None where there is none."""
    return next((m for m in owner.body if isinstance(m, ast.FunctionDef) and m.name == name), None)


def is_constant(value: ast.AST) -> bool:
    """Whether an expression is made of numbers and texts alone, in which nothing can be put."""
    allowed = ast.Constant | ast.Tuple | ast.UnaryOp | ast.BinOp | ast.operator | ast.unaryop | ast.expr_context
    return all(isinstance(n, allowed) for n in ast.walk(value))


def is_hint(source: Source, node: ast.AST) -> bool:
    """Whether a type hint is a plain one, which calls nothing: no brackets and no ``|`` of something of their own."""
    allowed = ast.Name | ast.Attribute | ast.Subscript | ast.Constant | ast.BinOp | ast.BitOr | ast.Tuple | ast.List
    if not all(isinstance(n, allowed | ast.expr_context) for n in ast.walk(node)):
        return False
    called: list[ast.AST] = [n for n in ast.walk(node) if isinstance(n, ast.BinOp)]
    called += [n.value for n in ast.walk(node) if isinstance(n, ast.Subscript)]
    names = [n for part in called for n in ast.walk(part) if isinstance(n, ast.Name)]
    return all(not source.meanings(n)[1] or source.is_builtin(n) for n in names)
