"""Entry by entry: does the analytic derivative agree with the numerical one?"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from course_utils.gradients.numeric import Function
from course_utils.gradients.structure import Leaf

ROUNDING_BOUND = 6.0
"""Rounding of a difference quotient is taken to stay below this many standard deviations of f's, over h."""

DIGITS_NEEDED = 1e3
"""An entry can be judged where it is this many times larger than the rounding of its difference quotient."""


class Status(IntEnum):
    """What was found at one entry."""

    PASS = 0
    FAIL = 1
    TOO_SMALL = 2
    KINK = 3


@dataclass
class Entries:
    """What was found at m entries of one parameter; every tensor is (m,)."""

    flat: Tensor
    """int64 flat indices."""
    analytic: Tensor
    numeric: Tensor
    error: Tensor
    """Relative errors."""
    status: Tensor
    """int64, values of :class:`Status`."""
    noise: Tensor
    """Bound on the rounding error of `numeric`."""

    def where(self, mask: Tensor) -> "Entries":
        return Entries(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    def joined(self, other: "Entries") -> "Entries":
        """Both, sorted by index; what is in both is taken from this one."""
        new = ~torch.isin(other.flat, self.flat)
        columns = [torch.cat([getattr(self, name), getattr(other, name)[new]]) for name in self.__dataclass_fields__]
        order = columns[0].argsort()
        return Entries(*(column[order] for column in columns))


def relative_error(analytic: Tensor, numeric: Tensor, floor: float | Tensor) -> Tensor:
    """|a − n| / max(floor, |a| + |n|); zero where both are zero."""
    size = (analytic.abs() + numeric.abs()).clamp(min=torch.finfo(torch.float64).tiny)
    return (analytic - numeric).abs() / torch.maximum(size, torch.as_tensor(floor, dtype=torch.float64))


def _compare(analytic: Tensor, numeric: Tensor, noise: float, tolerance: float) -> tuple[Tensor, Tensor]:
    # With this floor, "error ≤ tolerance" also forgives a difference that rounding alone explains.
    error = relative_error(analytic, numeric, noise / tolerance)
    status = torch.full(error.shape, int(Status.PASS))
    size = analytic.abs() + numeric.abs()
    status[(size < DIGITS_NEEDED * noise) & (size > 0)] = int(Status.TOO_SMALL)
    status[error > tolerance] = int(Status.FAIL)
    return error, status


def judge_entries(
    function: Function, leaf: Leaf, flat: Tensor, analytic: Tensor, *, h: float, tolerance: float
) -> Entries:
    """Compare some entries of one parameter's gradient with centred differences.

    An entry that disagrees is tried again with h/10.  Three things can come of it:

    - the one-sided quotients disagree as much as before: f has a kink at the entry, which is skipped
      (where f is smooth they disagree by h·f″, ten times less than before);
    - the centred quotient has moved: a kink lay between the two steps, or h was too large for f's
      curvature, and the smaller step counts;
    - nothing has changed: the entry is wrong.

    Where it has moved and disagrees still, h/100 decides: a kink just inside a step looks like curvature.

    Parameters
    ----------
    function : Function
        f.
    leaf : Leaf
        The parameter.
    flat : Tensor
        (m,) flat indices of the entries.
    analytic : Tensor
        (m,) what the gradient says there.
    h, tolerance : float
        The step and the largest relative error that passes.
    """
    bound = ROUNDING_BOUND * function.rounding
    at_h = function.differences(leaf, flat, h)
    error, status = _compare(analytic, at_h.central, bound / h, tolerance)
    found = Entries(flat, analytic, at_h.central.clone(), error, status, torch.full_like(error, bound / h))

    suspects = (status == Status.FAIL).nonzero().flatten()
    gap = at_h.gap[suspects]
    central = at_h.central[suspects]
    step = h
    while len(suspects) and step > h / 50:  # h/10, and h/100 for what h/10 leaves open
        step /= 10
        noise = bound / step
        closer = function.differences(leaf, flat[suspects], step)
        error, status = _compare(analytic[suspects], closer.central, noise, tolerance)
        wrong = status == Status.FAIL
        kink = wrong & (closer.gap > 4 * noise) & (closer.gap > 0.3 * gap)
        moved = ~kink & ((closer.central - central).abs() > noise)
        for index, flag, value, e, s in zip(
            suspects[kink | moved].tolist(),
            kink[kink | moved].tolist(),
            closer.central[kink | moved],
            error[kink | moved],
            status[kink | moved],
            strict=True,
        ):
            found.numeric[index], found.error[index], found.noise[index] = value, e, noise
            found.status[index] = Status.KINK if flag else s
        undecided = wrong & moved
        suspects, gap, central = suspects[undecided], closer.gap[undecided], closer.central[undecided]
    return found
