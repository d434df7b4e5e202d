"""Code that ends itself, its parent or the interpreter, or that never ends."""

from __future__ import annotations

import pytest
from classroom import Classroom

LOOP = "    while True:\n        pass\n"
ENDINGS = {
    "os._exit": ("import os\ndef double(x):\n    os._exit(0)\n", "The process ended while double ran"),
    "sys.exit": ("import sys\ndef double(x):\n    sys.exit(0)\n", "double raised SystemExit"),
    "quit": ("def double(x):\n    quit()\n", "double raised"),
    "SIGKILL to itself": ("import os\ndef double(x):\n    os.kill(os.getpid(), 9)\n", "The process ended"),
    "SIGKILL to its parent": ("import os\ndef double(x):\n    os.kill(os.getppid(), 9)\n" + LOOP, "did not finish"),
    "SIGKILL to everyone": ("import os\ndef double(x):\n    os.kill(-1, 9)\n" + LOOP, "ProcessLookupError"),
    "SIGKILL to its group": ("import os\ndef double(x):\n    os.kill(0, 9)\n", "The process ended"),
    "SIGTERM to process 1": ("import os\ndef double(x):\n    os.kill(1, 15)\n" + LOOP, "did not finish"),
    "SIGSTOP": ("import os\ndef double(x):\n    os.kill(os.getpid(), 19)\n", "did not finish within 3 seconds"),
    "segmentation fault": ("import ctypes\ndef double(x):\n    ctypes.string_at(0)\n", "The process ended"),
    "abort": ("import os\ndef double(x):\n    os.abort()\n", "The process ended"),
    "stack overflow": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef double(x):\n    return repr(nested(10**6))\n"
        "def nested(n):\n    a = []\n    for _ in range(n):\n        a = [a]\n    return a\n",
        "double",
    ),
    "stack overflow by hand": (
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "class A:\n    def __getattr__(self, n):\n        return getattr(self, n)\n"
        "def double(x):\n    return A().x\n",
        "double",
    ),
    "recursion": ("def double(x):\n    return double(x)\n", "RecursionError"),
    "endless loop": ("def double(x):\n" + LOOP, "did not finish within 3 seconds"),
    "a loop in C": ("def double(x):\n    return sum(iter(int, 1))\n", "did not finish"),
    "signals ignored": (
        "import signal\ndef double(x):\n    for s in set(signal.Signals) - {9, 19}:\n"
        "        signal.signal(s, signal.SIG_IGN)\n" + LOOP,
        "did not finish",
    ),
    "signals blocked": (
        "import signal\ndef double(x):\n    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n" + LOOP,
        "did not finish",
    ),
    "a deadlocked thread": (
        "import threading\ndef double(x):\n    lock = threading.Lock()\n    lock.acquire()\n"
        "    t = threading.Thread(target=lock.acquire)\n    t.start()\n    t.join()\n",
        "did not finish",
    ),
    "sleep": ("import time\ndef double(x):\n    time.sleep(10**6)\n", "did not finish"),
    "reading standard input": ("def double(x):\n    return input()\n", "double raised"),
    "an exception that is no Exception": (
        "class E(BaseException):\n    pass\ndef double(x):\n    raise E\n",
        "The process ended",
    ),
    "an exception without a text": (
        "class E(Exception):\n    def __str__(self):\n        raise E\ndef double(x):\n    raise E\n",
        "its text cannot be read",
    ),
    "an exception whose text never ends": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef double(x):\n    raise E\n",
        "did not finish",
    ),
    "a result that ends the process when it is looked at": (
        "import os\nclass R(list):\n    def __iter__(self):\n        os._exit(0)\ndef double(x):\n    return R()\n",
        "The process ended",
    ),
    "descriptors closed": ("import os\ndef double(x):\n    os.closerange(0, 256)\n", "The process ended"),
    "the interpreter taken down": (
        "import ctypes\ndef double(x):\n    ctypes.pythonapi.Py_FinalizeEx()\n",
        "double",
    ),
}


@pytest.mark.parametrize("code", ENDINGS)
def test_an_ending_costs_only_its_exercise(classroom: Classroom, code: str) -> None:
    source, says = ENDINGS[code]
    classroom.attack({"double": source}, lost=["double"], says=says)


CELLS = {
    "os._exit": ("import os\nos._exit(0)", "ended the process"),
    "the process gives itself up": ("import os\nos.abort()", "ended the process"),
    "endless loop": ("while True:\n    pass", "ran longer than 5 s"),
    "sleep": ("import time\ntime.sleep(1000)", "ran longer than 5 s"),
    "exit at the end": ("import atexit, os\natexit.register(os._exit, 0)\nexit()", "cell of double"),
    "descriptors closed": ("import os\nos.closerange(0, 256)", "ended the process"),
    "SystemExit": ("raise SystemExit", "raised SystemExit"),
}


@pytest.mark.parametrize("cell", CELLS)
def test_what_breaks_a_cell_costs_no_definition_below_it(classroom: Classroom, cell: str) -> None:
    source, says = CELLS[cell]
    classroom.attack({"double": source + "\ndef double(x):\n    return x + x\n"}, says=says)


@pytest.mark.parametrize("cell", CELLS)
def test_what_breaks_a_cell_keeps_no_earlier_definition_alive(classroom: Classroom, cell: str) -> None:
    """What is read is the last definition; a ready-made one above it must not be what answers."""
    source, says = CELLS[cell]
    ready_made = "def share(x):\n    return torch.softmax(x, 0)\n"
    wrong = "def share(x):\n    return x + 1\n"
    classroom.attack(
        {"share": source + "\n" + wrong}, first=[ready_made], lost=["share"], says=says.replace("double", "share")
    )


def test_signals_from_a_cell_reach_nothing_outside(classroom: Classroom) -> None:
    """Process 1 of a PID namespace cannot be killed from inside; its group must not be the zygote's."""
    code = "import os\nfor number in (9, 15, 19):\n    os.kill(0, number)\n    os.kill(1, number)\n"
    classroom.attack({"double": code + "def double(x):\n    return x + x\n"})


def test_a_thread_that_ends_the_process_later_costs_its_own_submission_only(classroom: Classroom) -> None:
    code = "import os, threading\nthreading.Timer(0.2, os._exit, (0,)).start()\ndef double(x):\n    while True: pass\n"
    report = classroom.harm({"double": code})  # its own other exercises too, where the process ends while they run
    assert report.scores["double"] == 0 and "double" in report.told
