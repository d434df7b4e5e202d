"""The jail from outside: it starts, forks, and ends everything; from inside: read-only and empty."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from autograder.errors import CourseError
from autograder.jail import Sandbox, Zygote
from autograder.runner.frames import Closed, FrameError


def run(sandbox: Sandbox, source: str, seconds: float = 20.0) -> dict[str, object]:
    """Run a cell, and give the runner's reply."""
    sandbox.channel.send({"op": "cell", "source": source, "name": "cell"})
    return sandbox.channel.receive(time.monotonic() + seconds)[0]


def said(sandbox: Sandbox, expression: str) -> str:
    """What an expression is in the jail."""
    reply = run(sandbox, f"import os, sys\nraise ValueError(str({expression})[:900])")
    error = reply["error"]
    assert isinstance(error, dict) and error["type"] == "ValueError", error
    return error["text"]


def descendants(pid: int) -> list[int]:
    """All processes below one, seen from outside the jail."""
    children = [int(p) for t in Path(f"/proc/{pid}/task").iterdir() for p in (t / "children").read_text().split()]
    return [d for child in children for d in [child, *descendants(child)]]


def zygote_and_below(zygote: Zygote) -> list[int]:
    return descendants(zygote._process.pid)


def test_cells_run_as_in_a_notebook(tiny_zygote: Zygote) -> None:
    sandbox = tiny_zygote.start()
    try:
        assert run(sandbox, "from IPython.display import display\nx = 1\ndisplay(x)")["error"] is None
        assert run(sandbox, "import __main__\nassert __main__.x == 1 and __name__ == '__main__'")["error"] is None
        assert run(sandbox, "print('a' * 10_000_000)")["printed"] == 10_000_001
        error = run(sandbox, "y = 1\nz = nothing")["error"]
        assert isinstance(error, dict)
        assert (error["type"], error["line"], error["name"]) == ("NameError", 2, "nothing")
        assert run(sandbox, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")["error"] is None
    finally:
        sandbox.close()


def test_inside_there_is_nothing_of_the_machine(tiny_zygote: Zygote, tiny_root: Path) -> None:
    sandbox = tiny_zygote.start()
    try:
        assert said(sandbox, "os.listdir('/etc')") == "['ld.so.cache']"
        assert said(sandbox, "os.listdir('/proc')") == "[]"
        assert said(sandbox, "os.path.exists('/home') or os.path.exists('/root/.ssh')") == "False"
        assert said(sandbox, "os.getuid() == 0") == "False"
        assert said(sandbox, f"os.path.exists({str(tiny_root)!r})") == "False"
        assert said(sandbox, "sorted(os.listdir('/course/assignment') + os.listdir('/course/lib'))") == str(
            ["autograder", "checks.py", "course_utils"]
        )
        assert said(sandbox, "sorted(os.listdir('/course/lib/autograder'))") == "['__init__.py', 'runner']"
        assert said(sandbox, "os.uname().nodename") == "jail"
        assert said(sandbox, "[n for n in os.environ if n in ('USER', 'COURSE_DATA', 'LOGNAME')]") == "[]"
        assert said(sandbox, "(os.getpid(), os.getppid())") == "(1, 0)"
    finally:
        sandbox.close()


def test_a_students_code_is_without_rights_and_under_a_filter(tiny_zygote: Zygote) -> None:
    tiny_zygote.wait()
    before = set(zygote_and_below(tiny_zygote))
    sandbox = tiny_zygote.start()
    try:
        run(sandbox, "x = 1")
        lines = {
            p: Path(f"/proc/{p}/status").read_text().splitlines() for p in set(zygote_and_below(tiny_zygote)) - before
        }
        states = [
            {k: v.split()[0] for k, _, v in (line.partition(":") for line in each) if v.split()}
            for each in lines.values()
        ]
        (theirs,) = [s for s in states if s["Seccomp"] == "2"]
        assert theirs["CapEff"] == theirs["CapPrm"] == theirs["CapAmb"] == "0" * 16 and theirs["NoNewPrivs"] == "1"
        assert theirs["Uid"] != "0" or not tiny_zygote._as_nobody
    finally:
        sandbox.close()


def test_inside_only_private_places_can_be_written(tiny_zygote: Zygote) -> None:
    sandbox = tiny_zygote.start()
    places = "['/', '/dev', '/usr', '/etc', '/proc', '/course', '/course/lib', sys.prefix, '/tmp', '/dev/shm']"
    try:
        assert said(sandbox, f"[p for p in {places} if os.access(p, os.W_OK)]") == "['/tmp', '/dev/shm']"
    finally:
        sandbox.close()


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        ("open('/tmp/x', 'wb').write(bytes(100 << 20))", "File too large"),
        ("[open(f'/tmp/{k}', 'wb').write(bytes(10 << 20)) for k in range(10)]", "No space left"),
        ("[open(f'/tmp/n{k}', 'wb').close() for k in range(6000)]", "No space left"),
        ("keep = [open('/dev/null') for k in range(300)]", "Too many open files"),
        ("bytearray(4 << 30)", ""),
        ("import socket\nsocket.create_connection(('8.8.8.8', 53), 1)", "unreachable"),
    ],
)
def test_what_a_submission_may_use_is_limited(tiny_zygote: Zygote, attempt: str, says: str) -> None:
    sandbox = tiny_zygote.start()
    try:
        error = run(sandbox, attempt)["error"]
        assert isinstance(error, dict) and says in error["text"]
    finally:
        sandbox.close()


@pytest.mark.parametrize(
    "bomb",
    [
        "import os, time\nfor k in range(80):\n    if os.fork() == 0:\n        time.sleep(1000)\n        os._exit(0)\n",
        "import threading, time\nfor k in range(80):\n    threading.Thread(target=time.sleep, args=(1000,)).start()\n",
    ],
)
def test_a_bomb_is_cleared_away(tiny_zygote: Zygote, bomb: str) -> None:
    sandbox = tiny_zygote.start()
    error = run(sandbox, bomb + "raise ValueError('all of them')\n")["error"]
    assert isinstance(error, dict)
    # An ordinary user's processes are counted; those of root are not, and are ended all the same.
    assert os.getuid() == 0 or error["type"] in ("BlockingIOError", "RuntimeError")
    sandbox.close()
    assert len(zygote_and_below(tiny_zygote)) <= 3


def test_closing_a_sandbox_ends_all_that_it_started(tiny_zygote: Zygote) -> None:
    tiny_zygote.wait()
    before = zygote_and_below(tiny_zygote)
    sandbox = tiny_zygote.start()
    daemon = (
        "import ctypes, os, time\n"
        "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n"  # no longer to be killed with the parent
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n    time.sleep(1000)\n"
        "while True:\n    pass\n"  # and this process never reads that the judge has gone
    )
    with pytest.raises(FrameError):
        run(sandbox, daemon, 1.0)
    during = set(zygote_and_below(tiny_zygote)) - set(before)
    assert len(during) >= 3
    scores = {p: Path(f"/proc/{p}/oom_score_adj").read_text().strip() for p in during}
    assert list(scores.values()).count("1000") >= 2  # the student's; the kernel ends these before the judge
    sandbox.close()
    assert set(zygote_and_below(tiny_zygote)) <= set(before)


def test_two_sandboxes_see_nothing_of_each_other(tiny_zygote: Zygote) -> None:
    first, second = tiny_zygote.start(), tiny_zygote.start()
    try:
        run(
            first, "open('/tmp/left', 'w').write('x')\nopen('/dev/shm/left', 'w').write('x')\nimport torch\ntorch.x = 1"
        )
        assert said(second, "os.listdir('/tmp') + os.listdir('/dev/shm')") == "[]"
        assert said(second, "hasattr(__import__('torch'), 'x')") == "False"
    finally:
        first.close(), second.close()


def test_a_runner_that_ends_closes_its_channel(tiny_zygote: Zygote) -> None:
    sandbox = tiny_zygote.start()
    with pytest.raises(Closed):
        run(sandbox, "import os\nos._exit(3)")
    sandbox.close()


def test_without_bubblewrap_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CourseError, match="apt install bubblewrap"):
        Zygote(tmp_path / "checks.py")


def test_an_unknown_isolation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="There is no isolation 'docker'"):
        Zygote(tmp_path / "checks.py", "docker")


def test_a_jail_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"The jail did not start: .*no-such-checks\.py"):
        Zygote(tmp_path / "no-such-checks.py").start()


def test_a_zygote_that_died_is_started_again(tiny_root: Path) -> None:
    with Zygote(tiny_root / "assignments" / "tiny_doubling" / "checks.py") as zygote:
        first = zygote.start()
        zygote._process.kill()
        zygote._process.wait()
        with pytest.raises(FrameError):
            run(first, "x = 1")
        first.close()
        second = zygote.start()
        assert run(second, "x = 1")["error"] is None
        second.close()


def test_no_isolation_runs_cells_too_and_ends_them(tiny_root: Path) -> None:
    with Zygote(tiny_root / "assignments" / "tiny_doubling" / "checks.py", "none") as zygote:
        sandbox = zygote.start()
        assert run(sandbox, "import checks\nassert checks.double.criteria", 120)["error"] is None
        before = set(zygote_and_below(zygote))
        with pytest.raises(FrameError):
            run(sandbox, "import os\nif os.fork() == 0:\n    pass\nwhile True:\n    pass", 1.0)
        sandbox.close()
        time.sleep(0.2)
        assert set(zygote_and_below(zygote)) < before
