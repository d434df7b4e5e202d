"""Ask all criteria of an exercise at once, where nothing that one of them asks can matter to another.

A call that crosses the pipe takes several times as long as the function called: two processes wake each other up, and
each finds its caches filled with something else.  A function that keeps nothing gives every criterion the same answer
whatever the others ask.  So each criterion runs in a greenlet until it wants to call the function; all calls that are
wanted then go in one frame, and every criterion runs on when its reply has come.

Only that everything is met is decided in this way.  Where anything else happens, the exercise is judged as all others
are, one criterion after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from greenlet import getcurrent, greenlet

from autograder.bounded import bounded_memory, processor_time
from autograder.runner.frames import FrameError
from autograder.session import IMPATIENCE, JailedStudent, Request, Session
from course_utils.checking import Criterion, CriterionResult, Exercise
from course_utils.checking.student import Call
from course_utils.checking.verdict import judge_criterion


class OneByOne(Exception):
    """The criteria have to be asked one after the other."""


class WaitingStudent(JailedStudent):
    """Hands a call to whoever runs the criterion, and goes on when it brings the reply."""

    def __init__(self, session: Session, opaque: Mapping[str, Sequence[int]], deadline: float) -> None:
        super().__init__(session, opaque=opaque, alone=False)
        self._deadline = deadline

    def begin_criterion(self) -> None:
        """Nothing: the time and the objects that stay in the jail are those of all criteria."""

    def _call(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], prop: Callable[..., Any] | None
    ) -> Call:
        asking = getcurrent().parent
        assert asking is not None
        if prop is not None:  # it may prepare the process for the criterion's next call
            asking.throw(OneByOne)
        request = self._request(function, args, kwargs, None)
        return self.result(request, *asking.switch(request))


class Together:
    """Judges exercises of one assignment by asking their criteria together.

    Parameters
    ----------
    opaque : mapping
        As for `JailedStudent`.
    seconds : float
        Processor time for what the criteria of an exercise compute.
    memory : int
        Bytes for the same.
    """

    def __init__(self, opaque: Mapping[str, Sequence[int]], seconds: float, memory: int) -> None:
        self._opaque = opaque
        self._seconds = seconds
        self._memory = memory
        self._one_by_one: set[str] = set()  # exercises whose criteria cannot be asked together

    def met(self, exercise: Exercise, session: Session, secret: str) -> list[CriterionResult] | None:
        """The results of all criteria where every one is met; None where they have to be asked one by one.

        Parameters
        ----------
        exercise : Exercise
            One whose function keeps nothing.
        session : Session
            The submission's runner.
        secret : str
            What the criteria's inputs are drawn with.
        """
        if exercise.name in self._one_by_one or session.interrupted:
            return None
        criteria = {greenlet(judge_criterion): criterion for criterion in exercise.criteria}
        try:
            with processor_time(self._seconds), bounded_memory(self._memory):
                return self._results(criteria, session, secret)
        except OneByOne:
            self._one_by_one.add(exercise.name)
        except FrameError:
            session.close()
            session.interrupted = True  # what stalls must not do it again in every exercise
        except Exception:  # the usual way finds out what it is, and says it
            session.close()
        finally:
            for unfinished in criteria:
                unfinished.throw()
        return None

    def _results(
        self, criteria: Mapping[greenlet, Criterion], session: Session, secret: str
    ) -> list[CriterionResult] | None:
        sandbox = session.fork(alone=False)
        start = time.perf_counter()
        deadline = session.deadline(session.limits.criterion / IMPATIENCE)  # cells have a time of their own
        students = {one: WaitingStudent(session, self._opaque, deadline) for one in criteria}
        results: dict[greenlet, CriterionResult] = {}
        wanted: dict[greenlet, Request] = {}

        def run(one: greenlet, *given: Any) -> None:
            came = one.switch(*given)
            if one.dead:
                results[one] = came
            else:
                wanted[one] = came

        for one, criterion in criteria.items():
            run(one, criterion, students[one], secret)
        first = True
        while wanted and all(result.passed for result in results.values()):
            asked, wanted = wanted, {}
            calls = [request.message for request in asked.values()]
            calls[0]["first"], first = first, False
            chunks = [chunk for request in asked.values() for chunk in request.chunks]
            sandbox.channel.send({"op": "calls", "calls": calls}, chunks, deadline)
            for one, request in asked.items():
                run(one, students[one].reply(sandbox, request))
        if not all(result.passed for result in results.values()):
            return None
        for result in results.values():  # each has waited for the others
            result.seconds = (time.perf_counter() - start) / len(results)
        return [results[one] for one in criteria]
