"""Sets a report as one self-contained page, through nbconvert."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from course_utils.report.mathematics import markdown_to_html

TEMPLATE = Path(__file__).with_name("template")


def report_page(cells: list[NotebookNode], title: str, by: str, *, escape: bool = False) -> str:
    """The page of a report: no script runs in it, and it fetches nothing.

    Parameters
    ----------
    cells : list of NotebookNode
        What it shows (`course_utils.report.contents`).
    title, by : str
        What stands above it.
    escape : bool
        Show tags in Markdown as they were written, for reports of people whom the reader does not know.
    """
    exporter = _Exporter(
        escape, template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)], embed_images=False
    )
    page, _ = exporter.from_notebook_node(new_notebook(cells=cells), {"report": {"title": title, "by": by}})
    return page


class _Exporter(HTMLExporter):
    """nbconvert's exporter with formulas as MathML."""

    def __init__(self, escape: bool, **kw: Any) -> None:
        super().__init__(**kw)
        self._escape = escape

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        """HTML of a cell's Markdown; pictures that were pasted into the cell become part of the page."""
        for name, pictures in (context.get("cell", {}).get("attachments") or {}).items():
            for kind, data in pictures.items() if isinstance(pictures, dict) else ():
                if kind in ("image/png", "image/jpeg") and isinstance(data, str):
                    pure = base64.b64encode(base64.b64decode(data)).decode()
                    source = source.replace(f"attachment:{name}", f"data:{kind};base64,{pure}")
        return markdown_to_html(source, escape=self._escape)
