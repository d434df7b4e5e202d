"""Decides who reviews whose report: balanced, never one's own, and the same whenever it is decided again."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from autograder.errors import CourseError

DRAWS = 300  # of offsets, from which the best is taken

Pairs = dict[str, list[str]]  # whose reports each reviewer reviews


def who_reviews_whom(authors: Collection[str], reviews: int, seed: str) -> Pairs:
    """Give everybody `reviews` reports of others, so that every report gets as many reviewers.

    The authors are put on a ring in random order, and everybody reviews those who sit certain distances further on.
    Distances are drawn until, where there are enough authors, no two review each other and no two have more than one
    report in common: then what reviewers agree on says most about each of them.

    Parameters
    ----------
    authors : collection of str
        Who handed in.
    reviews : int
        Reports for each reviewer.
    seed : str
        What the order follows from.

    Raises
    ------
    CourseError
        Where there are too few authors.
    """
    if reviews < 1:
        raise CourseError(f"{reviews} reviews for each report are too few; at least one is needed.")
    if len(authors) <= reviews:
        raise CourseError(
            f"{reviews} reviews for each report need at least {reviews + 1} authors, and there are {len(authors)}; "
            "ask for fewer with --reviews."
        )
    rng = random.Random(seed)
    ring = sorted(authors)
    rng.shuffle(ring)
    n = len(ring)
    drawn = [rng.sample(range(1, n), reviews) for _ in range(DRAWS)]
    best = min(drawn, key=lambda distances: _coincidences(distances, n))
    return {author: [ring[(k + d) % n] for d in best] for k, author in enumerate(ring)}


def _coincidences(distances: list[int], n: int) -> int:
    """How many pairs review each other, and how many have more than one report in common, for each seat."""
    mutual = sum((a + b) % n == 0 for a in distances for b in distances)
    apart = [(a - b) % n for a in distances for b in distances if a != b]
    return mutual + len(apart) - len(set(apart))


def add_late(pairs: Mapping[str, list[str]], late: Iterable[str], reviews: int, seed: str) -> Pairs:
    """The same assignment with authors who handed in later.

    Nothing that was given out is taken back: each of them reviews the reports with the fewest reviewers, and their own
    go to those who have the least to do.  Friends who come late together would so get each other's reports, and nobody
    else theirs; therefore no two of them review each other, and at most half of what each reviews, and of who reviews
    theirs, or their share of the class where that is more, are of them, as far as there are others.
    """
    new: Pairs = {reviewer: list(authors) for reviewer, authors in pairs.items()}
    rng = random.Random(f"{seed} late")
    latecomers = sorted(set(late) - set(new))
    for author in latecomers:
        new[author] = []
    share = math.ceil(reviews * (len(latecomers) - 1) / max(1, len(new) - 1))
    friends = _Friends(frozenset(latecomers), max(reviews // 2, share))
    for author in latecomers:
        for _ in range(reviews - len(new[author])):
            _give(new, rng, reviewer=author, author=None, friends=friends)
    for author in latecomers:
        for _ in range(reviews - sum(author in reviewed for reviewed in new.values())):
            _give(new, rng, reviewer=None, author=author, friends=friends)
    return new


@dataclass(frozen=True)
class _Friends:
    """Who may have come late together, and how many of them each may review, and be reviewed by."""

    people: frozenset[str]
    most: int

    def too_near(self, pairs: Pairs, reviewer: str, author: str) -> bool:
        """Whether a review would be what two friends wish for."""
        if not {reviewer, author} <= self.people:
            return False
        given = sum(a in self.people for a in pairs[reviewer])
        got = sum(author in pairs[r] for r in self.people)
        return reviewer in pairs[author] or max(given, got) >= self.most


def drop(pairs: Mapping[str, list[str]], dropped: Iterable[str], seed: str) -> Pairs:
    """The same assignment where some review nothing any more; others, with the least to do, take over from them."""
    new: Pairs = {reviewer: list(authors) for reviewer, authors in pairs.items()}
    rng = random.Random(f"{seed} dropped")
    gone = sorted(set(dropped) & set(new))
    open_ones = [author for reviewer in gone for author in new[reviewer]]
    for reviewer in gone:
        del new[reviewer]
    for author in open_ones:
        if author not in gone:  # nobody reads a report of someone who left
            _give(new, rng, reviewer=None, author=author)
    return new | {reviewer: [] for reviewer in gone}


def _give(
    pairs: Pairs, rng: random.Random, reviewer: str | None, author: str | None, friends: _Friends | None = None
) -> None:
    """Add one review, of the least burdened reviewer or of the least reviewed report; none where nobody is free."""

    def order(r: str, a: str, burden: int) -> tuple[bool, int, bool, float]:
        near = friends is not None and friends.too_near(pairs, r, a)
        return near, burden, r in pairs[a], rng.random()

    load = {a: sum(a in reviewed for reviewed in pairs.values()) for a in pairs}
    if reviewer is not None:
        free = [a for a in sorted(pairs) if a != reviewer and a not in pairs[reviewer]]
        if free:
            pairs[reviewer].append(min(free, key=lambda a: order(reviewer, a, load[a])))
    elif author is not None:
        able = [r for r in sorted(pairs) if r != author and author not in pairs[r]]
        if able:
            pairs[min(able, key=lambda r: order(r, author, len(pairs[r])))].append(author)
