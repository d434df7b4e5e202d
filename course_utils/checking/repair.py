"""Which exercise to repair first, where one builds on earlier ones that are wrong themselves."""

from __future__ import annotations

from collections.abc import Iterable

from course_utils.checking.verdict import ExerciseResult


def may_come_from_earlier(result: ExerciseResult) -> bool:
    """Whether an exercise is wrong in a way that an earlier one may be the reason of: it ran and was not right."""
    return any(c.unmet and c.unmet.kind not in ("nothing written", "not defined") for c in result.criteria)


def repair_first(result: ExerciseResult, earlier: Iterable[ExerciseResult]) -> str:
    """The advice to repair an earlier exercise first.

    Parameters
    ----------
    result : ExerciseResult
        Of an exercise that is wrong.
    earlier : iterable of ExerciseResult
        Of those that it builds on (`course_utils.checking.callees.built_on`).

    Returns
    -------
    str
        A sentence; "" where the earlier ones are right.
    """
    wrong = [r.exercise.name for r in earlier if any(c.unmet for c in r.criteria)]
    if not wrong:
        return ""
    does = "does" if len(wrong) == 1 else "do"
    name = result.exercise.name
    return f"{name} builds on {' and '.join(wrong)}, which {does} not pass the checks: repair {wrong[0]} first."
