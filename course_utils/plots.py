"""The course's figures: curves, searches, templates, images, confusion matrices, histograms, text.

Every function checks its input, draws in one style, labels what it draws, and returns the figure without showing it:
a notebook shows it at the end of the cell, a script saves it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

Numbers = Sequence[float] | np.ndarray | torch.Tensor
"""Anything that can be read as an array of numbers."""
Curve = Numbers | tuple[Numbers, Numbers]
"""The values of a curve, one a step from step 1 on, or a tuple of the steps and the values at them."""

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
"""Seven colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008)."""
SPLIT_STYLES = {
    "training": {"color": BLUE, "linestyle": "-"},
    "validation": {"color": VERMILLION, "linestyle": "--"},
    "test": {"color": GREEN, "linestyle": ":"},
}
"""How the three splits look in every figure of the course."""
FRACTIONS = ("accuracy", "error rate")
"""Quantities that are given as fractions from 0 to 1 and shown in per cent."""

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "figure.titlesize": 13,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":"]) * cycler(color=PALETTE),
}


@contextmanager
def course_style() -> Iterator[None]:
    """Draw in the course's style inside a ``with`` block or a function decorated with ``@course_style()``."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # it wants its 300 keys as literals
        yield
        interactive = mpl.is_interactive()
    # The first figure of a notebook switches interactive drawing on, which must outlive the context: without it the
    # notebook would show no figure at all.
    mpl.interactive(interactive)


class CourseFigure(Figure):
    """A figure that a notebook shows once.

    A notebook shows the value of a cell's last line, and at the cell's end every figure that is open. A figure that is
    returned on the last line would appear twice, so showing one closes it.
    """

    def _ipython_display_(self) -> None:
        drawn_by_a_window = mpl.get_backend().lower().rsplit(".", 1)[-1] not in ("inline", "backend_inline", "agg")
        manager = self.canvas.manager
        if drawn_by_a_window and manager is not None and plt.fignum_exists(manager.num):
            return
        from IPython.core.pylabtools import print_figure
        from IPython.display import display

        display({"image/png": print_figure(self, "png"), "text/plain": repr(self)}, raw=True)
        plt.close(self)


@course_style()
def plot_curves(
    curves: Mapping[str, Mapping[str, Curve]],
    *,
    step: str = "epoch",
    units: Mapping[str, str] | None = None,
    log: Collection[str] = (),
    title: str | None = None,
) -> Figure:
    """Plot what training recorded, one panel for each quantity.

    Parameters
    ----------
    curves : mapping of str to mapping of str to curve
        For each quantity (``"cost"``, ``"loss"``, ``"accuracy"``, …) its curves by name (``"training"``,
        ``"validation"``, or whatever is compared). A curve is the values of steps 1, 2, 3, … or a tuple
        ``(steps, values)``. Accuracies are fractions from 0 to 1 and shown in per cent.
    step : str
        What a step is: ``"epoch"``, ``"update step"``.
    units : mapping of str to str, optional
        The unit of a quantity, such as ``{"loss": "nats"}``.
    log : collection of str
        Quantities with a logarithmic axis.
    title : str, optional
        A title over all panels.

    Returns
    -------
    Figure
        With one axes for each quantity.

    Raises
    ------
    ValueError
        If there is nothing to draw, lengths differ, or an accuracy is not a fraction.

    Examples
    --------
    >>> plot_curves({"cost": {"training": [2.0, 1.9], "validation": [2.1, 2.0]}})    # doctest: +SKIP
    """
    if not isinstance(curves, Mapping) or not curves or not all(isinstance(c, Mapping) for c in curves.values()):
        raise ValueError(
            "plot_curves takes {quantity: {name: values}}, such as {'cost': {'training': [2.0, 1.9]}}, "
            f"not {_described(curves)}."
        )
    for quantity in (*log, *(units or {})):
        if quantity not in curves:
            raise ValueError(f"plot_curves has no curves of {quantity!r}; there are {', '.join(curves)}.")
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure, panels = _figure(rows, columns, (5.0 * columns, 3.5 * rows))
    for axes in panels[len(curves) :]:
        axes.remove()
    for axes, (quantity, lines) in zip(panels, curves.items(), strict=False):
        _draw_curves(axes, quantity, lines, step)
        unit = "%" if quantity in FRACTIONS else (units or {}).get(quantity, "")
        axes.set(xlabel=step, ylabel=f"{quantity} ({unit})" if unit else quantity)
        axes.set_title(quantity[:1].upper() + quantity[1:])
        if quantity in log:
            axes.set_yscale("log")
    drawn = panels[: len(curves)]
    if len({tuple(axes.get_legend_handles_labels()[1]) for axes in drawn}) == 1 < len(drawn):
        handles, names = drawn[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4)  # one for all, over no curve
    else:
        for axes in drawn:
            axes.legend()
    if title:
        figure.suptitle(title)
    return figure


@course_style()
def plot_weight_templates(
    W: Numbers, classes: Sequence[str], *, shape: tuple[int, int, int] = (3, 32, 32), title: str | None = None
) -> Figure:
    """Show each column of a weight matrix as the image to which it responds most.

    Each image is scaled by its own largest absolute weight, so middle grey is 0 in all of them, brighter channels
    are positive weights and darker ones negative.

    Parameters
    ----------
    W : array, (d, K)
        Weights; d is the product of `shape`.
    classes : sequence of str
        The K class names.
    shape : tuple of int
        Channels (3 or 1), height and width of an image.
    title : str, optional

    Returns
    -------
    Figure
        With one axes for each class.

    Raises
    ------
    ValueError
        If shapes do not fit or a weight is not finite.
    """
    weights = _array(W, "plot_weight_templates: W", 2)
    d, K = weights.shape
    if d != np.prod(shape) or shape[0] not in (1, 3):
        raise ValueError(f"plot_weight_templates: W has {d} rows, which is not one for each value of {shape} images.")
    _check_classes("plot_weight_templates", classes, K, "columns of W")
    if not np.isfinite(weights).all():
        raise ValueError("plot_weight_templates: W has weights that are not finite, so training has diverged.")
    largest = np.abs(weights).max(axis=0)  # (K,)
    images = 0.5 + 0.5 * weights / np.where(largest > 0, largest, 1)  # (d, K), 0.5 where the weight is 0
    columns = min(K, 5)
    rows = -(-K // columns)
    figure, panels = _figure(rows, columns, (1.75 * columns, 1.95 * rows + 0.4))
    for axes, name, column in zip(panels, classes, images.T, strict=False):
        _show_image(axes, column.reshape(shape))
        axes.set_title(name, fontsize=11)
    for axes in panels[K:]:
        axes.remove()
    figure.suptitle(title or "Weights of each class (grey is 0, each scaled on its own)")
    return figure


@course_style()
def plot_images(
    images: Numbers,
    labels: Numbers | None = None,
    classes: Sequence[str] | None = None,
    *,
    captions: Sequence[str] | None = None,
    columns: int = 10,
    title: str | None = None,
) -> Figure:
    """Show images in a grid, each under the name of its class or under a caption of its own.

    Parameters
    ----------
    images : array, (N, C, H, W)
        uint8, or floating point in [0, 1]; C is 3 or 1; N from 1 to 200.
    labels : array of int, (N,), optional
        Class indices.
    classes : sequence of str, optional
        Class names; without them the indices are shown.
    captions : sequence of str, optional
        What to write above each image, in place of a class; a caption may have several lines.
    columns : int
        How many images stand side by side.
    title : str, optional

    Returns
    -------
    Figure
        With one axes.

    Raises
    ------
    ValueError
        If shapes, types or values do not fit.
    """
    pixels = _array(images, "plot_images: images", 4)
    N, C, H, W = pixels.shape
    if C not in (1, 3) or not 1 <= N <= 200:
        raise ValueError(
            f"plot_images takes 1 to 200 images with 1 or 3 channels, not images of shape {pixels.shape}; "
            "for more, pass a part such as images[:100]."
        )
    if pixels.dtype == np.uint8:
        pixels = pixels / 255
    elif not (np.issubdtype(pixels.dtype, np.floating) and 0 <= pixels.min() <= pixels.max() <= 1):
        raise ValueError(
            "plot_images takes uint8 images or floating-point ones in [0, 1]; show images before they are standardised."
        )
    if columns < 1:
        raise ValueError(f"plot_images: columns is at least 1, not {columns}.")
    if captions is not None and (labels is not None or isinstance(captions, str) or len(captions) != N):
        raise ValueError(f"plot_images: captions are {N} strings, one for each image, and take the place of labels.")
    names = list(captions) if captions is not None else _label_names("plot_images", labels, classes, N)

    # One picture holds all images: hundreds of axes would take seconds to draw.
    columns = min(columns, N)
    rows = -(-N // columns)
    lines = max((name.count("\n") + 1 for name in names), default=0)
    gap, strip = max(1, W // 16), round(0.3 * H) * lines  # space between images, and above them for names
    high, wide = H + gap + strip, W + gap
    canvas = np.ones((rows * high, columns * wide, 3))
    figure, (axes,) = _figure(1, 1, (columns * 1.0 + 0.2, rows * high / wide + (0.5 if title else 0.2)))
    for index, image in enumerate(pixels):
        row, column = divmod(index, columns)
        top, left = row * high + strip, column * wide
        canvas[top : top + H, left : left + W] = image.transpose(1, 2, 0)  # a single channel is repeated
        if names:
            size = 9 if lines == 1 else 7
            axes.text(left + W / 2 - 0.5, top - 1, names[index], ha="center", va="bottom", fontsize=size)
    axes.imshow(canvas)
    axes.set_axis_off()
    if title:
        axes.set_title(title)
    return figure


@course_style()
def plot_filters(filters: Numbers, *, columns: int = 10, title: str | None = None) -> Figure:
    """Show the filters of a convolution's first layer as small images.

    Each filter is scaled by its own largest absolute weight, so middle grey is 0 in all of them.

    Parameters
    ----------
    filters : array, (F, C, kh, kw)
        C is 3 (shown in colour) or 1; F from 1 to 500.
    columns : int
        How many filters stand side by side.
    title : str, optional

    Returns
    -------
    Figure
        With one axes.

    Raises
    ------
    ValueError
        If the shape does not fit or a weight is not finite.
    """
    weights = _array(filters, "plot_filters: filters", 4)
    count, C, kh, kw = weights.shape
    if C not in (1, 3) or not 1 <= count <= 500:
        raise ValueError(
            f"plot_filters takes 1 to 500 filters of 1 or 3 channels, not filters of shape {weights.shape}; only the "
            "filters of a layer that sees the image itself can be shown as images."
        )
    if not np.isfinite(weights).all():
        raise ValueError("plot_filters: some weights are not finite, so training has diverged.")
    if columns < 1:
        raise ValueError(f"plot_filters: columns is at least 1, not {columns}.")
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    images = 0.5 + 0.5 * weights / np.where(largest > 0, largest, 1)
    columns = min(columns, count)
    rows = -(-count // columns)
    scale = max(1, 24 // max(kh, kw))  # pixels of the canvas for each weight, so that the gaps are thin
    gap = 4
    high, wide = kh * scale + gap, kw * scale + gap
    canvas = np.ones((rows * high, columns * wide, 3))
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        enlarged = image.transpose(1, 2, 0).repeat(scale, axis=0).repeat(scale, axis=1)
        canvas[row * high : row * high + kh * scale, column * wide : column * wide + kw * scale] = enlarged
    width = min(13.0, 0.75 * columns + 0.2)
    figure, (axes,) = _figure(1, 1, (width, width * rows * high / (columns * wide) + (0.5 if title else 0.2)))
    axes.imshow(canvas)
    axes.set_axis_off()
    if title:
        axes.set_title(f"{title} (grey is 0, each scaled on its own)")
    return figure


@course_style()
def plot_confusion_matrix(counts: Numbers, classes: Sequence[str], *, title: str | None = None) -> Figure:
    """Show how often each class was taken for each class.

    Parameters
    ----------
    counts : array of int, (K, K)
        ``counts[i, j]`` examples of class i were given class j.
    classes : sequence of str
        The K class names.
    title : str, optional

    Returns
    -------
    Figure
        The colour is the share of the true class in per cent, the numbers are the counts.

    Raises
    ------
    ValueError
        If the matrix is not square, has negative or fractional entries, or the names do not fit.
    """
    matrix = _array(counts, "plot_confusion_matrix: counts", 2)
    K = len(matrix)
    if matrix.shape != (K, K) or not (matrix >= 0).all() or not (matrix == np.round(matrix)).all():
        raise ValueError(
            f"plot_confusion_matrix: counts is a square matrix of numbers of examples, not one of shape {matrix.shape} "
            f"with values from {matrix.min():g} to {matrix.max():g}."
        )
    _check_classes("plot_confusion_matrix", classes, K, "rows of counts")
    total = matrix.sum(axis=1, keepdims=True)
    share = 100 * matrix / np.where(total > 0, total, 1)
    side = max(3.2, 0.56 * K + 1.6)
    figure, (axes,) = _figure(1, 1, (side + 0.9, side))
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.grid(False)
    axes.set_xticks(range(K), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(K), classes)
    axes.set(xlabel="predicted class", ylabel="true class")
    right = np.trace(matrix) / max(1, matrix.sum())
    axes.set_title(title or f"Confusion matrix ({right:.1%} of {int(matrix.sum()):,} right)")
    if K <= 25:
        for (i, j), count in np.ndenumerate(matrix):
            axes.text(
                j,
                i,
                f"{int(count)}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if share[i, j] > 55 else "black",
            )
    figure.colorbar(picture, ax=axes, label="share of the true class (%)", shrink=0.9)
    return figure


@course_style()
def plot_probability_histograms(
    p_right: Numbers | Mapping[str, Numbers],
    p_wrong: Numbers | Mapping[str, Numbers],
    *,
    bins: int = 20,
    title: str | None = None,
) -> Figure:
    """Show how sure a classifier is of the true class, for the examples it gets right and for those it gets wrong.

    Parameters
    ----------
    p_right, p_wrong : array, (n,), or mapping of str to array
        The probability given to the true class of each example that is classified correctly or incorrectly. For
        several models side by side, mappings with the models' names.
    bins : int
        Into how many parts [0, 1] is divided.
    title : str, optional

    Returns
    -------
    Figure
        With one axes for each model, all on one scale.

    Raises
    ------
    ValueError
        If a value is not a probability or the models' names differ.
    """
    models_right = p_right if isinstance(p_right, Mapping) else {"": p_right}
    models_wrong = p_wrong if isinstance(p_wrong, Mapping) else {"": p_wrong}
    if not models_right or set(models_right) != set(models_wrong):
        raise ValueError(
            f"plot_probability_histograms: p_right is of the models {list(models_right)} and p_wrong of "
            f"{list(models_wrong)}; both need the same ones."
        )
    edges = np.linspace(0, 1, bins + 1).tolist()
    figure, panels = _figure(1, len(models_right), (4.6 * len(models_right) + 0.6, 3.4), sharey=True)
    for axes, model in zip(panels, models_right, strict=True):
        for name, numbers, colour, hatch in (
            ("correct", models_right[model], BLUE, ""),
            ("incorrect", models_wrong[model], VERMILLION, "///"),
        ):
            p = _array(numbers, f"plot_probability_histograms: the probabilities of the {name} examples", 1)
            if p.size and not 0 <= p.min() <= p.max() <= 1:
                raise ValueError(
                    f"plot_probability_histograms: the probabilities of the {name} examples run from {p.min():g} to "
                    f"{p.max():g}; give probabilities, not scores or logarithms."
                )
            # A face light enough to look through and an edge and a hatch that tell the two apart without colour.
            axes.hist(p, edges, histtype="stepfilled", facecolor=colour + "55", edgecolor=colour, hatch=hatch,
                      linewidth=1.6, label=f"{name} ({p.size:,})")  # fmt: skip
        axes.set(xlabel="probability of the true class", xlim=(0, 1))
        axes.set_title(model or "Probability of the true class")
        axes.legend(title="classified")
    panels[0].set_ylabel("examples")
    if title:
        figure.suptitle(title)
    return figure


@course_style()
def plot_layer_histograms(
    layers: Mapping[str, Sequence[Numbers]],
    *,
    limit: float,
    bins: int = 60,
    unit: str = "value",
    title: str | None = None,
) -> Figure:
    """Show how the values inside a network are distributed, layer by layer.

    Parameters
    ----------
    layers : mapping of str to sequence of array
        For each network (one row of panels) the values of its layers 1, 2, …, of any shape.
    limit : float
        Every panel shows the values from −limit to limit, so that a spread which shrinks or grows is seen to.
    bins : int
        Into how many parts that range is divided.
    unit : str
        What the values are.
    title : str, optional

    Returns
    -------
    Figure
        With one axes for each layer of each network, and the standard deviation in it.

    Raises
    ------
    ValueError
        If networks have different numbers of layers, or a value is not finite.
    """
    depth = max(map(len, layers.values()), default=0)
    if not depth or any(len(values) != depth for values in layers.values()) or not limit > 0:
        raise ValueError(
            "plot_layer_histograms takes the same number of layers (1 or more) for each network and a limit above 0, "
            f"not { ({name: len(values) for name, values in layers.items()}) } and limit={limit}."
        )
    figure, panels = _figure(len(layers), depth, (1.45 * depth + 0.8, 1.25 * len(layers) + 0.9))
    edges = np.linspace(-limit, limit, bins + 1)
    for row, (name, of_network) in enumerate(layers.items()):
        for column, numbers in enumerate(of_network):
            where = f"plot_layer_histograms: layer {column + 1} of {name}"
            values = _array(np.ravel(_cpu(numbers)), where, 1).astype(np.float64)
            if not values.size or not np.isfinite(values).all():
                raise ValueError(f"{where} has no values, or some that are not finite.")
            axes = panels[row * depth + column]
            share, _ = np.histogram(np.clip(values, -limit, limit), edges)  # what lies outside stands at the ends
            axes.stairs(100 * share / values.size, edges, fill=True, color=PALETTE[row % len(PALETTE)])
            axes.set(xlim=(-limit, limit), yticks=[])
            axes.grid(False)
            axes.text(0.97, 0.95, f"{values.std():.2g}", transform=axes.transAxes, ha="right", va="top", fontsize=9)
            if row == 0:
                axes.set_title(f"layer {column + 1}", fontsize=11)
            if row < len(layers) - 1:
                axes.set_xticklabels([])
        panels[row * depth].set_ylabel(name, fontsize=10)
    figure.supxlabel(f"{unit} (the number is their standard deviation)", fontsize=11)
    if title:
        figure.suptitle(title)
    return figure


@course_style()
def plot_search(
    rounds: Mapping[str, tuple[Numbers, Numbers]],
    *,
    parameter: str,
    quantity: str = "accuracy",
    title: str | None = None,
) -> Figure:
    """Show what a search of a hyper-parameter found.

    Parameters
    ----------
    rounds : mapping of str to (values, results)
        For each round of the search (``"coarse"``, ``"fine"``) the values that were tried, all positive, and what
        each reached. Accuracies are fractions from 0 to 1 and shown in per cent.
    parameter, quantity : str
        What was searched, and what was measured.
    title : str, optional

    Returns
    -------
    Figure
        A scatter with a logarithmic axis and a ring around the best; with two rounds or more a second axes shows the
        range of the last one.

    Raises
    ------
    ValueError
        If there is nothing to draw, lengths differ, a value is not positive or an accuracy is not a fraction.
    """
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, (values, results) in rounds.items():
        where = f"plot_search: {name}"
        x, y = (_array(numbers, where, 1).astype(np.float64) for numbers in (values, results))
        if not len(x) or len(x) != len(y) or not (x > 0).all() or not np.isfinite(y).all():
            raise ValueError(f"{where} needs one finite {quantity} for each {parameter}, and each {parameter} above 0.")
        if quantity in FRACTIONS:
            if (y < 0).any() or (y > 1).any():
                raise ValueError(f"{where}: {quantity} is a fraction from 0 to 1, but it has {np.abs(y).max():g}.")
            y = 100 * y
        found[name] = x, y
    if not found:
        raise ValueError("plot_search takes {round: (values, results)} with at least one round.")
    everything = [np.concatenate(parts) for parts in zip(*found.values(), strict=True)]
    best_x, best_y = (values[everything[1].argmax()] for values in everything)
    figure, panels = _figure(1, min(2, len(found)), (5.2 * min(2, len(found)), 3.8))
    for axes in panels:
        for (name, (x, y)), marker, colour in zip(found.items(), "os^Dv", PALETTE, strict=False):
            axes.scatter(x, y, s=45, marker=marker, color=colour, label=name)
        axes.scatter(best_x, best_y, s=190, facecolor="none", edgecolor=BLACK, label=f"best: {best_x:.2g}")
        axes.set(xscale="log", xlabel=parameter, ylabel=f"{quantity} (%)" if quantity in FRACTIONS else quantity)
    panels[0].set_title("All" if len(panels) > 1 else quantity[:1].upper() + quantity[1:])
    panels[0].legend()
    if len(panels) > 1:
        name, (x, y) = list(found.items())[-1]
        inside = [(a, b) for u, v in found.values() for a, b in zip(u, v, strict=True) if x.min() <= a <= x.max()]
        low, high = min(b for _, b in inside), max(b for _, b in inside)
        margin = 0.1 * (high - low) or 0.1
        panels[1].set(xlim=(x.min() / 1.15, x.max() * 1.15), ylim=(low - margin, high + margin))
        panels[1].set_title(f"The range of the {name} round")
    for axes in panels:
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if high > 50 * low else (1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if title:
        figure.suptitle(title)
    return figure


@course_style()
def plot_coloured_text(
    text: str,
    values: Numbers | Mapping[str, Numbers],
    *,
    columns: int = 100,
    limit: float | None = None,
    label: str = "value",
    title: str | None = None,
) -> Figure:
    """Show a text with each character on the colour of a number, such as the state of one hidden unit.

    Parameters
    ----------
    text : str
        1 to 5,000 characters. A line is continued below after `columns` characters; its end is shown as ↵.
    values : array, (N,), or mapping of str to array
        One number for each character; for several readings of the same text, a mapping with their names.
    columns : int
        Characters in a row.
    limit : float, optional
        The numbers with the strongest colours are −limit and +limit; by default the largest absolute value of each
        reading.
    label : str
        What the numbers are, beside the colour bar.
    title : str, optional

    Returns
    -------
    Figure
        With one axes for each reading, and one for each colour bar.

    Raises
    ------
    ValueError
        If there is not one finite number for each character.
    """
    readings = values if isinstance(values, Mapping) else {"": values}
    if not text or len(text) > 5000 or columns < 1 or not readings:
        raise ValueError(
            f"plot_coloured_text takes 1 to 5,000 characters, rows of at least 1 and one reading or more, not "
            f"{len(text):,} characters, rows of {columns} and {len(readings)} readings."
        )
    places = _places(text, columns)
    rows = max(row for row, _ in places) + 1
    inches = (0.095 * columns + 1.6, len(readings) * (0.22 * rows + 0.45) + 0.4)
    figure, panels = _figure(len(readings), 1, inches)
    for axes, (name, numbers) in zip(panels, readings.items(), strict=True):
        array = _array(numbers, f"plot_coloured_text: the values {name}".rstrip(), 1).astype(np.float64)
        if len(array) != len(text) or not np.isfinite(array).all():
            raise ValueError(
                f"plot_coloured_text: {name or 'values'} needs one finite number for each of the {len(text)} "
                f"characters; it has {int(np.isfinite(array).sum())} in {len(array)}."
            )
        largest = limit or float(np.abs(array).max()) or 1.0
        colours = np.full((rows, columns), np.nan)
        for (row, column), number, character in zip(places, array, text, strict=True):
            colours[row, column] = number
            shown = "↵" if character == "\n" else character
            dark = abs(number) > 0.75 * largest
            axes.text(column, row, shown, ha="center", va="center", fontsize=9, family="monospace",
                      color="white" if dark else "black", parse_math=False)  # fmt: skip
        picture = axes.imshow(colours, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
        axes.set_axis_off()
        axes.set_title(name, fontsize=10, loc="left")
        figure.colorbar(picture, ax=axes, label=label, shrink=0.95, pad=0.01, aspect=10)
    figure.suptitle(title or f"Each character on the colour of its {label}")
    return figure


def _places(text: str, columns: int) -> list[tuple[int, int]]:
    """Row and column of each character of a text that is continued below after `columns` characters."""
    places, row, column = [], 0, 0
    for character in text:
        if column == columns:
            row, column = row + 1, 0
        places.append((row, column))
        row, column = (row + 1, 0) if character == "\n" else (row, column + 1)
    return places


def _figure(rows: int, columns: int, inches: tuple[float, float], *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(rows, columns, figsize=inches, squeeze=False, sharey=sharey, FigureClass=CourseFigure)
    return figure, list(axes.flat)


def _draw_curves(axes: Axes, quantity: str, lines: Mapping[str, Curve], step: str) -> None:
    if not lines:
        raise ValueError(f"plot_curves: there is no curve of {quantity!r}.")
    other_styles = iter(mpl.rcParams["axes.prop_cycle"])
    if any(name in SPLIT_STYLES for name in lines):  # the other curves then begin after the splits' colours
        other_styles = iter(list(other_styles)[len(SPLIT_STYLES) :])
    whole_steps = True
    for name, curve in lines.items():
        where = f"plot_curves: {name} {quantity}"
        if isinstance(curve, tuple) and len(curve) == 2 and np.ndim(_cpu(curve[0])) == 1:
            steps, values = _array(curve[0], f"{where} steps", 1), _array(curve[1], where, 1)
        else:
            values = _array(curve, where, 1)
            steps = np.arange(1, len(values) + 1)
        if not len(values) or len(steps) != len(values):
            raise ValueError(f"{where} has {len(values)} values at {len(steps)} steps; it needs one value at each.")
        values = values.astype(np.float64)
        finite = np.isfinite(values)
        label = name
        if not finite.all():
            label += f" (not finite from {step} {steps[~finite][0]:g})"
        if quantity in FRACTIONS:
            if (values[finite] < 0).any() or (values[finite] > 1).any():
                raise ValueError(f"{where} is a fraction from 0 to 1, but it has {np.max(np.abs(values[finite])):g}.")
            values = 100 * values
        style: dict[str, Any] = SPLIT_STYLES.get(name) or next(other_styles, {})
        axes.plot(steps, np.where(finite, values, np.nan), label=label, marker="o" if len(values) < 3 else "", **style)
        whole_steps &= bool((steps == np.round(steps)).all())
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole_steps, min_n_ticks=1))
    if whole_steps:
        axes.xaxis.set_major_formatter("{x:,.0f}")
    if quantity in FRACTIONS:
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=""))


def _show_image(axes: Axes, image: np.ndarray) -> None:
    """Show one (C, H, W) image with values in [0, 1]."""
    axes.imshow(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0))
    axes.set_axis_off()


def _cpu(numbers: object) -> Any:
    return numbers.detach().cpu() if isinstance(numbers, torch.Tensor) else numbers


def _array(numbers: object, where: str, ndim: int) -> np.ndarray:
    """`numbers` as an array of `ndim` dimensions."""
    try:
        if isinstance(numbers, list | tuple):
            numbers = [_cpu(number) for number in numbers]  # a list of 0-d tensors is what training loops collect
        array = np.asarray(_cpu(numbers))
        if array.dtype.kind not in "buif":
            raise ValueError
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{where} must be numbers, not {_described(numbers)}.") from None
    if array.ndim != ndim:
        raise ValueError(f"{where} must have {ndim} dimension{'s' * (ndim > 1)}, not the shape {array.shape}.")
    return array


def _check_classes(function: str, classes: Sequence[str], K: int, what: str) -> None:
    if isinstance(classes, str) or len(classes) != K:
        number = "one string" if isinstance(classes, str) else f"{len(classes)} names"
        raise ValueError(f"{function}: classes must name all {K} {what}, but it is {number}.")


def _label_names(function: str, labels: Numbers | None, classes: Sequence[str] | None, N: int) -> list[str]:
    if labels is None:
        return []
    indices = _array(labels, f"{function}: labels", 1)
    if len(indices) != N or indices.dtype.kind not in "iu":
        raise ValueError(f"{function}: labels are {N} whole numbers, one for each image, not {_described(labels)}.")
    if classes is None:
        return [str(index) for index in indices]
    if indices.size and not 0 <= indices.min() <= indices.max() < len(classes):
        raise ValueError(
            f"{function}: labels run from {indices.min()} to {indices.max()}, but there are {len(classes)} classes."
        )
    return [classes[index] for index in indices]


def _described(given: object) -> str:
    shape = getattr(given, "shape", None)
    return f"a {type(given).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
