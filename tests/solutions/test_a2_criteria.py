"""The criteria of Assignment 2 against right, unusual, wrong and worthless solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jupytext
import pytest
import torch
import torch.nn.functional as F
from criteria_in_process import Criteria, unmet, with_variant

from course_utils.checking import Alternative, Mistake
from solutions.a2_k_layer_networks import alternatives

CRITERIA = Criteria("a2_k_layer_networks")
EXERCISES, MISTAKES, ALTERNATIVES = CRITERIA.exercises, CRITERIA.mistakes, CRITERIA.alternatives
judged = CRITERIA.judged
SECRETS = [f"secret {k}" for k in range(3)]
GENERAL = {  # which many exercises share, so that some have mistakes against them and others need none
    "any_shape",
    "keeps_form",
    "keeps_precision",
    "later_steps_keep_the_dtype",
    "takes_any_layout",
}
PASSES = {
    "backward": "forward",
    "batch_norm_backward": "batch_norm_forward",
    "backward_bn": "forward_bn",
    "dropout_backward": "dropout_forward",
}


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """The reference solution."""
    return CRITERIA.reference()


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
    for secret in SECRETS[:2]:
        result = judged(variant.exercise, with_variant(reference, variant), secret)
        assert set(unmet(result)) == set(variant.caught_by)
        assert result.score < result.max_score


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("variance_for_std", "That is the variance"),
        ("he_by_outputs", "The number of outputs"),
        ("no_relu", "no ReLU after the hidden layers"),
        ("probabilities_for_scores", "without a softmax"),
        ("losses_summed", "summed over the examples"),
        ("last_layer_regularised", "Only the last layer"),
        ("first_layer_regularised", "Only the first layer"),
        ("mean_of_squares", "The squares are averaged"),
        ("norm_without_square", "is to be squared"),
        ("gradients_of_the_sum", "the 1/N is missing"),
        ("divided_by_N_twice", "divided by N once too often"),
        ("mean_for_b", "The gradients of b are divided by N"),
        ("bn_gradients_of_the_sum", "the 1/N is missing"),
        ("learning_rate_of_the_next_update", "the first update has t = 0"),
        ("best_layers_returned", "from before the last update"),
        ("weighted_mean", "without the factor 1 − μ"),
        ("plain_momentum", "does not look ahead"),
        ("alpha_swapped", "are exchanged"),
        ("starts_at_the_first_square", "The memory starts from a₀ = 0"),
        ("no_bias_correction", "The bias correction is missing"),
        ("only_the_mean_corrected", "The bias correction of a is missing"),
        ("only_the_squares_corrected", "The bias correction of m is missing"),
        ("unbiased_everywhere", "divided by N − 1"),
        ("divided_by_the_variance", "its root is meant"),
        ("over_the_features", "are those of the rows"),
        ("weights_swapped", "are exchanged"),
        ("std_for_running_variance", "That is the standard deviation"),
        ("eps_in_the_running_variance", "under the root alone"),
        ("statistics_as_constants", "Only the direct path"),
        ("mean_path_missing", "The path through the mean is missing"),
        ("variance_path_missing", "The path through the variance is missing"),
        ("variance_path_added", "has the wrong sign"),
        ("gamma_missing_in_the_gradient", "γ is missing"),
        ("std_missing_in_the_gradient", "not divided by √(v + ε)"),
        ("sums_for_means", "where their means are meant"),
        ("beta_gradient_with_gamma", "not its product with γ"),
        ("gamma_and_beta_exchanged", "the two are exchanged"),
        ("shared_by_the_wrong_classes", "the other classes alone"),
        ("epsilon_not_divided", "not ε / K"),
        ("smoothed_losses_summed", "summed over the examples"),
    ],
)
def test_the_notebook_names_the_slip(name: str, cause: str, reference: dict[str, Any]) -> None:
    """What a student sees before anyone graded anything: the visible criteria's own words."""
    variant = next(v for v in MISTAKES if v.name == name)
    for secret in SECRETS[:2]:
        result = judged(variant.exercise, with_variant(reference, variant), secret)
        told = [c.message for c in result.criteria if c.criterion.visible and not c.passed]
        assert any(cause in message for message in told), told


def test_every_exercise_has_mistakes_alternatives_and_hidden_criteria() -> None:
    for name, exercise in EXERCISES.items():
        assert sum(v.exercise == name for v in MISTAKES) >= 5
        assert sum(v.exercise == name for v in ALTERNATIVES) >= 1
        assert any(c.visible and not c.contract for c in exercise.criteria)
        assert any(c.name not in GENERAL for c in exercise.criteria if not c.visible)


def test_every_criterion_is_missed_by_some_mistake() -> None:
    """A criterion that no known mistake fails may not be able to fail."""
    for name, exercise in EXERCISES.items():
        caught = {c for v in MISTAKES if v.exercise == name for c in v.caught_by}
        never = {c.name for c in exercise.criteria} - caught - GENERAL
        assert not never, f"{name}: {never}"


def test_the_notebook_states_the_points_there_are() -> None:
    """The sums that the introduction names are those of the criteria and of the written questions."""
    exercises, bonus = (
        sum(e.max_score for e in EXERCISES.values() if e.bonus is is_bonus) for is_bonus in (False, True)
    )
    written = sum(cell.metadata.get("points", 0) for cell in jupytext.read(CRITERIA.source).cells)
    text = f"bring {exercises:g} points, the written questions {written:g}, and the bonus exercises up to {bonus:g} on"
    assert text in " ".join(CRITERIA.source.read_text(encoding="utf-8").replace("\n#", " ").split())


def test_only_mistakes_that_fail_the_same_criteria_share_their_words() -> None:
    for name in EXERCISES:
        told: dict[str, set[str]] = {}
        for v in (v for v in MISTAKES if v.exercise == name):
            assert told.setdefault(v.says, set(v.caught_by)) == set(v.caught_by)


def filled(value: Any, fill: float) -> Any:
    """The same structure with every number replaced."""
    if isinstance(value, torch.Tensor):
        return torch.full_like(value, fill)
    if isinstance(value, dict):
        return {k: filled(v, fill) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(filled(v, fill) for v in value)
    return fill if isinstance(value, float) else value


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e not in ("log_uniform", "early_stopping")])
@pytest.mark.parametrize("fill", [0.0, 1.0, float("nan"), float("inf")])
def test_a_constant_earns_nothing(exercise: str, fill: float, reference: dict[str, Any]) -> None:
    """Numbers of the right form, but nothing computed: no points, and no criterion breaks over NaN or infinity."""

    def constant(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("on_step", None)
        return filled(reference[exercise](*args, **kwargs), fill)

    result = judged(exercise, {**reference, exercise: constant}, SECRETS[0])
    earned = {c.criterion.name for c in result.criteria if c.passed and not c.criterion.contract}
    if exercise == "initialize":
        assert earned <= {"unknown_scheme"}  # which is the reference's here
    elif exercise == "label_smoothing_cross_entropy" or exercise == "dropout_forward":
        assert result.score <= 0.5
    else:
        assert result.score == 0, earned


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize(
    "result", [None, "ten", [], (1,), {}, [[1.0]], (1, 2), (None, None, None), [{"W": 1}] * 3, True]
)
def test_a_result_of_the_wrong_type_earns_nothing(exercise: str, result: Any, reference: dict[str, Any]) -> None:
    found = judged(exercise, {**reference, exercise: lambda *args, **kwargs: result}, SECRETS[0])
    assert found.score <= (0.5 if exercise == "early_stopping" and result is True else 0)
    assert all(c.message for c in found.criteria if not c.passed)


# --- Pairs of passes with caches of their own ------------------------------------------------------------------------


@dataclass
class OwnCache:
    """A cache as students write them."""

    X: torch.Tensor
    masks: list[torch.Tensor]
    probabilities: torch.Tensor


def forward_to_dataclass(X: torch.Tensor, layers: Any) -> Any:
    cache, H = OwnCache(X, [], X), X
    for layer in layers[:-1]:
        S = H @ layer["W"] + layer["b"]
        cache.masks.append(S > 0)
        H = S * (S > 0)
    scores = H @ layers[-1]["W"] + layers[-1]["b"]
    cache.probabilities = torch.softmax(scores, 1)
    return scores, cache


def backward_from_dataclass(y: torch.Tensor, layers: Any, cache: OwnCache, lam: float) -> Any:
    inputs = [cache.X]  # computed again
    for mask, layer in zip(cache.masks, layers[:-1], strict=True):
        inputs.append((inputs[-1] @ layer["W"] + layer["b"]) * mask)
    G = (cache.probabilities - F.one_hot(y, cache.probabilities.shape[1])) / len(y)
    gradients: list[Any] = []
    for k in range(len(layers) - 1, -1, -1):
        gradients.insert(0, {"W": inputs[k].T @ G + 2 * lam * layers[k]["W"], "b": G.sum(0)})
        G = (G @ layers[k]["W"].T) * cache.masks[k - 1] if k else G
    return gradients


def forward_to_closure(X: torch.Tensor, layers: Any, relu: Callable[..., Any] = torch.relu) -> Any:
    if len(layers) == 1:
        scores = X @ layers[0]["W"] + layers[0]["b"]

        def back_last(y: torch.Tensor, lam: float) -> Any:
            G = (torch.softmax(scores, 1) - F.one_hot(y, scores.shape[1])) / len(y)
            return G @ layers[0]["W"].T, [{"W": X.T @ G + 2 * lam * layers[0]["W"], "b": G.sum(0)}]

        return scores, back_last
    S = X @ layers[0]["W"] + layers[0]["b"]
    scores, back = forward_to_closure(relu(S), layers[1:], relu)

    def back_one(y: torch.Tensor, lam: float) -> Any:
        G, later = back(y, lam)
        G = G * (S > 0)
        return G @ layers[0]["W"].T, [{"W": X.T @ G + 2 * lam * layers[0]["W"], "b": G.sum(0)}, *later]

    return scores, back_one


def backward_from_closure(y: torch.Tensor, layers: Any, cache: Any, lam: float) -> Any:
    return cache(y, lam)[1]


def bn_forward_to_inputs(
    S: Any, gamma: Any, beta: Any, running: Any, *, training: bool, decay: float = 0.9, eps: float = 1e-5
) -> Any:
    out, _, running = alternatives.batch_norm_by_lerp(S, gamma, beta, running, training=training, decay=decay, eps=eps)
    return out, {"S": S, "gamma": gamma, "eps": eps}, running


def bn_backward_from_inputs(grad_out: Any, cache: Any) -> Any:
    S, gamma = cache["S"], cache["gamma"]
    centred = S - S.mean(0)
    var = centred.square().mean(0) + cache["eps"]
    g = grad_out * gamma
    grad_S = (g - g.mean(0) - centred * (g * centred).mean(0) / var) / var.sqrt()
    return grad_S, (grad_out * centred / var.sqrt()).sum(0), grad_out.sum(0)


def dropout_to_seed(H: Any, p: float, *, training: bool, generator: torch.Generator) -> Any:
    seed = int(torch.randint(2**62, (), generator=generator))
    return dropout_from_seed(H, (seed, p if training else 0.0)), (seed, p if training else 0.0)


def dropout_from_seed(H: Any, cache: Any) -> Any:
    seed, p = cache
    keep = torch.rand(H.shape, generator=torch.Generator().manual_seed(seed)) >= p
    return torch.where(keep, H / (1 - p), torch.zeros_like(H))


@pytest.mark.parametrize(
    "pair",
    [
        {"forward": forward_to_dataclass, "backward": backward_from_dataclass},
        {"forward": forward_to_closure, "backward": backward_from_closure},
        {"batch_norm_forward": bn_forward_to_inputs, "batch_norm_backward": bn_backward_from_inputs},
        {"dropout_forward": dropout_to_seed, "dropout_backward": dropout_from_seed},
    ],
    ids=lambda pair: next(iter(pair.values())).__name__,
)
def test_pairs_may_have_caches_of_their_own(pair: dict[str, Any], reference: dict[str, Any]) -> None:
    for exercise in pair:
        for secret in SECRETS:
            assert unmet(judged(exercise, {**reference, **pair}, secret)) == {}


def _forward_mistakes() -> list[tuple[str, Mistake]]:
    """Backward passes, each with every mistake of the forward pass that still gives it a cache."""
    hopeless = {"weights_transposed", "cost_for_index"}
    return [(b, v) for b, f in PASSES.items() for v in MISTAKES if v.exercise == f and v.name not in hopeless]


CACHE_LOST = {  # the forward pass hands on what no backward pass can use
    "training_not_handed_on",
    "one_cache_for_all_calls",
}


@pytest.mark.parametrize(("exercise", "variant"), _forward_mistakes(), ids=lambda v: getattr(v, "name", v))
def test_a_wrong_forward_pass_costs_the_backward_pass_little(
    exercise: str, variant: Mistake, reference: dict[str, Any]
) -> None:
    """Even before the judge puts the reference in the forward pass's place, most of the points are there."""
    result = judged(exercise, with_variant(reference, variant), SECRETS[0])
    if variant.name not in CACHE_LOST:
        assert result.score >= 0.4 * result.max_score, unmet(result)
