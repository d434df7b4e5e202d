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

    def put(self, at: Tensor, numeric: Tensor, error: Tensor, status: Tensor, noise: float) -> None:
        """Overwrite what was found at some places, by what a smaller step gave there."""
        self.numeric[at], self.error[at], self.status[at], self.noise[at] = numeric, error, status, noise

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

    An entry that disagrees is tried again with h/10, and counts as right where it agrees then and the step can
    have been the reason: a kink lay between the two steps, or h was too large for f's curvature, most of which is
    gone once the two quotients are extrapolated to h = 0 (Richardson).  Where it still disagrees, either

    - the one-sided quotients disagree as much as before: f has a kink at the entry, which is skipped
      (where f is smooth they disagree by h·f″, ten times less than before); or
    - the quotient has moved beyond its rounding: h/100 decides, since a kink just inside a step looks like
      curvature; or
    - nothing has changed: the entry is wrong.

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
    last, step = at_h.at(suspects), h
    while len(suspects) and step > h / 50:
        step /= 10
        noise = bound / step
        closer = function.differences(leaf, flat[suspects], step)
        numeric = closer.central
        error, status = _compare(analytic[suspects], numeric, noise, tolerance)
        limit = numeric + (numeric - last.central) / 99  # the errors are as 1 : 100
        limit_error, limit_status = _compare(analytic[suspects], limit, noise, tolerance)
        better = (status == Status.FAIL) & (limit_status != Status.FAIL)
        numeric = torch.where(better, limit, numeric)
        error, status = torch.where(better, limit_error, error), torch.where(better, limit_status, status)
        off, now_off = (analytic[suspects] - last.central).abs(), (analytic[suspects] - numeric).abs()
        shift = (closer.central - last.central).abs()
        # A smaller step also has more rounding to hide behind: it counts only where the step has an effect.
        effect = (off <= last.gap) | (shift > noise) | (now_off <= off / 2)
        status[~effect] = int(Status.FAIL)

        wrong = status == Status.FAIL
        kink = wrong & (closer.gap > 4 * noise) & (closer.gap > 0.3 * last.gap)
        moved = wrong & ~kink & (shift > noise)
        status[kink] = int(Status.KINK)
        settled = ~wrong | kink | moved
        found.put(suspects[settled], numeric[settled], error[settled], status[settled], noise)
        suspects, last = suspects[moved], closer.at(moved)
    return found
