"""The criteria of Assignment 1 against right, unusual, wrong and worthless solutions."""

from __future__ import annotations

import ast
import linecache
from typing import Any

import pytest
import torch
from criteria_in_process import Criteria, unmet, with_variant

from autograder.rules import read
from autograder.submitted_source import Source
from course_utils.checking import Alternative, Mistake
from course_utils.checking.ready_made import ready_made_calls

CRITERIA = Criteria("a1_linear_classifiers")
EXERCISES, MISTAKES, ALTERNATIVES = CRITERIA.exercises, CRITERIA.mistakes, CRITERIA.alternatives
judged = CRITERIA.judged
SECRETS = [f"secret {k}" for k in range(5)]


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """The reference solution."""
    return CRITERIA.reference()


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("secret", SECRETS)
def test_reference_meets_every_criterion(exercise: str, secret: str, reference: dict[str, Any]) -> None:
    assert unmet(judged(exercise, reference, secret)) == {}


@pytest.mark.parametrize("variant", ALTERNATIVES, ids=lambda v: f"{v.exercise}.{v.name}")
def test_alternative_gets_full_marks(variant: Alternative) -> None:
    for secret in SECRETS:
        assert unmet(judged(variant.exercise, with_variant({}, variant), secret)) == {}


@pytest.mark.parametrize("variant", MISTAKES, ids=lambda v: f"{v.exercise}.{v.name}")
def test_mistake_fails_exactly_what_it_breaks(variant: Mistake) -> None:
    for secret in SECRETS:
        result = judged(variant.exercise, {variant.exercise: variant.solution}, secret)
        assert set(unmet(result)) == set(variant.caught_by)
        assert not any("could not be used" in message for message in unmet(result).values())
        assert 0 < result.score < result.max_score


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("sample_std", "divided by N − 1"),
        ("variance_for_std", "the root is missing"),
        ("svm_without_margin", "The 1 of max(0, 1 − y(w·x + b)) is missing"),
        ("svm_not_cut_off", "max(0, …) is missing"),
        ("svm_norm_not_squared", "λ times the norm"),
        ("svm_bias_regularised", "b is regularised too"),
        ("svm_gradients_without_margin", "Only misclassified examples count"),
        ("svm_gradients_of_all", "Every example counts"),
        ("softmax_over_examples", "not over the classes of a row (dim 1)"),
        ("logarithm_to_base_two", "base 2"),
        ("accuracy_in_per_cent", "a percentage"),
        ("error_rate", "share of wrong predictions"),
        ("gradients_without_targets", "labels are not subtracted"),
        ("gradients_bias_regularised", "b is regularised too"),
        ("true_class_counted", "The true class counts too"),
        ("hinge_without_margin", "The margin of 1 is missing"),
        ("hinge_of_worst_class", "largest violation counts"),
        ("hinge_squared", "squared"),
        ("violations_for_their_derivative", "the slope of max(0, m) is 1"),
        ("true_class_pushed_once", "counts once, however many margins"),
        ("true_class_among_the_violations", "counts among the active ones"),
        ("true_class_not_pushed", "The true class's entry is 0"),
        ("hinge_turned_round", "The true and the wrong class are exchanged"),
        ("own_statistics_for_every_set", "the arguments `mean` and `std` are to be used"),
        ("epsilon_added_to_std", "that rounding or `+ eps` leaves"),
        ("scores_without_bias", "b is missing"),
        ("softmax_over_everything", "All entries of the matrix together"),
        ("softmax_clamped", "The scores were cut off"),
        ("epsilon_in_the_logarithm", "A small number keeps p away from 0"),
        ("svm_loss_summed", "a sum over them: divide by N"),
        ("cross_entropy_summed", "a sum over them: divide by N"),
        ("hinge_summed", "a sum over them: divide by N"),
        ("bce_summed_over_examples", "a sum over them: divide by N"),
        ("gradients_not_divided", "sums over them: divide by N"),
        ("gradient_of_b_averaged", "grad_b halves"),
        ("hinge_gradient_of_b_averaged", "grad_b halves"),
        ("gradients_lambda_divided", "divided by N; only the loss is a mean"),
        ("divided_by_classes", "divided by K"),
        ("bce_gradients_of_softmax", "P is the softmax"),
        ("uphill", "The step goes uphill"),
        ("shuffled_once", "draw a new one in each epoch"),
    ],
)
def test_the_notebook_names_the_slip(name: str, cause: str) -> None:
    """What a student sees before anyone graded anything: the visible criteria's own words."""
    variant = next(v for v in MISTAKES if v.name == name)
    for secret in SECRETS:
        result = judged(variant.exercise, {variant.exercise: variant.solution}, secret)
        told = [c.message for c in result.criteria if c.criterion.visible and not c.passed]
        assert any(cause in message for message in told), told


@pytest.mark.parametrize(
    ("exercise", "code", "cause"),
    [
        ("standardizer", "lambda X: (X.mean(), X.std())", "There is one number for all"),
        ("standardizer", "lambda X: (X.mean(1), X.std(1, correction=0))", "There is one number for every example"),
        ("standardizer", "lambda X: (X.std(0, correction=0), X.mean(0))", "the mean comes first"),
        ("standardize", "lambda X, mean, std: X - mean / std", "needs parentheses"),
        ("cross_entropy", "lambda s, y: s.exp().sum(1).log() - s[torch.arange(len(y)), y]", "take their mean"),
        ("cross_entropy", "lambda s, y: (s.exp().sum(1).log() - s[:, y]).mean()", "takes whole columns"),
        ("binary_svm_gradients", "lambda w, b, X, y, lam: (b, w)", "in the wrong order"),
        ("cross_entropy_gradients", "lambda X, y, W, b, lam: (W, X.sum(1))", "There is one number for every example"),
        ("binary_svm_cost", "lambda w, b, X, y, lam: (1 - y * (X @ w + b)).clamp(min=0).sum() / len(w)", "of features"),
        ("random_horizontal_flip", "lambda images, p, generator: images.flip(2)", "the last axis"),
        ("random_horizontal_flip", "lambda images, p, generator: images.flip(3)", "each needs its own"),
        ("minibatch_gd", "lambda X, y, W, b, gradients, **others: (W, b)", "no other in its place"),
    ],
)
def test_a_beginners_slip_has_a_cause(exercise: str, code: str, cause: str) -> None:
    for secret in SECRETS:
        result = judged(exercise, {exercise: eval(code)}, secret)
        assert any(cause in message for message in unmet(result).values()), unmet(result)


def test_every_exercise_has_mistakes_alternatives_and_hidden_criteria() -> None:
    for name, exercise in EXERCISES.items():
        assert any(v.exercise == name for v in MISTAKES)
        assert any(v.exercise == name for v in ALTERNATIVES)
        for visible in (True, False):
            assert any(c.visible is visible and not c.contract for c in exercise.criteria) or not visible
        assert any(c.name not in ("takes_any_layout", "keeps_precision") for c in exercise.criteria if not c.visible)


def test_every_mistake_tells_something_of_its_own() -> None:
    for name in EXERCISES:
        told = [v.says for v in MISTAKES if v.exercise == name]
        assert len(set(told)) == len(told)


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("fill", [0.0, 1.0, float("nan"), float("inf")])
def test_a_constant_earns_nothing(exercise: str, fill: float, reference: dict[str, Any]) -> None:
    """Numbers of the right form, but nothing computed: no points, and no criterion breaks over NaN or infinity."""

    def constant(*args: Any, **kwargs: Any) -> Any:
        if "epochs" in kwargs:
            kwargs["epochs"] = 0  # or it would be the reference that calls `gradients`
        right = reference[exercise](*args, **kwargs)
        if isinstance(right, tuple):
            return tuple(torch.full_like(r, fill) for r in right)
        return torch.full_like(right, fill) if isinstance(right, torch.Tensor) else fill

    result = judged(exercise, {exercise: constant}, SECRETS[0])
    if exercise == "standardizer" and fill == 1.0:  # right for the std of constant features, and only there
        assert {c.criterion.name for c in result.criteria if c.passed and not c.criterion.contract} == {
            "constant_features_get_one"
        }
    else:
        assert result.score == 0


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("result", [None, "ten", [], (1,), {}, [[1.0]], True])
def test_a_result_of_the_wrong_type_earns_nothing(exercise: str, result: Any) -> None:
    found = judged(exercise, {exercise: lambda *args, **kwargs: result}, SECRETS[0])
    assert found.score == 0
    assert all(c.message for c in found.criteria)


READY_MADE = {
    "softmax": (
        "torch.distributions.Categorical(logits=scores).probs",
        "(scores - scores.logcumsumexp(1)[:, -1:]).exp()",
        "torch.masked.softmin(-scores, 1)",
        "torch.special.softmax(scores, 1)",
        "torch.softmax.__call__(scores, 1)",
        "torch._C._nn.log_softmax(scores, 1).exp()",
        "torch.ops.aten.softmax.int(scores, 1)",
    ),
    "multiclass_hinge": ("torch.margin_ranking_loss(scores, y, y)", "torch.hinge_embedding_loss(scores, y)"),
    "binary_cross_entropy": (
        "torchvision.ops.sigmoid_focal_loss(scores, y, alpha=-1, gamma=0)",
        "torch.binary_cross_entropy_with_logits(scores, y)",
        "torch.distributions.Bernoulli(logits=scores).log_prob(y)",
    ),
    "random_horizontal_flip": ("torchvision.transforms.functional.hflip(scores)",),
}


@pytest.mark.parametrize(("exercise", "call"), [(e, call) for e, calls in READY_MADE.items() for call in calls])
def test_ready_made_ways_are_refused_by_the_notebook_and_by_grading(exercise: str, call: str) -> None:
    code = f"import torch, torch.masked, torchvision\ndef {exercise}(scores, y=None):\n    return {call}\n"
    linecache.cache["cell"] = (len(code), None, code.splitlines(True), "cell")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "cell", "exec"), namespace)
    forbidden = EXERCISES[exercise].forbidden
    assert ready_made_calls(exercise, namespace, forbidden, [])
    assert read(Source([ast.parse(code)]), exercise, forbidden, [exercise]).violations
