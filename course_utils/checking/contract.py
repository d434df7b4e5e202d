"""The criteria that every exercise shares: the form and precision of its results, and arguments left as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from course_utils.checking.draw import Draw, strided
from course_utils.checking.exercise import Exercise
from course_utils.checking.expect import Form, Nested, Opaque, expect, unchanged_arguments
from course_utils.checking.student import Student
from course_utils.checking.unmet import Unmet

Arguments = Callable[[Draw], tuple[Any, ...] | tuple[tuple[Any, ...], dict[str, Any]]]
Forms = Sequence[Form | Nested | Opaque]
Unusual = Callable[[Draw], Iterable[tuple[tuple[Any, ...], Forms]]]


def add_contract(
    exercise: Exercise,
    arguments: Arguments,
    returns: Forms,
    *,
    points: float = 0.5,
    visible: bool = True,
    layout: bool = True,
    alone: str = "The function does not change the arguments it is given.",
    unusual: Unusual = lambda draw: [],
) -> None:
    """Add the criteria `keeps_form`, `leaves_arguments_alone` and (hidden) `takes_any_layout` to an exercise.

    Parameters
    ----------
    exercise : Exercise
        Where to add them.
    arguments : callable
        `arguments(draw)` gives valid arguments of the exercise's function: a tuple, or a pair of a tuple and a
        dict of keyword arguments.  Float tensors are drawn in the draw's dtype, which is varied.
    returns : sequence of Form, Nested or Opaque
        One for each result.
    points : float
        What each of the three is worth.
    visible : bool
        Whether the first two are shown to students; the third is judged only under grading.
    layout : bool
        Whether to add the third, which compares results: not where chance has a part in them.
    alone : str
        What the second is about, where not every argument is tried.
    unusual : callable
        `unusual(draw)` gives more valid arguments, each with the forms of its results: those of special cases, such
        as a single example, for which a function may take a way of its own.  Their values, and exceptions, are the
        business of other criteria.
    """
    kinds = [form for form in returns if not isinstance(form, Opaque)]
    of_their_own = all(form.dtype or (isinstance(form, Form) and form.scalar == "float") for form in kinds)

    def result_of(student: Student, given: tuple[Any, ...], layout: Callable[[Any], Any] = lambda value: value) -> Any:
        positional, named = given if len(given) == 2 and isinstance(given[1], dict) else (given, {})
        return student.call(exercise.name, *(layout(a) for a in positional), **{k: layout(v) for k, v in named.items()})

    def leaves_of(result: Any, forms: Forms) -> list[tuple[Form, Any]]:
        parts = expect(result).parts(*(form.name for form in forms)) if len(forms) > 1 else (result,)
        return [leaf for form, part in zip(forms, parts, strict=True) for leaf in form.leaves(part)]

    def call(
        student: Student, draw: Draw, layout: Callable[[Any], Any] = lambda value: value
    ) -> list[tuple[Form, Any]]:
        return leaves_of(result_of(student, arguments(draw), layout), returns)

    def special_cases(student: Student, draw: Draw) -> Iterator[tuple[Any, Forms]]:
        for given, forms in unusual(draw):
            try:
                yield result_of(student, given), forms
            except Unmet as unmet:
                if unmet.kind != "exception":
                    raise

    @exercise.criterion(points=points, contract=True, visible=visible)
    def keeps_form(student: Student, draw: Draw) -> None:
        """Results have the documented shapes and types, and the dtype of the float inputs (float32 and float64)."""
        for dtype in (torch.float64, torch.float32):
            draw.dtype = dtype
            for form, value in call(student, draw):
                form.check(value, dtype)
        for result, forms in special_cases(student, draw):
            for form, value in leaves_of(result, forms):
                form.check(value, dtype)

    if of_their_own:  # no float input decides them
        keeps_form.__doc__ = "Results have the documented shapes and types."

    @exercise.criterion(points=points, contract=True, visible=visible)
    def leaves_arguments_alone(student: Student, draw: Draw) -> None:
        for _ in range(3):  # a change may happen to leave the numbers as they were
            call(student, draw)
            unchanged_arguments(student.calls[-1])
        for _ in special_cases(student, draw):
            unchanged_arguments(student.calls[-1])

    leaves_arguments_alone.__doc__ = alone
    if not layout:
        return

    @exercise.criterion(points=points, contract=True, visible=False)
    def takes_any_layout(student: Student, draw: Draw) -> None:
        """Inputs that are not contiguous in memory give the same result."""
        seed = draw.integer(0, 2**31)
        plain = call(student, Draw(seed))
        gapped = call(student, Draw(seed), _gapped)
        for (form, p), (_, g) in zip(plain, gapped, strict=True):
            if expect(p, form.name).tensor().is_floating_point():
                expected = expect(p, form.name).finite().tensor()
                expect(g, form.name).close_to(expected, because="the result for the same numbers, contiguous in memory")
            else:
                expect(g, form.name).equal(p)


def add_precision(
    exercise: Exercise, results: Callable[[Student, Draw], Iterable[Any]], *, points: float = 0.25
) -> None:
    """Add the hidden criterion `keeps_precision`: float64 is computed with in float64.

    Parameters
    ----------
    exercise : Exercise
        Where to add it.
    results : callable
        `results(student, draw)` gives results for float64 inputs that are not round numbers.
    points : float
        What it is worth.
    """

    @exercise.criterion(points=points, contract=True, visible=False)
    def keeps_precision(student: Student, draw: Draw) -> None:
        """float64 inputs are computed with in float64 from beginning to end."""
        for values in zip(*(results(student, draw) for _ in range(2)), strict=True):
            digits = torch.cat([expect(v).tensor().flatten() for v in values])
            if digits.dtype == torch.float64:  # another dtype is the business of keeps_form
                lost = bool((digits == digits.to(torch.float32)).all() and (digits != 0).any())
                expect(digits).all(not lost, "the result has only the digits of float32: something is converted")


def _gapped(value: Any) -> Any:
    if isinstance(value, Tensor):
        return strided(value)
    if isinstance(value, dict):
        return {k: _gapped(v) for k, v in value.items()}
    return [_gapped(v) for v in value] if isinstance(value, list) else value
