"""Hold an exercise's criteria against a student's functions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from course_utils.checking.draw import Draw
from course_utils.checking.exercise import Criterion, Exercise
from course_utils.checking.student import Student
from course_utils.checking.unmet import CriterionFault, Unmet
from course_utils.default_device import new_tensors_on


@dataclass
class CriterionResult:
    """What one criterion found.

    Attributes
    ----------
    criterion : Criterion
        What was asked.
    unmet : Unmet, optional
        Why it is not met; None where it is.
    remarks : list of str
        Warnings and lines on stderr from the student's function.
    note : str
        What a person should know though the criterion is met, such as that an earlier exercise was replaced.
    seconds : float
        Wall time of the criterion.
    """

    criterion: Criterion
    unmet: Unmet | None = None
    remarks: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the criterion is met (and earns its points)."""
        return self.unmet is None

    @property
    def message(self) -> str:
        """One text with what went wrong and its likeliest cause; "" where nothing did."""
        if self.unmet is None:
            return ""
        return " ".join([self.unmet.message, *(f"Likely cause: {c}" for c in self.unmet.causes[:1])])


@dataclass
class ExerciseResult:
    """What all criteria of one exercise found.

    Attributes
    ----------
    exercise : Exercise
        What was asked.
    criteria : list of CriterionResult
        In the exercise's order.
    advice : str
        What to do first, such as to repair an earlier exercise that this one calls.
    """

    exercise: Exercise
    criteria: list[CriterionResult]
    advice: str = ""

    @property
    def score(self) -> float:
        """Points earned."""
        return sum(c.criterion.points for c in self.criteria if c.passed)

    @property
    def max_score(self) -> float:
        """Points that could be earned by the criteria that were judged."""
        return sum(c.criterion.points for c in self.criteria)


def criterion_seed(criterion: Criterion, secret: str = "") -> int:
    """The seed of a criterion's draw, different for every criterion; unforeseeable when `secret` is."""
    text = f"{secret}\n{criterion.exercise}\n{criterion.name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def judge_criterion(criterion: Criterion, student: Student, secret: str = "") -> CriterionResult:
    """Hold one criterion against a student's function, with new tensors on the CPU, as under grading.

    Raises
    ------
    CriterionFault
        When the criterion itself is wrong.
    """
    start = time.perf_counter()
    student.begin_criterion()
    first = len(student.calls)
    unmet = None
    try:
        with new_tensors_on("cpu"):
            criterion.condition(student, Draw(criterion_seed(criterion, secret)))
    except Unmet as why:
        unmet = why
    except CriterionFault:
        raise
    except Exception as error:  # arithmetic on a result that no expectation looked at first
        if len(student.calls) == first:
            raise CriterionFault(f"{criterion.exercise}.{criterion.name} raised {error!r}") from error
        unmet = Unmet(f"The result could not be used: {type(error).__name__}: {error}", "type")
    remarks = [r for call in student.calls[first:] for r in call.remarks]
    return CriterionResult(criterion, unmet, list(dict.fromkeys(remarks)), seconds=time.perf_counter() - start)


def judge_exercise(
    exercise: Exercise,
    student: Student,
    secret: str = "",
    judge: Callable[[Criterion, Student, str], CriterionResult] = judge_criterion,
) -> ExerciseResult:
    """Hold every criterion of an exercise against a student's function."""
    result = ExerciseResult(exercise, [judge(c, student, secret) for c in exercise.criteria])
    withhold_contract_points(result.criteria)
    return result


def withhold_contract_points(results: Iterable[CriterionResult]) -> None:
    """Criteria on how a function behaves earn nothing where it computes nothing right (changed in place)."""
    results = list(results)
    about_values = [r for r in results if not r.criterion.contract]
    if about_values and not any(r.passed for r in about_values):
        for r in results:
            if r.criterion.contract and r.passed:
                r.unmet = Unmet("This holds, but it earns nothing until something is computed right.", "withheld")
