"""Reading a notebook's source: roles, names, solutions, and a clear sentence for everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_assignment import SOURCE

from autograder.errors import CourseError
from autograder.source import Cell, read_source


def read(folder: Path, text: str) -> list[Cell]:
    path = folder / "source.py"
    path.write_text(text)
    return read_source(path)


def test_roles_names_kinds_and_lines(tmp_path: Path) -> None:
    cells = read(tmp_path, SOURCE)
    assert [(c.role, c.name) for c in cells] == [
        ("text", "tiny_doubling"),
        ("setup", "setup"),
        ("setup", "check"),
        ("text", "1_doubling"),
        ("exercise", "double"),
        ("check", "double"),
        ("experiment", "growth"),
        ("written", "why_double"),
        ("exercise", "halve"),
        ("check", "halve"),
    ]
    assert [c.kind for c in cells if c.role in ("text", "written")] == ["markdown"] * 3
    assert {c.name: c.points for c in cells if c.points is not None} == {"why_double": 3.0}
    lines = SOURCE.split("\n")
    assert all(lines[c.line - 1].startswith("# %%") for c in cells)
    assert 'exercise="halve"' in lines[cells[8].line - 1]
    assert [c.is_check_setup for c in cells].index(True) == 2


def test_what_stands_before_the_first_cell_is_left_out(tmp_path: Path) -> None:
    assert not any("What stands before" in c.text for c in read(tmp_path, SOURCE))


def test_markdown_is_uncommented(tmp_path: Path) -> None:
    text = read(tmp_path, SOURCE)[0].text
    assert text.startswith("# Tiny: doubling\n\nWords before coding, with $x \\mapsto 2x$.")


def test_exercise_with_and_without_its_solution(tmp_path: Path) -> None:
    cell = read(tmp_path, SOURCE)[4]
    head = 'def double(x):\n    """Twice x.  (n,) -> (n,)"""\n'
    assert cell.handout == head + "    # YOUR CODE HERE\n    raise NotImplementedError()"
    assert cell.solved == (
        head + "    secret_of_doubling = x + x  # the reference's own way\n    return secret_of_doubling"
    )
    assert [line.strip() for line in cell.solution_lines][-2:] == ["return secret_of_doubling", "### END SOLUTION"]


def test_written_answer_with_and_without_the_model_answer(tmp_path: Path) -> None:
    cell = read(tmp_path, SOURCE)[7]
    assert cell.handout == "Why does doubling grow?\n\nYOUR ANSWER HERE"
    assert cell.solved == "Why does doubling grow?\n\nBecause two is more than one, as everybody knows."


def test_program_keeps_the_lines_and_comments_magics(tmp_path: Path) -> None:
    cells = read(tmp_path, SOURCE.replace("import torch\n", "# %matplotlib inline\nimport torch\n", 1))
    assert cells[1].text.startswith("%matplotlib inline")
    assert cells[1].program.startswith("# %matplotlib inline")
    exercise = cells[4]
    assert exercise.program.count("\n") == exercise.text.count("\n")
    assert "SOLUTION" not in exercise.program


def test_several_solutions_in_one_cell(tmp_path: Path) -> None:
    two = "    ### BEGIN SOLUTION\n    a = 1\n    ### END SOLUTION\n    b = 2\n"
    cell = read(
        tmp_path, SOURCE.replace("    ### BEGIN SOLUTION\n    secret", two + "    ### BEGIN SOLUTION\n    secret")
    )[4]
    assert cell.handout.count("raise NotImplementedError()") == 2
    assert "    b = 2" in cell.handout
    assert "a = 1" not in cell.handout


def test_a_marker_inside_a_string_starts_no_cell(tmp_path: Path) -> None:
    cells = read(tmp_path, SOURCE.replace("numbers = {}", 'numbers = {}\nnote = """\n# %% exercise="no_cell"\n"""'))
    assert [c.name for c in cells if c.role == "exercise"] == ["double", "halve"]


def test_texts_without_a_heading_and_several_setups_get_names_of_their_own(tmp_path: Path) -> None:
    words = "# %% [markdown]\n# Only words.\n\n# %% [markdown]\n# More words.\n\n"
    more = f"# %% setup\nimport math\n\n{words}# %% [markdown]\n# ## 1 Doubling\n"
    names = [c.name for c in read(tmp_path, SOURCE + "\n" + more) if c.role in ("text", "setup")]
    assert names == [
        "tiny_doubling",
        "setup",
        "check",
        "1_doubling",
        "setup_2",
        "after_setup_2",
        "after_setup_2_2",
        "1_doubling_2",
    ]


WRONG = {
    "code without a role": ("# %% setup\n", "# %%\n", "no role"),
    "unknown role": ('# %% experiment="growth"', '# %% trial="growth"', "no role `trial`"),
    "a bare word": ('# %% experiment="growth"', "# %% experiment", "cannot be marked `experiment`"),
    "two roles": ('# %% check="double"', '# %% check="double" exercise="double"', "one role"),
    "no name": ('experiment="growth"', 'experiment="the growth!"', "is no name"),
    "exercise in words": ('# %% exercise="double"', '# %% [markdown] exercise="double"', "holds code"),
    "written in code": ('# %% [markdown] written="why_double"', '# %% written="why_double"', "markdown cell"),
    "points missing": (" points=3", "", "needs its points"),
    "points of nothing": (" points=3", " points=0", "needs its points"),
    "points of an exercise": ('exercise="double"', 'exercise="double" points=3', "stand in its criteria"),
    "exercise defines another": ("def double(x)", "def duoble(x)", "does not define `double`"),
    "exercise defines it only in the solution": (
        'def double(x):\n    """Twice x.  (n,) -> (n,)"""\n    ### BEGIN SOLUTION\n',
        "### BEGIN SOLUTION\ndef double(x):\n",
        "as handed out",
    ),
    "exercise is not Python": ("def halve(x):", "def halve(x)", "is not Python"),
    "no solution": (
        "    ### BEGIN SOLUTION\n    return double(x) / 4\n    ### END SOLUTION",
        "    return x / 2",
        "no solution",
    ),
    "solution without end": ("    return double(x) / 4\n    ### END SOLUTION", "    return double(x) / 4", "after it"),
    "solution in an experiment": ("x = torch.arange(5.0)", "x = 1  ### BEGIN SOLUTION", "not in a cell of experiment"),
    "no model answer": (
        "# <!-- BEGIN SOLUTION -->\n# Because two is more than one, as everybody knows.\n# <!-- END SOLUTION -->",
        "# Think.",
        "model answer",
    ),
    "no check": ('# %% check="halve"\ncheck("halve")', "", 'no cell check="halve"'),
    "check of nothing": ('# %% check="halve"\ncheck("halve")', '# %% check="hlave"\ncheck("hlave")', "no exercise"),
    "check of another": ('check("halve")', 'check("double")', 'must call `check("halve")`'),
    "two of a name": ('# %% exercise="halve"\ndef halve', '# %% exercise="double"\ndef double', "already a cell"),
    "no cell makes check": ('# %% setup="check"', '# %% setup="other"', "makes `check`"),
    "written like an exercise": ('written="why_double"', 'written="halve"', "name of an exercise"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line_with_its_place(tmp_path: Path, case: str) -> None:
    old, new, says = WRONG[case]
    assert old in SOURCE
    with pytest.raises(CourseError) as error:
        read(tmp_path, SOURCE.replace(old, new, 1))
    assert says in str(error.value)
    assert str(tmp_path / "source.py") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_check_before_its_exercise_is_refused(tmp_path: Path) -> None:
    check = '# %% check="halve"\ncheck("halve")\n'
    with pytest.raises(CourseError, match="before the exercise"):
        read(tmp_path, SOURCE.replace(check, "").replace('# %% exercise="halve"', check + '\n# %% exercise="halve"'))


def test_a_missing_and_an_empty_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"Cannot read .*nowhere"):
        read_source(tmp_path / "nowhere.py")
    with pytest.raises(CourseError, match="has no cell"):
        read(tmp_path, "")
