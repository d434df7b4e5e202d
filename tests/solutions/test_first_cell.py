"""The first code cell of every notebook: it installs on Google Colab, and elsewhere tells of a missing package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from autograder.assignment import assignment_names, load_assignment
from autograder.release import release

ROOT = Path(__file__).resolve().parents[2]
NAMES = assignment_names(ROOT)

# Colab as far as the cell sees it, and a pip that only notes what it was told to install.
COLAB = """
import shutil, sys, types
colab = types.ModuleType("google.colab")
def upload():
    print("asked for a file")
    for archive in {archives!r}:
        shutil.copy(archive, ".")
    return [a.rsplit("/", 1)[-1] for a in {archives!r}]
colab.files = types.SimpleNamespace(upload=upload)
sys.modules["google"], sys.modules["google.colab"] = types.ModuleType("google"), colab
"""
PIP = "import pathlib, sys\nwith open({log!r}, 'a') as log: print(*sys.argv[1:], file=log)\n"
AFTER = "\nimport os, checks, course_utils\nprint(os.getcwd(), checks.__file__, course_utils.__file__)\n"


def first_code_cell(name: str) -> str:
    notebook = nbformat.read(ROOT / "assignments" / name / f"{name}.ipynb", as_version=4)
    return next(c.source for c in notebook.cells if c.cell_type == "code")


def run(program: str, place: Path, *paths: Path, site: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program where this checkout is not on the path; without `site` no installed package is there either."""
    hide = (
        "import sys\nsys.path = [p for p in sys.path if not __import__('os').path.exists(p + '/course_utils/cli.py')]\n"
    )
    return subprocess.run(
        [sys.executable, *([] if site else ["-S"]), "-c", hide + program],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
    )


def stand_in_pip(folder: Path, program: str) -> Path:
    """Make Colab's folder `content` and a folder for the path whose pip is a program; returns the latter."""
    (folder / "content").mkdir()
    package = folder / "site" / "pip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(program)
    return package.parent


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip file of a bundle with all assignments."""
    folder = tmp_path_factory.mktemp("release") / "course"
    return release([load_assignment(name, ROOT) for name in NAMES], folder).archive


@pytest.mark.parametrize("name", NAMES)
def test_on_colab_it_asks_for_the_zip_file_and_installs(name: str, everything: Path, tmp_path: Path) -> None:
    place, pip = tmp_path / "content", stand_in_pip(tmp_path, PIP.format(log=str(tmp_path / "log")))
    cell = first_code_cell(name)
    done = run(COLAB.format(archives=[str(everything)]) + cell + AFTER, place, pip)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0] == "Choose the assignment's zip file, as your course gave it to you."
    assert told[1] == "asked for a file" and told[2].startswith("Installing deep-learning-course")
    assert told[3].startswith("Installed.")
    folder = place / "course" / "assignments" / name
    assert told[4] == f"{folder} {folder / 'checks.py'} {place / 'course' / 'course_utils' / '__init__.py'}"
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith(f"--no-deps {place / 'course'}")
    assert "torch>=" in second and "platformdirs" in second and "jupyterlab" not in second and "ipykernel" not in second
    again = run(COLAB.format(archives=[]) + cell + AFTER, place, pip)  # after a restart of the kernel
    assert again.returncode == 0 and "asked for a file" not in again.stdout


def test_on_colab_another_zip_file_is_told(tmp_path: Path) -> None:
    place = tmp_path / "content"
    place.mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    archive = shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path, "other")
    done = run(COLAB.format(archives=[archive]) + first_code_cell(NAMES[0]), place, site=False)
    assert done.returncode == 1 and f"No zip file here holds {NAMES[0]}" in done.stderr


def test_on_colab_a_wrong_file_left_there_does_not_keep_it_from_asking(everything: Path, tmp_path: Path) -> None:
    place, pip = tmp_path / "content", stand_in_pip(tmp_path, "")
    notebook = tmp_path / "notebook.ipynb"
    notebook.write_text("{}")
    (tmp_path / "other").mkdir()
    other = shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path, "other")
    cell = first_code_cell(NAMES[0])
    for chosen in ([], [str(notebook)], [other]):
        done = run(COLAB.format(archives=chosen) + cell, place, pip)
        assert "asked for a file" in done.stdout
        assert done.returncode == 1 and f"No zip file here holds {NAMES[0]}" in done.stderr
    done = run(COLAB.format(archives=[str(everything)]) + cell, place, pip)
    assert done.returncode == 0 and "asked for a file" in done.stdout and "Installed." in done.stdout


def test_on_colab_what_pip_says_is_told_when_it_fails(everything: Path, tmp_path: Path) -> None:
    place, pip = tmp_path / "content", stand_in_pip(tmp_path, "raise SystemExit('no network')")
    shutil.copy(everything, place)  # put there by hand, so nothing is asked
    done = run(COLAB.format(archives=[]) + first_code_cell(NAMES[0]), place, pip)
    assert done.returncode == 1 and "asked for a file" not in done.stdout
    assert "pip could not install --no-deps" in done.stderr and "run this cell again" in done.stderr
    assert "no network" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_elsewhere_it_only_looks_for_the_package(name: str, tmp_path: Path) -> None:
    missing = run(first_code_cell(name), tmp_path, site=False)
    assert missing.returncode == 1 and "choose the kernel of the environment" in missing.stderr
    there = subprocess.run(
        [sys.executable, "-c", first_code_cell(name)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (there.returncode, there.stdout, there.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
