"""The criteria of an assignment against its reference and its variants, judged in this process, without a jail."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from autograder.assignment import load_assignment
from course_utils.checking import Alternative, ExerciseResult, LocalStudent, Mistake, judge_exercise, opaque_results


class Criteria:
    """What an assignment asks, with all that its tests hold against it.

    Parameters
    ----------
    name : str
        Of the assignment.

    Attributes
    ----------
    source : Path
        The notebook's.
    exercises : dict of str to Exercise
        With their visible and hidden criteria.
    mistakes : tuple of Mistake
    alternatives : tuple of Alternative
    """

    def __init__(self, name: str) -> None:
        self._assignment = load_assignment(name)
        self.source = self._assignment.source
        self.exercises = self._assignment.exercises
        self.mistakes = self._assignment.mistakes
        self.alternatives = self._assignment.alternatives
        self._opaque = opaque_results(self.exercises.values())

    def reference(self) -> dict[str, Any]:
        """The reference solution: setup and exercise cells of the notebook, and nothing of its experiments."""
        return self._assignment.reference()

    def judged(self, exercise: str, namespace: Mapping[str, Any], secret: str) -> ExerciseResult:
        """What an exercise earns with the functions of `namespace`."""
        return judge_exercise(self.exercises[exercise], LocalStudent(dict(namespace), self._opaque), secret)


def unmet(result: ExerciseResult) -> dict[str, str]:
    """The criteria that are not met, with their messages."""
    return {c.criterion.name: c.message for c in result.criteria if not c.passed}


def with_variant(reference: Mapping[str, Any], variant: Mistake | Alternative) -> dict[str, Any]:
    """The reference with a variant in the place of its exercise; a class to be called is made an object."""
    solution = variant.solution
    if inspect.isclass(solution) and "__call__" in vars(solution):
        solution = solution()
    return {**reference, variant.exercise: solution}
