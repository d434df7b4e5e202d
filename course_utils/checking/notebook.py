"""`check("softmax")`: hold the visible criteria against the functions of the running notebook."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from course_utils.checking.callees import built_on
from course_utils.checking.display import CheckReport
from course_utils.checking.exercise import Exercise, exercises_of, opaque_results
from course_utils.checking.ready_made import ready_made_calls, refused
from course_utils.checking.repair import may_come_from_earlier, repair_first
from course_utils.checking.student import LocalStudent
from course_utils.checking.verdict import ExerciseResult, judge_exercise


def checker(checks: ModuleType, namespace: dict[str, Any] | None = None) -> Callable[..., Any]:
    """Make the function `check` of a notebook.

    Parameters
    ----------
    checks : module
        The assignment's `checks.py`.
    namespace : dict, optional
        Where the student's functions are; the caller's globals when not given.

    Returns
    -------
    callable
        `check("softmax")` judges one exercise, `check()` all of them.  What it returns shows itself as a table.
        When nbgrader runs the notebook it behaves as nbgrader expects of a test cell: under `nbgrader validate`
        it raises AssertionError for an unmet criterion, under `nbgrader autograde` it returns the points.
    """
    known = exercises_of(checks)

    def check(*names: str) -> Any:
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(known)}."
                raise ValueError(f"There is no exercise called {name!r}.{hint}")
        functions = namespace if namespace is not None else sys._getframe(1).f_globals
        student = LocalStudent(functions, opaque_results(known.values()))
        judged: dict[str, ExerciseResult] = {}

        def result_of(name: str) -> ExerciseResult:
            if name not in judged:
                judged[name] = _judge(known[name].visible(), functions, student, known)
            return judged[name]

        report = CheckReport([result_of(name) for name in names or known])
        for result in report.results:
            if may_come_from_earlier(result):
                earlier = built_on(result.exercise.name, functions, known)
                result.advice = repair_first(result, [result_of(e) for e in earlier]) or result.advice
        execution = os.environ.get("NBGRADER_EXECUTION")
        if execution == "validate" and not report.passed:
            raise AssertionError(str(report))
        if execution == "autograde":
            from IPython.display import display

            display(report)
            return report.score
        return report

    return check


def _judge(
    exercise: Exercise, functions: Mapping[str, Any], student: LocalStudent, known: Iterable[str]
) -> ExerciseResult:
    found = ready_made_calls(exercise.name, functions, exercise.forbidden, known)
    if found:
        return refused(exercise, found)
    before = len(student.calls)
    result = judge_exercise(exercise, student)
    device = next((call.device for call in student.calls[before:] if call.device), "")
    if device:
        result.advice = (
            f"{exercise.name} returned a tensor on {device} for tensors on the CPU. Grading has no GPU, and what asks "
            "for one raises an exception there; `course check` shows it. Give new tensors the device of an argument "
            "(`device=X.device`)."
        )
    return result
