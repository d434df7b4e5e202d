"""Does the reference of Assignment 1 reach the published accuracies on real CIFAR-10?

    python benchmarks/a1_targets.py [--seeds 0 1 2] [--write]

Trains the four settings of the one-layer softmax classifier with the reference's own functions, taken from
solutions/a1_linear_classifiers: 40 epochs with batches of 100, training on data_batch_1, features standardised
with its mean and standard deviation, W from N(0, 0.01²), b = 0, everything in float32 on one thread.
data_batch_2 is the validation set; it decides nothing here and is reported.  `--write` writes the table to
benchmarks/results/a1_targets.md.  Exit status 1 where a setting lies
below the published range by more than two standard deviations of the seeds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autograder.assignment import load_assignment  # noqa: E402
from autograder.atomic_write import atomic_write  # noqa: E402
from course_utils.data import ImageData, flatten_images, load_cifar10  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "a1_targets.md"
BATCH_SIZE, EPOCHS, SIGMA = 100, 40, 0.01


@dataclass(frozen=True)
class Setting:
    """A pair of hyper-parameters, and the test accuracies (%) that KTH DD2424's students have reported for it."""

    lam: float
    lr: float
    low: float
    high: float


SETTINGS = (
    Setting(0.0, 0.1, 27.8, 30.5),
    Setting(0.0, 0.001, 38.6, 39.3),
    Setting(0.1, 0.001, 38.9, 39.5),
    Setting(1.0, 0.001, 37.2, 37.6),
)
FIRST_COST = 1.97, 1.98
"""The published cost after the first epoch of λ = 0, η = .001."""


@dataclass(frozen=True)
class Run:
    """What one training reached: accuracies in %, cost after the first epoch, and processor time in seconds."""

    validation: float
    test: float
    first_cost: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """All runs of a setting."""

    setting: Setting
    runs: tuple[Run, ...]

    def mean(self, quantity: str) -> float:
        return statistics.fmean(getattr(run, quantity) for run in self.runs)

    def sd(self, quantity: str) -> float:
        """Standard deviation over the seeds, with divisor n − 1."""
        return statistics.stdev(getattr(run, quantity) for run in self.runs) if len(self.runs) > 1 else 0.0

    @property
    def verdict(self) -> str:
        """Whether the mean lies in the published range, within two standard deviations of it, or outside."""
        mean, sd = self.mean("test"), self.sd("test")
        if self.setting.low <= mean <= self.setting.high:
            return "inside"
        if mean + 2 * sd >= self.setting.low and mean - 2 * sd <= self.setting.high:
            return "inside within 2 sd"
        return "above" if mean > self.setting.high else "BELOW"


def train(reference: Mapping[str, Any], data: Mapping[str, tuple[Tensor, Tensor]], setting: Setting, seed: int) -> Run:
    """One training from one seed."""
    X, y = data["train"]
    generator = torch.Generator().manual_seed(seed)
    W = SIGMA * torch.randn(X.shape[1], 10, generator=generator)  # (d, K)
    b = torch.zeros(10)
    start = time.process_time()

    def epochs(W: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return reference["minibatch_gd"](
            X, y, W, b, reference["cross_entropy_gradients"],
            lam=setting.lam, lr=setting.lr, batch_size=BATCH_SIZE, epochs=count, generator=generator,
        )  # fmt: skip

    W, b = epochs(W, b, 1)
    first_cost = float(reference["cost"](X, y, W, b, setting.lam))
    W, b = epochs(W, b, EPOCHS - 1)
    seconds = time.process_time() - start
    validation, test = (100 * reference["accuracy"](*data[split], W, b) for split in ("validation", "test"))
    return Run(validation, test, first_cost, seconds)


def standardised(reference: Mapping[str, Any], images: ImageData) -> dict[str, tuple[Tensor, Tensor]]:
    """X (N, d) float32 and y (N,) of each split, standardised with the numbers of the training split."""
    mean, std = reference["standardizer"](flatten_images(images.train.images))
    splits = {"train": images.train, "validation": images.validation, "test": images.test}
    return {
        name: (reference["standardize"](flatten_images(split.images), mean, std), split.labels)
        for name, split in splits.items()
    }


def table(outcomes: Sequence[Outcome], seeds: Sequence[int]) -> str:
    """The results as a Markdown page."""
    small = next(o for o in outcomes if (o.setting.lam, o.setting.lr) == (0.0, 0.001))
    lines = [
        "# Assignment 1: four settings on CIFAR-10",
        "",
        f"One-layer softmax, {EPOCHS} epochs, batches of {BATCH_SIZE}, train = data_batch_1, "
        f"validation = data_batch_2; mean ± standard deviation over the seeds {', '.join(map(str, seeds))}.",
        "Published: the range of nine reports by students of KTH's DD2424. Seconds: processor time of one training.",
        "",
        "| λ | η | validation % | test % | published test % | verdict | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        lines.append(
            f"| {o.setting.lam:g} | {o.setting.lr:g} | {o.mean('validation'):.2f} ± {o.sd('validation'):.2f} "
            f"| {o.mean('test'):.2f} ± {o.sd('test'):.2f} | {o.setting.low}–{o.setting.high} | {o.verdict} "
            f"| {o.mean('seconds'):.1f} |"
        )
    lines += [
        "",
        "Test % of each seed: "
        + "; ".join(
            f"λ = {o.setting.lam:g}, η = {o.setting.lr:g}: {', '.join(f'{run.test:.2f}' for run in o.runs)}"
            for o in outcomes
        )
        + ".",
        f"Cost after the first epoch of λ = 0, η = 0.001: {small.mean('first_cost'):.3f} ± "
        f"{small.sd('first_cost'):.3f} (published {FIRST_COST[0]}–{FIRST_COST[1]}).",
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread of a {platform.machine()} machine with "
        f"{os.cpu_count()} cores. Made by `python benchmarks/a1_targets.py --write`.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training of each setting for each")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as the notebook does: at η = .1 many probabilities are below 1e-38
    reference = load_assignment("a1_linear_classifiers", ROOT).reference()
    data = standardised(reference, load_cifar10(download=False))
    outcomes = []
    for setting in SETTINGS:
        runs = []
        for seed in arguments.seeds:
            runs.append(train(reference, data, setting, seed))
            print(f"λ = {setting.lam:g}, η = {setting.lr:g}, seed {seed}: {runs[-1]}", file=sys.stderr, flush=True)
        outcomes.append(Outcome(setting, tuple(runs)))
    page = table(outcomes, arguments.seeds)
    print(page)
    if arguments.write:
        atomic_write(RESULTS, page)
        print(f"Written to {RESULTS.relative_to(ROOT)}.", file=sys.stderr)
    return int(any(outcome.verdict == "BELOW" for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
