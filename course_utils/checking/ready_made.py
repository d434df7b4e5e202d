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
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from types import FunctionType, ModuleType
from typing import Any

import torch
import torch.masked

from course_utils.checking.exercise import Exercise
from course_utils.checking.unmet import Unmet
from course_utils.checking.verdict import CriterionResult, ExerciseResult

AUTOGRAD_METHODS = ("backward", "requires_grad_")
# Functions whose name a tensor has for something else: Tensor.unfold slides along one axis and copies nothing.
NAMESAKES = frozenset({"torch.nn.functional.unfold"})
# What everybody knows under another name than that of the module that it was written in.
PUBLIC_NAMES = tuple(
    (f"{module.__name__}.{name}", getattr(module, name))
    for module, name in (
        *((torch, mode) for mode in ("no_grad", "inference_mode", "enable_grad", "set_grad_enabled")),
        (torch.nn, "Module"),
    )
)
HARMLESS = (torch.vmap,)  # though it lives in torch.func


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
        value = namespace.get(queue.pop())
        found |= dict.fromkeys(_forbidden_bases(value, forbidden))
        for tree in trees(value):
            imported = _imports(tree)
            names, local = {**namespace, **imported}, local_names(tree) - set(imported)
            inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and (text := _forbidden_argument(node, names, local, forbidden)):
                    found[text] = None
                if not isinstance(node, ast.Attribute | ast.Name) or id(node) in inner:
                    continue
                if text := _forbidden_use(node, names, local, forbidden):
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


def _imports(tree: ast.AST) -> dict[str, Any]:
    """What the imports inside a function bind, of the libraries that are loaded: reading imports nothing new."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = sys.modules.get(alias.name if alias.asname else alias.name.partition(".")[0])
                found |= {alias.asname or module.__name__: module} if module is not None else {}
        elif isinstance(node, ast.ImportFrom) and (module := sys.modules.get(node.module or "")) is not None:
            for alias in node.names:
                if (value := getattr(module, alias.name, None)) is not None:
                    found[alias.asname or alias.name] = value
    return found


def _forbidden_bases(value: object, forbidden: Sequence[str]) -> list[str]:
    """The classes that a notebook's class is made from, where they may not be used."""
    own = [c for c in value.__mro__ if c.__module__ == "__main__"] if isinstance(value, type) else []
    bases = [base for c in own for base in c.__bases__ if base.__module__ != "__main__"]
    named = [_resolved(base, base.__name__, []) for base in bases]
    return [name for name, base in named if any(_is_of_rule(name, base, rule) for rule in forbidden)]


def _forbidden_argument(
    node: ast.Call, namespace: Mapping[str, Any], local: set[str], forbidden: Sequence[str]
) -> str | None:
    """A call by name that passes an argument which it may not: the rules "function(parameter)"."""
    known, _, dotted, value = _meaning(node.func, namespace, local)
    given = {k.arg for k in node.keywords}
    for k in node.keywords if "torch.autograd.*" in forbidden else ():
        if k.arg == "requires_grad" and not (isinstance(k.value, ast.Constant) and k.value.value is False):
            return "requires_grad (autograd)"
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
        marked = isinstance(node, ast.Attribute) and node.attr == "requires_grad" and "torch.autograd.*" in forbidden
        return ".requires_grad (autograd)" if marked else None
    known, parts, dotted, value = _meaning(node, namespace, local)
    if known:
        if any(value is function for function in HARMLESS):
            return None
        if forbidden and _is_private(dotted):
            return f"{dotted}, which hides what is called"
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
    while isinstance(value, partial):
        value = value.func
    public = next((dotted for dotted, known in PUBLIC_NAMES if value is known), name)
    dotted = value.__name__ if isinstance(value, ModuleType) else public
    for part in parts:
        if part == "__call__":  # which is the function itself
            continue
        value = getattr(value, part, None)
        dotted = value.__name__ if isinstance(value, ModuleType) else f"{dotted}.{part}"
    return dotted, value


def _is_of_rule(dotted: str, value: Any, rule: str) -> bool:
    """Whether something is what a rule means: by its full name, or where only a short one is known by what it is."""
    if rule.endswith(".*"):
        short = dotted.partition(".")[0] not in sys.modules
        module = (getattr(value, "__module__", None) or "") if short else dotted
        return f"{module}.".startswith(rule[:-1])
    return dotted == rule or (callable(value) and any(value is function for function in _functions(rule)))


def _is_private(dotted: str) -> bool:
    """Whether a name is one that torch keeps to itself, behind which everything can be found once more."""
    root, *parts = dotted.split(".")
    private = any(part.startswith("_") and not part.endswith("__") for part in parts)
    return root in ("torch", "torchvision") and (private or (parts[:1] == ["ops"] and root == "torch"))


@cache
def _functions(rule: str) -> list[Callable[..., Any]]:
    """What a rule forbids: a function of torch's also where torch.special and others have it again."""
    module, _, name = rule.rpartition(".")
    places: list[Any] = []
    with contextlib.suppress(ImportError):
        places.append(importlib.import_module(module))
    if module.split(".")[0] == "torch" and rule not in NAMESAKES:
        places += [torch.Tensor, torch.special, torch.masked, torch.sparse]
    return [function for place in places if (function := getattr(place, name, None)) is not None]
