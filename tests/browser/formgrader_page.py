"""formgrader's page of one submission, driven as a person drives it."""

from __future__ import annotations

from playwright.sync_api import Page


def open_submission(page: Page, address: str, notebook: str) -> None:
    """Open the page of a submitted notebook (its id in the gradebook) and wait until its fields save what is typed.

    The fields are in the page before formgrader has fetched the grades that it ties to them; what is typed until
    then is never saved.  (`formgrader.loaded` would not do: without a network MathJax is missing, and it stays false.)
    """
    page.goto(f"{address}/formgrader/submissions/{notebook}")
    page.wait_for_function("[formgrader.grades, formgrader.comments].every(part => part && part.loaded)")


def type_score(page: Page, cell: str, score: str) -> None:
    """Type a score into the panel of a cell, and wait until formgrader has saved it."""
    field = page.locator(f"input#{cell}")
    with page.expect_response(lambda r: "/api/grade/" in r.url and r.request.method == "PUT") as saved:
        field.fill(score)
        field.press("Tab")
    assert saved.value.ok
