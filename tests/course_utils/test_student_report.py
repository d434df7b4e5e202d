"""`course report`: a page and a PDF with what a notebook shows and says, and without its code."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from nbformat.v4 import new_output
from students_folder import DOUBLE, EMPTY, HALVE, NAME, PIXEL, cell, cells, write_folder
from typer.testing import CliRunner, Result

from course_utils.cli import app
from course_utils.report import printing
from course_utils.report.mathematics import formula, markdown_to_html


def report(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, ["report", "a7", *arguments])


def page_of(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> str:
    done = report(monkeypatch, folder, "--no-pdf", *arguments)
    assert done.exit_code == 0, done.output
    page = folder / f"{NAME}_report.html"
    assert str(page) in done.output
    return page.read_text(encoding="utf-8")


def test_the_page_has_figures_numbers_and_answers_and_no_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, cells())
    page = page_of(monkeypatch, tmp_path, "--author", "Anna <B>")
    assert "<h1>Assignment 7: doubling</h1>" in page and "Anna &lt;B&gt;, notebook saved" in page
    assert "Experiment: growth" in page and "the last value is 8.0" in page and PIXEL in page
    assert "Why does doubling grow?" in page and "<strong>every</strong>" in page and "<math" in page
    assert "2 Growth</h3>" in page
    for left_out in ("x + x", "the_experiment_ran", "import torch", "checked", "Figure size", "1 Double</h3>"):
        assert left_out not in page
    assert "<script" not in page and "http://" not in re.sub(r"http://www\.w3\.org", "", page)
    assert page.index("Content-Security-Policy") < page.index("<title>")


def test_own_cells_are_kept_and_progress_bars_and_warnings_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bar = new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar 100%"})
    warning = new_output("stream", name="stderr", text="a warning")
    printed = [new_output("stream", text="10%\r20%\r100%\n"), new_output("stream", text="mine: 3 < 4\n")]
    value = new_output("execute_result", data={"text/plain": "array([1, 2])", "text/html": ["<b>", "bold</b>"]})
    error = new_output("error", ename="ValueError", evalue="x", traceback=["secret"])
    write_folder(
        tmp_path,
        cells(
            DOUBLE,
            HALVE,
            cell("My own remark: $a_1$.", kind="markdown"),
            cell("show()", outputs=[bar, warning, *printed, value, error]),
            cell("And YOUR ANSWER HERE", "written", "unanswered", "markdown"),
        ),
    )
    page = page_of(monkeypatch, tmp_path)
    assert "My own remark" in page and "100%\nmine: 3 &lt; 4" in page and "<b>bold</b>" in page
    assert "(stopped with ValueError)" in page
    for left_out in ("bar 100%", "a warning", "10%", "20%", "secret", "show()"):
        assert left_out not in page


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    more = cell("plt.plot([1])", "experiment", "later"), cell("Q\n\nYOUR ANSWER HERE", "written", "q", "markdown")
    write_folder(tmp_path, cells(DOUBLE, HALVE, *more))
    done = report(monkeypatch, tmp_path, "--no-pdf")
    assert done.exit_code == 0
    assert "Not answered: q.\nExperiments not run: later." in done.output
    write_folder(
        tmp_path, [cell("# Title", "text", "t", "markdown"), cell(EMPTY.format("double"), "exercise", "double")]
    )
    done = report(monkeypatch, tmp_path, "--no-pdf")
    assert done.exit_code == 2 and "shows nothing to report" in done.output


def test_scripts_in_what_a_notebook_shows_do_not_run_under_the_pages_policy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The author may put anything into the page; the policy stands before it and allows no script."""
    evil = new_output("display_data", data={"text/html": "<script>alert(1)</script>"})
    write_folder(tmp_path, cells(DOUBLE, HALVE, cell("x", outputs=[evil])))
    page = page_of(monkeypatch, tmp_path)
    assert page.index("default-src 'none'") < page.index("<script>alert")
    assert "script-src" not in page


def test_the_pdf_is_printed_by_a_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if printing.find_browser() is None:
        pytest.fail("Chromium is needed for this test (Debian, Ubuntu: apt install chromium).")
    write_folder(tmp_path, cells())
    done = report(monkeypatch, tmp_path)
    assert done.exit_code == 0, done.output
    pdf = tmp_path / f"{NAME}_report.pdf"
    assert str(pdf) in done.output
    data = pdf.read_bytes()
    assert data.startswith(b"%PDF-") and b"/Subtype /Image" in data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a7_doubling_report.html", pdf.name, "assignments"]


def test_without_a_browser_the_page_is_there_and_the_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_folder(tmp_path, cells())
    monkeypatch.setattr(printing, "find_browser", lambda: None)
    done = report(monkeypatch, tmp_path)
    assert done.exit_code == 1
    assert "no Chrome, Chromium or Edge was found. Open a7_doubling_report.html" in done.output
    assert (tmp_path / f"{NAME}_report.html").is_file() and not (tmp_path / f"{NAME}_report.pdf").exists()


@pytest.mark.parametrize(
    ("program", "says"),
    [("#!/bin/sh\necho no display >&2; exit 3\n", "(no display)"), ("#!/bin/sh\nsleep 60\n", "longer")],
)
def test_a_browser_that_fails_or_hangs_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, says: str
) -> None:
    write_folder(tmp_path, cells())
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\n{program}")
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(printing.VARIABLE, str(browser))
    monkeypatch.setattr(printing, "SECONDS", 1)
    done = report(monkeypatch, tmp_path)
    assert done.exit_code == 1 and says in done.output and "print it to PDF" in done.output
    assert not (tmp_path / f"{NAME}_report.pdf").exists()


def test_formulas_become_mathml_and_broken_ones_stay_readable() -> None:
    assert formula(r"\frac{\partial \ell}{\partial W}").startswith("<math")
    assert 'display="block"' in markdown_to_html("$$a = b$$")
    assert formula(r"\frac{") == r"<code>\frac{</code>"
    assert "$5 and 6$ dollars" in markdown_to_html("`$5 and 6$ dollars`")
    assert "&lt;img src=x" in markdown_to_html("<img src=x onerror=alert(1)>", escape=True)
