"""What of the registry lies on this machine: finding a set, verifying it, and fetching it."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from .checksums import file_md5, file_sha256
from .download import download, reachable
from .errors import DamagedDataError, DataError, DownloadError, MissingDataError
from .registry import DataFile, DataSet
from .roots import ENVIRONMENT_VARIABLE, data_roots, writable_root

ANSWER_SECONDS = 10.0
"""How long a mirror may take to answer when a download was asked for."""
MISSING = "is missing"


@dataclass(frozen=True)
class Holding:
    """What this machine has of one set.

    Attributes
    ----------
    root : Path or None
        The data root that has all its files, or else the first one that has some of them.
    fault : str
        What is wrong with the files there, in words; empty if nothing is.
    note : str
        What else is worth knowing, such as that a text is another edition than the measured one.
    """

    root: Path | None
    fault: str = ""
    note: str = ""

    @property
    def damaged(self) -> bool:
        """Whether something is there that cannot be used, rather than nothing or only a part."""
        return bool(self.fault) and not self.fault.endswith(MISSING)

    @property
    def sound(self) -> bool:
        """Whether every file is there and right."""
        return self.root is not None and not self.fault


def find(dataset: DataSet) -> Path | None:
    """The first data root that has every file of the set, with the right size; the checksums are not read."""
    for root in data_roots():
        if all(_has(root, file) for file in dataset.files):
            return root
    return None


def inspect(dataset: DataSet) -> Holding:
    """Look for the set and verify every byte of it that can be verified.

    A root with a sound copy wins over an earlier one with a damaged copy.
    """
    first_fault: Holding | None = None
    for root in data_roots():
        if not any((root / file.path).exists() for file in dataset.files):
            continue
        faults = [fault for file in dataset.files if (fault := _file_fault(root, file, dataset.markers))]
        if not faults:
            editions = sum(
                file.measured_md5 is not None and file_md5(root / file.path) != file.measured_md5
                for file in dataset.files
            )
            note = f"{editions} of its files differ from the measured edition" if editions else ""
            return Holding(root, note=note)
        first_fault = first_fault or Holding(root, fault=faults[0])
    return first_fault or Holding(None)


def fetch(dataset: DataSet, *, progress: bool = True, seconds: float = ANSWER_SECONDS) -> Path:
    """Make sure that this machine has the set, downloading it where it has not, and return its data root.

    Safe to interrupt and to run again: a broken download resumes, and files appear only when they are whole.
    Two processes that ask at once download once.

    Parameters
    ----------
    dataset : DataSet
        What to fetch.
    progress : bool
        Show a progress bar.
    seconds : float
        How long to wait for a mirror to answer at all.

    Raises
    ------
    MissingDataError
        If no mirror can be reached.
    DownloadError
        If those that can be reached do not deliver it.
    DataError
        If there is no room, or no folder that can be written to.
    """
    if dataset.kind == "embedded":
        raise DataError(f"{dataset.title} is made from what is installed; there is nothing to download.")
    holding = inspect(dataset)
    if holding.sound and holding.root is not None:
        return holding.root
    root = writable_root()
    with FileLock(root / f".{dataset.name}.lock"):
        holding = inspect(dataset)  # another process may have finished meanwhile
        if holding.sound and holding.root is not None:
            return holding.root
        if dataset.kind == "file":
            _download(dataset, root / dataset.files[0].path, root, progress, seconds)
        else:
            archive = _archive_at_hand(dataset)
            if archive is None:
                archive = root / dataset.download_name
                _download(dataset, archive, root, progress, seconds)
            _unpack(dataset, archive, root)
            if archive.parent == root:
                archive.unlink(missing_ok=True)
    return root


def damaged(dataset: DataSet, fault: str) -> DamagedDataError:
    """The error for a damaged set, with what to do about it."""
    return DamagedDataError(f"{fault}; run `course data {dataset.name}`, which fetches {dataset.title} again.")


def missing(dataset: DataSet) -> MissingDataError:
    """The error for a set that is not here and out of reach, with what to do about it."""
    looked = ", ".join(map(str, data_roots()))
    embedded = ", or use load_images('digits_in_scenes')" if dataset.files_with_role("train") else ""
    return MissingDataError(
        f"{dataset.title} is not on this machine (looked in {looked}) and none of its "
        f"{len(dataset.urls)} mirrors can be reached: set {ENVIRONMENT_VARIABLE} to a folder that holds "
        f"{Path(dataset.files[0].path).parts[0]}, or run `course data {dataset.name}` where there is a network"
        f"{embedded}."
    )


def _has(root: Path, file: DataFile) -> bool:
    path = root / file.path
    return path.is_file() and (file.size is None or path.stat().st_size == file.size)


def _file_fault(root: Path, file: DataFile, markers: tuple[str, ...]) -> str:
    """What is wrong with one file, in words, or nothing."""
    path = root / file.path
    if not path.is_file():
        return f"{path} {MISSING}"
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"{path} has {size:,} bytes instead of {file.size:,}"
    if not size:
        return f"{path} is empty"
    if file.md5 is not None:
        return "" if file_md5(path) == file.md5 else f"{path} is damaged (its checksum is not the registry's)"
    if file.measured_md5 is not None and file_md5(path) == file.measured_md5:
        return ""
    text = path.read_bytes() if markers else b""
    if any(marker.encode() not in text for marker in markers):
        return f"{path} is neither the measured edition nor a whole text from its publisher"
    return ""


def _download(dataset: DataSet, path: Path, root: Path, progress: bool, seconds: float) -> None:
    free = shutil.disk_usage(root).free
    needed = 2 * (dataset.size or 0) + sum(file.size or 0 for file in dataset.files)
    if free < needed:
        raise DataError(
            f"{dataset.title} needs {needed / 1e6:,.0f} MB while it is unpacked and {root} has "
            f"{free / 1e6:,.0f} MB free: make room or set {ENVIRONMENT_VARIABLE} to another folder."
        )
    urls = reachable(dataset.urls, seconds)
    if not urls:
        raise missing(dataset)
    download(
        urls,
        path,
        size=dataset.size,
        md5=dataset.md5,
        sha256=dataset.sha256,
        markers=dataset.markers,
        progress=progress,
    )


def _archive_at_hand(dataset: DataSet) -> Path | None:
    """The archive itself, if somebody put it under a data root, for instance from a memory stick."""
    for root in data_roots():
        path = root / dataset.download_name
        if not path.is_file() or (dataset.size is not None and path.stat().st_size != dataset.size):
            continue
        if dataset.sha256 is not None and file_sha256(path) != dataset.sha256:
            continue
        if dataset.md5 is not None and file_md5(path) != dataset.md5:
            continue
        return path
    return None


def _unpack(dataset: DataSet, archive: Path, root: Path) -> None:
    """Write the files that the registry lists, and no others, each checked before it gets its name."""
    try:
        with _members(archive) as open_member:
            for file in dataset.files:
                path = root / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(path.name + ".part")
                with open_member(file.member) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                if file.md5 is not None and file_md5(part) != file.md5:
                    part.unlink()
                    raise DownloadError(
                        f"{file.member} in {archive} has another checksum than the registry's; delete {archive} "
                        f"and run `course data {dataset.name}`."
                    )
                os.replace(part, path)
    except (KeyError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"{archive} cannot be unpacked ({error}); delete it and run `course data {dataset.name}`."
        ) from error


@contextmanager
def _members(archive: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    """A function that opens one member of a tar or zip archive; KeyError if there is no such member."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:  # reading to the end checks each member's CRC-32
            yield zipped.open
        return
    with tarfile.open(archive) as tarred:

        def open_member(name: str) -> IO[bytes]:
            stream = tarred.extractfile(name)
            if stream is None:
                raise KeyError(f"{name!r} is not a file")
            return stream

        yield open_member
