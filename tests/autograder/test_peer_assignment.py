"""Who reviews whom: balanced, never one's own, repeatable; with drop-outs and late ones."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.errors import CourseError
from autograder.peer_assignment import Pairs, add_late, drop, who_reviews_whom


def names(n: int, stem: str = "s") -> list[str]:
    return [f"{stem}{k:03d}" for k in range(n)]


def check_sound(pairs: Pairs) -> None:
    for reviewer, authors in pairs.items():
        assert reviewer not in authors
        assert len(set(authors)) == len(authors)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 6), st.integers(0, 5))
def test_everybody_reviews_and_is_reviewed_as_often(n: int, reviews: int, seed: int) -> None:
    if n <= reviews:
        with pytest.raises(CourseError, match="need at least"):
            who_reviews_whom(names(n), reviews, str(seed))
        return
    pairs = who_reviews_whom(names(n), reviews, str(seed))
    check_sound(pairs)
    assert sorted(pairs) == names(n)
    assert {len(a) for a in pairs.values()} == {reviews}
    assert set(Counter(a for authors in pairs.values() for a in authors).values()) == {reviews}


def test_the_seed_decides_and_nothing_else() -> None:
    first = who_reviews_whom(names(30), 4, "a")
    assert who_reviews_whom(set(reversed(names(30))), 4, "a") == first
    assert who_reviews_whom(names(30), 4, "b") != first


def test_in_a_class_of_thirty_no_two_review_each_other_or_share_two_reports() -> None:
    pairs = who_reviews_whom(names(30), 4, "any")
    for a, b in combinations(pairs, 2):
        assert not (a in pairs[b] and b in pairs[a])
        assert len(set(pairs[a]) & set(pairs[b])) <= 1


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 30), st.integers(1, 12), st.integers(0, 5))
def test_late_ones_are_added_and_nothing_is_taken_back(n: int, late: int, seed: int) -> None:
    before = who_reviews_whom(names(n), 4, str(seed))
    after = add_late(before, names(late, "late"), 4, str(seed))
    check_sound(after)
    for reviewer, authors in before.items():
        assert after[reviewer][:4] == authors
    assert all(len(after[a]) >= 4 for a in names(late, "late"))
    reviewed = Counter(a for authors in after.values() for a in authors)
    assert all(reviewed[a] >= 4 for a in after)
    assert max(reviewed.values()) <= 4 + -(-4 * late // n) + 1
    assert max(map(len, after.values())) <= 4 + -(-4 * late // n) + 1
    assert add_late(after, [], 4, str(seed)) == after


@settings(max_examples=30, deadline=None)
@given(st.integers(10, 30), st.integers(2, 9), st.integers(0, 5))
def test_friends_who_come_late_together_are_read_by_others(n: int, late: int, seed: int) -> None:
    friends = names(late, "late")
    after = add_late(who_reviews_whom(names(n), 4, str(seed)), friends, 4, str(seed))
    for friend in friends:
        own = [a for a in after[friend] if a in friends]
        readers = [r for r in after if friend in after[r]]
        assert len(own) <= 2 and not any(friend in after[a] for a in own)
        assert sum(r not in friends for r in readers) >= 2


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 30), st.integers(1, 3), st.integers(0, 5))
def test_who_drops_out_is_replaced_by_those_with_the_least_to_do(n: int, gone: int, seed: int) -> None:
    before = who_reviews_whom(names(n), 4, str(seed))
    out = names(n)[:gone]
    after = drop(before, out, str(seed))
    check_sound(after)
    assert all(after[r] == [] for r in out)
    reviewed = Counter(a for authors in after.values() for a in authors)
    assert all(reviewed[a] == 4 for a in after if a not in out)
    loads = [len(after[r]) for r in after if r not in out]
    assert min(loads) >= 4 and max(loads) <= 4 + -(-4 * gone // (n - gone)) + 1
    for reviewer in set(after) - set(out):
        assert set(before[reviewer]) <= set(after[reviewer])
