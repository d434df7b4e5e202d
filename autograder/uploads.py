"""What was handed in, found in notebooks, folders, zip files, and the downloads of Canvas and Moodle.

Nothing is unpacked onto the disk.  Links, names that lead out of an archive, encrypted and broken members and bombs are
refused one by one.  Zip files within a zip file or a folder are read too, one level deep: a student's own.
"""

from __future__ import annotations

import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO
from zoneinfo import ZoneInfo

from autograder.errors import CourseError
from autograder.harmless import harmless_line
from autograder.roster import STUDENT
from autograder.submission import MAX_BYTES
from course_utils.receipt import MAX_RECEIPT, RECEIPT, Receipt, ReceiptError, read_receipt, verify

MAX_MEMBERS = 20_000  # of one archive
MIN_UNPACKED = 256 << 20  # bytes of all notebooks of one archive that are no bomb, however small it is
MAX_UNPACKED = 16 << 30  # and however large it is; between them a hundred times its size
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError)
CANVAS = re.compile(r"(?P<name>[^_/]+)(?P<late>_LATE)?_(?P<user>\d+)_(?P<upload>\d+)_(?P<file>.+)")
MOODLE = re.compile(r"(?P<name>.+?)_(?P<user>\d+)_assignsubmission_file(_(?P<file>.*))?")
NOT_HANDED_IN = {".ipynb_checkpoints", "__MACOSX"}


@dataclass(frozen=True)
class Owner:
    """Whose an upload is, as far as where it was found tells.

    Attributes
    ----------
    told_by : str
        "Canvas", "Moodle", "a name" or "a receipt".
    id, name : str
        Their number or id there, and their name.
    late : bool, optional
        Whether it is late, where Canvas says so.
    upload : int
        Canvas's number of the file; later files have larger ones.
    folder : str
        The folder that what Canvas or Moodle named lies in; it may be somebody's too.
    """

    told_by: str
    id: str
    name: str = ""
    late: bool | None = None
    upload: int = 0
    folder: str = ""


@dataclass(frozen=True)
class Upload:
    """One notebook that somebody handed in.

    Attributes
    ----------
    owner : Owner
        Whose.
    data : bytes
        The notebook.
    file : str
        Its name, without folders.
    where : str
        Where it was found, for people to read.
    when : datetime, optional
        When it was handed in, where that is known.
    clock : str
        What says so: "file date", "archive date" or "receipt".
    receipt : Receipt, optional
        That of `course submit`; it holds.
    """

    owner: Owner
    data: bytes
    file: str
    where: str
    when: datetime | None = None
    clock: str = ""
    receipt: Receipt | None = None


def uploads_in(path: Path, assignment: str, refused: list[str], zone: ZoneInfo | None = None) -> Iterator[Upload]:
    """The notebooks in a file or folder.

    Parameters
    ----------
    path : Path
        A notebook, a folder or a zip file.
    assignment : str
        Name of the assignment; a folder of that name is nobody's.
    refused : list of str
        What is left out and why is added here, a sentence each.
    zone : ZoneInfo, optional
        Of the dates in zip files, which have none; UTC when not given.

    Raises
    ------
    CourseError
        When there is no such file, or it is none of the three.
    """
    reader = _Reader(assignment, refused, zone or ZoneInfo("UTC"))
    if path.is_dir():
        for found in sorted(p for p in path.rglob("*") if p.suffix.lower() in (".ipynb", ".zip")):
            if not NOT_HANDED_IN & set(found.parts):
                yield from reader.file(found, found.relative_to(path))
    elif path.suffix == ".ipynb" and path.is_file():
        yield from reader.file(path, Path(path.name))
    elif zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            yield from reader.archive(stream, path.stat().st_size, str(path), PurePosixPath(path.name))
    elif path.exists():
        raise CourseError(f"{path} is neither a notebook nor a folder nor a zip file.")
    else:
        raise CourseError(f"There is no {path}.")


def owner_of(name: PurePosixPath, assignment: str) -> Owner | None:
    """Whose something is, by its name and folders; None where they name nobody.

    Parameters
    ----------
    name : PurePosixPath
        Its name within a download, a folder or an archive.
    assignment : str
        Name of the assignment; a folder of that name is nobody's.
    """
    # Canvas makes no folders, but who unpacks a download and packs it again does.
    canvas = CANVAS.fullmatch(name.name) if len(name.parts) <= 2 else None
    folders: list[str] = []
    # What stands first decides: the rest is the student's own, who may write there what would be another's name.
    for number, part in enumerate(name.parts, 1):
        above = "".join(folders[:1])
        if canvas and number == len(name.parts):
            late, upload = bool(canvas["late"]), int(canvas["upload"])
            return Owner("Canvas", canvas["user"], canvas["name"], late, upload, above)
        if moodle := MOODLE.fullmatch(part):
            return Owner("Moodle", moodle["user"], moodle["name"], folder=above)
        if number < len(name.parts) and part not in (assignment, "submitted", "/", "..", "."):
            folders.append(part)
    candidate = folders[0] if folders else name.stem
    known = STUDENT.fullmatch(candidate) and candidate != assignment
    return Owner("a name", candidate) if known else None


class _Refused(Exception):
    """A file that is left out; says why."""


@dataclass
class _Reader:
    assignment: str
    refused: list[str]
    zone: ZoneInfo

    def owner(self, name: PurePosixPath) -> Owner | None:
        """Whose something is, by its name and folders; None where they name nobody."""
        return owner_of(name, self.assignment)

    def file(self, path: Path, inside: Path) -> Iterator[Upload]:
        """A notebook or a zip file in a folder."""
        name, shown = PurePosixPath(inside.as_posix()), harmless_line(str(path), 400)
        archive = path.suffix.lower() == ".zip"
        try:
            if path.is_symlink() or any(p.is_symlink() for p in list(path.parents)[: len(inside.parts) - 1]):
                raise _Refused("a link; links are not followed.")
            if not path.is_file():
                raise _Refused("not an ordinary file.")
            if archive:
                if not zipfile.is_zipfile(path):
                    raise _Refused("cannot be unpacked (it is no zip file).")
                with path.open("rb") as stream:
                    yield from self.archive(stream, path.stat().st_size, shown, name)
                return
            if path.stat().st_size > MAX_BYTES:
                raise _Refused(f"larger than {MAX_BYTES >> 20} MiB.")
            owner = self._known(name)
            when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            data = path.read_bytes()
        except _Refused as why:
            self.refused.append(f"{shown}: {why}")
        except OSError as error:
            self.refused.append(f"{shown}: cannot be read ({error.strerror}).")
        except (OverflowError, ValueError):
            self.refused.append(f"{shown}: the file's date is in no calendar; give it another one.")
        else:
            yield self._upload(owner, data, name, shown, when, "file date")

    def archive(self, stream: IO[bytes], size: int, shown: str, name: PurePosixPath) -> Iterator[Upload]:
        """A zip file: of one student where a receipt, Canvas, Moodle or a folder says so, else of a class."""
        try:
            with zipfile.ZipFile(stream) as archive:
                if len(archive.infolist()) > MAX_MEMBERS:
                    self.refused.append(f"{shown}: {len(archive.infolist())} members, more than {MAX_MEMBERS}.")
                    return
                unpacked = _Unpacked(min(MAX_UNPACKED, MIN_UNPACKED + 100 * size))
                owner = self.owner(name)
                of_one = owner is not None and (owner.told_by != "a name" or len(name.parts) > 1)
                if of_one or _receipt(archive) is not None:
                    yield from self._of_student(archive, shown, name, owner, unpacked)
                else:
                    yield from self._of_class(archive, shown, unpacked)
        except BROKEN as error:
            self.refused.append(f"{shown}: cannot be unpacked ({error}).")

    def _of_class(self, archive: zipfile.ZipFile, shown: str, unpacked: _Unpacked) -> Iterator[Upload]:
        for member in archive.infolist():
            name = PurePosixPath(member.filename)
            if is_folder(member) or name.suffix.lower() not in (".ipynb", ".zip") or NOT_HANDED_IN & set(name.parts):
                continue
            where = f"{shown}: {harmless_line(member.filename, 200)}"
            try:
                _check_member(member)
                owner = self._known(name) if name.suffix.lower() == ".ipynb" else self.owner(name)
                data = unpacked.read(archive, member, MAX_BYTES)
                if name.suffix.lower() == ".ipynb" and owner is not None:
                    yield self._upload(owner, data, name, where, self._time(member), "archive date")
                else:
                    yield from self._nested(data, where, name, owner, unpacked)
            except _Refused as why:
                self.refused.append(f"{where}: {why}")
            if unpacked.too_much:
                return

    def _nested(
        self, data: bytes, where: str, name: PurePosixPath, owner: Owner | None, unpacked: _Unpacked
    ) -> Iterator[Upload]:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if len(archive.infolist()) > MAX_MEMBERS:
                    raise _Refused(f"{len(archive.infolist())} members, more than {MAX_MEMBERS}.")
                yield from self._of_student(archive, where, name, owner, unpacked)
        except BROKEN as error:
            raise _Refused(f"cannot be unpacked ({error}).") from None

    def _of_student(
        self,
        archive: zipfile.ZipFile,
        shown: str,
        name: PurePosixPath,
        owner: Owner | None,
        unpacked: _Unpacked,
    ) -> Iterator[Upload]:
        """The notebook of one student's zip file."""
        try:
            place = _receipt(archive)
            if place is None:
                if owner is None:
                    raise _Refused("neither its name nor its folder is a student's, and it holds no receipt.")
                yield self._without_receipt(archive, shown, owner, unpacked)
            else:
                yield self._with_receipt(archive, place, shown, name, owner, unpacked)
        except (_Refused, ReceiptError) as why:
            self.refused.append(f"{shown}: {harmless_line(str(why), 400)}")

    def _without_receipt(self, archive: zipfile.ZipFile, shown: str, owner: Owner, unpacked: _Unpacked) -> Upload:
        members = {
            m.filename: m
            for m in archive.infolist()
            if m.filename.endswith(".ipynb") and not NOT_HANDED_IN & set(PurePosixPath(m.filename).parts)
        }
        member = members[self._choose(list(members))]
        _check_member(member)
        data = unpacked.read(archive, member, MAX_BYTES)
        where = f"{shown}: {harmless_line(member.filename, 200)}"
        return self._upload(owner, data, PurePosixPath(member.filename), where, self._time(member), "archive date")

    def _with_receipt(
        self,
        archive: zipfile.ZipFile,
        place: str,
        shown: str,
        name: PurePosixPath,
        owner: Owner | None,
        unpacked: _Unpacked,
    ) -> Upload:
        members = {}
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if is_folder(member) or NOT_HANDED_IN & set(path.parts) or path.name == ".DS_Store":
                continue
            _check_member(member)
            members[member.filename.removeprefix(place)] = member
        if RECEIPT not in members:
            raise _Refused(f"its {RECEIPT} is no file of the submission; hand in what `course submit` makes.")
        receipt = read_receipt(unpacked.read(archive, members.pop(RECEIPT), MAX_RECEIPT))
        if receipt.assignment != self.assignment:
            raise _Refused(f"its receipt is for {receipt.assignment}, not for {self.assignment}.")
        files = {n: unpacked.read(archive, m, MAX_BYTES) for n, m in members.items()}
        differing = verify(receipt, files)
        if differing:
            raise _Refused(" ".join(differing))
        notebook = self._choose([n for n in files if n.endswith(".ipynb")])
        if owner is None or (owner.told_by == "a name" and len(name.parts) == 1):
            owner = Owner("a receipt", receipt.student)
        return Upload(owner, files[notebook], PurePosixPath(notebook).name, shown, receipt.time, "receipt", receipt)

    def _choose(self, notebooks: list[str]) -> str:
        """The notebook of this assignment among those of one student's zip file."""
        if not notebooks:
            raise _Refused("it holds no notebook.")
        named = [n for n in notebooks if PurePosixPath(n).stem == self.assignment]
        if len(named) != 1 and len(notebooks) > 1:
            raise _Refused(f"it holds {len(notebooks)} notebooks; name one of them {self.assignment}.ipynb.")
        return named[0] if named else notebooks[0]

    def _known(self, name: PurePosixPath) -> Owner:
        owner = self.owner(name)
        if owner is None:
            raise _Refused("neither its name nor its folder is a student's.")
        return owner

    def _time(self, member: zipfile.ZipInfo) -> datetime:
        """When a member was changed; some programs write no date, which is month 0."""
        try:
            return datetime(*member.date_time, tzinfo=self.zone)
        except ValueError:
            return datetime(1980, 1, 1, tzinfo=UTC)

    def _upload(self, owner: Owner, data: bytes, name: PurePosixPath, where: str, when: datetime, clock: str) -> Upload:
        match = (CANVAS if owner.told_by == "Canvas" else MOODLE).fullmatch(name.name)
        file = (match["file"] if match else None) or name.name
        made = Upload(owner, data, file, where, when, clock)
        # The dates in a download of Canvas or Moodle are those of the download.
        return replace(made, when=None, clock="") if owner.told_by in ("Canvas", "Moodle") else made


class _Unpacked:
    """Counts what an archive unpacks to, for the sizes that it states may be a lie."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0

    @property
    def too_much(self) -> bool:
        """Whether nothing more may be unpacked."""
        return self._bytes > self._most

    def read(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
        """The bytes of a member, no more than `most`."""
        try:
            with archive.open(member) as stream:
                data = stream.read(most + 1)
        except BROKEN as error:
            raise _Refused(f"cannot be unpacked ({error}).") from None
        self._bytes += len(data)
        if self.too_much:
            raise _Refused(f"the archive unpacks to more than {self._most >> 20} MiB; the rest is left.")
        if len(data) > most:
            raise _Refused(f"larger than {most >> 20} MiB." if most >= 1 << 20 else f"larger than {most >> 10} KiB.")
        return data


def is_folder(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a folder; `ZipInfo.is_dir` fails where a name is empty."""
    return member.filename.endswith("/")


def _check_member(member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
        raise _Refused("a name that leads out of the archive.")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        raise _Refused("not an ordinary file.")
    if member.flag_bits & 1:
        raise _Refused("encrypted.")


def _receipt(archive: zipfile.ZipFile) -> str | None:
    """The folder, with its slash, where an archive holds one receipt at its top or in a folder; None without one."""
    places = [n.removesuffix(RECEIPT) for n in archive.namelist() if PurePosixPath(n).name == RECEIPT]
    places = [p for p in places if p.count("/") <= 1 and not p.startswith("__MACOSX")]
    return places[0] if len(places) == 1 else None
