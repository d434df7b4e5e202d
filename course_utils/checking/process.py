"""The process in which `course check` runs a student's cells and criteria: ``python -m course_utils.checking.process``.

It reads from stdin the cells to run, then lists of criteria, and says on stdout what it begins and what came of it, a
line of JSON each, so that whoever started it knows what was running where it stalls or ends.  It says "idle" where it
waits for a list.  What the student's code prints goes nowhere, and there is nothing for it to read.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from course_utils.checking.callees import built_on
from course_utils.checking.exercise import Exercise, exercises_of, opaque_results
from course_utils.checking.ready_made import ready_made_calls
from course_utils.checking.student import LocalStudent, is_student_frame
from course_utils.checking.unmet import CriterionFault
from course_utils.checking.verdict import judge_criterion

Say = Callable[[dict[str, Any]], None]


def main() -> None:
    """Do the job that comes on stdin."""
    asked, say = _own_channels()
    job = json.loads(asked.readline())
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    sys.dont_write_bytecode = True
    import checks  # the assignment's, from the folder above

    shell = _shell()
    shell.user_ns["check"] = lambda *names: None  # a cell may hold its own check; here it would only take time
    say({"event": "ready"})
    for cell in job["cells"]:
        say({"event": "cell", **cell})
        say({"event": "ran", **cell, "error": _run_cell(shell, cell["source"])})
    known = exercises_of(checks)
    student = LocalStudent(shell.user_ns, opaque_results(known.values()))
    say({"event": "idle"})
    for line in asked:
        for name, wanted in json.loads(line):
            say({"event": "exercise", "name": name, "builds_on": built_on(name, shell.user_ns, known)})
            _hold(known[name].visible(), set(wanted), shell.user_ns, student, list(known), say)
        say({"event": "idle"})


def _own_channels() -> tuple[TextIO, Say]:
    """Keep stdin and stdout for the protocol; what else prints or reads there, C libraries included, has nothing."""
    asked = os.fdopen(os.dup(0), encoding="utf-8")
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def say(event: dict[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    return asked, say


def _shell() -> Any:
    """An IPython shell without history: cells run as in a notebook."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    for show in ("showtraceback", "showsyntaxerror"):  # the error is reported, not printed
        setattr(shell, show, lambda *args, **kwargs: None)
    sys.modules["__main__"] = shell.user_module
    return shell


def _run_cell(shell: Any, source: str) -> dict[str, Any] | None:
    """Run a cell; what it raised, in which of its lines, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = shell.run_cell(source, store_history=False)
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return None
    number, line = 0, ""
    if isinstance(error, SyntaxError):
        number, line = error.lineno or 0, error.text or ""
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if is_student_frame(frame.filename) or "ipython-input" in frame.filename:
                number, line = frame.lineno or 0, frame.line or ""
    return {"type": type(error).__name__, "text": str(error)[:500], "line": number, "code": line.strip()[:200]}


def _hold(
    exercise: Exercise, wanted: set[str], namespace: dict[str, Any], student: LocalStudent, known: list[str], say: Say
) -> None:
    """Hold the wanted criteria of an exercise against the student's functions."""
    found = ready_made_calls(exercise.name, namespace, exercise.forbidden, known)
    if found:
        say({"event": "refused", "exercise": exercise.name, "found": found})
        return
    for criterion in exercise.criteria:
        if criterion.name not in wanted:
            continue
        say({"event": "criterion", "exercise": exercise.name, "name": criterion.name})
        outcome: dict[str, Any] = {"event": "judged", "exercise": exercise.name, "name": criterion.name}
        try:
            result = judge_criterion(criterion, student)
        except CriterionFault as fault:
            outcome |= {"unmet": {"message": f"This could not be judged: {fault}", "kind": "fault", "causes": []}}
        else:
            why = result.unmet
            unmet = why and {"message": why.message, "kind": why.kind, "causes": why.causes}
            outcome |= {"unmet": unmet, "remarks": result.remarks, "seconds": result.seconds}
        say(outcome)


if __name__ == "__main__":
    main()
