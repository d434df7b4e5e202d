"""Known wrong solutions (mistakes) and right but unusual ones (alternatives) of an exercise.

They are functions of a module `mistakes.py` or `alternatives.py`, each complete in itself but for imports and
undecorated functions of its module, so that `autograder mistakes` can submit it in place of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

Solution = TypeVar("Solution", bound=Callable[..., Any])


@dataclass(frozen=True)
class Mistake:
    """A wrong solution that students really write.

    Attributes
    ----------
    exercise, name : str
        What it solves wrongly, and what the mistake is called.
    caught_by : tuple of str
        Exactly the criteria of the exercise that it must fail.
    says : str
        What the student is told: one or two sentences on what is wrong and why.
    solution : callable
        The wrong function.
    """

    exercise: str
    name: str
    caught_by: tuple[str, ...]
    says: str
    solution: Callable[..., Any]


@dataclass(frozen=True)
class Alternative:
    """A right solution written in an unusual way; it must get full marks.

    Attributes
    ----------
    exercise, name : str
        What it solves, and what it is called.
    unusual : str
        What is unusual about it: "NumPy inside".
    solution : callable
        The function, or a class with `__call__` whose instance (made without arguments) takes the function's place;
        where the exercise is a class, another class.
    """

    exercise: str
    name: str
    unusual: str
    solution: Callable[..., Any]


def mistake(exercise: str, *, caught_by: str | Sequence[str], says: str) -> Callable[[Solution], Solution]:
    """Mark the decorated function as a `Mistake`."""
    criteria = (caught_by,) if isinstance(caught_by, str) else tuple(caught_by)

    def mark(solution: Solution) -> Solution:
        solution.variant = Mistake(exercise, solution.__name__, criteria, says, solution)  # type: ignore[attr-defined]
        return solution

    return mark


def alternative(exercise: str, *, unusual: str) -> Callable[[Solution], Solution]:
    """Mark the decorated function or class as an `Alternative`."""

    def mark(solution: Solution) -> Solution:
        solution.variant = Alternative(exercise, solution.__name__, unusual, solution)  # type: ignore[attr-defined]
        return solution

    return mark


def variants_of(module: ModuleType) -> list[Mistake | Alternative]:
    """All mistakes and alternatives of a module, in the order in which they stand there."""
    marked = (getattr(value, "variant", None) for value in vars(module).values())
    return [v for v in marked if isinstance(v, Mistake | Alternative)]
