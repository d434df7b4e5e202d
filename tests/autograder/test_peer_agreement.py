"""Reviewers weighed by agreement: careless ones count less, and the estimates come nearer to the truth."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from autograder.peer_agreement import weigh
from autograder.peer_assignment import who_reviews_whom


def simulated(
    seed: int, careless_share: float = 0.3
) -> tuple[dict[tuple[str, str], float], dict[str, float], set[str]]:
    """The scores of a class in which some give almost any number; the true quality; who these are."""
    rng = random.Random(seed)
    people = [f"s{k:02d}" for k in range(40)]
    truth = {p: rng.uniform(1.5, 4.5) for p in people}
    careless = set(rng.sample(people, round(careless_share * len(people))))
    scores = {}
    for reviewer, authors in who_reviews_whom(people, 4, str(seed)).items():
        for author in authors:
            noise = rng.gauss(0, 1.5 if reviewer in careless else 0.3)
            scores[reviewer, author] = min(5.0, max(1.0, truth[author] + noise))
    return scores, truth, careless


def test_careless_reviewers_weigh_less_and_the_estimates_are_nearer_to_the_truth() -> None:
    plain, weighted = [], []
    for seed in range(8):
        scores, truth, careless = simulated(seed)
        people, reports = weigh(scores)
        assert fmean(people[p].weight for p in people if p not in careless) > 1.5 * fmean(
            people[p].weight for p in careless
        )
        plain.append(math.sqrt(fmean((reports[a].mean - truth[a]) ** 2 for a in reports)))
        weighted.append(math.sqrt(fmean((reports[a].weighted - truth[a]) ** 2 for a in reports)))
        assert fmean(p.weight for p in people.values()) == pytest.approx(1)
    assert fmean(weighted) < 0.85 * fmean(plain)


def test_who_always_gives_the_highest_score_is_told_as_lenient_and_weighs_little() -> None:
    scores, _, _ = simulated(1, careless_share=0.0)
    scores = {(r, a): 5.0 if r == "s03" else s for (r, a), s in scores.items()}
    people, _ = weigh(scores)
    assert people["s03"].leniency > 1 and people["s03"].distance > 1
    assert people["s03"].weight == min(p.weight for p in people.values())
    assert people["s03"].weight < 0.5


def test_where_all_agree_all_weigh_the_same() -> None:
    people, reports = weigh({(r, a): 3.0 for r in "abcd" for a in "abcd" if r != a})
    assert {round(p.weight, 9) for p in people.values()} == {1.0}
    assert all(e.weighted == 3.0 and e.spread == 0 and e.reviews == 3 for e in reports.values())


def test_a_single_review_can_be_compared_with_nothing() -> None:
    people, reports = weigh({("a", "b"): 4.0})
    assert people == {}
    assert reports["b"].weighted == 4.0 and math.isnan(reports["b"].spread)
    assert weigh({}) == ({}, {})


def test_two_reviewers_who_differ_weigh_the_same() -> None:
    people, reports = weigh({("a", "x"): 1.0, ("b", "x"): 5.0})
    assert people["a"].weight == pytest.approx(people["b"].weight) and reports["x"].weighted == pytest.approx(3.0)
    assert people["a"].leniency == -4.0 and people["b"].leniency == 4.0
