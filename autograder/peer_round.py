"""One round of peer review: who is in it, what was given out, and what came back; kept in the course folder."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from autograder.atomic_write import atomic_write
from autograder.errors import CourseError
from autograder.peer_assignment import Pairs, add_late, drop, who_reviews_whom
from autograder.peer_form import Review

FOLDER = "peer"  # in the course folder
STATE = "round.json"
DIGITS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # without those that are mistaken for one another


@dataclass
class Round:
    """One assignment's peer review.

    Attributes
    ----------
    assignment : str
        Its name.
    reviews : int
        Reports that everybody reviews.
    seed : str
        What the assignment followed from, beside the course's secret.
    due : datetime
        When reviews are due; with a time zone.
    questions : dict of str to str
        What the form asks, by name.
    pairs : dict of str to list of str
        Whose reports each reviewer reviews.
    dropped : list of str
        Who was taken out of the round.
    """

    assignment: str
    reviews: int
    seed: str
    due: datetime
    questions: dict[str, str]
    pairs: Pairs = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def round_folder(course: Path, assignment: str) -> Path:
    """Where a round is kept."""
    return course / FOLDER / assignment


def read_round(course: Path, assignment: str) -> Round | None:
    """The round of an assignment, None where there is none.

    Raises
    ------
    CourseError
        When the file cannot be read.
    """
    path = round_folder(course, assignment) / STATE
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Round(**{**stored, "due": datetime.fromisoformat(stored["due"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CourseError(f"{path} is not a round of peer review: {error}.") from None


def rounds(course: Path) -> list[Round]:
    """All rounds of a course, by the time when their reviews are due."""
    names = sorted(p.parent.name for p in (course / FOLDER).glob(f"*/{STATE}"))
    found = [made for name in names if (made := read_round(course, name)) is not None]
    return sorted(found, key=lambda r: (r.due, r.assignment))


def write_round(course: Path, made: Round) -> None:
    """Keep a round, in one step."""
    stored = {**asdict(made), "due": made.due.isoformat()}
    atomic_write(round_folder(course, made.assignment) / STATE, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


def planned(
    before: Round | None, new: Round, authors: Iterable[str], dropped: Iterable[str], secret: str
) -> tuple[Round, list[str], list[str]]:
    """The round with everybody who handed in by now.

    Parameters
    ----------
    before : Round, optional
        What was given out already: its pairs, questions and seed stay.
    new : Round
        How to make one where there is none.
    authors : iterable of str
        Who handed in.
    dropped : iterable of str
        Who is to be taken out.
    secret : str
        The course's, without which nobody can foresee who reviews whom.

    Returns
    -------
    Round
        To be written.
    list of str
        Authors who came in late.
    list of str
        Who was taken out now.

    Raises
    ------
    CourseError
        Where there are too few authors, or somebody to be taken out is not in the round.
    """
    authors, out = set(authors), set(dropped)
    made = before or new
    seed = f"{secret}\n{made.assignment}\n{made.seed}"
    there = set(made.pairs) | set(made.dropped) if before else authors
    if out - there:
        raise CourseError(f"{', '.join(sorted(out - there))}: not in this round, so not to be taken out of it.")
    latecomers: list[str] = []
    if before is None:
        pairs = who_reviews_whom(authors - out, made.reviews, seed)
    else:
        pairs = drop(made.pairs, out - set(made.dropped), seed)
        latecomers = sorted(authors - there)
        active = {r: a for r, a in pairs.items() if r not in {*made.dropped, *out}}
        # Those who come on the second day are drawn from other numbers than those of the first.
        pairs |= add_late(active, latecomers, made.reviews, f"{seed}\n{','.join(latecomers)}")
    gone = sorted({*made.dropped, *out})
    planned_round = Round(made.assignment, made.reviews, made.seed, made.due, made.questions, pairs, gone)
    return planned_round, latecomers, sorted(out - set(made.dropped))


def code(secret: str, assignment: str, what: str, student: str) -> str:
    """The name under which a report or a packet goes about: "H3KD-91XZ"; nobody can tell whose without the secret."""
    digest = hmac.new(secret.encode(), f"{assignment}\n{what}\n{student}".encode(), hashlib.sha256).digest()
    number = int.from_bytes(digest[:8], "big")
    letters = ""
    for _ in range(8):
        number, digit = divmod(number, len(DIGITS))
        letters += DIGITS[digit]
    return f"{letters[:4]}-{letters[4:]}"


@dataclass
class HandedReview:
    """What one reviewer has handed in.

    Attributes
    ----------
    time : datetime
        When.
    late : bool
        Whether after it was due.
    reviews : dict of str to Review
        The complete ones, by author.
    """

    time: datetime
    late: bool
    reviews: dict[str, Review] = field(default_factory=dict)


def write_review(course: Path, assignment: str, reviewer: str, handed: HandedReview) -> bool:
    """Keep what a reviewer handed in; returns whether it was not there already."""
    path = round_folder(course, assignment) / "reviews" / f"{reviewer}.json"
    stored = {
        "time": handed.time.isoformat(),
        "late": handed.late,
        "reviews": {author: asdict(review) for author, review in sorted(handed.reviews.items())},
    }
    text = json.dumps(stored, indent=1, ensure_ascii=False) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    atomic_write(path, text)
    return True


def read_reviews(course: Path, made: Round) -> dict[str, HandedReview]:
    """What has been handed in, by reviewer; only of reports that are theirs to review.

    Raises
    ------
    CourseError
        When a file cannot be read.
    """
    found = {}
    for path in sorted((round_folder(course, made.assignment) / "reviews").glob("*.json")):
        try:
            stored: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            reviews = {author: Review(**review) for author, review in stored["reviews"].items()}
            mine = {a: r for a, r in reviews.items() if a in made.pairs.get(path.stem, [])}
            found[path.stem] = HandedReview(datetime.fromisoformat(stored["time"]), bool(stored["late"]), mine)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CourseError(f"{path} is not what a reviewer handed in: {error}.") from None
    return found
