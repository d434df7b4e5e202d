"""Charts as SVG to stand within a page: text stays text, and the page's style gives all colours, in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autograder.class_statistics import ExerciseStatistics

# What stands for a colour of the page while matplotlib draws.
INK, FAINT, MAIN, SECOND = "#010101", "#020202", "#030303", "#040404"
COLOURS = {INK: "currentColor", FAINT: "var(--faint)", MAIN: "var(--main)", SECOND: "var(--second)"}
STYLE: Any = {
    "svg.fonttype": "none",  # text as text: it can be read aloud and searched, and has the page's font
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
WIDTH = 7.2  # inches


def marks_chart(shares: Sequence[float]) -> str:
    """A histogram of points in per cent, ten bars."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "marks"}):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        axes = figure.subplots()
        percent = [min(max(100 * s, 0.0), 100.0) for s in shares]
        counts, edges = np.histogram(percent, bins=range(0, 101, 10))
        bars = axes.bar(edges[:-1], counts, width=9.2, align="edge", color=MAIN)
        axes.bar_label(bars, labels=[str(c) if c else "" for c in counts], color=INK)
        axes.set(xlabel="points for the exercises, in per cent of the maximum", ylabel="students", xlim=(0, 100))
        axes.set_xticks(range(0, 101, 10))
        axes.set_ylim(0, 1.18 * max(1.0, float(max(counts))))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return _svg(figure, "Histogram of the points")


def exercises_chart(exercises: Sequence[ExerciseStatistics]) -> str:
    """For each exercise the mean share of its points, and beside it how well it tells students apart."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "exercises"}):
        figure = Figure(figsize=(WIDTH, 0.7 + 0.27 * len(exercises)), layout="constrained")
        easy, telling = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        rows = range(len(exercises))
        names = [e.name + (" (bonus)" if e.bonus else "") for e in exercises]
        easy.barh(rows, [100 * e.mean for e in exercises], color=MAIN, height=0.66)
        easy.plot([100 * e.full for e in exercises], rows, "D", color=SECOND, markersize=5)
        for row, e in zip(rows, exercises, strict=True):
            easy.text(101.5, row, f"{100 * e.mean:.0f}", va="center", color=INK)
        easy.set(xlim=(0, 112), xlabel="mean points, %  (◆ all points)", yticks=list(rows), yticklabels=names)
        easy.set_xticks(range(0, 101, 25))
        telling.axvline(0, color=FAINT, linewidth=0.8)
        known = [(e.discrimination, r) for e, r in zip(exercises, rows, strict=True) if e.discrimination is not None]
        telling.hlines([r for _, r in known], 0, [d for d, _ in known], color=MAIN, linewidth=1.5)
        telling.plot([d for d, _ in known], [r for _, r in known], "o", color=MAIN, markersize=6)
        low = min([0.0, *(d for d, _ in known)])
        telling.set(xlim=(low - 0.05, 1.05), xlabel="discrimination")
        telling.set_xticks([t for t in (-0.5, 0, 0.5, 1) if t >= low - 0.05])
        for axes in (easy, telling):
            axes.tick_params(axis="y", length=0)
        telling.spines.left.set_visible(False)
        easy.invert_yaxis()
        return _svg(figure, "Mean points and discrimination of each exercise")


def _svg(figure: Figure, title: str) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for drawn, shown in COLOURS.items():
        text = text.replace(drawn, shown)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
