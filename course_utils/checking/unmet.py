"""Why a criterion is not met."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Comparison:
    """Two tensors that should have been equal, for the difference picture.

    Attributes
    ----------
    expected, got : Tensor
        Of the same shape, float64.
    worst : tuple of int
        Index of the largest difference.
    """

    expected: Tensor
    got: Tensor
    worst: tuple[int, ...]


@dataclass
class Unmet(Exception):
    """A criterion is not met.

    Attributes
    ----------
    message : str
        What was expected and what came, in sentences.
    kind : str
        "value", "shape", "type", "dtype", "nothing written", "exception", "changed argument", "not defined",
        "time", "crash", "forbidden", "withheld" (its points wait for others), "fault" (the criterion's own).
    causes : list of str
        The likeliest causes, most likely first.
    comparison : Comparison, optional
        For the difference picture.
    exception : str
        Which of Python's exceptions the student's function raised, where it did, itself or by a class of its own.
    """

    message: str
    kind: str = "value"
    causes: list[str] = field(default_factory=list)
    comparison: Comparison | None = None
    exception: str = ""

    def __str__(self) -> str:
        return self.message


class CriterionFault(Exception):
    """The criterion itself is wrong (a fault of the staff, never of the student)."""
