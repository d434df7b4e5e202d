"""What judging a submission found, and its form as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from course_utils.checking import ExerciseResult


@dataclass(frozen=True)
class Leaning:
    """On which replaced exercises a result leans.

    Attributes
    ----------
    stand_ins : tuple of str
        The failed earlier exercises that the code calls, for which the reference may stand in.
    lent : tuple of str
        Those among them that may lend nothing of their own.
    """

    stand_ins: tuple[str, ...] = ()
    lent: tuple[str, ...] = ()


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
    leaning : Leaning
        On which replaced exercises the result leans.
    oddities : list of str
        What a person should know of this exercise, a sentence each.
    """

    result: ExerciseResult
    carried_forward: list[str] = field(default_factory=list)
    diagnosis: list[str] = field(default_factory=list)
    leaning: Leaning = field(default_factory=Leaning)
    oddities: list[str] = field(default_factory=list)

    @property
    def failing(self) -> bool:
        """Whether the reference may stand in for it."""
        return any(c.unmet for c in self.result.criteria)

    @property
    def unusable(self) -> bool:
        """Whether no other exercise may use it as it is."""
        return any(c.unmet and c.unmet.kind in ("forbidden", "time", "crash") for c in self.result.criteria)

    def keep(self) -> KeptExercise:
        """The same as plain data."""
        return KeptExercise(
            _exercise(self), self.result.exercise.bonus, self.failing, self.unusable, self.leaning, self.oddities
        )


@dataclass(frozen=True)
class KeptExercise:
    """A judged exercise as plain data: what is kept where only the criteria of others have changed.

    Attributes
    ----------
    result : dict
        Its part of the submission's result.
    bonus, failing, unusable, leaning, oddities
        As of the exercise and of `JudgedExercise`.
    """

    result: dict[str, Any]
    bonus: bool = False
    failing: bool = False
    unusable: bool = False
    leaning: Leaning = field(default_factory=Leaning)
    oddities: list[str] = field(default_factory=list)


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
    kept : dict
        KeptExercise by name, of the exercises that were not judged again.
    order : list of str
        The names of both, in the notebook's order.
    reading_oddities, cell_oddities : list of str
        What was odd when the notebook was read and when its cells were run, a sentence each.
    ran : bool
        Whether its cells were run.
    seconds : float
        Wall time of judging.
    """

    assignment: str
    isolation: str
    exercises: dict[str, JudgedExercise] = field(default_factory=dict)
    kept: dict[str, KeptExercise] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    reading_oddities: list[str] = field(default_factory=list)
    cell_oddities: list[str] = field(default_factory=list)
    ran: bool = False
    seconds: float = 0.0

    @property
    def oddities(self) -> list[str]:
        """Whatever a person should know, a sentence each."""
        of_exercises = [o for e in self.plain().values() for o in e.oddities]
        return [*self.reading_oddities, *of_exercises, *self.cell_oddities]

    def plain(self) -> dict[str, KeptExercise]:
        """All exercises as plain data."""
        return {n: self.kept[n] if n in self.kept else self.exercises[n].keep() for n in self.order}

    def _sum(self, what: str, bonus: bool) -> float:
        return sum(e.result[what] for e in self.plain().values() if e.bonus == bonus)

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
            "exercises": {name: e.result for name, e in self.plain().items()},
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
