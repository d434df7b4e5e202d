"""Results as tensors: finite ones, single numbers, and ones that a factor is forgiven."""

from __future__ import annotations

import pytest
import torch

from course_utils.checking import Draw, Unmet, apart_from_factor, away_from_zero, finite, scalar


def test_finite_takes_what_has_the_shape() -> None:
    assert finite(torch.ones(2, 3), 2, 3).tolist() == [[1.0] * 3] * 2
    for wrong, told in ((torch.ones(3, 2), "shape"), (torch.tensor([1.0, float("nan")]), "nan"), (None, "None")):
        with pytest.raises(Unmet, match=told):
            finite(wrong, 2, name="grad_W")


def test_scalar_takes_one_number() -> None:
    assert scalar(1.5).item() == scalar(torch.tensor(1.5)).item() == 1.5
    with pytest.raises(Unmet, match="the loss"):
        scalar(torch.ones(2))


def test_only_the_named_factors_are_forgiven() -> None:
    expected = Draw(0).normal(4, 3)
    assert torch.allclose(apart_from_factor(7 * expected, expected, 1 / 7), expected)
    assert torch.equal(apart_from_factor(expected, expected, 1 / 7), expected)
    assert torch.allclose(apart_from_factor((expected / 7).float(), expected, 7.0), expected, rtol=1e-4, atol=1e-6)
    for wrong in (6 * expected, -7 * expected, expected + 1):
        assert torch.equal(apart_from_factor(wrong, expected, 1 / 7), wrong)
    with pytest.raises(Unmet, match="shape"):
        apart_from_factor(expected.T, expected, 1 / 7)


def test_away_from_zero() -> None:
    drawn = away_from_zero(Draw(0, torch.float32), 40, 5)
    assert drawn.dtype == torch.float32
    assert drawn.abs().min() >= 0.5 and drawn.abs().max() < 2
    assert 0.3 < (drawn > 0).float().mean() < 0.7
