"""All that a grading run makes of a course, to compare one run with another."""

from __future__ import annotations

import json
from typing import Any

from autograder.course import Course
from autograder.gradebook import open_gradebook


def outcome(course: Course, assignment: str) -> dict[str, dict[str, Any]]:
    """Results, notebooks and gradebook rows by student, without what is another in every run: ids and times."""
    results = {
        p.stem: json.loads(p.read_text()) for p in sorted((course.folder / "results" / assignment).glob("*.json"))
    }
    for stored in results.values():
        del stored["seconds"], stored["exercise_seconds"], stored["new_work"]
    notebooks = {p.parts[-3]: p.read_text() for p in sorted((course.folder / "autograded").glob("*/*/*.ipynb"))}
    marks = {}
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        for submission in gradebook.find_assignment(assignment).submissions:
            (notebook,) = submission.notebooks
            grades = {g.name: (g.auto_score, g.manual_score, g.needs_manual_grade) for g in notebook.grades}
            comments = {c.name: c.auto_comment for c in notebook.comments}
            marks[submission.student.id] = (submission.timestamp, grades, comments)
    return {"results": results, "notebooks": notebooks, "marks": marks}
