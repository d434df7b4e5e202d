"""What `check("conv2d_forward")` and the like hold your functions of Assignment 3 against.

Read it when a message is not enough.  Each exercise is a list of criteria; the first line of a criterion says what
is asked.  `student.conv2d_forward(...)` calls your function, `draw` makes random inputs, `expect` compares.  A *prop*
is a small function that runs beside your code: it runs your model, or makes a model that notes what you do with it.
Grading uses these criteria with other random inputs, and adds more: other sizes, extreme values, traps.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from course_utils.checking import (
    Draw,
    Exercise,
    Foreign,
    Form,
    Nested,
    Opaque,
    Student,
    Unmet,
    add_contract,
    away_from_zero,
    expect,
    finite,
    follows_slopes,
    prop,
    unchanged_arguments,
)

Slips = dict[str, Tensor]
"""What usual slips give, each under the sentence that explains it; computed only where something differs."""


def ready_made() -> Iterator[str]:
    """What PyTorch offers of convolution, pooling and unfolding, as functions and as layers, and every other layer."""
    places = {"torch": torch, "torch.nn": nn, "torch.nn.functional": functional}
    for place, module in places.items():
        for name, value in vars(module).items():
            word = name.replace("_", "").lower()
            layer = inspect.isclass(value) and issubclass(value, nn.Module) and value is not nn.Module
            known = any(part in word for part in ("conv", "pool", "fold")) and name != "unfold_copy"
            if not name.startswith("_") and (layer or (known and callable(value))):
                yield f"{place}.{name}"


# What the exercises to be written by hand ask for, and what would do it for you.  The method `unfold` of a tensor,
# which slides along one axis, is another thing than `functional.unfold`, and is allowed.
FORBIDDEN = (
    "torch.autograd.*",
    "torch.func.*",
    "torch.nn.grad.*",
    "torch.nn.modules.*",
    "torchvision.ops.*",
    *sorted(ready_made()),
)


# --- Random problems and their results -------------------------------------------------------------------------------


def distinct(draw: Draw, count: int, low: int) -> list[int]:
    """So many sizes from `low` on, which all differ, so that a mixed-up axis shows."""
    return [low + k for k in draw.permutation(count + 2)[:count].tolist()]


def labels(draw: Draw, N: int, K: int) -> Tensor:
    """N labels in random order among which every class occurs where N is large enough."""
    return torch.cat([torch.arange(K), draw.integers(0, K, max(0, N - K))])[:N][draw.permutation(N)]


def number(result: Any, name: str = "the result") -> float:
    """A result that is one finite number."""
    return finite(result, name=name).double().item()


def varied(result: Any, *shape: int, name: str = "the result") -> Tensor:
    """As `finite`, for a result that serves as an expectation: its entries are not all the same."""
    got = finite(result, *shape, name=name)
    same = got.numel() > 1 and bool((got == got.flatten()[0]).all())
    expect(got).all(not same, f"every entry of {name} has the same value")
    return got


def with_every_axis(result: Any, *shape: int, name: str = "the result") -> Tensor:
    """As `finite`, for a set of one: no axis has been squeezed away."""
    got = finite(result, *shape, name=name)
    given = expect(result, name).tensor()
    if given.ndim < len(shape):
        raise Unmet(
            f"Expected {name} of shape {shape}, got shape {tuple(given.shape)}.",
            "shape",
            ["An axis of length one is gone, by `squeeze()` perhaps: one image is a set too, and keeps its axis."],
        )
    return got


def is_empty(result: Any) -> bool:
    """Whether a result is a tensor without entries, as `[:, :, p:-p, p:-p]` gives where p = 0."""
    return isinstance(result, Tensor) and not result.numel()


def close(a: Tensor, b: Tensor, rtol: float = 1e-6) -> bool:
    """Whether two tensors of the same shape differ by a small part of their size."""
    return a.shape == b.shape and bool((a.double() - b.double()).norm() <= rtol * b.double().norm())


# --- Patches ---------------------------------------------------------------------------------------------------------

patchify = Exercise("patchify", forbidden=FORBIDDEN)


def tiles(images: Tensor, f: int) -> list[Tensor]:
    """The squares of f × f pixels of each image, row by row, each (N, C, f, f)."""
    rows = [band for band in images.split(f, 2)]
    return [square for band in rows for square in band.split(f, 3)]


def tiled_images(draw: Draw, C: int | None = None) -> tuple[Tensor, int]:
    """Images of a different number of squares in height and width, and the side of a square."""
    f = draw.integer(2, 4)
    N, channels, rows, columns = distinct(draw, 4, 2)
    return draw.normal(N, C or channels, rows * f, columns * f), f


@patchify.criterion(points=1)
def pixels_of_a_patch(student: Student, draw: Draw) -> None:
    """A patch is laid out channel by channel and within a channel row by row: (C, f, f) (one patch an image here)."""
    for C in (draw.integer(2, 5), 1):
        N, f = draw.integer(2, 4), draw.integer(3, 5)
        images = draw.normal(N, C, f, f)
        expected = torch.stack([torch.cat([row for channel in image for row in channel]) for image in images])[:, None]
        expect(student.patchify(images, f), "the patches").close_to(expected)


@patchify.criterion(points=1)
def patches_row_by_row(student: Student, draw: Draw) -> None:
    """The patches come row by row, from left to right (each patch has one value here)."""
    images, f = tiled_images(draw)
    images = draw.normal(len(images), 1, images.shape[2] // f, images.shape[3] // f)
    expected = images.flatten(1)[:, :, None].expand(-1, -1, f * f)
    spread = images.repeat_interleave(f, 2).repeat_interleave(f, 3)
    expect(student.patchify(spread, f), "the patches").close_to(expected, because="patch p has the value of square p")


@patchify.criterion(points=1)
def patches_are_squares(student: Student, draw: Draw) -> None:
    """Every patch holds the pixels of one square, all its channels, each once (whatever the order)."""
    images, f = tiled_images(draw)
    N, C = images.shape[:2]
    squares = torch.stack([square.flatten(1) for square in tiles(images, f)], 1)
    got = finite(student.patchify(images, f), N, squares.shape[1], C * f * f, name="the patches")
    expect(sorted_patches(got), "the patches, sorted as are the numbers in each,").close_to(sorted_patches(squares))


def sorted_patches(patches: Tensor) -> Tensor:
    """Patches (N, P, d) with the numbers of each in order, and the patches of each image in an order of their own."""
    ordered = patches.sort(-1).values
    key = ordered @ torch.arange(1, ordered.shape[-1] + 1, dtype=ordered.dtype).sqrt()
    return ordered.gather(1, key.argsort(1)[:, :, None].expand_as(ordered))


add_contract(patchify, lambda draw: (draw.normal(2, 3, 4, 6), 2), [Form("the patches", (2, 6, 12))])


# --- Convolution: random problems ------------------------------------------------------------------------------------


@dataclass
class Conv:
    """A convolution: X (N, C, H, W), filters (F, C, kh, kw), b (F,), stride and padding."""

    X: Tensor
    filters: Tensor
    b: Tensor
    stride: int = 1
    padding: int = 0

    @property
    def arguments(self) -> tuple[Any, ...]:
        """In the order of `conv2d_forward`."""
        return self.X, self.filters, self.b, self.stride, self.padding

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the filters."""
        return int(self.filters.shape[2]), int(self.filters.shape[3])

    def padded(self) -> Conv:
        """The same with the zeros around the images already there."""
        return replace(self, X=padded(self.X, self.padding), padding=0)


def padded(images: Tensor, padding: int) -> Tensor:
    """The images with so many rows and columns of zeros on every side."""
    N, C, H, W = images.shape
    larger = images.new_zeros(N, C, H + 2 * padding, W + 2 * padding)
    larger[:, :, padding : padding + H, padding : padding + W] = images
    return larger


def extent(draw: Draw, kernel: int, stride: int, padding: int) -> int:
    """A number of rows that the windows do not divide where the stride is larger than 1."""
    rest = draw.integer(1, stride) if stride > 1 else 0
    size = kernel + stride * draw.integer(2, 4) + rest - 2 * padding
    while size < kernel:
        size += stride
    return size


def plane(draw: Draw, kernel: tuple[int, int], stride: int = 1, padding: int = 0) -> tuple[int, int]:
    """Height and width of images, which differ."""
    H, W = (extent(draw, k, stride, padding) for k in kernel)
    return (H, W + stride) if H == W else (H, W)


def convolution(
    draw: Draw,
    stride: int = 1,
    padding: int = 0,
    *,
    kernel: tuple[int, int] | None = None,
    bias: bool = True,
    square: bool = False,
) -> Conv:
    """A random convolution whose sizes all differ; without `bias` b is 0.

    With `square` H = W and kh = kw: to take one for the other should not cost the points of all else, too.
    """
    N, C, count = distinct(draw, 3, 2)
    kernel = kernel or (3, 2) if draw.integer(0, 2) else kernel or (2, 4)
    kernel = (kernel[0], kernel[0]) if square else kernel
    rows, columns = plane(draw, kernel, stride, padding)
    X, b = draw.normal(N, C, rows, rows if square else columns), away_from_zero(draw, count)
    return Conv(X, draw.normal(count, C, *kernel), b if bias else torch.zeros_like(b), stride, padding)


def convolved(X: Tensor, filters: Tensor, b: Tensor, stride: int, padding: int) -> Tensor:
    """The convolution by PyTorch."""
    return functional.conv2d(X, filters, b, stride=stride, padding=padding)


# --- im2col and col2im -----------------------------------------------------------------------------------------------

im2col = Exercise("im2col", forbidden=FORBIDDEN)


def columns_of(student: Student, p: Conv) -> Tensor:
    """The student's columns, of the right shape (N, C·kh·kw, L)."""
    right = functional.unfold(p.X, p.kernel, padding=p.padding, stride=p.stride)
    return finite(student.im2col(p.X, *p.kernel, p.stride, p.padding), *right.shape, name="the columns")


@im2col.criterion(points=1)
def pixels_of_a_window(student: Student, draw: Draw) -> None:
    """A column holds the pixels of a window in the order (C, kh, kw) (the window is as large as the image here)."""
    for C in (draw.integer(2, 5), 1):
        N, (kh, kw) = draw.integer(2, 4), distinct(draw, 2, 2)
        images = draw.normal(N, C, kh, kw)
        expected = torch.stack([torch.cat([row for channel in image for row in channel]) for image in images])
        expect(student.im2col(images, kh, kw, 1, 0), "the columns").close_to(expected[:, :, None])


@im2col.criterion(points=0.5)
def windows_row_by_row(student: Student, draw: Draw) -> None:
    """The columns follow the windows row by row, from left to right (a window is one pixel here)."""
    N, H, W = distinct(draw, 3, 3)
    images = draw.normal(N, 1, H, W)
    expect(student.im2col(images, 1, 1, 1, 0), "the columns").close_to(images.reshape(N, 1, H * W))


@im2col.criterion(points=1)
def every_window_has_its_column(student: Student, draw: Draw) -> None:
    """With stride 1 every window of kh rows and kw columns has its column (whatever the order)."""
    for _ in range(2):
        p = convolution(draw)
        right = functional.unfold(p.X, p.kernel).transpose(1, 2)
        got = sorted_patches(columns_of(student, p).transpose(1, 2))
        expect(got, "the columns, sorted as are the numbers in each,").close_to(sorted_patches(right))


@im2col.criterion(points=0.5)
def strides(student: Student, draw: Draw) -> None:
    """With stride s every s-th window counts, down and across; what is left over at the edges is left out."""
    for stride in (2, 3):
        p = convolution(draw, stride, square=True)
        H, W = (n - k + 1 for n, k in zip(p.X.shape[2:], p.kernel, strict=True))
        all_windows = columns_of(student, replace(p, stride=1))
        varied(all_windows, *all_windows.shape, name="the columns")
        kept, other = (all_windows.unflatten(2, n)[:, :, ::stride, ::stride].flatten(2) for n in ((H, W), (W, H)))
        got = columns_of(student, p)
        # In which order the windows come is the business of another criterion.
        found, *some = (sorted_patches(columns.transpose(1, 2)) for columns in (got, kept, other))
        if not any(torch.equal(found, windows) for windows in some):
            because = "some of your columns for stride 1"
            expect(got, f"the columns for stride {stride}").close_to(kept, because=because)


@im2col.criterion(points=0.5)
def zero_padding(student: Student, draw: Draw) -> None:
    """Padding p puts p rows and columns of zeros around every channel of every image."""
    for padding in (1, 2):
        p = convolution(draw, padding=padding, square=True)
        expected = columns_of(student, p.padded())
        varied(expected, *expected.shape, name="the columns")
        because = "your columns for images with the zeros around them already"
        expect(columns_of(student, p), f"the columns for padding {padding}").close_to(expected, because=because)


add_contract(im2col, lambda draw: (draw.normal(2, 3, 5, 5), 3, 3, 1, 0), [Form("the columns", (2, 27, 9))])


col2im = Exercise("col2im", forbidden=FORBIDDEN)


class Folded:
    """A call of `col2im`, and what it should give.

    Should `im2col` be wrong, col2im is right where it is the transpose of the student's own im2col: a mistake in
    im2col has cost its points already.
    """

    def __init__(self, student: Student, draw: Draw, p: Conv, *, strict: bool = False) -> None:
        self.student, self.p, self.strict = student, p, strict
        like = functional.unfold(p.X, p.kernel, padding=p.padding, stride=p.stride)
        self.columns = draw.normal(*like.shape)
        self.images = self.of(p, self.columns)
        self.expected = self.transposed(p, self.columns)

    def of(self, p: Conv, columns: Tensor) -> Tensor:
        """The student's images.

        Where they are empty without padding, which a `strict` criterion asks about, they are those with padding: with
        columns of zeros around the others.
        """
        result = self.student.col2im(columns, tuple(p.X.shape), *p.kernel, p.stride, p.padding)
        if is_empty(result) and not p.padding and not self.strict:
            H, W = ((n - k) // p.stride + 1 for n, k in zip(p.X.shape[2:], p.kernel, strict=True))
            wider = functional.pad(columns.unflatten(2, (H, W)), (1, 1, 1, 1)).flatten(2)
            result = self.student.col2im(wider, tuple(p.X.shape), *p.kernel, p.stride, p.stride)
        return finite(result, *p.X.shape, name="the images")

    @staticmethod
    def transposed(p: Conv, columns: Tensor) -> Tensor:
        """The images by PyTorch."""
        H, W = p.X.shape[2:]
        return functional.fold(columns, (H, W), p.kernel, padding=p.padding, stride=p.stride)

    def slips(self) -> Slips:
        """What usual slips give."""
        p, (N, C, H, W) = self.p, self.p.X.shape
        larger = self.transposed(p.padded(), self.columns)
        last = torch.zeros_like(larger)
        for k, (i, j) in enumerate(self._places(larger)):
            last[:, :, i : i + p.kernel[0], j : j + p.kernel[1]] = self.columns[:, :, k].reshape(N, C, *p.kernel)
        n, text = p.padding, "The top left corner is taken: the first rows and columns of the padding are not cut off."
        overwritten = "The last window wins: entries of a pixel are written over each other (`=`), not added (`+=`)."
        found = {overwritten: last[:, :, n : n + H, n : n + W]}
        return found | ({text: larger[:, :, :H, :W]} if n else {})

    def _places(self, images: Tensor) -> list[tuple[int, int]]:
        s = self.p.stride
        rows, columns = (range(0, n - k + 1, s) for n, k in zip(images.shape[2:], self.p.kernel, strict=True))
        return [(i, j) for i in rows for j in columns]

    def check(self, because: str) -> None:
        """The images are right, or the transpose of the student's own im2col."""
        try:
            expect(self.images, "the images").close_to(self.expected, because=because, slips=self.slips)
        except Unmet:
            if not self._fits_the_own_im2col():
                raise

    def _fits_the_own_im2col(self) -> bool:
        p = self.p
        try:
            own = columns_of(self.student, p)
        except Unmet:
            return False
        if close(own, functional.unfold(p.X, p.kernel, padding=p.padding, stride=p.stride)):
            return False
        return follows_slopes(
            lambda X: (columns_of(self.student, replace(p, X=X)) * self.columns).sum(), p.X, self.images
        )


@col2im.criterion(points=1)
def windows_side_by_side(student: Student, draw: Draw) -> None:
    """Every entry comes back to its pixel (a window is one pixel, or the whole image)."""
    one = convolution(draw, kernel=(1, 1))
    whole = convolution(draw)
    kh, kw = whole.kernel
    for p in (one, replace(whole, X=whole.X[:, :, :kh, :kw].clone())):
        Folded(student, draw, p, strict=True).check("each entry at its own pixel")


@col2im.criterion(points=1)
def overlaps_add(student: Student, draw: Draw) -> None:
    """Where windows overlap, the entries of one pixel add up (stride 1)."""
    for kernel in ((3, 2), (2, 4)):
        Folded(student, draw, convolution(draw, kernel=kernel)).check("the sum of all entries that come from a pixel")


@col2im.criterion(points=0.5)
def padding_is_cut_off(student: Student, draw: Draw) -> None:
    """With padding, the entries of the pixels around the image are dropped."""
    for padding in (1, 2):
        folded = Folded(student, draw, convolution(draw, padding=padding))
        p = folded.p.padded()
        larger = varied(folded.of(p, folded.columns), *p.X.shape, name="the images")
        folded.expected = larger[:, :, padding:-padding, padding:-padding]
        folded.check("the inner part of your images without padding")


@col2im.criterion(points=0.5)
def strides_back(student: Student, draw: Draw) -> None:
    """With stride s the windows lie s pixels apart; pixels between them are 0 (no windows overlap here)."""
    for kernel in ((2, 3), (1, 2)):
        folded = Folded(student, draw, convolution(draw, 3, kernel=kernel))
        p, expected = folded.p, torch.zeros_like(folded.p.X)
        kh, kw = kernel
        rows, columns = ((n - k) // 3 + 1 for n, k in zip(p.X.shape[2:], kernel, strict=True))
        window = replace(p, X=p.X[:, :, :kh, :kw].clone(), stride=1)
        for k, (i, j) in enumerate((i, j) for i in range(rows) for j in range(columns)):
            own = folded.of(window, folded.columns[:, :, k : k + 1].clone())
            expected[:, :, 3 * i : 3 * i + kh, 3 * j : 3 * j + kw] = own
        folded.expected = varied(expected, *p.X.shape, name="the images")
        folded.check("your images of one window each, side by side")


add_contract(
    col2im,
    lambda draw: (draw.normal(2, 18, 9), (2, 3, 5, 4), 3, 2, 1, 0),
    [Form("the images", (2, 3, 5, 4))],
)


# --- A layer's forward and backward pass -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A pair of exercises: names of both functions and of the gradients, and the layer by PyTorch."""

    forward: str
    backward: str
    gradients: tuple[str, ...]
    right: Callable[..., Tensor]


CONV2D = Layer("conv2d_forward", "conv2d_backward", ("grad_X", "grad_F", "grad_b"), convolved)
MAX_POOL2D = Layer(
    "max_pool2d_forward",
    "max_pool2d_backward",
    ("grad_X",),
    lambda X, k, stride: functional.max_pool2d(X, k, stride),
)


class Passes:
    """A forward and a backward pass of the student's, and the gradients that they should give.

    The cache comes from the student's own forward pass.  Should that be wrong, the gradients are right when they
    are those of what it computes; this is found out by small steps, since a mistake of the forward pass has cost
    its points already.
    """

    def __init__(
        self, student: Student, draw: Draw, layer: Layer, arguments: tuple[Any, ...], grad_out: Tensor | None = None
    ) -> None:
        self.student, self.layer, self.arguments = student, layer, arguments
        self.leaves = arguments[: len(layer.gradients)]
        out, self.cache = self._forward(arguments)
        self.right_out = layer.right(*arguments)
        self.out = expect(out, "out").tensor()
        if math.prod(self.out.shape) > 100_000:
            raise Unmet(f"{layer.forward} gives out of shape {tuple(self.out.shape)}.", "shape")
        same = grad_out is not None and grad_out.shape == self.out.shape
        self.grad_out = grad_out if same and grad_out is not None else away_from_zero(draw, *self.out.shape)
        self.gradients = self.back()

    @property
    def right(self) -> bool:
        """Whether the student's forward pass is right."""
        return close(self.out, self.right_out)

    def back(self) -> tuple[Any, ...]:
        """The student's gradients, asked for (once more) with the same cache."""
        result = self.student.call(self.layer.backward, self.grad_out, self.cache)
        names = self.layer.gradients
        return expect(result).parts(*names) if len(names) > 1 else (result,)

    def got(self, k: int) -> Tensor:
        """One of the student's gradients, of the right shape and finite."""
        return finite(self.gradients[k], *self.leaves[k].shape, name=self.layer.gradients[k])

    def as_they_are(self) -> list[Tensor]:
        """The student's gradients, finite, whatever their shapes."""
        pairs = zip(self.gradients, self.layer.gradients, strict=True)
        return [expect(value, name).finite().tensor() for value, name in pairs]

    def by_autograd(self) -> tuple[Tensor, ...]:
        """The right gradients."""
        leaves = [v.detach().clone().requires_grad_() for v in self.leaves]
        out = self.layer.right(*leaves, *self.arguments[len(leaves) :])
        return torch.autograd.grad(out, leaves, self.grad_out.to(out.dtype))

    def check(self, k: int, expected: Tensor | None = None, because: str = "autograd's result") -> None:
        """One gradient is the expected one (autograd's where none is given), or that of the student's own layer."""
        name, got = self.layer.gradients[k], self.got(k)
        if not self.right and follows_slopes(lambda x: self._product(k, x), self.leaves[k], got):
            return
        if self.out.shape != self.right_out.shape:
            text = f"{name} is not the gradient of what your {self.layer.forward} computes."
            raise Unmet(text, causes=[f"{self.layer.forward} itself gives out of the wrong shape here."])
        expected = self.by_autograd()[k] if expected is None else expected
        expect(got, name).close_to(expected, because=because, slips=lambda: self.slips(k))

    def slips(self, k: int) -> Slips:
        """What usual slips give for one gradient."""
        N, right = len(self.arguments[0]), self.by_autograd()
        found = {"The gradient is divided by the number of images; nothing is averaged here.": right[k] / N}
        places = self.grad_out[:, 0].numel()
        found["The gradient is a mean over images and places; it is their sum."] = right[k] / places
        if self.layer is MAX_POOL2D:
            of_ones = replace_grad(self, torch.ones_like(self.grad_out)).by_autograd()[0]
            found["The winners get 1 instead of the entry of grad_out."] = of_ones
        elif k == 0 and self.arguments[3:] == (1, 0):
            X, filters = self.arguments[:2]
            G = self.grad_out.flatten(2)
            columns = filters.reshape(-1, len(filters)) @ G
            text = "The matrix of the filters is reshaped to (C·kh·kw, F) where its transpose `.T` is meant."
            found[text] = functional.fold(columns, X.shape[2:], filters.shape[2:])
        return found

    def _forward(self, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        return expect(self.student.call(self.layer.forward, *arguments)).parts("out", "cache")

    def _product(self, k: int, x: Tensor) -> Tensor:
        out, _ = self._forward((*self.arguments[:k], x, *self.arguments[k + 1 :]))
        return (finite(out, *self.out.shape, name="out") * self.grad_out).sum()


def replace_grad(passes: Passes, grad_out: Tensor) -> Passes:
    """The same passes with another gradient of out; nothing is run."""
    other = copy.copy(passes)
    other.grad_out = grad_out
    return other


def add_pair_criteria(layer: Layer, exercise: Exercise, arguments: Callable[[Draw], tuple[Any, ...]]) -> None:
    """Caches, form and layout, for the backward function of a layer; `arguments(draw)` are those of its forward."""

    @exercise.criterion(points=0.5, contract=True)
    def caches_are_independent(student: Student, draw: Draw) -> None:
        """A cache serves again: backward twice, and after another forward pass, gives the same gradients."""
        first = Passes(student, draw, layer, arguments(draw))
        before = first.as_they_are()
        student.call(layer.forward, *arguments(draw))
        for _ in range(2):
            first.gradients = first.back()
            for k, name in enumerate(layer.gradients):
                again = f"{name}, asked for again after another forward pass,"
                expect(first.gradients[k], again).close_to(before[k], because="the gradient of the first time")

    @exercise.criterion(points=0.5, contract=True)
    def keeps_form(student: Student, draw: Draw) -> None:
        """Gradients have the shapes of what they belong to, and its dtype (float32 and float64)."""
        for dtype in (torch.float64, torch.float32):
            draw.dtype = dtype
            passes = Passes(student, draw, layer, arguments(draw))
            for name, leaf, value in zip(layer.gradients, passes.leaves, passes.gradients, strict=True):
                Form(name, tuple(leaf.shape)).check(value, dtype)

    @exercise.criterion(points=0.5, contract=True)
    def leaves_arguments_alone(student: Student, draw: Draw) -> None:
        """The function does not change the grad_out that it is given."""
        for _ in range(2):
            Passes(student, draw, layer, arguments(draw))
            unchanged_arguments(student.calls[-1])


# --- Convolution -----------------------------------------------------------------------------------------------------

conv2d_forward = Exercise("conv2d_forward", forbidden=FORBIDDEN, opaque=(1,))


def conv_out(student: Student, p: Conv) -> Tensor:
    """The student's out, of the right shape."""
    out, _ = expect(student.conv2d_forward(*p.arguments)).parts("out", "cache")
    return finite(out, *convolved(*p.arguments).shape, name="out")


@conv2d_forward.criterion(points=1.5)
def cross_correlation(student: Student, draw: Draw) -> None:
    """Every filter is laid over every window as it stands: the sum of the products (stride 1, no padding, b = 0)."""
    for kernel in ((3, 2), (2, 4)):
        p = convolution(draw, kernel=kernel, bias=False)
        expected = convolved(*p.arguments)
        flipped = convolved(p.X, p.filters.flip(2, 3), p.b, 1, 0)
        got = conv_out(student, p)
        if close(got, flipped):
            raise Unmet(
                "out is the convolution with the filters turned by 180°.",
                causes=["Deep learning's convolution is a cross-correlation: the filter is not flipped."],
            )
        expect(got, "out").close_to(expected)


@conv2d_forward.criterion(points=0.5)
def bias_is_added(student: Student, draw: Draw) -> None:
    """b[k] is added to every pixel of map k."""
    p = convolution(draw, square=True)
    without = varied(conv_out(student, replace(p, b=torch.zeros_like(p.b))), *convolved(*p.arguments).shape, name="out")
    expected = torch.stack([without[:, k] + p.b[k] for k in range(len(p.b))], 1)
    expect(conv_out(student, p), "out").close_to(expected, because="out where b = 0, plus b")


@conv2d_forward.criterion(points=1, name="strides")
def conv_strides(student: Student, draw: Draw) -> None:
    """With stride s every s-th window counts, down and across; what is left over at the edges is left out."""
    for stride in (2, 3):
        p = convolution(draw, stride, square=True)
        one = replace(p, stride=1)
        expected = varied(conv_out(student, one), *convolved(*one.arguments).shape, name="out")[
            :, :, ::stride, ::stride
        ]
        got = conv_out(student, p)
        expect(got, f"out for stride {stride}").close_to(expected, because="some of your out for stride 1")


@conv2d_forward.criterion(points=1, name="zero_padding")
def conv_zero_padding(student: Student, draw: Draw) -> None:
    """Padding p puts p rows and columns of zeros around every image."""
    for padding in (1, 2):
        p = convolution(draw, padding=padding, square=True)
        expected = varied(conv_out(student, p.padded()), *convolved(*p.arguments).shape, name="out")
        because = "your out for images with the zeros around them already"
        expect(conv_out(student, p), f"out for padding {padding}").close_to(expected, because=because)


def small_convolution(draw: Draw) -> tuple[Any, ...]:
    """Arguments of a small convolution for criteria on form."""
    return draw.normal(2, 3, 5, 5), draw.normal(4, 3, 3, 3), draw.normal(4), 1, 0


add_contract(conv2d_forward, small_convolution, [Form("out", (2, 4, 3, 3)), Opaque("cache")])


conv2d_backward = Exercise("conv2d_backward", forbidden=FORBIDDEN, leans_on=("conv2d_forward",))


def conv_passes(student: Student, draw: Draw, p: Conv, grad_out: Tensor | None = None) -> Passes:
    """Both passes of a convolution."""
    return Passes(student, draw, CONV2D, p.arguments, grad_out)


def gradient_of_a_convolution(k: int) -> Callable[[Student, Draw], None]:
    """The criterion on one of the three gradients, at stride 1 and without padding."""

    def condition(student: Student, draw: Draw) -> None:
        for _ in range(2):
            conv_passes(student, draw, convolution(draw)).check(k)

    condition.__doc__ = f"The gradient of {('X', 'the filters F', 'b')[k]} (stride 1, no padding)."
    condition.__module__ = __name__
    return condition


conv2d_backward.criterion(points=1, name="gradient_of_X")(gradient_of_a_convolution(0))
conv2d_backward.criterion(points=1, name="gradient_of_F")(gradient_of_a_convolution(1))
conv2d_backward.criterion(points=0.5, name="gradient_of_b")(gradient_of_a_convolution(2))


@conv2d_backward.criterion(points=1, name="strides_back")
def conv_strides_back(student: Student, draw: Draw) -> None:
    """With stride s the gradients are those of stride 1 where grad_out has zeros at the windows left out."""
    for stride in (2, 3):
        p = convolution(draw, stride, square=True)
        passes, one = conv_passes(student, draw, p), replace(p, stride=1)
        between = torch.zeros_like(convolved(*one.arguments))
        expected: list[Tensor | None] = [None] * 3
        if passes.right:
            between[:, :, ::stride, ::stride] = passes.grad_out
            own = conv_passes(student, draw, one, between)
            if own.right and not is_empty(own.gradients[0]):
                expected = [varied(own.got(k), *own.leaves[k].shape, name=CONV2D.gradients[k]) for k in (0, 1)]
        for k in (1,) if is_empty(passes.gradients[0]) else (0, 1):  # empty without padding: see gradient_of_X
            passes.check(k, expected[k], "yours for stride 1, with zeros between the entries of grad_out")


@conv2d_backward.criterion(points=1, name="padding_back")
def conv_padding_back(student: Student, draw: Draw) -> None:
    """With padding, grad_F sees the zeros around the images, and grad_X leaves them out again."""
    for padding in (1, 2):
        p = convolution(draw, padding=padding, square=True)
        passes = conv_passes(student, draw, p)
        expected: list[Tensor | None] = [None] * 3
        if passes.right:
            own = conv_passes(student, draw, p.padded(), passes.grad_out)
            if own.right and not is_empty(own.gradients[0]):
                inner = varied(own.got(0), *own.leaves[0].shape, name="grad_X")
                expected = [inner[:, :, padding:-padding, padding:-padding], own.got(1), None]
                varied(expected[1], *own.leaves[1].shape, name="grad_F")
        for k in (0, 1):
            passes.check(k, expected[k], "yours for images with the zeros around them already, less the edge")


add_pair_criteria(CONV2D, conv2d_backward, small_convolution)


# --- Max pooling -----------------------------------------------------------------------------------------------------

max_pool2d_forward = Exercise("max_pool2d_forward", forbidden=FORBIDDEN, opaque=(1,))


def pooling(draw: Draw, k: int, stride: int, *, divides: bool = False, square: bool = False) -> tuple[Tensor, int, int]:
    """Arguments of a max pooling whose sizes all differ; the windows divide the images only where told to.

    With `square` H = W, as in `convolution`.
    """
    N, C = distinct(draw, 2, 2)
    H, W = (k + stride * n for n in distinct(draw, 2, 2))
    W = H if square else W
    rest = 0 if divides or stride == 1 else draw.integer(1, stride)
    return draw.normal(N, C, H + rest, W + rest), k, stride


def expect_pooled(student: Student, arguments: tuple[Tensor, int, int]) -> None:
    """The student's out is the largest value of every window."""
    out, _ = expect(student.max_pool2d_forward(*arguments)).parts("out", "cache")
    X, k, stride = arguments
    right = functional.max_pool2d(X, k, stride)

    def slips() -> Slips:
        return {"The search for the maximum begins at 0, so negative values never win.": right.clamp(min=0)}

    expect(out, f"out for k = {k}, stride = {stride}").close_to(right, slips=slips)


@max_pool2d_forward.criterion(points=1)
def largest_of_each_window(student: Student, draw: Draw) -> None:
    """The largest value of every window, channel by channel (stride = k, and the windows fill the image)."""
    for k in (2, 3):
        X, _, _ = arguments = pooling(draw, k, k, divides=True)
        expect_pooled(student, (X.abs(), *arguments[1:]))


@max_pool2d_forward.criterion(points=0.5)
def stride_is_not_k(student: Student, draw: Draw) -> None:
    """Windows may overlap (stride < k) or leave gaps (stride > k): as some of the windows of stride 1."""
    for k, stride in ((3, 2), (2, 3)):
        X = pooling(draw, k, stride, divides=True, square=True)[0].abs()
        expected = pooled_by(student, X, k, 1)[:, :, ::stride, ::stride]
        name = f"out for k = {k}, stride = {stride}"
        expect(pooled_by(student, X, k, stride), name).close_to(expected, because="some of your out for stride 1")


@max_pool2d_forward.criterion(points=0.5)
def left_over_is_left_out(student: Student, draw: Draw) -> None:
    """Rows and columns that do not fill a window are left out (floor)."""
    for k in (2, 3):
        X = pooling(draw, k, k, square=True)[0].abs()
        H, W = (n // k * k for n in X.shape[2:])
        expected = pooled_by(student, X[:, :, :H, :W].clone(), k, k)
        because = "your out for the images without them"
        expect(pooled_by(student, X, k, k), f"out for k = {k}, stride = {k}").close_to(expected, because=because)


def pooled_by(student: Student, X: Tensor, k: int, stride: int) -> Tensor:
    """The student's out, of the right shape and not all the same."""
    out, _ = expect(student.max_pool2d_forward(X, k, stride)).parts("out", "cache")
    return varied(out, *functional.max_pool2d(X, k, stride).shape, name="out")


@max_pool2d_forward.criterion(points=0.5)
def negative_values(student: Student, draw: Draw) -> None:
    """The largest of negative values is negative."""
    X, k, stride = pooling(draw, 2, 2, divides=True, square=True)
    expect_pooled(student, (-X.abs() - 0.1, k, stride))


def small_pooling(draw: Draw) -> tuple[Any, ...]:
    """Arguments of a small max pooling for criteria on form."""
    return draw.normal(2, 3, 4, 4), 2, 2


add_contract(max_pool2d_forward, small_pooling, [Form("out", (2, 3, 2, 2)), Opaque("cache")])


max_pool2d_backward = Exercise("max_pool2d_backward", forbidden=FORBIDDEN, leans_on=("max_pool2d_forward",))


def pool_passes(student: Student, draw: Draw, arguments: tuple[Any, ...], grad_out: Tensor | None = None) -> Passes:
    """Both passes of a max pooling."""
    return Passes(student, draw, MAX_POOL2D, arguments, grad_out)


def pool_passes_but_for_a_factor(
    student: Student, draw: Draw, arguments: tuple[Any, ...], grad_out: Tensor | None = None
) -> Passes:
    """Both passes of a max pooling; how much the winner of a window gets is the business of another criterion.

    A factor of all gradients is taken out, and where winners get 1 instead of the entry of grad_out, it is all ones.
    """
    factor, ones = 1.0, False
    with contextlib.suppress(Unmet):
        simple = pool_passes(student, draw, pooling(draw, 2, 2, divides=True))
        got, right = simple.got(0).double(), simple.by_autograd()[0]
        ratio = float((got * right).sum() / (right * right).sum())
        if simple.right and ratio and close(got, ratio * right):
            N = len(simple.leaves[0])
            factor = 1 / len(arguments[0]) if close(N * got, right) else ratio
        ones = simple.right and close(got, replace_grad(simple, torch.ones_like(simple.grad_out)).by_autograd()[0])
    if ones:
        grad_out = torch.ones_like(functional.max_pool2d(*arguments))
    passes = pool_passes(student, draw, arguments, grad_out)
    gradient = passes.gradients[0]
    if isinstance(gradient, Tensor) and abs(factor - 1) > 1e-6:
        passes.gradients = (gradient / factor,)
    return passes


def sum_of_windows(student: Student, draw: Draw, passes: Passes) -> Tensor:
    """The sum of the student's gradients for each window alone, at its place."""
    X, k, stride = passes.arguments
    found = torch.zeros_like(X)
    for i, j in ((i, j) for i in range(passes.right_out.shape[2]) for j in range(passes.right_out.shape[3])):
        place = (..., slice(i * stride, i * stride + k), slice(j * stride, j * stride + k))
        grad_out = passes.grad_out[:, :, i : i + 1, j : j + 1].clone()
        found[place] += pool_passes_but_for_a_factor(student, draw, (X[place].clone(), k, stride), grad_out).got(0)
    return varied(found, *X.shape, name="the sum of the gradients of single windows")


@max_pool2d_backward.criterion(points=1)
def largest_pixel_gets_the_gradient(student: Student, draw: Draw) -> None:
    """The gradient of a window goes to its largest pixel, the others get 0 (stride = k, no ties)."""
    for k in (2, 3):
        pool_passes(student, draw, pooling(draw, k, k, divides=True)).check(0)


@max_pool2d_backward.criterion(points=1)
def overlapping_windows_add(student: Student, draw: Draw) -> None:
    """A pixel that is the largest of several windows gets the sum of their gradients (stride < k)."""
    for k, stride in ((3, 1), (3, 2)):
        X, _, _ = arguments = pooling(draw, k, stride, divides=True, square=True)
        X[:, :, 2, 2] = 9.0  # the largest of several windows
        passes = pool_passes_but_for_a_factor(student, draw, arguments)
        try:
            passes.check(0)
        except Unmet:  # to which of its pixels a window's gradient goes is the business of another criterion
            if not passes.right or not close(passes.got(0), sum_of_windows(student, draw, passes)):
                raise


@max_pool2d_backward.criterion(points=0.5)
def pixels_in_no_window(student: Student, draw: Draw) -> None:
    """Pixels in a gap (stride > k), and those left over at the edges, get 0; the others all the gradient there is."""
    for k, stride in ((2, 3), (2, 2)):
        passes = pool_passes_but_for_a_factor(student, draw, pooling(draw, k, stride, square=True))
        got = passes.got(0)
        covered = torch.zeros_like(got, dtype=torch.bool)
        H, W = passes.right_out.shape[2:]
        for i, j in ((i, j) for i in range(k) for j in range(k)):
            covered[:, :, i : i + stride * H : stride, j : j + stride * W : stride] = True
        expect(got).all(covered | (got == 0), "a pixel in no window has a gradient")
        name = "the sum of grad_X over an image's channel"
        total = passes.grad_out.sum((2, 3))
        expect(got.sum((2, 3)), name).close_to(total, because="the sum of grad_out")


@max_pool2d_backward.criterion(points=0.5)
def one_pixel_among_ties(student: Student, draw: Draw) -> None:
    """Among several largest pixels of a window exactly one, of your choice, gets the gradient (stride = k)."""
    X, k, stride = pooling(draw, 2, 2, divides=True)
    for values in (draw.integers(0, 2, *X.shape).to(X.dtype), torch.zeros_like(X)):
        passes = pool_passes_but_for_a_factor(student, draw, (values, k, stride))
        g = finite(passes.grad_out, *passes.right_out.shape, name="out")
        got, largest = windows_of(passes.got(0), k), windows_of(values, k)
        receives = got != 0
        expect(receives).all(receives.sum(-1) >= 1, "no pixel of a window gets its gradient")
        expect(receives).all(receives.sum(-1) == 1, "several pixels of a window get its gradient")
        expect(got.sum(-1), "the sum of grad_X over a window").close_to(g, because="grad_out")
        chosen = (largest * receives).sum(-1)
        expect(chosen).all(chosen == largest.amax(-1), "the pixel that gets the gradient is not a largest one")


def windows_of(images: Tensor, k: int) -> Tensor:
    """The pixels of every window where the stride is k: (N, C, H / k, W / k, k·k)."""
    N, C, H, W = images.shape
    return images.reshape(N, C, H // k, k, W // k, k).transpose(3, 4).flatten(-2)


add_pair_criteria(MAX_POOL2D, max_pool2d_backward, small_pooling)


# --- Transposed convolution ------------------------------------------------------------------------------------------

conv_transpose2d = Exercise("conv_transpose2d", forbidden=FORBIDDEN)


def transposed_convolution(
    draw: Draw, stride: int = 1, padding: int = 0, *, bias: bool = True, square: bool = False
) -> Conv:
    """A random transposed convolution, its filters (C_in, C_out, kh, kw); with `square` as in `convolution`."""
    N, C_in, C_out = distinct(draw, 3, 2)
    H, W = distinct(draw, 2, 3)
    kernel = (3, 2) if draw.integer(0, 2) else (2, 4)
    if square:
        W, kernel = H, (kernel[0], kernel[0])
    b = away_from_zero(draw, C_out)
    filters = draw.normal(C_in, C_out, *kernel)
    return Conv(draw.normal(N, C_in, H, W), filters, b if bias else torch.zeros_like(b), stride, padding)


def stamped(p: Conv) -> Tensor:
    """The transposed convolution by PyTorch."""
    return functional.conv_transpose2d(p.X, p.filters, p.b, stride=p.stride, padding=p.padding)


def stamped_by(student: Student, p: Conv, *, strict: bool = False) -> Tensor:
    """The student's result, of the right shape.

    Where it is empty without padding, which a `strict` criterion asks about, it is that with padding: for images with
    zeros around them.
    """
    result = student.conv_transpose2d(*p.arguments)
    if is_empty(result) and not p.padding and not strict:
        wider = functional.pad(p.X, (1, 1, 1, 1))
        result = student.conv_transpose2d(*replace(p, X=wider, padding=p.stride).arguments)
    return finite(result, *stamped(p).shape)


@conv_transpose2d.criterion(points=1)
def stamps_add_up(student: Student, draw: Draw) -> None:
    """Every pixel stamps the filters, times its value, onto the result; stamps add up (stride 1, padding 0, b = 0)."""
    for _ in range(2):
        p = transposed_convolution(draw, bias=False)
        turned = stamped(replace(p, filters=p.filters.flip(2, 3)))
        slip = {"The filter is turned by 180°; it is stamped as it stands.": turned}
        got = stamped_by(student, p, strict=True)
        expect(got).close_to(stamped(p), slips=lambda slip=slip: slip)


@conv_transpose2d.criterion(points=1)
def stride_spreads_the_stamps(student: Student, draw: Draw) -> None:
    """With stride s the stamps lie s pixels apart (they do not overlap here; b = 0)."""
    p = transposed_convolution(draw, 4, bias=False, square=True)
    p = replace(p, X=p.X[:, :, :3, :3].clone())
    kh, kw = p.kernel
    expected = torch.zeros_like(stamped(p))
    for i, j in ((i, j) for i in range(3) for j in range(3)):
        alone = replace(p, X=p.X[:, :, i : i + 1, j : j + 1].clone(), stride=1)
        expected[:, :, 4 * i : 4 * i + kh, 4 * j : 4 * j + kw] = stamped_by(student, alone)
    varied(expected, *expected.shape)
    because = "yours for each pixel alone, at their places"
    expect(stamped_by(student, p), "the result for stride 4").close_to(expected, because=because)


@conv_transpose2d.criterion(points=1)
def padding_crops(student: Student, draw: Draw) -> None:
    """Padding p cuts p rows and columns off every side of the result."""
    for padding in (1, 2):
        p = transposed_convolution(draw, 1, padding, square=True)
        p = replace(p, X=draw.normal(*p.X.shape[:2], p.X.shape[2] + 2, p.X.shape[3] + 2))
        larger = replace(p, padding=0)
        whole = varied(stamped_by(student, larger), *stamped(larger).shape)
        expected = whole[:, :, padding:-padding, padding:-padding]
        expect(stamped_by(student, p), f"the result for padding {padding}").close_to(
            expected, because="the inner part of yours for padding 0"
        )


@conv_transpose2d.criterion(points=0.5, name="bias_is_added")
def transposed_bias_is_added(student: Student, draw: Draw) -> None:
    """b[k] is added once to every pixel of map k, also where no stamp has been."""
    for stride in (1, 5):
        p = transposed_convolution(draw, stride, square=True)
        try:
            without = varied(stamped_by(student, replace(p, b=torch.zeros_like(p.b))), *stamped(p).shape)
        except Unmet:
            if stride == 1:
                raise
            return  # what a stride does is the business of another criterion
        expected, text = without + p.b[:, None, None], "The bias is missing where no stamp has been."
        slip = {text: torch.where(without == 0, without, expected)} if stride > 1 else {}
        expect(stamped_by(student, p)).close_to(
            expected, because="the result where b = 0, plus b", slips=lambda slip=slip: slip
        )


add_contract(
    conv_transpose2d,
    lambda draw: (draw.normal(2, 3, 5, 5), draw.normal(3, 4, 3, 3), draw.normal(4), 1, 0),
    [Form("the result", (2, 4, 7, 7))],
)


# --- Receptive field -------------------------------------------------------------------------------------------------

receptive_field = Exercise("receptive_field")


def seen_by(layers: Sequence[tuple[int, int, int]]) -> int:
    """How many pixels of a row one output sees, by following it back from the last layer to the first."""
    pixels = {0}
    for kernel, stride, dilation in reversed(layers):
        pixels = {p * stride + tap * dilation for p in pixels for tap in range(kernel)}
    return max(pixels) - min(pixels) + 1


def expect_field(student: Student, layers: list[tuple[int, int, int]], *, alone: bool = False) -> None:
    """The student's receptive field is right.

    What a pixel sees without layers, and with `alone` what each kernel adds on its own, is the student's where that
    is wrong: other criteria ask for these.
    """
    got = expect(student.receptive_field(layers), f"the receptive field of {layers}")
    right = seen_by(layers)
    try:
        got.close_to(float(right))
    except Unmet:
        if not any(close_number(got.value, own) for own in own_fields(student, layers, alone)):
            raise


def close_number(value: Any, expected: float) -> bool:
    """Whether a result is this number."""
    return isinstance(value, int | float) and abs(value - expected) < 1e-6


def own_fields(student: Student, layers: list[tuple[int, int, int]], alone: bool) -> Iterator[float]:
    """What the field would be if all but the student's fields of no layer and of single kernels were right."""

    def field(*some: tuple[int, int, int]) -> float:
        return number(student.receptive_field(list(some)), "the receptive field")

    try:
        nothing = field()
    except Unmet:
        nothing = 1.0
    yield seen_by(layers) - 1 + nothing
    if not alone or field((3, 1, 1)) == field((6, 1, 1)):
        return
    size, jump = nothing, 1
    for kernel, stride, dilation in layers:
        size += (field((kernel, 1, 1)) - nothing) * dilation * jump
        jump *= stride
    yield size
    spread = [((kernel - 1) * dilation + 1, stride, 1) for kernel, stride, dilation in layers]
    if spread != layers and jump == 1:  # a dilated kernel sees as far as a larger one
        yield field(*spread)


@receptive_field.criterion(points=0.5)
def kernels(student: Student, draw: Draw) -> None:
    """Each further layer widens the field by its kernel less one (stride and dilation 1)."""
    for count in (1, 2, 4):
        expect_field(student, [(draw.integer(2, 6), 1, 1) for _ in range(count)])
    expect_field(student, [(3, 1, 1), (1, 1, 1), (draw.integer(2, 6), 1, 1)])


@receptive_field.criterion(points=1, name="strides")
def strides_multiply(student: Student, draw: Draw) -> None:
    """A stride counts for all layers that come after it, and strides multiply (dilation 1)."""
    for count in (2, 3, 4):
        layers = [(draw.integer(2, 6), draw.integer(2, 4), 1) for _ in range(count)]
        expect_field(student, layers, alone=True)


@receptive_field.criterion(points=0.5)
def dilations(student: Student, draw: Draw) -> None:
    """A dilation spreads the taps of its own layer and of no other (stride 1)."""
    for count in (1, 2, 3):
        layers = [(draw.integer(2, 5), 1, draw.integer(2, 5)) for _ in range(count)]
        expect_field(student, layers, alone=True)


@receptive_field.criterion(points=0.5)
def no_layers(student: Student, draw: Draw) -> None:
    """Without any layer a pixel sees itself: the empty list gives 1."""
    expect(student.receptive_field([]), "the receptive field of no layers").close_to(1.0)


@receptive_field.criterion(points=0.25, contract=True, name="keeps_form")
def field_is_an_integer(student: Student, draw: Draw) -> None:
    """The result is an integer."""
    for layers in ([(3, 2, 1), (5, 1, 2)], [(4, 3, 1)]):
        Form("the receptive field", scalar="integer").check(student.receptive_field(layers), torch.float64)


@receptive_field.criterion(points=0.25, contract=True, name="leaves_arguments_alone")
def layers_left_alone(student: Student, draw: Draw) -> None:
    """The list of layers is not changed."""
    for layers in ([(3, 2, 1), (5, 1, 2)], [(4, 3, 1)]):
        student.receptive_field(layers)
        unchanged_arguments(student.calls[-1])


# --- The patchify net ------------------------------------------------------------------------------------------------

Params = dict[str, Tensor]
WEIGHTS = ("F", "W1", "W2")


@dataclass
class NetProblem:
    """A training set of patches (N, P, d) with labels y (N,), and the parameters of a patchify net."""

    patches: Tensor
    y: Tensor
    params: Params

    @property
    def N(self) -> int:
        """The number of images."""
        return len(self.patches)


def relu_inputs(patches: Tensor, params: Params) -> tuple[Tensor, Tensor]:
    """What goes into the ReLU after the convolution, (N, P, n_f), and into that of the hidden layer, (N, m)."""
    maps = torch.einsum("npd,df->npf", patches, params["F"]) + params["b"]
    return maps, functional.linear(torch.relu(maps).flatten(1), params["W1"].T, params["b1"])


def scores_of(patches: Tensor, params: Params) -> Tensor:
    """The scores of a patchify net, by PyTorch."""
    return torch.relu(relu_inputs(patches, params)[1]) @ params["W2"] + params["b2"]


def net_problem(
    draw: Draw,
    *,
    P: int | None = None,
    N: int | None = None,
    bias: bool = True,
    maps: bool = False,
    hidden: bool = False,
    K: int | None = None,
) -> NetProblem:
    """A random problem whose sizes all differ; no input of a ReLU lies so near 0 that a small step crosses it.

    With `maps` no ReLU after the convolution cuts anything off, with `hidden` none of the hidden layer.
    """
    while True:
        d, patches, n_f, m, classes = distinct(draw, 5, 3)
        P, K = P or patches, K or classes
        N = N or draw.integer(9, 13)
        scale = {"F": d, "W1": P * n_f, "W2": m}
        shapes = {"F": (d, n_f), "b": (n_f,), "W1": (P * n_f, m), "b1": (m,), "W2": (m, K), "b2": (K,)}
        params = {
            k: draw.normal(*s, scale=math.sqrt(2 / scale[k])) if k in scale else 0.5 * away_from_zero(draw, *s)
            for k, s in shapes.items()
        }
        if not bias:
            params |= {k: torch.zeros_like(params[k]) for k in ("b", "b1", "b2")}
        X = draw.normal(N, P, d)
        if maps:
            X, params["F"], params["b"] = X.abs(), params["F"].abs(), params["b"].abs()
        if hidden:
            params["W1"], params["b1"] = params["W1"].abs(), params["b1"].abs()
        inputs = relu_inputs(X, params)
        active = [float((z > 0).double().mean()) for z in inputs]
        mixed = all(whole or 0.15 < part < 0.85 for part, whole in zip(active, (maps, hidden), strict=True))
        if mixed and all(bool((z.abs() > 1e-4)[z != 0].all()) for z in inputs):
            return NetProblem(X, labels(draw, N, K), params)


patchify_net_forward = Exercise("patchify_net_forward", forbidden=FORBIDDEN, opaque=(1,))


def net_scores(student: Student, p: NetProblem) -> Tensor:
    """The student's scores, of the right shape and finite."""
    scores, _ = expect(student.patchify_net_forward(p.patches, p.params)).parts("scores", "cache")
    return finite(scores, p.N, len(p.params["b2"]), name="the scores")


AFTER_THE_SCORES: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.relu,
    torch.sigmoid,
    lambda scores: torch.softmax(scores, 1),
    lambda scores: torch.log_softmax(scores, 1),
    lambda scores: scores - scores.amax(1, keepdim=True),
)
"""What is sometimes done to scores after the last layer, and changes what −2·W2 gives."""


def expect_scores(student: Student, p: NetProblem) -> None:
    """The scores are right; what was done to them after the last layer is the business of another criterion."""
    got, expected = net_scores(student, p), scores_of(p.patches, p.params)
    if any(close(got, done(expected)) for done in AFTER_THE_SCORES):
        got = expected
    expect(got, "the scores").close_to(expected)


@patchify_net_forward.criterion(points=1)
def three_layers(student: Student, draw: Draw) -> None:
    """Patches times F, times W1, times W2 (one patch; all is positive, so no ReLU cuts; every bias is 0)."""
    for _ in range(2):
        expect_scores(student, net_problem(draw, P=1, bias=False, maps=True, hidden=True))


@patchify_net_forward.criterion(points=1)
def flattened_patch_by_patch(student: Student, draw: Draw) -> None:
    """The maps (N, P, n_f) are laid out patch by patch before W1 (all is positive; every bias is 0)."""
    p = net_problem(draw, bias=False, maps=True, hidden=True)
    P, n_f = p.patches.shape[1], p.params["F"].shape[1]
    whole = varied(net_scores(student, p), p.N, len(p.params["b2"]), name="the scores")
    for k in (0, P - 1):  # one patch alone, as a net of one patch
        alone = replace(p, patches=torch.where(torch.arange(P)[:, None] == k, p.patches, 0.0))
        rows = {"W1": p.params["W1"][k * n_f : (k + 1) * n_f]}
        single = NetProblem(p.patches[:, k : k + 1].clone(), p.y, p.params | rows)
        expected = net_scores(student, single)
        because = f"those of patch {k} alone, with its n_f rows of W1"
        expect(net_scores(student, alone), "the scores where the other patches are 0").close_to(
            expected, because=because
        )
    expect(whole).all(not close(whole, expected), "the scores do not depend on the other patches")


@patchify_net_forward.criterion(points=0.5)
def relu_after_the_convolution(student: Student, draw: Draw) -> None:
    """Negative entries of the maps become 0 (one patch; b = 0)."""
    expect_scores(student, net_problem(draw, P=1, hidden=True, bias=False))


@patchify_net_forward.criterion(points=0.5)
def relu_of_the_hidden_layer(student: Student, draw: Draw) -> None:
    """What comes out of W1 passes a ReLU too (one patch; b = 0)."""
    expect_scores(student, net_problem(draw, P=1, maps=True, bias=False))


@patchify_net_forward.criterion(points=0.5)
def biases_are_added(student: Student, draw: Draw) -> None:
    """b, b1 and b2 are added where they belong (one patch; all is positive)."""
    p = net_problem(draw, P=1, maps=True, hidden=True)
    zeros = {k: torch.zeros_like(p.params[k]) for k in ("b", "b1", "b2")}
    for name in zeros:
        expect_scores(student, replace(p, params=p.params | zeros | {name: p.params[name]}))


@patchify_net_forward.criterion(points=0.5)
def nothing_after_the_last_layer(student: Student, draw: Draw) -> None:
    """Scores are what the last layer gives, no probabilities: with −2·W2 they become −2 times as large (b2 = 0)."""
    p = net_problem(draw)
    p.params["b2"] = torch.zeros_like(p.params["b2"])
    once = varied(net_scores(student, p), p.N, len(p.params["b2"]), name="the scores")
    p.params["W2"] = -2 * p.params["W2"]
    expect(net_scores(student, p), "the scores with −2·W2").close_to(-2 * once, because="−2 times those with W2")


def small_net(draw: Draw) -> tuple[Tensor, Params]:
    """Patches (9, 4, 6) and parameters for criteria on form."""
    shapes = {"F": (6, 3), "b": (3,), "W1": (12, 7), "b1": (7,), "W2": (7, 5), "b2": (5,)}
    return draw.normal(9, 4, 6), {k: draw.normal(*shape, scale=0.5) for k, shape in shapes.items()}


add_contract(patchify_net_forward, lambda draw: (small_net(draw), {}), [Form("the scores", (9, 5)), Opaque("cache")])


patchify_net_backward = Exercise("patchify_net_backward", forbidden=FORBIDDEN, leans_on=("patchify_net_forward",))


class NetPasses:
    """A forward and a backward pass of the student's net, and the gradients that they should give.

    As with `Passes`, a wrong forward pass costs the backward pass nothing.
    """

    def __init__(self, student: Student, p: NetProblem, lam: float = 0.0) -> None:
        self.student, self.problem, self.lam = student, p, lam
        self.scores, self.cache = self._forward(p.params)
        self.gradients = self.back()
        leaves = {k: v.detach().clone().requires_grad_() for k, v in p.params.items()}
        loss = functional.cross_entropy(scores_of(p.patches, leaves), p.y)
        self.expected = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    def back(self) -> Any:
        """The student's gradients, asked for (once more) with the same cache."""
        return self.student.patchify_net_backward(self.problem.y, self.problem.params, self.cache, self.lam)

    def _forward(self, params: Params) -> tuple[Tensor, Any]:
        result = self.student.patchify_net_forward(self.problem.patches, params)
        scores, cache = expect(result).parts("scores", "cache")
        return finite(scores, self.problem.N, len(params["b2"]), name="the scores"), cache

    def got(self, key: str) -> Tensor:
        """The student's gradient of one array, of the right shape and finite."""
        if not isinstance(self.gradients, dict) or key not in self.gradients:
            keys = ", ".join(map(repr, self.problem.params))
            raise Unmet(f"Expected the gradients as a dict with the keys {keys}.", "type")
        shape = self.problem.params[key].shape
        return finite(self.gradients[key], *shape, name=f"gradients[{key!r}]")

    def factor(self) -> float:
        """By how much the gradient of W2 is too large, or 1 where it is no mere factor."""
        got, expected = self.got("W2").double(), self.expected["W2"]
        ratio = float((got * expected).sum() / (expected * expected).sum())
        return ratio if ratio and close(got, ratio * expected, 1e-3) else 1.0

    def slips(self, key: str) -> Slips:
        """What usual slips give for one gradient."""
        p = self.problem
        maps = torch.relu(p.patches @ p.params["F"] + p.params["b"])
        flat = maps.flatten(1)
        hidden = torch.relu(flat @ p.params["W1"] + p.params["b1"])
        scores = hidden @ p.params["W2"] + p.params["b2"]
        G = (torch.softmax(scores, 1) - functional.one_hot(p.y, scores.shape[1])) / p.N
        unmasked = G @ p.params["W2"].T
        masked = unmasked * (hidden > 0)
        text = "The ReLU of the hidden layer is forgotten on the way back: only what it let through has a gradient."
        found = {"W1": {text: flat.T @ unmasked}, "b1": {text: unmasked.sum(0)}}
        back = (masked @ p.params["W1"].T).reshape(-1, maps.shape[2])
        text = "The ReLU of the maps is forgotten on the way back: only what it let through has a gradient."
        found |= {"F": {text: p.patches.flatten(0, 1).T @ back}, "b": {text: back.sum(0)}}
        return found.get(key, {})

    def check(self, key: str, *, as_the_last: bool = False) -> None:
        """The gradient of one array is right (as a mean or as a sum).

        With `as_the_last` it may be off by the factor by which that of W2 is.
        """
        name, expected, N = f"gradients[{key!r}]", self.expected[key], self.problem.N
        factors = [1.0, 1 / N, *([1 / self.factor()] if as_the_last else [])]
        got = self.got(key).double()
        right = next((got * f for f in factors if close(got * f, expected, 1e-3)), got)
        try:
            expect(right, name).close_to(
                expected, because="autograd's result", sizes={"N": N}, slips=lambda: self.slips(key)
            )
        except Unmet:
            p = self.problem
            if as_the_last and self._fits_the_own_last_layer(key):
                return
            if close(self.scores, scores_of(p.patches, p.params)) or not follows_slopes(
                lambda x: functional.cross_entropy(self._forward(p.params | {key: x})[0], p.y),
                p.params[key],
                got,
                factors=factors,
            ):
                raise

    def _fits_the_own_last_layer(self, key: str) -> bool:
        """Whether a gradient is right for the student's own gradient of the scores, which for one image is b2's."""
        p, some = self.problem, False
        for n in range(p.N):
            one = NetProblem(p.patches[n : n + 1], p.y[n : n + 1], p.params)
            passes = NetPasses(self.student, one, self.lam)
            leaf = p.params[key].detach().clone().requires_grad_()
            scores = scores_of(one.patches, p.params | {key: leaf})
            (expected,) = torch.autograd.grad((scores * passes.got("b2").double()).sum(), leaf)
            if close(passes.got("b2"), passes.expected["b2"]) or not close(passes.got(key), expected):
                return False
            some = some or bool((expected != 0).any())
        return some


@patchify_net_backward.criterion(points=1)
def last_layer(student: Student, draw: Draw) -> None:
    """The gradients of W2 and b2 (λ = 0; as a mean or as a sum)."""
    passes = NetPasses(student, net_problem(draw))
    passes.check("W2")
    passes.check("b2")


@patchify_net_backward.criterion(points=1)
def hidden_layer(student: Student, draw: Draw) -> None:
    """The gradients of W1 and b1 go back through W2 and the ReLU (λ = 0; a missing 1/N is not counted again)."""
    passes = NetPasses(student, net_problem(draw))
    passes.check("W1", as_the_last=True)
    passes.check("b1", as_the_last=True)


@patchify_net_backward.criterion(points=1)
def filters(student: Student, draw: Draw) -> None:
    """The gradient of F adds up over all patches (λ = 0, the ReLU cuts nothing; a missing 1/N is not counted again)."""
    for _ in range(2):
        NetPasses(student, net_problem(draw, hidden=True)).check("F", as_the_last=True)


@patchify_net_backward.criterion(points=0.5)
def bias_of_the_filters(student: Student, draw: Draw) -> None:
    """The gradient of b adds up over all patches (λ = 0, the ReLU cuts nothing; a missing 1/N is not counted again)."""
    for _ in range(2):
        NetPasses(student, net_problem(draw, hidden=True)).check("b", as_the_last=True)


@patchify_net_backward.criterion(points=0.5, contract=True)
def mean_over_examples(student: Student, draw: Draw) -> None:
    """The gradients are those of a mean over images: with every image twice they stay the same."""
    p = net_problem(draw)
    once = NetPasses(student, p)
    twice = NetPasses(student, NetProblem(torch.cat([p.patches, p.patches]), torch.cat([p.y, p.y]), p.params))
    a, b = (torch.cat([passes.got(k).flatten() for k in p.params]) for passes in (once, twice))
    expect(a).all(bool((a != 0).any()), "every gradient is 0")
    name = "the vector of all gradients, with every image twice,"
    slip = {"The gradients are summed over the images where their mean is meant: 1 / N is missing.": 2 * a}
    expect(b, name).close_to(a, because="the gradients with each once", slips=lambda: slip)


@patchify_net_backward.criterion(points=0.5)
def regulariser(student: Student, draw: Draw) -> None:
    """λ adds 2λF, 2λW1 and 2λW2 to the gradients, however many images there are."""
    p, lam = net_problem(draw), draw.number(0.1, 0.5)
    without, with_lam = NetPasses(student, p), NetPasses(student, p, lam)
    for key in WEIGHTS:
        expected = without.got(key) + 2 * lam * p.params[key]
        expect(with_lam.got(key), f"gradients[{key!r}]").close_to(expected, regularised=p.params[key], lam=lam)


@patchify_net_backward.criterion(points=0.5, contract=True)
def biases_are_not_regularised(student: Student, draw: Draw) -> None:
    """λ adds nothing to the gradients of b, b1 and b2."""
    p = net_problem(draw)
    without, with_lam = NetPasses(student, p), NetPasses(student, p, draw.number(0.1, 0.5))
    for key in ("b", "b1", "b2"):
        expected = without.got(key)
        because = f"the gradient of {key} where λ = 0"
        expect(with_lam.got(key), f"gradients[{key!r}]").close_to(expected, because=because)


@patchify_net_backward.criterion(points=0.5, contract=True, name="caches_are_independent")
def net_caches_are_independent(student: Student, draw: Draw) -> None:
    """A cache serves again: backward twice, and after another forward pass, gives the same gradients."""
    patches, params = small_net(draw)
    passes = NetPasses(student, NetProblem(patches, labels(draw, 9, 5), params), 0.1)
    before = {k: passes.got(k) for k in params}
    student.patchify_net_forward(*small_net(draw))
    for _ in range(2):
        passes.gradients = passes.back()
        for k, gradient in before.items():
            again = f"gradients[{k!r}], asked for again after another forward pass,"
            expect(passes.got(k), again).close_to(gradient, because="the gradient of the first time")


@patchify_net_backward.criterion(points=0.5, contract=True, name="keeps_form")
def net_gradients_keep_form(student: Student, draw: Draw) -> None:
    """The gradients are a dict with the keys, shapes and dtype (float32 and float64) of the parameters."""
    for dtype in (torch.float64, torch.float32):
        draw.dtype = dtype
        patches, params = small_net(draw)
        gradients = NetPasses(student, NetProblem(patches, labels(draw, 9, 5), params), 0.1).gradients
        form = Nested("the gradients", {k: tuple(v.shape) for k, v in params.items()})
        for part, value in form.leaves(gradients):
            part.check(value, dtype)


@patchify_net_backward.criterion(points=0.5, contract=True, name="leaves_arguments_alone")
def net_arguments_left_alone(student: Student, draw: Draw) -> None:
    """The function does not change the labels and parameters that it is given."""
    for _ in range(2):
        NetPasses(student, net_problem(draw), 0.1)
        unchanged_arguments(student.calls[-1])


# --- Label smoothing -------------------------------------------------------------------------------------------------

smooth_labels = Exercise("smooth_labels")


def smoothed(student: Student, draw: Draw, epsilon: float | None = None) -> tuple[Tensor, Tensor, float]:
    """The student's targets, which entries of them belong to the true classes, and ε."""
    N, K, epsilon = draw.integer(11, 15), draw.integer(4, 9), draw.number(0.1, 0.5) if epsilon is None else epsilon
    y = labels(draw, N, K)
    targets = finite(student.smooth_labels(y, K, epsilon), N, K, name="the targets")
    return targets, functional.one_hot(y, K) > 0, epsilon


@smooth_labels.criterion(points=1)
def other_classes(student: Student, draw: Draw) -> None:
    """Every class that is not the true one gets ε / K."""
    for _ in range(2):
        targets, true, epsilon = smoothed(student, draw)
        K = true.shape[1]
        expected = torch.full_like(targets[~true], epsilon / K)
        name = "the targets of the wrong classes"
        slips = {
            "ε is shared among the K − 1 other classes; the true class is one of the K that share it.": epsilon
            / (K - 1),
            "ε itself stands there; it is shared among the K classes: ε / K.": epsilon,
            "The wrong classes get nothing: ε / K is missing.": 0.0,
        }
        wrong = {text: torch.full_like(expected, value) for text, value in slips.items()}
        because = f"ε / K for K = {K}"
        expect(targets[~true], name).close_to(expected, single=True, because=because, slips=lambda wrong=wrong: wrong)


@smooth_labels.criterion(points=1)
def true_class(student: Student, draw: Draw) -> None:
    """The true class gets all the rest: 1 − ε + ε / K."""
    for _ in range(2):
        targets, true, epsilon = smoothed(student, draw)
        K = true.shape[1]
        expected = torch.full_like(targets[true], 1 - epsilon + epsilon / K)
        # Where the others are wrong (a criterion of its own) the rest that they leave is right too.
        rest = 1 - (targets * ~true).sum(1)
        on_top = 1 - epsilon + (targets * ~true).sum(1) / (K - 1)
        fits = epsilon and any(close(targets[true], t, 1e-4) for t in (rest, on_top))
        got = expected if fits else targets[true]
        slip = {
            "The true class lacks its own share of ε: ε / K on top of 1 − ε.": torch.full_like(expected, 1 - epsilon)
        }
        name = "the targets of the true classes"
        expect(got, name).close_to(expected, single=True, slips=lambda slip=slip: slip)


@smooth_labels.criterion(points=0.5)
def no_smoothing(student: Student, draw: Draw) -> None:
    """With ε = 0 the targets are one-hot: 1 for the true class, 0 for the others."""
    targets, true, _ = smoothed(student, draw, 0.0)
    expect(targets, "the targets").close_to(true.to(targets.dtype), single=True)


@smooth_labels.criterion(points=0.5, contract=True, name="keeps_form")
def targets_keep_form(student: Student, draw: Draw) -> None:
    """The targets are float32 of shape (N, K), also for K that no label reaches."""
    for K, epsilon in ((5, 0.1), (7, 0.2), (5, 0.0)):
        targets = student.smooth_labels(labels(draw, 9, 4), K, epsilon)
        Form("the targets", (9, K), dtype=torch.float32).check(targets, torch.float32)


@smooth_labels.criterion(points=0.25, contract=True, name="leaves_arguments_alone")
def labels_left_alone(student: Student, draw: Draw) -> None:
    """The labels are not changed."""
    for _ in range(2):
        student.smooth_labels(labels(draw, 9, 4), 5, 0.1)
        unchanged_arguments(student.calls[-1])


# --- Cyclical learning rates -----------------------------------------------------------------------------------------

cyclical_lr_doubling = Exercise("cyclical_lr_doubling")


@dataclass
class Cycles:
    """The constants of a schedule: n_1, lr_min and lr_max."""

    student: Student
    n_1: int
    lr_min: float
    lr_max: float
    late: int = 0  # by how many updates the student's rates come late; what t = 0 gives is one criterion's business
    own: int = 0  # how many updates the student's first way up takes, if not n_1; that is first_cycle's business
    straight: bool = True  # whether that way is a straight line; that is first_cycle's business too

    def __call__(self, t: int) -> float:
        """The student's learning rate of update t."""
        if t + self.late < 0:
            return self.lr_min
        result = self.student.cyclical_lr_doubling(t + self.late, self.n_1, self.lr_min, self.lr_max)
        return number(result, "the learning rate")

    def on_time(self) -> Cycles:
        """The same schedule; where the student's begins one update early or late, all of it is moved."""
        first, second, third = (self(t) for t in range(3))
        step = (self.lr_max - self.lr_min) / self.n_1
        rises = [abs(rate - self.lr_min - k * step) < 1e-6 for rate, k in ((first, 1), (second, 2))]
        waits = [abs(rate - self.lr_min - k * step) < 1e-6 for rate, k in ((first, 0), (second, 0), (third, 1))]
        return replace(self, late=-1 if all(rises) else 1 if all(waits) else 0)

    def as_they_go(self) -> Cycles:
        """The same schedule on time, with the length and the form that the student's first cycle has."""
        lr, rise = self.on_time(), self.lr_max - self.lr_min
        low, first, middle = (lr(t) for t in (0, 1, lr.n_1))
        own = round(min(rise / (first - low), 4 * lr.n_1)) if first > low else lr.n_1
        if own != lr.n_1:
            rates = [(lr(t), lr.lr_min + rise * min(t, 2 * own - t) / own) for t in range(2 * own + 1)]
            if all(abs(rate - right) < 1e-6 for rate, right in rates):
                return replace(lr, own=own)
        return replace(lr, straight=abs(lr.n_1 * (first - low) - (middle - low)) < 1e-6)

    @property
    def up(self) -> int:
        """How many updates the first way up takes."""
        return self.own or self.n_1

    def start(self, cycle: int) -> int:
        """The first update of a cycle, which are numbered from 0."""
        return 2 * self.up * (2**cycle - 1)

    def expect_between(self, t: int, part: float, low: float, high: float, name: str) -> None:
        """The rate at t is this part of the way from `low` to `high`; somewhere there if it is not straight."""
        rate = self(t)
        if self.straight:
            expect(rate, name).close_to(low + part * (high - low), because=f"{part:.3g} of the step that it lies in")
        else:
            text = f"{name} is {rate:.4g}, which does not lie between {low:.4g} and {high:.4g}"
            expect(rate).all(min(low, high) < rate < max(low, high), text)

    def expect_part(self, t: int, part: float) -> None:
        """The learning rate has risen by this part of lr_max − lr_min at t."""
        name = f"(lr({t}) − lr(0)) / (lr_max − lr_min) for n_1 = {self.n_1}"
        expect((self(t) - self(0)) / (self.lr_max - self.lr_min), name).close_to(part, atol=1e-6)


def cycles(student: Student, draw: Draw, *, even: bool = False) -> Cycles:
    """A random schedule; lr_min is not small beside lr_max.  With `even`, n_1 is an even number."""
    n_1 = 2 * draw.integer(2, 5) if even else draw.integer(4, 9)
    return Cycles(student, n_1, draw.number(0.1, 0.2), draw.number(0.5, 0.9))


@cyclical_lr_doubling.criterion(points=0.5)
def starts_at_lr_min(student: Student, draw: Draw) -> None:
    """At t = 0 the learning rate is lr_min; from there it rises."""
    lr = cycles(student, draw)

    def slips() -> Slips:
        return {
            "lr_min is not added.": torch.tensor(0.0),
            "It begins at lr_max and falls, where it should begin at lr_min and rise.": torch.tensor(lr.lr_max),
        }

    expect(lr(0), "lr(0)").close_to(lr.lr_min, slips=slips)
    expect(lr(1)).all(lr(1) > lr(0), "lr(1) is not larger than lr(0)")


@cyclical_lr_doubling.criterion(points=1)
def first_cycle(student: Student, draw: Draw) -> None:
    """In the first cycle it rises in n_1 equal steps by lr_max − lr_min and falls in as many."""
    lr = cycles(student, draw).on_time()
    for t in (1, 2, lr.n_1 - 1, lr.n_1, lr.n_1 + 1, 2 * lr.n_1 - 1):
        lr.expect_part(t, min(t, 2 * lr.n_1 - t) / lr.n_1)


@cyclical_lr_doubling.criterion(points=1.5)
def each_cycle_is_twice_as_long(student: Student, draw: Draw) -> None:
    """Cycle c takes 2ᶜ times as many updates as the first for the same way up and down."""
    lr = cycles(student, draw, even=True).as_they_go()  # half of n_1 is a number of updates too
    expect(lr(1)).all(lr(1) != lr(2), "lr(1) and lr(2) are the same")
    for cycle in (1, 2, 3):
        for t in (0, 1, lr.up - 1, lr.up, lr.up + 1, 2 * lr.up - 1):
            later = lr.start(cycle) + 2**cycle * t
            name = f"lr({later}) in cycle {cycle} for n_1 = {lr.n_1}"
            expect(lr(later), name).close_to(lr(t), because=f"that of t = {t} in cycle 0")
        between = lr.start(cycle) + 1
        lr.expect_between(between, 1 / 2**cycle, lr(0), lr(1), f"lr({between}) in cycle {cycle} for n_1 = {lr.n_1}")


@cyclical_lr_doubling.criterion(points=0.5, contract=True, name="keeps_form")
def learning_rate_is_a_float(student: Student, draw: Draw) -> None:
    """The result is a Python float."""
    lr = cycles(student, draw)
    for t in (0, 3, lr.n_1, 5 * lr.n_1):
        value = student.cyclical_lr_doubling(t, lr.n_1, lr.lr_min, lr.lr_max)
        Form("the learning rate", scalar="float").check(value, torch.float64)


# --- Modules: props --------------------------------------------------------------------------------------------------


def generator_of(seed: int) -> torch.Generator:
    """A generator in the state that belongs to a seed."""
    return torch.Generator().manual_seed(seed)


def unregistered(model: nn.Module) -> list[nn.Module]:
    """Modules that stand in plain lists, tuples and dicts of a model, which PyTorch does not see there.

    One criterion asks for them; for the others they count, or this one mistake would cost all points.
    """
    known, found = set(model.modules()), []
    for module in model.modules():
        for name, held in vars(module).items():
            if name != "_modules" and isinstance(held, list | tuple | dict):
                values = held.values() if isinstance(held, dict) else held
                found += [v for v in values if isinstance(v, nn.Module) and v not in known]
    return list(dict.fromkeys(found))


def set_mode(model: nn.Module, training: bool) -> None:
    """Training or evaluation mode for all layers, registered or not."""
    for module in (model, *unregistered(model)):
        module.train(training)


@prop
def settle(model: nn.Module, seed: int, images: Tensor) -> None:
    """Setting the model's parameters and running statistics."""
    set_mode(model, False)
    with torch.no_grad():
        model(images)  # layers that learn their shapes from the first images are made now
        stream = generator_of(seed)
        every = (model, *unregistered(model))
        for value in [v for m in every for v in (*m.parameters(), *m.buffers())]:
            if value.is_floating_point():
                spread = 1 / math.sqrt(value[0].numel()) if value.ndim > 1 else 0.3
                value.copy_(spread * torch.randn(value.shape, generator=stream))
        for norm in (part for m in every for part in m.modules()):
            if isinstance(norm, nn.modules.batchnorm._NormBase):
                for scale in (norm.weight, norm.running_var):
                    if scale is not None:
                        scale.copy_(0.5 + torch.rand(scale.shape, generator=stream))


@prop
def output_of(model: nn.Module, images: Tensor, training: bool) -> Any:
    """Running the model."""
    set_mode(model, training)
    with torch.no_grad():
        return model(images)


@prop
def layers_of(model: nn.Module) -> dict[str, Any]:
    """Reading the model's parameters."""
    found: dict[str, Any] = {"convs": [], "norms": [], "loose": [], "count": 0}
    every = (model, *unregistered(model))
    for module in (part for m in every for part in m.modules()):
        if isinstance(module, nn.modules.conv._ConvNd):
            found["convs"].append({"weight": module.weight, "bias": module.bias})
        elif isinstance(module, nn.Linear):  # along the channels it is a convolution 1 × 1
            found["convs"].append({"weight": module.weight[:, :, None, None], "bias": module.bias})
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            parts = ("weight", "bias", "running_mean", "running_var", "eps")
            found["norms"].append({part: getattr(module, part) for part in parts})
        else:
            for value in module.parameters(recurse=False):
                ways = [value]
                if value.ndim == 2:  # mixes channels as a convolution 1 × 1 does, from one side or the other
                    ways = [value[:, :, None, None], value.T[:, :, None, None]]
                elif value.ndim == 3:  # depthwise filters
                    ways = [value[:, None]]
                found["convs" if ways[0].ndim == 4 else "loose"] += [{"weight": way, "bias": None} for way in ways]
    found["count"] = sum(p.numel() for m in every for p in m.parameters())
    return found


@prop
def changes_images(model: nn.Module, images: Tensor) -> bool:
    """Running the model."""
    given = images.clone()
    for training in (True, False):
        set_mode(model, training)
        with torch.no_grad():
            model(given)
    return not torch.equal(given, images)


@prop
def copies_agree(model: nn.Module, other: nn.Module, images: Tensor) -> dict[str, bool]:
    """Loading the state of one model into another."""
    with torch.no_grad():
        settled, fresh = model.eval()(images.clone()), other.eval()(images.clone())
        other.load_state_dict(model.state_dict())
        loaded = other.eval()(images.clone())
    return {"differed": not torch.allclose(settled, fresh), "agree": torch.allclose(settled, loaded, rtol=1e-4)}


@prop
def parameters_without_gradient(model: nn.Module, images: Tensor, training: bool) -> list[str]:
    """Differentiating the model's output."""
    model.train(training)
    model.zero_grad()
    out = model(images.clone())
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    if out.requires_grad:
        (out * weights).sum().backward()
    silent = []
    for value in model.parameters():
        if value.requires_grad and value.grad is not None and bool((value.grad != 0).any()):
            continue
        with torch.no_grad():
            before = value.clone()
            value.mul_(1.5).add_(0.1)
            moved = not torch.allclose(model(images.clone()), out, rtol=1e-3, atol=1e-4 * float(out.abs().max()))
            value.copy_(before)
        if moved:  # it matters, and yet no gradient comes to it
            silent.append(str(tuple(value.shape)))
    return silent


# --- Modules: what they should compute -------------------------------------------------------------------------------

Weights = dict[str, Any]


def normalised(z: Tensor, norm: Weights, training: bool) -> Tensor:
    """Batch normalisation of maps z, by the statistics of the batch where `training`, else by the running ones."""
    mean, var = norm["running_mean"], norm["running_var"]
    if training or mean is None or var is None:
        mean, var = z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)
    scale, shift = (
        torch.tensor(v) if norm[k] is None else norm[k].double() for k, v in (("weight", 1.0), ("bias", 0.0))
    )
    z = (z - mean.double()[:, None, None]) / (var.double() + norm["eps"]).sqrt()[:, None, None]
    return z * scale.reshape(-1, 1, 1) + shift.reshape(-1, 1, 1)


def filtered(x: Tensor, conv: Weights, stride: int = 1, groups: int = 1) -> Tensor:
    """A convolution that keeps height and width at stride 1."""
    weight, bias = conv["weight"].double(), conv["bias"]
    padding = weight.shape[-1] // 2
    return functional.conv2d(x, weight, None if bias is None else bias.double(), stride, padding, groups=groups)


class Block:
    """A module of the student's with known parameters, its output and what it should be.

    Which layer plays which part is found by trying: names and order inside are the student's own.
    """

    images: Tensor

    def __init__(self, student: Student, draw: Draw, name: str, arguments: tuple[int, ...], N: int = 3) -> None:
        self.student, self.name, self.arguments = student, name, arguments
        H, W = distinct(draw, 2, 5)
        draw.dtype = torch.float32
        self.images = 4 * draw.normal(N, arguments[0], H, W)  # beyond where a ReLU6 cuts off
        self.model = student.call(name, *arguments)
        if not isinstance(self.model, Foreign):
            raise Unmet(f"{name}{arguments} gives no module.", "type")
        student.prop(settle, self.model, draw.integer(0, 2**31), self.images)
        self.layers = student.prop(layers_of, self.model)
        self._give_loose_biases()

    def _give_loose_biases(self) -> None:
        """A vector that belongs to no layer is taken for the bias of a convolution without one."""
        loose = [part["weight"] for part in self.layers["loose"]]
        for conv in self.layers["convs"]:
            fitting = [k for k, v in enumerate(loose) if v.shape == conv["weight"].shape[:1]]
            if conv["bias"] is None and fitting:
                conv["bias"] = loose.pop(fitting[0])

    def convs(self, *shape: int) -> list[Weights]:
        """The convolutions whose weights have this shape, or as many as it has filters of one filter each, as one."""
        fitting = [c for c in self.layers["convs"] if tuple(c["weight"].shape) == shape]
        single = [c for c in self.layers["convs"] if tuple(c["weight"].shape) == (1, *shape[1:])]
        if not fitting and len(single) == shape[0]:
            biases = [c["bias"] for c in single]
            bias = None if any(b is None for b in biases) else torch.cat(biases)
            return [{"weight": torch.cat([c["weight"] for c in single]), "bias": bias}]
        return fitting

    def norms(self, channels: int, count: int) -> Iterator[tuple[Weights, ...]]:
        """All ways to give so many normalisations of these channels their parts."""
        fitting = [n for n in self.layers["norms"] if n["running_mean"] is None or len(n["running_mean"]) == channels]
        return permutations(fitting, count)

    def out(self, training: bool) -> Tensor:
        """What the module gives for the images."""
        return expect(self.student.prop(output_of, self.model, self.images, training), "the output").tensor()

    def expect_one_of(
        self,
        candidates: Iterable[Tensor],
        training: bool,
        parts: str,
        spoiled: Iterable[tuple[str, Tensor]] = (),
    ) -> None:
        """The output is one of those that the parameters could give.

        Where it is none, `spoiled` are wrong ones that are often seen, each with the words that explain it.
        """
        got = self.out(training)
        wanted = list(candidates)
        # The nearest one: where none fits, it makes the most helpful message.
        best = min(
            wanted, key=lambda t: float((got.double() - t).norm()) if got.shape == t.shape else math.inf, default=None
        )
        mode = "training" if training else "evaluation"
        try:
            if best is None:
                raise Unmet(f"Expected {parts} in {self.name}{self.arguments}; it has {self.inventory()}.", "shape")
            expect(got, f"the output in {mode} mode").close_to(
                best, single=True, because="computed from its parameters"
            )
        except Unmet as unmet:
            known = [words for words, wrong in spoiled if words and close(got, wrong, 1e-4)]
            if known:
                unmet.causes = known[:1]
            elif best is None:
                unmet.causes = [
                    "A layer is missing, has another kind or size, is used in two places, or stands in a plain list: "
                    "layers count where they are attributes of the module, or in nn.Sequential or nn.ModuleList."
                ]
            raise

    def inventory(self) -> str:
        """The layers that the module has, in words."""
        convs = [f"weights {tuple(c['weight'].shape)}" for c in self.layers["convs"][:6]]
        norms = [
            f"{n['running_mean'].numel()} channels" for n in self.layers["norms"][:6] if n["running_mean"] is not None
        ]
        return f"convolutions with {', '.join(convs) or 'nothing'} and BatchNorm2d of {', '.join(norms) or 'nothing'}"


def without_gradient(student: Student, draw: Draw, model: Foreign, images: Tensor) -> list[str]:
    """The shapes of parameters that change the output but get no gradient, whatever the parameters are."""
    for _ in range(3):  # for some parameters a layer of ReLUs may give nothing but zeros
        student.prop(settle, model, draw.integer(0, 2**31), images)
        silent = [str(shape) for shape in student.prop(parameters_without_gradient, model, images, False)]
        if not silent:
            break
    return silent


def blocks_that_run(
    student: Student, draw: Draw, exercise: Exercise, cases: Callable[[Draw], list[tuple[int, ...]]]
) -> Iterator[Block]:
    """A block for each case; that it runs in all but the first is the business of other criteria."""
    for k, arguments in enumerate(cases(draw)):
        try:
            yield Block(student, draw, exercise.name, arguments)
        except Unmet:
            if k == 0:
                raise


def add_module_criteria(exercise: Exercise, cases: Callable[[Draw], list[tuple[int, ...]]]) -> None:
    """Registered layers, gradients, and images left alone, for a block; `cases(draw)` are arguments to make it with."""

    @exercise.criterion(points=0.5, contract=True)
    def layers_are_registered(student: Student, draw: Draw) -> None:
        """The state dict holds every layer: loaded into another module it makes the outputs agree."""
        for block in blocks_that_run(student, draw, exercise, cases):
            other = student.call(exercise.name, *block.arguments)
            found = student.prop(copies_agree, block.model, other, block.images)
            expect(found).all(found["differed"], "two modules with different parameters give the same output")
            expect(found).all(
                found["agree"],
                "with the same state dict two modules give different outputs: a layer is not an attribute of the "
                "module, or stands in a plain list",
            )

    @exercise.criterion(points=0.5, contract=True)
    def gradients_reach_every_layer(student: Student, draw: Draw) -> None:
        """Every parameter that matters to the output gets a gradient."""
        for block in blocks_that_run(student, draw, exercise, cases):
            expect(block.layers["count"]).all(block.layers["count"] > 0, "the module has no parameters")
            silent = without_gradient(student, draw, block.model, block.images)
            text = f"parameters of shape {', '.join(silent[:3])} change the output but get no gradient"
            expect(silent).all(not silent, text)

    @exercise.criterion(points=0.5, contract=True)
    def leaves_images_alone(student: Student, draw: Draw) -> None:
        """The images that the module is given are not changed (an in-place ReLU on them would)."""
        for block in blocks_that_run(student, draw, exercise, cases):
            changed = student.prop(changes_images, block.model, block.images)
            expect(changed).all(not changed, "the images are not what they were before the module ran")


# --- ConvBlock -------------------------------------------------------------------------------------------------------

ConvBlock = Exercise("ConvBlock")


def channels(draw: Draw) -> tuple[int, int]:
    """Two numbers of channels that differ."""
    c_in, c_out = distinct(draw, 2, 2)
    return c_in, c_out


def finished(whole: Tensor, norm: Weights, training: bool) -> Iterator[Tensor]:
    """ReLU(BN(z)) of maps; also without padding, and in training mode without ReLU or before it.

    These are the business of other criteria.
    """
    for z in (whole, whole[:, :, 1:-1, 1:-1]):
        yield torch.relu(normalised(z, norm, training))
        if training:
            yield normalised(z, norm, training)
            yield normalised(torch.relu(z), norm, training)


def conv_block_outputs(block: Block, training: bool) -> Iterator[Tensor]:
    """ReLU(BN(conv(x))), for every choice of layers."""
    c_in, c_out = block.arguments
    for conv in block.convs(c_out, c_in, 3, 3):
        for (norm,) in block.norms(c_out, 1):
            yield from finished(filtered(block.images.double(), conv), norm, training)


def spoiled_conv_blocks(block: Block, training: bool) -> Iterator[tuple[str, Tensor]]:
    """What often goes wrong in a ConvBlock, and what comes of it."""
    c_in, c_out = block.arguments
    for conv in block.convs(c_out, c_in, 3, 3):
        z = filtered(block.images.double(), conv)
        yield "There is no batch normalisation.", torch.relu(z)
        for (norm,) in block.norms(c_out, 1):
            yield (
                "The ReLU comes before the batch normalisation; it comes last.",
                normalised(torch.relu(z), norm, training),
            )
            yield "There is no ReLU at the end.", normalised(z, norm, training)
            if not training:
                text = "The statistics of the batch are used in evaluation mode too."
                yield text, torch.relu(normalised(z, norm, True))


def expect_conv_block(student: Student, draw: Draw, arguments: tuple[int, int], training: bool) -> None:
    """A ConvBlock's output is right."""
    c_in, c_out = arguments
    block = Block(student, draw, "ConvBlock", arguments)
    parts = f"a convolution with weights ({c_out}, {c_in}, 3, 3) and BatchNorm2d of {c_out} channels"
    spoiled = spoiled_conv_blocks(block, training)
    block.expect_one_of(conv_block_outputs(block, training), training, parts, spoiled)


@ConvBlock.criterion(points=1.5)
def output_in_evaluation(student: Student, draw: Draw) -> None:
    """In evaluation mode: ReLU(BN(conv(x))), 3×3 with padding 1, BN by its running statistics."""
    c = draw.integer(2, 5)
    for arguments in (channels(draw), (1, c), (c, c)):
        expect_conv_block(student, draw, arguments, False)


@ConvBlock.criterion(points=0.5)
def output_in_training(student: Student, draw: Draw) -> None:
    """In training mode BN normalises each channel by its mean and variance over the batch and all pixels."""
    expect_conv_block(student, draw, channels(draw), True)


@ConvBlock.criterion(points=0.5)
def height_and_width_stay(student: Student, draw: Draw) -> None:
    """(N, c_in, H, W) becomes (N, c_out, H, W), for any N, H and W."""
    expect_height_and_width(student, draw, "ConvBlock")


def expect_height_and_width(student: Student, draw: Draw, name: str) -> None:
    """A block keeps height and width."""
    for N in (1, 3):
        c_in, c_out = channels(draw)
        block = Block(student, draw, name, (c_in, c_out), N)
        varied(block.out(False), N, c_out, *block.images.shape[2:], name="the output")


add_module_criteria(ConvBlock, lambda draw: [channels(draw)])


# --- ResidualBlock ---------------------------------------------------------------------------------------------------

ResidualBlock = Exercise("ResidualBlock")
LATE = ("sum", "branch", "both", "none")  # where the last ReLU acts: on the sum, on the branch alone, both, nowhere


def residual_outputs(block: Block, training: bool, last: Sequence[str], lenient: bool) -> Iterator[Tensor]:
    """The outputs of a residual block, for every choice of layers and every place of the last ReLU in `last`.

    Where another criterion asks for branch and shortcut this one is `lenient`: something may be missing in the branch
    (a ReLU, a normalisation, which may serve twice), and where the shape stays in the shortcut.
    """
    c_in, c_out, stride = block.arguments
    x, same = block.images.double(), stride == 1 and c_in == c_out
    ones: list[Weights | None] = [None] if same else list(block.convs(c_out, c_in, 1, 1))
    firsts, seconds = block.convs(c_out, c_in, 3, 3), block.convs(c_out, c_out, 3, 3)
    for first, second in ((a, b) for a in firsts for b in seconds if a is not b):
        for one in ones:
            for norm, *others in block.norms(c_out, 1 if one is None else 2):
                middle = normalised(filtered(x, first, stride), norm, training)
                shorts = [x if one is None else normalised(filtered(x, one, stride), others[0], training)]
                if same and lenient:
                    shorts += [torch.zeros_like(x), torch.relu(x)]
                    for (extra,) in block.norms(c_out, 1):
                        shorts += [normalised(filtered(x, c), extra, training) for c in block.convs(c_out, c_in, 1, 1)]
                free = [n for (n,) in block.norms(c_out, 1) if lenient or not any(n is m for m in (norm, *others))]
                inners = [torch.relu(middle)]
                inners += [middle, torch.relu(filtered(x, first, stride))] if lenient else []
                for inner in inners:
                    after = filtered(inner, second)
                    branches = [normalised(after, n, training) for n in free] + ([after] if lenient else [])
                    for branch, short in ((b, s) for b in branches for s in shorts):
                        if "sum" in last:
                            yield torch.relu(branch + short)
                        if "branch" in last:
                            yield torch.relu(branch) + short
                        if "both" in last:
                            yield torch.relu(torch.relu(branch) + short)
                        if "none" in last:
                            yield branch + short


def expect_residual(
    student: Student,
    draw: Draw,
    arguments: tuple[int, int, int],
    training: bool,
    last: Sequence[str] = LATE,
    lenient: bool = True,
) -> None:
    """A ResidualBlock's output is right, as far as it is this criterion's business (`residual_outputs`)."""
    c_in, c_out, stride = arguments
    block = Block(student, draw, "ResidualBlock", arguments)
    parts = f"convolutions with weights ({c_out}, {c_in}, 3, 3) and ({c_out}, {c_out}, 3, 3)"
    if stride != 1 or c_in != c_out:
        parts += f", one of the shortcut with ({c_out}, {c_in}, 1, 1)"
    candidates = residual_outputs(block, training, last, lenient)
    spoiled = spoiled_residuals(block, training)
    block.expect_one_of(candidates, training, f"{parts}, each with BatchNorm2d", spoiled)


def spoiled_residuals(block: Block, training: bool) -> Iterator[tuple[str, Tensor]]:
    """What often goes wrong in a residual block that keeps the shape, and what comes of it."""
    c_in, c_out, stride = block.arguments
    x, convs = block.images.double(), block.convs(c_out, c_in, 3, 3)
    if stride != 1 or c_in != c_out:
        return
    for (first, second), (one, two) in ((c, n) for c in permutations(convs, 2) for n in block.norms(c_out, 2)):
        middle = normalised(filtered(x, first), one, training)
        branch = normalised(filtered(torch.relu(middle), second), two, training)
        yield "The ReLU acts on the branch before the sum; it comes after the sum.", torch.relu(branch) + x
        text = "There is a ReLU at the end of the branch too, as in a ConvBlock; it comes only after the sum."
        yield text, torch.relu(torch.relu(branch) + x)
        yield "There is no ReLU after the sum.", branch + x
        yield "The shortcut is missing: nothing is added to the branch.", torch.relu(branch)
        straight = normalised(filtered(middle, second), two, training)
        yield "There is no ReLU between the two convolutions.", torch.relu(straight + x)
        twice = normalised(filtered(torch.relu(middle), second), one, training)
        yield "One batch normalisation is used in two places; each place needs its own.", torch.relu(twice + x)


def kept(draw: Draw) -> tuple[int, int, int]:
    """Arguments of a block that keeps the shape."""
    c = draw.integer(2, 5)
    return c, c, 1


@ResidualBlock.criterion(points=1.5)
def identity_where_the_shape_stays(student: Student, draw: Draw) -> None:
    """With stride 1 and c_in = c_out the input itself is added to conv–BN–ReLU–conv–BN (evaluation mode)."""
    for _ in range(2):
        expect_residual(student, draw, kept(draw), False, lenient=False)


@ResidualBlock.criterion(points=1)
def projection_for_other_channels(student: Student, draw: Draw) -> None:
    """Where the channels change, the shortcut is a 1×1 convolution and BN (stride 1, evaluation mode)."""
    expect_residual(student, draw, (*channels(draw), 1), False)


@ResidualBlock.criterion(points=1)
def projection_for_a_stride(student: Student, draw: Draw) -> None:
    """With a stride the first convolution and the 1×1 convolution of the shortcut take it (evaluation mode)."""
    c = draw.integer(2, 5)
    for arguments in ((c, c, 2), (*channels(draw), 2)):
        expect_residual(student, draw, arguments, False)


@ResidualBlock.criterion(points=0.5)
def relu_after_the_sum(student: Student, draw: Draw) -> None:
    """The last ReLU acts on the sum of branch and shortcut (evaluation mode)."""
    expect_residual(student, draw, kept(draw), False, LATE[:1])


@ResidualBlock.criterion(points=0.5, name="output_in_training")
def residual_output_in_training(student: Student, draw: Draw) -> None:
    """In training mode every BN normalises by the statistics of the batch."""
    expect_residual(student, draw, kept(draw), True)


add_module_criteria(ResidualBlock, lambda draw: [kept(draw), (*channels(draw), 2)])


# --- ConvNet ---------------------------------------------------------------------------------------------------------

ConvNet = Exercise("ConvNet")
MAX_PARAMETERS = 300_000


def conv_net(student: Student, draw: Draw, K: int, *, settled: bool = True) -> Foreign:
    """A ConvNet of the student's, its parameters set to known numbers."""
    model = student.ConvNet(K)
    if not isinstance(model, Foreign):
        raise Unmet(f"ConvNet({K}) gives no module.", "type")
    if settled:
        student.prop(settle, model, draw.integer(0, 2**31), pictures(draw, 2))
    return model


def pictures(draw: Draw, N: int) -> Tensor:
    """Images (N, 3, 32, 32), float32."""
    return draw.normal(N, 3, 32, 32).float()


def net_out(student: Student, model: Foreign, images: Tensor, K: int, training: bool = False) -> Tensor:
    """The student's scores of images, of the right shape."""
    return finite(student.prop(output_of, model, images, training), len(images), K, name="the scores")


@prop
def class_names(model: nn.Module) -> list[str]:
    """Reading which kinds of layers a model has."""
    return sorted({type(module).__name__ for module in model.modules()})


def blamed_on_a_block(student: Student, draw: Draw, model: Foreign, faulty: Callable[[Block], bool]) -> bool:
    """Whether the net uses a block of the student's that has the same fault, which has cost its points there."""
    used = student.prop(class_names, model)
    if not isinstance(used, list):
        return False
    for name, arguments in (("ConvBlock", (3, 4)), ("ResidualBlock", (4, 4, 1)), ("ResidualBlock", (3, 4, 2))):
        if name in used:
            try:
                fault = faulty(Block(student, draw, name, arguments))
            except Unmet:  # it does not even run
                fault = True
            if fault:
                return True
    return False


@ConvNet.criterion(points=1)
def scores_of_every_class(student: Student, draw: Draw) -> None:
    """(N, 3, 32, 32) becomes (N, n_classes), for any n_classes and also for a single image."""
    for K, N in ((10, 3), (draw.integer(3, 7), 1)):
        model = conv_net(student, draw, K)
        images = pictures(draw, N)
        scores = net_out(student, model, images, K)
        other = net_out(student, model, pictures(draw, N), K)
        expect(scores).all(not close(scores, other), "the scores do not depend on the images")
        raw = student.prop(output_of, model, images, False)
        Form("the scores", (N, K), dtype=torch.float32).check(raw, torch.float32)


def images_meet(block: Block) -> bool:
    """Whether an image's output of a block depends on its batch in evaluation mode."""
    alone = expect(block.student.prop(output_of, block.model, block.images[:1], False)).tensor()
    return not close(alone, block.out(False)[:1], 1e-3)


@ConvNet.criterion(points=1)
def images_do_not_meet_in_evaluation(student: Student, draw: Draw) -> None:
    """In evaluation mode an image's scores do not depend on the batch in which it comes."""
    K, images = 10, pictures(draw, 4)
    model = conv_net(student, draw, K)
    together = varied(net_out(student, model, images, K), 4, K, name="the scores")
    for n in (0, 3):
        alone = net_out(student, model, images[n : n + 1], K)
        try:
            expect(alone, f"the scores of image {n} alone").close_to(
                together[n : n + 1], single=True, because="its scores in a batch of four"
            )
        except Unmet:
            if not blamed_on_a_block(student, draw, model, images_meet):
                raise


@ConvNet.criterion(points=0.5)
def scores_are_unnormalised(student: Student, draw: Draw) -> None:
    """Scores are neither probabilities nor their logarithms: they come as the last layer gives them."""
    K, rows = 10, []
    for _ in range(3):
        model = conv_net(student, draw, K)
        rows.append(net_out(student, model, pictures(draw, 3), K).double())
    scores = torch.cat(rows)
    one = torch.ones(len(scores), dtype=torch.float64)
    expect(scores).all(not close(scores.sum(1), one, 1e-3), "the scores of an image add up to 1: leave the softmax out")
    expect(scores).all(
        not close(scores.exp().sum(1), one, 1e-3), "the scores are logarithms of probabilities: leave log_softmax out"
    )
    expect(scores).all(bool((scores < 0).any()), "no score is ever negative: the last layer has no ReLU or sigmoid")
    expect(scores).all(bool((scores > 0).any()), "no score is ever positive: the last layer is followed by something")


@ConvNet.criterion(points=0.5)
def at_most_300k_parameters(student: Student, draw: Draw) -> None:
    """The net has parameters, among them filters, and at most 300,000 of them."""
    layers = student.prop(layers_of, conv_net(student, draw, 10))
    count = int(number(layers["count"], "the number of parameters"))
    filters = [c for c in layers["convs"] if max(c["weight"].shape[2:]) > 1]
    expect(layers).all(bool(filters), "the net has no filters larger than 1×1: it is no ConvNet")
    expect(layers).all(count <= MAX_PARAMETERS, f"the net has {count} parameters, more than {MAX_PARAMETERS}")


@ConvNet.criterion(points=0.5, contract=True, name="layers_are_registered")
def net_layers_are_registered(student: Student, draw: Draw) -> None:
    """The state dict holds every layer: loaded into another net it makes the scores agree."""
    images = pictures(draw, 2)
    model, other = conv_net(student, draw, 10), conv_net(student, draw, 10, settled=False)
    found = student.prop(copies_agree, model, other, images)
    expect(found).all(found["differed"], "two nets with different parameters give the same scores")

    def hides_layers(block: Block) -> bool:
        other = student.call(block.name, *block.arguments)
        return not student.prop(copies_agree, block.model, other, block.images)["agree"]

    agree = found["agree"] or blamed_on_a_block(student, draw, model, hides_layers)
    expect(found).all(agree, "with the same state dict two nets give different scores: a layer stands in a plain list")


@ConvNet.criterion(points=0.5, contract=True, name="gradients_reach_every_layer")
def gradients_reach_every_layer_of_the_net(student: Student, draw: Draw) -> None:
    """Every parameter that matters to the scores gets a gradient."""
    model = conv_net(student, draw, 4)
    silent = without_gradient(student, draw, model, pictures(draw, 2))
    text = f"parameters of shape {', '.join(silent[:3])} change the scores but get no gradient"

    def stops_gradients(block: Block) -> bool:
        return bool(without_gradient(student, draw, block.model, block.images))

    expect(silent).all(not silent or blamed_on_a_block(student, draw, model, stops_gradients), text)


@ConvNet.criterion(points=0.5, contract=True, name="leaves_images_alone")
def net_leaves_images_alone(student: Student, draw: Draw) -> None:
    """The images that the net is given are not changed."""
    changed = student.prop(changes_images, conv_net(student, draw, 10), pictures(draw, 2))
    expect(changed).all(not changed, "the images are not what they were before the net ran")


# --- Augmentation ----------------------------------------------------------------------------------------------------

augment = Exercise("augment")
SIDE, SHIFT = 32, 4


def numbered(N: int, C: int = 1, dtype: torch.dtype = torch.int16) -> Tensor:
    """Images (N, C, 32, 32) in which every pixel has its own number from 1 on; channels count in different ways."""
    one = torch.arange(1, SIDE * SIDE + 1).reshape(1, 1, SIDE, SIDE)
    return torch.cat([one + 2000 * c for c in range(C)], 1).expand(N, -1, -1, -1).to(dtype).clone()


@dataclass
class Shifts:
    """How each image was augmented: offsets of the crop (0 … 8) down and across, and whether it is mirrored."""

    down: Tensor
    across: Tensor
    mirrored: Tensor
    images: Tensor  # what these should have given

    @property
    def rows(self) -> Tensor:
        """Down, across and mirrored, one row for each image."""
        return torch.stack([self.down, self.across, self.mirrored.long()], 1)


def shifts_of(result: Tensor, images: Tensor) -> Shifts:
    """Read from the pixels in the middle where they come from; the mirror image is taken after the crop."""
    middle = SIDE // 2
    here, right, below = (result[:, 0, middle + i, middle + j].long() - 1 for i, j in ((0, 0), (0, 1), (1, 0)))
    mirrored, upside_down = right < here, below < here
    row = torch.where(upside_down, SIDE - 1 - middle, middle)  # never right, and only one criterion's business
    down = (here // SIDE - row + SHIFT).clamp(0, 2 * SHIFT)
    column = torch.where(mirrored, SIDE - 1 - middle, middle)
    across = (here % SIDE - column + SHIFT).clamp(0, 2 * SHIFT)
    along = torch.arange(SIDE)
    rows = down[:, None] + along
    columns = across[:, None] + torch.where(mirrored[:, None], along.flip(0), along)
    n = torch.arange(len(images))[:, None, None]
    wide = functional.pad(images, (SHIFT,) * 4)
    expected = wide.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return Shifts(down, across, mirrored, expected)


def augmented(student: Student, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Shifts]:
    """The student's images, and how they were augmented as far as their middles tell."""
    result = expect(student.augment(images, generator), "the images").shape(*images.shape).tensor()
    return result, shifts_of(result, images)


@augment.criterion(points=1.5)
def crops_of_the_padded_image(student: Student, draw: Draw) -> None:
    """Every result is a 32×32 piece of its image with 4 rows and columns of zeros around it, mirrored or not."""
    images = numbered(60, 3)
    images[:, 2] += 100 * torch.arange(60, dtype=images.dtype)[:, None, None]  # no two images are the same
    result, shifts = augmented(student, images, draw.generator())
    moved = bool((result != images).any())
    expect(result).all(moved, "no image is ever changed")
    first = torch.equal(result[:, 0], shifts.images[:, 0])
    text = "the images come in another order: each one keeps its place, or its label would be that of another one"
    same = bool(((result[:, 2] == 0) | ((result[:, 2] - shifts.images[:, 2]) == 0)).all())
    expect(result).all(same or not first, text)
    expect(result, "the images").equal(shifts.images)


def one_by_one(student: Student, draw: Draw, count: int) -> Shifts:
    """So many images, augmented in a call each."""
    generator = draw.generator()
    found = [augmented(student, numbered(1), generator)[1] for _ in range(count)]
    parts = ((getattr(one, name) for one in found) for name in ("down", "across", "mirrored", "images"))
    return Shifts(*(torch.cat(list(part)) for part in parts))


def chance_comes_anew(student: Student, draw: Draw) -> bool:
    """Whether two calls with one generator differ; else another criterion tells that it is not drawn from."""
    generator = draw.generator()
    first, second = (augmented(student, numbered(12), generator)[1].rows for _ in range(2))
    return not torch.equal(first, second)


def alike(values: Tensor) -> bool:
    """Whether all images of a batch got the same."""
    return len(values.unique()) == 1


@augment.criterion(points=1)
def offsets_are_uniform(student: Student, draw: Draw) -> None:
    """Down and across each of the 9 offsets 0 … 8 comes equally often, and one says nothing about the other."""
    count, low, high = 1500, 85, 255  # 1500 / 9 is 167; chance alone goes this far once in 10¹⁰ times
    _, shifts = augmented(student, numbered(count), draw.generator())
    if alike(shifts.down) and alike(shifts.across):  # one draw for a batch is the business of another criterion
        count, low, high = 450, 8, 100  # 450 / 9 is 50
        shifts = one_by_one(student, draw, count)
    for name, offsets in (("down", shifts.down), ("across", shifts.across)):
        counts = torch.bincount(offsets, minlength=9)[:9]
        bad = any(not low <= int(c) <= high for c in counts)
        came = ", ".join(f"{k}: {int(c)}" for k, c in enumerate(counts))
        text = f"of {count} images not about {count / 9:.0f} have each offset {name} ({came})"
        expect(counts).all(not bad, text)
    same = float((shifts.down == shifts.across).double().mean())
    expect(shifts).all(
        same < 0.25, f"the offsets down and across are the same for {same:.0%} of the images, not 1 in 9"
    )
    pairs = len((9 * shifts.down + shifts.across).unique())
    text = f"of the 81 pairs of offsets only {pairs} come: the offset down tells the one across"
    expect(shifts).all(pairs > 60, text)
    if count == 1500:  # 667 of the 3000 offsets; chance alone makes them so few once in 10¹⁰ times
        ends = sum(int(((offsets == 0) | (offsets == 8)).sum()) for offsets in (shifts.down, shifts.across))
        text = f"the offsets 0 and 8 come {ends} times in 3000, expected 667: rounded numbers reach them half as often"
        expect(shifts).all(ends > 520, text)
    singles = one_by_one(student, draw, 60)
    if not chance_comes_anew(student, draw):
        return
    for name, offsets in (("down", singles.down), ("across", singles.across)):
        text = f"in batches of one image the offset {name} is hardly ever another"
        expect(offsets).all(len(offsets.unique()) > 3, text)


@augment.criterion(points=0.5)
def half_are_mirrored(student: Student, draw: Draw) -> None:
    """Half of the images are mirrored left to right."""
    generator = draw.generator()
    batches = [augmented(student, numbered(70), generator)[1].mirrored for _ in range(12)]
    mirrored, most = torch.cat(batches), 0.12  # chance alone goes this far once in 10¹⁰ times
    if all(alike(batch) for batch in batches) and not alike(mirrored):  # one coin for a batch: as above
        mirrored, most = one_by_one(student, draw, 300).mirrored, 0.19
    share = float(mirrored.double().mean())
    expect(share).all(abs(share - 0.5) < most, f"{share:.0%} of the images are mirrored")
    alone = int(one_by_one(student, draw, 60).mirrored.sum())  # 4 or fewer of 60 come once in 10¹² times
    both = 4 < alone < 56 or not chance_comes_anew(student, draw)
    expect(alone).all(both, f"in batches of one image {alone} of 60 are mirrored")


@augment.criterion(points=1)
def each_image_its_own(student: Student, draw: Draw) -> None:
    """Every image of a batch has its own offsets and its own chance to be mirrored."""
    generator, some = draw.generator(), False
    batches = [augmented(student, numbered(24), generator)[1] for _ in range(12)]
    for name, text in (("down", "offset down"), ("across", "offset across"), ("mirrored", "coin for the mirror image")):
        drawn = [getattr(batch, name) for batch in batches]
        varies, shared = not alike(torch.cat(drawn)), all(alike(values) for values in drawn)
        expect(drawn).all(not (varies and shared), f"the images of a batch all have the same {text}")
        few = name != "mirrored" and varies and all(len(values.unique()) <= 3 for values in drawn)
        expect(drawn).all(not few, f"the images of a batch have two or three different values as {text}")
        different = len({tuple(values.tolist()) for values in drawn})  # of a right one two alike come once in 10⁵ times
        told = f"in 12 batches only {different} different rows of 24 come as {text}: one draw decides them all"
        expect(drawn).all(shared or not 1 < different < 10, told)
        some = some or varies
    expect(batches).all(some, "no image is ever changed")
    places = [9 * batch.down + batch.across for batch in batches]
    repeated = sum(int((p[1:] == p[:-1]).sum()) for p in places)
    moved = not all(map(alike, places))
    text = f"{repeated} of 276 images have the offsets of the image before, expected 3"
    expect(places).all(repeated < 60 or not moved, text)


@augment.criterion(points=0.5, contract=True)
def same_state_same_result(student: Student, draw: Draw) -> None:
    """All chance comes from `generator`: the same state of it gives the same images."""
    images, seed = numbered(64), draw.integer(0, 2**31)
    first, _ = augmented(student, images, generator_of(seed))
    text = "the same state of the generator gives other images: something is drawn without `generator=generator`"
    second = expect(student.augment(images, generator_of(seed)), "the images").shape(*images.shape).tensor()
    expect(second).all(torch.equal(second, first), text)


def any_images(draw: Draw) -> tuple[Tensor, torch.Generator]:
    """Images (5, 3, 32, 32) and a generator for criteria on form."""
    return draw.normal(5, 3, SIDE, SIDE), draw.generator()


add_contract(augment, any_images, [Form("the images", (5, 3, SIDE, SIDE))], layout=False)


# --- Training and evaluation: probes ---------------------------------------------------------------------------------


class Notes(list[dict[str, Any]]):
    """Notes that a copy of the model goes on writing into."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Notes:
        return self


class LinearProbe(nn.Module):
    """A linear classifier of images that notes every forward pass; its parameters follow from a seed."""

    def __init__(self, seed: int, pixels: int, classes: int) -> None:
        super().__init__()
        stream = generator_of(seed)
        # Without a draw from the global random numbers, which a student's function may use though it should not.
        self.linear = nn.utils.skip_init(nn.Linear, pixels, classes, dtype=torch.float64)
        self.norm = nn.BatchNorm1d(classes, dtype=torch.float64)  # its output is not used; its mode and buffers are
        with torch.no_grad():
            for value in self.linear.parameters():
                value.copy_(torch.randn(value.shape, generator=stream, dtype=torch.float64))
        self.passes = Notes()

    def forward(self, images: Tensor) -> Tensor:
        scores = self.linear(images.flatten(1))
        if self.norm.training:
            self.norm.running_mean.add_(1.0)
        note: dict[str, Any] = {
            "images": images.detach().clone(),
            "training": self.training,
            "inner": self.norm.training,
            "graph": scores.requires_grad,
            "upstream": torch.zeros(0),  # the gradient that comes back to the scores
        }
        self.passes.append(note)

        def came_back(gradient: Tensor) -> None:
            before = note["upstream"] if note["upstream"].numel() else torch.zeros_like(gradient)
            note["upstream"] = before + gradient.detach()

        if scores.requires_grad:
            with contextlib.suppress(RuntimeError):  # torch.func has gradients of its own
                scores.register_hook(came_back)
        return scores


class NotingSGD(torch.optim.SGD):
    """Gradient descent that notes parameters and gradients at each step."""

    def __init__(self, model: LinearProbe, lr: float) -> None:
        super().__init__(list(model.linear.parameters()), lr=lr)
        self.model = model
        self.steps: list[dict[str, Any]] = []

    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        linear = self.model.linear
        empty = torch.zeros(0)
        self.steps.append(
            {
                "weight": linear.weight.detach().clone(),
                "bias": linear.bias.detach().clone(),
                "grad_weight": empty if linear.weight.grad is None else linear.weight.grad.clone(),
                "grad_bias": empty if linear.bias.grad is None else linear.bias.grad.clone(),
                "passes": len(self.model.passes),
            }
        )
        super().step()
        return loss


class NotingTransform:
    """Takes the negative of a batch, and notes what it was given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        known = isinstance(generator, torch.Generator)
        drawn = torch.rand((), generator=generator).item() if known else None
        self.calls.append({"size": len(batch), "drawn": drawn, "training": True})
        return -batch


@prop
def linear_probe(seed: int, pixels: int, classes: int, training: bool, trained: bool = False) -> LinearProbe:
    """Making a model to train."""
    model = LinearProbe(seed, pixels, classes).train(training)
    if trained:  # as after a step of training
        for k, value in enumerate(model.parameters()):
            value.grad = torch.full_like(value, k + 1.0)
        for statistic in (model.norm.running_mean, model.norm.running_var):
            if statistic is not None:
                statistic.fill_(0.75)
    return model


@prop
def stop_recording() -> None:
    """Switching the recording of gradients off."""
    torch.set_grad_enabled(False)


@prop
def noting_sgd(model: LinearProbe, lr: float) -> NotingSGD:
    """Making an optimiser."""
    return NotingSGD(model, lr)


@prop
def noting_transform() -> NotingTransform:
    """Making a transform."""
    return NotingTransform()


@prop
def noted(thing: Any) -> list[dict[str, Any]]:
    """Reading what was noted."""
    name = {LinearProbe: "passes", NotingSGD: "steps", NotingTransform: "calls"}
    return getattr(thing, name[type(thing)])


@prop
def surroundings(model: nn.Module) -> dict[str, Any]:
    """Reading the model's mode, parameters and buffers, and whether gradients are recorded."""
    found = {
        "training": model.training,
        "modes": [module.training for module in model.modules()],
        "recording": torch.is_grad_enabled() and not torch.is_inference_mode_enabled(),
        "state": dict(model.state_dict()),
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [torch.zeros(0) if p.grad is None else p.grad for p in model.parameters()],
    }
    torch.set_grad_enabled(True)  # what one function left must not spoil the next one's marks
    return found


# --- train_epoch -----------------------------------------------------------------------------------------------------

train_epoch = Exercise("train_epoch")
PLANE = (1, 2, 3)  # the images of a probe


class Epoch:
    """One call of the student's `train_epoch` on a probe model, with all that was noted.

    With lr = 0 the model stays as it is, so losses and gradients can be foreseen.
    """

    def __init__(
        self,
        student: Student,
        draw: Draw,
        N: int,
        batch_size: int,
        *,
        lr: float = 0.0,
        training: bool = True,
        transform: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        self.N, self.batch_size, self.lr = N, batch_size, lr
        self.images, self.labels = draw.normal(N, *PLANE), labels(draw, N, 4)
        seed = draw.integer(0, 2**31)
        self.weights = LinearProbe(seed, math.prod(PLANE), 4).linear
        model = student.prop(linear_probe, seed, math.prod(PLANE), 4, training)
        optimizer = student.prop(noting_sgd, model, lr)
        self.student, self.model = student, model
        given: dict[str, Any] = {"batch_size": batch_size, "generator": generator or draw.generator()}
        if transform:
            given["transform"] = student.prop(noting_transform)
        try:
            self.loss = student.train_epoch(model, self.images, self.labels, optimizer, **given)
        finally:
            self.call = student.calls[-1]
            self.after = student.prop(surroundings, model)
        self.sign = -1.0 if transform else 1.0
        self.all_passes = student.prop(noted, model)
        recorded = [p for p in self.all_passes if p["graph"]]
        trained = [p for p in recorded if p["upstream"].numel()]  # to which a gradient came back
        self.passes = trained or recorded
        self.steps = student.prop(noted, optimizer)
        self.transforms = student.prop(noted, given["transform"]) if transform else []

    @property
    def batches(self) -> list[Tensor]:
        """The images that the model was trained on."""
        return [p["images"] for p in self.passes]

    def indices(self, batch: Tensor) -> Tensor:
        """Which images a batch has; −1 for what is none of them."""
        if batch.shape[1:] != PLANE:
            raise Unmet(f"The model was given images of shape {tuple(batch.shape[1:])}, expected {PLANE}.", "shape")
        distance = torch.cdist(batch.double().flatten(1), self.sign * self.images.flatten(1))
        nearest = distance.min(1)
        return torch.where(nearest.values < 1e-6, nearest.indices, -1)

    @property
    def order(self) -> Tensor:
        """The images in the order in which the model was given them."""
        if not self.passes:
            raise Unmet("The model was never run with gradients recorded.")
        return torch.cat([self.indices(batch) for batch in self.batches])

    def right_upstream(self, k: int) -> Tensor:
        """The right gradient of the mean loss of batch k with respect to its scores, where lr = 0."""
        batch = self.batches[k]
        scores = self.weights(batch.flatten(1)).detach()
        y = self.labels[self.indices(batch).clamp(min=0)]
        return (torch.softmax(scores, 1) - functional.one_hot(y, scores.shape[1])) / len(batch)

    def upstream(self, k: int) -> Tensor:
        """The gradient of the student's loss of batch k with respect to its scores, whatever became of it later."""
        if k >= len(self.passes):
            raise Unmet(f"The model was run with gradients recorded on {len(self.passes)} batches only.")
        noted = self.passes[k]["upstream"]
        if noted.numel() == 0:
            raise Unmet("No gradient comes back to the scores of a batch.", causes=["`loss.backward()` is missing."])
        return finite(noted, *self.right_upstream(k).shape, name="the gradient with respect to the scores")

    def other_losses(self) -> Slips:
        """What is often returned instead of the mean loss over all images, where lr = 0."""
        y = [self.labels[self.indices(batch).clamp(min=0)] for batch in self.batches]
        pairs = zip(self.batches, y, strict=True)
        means = torch.stack([functional.cross_entropy(self.weights(b.flatten(1)), t).detach() for b, t in pairs])
        return {
            "The mean of the batches' means: the images of a short last batch count too much.": means.mean(),
            "The sum of the batches' means: it is not divided.": means.sum(),
            "The batches' means are added and divided by N; each counts as often as it has images.": means.sum()
            / self.N,
            "The loss of the last batch alone.": means[-1],
            "The sum over all images: it is not divided by N.": functional.cross_entropy(
                self.weights(self.images.flatten(1)), self.labels, reduction="sum"
            ).detach(),
        }

    def loss_on_the_way(self) -> Tensor:
        """The mean loss over all images, each with the parameters that its batch met."""
        total = torch.zeros((), dtype=torch.float64)
        for batch, step in zip(self.batches, self.steps, strict=True):
            weight = finite(step["weight"], *self.weights.weight.shape, name="the model's weight")
            bias = finite(step["bias"], *self.weights.bias.shape, name="the model's bias")
            scores = functional.linear(batch.flatten(1), weight.to(batch.dtype), bias.to(batch.dtype))
            y = self.labels[self.indices(batch).clamp(min=0)]
            total += functional.cross_entropy(scores, y, reduction="sum")
        return total / self.N

    def pulled_back(self, k: int, upstream: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of the model's weight and bias that belong to one of the scores of batch k."""
        return upstream.T @ self.batches[k].flatten(1), upstream.sum(0)

    def expect_own_gradients(self, k: int) -> None:
        """At step k the gradients are those of the batch before it and of no other."""
        if k >= len(self.steps):
            raise Unmet(f"optimizer.step() was called {len(self.steps)} times, for {len(self.batches)} batches.")
        step = self.steps[k]
        last = sum(any(p is own for own in self.passes) for p in self.all_passes[: step["passes"]]) - 1
        if last < 0:
            raise Unmet("optimizer.step() is called before the model has been run.")
        sizes = {"the batch size": len(self.batches[last])}
        own_ones = self.pulled_back(last, self.upstream(last))

        def slips(part: int) -> Slips:
            every = [self.pulled_back(j, self.upstream(j))[part] for j in range(last + 1)]
            text = "The gradients of all batches so far are added up: `optimizer.zero_grad()` is missing."
            return {text: torch.stack(every).sum(0)}

        for part, (name, own) in enumerate(zip(("weight", "bias"), own_ones, strict=True)):
            got = step[f"grad_{name}"]
            if got.numel() == 0 or not bool((got != 0).any()):
                raise Unmet(
                    "When optimizer.step() is called the parameters have no gradient, or zeros.",
                    causes=[
                        "`optimizer.zero_grad()` stands between `backward()` and `step()`, or `backward()` is missing."
                    ],
                )
            text = f"the gradient of the model's {name} at step {k + 1}"
            because = "the gradient of the loss of this step's batch"
            expect(got, text).close_to(own, because=because, sizes=sizes, slips=lambda part=part: slips(part))


def whole_batches(student: Student, draw: Draw, **options: Any) -> Epoch:
    """An epoch of batches of a size that divides the number of images."""
    size = draw.integer(4, 7)
    return Epoch(student, draw, 4 * size, size, **options)


@train_epoch.criterion(points=1)
def every_image_once(student: Student, draw: Draw) -> None:
    """The model is trained on every image once."""
    epoch = whole_batches(student, draw)
    missing = epoch.N - len(set(epoch.order.tolist()) - {-1})
    expect(epoch.order).all(missing == 0, f"{missing} of {epoch.N} images were left out, or changed")
    expect(epoch.order).all(len(epoch.order) == epoch.N, f"{len(epoch.order)} images instead of {epoch.N} came")


@train_epoch.criterion(points=0.5)
def batches_of_the_given_size(student: Student, draw: Draw) -> None:
    """Every batch has `batch_size` images (N is a multiple of it here)."""
    epoch = whole_batches(student, draw)
    wrong = [len(batch) for batch in epoch.batches if len(batch) != epoch.batch_size]
    expect(wrong).all(bool(epoch.batches), "the model was never run with gradients recorded")
    expect(wrong).all(not wrong, f"batch_size is {epoch.batch_size}, but there are batches of {wrong[:3]}")


@train_epoch.criterion(points=0.5)
def last_batch_is_what_is_left(student: Student, draw: Draw) -> None:
    """Where batch_size does not divide N, the last batch has the images that are left."""
    size = draw.integer(5, 8)
    for N, expected in ((2 * size + 3, [size, size, 3]), (size, [size])):
        epoch = Epoch(student, draw, N, size if size < N else 2 * size)
        got = [len(batch) for batch in epoch.batches]
        text = f"{N} images in batches of {epoch.batch_size} came as {got[:6]}, expected {expected}"
        expect(got).all(got == expected, text)


@train_epoch.criterion(points=0.5)
def random_order(student: Student, draw: Draw) -> None:
    """The images come in random order."""
    epoch = Epoch(student, draw, 24, 6)
    still = int(((epoch.order[1:] - epoch.order[:-1]).abs() == 1).sum())
    expect(epoch.order).all(still < 18, "neighbours stay neighbours: the order is not shuffled")


@train_epoch.criterion(points=1)
def images_keep_their_labels(student: Student, draw: Draw) -> None:
    """The loss of a batch is the cross-entropy of its images with their own labels (as a mean or as a sum)."""
    for _ in range(2):
        epoch = whole_batches(student, draw)
        got, right = epoch.upstream(0), epoch.right_upstream(0)
        got = right if close(got, len(right) * right) else got
        expect(got, "the gradient of the loss of the first batch with respect to its scores").close_to(right)


@train_epoch.criterion(points=0.5)
def mean_over_the_batch(student: Student, draw: Draw) -> None:
    """The gradient of a step is that of the mean over the batch: its size does not grow with the batch."""
    size = draw.integer(5, 8)
    epoch = Epoch(student, draw, 2 * size + 2, size)
    ratios = []
    for k in (0, len(epoch.batches) - 1):
        got, right = epoch.upstream(k), epoch.right_upstream(k)
        expect(got).all(bool(got.norm() > 0), "every gradient is 0")
        ratios.append(float((got * right).sum() / (right * right).sum()))
        text = f"the gradient is {ratios[k > 0]:.3g} times that of the mean: the losses of a batch are summed"
        expect(got).all(abs(ratios[k > 0] - len(right)) > 0.05 * len(right), text)
    short = len(epoch.batches[-1]) < size and abs(ratios[1] / ratios[0] - len(epoch.batches[-1]) / size) < 0.02
    text = "the gradient of a short last batch is too small: its sum is divided by `batch_size`, not by its own size"
    expect(ratios).all(not short, text)


@train_epoch.criterion(points=1)
def gradients_start_from_zero(student: Student, draw: Draw) -> None:
    """Every step has the gradients of its own batch, not those of the batches before added to them."""
    epoch = whole_batches(student, draw)
    if not epoch.passes or not epoch.steps:
        raise Unmet(f"optimizer.step() was called {len(epoch.steps)} times, for {len(epoch.batches)} batches.")
    for k in range(len(epoch.steps[:4])):
        epoch.expect_own_gradients(k)


@train_epoch.criterion(points=0.5)
def one_step_a_batch(student: Student, draw: Draw) -> None:
    """`optimizer.step()` is called once after each batch, and moves the parameters where they have a gradient."""
    epoch = whole_batches(student, draw, lr=0.1)
    after = [step["passes"] for step in epoch.steps]
    asked = f"{epoch.N} images in batches of {epoch.batch_size} make 4"
    expect(after).all(len(after) == 4, f"there were {len(after)} steps and {len(epoch.batches)} batches: {asked}")
    expect(after).all(len(set(after)) == 4, "two steps follow each other without a batch between")
    moved = [
        not torch.equal(a["weight"], b["weight"]) or not bool((a["grad_weight"] != 0).any())
        for a, b in pairwise(epoch.steps)
    ]
    expect(after).all(all(moved), "a step leaves the parameters as they were")


@train_epoch.criterion(points=0.5)
def training_mode_during(student: Student, draw: Draw) -> None:
    """The model and all its layers are in training mode while they are trained, whatever mode they came in."""
    for training, N in ((False, 12), (True, 12), (True, 9)):  # also for a last batch of a single image
        epoch = Epoch(student, draw, N, 4, training=training)
        expect(epoch.passes).all(bool(epoch.passes), "the model was never run with gradients recorded")
        during = all(p["training"] and p["inner"] for p in epoch.passes)
        mode = "training" if training else "evaluation"
        expect(epoch.passes).all(during, f"a model that came in {mode} mode was not in training mode while it trained")


@train_epoch.criterion(points=0.5, contract=True)
def mode_as_before(student: Student, draw: Draw) -> None:
    """Afterwards `model.training` is what it was before."""
    for training in (True, False):
        epoch = whole_batches(student, draw, training=training)
        names = "training" if training else "evaluation", "training" if epoch.after["training"] else "evaluation"
        text = f"the model came in {names[0]} mode and was left in {names[1]} mode"
        expect(epoch.after).all(epoch.after["training"] is training, text)
        text = "model.training is as before, but a layer inside is left in another mode: use `model.train(mode)`"
        expect(epoch.after).all(set(epoch.after["modes"]) == {training}, text)


@train_epoch.criterion(points=1)
def mean_loss_over_images(student: Student, draw: Draw) -> None:
    """The result is the mean loss over all images; the last batch, which is short, counts as little as it has."""
    for N, size in ((7, 3), (11, 8)):
        epoch = Epoch(student, draw, N, size)
        came = epoch.order if epoch.passes else torch.arange(N)
        # Which images come is the business of another criterion, as long as so many come.
        came = came if len(came) == N and bool((came >= 0).all()) else torch.arange(N)
        scores = epoch.weights(epoch.images[came].flatten(1)).detach()
        expected = functional.cross_entropy(scores, epoch.labels[came])
        expect(epoch.loss, "the loss").close_to(expected, slips=epoch.other_losses)
    epoch = Epoch(student, draw, 11, 4, lr=2.0)
    if len(epoch.steps) == len(epoch.batches) and len(epoch.order) == epoch.N:
        because = "each image with the loss it had when its batch was used"
        expect(epoch.loss, "the loss of an epoch in which the model changes").close_to(
            epoch.loss_on_the_way(), because=because
        )


@train_epoch.criterion(points=1)
def transform_makes_the_batch(student: Student, draw: Draw) -> None:
    """`transform(batch, generator)` is called for every batch, and the model is trained on what it returns."""
    epoch = whole_batches(student, draw, transform=True)
    expect(epoch.transforms).all(bool(epoch.transforms), "transform was never called")
    sizes = [call["size"] for call in epoch.transforms]
    asked = f"{epoch.N} images in batches of {epoch.batch_size} make 4"
    text = f"transform was called {len(sizes)} times, with {sizes[:6]} images: {asked}"
    expect(sizes).all(sizes == [epoch.batch_size] * 4, text)
    expect(epoch.order).all(epoch.order >= 0, "the model is not given what transform returned")


@train_epoch.criterion(points=0.5)
def transform_gets_the_generator(student: Student, draw: Draw) -> None:
    """The generator is handed on to `transform`, which draws from it."""
    seed, drawn = draw.integer(0, 2**31), []
    for state in (seed, seed, seed + 1):
        epoch = Epoch(student, draw, 12, 4, transform=True, generator=generator_of(state))
        expect(epoch.transforms).all(bool(epoch.transforms), "transform was never called")
        numbers = [call["drawn"] for call in epoch.transforms]
        expect(numbers).all(None not in numbers, "transform was given something that is no torch.Generator")
        drawn.append(numbers)
    text = "transform draws other numbers though the generator given was in the same state"
    expect(drawn).all(drawn[0] == drawn[1], text)
    expect(drawn).all(drawn[0] != drawn[2], "transform draws the same numbers whatever the generator given")


@train_epoch.criterion(points=0.5, contract=True, name="same_state_same_result")
def same_state_same_order(student: Student, draw: Draw) -> None:
    """The order comes from `generator`: the same state of it gives the same order."""
    seed = draw.integer(0, 2**31)
    orders = [Epoch(student, draw, 12, 5, generator=generator_of(seed)).order.tolist() for _ in range(2)]
    text = "the same state of the generator gives another order: it is drawn without `generator=generator`"
    expect(orders).all(orders[0] == orders[1], text)


@train_epoch.criterion(points=0.25, contract=True, name="keeps_form")
def loss_is_a_float(student: Student, draw: Draw) -> None:
    """The result is a Python float."""
    Form("the loss", scalar="float").check(whole_batches(student, draw).loss, torch.float64)


@train_epoch.criterion(points=0.25, contract=True, name="leaves_arguments_alone")
def images_and_labels_left_alone(student: Student, draw: Draw) -> None:
    """Images and labels are not changed (shuffling in place would)."""
    for transform in (False, True):
        unchanged_arguments(whole_batches(student, draw, transform=transform).call)


# --- evaluate --------------------------------------------------------------------------------------------------------

evaluate = Exercise("evaluate")


class Evaluation:
    """One call of the student's `evaluate` on a probe model that is right on a known number of images."""

    def __init__(
        self,
        student: Student,
        draw: Draw,
        N: int,
        batch_size: int,
        right: int | None = None,
        *,
        training: bool = False,
        symmetric: bool = True,
        recording: bool = True,
    ) -> None:
        self.N, self.images = N, 0.2 * draw.normal(N, *PLANE)  # so that no class has a probability above ½
        if symmetric:  # so that mirrored images, which another criterion asks about, make no difference
            self.images = self.images + self.images.flip(3)
        seed, K = draw.integer(0, 2**31), 5
        scores = LinearProbe(seed, math.prod(PLANE), K).linear(self.images.flatten(1)).detach()
        ranked = scores.argsort(1)
        self.right = draw.integer(1, N) if right is None else right
        # The right ones lie together at the end, where a short last batch is.
        place = torch.where(torch.arange(N) >= N - self.right, K - 1, draw.integers(0, K - 1, N))
        self.labels = ranked.gather(1, place[:, None])[:, 0]
        model = student.prop(linear_probe, seed, math.prod(PLANE), K, training, True)
        self.before = student.prop(surroundings, model)
        if not recording:
            student.prop(stop_recording)
        try:
            self.result = student.evaluate(model, self.images, self.labels, batch_size=batch_size)
        finally:
            self.call = student.calls[-1]
            self.after = student.prop(surroundings, model)
        self.passes = student.prop(noted, model)
        if not self.passes:
            raise Unmet("The model was never run.")


@evaluate.criterion(points=1)
def share_of_right_images(student: Student, draw: Draw) -> None:
    """The result is the fraction of images whose largest score is that of their class (in one batch)."""
    twelfths = [1, 2, 4, 5, 7, 8, 10, 11]  # none of them can be written with two decimals
    for right in (twelfths[draw.integer(0, 8)], 0):
        e = Evaluation(student, draw, 12, 12, right)
        expect(e.result, "the accuracy").close_to(e.right / e.N, atol=1e-6)


@evaluate.criterion(points=1)
def every_image_counts_the_same(student: Student, draw: Draw) -> None:
    """It is the accuracy over all images, also where the last batch is short."""
    for N, size in ((7, 3), (9, 4), (11, 30)):
        seed, right = draw.integer(0, 2**31), draw.integer(1, N - 1)
        whole, none, batches = (
            number(Evaluation(student, Draw(seed), N, n, r).result, "the accuracy")
            for n, r in ((N, right), (N, 0), (size, right))
        )
        expect(whole).all(whole != none, "the accuracy does not depend on the labels")
        because = "the accuracy for the same images in one batch"
        expect(batches, f"the accuracy over {N} images in batches of {size}").close_to(whole, because=because)


@evaluate.criterion(points=0.5, contract=True)
def in_batches(student: Student, draw: Draw) -> None:
    """The model is given the images as they are, each once, at most batch_size at a time."""
    e = Evaluation(student, draw, 10, 4, symmetric=False)
    sizes = [len(p["images"]) for p in e.passes]
    expect(sizes).all(max(sizes) <= 4, f"batch_size is 4, but the model was given {max(sizes)} images at once")
    seen = torch.cat([p["images"].reshape(-1, *PLANE) for p in e.passes])
    expect(seen).all(len(seen) == 10, f"the model was given {len(seen)} images instead of 10")
    ordered = [images[images[:, 0, 0, 0].argsort()] for images in (seen, e.images)]
    expect(ordered[0], "the images that the model was given, sorted,").equal(ordered[1])


@evaluate.criterion(points=0.5, contract=True)
def evaluation_mode_during(student: Student, draw: Draw) -> None:
    """The model and all its layers are in evaluation mode while they run."""
    for training in (True, False):
        e = Evaluation(student, draw, 8, 3, training=training)
        during = not any(p["training"] or p["inner"] for p in e.passes)
        expect(e.passes).all(during, "the model ran in training mode: dropout acts, and running statistics change")


@evaluate.criterion(points=0.5, contract=True, name="mode_as_before")
def evaluation_leaves_the_mode(student: Student, draw: Draw) -> None:
    """Afterwards `model.training` is what it was before."""
    for training in (True, False):
        e = Evaluation(student, draw, 8, 3, training=training)
        names = "training" if training else "evaluation", "training" if e.after["training"] else "evaluation"
        text = f"the model came in {names[0]} mode and was left in {names[1]} mode"
        expect(e.after).all(e.after["training"] is training, text)
        text = "model.training is as before, but a layer inside is left in another mode: use `model.train(mode)`"
        expect(e.after).all(set(e.after["modes"]) == {training}, text)


@evaluate.criterion(points=0.5, contract=True)
def no_graph(student: Student, draw: Draw) -> None:
    """No graph is recorded while the model runs: it costs memory and time."""
    e = Evaluation(student, draw, 8, 3)
    expect(e.passes).all(not any(p["graph"] for p in e.passes), "the scores carry a graph")


@evaluate.criterion(points=0.5, contract=True)
def nothing_else_changes(student: Student, draw: Draw) -> None:
    """Parameters, their gradients, buffers and the grad mode are afterwards as they were."""
    for training in (True, False):
        e = Evaluation(student, draw, 8, 3, training=training)
        expect_same_model(e.before, e.after)
    e = Evaluation(student, draw, 8, 3, recording=False)
    text = "the recording of gradients came switched off and is left switched on: `with torch.no_grad():` puts it back"
    expect(e.after).all(not e.after["recording"], text)


def expect_same_model(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Two readings of `surroundings` show the same model, its mode aside."""
    expect(after).all(bool(after["recording"]), "the recording of gradients is left switched off")
    expect(after).all(after["requires_grad"] == before["requires_grad"], "requires_grad of a parameter has changed")
    for a, b in zip(after["grads"], before["grads"], strict=True):
        same = a.shape == b.shape and torch.equal(a, b)
        text = "a parameter's .grad has changed: `backward` adds to it; torch.autograd.grad does not"
        expect(after).all(same, text)
    for name, value in before["state"].items():
        kind = "a parameter" if name.split(".")[-1] in ("weight", "bias") else "a running statistic"
        expect(after).all(torch.equal(after["state"][name], value), f"{kind} of the model has changed")


@evaluate.criterion(points=0.25, contract=True, name="keeps_form")
def accuracy_is_a_float(student: Student, draw: Draw) -> None:
    """The result is a Python float."""
    Form("the accuracy", scalar="float").check(Evaluation(student, draw, 8, 3).result, torch.float64)


@evaluate.criterion(points=0.25, contract=True, name="leaves_arguments_alone")
def evaluation_leaves_arguments_alone(student: Student, draw: Draw) -> None:
    """Images and labels are not changed."""
    unchanged_arguments(Evaluation(student, draw, 8, 3).call)


# --- Confusion matrix ------------------------------------------------------------------------------------------------

confusion_matrix = Exercise("confusion_matrix")


def predictions(draw: Draw, N: int, K: int) -> tuple[Tensor, Tensor]:
    """Labels and predictions, half of which are right."""
    y_true = labels(draw, N, K)
    return y_true, torch.where(draw.integers(0, 2, N) > 0, y_true, draw.integers(0, K, N))


def counted(y_true: Tensor, y_pred: Tensor, K: int) -> Tensor:
    """The confusion matrix, one image at a time."""
    counts = torch.zeros(K, K, dtype=torch.int64)
    for t, p in zip(y_true.tolist(), y_pred.tolist(), strict=True):
        counts[t, p] += 1
    return counts


@confusion_matrix.criterion(points=1)
def counts_of_pairs(student: Student, draw: Draw) -> None:
    """Every pair of true and predicted class is counted as often as it comes (rows or columns being the true ones)."""
    for N in (40, 3000):
        K = draw.integer(3, 7)
        y_true, y_pred = predictions(draw, N, K)
        expected = counted(y_true, y_pred, K)
        got = expect(student.confusion_matrix(y_true, y_pred, K), "the matrix").shape(K, K).tensor()
        once = "Each pair is counted once: `counts[y_true, y_pred] += 1` adds only once where a pair comes again."
        slip = {once: (expected > 0).double()}
        expect(got if bool((got != expected.T).any()) else got.T, "the matrix").close_to(
            expected.double(), atol=1e-6, slips=lambda slip=slip: slip
        )


@confusion_matrix.criterion(points=0.5)
def rows_are_true_classes(student: Student, draw: Draw) -> None:
    """Row i holds the images of class i, column j those taken for class j."""
    K, n = draw.integer(3, 7), draw.integer(3, 9)
    i, j = draw.permutation(K)[:2].tolist()
    y_true, y_pred = torch.full((n,), i), torch.full((n,), j)
    y_true, y_pred = (torch.cat([y, torch.tensor([K - 1])]) for y in (y_true, y_pred))
    got = finite(student.confusion_matrix(y_true, y_pred, K), K, K, name="the matrix")
    text = f"most images are of class {i} and taken for class {j}, but entry [{i}, {j}] is 0"
    expect(got).all(bool(got[i, j] > 0), text)
    expect(got).all(bool(got[j, i] == 0), f"entry [{j}, {i}] is not 0 though no image of class {j} is taken for {i}")


@confusion_matrix.criterion(points=0.5)
def classes_that_do_not_occur(student: Student, draw: Draw) -> None:
    """The matrix has K rows and columns, whichever classes occur."""
    y_true, y_pred = torch.tensor([1, 2, 3, 1]), torch.tensor([2, 3, 1, 3])
    got = finite(student.confusion_matrix(y_true, y_pred, 6), 6, 6, name="the matrix")
    expected = counted(y_true, y_pred, 6) > 0
    same = bool(((got > 0) == expected).all()) or bool(((got > 0) == expected.T).all())
    expect(got).all(same, "the entries that are not 0 are not those of the pairs that occur")


add_contract(
    confusion_matrix,
    lambda draw: (*predictions(draw, 12, 4), 4),
    [Form("the matrix", (4, 4), dtype=torch.int64)],
)


# --- What the network looks at ---------------------------------------------------------------------------------------


class PictureProbe(nn.Module):
    """A small smooth network of images; its parameters and statistics follow from a seed.

    Pixels of the first row do not reach the scores.  With `frozen` its filters require no gradient.
    """

    def __init__(self, seed: int, channels: int, classes: int, frozen: bool) -> None:
        super().__init__()
        stream = generator_of(seed)
        self.conv = nn.Conv2d(channels, 5, 3, padding=1, dtype=torch.float64)
        self.norm = nn.BatchNorm2d(5, dtype=torch.float64)
        self.linear = nn.Linear(5, classes, dtype=torch.float64)
        with torch.no_grad():
            for value in self.parameters():
                value.copy_(torch.randn(value.shape, generator=stream, dtype=torch.float64))
            self.norm.running_var.uniform_(0.5, 2.0, generator=stream)
            self.norm.running_mean.normal_(generator=stream)
        self.conv.requires_grad_(not frozen)

    def forward(self, images: Tensor) -> Tensor:
        seen = images[:, :, 1:]
        z = torch.tanh(self.norm(self.conv(seen)) / 2)
        ramp = torch.linspace(1, 3, z.shape[2] * z.shape[3], dtype=z.dtype).reshape(z.shape[2:])
        return self.linear((z * ramp).mean((2, 3)))


@prop
def picture_probe(seed: int, channels: int, classes: int, frozen: bool, graded: bool) -> PictureProbe:
    """Making a model in evaluation mode."""
    model = PictureProbe(seed, channels, classes, frozen).eval()
    if graded:  # as after a step of training
        for k, value in enumerate(p for p in model.parameters() if p.requires_grad):
            value.grad = torch.full_like(value, k + 1.0)
    return model


class Look:
    """A probe model, images in [0, 1] and labels; gradients of its scores and loss by autograd, one image at a time."""

    def __init__(
        self,
        student: Student,
        draw: Draw,
        *,
        N: int = 1,
        C: int = 3,
        frozen: bool = False,
        graded: bool = False,
        low: float = 0.3,
        high: float = 0.7,
    ) -> None:
        H, W = distinct(draw, 2, 4)
        self.student, self.K = student, 4
        self.images, self.y = draw.uniform(low, high, N, C, H, W), draw.integers(0, self.K, N)
        self._made = draw.integer(0, 2**31), C, self.K, frozen
        self._graded = graded
        self.own = PictureProbe(*self._made).eval()
        self.renew()

    def renew(self) -> None:
        """Make the model anew: what a call left in it is the business of another criterion."""
        self.model = self.student.prop(picture_probe, *self._made, self._graded)

    def another_class(self, draw: Draw) -> Tensor:
        """For each image a class whose score is not the largest."""
        return (self.own(self.images).argmax(1) + draw.integer(1, self.K)) % self.K

    def gradient(self, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The gradient of `of(scores, y)` of each image with respect to it, (N, C, H, W)."""
        found = []
        for image, label in zip(self.images, self.y, strict=True):
            x = image[None].clone().requires_grad_()
            found.append(torch.autograd.grad(of(self.own(x), label[None]), x)[0])
        return torch.cat(found)

    def of_scores(self) -> Tensor:
        """The gradient of the score of each image's class."""
        return self.gradient(lambda scores, y: scores[0, y[0]])

    def of_loss(self) -> Tensor:
        """The gradient of each image's cross-entropy."""
        return self.gradient(functional.cross_entropy)

    def other_gradients(self) -> Slips:
        """Maps of what is often taken for the score of a class (images of one channel)."""
        probability = self.gradient(lambda scores, y: torch.softmax(scores, 1)[0, y[0]])
        return {
            "This is the derivative of the probability: leave the softmax out.": probability.abs()[:, 0],
            "This is the derivative of the cross-entropy; that of the score is asked for.": self.of_loss().abs()[:, 0],
        }

    def expect_nothing_changed(self, call: Callable[[], Any]) -> None:
        """The call leaves model, grad mode and images as they were."""
        before = self.student.prop(surroundings, self.model)
        try:
            call()
            unchanged_arguments(self.student.calls[-1])
        finally:
            after = self.student.prop(surroundings, self.model)
        text = "the model came in evaluation mode, and it or a layer of it is left in training mode"
        expect(after).all(after["modes"] == before["modes"], text)
        expect_same_model(before, after)

    def saliency(self) -> Any:
        """The student's saliency maps."""
        return self.student.saliency_map(self.model, self.images, self.y)

    def maps(self, checked: Callable[..., Tensor] = finite) -> Tensor:
        """The same, (N, H, W); that rows and columns are not exchanged is asked by no_graph_in_the_result."""
        (N, _, H, W), result = self.images.shape, self.saliency()
        exchanged = isinstance(result, Tensor) and result.shape == (N, W, H)
        return checked(result.transpose(1, 2) if exchanged else result, N, H, W, name="the map")

    def attacked(self, epsilon: float) -> Any:
        """The student's adversarial images."""
        return self.student.fgsm(self.model, self.images, self.y, epsilon)


def expect_no_graph(student: Student) -> None:
    """The last result is a tensor that remembers nothing of how it was made."""
    call = student.calls[-1]
    text = "the result carries a graph: whoever keeps it keeps the whole network's intermediate results"
    expect(call.result).all(not call.graph, text)


saliency_map = Exercise("saliency_map")


@saliency_map.criterion(points=1)
def gradient_of_the_score(student: Student, draw: Draw) -> None:
    """∂ score_y / ∂ pixel for the class y that is given, whichever has the largest score (one image of one channel)."""
    for k in range(3):
        look = Look(student, draw, C=1)
        if k:  # a class that is not the one predicted
            look.y = look.another_class(draw)
        got = look.maps().abs()
        expect(got, "the map").close_to(look.of_scores().abs()[:, 0], slips=look.other_gradients)


@saliency_map.criterion(points=1)
def largest_magnitude_over_channels(student: Student, draw: Draw) -> None:
    """A pixel gets the largest of the magnitudes of its channels (one image)."""
    for _ in range(2):
        gradient, right = torch.ones(1), torch.ones(1)
        while close(gradient, right, 1e-2):  # until a pixel's largest derivative in magnitude is negative
            look = Look(student, draw)
            look.y = look.own(look.images).argmax(1)  # whose score it is is the business of another criterion
            gradient = look.of_scores().amax(1).abs()
            right = look.of_scores().abs().amax(1)
        got = look.maps()
        # Where the gradient itself is wrong, which has cost its points, its magnitudes are not known.
        expect(got).all(got >= 0, "an entry is negative: it is a magnitude")
        ratio = float((got.double() * right).sum() / (right * right).sum())
        if close(got, gradient, 1e-4):
            text = "A pixel is wrong where the derivative that is largest in magnitude is negative."
            raise Unmet(text, causes=["The maximum is taken before the absolute value: it is |·| first."])
        expect(got if abs(ratio) < 1e-9 else got / ratio, "the map, but for a factor,").close_to(right)


@saliency_map.criterion(points=1)
def images_are_independent(student: Student, draw: Draw) -> None:
    """Every image of a batch has the map that it has alone: not divided by N, and of its own class."""
    look = Look(student, draw, N=4)
    together = look.maps()
    images, y = look.images, look.y
    for n in (0, 2):
        look.images, look.y = images[n : n + 1], y[n : n + 1]
        look.renew()
        alone = look.maps(varied)
        because = "its map alone"
        expect(together[n : n + 1], f"the map of image {n} of 4").close_to(alone, because=because, sizes={"N": 4})


@saliency_map.criterion(points=1, contract=True)
def leaves_everything_as_it_was(student: Student, draw: Draw) -> None:
    """Model (parameters, .grad, requires_grad, statistics, mode) and images are afterwards as they were."""
    for graded in (True, False):
        look = Look(student, draw, N=2, frozen=graded, graded=graded)
        look.expect_nothing_changed(look.saliency)


@saliency_map.criterion(points=0.5, contract=True)
def no_graph_in_the_result(student: Student, draw: Draw) -> None:
    """The map is a plain tensor (N, H, W) without a graph, of the dtype of the images."""
    look = Look(student, draw, N=2)
    Form("the map", (2, *look.images.shape[2:])).check(look.saliency(), torch.float64)
    expect_no_graph(student)


fgsm = Exercise("fgsm")


def expect_steps(got: Tensor, look: Look, gradient: Tensor, epsilon: float, name: str = "the result") -> None:
    """Every pixel is moved by ε into the direction of its gradient, pixels of tiny gradient aside."""
    clear = gradient.abs() > 1e-9 * gradient.abs().max()
    # How long the steps are is the business of another criterion, where all are of one length.
    own = (got.double() - look.images).abs()[clear]
    one_length = bool(own.max() > 1e-9) and bool((own - own.max()).abs().max() < 1e-9)
    step = (float(own.max()) if one_length else epsilon) * gradient.sign()
    expected = torch.where(clear, look.images + step, got.double())

    def slips() -> Slips:
        score, loss = look.of_scores(), look.of_loss()
        found = {
            "The step goes down the loss; it goes up.": look.images - epsilon * loss.sign(),
            "The step goes up the score of class y; it goes up the loss, and the score down.": look.images
            + epsilon * score.sign(),
            "The step follows the score of class y alone; the cross-entropy also lifts the others.": look.images
            - epsilon * score.sign(),
            "The step is the gradient itself; its sign is meant, so that every pixel moves by ε.": look.images
            + epsilon * loss,
        }
        return {text: torch.where(clear, value, got.double()) for text, value in found.items()}

    expect(got, name).close_to(expected, because="images + ε · sign(∂ loss / ∂ image)", slips=slips)


@fgsm.criterion(points=1.5)
def step_along_the_sign(student: Student, draw: Draw) -> None:
    """Every pixel moves by ε so that the cross-entropy of the given class grows (no pixel leaves [0, 1] here)."""
    for k in range(4):
        look, epsilon = Look(student, draw), draw.number(0.01, 0.2)
        if k % 2:  # a class that is not the one predicted
            look.y = look.another_class(draw)
        got = finite(look.attacked(epsilon), *look.images.shape)
        expect_steps(got, look, look.of_loss(), epsilon)


@fgsm.criterion(points=0.5)
def clipped(student: Student, draw: Draw) -> None:
    """The result stays within [0, 1]: pixels beyond are set to 0 or 1, the others keep their step."""
    epsilon = draw.number(0.3, 0.4)
    # Beyond both ends, beyond one of them, and well within, where the steps can be seen whole.
    looks = [Look(student, draw, N=2, low=a, high=b) for a, b in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.49, 0.51))]
    results = [finite(look.attacked(epsilon), *look.images.shape) for look in looks]
    for got in results:
        expect(got).all((got >= 0) & (got <= 1), "a pixel lies outside [0, 1]")
    look, got = looks[0], results[0]
    steps = (results[-1] - looks[-1].images).abs()
    small = bool((steps <= epsilon + 1e-6).all()) and len(results[-1].unique()) > 1
    if small and bool(((steps - steps.max()).abs() > 1e-6)[:, :, 1:].any()):
        return  # that all steps are of one length is the business of another criterion
    moved = (got - look.images).abs()
    at_the_edge = (got == 0) | (got == 1)
    text = f"no pixel has come to 0 or 1 though ε is {epsilon:.2f}: the steps are not ±ε"
    expect(got).all(bool(at_the_edge.any()), text)
    expect(got).all(not bool(at_the_edge.all()), "every pixel is 0 or 1")
    step = moved[~at_the_edge].max()  # its length is the business of another criterion
    whole = at_the_edge | ((moved - step).abs() < 1e-6) | (moved == 0)
    expect(got).all(whole, "a pixel that stays within [0, 1] is not moved by ε")


@fgsm.criterion(points=0.5, name="images_are_independent")
def attacks_are_independent(student: Student, draw: Draw) -> None:
    """Every image of a batch becomes what it becomes alone."""
    look, epsilon = Look(student, draw, N=4), 0.1
    together = varied(look.attacked(epsilon), *look.images.shape)
    images, y = look.images, look.y
    expect(together).all(bool((together != images).any()), "no pixel is changed")
    for n in (0, 2):
        look.images, look.y = images[n : n + 1], y[n : n + 1]
        look.renew()
        alone = finite(look.attacked(epsilon), *look.images.shape)
        # How long the steps are is the business of other criteria.
        steps = [(got.double() - look.images).sign() for got in (together[n : n + 1], alone)]
        name = f"the signs of the steps of image {n} of 4"
        expect(steps[0], name).close_to(steps[1], because="those that it gets alone")


@fgsm.criterion(points=1, contract=True, name="leaves_everything_as_it_was")
def attack_leaves_everything_as_it_was(student: Student, draw: Draw) -> None:
    """Model (parameters, .grad, requires_grad, statistics, mode) and images are afterwards as they were."""
    for graded in (True, False):
        look = Look(student, draw, N=2, frozen=graded, graded=graded)
        look.expect_nothing_changed(lambda: look.attacked(0.1))  # noqa: B023


@fgsm.criterion(points=0.5, contract=True, name="no_graph_in_the_result")
def no_graph_in_the_attack(student: Student, draw: Draw) -> None:
    """The result is a plain tensor without a graph, of the dtype of the images."""
    look = Look(student, draw, N=2)
    Form("the result", tuple(look.images.shape)).check(look.attacked(0.1), torch.float64)
    expect_no_graph(student)


# --- Bonus: dilated convolution --------------------------------------------------------------------------------------

dilated_conv2d = Exercise("dilated_conv2d", bonus=True, forbidden=FORBIDDEN)


def dilated(
    draw: Draw, dilation: int, kernel: tuple[int, int] | None = None, *, square: bool = False
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Arguments whose sizes all differ; with `square` as in `convolution`."""
    N, C, count = distinct(draw, 3, 2)
    kernel = kernel or ((3, 2) if draw.integer(0, 2) else (2, 3))
    kernel = (kernel[0], kernel[0]) if square else kernel
    H, W = (dilation * (k - 1) + extra for k, extra in zip(kernel, distinct(draw, 2, 3), strict=True))
    W = H if square else W + (H == W)
    return draw.normal(N, C, H, W), draw.normal(count, C, *kernel), away_from_zero(draw, count), dilation


def dilated_out(student: Student, X: Tensor, filters: Tensor, b: Tensor, dilation: int) -> Tensor:
    """The student's result, of the right shape."""
    right = functional.conv2d(X, filters, b, dilation=dilation)
    return finite(student.dilated_conv2d(X, filters, b, dilation), *right.shape)


@dilated_conv2d.criterion(points=1)
def dilation_one(student: Student, draw: Draw) -> None:
    """With dilation 1 it is the usual cross-correlation (b = 0)."""
    for kernel in ((3, 2), (2, 3)):
        X, filters, b, _ = dilated(draw, 1, kernel)
        expect(dilated_out(student, X, filters, 0 * b, 1)).close_to(functional.conv2d(X, filters))


@dilated_conv2d.criterion(points=1)
def taps_lie_apart(student: Student, draw: Draw) -> None:
    """With dilation d the taps lie d pixels apart: as dilation 1 with d − 1 zeros between the taps."""
    for dilation in (2, 3):
        X, filters, b, _ = dilated(draw, dilation, square=True)
        kh, kw = ((k - 1) * dilation + 1 for k in filters.shape[2:])
        spread = filters.new_zeros(*filters.shape[:2], kh, kw)
        spread[:, :, ::dilation, ::dilation] = filters
        own = dilated_out(student, X, spread, b, 1)
        expected = varied(own, *own.shape)
        because = "yours for dilation 1, with zeros between the taps"
        expect(dilated_out(student, X, filters, b, dilation)).close_to(expected, because=because)


@dilated_conv2d.criterion(points=0.5, name="bias_is_added")
def dilated_bias_is_added(student: Student, draw: Draw) -> None:
    """b[k] is added to every pixel of map k."""
    X, filters, b, dilation = dilated(draw, 2, square=True)
    own = dilated_out(student, X, filters, 0 * b, dilation)
    without = varied(own, *own.shape)
    expect(dilated_out(student, X, filters, b, dilation)).close_to(
        without + b[:, None, None], because="the result where b = 0, plus b"
    )


add_contract(
    dilated_conv2d,
    lambda draw: (draw.normal(2, 3, 6, 6), draw.normal(4, 3, 3, 3), draw.normal(4), 1),
    [Form("the result", (2, 4, 4, 4))],
)


# --- Bonus: blocks ---------------------------------------------------------------------------------------------------

InceptionBlock = Exercise("InceptionBlock", bonus=True)
BRANCHES = ("1×1", "3×3", "5×5", "pooled")


class Inception(Block):
    """An InceptionBlock; its branches are told apart by what they see of the image."""

    def __init__(self, student: Student, draw: Draw, N: int = 2, widest: int = 0) -> None:
        c_in, *self.widths = distinct(draw, 5, 2)
        k = self.widths.index(max(self.widths))
        self.widths[k], self.widths[widest] = self.widths[widest], self.widths[k]
        super().__init__(student, draw, "InceptionBlock", (c_in, *self.widths), N)
        self.draw = draw
        self.images = draw.normal(N, c_in, 9, 11)

    def of(self, images: Tensor) -> list[Tensor]:
        """The outputs of the four branches in evaluation mode, each (N, c, H, W)."""
        result = self.student.prop(output_of, self.model, images, False)
        whole = finite(result, len(images), sum(self.widths), *images.shape[2:], name="the output")
        return list(whole.split(self.widths, 1))

    def settle(self) -> None:
        """Give the module other parameters: with some a ReLU gives nothing but zeros."""
        self.student.prop(settle, self.model, self.draw.integer(0, 2**31), self.images)

    def reach(self, branch: int) -> Tensor:
        """Where each channel of a branch changes with the pixel in the middle of an image, (c, 9, 11)."""
        H, W = self.images.shape[2:]
        found = torch.zeros(self.widths[branch], H, W, dtype=torch.bool)
        for _ in range(8):
            self.settle()
            before = self.of(self.images)[branch]
            for size in (30.0, -30.0, 3.0):
                moved = self.images.clone()
                moved[:, :, H // 2, W // 2] += size
                after = self.of(moved)[branch]
                found |= ((after - before).abs() > 1e-5 * before.abs().max()).any(0)
        return found


@InceptionBlock.criterion(points=1)
def branches_side_by_side(student: Student, draw: Draw) -> None:
    """The result has c_1 + c_3 + c_5 + c_pool channels, and height and width stay."""
    block = Inception(student, draw)
    whole = torch.cat(block.of(block.images), 1)
    varied(whole, *whole.shape, name="the output")


def add_branch(k: int, radius: int) -> None:
    """The criterion on what branch k sees: a square of 2·radius + 1 pixels."""

    def condition(student: Student, draw: Draw) -> None:
        block = Inception(student, draw, widest=k)  # so that channels of another branch show among these
        by_channel = block.reach(k)
        reach = by_channel.any(0)
        H, W = reach.shape
        far = [max(abs(int(i) - H // 2), abs(int(j) - W // 2)) for i, j in reach.nonzero()]
        seen = 2 * max(far) + 1 if far else 0
        text = f"channels of the {BRANCHES[k]} branch see {seen}×{seen} pixels, expected {2 * radius + 1} each way"
        expect(reach).all(seen == 2 * radius + 1, text)
        square = reach[H // 2 - radius : H // 2 + radius + 1, W // 2 - radius : W // 2 + radius + 1]
        expect(square).all(square, f"channels of the {BRANCHES[k]} branch do not see all pixels of their square")
        inner = slice(H // 2 - radius + 1, H // 2 + radius), slice(W // 2 - radius + 1, W // 2 + radius)
        few = [bool(one.any()) and int(one.sum()) == int(one[inner].sum()) for one in by_channel] if radius else []
        text = f"{sum(few)} of the {len(by_channel)} channels of the {BRANCHES[k]} branch see less than the others"
        expect(reach).all(not any(few), text)

    places = ("first c_1", "next c_3", "next c_5", "last c_pool")
    condition.__doc__ = (
        f"The {places[k]} channels see {2 * radius + 1}×{2 * radius + 1} pixels: the {BRANCHES[k]} branch."
    )
    InceptionBlock.criterion(points=0.5, name=f"branch_{('1x1', '3x3', '5x5', 'pooled')[k]}")(condition)


for place, half in enumerate((0, 1, 2, 1)):
    add_branch(place, half)


@InceptionBlock.criterion(points=0.5)
def pooling_forgets_the_place(student: Student, draw: Draw) -> None:
    """The pooled branch does not care where in its 3×3 window a value stands."""
    block = Inception(student, draw)
    images = draw.normal(3, block.images.shape[1], 3, 3)
    turns = (images, images.flip(2, 3), images.transpose(2, 3).contiguous(), images * 2 + 1)
    for _ in range(8):  # until the last ReLU, should there be one, lets something through
        *centre, other = (block.of(x)[3][:, :, 1, 1] for x in turns)
        if bool((other != centre[0]).any()):
            break
        block.settle()
    expect(centre).all(bool((other != centre[0]).any()), "the pooled branch does not depend on the image")
    for turned in centre[1:]:
        because = "the output in the middle of the same 3×3 pixels in another order"
        expect(turned, "the output of the pooled branch").close_to(centre[0], single=True, because=because)


@InceptionBlock.criterion(points=0.5)
def largest_of_each_channel(student: Student, draw: Draw) -> None:
    """The pooled branch takes the largest value of each channel in the 3×3 window, and convolves afterwards."""
    block = Inception(student, draw)

    def pooled(x: Tensor) -> Tensor:
        return block.of(x)[3][:, :, 1, 1]

    for _ in range(8):  # until the last ReLU lets something through
        images = draw.normal(6, block.images.shape[1], 3, 3)
        filled = images.amax((2, 3), keepdim=True).expand_as(images).clone()
        got, expected = (pooled(x) for x in (images, filled))
        if len(expected.unique()) > 3:
            break
        block.settle()
    else:
        raise Unmet("The pooled branch does not depend on the image.")
    same_place = [pooled(x) for x in (images.flip(3), images.transpose(2, 3).contiguous())]
    alone = pooled(images[:, :, 1:2, 1:2].expand_as(images).clone())
    if close(got, alone, 1e-4) or not all(close(got, turned, 1e-4) for turned in same_place):
        return  # no pooling at all, which other criteria are about
    if close(got, pooled(images.mean((2, 3), keepdim=True).expand_as(images).clone()), 1e-4):
        raise Unmet(
            "The pooled branch depends on the mean of each channel in the 3×3 window.",
            causes=["This is average pooling; the largest value is asked for."],
        )
    because = "the output where every pixel of the window has its channel's largest value"
    expect(got, "the output of the pooled branch").close_to(expected, single=True, because=because)
    images = -images.abs() - 0.1
    filled = images[:, :, :2, :2].amax((2, 3), keepdim=True).expand_as(images).clone()
    corner, expected = block.of(images)[3][:, :, 0, 0], pooled(filled)
    text = "At the border the zeros of the padding win over negative values; `nn.MaxPool2d(…, padding=1)` ignores them."
    zeros = {text: pooled(torch.zeros_like(images))}
    because = "the largest value of the four pixels that its window has"
    expect(corner, "the output of the pooled branch in a corner").close_to(
        expected, single=True, because=because, slips=lambda: zeros
    )


@InceptionBlock.criterion(points=0.5)
def relu_in_every_branch(student: Student, draw: Draw) -> None:
    """Every branch ends with a ReLU: nothing is negative, and some of it is 0."""
    block = Inception(student, draw)
    zeros = [False] * 4
    for _ in range(6):
        for k, out in enumerate(block.of(block.images)):
            lowest = float(out.min())
            text = f"the {BRANCHES[k]} branch gives negative values ({lowest:.3g}): no ReLU is the last of it"
            expect(out).all(lowest >= 0, text)
            zeros[k] = zeros[k] or bool((out == 0).any())
        block.settle()
    for name, some in zip(BRANCHES, zeros, strict=True):
        expect(some).all(some, f"the {name} branch is never 0: what it ends with is no ReLU")


def own_part(norm: Weights, widths: Sequence[int], k: int) -> Weights:
    """What a normalisation of all channels together does to those of branch k."""
    start = sum(widths[:k])
    return {
        part: value[start : start + widths[k]] if isinstance(value, Tensor) and value.ndim else value
        for part, value in norm.items()
    }


def somehow_pooled(x: Tensor) -> list[Tensor]:
    """Maps pooled in 3 × 3 windows as they should be, and as they sometimes are."""
    largest = functional.max_pool2d(x, 3, 1, 1)
    means = [functional.avg_pool2d(x, 3, 1, 1, count_include_pad=whole) for whole in (True, False)]
    beside_zeros = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 1)
    return [largest, *means, beside_zeros, -functional.max_pool2d(-x, 3, 1, 1), functional.max_pool2d(x, 5, 1, 2)]


@InceptionBlock.criterion(points=0.5)
def branches_convolve_the_input(student: Student, draw: Draw) -> None:
    """The branches are convolutions of the input, the last one of what is pooled, perhaps with BN (evaluation mode)."""
    block = Inception(student, draw)
    for _ in range(2):
        block.settle()
        block.layers = student.prop(layers_of, block.model)
        images = block.images - 1  # in some windows all is negative
        x, outputs = images.double(), block.of(images)
        for k, (size, got) in enumerate(zip((1, 3, 5, 1), outputs, strict=True)):
            convs = block.convs(block.widths[k], block.arguments[0], size, size)
            if len(block.layers["convs"]) != 4 or len(convs) != 1 or block.layers["loose"]:
                continue  # another design, whose layers cannot be told apart; the criteria above look at what it sees
            maps = [filtered(x, convs[0])]
            if k == 3:  # how is pooled is the business of other criteria
                maps += [filtered(pooled, convs[0]) for pooled in somehow_pooled(x)] + [*somehow_pooled(maps[0])]
            norms = [norm for (norm,) in block.norms(block.widths[k], 1)]
            norms += [own_part(norm, block.widths, k) for (norm,) in block.norms(sum(block.widths), 1)]
            maps += [normalised(z, norm, False) for z in maps for norm in norms]
            # Whether there is a ReLU is the business of another criterion.
            candidates = [t for z in maps for t in (torch.relu(z), z)]
            best = min(candidates, key=lambda t: float((got.double() - t).norm()))
            name = f"the {BRANCHES[k]} branch"
            expect(got, name).close_to(best, single=True, because="the input convolved with its filters")


add_module_criteria(InceptionBlock, lambda draw: [tuple(distinct(draw, 5, 2))])


SeparableConvBlock = Exercise("SeparableConvBlock", bonus=True)


def separable_outputs(block: Block, training: bool) -> Iterator[Tensor]:
    """ReLU(BN(pointwise(depthwise(x)))), for every choice of layers."""
    c_in, c_out = block.arguments
    for depthwise in block.convs(c_in, 1, 3, 3):
        for pointwise in block.convs(c_out, c_in, 1, 1):
            for (norm,) in block.norms(c_out, 1):
                z = filtered(filtered(block.images.double(), depthwise, groups=c_in), pointwise)
                yield from finished(z, norm, training)
    if training:  # what is convolved, and what stands between, is the business of another criterion
        for _, z in unlike_separable(block, training):
            for (norm,) in block.norms(c_out, 1):
                yield from finished(z, norm, training)


def unlike_separable(block: Block, training: bool) -> Iterator[tuple[str, Tensor]]:
    """What is often taken for a depthwise and a pointwise convolution, and the maps that come of it."""
    c_in, c_out = block.arguments
    x = block.images.double()
    for pointwise in block.convs(c_out, c_in, 1, 1):
        for depthwise in block.convs(c_in, 1, 3, 3):
            maps = filtered(x, depthwise, groups=c_in)
            yield "", filtered(maps, pointwise)
            text = "There is a ReLU between the two convolutions; it stands once, at the end."
            yield text, filtered(torch.relu(maps), pointwise)
            for (between,) in block.norms(c_in, 1):
                text = "There is a batch normalisation between the two convolutions; it stands once, at the end."
                z = normalised(maps, between, training)
                yield text, filtered(z, pointwise)
                yield text, filtered(torch.relu(z), pointwise)
        for whole in block.convs(c_in, c_in, 3, 3):
            yield (
                "The 3×3 convolution mixes channels: `groups=c_in` is missing.",
                filtered(filtered(x, whole), pointwise),
            )
        for depthwise in block.convs(c_out, 1, 3, 3):
            text = "The pointwise convolution comes first; the depthwise one does."
            yield text, filtered(filtered(x, pointwise), depthwise, groups=c_out)


def spoiled_separables(block: Block, training: bool) -> Iterator[tuple[str, Tensor]]:
    """What often goes wrong in a separable block, and what comes of it."""
    for text, z in unlike_separable(block, training):
        for (norm,) in block.norms(block.arguments[1], 1):
            yield text, torch.relu(normalised(z, norm, training))
            yield "There is no ReLU at the end.", normalised(z, norm, training)


def expect_separable(student: Student, draw: Draw, c_in: int, c_out: int, training: bool) -> None:
    """A SeparableConvBlock's output is right."""
    block = Block(student, draw, "SeparableConvBlock", (c_in, c_out))
    parts = f"convolutions with weights ({c_in}, 1, 3, 3) and ({c_out}, {c_in}, 1, 1), BatchNorm2d of {c_out} channels"
    block.expect_one_of(separable_outputs(block, training), training, parts, spoiled_separables(block, training))


@SeparableConvBlock.criterion(points=1.5, name="output_in_evaluation")
def separable_in_evaluation(student: Student, draw: Draw) -> None:
    """In evaluation mode: depthwise 3×3 with padding 1, pointwise 1×1, BN by its running statistics, ReLU."""
    c = draw.integer(2, 5)
    for c_in, c_out in (channels(draw), (c, c)):
        expect_separable(student, draw, c_in, c_out, False)


@SeparableConvBlock.criterion(points=0.5, name="output_in_training")
def separable_in_training(student: Student, draw: Draw) -> None:
    """In training mode BN normalises by the statistics of the batch."""
    expect_separable(student, draw, *channels(draw), True)


@SeparableConvBlock.criterion(points=0.5, name="height_and_width_stay")
def separable_height_and_width_stay(student: Student, draw: Draw) -> None:
    """(N, c_in, H, W) becomes (N, c_out, H, W), for any N, H and W."""
    expect_height_and_width(student, draw, "SeparableConvBlock")


add_module_criteria(SeparableConvBlock, lambda draw: [channels(draw)])


# --- Bonus: rare classes ---------------------------------------------------------------------------------------------

class_weights = Exercise("class_weights", bonus=True)


def uneven_labels(draw: Draw, K: int, low: int = 2, high: int = 9) -> Tensor:
    """Labels of classes of different sizes, in random order."""
    sizes = (low + draw.permutation(high - low)[:K]).tolist()
    y = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
    return y[draw.permutation(len(y))]


@class_weights.criterion(points=1)
def rare_classes_weigh_more(student: Student, draw: Draw) -> None:
    """A class's weight is in inverse proportion to its number of examples (whatever the factor)."""
    K = draw.integer(3, 6)
    y = uneven_labels(draw, K)
    weights = finite(student.class_weights(y, K), K, name="the weights").double()
    expect(weights).all(weights > 0, "the weight of a class that occurs is not positive")
    totals = weights * torch.bincount(y, minlength=K)
    expect(totals / totals.mean(), "weight times number of examples, but for a factor,").close_to(
        torch.ones(K, dtype=torch.float64), rtol=1e-4
    )


@class_weights.criterion(points=0.5)
def weights_have_mean_one(student: Student, draw: Draw) -> None:
    """Over the examples the weights have mean 1 where every class occurs: they add up to N."""
    K = draw.integer(3, 6)
    y = uneven_labels(draw, K)
    mean = varied(student.class_weights(y, K), K, name="the weights").double()[y].mean()
    slips: Slips = {"The division by K is missing: the weights add up to K N.": torch.tensor(float(K))}
    expect(mean, "the mean weight of an example").close_to(1.0, rtol=1e-4, sizes={"N": len(y)}, slips=lambda: slips)


@class_weights.criterion(points=0.5)
def absent_classes_weigh_nothing(student: Student, draw: Draw) -> None:
    """A class without examples has weight 0, and the others are finite."""
    y = uneven_labels(draw, 3)
    K = 6
    y = torch.where(y == 0, 4, y)  # the classes 1, 2 and 4 occur
    weights = expect(student.class_weights(y, K), "the weights").shape(K).tensor().double()
    for k in (0, 3, 5):
        infinite = not bool(torch.isfinite(weights[k]))
        causes = ["N is divided by n_k = 0. Where a class has no examples, 0 is asked for."] if infinite else []
        if not abs(float(weights[k])) <= 1e-9:
            raise Unmet(f"Class {k} has no examples and weight {weights[k].item():.4g}, expected 0.", causes=causes)
    expect(weights, "the weights").finite()
    expect(weights).all(weights[[1, 2, 4]] > 0, "the weight of a class that occurs is not positive")


add_contract(
    class_weights,
    lambda draw: (uneven_labels(draw, 4), 4),
    [Form("the weights", (4,), dtype=torch.float32)],
)


balanced_batches = Exercise("balanced_batches", bonus=True)


@prop
def listed(iterable: Any) -> list[Any]:
    """Going through the batches."""
    return list(iterable)


def batches_of(student: Student, y: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """The batches of one epoch, as index tensors."""
    result = student.balanced_batches(y, batch_size, generator)
    if isinstance(result, Foreign):
        result = student.prop(listed, result)
    if isinstance(result, Tensor):
        result = list(result)
    if not isinstance(result, list | tuple):
        expect(result, "the batches").parts()
    if len(result) > 1000:
        raise Unmet(f"There are {len(result)} batches.")
    batches = [expect(batch, "a batch").tensor() for batch in result]
    for batch in batches:
        if batch.ndim != 1 or batch.is_floating_point() or batch.dtype == torch.bool:
            raise Unmet(
                f"Expected a batch as a vector of indices, got shape {tuple(batch.shape)}, {batch.dtype}.", "type"
            )
        expect(batch).all((batch >= 0) & (batch < len(y)), "a batch has an index that is none of y")
    return batches


def epoch_of(student: Student, y: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """All indices of one epoch, in order."""
    batches = batches_of(student, y, batch_size, generator)
    if not batches or not sum(map(len, batches)):
        raise Unmet("There is no batch, or none has any example.")
    return torch.cat(batches)


@balanced_batches.criterion(points=1)
def as_many_of_every_class(student: Student, draw: Draw) -> None:
    """Every class comes as often as the smallest has examples."""
    K = draw.integer(3, 5)
    y = uneven_labels(draw, K)
    expected = torch.full((K,), float(torch.bincount(y).min()), dtype=torch.float64)
    for _ in range(4):  # numbers that are right only on average may be right by chance
        counts = torch.bincount(y[epoch_of(student, y, 5, draw.generator())], minlength=K)
        expect(counts.double(), "how often each class comes").close_to(expected)


@balanced_batches.criterion(points=0.5)
def without_replacement(student: Student, draw: Draw) -> None:
    """No example comes twice in an epoch."""
    y = uneven_labels(draw, 4, 6, 12)
    indices = epoch_of(student, y, 7, draw.generator())
    twice = len(indices) - len(indices.unique())
    expect(indices).all(twice == 0, f"{twice} examples come again in the same epoch")


@balanced_batches.criterion(points=0.5, name="classes_that_do_not_occur")
def absent_classes_do_not_count(student: Student, draw: Draw) -> None:
    """A class without examples is none of the classes: the others still come."""
    y = uneven_labels(draw, 3) * 2 + 1  # of the classes 1, 3 and 5
    batches = batches_of(student, y, 1000, draw.generator())
    text = "no example comes: the smallest class is taken to be one that does not occur, with 0 examples"
    if not any(map(len, batches)) and any(map(len, batches_of(student, y, 1, draw.generator()))):
        text = "no example comes in batches of 1000: a last batch that is not full is a batch too"
    expect(batches).all(sum(map(len, batches)) > 0, text)
    counts = torch.bincount(y[torch.cat(batches)], minlength=6)[1::2]
    expect(counts).all(counts > 0, "a class that occurs does not come")


@balanced_batches.criterion(points=0.5, contract=True)
def at_most_batch_size(student: Student, draw: Draw) -> None:
    """Every batch has at least one and at most batch_size examples."""
    y = uneven_labels(draw, 4, 5, 12)
    for size in (4, 7, 1000):
        lengths = [len(b) for b in batches_of(student, y, size, draw.generator())]
        expect(lengths).all(bool(lengths), "there is no batch")
        expect(lengths).all(max(lengths) <= size, f"batch_size is {size}, but a batch has {max(lengths)}")
        expect(lengths).all(min(lengths) > 0, "a batch is empty")


@balanced_batches.criterion(points=0.5)
def drawn_anew(student: Student, draw: Draw) -> None:
    """Each call draws other examples from the larger classes, so that in time all are used."""
    y = uneven_labels(draw, 3, 5, 14)
    epochs = [frozenset(epoch_of(student, y, 6, draw.generator()).tolist()) for _ in range(40)]
    expect(epochs).all(len(set(epochs)) > 1, "every epoch has the same examples")
    used = frozenset().union(*epochs)
    # Chance alone leaves an example out of all epochs less than once in 10⁷ times.
    expect(epochs).all(len(used) == len(y), f"{len(y) - len(used)} of {len(y)} examples never come in 40 epochs")
    y = (torch.arange(16) < 4).long()[draw.permutation(16)]
    rare = frozenset((y == 1).nonzero()[:, 0].tolist())
    chosen = {frozenset(epoch_of(student, y, 8, draw.generator()).tolist()) - rare for _ in range(40)}
    # There are 495 ways to choose 4 of 12; chance alone leaves 40 epochs with so few less than once in 10¹⁰ times.
    text = f"in 40 epochs only {len(chosen)} different sets of 4 out of 12 examples come: they are not drawn singly"
    expect(epochs).all(len(chosen) > 20, text)


@balanced_batches.criterion(points=0.5)
def classes_are_mixed(student: Student, draw: Draw) -> None:
    """The classes come mixed, not one after the other, and not always in the same turns."""
    y = torch.arange(40) % 2
    y = y[draw.permutation(40)]
    orders = [y[epoch_of(student, y, size, draw.generator())] for size in (40, 10, 10)]
    changes = [int((order[1:] != order[:-1]).sum()) for order in orders]
    # Of 39 neighbours about 20 differ; chance alone takes a right solution this far off once in 10⁶ times.
    expect(orders).all(min(changes) > 4, "the classes come one after the other: shuffle after joining them")
    expect(orders).all(
        any(not torch.equal(orders[0], o) for o in orders[1:]), "the classes always come in the same turns"
    )


@balanced_batches.criterion(points=0.5, contract=True, name="keeps_form")
def batches_are_indices(student: Student, draw: Draw) -> None:
    """Every batch is an int64 tensor of indices."""
    for batch in batches_of(student, uneven_labels(draw, 4), 5, draw.generator()):
        Form("a batch", (len(batch),), dtype=torch.int64).check(batch, torch.float64)


@balanced_batches.criterion(points=0.25, contract=True, name="leaves_arguments_alone")
def balanced_labels_left_alone(student: Student, draw: Draw) -> None:
    """The labels are not changed."""
    for _ in range(2):
        student.balanced_batches(uneven_labels(draw, 4), 5, draw.generator())
        unchanged_arguments(student.calls[-1])
