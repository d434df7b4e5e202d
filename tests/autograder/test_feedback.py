"""Feedback pages: nbgrader's own, made faster, and harmless."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from autograder.assignment import load_assignment
from autograder.course import Course, create_course
from autograder.feedback import ENOUGH, make_feedback
from autograder.feedback_page import NO_DESCRIPTION, POLICY
from autograder.grade import released_notebook
from autograder.gradebook import open_gradebook
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


def test_pages_are_nbgraders_own_with_a_policy(course: Course) -> None:
    pages = make_feedback(course, NAME, workers=2)
    assert len(pages) == 2 * ENOUGH
    for student in ("student0", "student7"):
        ours = page(course, student).read_text()
        assert ours.count(POLICY) == 1 and "<script>alert" not in ours and f'alt="{NO_DESCRIPTION}"' in ours
        config = Config()
        config.HTMLExporter.exclude_input_prompt = True
        directory = CourseDirectory(
            config=config, root=str(course.folder), db_url=course.db_url, course_id=course.course_id
        )
        directory.assignment_id, directory.student_id = NAME, student
        GenerateFeedback(coursedir=directory, config=config, force=True).start()
        theirs = page(course, student).read_text()
        assert parsed(ours.replace(POLICY, "")) == parsed(theirs)
    make_feedback(course, NAME, force=True, workers=1)


def parsed(html: str) -> str:
    soup = BeautifulSoup(html, "html.parser")
    for picture in soup.select("img"):
        del picture["alt"]
    return str(soup)


def test_only_what_is_new_is_made_again(course: Course) -> None:
    make_feedback(course, NAME, workers=1)
    before = {p: p.stat().st_mtime_ns for p in make_feedback(course, NAME)}
    page(course, "student3").unlink()
    after = {p: p.stat().st_mtime_ns for p in make_feedback(course, NAME)}
    assert [p for p in before if before[p] != after[p]] == [page(course, "student3")]


def test_a_process_that_makes_pages_does_without_torch() -> None:
    program = "import sys, autograder.feedback_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
