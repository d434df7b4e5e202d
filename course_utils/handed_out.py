"""Finds an assignment as it was handed out: a folder with a notebook and its ``checks.py``."""

from __future__ import annotations

import difflib
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from course_utils.errors import InputError
from course_utils.notebook_code import MAX_BYTES

CHECKS = "checks.py"


@dataclass(frozen=True)
class HandedOut:
    """An assignment in a student's folder.

    Attributes
    ----------
    name : str
        Of the assignment: "a1_linear_classifiers".
    notebook : Path
        The student's notebook.
    folder : Path
        The folder that holds ``checks.py``.
    """

    name: str
    notebook: Path
    folder: Path

    @property
    def home(self) -> Path:
        """The bundle's folder, or the assignment's own where it stands alone."""
        above = self.folder.parent
        return above.parent if above.name == "assignments" else self.folder

    def checks(self) -> ModuleType:
        """Import the visible criteria.

        Raises
        ------
        InputError
            Where the file was changed so that it cannot be imported.
        """
        path = self.folder / CHECKS
        spec = importlib.util.spec_from_file_location("checks", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["checks"] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise InputError(
                f"{path} cannot be imported ({type(error).__name__}: {error}); put back the file that was handed out."
            ) from None
        return module


def find_assignment(name: str, notebook: Path | None = None, start: Path | None = None) -> HandedOut:
    """Find an assignment by its name or its beginning ("a1"), from the working folder upwards.

    Parameters
    ----------
    name : str
        Name of the assignment, or as much of it as tells it from the others.
    notebook : Path, optional
        Another notebook than the one with the assignment's name.
    start : Path, optional
        Where to look from; the working folder when not given.

    Raises
    ------
    InputError
        Where there is no such assignment, or no notebook.
    """
    here = (start or Path.cwd()).resolve()
    folders = _folders(here)
    if not folders:
        raise InputError(
            f"No assignment is in {here}, nor in a folder above it; go to the folder that you unpacked the bundle into."
        )
    fitting = [n for n in folders if n == name] or [n for n in folders if n.startswith(f"{name}_")]
    if len(fitting) != 1:
        close = difflib.get_close_matches(name, folders, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise InputError(f"There is no assignment called {name!r}; there are: {', '.join(folders)}.{hint}")
    folder = folders[fitting[0]]
    path = notebook or folder / f"{fitting[0]}.ipynb"
    if not path.is_file():
        others = sorted(p.name for p in folder.glob("*.ipynb"))
        hint = f"; name the one you mean with --notebook ({', '.join(others)} is there)" if others else ""
        raise InputError(f"There is no notebook {path}{hint or '; take it from the bundle again'}.")
    return HandedOut(fitting[0], path, folder)


def _folders(here: Path) -> dict[str, Path]:
    """The folder of each assignment: those of the nearest `assignments/`, or the working folder itself."""
    for place in (here, *here.parents):
        if (place / CHECKS).is_file() and place.parent.name == "assignments":
            place = place.parents[1]
        found = {p.parent.name: p.parent for p in sorted((place / "assignments").glob(f"*/{CHECKS}"))}
        if found:
            return found
        if (place / CHECKS).is_file():  # a folder of a course server, which holds one assignment and nothing else
            names = [p.stem for p in sorted(place.glob("*.ipynb"))]
            return {place.name: place} if place.name in names or not names else dict.fromkeys(names, place)
    return {}


def read_notebook(path: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """A notebook file's bytes, and its cells as JSON has them.

    Raises
    ------
    InputError
        Where it is no notebook; says what to do.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a notebook: it is not UTF-8 text. Save it again from JupyterLab.") from None
    if len(data) > MAX_BYTES:
        raise InputError(
            f"{path} has {len(data) >> 20} MiB, and grading reads at most {MAX_BYTES >> 20}; clear the outputs that "
            "make it so large (JupyterLab: Edit, Clear Cell Output) and save it."
        )
    if not text.strip():
        raise InputError(f"{path} is empty. Open it in JupyterLab and save it again, or take it from the bundle.")
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        cause = "git left its conflict marks in it" if "\n<<<<<<< " in text else f"it is not valid JSON{line}"
        advice = "JupyterLab keeps an earlier one in .ipynb_checkpoints beside it"
        raise InputError(f"{path} is not a notebook: {cause}. {advice}.") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise InputError(f"{path} is JSON but no notebook of format 4: it has no list of cells.")
    return data, [c for c in cells if isinstance(c, dict)]


def source_of(cell: dict[str, Any]) -> str:
    """A cell's source as one text."""
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def role_of(cell: dict[str, Any]) -> tuple[str, str]:
    """The role and the name with which a cell was handed out; empty for a student's own."""
    metadata = cell.get("metadata")
    course = metadata.get("course") if isinstance(metadata, dict) else None
    role, name = (course.get("role"), course.get("name")) if isinstance(course, dict) else ("", "")
    return (role, name) if isinstance(role, str) and isinstance(name, str) else ("", "")


def outputs_of(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """The saved outputs of a cell."""
    outputs = cell.get("outputs")
    return [o for o in outputs if isinstance(o, dict)] if isinstance(outputs, list) else []
