"""Running the reference notebook: figures, numbers and pages, or the name of the cell that failed."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from rich.console import Console
from tiny_assignment import NAME, SOURCE, write_tiny_assignment

from autograder.assignment import load_assignment
from autograder.errors import CourseError
from autograder.solve import Solved, solve
from autograder.solve_progress import SolveProgress

MORE = """
import os

numbers["growth"]["environment"] = [os.environ["COURSE_DATA_SET"], os.environ["OMP_NUM_THREADS"]]
numbers["growth"]["not a number"] = float("nan")
numbers["files"] = sorted(os.listdir())
plt.plot([1, 2])
"""


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Solved, str]:
    root = write_tiny_assignment(
        tmp_path_factory.mktemp("course"), source=SOURCE.replace("plt.show()\n", "plt.show()\n" + MORE)
    )
    said = io.StringIO()
    with SolveProgress(Console(file=said, width=120), [NAME]) as progress:
        done = solve(load_assignment(NAME, root), data="digits_in_scenes", watch=progress.watch(NAME))
    return done, said.getvalue()


def test_the_executed_notebook_is_complete(solved: tuple[Solved, str]) -> None:
    notebook = nbformat.read(solved[0].notebook, as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert [c.id for c in notebook.cells][-1] == "check-halve"
    check = next(c for c in code if c.id == "check-double")
    assert "1 of 1 points" in check.outputs[0].data["text/plain"]
    assert "secret_of_doubling" in json.dumps(notebook)


def test_every_figure_is_a_picture_named_after_its_experiment(solved: tuple[Solved, str]) -> None:
    assert [p.name for p in solved[0].figures] == ["growth.png", "growth_2.png"]
    for path in solved[0].figures:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 100


def test_the_numbers_of_the_notebook_and_what_it_printed(solved: tuple[Solved, str]) -> None:
    report = json.loads(solved[0].numbers.read_text())
    assert report["assignment"] == NAME
    assert report["data"] == "digits_in_scenes"
    assert report["numbers"] == {
        "growth": {
            "last": 8.0,
            "shape": [5],
            "environment": ["digits_in_scenes", "1"],
            "not a number": "nan",
        },
        "files": ["checks.py"],  # what a student's folder holds, and nothing of staff's
    }
    assert "the last value is 8.0" in report["printed"]["growth"]
    assert report["seconds"]["experiment-growth"] > 0
    assert "numbers" not in report["seconds"]


def test_the_page_shows_the_notebook(solved: tuple[Solved, str]) -> None:
    page = solved[0].page.read_text()
    assert "<title>Tiny: doubling</title>" in page
    assert len(re.findall(r'<img[^>]*src="data:image/png', page)) == 2
    assert "the last value is 8.0" in page


def test_progress_names_the_experiments(solved: tuple[Solved, str]) -> None:
    assert "experiment growth: " in solved[1]


def test_nothing_is_left_lying_about(solved: tuple[Solved, str]) -> None:
    folder = solved[0].folder
    assert folder.parts[-3:] == ("build", "solve", NAME)
    assert sorted(p.name for p in folder.parent.iterdir()) == [NAME]
    assert sorted(p.name for p in folder.iterdir()) == ["figures", "numbers.json", f"{NAME}.html", f"{NAME}.ipynb"]


def test_a_failing_cell_is_named_and_the_old_result_stays(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path / "course", source=SOURCE.replace("plt.show()", "1 / 0"))
    output = tmp_path / "out"
    output.mkdir()
    (output / f"{NAME}.ipynb").write_text("the old one")
    with pytest.raises(
        CourseError, match=r"cell experiment growth \(.*:36\) raised ZeroDivisionError: division"
    ) as error:
        solve(load_assignment(NAME, root), output=output)
    assert (output / f"{NAME}.ipynb").read_text() == "the old one"
    assert [p.name for p in output.iterdir()] == [f"{NAME}.ipynb"]
    failed = tmp_path / "out.failed.ipynb"
    assert str(failed) in str(error.value)
    notebook = nbformat.read(failed, as_version=4)
    kinds = {c.id: [o.output_type for o in c.get("outputs", [])] for c in notebook.cells}
    assert [i for i, found in kinds.items() if "error" in found] == ["experiment-growth"]
    assert kinds["check-halve"] == []  # nothing ran after it


def test_a_check_that_is_not_passed_is_a_failure(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path, source=SOURCE.replace("return double(x) / 4", "return double(x) / 8"))
    with pytest.raises(CourseError, match=r"cell check halve .* raised AssertionError(.|\n)*is half what is expected"):
        solve(load_assignment(NAME, root))


def test_a_kernel_that_dies_is_no_mystery(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path, source=SOURCE.replace("plt.show()", "import os; os._exit(3)"))
    with pytest.raises(CourseError, match=r"cell experiment growth \(.*\) ended the kernel"):
        solve(load_assignment(NAME, root))


def test_a_text_file_is_found_from_the_folder_of_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = SOURCE.replace("plt.show()\n", "plt.show()\n" + MORE)
    root = write_tiny_assignment(tmp_path / "course", source=more)
    (tmp_path / "essay.txt").write_text("mine\n")
    monkeypatch.chdir(tmp_path)
    report = json.loads(solve(load_assignment(NAME, root), data="essay.txt").numbers.read_text())
    assert report["numbers"]["growth"]["environment"][0] == report["data"] == str(tmp_path.resolve() / "essay.txt")


def test_unknown_data_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path / "course"))
    with pytest.raises(CourseError, match=r"no data set 'mnist'; choose one of auto, cifar10, .*, or a text file"):
        solve(tiny, data="mnist")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(CourseError, match="holds something else"):
        solve(tiny, output=tmp_path / "thesis")
    assert os.listdir(tmp_path / "thesis") == ["chapter.tex"]
