"""Why a gradient is wrong: known causes, each fitted to the numbers.

A cause is told only when it explains every sampled entry: once it is accounted for, each of them agrees with
the numerical derivative about as closely as a right gradient would.  Below, a is the analytic gradient at the
sampled entries, n the numerical one, θ the parameter itself and r = a − n the residual.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from course_utils.gradients.judgement import DIGITS_NEEDED, Entries, Status

MOST_AXES = 4
"""Axis orders are tried up to this many axes: 24 orders."""


@dataclass(frozen=True)
class Cause:
    """One explanation of a wrong gradient.

    Attributes
    ----------
    kind : str
        What it is, in one or two words: ``"sign"``, ``"factor"``, ``"regulariser"``, ``"factor and
        regulariser"``, ``"transposed"``, ``"flipped"``, ``"swapped"``, ``"one slice"``, ``"some slices"``, ``"zeros"``,
        ``"clipped"``, ``"offset"``, ``"mean term"``, ``"factor per slice"``, ``"variance term"``,
        ``"float32"``, ``"nearly"``, ``"shape"``, ``"dtype"``, ``"missing"``, ``"not finite"``, ``"not a
        tensor"`` or ``"unknown parameter"``.
    sentence : str
        The same told to a student, with what to look at.
    """

    kind: str
    sentence: str


@dataclass
class Evidence:
    """What is known about one parameter whose gradient is wrong.

    Attributes
    ----------
    name : str
        The parameter's name.
    theta : Tensor
        The parameter, float64, any shape.
    gradient : Tensor
        The gradient in full, float64; usually of the same shape.
    entries : Entries
        What was found at the sampled entries, kinks left out.
    tolerance : float
        Largest relative error that passes.
    sizes : mapping of str to float
        Names of numbers that a factor may be, such as {"N": 100, "K": 10}.
    lam : float, optional
        λ of a regulariser λ ΣW².
    others : mapping of str to (Tensor, Tensor)
        Name → (parameter, gradient) of the other parameters.
    """

    name: str
    theta: Tensor
    gradient: Tensor
    entries: Entries
    tolerance: float
    sizes: Mapping[str, float] = field(default_factory=dict)
    lam: float | None = None
    others: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.flat = self.entries.flat
        self.a = self.entries.analytic
        self.n = self.entries.numeric
        self.r = self.a - self.n
        self.t = self.theta.flatten()[self.flat]
        self.noise = self.entries.noise
        self.index = np.stack(np.unravel_index(self.flat.numpy(), tuple(self.theta.shape) or (1,)), axis=1)
        self.wrong = self.entries.status == Status.FAIL

    def __len__(self) -> int:
        return len(self.flat)

    def explains(self, predicted: Tensor, target: Tensor, amplified: float | Tensor = 1.0) -> bool:
        """Whether `predicted` equals `target` at every entry, with rounding of n times `amplified`."""
        allowed = 3 * self.tolerance * (predicted.abs() + target.abs()) + 2 * self.noise * amplified
        return bool(((predicted - target).abs() <= allowed).all())

    def telling(self, *columns: Tensor) -> int:
        """How many entries stand clear of the rounding in each of some columns."""
        clear = torch.ones(len(self), dtype=torch.bool)
        for column in columns:
            clear &= column.abs() > DIGITS_NEEDED * self.noise
        return int(clear.sum())

    @property
    def everywhere(self) -> str:
        return "every sampled entry" if len(self) < self.theta.numel() else "every entry"


# ---------------------------------------------------------------------------------- numbers with a name


@dataclass(frozen=True)
class _Named:
    label: str
    meaning: str


def _name_ratio(ratio: float, evidence: Evidence) -> list[_Named]:
    """What a positive constant factor may be: 2, a half, N, 1/N and the like, the plainest first.

    A size by itself is a better story than a size with a 2, and that a better one than two sizes: a later
    group is looked at only where the ones before it have nothing.
    """
    sizes = {name: float(size) for name, size in evidence.sizes.items() if size not in (0, 1)}
    groups: list[list[tuple[str, float, str]]] = [
        [
            ("2", 2.0, "a factor 2 too many, as from a square differentiated twice"),
            ("1/2", 0.5, "the factor 2 of a differentiated square is missing, or a half is counted twice"),
        ],
        [],
        [],
    ]
    for name, size in sizes.items():
        missing = f"the mean over {name} is missing, divide by {name} once"
        twice = f"divided by {name} once too often, or averaged where f sums"
        groups[0] += [(name, size, missing), (f"1/{name}", 1 / size, twice)]
        groups[1] += [
            (f"2{name}", 2 * size, f"{missing}; a factor 2 is too many"),
            (f"{name}/2", size / 2, f"{missing}; a factor 2 is missing as well"),
            (f"2/{name}", 2 / size, f"{twice}; a factor 2 is too many"),
            (f"1/(2{name})", 1 / (2 * size), f"{twice}; a factor 2 is missing"),
            (f"{name}²", size**2, f"two means over {name} are missing"),
            (f"1/{name}²", 1 / size**2, f"divided by {name} twice too often"),
            (f"{name}/({name}−1)", size / (size - 1), f"{name}−1 stands where {name} is meant"),
            (f"({name}−1)/{name}", (size - 1) / size, f"{name} stands where {name}−1 is meant"),
        ]
    for (one, p), (two, q) in itertools.combinations(sizes.items(), 2):
        groups[2] += [
            (f"{one}·{two}", p * q, f"the means over {one} and over {two} are missing"),
            (f"1/({one}·{two})", 1 / (p * q), f"divided by {one} and by {two} once too often"),
            (f"{one}/{two}", p / q, f"divided by {two} where {one} is meant"),
            (f"{two}/{one}", q / p, f"divided by {one} where {two} is meant"),
        ]
    for group in groups:
        found = [
            _Named(label if label in ("2", "1/2") else f"{label} = {_number(value)}", meaning)
            for label, value, meaning in group
            if _near(ratio, value) and not _near(value, 1.0)
        ]
        if found:
            return found
    return []


def _near(x: float, y: float) -> bool:
    return math.isclose(x, y, rel_tol=1e-5)


def _number(x: float) -> str:
    return f"{x:.0f}" if x == round(x) and abs(x) < 1e6 else f"{x:.4g}"


def _times(ratio: float, named: list[_Named]) -> tuple[str, str]:
    """A factor and what it means, in words: ("N = 100", "the mean over N is missing …")."""
    sign, wrong = ("−", "; the sign is wrong as well") if ratio < 0 else ("", "")
    if len(named) == 1:
        return sign + named[0].label, named[0].meaning + wrong
    stories = ", or ".join(f"{item.label} ({item.meaning})" for item in named[:3])
    return sign + _number(abs(ratio)), f"that is {stories}{wrong}"


# ---------------------------------------------------------------------------------- the hypotheses


def float32_inside(e: Evidence) -> Cause | None:
    a = e.a[e.a != 0]
    if len(a) >= 3 and float(e.entries.error.max()) < 1e-2 and bool((a == a.float().double()).all()):
        return Cause(
            "float32",
            "each of your values is a float32 number: it went through float32 on its way (torch.tensor, .float() "
            "or torch.zeros without dtype), which keeps 7 digits; compute in the dtype of the input.",
        )
    return None


def nothing_written(e: Evidence) -> Cause | None:
    if bool((e.gradient == 0).all()) and e.telling(e.n):
        return Cause(
            "zeros",
            "your gradient is zero everywhere and the numerical one is not: nothing was written into it, or what "
            "reaches it was multiplied by zero on the way (a wrong mask, a missing branch, detach).",
        )
    return None


def _fit(e: Evidence, target: Tensor, *columns: Tensor) -> list[float]:
    """Least squares, each entry weighted by one over its own size so that small ones count as well."""
    size = target.abs() + sum(column.abs() for column in columns) + e.noise
    design = torch.stack(columns, dim=1) / size[:, None]
    solution = torch.linalg.lstsq(design, (target / size)[:, None], driver="gelsd").solution
    return [float(x) for x in solution.flatten()]


def constant_ratio(e: Evidence) -> Cause | None:
    if not e.telling(e.a, e.n):
        return None
    (c,) = _fit(e, e.a, e.n)
    if _near(c, 1.0) or c == 0 or not e.explains(c * e.n, e.a, max(1.0, abs(c))):
        return None
    if _near(c, -1.0):
        return Cause(
            "sign",
            f"{e.everywhere} has the opposite sign: look for two terms of a difference in the wrong order.",
        )
    named = _name_ratio(abs(c), e)
    if named:
        factor, story = _times(c, named)
        return Cause("factor", f"{e.everywhere} is {factor} times the numerical one: {story}.")
    if e.telling(e.a, e.n) < 3:  # one or two numbers are always some multiple of each other
        return None
    return Cause(
        "factor",
        f"{e.everywhere} is {_number(c)} times the numerical one: a constant factor is wrong "
        "(a size, a step size, clipping by norm).",
    )


def regulariser(e: Evidence) -> Cause | None:
    if e.telling(e.r) < 2:
        return None
    (k,) = _fit(e, e.r, e.t)
    if k == 0 or not e.explains(e.n + k * e.t, e.a):
        return None
    return Cause("regulariser", f"{_regulariser_story(k, e)}; this explains {e.everywhere}.")


def _regulariser_story(k: float, e: Evidence) -> str:
    """What r = k·θ says about λ; a right gradient of λ ΣW² has 2λW."""
    bias = e.theta.ndim <= 1
    residual = f"your gradient differs from the numerical one by {k:.4g}·{e.name}"
    if e.lam:
        share = k / (2 * e.lam)
        stories = [
            (-1.0, f"the regulariser's 2λ{e.name} is missing"),
            (-0.5, f"λ{e.name} stands where 2λ{e.name} is meant"),
            (0.5, f"3λ{e.name} or, where f does not regularise {e.name}, λ{e.name} was added"),
            (
                1.0,
                f"2λ{e.name} was added though f does not regularise {e.name}"
                if bias
                else f"the regulariser counts twice (4λ{e.name}), or f does not regularise {e.name}",
            ),
            (-2.0, f"the regulariser has the wrong sign (−2λ{e.name})"),
        ]
        for name, size in e.sizes.items():
            if size > 1:
                stories.append((1 / size - 1, f"λ is divided by {name} = {_number(size)}"))
                stories.append((size - 1, f"λ is multiplied by {name} = {_number(size)}"))
        for value, story in stories:
            if _near(share, value):
                return f"{story} (λ = {e.lam:g}): {residual}"
        return f"{residual}, which is {share:.4g} times the regulariser's 2λ{e.name} (λ = {e.lam:g})"
    if k < 0:
        return (
            f"{residual}, as when the regulariser's 2λ{e.name} with λ = {-k / 2:.4g} is missing, or "
            f"λ{e.name} with λ = {-k:.4g} stands where 2λ{e.name} is meant"
        )
    if bias:
        return f"{residual}: {e.name} is regularised in the gradient (λ = {k / 2:.4g}) and not in f"
    return (
        f"{residual}, as when a regulariser with λ = {k / 2:.4g} counts twice, or stands in the gradient and not in f"
    )


def ratio_and_regulariser(e: Evidence) -> Cause | None:
    """a = c·n + k·θ: the data's part is off by c, the regulariser's part by something else."""
    if len(e) < 3 or e.telling(e.a, e.n) < 3:
        return None
    c, k = _fit(e, e.a, e.n, e.t)
    if _near(c, 1.0) or c == 0 or k == 0:
        return None
    if not e.explains(c * e.n + k * e.t, e.a, max(1.0, abs(c))):
        return None
    named = [_Named("1", "the sign is wrong")] if _near(c, -1.0) else _name_ratio(abs(c), e)
    if not named:
        if len(e) < 6:
            return None
        part = f"{_number(c)} times what it should be"
    elif _near(c, -1.0):
        part = "of the opposite sign"
    else:
        part = "{} times what it should be ({})".format(*_times(c, named))
    # with a right regulariser 2λθ, a = c·(n − 2λθ) + 2λθ, so k = 2λ(1 − c)
    implied = k / (2 * (1 - c))
    if e.lam and _near(implied, e.lam):
        rest = f"the regulariser's 2λ{e.name} is right"
    elif e.lam and _near(k, -2 * c * e.lam):
        rest = f"the regulariser's 2λ{e.name} (λ = {e.lam:g}) is missing"
    elif e.lam and _near(k, e.lam * (1 - 2 * c)):
        rest = f"λ{e.name} stands where 2λ{e.name} is meant (λ = {e.lam:g})"
    elif e.lam:
        rest = f"what is left is {k:.4g}·{e.name}"
    elif implied > 0:
        rest = f"the rest is a regulariser with λ = {implied:.4g}"
    else:
        rest = f"the rest is {k:.4g}·{e.name}"
    return Cause(
        "factor and regulariser",
        f"{e.everywhere} fits when the part that comes from the data is {part} and {rest}.",
    )


def swapped(e: Evidence) -> Cause | None:
    for name, (parameter, gradient) in e.others.items():
        if parameter.shape == e.theta.shape and gradient.shape == e.theta.shape:
            theirs = gradient.flatten()[e.flat]
            if e.telling(theirs) >= min(2, len(e)) and e.explains(theirs, e.n):
                return Cause(
                    "swapped",
                    f"what you give for {name} is the gradient of {e.name} at {e.everywhere}: "
                    "the two have changed places.",
                )
    return None


def _rearranged(shape: tuple[int, ...], gradient: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """What the gradient would be had its axes been exchanged, reversed or read in another order."""
    axes = range(len(shape))
    if gradient.numel() != math.prod(shape):
        return
    if tuple(gradient.shape) != shape:
        yield "shape", f"reshaped to {shape}", gradient.reshape(shape)
    for order in itertools.permutations(axes) if len(shape) <= MOST_AXES else ():
        if order == tuple(axes):
            continue
        moved = tuple(shape[axis] for axis in order)
        back = tuple(order.index(axis) for axis in axes)
        what = "transposed" if len(shape) == 2 else f"permuted back by {back}"
        if tuple(gradient.shape) == moved:
            yield "transposed", what, gradient.permute(back)
        if tuple(gradient.shape) == shape and moved != shape:
            # the numbers of a transposed tensor, forced into the right shape by a reshape
            how = f"read as {moved} and {what} (reshape where .T or permute is meant)"
            yield "transposed", how, gradient.reshape(moved).permute(back)
    if tuple(gradient.shape) == shape:
        for count in range(1, min(len(shape), MOST_AXES) + 1):
            for chosen in itertools.combinations(axes, count):
                what = f"reversed along ax{'is' if count == 1 else 'es'} {', '.join(map(str, chosen))}"
                yield "flipped", what, gradient.flip(chosen)


def rearranged(e: Evidence) -> Cause | None:
    if e.telling(e.n) < min(2, len(e)):
        return None
    for kind, what, gradient in _rearranged(tuple(e.theta.shape), e.gradient):
        if e.explains(gradient.flatten()[e.flat], e.n):
            return Cause(kind, f"your gradient is right at {e.everywhere} once it is {what}.")
    return None


def unsummed(e: Evidence) -> Cause | None:
    """One axis too many in front: the examples were not summed over."""
    if tuple(e.gradient.shape[1:]) != tuple(e.theta.shape) or e.gradient.ndim == 0 or not e.telling(e.n):
        return None
    for what, gradient in (("summed", e.gradient.sum(0)), ("averaged", e.gradient.mean(0))):
        if e.explains(gradient.flatten()[e.flat], e.n):
            return Cause("shape", f"it is right at {e.everywhere} once it is {what} over axis 0.")
    return None


def one_slice(e: Evidence) -> Cause | None:
    """All wrong entries in one row, column or other slice, and all else right."""
    shape = tuple(e.theta.shape)
    if not shape or not bool((~e.wrong).any()):
        return None
    wrong = e.wrong.numpy()
    small = (e.entries.status == Status.TOO_SMALL).numpy()
    for axis, length in enumerate(shape):
        where = e.index[:, axis]
        if length < 3 or len(set(where[wrong])) != 1:
            continue
        (here,) = set(where[wrong])
        inside = (where == here) & ~small
        if not wrong[inside].all() or len(set(where[~wrong])) < 2:
            continue
        if len(shape) > 1 and inside.sum() < 2:
            continue  # one lone entry is no slice
        if len(shape) == 2:
            what = f"{('row', 'column')[axis]} {here}"
        elif len(shape) == 1:
            what = f"entry {here}"
        else:
            what = f"index {here} of axis {axis}"
        last = here == length - 1
        edge = ", the last: a loop that stops one step or one class too early" if last else ""
        edge = ", the first: a loop that starts one step or one class too late" if here == 0 else edge
        zero = "; it is zero there" if bool((e.a[torch.from_numpy(inside)] == 0).all()) else ""
        return Cause("one slice", f"only {what} is wrong{edge}{zero}. All other sampled entries are right.")
    return None


def some_slices(e: Evidence) -> Cause | None:
    """All wrong entries in a few rows, columns or other slices, and those wrong throughout."""
    wrong = e.wrong.numpy()
    small = (e.entries.status == Status.TOO_SMALL).numpy()
    for axis in range(e.theta.ndim if e.theta.ndim > 1 else 0):
        where = e.index[:, axis]
        here = sorted(set(where[wrong].tolist()))
        inside = np.isin(where, here) & ~small
        if len(here) > len(set(where.tolist())) / 2 or not wrong[inside].all() or inside.sum() < 2 * len(here):
            continue
        which = ", ".join(map(str, here[:8])) + (" and more" if len(here) > 8 else "")
        what = f"{('row', 'column')[axis]}s {which}" if e.theta.ndim == 2 else f"indices {which} of axis {axis}"
        return Cause(
            "some slices",
            f"only {what} are wrong, each throughout. Ask what they have in common: an index that occurs more "
            "than once (`=` where `+=` was needed), a mask, a boundary.",
        )
    return None


def zeros(e: Evidence) -> Cause | None:
    zero = e.wrong & (e.a == 0)
    if bool((zero == e.wrong).all()) and int(zero.sum()) >= 2:
        return Cause(
            "zeros",
            f"wherever your gradient is wrong it is zero ({int(zero.sum())} of {len(e)} sampled entries) and the "
            "numerical one is not: a branch that nothing flows through, a mask from the wrong tensor, or `=` "
            "where `+=` was needed.",
        )
    return None


def clipped(e: Evidence) -> Cause | None:
    bound = float(e.gradient.abs().max())
    if int((e.a.abs() == bound).sum()) >= 2 and e.explains(e.n.clamp(-bound, bound), e.a):
        return Cause("clipped", f"your gradient is clipped at ±{_number(bound)}: check it before it is clipped.")
    return None


def offset(e: Evidence) -> Cause | None:
    if len(e) < 4:
        return None
    amount = float((e.r / e.noise).sum() / (1 / e.noise).sum())
    if e.telling(e.r) >= 4 and e.explains(e.n + amount, e.a):
        return Cause(
            "offset", f"{e.everywhere} is off by the same amount, {amount:.4g}: a term is missing or too many."
        )
    return None


def _groups(e: Evidence, constant_along: int) -> tuple[np.ndarray, int]:
    """Number the sets of entries that differ in one index only.  -> (m,), how many"""
    rest = np.delete(e.index, constant_along, axis=1)
    _, group = np.unique(rest, axis=0, return_inverse=True)
    group = group.reshape(-1)
    return group, int(group.max()) + 1


def _fit_groups(e: Evidence, group: np.ndarray, target: Tensor, columns: list[Tensor]) -> Tensor:
    """A fit of its own for every group.  -> (number of groups, number of columns)"""
    found = []
    for number in range(int(group.max()) + 1):
        rows = torch.from_numpy(group == number)
        size = (target[rows].abs() + e.noise[rows])[:, None]
        design = torch.stack([column[rows] for column in columns], dim=1) / size
        solved = torch.linalg.lstsq(design, target[rows][:, None] / size, driver="gelsd")
        found.append(solved.solution.flatten())
    return torch.stack(found)


def _slices(e: Evidence, axis: int) -> str:
    """What the groups along an axis are called: along axis 0 of a matrix lie its columns."""
    return ("column", "row")[axis] if e.theta.ndim == 2 else f"line along axis {axis}"


def _enough(e: Evidence, count: int, free: int) -> bool:
    """Far more entries than free numbers, so that a fit that explains them all is no accident."""
    return len(e) - free * count >= max(4, count)


def mean_term(e: Evidence) -> Cause | None:
    for axis in range(e.theta.ndim if e.theta.ndim > 1 else 0):
        group, count = _groups(e, axis)
        if not _enough(e, count, 1):
            continue
        one = torch.ones_like(e.r)
        level = _fit_groups(e, group, e.r, [one])[:, 0]
        if e.telling(e.r) > len(e) // 2 and e.explains(e.n + level[group], e.a):
            return Cause(
                "mean term",
                f"in each {_slices(e, axis)} every sampled entry is off by the same amount, from "
                f"{float(level.min()):.3g} to {float(level.max()):.3g}: the term that comes from the mean over "
                f"axis {axis} is missing or wrong.",
            )
    return None


def factor_per_slice(e: Evidence) -> Cause | None:
    for axis in range(e.theta.ndim if e.theta.ndim > 1 else 0):
        group, count = _groups(e, axis)
        if not _enough(e, count, 1) or e.telling(e.a, e.n) <= count:
            continue
        factor = _fit_groups(e, group, e.a, [e.n])[:, 0]
        if not e.explains(factor[group] * e.n, e.a, factor[group].abs().clamp(min=1.0)):
            continue
        line = _slices(e, axis)
        cause = (
            f"each {line} is off by a factor of its own, from {float(factor.min()):.3g} to {float(factor.max()):.3g}"
        )
        rest = np.delete(e.index, axis, axis=1)
        for name, (parameter, _) in e.others.items():
            for other in range(rest.shape[1]):
                axis_left = [k for k in range(e.theta.ndim) if k != axis][other]
                if tuple(parameter.shape) != (e.theta.shape[axis_left],):
                    continue
                value = parameter[torch.from_numpy(rest[:, other])]
                if torch.allclose(factor[group] * value, torch.ones(()).double(), rtol=1e-5):
                    return Cause("factor per slice", f"{cause}, and the factor is 1/{name}: {name} was left out.")
                if torch.allclose(factor[group], value, rtol=1e-5):
                    return Cause("factor per slice", f"{cause}, and the factor is {name}: it counts twice.")
        return Cause(
            "factor per slice",
            f"{cause}: something that belongs to the {line} (a scale, a standard deviation, a count) is left out "
            "or counts twice.",
        )
    return None


def variance_term(e: Evidence) -> Cause | None:
    for axis in range(e.theta.ndim if e.theta.ndim > 1 else 0):
        group, count = _groups(e, axis)
        if not _enough(e, count, 2):
            continue
        line = _fit_groups(e, group, e.r, [torch.ones_like(e.r), e.t])
        predicted = line[group, 0] + line[group, 1] * e.t
        if e.telling(e.r) > 2 * count and e.explains(e.n + predicted, e.a):
            return Cause(
                "variance term",
                f"in each {_slices(e, axis)} the error is a straight line in {e.name}: the term that comes from "
                f"the variance over axis {axis} is missing or wrong.",
            )
    return None


def nearly(e: Evidence) -> Cause | None:
    if float(e.entries.error.max()) < 1e-4 and int(e.wrong.sum()) > len(e) / 2:
        return Cause(
            "nearly",
            f"no relative error is above {float(e.entries.error.max()):.1e}: the formula is right but for something "
            "small, such as an eps on the wrong side of a square root.",
        )
    return None


HYPOTHESES: tuple[Callable[[Evidence], Cause | None], ...] = (
    float32_inside,
    nothing_written,
    constant_ratio,
    regulariser,
    ratio_and_regulariser,
    swapped,
    rearranged,
    one_slice,
    zeros,
    some_slices,
    clipped,
    offset,
    mean_term,
    factor_per_slice,
    variance_term,
    nearly,
)
"""In the order they are tried, the ones with fewer free numbers first."""


def diagnose(evidence: Evidence) -> Cause | None:
    """The first cause that explains every sampled entry, or None.

    Parameters
    ----------
    evidence : Evidence
        What is known about one parameter; at least one entry is wrong.
    """
    if tuple(evidence.gradient.shape) != tuple(evidence.theta.shape):
        return rearranged(evidence) or unsummed(evidence)
    if evidence.explains(evidence.n, evidence.a):  # so nearly right that any story would fit
        return float32_inside(evidence) or nearly(evidence)
    for hypothesis in HYPOTHESES:
        cause = hypothesis(evidence)
        if cause is not None:
            return cause
    return None
