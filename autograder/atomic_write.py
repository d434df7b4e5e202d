"""Writes files and folders so that an interrupted command leaves the old ones as they were."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


def atomic_write(path: Path, data: bytes | str, *, mode: int = 0o666) -> None:
    """Write a file under a temporary name beside it, then put it in place in one step.

    Parameters
    ----------
    path : Path
        The file; its folder is made where there is none.
    data : bytes or str
        What to write; text is written as UTF-8.
    mode : int
        The file's permissions, less what the umask takes away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; it takes the place of `path` when the block ends without an exception."""
    temporary = _temporary_name(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        old = _temporary_name(path)
        if path.exists():
            os.replace(path, old)  # a folder cannot be replaced in one step: between these two lines there is none
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
