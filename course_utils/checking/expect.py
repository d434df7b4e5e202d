"""What a criterion expects of a result, and what it says when it gets something else.

Values are compared leniently where another criterion is strict: a NumPy array, a float32 result for float64
inputs or a superfluous axis of length one are still compared by value, so that one mistake costs one criterion
(the one on form) and not all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.checking.causes import Hints, likely_causes
from course_utils.checking.student import Call
from course_utils.checking.unmet import Comparison, CriterionFault, Unmet
from course_utils.checking.values import describe

# A right result rounded to half precision at the end still passes; no more, or wrong ones would pass there.
RTOL = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-3, torch.bfloat16: 8e-3}
# The absolute floor, as a part of the largest expected value: rounding in a sum is of that size.
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
FLOOR = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 2e-4, torch.bfloat16: 1e-3}


def expect(value: Any, name: str = "the result") -> Expectation:
    """Start a chain of expectations on a result: ``expect(probs).shape(5, 7).all(probs >= 0, "negative")``.

    Parameters
    ----------
    value : object
        What the student's function returned.
    name : str
        What to call it in messages.
    """
    return Expectation(value, name)


class Expectation:
    """A result under examination; each method raises `Unmet` or returns the expectation for the next one."""

    def __init__(self, value: Any, name: str) -> None:
        self.value = value
        self.name = name

    @property
    def _subject(self) -> str:
        """The name as a sentence starts with it; a symbol such as "grad_W" or "p[i, k]" stays as it is."""
        return "T" + self.name[1:] if self.name.startswith("the ") else self.name

    @property
    def _plural(self) -> bool:
        """Whether the name is of several things: "the scores of image 3"."""
        head = re.split(r",| (?:of|for|in|that|where|with|over|at|on|to|from|after|before|alone)\b", self.name)[0]
        return head.startswith("the ") and re.search(r"[^sui]s$", head) is not None and not head.endswith("bias")

    def _fail(self, message: str, kind: str = "value", causes: Sequence[str] = ()) -> Unmet:
        return Unmet(message, kind, list(causes))

    def _something(self) -> None:
        if self.value is None:
            raise self._fail(
                f"{self._subject} is None.",
                "nothing written",
                ["The function ends without `return`, or returns before its result is ready."],
            )

    def parts(self, *names: str) -> tuple[Any, ...]:
        """The elements of a pair or triple, one for each name; a tuple and a list are both fine."""
        self._something()
        wanted = ", ".join(name.removeprefix("the ") for name in names)
        if not isinstance(self.value, tuple | list):
            raise self._fail(
                f"Expected {len(names)} results ({wanted}), got {describe(self.value)}.",
                "type",
                [f"Return all of them: `return {wanted}`."],
            )
        if len(self.value) != len(names):
            raise self._fail(f"Expected {len(names)} results ({wanted}), got {len(self.value)}.", "type")
        return tuple(self.value)

    def tensor(self) -> Tensor:
        """The result as a tensor for further arithmetic in the criterion (NumPy arrays and numbers converted)."""
        self._something()
        if isinstance(self.value, Tensor):
            return self.value
        if isinstance(self.value, np.ndarray):
            return torch.from_numpy(np.ascontiguousarray(self.value))
        if isinstance(self.value, bool | int | float):
            try:
                return torch.tensor(self.value, dtype=torch.float64)
            except OverflowError:
                raise self._fail(f"{self.name} is an integer too large for a float.", "type") from None
        raise self._fail(f"Expected a tensor as {self.name}, got {describe(self.value)}.", "type")

    def shape(self, *shape: int) -> Expectation:
        """The result has this shape; axes of length one more or fewer are left to the criterion on form."""
        got = self.tensor()
        if tuple(got.shape) != shape:
            if _squeezed(got.shape) != _squeezed(shape):
                causes = []
                if tuple(reversed(got.shape)) == shape and len(shape) > 1:
                    causes.append("The result is transposed.")
                elif got.numel() == 0 and all(shape):
                    causes.append("A slice takes nothing: `x[p:-p]` is empty where p = 0.")
                raise self._fail(
                    f"Expected {self.name} of shape {shape}, got shape {tuple(got.shape)}.", "shape", causes
                )
            self.value = got.reshape(shape)
        return self

    def all(self, condition: Tensor | bool, otherwise: str) -> Expectation:
        """Every entry of `condition` holds; `otherwise` says what is wrong where one does not."""
        condition = torch.as_tensor(condition)
        if not bool(condition.all()):
            bad = (~condition).nonzero()
            where = f" (first at index {tuple(bad[0].tolist())}, {len(bad)} of {condition.numel()} entries)"
            raise self._fail(f"{otherwise}{where if condition.ndim else ''}.")
        return self

    def finite(self) -> Expectation:
        """No entry is NaN or infinite."""
        got = self.tensor()
        if got.is_floating_point():
            bad = ~torch.isfinite(got)
            if bool(bad.any()):
                index = tuple(bad.nonzero()[0].tolist())
                value = got[index].item()
                place = f" at index {index}" if index else ""
                verb = "are" if self._plural else "is"
                raise self._fail(
                    f"{self._subject} {verb} {value}{place}; {int(bad.sum())} of {got.numel()} entries are not finite.",
                    causes=[_not_finite_cause(value)],
                )
        return self

    def close_to(
        self,
        expected: Tensor | float,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        single: bool = False,
        because: str = "",
        **hints: Any,
    ) -> Expectation:
        """Every entry is close to `expected`: |got − expected| ≤ atol + rtol·|expected|.

        Parameters
        ----------
        expected : Tensor or float
            Same shape as the result (axes of length one aside).
        rtol, atol : float, optional
            Chosen from the less precise float type of both when not given; atol relative to the largest expected.
        single : bool
            Compare with float32's tolerance even where float64 came back (the inputs were float32).
        because : str
            What is expected here, in words: "each row divided by its sum".
        **hints
            What the likely causes may be looked for in, see `course_utils.checking.causes.Hints`.
        """
        expected = torch.as_tensor(expected, dtype=None if isinstance(expected, Tensor) else torch.float64)
        if not bool(torch.isfinite(expected).all()):
            raise CriterionFault(
                f"The expected value of {self.name} is not finite. Where it is a result of the student's function, "
                "`expect(…).finite()` goes first."
            )
        self.shape(*expected.shape)
        got = self.tensor()
        if got.dtype == torch.bool or got.is_complex():
            raise self._fail(f"Expected numbers as {self.name}, got {describe(got)}.", "dtype")
        floats = [t.dtype for t in (got, expected) if t.is_floating_point()]
        precision = max(floats, key=lambda d: RTOL.get(d, 0.0)) if floats else torch.float64
        if single:
            precision = max((precision, torch.float32), key=lambda d: RTOL[d])
        wide_got, wide = got.to(torch.float64), expected.to(torch.float64)
        rtol = RTOL[precision] if rtol is None else rtol
        scale = wide.abs().max().item() if wide.numel() else 0.0
        atol = FLOOR[precision] * max(scale, 1e-30) if atol is None else atol
        excess = (wide_got - wide).abs() - (atol + rtol * wide.abs())
        wrong = ~(excess <= 0)  # NaN counts as wrong
        if not bool(wrong.any()):
            return self
        self.finite()
        worst = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), tuple(excess.shape))) if wide.ndim else ()
        place = f" at index {worst}" if worst else ""
        count = f" {int(wrong.sum())} of {wide.numel()} entries differ." if wide.ndim else ""
        reason = f" ({because})" if because else ""
        message = (
            f"{self._subject} {'differ' if self._plural else 'differs'} from what is expected"
            f"{reason}: {f'largest difference{place}, ' if wide.ndim else ''}expected {_number(wide[worst])}, "
            f"got {_number(wide_got[worst])}.{count}"
        )
        causes = likely_causes(wide_got, wide, Hints(**hints), rtol=max(rtol, 1e-9) * 10, atol=atol * 10)
        raise Unmet(message, "value", causes, Comparison(wide, wide_got, worst))

    def equal(self, expected: Any) -> Expectation:
        """The result equals `expected` exactly (indices, strings, images)."""
        if isinstance(expected, Tensor):
            self.shape(*expected.shape)
            got = self.tensor()
            wrong = got != expected
            if bool(wrong.any()):
                worst = tuple(wrong.nonzero()[0].tolist())
                comparison = Comparison(expected.to(torch.float64), got.to(torch.float64), worst)
                raise Unmet(
                    f"{self._subject} {'differ' if self._plural else 'differs'} at {int(wrong.sum())} of "
                    f"{wrong.numel()} entries, first at index {worst}: expected {_number(expected[worst])}, "
                    f"got {_number(got[worst])}.",
                    comparison=comparison,
                )
        else:
            self._something()
            if type(self.value) is not type(expected) or self.value != expected:
                raise self._fail(f"Expected {expected!r} as {self.name}, got {describe(self.value)}.")
        return self

    def dtype(self, dtype: torch.dtype, *, of_inputs: bool = True) -> Expectation:
        """The result is a torch tensor of exactly this dtype, that of the float inputs or one of the exercise's own."""
        self._something()
        if not isinstance(self.value, Tensor):
            raise self._fail(f"Expected a torch tensor as {self.name}, got {describe(self.value)}.", "type")
        if self.value.dtype != dtype:
            raise self._fail(
                f"Expected {self.name} of dtype {_short(dtype)}, got {_short(self.value.dtype)}.",
                "dtype",
                [
                    "The result takes the dtype of the float inputs; labels and new tensors must not change it."
                    if of_inputs
                    else f"Whatever comes in, the exercise asks for {_short(dtype)}."
                ],
            )
        return self


class Form:
    """The exact shape and kind of one result.

    Parameters
    ----------
    name : str
        What to call it: "grad_W".
    shape : tuple of int
        Its shape; () for a scalar.
    scalar : str
        For shape (): "tensor" (0-d), "float" (a Python float), "either", or "integer" (of Python, NumPy or PyTorch).
    dtype : torch.dtype, optional
        When it is not that of the float inputs.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...] = (), *, scalar: str = "either", dtype: torch.dtype | None = None
    ) -> None:
        if scalar not in ("tensor", "float", "either", "integer"):
            raise ValueError(f"scalar is 'tensor', 'float', 'either' or 'integer', not {scalar!r}.")
        self.name, self.shape, self.scalar, self.dtype = name, shape, scalar, dtype

    def leaves(self, value: Any) -> list[tuple[Form, Any]]:
        """The tensors that a result of this form consists of, each with its own form."""
        return [(self, value)]

    def check(self, value: Any, float_dtype: torch.dtype) -> None:
        """Raise `Unmet` unless `value` has this form, for inputs of `float_dtype`."""
        if value is None:
            expect(value, self.name).tensor()
        if self.scalar == "integer":
            return self._check_integer(value)
        if self.shape == () and self.scalar != "tensor" and type(value) is float:
            return
        if self.shape == () and self.scalar == "float":
            item = "`.item()` turns a 0-d tensor into a Python number."
            causes = [item] if isinstance(value, Tensor | np.ndarray) else []
            raise Unmet(f"Expected a Python float as {self.name}, got {describe(value)}.", "type", causes)
        expect(value, self.name).dtype(self.dtype or float_dtype, of_inputs=self.dtype is None)
        if tuple(value.shape) != self.shape:
            raise Unmet(f"Expected {self.name} of shape {self.shape}, got shape {tuple(value.shape)}.", "shape")

    def _check_integer(self, value: Any) -> None:
        number = value.numpy() if isinstance(value, Tensor) and value.dtype != torch.bfloat16 else value
        if type(value) is not int and not (
            isinstance(number, np.ndarray) and not number.ndim and number.dtype.kind in "iu"
        ):
            raise Unmet(f"Expected an integer as {self.name}, got {describe(value)}.", "type")


class Opaque:
    """The form of a result that is the student's own business, such as a cache: any object.

    Parameters
    ----------
    name : str
        What to call it: "cache".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def leaves(self, value: Any) -> list[tuple[Form, Any]]:
        """Nothing: it is not looked at."""
        return []


class Nested:
    """The form of a result made of lists and dicts of tensors, such as the layers of a network.

    Parameters
    ----------
    name : str
        What to call it: "the gradients".
    shapes : list or dict
        The shapes of its tensors, as tuples in lists and dicts like those of the result.
    dtype : torch.dtype, optional
        When it is not that of the float inputs.
    """

    def __init__(self, name: str, shapes: Any, *, dtype: torch.dtype | None = None) -> None:
        self.name, self.shapes, self.dtype = name, shapes, dtype

    def leaves(self, value: Any) -> list[tuple[Form, Any]]:
        """The tensors that the result consists of, each with its own form.

        Raises
        ------
        Unmet
            Where the lists have other lengths, or the dicts other keys.
        """
        if isinstance(self.shapes, tuple):
            return [(Form(self.name, self.shapes, dtype=self.dtype), value)]
        found = []
        if isinstance(self.shapes, dict):
            if not isinstance(value, dict) or value.keys() != self.shapes.keys():
                wanted, got = _keys(self.shapes), f"keys {_keys(value)}" if isinstance(value, dict) else describe(value)
                raise Unmet(f"Expected {self.name} as a dict with the keys {wanted}, got {got}.", "type")
            parts = [(f"{self.name}[{k!r}]", shapes, value[k]) for k, shapes in self.shapes.items()]
        else:
            if not isinstance(value, list | tuple) or len(value) != len(self.shapes):
                raise Unmet(f"Expected {self.name} as a list of {len(self.shapes)}, got {describe(value)}.", "type")
            parts = [(f"{self.name}[{i}]", shapes, value[i]) for i, shapes in enumerate(self.shapes)]
        for name, shapes, part in parts:
            found += Nested(name, shapes, dtype=self.dtype).leaves(part)
        return found


def _keys(value: dict[Any, Any]) -> str:
    return ", ".join(repr(k)[:40] for k in list(value)[:8])


def unchanged_arguments(call: Call) -> None:
    """Raise `Unmet` where a call changed its arguments."""
    if call.changed:
        if all(place.endswith(("(requires_grad)", "(.grad)")) for place in call.changed):
            cause = "`requires_grad` is set on the caller's own tensor; set it on a `.detach().clone()`."
        elif all("(moved to " in place for place in call.changed):
            cause = (
                "What `.to(…)` gives is put in the place of the caller's tensor; put it into a variable of your own."
            )
        else:
            cause = (
                "In-place operations (`-=`, `x[i] = …`, methods ending in `_`) write into the caller's memory; "
                "work on a new tensor or on a `.clone()`."
            )
        raise Unmet(f"{call.function} changed its argument {' and '.join(call.changed)}.", "changed argument", [cause])


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(s for s in shape if s != 1)


def _number(value: Tensor) -> str:
    number = value.item()
    return f"{number + 0.0:.6g}" if isinstance(number, float) else str(number)  # + 0.0: no "-0"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _not_finite_cause(value: float) -> str:
    if math.isnan(value):
        return (
            "NaN comes from 0 / 0, from inf − inf, inf / inf or 0 · inf (so from an exponential that overflowed), or "
            "from a softmax over nothing but −inf. Find the first intermediate result that is not finite."
        )
    return "Something was divided by zero, an exponential overflowed, or the logarithm of zero was taken."
