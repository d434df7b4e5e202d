"""The likeliest generic cause of a wrong result: sign, factor, transpose, regulariser, sum for mean.

A cause is told only when it explains every entry of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

# The end of a sentence on what comes otherwise when a function is called twice from the same state of `generator`.
FROM_ELSEWHERE = (
    " the second time, from the same state of `generator`: some of the chance comes from elsewhere, such as PyTorch's "
    "or NumPy's global state"
)


@dataclass
class Hints:
    """What a criterion knows that may explain a difference.

    Attributes
    ----------
    sizes : dict
        Names and values of the sizes at hand, such as {"N": 5, "K": 7}; a constant factor is named after them.
    regularised : Tensor, optional
        The parameter W of a regulariser λ ΣW², for gradients.
    penalty : Tensor or float, optional
        The regulariser's contribution to a cost, λ ΣW².
    lam : float, optional
        λ itself, which names multiples of λW.
    slips : callable
        Called only where something differs: what usual slips of this exercise give in place of what is expected, each
        under the sentence that explains it.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    regularised: Tensor | None = None
    penalty: Tensor | float | None = None
    lam: float | None = None
    slips: Callable[[], Mapping[str, Tensor]] = dict


def likely_causes(got: Tensor, expected: Tensor, hints: Hints, *, rtol: float, atol: float) -> list[str]:
    """The causes that explain `got` (wrong) given `expected`, both float64 and of the same shape."""

    def same(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and bool(torch.isclose(a, b, rtol=rtol, atol=atol).all())

    if got.numel() == 0 or not bool(torch.isfinite(got).all()):
        return []
    for sentence, slip in hints.slips().items():
        slip = slip.to(torch.float64)
        if same(got, slip) and not same(expected, slip):
            return [sentence]
    subject = "Every entry" if got.ndim else "It"
    if bool((got == 0).all()):
        return [
            f"{subject} is zero: never filled, multiplied by zero, or made from something that is still at its zero "
            "start."
        ]
    constant = _constant_along(expected)  # what is the same in all of them anyway explains nothing
    if not all(constant) and got.numel() > 1 and bool((got == got.flatten()[0]).all()):
        return ["Every entry has the same value."]
    causes = _regulariser(got, expected, hints)
    factor = _constant_ratio(got, expected, rtol)
    named = _name_factor(factor, hints.sizes, subject) if factor is not None else None
    if named:
        causes.append(named)
    elif factor is not None and not all(constant):  # a single number is always some multiple of another
        causes.append(f"Every entry is {factor:.4g} times what is expected.")
    if got.ndim == 2:
        if got.shape[0] == got.shape[1] and same(got, expected.T):
            causes.append("The result is the transpose of what is expected.")
        elif same(got, expected.T.reshape(got.shape)):
            causes.append("The values are right but in transposed order: `reshape` was used where `.T` is meant.")
    if got.ndim >= 1 and got.shape[-1] > 1 and same(got, expected.flip(-1)):
        causes.append("The last axis is reversed.")
    if not causes and got.ndim >= 1 and got.numel() > 1:
        difference = got - expected
        if not all(constant) and same(difference, difference.flatten()[0].expand_as(difference)):
            causes.append(f"Every entry is off by the same amount, {difference.flatten()[0].item():.4g}.")
        elif got.ndim == 2:
            if not constant[0] and same(difference, difference.mean(0, keepdim=True).expand_as(difference)):
                causes.append("Within a column every entry is off by the same amount: look at what is constant there.")
            elif not constant[1] and same(difference, difference.mean(1, keepdim=True).expand_as(difference)):
                causes.append("Within a row every entry is off by the same amount: look at what is constant there.")
            elif same(got.sum(0), expected.sum(0)) and same(got.sort(0).values, expected.sort(0).values):
                causes.append("The rows are right but in another order.")
    return causes


def _constant_along(values: Tensor) -> list[bool]:
    """For each axis whether all entries along it are the same."""
    return [bool((values == values.narrow(axis, 0, 1)).all()) for axis in range(values.ndim)]


def _regulariser(got: Tensor, expected: Tensor, hints: Hints) -> list[str]:
    if hints.regularised is not None and hints.lam and hints.regularised.shape == got.shape:
        W = hints.regularised.to(torch.float64)
        ratio = _constant_ratio(got - expected, hints.lam * W, 1e-4)
        if ratio is not None:
            named = {
                -2.0: "The regulariser's gradient 2λW is missing.",
                -1.0: "The regulariser contributes λW; the gradient of λ ΣW² is 2λW.",
                2.0: "The regulariser's gradient 2λW is added twice.",
                -4.0: "The regulariser's gradient has the wrong sign.",
            }
            for name, size in hints.sizes.items():
                divided = f"The regulariser's gradient is divided by {name}; only the loss is a mean."
                named.setdefault(round(2 / size - 2, 3), divided)
            return [named.get(round(ratio, 3), f"The difference is {ratio:.4g}·λW: look at the regulariser.")]
    if hints.penalty is not None and got.ndim == 0:
        penalty = float(hints.penalty)
        ratio = (got.item() - expected.item()) / penalty if penalty else math.nan
        named = {
            -1.0: "The regulariser λ ΣW² is missing.",
            -0.5: "The regulariser is halved: the exercise asks for λ ΣW², without ½.",
            1.0: "The regulariser is added twice.",
            -2.0: "The regulariser is subtracted.",
        }
        for size_name, size in hints.sizes.items():
            named.setdefault(
                round(1 / size - 1, 6), f"The regulariser is divided by {size_name}; only the loss is a mean."
            )
        for value, text in named.items():
            if abs(ratio - value) < 1e-4:
                return [text]
    return []


def _constant_ratio(a: Tensor, b: Tensor, rtol: float) -> float | None:
    """The c with a = c·b in every entry, where there is one and b is not zero everywhere."""
    if a.shape != b.shape:
        return None
    norm = (b * b).sum().item()
    if norm == 0 or a.numel() < 1:
        return None
    c = (a * b).sum().item() / norm
    scale = a.abs().max().item()
    tolerance = min(10 * rtol, 1e-3)  # a criterion's own may be wide, where it is about statistics or many steps
    if c == 0 or abs(c - 1) < 10 * tolerance or not bool(((a - c * b).abs() <= tolerance * scale + 1e-300).all()):
        return None
    return c


def _name_factor(c: float, sizes: dict[str, int], subject: str) -> str | None:
    def near(value: float) -> bool:
        return abs(c - value) <= 1e-4 * abs(value)

    if near(-1):
        return f"The sign is flipped: {subject[0].lower()}{subject[1:]} is −1 times what is expected."
    for name, size in sizes.items():
        if size > 1 and near(size):
            return f"{subject} is {name} = {size} times too large: a sum where the mean over {name} is meant."
        if size > 1 and near(1 / size):
            return f"{subject} is {name} = {size} times too small: divided by {name} once too often."
        if size > 1 and near(-size):
            return f"The sign is flipped and the mean over {name} is missing."
    for value, words in ((2, "twice"), (0.5, "half"), (-2, "−2 times"), (-0.5, "−½ times")):
        if near(value):
            return f"{subject} is {words} what is expected."
    return None
