"""Nothing of a reference, a hidden criterion or a mistake is in the student bundle of any assignment.

The search is this file's own, not that of `autograder.release`, which refuses to make a bundle that gives something
away: it reads the zip file as a student could, every string of the notebooks' JSON included, and takes a line for given
away wherever it stands, also within a longer one, with other spaces, or without its comment.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
import zipfile
from pathlib import Path

import pytest

from autograder.assignment import Assignment, assignment_names, load_assignment
from autograder.release import release

ROOT = Path(__file__).resolve().parents[2]
SHORTEST = 22  # characters without spaces; `optimizer.zero_grad()` gives nothing away


def squeezed(line: str) -> str:
    """A line without any space: neither indent nor line breaks nor style tell two apart."""
    return re.sub(r"\s+", "", line)


def code_lines(text: str) -> set[str]:
    """The lines of a Python program that say something, without spaces, comments and docstring quotes."""
    comments: dict[int, int] = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                comments[token.start[0]] = token.start[1]
    except (tokenize.TokenError, SyntaxError, IndentationError):
        pass  # a piece of a program
    lines = [line[: comments.get(k, len(line))] for k, line in enumerate(text.splitlines(), start=1)]
    found = {squeezed(line.strip().strip("\"'")) for line in lines}
    return {line for line in found if len(line) >= SHORTEST and re.search(r"[A-Za-zα-ω]", line)}


def secrets_of(assignment: Assignment) -> dict[str, str]:
    """What a student must not see, each line with where it is from."""
    found = {}
    for cell in assignment.cells:
        kept = [line for line in cell.solution_lines if "END SOLUTION" not in line]
        text = "\n".join(kept)
        lines = code_lines(text) if cell.kind == "code" else {squeezed(line) for line in kept}
        found |= {line: f"{cell.role} {cell.name}" for line in lines if len(line) >= SHORTEST}
    for name in ("hidden_checks.py", "mistakes.py", "alternatives.py"):
        path = assignment.solution_folder / name
        found |= {line: name for line in code_lines(path.read_text(encoding="utf-8"))}
    return found


def handed_out(assignment: Assignment) -> str:
    """All that students are meant to see: notebooks without solutions, every ``checks.py``, and course_utils."""
    texts = [c.handout for c in assignment.cells]
    texts += [p.read_text(encoding="utf-8") for p in (ROOT / "assignments").glob("*/checks.py")]
    texts += [p.read_text(encoding="utf-8") for p in (ROOT / "course_utils").rglob("*.py")]
    return squeezed("\n".join(texts))


def readable(name: str, data: bytes) -> str:
    """A file of the bundle as one text without spaces; of a notebook every string in it, outputs and metadata too."""
    text = data.decode("utf-8", errors="replace")
    if not name.endswith(".ipynb"):
        return squeezed(text)
    strings: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            strings.append(value)
        elif isinstance(value, list):
            if all(isinstance(v, str) for v in value):
                strings.append("".join(value))
            for v in value:
                walk(v)
        elif isinstance(value, dict):
            for k, v in value.items():
                walk(k)
                walk(v)

    walk(json.loads(text))
    return squeezed("\n".join(strings))


@pytest.fixture(scope="module")
def assignments() -> list[Assignment]:
    return [load_assignment(name, ROOT) for name in assignment_names(ROOT)]


@pytest.fixture(scope="module")
def bundle(assignments: list[Assignment], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the zip file with all assignments."""
    archive = release(assignments, tmp_path_factory.mktemp("release") / "everything").archive
    with zipfile.ZipFile(archive) as opened:
        return {name: readable(name, opened.read(name)) for name in opened.namelist()}


@pytest.mark.parametrize("name", assignment_names(ROOT))
def test_no_line_of_a_solution_is_in_the_bundle(
    name: str, assignments: list[Assignment], bundle: dict[str, str]
) -> None:
    assignment = next(a for a in assignments if a.name == name)
    public, secrets = handed_out(assignment), secrets_of(assignment)
    secret = {line: where for line, where in secrets.items() if line not in public}
    assert len(secret) > 500 and {w.split()[0] for w in secret.values()} >= {"exercise", "written", "hidden_checks.py"}
    given_away = [
        f"{file}: {line} ({where})" for file, text in bundle.items() for line, where in secret.items() if line in text
    ]
    assert given_away == []


def test_nothing_in_the_bundle_names_what_only_staff_have(bundle: dict[str, str]) -> None:
    for file, text in bundle.items():
        assert not file.split("/", 1)[1].startswith(("solutions", "autograder", "tests", "benchmarks")), file
        for name in ("fromautograder", "importautograder", "fromsolutions", "importsolutions", "BEGINSOLUTION"):
            assert name not in text, file


def test_the_search_finds_a_line_wherever_it_stands(assignments: list[Assignment]) -> None:
    assignment = assignments[0]
    line = next(line for cell in assignment.cells if cell.name == "softmax" for line in cell.solution_lines[1:])
    assert squeezed(line.split("#")[0]) in secrets_of(assignment)
    hidden = json.dumps({"metadata": {"note": ["x", "  " + line.replace(" = ", "=")]}, "cells": []})
    assert squeezed(line.split("#")[0]) in readable("some.ipynb", hidden.encode())
