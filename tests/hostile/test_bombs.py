"""Code that uses up what a machine has: processes, memory, disk, files, text; and daemons that would outlive it."""

from __future__ import annotations

import mmap
import os

import pytest
from classroom import DAEMON_NAME, HONEST, Classroom

from autograder.runner.namespaces import Limits
from autograder.runner.watch import usage

SPEND_AND_WAIT = "    while True:\n        pass\n"


@pytest.fixture(autouse=True)
def small_limits(classroom: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than students get, so that what uses it up is fast."""
    monkeypatch.setattr(classroom.zygote, "limits", Limits(memory=256 << 20, disk=16 << 20))


def test_a_fork_bomb(classroom: Classroom) -> None:
    code = (
        "import os\ndef double(x):\n    while True:\n        try:\n            os.fork()\n"
        "        except OSError:\n            pass\n"
    )
    report = classroom.attack({"double": code}, lost=["double"])
    assert "did not finish" in report.told or "more than 64 processes" in report.told


def test_a_thread_bomb(classroom: Classroom) -> None:
    code = (
        "import threading, time\ndef double(x):\n    while True:\n"
        "        threading.Thread(target=time.sleep, args=(1000,)).start()\n"
    )
    report = classroom.attack({"double": code}, lost=["double"])
    assert "start new thread" in report.told or "more than 64 processes" in report.told


def test_processes_that_share_out_a_memory_bomb(classroom: Classroom) -> None:
    """Each keeps within its own limit; all together do not."""
    code = (
        "import os, time\ndef double(x):\n    for k in range(8):\n        if os.fork() == 0:\n"
        "            mine = bytearray(os.urandom(1)) * (150 << 20)\n            time.sleep(1000)\n"
        "    time.sleep(1000)\n"
    )
    classroom.attack({"double": code}, lost=["double"], says="its processes used more than 0.25 GiB of memory together")


def test_what_one_process_uses_is_seen() -> None:
    before = usage("self")
    # Not a bytearray: that may take memory which an earlier test has given back to Python and not to the system.
    with mmap.mmap(-1, 50 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as kept:
        for _ in range(50):
            kept.write(os.urandom(1) * (1 << 20))
        after = usage(os.getpid())
    assert before is not None and after is not None
    assert 45 << 20 < after.anonymous - before.anonymous < 60 << 20 and after.touched - before.touched > 0
    assert after.parent == os.getppid() and usage(2**22 + 1) is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return bytearray(1 << 40)", "MemoryError"),
        ("a = []\n    while True:\n        a.append(bytearray(100 << 20))", "MemoryError"),
        ("import torch\n    return torch.zeros(1 << 40)", "memory"),
        ("a = [x]\n    while True:\n        a += a", "MemoryError"),
        ("import os\n    while True:\n        os.open('/dev/null', 0)", "Too many open files"),
        ("import socket\n    a = []\n    while True:\n        a += socket.socketpair()", "Too many open files"),
        ("open('/tmp/x', 'wb').write(bytes(17 << 20))", "File too large"),
        ("for k in range(9):\n        open(f'/tmp/{k}', 'wb').write(bytes(5 << 20))", "No space left"),
        ("for k in range(9):\n        open(f'/dev/shm/{k}', 'wb').write(bytes(5 << 20))", "No space left"),
        ("import os\n    for k in range(5000):\n        os.mkdir(f'/tmp/{k}')", "No space left"),
        ("import os\n    os.truncate('/tmp/x', 1 << 50) if open('/tmp/x', 'w') else 0", "File too large"),
        ("import os\n    return os.memfd_create('x')", "Operation not permitted"),
        (
            "import ctypes\n    libc = ctypes.CDLL(None, use_errno=True)\n"
            "    assert libc.shmget(0, 1 << 30, 0o1600) >= 0, 'refused by the kernel'",
            "refused by the kernel",
        ),
        (
            "import ctypes\n    assert ctypes.CDLL(None).unshare(0x10000000 | 0x20000) == 0, 'refused by the kernel'",
            "refused by the kernel",
        ),
        ("return 'a' * (100 << 20)", "str"),
        ("return ['a' * 60_000] * 100", "too large"),
        ("return 10 ** 10**6", "double"),
        ("a = x\n    for _ in range(40):\n        a = [a, a]\n    return a", "list"),
        ("a = []\n    a.append(a)\n    return a", "list"),
        ("return {k: k for k in range(300_000)}", "double"),
        ("import torch\n    return torch.zeros(1).expand(1 << 40)", "double"),
        ("import torch\n    return torch.zeros(1, dtype=torch.int8).expand(1 << 28)", "got shape (268435456,)"),
        ("import numpy\n    return numpy.broadcast_to(numpy.zeros(1), (1 << 40,))", "double"),
    ],
)
def test_what_is_asked_too_much_of_is_refused(classroom: Classroom, body: str, says: str) -> None:
    classroom.attack({"double": f"def double(x):\n    {body}\n"}, lost=["double"], says=says)


@pytest.mark.parametrize(
    "prints",
    [
        "print('a' * 50_000_000)",
        "for k in range(200_000): print('a\\n' * 10)",
        "import sys; sys.stderr.write('e' * 50_000_000)",
        "import os; [os.write(1, b'x' * 1_000_000) for _ in range(50)]",
        "import warnings; [warnings.warn(f'{k}' * 1000) for k in range(1000)]",
        "import logging; [logging.error('x' * 10_000) for _ in range(1000)]",
        "from IPython.display import display, update_display\n    h = display('x', display_id='h')\n"
        "    for k in range(1000): update_display(k, display_id='h')",
        "from IPython.display import HTML, clear_output, display\n"
        "    for k in range(1000): display(HTML('<b>' * 100)); clear_output()",
    ],
)
def test_endless_output_is_not_kept(classroom: Classroom, prints: str) -> None:
    code = f"def double(x):\n    {prints}\n    return x + x\n"
    report = classroom.attack({"double": code})
    assert len(report.everything) < 200_000
    report = classroom.attack({"double": HONEST["double"] + f"if True:\n    {prints}\n"})
    assert len(report.everything) < 200_000


DAEMON = f"""
import ctypes, os, time
def start_daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            libc = ctypes.CDLL(None)
            libc.prctl(15, b"{DAEMON_NAME}", 0, 0, 0)
            libc.prctl(1, 0, 0, 0, 0)
            for number in range(1, 65):
                libc.signal(number, 1)
            time.sleep(1000)
        os._exit(0)
"""


@pytest.mark.parametrize("where", ["cell", "call", "both"])
def test_a_daemon_does_not_outlive_its_submission(classroom: Classroom, where: str) -> None:
    inside = "    start_daemon()\n" if where != "cell" else ""
    outside = "start_daemon()\n" if where != "call" else ""
    cells = HONEST | {"double": f"{DAEMON}{outside}def double(x):\n{inside}    return x + x\n"}
    if outside:  # beside an exercise with rules what hides its calls is not run
        del cells["share"]
    classroom.attack(list(cells.values()), lost=["share"] if outside else [])
