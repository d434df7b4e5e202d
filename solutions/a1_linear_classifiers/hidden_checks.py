"""The criteria of Assignment 1 that only grading adds: other sizes, extreme values, traps.

Coding to the visible criteria must not be enough.  Messages say what went wrong, never the inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from assignments.a1_linear_classifiers.checks import (
    Call,
    Training,
    accuracy,
    apart_from_mean,
    binary_cross_entropy,
    binary_cross_entropy_gradients,
    binary_svm_cost,
    binary_svm_gradients,
    cost,
    cross_entropy,
    cross_entropy_gradients,
    features,
    flipped,
    linear_scores,
    minibatch_gd,
    multiclass_hinge,
    multiclass_hinge_gradients,
    partly_right,
    problem,
    random_horizontal_flip,
    scalar,
    sizes,
    softmax,
    standardize,
    standardizer,
    svm_as_problem,
)
from course_utils.checking import Draw, Exercise, Student, expect

# --- Precision, for every exercise that computes with floats ----------------------------------------------------------


def add_precision(exercise: Exercise, call: Call) -> None:
    """A float64 result that float32 can hold to the last digit in all its entries went through float32."""

    @exercise.criterion(points=0.5, contract=True)
    def keeps_precision(student: Student, draw: Draw) -> None:
        """float64 inputs are computed with in float64 from beginning to end."""
        results = [expect(call(student, draw)).tensor().flatten() for _ in range(4)]
        values = torch.cat([r.to(torch.float64) for r in results if r.dtype != torch.float32])  # see keeps_form
        lost = bool((values == values.to(torch.float32)).all()) and len(values) > 0
        expect(values).all(not lost, "the result has only the digits of float32: something on the way is converted")


def first(result: object) -> object:
    """The first of a pair of results."""
    return expect(result).parts("the first result", "the second result")[0]


def lam(draw: Draw) -> float:
    """A random λ."""
    return draw.number(0.1, 0.5)


add_precision(standardizer, lambda student, draw: torch.cat([expect(r).tensor() for r in expect(
    student.standardizer(features(draw))).parts("mean", "std")]))
