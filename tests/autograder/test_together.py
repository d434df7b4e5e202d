"""Criteria that are asked together: one frame for many calls, and the usual way wherever not everything is met."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from autograder.jail import Zygote
from autograder.session import Session, TimeLimits
from autograder.submission import read_program
from autograder.together import Together
from course_utils.checking import Draw, Exercise, Student, Unmet, expect, prop

LIMITS = TimeLimits(cell=10.0, criterion=5.0, submission=60.0)


@pytest.fixture
def open_session(tiny_zygote: Zygote) -> Iterator[Callable[[str], Session]]:
    tiny_zygote.wait()
    sessions: list[Session] = []

    def make(program: str) -> Session:
        sessions.append(Session(tiny_zygote, read_program(program, ("f",)).cells, LIMITS, 1))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def doubling(calls: int = 3, criteria: int = 4) -> Exercise:
    """An exercise f(x) = 2x whose criteria make so many calls each, one after another's result."""
    exercise = Exercise("f")

    def doubles(student: Student, draw: Draw) -> None:
        x = draw.normal(5)
        for _ in range(calls):
            got = expect(student.f(x)).close_to(2 * x).tensor()
            x = got / 4

    for k in range(criteria):
        exercise.criterion(points=1, name=f"doubles_{k}")(doubles)
    return exercise


def together() -> Together:
    return Together({}, 20.0, 1 << 30)


def test_all_criteria_are_met_with_a_frame_for_each_round(open_session: Any, sent: list[str]) -> None:
    start = time.perf_counter()
    results = together().met(doubling(calls=3, criteria=4), open_session("def f(x):\n    return x + x\n"), "secret")
    took = time.perf_counter() - start
    assert results is not None and [r.criterion.name for r in results] == [f"doubles_{k}" for k in range(4)]
    assert all(r.passed for r in results) and 0 < sum(r.seconds for r in results) <= took
    assert sent.count("calls") == 3 and "call" not in sent


def test_remarks_stay_with_the_criterion_that_asked(open_session: Any) -> None:
    exercise = Exercise("f")
    for k in range(3):
        exercise.criterion(points=1, name=f"c{k}")(lambda student, draw, k=k: expect(student.f(k)).equal(k))
    code = "import warnings\ndef f(k):\n    warnings.warn(f'number {k}')\n    return k\n"
    results = together().met(exercise, open_session(code), "secret")
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
    assert together().met(exercise, session, "secret") is not None
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
    assert together().met(exercise, session, "secret") is not None


@pytest.mark.parametrize(
    "body",
    ["return x + x + 1e-3", "return None", "raise ValueError('no')", "raise NotImplementedError", "return 2 * x[:4]"],
)
def test_what_is_not_met_is_left_to_the_usual_way(open_session: Any, sent: list[str], body: str) -> None:
    one, session = together(), open_session(f"def f(x):\n    {body}\n")
    assert one.met(doubling(), session, "secret") is None
    assert sent.count("calls") == 1
    assert not session.interrupted  # the pipe is in order, and the next exercise finds the same fork
    assert one.met(doubling(criteria=1), session, "secret") is None and sent.count("fork") == 1


def test_one_criterion_that_is_not_met_is_enough(open_session: Any) -> None:
    exercise = doubling()
    exercise.criterion(points=1)(lambda student, draw: expect(student.f(torch.ones(2))).close_to(torch.ones(2)))
    assert together().met(exercise, open_session("def f(x):\n    return x + x\n"), "secret") is None


@pytest.mark.parametrize(
    "body", ["import os; os._exit(0)", "while True: pass", "import os; os.closerange(0, 100)", "raise SystemExit"]
)
def test_what_ends_or_stalls_is_not_asked_together_again(open_session: Any, sent: list[str], body: str) -> None:
    one, session = together(), open_session(f"def f(x):\n    {body}\n")
    assert one.met(doubling(), session, "secret") is None
    if body == "raise SystemExit":  # which is an exception like others
        return
    before = len(sent)
    assert session.interrupted and one.met(doubling(), session, "secret") is None
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
    assert one.met(exercise, session, "secret") is None and one.met(exercise, session, "secret") is None
    assert "calls" not in sent and not session.interrupted


def test_a_criterion_at_fault_is_left_to_the_usual_way(open_session: Any) -> None:
    exercise = doubling()

    @exercise.criterion(points=1)
    def at_fault(student: Student, draw: Draw) -> None:
        raise ZeroDivisionError

    assert together().met(exercise, open_session("def f(x):\n    return x + x\n"), "secret") is None


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

    assert together().met(exercise, open_session("def f(x):\n    return x\n"), "secret") is None
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
    one.met(doubling(calls=1, criteria=1), session, "secret")
    other = Exercise("f")

    @other.criterion(points=1)
    def is_zero(student: Student, draw: Draw) -> None:
        got = student.f(torch.full((2,), 7.0, dtype=torch.float64))
        expect(got).all(not bool((got == 7).any()), "a reply to an earlier call")

    results = one.met(other, session, "secret")
    assert results is None or results[0].passed


def test_an_unmet_of_a_given_function_counts(open_session: Any) -> None:
    exercise = Exercise("f")

    @exercise.criterion(points=1)
    def asks(student: Student, draw: Draw) -> None:
        def g(x: int) -> int:
            raise Unmet("called with something else")

        student.f(g)

    code = "def f(g):\n    try:\n        g(1)\n    except Exception:\n        return 1\n"
    assert together().met(exercise, open_session(code), "secret") is None
