"""Does the reference of Assignment 2 reach the published accuracies on real CIFAR-10?

    python benchmarks/a2_targets.py [--rows two_layers_500 …] [--seeds 0 1 2] [--fresh] [--write]

Trains the networks of KTH DD2424's second assignment with the reference's own functions, taken from
solutions/a2_k_layer_networks: features standardised with the training split's mean and standard deviation, He's
initialisation unless said, batches of 100, cyclical learning rate from 1e-5 to 1e-1, everything in float32 on one
thread.  λ of the row `best_lambda` is searched first, from coarse to fine, by 5,000 validation images.

Every run is stored in build/benchmarks as soon as it is done, so that a call that was stopped goes on where it was;
`--fresh` forgets what is stored.  `--write` writes the table to benchmarks/results/a2_targets.md.  Exit status 1
where a row lies below the published range by more than two standard deviations of the seeds.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autograder.assignment import Assignment, load_assignment  # noqa: E402
from autograder.atomic_write import atomic_write  # noqa: E402
from course_utils.data import flatten_images, load_cifar10  # noqa: E402

ASSIGNMENT = "a2_k_layer_networks"
STORE = ROOT / "build" / "benchmarks" / "a2_targets.json"
RESULTS = ROOT / "benchmarks" / "results" / "a2_targets.md"
BATCH_SIZE, LR_MIN, LR_MAX, CLASSES = 100, 1e-5, 1e-1, 10
USED = (
    "initialize", "forward", "cost", "backward", "cyclical_lr", "train", "log_uniform",
    "batch_norm_forward", "batch_norm_backward", "forward_bn", "backward_bn",
)  # fmt: skip
"""The exercises whose reference decides the results; a stored run is only used while these are as they were."""

Layers = list[dict[str, Tensor]]


@dataclass(frozen=True)
class Row:
    """A network, how it is trained, and the range of the published test accuracies (%).

    Attributes
    ----------
    name, what : str
        For the command line, and for the table.
    hidden : tuple of int
        The widths of the hidden layers.
    low, high : float or None
        The published range; None where there is none.
    source : str
        Whose: "S" the course's specification, "R" students' reports.
    train, validation : int
        Numbers of images, from the first on.
    n_s, cycles : int
        Half the length of a cycle, in updates, and the number of cycles.
    lam : float or None
        λ; None for the one that the search finds.
    batch_norm : bool
    sigma : float or None
        Standard deviation of all initial weights; None for He's.
    """

    name: str
    what: str
    hidden: tuple[int, ...]
    low: float | None
    high: float | None
    source: str
    train: int
    validation: int
    n_s: int
    cycles: int
    lam: float | None
    batch_norm: bool = False
    sigma: float | None = None


DEEP = (50, 30, 20, 20, 10, 10, 10, 10)
LONG = 5 * 45_000 // BATCH_SIZE


def _deep(name: str, what: str, hidden: tuple[int, ...], low: float | None, high: float | None, **kind: Any) -> Row:
    """A row of the part on batch normalisation: λ = 0.005, two cycles of ten epochs of 45,000 images."""
    return Row(name, what, hidden, low, high, "R", 45_000, 5_000, LONG, 2, 0.005, **kind)


def _wide(width: int, published: float, lam: float) -> Row:
    """A row of the bonus on width: three cycles of four epochs of 49,000 images."""
    what = f"2 layers, m = {width}, λ = {lam:g}"
    return Row(f"width_{width}", what, (width,), published, published, "R", 49_000, 1_000, 980, 3, lam)


ROWS = (
    Row("two_layers_500", "2 layers, m = 50, λ = 0.01, n_s = 500, 1 cycle", (50,), 45.6, 47.5, "R",
        10_000, 10_000, 500, 1, 0.01),
    Row("two_layers_800", "2 layers, m = 50, λ = 0.01, n_s = 800, 3 cycles", (50,), 46.7, 48.8, "R",
        10_000, 10_000, 800, 3, 0.01),
    Row("best_lambda", "2 layers, m = 50, best λ, n_s = 980, 3 cycles", (50,), 51.5, 51.9, "R",
        49_000, 1_000, 980, 3, None),
    _deep("three_layers", "3 layers", (50, 50), 52.1, 53.4),
    _deep("three_layers_bn", "3 layers with BN", (50, 50), 51.5, 54.0, batch_norm=True),
    _deep("nine_layers", "9 layers", DEEP, 40.4, 47.6),
    _deep("nine_layers_bn", "9 layers with BN", DEEP, 50.5, 52.5, batch_norm=True),
    _deep("sigma_1e-1", "3 layers, σ = 0.1", (50, 50), 53.0, 53.0, sigma=1e-1),
    _deep("sigma_1e-3", "3 layers, σ = 0.001", (50, 50), None, None, sigma=1e-3),
    _deep("sigma_1e-4", "3 layers, σ = 0.0001", (50, 50), 10.0, 10.0, sigma=1e-4),
    _deep("sigma_1e-1_bn", "3 layers with BN, σ = 0.1", (50, 50), 53.5, 53.5, sigma=1e-1, batch_norm=True),
    _deep("sigma_1e-3_bn", "3 layers with BN, σ = 0.001", (50, 50), 53.9, 53.9, sigma=1e-3, batch_norm=True),
    _deep("sigma_1e-4_bn", "3 layers with BN, σ = 0.0001", (50, 50), 53.4, 53.4, sigma=1e-4, batch_norm=True),
    _wide(50, 51.5, 0.001),
    _wide(100, 53.3, 0.002),
    _wide(200, 54.2, 0.003),
    _wide(300, 55.0, 0.003),
    _wide(500, 55.6, 0.003),
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What one training reached: λ, accuracies in %, and processor time in seconds."""

    lam: float
    train: float
    validation: float
    test: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """All runs of a row."""

    row: Row
    runs: tuple[Run, ...]

    def mean(self, quantity: str) -> float:
        return statistics.fmean(getattr(run, quantity) for run in self.runs)

    def sd(self, quantity: str) -> float:
        """Standard deviation over the seeds, with divisor n − 1."""
        return statistics.stdev(getattr(run, quantity) for run in self.runs) if len(self.runs) > 1 else 0.0

    @property
    def published(self) -> str:
        low, high = self.row.low, self.row.high
        if low is None or high is None:
            return "50 or 10 (R)"  # the one row without a range: some starts learn and some never do
        return f"{low:.1f} ({self.row.source})" if low == high else f"{low:.1f}–{high:.1f} ({self.row.source})"

    @property
    def verdict(self) -> str:
        """Whether the mean lies in the published range, within two standard deviations of it, or outside."""
        low, high = self.row.low, self.row.high
        if low is None or high is None:
            return "bimodal, not judged"
        mean, sd = round(self.mean("test"), 2), self.sd("test")
        if low <= mean <= high:
            return "inside"
        if mean + 2 * sd >= low and mean - 2 * sd <= high:
            return "inside within 2 sd"
        return "above" if mean > high else "BELOW"


Split = tuple[Tensor, Tensor]


@lru_cache(1)  # rows that share images stand together; two sets at once would take 1.5 GB
def splits(train: int, validation: int) -> dict[str, Split]:
    """X (N, d) float32 and y (N,) of each split, standardised with the numbers of the training split."""
    images = load_cifar10(train=train, validation=validation, download=False)
    X = {name: flatten_images(getattr(images, name).images) for name in ("train", "validation", "test")}
    mean, std = X["train"].mean(0), X["train"].std(0, unbiased=False)
    for rows in X.values():
        rows.sub_(mean).div_(std)
    return {name: (rows, getattr(images, name).labels) for name, rows in X.items()}


def start(reference: Mapping[str, Any], row: Row, generator: torch.Generator) -> Layers:
    """The initial layers; with batch normalisation each hidden one has γ = 1 and β = 0."""
    sizes = [3 * 32 * 32, *row.hidden, CLASSES]
    scheme = "he" if row.sigma is None else "normal"
    layers = reference["initialize"](sizes, scheme, sigma=row.sigma, generator=generator)
    for layer in layers[:-1] if row.batch_norm else []:
        layer["gamma"], layer["beta"] = torch.ones_like(layer["b"]), torch.zeros_like(layer["b"])
    return layers


def train_bn(
    reference: Mapping[str, Any], X: Tensor, y: Tensor, layers: Layers, row: Row, lam: float, generator: torch.Generator
) -> tuple[Layers, list[dict[str, Tensor]]]:
    """As the reference's `train`, for a network with batch normalisation; also returns the running statistics."""
    running, batches = None, []
    for t in range(2 * row.n_s * row.cycles):
        if not batches:
            batches = list(torch.randperm(len(X), generator=generator).split(BATCH_SIZE))
        batch = batches.pop(0)
        _, cache, running = reference["forward_bn"](X[batch], layers, running, training=True)
        gradients = reference["backward_bn"](y[batch], layers, cache, lam)
        lr = reference["cyclical_lr"](t, row.n_s, LR_MIN, LR_MAX)
        layers = [
            {name: value - lr * gradient[name] for name, value in layer.items()}
            for layer, gradient in zip(layers, gradients, strict=True)
        ]
    assert running is not None
    return layers, running


def run(reference: Mapping[str, Any], row: Row, lam: float, seed: int) -> Run:
    """One training from one seed."""
    data = splits(row.train, row.validation)
    generator = torch.Generator().manual_seed(seed)
    layers = start(reference, row, generator)
    began = time.process_time()
    if row.batch_norm:
        layers, running = train_bn(reference, *data["train"], layers, row, lam, generator)
    else:
        layers = reference["train"](
            *data["train"], layers, lam=lam, batch_size=BATCH_SIZE, n_s=row.n_s, cycles=row.cycles,
            lr_min=LR_MIN, lr_max=LR_MAX, generator=generator,
        )  # fmt: skip
    seconds = time.process_time() - began

    def accuracy(X: Tensor, y: Tensor) -> float:
        if row.batch_norm:
            scores, *_ = reference["forward_bn"](X, layers, running, training=False)
        else:
            scores, _ = reference["forward"](X, layers)
        return 100 * (scores.argmax(1) == y).double().mean().item()

    X, y = data["train"]
    return Run(lam, accuracy(X[:10_000], y[:10_000]), accuracy(*data["validation"]), accuracy(*data["test"]), seconds)


class Store:
    """The runs that are done, in a file."""

    def __init__(self, path: Path, fingerprint: str, fresh: bool) -> None:
        self.path, self.fingerprint = path, fingerprint
        stored = json.loads(path.read_text()) if path.is_file() and not fresh else {}
        self.runs: dict[str, dict[str, float]] = stored.get(fingerprint, {})

    def run(self, reference: Mapping[str, Any], row: Row, lam: float, seed: int) -> Run:
        """The stored run, or a new one, which is stored."""
        settings = {**asdict(row), "lam": lam, "seed": seed}
        key = json.dumps({k: v for k, v in settings.items() if k not in ("what", "low", "high", "source")})
        if key not in self.runs:
            new = run(reference, row, lam, seed)
            self.runs[key] = asdict(new)
            atomic_write(self.path, json.dumps({self.fingerprint: self.runs}, indent=1))
            print(f"{row.name}, seed {seed}: {new}", file=sys.stderr, flush=True)
        return Run(**self.runs[key])


def search(reference: Mapping[str, Any], store: Store) -> list[Run]:
    """Coarse and fine search of λ by 5,000 validation images: eight values and two cycles each.  Best first."""
    generator = torch.Generator().manual_seed(100)
    found: list[Run] = []
    bounds = [1e-5, 1e-1]
    for stage in ("coarse", "fine"):
        for number, lam in enumerate(reference["log_uniform"](*bounds, 8, generator).tolist()):
            row = Row(f"search_{stage}", "", (50,), None, None, "", 45_000, 5_000, 900, 2, lam)
            found.append(store.run(reference, row, lam, number))
        found.sort(key=lambda r: -r.validation)
        best_three = [r.lam for r in found[:3]]
        bounds = [min(best_three) / 1.5, max(best_three) * 1.5]
    return found


def fingerprint(assignment: Assignment) -> str:
    """A digest of the reference's code, without comments and docstrings."""
    digest = hashlib.sha256()
    for name in USED:
        tree = ast.parse(assignment.cell("exercise", name).program)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def table(outcomes: Sequence[Outcome], searched: Sequence[Run], seeds: Sequence[int]) -> str:
    """The results as a Markdown page."""
    by_name = {o.row.name: o for o in outcomes}
    lines = [
        "# Assignment 2: k-layer networks on CIFAR-10",
        "",
        f"All 10,000 test images; mean ± standard deviation over the seeds {', '.join(map(str, seeds))}. "
        f"Batches of {BATCH_SIZE}, η from {LR_MIN:g} to {LR_MAX:g} and back.",
        "Published: S, the specification of KTH's DD2424; R, reports by its students (a single number where there is "
        "one report). A row is inside where it is in that range or above, within two standard deviations. "
        "Seconds: processor time of one training.",
        "",
        "| network | images | validation % | test % | published test % | verdict | seconds |",
        "|---|---:|---|---|---|---|---:|",
    ]
    for o in outcomes:
        what = o.row.what if o.row.lam is not None else f"{o.row.what} (λ = {o.mean('lam'):.2g})"
        lines.append(
            f"| {what} | {o.row.train:,} | {o.mean('validation'):.2f} ± {o.sd('validation'):.2f} "
            f"| {o.mean('test'):.2f} ± {o.sd('test'):.2f} | {o.published} | {o.verdict} | {o.mean('seconds'):.0f} |"
        )
    lines += [
        "",
        "The 3- and 9-layer networks, also those of the σ rows (all weights from N(0, σ²)): hidden layers of "
        f"50, 50 and of {', '.join(map(str, DEEP))} units, λ = 0.005, n_s = {LONG:,}, 2 cycles. "
        "The widths: n_s = 980, 3 cycles.",
    ]
    if searched:
        lines += [
            "",
            "Search of λ (45,000 images, n_s = 900, 2 cycles; validation % of 5,000): "
            + ", ".join(f"{r.lam:.2g}: {r.validation:.2f}" for r in sorted(searched, key=lambda r: r.lam))
            + ".",
        ]
    for depth, words in (("three", "3"), ("nine", "9")):
        if {f"{depth}_layers", f"{depth}_layers_bn"} <= set(by_name):
            without, with_bn = by_name[f"{depth}_layers"].runs, by_name[f"{depth}_layers_bn"].runs
            gaps = [b.test - a.test for a, b in zip(without, with_bn, strict=True)]
            sd = statistics.stdev(gaps) if len(gaps) > 1 else 0.0
            lines += [
                "",
                f"Batch normalisation at {words} layers, test % with it less test % without, of one seed each: "
                f"{statistics.fmean(gaps):+.2f} ± {sd:.2f} ({', '.join(f'{gap:+.2f}' for gap in gaps)}).",
            ]
    missing = [row.what for row in ROWS if row.name not in by_name]
    if missing:
        lines += ["", f"Not run for this page: {'; '.join(missing)}."]
    lines += [
        "",
        "Test % of each seed: "
        + "; ".join(f"{o.row.name}: {', '.join(f'{r.test:.2f}' for r in o.runs)}" for o in outcomes)
        + ".",
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread of a {platform.machine()} machine with "
        f"{os.cpu_count()} cores. Made by `python benchmarks/a2_targets.py --write`.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training of each row for each")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that are stored")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as the notebook does
    assignment = load_assignment(ASSIGNMENT, ROOT)
    reference = assignment.reference()
    store = Store(STORE, fingerprint(assignment), arguments.fresh)
    outcomes, searched = [], []
    for row in (row for row in ROWS if row.name in arguments.rows):
        if row.lam is None:
            searched = search(reference, store)
        lam = searched[0].lam if row.lam is None else row.lam
        runs = tuple(store.run(reference, row, lam, seed) for seed in arguments.seeds)
        outcomes.append(Outcome(row, runs))
    page = table(outcomes, searched, arguments.seeds)
    print(page)
    if arguments.write:
        atomic_write(RESULTS, page)
        print(f"Written to {RESULTS.relative_to(ROOT)}.", file=sys.stderr)
    return int(any(outcome.verdict == "BELOW" for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
