"""See in a notebook that a function calls what the exercise asks to write.

Grading reads the submission's source from end to end and is not to be fooled (`autograder.rules`).  This is for the
student who did not read the rules: it looks at the names that stand in the function and in the notebook's functions
that it calls, and tells at once what grading would tell weeks later.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

import torch

from course_utils.checking.exercise import Exercise
from course_utils.checking.unmet import Unmet
from course_utils.checking.verdict import CriterionResult, ExerciseResult

AUTOGRAD_METHODS = ("backward", "requires_grad_")
# Functions whose name a tensor has for something else: Tensor.unfold slides along one axis and copies nothing.
NAMESAKES = frozenset({"torch.nn.functional.unfold"})
GRADIENT_MODES = (torch.no_grad, torch.inference_mode)  # harmless, though they live in torch.autograd


def refused(exercise: Exercise, found: Sequence[str]) -> ExerciseResult:
    """The verdict where an exercise calls what it may not: no criterion is met."""
    text = f"{exercise.name} may not use {', '.join(found[:3])}: the notebook's rules say what you may not call."
    return ExerciseResult(exercise, [CriterionResult(c, Unmet(text, "forbidden")) for c in exercise.criteria])


def ready_made_calls(
    name: str, namespace: Mapping[str, Any], forbidden: Sequence[str], others: Iterable[str]
) -> list[str]:
    """What a notebook's function uses by name though it may not.

    Parameters
    ----------
    name : str
        The function, or class, to look at.
    namespace : mapping
        The notebook's globals.
    forbidden : sequence of str
        Dotted names as `Exercise` has them.
    others : iterable of str
        Functions that have checks of their own and are not looked into.
    """
    found: dict[str, None] = {}
    seen, queue = set(others) | {name}, [name]
    while queue:
        for tree in trees(namespace.get(queue.pop())):
            local = local_names(tree)
            inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and (text := _forbidden_argument(node, namespace, local, forbidden)):
                    found[text] = None
                if not isinstance(node, ast.Attribute | ast.Name) or id(node) in inner:
                    continue
                if text := _forbidden_use(node, namespace, local, forbidden):
                    found[text] = None
                if isinstance(node, ast.Name) and node.id not in seen | local and node.id in namespace:
                    seen.add(node.id)
                    queue.append(node.id)
    return list(found)


def trees(value: object) -> list[ast.Module]:
    """The syntax trees of a notebook's function, or of the methods of its class; none for anything else."""
    functions = list(vars(value).values()) if isinstance(value, type) else [value]
    trees = []
    for function in functions:
        if isinstance(function, FunctionType) and function.__module__ == "__main__":
            with contextlib.suppress(OSError, TypeError, SyntaxError):  # made by other means than a cell
                trees.append(ast.parse(textwrap.dedent(inspect.getsource(function))))
    return trees


def local_names(tree: ast.AST) -> set[str]:
    """The names that a function's arguments and assignments take."""
    arguments = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    return arguments | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def _forbidden_argument(
    node: ast.Call, namespace: Mapping[str, Any], local: set[str], forbidden: Sequence[str]
) -> str | None:
    """A call by name that passes an argument which it may not: the rules "function(parameter)"."""
    known, _, dotted, value = _meaning(node.func, namespace, local)
    given = {k.arg for k in node.keywords}
    for rule in forbidden if known else ():
        function, _, parameter = rule.rstrip(")").partition("(")
        if parameter in given and _is_of_rule(dotted, value, function):
            return f"{function} with {parameter}"
    return None


def _meaning(node: ast.AST, namespace: Mapping[str, Any], local: set[str]) -> tuple[bool, list[str], str, Any]:
    """Whether an expression such as `F.softmax` stands for something known; its attributes, full name and value."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id not in local and node.id in namespace:
        return True, parts, *_resolved(namespace[node.id], node.id, parts)
    return False, parts, "", None


def _forbidden_use(
    node: ast.Attribute | ast.Name, namespace: Mapping[str, Any], local: set[str], forbidden: Sequence[str]
) -> str | None:
    if not isinstance(node.ctx, ast.Load):
        return None
    known, parts, dotted, value = _meaning(node, namespace, local)
    if known:
        if any(value is mode for mode in GRADIENT_MODES):
            return None
        return next((dotted for rule in forbidden if _is_of_rule(dotted, value, rule)), None)
    for rule in forbidden:  # an attribute of a tensor, most likely
        last = rule.split(".")[-1]
        if rule in NAMESAKES:
            continue
        if parts and last != "*" and parts[-1] in (last, f"{last}_") and hasattr(torch.Tensor, parts[-1]):
            return f".{parts[-1]} (as {rule})"
    if parts and "torch.autograd.*" in forbidden and parts[-1] in AUTOGRAD_METHODS:
        return f".{parts[-1]} (autograd)"
    return None


def _resolved(value: Any, name: str, parts: Sequence[str]) -> tuple[str, Any]:
    """The full name of an expression such as `F.softmax`, and what it stands for."""
    dotted = value.__name__ if isinstance(value, ModuleType) else name
    for part in parts:
        value = getattr(value, part, None)
        dotted = value.__name__ if isinstance(value, ModuleType) else f"{dotted}.{part}"
    return dotted, value


def _is_of_rule(dotted: str, value: Any, rule: str) -> bool:
    if rule.endswith(".*"):
        module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
        return f"{dotted}.".startswith(rule[:-1]) or f"{module}.".startswith(rule[:-1])
    return dotted == rule or (value is not None and callable(value) and value is _object(rule))


def _object(rule: str) -> Callable[..., Any] | None:
    module, _, name = rule.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
