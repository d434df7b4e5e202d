"""Notebooks that are not as they were handed out, down to files that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from classroom import HONEST, POINTS, Classroom, code_cell, notebook

ALL = list(HONEST.values())
NOTHING = tuple(POINTS)


def graded(source: str, grade_id: str, points: float) -> dict[str, Any]:
    """A cell with metadata as nbgrader has it."""
    own = {
        "grade": True,
        "grade_id": grade_id,
        "points": points,
        "locked": True,
        "solution": False,
        "schema_version": 3,
    }
    return code_cell(source, metadata={"nbgrader": own, "course": {"role": "check", "name": "double"}})


HARMLESS: dict[str, Callable[[], bytes]] = {
    "copied cells": lambda: notebook([*ALL, *ALL]),
    "reversed order": lambda: notebook(ALL[::-1]),
    "one cell for all": lambda: notebook(["\n\n".join(ALL)]),
    "changed points": lambda: notebook([*(graded(s, "check-double", 1000) for s in ALL)]),
    "changed ids": lambda: notebook([code_cell(s, id="same") for s in ALL]),
    "ids that are no text": lambda: notebook([code_cell(s, id=[1, {"a": None}]) for s in ALL]),
    "metadata removed": lambda: json.dumps({"cells": [{"cell_type": "code", "source": s} for s in ALL]}).encode(),
    "metadata of nonsense": lambda: notebook([code_cell(s, metadata=5) for s in ALL], metadata=[]),
    "another kernel": lambda: notebook(ALL, metadata={"kernelspec": {"name": "../../evil", "language": "bash"}}),
    "another version": lambda: notebook(ALL, nbformat=99, nbformat_minor="x"),
    "format 3": lambda: json.dumps(
        {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": s, "outputs": []} for s in ALL]}]}
    ).encode(),
    "a byte order mark": lambda: b"\xef\xbb\xbf" + notebook(ALL),
    "100,000 cells after": lambda: notebook([*ALL, *["x = 1"] * 100_000]),
    "a million outputs": lambda: notebook([code_cell(s, outputs=[{}] * 200_000) for s in ALL]),
    "lines as a list of lists": lambda: notebook(
        [*[code_cell(s.splitlines(True)) for s in ALL], code_cell([[1], None])]
    ),
    "cells that are none": lambda: notebook([*ALL, code_cell(""), code_cell(None), code_cell({"a": 1})]),
    "a cell of another language": lambda: notebook([*ALL, "%%bash\nrm -rf /\n", "%%html\n<script>1</script>"]),
    "magics that would act": lambda: notebook([*ALL, "!rm -rf /\n%run /etc/passwd\n%load_ext autoreload\n"]),
    "a name of another script": lambda: notebook([*ALL, "dоuble = lambda x: 3 * x"]),  # a Cyrillic o
    "halves of characters": lambda: notebook([*ALL, "mark = '\ud800'"]),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_changed_around_the_code_decides_nothing(classroom: Classroom, what: str) -> None:
    classroom.attack(HARMLESS[what]())


def test_copies_are_told(classroom: Classroom) -> None:
    wrong = HONEST["double"].replace("x + x", "3 * x")
    report = classroom.attack(notebook([*ALL, wrong]), lost=["double"])
    assert "double is defined in 2 cells (1, 5); the last one counts." in report.told


LOSSES: dict[str, tuple[Callable[[], bytes], tuple[str, ...], str]] = {
    "a deleted cell": (lambda: notebook(ALL[1:]), ("double",), "double is not defined"),
    "a renamed function": (
        lambda: notebook([ALL[0].replace("def double", "def Double"), *ALL[1:]]),
        ("double",),
        "double is not defined",
    ),
    "a cell re-typed as text": (
        lambda: notebook([code_cell(ALL[0], cell_type="markdown"), *ALL[1:]]),
        ("double",),
        "holds code but is not a code cell; it was not run",
    ),
    "a cell re-typed as nothing": (
        lambda: notebook([code_cell(ALL[0], cell_type=None), *ALL[1:]]),
        ("double",),
        "double is not defined",
    ),
    "null bytes": (lambda: notebook([ALL[0] + "\0", *ALL[1:]]), ("double",), "null bytes"),
    "a syntax error": (lambda: notebook(["def double(x:\n    return 2\n", *ALL[1:]]), ("double",), "SyntaxError"),
    "a cell of a million characters": (
        lambda: notebook([ALL[0] + "#" * 1_000_000, *ALL[1:]]),
        ("double",),
        "characters; it was not run",
    ),
    "100,000 cells before": (lambda: notebook([*["x = 1"] * 100_000, *ALL]), NOTHING, "only the first 5000 were read"),
    "an empty file": (lambda: b"", NOTHING, "not valid JSON"),
    "no JSON": (lambda: b"{ not JSON", NOTHING, "not valid JSON"),
    "half a notebook": (lambda: notebook(ALL)[:-40], NOTHING, "not valid JSON"),
    "two notebooks": (lambda: notebook(ALL) * 2, NOTHING, "not valid JSON"),
    "another encoding": (lambda: notebook(ALL).decode().encode("utf-16"), NOTHING, "not UTF-8"),
    "null bytes only": (lambda: bytes(1000), NOTHING, "not valid JSON"),
    "a zip file": (lambda: b"PK\x03\x04" + bytes(100), NOTHING, "JSON"),
    "a pickle": (lambda: b"\x80\x04\x95", NOTHING, "not UTF-8"),
    "a list": (lambda: json.dumps(ALL).encode(), NOTHING, "not a notebook"),
    "deep JSON": (lambda: b"[" * 900_000, NOTHING, "not valid JSON"),
    "a long number": (lambda: b'{"cells": ' + b"9" * 1_000_000 + b"}", NOTHING, "not valid JSON"),
    "40 MiB": (lambda: notebook([*ALL, "#" * (40 << 20)]), NOTHING, "40 MiB, more than 32"),
    "cells as an object": (lambda: b'{"cells": {"0": 1}}', NOTHING, "no list of cells"),
}


@pytest.mark.parametrize("what", LOSSES)
def test_what_is_not_there_earns_nothing_and_it_is_told(classroom: Classroom, what: str) -> None:
    make, lost, says = LOSSES[what]
    classroom.attack(make(), lost=lost, says=says)
