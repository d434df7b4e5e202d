"""The command `autograder`: what staff type."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from autograder.errors import CourseError

app = typer.Typer(
    name="autograder",
    help="Build the assignments' notebooks, judge submissions in a jail, and record the marks with nbgrader.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out, err = Console(), Console(stderr=True)

AssignmentName = Annotated[str, typer.Argument(help="Name of an assignment, such as a1_linear_classifiers or a1.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; as many as there are cores by default.")]
Isolation = Annotated[
    str,
    typer.Option(help="bubblewrap, or none: students' code then may do whatever you may do on this machine."),
]
Command = TypeVar("Command", bound=Callable[..., Any])


def command(function: Command) -> Command:
    """Add a command; what the user can act on is printed as one sentence, with exit status 2."""

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

    app.command(name=function.__name__.strip("_"))(run)
    return function


def progress_bar() -> Progress:
    """A progress bar on stderr, with count and elapsed time."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
    )


def _warn_of_no_isolation(isolation: str) -> None:
    if isolation == "none":
        err.print(
            "[bold red]No isolation:[/] the code in these notebooks runs as you, with your files and your network. "
            "A student's code can read the hidden criteria and change the marks.",
            soft_wrap=True,
        )


def _settings(assignment: Any, isolation: str, folder: Path | None = None) -> Any:
    from autograder.secret import course_secret
    from autograder.workers import Settings

    _warn_of_no_isolation(isolation)
    secret = course_secret(folder or assignment.root / "build")
    return Settings(assignment.name, assignment.root, secret, isolation)


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        return
    from autograder.tables import result_table

    out.print(result_table(result))
    for oddity in result["oddities"]:
        out.print(f"Odd: {oddity}", highlight=False, markup=False, soft_wrap=True)
    bonus = f" and {result['bonus']:g} bonus points" if result["bonus"] else ""
    out.print(f"{result['score']:g} of {result['max_score']:g} points{bonus}. Isolation: {result['isolation']}.")


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@command
def judge(
    assignment: AssignmentName,
    notebook: Annotated[Path, typer.Argument(help="The notebook to judge.")],
    as_json: AsJson = False,
    isolation: Isolation = "bubblewrap",
) -> None:
    """Judge one notebook, without a gradebook."""
    from autograder.assignment import load_assignment
    from autograder.submission import read_notebook
    from autograder.workers import judge_all

    if not notebook.exists():
        raise CourseError(f"There is no file {notebook}.")
    loaded = load_assignment(assignment)
    experiments = [c.name for c in loaded.cells if c.role == "experiment"]
    submission = read_notebook(notebook, loaded.exercises, experiments)
    (outcome,) = judge_all(_settings(loaded, isolation), [("", submission)], workers=1)
    _print_result(outcome.result, as_json)


@command
def try_(
    assignment: AssignmentName,
    file: Annotated[Path, typer.Argument(help="Python code that takes the place of parts of the reference.")],
    as_json: AsJson = False,
    isolation: Isolation = "bubblewrap",
) -> None:
    """Judge the reference solution with FILE run as one more cell after it."""
    from autograder.assignment import load_assignment
    from autograder.submission import read_program
    from autograder.workers import judge_all

    loaded = load_assignment(assignment)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{file} cannot be read as text: {error}.") from None
    submission = read_program(text, loaded.exercises, file.name)
    (outcome,) = judge_all(_settings(loaded, isolation), [("", submission)], workers=1, reference_first=True)
    _print_result(outcome.result, as_json)


@command
def mistakes(assignment: AssignmentName, workers: Workers = None, isolation: Isolation = "bubblewrap") -> None:
    """Judge every known mistake and alternative solution; exit with 1 where the criteria do not tell them right."""
    from autograder.assignment import load_assignment
    from autograder.mistakes_table import judge_variants
    from autograder.tables import mistakes_table

    loaded = load_assignment(assignment)
    settings = _settings(loaded, isolation)
    with progress_bar() as bar:
        task = bar.add_task("Judging", total=len(loaded.mistakes) + len(loaded.alternatives))
        rows = judge_variants(loaded, settings, workers, lambda: bar.advance(task))
    out.print(mistakes_table(rows))
    wrong = [r for r in rows if r.faults]
    out.print(
        f"{len(loaded.mistakes)} mistakes and {len(loaded.alternatives)} alternative solutions; "
        + (
            f"[bold red]{len(wrong)} with a fault.[/]"
            if wrong
            else "all caught, all named, no right one loses a point."
        )
    )
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
