"""Turn a known mistake or an alternative solution into a program that can be submitted."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path

from course_utils.checking import Alternative, Mistake


@cache
def _module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def program_of(variant: Mistake | Alternative) -> str:
    """A program that defines the variant under the exercise's name.

    It holds the imports, the unmarked functions and the constants of the variant's module, and the variant itself.
    """
    path = Path(inspect.getsourcefile(variant.solution) or "")
    body: list[ast.stmt] = []
    for statement in _module(path).body:
        marked = isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.decorator_list
        if marked and statement.name != variant.name:  # type: ignore[attr-defined]
            continue
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(
            ("course_utils", "__future__")
        ):
            continue
        body.append(statement)
    module = ast.parse(ast.unparse(ast.Module(body, [])))
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name == variant.name:
            statement.decorator_list = []
    stands_for_function = inspect.isclass(variant.solution) and "__call__" in vars(variant.solution)
    made = f"{variant.name}()" if stands_for_function else variant.name
    return f"{ast.unparse(module)}\n\n{variant.exercise} = {made}\n"
