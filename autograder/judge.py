"""Judge a submission: hold the criteria, visible and hidden, against the student's jailed functions.

Three things happen to an exercise.  Its source is read for what it may not call.  Its criteria are judged with the
student's own functions.  Where it fails and leans on an earlier exercise that fails too, the failed criteria are
judged again with the reference in place of the earlier one (its points are carried forward): the reference runs
here, the student's code only sees a function that answers.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch

from autograder.assignment import Assignment
from autograder.bounded import Overrun, bounded_memory, processor_time
from autograder.errors import CourseError
from autograder.jail import Zygote
from autograder.left_out import leave_out_hidden
from autograder.named_diagnosis import name_mistakes
from autograder.result import JudgedExercise, JudgedSubmission, KeptExercise, Leaning
from autograder.rules import Reading, read
from autograder.runner.freed_memory import keep_freed_memory
from autograder.runner.serve import seed_everything
from autograder.session import JailedStudent, Session, TimeLimits
from autograder.stateless import keeping_nothing
from autograder.submission import StudentCell, Submission
from autograder.submitted_source import Source
from autograder.together import Together
from course_utils.checking import (
    CriterionFault,
    CriterionResult,
    Exercise,
    ExerciseResult,
    LocalStudent,
    Mistake,
    Unmet,
    opaque_results,
)
from course_utils.checking.ready_made import refused
from course_utils.checking.student import Call, not_defined
from course_utils.checking.verdict import judge_criterion, withhold_contract_points

log = logging.getLogger(__name__)

MAX_CRITERION_SECONDS = 20.0  # of our own processor time, for what a criterion computes from a student's results
MAX_CRITERION_MEMORY = 2 << 30  # bytes, for the same
MAX_READING_SECONDS = 30.0  # for reading what a submission's code calls
MAX_STALLS = 3  # of one exercise: what stalls on everything must not use up the others' time
NONE_KEPT: Mapping[str, KeptExercise] = MappingProxyType({})
NO_CHECKS = "check = lambda *names: None  # grading asks the criteria itself"


@dataclass
class _Attempt:
    """An exercise judged once, with the calls that each criterion made."""

    results: list[CriterionResult]
    calls: dict[str, list[Call]] = field(default_factory=dict)


class Judge:
    """Judges submissions of one assignment.

    Parameters
    ----------
    assignment : Assignment
        Its criteria, reference and mistakes.
    zygote : Zygote
        Where the students' code runs.
    secret : str
        Makes the criteria's inputs unforeseeable.
    limits : TimeLimits
        How long things may take.
    """

    def __init__(
        self, assignment: Assignment, zygote: Zygote, secret: str = "", limits: TimeLimits | None = None
    ) -> None:
        self.assignment = assignment
        keep_freed_memory()  # the criteria need tensors of the same sizes for every submission
        self._zygote = zygote
        self._secret = secret
        self._limits = limits or TimeLimits()
        self._reference: dict[str, Any] = assignment.reference()
        self._opaque = opaque_results(assignment.exercises.values())
        self._together = Together(self._opaque, MAX_CRITERION_SECONDS, MAX_CRITERION_MEMORY)
        self._uses: dict[tuple[str, tuple[str, ...]], bool] = {}

    def judge(
        self,
        submission: Submission,
        reference_first: bool = False,
        affected_only: bool = False,
        *,
        secret: str | None = None,
        kept: Mapping[str, KeptExercise] = NONE_KEPT,
    ) -> JudgedSubmission:
        """Judge one submission.

        Parameters
        ----------
        submission : Submission
            What the student handed in.
        reference_first : bool
            Run the reference's cells before the submission's, so that only what it defines is replaced.
        affected_only : bool
            Leave out the exercises that are the reference's and call nothing of the submission's.
        secret : str, optional
            The submission's own, in place of the judge's.
        kept : mapping
            Exercises judged before under the same criteria, by name.  They are judged again only where another
            earlier exercise than then has to be replaced by the reference.
        """
        self._zygote.wait()  # loading the libraries is not the student's time
        start = time.perf_counter()
        assignment = self.assignment
        # The same submission under the same secret always meets the same inputs, and no one can foresee them.
        text = f"{self._secret if secret is None else secret}\n{submission.code()}"
        secret = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        judged = JudgedSubmission(
            assignment.name, "bubblewrap and namespaces" if self._zygote.isolation == "bubblewrap" else "none"
        )
        submission, readings = self._read(submission, reference_first)
        judged.reading_oddities = list(submission.oddities)
        session = Session(self._zygote, self._cells(submission, reference_first), self._limits, int(secret[:12], 16))
        # What calls the forbidden must not lend its results to any other exercise, whichever comes first.
        unusable = {name for name, reading in readings.items() if reading.violations}
        failing = set(unusable)
        judged.order = [
            name
            for name in assignment.exercises
            if not affected_only or ({name} | readings[name].exercises) & submission.defined
        ]
        # What is made at run time, past the reading of the source, does not count as defined.
        there = set(judged.order) if reference_first else submission.defined
        try:
            met = self._met(session, [n for n in judged.order if n in there and n not in kept], readings, secret)
            for name in judged.order:
                exercise, reading = assignment.exercises[name], readings[name]
                leaning = self._leaning(exercise, reading, failing, unusable)
                if name in kept and kept[name].leaning == leaning:
                    judged.kept[name] = kept[name]
                    failing |= {name} if kept[name].failing else set()
                    unusable |= {name} if kept[name].unusable else set()
                    continue
                if name not in there:
                    results = [CriterionResult(c, not_defined(name)) for c in exercise.criteria]
                    one = JudgedExercise(ExerciseResult(exercise, results))
                else:
                    one = self._judge_exercise(session, exercise, reading, leaning, secret, met.get(name, []))
                judged.exercises[name] = one
                one.leaning = leaning
                faults = [c.criterion.name for c in one.result.criteria if c.unmet and c.unmet.kind == "fault"]
                if faults:
                    one.oddities.append(f"{name}: {', '.join(faults)} could not be judged; a teacher has to look.")
                if reading.violations:
                    one.oddities.append(f"{name} uses {', '.join(reading.violations[:3])}, which it may not.")
                failing |= {name} if one.failing else set()
                unusable |= {name} if one.unusable else set()
        finally:
            session.close()
        judged.cell_oddities = session.oddities
        judged.ran = session.ran
        judged.seconds = time.perf_counter() - start
        return judged

    def _cells(self, submission: Submission, reference_first: bool) -> list[StudentCell]:
        cells = [c for c in self.assignment.reference_cells() if c.role == "setup" or reference_first]
        ours = [StudentCell(f"the {c.role} {c.name}", c.program, None) for c in cells]
        return [*ours, StudentCell("the setup", NO_CHECKS, None), *submission.cells]

    def _read(self, submission: Submission, reference_first: bool) -> tuple[Submission, dict[str, Reading]]:
        """What may be run of a submission, and what is read in it."""
        exercises = self.assignment.exercises
        own = {name for name in exercises if name in submission.defined}
        try:
            with processor_time(MAX_READING_SECONDS):
                cells = self.assignment.reference_cells()
                setup = [ast.parse(c.program) for c in cells if c.role == "setup"]
                before = [ast.parse(c.program) for c in cells if c.role == "exercise"] if reference_first else []
                if not any(exercises[name].forbidden for name in own):
                    return submission, self._readings(Source([*before, *submission.trees()], setup), own)
                kept = leave_out_hidden(submission.cells, setup, exercises)
                submission = replace(submission, cells=kept.cells, oddities=[*submission.oddities, *kept.told])
                source = Source([*before, *submission.trees()], setup) if before else kept.source
                readings = self._readings(source, own)
                for name, why in kept.refused.items():
                    readings[name].violations.append(why)
                return submission, readings
        except (Overrun, RecursionError, MemoryError):
            text = "code that takes too long to read"
            unread = {name: Reading([text] if name in own and e.forbidden else []) for name, e in exercises.items()}
            return submission, unread

    def _readings(self, source: Source, own: set[str]) -> dict[str, Reading]:
        names = list(self.assignment.exercises)
        plain = keeping_nothing(source, names)
        readings = {}
        for name, exercise in self.assignment.exercises.items():
            readings[name] = reading = read(source, name, exercise.forbidden if name in own else (), names)
            reading.keeps_nothing = name in plain
            for earlier in exercise.leans_on:
                reading.exercises |= {earlier} | readings[earlier].exercises - {name}
        for k, name in enumerate(names):  # what an exercise may not use, another one must not use for it
            reading, forbidden = readings[name], self.assignment.exercises[name].forbidden
            for other in sorted(reading.exercises & own) if forbidden and name in own else ():
                used = readings[other].violations or read(source, other, forbidden, names).violations
                if used and names.index(other) > k:
                    reading.violations.append(f"{other}, which uses {used[0]}")
                elif used and not self._may_use(other, forbidden):
                    reading.replaced.add(other)
        return readings

    def _leaning(self, exercise: Exercise, reading: Reading, failing: set[str], unusable: set[str]) -> Leaning:
        """The earlier exercises that the reference may stand in for, and those that it must."""
        stand_ins = [e for e in self._earlier(exercise) if e in reading.exercises & (failing | reading.replaced)]
        # An earlier exercise that calls the forbidden must not lend its results, and one that stalls no time.
        return Leaning(tuple(stand_ins), tuple(e for e in stand_ins if e in unusable | reading.replaced))

    def _earlier(self, exercise: Exercise) -> list[str]:
        """The exercises before one; the reference of a later one may be its solution."""
        names = list(self.assignment.exercises)
        return names[: names.index(exercise.name)]

    def _may_use(self, name: str, forbidden: Sequence[str]) -> bool:
        """Whether the reference of an exercise uses what another exercise may not use."""
        if (name, tuple(forbidden)) not in self._uses:
            cells = [ast.parse(c.program) for c in self.assignment.reference_cells()]
            found = read(Source(cells), name, forbidden, list(self.assignment.exercises)).violations
            self._uses[name, tuple(forbidden)] = bool(found)
        return self._uses[name, tuple(forbidden)]

    def _met(
        self, session: Session, names: Sequence[str], readings: Mapping[str, Reading], secret: str
    ) -> dict[str, list[CriterionResult]]:
        """The results of those exercises that can be asked together and of which every criterion is met."""
        _seed(secret)
        plain = [n for n in names if readings[n].keeps_nothing and not readings[n].violations]
        return self._together.met([self.assignment.exercises[n] for n in plain], session, secret)

    def _judge_exercise(
        self,
        session: Session,
        exercise: Exercise,
        reading: Reading,
        leaning: Leaning,
        secret: str,
        met: list[CriterionResult],
    ) -> JudgedExercise:
        if reading.violations:
            not_judged = refused(exercise, reading.violations)
            return JudgedExercise(not_judged, [], [c.message for c in not_judged.criteria[:1]])
        stand_ins = {e: self._reference[e] for e in leaning.stand_ins}
        lent = {e: self._reference[e] for e in leaning.lent}
        if met and not lent:
            attempt = _Attempt(met)
        else:
            attempt = self._attempt(session, exercise, secret, lent, alone=not reading.keeps_nothing)
        for result in attempt.results:
            if result.passed and lent:
                result.note = _carried_note(lent)
        carried = set(lent)
        # What an earlier exercise made may only be of use to its like: a cache, to the backward pass that belongs to
        # it.  So where the failed ones alone do not fit, all earlier ones that are leaned on are replaced.
        all_of_them = {e: self._reference[e] for e in self._earlier(exercise) if e in reading.exercises}
        tried = lent
        for replaced in (stand_ins, all_of_them):
            failed = [r for r in attempt.results if not r.passed]
            if not stand_ins or len(replaced) == len(tried) or not _attempted(failed):
                continue
            tried = replaced
            again = self._attempt(session, exercise, secret, replaced)
            for k, (old, new) in enumerate(zip(attempt.results, again.results, strict=True)):
                if not old.passed and new.passed:
                    new.note = _carried_note(stand_ins)
                    attempt.results[k] = new
                    carried = set(stand_ins)
        withhold_contract_points(attempt.results)
        judged = ExerciseResult(exercise, attempt.results)
        if judged.score == 0:
            carried = set()
        return JudgedExercise(judged, sorted(carried), self._diagnose(exercise, attempt, secret))

    def _attempt(
        self,
        session: Session,
        exercise: Exercise,
        secret: str,
        replaced: dict[str, Callable[..., Any]],
        alone: bool = True,
    ) -> _Attempt:
        _seed(secret)
        student = JailedStudent(session, replaced, self._opaque, alone=alone)
        attempt = _Attempt([])
        stalls = 0
        try:
            for criterion in exercise.criteria:
                if stalls == MAX_STALLS:
                    text = f"Not judged: {exercise.name} did not finish {MAX_STALLS} times before."
                    attempt.results.append(CriterionResult(criterion, Unmet(text, "time")))
                    attempt.calls[criterion.name] = []
                    continue
                first = len(student.calls)
                try:
                    with processor_time(MAX_CRITERION_SECONDS), bounded_memory(MAX_CRITERION_MEMORY):
                        result = judge_criterion(criterion, student, secret)
                except CriterionFault as fault:  # ours, but it must not cost the others of a class their marks
                    if isinstance(fault.__cause__, CourseError):
                        raise fault.__cause__ from None
                    log.error("%s.%s is at fault: %s", exercise.name, criterion.name, fault)
                    result = CriterionResult(criterion, Unmet("This criterion could not be judged.", "fault"))
                stalls += result.unmet is not None and result.unmet.kind == "time"
                attempt.results.append(result)
                attempt.calls[criterion.name] = student.calls[first:]
        finally:
            student.close()
        return attempt

    def _student_with(self, mistake: Mistake, secret: str) -> LocalStudent:
        """A student who has everything right but for one known mistake; its global random state is that of the jail."""
        seed_everything(int(secret[:12], 16))
        return LocalStudent({**self._reference, mistake.exercise: mistake.solution}, self._opaque)

    def _diagnose(self, exercise: Exercise, attempt: _Attempt, secret: str) -> list[str]:
        failed = [r for r in attempt.results if r.unmet is not None and r.unmet.kind not in ("withheld", "fault")]
        if not failed or not _attempted(failed):
            return []
        mistakes = [m for m in self.assignment.mistakes if m.exercise == exercise.name]
        seen = {r.criterion.name: (r.criterion, attempt.calls[r.criterion.name]) for r in failed}
        met = {r.criterion.name for r in attempt.results if r.passed}
        found = name_mistakes(seen, mistakes, lambda m: self._student_with(m, secret), secret, met)
        named = [m.says for m in found]
        generic = [c for r in failed if r.unmet for c in r.unmet.causes[:1]]
        return list(dict.fromkeys(named or generic))[:4]


def _seed(secret: str) -> None:
    """Seed what the reference draws with as it likes: the judge may have judged others before."""
    torch.manual_seed(int(secret[:12], 16))


def _carried_note(replaced: Iterable[str]) -> str:
    return f"Carried forward: met with the reference in place of your {' and '.join(replaced)}."


def _attempted(failed: list[CriterionResult]) -> bool:
    """Whether the exercise has been attempted at all."""
    kinds = {r.unmet.kind for r in failed if r.unmet}
    return not kinds <= {"not defined", "nothing written", "withheld"}
