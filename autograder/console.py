"""Where commands print, and how they end where the user can do something about it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

from autograder.errors import CourseError

out, err = Console(), Console(stderr=True)


def ends_in_a_sentence(function: Callable[..., Any]) -> Callable[..., Any]:
    """Print what the user can act on as one sentence, with exit status 2; an interruption ends with 130."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except CourseError as error:
            err.print(f"[bold red]autograder:[/] {error}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            err.print("autograder: interrupted; run the same command again to go on.")
            raise typer.Exit(130) from None

    return run
