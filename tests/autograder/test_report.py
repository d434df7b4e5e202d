"""The report on a class: its numbers, and a page that needs nothing else and does nothing."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from marked_class import result_of, write_result
from tiny_assignment import MISTAKES, NAME, write_tiny_assignment

from autograder.assignment import Assignment, load_assignment
from autograder.course import Course, create_course
from autograder.course_settings import CourseSettings
from autograder.errors import CourseError
from autograder.grade import released_notebook
from autograder.reaching import reaches
from autograder.rebuild import rebuild
from autograder.report import make_report
from autograder.submission import Submission

pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")
SQUARE = "The square is not the double."
assert SQUARE in MISTAKES


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    return load_assignment(NAME, write_tiny_assignment(tmp_path / "checkout"))


@pytest.fixture
def course(assignment: Assignment, tmp_path: Path) -> Course:
    """Six students: three all right, two with a known mistake, and one who wrote nothing and is odd."""
    made = create_course(tmp_path / "course", [assignment])
    released = released_notebook(assignment, made.folder)
    for k in range(6):
        student = f"s{k}"
        wrong = ("doubles_every_entry", "doubles_large_numbers") if k >= 3 else ()
        failed = (*wrong, "halves_every_entry") if k == 5 else wrong
        result = result_of(
            assignment,
            failed,
            {"double": [SQUARE]}
            if k in (3, 4)
            else {"double": ["A <script>alert(1)</script> cause."]}
            if k == 5
            else {},
            ["=cmd() & <img src=x onerror=alert(1)> happened."] if k == 5 else [],
        )
        write_result(made, assignment, student, result, seconds=0.1 * (k + 1))
        extra = "\n    y = x\n    y = y" * k
        code = f"def double(x):\n    # mine{extra}\n    return x + x\n"
        shown = {} if k == 5 else {"double": code, "halve": "def halve(x):\n    import os\n    return x / 2\n"}
        spare = ["open('/etc/passwd')"] if k == 5 else []
        folder = made.folder / "autograded" / student / NAME
        folder.mkdir(parents=True)
        nbformat.write(rebuild(released, Submission(shown=shown, spare=spare), result), folder / f"{NAME}.ipynb")
    return made


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_numbers_are_those_of_the_class(course: Course, assignment: Assignment) -> None:
    made = make_report(assignment, course, CourseSettings())
    rows = {(r["exercise"], r["criterion"]): r for r in table(made.exercises)}
    double = rows["double", ""]
    assert (double["mean share"], double["all points"]) == ("0.5", "0.5")
    assert float(double["nothing written"]) == pytest.approx(1 / 6)
    assert float(double["lines of right ones"]) == 3  # 1, 3 and 5 lines without comment and signature
    assert float(double["seconds of right ones"]) == pytest.approx(0.2) and double["right ones"] == "3"
    assert double["discrimination"] == ""  # the only other exercise is a bonus
    # five of six have the bonus, and those with the most points among them: by hand from the two columns of points
    assert float(rows["halve", ""]["discrimination"]) == pytest.approx(5**-0.5)
    assert float(rows["halve", "halves_every_entry"]["mean share"]) == pytest.approx(5 / 6)
    mistakes = table(made.mistakes)
    assert [(m["mistake"], m["count"], m["students"]) for m in mistakes] == [("squares", "2", "s3 s4"), ("", "1", "s5")]


def test_the_page_is_whole_and_does_nothing(course: Course, assignment: Assignment) -> None:
    text = make_report(assignment, course, CourseSettings(title="DL <2026>")).page.read_text()
    page = BeautifulSoup(text, "html.parser")
    assert "default-src 'none'" in page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert not page.select("script, img, iframe, link, object") and "@import" not in text and "url(http" not in text
    assert not [t for t in page.find_all(True) if any(a.startswith("on") for a in t.attrs)]
    assert len(page.select("figure svg")) == 2 and "currentColor" in text and "#0101" not in text
    shown = page.get_text(" ", strip=True)
    assert "DL <2026>" in shown and "squares" in shown and SQUARE in shown
    assert "<script>alert(1)</script> cause." in shown and "happened." in shown  # as words
    assert "s0, s1, s2, s3, s4" not in shown.split("reaches for")[0] and "open()" in shown.split("reaches for")[1]


def test_the_same_class_gives_the_same_page(course: Course, assignment: Assignment) -> None:
    first = make_report(assignment, course, CourseSettings()).page.read_bytes()
    assert make_report(assignment, course, CourseSettings()).page.read_bytes() == first


def test_nothing_graded_is_one_sentence(assignment: Assignment, tmp_path: Path) -> None:
    course = create_course(tmp_path / "empty", [assignment])
    with pytest.raises(CourseError, match=r"Nothing of tiny_doubling is graded .* run `autograder grade` first"):
        make_report(assignment, course, CourseSettings())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os.path, torch\nfrom socket import socket", {"os.path", "socket"}),
        ("from course_utils.checking.expect import Expectation", {"course_utils.checking.expect"}),
        ("x.__class__.__subclasses__()\neval('1')", {"__class__", "__subclasses__", "eval()"}),
        ("def open_all(x):\n    return x.eval()", set()),
        ("def (", set()),
    ],
)
def test_what_code_reaches_for(source: str, found: set[str]) -> None:
    assert reaches(source) == found
