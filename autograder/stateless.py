"""Read from the source whether an exercise can keep anything from one call to the next.

Most solutions are plain functions of their arguments.  Those of one submission may be judged in one process, which
saves a fork for each; whatever could leave something behind (a global, an attribute, a mutable default, a file, a
library's setting) is judged in a process of its own.  So what is not known here is taken to keep something.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Iterable
from functools import cache

import torch

from autograder.submitted_source import Source, is_constant, is_hint
from autograder.unreadable import UNREADABLE_ATTRIBUTES

LASTING = (
    *(ast.Global, ast.Nonlocal, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Match, ast.Yield, ast.YieldFrom),
    *(ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await),
)
BUILTINS = {
    *("abs", "all", "any", "bool", "dict", "divmod", "enumerate", "filter", "float", "int", "isinstance", "len"),
    *("list", "map", "max", "min", "pow", "print", "range", "reversed", "round", "set", "slice", "sorted", "str"),
    *("sum", "tuple", "zip", "AssertionError", "Exception", "IndexError", "KeyError", "NotImplementedError"),
    *("RuntimeError", "TypeError", "ValueError", "ZeroDivisionError"),
}
# Methods that reach beyond their object: files, memory shared with others, memory that was used before.
LASTING_METHODS = UNREADABLE_ATTRIBUTES | {"dump", "new", "new_empty", "resize_", "resize_as_", "share_memory_"}
OF_TORCH = {"no_grad", "enable_grad", "inference_mode", "Size", "Generator", "inf", "nan", "pi", "e", "newaxis"}
OPERATORS = torch._C._VariableFunctions
OF_TORCH |= {name for name in dir(OPERATORS) if not name.startswith(("_", "set_", "from_", "empty", "resize"))}
OPERATORS_OF = {module.__name__: module for module in (torch.nn.functional, torch.linalg, torch.special)}
OF_PYTHON = {f"{module.__name__}.{name}" for module in (math, itertools) for name in dir(module)}
OF_PYTHON |= {f"collections.{name}" for name in ("Counter", "defaultdict", "deque")}
OF_PYTHON |= {"functools.partial", "functools.reduce"}
RUN_BY_A_DEFINITION = {"__init_subclass__", "__class_getitem__", "__set_name__", "__prepare__"}


def keeping_nothing(source: Source, exercises: Iterable[str]) -> set[str]:
    """The exercises whose functions leave nothing behind that a later call could find.

    Parameters
    ----------
    source : Source
        The submission's.
    exercises : iterable of str
        Top-level names of it.
    """
    # The cells only import, define and name things, so that no library has been altered.
    if source.scopes.module.star_imports or not all(_only_defines(source, s) for s in source.statements):
        return set()
    return {
        name
        for name in exercises
        if source.bound.get(name)
        and all(_is_constant(source, s) or _leaves_nothing(source, s) for s in source.reach([name], ())[0])
    }


def _only_defines(source: Source, statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef):
        return _is_plain_head(source, statement) and statement.name not in RUN_BY_A_DEFINITION
    if isinstance(statement, ast.ClassDef):
        of_libraries = all(source.meanings(base)[0] and not source.meanings(base)[1] for base in statement.bases)
        plain = of_libraries and not statement.decorator_list and not statement.keywords
        return plain and all(_only_defines(source, s) for s in statement.body)
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass) or _is_constant(source, statement)


def _is_plain_head(source: Source, function: ast.FunctionDef) -> bool:
    """Whether nothing is called when the definition runs, and no default can be changed."""
    defaults = [d for d in [*function.args.defaults, *function.args.kw_defaults] if d is not None]
    hints = [function.returns, *(n.annotation for n in ast.walk(function.args) if isinstance(n, ast.arg))]
    return (
        not function.decorator_list
        and all(is_constant(d) for d in defaults)
        and all(h is None or is_hint(source, h) for h in hints)
    )


def _is_constant(source: Source, statement: ast.stmt) -> bool:
    """Whether a statement names something that cannot change: numbers and texts, a function, or another's name."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)  # a text
    if isinstance(statement, ast.Assign):
        named, value = all(isinstance(t, ast.Name) for t in statement.targets), statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        named, value = isinstance(statement.target, ast.Name) and is_hint(source, statement.annotation), statement.value
    else:
        return False
    return named and (
        is_constant(value) or (isinstance(value, ast.Name | ast.Attribute) and _leaves_nothing(source, value))
    )


def _leaves_nothing(source: Source, code: ast.AST) -> bool:
    if isinstance(code, LASTING):
        return False
    if isinstance(code, ast.Name):
        return _is_harmless_name(source, code)
    if isinstance(code, ast.Attribute):
        if not isinstance(code.ctx, ast.Load) or code.attr.startswith("_") or code.attr in LASTING_METHODS:
            return False
        dotted, other = source.meanings(code)
        if dotted:
            return not other and all(_computes(d) for d in dotted)
        if isinstance(code.value, ast.Name) and source.scopes.is_global(code.value):
            return False  # of a function of the student's, say
    hint = None
    if isinstance(code, ast.FunctionDef):
        hint = code.returns
    elif isinstance(code, ast.arg | ast.AnnAssign):
        hint = code.annotation
    if hint is not None and not is_hint(source, hint):
        return False
    return all(_leaves_nothing(source, child) for child in ast.iter_child_nodes(code) if child is not hint)


def _is_harmless_name(source: Source, name: ast.Name) -> bool:
    if not source.scopes.is_global(name):
        return True
    if not isinstance(name.ctx, ast.Load):
        return False
    dotted, other = source.meanings(name)
    if dotted:
        return not other and all(_computes(d) for d in dotted)
    return name.id in source.bound or name.id in BUILTINS  # what is bound is read by itself


@cache
def _computes(dotted: str) -> bool:
    """Whether a library's name stands for a function, or a constant, that computes and alters no setting."""
    module, _, name = dotted.rpartition(".")
    if module == "torch":
        return name in OF_TORCH or isinstance(getattr(torch, name, None), torch.dtype)
    found = getattr(OPERATORS_OF.get(module), name, None)
    return dotted in OF_PYTHON or (callable(found) and not isinstance(found, type))
