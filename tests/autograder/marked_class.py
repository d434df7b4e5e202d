"""A class whose results are written down, as a grading run would have found them, without a jail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from autograder.assignment import Assignment
from autograder.course import Course
from autograder.gradebook import open_gradebook
from autograder.record import Recorder
from autograder.result import KeptExercise
from autograder.result_files import ResultFiles, StoredResult


def result_of(
    assignment: Assignment,
    failed: Iterable[str] = (),
    diagnosis: Mapping[str, list[str]] | None = None,
    oddities: Iterable[str] = (),
) -> dict[str, Any]:
    """The result of a submission that fails these criteria, as plain data."""
    failed = set(failed)
    exercises = {}
    for name, exercise in assignment.exercises.items():
        criteria = [
            {
                "name": c.name,
                "visible": c.visible,
                "passed": c.name not in failed,
                "points": c.points,
                "message": "Something else came out." if c.name in failed else "",
            }
            for c in exercise.criteria
        ]
        exercises[name] = {
            "score": sum(c["points"] for c in criteria if c["passed"]),
            "max_score": exercise.max_score,
            "carried_forward": False,
            "criteria": criteria,
            "diagnosis": (diagnosis or {}).get(name, []),
        }
    bonus = {n for n, e in assignment.exercises.items() if e.bonus}
    return {
        "assignment": assignment.name,
        "score": sum(e["score"] for n, e in exercises.items() if n not in bonus),
        "max_score": assignment.max_score,
        "bonus": sum(e["score"] for n, e in exercises.items() if n in bonus),
        "isolation": "none",
        "exercises": exercises,
        "oddities": list(oddities),
    }


def write_result(
    course: Course,
    assignment: Assignment,
    student: str,
    result: dict[str, Any],
    *,
    written: bool = True,
    timestamp: str | None = None,
    seconds: float = 1.0,
) -> None:
    """Put a result where a grading run puts it: the student's file and the gradebook."""
    answers = dict.fromkeys(assignment.written, written)
    kept = {n: KeptExercise(e, assignment.exercises[n].bonus) for n, e in result["exercises"].items()}
    stored = StoredResult(result, kept, "", {}, {}, "", written=answers, exercise_seconds=dict.fromkeys(kept, seconds))
    files = ResultFiles(course.folder, assignment.name)
    files.folder.mkdir(parents=True, exist_ok=True)
    files.write(student, stored)
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        recorder = Recorder(gradebook, assignment.name)
        recorder.add(student, result, answers, timestamp)
        recorder.flush()
