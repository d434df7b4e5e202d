"""The results of an assignment in the course folder: one file a student, from which a run that was stopped goes on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.atomic_write import atomic_write
from autograder.result import KeptExercise, Leaning

RESULTS = "results"  # folder of the course
FORMAT = 2


@dataclass(frozen=True)
class StoredResult:
    """What is kept of a judged submission.

    Attributes
    ----------
    result : dict
        The result as plain data (`autograder.result`).
    exercises : dict of str to KeptExercise
        Each exercise's part of it.
    base : str
        Fingerprint of the submission and of what all exercises depend on.
    exercise_prints, reference_prints : dict of str to str
        Fingerprints of the exercises (`autograder.fingerprint`), and of the references that stood in for one.
    released : str
        Fingerprint of the notebook as it was handed out.
    cell_oddities : list of str
        What was odd when the submission's cells ran.
    written : dict of str to bool
        For each question answered in words whether there is an answer.
    new_work : bool
        Whether the submission was another one than the one judged before.
    seconds : float
        Wall time of judging.
    exercise_seconds : dict of str to float
        Wall time of each exercise's criteria, when they were last judged.
    """

    result: dict[str, Any]
    exercises: dict[str, KeptExercise]
    base: str
    exercise_prints: dict[str, str]
    reference_prints: dict[str, str]
    released: str
    cell_oddities: list[str] = field(default_factory=list)
    written: dict[str, bool] = field(default_factory=dict)
    new_work: bool = True
    seconds: float = 0.0
    exercise_seconds: dict[str, float] = field(default_factory=dict)


class ResultFiles(Mapping[str, dict[str, Any]]):
    """The results by student, sorted; each is read from its file when it is asked for.

    Parameters
    ----------
    course : Path
        nbgrader's course folder.
    assignment : str
        Name of the assignment.
    """

    def __init__(self, course: Path, assignment: str) -> None:
        self.folder = course / RESULTS / assignment
        self._students: dict[str, None] = {}

    def __getitem__(self, student: str) -> dict[str, Any]:
        stored = self.read(student) if student in self._students else None
        if stored is None:
            raise KeyError(student)
        return stored.result

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._students))

    def __len__(self) -> int:
        return len(self._students)

    def show(self, student: str) -> None:
        """Count a student among those whose results are shown."""
        self._students[student] = None

    def path(self, student: str) -> Path:
        """The student's file."""
        return self.folder / f"{student}.json"

    def read(self, student: str) -> StoredResult | None:
        """What is kept of a student's submission; None where there is nothing, or nothing that can be read."""
        try:
            stored = json.loads(self.path(student).read_text(encoding="utf-8"))
            if stored.pop("format") != FORMAT:
                return None
            exercises = {
                name: KeptExercise(stored["result"]["exercises"][name], leaning=Leaning(*map(tuple, leaning)), **state)
                for name, (leaning, state) in stored.pop("exercises").items()
            }
            return StoredResult(exercises=exercises, **stored)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, student: str, stored: StoredResult) -> None:
        """Keep a result, in one step."""
        states = {name: ((e.leaning.stand_ins, e.leaning.lent), _state(e)) for name, e in stored.exercises.items()}
        plain = {f.name: getattr(stored, f.name) for f in dataclasses.fields(stored)} | {"exercises": states}
        text = json.dumps({"format": FORMAT, **plain}, indent=1, ensure_ascii=False)
        atomic_write(self.path(student), text)
        self.show(student)

    def clean(self) -> None:
        """Remove what a killed run left half written."""
        for path in self.folder.glob(".*.json.*"):
            path.unlink(missing_ok=True)


def _state(exercise: KeptExercise) -> dict[str, Any]:
    return {
        "bonus": exercise.bonus,
        "failing": exercise.failing,
        "unusable": exercise.unusable,
        "oddities": exercise.oddities,
    }
