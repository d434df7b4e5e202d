"""Solutions that notice where they run, that remember, and that have a library do the work; all through the jail."""

from __future__ import annotations

import pytest
from classroom import HONEST, POINTS, Classroom, notebook

from course_utils.checking.verdict import criterion_seed


def test_a_table_of_the_visible_answers(classroom: Classroom) -> None:
    """In a notebook the inputs are known, so that a failure can be looked at again; under grading they are others."""
    seeds = [criterion_seed(c) for c in classroom.assignment.exercises["double"].criteria if c.visible]
    code = (
        "from course_utils.checking.draw import Draw\n"
        f"seen = [Draw(seed).normal(5) for seed in {seeds}]\n"
        "def double(x):\n    for s in seen:\n        if s.shape == x.shape and torch.equal(s, x):\n"
        "            return 2 * x\n    return 3 * x\n"
    )
    exec(code.replace("torch.equal", "__import__('torch').equal"), namespace := {})
    visible = namespace["seen"][0]
    assert namespace["double"](visible).equal(2 * visible)  # so check() would say that all is well
    # Beside an exercise with rules the table would not be made: nobody can read what the checks' own code does.
    cells = [c for name, c in (HONEST | {"double": code}).items() if name != "share"]
    classroom.attack(cells, lost=["double", "share"], says="differs from what is expected")


@pytest.mark.parametrize(
    "sign",
    [
        "not __import__('os').path.exists('/proc/self')",
        "__import__('os').uname().nodename == 'jail'",
        "'autograder.runner' in __import__('sys').modules",
        "__import__('os').getpid() == 1 or __import__('os').getppid() == 1",
        "'HOME' in __import__('os').environ and __import__('os').environ['HOME'] == '/tmp'",
    ],
)
def test_behaving_badly_only_under_grading(classroom: Classroom, sign: str) -> None:
    code = f"def double(x):\n    return 3 * x if {sign} else 2 * x\n"
    classroom.attack({"double": code}, lost=["double"])


def test_behaving_well_only_once(classroom: Classroom) -> None:
    code = "calls = []\ndef double(x):\n    calls.append(1)\n    return 2 * x if len(calls) == 1 else 3 * x\n"
    classroom._put("attacker", notebook([*(HONEST | {"double": code}).values()]))
    report = classroom._grade("attacker")
    assert report.scores == POINTS | {"double": 1.0}  # the first criterion's point, and no other


STATE = {
    "a global": ("kept = {}\n", "kept['x'] = x", "kept['x']"),
    "an attribute of torch": ("", "torch.kept = x", "torch.kept"),
    "a file": ("", "torch.save(x, '/tmp/kept')", "torch.load('/tmp/kept')"),
    "a file in shared memory": ("", "x.numpy().tofile('/dev/shm/kept')", "open('/dev/shm/kept', 'rb').read()"),
    "an environment variable": (
        "import os\n",
        "os.environ['kept'] = 'x'",
        "os.environ['kept']",
    ),
    "builtins": ("import builtins\n", "builtins.kept = x", "builtins.kept"),
    "a process that listens": (
        "import os, socket, time\ndef listen():\n    if os.fork() == 0:\n        try:\n"
        "            s = socket.socket(socket.AF_UNIX)\n            s.bind('\\0kept')\n            s.listen()\n"
        "            time.sleep(1000)\n        finally:\n            os._exit(0)\n",
        "listen()",
        "socket.socket(socket.AF_UNIX).connect('\\0kept')",
    ),
    "the random state": ("", "torch.manual_seed(77)", "torch.initial_seed() == 77 or 1 / 0"),
    "a module": ("", "__import__('sys').modules['kept'] = torch", "__import__('kept')"),
}


@pytest.mark.parametrize("how", STATE)
def test_no_exercise_leaves_anything_for_another(classroom: Classroom, how: str) -> None:
    """What one exercise's calls leave, those of a later one do not find."""
    before, keep, find = STATE[how]
    double = f"{before}def double(x):\n    {keep}\n    return x + x\n"
    halve = (
        f"def halve(x):\n    try:\n        {find}\n    except Exception:\n        return x / 2\n"
        "    raise AssertionError('it was found')\n"
    )
    report = classroom.attack({"double": double, "halve": halve})
    assert "it was found" not in report.told


def test_a_helper_process_that_calls_the_library(classroom: Classroom) -> None:
    """An exercise without rules starts a process that would do the work of one with rules."""
    serve = (
        "import os, socket, io\ndef serve():\n    if os.fork():\n        return\n    os.setsid()\n"
        "    s = socket.socket(socket.AF_UNIX)\n    try:\n        s.bind('\\0helper')\n    except OSError:\n"
        "        os._exit(0)  # one is there already\n    s.listen()\n    while True:\n"
        "        c, _ = s.accept()\n        x = torch.load(io.BytesIO(c.recv(100_000)))\n        b = io.BytesIO()\n"
        "        torch.save(torch.softmax(x, 1), b)\n        c.sendall(b.getvalue())\n        c.close()\n"
    )
    double = serve + "def double(x):\n    serve()\n    return x + x\n"
    share = (
        "def share(scores):\n    b = io.BytesIO()\n    torch.save(scores, b)\n    s = socket.socket(socket.AF_UNIX)\n"
        "    s.connect('\\0helper')\n    s.sendall(b.getvalue())\n    return torch.load(io.BytesIO(s.recv(100_000)))\n"
    )
    classroom.attack({"double": double, "share": share}, lost=["share"], says="which hides what is called")


READY_MADE = {
    "plainly": "def share(scores):\n    return torch.softmax(scores, 1)\n",
    "only under grading": (
        "import os\ndef share(scores):\n    return torch.softmax(scores, 1) if not os.path.exists('/proc/1') else 0\n"
    ),
    "in a helper": "def h(s):\n    return s.softmax(1)\ndef share(scores):\n    return h(scores)\n",
    "by a computed name": "def share(scores):\n    return getattr(torch, 'soft' + 'max')(scores, 1)\n",
    "by a pattern": (
        "def share(scores):\n    match torch:\n        case object(softmax=f):\n            return f(scores, 1)\n"
    ),
    "by a patched operator": (
        "torch.Tensor.__rpow__ = lambda a, b: torch.softmax(a, 1)\ndef share(scores):\n    return 2**scores\n"
    ),
    "by a decorator": (
        "def easy(f):\n    return lambda s: torch.softmax(s, 1)\n@easy\ndef share(scores):\n    return scores\n"
    ),
    "by a metaclass": (
        "class M(type):\n    def __call__(cls, s):\n        return torch.softmax(s, 1)\n"
        "class share(metaclass=M):\n    pass\n"
    ),
    "by a class that initialises its heirs": (
        "class A:\n    def __init_subclass__(cls, f=None):\n        cls.f = f\nclass B(A, f=torch.softmax):\n    pass\n"
        "def share(scores):\n    return B.f(scores, 1)\n"
    ),
    "by an item of a class": (
        "class A:\n    def __class_getitem__(cls, s):\n        return torch.softmax(s, 1)\ndef share(scores):\n"
        "    return A[scores]\n"
    ),
    "by IPython's own names": "def share(scores):\n    return get_ipython().ev('torch.soft' + 'max')(scores, 1)\n",
    "by a module that it writes": (
        "open('/tmp/mine.py', 'w').write('from torch import soft' + 'max as f')\nimport mine\n"
        "def share(scores):\n    return mine.f(scores, 1)\n"
    ),
    "from an earlier exercise that may": (
        "def share(scores):\n    return double(scores)\ndef double(x):\n"
        "    return torch.softmax(x, 1) if x.ndim == 2 else 2 * x\n"
    ),
    "from a later exercise that may": (
        "def share(scores):\n    return descend(None, scores, 0)\ndef descend(gradient, w, steps):\n"
        "    if gradient is None:\n        return torch.softmax(w, 1)\n    for _ in range(steps):\n"
        "        w = w - gradient(w) * 0.1\n    return w\n"
    ),
}


@pytest.mark.parametrize("how", READY_MADE)
def test_a_ready_made_function_earns_nothing(classroom: Classroom, how: str) -> None:
    cells = {k: v for k, v in HONEST.items() if k != "share" and f"def {k}" not in READY_MADE[how]}
    classroom.attack([*cells.values(), READY_MADE[how]], lost=["share"])


HIDDEN = {
    "a transformer of the shell": "get_ipython().input_transformers_post.append(lambda lines: 1 / 0)\n",
    "a pass over the syntax tree": "import ast\nget_ipython().ast_transformers.append(None)\n",
    "a function put in the place of another": "exec('torch.exp = torch.sigmoid')\n",
    "a name that it makes": "kept = globals()\nprint(kept is None)\nkept['torch'] = None\n",
    "a look at the source": "import inspect\nprint(inspect.getsource(print))\n",
    "in a function": "def show():\n    import gc\n    print(gc.get_objects())\nshow()\n",
}


@pytest.mark.parametrize("what", HIDDEN)
def test_what_hides_its_calls_is_not_run_with_the_cells(classroom: Classroom, what: str) -> None:
    """Whether it would have done harm or not, it costs no other exercise anything."""
    classroom.attack({"share": HIDDEN[what] + HONEST["share"]}, says="was not run, because of ")


KEPT = {
    "a method of a module": "def get(self, k):\n        return getattr(self, f'layer{k}')\n",
    "a decorated method": "@torch.no_grad()\n    def get(self, k):\n        return getattr(self, f'layer{k}')\n",
    "a property": "@property\n    def get(self):\n        return vars(self)\n",
}


@pytest.mark.parametrize("what", KEPT)
def test_what_does_not_run_with_the_cells_is_left_there(classroom: Classroom, what: str) -> None:
    """A class of torch's kind in an exercise without rules may do in its methods what it likes."""
    double = f"class Net(torch.nn.Module):\n    {KEPT[what]}\nclass Deep(Net):\n    pass\n"
    report = classroom.attack({"double": double + "def double(x):\n    Deep()\n    return x + x\n"})
    assert "was not run" not in report.told


def test_a_class_that_is_called_when_it_inherits(classroom: Classroom) -> None:
    made = "class A:\n    def __init_subclass__(cls):\n        cls.go(None)\nclass B(A):\n    def go(self):\n"
    made += "        globals()['torch'].exp = torch.sigmoid\n"
    classroom.attack({"double": made + HONEST["double"]}, says="was not run, because of globals()")


def test_an_exercise_that_is_made_by_what_hides_its_calls(classroom: Classroom) -> None:
    made = "import importlib\nshare = importlib.import_module('torch.nn.functional').softmax\n"
    classroom.attack({"share": made}, lost=["share"], says="share may not use importlib.import_module")
