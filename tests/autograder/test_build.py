"""Building: the student notebook through nbgrader, the same bytes every time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.nbgraderformat import MetadataValidator
from tiny_assignment import NAME, SOURCE, write_tiny_assignment

from autograder.assignment import Assignment, assignment_names, load_assignment
from autograder.build import (
    build,
    cell_id,
    generate_release,
    notebook_bytes,
    reference_notebook,
    source_notebook,
    student_notebook,
)
from autograder.errors import CourseError
from autograder.source import Cell

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    return load_assignment(NAME, write_tiny_assignment(tmp_path_factory.mktemp("course")))


def by_id(notebook: NotebookNode) -> dict[str, NotebookNode]:
    return {c.id: c for c in notebook.cells}


def test_the_source_notebook_has_nbgraders_metadata(tiny: Assignment) -> None:
    notebook = source_notebook(tiny)
    MetadataValidator().validate_nb(notebook)
    known = {c.id: c.metadata["nbgrader"] for c in notebook.cells if "nbgrader" in c.metadata}
    kinds = {i: (m["grade_id"], m["grade"], m["solution"], m["locked"], m.get("points")) for i, m in known.items()}
    assert kinds == {
        "setup-setup": ("setup-setup", False, False, True, None),
        "setup-check": ("setup-check", False, False, True, None),
        "exercise-double": ("double", False, True, False, None),
        "check-double": ("check-double", True, False, True, 2.5),  # hidden criteria included
        "written-why_double": ("why_double", True, True, False, 3.0),
        "exercise-halve": ("halve", False, True, False, None),
        "check-halve": ("check-halve", True, False, True, 0.0),  # a bonus does not raise the maximum
    }
    assert {m["schema_version"] for m in known.values()} == {3}
    assert all(c.metadata["course"].keys() == {"role", "name"} for c in notebook.cells)
    assert by_id(notebook)["experiment-growth"].metadata == {"course": {"role": "experiment", "name": "growth"}}


def test_the_student_notebook_is_the_handout(tiny: Assignment) -> None:
    notebook = student_notebook(tiny)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = by_id(notebook)
    for cell in tiny.cells:
        if cell.role not in ("check", "written"):
            assert cells[cell_id(cell)].source == cell.handout
    assert cells["check-double"].source == (
        '# 2.5 points, 1.5 of them for criteria that only grading adds\ncheck("double")'
    )
    assert cells["check-halve"].source == '# 2 bonus points\ncheck("halve")'
    assert cells["written-why_double"].source == (
        "*Written answer, 3 points*\n\nWhy does doubling grow?\n\nYOUR ANSWER HERE"
    )
    assert cells["setup-setup"].metadata.editable is False
    assert cells["exercise-double"].metadata.deletable is False
    assert "editable" not in cells["exercise-double"].metadata
    assert all(c.outputs == [] and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
    text = json.dumps(notebook)
    assert "SOLUTION" not in text
    assert "secret_of_doubling" not in text
    assert "as everybody knows" not in text


def test_the_reference_notebook_is_solved_and_unmarked(tiny: Assignment) -> None:
    notebook = reference_notebook(tiny)
    text = json.dumps(notebook)
    assert "secret_of_doubling" in text
    assert "as everybody knows" in text
    assert "SOLUTION" not in text
    assert "nbgrader" not in text


def test_build_writes_what_is_stale_and_check_only_tells(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path)
    tiny = load_assignment(NAME, root)
    assert build(tiny, check=True).stale
    assert not tiny.notebook.exists()
    built = build(tiny)
    assert built.stale
    assert built.path == tiny.notebook
    assert not build(tiny, check=True).stale
    before = tiny.notebook.stat().st_mtime_ns
    assert not build(tiny).stale
    assert tiny.notebook.stat().st_mtime_ns == before  # an unchanged notebook is left alone
    write_tiny_assignment(root, source=SOURCE.replace("Twice x.", "Two times x."))
    changed = build(load_assignment(NAME, root), check=True)
    assert (changed.stale, changed.changed) == (True, ("exercise-double",))
    assert "Twice x." in tiny.notebook.read_text()
    build(load_assignment(NAME, root))
    assert "Two times x." in tiny.notebook.read_text()
    left = {p.name for p in tiny.folder.iterdir()} - {"__pycache__"}
    assert left == {"checks.py", f"{NAME}.ipynb"}  # and no temporary file


def test_a_notebook_edited_by_hand_or_no_notebook_at_all_is_stale(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path))
    build(tiny)
    edited = json.loads(tiny.notebook.read_text())
    edited["cells"][0]["source"] = ["Edited."]
    tiny.notebook.write_text(json.dumps(edited))
    assert build(tiny, check=True).changed == ("text-tiny_doubling",)
    tiny.notebook.write_text("not a notebook")
    assert build(tiny, check=True).stale


def test_other_processes_dates_and_folders_give_the_same_bytes(tiny: Assignment, tmp_path: Path) -> None:
    here = notebook_bytes(student_notebook(tiny))
    elsewhere = write_tiny_assignment(tmp_path / "elsewhere")
    program = (
        "import sys; from pathlib import Path\n"
        "from autograder.assignment import load_assignment\n"
        "from autograder.build import notebook_bytes, student_notebook\n"
        f"tiny = load_assignment({NAME!r}, Path(sys.argv[1]))\n"
        "sys.stdout.buffer.write(notebook_bytes(student_notebook(tiny)))\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, str(elsewhere)],
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert other.stdout == here
    assert not re.search(rb"20\d\d-\d\d", here)


def test_cell_ids_are_valid_unique_and_say_what_the_cell_is(tiny: Assignment) -> None:
    ids = [cell_id(c) for c in tiny.cells]
    assert len(set(ids)) == len(ids)
    long = [cell_id(Cell("experiment", "x" * n, "code", "")) for n in (53, 54, 90, 91)]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", i) for i in [*ids, *long])
    assert len(set(long)) == 4
    assert cell_id(tiny.cell("exercise", "double")) == "exercise-double"


def test_generating_puts_the_cells_into_the_gradebook(tiny: Assignment, tmp_path: Path) -> None:
    source = tmp_path / "source" / NAME / f"{NAME}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_bytes(notebook_bytes(source_notebook(tiny)))
    url = f"sqlite:///{tmp_path / 'marks.db'}"
    generate_release(tmp_path, NAME, url, "some_course")
    with Gradebook(url, "some_course") as gradebook:
        notebook = gradebook.find_notebook(NAME, NAME)
        assert {c.name: c.max_score for c in notebook.grade_cells} == {
            "check-double": 2.5,
            "check-halve": 0.0,
            "why_double": 3.0,
        }
        assert {c.name for c in notebook.solution_cells} == {"double", "halve", "why_double"}
        assert notebook.max_score == 5.5


def test_what_nbgrader_refuses_becomes_one_sentence(tiny: Assignment, tmp_path: Path) -> None:
    notebook = source_notebook(tiny)
    by_id(notebook)["check-double"].metadata["nbgrader"]["grade_id"] = "double"  # twice the same id
    source = tmp_path / "source" / NAME / f"{NAME}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_bytes(notebook_bytes(notebook))
    with pytest.raises(CourseError, match=f"nbgrader cannot generate {NAME}: .*Error") as error:
        generate_release(tmp_path, NAME, f"sqlite:///{tmp_path / 'marks.db'}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", assignment_names(REPOSITORY))
def test_the_courses_own_notebooks_are_what_their_sources_say(name: str) -> None:
    built = build(load_assignment(name, REPOSITORY), check=True)
    assert not built.stale, f"run `autograder build`; {', '.join(built.changed)} changed"
