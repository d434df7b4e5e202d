"""Writes files so that an interrupted command leaves the old ones as they were."""

from __future__ import annotations

import os
import secrets
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
    temporary = temporary_name(path)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """A name of its own beside a path, for what will take its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
