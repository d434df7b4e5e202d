"""Checking: write criteria once, run them in a student's notebook and in the judge.

A checks module defines exercises and their criteria:

>>> softmax = Exercise("softmax")
>>> @softmax.criterion(points=1)
... def rows_sum_to_one(student, draw):
...     '''Every row of the result sums to one.'''
...     expect(student.softmax(draw.normal(5, 7)).sum(1)).close_to(torch.ones(5))
"""

from course_utils.checking.causes import FROM_ELSEWHERE
from course_utils.checking.contract import add_contract, add_precision
from course_utils.checking.draw import Draw, as_dtype, away_from_zero, strided
from course_utils.checking.exercise import Criterion, Exercise, exercises_of, opaque_results
from course_utils.checking.expect import Form, Nested, Opaque, expect, unchanged_arguments
from course_utils.checking.notebook import checker
from course_utils.checking.props import Given, prop
from course_utils.checking.results import apart_from_factor, finite, scalar
from course_utils.checking.slopes import follows_slopes
from course_utils.checking.student import LocalStudent, Student
from course_utils.checking.unmet import CriterionFault, Unmet
from course_utils.checking.values import Foreign, describe
from course_utils.checking.variants import Alternative, Mistake, alternative, mistake, variants_of
from course_utils.checking.verdict import CriterionResult, ExerciseResult, judge_exercise

__all__ = [
    "FROM_ELSEWHERE",
    "Alternative",
    "Criterion",
    "CriterionFault",
    "CriterionResult",
    "Draw",
    "Exercise",
    "ExerciseResult",
    "Foreign",
    "Form",
    "Given",
    "LocalStudent",
    "Mistake",
    "Nested",
    "Opaque",
    "Student",
    "Unmet",
    "add_contract",
    "add_precision",
    "alternative",
    "apart_from_factor",
    "as_dtype",
    "away_from_zero",
    "checker",
    "describe",
    "exercises_of",
    "expect",
    "finite",
    "follows_slopes",
    "judge_exercise",
    "mistake",
    "opaque_results",
    "prop",
    "scalar",
    "strided",
    "unchanged_arguments",
    "variants_of",
]
