"""Writes files and folders so that an interrupted command leaves the old ones as they were."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from course_utils.atomic_write import atomic_write, temporary_name

__all__ = ["atomic_folder", "atomic_write"]


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; it takes the place of `path` when the block ends without an exception."""
    temporary = temporary_name(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        old = temporary_name(path)
        if path.exists():
            os.replace(path, old)  # a folder cannot be replaced in one step: between these two lines there is none
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
