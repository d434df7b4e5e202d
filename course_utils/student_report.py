"""`course report`: the report of a saved notebook, as a page and as a PDF."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from course_utils.atomic_write import atomic_write
from course_utils.errors import InputError
from course_utils.handed_out import HandedOut, read_notebook
from course_utils.report.contents import contents, title_of
from course_utils.report.page import report_page
from course_utils.unfinished import unanswered, without_output


def write_report(assignment: HandedOut, author: str, folder: Path | None = None) -> tuple[Path, list[str]]:
    """Write the page; one of an earlier time is replaced in one step.

    Parameters
    ----------
    assignment : HandedOut
        Whose notebook.
    author : str
        Who stands above the report; nobody when empty.
    folder : Path, optional
        Where to write; the bundle's folder when not given.

    Returns
    -------
    Path
        The page.
    list of str
        What is missing in it, a sentence each.

    Raises
    ------
    InputError
        Where there is no notebook, nothing in it to report, or the page cannot be written.
    """
    _, cells = read_notebook(assignment.notebook)
    found = contents(cells)
    if not any(c.metadata.report.what in ("experiment", "own") for c in found):
        raise InputError(
            f"{assignment.notebook} shows nothing to report: run its experiments, save the notebook, and try again."
        )
    saved = datetime.fromtimestamp(assignment.notebook.stat().st_mtime).strftime("%d %B %Y, %H:%M")
    by = f"{author + ', n' if author else 'N'}otebook saved {saved}"
    page = (folder or assignment.home) / f"{assignment.name}_report.html"
    try:
        atomic_write(page, report_page(found, title_of(cells, assignment.name), by))
    except OSError as error:
        raise InputError(f"{page} cannot be written ({error.strerror}); name a folder with --output.") from None
    return page.resolve(), unanswered(cells) + without_output(cells)
