"""One submission in its sandbox: calls, callbacks, crashes, time, and replies that were never sent by us."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autograder.assignment import load_assignment
from autograder.jail import Zygote
from autograder.session import JailedStudent, Session, TimeLimits
from autograder.submission import StudentCell, read_program
from course_utils.checking import CriterionFault, Given, Unmet
from course_utils.checking.values import Foreign

NAMES = ("f", "g", "double")
PATIENT = TimeLimits(cell=10.0, criterion=10.0, submission=60.0)  # the machine may be busy
QUICK = TimeLimits(cell=3.0, criterion=1.0, submission=60.0)


@pytest.fixture
def open_session(tiny_zygote: Zygote) -> Iterator[Callable[..., Session]]:
    tiny_zygote.wait()
    sessions: list[Session] = []

    def make(*programs: str, limits: TimeLimits = PATIENT, seed: int = 1) -> Session:
        cells: list[StudentCell] = []
        for k, program in enumerate(programs, 1):
            (cell,) = read_program(program, NAMES, f"cell {k}").cells
            cells.append(cell)
        sessions.append(Session(tiny_zygote, cells, limits, seed))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def student(session: Session, opaque: dict[str, Any] | None = None, **replaced: Callable[..., Any]) -> JailedStudent:
    one = JailedStudent(session, replaced, opaque)
    one.begin_criterion()
    return one


def refusal(make: Callable[[], Any]) -> Unmet:
    with pytest.raises(Unmet) as caught:
        make()
    return caught.value


def test_a_call_crosses_and_says_what_it_changed(open_session: Any) -> None:
    program = (
        "import sys, warnings\n"
        "def f(W, state, *, b):\n    W += 1\n    state['mean'][0] = 5\n    warnings.warn('careful')\n"
        "    print('loud', file=sys.stderr)\n    return {'W': W, 'b': (b, [1, None])}\n"
    )
    one = student(open_session(program))
    W = torch.zeros(2, dtype=torch.float32)
    result = one.f(W, {"mean": [torch.ones(1)]}, b=2.5)
    assert result["W"].tolist() == [1, 1] and result["W"].dtype == torch.float32
    assert result["b"] == (2.5, [1, None]) and W.tolist() == [0, 0]
    assert one.calls[0].changed == ["W", "state['mean'][0]"]
    assert one.calls[0].remarks == ["UserWarning: careful", "loud"]


def test_arguments_arrive_with_their_gaps(open_session: Any) -> None:
    one = student(open_session("def f(X):\n    return X.is_contiguous(), X.stride(1), X\n"))
    X = torch.arange(12.0).reshape(3, 4)[:, ::2]
    contiguous, stride, back = one.f(X)
    assert (contiguous, stride) == (False, 2) and torch.equal(back, X)


def test_a_generator_moves_on_by_what_was_drawn(open_session: Any) -> None:
    one = student(open_session("import torch\ndef f(g):\n    return torch.rand(3, generator=g)\n"))
    ours, theirs = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    assert torch.equal(one.f(theirs), torch.rand(3, generator=ours))
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_every_fork_has_the_same_random_state(open_session: Any) -> None:
    program = (
        "import random, numpy, torch\ndef f():\n    return random.random(), numpy.random.rand(), torch.rand(1).item()\n"
    )
    session = open_session(program)
    first = student(session)
    drawn = first.f()
    first.close()
    assert student(session).f() == drawn != student(open_session(program, seed=2)).f()


def test_functions_given_as_arguments_are_called_here(open_session: Any) -> None:
    seen: list[Any] = []
    one = student(open_session("def f(a, b, W):\n    return a(W, k=2), b(W)\n"))
    result = one.f(lambda W, k: seen.append(k) or k * W, lambda W: -W, torch.ones(2))
    assert [r.tolist() for r in result] == [[2, 2], [-1, -1]] and seen == [2]


def test_a_callbacks_verdict_cannot_be_swallowed(open_session: Any) -> None:
    def check(W: torch.Tensor) -> None:
        raise Unmet("the batch is empty")

    one = student(open_session("def f(check):\n    try:\n        check(1)\n    except Exception:\n        return 3\n"))
    assert refusal(lambda: one.f(check)).message == "the batch is empty"


def test_the_cell_of_the_line_that_raised_is_named(open_session: Any) -> None:
    earlier = "def own(x):\n    return x / 0\ndef g(x):\n    return own(x)\n"
    session = open_session(earlier, "def f(x):\n    return g(x)\n")
    assert (
        "f raised ZeroDivisionError in line 2 of the cell of g: `return x / 0`"
        in refusal(lambda: student(session).f(1)).message
    )
    assert (
        "g raised ZeroDivisionError in line 2 of its cell: `return x / 0`"
        in refusal(lambda: student(session).g(1)).message
    )


def test_a_callback_that_raises_raises_in_the_students_code(open_session: Any) -> None:
    def check(W: torch.Tensor) -> float:
        return 1 / 0

    one = student(open_session("def f(check):\n    check(1)\n"))
    assert "ZeroDivisionError" in refusal(lambda: one.f(check)).message


def test_a_callback_cannot_be_made_to_run_for_ever(open_session: Any) -> None:
    def train(epochs: int) -> int:
        return sum(1 for _ in range(epochs))

    one = student(open_session("def f(train):\n    return train(10**15)\n", limits=QUICK))
    start = time.monotonic()
    unmet = refusal(lambda: one.f(train))
    assert unmet.kind == "time" and time.monotonic() - start < 20


def test_a_callback_cannot_be_made_to_fill_the_memory(open_session: Any) -> None:
    one = student(open_session("def f(make):\n    return make(10**10)\n"))
    assert "memory" in refusal(lambda: one.f(torch.zeros)).message.lower()


def test_a_callback_takes_no_more_numbers_than_an_exercise_needs(open_session: Any) -> None:
    program = "import torch\ndef f(g, n):\n    for _ in range(5000):\n        g(torch.zeros(n))\n    return 1\n"
    one = student(open_session(program))
    assert "more numbers" in refusal(lambda: one.f(lambda W: 0.0, 90_000)).message
    one = student(open_session(program))
    assert "more numbers" in refusal(lambda: one.f(lambda W: 0.0, 50_000)).message  # of all calls together


@pytest.fixture
def adding(tiny_root: Path) -> Callable[[Callable[..., Any]], Given]:
    """A given function that adds 7, and what hears of its calls."""
    maker = load_assignment("tiny_doubling", tiny_root).checks.adding
    return lambda hears: Given(hears, maker, (7,))


def test_a_given_function_is_answered_there_and_heard_of_here(open_session: Any, adding: Any, sent: list[str]) -> None:
    heard: list[Any] = []
    code = "def f(g, x):\n    y = g(x)\n    x += 1\n    return y, g(x=x), g.__name__\n"

    def g(x: torch.Tensor) -> torch.Tensor:
        heard.append(x.item())
        return x  # nobody waits for it

    y, z, name = student(open_session(code)).f(adding(g), torch.zeros(()))
    assert (y.item(), z.item(), name) == (7, 8, "g") and heard == [0, 1]
    assert "callback result" not in sent


def test_two_given_functions_of_one_name_are_told_apart(open_session: Any, adding: Any) -> None:
    heard: list[tuple[str, int]] = []
    given = [adding(lambda x, name=name: heard.append((name, x))) for name in "ab"]
    assert student(open_session("def f(a, b):\n    return b(1) + a(2) + b(3)\n")).f(*given) == 27
    assert heard == [("b", 1), ("a", 2), ("b", 3)]


def test_the_verdict_of_what_hears_cannot_be_swallowed(open_session: Any, adding: Any) -> None:
    def check(x: int) -> None:
        raise Unmet("the batch is empty")

    one = student(open_session("def f(g):\n    g(1)\n    raise ValueError\n"))
    assert refusal(lambda: one.f(adding(check))).message == "the batch is empty"


def test_a_given_function_that_raises_raises_in_the_students_code(open_session: Any, adding: Any) -> None:
    heard: list[int] = []
    one = student(open_session("def f(g):\n    g(1)\n    g(500)\n    g(2)\n"))
    message = refusal(lambda: one.f(adding(lambda x: heard.append(x / (x < 100))))).message
    assert "f raised RuntimeError in line 3 of its cell: `g(500)`" in message and "ZeroDivisionError" in message
    assert heard == [1]
    one = student(open_session("def f(g):\n    try:\n        g(500)\n    except RuntimeError:\n        return g(2)\n"))
    assert one.f(adding(lambda x: heard.append(x / (x < 100)))) == 9 and heard == [1, 2]


@pytest.mark.parametrize(("size", "calls"), [(90_000, 1), (50_000, 450)])
def test_what_hears_takes_no_more_numbers_than_an_exercise_needs(
    open_session: Any, adding: Any, size: int, calls: int
) -> None:
    program = (
        "import torch\ndef f(g, size, calls):\n    for _ in range(calls):\n"
        "        try:\n            g(torch.zeros(size))\n        except RuntimeError:\n            pass\n"
    )
    one = student(open_session(program))
    assert "more numbers" in refusal(lambda: one.f(adding(lambda x: 0.0), size, calls)).message


def test_what_hears_cannot_be_made_to_run_for_ever(open_session: Any, adding: Any) -> None:
    one = student(open_session("def f(g):\n    return [g(50) for _ in range(4)]\n", limits=QUICK))
    start = time.monotonic()
    assert refusal(lambda: one.f(adding(lambda x: time.sleep(x)))).kind == "time"
    assert time.monotonic() - start < 20


def test_a_stand_in_takes_the_place_of_the_students_function(open_session: Any) -> None:
    session = open_session("def double(x):\n    return 3 * x\ndef f(x):\n    return double(x) + 1\n")
    replaced = student(session, double=lambda x: 2 * x)
    assert replaced.f(torch.ones(1)).item() == 3
    replaced.close()
    assert student(session).f(torch.ones(1)).item() == 4  # in its own fork only


def test_state_stays_within_a_fork(open_session: Any) -> None:
    session = open_session("seen = []\ndef f():\n    seen.append(1)\n    return len(seen)\n")
    first, second = student(session), None
    assert (first.f(), first.f()) == (1, 2)
    first.close()
    second = student(session)
    assert second.f() == 1


@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_a_default_device_that_the_cells_set_is_left_aside(open_session: Any, device: str) -> None:
    one = student(
        open_session(f"import torch\ntorch.set_default_device('{device}')\ndef f(x):\n    return x + torch.ones(2)\n")
    )
    assert torch.equal(one.f(torch.zeros(4)[::2]), torch.ones(2))


def test_exercises_that_need_no_fork_of_their_own_share_one(open_session: Any) -> None:
    session = open_session("import os\ndef f():\n    return os.getpid()\ndef g():\n    os._exit(0)\n")

    def process(alone: bool, **replaced: Callable[..., Any]) -> int:
        one = JailedStudent(session, replaced, alone=alone)
        one.begin_criterion()
        found = one.f()
        one.close()
        return found

    first = process(alone=False)
    assert process(alone=False) == first
    assert len({first, process(alone=True), process(alone=True), process(alone=False)}) == 4
    assert process(alone=False, g=lambda: 0) != process(alone=False)  # a stand-in must not stay
    broken = JailedStudent(session, alone=False)
    broken.begin_criterion()
    assert refusal(broken.g).kind == "crash"
    broken.close()
    assert process(alone=False) == process(alone=False)


def test_a_shared_fork_that_is_gone_is_replaced(open_session: Any) -> None:
    """Such as one that the last exercise has had killed for its memory just when it was done."""
    session = open_session(
        "import os, threading\ndef f():\n    threading.Timer(0.2, os._exit, [1]).start()\n    return 1\n"
        "def g():\n    return 2\n"
    )
    for name, result in (("f", 1), ("g", 2)):
        one = JailedStudent(session, alone=False)
        one.begin_criterion()
        assert one.call(name) == result
        one.close()
        time.sleep(1)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("import os; os._exit(0)", "crash"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crash"),
        ("import os; os.closerange(0, 100)", "crash"),
        ("class E(BaseException): pass\n    raise E", "crash"),
        ("while True: pass", "time"),
    ],
)
def test_after_a_crash_the_next_criterion_has_a_fork_of_its_own(open_session: Any, body: str, kind: str) -> None:
    limits = QUICK if kind == "time" else PATIENT
    one = student(open_session(f"def f():\n    {body}\ndef g():\n    return 7\n", limits=limits))
    unmet = refusal(one.f)
    assert unmet.kind == kind
    assert refusal(one.g) is unmet  # the rest of that criterion is lost
    one.begin_criterion()
    assert one.g() == 7


def test_a_fork_within_a_function_harms_nobody_else(open_session: Any) -> None:
    session = open_session("import os\ndef f(x):\n    os.fork()\n    return x\ndef g(x):\n    return x + 1\n")
    one = student(session)
    assert one.f(1) == 1
    one.close()
    assert student(session).g(1) == 2


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("['a' * 60_000] * 100", "too large"),
        ("10 ** 6000", "ValueError"),
        ("[0] * 210_000", "too many parts"),
        ("__import__('torch').zeros(3).to(__import__('torch').float8_e4m3fn)", "float8"),
        ("__import__('numpy').zeros(3, dtype='>f8')", "cannot be read"),
    ],
)
def test_what_cannot_be_sent_is_told(open_session: Any, value: str, says: str) -> None:
    one = student(open_session(f"def f():\n    return {value}\ndef g():\n    return 1\n"))
    assert says in refusal(one.f).message
    one.begin_criterion()
    assert one.g() == 1


def test_objects_stay_behind_as_handles(open_session: Any) -> None:
    one = student(open_session("class Cache: pass\ndef f():\n    return [Cache(), Cache()]\n"))
    first, second = one.f()
    assert isinstance(first, Foreign) and (first.handle, second.handle) == (0, 1)


# --- Replies that a student's code forges ----------------------------------------------------------------------------

FORGE = """
import json, os, socket, struct
def send(message, raw=b""):
    text = json.dumps(message).encode()
    for fd in range(3, 64):
        try:
            s = socket.socket(fileno=os.dup(fd))
            s.getpeername()
        except OSError:
            continue
        s.sendall(struct.pack(">II", len(text), len(raw)) + text + raw)
        return
"""


def tensor(shape: list[int]) -> dict[str, object]:
    return {"tensor": ["uint8", shape, False]}


@pytest.mark.parametrize(
    "message",
    [
        {"op": "ran"},
        {"op": "forked"},
        {"op": "ended"},
        {"op": "callback", "name": "double", "arguments": None},
        {"op": "callback", "name": ["x"]},
        {"op": ["result"]},
        {"op": "result", "result": tensor([2**39] * 11 + [0])},
        {"op": "result", "result": {"array": ["float64", [2**39] * 11 + [0]]}},
        {"op": "result", "result": {"list": [tensor([8])] * 50}},
        {"op": "result", "result": {"array": ["bool", [8]]}},
        {"op": "result", "result": {"callback": "double"}},
        {"op": "result", "result": {"": 1}},
        {"op": "result", "error": [1]},
        {"op": "result", "result": None, "noted": None},
        {"op": "result", "result": None, "noted": {"list": [1]}},
        {"op": "result", "result": None, "noted": {"list": [{"list": ["double", {"list": []}]}]}},
        {"op": "result", "result": None, "noted": {"list": [{"list": [[1], {"list": []}]}]}},
        {"op": "result", "result": None, "noted": {"list": [{"list": ["g", {"list": [{"list": []}, {"dict": []}]}]}]}},
    ],
)
def test_a_forged_reply_is_the_students_loss(open_session: Any, message: dict[str, object]) -> None:
    one = student(
        open_session(FORGE + f"def f():\n    send({message!r}, b'\\7' * 8)\n    os._exit(0)\ndef g():\n    return 1\n")
    )
    unmet = refusal(one.f)
    unmet.message.encode()
    one.begin_criterion()
    assert one.g() == 1


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"op": "result", "error": {"type": 5, "text": ["x"], "line": True, "code": {}, "name": "\ud800"}}, "f raised"),
        ({"op": "result", "missing": True}, "not defined"),
        ({"op": "result", "error": {}}, "f raised"),
    ],
)
def test_a_forged_failure_is_a_failure(open_session: Any, message: dict[str, object], says: str) -> None:
    one = student(open_session(FORGE + f"def f():\n    send({message!r})\n    os._exit(0)\n"))
    assert says in refusal(one.f).message


def test_forged_texts_are_cut_and_cleaned(open_session: Any) -> None:
    evil = "\ud800\x1b[31m\n<b>" + "a" * 5000
    link = "x`](javascript:alert(1))"
    error = {"type": evil, "text": evil, "line": 3, "code": evil, "name": link, "entered": link}
    one = student(
        open_session(FORGE + f"def f():\n    send({{'op': 'result', 'error': {error!r}}})\n    os._exit(0)\n")
    )
    unmet = refusal(one.f)
    text = " ".join([unmet.message, *unmet.causes])
    assert len(text) < 800 and text.isprintable() and "javascript" not in text
    foreign = {"foreign": evil, "handle": "x"}
    one = student(
        open_session(FORGE + f"def f():\n    send({{'op': 'result', 'result': {foreign!r}}})\n    os._exit(0)\n")
    )
    (name,) = [one.f().type_name]
    assert len(name) <= 200 and name.isprintable()


def test_frames_sent_early_stop_no_more_than_the_submission(open_session: Any) -> None:
    session = open_session(
        FORGE + "for k in range(5):\n    send({'op': 'ran', 'error': None})\ndef f():\n    return 1\n"
    )
    assert refusal(student(session).f).kind in ("crash", "not defined")


def test_an_oversized_frame_is_refused(open_session: Any) -> None:
    program = (
        FORGE.replace("len(text), len(raw)", "2**32 - 1, 2**32 - 1") + "def f():\n    send({})\n    while True: pass\n"
    )
    assert "too large" in refusal(student(open_session(program)).f).message


# --- Cells -----------------------------------------------------------------------------------------------------------


def test_cells_that_break_the_process_are_left_out(open_session: Any) -> None:
    session = open_session(
        "import os\nos._exit(1)\n", "def f():\n    return 1\n", "while True: pass\n", "x = nothing\n", limits=QUICK
    )
    session.fork()
    assert session.oddities[0] == "Cell 1 ended the process; it was left out."
    text = " ".join(session.oddities)
    assert "ended the process" in text and "ran longer than 3 s" in text and "NameError: name 'nothing'" in text
    assert len(session.oddities) == 3


def test_a_cell_that_cannot_be_read_is_not_run(open_session: Any) -> None:
    session = open_session("def f(:\n    return 1\n", "def g():\n    return 2\n")
    one = student(session)
    assert one.g() == 2
    assert len(session.oddities) == 1 and "SyntaxError" in session.oddities[0] and "not run" in session.oddities[0]


def test_the_time_of_a_submission_ends_it_at_once(open_session: Any) -> None:
    slow = "import time\ntime.sleep(1)\n"
    session = open_session(*[slow] * 20, "def f():\n    return 1\n", limits=TimeLimits(3.0, 2.0, 2.5))
    start = time.monotonic()
    unmet = refusal(student(session).f)
    assert unmet.kind == "time" and "used up its 2.5 seconds" in unmet.message
    assert time.monotonic() - start < 10 and session.oddities == []
    assert session.out_of_time and refusal(student(session).f).kind == "time"


def test_an_argument_that_cannot_be_sent_is_the_staffs_fault(open_session: Any) -> None:
    one = student(open_session("def f(x):\n    return x\n"))
    with pytest.raises(CriterionFault, match="f cannot be called"):
        one.f({1, 2})


def test_an_opaque_result_stays_in_the_jail_and_comes_back_as_it_was(open_session: Any) -> None:
    program = (
        "from collections import namedtuple\nCache = namedtuple('Cache', 'x calls')\n"
        "def f(x):\n    return 2 * x, Cache(x, [])\n"
        "def g(grad, cache):\n    cache.calls.append(1)\n    return grad * cache.x * len(cache.calls)\n"
    )
    one = student(open_session(program), {"f": (1,)})
    out, cache = one.f(torch.ones(2))
    assert out.tolist() == [2, 2] and isinstance(cache, Foreign)
    assert one.g(torch.ones(2), cache).tolist() == [1, 1]
    assert one.g(torch.ones(2), cache).tolist() == [2, 2] and one.calls[-1].changed == []


def test_a_prop_runs_in_the_jail(open_session: Any, tiny_root: Path) -> None:
    described = load_assignment("tiny_doubling", tiny_root).checks.described
    program = "class Box:\n    entries = 3\ndef f():\n    return Box()\ndef g(box):\n    return box.entries + 1\n"
    one = student(open_session(program))
    box = one.f()
    assert one.prop(described, box) == ("Box", 3)
    assert one.prop(described, box, twice=True) == ("BoxBox", 3)
    assert one.g(box) == 4
    assert "Describing a value raised AttributeError" in refusal(lambda: one.prop(described, 5)).message


def test_what_raised_inside_a_prop_is_named_after_what_the_prop_does(open_session: Any, tiny_root: Path) -> None:
    described = load_assignment("tiny_doubling", tiny_root).checks.described
    program = "class Box:\n    @property\n    def entries(self):\n        return 1 / 0\ndef f():\n    return Box()\n"
    one = student(open_session(program))
    box = one.f()
    assert refusal(lambda: one.prop(described, box)).message.startswith(
        "Describing a value: Box.entries raised ZeroDivisionError in line 4 of its cell: `return 1 / 0`"
    )


def test_a_callback_is_given_handles_and_may_give_them_back(open_session: Any) -> None:
    one = student(
        open_session("class Box:\n    entries = 3\ndef f(choose):\n    return choose([Box(), Box()]).entries\n")
    )
    assert one.f(lambda boxes: boxes[1]) == 3
