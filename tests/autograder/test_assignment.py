"""Loading an assignment by its folder, and saying where its files do not agree."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import torch
from tiny_assignment import CHECKS, HIDDEN, MISTAKES, NAME, SOURCE, write_tiny_assignment

from autograder.assignment import assignment_names, find_root, load_assignment
from autograder.errors import CourseError
from course_utils.checking import LocalStudent, judge_exercise

REPOSITORY = Path(__file__).resolve().parents[2]


def test_exercises_stand_in_the_notebooks_order_with_visible_and_hidden_criteria(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path))
    assert list(tiny.exercises) == ["double", "halve"]  # the checks file has them the other way round
    assert [(c.name, c.visible) for c in tiny.exercises["double"].criteria] == [
        ("doubles_every_entry", True),
        ("doubles_large_numbers", False),
    ]
    assert (tiny.max_score, tiny.max_bonus, tiny.max_written) == (2.5, 2.0, 3.0)
    assert tiny.title == "Tiny: doubling"
    assert [m.name for m in tiny.mistakes] == ["squares"]
    assert [a.name for a in tiny.alternatives] == ["multiplies"]
    assert tiny.notebook == tmp_path / "assignments" / NAME / f"{NAME}.ipynb"


def test_hidden_criteria_may_stand_in_an_exercise_of_their_own_making(tmp_path: Path) -> None:
    own = HIDDEN.replace(f"from assignments.{NAME}.checks import double\n", "").replace(
        "import expect", 'import Exercise, expect\n\ndouble = Exercise("double", forbidden=["torch.mul"])'
    )
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path, hidden=own))
    assert [c.visible for c in tiny.exercises["double"].criteria] == [True, False]
    assert tiny.exercises["double"].forbidden == ("torch.mul",)


def test_loading_again_sees_what_changed_and_adds_nothing_twice(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path)
    first = load_assignment(NAME, root)
    again = load_assignment(NAME, root)
    assert len(again.exercises["double"].criteria) == len(first.exercises["double"].criteria) == 2
    write_tiny_assignment(root, checks=CHECKS.replace("points=1)", "points=1.25)"))
    assert load_assignment(NAME, root).exercises["double"].max_score == 2.75


def test_two_courses_with_an_assignment_of_the_same_name(tmp_path: Path) -> None:
    one, two = (
        write_tiny_assignment(tmp_path / "one"),
        write_tiny_assignment(tmp_path / "two", hidden=None, mistakes=None),
    )
    assert len(load_assignment(NAME, one).exercises["double"].criteria) == 2
    assert len(load_assignment(NAME, two).exercises["double"].criteria) == 1
    assert len(load_assignment(NAME, one).exercises["double"].criteria) == 2


def test_the_reference_is_right_and_fresh_each_time(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path))
    namespace = tiny.reference()
    assert all(judge_exercise(e, LocalStudent(namespace)).score == e.max_score for e in tiny.exercises.values())
    assert "check" not in namespace  # made by the setup cell that grading has no use for
    assert "plt" not in namespace  # imported by an experiment
    namespace["numbers"]["spoilt"] = True
    assert tiny.reference()["numbers"] == {}


def test_a_traceback_of_the_reference_names_the_line_of_the_source(tmp_path: Path) -> None:
    source = SOURCE.replace("return double(x) / 4", "return undefined_name / 4")
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path, source=source))
    with pytest.raises(NameError) as error:
        tiny.reference()["halve"](torch.ones(2))
    frame = traceback.extract_tb(error.value.__traceback__)[-1]
    assert frame.filename == str(tiny.source)
    assert frame.line == "return undefined_name / 4"


def test_an_exception_while_the_reference_is_made_names_the_cell(tmp_path: Path) -> None:
    source = SOURCE.replace("numbers = {}", "numbers = {}\nimport a_module_that_is_not_there")
    with pytest.raises(CourseError, match=f"{NAME}.py:8: the setup cell setup raised ModuleNotFoundError"):
        load_assignment(NAME, write_tiny_assignment(tmp_path, source=source)).reference()


def test_names_short_names_and_paths(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path)
    assert assignment_names(root) == [NAME]
    assert load_assignment("tiny", root).name == NAME
    assert load_assignment(root / "solutions" / NAME).root == root
    assert load_assignment(root / "assignments" / NAME).root == root


def test_an_unknown_name_is_answered_with_what_there_is(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path)
    with pytest.raises(
        CourseError, match=rf"no assignment called 'tiny_dubling'; there are: {NAME}.*Did you mean {NAME}"
    ):
        load_assignment("tiny_dubling", root)
    write_tiny_assignment(root, name="tiny_other", hidden=None, mistakes=None, alternatives=None)
    with pytest.raises(CourseError, match="'tiny'; there are: tiny_doubling, tiny_other"):
        load_assignment("tiny", root)  # short for both


def test_the_root_is_found_from_below_and_else_is_this_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tiny_assignment(tmp_path / "course")
    monkeypatch.chdir(root / "assignments" / NAME)
    assert find_root() == root
    assert load_assignment("tiny").root == root
    assert find_root(tmp_path) == REPOSITORY


DISAGREEMENTS = {
    "an exercise without criteria": (
        {"checks": CHECKS.split("@halve")[0].replace('halve = Exercise("halve", bonus=True)', "")},
        "halve has no criteria in",
    ),
    "an exercise with hidden criteria only": (
        {"checks": CHECKS.split("@halve")[0]},
        "halve has no visible criterion",
    ),
    "criteria without an exercise": (
        {"checks": CHECKS + 'third = Exercise("third")\n'},
        'third has no cell exercise="third"',
    ),
    "hidden criteria of something unknown": (
        {"hidden": 'from course_utils.checking import Exercise\nq = Exercise("quadruple")\n'},
        "are about quadruple",
    ),
    "a hidden criterion named like a visible one": (
        {
            "hidden": HIDDEN.replace(f"from assignments.{NAME}.checks import double\n", "")
            .replace("import expect", 'import Exercise, expect\n\ndouble = Exercise("double")')
            .replace("doubles_large_numbers", "doubles_every_entry")
        },
        "two criteria called doubles_every_entry",
    ),
    "a mistake in nothing": (
        {"mistakes": MISTAKES.replace('"double"', '"duble"')},
        r"mistakes\.py: squares is for 'duble', no exercise; there are: double, halve\. Did you mean double\?",
    ),
    "checks that do not import": (
        {"checks": "import a_module_that_is_not_there\n"},
        "Cannot import .*checks.py: ModuleNotFoundError",
    ),
}


@pytest.mark.parametrize("case", DISAGREEMENTS)
def test_what_does_not_agree_is_said_in_one_line(tmp_path: Path, case: str) -> None:
    files, says = DISAGREEMENTS[case]
    with pytest.raises(CourseError, match=says) as error:
        load_assignment(NAME, write_tiny_assignment(tmp_path, **files))
    assert "\n" not in str(error.value)


def test_missing_checks_are_named(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path)
    (root / "assignments" / NAME / "checks.py").unlink()
    with pytest.raises(CourseError, match=r"checks\.py is missing"):
        load_assignment(NAME, root)


@pytest.mark.parametrize("name", assignment_names(REPOSITORY))
def test_the_courses_own_assignments_load_and_their_reference_gets_full_marks(name: str) -> None:
    torch.set_num_threads(1)
    loaded = load_assignment(name, REPOSITORY)
    namespace = loaded.reference()
    for exercise in loaded.exercises.values():
        result = judge_exercise(exercise, LocalStudent(namespace), "any secret")
        assert [c.criterion.name for c in result.criteria if not c.passed] == []


def test_the_variants_of_some_exercises(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path))
    only = tiny.with_variants_of(["double"])
    assert [v.name for v in (*only.mistakes, *only.alternatives)] == ["squares", "multiplies"]
    none = tiny.with_variants_of(["halve"])
    assert none.mistakes == none.alternatives == ()
    assert none.exercises == tiny.exercises
    with pytest.raises(CourseError, match=r"no exercise 'doubel'; there are: double, halve\. Did you mean double\?"):
        tiny.with_variants_of(["doubel"])
