"""Submissions through the real jail: right, wrong, broken and hostile ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_assignment import CHECKS, HIDDEN, MISTAKES, SOURCE, write_tiny_assignment

from autograder.assignment import load_assignment
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.session import TimeLimits
from autograder.submission import Submission, read_notebook_bytes, read_program

RIGHT = "def double(x):\n    return x + x\n\n\ndef halve(x):\n    return x / 2\n"


@pytest.fixture(scope="module")
def judge(tiny_root: Path, tiny_zygote: Zygote) -> Judge:
    return Judge(load_assignment("tiny_doubling", tiny_root), tiny_zygote, "secret", TimeLimits(60.0, 20.0, 200.0))


def judged(judge: Judge, code: str | Submission) -> dict[str, Any]:
    submission = read_program(code, judge.assignment.exercises) if isinstance(code, str) else code
    return judge.judge(submission).to_json()


def messages(result: dict[str, Any], exercise: str = "double") -> str:
    return " ".join(c["message"] for c in result["exercises"][exercise]["criteria"])


def test_right_solution_has_full_marks(judge: Judge) -> None:
    result = judged(judge, RIGHT)
    assert (result["score"], result["max_score"], result["bonus"]) == (2.5, 2.5, 2)
    assert result["isolation"] == "bubblewrap and namespaces"
    assert result["oddities"] == []
    assert set(result["exercises"]["double"]) == {"score", "max_score", "carried_forward", "criteria", "diagnosis"}
    assert set(result["exercises"]["double"]["criteria"][0]) == {"name", "visible", "passed", "points", "message"}


def test_same_submission_gives_same_result(judge: Judge) -> None:
    wrong = RIGHT.replace("x + x", "x + 1.5 * x")
    assert judged(judge, wrong) == judged(judge, wrong)


@pytest.mark.parametrize(("before", "forks"), [("", 1), ("kept = []\n", 2)])
def test_only_what_may_keep_something_has_a_fork_of_its_own(
    judge: Judge, sent: list[str], before: str, forks: int
) -> None:
    code = before + RIGHT.replace("return x + x", "kept.append(x)\n    return x + x" if before else "return x + x")
    assert judged(judge, code)["score"] == 2.5
    assert sent.count("fork") == forks


def test_known_mistake_is_named(judge: Judge) -> None:
    result = judged(judge, RIGHT.replace("x + x", "x ** 2"))
    assert result["exercises"]["double"]["diagnosis"] == ["The square is not the double."]


def test_exercise_that_leans_on_a_wrong_one_is_carried_forward(judge: Judge) -> None:
    result = judged(judge, "def double(x):\n    return 3 * x\n\ndef halve(x):\n    return double(x) / 4\n")
    assert result["score"] == 0
    assert result["exercises"]["halve"]["score"] == 2
    assert result["exercises"]["halve"]["carried_forward"]
    assert "double" in messages(result, "halve")


def test_own_mistake_is_not_carried_forward(judge: Judge) -> None:
    result = judged(judge, "def double(x):\n    return 3 * x\n\ndef halve(x):\n    return double(x) / 5\n")
    assert result["exercises"]["halve"]["score"] == 0
    assert not result["exercises"]["halve"]["carried_forward"]


def test_no_later_exercise_lends_its_reference(tmp_path: Path, tiny_zygote: Zygote) -> None:
    """Not even where an earlier one is wrong: the reference of a later one may be the solution."""
    more = (
        '\n\n# %% exercise="quarter"\ndef quarter(x):\n    ### BEGIN SOLUTION\n    return x / 4\n    ### END SOLUTION\n'
    )
    more += '\n\n# %% check="quarter"\ncheck("quarter")\n'
    rule = '\nquarter = Exercise("quarter")\n\n\n@quarter.criterion(points=1)\ndef quarters(student, draw):\n'
    rule += '    """A quarter."""\n    x = draw.normal(4)\n    expect(student.quarter(x)).close_to(x / 4)\n'
    root = write_tiny_assignment(tmp_path, source=SOURCE + more, checks=CHECKS + rule)
    strict = Judge(load_assignment("tiny_doubling", root), tiny_zygote, "secret")
    borrowed = "def double(x):\n    return 3 * x\n\ndef halve(x):\n    double\n    return 2 * quarter(x)\n"
    for code in (borrowed, borrowed + "def quarter(x):\n    return x\n"):
        assert judged(strict, code)["exercises"]["halve"]["score"] == 0
    right = judged(strict, borrowed + "def quarter(x):\n    return x / 4\n")
    assert right["exercises"]["halve"]["score"] == 2


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def double(x):\n    pass\n", "None"),
        ("def double(x):\n    raise NotImplementedError()\n", "Nothing is written"),
        ("def double(x):\n    return x.nothing\n", "AttributeError"),
        ("def double(x):\n    return undefined_name\n", "undefined_name"),
        ("def double(x)\n    return 2 * x\n", "SyntaxError"),
        ("double = None\n", "TypeError"),
        ("", "not defined"),
        ("def double(x):\n    return 'two'\n", "str"),
        ("def double(x):\n    return [x, x]\n", "list"),
        ("def double(x):\n    return x.to_sparse()\n", "sparse"),
        ("def double(x):\n    return (2 * x)[:2]\n", "shape"),
        ("def double(x):\n    return x * float('nan')\n", "nan"),
        ("import os\ndef double(x):\n    os._exit(0)\n", "process ended"),
        ("import os, signal\ndef double(x):\n    os.kill(os.getpid(), signal.SIGKILL)\n", "process ended"),
        ("import ctypes\ndef double(x):\n    ctypes.string_at(0)\n", "process ended"),
        ("import sys\ndef double(x):\n    sys.exit(0)\n", "SystemExit"),
        ("def double(x):\n    return double(x)\n", "RecursionError"),
        ("def double(x):\n    return bytearray(1 << 40)\n", "MemoryError"),
    ],
)
def test_failure_is_told_as_what_it_is_and_costs_nothing_elsewhere(judge: Judge, code: str, said: str) -> None:
    result = judged(judge, code + "\n" if "SyntaxError" in said else code + "\n\ndef halve(x):\n    return x / 2\n")
    assert result["score"] == 0
    assert said in messages(result) + " ".join(result["oddities"])
    if said != "SyntaxError":  # there the only cell is broken
        assert result["bonus"] == 2


EQUAL_TO_ALL = """
class Equal:
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __abs__(self): return 0
    def __le__(self, other): return True
    def __getattr__(self, name): return lambda *a, **k: self
def double(x):
    return Equal()
"""
SWITCHED_OFF = """
import course_utils.checking.expect as e, course_utils.checking.verdict as v
import course_utils.checking.unmet as u, torch, builtins
e.Expectation.close_to = lambda self, *a, **k: self
v.judge_criterion = lambda *a, **k: None
u.Unmet.__init__ = lambda self, *a, **k: None
torch.isclose = torch.allclose = lambda *a, **k: True
builtins.isinstance = lambda *a: True
def double(x):
    return x
"""
FORGED = """
import socket, json, struct, os, gc
def double(x):
    for o in gc.get_objects():
        if isinstance(o, socket.socket):
            body = json.dumps({"op": "result", "error": None, "result": 1.0, "changed": [], "passed": True}).encode()
            o.sendall(struct.pack(">II", len(body), 0) + body)
    return x
"""
LYING_TENSOR = """
import torch
class Lying(torch.Tensor):
    @classmethod
    def __torch_function__(cls, f, types, args=(), kwargs=None):
        return torch.zeros(5)
def double(x):
    return x.as_subclass(Lying)
"""
OVERSIZED = "import torch\ndef double(x):\n    return torch.zeros(1 << 26, dtype=torch.float64)\n"


@pytest.mark.parametrize("code", [EQUAL_TO_ALL, SWITCHED_OFF, FORGED, LYING_TENSOR, OVERSIZED])
def test_no_point_is_earned_by_deceit(judge: Judge, code: str) -> None:
    assert judged(judge, code)["score"] == 0


SPY = """
import os
def read(path):
    try:
        return open(path).read()
    except OSError as error:
        return "refused"
hidden = "{root}/solutions/{name}/hidden_checks.py"
seen = [read(p) for p in ("/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/1/cmdline", hidden)]
listed = []
for place in ("/proc", "/home", "/root/.ssh", "{root}", "/course"):
    try:
        listed += os.listdir(place)
    except OSError:
        pass
def double(x):
    raise ValueError(repr((seen, listed, sorted(os.environ))))
"""


def test_jail_shows_nothing_of_the_machine(judge: Judge) -> None:
    root, name = judge.assignment.root, judge.assignment.name
    text = messages(judged(judge, SPY.replace("{root}", str(root)).replace("{name}", name)))
    assert "'refused', 'refused', 'refused', 'refused', 'refused'" in text
    assert "hidden" not in text
    assert "solutions" not in text


NETWORK = """
import socket
def double(x):
    said = []
    for family, address in ((socket.AF_INET, ("127.0.0.1", 80)), (socket.AF_INET, ("8.8.8.8", 53))):
        s = socket.socket(family)
        s.settimeout(0.3)
        try:
            s.connect(address)
            said.append("connected")
        except OSError as error:
            said.append("no network")
    raise ValueError(str(said))
"""


def test_jail_has_no_network(judge: Judge) -> None:
    text = messages(judged(judge, NETWORK))
    assert "connected" not in text
    assert "['no network', 'no network']" in text


def test_state_of_one_submission_does_not_reach_the_next(judge: Judge) -> None:
    litter = (
        "open('/tmp/left', 'w').write('x')\nopen('/dev/shm/left', 'w').write('x')\nimport torch\ntorch.zeros = None\n"
    )
    judged(judge, litter + RIGHT)
    finds = "import os, torch\nassert not os.listdir('/tmp') and not os.listdir('/dev/shm')\ntorch.zeros(2)\n"
    assert judged(judge, finds + RIGHT)["oddities"] == []


def test_state_of_one_exercise_does_not_reach_the_next(judge: Judge) -> None:
    code = (
        "calls = []\ndef double(x):\n    calls.append(1)\n    return 2 * x\n\n"
        "def halve(x):\n    assert not calls\n    return x / 2\n"
    )
    result = judged(judge, code)
    assert (result["score"], result["bonus"]) == (2.5, 2)


def test_what_ends_the_process_is_left_out_and_the_rest_of_its_cell_is_not(judge: Judge) -> None:
    cells = [{"cell_type": "code", "source": s, "metadata": {}, "outputs": []} for s in RIGHT.split("\n\n\n")]
    cells[0]["source"] += "\nimport os\nos._exit(0)"
    data = json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}).encode()
    result = judged(judge, read_notebook_bytes(data, judge.assignment.exercises))
    assert (result["score"], result["bonus"]) == (2.5, 2)
    assert any("The cell of double ended the process; it was left out." in o for o in result["oddities"])


def test_endless_loop_costs_only_its_exercise(tiny_root: Path, tiny_zygote: Zygote) -> None:
    impatient = Judge(load_assignment("tiny_doubling", tiny_root), tiny_zygote, "s", TimeLimits(60.0, 2.0, 200.0))
    result = judged(impatient, "def double(x):\n    while True: pass\n\ndef halve(x):\n    return x / 2\n")
    assert (result["score"], result["bonus"]) == (0, 2)
    assert "did not finish within 2 seconds" in messages(result)


def test_time_of_a_submission_is_limited(tiny_root: Path, tiny_zygote: Zygote) -> None:
    short = Judge(load_assignment("tiny_doubling", tiny_root), tiny_zygote, "s", TimeLimits(5.0, 5.0, 3.0))
    result = judged(short, "def double(x):\n    while True: pass\n\ndef halve(x):\n    return x / 2\n")
    assert result["score"] == 0
    assert "used up its 3 seconds" in messages(result)


# --- What may not be called, through the whole line ------------------------------------------------------------------


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory, tiny_zygote: Zygote) -> Judge:
    """A judge of doubling where neither exercise may call torch.mul or anything of torch.nn."""
    rules = 'forbidden=("torch.mul", "torch.nn.*")'
    checks = CHECKS.replace("bonus=True", f"bonus=True, {rules}").replace(
        'Exercise("double")', f'Exercise("double", {rules})'
    )
    root = write_tiny_assignment(tmp_path_factory.mktemp("ruled"), checks=checks)
    return Judge(load_assignment("tiny_doubling", root), tiny_zygote, "secret", TimeLimits(10.0, 10.0, 60.0))


def notebook(*sources: str) -> Submission:
    cells = [{"cell_type": "code", "source": s, "metadata": {}, "outputs": []} for s in sources]
    return read_notebook_bytes(json.dumps({"cells": cells, "nbformat": 4}).encode(), ("double", "halve"))


HALVE = "def halve(x):\n    return x / 2\n"


@pytest.mark.parametrize("fails", ["1 / 0", "raise SystemExit", "import os\nos._exit(0)", "import nonexistent"])
def test_what_is_judged_is_what_was_read(ruled: Judge, fails: str) -> None:
    """A definition below what fails is run all the same, so that its name does not keep what was there before."""
    ready_made = "def double(x):\n    return torch.mul(x, 2)\n"
    wrong = judged(ruled, notebook(ready_made, f"{fails}\ndef double(x):\n    return 3 * x\n", HALVE))
    assert wrong["score"] == 0 and "Every entry is 1.5 times what is expected." in messages(wrong)
    right = judged(ruled, notebook(ready_made, f"{fails}\ndef double(x):\n    return 2 * x\n", HALVE))
    assert (right["score"], right["bonus"]) == (2.5, 2)


def test_what_may_not_be_called_costs_the_exercise_and_is_said(ruled: Judge) -> None:
    result = judged(ruled, notebook("import torch\ndef double(x):\n    return torch.mul(x, 2)\n", HALVE))
    assert (result["score"], result["bonus"]) == (0, 2)
    assert "double may not use torch.mul: the notebook's rules say what" in messages(result)
    assert result["oddities"] == ["double uses torch.mul, which it may not."]
    assert judged(ruled, notebook("def double(x):\n    return x + x\n", HALVE))["score"] == 2.5


@pytest.mark.parametrize(
    "sources",
    [
        # made at run time, past the reading of the source
        (HALVE + "globals()['double'] = lambda x: x.mul(2)\n",),
        (HALVE, "import torch\nvars()['double'] = lambda x: torch.mul(x, 2)\n"),
        # in a cell that cannot be read
        ("def double(x):\n    return x.mul(2)" + " + 0" * 1000 + "\n", HALVE),
        ("from __future__ import barry_as_FLUFL\n", "def double(x):\n    return x.mul(2) if 1 <> 2 else 0\n", HALVE),
        # hidden by a magic
        ("%%bash\ntrue\n", "%time double = lambda x: x.mul(2)\n" + HALVE),
        # read as one thing and run as another
        ("def double(x): return getattr(x, 'mu\\\n>>> l')(2)\n", HALVE),
        ("def double(x): return getattr(x, 'mu\\\n   ...: l')(2)\n", HALVE),
        ("def double(x): return getattr(x, 'ｍul')(2)\na = 1; b = len('x')\n", HALVE),
        ("def double(x):\n    return exit._ip.ev('torch.mul')(x, 2)\n", HALVE),
        # in another exercise, which comes later
        ("def double(x):\n    return halve(x, 4)\n", "def halve(x, k=1):\n    return x.mul(k / 2)\n"),
    ],
)
def test_no_way_around_earns_a_point(ruled: Judge, sources: tuple[str, ...]) -> None:
    result = judged(ruled, notebook(*sources))
    assert result["score"] == 0


def test_what_leans_on_the_forbidden_is_judged_with_the_reference(ruled: Judge) -> None:
    leaning = "def halve(x):\n    return double(x) / 4\n"
    result = judged(ruled, notebook("def double(x):\n    return x.mul(2)\n", leaning))
    assert result["score"] == 0
    assert result["bonus"] == 2 and result["exercises"]["halve"]["carried_forward"]


def test_a_later_exercise_that_uses_the_forbidden_lends_no_reference(ruled: Judge) -> None:
    """The reference of a later exercise may be the solution of an earlier one."""
    leaning = "def double(x):\n    return 4 * halve(x)\n"
    result = judged(ruled, notebook(leaning, "def halve(x):\n    return x.mul(0.5)\n"))
    assert (result["score"], result["bonus"]) == (0, 0)
    assert "double may not use halve, which uses" in messages(result)


def test_a_criterion_at_fault_costs_its_points_and_stops_nothing(
    tmp_path: Path, tiny_zygote: Zygote, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = HIDDEN.replace("hidden_input = draw.normal(3, scale=1e12)", 'raise KeyError("the staff\'s secret")')
    root = write_tiny_assignment(tmp_path, hidden=hidden)
    result = judged(Judge(load_assignment("tiny_doubling", root), tiny_zygote, "s"), RIGHT)
    assert (result["score"], result["bonus"]) == (1, 2)
    assert result["oddities"] == ["double: doubles_large_numbers could not be judged; a teacher has to look."]
    assert "secret" not in json.dumps(result)
    assert "double.doubles_large_numbers is at fault" in caplog.text and "secret" in caplog.text


def test_a_mistake_that_trips_a_criterion_is_passed_over(tmp_path: Path, tiny_zygote: Zygote) -> None:
    """Diagnosis replays known mistakes; what a criterion does with their results must not stop the judging."""
    hidden = HIDDEN.replace(
        "expect(student.double(hidden_input)).close_to(2 * hidden_input)",
        "got = student.double(hidden_input)\n    expect(hidden_input * 2).close_to(expect(got).tensor())",
    )
    mistakes = MISTAKES.replace("x * x", "x * float('inf')")
    root = write_tiny_assignment(tmp_path, hidden=hidden, mistakes=mistakes)
    result = judged(Judge(load_assignment("tiny_doubling", root), tiny_zygote, "s"), RIGHT.replace("x + x", "3 * x"))
    assert result["score"] == 0 and result["bonus"] == 2


def test_half_precision_loosens_nothing(judge: Judge) -> None:
    for dtype in ("bfloat16", "float16"):
        assert judged(judge, f"import torch\ndef double(x):\n    return (2.04 * x).to(torch.{dtype})\n")["score"] == 0
    assert judged(judge, "import torch\ndef double(x):\n    return (2 * x).float()\n")["score"] == 2.5


def test_a_references_time_is_limited_when_a_student_calls_it(tmp_path: Path, tiny_zygote: Zygote) -> None:
    source = SOURCE.replace("secret_of_doubling = x + x", "secret_of_doubling = sum(x for _ in range(1 + len(x) ** 7))")
    root = write_tiny_assignment(tmp_path, source=source)
    slow = Judge(load_assignment("tiny_doubling", root), tiny_zygote, "s", TimeLimits(10.0, 1.0, 60.0))
    code = "import torch\ndef double(x):\n    return x\n\ndef halve(x):\n    return double(torch.zeros(5000))[:5] / 4\n"
    start = time.monotonic()
    assert judged(slow, code)["bonus"] == 0
    assert time.monotonic() - start < 30


def test_an_odd_but_right_notebook_has_full_marks(judge: Judge) -> None:
    result = judged(
        judge,
        notebook(
            "%matplotlib inline\n!pip install nothing\nimport numpy as np\nx = np.arange(3)\nprint(x)",
            HALVE,
            "def double(x):\n    return x\n",
            "EPS = 0\ntable = {}\ntable['twice'] = lambda v: v + v + EPS\nraise ValueError('an experiment')",
            "%%time\nfrom dataclasses import dataclass\n@dataclass\nclass Doubler:\n    kind: str\n"
            "    def __call__(self, x):\n        return table[self.kind](x)\n"
            "double = Doubler('twice')\nassert double(1) == 2\n",
        ),
    )
    assert (result["score"], result["bonus"]) == (2.5, 2)
    assert result["oddities"] == ["double is defined in 2 cells (3, 5); the last one counts."]
