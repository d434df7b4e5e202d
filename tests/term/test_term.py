"""A whole term, typed as people type it: from the release to the exported marks, every file opened.

    COURSE_TERM_SIZE=30 pytest tests/term

takes a class of that size; by default it is small.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pytest
from formgrader_page import open_submission, type_score
from lab_process import start_lab
from nbformat.v4 import new_output
from playwright.sync_api import Browser

from autograder.assignment import load_assignment
from autograder.course import Course, read_course
from autograder.gradebook import open_gradebook
from autograder.simulated_class import SimulatedStudent, simulated_class
from course_utils.receipt import RECEIPT, make_receipt, pack, read_receipt, verify

ROOT = Path(__file__).resolve().parents[2]
NAME = "a1_linear_classifiers"
SIZE = int(os.environ.get("COURSE_TERM_SIZE", "6"))
SCREENSHOTS = ROOT / "build" / "screenshots"
pytestmark = pytest.mark.xdist_group("term")  # one process walks through it, once
MISSING = "zoe"  # who never hands in
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass
class Term:
    """The places of a term, and what its commands said."""

    checkout: Path
    folder: Path
    students: list[SimulatedStudent]
    said: dict[str, str] = field(default_factory=dict)

    @property
    def course(self) -> Course:
        """nbgrader's course folder."""
        return read_course(self.folder / "course")

    def run(self, step: str, *command: str, cwd: Path | None = None, allowed: tuple[int, ...] = (0,)) -> str:
        """Type a command (`autograder …` or `course …`); its output is kept under the name of the step."""
        package = {"autograder": "autograder", "course": "course_utils"}[command[0]]
        environment = {
            **os.environ,
            "PYTHONPATH": str(cwd or self.checkout),
            "COURSE_DATA_SET": "digits_in_scenes",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "160",
        }
        done = subprocess.run(
            [sys.executable, "-c", f"from {package}.cli import app; app()", *command[1:]],
            cwd=cwd or self.checkout,
            env=environment,
            capture_output=True,
            text=True,
        )
        self.said[step] = done.stdout + done.stderr
        assert done.returncode in allowed, self.said[step]
        return self.said[step]

    def table(self, path: str) -> list[dict[str, str]]:
        """A CSV file of the course folder."""
        with open(self.folder / "course" / path, encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))


def checkout_with_deadline(folder: Path, deadline: datetime) -> Path:
    """A copy of this checkout whose course has a deadline."""
    leave = shutil.ignore_patterns(
        ".git", ".venv", "build", "__pycache__", ".*_cache", "tests", "results", "*.egg-info"
    )
    shutil.copytree(ROOT, folder, ignore=leave)
    settings = folder / "pyproject.toml"
    table = "[tool.course.deadlines]"
    given = settings.read_text()
    assert given.count(table) == 1
    settings.write_text(given.replace(table, f"{table}\n{NAME} = {deadline.isoformat()}"))
    return folder


def worked_on(student: SimulatedStudent) -> bytes:
    """The student's notebook with a figure under every experiment, as if it had been run."""
    notebook = nbformat.reads(student.notebook.decode(), as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("course", {}).get("role") == "experiment" and not cell.outputs:
            cell.outputs = [new_output("display_data", data={"image/png": PICTURE})]
    return nbformat.writes(notebook).encode()


def hand_in(term: Term, student: SimulatedStudent, bundle: Path) -> Path:
    """What a student does: unpack the bundle, work, `course submit`; returns the zip file."""
    home = term.folder / "students" / student.name
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(home)
    (unpacked,) = home.iterdir()
    (unpacked / "assignments" / NAME / f"{NAME}.ipynb").write_bytes(worked_on(student))
    term.run(f"submit {student.name}", "course", "submit", "a1", "--student", student.name, cwd=unpacked)
    (archive_made,) = unpacked.glob("*.zip")
    return archive_made


def later(archive: Path, time: datetime) -> None:
    """The same submission, made later."""
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist() if name != RECEIPT}
        receipt = read_receipt(opened.read(RECEIPT))
    archive.write_bytes(pack(make_receipt(receipt.assignment, receipt.student, files, time), files))


def mark_by_hand(term: Term, address: str, browser: Browser) -> None:
    """Mark the first student's answers in formgrader, and everybody else's in the gradebook as formgrader does."""
    first, questions = term.students[0].name, list(load_assignment(NAME, ROOT).written)
    with open_gradebook(term.course.db_url, term.course.course_id) as gradebook:
        notebook = gradebook.find_submission_notebook(NAME, NAME, first).id
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    open_submission(page, address, notebook)
    for question in questions:
        type_score(page, question, "1.5")
    page.screenshot(path=SCREENSHOTS / "term_formgrader.png")
    page.close()
    with open_gradebook(term.course.db_url, term.course.course_id) as gradebook:
        for student in term.students[1:]:
            for question in questions:
                grade = gradebook.find_grade(question, NAME, NAME, student.name)
                grade.manual_score, grade.needs_manual_grade = 1.0, False
        gradebook.db.commit()


def fill_forms(term: Term) -> Path:
    """Everybody reviews, but the last one only half; returns the folder of forms."""
    forms = term.folder / "forms"
    packets = sorted((term.folder / "course" / "peer" / NAME / "packets").iterdir())
    for k, packet in enumerate(packets):
        text = (packet / "review.toml").read_text(encoding="utf-8")
        reviews = len(re.findall(r"^\[report\.", text, re.M))
        text = re.sub(r"= 0(?= |$)", f"= {3 + k % 3}", text, flags=re.M)
        text = text.replace("comment = '''\n\n'''", "comment = '''\nClear figures.\n'''")
        if packet == packets[-1]:
            text = text.replace("Clear figures.", "", reviews // 2)
        target = forms / packet.name
        target.mkdir(parents=True)
        (target / "review.toml").write_text(text, encoding="utf-8")
    return forms


@pytest.fixture(scope="module")
def term(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Term:
    """Everything that happens in a term, one command after the other."""
    folder = tmp_path_factory.mktemp("term")
    deadline = (datetime.now(UTC) + timedelta(hours=6)).replace(microsecond=0)
    students = simulated_class(load_assignment("a1", ROOT), SIZE)
    term = Term(checkout_with_deadline(folder / "checkout", deadline), folder, students)
    course = str(folder / "course")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    term.run("build", "autograder", "build", "--course", course)
    term.run("release", "autograder", "release", "a1", "--output", str(folder / "bundle"))
    bundle = next(folder.glob("bundle*.zip"))
    archives = {s.name: hand_in(term, s, bundle) for s in term.students}
    later(archives[term.students[1].name], deadline + timedelta(hours=25))
    roster = folder / "roster.csv"
    people = [s.name for s in term.students] + [MISSING]
    roster.write_text("student,name,email\n" + "".join(f"{p},Name of {p},{p}@example.org\n" for p in people))
    handed_in = map(str, archives.values())
    term.run("collect", "autograder", "collect", "a1", *handed_in, "--course", course, "--roster", str(roster))

    term.run("grade", "autograder", "grade", "a1", "--course", course, "--workers", "2")
    lab, address = start_lab(folder / "course", tmp_path_factory.mktemp("home"))
    try:
        mark_by_hand(term, address, browser)
    finally:
        lab.terminate()
        lab.wait()
    term.run("grade again", "autograder", "grade", "a1", "--course", course, "--workers", "2", "--force")
    term.run("feedback", "autograder", "feedback", "a1", "--course", course)
    term.run("report", "autograder", "report", "a1", "--course", course)

    term.run("peer assign", "autograder", "peer", "assign", "a1", "--reviews", "2", "--course", course)
    forms = fill_forms(term)
    term.run("peer collect", "autograder", "peer", "collect", "a1", str(forms), "--course", course, allowed=(0, 1))
    term.run("peer status", "autograder", "peer", "status", "--course", course)
    term.run("export", "autograder", "export", "a1", "--course", course)
    return term


def test_every_submission_has_a_true_receipt(term: Term) -> None:
    for student in term.students:
        (archive,) = (term.folder / "students" / student.name).glob("*/*.zip")
        with zipfile.ZipFile(archive) as opened:
            files = {name: opened.read(name) for name in opened.namelist() if name != RECEIPT}
            receipt = read_receipt(opened.read(RECEIPT))
        assert verify(receipt, files) == []
        assert (receipt.assignment, receipt.student, list(files)) == (NAME, student.name, [f"{NAME}.ipynb"])


def test_the_student_is_told_what_is_unfinished(term: Term) -> None:
    told = {s.story: term.said[f"submit {s.name}"] for s in term.students}
    assert "Nothing is written yet in standardizer" in told["nothing written"]
    assert "Receipt:" in told["a cell that ends the process"]
    assert "All visible criteria are met" in told["everything right"]


def test_who_is_missing_and_who_is_late_is_told(term: Term) -> None:
    said = " ".join(term.said["collect"].split())
    assert MISSING in said
    assert re.search(rf"late[^.]*{term.students[1].name}|{term.students[1].name}[^.]*late", said, re.I), said
    collected = sorted(p.name for p in (term.folder / "course" / "submitted").iterdir())
    assert collected == sorted(s.name for s in term.students)


def test_everybody_has_a_result(term: Term) -> None:
    results = {
        p.stem: json.loads(p.read_text())["result"] for p in (term.folder / "course" / "results" / NAME).glob("*.json")
    }
    assert sorted(results) == sorted(s.name for s in term.students)
    by_story = {s.story: results[s.name] for s in term.students}
    right = by_story["everything right"]
    assert right["score"] == right["max_score"] > 0
    assert by_story["nothing written"]["score"] == 0
    hostile = next(r for story, r in by_story.items() if story.startswith("hostile"))
    assert hostile["score"] < right["score"] / 4


def test_what_a_person_marked_stands(term: Term) -> None:
    questions = list(load_assignment(NAME, ROOT).written)
    with open_gradebook(term.course.db_url, term.course.course_id) as gradebook:
        marks = [gradebook.find_grade(q, NAME, NAME, term.students[0].name).manual_score for q in questions]
    assert marks == [1.5] * len(questions)


def test_every_feedback_page_can_be_read_on_a_phone(term: Term, browser: Browser) -> None:
    pages = sorted((term.folder / "course" / "feedback").glob(f"*/{NAME}/{NAME}.html"))
    assert [p.parts[-3] for p in pages] == sorted(s.name for s in term.students)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    dialogs: list[str] = []
    page.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
    for path in pages:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.locator("script").count() == 0
        assert "softmax" in page.inner_text("body")
    page.goto(pages[0].as_uri())
    page.screenshot(path=SCREENSHOTS / "term_feedback_phone.png")
    page.close()
    assert dialogs == []


def test_the_report_on_the_class_names_what_went_wrong(term: Term, browser: Browser) -> None:
    path = term.folder / "course" / "reports" / f"{NAME}.html"
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(path.as_uri())
    text = page.inner_text("body")
    page.screenshot(path=SCREENSHOTS / "term_report.png", full_page=True)
    page.close()
    assert "minibatch_gd" in text and "softmax" in text
    assert re.search(r"attack|odd|end[s]? the process", text, re.I)


def test_peer_review_gives_everybody_reports_of_others(term: Term) -> None:
    pairs = term.table(f"peer/{NAME}/who_reviewed_whom.csv")
    assert pairs and all(row["reviewer"] != row["author"] for row in pairs)
    counts = {row["reviewer"]: 0 for row in pairs}
    for row in pairs:
        counts[row["reviewer"]] += 1
    assert set(counts.values()) == {2}
    done = [row for row in pairs if row["state"] == "done"]
    assert len(done) == len(pairs) - 1
    for author in {row["author"] for row in pairs}:
        page = (term.folder / "course" / "peer" / NAME / "feedback" / f"{author}.html").read_text(encoding="utf-8")
        assert "Clear figures." in page
        assert not any(s.name in page for s in term.students if s.name != author)


def test_every_exported_number_follows_from_its_lines(term: Term) -> None:
    marks = term.table(f"exported/{NAME}_marks.csv")
    lines = term.table(f"exported/{NAME}_marks_trace.csv")
    assert sorted(row["student"] for row in marks) == sorted([*(s.name for s in term.students), MISSING])
    for row in marks:
        if row["student"] == MISSING:
            assert row["not handed in"] == NAME and not row[f"{NAME} points"]
            continue
        assert row["to be marked"] == ""
        own = [x for x in lines if x["student"] == row["student"]]
        assert len(own) > 100
        added = sum(float(x["points"]) for x in own if x["counts as"] == "points")
        assert float(row[f"{NAME} points"]) == pytest.approx(added)
    late = next(row for row in marks if row["student"] == term.students[1].name)
    policy = tomllib.loads((term.checkout / "pyproject.toml").read_text())["tool"]["course"]["late"]
    assert late[f"{NAME} days late"] == "2" and policy["percent_per_day"] == 10
    right = next(row for row in marks if row["student"] == term.students[0].name)
    assert float(late[f"{NAME} points"]) < float(right[f"{NAME} points"]) * 0.9
