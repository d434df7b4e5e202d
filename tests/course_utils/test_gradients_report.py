"""What a student sees: the terminal's table, the notebook's, and the pictures."""

import re
from html.parser import HTMLParser

import matplotlib
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from course_utils.gradients import GradientReport, check_gradients

matplotlib.use("Agg")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, W, b = draw(9, 40, seed=1), draw(40, 4, seed=2), draw(4, seed=3)
y = torch.arange(9) % 4


def f(W: Tensor, b: Tensor) -> Tensor:
    return F.cross_entropy(X @ W + b, y)


GRADIENTS = torch.func.grad(f, argnums=(0, 1))(W, b)


def right() -> GradientReport:
    return check_gradients(f, (W, b), GRADIENTS)


def wrong() -> GradientReport:
    return check_gradients(f, (W, b), (-GRADIENTS[0], GRADIENTS[1]))


class TestTerminal:
    def test_passed(self):
        text = repr(right())
        assert text.startswith("Gradient check: pass.")
        assert "Cause" not in text and "FAIL" not in text

    def test_the_table(self):
        lines = repr(wrong()).splitlines()
        assert lines[0] == "Gradient check: FAIL. 1 of 2 gradients is wrong."
        head = lines[2]
        assert head.split() == ["parameter", "shape", "checked", "median", "largest", "verdict"]
        row_W, row_b = lines[4], lines[5]
        assert re.fullmatch(r"W +\(40, 4\) +1\d\d of 160 +1\.0e\+00 +1\.0e\+00 +✗ fail", row_W)
        assert re.fullmatch(r"b +\(4,\) +4 of 4 +\d\.\de-\d\d +\d\.\de-\d\d +✓ pass", row_b)
        assert row_W.index("✗") == row_b.index("✓")  # the columns stand in line
        assert row_W.index("of 160") + len("of 160") == row_b.index("of 4") + len("of 4")

    def test_the_worst_entry_and_the_cause(self):
        text = " ".join(repr(wrong()).split())
        i, j, analytic, numeric = re.search(
            r"worst at \[(\d+), (\d+)\]: analytic (\S+), numerical (\S+)\.(?: |$)", text
        ).groups()
        assert float(analytic) == pytest.approx(-GRADIENTS[0][int(i), int(j)].item(), rel=1e-4)
        assert float(numeric) == pytest.approx(-float(analytic), rel=1e-4)
        assert "W: Cause: every sampled entry has the opposite sign" in text

    def test_no_line_is_wider_than_a_terminal(self):
        assert max(map(len, repr(wrong()).splitlines())) <= 110

    def test_a_long_name_and_a_single_number(self):
        one, two = torch.tensor([1.0, 2.0], dtype=torch.float64)
        report = check_gradients(lambda s: s**3, two, one, names=["s" * 30])
        assert re.search(r"^s{30}  \(\) +1 of 1 ", repr(report), re.MULTILINE)
        assert "1 of 1 entries is wrong; worst: analytic 1, numerical 12." in repr(report)

    def test_attributes(self):
        report = wrong()
        assert report.passed is False and report.vectorised is True
        assert report["W"].wrong == report["W"].checked >= 100 and report["W"].size == 160
        assert report["b"].median_error <= report["b"].largest_error < 1e-6
        assert report.value == pytest.approx(f(W, b).item())
        assert set(report.causes) == {"W"}


class _Reader(HTMLParser):
    VOID = ("line", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        assert tag in self.VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)


def read(html: str) -> list[str]:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []  # every element is closed, in order
    return [text.strip() for text in reader.texts if text.strip()]


class TestNotebook:
    def test_says_what_the_terminal_says(self):
        texts = read(wrong()._repr_html_())
        for text in ("Gradient check: FAIL. 1 of 2 gradients is wrong.", "(40, 4)", "✗ fail", "✓ pass", "Cause:"):
            assert text in texts
        assert any("has the opposite sign" in text for text in texts)

    def test_has_a_dot_for_each_entry(self):
        report = wrong()
        html = report._repr_html_()
        assert html.count("<circle class=no") == report["W"].checked
        assert html.count("<circle class=yes") == 4

    def test_paints_no_background_and_no_fixed_text_colour(self):
        style = wrong()._repr_html_().split("</style>")[0]
        assert set(re.findall(r"background:([^;}]+)", style)) == {"transparent"}
        for colour in re.findall(r"(?<!-)color:([^;}]+)", style):
            assert colour.startswith("var(--jp-") or colour == "inherit"

    def test_a_refusal_is_one_sentence(self):
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.utils.capture import capture_output

        shell = InteractiveShell.instance()
        shell.user_ns.update(check_gradients=check_gradients, b=b)
        with capture_output() as seen:
            shell.run_cell("check_gradients(lambda b: b.sum(), b.float(), b.float())")
        assert seen.stdout.startswith("GradientCheckError: b is a float32 tensor of shape (4,)")
        assert len(seen.stdout.strip().splitlines()) == 1

    def test_escapes_names(self):
        name = '<script>alert("1")</script>'
        html = check_gradients(lambda v: (v**2).sum(), {name: b}, {name: -2 * b})._repr_html_()
        assert "<script" not in html and name in read(html)

    def test_nothing_judged(self):
        report = check_gradients(lambda b: b.abs().sum(), torch.zeros(3).double(), torch.ones(3).double())
        assert "^ on kinks" in read(report._repr_html_())
        report = check_gradients(lambda b: b.sum(), {"b": b}, {})
        assert "no gradient is given for b." in read(report._repr_html_())

    def test_an_error_of_zero_has_a_place(self):
        report = check_gradients(lambda a, b: (a**2).sum(), (b, b + 1), (2 * b, 0 * b))
        assert "nan" not in report._repr_html_()


class TestPictures:
    def test_three_for_each_parameter(self):
        figure = wrong().plot()
        panels = [axes for axes in figure.axes if axes.get_title()]
        assert [axes.get_title() for axes in panels] == [
            "W: analytic against numerical",
            f"W: relative error of {wrong()['W'].checked} sampled entries",
            "W: relative error over the step",
            "b: analytic against numerical",
            "b: relative error of each entry",
            "b: relative error over the step",
        ]
        for axes in panels:
            assert axes.get_xlabel() and axes.get_ylabel()
            assert axes.get_legend() is not None or axes.collections

    def test_the_scatter_shows_the_values(self):
        report = wrong()
        points = report.plot().axes[0].collections[0].get_offsets()
        assert points[:, 0].tolist() == report["W"].entries.numeric.tolist()
        assert points[:, 1].tolist() == report["W"].entries.analytic.tolist()

    def test_a_full_parameter_is_an_image_of_its_errors(self):
        report = check_gradients(f, (W, b), GRADIENTS, samples=None)
        (image,) = next(a for a in report.plot().axes if a.get_title() == "W: relative error of every entry").images
        assert image.get_array().shape == (40, 4)

    def test_error_over_h_has_its_least_in_the_middle(self):
        scan = right().scan("W")
        median = scan.errors.median(dim=1).values
        best = scan.steps[median.argmin()].item()
        assert 1e-7 < best < 1e-3
        assert median[0] > 100 * median.min() and median[-1] > 100 * median.min()

    def test_the_scan_leaves_everything_as_it_was(self):
        V = W.clone()
        report = check_gradients(f, (V, b), GRADIENTS)
        V += 1.0
        before = V.clone()
        torch.manual_seed(0)
        state = torch.get_rng_state()
        scan = report.scan("W")
        assert torch.equal(V, before) and torch.equal(torch.get_rng_state(), state)
        assert scan.errors.min() < 1e-6  # measured where the check was made, not where V is now

    def test_an_f_that_has_changed_is_told(self):
        data = X.clone()
        report = check_gradients(lambda W: F.cross_entropy(data @ W, y), W, GRADIENTS[0])
        data.mul_(2)
        texts = [t.get_text() for axes in report.plot().axes for t in axes.texts]
        assert any("no longer what it was" in text for text in texts)

    def test_most_and_worst_first(self):
        figure = wrong().plot(most=1)
        assert {axes.get_title().split(":")[0] for axes in figure.axes if axes.get_title()} == {"W"}
        with pytest.raises(ValueError, match="at least one"):
            wrong().plot(most=0)

    def test_kinks_filters_and_nothing_at_all(self):
        V = draw(4, 3, 2, 2, seed=4)
        V[1, 1] = 0
        report = check_gradients(lambda V: V.abs().sum(), V, V.sign() + (V == 0))
        assert "on a kink (4)" in [t.get_text() for t in report.plot().axes[0].get_legend().get_texts()]
        figure = check_gradients(lambda b: b.sum(), {"b": b}, {}).plot()
        assert "There is no gradient to draw." in [t.get_text() for axes in figure.axes for t in axes.texts]

    @pytest.fixture(autouse=True)
    def _close(self):
        yield
        matplotlib.pyplot.close("all")
