"""What all tests share: one thread, one jail for the tests that need one, one browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

torch.set_num_threads(1)
for shared in ("autograder", "browser"):
    sys.path.insert(0, str(Path(__file__).parent / shared))

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "Chromium is needed for the browser tests (Debian, Ubuntu: apt install chromium)."
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the made-up assignment."""
    from tiny_assignment import write_tiny_assignment

    return write_tiny_assignment(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def tiny_zygote(tiny_root: Path) -> Iterator[object]:
    """A jailed zygote for the made-up assignment; importing torch in it takes seconds, so there is one."""
    from autograder.jail import Zygote

    with Zygote(tiny_root / "assignments" / "tiny_doubling" / "checks.py") as zygote:
        yield zygote


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations of the frames that the judge sends."""
    from autograder.runner.frames import Channel

    operations: list[str] = []
    send = Channel.send

    def noted(channel, message, *others, **named):  # type: ignore[no-untyped-def]
        operations.append(message["op"])
        send(channel, message, *others, **named)

    monkeypatch.setattr(Channel, "send", noted)
    return operations


@pytest.fixture
def same_jail(tiny_zygote: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let grading judge in this process with the tests' zygote, which has its libraries loaded."""
    from autograder import grade, mistakes_table
    from autograder.judging import Station

    def judge_all(settings, works, workers=None, scheduler=None):  # type: ignore[no-untyped-def]
        station = Station(settings, tiny_zygote)
        return map(station.judge, works)

    monkeypatch.setattr(grade, "judge_all", judge_all)
    monkeypatch.setattr(mistakes_table, "judge_all", judge_all)
