"""Published numbers: what the file may say, and which numbers of a notebook leave their range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_assignment import NAME, write_tiny_assignment

from autograder.assignment import assignment_names, find_root, load_assignment
from autograder.errors import CourseError
from autograder.published import Comparison, PublishedNumber, compare, read_published
from course_utils.data.registry import read_registry

FILE = """
data = ["cifar10", "digits_in_scenes"]
set_at = ["images", "set"]

[[number]]
at = ["growth", "last"]
shows = "the last value"
data = ["cifar10"]
size = "five values"
source = "arithmetic"
low = 7.9
high = 8.1
"""


def published(tmp_path: Path, text: str = FILE) -> Any:
    root = write_tiny_assignment(tmp_path)
    (root / "solutions" / NAME / "published.toml").write_text(text)
    return read_published(load_assignment(NAME, root))


def compared(tmp_path: Path, value: Any, **changes: Any) -> Comparison:
    read = published(tmp_path)
    number = PublishedNumber.model_validate(read.numbers[0].model_dump() | changes)
    numbers = {"images": {"set": "cifar10"}, "growth": {"last": value} if value is not None else {}}
    return compare(read.model_copy(update={"numbers": [number]}), numbers)[0]


@pytest.mark.parametrize(
    ("value", "changes", "verdict", "fails"),
    [
        (8.0, {}, "inside", False),
        (7.9, {}, "inside", False),
        (7.8, {}, "below", True),
        (8.2, {}, "above", True),
        (8.2, {"better": "higher"}, "above", False),
        (7.8, {"better": "higher"}, "below", True),
        (7.8, {"better": "lower"}, "below", False),
        (8.2, {"better": "lower"}, "above", True),
        (7.81, {"sd": 0.05}, "inside within 2 sd", False),
        (7.79, {"sd": 0.05}, "below", True),
        (0.08, {"times": 100.0, "unit": "%"}, "inside", False),
        (7.0, {"high": None, "low": 7.5}, "below", True),
        (99.0, {"high": None, "low": 7.5}, "inside", False),
        (5.0, {"but": "trained for less long"}, "shown only", False),
        (None, {}, "missing", True),
        ("nan", {}, "missing", True),
        (None, {"needs": "surnames"}, "not measured", False),
        (7.0, {"needs": "surnames"}, "below", True),
    ],
)
def test_verdicts(tmp_path: Path, value: Any, changes: dict[str, Any], verdict: str, fails: bool) -> None:
    comparison = compared(tmp_path, value, **changes)
    assert (comparison.verdict, comparison.fails) == (verdict, fails)


def test_what_is_shown(tmp_path: Path) -> None:
    comparison = compared(tmp_path, 0.38, times=100.0, unit="%", low=38.6, high=39.3, sd=0.1, better="higher")
    assert (comparison.reached, comparison.number.range, comparison.number.accepted) == (
        "38 %",
        "38.6–39.3 %",
        "≥ 38.4 %",
    )
    assert compared(tmp_path, 8.0, low=46.4, high=46.4, sd=1.2).number.accepted == "44–48.8"
    assert compared(tmp_path, None).reached == "–"


def test_a_range_holds_only_for_its_data(tmp_path: Path) -> None:
    assert compare(published(tmp_path), {"images": {"set": "digits_in_scenes"}, "growth": {"last": 1.0}}) == []
    assert compare(published(tmp_path), {"growth": {"last": 1.0}}) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("low = 7.9", "lowest = 7.9", r"published\.toml: number\.0\.lowest: "),
        ("low = 7.9", 'low = "7.9"', r"number\.0\.low: "),
        ("low = 7.9\nhigh = 8.1", "", "needs low or high"),
        ("low = 7.9", "low = 9", "low is larger than high"),
        ('data = ["cifar10"]', 'data = ["mnist"]', "'mnist' is no set of"),
        ("[[number]]", "[number", "cannot be read"),
    ],
)
def test_a_wrong_file_is_told_in_one_sentence(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(CourseError, match=told) as error:
        published(tmp_path, FILE.replace(old, new))
    assert "\n" not in str(error.value)


def test_an_assignment_without_the_file(tmp_path: Path) -> None:
    assert read_published(load_assignment(NAME, write_tiny_assignment(tmp_path))) is None


def test_every_assignment_says_what_it_runs_on_and_names_experiments_that_it_has() -> None:
    for name in assignment_names(find_root()):
        assignment = load_assignment(name)
        read = read_published(assignment)
        assert read is not None
        assert any(read_registry()[data].kind == "embedded" for data in read.data)
        assert read.numbers
        source = assignment.source.read_text()
        for number in read.numbers:
            assert f'"{number.at[0]}"' in source
            assert set(number.data) <= set(read.data)
