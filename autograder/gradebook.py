"""Opens nbgrader's gradebook."""

from __future__ import annotations

import os
import sysconfig

from nbgrader.api import Gradebook
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from autograder.errors import CourseError


def open_gradebook(db_url: str, course_id: str = "") -> Gradebook:
    """Open a gradebook (a context manager), and make its tables where there are none yet.

    Parameters
    ----------
    db_url : str
        Any SQLAlchemy URL.
    course_id : str
        As in nbgrader_config.py.

    Raises
    ------
    CourseError
        Where there is no such database.
    """
    find_scripts()
    try:
        return Gradebook(db_url, course_id)
    except (ArgumentError, NoSuchModuleError, OperationalError, ModuleNotFoundError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise CourseError(f"Cannot open the gradebook {db_url}: {reason}") from error


def find_scripts() -> None:
    """Put this interpreter's scripts on the PATH: nbgrader starts `alembic` by name for every new gradebook."""
    scripts = sysconfig.get_path("scripts")
    paths = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if scripts not in paths:
        os.environ["PATH"] = os.pathsep.join([scripts, *paths])
