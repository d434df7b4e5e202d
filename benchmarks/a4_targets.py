"""How far does the reference RNN of Assignment 4 get, beside the published curve?

    python benchmarks/a4_targets.py [--texts tinyshakespeare sherlock_holmes] [--seeds 0 1 2]
                                    [--gradients right one_step] [--write]

Trains with the reference's own train_rnn, taken from solutions/a4_rnn_text_synthesis, in the published setting:
m = 100 units, chunks of T = 25, AdaGrad with η = .1, matrices from N(0, .01²), the whole text.  The published loss is
summed over the 25 characters of a chunk and clips its gradient at ±5; ours is their mean, so a published loss is 25 of
ours, and the same clipping is at ±5/25 = ±.2.  (Without clipping AdaGrad takes the same steps for a loss and for 25
times that loss.)  The smoothed loss is smooth_loss's.

"one_step" trains with a gradient that does not flow back through time: every h_{t−1} is taken for a constant.

Every finished run is kept in build/benchmarks/a4_targets.json and not made again; the table shows all runs there
are.  `--write` writes it to benchmarks/results/a4_targets.md.  One thread; a run of 100,000 updates takes 80 to 120
seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autograder.assignment import load_assignment  # noqa: E402
from autograder.atomic_write import atomic_write  # noqa: E402
from course_utils.data import load_text  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "a4_targets.md"
RUNS = ROOT / "build" / "benchmarks" / "a4_targets.json"
M, T, LR, CLIP, SIGMA = 100, 25, 0.1, 5 / 25, 0.01
POINTS = (1, 1_000, 4_000, 30_000, 100_000)
PUBLISHED = ("109.2", "86.4", "60.1", "47.6", "44.9–50.3")
"""KTH DD2424's specification, K = 80 characters of a book in copyright; the last is the range of students' reports."""
GRADIENTS = {"right": "through all steps", "one_step": "through one step only"}


def one_step_backward(params: Mapping[str, Tensor], cache: Any) -> dict[str, Tensor]:
    """The gradient of the reference without what comes back from later steps."""
    inputs, targets, H, logits = cache
    G = torch.softmax(logits, 1)
    G[torch.arange(len(targets)), targets] -= 1
    G /= len(targets)
    A = (G @ params["V"].T) * (1 - H[1:] ** 2)
    grad_U = torch.zeros_like(params["U"]).index_add_(0, inputs, A)
    return {"U": grad_U, "W": H[:-1].T @ A, "V": H[1:].T @ G, "b": A.sum(0), "c": G.sum(0)}


def train(reference: dict[str, Any], text: str, gradient: str, seed: int) -> dict[str, Any]:
    """One run: 25 times the smoothed loss at each of POINTS, K, processor seconds, and the text's checksum."""
    if gradient == "one_step":
        reference["rnn_backward"] = one_step_backward
    characters = load_text(text).text
    char_to_index, _ = reference["build_vocabulary"](characters)
    indices, K = reference["encode"](characters, char_to_index), len(char_to_index)
    params = reference["init_rnn"](K, M, sigma=SIGMA, generator=torch.Generator().manual_seed(seed))
    smooth: float | None = None
    losses: dict[int, float] = {}

    def on_update(step: int, loss: float, h: Tensor) -> None:
        nonlocal smooth
        smooth = float(reference["smooth_loss"](smooth, loss))
        if step + 1 in POINTS:
            losses[step + 1] = T * smooth

    start = time.process_time()
    reference["train_rnn"](params, indices, T=T, lr=LR, clip=CLIP, updates=max(POINTS), on_update=on_update)
    return {
        "text": text, "gradient": gradient, "seed": seed, "K": K, "losses": [losses[p] for p in POINTS],
        "seconds": time.process_time() - start, "md5": hashlib.md5(characters.encode()).hexdigest(),
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> str:
    """All runs as a Markdown page."""
    lines = [
        "# Assignment 4: the smoothed loss of a vanilla RNN",
        "",
        f"m = {M}, T = {T}, AdaGrad η = {LR}, clipping at ±5 of the summed loss (±{CLIP:g} of our mean), "
        f"σ = {SIGMA}, the whole text. 25 × smoothed mean loss, which is the published smoothed sum of 25; "
        "mean ± standard deviation over the seeds. Before training it is 25 ln K. Seconds: processor time of one run "
        "to 100,000.",
        "",
        "Published: KTH's DD2424, a book in copyright with K = 80; the last column is the range of students' reports.",
        "",
        "| text | K | 25 ln K | gradient | seeds | " + " | ".join(f"{p:,}" for p in POINTS) + " | seconds |",
        "|---|---|---|---|---|" + "---|" * (len(POINTS) + 1),
        f"| published | 80 | {25 * math.log(80):.1f} | through all steps | | " + " | ".join(PUBLISHED) + " | |",
    ]
    for text, gradient in dict.fromkeys((run["text"], run["gradient"]) for run in runs):
        rows = [run for run in runs if (run["text"], run["gradient"]) == (text, gradient)]
        K = rows[0]["K"]
        lines.append(
            f"| {text} | {K} | {T * math.log(K):.1f} | {GRADIENTS[gradient]} | "
            f"{', '.join(str(run['seed']) for run in rows)} | "
            + " | ".join(_mean_sd([run["losses"][i] for run in rows], 1) for i in range(len(POINTS)))
            + f" | {_mean_sd([run['seconds'] for run in rows], 0)} |"
        )
    lines += [
        "",
        "Where both gradients stand, compare them: the one that does not flow through time is no gradient of the loss, "
        "and yet its loss is not higher. So no threshold on the loss can tell a right solution from a wrong one.",
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread of a {platform.machine()} machine with "
        f"{os.cpu_count()} cores. Made by `python benchmarks/a4_targets.py --write`.",
        "",
    ]
    return "\n".join(lines)


def _mean_sd(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", nargs="+", default=["tinyshakespeare", "sherlock_holmes"], help="of the registry")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run for each")
    parser.add_argument("--gradients", nargs="+", default=["right"], choices=GRADIENTS, help="which gradients")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    assignment = load_assignment("a4_rnn_text_synthesis", ROOT)
    runs: list[dict[str, Any]] = json.loads(RUNS.read_text()) if RUNS.is_file() else []
    for seed in arguments.seeds:
        for gradient in arguments.gradients:
            for text in arguments.texts:
                if any((r["text"], r["gradient"], r["seed"]) == (text, gradient, seed) for r in runs):
                    continue
                runs.append(train(assignment.reference(), text, gradient, seed))
                RUNS.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(RUNS, json.dumps(runs, indent=1) + "\n")
                print(runs[-1], file=sys.stderr, flush=True)
    runs.sort(key=lambda run: (run["text"] != "tinyshakespeare", run["text"], run["gradient"] != "right", run["seed"]))
    page = table(runs)
    print(page)
    if arguments.write:
        atomic_write(RESULTS, page)
        print(f"Written to {RESULTS.relative_to(ROOT)}.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
