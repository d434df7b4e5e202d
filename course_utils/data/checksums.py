"""Checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def new_md5() -> Any:
    """An MD5 digest; against accidents, not attacks, so it is allowed where policies forbid MD5."""
    return hashlib.md5(usedforsecurity=False)


def file_md5(path: Path) -> str:
    """The MD5 checksum of a file, as 32 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, new_md5).hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 checksum of a file, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
