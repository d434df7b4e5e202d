"""The student's command: ``course``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from .data import DataError, load_digits_in_scenes, store
from .data.registry import DataSet, read_registry, registered
from .doctor import examine
from .errors import InputError

app = typer.Typer(
    help="Tools for the course's assignments.", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown"
)

MARKS = {"good": "[green]✓[/]", "note": "[yellow]![/]", "bad": "[red]✗[/]"}


@app.callback()
def _course() -> None:
    """Keep subcommands even while there is only one."""


@app.command()
def data(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which sets; without any, cifar10.", show_default=False)
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show every set, its terms, and what of it is on this machine.")
    ] = False,
) -> None:
    """Download data sets, verified; a download that was broken off resumes.

    Sets are looked for in the folder that the environment variable COURSE_DATA names and in a cache of your own;
    downloads go to the first of these that can be written to. CIFAR-10 needs 170 MB of download and 0.6 GB of disk.
    Without a network, copy the folder cifar-10-batches-py, or the archive cifar-10-python.tar.gz, into a folder and
    set COURSE_DATA to that folder.
    """
    try:
        if show_list:
            for dataset in [registered(name) for name in names] if names else read_registry().values():
                _console().print(_described(dataset))
            return
        for dataset in [registered(name) for name in names or ["cifar10"]]:
            typer.echo(_fetched(dataset))
    except DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def doctor() -> None:
    """Check whether this machine is ready, and say what to do where it is not.

    Looks at Python, PyTorch, the device, the disk, the data and the browser. The exit status is 1 if something stands
    in the way.
    """
    console = _console()
    bad = 0
    for finding in examine():
        bad += finding.state == "bad"
        console.print(f"{MARKS[finding.state]} [bold]{finding.subject}[/]: ", end="")
        console.print(f"{finding.found}. {finding.advice}", markup=False, highlight=False)
    if bad:
        raise typer.Exit(1)


AssignmentName = Annotated[str, typer.Argument(help="Name of the assignment, or its beginning: a1.")]
NotebookFile = Annotated[
    Path | None, typer.Option("--notebook", help="Another notebook than the one that was handed out.")
]


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let bad input end a command with one sentence and exit status 2, and an interruption with 130."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            typer.echo(f"course: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("course: interrupted; nothing was written.", err=True)
            raise typer.Exit(130) from None

    return run


@app.command()
@_told
def check(
    assignment: AssignmentName,
    exercises: Annotated[
        list[str] | None, typer.Argument(help="Which exercises; without any, all of them.", show_default=False)
    ] = None,
    notebook: NotebookFile = None,
) -> None:
    """Hold the visible criteria against your notebook as it is saved; exit with 1 where one is not met.

    The cells of your exercises, and what they need of other cells, run in a process of their own, as they do when
    your notebook is graded: at most 30 s a cell and 10 s a criterion. Experiments are not run.
    """
    from .handed_out import find_assignment
    from .student_check import check_saved, print_checked

    checked = check_saved(find_assignment(assignment, notebook), exercises or (), _console(err=True))
    print_checked(checked, _console(), brief=not exercises)
    if not checked.passed:
        raise typer.Exit(1)


@app.command()
@_told
def submit(
    assignment: AssignmentName,
    student: Annotated[
        str | None,
        typer.Option("--student", help="The id to hand in under; kept for the next time.", show_default=False),
    ] = None,
    notebook: NotebookFile = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the zip file; the bundle's own by default.")] = None,
) -> None:
    """Check your notebook, say what is unfinished, and write the one zip file to hand in, with a receipt.

    Nothing is sent anywhere. Run it again whenever you changed something: the zip file is replaced.
    """
    from .checking.fresh_process import Checked
    from .handed_out import find_assignment, read_notebook
    from .student_check import check_saved
    from .student_submit import check_student, known_student
    from .student_submit import submit as write
    from .unfinished import unfinished

    found = find_assignment(assignment, notebook)
    student = student or known_student(found)
    if not student:
        if not sys.stdin.isatty():
            raise InputError(f"Who hands in? Say so once: course submit {assignment} --student YOUR_ID.")
        student = typer.prompt("Your id in this course (it is kept for the next time)")
    student = check_student(student)
    read = read_notebook(found.notebook)
    try:
        checked, left = check_saved(found, (), _console(err=True)), []
    except InputError as why:  # what cannot be checked can be handed in all the same
        checked, left = Checked(*read, results=[]), [f"The checks could not be run: {why}"]
    console = _console()
    left += unfinished(checked, found.folder)
    if left:
        console.print("[yellow]Not finished, but handed in as it is:[/]")
    for sentence in left:
        console.print(f"  {sentence}", markup=False, highlight=False)
    if not left:
        console.print("[green]All visible criteria are met, all questions answered, all experiments run.[/]")
    handed = write(found, checked, student, output)
    console.print(
        f"{handed.archive} ({max(1, handed.size // 1000):,} kB) holds {found.notebook.name} as it was last saved, for "
        f"{student}. Receipt: {handed.receipt.code}.",
        markup=False,
        highlight=False,
    )
    console.print(
        "Now hand in this file where your course collects assignments; nothing has been sent. Keep it: its receipt "
        "shows what you handed in. If you change something, run this again and hand in the new file.",
        highlight=False,
    )


@app.command()
@_told
def report(
    assignment: AssignmentName,
    author: Annotated[
        str | None, typer.Option(help='Who stands above it; the id you hand in under by default, "" for nobody.')
    ] = None,
    notebook: NotebookFile = None,
    output: Annotated[Path | None, typer.Option(help="Folder to write to; the bundle's own by default.")] = None,
    pdf: Annotated[bool, typer.Option(help="Print the page to PDF too.")] = True,
) -> None:
    """Make the report of your saved notebook: figures, numbers and written answers, without code; HTML and PDF.

    Nothing is run. The PDF is printed by the Chrome, Chromium or Edge of this machine, or by the program that the
    environment variable COURSE_BROWSER names; the exit status is 1 where there is none.
    """
    from .handed_out import find_assignment
    from .report.printing import CannotPrint, print_pdf
    from .student_report import write_report
    from .student_submit import known_student

    found = find_assignment(assignment, notebook)
    page, missing = write_report(found, known_student(found) if author is None else author, output)
    console = _console()
    for sentence in missing:
        console.print(sentence, markup=False, highlight=False)
    console.print(str(page), markup=False, highlight=False)
    if pdf:
        try:
            print_pdf(page, page.with_suffix(".pdf"))
        except CannotPrint as why:
            typer.echo(str(why), err=True)
            raise typer.Exit(1) from None
        console.print(str(page.with_suffix(".pdf")), markup=False, highlight=False)


def _console(err: bool = False) -> Console:
    """A console for what is printed now; made anew because a test or a pipe may have replaced stdout."""
    return Console(soft_wrap=True, stderr=err)


def _fetched(dataset: DataSet) -> str:
    """Fetch one set and say where it is."""
    if dataset.name == "digits_in_scenes":
        return f"{dataset.title}: {load_digits_in_scenes()}"
    if dataset.kind == "embedded":
        return f"{dataset.title}: comes with Python, so there is nothing to download."
    return f"{dataset.title}: complete and verified in {store.fetch(dataset)}."


def _described(dataset: DataSet) -> Text:
    """A set's paragraph in the list: what it is, whether it is here, its size and its terms."""
    held, state = _state(dataset)
    size = f"; {dataset.size / 1e6:.1f} MB to download" if dataset.size and not held else ""
    paragraph = Text(f"{dataset.name}  ", style="bold")
    paragraph.append(state + size, style="not bold green" if held else "not bold yellow")
    paragraph.append(
        f"\n  {dataset.title}: {dataset.what}.\n  Licence: {dataset.licence}.\n  Cite: {dataset.citation}.\n",
        style="not bold",
    )
    return paragraph


def _state(dataset: DataSet) -> tuple[bool, str]:
    """Whether this machine has the set, and where or why not in words."""
    if dataset.kind == "embedded":
        return True, "always here, nothing to download"
    holding = store.inspect(dataset)
    if holding.sound:
        return True, f"in {holding.root}" + (f" ({holding.note})" if holding.note else "")
    return False, f"damaged: {holding.fault}" if holding.damaged else "not on this machine"
