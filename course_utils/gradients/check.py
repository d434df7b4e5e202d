"""Check hand-derived gradients against centred differences, parameter by parameter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.default_device import new_tensors_on, with_todays_default_device
from course_utils.gradients.diagnosis import Cause, Evidence, diagnose
from course_utils.gradients.error import GradientCheckError
from course_utils.gradients.judgement import (
    Entries,
    Status,
    judge_entries,
    relative_error,
)
from course_utils.gradients.numeric import Function
from course_utils.gradients.report import GradientReport, ParameterReport, StepScan, verdict_of
from course_utils.gradients.restoration import Kept, RandomState
from course_utils.gradients.sampling import lines_and_grid, sample_entries
from course_utils.gradients.search import suspects
from course_utils.gradients.structure import ABSENT, Calling, Leaf, calling, is_container, leaves, pair
from course_utils.gradients.surroundings import infer_lambda, infer_sizes

SCAN_STEPS = torch.logspace(-1, -11, 11, dtype=torch.float64, device="cpu")
SCAN_ENTRIES = 12


def check_gradients(
    f: Callable[..., Any],
    parameters: Any,
    gradients: Any,
    *,
    upstream: Tensor | str | None = None,
    h: float = 1e-5,
    tolerance: float = 1e-6,
    samples: int | None = 100,
    seed: int = 0,
    names: Sequence[str] | None = None,
    constants: Sequence[str] = (),
    state: Any = None,
    sizes: Mapping[str, float] | None = None,
    lam: float | None = None,
    vectorised: bool | None = None,
) -> GradientReport:
    """Compare the gradients of f with what f itself does when its parameters change a little.

    Every parameter is judged on its own, at a sample of its entries that always has the first, the last and the
    largest.  An entry passes when its relative error |a − n| / max(floor, |a| + |n|) is at most `tolerance`,
    where a is the analytic derivative, n the centred difference (f(θ+h) − f(θ−h)) / 2h, and the floor is the
    size below which rounding alone explains such an error.  Entries where f has a kink are skipped.  Where a
    known cause explains every sampled entry, the report names it.  What the sample leaves out is moved all at once
    along a random direction, and searched where f does not follow.

    Parameters
    ----------
    f : callable
        The function, of the parameters and nothing else: ``lambda W, b: cost(X, y, W, b, lam)``.  It returns a
        number, as a 0-d float64 tensor or a float; with `upstream`, a tensor of any shape.
    parameters
        float64 tensors: a dict ``{"W": W, "b": b}``, a tuple ``(W, b)``, one tensor, or any nesting of dicts,
        lists and tuples.  A dict or a tuple fills f's arguments one by one; a list is handed over whole where f
        takes one argument (``lambda layers: cost(X, y, layers, lam)``).  Changed while the check runs and put
        back, whatever happens.
    gradients
        The same structure with the gradients in place of the parameters; a tuple may stand for a dict, in its
        order.  Or a function that returns it: called as ``gradients(upstream)`` where there is an upstream, and
        like f where there is none.
    upstream : Tensor or "random", optional
        For an f that returns a tensor: ∂L/∂(what f returns).  The gradients are then those of the sum of f times
        `upstream`.  ``"random"`` draws it from a normal distribution.  Plain ones would hide errors: through
        batch normalisation a sum has no gradient at all.
    h : float
        The step.
    tolerance : float
        Largest relative error that passes.
    samples : int or None
        Entries to check in each parameter; a parameter with no more than that is checked in full, and with
        None all are.  Where a gradient is wrong, some more are looked at to find out why.
    seed : int
        Of the sample and of a random upstream.
    names : sequence of str, optional
        What to call the parameters, one name for each tensor.
    constants : sequence of str
        Keys or names of tensors inside `parameters` that have no gradient, such as ``("mean", "var")``; they
        count as `state`.
    state
        What f changes as it runs, such as running statistics, a cache, a module or a ``torch.Generator``: each
        evaluation starts from the same, and it is put back in the end.
    sizes : mapping of str to number, optional
        Names a wrong constant factor may have: ``{"N": 100, "K": 10}``.  Where not given, read from the arrays
        that f uses.
    lam : float, optional
        λ of a regulariser λ ΣW² inside f, for the diagnosis.  Where not given, read from a variable ``lam``
        that f uses.
    vectorised : bool, optional
        True: evaluate f for many changes at once with ``torch.func.vmap``, or say why that cannot be.  False: one
        by one.  None: at once where f allows it and gives the same numbers.

    Returns
    -------
    GradientReport
        ``report.passed`` is a bool; printed it is a table, in a notebook a coloured one; ``report.plot()`` draws.

    Raises
    ------
    GradientCheckError
        Where nothing can be judged: parameters that are not float64, an f that is random, not finite, not a
        number or not computed in float64.  Faults of the gradients (wrong shape, missing, NaN) do not raise but
        fail, with a sentence.

    Examples
    --------
    >>> W = torch.randn(5, 3, dtype=torch.float64)
    >>> check_gradients(lambda W: (W**2).sum(), {"W": W}, {"W": 2 * W}).passed
    True
    """
    _refuse_options(h, tolerance, samples)
    how = calling(f, parameters)
    everything = _named_leaves(parameters, how, names)
    fixed = [leaf for leaf in everything if _is_constant(leaf, constants)]
    trained = [leaf for leaf in everything if _is_float(leaf.value) and leaf not in fixed]
    _refuse_parameters(trained, everything)

    kept, random_state = Kept(parameters, state), RandomState()
    changing = Kept(state, [leaf.value for leaf in fixed], apart_from=[leaf.value for leaf in trained])
    function = Function(how, parameters, changing, vectorised)
    generator = torch.Generator("cpu").manual_seed(seed)
    notes = _shared_memory(trained)
    if callable(gradients):
        gradients = with_todays_default_device(gradients)
    try:
        with torch.no_grad(), new_tensors_on("cpu"):
            given = Kept([leaf.value for leaf in trained])
            output = function.settle(given)
            function.upstream = _upstream(upstream, output, generator)
            if callable(gradients):
                gradients = _ask(gradients, how, parameters, function.upstream)
                if given.changed():
                    notes.append("Computing the gradients changed the parameters; they were put back.")
                kept.put_back()
            partners, extra = pair(parameters, gradients)
            check = _Check(
                function,
                [_gradient(leaf, partners[leaf.path]) for leaf in trained],
                h=h,
                tolerance=tolerance,
                samples=samples,
                sizes=infer_sizes(f, {x.name: x.value for x in trained}) if sizes is None else dict(sizes),
                lam=infer_lambda(f) if lam is None else lam,
                generator=generator,
            )
            reports = check.run()
            value = function.value()  # leaves f's own caches as they are at these parameters
    finally:
        kept.put_back()
        random_state.put_back()

    reports += [
        _not_a_parameter(leaf)
        for leaf in everything
        if leaf not in trained and leaf not in fixed and not _nothing(partners[leaf.path])
    ]
    reports += [_unknown(name) for name in extra]
    return GradientReport(
        tuple(reports),
        value=value,
        h=h,
        tolerance=tolerance,
        evaluations=function.evaluations,
        vectorised=function.vectorised_leaves > 0,
        notes=tuple(notes),
        scan=_Scan(function, (parameters, state), kept, trained, reports, value),
    )


@dataclass(frozen=True)
class _Given:
    """A parameter and the gradient given for it."""

    leaf: Leaf
    gradient: Tensor | None
    """float64, in whatever shape it came; None where there is none to compute with."""
    fault: Cause | None
    """What is wrong with it before any number is compared."""


@dataclass(frozen=True)
class _Check:
    """One run over all parameters."""

    function: Function
    given: list[_Given]
    h: float
    tolerance: float
    samples: int | None
    sizes: Mapping[str, float]
    lam: float | None
    generator: torch.Generator

    def run(self) -> list[ParameterReport]:
        self.function.measure_rounding(self._probes(), self.h)
        return [self._parameter(item) for item in self.given]

    def _probes(self, most: int = 3) -> list[tuple[Leaf, int]]:
        """Entries to measure the rounding of f along: in some parameters, the one that matters most."""
        probes = []
        spread = torch.linspace(0, len(self.given) - 1, min(most, len(self.given))).round().int()
        for item in (self.given[k] for k in spread.tolist()):
            size = item.leaf.value.numel()
            fits = item.gradient is not None and item.gradient.numel() == size
            probes.append((item.leaf, int(item.gradient.abs().argmax()) if fits else size // 2))  # type: ignore[union-attr]
        return probes

    def _parameter(self, item: _Given) -> ParameterReport:
        leaf, gradient = item.leaf, item.gradient
        shape = tuple(leaf.value.shape)
        if gradient is None:
            return ParameterReport(leaf.name, shape, "fail", cause=item.fault)
        if item.fault is not None:
            return ParameterReport(leaf.name, shape, "fail", cause=self._shape_fault(item))

        entries = self._judge(leaf, gradient, sample_entries(gradient, self.samples, self.generator))
        if verdict_of(entries) != "fail":
            missed = suspects(self.function, leaf, gradient, entries.flat, h=self.h, generator=self.generator)
            if len(missed):
                entries = entries.joined(self._judge(leaf, gradient, missed))
        verdict = verdict_of(entries)
        if verdict != "fail":
            return ParameterReport(leaf.name, shape, verdict, entries)
        if len(entries.flat) < leaf.value.numel():
            worst = ParameterReport(leaf.name, shape, verdict, entries).worst
            assert worst is not None  # a failed entry is a judged one
            more = lines_and_grid(shape, worst.index, self.generator)
            more = more[~torch.isin(more, entries.flat)]
            if len(more):
                entries = entries.joined(self._judge(leaf, gradient, more))
        return ParameterReport(leaf.name, shape, verdict, entries, self._cause(leaf, gradient, entries))

    def _judge(self, leaf: Leaf, gradient: Tensor, flat: Tensor) -> Entries:
        analytic = gradient.flatten()[flat]
        return judge_entries(self.function, leaf, flat, analytic, h=self.h, tolerance=self.tolerance)

    def _cause(self, leaf: Leaf, gradient: Tensor, entries: Entries) -> Cause | None:
        others = {
            item.leaf.name: (_plain(item.leaf.value), item.gradient)
            for item in self.given
            if item.leaf is not leaf and item.gradient is not None
        }
        return diagnose(
            Evidence(
                leaf.name,
                _plain(leaf.value),
                gradient,
                entries.where(entries.status != Status.KINK),
                self.tolerance,
                self.sizes,
                self.lam,
                others,
            )
        )

    def _shape_fault(self, item: _Given) -> Cause:
        """A wrong shape, and whether the numbers are right in another one."""
        leaf, gradient, fault = item.leaf, item.gradient, item.fault
        assert gradient is not None and fault is not None
        if not leaf.value.numel():
            return fault
        # what the gradient says at these entries is worked out by the diagnosis, for each shape it tries
        flat = sample_entries(torch.zeros_like(_plain(leaf.value)), self.samples, self.generator)
        entries = self._judge(leaf, torch.zeros_like(_plain(leaf.value)), flat)
        cause = self._cause(leaf, gradient, entries)
        if cause is None:
            return fault
        return Cause(cause.kind, f"{fault.sentence} {cause.sentence[0].upper()}{cause.sentence[1:]}")


@dataclass(frozen=True)
class _Scan:
    """Evaluates f again later, at the parameters of the check, for the picture of error over h."""

    function: Function
    roots: tuple[Any, ...]
    at_check: Kept
    leaves: list[Leaf]
    reports: list[ParameterReport]
    value: float

    def __call__(self, name: str) -> StepScan | None:
        with new_tensors_on("cpu"):
            return self._errors(name)

    def _errors(self, name: str) -> StepScan | None:
        leaf = next((x for x in self.leaves if x.name == name), None)
        judged = next((r.judged for r in self.reports if r.name == name), None)
        if leaf is None or judged is None or not len(judged.flat):
            return None
        by_size = judged.numeric.abs().argsort(descending=True)
        picks = by_size[torch.linspace(0, len(by_size) - 1, min(SCAN_ENTRIES, len(by_size))).round().long()]
        some = judged.where(picks.unique())
        now, random_state = Kept(*self.roots), RandomState()
        errors = torch.full((len(SCAN_STEPS), len(some.flat)), torch.nan, dtype=torch.float64)
        try:
            self.at_check.put_back()
            with torch.no_grad():
                if self.function.value() != self.value:
                    return None
                for row, step in enumerate(SCAN_STEPS.tolist()):
                    try:
                        numeric = self.function.differences(leaf, some.flat, step).central
                    except GradientCheckError:  # so large a step leaves f's domain
                        continue
                    errors[row] = relative_error(some.analytic, numeric, 0.0)
        finally:
            now.put_back()
            random_state.put_back()
        return StepScan(SCAN_STEPS, errors)


# ---------------------------------------------------------------------------------- what is refused


def _refuse_options(h: float, tolerance: float, samples: int | None) -> None:
    if not 0 < h < 1:
        raise GradientCheckError(f"h is {h!r}: a step between 0 and 1 is needed, such as 1e-5.")
    if not 0 < tolerance < 1:
        raise GradientCheckError(f"tolerance is {tolerance!r}: a number between 0 and 1 is needed, such as 1e-6.")
    if samples is not None and samples < 1:
        raise GradientCheckError(f"samples is {samples!r}: at least one entry is to be checked; None checks all.")


def _refuse_parameters(trained: list[Leaf], everything: list[Leaf]) -> None:
    if not trained:
        kinds = ", ".join(sorted({_kind(leaf.value) for leaf in everything})) or "nothing"
        raise GradientCheckError(f"parameters holds {kinds}: at least one float64 tensor is needed.")
    for leaf in trained:
        tensor, kind = leaf.value, _kind(leaf.value)
        if tensor.dtype != torch.float64:
            raise GradientCheckError(
                f"{leaf.name} is a {kind}, and gradients are checked in float64 only: float32 keeps 7 digits, of "
                f"which a difference over h = 1e-5 leaves 2; pass {leaf.name}.double(), and data in float64 too."
            )
        if not tensor.numel():
            raise GradientCheckError(f"{leaf.name} has shape {tuple(tensor.shape)}: it has no entries to check.")
        if any(stride == 0 and length > 1 for stride, length in zip(tensor.stride(), tensor.shape, strict=True)):
            raise GradientCheckError(
                f"entries of {leaf.name} share one place in memory (it was made by expand), so they cannot be "
                f"changed one by one; pass {leaf.name}.clone()."
            )
        if not bool(tensor.isfinite().all()):
            raise GradientCheckError(f"{leaf.name} has {_not_finite(tensor)}: check at finite parameters.")


def _upstream(upstream: Tensor | str | None, output: Tensor, generator: torch.Generator) -> Tensor | None:
    """What f's output is multiplied by before it is summed; None where f returns one number."""
    if upstream is None:
        if output.numel() != 1:
            raise GradientCheckError(
                f"f returned a tensor of shape {tuple(output.shape)}, and a gradient belongs to one number: return "
                'the loss, or pass upstream="random" and the gradients as a function of the upstream.'
            )
        return None
    if isinstance(upstream, str):
        if upstream != "random":
            raise GradientCheckError(f'upstream is {upstream!r}: pass a tensor, "random" or None.')
        drawn = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        return drawn.to(output.device)
    if not isinstance(upstream, Tensor) or upstream.shape != output.shape or upstream.dtype != torch.float64:
        raise GradientCheckError(
            f"upstream is a {_kind(upstream)}: it must be a float64 tensor of shape {tuple(output.shape)}, "
            "the shape that f returns."
        )
    return upstream.detach().to(output.device, copy=True)


def _ask(gradients: Callable[..., Any], how: Calling, parameters: Any, upstream: Tensor | None) -> Any:
    """Call the function that makes the gradients."""
    with torch.enable_grad():
        if upstream is not None:
            return gradients(upstream.clone())
        return calling(gradients, parameters).call(parameters)


# ---------------------------------------------------------------------------------- small readings


def _named_leaves(parameters: Any, how: Calling, names: Sequence[str] | None) -> list[Leaf]:
    root = how.name or ("" if is_container(parameters) else "parameter")
    found = leaves(parameters, root, how.child_names)
    if names is None:
        return found
    tensors = [leaf for leaf in found if isinstance(leaf.value, Tensor)]
    if len(names) != len(tensors):
        raise GradientCheckError(
            f"names has {len(names)} entries and parameters {len(tensors)} tensors: give one name for each."
        )
    given = dict(zip((leaf.path for leaf in tensors), names, strict=True))
    return [Leaf(given.get(leaf.path, leaf.name), leaf.path, leaf.value) for leaf in found]


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _is_constant(leaf: Leaf, constants: Sequence[str]) -> bool:
    patterns = (constants,) if isinstance(constants, str) else constants
    key = str(leaf.path[-1]) if leaf.path else ""
    return any(fnmatchcase(leaf.name, pattern) or fnmatchcase(key, pattern) for pattern in patterns)


def _nothing(partner: Any) -> bool:
    return partner is ABSENT or partner is None


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"NumPy array of {value.dtype} and shape {value.shape}"
    return type(value).__name__


def _not_finite(tensor: Tensor) -> str:
    bad = ~tensor.detach().isfinite()
    first = tuple(bad.nonzero()[0].tolist())
    count = int(bad.sum())
    where = f", the first ({float(tensor[first])}) at {list(first)}" if first else f" ({float(tensor)})"
    return f"{count:,} entr{'y that is' if count == 1 else 'ies that are'} not finite{where}"


def _gradient(leaf: Leaf, partner: Any) -> _Given:
    """Read what was given as the gradient of one parameter."""

    def faulty(kind: str, sentence: str, gradient: Tensor | None = None) -> _Given:
        return _Given(leaf, gradient, Cause(kind, sentence))

    if partner is ABSENT:
        return faulty("missing", f"no gradient is given for {leaf.name}.")
    if partner is None:
        return faulty("missing", f"the gradient of {leaf.name} is None: it is not written yet, or not returned.")
    if isinstance(partner, bool) or not isinstance(partner, Tensor | np.ndarray | np.floating | float):
        return faulty("not a tensor", f"the gradient of {leaf.name} is a {_kind(partner)}, not a tensor.")
    tensor = partner.detach().cpu().clone() if isinstance(partner, Tensor) else torch.tensor(partner)
    if not isinstance(partner, Tensor | np.ndarray | np.floating):
        tensor = tensor.to(torch.float64)  # a Python float is one already
    if tensor.dtype != torch.float64:
        return faulty(
            "dtype",
            f"the gradient of {leaf.name} is a {_kind(tensor)} and {leaf.name} is float64: "
            "keep the dtype of the input.",
        )
    if not bool(tensor.isfinite().all()):
        return faulty("not finite", f"the gradient of {leaf.name} has {_not_finite(tensor)}.")
    if tensor.shape != leaf.value.shape:
        return faulty(
            "shape",
            f"the gradient of {leaf.name} has shape {tuple(tensor.shape)} and "
            f"{leaf.name} has {tuple(leaf.value.shape)}.",
            tensor,
        )
    return _Given(leaf, tensor, None)


def _not_a_parameter(leaf: Leaf) -> ParameterReport:
    kind = _kind(leaf.value)
    sentence = f"{leaf.name} has a gradient and is itself a {kind}: make it a float64 tensor."
    shape = tuple(leaf.value.shape) if isinstance(leaf.value, Tensor | np.ndarray) else ()
    return ParameterReport(leaf.name, shape, "fail", cause=Cause("not a tensor", sentence))


def _unknown(name: str) -> ParameterReport:
    sentence = f"gradients has {name}, and parameters has nothing in that place."
    return ParameterReport(name, (), "fail", cause=Cause("unknown parameter", sentence))


def _shared_memory(trained: list[Leaf]) -> list[str]:
    """Parameters that are one and the same: each step changes both."""
    notes = []
    spans = [
        (leaf.name, start := leaf.value.data_ptr(), start + leaf.value.element_size() * leaf.value.numel())
        for leaf in trained
    ]
    for k, (name, start, end) in enumerate(spans):
        for other, other_start, other_end in spans[k + 1 :]:
            if start < other_end and other_start < end:
                notes.append(
                    f"{name} and {other} share memory: a change of one is a change of the other, and each "
                    "numerical derivative is that of both together."
                )
    return notes
