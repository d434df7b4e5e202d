"""Holding criteria against functions: points, contract points withheld, faults of the staff."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from course_utils.checking import (
    CriterionFault,
    Draw,
    Exercise,
    Form,
    LocalStudent,
    Student,
    add_contract,
    exercises_of,
    expect,
    judge_exercise,
    unchanged_arguments,
)
from course_utils.checking.verdict import criterion_seed, judge_criterion


def doubling() -> Exercise:
    """An exercise with two criteria about values, and the contract's three."""
    double = Exercise("double")

    @double.criterion(points=2)
    def doubles(student: Student, draw: Draw) -> None:
        """Every entry is doubled.

        More about it."""
        x = draw.normal(5)
        expect(student.double(x)).close_to(2 * x)

    @double.criterion(points=1, visible=False)
    def keeps_zero(student: Student, draw: Draw) -> None:
        expect(student.double(torch.zeros(3, dtype=draw.dtype))).close_to(torch.zeros(3, dtype=draw.dtype))

    add_contract(double, lambda draw: (draw.normal(4),), [Form("the result", (4,))])
    return double


def judged(function: Any, exercise: Exercise | None = None) -> dict[str, str]:
    """For each criterion "" or the kind of what is unmet."""
    result = judge_exercise(exercise or doubling(), LocalStudent({"double": function} if function else {}))
    return {c.criterion.name: c.unmet.kind if c.unmet else "" for c in result.criteria}


VALUES, CONTRACT = ["doubles", "keeps_zero"], ["keeps_form", "leaves_arguments_alone", "takes_any_layout"]


def test_a_right_function_gets_every_point() -> None:
    result = judge_exercise(doubling(), LocalStudent({"double": lambda x: x + x}))
    assert result.score == result.max_score == 4.5
    assert all(c.passed and c.message == "" for c in result.criteria)


def test_the_contract_earns_nothing_where_nothing_is_computed_right() -> None:
    got = judged(lambda x: x + 1)
    assert [got[n] for n in VALUES] == ["value", "value"]
    assert [got[n] for n in CONTRACT] == ["withheld"] * 3
    result = judge_exercise(doubling(), LocalStudent({"double": lambda x: x + 1}))
    assert result.score == 0


def test_the_contract_earns_its_points_with_one_right_value() -> None:
    got = judged(lambda x: 3 * x)  # zero stays zero
    assert got == {"doubles": "value", "keeps_zero": "", **dict.fromkeys(CONTRACT, "")}


def test_an_exercise_about_conduct_alone_withholds_nothing() -> None:
    only = Exercise("double")
    add_contract(only, lambda draw: (draw.normal(4),), [Form("the result", (4,))])
    assert set(judged(lambda x: x + 1, only).values()) == {""}


def in_place_for_one(x: torch.Tensor) -> torch.Tensor:
    """Right, but a single number is doubled where it is."""
    return x.mul_(2) if len(x) == 1 else 2 * x


def crash_for_one(x: torch.Tensor) -> torch.Tensor:
    """Right, but for a single number."""
    if len(x) == 1:
        raise RuntimeError("one")
    return 2 * x


@pytest.mark.parametrize(
    ("function", "fails"),
    [
        (lambda x: 2 * x, set()),
        (lambda x: (2 * x).squeeze(), {"keeps_form"}),
        (in_place_for_one, {"leaves_arguments_alone"}),
        (crash_for_one, set()),  # the business of criteria on values
    ],
)
def test_special_cases_have_a_form_and_arguments_too(function: Any, fails: set[str]) -> None:
    only = Exercise("double")
    add_contract(
        only,
        lambda draw: (draw.normal(4),),
        [Form("the result", (4,))],
        unusual=lambda draw: [((draw.normal(1),), [Form("the result for one", (1,))])],
    )
    assert {name for name, kind in judged(function, only).items() if kind} == fails


@pytest.mark.parametrize(
    ("function", "fails"),
    [
        (lambda x: (2 * x).float(), {"keeps_form": "dtype"}),
        (lambda x: (2 * x).numpy(), {"keeps_form": "type"}),
        (lambda x: (2 * x)[None], {"keeps_form": "shape"}),
        (lambda x: x.mul_(2), {"leaves_arguments_alone": "changed argument"}),
        (lambda x: 2 * x.view(-1).as_strided(x.shape, (1,)), {"takes_any_layout": "value"}),
        (lambda x: 2 * x if x.is_contiguous() else x * float("nan"), {"takes_any_layout": "value"}),
    ],
)
def test_each_fault_of_conduct_costs_its_own_criterion(function: Any, fails: dict[str, str]) -> None:
    assert {n: kind for n, kind in judged(function).items() if kind} == fails


@pytest.mark.parametrize("function", [lambda x: x * float("nan"), lambda x: None, lambda x: x[:0], lambda x: "x"])
def test_no_result_makes_a_criterion_look_at_fault(function: Any) -> None:
    assert all(judged(function).values())


def test_nothing_defined_and_nothing_written() -> None:
    assert set(judged(None).values()) == {"not defined"}

    def handed_out(x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError()

    assert set(judged(handed_out).values()) == {"nothing written"}


def test_the_seed_differs_for_every_criterion_and_secret() -> None:
    first, second = doubling().criteria[:2]
    seeds = {criterion_seed(first), criterion_seed(second), criterion_seed(first, "a"), criterion_seed(first, "b")}
    assert len(seeds) == 4 and all(0 <= s < 2**63 for s in seeds)
    assert criterion_seed(first, "a") == criterion_seed(doubling().criteria[0], "a")


def test_a_criterion_that_raises_before_any_call_is_the_staffs_fault() -> None:
    exercise = Exercise("double")

    @exercise.criterion(points=1)
    def broken(student: Student, draw: Draw) -> None:
        raise KeyError("oops")

    with pytest.raises(CriterionFault, match=r"double\.broken"):
        judge_criterion(exercise.criteria[0], LocalStudent({}))


def test_arithmetic_that_fails_on_a_result_is_the_students_loss() -> None:
    exercise = Exercise("double")

    @exercise.criterion(points=1)
    def careless(student: Student, draw: Draw) -> None:
        expect(student.double(1).sum()).close_to(2)

    result = judge_criterion(exercise.criteria[0], LocalStudent({"double": lambda x: {"not": "a tensor"}}))
    assert result.unmet is not None and result.unmet.kind == "type"
    assert "could not be used" in result.message


def test_remarks_come_from_the_criterions_own_calls_once_each() -> None:
    exercise = Exercise("double")

    @exercise.criterion(points=1)
    def twice(student: Student, draw: Draw) -> None:
        student.double(torch.ones(1))
        student.double(torch.ones(1))
        unchanged_arguments(student.calls[-1])

    def warns(x: torch.Tensor) -> torch.Tensor:
        import warnings

        warnings.warn("careful", stacklevel=1)
        return x

    result = judge_criterion(exercise.criteria[0], LocalStudent({"double": warns}))
    assert result.passed and result.remarks == ["UserWarning: careful"]


def test_a_criterions_title_is_the_first_line_of_its_docstring() -> None:
    first, second = doubling().criteria[:2]
    assert first.title == "Every entry is doubled." and second.title == "keeps zero"


def test_the_visible_part_of_an_exercise() -> None:
    names = [c.name for c in doubling().visible().criteria]
    assert names == ["doubles", "keeps_form", "leaves_arguments_alone"]


def test_exercises_refuse_what_is_none() -> None:
    with pytest.raises(ValueError, match="not a Python name"):
        Exercise("two words")
    with pytest.raises(ValueError, match="more than 0"):
        Exercise("double").criterion(points=0)
    exercise = doubling()
    with pytest.raises(ValueError, match="already has a criterion called doubles"):
        exercise.criterion(points=1, name="doubles")(lambda student, draw: None)


def test_a_criterion_is_hidden_by_the_module_it_is_written_in() -> None:
    def condition(student: Student, draw: Draw) -> None: ...

    condition.__module__ = "solutions.a1.hidden_checks"
    exercise = Exercise("double")
    exercise.criterion(points=1)(condition)
    assert not exercise.criteria[0].visible


def test_exercises_of_a_module_in_their_order() -> None:
    import types

    module = types.ModuleType("checks")
    module.b, module.a, module.other = Exercise("b"), Exercise("a"), 3  # type: ignore[attr-defined]
    assert list(exercises_of(module)) == ["b", "a"]


def test_criteria_are_about_the_cpu_whatever_device_a_notebook_has_set() -> None:
    torch.set_default_device("meta")  # any that is not the CPU, and every machine has this one
    try:
        assert judged(lambda x: x + torch.ones(x.shape, dtype=x.dtype) * x)["doubles"] == ""
        assert set(judged(lambda x: x + x).values()) == {""}
        assert torch.ones(1).device.type == "meta"
    finally:
        torch.set_default_device(None)
