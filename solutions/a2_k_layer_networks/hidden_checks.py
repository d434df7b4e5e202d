"""The criteria of Assignment 2 that only grading adds: other sizes, extreme values, traps.

Coding to the visible criteria must not be enough.  Messages say what went wrong, never the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from assignments.a2_k_layer_networks.checks import (
    ADAM,
    MOMENTUM,
    NESTEROV,
    RMSPROP,
    SMALL_LAYERS,
    SMALL_TWINS,
    TINY,
    Batch,
    BatchNormPasses,
    Cycle,
    Passes,
    Problem,
    Rule,
    Training,
    apart_from_factor,
    are_probabilities,
    away_from_zero,
    backward,
    backward_bn,
    batch,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_gradients,
    batch_statistics,
    bn_scores,
    cost,
    counters,
    cyclical_lr,
    dropout_backward,
    dropout_forward,
    dropped_out,
    early_stopping,
    ensemble,
    entry,
    expect_costs_before,
    expect_equal_use,
    expect_gradients_of_one_layer,
    expect_index,
    expect_layers,
    expect_new_orders,
    far_apart,
    finite,
    forward,
    forward_bn,
    forward_scores,
    gradients_by_autograd,
    hidden_b_fits,
    in_order,
    in_units,
    initialize,
    keeps_layers_apart,
    label_smoothing_cross_entropy,
    log_uniform,
    loss_of,
    network,
    network_statistics,
    normalises_somehow,
    one_example_again_and_again,
    probabilities,
    problem,
    repeats_examples,
    scalar,
    scores_of,
    scores_with,
    sizes,
    small,
    smoothing_problem,
    snapshots_of,
    spread,
    statistic,
    statistics,
    taken,
    train,
    train_snapshots,
    training_arguments,
    trains_right,
    twins,
    use_of_examples,
    weights,
    whole_set,
    wide,
    with_parts,
)
from course_utils.checking import (
    FROM_ELSEWHERE,
    Draw,
    Exercise,
    Nested,
    Student,
    Unmet,
    add_precision,
    expect,
    unchanged_arguments,
)
from course_utils.checking.draw import strided

CachedCall = Callable[[Student, Draw], Any]
Call = Callable[[Student, Draw], Any]
CacheReader = Callable[[Student, Draw, Any], Tensor]

# --- Criteria that several exercises share ---------------------------------------------------------------------------


def seeded(seed: int, moved_on: int = 0) -> torch.Generator:
    """A generator in the state after so many draws."""
    generator = torch.Generator().manual_seed(seed)
    torch.rand(moved_on, generator=generator)
    return generator


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two results are the same up to rounding."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-8)


def add_generator_criteria(
    exercise: Exercise,
    result: Callable[[Student, Draw, torch.Generator], Tensor],
    *,
    decides: bool = True,
    moves_on: bool = False,
) -> None:
    """The generator's state decides; `result(student, draw, generator)` gives random numbers, or what they did.

    With `moves_on` a second call with the same generator has to give something else, too.
    """

    @exercise.criterion(points=0.5, contract=True)
    def same_state_same_result(student: Student, draw: Draw) -> None:
        """The same state of `generator` gives the same result."""
        seed, inputs = draw.integer(0, 2**31), draw.integer(0, 2**31)
        first, second = (result(student, Draw(inputs), seeded(seed, 3)) for _ in range(2))
        expect(second).all(close(second, first), f"the result is another one{FROM_ELSEWHERE}")

    if not decides:
        return

    @exercise.criterion(points=0.5, contract=True)
    def generator_decides(student: Student, draw: Draw) -> None:
        """Another state of `generator` gives another result."""
        seed, inputs = draw.integer(0, 2**31), draw.integer(0, 2**31)
        states = seeded(seed), seeded(seed + 1), seeded(seed, 7)
        first, other, moved_on = (result(student, Draw(inputs), g) for g in states)
        differ = not torch.equal(first, other) and not torch.equal(first, moved_on)
        expect(first).all(differ, "the result is the same for generators of different states")
        if moves_on:
            again = result(student, Draw(inputs), states[0])
            text = "a second call with the same generator, which should have moved on, gives the same result"
            expect(first).all(not torch.equal(first, again), text)


def flat(structure: Any) -> Tensor:
    """All numbers of a list of dicts, in one vector."""
    tensors = [v for entry in structure for v in entry.values()]
    return torch.cat([expect(t, "a tensor").finite().tensor().double().flatten() for t in tensors])


def layers_as_vector(result: Any, shapes: Any) -> Tensor:
    """All numbers of a list of layers of known shapes, in one vector."""
    leaves = Nested("the layers", shapes).leaves(result)
    return torch.cat([finite(v, *form.shape, name=form.name).double().flatten() for form, v in leaves])


# --- Initialisation --------------------------------------------------------------------------------------------------


def initial_weights(student: Student, draw: Draw, generator: torch.Generator) -> Tensor:
    """All W of a small network."""
    shape = [5, 4, 3]
    return torch.cat([W.flatten() for W in weights(student.initialize(shape, "he", generator=generator), shape)])


add_generator_criteria(initialize, initial_weights, moves_on=True)


@initialize.criterion(points=0.5, contract=True, name="leaves_arguments_alone")
def sizes_are_left_alone(student: Student, draw: Draw) -> None:
    """The function does not change the list of sizes."""
    student.initialize(sizes(draw, 3), "xavier", generator=draw.generator())
    unchanged_arguments(student.calls[-1])


@initialize.criterion(points=0.5)
def one_layer_or_many(student: Student, draw: Draw) -> None:
    """A linear classifier and a network of ten layers have parameters of the right spread too."""
    for shape in ([3000, 3], [50, *[70, 30] * 4, 10]):
        result = student.initialize(shape, "normal", sigma=0.01, generator=draw.generator())
        for W in weights(result, shape):
            got = spread(W, 0.01)
            # Chance takes a right solution this far off once in 10⁸ times (300 numbers are the fewest).
            expect(W).all(0.0075 < got < 0.0125, f"sigma is 0.01, but the standard deviation is {got:.2g}")
    weights(student.initialize([1, 1, 2], "he", generator=draw.generator()), [1, 1, 2])  # finite


# --- The network: forward, cost, backward ----------------------------------------------------------------------------


@forward.criterion(points=0.5, contract=True)
def smallest_sizes(student: Student, draw: Draw) -> None:
    """One example, one feature, one hidden unit or two classes are no special cases."""
    p = problem(draw, 3)
    whole = forward_scores(student, p.X, p.layers)
    expect(whole).all(bool((whole != 0).any()), "every score is 0")
    i = draw.integer(0, p.N)
    scores, _ = expect(student.forward(p.X[i : i + 1], p.layers)).parts("scores", "cache")
    alone = expect(scores, "the scores of one example").finite().tensor()
    expect(alone, "the row of scores of one example alone").close_to(whole[i : i + 1])
    for shape in ([1, 4, 3], [5, 1, 3], [1, 1, 2]):
        p = problem(draw, shape=shape, N=6)
        # The same network with more units, none of which has an effect.
        wider = [{"W": F.pad(h["W"], (0, 2, 0, 2)), "b": F.pad(h["b"], (0, 2))} for h in p.layers]
        scores = forward_scores(student, p.X, p.layers)
        expected = forward_scores(student, F.pad(p.X, (0, 2)), wider)[:, : shape[-1]]
        if not are_probabilities(scores, p):  # which is the business of one_hidden_layer
            expect(scores, f"the matrix of scores for sizes {shape}").close_to(expected)


add_precision(forward, lambda student, draw: [forward_scores(student, *small(draw)[::2])])


@cost.criterion(points=0.5, contract=True)
def one_example_is_a_set(student: Student, draw: Draw) -> None:
    """A single example, which lacks most classes, is a set too: a set's cost is the mean of theirs."""
    for shape in (sizes(draw, 2), [1, 3, 2], [4, 1, 3]):
        p = problem(draw, shape=shape, N=shape[-1] + 3)
        whole = scalar(student.cost(p.X, p.y, p.layers, 0.0), "the cost")
        singly = [
            scalar(student.cost(p.X[i : i + 1], p.y[i : i + 1], p.layers, 0.0), "the cost of one example")
            for i in range(p.N)
        ]
        mean = apart_from_factor(sum(singly) / p.N, whole, p.N)
        expect(mean, "the mean of the costs of one example each").close_to(whole)


@cost.criterion(points=0.5)
def no_logarithm_of_zero(student: Student, draw: Draw) -> None:
    """Where the true class lies far behind, by more than a float32 exponential holds, the cost is right."""
    p = problem(draw, 1)
    far = torch.where(torch.arange(len(p.layers[0]["b"])) == 0, 700.0, -700.0).double()
    layers = [{**p.layers[0], "b": far}]
    expected = loss_of(p.X, p.y, layers)
    loss = apart_from_factor(student.cost(p.X, p.y, layers, 0.0), expected, 1 / p.N, name="the cost")
    expect(loss, "the cost").close_to(expected, single=True)


def saturated(p: Problem) -> Problem:
    """The same problem with a loss of next to 0, so that the regulariser stands alone."""
    last = torch.arange(len(p.layers[-1]["b"])) == 0
    far = 300 * torch.where(last, 1.0, -1.0).double()
    return Problem(p.X, torch.zeros_like(p.y), [*p.layers[:-1], {**p.layers[-1], "b": far}])


def costs(student: Student, draw: Draw) -> list[Any]:
    """Two costs: one of a loss, and one of a regulariser alone."""
    p, q = problem(draw, 2), saturated(problem(draw, 2))
    return [
        student.cost(p.X, p.y, p.layers, 0.0),
        student.cost(q.X, q.y, q.layers, 0.25),  # a power of 2 leaves the digits of the sum as they are
    ]


add_precision(cost, costs)


def own_gradients(student: Student, p: Problem, bn: bool, lam: float = 0.0) -> Tensor:
    """The student's gradients of W, b, γ and β in one vector."""
    return gradients_as_vector(Passes(student, p, lam, bn=bn).gradients, p.layers)


def gradients_as_vector(gradients: Any, layers: Any) -> Tensor:
    """All numbers of the gradients that are there; that none is missing is the business of keeps_form."""
    found, gradients = [], in_order(gradients, layers)
    for k, layer in enumerate(layers):
        for key, value in layer.items():
            there = isinstance(gradients, list | tuple) and k < len(gradients) and isinstance(gradients[k], dict)
            if key == "W" or (there and isinstance(gradients[k].get(key), Tensor)):
                found.append(entry(gradients, k, key, value.shape, "the gradients").double().flatten())
    return torch.cat(found)


def cache_of(student: Student, p: Problem, bn: bool) -> Any:
    """The handle of the cache of the student's forward pass."""
    if bn:
        return expect(student.forward_bn(p.X, p.layers, None, training=True)).parts("scores", "cache", "running")[1]
    return expect(student.forward(p.X, p.layers)).parts("scores", "cache")[1]


def gradients_from(student: Student, p: Problem, cache: Any, bn: bool) -> Tensor:
    """The student's gradients from a cache, in one vector."""
    gradients = student.call("backward_bn" if bn else "backward", p.y, p.layers, cache, 0.0)
    return gradients_as_vector(gradients, p.layers)


def add_lasting_cache(exercise: Exercise, first: CachedCall, between: Call, read: CacheReader) -> None:
    """Caches outlive further calls; `read(student, draw, cache)` is the backward pass, with the draw of `first`."""

    @exercise.criterion(points=0.5, contract=True)
    def cache_stays_valid(student: Student, draw: Draw) -> None:
        """A cache is as good after further forward calls as when it was made; your backward pass tells."""
        seed = draw.integer(0, 2**31)
        try:
            expected = read(student, Draw(seed), first(student, Draw(seed)))
        except Unmet:
            return  # without a backward pass nobody can tell
        cache = first(student, Draw(seed))
        for _ in range(2):
            between(student, draw)
        got = read(student, Draw(seed), cache)
        expect(got, "the vector of all gradients from a cache used later").close_to(expected, atol=1e-12)


def add_network_cache(exercise: Exercise, *, bn: bool) -> None:
    """Caches of a whole network's forward pass outlive further calls, with arguments of the same shapes and others."""

    def of_one_shape(draw: Draw) -> Problem:
        return problem(draw, shape=[4, 6, 5, 3], N=11, bn=bn)

    add_lasting_cache(
        exercise,
        lambda student, draw: cache_of(student, of_one_shape(draw), bn),
        lambda student, draw: [cache_of(student, p, bn) for p in (of_one_shape(draw), problem(draw, 3, bn=bn))],
        lambda student, draw, cache: gradients_from(student, of_one_shape(draw), cache, bn),
    )


add_network_cache(forward, bn=False)


def expect_the_same(got: Tensor, usual: Tensor, where: str) -> None:
    """The gradients for large scores are those for the same scores less a number for each row."""
    name = f"the vector of all gradients for scores around {where}"
    expect(got, name).close_to(usual, rtol=1e-3, atol=1e-5 * float(usual.abs().max()))


def add_backward(exercise: Exercise, *, bn: bool) -> None:
    """What hidden criteria ask of the gradients of a network, with batch normalisation or without."""

    @exercise.criterion(points=0.5)
    def with_every_bias(student: Student, draw: Draw) -> None:
        """Biases that are not zero, and classes that no example belongs to (up to the factor of the last layer's)."""
        hidden_b = not bn and hidden_b_fits(student, draw)
        for shape in (sizes(draw, 2), sizes(draw, 4), [1, 1, 2]):
            p, count = problem(draw, shape=shape, bn=bn), len(shape) - 1
            p.y[p.y == len(p.layers[-1]["b"]) - 1] = 0
            passes = Passes(student, p, bn=bn)
            for k in range(count):
                passes.check(k, "W", as_the_last=True)
                if k == count - 1 or hidden_b:
                    passes.check(k, "b", as_the_last=True)

    @exercise.criterion(points=0.25, contract=True)
    def cache_serves_again(student: Student, draw: Draw) -> None:
        """A second backward pass from the same cache gives the same gradients: the first one leaves it as it is."""
        p = problem(draw, 3, bn=bn)
        cache = cache_of(student, p, bn)
        first, second = (gradients_from(student, p, cache, bn) for _ in range(2))
        expect(first).all(bool((first != 0).any()), "every gradient is 0")
        expect(second, "the vector of all gradients, the second time,").close_to(first, atol=1e-12)

    @exercise.criterion(points=0.5, contract=True)
    def large_scores_do_no_harm(student: Student, draw: Draw) -> None:
        """Scores around 1000 and −1000 do the gradients no harm."""
        p = problem(draw, 2, bn=bn)
        passes = Passes(student, p, bn=bn)
        if "upstream" in passes.faults:
            return  # the business of weights_of_the_last_layer
        usual = gradients_as_vector(passes.gradients, p.layers)
        expect(usual).all(bool((usual != 0).any()), "every gradient is 0")
        for shift in (1000.0, -1000.0):
            layers = [*p.layers[:-1], {**p.layers[-1], "b": p.layers[-1]["b"] + shift}]
            expect_the_same(own_gradients(student, Problem(p.X, p.y, layers), bn), usual, f"{shift:g}")
        far = far_apart(draw)
        near = Problem(far.X, far.y, with_parts(far.layers, W=lambda W: torch.cat([0 * W[:1], W[1:]])))
        usual = own_gradients(student, near, bn)
        expect_the_same(own_gradients(student, far, bn), usual, "1000 in some rows and −1000 in others")
        spread = 1000 * torch.where(torch.arange(len(p.layers[-1]["b"])) == 1, 1.0, -1.0).double()
        layers = [*p.layers[:-1], {**p.layers[-1], "b": spread}]
        expected = gradients_by_autograd(lambda net: loss_of(p.X, p.y, net), layers)[-1]["b"].abs()
        passes = Passes(student, Problem(p.X, p.y, layers), bn=bn)
        got = apart_from_factor(passes.got(1, "b").abs(), expected, 1 / p.N, p.N)  # the sign is another's business
        expect(got, "the absolute value of the last gradient of b").close_to(expected)

    @exercise.criterion(points=0.5, contract=True, name="takes_any_layout")
    def layers_of_any_layout(student: Student, draw: Draw) -> None:
        """Layers that are not contiguous in memory give the same gradients."""
        p, lam = problem(draw, 3, bn=bn), draw.number(0.1, 0.3)
        gapped = [{k: strided(v) for k, v in layer.items()} for layer in p.layers]
        plain = own_gradients(student, p, bn, lam)
        same = own_gradients(student, Problem(strided(p.X), p.y, gapped), bn, lam)
        expect(same, "the vector of all gradients").close_to(plain, atol=1e-10, because="contiguous in memory")

    @exercise.criterion(points=0.5, contract=True)
    def slope_at_zero(student: Student, draw: Draw) -> None:
        """Where what goes into a ReLU is exactly 0 its slope is 0."""
        p = problem(draw, 2, bn=bn)
        keys = ("gamma", "beta") if bn else ("W", "b")
        for key in keys:
            p.layers[0][key][..., 0] = 0.0
        for value in (-1.0, 0.0):
            p.layers[0][keys[1]][0] = value
            passes = Passes(student, p, bn=bn)
            if not all(passes.has(0, key) for key in keys):
                return  # which is the business of keeps_form
            got = torch.cat([passes.got(0, key)[..., 0].flatten() for key in keys])
            if value and not bool((got == 0).all()):
                return  # that a unit which is off passes nothing on is the business of other criteria
            name = "the gradient of " + " and ".join(keys) + " of a unit whose ReLU is given 0 in every example"
            expect(got, name).close_to(torch.zeros_like(got), atol=1e-12)

    def results(student: Student, draw: Draw) -> list[Any]:
        p, q = problem(draw, 2, bn=bn), saturated(problem(draw, 2, bn=bn))
        first = Passes(student, p, bn=bn)
        second = Passes(student, q, 0.25, bn=bn)  # a power of 2 leaves the digits as they are, and so does N = 1
        one = problem(draw, 1, N=1, bn=bn)
        one.y[:] = len(one.layers[0]["b"]) - 1  # the largest label, for those who count the classes in y
        third = Passes(student, one, bn=bn)
        return [first.got(1, "W"), first.got(1, "b"), first.got(0, "W"), second.got(0, "W"), third.got(0, "b")]

    add_precision(exercise, results)


add_backward(backward, bn=False)


@backward.criterion(points=0.5, contract=True, name="one_example_is_a_set")
def gradients_of_single_examples(student: Student, draw: Draw) -> None:
    """A single example is a set too: a set's gradients are the mean of theirs, also with one feature or unit."""
    for shape in (sizes(draw, 3), [1, 3, 2], [4, 1, 3]):
        p = problem(draw, shape=shape, N=shape[-1] + 2)
        whole = Passes(student, p)
        singly = [Passes(student, Problem(p.X[i : i + 1], p.y[i : i + 1], p.layers)) for i in range(p.N)]
        for k, layer in enumerate(p.layers):
            for key, value in layer.items():
                if singly[0].has(k, key) and whole.got(k, key).shape == whole.gradients[k][key].shape:
                    got, wanted = tuple(singly[0].gradients[k][key].shape), tuple(value.shape)
                    text = f"for one example gradients[{k}][{key!r}] has the shape {got}, not {wanted}"
                    expect(singly).all(got == wanted, text)
            for key in layer:
                expected = whole.got(k, key)
                mean = sum(one.got(k, key) for one in singly) / p.N
                name = f"the mean of gradients[{k}][{key!r}] of one example each"
                mean = apart_from_factor(mean, expected, p.N, 1 / p.N, name=name)
                expect(mean, name).close_to(expected, single=True)


# --- Cyclical learning rates -----------------------------------------------------------------------------------------


@cyclical_lr.criterion(points=0.5, contract=True)
def far_into_training(student: Student, draw: Draw) -> None:
    """Any t is right: shortly before and after the turn of a cycle, and after thousands of cycles."""
    c = Cycle(draw.integer(400, 900), draw.number(0.1, 0.2), draw.number(0.5, 0.9))
    expect(c).all(c(student, 1) != c(student, 3), "lr(1) and lr(3) are the same")
    if abs(c(student, 1 + 2 * c.n_s) - c(student, 1)) > 1e-6:
        return  # that the second cycle is like the first is the business of goes_round
    for t in (1, 3, c.n_s - 1, c.n_s):
        for cycles in (1, 999, 10**6):
            later = t + 2 * c.n_s * cycles
            expect(c(student, later), f"lr({later}) for n_s = {c.n_s}").close_to(c(student, t), because=f"that of {t}")


@cyclical_lr.criterion(points=0.5)
def shortest_cycle(student: Student, draw: Draw) -> None:
    """With n_s = 1 it is at t where it is at 3 t with n_s = 3."""
    short = Cycle(1, draw.number(0.1, 0.2), draw.number(0.5, 0.9))
    long = Cycle(3, short.lr_min, short.lr_max)
    if Cycle(7, short.lr_min, short.lr_max).is_ahead(student):
        return
    expect(short).all(short(student, 0) != short(student, 1), "lr(0) and lr(1) are the same for n_s = 1")
    for t in range(5):
        expect(short(student, t), f"lr({t}) for n_s = 1").close_to(long(student, 3 * t), because=f"lr({3 * t}) for 3")


# --- Training --------------------------------------------------------------------------------------------------------


def use_in_an_epoch(student: Student, draw: Draw, generator: torch.Generator, function: str = "train") -> Tensor:
    """How far every example moved its weights in an epoch during which lr rose and fell, which tells its batch."""
    use = use_of_examples(student, counters(draw, N=24, batch_size=4, n_s=3, cycles=1), generator, function=function)
    return in_units(use, 1.0)


@train.criterion(points=0.5, contract=True)
def same_state_same_result(student: Student, draw: Draw) -> None:
    """The same state of `generator` gives the same order of the examples, and the same layers."""
    seed, inputs = draw.integer(0, 2**31), draw.integer(0, 2**31)
    first, second = (use_in_an_epoch(student, Draw(inputs), seeded(seed, 3)) for _ in range(2))
    expect(second).all(close(second, first), f"the batches are other ones{FROM_ELSEWHERE}")


@train.criterion(points=0.5, contract=True)
def generator_decides(student: Student, draw: Draw) -> None:
    """Another state of `generator` gives another order of the examples."""
    seed, inputs = draw.integer(0, 2**31), draw.integer(0, 2**31)
    states = seeded(seed), seeded(seed + 1), seeded(seed, 7)
    first, other, moved_on = (use_in_an_epoch(student, Draw(inputs), g) for g in states)
    # No shuffle at all is the business of new_order_every_epoch.
    shuffled = not bool(((blocks := first.reshape(6, 4)) - blocks[:, :1]).abs().max() <= 1e-4)
    differ = not torch.allclose(first, other, rtol=1e-4) and not torch.allclose(first, moved_on, rtol=1e-4)
    expect(first).all(differ or not shuffled, "the order is the same for generators of different states")
    again = use_in_an_epoch(student, Draw(inputs), states[0])
    text = "a second training with the same generator, which should have moved on, has the same order"
    expect(first).all(not torch.allclose(first, again, rtol=1e-4) or not shuffled or not differ, text)


@train.criterion(points=0.5, contract=True)
def without_on_step(student: Student, draw: Draw) -> None:
    """on_step may be None, as it is where it is not given; the layers are the same."""
    training, seed = whole_set(draw), draw.integer(0, 2**31)
    watched, alone = (flat(training.run(student, seeded(seed), watched=watched)) for watched in (True, False))
    name = "the vector of all numbers of the layers without on_step"
    expect(alone, name).close_to(watched, single=True, because="those with it")


@train.criterion(points=0.5, contract=True)
def regulariser_of_a_mini_batch(student: Student, draw: Draw) -> None:
    """λ pulls as much in an update on a part of the examples as in one on all of them."""
    same, pulls = one_example_again_and_again(draw, n_s=3, cycles=1), []
    for size in (len(same.X), 5):
        training = same.changed(batch_size=size, lr_min=TINY, lr_max=TINY)
        with_lam, without = (taken(student, training.changed(lam=v), draw.generator())[-1]["W"] for v in (0.2, 0.0))
        expect(without).all(bool((without != 0).any()), "the last W does not move")
        pulls.append((with_lam - without) / without.norm())  # whatever the length of an update is
    name = "what λ takes from the last W, over what the loss takes from it, in six updates on parts of the examples,"
    expect(pulls[1], name).close_to(pulls[0], rtol=1e-3, atol=1e-4, because="in six updates on all of them")


@train.criterion(points=0.5)
def batch_larger_than_the_set(student: Student, draw: Draw) -> None:
    """A batch_size larger than the set makes one batch of all examples, also where that is a single one."""
    if repeats_examples(student, draw):
        return
    for N in (7, 1):
        training = counters(draw, N=N, batch_size=10, n_s=2, cycles=1).changed(lr_max=TINY)
        use = in_units(use_of_examples(student, training, draw.generator()), float(N))
        expect(use, "how often each example was used, on average once,").close_to(torch.ones_like(use), rtol=1e-3)


@train.criterion(points=0.5)
def batches_of_one(student: Student, draw: Draw) -> None:
    """Batches of a single example are batches too."""
    if not repeats_examples(student, draw):
        expect_equal_use(student, counters(draw, N=6, batch_size=1, n_s=6, cycles=1), draw.generator())  # two epochs


@train.criterion(points=0.5)
def cost_of_the_mini_batch(student: Student, draw: Draw) -> None:
    """The cost that `on_step` is told is that of the batch at hand (λ = 0 here)."""
    p = problem(draw, 2, N=8)
    training = Training(p.X, p.y, p.layers, 0.0, 1, n_s=4, cycles=1, lr_min=0.0, lr_max=0.0)
    training.run(student, draw.generator())
    told = torch.tensor(training.column(2, "cost"), dtype=torch.float64)
    each = torch.stack([loss_of(p.X[i : i + 1], p.y[i : i + 1], p.layers) for i in range(p.N)])
    known = (told[:, None] - each).abs() <= 1e-5 * each
    expect(told).all(known.any(1), "batches are single examples, but a cost is not that of any of them")


@train.criterion(points=0.25, contract=True)
def on_step_gets_plain_numbers(student: Student, draw: Draw) -> None:
    """`on_step` is called with t, an int, with lr, and with cost, a Python float."""
    training = counters(draw, N=6, batch_size=3, n_s=1, cycles=1)
    training.run(student, draw.generator())
    for t, _, value in training.told:
        expect(t).all(type(t) is int, f"t is of type {type(t).__name__}, not int")
        expect(value).all(type(value) is float, f"the cost is of type {type(value).__name__}, not float")


def trained(student: Student, draw: Draw) -> list[Any]:
    """The student's arrays after a short training."""
    positional, named = training_arguments(draw)
    return [layers_as_vector(student.train(*positional, **named), SMALL_LAYERS)]


add_precision(train, trained)


# --- Searching λ -----------------------------------------------------------------------------------------------------

add_generator_criteria(
    log_uniform,
    lambda student, draw, generator: finite(student.log_uniform(1e-3, 1e-1, 9, generator), 9),
    decides=False,
)


@log_uniform.criterion(points=0.5, contract=True)
def narrow_and_wide(student: Student, draw: Draw) -> None:
    """Bounds that lie close together, or thirty decades apart, are kept to, and the numbers fill the range."""
    for low, high in ((0.5, 0.501), (1e-15, 1e15), (3.0, 3.0)):
        got = finite(student.log_uniform(low, high, 300, draw.generator()), 300).double()
        inside = (got >= low * (1 - 1e-5)) & (got <= high * (1 + 1e-5))
        expect(got).all(inside, "a number is not between the bounds")
        place = (got.log() - math.log(low)) / max(math.log(high) - math.log(low), 1e-30)
        halves = bool((place > 0.5).any()) and bool((place < 0.5).any())
        expect(got).all(halves or high / low != 1.002, "half of the range stays empty")


# --- Update rules ----------------------------------------------------------------------------------------------------


def add_rule(rule: Rule) -> None:
    """What hidden criteria ask of an update rule."""
    exercise = rule.exercise

    @exercise.criterion(points=0.25, contract=True)
    def any_shape(student: Student, draw: Draw) -> None:
        """Parameters of any shape take the steps of their entries: a single number, a vector, three axes."""
        constants = rule.constants(draw)
        theta, gradients = draw.normal(6), [away_from_zero(draw, 6) for _ in range(3)]
        whole = rule.path(student, theta, gradients, constants)[-1]
        expect(whole).all(bool((whole != theta).any()), "theta does not move")
        for shape in ((1, 2, 3), (6, 1)):
            shaped = rule.path(student, theta.reshape(shape), [g.reshape(shape) for g in gradients], constants)[-1]
            expect(shaped.flatten(), f"theta of shape {shape}, as a vector,").close_to(whole)
        for i in (0, 4):
            single = rule.path(student, theta[i].clone(), [g[i].clone() for g in gradients], constants)[-1]
            expect(single, "theta of shape ()").close_to(whole[i])

    @exercise.criterion(points=0.25, contract=True)
    def parameters_do_not_mix(student: Student, draw: Draw) -> None:
        """The steps of two parameters may alternate: all that is remembered is in the state."""
        constants = rule.constants(draw)
        thetas = [draw.normal(3, 2), draw.normal(4)]
        gradients = [[away_from_zero(draw, *theta.shape) for theta in thetas] for _ in range(4)]
        alone = [rule.path(student, theta, [g[j] for g in gradients], constants)[-1] for j, theta in enumerate(thetas)]
        expect(alone[0]).all(bool((alone[0] != thetas[0]).any()), "theta does not move")
        states: list[Any] = [None, None]
        for now in gradients:
            for j in (0, 1):
                thetas[j], states[j] = rule.step(student, thetas[j], now[j], states[j], constants)
        for j in (0, 1):
            expect(thetas[j], "theta after alternating steps").close_to(alone[j], because="the same steps alone")

    @exercise.criterion(points=0.25, contract=True)
    def gradients_of_zero(student: Student, draw: Draw) -> None:
        """Entries whose gradient is 0, at first or later, take the step that they should (up to a factor)."""
        constants = {**rule.constants(draw), **({"eps": 1e-8} if "eps" in rule.constants(draw) else {})}
        theta = draw.normal(4, 3)
        gradients = [away_from_zero(draw, 4, 3) for _ in range(4)]
        gradients[0][0], gradients[2][1] = 0.0, 0.0
        for grad in gradients:
            grad[3] = 0.0
        got = rule.path(student, theta, gradients, constants) - theta
        expected = rule.right_path(theta, gradients, constants) - theta
        factor = float((got[0] * expected[0]).sum() / (expected[0] ** 2).sum()) or 1.0
        scaled = got / factor if bool((got[0] / factor - expected[0]).norm() <= 1e-4 * expected[0].norm()) else got
        if not bool((scaled[:, 2] - expected[:, 2]).norm() <= 1e-3 * expected[:, 2].norm()):
            return  # the steps of entries whose gradients are never 0 are the business of other criteria
        # Where ε counts is the business of another criterion, so not to the last digit.
        expect(scaled, "theta less the first theta").close_to(expected, rtol=1e-3, atol=1e-4 * constants["lr"])

    @exercise.criterion(points=0.25, contract=True)
    def later_steps_keep_the_dtype(student: Student, draw: Draw) -> None:
        """float32 parameters stay float32 in later steps too."""
        draw.dtype = torch.float32
        theta, state, constants = draw.normal(4, 3), None, rule.constants(draw)
        for _ in range(3):
            result = student.call(exercise.name, theta, away_from_zero(draw, 4, 3), state, **constants)
            theta, state = expect(result).parts("theta", "state")
            expect(theta, "theta").dtype(torch.float32)

    @exercise.criterion(points=0.25, contract=True)
    def leaves_later_arguments_alone(student: Student, draw: Draw) -> None:
        """Later steps do not change theta and the gradient either."""
        theta, state, constants = draw.normal(4, 3), None, rule.constants(draw)
        for _ in range(3):
            theta, state = rule.step(student, theta, away_from_zero(draw, 4, 3), state, constants)
            unchanged_arguments(student.calls[-1])

    def precise_steps(student: Student, draw: Draw) -> list[Any]:
        expect_a_precise_state(rule, student, draw)
        return [
            rule.path(student, draw.normal(3), [away_from_zero(draw, 3) for _ in range(3)], rule.constants(draw)),
            # From 0, with a power of 2 for lr, the first step has no more digits than what the state holds.
            rule.path(student, torch.zeros(3).double(), [away_from_zero(draw, 3)], {**rule.constants(draw), "lr": 0.5}),
        ]

    add_precision(exercise, precise_steps)


def expect_a_precise_state(rule: Rule, student: Student, draw: Draw) -> None:
    """A state remembers a gradient to more digits than float32 has: another ninth digit makes another step."""
    constants, zero = rule.constants(draw), torch.zeros(40).double()
    first, second = away_from_zero(draw, 40), away_from_zero(draw, 40)
    steps = []
    for grad in (first, first * (1 + 3e-9), 2 * first):
        _, state = rule.step(student, zero, grad, None, constants)
        steps.append(rule.step(student, zero, second, state, constants)[0])
    if steps[0].dtype != torch.float64 or bool((steps[0] == steps[2]).any()):
        return  # the business of keeps_form, and of many_steps
    alike = (steps[0] == steps[1]).double().mean()
    expect(steps).all(bool(alike < 0.5), "the state has only the digits of float32: something in it is converted")


for one in (MOMENTUM, NESTEROV, RMSPROP, ADAM):
    add_rule(one)


# --- Batch normalisation ---------------------------------------------------------------------------------------------


@batch_norm_forward.criterion(points=0.5, contract=True)
def default_constants(student: Student, draw: Draw) -> None:
    """decay is 0.9 and eps is 1e-5 where they are not given."""
    b = batch(draw)
    small_spread = Batch(1e-3 * b.S, b.gamma, b.beta)  # its variance is of the size of eps
    m, old = len(b.gamma), statistics(draw, len(b.gamma))
    for one in (b, small_spread):
        given = student.batch_norm_forward(one.S, one.gamma, one.beta, old, training=True, decay=0.9, eps=1e-5)
        silent = student.batch_norm_forward(one.S, one.gamma, one.beta, old, training=True)
        (out, _, running), (expected, _, right) = (expect(r).parts("out", "cache", "running") for r in (silent, given))
        expected = finite(expected, *one.S.shape, name="out")
        expect(expected).all(bool((expected[0] != expected[1]).any()), "out is the same for different examples")
        expect(out, "out").close_to(expected, because="that for decay=0.9, eps=1e-5")
        for key in ("mean", "var"):
            expected = statistic(right, key, m)
            expect(statistic(running, key, m), f"running[{key!r}]").close_to(expected, because="that for decay=0.9")
    # 0 is a value like any other, and not the default.
    nearly, exactly = (small_spread.forward(student, old, training=True, eps=eps)[0] for eps in (1e-30, 0.0))
    expect(exactly, "out for eps = 0").close_to(nearly, because="that for a tiny eps")


@batch_norm_forward.criterion(points=0.5)
def constant_features(student: Student, draw: Draw) -> None:
    """A feature with the same value in every example becomes 0 (γ = 1, β = 0)."""
    b = batch(draw).plain
    if normalises_somehow(student, b):
        return
    b.S[:, 0], b.S[:, 1] = 3.0, 0.0
    out, _, _ = b.forward(student, None, training=True, eps=1e-3)
    expected = torch.zeros_like(out[:, :2])
    expect(out).all(bool((out[:, 2:] != 0).any()), "out is 0")
    expect(out[:, :2], "out for a constant feature").close_to(expected, atol=1e-6, because="S less its mean")


@batch_norm_forward.criterion(points=0.5)
def far_from_zero(student: Student, draw: Draw) -> None:
    """A feature whose mean is large beside its spread is normalised as exactly as any (N or N − 1)."""
    b = batch(draw).plain
    N = len(b.S)
    if normalises_somehow(student, b):
        return
    for m in (len(b.gamma), 1):  # a single feature is a layer too
        far = Batch(b.S[:, :m] + 1e8, b.gamma[:m], b.beta[:m])
        expected = (far.S - far.S.mean(0)) / far.S.std(0, correction=0)
        out, _, _ = far.forward(student, None, training=True)
        got = apart_from_factor(out, expected, math.sqrt(N / (N - 1)), name="out")
        expect(got, "out").close_to(expected, rtol=1e-3, atol=1e-3)


def batch_norm_cache(student: Student, draw: Draw, *, training: bool = True) -> Any:
    """The handle of the cache of a batch (9, 4)."""
    return batch(draw, 9, 4).forward(student, statistics(draw, 4), training=training)[1]


def read_batch_norm_cache(student: Student, draw: Draw, cache: Any) -> Tensor:
    """All gradients from a cache, in one vector."""
    result = student.batch_norm_backward(draw.normal(9, 4), cache)
    parts = expect(result).parts("grad_S", "grad_gamma", "grad_beta")
    return torch.cat([expect(part, "a gradient").finite().tensor().flatten() for part in parts])


def other_batches(student: Student, draw: Draw) -> None:
    """A forward pass in training, and one afterwards."""
    for training in (True, False):
        batch_norm_cache(student, draw, training=training)


add_lasting_cache(batch_norm_forward, batch_norm_cache, other_batches, read_batch_norm_cache)
add_precision(
    batch_norm_forward,
    lambda student, draw: [
        batch(draw, 8, 4).plain.forward(student, statistics(draw, 4), training=training)[0]
        for training in (True, False)
    ],
)


MODES = ((False, True), (True, True), (True, False))  # whether running statistics are given, and whether in training


@batch_norm_forward.criterion(points=0.5, contract=True)
def form_in_every_mode(student: Student, draw: Draw) -> None:
    """Also the first batch, a batch of one and an evaluation give out and running of the right form and dtype."""
    for dtype in (torch.float64, torch.float32):
        draw.dtype = dtype
        for N in (5, 1):
            for given, training in MODES:
                running = statistics(draw, 4) if given else None
                arguments = draw.normal(N, 4), draw.normal(4), draw.normal(4), running
                result = student.batch_norm_forward(*arguments, training=training)
                out, _, running = expect(result).parts("out", "cache", "running")
                for form, value in Nested("the result", [(N, 4), {"mean": (4,), "var": (4,)}]).leaves([out, running]):
                    form.check(value, dtype)


@batch_norm_backward.criterion(points=0.5, contract=True)
def with_a_large_eps(student: Student, draw: Draw) -> None:
    """ε is part of what S is divided by, and its gradient knows that; also for a single feature."""
    for m in (None, 1):
        b, seed = batch(draw, m=m), draw.integer(0, 2**31)
        tiny = BatchNormPasses(student, Draw(seed), b)
        large = BatchNormPasses(student, Draw(seed), b, eps=draw.number(0.5, 1.0))
        for name in ("grad_S", "grad_gamma"):
            if tiny.fits(name):  # what is wrong with a tiny ε too is the business of other criteria
                large.check(name)


@batch_norm_backward.criterion(points=0.5, contract=True)
def features_without_spread(student: Student, draw: Draw) -> None:
    """A single example has a grad_S of 0, and a feature that is constant one that is finite."""
    b = batch(draw)
    one = BatchNormPasses(student, draw, Batch(b.S[:1], b.gamma, b.beta), eps=1e-5).got("grad_S")
    passes = BatchNormPasses(student, draw, b)
    usual = passes.got("grad_S")
    expect(usual).all(bool((usual != 0).any()), "grad_S is 0")
    if passes.fits("grad_S"):  # what is wrong for any batch is the business of other criteria
        because = "its output is β, whatever S is"
        expect(one, "grad_S of a single example").close_to(torch.zeros_like(one), atol=1e-6, because=because)
    b.S[:, 0] = 2.0
    BatchNormPasses(student, draw, b, eps=1e-5).got("grad_S")


@batch_norm_backward.criterion(points=0.5)
def where_gamma_is_zero(student: Student, draw: Draw) -> None:
    """A feature with γ = 0 has the gradient of γ that it would have with any other γ, and grad_S = 0."""
    b, seed = batch(draw), draw.integer(0, 2**31)
    usual = BatchNormPasses(student, Draw(seed), b).got("grad_gamma")
    expect(usual).all(bool((usual != 0).any()), "grad_gamma is 0")
    b.gamma[0] = 0.0
    passes = BatchNormPasses(student, Draw(seed), b)
    expect(passes.got("grad_gamma"), "grad_gamma where γ = 0 in a feature").close_to(usual)
    got = passes.got("grad_S")[:, 0]
    expect(got, "grad_S of a feature with γ = 0").close_to(torch.zeros_like(got), atol=1e-12)


@batch_norm_backward.criterion(points=0.25, contract=True, name="cache_serves_again")
def cache_of_batch_norm_serves_again(student: Student, draw: Draw) -> None:
    """A second backward pass from the same cache gives the same gradients: the first one leaves it as it is."""
    cache, seed = batch_norm_cache(student, draw), draw.integer(0, 2**31)
    first, second = (read_batch_norm_cache(student, Draw(seed), cache) for _ in range(2))
    expect(first).all(bool((first != 0).any()), "every gradient is 0")
    expect(second, "the vector of all gradients, the second time,").close_to(first, atol=1e-12)


@batch_norm_backward.criterion(points=0.5, contract=True, name="takes_any_layout")
def upstream_of_any_layout(student: Student, draw: Draw) -> None:
    """An upstream gradient that is not contiguous in memory gives the same result."""
    seed = draw.integer(0, 2**31)
    plain, gapped = batch_norm_gradients(student, Draw(seed)), batch_norm_gradients(student, Draw(seed), strided)
    for p, g in zip(plain, gapped, strict=True):
        expect(g, "a gradient").close_to(expect(p).finite().tensor(), atol=1e-12)


def precise_gradients(student: Student, draw: Draw) -> list[Any]:
    """The three gradients of a batch, and that of β for a single example: its upstream gradient as it is."""
    one = BatchNormPasses(student, draw, batch(draw, N=1), eps=1e-5)
    return [*batch_norm_gradients(student, draw), one.got("grad_beta")]


add_precision(batch_norm_backward, precise_gradients)


# --- A network with batch normalisation ------------------------------------------------------------------------------


@forward_bn.criterion(points=0.25, contract=True, name="form_in_every_mode")
def network_in_every_mode(student: Student, draw: Draw) -> None:
    """For one layer or more, running given or None, in training or afterwards: scores and running of the right form."""
    for dtype in (torch.float64, torch.float32):
        draw.dtype = dtype
        for shape in ([4, 3], [4, 5, 3], [4, 5, 5, 3]):
            layers = network(draw, shape, bn=True)
            for given, training in MODES:
                running = network_statistics(draw, layers) if given else None
                result = student.forward_bn(draw.normal(7, 4), layers, running, training=training)
                scores, _, running = expect(result).parts("scores", "cache", "running")
                if len(shape) == 2 and running is None:
                    continue  # a_single_layer asks for the empty list
                wanted = [{"mean": (d,), "var": (d,)} for d in shape[1:-1]]
                for form, value in Nested("the result", [(7, 3), wanted]).leaves([scores, running]):
                    form.check(value, dtype)


@forward_bn.criterion(points=0.5)
def a_single_layer(student: Student, draw: Draw) -> None:
    """A network without hidden layers is a linear classifier, and has no running statistics."""
    p = problem(draw, 1, bn=True)
    for running, training in ((None, True), ([], True), ([], False)):
        scores, after = bn_scores(student, p.X, p.layers, running, training=training)
        expect(scores, "the matrix of scores").close_to(scores_of(p.X, p.layers))
        empty = isinstance(after, list | tuple) and len(after) == 0
        expect(after).all(empty, "a network without hidden layers has running statistics that are no empty list")


@forward_bn.criterion(points=0.5, contract=True)
def training_then_evaluation(student: Student, draw: Draw) -> None:
    """An evaluation normalises by the statistics that it is given: by those of the last batch, or by older ones."""
    while True:
        p = wide(twins(draw))  # so that one layer's statistics, taken for another's, make no error of shapes
        given = network_statistics(draw, p.layers)
        expected = scores_with(p.X[:3], p.layers, given)
        if bool((expected != expected[0]).any()):  # no hidden layer is dead for all three examples
            break
    others = draw.normal(p.N, p.X.shape[1], shift=0.5)
    usual, _ = bn_scores(student, p.X[:3], p.layers, given, training=False)
    expect(usual).all(bool((usual != usual[0]).any()), "the scores of different examples are the same")
    _, first = bn_scores(student, p.X, p.layers, None, training=True)
    _, second = bn_scores(student, others, p.layers, first, training=True)
    scores, _ = bn_scores(student, p.X[:3], p.layers, second, training=False)
    copies = [{key: value + 0.0 for key, value in one.items()} for one in known_statistics(second, p.layers)]
    again, _ = bn_scores(student, p.X[:3], p.layers, copies, training=False)
    expect(scores, "the matrix of scores right after training").close_to(again, because="the same statistics later")
    again, _ = bn_scores(student, p.X[:3], p.layers, given, training=False)
    expect(again, "the matrix of scores for older statistics").close_to(usual, because="the same ones before")


def known_statistics(running: Any, layers: Any) -> Any:
    """Running statistics as a list of dicts of tensors, one for each hidden layer."""
    shapes = [layer["gamma"].shape for layer in layers[:-1]]
    return [{key: entry(running, k, key, d, "running") for key in ("mean", "var")} for k, d in enumerate(shapes)]


@forward_bn.criterion(points=0.5, contract=True)
def small_batches(student: Student, draw: Draw) -> None:
    """A batch of one in training is normalised to β in every hidden layer; two classes, one feature, one unit."""
    if not trains_right(student, problem(draw, 3, bn=True)):
        return  # which is the business of other criteria
    for shape, N in ((sizes(draw, 3), 1), ([1, 3, 2], 6), ([4, 1, 3], 6)):
        p = problem(draw, shape=shape, N=N, bn=True)
        while N > 1 and any(bool((of["var"] < 0.1).any()) for of in batch_statistics(p.X, p.layers)):
            p = problem(draw, shape=shape, N=N, bn=True)
        p = wide(p)
        scores, running = bn_scores(student, p.X, p.layers, None, training=True)
        expect(scores, f"the matrix of scores of {N} examples").close_to(scores_of(p.X, p.layers), single=True)
        if len(p.layers) == 2:  # else layers may be mixed up, which scores_afterwards asks
            bn_scores(student, p.X, p.layers, running, training=False)  # finite


@forward_bn.criterion(points=0.25, contract=True)
def default_eps(student: Student, draw: Draw) -> None:
    """eps is 1e-5, in training and afterwards, and no part of the running variance: a small spread shows it."""
    p = problem(draw, 2, bn=True)
    if keeps_layers_apart(student, draw):  # else the business of scores_afterwards
        running = [{key: value * 1e-5 for key, value in one.items()} for one in network_statistics(draw, p.layers)]
        scores, _ = bn_scores(student, p.X, p.layers, running, training=False)
        expect(scores, "the matrix of scores (training=False)").close_to(scores_with(p.X, p.layers, running))
    if not trains_right(student, p):
        return  # which is the business of other criteria
    p.layers[0]["W"] = 3e-3 * p.layers[0]["W"]
    scores, running = bn_scores(student, p.X, p.layers, None, training=True)
    expect(scores, "the matrix of scores").close_to(scores_of(p.X, p.layers))
    expected = batch_statistics(p.X, p.layers)[0]["var"]
    expect(entry(running, 0, "var", expected.shape, "running"), "running[0]['var']").close_to(expected)


def normalised_scores(student: Student, draw: Draw) -> list[Any]:
    """Scores in training and afterwards."""
    X, _, layers = small(draw, True, SMALL_TWINS)
    running = network_statistics(draw, layers)
    return [bn_scores(student, X, layers, running, training=training)[0] for training in (True, False)]


add_precision(forward_bn, normalised_scores)
add_network_cache(forward_bn, bn=True)


add_backward(backward_bn, bn=True)


@backward_bn.criterion(points=0.5, name="a_single_layer")
def gradients_of_a_single_layer(student: Student, draw: Draw) -> None:
    """A network without hidden layers has a linear classifier's gradients (λ = 0; up to the last layer's factor)."""
    expect_gradients_of_one_layer(student, draw, bn=True)


@backward_bn.criterion(points=0.5, contract=True)
def small_batches_back(student: Student, draw: Draw) -> None:
    """A batch of one has gradients that are finite: those before the normalisation are 0, those after it are not."""
    p = problem(draw, 3, N=1, bn=True)
    p.layers = with_parts(p.layers, beta=torch.abs)  # a batch of one is normalised to β: no unit is dead
    passes = Passes(student, p, bn=True)
    if "normalisation" in passes.faults:
        return  # the business of weights_of_hidden_layers
    last = passes.got(2, "b")
    expect(last).all(bool((last != 0).any()), "the gradient of the last b is 0")
    for k in (0, 1):
        expect(passes.got(k, "W"), f"gradients[{k}]['W']").close_to(torch.zeros_like(p.layers[k]["W"]), atol=1e-6)
        passes.got(k, "gamma")


# --- Dropout ---------------------------------------------------------------------------------------------------------


def which_stay(student: Student, draw: Draw, generator: torch.Generator) -> Tensor:
    """Which entries stay, (30, 20)."""
    out, _ = dropped_out(student, away_from_zero(draw, 30, 20), 0.5, generator)
    return (out != 0).double()


add_generator_criteria(dropout_forward, which_stay)


@dropout_forward.criterion(points=0.5, contract=True)
def number_of_dropped_entries_varies(student: Student, draw: Draw) -> None:
    """How many entries of a row, of a column or of all are dropped is left to chance, since each has its own draw."""
    H, generator = away_from_zero(draw, 40, 30), draw.generator()
    stays = torch.stack([dropped_out(student, H, 0.5, generator)[0] != 0 for _ in range(8)]).double()
    counts = {"row": stays.sum(2), "column": stays.sum(1), "result": stays.sum((1, 2))}
    always = bool((stays == stays[0]).all())  # always the same entries: that is asked by each_entry_has_its_own_draw
    for what, count in counts.items():
        varies = len(set(count.flatten().tolist())) > 1
        expect(stays).all(varies or always, f"the number of entries dropped in a {what} is always the same")
    alike = [bool((stays == stays.select(axis, 0).unsqueeze(axis)).all()) for axis in (1, 2)]
    for shape, together in (((1, 200), alike[1]), ((200, 1), alike[0])):
        out, _ = dropped_out(student, away_from_zero(draw, *shape), 0.5, generator)
        # That rows or columns are dropped as a whole is asked by each_entry_has_its_own_draw.
        some = bool((out == 0).any()) and bool((out != 0).any())
        expect(out).all(some or together, f"all or none of the entries of an H of shape {shape} are dropped")


@dropout_forward.criterion(points=0.5, contract=True)
def entries_of_zero_stay_zero(student: Student, draw: Draw) -> None:
    """What is 0 already, as after a ReLU, stays 0, and a p near 1 leaves numbers that are finite."""
    H = torch.relu(draw.normal(30, 20))
    for p in (0.5, 0.97):
        out, _ = dropped_out(student, H, p, draw.generator())
        expect(out).all((H != 0) | (out == 0), "an entry of 0 became something else")
        expect(out).all(out >= 0, "a positive entry became negative")
        expect(out).all(bool((out != 0).any()) or p > 0.9, "every entry is dropped")


def dropout_cache(student: Student, draw: Draw, p: float = 0.5, *, training: bool = True) -> Any:
    """The handle of the cache of a forward pass of (12, 9) numbers."""
    return dropped_out(student, away_from_zero(draw, 12, 9), p, draw.generator(), training=training)[1]


def read_dropout_cache(student: Student, draw: Draw, cache: Any) -> Tensor:
    """The gradient from a cache, as a vector."""
    return finite(student.dropout_backward(draw.normal(12, 9), cache), 12, 9).flatten()


@dropout_forward.criterion(points=0.5, contract=True, name="cache_stays_valid")
def dropout_cache_stays_valid(student: Student, draw: Draw) -> None:
    """A cache is as good after further forward calls as when it was made; your backward pass tells."""
    H, upstream, generator = away_from_zero(draw, 12, 9), draw.normal(12, 9), draw.generator()
    out, cache = dropped_out(student, H, 0.5, generator)
    try:
        expect(student.dropout_backward(upstream, cache)).close_to(upstream * out / H)
    except Unmet:
        return  # without a backward pass nobody can tell
    out, cache = dropped_out(student, H, 0.5, generator)
    for p, training in ((0.5, False), (0.5, True), (0.2, True), (0.5, False)):
        dropout_cache(student, draw, p, training=training)
    got = student.dropout_backward(upstream, cache)
    expect(got, "the gradient from a cache used later").close_to(upstream * out / H)


@dropout_forward.criterion(points=0.25, contract=True, name="takes_any_layout")
def dropout_of_any_layout(student: Student, draw: Draw) -> None:
    """An input that is not contiguous in memory is dropped and scaled like any other."""
    H = away_from_zero(draw, 30, 20)
    out, _ = dropped_out(student, strided(H), 0.5, draw.generator())
    ratio = out / H
    expect(out).all(bool((out != 0).any()), "every entry is dropped")
    alike = (ratio == 0) | ((ratio - ratio.max()).abs() <= 1e-6)
    expect(out).all(alike, "the entries that stay are not all multiplied by one factor")


add_precision(
    dropout_forward,
    lambda student, draw: [
        dropped_out(student, draw.normal(20, 9), 0.3, draw.generator(), training=training)[0]
        for training in (True, False)
    ],
)


@dropout_backward.criterion(points=0.5, contract=True)
def where_the_input_is_zero(student: Student, draw: Draw) -> None:
    """An entry that was 0 already but was not dropped has a gradient: the mask decides, not the output."""
    for shape in ((40, 30), (1, 1200), (1200, 1)):  # a batch of one and a single unit are no special cases
        H, upstream, p = away_from_zero(draw, *shape), away_from_zero(draw, *shape), draw.number(0.3, 0.5)
        H.view(-1)[::2] = 0.0
        _, cache = dropped_out(student, H, p, draw.generator())
        got = finite(student.dropout_backward(upstream, cache), *shape).flatten()
        shares = [(got[k::2] != 0).double().mean().item() for k in (0, 1)]
        # Chance takes a right solution this far off once in 10¹⁰ times (Hoeffding's inequality for the difference).
        text = f"{shares[0]:.0%} of the gradients are not 0 where the input is 0, {shares[1]:.0%} elsewhere"
        expect(got).all(abs(shares[0] - shares[1]) < 0.2 and shares[1] > 0, text)


@dropout_backward.criterion(points=0.25, contract=True, name="cache_serves_again")
def cache_of_dropout_serves_again(student: Student, draw: Draw) -> None:
    """A second backward pass from the same cache gives the same result: the first one leaves it as it is."""
    cache, seed = dropout_cache(student, draw), draw.integer(0, 2**31)
    first, second = (read_dropout_cache(student, Draw(seed), cache) for _ in range(2))
    expect(first).all(bool((first != 0).any()), "every gradient is 0")
    expect(second, "the result the second time").close_to(first)


@dropout_backward.criterion(points=0.25, contract=True, name="takes_any_layout")
def dropout_upstream_of_any_layout(student: Student, draw: Draw) -> None:
    """An upstream gradient that is not contiguous in memory gives the same result."""
    _, cache = dropped_out(student, away_from_zero(draw, 12, 9), 0.5, draw.generator())
    upstream = draw.normal(12, 9)
    plain = finite(student.dropout_backward(upstream, cache), 12, 9)
    expect(student.dropout_backward(strided(upstream), cache)).close_to(plain)


def dropout_gradient(student: Student, draw: Draw) -> list[Any]:
    """The student's gradient for a random upstream gradient."""
    _, cache = dropped_out(student, away_from_zero(draw, 12, 9), 0.3, draw.generator())
    return [student.dropout_backward(draw.normal(12, 9), cache)]


add_precision(dropout_backward, dropout_gradient)


# --- Bonus -----------------------------------------------------------------------------------------------------------


@ensemble.criterion(points=0.5)
def every_model_counts_alike(student: Student, draw: Draw) -> None:
    """One more model changes the result by its share, in whichever place it stands."""
    for N, K in ((1, 2), (6, 3)):
        given = probabilities(draw, 4, N, K)
        result = finite(student.ensemble(given), N, K)
        others = finite(student.ensemble(probabilities(draw, 4, N, K)), N, K)
        expect(result).all(N == 1 or not torch.equal(result, others), "the result is the same for other models")
        for other, what in ((given[::-1], "in reverse order"), ([given[-1], *given[:-1]], "with the last one first")):
            expect(student.ensemble(other), f"the result for the models {what}").close_to(result)


add_precision(ensemble, lambda student, draw: [student.ensemble(probabilities(draw, 3))])


@train_snapshots.criterion(points=0.5)
def every_example_once_an_epoch(student: Student, draw: Draw) -> None:
    """Each epoch uses every example once, in a new order (here a cycle is two epochs, or four updates are one)."""
    for N, n_s, cycles, batch_size in ((12, 3, 2, 4), (12, 2, 1, 3), (1, 2, 1, 3)):
        training = counters(draw, N=N, batch_size=batch_size, n_s=n_s, cycles=cycles).changed(lr_max=TINY)
        W = training.layers[0]["W"]
        last = snapshots_of(student, training, draw.generator())[-1]
        moved = entry(last, 0, "W", W.shape, "the layers").double() - W
        use = in_units((moved[:, 0] - moved[:, 1]) / training.X.diagonal(), float(N))
        expect(use, "how often each example was used, on average once,").close_to(torch.ones_like(use), rtol=1e-3)
    expect_new_orders(student, draw, "train_snapshots")


@train_snapshots.criterion(points=0.5)
def on_step_is_told(student: Student, draw: Draw) -> None:
    """`on_step(t, lr, cost)` is called after every update as in `train`, and t runs on from cycle to cycle."""
    training = whole_set(draw, n_s=1).changed(lam=draw.number(0.1, 0.3))
    last = snapshots_of(student, training, draw.generator())[-1]
    try:
        expect_layers(last, training.changed(lam=0.0).after(training.updates), "without λ")
    except Unmet:  # else λ is forgotten everywhere, which last_is_the_end_of_training says
        expect_costs_before(training, last, "train_snapshots")
    training = counters(draw, N=9, batch_size=3, n_s=2, cycles=3)
    snapshots_of(student, training, draw.generator())
    told = training.column(0, "t")
    text = f"on_step was given t = {', '.join(f'{t:g}' for t in told)}"
    expect(told).all(told == list(range(training.updates)), text)
    lr = torch.tensor(training.column(1, "lr"), dtype=torch.float64)
    expected = torch.tensor([training.lr(t) for t in range(training.updates)], dtype=torch.float64)
    expect(lr, "the lr that on_step was given").close_to(expected, rtol=1e-3)


@train_snapshots.criterion(points=0.5, contract=True, name="same_state_same_result")
def same_state_same_snapshots(student: Student, draw: Draw) -> None:
    """The same state of `generator` gives the same snapshots, another state gives others."""
    seed, inputs, results = draw.integer(0, 2**31), draw.integer(0, 2**31), []
    for generator in (seeded(seed, 3), seeded(seed, 3), seeded(seed + 1)):
        training = counters(Draw(inputs), N=12, batch_size=3, n_s=2, cycles=2)
        snapshots = snapshots_of(student, training, generator)
        results.append(torch.cat([flat(snapshot) for snapshot in snapshots]))
    first, second, other = results
    expect(first).all(bool((first != 0).any()), "nothing moves")
    expect(second, "the vector of all numbers of the snapshots").close_to(first, because="the first time")
    expect(first).all(not torch.equal(first, other), "the snapshots are the same for generators of different states")


@label_smoothing_cross_entropy.criterion(points=0.5)
def all_classes_alike(student: Student, draw: Draw) -> None:
    """ε = 1 makes every class as likely as any other, whatever the labels are (as a mean or as a sum)."""
    scores, y = smoothing_problem(draw)
    expected = -torch.log_softmax(scores, 1).mean()
    loss = apart_from_factor(student.label_smoothing_cross_entropy(scores, y, 1.0), expected, 1 / len(y))
    expect(loss, "the loss").close_to(expected)


@label_smoothing_cross_entropy.criterion(points=0.5, contract=True, name="one_example_is_a_set")
def smoothed_single_examples(student: Student, draw: Draw) -> None:
    """A single example is a set too, and so are two classes: a set's loss is the mean of theirs."""
    for K in (2, 5):
        scores, y, epsilon = draw.normal(6, K), draw.labels(6, K), draw.number(0.1, 0.4)
        whole = scalar(student.label_smoothing_cross_entropy(scores, y, epsilon), "the loss")
        singly = [
            scalar(student.label_smoothing_cross_entropy(scores[i : i + 1], y[i : i + 1], epsilon), "the loss")
            for i in range(6)
        ]
        mean = apart_from_factor(sum(singly) / 6, whole, 6)
        expect(mean, "the mean of the losses of one example each").close_to(whole)


@label_smoothing_cross_entropy.criterion(points=0.5)
def far_scores(student: Student, draw: Draw) -> None:
    """Scores that lie ±1000 apart give a loss that is large and right (as a mean or as a sum)."""
    (scores, y), epsilon = smoothing_problem(draw), draw.number(0.2, 0.5)
    scores[:, 0] += 1000
    scores[::2, 1] -= 1000
    expected = F.cross_entropy(scores, y, label_smoothing=epsilon)
    loss = apart_from_factor(student.label_smoothing_cross_entropy(scores, y, epsilon), expected, 1 / len(y))
    # Where ε goes is the business of another criterion: the loss is as large as it should be within a factor.
    ratio = float(loss / expected)
    expect(loss, "the loss").finite().all(0.3 < ratio < 20, f"the loss is {ratio:.2g} times what it should be")


add_precision(
    label_smoothing_cross_entropy,
    lambda student, draw: [student.label_smoothing_cross_entropy(*smoothing_problem(draw), draw.number(0.1, 0.4))],
)


@early_stopping.criterion(points=0.5)
def patience_of_one(student: Student, draw: Draw) -> None:
    """With patience 1 the first epoch without a new best is the last one; a single epoch is a training too."""
    expect_index(student, [3.0, 2.0, 2.5, 1.0], 1, 1)
    expect_index(student, [3.0, 4.0, 1.0], 1, 0)
    expect_index(student, [3.0], 1, 0)
    expect_index(student, [3.0], 4, 0)


@early_stopping.criterion(points=0.5)
def any_numbers(student: Student, draw: Draw) -> None:
    """Costs may be negative, large or tiny, and patience longer than the training."""
    for scale, shift in ((1.0, -5.0), (1e6, 0.0), (1e-9, 0.0)):
        costs = [c * scale + shift for c in (4.0, 3.0, 3.5, 3.2, 2.9, 3.0, 3.1, 3.2, 1.0)]
        expect_index(student, costs, 3, 4)
        expect_index(student, costs, 40, 8)
    falling = [1 - 1e-7 * i for i in range(5)]  # by so little, but strictly below the best so far every time
    expect_index(student, [*falling, 1.0, 2.0, 0.5], 2, 4)
