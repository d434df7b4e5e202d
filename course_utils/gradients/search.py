"""Wrong entries that the sample has missed."""

import math

import torch
from torch import Tensor

from course_utils.gradients.judgement import ROUNDING_BOUND
from course_utils.gradients.numeric import Function
from course_utils.gradients.structure import Leaf

SMALL_ENOUGH = 4
"""A set of this many entries is not halved again."""


def suspects(
    function: Function,
    leaf: Leaf,
    gradient: Tensor,
    known: Tensor,
    *,
    h: float,
    generator: torch.Generator,
    most: int = 24,
) -> Tensor:
    """Entries outside a sample that are probably wrong, found by halving.

    All entries outside the sample are moved at once, by random signs.  Where f does not change as the gradient
    says, one of them is wrong, and each half is tried in turn, down to a few.  For a right gradient that is four
    evaluations of f; for one wrong entry in a million, about a hundred and sixty.

    Parameters
    ----------
    function : Function
        f.
    leaf : Leaf
        The parameter.
    gradient : Tensor
        Its gradient, of the same shape.
    known : Tensor
        (m,) flat indices of the sample.
    h : float
        The step.
    generator : torch.Generator
        Where signs and halves come from.
    most : int
        How many entries to look for.

    Returns
    -------
    Tensor
        Flat indices.  Nothing is proved by them: they are still to be judged one by one.
    """
    outside = torch.ones(gradient.numel(), dtype=torch.bool)
    outside[known] = False
    rest = outside.nonzero().flatten()
    rest = rest[torch.randperm(len(rest), generator=generator)]
    signs = torch.randint(0, 2, (gradient.numel(),), generator=generator).double() * 2 - 1

    def disagree(flat: Tensor) -> bool:
        direction = torch.zeros(gradient.numel(), dtype=torch.float64)
        direction[flat] = signs[flat] / math.sqrt(len(flat))
        direction = direction.reshape(gradient.shape).to(leaf.value.device)
        off = []
        for step in (h, h / 10):
            numeric, taken = function.along(leaf, direction, step)
            off.append(float((gradient * taken.cpu()).sum()) - numeric)
        # what the step itself changes is curvature or a kink, not the gradient
        return abs(off[1]) > 2 * ROUNDING_BOUND * function.rounding / (h / 10) + 2 * abs(off[0] - off[1])

    found: list[int] = []
    waiting = [rest] if len(rest) else []
    while waiting and len(found) < most:
        flat = waiting.pop()
        if not disagree(flat):
            continue
        if len(flat) <= SMALL_ENOUGH:
            found += flat.tolist()
        else:
            waiting += flat.tensor_split(2)
    return torch.tensor(sorted(found), dtype=torch.int64)
