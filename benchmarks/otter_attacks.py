"""What otter-grader does with attacks, measured: the column of docs/security.md that is about it.

The same exercise, tests and attacks as in `nbgrader_attacks.py`, one submission after the other through `otter run`,
which does without a container what `otter grade` does inside one.  So what is measured is what happens between a
submission and its tests; what the container keeps out (files of the machine, other submissions, processes that live
on) is not tried here.  Nothing here uses up processes, memory or disk.

otter-grader is no dependency of this course; give it an environment of its own:

    python -m venv /tmp/otter && /tmp/otter/bin/pip install otter-grader ipykernel
    python benchmarks/otter_attacks.py --otter /tmp/otter/bin/otter     # prints benchmarks/results/otter_attacks.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook
from nbgrader_attacks import ATTACKS, HIDDEN, LIMIT, POINTS, READ, VISIBLE, WRONG, Attack

MAX_SECONDS = 12 * LIMIT  # for a submission, the start of its kernel included; otter itself sets a cell no limit
INAPPLICABLE = (  # about the machine, which the container keeps out, or about cells that otter does not have
    "reads the other submissions",
    "reads the environment",
    "reads a file of the machine",
    "rewrites all marks in the gradebook",
    "writes into the course folder",
    "connects to the network",
    "a daemon with double fork",
    "a copied test cell",
    "deleted test cells",
    "changed points",
    "scripts in text and outputs",
    "a link beside the notebook",
)
OWN = [
    Attack(
        "one line that rewrites what runs the tests",
        "import otter.test_files.exception_test as t; t.test_case.call_func = lambda self, env: None\n" + WRONG,
    ),
]
TEST_FILE = """OK_FORMAT = False
from otter.test_files import test_case

name = "double"
points = 2


@test_case(points=1)
def visible(env):
    double = env["double"]
{visible}


@test_case(points=1, hidden=True)
def hidden(env):
    double = env["double"]
{hidden}
"""


def indented(code: str) -> str:
    """Code as it stands inside of a function."""
    return "\n".join("    " + line for line in code.split("\n"))


def reads_tests_of_otter(attack: Attack) -> Attack:
    """The attack, with the place where otter keeps its tests in place of nbgrader's."""
    places = READ.replace("FOLDER/{}", "../**/tests/*.py")
    return replace(attack, code=attack.code.replace(READ.format("source/**/*.ipynb"), places))


def hand_in(place: Path, attack: Attack) -> Path:
    """Write one submission; returns its file."""
    place.mkdir()
    path = place / "a.ipynb"
    notebook = new_notebook(cells=[new_code_cell(attack.code, metadata={"nbgrader": {"solution": True}})])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    if attack.file is not None:
        attack.file(place, place)
        return path
    if attack.change is not None:
        attack.change(notebook)
    write(notebook, path)
    return path


def otter(program: str, folder: Path, *arguments: str) -> tuple[int | None, str]:
    """Run otter: its exit status, None where it had to be stopped, and what it printed."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(program).parent), os.environ.get("PATH", "")])}
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [program, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=MAX_SECONDS)
        return process.returncode, out.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a kernel that hangs, too
        process.wait()


def measure(run: Callable[..., tuple[int | None, str]], attack: Attack, folder: Path) -> tuple[str, str]:
    """The points of one attack, and what happened."""
    place = folder / "submission"
    submitted = hand_in(place, attack)
    status, _ = run(folder, "run", "-a", "autograder.zip", "-o", str(place), "--no-logo", str(submitted))
    results = place / "results.json"
    effects, got = [], None
    if results.exists():
        text = results.read_text()
        got = sum(test.get("score", 0.0) for test in json.loads(text)["tests"])
        if "read: hidden tests" in text or "canary-of-the-hidden-tests" in text:
            effects.append("**hidden tests come back**")
        if len(text) > 10 << 20:
            effects.append(f"**{len(text) >> 20} MiB kept**")
    shutil.rmtree(place)
    if status is None:
        effects.append(f"had to be stopped after {MAX_SECONDS} s")
    if got is None:
        effects.append("no marks" if attack.earned == 0 else "no marks: earned points are lost")
    elif got > attack.earned:
        effects.append("**unearned points**")
    elif got < attack.earned:
        effects.append("earned points are lost")
    return "–" if got is None else f"{got:g} of {attack.earned:g}", "; ".join(effects) or "as it should be"


def main() -> None:
    """Measure all attacks, or those whose names hold a word, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--otter", default=shutil.which("otter"), help="the program, in an environment of its own")
    parser.add_argument("--only", default="", help="attacks whose names hold this")
    arguments = parser.parse_args()
    if arguments.otter is None or not Path(arguments.otter).exists():
        raise SystemExit("otter-grader was not found: install it as this file's first lines say, and give --otter.")

    def run(folder: Path, *rest: str) -> tuple[int | None, str]:
        return otter(arguments.otter, folder, *rest)

    rows = []
    with tempfile.TemporaryDirectory(prefix="otter-") as name:
        folder = Path(name)
        (folder / "tests").mkdir()
        test = TEST_FILE.format(visible=indented(VISIBLE), hidden=indented(HIDDEN))
        (folder / "tests" / "double.py").write_text(test)
        status, said = run(folder, "generate", "-t", "tests", "-o", "autograder.zip")
        if status != 0:
            raise SystemExit(f"otter generate failed:\n{said[-2000:]}")
        for attack in [*ATTACKS, *OWN]:
            if attack.name in INAPPLICABLE or arguments.only not in attack.name:
                continue
            rows.append((attack.name, *measure(run, reads_tests_of_otter(attack), folder)))
            print("#", *rows[-1], file=sys.stderr, flush=True)
        said = run(folder, "--version")[1]
    version = next((line.split()[-1] for line in said.splitlines() if line.startswith("Otter-Grader")), "?")
    print(f"otter-grader {version}, `otter run`, without its container. Points are those given and those earned.")
    print(f"The exercise is worth {POINTS:g}, half of it by a hidden test.\n")
    print("| attack | points | what happened |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
