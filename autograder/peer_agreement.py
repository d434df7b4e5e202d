r"""Weighs reviewers by how far they agree with the others who read the same reports.

The method is the Vancouver algorithm of CrowdGrader (L. de Alfaro and M. Shavlovsky, "CrowdGrader: a tool for
crowdsourcing the evaluation of homework assignments", SIGCSE 2014).  Each reviewer j has a variance v_j, and what is
known of a report i is the mean of its scores g_ij, each weighted by 1 / v_j, the estimate of least variance:

    q_i = Σ_j g_ij / v_j  /  Σ_j 1 / v_j

A reviewer's variance is in turn how far their scores lie from the estimates that the *others* make of the same reports,
q_i^(-j), of which each counts by its own certainty w_i = Σ_{k≠j} 1 / v_k:

    v_j = ( w₀ s² + Σ_i w_i (g_ij − q_i^(-j))² )  /  ( w₀ + Σ_i w_i )

Both are computed in turn until they settle.  Ours differs in two things.  The first term of the second formula: four
reviews say little of a person, so every reviewer begins with `PRIOR` reviews of average quality, s² being the average
of the squared distances and w₀ that number of average weights.  And a reviewer has one variance, where the original,
which passes messages, weighs their score of a report by their distances on their other reports only.  Nobody's leniency
is corrected for, as in the original unless it is asked to; it is told.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

PRIOR = 2.0  # reviews of average quality
ROUNDS = 50
LEAST = 0.05**2  # variance of the most reliable reviewer, in squared points of the form's scale


@dataclass(frozen=True)
class Reviewer:
    """How one reviewer's scores lie beside those of others.

    Attributes
    ----------
    weight : float
        1 / v_j, on average 1 over all reviewers.
    distance : float
        Root mean square of the distances from the others' estimates.
    leniency : float
        Their mean: above 0 for one who gives more than the others.
    """

    weight: float
    distance: float
    leniency: float


@dataclass(frozen=True)
class Estimate:
    """What the reviews of one report come to.

    Attributes
    ----------
    mean, weighted : float
        Plain mean of the scores, and q_i.
    spread : float
        Standard deviation of the scores around the plain mean; nan for a single one.
    reviews : int
        How many there are.
    """

    mean: float
    weighted: float
    spread: float
    reviews: int


def weigh(scores: Mapping[tuple[str, str], float]) -> tuple[dict[str, Reviewer], dict[str, Estimate]]:
    """Weigh reviewers and estimate reports.

    Parameters
    ----------
    scores : mapping
        The score g_ij that reviewer j gave to report i, by (reviewer, report).

    Returns
    -------
    dict of str to Reviewer
        Everybody whose scores can be compared with others'.
    dict of str to Estimate
        Every report with a score.
    """
    by_report: dict[str, dict[str, float]] = defaultdict(dict)
    for (reviewer, report), score in sorted(scores.items()):
        by_report[report][reviewer] = score
    reviewers = sorted({reviewer for reviewer, _ in scores})
    variance = dict.fromkeys(reviewers, 1.0)
    gaps: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        gaps = {j: _gaps(j, by_report, variance) for j in reviewers}
        everything = [gap for of_one in gaps.values() for gap in of_one]
        if not everything:
            break
        total = sum(w for w, _ in everything)
        pooled = sum(w * d * d for w, d in everything) / total
        prior = PRIOR * total / len(everything)
        new = {
            j: max(LEAST, (prior * pooled + sum(w * d * d for w, d in of_one)) / (prior + sum(w for w, _ in of_one)))
            for j, of_one in gaps.items()
        }
        scale = sum(new.values()) / len(new)  # only ratios matter; without this they would drift
        settled = all(math.isclose(variance[j], new[j] / scale, rel_tol=1e-9) for j in reviewers)
        variance = {j: v / scale for j, v in new.items()}
        if settled:
            break
    weights = {j: 1 / v for j, v in variance.items()}
    average = sum(weights.values()) / len(weights) if weights else 1.0
    people = {
        j: Reviewer(
            weights[j] / average,
            math.sqrt(sum(d * d for _, d in of_one) / len(of_one)),
            sum(d for _, d in of_one) / len(of_one),
        )
        for j, of_one in gaps.items()
        if of_one
    }
    return people, {report: _estimate(given, weights) for report, given in sorted(by_report.items())}


def _gaps(
    reviewer: str, by_report: Mapping[str, Mapping[str, float]], variance: Mapping[str, float]
) -> list[tuple[float, float]]:
    """For each report that others scored too: the certainty of their estimate, and the reviewer's distance from it."""
    found = []
    for given in by_report.values():
        others = {k: g for k, g in given.items() if k != reviewer}
        if reviewer in given and others:
            certainty = sum(1 / variance[k] for k in others)
            estimate = sum(g / variance[k] for k, g in others.items()) / certainty
            found.append((certainty, given[reviewer] - estimate))
    return found


def _estimate(given: Mapping[str, float], weights: Mapping[str, float]) -> Estimate:
    n, mean = len(given), sum(given.values()) / len(given)
    spread = math.sqrt(sum((g - mean) ** 2 for g in given.values()) / (n - 1)) if n > 1 else math.nan
    total = sum(weights[j] for j in given)
    return Estimate(mean, sum(weights[j] * g for j, g in given.items()) / total, spread, n)
