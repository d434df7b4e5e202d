"""The criteria of Assignment 1 that only grading adds: other sizes, extreme values, traps.

Coding to the visible criteria must not be enough.  Messages say what went wrong, never the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from assignments.a1_linear_classifiers.checks import (
    Training,
    accuracy,
    apart_from_mean,
    bce_of,
    binary_cross_entropy,
    binary_cross_entropy_gradients,
    binary_svm_cost,
    binary_svm_gradients,
    cost,
    cross_entropy,
    cross_entropy_gradients,
    cross_entropy_of,
    features,
    flipped,
    gradients_by_autograd,
    is_over_examples,
    labels,
    larger_scores_win,
    linear_scores,
    minibatch_gd,
    multiclass_hinge,
    multiclass_hinge_gradients,
    partly_right,
    problem,
    random_horizontal_flip,
    random_images,
    sizes,
    softmax,
    standardize,
    standardizer,
    svm_as_problem,
    training_arguments,
    whole_batches,
)
from course_utils.checking import FROM_ELSEWHERE, Draw, Exercise, Student, add_precision, expect, finite, scalar

LARGE = 690.0  # exp(690) and exp(−690) are still numbers, exp(2 · 690) is not

# --- Criteria that several exercises share ---------------------------------------------------------------------------


def add_single_examples(
    exercise: Exercise, results: Callable[..., Iterable[Any]], problems: Callable[[Draw], list[tuple[Tensor, ...]]]
) -> None:
    """Sets of one example; `results(student, X, y, W, b)` gives what is a mean over examples."""

    @exercise.criterion(points=0.25, contract=True)
    def one_example_is_a_set(student: Student, draw: Draw) -> None:
        """A single example, which lacks most classes, is a set too: a set's result is the mean of theirs."""
        for X, y, W, b in problems(draw):
            X, y, N, means = X[:3], y[:3], len(X[:3]), []  # every call crosses the pipe
            whole = [expect(r, "the result for the set").finite().tensor() for r in results(student, X, y, W, b)]
            singly = zip(*(results(student, X[i : i + 1], y[i : i + 1], W, b) for i in range(N)), strict=True)
            for together, parts in zip(whole, singly, strict=True):
                one_each = [finite(p, *together.shape, name="the result for one example") for p in parts]
                means.append(apart_from_mean(sum(one_each) / N, together, N).flatten())
            expected = torch.cat([w.flatten() for w in whole])  # in one vector, since one of two may be 0
            expect(torch.cat(means), "the mean of the results for one example each").close_to(expected)


def saturated(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A problem whose loss and its gradients are exactly 0, so that the regulariser stands alone."""
    X, y, W, b = problem(draw)
    last = torch.arange(len(b)) == len(b) - 1
    return X, torch.full_like(y, len(b) - 1), W, 3000 * torch.where(last, 1.0, -1.0).to(torch.float64)


def usual_and_smallest(draw: Draw) -> list[tuple[Tensor, ...]]:
    """A problem of the usual size, and one of one feature and two classes."""
    return [problem(draw), problem(draw, (sizes(draw)[0], 1, 2))]


def svm_usual_and_smallest(draw: Draw) -> list[tuple[Tensor, ...]]:
    """A two-class problem of the usual size, and one of one feature."""
    X, y, w, b = svm_as_problem(draw)
    return [(X, y, w, b), (X[:, :1].clone(), y, w[:1], b)]


def pair(result: Any) -> tuple[Any, ...]:
    """Both results of an exercise that returns two."""
    return expect(result).parts("the first result", "the second result")


# --- Standardising ---------------------------------------------------------------------------------------------------


@standardizer.criterion(points=0.5)
def small_spread_is_kept(student: Student, draw: Draw) -> None:
    """A feature that is not constant keeps its own standard deviation, however small."""
    N, d, _ = sizes(draw)
    spread = torch.logspace(-15, -7, d, dtype=torch.float64)
    around_zero = draw.normal(N, d) * spread
    around_one = draw.uniform(1, 2, d) + draw.normal(N, d) * torch.logspace(-13, -8, d, dtype=torch.float64)
    X, order = torch.cat([around_zero, around_one], 1), draw.permutation(2 * d)
    X[-1, ::2] = X[0, ::2]  # to compare some of the entries is not enough
    X[1:-1, 1] = X[0, 1]
    X = X[:, order].contiguous()
    for some in (X, X[:, order == 1].clone()):  # a single feature is a set of features too
        _, std = pair(student.standardizer(some))
        ratio = expect(std, "std").shape(some.shape[1]).tensor() / some.std(0, correction=0)
        # Loose, since the divisor (N or N − 1) is the business of another criterion.
        expect(ratio).all((ratio > 0.8) & (ratio < 1.25), "std of a feature with little spread is not its own")


add_precision(standardizer, lambda student, draw: pair(student.standardizer(features(draw))))


@standardize.criterion(points=0.5)
def small_std_is_used_as_it_is(student: Student, draw: Draw) -> None:
    """A feature is divided by its std and nothing else, however small it is."""
    X = features(draw)
    X = X * torch.logspace(-12, -6, X.shape[1], dtype=torch.float64)
    for some in (X, X[:, :1].clone()):  # a single feature is a set of features too
        mean, std = some.mean(0), some.std(0, correction=0)
        expect(student.standardize(some, mean, std)).close_to((some - mean) / std)


add_precision(standardize, lambda student, draw: [student.standardize(draw.normal(9, 4), *draw.uniform(0.5, 2, 2, 4))])


# --- Binary SVM ------------------------------------------------------------------------------------------------------


@binary_svm_cost.criterion(points=0.5, contract=True)
def kept_margins_cost_nothing(student: Student, draw: Draw) -> None:
    """Examples beyond the margin cost nothing, however far they are and whichever class they belong to."""
    X, y, w, b = svm_as_problem(draw)
    for labels_given in (y, torch.ones_like(y), -torch.ones_like(y)):
        reach = draw.uniform(1.01, 1000, len(X))
        beyond = X + ((reach * labels_given - b - X @ w) / (w @ w))[:, None] * w
        loss = student.binary_svm_cost(w, b, beyond, labels_given, 0.0)
        expect(loss, "the loss").close_to(0.0, atol=1e-9)


def svm_cost(student: Student, X: Tensor, y: Tensor, w: Tensor, b: Tensor, lam: float = 0.0) -> list[Any]:
    """The student's cost of a binary SVM, as the only one of a list."""
    return [student.binary_svm_cost(w, b, X, y, lam)]


def svm_gradients(student: Student, X: Tensor, y: Tensor, w: Tensor, b: Tensor, lam: float = 0.0) -> tuple[Any, ...]:
    """The student's gradients of a binary SVM."""
    return pair(student.binary_svm_gradients(w, b, X, y, lam))


add_single_examples(binary_svm_cost, svm_cost, svm_usual_and_smallest)


def svm_saturated(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `saturated`, with two classes."""
    X, y, w, _ = svm_as_problem(draw)
    return X, torch.ones_like(y), w, torch.tensor(3000.0, dtype=torch.float64)


add_precision(
    binary_svm_cost,
    lambda student, draw: [
        *svm_cost(student, *svm_as_problem(draw)),
        *svm_cost(student, *svm_saturated(draw), draw.number(0.1, 0.5)),
    ],
)


@binary_svm_gradients.criterion(points=0.5, contract=True)
def one_subgradient_at_the_kink(student: Student, draw: Draw) -> None:
    """For an example exactly at the margin any subgradient will do, but w and b get theirs from the same one."""
    d = draw.integer(3, 7)
    for y in (1.0, -1.0):
        w, x = draw.integers(-4, 5, d).to(torch.float64), draw.integers(1, 5, d).to(torch.float64)
        b = y - w.dot(x)  # whole numbers, so y(w·x + b) is 1 without rounding
        grad_w, grad_b = svm_gradients(student, x[None], torch.tensor([y], dtype=torch.float64), w, b)
        slope = -y * scalar(grad_b, "grad_b")
        expect(slope).all((slope >= -1e-9) & (slope <= 1 + 1e-9), "grad_b is no subgradient at the kink")
        expect(grad_w, "grad_w").close_to(-y * slope * x, atol=1e-9, because="the subgradient that grad_b belongs to")


add_single_examples(binary_svm_gradients, svm_gradients, svm_usual_and_smallest)
# grad_b is a number of examples over N, which may well be a round number.
add_precision(
    binary_svm_gradients,
    lambda student, draw: [
        svm_gradients(student, *svm_as_problem(draw))[0],
        svm_gradients(student, *svm_saturated(draw), draw.number(0.1, 0.5))[0],
    ],
)


# --- Scores, softmax, cross-entropy ----------------------------------------------------------------------------------


@linear_scores.criterion(points=0.5, contract=True)
def smallest_sizes(student: Student, draw: Draw) -> None:
    """One example, one feature or two classes are no special cases."""
    X, _, W, b = problem(draw)
    whole = finite(student.linear_scores(X, W, b), len(X), len(b))
    expect(whole).all(bool((whole != 0).any()), "every score is 0")
    i = draw.integer(0, len(X))
    expect(student.linear_scores(X[i : i + 1], W, b), "the result for one example").close_to(whole[i : i + 1])
    expect(student.linear_scores(X, W[:, :2].clone(), b[:2]), "the result for two classes").close_to(whole[:, :2])
    alone = torch.cat([W[:1], torch.zeros_like(W[1:])])
    expected = finite(student.linear_scores(X, alone, b), len(X), len(b))
    expect(student.linear_scores(X[:, :1].clone(), W[:1], b), "the result for one feature").close_to(expected)


def some_scores(student: Student, draw: Draw) -> list[Any]:
    """The student's scores of a random problem."""
    X, _, W, b = problem(draw)
    return [student.linear_scores(X, W, b)]


add_precision(linear_scores, some_scores)


@softmax.criterion(points=0.5)
def rows_far_apart(student: Student, draw: Draw) -> None:
    """Rows may lie far from each other: each keeps its own probabilities."""
    N, _, K = sizes(draw)
    scores = draw.normal(N, K)
    usual = finite(student.softmax(scores), N, K)
    if is_over_examples(student, draw):
        return
    larger_scores_win(student, scores, usual)
    offsets = LARGE * (torch.arange(N) % 2 * 2 - 1)[:, None]
    expect(student.softmax(scores + offsets), "the result for rows far apart").close_to(usual)


@softmax.criterion(points=0.5)
def two_classes(student: Student, draw: Draw) -> None:
    """A single row of two scores, near each other or thousands apart."""
    if is_over_examples(student, draw):
        return
    for difference in (draw.number(0.1, 3), draw.number(1600, 3000)):
        scores = draw.normal(1, 1) - torch.tensor([[difference, 0.0]], dtype=torch.float64)
        expect(student.softmax(scores)).close_to(torch.softmax(scores, 1))


add_precision(softmax, lambda student, draw: [student.softmax(draw.normal(5, 3))])


@cross_entropy.criterion(points=0.5, contract=True, name="rows_far_apart")
def cross_entropy_of_rows_far_apart(student: Student, draw: Draw) -> None:
    """Rows may lie far from each other: each keeps its own loss."""
    N, _, K = sizes(draw)
    scores, y = draw.normal(N, K), labels(draw, N, K)
    usual = scalar(student.cross_entropy(scores, y))
    offsets = LARGE * (torch.arange(N) % 2 * 2 - 1)[:, None]
    expect(student.cross_entropy(scores + offsets, y), "the loss of rows far apart").close_to(usual)


add_single_examples(
    cross_entropy, lambda student, X, y, W, b: [student.cross_entropy(X @ W + b, y)], usual_and_smallest
)
add_precision(cross_entropy, lambda student, draw: [student.cross_entropy(draw.normal(9, 4), labels(draw, 9, 4))])


# --- The classifier: cost, accuracy, gradients -----------------------------------------------------------------------


@cost.criterion(points=0.5)
def finite_for_large_scores(student: Student, draw: Draw) -> None:
    """Large scores give a large cost that is finite and right."""
    X, y, W, b = problem(draw)
    for bias in (b + 1000, b - 1000, torch.linspace(-LARGE, LARGE, len(b), dtype=torch.float64)):
        expected = cross_entropy_of(X, y, W, bias)
        loss = apart_from_mean(student.cost(X, y, W, bias, 0.0), expected, len(X), name="the cost")
        expect(loss, "the cost").close_to(expected)


add_single_examples(cost, lambda student, X, y, W, b: [student.cost(X, y, W, b, 0.0)], usual_and_smallest)
add_precision(
    cost,
    lambda student, draw: [
        student.cost(*problem(draw), 0.0),
        student.cost(*saturated(draw), draw.number(0.1, 0.5)),
    ],
)


@accuracy.criterion(points=0.5)
def all_right_and_none_right(student: Student, draw: Draw) -> None:
    """All right is 1 and none right is 0: for one example or feature, for large, small or negative scores."""
    X, _, usual, _, _ = partly_right(draw)
    N, d = X.shape
    cases = ((N, d, 1, 0), (1, d, 1, 0), (N, 1, 1, 0), (N, d, 1000, 0), (N, d, 1e-9, 0), (N, d, 1, -100))
    for n, m, scale, shift in cases:
        some, W, b = X[:n, :m].clone(), scale * usual[:m], torch.full_like(usual[0], shift)
        order = (some @ W).argsort(1)
        all_right, none_right = order[:, -1].clone(), order[:, -2].clone()
        expect(student.accuracy(some, all_right, W, b), "the accuracy where all are right").close_to(1.0)
        none = student.accuracy(some, none_right, W, b)
        expect(none, "the accuracy where none is right").close_to(0.0, atol=1e-9)


@cross_entropy_gradients.criterion(points=0.5, contract=True)
def large_scores_do_not_overflow(student: Student, draw: Draw) -> None:
    """Large scores, and examples whose scores lie far apart, do the gradients no harm."""
    X, y, W, b = problem(draw)
    offsets, ones = LARGE * (torch.arange(len(X)) % 2 * 2 - 1)[:, None], torch.ones_like(b)[None]
    # One more feature with the same weight for every class adds a number to all scores of an example.
    X, W = torch.cat([X, torch.zeros_like(offsets)], 1), torch.cat([W, ones])
    usual = pair(student.cross_entropy_gradients(X, y, W, b, 0.0))
    usual_W, usual_b = (finite(g, *p.shape, name="a gradient") for g, p in zip(usual, (W, b), strict=True))
    for far, bias in ((0 * offsets, b + 1000), (0 * offsets, b - 1000), (offsets, b)):
        shifted = torch.cat([X[:, :-1], far], 1)
        grad_W, grad_b = pair(student.cross_entropy_gradients(shifted, y, W, bias, 0.0))
        expect(expect(grad_W, "grad_W").shape(*W.shape).tensor()[:-1], "grad_W").close_to(usual_W[:-1])
        expect(grad_b, "grad_b").close_to(usual_b)
    right = gradients_by_autograd(cross_entropy_of, X, y, W, b)[1].abs()
    if not bool((apart_from_mean(usual_b.abs(), right, len(X)) - right).norm() <= 1e-6 * right.norm()):
        return  # what is wrong for usual scores is the business of other criteria
    spread = 1000 * torch.where(torch.arange(len(b)) == draw.integer(0, len(b)), 1.0, -1.0).to(torch.float64)
    expected = gradients_by_autograd(cross_entropy_of, X, y, W, spread)[1].abs()  # the sign is another's business
    _, grad_b = pair(student.cross_entropy_gradients(X, y, W, spread, 0.0))
    size = apart_from_mean(expect(grad_b, "grad_b").tensor().abs(), expected, len(X))
    expect(size, "the absolute value of grad_b").close_to(expected)


def add_gradients(exercise: Exercise, checked: int = 2) -> None:
    """Single examples and precision, for an exercise that returns grad_W and grad_b."""

    def gradients(student: Student, X: Tensor, y: Tensor, W: Tensor, b: Tensor, lam: float = 0.0) -> tuple[Any, ...]:
        return pair(student.call(exercise.name, X, y, W, b, lam))

    add_single_examples(exercise, gradients, usual_and_smallest)
    add_precision(
        exercise,
        lambda student, draw: [
            *gradients(student, *problem(draw))[:checked],
            gradients(student, *saturated(draw), draw.number(0.1, 0.5))[0],
        ],
    )


add_gradients(cross_entropy_gradients)


# --- Multi-class hinge loss ------------------------------------------------------------------------------------------

add_single_examples(
    multiclass_hinge, lambda student, X, y, W, b: [student.multiclass_hinge(X @ W + b, y)], usual_and_smallest
)
add_precision(multiclass_hinge, lambda student, draw: [student.multiclass_hinge(draw.normal(9, 4), labels(draw, 9, 4))])


@multiclass_hinge_gradients.criterion(points=0.5, contract=True, name="one_subgradient_at_the_kink")
def one_multiclass_subgradient_at_the_kink(student: Student, draw: Draw) -> None:
    """For a margin that is met exactly any subgradient will do, but all of W and b get theirs from the same one."""
    d, K = draw.integer(3, 7), draw.integer(4, 8)
    W, x = draw.integers(-4, 5, d, K).to(torch.float64), draw.integers(1, 5, d).to(torch.float64)
    true, violating, kink = draw.permutation(K)[:3].tolist()
    scores = torch.full((K,), -9.0, dtype=torch.float64)  # relative to the true class
    scores[true], scores[violating], scores[kink] = 0.0, 3.0, -1.0
    b = scores - x @ W  # whole numbers, so the margin of `kink` is met without rounding
    grad_W, grad_b = pair(student.multiclass_hinge_gradients(x[None], torch.tensor([true]), W, b, 0.0))
    grad_b = expect(grad_b, "grad_b").shape(K).tensor()
    slope = grad_b[kink]
    expect(grad_b).all(bool(-1e-9 <= slope <= 1 + 1e-9), "grad_b is no subgradient where a margin is met exactly")
    expect(grad_b).all(bool(grad_b.sum().abs() < 1e-9), "grad_b does not add up to 0 where a margin is met exactly")
    expect(grad_W, "grad_W").close_to(x[:, None] * grad_b, atol=1e-9, because="the subgradient that grad_b belongs to")


add_gradients(multiclass_hinge_gradients, checked=1)  # grad_b is a count over N, which may be a round number


# --- Mini-batch gradient descent -------------------------------------------------------------------------------------


@minibatch_gd.criterion(points=0.5, contract=True)
def same_state_same_result(student: Student, draw: Draw) -> None:
    """The same state of `generator` gives the same order and the same parameters."""
    training, seed = whole_batches(draw, epochs=2), draw.integer(0, 2**31)
    first = training.run(student, torch.Generator().manual_seed(seed))
    order, training.calls = training.used, []
    second = training.run(student, torch.Generator().manual_seed(seed))
    expect(training.used).all(torch.equal(training.used, order), f"the examples come in another order{FROM_ELSEWHERE}")
    for name, one, two in zip("Wb", first, second, strict=True):
        expect(two, name).close_to(one)


@minibatch_gd.criterion(points=0.5, contract=True)
def generator_decides(student: Student, draw: Draw) -> None:
    """Another state of `generator` gives another order."""
    seed = draw.integer(0, 2**31)
    moved_on = torch.Generator().manual_seed(seed)
    torch.rand(7, generator=moved_on)
    training, orders = whole_batches(draw, epochs=1, count=6), []
    for generator in (torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1), moved_on):
        training.calls = []
        training.run(student, generator)
        orders.append(training.used.tolist())
    shuffled = orders[0] != sorted(orders[0])  # whether there is any randomness is asked by new_order_every_epoch
    changes = orders[0] != orders[1] and orders[0] != orders[2]
    expect(orders).all(changes or not shuffled, "the order is the same for generators of different states")
    training.calls = []
    training.run(student, moved_on)
    text = "a second call with the same generator, which should have moved on, has the same order"
    expect(orders).all(training.used.tolist() != orders[2] or not (shuffled and changes), text)


@minibatch_gd.criterion(points=0.5)
def batches_of_one(student: Student, draw: Draw) -> None:
    """Batches of a single example are batches too, also where the set has no other; so is a single feature one."""
    for N in (draw.integer(4, 7), 1):
        training = Training(draw, N=N, batch_size=1, epochs=2)
        training.run(student)
        training.expect_sizes(*[1] * N)
    positional, named = training_arguments(draw, (5, 1, 2))
    W, b = pair(student.minibatch_gd(*positional, **named))
    finite(W, 1, 2, name="W of one feature")
    finite(b, 2, name="b of two classes")


@minibatch_gd.criterion(points=0.5, contract=True)
def one_gradient_a_batch(student: Student, draw: Draw) -> None:
    """`gradients` is called once for each batch."""
    training = whole_batches(draw, epochs=1)
    training.run(student)
    again = len(training.calls) - len(training.batches)
    expect(training.calls).all(again == 0, f"{again} of {len(training.calls)} calls repeat the batch of the one before")


def trained(student: Student, draw: Draw) -> tuple[Any, ...]:
    """The student's W and b after an epoch."""
    positional, named = training_arguments(draw)
    return pair(student.minibatch_gd(*positional, **named))


add_precision(minibatch_gd, trained)


# --- Bonus: binary cross-entropy -------------------------------------------------------------------------------------

add_single_examples(
    binary_cross_entropy, lambda student, X, y, W, b: [student.binary_cross_entropy(X @ W + b, y)], usual_and_smallest
)
add_precision(
    binary_cross_entropy, lambda student, draw: [student.binary_cross_entropy(draw.normal(9, 4), labels(draw, 9, 4))]
)


@binary_cross_entropy_gradients.criterion(points=0.5, name="large_scores_do_not_overflow")
def bce_gradients_of_large_scores(student: Student, draw: Draw) -> None:
    """Scores of 1000 and −1000 do the gradients no harm."""
    X, y, W, b = problem(draw)
    bias = 1000 * torch.where(torch.arange(len(b)) % 3 != draw.integer(0, 3), 1.0, -1.0).to(torch.float64)
    N, K = len(X), len(b)

    def size_and_right(b: Tensor) -> tuple[Tensor, Tensor]:
        expected = gradients_by_autograd(bce_of, X, y, W, b)[1].abs()  # the sign is another's business
        _, grad_b = pair(student.binary_cross_entropy_gradients(X, y, W, b, 0.0))
        return apart_from_mean(expect(grad_b, "grad_b").tensor().abs(), expected, N, K, N * K), expected

    (usual, right), (size, expected) = size_and_right(b), size_and_right(bias)
    expect(size).finite().all(not torch.equal(size, usual), "grad_b is the same whatever b is")
    if not bool((usual - right).norm() <= 1e-6 * right.norm()):
        return  # what is wrong for usual scores is the business of other criteria
    expect(size, "the absolute value of grad_b").close_to(expected)


add_gradients(binary_cross_entropy_gradients)


# --- Bonus: random flips ---------------------------------------------------------------------------------------------


@random_horizontal_flip.criterion(points=0.5, contract=True)
def keeps_any_dtype(student: Student, draw: Draw) -> None:
    """Images keep their dtype, whatever it is, and their values to the last digit."""
    for images in (random_images(draw, 8).to(torch.uint8), random_images(draw, 8).long(), draw.normal(8, 3, 32, 32)):
        result = student.random_horizontal_flip(images, 0.5, draw.generator())
        result = expect(result).dtype(images.dtype).shape(*images.shape).tensor()
        kept = torch.equal(result.flatten(1).sort().values, images.flatten(1).sort().values)
        expect(result).all(kept, "an image has values that the given one had not")


@random_horizontal_flip.criterion(points=0.5, contract=True, name="same_state_same_result")
def same_state_same_flips(student: Student, draw: Draw) -> None:
    """The same state of `generator` flips the same images."""
    images, seed = random_images(draw, 20).float(), draw.integer(0, 2**31)
    first, second = (flipped(student, images, 0.5, torch.Generator().manual_seed(seed)) for _ in range(2))
    expect(second).all(torch.equal(second, first), f"other images are flipped{FROM_ELSEWHERE}")


@random_horizontal_flip.criterion(points=1, name="generator_decides")
def generator_decides_on_flips(student: Student, draw: Draw) -> None:
    """Another state of `generator` flips other images."""
    images, seed = random_images(draw, 4).float(), draw.integer(0, 2**31)
    patterns, again = set(), set()
    for moved_on in range(12):
        generator = torch.Generator().manual_seed(seed)
        torch.rand(5 * moved_on, generator=generator)
        patterns.add(tuple(flipped(student, images, 0.5, generator).tolist()))
    expect(images).all(len(patterns) > 1, "the same images are flipped for generators of different states")
    for _ in range(12):
        again.add(tuple(flipped(student, images, 0.5, generator).tolist()))
    text = "further calls with the same generator, which should have moved on, flip the same images"
    expect(images).all(len(again) > 1, text)


@random_horizontal_flip.criterion(points=0.5, contract=True)
def number_of_flips_varies(student: Student, draw: Draw) -> None:
    """How many images are flipped is left to chance, since each has its own draw, whatever its neighbour gets."""
    images, generator = random_images(draw, 8).float(), draw.generator()
    which = torch.stack([flipped(student, images, 0.5, generator) for _ in range(12)])  # (calls, images)
    if bool((which == which[0]).all()):
        return  # always the very same images: that is asked by generator_decides
    expect(images).all(len(set(which.sum(1).tolist())) > 1, "the number of flipped images is always the same")
    near = [bool(flipped(student, images[:1], p, generator)) for p in (0.999, 0.001) for _ in range(3)]
    expect(images).all(any(near), "in a batch of one image it is never flipped")
    if bool((which == which[:, :1]).all()):
        return  # all or none: that is asked by each_image_has_its_own_draw
    for one, other in ((which[:, ::2], which[:, 1::2]), (which[:, :4], which[:, 4:])):
        expect(images).all(not torch.equal(one, other), "two images are always flipped together: they share a draw")
