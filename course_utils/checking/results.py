"""Results as tensors to compute with in a criterion, and no more strict than that criterion is about."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from course_utils.checking.expect import expect

NEAR = 1e-3  # of the expected size: what is further away was not made by that factor


def finite(result: Any, *shape: int, name: str = "the result") -> Tensor:
    """A result of this shape and without NaN or infinity."""
    return expect(result, name).shape(*shape).finite().tensor()


def scalar(result: Any, name: str = "the loss") -> Tensor:
    """A result that is one finite number, as a 0-d tensor."""
    return finite(result, name=name)


def apart_from_factor(result: Any, expected: Tensor, *factors: float, name: str = "the result") -> Tensor:
    """A result, times one of the factors where that makes it the expected one.

    A factor that a criterion of its own asks for, such as that of a mean, should not cost the others too.

    Parameters
    ----------
    result : object
        What the student's function returned.
    expected : Tensor
        What is expected of it.
    *factors : float
        What it may be multiplied with, 1 aside.
    name : str
        What to call it in messages.
    """
    got = expect(result, name).shape(*expected.shape).tensor()
    for factor in (1.0, *factors):
        if bool((got.double() * factor - expected).norm() <= NEAR * expected.norm()):
            return got.double() * factor
    return got
