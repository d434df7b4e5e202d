"""A person marks in formgrader: the marks count, the totals follow, and no automatic grading takes them back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from formgrader_page import open_submission, type_score
from lab_process import start_lab
from playwright.sync_api import Browser, Page, expect

from autograder.assignment import load_assignment
from autograder.collect import collect
from autograder.course import Course, create_course
from autograder.gradebook import open_gradebook
from autograder.roster import kept_roster
from autograder.simulated_class import simulated_class

NAME, EXERCISE, QUESTION = "a1_linear_classifiers", "softmax", "scores_gradient"
ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
ACTING = 'Berg<script>window.acted = 1</script>, Anna<img src="x" onerror="window.acted = 1">'  # a name in Canvas


def grade(course: Course, *options: str) -> None:
    """`autograder grade` in a process of its own, as an instructor runs it."""
    command = [sys.executable, "-m", "autograder.cli", "grade", NAME, "--course", str(course.folder), "--workers", "1"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A course with two graded submissions: all right, and with a mistake; both with answers in words."""
    assignment = load_assignment(NAME, ROOT)
    made = create_course(tmp_path_factory.mktemp("formgrader") / "course", [assignment])
    students = simulated_class(assignment, 10)
    folder = made.folder / "handed_in"
    folder.mkdir()
    for name, student in (("anna", students[0]), ("ben", students[9])):
        (folder / f"{name}.ipynb").write_bytes(student.notebook)
    assert collect([folder], NAME, made.folder).students == ["anna", "ben"]
    roster = made.folder / "given.csv"
    roster.write_text(f'student,name\nanna,"{ACTING.replace(chr(34), 2 * chr(34))}"\nben,Ben Berg\n')
    kept_roster(made, roster, ZoneInfo("UTC"))
    grade(made)
    return made


@pytest.fixture(scope="module")
def formgrader(course: Course, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a formgrader for that course."""
    process, address = start_lab(course.folder, tmp_path_factory.mktemp("home"))
    yield address
    process.terminate()
    process.wait()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    opened = browser.new_page(viewport={"width": 1300, "height": 900})
    yield opened
    opened.close()


def marks(course: Course, cell: str) -> tuple[str, float | None, float | None, float]:
    """Anna's submission: its notebook's id, her automatic and manual mark of a cell, and her total."""
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        grade = gradebook.find_grade(cell, NAME, NAME, "anna")
        return grade.notebook.id, grade.auto_score, grade.manual_score, gradebook.find_submission(NAME, "anna").score


def test_a_name_with_a_tag_in_it_is_a_name(course: Course, formgrader: str, page: Page) -> None:
    notebook = marks(course, f"check-{EXERCISE}")[0]
    open_submission(page, formgrader, notebook)
    name = page.locator("a.name-shown")
    expect(name).to_contain_text("Berg")
    expect(name).to_contain_text("onerror")
    for place in ("manage_students", f"gradebook/{NAME}/{NAME}", f"manage_submissions/{NAME}"):
        assert not page.evaluate("window.acted")
        page.goto(f"{formgrader}/formgrader/{place}")
        page.wait_for_selector("tbody tr td")
    assert not page.evaluate("window.acted")


def test_a_persons_marks_count_and_stand(course: Course, formgrader: str, page: Page) -> None:
    notebook, automatic, manual, total = marks(course, f"check-{EXERCISE}")
    assert automatic and manual is None
    open_submission(page, formgrader, notebook)
    type_score(page, f"check-{EXERCISE}", "1")
    type_score(page, QUESTION, "2")
    page.screenshot(path=SCREENSHOTS / "formgrader_marked.png")

    after = total - automatic + 1 + 2
    assert marks(course, f"check-{EXERCISE}")[1:] == (automatic, 1.0, after)
    page.goto(f"{formgrader}/formgrader/gradebook/{NAME}/{NAME}")
    row = page.locator("tbody tr", has=page.locator(f"a[href*='{notebook}']"))
    expect(row.first).to_contain_text(f"{after:g} / ")
    page.screenshot(path=SCREENSHOTS / "formgrader_totals.png")

    grade(course, "--force")
    assert marks(course, f"check-{EXERCISE}")[1:] == (automatic, 1.0, after)
    assert marks(course, QUESTION)[2] == 2.0
    open_submission(page, formgrader, notebook)
    expect(page.locator(f"input#check-{EXERCISE}")).to_have_value("1")
