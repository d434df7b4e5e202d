"""Feedback pages: what a student is told, and nothing that acts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from autograder.assignment import load_assignment
from autograder.course import Course, create_course
from autograder.feedback import ENOUGH, make_feedback
from autograder.feedback_page import POLICY, TABLE, clean, words
from autograder.grade import released_notebook
from autograder.gradebook import open_gradebook
from autograder.harmless import harmless_answer
from autograder.rebuild import rebuild
from autograder.record import answered, record
from autograder.submission import Submission

# nbgrader's own add_submission looks at objects that are not in its session yet
pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")
NAME = "tiny_doubling"
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
RESULT = {
    "score": 1.0,
    "max_score": 2.5,
    "bonus": 2.0,
    "isolation": "none",
    "oddities": ["Something <b>odd</b>."],
    "exercises": {
        "double": {"score": 1.0, "max_score": 2.5, "carried_forward": False, "diagnosis": ["The *sign* is <flipped>."]},
        "halve": {"score": 2.0, "max_score": 2.0, "carried_forward": True, "diagnosis": []},
    },
}


@pytest.fixture(scope="module")
def course(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A course in which enough students for two processes were graded, without a jail."""
    assignment = load_assignment(NAME, tiny_root)
    made = create_course(tmp_path_factory.mktemp("feedback") / "course", [assignment])
    released = released_notebook(assignment, made.folder)
    with open_gradebook(made.db_url, made.course_id) as gradebook:
        for k in range(2 * ENOUGH):
            submission = Submission(
                written={"why_double": f"Answer {k}: $x^{k}$ < <script>alert({k})</script>\n\n```python\nx = {k}\n```"},
                outputs={"growth": [{"output_type": "display_data", "data": {"image/png": PICTURE}}]},
                shown={"double": f"def double(x):\n    return {k} * x", "growth": "plt.show()"},
                spare=["%matplotlib inline\n" + "x = 1\n" * k],
            )
            notebook = rebuild(released, submission, RESULT, {"double": "<table><tr><td>table</td></tr></table>"})
            folder = made.folder / "autograded" / f"student{k}" / NAME
            folder.mkdir(parents=True)
            nbformat.write(notebook, folder / f"{NAME}.ipynb")
            record(gradebook, NAME, f"student{k}", RESULT, answered(notebook))
    return made


def page(course: Course, student: str) -> Path:
    return course.folder / "feedback" / student / NAME / f"{NAME}.html"


def parsed(course: Course, student: str) -> BeautifulSoup:
    return BeautifulSoup(page(course, student).read_text(), "html.parser")


def mark(course: Course, student: str, cell: str, points: float, comment: str = "") -> None:
    """What a person does in formgrader."""
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        grade = gradebook.find_grade(cell, NAME, NAME, student)
        grade.manual_score, grade.needs_manual_grade = points, False
        if comment:
            gradebook.find_comment(cell.removeprefix("check-"), NAME, NAME, student).manual_comment = comment
        gradebook.db.commit()


def test_a_page_shows_summary_exercises_answers_and_figures(course: Course) -> None:
    pages = make_feedback(course, NAME, title="DL 26", sentences={"student0": ["Grade E."]}, workers=2)
    assert len(pages) == 2 * ENOUGH
    shown = parsed(course, "student0")
    text = " ".join(shown.get_text(" ").split())
    assert "Feedback for student0 · DL 26" in text and "1 of 5.5 points, and 2 bonus" in text and "Grade E." in text
    assert "Not marked yet: why_double." in text and "Something <b>odd</b>." in text
    double, halve = shown.find(id="double"), shown.find(id="halve")
    assert "1 / 2.5" in double.get_text() and "The *sign* is <flipped>." in double.get_text()
    assert "return 0 * x" in double.find("details").get_text() and double.find("table").get_text() == "table"
    assert "2 bonus points" in halve.get_text() and "reference in place of an earlier exercise" in halve.get_text()
    picture = shown.find("img")
    assert picture["src"].startswith("data:image/png;base64,") and "growth" in picture["alt"]
    answer = shown.find(id="why_double")
    assert answer.find("math") is not None and answer.find("pre").get_text() == "x = 0\n"
    assert "<script>alert(0)</script>".replace("<", "< ") in answer.get_text() and not answer.find("script")


def test_nothing_in_a_page_acts_or_is_fetched(course: Course) -> None:
    make_feedback(course, NAME, workers=1)
    for student in ("student0", "student7"):
        shown = parsed(course, student)
        assert shown.find("meta", {"http-equiv": "Content-Security-Policy"})["content"] == POLICY
        assert not shown.select("script, iframe, object, embed, link, base, form")
        assert all(t["src"].startswith("data:image/") for t in shown.select("[src]"))
        assert all(t["href"].startswith("#") for t in shown.select("[href]"))
        assert not [t for t in shown.find_all(True) if any(a.startswith("on") for a in t.attrs)]
        assert "@import" not in str(shown) and "url(" not in str(shown)


def test_a_persons_mark_and_comment_are_shown_when_they_are_made(course: Course) -> None:
    make_feedback(course, NAME, workers=1)
    mark(course, "student2", "why_double", 2.5, "Good, but *why*? See [here](https://example.org).")
    mark(course, "student2", "check-double", 2.0, "Half right. <script>alert(1)</script>")
    before = {p: p.stat().st_mtime_ns for p in make_feedback(course, NAME, workers=1)}
    shown = parsed(course, "student2")
    text = " ".join(shown.get_text(" ").split())
    assert "4.5 of 5.5 points" in text and "Not marked yet" not in text
    assert "A person set these points." in shown.find(id="double").get_text()
    assert "<script>alert(1)</script>" in shown.find(id="double").find(class_="comment").get_text()
    comment = shown.find(id="why_double").find(class_="comment")
    assert comment.find("em").get_text() == "why" and comment.find("a")["rel"] == ["noopener", "noreferrer", "nofollow"]
    after = {p: p.stat().st_mtime_ns for p in make_feedback(course, NAME, workers=1)}
    assert before == after


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1)) ![b](http://x/y.png) <a href='data:text/html,x'>c</a>",
        r"$\href{javascript:alert(1)}{x}$ $\text{</math><script>alert(1)</script>}$ $$\class{x}{y}$$",
        "$" + "{" * 900 + "$",
        "$\\frac{1}{" + "x" * 2_000 + "}$",
        "```html\n<script>alert(1)</script>\n```",
        "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>",
        "[x]: javascript:alert(1)\n[x]",
        "| a | b |\n|---|---|\n| <b onclick=x> | $x$ |",
    ],
)
def test_words_of_a_student_stay_words(text: str) -> None:
    shown = BeautifulSoup(words(text), "html.parser")
    assert not shown.select("script, img, style, iframe, b")
    assert not [a for t in shown.find_all(True) for a in t.attrs if a.startswith("on") or a == "style"]
    assert all(t["href"].startswith(("http:", "https:", "mailto:")) for t in shown.select("[href]"))


def test_a_picture_in_an_answer_is_shown_below_it(course: Course) -> None:
    graded = course.folder / "autograded" / "student1" / NAME / f"{NAME}.ipynb"
    before = graded.read_text()
    notebook = nbformat.reads(before, as_version=4)
    (answer,) = (c for c in notebook.cells if c.metadata.get("course", {}).get("role") == "written")
    answer.source, answer.attachments = harmless_answer(
        "By hand: ![my page](attachment:page.png)",
        {"page.png": {"image/png": PICTURE}, "x.svg": {"image/svg+xml": "<svg/>"}},
    )
    graded.write_text(nbformat.writes(notebook))
    try:
        make_feedback(course, NAME, workers=1, force=True)
        shown = parsed(course, "student1").find(id="why_double")
        assert [t["src"] for t in shown.find_all("img")] == [f"data:image/png;base64,{PICTURE}"]
        assert "By hand: (picture 1, below)" in shown.get_text() and "attachment:" not in shown.get_text()
    finally:
        graded.write_text(before)


def test_formulas_are_set_without_a_script() -> None:
    shown = BeautifulSoup(words(r"Then $\frac{\partial L}{\partial W} = X^T(P-Y)$ holds."), "html.parser")
    assert shown.find("mfrac") is not None and "$" not in shown.get_text()
    assert BeautifulSoup(words("so a < b"), "html.parser").get_text().strip() == "so a < b"
    assert BeautifulSoup(words(r"$\frac{$"), "html.parser").get_text().strip() != ""


def test_a_picture_of_a_difference_survives_and_a_handler_in_it_does_not() -> None:
    made = clean(
        '<svg width="9" viewBox="0 0 9 9" onload="x()"><rect x="1" fill="#fff"><title>t</title></rect></svg>', TABLE
    )
    assert made == '<svg width="9" viewBox="0 0 9 9"><rect x="1" fill="#fff"><title>t</title></rect></svg>'


def test_only_what_is_new_is_made_again(course: Course) -> None:
    before = {p: p.stat().st_mtime_ns for p in make_feedback(course, NAME)}
    page(course, "student3").unlink()
    after = {p: p.stat().st_mtime_ns for p in make_feedback(course, NAME)}
    assert [p for p in before if before[p] != after[p]] == [page(course, "student3")]


def test_a_process_that_makes_pages_does_without_torch() -> None:
    program = "import sys, autograder.feedback_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
