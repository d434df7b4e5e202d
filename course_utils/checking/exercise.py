"""Exercises and the criteria that they must satisfy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from course_utils.checking.draw import Draw

Condition = Callable[[Any, Draw], None]


@dataclass(frozen=True)
class Criterion:
    """One thing that an exercise must satisfy.

    Attributes
    ----------
    exercise, name : str
        Whose it is, and what it is called.
    points : float
        What it is worth.
    visible : bool
        Whether students have it in their notebook (`checks.py`) or only graders do (`hidden_checks.py`).
    contract : bool
        A criterion about *how* the function behaves (types, arguments left alone) rather than *what* it computes.
        It holds trivially for a function that computes nothing, so it earns its points only where at least one
        criterion about what is computed passes.
    condition : callable
        `condition(student, draw)` returns nothing, or raises `Unmet`.
    """

    exercise: str
    name: str
    points: float
    visible: bool
    contract: bool
    condition: Condition

    @property
    def title(self) -> str:
        """What the criterion is about: the first line of its docstring."""
        return (inspect.getdoc(self.condition) or self.name.replace("_", " ")).strip().splitlines()[0]


class Exercise:
    """One graded task, named after the function or class that the student writes.

    Parameters
    ----------
    name : str
        The name that the student's function must have.
    bonus : bool
        Whether its points come on top of the assignment's maximum.
    forbidden : sequence of str
        Dotted names that the exercise may not use, because they are what it asks for: "torch.softmax" (also as
        a method of a tensor), with a trailing ".*" everything below a module, or with an argument in brackets,
        "torch.nn.functional.cross_entropy(label_smoothing)", only a call that passes it.
    opaque : sequence of int
        Positions in the returned tuple of what is the student's own business, such as a cache: it stays on the
        student's side, whatever it is, and a criterion only has a handle to pass back.
    leans_on : sequence of str
        Earlier exercises whose results its criteria hand to it, such as the forward pass whose cache it takes.
    """

    def __init__(
        self,
        name: str,
        *,
        bonus: bool = False,
        forbidden: Sequence[str] = (),
        opaque: Sequence[int] = (),
        leans_on: Sequence[str] = (),
    ) -> None:
        if not name.isidentifier():
            raise ValueError(f"An exercise is named after a function, but {name!r} is not a Python name.")
        self.name = name
        self.bonus = bonus
        self.forbidden = tuple(forbidden)
        self.opaque = tuple(opaque)
        self.leans_on = tuple(leans_on)
        self.criteria: list[Criterion] = []

    def criterion(
        self, *, points: float, contract: bool = False, visible: bool | None = None, name: str | None = None
    ) -> Callable[[Condition], Condition]:
        """Add the decorated `condition(student, draw)`; its docstring's first line says what it is about.

        A criterion is hidden when it is written in a module called `hidden_checks`, unless `visible` says.
        """
        if points <= 0:
            raise ValueError(f"A criterion of {self.name} is worth {points} points; it must be more than 0.")

        def add(condition: Condition) -> Condition:
            own_name = name or condition.__name__
            if any(c.name == own_name for c in self.criteria):
                raise ValueError(f"{self.name} already has a criterion called {own_name}.")
            shown = condition.__module__.split(".")[-1] != "hidden_checks" if visible is None else visible
            self.criteria.append(Criterion(self.name, own_name, points, shown, contract, condition))
            return condition

        return add

    def visible(self) -> Exercise:
        """The same exercise with the criteria that students have, and no other."""
        return self.with_criteria([c for c in self.criteria if c.visible])

    def with_criteria(self, criteria: Sequence[Criterion], forbidden: Sequence[str] = ()) -> Exercise:
        """The same exercise with other criteria, and with more that it may not call."""
        rules = (*self.forbidden, *forbidden)
        other = Exercise(self.name, bonus=self.bonus, forbidden=rules, opaque=self.opaque, leans_on=self.leans_on)
        other.criteria = list(criteria)
        return other

    @property
    def max_score(self) -> float:
        """The sum of the points of all criteria known so far."""
        return sum(c.points for c in self.criteria)

    def __repr__(self) -> str:
        return f"Exercise({self.name!r}, {len(self.criteria)} criteria, {self.max_score:g} points)"


def opaque_results(exercises: Iterable[Exercise]) -> dict[str, tuple[int, ...]]:
    """The positions of the opaque results of each exercise that has any, by its name."""
    return {e.name: e.opaque for e in exercises if e.opaque}


def exercises_of(module: ModuleType) -> dict[str, Exercise]:
    """All exercises that a checks module defines, in the order in which they stand there."""
    found: Iterable[Any] = vars(module).values()
    return {e.name: e for e in found if isinstance(e, Exercise)}
