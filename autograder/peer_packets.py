"""Makes the packets of a round: for each reviewer a folder with anonymous reports and the form to fill in."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

from autograder.atomic_write import atomic_folder, atomic_write
from autograder.bounded import Overrun, bounded
from autograder.course_settings import CourseSettings
from autograder.harmless import harmless_markdown, harmless_outputs
from autograder.peer_form import FORM, empty_form
from autograder.peer_round import Round, code, round_folder
from autograder.roster import Person
from autograder.submission import Unreadable, file_bytes
from course_utils.handed_out import source_of
from course_utils.notebook_code import MAX_CELLS, MAX_PARTS
from course_utils.report.contents import contents
from course_utils.report.page import report_page

SECONDS, MEMORY = 60.0, 1 << 30  # for making one report of a notebook that nobody has read
MAX_MARKDOWN = 50_000  # characters of one cell
AUTHOR = "[author]"


def submissions(course: Path, assignment: str) -> dict[str, Path]:
    """The notebook of everybody who handed in."""
    found = sorted((course / "submitted").glob(f"*/{assignment}/{assignment}.ipynb"))
    return {path.parts[-3]: path for path in found}


def kept_report(course: Path, assignment: str, notebook: Path, title: str, code: str, author: Person) -> str:
    """An author's anonymous report; the one that was given out first stays, whatever is handed in later.

    Raises
    ------
    Unreadable
        As `anonymous_report`.
    """
    path = round_folder(course, assignment) / "reports" / f"{author.student}.html"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    report = anonymous_report(notebook, title, code, author)
    atomic_write(path, report)
    return report


def anonymous_report(notebook: Path, title: str, code: str, author: Person) -> str:
    """The report of a notebook without its author's name, made harmless for those who read it.

    Raises
    ------
    Unreadable
        Where the notebook cannot be read, or shows nothing to review.
    """
    data = file_bytes(notebook)
    try:
        with bounded(time.monotonic() + SECONDS, MEMORY):
            return _report(data, title, code, author)
    except (Overrun, MemoryError):
        raise Unreadable("Making the report takes more time or memory than any needs.") from None
    except RecursionError:
        raise Unreadable("The notebook is nested too deep to be read.") from None


def _report(data: bytes, title: str, code: str, author: Person) -> str:
    if data.count(b"{") + data.count(b"[") > MAX_PARTS:
        raise Unreadable(f"The notebook has more than {MAX_PARTS} parts.")
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except ValueError:
        raise Unreadable("The notebook is not valid JSON.") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("The file is no notebook.")
    hide = _hider(author)
    harmless = [_harmless(cell, hide) for cell in cells[:MAX_CELLS] if isinstance(cell, dict)]
    found = contents(harmless)
    if not any(c.metadata.report.what != "heading" for c in found):
        raise Unreadable("The notebook shows nothing to review.")
    return report_page(found, title, f"Report {code}", escape=True)


def _harmless(cell: dict[str, Any], hide: re.Pattern[str] | None) -> dict[str, Any]:
    """A cell of which a report may show everything: pictures and plain text, and no name."""

    def without_name(text: str) -> str:
        return hide.sub(AUTHOR, normalize("NFC", text)) if hide else text  # å may be one character or two

    kept: dict[str, Any] = {"cell_type": cell.get("cell_type"), "metadata": {}}
    metadata = cell.get("metadata")
    course = metadata.get("course") if isinstance(metadata, dict) else None
    if isinstance(course, dict):
        kept["metadata"] = {"course": {k: str(course.get(k))[:100] for k in ("role", "name")}}
    if cell.get("cell_type") == "code":
        kept["outputs"] = harmless_outputs(cell.get("outputs"))
        for output in kept["outputs"]:
            if "text" in output:
                output["text"] = without_name(output["text"])
            if "text/plain" in output.get("data", {}):
                output["data"]["text/plain"] = without_name(output["data"]["text/plain"])
    elif cell.get("cell_type") == "markdown":
        kept["source"] = harmless_markdown(without_name(source_of(cell)[:MAX_MARKDOWN]))
    return kept


def _hider(author: Person) -> re.Pattern[str] | None:
    """Finds an author's name, id and address; single words of a name only where they are written with a capital."""
    name = normalize("NFC", author.name)
    whole = [t for t in (author.student, name, author.email, author.login, author.sis_id) if len(t) > 2]
    words = [w for w in re.findall(r"\w+", name) if len(w) > 2]
    parts = [f"(?i:{re.escape(t)})" for t in sorted(set(whole), key=len, reverse=True)]
    parts += [re.escape(w) for w in {w.capitalize() for w in words} | {w.upper() for w in words}]
    return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)") if parts else None


def write_packets(
    course: Path,
    made: Round,
    reports: dict[str, str],
    reviewers: Iterable[str],
    title: str,
    secret: str,
    settings: CourseSettings,
) -> list[Path]:
    """Write the packets that are not there as they should be; returns their folders.

    Parameters
    ----------
    course : Path
        The course folder.
    made : Round
        Who reviews whom.
    reports : dict of str to str
        Every author's report.
    reviewers : iterable of str
        Whose packets.
    title : str
        Of the assignment.
    secret : str
        The course's.
    settings : CourseSettings
        Its time zone.
    """
    written = []
    due = made.due.astimezone(settings.zone).strftime("%A, %d %B %Y, %H:%M %Z")
    for reviewer in reviewers:
        codes = {author: code(secret, made.assignment, "report", author) for author in made.pairs[reviewer]}
        files = {f"report_{codes[author]}.html": reports[author] for author in codes}
        packet = code(secret, made.assignment, "packet", reviewer)
        files[FORM] = empty_form(title, packet, sorted(codes.values()), made.questions, due)
        folder = round_folder(course, made.assignment) / "packets" / reviewer
        if _holds(folder, files):
            continue
        with atomic_folder(folder) as temporary:
            for name, text in files.items():
                (temporary / name).write_text(text, encoding="utf-8")
        written.append(folder)
    return written


def _holds(folder: Path, files: dict[str, str]) -> bool:
    there: Sequence[Path] = sorted(folder.iterdir()) if folder.is_dir() else []
    return {p.name for p in there} == set(files) and all(p.read_text(encoding="utf-8") == files[p.name] for p in there)
