"""`check(...)` in a notebook, and under nbgrader's own commands."""

from __future__ import annotations

import linecache
import types
from typing import Any

import pytest
import torch

from course_utils.checking import Exercise, checker, expect
from course_utils.checking.display import CheckReport


def checks() -> types.ModuleType:
    module = types.ModuleType("checks")
    double, halve = Exercise("double"), Exercise("halve")

    @double.criterion(points=1.5)
    def doubles(student: Any, draw: Any) -> None:
        """Every entry is doubled."""
        x = draw.normal(5)
        expect(student.double(x)).close_to(2 * x)

    @double.criterion(points=4, visible=False)
    def hidden(student: Any, draw: Any) -> None:
        raise AssertionError("a hidden criterion ran in a notebook")

    @halve.criterion(points=1)
    def halves(student: Any, draw: Any) -> None:
        """Every entry is halved."""
        x = draw.normal(5)
        expect(student.halve(x)).close_to(x / 2)

    module.double, module.halve = double, halve  # type: ignore[attr-defined]
    return module


FUNCTIONS = {"double": lambda x: x + x, "halve": lambda x: x}


@pytest.fixture(autouse=True)
def outside_nbgrader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


def test_check_judges_one_exercise_or_all_with_visible_criteria_only() -> None:
    check = checker(checks(), FUNCTIONS)
    one, all_of_them = check("double"), check()
    assert isinstance(one, CheckReport) and one.passed and one.score == 1.5
    assert not all_of_them.passed and len(all_of_them.results) == 2 and all_of_them.score == 1.5


def test_check_finds_the_callers_functions() -> None:
    namespace: dict[str, Any] = {"check": checker(checks()), "double": lambda x: 3 * x}
    exec("report = check('double')", namespace)
    assert not namespace["report"].passed
    exec("double = lambda x: x + x\nreport = check('double')", namespace)  # run again after a correction
    assert namespace["report"].passed


def test_an_unknown_exercise_is_answered_with_the_nearest() -> None:
    check = checker(checks(), FUNCTIONS)
    with pytest.raises(ValueError, match="Did you mean 'double'"):
        check("duoble")
    with pytest.raises(ValueError, match="There are: double, halve"):
        check("softmax")


def test_nbgrader_validate_wants_an_assertion_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    check = checker(checks(), FUNCTIONS)
    assert check("double").passed
    with pytest.raises(AssertionError, match="halve: 0 of 1 criteria are met"):
        check("halve")


def test_nbgrader_autograde_wants_the_points(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    check = checker(checks(), FUNCTIONS)
    assert check("double") == 1.5
    assert check("halve") == 0
    assert "Every entry is halved." in capsys.readouterr().out


def test_the_same_inputs_come_every_time() -> None:
    seen: list[torch.Tensor] = []

    def double(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    check = checker(checks(), {"double": double})
    check("double"), check("double")
    assert torch.equal(seen[0], seen[1])


def test_check_says_at_once_what_may_not_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    module = checks()
    module.double.forbidden = ("torch.mul",)  # type: ignore[attr-defined]
    code = "def double(x):\n    return x.mul(2)\n"
    linecache.cache["<cell>"] = (len(code), None, code.splitlines(True), "<cell>")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<cell>", "exec"), namespace)
    report = checker(module, namespace)("double")
    assert report.score == 0 and "may not use .mul (as torch.mul): the notebook's rules" in str(report)


def notebook(code: str) -> dict[str, Any]:
    """A namespace as a kernel has it, whose functions' source can be read."""
    name = f"<ipython-input-{hash(code)}>"
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, name, "exec"), namespace)
    return namespace


@pytest.mark.parametrize(
    ("double", "halve", "advice"),
    [
        ("return x * 3", "return helper(x)", "halve builds on double, which does not pass the checks: repair double"),
        ("return x * 3", "return x", ""),  # wrong on its own account
        ("return x * 2", "return double(x)", ""),  # what it builds on is right
        ("return x * 3", "return x / 2", ""),  # nothing is wrong
    ],
)
def test_an_exercise_that_builds_on_a_wrong_one_says_so(double: str, halve: str, advice: str) -> None:
    code = f"def double(x):\n    {double}\ndef helper(x):\n    return double(x) / 4\ndef halve(x):\n    {halve}\n"
    report = checker(checks(), notebook(code))("halve")
    assert report.results[0].advice.startswith(advice) if advice else report.results[0].advice == ""


class OnGpu(torch.Tensor):
    """Says of itself that it is on a GPU, which the machine that runs the tests need not have."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)


def test_a_result_on_another_device_passes_and_what_grading_lacks_is_told() -> None:
    report = checker(checks(), {"double": lambda x: (x + x).as_subclass(OnGpu), "halve": lambda x: x / 2})()
    assert report.passed
    assert "double returned a tensor on cuda:0 for tensors on the CPU. Grading has no GPU" in str(report)
    assert report.results[1].advice == ""
