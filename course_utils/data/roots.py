"""Where data lies: ``$COURSE_DATA`` if it is set, and a cache of this user."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

from .errors import DataError

ENVIRONMENT_VARIABLE = "COURSE_DATA"


def user_root() -> Path:
    """This user's own cache folder for the course."""
    return platformdirs.user_cache_path("deep-learning-course", appauthor=False)


def data_roots() -> list[Path]:
    """The folders in which sets are looked for, in that order; they need not exist.

    Raises
    ------
    DataError
        If ``$COURSE_DATA`` names something that is not a folder.
    """
    roots = []
    chosen = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if chosen:
        root = Path(chosen).expanduser().absolute()
        if root.exists() and not root.is_dir():
            raise DataError(f"{ENVIRONMENT_VARIABLE} is {root}, which is not a folder; set it to a folder.")
        roots.append(root)
    roots.append(user_root())
    return roots


def can_write(folder: Path) -> bool:
    """Whether files can be made in `folder`, which is made if it is not there.

    A folder whose permissions forbid writing counts as read-only even for the superuser, who could write all
    the same: somebody marked it so.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.stat().st_mode & 0o222:
            return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def writable_root() -> Path:
    """The first root in which files can be made.

    Raises
    ------
    DataError
        If there is none.
    """
    roots = data_roots()
    for root in roots:
        if can_write(root):
            return root
    raise DataError(
        f"No folder for data can be written to (tried {', '.join(map(str, roots))}); "
        f"set {ENVIRONMENT_VARIABLE} to one that can."
    )
