"""Hold the visible criteria against a notebook file, in a fresh process with limits of time.

The process runs the notebook's setup cells and the cells that grading would run (`course_utils.notebook_code`), and no
experiment.  Where a cell or a criterion stalls or ends the process, another process goes on with the rest.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import course_utils
from course_utils.checking.exercise import Criterion, Exercise, exercises_of
from course_utils.checking.ready_made import refused
from course_utils.checking.repair import may_come_from_earlier, repair_first
from course_utils.checking.unmet import Unmet
from course_utils.checking.verdict import CriterionResult, ExerciseResult, withhold_contract_points
from course_utils.errors import InputError
from course_utils.handed_out import HandedOut, read_notebook, role_of, source_of
from course_utils.notebook_code import StudentCell, read_content, read_program

START = 180.0  # seconds until the process has imported its libraries
Event = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """Seconds that a cell and a criterion may take; grading has the same."""

    cell: float = 30.0
    criterion: float = 10.0


@dataclass
class Checked:
    """What a check of a notebook file found.

    Attributes
    ----------
    data : bytes
        The notebook file that was checked.
    cells : list of dict
        Its cells.
    results : list of ExerciseResult
        In the order of ``checks.py``.
    cell_errors : dict of str to str
        What each cell raised, by its name: that of the exercise it defines, or "cell 7".
    oddities : list of str
        What else to know of the notebook, a sentence each.
    """

    data: bytes
    cells: list[dict[str, Any]]
    results: list[ExerciseResult]
    cell_errors: dict[str, str] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(c.passed for r in self.results for c in r.criteria)


def check_notebook(
    assignment: HandedOut,
    names: Sequence[str] = (),
    limits: Limits | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Checked:
    """Hold the visible criteria against a notebook as it is on disk.

    Parameters
    ----------
    assignment : HandedOut
        Whose notebook, and whose ``checks.py``; its folder is where the cells run.
    names : sequence of str
        Exercises; all of them when there is none.
    limits : Limits, optional
        Of time.
    progress : callable
        Told what begins: the name of a cell or of an exercise.

    Raises
    ------
    InputError
        Where there is no such exercise, or the notebook cannot be read.
    """
    data, notebook_cells = read_notebook(assignment.notebook)
    known = exercises_of(assignment.checks())
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]}?" if close else f" There are: {', '.join(known)}."
            raise InputError(f"{assignment.name} has no exercise called {name}.{hint}")
    labelled = {role_of(c): source_of(c) for c in reversed(notebook_cells) if c.get("cell_type") == "code"}
    experiments = {name: source for (role, name), source in labelled.items() if role == "experiment"}
    submission = read_content(data, set(known), experiments)
    setup = [
        StudentCell(f"setup {name}", *_read(source))
        for (role, name), source in reversed(labelled.items())
        if role == "setup" and name not in ("check", "install")
    ]
    checked = Checked(data, notebook_cells, [], oddities=submission.oddities)
    cells = [*setup, *submission.cells]
    for cell in cells:
        if cell.error:
            checked.cell_errors[cell.name] = cell.error
    visible = {name: exercise.visible() for name, exercise in known.items()}
    asked = list(dict.fromkeys(names) or known)
    work = _Work(checked, [c for c in cells if not c.error], assignment.folder, visible, asked, limits, progress)
    work.finish()
    checked.results = [work.result(name) for name in asked]
    for result in checked.results:
        if may_come_from_earlier(result):
            result.advice = repair_first(result, [work.result(e) for e in work.builds_on.get(result.exercise.name, ())])
    return checked


def _read(source: str) -> tuple[str, Any, str]:
    (cell,) = read_program(source, ()).cells
    return cell.source, cell.tree, cell.error


class _Work:
    """What is left to do, and what came of the rest, over as many processes as it takes."""

    def __init__(
        self,
        checked: Checked,
        cells: Sequence[StudentCell],
        folder: Path,
        exercises: Mapping[str, Exercise],
        asked: Sequence[str],
        limits: Limits | None,
        progress: Callable[[str], None],
    ) -> None:
        self._checked = checked
        self._cells = dict(enumerate(cells))
        self._folder = folder
        self._exercises = exercises
        self._asked = asked
        self._limits = limits or Limits()
        self._progress = progress
        self._judged: dict[tuple[str, str], CriterionResult] = {}
        self._criteria = {(c.exercise, c.name): c for e in exercises.values() for c in e.criteria}
        self._refused: dict[str, list[str]] = {}
        self.builds_on: dict[str, list[str]] = {}

    def result(self, name: str) -> ExerciseResult:
        """What came of an exercise."""
        exercise = self._exercises[name]
        if name in self._refused:
            return refused(exercise, self._refused[name])
        results = [self._judged.get((name, c.name)) or _lost(c) for c in exercise.criteria]
        error = self._checked.cell_errors.get(name)
        for result in results:
            if error and result.unmet is not None and result.unmet.kind == "not defined":
                result.unmet.message = f"{name} is not defined, because its cell {error}."
        withhold_contract_points(results)
        return ExerciseResult(exercise, results)

    def finish(self) -> None:
        """Do all that is left, in a new process each time that one stalls or ends."""
        while self._left():
            with _Process(self._job()) as process:
                event = process.next(START)
                if event is None or event["event"] != "ready":
                    why = process.complaint()
                    raise InputError(f"The process that runs the cells did not start ({why}); run `course doctor`.")
                current: Event = event
                while True:
                    limit = self._limits.criterion if current["event"] == "criterion" else self._limits.cell
                    event = process.next(limit)
                    if event is None:
                        break
                    self._take(event)
                    current = event
                    if event["event"] == "idle":
                        if not self._left():
                            return
                        process.ask(self._left())
                self._give_up(current, f"ran longer than {limit:g} s" if process.stalled else "ended the process")

    def _left(self) -> list[tuple[str, list[str]]]:
        """The criteria still to judge, by exercise; last those of exercises that the wrong ones build on."""
        left = [(name, self._unjudged(name)) for name in self._asked]
        wrong = [name for name in self._asked if not self._unjudged(name) and may_come_from_earlier(self.result(name))]
        for name in dict.fromkeys(e for w in wrong for e in self.builds_on.get(w, ()) if e not in self._asked):
            if not any(exercise == name and result.unmet for (exercise, _), result in self._judged.items()):
                left.append((name, self._unjudged(name)))
        return [(name, criteria) for name, criteria in left if criteria]

    def _unjudged(self, name: str) -> list[str]:
        if name in self._refused:
            return []
        return [c.name for c in self._exercises[name].criteria if (name, c.name) not in self._judged]

    def _job(self) -> Event:
        cells = [{"number": k, "name": c.name, "source": c.source} for k, c in self._cells.items()]
        return {"folder": str(self._folder), "cells": cells}

    def _take(self, event: Event) -> None:
        kind = event["event"]
        if kind in ("cell", "exercise"):
            self._progress(event["name"])
            if kind == "exercise":
                self.builds_on[event["name"]] = event["builds_on"]
        elif kind == "ran" and event["error"] is not None:
            self._checked.cell_errors.setdefault(event["name"], _raised(event["error"]))
        elif kind == "refused":
            self._refused[event["exercise"]] = event["found"]
        elif kind == "judged":
            key = event["exercise"], event["name"]
            unmet = Unmet(**event["unmet"]) if event["unmet"] else None
            remarks, seconds = event.get("remarks", []), event.get("seconds", 0.0)
            self._judged[key] = CriterionResult(self._criteria[key], unmet, remarks, seconds=seconds)

    def _give_up(self, current: Event, what: str) -> None:
        """Leave out what was running when the process stalled or ended."""
        if current["event"] == "criterion":
            key = current["exercise"], current["name"]
            kind = "time" if "longer" in what else "crash"
            self._judged[key] = CriterionResult(self._criteria[key], Unmet(f"{key[0]} {what}.", kind))
        elif current["event"] == "cell":
            self._checked.cell_errors[current["name"]] = what
            del self._cells[current["number"]]
        else:  # between two of them; one criterion must go, or this would not end
            name, criteria = self._left()[0]
            key = name, criteria[0]
            self._judged[key] = CriterionResult(self._criteria[key], Unmet("The process ended before this.", "crash"))


def _lost(criterion: Criterion) -> CriterionResult:
    return CriterionResult(criterion, Unmet("This was not judged.", "fault"))


def _raised(error: Mapping[str, Any]) -> str:
    """The end of a sentence: what a cell raised, and where."""
    where = f" in line {error['line']}" if error["line"] else ""
    code = f" (`{error['code']}`)" if error["code"] else ""
    return f"raised {error['type']}{where}{code}: {error['text']}".rstrip(": ")


class _Process:
    """One process, and the events that it says."""

    def __init__(self, job: Event) -> None:
        self.stalled = False
        self._events: queue.Queue[Event | None] = queue.Queue()
        packages = str(Path(course_utils.__file__).resolve().parents[1])
        path = os.pathsep.join([packages, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            # -P: what lies in the working folder must not take the place of a library while the process starts
            [sys.executable, "-P", "-X", "utf8", "-m", "course_utils.checking.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # no GPU, as under grading: what asks for one without looking whether there is one fails here too
            env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg", "CUDA_VISIBLE_DEVICES": ""},
            text=True,
            encoding="utf-8",
        )
        self.ask(job)
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # what it did not read any more
                    stream.close()

    def ask(self, what: object) -> None:
        """Send it the job, or the criteria to judge next."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it ended already; `next` finds that out
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):  # closed meanwhile
            for line in self._process.stdout:
                self._events.put(json.loads(line))
        self._events.put(None)

    def next(self, seconds: float) -> Event | None:
        """The next event; None where the process ended, or said nothing for that long and so is `stalled`."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            self.stalled = True
            return None

    def complaint(self) -> str:
        """The last line that it wrote on stderr before it took its own."""
        self._process.kill()
        assert self._process.stderr is not None
        return (self._process.stderr.read().strip().splitlines() or ["it said nothing"])[-1]
