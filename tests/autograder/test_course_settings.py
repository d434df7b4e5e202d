"""The course's settings: what is read, and one sentence that names the key where something is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autograder.course_settings import CourseSettings, LatePolicy, read_settings
from autograder.errors import CourseError
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.judging import Settings, Station, Work
from autograder.runner.namespaces import Limits
from autograder.session import TimeLimits

REPOSITORY = Path(__file__).parents[2]
NAME = "tiny_doubling"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout that holds an assignment by name only."""
    for name in (NAME, "other_thing"):
        (tmp_path / "solutions" / name).mkdir(parents=True)
        (tmp_path / "solutions" / name / f"{name}.py").touch()
    return tmp_path


def settings(root: Path, text: str) -> CourseSettings:
    (root / "pyproject.toml").write_text(text)
    return read_settings(root)


def test_what_is_not_there_has_its_default(root: Path) -> None:
    assert read_settings(root) == settings(root, "[project]\nname = 'x'\n") == CourseSettings()
    assert CourseSettings().limits.time_limits() == TimeLimits(30.0, 10.0, 300.0)
    assert CourseSettings().limits.resources() == Limits()


def test_the_repositorys_own_settings_are_read() -> None:
    assert read_settings(REPOSITORY).limits.time_limits() == TimeLimits(30.0, 10.0, 300.0)


def test_everything_is_read(root: Path) -> None:
    made = settings(
        root,
        """
        [tool.course]
        title = "DL 2026"
        timezone = "Europe/Stockholm"
        points_to_pass = { tiny = 4.5 }
        grades = { pass = 60 }
        failing_grade = "fail"
        [tool.course.deadlines]
        tiny_doubling = 2026-11-20T23:59:00
        other = 2026-12-20T23:59:00Z
        [tool.course.late]
        percent_per_day = 12.5
        [tool.course.limits]
        cell_seconds = 1
        memory_mib = 100
        output_kib = 2
        """,
    )
    assert made.deadlines[NAME].astimezone(UTC) == datetime(2026, 11, 20, 22, 59, tzinfo=UTC)
    assert made.deadlines["other_thing"].utcoffset() == timedelta(0)
    assert made.points_to_pass == {NAME: 4.5} and made.grades == {"pass": 60}
    assert made.late.percent_per_day == 12.5
    assert made.limits.time_limits().cell == 1
    assert made.limits.resources() == Limits(memory=100 << 20, output=2048)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dead_lines = {}", "tool.course.dead_lines is no setting. Did you mean deadlines?"),
        ("xyz = 1", "tool.course.xyz is no setting. There are: title, timezone"),
        ("late.percent = 1", "tool.course.late.percent is no setting. Did you mean percent_per_day?"),
        ("title = 3", "tool.course.title should be a valid string, and is 3."),
        ("limits.cell_seconds = '30'", "tool.course.limits.cell_seconds should be a valid number, and is '30'."),
        ("limits.cell_seconds = true", "tool.course.limits.cell_seconds should be a valid number, and is True."),
        ("limits.cell_seconds = inf", "tool.course.limits.cell_seconds should be a finite number, and is inf."),
        ("limits.memory_mib = 0", "tool.course.limits.memory_mib should be greater than 0, and is 0."),
        ("limits = 3", "tool.course.limits should be"),
        ("late.percent_per_day = 101", "tool.course.late.percent_per_day should be less than or equal to 100"),
        ("bonus.steps_at_most = -1", "tool.course.bonus.steps_at_most should be greater than or equal to 0"),
        ("bonus.steps_at_most = 1.5", "tool.course.bonus.steps_at_most should be a valid integer, and is 1.5."),
        ("grades = {E = 50, D = 50}", "tool.course.grades: each grade needs a higher percentage"),
        ("grades = {}", "tool.course.grades"),
        ("grades = {F = 50}", "tool.course.failing_grade: 'F' is one of the passing grades too."),
        ("timezone = 'Stockholm'", "tool.course.timezone: 'Stockholm' is no time zone"),
        ("timezone = '../x'", "tool.course.timezone: '../x' is no time zone"),
        (
            "deadlines.tiny = 2026-11-20T23:59:00",
            "tool.course.deadlines.tiny_doubling: 2026-11-20 23:59:00 has no time",
        ),
        ("deadlines.tiny = 2026-11-20", "tool.course.deadlines.tiny_doubling should be a date and time"),
        ("deadlines.tiny = 'soon'", "tool.course.deadlines.tiny_doubling should be a date and time, and is 'soon'."),
        ("deadlines.a9 = 2026-11-20T23:59:00Z", "tool.course.deadlines.a9: There is no assignment called 'a9'"),
        ("points_to_pass.tiny = -1", "tool.course.points_to_pass.tiny_doubling should be greater than or equal to 0"),
        ("points_to_pass = {tiny = 1, tiny_doubling = 2}", "tool.course.points_to_pass names tiny_doubling twice"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence_that_names_the_key(root: Path, text: str, says: str) -> None:
    with pytest.raises(CourseError) as error:
        settings(root, f"[tool.course]\n{text}\n")
    assert says in str(error.value) and str(root / "pyproject.toml") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_toml_or_no_table_is_one_sentence(root: Path) -> None:
    with pytest.raises(CourseError, match=r"pyproject\.toml cannot be read"):
        settings(root, "[tool")
    with pytest.raises(CourseError, match=r"tool\.course is no table"):
        settings(root, "[tool]\ncourse = 3\n")


def test_days_late_and_what_they_leave() -> None:
    policy = LatePolicy(grace_minutes=15, percent_per_day=10, days_at_most=3)
    late = {timedelta(minutes=15): 0, timedelta(minutes=16): 1, timedelta(days=1): 1, timedelta(days=1, seconds=1): 2}
    assert {by: policy.days(by) for by in late} == late and policy.days(timedelta(days=-1)) == 0
    assert [policy.kept(d) for d in (0, 1, 3, 4)] == pytest.approx([1, 0.9, 0.7, 0])
    assert LatePolicy(percent_per_day=30).kept(9) == 0 and LatePolicy().kept(400) == 1


def test_the_limits_reach_the_jail(tiny_root: Path) -> None:
    """A sleep, an allocation and a line on stderr that the default limits would let pass."""
    limits = CourseSettings.model_validate(
        {"limits": {"cell_seconds": 5, "criterion_seconds": 1.0, "memory_mib": 300, "output_kib": 1, "files": 20}}
    ).limits
    settings = Settings(NAME, tiny_root, "secret", "bubblewrap", limits.time_limits(), limits.resources())
    with Station(settings) as station:
        outcome = judged(station, "import time\ndef double(x):\n    time.sleep(2)\n    return x + x\n")
        assert "did not finish within 1 seconds" in messages(outcome)
        outcome = judged(station, "def double(x):\n    import numpy\n    numpy.ones(60_000_000)\n    return x + x\n")
        assert "MemoryError" in messages(outcome) or "memory" in messages(outcome)
        outcome = judged(
            station, "def double(x):\n    many = [open('/dev/null') for _ in range(30)]\n    return x + x\n"
        )
        assert "Too many open files" in messages(outcome)


def test_the_limit_on_output_reaches_the_jail(tiny_root: Path) -> None:
    from autograder.assignment import load_assignment
    from autograder.submission import read_program

    long = "import sys\ndef double(x):\n    print('y' * 100 + 'z', file=sys.stderr)\n    return x + x\n"
    with Zygote(tiny_root / "assignments" / NAME / "checks.py", limits=Limits(output=100)) as zygote:
        assignment = load_assignment(NAME, tiny_root)
        made = Judge(assignment, zygote, "secret").judge(read_program(long, assignment.exercises))
    assert [c.remarks for c in made.exercises["double"].result.criteria] == [["y" * 100], ["y" * 100]]


def judged(station: Station, code: str) -> dict:  # type: ignore[type-arg]
    return station.judge(Work("anna", code.encode(), "secret", program="the file")).result


def messages(result: dict) -> str:  # type: ignore[type-arg]
    return " ".join(c["message"] for c in result["exercises"]["double"]["criteria"])
