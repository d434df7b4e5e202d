"""A class of hostile students through `autograder grade` and feedback: what a browser and a gradebook get."""

from __future__ import annotations

import html.parser
import os
import re
from pathlib import Path

import pytest
from classroom import (
    CANARIES,
    DAEMON_NAME,
    HONEST,
    NAME,
    POINTS,
    QUICK,
    below,
    code_cell,
    named,
    notebook,
    write_attacked_assignment,
)

from autograder.assignment import load_assignment
from autograder.collect import collect
from autograder.course import Course, create_course
from autograder.feedback import make_feedback
from autograder.grade import Graded, grade
from autograder.gradebook import open_gradebook
from autograder.secret import course_secret
from autograder.workers import Settings

EVIL = "<script>evil()</script><img src=x onerror=evil()><svg onload=evil()>"
LINKS = "[a](javascript:evil()) [b](data:text/html,evil) <a href='javascript:evil()'>c</a>"
TEX = r"$\href{javascript:evil()}{x}$ \(\style{background:url(//evil)}{x}\) $\require{html}\cssId{evil}{x}$"
ANSI = "\x1b[2J\x1b]0;evil\x07\x1b]8;;javascript:evil()\x07x\x1b]8;;\x07\u202e\u2066"
ALL = EVIL + LINKS + TEX + ANSI


def words(text: str, **more: object) -> dict[str, object]:
    """A written answer."""
    return {"cell_type": "markdown", "source": text, "metadata": {"course": {"role": "written", "name": "why_double"}}}


def outputs(text: str) -> list[dict[str, object]]:
    """Saved outputs of every kind with a text in them."""
    kinds = ("text/html", "image/svg+xml", "application/javascript", "text/latex", "text/markdown", "text/plain")
    data = {kind: text for kind in kinds} | {"application/vnd.jupyter.widget-view+json": {"model_id": text}}
    return [
        {"output_type": "display_data", "data": data, "metadata": {"text/html": {"isolated": False}}},
        {"output_type": "update_display_data", "data": data, "transient": {"display_id": text}},
        {"output_type": "stream", "name": text, "text": [text] * 10},
        {"output_type": "error", "ename": text, "evalue": text, "traceback": [text]},
        {"output_type": text},
    ]


GROWTH = {"metadata": {"course": {"role": "experiment", "name": "growth"}}}
CLASS = {
    "answers": notebook([*HONEST.values(), words(ALL)]),
    "outputs": notebook([*HONEST.values(), code_cell(f"# {ALL}", **GROWTH, outputs=outputs(ALL))]),
    "errors": notebook([*(HONEST | {"double": f"def double(x):\n    raise ValueError({ALL!r})\n"}).values()]),
    "warns": notebook(
        [
            *(
                HONEST | {"double": f"import warnings\ndef double(x):\n    warnings.warn({ALL!r})\n    return 0 * x\n"}
            ).values()
        ]
    ),
    "types": notebook(
        [*(HONEST | {"double": f"def double(x):\n    return type({ALL!r}.replace('\\0', ''), (), {{}})()\n"}).values()]
    ),
    "cells": notebook([*(HONEST | {"double": f"raise ValueError({ALL!r})\ndef double(x):\n    return x\n"}).values()]),
    "spare": notebook([*HONEST.values(), f"text = {ALL!r}\nprint(text)  # {ALL}"]),
    "source": notebook([*(HONEST | {"double": f"# {ALL}\n{HONEST['double']}"}).values()]),
    "markdown": notebook([*HONEST.values(), words("[" * 9_000 + "](x)" + "*_`" * 2_000 + "> " * 500 + "- " * 500)]),
    "broken": b"{",
    "ends": notebook([*(HONEST | {"double": "import os\nos._exit(0)\ndef double(x):\n    return 2 * x\n"}).values()]),
    "daemon": notebook(
        [*(HONEST | {"double": "import os, time\nos.fork() or time.sleep(1000)\n" + HONEST["double"]}).values()]
    ),
    "zhonest": notebook([*HONEST.values(), words(f"Because. {CANARIES['another submission']}")]),
}
LOST = {
    **{student: {"double"} for student in ("errors", "warns", "types", "cells")},
    "broken": set(POINTS),
}


class Page(html.parser.HTMLParser):
    """What of a page could act: scripts, handlers, targets of links, frames."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.acting: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "base", "form", "link", "meta"):
            self.acting.add(f"<{tag} {sorted(attrs, key=str)}>")
        for name, value in attrs:
            target = (value or "").strip().lower()
            if name.startswith("on") or (
                name in ("href", "src", "action", "xlink:href") and ":" in target.split("/")[0]
            ):
                self.acting.add(f"{tag} {name}={target[:200]}")


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course, with everybody's notebooks collected."""
    folder = tmp_path_factory.mktemp("class")
    root = write_attacked_assignment(folder / "checkout")
    made = create_course(folder / "course", [load_assignment(NAME, root)])
    (folder / "in").mkdir()
    for student, data in CLASS.items():
        (folder / "in" / f"{student}.ipynb").write_bytes(data)
    assert collect([folder / "in"], NAME, made.folder).students == sorted(CLASS)
    return made


@pytest.fixture(scope="module")
def graded(course: Course) -> Graded:
    """Everybody graded, by two workers."""
    root = course.folder.parent / "checkout"
    settings = Settings(NAME, root, course_secret(course.folder), time_limits=QUICK)
    return grade(load_assignment(NAME, root), course.folder, settings, course.db_url, workers=2)


@pytest.fixture(scope="module")
def pages(course: Course, graded: Graded) -> dict[str, str]:
    """Everybody's feedback page."""
    return {p.parts[-3]: p.read_text(errors="strict") for p in make_feedback(course, NAME, workers=1)}


def test_everybody_gets_what_they_earned(course: Course, graded: Graded) -> None:
    assert not graded.failed
    expected = {s: {e: 0.0 if e in LOST.get(s, set()) else p for e, p in POINTS.items()} for s in CLASS}
    assert {s: {n: e["score"] for n, e in r["exercises"].items()} for s, r in graded.results.items()} == expected
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        for student in CLASS:
            marks = gradebook.find_submission_notebook(NAME, NAME, student).grades
            assert {
                g.name.removeprefix("check-"): g.auto_score for g in marks if g.name.startswith("check-")
            } == expected[student]
    assert named(DAEMON_NAME) == set() and not below_here()


def below_here() -> set[int]:
    """Jails that run below this process though nobody uses them any more."""
    jails = {p for p in below(os.getpid()) if Path(f"/proc/{p}/comm").read_text().strip() == "bwrap"}
    return {p for p in jails if b"class" in Path(f"/proc/{p}/cmdline").read_bytes()}


def test_no_page_acts_more_than_the_honest_one(pages: dict[str, str]) -> None:
    assert set(pages) == set(CLASS)
    honest = Page(pages["zhonest"]).acting
    assert all(acting.startswith("<meta") for acting in honest)
    for student, page in pages.items():
        assert Page(page).acting <= honest, student
        set_as_mathematics = re.sub(r"<pre.*?</pre>", "", page, flags=re.S)
        for command in (r"\href", r"\style", r"\require", r"\cssId"):
            assert f"{command}{{" not in set_as_mathematics, student
        assert "\x1b" not in page and "\u202e" not in page
        assert "Content-Security-Policy" in page


def test_the_notebooks_that_staff_open_hold_nothing_that_acts(course: Course, graded: Graded) -> None:
    for student in CLASS:
        text = (course.folder / "autograded" / student / NAME / f"{NAME}.ipynb").read_text()
        for word in ("application/javascript", "image/svg+xml", "text/latex", "widget-view", "update_display_data"):
            assert word not in text, student
        assert "\\u001b" not in text and "\u202e" not in text


def test_nobody_gets_anything_of_the_criteria_or_of_others(
    course: Course, graded: Graded, pages: dict[str, str]
) -> None:
    for student in set(CLASS) - {"zhonest"}:
        own = [course.folder / "autograded" / student, course.folder / "results" / NAME / f"{student}.json"]
        files = [p for o in own for p in ([o] if o.is_file() else o.rglob("*")) if p.is_file()]
        text = pages[student] + "".join(p.read_text() for p in files)
        for where, canary in CANARIES.items():
            assert canary not in text, f"{where} to {student}"
        assert str(course.folder) not in text


def test_odd_things_are_told_as_they_are(graded: Graded, pages: dict[str, str]) -> None:
    told = {s: " ".join(r["oddities"]) for s, r in graded.results.items()}
    assert "not valid JSON" in told["broken"]
    assert "ended the process" in told["ends"]
    assert "raised ValueError" in told["cells"]
    assert told["zhonest"] == told["spare"] == told["answers"] == ""
    assert "raised ValueError" in pages["errors"]
