"""One student's feedback page, through nbgrader's own converter and template.

A process makes many pages, so what all pages share is done once: loading the template, and rendering the cells that
are the same in every student's notebook.  Nothing of torch is imported here: that takes longer than ten pages.
"""

from __future__ import annotations

import contextlib
import logging
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.filters.widgetsdatatypefilter import WidgetsDataTypeFilter
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbgrader.converters import GenerateFeedback
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from traitlets import Bool
from traitlets.config import Config

from autograder.atomic_write import atomic_write
from autograder.errors import CourseError

# nbgrader's page loads scripts from elsewhere for mathematics; a feedback page shows a student's work to others.
MATHJAX = "https://cdnjs.cloudflare.com"
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    f"style-src 'unsafe-inline' {MATHJAX}; font-src data: {MATHJAX}; script-src {MATHJAX} 'unsafe-eval'\">"
)
NO_DESCRIPTION = "A picture drawn by the code above"


def make_page(course: Path, db_url: str, course_id: str, assignment: str, student: str) -> None:
    """Make one student's page in ``course/feedback``; one that is there is replaced.

    Parameters
    ----------
    course : Path
        nbgrader's course folder.
    db_url, course_id : str
        Its gradebook.
    assignment, student : str
        Whose page.

    Raises
    ------
    CourseError
        When nbgrader fails.
    """
    converter = _converter(course, db_url, course_id)
    converter.coursedir.assignment_id, converter.coursedir.student_id = assignment, student
    try:
        converter.start()
    except NbGraderException as error:
        raise CourseError(f"nbgrader made no feedback for {student}: {error}") from None


@cache
def _converter(course: Path, db_url: str, course_id: str) -> PageConverter:
    log = logging.Logger("nbgrader", logging.CRITICAL)
    config = Config()
    config.GenerateFeedback.force = True
    config.HTMLExporter.exclude_input_prompt = True
    directory = CourseDirectory(config=config, root=str(course), db_url=db_url, course_id=course_id, log=log)
    return PageConverter(coursedir=directory, config=config, force=True, log=log)


class PageConverter(GenerateFeedback):
    """nbgrader's converter, with an exporter that stays and pages that run no script but the one for mathematics."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        self.exporter = PageExporter(parent=self, config=self.config)
        for preprocessor in (*self.preprocessors, Described):
            self.exporter.register_preprocessor(preprocessor)

    def start(self) -> None:
        """Convert the notebook of the course directory's student."""
        self.init_notebooks()
        with contextlib.chdir(self.coursedir.root):
            self.convert_notebooks()

    def write_single_notebook(self, output: str, resources: dict[str, Any]) -> None:
        """Write a page in one step, so that there is none without its policy."""
        names = resources["nbgrader"]
        folder = Path(self.coursedir.root, self._format_dest(names["assignment"], names["student"]))
        atomic_write(folder / f"{resources['unique_key']}.html", output.replace("<head>", "<head>" + POLICY, 1))


class Described(Preprocessor):
    """Gives every picture of an output a text for readers who do not see it."""

    enabled = Bool(True)

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Describe one cell's pictures."""
        for output in cell.get("outputs", []):
            for kind in ("image/png", "image/jpeg"):
                if kind in output.get("data", {}):
                    output.metadata.setdefault(kind, {}).setdefault("alt", NO_DESCRIPTION)
        return cell, resources


class PageExporter(HTMLExporter):
    """nbconvert's exporter without its last step, which parses the whole page again for attributes of other templates.

    What it renders of a cell is kept, for the next student has most cells as they were handed out.
    """

    def from_notebook_node(  # type: ignore[override]
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Convert a notebook."""
        resources = self._init_resources(resources)
        language = nb.metadata.get("language_info", {})
        lexer = language.get("pygments_lexer", language.get("name", "ipython3"))
        self.register_filter("highlight_code", lambda source, metadata=None: _highlighted(source, lexer))
        data_types = WidgetsDataTypeFilter(notebook_metadata=self._nb_metadata, parent=self, resources=resources)
        self.register_filter("filter_data_type", data_types)
        return super(HTMLExporter, self).from_notebook_node(nb, resources, **kw)

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        """HTML of a cell's Markdown, or of a comment's."""
        if context.get("cell", {}).get("attachments"):
            return super().markdown2html(context, source)
        return _rendered(source)


@lru_cache(maxsize=4096)
def _rendered(source: str) -> str:
    return MarkdownWithMath(renderer=IPythonRenderer(escape=False)).render(source)


@lru_cache(maxsize=4096)
def _highlighted(source: str, lexer: str) -> str:
    return Highlight2HTML(pygments_lexer=lexer)(source)
