"""What the names in a program are bound to: Python's scoping rules, read from syntax trees.

See https://docs.python.org/3/reference/executionmodel.html#naming-and-binding.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(eq=False)
class Scope:
    """One function, class or comprehension, or the module.

    Attributes
    ----------
    node : ast.AST, optional
        What it is the inside of; None for the module.
    parent : Scope, optional
        The scope around it.
    imports : dict
        For each name bound by an import, the dotted names that it may stand for.
    bindings : dict
        For each name bound otherwise, what binds it: the value of a plain assignment, else the binding node.
    star_imports : list of str
        Modules imported with a star.
    """

    node: ast.AST | None = None
    parent: Scope | None = None
    imports: dict[str, set[str]] = field(default_factory=dict)
    bindings: dict[str, list[ast.AST]] = field(default_factory=dict)
    star_imports: list[str] = field(default_factory=list)
    _elsewhere: dict[str, Scope] = field(default_factory=dict)  # names declared global or nonlocal

    def binds(self, name: str) -> bool:
        """Whether the name belongs to this scope."""
        return name not in self._elsewhere and (name in self.imports or name in self.bindings)


class Scopes:
    """The scopes of a program that comes in pieces, such as a notebook's cells; they share one module.

    Attributes
    ----------
    module : Scope
        The outermost scope.
    """

    def __init__(self, modules: Iterable[ast.Module]) -> None:
        self.module = Scope()
        self._of_name: dict[ast.Name, Scope] = {}
        for module in modules:
            _Reader(self.module, self._of_name).visit(module)

    def of(self, name: ast.Name) -> Scope:
        """The scope that binds a name where it stands; the module for what nothing binds."""
        stands_in = self._of_name.get(name, self.module)
        scope: Scope | None = stands_in
        while scope is not None:
            if name.id in scope._elsewhere:
                return scope._elsewhere[name.id]
            # The names of a class are seen in its body only, not in its methods.
            if scope.binds(name.id) and (scope is stands_in or not isinstance(scope.node, ast.ClassDef)):
                return scope
            scope = scope.parent
        return self.module

    def is_global(self, name: ast.Name) -> bool:
        """Whether a name, where it stands, is one of the module's (or a builtin)."""
        return self.of(name) is self.module


class _Reader(ast.NodeVisitor):
    def __init__(self, scope: Scope, of_name: dict[ast.Name, Scope]) -> None:
        self.scope = scope
        self.module = scope
        self.of_name = of_name

    def bind(self, name: str, by: ast.AST, scope: Scope | None = None) -> None:
        scope = scope or self.scope
        scope = scope._elsewhere.get(name, scope)
        scope.bindings.setdefault(name, []).append(by)

    def inside(self, node: ast.AST) -> _Reader:
        reader = _Reader(Scope(node, self.scope), self.of_name)
        reader.module = self.module
        return reader

    def each(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.of_name[node] = self.scope
        if not isinstance(node.ctx, ast.Load):
            self.bind(node.id, node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.each([node.annotation, node.value])
        self.assign(node.target, node.value or node)

    def assign(self, target: ast.AST, value: ast.AST) -> None:
        if isinstance(target, ast.Name):
            self.of_name[target] = self.scope
            self.bind(target.id, value)
        else:
            self.visit(target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        scope = self.scope
        while isinstance(scope.node, Comprehension) and scope.parent is not None:
            scope = scope.parent
        self.of_name[node.target] = scope
        self.bind(node.target.id, node.value, scope)

    def visit_Import(self, node: ast.Import) -> None:
        for a in node.names:
            name = a.asname or a.name.split(".")[0]
            self.add_import(name, a.name if a.asname else name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for a in node.names:
            if a.name == "*":
                self.scope.star_imports.append(node.module or "")
            else:
                self.add_import(a.asname or a.name, f"{node.module or ''}.{a.name}")

    def add_import(self, name: str, dotted: str) -> None:
        scope = self.scope._elsewhere.get(name, self.scope)
        scope.imports.setdefault(name, set()).add(dotted)

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            self.scope._elsewhere[name] = self.module

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        for name in node.names:
            scope = self.scope.parent
            while scope is not None and not (isinstance(scope.node, Function) and scope.binds(name)):
                scope = scope.parent
            if scope is not None:
                self.scope._elsewhere[name] = scope

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.bind(node.name, node)
        self.each(node.decorator_list)
        self.each([node.returns])
        self.function(node, node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.function(node, [node.body])

    def function(self, node: Function, body: Iterable[ast.AST]) -> None:
        a = node.args
        arguments = [x for x in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if x is not None]
        self.each([*a.defaults, *a.kw_defaults, *(x.annotation for x in arguments)])
        inner = self.inside(node)
        for x in arguments:
            inner.bind(x.arg, x)
        inner.each(body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.bind(node.name, node)
        self.each([*node.decorator_list, *node.bases, *node.keywords])
        self.inside(node).each(node.body)

    def comprehension(self, node: Comprehension) -> None:
        inner = self.inside(node)
        for k, generator in enumerate(node.generators):
            (self if k == 0 else inner).visit(generator.iter)
            inner.each([generator.target, *generator.ifs])
        inner.each([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension  # type: ignore[assignment]

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bind(node.name, node)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name:
            self.bind(node.name, node)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self.bind(node.name, node)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self.bind(node.rest, node)
        self.generic_visit(node)
