"""Submissions whose code is alike: copies in disguise are found, and what all write alike is not."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from autograder.similarity import ENOUGH_TOKENS, normalised, suspiciously_alike, tokens, with_what_it_uses

RELEASED = 'def mean_of(x, y):\n    """What it does."""\n    raise NotImplementedError()\n'
STEPS = [
    "total = {a} + {b}",
    "for k in range(len({a})):\n        {b} = {b} + {a}[k] * {c}",
    "while {c} < 10:\n        {c} += 1",
    "if {a} > {b}:\n        {a}, {b} = {b}, {a}",
    "{c} = sorted([{a}, {b}, {c}])[1]",
    "{a} = ({a} - {b}) / max({c}, 1e-8)",
    "{b} = sum(v * v for v in [{a}, {c}])",
    "{c} = [{a} for _ in range(3)][-1] or {b}",
    "try:\n        {a} = {b} / {c}\n    except ZeroDivisionError:\n        {a} = 0",
    "{c} = {{'a': {a}, 'b': {b}}}['a'] ** 2",
]


def solution(seed: int, names: tuple[str, ...] = ("x", "y", "z"), comment: str = "") -> str:
    """A function of eight steps, drawn and ordered at random."""
    rng = random.Random(seed)
    steps = [rng.choice(STEPS) for _ in range(8)]
    a, b, c = names
    body = "\n    ".join(s.format(a=a, b=b, c=c) for s in steps)
    return f'def mean_of({a}, {b}):\n    """What it does."""\n    {c} = 0{comment}\n    {body}\n    return {c}\n'


def a_class(size: int = 12) -> dict[str, dict[str, str]]:
    return {f"s{k}": {"mean_of": solution(k), "other": solution(1000 + k)} for k in range(size)}


RELEASED_CELLS = {"mean_of": RELEASED, "other": RELEASED}


def test_layout_names_comments_and_what_was_handed_out_do_not_count() -> None:
    one = 'def mean_of(x, y):\n    """What it does."""\n    # comment\n    s: float = (x + y)\n    return s / 2\n'
    other = "def mean_of(a, b):\n    result = a+b; return result/2   # mine\n"
    assert normalised(one, RELEASED) == normalised(other, RELEASED) == ["v = v + v", "return v / 2"]
    assert normalised(RELEASED, RELEASED) == [] and tokens(["v = v + 2"]) == ["v", "=", "v", "+", "2"]
    assert normalised("import torch.nn.functional as F\nF.softmax(X)") != normalised("F.relu(X)")


def test_a_copy_in_disguise_is_found_and_honest_work_is_not() -> None:
    code = a_class()
    assert suspiciously_alike(code, RELEASED_CELLS) == []
    disguised = {
        "mean_of": solution(3, ("left", "right", "out"), "  # my own"),
        "other": solution(1003, ("u", "w", "t")),
    }
    (found,) = suspiciously_alike({**code, "thief": disguised}, RELEASED_CELLS)
    assert found.students == ("s3", "thief") and found.score == pytest.approx(1, abs=1e-3)
    assert found.text < 0.95 and set(found.exercises) == {"mean_of", "other"}


TORCH_STEPS = [
    "t = torch.exp(x - x.max())",
    "y = torch.matmul(x, y.T)",
    "z = torch.sum(x * y, dim=1)",
    "x = torch.where(x > 0, x, torch.zeros_like(x))",
    "z = torch.log(torch.clamp(z, min=1e-8))",
    "y = y / y.sum(dim=1, keepdim=True)",
    "x = torch.cat([x, y], dim=0)",
    "z = -z.mean() + 0.5 * x.pow(2).sum()",
    "y = y[torch.argsort(z)]",
    "z = torch.einsum('ij,jk->ik', x, y)",
    "x = helper(x)",
]
HELPER = "def helper(x):\n    return torch.relu(x) + 1\n"


def steps(seed: int) -> str:
    """A helper and a function of nine steps, drawn and ordered at random, each a line."""
    rng = random.Random(seed)
    body = "\n    ".join(rng.choice(TORCH_STEPS) for _ in range(9))
    return f"{HELPER}def mean_of(x, y):\n    z = 0\n    {body}\n    return z\n"


def in_another_order(source: str) -> str:
    """The functions, and the steps of the long one, the other way round."""
    head, body = source.removeprefix(HELPER).split("    z = 0\n")
    *inner, last = body.rstrip().split("\n")
    return "\n".join([head + "    z = 0", *reversed(inner), last, "", HELPER])


DISGUISES: dict[str, Callable[[str], str]] = {
    "a library by another name": lambda s: (
        "import torch as nothing_like_it\n" + s.replace("torch.", "nothing_like_it.")
    ),
    "arguments by their other names": lambda s: s.replace("dim=", "axis=").replace("keepaxis", "keepdims"),
    "other names of functions": lambda s: s.replace("helper", "my_own"),
    "another order": in_another_order,
    "code that is never run": lambda s: s.replace(
        "z = 0", "z = 0\n    if False:" + "\n        z = torch.zeros(3)" * 12
    ),
    "a long constant in front": lambda s: f"_ = [{'1, ' * 5_000}]\n{s}",
    "a name for what is returned": lambda s: s.replace("return z", "result = z\n    return result"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_copy_in_another_disguise_is_found(disguise: str) -> None:
    names = [f"part{k}" for k in range(4)]
    code = {f"s{k:02d}": {n: steps(100 * k + j) for j, n in enumerate(names)} for k in range(20)}
    released = dict.fromkeys(names, RELEASED)
    assert suspiciously_alike(code, released) == []
    copy = {n: DISGUISES[disguise](source) for n, source in code["s07"].items()}
    (found,) = suspiciously_alike({**code, "thief": copy}, released)
    assert found.students == ("s07", "thief")


def test_attributes_of_ones_own_do_not_count() -> None:
    one = (
        "class Net:\n    def __init__(self):\n        self.w = 1\n    def half(self):\n        return self.w.grad / 2\n"
    )
    other = one.replace("self", "me").replace(".w", ".weight").replace("half", "part").replace("Net", "Model")
    assert normalised(one) == normalised(other) and "return v.v.grad / 2" in normalised(one)


def test_what_stands_in_a_cell_of_ones_own_counts_where_it_is_used() -> None:
    source = steps(1)
    hidden = source.replace("def mean_of", "def _hidden") + "def unused(x):\n    return x\n"
    whole = with_what_it_uses({"mean_of": "mean_of = _hidden\n", "other": "def other(x):\n    return x\n"}, [hidden])
    assert set(normalised(source)) - {"return torch.relu(v) + 1"} <= set(normalised(whole["mean_of"]))
    assert "def helper" in whole["mean_of"] and "unused" not in whole["mean_of"]
    assert whole["other"] == "def other(x):\n    return x\n"
    assert with_what_it_uses({"mean_of": source}, ["def (", "x = " + "(" * 5000]) == {"mean_of": source}


def test_a_copy_with_a_line_changed_is_found() -> None:
    code = a_class()
    lines = [c.replace("return z", "z = z + 1\n    return z") for c in code["s5"].values()]
    (found,) = suspiciously_alike({**code, "thief": dict(zip(code["s5"], lines, strict=True))}, RELEASED_CELLS)
    assert found.students == ("s5", "thief") and 0.75 < found.score < 1


def test_a_few_exercises_copied_are_found_among_many() -> None:
    names = [f"part{k}" for k in range(8)]
    code = {f"s{k}": {n: solution(100 * k + j) for j, n in enumerate(names)} for k in range(12)}
    released = dict.fromkeys(names, RELEASED)
    assert suspiciously_alike(code, released) == []
    thief = {n: solution(5000 + j) for j, n in enumerate(names)}
    three = {n: solution(400 + j, ("left", "right", "out")) for j, n in enumerate(names[:3])}
    (found,) = suspiciously_alike({**code, "thief": {**thief, **three}}, released)
    assert found.students == ("s4", "thief") and list(found.exercises)[:3] == names[:3]
    two = dict(list(three.items())[:2])
    assert suspiciously_alike({**code, "thief": {**thief, **two}}, released) == []


def test_what_the_whole_class_writes_alike_says_nothing() -> None:
    same = {f"s{k}": {"mean_of": solution(1), "other": solution(2)} for k in range(8)}
    assert suspiciously_alike(same, RELEASED_CELLS) == []
    short = {f"s{k}": {"mean_of": f"def mean_of(x, y):\n    return x ** {k % 2}\n"} for k in range(8)}
    assert suspiciously_alike(short, RELEASED_CELLS) == []


def test_nothing_written_and_what_is_no_python_are_no_reason_to_stop() -> None:
    deep = "x = " + "(" * 5000 + "1" + ")" * 5000
    code = {
        "a": {},
        "b": {"mean_of": RELEASED},
        "c": {"mean_of": "def ("},
        "d": {"mean_of": deep},
        "e": {"mean_of": "é\0"},
    }
    assert suspiciously_alike(code, RELEASED_CELLS) == [] and suspiciously_alike({}, RELEASED_CELLS) == []
    broken = "def f(:\n" + "    x = x + 1\n" * ENOUGH_TOKENS
    assert len(tokens(normalised(broken))) > ENOUGH_TOKENS
