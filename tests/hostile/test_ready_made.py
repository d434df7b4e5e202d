"""Calling what an exercise forbids without naming it: what reading the source must not miss, and what it must let be.

Each attack was run: it does call the library's function.  `tests/autograder/test_rules.py` has the plain ways.
"""

from __future__ import annotations

import ast
import json

import pytest

from autograder.rules import read
from autograder.submission import read_notebook_bytes
from autograder.submitted_source import Source

FORBIDDEN = ("torch.softmax", "torch.log_softmax", "torch.logsumexp", "torch.nn.*", "torch.optim.*", "torch.autograd.*")
EXERCISES = ("share", "double")
SETUP = "import math\nimport matplotlib.pyplot as plt\nimport numpy as np\nimport torch\n"


def violations(*cells: str) -> list[str]:
    """What reading finds in a notebook of these cells."""
    notebook = {"cells": [{"cell_type": "code", "source": c, "metadata": {}} for c in cells], "nbformat": 4}
    submission = read_notebook_bytes(json.dumps(notebook).encode(), EXERCISES)
    assert "share" in submission.defined
    source = Source([c.tree for c in submission.cells if c.tree is not None], [ast.parse(SETUP)])
    return read(source, "share", FORBIDDEN, EXERCISES).violations


def body(*lines: str) -> str:
    """A softmax of these lines."""
    return "def share(scores):\n" + "".join(f"    {line}\n" for line in lines)


RETURN = "return f(scores, 1)"
KEEPER = (
    "import functools\nfound = []\n"
    "class Keeper:\n    def __setattr__(self, name, value):\n        found.append(value)\n"
)
AROUND = {
    # attributes by names in strings
    "a star of operator": ["from operator import *\n" + body("return methodcaller('soft' + 'max', 1)(scores)")],
    "a star of sys": ["from sys import *\n" + body("f = modules['builtins'].getattr(torch, 'soft' + 'max')", RETURN)],
    "functools.update_wrapper": [
        KEEPER + body("functools.update_wrapper(Keeper(), torch, ('soft' + 'max',), ())", "f = found[0]", RETURN)
    ],
    "functools.wraps": [
        KEEPER + body("functools.wraps(torch, ('soft' + 'max',), ())(Keeper())", "f = found[0]", RETURN)
    ],
    "functools.wraps by another name": [
        KEEPER + "w = functools.wraps\n" + body("w(torch, ('soft' + 'max',), ())(Keeper())", "f = found[0]", RETURN)
    ],
    "functools.wraps of another library": [
        KEEPER
        + "from contextlib import wraps\n"
        + body("wraps(torch, ('soft' + 'max',), ())(Keeper())", "f = found[0]", RETURN)
    ],
    "a dataclass that is a tensor": [
        "import dataclasses\n@dataclasses.dataclass(init=False, eq=False, repr=False)\nclass T(torch.Tensor):\n"
        "    softmax: object\n" + body("return dataclasses.astuple(scores.as_subclass(T))[0](1)")
    ],
    "a tensor that inherits fields": [
        "import dataclasses\n@dataclasses.dataclass\nclass Fields:\n    softmax: object\n"
        "class T(Fields, torch.Tensor):\n    pass\n" + body("return dataclasses.astuple(scores.as_subclass(T))[0](1)")
    ],
    "a tensor that gets fields": [
        "import dataclasses\nclass T(torch.Tensor):\n    softmax: object\nT = dataclasses.dataclass(T)\n"
        + body("return dataclasses.astuple(scores.as_subclass(T))[0](1)")
    ],
    "a class made by type": [
        "import dataclasses\n@dataclasses.dataclass\nclass Fields:\n    softmax: object\n"
        "T = type('T', (Fields, torch.Tensor), {})\n" + body("return dataclasses.astuple(scores.as_subclass(T))[0](1)")
    ],
    "scikit-learn's parameters": [
        "from sklearn.base import BaseEstimator\nclass T(BaseEstimator, torch.Tensor):\n"
        "    def __init__(self, softmax=None):\n        pass\n"
        + body("return scores.as_subclass(T).get_params()['softmax'](1)")
    ],
    "scikit-learn's copies": [
        "from sklearn.preprocessing import StandardScaler\nfrom sklearn.model_selection import GridSearchCV\n"
        "found = []\nclass T(StandardScaler, torch.Tensor):\n"
        "    def __init__(self, softmax=None):\n        found.append(softmax)\n"
        + body("GridSearchCV(scores.as_subclass(T), {}).fit(scores)", "return found[-1](1)")
    ],
    "tqdm's wrapper": [
        "from tqdm.utils import ObjectWrapper\n"
        + body("f = ObjectWrapper(torch).wrapper_getattr('soft' + 'max')", RETURN)
    ],
    "tqdm's file": [
        "from tqdm import tqdm\n" + body("f = tqdm([], file=torch).fp.wrapper_getattr('soft' + 'max')", RETURN)
    ],
    "a stream of sys": [
        "import contextlib\nclass R(contextlib.redirect_stdout):\n    _stream = 'modules'\n"
        + body("r = R({})", "r.__enter__()", "f = r._old_targets[0]['builtins'].getattr(torch, 'soft' + 'max')", RETURN)
    ],
    # strings that are run, programs that are rewritten
    "a hint that singledispatch runs": [
        "import functools\nfound = []\n@functools.singledispatch\ndef d(x):\n    return x\n"
        "@d.register\ndef _(x: 'found.append(torch.softmax) or int'):\n    return x\n" + body("f = found[0]", RETURN)
    ],
    "hints of typing_extensions": [
        "import typing_extensions\nclass H:\n    f: 'torch.softmax'\n"
        + body("f = typing_extensions.get_type_hints(H)['f']", RETURN)
    ],
    "a forward reference": [
        "import typing\n"
        + body("f = typing.ForwardRef('torch.softmax')._evaluate({'torch': torch}, {}, frozenset())", RETURN)
    ],
    "a forward reference without its name": [
        "import typing\n"
        + body(
            "r = typing.get_args(typing.Optional['torch.softmax'])[0]", "f = r._evaluate({}, {}, frozenset())", RETURN
        )
    ],
    "torch's compiler": [
        "unit = torch.CompilationUnit()\nunit.define('def f(x):\\n    return torch.softmax(x, 1)', print)\n"
        + body("return unit.f(scores)")
    ],
    "a backend of torch.compile": [
        "def rewrite(program, inputs):\n    for n in program.graph.nodes:\n        if n.op == 'call_method':\n"
        "            n.target, n.args = 'softmax', (n.args[0], 1)\n    program.recompile()\n    return program\n"
        + body("return torch.compile(lambda s: s.exp(), backend=rewrite)(scores)")
    ],
    "a backend of matplotlib": [
        "from matplotlib.backends.registry import backend_registry\n"
        + body(
            "m = backend_registry.load_backend_module('module://torch.nn.functional')", "return m.cross_entropy(scores)"
        )
    ],
    # names that are read as something else
    "an import in a class": [
        "class N:\n    import torch.nn.functional as G\n" + body("return N.G.cross_entropy(scores, scores)")
    ],
    "a hint in brackets of their own": [
        "class C:\n    found = []\n    def __class_getitem__(cls, f):\n        cls.found.append(f)\n"
        "def helper(x: C[torch.softmax]):\n    return x\n" + body("f = C.found[0]", RETURN)
    ],
    "a hint with an operator of their own": [
        "class C:\n    def __ror__(self, f):\n        self.f = f\nc = C()\n"
        "def helper(x: torch.softmax | c):\n    return x\n" + body("return c.f(scores, 1)")
    ],
    # attributes without a dot
    "a pattern with a keyword": [body("match torch:", "    case object(softmax=f):", f"        {RETURN}")],
    "a pattern by position": [
        "class M(type):\n    def __instancecheck__(cls, x):\n        return True\n"
        "class P(metaclass=M):\n    __match_args__ = ('soft' + 'max',)\n"
        + body("match torch:", "    case P(f):", f"        {RETURN}")
    ],
    "a pattern of a dataclass": [
        "from dataclasses import make_dataclass\n"
        "class M(type):\n    def __instancecheck__(cls, x):\n        return True\n"
        "class P(make_dataclass('B', ['soft' + 'max']), metaclass=M):\n    pass\n"
        + body("match torch:", "    case P(f):", f"        {RETURN}")
    ],
    "string.Formatter": [
        "import string\n" + body("f = string.Formatter().get_field('0.soft' + 'max', (torch,), {})[0]", RETURN)
    ],
    "logging's resolver": [
        "import logging.config\n"
        + body("f = logging.config.BaseConfigurator({}).resolve('torch.soft' + 'max')", RETURN)
    ],
    "traitlets": ["import traitlets\n" + body("f = traitlets.import_item('torch.soft' + 'max')", RETURN)],
    "_operator": ["import _operator\n" + body("f = _operator.attrgetter('soft' + 'max')(torch)", RETURN)],
    "from _operator": ["from _operator import attrgetter as a\n" + body("f = a('soft' + 'max')(torch)", RETURN)],
    "unittest's loader": [
        "import unittest\n" + body("return unittest.TestLoader().loadTestsFromName('torch.soft' + 'max')")
    ],
    "breakpoint": [
        "import os\nos.environ['PYTHONBREAKPOINT'] = 'torch.soft' + 'max'\n" + body("return breakpoint(scores, 1)")
    ],
    "sys.breakpointhook": ["import sys\n" + body("return sys.breakpointhook(scores, 1)")],
    # code in strings
    "timeit": ["import timeit\n" + body("return timeit.timeit('s.append(torch.soft' + 'max(x, 1))', globals={})")],
    "cProfile": ["import cProfile\n" + body("cProfile.runctx('r = torch.soft' + 'max(s, 1)', {}, {})")],
    "doctest": ["import doctest\n" + body("doctest.run_docstring_examples(share, {})")],
    "jinja2": [
        "import jinja2\n"
        + body("return jinja2.Environment().compile_expression('t.soft' + 'max(s, 1)', False)(t=torch, s=scores)")
    ],
    "sympy": ["import sympy\n" + body("return sympy.lambdify('s', 'torch.soft' + 'max(s, 1)', {})(scores)")],
    "numpy's testing": ["import numpy as np\n" + body("np.testing.measure('f = torch.soft' + 'max')", "return f")],
    "torch's benchmark": [
        "from torch.utils.benchmark import Timer\n" + body("return Timer('f = torch.soft' + 'max').timeit()")
    ],
    "pdb": ["import pdb\n" + body("return pdb.runeval('torch.soft' + 'max')(scores, 1)")],
    "concurrent interpreters": ["import _xxsubinterpreters as i\n" + body("i.run_string(i.create(), 'x')")],
    # frames
    "the builtins of a generator": [
        body("f = (x for x in [1]).gi_frame.f_builtins['ev' + 'al']('torch.soft' + 'max')", RETURN)
    ],
    "the globals of a coroutine": [
        "async def c():\n    pass\n" + body("f = c().cr_frame.f_globals['torch']", "return f.softsign(scores)")
    ],
    "the frame of a traceback": [
        body("try:", "    1 / 0", "except Exception as e:", "    f = e.with_traceback(None).tb_frame.f_globals")
    ],
    # modules reached through other modules
    "another module's builtins": ["import wave\n" + body("return wave.builtins.eval('torch.soft' + 'max')(scores, 1)")],
    "another module's sys": ["import fileinput\n" + body("return fileinput.sys.modules['torch.n' + 'n']")],
    "a module as a value": ["import contextlib\nc = [contextlib]\n" + body("return c[0].sys.modules['torch.n' + 'n']")],
    "a device's module": [
        body("return torch.get_device_module('cpu').torch.nn.functional.cross_entropy(scores, scores)")
    ],
    "torch of SciPy": ["from scipy._lib.array_api_compat import torch as t\n" + body("return t.softmax(scores, 1)")],
    "a star of SciPy": [
        "from scipy._lib.array_api_compat.torch import *\n" + body("return log_softmax(scores, 1).exp()")
    ],
    "torch of scikit-learn": [
        "import sklearn.externals.array_api_compat.torch as t\n" + body("return t.softmax(scores, 1)")
    ],
    "the namespace of an array": [
        "from sklearn.utils._array_api import get_namespace\n"
        + body("xp, _ = get_namespace(scores)", "return xp.nn.functional.cross_entropy(scores, scores)")
    ],
    # modules that the student writes
    "a module in the working folder": [
        "open('/tmp/helping.py', 'w').write('from torch import soft' + 'max as f')\nimport helping\n"
        + body("return helping.f(scores, 1)")
    ],
    "a module that shadows another": [
        "import sys\nsys.path.insert(0, '/tmp')\n"
        "open('/tmp/colorsys.py', 'w').write('from torch import soft' + 'max')\nimport colorsys\n"
        + body("return colorsys.f(scores, 1)")
    ],
    "site": ["import site\nsite.addsitedir('/tmp')\n" + body("return scores")],
    "torch.serialization": ["import torch.serialization as s\n" + body("return s.load('/tmp/f')(scores)")],
    "numpy's reader": [
        "from numpy.lib.npyio import load\n" + body("return load('/tmp/f.npy', allow_pickle=True)[0](scores, 1)")
    ],
    "a pickle of another library": ["import pandas as pd\n" + body("return pd.read_pickle('/tmp/f')(scores)")],
    "C++": ["from torch.utils.cpp_extension import load_inline\n" + body("return load_inline('x', '')(scores)")],
    # another process or thread does it
    "a thread that waits for files": [
        "import threading\ndef serve():\n    while True:\n        np.fromfile('/tmp/in')\n"
        "        torch.softmax(torch.zeros(1, 2), 1).numpy().tofile('/tmp/out')\n"
        "threading.Thread(target=serve, daemon=True).start()\n"
        + body("scores.numpy().tofile('/tmp/in')", "return torch.from_numpy(np.fromfile('/tmp/out'))")
    ],
    "a socket to a helper": ["import socket\n" + body("return socket.create_connection(('localhost', 1))")],
    "a pipe": ["import os\n" + body("return os.read(5, 100)")],
    "a child": ["import os\n" + body("return os.fork()")],
    "a file": ["from pathlib import Path\n" + body("return Path('/tmp/x').read_bytes()")],
    "a file of numpy's": [body("return torch.from_numpy(np.fromfile('/tmp/out'))")],
    "a mapped file": [body("return torch.from_file('/tmp/out', size=5)")],
    "a mapped array": [body("return torch.from_numpy(np.memmap('/tmp/out'))")],
    "shared memory": [
        "from multiprocessing.shared_memory import SharedMemory\n" + body("return SharedMemory('x').buf")
    ],
    "sqlite": ["import sqlite3\n" + body("return sqlite3.connect('/tmp/x')")],
    "lines of a file": ["import linecache\n" + body("return linecache.getline('/tmp/x', 1)")],
    # later, from elsewhere
    "a signal": ["import signal\nsignal.signal(signal.SIGALRM, lambda n, f: None)\n" + body("return scores")],
    "the engine patched": [
        "import course_utils.checking.student as s\ns.changed_arguments = lambda *a: []\n" + body("return scores.exp()")
    ],
    "the runner patched": ["import autograder.runner.serve as s\ns.plain = None\n" + body("return scores.exp()")],
}


@pytest.mark.parametrize("cells", AROUND.values(), ids=AROUND.keys())
def test_ways_around_are_refused(cells: list[str]) -> None:
    assert violations(*cells) != []


FINE = {
    "patterns": [
        body(
            "match scores.ndim, [1, 2]:",
            "    case (2, [a, *rest]) if a:",
            "        pass",
            "    case int() | float() as other:",
            "        pass",
            "    case {'a': b, **more}:",
            "        pass",
            "return scores.exp()",
        )
    ],
    "patterns of own classes": [
        "from dataclasses import dataclass\n@dataclass\nclass Box:\n    width: int\n"
        + body("match Box(3):", "    case Box(width=w):", "        return scores.exp() / w")
    ],
    "much of the standard library": [
        "import bisect, cmath, collections, contextlib, copy, decimal, enum, fractions, functools, heapq, itertools\n"
        "import math, numbers, operator, random, re, statistics, string, sys, textwrap, time, types, typing, warnings\n"
        + body(
            "rows = [[math.exp(v) for v in row] for row in scores.tolist()]",
            "start = time.perf_counter()",
            "eps, big = sys.float_info.epsilon, sys.maxsize",
            "box = types.SimpleNamespace(k=1)",
            "with contextlib.suppress(ValueError):",
            "    warnings.warn('careful ' + string.ascii_letters + textwrap.dedent(' a'))",
            "total = [statistics.fsum(r) if False else functools.reduce(operator.add, r) for r in rows]",
            "count = collections.Counter(total)",
            "half = float(fractions.Fraction(1, 2) + 0) + float(decimal.Decimal('0.5'))",
            "rows = copy.deepcopy(list(itertools.chain(rows)))",
            "return torch.tensor([[v / t for v in r] for r, t in zip(rows, total)], dtype=scores.dtype)",
        )
    ],
    "numpy and scipy": [
        "import scipy.special\nfrom scipy import linalg, stats\nimport numpy.linalg as la\n"
        + body(
            "e = np.exp(scores.numpy() - np.max(scores.numpy(), axis=1, keepdims=True))",
            "r = np.random.default_rng(0).normal(size=3) + la.norm(e) + np.lib.stride_tricks.as_strided(e)[0, 0]",
            "return torch.from_numpy(e / np.einsum('nk->n', e)[:, None])",
        )
    ],
    "scikit-learn": ["from sklearn.preprocessing import normalize\n" + body("return normalize(scores.exp(), 'l1')")],
    "a progress bar": ["from tqdm.auto import tqdm\n" + body("for row in tqdm(scores):", "    pass", "return scores")],
    "a figure in a helper": [
        "def show(s):\n    fig, ax = plt.subplots()\n    ax.plot(s)\n    fig.savefig('x.png')\n    plt.close(fig)\n"
        + body("if False:", "    show(scores)", "return scores.exp()")
    ],
    "a pool of threads": [
        "from concurrent.futures import ThreadPoolExecutor\n"
        + body("with ThreadPoolExecutor(2) as pool:", "    rows = list(pool.map(torch.exp, scores))", "return rows")
    ],
    "course_utils": [
        "from course_utils.gradients import check_gradients\nfrom course_utils.plots import show_images\n"
        + body("return scores.exp()")
    ],
    "hints of many kinds": [
        "from __future__ import annotations\nimport torch.nn as nn\nArray = torch.Tensor | np.ndarray\n"
        "def helper(x: Array | None, model: nn.Module | None = None) -> list[nn.Module]:\n    return [model]\n"
        + body("helper(scores)", "return scores.exp()")
    ],
    "a dataclass of their own": [
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    lr: float = 0.1\n"
        + body("p = dataclasses.replace(P(), lr=1.0)", "return scores.exp() * dataclasses.astuple(p)[0]")
    ],
    "a decorator that keeps the name": [
        "import functools\ndef timed(f):\n    @functools.wraps(f)\n    def g(*a):\n        return f(*a)\n    return g\n"
        "@timed\n" + body("return scores.exp()")
    ],
    "a compiled function": ["@torch.compile\n" + body("return scores.exp()")],
    "a DataLoader": [
        "from torch.utils.data import DataLoader, TensorDataset\nfrom torch.utils import data\n"
        + body(
            "from torch.utils import data as d", "DataLoader(TensorDataset(scores)), d.Subset", "return scores.exp()"
        )
    ],
    "a namespace made by type": ["P = type('P', (), {'lr': 0.1})\n" + body("return scores.exp() * P.lr")],
    "the path extended as many do": ["import sys\nsys.path.append('..')\n" + body("return scores.exp()")],
    "an attribute called nn, torch or sys on one's own objects": [
        "class Net:\n    def __init__(self):\n        self.nn = 3\n        self.torch = 1\n"
        + body("net = Net()", "return scores.exp() * net.nn * net.torch")
    ],
    "the check in the exercise's own cell": [
        "import checks\nfrom course_utils.checking import checker\ncheck = checker(checks)\n",
        body("return scores.exp()") + "check('share')\n",
    ],
    "a star of numpy": [
        "from numpy import *\nfrom math import *\n" + body("return scores.exp() * pi + array([1.0])[0]")
    ],
    "environment variables set first": [
        "import os\nos.environ['OMP_NUM_THREADS'] = '1'\n" + body("return scores.exp()")
    ],
    "a file read at the top": [
        "text = open('/usr/share/dict/words').read() if False else ''\n" + body("return scores.exp()")
    ],
}


@pytest.mark.parametrize("cells", FINE.values(), ids=FINE.keys())
def test_right_code_is_not_refused(cells: list[str]) -> None:
    assert violations(*cells) == []
