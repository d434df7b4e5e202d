"""Reading what is secret: hidden criteria, other submissions, the gradebook, the environment, /proc, /etc."""

from __future__ import annotations

from pathlib import Path

import pytest
from classroom import CANARIES, HONEST, Classroom, below
from tiny_assignment import NAME

from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.submission import read_program

# Looks wherever it can for a word that stands only in what is secret, and puts what it finds into its report.
SPY = """
import gc, os, sys
def spy():
    found = []
    def look(where, text):
        at = text.find("canary" + "-of-")
        while at >= 0 and len(found) < 20:
            found.append(where + ": " + text[at : at + 40])
            at = text.find("canary" + "-of-", at + 1)
        if "root:x:0" + ":0" in text:
            found.append(where + ": root:x:0" + ":0")
    look("environment", repr(os.environ))
    for name, module in list(sys.modules.items()):
        look(name, repr(list(vars(module).values())[:0]) + str(getattr(module, "__doc__", "")))
    for value in gc.get_objects():
        if isinstance(value, (dict, list, tuple)) and len(value) < 2000:
            for v in value.values() if isinstance(value, dict) else value:
                if isinstance(v, str):
                    look("memory", v[:100_000])
    skipped = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/sys", "/dev", "/course/python", sys.base_prefix, sys.prefix)
    folders = ["/", *PLACES]
    files = 0
    for start in folders:
        for folder, below, names in os.walk(start):
            below[:] = [b for b in below if not os.path.join(folder, b).startswith(skipped)]
            for name in names:
                path = os.path.join(folder, name)
                if folder.startswith("/proc") and name not in ("environ", "cmdline", "mountinfo"):
                    continue
                try:
                    if os.path.isfile(path) and (os.path.getsize(path) < 1 << 20):
                        files += 1
                        look(path, open(path, errors="replace").read(1 << 20))
                except OSError:
                    pass
            if files > 20_000:
                break
    for path in ("/proc/self/environ", "/proc/1/environ", "/proc/self/maps", "/etc/passwd", "/etc/shadow"):
        try:
            look(path, open(path, errors="replace").read())
            found.append(path)
        except OSError:
            pass
    return found
"""


def spying(places: list[str]) -> str:
    """A solution that tells what its spy found."""
    return SPY.replace("*PLACES", ", ".join(map(repr, places))) + (
        "def double(x):\n    found = spy()\n    raise ValueError(f'{len(found)} finds: {found}')\n"
    )


def test_a_spy_finds_nothing(classroom: Classroom) -> None:
    """Neither in its report nor, where `attack` looks for the canaries themselves, in anything else that comes out."""
    secret = [str(classroom.root), str(classroom.course.folder), str(classroom.root.parent)]
    code = spying(secret).replace("def double", "import checks\nassert 'hidden' not in vars(checks)\ndef double")
    classroom.judge._limits, before = type(classroom.judge._limits)(10.0, 10.0, 60.0), classroom.judge._limits
    try:
        # Beside `share`, which has rules, the spy would not be run.
        cells = [c for name, c in (HONEST | {"double": code}).items() if name != "share"]
        classroom.attack(cells, lost=["double", "share"], says="0 finds: []")
    finally:
        classroom.judge._limits = before


def test_the_spy_finds_what_is_there_without_a_jail(attacked_folder: Path, classroom: Classroom) -> None:
    """The oracle of the test above sees what it looks for."""
    checks = attacked_folder / "checkout" / "assignments" / NAME / "checks.py"
    with Zygote(checks, "none") as zygote:
        limits = type(classroom.judge._limits)(20.0, 20.0, 60.0)
        judge = Judge(classroom.assignment, zygote, "a secret", limits)
        code = spying([str(attacked_folder)]).replace('["/", ', "[")
        result = judge.judge(read_program(code, classroom.assignment.exercises)).to_json()
    told = str(result["exercises"]["double"])
    assert any(canary in told for canary in CANARIES.values())


READS = {
    "the hidden criteria": "open('{root}/solutions/{name}/hidden_checks.py').read()",
    "the hidden criteria as a module": "__import__('solutions.{name}.hidden_checks')",
    "the reference": "open('{root}/solutions/{name}/{name}.py').read()",
    "another submission": "open('{course}/submitted/honest/{name}/{name}.ipynb').read()",
    "the gradebook": "open('{course}/gradebook.db', 'rb').read()",
    "the course's secret": "open('{course}/.secret').read()",
    "the judge's code": "__import__('autograder.judge')",
    "the judge": "__import__('autograder.secret')",
    "the environment of process 1": "open('/proc/1/environ').read()",
    "its own memory map": "open('/proc/self/maps').read()",
    "its descriptors": "__import__('os').listdir('/proc/self/fd')",
    "users": "open('/etc/passwd').read()",
    "the host's name": "open('/etc/hostname').read()",
    "the kernel's log": "open('/dev/kmsg').read()",
    "the disk": "open('/dev/sda', 'rb').read(1)",
    "memory": "open('/dev/mem', 'rb').read(1)",
    "sysfs": "__import__('os').listdir('/sys')",
    "a way up": "open('../../../../../../etc/shadow').read()",
    "the descriptors that are open": "[open(k, 'rb', 0).read(0) and open(k).seek(0) for k in range(4, 64)]",
    "a terminal": "open('/dev/tty').read()",
}


@pytest.mark.parametrize("what", READS)
def test_what_is_secret_cannot_be_read(classroom: Classroom, what: str) -> None:
    expression = READS[what].format(root=classroom.root, course=classroom.course.folder, name=NAME)
    code = (
        "def double(x):\n    try:\n"
        f"        found = {expression}\n    except (OSError, ImportError, AttributeError) as error:\n"
        "        raise RuntimeError('refused: ' + type(error).__name__) from None\n"
        "    raise RuntimeError('got ' + str(found)[:200])\n"
    )
    report = classroom.attack({"double": code}, lost=["double"], says="refused: ")
    assert "got " not in report.told


@pytest.mark.parametrize(
    "expression",
    [
        "os.mkdir('/course/x')",
        "open('/course/lib/autograder/runner/serve.py', 'a')",
        "open('/usr/lib/x', 'w')",
        "open(os.__file__, 'a')",
        "os.symlink('/etc/passwd', '/course/assignment/x')",
        "os.link('/course/assignment/checks.py', '/tmp/x')",
        "os.mknod('/tmp/x', 0o60666, 1)",
        "os.chroot('/tmp')",
        "os.setuid(0)",
        "os.setgroups([0])",
        "os.nice(-5)",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (-1, -1))",
        "open('/dev/x', 'w')",
        "open('/proc/x', 'w')",
    ],
)
def test_nothing_outside_can_be_changed(classroom: Classroom, expression: str) -> None:
    code = f"import os\ndef double(x):\n    {expression}\n    return x + x\n"
    report = classroom.attack({"double": code}, lost=["double"])
    assert any(e in report.told for e in ("PermissionError", "OSError", "ValueError", "FileNotFoundError")), report.told


def test_what_is_left_in_writable_places_is_gone_for_the_next(classroom: Classroom) -> None:
    litter = (
        "import os\ndef litter():\n    for place in ('/tmp', '/dev/shm'):\n"
        "        open(f'{place}/left', 'w').write('x')\n        os.mkdir(f'{place}/folder')\n"
        "        os.symlink('left', f'{place}/folder/link')\n"
    )
    finds = (
        "import os\ndef halve(x):\n    assert not os.path.exists('/tmp/left')\n"
        "    assert not os.path.exists('/dev/shm/folder')\n    return x / 2\n"
    )
    code = f"{litter}def double(x):\n    if not os.path.exists('/tmp/left'):\n        litter()\n    return x + x\n"
    classroom.attack({"double": code, "halve": finds})
    assert below(classroom.zygote._process.pid) == classroom._processes
