"""What `autograder mistakes` says of a mistake that fails something else than it lists."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_assignment import NAME, write_tiny_assignment
from typer.testing import CliRunner

from autograder import cli, mistakes_table
from autograder.assignment import load_assignment
from autograder.judging import Settings


@pytest.mark.parametrize(
    ("failed", "says"),
    [
        ((), ["survives"]),
        (("doubles_large_numbers",), ["should fail doubles_every_entry"]),
        (("doubles_every_entry", "doubles_large_numbers"), []),
        (
            ("doubles_every_entry", "doubles_large_numbers", "keeps_form"),
            ["also fails keeps_form: why keeps_form fails"],
        ),
        (
            ("doubles_large_numbers", "keeps_form"),
            ["should fail doubles_every_entry", "also fails keeps_form: why keeps_form fails"],
        ),
    ],
)
def test_the_verdict_names_what_is_not_as_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: tuple[str, ...], says: list[str]
) -> None:
    root = write_tiny_assignment(tmp_path, alternatives=None)
    tiny = load_assignment(NAME, root)
    names = ("doubles_every_entry", "doubles_large_numbers", "keeps_form")
    own = {
        "criteria": [{"name": n, "passed": n not in failed, "message": f"why {n} fails"} for n in names],
        "score": 3 - len(failed),
        "max_score": 3,
        "diagnosis": [tiny.mistakes[0].says],
    }
    outcome = SimpleNamespace(key="0", failure="", result={"exercises": {"double": own}})
    monkeypatch.setattr(mistakes_table, "judge_all", lambda *_: [outcome])
    (row,) = mistakes_table.judge_variants(tiny, Settings(NAME, root, "a secret"))
    assert row.faults == says


def test_an_exercise_without_mistakes_is_not_praised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_tiny_assignment(tmp_path))
    monkeypatch.setattr(mistakes_table, "judge_all", lambda *_: [])
    result = CliRunner().invoke(cli.app, ["mistakes", "tiny", "--exercise", "halve"])
    assert "0 mistakes and 0 alternative solutions; nothing to judge." in result.stdout
