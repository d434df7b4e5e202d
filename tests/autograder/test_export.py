"""Final marks and their export: late policy, bonus rule, a person's marks, and a trace that adds up."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from marked_class import result_of, write_result
from test_collect import put
from tiny_assignment import NAME, write_tiny_assignment

from autograder.assignment import Assignment, load_assignment
from autograder.collect import collect
from autograder.course import Course, create_course
from autograder.course_settings import BonusRule, CourseSettings, LatePolicy
from autograder.errors import CourseError
from autograder.export import export_marks
from autograder.final_marks import grade_of
from autograder.gradebook import open_gradebook
from autograder.roster import Person, Roster

pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")
DEADLINE = datetime(2026, 11, 20, 23, 0, tzinfo=UTC)
# 5.5 points: doubles_every_entry 1, doubles_large_numbers 1.5, why_double 3; halves_every_entry is 2 bonus points
SETTINGS = CourseSettings(
    deadlines={NAME: DEADLINE},
    late=LatePolicy(percent_per_day=10, days_at_most=3),
    grades={"E": 40, "D": 60, "C": 70, "B": 80, "A": 95},
)
ROSTER = Roster(
    Person(s, f"{s.title()} X", f"{s}@kth.se", canvas_id=str(k), moodle_id=str(900 + k))
    for k, s in enumerate(("anna", "ben", "cleo", "dan", "eva"), 11)
)


@pytest.fixture
def assignment(tiny_root: Path) -> Assignment:
    return load_assignment(NAME, tiny_root)


@pytest.fixture
def course(assignment: Assignment, tmp_path: Path) -> Course:
    """anna all right, ben without large numbers and 2 days late, cleo nothing right, dan with a person's marks."""
    made = create_course(tmp_path / "course", [assignment])
    for student, days in (("anna", -1), ("ben", 1.5), ("cleo", -1), ("dan", -1)):
        when = int(DEADLINE.timestamp() + days * 86400)
        collect([put(tmp_path / f"{student}.ipynb", student.encode(), when)], NAME, made.folder, SETTINGS)
    failed = {
        "anna": (),
        "ben": ("doubles_large_numbers",),
        "cleo": ("doubles_every_entry", "doubles_large_numbers"),
        "dan": ("doubles_every_entry", "doubles_large_numbers", "halves_every_entry"),
    }
    for student, names in failed.items():
        write_result(made, assignment, student, result_of(assignment, names), written=student != "cleo")
    mark(made, "anna", "why_double", 3.0)
    mark(made, "ben", "why_double", 2.0)
    mark(made, "dan", "why_double", 1.0)
    mark(made, "dan", "check-double", 2.0, extra=0.25)
    return made


def mark(course: Course, student: str, cell: str, points: float, extra: float | None = None) -> None:
    """Set a person's mark, as formgrader does."""
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        grade = gradebook.find_grade(cell, NAME, NAME, student)
        grade.manual_score, grade.extra_credit, grade.needs_manual_grade = points, extra, False
        gradebook.db.commit()


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_marks_follow_the_policy_and_the_trace_adds_up(course: Course, assignment: Assignment) -> None:
    done = export_marks([assignment], course, SETTINGS, "csv", roster=ROSTER)
    rows = {r["student"]: r for r in table(done.table)}
    shown = {s: [r[f"{NAME} {c}"] for c in ("points", "bonus", "days late", "grade without bonus", "grade")]
             for s, r in rows.items()}  # fmt: skip
    assert shown == {
        "anna": ["5.5", "2", "0", "A", "A"],
        "ben": ["2.4", "0", "2", "E", "E"],  # 3 points less 20 %, and no bonus when late
        "cleo": ["0", "2", "0", "F", "F"],  # bonus lifts no failing grade
        "dan": ["3.25", "0", "0", "E", "E"],
        "eva": ["", "", "", "", "F"],
    }
    assert rows["eva"]["not handed in"] == NAME and done.open == {} and done.count == 5
    sums: dict[tuple[str, str], float] = defaultdict(float)
    lines = table(done.trace)
    for line in lines:
        sums[line["student"], line["counts as"]] += float(line["points"])
    for student in ("anna", "ben", "cleo", "dan"):
        assert sums[student, "points"] == pytest.approx(float(rows[student][f"{NAME} points"]))
        assert sums[student, "bonus"] == pytest.approx(float(rows[student][f"{NAME} bonus"]))
    of_dan = {
        (x["exercise"], x["item"], x["kind"]): (x["points"], x["message"]) for x in lines if x["student"] == "dan"
    }
    assert of_dan["double", "", "person"] == ("2", "A person gave 2 points.")
    assert of_dan["double", "doubles_every_entry", "criterion"] == ("0", "Something else came out.")
    assert of_dan["double", "", "extra credit"][0] == "0.25"
    late = next(x for x in lines if x["student"] == "ben" and x["kind"] == "late")
    assert late["points"] == "-0.6" and late["message"] == "2 days late: 80 % of 3 points count."


def test_a_deadline_that_was_moved_counts_without_collecting_again(course: Course, assignment: Assignment) -> None:
    moved = SETTINGS.model_copy(update={"deadlines": {NAME: DEADLINE.replace(day=21)}})
    days = [
        {r["student"]: r[f"{NAME} days late"] for r in table(export_marks([assignment], course, s, "csv").table)}["ben"]
        for s in (SETTINGS, moved, SETTINGS.model_copy(update={"deadlines": {}}))
    ]
    assert days == ["2", "1", "0"]


def test_what_a_person_has_to_mark_is_told_and_kept_from_canvas(course: Course, assignment: Assignment) -> None:
    write_result(course, assignment, "eva", result_of(assignment))
    done = export_marks([assignment], course, SETTINGS, "csv")
    assert done.open == {"eva": [f"{NAME}: why_double"]}
    done = export_marks([assignment], course, SETTINGS, "canvas", roster=ROSTER)
    assert [r["ID"] for r in table(done.table)] == ["", "11", "12", "13", "14"]
    assert done.left_out == [f"eva: waits for a person ({NAME}: why_double)."]
    done = export_marks([assignment], course, SETTINGS, "canvas", roster=ROSTER, provisional=True)
    assert {r["ID"]: r[NAME] for r in table(done.table)}["15"] == "2.5" and done.left_out == []


def test_canvas_and_moodle_get_their_own_columns(course: Course, assignment: Assignment) -> None:
    canvas = export_marks([assignment], course, SETTINGS, "canvas", roster=ROSTER)
    header, possible, first, *_ = canvas.table.read_text().splitlines()
    assert header == f"Student,ID,SIS User ID,SIS Login ID,Section,{NAME},{NAME} bonus,{NAME} grade"
    assert possible == "    Points Possible,,,,,5.5,2," and first == "Anna X,11,,,,5.5,2,A" and canvas.count == 5
    moodle = export_marks([assignment], course, SETTINGS, "moodle", roster=ROSTER)
    rows = table(moodle.table)
    assert (rows[1]["Identifier"], rows[1]["Grade"]) == ("Participant 912", "2.4")
    assert rows[1]["Feedback comments"] == "Grade E. 2 days late." and rows[4]["Grade"] == ""


def test_who_has_no_number_is_told(course: Course, assignment: Assignment) -> None:
    with pytest.raises(CourseError, match="None of the 4 students has a number for Canvas"):
        export_marks([assignment], course, SETTINGS, "canvas")
    some = Roster(p for p in ROSTER if p.student != "ben")
    assert export_marks([assignment], course, SETTINGS, "moodle", roster=some).left_out == [
        "ben: the roster has no participant's number in Moodle."
    ]
    with pytest.raises(CourseError, match="one of canvas, moodle, csv, not to 'excel'"):
        export_marks([assignment], course, SETTINGS, "excel")


def test_a_gradebook_that_differs_from_the_results_is_refused(course: Course, assignment: Assignment) -> None:
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        gradebook.find_grade("check-double", NAME, NAME, "ben").auto_score = 2.5
        gradebook.db.commit()
    with pytest.raises(CourseError, match=r"ben, double: the gradebook has 2\.5 points and the result 1; run"):
        export_marks([assignment], course, SETTINGS, "csv")


def test_what_nbgrader_graded_has_a_line_for_the_exercise(course: Course, assignment: Assignment) -> None:
    (course.folder / "results" / NAME / "ben.json").unlink()
    done = export_marks([assignment], course, SETTINGS, "csv")
    lines = [x for x in table(done.trace) if x["student"] == "ben" and x["exercise"] == "double"]
    assert [(x["kind"], x["points"], x["of"]) for x in lines] == [("exercise", "1", "2.5")]


def test_several_assignments_have_a_total_in_which_each_must_be_passed(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path / "checkout")
    write_tiny_assignment(root, hidden=None, mistakes=None, name="other_tiny")  # 4 points
    both = [load_assignment(n, root) for n in (NAME, "other_tiny")]
    course = create_course(tmp_path / "course", both)
    for assignment in both:
        write_result(course, assignment, "anna", result_of(assignment), written=False)
    write_result(course, both[0], "ben", result_of(both[0]), written=False)
    settings = CourseSettings(grades={"pass": 20}, failing_grade="fail", points_to_pass={"other_tiny": 1.0})
    rows = {r["student"]: r for r in table(export_marks(both, course, settings, "csv").table)}
    assert [rows["anna"][c] for c in ("points", "of", "bonus", "grade")] == ["3.5", "9.5", "4", "pass"]
    assert [rows["ben"][c] for c in ("points", "grade", "not handed in")] == ["2.5", "fail", "other_tiny"]
    strict = settings.model_copy(update={"points_to_pass": {"other_tiny": 1.5}})
    rows = {r["student"]: r for r in table(export_marks(both, course, strict, "csv").table)}
    assert (rows["anna"]["other_tiny grade"], rows["anna"]["grade"]) == ("fail", "fail")
    with pytest.raises(CourseError, match="holds one assignment"):
        export_marks(both, course, settings, "moodle")


@pytest.mark.parametrize(
    ("points", "bonus", "steps", "grade"),
    [
        (50, 0, 1, "E"), (50, 9, 1, "E"), (50, 10, 1, "D"), (50, 50, 1, "D"), (50, 50, 2, "C"), (50, 50, 0, "E"),
        (49.5, 50, 1, "F"), (95, 50, 1, "A"), (88, 2, 1, "A"), (30, 20, 9, "F"),
    ],
)  # fmt: skip
def test_bonus_lifts_a_passing_grade_by_no_more_than_its_steps(
    points: float, bonus: float, steps: int, grade: str
) -> None:
    settings = CourseSettings(bonus=BonusRule(steps_at_most=steps))
    assert grade_of(settings, points, 100, bonus, points >= 50) == grade


def test_a_third_of_the_points_is_not_lost_by_rounding() -> None:
    settings = CourseSettings(grades={"E": 30})
    assert grade_of(settings, 0.1 + 0.2, 1.0, 0.0, True) == "E"
    assert grade_of(CourseSettings(), sum([0.1] * 7), 1.0, 0.0, True) == "C"  # 0.7 from below
