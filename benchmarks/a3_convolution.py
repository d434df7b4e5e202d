"""How long the hand-written convolution of Assignment 3 takes, against PyTorch's own.

    python benchmarks/a3_convolution.py [--repeats 15] [--write]

Forward and backward (the gradients of X, F and b) for batches of 100 images of 3 × 32 × 32, stride 1, padding that
keeps 32 × 32 places, float32, one thread. Both are timed in turns in the same process, as processor time, so that other
programs on the machine disturb both alike; the ratio is of the medians. `--write` writes
benchmarks/results/a3_convolution.md. Exit status 1 where the reference takes more than four times as long as torch.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autograder.assignment import load_assignment  # noqa: E402
from autograder.atomic_write import atomic_write  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "a3_convolution.md"
IMAGES = 100
SETTINGS = ((8, 3), (32, 3), (64, 3), (16, 5), (32, 5), (16, 7))
"""Number of filters, and their side."""
LIMIT = 4.0


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one forward and backward pass: each repetition of the reference and of torch."""

    n_filters: int
    k: int
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)


def milliseconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return 1000 * (time.process_time() - start)


def measure(n_filters: int, k: int, repeats: int) -> Timing:
    """Time both on the same tensors, after one call that does not count and that compares the results."""
    reference = load_assignment("a3_convnets", ROOT).reference()
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(IMAGES, 3, 32, 32, generator=generator)
    F = torch.randn(n_filters, 3, k, k, generator=generator)
    b = torch.randn(n_filters, generator=generator)
    grad_out = torch.randn(IMAGES, n_filters, 32, 32, generator=generator)
    leaves = [t.clone().requires_grad_() for t in (X, F, b)]

    def ours() -> tuple[Tensor, ...]:
        _, cache = reference["conv2d_forward"](X, F, b, 1, k // 2)
        return reference["conv2d_backward"](grad_out, cache)

    def theirs() -> tuple[Tensor, ...]:
        return torch.autograd.grad(functional.conv2d(*leaves, padding=k // 2), leaves, grad_out)

    for mine, right in zip(ours(), theirs(), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-2)
    times = [(milliseconds(ours), milliseconds(theirs)) for _ in range(repeats)]
    return Timing(n_filters, k, [a for a, _ in times], [b for _, b in times])


def table(timings: list[Timing], repeats: int) -> str:
    lines = [
        "# Assignment 3: the hand-written convolution against torch's",
        "",
        f"Forward and backward, {IMAGES} images of 3 × 32 × 32, stride 1, float32; mean ± standard deviation of "
        f"{repeats} repetitions, processor time; ratio of the medians.",
        "",
        "| filters | im2col (reference), ms | torch, ms | ratio |",
        "|---|---|---|---|",
    ]
    for t in timings:
        ours, theirs = (f"{statistics.fmean(v):.1f} ± {statistics.stdev(v):.1f}" for v in (t.ours, t.theirs))
        lines.append(f"| {t.n_filters} of {t.k} × {t.k} | {ours} | {theirs} | {t.ratio:.2f} |")
    lines += [
        "",
        f"torch {torch.__version__}, one thread of a {platform.machine()} machine with {os.cpu_count()} cores that "
        "other programs used too. Made by `python benchmarks/a3_convolution.py --write`.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="repetitions of each, at least 2 (default 15)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    timings = [measure(n_filters, k, max(2, arguments.repeats)) for n_filters, k in SETTINGS]
    page = table(timings, max(2, arguments.repeats))
    print(page)
    if arguments.write:
        atomic_write(RESULTS, page)
    return int(any(t.ratio > LIMIT for t in timings))


if __name__ == "__main__":
    raise SystemExit(main())
