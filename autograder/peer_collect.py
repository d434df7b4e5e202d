"""Reads the review forms that came back, and tells who reviewed what and how far reviewers agree."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from zoneinfo import ZoneInfo

from autograder.atomic_write import atomic_write
from autograder.course_settings import CourseSettings
from autograder.csv_table import csv_table
from autograder.errors import CourseError
from autograder.harmless import harmless_line
from autograder.peer_agreement import Estimate, Reviewer, weigh
from autograder.peer_feedback import feedback_page
from autograder.peer_form import MAX_FORM, read_form
from autograder.peer_round import HandedReview, Round, code, read_reviews, round_folder, write_review
from autograder.uploads import BROKEN, MAX_MEMBERS

MAX_NESTED = 64 << 20  # bytes of a zip file within another


@dataclass(frozen=True)
class FoundForm:
    """A file that may be a review form: its bytes, when it was handed in, and where it was found."""

    data: bytes
    when: datetime
    where: str


@dataclass
class ReviewsCollected:
    """What a collection of review forms did.

    Attributes
    ----------
    new, unchanged : list of str
        Reviewers whose form was kept, or was there already.
    refused : list of str
        What was left out, a sentence each.
    incomplete : list of str
        What is missing in whose form, a sentence each.
    late : list of str
        Reviewers whose form came after it was due.
    """

    new: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


def forms_in(path: Path, refused: list[str], zone: ZoneInfo) -> Iterator[FoundForm]:
    """Every ``.toml`` file in a file, a folder or a zip file, and in zip files in these.

    Raises
    ------
    CourseError
        When there is no such file, or it is none of the three.
    """
    if path.is_dir():
        for found in sorted(p for p in path.rglob("*") if p.suffix.lower() in (".toml", ".zip")):
            if found.is_symlink() or not found.is_file():
                refused.append(f"{harmless_line(str(found), 400)}: not an ordinary file.")
            else:
                yield from forms_in(found, refused, zone)
    elif path.suffix.lower() == ".toml" and path.is_file():
        with path.open("rb") as stream:
            data = stream.read(MAX_FORM + 1)
        yield FoundForm(data, datetime.fromtimestamp(path.stat().st_mtime, UTC), str(path))
    elif zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            yield from _archive(stream, str(path), refused, zone, nested=True)
    elif path.exists():
        raise CourseError(f"{path} is neither a review form (.toml) nor a folder nor a zip file.")
    else:
        raise CourseError(f"There is no {path}.")


def _archive(
    stream: io.BufferedIOBase, shown: str, refused: list[str], zone: ZoneInfo, nested: bool
) -> Iterator[FoundForm]:
    try:
        with zipfile.ZipFile(stream) as archive:
            if len(archive.infolist()) > MAX_MEMBERS:
                refused.append(f"{shown}: more than {MAX_MEMBERS} members.")
                return
            for member in archive.infolist():
                kind = PurePosixPath(member.filename).suffix.lower()
                where = f"{shown}: {harmless_line(member.filename, 200)}"
                if member.is_dir() or kind not in (".toml", ".zip") or "__MACOSX" in member.filename:
                    continue
                most = MAX_FORM if kind == ".toml" else MAX_NESTED
                with archive.open(member) as opened:
                    data = opened.read(most + 1)
                if kind == ".toml":
                    yield FoundForm(data, _time(member, zone), where)
                elif nested and len(data) <= most:
                    yield from _archive(io.BytesIO(data), where, refused, zone, nested=False)
                else:
                    refused.append(f"{where}: a zip file too deep inside others, or too large.")
    except BROKEN as error:
        refused.append(f"{shown}: cannot be unpacked ({error}).")


def _time(member: zipfile.ZipInfo, zone: ZoneInfo) -> datetime:
    try:
        return datetime(*member.date_time, tzinfo=zone)
    except ValueError:
        return datetime(1980, 1, 1, tzinfo=UTC)


def collect_reviews(
    course: Path, made: Round, paths: Iterable[Path], secret: str, settings: CourseSettings
) -> ReviewsCollected:
    """Keep the reviews that are in some files; of several forms of one reviewer the latest counts.

    Parameters
    ----------
    course : Path
        The course folder.
    made : Round
        What was given out.
    paths : iterable of Path
        Forms, folders and zip files.
    secret : str
        The course's.
    settings : CourseSettings
        Its time zone, and the minutes of grace.
    """
    done = ReviewsCollected()
    packets = {code(secret, made.assignment, "packet", r): r for r in {*made.pairs, *made.dropped}}
    codes = {code(secret, made.assignment, "report", a): a for reviewed in made.pairs.values() for a in reviewed}
    latest: dict[str, tuple[FoundForm, HandedReview, list[str]]] = {}
    for path in paths:
        for form in forms_in(path, done.refused, settings.zone):
            filled = read_form(form.data, list(made.questions))
            reviewer = packets.get(filled.packet)
            if reviewer is None:
                why = (
                    filled.faults[0] if filled.faults and not filled.packet else "Its packet is not one of this round."
                )
                done.refused.append(f"{form.where}: {why}")
                continue
            late = form.when > made.due + timedelta(minutes=settings.late.grace_minutes)
            handed, faults = HandedReview(form.when, late), list(filled.faults)
            for report, review in filled.reviews.items():
                author = codes.get(report)
                if author in made.pairs[reviewer]:
                    handed.reviews[str(author)] = review
                else:
                    faults.append(f"Report {harmless_line(report, 40)} is not in this packet.")
            before = latest.get(reviewer)
            if before is not None:
                dropped = form if form.when < before[0].when else before[0]
                done.refused.append(f"{dropped.where}: {reviewer} handed in another form, which is later.")
            if before is None or form.when >= before[0].when:
                latest[reviewer] = form, handed, faults
    for reviewer, (_, handed, faults) in sorted(latest.items()):
        there = read_reviews(course, made).get(reviewer)
        if there is not None and there.time > handed.time:
            done.refused.append(f"{reviewer}: a later form was collected before; it stays.")
            continue
        kept = write_review(course, made.assignment, reviewer, handed)
        (done.new if kept else done.unchanged).append(reviewer)
        done.incomplete += [f"{reviewer}: {harmless_line(fault, 300)}" for fault in faults]
        if handed.late:
            done.late.append(reviewer)
    return done


@dataclass
class Outcome:
    """What the reviews of a round come to.

    Attributes
    ----------
    handed : dict of str to HandedReview
        By reviewer.
    reviewers : dict of str to Reviewer
        How far each agrees with the others.
    reports : dict of str to Estimate
        Every reviewed report, by author.
    """

    handed: dict[str, HandedReview]
    reviewers: dict[str, Reviewer]
    reports: dict[str, Estimate]


def outcome_of(course: Path, made: Round) -> Outcome:
    """Weigh the reviews that have been collected."""
    handed = read_reviews(course, made)
    scores = {(r, a): review.score for r, h in handed.items() for a, review in h.reviews.items()}
    return Outcome(handed, *weigh(scores))


def write_tables(course: Path, made: Round, outcome: Outcome, secret: str, title: str) -> list[Path]:
    """Write the tables of a round, and a page for each author with what the reviewers said; returns the tables."""
    folder = round_folder(course, made.assignment)
    people, pairs, reports = [], [], []
    for reviewer, authors in sorted(made.pairs.items()):
        handed, agreed = outcome.handed.get(reviewer), outcome.reviewers.get(reviewer)
        given = len(handed.reviews) if handed else 0
        measures = (agreed.weight, agreed.distance, agreed.leniency) if agreed else (None, None, None)
        late = "yes" if handed and handed.late else ""
        dropped = "yes" if reviewer in made.dropped else ""
        people.append((reviewer, len(authors), given, late, dropped, *measures))
        for author in authors:
            review = handed.reviews.get(author) if handed else None
            scores = [review.scores[q] if review else None for q in made.questions]
            shown = code(secret, made.assignment, "report", author)
            state = ("late" if late else "done") if review else "missing"
            pairs.append((reviewer, author, shown, state, *scores, review.score if review else None))
    for author in sorted(made.pairs):
        asked = sum(author in reviewed for reviewed in made.pairs.values())
        estimate = outcome.reports.get(author)
        measures = (estimate.mean, estimate.weighted, estimate.spread) if estimate else (None, None, None)
        shown = code(secret, made.assignment, "report", author)
        reports.append((author, shown, asked, estimate.reviews if estimate else 0, *measures))
        comments = [h.reviews[author] for _, h in sorted(outcome.handed.items()) if author in h.reviews]
        if comments:
            page = feedback_page(title, made.questions, comments)
            atomic_write(folder / "feedback" / f"{author}.html", page)
    tables = {
        "reviewers.csv": (
            ("reviewer", "assigned", "handed_in", "late", "dropped", "weight", "distance", "leniency"),
            people,
        ),
        "reports.csv": (("author", "code", "reviewers", "reviews", "mean", "weighted", "spread"), reports),
        "who_reviewed_whom.csv": (("reviewer", "author", "code", "state", *made.questions, "score"), pairs),
    }
    for name, (header, rows) in tables.items():
        atomic_write(folder / name, csv_table(header, rows))
    return [folder / name for name in tables]
