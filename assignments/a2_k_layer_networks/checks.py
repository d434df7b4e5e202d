"""What `check("forward")` and the like hold your functions of Assignment 2 against.

Read it when a message is not enough.  Each exercise is a list of criteria; the first line of a criterion says what
is asked.  `student.forward(...)` calls your function, `draw` makes random inputs, `expect` compares.  Grading uses
these criteria with other random inputs, and adds more: other sizes, extreme values, traps.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.checking import (
    Draw,
    Exercise,
    Form,
    Given,
    Nested,
    Opaque,
    Student,
    Unmet,
    add_contract,
    apart_from_factor,
    away_from_zero,
    describe,
    expect,
    finite,
    prop,
    scalar,
    unchanged_arguments,
)

Layers = list[dict[str, Tensor]]
Slips = dict[str, Tensor]
"""What usual slips give, each under the sentence that explains it; computed only where something differs."""


def ready_made(*words: str) -> list[str]:
    """Whatever PyTorch offers whose name holds one of the words: functions, layers, their variants."""
    places = (torch, torch.nn, torch.nn.modules, F)
    names = {f"{place.__name__}.{name}" for place in places for name in dir(place) if not name.startswith("_")}
    return sorted(n for n in names if any(word in n.split(".")[-1].replace("_", "").lower() for word in words))


# What these exercises ask you to write, and what would do it for you.
FORBIDDEN = (
    "torch.autograd.*",
    "torch.func.*",
    "torch.optim.*",
    "torch.nn.init.*",
    "torch.nn.modules.batchnorm.*",
    "torch.nn.modules.dropout.*",
    *ready_made("batchnorm", "dropout"),
)


# --- Random problems -------------------------------------------------------------------------------------------------


def sizes(draw: Draw, layers: int) -> list[int]:
    """The sizes [d, m1, …, K] of a network of so many layers; they all differ, so a mixed-up axis shows."""
    return [3 + size for size in draw.permutation(layers + 3)[: layers + 1].tolist()]


def labels(draw: Draw, N: int, K: int) -> Tensor:
    """N labels in random order among which every class occurs."""
    return torch.cat([torch.arange(K), draw.integers(0, K, N - K)])[draw.permutation(N)]


def network(draw: Draw, sizes: Sequence[int], *, bn: bool = False) -> Layers:
    """The layers of a network, with biases that are not zero; with `bn` hidden layers have gamma and beta."""
    layers = []
    for k, (d_in, d_out) in enumerate(pairwise(sizes)):
        layer = {"W": draw.normal(d_in, d_out, scale=math.sqrt(2 / d_in)), "b": 0.5 * away_from_zero(draw, d_out)}
        if bn and k < len(sizes) - 2:
            layer |= {"gamma": away_from_zero(draw, d_out), "beta": 0.5 * away_from_zero(draw, d_out)}
        layers.append(layer)
    return layers


def with_parts(layers: Layers, **changed: Callable[[Tensor], Tensor]) -> Layers:
    """The same layers with some of their tensors changed: with_parts(layers, b=torch.zeros_like)."""
    return [{k: changed[k](v) if k in changed else v for k, v in layer.items()} for layer in layers]


@dataclass
class Problem:
    """A training set X (N, d), y (N,) and a network.

    No input of a ReLU lies so near 0 that a small step would carry it across.
    """

    X: Tensor
    y: Tensor
    layers: Layers

    @property
    def N(self) -> int:
        """The number of examples."""
        return len(self.X)


def problem(
    draw: Draw,
    layers: int = 2,
    *,
    N: int | None = None,
    shape: Sequence[int] | None = None,
    bias: bool = True,
    bn: bool = False,
) -> Problem:
    """A random problem of so many layers, or of the given sizes [d, m1, …, K]; without `bias` every b is 0."""
    shape = shape or sizes(draw, layers)
    count = N or draw.integer(shape[-1] + 6, shape[-1] + 12)
    while True:
        net = network(draw, shape, bn=bn)
        net = net if bias else with_parts(net, b=torch.zeros_like)
        X = draw.normal(count, shape[0])
        inputs = relu_inputs(X, net)
        if all(bool((z.abs() > 1e-4).all()) for z in inputs):
            y = labels(draw, count, shape[-1]) if count >= shape[-1] else draw.integers(0, shape[-1], count)
            return Problem(X, y, net)


def normalised(S: Tensor, eps: float = 1e-5) -> Tensor:
    """Every column of S less its mean, divided by √(variance + eps); the variance is the mean of the squares."""
    centred = S - S.mean(0)
    return centred / torch.sqrt((centred**2).mean(0) + eps)


def relu_of_slope_one(z: Tensor) -> Tensor:
    """The values of ReLU, with the slope 1 everywhere: whoever forgets its mask has these gradients."""
    return z + (torch.relu(z) - z).detach()


class ReluOfGradient(torch.autograd.Function):
    """The values of ReLU, with the slope 1 where the gradient is positive, as a mask from the gradient has it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        """The values."""
        return torch.relu(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        """The gradient."""
        return torch.relu(grad)


def batch_normalised(S: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """What batch normalisation in training makes of S."""
    return gamma * normalised(S) + beta


def with_constant_statistics(S: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """The same values, but mean and variance count as constants on the way back."""
    plain = normalised(S).detach()
    scale = 1 / torch.sqrt(((S - S.mean(0)) ** 2).mean(0) + 1e-5).detach()
    return gamma * (plain + scale * (S - S.detach())) + beta


def with_a_slope_of_one(S: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """The same values, but on the way back to S the normalisation is skipped."""
    return gamma * normalised(S).detach() + beta + (S - S.detach())


Relu = Callable[[Tensor], Tensor]
BatchNorm = Callable[[Tensor, Tensor, Tensor], Tensor]


def relu_inputs(
    X: Tensor, layers: Layers, relu: Relu = torch.relu, batch_norm: BatchNorm = batch_normalised
) -> list[Tensor]:
    """What goes into the ReLU of every hidden layer; layers with gamma are normalised over the batch."""
    H, found = X, []
    for layer in layers[:-1]:
        S = H @ layer["W"] + layer["b"]
        found.append(batch_norm(S, layer["gamma"], layer["beta"]) if "gamma" in layer else S)
        H = relu(found[-1])
    return found


def scores_of(X: Tensor, layers: Layers, relu: Relu = torch.relu, batch_norm: BatchNorm = batch_normalised) -> Tensor:
    """The scores of a network, by PyTorch."""
    H = relu(relu_inputs(X, layers, relu, batch_norm)[-1]) if len(layers) > 1 else X
    return F.linear(H, layers[-1]["W"].T, layers[-1]["b"])


def loss_of(X: Tensor, y: Tensor, layers: Layers) -> Tensor:
    """The mean cross-entropy of a network, by PyTorch."""
    return F.cross_entropy(scores_of(X, layers), y)


def penalty_of(layers: Layers, lam: float) -> Tensor:
    """λ times the sum of the squares of all W."""
    return lam * torch.stack([(layer["W"] ** 2).sum() for layer in layers]).sum()


def gradients_by_autograd(loss: Callable[[Layers], Tensor], layers: Layers) -> Layers:
    """The gradients of loss(layers), with the structure of `layers`."""
    leaves = [{k: v.detach().clone().requires_grad_() for k, v in layer.items()} for layer in layers]
    flat = [v for layer in leaves for v in layer.values()]
    found = iter(torch.autograd.grad(loss(leaves), flat))
    return [{k: next(found) for k in layer} for layer in leaves]


# --- Results ---------------------------------------------------------------------------------------------------------


def entry(result: Any, k: int, key: str, shape: Sequence[int], name: str) -> Tensor:
    """The tensor `key` of entry k of a list of dicts, finite and of this shape."""
    if not isinstance(result, list | tuple):
        if result is None:
            expect(result, name).tensor()
        raise Unmet(f"Expected {name} as a list of dicts, got {describe(result)}.", "type")
    short = name.removeprefix("the ")
    if k >= len(result):
        raise Unmet(f"Expected {short}[{k}], but {name} come as a list of {len(result)}.", "type")
    if not isinstance(result[k], dict):
        raise Unmet(f"Expected a dict as {short}[{k}], got {describe(result[k])}.", "type")
    return value_of(result[k], key, shape, f"{short}[{k}]")


def value_of(given: Any, key: str, shape: Sequence[int], name: str) -> Tensor:
    """The tensor `key` of a dict, finite and of this shape."""
    if not isinstance(given, dict):
        raise Unmet(f"Expected a dict as {name}, got {describe(given)}.", "type")
    if key not in given:
        raise Unmet(f"{name} has no {key!r}.", "type")
    return finite(given[key], *shape, name=f"{name}[{key!r}]")


def form_of(name: str, layers: Layers) -> Nested:
    """The form of a list of layers, or of gradients."""
    return Nested(name, [{k: tuple(v.shape) for k, v in layer.items()} for layer in layers])


# --- Initialisation --------------------------------------------------------------------------------------------------

initialize = Exercise("initialize", forbidden=FORBIDDEN)

# So many entries that chance alone takes a right solution's spread 7 % off once in 10¹² times.
WIDE = [200, 60, 150, 50]


def weights(result: Any, sizes: Sequence[int]) -> list[Tensor]:
    """Every W of the layers that `initialize` returned, (d_in, d_out); that it is not transposed is asked elsewhere."""
    found = []
    for k, shape in enumerate(pairwise(sizes)):
        layer = result[k] if isinstance(result, list) and k < len(result) else None
        W = layer.get("W") if isinstance(layer, dict) else None
        if isinstance(W, Tensor) and W.shape == shape[::-1]:
            found.append(entry(result, k, "W", shape[::-1], "the layers").T)
        else:
            found.append(entry(result, k, "W", shape, "the layers"))
    return found


def spread(W: Tensor, expected: float) -> float:
    """The root mean square of the entries, or of what they are off their mean: whichever is nearer to `expected`."""
    both = (float(z.pow(2).mean().sqrt()) for z in (W.double(), W.double() - W.double().mean()))
    return min(both, key=lambda value: abs(value - expected))


def expect_spread(result: Any, sizes: Sequence[int], expected: Sequence[float]) -> None:
    """Every W has about the expected standard deviation, about its mean or about 0: that it is 0 is asked elsewhere."""
    for k, (W, std) in enumerate(zip(weights(result, sizes), expected, strict=True)):
        got = spread(W, std)
        if not abs(got - std) <= 0.07 * std:
            shape = f"{W.shape[0]} inputs and {W.shape[1]} outputs"
            text = f"W of layers[{k}] ({shape}) has a standard deviation of {got:.4g}, expected {std:.4g}."
            raise Unmet(text, causes=spread_causes(W, std))


def spread_causes(W: Tensor, expected: float) -> list[str]:
    """Which usual slip explains the spread of a W."""
    slips = {
        "That is the variance; `torch.randn` is to be multiplied by its root.": expected**2,
        "The number of outputs stands where that of inputs is meant.": math.sqrt(2 / W.shape[1]),
        "`torch.rand` is uniform between 0 and 1; `torch.randn` is Gaussian.": expected / math.sqrt(12),
    }
    return [sentence for sentence, std in slips.items() if abs(spread(W, std) - std) <= 0.03 * std][:1]


@initialize.criterion(points=1)
def he(student: Student, draw: Draw) -> None:
    """ "he": the standard deviation of every W is √(2 / d_in)."""
    result = student.initialize(WIDE, "he", generator=draw.generator())
    expect_spread(result, WIDE, [math.sqrt(2 / d_in) for d_in, _ in pairwise(WIDE)])


@initialize.criterion(points=1)
def xavier(student: Student, draw: Draw) -> None:
    """ "xavier": the standard deviation of every W is √(2 / (d_in + d_out))."""
    result = student.initialize(WIDE, "xavier", generator=draw.generator())
    expect_spread(result, WIDE, [math.sqrt(2 / (d_in + d_out)) for d_in, d_out in pairwise(WIDE)])


@initialize.criterion(points=0.5)
def normal(student: Student, draw: Draw) -> None:
    """ "normal": the standard deviation of every W is sigma."""
    for sigma in (draw.number(0.2, 0.4), draw.number(1e-4, 1e-3)):
        result = student.initialize(WIDE, "normal", sigma=sigma, generator=draw.generator())
        expect_spread(result, WIDE, [sigma] * 3)


@initialize.criterion(points=0.5)
def gaussian_around_zero(student: Student, draw: Draw) -> None:
    """The entries of every W are Gaussian with mean 0."""
    for scheme, sigma in (("he", {}), ("xavier", {}), ("normal", {"sigma": 0.3})):
        all_W = weights(student.initialize(WIDE, scheme, **sigma, generator=draw.generator()), WIDE)
        z = torch.cat([(W / W.double().std().clamp(min=1e-30)).flatten() for W in all_W])
        expect(z).all(bool(z.mean().abs() < 0.06), f"{scheme}: the mean is {z.mean():.2g} standard deviations")
        # Of a Gaussian 3, of a uniform distribution 1.8; chance takes a right one 0.25 off once in 10¹⁵ times.
        kurtosis = (z - z.mean()).pow(4).mean().item()
        text = f"the fourth moment is {kurtosis:.2f}, not about 3 as of a Gaussian"
        expect(z).all(abs(kurtosis - 3) < 0.3, f"{scheme}: {text}")


@initialize.criterion(points=0.5, contract=True)
def biases_are_zero(student: Student, draw: Draw) -> None:
    """Every b is zero."""
    shape = sizes(draw, 3)
    for scheme in ("he", "xavier"):
        result = student.initialize(shape, scheme, generator=draw.generator())
        for k, d_out in enumerate(shape[1:]):
            expect(entry(result, k, "b", (d_out,), "the layers"), f"b of layers[{k}]").equal(torch.zeros(d_out))


@initialize.criterion(points=0.5)
def every_layer_has_its_own_numbers(student: Student, draw: Draw) -> None:
    """Every entry of every W has a number of its own, and no two tensors share memory."""
    result = student.initialize([7, 5, 5, 5, 5, 3], "he", generator=draw.generator())
    shared = student.calls[-1].shared
    all_W = weights(result, [7, 5, 5, 5, 5, 3])
    for axis, what in ((0, "rows"), (1, "columns")):
        alike = all(bool((W.diff(dim=axis) == 0).all()) for W in all_W)
        expect(all_W).all(not alike, f"all {what} of a W are the same")
    same = any(bool((V == W).any()) for V, W in pairwise(all_W[1:4]))
    expect(all_W).all(not same, "two layers of the same shape have the same W")
    expect(all_W).all(not shared, f"tensors share memory, so changing one changes the other: {', '.join(shared[:2])}")


@initialize.criterion(points=0.5)
def unknown_scheme(student: Student, draw: Draw) -> None:
    """A scheme that does not exist raises a ValueError whose message names it."""
    name = f"scheme_{draw.integer(1000, 9999)}"
    try:
        student.initialize([5, 4, 3], name, generator=draw.generator())
    except Unmet as raised:
        if raised.kind != "exception":
            raise
        cause = ['`raise ValueError(f"There is no scheme {scheme!r}.")` in the last branch.']
        if raised.exception != "ValueError":
            raise Unmet(f"Expected a ValueError for scheme={name!r}. {raised.message}", "exception", cause) from None
        if name not in raised.message:
            raise Unmet(f"The ValueError does not name the scheme, {name!r}.", "exception", cause) from None
        return
    raise Unmet(
        f"initialize accepted scheme={name!r} without a word.",
        causes=["A misspelt scheme would train a network other than the one that was meant: refuse it."],
    )


@initialize.criterion(points=0.5, contract=True)
def keeps_form(student: Student, draw: Draw) -> None:
    """The result is a list of dicts {"W": (d_in, d_out), "b": (d_out,)} of float32 tensors."""
    shape = sizes(draw, 3)
    form = Nested("the layers", [{"W": s, "b": s[1:]} for s in pairwise(shape)], dtype=torch.float32)
    for scheme, sigma in (("he", {}), ("xavier", {}), ("normal", {"sigma": 0.3})):
        for part, value in form.leaves(student.initialize(shape, scheme, **sigma, generator=draw.generator())):
            part.check(value, torch.float32)


# --- The network: forward, cost, backward ----------------------------------------------------------------------------

forward = Exercise("forward", forbidden=FORBIDDEN, opaque=(1,))


def forward_scores(student: Student, X: Tensor, layers: Layers) -> Tensor:
    """The student's scores, of the right shape and finite."""
    scores, _ = expect(student.forward(X, layers)).parts("scores", "cache")
    return finite(scores, len(X), len(layers[-1]["b"]), name="the matrix of scores")


def expect_scores(scores: Any, p: Problem, *, softmax: bool = True) -> None:
    """The scores are the right ones; a ReLU on them is the business of another criterion, `softmax` of one more."""
    expected = scores_of(p.X, p.layers)
    got = expect(scores, "the matrix of scores").shape(*expected.shape).tensor()
    for other in (torch.clamp(expected, min=0), *([torch.softmax(expected, 1)] if softmax else [])):
        if bool((got - other).norm() <= 1e-6 * other.norm()):
            got = expected

    def slips() -> Slips:
        return {
            "These are probabilities: the scores are asked for, without a softmax.": torch.softmax(expected, 1),
            "There is no ReLU after the hidden layers.": scores_of(p.X, p.layers, lambda z: z),
        }

    expect(got, "the matrix of scores").close_to(expected, single=True, slips=slips)


@forward.criterion(points=1)
def one_hidden_layer(student: Student, draw: Draw) -> None:
    """Two layers: relu(X W⁽¹⁾) W⁽²⁾ (b = 0 here)."""
    shape = sizes(draw, 2)
    for _ in range(2):  # of one shape, so that what is remembered of the first is seen
        p = problem(draw, shape=shape, N=shape[-1] + 7, bias=False)
        p.X[0] = 100 * p.X[0]  # units may be far from 0
        expect_scores(forward_scores(student, p.X, p.layers), p, softmax=False)


@forward.criterion(points=1)
def many_layers(student: Student, draw: Draw) -> None:
    """Any number of layers, each of another size, with a ReLU after every hidden one (b = 0 here)."""
    for count in (3, 4, 6):
        p = problem(draw, count, bias=False)
        expect_scores(forward_scores(student, p.X, p.layers), p)


@forward.criterion(points=0.5)
def one_layer(student: Student, draw: Draw) -> None:
    """A single layer is the linear classifier of Assignment 1: X W (b = 0 here)."""
    p = problem(draw, 1, bias=False)
    expect_scores(forward_scores(student, p.X, p.layers), p)


@forward.criterion(points=1)
def biases_are_added(student: Student, draw: Draw) -> None:
    """Every layer adds its b: it is as good as a weight on one more feature that is always 1."""
    p = problem(draw, 3)
    longer = []
    for k, layer in enumerate(p.layers):
        W = torch.cat([layer["W"], layer["b"][None]])
        if k < len(p.layers) - 1:  # the feature that is always 1 goes on to the next layer
            W = torch.cat([W, torch.zeros_like(W[:, :1])], 1)
            W[-1, -1] = 1
        longer.append({"W": W, "b": torch.zeros_like(W[0])})
    expected = forward_scores(student, torch.cat([p.X, torch.ones_like(p.X[:, :1])], 1), longer)
    expect(expected).all(bool((expected != expected[0, 0]).any()), "every score is the same")
    without = forward_scores(student, p.X, with_parts(p.layers, b=torch.zeros_like))
    expect(without).all(not torch.equal(without, forward_scores(student, p.X, p.layers)), "no b makes a difference")
    expect(forward_scores(student, p.X, p.layers), "the matrix of scores").close_to(expected, single=True)


@forward.criterion(points=0.5)
def no_relu_on_the_scores(student: Student, draw: Draw) -> None:
    """Scores may be negative: with −W in the last layer they turn their sign (its b = 0 here)."""
    for count in (2, 1):
        p = problem(draw, count)
        p.layers[-1]["b"] = torch.zeros_like(p.layers[-1]["b"])
        scores = forward_scores(student, p.X, p.layers)
        expect(scores).all(bool((scores != 0).any()), "every score is 0")
        if are_probabilities(scores, p):
            continue  # the business of one_hidden_layer
        p.layers[-1]["W"] = -p.layers[-1]["W"]
        turned = forward_scores(student, p.X, p.layers)
        name = f"the matrix of scores of {count} layers with −W in the last one"
        expect(turned, name.replace("1 layers", "1 layer")).close_to(-scores)


def are_probabilities(scores: Tensor, p: Problem) -> bool:
    """Whether the softmax of the right scores came in their place."""
    return bool((scores - torch.softmax(scores_of(p.X, p.layers), 1)).norm() <= 1e-6 * scores.norm())


SMALL = [4, 6, 5, 3]  # sizes for criteria on form
SMALL_TWINS = [4, 6, 6, 3]  # where one layer's statistics, taken for another's, are to make no error of shapes


def small(draw: Draw, bn: bool = False, shape: Sequence[int] = SMALL) -> tuple[Tensor, Tensor, Layers]:
    """A small problem for criteria on form: X (9, 4), y (9,), layers."""
    return draw.normal(9, 4), labels(draw, 9, 3), network(draw, shape, bn=bn)


def special_networks(draw: Draw) -> list[tuple[str, Tensor, Tensor, Layers]]:
    """Problems for criteria on form, each with what is special about it: X, y, layers."""
    cases = (("of one example", 1, SMALL), ("of one layer", 9, [4, 3]), ("of one example and one layer", 1, [4, 3]))
    return [
        (what, draw.normal(N, 4), draw.integers(0, 3, N), network(draw, shape))
        for what, N, shape in (*cases, ("of five layers", 9, [4, 1, 5, 5, 6, 3]))
    ]


add_contract(
    forward,
    lambda draw: small(draw)[::2],
    [Form("the scores", (9, 3)), Opaque("cache")],
    unusual=lambda draw: [
        ((X, layers), [Form(f"the matrix of scores {what}", (len(X), len(layers[-1]["b"]))), Opaque("cache")])
        for what, X, _, layers in special_networks(draw)
    ],
)


cost = Exercise("cost", forbidden=FORBIDDEN)


@cost.criterion(points=1)
def loss_of_the_scores(student: Student, draw: Draw) -> None:
    """Without regulariser (λ = 0) the cost is the cross-entropy of the network's scores (as a mean or as a sum)."""
    for count in (1, 2, 4):
        p = problem(draw, count)
        expected = loss_of(p.X, p.y, p.layers)
        loss = apart_from_factor(student.cost(p.X, p.y, p.layers, 0.0), expected, 1 / p.N, name="the cost")
        P = torch.softmax(scores_of(p.X, p.layers), 1)
        again = "The softmax is taken twice: `F.cross_entropy` wants scores, not probabilities."
        slips = {again: F.cross_entropy(P, p.y)}
        # Loose: a tiny number added to a probability is the business of other criteria.
        expect(loss, "the cost").close_to(expected, rtol=1e-4, slips=lambda slips=slips: slips)


@cost.criterion(points=0.5)
def mean_over_examples(student: Student, draw: Draw) -> None:
    """The loss is a mean over examples: with every example twice it stays the same."""
    p = problem(draw, 2)
    once = scalar(student.cost(p.X, p.y, p.layers, 0.0), "the cost")
    other = scalar(student.cost(2 * p.X, p.y, p.layers, 0.0), "the cost")
    expect(once).all(once != other, "the cost is the same whatever the examples are")
    twice = student.cost(torch.cat([p.X, p.X]), torch.cat([p.y, p.y]), p.layers, 0.0)
    slips = {"The loss is summed over the examples; asked for is their mean.": 2 * once}
    name, because = "the cost with every example twice", "the cost with each once"
    expect(twice, name).close_to(once, because=because, slips=lambda: slips)


@cost.criterion(points=1)
def regulariser_of_every_layer(student: Student, draw: Draw) -> None:
    """λ adds λ Σ W², the sum taken over all entries of all layers (b = 0 here)."""
    for shape in (sizes(draw, 1), sizes(draw, 3), [5, 4, 4, 4, 3]):
        p, sized = problem(draw, shape=shape, bias=False), {"the number of layers": len(shape) - 1}
        loss = scalar(student.cost(p.X, p.y, p.layers, 0.0), "the cost")
        for lam in (draw.number(0.1, 0.5), 1e-4, 3.0):
            penalty = penalty_of(p.layers, lam)
            got = student.cost(p.X, p.y, p.layers, lam)
            all_W = [layer["W"] for layer in p.layers]
            slips = {
                "Only the last layer is regularised.": loss + penalty_of(p.layers[-1:], lam),
                "Only the first layer is regularised.": loss + penalty_of(p.layers[:1], lam),
                "The norm of every W is to be squared.": loss + lam * sum(W.norm() for W in all_W),
                "The squares are averaged; asked for is their sum.": loss + lam * sum((W**2).mean() for W in all_W),
            }
            hints = {"penalty": penalty, "sizes": {"N": p.N, **sized}, "slips": lambda slips=slips: slips}
            expect(got, "the cost").close_to(loss + penalty, **hints)


@cost.criterion(points=0.5, contract=True)
def biases_are_not_regularised(student: Student, draw: Draw) -> None:
    """λ adds the same whatever the b are."""
    for count in (3, 1):
        p, lam, added = problem(draw, count), draw.number(0.1, 0.5), []
        for layers in (with_parts(p.layers, b=torch.zeros_like), p.layers):
            with_lam, without = (scalar(student.cost(p.X, p.y, layers, v), "the cost") for v in (lam, 0.0))
            added.append(with_lam - without)
        expect(added[1], "the part that λ adds").close_to(added[0], because="what it adds where b = 0")


@cost.criterion(points=0.5)
def large_scores_do_not_overflow(student: Student, draw: Draw) -> None:
    """Scores around 1000 and −1000 give a large cost that is finite and right."""
    p = problem(draw, 2)
    spread = torch.linspace(-1, 1, len(p.layers[-1]["b"]), dtype=torch.float64)
    for b in (spread.abs() + 1000, spread - 1000, 1000 * spread):
        expect_loss(student, Problem(p.X, p.y, [*p.layers[:-1], {**p.layers[-1], "b": b}]))
    expect_loss(student, far_apart(draw))


def expect_loss(student: Student, p: Problem) -> None:
    """The cost without regulariser is the cross-entropy (as a mean or as a sum)."""
    expected = loss_of(p.X, p.y, p.layers)
    loss = apart_from_factor(student.cost(p.X, p.y, p.layers, 0.0), expected, 1 / p.N, name="the cost")
    expect(loss, "the cost").close_to(expected, single=True)


def far_apart(draw: Draw) -> Problem:
    """One layer, and examples some of which have scores around 1000 and the others around −1000."""
    p = problem(draw, 1)
    p.X[:, 0] = torch.arange(p.N) % 2 * 2.0 - 1
    p.layers[0]["W"][0] = 1000.0
    return p


add_contract(
    cost,
    lambda draw: (*small(draw), 0.1),
    [Form("the cost")],
    unusual=lambda draw: [
        ((X, y, layers, lam), [Form(f"the cost {what}, λ = {lam},")])
        for what, X, y, layers in special_networks(draw)
        for lam in (0.0, 0.1)
    ],
)


backward = Exercise("backward", forbidden=FORBIDDEN, leans_on=("forward",))


def in_order(gradients: Any, layers: Layers) -> Any:
    """Gradients of the last layer first, as their shapes show, in the order of the layers: keeps_form asks for it."""

    def shapes(entries: Any) -> list[Any]:
        return [getattr(e.get("W"), "shape", None) if isinstance(e, dict) else None for e in entries]

    if isinstance(gradients, list | tuple) and shapes(gradients) != shapes(layers) == shapes(gradients[::-1]):
        return gradients[::-1]
    return gradients


class Passes:
    """A forward and a backward pass of the student's, and the gradients that they should give.

    The cache comes from the student's own forward pass.  Should that be wrong, the gradients are right when they
    are those of the network that it computes; this is found out by small steps, since a mistake of the forward pass
    has cost its points already.
    """

    def __init__(self, student: Student, p: Problem, lam: float = 0.0, *, bn: bool = False) -> None:
        self.student, self.problem, self.bn = student, p, bn
        scores, cache = self._forward(p.layers)
        expect(scores, "the scores").shape(p.N, len(p.layers[-1]["b"]))
        self.scores = expect(scores).tensor()
        self.result = student.call("backward_bn" if bn else "backward", p.y, p.layers, cache, lam)
        self.gradients = in_order(self.result, p.layers)
        self.expected = gradients_by_autograd(lambda layers: loss_of(p.X, p.y, layers), p.layers)

    def _forward(self, layers: Layers) -> tuple[Any, Any]:
        if self.bn:
            result = self.student.forward_bn(self.problem.X, layers, None, training=True)
            return expect(result).parts("scores", "cache", "running")[:2]
        return expect(self.student.forward(self.problem.X, layers)).parts("scores", "cache")

    def got(self, k: int, key: str) -> Tensor:
        """The student's gradient of one tensor."""
        return entry(self.gradients, k, key, self.problem.layers[k][key].shape, "the gradients")

    def has(self, k: int, key: str) -> bool:
        """Whether there is a tensor for one gradient."""
        given = self.gradients if isinstance(self.gradients, list | tuple) else []
        return k < len(given) and isinstance(given[k], dict) and isinstance(given[k].get(key), Tensor)

    def factor(self) -> float:
        """By how much the gradients of the last layer are too large, or 1 where it is no mere factor."""
        got, expected = self.got(-1 % len(self.expected), "W"), self.expected[-1]["W"]
        ratio = float((got * expected).sum() / (expected * expected).sum())
        return ratio if ratio and bool((got - ratio * expected).norm() <= 1e-3 * abs(ratio) * expected.norm()) else 1.0

    @cached_property
    def faults(self) -> set[str]:
        """Where known slips explain the gradients of every layer: "upstream", "relu", "normalisation".

        That is the gradient with respect to the scores, the slope of every ReLU, the way back through the
        normalisation of every layer.
        """
        p, right = self.problem, F.one_hot(self.problem.y, self.scores.shape[1])
        P, of_rows = torch.softmax(self.scores.double(), 1), torch.softmax(self.scores.double(), 0)
        upstreams = P - right, P, self.scores.double() - right, of_rows - right, (P - right) * right
        deep = len(p.layers) > 1
        relus: Sequence[Relu] = (torch.relu, relu_of_slope_one, ReluOfGradient.apply) if deep else (torch.relu,)
        norms: Sequence[BatchNorm] = (batch_normalised, with_constant_statistics, with_a_slope_of_one)
        for a, b, c in product(range(5), range(len(relus)), range(3 if deep and self.bn else 1)):
            if a + b + c and self._follow_from(upstreams[a] / p.N, relus[b], norms[c]):
                wrong = {"upstream": a, "relu": b, "normalisation": c}
                return {word for word, place in wrong.items() if place}
        return set()

    def _follow_from(self, upstream: Tensor, relu: Relu, batch_norm: BatchNorm) -> bool:
        """Whether all gradients of W, and the last one of b, are those of this way back (up to a factor N)."""
        p, last = self.problem, len(self.problem.layers) - 1

        def along(layers: Layers) -> Tensor:
            return (scores_of(p.X, layers, relu, batch_norm) * upstream).sum()

        expected = gradients_by_autograd(along, p.layers)
        there = [(last, "b"), *((k, "W") for k in range(last + 1))]
        a = torch.cat([self.got(k, key).double().flatten() for k, key in there])
        b = torch.cat([expected[k][key].flatten() for k, key in there])
        return any(bool((f * a - b).norm() <= 1e-6 * b.norm()) for f in (1.0, p.N, 1 / p.N))

    def check(
        self, k: int, key: str, *, as_the_last: bool = False, factor: float = 1.0, faults: Sequence[str] = ()
    ) -> None:
        """The gradient of one tensor is right (as a mean or as a sum).

        It may also be off by `factor`, with `as_the_last` by that by which the gradients of the last layer are.  A
        known slip that explains the gradients of every layer is the business of the check among whose `faults` it is.
        """
        name, expected, N = f"gradients[{k}][{key!r}]", self.expected[k][key], self.problem.N
        factors = (1 / N, N, 1 / (self.factor() if as_the_last else factor))
        got = apart_from_factor(self.got(k, key), expected, *factors, name=name)
        try:
            expect(got, name).close_to(expected, single=True, because="autograd's result", sizes={"N": N})
        except Unmet as unmet:
            if (self.faults and not self.faults & set(faults)) or self._fits_the_own_scores(k, key, factors):
                return
            if self._lacks_the_masks(k, key, factors):
                cause = "The slope of every ReLU is taken for 1; where its input is not positive it is 0."
                unmet.causes.insert(0, cause)
            raise

    def _lacks_the_masks(self, k: int, key: str, factors: Sequence[float]) -> bool:
        """Whether a gradient has gone through every ReLU of the network unchanged."""
        p, got = self.problem, self.got(k, key).double()

        def loss(layers: Layers) -> Tensor:
            return F.cross_entropy(scores_of(p.X, layers, relu_of_slope_one), p.y)

        without = gradients_by_autograd(loss, p.layers)[k][key]
        return any(bool((f * got - without).norm() <= 1e-4 * without.norm()) for f in (1.0, *factors))

    def _fits_the_own_scores(self, k: int, key: str, factors: Sequence[float]) -> bool:
        """Whether a gradient is that of the network which the student's forward pass computes."""
        p, got = self.problem, self.got(k, key).double()
        right = scores_of(p.X, p.layers)
        if bool((self.scores - right).norm() <= 1e-6 * right.norm()):
            return False  # the forward pass is right
        upstream = (torch.softmax(self.scores.double(), 1) - F.one_hot(p.y, right.shape[1])) / p.N
        along = gradients_by_autograd(lambda layers: (scores_of(p.X, layers) * upstream).sum(), p.layers)[k][key]
        # As much as float64 gives; also for gradients that differ only from that of their own scores' softmax.
        if any(bool((f * got - along).norm() <= 1e-5 * along.norm()) for f in (1.0, *factors)):
            return True
        directions = [torch.sin(torch.arange(got.numel()) * 1.7 + j).reshape(got.shape).double() for j in range(4)]
        slopes = torch.stack([self._slope(k, key, direction) for direction in directions])
        products = torch.stack([(got * direction).sum() for direction in directions])
        return any(bool((f * products - slopes).abs().max() <= 1e-5 * slopes.abs().max()) for f in (1.0, *factors))

    def _slope(self, k: int, key: str, direction: Tensor, h: float = 1e-6) -> Tensor:
        losses = []
        for step in (h, -h):
            layers = [dict(layer) for layer in self.problem.layers]
            layers[k][key] = layers[k][key] + step * direction
            losses.append(F.cross_entropy(finite(self._forward(layers)[0], *self.scores.shape), self.problem.y))
        return (losses[0] - losses[1]) / (2 * h)


def add_gradient_criteria(exercise: Exercise, bn: bool = False) -> None:
    """Mean, regulariser and structure, for an exercise that returns the gradients of the cost of a network."""

    @exercise.criterion(points=1)
    def weights_of_the_last_layer(student: Student, draw: Draw) -> None:
        """The gradient of the W of the last layer (λ = 0; as a mean or as a sum)."""
        Passes(student, problem(draw, 2, bias=False, bn=bn), bn=bn).check(1, "W", faults=["upstream"])

    @exercise.criterion(points=0.5)
    def bias_of_the_last_layer(student: Student, draw: Draw) -> None:
        """The gradient of the b of the last layer (λ = 0; as a mean or as a sum)."""
        Passes(student, problem(draw, 2, bias=False, bn=bn), bn=bn).check(1, "b", as_the_last=True)

    @exercise.criterion(points=0.5, contract=True)
    def mean_over_examples(student: Student, draw: Draw) -> None:
        """The gradients are those of a mean over examples: with every example twice they stay the same."""
        p = problem(draw, 2, bn=bn)
        once = Passes(student, p, bn=bn)
        twice = Passes(student, Problem(torch.cat([p.X, p.X]), torch.cat([p.y, p.y]), p.layers), bn=bn)
        there = [(0, "W"), (1, "W"), (1, "b"), *([(0, "b")] if once.has(0, "b") else [])]
        a, b = (torch.cat([s.got(k, key).flatten() for k, key in there]) for s in (once, twice))
        expect(a).all(bool((a != 0).any()), "every gradient is 0")
        name = "the vector of all gradients of W and b, with every example twice,"

        def slips() -> Slips:
            of_W = torch.cat([torch.full_like(once.got(k, key), key == "W").flatten() for k, key in there])
            too_often = "are divided by N once too often: the 1/N is in the gradient at the scores already."
            return {
                "A sum over the examples, where their mean is meant: the 1/N is missing.": 2 * a,
                f"The gradients of W {too_often}": a * (1 - of_W / 2),
                f"The gradients of b {too_often}": a * (1 + of_W) / 2,
                f"All gradients {too_often}": a / 2,
            }

        expect(b, name).close_to(a, single=True, because="the gradients with each once", slips=slips)

    @exercise.criterion(points=1)
    def regulariser_of_every_layer(student: Student, draw: Draw) -> None:
        """λ adds 2λW to the gradient of every W, however many examples there are."""
        for count, lam in ((3, draw.number(0.1, 0.5)), (1, draw.number(0.1, 0.5)), (2, 0.02), (2, 3.0)):
            p = problem(draw, count, bn=bn)
            without, with_lam = Passes(student, p, bn=bn), Passes(student, p, lam, bn=bn)
            for k, layer in enumerate(p.layers):
                expected = without.got(k, "W") + 2 * lam * layer["W"]
                name = f"gradients[{k}]['W']"
                got = with_lam.got(k, "W")
                expect(got, name).close_to(expected, single=True, regularised=layer["W"], lam=lam)

    @exercise.criterion(points=0.5, contract=True)
    def only_weights_are_regularised(student: Student, draw: Draw) -> None:
        """λ adds nothing to any gradient but those of W."""
        p = problem(draw, 2, bn=bn)
        without, with_lam = Passes(student, p, bn=bn), Passes(student, p, draw.number(0.1, 0.5), bn=bn)
        for k, layer in enumerate(p.layers):
            for key in layer.keys() - {"W"}:
                if not with_lam.has(k, key):
                    continue  # which is the business of keeps_form
                expected = without.got(k, key)
                floor = 1e-9 * max(1.0, float(expected.abs().max()))
                because = f"the gradient of {key} where λ = 0"
                expect(with_lam.got(k, key), f"gradients[{k}][{key!r}]").close_to(expected, atol=floor, because=because)

    @exercise.criterion(points=0.5, contract=True)
    def keeps_form(student: Student, draw: Draw) -> None:
        """The gradients are a list of dicts with the keys, shapes and dtype (float32 or float64) of the layers."""
        for dtype in (torch.float64, torch.float32):
            draw.dtype = dtype
            X, y, layers = small(draw, bn=bn)
            gradients = Passes(student, Problem(X, y, layers), 0.1, bn=bn).result
            for form, value in form_of("the gradients", layers).leaves(gradients):
                form.check(value, dtype)

    @exercise.criterion(points=0.5, contract=True)
    def leaves_arguments_alone(student: Student, draw: Draw) -> None:
        """The function does not change the arguments it is given."""
        for _ in range(3):
            Passes(student, problem(draw, 3, bn=bn), 0.1, bn=bn)
            unchanged_arguments(student.calls[-1])
        for count, N, lam in ((3, None, 0.0), (2, 1, 0.1), (1, None, 0.1)):  # special cases may go ways of their own
            try:
                Passes(student, problem(draw, count, N=N, bn=bn), lam, bn=bn)
            except Unmet as unmet:
                if unmet.kind != "exception":  # which is the business of other criteria
                    raise
            else:
                unchanged_arguments(student.calls[-1])


def expect_gradients_of_one_layer(student: Student, draw: Draw, *, bn: bool = False) -> None:
    """A network of one layer has its gradients, but for the factor of those of the last layer of two."""
    p = problem(draw, 1, bias=bn, bn=bn)
    d, K = p.layers[0]["W"].shape
    factor, upstream_of_two = 1.0, False
    with contextlib.suppress(Unmet):  # two layers are the business of other criteria
        two = Passes(student, problem(draw, shape=[d, d + K, K], N=p.N, bias=bn, bn=bn), bn=bn)
        factor, upstream_of_two = two.factor(), "upstream" in two.faults
    passes = Passes(student, p, bn=bn)
    for key in ("W", "b"):
        passes.check(0, key, factor=factor, faults=[] if upstream_of_two else ["upstream"])


@backward.criterion(points=1)
def weights_of_a_hidden_layer(student: Student, draw: Draw) -> None:
    """The gradient of W goes back through the ReLU: two layers (λ = 0; up to the factor of the last layer's)."""
    for _ in range(2):
        Passes(student, problem(draw, 2, bias=False)).check(0, "W", as_the_last=True, faults=["relu"])


@backward.criterion(points=0.5)
def bias_of_a_hidden_layer(student: Student, draw: Draw) -> None:
    """The gradient of b goes back through the ReLU: two layers (λ = 0; up to the factor of the last layer's)."""
    Passes(student, problem(draw, 2, bias=False)).check(0, "b", as_the_last=True)


@backward.criterion(points=1)
def many_layers_back(student: Student, draw: Draw) -> None:
    """Every W and b of deeper networks has its gradient (λ = 0; up to the factor of the last layer's)."""
    keys = ("W", "b") if hidden_b_fits(student, draw) else ("W",)
    for count in (3, 5):
        passes = Passes(student, problem(draw, count, bias=False))
        for k in range(count - 1):
            for key in keys:
                passes.check(k, key, as_the_last=True)


def hidden_b_fits(student: Student, draw: Draw) -> bool:
    """Whether the gradient of b of a hidden layer is right in a network of two, as bias_of_a_hidden_layer asks."""
    try:
        Passes(student, problem(draw, 2, bias=False)).check(0, "b", as_the_last=True)
    except Unmet:
        return False
    return True


@backward.criterion(points=0.5)
def a_single_layer(student: Student, draw: Draw) -> None:
    """A single layer has the gradients of the linear classifier (λ = 0; up to the factor of the last layer's)."""
    expect_gradients_of_one_layer(student, draw)


add_gradient_criteria(backward)


# --- Cyclical learning rates -----------------------------------------------------------------------------------------

cyclical_lr = Exercise("cyclical_lr", forbidden=FORBIDDEN)


@dataclass
class Cycle:
    """The constants of a schedule: n_s, lr_min and lr_max."""

    n_s: int
    lr_min: float
    lr_max: float

    def __call__(self, student: Student, t: int) -> Tensor:
        """The student's learning rate at t."""
        return scalar(student.cyclical_lr(t, self.n_s, self.lr_min, self.lr_max), "the learning rate").double()

    def rise(self, student: Student, t: int) -> Tensor:
        """By how much it lies above that at t = 0, as a part of lr_max − lr_min."""
        return (self(student, t) - self(student, 0)) / (self.lr_max - self.lr_min)

    def expect(self, student: Student, t: int, part: float) -> None:
        """The learning rate has risen by this part of the way at t."""
        name = f"(lr({t}) − lr(0)) / (lr_max − lr_min) for n_s = {self.n_s}"
        expect(self.rise(student, t), name).close_to(part, atol=1e-5)

    def is_ahead(self, student: Student) -> bool:
        """Whether every learning rate is that of the next update, which starts_at_lr_min says."""
        right = [self.lr_min + (self.lr_max - self.lr_min) * min(t, 2 * self.n_s - t) / self.n_s for t in range(1, 7)]
        return all(abs(float(self(student, t)) - lr) < 1e-5 for t, lr in enumerate(right))


def cycle(draw: Draw) -> Cycle:
    """A random schedule; lr_min is not small beside lr_max."""
    return Cycle(draw.integer(5, 12), draw.number(0.1, 0.2), draw.number(0.5, 0.9))


@cyclical_lr.criterion(points=0.5)
def starts_at_lr_min(student: Student, draw: Draw) -> None:
    """At t = 0 the learning rate is lr_min; from there it rises."""
    c = cycle(draw)
    expect(c(student, 0), "lr(0)").close_to(c.lr_min)
    expect(c).all(c(student, 1) > c(student, 0), "lr(1) is not larger than lr(0)")


@cyclical_lr.criterion(points=1)
def rises_to_lr_max(student: Student, draw: Draw) -> None:
    """It rises in equal steps and has covered lr_max − lr_min at t = n_s."""
    c = cycle(draw)
    if c.is_ahead(student):
        return
    for t in (c.n_s, 1, 2, c.n_s - 1):
        c.expect(student, t, t / c.n_s)


@cyclical_lr.criterion(points=1)
def falls_again(student: Student, draw: Draw) -> None:
    """From n_s to 2 n_s it falls as it rose: 2 n_s − t and t have the same learning rate."""
    c = cycle(draw)
    if c.is_ahead(student):
        return
    for t in (c.n_s - 1, 1, 2, 0):
        expect(c(student, t)).all(c(student, t) != c(student, t + 1), f"lr({t}) and lr({t + 1}) are the same")
        later = 2 * c.n_s - t
        name = f"lr({later}) for n_s = {c.n_s}"
        expect(c(student, later), name).close_to(c(student, t), because=f"that of t = {t}")


@cyclical_lr.criterion(points=0.5)
def goes_round(student: Student, draw: Draw) -> None:
    """After 2 n_s updates the next cycle is like the first, and so on for any t."""
    c = cycle(draw)
    expect(c).all(c(student, 1) != c(student, 2), "lr(1) and lr(2) are the same")
    for t in (1, c.n_s - 1, c.n_s, c.n_s + 2, 0):
        for cycles in (1, 2, 7):
            later = t + 2 * c.n_s * cycles
            name = f"lr({later}) for n_s = {c.n_s}"
            expect(c(student, later), name).close_to(c(student, t), because=f"that of t = {t}")


@cyclical_lr.criterion(points=0.25, contract=True, name="keeps_form")
def learning_rate_is_a_number(student: Student, draw: Draw) -> None:
    """The result is a single number: a Python float or a 0-d tensor."""
    c = cycle(draw)
    value = student.cyclical_lr(3, c.n_s, c.lr_min, c.lr_max)
    Form("the learning rate").check(value, value.dtype if isinstance(value, Tensor) else torch.float64)


# --- Training --------------------------------------------------------------------------------------------------------

train = Exercise("train", forbidden=FORBIDDEN)


@prop
def listener() -> Callable[..., None]:
    """The given on_step."""
    return lambda *_given, **_named: None


@dataclass
class Training:
    """One call of `train` (or of a function that is called like it), with what `on_step` was given."""

    X: Tensor
    y: Tensor
    layers: Layers
    lam: float
    batch_size: int
    n_s: int
    cycles: int
    lr_min: float
    lr_max: float
    noted: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def updates(self) -> int:
        """How many there should be."""
        return 2 * self.n_s * self.cycles

    @property
    def counts(self) -> list[int]:
        """How many there may have been: those that there should be, and those that `on_step` was told of."""
        return [self.updates, len(self.noted)] if self.noted else [self.updates]

    @property
    def kept(self) -> list[int]:
        """How many the result may hold: also one fewer, which `updates_build_on_each_other` and others ask."""
        return sorted({count - less for count in self.counts for less in (0, 1) if count > less}, reverse=True)

    def lr(self, t: int) -> float:
        """The learning rate of update t."""
        position = t % (2 * self.n_s)
        return self.lr_min + (self.lr_max - self.lr_min) * min(position, 2 * self.n_s - position) / self.n_s

    def changed(self, **values: Any) -> Training:
        """The same with other values, and nothing noted yet."""
        return replace(self, **values, noted=[])

    def on_step(self, *given: Any, **_named: Any) -> None:
        """What the student's function is given as `on_step`; how it is called is asked by `told` alone."""
        self.noted.append(given)

    def run(
        self, student: Student, generator: torch.Generator, *, function: str = "train", watched: bool = True
    ) -> Any:
        """Call the student's function, with `on_step` unless it is not to be watched."""
        names = ("lam", "batch_size", "n_s", "cycles", "lr_min", "lr_max")
        named = {name: getattr(self, name) for name in names}
        if watched:
            named["on_step"] = Given(self.on_step, listener)
        return student.call(function, self.X, self.y, self.layers, **named, generator=generator)

    @property
    def told(self) -> list[tuple[Any, ...]]:
        """What `on_step` was given in every call: three values, once at least."""
        expect(self.noted).all(bool(self.noted), "on_step was never called")
        for given in self.noted:
            if len(given) != 3:
                raise Unmet(
                    f"on_step was called with {len(given)} arguments by position; it takes t, lr and cost.", "type"
                )
        return self.noted

    def column(self, k: int, name: str) -> list[float]:
        """What `on_step` was given as its argument k, as numbers."""
        return [scalar(given[k], f"the {name} that on_step was given").item() for given in self.told]

    def gradients(self, layers: Layers) -> Layers:
        """The right gradients of the cost, all examples being one batch."""
        return gradients_by_autograd(lambda net: loss_of(self.X, self.y, net) + penalty_of(net, self.lam), layers)

    def after(self, updates: int, size: Mapping[str, float] | None = None) -> Layers:
        """The right layers after so many updates, all examples being one batch; `size` stretches those of W and b."""
        layers, size = self.layers, size or {}
        for t in range(updates):
            gradients = self.gradients(layers)
            layers = [
                {k: v - size.get(k, 1.0) * self.lr(t) * g[k] for k, v in layer.items()}
                for layer, g in zip(layers, gradients, strict=True)
            ]
        return layers


TINY = 1e-7  # a learning rate at which the gradients hardly change during a run


def whole_set(draw: Draw, *, n_s: int = 2, cycles: int = 1, layers: int = 2) -> Training:
    """A run in which every batch holds all examples, so their order does not matter; lr_max is four times lr_min."""
    p, low = problem(draw, layers), draw.number(0.05, 0.1)
    return Training(p.X, p.y, p.layers, 0.0, p.N, n_s, cycles, low, 4 * low)


def one_example_again_and_again(draw: Draw, *, n_s: int, cycles: int) -> Training:
    """A run with copies of one example: whatever their order, every batch is like any other; an epoch has three."""
    while True:
        training = whole_set(draw, n_s=n_s, cycles=cycles)
        active = (relu_inputs(training.X, training.layers)[0] > 0).sum(1)
        if active.max() > 1:  # else next to nothing would learn from it
            break
    X, y = (v[active.argmax()].repeat(12, *[1] * (v.ndim - 1)) for v in (training.X, training.y))
    return training.changed(X=X, y=y, batch_size=4)


def repeats_examples(student: Student, draw: Draw) -> bool:
    """Whether a batch of all examples has some of them twice, which every_example_once_an_epoch says."""
    training = counters(draw, N=12, batch_size=12, n_s=1, cycles=1)
    use = use_of_examples(student, training, draw.generator())
    return bool((use - use.mean()).abs().max() > 0.01 * use.abs().max())


def whatever_the_batch(student: Student, draw: Draw, training: Training) -> Training:
    """The same run, or one with copies of one example for whoever repeats examples: then all batches are alike."""
    if not repeats_examples(student, draw):
        return training
    active = (relu_inputs(training.X, training.layers)[0] > 0).sum(1)
    X, y = (v[active.argmax()].repeat(training.batch_size, *[1] * (v.ndim - 1)) for v in (training.X, training.y))
    return training.changed(X=X, y=y)


def taken(student: Student, training: Training, generator: torch.Generator) -> Layers:
    """What was subtracted from every tensor in a run with tiny steps, divided by the learning rate."""
    result = training.run(student, generator)
    return [
        {
            key: (start - entry(result, k, key, start.shape, "the layers").double()) / training.lr_min
            for key, start in layer.items()
        }
        for k, layer in enumerate(training.layers)
    ]


def nearest(got: Tensor, candidates: Iterable[Tensor]) -> Tensor:
    """The one of the candidates that is nearest to what came."""
    return min(candidates, key=lambda candidate: float((got - candidate).norm()))


def expect_descent(student: Student, training: Training, generator: torch.Generator, key: str) -> None:
    """In every layer the tensor of this key moved along its gradient, as often as there were updates."""
    training = training.changed(lr_min=TINY, lr_max=TINY)
    moved, right = taken(student, training, generator), training.gradients(training.layers)
    for k, layer in enumerate(right):
        gradient, hints = layer[key], {}
        got = nearest(gradient, [moved[k][key] / count for count in training.kept])
        if key == "W":
            hints = {"regularised": training.layers[k]["W"], "lam": training.lam}
        name = f"what an update takes from {key} of layers[{k}], divided by lr,"
        hints["sizes"] = {"N": len(training.X)}
        expect(got, name).close_to(gradient, rtol=1e-3, atol=1e-4, because="the gradient of the cost", **hints)


def step_sizes(student: Student, training: Training, generator: torch.Generator) -> dict[str, float]:
    """By which factor the student's updates of W and b are too long, which is the business of other criteria."""
    training = training.changed(lr_min=TINY, lr_max=TINY)
    moved, right = taken(student, training, generator)[-1], training.gradients(training.layers)[-1]
    sizes = {}
    for key, gradient in right.items():
        whole = float((moved[key] * gradient).sum() / (gradient**2).sum())
        lengths = [whole / count for count in training.counts]
        lengths += [size for count in training.kept if abs((size := whole / count) - 1) < 1e-3]
        size = min(lengths, key=lambda size: abs(abs(size) - 1))
        sizes[key] = round(size) if abs(size - round(size)) < 1e-3 else size
    return sizes


def expect_trained(student: Student, training: Training, generator: torch.Generator, because: str) -> None:
    """The layers are those after all updates, whose number and length are the business of other criteria."""
    size = step_sizes(student, training, generator)
    expect(training).all(any(size.values()), "the layers that are returned are those that were given")
    training.noted = []
    result = training.run(student, generator)
    right = [training.after(count, size) for count in training.counts]
    for k, layer in enumerate(training.layers):
        for key in layer:
            got = entry(result, k, key, layer[key].shape, "the layers").double()
            expected = nearest(got, [layers[k][key] for layers in right])

            def slips(k: int = k, key: str = key, got: Tensor = got) -> Slips:
                early = [training.after(count, size)[k][key] for count in range(training.updates)]
                return {"These are layers from before the last update.": nearest(got, early)}

            expect(got, f"{key} of layers[{k}]").close_to(expected, rtol=1e-5, because=because, slips=slips)


def expect_layers(result: Any, expected: Layers, because: str) -> None:
    """The tensors of all layers are the expected ones."""
    for k, layer in enumerate(expected):
        for key, value in layer.items():
            got = entry(result, k, key, value.shape, "the layers")
            expect(got, f"{key} of layers[{k}]").close_to(value, rtol=1e-5, because=because)


@train.criterion(points=1)
def weights_go_downhill(student: Student, draw: Draw) -> None:
    """Every update takes lr times the gradient of the cost, regulariser included, from the W of every layer."""
    training = whole_set(draw, layers=3).changed(lam=draw.number(0.1, 0.3))
    expect_descent(student, whatever_the_batch(student, draw, training), draw.generator(), "W")


@train.criterion(points=0.5)
def biases_go_downhill(student: Student, draw: Draw) -> None:
    """Every update takes lr times the gradient of the cost from the b of every layer."""
    training = whole_set(draw, layers=3)
    expect_descent(student, whatever_the_batch(student, draw, training), draw.generator(), "b")


@train.criterion(points=1)
def updates_build_on_each_other(student: Student, draw: Draw) -> None:
    """Each update starts from where the one before ended, and the last one's result is returned (lr constant)."""
    training = one_example_again_and_again(draw, n_s=2, cycles=1)
    training.lr_min = training.lr_max
    expect_trained(student, training, draw.generator(), "four updates on batches that are all alike")
    if repeats_examples(student, draw):
        return  # the next run needs both examples in every batch
    because = "the last of four updates, each of which makes the cost larger, since lr is too large"
    expect_trained(student, uphill(draw), draw.generator(), because)


def uphill(draw: Draw) -> Training:
    """A run in which every update makes the cost larger: lr is three times as large as what just fails.

    One example x in many copies, half of each of two classes.  Near the optimum, where both have probability ½, the
    difference of the two scores follows Δ ← Δ − lr (|x|² + 1) (2 p − 1), and there 2 p − 1 is about Δ / 2.
    """
    x, K = draw.normal(1, 4), 2
    shape, b = (4, K), torch.tensor([0.0, draw.number(0.01, 0.02)], dtype=torch.float64)
    rate = 6 / float((x**2).sum() + 1)
    X, y = x.expand(8, -1).clone(), torch.arange(8) % K
    layers = [{"W": torch.zeros(shape, dtype=torch.float64), "b": b}]
    return Training(X, y, layers, 0.0, 8, 2, 1, rate, rate)


@train.criterion(points=1)
def learning_rate_of_every_update(student: Student, draw: Draw) -> None:
    """Update t uses cyclical_lr(t, …), and t runs on from epoch to epoch."""
    training = one_example_again_and_again(draw, n_s=4, cycles=1)
    because = "eight updates, three in an epoch, on batches that are all alike"
    expect_trained(student, training, draw.generator(), because)


def counters(draw: Draw, N: int, batch_size: int, n_s: int, cycles: int) -> Training:
    """A run that shows how often each example was used: a feature of its own moves a row of W of its own.

    One layer, W = 0, b = 0, and steps so small that every use of an example moves its row by as much.
    """
    X = torch.diag(draw.uniform(1, 2, N))
    layers = [{"W": torch.zeros(N, 2, dtype=draw.dtype), "b": torch.zeros(2, dtype=draw.dtype)}]
    y = torch.zeros(N, dtype=torch.int64)  # that examples keep their labels is asked elsewhere
    return Training(X, y, layers, 0.0, batch_size, n_s, cycles, TINY, 3 * TINY)


def use_of_examples(student: Student, training: Training, generator: torch.Generator, **how: Any) -> Tensor:
    """For each example the sum of lr / (size of its batch) over the batches that it was in, (N,).

    Where the updates have the wrong length or sign, all numbers are wrong by the same factor.
    """
    W = training.layers[0]["W"]
    moved = entry(training.run(student, generator, **how), 0, "W", W.shape, "the layers").double() - W
    # One update adds lr · x · (½, −½) / (size of the batch) to the row.
    return (moved[:, 0] - moved[:, 1]) / training.X.diagonal()


def in_units(use: Tensor, total: float) -> Tensor:
    """The same numbers, scaled so that their sum is `total`."""
    if not bool(use.abs().sum() > 0) or not bool(use.sum().abs() > 0):
        raise Unmet("No example moved its weights.")
    return use * (total / use.sum())


def expect_equal_use(student: Student, training: Training, generator: torch.Generator) -> None:
    """Every example was used once in every epoch; of the last one some, if it was cut."""
    training.lr_max = training.lr_min
    use = use_of_examples(student, training, generator)
    N, per_epoch = len(use), math.ceil(len(use) / training.batch_size)
    for count in training.kept:
        times = in_units(use, float(training.batch_size * count))
        whole, cut = divmod(count, per_epoch)
        right = (times - whole).abs() < 0.01
        if cut:
            right |= (times - whole - 1).abs() < 0.01
        if bool(right.all()):
            return
    text = f"each of {N} examples was used {times.min():.1f} to {times.max():.1f} times"
    expect(use).all(False, f"{count} updates, {count / per_epoch:g} epochs, but {text}")


@train.criterion(points=1)
def every_example_once_an_epoch(student: Student, draw: Draw) -> None:
    """Each epoch uses every example once, wherever a cycle ends."""
    training = counters(draw, N=20, batch_size=4, n_s=3, cycles=5)  # 30 updates, six epochs of five
    expect_equal_use(student, training, draw.generator())


@train.criterion(points=0.5)
def last_batch_is_what_is_left(student: Student, draw: Draw) -> None:
    """Where batch_size does not divide N, the last batch of an epoch has the examples that are left."""
    size = 2 * draw.integer(2, 5) + 1  # odd, so that halves come from the last batch alone
    if repeats_examples(student, draw):
        return
    training = counters(draw, N=3 * size + 2, batch_size=size, n_s=4, cycles=1)  # eight updates, two epochs
    training.lr_max = TINY
    use = use_of_examples(student, training, draw.generator())
    for count in training.kept[::-1]:
        got = in_units(use, float(count))
        # Each time an example adds 1/size where it was in a whole batch, and 1/2 where it was one of the two left.
        rests = sorted({count // 4, math.ceil(count / 4)})  # epochs; one number, if there are eight updates
        known = [(rest - k) / size + k / 2 for rest in rests for k in range(rest + 1)]
        if bool(torch.stack([(got - value).abs() < 1e-3 for value in known]).any(0).all()):
            start = training.changed(n_s=1)  # two updates
            got = in_units(use_of_examples(student, start, draw.generator()), 2.0)
            expect(got).all(
                (got - 0.5).abs() > 1e-3, "the first batches of an epoch are not whole: the rest comes first"
            )
            return
    shown, wanted = (", ".join(f"{v:.3g}" for v in sorted({round(v, 3) for v in vs})) for vs in (got.tolist(), known))
    text = (
        f"An epoch of {len(use)} examples with batch_size {size} has three batches of {size} and one of the 2 left. "
        f"Over {rests[0]} epochs an example's sum of 1 / (size of its batch) is one of {wanted}; got {shown}."
    )
    whole = bool(((got * size).round() - got * size).abs().max() < 1e-2)
    cause = f"The last, smaller batch was left out or filled up: every batch had {size} examples."
    raise Unmet(text, causes=[cause] if whole else [])


@train.criterion(points=0.5, contract=True)
def new_order_every_epoch(student: Student, draw: Draw) -> None:
    """Every epoch, the first one too, has the examples in a new random order, so that they meet in new batches."""
    one_epoch = counters(draw, N=40, batch_size=5, n_s=4, cycles=1)  # eight updates
    use = use_of_examples(student, one_epoch, draw.generator())
    blocks = use.reshape(8, 5)
    same = bool(((blocks - blocks[:, :1]).abs() <= 0.01 * use.abs().max()).all())
    varies = bool(((use - use[0]).abs() > 0.01 * use.abs().max()).any())  # lr does, so there is something to see
    expect(use).all(not (same and varies), "the first epoch has the examples in the order of X")
    # lr rises during two epochs and falls during two: what an example gains in all tells which batches it was in.
    epochs = counters(draw, N=40, batch_size=5, n_s=16, cycles=1)
    use = use_of_examples(student, epochs, draw.generator())
    together = Counter((use / use.abs().max() * 1000).round().long().tolist())
    again = all(count % 5 == 0 for count in together.values())
    expect(use).all(not (again and varies), "the same examples meet in the same batches in every epoch")
    expect_new_orders(student, draw)


def expect_new_orders(student: Student, draw: Draw, function: str = "train") -> None:
    """Examples that follow on each other in one epoch hardly do in another."""
    orders = orders_by_cost(student, draw, function)
    for k, after in enumerate(orders):
        for before in orders[:k]:
            place = before.argsort()[after]  # where neighbours of the one come from in the other
            still = int(((place[1:] - place[:-1]).abs() == 1).sum())
            text = "neighbours stay neighbours from epoch to epoch: the order is moved along or turned, not drawn anew"
            expect(after).all(still < 0.75 * len(after), text)


def orders_by_cost(student: Student, draw: Draw, function: str = "train") -> list[Tensor]:
    """The order of X, then that of the examples in each of three epochs, as the costs of batches of one tell it.

    Nothing is learnt, so each example keeps its cost.  Empty where they do not tell, which other criteria say.
    """
    N, alike = 24, True
    while alike:
        p = problem(draw, 1, N=N)
        each = torch.stack([loss_of(p.X[i : i + 1], p.y[i : i + 1], p.layers) for i in range(N)])
        ordered = each.sort().values
        alike = bool((ordered.diff() < 1e-3 * ordered[1:]).any())
    training = Training(p.X, p.y, p.layers, 0.0, 1, n_s=N // 2, cycles=3, lr_min=0.0, lr_max=0.0)
    training.run(student, draw.generator(), function=function)
    try:
        told = torch.tensor(training.column(2, "cost"), dtype=torch.float64)
    except Unmet:
        return []
    near = (told[:, None] - each).abs() <= 1e-4 * each
    epochs = near.long().argmax(1)[: len(told) // N * N].reshape(-1, N)
    whole = bool(near.any(1).all()) and all(len(set(order.tolist())) == N for order in epochs)
    return [torch.arange(N), *epochs] if whole else []


@train.criterion(points=1)
def number_of_updates(student: Student, draw: Draw) -> None:
    """There are exactly 2 · n_s · cycles updates; the last epoch is cut where they are done."""
    whole = counters(draw, N=20, batch_size=4, n_s=5, cycles=1)
    whole.lr_max = TINY
    unit = use_of_examples(student, whole, draw.generator()).sum() / whole.updates
    expect(unit).all(bool(unit != 0), "no example moved its weights")
    for n_s, cycles in ((3, 1), (1, 2), (2, 3)):
        training = whole.changed(n_s=n_s, cycles=cycles)
        use = use_of_examples(student, training, draw.generator())
        name = f"the number of updates (n_s = {n_s}, cycles = {cycles})"
        expect(use.sum() / unit, name).close_to(training.updates, rtol=1e-3)
        told = len(training.noted)
        text = f"n_s = {n_s}, cycles = {cycles}: on_step was called {told} times, expected {training.updates}"
        expect(training.noted).all(told in (0, training.updates), text)


@train.criterion(points=0.5)
def on_step_is_told_t_and_lr(student: Student, draw: Draw) -> None:
    """`on_step(t, lr, cost)` is called after every update: t = 0, 1, 2, … and lr = cyclical_lr(t, …)."""
    training = counters(draw, N=9, batch_size=3, n_s=2, cycles=2)
    training.run(student, draw.generator())
    told = training.column(0, "t")
    expect(told).all(told == list(range(len(told))), f"on_step was given t = {', '.join(f'{t:g}' for t in told)}")
    lr, expected = (
        torch.tensor(v, dtype=torch.float64)
        for v in (training.column(1, "lr"), [training.lr(t) for t in range(len(told))])
    )
    late = torch.tensor([training.lr(t + 1) for t in range(len(told))], dtype=torch.float64)
    slips = {"These are the rates of the updates t + 1: the first update has t = 0.": late}
    expect(lr, "the lr that on_step was given").close_to(expected, rtol=1e-3, slips=lambda: slips)


@train.criterion(points=0.5)
def on_step_is_told_the_cost_before(student: Student, draw: Draw) -> None:
    """`on_step(t, lr, cost)` is given the cost, λ included, that the batch had before the update."""
    training = whole_set(draw, n_s=1).changed(lam=draw.number(0.1, 0.3))
    training = whatever_the_batch(student, draw, training)
    result = training.run(student, draw.generator())
    expect_costs_before(training, result)


def expect_costs_before(training: Training, result: Any, function: str = "train") -> None:
    """`on_step` was told the cost before the first update and, where the updates are right, before every other."""
    told = training.column(2, "cost")
    try:
        expect_layers(result, training.after(training.updates), function)
    except Unmet:
        told = told[:1]  # the updates are the business of other criteria
    for t, value in enumerate(told[: training.updates]):
        layers = training.after(t)
        loss, penalty = loss_of(training.X, training.y, layers), penalty_of(layers, training.lam)
        got = torch.tensor(value, dtype=torch.float64)
        expect(got, f"the cost at t = {t}").close_to(loss + penalty, penalty=penalty, rtol=1e-5)


def training_arguments(draw: Draw) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Valid arguments of `train`: those by position, and those by name."""
    rates = {"lam": 0.1, "lr_min": 0.01, "lr_max": 0.1}
    others = {"batch_size": 9, "n_s": 2, "cycles": 2, "generator": draw.generator()}
    return small(draw), {**rates, **others, "on_step": Given(lambda *_: None, listener)}


SMALL_LAYERS = [{"W": shape, "b": shape[1:]} for shape in pairwise(SMALL)]

add_contract(train, training_arguments, [Nested("the layers", SMALL_LAYERS)])


# --- Searching λ -----------------------------------------------------------------------------------------------------

log_uniform = Exercise("log_uniform", forbidden=FORBIDDEN)


@log_uniform.criterion(points=0.5, contract=True)
def between_the_bounds(student: Student, draw: Draw) -> None:
    """Every number lies between low and high."""
    for low, high in ((1e-5, 1e-1), (draw.number(0.1, 0.2), draw.number(5, 9)), (20.0, 3e4)):
        got = finite(student.log_uniform(low, high, 2000, draw.generator()), 2000)
        inside = (got >= low * (1 - 1e-5)) & (got <= high * (1 + 1e-5))
        expect(got).all(inside, f"a number is not between {low:.4g} and {high:.4g}")


@log_uniform.criterion(points=1.5)
def logarithms_are_uniform(student: Student, draw: Draw) -> None:
    """Every decade gets the same share: the logarithms of the numbers are uniform between those of the bounds."""
    n = 4000
    for low, high in ((1e-5, 1e-1), (draw.number(0.1, 0.2), draw.number(50, 90))):
        got = finite(student.log_uniform(low, high, n, draw.generator()), n).double()
        place = (got.clamp(min=1e-30).log() - math.log(low)) / (math.log(high) - math.log(low))
        for quarter in (0.25, 0.5, 0.75):
            share = (place < quarter).double().mean().item()
            # Chance takes a right solution this far off once in 10⁸ times (Hoeffding's inequality).
            text = f"{share:.0%} of the numbers lie in the lowest {quarter:.0%} of the way from log(low) to log(high)"
            expect(got).all(abs(share - quarter) < 0.05, text)


@log_uniform.criterion(points=0.5)
def numbers_are_drawn(student: Student, draw: Draw) -> None:
    """The n numbers are drawn one by one: they differ, and another state of `generator` gives others."""
    generator = draw.generator()
    got = finite(student.log_uniform(0.01, 1.0, 50, generator), 50)
    expect(got).all(len(set(got.tolist())) > 40, "many of the numbers are the same")
    for other, what in (
        (draw.generator(), "two generators give"),
        (generator, "a second call with the same one gives"),
    ):
        numbers = finite(student.log_uniform(0.01, 1.0, 50, other), 50).sort().values
        alike = torch.isclose(numbers, got.sort().values.to(numbers.dtype), rtol=1e-3).double().mean()
        expect(numbers).all(bool(alike < 0.5), f"{what} the same numbers")


@log_uniform.criterion(points=0.25, contract=True, name="keeps_form")
def numbers_in_float32(student: Student, draw: Draw) -> None:
    """The result is a float32 tensor of shape (n,), also for n = 1."""
    for n in (5, 1):
        Form("the result", (n,), dtype=torch.float32).check(
            student.log_uniform(1e-4, 1e-2, n, draw.generator()), torch.float32
        )


# --- Update rules ----------------------------------------------------------------------------------------------------


@dataclass
class Rule:
    """An update rule: what PyTorch calls it, and its constants."""

    exercise: Exercise
    optimiser: type[torch.optim.Optimizer]
    usual: dict[str, Any]  # constants as PyTorch has them, but for lr and ε
    others: Callable[[Draw], dict[str, Any]]  # quite other ones
    fixed: dict[str, Any] = field(default_factory=dict)  # what else PyTorch's optimiser has to be told
    slips: Callable[[dict[str, Any]], dict[str, float]] = (
        lambda constants: {}
    )  # by which factor they spoil a first step

    def constants(self, draw: Draw) -> dict[str, Any]:
        """The usual constants, with a random lr."""
        return {"lr": draw.number(0.05, 0.5), **self.usual}

    def step(
        self, student: Student, theta: Tensor, grad: Tensor, state: Any, constants: dict[str, Any]
    ) -> tuple[Tensor, Any]:
        """The student's new θ, finite and of θ's shape, and the handle of the new state."""
        result = student.call(self.exercise.name, theta, grad, state, **constants)
        new_theta, new_state = expect(result).parts("theta", "state")
        return finite(new_theta, *theta.shape, name="theta"), new_state

    def path(self, student: Student, theta: Tensor, gradients: Sequence[Tensor], constants: dict[str, Any]) -> Tensor:
        """The student's θ after every step, (steps, …)."""
        state, path = None, []
        for grad in gradients:
            theta, state = self.step(student, theta, grad, state, constants)
            path.append(theta)
        return torch.stack(path)

    def right_path(self, theta: Tensor, gradients: Sequence[Tensor], constants: dict[str, Any]) -> Tensor:
        """PyTorch's θ after every step."""
        leaf, path = theta.detach().clone(), []
        fixed = self.fixed if constants.get("momentum", 1.0) else {}  # without momentum PyTorch refuses nesterov=True
        optimiser = self.optimiser([leaf], **constants, **fixed)  # type: ignore[call-arg]
        for grad in gradients:
            leaf.grad = grad.clone()
            optimiser.step()
            path.append(leaf.detach().clone())
        return torch.stack(path)


def add_step_criteria(rule: Rule) -> None:
    """The first step, many steps, and states that are values."""
    exercise, name = rule.exercise, rule.optimiser.__name__

    def start(draw: Draw, steps: int) -> tuple[Tensor, list[Tensor], dict[str, Any]]:
        gradients = [away_from_zero(draw, 4, 3) for _ in range(steps)]
        return draw.normal(4, 3), gradients, rule.constants(draw)

    def paths(
        student: Student, theta: Tensor, gradients: Sequence[Tensor], constants: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        runs = rule.path(student, theta, gradients, constants), rule.right_path(theta, gradients, constants)
        return runs[0] - theta, runs[1] - theta

    @exercise.criterion(points=0.5)
    def first_step(student: Student, draw: Draw) -> None:
        """The first step, whose state is None."""
        for _ in range(2):
            theta, gradients, constants = start(draw, 1)
            got = rule.path(student, theta, gradients, constants) - theta
            expected = rule.right_path(theta, gradients, constants) - theta
            slips = {sentence: factor * expected for sentence, factor in rule.slips(constants).items()}
            # The nearest alone: with usual constants two of them may give nearly the same step.
            likely = dict(sorted(slips.items(), key=lambda slip, got=got: float((slip[1] - got).norm()))[:1])
            expect(got, "theta after one step, less theta before,").close_to(
                expected, single=True, because=f"torch.optim.{name}", slips=lambda likely=likely: likely
            )

    @exercise.criterion(points=1)
    def many_steps(student: Student, draw: Draw) -> None:
        """Later steps use what the state remembers (up to a factor by which the first step is wrong)."""
        for steps in (2, 8, 25):
            theta, gradients, constants = start(draw, steps)
            if steps > 8:  # gradients become smaller in training
                gradients = [grad * 0.95**t for t, grad in enumerate(gradients)]
            got = rule.path(student, theta, gradients, constants) - theta
            expected = rule.right_path(theta, gradients, constants) - theta
            factor = float((got[0] * expected[0]).sum() / (expected[0] ** 2).sum()) or 1.0
            scaled = got / factor
            if not bool((scaled[0] - expected[0]).norm() <= 1e-6 * expected[0].norm()):
                scaled = got  # the first step is wrong in another way
            # In units of lr, so that the tolerance is the same whatever lr is.
            what = f"(theta after each of {steps} steps, less the first theta) / lr"
            because = f"torch.optim.{name}"
            expect(scaled / constants["lr"], what).close_to(expected / constants["lr"], single=True, because=because)

    @exercise.criterion(points=0.5)
    def every_constant_counts(student: Student, draw: Draw) -> None:
        """The constants given are used: with other ones the steps are others, as they should be."""
        theta, gradients, constants = start(draw, 3)
        gradients = [grad * size for grad, size in zip(gradients, (1.0, 0.1, 0.01), strict=True)]
        usual, right_usual = paths(student, theta, gradients, constants)
        # Whether the steps are right for the usual constants is asked by the other criteria.
        all_right = bool((usual - right_usual).norm() <= 1e-4 * right_usual.norm())
        changes: list[dict[str, Any]] = [{key: value} for key, value in rule.others(draw).items() if key != "betas"]
        if "betas" in constants:
            (a, b), (c, d) = constants["betas"], rule.others(draw)["betas"]
            changes += [{"betas": (c, b)}, {"betas": (a, d)}, {"betas": (0.0, b)}, {"betas": (a, 0.0)}]
        changes += [{key: 0.0} for key in ("momentum", "alpha") if key in constants]  # 0 is a value like any other
        for change in changes:
            (key,) = change
            got, right = paths(student, theta, gradients, {**constants, **change})
            if all_right:
                expect(got, f"theta less the first theta, with another {key},").close_to(right, single=True)
            elif bool((right - right_usual).norm() > 1e-3 * right_usual.norm()):
                same = bool((got - usual).norm() <= 1e-6 * usual.norm())
                what = f"betas[{int(change[key][0] == constants[key][0])}]" if key == "betas" else key
                expect(got).all(not same, f"{what} makes no difference")
        if "eps" in constants and all_right:
            tiny, without = [1e-9 * grad for grad in gradients], {**constants, "eps": 0.0}
            got, right = paths(student, theta, tiny, without)
            expect(got, "theta less the first theta, with eps = 0 and tiny gradients,").close_to(right, single=True)

    @exercise.criterion(points=0.25, contract=True)
    def states_are_values(student: Student, draw: Draw) -> None:
        """An old state may be used again: a step does not change the state that it is given."""
        theta, gradients, constants = start(draw, 5)
        state = None
        for grad in gradients[:3]:
            theta, state = rule.step(student, theta, grad, state, constants)
        expect(theta).all(bool((theta != 0).any()), "theta is 0")
        once, next_state = rule.step(student, theta, gradients[3], state, constants)
        rule.step(student, once, gradients[4], next_state, constants)
        again, _ = rule.step(student, theta, gradients[3], state, constants)
        because = "the first time"
        expect(again, "theta after a step from the same state a second time").close_to(once, because=because)

    add_contract(
        exercise,
        lambda draw: ((draw.normal(4, 3), away_from_zero(draw, 4, 3), None), rule.constants(draw)),
        [Form("theta", (4, 3)), Opaque("state")],
        points=0.25,
    )


momentum_step = Exercise("momentum_step", forbidden=FORBIDDEN, opaque=(1,))
MOMENTUM = Rule(
    momentum_step,
    torch.optim.SGD,
    {"momentum": 0.9},
    lambda draw: {"lr": draw.number(1, 2), "momentum": draw.number(0.3, 0.7)},
    slips=lambda constants: {
        "The first velocity is g₁, not 0.": 0.0,
        "The first velocity is g₁, without the factor 1 − μ.": 1 - constants["momentum"],
    },
)
add_step_criteria(MOMENTUM)

nesterov_step = Exercise("nesterov_step", forbidden=FORBIDDEN, opaque=(1,))
NESTEROV = replace(
    MOMENTUM,
    exercise=nesterov_step,
    fixed={"nesterov": True},
    slips=lambda constants: {
        "That is a step of `momentum_step`, which does not look ahead.": 1 / (1 + constants["momentum"]),
    },
)
add_step_criteria(NESTEROV)

rmsprop_step = Exercise("rmsprop_step", forbidden=FORBIDDEN, opaque=(1,))
RMSPROP = Rule(
    rmsprop_step,
    torch.optim.RMSprop,
    {"alpha": 0.99, "eps": 1e-12},
    lambda draw: {"lr": draw.number(1, 2), "alpha": draw.number(0.5, 0.9)},
    slips=lambda constants: {
        "The memory starts from a₀ = 0, so a₁ is not g₁² itself.": math.sqrt(1 - constants["alpha"]),
        "α and 1 − α are exchanged.": math.sqrt((1 - constants["alpha"]) / constants["alpha"]),
    },
)
add_step_criteria(RMSPROP)

adam_step = Exercise("adam_step", forbidden=FORBIDDEN, opaque=(1,))
ADAM = Rule(
    adam_step,
    torch.optim.Adam,
    {"betas": (0.9, 0.999), "eps": 1e-12},
    lambda draw: {"lr": draw.number(1, 2), "betas": (draw.number(0.3, 0.7), draw.number(0.8, 0.95))},
    slips=lambda constants: {
        "The bias correction is missing.": (1 - constants["betas"][0]) / math.sqrt(1 - constants["betas"][1]),
        "The bias correction of m is missing.": 1 - constants["betas"][0],
        "The bias correction of a is missing.": 1 / math.sqrt(1 - constants["betas"][1]),
    },
)
add_step_criteria(ADAM)


def add_eps_criterion(rule: Rule) -> None:
    """Where ε goes, for a rule that divides by a root."""

    @rule.exercise.criterion(points=0.5)
    def eps_is_added_to_the_root(student: Student, draw: Draw) -> None:
        """ε is added to the root, not under it: with a large ε its place shows (up to a factor of the steps)."""
        gradients, constants = [away_from_zero(draw, 4, 3) for _ in range(4)], rule.constants(draw)
        theta, eps = draw.normal(4, 3), draw.number(0.5, 1)
        (small, right_small), (large, right_large) = (
            (
                rule.path(student, theta, gradients, {**constants, "eps": e}) - theta,
                rule.right_path(theta, gradients, {**constants, "eps": e}) - theta,
            )
            for e in (1e-12, eps)
        )
        if bool((small - right_small).norm() <= 1e-6 * right_small.norm()):
            name = f"theta after each of four steps with eps = {eps:.2f}, less the first theta,"
            expect(large, name).close_to(right_large, single=True, because=f"torch.optim.{rule.optimiser.__name__}")
        small, right_small, large, right_large = small[0], right_small[0], large[0], right_large[0]
        expect(small).all(small != 0, "theta did not move")
        name = f"the first step with eps = {eps:.2f}, as a part of that with a tiny eps,"
        got, expected = large / small, right_large / right_small
        if not bool((small - right_small).norm() <= 1e-3 * right_small.norm()):
            # The first step is wrong, which is the business of other criteria: whatever its root is.
            roots = [(constants["lr"] * gradients[0] / small).abs()]
            for beta in (constants.get("alpha", 0.0), *constants.get("betas", ())):
                roots += [math.sqrt(1 - beta) * gradients[0].abs(), (1 - beta) * gradients[0] ** 2]
            expected = nearest(got, [expected, *(root / (root + eps) for root in roots)])
        expect(got, name).close_to(expected, single=True)


add_eps_criterion(RMSPROP)
add_eps_criterion(ADAM)


# --- Batch normalisation ---------------------------------------------------------------------------------------------

NO_EPS = 1e-12  # so small that its place does not show

batch_norm_forward = Exercise("batch_norm_forward", forbidden=FORBIDDEN, opaque=(1,))

Statistics = dict[str, Tensor]


@dataclass
class Batch:
    """What goes into batch normalisation: S (N, m), gamma (m,), beta (m,)."""

    S: Tensor
    gamma: Tensor
    beta: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean of every column of S."""
        return sum(self.S) / len(self.S)  # type: ignore[return-value]

    @property
    def var(self) -> Tensor:
        """The mean squared distance from it."""
        return sum((row - self.mean) ** 2 for row in self.S) / len(self.S)  # type: ignore[return-value]

    @property
    def plain(self) -> Batch:
        """The same with gamma = 1 and beta = 0."""
        return Batch(self.S, torch.ones_like(self.gamma), torch.zeros_like(self.beta))

    def forward(
        self, student: Student, running: Statistics | None, *, training: bool, **named: float
    ) -> tuple[Tensor, Any, Any]:
        """The student's out, finite, and the cache and the running statistics; eps is tiny if not given."""
        given = {"eps": NO_EPS, **named}
        result = student.batch_norm_forward(self.S, self.gamma, self.beta, running, training=training, **given)
        out, cache, running = expect(result).parts("out", "cache", "running")
        return finite(out, *self.S.shape, name="out"), cache, running


def batch(draw: Draw, N: int | None = None, m: int | None = None) -> Batch:
    """A batch whose columns differ in mean and spread, with gamma and beta that change something."""
    N, m = N or draw.integer(8, 13), m or draw.integer(3, 7)
    S = draw.normal(N, m) * draw.uniform(0.5, 3, m) + draw.uniform(-4, 4, m)
    gamma = away_from_zero(draw, m)
    gamma[0], gamma[1:2] = -gamma[0].abs(), gamma[1:2].abs()  # of either sign
    return Batch(S, gamma, away_from_zero(draw, m))


def statistics(draw: Draw, m: int) -> Statistics:
    """Running statistics that are neither 0 nor 1, nor near those of a `batch`."""
    return {"mean": 5 + draw.uniform(1, 2, m), "var": draw.uniform(0.1, 0.4, m)}


def own_statistics(student: Student, b: Batch) -> list[Statistics]:
    """Mean and variance of a batch: the right ones, and those by which the student's result is normalised if others.

    What normalises wrongly, which normalises_every_feature asks, is the business of no other criterion.
    """
    right = {"mean": b.mean, "var": b.var}
    if normalises(student, b):
        return [right]
    out, _, _ = b.plain.forward(student, None, training=True)
    std = (b.S[0] - b.S[1]) / (out[0] - out[1])
    mean = b.S[0] - out[0] * std
    return [right, {"mean": mean, "var": std**2}]


def normalises(student: Student, b: Batch) -> bool:
    """Whether a first batch is normalised as normalises_every_feature asks."""
    out, _, _ = b.plain.forward(student, None, training=True)
    expected, N = (b.S - b.mean) / b.var.sqrt(), len(b.S)
    return any(bool((f * out - expected).norm() <= 1e-3 * expected.norm()) for f in (1.0, math.sqrt(N / (N - 1))))


def normalises_somehow(student: Student, b: Batch) -> bool:
    """Whether a first batch is normalised, but wrongly, which is the business of normalises_every_feature alone.

    Then what an example becomes depends on the others, or does not grow as it does.  Whoever does not normalise at all
    has nothing right.
    """
    if normalises(student, b):
        return False
    with_others, larger = torch.cat([b.S[:1], 2 * b.S[1:] + 1]), 3 * b.S
    one, other, large = (
        Batch(S, b.gamma, b.beta).plain.forward(student, None, training=True)[0] for S in (b.S, with_others, larger)
    )
    depends, grows = bool((one[0] != other[0]).any()), bool((large - 3 * one).norm() <= 1e-6 * large.norm())
    return bool((one[0] != one[1]).any()) and (depends or not grows)


UNBIASED = "The variance is divided by N − 1, as `var` does by default; `unbiased=False` divides by N."


def statistic(running: Any, key: str, m: int) -> Tensor:
    """One of the running statistics that were returned."""
    return value_of(running, key, (m,), "running")


@batch_norm_forward.criterion(points=1)
def normalises_every_feature(student: Student, draw: Draw) -> None:
    """In training every column less its mean, divided by its standard deviation (N or N − 1; γ = 1, β = 0)."""
    b = batch(draw)
    N = len(b.S)
    expected = (b.S - b.mean) / b.var.sqrt()
    for running in (None, statistics(draw, len(b.gamma))):
        out, _, _ = b.plain.forward(student, running, training=True)
        got = apart_from_factor(out, expected, math.sqrt(N / (N - 1)), name="out")
        over_features = (b.S - b.S.mean(1, keepdim=True)) / b.S.std(1, unbiased=False, keepdim=True)
        slips = {
            "Divided by the variance; its root is meant.": (b.S - b.mean) / b.var,
            "Mean and variance are those of the rows; a column has its own.": over_features,
        }
        expect(got, "out").close_to(
            expected, single=True, because="the batch's own statistics", sizes={"N": N}, slips=lambda slips=slips: slips
        )


@batch_norm_forward.criterion(points=0.5)
def variance_is_divided_by_N(student: Student, draw: Draw) -> None:
    """The variance that normalises is the mean squared distance, divided by N; of a single example it is 0."""
    b = batch(draw)
    if normalises_somehow(student, b):
        return
    out, _, _ = b.plain.forward(student, None, training=True)
    ones, N = torch.ones_like(b.gamma), len(b.S)
    slips = {UNBIASED: ones * (N - 1) / N}
    expect((out**2).mean(0), "the mean square of a column of out").close_to(ones, single=True, slips=lambda: slips)
    one = Batch(b.S[:1], b.gamma, b.beta).plain
    for running in (None, statistics(draw, len(b.gamma))):
        out, _, _ = one.forward(student, running, training=True, eps=1e-5)
        expect(out, "out for a single example").close_to(torch.zeros_like(out), atol=1e-6, because="S less its mean")


@batch_norm_forward.criterion(points=1)
def gamma_and_beta(student: Student, draw: Draw) -> None:
    """γ scales and β shifts every column, in training and afterwards: out = γ · (out for γ = 1, β = 0) + β."""
    b = batch(draw)
    running = statistics(draw, len(b.gamma))
    for training in (True, False):
        plain, _, _ = b.plain.forward(student, running, training=training)
        expect(plain).all(bool((plain != 0).any()), "out is 0")
        out, _, _ = b.forward(student, running, training=training)
        expect(out, f"out (training={training})").close_to(torch.stack([b.gamma * row + b.beta for row in plain]))


@batch_norm_forward.criterion(points=0.5)
def eps_is_under_the_root(student: Student, draw: Draw) -> None:
    """ε is added to the variance, under the root: with a large ε its place shows."""
    b, eps = batch(draw), draw.number(0.5, 1)
    running = statistics(draw, len(b.gamma))
    for training in (True, False):
        tiny, _, _ = b.plain.forward(student, running, training=training)
        large, _, _ = b.plain.forward(student, running, training=training, eps=eps)
        expect(tiny).all(bool((tiny[0] != tiny[1]).all()), "out is the same for different examples")
        # By what you divide, a tiny eps shows; whether that is right is the business of other criteria.
        std = (b.S[0] - b.S[1]) / (tiny[0] - tiny[1])
        ratio = (large[0] - large[1]) / (tiny[0] - tiny[1])
        expected, right = torch.sqrt(std**2 / (std**2 + eps)), b.var if training else running["var"]
        if not bool((std**2 - right).norm() <= 0.5 * right.norm()):  # neither divided by N nor by N − 1
            expected = nearest(ratio, [expected, std.abs() / (std.abs() + eps), torch.sqrt(right / (right + eps))])
        name = f"the spread of out with eps = {eps:.2f}, as a part of that with a tiny eps (training={training}),"
        expect(ratio, name).close_to(expected, single=True, because="√(var / (var + eps))")


@batch_norm_forward.criterion(points=1)
def first_batch_starts_the_statistics(student: Student, draw: Draw) -> None:
    """Where running is None, the first training batch's mean and variance are the running statistics."""
    b = batch(draw)
    _, _, running = b.forward(student, None, training=True)
    mean, var = (statistic(running, key, len(b.gamma)) for key in ("mean", "var"))
    own = own_statistics(student, b)
    expect(mean, "running['mean']").close_to(nearest(mean, [s["mean"] for s in own]), because="the batch's own")
    # Its divisor, N or N − 1, and a missing square are the business of another criterion.
    N, kinds = len(b.S), [k for s in own for k in (s["var"], s["var"].sqrt())]
    known = [k * d for k in kinds for d in (1.0, N / (N - 1), math.sqrt(N / (N - 1)))]
    if not any(bool((var - k).norm() <= 1e-6 * k.norm()) for k in known):
        expect(var, "running['var']").close_to(b.var, because="the batch's own")


def after_one_example(student: Student, b: Batch, running: Statistics, decay: float) -> Any:
    """The student's running statistics after a training batch of the first example alone."""
    given = {"training": True, "decay": decay, "eps": 1e-5}
    result = student.batch_norm_forward(b.S[:1], b.gamma, b.beta, running, **given)
    return expect(result).parts("out", "cache", "running")[2]


@batch_norm_forward.criterion(points=1)
def running_average(student: Student, draw: Draw) -> None:
    """A training batch moves the running mean to decay · old + (1 − decay) · batch, and the variance alike."""
    b = batch(draw)
    m, own = len(b.gamma), own_statistics(student, b)
    for decay in (draw.number(0.6, 0.8), 0.9, 0.0):
        olds = [statistics(draw, m) for _ in range(2)]
        olds[1]["mean"].zero_()  # a value like any other
        news = [b.forward(student, old, training=True, decay=decay)[2] for old in olds]
        for old, new in zip(olds, news, strict=True):
            got = statistic(new, "mean", m)
            expected = nearest(got, [decay * old["mean"] + (1 - decay) * s["mean"] for s in own])
            turned = [(1 - decay) * old["mean"] + decay * s["mean"] for s in own]
            slips = {"decay and 1 − decay are exchanged.": nearest(got, turned)}
            expect(got, f"running['mean'] with decay = {decay:.2f}").close_to(expected, slips=lambda s=slips: s)
        # Two old variances and one batch: the difference tells the weight of the old, whatever the batch's is.
        moved = statistic(news[0], "var", m) - statistic(news[1], "var", m)
        name = f"the difference between running['var'] from two old ones, with decay = {decay:.2f},"
        expected = decay * (olds[0]["var"] - olds[1]["var"])
        expect(moved, name).close_to(expected, atol=1e-9, because="decay times theirs")


@batch_norm_forward.criterion(points=0.5)
def running_variance(student: Student, draw: Draw) -> None:
    """What is averaged is the batch's variance: divided by N (0 for one example), without ε, no standard deviation."""
    b, decay = batch(draw), draw.number(0.6, 0.8)
    m = len(b.gamma)
    old = statistics(draw, m)
    _, _, start = b.forward(student, None, training=True, eps=0.1)
    own, first = own_statistics(student, b), statistic(start, "var", m)
    right = nearest(first, [s["var"] for s in own])
    got = apart_from_factor(first, right, 1 / (1 - 0.9), name="running['var']")
    N = len(b.S)
    slips = {
        "That is the standard deviation; its square is asked for.": right.sqrt(),
        UNBIASED: right * N / (N - 1),
        "ε is added to it; it belongs under the root alone.": right + 0.1,
    }
    expect(got, "running['var'] of the first batch").close_to(
        right, sizes={"N": N, "N − 1": N - 1}, slips=lambda: slips
    )
    _, _, new = b.forward(student, old, training=True, decay=decay, eps=0.1)
    new_mean, new_var = (statistic(new, key, m) for key in ("mean", "var"))
    # The weight of the batch, as the running mean shows it: a wrong one is the business of another criterion.
    weights = [(new_mean - old["mean"]) / (s["mean"] - old["mean"]) for s in own]
    moved = [old["var"] + w * (s["var"] - old["var"]) for w, s in zip(weights, own, strict=True)]
    expected = nearest(new_var, moved)
    weight = weights[next(k for k, one in enumerate(moved) if one is expected)]
    if bool((weight.abs() < 1e-9).any()):  # never updated
        return
    expect(new_var, "running['var']").close_to(expected, because=f"the old one moved by {weight[0]:.2f} of the way")
    if len(own) > 1:
        return
    after = after_one_example(student, b, old, decay)
    mean, var = (statistic(after, key, m) for key in ("mean", "var"))
    right_mean, right_var = old["mean"] + weight * (b.S[0] - old["mean"]), (1 - weight) * old["var"]
    expect(mean, "running['mean'] after a batch of one example").close_to(right_mean)
    because = "the variance of a single number is 0"
    expect(var, "running['var'] after a batch of one example").close_to(right_var, atol=1e-9, because=because)


@batch_norm_forward.criterion(points=1)
def afterwards_uses_running(student: Student, draw: Draw) -> None:
    """With training=False the running statistics normalise, whatever the batch is (γ = 1, β = 0)."""
    b = batch(draw)
    running = statistics(draw, len(b.gamma))
    for rows in (slice(None), slice(0, 1), slice(2, 5)):
        part = Batch(b.S[rows], b.gamma, b.beta).plain
        out, _, _ = part.forward(student, running, training=False)
        expected = torch.stack([(row - running["mean"]) / running["var"].sqrt() for row in part.S])
        try:
            expect(out, f"out for {len(part.S)} examples").close_to(expected, single=True)
        except Unmet:
            if not normalises_alike_in_both_modes(student, draw):
                raise


def normalises_alike_in_both_modes(student: Student, draw: Draw) -> bool:
    """Whether training normalises wrongly, and evaluation with the batch's statistics as running ones in the same way.

    Then one mistake, in what both modes share, makes both wrong, and normalises_every_feature says so.
    """
    b = batch(draw).plain
    if not normalises_somehow(student, b):
        return False
    out, _, _ = b.forward(student, None, training=True)
    running = {"mean": b.mean, "var": b.var}
    afterwards = [
        Batch(b.S[r], b.gamma, b.beta).forward(student, running, training=False)[0] for r in (slice(0, 1), slice(3))
    ]
    return all(bool((o - out[: len(o)]).norm() <= 1e-6 * out.norm()) for o in afterwards)


@batch_norm_forward.criterion(points=0.5, contract=True)
def afterwards_running_stays(student: Student, draw: Draw) -> None:
    """With training=False the running statistics are returned as they were."""
    b = batch(draw)
    running = statistics(draw, len(b.gamma))
    out, _, after = b.forward(student, running, training=False)
    expect(out).all(bool((out != 0).any()), "out is 0")
    for key, value in running.items():
        expect(statistic(after, key, len(b.gamma)), f"running[{key!r}]").close_to(value, because="that given")


def batch_norm_arguments(draw: Draw, running: bool = True) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Valid arguments of `batch_norm_forward`: those by position, and those by name."""
    old = {"mean": draw.normal(4), "var": draw.uniform(0.5, 2, 4)}
    return (draw.normal(9, 4), draw.normal(4), draw.normal(4), old if running else None), {"training": running}


BATCH_NORM_RESULTS = [Form("out", (9, 4)), Opaque("cache"), Nested("running", {"mean": (4,), "var": (4,)})]


def special_batches(draw: Draw) -> list[tuple[tuple[Any, ...], Sequence[Form | Nested | Opaque]]]:
    """Arguments for criteria on form: one example or several, the first batch, a later one, an evaluation."""
    cases, forms = [], [Opaque("out"), Opaque("cache"), Opaque("running")]  # which form_in_every_mode asks for
    for N in (9, 1):
        for running, training in ((False, True), (True, True), (True, False)):
            (S, *others), _ = batch_norm_arguments(draw, running)
            cases.append((((S[:N].clone(), *others), {"training": training}), forms))
    return cases


add_contract(batch_norm_forward, batch_norm_arguments, BATCH_NORM_RESULTS, unusual=special_batches)


batch_norm_backward = Exercise("batch_norm_backward", forbidden=FORBIDDEN, leans_on=("batch_norm_forward",))

BACKWARD_NAMES = ("grad_S", "grad_gamma", "grad_beta")


class BatchNormPasses:
    """A forward and a backward pass through batch normalisation by the student, with a random upstream gradient.

    With the upstream gradient of a plain sum, or of a sum of squares, the gradient with respect to S would be
    nearly 0, and wrong formulas would pass.
    """

    def __init__(self, student: Student, draw: Draw, b: Batch, eps: float = NO_EPS, **named: float) -> None:
        self.student, self.batch, self.eps = student, b, eps
        self.out, cache, _ = b.forward(student, None, training=True, eps=eps, **named)
        self.upstream = draw.normal(*b.S.shape)
        result = student.batch_norm_backward(self.upstream, cache)
        self.results = expect(result).parts(*BACKWARD_NAMES)
        leaves = [v.clone().requires_grad_() for v in (b.S, b.gamma, b.beta)]
        out = leaves[1] * normalised(leaves[0], eps) + leaves[2]
        self.expected = dict(zip(BACKWARD_NAMES, torch.autograd.grad(out, leaves, self.upstream), strict=True))
        self.follows = bool((self.out - out.detach()).norm() <= 1e-6 * out.detach().norm())  # the forward pass is right

    def got(self, name: str) -> Tensor:
        """One of the student's gradients."""
        return finite(self.results[BACKWARD_NAMES.index(name)], *self.expected[name].shape, name=name)

    def fits(self, name: str) -> bool:
        """Whether one of the gradients is right."""
        try:
            self.check(name)
        except Unmet:
            return False
        return True

    def check(self, name: str) -> None:
        """One of the gradients is right, for the forward pass that the student wrote."""
        got = self.got(name)
        try:
            expect(got, name).close_to(
                self.expected[name],
                because="autograd's result",
                sizes={"N": len(self.batch.S)},
                slips=self._slips(name),
            )
        except Unmet:
            if self.follows or not self._fits_the_own_output(got, name):
                raise

    def _slips(self, name: str) -> Callable[[], Slips]:
        """What usual slips give for one of the gradients."""

        def of_S() -> Slips:
            b, q = self.batch, self.upstream
            r = 1 / torch.sqrt(b.var + self.eps)
            normal = (b.S - b.mean) * r
            along, across, N = normal * (q * normal).mean(0), q.mean(0), len(q)
            return {
                "Only the direct path: mean and variance, too, depend on S.": b.gamma * r * q,
                "The path through the variance is missing.": b.gamma * r * (q - across),
                "The path through the mean is missing.": b.gamma * r * (q - along),
                "γ is missing.": r * (q - across - along),
                "It is not divided by √(v + ε).": b.gamma * (q - across - along),
                "Sums over the rows stand where their means are meant.": b.gamma * r * (q - N * across - N * along),
                "The last term has a sum over the rows, not their mean.": b.gamma * r * (q - across - N * along),
                "The last term has the wrong sign.": b.gamma * r * (q - across + along),
            }

        def of_parameter() -> Slips:
            other = BACKWARD_NAMES[3 - BACKWARD_NAMES.index(name)]
            scaled = "γ times too large: the gradients of γ and β need what comes from above, not its product with γ."
            return {
                scaled: self.batch.gamma * self.expected[name],
                f"That is {other}: the two are exchanged.": self.expected[other],
            }

        return of_S if name == "grad_S" else of_parameter

    def _fits_the_own_output(self, got: Tensor, name: str) -> bool:
        """Whether a gradient is that of what the student's forward pass computes, by formula or by small steps."""
        b = self.batch
        plain, _, _ = b.plain.forward(self.student, None, training=True, eps=self.eps)
        centred = b.S - b.S.mean(0)
        inverse_std = (plain * centred).sum(0) / (centred**2).sum(0)
        along = self.upstream - self.upstream.mean(0) - plain * (self.upstream * plain).mean(0)
        formula = {
            "grad_S": b.gamma * inverse_std * along,
            "grad_gamma": (self.upstream * plain).sum(0),
            "grad_beta": self.upstream.sum(0),
        }[name]
        if bool((got - formula).norm() <= 1e-5 * formula.norm()):
            return True
        place = {"grad_S": "S", "grad_gamma": "gamma", "grad_beta": "beta"}[name]
        for j in range(4):
            direction = torch.sin(torch.arange(got.numel()) * 1.7 + j).reshape(got.shape).double()
            values = []
            for h in (1e-6, -1e-6):
                moved = replace(b, **{place: getattr(b, place) + h * direction})
                out, _, _ = moved.forward(self.student, None, training=True, eps=self.eps)
                values.append((out * self.upstream).sum())
            slope = (values[0] - values[1]) / 2e-6
            if not bool((slope - (got * direction).sum()).abs() <= 1e-5 * (1 + slope.abs())):
                return False
        return True


@batch_norm_backward.criterion(points=0.5)
def gradient_of_beta(student: Student, draw: Draw) -> None:
    """The gradient with respect to β."""
    BatchNormPasses(student, draw, batch(draw)).check("grad_beta")


@batch_norm_backward.criterion(points=1)
def gradient_of_gamma(student: Student, draw: Draw) -> None:
    """The gradient with respect to γ."""
    BatchNormPasses(student, draw, batch(draw)).check("grad_gamma")


@batch_norm_backward.criterion(points=2)
def gradient_of_S(student: Student, draw: Draw) -> None:
    """The gradient with respect to S: directly, through the mean and through the variance."""
    for _ in range(2):
        BatchNormPasses(student, draw, batch(draw)).check("grad_S")


@batch_norm_backward.criterion(points=0.5, contract=True)
def path_through_the_mean(student: Student, draw: Draw) -> None:
    """A number added to a whole column of S changes nothing, so the gradients of a column add up to 0."""
    passes = BatchNormPasses(student, draw, batch(draw))
    got = passes.got("grad_S")
    expect(got).all(bool((got != 0).any()), "grad_S is 0")
    floor = rounding(got) * float(got.abs().max())
    expect(got.sum(0), "the sum of a column of grad_S").close_to(torch.zeros_like(got[0]), atol=floor)


@batch_norm_backward.criterion(points=0.5, contract=True)
def path_through_the_variance(student: Student, draw: Draw) -> None:
    """A column of S stretched about its mean changes nothing, so grad_S is orthogonal to S less its mean."""
    passes = BatchNormPasses(student, draw, batch(draw))
    got, S = passes.got("grad_S"), passes.batch.S
    expect(got).all(bool((got != 0).any()), "grad_S is 0")
    centred = (S - S.mean(0)) / S.std(0)
    product = (got * centred).sum(0)
    floor = rounding(got) * float(got.abs().max())
    name = "for each column the sum of grad_S · (S − mean) / std"
    expect(product, name).close_to(torch.zeros_like(got[0]), atol=floor)


def rounding(got: Tensor) -> float:
    """How far sums of these numbers may be from 0; whether float64 is computed with in float64 is asked elsewhere."""
    return 1e-8 if got.dtype == torch.float64 and bool((got != got.float()).any()) else 1e-5


def batch_norm_gradients(
    student: Student, draw: Draw, layout: Callable[[Tensor], Tensor] = lambda t: t
) -> list[Tensor]:
    """The student's three gradients for a small batch; `layout` is applied to the upstream gradient."""
    positional, _ = batch_norm_arguments(draw)
    result = student.batch_norm_forward(*positional, training=True)
    _, cache, _ = expect(result).parts("out", "cache", "running")
    return list(expect(student.batch_norm_backward(layout(draw.normal(9, 4)), cache)).parts(*BACKWARD_NAMES))


@batch_norm_backward.criterion(points=0.5, contract=True, name="keeps_form")
def gradients_keep_form(student: Student, draw: Draw) -> None:
    """Results have the documented shapes, and the dtype of the inputs (float32 and float64)."""
    forms = Form("grad_S", (9, 4)), Form("grad_gamma", (4,)), Form("grad_beta", (4,))
    for dtype in (torch.float64, torch.float32):
        draw.dtype = dtype
        for form, value in zip(forms, batch_norm_gradients(student, draw), strict=True):
            form.check(value, dtype)


@batch_norm_backward.criterion(points=0.5, contract=True, name="leaves_arguments_alone")
def upstream_is_left_alone(student: Student, draw: Draw) -> None:
    """The function does not change the arguments it is given."""
    for _ in range(3):
        batch_norm_gradients(student, draw)
        unchanged_arguments(student.calls[-1])


# --- A network with batch normalisation ------------------------------------------------------------------------------

forward_bn = Exercise("forward_bn", forbidden=FORBIDDEN, opaque=(1,))


def bn_scores(student: Student, X: Tensor, layers: Layers, running: Any, *, training: bool) -> tuple[Tensor, Any]:
    """The student's scores, of the right shape and finite, and running statistics."""
    result = student.forward_bn(X, layers, running, training=training)
    scores, _, running = expect(result).parts("scores", "cache", "running")
    return finite(scores, len(X), len(layers[-1]["b"]), name="the matrix of scores"), running


def batch_statistics(X: Tensor, layers: Layers) -> list[Statistics]:
    """Mean and variance of S = HW + b in every hidden layer."""
    found = []
    for H, layer in zip([X, *(z.clamp(min=0) for z in relu_inputs(X, layers))], layers[:-1], strict=False):
        S = H @ layer["W"] + layer["b"]
        found.append({"mean": S.mean(0), "var": ((S - S.mean(0)) ** 2).mean(0)})
    return found


def scores_with(X: Tensor, layers: Layers, running: list[Statistics]) -> Tensor:
    """The scores of a network that is normalised with given statistics."""
    H = X
    for layer, known in zip(layers[:-1], running, strict=True):
        S = (H @ layer["W"] + layer["b"] - known["mean"]) / torch.sqrt(known["var"] + 1e-5)
        H = torch.relu(layer["gamma"] * S + layer["beta"])
    return H @ layers[-1]["W"] + layers[-1]["b"]


def network_statistics(draw: Draw, layers: Layers) -> list[Statistics]:
    """Running statistics for every hidden layer, unlike those of any batch."""
    return [{"mean": draw.normal(len(h["b"])), "var": draw.uniform(0.5, 2, len(h["b"]))} for h in layers[:-1]]


def wide(p: Problem) -> Problem:
    """The same network with sums S so wide that no eps shows."""
    hidden = with_parts(p.layers[:-1], W=lambda W: 100 * W, b=lambda b: 100 * b)
    return Problem(p.X, p.y, [*hidden, p.layers[-1]])


def trains_right(student: Student, p: Problem) -> bool:
    """Whether the scores in training are right; where they are not, other criteria say so."""
    p = wide(p)
    scores, _ = bn_scores(student, p.X, p.layers, None, training=True)
    right = scores_of(p.X, p.layers)
    return bool((scores - right).norm() <= 1e-3 * right.norm())


def twins(draw: Draw) -> Problem:
    """A problem whose hidden layers have the same number of units."""
    d, m, K = sizes(draw, 2)
    return problem(draw, shape=[d, m, m, K], bn=True)


def shared_statistics(draw: Draw, layers: Layers) -> list[Statistics]:
    """The same running statistics for every hidden layer of twins: one layer's for another's do no harm."""
    (one,) = network_statistics(draw, layers[-2:])
    return [{key: value.clone() for key, value in one.items()} for _ in layers[:-1]]


def keeps_layers_apart(student: Student, draw: Draw) -> bool:
    """Whether in evaluation every layer is given its own statistics, not another's, as scores_afterwards asks."""
    p = wide(twins(draw))
    running = network_statistics(draw, p.layers)
    try:
        scores, _ = bn_scores(student, p.X, p.layers, running, training=False)
    except Unmet:
        return False
    right = scores_with(p.X, p.layers, running)
    return bool((scores - right).norm() <= 1e-3 * right.norm())


def network_and_statistics(student: Student, draw: Draw) -> tuple[Problem, list[Statistics]]:
    """A network of two hidden layers, and running statistics: alike where one layer's are taken for another's."""
    if keeps_layers_apart(student, draw):
        p = problem(draw, 3, bn=True)
        return p, network_statistics(draw, p.layers)
    p = twins(draw)
    return p, shared_statistics(draw, p.layers)


@forward_bn.criterion(points=1)
def scores_in_training(student: Student, draw: Draw) -> None:
    """In training S = HW + b is normalised by its batch, then scaled and shifted, then goes through the ReLU."""
    for _ in range(2):
        p = wide(problem(draw, 2, bn=True))
        scores, _ = bn_scores(student, p.X, p.layers, None, training=True)
        expect(scores, "the matrix of scores").close_to(scores_of(p.X, p.layers), single=True)


@forward_bn.criterion(points=0.5, name="many_layers")
def many_normalised_layers(student: Student, draw: Draw) -> None:
    """Any number of layers, each of another size; running may be given."""
    alike = twins(draw)
    for given, running in (
        (problem(draw, 3, bn=True), None),
        (problem(draw, 5, bn=True), None),
        (alike, shared_statistics(draw, alike.layers)),
    ):
        p = wide(given)
        scores, _ = bn_scores(student, p.X, p.layers, running, training=True)
        expect(scores, "the matrix of scores").close_to(scores_of(p.X, p.layers), single=True)


@forward_bn.criterion(points=0.5, name="first_batch_starts_the_statistics")
def first_batch_starts_every_layers(student: Student, draw: Draw) -> None:
    """Where running is None, the batch's mean and variance of S start the statistics of every hidden layer."""
    for p in (wide(problem(draw, 3, bn=True)), wide(twins(draw))):
        _, running = bn_scores(student, p.X, p.layers, None, training=True)
        depth = 2 if trains_right(student, p) else 1
        expect_statistics(running, batch_statistics(p.X, p.layers), "the batch's own", depth)


def expect_statistics(running: Any, expected: list[Statistics], because: str, depth: int | None = None) -> None:
    """The running statistics of all hidden layers, or of the first few, are the expected ones.

    Where what goes into the second hidden layer is wrong, which other criteria say, its statistics are too.
    """
    for k, known in enumerate(expected[:depth]):
        for key, value in known.items():
            got = entry(running, k, key, value.shape, "running")
            expect(got, f"running[{k}][{key!r}]").close_to(value, single=True, because=because)


@forward_bn.criterion(points=0.5, name="running_average")
def running_average_of_every_layer(student: Student, draw: Draw) -> None:
    """A training batch moves the statistics of every hidden layer: 0.9 · old + 0.1 · batch."""
    p, old = network_and_statistics(student, draw)
    p = wide(p)
    _, new = bn_scores(student, p.X, p.layers, old, training=True)
    depth = 2 if trains_right(student, p) else 1
    now = batch_statistics(p.X, p.layers)
    expected = [{k: 0.9 * o[k] + 0.1 * n[k] for k in o} for o, n in zip(old, now, strict=True)]
    expect_statistics(new, expected, "0.9 · old + 0.1 · batch", depth)


@forward_bn.criterion(points=1)
def scores_afterwards(student: Student, draw: Draw) -> None:
    """With training=False every hidden layer is normalised by its running statistics, whatever the batch is."""
    for count in (2, 4):
        p = wide(problem(draw, count, bn=True))
        running = [{"mean": 100 * one["mean"], "var": 1e4 * one["var"]} for one in network_statistics(draw, p.layers)]
        expected = scores_with(p.X, p.layers, running)
        for rows in (slice(None), slice(3, 4)):
            scores, _ = bn_scores(student, p.X[rows], p.layers, running, training=False)
            expect(scores, f"the matrix of scores of {len(scores)} examples").close_to(expected[rows], single=True)


@forward_bn.criterion(points=0.5, contract=True)
def statistics_stay_afterwards(student: Student, draw: Draw) -> None:
    """With training=False the running statistics are returned as they were."""
    p, running = network_and_statistics(student, draw)
    scores, after = bn_scores(student, p.X, p.layers, running, training=False)
    expect(scores).all(bool((scores != 0).any()), "the scores are 0")
    expect_statistics(after, running, "those given")


SMALL_STATISTICS = [{"mean": (d,), "var": (d,)} for d in SMALL_TWINS[1:-1]]


def forward_bn_arguments(draw: Draw) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Valid arguments of `forward_bn`: those by position, and those by name."""
    X, _, layers = small(draw, True, SMALL_TWINS)
    return (X, layers, network_statistics(draw, layers)), {"training": True}


add_contract(
    forward_bn,
    forward_bn_arguments,
    [Form("the scores", (9, 3)), Opaque("cache"), Nested("running", SMALL_STATISTICS)],
)


backward_bn = Exercise("backward_bn", forbidden=FORBIDDEN, leans_on=("forward_bn",))


@backward_bn.criterion(points=1)
def gradients_of_gamma_and_beta(student: Student, draw: Draw) -> None:
    """The gradients of γ and β of every hidden layer (λ = 0; up to the factor of the last layer's)."""
    passes = Passes(student, problem(draw, 3, bn=True), bn=True)
    for k in (1, 0):
        for key in ("beta", "gamma"):
            passes.check(k, key, as_the_last=True)


@backward_bn.criterion(points=1)
def weights_of_hidden_layers(student: Student, draw: Draw) -> None:
    """The gradient of W goes back through ReLU and normalisation (λ = 0; up to the factor of the last layer's)."""
    for count in (2, 4):
        passes = Passes(student, problem(draw, count, bn=True), bn=True)
        for k in reversed(range(count - 1)):
            passes.check(k, "W", as_the_last=True, faults=["relu", "normalisation"])


@backward_bn.criterion(points=0.5, contract=True)
def hidden_biases_have_no_effect(student: Student, draw: Draw) -> None:
    """A hidden b is taken away with the mean, so its gradient is 0 up to rounding."""
    passes = Passes(student, problem(draw, 3, bn=True), bn=True)
    if "normalisation" in passes.faults:
        return  # the business of weights_of_hidden_layers
    for k in (1, 0):
        if passes.has(k, "b"):  # that it is there is the business of keeps_form
            got = passes.got(k, "b")
            expect(got, f"gradients[{k}]['b']").close_to(torch.zeros_like(got), atol=1e-9)


add_gradient_criteria(backward_bn, bn=True)


# --- Dropout ---------------------------------------------------------------------------------------------------------

dropout_forward = Exercise("dropout_forward", forbidden=FORBIDDEN, opaque=(1,))


def dropped_out(
    student: Student, H: Tensor, p: float, generator: torch.Generator, *, training: bool = True
) -> tuple[Tensor, Any]:
    """The student's output, finite and of H's shape, and the handle of the cache."""
    out, cache = expect(student.dropout_forward(H, p, training=training, generator=generator)).parts("out", "cache")
    return finite(out, *H.shape, name="out"), cache


@dropout_forward.criterion(points=1)
def entries_are_dropped_or_scaled(student: Student, draw: Draw) -> None:
    """In training an entry becomes 0 or stays as it is, but for one factor that is the same for all that stay."""
    H = away_from_zero(draw, 30, 20)
    for p in (draw.number(0.2, 0.4), draw.number(0.6, 0.8)):
        out, _ = dropped_out(student, H, p, draw.generator())
        stays = out != 0
        some = bool(stays.any()) and not bool(stays.all())
        expect(out).all(some, "no entry is dropped" if bool(stays.any()) else "every entry is dropped")
        ratio = (out / H)[stays]
        one = ((ratio - ratio[0]).abs() <= 1e-6 * ratio[0].abs()) & (ratio > 0)
        expect(out).all(one, "the entries that stay are not all multiplied by one factor")


def dropped_often(student: Student, H: Tensor, p: float, generator: torch.Generator, times: int) -> Tensor:
    """The student's outputs of several calls, (times, N, m)."""
    return torch.stack([dropped_out(student, H, p, generator)[0] for _ in range(times)])


@dropout_forward.criterion(points=1)
def expectation_is_kept(student: Student, draw: Draw) -> None:
    """The entries that stay are divided by 1 − p, so that the mean of an entry over all draws is what it was."""
    H, generator = away_from_zero(draw, 30, 20), draw.generator()
    for p in (draw.number(0.2, 0.35), draw.number(0.65, 0.8)):
        out = dropped_often(student, H, p, generator, 10)
        stays = out != 0
        expect(out).all(bool(stays.any()), "every entry is dropped")
        # Should p be taken for the probability of staying, that is the business of another criterion.
        share = min((1 - p, p), key=lambda share: abs(stays.double().mean().item() - share))
        factor = (out / H)[stays].double().mean()
        name = f"the factor of the entries that stay, for p = {p:.2f},"
        expect(factor, name).close_to(1 / share, because=f"1 / {share:.2f}: about {share:.0%} of all entries stay")


@dropout_forward.criterion(points=1)
def p_is_the_probability_of_dropping(student: Student, draw: Draw) -> None:
    """About p of all entries are dropped; with p = 0 none is."""
    H, generator = away_from_zero(draw, 30, 20), draw.generator()
    for p in (draw.number(0.14, 0.18), draw.number(0.74, 0.78), draw.number(0.95, 0.97)):
        dropped = dropped_often(student, H, p, generator, 40) == 0
        share = dropped.double().mean().item()
        # Whole rows or columns are the business of another criterion; they leave fewer draws (Hoeffding: 10⁻⁵).
        rows, columns = ((dropped == dropped.select(axis, 0).unsqueeze(axis)).all() for axis in (2, 1))
        # Chance alone takes a right solution 0.025 off once in 10¹⁵ times (nine standard deviations).
        again = (dropped == dropped[0]).all()  # the same entries in every call: one more of another's
        close = abs(share - p) < (0.08 if rows or columns or again else 0.025)
        expect(H).all(close, f"p = {p:.2f}, but {share:.2f} of the entries are dropped")
    out, _ = dropped_out(student, H, 0.0, generator)
    expect(out).all(out != 0, "p = 0, but an entry is dropped")


@dropout_forward.criterion(points=0.5)
def each_entry_has_its_own_draw(student: Student, draw: Draw) -> None:
    """Within a row and within a column some entries are dropped and some are not; another call drops others."""
    H = away_from_zero(draw, 40, 40)
    generator = draw.generator()
    (first, _), (second, _) = (dropped_out(student, H, 0.5, generator) for _ in range(2))
    stays = first != 0
    for axis, what in ((0, "column"), (1, "row")):
        whole = (stays.all(axis) | ~stays.any(axis)).double().mean().item()
        expect(first).all(whole < 1, f"every {what} is dropped or kept as a whole")
    same = torch.equal(stays, second != 0)
    expect(first).all(not same, "a second call with the same generator, which has moved on, drops the same entries")


@dropout_forward.criterion(points=1)
def nothing_happens_afterwards(student: Student, draw: Draw) -> None:
    """With training=False the result is H, whatever p is; in training it is not."""
    H = away_from_zero(draw, 9, 7)
    out, _ = dropped_out(student, H, 0.5, draw.generator())
    expect(out).all(not torch.equal(out.double(), H), "out is H in training too")
    for p in (0.0, draw.number(0.3, 0.7)):
        H = away_from_zero(draw, 9, 7)
        out, _ = dropped_out(student, H, p, draw.generator(), training=False)
        expect(out, f"out (training=False, p = {p:.2f})").close_to(H)


add_contract(
    dropout_forward,
    lambda draw: (
        (draw.normal(9, 4), 0.4),
        {"training": True, "generator": torch.Generator().manual_seed(draw.seed % 2**31)},
    ),
    [Form("out", (9, 4)), Opaque("cache")],
    layout=False,  # which entries are dropped is left to chance
)


dropout_backward = Exercise("dropout_backward", forbidden=FORBIDDEN, leans_on=("dropout_forward",))


@dropout_backward.criterion(points=1)
def same_entries_as_forward(student: Student, draw: Draw) -> None:
    """The gradient of a dropped entry is 0, and that of any other entry is not."""
    for p in (draw.number(0.2, 0.4), draw.number(0.6, 0.8), 0.0):
        H, upstream = away_from_zero(draw, 12, 9), away_from_zero(draw, 12, 9)
        out, cache = dropped_out(student, H, p, draw.generator())
        got = finite(student.dropout_backward(upstream, cache), 12, 9)
        expect(got).all((out != 0) | (got == 0), "an entry that the forward pass dropped has a gradient that is not 0")
        expect(got).all((out == 0) | (got != 0), "an entry that the forward pass kept has the gradient 0")


@dropout_backward.criterion(points=0.5)
def factor_of_forward(student: Student, draw: Draw) -> None:
    """A gradient that is not 0 is the upstream gradient times the factor by which `dropout_forward` multiplied."""
    for p in (draw.number(0.2, 0.4), draw.number(0.6, 0.8)):
        H, upstream = away_from_zero(draw, 12, 9), away_from_zero(draw, 12, 9)
        out, cache = dropped_out(student, H, p, draw.generator())
        got = finite(student.dropout_backward(upstream, cache), 12, 9)
        passed, factor = got != 0, (out / H)[out != 0].mean()  # as your forward pass has it
        expect(got).all(bool(passed.any()), "every gradient is 0")
        name = f"what the upstream gradient is multiplied by where the result is not 0, for p = {p:.2f},"
        expect((got / upstream)[passed], name).close_to(factor.expand(int(passed.sum())))


@dropout_backward.criterion(points=0.5, contract=True)
def passes_on_afterwards(student: Student, draw: Draw) -> None:
    """After a forward pass with training=False the upstream gradient goes through as it is, after the next not."""
    H, upstream, generator = away_from_zero(draw, 12, 9), away_from_zero(draw, 12, 9), draw.generator()
    _, cache = dropped_out(student, H, 0.5, generator)
    before = finite(student.dropout_backward(upstream, cache), 12, 9)
    out, cache = dropped_out(student, H, 0.5, generator, training=False)
    expect(student.dropout_backward(upstream, cache)).close_to(upstream * (out / H))
    _, cache = dropped_out(student, H, 0.5, generator)
    after = finite(student.dropout_backward(upstream, cache), 12, 9)
    drops = bool((after == 0).any()) or not bool((before == 0).any())  # whether it ever does is asked elsewhere
    expect(after).all(drops, "after a forward pass with training=False no gradient is 0 any more, in training either")


@dropout_backward.criterion(points=0.5, contract=True, name="keeps_form")
def dropout_gradient_keeps_form(student: Student, draw: Draw) -> None:
    """The result has the shape and the dtype of the upstream gradient (float32 and float64)."""
    for dtype in (torch.float64, torch.float32):
        draw.dtype = dtype
        _, cache = dropped_out(student, away_from_zero(draw, 9, 4), 0.4, draw.generator())
        Form("the result", (9, 4)).check(student.dropout_backward(draw.normal(9, 4), cache), dtype)


@dropout_backward.criterion(points=0.5, contract=True, name="leaves_arguments_alone")
def dropout_upstream_is_left_alone(student: Student, draw: Draw) -> None:
    """The function does not change the arguments it is given."""
    for _ in range(3):
        _, cache = dropped_out(student, away_from_zero(draw, 9, 4), 0.4, draw.generator())
        student.dropout_backward(draw.normal(9, 4), cache)
        unchanged_arguments(student.calls[-1])


# --- Bonus -----------------------------------------------------------------------------------------------------------

ensemble = Exercise("ensemble", bonus=True, forbidden=FORBIDDEN)


def probabilities(draw: Draw, models: int, N: int = 9, K: int = 4) -> list[Tensor]:
    """The probabilities of several models, each (N, K)."""
    return [torch.softmax(draw.normal(N, K, scale=2).double(), 1).to(draw.dtype) for _ in range(models)]


def order_is_free(student: Student, given: list[Tensor]) -> bool:
    """Whether the models give the same in another order: reversed, or moved on by one."""
    first, *others = (student.ensemble(models) for models in (given, given[::-1], [given[-1], *given[:-1]]))
    first = finite(first, *given[0].shape)
    return all(bool((finite(o, *given[0].shape) - first).norm() <= 1e-6 * first.norm()) for o in others)


@ensemble.criterion(points=1)
def mean_of_the_models(student: Student, draw: Draw) -> None:
    """The mean over the models of every probability (as a mean or as a sum)."""
    for models in (2, 3, 7):
        given = probabilities(draw, models)
        if models > 2 and not order_is_free(student, given):
            continue  # the business of every_model_counts_alike
        expected = sum(given) / models
        got = apart_from_factor(student.ensemble(given), expected, 1 / models)
        expect(got).close_to(expected, because="entry by entry the mean")
    one, other = probabilities(draw, 2)
    given = [one, other, one, one]
    if order_is_free(student, given):
        got = apart_from_factor(student.ensemble(given), (3 * one + other) / 4, 1 / 4)
        expect(got, "the result where three of four models are the same").close_to((3 * one + other) / 4)


@ensemble.criterion(points=0.5, contract=True)
def result_is_a_distribution(student: Student, draw: Draw) -> None:
    """The rows of the result add up to one, and a single model is an ensemble too."""
    for models in (1, 5):
        got = finite(student.ensemble(probabilities(draw, models)), 9, 4)
        expect(got.sum(1), "the sum of a row").close_to(torch.ones(9, dtype=torch.float64))


add_contract(
    ensemble,
    lambda draw: (probabilities(draw, 3),),
    [Form("the result", (9, 4))],
    unusual=lambda draw: [
        ((probabilities(draw, 3, N=1),), [Form("the result for one example", (1, 4))]),
        ((probabilities(draw, 1),), [Form("the result of one model", (9, 4))]),
    ],
)


train_snapshots = Exercise("train_snapshots", bonus=True, forbidden=FORBIDDEN)


def snapshots_of(student: Student, training: Training, generator: torch.Generator, **how: Any) -> list[Any]:
    """The student's snapshots; that there is one for every cycle is the business of one_for_every_cycle."""
    result = training.run(student, generator, function="train_snapshots", **how)
    if not isinstance(result, list | tuple) or not result:
        expect(result, "the snapshots").parts(*(f"cycle {c + 1}" for c in range(training.cycles)))
    return list(result)


@train_snapshots.criterion(points=0.5, contract=True)
def one_for_every_cycle(student: Student, draw: Draw) -> None:
    """The result is a list with one entry for every cycle, each a list of layers."""
    for cycles in (1, 3):
        positional, named = training_arguments(draw)
        result = student.train_snapshots(*positional, **{**named, "cycles": cycles})
        Nested("the snapshots", [SMALL_LAYERS] * cycles).leaves(result)


@train_snapshots.criterion(points=1)
def last_is_the_end_of_training(student: Student, draw: Draw) -> None:
    """The last one has the layers after all updates, each by cyclical_lr(t, …) times the gradient of the cost."""
    for cycles in (1, 3):
        training = whole_set(draw, cycles=cycles).changed(lam=draw.number(0.05, 0.1))
        result = training.run(student, draw.generator(), function="train_snapshots")
        last = result[-1] if isinstance(result, list | tuple) and result else None
        expect_layers(last, training.after(training.updates), f"{training.updates} updates on the same batch")


@train_snapshots.criterion(points=1)
def each_is_the_end_of_its_cycle(student: Student, draw: Draw) -> None:
    """Each one has the layers as they were when its cycle ended, untouched by the later updates."""
    training = whole_set(draw, cycles=3)
    snapshots = snapshots_of(student, training, draw.generator())
    expect(snapshots, "the snapshots").parts("cycle 1", "cycle 2", "cycle 3")
    for c, snapshot in enumerate(snapshots[:-1], 1):
        updates = 2 * training.n_s * c
        expect_layers(snapshot, training.after(updates), f"{updates} updates on the same batch")


@train_snapshots.criterion(points=0.5, contract=True, name="keeps_form")
def snapshots_keep_form(student: Student, draw: Draw) -> None:
    """The tensors have the shapes and the dtype of those given (float32 and float64)."""
    for dtype in (torch.float64, torch.float32):
        draw.dtype = dtype
        positional, named = training_arguments(draw)
        result = student.train_snapshots(*positional, **named)
        if not isinstance(result, list | tuple):
            expect(result, "the snapshots").parts("cycle 1", "cycle 2")
        for snapshot in result:
            for form, value in Nested("a snapshot", SMALL_LAYERS).leaves(snapshot):
                form.check(value, dtype)


@train_snapshots.criterion(points=0.5, contract=True, name="leaves_arguments_alone")
def initial_layers_are_left_alone(student: Student, draw: Draw) -> None:
    """The function does not change the arguments it is given."""
    positional, named = training_arguments(draw)
    student.train_snapshots(*positional, **named)
    unchanged_arguments(student.calls[-1])


SMOOTHING_FORBIDDEN = (
    *FORBIDDEN,
    "torch.nn.functional.cross_entropy(label_smoothing)",
    "torch.nn.CrossEntropyLoss(label_smoothing)",
)
label_smoothing_cross_entropy = Exercise("label_smoothing_cross_entropy", bonus=True, forbidden=SMOOTHING_FORBIDDEN)


def smoothing_problem(draw: Draw) -> tuple[Tensor, Tensor]:
    """Scores (N, K) and labels (N,)."""
    N, K = draw.integer(11, 16), draw.integer(4, 8)
    return draw.normal(N, K, scale=2), labels(draw, N, K)


@label_smoothing_cross_entropy.criterion(points=1)
def smoothed_target(student: Student, draw: Draw) -> None:
    """The target is (1 − ε) · one-hot + ε / K on every class, the true one too (as a mean or as a sum)."""
    for _ in range(2):
        (scores, y), epsilon = smoothing_problem(draw), draw.number(0.2, 0.5)
        N, K = scores.shape
        log_p = scores - scores.exp().sum(1, keepdim=True).log()
        target = torch.full_like(scores, epsilon / K)
        target[torch.arange(N), y] += 1 - epsilon
        expected = -(target * log_p).sum(1).mean()
        of_truth, of_all = -log_p[torch.arange(N), y].mean(), -log_p.sum(1).mean()
        rest = (1 - epsilon) * of_truth
        slips = {
            "ε is divided by K − 1.": rest + epsilon / (K - 1) * of_all,
            "ε is shared by the other classes alone.": rest + epsilon / (K - 1) * (of_all - of_truth),
            "Every class gets ε, not ε / K.": rest + epsilon * of_all,
            "The true class keeps all of its 1, not 1 − ε.": of_truth + epsilon / K * of_all,
        }
        loss = apart_from_factor(student.label_smoothing_cross_entropy(scores, y, epsilon), expected, 1 / N)
        expect(loss, "the loss").close_to(expected, slips=lambda slips=slips: slips)


@label_smoothing_cross_entropy.criterion(points=0.5)
def without_smoothing(student: Student, draw: Draw) -> None:
    """ε = 0 gives the usual cross-entropy (as a mean or as a sum)."""
    scores, y = smoothing_problem(draw)
    expected = F.cross_entropy(scores, y)
    loss = apart_from_factor(student.label_smoothing_cross_entropy(scores, y, 0.0), expected, 1 / len(y))
    expect(loss, "the loss").close_to(expected)


@label_smoothing_cross_entropy.criterion(points=0.5, contract=True, name="mean_over_examples")
def smoothed_mean_over_examples(student: Student, draw: Draw) -> None:
    """The loss is a mean over examples: with every example twice it stays the same."""
    (scores, y), epsilon = smoothing_problem(draw), draw.number(0.2, 0.5)
    once = scalar(student.label_smoothing_cross_entropy(scores, y, epsilon), "the loss")
    other = scalar(student.label_smoothing_cross_entropy(2 * scores, y, epsilon), "the loss")
    expect(once).all(once != other, "the loss is the same whatever the scores are")
    twice = student.label_smoothing_cross_entropy(torch.cat([scores, scores]), torch.cat([y, y]), epsilon)
    slips = {"The loss is summed over the examples; asked for is their mean.": 2 * once}
    name, because = "the loss with every example twice", "the loss with each once"
    expect(twice, name).close_to(once, because=because, slips=lambda: slips)


@label_smoothing_cross_entropy.criterion(points=0.5, name="large_scores_do_not_overflow")
def smoothed_loss_of_large_scores(student: Student, draw: Draw) -> None:
    """Scores around 1000 and −1000 give the loss that they should, without overflow or log(0)."""
    (scores, y), epsilon = smoothing_problem(draw), draw.number(0.2, 0.5)
    usual = scalar(student.label_smoothing_cross_entropy(scores, y, epsilon), "the loss")
    other = scalar(student.label_smoothing_cross_entropy(scores, (y + 1) % scores.shape[1], epsilon), "the loss")
    expect(usual).all(usual != other, "the loss does not depend on the labels")
    for shift in (1000.0, -1000.0):
        loss = student.label_smoothing_cross_entropy(scores + shift, y, epsilon)
        expect(loss, f"the loss for scores around {shift:g}").close_to(usual)
    shift = torch.where(torch.arange(len(y)) % 2 == 0, 1000.0, -1000.0).double()[:, None]
    loss = student.label_smoothing_cross_entropy(scores + shift, y, epsilon)
    expect(loss, "the loss for scores around 1000 in some rows and around −1000 in others").close_to(usual)
    far = scores.clone()
    far[:, 0] += 1000
    loss = student.label_smoothing_cross_entropy(far, y, epsilon)
    expect(loss, "the loss where one score is 1000 larger than the others").finite()


add_contract(
    label_smoothing_cross_entropy,
    lambda draw: (draw.normal(9, 4), labels(draw, 9, 4), 0.2),
    [Form("the loss")],
    unusual=lambda draw: [
        ((draw.normal(1, 4), draw.integers(0, 4, 1), 0.2), [Form("the loss of one example")]),
        ((draw.normal(9, 4), labels(draw, 9, 4), 0.0), [Form("the loss for ε = 0")]),
        ((draw.normal(9, 4), labels(draw, 9, 4), 1.0), [Form("the loss for ε = 1")]),
    ],
)


early_stopping = Exercise("early_stopping", bonus=True, forbidden=FORBIDDEN)


def stopped_at(student: Student, costs: Sequence[float], patience: int) -> Tensor:
    """The index that the student's function returns."""
    return scalar(student.early_stopping(list(costs), patience), f"the index for patience = {patience}")


def expect_index(student: Student, costs: Sequence[float], patience: int, expected: int) -> None:
    """The student's function returns this index."""
    got = stopped_at(student, costs, patience)
    shown = ", ".join(f"{c:g}" for c in costs)
    text = f"for costs {shown} and patience {patience} expected index {expected}, got {got.item():g}"
    expect(got).all(got == expected, text)


@early_stopping.criterion(points=1)
def stops_after_patience_epochs(student: Student, draw: Draw) -> None:
    """Training stops after `patience` epochs in a row without a new best; what would come later is never seen."""
    for patience in (2, 3, 5):
        best = draw.integer(1, 4)
        falling = [9.0 - 0.5 * i for i in range(best + 1)]
        above = [falling[-1] + 1 - 0.1 * i for i in range(patience)]  # falling, but above the best so far
        expect_index(student, [*falling, *above, 0.5, 0.25, 0.75], patience, best)


@early_stopping.criterion(points=0.5)
def goes_on_before_that(student: Student, draw: Draw) -> None:
    """A new best after fewer epochs lets training go on, and the count begins anew."""
    for patience in (2, 3, 5):
        costs: list[float] = []
        for level in (8.0, 6.0, 4.0):
            costs += [level, *[level + 1] * (patience - 1)]
        expect_index(student, [*costs, 3.0, 3.5], patience, len(costs))


@early_stopping.criterion(points=0.5)
def never_stops(student: Student, draw: Draw) -> None:
    """Where training never stops it is the index of the best cost of all, also when that is the last or the first."""
    expect_index(student, [5.0, 4.0, 3.0, 2.0], 3, 3)
    expect_index(student, [5.0, 4.0, 1.0, 2.0], 3, 2)
    expect_index(student, [1.0, 4.0, 3.0], 7, 0)


@early_stopping.criterion(points=0.5)
def equal_is_no_improvement(student: Student, draw: Draw) -> None:
    """A cost equal to the best so far is no new best: it counts towards patience, and the first one is kept."""
    expect_index(student, [3.0, 2.0, 2.0, 2.0, 1.0], 2, 1)
    expect_index(student, [3.0, 2.0, 2.5, 2.0], 5, 1)
    expect_index(student, [4.0] * 6, 3, 0)


add_contract(
    early_stopping,
    lambda draw: (draw.uniform(0, 1, 9).tolist(), 3),
    [Form("the index", (), scalar="integer")],
)
