"""Which statements cannot fail when they run, so that what they define is surely defined afterwards."""

from __future__ import annotations

import ast
import builtins


def cannot_fail(statement: ast.stmt) -> bool:
    """Whether a statement does nothing that could raise: a plain definition, or a constant or lambda with a name.

    Decorators, defaults, hints and base classes run with the statement, and may raise; so may an import.
    """
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return not statement.decorator_list and _plain(statement.args) and _known_hint(statement.returns)
    if isinstance(statement, ast.ClassDef):
        return not (statement.decorator_list or statement.bases or statement.keywords) and all(
            cannot_fail(s) for s in statement.body
        )
    if isinstance(statement, ast.Assign):
        return all(isinstance(t, ast.Name) for t in statement.targets) and _is_sure(statement.value)
    return isinstance(statement, ast.Pass) or (isinstance(statement, ast.Expr) and _is_sure(statement.value))


def _is_sure(value: ast.AST) -> bool:
    if isinstance(value, ast.Lambda):
        return _plain(value.args)
    if isinstance(value, ast.List | ast.Tuple):
        return all(isinstance(v, ast.Constant) for v in value.elts)
    if isinstance(value, ast.Dict):
        return all(isinstance(v, ast.Constant) for v in [*value.keys, *value.values])
    return isinstance(value, ast.Constant)


def _plain(arguments: ast.arguments) -> bool:
    """Whether parameters have no defaults but constants, and no hints but those of Python's own names."""
    every = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
    return all(isinstance(d, ast.Constant | None) for d in [*arguments.defaults, *arguments.kw_defaults]) and all(
        _known_hint(a.annotation) for a in every if a is not None
    )


def _known_hint(hint: ast.AST | None) -> bool:
    return hint is None or isinstance(hint, ast.Constant) or (isinstance(hint, ast.Name) and hasattr(builtins, hint.id))
