"""What an exercise may not call is read from the source: ways around it, and right code that must not be refused."""

from __future__ import annotations

import ast
import json

import pytest

from autograder.rules import read
from autograder.submission import read_notebook_bytes
from autograder.submitted_source import Source

FORBIDDEN = (
    "torch.softmax",
    "torch.log_softmax",
    "torch.logsumexp",
    "torch.sigmoid",
    "torch.logsigmoid",
    "torch.special.expit",
    "torch.binary_cross_entropy_with_logits",
    "torch.nn.*",
    "torch.optim.*",
    "torch.autograd.*",
    "torch.func.*",
    "torchvision.transforms.*",
)
EXERCISES = ("softmax", "cross_entropy", "cost", "flip")
SETUP = "import math\nimport matplotlib.pyplot as plt\nimport numpy as np\nimport torch\n"
RIGHT = """
def softmax(scores):
    e = torch.exp(scores - scores.max(1, keepdim=True).values)
    return e / e.sum(1, keepdim=True)
"""


def violations(cells: list[str], exercise: str = "softmax", setup: str = SETUP) -> list[str] | None:
    """What reading finds in a notebook of these cells; None where it defines no such exercise."""
    notebook = {"cells": [{"cell_type": "code", "source": c, "metadata": {}} for c in cells], "nbformat": 4}
    submission = read_notebook_bytes(json.dumps(notebook).encode(), EXERCISES)
    if exercise not in submission.defined:
        return None
    source = Source([c.tree for c in submission.cells if c.tree is not None], [ast.parse(setup)])
    return read(source, exercise, FORBIDDEN, EXERCISES).violations


def body(*lines: str) -> str:
    """A softmax of these lines."""
    return "def softmax(scores):\n" + "".join(f"    {line}\n" for line in lines)


AROUND = {
    # plainly
    "a function of torch": [body("return torch.softmax(scores, 1)")],
    "a method": [body("return scores.softmax(1)")],
    "in place": [body("return torch.sigmoid_(scores)")],
    "of the class Tensor": [body("return torch.Tensor.softmax(scores, 1)")],
    "of torch.special": [body("return torch.special.softmax(scores, 1)")],
    "called by its method": [body("return torch.softmax.__call__(scores, 1)")],
    "of torch.nn.functional": [body("return torch.nn.functional.softmax(scores, 1)")],
    "a layer": [body("return torch.nn.Softmax(1)(scores)")],
    "private to torch": [body("return torch._softmax(scores, 1, False)")],
    "an operator of torch": [body("return torch.ops.aten.softmax(scores, 1)")],
    # by another name
    "import as": ["import torch.nn.functional as F\n" + body("return F.softmax(scores, 1)")],
    "from import": ["from torch.nn.functional import softmax as s\n" + body("return s(scores, 1)")],
    "from torch import nn": ["from torch import nn as q\n" + body("return q.functional.softmax(scores, 1)")],
    "import inside": [body("import torch.nn.functional as F", "return F.softmax(scores, 1)")],
    "from import inside": [body("from torch import softmax as s", "return s(scores, 1)")],
    "star import": ["from torch.nn.functional import *\n" + body("return log_softmax(scores, 1).exp()")],
    "star import inside another cell": ["from torch import *", body("return sigmoid(scores)")],
    "the import is the exercise": ["from torch.nn.functional import softmax"],
    "the import comes after the exercise": [RIGHT, "from torch.nn.functional import softmax"],
    "the star import comes after the exercise": [RIGHT + "from torch.nn.functional import *\n"],
    "alias": [body("f = torch.softmax", "return f(scores, 1)")],
    "alias outside": ["f = torch.softmax\n" + body("return f(scores, 1)")],
    "alias of the module": [body("t = torch", "return t.nn.functional.cross_entropy(scores, scores)")],
    "alias of a submodule": [body("n = torch.nn", "return n.functional.cross_entropy(scores, scores)")],
    "alias of a submodule outside": ["n = torch.nn\n" + body("return n.functional.cross_entropy(scores, scores)")],
    "alias in a tuple": [body("t, u = torch, 3", "return t.nn.functional.cross_entropy(scores, scores)")],
    "a module's name is a variable elsewhere": [
        "from torch import nn as q\ndef other(q):\n    return q\n" + body("return q.functional.gelu(scores)")
    ],
    "torch is a variable elsewhere": ["def other(torch):\n    return torch\n", body("return torch.softmax(scores, 1)")],
    "operator is a variable elsewhere": [
        "import operator as o\ndef other(o):\n    return o\n" + body('return o.methodcaller("soft" + "max", 1)(scores)')
    ],
    "another library's torch": [
        "import torchvision\n" + body("return torchvision.ops.misc.torch.softmax(scores, 1)"),
    ],
    "another library's nn": [
        "import torchvision\n" + body("return torchvision.models.resnet.nn.functional.softmax(scores, 1)"),
    ],
    "from another library": [
        "from torchvision.ops.focal_loss import F\n" + body("return F.softmax(scores, 1)"),
    ],
    "the checks' own": ["import checks\n" + body("return checks.F.softmax(scores, 1)")],
    "from the checks": ["from checks import F as f\n" + body("return f.softmax(scores, 1)")],
    # by a name that does not stand there
    "getattr": [body('return getattr(torch, "softmax")(scores, 1)')],
    "getattr of a method": [body('return getattr(scores, "softmax")(1)')],
    "getattr computed": [body('return getattr(torch, "soft" + "max")(scores, 1)')],
    "getattr aliased": [body("g = getattr", 'return g(torch, "soft" + "max")(scores, 1)')],
    "getattr in reduce": [
        "import functools\n"
        + body('return functools.reduce(getattr, ["nn", "functional", "softmax"], torch)(scores, 1)')
    ],
    "__dict__": [body('return torch.__dict__["soft" + "max"](scores, 1)')],
    "vars": [body('return vars(torch)["soft" + "max"](scores, 1)')],
    "eval": [body('return eval("torch.soft" + "max")(scores, 1)')],
    "eval aliased": [body("e = eval", 'return e("torch.soft" + "max")(scores, 1)')],
    "eval in map": [body('return list(map(eval, ["torch.soft" + "max"]))[0](scores, 1)')],
    "__builtins__": [body('return __builtins__["eval"]("torch.soft" + "max")(scores, 1)')],
    "exec": [body('exec("r = torch.soft" + "max(scores, 1)")', "return r")],
    "importlib": ["import importlib\n" + body('return importlib.import_module("torch.n" + "n")')],
    "__import__": [body('return __import__("torch").nn')],
    "operator.methodcaller": ["import operator\n" + body('return operator.methodcaller("softmax", 1)(scores)')],
    "operator.attrgetter": [
        "from operator import attrgetter as a\n" + body('return a("soft" + "max")(torch)(scores, 1)')
    ],
    "functools.partial": ["import functools\nf = functools.partial(torch.softmax, dim=1)\n" + body("return f(scores)")],
    "list of torch's functions": [
        "import torch.overrides\n"
        + body("return [f for f in torch.overrides.get_overridable_functions()[torch]][7](scores)")
    ],
    "globals of a function": [body('return softmax.__globals__["torch"]')],
    "subclasses": [body("return ().__class__.__bases__[0].__subclasses__()")],
    "sys.modules": ["import sys\n" + body('return sys.modules["torch.n" + "n"]')],
    "get_ipython": [body('return get_ipython().ev("torch.soft" + "max")(scores, 1)')],
    "the shell imported": [
        "from IPython import get_ipython as g\n" + body('return g().ev("torch.soft" + "max")(scores, 1)')
    ],
    "numpy's pickles": ["import numpy as np\n" + body('return np.load("/tmp/f.npy", allow_pickle=True)[0](scores, 1)')],
    # at another place
    "a helper": ["def helper(s):\n    return torch.softmax(s, 1)\n", body("return helper(scores)")],
    "a helper of a helper": [
        "def b(s):\n    return torch.softmax(s, 1)\ndef a(s):\n    return b(s)\n",
        body("return a(scores)"),
    ],
    "a nested function": [body("def f(s):", "    return torch.softmax(s, 1)", "return f(scores)")],
    "a lambda": ["softmax = lambda scores: torch.softmax(scores, 1)"],
    "a default argument": ["def softmax(scores, f=torch.softmax):\n    return f(scores, 1)\n"],
    "a decorator": [
        "def wrap(f):\n    return lambda s: torch.softmax(s, 1)\n@wrap\ndef softmax(scores):\n    return scores\n"
    ],
    "a table": ['table = {"f": torch.softmax}\n' + body('return table["f"](scores, 1)')],
    "a table filled later": ["table = {}\n", 'table["f"] = torch.softmax\n' + body('return table["f"](scores, 1)')],
    "a table filled by a method": ["table = []\ntable.append(torch.softmax)\n" + body("return table[0](scores, 1)")],
    "a table filled by a function": [
        "table = []\ndef fill(t):\n    t.append(torch.softmax)\nfill(table)\n" + body("return table[0](scores, 1)")
    ],
    "a table filled by another exercise's default": [
        "table = []\n" + body("return table[0](scores, 1)"),
        "def cost(x, _=table.append(torch.softmax)):\n    return x\n",
        "def cost(x):\n    return x\n",
    ],
    "a class attribute": ["class A:\n    f = torch.softmax\n" + body("return A.f(scores, 1)")],
    "a class attribute set later": ["class A:\n    pass\nA.f = torch.softmax\n" + body("return A.f(scores, 1)")],
    "a class": ["class softmax:\n    def __new__(cls, s):\n        return torch.softmax(s, 1)\n"],
    "an instance": [
        "class A:\n    def __call__(self, s):\n        return torch.softmax(s, 1)\nsoftmax = A()\n",
    ],
    "a registered subclass": [
        "class A:\n    known = []\n    @classmethod\n    def add(cls, c):\n        cls.known.append(c)\n"
        "@A.add\nclass B:\n    def run(self, s):\n        return torch.softmax(s, 1)\n"
        + body("return A.known[0]().run(scores)")
    ],
    "walrus": [body("return (f := torch.softmax)(scores, 1)")],
    "walrus outside": [RIGHT + "(softmax := torch.softmax)\n"],
    "comprehension": [body("return [f(scores, 1) for f in (torch.softmax,)][0]")],
    "for loop": [RIGHT + "for softmax in (torch.softmax,):\n    pass\n"],
    "match": [RIGHT + "match torch.softmax:\n    case softmax:\n        pass\n"],
    "conditional": [RIGHT + "if True:\n    softmax = torch.softmax\n"],
    "try": [RIGHT + "try:\n    softmax = torch.softmax\nexcept Exception:\n    pass\n"],
    "a later cell": [RIGHT, "softmax = torch.softmax"],
    "global": [
        body("global g", "g = torch.softmax", "return g(scores, 1)"),
    ],
    "its code replaced": [
        RIGHT + "def other(scores):\n    return torch.softmax(scores, 1)\nsoftmax.__code__ = other.__code__\n"
    ],
    "an attribute of its own": [body("return softmax.f(scores, 1)") + "softmax.f = torch.softmax\n"],
    "set through locals": [RIGHT + 'locals()["softmax"] = torch.softmax\n'],
    "set through vars": [RIGHT + 'vars()["softmax"] = torch.softmax\n'],
    "set through globals": [RIGHT + "globals().update(softmax=torch.softmax)\n"],
    "set through __main__": [RIGHT + "import __main__\n__main__.softmax = torch.softmax\n"],
    "set through sys.modules": [RIGHT + 'import sys\nsys.modules["__main__"].softmax = torch.softmax\n'],
    "set through the shell": [RIGHT + 'get_ipython().user_ns["softmax"] = torch.softmax\n'],
    "set by the shell": [RIGHT + 'get_ipython().run_cell("softmax = torch.softmax")\n'],
    "set by exec": [RIGHT + 'exec("softmax = torch.softmax")\n'],
    "code rewritten by the shell": [
        "get_ipython().input_transformers_post.append(lambda lines: lines)\ndef cost(x):\n    return x\n",
        RIGHT,
    ],
    "the shell by its class": [
        "from IPython.core.interactiveshell import InteractiveShell as S\nS.instance().run_cell('1')\n" + RIGHT
    ],
    "builtins": ["import builtins\nbuiltins.f = torch.softmax\n" + body("return f(scores, 1)")],
    "torch patched": ["torch.f = torch.softmax\n" + body("return torch.f(scores, 1)")],
    "torch patched by setattr": ['setattr(torch, "f", torch.softmax)\n' + body("return torch.f(scores, 1)")],
    "torch patched through its dict": ['torch.__dict__["f"] = torch.softmax\n' + body("return torch.f(scores, 1)")],
    "numpy patched": ["import numpy as np\nnp.f = torch.softmax\n" + body("return np.f(scores, 1)")],
    "an operator patched": [
        "torch.Tensor.__truediv__ = lambda a, b: torch.softmax(a, 1)\n" + body("return scores / scores")
    ],
    "patched by a function": [
        "def patch():\n    torch.Tensor.__neg__ = lambda a: torch.softmax(a, 1)\npatch()\n" + body("return -scores")
    ],
    "mock": [
        "from unittest import mock\nmock.patch.object(torch, 'f', torch.softmax).start()\n"
        + body("return torch.f(scores)")
    ],
    "a mode of torch": [
        "from torch.overrides import TorchFunctionMode\nclass M(TorchFunctionMode):\n"
        "    def __torch_function__(self, f, types, a=(), k=None):\n        return torch.softmax(a[0], 1)\n"
        "M().__enter__()\n" + body("return -scores")
    ],
    # own methods that are not
    "an exercise with a parameter called self": [
        "class A:\n    def softmax(self):\n        return self\ndef softmax(self):\n    return self.softmax(1)\n"
    ],
    "a method called unbound": [
        "class A:\n    def run(self):\n        return self.softmax(1)\n    def softmax(self, k):\n        return k\n"
        + body("return A.run(scores)")
    ],
    "a static method": [
        "class A:\n    @staticmethod\n    def run(self):\n        return self.softmax(1)\n    def softmax(self):\n"
        "        return 1\n" + body("return A().run(scores)")
    ],
    "self bound anew": [
        "class A:\n    def softmax(self, k):\n        return k\n    def run(self, s):\n        self = s\n"
        "        return self.softmax(1)\n" + body("return A().run(scores)")
    ],
    "a class that inherits": [
        "class A(torch.Tensor):\n    def softmax(self, k):\n        return k\n    def run(self):\n"
        "        return self.softmax(1)\ndel A.softmax\n" + body("return scores.as_subclass(A).run()")
    ],
    # what may be used leads to what may not
    "builtins of a module that may be used": [
        "import IPython.display as d\n" + body("return d.__builtins__['ev' + 'al']('torch.soft' + 'max')(scores, 1)")
    ],
    "its dictionary": ["from IPython import display as d\n" + body("return d.__dict__['os']")],
    "a module that it imports": ["import IPython.display\n" + body("return IPython.display.os.sys.modules")],
    "builtins imported from it": ["from IPython.display import __builtins__ as b\n" + body("return b['eval']")],
    "globals of check": [body("from course_utils.checking import checker", "return checker.__globals__['torch']")],
    "a list's method": ["import sys\n" + body("return sys.path.append.__self__")],
    # a definition that is never reached
    "an assignment that fails": ["h = torch.softmax", "h = undefined\n" + body("return h(scores, 1)")],
    "a default that fails": ["h = torch.softmax", "def h(a=1 / 0): ...\n" + body("return h(scores, 1)")],
    "a hint that fails": ["h = torch.softmax", "def h(a: undefined): ...\n" + body("return h(scores, 1)")],
    "a class that fails": ["h = torch.softmax", "class h(undefined): ...\n" + body("return h(scores, 1)")],
    "an import that fails": ["h = torch.softmax", "from torch import nothing as h\n" + body("return h(scores, 1)")],
    "the exercise, by a default that fails": [
        body("return torch.softmax(scores, 1)"),
        "def softmax(scores, a=1 / 0):\n    return scores\n",
    ],
    "the exercise, imported before": [
        "from torch.nn.functional import softmax",
        "@undefined\ndef softmax(scores):\n    return scores\n",
    ],
    # autograd
    "backward": [
        body("scores = scores.detach().requires_grad_()", "scores.exp().sum().backward()", "return scores.grad")
    ],
    "requires_grad as a keyword": [body("w = torch.zeros(3, requires_grad=True)", "return w")],
    "requires_grad set": [body("scores.requires_grad = True", "return scores")],
    "requires_grad in a dict": [
        "class A:\n    def backward(self):\n        pass\n"
        + body('w = torch.zeros(3, **{"requires_grad": True})', "w.sum().backward()", "return w.grad")
    ],
    "methods of Tensor": [
        body("torch.Tensor.requires_grad_(scores)", "torch.Tensor.backward(scores)", "return scores")
    ],
    "torch.autograd.grad": [body("return torch.autograd.grad(scores.sum(), scores)")],
    "torch.func": [body("return torch.func.grad(lambda s: s.sum())(scores)")],
    "a parameter": ["from torch.nn import Parameter\n" + body("return Parameter(scores)")],
}


@pytest.mark.parametrize("cells", AROUND.values(), ids=AROUND.keys())
def test_ways_around_are_refused(cells: list[str]) -> None:
    assert violations(cells) != []


FINE = {
    "plainly": [RIGHT],
    "a docstring": [body('"""As torch.softmax and torch.nn.functional.softmax, `eval`, __dict__."""', "return scores")],
    "a comment": [body("# not torch.softmax(scores, 1)", "return scores.exp()")],
    "a string": [body('name = "torch.softmax"', "return scores.exp()")],
    "unused imports": ["import torch.nn as nn\nimport torch.nn.functional as F\nfrom torch import optim\n" + RIGHT],
    "star import of numpy": ["from numpy import *\n" + RIGHT],
    "local variable called sigmoid": [body("sigmoid = 1 / (1 + (-scores).exp())", "return sigmoid")],
    "local variable called softmax": [body("softmax = scores.exp()", "return softmax / softmax.sum(1, keepdim=True)")],
    "local variable called F": [
        "import torch.nn.functional as F\n" + body("N, F = scores.shape", "return scores.exp() / F"),
    ],
    "parameter called nn": [
        "import torch.nn as nn\ndef helper(nn):\n    return nn + 1\n" + body("return helper(scores)")
    ],
    "loop variable called optim": [
        "from torch import optim\n" + body("for optim in range(3):", "    scores = scores + optim", "return scores")
    ],
    "comprehension variable called F": [
        "import torch.nn.functional as F\n" + body("return torch.stack([F.exp() for F in scores])"),
    ],
    "numpy's exp": [body("s = scores.numpy()", "return torch.from_numpy(np.exp(s))")],
    "vmap of torch.func": ["from torch.func import vmap\n" + body("return vmap(lambda s: s.exp())(scores)")],
    "scipy's softmax": ["import scipy.special\n" + body("return torch.from_numpy(scipy.special.softmax(scores, 1))")],
    "from scipy": ["from scipy.special import expit, logsumexp\n" + body("return expit(scores) + logsumexp(scores)")],
    "a self-test": [RIGHT + "x = torch.randn(3, 4)\nprint(torch.allclose(softmax(x), torch.softmax(x, 1)))\n"],
    "a self-test with assert": [
        RIGHT + "x = torch.randn(3, 4)\nassert (softmax(x) - x.softmax(1)).abs().max() < 1e-6\n"
    ],
    "a self-test that keeps the answer": [RIGHT + "expected = torch.softmax(torch.randn(3, 4), 1)\n"],
    "a self-test in a loop": [RIGHT + "for f in (softmax, torch.softmax):\n    print(f)\n"],
    "a self-test in a function": [
        "EPS = 1e-9\ndef one_hot(y):\n    return torch.eye(3)[y] + EPS\n",
        body("return one_hot(scores) + EPS"),
        "import torch.nn.functional as F\n"
        "def test_softmax():\n    assert torch.allclose(one_hot(1) * softmax(EPS), F.softmax(one_hot(2), 1))\n",
    ],
    "a self-test in another exercise's cell": ["def cost(x):\n    return x\nprint(torch.softmax(cost(1), 1))\n", RIGHT],
    "an experiment with torch.nn": [
        RIGHT,
        "model = torch.nn.Linear(3, 4)\noptimizer = torch.optim.SGD(model.parameters())",
    ],
    "a helper class with a method called softmax": [
        "class Head:\n    def __init__(self, k):\n        self.k = k\n"
        "    def softmax(self, s):\n        return s.exp()\n"
        "    def forward(self, s):\n        return self.softmax(s)\n",
        body("head = Head(3)", "return head.forward(scores) + head.softmax(scores)"),
    ],
    "a static method called softmax": [
        "class Head:\n    @staticmethod\n    def softmax(s):\n        return s.exp()\n"
        + body("return Head.softmax(scores)")
    ],
    "layers with backward": [
        "class Linear:\n    def __init__(self):\n        self.func = torch.exp\n    def backward(self, g):\n"
        "        return self.func(g)\n",
        body("layers = [Linear(), Linear()]", "for layer in reversed(layers):", "    scores = layer.backward(scores)"),
    ],
    "an attribute called func": [
        "class A:\n    def __init__(self, func):\n        self.func = func\n",
        body("a = A(torch.exp)", "return a.func(scores)"),
    ],
    "type hints": [
        "def softmax(scores: torch.Tensor, layer: torch.nn.Module | None = None) -> torch.Tensor:\n    return scores\n"
    ],
    "a hint on a variable": [body("out: torch.nn.Module | None = None", "return scores")],
    "requires_grad off": [body("w = torch.zeros(3, requires_grad=False)", "return w")],
    "no_grad": [body("with torch.no_grad():", "    return scores.exp()")],
    "detach": [body("return scores.detach().exp()")],
    "reading requires_grad": [body("if scores.requires_grad:", "    scores = scores.detach()", "return scores.exp()")],
    "super and dunders": [
        "class Base:\n    def __init__(self):\n        self.k = 1\nclass A(Base):\n    def __init__(self):\n"
        "        super().__init__()\n    def __call__(self, s):\n        return s.exp() ** self.k\nsoftmax = A()\n"
    ],
    "the class of self": [
        "class A:\n    def __repr__(self):\n        return self.__class__.__name__\n    def __call__(self, s):\n"
        "        return s.exp()\nsoftmax = A()\n"
    ],
    "a dataclass": [
        "from dataclasses import dataclass, field\n@dataclass\nclass Box:\n    s: torch.Tensor\n"
        "    seen: list = field(default_factory=list)\n" + body("return Box(scores).s.exp()")
    ],
    "functools and itertools": [
        "import functools, itertools\nadd = functools.partial(torch.add, alpha=2)\n"
        + body("return functools.reduce(torch.add, itertools.repeat(scores, 3)) + add(scores, scores)")
    ],
    "operator's functions": ["import operator\n" + body("return operator.truediv(scores.exp(), 2)")],
    "magics": ["%matplotlib inline\n%load_ext autoreload\n%autoreload 2\n!pip install nothing\n" + RIGHT],
    "a timed cell": ["%%time\n" + RIGHT],
    "magics written out": ['get_ipython().run_line_magic("matplotlib", "inline")\n' + RIGHT],
    "a main guard": [RIGHT + 'if __name__ == "__main__":\n    print(softmax(torch.zeros(2, 3)))\n'],
    "torch.flip and friends": [body("return torch.flip(scores, [1]).sinh().logaddexp(scores).log1p()")],
    "display": [
        "from IPython.display import display, clear_output\n" + RIGHT + "display(softmax(torch.zeros(2, 3)))\n"
    ],
    "hasattr": [body('return scores.exp() if hasattr(scores, "exp") else scores')],
    "an f-string": [body('print(f"{scores.shape=} {math.pi:.2f}")', "return scores.exp()")],
    "an import that the exercise replaces": ["from torch.nn.functional import *\nfrom torch import softmax", RIGHT],
    "a function of torch's name that is their own": [
        "from torch import *\ndef sigmoid(x):\n    return 1 / (1 + (-x).exp())\n" + body("return sigmoid(scores)")
    ],
    "compiled": ["@torch.jit.script\ndef h(s: torch.Tensor):\n    return s.exp()\n" + body("return h(scores)")],
    "shown": ["from IPython.display import display, HTML\n" + RIGHT + "display(HTML('done'))\n"],
    "an exception": [
        body("if scores.ndim != 2:", '    raise ValueError("softmax wants (N, K)")', "return scores.exp()")
    ],
    "calling another exercise": [
        "def cost(x):\n    return torch.softmax(x, 1)\n",
        body("return cost(scores)"),
    ],
    "a table of own functions": [
        "def a(s):\n    return s.exp()\nKINDS = {'a': a}\n" + body("return KINDS['a'](scores)"),
        "import torch.nn.functional as F\ndef compare():\n    return a(1) - F.softmax(torch.ones(3), 0)\n",
    ],
}


@pytest.mark.parametrize("cells", FINE.values(), ids=FINE.keys())
def test_right_code_is_not_refused(cells: list[str]) -> None:
    assert violations(cells) == []


# --- A call that is allowed, but not with every argument -------------------------------------------------------------

SMOOTHING = ("torch.nn.functional.cross_entropy(label_smoothing)", "torch.nn.CrossEntropyLoss(label_smoothing)")


def smoothing_violations(*lines: str) -> list[str]:
    """What reading finds in a cost of these lines."""
    imports = "import functools\nimport torch.nn.functional as F\nfrom torch.nn.functional import cross_entropy as ce\n"
    code = imports + "def cost(scores, y, e):\n" + "".join(f"    {line}\n" for line in lines)
    source = Source([ast.parse(code)], [ast.parse(SETUP)])
    return read(source, "cost", SMOOTHING, EXERCISES).violations


@pytest.mark.parametrize(
    "lines",
    [
        ["return F.cross_entropy(scores, y, label_smoothing=e)"],
        ["return ce(scores, y, label_smoothing=e)"],
        ["return torch.nn.functional.cross_entropy(scores, y, None, None, -100, None, 'mean', e)"],
        ["return F.cross_entropy(scores, y, **{'label_smoothing': e})"],
        ["return F.cross_entropy(*[scores, y, None, None, -100, None, 'mean', e])"],
        ["f = F.cross_entropy", "return f(scores, y, label_smoothing=e)"],
        ["return functools.partial(F.cross_entropy, label_smoothing=e)(scores, y)"],
        ["return (lambda f: f(scores, y, label_smoothing=e))(ce)"],
        ["return torch.nn.CrossEntropyLoss(label_smoothing=e)(scores, y)"],
        ["loss = torch.nn.CrossEntropyLoss()", "loss.label_smoothing = e", "return loss(scores, y)"],
        ["m = torch.nn.functional", "return m.cross_entropy(scores, y, label_smoothing=e)"],
    ],
)
def test_a_forbidden_argument_is_found(lines: list[str]) -> None:
    assert smoothing_violations(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["return F.cross_entropy(scores, y)"],
        ["return (1 - e) * ce(scores, y, reduction='mean') - e * F.log_softmax(scores, 1).mean()"],
        ["loss = torch.nn.CrossEntropyLoss()", "return loss(scores, y)"],
        ["label_smoothing = e", "return ce(scores, y) + label_smoothing"],
        ["soft = F.one_hot(y, 3) * (1 - e) + e / 3", "return F.cross_entropy(scores, soft)"],
    ],
)
def test_the_call_without_that_argument_is_right(lines: list[str]) -> None:
    assert smoothing_violations(*lines) == []


def test_an_attribute_of_their_own_may_be_called_like_a_function_of_torch() -> None:
    code = "def cost(cache):\n    return cache.dropout + cache.batch_norm\n"
    rules = ("torch.nn.functional.dropout", "torch.nn.functional.batch_norm")
    assert read(Source([ast.parse(code)], []), "cost", rules, EXERCISES).violations == []
    code = "import torch.nn.functional\nF = [torch.nn.functional]\ndef cost(x):\n    return F[0].dropout(x)\n"
    assert read(Source([ast.parse(code)], []), "cost", rules, EXERCISES).violations


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        (["return scores.unfold(1, 2, 1)"], False),
        (["return torch.Tensor.unfold(scores, 1, 2, 1)"], False),
        (["from torch.nn import functional", "return functional.unfold(scores, 2)"], True),
        (["from torch.nn.functional import unfold", "return unfold(scores, 2)"], True),
        (["from torch.nn import functional", "f = functional", "return f.unfold(scores, 2)"], True),
    ],
)
def test_unfold_of_a_tensor_is_another_thing_than_that_of_functional(lines: list[str], refused: bool) -> None:
    source = Source([ast.parse(body(*lines))], [ast.parse(SETUP)])
    assert bool(read(source, "softmax", ["torch.nn.functional.unfold"], EXERCISES).violations) == refused
