"""docs/add_an_exercise.md, typed and run to the letter on a copy of Assignment 1."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from walkthrough import Step, missing, work_through

from autograder.assignment import load_assignment

CHECKOUT = Path(__file__).parents[2]
NAME = "a1_linear_classifiers"


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("assignments", "solutions"):
        shutil.copytree(CHECKOUT / folder / NAME, root / folder / NAME, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def steps(course: Path) -> list[Step]:
    return list(work_through(CHECKOUT / "docs" / "add_an_exercise.md", course))


def test_every_command_puts_out_what_the_page_shows(steps: list[Step]) -> None:
    assert len(steps) >= 5
    for step in steps:
        assert step.shown.strip(), f"the page shows no output of {step.command}"
        assert missing(step.shown, step.got) == [], f"{step.command} put out\n{step.got}"


def test_the_mistake_survives_until_the_hidden_criterion_is_there(steps: list[Step]) -> None:
    tables = [step for step in steps if step.command.startswith("autograder mistakes")]
    assert [step.status for step in tables] == [1, 0]
    assert "survives" in tables[0].got
    assert "all caught, all named" in tables[-1].got


def test_the_exercise_is_part_of_the_assignment(steps: list[Step], course: Path) -> None:
    assignment = load_assignment(NAME, course)
    names = list(assignment.exercises)
    assert names[names.index("softmax") + 1] == "entropy"
    assert assignment.exercises["entropy"].max_score == 3.5
    assert "ln 1 = 0 in place of ln 0" not in assignment.notebook.read_text()


def test_lines_that_are_lost_are_found() -> None:
    assert missing("a\n…\n…c\n", "a\nb\nabc\n") == []
    assert missing("a\nb\n", "b\na\n") == ["b"]
