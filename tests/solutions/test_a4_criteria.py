"""The criteria of Assignment 4 against right, unusual, wrong and worthless solutions."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from criteria_in_process import Criteria, unmet, with_variant

from assignments.a4_rnn_text_synthesis import checks
from autograder.rules import read
from autograder.submitted_source import Source
from autograder.variant_programs import program_of
from course_utils.checking import Alternative, Mistake
from course_utils.checking.ready_made import ready_made_calls
from solutions.a4_rnn_text_synthesis import alternatives

CRITERIA = Criteria("a4_rnn_text_synthesis")
EXERCISES, MISTAKES, ALTERNATIVES = CRITERIA.exercises, CRITERIA.mistakes, CRITERIA.alternatives
judged = CRITERIA.judged
SECRETS = [f"secret {k}" for k in range(3)]
MODULES = ("CharLSTM", "CausalSelfAttention")


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


@pytest.mark.parametrize("variant", ALTERNATIVES, ids=lambda v: f"{v.exercise}.{v.name}")
def test_alternative_is_not_refused(variant: Alternative, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the notebook's look at names nor grading's reading of the source finds something forbidden."""
    methods = vars(variant.solution).values() if inspect.isclass(variant.solution) else [variant.solution]
    for method in methods:
        if inspect.isfunction(method):
            monkeypatch.setattr(method, "__module__", "__main__")  # as if a cell defined it
    forbidden = EXERCISES[variant.exercise].forbidden
    names = {**vars(alternatives), variant.exercise: variant.solution}
    assert ready_made_calls(variant.exercise, names, forbidden, EXERCISES) == []
    program = Source([ast.parse(program_of(variant))])
    assert read(program, variant.exercise, forbidden, list(EXERCISES)).violations == []


def forbidden_in(code: str, exercise: str) -> tuple[bool, bool]:
    """Whether the notebook and whether grading refuse a function of this body."""
    source = (
        f"import torch\nimport torch.nn.functional as F\nfrom torch import nn\ndef {exercise}(x):\n    return {code}\n"
    )
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec"), namespace)
    rules = EXERCISES[exercise].forbidden
    seen = ready_made_calls(exercise, namespace, rules, [e for e in EXERCISES if e != exercise])
    return bool(seen), bool(read(Source([ast.parse(source)]), exercise, rules, list(EXERCISES)).violations)


@pytest.mark.parametrize(
    "code", ["isinstance(x, nn.Module)", "nn.CrossEntropyLoss()(x, x)", "nn.Softmax(-1)(x)", "nn.Sigmoid()(x)",
             "nn.Linear(3, 4)(x)", "nn.Embedding(3, 4)(x)", "F.cross_entropy(x, x)", "torch.no_grad()"],
)  # fmt: skip
@pytest.mark.parametrize("exercise", ["rnn_forward", "attention", "lstm_step", "perplexity"])
def test_what_the_text_does_not_forbid_is_allowed(code: str, exercise: str) -> None:
    assert forbidden_in(code, exercise) == (False, False)


@pytest.mark.parametrize(
    "code", ["nn.RNN(3, 4)(x)", "nn.LSTMCell(3, 4)(x)", "nn.modules.GRU(3, 4)(x)", "nn.modules.rnn.RNNCell(3, 4)(x)",
             "torch.lstm_cell(x)", "torch.gru(x)", "nn.utils.clip_grad_norm_(x, 1)", "torch.optim.Adagrad(x)",
             "nn.MultiheadAttention(4, 2)(x)", "nn.modules.MultiheadAttention(4, 2)(x)", "torch.autograd.grad(x, x)",
             "F.scaled_dot_product_attention(x, x, x)", "nn.TransformerEncoderLayer(4, 2)(x)", "x.backward()"],
)  # fmt: skip
@pytest.mark.parametrize("exercise", ["rnn_forward", "attention", "lstm_step", "adagrad_step"])
def test_what_the_text_forbids_is_refused(code: str, exercise: str) -> None:
    assert forbidden_in(code, exercise) == (True, True)


@pytest.mark.parametrize("variant", MISTAKES, ids=lambda v: f"{v.exercise}.{v.name}")
def test_mistake_fails_exactly_what_it_breaks(variant: Mistake, reference: dict[str, Any]) -> None:
    for secret in SECRETS[:2]:
        result = judged(variant.exercise, with_variant(reference, variant), secret)
        assert set(unmet(result)) == set(variant.caught_by)
        assert result.score < result.max_score


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("one_step_only", "Nothing comes back from the second step"),
        ("added_after_the_slope", "added after the slope"),
        ("W_for_its_transpose", "W stands where Wᵀ is meant"),
        ("sigmoid_slope_of_the_candidate", "only g is wrong"),
        ("output_gate_without_tanh", "only o is wrong"),
        ("masked_after_the_softmax", "the weights of query 0 sum to"),
    ],
)
def test_messages_tell_similar_mistakes_apart(name: str, told: str, reference: dict[str, Any]) -> None:
    variant = next(v for v in MISTAKES if v.name == name)
    result = judged(variant.exercise, {**reference, variant.exercise: variant.solution}, SECRETS[0])
    assert any(told in message for message in unmet(result).values())


def test_every_exercise_has_mistakes_alternatives_and_hidden_criteria() -> None:
    general = {"takes_any_layout", "keeps_precision"}
    for name, exercise in EXERCISES.items():
        assert sum(v.exercise == name for v in MISTAKES) >= 5
        assert sum(v.exercise == name for v in ALTERNATIVES) >= 1
        assert any(c.visible and not c.contract for c in exercise.criteria)
        assert any(c.name not in general for c in exercise.criteria if not c.visible)


def test_every_criterion_is_missed_by_some_mistake() -> None:
    """A criterion that no known mistake fails may not be able to fail."""
    for name, exercise in EXERCISES.items():
        caught = {c for v in MISTAKES if v.exercise == name for c in v.caught_by}
        general = {"takes_any_layout", "keeps_form", "keeps_precision", "leaves_arguments_alone"}
        general |= {"nothing_is_remembered", "same_call_same_result"}  # what breaks these breaks more
        never = {c.name for c in exercise.criteria} - caught - general
        assert not never, f"{name}: {never}"


def test_every_mistake_tells_something_of_its_own() -> None:
    for name in EXERCISES:
        told = [v.says for v in MISTAKES if v.exercise == name]
        assert len(set(told)) == len(told)


def filled(value: Any, fill: float) -> Any:
    """The same structure with every number replaced."""
    if isinstance(value, torch.Tensor):
        return torch.full_like(value, fill) if value.is_floating_point() else torch.full_like(value, int(fill == 1))
    if isinstance(value, dict):
        return {k: filled(v, fill) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(filled(v, fill) for v in value)
    return fill if isinstance(value, float) else int(fill == 1) if isinstance(value, int) else value


# What they do is not in numbers that come back, or most of it is the reference's here.
NOT_NUMBERS = ("build_vocabulary", "decode", "chunks", "train_truncated", *MODULES)


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e not in NOT_NUMBERS])
@pytest.mark.parametrize("fill", [0.0, 1.0, float("nan"), float("inf")])
def test_a_constant_earns_next_to_nothing(exercise: str, fill: float, reference: dict[str, Any]) -> None:
    """Numbers of the right form, but nothing computed: no criterion breaks over NaN or infinity."""

    def constant(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("on_update", None)
        return filled(reference[exercise](*args, **kwargs), fill)

    result = judged(exercise, {**reference, exercise: constant}, SECRETS[0])
    refuses = {"unknown_character", "unknown_index", "too_short_a_text"}  # which is the reference's here
    earned = {c.criterion.name for c in result.criteria if c.passed and not c.criterion.contract} - refuses
    assert not earned


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize(
    "result", [None, "ten", [], (1,), {}, [[1.0]], (1, 2), (1, 2, 3), (None, None, None), [{"W": 1}] * 3, True]
)
def test_a_result_of_the_wrong_type_earns_nothing(exercise: str, result: Any, reference: dict[str, Any]) -> None:
    found = judged(exercise, {**reference, exercise: lambda *args, **kwargs: result}, SECRETS[0])
    assert found.score == 0
    assert all(c.message for c in found.criteria if not c.passed)


# --- Pairs of passes with caches of their own ------------------------------------------------------------------------

Kept = namedtuple("Kept", "rows targets states probabilities")


def forward_to_namedtuple(params: Any, inputs: torch.Tensor, targets: torch.Tensor, h0: torch.Tensor) -> Any:
    rows = F.one_hot(inputs, len(params["c"])).to(h0.dtype) if inputs.ndim == 1 else inputs.to(h0.dtype)
    states = [h0]
    for x in rows:
        states.append(torch.tanh(x @ params["U"] + states[-1] @ params["W"] + params["b"]))
    log_p = torch.log_softmax(torch.stack(states[1:]) @ params["V"] + params["c"], 1)
    loss = -log_p.gather(1, targets[:, None]).mean()
    return loss, states[-1], Kept(rows, targets, states, log_p.exp())


def backward_from_namedtuple(params: Any, cache: Kept) -> Any:
    grads = {k: torch.zeros_like(v) for k, v in params.items()}
    later = torch.zeros_like(params["b"])
    for t in reversed(range(len(cache.targets))):
        g = cache.probabilities[t].clone()
        g[cache.targets[t]] -= 1
        g /= len(cache.targets)
        later = (params["V"] @ g + later) * (1 - cache.states[t + 1] ** 2)
        grads["V"] += torch.outer(cache.states[t + 1], g)
        grads["c"] += g
        grads["U"] += torch.outer(cache.rows[t], later)
        grads["W"] += torch.outer(cache.states[t], later)
        grads["b"] += later
        later = params["W"] @ later
    return grads


def forward_to_closure(params: Any, inputs: torch.Tensor, targets: torch.Tensor, h0: torch.Tensor) -> Any:
    loss, h_last, kept = forward_to_namedtuple(params, inputs, targets, h0)
    return loss, h_last, lambda: backward_from_namedtuple(params, kept)


def lstm_to_arguments(params: Any, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
    new_h, new_c = checks.lstm_of(params, x, h, c)
    return new_h, new_c, {"params": params, "x": x, "h": h, "c": c}


def lstm_back_from_arguments(grad_h: torch.Tensor, grad_c: torch.Tensor, cache: Any) -> Any:
    params, x, h, c = cache["params"], cache["x"], cache["h"], cache["c"]
    z = x @ params["U"] + h @ params["W"] + params["b"]  # computed again
    zi, zf, zg, zo = z.chunk(4)
    i, f, g, o = zi.sigmoid(), zf.sigmoid(), zg.tanh(), zo.sigmoid()
    s = (f * c + i * g).tanh()
    total = grad_c + grad_h * o * (1 - s * s)
    d = [total * g * i * (1 - i), total * c * f * (1 - f), total * i * (1 - g * g), grad_h * s * o * (1 - o)]
    grad_z = torch.cat(d)
    grads = {"U": x[:, None] * grad_z, "W": h[:, None] * grad_z, "b": grad_z}
    return grads, params["U"] @ grad_z, params["W"] @ grad_z, total * f


@pytest.mark.parametrize(
    "pair",
    [
        {"rnn_forward": forward_to_namedtuple, "rnn_backward": backward_from_namedtuple},
        {"rnn_forward": forward_to_closure, "rnn_backward": lambda params, cache: cache()},
        {"lstm_step": lstm_to_arguments, "lstm_backward_step": lstm_back_from_arguments},
    ],
    ids=("namedtuple", "closure", "arguments"),
)
def test_pairs_may_have_caches_of_their_own(pair: dict[str, Any], reference: dict[str, Any]) -> None:
    for exercise in pair:
        for secret in SECRETS:
            assert unmet(judged(exercise, {**reference, **pair}, secret)) == {}


BACKWARD = {"rnn_forward": "rnn_backward", "lstm_step": "lstm_backward_step"}
# The state overflows, or what the backward function needs is not in the cache.
HOPELESS = {"cell_and_state_swapped", "only_indices", "softmax_twice", "logits_of_the_state_before"}


@pytest.mark.parametrize(
    "variant", [v for v in MISTAKES if v.exercise in BACKWARD and v.name not in HOPELESS], ids=lambda v: v.name
)
def test_a_wrong_forward_pass_costs_the_backward_pass_little(variant: Mistake, reference: dict[str, Any]) -> None:
    """Even before the judge puts the reference in the forward pass's place, most of the points are there."""
    exercise = BACKWARD[variant.exercise]
    result = judged(exercise, with_variant(reference, variant), SECRETS[0])
    assert result.score >= 0.4 * result.max_score, unmet(result)
