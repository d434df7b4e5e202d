"""The student bundle: complete, the same bytes every time, and without a line of staff's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from tiny_assignment import CHECKS, NAME, SOURCE, write_tiny_assignment

from autograder.assignment import Assignment, load_assignment
from autograder.build import build
from autograder.errors import CourseError
from autograder.release import Released, leaked_lines, release

REPOSITORY = Path(__file__).resolve().parents[2]

SECRETS = [
    "secret_of_doubling = x + x  # the reference's own way",
    "Because two is more than one, as everybody knows.",
    "hidden_input = draw.normal(3, scale=1e12)",
    "the_square_by_mistake = x * x",
    "an_unusual_product = 2.0 * x",
]


def write_course(root: Path, **files: str) -> Path:
    """A course with the tiny assignment, and what a bundle takes from this checkout."""
    write_tiny_assignment(root, **files)
    shutil.copytree(REPOSITORY / "course_utils", root / "course_utils", dirs_exist_ok=True)
    (root / "datasets").mkdir(exist_ok=True)
    for name in ("datasets/registry.toml", "pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, root / name)
    return root


def built(root: Path) -> Assignment:
    assignment = load_assignment(NAME, root)
    build(assignment)
    return assignment


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    root = write_course(tmp_path_factory.mktemp("course"))
    (root / "constraints.txt").write_text("torch==2.15.0\n")
    (root / "course_utils" / ".secret").write_text("hidden file")
    return built(root)


@pytest.fixture(scope="module")
def bundle(tiny: Assignment) -> Released:
    return release([tiny])


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_the_bundle_holds_what_a_student_needs_and_nothing_else(bundle: Released) -> None:
    files = files_of(bundle.folder)
    utilities = {f for f in files if f.startswith("course_utils/")}
    assert files - utilities == {
        "README.md",
        "LICENSE",
        "pyproject.toml",
        "constraints.txt",
        "datasets/registry.toml",
        f"assignments/{NAME}/{NAME}.ipynb",
        f"assignments/{NAME}/checks.py",
    }
    assert {"course_utils/__init__.py", "course_utils/cli.py", "course_utils/checking/notebook.py"} <= utilities
    assert all("__pycache__" not in f and "/." not in f for f in utilities)


def test_the_zip_file_holds_the_folder(bundle: Released) -> None:
    assert bundle.archive == bundle.folder.with_name(f"{NAME}.zip")
    with zipfile.ZipFile(bundle.archive) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == sorted(names)
        assert set(names) == {f"{NAME}/{f}" for f in files_of(bundle.folder)}
        notebook = archive.read(f"{NAME}/assignments/{NAME}/{NAME}.ipynb")
    assert notebook == (bundle.folder / "assignments" / NAME / f"{NAME}.ipynb").read_bytes()


def test_the_zip_file_has_the_same_bytes_whenever_and_wherever_it_is_made(
    tiny: Assignment, bundle: Released, tmp_path: Path
) -> None:
    first = hashlib.sha256(bundle.archive.read_bytes()).hexdigest()
    for path in tiny.root.rglob("*.py"):
        os.utime(path, (1_900_000_000, 1_900_000_000))
    again = release([tiny], tmp_path / NAME)
    assert hashlib.sha256(again.archive.read_bytes()).hexdigest() == first


def test_no_line_of_staff_is_in_the_bundle(tiny: Assignment, bundle: Released) -> None:
    assert leaked_lines(bundle.folder, tiny) == []
    for path in bundle.folder.rglob("*"):
        text = path.read_text(errors="replace") if path.is_file() else ""
        assert not [s for s in SECRETS if s in text], path
        assert "import autograder" not in text
        assert "from autograder" not in text
        assert "from solutions" not in text


@pytest.mark.parametrize("secret", SECRETS)
def test_a_leak_is_found_in_code_and_in_notebooks(tiny: Assignment, tmp_path: Path, secret: str) -> None:
    assert len(secret) > 25  # shorter lines do not count
    (tmp_path / "notes.txt").write_text(f"harmless\n      {secret}\n")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"x = 1\n{secret}")])
    nbformat.write(notebook, tmp_path / "some.ipynb")
    assert leaked_lines(tmp_path, tiny) == [("notes.txt", secret), ("some.ipynb", secret)]


def test_lines_that_are_handed_out_anyway_are_no_leak(tiny: Assignment, tmp_path: Path) -> None:
    handed_out_anyway = "from course_utils.checking import expect"  # a line of hidden_checks.py and of checks.py
    (tmp_path / "notes.py").write_text(f"{handed_out_anyway}\n    {SECRETS[2]}\n")
    assert handed_out_anyway in (tiny.solution_folder / "hidden_checks.py").read_text()
    assert leaked_lines(tmp_path, tiny) == [("notes.py", SECRETS[2])]


def test_a_bundle_that_would_leak_is_not_made(tmp_path: Path) -> None:
    root = write_course(tmp_path / "course")
    tiny = built(root)
    (root / "datasets" / "registry.toml").write_text(f"# {SECRETS[0]}\n{SECRETS[0]}\n")
    with pytest.raises(CourseError, match=r"give away staff's line .* in datasets/registry.toml"):
        release([tiny], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.zip").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["course"]  # no temporary folder either


def test_a_stale_notebook_is_not_released(tmp_path: Path) -> None:
    root = write_course(tmp_path)
    built(root)
    write_tiny_assignment(root, source=SOURCE.replace("Twice x.", "Two times x."))
    with pytest.raises(CourseError, match="run `autograder build` first"):
        release([load_assignment(NAME, root)])


def test_releasing_again_replaces_the_bundle_but_nothing_else(tiny: Assignment, tmp_path: Path) -> None:
    release([tiny], tmp_path / "bundle")
    (tmp_path / "bundle" / "left_over.py").touch()
    assert "left_over.py" not in files_of(release([tiny], tmp_path / "bundle").folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(CourseError, match="holds something else"):
        release([tiny], tmp_path / "thesis")
    assert files_of(tmp_path / "thesis") == {"chapter.tex"}


def test_several_assignments_in_one_bundle(tmp_path: Path) -> None:
    root = write_course(tmp_path)
    write_tiny_assignment(root, checks=CHECKS, hidden=None, mistakes=None, name="other_tiny")
    both = [built(root), load_assignment("other_tiny", root)]
    build(both[1])
    made = release(both)
    assert made.folder.name == "deep-learning-course"
    assert {f"assignments/{n}/{n}.ipynb" for n in (NAME, "other_tiny")} <= files_of(made.folder)
    with pytest.raises(CourseError, match="at least one assignment"):
        release([])


def test_the_project_file_has_the_base_dependencies_and_the_command_of_students(bundle: Released) -> None:
    ours = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    theirs = tomllib.loads((bundle.folder / "pyproject.toml").read_text())
    assert theirs["project"]["dependencies"] == ours["dependencies"]
    assert theirs["project"]["scripts"] == {"course": ours["scripts"]["course"]}
    assert "optional-dependencies" not in theirs["project"]
    assert "nbgrader" not in (bundle.folder / "pyproject.toml").read_text()


def test_the_readme_names_the_notebook(bundle: Released) -> None:
    text = (bundle.folder / "README.md").read_text()
    assert text.startswith("# Tiny: doubling\n")
    assert f"jupyter lab assignments/{NAME}/{NAME}.ipynb" in text
    assert "\npip install . -c constraints.txt\n" in text
    for command in ("course doctor ", "course check tiny double ", "course submit tiny\n", "course report tiny "):
        assert f"\n{command}" in text
    assert "course data" not in text  # its experiments load none
    assert "{" not in text


def test_the_bundle_works_on_its_own(bundle: Released) -> None:
    """Its notebook's setup and check cells run in the bundle's folder, without this checkout."""
    notebook = nbformat.read(bundle.folder / "assignments" / NAME / f"{NAME}.ipynb", as_version=4)
    cells = [c.source for c in notebook.cells if c.metadata["course"]["role"] in ("setup", "exercise", "check")]
    program = "\n\n".join(cells).replace('check("double")', 'print(check("double"))')
    tail = "\nimport course_utils; print(course_utils.__file__)\n"
    ran = subprocess.run(
        [sys.executable, "-c", program + tail],
        cwd=bundle.folder / "assignments" / NAME,
        env={**os.environ, "PYTHONPATH": str(bundle.folder), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "double: nothing is written yet. 0 of 1 points." in ran.stdout
    assert str(bundle.folder) in ran.stdout
