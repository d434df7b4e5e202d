"""What crosses between a student's function and a criterion: plain values only.

A criterion never holds an object of the student's: `plain` makes tensors plain, detached and independent, keeps
numbers, strings and containers, and turns everything else into a `Foreign` note.  The jailed runner applies the
same rules on its side of the pipe, so a criterion sees the same in a notebook and under grading.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.checking.draw import strided

MAX_DEPTH = 12


@dataclass(frozen=True)
class Foreign:
    """Something that is not sent by value: its type, and a handle by which it can be passed back where it is kept."""

    type_name: str
    handle: int | None = None


def is_plain_tensor(value: object) -> bool:
    """Whether `value` is a dense tensor with memory, of a type that criteria compare."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type != "meta"
        and not value.is_quantized
        and value.dtype != torch.complex32
    )


def plain(value: Any, depth: int = 0, wrap: Callable[[Any], Any] | None = None) -> Any:
    """An independent copy of `value` made of plain tensors, arrays, numbers, strings and containers."""
    if type(value) is Tensor and is_plain_tensor(value):
        return value.detach().cpu().clone()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value)
    if is_plain_tensor(value):
        return torch.as_tensor(value.detach().cpu().clone()).as_subclass(Tensor)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        return np.array(value)
    if depth < MAX_DEPTH:
        if isinstance(value, tuple):
            return tuple(plain(v, depth + 1, wrap) for v in value)
        if isinstance(value, list):
            return [plain(v, depth + 1, wrap) for v in value]
        if isinstance(value, dict) and all(isinstance(k, str | int) for k in value):
            return {k: plain(v, depth + 1, wrap) for k, v in value.items()}
    return wrap(value) if wrap else Foreign(type_name(value))


def plain_result(result: Any, opaque: Sequence[int], wrap: Callable[[Any], Any]) -> Any:
    """A function's result as plain values, but for what stays the student's own.

    Parameters
    ----------
    result : object
        What the function returned.
    opaque : sequence of int
        The positions in a returned tuple or list of what is the student's own business (a cache, an optimiser's
        state): `wrap` is asked for a handle to it, whatever it is.
    wrap : callable
        `wrap(value)` gives the note that stands for a value that is not sent.
    """
    if opaque and isinstance(result, tuple | list) and len(result) > max(opaque):
        return tuple(wrap(v) if i in opaque else plain(v, 1, wrap) for i, v in enumerate(result))
    return plain(result, 0, wrap)


def resolved(value: Any, objects: Sequence[Any]) -> Any:
    """The value with every handle in it replaced by its object, containers remade."""
    if isinstance(value, Foreign):
        return value if value.handle is None else objects[value.handle]
    if isinstance(value, tuple | list):
        return type(value)(resolved(v, objects) for v in value)
    return {k: resolved(v, objects) for k, v in value.items()} if isinstance(value, dict) else value


def type_name(value: object) -> str:
    """The name of a value's type as a reader knows it: "float", "numpy.ndarray", "sparse torch.Tensor"."""
    kind = type(value)
    name = (
        kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__qualname__}"
    )
    if isinstance(value, Tensor) and not is_plain_tensor(value):
        name = f"{str(value.layout).removeprefix('torch.')} {name} on {value.device.type}"
    return name


def describe(value: object) -> str:
    """A value in a few words, for a message: its type, and shape and dtype where it has them."""
    if isinstance(value, Foreign):
        return f"an object of type {value.type_name}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, bool | int | float):
        return f"the {type(value).__name__} {repr(value)[:40]}"
    return "None" if value is None else f"a {type(value).__name__}"


def changes(before: Any, after: Any, path: str) -> list[str]:
    """The places below `path` at which `after` differs from `before`, each a short text."""
    if isinstance(before, Tensor):
        if not isinstance(after, Tensor) or after.shape != before.shape or after.dtype != before.dtype:
            return [path]
        if after.device != before.device:
            return [f"{path} (moved to {after.device})"]
        if after.is_leaf and (after.requires_grad or after.grad is not None):  # no argument comes so
            return [f"{path} ({'requires_grad' if after.grad is None else '.grad'})"]
        same = torch.equal(before, after) or bool(((before == after) | ((before != before) & (after != after))).all())
        return [] if same else [path]
    if isinstance(before, dict):
        if not isinstance(after, dict) or before.keys() != after.keys():
            return [path]
        return [c for k in before for c in changes(before[k], after[k], f"{path}[{k!r}]")]
    if isinstance(before, tuple | list):
        if not isinstance(after, tuple | list) or len(before) != len(after):
            return [path]
        pairs = zip(before, after, strict=True)
        return [c for i, (b, a) in enumerate(pairs) for c in changes(b, a, f"{path}[{i}]")]
    if isinstance(before, str | int | float | bool | None):
        return [] if type(before) is type(after) and (before == after or before != before) else [path]
    return []


def snapshot(value: Any, own: Collection[int] = ()) -> Any:
    """A copy to compare an argument with after a call.

    What cannot be changed by value is kept as it is, and so is what `own` holds the `id` of: the student's own
    objects that come back as arguments (a cache), with which their functions may do as they like.
    """
    if own and id(value) in own:
        return Foreign(type_name(value))  # which no object differs from
    if isinstance(value, Tensor):
        # clone() would close the gaps of a strided view, and with them what the criterion wants to see.
        return value.detach().clone() if value.is_contiguous() else strided(value.detach())
    if isinstance(value, tuple | list):
        return type(value)(snapshot(v, own) for v in value)
    if isinstance(value, dict):
        return {k: snapshot(v, own) for k, v in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def shared_memory(value: Any) -> list[str]:
    """The places in a result, pair by pair, that hold the same memory: to change one in place changes the other."""
    first: dict[int, str] = {}
    found = []
    for path, tensor in _tensors(value, ""):
        address = tensor.data_ptr() if tensor.numel() else 0
        if address in first:
            found.append(f"{first[address]} and {path}")
        elif address:
            first[address] = path
    return found


def device_elsewhere(value: Any) -> str:
    """The device of a result's first tensor that is not on the CPU, such as "cuda:0"; "" where all are."""
    return next((str(tensor.device) for _, tensor in _tensors(value, "") if tensor.device.type != "cpu"), "")


def carries_graph(value: Any) -> bool:
    """Whether a tensor of a result requires a gradient, and so keeps the graph that made it."""
    return any(tensor.requires_grad for _, tensor in _tensors(value, ""))


def _tensors(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if is_plain_tensor(value):
        yield path, value
    elif depth < MAX_DEPTH and isinstance(value, dict):
        for k, v in value.items():
            yield from _tensors(v, f"{path}[{k!r}]", depth + 1)
    elif depth < MAX_DEPTH and isinstance(value, tuple | list):
        for i, v in enumerate(value):
            yield from _tensors(v, f"{path}[{i}]", depth + 1)
