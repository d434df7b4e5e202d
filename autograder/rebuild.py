"""The notebook that staff and student see after grading: ours, with the student's work and the results in it.

It is made from the released notebook.  Of the submission it takes the exercises' code, the written answers (also those
in cells of their own under the question), the experiments with their pictures and text, and spare cells; nothing that
could act in a reader's browser.
"""

from __future__ import annotations

import copy
import html
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from autograder.harmless import harmless_answer, harmless_code, harmless_line, harmless_markdown, harmless_outputs
from autograder.submission import Submission
from course_utils.checking.display import STYLE

MAX_TEXTS = 100  # text cells of a student's own
MAX_ADDED = 200_000  # characters of all of them


def rebuild(
    released: NotebookNode,
    submission: Submission,
    result: dict[str, Any] | None = None,
    tables: dict[str, str] | None = None,
) -> NotebookNode:
    """Put a submission, and the results of judging it, into the released notebook.

    Parameters
    ----------
    released : NotebookNode
        The notebook as students get it.
    submission : Submission
        What the student handed in.
    result, tables : dict, optional
        The result as plain data, and each exercise's table as HTML; without them the checks stay empty.
    """
    notebook = copy.deepcopy(released)
    taken: dict[str, str] = {}
    below, elsewhere = _added_texts(released, submission)
    for cell in notebook.cells:
        role, name = (cell.metadata.get("course", {}).get(k) for k in ("role", "name"))
        if role == "exercise":
            cell.source = _exercise_source(submission, name, taken)
        elif role == "experiment":
            cell.source = harmless_code(
                submission.shown.get(name, "# This experiment is not in the notebook."), 200_000
            )
            cell.outputs = harmless_outputs(submission.outputs.get(name))
        elif role == "written":
            answers = [submission.written.get(name, cell.source), *below.get(name, [])]
            if answers != [cell.source]:
                cell.source, pictures = harmless_answer("\n\n".join(answers), submission.pictures.get(name))
                if pictures:
                    cell.attachments = pictures
        elif role == "check" and result is not None and name in result["exercises"]:
            cell.outputs = _check_outputs(result["exercises"][name], (tables or {}).get(name, ""))
    if result is not None:
        notebook.cells.insert(0, _summary(result))
    if elsewhere:
        notebook.cells.append(
            new_markdown_cell("## Other text in this notebook\n\nCells that answer no question.", id="added-texts")
        )
        notebook.cells += [
            new_markdown_cell(harmless_markdown(text), id=f"added-{k}") for k, text in enumerate(elsewhere)
        ]
    if submission.spare:
        notebook.cells.append(
            new_markdown_cell("## Other code in this notebook\n\nCells that define no exercise.", id="spare-cells")
        )
        for k, source in enumerate(submission.spare[:100]):
            notebook.cells.append(new_code_cell(harmless_code(source), id=f"spare-{k}"))
    return notebook


def _added_texts(released: NotebookNode, submission: Submission) -> tuple[dict[str, list[str]], list[str]]:
    """What a student wrote in text cells of their own: by the question that it belongs to, and the rest."""
    ours = {cell.source.strip() for cell in released.cells if cell.cell_type == "markdown"}
    questions = {
        cell.metadata.course.name: set(cell.source.splitlines())
        for cell in released.cells
        if cell.metadata.get("course", {}).get("role") == "written"
    }
    below: dict[str, list[str]] = {}
    elsewhere: list[str] = []
    added = [(question, text) for question, text in submission.texts if text.strip() not in ours]
    length = 0
    for number, (question, text) in enumerate(added):
        length += len(text)
        if number == MAX_TEXTS or length > MAX_ADDED:
            elsewhere.append(f"({len(added) - number} more text cells are in the notebook as it was handed in.)")
            break
        if question not in questions:  # a question's cell that lost its metadata still has some line of its own
            lines = set(text.splitlines())
            asked = (name for name in questions if lines & _own_lines(questions, name))
            question = next((name for name in asked if name not in submission.written), None)
        (elsewhere if question is None else below.setdefault(question, [])).append(text)
    return below, elsewhere


def _own_lines(questions: dict[str, set[str]], name: str) -> set[str]:
    """The lines that one question has and no other."""
    others = set().union(*(lines for other, lines in questions.items() if other != name))
    return {line for line in questions[name] - others if len(line) >= 15 and not line.startswith("*Written answer")}


def _exercise_source(submission: Submission, name: str, taken: dict[str, str]) -> str:
    if name not in submission.shown:
        return f"# The notebook does not define {name}."
    source = harmless_code(submission.shown[name], 200_000)
    if source in taken:
        return f"# {name} is defined in the cell of {taken[source]}."
    taken[source] = name
    return source


def _check_outputs(exercise: dict[str, Any], table: str) -> list[Any]:
    lines = "".join(f"<li>{html.escape(d)}</li>" for d in exercise["diagnosis"])
    diagnosis = f'<div class="course-check"><strong>What went wrong</strong><ul>{lines}</ul></div>' if lines else ""
    carried = (
        '<div class="course-check">Some points were earned with the reference in place of an earlier exercise '
        "of yours that is wrong: one mistake costs its points once.</div>"
        if exercise["carried_forward"]
        else ""
    )
    text = f"{exercise['score']:g} of {exercise['max_score']:g} points"
    return [new_output("display_data", data={"text/html": STYLE + table + diagnosis + carried, "text/plain": text})]


def _summary(result: dict[str, Any]) -> Any:
    bonus = f" and **{result['bonus']:g} bonus points**" if result["bonus"] else ""
    lines = [
        "# Result",
        "",
        f"**{result['score']:g} of {result['max_score']:g} points**{bonus} for the exercises; "
        "answers in words are marked by a person.",
    ]
    if result["oddities"]:
        lines += ["", "Noticed while reading and running this notebook:", ""]
        lines += [f"- {_escaped(o)}" for o in result["oddities"][:30]]
    lines += ["", f"Isolation while grading: {result['isolation']}."]
    return new_markdown_cell("\n".join(lines), id="result")


def _escaped(text: str) -> str:
    """Text as literal Markdown: no HTML, no links, no mathematics."""
    text = harmless_line(text, 500)
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|$~" else html.escape(c) for c in text)
