"""All reference notebooks one after another: which data each takes, what is kept, the page and the exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_assignment import SOURCE, write_tiny_assignment
from typer.testing import CliRunner

from autograder.assignment import load_assignment
from autograder.cli import app
from autograder.errors import CourseError
from autograder.published import Published
from autograder.solve_all import data_for, solve_all
from autograder.solve_page import grids, references_page, shown

IMAGES, TEXTS = "tiny_images", "tiny_texts"
PUBLISHED = """
data = [{data}]
set_at = ["ran on"]

[[number]]
at = ["growth", "last"]
shows = "the <last> value"
data = ["digits_in_scenes", "python_topics"]
size = "five values"
source = "arithmetic"
low = {low}
high = {high}
"""
RAN_ON = (
    'import os; numbers["ran on"] = os.environ["COURSE_DATA_SET"]\nnumbers["table"] = {"a": {"x": 1}, "b": {"x": 2}}\n'
)


def write(root: Path, name: str, data: str, low: float = 7, high: float = 9, source: str = SOURCE) -> None:
    source = source.replace("plt.show()\n", "plt.show()\n" + RAN_ON)
    checks = (
        "from course_utils.checking import Exercise, expect\n\ndouble, halve = Exercise('double'), Exercise('halve')\n"
    )
    for exercise, factor in (("double", 2), ("halve", 0.5)):
        checks += f"""

@{exercise}.criterion(points=1)
def {exercise}s(student, draw):
    x = draw.normal(5)
    expect(student.{exercise}(x)).close_to({factor} * x)
"""
    write_tiny_assignment(root, source, checks, None, None, None, name)
    (root / "solutions" / name / "published.toml").write_text(PUBLISHED.format(data=data, low=low, high=high))


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "course"
    write(root, IMAGES, '"cifar10", "digits_in_scenes"')
    write(root, TEXTS, '"tinyshakespeare", "python_topics"')
    monkeypatch.chdir(root)
    return root


def solve_command(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["solve", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_both_run_on_what_they_can_and_what_has_not_changed_is_kept(course: Path) -> None:
    status, said = solve_command("--all", "--data", "digits_in_scenes")
    assert status == 0, said
    assert f"{IMAGES} on digits_in_scenes: done" in said
    assert f"{TEXTS} on python_topics: done" in said
    assert f"{IMAGES}: experiment growth: " in said
    assert re.search(r"tiny_texts +│ the <last> value +│ +8 │ +7–9 │ +7–9 │ inside", said)
    page = course / "build" / "solve" / "references.html"
    assert str(page) in said
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "2 of 2 numbers with a\npublished range are inside it." in text
    assert "the &lt;last&gt; value" in text and "<last>" not in text
    assert "the last value is 8.0" in text

    first = {n: (course / "build" / "solve" / n / "numbers.json").stat().st_mtime_ns for n in (IMAGES, TEXTS)}
    source = course / "solutions" / TEXTS / f"{TEXTS}.py"
    source.write_text(source.read_text().replace("Doubling", "Twofold"))
    (course / "solutions" / IMAGES / "published.toml").write_text(
        PUBLISHED.format(data='"cifar10", "digits_in_scenes"', low=1, high=2)
    )
    status, said = solve_command("--all", "--data", "digits_in_scenes")
    assert status == 1  # the number of the kept notebook has left its range
    assert f"{IMAGES} on digits_in_scenes: has not changed since it ran" in said
    assert f"{TEXTS} on python_topics: done" in said
    assert "above" in said
    last = {n: (course / "build" / "solve" / n / "numbers.json").stat().st_mtime_ns for n in (IMAGES, TEXTS)}
    assert last[IMAGES] == first[IMAGES]
    assert last[TEXTS] > first[TEXTS]
    text = page.read_text()
    assert "1 of 2 numbers with a\npublished range are inside it." in text
    assert '<tr class="fails">' in text


def test_one_that_fails_does_not_keep_the_others_from_running(course: Path) -> None:
    source = course / "solutions" / IMAGES / f"{IMAGES}.py"
    source.write_text(source.read_text().replace("plt.show()", "os = __import__('os'); os._exit(9)"))
    assignments = [load_assignment(n, course) for n in (IMAGES, TEXTS)]
    references = solve_all(assignments, data="python_topics", output=course / "mine")
    assert [r.folder for r in references] == [course / "mine" / n for n in (IMAGES, TEXTS)]
    assert [bool(r.failure) for r in references] == [True, False]
    assert references[0].failure.startswith("The cell experiment growth (")
    assert "ended the kernel" in references[0].failure
    assert references[0].fails and not references[1].fails
    assert [c.reached for c in references[1].comparisons] == ["8"]
    assert "1 of 2 notebooks\nfailed" in references_page(references)


def test_one_assignment_alone_leaves_its_range(course: Path) -> None:
    (course / "solutions" / IMAGES / "published.toml").write_text(
        PUBLISHED.format(data='"cifar10", "digits_in_scenes"', low=9, high=10)
    )
    status, said = solve_command(IMAGES, "--data", "digits_in_scenes")
    assert status == 1
    assert re.search(r"8 │ +9–10 │ +9–10 │ below", said)
    assert (course / "build" / "solve" / IMAGES / "numbers.json").is_file()


def test_an_interrupted_run_keeps_what_is_finished(course: Path) -> None:
    source = course / "solutions" / TEXTS / f"{TEXTS}.py"
    source.write_text(source.read_text().replace("plt.show()", "import time; time.sleep(600)"))
    command = [sys.executable, "-m", "autograder.cli", "solve", "--all", "--data", "digits_in_scenes"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, cwd=course, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE)
    numbers = course / "build" / "solve" / IMAGES / "numbers.json"
    for _ in range(1200):
        if numbers.is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    time.sleep(1)  # the second kernel starts, or is running already
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130
    assert " ".join(said.split()) == "autograder: interrupted; run the same command again to go on."
    assert json.loads(numbers.read_text())["numbers"]["ran on"] == "digits_in_scenes"
    assert sorted(p.name for p in (course / "build" / "solve").iterdir()) == [IMAGES]


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("cifar10", "tinyshakespeare"),
        ("digits_in_scenes", "python_topics"),
        ("alice", "alice"),
        ("surnames", "tinyshakespeare"),
        ("auto", "python_topics"),
    ],
)
def test_data_of_another_kind(
    asked: str, taken: str, course: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing either"))
    published = Published(data=["tinyshakespeare", "alice", "python_topics"], set_at=["text"])
    assert data_for(load_assignment(TEXTS, course), published, asked) == taken
    assert data_for(load_assignment(TEXTS, course), None, asked) == asked


def test_what_is_impossible_is_told_before_anything_runs(course: Path) -> None:
    only = Published(data=["tinyshakespeare"], set_at=["text"])
    with pytest.raises(CourseError, match=r"does not run on digits_in_scenes, .* it runs on tinyshakespeare"):
        data_for(load_assignment(TEXTS, course), only, "digits_in_scenes")
    for arguments, told in (
        (["--all", "--data", "essay.txt"], "'essay.txt' is none. A text of yours is for one assignment"),
        (["--all", IMAGES], "Name one assignment, such as `autograder solve a1`, or give --all."),
        ([], "Name one assignment"),
    ):
        status, said = solve_command(*arguments)
        assert status == 2
        assert told in said
    assert not (course / "build").exists()


def test_numbers_become_tables() -> None:
    table = grids({"a": {"x": 0.25, "y": [1, 2]}, "b": {"y": True}})[0]
    assert table.head == ["", "x", "y"]
    assert table.rows == [["a", "0.25", "1, 2"], ["b", "", "yes"]]
    assert grids({"a": {"x": {"deep": 1234567}}, "b": 2.0})[0].rows == [["a · x · deep", "1,234,567"], ["b", "2"]]
    assert shown(list(range(100))) == "0, 1, 2, 3, 4, 5, 6, 7, … (100 values)"
    assert shown(None) == "null"
