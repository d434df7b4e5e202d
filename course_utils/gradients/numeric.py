"""Numerical derivatives: f evaluated one step to either side, one at a time or many at once."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.overrides import TorchFunctionMode

from course_utils.gradients.error import GradientCheckError
from course_utils.gradients.restoration import Kept, RandomState
from course_utils.gradients.structure import Calling, Leaf, replaced

BATCH_ELEMENTS = 1 << 22
"""Numbers that one batch of evaluations may read and produce in all.  Small networks then run in one or two
batches, large ones in batches that still fit a cache, and the memory is bounded (32 MiB) whatever f does."""

SMALLEST_BATCH = 24
"""Where a batch has no room for this many evaluations, each is mostly arithmetic and the loop is as fast."""


@dataclass(frozen=True)
class Differences:
    """f one step to either side of m entries of a parameter, all (m,) float64.

    The steps are what was really added and taken away: h, up to the rounding of the entry itself.
    """

    plus: Tensor
    minus: Tensor
    centre: Tensor
    step_up: Tensor
    step_down: Tensor

    def at(self, where: Tensor) -> "Differences":
        """The same at some of the entries."""
        return Differences(*(getattr(self, name)[where] for name in self.__dataclass_fields__))

    @property
    def central(self) -> Tensor:
        """The centred difference quotient, wrong by O(h²)."""
        return (self.plus - self.minus) / (self.step_up + self.step_down)

    @property
    def gap(self) -> Tensor:
        """How far the one-sided quotients disagree: h·f″ where f is smooth, a constant at a kink."""
        forward = (self.plus - self.centre) / self.step_up
        backward = (self.centre - self.minus) / self.step_down
        return (forward - backward).abs()


class _Work(TorchFunctionMode):
    """Watches one evaluation: how many numbers it reads and produces, how large, and in which precision."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.largest = 0.0
        self.single: str | None = None
        """The first operation that gave float32 or less."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, tuple | list) else (result,)
        self.elements += sum(item.numel() for item in (*args, *results) if isinstance(item, Tensor))
        for item in results:
            if isinstance(item, Tensor) and item.is_floating_point() and item.numel():
                self.largest = max(self.largest, float(item.detach().abs().max()))
                if item.dtype != torch.float64 and self.single is None:
                    self.single = getattr(func, "__name__", "an operation").strip("_")
        return result


class Function:
    """f as one number, at the parameters as they stand and at small changes of one entry.

    Every evaluation starts from the same running statistics and the same random state.  Changes are made in
    the caller's own tensors (so a function that reads them directly is served as well) and undone at once.

    Parameters
    ----------
    calling : Calling
        How f takes its parameters.
    parameters
        The structure that holds them.
    state : Kept
        What f may change while it runs; put back before each evaluation.
    vectorised : bool or None
        Whether to evaluate many changes at once; None: where f allows it and where that is faster.
    """

    def __init__(self, calling: Calling, parameters: Any, state: Kept, vectorised: bool | None) -> None:
        self.parameters = parameters
        self.upstream: Tensor | None = None
        self.evaluations = 0
        self.vectorised_leaves = 0
        self.rounding = 0.0
        self._calling = calling
        self._state = state
        self._demand = vectorised is True
        self._vectorise = vectorised is not False
        self._random: RandomState | None = None
        self._work = _Work()

    # ------------------------------------------------------------------ one evaluation

    def output(self) -> Any:
        """What f returns at the parameters as they stand."""
        self.evaluations += 1
        self._state.put_back()
        if self._random is not None:
            self._random.put_back()
        return self._calling.call(self.parameters)

    def value(self) -> float:
        """f as a number, at the parameters as they stand."""
        return float(self._projected(self.output()))

    def _projected(self, output: Any) -> Any:
        if self.upstream is None:
            return output
        return (output * self.upstream).sum()

    def settle(self, parameters: Kept) -> Tensor:
        """Evaluate f twice and refuse what cannot be differentiated.

        Parameters
        ----------
        parameters : Kept
            The parameters, which f must leave alone.

        Returns
        -------
        Tensor
            What f returned, detached, in float64.

        Raises
        ------
        GradientCheckError
            Where f is random, changes its arguments, is not finite, or is not computed in float64.
        """
        before = RandomState()
        try:
            with self._work:
                first = _as_tensor(self.output())
        except GradientCheckError:
            raise
        except Exception as error:
            error.add_note("f raised this at the parameters given, before any of them was changed.")
            if isinstance(error, RuntimeError) and "dtype" in str(error):
                error.add_note("Make the data float64 as well: X = X.double().")
            raise
        if parameters.changed():
            raise GradientCheckError(
                "f changes a parameter that it is given (it was put back): "
                "work on a copy, for example W = W * 2 in place of W *= 2."
            )
        drawn = before != RandomState()
        second = _as_tensor(self.output())
        if not _equal(first, second):
            before.put_back()
            third = _as_tensor(self.output())
            before.put_back()
            fourth = _as_tensor(self.output())
            kind = (
                "f draws random numbers: it"
                if _equal(third, fourth)
                else "f changes from call to call, by a hidden state or a generator of its own: it"
            )
            raise GradientCheckError(
                f"{kind} returned {_brief(first)} and then {_brief(second)} for the same parameters, so it has "
                "no derivative; draw masks and noise once, outside f, and pass what f changes as state=."
            )
        if drawn:  # it seeds itself, or does not use what it draws
            self._random = before
        if not bool(first.isfinite().all()):
            raise GradientCheckError(
                f"f returned {_brief(first)} at the parameters given: a gradient can only be checked where f is finite."
            )
        return first

    def measure_rounding(self, entries: list[tuple[Leaf, int]], h: float) -> float:
        """How far rounding throws f, from the spread of its fourth differences.

        f is evaluated at eight points h/8 apart along single entries; whatever is smooth cancels in the
        fourth difference, and what stays is rounding (Moré and Wild, "Estimating computational noise",
        SIAM J. Sci. Comput. 33(3), 2011).

        Parameters
        ----------
        entries : list of (Leaf, int)
            Along which entries, as flat indices.
        h : float
            The step.

        Returns
        -------
        float
            Standard deviation of one evaluation's rounding, in units of f.
        """
        scale = abs(self.value())
        found = []
        outputs = []
        for leaf, flat in entries:
            with _Entry(leaf.value, flat) as entry:
                row = []
                for k in range(1, 9):
                    entry.set(entry.original + k * h / 8)
                    output = self.output()
                    outputs.append(_as_tensor(output))
                    row.append(self._finite(float(self._projected(output)), leaf, flat, h))
            fourth = np.diff(row, n=4)
            if len(set(row)) > 1:
                found.append(math.sqrt(float((fourth**2).mean()) / 70))  # 70 = (2·4)!/(4!)²
        self.rounding = max(float(np.median(found)) if found else 0.0, scale * 1.1e-16, 1e-300)
        if self._work.single and self.rounding > 1e-12 * max(self._work.largest, scale):
            raise GradientCheckError(_NOT_FLOAT64.format(f"inside it, {self._work.single} gives float32"))
        if outputs and all(_only_float32(output) for output in outputs):
            raise GradientCheckError(_NOT_FLOAT64.format("every value it returns is a float32 number"))
        return self.rounding

    # ------------------------------------------------------------------ many evaluations

    def differences(self, leaf: Leaf, flat: Tensor, h: float) -> Differences:
        """f at ± h along some entries of one parameter.

        Parameters
        ----------
        leaf : Leaf
            The parameter.
        flat : Tensor
            (m,) flat indices of the entries.
        h : float
            The step.
        """
        size = self._batch_size(leaf)
        if self._vectorise and (self._demand or (size >= SMALLEST_BATCH and len(flat) > 2)):
            found = self._many(leaf, flat, h, size)
            if found is not None:
                return found
        return self._one_by_one(leaf, flat, h)

    def along(self, leaf: Leaf, direction: Tensor, h: float) -> tuple[float, Tensor]:
        """The centred difference of f along a direction in one parameter.

        Parameters
        ----------
        leaf : Leaf
            The parameter.
        direction : Tensor
            Of the parameter's shape.
        h : float
            The step.

        Returns
        -------
        quotient : float
            (f(θ + h·direction) − f(θ − h·direction)) / 2h.
        step : Tensor
            The direction that was really taken, after the rounding of θ ± h·direction.
        """
        data = leaf.value.data
        original = data.clone()
        try:
            data.add_(direction, alpha=h)
            up = data.clone()
            plus = self.value()
            data.copy_(original).sub_(direction, alpha=h)
            step = (up - data) / (2 * h)
            minus = self.value()
        finally:
            data.copy_(original)
        return (plus - minus) / (2 * h), step

    def _one_by_one(self, leaf: Leaf, flat: Tensor, h: float, centre: float | None = None) -> Differences:
        centre = self.value() if centre is None else centre
        rows = []
        for index in flat.tolist():
            with _Entry(leaf.value, index) as entry:
                up = entry.set(entry.original + h)
                plus = self._finite(self.value(), leaf, index, h)
                down = entry.set(entry.original - h)
                minus = self._finite(self.value(), leaf, index, -h)
            rows.append((plus, minus, centre, up - entry.original, entry.original - down))
        return Differences(*torch.tensor(rows, dtype=torch.float64).reshape(-1, 5).T)

    def _batch_size(self, leaf: Leaf) -> int:
        return BATCH_ELEMENTS // max(1, self._work.elements + leaf.value.numel())

    def _many(self, leaf: Leaf, flat: Tensor, h: float, size: int) -> Differences | None:
        """The same through vmap; None where f cannot be vectorised or gives something else there."""
        if not self._calling.takes_arguments:
            self._give_up("it takes no arguments")
            return None
        base = leaf.value.detach()

        def shifted(change: Tensor) -> Any:
            result = self._projected(self._calling.call(replaced(self.parameters, leaf.path, change)))
            if not isinstance(result, Tensor):
                raise TypeError(f"it returns a {type(result).__name__}, not a tensor")
            return result.reshape(())

        try:
            parts = [self._batch(shifted, base, part, h, leaf) for part in flat.split(max(1, (size - 1) // 2))]
        except GradientCheckError:
            raise
        except Exception as error:  # whatever vmap cannot do, the loop can
            self._give_up(str(error).partition("\n")[0])
            return None
        finally:
            self._state.put_back()
        found = Differences(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

        # The loop is the judge of vmap: a function that ignores its argument or reads a global would differ.
        probe = torch.tensor(sorted({int(found.central.abs().argmax()), len(flat) // 2}))
        loop = self._one_by_one(leaf, flat[probe], h, centre=0.0).central
        allowed = 1e-6 * loop.abs() + 24 * self.rounding / h
        if not bool(((found.central[probe] - loop).abs() <= allowed).all()):
            self._give_up("it gives other values when it is vectorised")
            return None
        self.vectorised_leaves += 1
        return found

    def _batch(
        self, shifted: Callable[[Tensor], Any], base: Tensor, flat: Tensor, h: float, leaf: Leaf
    ) -> tuple[Tensor, ...]:
        m = len(flat)
        rows = torch.arange(m)
        batch = base.reshape(1, -1).repeat(2 * m + 1, 1)  # the last row stays as it is
        original = batch[-1, flat].clone()
        batch[rows, flat] = original + h
        batch[rows + m, flat] = original - h
        up, down = (batch[rows, flat] - original).cpu(), (original - batch[rows + m, flat]).cpu()
        if self._random is not None:
            self._random.put_back()
        self._state.put_back()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # vmap warns where it has no batching rule and loops instead
            values = vmap(shifted, randomness="same")(batch.reshape(-1, *base.shape))
        self.evaluations += len(batch)
        values = values.detach().to("cpu", torch.float64)
        if not bool(values.isfinite().all()):
            worst = int((~values.isfinite()).to(torch.int64).argmax())
            self._finite(float(values[worst]), leaf, int(flat[worst % m]), h if worst < m else -h)
        return values[:m], values[m : 2 * m], values[2 * m].expand(m), up, down

    def _give_up(self, reason: str) -> None:
        if self._demand:
            raise GradientCheckError(
                f"f cannot be vectorised: {reason.rstrip('.')}; leave vectorised=None to have it looped over."
            )
        self._vectorise = False

    def _finite(self, value: float, leaf: Leaf, flat: int, change: float) -> float:
        if math.isfinite(value):
            return value
        index = [int(i) for i in np.unravel_index(flat, tuple(leaf.value.shape))]
        raise GradientCheckError(
            f"f is {value} when {leaf.name}{index or ''} changes by {change:g}: "
            "check the gradient at parameters further inside f's domain."
        )


_NOT_FLOAT64 = (
    "f is not computed in float64: {}, and float32 keeps 7 digits of which a difference over 1e-05 leaves 2; "
    "make the data and everything inside f float64."
)


def _only_float32(output: Tensor) -> bool:
    """Whether float32 holds each number exactly and fewer digits would not: an accident of 1 in 2²⁹."""
    output = output.flatten()
    fits = output == output.float().double()
    digits = torch.frexp(output).mantissa * 2**16
    return bool(fits.all()) and not bool((digits == digits.round()).all())


class _Entry:
    """One entry of a tensor, put back when the block ends, whatever happens in it."""

    def __init__(self, tensor: Tensor, flat: int) -> None:
        # .data: no graph of the caller's is invalidated, because what is written is undone
        self._data = tensor.data
        self._index = tuple(int(i) for i in np.unravel_index(flat, tuple(tensor.shape))) if tensor.ndim else ()
        self.original = float(self._data[self._index])

    def set(self, value: float) -> float:
        self._data[self._index] = value
        return value

    def __enter__(self) -> "_Entry":
        return self

    def __exit__(self, *_: object) -> None:
        self._data[self._index] = self.original


def _as_tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        if output.dtype != torch.float64:
            raise GradientCheckError(_NOT_FLOAT64.format(f"it returned {str(output.dtype).removeprefix('torch.')}"))
        return output.detach().clone()
    if isinstance(output, np.floating | np.ndarray) and output.dtype != np.float64:
        raise GradientCheckError(_NOT_FLOAT64.format(f"it returned {output.dtype}"))
    if isinstance(output, float | np.floating):
        return torch.tensor(float(output), dtype=torch.float64)
    what = "None (is a return missing?)" if output is None else f"a {type(output).__name__}"
    raise GradientCheckError(f"f returned {what}, not a number: return only the loss, as a 0-d tensor or a float.")


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def _brief(value: Tensor) -> str:
    if value.ndim == 0:
        return f"{value.item():.6g}"
    return f"a tensor of shape {tuple(value.shape)} with sum {value.sum().item():.6g}"
