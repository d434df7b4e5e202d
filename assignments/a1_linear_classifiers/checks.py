"""What `check("softmax")` and the like hold your functions of Assignment 1 against.

Read it when a message is not enough.  Each exercise is a list of criteria; the first line of a criterion says what
is asked.  `student.softmax(...)` calls your function, `draw` makes random inputs, `expect` compares.  Grading uses
these criteria with other random inputs, and adds more: other sizes, extreme values, traps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.checking import (
    Draw,
    Exercise,
    Form,
    Given,
    Student,
    Unmet,
    add_contract,
    away_from_zero,
    expect,
    finite,
    prop,
    scalar,
)

# What these exercises ask you to write, and what would do it for you.
FORBIDDEN = (
    "torch.softmax",
    "torch.log_softmax",
    "torch.logsumexp",
    "torch.logcumsumexp",
    "torch.sigmoid",
    "torch.logsigmoid",
    "torch.special.expit",
    "torch.masked.softmin",
    "torch.distributions.*",
    # what torch has of torch.nn's losses and cells
    "torch.binary_cross_entropy_with_logits",
    "torch.ctc_loss",
    "torch.hinge_embedding_loss",
    "torch.kl_div",
    "torch.margin_ranking_loss",
    "torch.poisson_nll_loss",
    "torch.triplet_margin_loss",
    "torch.gru",
    "torch.gru_cell",
    "torch.lstm",
    "torch.lstm_cell",
    "torch.nn.*",
    "torch.optim.*",
    "torch.autograd.*",
    "torch.func.*",
    "torchvision.models.*",
    "torchvision.ops.*",
    "torchvision.transforms.*",
)


# --- Random problems -------------------------------------------------------------------------------------------------


def sizes(draw: Draw) -> tuple[int, int, int]:
    """Numbers of examples N, features d and classes K; they always differ, so a mixed-up axis shows."""
    return draw.integer(11, 16), draw.integer(7, 11), draw.integer(3, 7)


def labels(draw: Draw, N: int, K: int) -> Tensor:
    """N labels in random order among which every class occurs."""
    return torch.cat([torch.arange(K), draw.integers(0, K, N - K)])[draw.permutation(N)]


def problem(draw: Draw, shape: tuple[int, int, int] | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A training set and a linear classifier: X (N, d), y (N,), W (d, K), b (K,)."""
    N, d, K = shape or sizes(draw)
    y = labels(draw, N, K) if N >= K else draw.integers(0, K, N)
    return draw.normal(N, d), y, draw.normal(d, K, scale=0.5), away_from_zero(draw, K)


def hinge_problem(draw: Draw, one_class: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `problem`, with margins of every kind: kept, violated a little, violated by far, several at once."""
    while True:
        X, y, W, b = problem(draw)
        if one_class:
            y = torch.full_like(y, W.shape[1] - 1)
        margin = wrong_class_margins(X @ W + b, y)
        kinds = margin < -1, (margin > -0.9) & (margin < -0.1), (margin > 0.1) & (margin < 0.9), margin > 1.1
        several, clear = bool(((margin > 0).sum(1) > 1).any()), bool((margin.abs() > 1e-3).all())
        kept = int((margin < 0).all(1).sum()) > 1  # so that a mean over the violating examples is seen
        if several and kept and clear and all(bool(kind.any()) for kind in kinds) and margin_matters(X, y, W, b):
            return X, y, W, b


def margin_matters(X: Tensor, y: Tensor, W: Tensor, b: Tensor) -> bool:
    """Whether b's gradient is not 0 for a margin of 1, and another one for margins of 0 and 2."""
    none, one, two = (gradients_by_autograd(partial(hinge_of, margin=m), X, y, W, b)[1] for m in (0.0, 1.0, 2.0))
    return all(bool((one - other).abs().max() > 1e-3) for other in (none, two, torch.zeros_like(b)))


def wrong_class_margins(scores: Tensor, y: Tensor) -> Tensor:
    """s_k − s_y + 1 for every example and wrong class k, (N, K−1); positive where the margin is violated."""
    own = F.one_hot(y, scores.shape[1]) > 0
    return (scores - scores[own][:, None] + 1)[~own].reshape(len(y), -1)


def _both_signs(y: Tensor) -> bool:
    return bool((y > 0).any() and (y < 0).any())


def svm_problem(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A two-class problem w (d,), b (), X (N, d), y (N,) with a known mixture of margins y(w·x + b)."""
    N, d, _ = sizes(draw)
    kind = torch.arange(N) % 4
    d += int((kind < 2).sum()) == d  # a mean over features is not to look like one over the violating examples
    w, b, X = draw.normal(d), away_from_zero(draw), draw.normal(N, d)
    y = draw.signs(N)
    while not _both_signs(y[kind < 2]) or any(
        bool(y[among].sum() == 0) for among in (kind < 2, kind == 1, kind == 2, kind > 1)
    ):
        y = draw.signs(N)  # both classes violate the margin, and no sum of labels that matters is 0
    low, high = torch.tensor([[-3.0, 0.1, 1.1, 2.1], [-0.2, 0.9, 1.9, 4.0]], dtype=draw.dtype)[:, kind]
    margins = low + (high - low) * draw.uniform(0, 1, N)
    margins[1], margins[2] = 0.999, 1.001  # on either side of the kink
    return w, b, X + ((margins * y - b - X @ w) / (w @ w))[:, None] * w, y


def apart_from_mean(result: Any, expected: Tensor, *counts: float, name: str = "the result") -> Tensor:
    """`result` as a tensor, times or divided by one of `counts` where that makes it the expected one.

    Also where the divisor of the mean is one of them less 1.

    Whether a mean is taken is a criterion of its own; summing instead should not cost the others too.
    """
    got = expect(result, name).tensor()
    if not expected.ndim and counts[0] > 1 and got.shape == counts[:1]:
        one_each = "There is one number for every example: take their mean."
        raise Unmet(f"Expected {name} of shape (), got shape {tuple(got.shape)}.", "shape", [one_each])
    got = expect(got, name).shape(*expected.shape).tensor()
    off_by_one = [count / (count - 1) for count in counts if count > 1]
    for factor in (1.0, *counts, *(1 / count for count in counts), *off_by_one, *(1 / f for f in off_by_one)):
        if bool((got * factor - expected).norm() <= 1e-3 * expected.norm()):
            return got * factor
    return got


def special_problems(draw: Draw, *results: str) -> list[tuple[tuple[Any, ...], list[Form]]]:
    """Arguments X, y, W, b, λ for criteria on form: one example, one feature, λ = 0; with the forms of the results.

    Of two results one has the form of W and the other one that of b; a single one is a number.
    """
    cases = []
    for what, shape, lam in (
        ("one example", (1, 4, 3), 0.0),
        ("one feature", (9, 1, 2), 0.1),
        ("λ = 0", (9, 4, 3), 0.0),
    ):
        shapes = [shape[1:], shape[2:]] if len(results) == 2 else [()]
        forms = [Form(f"{name} for {what}", of) for name, of in zip(results, shapes, strict=True)]
        cases.append(((*problem(draw, shape), lam), forms))
    return cases


def special_scores(draw: Draw) -> list[tuple[tuple[Any, ...], list[Form]]]:
    """Arguments of a loss of scores for criteria on form: one example, and two classes."""
    one, two = draw.normal(1, 4), draw.normal(9, 2)
    return [
        ((one, draw.integers(0, 4, 1)), [Form("the loss of one example")]),
        ((two, labels(draw, 9, 2)), [Form("the loss for two classes")]),
    ]


Slips = dict[str, Tensor]
"""What usual slips give, each under the sentence that explains it; computed only where something differs."""


def sum_slips(once: Tensor) -> Slips:
    """For a loss with every example twice, which is to be the same as `once`, with each once."""
    return {
        "It doubles with the examples, so it is a sum over them: divide by N, and by nothing else.": 2 * once,
        "It halves: it is divided by N once too often.": once / 2,
    }


# --- Standardising ---------------------------------------------------------------------------------------------------

standardizer = Exercise("standardizer", forbidden=FORBIDDEN)


def features(draw: Draw, constant: int = 0) -> Tensor:
    """Features of different mean and spread, the last `constant` of which have one value each: X (N, d)."""
    N, d, _ = sizes(draw)
    X = draw.normal(N, d) * draw.uniform(0.5, 5, d) + draw.uniform(-9, 9, d)
    return torch.cat([X, draw.uniform(-9, 9, constant).expand(N, -1)], 1)


def of_each(result: Any, wanted: int, other: int, name: str, of: str = "feature") -> Tensor:
    """`result` of shape (wanted,); the length of the other axis, or no axis at all, says what went wrong."""
    got = expect(result, name).tensor()
    told = {
        (): f"There is one number for all; every {of} has its own: give the axis, `dim=0`.",
        (other,): f"There is one number for every example; it is one for every {of}: go along `dim=0`, not `dim=1`.",
    }
    cause = told.get(tuple(got.shape)) if wanted != other and wanted > 1 else None
    if cause:
        raise Unmet(f"Expected {name} of shape ({wanted},), got shape {tuple(got.shape)}.", "shape", [cause])
    return expect(got, name).shape(wanted).tensor()


@standardizer.criterion(points=0.5)
def mean_of_every_feature(student: Student, draw: Draw) -> None:
    """The mean of every feature over the examples, be they many or only one."""
    for X in (features(draw), features(draw)[:1]):
        mean, _ = expect(student.standardizer(X)).parts("mean", "std")
        expected = torch.stack([sum(column) / len(X) for column in X.T])
        slips = {"This is the standard deviation: the mean comes first, `return mean, std`.": X.std(0, correction=0)}
        expect(of_each(mean, len(expected), len(X), "mean"), "mean").close_to(expected, slips=lambda slips=slips: slips)


def std_slips(X: Tensor) -> Slips:
    squares = ((X - X.mean(0)) ** 2).sum(0)
    return {
        "The sum of squares is divided by N − 1, as torch.std does by default; here it is N.": X.std(0),
        "This is the variance: the root is missing.": squares / len(X),
        "The sum of squares is not divided by N.": squares**0.5,
        "This is the mean: the standard deviation comes second, `return mean, std`.": X.mean(0),
    }


@standardizer.criterion(points=1)
def population_std(student: Student, draw: Draw) -> None:
    """The standard deviation of every feature, with the sum of squares divided by N."""
    X = features(draw)
    (_, of_one), (_, std) = (expect(student.standardizer(part)).parts("mean", "std") for part in (X[:1], X))
    of_one = of_each(of_one, X.shape[1], 1, "std")
    expect(of_one).all(~of_one.isnan(), "std of a single example is NaN, as by a division by N − 1 = 0")
    variance = sum((x - sum(X) / len(X)) ** 2 for x in X) / len(X)
    because, slips = "the root of the mean squared distance from the mean", partial(std_slips, X)
    expect(of_each(std, X.shape[1], len(X), "std"), "std").close_to(variance**0.5, because=because, slips=slips)


@standardizer.criterion(points=1)
def constant_features_get_one(student: Student, draw: Draw) -> None:
    """A feature whose entries are all equal gets std 1, whatever its value; with one example every feature does."""
    constant = 40  # so many that rounding leaves a tiny std in some of them
    X = features(draw, constant)
    X[:, -1] = 0.0
    _, std = expect(student.standardizer(X)).parts("mean", "std")
    std = of_each(std, X.shape[1], len(X), "std")
    left = "std of a feature without spread is 0, or the tiny number that rounding or `+ eps` leaves, and is to be 1"
    expect(std).all(std[-constant:].abs() > 1e-3, left)
    expect(std[-constant:], "std of features without spread").close_to(torch.ones(constant, dtype=X.dtype))
    _, std = expect(student.standardizer(X[:1])).parts("mean", "std")
    std = expect(std, "std").shape(X.shape[1]).tensor()
    expect(std.nan_to_num(nan=1.0), "std of a single example").close_to(torch.ones_like(X[0]))  # NaN: population_std


add_contract(
    standardizer,
    lambda draw: (draw.normal(9, 4),),
    [Form("mean", (4,)), Form("std", (4,))],
    unusual=lambda draw: [
        ((draw.normal(1, 4),), [Form("mean of one example", (4,)), Form("std of one example", (4,))]),
        ((draw.normal(9, 1),), [Form("mean of one feature", (1,)), Form("std of one feature", (1,))]),
        (
            (torch.cat([draw.normal(9, 3), draw.normal(1, 2).expand(9, -1)], 1),),
            [Form("mean with constant features", (5,)), Form("std with constant features", (5,))],
        ),
    ],
)


standardize = Exercise("standardize", forbidden=FORBIDDEN)


@standardize.criterion(points=0.5)
def centres(student: Student, draw: Draw) -> None:
    """A set standardised by its own statistics has mean 0 in every feature."""
    X = features(draw)
    result = finite(student.standardize(X, X.mean(0), X.std(0, correction=0)), *X.shape)
    expect(result).all(bool((result != 0).any()), "every entry is 0")
    expect(result.mean(0), "the result's mean").close_to(torch.zeros_like(X[0]), atol=1e-4)


@standardize.criterion(points=0.5)
def scales(student: Student, draw: Draw) -> None:
    """A set standardised by its own statistics has standard deviation 1 in every feature."""
    X = features(draw)
    result = finite(student.standardize(X, X.mean(0), X.std(0, correction=0)), *X.shape)
    # Loose, as in the next criterion: a tiny number added to std is the business of another one.
    expect(result.std(0, correction=0), "the result's standard deviation").close_to(torch.ones_like(X[0]), rtol=1e-4)


def standardize_slips(X: Tensor, mean: Tensor, std: Tensor) -> Slips:
    return {
        "The statistics are those of this X; the arguments `mean` and `std` are to be used.": (X - X.mean(0))
        / X.std(0, correction=0),
        "The division by std is missing.": X - mean,
        "It is divided by the variance: std is the root already.": (X - mean) / std**2,
        "Only `mean` is divided by std: the difference needs parentheses.": X - mean / std,
        "`mean` is added; it is to be subtracted.": (X + mean) / std,
        "It is multiplied by std.": (X - mean) * std,
    }


@standardize.criterion(points=1)
def given_statistics(student: Student, draw: Draw) -> None:
    """The statistics given are used, whatever those of the set are: validation and test sets get the training set's."""
    X = features(draw)
    mean, std = draw.uniform(-9, 9, X.shape[1]), draw.uniform(0.5, 5, X.shape[1])
    std[0] = 1.0  # a feature with this std is no special case
    X[1], X[2, 0] = mean + 1000 * std, 0.0  # nor is an example far from the mean, or an entry of 0
    for part in (X, X[:1]):
        expected = torch.stack([torch.stack([(x[j] - mean[j]) / std[j] for j in range(len(x))]) for x in part])
        slips = partial(standardize_slips, part, mean, std)
        expect(student.standardize(part, mean, std)).close_to(expected, rtol=1e-4, slips=slips)


add_contract(
    standardize,
    lambda draw: (draw.normal(9, 4), draw.normal(4), draw.uniform(0.5, 2, 4)),
    [Form("the result", (9, 4))],
    unusual=lambda draw: [
        ((draw.normal(1, 4), draw.normal(4), draw.uniform(0.5, 2, 4)), [Form("the result for one example", (1, 4))]),
        ((draw.normal(9, 1), draw.normal(1), draw.uniform(0.5, 2, 1)), [Form("the result for one feature", (9, 1))]),
    ],
)


# --- Criteria that several costs and gradients share -----------------------------------------------------------------

Call = Callable[..., Any]  # call(student, X, y, W, b, lam)


def bias_slips(regularised: Tensor) -> Slips:
    return {"b is regularised too; only W is.": regularised}


def add_cost_criteria(exercise: Exercise, problem: Call, call: Call) -> None:
    """Mean and regulariser, for an exercise that returns loss + λ ΣW²."""

    @exercise.criterion(points=0.5)
    def mean_over_examples(student: Student, draw: Draw) -> None:
        """The loss is a mean over examples: with every example twice it stays the same."""
        X, y, W, b = problem(draw)
        once = scalar(call(student, X, y, W, b, 0.0))
        other = scalar(call(student, 2 * X, y, W, b, 0.0))
        expect(once).all(once != other, "the loss is the same whatever the examples are")
        twice = call(student, torch.cat([X, X]), torch.cat([y, y]), W, b, 0.0)
        expect(twice, "the loss with every example twice").close_to(
            once, because="the loss with each once", slips=partial(sum_slips, once)
        )

    @exercise.criterion(points=1)
    def regulariser(student: Student, draw: Draw) -> None:
        """λ adds λ ΣW² to the loss, however many examples there are (b = 0 here)."""
        X, y, W, b = problem(draw)
        zero, squares = torch.zeros_like(b), sum(v**2 for v in W.flatten())
        loss = scalar(call(student, X, y, W, zero, 0.0))
        for lam in (draw.number(0.1, 0.5), 1e-4, 3.0):

            def slips(lam: float = lam) -> Slips:
                return {
                    "The regulariser is λ times the norm of W; the sum of squares is the norm squared.": loss
                    + lam * W.norm(),
                    "The regulariser has the mean of the squares; their sum is asked.": loss
                    + lam * squares / W.numel(),
                    "The regulariser sums the magnitudes |W|; it sums the squares.": loss + lam * W.abs().sum(),
                    "The regulariser sums the weights; it sums their squares.": loss + lam * W.sum(),
                    "λ is squared too.": loss + lam**2 * squares,
                    "Weights are added up before they are squared (`W.T @ W` does so); it is `(W**2).sum()`.": loss
                    + lam * W.sum(-1).square().sum(),
                }

            hints = {"penalty": lam * squares, "sizes": {"N": len(X)}, "slips": slips}
            expect(call(student, X, y, W, zero, lam), "the cost").close_to(loss + lam * squares, **hints)

    @exercise.criterion(points=0.5, contract=True)
    def bias_is_not_regularised(student: Student, draw: Draw) -> None:
        """λ adds the same whatever b is."""
        X, y, W, b = problem(draw)
        lam = draw.number(0.1, 0.5)
        added = [
            scalar(call(student, X, y, W, bias, lam)) - scalar(call(student, X, y, W, bias, 0.0))
            for bias in (torch.zeros_like(b), b)
        ]
        slips = partial(bias_slips, added[0] + lam * b.square().sum())
        expect(added[1], "what λ adds").close_to(added[0], because="what it adds where b = 0", slips=slips)


def add_gradient_criteria(
    exercise: Exercise,
    loss: Call,
    problem: Call,
    call: Call,
    *,
    mean_over_classes: bool = False,
    problem_of_W: Call | None = None,
) -> None:
    """Gradient of b, mean and regulariser, for an exercise that returns the gradients of loss + λ ΣW².

    `problem_of_W` draws the problems by which the exercise's own criteria judge the gradient of W.
    """

    @exercise.criterion(points=1)
    def gradient_of_b(student: Student, draw: Draw) -> None:
        """The gradient of the loss with respect to b (λ = 0; as a mean or as a sum)."""
        X, y, W, b = problem(draw)
        _, expected = gradients_by_autograd(loss, X, y, W, b)
        grad_W, grad_b = expect(call(student, X, y, W, b, 0.0)).parts("grad_W", "grad_b")
        shapes = [tuple(expect(g, "a gradient").tensor().shape) for g in (grad_W, grad_b)]
        if shapes == [b.shape, W.shape]:
            exchanged = "The two are in the wrong order: the gradient of the weights comes first, that of b second."
            raise Unmet(f"Expected grad_b of shape {tuple(b.shape)}, got shape {shapes[1]}.", "shape", [exchanged])
        if b.ndim:
            grad_b = of_each(grad_b, len(b), len(X), "grad_b", of="class")
        got = apart_from_mean(grad_b, expected, *counts(X, b), name="grad_b")
        try:
            expect(got, "grad_b").close_to(expected, because="autograd's result")
        except Unmet:
            if not (gradient_of_W_is_wrong(student, draw) and follows_W(student, X, y, W, b, grad_b)):
                raise

    def counts(X: Tensor, b: Tensor) -> tuple[int, ...]:
        N, K = len(X), b.numel()
        return (N, X.shape[1], K, N * K) if mean_over_classes else (N, X.shape[1])

    def gradient_of_W_is_wrong(student: Student, draw: Draw) -> bool:
        X, y, W, b = (problem_of_W or problem)(draw)
        expected, _ = gradients_by_autograd(loss, X, y, W, b)
        (grad_W, _), (other, _) = (expect(call(student, x, y, W, b, 0.0)).parts("grad_W", "grad_b") for x in (X, 2 * X))
        got = apart_from_mean(grad_W, expected, *counts(X, b), name="grad_W")
        moves = not torch.equal(finite(other, *W.shape, name="grad_W"), finite(grad_W, *W.shape, name="grad_W"))
        return moves and not bool((got - expected).norm() <= 1e-3 * expected.norm())

    def follows_W(student: Student, X: Tensor, y: Tensor, W: Tensor, b: Tensor, grad_b: Any) -> bool:
        """Whether grad_b is what the student's own grad_W has for a feature that is always 1.

        Then one mistake, in what both come from, makes both wrong, and the criteria of W say so.
        """
        longer = torch.cat([X, torch.ones_like(X[:, :1])], 1), torch.cat([W, torch.zeros_like(W[:1])])
        grad_W, _ = expect(call(student, longer[0], y, longer[1], b, 0.0)).parts("grad_W", "grad_b")
        whole = finite(grad_W, *longer[1].shape, name="grad_W")
        return bool((finite(grad_b, *b.shape, name="grad_b") - whole[-1]).norm() < 1e-6 * whole.norm())

    @exercise.criterion(points=0.5, contract=True)
    def mean_over_examples(student: Student, draw: Draw) -> None:
        """The gradients are those of a mean over examples: with every example twice they stay the same."""
        X, y, W, b = problem(draw)
        once = one_vector(call(student, X, y, W, b, 0.0))
        expect(once).all(bool((once != 0).any()), "every entry of both gradients is 0")
        twice = one_vector(call(student, torch.cat([X, X]), torch.cat([y, y]), W, b, 0.0))
        name = "the vector of all entries of grad_W and grad_b, with every example twice,"
        slips = partial(gradient_sum_slips, once, W.numel())
        expect(twice, name).close_to(once, because="the gradients with each once", slips=slips)

    @exercise.criterion(points=0.5)
    def regulariser(student: Student, draw: Draw) -> None:
        """λ adds 2λW to the gradient of W, however many examples there are."""
        X, y, W, b = problem(draw)
        without, _ = expect(call(student, X, y, W, b, 0.0)).parts("grad_W", "grad_b")
        without = finite(without, *W.shape, name="grad_W")
        for lam in (draw.number(0.1, 0.5), 1e-4, 3.0):
            grad_W, _ = expect(call(student, X, y, W, b, lam)).parts("grad_W", "grad_b")
            hints = {"regularised": W, "lam": lam, "sizes": {"N": len(X), "K": b.numel()}}
            expect(grad_W, "grad_W").close_to(without + 2 * lam * W, **hints)

    @exercise.criterion(points=0.5, contract=True)
    def bias_is_not_regularised(student: Student, draw: Draw) -> None:
        """λ adds nothing to the gradient of b."""
        X, y, W, b = problem(draw)
        _, without = expect(call(student, X, y, W, b, 0.0)).parts("grad_W", "grad_b")
        without, lam = finite(without, *b.shape, name="grad_b"), draw.number(0.1, 0.5)
        _, grad_b = expect(call(student, X, y, W, b, lam)).parts("grad_W", "grad_b")
        slips = partial(bias_slips, without + 2 * lam * b)
        expect(grad_b, "grad_b").close_to(without, because="grad_b where λ = 0", slips=slips)


def gradient_sum_slips(once: Tensor, weights: int) -> Slips:
    """As `sum_slips`, for both gradients in one vector, that of W (so many entries) first."""
    W, b = once[:weights], once[weights:]
    slips = {
        "Both double with the examples, so they are sums over them: divide by N, and by nothing else.": 2 * once,
        "Both halve: they are divided by N once too often.": once / 2,
    }
    for name, double, half in (
        ("grad_W", torch.cat([2 * W, b]), torch.cat([W / 2, b])),
        ("grad_b", torch.cat([W, 2 * b]), torch.cat([W, b / 2])),
    ):
        slips[f"{name} doubles with the examples: there the division by N is missing."] = double
        slips[f"{name} halves: it is divided by N once too often, such as by a mean over what has the 1/N already."] = (
            half
        )
    return slips


def one_vector(gradients: Any) -> Tensor:
    """All entries of grad_W, then those of grad_b."""
    parts = expect(gradients).parts("grad_W", "grad_b")
    return torch.cat([expect(g, "a gradient").finite().tensor().flatten() for g in parts])


def gradients_by_autograd(loss: Call, X: Tensor, y: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of loss(X, y, W, b) with respect to W and b."""
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    grad_W, grad_b = torch.autograd.grad(loss(X, y, W, b), [W, b])
    return grad_W, grad_b


# --- Binary SVM ------------------------------------------------------------------------------------------------------


def svm_as_problem(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`svm_problem` in the order X, y, w, b."""
    w, b, X, y = svm_problem(draw)
    return X, y, w, b


def special_svm_problems(draw: Draw) -> list[tuple[str, tuple[Any, ...]]]:
    """Arguments w, b, X, y, λ for criteria on form: one example, one feature, λ = 0."""
    cases = (("one example", 1, 4, 0.1), ("one feature", 9, 1, 0.1), ("λ = 0", 9, 4, 0.0))
    return [(what, (draw.normal(d), draw.normal(), draw.normal(N, d), draw.signs(N), lam)) for what, N, d, lam in cases]


def binary_hinge(X: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The mean hinge loss, one example at a time."""
    return torch.stack([F.relu(1 - label * (w.dot(x) + b)) for x, label in zip(X, y, strict=True)]).mean()


def hinge_slips(X: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Slips:
    agreement, hinge = y * (X @ w + b), binary_hinge(X, y, w, b)
    return {
        "The 1 of max(0, 1 − y(w·x + b)) is missing.": F.relu(-agreement).mean(),
        "max(0, …) is missing: examples far on the right side cost less than nothing.": (1 - agreement).mean(),
        "The sign of y(w·x + b) is wrong: it is the right predictions that cost something.": F.relu(
            1 + agreement
        ).mean(),
        "The hinge is squared.": F.relu(1 - agreement).square().mean(),
        "The mean is over the violating examples; it is over all N.": hinge * len(X) / (agreement < 1).sum(),
        "The sum over the examples is divided by the number of features; it is to be divided by N.": hinge
        * (len(X) / X.shape[1]),
        "b is missing in the score.": F.relu(1 - y * (X @ w)).mean(),
        "y multiplies only x·w: b is a part of the score.": F.relu(1 - y * (X @ w) - b).mean(),
    }


binary_svm_cost = Exercise("binary_svm_cost", forbidden=FORBIDDEN)


@binary_svm_cost.criterion(points=1)
def hinge_loss(student: Student, draw: Draw) -> None:
    """The hinge loss max(0, 1 − y(w·x + b)) of the examples (λ = 0; as a mean or as a sum)."""
    for scale in (1.0, 30.0):  # with the larger one some margins are violated by far
        w, b, X, y = svm_problem(draw)
        w, b = scale * w, scale * b
        expected = binary_hinge(X, y, w, b)
        loss = apart_from_mean(student.binary_svm_cost(w, b, X, y, 0.0), expected, len(X))
        expect(loss, "the loss").close_to(expected, slips=partial(hinge_slips, X, y, w, b))


add_cost_criteria(
    binary_svm_cost, svm_as_problem, lambda student, X, y, w, b, lam: student.binary_svm_cost(w, b, X, y, lam)
)
add_contract(
    binary_svm_cost,
    lambda draw: (draw.normal(4), draw.normal(), draw.normal(9, 4), draw.signs(9), 0.1),
    [Form("the cost", (), scalar="tensor")],
    unusual=lambda draw: [
        (arguments, [Form(f"the cost for {what}", (), scalar="tensor")])
        for what, arguments in special_svm_problems(draw)
    ],
)


def hinge_gradient_slips(X: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Slips:
    violating = y * (X @ w + b) < 1

    def gradient(loss: Call) -> Tensor:
        return gradients_by_autograd(loss, X, y, w, b)[0]

    return {
        "Every example counts; only those that violate their margin may.": gradient(
            lambda X, y, w, b: (1 - y * (X @ w + b)).mean()
        ),
        "The factor y is missing.": gradient(lambda X, y, w, b: -(X @ w + b)[violating].sum() / len(X)),
        "The mean is over the violating examples; it is over all N.": gradient(binary_hinge)
        * (len(X) / violating.sum()),
        "Only misclassified examples count; those inside the margin, 0 < y(w·x + b) < 1, are to count too.": gradient(
            lambda X, y, w, b: F.relu(-y * (X @ w + b)).mean()
        ),
        "The examples that keep their margin count; it is those that violate it.": gradient(
            lambda X, y, w, b: (1 - y * (X @ w + b))[~violating].sum() / len(X)
        ),
    }


binary_svm_gradients = Exercise("binary_svm_gradients", forbidden=FORBIDDEN)


@binary_svm_gradients.criterion(points=1)
def gradient_of_w(student: Student, draw: Draw) -> None:
    """The gradient of the hinge loss with respect to w (λ = 0; as a mean or as a sum)."""
    for _ in range(2):
        w, b, X, y = svm_problem(draw)
        expected, _ = gradients_by_autograd(binary_hinge, X, y, w, b)
        grad_w, _ = expect(student.binary_svm_gradients(w, b, X, y, 0.0)).parts("grad_w", "grad_b")
        grad_w = apart_from_mean(grad_w, expected, len(X), name="grad_w")
        slips = partial(hinge_gradient_slips, X, y, w, b)
        expect(grad_w, "grad_w").close_to(expected, because="autograd's result", slips=slips)


add_gradient_criteria(
    binary_svm_gradients,
    binary_hinge,
    svm_as_problem,
    lambda student, X, y, w, b, lam: student.binary_svm_gradients(w, b, X, y, lam),
)
add_contract(
    binary_svm_gradients,
    lambda draw: (draw.normal(4), draw.normal(), draw.normal(9, 4), draw.signs(9), 0.1),
    [Form("grad_w", (4,)), Form("grad_b")],
    unusual=lambda draw: [
        (arguments, [Form(f"grad_w for {what}", tuple(arguments[0].shape)), Form(f"grad_b for {what}")])
        for what, arguments in special_svm_problems(draw)
    ],
)


# --- Scores, softmax, cross-entropy ----------------------------------------------------------------------------------

linear_scores = Exercise("linear_scores", forbidden=FORBIDDEN)


@linear_scores.criterion(points=1)
def weighted_sums(student: Student, draw: Draw) -> None:
    """Score k of an example is the sum of its features, weighted by column k of W (b = 0 here)."""
    X, _, W, b = problem(draw)
    X[0] = 1000 * X[0]  # scores may be large
    expected = torch.stack([torch.stack([sum(x * column) for column in W.T]) for x in X])
    expect(student.linear_scores(X, W, torch.zeros_like(b))).close_to(expected)


@linear_scores.criterion(points=0.5)
def bias_is_added(student: Student, draw: Draw) -> None:
    """b is added to the scores of every example."""
    X, _, W, b = problem(draw)
    without = finite(student.linear_scores(X, W, torch.zeros_like(b)), len(X), len(b))
    slips = {"b is missing.": without, "b is subtracted.": without - b}
    expect(student.linear_scores(X, W, b)).close_to(
        torch.stack([row + b for row in without]), because="the scores where b = 0, plus b", slips=lambda: slips
    )


add_contract(
    linear_scores,
    lambda draw: (draw.normal(9, 4), draw.normal(4, 3), draw.normal(3)),
    [Form("the result", (9, 3))],
    unusual=lambda draw: [
        ((draw.normal(1, 4), draw.normal(4, 3), draw.normal(3)), [Form("the result for one example", (1, 3))]),
        ((draw.normal(9, 1), draw.normal(1, 2), draw.normal(2)), [Form("the result for one feature", (9, 2))]),
    ],
)


softmax = Exercise("softmax", forbidden=FORBIDDEN)


def is_over_examples(student: Student, draw: Draw) -> bool:
    """Whether the softmax is taken over the examples, which follows_the_exponentials says."""
    scores = draw.normal(5, 3)
    result = expect(student.softmax(scores)).shape(5, 3).tensor().double()
    return torch.allclose(result, torch.softmax(scores, 0), rtol=1e-6)


def larger_scores_win(student: Student, scores: Tensor, probs: Tensor) -> None:
    """Raising a score raises its probability; without this, equal probabilities would pass as well-behaved."""
    raised = scores.clone()
    raised[0, 0] += 1
    now = expect(student.softmax(raised)).shape(*scores.shape).tensor()
    expect(now).all(now[0, 0] > probs[0, 0], "a larger score does not give a larger probability")


WHOLE_COLUMNS = (
    "`G[:, y] -= 1` subtracts from whole columns; `G[torch.arange(len(y)), y] -= 1` from one entry of each row."
)
OVER_EXAMPLES = "The softmax is taken over the examples of a column (dim 0), not over the classes of a row (dim 1)."


def ratio_slips(scores: Tensor) -> Slips:
    columns = torch.softmax(scores, 0)
    return {
        OVER_EXAMPLES: columns / columns[:, :1],
        "The exponentials are those of −scores.": torch.exp(scores[:, :1] - scores),
        "The scores are divided by their sum; their exponentials are to be.": scores / scores[:, :1],
        "The base is 2; it is e.": torch.exp2(scores - scores[:, :1]),
        "This is the logarithm of the softmax.": torch.log_softmax(scores, 1) / torch.log_softmax(scores, 1)[:, :1],
    }


@softmax.criterion(points=1)
def follows_the_exponentials(student: Student, draw: Draw) -> None:
    """Within a row the probabilities are in the ratio of the exponentials of the scores."""
    N, _, K = sizes(draw)
    for ties in (False, True):
        scores = draw.normal(N, K)
        if ties:  # scores that are equal, all of a row's or only the largest ones
            scores[0], scores[1, :2] = scores[0, 0], scores[1].max()
        probs = expect(student.softmax(scores)).shape(N, K).tensor()
        ratio, slips = torch.exp(scores - scores[:, :1]), partial(ratio_slips, scores)
        expect(probs / probs[:, :1], "the ratio p[i, k] / p[i, 0]").close_to(ratio, slips=slips)


def row_sum_slips(scores: Tensor, probs: Tensor) -> Slips:
    """What a wrong `probs` sums to in every row."""
    return {
        OVER_EXAMPLES: torch.softmax(scores, 0).sum(1),
        "The exponentials are not divided by their sum.": scores.exp().sum(1),
        "The exponentials of the shifted scores are not divided by their sum.": probs.sum(1) / probs.amax(1),
        "All entries of the matrix together sum to one; every row is to (`dim=1, keepdim=True`).": probs.sum(1)
        / probs.sum(),
    }


@softmax.criterion(points=0.5, contract=True)
def rows_sum_to_one(student: Student, draw: Draw) -> None:
    """Every row of the result is non-negative and sums to one."""
    N, _, K = sizes(draw)
    scores = draw.normal(N, K)
    probs = expect(student.softmax(scores)).shape(N, K).tensor()
    expect(probs).all(probs >= 0, "a probability is negative")
    if is_over_examples(student, draw):
        return
    slips = partial(row_sum_slips, scores, probs.double())
    expect(probs.sum(1), "the sum of a row").close_to(torch.ones(N, dtype=torch.float64), slips=slips)


@softmax.criterion(points=1)
def no_overflow(student: Student, draw: Draw) -> None:
    """Scores around 1000 and −1000 do no harm: adding a number to all scores changes nothing."""
    N, _, K = sizes(draw)
    scores = draw.normal(N, K)
    usual, alike = finite(student.softmax(scores), N, K), torch.full_like(scores, 1 / K)
    for shift in (1000.0, -1000.0):
        shifted = student.softmax(scores + shift)
        cut = {"The scores were cut off, so all classes are alike: subtract the row's largest score instead.": alike}
        expect(shifted, f"the result for scores around {shift:g}").close_to(usual, slips=lambda cut=cut: cut)
    apart = torch.where(torch.arange(N * K).reshape(N, K) % K == draw.integer(0, K), scores + 1000, scores - 1000)
    expect(student.softmax(apart), "the result for scores of 1000 beside −1000").finite()
    larger_scores_win(student, scores, usual)


add_contract(
    softmax,
    lambda draw: (draw.normal(5, 3),),
    [Form("the result", (5, 3))],
    unusual=lambda draw: [
        ((draw.normal(1, 3),), [Form("the result for one row", (1, 3))]),
        ((draw.normal(5, 2),), [Form("the result for two classes", (5, 2))]),
    ],
)


cross_entropy = Exercise("cross_entropy", forbidden=FORBIDDEN)


def cross_entropy_slips(scores: Tensor, y: Tensor) -> Slips:
    of_label = torch.softmax(scores, 1).gather(1, y[:, None])
    loss, log_sum = F.cross_entropy(scores, y), torch.logsumexp(scores, 1).mean()
    return {
        OVER_EXAMPLES: F.nll_loss(torch.log_softmax(scores, 0), y),
        "This is the mean probability: minus its logarithm is asked.": of_label.mean(),
        "This is minus the mean probability: the logarithm is missing.": -of_label.mean(),
        "This is the logarithm of the mean; the mean of the logarithms is asked.": -of_label.mean().log(),
        "The logarithm has base 2; the natural one is asked.": loss / math.log(2),
        "The logarithm has base 10; the natural one is asked.": loss / math.log(10),
        "Every class adds −log p; only the true one does.": -torch.log_softmax(scores, 1).sum(1).mean(),
        "The mean is over all classes; only the true one's −log p counts.": -torch.log_softmax(scores, 1).mean(),
        "`scores[:, y]` takes whole columns; `scores[torch.arange(len(y)), y]` takes one entry of each row.": (
            log_sum - scores[:, y].mean()
        ),
        "The largest score is subtracted in the exponent, but not added to the logarithm again.": loss
        - scores.amax(1).mean(),
        "The softmax is taken twice.": F.cross_entropy(torch.softmax(scores, 1), y),
        "The score of the true class is not subtracted.": log_sum,
        "Labels count from 0: no 1 is to be subtracted.": F.cross_entropy(scores, (y - 1) % scores.shape[1]),
    }


@cross_entropy.criterion(points=1)
def minus_log_probability(student: Student, draw: Draw) -> None:
    """The loss is −log p of the true class, p being the softmax of the scores (as a mean or as a sum)."""
    N, _, K = sizes(draw)
    for ties in (False, True):
        scores, y = draw.normal(N, K, scale=2), labels(draw, N, K)
        if ties:  # scores that are equal, all of a row's or only the largest ones
            scores[0], scores[1, :2] = scores[0, 0], scores[1].max()
        probs = torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)
        expected = -torch.stack([torch.log(p[label]) for p, label in zip(probs, y, strict=True)]).mean()
        loss = apart_from_mean(student.cross_entropy(scores, y), expected, N)
        slips = partial(cross_entropy_slips, scores, y)
        expect(loss, "the loss").close_to(expected, sizes={"K": K}, slips=slips)


@cross_entropy.criterion(points=0.5)
def mean_over_examples(student: Student, draw: Draw) -> None:
    """The loss is a mean over examples: with every example twice it stays the same."""
    N, _, K = sizes(draw)
    scores, y = draw.normal(N, K), labels(draw, N, K)
    once, other = scalar(student.cross_entropy(scores, y)), scalar(student.cross_entropy(2 * scores, y))
    expect(once).all(once != other, "the loss is the same whatever the scores are")
    twice = student.cross_entropy(torch.cat([scores, scores]), torch.cat([y, y]))
    expect(twice, "the loss with every example twice").close_to(
        once, because="the loss with each once", slips=partial(sum_slips, once)
    )


@cross_entropy.criterion(points=0.5)
def large_scores_do_not_overflow(student: Student, draw: Draw) -> None:
    """Scores around 1000 and −1000 do no harm: adding a number to all scores changes nothing."""
    N, _, K = sizes(draw)
    scores, y = draw.normal(N, K), labels(draw, N, K)
    usual = scalar(student.cross_entropy(scores, y))
    other = scalar(student.cross_entropy(scores, (y + 1) % K))
    expect(usual).all(usual != other, "the loss does not depend on the labels")
    for shift in (1000.0, -1000.0):
        expect(student.cross_entropy(scores + shift, y), f"the loss for scores around {shift:g}").close_to(usual)
    ahead = torch.where(F.one_hot(y, K) > 0, scores + 1000, scores - 1000)
    expect(student.cross_entropy(ahead, y), "the loss where the true class is far ahead").close_to(0.0, atol=1e-3)


def cut_off_slips(loss: Tensor) -> Slips:
    """A loss that is −ln of a power of ten is the logarithm of somebody's small number."""
    power = -float(loss) / math.log(10)
    cut = (
        "A small number keeps p away from 0, and sets a limit to the loss: put the logarithm into the formula instead."
    )
    return {cut: loss} if power < -4 and abs(power - round(power)) < 1e-6 else {}


@cross_entropy.criterion(points=1)
def no_logarithm_of_zero(student: Student, draw: Draw) -> None:
    """Where p of the true class is too small for a float, the loss is large but finite and right."""
    N, _, K = sizes(draw)
    scores, y = draw.normal(N, K), labels(draw, N, K)
    scores = torch.where(F.one_hot(y, K) > 0, scores - 690, scores + 690)  # p is about exp(−1380)
    expected = F.cross_entropy(scores, y)
    other_bases = math.log(2), math.log(10)  # the business of another criterion, as is the mean
    loss = apart_from_mean(student.cross_entropy(scores, y), expected, N, K, N * K, *other_bases)
    slips = partial(cut_off_slips, loss)
    expect(loss, "the loss").close_to(expected, because="from the scores it can be had without log(0)", slips=slips)


add_contract(
    cross_entropy,
    lambda draw: (draw.normal(9, 4), labels(draw, 9, 4)),
    [Form("the loss")],
    unusual=special_scores,
)


# --- The classifier: cost, accuracy, gradients -----------------------------------------------------------------------


def cross_entropy_of(X: Tensor, y: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """The mean cross-entropy of a linear classifier, by PyTorch."""
    return F.cross_entropy(X @ W + b, y)


cost = Exercise("cost", forbidden=FORBIDDEN)


@cost.criterion(points=1)
def loss_of_the_scores(student: Student, draw: Draw) -> None:
    """Without regulariser (λ = 0) the cost is the cross-entropy of the scores (as a mean or as a sum)."""
    for _ in range(2):
        X, y, W, b = problem(draw)
        expected = cross_entropy_of(X, y, W, b)
        loss = apart_from_mean(student.cost(X, y, W, b, 0.0), expected, len(X), name="the cost")
        expect(loss, "the cost").close_to(expected, slips=partial(cross_entropy_slips, X @ W + b, y))


add_cost_criteria(cost, problem, lambda student, X, y, W, b, lam: student.cost(X, y, W, b, lam))
add_contract(
    cost,
    lambda draw: (*problem(draw, (9, 4, 3)), 0.1),
    [Form("the cost")],
    unusual=lambda draw: special_problems(draw, "the cost"),
)


accuracy = Exercise("accuracy", forbidden=FORBIDDEN)


def partly_right(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """A classifier that is right on a known share of the examples, its bias zero: X, y, W, b, share."""
    X, y, W, b = problem(draw)
    W = W * torch.logspace(-0.6, 0.6, W.shape[1], dtype=W.dtype)  # templates of different lengths
    order = (X @ W).argsort(1)  # from the smallest score to the largest
    right = draw.integer(3, 6)
    place = draw.permutation(len(X))
    y = torch.where(place < right, order[:, -1], order[:, -2])  # the others: second to the largest
    y[place == right] = order[place == right, 0]  # but for one, the smallest
    return X, y, W, torch.zeros_like(b), right / len(X)


def accuracy_slips(share: float, y: Tensor, scores: Tensor) -> Slips:
    (N, K), predicted = scores.shape, scores.argmax(1)
    given = {
        "This is a percentage; a share between 0 and 1 is asked.": 100 * share,
        "This is the number of right predictions; it is to be divided by N.": N * share,
        "This is the share of wrong predictions.": 1 - share,
        "This is the share whose own class has the smallest score, not the largest.": 1 / N,
        "The number of right predictions is divided by K; it is to be divided by N.": share * N / K,
        "Every prediction is compared with every label, not with its own.": (predicted[:, None] == y)
        .double()
        .mean()
        .item(),
    }
    return {sentence: torch.tensor(value, dtype=torch.float64) for sentence, value in given.items()}


@accuracy.criterion(points=1)
def share_of_correct_predictions(student: Student, draw: Draw) -> None:
    """The share of examples, between 0 and 1, whose largest score is that of their class (b = 0 here)."""
    for _ in range(2):
        X, y, W, b, share = partly_right(draw)
        got = student.accuracy(X, y, W, b)
        expect(got, "the accuracy").close_to(share, slips=partial(accuracy_slips, share, y, X @ W))


@accuracy.criterion(points=0.5)
def bias_takes_part(student: Student, draw: Draw) -> None:
    """b counts: it is as good as a weight on one more feature that is always 1."""
    while True:
        X, _, W, b = problem(draw)
        b = 2 * b
        scores = X @ W + b
        y = scores.argmax(1)
        if bool(((X @ W).argmax(1) != y).any()):
            break
    longer = torch.cat([X, torch.ones_like(X[:, :1])], 1), torch.cat([W, b[None]]), torch.zeros_like(b)
    expected = scalar(student.accuracy(longer[0], y, *longer[1:]), "the accuracy")
    other = scalar(student.accuracy(longer[0], scores.argmin(1), *longer[1:]), "the accuracy")
    expect(expected).all(expected != other, "the accuracy is the same whatever the labels are")
    expect(student.accuracy(X, y, W, b), "the accuracy").close_to(expected)


add_contract(
    accuracy,
    lambda draw: problem(draw, (9, 4, 3)),
    [Form("the accuracy", (), scalar="float")],
)


def gradient_slips(X: Tensor, y: Tensor, W: Tensor, b: Tensor) -> Slips:
    scores, one_hot = X @ W + b, F.one_hot(y, len(b))

    def gradient(loss: Call) -> Tensor:
        return gradients_by_autograd(loss, X, y, W, b)[0]

    def from_scores(grad_scores: Tensor) -> Tensor:
        return gradient(lambda X, y, W, b: ((X @ W + b) * grad_scores).sum() / len(X))

    return {
        "The one-hot labels are not subtracted from the probabilities.": from_scores(torch.softmax(scores, 1)),
        OVER_EXAMPLES: from_scores(torch.softmax(scores, 0) - one_hot),
        "The scores take the place of the probabilities.": from_scores(scores - one_hot),
        "Only the true class's score gets a gradient; every score has one.": from_scores(
            (torch.softmax(scores, 1) - 1) * one_hot
        ),
        WHOLE_COLUMNS: from_scores(torch.softmax(scores, 1) - 1),
    }


cross_entropy_gradients = Exercise("cross_entropy_gradients", forbidden=FORBIDDEN)


@cross_entropy_gradients.criterion(points=1)
def gradient_of_W(student: Student, draw: Draw) -> None:
    """The gradient of the cross-entropy with respect to W (λ = 0; as a mean or as a sum)."""
    for _ in range(2):
        X, y, W, b = problem(draw)
        expected, _ = gradients_by_autograd(cross_entropy_of, X, y, W, b)
        grad_W, _ = expect(student.cross_entropy_gradients(X, y, W, b, 0.0)).parts("grad_W", "grad_b")
        grad_W = apart_from_mean(grad_W, expected, len(X), name="grad_W")
        slips = partial(gradient_slips, X, y, W, b)
        expect(grad_W, "grad_W").close_to(expected, because="autograd's result", sizes={"K": len(b)}, slips=slips)


add_gradient_criteria(
    cross_entropy_gradients,
    cross_entropy_of,
    problem,
    lambda student, X, y, W, b, lam: student.cross_entropy_gradients(X, y, W, b, lam),
)
add_contract(
    cross_entropy_gradients,
    lambda draw: (*problem(draw, (9, 4, 3)), 0.1),
    [Form("grad_W", (4, 3)), Form("grad_b", (3,))],
    unusual=lambda draw: special_problems(draw, "grad_W", "grad_b"),
)


# --- Multi-class hinge loss ------------------------------------------------------------------------------------------


def hinge_of(X: Tensor, y: Tensor, W: Tensor, b: Tensor, margin: float = 1.0) -> Tensor:
    """The mean multi-class hinge loss of a linear classifier, one margin at a time."""
    return F.relu(wrong_class_margins(X @ W + b, y) - 1 + margin).sum() / len(X)


multiclass_hinge = Exercise("multiclass_hinge", forbidden=FORBIDDEN)


def well_separated(draw: Draw, N: int, K: int) -> tuple[Tensor, Tensor]:
    """Scores (N, K) and labels (N,): every true class leads by more than 2."""
    y = labels(draw, N, K)
    return torch.where(F.one_hot(y, K) > 0, draw.uniform(3, 5, N, K), draw.uniform(-1, 1, N, K)), y


def multiclass_hinge_slips(X: Tensor, y: Tensor, W: Tensor, b: Tensor, constant: Tensor) -> Slips:
    """`constant` is what the loss of well separated scores came to."""
    margins, N, K = wrong_class_margins(X @ W + b, y), len(X), len(b)
    return {
        "The margin of 1 is missing.": hinge_of(X, y, W, b, margin=0.0),
        "Only an example's largest violation counts; every wrong class adds its own.": F.relu(margins.amax(1)).mean(),
        "This is the number of violations; their sizes are to be added.": (margins > 0).sum() / N,
        "The violations are squared.": F.relu(margins).square().sum() / N,
        "The true and the wrong class are exchanged: it is s_k − s_y + 1.": F.relu(2 - margins).sum() / N - constant,
        "The margin of 1 is subtracted; it is added.": F.relu(margins - 2).sum() / N,
        "max(0, …) is taken of an example's sum; it is taken of every wrong class.": F.relu(margins.sum(1)).mean(),
        "The sum over classes is divided by K − 1; only examples are averaged.": hinge_of(X, y, W, b) / (K - 1),
    }


@multiclass_hinge.criterion(points=1)
def violated_margins(student: Student, draw: Draw) -> None:
    """Every wrong class adds max(0, s_k − s_y + 1) (as a mean or as a sum over examples)."""
    for ties in (False, True):
        X, y, W, b = hinge_problem(draw)
        if ties:  # all scores of an example are equal, or those of its class and of one more
            X, W, b = X @ W + b, torch.eye(len(b), dtype=X.dtype), torch.zeros_like(b)
            X[0], X[1, (y[1] + 1) % len(b)] = X[0, 0], X[1, y[1]]
            X[2, y[2]] -= 200.0  # and a margin may be violated by far
        expected = hinge_of(X, y, W, b)
        # A constant added to every loss is the business of another criterion.
        constant = scalar(student.multiclass_hinge(*well_separated(draw, len(X), len(b))))
        loss = apart_from_mean(scalar(student.multiclass_hinge(X @ W + b, y)) - constant, expected, len(X))
        slips = partial(multiclass_hinge_slips, X, y, W, b, constant)
        name = "the loss, less that of well separated scores"
        expect(loss, name).close_to(expected, sizes={"K": len(b)}, slips=slips)


@multiclass_hinge.criterion(points=0.5, contract=True)
def kept_margins_cost_nothing(student: Student, draw: Draw) -> None:
    """Where the true class leads by more than the margin the loss is 0: the true class itself does not count."""
    N, _, K = sizes(draw)
    loss = student.multiclass_hinge(*well_separated(draw, N, K))
    counted = "The true class counts too: its own max(0, s_y − s_y + 1) is 1 for every example."
    expect(loss, "the loss").close_to(0.0, atol=1e-9, slips=lambda: {counted: torch.tensor(1.0)})


@multiclass_hinge.criterion(points=0.5, name="mean_over_examples")
def hinge_mean_over_examples(student: Student, draw: Draw) -> None:
    """The loss is a mean over examples: with every example twice it stays the same."""
    X, y, W, b = hinge_problem(draw)
    scores = X @ W + b
    once, other = scalar(student.multiclass_hinge(scores, y)), scalar(student.multiclass_hinge(2 * scores, y))
    expect(once).all(once != other, "the loss is the same whatever the scores are")
    twice = student.multiclass_hinge(torch.cat([scores, scores]), torch.cat([y, y]))
    expect(twice, "the loss with every example twice").close_to(
        once, because="the loss with each once", slips=partial(sum_slips, once)
    )


add_contract(
    multiclass_hinge,
    lambda draw: (draw.normal(9, 4), labels(draw, 9, 4)),
    [Form("the loss")],
    unusual=special_scores,
)


def true_class_slips(X: Tensor, y: Tensor, W: Tensor, b: Tensor) -> Slips:
    """For the column of the only class that occurs."""
    active = (wrong_class_margins(X @ W + b, y) > 0).sum(1).to(X.dtype)  # (N,)
    return {
        "The true class's entry is always −1; it is minus the number of active classes.": -X.mean(0),
        "The true class counts among the active ones: their number is one too large.": -(active + 1) @ X / len(X),
        "The true class's entry is 0; it is minus the number of active classes.": 0 * X[0],
        "The true class's entry has the wrong sign.": active @ X / len(X),
    }


def multiclass_hinge_gradient_slips(X: Tensor, y: Tensor, W: Tensor, b: Tensor, columns: int | slice) -> Slips:
    def gradient(loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Of the summed `loss` of all margins, (N, K−1) → any shape, divided by N."""
        return gradients_by_autograd(
            lambda X, y, W, b: loss(wrong_class_margins(X @ W + b, y)).sum() / len(X), X, y, W, b
        )[0][:, columns]

    return {
        "The size of the violation is used; the slope of max(0, m) is 1 wherever m > 0.": gradient(
            lambda margins: F.relu(margins).square() / 2
        ),
        "Every wrong class counts; only those whose margin is violated may.": gradient(lambda margins: margins),
        "The margin of 1 is missing.": gradient(lambda margins: F.relu(margins - 1)),
        "An example counts once, however many margins it violates; it is to count once for each.": gradient(
            lambda margins: F.relu(margins.amax(1))
        ),
    }


multiclass_hinge_gradients = Exercise("multiclass_hinge_gradients", forbidden=FORBIDDEN)


@multiclass_hinge_gradients.criterion(points=1)
def columns_of_wrong_classes(student: Student, draw: Draw) -> None:
    """The gradient of the columns of W that belong to wrong classes (λ = 0; as a mean or as a sum)."""
    for trained in (True, True, False):
        X, y, W, b = hinge_problem(draw, one_class=True)  # every example belongs to the last class
        if not trained:  # all scores are equal, so every margin is violated
            W, b = torch.zeros_like(W), torch.zeros_like(b)
        expected, _ = gradients_by_autograd(hinge_of, X, y, W, b)
        grad_W, _ = expect(student.multiclass_hinge_gradients(X, y, W, b, 0.0)).parts("grad_W", "grad_b")
        grad_W = expect(grad_W, "grad_W").shape(*W.shape).tensor()[:, :-1]
        expected = expected[:, :-1]
        grad_W = apart_from_mean(grad_W, expected, len(X))
        slips = partial(multiclass_hinge_gradient_slips, X, y, W, b, slice(None, -1))
        expect(grad_W, "grad_W[:, wrong classes]").close_to(expected, because="autograd's result", slips=slips)


@multiclass_hinge_gradients.criterion(points=1)
def column_of_the_true_class(student: Student, draw: Draw) -> None:
    """The gradient of the column of W that belongs to the true class (λ = 0; as a mean or as a sum)."""
    X, y, W, b = hinge_problem(draw, one_class=True)  # every example belongs to the last class
    expected, _ = gradients_by_autograd(hinge_of, X, y, W, b)
    grad_W, _ = expect(student.multiclass_hinge_gradients(X, y, W, b, 0.0)).parts("grad_W", "grad_b")
    grad_W = expect(grad_W, "grad_W").shape(*W.shape).tensor()[:, -1]
    grad_W = apart_from_mean(grad_W, expected[:, -1], len(X))

    def slips() -> Slips:
        return true_class_slips(X, y, W, b) | multiclass_hinge_gradient_slips(X, y, W, b, -1)

    expect(grad_W, "grad_W[:, true class]").close_to(expected[:, -1], because="autograd's result", slips=slips)


add_gradient_criteria(
    multiclass_hinge_gradients,
    hinge_of,
    hinge_problem,
    lambda student, X, y, W, b, lam: student.multiclass_hinge_gradients(X, y, W, b, lam),
    problem_of_W=partial(hinge_problem, one_class=True),
)
add_contract(
    multiclass_hinge_gradients,
    lambda draw: (*problem(draw, (9, 4, 3)), 0.1),
    [Form("grad_W", (4, 3)), Form("grad_b", (3,))],
    unusual=lambda draw: special_problems(draw, "grad_W", "grad_b"),
)


# --- Mini-batch gradient descent -------------------------------------------------------------------------------------

minibatch_gd = Exercise("minibatch_gd", forbidden=FORBIDDEN)


def batch_in(positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments X, y, W, b and lam of a call of `gradients`, by name."""
    batch = dict(zip(("X", "y", "W", "b", "lam"), positional, strict=False)) | named
    for name in "XyWb":
        if not isinstance(batch.get(name), Tensor):
            raise Unmet(f"gradients(X, y, W, b, lam) was called without a tensor {name}.", "type")
    if batch["X"].ndim != 2 or batch["y"].shape != batch["X"].shape[:1]:
        shapes = f"X of shape {tuple(batch['X'].shape)} and y of shape {tuple(batch['y'].shape)}"
        raise Unmet(f"gradients was called with {shapes}; a batch has shapes (n, d) and (n,).", "shape")
    return batch


@dataclass
class RandomGradients:
    """A gradient function that has nothing to do with a loss.

    Each example, with its label, has random numbers of its own, and a batch gets the sum of its examples' numbers
    (growing with time if `growing`).
    """

    X: Tensor
    y: Tensor
    lam: float
    growing: float
    of_W: Tensor  # (N, d, K)
    of_b: Tensor  # (N, K)
    weights: Tensor  # (N,)
    calls: int = 0

    def examples(self, batch: Mapping[str, Any]) -> Tensor:
        """Which of the examples a batch consists of."""
        rows, labels = batch["X"][:, :1] == self.X[:, 0], batch["y"][:, None] == self.y
        same = rows if bool(rows.any(1).all()) else labels  # X was changed: go by the labels
        if not bool(same.any(1).all()):
            raise Unmet("gradients was called with examples that are not among those given.")
        return same.long().argmax(1)

    def __call__(self, *positional: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """The gradients of W and b for a batch."""
        batch = batch_in(positional, named)
        return self.of(batch, self.examples(batch))

    def of(self, batch: Mapping[str, Any], examples: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients for a batch that consists of these examples."""
        labels = (batch["y"][:, None] == self.y).long().argmax(1)
        lam = self.lam if isinstance(batch.get("lam"), float) and batch["lam"] == self.lam else 0.0
        weights = self.weights[labels] * (1 + self.growing * self.calls)
        self.calls += 1
        W, b = (weights @ (n[examples] + lam).flatten(1) for n in (self.of_W, self.of_b))
        return W.reshape(self.of_W.shape[1:]), b


@prop
def random_gradients(*bound: Any) -> RandomGradients:
    """The given gradient function."""
    return RandomGradients(*bound)


@dataclass
class Training:
    """One call of `minibatch_gd`, with a gradient function that notes how it is called."""

    draw: Draw
    N: int
    batch_size: int
    epochs: int
    growing: float = 0.0
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        d, K = self.draw.integer(3, 6), self.N + self.draw.integer(6, 9)
        self.X = torch.cat([1.0 + self.draw.permutation(self.N)[:, None], self.draw.normal(self.N, d - 1)], 1)
        self.y = self.draw.permutation(self.N)  # no two examples share a label, or a first feature
        self.W, self.b = self.draw.normal(d, K), self.draw.normal(K)
        self.lam, self.lr = self.draw.number(0.1, 0.5), self.draw.number(0.01, 0.1)
        numbers = self.draw.normal(self.N, d, K), self.draw.normal(self.N, K), self.draw.uniform(0.5, 2, self.N)
        self._numbers = self.X, self.y, self.lam, self.growing, *numbers

    def run(self, student: Student, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Call the student's function; returns its W and b."""
        given = {"lam": self.lam, "lr": self.lr, "batch_size": self.batch_size, "epochs": self.epochs}
        self._gradients = random_gradients(*self._numbers)
        gradients = Given(self.gradients, random_gradients, self._numbers)
        generator = generator or self.draw.generator()
        result = student.minibatch_gd(self.X, self.y, self.W, self.b, gradients, **given, generator=generator)
        if self.epochs > 1 and not self.calls:
            cause = "The function that is given as `gradients` is to be called, and no other in its place."
            raise Unmet(f"gradients was never called in {self.epochs} epochs.", causes=[cause])
        W, b = expect(result).parts("W", "b")
        return finite(W, *self.W.shape, name="W"), finite(b, *self.b.shape, name="b")

    def gradients(self, *positional: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """What the student's function is given as `gradients`."""
        batch = batch_in(positional, named)
        examples = self._gradients.examples(batch)
        W, b = self._gradients.of(batch, examples)
        self.calls.append({**batch, "positional": len(positional), "examples": examples, "answer": (W, b)})
        return W.clone(), b.clone()

    @property
    def batches(self) -> list[dict[str, Any]]:
        """The calls, less those that repeat the one before them although no step, or half a step, came between."""
        batches = self.calls[:1]
        for before, call in pairwise(self.calls):
            stood = torch.equal(before["W"], call["W"]) or torch.equal(before["b"], call["b"])
            if not (stood and torch.equal(before["examples"], call["examples"])):
                batches.append(call)
        return batches

    @property
    def batch_sizes(self) -> list[int]:
        """The number of examples of every batch."""
        return [len(c["examples"]) for c in self.batches]

    @property
    def ignores_batch_size(self) -> bool:
        """Whether every step took all examples, which batches_have_the_given_size says."""
        return self.batch_size < self.N and bool(self.calls) and set(self.batch_sizes) == {self.N}

    def expect_sizes(self, *expected: int) -> None:
        """The first batches have these sizes."""
        if self.ignores_batch_size:
            return
        got = self.batch_sizes[: len(expected)]
        expect(got).all(got == list(expected), f"{self.N} examples, batch_size {self.batch_size}: batches of {got}")

    @property
    def used(self) -> Tensor:
        """The examples in the order in which they were used."""
        return torch.cat([torch.zeros(0, dtype=torch.int64), *(c["examples"] for c in self.batches)])

    @property
    def order(self) -> Tensor:
        """The same for every epoch that was completed, (epochs, N)."""
        epochs = len(self.used) // self.N
        if epochs == 0:
            raise Unmet(f"There are {self.N} examples, but gradients was given {len(self.used)} in all epochs.")
        return self.used[: epochs * self.N].reshape(epochs, self.N)

    def after(self, steps: int | None = None, size: tuple[float, float] = (1.0, 1.0)) -> tuple[Tensor, Tensor]:
        """The right W and b after so many steps, all when None; `size` stretches the steps of both."""
        if not self.calls:
            raise Unmet("gradients was never called.")
        answers = [c["answer"] for c in self.batches[:steps]]
        W, b = (sum((a[k] for a in answers), torch.zeros_like(p)) for k, p in enumerate((self.W, self.b)))
        return self.W - size[0] * self.lr * W, self.b - size[1] * self.lr * b


def whole_batches(draw: Draw, epochs: int, growing: float = 0.0, count: int = 3) -> Training:
    """`count` batches an epoch, of a size that divides the number of examples."""
    batch_size = draw.integer(4, 6)
    return Training(draw, N=count * batch_size, batch_size=batch_size, epochs=epochs, growing=growing)


@minibatch_gd.criterion(points=1)
def every_example_once_an_epoch(student: Student, draw: Draw) -> None:
    """Each epoch uses every example once."""
    training = whole_batches(draw, epochs=3)
    training.run(student)
    for epoch, order in enumerate(training.order):
        missing = training.N - len(set(order.tolist()))
        expect(order).all(missing == 0, f"in epoch {epoch}, {missing} of {training.N} examples were left out")


@minibatch_gd.criterion(points=0.5)
def number_of_epochs(student: Student, draw: Draw) -> None:
    """There are as many epochs as asked for; with none, the parameters come back as they were."""
    for epochs in (draw.integer(2, 5), 0):
        training = whole_batches(draw, epochs, count=2)
        W, b = training.run(student)
        if training.ignores_batch_size:
            continue
        enough = len(training.used) == epochs * training.N
        text = f"{epochs} epochs of {training.N} examples, but gradients was given {len(training.used)} examples"
        expect(training.calls).all(enough, text)
    expect(W, "W").close_to(training.W)
    expect(b, "b").close_to(training.b)


@minibatch_gd.criterion(points=0.5)
def batches_have_the_given_size(student: Student, draw: Draw) -> None:
    """Every batch has `batch_size` examples (N is a multiple of it here)."""
    training = whole_batches(draw, epochs=2)
    training.run(student)
    wrong = [size for size in training.batch_sizes if size != training.batch_size]
    expect(wrong).all(bool(training.calls), "gradients was never called")
    expect(wrong).all(not wrong, f"batch_size is {training.batch_size}, but there are batches of {wrong[:3]}")


@minibatch_gd.criterion(points=0.5)
def last_batch_is_what_is_left(student: Student, draw: Draw) -> None:
    """Where batch_size does not divide N, the last batch of an epoch has the examples that are left."""
    size = draw.integer(5, 8)
    training = Training(draw, N=3 * size + 2, batch_size=size, epochs=2)
    training.run(student)
    training.expect_sizes(*([size, size, size, 2] * max(1, len(training.batches) // 4)))
    training = Training(draw, N=size, batch_size=2 * size, epochs=2)
    training.run(student)
    training.expect_sizes(size)


@minibatch_gd.criterion(points=0.5)
def examples_keep_their_labels(student: Student, draw: Draw) -> None:
    """Every batch has rows of X, unchanged, and the labels that belong to them."""
    training = whole_batches(draw, epochs=2)
    training.run(student)
    expect(training.calls).all(bool(training.calls), "gradients was never called")
    for call in training.calls:
        expect(call["X"], "a batch's X").dtype(training.X.dtype).equal(training.X[call["examples"]])
        expect(call["y"], "a batch's y").dtype(training.y.dtype).equal(training.y[call["examples"]])


@minibatch_gd.criterion(points=0.5)
def new_order_every_epoch(student: Student, draw: Draw) -> None:
    """Every epoch has the examples in a new random order, so that they meet in new batches."""
    training = whole_batches(draw, epochs=3, growing=0.1, count=4)
    training.run(student)
    if training.ignores_batch_size:
        return
    for before, after in pairwise([torch.arange(training.N), *training.order]):
        same = "every epoch has the same order: draw a new one in each epoch"
        expect(after).all(not torch.equal(before, after), same)
        old, new = (
            {frozenset(batch.tolist()) for batch in order.split(training.batch_size)} for order in (before, after)
        )
        expect(after).all(old != new, "the same examples meet in the same batches again: shuffle examples, not batches")
        # Which place of `before` do neighbours of `after` come from?  In a shuffle few are neighbours still.
        place = before.argsort()[after]
        still = int(((place[1:] - place[:-1]).abs() == 1).sum())
        expect(after).all(still < 0.75 * training.N, "neighbours stay neighbours: the order is not shuffled")


def one_step(student: Student, draw: Draw, N: int) -> tuple[Training, tuple[Tensor, Tensor]]:
    """A training of one batch with all examples, and the student's W and b after it.

    One epoch too few is the business of number_of_epochs: where one gives no step, it is asked of two.
    """
    for epochs in (1, 2):
        training = Training(draw, N=N, batch_size=N, epochs=epochs)
        result = training.run(student)
        if training.calls:
            break
    return training, result


def step_slips(training: Training, k: int) -> Slips:
    """What W (k = 0) or b (k = 1) is after one step that went wrong."""
    start, right = (training.W, training.b)[k], training.after()[k]
    step = right - start
    return {
        "The step goes uphill: subtract lr times the gradient.": start - step,
        "The gradient is divided by the size of the batch, of which it is a mean already.": start + step / training.N,
        "The gradient is taken as it is; the step is lr times it.": start + step / training.lr,
        "λ is added here too; the gradient that `gradients` returns has it already.": (
            right - 2 * training.lr * training.lam * start
        ),
        "No step is taken, or what it leads to is not returned.": start,
    }


@minibatch_gd.criterion(points=0.5)
def step_of_W(student: Student, draw: Draw) -> None:
    """A step moves W by −lr times its gradient, and the new W is returned."""
    training, (W, _) = one_step(student, draw, 9)
    because = "one batch with all examples, so one step"
    expect(W, "W").close_to(training.after()[0], because=because, slips=partial(step_slips, training, 0))


@minibatch_gd.criterion(points=0.5)
def step_of_b(student: Student, draw: Draw) -> None:
    """A step moves b by −lr times its gradient, and the new b is returned."""
    training, (_, b) = one_step(student, draw, 9)
    because = "one batch with all examples, so one step"
    expect(b, "b").close_to(training.after()[1], because=because, slips=partial(step_slips, training, 1))


@minibatch_gd.criterion(points=1)
def steps_build_on_each_other(student: Student, draw: Draw) -> None:
    """Each step starts from where the one before ended, and the last one's result is returned."""
    # A step of the wrong size is the business of other criteria: one step tells how long yours are.
    size = draw.integer(4, 6)
    training = Training(draw, N=3 * size + 1, batch_size=size, epochs=2)  # a short last batch is a step like any other
    one, result = one_step(student, draw, size)
    taken = list(zip(result, one.after(), (one.W, one.b), strict=True))
    expect(one.calls).all(all(bool((right != start).any()) for _, right, start in taken), "gradients got no examples")
    size_W, size_b = (
        float(((got - start) * (right - start)).sum() / (right - start).norm() ** 2) for got, right, start in taken
    )
    W, b = training.run(student)
    for k, call in enumerate(training.batches):
        for name, expected in zip("Wb", training.after(k, (size_W, size_b)), strict=True):
            expect(call[name], f"the {name} of call {k + 1} of gradients").close_to(expected)
    for name, got, expected in zip("Wb", (W, b), training.after(None, (size_W, size_b)), strict=True):
        expect(got, f"the {name} returned").close_to(expected, because=f"{len(training.batches)} steps")


@minibatch_gd.criterion(points=0.5)
def lambda_is_handed_on(student: Student, draw: Draw) -> None:
    """`gradients(X, y, W, b, lam)` gets λ as it is, and all five arguments by position."""
    training = whole_batches(draw, epochs=2)
    training.run(student)
    expect(training.calls).all(bool(training.calls), "gradients was never called")
    for call in training.calls:
        expect(call.get("lam"), "λ as gradients got it").equal(training.lam)
        by_position = call["positional"] == 5
        expect(call).all(by_position, f"gradients got {call['positional']} arguments by position, not 5")


@prop
def some_gradients(X: Tensor, y: Tensor, W: Tensor, b: Tensor, lam: float = 0.0) -> tuple[Tensor, ...]:
    """Computing gradients that no criterion looks at; in which order the batches come is nothing to their sum."""
    steps = (torch.linspace(1, 2, p.numel(), dtype=p.dtype).reshape(p.shape) for p in (W, b))
    return tuple(X.sum() * step for step in steps)


def training_arguments(
    draw: Draw, shape: tuple[int, int, int] = (9, 4, 3), epochs: int = 1
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Valid arguments of `minibatch_gd`: those by position, and those by name."""
    named = {"lam": 0.1, "lr": 0.01, "batch_size": 4, "epochs": epochs, "generator": draw.generator()}
    return (*problem(draw, shape), some_gradients), named


add_contract(
    minibatch_gd,
    training_arguments,
    [Form("W", (4, 3)), Form("b", (3,))],
    unusual=lambda draw: [
        (training_arguments(draw, (1, 4, 3)), [Form("W from one example", (4, 3)), Form("b from one example", (3,))]),
        (training_arguments(draw, (9, 1, 2)), [Form("W of one feature", (1, 2)), Form("b of two classes", (2,))]),
        (training_arguments(draw, epochs=0), [Form("W after no epoch", (4, 3)), Form("b after no epoch", (3,))]),
    ],
)


# --- Bonus: binary cross-entropy -------------------------------------------------------------------------------------


def bce_of(X: Tensor, y: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """The binary cross-entropy of a linear classifier, a mean over examples and classes, by PyTorch."""
    return F.binary_cross_entropy_with_logits(X @ W + b, F.one_hot(y, len(b)).to(X.dtype))


binary_cross_entropy = Exercise("binary_cross_entropy", bonus=True, forbidden=FORBIDDEN)


def bce_slips(scores: Tensor, y: Tensor) -> Slips:
    target = F.one_hot(y, scores.shape[1]).to(scores.dtype)
    losses = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    return {
        "Only the true class adds to the loss; the others add −log(1 − p).": (losses * target).mean(),
        "The true class adds nothing to the loss; it adds −log p.": (losses * (1 - target)).mean(),
        "p is the softmax; it is the sigmoid of each score by itself.": F.binary_cross_entropy(
            torch.softmax(scores, 1), target
        ),
        "The signs are exchanged: z = −s is for the true class, z = s for the others.": (
            losses + scores * (2 * target - 1)
        ).mean(),
        "ln(1 + exp(−|z|)) has a minus in the exponent; here it is ln(1 + exp(|z|)).": (losses + scores.abs()).mean(),
    }


def is_of_true_class_only(student: Student, draw: Draw) -> bool:
    """Whether only the true class adds to the loss, which both_outcomes_count says."""
    N, _, K = sizes(draw)
    scores, y = draw.normal(N, K, scale=2), labels(draw, N, K)
    (expected,) = [v for k, v in bce_slips(scores, y).items() if k.startswith("Only the true class")]
    loss = apart_from_mean(student.binary_cross_entropy(scores, y), expected, N, K, N * K)
    return bool((loss - expected).abs() <= 1e-6 * expected)


@binary_cross_entropy.criterion(points=1)
def both_outcomes_count(student: Student, draw: Draw) -> None:
    """Every class adds −log p where it is the true one, else −log(1 − p), p = σ(score) (as a mean or as a sum)."""
    N, _, K = sizes(draw)
    for _ in range(2):
        scores, y = draw.normal(N, K, scale=2), labels(draw, N, K)
        probs = 1 / (1 + torch.exp(-scores))
        expected = -torch.where(F.one_hot(y, K) > 0, probs, 1 - probs).log().mean()
        loss = apart_from_mean(student.binary_cross_entropy(scores, y), expected, N, K, N * K)
        expect(loss, "the loss").close_to(expected, slips=partial(bce_slips, scores, y))


@binary_cross_entropy.criterion(points=0.5, name="mean_over_examples")
def bce_mean_over_examples(student: Student, draw: Draw) -> None:
    """The loss is a mean over examples: with every example twice it stays the same."""
    N, _, K = sizes(draw)
    scores, y = draw.normal(N, K), labels(draw, N, K)
    once, other = scalar(student.binary_cross_entropy(scores, y)), scalar(student.binary_cross_entropy(2 * scores, y))
    expect(once).all(once != other, "the loss is the same whatever the scores are")
    twice = student.binary_cross_entropy(torch.cat([scores, scores]), torch.cat([y, y]))
    expect(twice, "the loss with every example twice").close_to(
        once, because="the loss with each once", slips=partial(sum_slips, once)
    )


@binary_cross_entropy.criterion(points=0.5, contract=True)
def mean_over_classes(student: Student, draw: Draw) -> None:
    """The loss is a mean over classes too: with all scores 0 it is log 2, however many classes there are."""
    N, _, K = sizes(draw)
    scores, expected = draw.normal(N, K) * 0, torch.tensor(2.0, dtype=draw.dtype).log()
    loss = apart_from_mean(student.binary_cross_entropy(scores, labels(draw, N, K)), expected, N)
    if not is_of_true_class_only(student, draw):
        expect(loss, "the loss").close_to(expected, sizes={"K": K})


@binary_cross_entropy.criterion(points=1)
def right_for_large_scores(student: Student, draw: Draw) -> None:
    """Scores of ±50 and ±1000 give the loss that they should, without overflow or log(0)."""
    N, _, K = sizes(draw)
    only_true = is_of_true_class_only(student, draw)
    for size in (50, 1000):
        scores, y = draw.normal(N, K) + size * (draw.integers(0, 2, N, K) * 2 - 1), labels(draw, N, K)
        target = F.one_hot(y, K).to(scores.dtype)
        losses = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
        expected = (losses * target).mean() if only_true else losses.mean()
        loss = apart_from_mean(student.binary_cross_entropy(scores, y), expected, N, K, N * K)
        expect(loss, f"the loss for scores around {size} and −{size}").close_to(expected)


add_contract(
    binary_cross_entropy,
    lambda draw: (draw.normal(9, 4), labels(draw, 9, 4)),
    [Form("the loss")],
    unusual=special_scores,
)


binary_cross_entropy_gradients = Exercise("binary_cross_entropy_gradients", bonus=True, forbidden=FORBIDDEN)


def bce_gradient_slips(X: Tensor, y: Tensor, W: Tensor, b: Tensor) -> Slips:
    scores, one_hot = X @ W + b, F.one_hot(y, len(b))
    p, NK = torch.sigmoid(scores), scores.numel()
    return {
        "P is the softmax; it is the sigmoid of each score by itself.": X.T @ (torch.softmax(scores, 1) - one_hot) / NK,
        "The one-hot labels are not subtracted from the probabilities.": X.T @ p / NK,
        "σ(1 − σ) is still there; it cancels in the derivative of the loss.": X.T @ ((p - one_hot) * p * (1 - p)) / NK,
        WHOLE_COLUMNS: X.T @ (p - 1) / NK,
    }


@binary_cross_entropy_gradients.criterion(points=1, name="gradient_of_W")
def bce_gradient_of_W(student: Student, draw: Draw) -> None:
    """The gradient of the binary cross-entropy with respect to W (λ = 0; as a mean or as a sum)."""
    for _ in range(2):
        X, y, W, b = problem(draw)
        expected, _ = gradients_by_autograd(bce_of, X, y, W, b)
        grad_W, _ = expect(student.binary_cross_entropy_gradients(X, y, W, b, 0.0)).parts("grad_W", "grad_b")
        N, K = len(X), len(b)
        grad_W = apart_from_mean(grad_W, expected, N, K, N * K, name="grad_W")
        slips = partial(bce_gradient_slips, X, y, W, b)
        expect(grad_W, "grad_W").close_to(expected, because="autograd's result", slips=slips)


@binary_cross_entropy_gradients.criterion(points=0.5, contract=True, name="mean_over_classes")
def bce_gradients_mean_over_classes(student: Student, draw: Draw) -> None:
    """The gradients are those of a mean over classes too: their size (norm) where all scores are 0."""
    X, y, W, b = problem(draw)
    W, b = torch.zeros_like(W), torch.zeros_like(b)
    parts = expect(student.binary_cross_entropy_gradients(X, y, W, b, 0.0)).parts("grad_W", "grad_b")
    expected = gradients_by_autograd(bce_of, X, y, W, b)
    for name, got, right in zip(("grad_W", "grad_b"), parts, expected, strict=True):
        product = (finite(got, *right.shape, name=name).double() * right).sum()
        if name == "grad_W" and 0 < product.abs() < (1 - 1e-6) * expect(got).tensor().double().norm() * right.norm():
            return  # it has not even the right direction, which is the business of gradient_of_W
        norm = apart_from_mean(finite(got, *right.shape, name=name).double().norm(), right.norm(), len(X))
        expect(norm, f"the norm of {name}").close_to(right.norm(), sizes={"K": len(b)})


add_gradient_criteria(
    binary_cross_entropy_gradients,
    bce_of,
    problem,
    lambda student, X, y, W, b, lam: student.binary_cross_entropy_gradients(X, y, W, b, lam),
    mean_over_classes=True,
)
add_contract(
    binary_cross_entropy_gradients,
    lambda draw: (*problem(draw, (9, 4, 3)), 0.1),
    [Form("grad_W", (4, 3)), Form("grad_b", (3,))],
    unusual=lambda draw: special_problems(draw, "grad_W", "grad_b"),
)


# --- Bonus: random flips ---------------------------------------------------------------------------------------------

random_horizontal_flip = Exercise("random_horizontal_flip", bonus=True, forbidden=FORBIDDEN)


AXES_OF_IMAGES = {1: "channels", 2: "rows"}
LEFT_AND_RIGHT = "Left and right are the last axis, which the columns lie along."


def random_images(draw: Draw, N: int) -> Tensor:
    """Images of whole numbers from 0 to 255, float (N, 3, 32, 32)."""
    return draw.integers(0, 256, N, 3, 32, 32).to(draw.dtype)


def flipped(student: Student, images: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Which images the student's function changed, (N,)."""
    result = expect(student.random_horizontal_flip(images, p, generator)).shape(*images.shape).tensor()
    return (result != images).flatten(1).any(1)


@random_horizontal_flip.criterion(points=1)
def mirrors_left_and_right(student: Student, draw: Draw) -> None:
    """A flipped image has its columns in reverse order, its rows and channels as they were."""
    any_flipped = False
    for _ in range(16):
        images = random_images(draw, draw.integer(1, 4)).float()
        mirrored = images[..., 31 - torch.arange(32)]
        result = expect(student.random_horizontal_flip(images, 0.5, draw.generator()))
        changed = (result.shape(*images.shape).tensor() != images).flatten(1).any(1)
        expected = torch.where(changed[:, None, None, None], mirrored, images)
        for axis, what in AXES_OF_IMAGES.items():
            if bool(changed.any()) and torch.equal(result.tensor()[changed], images[changed].flip(axis)):
                raise Unmet(f"A flipped image has its {what} reversed.", causes=[LEFT_AND_RIGHT])
        result.equal(expected)
        any_flipped |= bool(changed.any())
    result.all(any_flipped, "no image is ever flipped")


@random_horizontal_flip.criterion(points=1)
def each_image_has_its_own_draw(student: Student, draw: Draw) -> None:
    """With p = 0.5 some images of a batch are flipped and some are not."""
    which = flipped(student, random_images(draw, 32).float(), 0.5, draw.generator())
    count, one_for_all = int(which.sum()), "One draw decides for all images of the batch; each needs its own."
    if count in (0, 32):
        raise Unmet(f"{count} of 32 images are flipped, with p = 0.5.", causes=[one_for_all])


@random_horizontal_flip.criterion(points=1)
def p_is_the_probability(student: Student, draw: Draw) -> None:
    """About p of all images are flipped; with p = 0 none is, with p = 1 all are."""
    some, generator = random_images(draw, 40).to(torch.uint8), draw.generator()
    images = some.repeat(5, 1, 1, 1)  # to draw all of them would take longer than to flip them
    for p in (0.0, 1.0, draw.number(0.165, 0.195), draw.number(0.865, 0.895)):
        certain = p in (0.0, 1.0)
        batches = [flipped(student, some if certain else images, p, generator) for _ in range(2)]
        # One draw for a whole batch is asked by another criterion; here that is 30 draws instead of 1,600.
        together = all(bool(which.all()) or not bool(which.any()) for which in batches)
        if together and not certain:
            batches += [flipped(student, images[:2], p, generator) for _ in range(28)]
            batches = [which[:2] for which in batches]
        elif not certain and abs(torch.cat(batches).double().mean().item() - p) > 0.045:
            batches += [flipped(student, images, p, generator) for _ in range(6)]  # one right solution in 50
        share = torch.cat(batches).double().mean().item()
        together = together and 0 < share < 1
        # Chance alone takes a right solution this far off once in 10⁸ times (six standard deviations).
        close = share == p if certain else abs(share - p) < (0.45 if together else 0.06)
        # Always the very same images: that is asked by another criterion.
        always = 0 < share < 1 and len({tuple(which.tolist()) for which in batches}) == 1
        expect(share).all(close or always, f"p = {p:.2f}, but {share:.2f} of the images are flipped")


add_contract(
    random_horizontal_flip,
    lambda draw: (random_images(draw, 6), 1.0, draw.generator()),
    [Form("the result", (6, 3, 32, 32))],
    unusual=lambda draw: [
        ((random_images(draw, 1), 1.0, draw.generator()), [Form("the result for one image", (1, 3, 32, 32))]),
        ((random_images(draw, 6), 0.0, draw.generator()), [Form("the result for p = 0", (6, 3, 32, 32))]),
        ((random_images(draw, 6), 0.5, draw.generator()), [Form("the result for p = 0.5", (6, 3, 32, 32))]),
    ],
)
