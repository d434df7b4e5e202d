"""Review forms in files, folders, zip files, and downloads of Canvas and Moodle; nothing is unpacked onto the disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO
from zoneinfo import ZoneInfo

from autograder.errors import CourseError
from autograder.harmless import harmless_line
from autograder.peer_form import MAX_FORM
from autograder.roster import Person, Roster
from autograder.uploads import BROKEN, MAX_MEMBERS, Owner, is_folder, owner_of

MAX_NESTED = 64 << 20  # bytes of a zip file within another
MAX_FORMS = 20  # in a zip file of one student
EARLIEST = datetime(1980, 1, 1, tzinfo=UTC)  # that a zip file can hold


@dataclass(frozen=True)
class FoundForm:
    """A file that may be a review form.

    Attributes
    ----------
    data : bytes
        What is in it.
    when : datetime
        When it was handed in.
    where : str
        Where it was found, for people to read.
    owner : Owner, optional
        Who handed it in, where the name that a download gave it, or its folder, may tell.
    """

    data: bytes
    when: datetime
    where: str
    owner: Owner | None = None


def forms_in(path: Path, assignment: str, refused: list[str], zone: ZoneInfo) -> Iterator[FoundForm]:
    """Every ``.toml`` file in a file, a folder or a zip file, and in zip files in these.

    Parameters
    ----------
    path : Path
        The file or folder.
    assignment : str
        Name of the assignment; a folder of that name is nobody's.
    refused : list of str
        What is left out and why is added here, a sentence each.
    zone : ZoneInfo
        Of the dates in zip files.

    Raises
    ------
    CourseError
        When there is no such file, or it is none of the three.
    """
    reader = _Reader(assignment, refused, zone)
    if path.is_dir():
        for found in sorted(p for p in path.rglob("*") if p.suffix.lower() in (".toml", ".zip")):
            yield from reader.file(found, PurePosixPath(found.relative_to(path).as_posix()))
    elif (path.suffix.lower() == ".toml" and path.is_file()) or zipfile.is_zipfile(path):
        yield from reader.file(path, None)
    elif path.exists():
        raise CourseError(f"{path} is neither a review form (.toml) nor a folder nor a zip file.")
    else:
        raise CourseError(f"There is no {path}.")


@dataclass
class _Reader:
    assignment: str
    refused: list[str]
    zone: ZoneInfo

    def file(self, path: Path, inside: PurePosixPath | None) -> Iterator[FoundForm]:
        """A form or a zip file; `inside` is its name in the folder that was given, None where it was given itself."""
        shown = harmless_line(str(path), 400)
        owner = owner_of(inside, self.assignment) if inside is not None else None
        try:
            if path.is_symlink() or not path.is_file():
                self.refused.append(f"{shown}: not an ordinary file.")
                return
            when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            with path.open("rb") as stream:
                if path.suffix.lower() == ".toml":
                    yield FoundForm(stream.read(MAX_FORM + 1), when, shown, owner)
                elif inside is not None and owner is not None and (owner.told_by != "a name" or len(inside.parts) > 1):
                    yield from self.of_student(stream, shown, when, owner)
                else:
                    yield from self.of_class(stream, shown)
        except (OSError, OverflowError, ValueError) as error:
            self.refused.append(f"{shown}: cannot be read ({error}).")

    def of_class(self, stream: IO[bytes], shown: str) -> Iterator[FoundForm]:
        """A zip file with the forms of many, or with their zip files."""
        for member, where, archive in self._members(stream, shown, MAX_MEMBERS):
            form = PurePosixPath(member.filename).suffix.lower() == ".toml"
            data = self._read(archive, member, where, MAX_FORM if form else MAX_NESTED)
            owner, when = owner_of(PurePosixPath(member.filename), self.assignment), self._time(member)
            if data is not None and form:
                yield FoundForm(data, when, where, owner)
            elif data is not None and len(data) > MAX_NESTED:
                self.refused.append(f"{where}: a zip file of more than {MAX_NESTED >> 20} MiB.")
            elif data is not None:
                yield from self.of_student(io.BytesIO(data), where, when, owner)

    def of_student(self, stream: IO[bytes], shown: str, when: datetime, owner: Owner | None) -> Iterator[FoundForm]:
        """A student's own zip file, whose dates are the student's word: it came no earlier than it was handed in."""
        for number, (member, where, archive) in enumerate(self._members(stream, shown, MAX_MEMBERS)):
            if number == MAX_FORMS:
                self.refused.append(f"{shown}: more than {MAX_FORMS} forms; the others were not read.")
                return
            if PurePosixPath(member.filename).suffix.lower() == ".zip":
                self.refused.append(f"{where}: a zip file too deep inside others.")
            elif (data := self._read(archive, member, where, MAX_FORM)) is not None:
                yield FoundForm(data, max(when, self._time(member)), where, owner)

    def _members(
        self, stream: IO[bytes], shown: str, most: int
    ) -> Iterator[tuple[zipfile.ZipInfo, str, zipfile.ZipFile]]:
        """The forms and zip files of a zip file, each with where it is."""
        try:
            archive = zipfile.ZipFile(stream)
        except BROKEN as error:
            self.refused.append(f"{shown}: cannot be unpacked ({error}).")
            return
        with archive:
            if len(archive.infolist()) > most:
                self.refused.append(f"{shown}: more than {most} members.")
                return
            for member in archive.infolist():
                kind = PurePosixPath(member.filename).suffix.lower()
                if not is_folder(member) and kind in (".toml", ".zip") and "__MACOSX" not in member.filename:
                    yield member, f"{shown}: {harmless_line(member.filename, 200)}", archive

    def _read(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, most: int) -> bytes | None:
        try:
            with archive.open(member) as opened:
                return opened.read(most + 1)
        except BROKEN as error:
            self.refused.append(f"{where}: cannot be unpacked ({error}).")
            return None

    def _time(self, member: zipfile.ZipInfo) -> datetime:
        try:
            return datetime(*member.date_time, tzinfo=self.zone)
        except ValueError:
            return EARLIEST


def who_handed_in(owner: Owner | None, roster: Roster) -> Person | None:
    """Who of the roster handed something in; None where that is not known."""
    if owner is None or owner.told_by == "a name":
        return roster.of_id(owner.id) if owner else None
    return (roster.of_canvas if owner.told_by == "Canvas" else roster.of_moodle)(owner.id, owner.name)
