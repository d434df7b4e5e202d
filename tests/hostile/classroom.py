"""A course in which somebody attacks: what every attack is held against.

`Classroom.attack` hands a hostile notebook in, judges it in the real jail, records it in a real gradebook, judges an
honest notebook after it, and asserts what must hold whatever the attack was: no unearned point, nothing of the
machine or of the criteria in anything that comes out, the honest student's marks complete, the gradebook intact,
no process left, and a sentence in the report that says what happened.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_assignment import CHECKS, HIDDEN, MISTAKES, NAME, SOURCE, write_tiny_assignment

from autograder.assignment import load_assignment
from autograder.course import create_course
from autograder.grade import released_notebook
from autograder.gradebook import open_gradebook
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.rebuild import rebuild
from autograder.record import answered, record
from autograder.session import TimeLimits
from autograder.submission import Submission, read_notebook
from course_utils.checking.display import exercise_html

QUICK = TimeLimits(cell=5.0, criterion=3.0, submission=60.0)

# Exercises by hand, and one that is handed a function; the tiny assignment's own two have no rules.
MORE_SOURCE = '''

# %% exercise="share"
def share(scores):
    """Softmax of each row, by hand.  (N, K) -> (N, K)"""
    ### BEGIN SOLUTION
    e = torch.exp(scores - scores.max(1, keepdim=True).values)
    return e / e.sum(1, keepdim=True)
    ### END SOLUTION


# %% check="share"
check("share")


# %% exercise="descend"
def descend(gradient, w, steps):
    """Gradient descent with steps of 0.1.  (d,) -> (d,)"""
    ### BEGIN SOLUTION
    for _ in range(steps):
        w = w - 0.1 * gradient(w)
    return w
    ### END SOLUTION


# %% check="descend"
check("descend")
'''
MORE_CHECKS = '''

share = Exercise("share", forbidden=("torch.softmax", "torch.log_softmax", "torch.nn.*", "torch.autograd.*"))
descend = Exercise("descend")


@share.criterion(points=2)
def rows_are_softmax(student, draw):
    """Every row is the softmax of its scores."""
    scores = draw.normal(5, 3)
    e = scores.exp()
    expect(student.share(scores)).close_to(e / e.sum(1, keepdim=True))


@descend.criterion(points=2)
def ends_where_it_should(student, draw):
    """The steps lead to the right place."""
    target, w = draw.normal(4), draw.normal(4)
    expect(student.descend(lambda v: v - target, w, 7)).close_to(target + 0.9**7 * (w - target))
'''
POINTS = {"double": 2.5, "halve": 2.0, "share": 2.0, "descend": 2.0}
HONEST = {
    "double": "def double(x):\n    return x + x\n",
    "halve": "def halve(x):\n    return x / 2\n",
    "share": "def share(scores):\n    e = torch.exp(scores)\n    return e / e.sum(1, keepdim=True)\n",
    "descend": (
        "def descend(gradient, w, steps):\n    for _ in range(steps):\n        w = w - gradient(w) * 0.1\n"
        "    return w\n"
    ),
}
CANARIES = {
    "environment": "canary-of-the-environment",
    "hidden criteria": "canary-of-the-hidden-criteria",
    "mistakes": "canary-of-the-mistakes",
    "another submission": "canary-of-another-submission",
    "gradebook": "canary-of-the-gradebook",
    "a file in the course folder": "canary-of-the-course-folder",
    "a file under /tmp": "canary-of-a-temporary-file",
    "/etc/passwd": "root:x:0:0",
}


def write_attacked_assignment(root: Path) -> Path:
    """The tiny assignment with two more exercises, and canaries in what no student may see."""
    return write_tiny_assignment(
        root,
        source=SOURCE + MORE_SOURCE,
        checks=CHECKS + MORE_CHECKS,
        hidden=f'"""{CANARIES["hidden criteria"]}"""\n' + HIDDEN,
        mistakes=f'"""{CANARIES["mistakes"]}"""\n' + MISTAKES,
    )


def code_cell(source: str, **more: Any) -> dict[str, Any]:
    """A code cell as a notebook file has it."""
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None, **more}


def notebook(cells: Iterable[Any], **more: Any) -> bytes:
    """A notebook file of these cells: sources of code, or whole cells."""
    made = [code_cell(c) if isinstance(c, str) else c for c in cells]
    return json.dumps({"cells": made, "nbformat": 4, "nbformat_minor": 5, "metadata": {}, **more}).encode()


def below(pid: int) -> set[int]:
    """All processes below one, seen from outside the jail."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= {int(child)} | below(int(child))
    return found


DAEMON_NAME = "hostile" + os.environ.get("PYTEST_XDIST_WORKER", "")  # tests that run beside these have daemons too


def named(name: str) -> set[int]:
    """All processes of the machine that call themselves so (prctl PR_SET_NAME)."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


@dataclass
class Report:
    """What came out of judging one notebook."""

    result: dict[str, Any]
    notebook: str
    tables: dict[str, str]

    @property
    def scores(self) -> dict[str, float]:
        """Points by exercise."""
        return {name: e["score"] for name, e in self.result["exercises"].items()}

    @property
    def told(self) -> str:
        """All that the student is told: messages, causes and oddities."""
        exercises = self.result["exercises"].values()
        messages = [c["message"] for e in exercises for c in e["criteria"]]
        return "\n".join([*self.result["oddities"], *messages, *(d for e in exercises for d in e["diagnosis"])])

    @property
    def everything(self) -> str:
        """Everything that anybody gets to see."""
        return "\n".join([json.dumps(self.result, ensure_ascii=False), self.notebook, *self.tables.values()])


class Classroom:
    """A course folder with a gradebook, a jail, an honest student, and canaries in all that is secret.

    Parameters
    ----------
    folder : Path
        Where to put all of it.
    zygote : Zygote
        The jail, whose assignment lies in ``folder / "checkout"``.
    limits : TimeLimits
        Short ones.
    """

    def __init__(self, folder: Path, zygote: Zygote, limits: TimeLimits = QUICK) -> None:
        self.root = folder / "checkout"
        self.zygote = zygote
        self.assignment = load_assignment(NAME, self.root)
        self.judge = Judge(self.assignment, zygote, "a secret", limits)
        self.course = create_course(folder / "course", [self.assignment])
        self.released = released_notebook(self.assignment, self.course.folder)
        self._put("honest", notebook([*HONEST.values(), f"# {CANARIES['another submission']}"]))
        (self.course.folder / "notes.txt").write_text(CANARIES["a file in the course folder"])
        with open_gradebook(self.course.db_url, self.course.course_id) as gradebook:
            gradebook.update_or_create_student("honest", last_name=CANARIES["gradebook"])
        self.zygote.wait()
        self._processes = below(zygote._process.pid)
        self.honest = self._grade("honest")
        assert self.honest.scores == POINTS, self.honest.told

    def _put(self, student: str, data: bytes) -> Path:
        path = self.course.folder / "submitted" / student / NAME / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        return path

    def _grade(self, student: str) -> Report:
        path = self.course.folder / "submitted" / student / NAME / f"{NAME}.ipynb"
        submission = read_notebook(path, self.assignment.exercises, self.assignment.experiments)
        return self.grade(student, submission)

    def grade(self, student: str, submission: Submission) -> Report:
        """Judge a submission and record it, as a grading run does."""
        judged = self.judge.judge(submission)
        tables = {name: exercise_html(e.result) for name, e in judged.exercises.items()}
        result = judged.to_json()
        made = rebuild(self.released, submission, result, tables)
        with open_gradebook(self.course.db_url, self.course.course_id) as gradebook:
            record(gradebook, NAME, student, result, answered(made))
        return Report(result, json.dumps(made, ensure_ascii=False), tables)

    def attack(
        self,
        cells: dict[str, str] | Iterable[Any] | bytes,
        *,
        lost: Iterable[str] = (),
        says: str | Iterable[str] = (),
        first: Iterable[Any] = (),
    ) -> Report:
        """Hand a hostile notebook in and assert what must hold after it.

        Parameters
        ----------
        cells : dict, list or bytes
            The exercises that are not the honest student's, by name; or all cells; or the file.
        lost : iterable of str
            The exercises that must earn nothing; all others must earn all their points.
        says : str or iterable of str
            What the report must say.
        first : iterable
            Cells before the exercises.
        """
        if isinstance(cells, dict):
            cells = [*first, *(HONEST | cells).values()]
        data = cells if isinstance(cells, bytes) else notebook(cells)
        self._put("attacker", data)
        report = self._grade("attacker")
        assert report.scores == {e: 0.0 if e in set(lost) else p for e, p in POINTS.items()}, report.told
        for sentence in [says] if isinstance(says, str) else says:
            assert sentence in report.told, report.told
        self.assert_nothing_leaked(report.everything, known=data.decode(errors="replace"))
        self.assert_nothing_left()
        self.assert_others_graded(report)
        return report

    def harm(self, cells: dict[str, str]) -> Report:
        """As `attack`, where the notebook may harm its own other exercises."""
        data = notebook((HONEST | cells).values())
        self._put("attacker", data)
        report = self._grade("attacker")
        self.assert_nothing_leaked(report.everything, known=data.decode())
        self.assert_nothing_left()
        self.assert_others_graded(report)
        return report

    def assert_nothing_leaked(self, text: str, known: str) -> None:
        """No canary in what came out, and no path but those that the attacker knew."""
        for where, canary in CANARIES.items():
            assert canary not in text, f"something of {where} came out"
        for path in (str(self.root), str(self.course.folder)):
            assert path in known or path not in text

    def assert_nothing_left(self) -> None:
        """No process more than before, in the jail or out of it."""
        assert below(self.zygote._process.pid) == self._processes
        assert named(DAEMON_NAME) == set()

    def assert_others_graded(self, report: Report) -> None:
        """The honest student, judged after the attack by the same zygote, gets the same, in the gradebook too."""
        again = self._grade("honest")
        assert again.result == self.honest.result
        with open_gradebook(self.course.db_url, self.course.course_id) as gradebook:
            for student, scores in (("honest", POINTS), ("attacker", report.scores)):
                marks = gradebook.find_submission_notebook(NAME, NAME, student).grades
                assert {g.name: g.auto_score for g in marks if g.name.startswith("check-")} == {
                    f"check-{name}": score for name, score in scores.items()
                }
            names = {s.id: s.last_name for s in gradebook.students}
            assert names["honest"] == CANARIES["gradebook"]
        file = self.course.db_url.removeprefix("sqlite:///")
        if os.path.isfile(file):
            with sqlite3.connect(file) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
