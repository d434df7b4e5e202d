"""A course folder from submissions to nbgrader's gradebook and feedback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from autograder.assignment import load_assignment
from autograder.collect import collect
from autograder.course import Course, create_course
from autograder.errors import CourseError
from autograder.feedback import make_feedback
from autograder.grade import Graded, grade
from autograder.gradebook import open_gradebook
from autograder.judge import Judge
from autograder.judging import Settings
from autograder.secret import course_secret
from autograder.submission import Submission

# nbgrader's own add_submission looks at objects that are not in its session yet
pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")
NAME = "tiny_doubling"
RIGHT = {"double": "def double(x):\n    return x + x\n", "halve": "def halve(x):\n    return x / 2\n"}


@pytest.fixture
def course(tiny_root: Path, tmp_path: Path) -> Course:
    """A course with three submissions: right, wrong and unreadable."""
    assignment = load_assignment(NAME, tiny_root)
    made = create_course(tmp_path / "course", [assignment])
    hand_in(made, "anna", RIGHT)
    hand_in(made, "ben", {**RIGHT, "double": "def double(x):\n    return x * x\n"})
    (made.folder / "handed_in" / "cleo.ipynb").write_text("{ not JSON")
    collected = collect([made.folder / "handed_in"], NAME, made.folder)
    assert collected.students == ["anna", "ben", "cleo"] and not collected.refused
    return made


def hand_in(course: Course, student: str, sources: dict[str, str]) -> None:
    """Put a notebook with these exercises into the folder handed_in."""
    notebook = nbformat.read(course.folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.get("course", {}).get("name")
        if cell.cell_type == "code" and cell.metadata["course"]["role"] == "exercise":
            cell.source = sources[name]
        if cell.metadata.get("course", {}).get("role") == "written" and student == "anna":
            cell.source = "Because <script>alert(1)</script> it grows."
    (course.folder / "handed_in").mkdir(exist_ok=True)
    nbformat.write(notebook, course.folder / "handed_in" / f"{student}.ipynb")


def run(course: Course, root: Path, **options: object) -> Graded:
    assignment = load_assignment(NAME, root)
    settings = Settings(NAME, root, course_secret(course.folder))
    return grade(assignment, course.folder, settings, course.db_url, workers=1, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("same_jail")
def test_marks_reach_gradebook_and_feedback_and_stand(course: Course, tiny_root: Path) -> None:
    first = run(course, tiny_root)
    results = dict(first.results)
    assert {s: (r["score"], r["bonus"]) for s, r in first.results.items()} == {
        "anna": (2.5, 2),
        "ben": (0, 2),
        "cleo": (0, 0),
    }
    assert sorted(first.judged) == ["anna", "ben", "cleo"]
    assert "JSON" in first.results["cleo"]["oddities"][0]
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        anna = gradebook.find_submission(NAME, "anna")
        assert (anna.score, anna.max_score) == (4.5, 5.5)  # 2.5 and 2 bonus; the written answer waits
        assert anna.needs_manual_grade
        written = gradebook.find_grade("why_double", NAME, NAME, "anna")
        written.manual_score, written.needs_manual_grade = 3.0, False
        mark = gradebook.find_grade("check-double", NAME, NAME, "ben")
        mark.manual_score, mark.extra_credit = 1.0, 0.25
        gradebook.db.commit()
        assert gradebook.find_comment("double", NAME, NAME, "ben").auto_comment == "The square is not the double."

    again = run(course, tiny_root)
    assert again.judged == [] and again.results == results

    forced = run(course, tiny_root, force=True)
    assert len(forced.judged) == 3 and forced.results == results
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        assert gradebook.find_grade("why_double", NAME, NAME, "anna").manual_score == 3.0
        mark = gradebook.find_grade("check-double", NAME, NAME, "ben")
        assert (mark.auto_score, mark.manual_score, mark.extra_credit) == (0.0, 1.0, 0.25)

    pages = make_feedback(course, NAME)
    assert len(pages) == 3
    page = pages[0].read_text()
    assert "Content-Security-Policy" in page
    assert "<script>alert(1)" not in page
    assert "doubles_large_numbers" not in page  # titles, not names
    assert "Large entries are doubled too." in page
    assert "The square is not the double." in pages[1].read_text()

    # nbgrader's own commands on the same course; it cannot read a notebook that is no JSON, and goes on.
    shutil.rmtree(course.folder / "submitted" / "cleo")
    assert nbgrader(course, "autograde", NAME, "--force") == 0
    assert nbgrader(course, "generate_feedback", NAME, "--force") == 0
    assert nbgrader(course, "export") == 0
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        assert gradebook.find_submission(NAME, "anna").score == 2.5 + 2 + 3
        assert gradebook.find_grade("check-double", NAME, NAME, "ben").auto_score == 0.0
    assert "anna" in (course.folder / "grades.csv").read_text()


def nbgrader(course: Course, *arguments: str) -> int:
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=course.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.returncode


@pytest.mark.usefixtures("same_jail")
def test_changed_submission_is_judged_again_and_no_other(course: Course, tiny_root: Path) -> None:
    run(course, tiny_root)
    hand_in(course, "ben", RIGHT)
    collect([course.folder / "handed_in"], NAME, course.folder)
    second = run(course, tiny_root)
    assert second.judged == ["ben"]
    assert second.results["ben"]["score"] == 2.5


@pytest.mark.usefixtures("same_jail")
def test_killed_run_goes_on(course: Course, tiny_root: Path) -> None:
    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run(course, tiny_root, progress=kill)
    stored = list((course.folder / "results" / NAME).glob("*.json"))
    assert len(stored) == 1 and json.loads(stored[0].read_text())["result"]
    rest = run(course, tiny_root)
    assert len(rest.judged) == 2 and len(rest.results) == 3


@pytest.mark.usefixtures("same_jail")
def test_a_new_criterion_or_secret_judges_all_again(course: Course, tiny_root: Path) -> None:
    run(course, tiny_root)
    (course.folder / ".secret").unlink()
    assert len(run(course, tiny_root).judged) == 3


@pytest.mark.usefixtures("same_jail")
def test_one_hostile_submission_leaves_the_batch_and_the_gradebook_alone(
    course: Course, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = course.folder / "submitted"
    for student, data in {
        "dora": b"\xff\xfe",
        "emil": b"[" * 100_000,
        "fred": b"",
        "gina": json.dumps(
            {"cells": [{"cell_type": "code", "source": "x = '\ud800'\ndef double(x): return x + x"}]}
        ).encode(),
        "hugo": json.dumps(
            {"cells": [{"cell_type": "code", "source": "def double(x):\n    import os; os._exit(0)"}]}
        ).encode(),
    }.items():
        place = submitted / student / NAME
        place.mkdir(parents=True)
        (place / f"{NAME}.ipynb").write_bytes(data)
        (place / "timestamp.txt").write_bytes(b"the day after \xff\x00")
    (submitted / "ivan" / NAME).mkdir(parents=True)
    (submitted / "ivan" / NAME / f"{NAME}.ipynb").symlink_to(course.folder / "nbgrader_config.py")
    (submitted / "judy").symlink_to(course.folder, target_is_directory=True)
    (submitted / "kurt" / NAME).mkdir(parents=True)

    honest = Judge.judge

    def judge(self: Judge, submission: Submission, *how: bool, **more: Any) -> object:
        if "x * x" in submission.code():
            raise KeyError("something that nobody thought of")
        return honest(self, submission, *how, **more)

    monkeypatch.setattr(Judge, "judge", judge)
    graded = run(course, tiny_root)
    scores = {s: r["score"] for s, r in graded.results.items()}
    assert scores == {
        "anna": 2.5,
        "cleo": 0,
        "dora": 0,
        "emil": 0,
        "fred": 0,
        "gina": 2.5,
        "hugo": 0,
        "ivan": 0,
        "kurt": 0,
    }
    assert list(graded.failed) == ["ben"] and "KeyError" in graded.failed["ben"]
    assert all(graded.results[s]["oddities"] for s in ("cleo", "dora", "emil", "fred", "ivan", "kurt"))
    assert "ordinary file" in graded.results["ivan"]["oddities"][0]
    text = json.dumps(dict(graded.results)) + "".join(
        p.read_text() for p in course.folder.glob("autograded/*/*/*.ipynb")
    )
    assert str(course.folder) not in text and "get_config" not in text
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        assert {s.student.id: s.score for s in gradebook.find_assignment(NAME).submissions}["anna"] == 4.5
    monkeypatch.undo()


@pytest.mark.usefixtures("same_jail")
def test_only_those_asked_for_are_judged(course: Course, tiny_root: Path) -> None:
    assert run(course, tiny_root, students=["ben"]).judged == ["ben"]
    with pytest.raises(CourseError, match="zoe handed in nothing"):
        run(course, tiny_root, students=["zoe"])
