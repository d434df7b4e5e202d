"""What a student sees in JupyterLab: an exercise not written, a wrong one, a right one; light and dark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from lab_process import start_lab
from playwright.sync_api import Browser, Page, expect

from autograder.assignment import load_assignment

WRONG = """def softmax(scores):
    e = torch.exp(scores - scores.max())
    return e / e.sum(0)
"""
ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab on a student's folder with three notebooks: its address and its home folder."""
    folder = tmp_path_factory.mktemp("student")
    assignment = load_assignment("a1", ROOT)
    shutil.copy(assignment.folder / "checks.py", folder)
    right = assignment.cell("exercise", "softmax").solved
    wanted = ("setup", "exercise-softmax", "check-softmax")
    for name, source in (("empty", None), ("wrong", WRONG), ("right", right)):
        notebook = nbformat.read(assignment.notebook, as_version=4)
        notebook.cells = [c for c in notebook.cells if c.id.startswith(wanted)]
        for cell in notebook.cells:
            if cell.id == "exercise-softmax" and source:
                cell.source = source
        nbformat.write(notebook, folder / f"{name}.ipynb")
    home = tmp_path_factory.mktemp("home")
    process, address = start_lab(folder, home)
    yield address, home
    process.kill()  # its kernels notice and end
    process.wait(timeout=60)


def open_and_run(browser: Browser, lab: tuple[str, Path], notebook: str, theme: str) -> Page:
    """Open a notebook in a theme, run all its cells, and wait for the table."""
    address, home = lab
    themes = home / "jupyter" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    themes.mkdir(parents=True, exist_ok=True)
    (themes / "themes.jupyterlab-settings").write_text(json.dumps({"theme": f"JupyterLab {theme}"}))
    page = browser.new_context(viewport={"width": 1200, "height": 1000}).new_page()
    page.goto(f"{address}/lab/workspaces/{notebook}{theme}/tree/{notebook}.ipynb")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle", timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    try:
        page.wait_for_selector(".course-check table", timeout=120_000)
    finally:
        page.screenshot(path=SCREENSHOTS / f"check_{notebook}_{theme.lower()}.png")
    page.locator(".course-check").first.evaluate("e => e.scrollIntoView({block: 'start'})")
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / f"check_{notebook}_{theme.lower()}.png")
    return page


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_wrong_exercise_shows_message_and_picture(browser: Browser, lab: tuple[str, Path], theme: str) -> None:
    page = open_and_run(browser, lab, "wrong", theme)
    assert page.evaluate("document.body.dataset.jpThemeLight") == str(theme == "Light").lower()
    table = page.locator(".course-check").first
    expect(table).to_contain_text("✗ not met")
    expect(table).to_contain_text("expected")
    assert table.locator("svg rect").count() > 20
    # Legible: the text's colour is far from the page's.
    colours = page.evaluate(
        """() => {
            const cell = document.querySelector('.course-check td:nth-child(2)');
            const panel = document.querySelector('.jp-NotebookPanel-notebook');
            const rgb = (e, k) => getComputedStyle(e)[k].match(/\\d+/g).slice(0, 3).map(Number);
            return [rgb(cell, 'color'), rgb(panel, 'backgroundColor')];
        }"""
    )
    assert abs(sum(colours[0]) - sum(colours[1])) > 300, colours


def test_empty_exercise_says_that_nothing_is_written(browser: Browser, lab: tuple[str, Path]) -> None:
    page = open_and_run(browser, lab, "empty", "Light")
    expect(page.locator(".course-check").first).to_contain_text("softmax: nothing is written yet.")


def test_right_exercise_has_all_criteria_met(browser: Browser, lab: tuple[str, Path]) -> None:
    page = open_and_run(browser, lab, "right", "Light")
    table = page.locator(".course-check").first
    expect(table).to_contain_text("criteria are met.")
    assert table.locator(".no").count() == 0
