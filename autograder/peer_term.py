"""Who has done their part in peer review over the term: five rounds of six, as DTU asks, or other numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from autograder.peer_round import HandedReview, Round

DONE, LATE, OPEN, NO_REPORT, DROPPED = "done", "late", "open", "no report", "dropped"


@dataclass(frozen=True)
class Standing:
    """One student over the term.

    Attributes
    ----------
    rounds : dict of str to str
        By assignment: "done", "late", "2 of 4", "open" (not due yet), "no report" or "dropped".
    done : int
        Rounds that count.
    verdict : str
        "passed", "can pass" or "cannot pass".
    """

    rounds: dict[str, str]
    done: int
    verdict: str


def standings(
    students: Sequence[str],
    rounds: Sequence[Round],
    handed: Mapping[str, Mapping[str, HandedReview]],
    *,
    need: int,
    of: int,
    now: datetime,
    late_counts: bool = False,
) -> dict[str, Standing]:
    """Where every student stands.

    A round counts for a student who handed in a report and reviewed every report of their packet in time.

    Parameters
    ----------
    students : sequence of str
        Everybody of the course.
    rounds : sequence of Round
        Those so far.
    handed : mapping
        By assignment and reviewer, what was handed in.
    need, of : int
        How many rounds have to be done, of how many in the whole term.
    now : datetime
        With a time zone; a round that is not due yet is open.
    late_counts : bool
        Whether reviews that came late count.
    """
    found = {}
    for student in students:
        states = {r.assignment: _state(student, r, handed.get(r.assignment, {}), now) for r in rounds}
        done = sum(s == DONE or (late_counts and s == LATE) for s in states.values())
        still = sum(s == OPEN for s in states.values()) + max(0, of - len(rounds))
        verdict = "passed" if done >= need else "can pass" if done + still >= need else "cannot pass"
        found[student] = Standing(states, done, verdict)
    return found


def _state(student: str, made: Round, handed: Mapping[str, HandedReview], now: datetime) -> str:
    if student in made.dropped:
        return DROPPED
    if student not in made.pairs:
        return NO_REPORT if now > made.due else OPEN
    mine, given = made.pairs[student], handed.get(student)
    if given is not None and set(mine) <= set(given.reviews):
        return LATE if given.late else DONE
    if now <= made.due:
        return OPEN
    return f"{len(given.reviews) if given else 0} of {len(mine)}"
