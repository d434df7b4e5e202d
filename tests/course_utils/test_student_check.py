"""`course check`: a saved notebook against the visible criteria, in a process of its own."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from students_folder import DOUBLE, EMPTY, HALVE, NAME, cell, cells, write_folder
from typer.testing import CliRunner, Result

from course_utils.checking.fresh_process import Checked, Limits, check_notebook
from course_utils.cli import app
from course_utils.handed_out import find_assignment
from course_utils.student_check import print_checked


def check(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> Result:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner().invoke(app, ["check", *arguments])


def test_right_functions_pass_and_no_experiment_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = write_folder(tmp_path, cells())
    done = check(monkeypatch, tmp_path, "a7")
    assert done.exit_code == 0, done.output
    assert "double: all 2 criteria are met." in done.output
    assert "2 of 2 exercises meet all visible criteria, 3.5 of their 3.5 points." in done.output
    assert sorted(p.name for p in notebook.parent.iterdir()) == [f"{NAME}.ipynb", "checks.py"]


def test_a_wrong_function_fails_with_the_words_of_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, cells(double="def double(x):\n    print('noise')\n    return x + x + x\n"))
    done = check(monkeypatch, tmp_path, "a7_doubling")
    assert done.exit_code == 1
    assert "✗ not met" in done.output and "Every entry is doubled." in done.output
    assert "Likely cause: " in done.output and "1.5 times" in done.output
    assert "halve: all 1 criteria are met." in done.output
    assert "noise" not in done.output


def test_one_exercise_is_shown_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, cells(halve=EMPTY.format("halve")))
    done = check(monkeypatch, tmp_path / "assignments" / NAME, "a7", "double")  # from within
    assert done.exit_code == 0
    assert done.output.count("✓ met") == 2 and "halve" not in done.output
    assert check(monkeypatch, tmp_path, "a7", "halve").exit_code == 1


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def double(x):\n    return (x\n", "The cell of double raised SyntaxError"),
        (
            "import math\ndouble = math.sqrt(-1)\n",
            "double is not defined, because its cell raised ValueError in line 2 (`double = math.sqrt(-1)`)",
        ),
        ("@lambda f: f.missing\n" + DOUBLE, "has no attribute 'missing'"),
    ],
)
def test_an_error_in_a_cell_is_told_with_the_cell_and_the_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, says: str
) -> None:
    write_folder(tmp_path, cells(double=source))
    done = check(monkeypatch, tmp_path, "a7")
    assert done.exit_code == 1
    assert says in done.output
    assert "halve: all 1 criteria are met." in done.output


def test_an_error_beside_a_definition_is_told_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_folder(tmp_path, cells(double="import math\nwrong = math.sqrt(-1)\n" + DOUBLE))
    done = check(monkeypatch, tmp_path, "a7")
    assert done.exit_code == 0
    assert "The cell of double raised ValueError in line 2 (`wrong = math.sqrt(-1)`)" in done.output


def test_what_stalls_or_ends_the_process_costs_nothing_elsewhere(tmp_path: Path) -> None:
    ends = "import os\n\n\ndef double(x):\n    if len(x) == 1:\n        os._exit(3)\n    return x + x\n"
    stalls = "def halve(x):\n    while True:\n        pass\n"
    notebook = write_folder(tmp_path, cells(ends, stalls))
    found = judged(notebook, Limits(cell=30, criterion=1.5))
    assert found == {
        "doubles_every_entry": "",
        "works_for_one_entry": "double ended the process.",
        "halves_every_entry": "halve ran longer than 1.5 s.",
    }


def test_a_cell_that_stalls_or_ends_the_process_is_left_out(tmp_path: Path) -> None:
    ends = cell("class Ending:\n    import os\n    os._exit(1)\n\n\ndef helper(x):\n    return x\n", "exercise", "x")
    stalls = "def stall():\n    while True: pass\ndouble = stall()\n"
    notebook = write_folder(tmp_path, cells(stalls, HALVE + "\nhelper, Ending\n", ends))
    found = judged(notebook, Limits(cell=2, criterion=10))
    assert "its cell ran longer than 2 s" in found["doubles_every_entry"]
    assert found["halves_every_entry"] == ""


def judged(notebook: Path, limits: Limits) -> dict[str, str]:
    """The message of each criterion of a notebook, "" where it is met."""
    checked = check_notebook(find_assignment("a7", start=notebook.parent), limits=limits)
    return {c.criterion.name: c.unmet.message if c.unmet else "" for r in checked.results for c in r.criteria}


def test_a_cell_with_an_error_is_named_by_what_it_is() -> None:
    printed = io.StringIO()
    errors = dict.fromkeys(("setup imports", "cell 7", "double"), "ran longer than 30 s")
    print_checked(Checked(b"", [], [], errors), Console(file=printed, width=120), brief=False)
    for named in ("The notebook's own cell imports", "Cell 7", "The cell of double"):
        assert f"{named} ran longer than 30 s." in printed.getvalue()


def test_nothing_that_prints_or_reads_disturbs_the_result(tmp_path: Path) -> None:
    source = (
        "import os, sys\n\n\ndef double(x):\n    os.write(1, b'not json\\n')\n    print('{', file=sys.__stdout__)\n"
        "    sys.stdout.close()\n    try:\n        input('name?')\n    except (EOFError, ValueError):\n"
        "        return x + x\n"
    )
    assert set(judged(write_folder(tmp_path, cells(source)), Limits()).values()) == {""}


def test_what_an_exercise_may_not_call_is_told(tmp_path: Path) -> None:
    notebook = write_folder(tmp_path, cells("def double(x):\n    return torch.add(x, x)\n"))
    assert "may not use torch.add: the notebook's rules" in judged(notebook, Limits())["doubles_every_entry"]


def test_the_last_of_two_definitions_counts_and_both_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, cells(DOUBLE, HALVE, cell("def double(x):\n    return x\n")))
    done = check(monkeypatch, tmp_path, "a7")
    assert done.exit_code == 1
    assert "double is defined in 2 cells (5, 12); the last one counts." in done.output


@pytest.mark.parametrize("names", [(), ("halve",)])
def test_the_exercise_to_repair_first_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: tuple[str, ...]
) -> None:
    halve = "def halve(x):\n    return helper(x)\n"
    helper = cell("def helper(x):\n    return double(x) / 4\n")
    advice = "halve builds on double, which does not pass the checks: repair double first."
    write_folder(tmp_path, cells("def double(x):\n    return 3 * x\n", halve, helper))
    done = check(monkeypatch, tmp_path, "a7", *names)
    assert done.output.count(advice) == 1
    assert f"of {len(names) or 2} exercise" in done.output  # the other one is judged and not shown
    write_folder(tmp_path, cells("def double(x:\n", halve, helper))  # nothing is defined
    assert check(monkeypatch, tmp_path, "a7", *names).output.count(advice) == 1
    write_folder(tmp_path, cells(DOUBLE, "def halve(x):\n    return double(x)\n"))
    assert "builds on" not in check(monkeypatch, tmp_path, "a7", *names).output


def test_a_reason_that_stood_above_is_pointed_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, cells("def double(x):\n    return [x]\n"))
    done = check(monkeypatch, tmp_path, "a7", "double")
    assert done.output.count("✗ not met") == 2 and done.output.count("The same as above.") == 1
    write_folder(tmp_path, cells("def double(x):\n    return torch.zeros(0)\n"))
    done = check(monkeypatch, tmp_path, "a7", "double")  # what differs is said of each
    assert done.output.count("✗ not met") == 2 and "The same as above." not in done.output


def test_an_earlier_exercise_that_stalls_is_the_one_to_repair(tmp_path: Path) -> None:
    double = "def double(x):\n    while len(x) == 1: pass\n    return x + x\n"
    notebook = write_folder(tmp_path, cells(double, "def halve(x):\n    return double(x)\n"))
    assignment = find_assignment("a7", start=notebook.parent)
    (result,) = check_notebook(assignment, ["halve"], Limits(cell=30, criterion=1.5)).results
    assert result.advice.endswith("repair double first.")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "There is no notebook"),
        ("", "is empty"),
        ('{"cells": [', "it is not valid JSON in line 1"),
        ("{\n<<<<<<< HEAD\n}", "git left its conflict marks"),
        ("[1, 2]", "is JSON but no notebook"),
        ('{"nbformat": 3, "worksheets": []}', "is JSON but no notebook"),
    ],
)
def test_bad_input_gets_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, says: str
) -> None:
    notebook = write_folder(tmp_path, cells())
    notebook.unlink() if text is None else notebook.write_text(text)
    done = check(monkeypatch, tmp_path, "a7")
    assert done.exit_code == 2
    assert says in done.output and str(notebook) in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_names_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, cells())
    wrong = check(monkeypatch, tmp_path, "a7", "duble")
    assert wrong.exit_code == 2 and "Did you mean double?" in wrong.output
    wrong = check(monkeypatch, tmp_path, "a8")
    assert wrong.exit_code == 2 and "there are: a7_doubling" in wrong.output
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "assignments").mkdir()
    (tmp_path / "assignments" / NAME / "checks.py").write_text("import no_such_module\n")
    broken = check(monkeypatch, tmp_path, "a7")
    assert broken.exit_code == 2 and "put back the file that was handed out" in broken.output
    (tmp_path / "assignments" / NAME / "checks.py").unlink()
    nothing = check(monkeypatch, tmp_path, "a7")
    assert nothing.exit_code == 2 and "No assignment is in" in nothing.output


def test_another_notebook_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = write_folder(tmp_path, cells())
    notebook.rename(tmp_path / "a7_doubling (1).ipynb")
    done = check(monkeypatch, tmp_path, "a7", "--notebook", "a7_doubling (1).ipynb")
    assert done.exit_code == 0, done.output


def test_a_file_named_like_a_library_in_the_working_folder_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_folder(tmp_path, cells())
    (tmp_path / "torch.py").write_text("raise RuntimeError('not torch')\n")
    assert check(monkeypatch, tmp_path, "a7").exit_code == 0


def test_a_process_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, cells())
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho cannot start >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    done = check(monkeypatch, tmp_path, "a7")
    assert done.exit_code == 2 and "did not start (cannot start); run `course doctor`" in done.output


def test_a_gpu_is_not_there_as_it_is_not_under_grading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    asks = (
        "import torch\ndef double(x):\n    return 2 * x.to('cuda')\n",
        "import torch\ndef halve(x):\n    return x.to('cuda' if torch.cuda.is_available() else 'cpu') / 2\n",
    )
    write_folder(tmp_path, cells(double=asks[0], halve=asks[1]))
    done = check(monkeypatch, tmp_path, "a7")
    assert "There is no GPU under grading" in done.output
    assert "halve: all 1 criteria are met." in done.output
