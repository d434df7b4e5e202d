"""nbgrader's course folder: complete, and left as it is by a second run."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook, get_alembic_version
from nbgrader.apps import AutogradeApp
from nbgrader.converters import Autograde
from sqlalchemy import create_engine, inspect, text
from tiny_assignment import CHECKS, NAME, SOURCE, write_tiny_assignment

from autograder.assignment import load_assignment
from autograder.course import CONFIGURATION, create_course, read_course
from autograder.errors import CourseError
from autograder.gradebook import make_gradebook, open_gradebook

# nbgrader's own add_submission looks at objects that are not in its session yet
pytestmark = pytest.mark.filterwarnings("ignore:Object of type:sqlalchemy.exc.SAWarning")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".db"}


def test_a_new_course_has_all_that_nbgrader_needs(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path / "checkout"))
    course = create_course(tmp_path / "course", [tiny])
    assert course == read_course(tmp_path / "course")
    assert (course.course_id, course.isolation) == ("deep_learning", "bubblewrap")
    assert course.db_url == f"sqlite:///{tmp_path / 'course' / 'gradebook.db'}"
    assert sorted(p.name for p in course.folder.iterdir()) == [
        "gradebook.db",
        CONFIGURATION,
        "release",
        "source",
        "submitted",
    ]
    assert set(snapshot(course.folder)) == {
        CONFIGURATION,
        *(f"{step}/{NAME}/{file}" for step in ("source", "release") for file in (f"{NAME}.ipynb", "checks.py")),
    }
    source = nbformat.read(course.folder / "source" / NAME / f"{NAME}.ipynb", as_version=4)
    handed_out = nbformat.read(course.folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    assert "secret_of_doubling" in str(source)
    assert "secret_of_doubling" not in str(handed_out)
    with Gradebook(course.db_url, course.course_id) as gradebook:
        assert [a.name for a in gradebook.assignments] == [NAME]
        assert gradebook.find_assignment(NAME).max_score == 5.5
        assert gradebook.find_assignment(NAME).course_id == "deep_learning"


def test_a_second_run_keeps_what_is_there(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path / "checkout"))
    course = create_course(tmp_path / "course", [tiny])
    submission = course.folder / "submitted" / "ada" / NAME / f"{NAME}.ipynb"
    submission.parent.mkdir(parents=True)
    submission.write_text("{}")
    with (course.folder / CONFIGURATION).open("a") as file:
        file.write("# changed by a person\n")
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        gradebook.add_student("ada")
        gradebook.add_submission(NAME, "ada")
        gradebook.find_grade("check-double", NAME, NAME, "ada").manual_score = 2.0
        gradebook.db.commit()
    before, times = snapshot(course.folder), (course.folder / "release" / NAME).stat().st_mtime_ns
    assert create_course(tmp_path / "course", [tiny]) == course
    assert snapshot(course.folder) == before
    assert (course.folder / "release" / NAME).stat().st_mtime_ns == times
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        assert gradebook.find_grade("check-double", NAME, NAME, "ada").manual_score == 2.0


def test_a_changed_text_is_released_anew_and_marks_stay(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path / "checkout")
    course = create_course(tmp_path / "course", [load_assignment(NAME, root)])
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        gradebook.add_student("ada")
        gradebook.add_submission(NAME, "ada")
        gradebook.find_grade("check-double", NAME, NAME, "ada").auto_score = 1.5
        gradebook.db.commit()
    more = CHECKS.replace("points=1)", "points=2)")
    write_tiny_assignment(root, source=SOURCE.replace("Words before", "More words before"), checks=more)
    create_course(tmp_path / "course", [load_assignment(NAME, root)])
    released = (course.folder / "release" / NAME / f"{NAME}.ipynb").read_text()
    assert "More words before" in released
    assert (course.folder / "release" / NAME / "checks.py").read_text() == more
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        grade = gradebook.find_grade("check-double", NAME, NAME, "ada")
        assert (grade.auto_score, grade.max_score) == (1.5, 3.5)


def test_new_cells_after_submissions_are_refused_before_anything_is_touched(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path / "checkout")
    course = create_course(tmp_path / "course", [load_assignment(NAME, root)])
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        gradebook.add_student("ada")
        gradebook.add_submission(NAME, "ada")
    before = snapshot(course.folder)
    write_tiny_assignment(root, source=SOURCE.replace('written="why_double"', 'written="why_it_doubles"'))
    with pytest.raises(CourseError, match=r"already has submissions .*\(why_double, why_it_doubles\)"):
        create_course(tmp_path / "course", [load_assignment(NAME, root)])
    assert snapshot(course.folder) == before


def test_an_interrupted_run_is_completed_by_the_next_one(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path / "checkout"))
    course = create_course(tmp_path / "course", [tiny])
    complete = snapshot(course.folder)
    (course.folder / "gradebook.db").unlink()
    (course.folder / "release" / NAME / f"{NAME}.ipynb").unlink()
    create_course(tmp_path / "course", [tiny])
    assert snapshot(course.folder) == complete
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        assert gradebook.find_assignment(NAME).max_score == 5.5


def test_the_deadline_of_the_settings_is_nbgraders(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path / "checkout")
    tiny = load_assignment(NAME, root)
    course = create_course(tmp_path / "course", [tiny])
    due = []
    for time in ("23:59:00+01:00", "21:00:00Z"):
        (root / "pyproject.toml").write_text(f"[tool.course.deadlines]\n{NAME} = 2026-11-20T{time}\n")
        create_course(tmp_path / "course", [tiny])
        with open_gradebook(course.db_url, course.course_id) as gradebook:
            due.append(str(gradebook.find_assignment(NAME).duedate))
    assert due == ["2026-11-20 22:59:00", "2026-11-20 21:00:00"]


def test_a_second_assignment_joins_the_first(tmp_path: Path) -> None:
    root = write_tiny_assignment(tmp_path / "checkout")
    create_course(tmp_path / "course", [load_assignment(NAME, root)])
    write_tiny_assignment(root, hidden=None, mistakes=None, name="other_tiny")
    course = create_course(tmp_path / "course", [load_assignment("other_tiny", root)])
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        assert sorted(a.name for a in gradebook.assignments) == ["other_tiny", NAME]
    assert (course.folder / "release" / NAME / f"{NAME}.ipynb").is_file()


def test_options_of_a_new_course_are_kept_and_later_ones_must_agree(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path / "checkout"))
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    course = create_course(tmp_path / "course", [tiny], course_id="dl26", db_url=url, isolation="none")
    assert (course.course_id, course.db_url, course.isolation) == ("dl26", url, "none")
    assert (tmp_path / "elsewhere.db").is_file()
    assert not (course.folder / "gradebook.db").exists()
    assert create_course(course.folder, [tiny], course_id="dl26", db_url=url) == course
    with pytest.raises(CourseError, match="says course_id = 'dl26', not 'dl27'"):
        create_course(course.folder, [tiny], course_id="dl27")


def test_bad_folders_and_gradebooks_are_named(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path / "checkout"))
    with pytest.raises(CourseError, match=r"no course folder: it has no nbgrader_config\.py"):
        read_course(tmp_path)
    with pytest.raises(CourseError, match="name the assignments"):
        create_course(tmp_path / "course", [])
    with pytest.raises(CourseError, match=r"'gradebook\.db' is no database URL"):
        create_course(tmp_path / "course", [tiny], db_url="gradebook.db")
    assert not (tmp_path / "course").exists()
    with pytest.raises(CourseError, match="Cannot open the gradebook") as error:
        open_gradebook(f"sqlite:///{tmp_path / 'no' / 'folder.db'}")
    assert "\n" not in str(error.value)
    (tmp_path / CONFIGURATION).write_text("c = get_config()\n1 / 0\n")
    with pytest.raises(CourseError, match=r"nbgrader_config\.py raised ZeroDivisionError"):
        read_course(tmp_path)


def test_a_password_is_neither_readable_by_others_nor_shown(tmp_path: Path) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path / "checkout"))
    with pytest.raises(CourseError) as error:
        create_course(tmp_path / "course", [tiny], db_url="postgresql://staff:swordfish@localhost/marks")
    assert "swordfish" not in str(error.value)
    configuration = tmp_path / "course" / CONFIGURATION
    assert configuration.stat().st_mode & 0o077 == 0


def test_the_gradebooks_version_is_nbgraders_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'gradebook.db'}"
    monkeypatch.setenv("PATH", "/nowhere")  # nbgrader alone would start a program called alembic
    with open_gradebook(url) as gradebook:
        gradebook.add_student("ada")
    make_gradebook(url)  # leaves a database with tables alone
    with open_gradebook(url) as gradebook:
        assert [s.id for s in gradebook.students] == ["ada"]
    engine = create_engine(url)
    with engine.connect() as connection:
        versions = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    assert "grade" in inspect(engine).get_table_names()
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert versions == [get_alembic_version()]


def test_nbgrader_itself_reads_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = load_assignment(NAME, write_tiny_assignment(tmp_path / "checkout"))
    course = create_course(tmp_path / "course", [tiny], course_id="dl26")
    monkeypatch.chdir(course.folder)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    app = AutogradeApp()
    app.initialize([])
    assert app.coursedir.course_id == "dl26"
    assert app.coursedir.root == str(course.folder)
    assert app.coursedir.db_url == course.db_url
    converter = Autograde(coursedir=app.coursedir, parent=app)
    assert converter.sanitize_preprocessors == ["autograder.nbgrader_plugin.RebuildNotebook"]
    assert converter.autograde_preprocessors[0] == "autograder.nbgrader_plugin.JudgeNotebook"
    assert app.config.JudgeNotebook == {"course_root": str(tmp_path / "checkout"), "isolation": "bubblewrap"}
