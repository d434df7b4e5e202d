"""`course submit`: what is unfinished, and the zip file with its receipt."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output
from students_folder import DOUBLE, EMPTY, NAME, cell, cells, write_folder
from typer.testing import CliRunner, Result

from course_utils import student_submit
from course_utils.cli import app
from course_utils.receipt import RECEIPT, read_receipt, verify


def submit(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> Result:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")
    return CliRunner().invoke(app, ["submit", "a7", *arguments])


def test_a_finished_notebook_makes_one_zip_file_with_a_true_receipt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notebook = write_folder(tmp_path, cells())
    done = submit(monkeypatch, tmp_path, "--student", "anna.b")
    assert done.exit_code == 0, done.output
    assert "All visible criteria are met, all questions answered, all experiments run." in done.output
    archive = tmp_path / f"{NAME}_anna.b.zip"
    assert str(archive) in done.output and "nothing has been sent" in done.output
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    receipt = read_receipt(files.pop(RECEIPT))
    assert files == {f"{NAME}.ipynb": notebook.read_bytes()}
    assert verify(receipt, files) == []
    assert (receipt.assignment, receipt.student) == (NAME, "anna.b") and receipt.code in done.output


def test_what_is_handed_in_is_what_collecting_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from autograder.uploads import uploads_in

    notebook = write_folder(tmp_path, cells())
    assert submit(monkeypatch, tmp_path, "--student", "anna").exit_code == 0
    refused: list[str] = []
    (found,) = uploads_in(tmp_path / f"{NAME}_anna.zip", NAME, refused)
    assert refused == [] and found.data == notebook.read_bytes()
    assert found.owner.id == "anna" and found.receipt is not None and found.receipt.assignment == NAME


def test_the_id_is_asked_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, cells())
    nobody = submit(monkeypatch, tmp_path)
    assert nobody.exit_code == 2 and "--student YOUR_ID" in nobody.output
    wrong = submit(monkeypatch, tmp_path, "--student", "../anna")
    assert wrong.exit_code == 2 and "is no id" in wrong.output
    assert list(tmp_path.glob("*.zip")) == []
    assert submit(monkeypatch, tmp_path, "--student", "anna").exit_code == 0
    assert (tmp_path / "student.txt").read_text() == "anna\n"
    (tmp_path / f"{NAME}_anna.zip").unlink()
    assert submit(monkeypatch, tmp_path).exit_code == 0
    assert (tmp_path / f"{NAME}_anna.zip").is_file()


def unanswered(text: str) -> NotebookNode:
    return cell(f"*Written answer, 1 point*\n\nAnd?\n\n{text}", "written", "and_then", "markdown")


def test_what_is_unfinished_is_told_and_handed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = new_output("error", ename="NameError", evalue="x", traceback=[])
    more = [
        unanswered("YOUR ANSWER HERE"),
        cell("Question\n\nYOUR ANSWER HERE\n\nMy answer.", "written", "stub_left", "markdown"),
        cell(" \n", "written", "emptied", "markdown"),
        cell("1 + 1", "experiment", "never_run"),
        cell("plt.plot([1])", "experiment", "no_figure", execution_count=2),
        cell("print(x)", "experiment", "stopped", execution_count=2, outputs=[error]),
        cell("numbers = 3", "experiment", "silent", execution_count=2),  # has nothing to show
        cell("import my_functions\nimport checks\nimport torch"),
    ]
    write_folder(tmp_path, cells(EMPTY.format("double"), "def halve(x):\n    return x\n", *more))
    (tmp_path / "assignments" / NAME / "my_functions.py").write_text("")
    done = submit(monkeypatch, tmp_path, "--student", "anna")
    assert done.exit_code == 0, done.output
    told = [line.strip() for line in done.output.splitlines() if line.startswith("  ")]
    assert told == [
        "Nothing is written yet in double.",
        "halve: 0 of 1 criteria are met.",
        "Not answered: and_then, emptied.",
        "The written answer stub_left still says YOUR ANSWER HERE.",
        "Experiments not run: never_run.",
        "The experiment no_figure has no figure; run it again and save the notebook.",
        "The experiment stopped stopped with NameError.",
        "The notebook imports my_functions, which is not handed in: move what you need of it into a cell.",
    ]
    assert (tmp_path / f"{NAME}_anna.zip").is_file()


def test_what_cannot_be_checked_can_be_handed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = write_folder(tmp_path, cells())
    (notebook.parent / "checks.py").write_text("import no_such_module\n")
    done = submit(monkeypatch, tmp_path, "--student", "anna")
    assert done.exit_code == 0, done.output
    assert "The checks could not be run: " in done.output and "All visible criteria" not in done.output
    assert (tmp_path / f"{NAME}_anna.zip").is_file()
    notebook.write_text("{")
    assert submit(monkeypatch, tmp_path).exit_code == 2  # nobody could read that


def test_an_interrupted_submission_leaves_the_earlier_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = write_folder(tmp_path, cells())
    assert submit(monkeypatch, tmp_path, "--student", "anna").exit_code == 0
    archive = tmp_path / f"{NAME}_anna.zip"
    before = archive.read_bytes()
    write_folder(tmp_path, cells(DOUBLE + "# changed\n"))
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = submit(monkeypatch, tmp_path)
    assert stopped.exit_code == 130 and "interrupted" in stopped.output
    assert archive.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [archive.name, "assignments", "student.txt"]
    assert submit(monkeypatch, tmp_path).exit_code == 0
    with zipfile.ZipFile(archive) as opened:
        assert opened.read(f"{NAME}.ipynb") == notebook.read_bytes()


def test_a_folder_that_cannot_be_written_and_a_file_too_large_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_folder(tmp_path, cells())
    (tmp_path / "file").touch()
    done = submit(monkeypatch, tmp_path, "--student", "anna", "--output", "file")
    assert done.exit_code == 2 and "cannot be written" in done.output
    monkeypatch.setattr("course_utils.handed_out.MAX_BYTES", 1000)
    done = submit(monkeypatch, tmp_path, "--student", "anna")
    assert done.exit_code == 2 and "clear the outputs" in done.output


def test_an_id_that_is_taken_here_is_taken_when_collecting() -> None:
    from autograder.collect import STUDENT

    assert student_submit.STUDENT.pattern == STUDENT.pattern
