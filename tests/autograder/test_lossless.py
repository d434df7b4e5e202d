"""Nothing is lost: killed runs, runs without anything new, and changed criteria."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import graded_course
import nbformat
import pytest
from processes import children, gone
from tiny_assignment import NAME, write_tiny_assignment

from autograder.assignment import load_assignment
from autograder.collect import collect
from autograder.course import Course, create_course, read_course
from autograder.errors import CourseError
from autograder.grade import Graded, grade
from autograder.gradebook import open_gradebook
from autograder.judging import Settings
from autograder.secret import course_secret

# nbgrader's own add_submission looks at objects that are not in its session yet
pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")
RIGHT = {"double": "def double(x):\n    return x + x\n", "halve": "def halve(x):\n    return double(x) / 4\n"}
SQUARE = {**RIGHT, "double": "def double(x):\n    return x * x\n"}
KINDS = [RIGHT, SQUARE, {**RIGHT, "halve": "raise ValueError('no')\n"}, {}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout of its own, to be changed."""
    return write_tiny_assignment(tmp_path / "checkout")


def make_course(folder: Path, root: Path, size: int) -> Course:
    """A course whose students hand in work of four kinds."""
    course = create_course(folder, [load_assignment(NAME, root)])
    (folder / "handed_in").mkdir()
    for k in range(size):
        notebook = nbformat.read(folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
        for cell in notebook.cells:
            role, name = (cell.metadata.get("course", {}).get(key) for key in ("role", "name"))
            if role == "exercise" and name in KINDS[k % len(KINDS)]:
                cell.source = KINDS[k % len(KINDS)][name]
            elif role == "written" and k % 3 == 0:
                cell.source = f"Answer {k}."
        nbformat.write(notebook, folder / "handed_in" / f"student{k:02d}.ipynb")
    collect([folder / "handed_in"], NAME, folder)
    (folder / "submitted" / "student00" / NAME / "timestamp.txt").write_text("2024-02-29 12:30:00 UTC")
    course_secret(folder)
    return course


def run(course: Course, root: Path, **options: Any) -> Graded:
    assignment = load_assignment(NAME, root)
    settings = Settings(NAME, root, course_secret(course.folder))
    return grade(assignment, course.folder, settings, course.db_url, course_id=course.course_id, **options)


def outcome(course: Course) -> dict[str, dict[str, Any]]:
    """All that a grading run makes."""
    return graded_course.outcome(course, NAME)


def command(course: Course, workers: int) -> list[str]:
    program = [sys.executable, "-m", "autograder.cli", "grade", NAME, "--course", str(course.folder)]
    return [*program, "--workers", str(workers)]


@pytest.mark.usefixtures("same_jail")
def test_a_driver_killed_again_and_again_ends_with_what_an_undisturbed_one_gives(root: Path, tmp_path: Path) -> None:
    size = 12
    course = make_course(tmp_path / "course", root, size)
    shutil.copytree(course.folder, tmp_path / "undisturbed")
    undisturbed = read_course(tmp_path / "undisturbed")
    run(undisturbed, root)  # in this process

    rng = random.Random(time.time_ns())
    stored = course.folder / "results" / NAME
    for wanted, workers in ((0, 1), (rng.randint(1, 5), 2), (rng.randint(6, size - 1), 1)):
        with subprocess.Popen(command(course, workers), cwd=root, stdout=subprocess.DEVNULL) as driver:
            while len(list(stored.glob("*.json"))) < wanted or len(children(driver.pid)) < 4:
                assert driver.poll() is None, "it ended before it could be killed"
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.2))
            started = children(driver.pid)
            driver.kill()
        assert not gone(started), "the killed driver left processes"
    judged_before = len(list(stored.glob("*.json")))
    last = subprocess.run(command(course, 1), cwd=root, check=True, capture_output=True, text=True)
    assert f"{size - judged_before} judged, {judged_before} unchanged" in last.stdout

    assert outcome(course) == outcome(undisturbed)
    assert len(outcome(course)["results"]) == len(outcome(course)["marks"]) == size


def snapshot(course: Course) -> dict[str, tuple[int, bytes]]:
    """Content and time of change of every file of the course."""
    files = sorted(p for p in course.folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


@pytest.mark.usefixtures("same_jail")
def test_what_was_judged_but_not_recorded_is_recorded_without_judging(root: Path, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", root, 4)
    empty = (course.folder / "gradebook.db").read_bytes()
    run(course, root)
    complete = outcome(course)
    before = snapshot(course)
    assert run(course, root).judged == [] and snapshot(course) == before

    (course.folder / "gradebook.db").write_bytes(empty)  # as after a kill between the files and the gradebook
    assert run(course, root).judged == []
    assert outcome(course) == complete

    with sqlite3.connect(course.folder / "gradebook.db") as database:
        database.execute("UPDATE grade SET auto_score = 17")
    (course.folder / "submitted" / "student01" / NAME / "timestamp.txt").write_text("2024-03-01 08:00:00 UTC")
    assert run(course, root).judged == []
    marks = outcome(course)["marks"]
    assert str(marks["student01"][0]) == "2024-03-01 08:00:00"
    assert [m[1] for m in marks.values()] == [m[1] for m in complete["marks"].values()]

    shutil.rmtree(course.folder / "autograded" / "student02")
    assert run(course, root).judged == ["student02"]
    assert outcome(course)["notebooks"] == complete["notebooks"]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.usefixtures("same_jail")
def test_a_changed_criterion_judges_again_what_depends_on_it(root: Path, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", root, 4)
    run(course, root)
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        for cell, points in (("check-halve", 1.5), ("why_double", 3.0)):
            mark = gradebook.find_grade(cell, NAME, NAME, "student00")
            mark.manual_score, mark.needs_manual_grade = points, False
        gradebook.db.commit()
    checks, hidden = root / "assignments" / NAME / "checks.py", root / "solutions" / NAME / "hidden_checks.py"
    mistakes = root / "solutions" / NAME / "mistakes.py"
    source = root / "solutions" / NAME / f"{NAME}.py"

    def judged_again() -> list[list[str]]:
        again = run(course, root).exercises_judged
        fresh = tmp_path / f"fresh{len(list(tmp_path.iterdir()))}"
        shutil.copytree(course.folder, fresh, ignore=shutil.ignore_patterns("results", "autograded", "gradebook.db"))
        other = read_course(fresh)
        create_course(fresh, [load_assignment(NAME, root)])
        run(other, root)
        kept, anew = outcome(course), outcome(other)
        assert kept["results"] == anew["results"] and kept["notebooks"] == anew["notebooks"]
        return [again[s] for s in sorted(again)]

    edit(checks, "expect(student.halve(x)).close_to(x / 2)", "expect(student.halve(x), 'half').close_to(x / 2)")
    assert judged_again() == [["halve"]] * 4
    edit(hidden, "draw.normal(3, scale=1e12)", "draw.normal(4, scale=1e12)")
    assert judged_again() == [["double"]] * 4
    edit(mistakes, "The square is not the double.", "A square is no double.")
    assert judged_again() == [["double"]] * 4
    edit(checks, '"""What your notebook checks."""', '"""What your notebook checks, and how."""  # nothing new')
    assert judged_again() == []
    # The reference of doubling stood in for the students who have it wrong, and who halve by doubling.
    edit(source, "secret_of_doubling = x + x", "secret_of_doubling = x * 2")
    assert judged_again() == [["halve"]]
    # Now doubling is wrong where it was right, and halving that leans on it is judged with the reference in its place.
    edit(checks, "expect(student.double(x)).close_to(2 * x)", "expect(student.double(x)).close_to(3 * x)")
    assert judged_again() == [["double", "halve"], ["double"], ["double"], ["double"]]

    with open_gradebook(course.db_url, course.course_id) as gradebook:
        halve = gradebook.find_grade("check-halve", NAME, NAME, "student00")
        why = gradebook.find_grade("why_double", NAME, NAME, "student00")
        assert (halve.manual_score, why.manual_score) == (1.5, 3.0)
        assert not why.needs_manual_grade, "nothing has changed that this mark was based on"


@pytest.mark.usefixtures("same_jail")
def test_two_runs_do_not_grade_the_same_assignment_at_once(root: Path, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", root, 1)
    (course.folder / "results" / NAME).mkdir(parents=True)
    with (
        filelock.FileLock(course.folder / "results" / NAME / ".lock"),
        pytest.raises(CourseError, match="Another run is grading tiny_doubling"),
    ):
        run(course, root)
    assert run(course, root).judged == ["student00"]
