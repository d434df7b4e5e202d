"""What f reads from around it: the sizes a constant factor may be named after, and λ."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

LAMBDA_NAMES = ("lam", "lambda_", "lambd", "lmbda", "reg", "weight_decay", "l2")


def variables(f: Callable[..., Any], depth: int = 1) -> dict[str, Any]:
    """The outer variables, defaults and bound arguments that f uses, by name.

    Parameters
    ----------
    f
        A function.
    depth
        How many levels of functions called by f are read as well; what f itself uses comes first.
    """
    found: dict[str, Any] = {}
    while isinstance(f, functools.partial):
        found.update(f.keywords)
        found.update({f"argument {i}": value for i, value in enumerate(f.args)})
        f = f.func
    try:
        outer = inspect.getclosurevars(f)
        found.update({**outer.globals, **outer.nonlocals})
        for name, parameter in inspect.signature(f).parameters.items():
            if parameter.default is not parameter.empty:
                found[name] = parameter.default
    except (TypeError, ValueError):  # a callable object: nothing to read
        return found
    if depth:
        for called in [value for value in found.values() if inspect.isfunction(value)]:
            found = {**variables(called, depth - 1), **found}
    return found


def infer_sizes(f: Callable[..., Any], leaves: Mapping[str, Tensor]) -> dict[str, float]:
    """Name the sizes at hand.

    N is the first axis that two arrays of f's share, or the length of its labels; other sizes are named after
    where they stand, such as ``X.shape[1]``.

    Parameters
    ----------
    f
        The function being checked.
    leaves
        Its parameters by name.

    Returns
    -------
    dict
        Name → size; a size that has a name already is not listed again.
    """
    data = {
        name: value for name, value in variables(f).items() if isinstance(value, Tensor | np.ndarray) and value.ndim
    }
    found: dict[str, float] = {}
    firsts = [int(value.shape[0]) for value in data.values()]
    labels = [
        int(value.shape[0])
        for value in data.values()
        if value.ndim == 1 and not torch.as_tensor(value).is_floating_point()
    ]
    examples = labels[0] if labels else next((n for n in firsts if firsts.count(n) > 1), None)
    if examples:
        found["N"] = examples
    for name, value in [*data.items(), *leaves.items()]:
        for axis, length in enumerate(value.shape):
            if length > 1 and length not in found.values():
                found[f"{name}.shape[{axis}]"] = length
    return found


def infer_lambda(f: Callable[..., Any]) -> float | None:
    """λ where f reads a float of a usual name, such as ``lam``."""
    around = variables(f)
    for name in LAMBDA_NAMES:
        if isinstance(around.get(name), float) and around[name] != 0:
            return float(around[name])
    return None
