"""The course's secret: made once, for its owner's eyes, whoever comes first."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autograder.errors import CourseError
from autograder.secret import course_secret


def test_the_secret_stays_the_same_and_differs_between_courses(tmp_path: Path) -> None:
    first = course_secret(tmp_path / "a")
    assert len(first) == 64 and course_secret(tmp_path / "a") == first
    assert course_secret(tmp_path / "b") != first


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    course_secret(tmp_path)
    assert stat.S_IMODE((tmp_path / ".secret").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [".secret"]


def test_many_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: course_secret(tmp_path), range(32)))) == 1


def test_a_secret_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="cannot be read or made"):
        course_secret(tmp_path / "file")
