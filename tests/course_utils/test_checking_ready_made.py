"""A notebook's check says at once that a function calls what the exercise asks to write."""

from __future__ import annotations

import linecache
from typing import Any

import pytest

from course_utils.checking.ready_made import ready_made_calls

FORBIDDEN = ("torch.softmax", "torch.sigmoid", "torch.nn.*", "torch.autograd.*")
SMOOTHING = ("torch.nn.functional.cross_entropy(label_smoothing)",)


def notebook(code: str) -> dict[str, Any]:
    """A namespace as a kernel has it, whose functions' source can be read."""
    name = f"<ipython-input-{hash(code)}>"
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, name, "exec"), namespace)
    return namespace


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import torch\ndef f(x):\n    return torch.softmax(x, 1)\n", ["torch.softmax"]),
        ("import torch as t\ndef f(x):\n    return t.softmax(x, 1)\n", ["torch.softmax"]),
        ("def f(x):\n    return x.softmax(1)\n", [".softmax (as torch.softmax)"]),
        ("def f(x):\n    return (x + 1).sigmoid_()\n", [".sigmoid_ (as torch.sigmoid)"]),
        ("import torch\ndef f(x):\n    return torch.special.softmax(x, 1)\n", ["torch.special.softmax"]),
        ("import torch\ndef f(x):\n    return torch.softmax.__call__(x, 1)\n", ["torch.softmax"]),
        (
            "import torch\ndef f(x):\n    return torch.ops.aten.softmax(x, 1) + torch._softmax(x, 1, False)\n",
            [f"torch.{name}, which hides what is called" for name in ("ops.aten.softmax", "_softmax")],
        ),
        ("from torch import softmax as s\ndef f(x):\n    return s(x, 1)\n", ["s"]),
        (
            "import torch.nn.functional as F\ndef f(x):\n    return F.softmax(x, 1) + F.relu(x)\n",
            ["torch.nn.functional.softmax", "torch.nn.functional.relu"],
        ),
        ("from torch.nn.functional import relu\ndef f(x):\n    return relu(x)\n", ["relu"]),
        (
            "import torch\ndef own(x):\n    return torch.softmax(x, 1)\ndef f(x):\n    return own(x)\n",
            ["torch.softmax"],
        ),
        ("def f(x):\n    x.sum().backward()\n    return x.grad\n", [".backward (autograd)"]),
        ("class f:\n    def __call__(self, x):\n        return x.softmax(1)\n", [".softmax (as torch.softmax)"]),
        # What is allowed
        ("import torch\ndef f(softmax):\n    return softmax(torch.exp(softmax.sum()))\n", []),
        ("import torch\ndef g(x):\n    return torch.softmax(x, 1)\ndef f(x):\n    return g(x)\n", []),
        ("import numpy as np\nclass Own:\n    tanh = 1\nown = Own()\ndef f(x):\n    return np.exp(x) + own.tanh\n", []),
        ("import torch\ndef f(x):\n    with torch.no_grad():\n        return x + 1\n", []),
        ("import torch\ndef f(x):\n    return torch.vmap(torch.exp)(x)\n", []),
        ("f = len\n", []),
        ("\n", []),
    ],
)
def test_names_that_stand_in_the_function(code: str, found: list[str]) -> None:
    assert ready_made_calls("f", notebook(code), FORBIDDEN, ["g"]) == found


def test_where_the_source_is_not_to_be_had_nothing_is_said() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(x):\n    return x.softmax(1)\n", namespace)
    assert ready_made_calls("f", namespace, FORBIDDEN, []) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("F.cross_entropy(x, y, label_smoothing=0.1)", ["torch.nn.functional.cross_entropy with label_smoothing"]),
        ("ce(x, y, label_smoothing=0.1)", ["torch.nn.functional.cross_entropy with label_smoothing"]),
        ("F.cross_entropy(x, y)", []),
        ("own(x, y, label_smoothing=0.1)", []),
    ],
)
def test_an_argument_may_be_what_is_not_allowed(code: str, found: list[str]) -> None:
    imports = "import torch.nn.functional as F\nfrom torch.nn.functional import cross_entropy as ce\n"
    own = "def own(x, y, label_smoothing):\n    return x\n"
    cell = f"{imports}{own}def f(x, y):\n    return {code}\n"
    assert ready_made_calls("f", notebook(cell), SMOOTHING, []) == found


def test_unfold_of_a_tensor_is_another_thing_than_that_of_functional() -> None:
    rule = ["torch.nn.functional.unfold"]
    assert ready_made_calls("f", notebook("def f(x):\n    return x.unfold(2, 3, 1)\n"), rule, []) == []
    code = "from torch.nn import functional\ndef f(x):\n    return functional.unfold(x, 3)\n"
    assert ready_made_calls("f", notebook(code), rule, []) == ["torch.nn.functional.unfold"]
