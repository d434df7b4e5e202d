"""Every page: its links lead somewhere, the commands that it shows exist, and so does what it says of files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from autograder.cli import app as autograder
from autograder.published import PublishedNumber
from course_utils.cli import app as course

CHECKOUT = Path(__file__).parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
PROGRAMS: dict[str, Any] = {"autograder": typer.main.get_command(autograder), "course": typer.main.get_command(course)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    typed = [line for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    typed += re.findall(r"`((?:autograder|course) [a-z]+[^`\n']*)`", text)
    for line in typed:
        for part in line.split("&&"):
            words = part.partition("#")[0].split()
            if words and words[0] in PROGRAMS and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
                command, rest = PROGRAMS[words[0]], words[1:]
                while hasattr(command, "commands"):  # one of several, such as `peer assign`
                    assert rest and rest[0] in command.commands, f"{page.name}: there is no `{part.strip()}`"
                    command, rest = command.commands[rest[0]], rest[1:]
                known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
                unknown = [w for w in rest if w.startswith("--") and w.partition("=")[0] not in known]
                assert unknown == [], f"{page.name}: {line}"


def test_the_published_number_that_ta_md_shows_is_one() -> None:
    text = (CHECKOUT / "docs" / "ta.md").read_text(encoding="utf-8")
    shown = re.search(r"^```toml\n(.*?)^```", text, re.M | re.S)
    assert shown is not None
    number = PublishedNumber.model_validate(tomllib.loads(shown[1])["number"][0])
    assert number.accepted == "≥ 38.46 %"
