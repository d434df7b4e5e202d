"""Reads the review forms that came back, and tells who reviewed what and how far reviewers agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from autograder.atomic_write import atomic_write
from autograder.course_settings import CourseSettings
from autograder.csv_table import csv_table
from autograder.harmless import harmless_line
from autograder.peer_agreement import Estimate, Reviewer, weigh
from autograder.peer_feedback import feedback_page
from autograder.peer_form import read_form
from autograder.peer_round import HandedReview, Round, code, read_reviews, round_folder, write_review
from autograder.peer_uploads import FoundForm, forms_in, who_handed_in
from autograder.roster import Roster

MAX_FAULTS = 20  # that are told of one form


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


def collect_reviews(
    course: Path, made: Round, paths: Iterable[Path], secret: str, settings: CourseSettings, roster: Roster
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
    roster : Roster
        Who takes the course; a form that one of them handed in for another is refused.
    """
    done = ReviewsCollected()
    packets = {code(secret, made.assignment, "packet", r): r for r in {*made.pairs, *made.dropped}}
    codes = {code(secret, made.assignment, "report", a): a for reviewed in made.pairs.values() for a in reviewed}
    latest: dict[str, tuple[FoundForm, HandedReview, list[str]]] = {}
    for path in paths:
        for form in forms_in(path, made.assignment, done.refused, settings.zone):
            filled = read_form(form.data, list(made.questions))
            reviewer = packets.get(filled.packet)
            if reviewer is None:
                why = (
                    filled.faults[0] if filled.faults and not filled.packet else "Its packet is not one of this round."
                )
                done.refused.append(f"{form.where}: {harmless_line(why, 300)}")
                continue
            giver = who_handed_in(form.owner, roster)
            if giver is not None and giver.student != reviewer:
                done.refused.append(
                    f"{form.where}: {giver.student} handed in the form of {reviewer}; if that is right, collect this "
                    "form by itself."
                )
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
    known = read_reviews(course, made)
    for reviewer, (_, handed, faults) in sorted(latest.items()):
        there = known.get(reviewer)
        if there is not None and there.time > handed.time:
            done.refused.append(f"{reviewer}: a later form was collected before; it stays.")
            continue
        kept = write_review(course, made.assignment, reviewer, handed)
        (done.new if kept else done.unchanged).append(reviewer)
        done.incomplete += [f"{reviewer}: {harmless_line(fault, 300)}" for fault in faults[:MAX_FAULTS]]
        if len(faults) > MAX_FAULTS:
            done.incomplete.append(f"{reviewer}: … and {len(faults) - MAX_FAULTS} more faults of the same form.")
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
