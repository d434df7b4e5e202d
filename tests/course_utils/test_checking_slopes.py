"""A gradient is held against the slopes of a function that can only be called."""

from __future__ import annotations

import torch

from course_utils.checking import follows_slopes


def test_a_gradient_is_told_from_what_is_none() -> None:
    at = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4)
    gradient = 3 * at**2
    assert follows_slopes(lambda x: (x**3).sum(), at, gradient)
    for wrong in (-gradient, 2 * gradient, gradient.flip(1), torch.zeros_like(gradient)):
        assert not follows_slopes(lambda x: (x**3).sum(), at, wrong)
    assert follows_slopes(lambda x: (x**3).sum(), at, 2 * gradient, factors=(1.0, 0.5))
