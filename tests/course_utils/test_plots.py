"""The figures: they show the numbers they were given, they are labelled, and wrong input gets a sentence."""

import base64
import math
from collections.abc import Callable, Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from course_utils import plots
from course_utils.plots import (
    CourseFigure,
    course_style,
    plot_coloured_text,
    plot_confusion_matrix,
    plot_curves,
    plot_filters,
    plot_images,
    plot_layer_histograms,
    plot_probability_histograms,
    plot_search,
    plot_weight_templates,
)

mpl.use("agg")
CLASSES = ("plane", "car", "bird", "cat")


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def uint8_images(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def every_figure() -> dict[str, Figure]:
    return {
        "curves": plot_curves({"cost": {"training": [2.0, 1.0]}, "accuracy": {"test": [0.1, 0.2]}}, title="Run"),
        "templates": plot_weight_templates(torch.randn(3072, 4), CLASSES),
        "images": plot_images(uint8_images(4), [0, 1, 2, 3], CLASSES, title="Images"),
        "filters": plot_filters(torch.randn(5, 3, 4, 6), columns=3, title="Filters"),
        "confusion": plot_confusion_matrix(torch.arange(16).reshape(4, 4), CLASSES),
        "histograms": plot_probability_histograms(torch.rand(20), torch.rand(30)),
        "layers": plot_layer_histograms({"He": [torch.randn(4, 3)] * 2}, limit=3, title="Signals"),
        "search": plot_search({"coarse": ([1e-4, 1e-2], [0.4, 0.5])}, parameter="λ"),
        "coloured text": plot_coloured_text("one\ntwo", {"unit 3": torch.randn(7), "unit 5": torch.zeros(7)}),
    }


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def test_every_figure_draws_without_a_warning_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("a plot function showed its figure"))
    for name, figure in every_figure().items():
        figure.canvas.draw()
        assert isinstance(figure, CourseFigure), name
        assert figure.get_suptitle() or figure.axes[0].get_title(), name
    assert [str(warning.message) for warning in recwarn] == []


def test_the_style_stays_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(mpl.rcParams)
    every_figure()
    assert dict(mpl.rcParams) == before
    with course_style():
        assert mpl.rcParams["font.size"] == plots.STYLE["font.size"] != before["font.size"]
    assert dict(mpl.rcParams) == before


def test_every_text_can_be_read() -> None:
    for figure in every_figure().values():
        assert min(text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()) >= 9


def test_the_palette_keeps_its_contrast_without_colour() -> None:
    """The two colours of a pair differ in lightness, every line shows on white, and splits differ in dashes."""

    def luminance(colour: str) -> float:  # WCAG 2.1, "relative luminance"
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    assert (luminance(plots.VERMILLION) + 0.05) / (luminance(plots.BLUE) + 0.05) > 1.25
    assert all(1.05 / (luminance(colour) + 0.05) > 2 for colour in plots.PALETTE)  # against white
    styles = [tuple(style.values()) for style in plots.SPLIT_STYLES.values()]
    assert len({line for _, line in styles}) == len(styles)


# Curves


def test_curves_show_the_values_at_their_steps() -> None:
    figure = plot_curves(
        {
            "loss": {"training": torch.tensor([2.0, 1.5, 1.2]), "validation": ([0, 10], [2.1, 1.6])},
            "accuracy": {"training": [torch.tensor(0.25), torch.tensor(0.5)]},
        },
        step="update step",
        units={"loss": "nats"},
    )
    loss, accuracy = figure.axes
    training, validation = loss.get_lines()
    assert training.get_xdata().tolist() == [1, 2, 3]
    assert training.get_ydata().tolist() == pytest.approx([2.0, 1.5, 1.2])
    assert validation.get_xdata().tolist() == [0, 10] and validation.get_ydata().tolist() == [2.1, 1.6]
    assert accuracy.get_lines()[0].get_ydata().tolist() == [25, 50]
    assert (loss.get_xlabel(), loss.get_ylabel(), loss.get_title()) == ("update step", "loss (nats)", "Loss")
    assert accuracy.get_ylabel() == "accuracy (%)"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]


def test_panels_of_the_same_curves_have_one_legend_below_them() -> None:
    curves = {"training": [0.1, 0.2], "validation": [0.1, 0.15]}
    figure = plot_curves({"loss": curves, "accuracy": curves})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]
    assert all(axes.get_legend() is None for axes in figure.axes)
    figure.canvas.draw()
    assert all(axes.get_tightbbox().y0 >= legend.get_window_extent().y1 for axes in figure.axes)


def test_panels_of_other_curves_have_legends_of_their_own() -> None:
    figure = plot_curves({"loss": {"training": [2.0, float("nan")]}, "accuracy": {"training": [0.1, 0.2]}})
    texts = [axes.get_legend().get_texts()[0].get_text() for axes in figure.axes]
    assert texts == ["training (not finite from epoch 2)", "training"] and not figure.legends


def test_splits_look_alike_in_every_panel_and_other_curves_differ() -> None:
    names = ("ensemble", "test", "best", "validation", "training")
    (axes,) = plot_curves({"accuracy": {name: [0.1, 0.2] for name in names}}).axes
    looks = {line.get_label(): (to_hex(line.get_color()).upper(), line.get_linestyle()) for line in axes.get_lines()}
    assert looks["training"] == (plots.BLUE, "-") and looks["validation"] == (plots.VERMILLION, "--")
    assert len(set(looks.values())) == len(names)
    many = {f"setting {i}": [0.1, 0.2] for i in range(15)}
    lines = plot_curves({"accuracy": many}).axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 15


def test_a_run_that_diverged_is_drawn_as_far_as_it_goes() -> None:
    (axes,) = plot_curves({"cost": {"training": [1.0, 3.0, float("inf"), float("nan")]}}).axes
    assert axes.get_legend().get_texts()[0].get_text() == "training (not finite from epoch 3)"
    assert np.isnan(axes.get_lines()[0].get_ydata()).tolist() == [False, False, True, True]


def test_a_logarithmic_axis_and_whole_epochs() -> None:
    figure = plot_curves({"learning rate": {"η": [1e-5, 1e-1]}, "cost": {"training": [1.0]}}, log=["learning rate"])
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]
    figure.canvas.draw()
    for axes in figure.axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize("panels", [1, 3, 4])
def test_there_is_one_panel_for_each_quantity(panels: int) -> None:
    assert len(plot_curves({f"quantity {i}": {"training": [1, 2]} for i in range(panels)}).axes) == panels


# Weight templates


def test_templates_are_the_columns_scaled_each_on_its_own() -> None:
    W = torch.zeros(3072, 4, requires_grad=True)
    with torch.no_grad():
        W[1024 + 32 * 5 + 7, 1] = -0.02  # green, row 5, column 7
        W[0, 1] = 0.01
        W[2048, 2] = 500.0
    figure = plot_weight_templates(W, CLASSES)
    assert [axes.get_title() for axes in figure.axes] == list(CLASSES)
    pictures = [axes.get_images()[0].get_array() for axes in figure.axes]
    assert np.allclose(pictures[0], 0.5)
    assert pictures[1][5, 7].tolist() == [0.5, 0.0, 0.5] and pictures[1][0, 0].tolist() == [0.75, 0.5, 0.5]
    assert pictures[2][0, 0].tolist() == [0.5, 0.5, 1.0]


def test_templates_of_other_images() -> None:
    figure = plot_weight_templates(np.ones((16, 2)), ("a", "b"), shape=(1, 4, 4))
    assert figure.axes[0].get_images()[0].get_array().shape == (4, 4, 3)


# Image grids


@pytest.mark.parametrize("as_type", [lambda x: x, lambda x: x / 255, lambda x: (x / 255).numpy()])
def test_images_stand_in_their_order(as_type: Callable) -> None:
    images = uint8_images(5)
    (axes,) = plot_images(as_type(images), torch.tensor([3, 0, 1, 2, 2]), CLASSES, columns=3).axes
    canvas = axes.get_images()[0].get_array()
    for text, image, label in zip(axes.texts, images, [3, 0, 1, 2, 2], strict=True):
        assert text.get_text() == CLASSES[label]
        left, top = round(text.get_position()[0] + 0.5 - 16), round(text.get_position()[1] + 1)
        shown = canvas[top : top + 32, left : left + 32]
        assert np.allclose(shown, image.numpy().transpose(1, 2, 0) / 255, atol=1e-6)


def test_grey_images_without_labels() -> None:
    (axes,) = plot_images(np.full((2, 1, 8, 8), 0.25)).axes
    assert not axes.texts
    assert {0.25, 1.0} == set(np.unique(axes.get_images()[0].get_array()))


def test_labels_without_class_names_are_numbers() -> None:
    assert [text.get_text() for text in plot_images(uint8_images(2), [7, 1]).axes[0].texts] == ["7", "1"]


def test_a_caption_takes_the_place_of_a_class_and_may_have_two_lines() -> None:
    (axes,) = plot_images(uint8_images(2), captions=["cat\n→ dog", "plane"]).axes
    assert [text.get_text() for text in axes.texts] == ["cat\n→ dog", "plane"]
    (single,) = plot_images(uint8_images(2), captions=["cat", "plane"]).axes
    two_lines, one_line = (np.asarray(a.images[0].get_array()).shape[0] for a in (axes, single))
    assert two_lines > one_line


def test_filters_are_scaled_one_by_one_around_grey() -> None:
    filters = torch.zeros(2, 3, 2, 2)
    filters[0, :, 0, 0], filters[0, :, 1, 1] = 4.0, -2.0
    filters[1, 0, 0, 1] = -0.01
    (axes,) = plot_filters(filters).axes
    canvas = np.asarray(axes.images[0].get_array())
    scale, gap = 12, 4
    first, second = canvas[: 2 * scale, : 2 * scale], canvas[: 2 * scale, 2 * scale + gap : 4 * scale + gap]
    assert np.allclose(first[0, 0], 1) and np.allclose(first[-1, -1], 0.25) and np.allclose(first[0, -1], 0.5)
    assert np.allclose(second[0, -1], [0, 0.5, 0.5]) and np.allclose(second[0, 0], 0.5)
    assert np.allclose(canvas[:, 2 * scale : 2 * scale + gap], 1)


# Confusion matrix


def test_the_matrix_shows_counts_and_shares() -> None:
    counts = torch.tensor([[8, 2], [0, 0]])
    figure = plot_confusion_matrix(counts, ("cat", "dog"))
    axes = figure.axes[0]
    assert axes.get_images()[0].get_array().tolist() == [[80, 20], [0, 0]]
    assert [text.get_text() for text in axes.texts] == ["8", "2", "0", "0"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert "80.0% of 10 right" in axes.get_title()
    assert figure.axes[1].get_ylabel() == "share of the true class (%)"


def test_counts_can_be_read_on_their_ground() -> None:
    axes = plot_confusion_matrix([[100, 0], [45, 55]], ("a", "b")).axes[0]
    picture = axes.get_images()[0]
    for text, share in zip(axes.texts, picture.get_array().ravel(), strict=True):
        ground = np.dot(picture.cmap(share / 100)[:3], (0.2126, 0.7152, 0.0722))
        ink = np.dot(mpl.colors.to_rgb(text.get_color()), (0.2126, 0.7152, 0.0722))
        assert abs(ground - ink) > 0.35


# Probability histograms


def test_histograms_count_every_example() -> None:
    right, wrong = torch.tensor([0.91, 0.92, 0.99, 1.0, 0.52]), [0.0, 0.04, 0.49]
    (axes,) = plot_probability_histograms(right, wrong, bins=10).axes
    handles, labels = axes.get_legend_handles_labels()
    assert labels == ["correct (5)", "incorrect (3)"]
    heights = [sorted(set(handle.get_xy()[:, 1])) for handle in handles]
    assert max(heights[0]) == 4 and max(heights[1]) == 2
    assert axes.get_xlabel() == "probability of the true class" and axes.get_ylabel() == "examples"


def test_models_stand_side_by_side_on_one_scale() -> None:
    figure = plot_probability_histograms(
        {"softmax": torch.full((90,), 0.5), "sigmoid": [0.1]}, {"sigmoid": [0.2], "softmax": []}
    )
    assert [axes.get_title() for axes in figure.axes] == ["softmax", "sigmoid"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


# Signals, layer by layer


def test_each_layer_of_each_network_has_a_panel_with_its_spread() -> None:
    figure = plot_layer_histograms(
        {"small": [torch.tensor([[-0.1, 0.1]]), [0.0, 0.0]], "large": [np.array([3.0, 5.0, 9.0]), [-7.0]]},
        limit=4.0,
        bins=8,
        unit="sums",
    )
    assert [axes.get_title() for axes in figure.axes] == ["layer 1", "layer 2", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["small", "", "large", ""]
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["0.1", "0", "2.5", "0"]
    shares = [axes.patches[0].get_data().values.tolist() for axes in figure.axes]
    assert shares[0] == [0, 0, 0, 50, 50, 0, 0, 0]
    assert np.allclose(shares[2], [0, 0, 0, 0, 0, 0, 0, 100])  # beyond the limit stands at its end
    assert shares[3][0] == 100
    assert all(axes.get_xlim() == (-4, 4) for axes in figure.axes)


# Searches


def test_a_search_shows_its_rounds_and_rings_the_best() -> None:
    figure = plot_search(
        {"coarse": (torch.tensor([1e-4, 1e-2, 1e-1]), [0.3, 0.5, 0.1]), "fine": ([5e-3, 2e-2], [0.52, 0.49])},
        parameter="λ",
    )
    everything, last_round = figure.axes
    coarse, fine, best = (c.get_offsets().data for c in everything.collections)
    assert np.allclose(coarse, [[1e-4, 30], [1e-2, 50], [1e-1, 10]]) and np.allclose(fine, [[5e-3, 52], [2e-2, 49]])
    assert np.allclose(best, [[5e-3, 52]])
    assert everything.get_xscale() == "log" and everything.get_ylabel() == "accuracy (%)"
    low, high = last_round.get_xlim()
    assert 1e-3 < low < 5e-3 and 2e-2 < high < 1e-1
    low, high = last_round.get_ylim()
    assert low < 49 and 52 < high < 55  # the coarse 50 lies inside, 30 and 10 do not


def test_a_search_of_something_else() -> None:
    [axes] = plot_search({"all": ([0.1, 0.2], [3.0, -2.0])}, parameter="η", quantity="gain").axes
    assert axes.get_ylabel() == "gain" and axes.get_xlabel() == "η"


# Wrong input


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plot_curves([1, 2]), r"takes \{quantity: \{name: values\}\}.*not a list"),
        (lambda: plot_curves({}), "takes {quantity"),
        (lambda: plot_curves({"cost": [1, 2]}), "takes {quantity"),
        (lambda: plot_curves({"cost": {}}), "no curve of 'cost'"),
        (lambda: plot_curves({"cost": {"training": []}}), "training cost has 0 values at 0 steps"),
        (lambda: plot_curves({"cost": {"training": ([1, 2], [3.0])}}), "has 1 values at 2 steps"),
        (lambda: plot_curves({"cost": {"training": [[1.0], [2.0]]}}), r"training cost must have 1 dimension, not"),
        (lambda: plot_curves({"cost": {"training": "falling"}}), "must be numbers, not a str"),
        (
            lambda: plot_curves({"accuracy": {"test": [0.3, 35.0]}}),
            "test accuracy is a fraction from 0 to 1, but .* 35",
        ),
        (lambda: plot_curves({"cost": {"test": [1]}}, log=["loss"]), "no curves of 'loss'; there are cost"),
        (lambda: plot_weight_templates(torch.zeros(4, 3072), CLASSES), "W has 4 rows"),
        (
            lambda: plot_weight_templates(torch.zeros(3072, 4), CLASSES[:3]),
            "name all 4 columns of W, but it is 3 names",
        ),
        (lambda: plot_weight_templates(torch.zeros(3072, 4), "abcd"), "but it is one string"),
        (lambda: plot_weight_templates(torch.full((3072, 4), torch.nan), CLASSES), "training has diverged"),
        (lambda: plot_weight_templates(torch.zeros(3072), CLASSES), r"must have 2 dimensions, not the shape \(3072,\)"),
        (lambda: plot_images(torch.randn(2, 3, 8, 8)), "show images before they are standardised"),
        (lambda: plot_images(torch.zeros(2, 8, 8, 3)), r"1 or 3 channels, not images of shape \(2, 8, 8, 3\)"),
        (lambda: plot_images(torch.zeros(201, 3, 2, 2)), r"pass a part such as images\[:100\]"),
        (lambda: plot_images(torch.zeros(2, 3, 8, 8), [0]), "labels are 2 whole numbers"),
        (lambda: plot_images(torch.zeros(2, 3, 8, 8), captions=["one"]), "captions are 2 strings"),
        (lambda: plot_images(torch.zeros(2, 3, 8, 8), captions="ab"), "captions are 2 strings"),
        (lambda: plot_images(torch.zeros(2, 3, 8, 8), [0, 1], captions=["a", "b"]), "take the place of labels"),
        (lambda: plot_filters(torch.zeros(5, 16, 3, 3)), r"1 or 3 channels, not filters of shape \(5, 16, 3, 3\)"),
        (lambda: plot_filters(torch.full((2, 3, 3, 3), torch.nan)), "not finite, so training has diverged"),
        (lambda: plot_filters(torch.zeros(2, 3, 3, 3), columns=0), "columns is at least 1"),
        (lambda: plot_images(torch.zeros(2, 3, 8, 8), [0.0, 1.0]), "labels are 2 whole numbers"),
        (lambda: plot_images(torch.zeros(2, 3, 8, 8), [0, 4], CLASSES), "labels run from 0 to 4, but there are 4"),
        (lambda: plot_images(torch.zeros(2, 3, 8, 8), columns=0), "columns is at least 1"),
        (lambda: plot_confusion_matrix(torch.zeros(4, 3), CLASSES), r"square matrix .* shape \(4, 3\)"),
        (lambda: plot_confusion_matrix(-torch.eye(4), CLASSES), "values from -1 to"),
        (lambda: plot_confusion_matrix(torch.eye(4) / 2, CLASSES), "numbers of examples"),
        (lambda: plot_confusion_matrix(torch.eye(3), CLASSES), "name all 3 rows of counts, but it is 4 names"),
        (lambda: plot_probability_histograms([-3.0], [0.5]), "correct examples run from -3 to -3; give probabilities"),
        (lambda: plot_probability_histograms({"a": [0.5]}, {"b": [0.5]}), "both need the same ones"),
        (lambda: plot_probability_histograms({}, {}), "both need the same ones"),
        (lambda: plot_layer_histograms({}, limit=1), "same number of layers"),
        (lambda: plot_layer_histograms({"a": [[1.0]], "b": []}, limit=1), "same number of layers"),
        (lambda: plot_layer_histograms({"a": [[1.0]]}, limit=0), "a limit above 0"),
        (lambda: plot_layer_histograms({"a": [[1.0], [np.inf]]}, limit=1), "layer 2 of a has no values, or some that"),
        (lambda: plot_search({}, parameter="λ"), "at least one round"),
        (lambda: plot_search({"coarse": ([0.1], [0.5, 0.4])}, parameter="λ"), "one finite accuracy for each λ"),
        (lambda: plot_search({"coarse": ([0.0], [0.5])}, parameter="λ"), "each λ above 0"),
        (lambda: plot_search({"coarse": ([0.1], [50.0])}, parameter="λ"), "a fraction from 0 to 1, but it has 50"),
    ],
)
def test_wrong_input_gets_a_sentence(call: Callable, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert caught.value.args[0].endswith(".")


# Coloured text


def test_every_character_stands_on_the_colour_of_its_number() -> None:
    figure = plot_coloured_text("ab\ncdefg", [1.0, -1, 0, 2, 3, 4, 5, -6], columns=3, label="cell", title="A unit")
    axes, bar = figure.axes
    (picture,) = axes.get_images()
    numbers = np.ma.filled(picture.get_array(), np.nan)
    np.testing.assert_array_equal(numbers, [[1, -1, 0], [2, 3, 4], [5, -6, np.nan]])  # a line longer than a row goes on
    assert [t.get_text() for t in axes.texts] == ["a", "b", "↵", "c", "d", "e", "f", "g"]
    assert [t.get_position() for t in axes.texts][3:7] == [(0, 1), (1, 1), (2, 1), (0, 2)]
    assert picture.get_clim() == (-6, 6)  # zero is in the middle of the colours
    assert bar.get_ylabel() == "cell" and figure.get_suptitle() == "A unit"


def test_readings_of_one_text_stand_below_one_another_on_one_scale() -> None:
    figure = plot_coloured_text("$x_1$", {"unit 1": torch.rand(5), "unit 2": np.ones(5)}, limit=2)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["unit 1", "unit 2"]
    assert {axes.get_images()[0].get_clim() for axes in figure.axes[:2]} == {(-2, 2)}
    assert [t.get_text() for t in figure.axes[0].texts] == list("$x_1$")
    figure.canvas.draw()  # a dollar is no mathematics


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("abc", [1.0, 2.0], "values needs one finite number for each of the 3 characters; it has 2 in 2"),
        ("abc", {"unit 7": [1.0, 2.0, math.nan]}, "unit 7 needs one finite number .* it has 2 in 3"),
        ("", [], "takes 1 to 5,000 characters"),
        ("abc", {}, "one reading or more"),
    ],
)
def test_text_without_its_numbers_is_refused(text: str, values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_coloured_text(text, values)


# In a notebook


def test_a_notebook_shows_every_figure_once() -> None:
    cells = [
        "from course_utils.plots import plot_curves\ncurves = {'cost': {'training': [2, 1]}}\nplot_curves(curves)",
        "figure = plot_curves(curves)\nprint('not the last line')\nNone",
        "figure",
        "for _ in range(2):\n    plot_curves(curves)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplot_curves(curves)",
        "plt.get_fignums()",
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    pictures = [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells]
    assert pictures == [1, 1, 1, 2, 2, 0]
    assert notebook.cells[-1].outputs[0]["data"]["text/plain"] == "[]"
    png = base64.b64decode(notebook.cells[0].outputs[0]["data"]["image/png"])
    assert png.startswith(b"\x89PNG")


def test_a_backend_with_windows_shows_its_own_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = plot_curves({"cost": {"training": [2.0, 1.0]}})
    monkeypatch.setattr(mpl, "get_backend", lambda: "widget")
    figure._ipython_display_()
    assert plt.get_fignums()
