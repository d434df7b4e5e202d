"""Plain `nbgrader autograde` judges in the jail, whatever the student's notebook says about itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from autograder.assignment import load_assignment
from autograder.course import Course, create_course
from autograder.gradebook import open_gradebook

pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")
NAME = "tiny_doubling"
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def course(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A course graded by nbgrader's own command: forged metadata, code that would run as us, and a broken notebook."""
    made = create_course(tmp_path_factory.mktemp("plain") / "course", [load_assignment(NAME, tiny_root)])
    notebook = nbformat.read(made.folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    marker = made.folder / "escaped"
    for cell in notebook.cells:
        role, name = cell.metadata["course"]["role"], cell.metadata["course"]["name"]
        if role == "exercise":
            cell.source = f"def {name}(x):\n    return x * x\nopen({str(marker)!r}, 'w').write('out')\n"
        elif role == "check":
            cell.source = "1000"
            cell.outputs = [nbformat.v4.new_output("execute_result", data={"text/plain": "1000"})]
        elif role == "written":
            cell.source = f"Because {EVIL} it grows."
        if "nbgrader" in cell.metadata:
            cell.metadata["nbgrader"]["points"] = 1000
            cell.metadata["nbgrader"]["locked"] = False
            cell.metadata["nbgrader"]["grade_id"] += "-mine"
    notebook.cells += [nbformat.v4.new_code_cell(c.source, metadata=c.metadata) for c in notebook.cells[-2:]]
    hand_in(made, "mallory", nbformat.writes(notebook).encode())
    secret = made.folder.parent / "secret.txt"
    secret.write_text("a file of this machine")
    (made.folder / "submitted" / "mallory" / NAME / "notes.txt").symlink_to(secret)
    (made.folder / "submitted" / "mallory" / NAME / "more").symlink_to(made.folder.parent, target_is_directory=True)
    (made.folder / "submitted" / "mallory" / NAME / "own.txt").write_text("mine")
    hand_in(made, "bare", json.dumps(bare_notebook()).encode())
    hand_in(made, "broken", b"{ not JSON")
    command = [sys.executable, "-m", "nbgrader", "autograde", NAME]
    done = subprocess.run(command, cwd=made.folder, capture_output=True, text=True)
    assert "broken" in done.stderr, done.stderr[-3000:]  # nbgrader says which one it could not read
    return made


def hand_in(course: Course, student: str, data: bytes) -> None:
    place = course.folder / "submitted" / student / NAME
    place.mkdir(parents=True)
    (place / f"{NAME}.ipynb").write_bytes(data)


def bare_notebook() -> dict[str, object]:
    """The right solution without any metadata, in another order, as format 4.0 had it."""
    sources = ["def halve(x):\n    return x / 2\n", "def double(x):\n    return x + x\n"]
    cells = [
        {"cell_type": "code", "source": s, "metadata": {}, "outputs": [], "execution_count": None} for s in sources
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 0}


def test_the_marks_are_the_judges(course: Course) -> None:
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        assert {s.student.id for s in gradebook.find_assignment(NAME).submissions} >= {"mallory", "bare"}
        mallory, bare = (gradebook.find_submission(NAME, s) for s in ("mallory", "bare"))
        assert (mallory.score, mallory.max_score) == (0, 5.5)
        assert (bare.score, bare.max_score) == (4.5, 5.5)
        assert gradebook.find_comment("double", NAME, NAME, "mallory").auto_comment == "The square is not the double."
        names = {g.name for g in gradebook.find_submission_notebook(NAME, NAME, "mallory").grades}
        assert names == {"check-double", "check-halve", "why_double"}


def test_the_students_code_did_not_run_here(course: Course) -> None:
    assert not (course.folder / "escaped").exists()


def test_the_graded_notebook_is_ours_with_the_students_work(course: Course) -> None:
    notebook = nbformat.read(course.folder / "autograded" / "mallory" / NAME / f"{NAME}.ipynb", as_version=4)
    text = nbformat.writes(notebook)
    assert EVIL not in text and "1000" not in text and "-mine" not in text
    assert "Result" in notebook.cells[0].source and "bubblewrap" in notebook.cells[0].source
    assert "return x * x" in text
    assert str(course.folder / "release") not in text


def test_a_link_brings_no_file_of_the_machine(course: Course) -> None:
    graded = course.folder / "autograded" / "mallory" / NAME
    assert {p.name for p in graded.iterdir()} == {"checks.py", f"{NAME}.ipynb", "own.txt"}  # checks.py: as released
