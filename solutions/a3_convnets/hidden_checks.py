"""The criteria of Assignment 3 that only grading adds: other sizes, extreme values, traps.

Coding to the visible criteria must not be enough.  Messages say what went wrong, never the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from assignments.a3_convnets.checks import (
    CONV2D,
    MAX_POOL2D,
    SIDE,
    Block,
    Conv,
    ConvBlock,
    ConvNet,
    Epoch,
    Evaluation,
    Folded,
    Layer,
    Look,
    NetPasses,
    NetProblem,
    Passes,
    ResidualBlock,
    SeparableConvBlock,
    augment,
    augmented,
    balanced_batches,
    batches_of,
    channels,
    class_weights,
    close,
    col2im,
    columns_of,
    confusion_matrix,
    conv2d_backward,
    conv2d_forward,
    conv_net,
    conv_out,
    conv_passes,
    conv_transpose2d,
    convolution,
    convolved,
    counted,
    cycles,
    cyclical_lr_doubling,
    dilated,
    dilated_conv2d,
    distinct,
    epoch_of,
    evaluate,
    expect_field,
    expect_scores,
    fgsm,
    generator_of,
    im2col,
    is_empty,
    kept,
    labels,
    layers_of,
    max_pool2d_backward,
    max_pool2d_forward,
    net_out,
    net_problem,
    net_scores,
    number,
    numbered,
    output_of,
    patchify,
    patchify_net_backward,
    patchify_net_forward,
    pictures,
    pool_passes,
    pool_passes_but_for_a_factor,
    pooling,
    receptive_field,
    saliency_map,
    scores_of,
    small_convolution,
    small_net,
    small_pooling,
    smooth_labels,
    smoothed,
    stamped,
    stamped_by,
    tiled_images,
    train_epoch,
    transposed_convolution,
    uneven_labels,
    varied,
    with_every_axis,
)
from course_utils.checking import Draw, Exercise, Form, Student, add_precision, away_from_zero, expect, finite, strided

# --- Patches and columns ---------------------------------------------------------------------------------------------


@patchify.criterion(points=0.5)
def patches_of_one_pixel(student: Student, draw: Draw) -> None:
    """With f = 1 every pixel is a patch; one image or one channel is no special case."""
    for N, C in ((1, 3), (2, 1)):
        H, W = distinct(draw, 2, 2)
        images = draw.normal(N, C, H, W)
        expected = torch.stack([images[:, :, i, j] for i in range(H) for j in range(W)], 1)
        got = with_every_axis(student.patchify(images, 1), *expected.shape, name="the patches")
        expect(got, "the patches").close_to(expected)


@patchify.criterion(points=0.25, contract=True)
def bytes_stay_bytes(student: Student, draw: Draw) -> None:
    """Images of whole numbers keep their dtype."""
    images = draw.integers(0, 256, 2, 3, 4, 6).to(torch.uint8)
    patches = student.patchify(images, 2)
    Form("the patches", (2, 6, 12), dtype=torch.uint8).check(patches, torch.float64)
    expected = finite(student.patchify(images.double(), 2), 2, 6, 12, name="the patches")
    expect(patches, "the patches of uint8").equal(expected.to(torch.uint8))


add_precision(patchify, lambda student, draw: [student.patchify(*tiled_images(draw))])


def together(draw: Draw) -> list[Conv]:
    """Convolutions with both a stride and a padding, none of whose sizes divide."""
    return [convolution(draw, stride, padding) for stride, padding in ((2, 1), (3, 2), (2, 2))]


def smallest(draw: Draw) -> list[Conv]:
    """One image, one channel, one filter of one pixel; and a filter as large as the image."""
    whole = convolution(draw, bias=False)
    kh, kw = whole.kernel
    one = Conv(draw.normal(1, 1, 3, 4), away_from_zero(draw, 1, 1, 1, 1), torch.zeros(1, dtype=draw.dtype))
    return [one, replace(whole, X=whole.X[:, :, :kh, :kw].clone())]


@im2col.criterion(points=0.5)
def stride_and_padding_together(student: Student, draw: Draw) -> None:
    """A stride and a padding at once: the windows start in the corner of the zeros."""
    for p in together(draw):
        expected = columns_of(student, p.padded())
        varied(expected, *expected.shape, name="the columns")
        expect(columns_of(student, p), "the columns").close_to(expected, because="your columns for padded images")


@im2col.criterion(points=0.5)
def smallest_sizes(student: Student, draw: Draw) -> None:
    """One image, one channel, windows of one pixel or of the whole image are no special cases."""
    for p in smallest(draw):
        right = functional.unfold(p.X, p.kernel, stride=p.stride)
        got = with_every_axis(student.im2col(p.X, *p.kernel, p.stride, p.padding), *right.shape, name="the columns")
        expect(got.flatten().sort().values, "the numbers, sorted,").close_to(right.flatten().sort().values)


add_precision(im2col, lambda student, draw: [columns_of(student, convolution(draw, square=True))])


@col2im.criterion(points=0.5, name="stride_and_padding_together")
def fold_with_stride_and_padding(student: Student, draw: Draw) -> None:
    """A stride and a padding at once: as without padding, less the edge."""
    for p in together(draw):
        folded, without = Folded(student, draw, p), p.padded()
        larger = varied(folded.of(without, folded.columns), *without.X.shape, name="the images")
        n = p.padding
        folded.expected = larger[:, :, n:-n, n:-n]
        folded.check("the inner part of your images without padding")


@col2im.criterion(points=0.5, name="smallest_sizes")
def fold_of_smallest_sizes(student: Student, draw: Draw) -> None:
    """One image, one channel, windows of one pixel or of the whole image are no special cases."""
    for p in smallest(draw):
        Folded(student, draw, p).check("each entry at its own pixel")


add_precision(col2im, lambda student, draw: [Folded(student, draw, convolution(draw)).images])


# --- Layers ----------------------------------------------------------------------------------------------------------


@conv2d_forward.criterion(points=0.5, name="stride_and_padding_together")
def conv_with_stride_and_padding(student: Student, draw: Draw) -> None:
    """A stride and a padding at once: the windows start in the corner of the zeros."""
    for p in together(draw):
        expected = varied(conv_out(student, p.padded()), *convolved(*p.arguments).shape, name="out")
        expect(conv_out(student, p), "out").close_to(expected, because="your out for padded images")


@conv2d_forward.criterion(points=0.5, contract=True, name="smallest_sizes")
def conv_of_smallest_sizes(student: Student, draw: Draw) -> None:
    """One image, one channel and one filter are no special cases, nor is a filter as large as the image."""
    p = convolution(draw)
    every = conv_out(student, p)
    kh, kw = p.kernel
    n, k = draw.integer(0, len(p.X)), draw.integer(0, len(p.b))
    one = replace(p, X=p.X[n : n + 1].clone())
    out, _ = expect(student.conv2d_forward(*one.arguments)).parts("out", "cache")
    together = every[n : n + 1]
    expect(with_every_axis(out, *together.shape, name="out"), "out for one image").close_to(together)
    one = replace(p, filters=p.filters[k : k + 1].clone(), b=p.b[k : k + 1].clone())
    expect(conv_out(student, one), "out for one filter").close_to(every[:, k : k + 1])
    first = torch.arange(p.X.shape[1])[:, None, None] == 0
    alone = conv_out(student, replace(p, X=torch.where(first, p.X, 0.0)))
    one = replace(p, X=p.X[:, :1].clone(), filters=p.filters[:, :1].clone())
    expect(conv_out(student, one), "out for one channel").close_to(alone, because="out where the others are 0")
    corner = replace(p, X=p.X[:, :, :kh, :kw].clone())
    expect(conv_out(student, corner), "out for a filter as large as the image").close_to(every[:, :, :1, :1])
    pixel = replace(p, filters=p.filters[:, :, :1, :1].clone())
    every = varied(conv_out(student, pixel), *convolved(*pixel.arguments).shape, name="out")
    row = conv_out(student, replace(pixel, X=p.X[:, :, :1].clone()))
    expect(row, "out for a row of pixels and filters of one pixel").close_to(every[:, :, :1])


add_precision(conv2d_forward, lambda student, draw: [conv_out(student, convolution(draw, bias=False, square=True))])


def add_hidden_pair_criteria(layer: Layer, exercise: Exercise, arguments: Callable[[Draw], tuple[Any, ...]]) -> None:
    """Layout and precision, for the backward function of a layer."""

    @exercise.criterion(points=0.5, contract=True)
    def takes_any_layout(student: Student, draw: Draw) -> None:
        """A grad_out that is not contiguous in memory gives the same gradients."""
        given = arguments(draw)
        plain = Passes(student, draw, layer, given)
        gapped = Passes(student, draw, layer, given, strided(plain.grad_out))
        pairs = zip(plain.as_they_are(), gapped.as_they_are(), layer.gradients, strict=True)
        for expected, got, name in pairs:
            because = "the gradient for the same numbers, contiguous in memory"
            expect(got, name).close_to(expected, because=because)

    add_precision(exercise, lambda student, draw: Passes(student, draw, layer, arguments(draw)).gradients)


def expect_padded_gradients(student: Student, draw: Draw, p: Conv) -> None:
    """The gradients are those for images with the zeros around them already, less the edge."""
    passes, expected, n = conv_passes(student, draw, p), [None] * 3, p.padding
    if passes.right:
        own = conv_passes(student, draw, p.padded(), passes.grad_out)
        if own.right and not is_empty(own.gradients[0]):
            whole = [varied(own.got(k), *own.leaves[k].shape, name=CONV2D.gradients[k]) for k in (0, 1)]
            expected = [whole[0][:, :, n:-n, n:-n], whole[1], None]
    for k in (0, 1):
        passes.check(k, expected[k], "yours for images with the zeros around them already, less the edge")


@conv2d_backward.criterion(points=0.5, name="stride_and_padding_together")
def gradients_with_stride_and_padding(student: Student, draw: Draw) -> None:
    """A stride and a padding at once."""
    for p in together(draw):
        expect_padded_gradients(student, draw, p)


@conv2d_backward.criterion(points=0.5, contract=True, name="smallest_sizes")
def gradients_of_smallest_sizes(student: Student, draw: Draw) -> None:
    """The gradients for a set of images are those of its single images, also for one filter of one pixel."""
    pixel = Conv(draw.normal(2, 1, 3, 4), away_from_zero(draw, 1, 1, 1, 1), draw.normal(1))
    for p in (convolution(draw), pixel):
        together = conv_passes(student, draw, p)
        singly = [
            conv_passes(student, draw, replace(p, X=p.X[n : n + 1].clone()), together.grad_out[n : n + 1])
            for n in range(len(p.X))
        ]
        joined = [torch.cat([one.got(0) for one in singly]), sum(one.got(1) for one in singly)]
        for k in (0, 1):
            name = CONV2D.gradients[k]
            if joined[k].numel() > 1:
                varied(joined[k], *together.leaves[k].shape, name=name)
            expect(together.gradients[k], name).close_to(joined[k], because="from yours for one image each")


add_hidden_pair_criteria(CONV2D, conv2d_backward, small_convolution)


@max_pool2d_forward.criterion(points=0.5, name="smallest_sizes")
def pooling_of_smallest_sizes(student: Student, draw: Draw) -> None:
    """Windows of one pixel, or one as large as the image; one image and one channel."""
    X = draw.uniform(0.1, 1, 1, 1, 4, 5)
    for images, k, stride in ((X, 1, 1), (X[:, :, :, :4].clone(), 4, 4)):
        out, _ = expect(student.max_pool2d_forward(images, k, stride)).parts("out", "cache")
        right = functional.max_pool2d(images, k, stride)
        expect(with_every_axis(out, *right.shape, name="out"), "out").close_to(right)


add_precision(
    max_pool2d_forward,
    lambda student, draw: [expect(student.max_pool2d_forward(*small_pooling(draw))).parts("out", "cache")[0]],
)


@max_pool2d_backward.criterion(points=0.5)
def ties_of_overlapping_windows(student: Student, draw: Draw) -> None:
    """Windows that overlap may choose different pixels among ties, but each gives its gradient to one."""
    X, k, stride = pooling(draw, 3, 2, divides=True)
    values = draw.integers(0, 2, *X.shape).to(X.dtype)
    H, W = functional.max_pool2d(values, k, stride).shape[2:]
    # Window m has the gradient 2ᵐ, so the binary digits of a pixel's sum say which windows have chosen it.
    powers = (2.0 ** torch.arange(H * W, dtype=X.dtype)).reshape(H, W).expand(*X.shape[:2], H, W).clone()
    got = pool_passes_but_for_a_factor(student, draw, (values, k, stride), powers).got(0).double()
    whole = bool((got >= 0).all()) and bool((got == got.round()).all())
    expect(got).all(whole, "a pixel has another gradient than the sum of those of some windows")
    for m, (i, j) in enumerate((i, j) for i in range(H) for j in range(W)):
        chosen = (got / 2**m).floor() % 2 == 1
        text = "the gradient of a window does not come to exactly one pixel"
        expect(chosen).all(chosen.sum((2, 3)) == 1, text)
        window = slice(i * stride, i * stride + k), slice(j * stride, j * stride + k)
        inside = chosen[:, :, window[0], window[1]]
        expect(inside).all(inside.sum((2, 3)) == 1, "the pixel that gets a window's gradient lies outside of it")
        pixels = values[:, :, window[0], window[1]]
        largest = (pixels * inside).sum((2, 3)) == pixels.amax((2, 3))
        expect(largest).all(largest, "the pixel that gets a window's gradient is not a largest one")


@max_pool2d_backward.criterion(points=0.5, contract=True, name="smallest_sizes")
def pooling_gradients_of_smallest_sizes(student: Student, draw: Draw) -> None:
    """The gradient for a set of images is that of its single images, channels and windows, joined."""
    X, k, stride = pooling(draw, 2, 2, divides=True)
    together = pool_passes(student, draw, (X, k, stride))
    whole = varied(together.got(0), *X.shape, name="grad_X")
    n, c = draw.integer(1, X.shape[0]), draw.integer(1, X.shape[1])
    one = pool_passes(student, draw, (X[n : n + 1].clone(), k, stride), together.grad_out[n : n + 1])
    expect(one.got(0), "grad_X for one image").close_to(whole[n : n + 1])
    one = pool_passes(student, draw, (X[:, c : c + 1].clone(), k, stride), together.grad_out[:, c : c + 1])
    expect(one.got(0), "grad_X for one channel").close_to(whole[:, c : c + 1])
    corner = pool_passes(student, draw, (X[:, :, :k, :k].clone(), k, stride), together.grad_out[:, :, :1, :1])
    expect(corner.got(0), "grad_X for a window as large as the image").close_to(whole[:, :, :k, :k])


add_hidden_pair_criteria(MAX_POOL2D, max_pool2d_backward, small_pooling)


@conv_transpose2d.criterion(points=0.5, name="stride_and_padding_together")
def transposed_with_stride_and_padding(student: Student, draw: Draw) -> None:
    """A stride and a padding at once: the result for padding 0, less the edge."""
    for stride, padding in ((2, 1), (3, 1), (2, 2)):
        p = transposed_convolution(draw, stride, padding)
        larger = replace(p, padding=0)
        whole = varied(stamped_by(student, larger), *stamped(larger).shape)
        expected = whole[:, :, padding:-padding, padding:-padding]
        expect(stamped_by(student, p)).close_to(expected, because="the inner part of yours for padding 0")


@conv_transpose2d.criterion(points=0.5, contract=True, name="smallest_sizes")
def transposed_of_smallest_sizes(student: Student, draw: Draw) -> None:
    """One image, one channel of the result and one pixel are no special cases."""
    p = transposed_convolution(draw)
    every = varied(stamped_by(student, p), *stamped(p).shape)
    n, k = draw.integer(0, len(p.X)), draw.integer(0, len(p.b))
    one = replace(p, X=p.X[n : n + 1].clone())
    got = with_every_axis(student.conv_transpose2d(*one.arguments), *stamped(one).shape)
    expect(got, "the result for one image").close_to(every[n : n + 1])
    one = replace(p, filters=p.filters[:, k : k + 1].clone(), b=p.b[k : k + 1].clone())
    expect(stamped_by(student, one), "the result for one map").close_to(every[:, k : k + 1])
    corner = replace(p, X=p.X[:, :, :1, :1].clone(), stride=2)
    expect(stamped_by(student, corner), "the result for one pixel").close_to(
        stamped_by(student, replace(corner, stride=1))
    )
    pixel = replace(p, X=p.X[:, :1].clone(), filters=p.filters[:1, :, :1, :1].clone())
    every = varied(stamped_by(student, pixel), *stamped(pixel).shape)
    row = replace(pixel, X=pixel.X[:, :, :1].clone())
    got = with_every_axis(student.conv_transpose2d(*row.arguments), *stamped(row).shape)
    expect(got, "the result for one channel and filters of one pixel").close_to(every[:, :, : got.shape[2]])


add_precision(
    conv_transpose2d, lambda student, draw: [stamped_by(student, transposed_convolution(draw, bias=False, square=True))]
)


@receptive_field.criterion(points=0.5)
def everything_together(student: Student, draw: Draw) -> None:
    """Kernels, strides and dilations of deep stacks; a kernel of 1 widens nothing, its stride counts all the same."""
    for count in (3, 5):
        layers = [(draw.integer(2, 5), draw.integer(1, 4), draw.integer(1, 4)) for _ in range(count)]
        layers[draw.integer(0, count - 1)] = (1, 2, 3)
        expect_field(student, layers, alone=True)


# --- The patchify net ------------------------------------------------------------------------------------------------


@patchify_net_forward.criterion(points=0.5)
def whole_net(student: Student, draw: Draw) -> None:
    """All of it at once: several patches, both ReLUs, every bias; also for one image and two classes."""
    p = net_problem(draw)
    p.patches *= 20  # beyond where a ReLU6 cuts off
    expect_scores(student, p)
    p = net_problem(draw, N=1, K=2)
    expect_scores(student, p)
    scores, _ = expect(student.patchify_net_forward(p.patches, p.params)).parts("scores", "cache")
    with_every_axis(scores, 1, 2, name="the scores")


add_precision(
    patchify_net_forward,
    lambda student, draw: [net_scores(student, net_problem(draw, bias=False))],
)


@patchify_net_backward.criterion(points=0.5)
def large_scores_do_not_overflow(student: Student, draw: Draw) -> None:
    """Scores around 1000 and −1000 do the gradients no harm."""
    p = net_problem(draw)
    spread = torch.linspace(-1, 1, len(p.params["b2"]), dtype=torch.float64)
    for b2 in (p.params["b2"] + 1000, p.params["b2"] - 1000, 1000 * spread):
        passes = NetPasses(student, replace(p, params=p.params | {"b2": b2}))
        passes.check("b2")
    while True:
        p = net_problem(draw, bias=False)  # scores grow with the patches here
        largest = scores_of(p.patches, p.params).amax(1)
        n = int(largest.argmax())
        if largest[n] > 0.1:
            break
    p.patches[n] *= 1500 / largest[n]  # no other image's scores are large
    NetPasses(student, p).check("b2")


@patchify_net_backward.criterion(points=0.25, contract=True)
def one_image_is_a_set(student: Student, draw: Draw) -> None:
    """A single image, which lacks most classes, is a set too: a set's gradients are the mean of theirs."""
    p = net_problem(draw, N=4)
    whole, N = NetPasses(student, p), p.N
    singly = [NetPasses(student, NetProblem(p.patches[n : n + 1], p.y[n : n + 1], p.params)) for n in range(N)]
    for key in ("W2", "F"):
        together, mean = whole.got(key), sum(one.got(key) for one in singly) / N
        # Whether a mean over images is taken is the business of another criterion.
        mean = N * mean if close(N * mean, together, 1e-4) else mean
        varied(mean, *together.shape, name=f"gradients[{key!r}]")
        expect(together, f"gradients[{key!r}]").close_to(mean, because="from yours for one image each")


def net_gradients(student: Student, draw: Draw) -> list[Tensor]:
    """The student's gradients of F, W1 and W2."""
    patches, params = small_net(draw)
    passes = NetPasses(student, NetProblem(patches, labels(draw, 9, 5), params), 0.0)
    return [passes.got(k) for k in ("F", "W1", "W2", "b")]


add_precision(patchify_net_backward, net_gradients)


# --- Labels and learning rates ---------------------------------------------------------------------------------------


@smooth_labels.criterion(points=0.5, contract=True)
def rows_sum_to_one(student: Student, draw: Draw) -> None:
    """Every row is a distribution: its entries add up to 1, for any ε from 0 to 1."""
    for epsilon in (draw.number(0.1, 0.5), 1.0):
        targets, _, _ = smoothed(student, draw, epsilon)
        expect(targets.sum(1), "the sum of a row").close_to(torch.ones(len(targets)), single=True)
    for N, K in ((9, 7), (1, 2)):  # not every class occurs
        targets = expect(student.smooth_labels(labels(draw, N, min(N, 4)), K, 0.3), "the targets").tensor()
        if tuple(targets.shape) == (N, K):  # another shape is the business of keeps_form
            expect(targets.sum(1), "the sum of a row").close_to(torch.ones(N), single=True)


@smooth_labels.criterion(points=0.5)
def two_classes_and_one_label(student: Student, draw: Draw) -> None:
    """A single label, of two classes or of a hundred."""
    for K in (2, 100):
        y, epsilon = draw.integers(0, K, 1), draw.number(0.1, 0.5)
        # The share of the wrong classes is another criterion's business: only which entry is the largest is asked.
        targets = with_every_axis(student.smooth_labels(y, K, epsilon), 1, K, name="the targets")
        expect(targets.argmax(1), "the class of the largest target").equal(y)
        others = targets[0][torch.arange(K) != y]
        expect(others).all(others == others[0], "the wrong classes do not all get the same")


@cyclical_lr_doubling.criterion(points=0.5)
def far_cycles(student: Student, draw: Draw) -> None:
    """The tenth and the twentieth cycle start, turn and end where they should."""
    lr = cycles(student, draw, even=True).as_they_go()
    expect(lr(1)).all(lr(1) != lr(2), "lr(1) and lr(2) are the same")
    for cycle in (9, 19):
        half = lr.up * 2**cycle
        name = f"the learning rate at update {2**cycle + 1} of cycle {cycle}"
        lr.expect_between(lr.start(cycle) + 2**cycle + 1, 1 / 2**cycle, lr(1), lr(2), name)
        for t, like in ((half // lr.up, 1), (0, 0), (half, lr.up), (2 * half, 0)):
            got = lr(lr.start(cycle) + t)
            name = f"the learning rate at update {t} of cycle {cycle}"
            expect(got, name).close_to(lr(like), because=f"that of t = {like} in cycle 0")


@cyclical_lr_doubling.criterion(points=0.25)
def shortest_cycles(student: Student, draw: Draw) -> None:
    """With n_1 = 1 the first cycle is one update at lr_min and one at lr_max."""
    usual = cycles(student, draw, even=True).as_they_go()
    # Whose cycles are half as long, which first_cycle says, has the shortest one for n_1 = 2.
    lr = replace(usual, n_1=2 if 2 * usual.own == usual.n_1 else 1, own=1)
    low, high = lr(0), lr(1)
    expect(low).all(low < high, "the learning rate does not rise")
    for t, rate in ((2, low), (4, high), (6, low)):
        expect(lr(t), f"lr({t}) for n_1 = {lr.n_1}").close_to(rate)
    for t, part in ((3, 0.5), (5, 0.5), (7, 0.25)):
        lr.expect_between(t, part, low, high, f"lr({t}) for n_1 = {lr.n_1}")


# --- Modules ---------------------------------------------------------------------------------------------------------


def add_hidden_module_criteria(
    exercise: Exercise, arguments: Callable[[Draw], tuple[int, ...]], needed: int = 1
) -> None:
    """Running statistics (of so many layers) and independence of images in a batch, for a block."""

    @exercise.criterion(points=0.5, contract=True)
    def running_statistics_move(student: Student, draw: Draw) -> None:
        """In training mode the running statistics follow those of the batches, in evaluation mode they stay."""
        block = Block(student, draw, exercise.name, arguments(draw))
        for training in (False, True):
            before = student.prop(layers_of, block.model)["norms"]
            block.out(training)
            after = student.prop(layers_of, block.model)["norms"]
            pairs = list(zip(after, before, strict=True))
            remember = all(norm["running_mean"] is not None for pair in pairs for norm in pair)
            expect(after).all(remember, "a BatchNorm2d keeps no running statistics")
            for part in ("running_mean", "running_var"):
                moved = sum(not close(a[part], b[part], 1e-9) for a, b in pairs)
                text = f"{part} of {moved} BatchNorm2d moves in training mode, expected {needed}"
                expect(after).all(not training or moved >= needed, text)
                expect(after).all(training or moved == 0, f"{part} changes in evaluation mode")

    @exercise.criterion(points=0.5, contract=True)
    def images_do_not_meet_in_evaluation(student: Student, draw: Draw) -> None:
        """In evaluation mode an image's result does not depend on its batch; one image alone is a batch too."""
        block = Block(student, draw, exercise.name, arguments(draw))
        whole = block.out(False)
        varied(whole, *whole.shape, name="the output")
        images = block.images
        for n in range(len(images)):
            alone = student.prop(output_of, block.model, images[n : n + 1], False)
            expect(alone, f"the output for image {n} alone").close_to(whole[n : n + 1], single=True)


add_hidden_module_criteria(ConvBlock, channels)
add_hidden_module_criteria(ResidualBlock, kept, 2)
add_hidden_module_criteria(SeparableConvBlock, channels)


@ResidualBlock.criterion(points=0.5)
def strides_and_odd_sizes(student: Student, draw: Draw) -> None:
    """Height and width become ⌈H / stride⌉ and ⌈W / stride⌉, also for stride 3."""
    for stride in (2, 3):
        c_in, c_out = channels(draw)
        block = Block(student, draw, "ResidualBlock", (c_in, c_out, stride))
        H, W = (-(-n // stride) for n in block.images.shape[2:])
        out = block.out(False)
        varied(out, len(block.images), c_out, H, W, name="the output")


@ConvNet.criterion(points=0.5)
def more_than_a_linear_map(student: Student, draw: Draw) -> None:
    """The scores are no linear function of the pixels: there is something between the layers."""
    model, K = conv_net(student, draw, 10), 10
    a, b = pictures(draw, 2), pictures(draw, 2)
    both, first, second, none = (net_out(student, model, x, K) for x in (a + b, a, b, 0 * a))
    linear = close(both + none, first + second, 1e-3)
    expect(both).all(not linear, "scores(a + b) + scores(0) = scores(a) + scores(b): the net is linear")


@ConvNet.criterion(points=0.5, contract=True)
def learns_in_training_mode(student: Student, draw: Draw) -> None:
    """In training mode a batch of images gives finite scores too."""
    model = conv_net(student, draw, 10)
    expect(net_out(student, model, pictures(draw, 6), 10, training=True), "the scores in training mode").finite()


# --- Augmentation ----------------------------------------------------------------------------------------------------


@augment.criterion(points=0.5, contract=True)
def keeps_any_dtype(student: Student, draw: Draw) -> None:
    """Images keep their dtype, whatever it is; one image, one channel or five of them are no special case."""
    for dtype in (torch.uint8, torch.int64, torch.float64, torch.bool):
        C = 5 if dtype == torch.int64 else 1
        images = (numbered(1) % 2).to(dtype) if dtype == torch.bool else (numbered(1, C) % 200 + 1).to(dtype)
        # Numbers that float32 rounds; they are moved and not computed with.
        images = images + {torch.int64: 2**40, torch.float64: 1 / 3}.get(dtype, 0) if dtype != torch.bool else images
        result = student.augment(images, draw.generator())
        got = expect(result, "the images").dtype(dtype).shape(1, C, SIDE, SIDE).tensor()
        moved = (got == 0) | torch.isin(got.double(), images.double())
        expect(got).all(moved, "a pixel has a value that is none of its image's")


@augment.criterion(points=0.5, contract=True)
def takes_any_layout(student: Student, draw: Draw) -> None:
    """Images that are not contiguous in memory are shifted and mirrored like others."""
    images = numbered(12, 3)
    plain, shifts = augmented(student, images, draw.generator())
    gapped, others = augmented(student, strided(images), draw.generator())
    right = torch.equal(plain, shifts.images)  # else another criterion tells what is wrong
    expect(gapped).all(torch.equal(gapped, others.images) or not right, "the images are not pieces of those given")


@augment.criterion(points=0.5)
def generator_decides(student: Student, draw: Draw) -> None:
    """Another state of `generator` gives other images."""
    images, seed = numbered(64), draw.integer(0, 2**31)
    moved_on = generator_of(seed)
    torch.rand(500, generator=moved_on)
    generators = (g := generator_of(seed)), generator_of(seed + 1), moved_on, g  # the first one a second time
    rows = [augmented(student, images, generator)[1].rows for generator in generators]
    other = not any(torch.equal(rows[0], again) for again in rows[1:])
    expect(rows).all(other, "the images are changed in the same way for generators of different states")


@augment.criterion(points=0.5, contract=True)
def mirroring_says_nothing_of_the_offset(student: Student, draw: Draw) -> None:
    """Mirrored images have the same offsets as the others."""
    _, shifts = augmented(student, numbered(800), draw.generator())
    both = 50 < int(shifts.mirrored.sum()) < 750  # whether half are mirrored is asked by another criterion
    for offsets in (shifts.down, shifts.across):
        counts = [int((offsets == k).sum()) for k in range(9)]
        shares = [float(shifts.mirrored[offsets == k].double().mean()) for k in range(9) if counts[k] > 50]
        # About 89 images have each offset; chance takes a right share this far once in 10¹² times.
        sure = both and any(share < 0.1 or share > 0.9 for share in shares)
        expect(shifts).all(not sure, "the offset decides whether an image is mirrored")
    for offsets in (shifts.down, shifts.across):
        means = [float(offsets[shifts.mirrored == m].double().mean()) for m in (True, False)] if both else [0.0, 0.0]
        # The means differ by 0.18 or less with probability 0.7; chance takes a right one beyond 1.3 once in 10¹⁰ times.
        expect(shifts).all(abs(means[0] - means[1]) < 1.3, "mirrored images have other offsets than the others")


# --- Training and evaluation -----------------------------------------------------------------------------------------


@train_epoch.criterion(points=0.5, contract=True, name="generator_decides")
def generator_decides_on_the_order(student: Student, draw: Draw) -> None:
    """Another state of `generator` gives another order."""
    seed = draw.integer(0, 2**31)
    moved_on = generator_of(seed)
    torch.rand(7, generator=moved_on)
    states = (g := generator_of(seed)), generator_of(seed + 1), moved_on, g  # the first one a second time
    orders = [Epoch(student, draw, 24, 2, generator=g).order.tolist() for g in states]
    shuffled = orders[0] != sorted(orders[0])  # whether there is any randomness is asked by random_order
    changes = all(order != orders[0] for order in orders[1:])
    expect(orders).all(changes or not shuffled, "the order is the same for generators of different states")


@train_epoch.criterion(points=0.5)
def batches_of_one(student: Student, draw: Draw) -> None:
    """Batches of a single image are batches too, also where there is no other."""
    for N in (5, 1):
        sizes = [len(batch) for batch in Epoch(student, draw, N, 1).batches]
        expect(sizes).all(sizes == [1] * N, f"{N} images one at a time came as batches of {sizes[:6]}")


@train_epoch.criterion(points=0.5, contract=True)
def order_within_batches_too(student: Student, draw: Draw) -> None:
    """Images, not batches, are shuffled: they meet in new company."""
    epoch = Epoch(student, draw, 24, 6)
    companies = {frozenset(epoch.indices(batch).tolist()) for batch in epoch.batches}
    blocks = {frozenset(range(k, k + 6)) for k in range(0, 24, 6)}
    shuffled = epoch.order.tolist() != sorted(epoch.order.tolist())
    expect(epoch.order).all(companies != blocks or not shuffled, "whole batches are shuffled, not the images")


@evaluate.criterion(points=0.5)
def one_at_a_time(student: Student, draw: Draw) -> None:
    """Batches of one image, and a set of one image."""
    seed = draw.integer(0, 2**31)
    whole, singly = (number(Evaluation(student, Draw(seed), 5, n, 2).result, "the accuracy") for n in (5, 1))
    because = "the accuracy for the same images in one batch"
    expect(singly, "the accuracy over 5 images, one at a time,").close_to(whole, because=because)
    right, wrong = (number(Evaluation(student, draw, 1, 1, n).result, "the accuracy") for n in (1, 0))
    expect(right).all(right > wrong, "for a single image the accuracy does not tell right from wrong")


@confusion_matrix.criterion(points=0.5, name="single_pairs")
def one_image(student: Student, draw: Draw) -> None:
    """One image is a set, and with many classes most entries are 0."""
    K = draw.integer(20, 40)
    y_true, y_pred = torch.tensor([0]), torch.tensor([K - 1])
    got = finite(student.confusion_matrix(y_true, y_pred, K), K, K, name="the matrix").double()
    expect(got.sum(), "the sum of the matrix").close_to(1.0)
    shifted = (torch.arange(K) + 1) % K
    got = finite(student.confusion_matrix(torch.arange(K), shifted, K), K, K, name="the matrix").double()
    got = got if bool(got[0, 1] > 0) else got.T  # rows and columns are the business of another criterion
    expect(got, "the matrix where every class is taken for the next").close_to(
        counted(torch.arange(K), shifted, K).double(), atol=1e-6
    )


# --- What the network looks at ---------------------------------------------------------------------------------------


@saliency_map.criterion(points=0.5, contract=True)
def frozen_models_are_fine(student: Student, draw: Draw) -> None:
    """A model whose filters require no gradient has the same maps: the gradient is that of the image."""
    look = Look(student, draw, frozen=True)
    got = look.maps(with_every_axis)
    varied(got, *got.shape, name="the map")
    unseen = got[:, 0]
    expect(unseen, "the map where pixels do not reach the scores").close_to(torch.zeros_like(unseen), atol=1e-12)


@fgsm.criterion(points=0.5)
def pixels_without_gradient_stay(student: Student, draw: Draw) -> None:
    """A pixel whose gradient is exactly 0 is not moved: sign(0) = 0."""
    look = Look(student, draw, N=2)
    got = finite(look.attacked(0.1), *look.images.shape).double()
    expect(got).all(bool((got != look.images).any()), "no pixel is changed")
    expect(got[:, :, 0], "the pixels without gradient").close_to(look.images[:, :, 0])


@fgsm.criterion(points=0.5, name="epsilon_is_the_step")
def size_of_the_step(student: Student, draw: Draw) -> None:
    """The step is as long as ε, the same for every pixel; with ε = 0 nothing moves."""
    look = Look(student, draw, N=2)
    for epsilon in (0.0, 0.003, 0.25):
        look.renew()
        got = finite(look.attacked(epsilon), *look.images.shape).double()
        size = (got - look.images).abs()[:, :, 1:]
        expect(size, "how far pixels move").close_to(torch.full_like(size, epsilon), atol=1e-9, rtol=1e-5)


@fgsm.criterion(points=0.5, contract=True, name="frozen_models_are_fine")
def frozen_models_can_be_attacked(student: Student, draw: Draw) -> None:
    """A model whose filters require no gradient can be attacked: the gradient is that of the image."""
    look = Look(student, draw, frozen=True)
    got = with_every_axis(look.attacked(0.1), *look.images.shape)
    expect(got).all(bool((got != look.images).any()), "no pixel is changed")


# --- Bonus -----------------------------------------------------------------------------------------------------------


@dilated_conv2d.criterion(points=0.5, contract=True, name="smallest_sizes")
def dilated_of_smallest_sizes(student: Student, draw: Draw) -> None:
    """One image and one filter are no special cases, nor are filters of one pixel, or as wide as the image."""
    X, filters, b, dilation = dilated(draw, 2)
    right = functional.conv2d(X, filters, b, dilation=dilation)
    every = varied(student.dilated_conv2d(X, filters, b, dilation), *right.shape)
    one = student.dilated_conv2d(X[:1].clone(), filters[:1].clone(), b[:1].clone(), dilation)
    alone = every[:1, :1]
    expect(with_every_axis(one, *alone.shape), "the result for one image and one filter").close_to(alone)
    kh, kw = (2 * (k - 1) + 1 for k in filters.shape[2:])
    corner = student.dilated_conv2d(X[:, :, :kh, :kw].clone(), filters, b, dilation)
    expect(corner, "the result for a filter as wide as the image").close_to(every[:, :, :1, :1])
    single = filters[:, :, :1, :1].clone()
    ones = [student.dilated_conv2d(X, single, b, d) for d in (1, 3)]
    expect(ones[1], "the result for filters of one pixel").close_to(finite(ones[0], len(X), len(b), *X.shape[2:]))


def dilated_result(student: Student, draw: Draw) -> list[Any]:
    """The student's result for random arguments."""
    X, filters, b, dilation = dilated(draw, 2, square=True)
    return [student.dilated_conv2d(X, filters, 0 * b, dilation)]


add_precision(dilated_conv2d, dilated_result)


@class_weights.criterion(points=0.5)
def one_class_has_it_all(student: Student, draw: Draw) -> None:
    """Where only one class occurs, it weighs 1 / K, for one example as for many."""
    for N in (1, 7):
        K = draw.integer(3, 7)
        y = torch.full((N,), K - 1)
        weights = expect(student.class_weights(y, K), "the weights").shape(K).tensor()
        # What the others get is the business of another criterion.
        name = "the weight of the class that occurs"
        expect(weights[-1], name).close_to(1 / K, single=True, because="N / (K·N)")


@balanced_batches.criterion(points=0.25, contract=True)
def smallest_epochs(student: Student, draw: Draw) -> None:
    """Batches of one example; and a class with a single example."""
    y = torch.cat([torch.zeros(1, dtype=torch.int64), torch.ones(6, dtype=torch.int64)])[draw.permutation(7)]
    batches = batches_of(student, y, 1, draw.generator())
    expect(batches).all(bool(batches), "there is no batch")
    expect(batches).all(all(len(b) == 1 for b in batches), "batch_size is 1, but a batch has another size")
    only = epoch_of(student, torch.zeros(1, dtype=torch.int64), 3, draw.generator())
    expect(only, "the indices of an epoch over one example").equal(torch.zeros(1, dtype=torch.int64))


@balanced_batches.criterion(points=0.25, contract=True, name="same_state_same_result")
def same_state_same_batches(student: Student, draw: Draw) -> None:
    """The same state of `generator` gives the same batches."""
    y, seed = uneven_labels(draw, 4, 5, 12), draw.integer(0, 2**31)
    first = epoch_of(student, y, 7, generator_of(seed))
    expect(epoch_of(student, y, 7, generator_of(seed)), "the indices").equal(first)


@balanced_batches.criterion(points=0.25, contract=True, name="generator_decides")
def generator_decides_on_the_batches(student: Student, draw: Draw) -> None:
    """Another state of `generator` gives other batches."""
    y, seed = uneven_labels(draw, 4, 5, 12), draw.integer(0, 2**31)
    orders = [epoch_of(student, y, 7, generator_of(seed + k)).tolist() for k in (0, 1, 2)]
    shuffled = orders[0] != sorted(orders[0])
    text = "the batches are the same for generators of different states"
    expect(orders).all(orders[0] != orders[1] or orders[0] != orders[2] or not shuffled, text)
