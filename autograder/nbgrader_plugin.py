"""What makes plain `nbgrader autograde` use the judge: preprocessors named in the course's nbgrader_config.py.

nbgrader converts a submission twice.  Its first pass rebuilds the notebook here from the released one, in place
of nbgrader's five preprocessors that trust the student's metadata; its second pass judges and saves the marks, in
place of running the notebook.
"""

from __future__ import annotations

import atexit
from functools import cache
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Unicode

from autograder.assignment import Assignment, load_assignment
from autograder.course_settings import read_settings
from autograder.grade import released_notebook
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.judging import submission_secret
from autograder.rebuild import rebuild
from autograder.record import answered, record
from autograder.secret import course_secret
from autograder.submission import Submission, Unreadable, file_bytes, read_notebook_bytes
from course_utils.checking.display import exercise_html


@cache
def _assignment(name: str, root: str) -> Assignment:
    return load_assignment(name, Path(root) if root else None)


@cache
def _judge(name: str, root: str, isolation: str) -> Judge:
    assignment = _assignment(name, root)
    limits = read_settings(assignment.root).limits
    zygote = Zygote(assignment.folder / "checks.py", isolation, limits.resources())
    atexit.register(zygote.close)
    return Judge(assignment, zygote, limits=limits.time_limits())


def _submission(assignment: Assignment, student: str) -> tuple[Submission, str]:
    """Read what the student handed in, and give it its secret, as `autograder grade` does.

    nbgrader runs with the course folder as its working folder.
    """
    path = Path("submitted", student, assignment.name, f"{assignment.name}.ipynb")
    try:
        data = file_bytes(path)
    except Unreadable as why:
        return Submission(oddities=[str(why)]), ""
    submission = read_notebook_bytes(data, assignment.exercises, assignment.experiments)
    return submission, submission_secret(course_secret(Path.cwd()), data)


def _remove_links(assignment: str, student: str) -> None:
    """Remove what nbgrader copied for a link in a submission: a file of this machine, which the feedback would show."""
    handed_in = Path("submitted", student, assignment)
    for path in handed_in.rglob("*"):
        if path.is_symlink():
            Path("autograded", student, assignment, path.relative_to(handed_in)).unlink(missing_ok=True)


class RebuildNotebook(NbGraderPreprocessor):
    """First pass: the released notebook with the student's work in it."""

    course_root = Unicode("", help="The checkout that holds assignments/ and solutions/.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """Rebuild one notebook."""
        names = resources["nbgrader"]
        assignment = _assignment(names["assignment"], self.course_root)
        released = released_notebook(assignment, Path.cwd())
        _remove_links(assignment.name, names["student"])
        return rebuild(released, _submission(assignment, names["student"])[0]), resources


class JudgeNotebook(NbGraderPreprocessor):
    """Second pass: judge the submission, show the results in the notebook, and save the marks."""

    course_root = Unicode("", help="The checkout that holds assignments/ and solutions/.").tag(config=True)
    isolation = Unicode("bubblewrap", help="bubblewrap, or none for no isolation at all.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """Judge one notebook."""
        names = resources["nbgrader"]
        assignment = _assignment(names["assignment"], self.course_root)
        submission, secret = _submission(assignment, names["student"])
        judged = _judge(assignment.name, self.course_root, self.isolation).judge(submission, secret=secret)
        tables = {name: exercise_html(e.result) for name, e in judged.exercises.items()}
        result = judged.to_json()
        notebook = rebuild(released_notebook(assignment, Path.cwd()), submission, result, tables)
        with Gradebook(names["db_url"]) as gradebook:
            record(gradebook, assignment.name, names["student"], result, answered(notebook))
        return notebook, resources
