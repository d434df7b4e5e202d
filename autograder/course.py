"""Makes and reads nbgrader's course folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from nbgrader.api import MissingEntry
from nbgrader.coursedir import CourseDirectory
from rich.console import Console
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from traitlets.config import Config, PyFileConfigLoader
from traitlets.config.loader import ConfigFileNotFound

from autograder.assignment import Assignment
from autograder.atomic_write import atomic_write
from autograder.build import generate_release, grade_id, notebook_bytes, source_notebook
from autograder.course_settings import read_settings
from autograder.errors import CourseError
from autograder.gradebook import open_gradebook, shown_url

CONFIGURATION = "nbgrader_config.py"

TEMPLATE = '''"""How nbgrader works in this course folder.  Made once by the autograder; yours to change."""

from pathlib import Path

c = get_config()  # noqa: F821  (nbgrader provides it)

c.CourseDirectory.root = str(Path(__file__).resolve().parent)
c.CourseDirectory.course_id = {course_id!r}
{db_url}

# `nbgrader autograde` judges submissions in the jail, as `autograder grade` does.  nbgrader's own preprocessors,
# which these replace, would trust the student's metadata and run the student's code as you.
c.Autograde.sanitize_preprocessors = ["autograder.nbgrader_plugin.RebuildNotebook"]
c.Autograde.autograde_preprocessors = [
    "autograder.nbgrader_plugin.JudgeNotebook",
    "nbgrader.preprocessors.AssignLatePenalties",
]
c.RebuildNotebook.course_root = {root!r}  # the checkout that holds assignments/ and solutions/
c.JudgeNotebook.course_root = {root!r}
c.JudgeNotebook.isolation = {isolation!r}
'''

OWN_DATABASE = "# c.CourseDirectory.db_url = ...  # any SQLAlchemy URL; gradebook.db in this folder by default"


@dataclass(frozen=True)
class Course:
    """A course folder.

    Attributes
    ----------
    folder : Path
        Where source/, release/, submitted/, autograded/ and feedback/ are.
    course_id : str
        nbgrader's name of the course.
    db_url : str
        SQLAlchemy's URL of the gradebook.
    isolation : str
        How `nbgrader autograde` is told to isolate the students' code: "bubblewrap" or "none".
    """

    folder: Path
    course_id: str
    db_url: str
    isolation: str


def create_course(
    folder: Path,
    assignments: Iterable[Assignment],
    *,
    course_id: str | None = None,
    db_url: str | None = None,
    isolation: str | None = None,
    console: Console | None = None,
) -> Course:
    """Make a course folder, or bring an existing one up to date.

    Submissions, marks and the configuration that are there stay as they are; an assignment whose source changed is
    released anew.

    Parameters
    ----------
    folder : Path
        The course folder.
    assignments : iterable of Assignment
        What to put into it.
    course_id, db_url, isolation : str, optional
        For a new folder: nbgrader's name of the course ("deep_learning"), the gradebook ("gradebook.db" in the
        folder), and how `nbgrader autograde` isolates students' code ("bubblewrap").  An existing folder keeps its own.
    console : Console, optional
        Where to say what is done.

    Raises
    ------
    CourseError
        When the folder is configured otherwise than asked for, the gradebook cannot be opened, or the cells of an
        assignment changed after students handed it in.
    """
    assignments = list(assignments)
    folder = folder.resolve()
    configuration = folder / CONFIGURATION
    if not configuration.is_file():
        if not assignments:
            raise CourseError(f"{folder} is no course folder yet; name the assignments to put into it.")
        if db_url is not None:
            _check_url(db_url)
        text = TEMPLATE.format(
            course_id=course_id or "deep_learning",
            db_url=f"c.CourseDirectory.db_url = {db_url!r}" if db_url else OWN_DATABASE,
            root=str(assignments[0].root),
            isolation=isolation or "bubblewrap",
        )
        secret = db_url is not None and make_url(db_url).password is not None
        atomic_write(configuration, text, mode=0o600 if secret else 0o666)
    course = read_course(folder)
    for name, wanted, there in (
        ("course_id", course_id, course.course_id),
        ("db_url", db_url, course.db_url),
        ("isolation", isolation, course.isolation),
    ):
        if wanted is not None and wanted != there:
            raise CourseError(
                f"{configuration} says {name} = {there!r}, not {wanted!r}; change it there if you mean it."
            )
    for step in ("source", "release", "submitted"):
        (folder / step).mkdir(exist_ok=True)
    with console.status("Preparing the course folder") if console else contextlib.nullcontext():
        for assignment in assignments:
            released = _put_assignment(course, assignment)
            _set_deadline(course, assignment)
            if console:
                state = "released" if released else "unchanged"
                console.print(f"{assignment.name}: {state}", highlight=False)
    return course


def read_course(folder: Path) -> Course:
    """Read how a course folder is configured, as nbgrader does.

    Raises
    ------
    CourseError
        When it is no course folder, or its configuration cannot be read.
    """
    folder = folder.resolve()
    try:
        config = PyFileConfigLoader(CONFIGURATION, path=str(folder)).load_config()
    except ConfigFileNotFound:
        raise CourseError(f"{folder} is no course folder: it has no {CONFIGURATION}.") from None
    except Exception as error:  # the file is a program
        raise CourseError(f"{folder / CONFIGURATION} raised {type(error).__name__}: {error}") from error
    if "root" not in config.CourseDirectory:
        config.merge(Config({"CourseDirectory": {"root": str(folder)}}))
    directory = CourseDirectory(config=config)
    isolation = config.JudgeNotebook.get("isolation", "bubblewrap")
    return Course(Path(directory.root), directory.course_id, directory.db_url, isolation)


def _check_url(db_url: str) -> None:
    try:
        make_url(db_url)
    except ArgumentError:
        raise CourseError(f"{db_url!r} is no database URL; one looks like sqlite:////path/gradebook.db.") from None


def _put_assignment(course: Course, assignment: Assignment) -> bool:
    """Put an assignment into source/ and, where it changed, into release/ and the gradebook; returns whether it did."""
    name = assignment.name
    files = {
        course.folder / "source" / name / f"{name}.ipynb": notebook_bytes(source_notebook(assignment)),
        course.folder / "source" / name / "checks.py": (assignment.folder / "checks.py").read_bytes(),
    }
    same = all(path.is_file() and path.read_bytes() == data for path, data in files.items())
    release = course.folder / "release" / name
    complete = (release / f"{name}.ipynb").is_file() and (release / "checks.py").is_file()
    if same and complete and _in_gradebook(course, assignment):
        return False
    _check_submissions(course, assignment)
    for path, data in files.items():
        atomic_write(path, data)
    generate_release(course.folder, name, course.db_url, course.course_id)
    return True


def _set_deadline(course: Course, assignment: Assignment) -> None:
    """Tell nbgrader the deadline of the settings, which formgrader shows; without one, what is there stays."""
    deadline = read_settings(assignment.root).deadlines.get(assignment.name)
    if deadline is None:
        return
    due = deadline.astimezone(UTC).replace(tzinfo=None)  # as nbgrader keeps times
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        if gradebook.find_assignment(assignment.name).duedate != due:
            gradebook.update_or_create_assignment(assignment.name, duedate=due)


def _graded_cells(assignment: Assignment) -> dict[str, float]:
    """The points of every grade cell, by nbgrader's name of it."""
    cells = source_notebook(assignment).cells
    known = [c.metadata["nbgrader"] for c in cells if "nbgrader" in c.metadata]
    return {m["grade_id"]: m["points"] for m in known if m["grade"]}


def _in_gradebook(course: Course, assignment: Assignment) -> bool:
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        try:
            notebook = gradebook.find_notebook(assignment.name, assignment.name)
        except MissingEntry:
            return False
        return {c.name: c.max_score for c in notebook.grade_cells} == _graded_cells(assignment)


def _check_submissions(course: Course, assignment: Assignment) -> None:
    """nbgrader ties every mark to a cell, so cells may not come or go once there are submissions."""
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        try:
            notebook = gradebook.find_notebook(assignment.name, assignment.name)
        except MissingEntry:
            return
        before = {c.name for c in notebook.source_cells}
        after = {own for c in assignment.cells if (own := grade_id(c)) is not None}
        if notebook.submissions and before != after:
            differ = ", ".join(sorted(before ^ after))
            raise CourseError(
                f"{assignment.name} already has submissions in {shown_url(course.db_url)}, and its cells changed "
                f"({differ}); restore them, or make a new course folder."
            )
