"""The notebook that people see after grading: ours, with the student's work in it, and nothing that can act."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from autograder.assignment import load_assignment
from autograder.build import student_notebook
from autograder.rebuild import rebuild
from autograder.submission import Submission, read_notebook_bytes

EVIL = "<script>alert(1)</script>"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def released(tiny_root: Path) -> NotebookNode:
    return student_notebook(load_assignment("tiny_doubling", tiny_root))


def cells(notebook: NotebookNode, role: str) -> dict[str, NotebookNode]:
    return {c.metadata["course"]["name"]: c for c in notebook.cells if c.metadata.get("course", {}).get("role") == role}


def submission(released: NotebookNode, **changed: Any) -> Submission:
    """The released notebook with other sources (by cell name) and outputs of its experiment."""
    copy = json.loads(nbformat.writes(released))
    for cell in copy["cells"]:
        name = cell["metadata"].get("course", {}).get("name")
        role = cell["metadata"].get("course", {}).get("role")
        if name in changed and role in ("exercise", "written", "experiment"):
            cell["source"] = changed[name]
        if role == "experiment":
            cell["outputs"] = changed.get("outputs", [])
    for source in changed.get("spare", []):
        copy["cells"].append({"cell_type": "code", "source": source, "metadata": {}, "outputs": []})
    return read_notebook_bytes(json.dumps(copy).encode(), ("double", "halve"), {"growth": "x"})


def result(**more: Any) -> dict[str, Any]:
    exercise = {"score": 1.5, "max_score": 2.5, "carried_forward": True, "criteria": [], "diagnosis": [EVIL]}
    return {
        "assignment": "tiny_doubling",
        "score": 1.5,
        "max_score": 2.5,
        "bonus": 2.0,
        "isolation": "none",
        "exercises": {"double": exercise, "halve": {**exercise, "diagnosis": [], "carried_forward": False}},
        "oddities": [f"Cell 3 says {EVIL} and $x$ [a](javascript:alert(1))."],
        **more,
    }


def test_what_the_student_wrote_takes_its_place(released: NotebookNode) -> None:
    given = submission(released, double="def double(x):\n    return 3 * x", why_double="Because it *grows*.")
    notebook = rebuild(released, given)
    assert cells(notebook, "exercise")["double"].source == "def double(x):\n    return 3 * x"
    assert cells(notebook, "written")["why_double"].source == "Because it *grows*."
    assert [c.metadata for c in notebook.cells] == [c.metadata for c in released.cells]  # ours, unchanged
    nbformat.validate(notebook)


def answer_of(released: NotebookNode, cells_: list[dict[str, Any]]) -> str:
    """The rebuilt answer of a notebook with these cells."""
    data = json.dumps({"cells": cells_, "nbformat": 4}).encode()
    notebook = rebuild(released, read_notebook_bytes(data, ("double", "halve")))
    nbformat.validate(notebook)
    return str(cells(notebook, "written")["why_double"].source)


def as_cells(released: NotebookNode) -> list[dict[str, Any]]:
    return json.loads(nbformat.writes(released))["cells"]  # type: ignore[no-any-return]


def place_of_question(handed_in: list[dict[str, Any]]) -> int:
    return next(k for k, c in enumerate(handed_in) if c["metadata"].get("course", {}).get("role") == "written")


@pytest.mark.parametrize("kind", ["below", "two below", "split", "metadata gone", "id and metadata gone", "below code"])
def test_an_answer_is_found_wherever_it_stands(released: NotebookNode, kind: str) -> None:
    handed_in = as_cells(released)
    at = place_of_question(handed_in)
    text: dict[str, Any] = {"cell_type": "markdown", "source": "Because it grows.", "metadata": {}}
    if kind in ("below", "two below"):
        handed_in.insert(at + 1, text)
        if kind == "two below":
            handed_in.insert(at + 2, {**text, "source": "And grows."})
    elif kind == "split":
        handed_in.insert(at + 1, {**text, "metadata": handed_in[at]["metadata"]})
    elif kind == "below code":
        handed_in[at + 1 : at + 1] = [{"cell_type": "code", "source": "2 + 2", "metadata": {}, "outputs": []}, text]
    else:
        handed_in[at]["source"] += text["source"]
        for cell in handed_in:
            cell["metadata"] = {}
            if kind.startswith("id"):
                del cell["id"]
    if kind == "below code":  # under no question: shown at the end
        data = json.dumps({"cells": handed_in, "nbformat": 4}).encode()
        notebook = rebuild(released, read_notebook_bytes(data, ("double", "halve")))
        assert [c.source for c in notebook.cells if c.id == "added-0"] == ["Because it grows."]
        return
    answer = answer_of(released, handed_in)
    assert "Because it grows." in answer
    assert ("And grows." in answer) is (kind == "two below")


def test_a_picture_in_an_answer_is_kept_and_nothing_else(released: NotebookNode) -> None:
    handed_in = as_cells(released)
    question = handed_in[place_of_question(handed_in)]
    question["source"] = (
        "See ![page](attachment:my%20page.png)\n\n"
        "and [![x](attachment:my%20page.png)](javascript:alert(1)) ![y](attachment:no.svg)"
    )
    question["attachments"] = {
        "my page.png": {"image/png": PNG},
        "no.svg": {"image/svg+xml": EVIL},
        "unused.png": {"image/png": PNG},
    }
    data = json.dumps({"cells": handed_in, "nbformat": 4}).encode()
    notebook = rebuild(released, read_notebook_bytes(data, ("double", "halve")))
    nbformat.validate(notebook)
    answer = cells(notebook, "written")["why_double"]
    assert answer.attachments == {"picture-1.png": {"image/png": PNG}, "picture-2.png": {"image/png": PNG}}
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert page.count(f"data:image/png;base64,{PNG}") == 2
    assert "javascript:alert" not in page.replace("(javascript:alert(1))", "") and 'href="javascript' not in page
    assert EVIL not in page


@pytest.mark.parametrize(
    "attachments", [None, [], "x", {"a.png": None}, {"a.png": {"image/png": ["!!"]}}, {"a.png": 3}]
)
def test_attachments_that_are_none_do_no_harm(released: NotebookNode, attachments: Any) -> None:
    handed_in = as_cells(released)
    question = handed_in[place_of_question(handed_in)]
    question["source"], question["attachments"] = "![a](attachment:a.png)", attachments
    assert "no PNG or JPEG" in answer_of(released, handed_in)


def test_our_own_text_is_no_answer(released: NotebookNode) -> None:
    handed_in = as_cells(released)
    for change in ({}, {"metadata": {}}):
        notebook = rebuild(
            released,
            read_notebook_bytes(
                json.dumps({"cells": [{**c, **change} for c in handed_in], "nbformat": 4}).encode(), ("double", "halve")
            ),
        )
        assert not any(c.id.startswith("added") for c in notebook.cells)
        assert cells(notebook, "written")["why_double"].source == cells(released, "written")["why_double"].source


def test_what_stands_below_a_question_is_harmless_too(released: NotebookNode) -> None:
    handed_in = as_cells(released)
    evil = {"cell_type": "markdown", "source": EVIL, "metadata": {}}
    handed_in.insert(place_of_question(handed_in) + 1, evil)
    assert "<script" not in answer_of(released, [*handed_in, evil])


def test_a_notebook_without_anything_is_rebuilt_too(released: NotebookNode) -> None:
    notebook = rebuild(released, Submission(), result(), {})
    assert "does not define double" in cells(notebook, "exercise")["double"].source
    assert "not in the notebook" in cells(notebook, "experiment")["growth"].source
    assert cells(notebook, "written")["why_double"].source == cells(released, "written")["why_double"].source
    nbformat.validate(notebook)


def test_two_exercises_in_one_cell_are_shown_once(released: NotebookNode) -> None:
    both = "def double(x): ...\ndef halve(x): ..."
    notebook = rebuild(released, submission(released, double=both, halve="pass"))
    assert cells(notebook, "exercise")["double"].source == both
    assert cells(notebook, "exercise")["halve"].source == "# halve is defined in the cell of double."


def test_results_stand_below_the_checks_and_on_top(released: NotebookNode) -> None:
    notebook = rebuild(released, submission(released), result(), {"double": "<table>the table</table>"})
    check = cells(notebook, "check")["double"]
    assert "<table>the table</table>" in check.outputs[0].data["text/html"]
    assert "&lt;script&gt;" in check.outputs[0].data["text/html"] and EVIL not in check.outputs[0].data["text/html"]
    assert "with the reference in place of an earlier exercise" in check.outputs[0].data["text/html"]
    assert "1.5" in nbformat.writes(check if False else notebook)
    top = notebook.cells[0].source
    assert "**1.5 of 2.5 points** and **2 bonus points**" in top and "Isolation while grading: none" in top
    assert "<script>" not in top
    nbformat.validate(notebook)


def test_nothing_in_it_can_act(released: NotebookNode) -> None:
    html_output = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"text/html": EVIL, "image/png": PNG, "image/svg+xml": "<svg onload='alert(1)'/>"},
    }
    given = submission(
        released,
        double=f"# {EVIL}\ndef double(x): ...",
        why_double=f"{EVIL} [x](javascript:alert(1)) ![x](http://evil/x.png) $a<b$",
        outputs=[html_output, {"output_type": "stream", "name": "stdout", "text": EVIL + "\x1b[31m"}],
        spare=[f"print('{EVIL}')", "x = '\ud800'"],
    )
    notebook = rebuild(released, given, result(), {})
    page, _ = HTMLExporter().from_notebook_node(notebook)
    body = page[page.index("<body") :]
    assert EVIL not in body and "javascript:alert" not in body.replace("(javascript:alert", "")
    assert 'href="javascript' not in body and "<svg" not in body and 'src="http://evil' not in body
    assert f'src="data:image/png;base64,{PNG}' in body.replace("\n", "")
    assert "&lt;script&gt;" in body
    nbformat.writes(notebook).encode()
    nbformat.validate(notebook)


def test_many_spare_cells_are_cut(released: NotebookNode) -> None:
    given = submission(released, spare=[f"x = {k}" for k in range(300)])
    notebook = rebuild(released, given)
    assert len(notebook.cells) == len(released.cells) + 1 + 100
    assert notebook.cells[-1].source == "x = 99"


def test_no_cell_makes_a_page_of_it_slow(released: NotebookNode) -> None:
    """Blank lines by the ten thousand would keep formgrader from answering anybody for minutes."""
    blank = "def double(x):\n    return 2 * x\n" + " \n" * 40_000 + "y = 1"
    made = rebuild(
        released, submission(released, double=blank, growth=blank, why_double=blank, spare=[f"z = 1\n{blank[40:]}"])
    )
    assert max(len(c.source.splitlines()) for c in made.cells) < 60
    assert "return 2 * x" in cells(made, "exercise")["double"].source


def test_a_flood_of_text_is_cut_and_said(released: NotebookNode) -> None:
    for count, size in ((300, 10), (30, 20_000)):
        flood = Submission(texts=[(None, f"text {k} " + "x" * size) for k in range(count)])
        sources = [c.source for c in rebuild(released, flood).cells]
        shown = sum(s.startswith("text ") for s in sources)
        assert 5 <= shown < count
        assert f"({count - shown} more text cells are in the notebook as it was handed in.)" in sources


def test_the_released_notebook_is_left_as_it_is(released: NotebookNode) -> None:
    before = nbformat.writes(released)
    rebuild(released, submission(released, double="def double(x): ..."), result(), {})
    assert nbformat.writes(released) == before
