"""What judging a submission found, and its form as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from course_utils.checking import ExerciseResult


@dataclass
class JudgedExercise:
    """One exercise of one submission.

    Attributes
    ----------
    result : ExerciseResult
        Its criteria and what each found.
    carried_forward : list of str
        The earlier exercises that were replaced by the reference for some of the points; empty as a rule.
    diagnosis : list of str
        The likeliest causes of what went wrong, known mistakes first.
    """

    result: ExerciseResult
    carried_forward: list[str] = field(default_factory=list)
    diagnosis: list[str] = field(default_factory=list)


@dataclass
class JudgedSubmission:
    """One submission.

    Attributes
    ----------
    assignment : str
        Name of the assignment.
    isolation : str
        The level of isolation under which the student's code ran.
    exercises : dict
        JudgedExercise by name, in the notebook's order.
    oddities : list of str
        Whatever a person should know, a sentence each.
    seconds : float
        Wall time of judging.
    """

    assignment: str
    isolation: str
    exercises: dict[str, JudgedExercise] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def _sum(self, what: str, bonus: bool) -> float:
        return sum(getattr(e.result, what) for e in self.exercises.values() if e.result.exercise.bonus == bonus)

    @property
    def score(self) -> float:
        """Points earned, without bonus."""
        return self._sum("score", bonus=False)

    @property
    def max_score(self) -> float:
        """Points that could be earned, without bonus."""
        return self._sum("max_score", bonus=False)

    @property
    def bonus(self) -> float:
        """Bonus points earned."""
        return self._sum("score", bonus=True)

    def to_json(self) -> dict[str, Any]:
        """Plain data: the form in which results are printed, stored and sent."""
        return {
            "assignment": self.assignment,
            "score": self.score,
            "max_score": self.max_score,
            "bonus": self.bonus,
            "isolation": self.isolation,
            "exercises": {name: _exercise(e) for name, e in self.exercises.items()},
            "oddities": self.oddities,
        }


def _exercise(judged: JudgedExercise) -> dict[str, Any]:
    result = judged.result
    return {
        "score": result.score,
        "max_score": result.max_score,
        "carried_forward": bool(judged.carried_forward),
        "criteria": [
            {
                "name": c.criterion.name,
                "visible": c.criterion.visible,
                "passed": c.passed,
                "points": c.criterion.points,
                "message": c.message or c.note,
            }
            for c in result.criteria
        ],
        "diagnosis": judged.diagnosis,
    }
