"""Props: what a criterion needs on the student's side of the pipe.

Autograd, a model's buffers or an optimiser do not cross from the student's process to the judge's.  A prop is a
small function of the assignment's `checks.py` that runs where the student's functions run: it makes a probe model,
reads a model's state, records what a transform was given.  What it returns is data from the student's process, so
a criterion compares it and never trusts it further than that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Prop = TypeVar("Prop", bound=Callable[..., Any])


def prop(function: Prop) -> Prop:
    """Mark a function of a checks module as a prop, for `student.prop(function, …)`.

    As an argument of the student's function it is called on the student's side too, so that no call comes back.  The
    first line of its docstring says what it does, as the subject of a message: "Running the model on images".
    """
    function.is_prop = True  # type: ignore[attr-defined]
    return function


def is_prop(function: object) -> bool:
    """Whether a function was marked as a prop."""
    return getattr(function, "is_prop", False) is True


def prop_title(function: Callable[..., Any]) -> str:
    """What a prop does, for messages: the first line of its docstring."""
    text = inspect.getdoc(function) or function.__name__.replace("_", " ")
    return text.splitlines()[0].rstrip(".")


@dataclass(frozen=True)
class Given:
    """A function of the criterion's own as an argument of the student's function, answered on the student's side.

    A plain function is called in the judge: each of its calls crosses the pipe and back while the student's function
    waits.  A given one is answered by what a prop makes; the calls are noted there, cross with the result, and are made
    here again, so that the criterion hears of them as if they had come one by one.  What was noted is data from the
    student's process, as the arguments of a call that crosses are.

    Parameters
    ----------
    function : callable
        What hears of the calls here.  In a notebook it is the argument itself.
    maker : callable
        A prop; `maker(*bound)` makes the function that answers on the student's side, as `function` does here.
    bound : tuple
        Plain values.
    """

    function: Callable[..., Any]
    maker: Callable[..., Callable[..., Any]]
    bound: tuple[Any, ...] = ()

    @property
    def __name__(self) -> str:
        return self.function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here."""
        return self.function(*args, **kwargs)
