"""Read from a student's source whether an exercise calls what it is meant to write.

An exercise's code is its own function and whatever helpers, classes and aliases it reaches by name, up to other
exercises (those are judged by themselves); and what runs when the cells run, where that can hand the exercise
something: a table filled later, an attribute set on a class, a patched library.  Code whose calls cannot be read
from the source (`getattr` with a computed name, `eval`, `__dict__`) is refused where anything is forbidden.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch

from autograder.library_names import exports, imported, is_module, real_name
from autograder.submitted_source import Source, is_hint, method_of
from autograder.unreadable import (
    ARGUMENTS,
    GETTER_ATTRIBUTES,
    KNOWN_ROOTS,
    MODULES_BY_ATTRIBUTE,
    NO_GETTERS,
    READABLE,
    REFLECTION,
    UNREADABLE_ATTRIBUTES,
    UNREADABLE_CALLS,
    hides_calls,
    is_below,
    is_unreadable_dunder,
)
from course_utils.checking.ready_made import NAMESAKES

AUTOGRAD_WORDS = {"backward", "requires_grad", "requires_grad_"}
HARMLESS = {"torch.func.vmap"}  # nothing is differentiated
MATCHED_BY_VALUE = {"bool", "bytearray", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"}


@dataclass
class Reading:
    """What reading one exercise's source found.

    Attributes
    ----------
    violations : list of str
        What is used though it is forbidden, each as a short text.
    exercises : set of str
        Other exercises that the code refers to, directly or through helpers and further exercises.
    replaced : set of str
        Those of them that use what this exercise may not use, though they may: the reference stands in for them.
    keeps_nothing : bool
        Whether its calls surely leave nothing behind (`autograder.stateless`).
    """

    violations: list[str] = field(default_factory=list)
    exercises: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    keeps_nothing: bool = False


def read(source: Source, exercise: str, forbidden: Sequence[str], exercises: Sequence[str]) -> Reading:
    """What the code of one exercise uses though it may not, and which other exercises it leans on."""
    code, own, met = source.reach([exercise], exercises)
    reading = Reading(exercises=set(met))
    queue = list(met)
    while queue:
        for name in source.reach([queue.pop()], exercises)[2] - reading.exercises - {exercise}:
            reading.exercises.add(name)
            queue.append(name)
    if forbidden:
        found = [text for dotted in source.final_imports.get(exercise, ()) if (text := _dotted(dotted, forbidden))]
        found += [v for node in code for v in _violations(source, node, forbidden)]
        found += _side_doors(source, code, own - set(exercises) | {exercise}, forbidden, exercises)
        reading.violations = list(dict.fromkeys(found))
    return reading


def hidden_when_run(source: Source, statement: ast.stmt) -> list[str]:
    """What hides its calls among what a statement of a cell does when the cell runs, each as a short text."""
    return [text for part in source.reached_by([statement]) for text in _hidden_in(source, part)]


def _hidden_in(source: Source, part: ast.AST) -> list[str]:
    """What some code that runs with the cells uses though it hides what is called; a file may be opened."""
    if part not in source.hidden:
        source.hidden[part] = [v for v in _violations(source, part, ()) if not v.startswith("open()")]
    return source.hidden[part]


def _side_doors(
    source: Source, code: list[ast.stmt], own: set[str], forbidden: Sequence[str], exercises: Sequence[str]
) -> list[str]:
    """What else runs with the cells and may hand the exercise something forbidden, or hide that it does.

    Such as ``table["f"] = torch.softmax`` where the exercise calls ``table["f"]``, or ``torch.f = torch.softmax``.
    A comparison with the forbidden function, as a test of one's own, is none.
    """
    executed = [node for node in source.executed if node not in code]
    found = [text for node in executed for text in _hidden_in(source, node)]
    words = {n.attr for node in code for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    words |= {name for node in code for name in source.globals_in(node)}
    mentioned = {id(node): source.globals_in(node) for node in executed}
    related = {n for n in own if n not in exercises and not source.holds_nothing(n)}
    grown = True
    while grown:
        size = len(related)
        for names in mentioned.values():
            if names & related:
                related |= {n for n in names if n in source.bound and n not in exercises} - {
                    n for n in names if source.holds_nothing(n)
                }
        grown = len(related) > size
    for node in executed:
        if mentioned[id(node)] & related or _stores(source, node, words):
            reached, _, _ = source.reach(mentioned[id(node)] - set(exercises), exercises)
            found += [v for part in [node, *reached] for v in _violations(source, part, forbidden)]
    return found


def _stores(source: Source, code: ast.AST, words: set[str]) -> bool:
    """Whether code sets an attribute that the exercise may meet: of one of its words, of an operator, of a library."""
    for node in ast.walk(code):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if node.attr in words or node.attr.startswith("__") or source.meanings(node.value)[0]:
                return True
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            return True
    return False


def _violations(source: Source, code: ast.AST, forbidden: Sequence[str]) -> list[str]:
    """What some code uses though it may not; a dotted name is read as a whole, and type hints are not read."""
    found, queue = [], [code]
    while queue:
        node = queue.pop(0)
        text = _violation(source, node, forbidden)
        if text:
            found.append(text)
        unread: list[ast.AST | None] = []
        if isinstance(node, ast.Attribute):
            dotted, other = source.meanings(node)
            if dotted and not other:
                continue
        elif isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id in REFLECTION)
            or _with_rules(source, node.func, forbidden)
        ):
            unread.append(node.func)  # read with its arguments
        elif isinstance(node, ast.arg | ast.AnnAssign):
            unread.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            unread.append(node.returns)
        unread = [n for n in unread if n is not None and (isinstance(node, ast.Call) or is_hint(source, n))]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):  # as a decorator it gets the definition and nothing else
            unread += [d for d in node.decorator_list if _with_rules(source, d, forbidden)]
        queue += [child for child in ast.iter_child_nodes(node) if child not in unread]
    return found


def _violation(source: Source, node: ast.AST, forbidden: Sequence[str]) -> str | None:
    if isinstance(node, ast.Call):
        return _reflection(source, node, forbidden) or _forbidden_argument(source, node, forbidden)
    if isinstance(node, ast.keyword | ast.Dict) and "torch.autograd.*" in forbidden:
        return _requires_grad(node)
    if isinstance(node, ast.MatchClass):
        return _pattern(source, node, forbidden)
    if isinstance(node, ast.ClassDef) and forbidden:
        return _mixture(source, node)
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{a.name}" for a in node.names if a.name != "*"]
        names = [n for n in names if not any(of.startswith(f"{n}.") for of in NO_GETTERS)]  # on the way to those
        return next((text for dotted in names if (text := _dotted(dotted, forbidden))), None)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return _name(source, node, forbidden)
    if isinstance(node, ast.Attribute):
        dotted, other = source.meanings(node)
        text = next((text for d in sorted(dotted) if (text := _dotted(d, forbidden))), None)
        text = text or _handed_on(source, node, forbidden)
        return text or (_attribute(source, node, forbidden) if other else None)
    return None


def _mixture(source: Source, node: ast.ClassDef) -> str | None:
    """A class that is a tensor and something else too, which may read the tensor's attributes by their names."""
    for inner in (n for s in node.body for n in ast.walk(s) if isinstance(n, ast.Import | ast.ImportFrom)):
        if module := next((d for _, d in imported(inner) if is_module(d) and d.startswith(KNOWN_ROOTS)), ""):
            return f"{module} in a class, which hides what is called"
    queue, seen, known, mixed = [node], {node}, set[str](), False
    while queue:
        one = queue.pop()
        mixed |= len(one.bases) > 1 or bool(one.decorator_list)
        for base in one.bases:
            own = source.classes.get(base.id) if isinstance(base, ast.Name) else None
            if own is None:
                known |= source.meanings(base)[0] or {"torch.Tensor"}  # a variable may be anything
            elif own not in seen:
                seen.add(own)
                queue.append(own)
        if any(method_of(one, "__mro_entries__") for one in source.classes.values()):
            return "__mro_entries__, which hides what a class is made of"
    if any(is_below(name, ("sklearn",)) for name in known):
        return "a class of scikit-learn's as a base, which reads attributes by their names"
    if mixed and any(name.split(".")[0] == "torch" and not is_below(name, ("torch.nn",)) for name in known):
        return "a class that is a tensor and something else, which hides what is read"
    return None


def _pattern(source: Source, node: ast.MatchClass, forbidden: Sequence[str]) -> str | None:
    """A class in a pattern: `case A(softmax=f)` reads an attribute, `case A(f)` one that the class names."""
    for name in node.kwd_attrs:
        attribute = ast.Attribute(value=ast.Constant(None), attr=name, ctx=ast.Load())
        if text := _attribute(source, attribute, forbidden):
            return text
    known = isinstance(node.cls, ast.Name) and node.cls.id
    if node.patterns and known not in MATCHED_BY_VALUE and source.owner(ast.Call(node.cls, [], [])) is None:
        return "a pattern of a class, which hides what is read"
    return None


def _handed_on(source: Source, node: ast.AST, forbidden: Sequence[str]) -> str | None:
    """A function that may not be given some argument, used other than in a call that shows its arguments."""
    for name, parameter in _with_rules(source, node, forbidden):
        return f"{name} by another name, which hides whether it gets {parameter}"
    return None


def _reflection(source: Source, node: ast.Call, forbidden: Sequence[str]) -> str | None:
    """`getattr` and the like; with a name that stands there it is read as an attribute (`constant_getattr`)."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name == "type" and forbidden and len(node.args) > 1 and ast.unparse(node.args[1]) not in ("()", "(object,)"):
        return "type with several arguments, which hides what a class is made of"
    if name not in REFLECTION or not source.scopes.is_global(node.func):  # type: ignore[arg-type]
        return None
    key = node.args[1] if len(node.args) > 1 else None
    if isinstance(key, ast.Constant) and isinstance(key.value, str) and not is_unreadable_dunder(key.value):
        return None
    return f"{name} with a computed name, which hides what is called"


@cache
def _argument_rules(forbidden: tuple[str, ...]) -> list[tuple[str, str]]:
    """The rules "function(parameter)" as pairs."""
    every = (*forbidden, *ARGUMENTS) if forbidden else ()
    pairs = (re.fullmatch(r"([\w.]+)\((\w+)\)", rule) for rule in every)
    return [(pair[1], pair[2]) for pair in pairs if pair]


def _with_rules(source: Source, function: ast.AST, forbidden: Sequence[str]) -> list[tuple[str, str]]:
    """The rules on arguments of what an expression may stand for."""
    dotted = source.meanings(function)[0]
    return [(name, parameter) for name, parameter in _argument_rules(tuple(forbidden)) if name in dotted]


def _forbidden_argument(source: Source, node: ast.Call, forbidden: Sequence[str]) -> str | None:
    """A call that passes an argument which it may not, or whose arguments cannot be read."""
    for name, parameter in _with_rules(source, node.func, forbidden):
        by_name = any(k.arg in (parameter, None) for k in node.keywords)
        unpacked = any(isinstance(a, ast.Starred) for a in node.args)
        if by_name or unpacked or len(node.args) > _position(name, parameter):
            return f"{name} with {parameter}"
    return None


@cache
def _position(name: str, parameter: str) -> int:
    """The place of a parameter among those that a function takes."""
    module, _, attribute = name.rpartition(".")
    return list(inspect.signature(getattr(importlib.import_module(module), attribute)).parameters).index(parameter)


def _requires_grad(node: ast.keyword | ast.Dict) -> str | None:
    if isinstance(node, ast.Dict):
        wanted = any(isinstance(k, ast.Constant) and k.value == "requires_grad" for k in node.keys)
    else:
        off = isinstance(node.value, ast.Constant) and node.value.value is False
        wanted = node.arg == "requires_grad" and not off
    return "requires_grad (autograd)" if wanted else None


def _name(source: Source, node: ast.Name, forbidden: Sequence[str]) -> str | None:
    for dotted in sorted(source.meanings(node)[0]):
        text = _dotted(dotted, forbidden)
        if text:
            return text
    if handed_on := _handed_on(source, node, forbidden):
        return handed_on
    if not source.scopes.is_global(node):
        return None
    bindings = source.scopes.module.bindings.get(node.id, [])
    if bindings and all(isinstance(b, ast.FunctionDef | ast.ClassDef) for b in bindings):
        return None
    if node.id in UNREADABLE_CALLS:
        return f"{node.id}(), which hides what is called"
    if node.id in REFLECTION or is_unreadable_dunder(node.id):
        return f"{node.id}, which hides what is called"
    return None


def _attribute(source: Source, node: ast.Attribute, forbidden: Sequence[str]) -> str | None:
    """An attribute of something that is not known: a method of a tensor, perhaps."""
    if is_unreadable_dunder(node.attr) or node.attr in UNREADABLE_ATTRIBUTES:
        return f"{node.attr}, which hides what is called"
    owner = source.owner(node.value) or source.owner_itself(node)
    if owner is not None and source.has_own(owner, node.attr):
        return None
    if node.attr in MODULES_BY_ATTRIBUTE or (forbidden and node.attr in GETTER_ATTRIBUTES):
        return f".{node.attr}, which hides what is called"
    for name, parameter in _argument_rules(tuple(forbidden)):
        if isinstance(node.ctx, ast.Store) and node.attr == parameter:
            return f".{parameter} (as {name}({parameter}))"
        if source.passes_modules and node.attr == name.split(".")[-1]:
            return f".{node.attr} (as {name}({parameter}))"
    for rule in forbidden:
        parts = rule.split(".")
        if parts[0] not in KNOWN_ROOTS or (rule in NAMESAKES and not source.passes_modules):
            continue
        known = hasattr(torch.Tensor, node.attr) or source.passes_modules  # else it is an attribute of their own
        if known and parts[-1] != "*" and node.attr in (parts[-1], f"{parts[-1]}_"):
            return f".{node.attr} (as {rule})"
        if parts[-1] == "*" and node.attr == parts[-2] and source.passes_modules:
            return f".{node.attr} (as {rule})"
        inner = node.value.attr if isinstance(node.value, ast.Attribute) else ""
        if parts[-1] == "*" and inner == parts[-2] and node.attr in (exports(".".join(parts[:-1])) or ()):
            return f".{inner}.{node.attr} (as {rule})"
    if "torch.autograd.*" in forbidden and node.attr in AUTOGRAD_WORDS:
        if node.attr == "requires_grad" and isinstance(node.ctx, ast.Load):
            return None
        if node.attr == "backward" and "backward" in source.own_methods and not source.splats_into_torch:
            return None  # a layer's; a tensor has nothing to go back through unless it requires a gradient
        return f".{node.attr} (autograd)"
    return None


def _dotted(dotted: str, forbidden: Sequence[str]) -> str | None:
    dotted = real_name(dotted)
    parts = dotted.split(".")
    if dotted in HARMLESS:
        return None
    for rule in forbidden:
        if rule.endswith(".*"):
            if dotted == rule[:-2] or dotted.startswith(rule[:-1]):
                return dotted
        elif (
            dotted == rule
            or (
                rule.startswith("torch.")
                and dotted.startswith(("torch.Tensor.", "torch.special.", "torch.masked.", "torch.sparse."))
                and parts[-1] == rule.split(".")[-1]
                and rule not in NAMESAKES
            )
            or (rule.startswith("torch.") and dotted in (f"torch._{rule[6:]}", f"torch.{rule[6:]}_"))
        ):
            return dotted
    if "torch.autograd.*" in forbidden and dotted.startswith("torch.Tensor.") and parts[-1] in AUTOGRAD_WORDS:
        return f"{dotted} (autograd)"
    if dotted in READABLE:
        return None
    if parts[0] not in KNOWN_ROOTS and "torch" in parts:  # a library's own torch
        return _dotted(".".join(parts[parts.index("torch") :]), forbidden)
    if hides_calls(dotted, restricted=bool(forbidden)):
        return f"{dotted}, which hides what is called"
    return None
