"""The secret from which the seeds of criteria follow: unforeseeable for students, the same for every run."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from autograder.errors import CourseError


def course_secret(folder: Path) -> str:
    """The secret kept in ``folder/.secret``, made at the first call and readable by its owner only.

    Raises
    ------
    CourseError
        When the file cannot be read or written.
    """
    path = folder / ".secret"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            mine = folder / f".secret.{secrets.token_hex(8)}"
            mine.touch(mode=0o600)
            mine.write_text(secrets.token_hex(32))
            try:
                os.link(mine, path)  # fails where another process was faster: then its secret is the one
            except FileExistsError:
                pass
            finally:
                mine.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise CourseError(f"The course's secret {path} cannot be read or made: {error.strerror}.") from None
