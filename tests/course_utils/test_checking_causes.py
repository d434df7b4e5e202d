"""The likeliest cause of a wrong result: named where it explains every entry, and nothing where none does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from course_utils.checking.causes import Hints, likely_causes

torch.manual_seed(0)
RIGHT = torch.randn(4, 3, dtype=torch.float64)
SQUARE = torch.randn(3, 3, dtype=torch.float64)
W = torch.randn(4, 3, dtype=torch.float64)
SIZES = {"N": 5, "K": 3}


def causes(got: Tensor, expected: Tensor = RIGHT, **hints: object) -> str:
    return " ".join(likely_causes(got, expected, Hints(**hints), rtol=1e-6, atol=1e-9))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (-RIGHT, "The sign is flipped"),
        (2 * RIGHT, "twice what is expected"),
        (RIGHT / 2, "half what is expected"),
        (-2 * RIGHT, "−2 times"),
        (5 * RIGHT, "N = 5 times too large"),
        (RIGHT / 3, "K = 3 times too small"),
        (-5 * RIGHT, "the mean over N is missing"),
        (1.7 * RIGHT, "1.7 times"),
        (torch.zeros(4, 3, dtype=torch.float64), "Every entry is zero"),
        (torch.full((4, 3), 2.5, dtype=torch.float64), "the same value"),
        (RIGHT.flip(-1), "The last axis is reversed"),
        (RIGHT + 0.3, "off by the same amount"),
        (RIGHT + torch.tensor([1.0, -2, 3]), "Within a column"),
        (RIGHT + torch.tensor([[1.0], [-2], [3], [4]]), "Within a row"),
        (RIGHT[torch.tensor([1, 0, 3, 2])], "rows are right but in another order"),
        (RIGHT.T.reshape(4, 3), "`reshape` was used where `.T` is meant"),
    ],
)
def test_a_cause_that_explains_every_entry_is_named(got: Tensor, says: str) -> None:
    assert says in causes(got, sizes=SIZES)


def test_a_transposed_square_is_named() -> None:
    assert "transpose" in causes(SQUARE.T, SQUARE)


@pytest.mark.parametrize(
    ("difference", "says"),
    [
        (-2, "2λW is missing"),
        (-1, "contributes λW"),
        (2, "added twice"),
        (-4, "wrong sign"),
        (3, "3·λW"),
        (2 / 5 - 2, "divided by N"),
    ],
)
def test_the_regularisers_gradient_is_named(difference: float, says: str) -> None:
    assert says in causes(RIGHT + difference * 0.1 * W, regularised=W, lam=0.1, sizes=SIZES)


@pytest.mark.parametrize(
    ("part", "says"),
    [(-1.0, "is missing"), (-0.5, "is halved"), (1.0, "added twice"), (-2.0, "is subtracted"), (1 / 5 - 1, "by N")],
)
def test_the_regularisers_part_of_a_cost_is_named(part: float, says: str) -> None:
    cost = torch.tensor(3.0, dtype=torch.float64)
    assert says in causes(cost + part * 0.7, cost, penalty=0.7, sizes=SIZES)


def test_a_slip_is_told_by_its_own_sentence() -> None:
    slips = {"The rows are squared.": RIGHT**2, "The sign.": -RIGHT}
    assert causes(RIGHT**2, slips=lambda: slips) == "The rows are squared."
    assert causes(-RIGHT, slips=lambda: slips) == "The sign."
    assert causes(3 * RIGHT, slips=lambda: slips) == "Every entry is 3 times what is expected."


def test_a_slip_that_gives_the_right_result_explains_nothing() -> None:
    assert "One is added." not in causes(RIGHT + 1, RIGHT + 1, slips=lambda: {"One is added.": RIGHT + 1})


def test_what_explains_nothing_is_not_told() -> None:
    torch.manual_seed(1)
    assert causes(torch.randn(4, 3, dtype=torch.float64), sizes=SIZES, regularised=W, lam=0.1) == ""
    almost = 2 * RIGHT
    almost[0, 0] += 0.1
    assert causes(almost, sizes=SIZES) == ""


def test_what_is_constant_anyway_is_no_cause() -> None:
    ones = torch.ones(4, 3, dtype=torch.float64)
    sums = torch.tensor([[0.5], [0.7], [0.9], [1.0]], dtype=torch.float64)
    assert causes(sums * ones, ones) == ""
    assert causes((sums * ones).T, ones.T) == ""
    assert causes(torch.full((4, 3), 3.7, dtype=torch.float64), 2 * ones, sizes=SIZES) == ""
    assert "N = 5 times too large" in causes(5 * ones, ones, sizes=SIZES)


def test_a_single_number_has_no_entries() -> None:
    one = torch.tensor(2.0, dtype=torch.float64)
    assert causes(5 * one, one, sizes=SIZES).startswith("It is N = 5 times too large")


def test_a_single_number_is_no_multiple_of_another() -> None:
    assert causes(torch.tensor(3.4, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)) == ""


@pytest.mark.parametrize("got", [RIGHT * float("nan"), torch.zeros(0, 3, dtype=torch.float64)])
def test_what_is_not_finite_or_empty_has_no_cause(got: Tensor) -> None:
    assert causes(got, torch.zeros(got.shape, dtype=torch.float64)) == ""


def test_a_wide_tolerance_makes_no_factor() -> None:
    expected = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    wrong = expected * torch.tensor([0.9, 1.0, 0.95, 0.96], dtype=torch.float64)
    assert likely_causes(wrong, expected, Hints(), rtol=0.02, atol=0.0) == []
    assert likely_causes(expected * 1.002, expected, Hints(), rtol=1e-3, atol=0.0) == []
