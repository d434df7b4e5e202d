"""Pictures of a gradient check: where the two gradients differ, and how that depends on the step."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from course_utils.gradients.judgement import Entries, Status
from course_utils.gradients.report import GradientReport, ParameterReport, StepScan
from course_utils.plots import BLACK, BLUE, ORANGE, VERMILLION, CourseFigure, course_style

SMALLEST_ERROR = 1e-13
"""Smaller relative errors are drawn here: on a log axis zero has no place."""

LOOKS = {
    Status.PASS: ("agrees", BLUE, "o"),
    Status.FAIL: ("wrong", VERMILLION, "X"),
    Status.TOO_SMALL: ("too small to judge", ORANGE, "s"),
    Status.KINK: ("on a kink", "#888888", "^"),
}


@course_style()
def plot_report(report: GradientReport, *, most: int = 4) -> Figure:
    """Three pictures for each parameter: scatter, error map, error over h.

    Parameters
    ----------
    report : GradientReport
        What a check found.
    most : int
        How many parameters to draw, the worst first; at least 1.

    Returns
    -------
    Figure
        One row for each parameter that has anything to draw.
    """
    if most < 1:
        raise ValueError(f"most is {most}: at least one parameter is to be drawn.")
    drawable = [p for p in report.parameters if p.checked]
    chosen = sorted(drawable, key=lambda p: -_severity(p))[:most]
    chosen = [p for p in drawable if p in chosen]  # back in their own order
    rows = max(1, len(chosen))
    figure, axes = plt.subplots(rows, 3, figsize=(14, 4.1 * rows + 0.5), squeeze=False, FigureClass=CourseFigure)
    figure.suptitle(report.headline)
    if not chosen:
        for panel in axes[0]:
            panel.set_axis_off()
        axes[0, 1].text(0.5, 0.5, "There is no gradient to draw.", ha="center", transform=axes[0, 1].transAxes)
    for row, parameter in zip(axes, chosen, strict=False):
        assert parameter.entries is not None
        _draw_agreement(row[0], parameter, parameter.entries)
        if len(parameter.shape) < 2:
            _draw_errors_in_order(row[1], parameter, parameter.entries, report.tolerance)
        else:
            _draw_error_map(figure, row[1], parameter, parameter.entries, report.tolerance)
        _draw_step_scan(row[2], parameter, report)
    return figure


def _severity(parameter: ParameterReport) -> float:
    order = {"pass": 0.0, "too small to judge": 1.0, "on kinks": 2.0, "fail": 3.0}
    largest = parameter.largest_error
    return order[parameter.verdict] + (0.5 * min(largest, 1.0) if largest == largest else 0.0)


def _draw_agreement(axes: Axes, parameter: ParameterReport, entries: Entries) -> None:
    """Analytic against numerical: on the line they agree; a slope or an offset is told at a glance."""
    numeric, analytic = entries.numeric.numpy(), entries.analytic.numpy()
    low, high = min(numeric.min(), analytic.min()), max(numeric.max(), analytic.max())
    margin = 0.05 * (high - low) or 1e-3
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color=BLACK, linestyle="-", linewidth=1, alpha=0.5, label="analytic = numerical")
    for status, (label, colour, marker) in LOOKS.items():
        mask = entries.status.numpy() == status
        if mask.any():
            axes.scatter(
                numeric[mask],
                analytic[mask],
                s=26,
                color=colour,
                marker=marker,
                alpha=0.75,
                linewidths=0,
                label=f"{label} ({mask.sum():,})",
            )
    axes.set(
        title=f"{parameter.name}: analytic against numerical",
        xlabel="numerical derivative",
        ylabel="analytic derivative",
        xlim=ends,
        ylim=ends,
    )
    axes.legend(loc="best", frameon=True, framealpha=0.8, fontsize=9)


def _shown(errors: np.ndarray) -> np.ndarray:
    return np.clip(errors, SMALLEST_ERROR, None)


def _draw_errors_in_order(axes: Axes, parameter: ParameterReport, entries: Entries, tolerance: float) -> None:
    for status, (_, colour, marker) in LOOKS.items():
        mask = entries.status.numpy() == status
        axes.scatter(entries.flat.numpy()[mask], _shown(entries.error.numpy()[mask]), s=30, c=colour, marker=marker)
    axes.axhline(tolerance, color=BLACK, linestyle="--", linewidth=1, label=f"tolerance {tolerance:g}")
    axes.set(
        title=f"{parameter.name}: relative error of each entry",
        xlabel="entry",
        ylabel="relative error",
        yscale="log",
        ylim=(SMALLEST_ERROR / 2, 3),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(loc="best", frameon=True, framealpha=0.8, fontsize=9)


def _draw_error_map(figure: Figure, axes: Axes, parameter: ParameterReport, entries: Entries, tolerance: float) -> None:
    """Errors where they stand in the parameter; further axes are laid side by side along the columns."""
    rows, columns = parameter.shape[0], parameter.size // parameter.shape[0]
    row, column = entries.flat.numpy() // columns, entries.flat.numpy() % columns
    on_kink = entries.status.numpy() == Status.KINK
    errors = _shown(entries.error.numpy())
    norm = LogNorm(1e-10, 1.0, clip=True)
    if len(errors) == parameter.size:
        grid = np.full((rows, columns), np.nan)
        grid[row[~on_kink], column[~on_kink]] = errors[~on_kink]
        shown: ScalarMappable = axes.imshow(grid, norm=norm, cmap="viridis", aspect="auto", interpolation="nearest")
        what = "of every entry"
    else:
        shown = axes.scatter(
            column[~on_kink], row[~on_kink], c=errors[~on_kink], norm=norm, cmap="viridis", s=30, marker="s"
        )
        what = f"of {len(errors):,} sampled entries"
    if on_kink.any():
        axes.scatter(column[on_kink], row[on_kink], s=26, marker="^", c="#888888", label="on a kink")
        axes.legend(loc="upper right", frameon=True, framealpha=0.8, fontsize=9)
    axes.grid(visible=False)
    rest = "column" if len(parameter.shape) == 2 else f"axes 1 to {len(parameter.shape) - 1}, side by side"
    axes.set(
        title=f"{parameter.name}: relative error {what}",
        xlabel=rest,
        ylabel="row" if len(parameter.shape) == 2 else "axis 0",
        xlim=(-0.5, columns - 0.5),
        ylim=(rows - 0.5, -0.5),
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    bar = figure.colorbar(shown, ax=axes, label="relative error (line: tolerance)")
    bar.ax.axhline(tolerance, color=VERMILLION, linewidth=2.5)


def _draw_step_scan(axes: Axes, parameter: ParameterReport, report: GradientReport) -> None:
    """Too large a step meets f's curvature, too small a one its rounding; a wrong gradient meets neither."""
    scan: StepScan | None = report.scan(parameter.name)
    axes.set(title=f"{parameter.name}: relative error over the step", xlabel="step h", ylabel="relative error")
    if scan is None:
        axes.text(
            0.5, 0.5, "f is no longer what it was\nat the check.", ha="center", va="center", transform=axes.transAxes
        )
        return
    steps, errors = scan.steps.numpy(), _shown(scan.errors.numpy())
    axes.loglog(steps, errors, color=BLUE, linestyle="-", linewidth=1, alpha=0.35)
    axes.lines[0].set_label("one entry each")
    finite = np.isfinite(errors).any(axis=1)
    axes.loglog(steps[finite], np.nanmedian(errors[finite], axis=1), color=VERMILLION, linestyle="-", label="median")
    axes.axvline(report.h, color=BLACK, linestyle=":", linewidth=1.2, label=f"h of the check, {report.h:g}")
    axes.axhline(report.tolerance, color=BLACK, linestyle="--", linewidth=1, label=f"tolerance {report.tolerance:g}")
    axes.set_ylim(SMALLEST_ERROR / 2, 5)
    axes.legend(loc="best", frameon=True, framealpha=0.8, fontsize=9)
