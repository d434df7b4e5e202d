"""Chooses what of a notebook belongs into its report: headings, outputs of experiments, answers, and own notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from course_utils.handed_out import outputs_of, role_of, source_of

MAX_TEXT = 20_000  # characters of one printed output
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.*?)[ \t#]*$")
_FENCE = re.compile(r"^[ \t]*(```|~~~)")
_NOT_OURS = ("Exercise ", "Written ")  # a heading above something that a report leaves out


def title_of(cells: Sequence[dict[str, Any]], otherwise: str) -> str:
    """The notebook's first heading."""
    for cell in cells:
        for level, heading in _headings(cell):
            if level == 1:
                return heading
    return otherwise


def contents(cells: Sequence[dict[str, Any]]) -> list[NotebookNode]:
    """The cells of the report, as a notebook has them.

    Kept are what experiments, and code cells of the student's own, show; the written questions with their answers;
    the student's own text; and of the assignment's text the headings above any of these.  Code, exercises, checks,
    progress bars and warnings are left out.

    Parameters
    ----------
    cells : sequence of dict
        The notebook's cells as JSON has them.
    """
    found: list[NotebookNode] = []
    title = title_of(cells, "")
    above: list[tuple[int, str]] = []  # the headings that the cell stands under
    said: list[tuple[int, str]] = []  # those of them that are in the report already
    for cell in cells:
        role, name = role_of(cell)
        if role == "text":
            for level, heading in _headings(cell):
                above = [h for h in above if h[0] < level] + [(level, heading)]
            continue
        made = _made(cell, role, name)
        if made is None:
            continue
        for level, heading in above:
            if (level, heading) not in said and heading != title and not heading.startswith(_NOT_OURS):
                found.append(_markdown(f"{'#' * min(level + 1, 6)} {heading}", "heading"))
        said = list(above)
        found.append(made)
    return found


def _made(cell: dict[str, Any], role: str, name: str) -> NotebookNode | None:
    """What the report has of a cell that is no text of the assignment's; None where it has nothing."""
    if cell.get("cell_type") == "code":
        if role not in ("experiment", ""):
            return None
        outputs = [o for output in outputs_of(cell) if (o := _output(output, name)) is not None]
        outputs = _joined(outputs)
        if not outputs:
            return None
        metadata = {"report": {"what": "experiment" if role else "own", "name": name.replace("_", " ")}}
        return new_code_cell("", outputs=outputs, metadata=metadata)
    if cell.get("cell_type") == "markdown" and source_of(cell).strip():
        made = _markdown(source_of(cell), "answer" if role == "written" else "own")
        attachments = cell.get("attachments")
        if isinstance(attachments, dict):
            made.attachments = attachments
        return made
    return None


def _markdown(text: str, what: str) -> NotebookNode:
    return new_markdown_cell(text, metadata={"report": {"what": what}})


def _headings(cell: dict[str, Any]) -> list[tuple[int, str]]:
    """The level and the text of each heading in a Markdown cell."""
    if cell.get("cell_type") != "markdown":
        return []
    found, fenced = [], False
    for line in source_of(cell).splitlines():
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else _HEADING.match(line)
        if heading:
            found.append((len(heading.group(1)), heading.group(2)))
    return found


def _output(output: dict[str, Any], name: str) -> NotebookNode | None:
    kind = output.get("output_type")
    if kind == "stream":
        text = _text(output.get("text")) if output.get("name") != "stderr" else ""
        return new_output("stream", name="stdout", text=text) if text.strip() else None
    if kind == "error":
        return new_output("stream", name="stdout", text=f"(stopped with {_text(output.get('ename'))})\n")
    data = output.get("data")
    if kind not in ("display_data", "execute_result") or not isinstance(data, dict):
        return None
    if any(str(k).startswith("application/vnd.jupyter.widget") for k in data):
        return None  # a progress bar, as a rule
    kept = {k: _text(data[k]) for k in (*PICTURES, "text/html", "text/markdown", "text/latex") if k in data}
    if not kept and "text/plain" in data and not _text(data["text/plain"]).startswith("<"):  # no <Figure …>
        kept = {"text/plain": _text(data["text/plain"])}
    if not kept:
        return None
    if "text/latex" in kept:
        kept["text/markdown"] = kept.pop("text/latex")
    alternative = f"Figure of the experiment {name}" if name else "Figure"
    return new_output("display_data", data=kept, metadata={k: {"alt": alternative} for k in kept})


def _joined(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Printed pieces that follow one another as one, without the lines that a progress bar wrote over."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in output.text.split("\n")]
            output.text = "\n".join(lines).strip("\n")[:MAX_TEXT]
    return joined


def _text(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")
