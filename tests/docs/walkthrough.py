"""A page of documentation that is worked through: what it says to write is written, what it says to type is typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
AT_THE_END = re.compile(r"At the end of `([^`]+)`:$")
BEHIND = re.compile(r"In `([^`]+)`, behind the line `([^`]+)`:$")
NEW_FILE = re.compile(r"A new file `([^`]+)`:$")
WIDTH = 120


@dataclass(frozen=True)
class Step:
    """A command of the page with what the page shows of its output, and what it put out."""

    command: str
    shown: str
    got: str
    status: int


def work_through(page: Path, course: Path) -> Iterator[Step]:
    """Follow a page in a checkout: write its python and diff blocks where the sentence before says, type its sh blocks.

    Blocks that no such sentence precedes are examples and are left out.  A text block behind an sh block is its
    output.
    """
    text = page.read_text(encoding="utf-8")
    waiting: tuple[str, str, int] | None = None
    for block in BLOCK.finditer(text):
        kind, content = block[1], block[2]
        if waiting is not None:
            command, got, status = waiting
            yield Step(command, content if kind == "text" else "", got, status)
            waiting = None
        if kind in ("python", "diff"):
            # The formatter takes blank lines away from the beginning of a block of Python.
            content = re.sub(r"^\+", "", content, flags=re.MULTILINE) if kind == "diff" else "\n\n" + content
            _write(text[: block.start()].rstrip().split("\n\n")[-1].replace("\n", " "), content, course)
        elif kind == "sh":
            waiting = (content.strip(), *_typed(content.strip(), course))
    if waiting is not None:
        yield Step(waiting[0], "", *waiting[1:])


def _write(sentence: str, content: str, course: Path) -> None:
    if found := AT_THE_END.search(sentence):
        path = course / found[1]
        path.write_text(path.read_text(encoding="utf-8") + content, encoding="utf-8")
    elif found := BEHIND.search(sentence):
        path, line = course / found[1], found[2]
        before, there, after = path.read_text(encoding="utf-8").partition(f"\n{line}\n")
        assert there, f"{path} has no line {line!r}"
        path.write_text(before + there + content + after, encoding="utf-8")
    elif found := NEW_FILE.search(sentence):
        path = course / found[1]
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.lstrip(), encoding="utf-8")


def _typed(command: str, course: Path) -> tuple[str, int]:
    words = shlex.split(command)
    assert words[0] == "autograder"
    checkout = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "autograder.cli", *words[1:]],
        cwd=course,
        env={**os.environ, "PYTHONPATH": checkout, "COLUMNS": str(WIDTH)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + (done.stderr if done.returncode == 2 else ""), done.returncode


def missing(shown: str, got: str) -> list[str]:
    """The lines that a page shows and a command did not put out in that order; a line of "…" stands for any others."""
    lines = iter([line.rstrip() for line in got.splitlines()])
    lost = []
    for line in [line.rstrip() for line in shown.splitlines() if line.strip() not in ("", "…")]:
        wanted = line.lstrip("…")
        kept = list(lines)
        at = next((k for k, got_line in enumerate(kept) if got_line.endswith(wanted)), None)
        if at is None:
            lost.append(line)
            lines = iter(kept)
        else:
            lines = iter(kept[at + 1 :])
    return lost
