"""Ask the criteria of many exercises at once, where nothing that one of them asks can matter to another.

A call that crosses the pipe takes several times as long as the function called: two processes wake each other up, and
each finds its caches filled with something else.  A function that keeps nothing gives every criterion the same answer
whatever the others ask.  So each criterion runs in a greenlet until it wants to call the function; all calls that an
exercise's criteria want go in one frame, a round, and every criterion runs on when its reply has come.  While the
sandbox answers the round of one exercise, the judge looks at what it has answered for another.

Only that everything is met is decided in this way.  Where anything else happens, the exercise is judged as all others
are, one criterion after the other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from greenlet import getcurrent, greenlet

from autograder.bounded import bounded_memory, processor_time
from autograder.jail import Sandbox
from autograder.runner.frames import FrameError
from autograder.session import IMPATIENCE, JailedStudent, Request, Session
from course_utils.checking import CriterionResult, Exercise
from course_utils.checking.student import Call
from course_utils.checking.verdict import judge_criterion

DEPTH = 8  # exercises under way: enough for neither side to wait, and few to be judged again where one stalls


class OneByOne(Exception):
    """The criteria have to be asked one after the other."""


class WaitingStudent(JailedStudent):
    """Hands a call to whoever runs the criterion, and goes on when it brings the reply."""

    def __init__(self, session: Session, opaque: Mapping[str, Sequence[int]]) -> None:
        super().__init__(session, opaque=opaque, alone=False)

    def begin_criterion(self) -> None:
        """Nothing: the time and the objects that stay in the jail are those of all criteria."""

    def wait_until(self, deadline: float) -> None:
        """Give the next reply until then (of `time.monotonic`)."""
        self._deadline = deadline

    def _call(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], prop: Callable[..., Any] | None
    ) -> Call:
        asking = getcurrent().parent
        assert asking is not None
        if prop is not None:  # it may prepare the process for the criterion's next call
            asking.throw(OneByOne)  # past what the criterion makes of an exception
        request = self._request(function, args, kwargs, None)
        return self.result(request, *asking.switch(request))


class Asking:
    """The criteria of one exercise, each of which runs until it wants to call the student's function.

    Parameters
    ----------
    exercise : Exercise
        Whose criteria they are.
    session : Session
        The submission's runner.
    opaque : mapping
        As for `JailedStudent`.
    secret : str
        What the criteria's inputs are drawn with.

    Attributes
    ----------
    wanted : dict
        By criterion, the call that it waits for.
    results : dict
        By criterion, what it found.
    rounds : int
        How many were sent.
    given_up : bool
        Whether a criterion is not met, or has to be asked by itself.
    one_by_one : bool
        Whether it is so for every submission.
    """

    def __init__(self, exercise: Exercise, session: Session, opaque: Mapping[str, Sequence[int]], secret: str) -> None:
        self.exercise = exercise
        self._session = session
        self._left = session.limits.criterion / IMPATIENCE  # seconds to wait for replies, all in all
        self._students = {greenlet(judge_criterion): WaitingStudent(session, opaque) for _ in exercise.criteria}
        self.wanted: dict[greenlet, Request] = {}
        self.results: dict[greenlet, CriterionResult] = {}
        self.rounds = 0
        self.given_up = self.one_by_one = False
        for (one, student), criterion in zip(self._students.items(), exercise.criteria, strict=True):
            if not self.given_up:
                self._run(one, criterion, student, secret)

    def send(self, sandbox: Sandbox) -> None:
        """Send a round: the calls that are wanted."""
        calls = [request.message for request in self.wanted.values()]
        chunks = [chunk for request in self.wanted.values() for chunk in request.chunks]
        sandbox.channel.send({"op": "calls", "calls": calls}, chunks)
        self.rounds += 1

    def receive(self, sandbox: Sandbox) -> None:
        """Receive the replies to the round, and let every criterion run on with its own."""
        asked, self.wanted = self.wanted, {}
        for one, request in asked.items():
            start = time.monotonic()
            self._students[one].wait_until(self._session.deadline(self._left))
            reply = self._students[one].reply(sandbox, request)
            self._left -= time.monotonic() - start
            if not self.given_up:  # else it had to be read all the same
                self._run(one, *reply)

    def _run(self, one: greenlet, *given: Any) -> None:
        try:
            came = one.switch(*given)
        except Exception as error:  # the usual way finds out what it is, and says it
            self.given_up, self.one_by_one = True, isinstance(error, OneByOne)
            return
        if one.dead:
            self.results[one] = came
            self.given_up |= not came.passed
        else:
            self.wanted[one] = came

    def end(self) -> None:
        """End the criteria that still wait, and let go of what they hold."""
        for one in self._students:
            one.throw()
        self.wanted = {}

    @property
    def is_met(self) -> bool:
        """Whether every criterion is met."""
        return not self.given_up and len(self.results) == len(self._students)

    @property
    def all_met(self) -> list[CriterionResult]:
        """The results in the order of the criteria, once every criterion is met."""
        return [self.results[one] for one in self._students]


class Together:
    """Judges exercises of one assignment by asking their criteria together.

    Parameters
    ----------
    opaque : mapping
        As for `JailedStudent`.
    seconds : float
        Processor time for what the criteria of a submission compute.
    memory : int
        Bytes for the same.
    """

    def __init__(self, opaque: Mapping[str, Sequence[int]], seconds: float, memory: int) -> None:
        self._opaque = opaque
        self._seconds = seconds
        self._memory = memory
        self._rounds: dict[str, int] = {}  # of each exercise, when it was last met
        self._one_by_one: set[str] = set()  # exercises whose criteria cannot be asked together

    def met(self, exercises: Iterable[Exercise], session: Session, secret: str) -> dict[str, list[CriterionResult]]:
        """By exercise, the results of all criteria where every one is met; others have to be asked one by one.

        Parameters
        ----------
        exercises : iterable of Exercise
            Those whose functions keep nothing.
        session : Session
            The submission's runner.
        secret : str
            What the criteria's inputs are drawn with.
        """
        asked: list[Asking] = []
        start = time.perf_counter()
        try:
            with processor_time(self._seconds), bounded_memory(self._memory):
                self._ask([e for e in exercises if e.name not in self._one_by_one], session, secret, asked)
        except FrameError:
            session.close()
            session.interrupted = True  # what stalls must not do it again
        except Exception:  # the usual way finds out what it is, and says it
            session.close()
        finally:
            for asking in asked:
                asking.end()
        self._rounds |= {asking.exercise.name: asking.rounds for asking in asked if asking.is_met}
        self._one_by_one |= {asking.exercise.name for asking in asked if asking.one_by_one}
        found = {asking.exercise.name: asking.all_met for asking in asked if asking.is_met}
        for results in found.values():
            for result in results:  # each has waited for the others
                result.seconds = (time.perf_counter() - start) / sum(map(len, found.values()))
        return found

    def _ask(self, exercises: Sequence[Exercise], session: Session, secret: str, asked: list[Asking]) -> None:
        if not exercises or session.interrupted:
            return
        sandbox = session.fork(alone=False)
        sandbox.channel.send({"op": "begin"}, hold=True)
        # Those of many rounds first: at the end nothing would be left to do while one of their replies is waited for.
        waiting = deque(sorted(exercises, key=lambda e: -self._rounds.get(e.name, 0)))
        sent = deque[Asking]()
        while waiting or sent:
            if waiting and len(sent) < DEPTH:
                asking = Asking(waiting.popleft(), session, self._opaque, secret)
                asked.append(asking)
            else:
                asking = sent.popleft()
                asking.receive(sandbox)
            if asking.given_up:
                asking.end()
            elif asking.wanted:
                asking.send(sandbox)
                sent.append(asking)
