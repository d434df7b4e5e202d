"""Read a student's notebook file for grading: bounded in size, time and memory, whatever it holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from autograder.bounded import Overrun, bounded
from course_utils.notebook_code import MAX_BYTES, NOTHING, StudentCell, Submission, read_content, read_program

__all__ = [
    "MAX_BYTES",
    "StudentCell",
    "Submission",
    "Unreadable",
    "file_bytes",
    "read_notebook",
    "read_notebook_bytes",
    "read_program",
]

MAX_SECONDS = 60  # for reading one notebook
MAX_MEMORY = 2 << 30  # bytes, for the same


def read_notebook(path: Path, exercises: Iterable[str], experiments: Mapping[str, str] = NOTHING) -> Submission:
    """Read a notebook file; one that cannot be read gives a submission without code and says so.

    Parameters
    ----------
    path : Path
        The notebook.
    exercises : iterable of str
        Names of the assignment's exercises.
    experiments : mapping
        The released code of the assignment's experiments, by name.
    """
    try:
        data = file_bytes(path)
    except Unreadable as why:
        return Submission(oddities=[str(why)])
    return read_notebook_bytes(data, exercises, experiments)


class Unreadable(Exception):
    """A file that is not read; says why in a sentence."""


def file_bytes(path: Path) -> bytes:
    """The bytes of a notebook file.

    Raises
    ------
    Unreadable
        Where it is no ordinary file, or too large.
    """
    try:
        size = path.stat().st_size
        if path.is_symlink() or not path.is_file():
            raise Unreadable(f"{path.name} is not an ordinary file; nothing of it was read.")
        if size > MAX_BYTES:
            raise Unreadable(f"The notebook has {size >> 20} MiB, more than {MAX_BYTES >> 20}; it was not read.")
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"The notebook cannot be read: {error.strerror}.") from None


def read_notebook_bytes(data: bytes, exercises: Iterable[str], experiments: Mapping[str, str] = NOTHING) -> Submission:
    """Read a notebook's bytes, as `read_notebook` does."""
    exercises = set(exercises)
    try:
        with bounded(time.monotonic() + MAX_SECONDS, MAX_MEMORY):
            return read_content(data, exercises, experiments)
    except (Overrun, MemoryError):
        return Submission(oddities=["Reading the notebook takes more time or memory than any needs; it was not read."])
