"""One jail and one course for all attacks; each attack has a sandbox of its own, and must leave the jail working."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from classroom import CANARIES, Classroom, write_attacked_assignment
from tiny_assignment import NAME

from autograder.jail import Zygote

# nbgrader's own add_submission looks at objects that are not in its session yet
SAWARNING = "ignore:Object of type"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "hostile" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings(f"{SAWARNING}:sqlalchemy.exc.SAWarning"))


@pytest.fixture(scope="session")
def attacked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkout in it, and a file that no student may read."""
    folder = tmp_path_factory.mktemp("attacked")
    write_attacked_assignment(folder / "checkout")
    (folder / "private.txt").write_text(CANARIES["a file under /tmp"])
    return folder


@pytest.fixture(scope="session")
def attacked_zygote(attacked_folder: Path) -> Iterator[Zygote]:
    """The jail, started by a process with a secret in its environment."""
    os.environ["COURSE_TOKEN"] = CANARIES["environment"]
    with Zygote(attacked_folder / "checkout" / "assignments" / NAME / "checks.py") as zygote:
        yield zygote
    del os.environ["COURSE_TOKEN"]


@pytest.fixture(scope="session")
def classroom(attacked_folder: Path, attacked_zygote: Zygote) -> Classroom:
    """The course under attack."""
    return Classroom(attacked_folder, attacked_zygote)
