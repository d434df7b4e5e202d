"""Name the mistake: replay what failed with every known mistake in the student's place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.checking import Criterion, CriterionFault, Mistake, Student
from course_utils.checking.student import Call, Raised
from course_utils.checking.values import Foreign
from course_utils.checking.verdict import judge_criterion

Calls = Sequence[Call]


def name_mistakes(
    failed: Mapping[str, tuple[Criterion, Calls]],
    mistakes: Sequence[Mistake],
    student_with: Callable[[Mistake], Student],
    secret: str,
    met: Collection[str] = (),
) -> list[Mistake]:
    """The mistakes that would have given the student's results, call by call, in the failed criteria they explain.

    Parameters
    ----------
    failed : mapping
        For each criterion that is not met: the criterion and the calls that it made of the student's functions.
    mistakes : sequence of Mistake
        The known mistakes of the exercise.
    student_with : callable
        `student_with(mistake)` calls the reference, but for the one exercise that the mistake solves wrongly.
    secret : str
        What the criteria's inputs were drawn with.
    met : collection of str
        The criteria that are met.  A mistake that would have failed more of those than of the others is not it.

    Returns
    -------
    list of Mistake
        Those that explain most criteria first; one that explains fewer than a listed one of the same criteria is
        left out.
    """
    explained: list[tuple[set[str], Mistake]] = []
    for mistake in mistakes:
        wanted = set(mistake.caught_by) & set(failed)
        if not wanted or len(wanted) < len(set(mistake.caught_by) & set(met)):
            continue
        matches = set()
        for name in wanted:
            criterion, calls = failed[name]
            student = student_with(mistake)
            try:
                result = judge_criterion(criterion, student, secret)
            except CriterionFault:  # such as an expected value that this mistake makes infinite
                continue
            if not result.passed and same_results(calls, student.calls):
                matches.add(name)
        if matches == wanted:
            explained.append((matches, mistake))
    # One that should have failed criteria which are met is not what the student did, as long as another explains it.
    explained.sort(key=lambda e: (-len(e[0]), not set(e[1].caught_by) <= set(failed)))
    chosen: list[Mistake] = []
    covered: set[str] = set()
    for matches, mistake in explained:
        if matches - covered:
            chosen.append(mistake)
            covered |= matches
    return chosen


def same_results(a: Calls, b: Calls) -> bool:
    """Whether two series of calls gave the same results, up to rounding."""
    return len(a) == len(b) > 0 and all(
        x.function == y.function and _same(x.result, y.result) and sorted(x.changed) == sorted(y.changed)
        for x, y in zip(a, b, strict=True)
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5, equal_nan=True))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if not a.is_floating_point():
            return torch.equal(a, b)
        rtol = 1e-9 if a.dtype == torch.float64 else 1e-3  # criteria with tiny steps tell mistakes apart by 1e-8
        return bool(torch.isclose(a, b, rtol=rtol, atol=rtol * 1e-2, equal_nan=True).all())
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, Foreign) and isinstance(b, Foreign):
        return True  # what is in it shows in the results of later calls
    if isinstance(a, Raised) and isinstance(b, Raised):
        return a == b
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b) or abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return type(a) is type(b) and a == b
