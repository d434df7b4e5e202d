"""The instructor's commands from collecting to exporting: what they write, say, and exit with."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from marked_class import result_of, write_result
from test_collect import pack
from tiny_assignment import NAME, write_tiny_assignment
from typer.testing import CliRunner

from autograder import cli
from autograder.assignment import load_assignment
from autograder.course import read_course
from autograder.grade import released_notebook
from autograder.gradebook import open_gradebook
from autograder.rebuild import rebuild
from autograder.submission import Submission

pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")
ROSTER = "Student,ID,SIS User ID,SIS Login ID,Section\n,,,,\n" + "".join(
    f'"{n.title()}, X",{k},,{n},S\n' for k, n in enumerate(("anna", "ben", "cleo"), 11)
)


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, what was printed, and what was told on stderr."""
    result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_from_a_download_to_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tiny_assignment(tmp_path / "checkout")
    (root / "pyproject.toml").write_text('[tool.course]\ntitle = "DL 26"\nlate.percent_per_day = 50\n')
    monkeypatch.chdir(root)
    folder = str(tmp_path / "course")
    assert run("build", "--course", folder)[0] == 0
    (tmp_path / "grades.csv").write_text(ROSTER)
    names = ("annax_11_1_a.ipynb", "benx_LATE_12_2_a.ipynb", "stranger_99_3_a.ipynb")
    download = pack(tmp_path / "submissions.zip", *((n, n.encode()) for n in names))
    where = ("--course", folder, "--roster", str(tmp_path / "grades.csv"))
    status, out, told = run("collect", "tiny", str(download), *where)
    assert (status, out) == (1, "2 new or changed, 0 unchanged, 1 late, 1 refused, 1 missing.\n")
    assert "Refused: " in told and "Late: ben: 1 day late" in told and "Missing: cleo" in told

    assert run("report", "tiny", "--course", folder)[::2] == (
        2,
        f"autograder: Nothing of {NAME} is graded in {folder}; run `autograder grade` first.\n",
    )
    course, assignment = read_course(Path(folder)), load_assignment(NAME, root)
    for student, failed in (("anna", ()), ("ben", ("doubles_every_entry",))):
        result = result_of(assignment, failed)
        write_result(course, assignment, student, result)
        graded = course.folder / "autograded" / student / NAME / f"{NAME}.ipynb"
        graded.parent.mkdir(parents=True)
        nbformat.write(rebuild(released_notebook(assignment, course.folder), Submission(), result), graded)

    status, out, _ = run("report", "tiny", "--course", folder)
    assert status == 0 and all(Path(line).is_file() for line in out.split())
    assert run("feedback", "tiny", "--course", folder)[0] == 0
    page = (course.folder / "feedback" / "ben" / NAME / f"{NAME}.html").read_text()
    assert "DL 26" in page and "1 day late: 50 % of 1.5 points count." in page and "Not marked yet: why_double" in page

    status, _, told = run("export", "tiny", "--to", "canvas", "--course", folder)
    assert status == 1 and "Left out: anna: waits for a person" in told
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        for student in ("anna", "ben"):
            grade = gradebook.find_grade("why_double", NAME, NAME, student)
            grade.manual_score, grade.needs_manual_grade = 3.0, False
        gradebook.db.commit()
    status, out, told = run("export", "--to", "canvas", "--course", folder)
    assert (status, told) == (0, "") and out.startswith(f"3 students: {folder}/exported/{NAME}_canvas.csv\n")
    lines = (course.folder / "exported" / f"{NAME}_canvas.csv").read_text().splitlines()
    assert lines[2:] == ['"Anna, X",11,,anna,S,5.5,2,A', '"Ben, X",12,,ben,S,2.25,0,F', '"Cleo, X",13,,cleo,S,,,']


def test_a_wrong_setting_stops_a_command_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tiny_assignment(tmp_path / "checkout")
    (root / "pyproject.toml").write_text("[tool.course.limits]\ncell_seconds = 0\n")
    monkeypatch.chdir(root)
    status, _, told = run("judge", "tiny", "pyproject.toml")
    assert status == 2 and told.count("\n") == 1
    assert "tool.course.limits.cell_seconds should be greater than 0, and is 0" in told
