"""One student's feedback page: summary, exercises, figures and answers in words, with nothing in it that could act.

It is made of the graded notebook and the gradebook's marks.  All that came from the student passes nh3; formulas
become MathML, so that no script is needed.  Nothing of torch is imported here: that takes longer than ten pages.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import nbformat
import nh3
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markupsafe import Markup, escape
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from autograder.atomic_write import atomic_write
from autograder.harmless import PICTURES, harmless_outputs, split_answer

TEMPLATES = Path(__file__).parent / "templates"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
MAX_FORMULA = 1_000  # characters
MAX_CODE = 50_000  # characters of an exercise that are shown
MATHML = {
    *("math", "mrow", "mi", "mo", "mn", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup"),
    *("munder", "mover", "munderover", "mmultiscripts", "mprescripts", "mtable", "mtr", "mtd", "mstyle", "mpadded"),
    *("mphantom", "menclose", "mfenced"),
}
WORDS = {
    *("p", "br", "hr", "em", "strong", "code", "pre", "blockquote", "ul", "ol", "li", "a", "s"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "div", "span"),
}
TABLE = {"svg", "rect", "text", "title"}  # what a criterion's picture is made of
SHAPES = {"x", "y", "width", "height", "fill", "stroke", "stroke-width"}
ATTRIBUTES: dict[str, set[str]] = {
    **{tag: {"class"} for tag in ("div", "span", "td", "th", "code", "strong")},
    "a": {"href", "title"},
    "math": {"display", "xmlns"},
    "svg": {"viewBox", "width", "height", "role", "aria-label"},
    "rect": SHAPES,
    "text": SHAPES,
    **{tag: {"mathvariant", "stretchy", "fence", "separator", "form"} for tag in ("mo", "mi", "mn", "mtext")},
    **{tag: {"displaystyle", "scriptlevel", "linethickness", "width", "columnalign"} for tag in ("mstyle", "mfrac")},
}


@dataclass(frozen=True)
class CellMark:
    """What the gradebook has of one cell.

    Attributes
    ----------
    name : str
        nbgrader's name of it.
    points, max_points : float
        Earned, a person's mark before the engine's; and to be earned, 0 for a bonus exercise.
    by_person, open : bool
        Whether a person marked it, and whether a person has to.
    """

    name: str
    points: float
    max_points: float
    by_person: bool
    open: bool


@dataclass(frozen=True)
class Marks:
    """What a page shows besides the notebook.

    Attributes
    ----------
    course : str
        Title of the course.
    name : str
        The student's, where it is known.
    cells : tuple of CellMark
        Exercises and written answers.
    comments : dict of str to str
        By exercise or question what a person, or else the engine, wrote to it.
    by_person : frozenset of str
        Whose comments are a person's.
    sentences : tuple of str
        On the mark as a whole: days late, the grade.
    """

    course: str = ""
    name: str = ""
    cells: tuple[CellMark, ...] = ()
    comments: dict[str, str] = field(default_factory=dict)
    by_person: frozenset[str] = frozenset()
    sentences: tuple[str, ...] = ()

    def state(self, notebook: Path) -> str:
        """Changes with the marks, the notebook, and what pages are made by."""
        stat = notebook.stat()
        made_by = "".join(p.read_text(encoding="utf-8") for p in _sources())
        known = {**asdict(self), "by_person": sorted(self.by_person)}
        return hashlib.sha256(f"{known}{stat.st_mtime_ns}{stat.st_size}{made_by}".encode()).hexdigest()[:20]


@cache
def _sources() -> tuple[Path, ...]:
    return Path(__file__), TEMPLATES / "feedback.html.j2", TEMPLATES / "page.css"


def page_state(page: Path) -> str:
    """The state of which a page was made; "" where there is none."""
    try:
        with page.open(encoding="utf-8") as file:
            found = re.search(r'data-state="(\w+)"', file.read(1000))
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


def make_page(notebook: Path, page: Path, student: str, marks: Marks) -> None:
    """Make one student's page; one that is there is replaced.

    Parameters
    ----------
    notebook : Path
        The graded notebook.
    page : Path
        What to write.
    student : str
        Whose it is.
    marks : Marks
        From the gradebook.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    known = {m.name: m for m in marks.cells}
    code: dict[str, str] = {}
    exercises, figures, answers = [], [], []
    for cell in cells:
        role, name = (cell.metadata.get("course", {}).get(k) for k in ("role", "name"))
        if role == "exercise":
            code[name] = cell.source
        elif role == "check":
            exercises.append(_exercise(name, cell, code.get(name, ""), known.get(f"check-{name}"), marks))
        elif role == "experiment":
            figures += _figures(name, cell)
        elif role == "written":
            answer, pictures = split_answer(cell.source, cell.get("attachments"))
            answers.append(
                {
                    "name": name,
                    "mark": known.get(name),
                    "answer": words(answer),
                    "pictures": pictures,
                    "comment": _comment(name, marks),
                }
            )
    counted = [m for m in marks.cells if m.max_points]
    text = _template().render(
        policy=POLICY,
        state=marks.state(notebook),
        css=Markup(_css()),
        title=_title(cells, page.stem),
        course=marks.course,
        student=student,
        name=marks.name,
        points=sum(m.points for m in counted),
        max_points=sum(m.max_points for m in counted),
        bonus=sum(m.points for m in marks.cells if not m.max_points),
        open=[m.name.removeprefix("check-") for m in marks.cells if m.open],
        sentences=marks.sentences,
        oddities=_oddities(cells),
        exercises=exercises,
        figures=figures,
        answers=answers,
    )
    atomic_write(page, text)


def _exercise(name: str, cell: Any, source: str, mark: CellMark | None, marks: Marks) -> dict[str, Any]:
    html = "".join(o.data["text/html"] for o in cell.get("outputs", []) if "text/html" in o.get("data", {}))
    table, end, after = clean(html, TABLE).partition("</table></div>")
    return {
        "name": name,
        "mark": mark,
        "table": Markup(table + end),
        "right": "verdict yes" in table and "verdict no" not in table and "verdict wait" not in table,
        "after": Markup(after),  # diagnosis, and what was carried forward
        "code": _code(source[:MAX_CODE]),
        "comment": _comment(name, marks) if name in marks.by_person else None,
    }


def _comment(name: str, marks: Marks) -> Markup | None:
    text = marks.comments.get(name)
    return words(text) if text else None


def _figures(name: str, cell: Any) -> list[dict[str, Any]]:
    """The saved pictures and texts of an experiment."""
    pictures, texts = [], []
    for output in harmless_outputs(cell.get("outputs")):
        data = output.get("data", {})
        kind = next((k for k in PICTURES if k in data), None)
        if kind:
            pictures.append(f"data:{kind};base64,{data[kind]}")
        elif output.get("text") or data.get("text/plain"):
            texts.append(output.get("text") or data["text/plain"])
    return [{"name": name, "pictures": pictures, "text": "\n".join(texts)}] if pictures or texts else []


def _oddities(cells: list[Any]) -> list[Markup]:
    result = next((c for c in cells if c.get("id") == "result"), None)
    lines = [line[2:] for line in result.source.splitlines() if line.startswith("- ")] if result else []
    return [words(line) for line in lines]


def _title(cells: list[Any], otherwise: str) -> str:
    lines = (
        line for c in cells if c.cell_type == "markdown" and c.get("id") != "result" for line in c.source.split("\n")
    )
    return next((line[2:].strip() for line in lines if line.startswith("# ")), otherwise)


def clean(html: str, also: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """HTML without anything that could act or be fetched."""
    return nh3.clean(
        html,
        tags=WORDS | MATHML | also,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )


@lru_cache(maxsize=1024)
def words(markdown: str) -> Markup:
    """A text in Markdown as HTML; its own HTML stays words, and formulas between dollars become MathML."""
    return Markup(clean(_markdown().render(markdown)))


@cache
def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    return made.use(dollarmath_plugin, allow_labels=False, renderer=_formula)


def _formula(tex: str, options: dict[str, Any]) -> str:
    if len(tex) <= MAX_FORMULA:
        try:
            return convert(tex, display="block" if options.get("display_mode") else "inline")
        except Exception:  # of whatever kind: what it cannot read is shown as it was written
            pass
    return f"<code>{escape(tex)}</code>"


def _code(source: str) -> Markup:
    return Markup(clean(highlight(source, PythonLexer(), HtmlFormatter(cssclass="code"))))


@cache
def _css() -> str:
    light, dark = (HtmlFormatter(style=s, cssclass="code").get_style_defs(".code") for s in ("default", "github-dark"))
    page = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    return f"{page}\n{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["points"] = lambda p: f"{p:g}"
    return environment.get_template("feedback.html.j2")
