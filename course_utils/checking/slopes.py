"""Whether a gradient is that of a function which can only be called: by differences along a few directions.

A wrong forward pass must not cost the backward pass its points.  Where a student's forward function is not the right
one, criteria hold the gradient against the slopes of the student's own function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def follows_slopes(
    value: Callable[[Tensor], Tensor],
    at: Tensor,
    gradient: Tensor,
    *,
    factors: Sequence[float] = (1.0,),
    directions: int = 4,
    step: float = 1e-6,
    rtol: float = 1e-5,
) -> bool:
    """Whether `gradient`, times one of the factors, is the gradient of `value` at a point.

    Parameters
    ----------
    value : callable
        `value(x)` is a 0-d tensor, computed in float64.
    at : Tensor
        The point, float64.
    gradient : Tensor
        Of the shape of `at`.
    factors : sequence of float
        By which the gradient may be off, such as 1 / N where a sum instead of a mean has a criterion of its own.
    directions : int
        Along how many directions the central difference is taken.
    step : float
        How far to either side.
    rtol : float
        How far off, relative to the largest slope.
    """
    slopes, products = [], []
    for k in range(directions):
        direction = torch.sin(torch.arange(at.numel(), dtype=torch.float64) * 1.7 + k).reshape(at.shape)
        slopes.append((value(at + step * direction) - value(at - step * direction)) / (2 * step))
        products.append((gradient.double() * direction).sum())
    slope, product = torch.stack(slopes).double(), torch.stack(products)
    return any(bool((f * product - slope).abs().max() <= rtol * slope.abs().max()) for f in factors)
