"""Fingerprints: what changes when something of an assignment changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_assignment import CHECKS, HIDDEN, MISTAKES, NAME, SOURCE, write_tiny_assignment

from autograder.assignment import load_assignment
from autograder.fingerprint import Fingerprints

HELPERS = '''
SIZES = [5]
for size in (7, 9):
    SIZES.append(size)


def sizes():
    return SIZES


def unused():
    return 0


@double.criterion(points=1)
def doubles_all_sizes(student, draw):
    """Every size."""
    for n in sizes():
        expect(student.double(draw.normal(n))).shape(n)


def add_sign(exercise, call):
    @exercise.criterion(points=1, name=f"{exercise.name}_keeps_signs")
    def keeps_signs(student, draw):
        """Signs stay."""
        x = draw.normal(5)
        expect(call(student, x) * x > 0)


add_sign(double, lambda student, x: student.double(x))
add_sign(halve, lambda student, x: student.halve(student.double(x)))
'''


@pytest.fixture
def prints(tmp_path: Path):  # type: ignore[no-untyped-def]
    def made(**texts: str) -> Fingerprints:
        root = write_tiny_assignment(tmp_path / "checkout", **{"checks": CHECKS + HELPERS, **texts})  # type: ignore[arg-type]
        return Fingerprints(load_assignment(NAME, root))

    return made


def changed(before: Fingerprints, after: Fingerprints) -> set[str]:
    return {name for name in before.exercises if before.exercises[name] != after.exercises[name]}


@pytest.mark.parametrize(
    ("file", "old", "new", "exercises"),
    [
        (
            "checks",
            "x = draw.normal(5)\n    expect(student.double",
            "x = draw.normal(6)\n    expect(student.double",
            {"double"},
        ),
        ("checks", "return SIZES", "return SIZES[:2]", {"double"}),
        ("checks", "SIZES = [5]", "SIZES = [6]", {"double", "halve"}),  # the loop may concern anybody
        ("checks", "return 0", "return 1", set()),
        ("checks", "lambda student, x: student.double(x)", "lambda student, x: +student.double(x)", {"double"}),
        ("checks", "student.halve(student.double(x))", "student.halve(x)", {"halve"}),
        ("checks", '"""Signs stay."""', '"""Signs are kept."""', {"double", "halve"}),
        ("checks", 'halve = Exercise("halve", bonus=True)', 'halve = Exercise("halve")', {"halve"}),
        ("checks", "# nothing", "# nothing at all", set()),
        ("hidden", "scale=1e12", "scale=1e11", {"double"}),
        ("mistakes", "The square is not the double.", "No.", {"double"}),
        ("source", "return double(x) / 4", "return x / 2", set()),  # halve's own reference lends it nothing
        (
            "source",
            "return secret_of_doubling",
            "return +secret_of_doubling",
            {"halve"},
        ),  # halve's criterion calls it
    ],
)
def test_a_change_touches_what_reaches_it_by_name(prints, file: str, old: str, new: str, exercises: set[str]) -> None:  # type: ignore[no-untyped-def]
    texts = {"checks": CHECKS + HELPERS + "# nothing\n", "hidden": HIDDEN, "mistakes": MISTAKES, "source": SOURCE}
    assert texts[file].count(old) == 1
    before = prints(**texts)
    after = prints(**{**texts, file: texts[file].replace(old, new)})
    assert changed(before, after) == exercises
    assert before.shared == after.shared
    assert (before.checkout == after.checkout) == (not exercises and before.references == after.references)


def test_the_setup_and_files_that_nobody_knows_count_for_all(prints, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    before = prints()
    assert prints().checkout == before.checkout
    assert prints(source=SOURCE.replace("numbers = {}", "numbers = dict()")).shared != before.shared
    assert prints().shared == before.shared
    (tmp_path / "checkout" / "solutions" / NAME / "expected.json").write_text("{}")
    assert prints().shared != before.shared


def test_a_stand_in_has_a_fingerprint(prints) -> None:  # type: ignore[no-untyped-def]
    before, after = prints(), prints(source=SOURCE.replace("return double(x) / 4", "return x / 2"))
    assert before.references["halve"] != after.references["halve"]
    assert before.references["double"] == after.references["double"]
