"""Which exercises may be judged in one process: those that can keep nothing from one call to the next."""

from __future__ import annotations

import ast

import pytest

from autograder.assignment import load_assignment
from autograder.stateless import keeping_nothing
from autograder.submitted_source import Source

ROLES = ("exercise", "setup")
HEAD = "import math\nimport torch\nimport torch.nn.functional as F\nfrom torch import Tensor\n"
KEEPING = {
    "a list of the notebook's": "seen = []\ndef f(x):\n    seen.append(x)\n    return x",
    "a tensor of the notebook's": "import torch\nW = torch.zeros(3)\ndef f(x):\n    W.add_(x)\n    return W",
    "a helper's list": "seen = []\ndef g(x):\n    seen.append(x)\ndef f(x):\n    g(x)\n    return x",
    "a global": "kept = 0\ndef f(x):\n    global kept\n    kept += 1\n    return x",
    "a global nowhere else": "def f(x):\n    global kept\n    kept = x\n    return x",
    "an attribute of itself": "def f(x):\n    f.kept = x\n    return x",
    "a dict that is its attribute": "def f(x):\n    f.kept['x'] = x\n    return x",
    "a mutable default": "def f(x, kept=[]):\n    kept.append(x)\n    return x",
    "a helper's mutable default": "def g(x, kept={}):\n    kept[0] = x\ndef f(x):\n    g(x)\n    return x",
    "a default by name": "def f(x, *, kept={}):\n    kept[0] = x\n    return x",
    "a cache": "from functools import lru_cache\n@lru_cache\ndef f(x):\n    return x",
    "a closure": (
        "def make():\n    kept = []\n    def f(x):\n        kept.append(x)\n        return x\n    return f\n"
        "f = make()"
    ),
    "an object": "class F:\n    def __call__(self, x):\n        self.kept = x\n        return x\nf = F()",
    "a class": "class f:\n    kept = []\n    def __init__(self, x):\n        self.kept.append(x)",
    "a class it makes": "class A:\n    n = 0\ndef f(x):\n    A.n += 1\n    return x",
    "an attribute of torch": "def f(x):\n    torch.kept = x\n    return x",
    "an attribute of a tensor's class": "def f(x):\n    Tensor.kept = x\n    return x",
    "torch by another name": "def f(x):\n    t = torch\n    t.kept = x\n    return x",
    "a library's table": "def f(x):\n    vars(torch)['kept'] = x\n    return x",
    "its own table": "def f(x):\n    f.__dict__['kept'] = x\n    return x",
    "setattr": "def f(x):\n    setattr(torch, 'kept', x)\n    return x",
    "globals": "def f(x):\n    globals()['kept'] = x\n    return x",
    "a setting": "def f(x):\n    torch.set_default_dtype(torch.float64)\n    return x",
    "grad mode": "def f(x):\n    torch.set_grad_enabled(False)\n    return x",
    "a file": "def f(x):\n    torch.save(x, '/tmp/kept')\n    return x",
    "a file opened": "def f(x):\n    open('/tmp/kept', 'w')\n    return x",
    "a file of NumPy's": "def f(x):\n    x.numpy().tofile('/tmp/kept')\n    return x",
    "a file in memory": "def f(x):\n    torch.from_file('/dev/shm/kept', shared=True, size=1)[0] = 1\n    return x",
    "memory that was used before": "def f(x):\n    return torch.empty(3)",
    "the same by a method": "def f(x):\n    return x.new_empty(3)",
    "a module in a function": "def f(x):\n    import builtins\n    builtins.kept = x\n    return x",
    "a frame": "def f(x):\n    try:\n        1 / 0\n    except Exception as e:\n        e.tb_frame\n    return x",
    "a suspended function": "def f(x):\n    yield x",
    "an inner function's variable": (
        "def f(x):\n    n = 0\n    def g():\n        nonlocal n\n        n += 1\n    g()\n    return x"
    ),
    "a method that was replaced": "def total(x):\n    return 0\nTensor.sum = total\ndef f(x):\n    return x.sum()",
    "one replaced by a decorator": (
        "def patch(g):\n    Tensor.sum = g\n@patch\ndef g(x):\n    return 0\ndef f(x):\n    return x.sum()"
    ),
    "one replaced by a subclass": (
        "class A(torch.Tensor):\n    def __init_subclass__(cls):\n        Tensor.sum = 0\n"
        "class B(A):\n    pass\ndef f(x):\n    return x.sum()"
    ),
    "one replaced by a default": "def g(x=setattr(Tensor, 'sum', 0)):\n    pass\ndef f(x):\n    return x.sum()",
    "one replaced by a hint": "def g(x: setattr(Tensor, 'sum', 0)):\n    pass\ndef f(x):\n    return x.sum()",
    "a star import": "from torch import *\ndef f(x):\n    return exp(x)",
    "nothing that is known": "f = undefined",
    "another library": "import numpy as np\ndef f(x):\n    return np.exp(x)",
}  # fmt: skip
KEEPING_NOTHING = {
    "operators": "def f(x, y):\n    return torch.exp(x) @ y.T + math.log(2.0)",
    "methods": "def f(x):\n    return (x - x.max(1, keepdim=True).values).exp_().sum()",
    "functions of torch.nn": "def f(x):\n    return F.relu(torch.nn.functional.pad(x, (1, 1)))",
    "loops and containers": (
        "def f(x):\n    rows = []\n    for i, row in enumerate(x):\n        rows.append(row * i)\n"
        "    return {'x': torch.stack(rows)}"
    ),
    "in place on its own": "def f(x):\n    out = torch.zeros_like(x)\n    out[0] = x[0]\n    out += 1\n    return out",
    "helpers and constants": "EPS = 1e-8\ndef g(x):\n    return x + EPS\ndef f(x):\n    return g(x)",
    "an alias": "def g(x):\n    return x\nf = g",
    "a library's function by another name": "power = torch.exp\ndef f(x):\n    return power(x)",
    "type hints": "def f(x: Tensor, eps: float = 1e-8) -> tuple[Tensor, Tensor]:\n    y: Tensor = x\n    return x, y",
    "no_grad": "def f(x):\n    with torch.no_grad():\n        return x.clone()",
    "inner functions": "def f(x):\n    def g(y):\n        return x + y\n    return g(1) + (lambda z: z)(x)",
    "generators": "def f(x, generator):\n    return torch.rand(3, generator=generator), generator.get_state()",
    "errors": (
        "def f(x):\n    try:\n        return x / 0\n    except ZeroDivisionError as e:\n"
        "        raise ValueError(f'{x}') from e"
    ),
    "beside a layer": (
        "class Layer(torch.nn.Module):\n    def forward(self, x):\n        self.kept = x\n        return x\n"
        "def f(x):\n    return x"
    ),
}  # fmt: skip


def source(program: str) -> Source:
    return Source([ast.parse(HEAD + program)])


@pytest.mark.parametrize("program", KEEPING.values(), ids=KEEPING)
def test_what_may_keep_something_is_seen(program: str) -> None:
    assert keeping_nothing(source(program), ["f"]) == set()


@pytest.mark.parametrize("program", KEEPING_NOTHING.values(), ids=KEEPING_NOTHING)
def test_plain_functions_keep_nothing(program: str) -> None:
    assert keeping_nothing(source(program), ["f"]) == {"f"}


def test_a_name_that_nothing_defines_is_not_taken_for_plain() -> None:
    assert not keeping_nothing(source("x = 1"), "f") | keeping_nothing(source("from torch import exp as f"), "f")


@pytest.mark.parametrize(
    ("name", "others"),
    [("a1", set()), ("a2", set()), ("a3", {"train_epoch", "evaluate", "saliency_map", "fgsm"}), ("a4", {"train_rnn"})],
)
def test_the_reference_keeps_nothing_but_in_its_layers(name: str, others: set[str]) -> None:
    assignment = load_assignment(name)
    cells = {role: [ast.parse(c.program) for c in assignment.reference_cells() if c.role == role] for role in ROLES}
    read = Source(cells["exercise"], cells["setup"])
    keeping = set(assignment.exercises) - keeping_nothing(read, assignment.exercises)
    layers = {s.name for s in read.statements if isinstance(s, ast.ClassDef)}
    assert keeping <= layers | others  # which set attributes, or use what is not listed
