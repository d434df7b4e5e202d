"""Is the hand-written update of Assignment 4 as fast as the same update through torch.nn.RNN and autograd?

    python benchmarks/a4_update.py [--rounds 8] [--updates 200] [--write]

One update: forward, backward through all T steps, clipping by value, AdaGrad.  The hand-written one is the
reference's train_rnn, taken from solutions/a4_rnn_text_synthesis.  The peer is nn.RNN (batch of one, one-hot inputs),
nn.Linear, F.cross_entropy, loss.backward(), torch.nn.utils.clip_grad_value_ and torch.optim.Adagrad.  Both
train on the same text from the same weights; the largest difference between their first three losses in float64 shows
that they do the same.  (Later ones drift apart in any two implementations: AdaGrad's first step is η times the sign
of each gradient, also of those that are nearly zero.)  One thread; processor time; rounds of both alternate, and the
ratio is taken round by round.  Exit status 1 where the hand-written update is the slower one.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autograder.assignment import load_assignment  # noqa: E402
from autograder.atomic_write import atomic_write  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "a4_update.md"
SETTINGS = ((65, 100, 25), (80, 100, 25), (65, 256, 25), (65, 100, 100))
"""K characters, m units, T steps; the first two are those of the targets, with K of tinyshakespeare and of a novel."""
LR, CLIP, SIGMA = 0.1, 5.0, 0.1


def by_hand(
    reference: Mapping[str, Any], params: dict[str, Tensor], indices: Tensor, T: int, updates: int
) -> list[float]:
    """The losses of `updates` updates by the reference."""
    losses: list[float] = []
    reference["train_rnn"](
        params, indices, T=T, lr=LR, clip=CLIP, updates=updates, on_update=lambda step, loss, h: losses.append(loss)
    )
    return losses


def by_autograd(params: Mapping[str, Tensor], indices: Tensor, T: int, updates: int) -> list[float]:
    """The same through nn.RNN, autograd and torch.optim."""
    K, m = params["U"].shape
    dtype = params["U"].dtype
    rnn, out = nn.RNN(K, m, batch_first=True, dtype=dtype), nn.Linear(m, K, dtype=dtype)
    with torch.no_grad():
        for parameter, value in (
            (rnn.weight_ih_l0, params["U"].T), (rnn.weight_hh_l0, params["W"].T), (rnn.bias_ih_l0, params["b"]),
            (rnn.bias_hh_l0, torch.zeros(m)), (out.weight, params["V"].T), (out.bias, params["c"]),
        ):  # fmt: skip
            parameter.copy_(value)
    rnn.bias_hh_l0.requires_grad_(False)  # nn.RNN has two biases where one is needed; two would learn twice as fast
    trained = [p for p in (*rnn.parameters(), *out.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adagrad(trained, lr=LR, eps=1e-10)
    one_hot = torch.eye(K, dtype=dtype)
    pairs = list(zip(indices[:-1].split(T), indices[1:].split(T), strict=True))
    losses: list[float] = []
    for step in range(updates):
        if step % len(pairs) == 0:
            h = torch.zeros(1, 1, m, dtype=dtype)
        inputs, targets = pairs[step % len(pairs)]
        states, h = rnn(one_hot[inputs][None], h.detach())
        loss = F.cross_entropy(out(states[0]), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(trained, CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def measure(reference: Mapping[str, Any], K: int, m: int, T: int, rounds: int, updates: int) -> tuple[str, float]:
    """A row of the table, and the mean ratio hand-written / autograd."""
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(0, K, (T * updates // 2 + 7,), generator=generator)
    params = reference["init_rnn"](K, m, sigma=SIGMA, generator=generator)
    hand: list[float] = []
    peer: list[float] = []
    for round_ in range(rounds + 1):
        start = time.process_time()
        by_hand(reference, params, indices, T, updates)
        middle = time.process_time()
        by_autograd(params, indices, T, updates)
        end = time.process_time()
        if round_:  # the first one warms up
            hand.append(1000 * (middle - start) / updates)
            peer.append(1000 * (end - middle) / updates)
    ratios = [a / b for a, b in zip(hand, peer, strict=True)]
    exact = {name: value.double() for name, value in params.items()}
    first = (by_hand(reference, exact, indices, T, 3), by_autograd(exact, indices, T, 3))
    difference = max(abs(a - b) for a, b in zip(*first, strict=True))
    return (
        f"| {K} | {m} | {T} | {_mean_sd(hand)} | {_mean_sd(peer)} | {_mean_sd(ratios)} | {difference:.0e} |",
        statistics.fmean(ratios),
    )


def _mean_sd(values: list[float]) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.2f} ± {sd:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8, help="measurements of each (default 8)")
    parser.add_argument("--updates", type=int, default=200, help="updates in each (default 200)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reference = load_assignment("a4_rnn_text_synthesis", ROOT).reference()
    rows, ratios = [], []
    for K, m, T in SETTINGS:
        row, ratio = measure(reference, K, m, T, arguments.rounds, arguments.updates)
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
        ratios.append(ratio)
    page = "\n".join([
        "# Assignment 4: one update by hand and through nn.RNN with autograd",
        "",
        "Milliseconds of processor time for one update (forward, backward, clipping, AdaGrad), mean ± standard "
        f"deviation of {arguments.rounds} rounds of {arguments.updates} updates. Ratio: by hand / autograd, round by "
        "round; below 1 the hand-written update is the faster one. Last column: the largest difference between the "
        "first three losses of the two, in float64.",
        "",
        "| K | m | T | by hand (ms) | autograd (ms) | ratio | difference |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread of a {platform.machine()} machine with "
        f"{os.cpu_count()} cores. Made by `python benchmarks/a4_update.py --write`.",
        "",
    ])  # fmt: skip
    print(page)
    if arguments.write:
        atomic_write(RESULTS, page)
    return int(max(ratios) > 1)


if __name__ == "__main__":
    raise SystemExit(main())
