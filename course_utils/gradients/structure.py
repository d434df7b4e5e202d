"""Nested parameters: naming their leaves, replacing one, and calling f with them."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from course_utils.default_device import with_todays_default_device
from course_utils.gradients.error import GradientCheckError

Path = tuple[Any, ...]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""What :func:`pair` gives for a leaf that has no partner."""


@dataclass(frozen=True, eq=False)  # the value may be a tensor, which has no plain equality
class Leaf:
    """One thing inside a nested structure that is itself no container."""

    name: str
    path: Path
    value: Any


def is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_container(value: Any) -> bool:
    return is_mapping(value) or is_sequence(value)


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    yield from value.items() if is_mapping(value) else enumerate(value)


def _extend(name: str, container: Any, key: Any) -> str:
    """``layers`` and 0 give ``layers[0]``; ``layers[0]`` and "W" give ``layers[0].W``."""
    if is_mapping(container) and isinstance(key, str):
        return f"{name}.{key}" if name else key
    return f"{name}[{key!r}]"


def leaves(structure: Any, name: str = "", child_names: Sequence[str] = ()) -> list[Leaf]:
    """All leaves of nested dicts, lists and tuples, in order.

    Parameters
    ----------
    structure
        A leaf, or dicts, lists and tuples of such, to any depth.
    name
        What the whole structure is called.
    child_names
        What its direct children are called, where the caller knows better than index or key.
    """
    found: list[Leaf] = []

    def walk(value: Any, name: str, path: Path) -> None:
        if not is_container(value):
            found.append(Leaf(name, path, value))
            return
        for number, (key, child) in enumerate(_children(value)):
            known = not path and number < len(child_names)
            walk(child, child_names[number] if known else _extend(name, value, key), (*path, key))

    walk(structure, name, ())
    return found


def replaced(structure: Any, path: Path, value: Any) -> Any:
    """The same structure with `value` at `path`; containers on the way are new, the rest is shared."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    child = replaced(structure[key], rest, value)
    if is_mapping(structure):
        return {k: child if k == key else v for k, v in structure.items()}
    items = [child if i == key else v for i, v in enumerate(structure)]
    if isinstance(structure, tuple):
        return structure._make(items) if hasattr(structure, "_make") else tuple(items)
    return items


def pair(parameters: Any, gradients: Any) -> tuple[dict[Path, Any], list[str]]:
    """For every leaf of `parameters`, what `gradients` has in its place.

    The two match by key; where one is a dict and the other a sequence of the same length, by order, so
    ``{"W": W, "b": b}`` may be paired with ``(grad_W, grad_b)``.

    Returns
    -------
    partners
        Path of each parameter leaf → its gradient, or :data:`ABSENT`.
    extra
        Names of what stands in `gradients` and belongs to no parameter.
    """
    partners: dict[Path, Any] = {}
    extra: list[str] = []

    def absent(value: Any, path: Path) -> None:
        for leaf in leaves(value):
            partners[path + leaf.path] = ABSENT

    def walk(ours: Any, theirs: Any, name: str, path: Path) -> None:
        if not is_container(ours):
            partners[path] = theirs  # a container here is a fault of its own, told by the row's sentence
            return
        if not is_container(theirs):
            if len(ours) == 1:  # a lone gradient for a lone parameter
                ((key, child),) = _children(ours)
                walk(child, theirs, _extend(name, ours, key), (*path, key))
            else:
                absent(ours, path)
                if theirs is not None:
                    extra.append(name or "the whole")
            return
        mine, yours = list(_children(ours)), list(_children(theirs))
        if is_mapping(ours) and is_mapping(theirs):
            given = dict(yours)
            for key, child in mine:
                if key in given:
                    walk(child, given[key], _extend(name, ours, key), (*path, key))
                else:
                    absent(child, (*path, key))
            known = {key for key, _ in mine}
            extra.extend(_extend(name, theirs, key) for key, _ in yours if key not in known)
            return
        if is_mapping(ours) != is_mapping(theirs) and len(mine) != len(yours):
            absent(ours, path)
            extra.append(name or f"{len(yours)} gradients for {len(mine)} parameters")
            return
        for (key, child), (_, partner) in zip(mine, yours, strict=False):
            walk(child, partner, _extend(name, ours, key), (*path, key))
        for key, child in mine[len(yours) :]:
            absent(child, (*path, key))
        extra.extend(_extend(name, theirs, key) for key, _ in yours[len(mine) :])

    walk(parameters, gradients, "", ())
    return partners, extra


@dataclass(frozen=True)
class Calling:
    """How f takes its parameters, and what that calls them."""

    call: Callable[[Any], Any]
    """Structure of parameters → whatever f returns."""
    takes_arguments: bool
    """False for a function of no arguments, which reads the parameters from where it was defined."""
    name: str = ""
    child_names: tuple[str, ...] = ()


def _binds(signature: inspect.Signature, *args: Any, **kwargs: Any) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def calling(f: Callable[..., Any], parameters: Any) -> Calling:
    """Choose how f gets its parameters.

    ========================  ==================================================================
    parameters                call
    ========================  ==================================================================
    one tensor                ``f(tensor)``
    dict                      ``f(**dict)`` where f's arguments have those names, else one
                              positional argument for each value
    tuple                     ``f(*tuple)``
    list                      ``f(list)`` where f takes one argument, else ``f(*list)``
    dict, tuple of several    ``f(dict)``, ``f(tuple)`` where f takes just one argument
    anything                  ``f()`` where f takes none and reads the parameters themselves
    ========================  ==================================================================
    """
    if not callable(f):
        raise GradientCheckError(
            f"f is a {type(f).__name__}, not a function: pass for example lambda W, b: cost(X, y, W, b, lam)."
        )
    f = with_todays_default_device(f)
    values = list(parameters.values()) if is_mapping(parameters) else parameters
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # some built-in functions have none
        if is_container(parameters) and not isinstance(parameters, list):
            return Calling(lambda p: f(*(p.values() if is_mapping(p) else p)), True)
        return Calling(f, True)

    kinds = [p.kind for p in signature.parameters.values()]
    names = tuple(
        p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    )
    spreads = inspect.Parameter.VAR_POSITIONAL in kinds
    if not kinds:
        return Calling(lambda p: f(), False)

    whole = Calling(f, True, name=names[0] if names else "")
    if not is_container(parameters):
        if _binds(signature, parameters):
            return whole
    elif is_mapping(parameters):
        if all(isinstance(k, str) for k in parameters) and _binds(signature, **parameters):
            return Calling(lambda p: f(**p), True)
        if _binds(signature, *values):
            return Calling(lambda p: f(*p.values()), True)
        if _binds(signature, parameters):
            return whole
    else:
        if isinstance(parameters, list) and not spreads and _binds(signature, parameters):
            return whole
        if _binds(signature, *values):
            return Calling(lambda p: f(*p), True, child_names=() if spreads else names)
        if _binds(signature, parameters):
            return whole
    count = len(values) if is_container(parameters) else 1
    raise GradientCheckError(
        f"f{signature} cannot be called with the {count} parameter{'s' * (count != 1)} given: "
        "write it as a function of exactly these, for example lambda W, b: cost(X, y, W, b, lam)."
    )
