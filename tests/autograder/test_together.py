"""Criteria that are asked together: one frame for many calls, and the usual way wherever not everything is met."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from autograder.jail import Sandbox, Zygote
from autograder.session import Session, TimeLimits
from autograder.submission import read_program
from autograder.together import DEPTH, Asking, Together
from course_utils.checking import CriterionResult, Draw, Exercise, Student, Unmet, expect, prop

LIMITS = TimeLimits(cell=10.0, criterion=5.0, submission=60.0)


@pytest.fixture
def open_session(tiny_zygote: Zygote) -> Iterator[Callable[[str], Session]]:
    tiny_zygote.wait()
    sessions: list[Session] = []

    def make(program: str) -> Session:
        sessions.append(Session(tiny_zygote, read_program(program, ("f", "g", "h")).cells, LIMITS, 1))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def doubling(calls: int = 3, criteria: int = 4, name: str = "f", size: int = 5) -> Exercise:
    """An exercise f(x) = 2x whose criteria make so many calls each, one after another's result."""
    exercise = Exercise(name)

    def doubles(student: Student, draw: Draw) -> None:
        x = draw.normal(size)
        for _ in range(calls):
            got = expect(student.call(name, x)).close_to(2 * x).tensor()
            x = got / 4

    for k in range(criteria):
        exercise.criterion(points=1, name=f"doubles_{k}")(doubles)
    return exercise


def together() -> Together:
    return Together({}, 20.0, 1 << 30)


def met(one: Together, exercise: Exercise, session: Session) -> list[CriterionResult] | None:
    """The results of one exercise, None where it is left to the usual way."""
    return one.met([exercise], session, "secret").get(exercise.name)


def test_all_criteria_are_met_with_a_frame_for_each_round(open_session: Any, sent: list[str]) -> None:
    start = time.perf_counter()
    results = met(together(), doubling(calls=3, criteria=4), open_session("def f(x):\n    return x + x\n"))
    took = time.perf_counter() - start
    assert results is not None and [r.criterion.name for r in results] == [f"doubles_{k}" for k in range(4)]
    assert all(r.passed for r in results) and 0 < sum(r.seconds for r in results) <= took
    assert sent.count("calls") == 3 and "call" not in sent


def test_remarks_stay_with_the_criterion_that_asked(open_session: Any) -> None:
    exercise = Exercise("f")
    for k in range(3):
        exercise.criterion(points=1, name=f"c{k}")(lambda student, draw, k=k: expect(student.f(k)).equal(k))
    code = "import warnings\ndef f(k):\n    warnings.warn(f'number {k}')\n    return k\n"
    results = met(together(), exercise, open_session(code))
    assert results is not None and [r.remarks for r in results] == [[f"UserWarning: number {k}"] for k in range(3)]


def test_functions_that_are_given_answer_their_own_criterion(open_session: Any) -> None:
    exercise, seen = Exercise("f"), {}
    for k in range(3):

        def asks(student: Student, draw: Draw, k: int = k) -> None:
            noted: list[int] = []

            def g(x: int) -> int:
                noted.append(x)
                return x + k

            expect(student.f(g)).close_to(sum(x + k for x in range(4)))
            seen[k] = noted

        exercise.criterion(points=1, name=f"c{k}")(asks)
    session = open_session("def f(g):\n    return sum(g(x) for x in range(4))\n")
    assert met(together(), exercise, session) is not None
    assert seen == {k: [0, 1, 2, 3] for k in range(3)}


def test_a_generator_moves_on_for_the_criterion_that_gave_it(open_session: Any) -> None:
    exercise = Exercise("f")
    for k in range(3):

        def draws(student: Student, draw: Draw, k: int = k) -> None:
            given, here = torch.Generator().manual_seed(k), torch.Generator().manual_seed(k)
            for _ in range(3):
                expect(student.f(given)).close_to(torch.rand(2, generator=here))

        exercise.criterion(points=1, name=f"c{k}")(draws)
    session = open_session("import torch\ndef f(generator):\n    return torch.rand(2, generator=generator)\n")
    assert met(together(), exercise, session) is not None


@pytest.mark.parametrize(
    "body",
    ["return x + x + 1e-3", "return None", "raise ValueError('no')", "raise NotImplementedError", "return 2 * x[:4]"],
)
def test_what_is_not_met_is_left_to_the_usual_way(open_session: Any, sent: list[str], body: str) -> None:
    one, session = together(), open_session(f"def f(x):\n    {body}\n")
    assert met(one, doubling(), session) is None
    assert sent.count("calls") == 1
    assert not session.interrupted  # the pipe is in order, and the next exercise finds the same fork
    assert met(one, doubling(criteria=1), session) is None and sent.count("fork") == 1


def test_one_criterion_that_is_not_met_is_enough(open_session: Any) -> None:
    exercise = doubling()
    exercise.criterion(points=1)(lambda student, draw: expect(student.f(torch.ones(2))).close_to(torch.ones(2)))
    assert met(together(), exercise, open_session("def f(x):\n    return x + x\n")) is None


@pytest.mark.parametrize(
    "body", ["import os; os._exit(0)", "while True: pass", "import os; os.closerange(0, 100)", "raise SystemExit"]
)
def test_what_ends_or_stalls_is_not_asked_together_again(open_session: Any, sent: list[str], body: str) -> None:
    one, session = together(), open_session(f"def f(x):\n    {body}\n")
    assert met(one, doubling(), session) is None
    if body == "raise SystemExit":  # which is an exception like others
        return
    before = len(sent)
    assert session.interrupted and met(one, doubling(), session) is None
    assert len(sent) == before


@prop
def prepare() -> None:
    """Preparing the process for the next call."""


def test_criteria_with_props_are_asked_one_by_one(open_session: Any, sent: list[str]) -> None:
    exercise = doubling()

    @exercise.criterion(points=1)
    def prepared(student: Student, draw: Draw) -> None:
        student.prop(prepare)

    one, session = together(), open_session("def f(x):\n    return x + x\n")
    assert met(one, exercise, session) is None and met(one, exercise, session) is None
    assert "calls" not in sent and not session.interrupted


def test_a_criterion_at_fault_is_left_to_the_usual_way(open_session: Any) -> None:
    exercise = doubling()

    @exercise.criterion(points=1)
    def at_fault(student: Student, draw: Draw) -> None:
        raise ZeroDivisionError

    assert met(together(), exercise, open_session("def f(x):\n    return x + x\n")) is None


def test_criteria_that_wait_are_ended(open_session: Any) -> None:
    """A criterion whose last reply never comes must not stay suspended, with all that it holds."""
    ended, exercise = [], doubling(calls=1, criteria=1)

    @exercise.criterion(points=1)
    def waits(student: Student, draw: Draw) -> None:
        try:
            for _ in range(5):
                student.f(draw.normal(3))
        finally:
            ended.append(True)

    assert met(together(), exercise, open_session("def f(x):\n    return x\n")) is None
    assert ended == [True]


def test_replies_sent_ahead_do_not_pass_for_those_of_the_next_exercise(open_session: Any) -> None:
    code = (
        "import json, os, socket, struct, torch\n"
        "def f(x):\n"
        "    text = json.dumps({'op': 'result', 'error': None, 'generators': [], 'result':\n"
        "                       {'tensor': ['float64', [len(x)], False]}}).encode()\n"
        "    raw = (2 * x).numpy().tobytes()\n"
        "    for fd in range(3, 64):\n"
        "        try:\n"
        "            s = socket.socket(fileno=os.dup(fd))\n"
        "            s.getpeername()\n"
        "        except OSError:\n"
        "            continue\n"
        "        s.sendall(struct.pack('>II', len(text), len(raw)) + text + raw)\n"
        "        break\n"
        "    return x * 0\n"
    )
    session = open_session(code)
    one = together()
    met(one, doubling(calls=1, criteria=1), session)
    other = Exercise("f")

    @other.criterion(points=1)
    def is_zero(student: Student, draw: Draw) -> None:
        got = student.f(torch.full((2,), 7.0, dtype=torch.float64))
        expect(got).all(not bool((got == 7).any()), "a reply to an earlier call")

    results = met(one, other, session)
    assert results is None or results[0].passed


def test_an_unmet_of_a_given_function_counts(open_session: Any) -> None:
    exercise = Exercise("f")

    @exercise.criterion(points=1)
    def asks(student: Student, draw: Draw) -> None:
        def g(x: int) -> int:
            raise Unmet("called with something else")

        student.f(g)

    code = "def f(g):\n    try:\n        g(1)\n    except Exception:\n        return 1\n"
    assert met(together(), exercise, open_session(code)) is None


# --- Several exercises at once ---------------------------------------------------------------------------------------

DOUBLES = "def {0}(x):\n    return x + x\n"
ALL_RIGHT = DOUBLES.format("f") + DOUBLES.format("g") + DOUBLES.format("h")


def test_a_round_is_sent_before_the_replies_to_another_are_read(open_session: Any, sent: list[str]) -> None:
    received, receive = [], Asking.receive

    def noted(asking: Asking, sandbox: Sandbox) -> None:
        received.append((asking.exercise.name, sent.count("calls")))
        receive(asking, sandbox)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Asking, "receive", noted)
        found = together().met([doubling(2, 3, name) for name in "fgh"], open_session(ALL_RIGHT), "secret")
    assert list(found) == list("fgh") and all(len(results) == 3 for results in found.values())
    assert received[0] == ("f", 3) and len(received) == 6


def test_no_more_exercises_are_under_way_than_can_be_judged_again_in_a_moment(open_session: Any) -> None:
    under_way, most = set(), []

    def watched(name: str) -> Exercise:
        exercise = Exercise(name)

        @exercise.criterion(points=1)
        def doubles(student: Student, draw: Draw) -> None:
            under_way.add(name)
            most.append(len(under_way))
            for _ in range(3):
                expect(student.f(1.0)).close_to(2.0)
            under_way.discard(name)

        return exercise

    names = [f"f{k}" for k in range(12)]
    found = together().met([watched(name) for name in names], open_session(ALL_RIGHT), "secret")
    assert sorted(found) == sorted(names) and max(most) == DEPTH


def test_what_is_larger_than_the_pipe_holds_does_not_stop_both_sides(open_session: Any) -> None:
    exercises = [doubling(3, 4, name, size=size) for name, size in zip("fgh", (1 << 17, 3, 1 << 17), strict=True)]
    start = time.perf_counter()
    assert len(together().met(exercises, open_session(ALL_RIGHT), "secret")) == 3
    assert time.perf_counter() - start < LIMITS.criterion  # else they ended one another's waiting


def test_replies_larger_than_the_pipe_holds_wait_for_the_judge(open_session: Any) -> None:
    grown, code = Exercise("f"), "import torch\ndef f(n):\n    return torch.ones(n)\n" + DOUBLES.format("g")
    for k in range(4):
        grown.criterion(points=1, name=f"c{k}")(
            lambda student, draw: expect(student.f(1 << 18)).close_to(torch.ones(1 << 18))
        )
    assert set(together().met([grown, doubling(3, 4, "g", 1 << 9)], open_session(code), "secret")) == {"f", "g"}


def test_a_wrong_exercise_leaves_the_others_alone(open_session: Any, sent: list[str]) -> None:
    code = DOUBLES.format("f") + "def g(x):\n    return x\n" + DOUBLES.format("h")
    session = open_session(code)
    found = together().met([doubling(3, 3, name) for name in "fgh"], session, "secret")
    assert list(found) == ["f", "h"] and not session.interrupted and sent.count("calls") == 3 + 1 + 3


def test_an_exercise_with_props_leaves_the_others_alone(open_session: Any) -> None:
    with_prop, begun = doubling(1, 1, "g"), []

    @with_prop.criterion(points=1)
    def prepared(student: Student, draw: Draw) -> None:
        begun.append(True)
        student.prop(prepare)

    one, exercises = together(), [doubling(2, 2, "f"), with_prop, doubling(2, 2, "h")]
    for _ in range(2):
        assert list(one.met(exercises, open_session(ALL_RIGHT), "secret")) == ["f", "h"]
    assert begun == [True]  # no submission changes anything about it


@pytest.mark.parametrize("body", ["import os; os._exit(0)", "while True: pass"])
def test_exercises_that_were_done_before_another_stalls_are_kept(open_session: Any, body: str) -> None:
    code = DOUBLES.format("f") + f"def g(x):\n    {body}\n"
    session = open_session(code)
    early = [doubling(1, 1, "f")] * DEPTH
    for k, exercise in enumerate(early):
        early[k] = Exercise(f"f{k}")
        early[k].criterion(points=1, name="doubles")(exercise.criteria[0].condition)
    found = together().met([*early, doubling(2, 2, "g"), doubling(2, 2, "f")], session, "secret")
    assert "f0" in found and "g" not in found and session.interrupted


def test_calls_back_are_answered_while_rounds_of_others_wait(open_session: Any, sent: list[str]) -> None:
    asks = Exercise("g")
    for k in range(2):
        asks.criterion(points=1, name=f"c{k}")(
            lambda student, draw, k=k: expect(student.g(lambda x: x + k)).close_to(6 + 4 * k)
        )
    code = DOUBLES.format("f") + "def g(h):\n    return sum(h(x) for x in range(4))\n" + DOUBLES.format("h")
    exercises = [asks, doubling(2, 2, "f"), doubling(2, 2, "h")]
    assert set(together().met(exercises, open_session(code), "secret")) == {"f", "g", "h"}
    assert sent.count("callback result") == 8


def test_what_one_exercise_keeps_in_the_sandbox_is_there_for_its_criterion_alone(open_session: Any) -> None:
    """Handles are numbered over all exercises that are asked together."""
    exercises = []
    for name in "fg":
        exercise = Exercise(name)
        for k in range(3):

            def goes_back(student: Student, draw: Draw, name: str = name, k: int = k) -> None:
                handle = student.call(name, k)
                expect(student.h(handle)).equal(f"{name}{k}")

            exercise.criterion(points=1, name=f"c{k}")(goes_back)
        exercises.append(exercise)
    code = (
        "class Box:\n    def __init__(self, text):\n        self.text = text\n"
        "def f(k):\n    return Box(f'f{k}')\ndef g(k):\n    return Box(f'g{k}')\ndef h(box):\n    return box.text\n"
    )
    assert set(together().met(exercises, open_session(code), "secret")) == {"f", "g"}
