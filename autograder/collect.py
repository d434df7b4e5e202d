"""Collect what students handed in into nbgrader's ``submitted`` folder: notebooks, folders and zip files."""

from __future__ import annotations

import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from autograder.atomic_write import atomic_write
from autograder.errors import CourseError
from autograder.harmless import harmless_line
from autograder.submission import MAX_BYTES

MAX_MEMBERS = 20_000  # of one archive
MIN_UNPACKED = 256 << 20  # bytes of all notebooks of one archive that are no bomb, however small it is
MAX_UNPACKED = 16 << 30  # and however large it is; between them a hundred times its size
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError)
STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@dataclass
class Collected:
    """What a collection did.

    Attributes
    ----------
    students : list of str
        Whose notebooks were put in place, sorted.
    unchanged : list of str
        Whose notebook was there already, byte for byte.
    refused : list of str
        What was left out and why, a sentence each.
    """

    students: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    student: str
    data: bytes
    when: datetime
    where: str


def collect(files: Iterable[Path], assignment: str, course: Path) -> Collected:
    """Put notebooks into ``course/submitted/STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb``.

    A notebook ``STUDENT.ipynb``, and any notebook in a folder ``STUDENT`` (of a folder or a zip file), belongs to
    STUDENT.  Of several by one student the latest counts.  Nothing but the notebook is taken; links, absolute
    names and names with ``..`` are refused.

    Parameters
    ----------
    files : iterable of Path
        Notebooks, folders and zip files.
    assignment : str
        Name of the assignment.
    course : Path
        nbgrader's course folder.

    Raises
    ------
    CourseError
        When a file does not exist or is none of the three.
    """
    done = Collected()
    latest: dict[str, _Found] = {}
    for path in files:
        for found in _found_in(path, assignment, done.refused):
            older = latest.get(found.student)
            if older is not None:
                kept, dropped = (found, older) if found.when >= older.when else (older, found)
                done.refused.append(f"{dropped.where}: {found.student} also handed in {kept.where}, which is later.")
                latest[found.student] = kept
            else:
                latest[found.student] = found
    for student, found in sorted(latest.items()):
        folder = course / "submitted" / student / assignment
        notebook = folder / f"{assignment}.ipynb"
        if notebook.is_file() and notebook.read_bytes() == found.data:
            done.unchanged.append(student)
            continue
        atomic_write(folder / "timestamp.txt", found.when.strftime("%Y-%m-%d %H:%M:%S UTC"))
        atomic_write(notebook, found.data)
        done.students.append(student)
    return done


def _found_in(path: Path, assignment: str, refused: list[str]) -> Iterator[_Found]:
    if path.is_dir():
        for notebook in sorted(path.rglob("*.ipynb")):
            if ".ipynb_checkpoints" not in notebook.parts:
                yield from _file(notebook, notebook.relative_to(path), assignment, refused)
    elif path.suffix == ".ipynb" and path.is_file():
        yield from _file(path, Path(path.name), assignment, refused)
    elif zipfile.is_zipfile(path):
        yield from _archive(path, assignment, refused)
    elif path.exists():
        raise CourseError(f"{path} is neither a notebook nor a folder nor a zip file.")
    else:
        raise CourseError(f"There is no {path}.")


def _file(path: Path, inside: Path, assignment: str, refused: list[str]) -> Iterator[_Found]:
    student, shown = _student(PurePosixPath(inside.as_posix()), assignment), harmless_line(str(path), 400)
    if path.is_symlink() or any(p.is_symlink() for p in list(path.parents)[: len(inside.parts) - 1]):
        refused.append(f"{shown}: a link; links are not followed.")
    elif not path.is_file():
        refused.append(f"{shown}: not an ordinary file.")
    elif path.stat().st_size > MAX_BYTES:
        refused.append(f"{shown}: larger than {MAX_BYTES >> 20} MiB.")
    elif student is None:
        refused.append(f"{shown}: neither its name nor its folder is a student's.")
    else:
        when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        try:
            data = path.read_bytes()
        except OSError as error:
            refused.append(f"{shown}: cannot be read ({error.strerror}).")
        else:
            yield _Found(student, data, when, str(path))


def _archive(path: Path, assignment: str, refused: list[str]) -> Iterator[_Found]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                refused.append(f"{path}: {len(members)} members, more than {MAX_MEMBERS}.")
                return
            unpacked, most = 0, min(MAX_UNPACKED, MIN_UNPACKED + 100 * path.stat().st_size)
            for member in members:
                name = PurePosixPath(member.filename)
                if member.is_dir() or name.suffix != ".ipynb" or ".ipynb_checkpoints" in name.parts:
                    continue
                where = f"{path}: {harmless_line(member.filename, 200)}"
                student = _student(name, assignment)
                if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
                    refused.append(f"{where}: a name that leads out of the archive.")
                elif stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                    refused.append(f"{where}: not an ordinary file.")
                elif member.flag_bits & 1:
                    refused.append(f"{where}: encrypted.")
                elif student is None:
                    refused.append(f"{where}: neither its name nor its folder is a student's.")
                else:
                    try:
                        with archive.open(member) as stream:  # the size that the archive states may be a lie
                            data = stream.read(MAX_BYTES + 1)
                    except BROKEN as error:
                        refused.append(f"{where}: cannot be unpacked ({error}).")
                        continue
                    unpacked += len(data)
                    if unpacked > most:
                        refused.append(f"{where}: the archive unpacks to more than {most >> 20} MiB; the rest is left.")
                        return
                    if len(data) > MAX_BYTES:
                        refused.append(f"{where}: larger than {MAX_BYTES >> 20} MiB.")
                    else:
                        yield _Found(student, data, _time(member), where)
    except BROKEN as error:
        refused.append(f"{path}: cannot be unpacked ({error}).")


def _time(member: zipfile.ZipInfo) -> datetime:
    """When a member was changed; some programs write no date, which is month 0."""
    try:
        return datetime(*member.date_time, tzinfo=UTC)
    except ValueError:
        return datetime(1980, 1, 1, tzinfo=UTC)


def _student(name: PurePosixPath, assignment: str) -> str | None:
    """Whose a notebook is: the nearest folder that is not the assignment's, else the file's own name."""
    folders = [p for p in name.parts[:-1] if p not in (assignment, "submitted", "/", "..", ".")]
    candidate = folders[0] if folders else name.stem
    return candidate if STUDENT.fullmatch(candidate) and candidate != assignment else None
