"""Opens nbgrader's gradebook."""

from __future__ import annotations

import os
import sysconfig

from alembic.script import ScriptDirectory
from nbgrader.api import Gradebook
from nbgrader.dbutil import ALEMBIC_DIR
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

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
    try:
        make_gradebook(db_url)
        return Gradebook(db_url, course_id)
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise CourseError(f"Cannot open the gradebook {shown_url(db_url)}: {reason}") from error


def make_gradebook(db_url: str) -> None:
    """Write the version of nbgrader's tables into an empty database; a database with tables is left as it is.

    nbgrader does this itself, but by starting the program `alembic`, which takes seconds and is not found when the
    virtual environment is not activated.  The tables themselves are left to nbgrader.
    """
    version = ScriptDirectory(ALEMBIC_DIR).get_current_head()
    engine = create_engine(db_url)
    try:
        with engine.begin() as connection:
            if not inspect(connection).get_table_names():
                connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
                connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:v)"), {"v": version})
    finally:
        engine.dispose()


def find_scripts() -> None:
    """Put this interpreter's scripts on the PATH, for the programs that nbgrader starts by name."""
    scripts = sysconfig.get_path("scripts")
    paths = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if scripts not in paths:
        os.environ["PATH"] = os.pathsep.join([scripts, *paths])


def shown_url(db_url: str) -> str:
    """A database's URL without its password."""
    try:
        return create_engine(db_url).url.render_as_string(hide_password=True)
    except (SQLAlchemyError, ModuleNotFoundError):
        return "(its URL cannot be read)"
