"""Prints a page to PDF with the Chrome, Chromium or Edge of this machine, without a window."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from course_utils.atomic_write import atomic_write

VARIABLE = "COURSE_BROWSER"
SECONDS = 120
PROGRAMS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge"),
    *("microsoft-edge-stable", "msedge", "brave-browser"),
)
MAC = (
    "Google Chrome.app/Contents/MacOS/Google Chrome",
    "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "Chromium.app/Contents/MacOS/Chromium",
    "Brave Browser.app/Contents/MacOS/Brave Browser",
)
WINDOWS = (
    r"Google\Chrome\Application\chrome.exe",
    r"Microsoft\Edge\Application\msedge.exe",
    r"BraveSoftware\Brave-Browser\Application\brave.exe",
)


class CannotPrint(Exception):
    """No PDF could be made; says why, and what to do, in a sentence."""


def find_browser() -> str | None:
    """A browser that can print without a window: the one that $COURSE_BROWSER names, else one of the usual places."""
    named = os.environ.get(VARIABLE)
    if named:
        return shutil.which(named)
    for program in PROGRAMS:
        if found := shutil.which(program):
            return found
    places = [Path("/Applications", p) for p in MAC] + [Path.home() / "Applications" / p for p in MAC]
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        if variable in os.environ:
            places += [Path(os.environ[variable], p) for p in WINDOWS]
    return next((str(p) for p in places if p.is_file()), None)


def print_pdf(page: Path, pdf: Path) -> None:
    """Print a page of this machine to a PDF file; one that is there is replaced in one step.

    Raises
    ------
    CannotPrint
        Where there is no browser for it, or it fails.
    """
    by_hand = f"Open {page.name} in your browser and print it to PDF (Ctrl+P or ⌘P)."
    browser = find_browser()
    if browser is None:
        named = os.environ.get(VARIABLE)
        which = f"${VARIABLE} names {named}, which is not there" if named else "no Chrome, Chromium or Edge was found"
        raise CannotPrint(f"The PDF was not made: {which}. {by_hand}")
    # Beside the page, because a browser that comes as a snap sees no other temporary folder.
    with tempfile.TemporaryDirectory(prefix="printing-", dir=page.parent, ignore_cleanup_errors=True) as folder:
        made, log = Path(folder, "report.pdf"), Path(folder, "log")
        command = [
            *(browser, "--headless", "--disable-gpu", "--no-first-run", "--no-default-browser-check"),
            *("--disable-extensions", "--disable-background-networking", "--no-pdf-header-footer"),
            *(f"--user-data-dir={Path(folder, 'profile')}", f"--print-to-pdf={made}"),
            *(["--no-sandbox"] if sys.platform == "linux" and os.geteuid() == 0 else []),  # root has no sandbox
            page.resolve().as_uri(),
        ]
        try:
            with log.open("wb") as said:  # not a pipe: a browser's children keep it open when the browser is killed
                done = subprocess.run(command, stdout=said, stderr=said, timeout=SECONDS)
            complaint = log.read_text(errors="replace").strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        except subprocess.TimeoutExpired:
            complaint = [f"it took longer than {SECONDS} s"]
        except OSError as error:
            complaint = [str(error.strerror)]
        data = made.read_bytes() if made.is_file() else b""
        if not data.rstrip().endswith(b"%%EOF"):
            raise CannotPrint(f"The PDF was not made: {browser} failed ({complaint[0][:200]}). {by_hand}")
        atomic_write(pdf, data)
