"""How long does a training step by hand take, measured in steps of torch autograd and torch.optim?

    python benchmarks/a2_training_step.py [--steps 200] [--repetitions 7] [--write]

A step is forward, backward and update on a batch of 100 images.  *By hand* is the reference of Assignment 2, as its
notebook uses it; the peer is the same network from torch.nn with cross_entropy, `backward` and torch.optim.SGD, whose
weight_decay is the regulariser.  Both start from the same parameters, see the same batches and must end with the same
parameters.  They take turns in one run on one thread, and the order changes from one repetition to the next; times are
the processor's.  `--write` writes benchmarks/results/a2_training_step.md.  Exit status 1 where a step by hand takes
more than 1.5 times as long.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autograder.assignment import load_assignment  # noqa: E402
from autograder.atomic_write import atomic_write  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "a2_training_step.md"
N, D, K, BATCH_SIZE, LAM, LR, LIMIT = 2_000, 3_072, 10, 100, 0.005, 0.01, 1.5

Layers = list[dict[str, Tensor]]
Steps = Callable[[Tensor, Tensor], None]
"""Trains on one batch."""


@dataclass(frozen=True)
class Network:
    """What is timed."""

    name: str
    hidden: tuple[int, ...]
    batch_norm: bool


NETWORKS = (
    Network("2 layers, m = 50", (50,), False),
    Network("3 layers, m = 50, 50", (50, 50), False),
    Network("3 layers with BN", (50, 50), True),
    Network("9 layers", (50, 30, 20, 20, 10, 10, 10, 10), False),
    Network("9 layers with BN", (50, 30, 20, 20, 10, 10, 10, 10), True),
    Network("2 layers, m = 500", (500,), False),
)


def by_hand(reference: Mapping[str, Any], layers: Layers, network: Network) -> tuple[Steps, Callable[[], list[Tensor]]]:
    """The reference's step, and what reads its parameters."""
    running = None

    def step(X: Tensor, y: Tensor) -> None:
        nonlocal layers, running
        if network.batch_norm:
            _, cache, running = reference["forward_bn"](X, layers, running, training=True)
            gradients = reference["backward_bn"](y, layers, cache, LAM)
        else:
            _, cache = reference["forward"](X, layers)
            gradients = reference["backward"](y, layers, cache, LAM)
        layers = [
            {name: value - LR * gradient[name] for name, value in layer.items()}
            for layer, gradient in zip(layers, gradients, strict=True)
        ]

    return step, lambda: [layer["W"] for layer in layers]


def by_torch(layers: Layers, network: Network) -> tuple[Steps, Callable[[], list[Tensor]]]:
    """The same step through torch.nn, autograd and torch.optim."""
    sizes = [D, *network.hidden, K]
    linear = [nn.Linear(d_in, d_out) for d_in, d_out in pairwise(sizes)]
    modules: list[nn.Module] = []
    with torch.no_grad():
        for module, layer in zip(linear, layers, strict=True):
            module.weight.copy_(layer["W"].T)
            module.bias.copy_(layer["b"])
            modules.append(module)
            if module is not linear[-1]:
                modules += [nn.BatchNorm1d(module.out_features)] if network.batch_norm else []
                modules.append(nn.ReLU())
    model = nn.Sequential(*modules)
    weights = [module.weight for module in linear]
    others = [p for p in model.parameters() if not any(p is w for w in weights)]
    optimiser = torch.optim.SGD([{"params": weights, "weight_decay": 2 * LAM}, {"params": others}], lr=LR)

    def step(X: Tensor, y: Tensor) -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimiser.step()

    return step, lambda: [w.detach().T for w in weights]


def measure(reference: Mapping[str, Any], network: Network, steps: int, repetitions: int) -> dict[str, list[float]]:
    """Milliseconds of a step, of each repetition."""
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(N, D, generator=generator), torch.randint(0, K, (N,), generator=generator)
    layers = reference["initialize"]([D, *network.hidden, K], "he", generator=generator)
    for layer in layers[:-1] if network.batch_norm else []:
        layer["gamma"], layer["beta"] = torch.ones_like(layer["b"]), torch.zeros_like(layer["b"])
    contestants = {"by hand": by_hand(reference, layers, network), "torch": by_torch(layers, network)}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order = torch.randint(0, N, (repetitions + 1, steps, BATCH_SIZE), generator=generator)
    for repetition in range(repetitions + 1):  # the first one warms up
        names = list(contestants) if repetition % 2 else list(reversed(contestants))
        for name in names:
            step, _ = contestants[name]
            start = time.process_time()
            for batch in order[repetition]:
                step(X[batch], y[batch])
            if repetition:
                times[name].append(1e3 * (time.process_time() - start) / steps)
        if not repetition:
            ours, theirs = (parameters() for _, parameters in contestants.values())
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)
    return times


def table(rows: Mapping[str, Mapping[str, Sequence[float]]], steps: int, repetitions: int) -> str:
    """The results as a Markdown page."""
    lines = [
        "# Assignment 2: a training step by hand against torch",
        "",
        f"Forward, backward and update on a batch of {BATCH_SIZE} images; mean ± standard deviation of {repetitions} "
        f"repetitions of {steps} steps, taking turns in one run. The ratio is that of one repetition each.",
        "",
        "| network | by hand (ms) | autograd and torch.optim (ms) | ratio |",
        "|---|---|---|---|",
    ]
    for name, times in rows.items():
        cells = [f"{statistics.fmean(t):.2f} ± {statistics.stdev(t):.2f}" for t in (*times.values(), ratios(times))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread of a {platform.machine()} machine with "
        f"{os.cpu_count()} cores; processor time. Made by `python benchmarks/a2_training_step.py --write`.",
        "",
    ]
    return "\n".join(lines)


def ratios(times: Mapping[str, Sequence[float]]) -> list[float]:
    return [ours / theirs for ours, theirs in zip(times["by hand"], times["torch"], strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of one repetition")
    parser.add_argument("--repetitions", type=int, default=7, help="at least 2")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reference = load_assignment("a2_k_layer_networks", ROOT).reference()
    rows = {n.name: measure(reference, n, arguments.steps, max(2, arguments.repetitions)) for n in NETWORKS}
    page = table(rows, arguments.steps, max(2, arguments.repetitions))
    print(page)
    if arguments.write:
        atomic_write(RESULTS, page)
        print(f"Written to {RESULTS.relative_to(ROOT)}.", file=sys.stderr)
    return int(any(statistics.fmean(ratios(times)) > LIMIT for times in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
