"""Writing results into nbgrader's gradebook: the engine's columns, and never a person's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nbgrader.api import Gradebook

from autograder.assignment import load_assignment
from autograder.build import student_notebook
from autograder.course import create_course
from autograder.errors import CourseError
from autograder.gradebook import open_gradebook
from autograder.record import answered, record

# nbgrader's own add_submission looks at objects that are not in its session yet
pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")
NAME = "tiny_doubling"


def result(double: float, halve: float = 0.0, says: list[str] | None = None) -> dict[str, Any]:
    return {
        "exercises": {
            "double": {"score": double, "diagnosis": says or []},
            "halve": {"score": halve, "diagnosis": []},
        }
    }


@pytest.fixture(scope="module")
def db_url(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("recorded") / "course"
    return create_course(folder, [load_assignment(NAME, tiny_root)]).db_url


@pytest.fixture
def gradebook(db_url: str) -> Any:
    with open_gradebook(db_url) as opened:
        yield opened


def grades(gradebook: Gradebook, student: str) -> dict[str, Any]:
    (notebook,) = gradebook.find_submission(NAME, student).notebooks
    return {g.name: g for g in notebook.grades}


def test_marks_are_recorded_under_nbgraders_names(gradebook: Gradebook) -> None:
    record(gradebook, NAME, "anna", result(2.5, 2.0, ["The <b>sign</b> is flipped."]), {"why_double": True})
    kept = grades(gradebook, "anna")
    assert (kept["check-double"].auto_score, kept["check-halve"].auto_score) == (2.5, 2.0)
    assert kept["why_double"].auto_score is None and kept["why_double"].needs_manual_grade
    assert not kept["check-double"].needs_manual_grade
    comment = gradebook.find_comment("double", NAME, NAME, "anna")
    assert comment.auto_comment == "The &lt;b&gt;sign&lt;/b&gt; is flipped."
    assert gradebook.find_submission(NAME, "anna").score == 4.5


def test_no_answer_in_words_is_no_points_and_no_work(gradebook: Gradebook) -> None:
    record(gradebook, NAME, "ben", result(1.0), {"why_double": False})
    kept = grades(gradebook, "ben")
    assert kept["why_double"].auto_score == 0 and not kept["why_double"].needs_manual_grade
    assert gradebook.find_comment("why_double", NAME, NAME, "ben").auto_comment == "No response."


def test_a_persons_marks_and_words_stand_and_ask_for_a_look(gradebook: Gradebook) -> None:
    record(gradebook, NAME, "cleo", result(1.0), {"why_double": True})
    kept = grades(gradebook, "cleo")
    kept["check-double"].manual_score, kept["check-double"].extra_credit = 2.0, 0.5
    kept["why_double"].manual_score, kept["why_double"].needs_manual_grade = 3.0, False
    gradebook.find_comment("double", NAME, NAME, "cleo").manual_comment = "Well tried."
    gradebook.db.commit()
    record(gradebook, NAME, "cleo", result(2.5, 2.0), {"why_double": True})
    kept = grades(gradebook, "cleo")
    assert (kept["check-double"].auto_score, kept["check-double"].manual_score) == (2.5, 2.0)
    assert kept["check-double"].extra_credit == 0.5 and kept["check-double"].needs_manual_grade
    assert kept["why_double"].manual_score == 3.0
    assert gradebook.find_comment("double", NAME, NAME, "cleo").manual_comment == "Well tried."
    assert gradebook.find_submission(NAME, "cleo").score == 2.0 + 0.5 + 2.0 + 3.0


def test_recording_again_replaces_the_engines_marks(gradebook: Gradebook) -> None:
    record(gradebook, NAME, "dan", result(2.5, says=["It is wrong."]), {})
    record(gradebook, NAME, "dan", result(0.5), {})
    assert grades(gradebook, "dan")["check-double"].auto_score == 0.5
    assert gradebook.find_comment("double", NAME, NAME, "dan").auto_comment is None
    assert len(gradebook.find_assignment(NAME).submissions) == len({s.id for s in gradebook.students})


def test_the_time_of_handing_in_is_kept(gradebook: Gradebook) -> None:
    record(gradebook, NAME, "eva", result(1.0), {}, "2024-02-29 12:30:00 UTC")
    assert str(gradebook.find_submission(NAME, "eva").timestamp) == "2024-02-29 12:30:00"
    record(gradebook, NAME, "eva", result(1.0), {})
    assert str(gradebook.find_submission(NAME, "eva").timestamp) == "2024-02-29 12:30:00"


@pytest.mark.parametrize("stamp", ["yesterday-ish", "<script>", "2024-99-99", "\x00"])
def test_a_time_that_is_none_stops_nothing(gradebook: Gradebook, stamp: str) -> None:
    record(gradebook, NAME, "finn", result(1.5), {}, stamp)
    assert grades(gradebook, "finn")["check-double"].auto_score == 1.5


def test_an_unknown_assignment_is_one_sentence(gradebook: Gradebook) -> None:
    with pytest.raises(CourseError, match="does not know the assignment a9"):
        record(gradebook, "a9", "anna", result(1.0), {})


def test_an_answer_is_what_differs_from_what_was_handed_out(tiny_root: Path) -> None:
    notebook = student_notebook(load_assignment(NAME, tiny_root))
    assert answered(notebook) == {"why_double": False}
    for cell in notebook.cells:
        if cell.metadata["course"]["role"] == "written":
            cell.source += "\nBecause."
    assert answered(notebook) == {"why_double": True}
