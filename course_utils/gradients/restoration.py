"""Putting things back: parameters, running statistics and random states."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Kept:
    """A copy of every tensor reachable from some objects, and of the containers that hold them.

    Walks tensors, NumPy arrays, ``torch.Generator``, dicts, lists, sets, tuples and plain objects with a
    ``__dict__`` (modules and hand-written layers among them), each object once.

    Parameters
    ----------
    *roots
        The objects to keep.
    apart_from : sequence of Tensor
        Tensors that are not kept, whatever object holds them or a view of the whole of them.
    """

    def __init__(self, *roots: Any, apart_from: Sequence[Tensor] = ()) -> None:
        self._apart_from = {_place(tensor) for tensor in apart_from}
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._generators: list[tuple[torch.Generator, Tensor]] = []
        self._dicts: list[tuple[Any, dict[Any, Any]]] = []
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._sets: list[tuple[set[Any], set[Any]]] = []
        self._seen: dict[int, Any] = {}
        for root in roots:
            self._keep(root)

    def _keep(self, value: Any) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, Tensor):
            if _place(value) not in self._apart_from:
                self._tensors.append((value, value.detach().clone()))
        elif isinstance(value, np.ndarray):
            self._arrays.append((value, value.copy()))
        elif isinstance(value, torch.Generator):
            self._generators.append((value, value.get_state()))
        elif isinstance(value, dict):
            self._dicts.append((value, dict(value)))
            for child in value.values():
                self._keep(child)
        elif isinstance(value, list):
            self._lists.append((value, list(value)))
            for child in value:
                self._keep(child)
        elif isinstance(value, set):
            self._sets.append((value, set(value)))
        elif isinstance(value, tuple):
            for child in value:
                self._keep(child)
        elif isinstance(value, Mapping):
            for child in value.values():
                self._keep(child)
        elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable_only(value):
            self._dicts.append((value.__dict__, dict(value.__dict__)))
            for child in list(value.__dict__.values()):
                self._keep(child)

    def put_back(self) -> None:
        """Give every object the content it had, bit for bit."""
        for mapping, items in self._dicts:
            if list(mapping) != list(items) or any(mapping[k] is not v for k, v in items.items()):
                mapping.clear()
                mapping.update(items)
        for sequence, elements in self._lists:
            sequence[:] = elements
        for collection, members in self._sets:
            collection.clear()
            collection.update(members)
        for tensor, copy in self._tensors:
            # through .data, so that a graph the caller holds stays valid
            if tensor.shape == copy.shape:
                tensor.data.copy_(copy)
            else:
                tensor.data = copy.clone()
        for array, original in self._arrays:
            array[...] = original
        for generator, state in self._generators:
            generator.set_state(state)

    def changed(self) -> list[Tensor]:
        """The kept tensors whose content is no longer what it was."""
        return [t for t, copy in self._tensors if not _same(t, copy)]


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Which memory a tensor has, the same for a parameter and what `detach` makes of it."""
    return tensor.device, tensor.data_ptr(), tensor.numel()


def callable_only(value: Any) -> bool:
    """Functions and methods hold code, not state; modules are callable and do hold state."""
    return callable(value) and not isinstance(value, torch.nn.Module) and hasattr(value, "__code__")


def _same(tensor: Tensor, copy: Tensor) -> bool:
    if tensor.shape != copy.shape:
        return False
    tensor = tensor.detach()
    equal = tensor == copy
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        equal = equal | (tensor.isnan() & copy.isnan())
    return bool(equal.all())


class RandomState:
    """The state of the global random generators of torch, NumPy and Python."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        name, key, *rest = np.random.get_state(legacy=True)
        self._numpy = (name, np.asarray(key).tobytes(), *rest)
        self._python = random.getstate()

    def put_back(self) -> None:
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        name, key, *rest = self._numpy
        np.random.set_state((name, np.frombuffer(key, dtype=np.uint32), *rest))
        random.setstate(self._python)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RandomState):
            return NotImplemented
        return (
            torch.equal(self._torch, other._torch)
            and self._python == other._python
            and self._numpy == other._numpy
            and (self._cuda is None) == (other._cuda is None)
            and all(map(torch.equal, self._cuda or [], other._cuda or []))
        )

    __hash__ = None  # type: ignore[assignment]
