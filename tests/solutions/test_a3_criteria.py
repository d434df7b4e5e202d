"""The criteria of Assignment 3 against right, unusual, wrong and worthless solutions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from criteria_in_process import Criteria, unmet, with_variant
from torch import nn

from assignments.a3_convnets import checks
from course_utils.checking import Alternative, Mistake

CRITERIA = Criteria("a3_convnets")
EXERCISES, MISTAKES, ALTERNATIVES = CRITERIA.exercises, CRITERIA.mistakes, CRITERIA.alternatives
judged = CRITERIA.judged
CLASSES = ("ConvBlock", "ResidualBlock", "ConvNet", "InceptionBlock", "SeparableConvBlock")
SECRETS = [f"secret {k}" for k in range(2)]


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """The reference solution."""
    return CRITERIA.reference()


@pytest.fixture(autouse=True)
def gradients_are_recorded() -> Iterator[None]:
    """A mistake may switch them off."""
    yield
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("secret", SECRETS)
def test_reference_meets_every_criterion(exercise: str, secret: str, reference: dict[str, Any]) -> None:
    assert unmet(judged(exercise, reference, secret)) == {}


@pytest.mark.parametrize("variant", ALTERNATIVES, ids=lambda v: f"{v.exercise}.{v.name}")
def test_alternative_gets_full_marks(variant: Alternative, reference: dict[str, Any]) -> None:
    for secret in SECRETS:
        assert unmet(judged(variant.exercise, with_variant(reference, variant), secret)) == {}


@pytest.mark.parametrize("variant", MISTAKES, ids=lambda v: f"{v.exercise}.{v.name}")
def test_mistake_fails_exactly_what_it_breaks(variant: Mistake, reference: dict[str, Any]) -> None:
    result = judged(variant.exercise, with_variant(reference, variant), SECRETS[0])
    assert set(unmet(result)) == set(variant.caught_by)
    assert 0 < result.score < result.max_score


def test_a_wrong_forward_pass_costs_the_backward_pass_nothing(reference: dict[str, Any]) -> None:
    """Backward belongs to the student's own forward pass, even where that computes something else."""

    def flipped(X: Any, F: Any, b: Any, stride: int, padding: int) -> Any:
        return reference["conv2d_forward"](X, F.flip(2, 3), b, stride, padding)

    def through_flipped_filters(grad_out: Any, cache: Any) -> Any:
        grad_X, grad_F, grad_b = reference["conv2d_backward"](grad_out, cache)
        return grad_X, grad_F.flip(2, 3), grad_b

    def doubled(X: Any, k: int, stride: int) -> Any:
        out, cache = reference["max_pool2d_forward"](X, k, stride)
        return 2 * out, cache

    def twice(grad_out: Any, cache: Any) -> Any:
        return 2 * reference["max_pool2d_backward"](grad_out, cache)

    def unrectified(patches: Any, params: Any) -> Any:
        maps = patches @ params["F"] + params["b"]
        hidden = torch.relu(maps.flatten(1) @ params["W1"] + params["b1"])
        scores = hidden @ params["W2"] + params["b2"]
        return scores, (patches, maps, hidden, scores)

    def without_mask(y: Any, params: Any, cache: Any, lam: float) -> Any:
        patches, maps, hidden, scores = cache
        positive = (patches, maps.abs() + 1, hidden, scores)
        found = reference["patchify_net_backward"](y, params, positive, lam)
        G = torch.softmax(scores, 1)
        G[torch.arange(len(y)), y] -= 1
        grad_W1 = maps.flatten(1).T @ ((G / len(y)) @ params["W2"].T * (hidden > 0)) + 2 * lam * params["W1"]
        return {**found, "W1": grad_W1}

    for forward, backward, first, second in (
        ("conv2d_forward", "conv2d_backward", flipped, through_flipped_filters),
        ("patchify_net_forward", "patchify_net_backward", unrectified, without_mask),
    ):
        own = {**reference, forward: first, backward: second}
        assert unmet(judged(forward, own, SECRETS[0]))
        assert unmet(judged(backward, own, SECRETS[0])) == {}
    own = {**reference, "max_pool2d_forward": doubled, "max_pool2d_backward": twice}
    # Exactly the gradient to one pixel of each window is what max pooling gives, and nothing else.
    asked = {"one_pixel_among_ties", "pixels_in_no_window", "ties_of_overlapping_windows"}
    assert set(unmet(judged("max_pool2d_backward", own, SECRETS[0]))) <= asked


@pytest.mark.parametrize("kind", ["closure", "dict", "object", "None"])
def test_a_cache_is_the_students_own_business(kind: str, reference: dict[str, Any]) -> None:
    kept: list[Any] = []

    class Box:
        def __init__(self, content: Any) -> None:
            self.content = content

    def wrapped(content: Any) -> Any:
        kept.append(content)
        return {"closure": lambda: content, "dict": {"all": content}, "object": Box(content), "None": None}[kind]

    def content_of(cache: Any) -> Any:
        if kind == "None":  # one cache for all calls, which the criteria must notice
            return kept[-1]
        return cache() if kind == "closure" else cache["all"] if kind == "dict" else cache.content

    def forward(*arguments: Any) -> Any:
        out, cache = reference["conv2d_forward"](*arguments)
        return out, wrapped(cache)

    def backward(grad_out: Any, cache: Any) -> Any:
        return reference["conv2d_backward"](grad_out, content_of(cache))

    own = {**reference, "conv2d_forward": forward, "conv2d_backward": backward}
    assert unmet(judged("conv2d_forward", own, SECRETS[0])) == {}
    failed = {"caches_are_independent"} if kind == "None" else set()
    assert set(unmet(judged("conv2d_backward", own, SECRETS[0]))) == failed


def test_every_exercise_has_mistakes_alternatives_and_hidden_criteria() -> None:
    for name, exercise in EXERCISES.items():
        assert sum(v.exercise == name for v in MISTAKES) >= 5
        assert sum(v.exercise == name for v in ALTERNATIVES) >= 2
        assert any(c.visible and not c.contract for c in exercise.criteria)


def test_every_mistake_tells_something_of_its_own() -> None:
    for name in EXERCISES:
        told = [v.says for v in MISTAKES if v.exercise == name]
        assert len(set(told)) == len(told)


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e not in CLASSES])
@pytest.mark.parametrize("fill", [0.0, 1.0, float("nan"), float("inf")])
def test_a_constant_earns_next_to_nothing(exercise: str, fill: float, reference: dict[str, Any]) -> None:
    """Numbers of the right form, but nothing computed; and no criterion breaks over NaN or infinity."""

    def filled(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            whole = value.dtype in (torch.int64, torch.uint8, torch.int16, torch.bool)
            return torch.zeros_like(value) if whole else torch.full_like(value, fill)
        if isinstance(value, dict):
            return {k: filled(v) for k, v in value.items()}
        if isinstance(value, int | float):
            return type(value)(fill) if fill in (0.0, 1.0) else float(fill)
        return value

    def constant(*args: Any, **kwargs: Any) -> Any:
        if exercise == "train_epoch":
            return fill
        right = reference[exercise](*args, **kwargs)
        if exercise in ("conv2d_forward", "max_pool2d_forward", "patchify_net_forward"):
            return filled(right[0]), right[1]
        return tuple(filled(r) for r in right) if isinstance(right, tuple) else filled(right)

    result = judged(exercise, {**reference, exercise: constant}, SECRETS[0])
    # One of receptive_field's criteria is that without layers the field is 1.
    earned = {c.criterion.name for c in result.criteria if c.passed and not c.criterion.contract}
    assert earned <= ({"no_layers"} if exercise == "receptive_field" else set())


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e not in CLASSES])
@pytest.mark.parametrize("result", [None, "ten", [], (1,), {}, [[1.0]], True])
def test_a_result_of_the_wrong_type_earns_next_to_nothing(
    exercise: str, result: Any, reference: dict[str, Any]
) -> None:
    found = judged(exercise, {**reference, exercise: lambda *args, **kwargs: result}, SECRETS[0])
    # True is 1, the receptive field of no layers.
    luck = {"no_layers", "leaves_arguments_alone"} if exercise == "receptive_field" and result is True else set()
    assert {c.criterion.name for c in found.criteria if c.passed} <= luck
    assert all(c.message for c in found.criteria if not c.passed)


class Nothing(nn.Module):
    """A module that gives zeros of no useful shape."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), 1)


class Alike(Nothing):
    """A module that gives its input back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("exercise", CLASSES)
@pytest.mark.parametrize("wrong", [Nothing, Alike, lambda *sizes: 5, lambda *sizes: None, lambda *sizes: [], nn.Module])
def test_a_module_that_computes_nothing_earns_nothing(exercise: str, wrong: Any, reference: dict[str, Any]) -> None:
    found = judged(exercise, {**reference, exercise: wrong}, SECRETS[0])
    assert found.score == 0
    assert all(c.message for c in found.criteria)


def test_what_is_allowed_and_what_is_not() -> None:
    forbidden = set(checks.FORBIDDEN)
    assert {
        "torch.nn.functional.unfold",
        "torch.conv2d",
        "torch.nn.Conv2d",
        "torch.nn.Fold",
        "torch.autograd.*",
    } <= forbidden
    assert {"torch.nn.functional.max_pool2d", "torch.max_pool2d", "torch.conv_transpose2d"} <= forbidden
    assert not {"torch.nn.functional.pad", "torch.Tensor.unfold", "torch.as_strided", "torch.nn.Module"} & forbidden
