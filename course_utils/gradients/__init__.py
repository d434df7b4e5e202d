"""A gradient checker that teaches: what is wrong, where, by how much, and the likeliest cause.

>>> report = check_gradients(
...     lambda W, b: cost(X, y, W, b, lam), {"W": W, "b": b}, cross_entropy_gradients(X, y, W, b, lam)
... )  # doctest: +SKIP
>>> report  # doctest: +SKIP
Gradient check: pass.
...
"""

from course_utils.gradients.check import check_gradients
from course_utils.gradients.diagnosis import Cause
from course_utils.gradients.error import GradientCheckError
from course_utils.gradients.report import GradientReport, ParameterReport

__all__ = ["Cause", "GradientCheckError", "GradientReport", "ParameterReport", "check_gradients"]
