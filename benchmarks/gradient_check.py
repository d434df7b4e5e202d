"""How fast, and how sharp: our gradient checker against torch's gradcheck and a plain loop.

Part one times five ways to check the right gradients of the same networks, as ratios taken within one repetition.
Part two plants errors in hand-derived gradients and records which way finds which, and what ours says is the cause.
Part three gives each way right gradients that are awkward to check, and records false alarms.

    python benchmarks/gradient_check.py              prints the tables
    python benchmarks/gradient_check.py --write      also writes benchmarks/results/gradient_check.md
"""

import argparse
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError
from torch.nn import functional as F

from course_utils.gradients import GradientCheckError, check_gradients

RESULTS = Path(__file__).parent / "results" / "gradient_check.md"
PLAIN_LOOP_PASSES = 1e-5
"""The plain loop's one number, |a − n| / (|a| + |n|) over the whole gradient, passes below this."""

Tensors = dict[str, Tensor]


def draw(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------- the networks


@dataclass
class Problem:
    """Something to check: a function, its parameters and their analytic gradients."""

    name: str
    f: Callable[..., Tensor]
    parameters: Tensors
    gradients: Callable[[Tensors, Tensor | None], Tensors]
    """(parameters, upstream) → gradients; the upstream is None where f returns one number."""
    options: dict[str, Any] = field(default_factory=dict)
    """What ours is told besides: sizes, λ, an upstream."""


def softmax_classifier(N: int, d: int, K: int, lam: float = 0.1, **change: Any) -> Problem:
    """Mean cross-entropy of a linear classifier plus λ ΣW².  `change` plants errors."""
    X, y = draw(N, d, seed=1), torch.arange(N) * 7 % K
    parameters = {"W": draw(d, K, seed=2, scale=1 / math.sqrt(d)), "b": draw(K, seed=3)}

    def f(W: Tensor, b: Tensor) -> Tensor:
        return F.cross_entropy(X @ W + b, y) + lam * (W**2).sum()

    def gradients(p: Tensors, upstream: Tensor | None = None) -> Tensors:
        G = change.get("sign", 1) * (torch.softmax(X @ p["W"] + p["b"], 1) - F.one_hot(y, K))
        G = G / change.get("mean", N)
        return {
            "W": X.T @ G + change.get("weight_decay", 2) * lam * p["W"],
            "b": G.sum(0) / change.get("bias_mean", 1) + change.get("bias_decay", 0) * lam * p["b"],
        }

    sizes = {"N": N, "K": K}
    return Problem(f"softmax {d}→{K}, N = {N}", f, parameters, gradients, {"sizes": sizes, "lam": lam})


def relu_network(N: int, d: int, m: int, K: int, **change: Any) -> Problem:
    """Mean cross-entropy of a network with one hidden layer of ReLUs."""
    X, y = draw(N, d, seed=4), torch.arange(N) * 3 % K
    parameters = {
        "W1": draw(d, m, seed=5, scale=math.sqrt(2 / d)),
        "b1": draw(m, seed=6, scale=0.1),
        "W2": draw(m, K, seed=7, scale=math.sqrt(2 / m)),
        "b2": draw(K, seed=8, scale=0.1),
    }

    def f(W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor) -> Tensor:
        return F.cross_entropy(torch.relu(X @ W1 + b1) @ W2 + b2, y)

    def gradients(p: Tensors, upstream: Tensor | None = None) -> Tensors:
        S1 = X @ p["W1"] + p["b1"]
        H = torch.relu(S1)
        G = (torch.softmax(H @ p["W2"] + p["b2"], 1) - F.one_hot(y, K)) / N
        G1 = (G @ p["W2"].T) * (S1 > 0)
        if change.get("mask") == "all":
            G1 = G @ p["W2"].T
        W1 = X.T @ G1
        if change.get("assign"):  # the halves of the batch, the second one assigned where it had to be added
            W1[: d // 2] = X[N // 2 :, : d // 2].T @ G1[N // 2 :]
            W1[d // 2 :] = 0
        return {"W1": W1, "b1": G1.sum(0), "W2": H.T @ G, "b2": G.sum(0)}

    return Problem(f"ReLU {d}→{m}→{K}, N = {N}", f, parameters, gradients, {"sizes": {"N": N, "K": K}})


def normalised_network(N: int, d: int, m: int, K: int) -> Problem:
    """Three layers, the two hidden ones with batch normalisation before the ReLU."""
    X, y, eps = draw(N, d, seed=9), torch.arange(N) * 3 % K, 1e-5
    parameters = {
        "W1": draw(d, m, seed=10, scale=math.sqrt(2 / d)),
        "gamma1": draw(m, seed=11, scale=0.3) + 1,
        "beta1": draw(m, seed=12, scale=0.3),
        "W2": draw(m, m, seed=13, scale=math.sqrt(2 / m)),
        "gamma2": draw(m, seed=14, scale=0.3) + 1,
        "beta2": draw(m, seed=15, scale=0.3),
        "W3": draw(m, K, seed=16, scale=math.sqrt(2 / m)),
        "b3": draw(K, seed=17, scale=0.1),
    }

    def normalised(S: Tensor) -> tuple[Tensor, Tensor]:
        std = torch.sqrt(S.var(0, unbiased=False) + eps)
        return (S - S.mean(0)) / std, std

    def f(
        W1: Tensor,
        gamma1: Tensor,
        beta1: Tensor,
        W2: Tensor,
        gamma2: Tensor,
        beta2: Tensor,
        W3: Tensor,
        b3: Tensor,
    ) -> Tensor:
        H = torch.relu(gamma1 * normalised(X @ W1)[0] + beta1)
        H = torch.relu(gamma2 * normalised(H @ W2)[0] + beta2)
        return F.cross_entropy(H @ W3 + b3, y)

    def gradients(p: Tensors, upstream: Tensor | None = None) -> Tensors:
        H, memory = X, []
        for k in ("1", "2"):
            Z, std = normalised(H @ p["W" + k])
            memory.append((k, H, Z, std))
            H = torch.relu(p["gamma" + k] * Z + p["beta" + k])
        G = (torch.softmax(H @ p["W3"] + p["b3"], 1) - F.one_hot(y, K)) / N
        found = {"W3": H.T @ G, "b3": G.sum(0)}
        G = G @ p["W3"].T
        for k, H, Z, std in reversed(memory):
            G = G * (p["gamma" + k] * Z + p["beta" + k] > 0)
            found["gamma" + k], found["beta" + k] = (G * Z).sum(0), G.sum(0)
            G = G * p["gamma" + k]
            G = (G - G.mean(0) - Z * (G * Z).mean(0)) / std
            found["W" + k] = H.T @ G
            G = G @ p["W" + k].T
        return found

    return Problem(f"3 layers with BN {d}→{m}→{m}→{K}, N = {N}", f, parameters, gradients, {"sizes": {"N": N, "K": K}})


def batch_norm(N: int, d: int, missing: str = "", upstream: str = "random") -> Problem:
    """Batch normalisation alone, by its backward pass."""
    parameters = {"S": draw(N, d, seed=18), "gamma": draw(d, seed=19, scale=0.3) + 2}

    def f(S: Tensor, gamma: Tensor) -> Tensor:
        out = gamma * (S - S.mean(0)) / torch.sqrt(S.var(0, unbiased=False) + 1e-5)
        return out if upstream == "random" else out.sum()

    def gradients(p: Tensors, G: Tensor | None = None) -> Tensors:
        G = torch.ones(N, d, dtype=torch.float64) if G is None or G.ndim == 0 else G
        S, gamma = p["S"], p["gamma"]
        std = torch.sqrt(S.var(0, unbiased=False) + 1e-5)
        Z = (S - S.mean(0)) / std
        found = {"gamma": (G * Z).sum(0)}
        if missing != "gamma":
            G = G * gamma
        dS = G.clone()
        if missing != "mean":
            dS = dS - G.mean(0)
        if missing != "variance":
            dS = dS - Z * (G * Z).mean(0)
        eps_outside = S.std(0, unbiased=False) + 1e-5
        return {"S": dS / (eps_outside if missing == "eps" else std), **found}

    options = {"upstream": "random"} if upstream == "random" else {}
    return Problem(f"BN {d}, N = {N}", f, parameters, gradients, {"sizes": {"N": N}, **options})


# ---------------------------------------------------------------------------------- the ways to check


@dataclass(frozen=True)
class Outcome:
    """What one way says (passes, alarm, refuses, partly judged, not judged) and its own words."""

    says: str
    words: str = ""


def ours(problem: Problem, **options: Any) -> Outcome:
    upstream = "upstream" in problem.options
    gradients: Any = (
        (lambda G: problem.gradients(problem.parameters, G))
        if upstream
        else problem.gradients(problem.parameters, None)
    )
    try:
        report = check_gradients(problem.f, problem.parameters, gradients, **{**problem.options, **options})
    except GradientCheckError as error:
        return Outcome("refuses", str(error))
    failed = [p for p in report.parameters if p.verdict == "fail"]
    if not failed:
        unjudged = [f"{p.name}: {remark}" for p in report.parameters if p.verdict != "pass" for remark in p.remarks()]
        says = ("partly judged" if unjudged else "passes") if report.passed else "not judged"
        return Outcome(says, " ".join(unjudged[:1]))
    named = [
        f"{p.name}: {p.cause.sentence}" if p.cause else f"{p.name}: no cause named; {next(p.remarks())}" for p in failed
    ]
    return Outcome("alarm", " ".join(named[:2]) + (f" (and {len(named) - 2} more)" if len(named) > 2 else ""))


def gradcheck(problem: Problem, *, fast: bool) -> Outcome:
    """``torch.autograd.gradcheck`` on a Function whose backward is the analytic gradient."""
    names = list(problem.parameters)

    class Wrapped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *values: Tensor) -> Tensor:
            ctx.save_for_backward(*values)
            with torch.no_grad():
                return problem.f(*values)

        @staticmethod
        def backward(ctx: Any, G: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
            values = dict(zip(names, ctx.saved_tensors, strict=True))
            if G.ndim:
                found = problem.gradients(values, G)
                return tuple(found[name] for name in names)
            found = problem.gradients(values, None)
            return tuple(G * found[name] for name in names)

    inputs = tuple(p.clone().requires_grad_() for p in problem.parameters.values())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about float32 inputs, and goes on
            passed = torch.autograd.gradcheck(Wrapped.apply, inputs, fast_mode=fast)
    except GradcheckError as error:
        return Outcome("alarm", str(error))
    except RuntimeError as error:
        return Outcome("alarm", str(error))
    return Outcome("passes" if passed else "alarm")


def plain_loop(problem: Problem, h: float = 1e-5) -> Outcome:
    """Centred differences of every entry in float64 and one relative error for all of them."""
    values = {name: p.clone() for name, p in problem.parameters.items()}
    output = problem.f(**values)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output.dtype)
    one = output.ndim == 0
    analytic = problem.gradients(values, None if one else upstream)

    def value() -> float:
        out = problem.f(**values)
        return float(out if one else (out * upstream).sum())

    a, n = [], []
    for name, p in values.items():
        flat = p.view(-1)
        for k in range(flat.numel()):
            old = flat[k].item()
            flat[k] = old + h
            plus = value()
            flat[k] = old - h
            n.append((plus - value()) / (2 * h))
            flat[k] = old
        a.append(analytic[name].flatten().double())
    A, B = torch.cat(a), torch.tensor(n, dtype=torch.float64)
    error = float((A - B).norm() / (A.norm() + B.norm()))
    return Outcome("passes" if error < PLAIN_LOOP_PASSES else "alarm", f"relative error {error:.1e}")


WAYS: dict[str, Callable[[Problem], Outcome]] = {
    "ours": lambda p: ours(p),
    "ours, no vmap": lambda p: ours(p, vectorised=False),
    "ours, every entry": lambda p: ours(p, samples=None),
    "gradcheck, fast": lambda p: gradcheck(p, fast=True),
    "gradcheck, slow": lambda p: gradcheck(p, fast=False),
    "plain loop": plain_loop,
}


# ---------------------------------------------------------------------------------- part one: time


def time_ways(problems: list[Problem], repetitions: int) -> Iterator[str]:
    """A Markdown table of times, as multiples of ours in the same repetition."""
    yield f"| network | entries | ours (ms) | {' | '.join(list(WAYS)[1:])} |"
    yield "|---|---:|---:|" + "---:|" * (len(WAYS) - 1)
    for problem in problems:
        for way in ("ours", "ours, no vmap", "gradcheck, fast"):  # warm up what is imported or compiled once
            assert WAYS[way](problem).says == "passes", f"{way} does not pass a right {problem.name}"
        ratios: dict[str, list[float]] = {way: [] for way in WAYS}
        base = []
        for _ in range(repetitions):
            seconds = {}
            for way, check in WAYS.items():
                start = time.process_time()
                outcome = check(problem)
                seconds[way] = time.process_time() - start
                assert outcome.says == "passes", f"{way} does not pass a right {problem.name}: {outcome.words}"
            base.append(1000 * seconds["ours"])
            for way in WAYS:
                ratios[way].append(seconds[way] / seconds["ours"])
        entries = sum(p.numel() for p in problem.parameters.values())
        cells = [_mean_sd(ratios[way]) + "×" for way in list(WAYS)[1:]]
        yield f"| {problem.name} | {entries:,} | {_mean_sd(base)} | {' | '.join(cells)} |"


def _mean_sd(values: list[float]) -> str:
    mean, sd = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 0 if mean >= 100 else 1 if mean >= 10 else 2
    return f"{mean:,.{digits}f} ± {sd:,.{digits}f}"


# ---------------------------------------------------------------------------------- part two: planted errors


@dataclass
class Planted:
    """One error, and how the cause should be named by ours."""

    what: str
    problem: Problem


def changed(problem: Problem, change: Callable[[Tensors], None]) -> Problem:
    """The same problem with something done to its gradients."""

    def gradients(p: Tensors, upstream: Tensor | None = None) -> Tensors:
        found = {name: g.clone() for name, g in problem.gradients(p, upstream).items()}
        change(found)
        return found

    return Problem(problem.name, problem.f, problem.parameters, gradients, problem.options)


def planted_errors() -> Iterator[Planted]:
    """The errors of part two, each in an otherwise right gradient."""
    size = (12, 20, 6)
    softmax = lambda **change: softmax_classifier(*size, **change)  # noqa: E731
    yield Planted("sign of (P − Y) flipped", softmax(sign=-1))
    yield Planted("mean over N missing", softmax(mean=1))
    yield Planted("divided by N twice", softmax(mean=12**2))
    yield Planted("bias gradient averaged, not summed", softmax(bias_mean=12))
    yield Planted("λW for 2λW", softmax(weight_decay=1))
    yield Planted("regulariser missing in the gradient", softmax(weight_decay=0))
    yield Planted("bias regularised", softmax(bias_decay=2))

    def last_class(g: Tensors) -> None:
        g["W"][:, -1] = 0

    yield Planted("last class never filled", changed(softmax(), last_class))

    square = relu_network(12, 9, 8, 8)
    yield Planted("square matrix transposed", changed(square, lambda g: g.update(W2=g["W2"].T.clone())))
    network = relu_network(12, 9, 8, 5)
    yield Planted("ReLU's mask left out", relu_network(12, 9, 8, 5, mask="all"))

    def dead(g: Tensors) -> None:
        g["W1"][:, [1, 4, 6]] = 0
        g["b1"][[1, 4, 6]] = 0

    yield Planted("dead branch: zeros for some hidden units", changed(network, dead))

    table, T = draw(15, 4, seed=20), 24
    ids, G = torch.arange(T) ** 2 % 15, draw(T, 4, seed=21)

    def embed(table: Tensor) -> Tensor:
        return (torch.tanh(table[ids]) * G).sum()

    def assigned(p: Tensors, upstream: Tensor | None = None) -> Tensors:
        found = torch.zeros_like(p["table"])
        for t, i in enumerate(ids.tolist()):
            found[i] = G[t] * (1 - torch.tanh(p["table"][i]) ** 2)
        return {"table": found}

    embedding = Problem("embedding", embed, {"table": table}, assigned, {"sizes": {"T": T}})
    yield Planted("`=` for `+=` where an index occurs twice", embedding)

    def fresh(g: Tensors) -> None:
        kept = g["W2"][:, -1].clone()
        g["W2"].zero_()
        g["W2"][:, -1] = kept

    yield Planted("`=` for `+=` over classes: only the last stays", changed(network, fresh))
    yield Planted("BN: mean term missing", batch_norm(12, 7, missing="mean"))
    yield Planted("BN: variance path missing", batch_norm(12, 7, missing="variance"))
    yield Planted("BN: γ not applied", batch_norm(12, 7, missing="gamma"))
    yield Planted("BN: ε outside the square root", batch_norm(12, 7, missing="eps"))
    yield Planted("BN: variance path missing, f a plain sum", batch_norm(12, 7, missing="variance", upstream="sum"))

    def one_small(g: Tensors) -> None:
        k = int(g["b1"].abs().argmin())
        g["b1"][k] = g["b1"][k] + 5e-6

    small = relu_network(12, 9, 8, 5)
    yield Planted("one small entry of 8 off by 5e-6", changed(small, one_small))

    def one_of_many(g: Tensors) -> None:
        g["W"][3, 1] *= 1.5

    many = softmax_classifier(12, 200, 6)
    yield Planted("one entry of 1,200 off by half", changed(many, one_of_many))

    kernel, image, H = draw(4, 2, 3, 3, seed=22), draw(3, 2, 7, 8, seed=23), draw(3, 4, 5, 6, seed=24)

    def convolve(w: Tensor) -> Tensor:
        return (torch.tanh(F.conv2d(image, w)) * H).sum()

    def kernel_gradient(p: Tensors, upstream: Tensor | None = None) -> Tensors:
        return {"w": torch.func.grad(convolve)(p["w"]).flip(2, 3)}

    yield Planted("convolution kernel flipped", Problem("convolution", convolve, {"w": kernel}, kernel_gradient))

    single = softmax()
    yield Planted(
        "everything in float32",
        Problem(
            single.name,
            lambda W, b: F.cross_entropy(draw(12, 20, seed=1).float() @ W + b, torch.arange(12) * 7 % 6),
            {name: p.float() for name, p in single.parameters.items()},
            lambda p, upstream: _autograd(p, draw(12, 20, seed=1).float(), torch.arange(12) * 7 % 6),
        ),
    )
    X, y = draw(12, 20, seed=1), torch.arange(12) * 7 % 6

    def dropout(W: Tensor, b: Tensor) -> Tensor:
        return F.cross_entropy(F.dropout(X, 0.5) @ W + b, y)

    random = Problem("dropout", dropout, single.parameters, lambda p, upstream: _autograd(p, X, y))
    yield Planted("dropout draws a new mask at each call of f", random)


def _autograd(p: Tensors, X: Tensor, y: Tensor) -> Tensors:
    leaves = {name: value.detach().clone().requires_grad_() for name, value in p.items()}
    with torch.enable_grad():
        loss = F.cross_entropy(X @ leaves["W"] + leaves["b"], y)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def awkward_cases() -> Iterator[Planted]:
    """Right gradients that are hard to check."""
    V = draw(20, seed=25)
    V[[3, 8]] = 0.0
    G = draw(20, seed=26)
    relu = Problem(
        "ReLU",
        lambda V: (torch.relu(V) * G).sum(),
        {"V": V},
        lambda p, upstream: {"V": G * (p["V"] > 0)},
    )
    yield Planted("two entries exactly on ReLU's kink", relu)
    near = V.clone()
    near[[3, 8]] = torch.tensor([3e-6, -4e-7], dtype=torch.float64)
    yield Planted(
        "two entries 3e-6 and 4e-7 from the kink",
        Problem("ReLU", relu.f, {"V": near}, relu.gradients),
    )
    X, y = draw(15, 6, seed=27), torch.arange(15) % 4

    def centred(W: Tensor, b: Tensor) -> Tensor:
        S = X @ W + b
        return F.cross_entropy((S - S.mean(0)) / torch.sqrt(S.var(0, unbiased=False) + 1e-5), y)

    def centred_gradients(p: Tensors, upstream: Tensor | None = None) -> Tensors:
        W = torch.func.grad(centred)(p["W"], p["b"])
        return {"W": W, "b": torch.full_like(p["b"], 2e-18)}

    parameters = {"W": draw(6, 4, seed=28), "b": draw(4, seed=29)}
    yield Planted(
        "a bias before BN: its true gradient is 0", Problem("bias before BN", centred, parameters, centred_gradients)
    )
    yield Planted("BN, f a plain sum: the true gradient of S is 0", batch_norm(12, 7, upstream="sum"))
    pixels = draw(15, 40, seed=30).abs().clamp(max=2.5) * 100
    W = {"W": draw(40, 4, seed=31, scale=0.01)}

    def raw(W: Tensor) -> Tensor:
        return F.cross_entropy(pixels @ W, y)

    def raw_gradients(p: Tensors, upstream: Tensor | None = None) -> Tensors:
        return {"W": pixels.T @ (torch.softmax(pixels @ p["W"], 1) - F.one_hot(y, 4)) / 15}

    yield Planted("inputs from 0 to 250, not standardised", Problem("raw pixels", raw, W, raw_gradients))
    large = {"s": draw(10, seed=32, scale=1e6)}
    yield Planted(
        "parameters of size 1e6",
        Problem(
            "large",
            lambda s: torch.sin(s / 1e6).sum(),
            large,
            lambda p, upstream: {"s": torch.cos(p["s"] / 1e6) / 1e6},
        ),
    )


def power(planted: Iterator[Planted], *, right: bool) -> Iterator[str]:
    """A Markdown table: which way says what."""
    ways = ("gradcheck, slow", "gradcheck, fast", "plain loop", "ours")
    yield f"| {'right gradient' if right else 'planted error'} | {' | '.join(ways)} | ours, in words |"
    yield "|---|" + "---|" * (len(ways) + 1)
    for case in planted:
        torch.manual_seed(0)  # gradcheck's projections and dropout draw from the global generator
        outcomes = {way: WAYS[way](case.problem) for way in ways}
        cells = [_cell(outcomes[way].says, right) for way in ways]
        words = " ".join(outcomes["ours"].words.split()).replace("|", "\\|")
        yield f"| {case.what} | {' | '.join(cells)} | {words} |"


def _cell(says: str, right: bool) -> str:
    if right:
        return {"passes": "passes", "alarm": "**false alarm**", "partly judged": "passes, part not judged"}.get(
            says, says
        )
    return {"passes": "**missed**", "alarm": "found"}.get(says, says)


# ---------------------------------------------------------------------------------- the page


def page(repetitions: int, large: bool) -> Iterator[str]:
    yield "# Gradient checking: time and power"
    yield ""
    yield (
        f"torch {torch.__version__.partition('+')[0]}, one thread of {os.cpu_count()} cores, float64. Written by "
        "`python benchmarks/gradient_check.py --write`."
    )
    yield ""
    yield (
        "*ours* is `check_gradients` as it comes (100 sampled entries for each parameter, vectorised). *gradcheck* is "
        "`torch.autograd.gradcheck` as it comes (eps 1e-6, atol 1e-5, rtol 1e-3) on a Function whose backward is the "
        "hand-derived gradient: slow builds the whole Jacobian, fast compares one random projection. The *plain loop* "
        f"takes centred differences of every entry, h = 1e-5, and passes a relative error below {PLAIN_LOOP_PASSES:g} "
        "over the whole gradient."
    )
    yield ""
    yield "## Time to pass a right gradient"
    yield ""
    yield (
        f"Multiples of the time of *ours* in the same repetition, mean ± standard deviation of {repetitions} "
        "repetitions; the second column of numbers is *ours* itself. Times are the processor's, so that other work on "
        "the machine counts for little. *ours, no vmap* evaluates f one change at a time, *ours, every entry* samples "
        "nothing."
    )
    yield ""
    problems = [softmax_classifier(20, 30, 10), relu_network(20, 30, 50, 10), normalised_network(20, 30, 20, 10)]
    yield from time_ways(problems, repetitions)
    if large:
        yield ""
        yield "On images of 3×16×16 pixels, 3 repetitions:"
        yield ""
        yield from time_ways([softmax_classifier(20, 768, 10)], 3)
    yield ""
    yield "## Planted errors"
    yield ""
    yield from power(planted_errors(), right=False)
    yield ""
    yield "## Right gradients that are awkward to check"
    yield ""
    yield from power(awkward_cases(), right=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10, help="repetitions of each timing (default 10)")
    parser.add_argument("--small", action="store_true", help="leave out the largest network")
    parser.add_argument(
        "--write", action="store_true", help=f"write {RESULTS.relative_to(Path(__file__).parent.parent)}"
    )
    options = parser.parse_args()
    if options.repetitions < 2:
        parser.error("--repetitions: at least 2 are needed for a standard deviation")
    torch.set_num_threads(1)
    lines = []
    for line in page(options.repetitions, not options.small):
        print(line, flush=True)
        lines.append(line)
    if options.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        temporary = RESULTS.with_suffix(".part")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(temporary, RESULTS)
        print(f"written to {RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
