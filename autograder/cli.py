"""The command `autograder`: what staff type."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from autograder.console import ends_in_a_sentence, err, out
from autograder.errors import CourseError
from autograder.peer_commands import peer_app

app = typer.Typer(
    name="autograder",
    help="Build the assignments' notebooks, judge submissions in a jail, and record the marks with nbgrader.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(peer_app, name="peer")

AssignmentName = Annotated[str, typer.Argument(help="Name of an assignment, such as a1_linear_classifiers or a1.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; as many as there are cores by default.")]
Isolation = Annotated[
    str,
    typer.Option(help="bubblewrap, or none: students' code then may do whatever you may do on this machine."),
]
Command = TypeVar("Command", bound=Callable[..., Any])


def command(function: Command) -> Command:
    """Add a command; what the user can act on is printed as one sentence, with exit status 2."""
    app.command(name=function.__name__.strip("_"))(ends_in_a_sentence(function))
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
    from autograder.course_settings import read_settings
    from autograder.judging import Settings
    from autograder.secret import course_secret

    _warn_of_no_isolation(isolation)
    limits = read_settings(assignment.root).limits
    secret = course_secret(folder or assignment.root / "build")
    return Settings(assignment.name, assignment.root, secret, isolation, limits.time_limits(), limits.resources())


def _result_of(outcome: Any) -> dict[str, Any]:
    if outcome.failure:
        raise CourseError(f"This could not be judged, by a fault of the autograder: {outcome.failure}")
    return outcome.result


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
    from autograder.judging import Work, judge_here, submission_secret
    from autograder.submission import Unreadable, file_bytes

    if not notebook.exists():
        raise CourseError(f"There is no file {notebook}.")
    settings = _settings(load_assignment(assignment), isolation)
    try:
        data, unreadable = file_bytes(notebook), ""
    except Unreadable as why:
        data, unreadable = b"", str(why)
    work = Work("", data, submission_secret(settings.secret, data), unreadable)
    _print_result(_result_of(judge_here(settings, work)), as_json)


@command
def try_(
    assignment: AssignmentName,
    file: Annotated[Path, typer.Argument(help="Python code that takes the place of parts of the reference.")],
    as_json: AsJson = False,
    isolation: Isolation = "bubblewrap",
) -> None:
    """Judge the reference solution with FILE run as one more cell after it."""
    from autograder.assignment import load_assignment
    from autograder.judging import Work, judge_here, submission_secret

    try:
        data = file.read_text(encoding="utf-8").encode()
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{file} cannot be read as text: {error}.") from None
    settings = _settings(load_assignment(assignment), isolation)
    secret = submission_secret(settings.secret, data)
    work = Work("", data, secret, program=file.name, reference_first=True)
    _print_result(_result_of(judge_here(settings, work)), as_json)


@command
def mistakes(
    assignment: AssignmentName,
    exercises: Annotated[
        list[str] | None, typer.Option("--exercise", help="Only those of this exercise; may be repeated.")
    ] = None,
    workers: Workers = None,
    isolation: Isolation = "bubblewrap",
) -> None:
    """Judge every known mistake and alternative solution; exit with 1 where the criteria do not tell them right."""
    from autograder.assignment import load_assignment
    from autograder.course_settings import read_settings
    from autograder.judging import Settings
    from autograder.mistakes_table import judge_variants
    from autograder.tables import mistakes_table

    loaded = load_assignment(assignment)
    if exercises:
        loaded = loaded.with_variants_of(exercises)
    _warn_of_no_isolation(isolation)
    # Nothing here is secret, and the table must be the same on every machine.
    limits = read_settings(loaded.root).limits
    settings = Settings(loaded.name, loaded.root, "known mistakes", isolation, limits.time_limits(), limits.resources())
    with progress_bar() as bar:
        task = bar.add_task("Judging", total=len(loaded.mistakes) + len(loaded.alternatives))
        rows = judge_variants(loaded, settings, workers, lambda: bar.advance(task))
    out.print(mistakes_table(rows))
    wrong = [r for r in rows if r.faults]
    verdict = "all caught, all named, no right one loses a point." if rows else "nothing to judge."
    out.print(
        f"{len(loaded.mistakes)} mistake{'s' * (len(loaded.mistakes) != 1)} and {len(loaded.alternatives)} alternative "
        f"solution{'s' * (len(loaded.alternatives) != 1)}; "
        + (f"[bold red]{len(wrong)} with a fault.[/]" if wrong else verdict)
    )
    if wrong:
        raise typer.Exit(1)


Names = Annotated[list[str] | None, typer.Argument(help="Assignments; all of them when none is named.")]
CourseFolder = Annotated[Path, typer.Option("--course", help="nbgrader's course folder.")]


def _assignments(names: list[str] | None) -> list[Any]:
    from autograder.assignment import assignment_names, load_assignment

    return [load_assignment(name) for name in names or assignment_names()]


@command
def build(
    names: Names = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 where a notebook is stale.")
    ] = False,
    course: Annotated[
        Path | None, typer.Option(help="Put the assignments into this nbgrader course folder too.")
    ] = None,
) -> None:
    """Build the student notebooks from their sources."""
    from autograder.build import build as build_notebook
    from autograder.course import create_course

    stale = False
    assignments = _assignments(names)
    for assignment in assignments:
        built = build_notebook(assignment, check=check)
        stale |= built.stale
        state = ("stale" if check else "written") if built.stale else "up to date"
        cells = f" (cells: {', '.join(built.changed)})" if built.changed and check else ""
        out.print(f"{built.path}: {state}{cells}", highlight=False, soft_wrap=True)
    if course is not None and not check:
        create_course(course, assignments, console=out)
    if check and stale:
        raise typer.Exit(1)


@command
def release(
    names: Names = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the bundle; the zip file is put beside it.")] = None,
) -> None:
    """Make the student bundle: notebooks, visible checks and course_utils, and nothing of staff's."""
    from autograder.release import release as make_bundle

    released = make_bundle(_assignments(names), output)
    out.print(f"{released.folder}\n{released.archive}", highlight=False, soft_wrap=True)


@command
def collect(
    assignment: AssignmentName,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Downloads of Canvas or Moodle, zip files of `course submit`, notebooks named after students, or "
            "folders or zip files of such."
        ),
    ],
    course: CourseFolder = Path("course"),
    roster: Annotated[
        Path | None,
        typer.Option(
            help="Who takes the course: a CSV with a column student, Canvas's exported gradebook, or Moodle's grading "
            "worksheet. It is kept in the course folder, for the next time."
        ),
    ] = None,
) -> None:
    """Put what students handed in into the course folder; exit with 1 where something was refused."""
    from autograder.assignment import load_assignment
    from autograder.collect import collect as collect_files
    from autograder.course import read_course
    from autograder.course_settings import read_settings
    from autograder.roster import kept_roster

    loaded, there = load_assignment(assignment), read_course(course)
    settings = read_settings(loaded.root)
    known = kept_roster(there, roster, settings.zone)
    released = loaded.notebook.read_bytes() if loaded.notebook.is_file() else b""
    done = collect_files(files, loaded.name, there.folder, settings, known, released)
    for title, style, lines in (
        ("Refused", "red", done.refused),
        ("Late", "yellow", done.late),
        ("Twice", "dim", done.superseded),
        ("Alike", "yellow", done.alike),
        ("Note", "yellow", done.remarks),
    ):
        for line in lines:
            err.print(f"[{style}]{title}:[/] {escape(line)}", highlight=False, soft_wrap=True)
    if done.missing:
        err.print(f"[yellow]Missing:[/] {escape(', '.join(done.missing))}", highlight=False, soft_wrap=True)
    counts = {
        "new or changed": len(done.students),
        "unchanged": len(done.unchanged),
        "late": len(done.late),
        "refused": len(done.refused),
    }
    if known is not None:
        counts["missing"] = len(done.missing)
    out.print(", ".join(f"{n} {what}" for what, n in counts.items()) + ".", highlight=False)
    if done.refused:
        raise typer.Exit(1)


@command
def grade(
    assignment: AssignmentName,
    course: CourseFolder = Path("course"),
    students: Annotated[list[str] | None, typer.Option("--student", help="Only this student; may be repeated.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Judge also what has not changed.")] = False,
    workers: Workers = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler whose workers judge, in place of processes of this machine."),
    ] = None,
    isolation: Annotated[str | None, typer.Option(help="Other than the course's own: bubblewrap or none.")] = None,
) -> None:
    """Judge the submissions of a course folder and record the marks in nbgrader's gradebook."""
    from autograder.assignment import load_assignment
    from autograder.atomic_write import atomic_write
    from autograder.course import read_course
    from autograder.grade import grade as grade_course
    from autograder.gradebook import shown_url
    from autograder.summary import summary_csv
    from autograder.tables import class_table

    loaded, there = load_assignment(assignment), read_course(course)
    settings = _settings(loaded, isolation or there.isolation, there.folder)
    with progress_bar() as bar:
        task = bar.add_task("Judging", total=None)
        graded = grade_course(
            loaded,
            there.folder,
            settings,
            there.db_url,
            course_id=there.course_id,
            students=students or (),
            force=force,
            workers=workers,
            scheduler=scheduler,
            started=lambda total: bar.update(task, total=total),
            progress=lambda: bar.advance(task),
        )
    table, text = there.folder / f"{loaded.name}.csv", summary_csv(graded.results)
    if not table.is_file() or table.read_text(encoding="utf-8") != text:
        atomic_write(table, text)
    out.print(class_table(graded.results))
    out.print(
        f"{len(graded.judged)} judged, {len(graded.results) - len(graded.judged)} unchanged, "
        f"{len(graded.missing)} without a submission. Marks: {shown_url(there.db_url)}; table: {table}",
        highlight=False,
        soft_wrap=True,
    )
    for student, why in graded.failed.items():
        err.print(f"Not judged: {student}: {why}", markup=False, highlight=False, soft_wrap=True)
    if graded.failed:
        raise typer.Exit(1)


@command
def feedback(
    assignment: AssignmentName,
    course: CourseFolder = Path("course"),
    force: Annotated[bool, typer.Option("--force", help="Make also the pages that are up to date.")] = False,
) -> None:
    """Make every student's feedback page."""
    from autograder.assignment import load_assignment
    from autograder.course import read_course
    from autograder.course_settings import read_settings
    from autograder.feedback import make_feedback
    from autograder.final_marks import final_marks
    from autograder.gradebook import open_gradebook

    loaded, there = load_assignment(assignment), read_course(course)
    settings = read_settings(loaded.root)
    with open_gradebook(there.db_url, there.course_id) as gradebook:
        marks = final_marks(loaded, there, settings, gradebook)
    with progress_bar() as bar:
        total = len(list((there.folder / "autograded").glob(f"*/{loaded.name}/{loaded.name}.ipynb")))
        task = bar.add_task("Feedback", total=total)
        pages = make_feedback(
            there,
            loaded.name,
            title=settings.title,
            sentences={s: m.sentences() for s, m in marks.items()},
            force=force,
            progress=lambda: bar.advance(task),
        )
    out.print(f"{len(pages)} pages in {there.folder / 'feedback'}", highlight=False, soft_wrap=True)


@command
def report(assignment: AssignmentName, course: CourseFolder = Path("course")) -> None:
    """Write a page on the class: marks, exercises, mistakes, code that is alike, and oddities."""
    from autograder.assignment import load_assignment
    from autograder.course import read_course
    from autograder.course_settings import read_settings
    from autograder.report import make_report

    loaded, there = load_assignment(assignment), read_course(course)
    made = make_report(loaded, there, read_settings(loaded.root))
    out.print(f"{made.page}\n{made.exercises}\n{made.mistakes}\n{made.alike}", highlight=False, soft_wrap=True)


@command
def export(
    names: Annotated[
        list[str] | None, typer.Argument(help="Assignments; all that somebody handed in when none is named.")
    ] = None,
    to: Annotated[str, typer.Option(help="canvas, moodle or csv.")] = "csv",
    course: CourseFolder = Path("course"),
    roster: Annotated[
        Path | None, typer.Option(help="As for collect; the one kept in the course folder by default.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The table to write; in course/exported by default.")] = None,
    provisional: Annotated[
        bool, typer.Option("--provisional", help="Count what a person has not marked yet as nothing.")
    ] = False,
) -> None:
    """Write final marks, with late policy and bonus, and a trace of every number; exit with 1 where some are open."""
    from autograder.course import read_course
    from autograder.course_settings import read_settings
    from autograder.export import export_marks
    from autograder.gradebook import open_gradebook
    from autograder.roster import kept_roster

    there = read_course(course)
    if not names:
        with open_gradebook(there.db_url, there.course_id) as gradebook:
            names = sorted(a.name for a in gradebook.assignments if a.submissions)
    if not names:
        raise CourseError(f"Nobody has handed in anything in {there.folder}.")
    assignments = _assignments(names)
    settings = read_settings(assignments[0].root)
    known = kept_roster(there, roster, settings.zone)
    done = export_marks(assignments, there, settings, to, roster=known, output=output, provisional=provisional)
    for line in done.left_out:
        err.print(f"[yellow]Left out:[/] {escape(line)}", highlight=False, soft_wrap=True)
    if done.open and (to == "csv" or provisional):
        err.print(
            f"[yellow]Provisional:[/] {len(done.open)} students wait for a person's marks: "
            f"{escape(', '.join(list(done.open)[:20]))}{' …' if len(done.open) > 20 else ''}",
            highlight=False,
            soft_wrap=True,
        )
    out.print(f"{done.count} students: {done.table}\nLine by line: {done.trace}", highlight=False, soft_wrap=True)
    if done.left_out or done.open:
        raise typer.Exit(1)


@command
def solve(
    assignment: Annotated[str | None, typer.Argument(help="Name of an assignment, such as a1.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All assignments, one after another, and a page of all.")
    ] = False,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "--text",
            help="What to run on: auto; cifar10, digits_in_scenes, tinyshakespeare or another set of "
            "datasets/registry.toml; or the path of a text file. With --all, a notebook that cannot run on it takes "
            "a set of its own.",
        ),
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; build/solve/ASSIGNMENT by default, with --all build/solve.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="With --all: run also what has not changed.")] = False,
) -> None:
    """Run reference notebooks with their experiments; exit with 1 where a number leaves its published range."""
    from autograder.assignment import load_assignment
    from autograder.solve import solve as run_notebook
    from autograder.solve_all import compared_with_published
    from autograder.solve_progress import SolveProgress
    from autograder.tables import comparison_table

    if every == (assignment is not None):
        raise CourseError("Name one assignment, such as `autograder solve a1`, or give --all.")
    if assignment is None:
        _solve_all(data, output, fresh)
        return
    loaded = load_assignment(assignment)
    with SolveProgress(out, [loaded.name]) as progress:
        solved = run_notebook(loaded, data=data, output=output, watch=progress.watch(loaded.name))
    comparisons = compared_with_published(loaded, solved.folder)
    if comparisons:
        out.print(comparison_table({loaded.name: comparisons}))
    out.print(
        f"{solved.notebook}\n{solved.page}\n{solved.numbers}\n{len(solved.figures)} figures, "
        f"{solved.seconds:.0f} s in all.",
        highlight=False,
        soft_wrap=True,
    )
    if any(c.fails for c in comparisons):
        raise typer.Exit(1)


def _solve_all(data: str, output: Path | None, fresh: bool) -> None:
    from autograder.assignment import find_root
    from autograder.atomic_write import atomic_write
    from autograder.solve_all import Reference, solve_all
    from autograder.solve_page import references_page
    from autograder.solve_progress import SolveProgress
    from autograder.tables import comparison_table

    assignments = _assignments(None)
    with SolveProgress(out, [a.name for a in assignments]) as progress:

        def finished(done: Reference) -> None:
            how = "failed" if done.failure else "has not changed since it ran" if done.kept else "done"
            progress.finished(done.assignment.name, how)
            out.print(f"{done.assignment.name} on {done.data}: {how}", highlight=False, markup=False)

        references = solve_all(
            assignments, data=data, output=output, fresh=fresh, watch=progress.watch, finished=finished
        )
    page = (output or find_root() / "build" / "solve") / "references.html"
    atomic_write(page, references_page(references))
    out.print(comparison_table({r.assignment.name: r.comparisons for r in references}))
    for reference in references:
        if reference.failure:
            err.print(
                f"{reference.assignment.name}: {reference.failure}", markup=False, highlight=False, soft_wrap=True
            )
    out.print(f"{page}", highlight=False, soft_wrap=True)
    if any(r.fails for r in references):
        raise typer.Exit(1)


@command
def demo(
    assignment: Annotated[str, typer.Argument(help="What the class works on.")] = "a1",
    folder: Annotated[Path, typer.Option(help="Course folder to make.")] = Path("build/demo"),
    size: Annotated[int, typer.Option(min=1, help="Number of simulated students.")] = 20,
    workers: Workers = None,
    isolation: Isolation = "bubblewrap",
) -> None:
    """Grade a class of simulated students, from notebook to gradebook and feedback; nothing is downloaded."""
    from autograder.assignment import load_assignment
    from autograder.demo import run_demo
    from autograder.gradebook import shown_url
    from autograder.tables import class_table

    _warn_of_no_isolation(isolation)
    with progress_bar() as bar:

        def step(title: str, total: int) -> Callable[[], None]:
            task = bar.add_task(title, total=total)
            return lambda: bar.advance(task)

        loaded = load_assignment(assignment)
        made = run_demo(loaded, folder, size=size, isolation=isolation, workers=workers, step=step)
    out.print(class_table(made.graded.results, {s.name: s.story for s in made.students}))
    there = made.course.folder
    out.print(
        f"Gradebook: {shown_url(made.course.db_url)}\nFeedback:  {there / 'feedback'} ({len(made.pages)} pages, "
        f"for example {made.pages[-1]})\nReport:    {made.report}\n"
        f"Summary:   {made.table}\n"
        f"Notebooks: {there / 'handed_in'} (as handed in), {there / 'autograded'} (as graded)\n"
        f"Look at it in nbgrader: cd {there} && jupyter lab, menu Nbgrader, Formgrader",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    app()
