"""What `check` and the gradient report show where a page has other rules than JupyterLab's: VS Code and Colab.

Neither program is here.  The pages have what both do to an output: variables of their own in place of JupyterLab's, and
rules for tables (right-aligned, striped, in VS Code without any border).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page

from autograder.assignment import load_assignment
from course_utils.checking import checker
from course_utils.gradients import check_gradients

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
COLOURS = {"light": ("#3b3b3b", "#ffffff"), "dark": ("#cccccc", "#1f1f1f")}  # text and page
TABLES = """
table, th, tr { text-align: right; vertical-align: middle }
tr:nth-child(even) { background: rgba(130, 130, 130, .08) }
"""
VSCODE = """<!DOCTYPE html><html style="--vscode-foreground:{text};--vscode-editor-background:{page}"><style>
body {{ color: var(--vscode-foreground); background: var(--vscode-editor-background); font: 13px sans-serif }}
table, thead, tr, th, td, tbody {{ border: none !important; border-collapse: collapse }}
code {{ color: #d0d0d0; background: #3c3c3c }}
{tables}</style><body class="vscode-{theme}">{output}</body></html>"""
# Without a doctype: a frame in quirks mode gives tables a size and a colour of their own.
COLAB = """<html theme="{theme}"><style>
html[theme] body {{ color: {text}; background: {page}; font: 14px sans-serif }}
{tables}</style><body><div class="output_html rendered_html">{output}</div></body></html>"""

# Every text with its contrast to the page (WCAG 2.2), and the size of each picture on the page and as drawn.
READ = """page => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgb = colour => {
        canvas.fillStyle = page; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = colour => rgb(colour).map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
    const contrast = colour => {
        const [a, b] = [light(colour), light(page)].sort((x, y) => y - x);
        return (a + .05) / (b + .05);
    };
    const texts = [...document.querySelectorAll('strong, th, td, code')].map(e => [
        e.textContent.slice(0, 40), contrast(getComputedStyle(e).color), parseFloat(getComputedStyle(e).fontSize)]);
    const pictures = [...document.querySelectorAll('.course-check svg')].map(e => {
        const {width, height} = e.getBoundingClientRect(), box = e.viewBox.baseVal;
        return [width, height, box.width, box.height];
    });
    const lines = [...document.querySelectorAll('tbody td')].map(e => getComputedStyle(e).borderBottomWidth);
    const left = [...document.querySelectorAll('.course-check td:nth-child(2)')]
        .map(e => getComputedStyle(e).textAlign);
    return {texts, pictures, lines, left};
}"""


@pytest.fixture(scope="module")
def output() -> str:
    """The tables of exercises with all criteria met, not met with a picture, and nothing written; a gradient report."""
    assignment = load_assignment("a1", ROOT)
    functions = {"torch": torch}
    exec("def softmax(scores):\n    e = torch.exp(scores - scores.max())\n    return e / e.sum(0)", functions)
    exec("def accuracy(X, y, W, b):\n    raise NotImplementedError", functions)
    exec(str(assignment.cell("exercise", "linear_scores").solved), functions)
    tables = checker(assignment.checks, functions)("linear_scores", "softmax", "accuracy")
    w = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    report = check_gradients(lambda w: (w**2).sum(), {"w": w}, {"w": w})
    assert not report.passed
    return str(tables._repr_html_() + report._repr_html_())


def opened(browser: Browser, frame: str, theme: str, output: str, width: int) -> Page:
    text, colour = COLOURS[theme]
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.set_content(frame.format(text=text, page=colour, theme=theme, tables=TABLES, output=output))
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("frame", [VSCODE, COLAB], ids=["vscode", "colab"])
def test_every_text_is_legible_and_no_picture_is_distorted(
    browser: Browser, output: str, frame: str, theme: str, request: pytest.FixtureRequest
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width in (1000, 480):
        page = opened(browser, frame, theme, output, width)
        page.screenshot(path=SCREENSHOTS / f"check_{request.node.callspec.id}_{width}.png", full_page=True)
        seen = page.evaluate(READ, COLOURS[theme][1])
        page.close()
        assert {"✓ met", "✗ not met", "… to do", "✗ fail"} <= {text for text, _, _ in seen["texts"]}
        assert all(contrast >= 4.5 for _, contrast, _ in seen["texts"]), seen["texts"]
        assert {size for _, _, size in seen["texts"]} == {13.0}
        assert "0px" not in seen["lines"] and set(seen["left"]) == {"left"}
        assert seen["pictures"]
        for wide, high, box_wide, box_high in seen["pictures"]:
            assert wide / high == pytest.approx(box_wide / box_high, rel=0.02)
