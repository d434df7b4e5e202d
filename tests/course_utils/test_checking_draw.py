"""Random inputs for criteria: the same for the same seed, and never degenerate."""

from __future__ import annotations

import pytest
import torch

from course_utils.checking import Draw, as_dtype, strided


def everything(draw: Draw) -> list[torch.Tensor]:
    return [
        draw.normal(3, 4),
        draw.uniform(-1, 2, 5),
        draw.integers(0, 9, 6),
        draw.labels(7, 3),
        draw.signs(4),
        draw.permutation(8),
        torch.tensor(draw.number(0, 1)),
        draw.generator().get_state(),
    ]


def test_the_same_seed_gives_the_same_inputs_and_another_others() -> None:
    first, again, other = (everything(Draw(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[:3], other[:3], strict=True))


def test_nothing_depends_on_the_global_state_of_torch() -> None:
    torch.manual_seed(1)
    first = Draw(0).normal(4)
    torch.manual_seed(2)
    assert torch.equal(first, Draw(0).normal(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_floats_have_the_dtype_of_the_draw_and_labels_are_integers(dtype: torch.dtype) -> None:
    draw = Draw(0, dtype)
    assert draw.normal(2, 3).dtype == draw.uniform(0, 1, 2).dtype == draw.signs(3).dtype == dtype
    assert draw.normal().shape == () and draw.normal().dtype == dtype
    assert draw.labels(5, 3).dtype == draw.integers(0, 2, 3).dtype == torch.int64


def test_scale_and_shift_of_normal_numbers() -> None:
    sample = Draw(0).normal(20_000, scale=3.0, shift=-2.0)
    assert sample.mean().item() == pytest.approx(-2.0, abs=0.1)
    assert sample.std().item() == pytest.approx(3.0, abs=0.1)


def test_uniform_numbers_stay_inside_their_bounds() -> None:
    sample = Draw(0).uniform(2.0, 2.5, 1000)
    assert sample.min() >= 2.0 and sample.max() < 2.5


def test_labels_and_signs_always_hold_two_classes() -> None:
    for seed in range(60):
        draw = Draw(seed)
        y, s = draw.labels(2, 2), draw.signs(2)
        assert y.unique().numel() == 2 and s.unique().numel() == 2
        assert set(s.tolist()) == {-1.0, 1.0} and y.max() <= 1


def test_permutation_holds_every_number_once() -> None:
    assert sorted(Draw(5).permutation(9).tolist()) == list(range(9))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 1, 3), (4, 0), (1,)])
def test_strided_has_gaps_and_the_same_values(shape: tuple[int, ...]) -> None:
    values = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    gapped = strided(values)
    assert torch.equal(gapped, values)
    assert gapped.numel() < 2 or gapped.stride(-1) == 2


def test_strided_leaves_a_single_number_as_it_is() -> None:
    assert strided(torch.tensor(3.0)).item() == 3.0


def test_as_dtype_casts_float_tensors_only() -> None:
    y, lam = torch.tensor([1, 2]), 0.5
    X, same_y, same_lam = as_dtype((torch.ones(2), y, lam), torch.float64)
    assert isinstance(X, torch.Tensor) and X.dtype == torch.float64
    assert same_y is y and same_lam == lam
