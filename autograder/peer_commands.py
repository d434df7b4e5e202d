"""The commands `autograder peer …`: peer review of reports, as DTU runs it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from autograder.console import ends_in_a_sentence, err, out
from autograder.errors import CourseError

peer_app = typer.Typer(
    help="Peer review: give every author reports of others, read the reviews, tell who has done their part.",
    no_args_is_help=True,
)

AssignmentName = Annotated[str, typer.Argument(help="Name of an assignment, such as a1_linear_classifiers or a1.")]
CourseFolder = Annotated[Path, typer.Option("--course", help="nbgrader's course folder.")]


def _there(assignment: str | None, course: Path) -> tuple[Any, Any, Any, Any, str]:
    """The assignment (where one is named), the course folder, its settings, its roster, and its secret."""
    from autograder.assignment import find_root, load_assignment
    from autograder.course import read_course
    from autograder.course_settings import read_settings
    from autograder.roster import Roster, kept_roster
    from autograder.secret import course_secret

    loaded, there = load_assignment(assignment) if assignment else None, read_course(course)
    settings = read_settings(loaded.root if loaded else find_root())
    roster = kept_roster(there, None, settings.zone) or Roster([])
    return loaded, there.folder, settings, roster, course_secret(there.folder)


@peer_app.command()
@ends_in_a_sentence
def assign(
    assignment: AssignmentName,
    reviews: Annotated[int, typer.Option(min=1, help="Reports that everybody reviews.")] = 4,
    days: Annotated[float, typer.Option(min=0, help="Days until the reviews are due.")] = 7,
    seed: Annotated[str, typer.Option(help="Another seed gives another assignment, the same one the same.")] = "0",
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Take this student out of the round; may be repeated.")
    ] = None,
    form: Annotated[
        Path | None, typer.Option(help='Questions of the review form: a TOML file with lines `name = "question"`.')
    ] = None,
    course: CourseFolder = Path("course"),
) -> None:
    """Give each author's report to others, anonymously; write a packet folder for every reviewer.

    Run again after the first time, it keeps what was given out, with its date and form, and adds who came late.
    """
    from autograder.peer_form import QUESTIONS
    from autograder.peer_packets import kept_report, submissions, write_packets
    from autograder.peer_round import Round, code, planned, read_round, round_folder, write_round
    from autograder.roster import Person
    from autograder.submission import Unreadable

    loaded, folder, settings, roster, secret = _there(assignment, course)
    reports = {}
    with err.status("Making reports"):
        for author, notebook in submissions(folder, loaded.name).items():
            shown = code(secret, loaded.name, "report", author)
            person = roster.people.get(author, Person(author))
            try:
                reports[author] = kept_report(folder, loaded.name, notebook, loaded.title, shown, person)
            except Unreadable as why:
                err.print(f"[yellow]Not in the round:[/] {author}: {why}", highlight=False, soft_wrap=True)
    if not reports:
        raise CourseError(f"Nobody's {loaded.name} is in {folder / 'submitted'}; run `autograder collect` first.")
    before = read_round(folder, loaded.name)
    due = (datetime.now(settings.zone) + timedelta(days=days)).replace(hour=23, minute=59, second=0, microsecond=0)
    new = Round(loaded.name, reviews, seed, due, _questions(form) if form else QUESTIONS)
    made, late, gone = planned(before, new, reports, without or (), secret)
    write_round(folder, made)
    reviewers = [r for r in sorted(made.pairs) if r not in made.dropped]
    packets = write_packets(folder, made, reports, reviewers, loaded.title, secret, settings)
    for what, names in (("Late, added", late), ("Taken out", gone)):
        if names:
            out.print(f"{what}: {', '.join(names)}", highlight=False, soft_wrap=True)
    counts = [sum(a in reviewed for reviewed in made.pairs.values()) for a in reviewers]
    out.print(
        f"{len(reviewers)} reviewers, {min(counts)} to {max(counts)} for each report, due "
        f"{made.due.astimezone(settings.zone):%d %B %Y, %H:%M}. {len(packets)} packets new or changed, in "
        f"{round_folder(folder, loaded.name) / 'packets'}",
        highlight=False,
        soft_wrap=True,
    )


def _questions(path: Path) -> dict[str, str]:
    import tomllib

    try:
        questions = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CourseError(f"The form {path} cannot be read: {error}.") from None
    wrong = [k for k, v in questions.items() if not k.isidentifier() or k == "comment" or not isinstance(v, str)]
    if wrong or not questions:
        name = wrong[0] if wrong else "nothing"
        raise CourseError(f'{path}: {name} is no question; write lines such as clarity = "Could you follow it?".')
    return {k: " ".join(v.split()) for k, v in questions.items()}


@peer_app.command()
@ends_in_a_sentence
def collect(
    assignment: AssignmentName,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Review forms, or folders or zip files of such, as Canvas and Moodle give them."),
    ] = None,
    course: CourseFolder = Path("course"),
) -> None:
    """Read review forms, weigh reviewers by agreement, write tables and a page for each author.

    Without files the tables are made again from what was collected. The exit status is 1 where a form was refused.
    """
    from autograder.peer_collect import collect_reviews, outcome_of, write_tables
    from autograder.peer_round import read_round

    loaded, folder, settings, roster, secret = _there(assignment, course)
    made = read_round(folder, loaded.name)
    if made is None:
        raise CourseError(
            f"{loaded.name} has no round of peer review; run `autograder peer assign {assignment}` first."
        )
    done = collect_reviews(folder, made, files or [], secret, settings, roster)
    for title, lines in (("Refused", done.refused), ("Incomplete", done.incomplete), ("Late", done.late)):
        for line in lines:
            err.print(f"{title}: {line}", highlight=False, markup=False, soft_wrap=True)
    outcome = outcome_of(folder, made)
    tables = write_tables(folder, made, outcome, secret, loaded.title)
    missing = [r for r in sorted(made.pairs) if r not in outcome.handed and r not in made.dropped]
    if missing:
        out.print(f"Missing: {', '.join(missing)}", highlight=False, soft_wrap=True)
    few = [a for a in sorted(made.pairs) if a not in outcome.reports and a not in made.dropped]
    if few:
        out.print(f"Not reviewed by anybody yet: {', '.join(few)}", highlight=False, soft_wrap=True)
    out.print(
        f"{len(done.new)} new or changed, {len(done.unchanged)} unchanged, {len(done.refused)} refused; "
        f"{sum(len(h.reviews) for h in outcome.handed.values())} reviews of {len(outcome.reports)} reports. "
        f"Tables: {', '.join(map(str, tables))}",
        highlight=False,
        soft_wrap=True,
    )
    if done.refused:
        raise typer.Exit(1)


@peer_app.command()
@ends_in_a_sentence
def status(
    need: Annotated[int, typer.Option(min=1, help="Rounds that must be done to pass.")] = 5,
    of: Annotated[int, typer.Option(min=1, help="Rounds in the whole term.")] = 6,
    late_counts: Annotated[bool, typer.Option("--late-counts", help="Reviews that came late count too.")] = False,
    course: CourseFolder = Path("course"),
) -> None:
    """Tell who has done how many rounds over the term, and who can no longer pass; written as peer/term.csv too."""
    from rich.markup import escape
    from rich.table import Table

    from autograder.atomic_write import atomic_write
    from autograder.csv_table import csv_table
    from autograder.peer_round import FOLDER, read_reviews, rounds
    from autograder.peer_term import standings

    _, folder, settings, roster, _ = _there(None, course)
    so_far = rounds(folder)
    if not so_far:
        raise CourseError(f"{folder} has no round of peer review; run `autograder peer assign` first.")
    if need > of:
        raise CourseError(f"--need {need} is more than --of {of}.")
    students = sorted({*roster.people, *(s for r in so_far for s in (*r.pairs, *r.dropped))})
    handed = {r.assignment: read_reviews(folder, r) for r in so_far}
    now = datetime.now(settings.zone)
    found = standings(students, so_far, handed, need=need, of=of, now=now, late_counts=late_counts)
    names = [r.assignment for r in so_far]
    table = Table()
    for column in ("student", *names, f"done ({need} of {of})", "verdict"):
        table.add_column(column)
    for student, standing in found.items():
        states = [standing.rounds[n] for n in names]
        colour = {"passed": "green", "cannot pass": "red"}.get(standing.verdict, "")
        table.add_row(*map(escape, (student, *states, str(standing.done), standing.verdict)), style=colour)
    out.print(table)
    rows = [(s, *(f.rounds[n] for n in names), f.done, f.verdict) for s, f in found.items()]
    path = folder / FOLDER / "term.csv"
    atomic_write(path, csv_table(("student", *names, "done", "verdict"), rows))
    out.print(str(path), highlight=False, soft_wrap=True)
