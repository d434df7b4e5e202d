"""What the hand-written exercises of Assignment 3 may not call is the same in the notebook's check and in grading."""

from __future__ import annotations

import ast
import linecache
from pathlib import Path
from typing import Any

import pytest

from autograder.assignment import load_assignment
from autograder.rules import read
from autograder.submitted_source import Source
from course_utils.checking.ready_made import ready_made_calls

SETUP = "import numpy as np\nimport torch\nfrom torch import nn\nfrom torch.nn import functional\n"
ASSIGNMENT = load_assignment("a3_convnets", Path(__file__).parents[2])

# (what stands before the function, what it imports, what it returns)
REFUSED = [
    ("", "", "torch.nn.modules.conv.Conv2d(3, 4, 3)(X)"),
    ("", "", "nn.modules.Conv2d(3, 4, 3)(X)"),
    ("", "", "torch.nn.modules.utils._pair(stride)"),
    ("from torch.nn.modules.utils import _pair\n", "", "_pair(stride)"),
    ("", "from torch.nn.modules.utils import _pair", "_pair(stride)"),
    ("", "from torch.nn.modules import conv", "conv.Conv2d(3, 4, 3)(X)"),
    ("", "import torch.nn.modules.conv as c", "c.Conv2d(3, 4, 3)(X)"),
    ("from torch.nn.modules.conv import Conv2d\n", "", "Conv2d(3, 4, 3)(X)"),
    ("", "", "nn.Conv2d(3, 4, 3)(X)"),
    ("", "from torch.nn import Conv2d", "Conv2d(3, 4, 3)(X)"),
    ("class Own(nn.Conv2d):\n    pass\n", "", "Own(3, 4, 3)(X)"),
    ("class Own(nn.modules.conv.Conv2d):\n    pass\nclass Mine(Own):\n    pass\n", "", "Mine(3, 4, 3)(X)"),
    ("", "", "functional.conv2d(X, F, b)"),
    ("", "import torch as t", "t.conv2d(X, F, b)"),
    ("", "import torch.nn.functional as FF", "FF.conv2d(X, F, b)"),
    ("", "from torch.nn.functional import unfold", "unfold(X, 3)"),
    ("from functools import partial\nconv = partial(functional.conv2d, stride=2)\n", "", "conv(X, F, b)"),
    ("", "", "nn.grad.conv2d_weight(X, F.shape, b)"),
    ("", "", "torch.autograd.grad(X, F)"),
    ("", "", "torch.func.vjp(X, F)"),
    ("", "", "torch.zeros(3, requires_grad=True)"),
    ("", "X.requires_grad = True", "X"),
    ("", "", "X.requires_grad_()"),
]
ALLOWED = [
    ("", "", "X.unfold(2, 3, 1)"),
    ("", "", "functional.pad(X, (1, 1)) + nn.functional.relu(X)"),
    ("", "from torch.nn.functional import pad", "pad(X, (1, 1))"),
    ("", "", "isinstance(X, nn.Module)"),
    ("class Own(nn.Module):\n    def forward(self, X):\n        return X\n", "", "Own()(X)"),
    ("class Own:\n    def conv2d(self, X):\n        return X\n", "", "Own().conv2d(X)"),
    ("", "", "torch.zeros(3, requires_grad=False)"),
    ("", "", "[torch.no_grad(), torch.enable_grad()]"),
    ("", "from scipy import signal", "signal.correlate(X.numpy(), F.numpy())"),
    ("from scipy.signal import correlate2d\n", "", "correlate2d(X.numpy(), F.numpy())"),
    ("", "import numpy.lib.stride_tricks as st", "st.sliding_window_view(X.numpy(), (3, 3))"),
]


def told(before: str, first: str, result: str) -> tuple[list[str], list[str]]:
    """What the notebook's check and what grading finds in a `conv2d_forward` of these lines."""
    body = "".join(f"    {line}\n" for line in (*first.splitlines(), f"return {result}"))
    code = f"{before}def conv2d_forward(X, F, b, stride, padding):\n{body}"
    name = f"<ipython-input-{hash(code)}>"
    linecache.cache[name] = (0, None, (SETUP + code).splitlines(True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(SETUP + code, name, "exec"), namespace)
    rules, names = ASSIGNMENT.exercises["conv2d_forward"].forbidden, list(ASSIGNMENT.exercises)
    source = Source([ast.parse(code)], [ast.parse(SETUP)])
    reading = read(source, "conv2d_forward", rules, names)
    return ready_made_calls("conv2d_forward", namespace, rules, names), reading.violations


@pytest.mark.parametrize("lines", REFUSED, ids=" ".join)
def test_what_is_not_allowed_is_told_in_the_notebook_and_in_grading(lines: tuple[str, str, str]) -> None:
    in_notebook, in_grading = told(*lines)
    assert in_notebook
    assert in_grading


@pytest.mark.parametrize("lines", ALLOWED, ids=" ".join)
def test_what_is_allowed_is_refused_nowhere(lines: tuple[str, str, str]) -> None:
    assert told(*lines) == ([], [])
