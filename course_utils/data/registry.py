"""The registry of data sets: what each one is, where it comes from, and how its bytes are checked.

The table itself is ``registry.toml``. It lies in ``datasets/`` in a checkout and in the student bundle, and
beside this package in an installed wheel.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import DataError

KINDS = ("archive", "file", "embedded")


@dataclass(frozen=True)
class DataFile:
    """One file of a set.

    Attributes
    ----------
    path : str
        Where it lies below the data root, with forward slashes.
    member : str
        Its name inside the archive; the same as `path` unless the registry says otherwise.
    size : int or None
        Its size in bytes, where that is fixed.
    md5 : str or None
        Its checksum, where the publisher's bytes never change.
    measured_md5 : str or None
        The checksum of the edition our published numbers were measured on, for a file that its publisher
        revises now and then. Another edition is accepted, and said to be one.
    role : str
        ``"train"``, ``"test"`` or ``"classes"`` in an image set, otherwise empty.
    images : int
        How many images the file holds.
    """

    path: str
    member: str = ""
    size: int | None = None
    md5: str | None = None
    measured_md5: str | None = None
    role: str = ""
    images: int = 0


@dataclass(frozen=True)
class DataSet:
    """One entry of the registry.

    Attributes
    ----------
    name, title, what : str
        The key, the name for people, and one sentence about the contents.
    kind : {"archive", "file", "embedded"}
        An archive is downloaded and unpacked, a file is downloaded as it is, an embedded set is made or read
        from what is installed anyway.
    licence, citation, home : str
        Terms of use, how to cite it, and the page that describes it.
    url : str
        The publisher's address; empty for an embedded set.
    mirrors : tuple of str
        Other addresses of the same bytes, in the order in which they are tried.
    download_name : str
        The name under which the download is kept.
    size : int or None
        Bytes to download.
    md5, sha256 : str or None
        Checksums of the download (of the first 1,000 training images for an embedded image set).
    markers : tuple of str
        Texts that must occur in a complete file, for a publisher who revises files without new names.
    files : tuple of DataFile
        What lies below the data root once the set is there.
    """

    name: str
    title: str
    what: str
    kind: str
    licence: str
    citation: str
    home: str
    url: str = ""
    mirrors: tuple[str, ...] = ()
    download_name: str = ""
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    markers: tuple[str, ...] = ()
    files: tuple[DataFile, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """The publisher's address and then the mirrors."""
        return (self.url, *self.mirrors) if self.url else ()

    def files_with_role(self, role: str) -> tuple[DataFile, ...]:
        """The files of one role, in the registry's order."""
        return tuple(file for file in self.files if file.role == role)


def registry_path() -> Path:
    """Where ``registry.toml`` lies: beside the package in a wheel, else in the checkout's ``datasets/``."""
    package = Path(__file__).resolve().parents[1]
    candidates = (package / "registry.toml", package.parent / "datasets" / "registry.toml")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(
        f"The registry of data sets is missing: neither {candidates[0]} nor {candidates[1]} exists; "
        "reinstall the course package or restore datasets/registry.toml."
    )


def read_registry(path: Path | None = None) -> dict[str, DataSet]:
    """Read the registry.

    Parameters
    ----------
    path : Path, optional
        Another registry than the course's.

    Returns
    -------
    dict of str to DataSet
        In the order of the file.

    Raises
    ------
    DataError
        If the file is not valid; the message names the entry and the key.
    """
    path = registry_path() if path is None else path
    try:
        with path.open("rb") as stream:
            table = tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"The registry of data sets {path} cannot be read: {error}.") from error
    return {name: _data_set(name, entry, path) for name, entry in table.items()}


def registered(name: str) -> DataSet:
    """The entry called `name`.

    Raises
    ------
    DataError
        If there is none; the message lists the names there are.
    """
    sets = read_registry()
    if name not in sets:
        raise DataError(f"There is no data set called {name!r}; choose from {', '.join(sets)}.")
    return sets[name]


def _data_set(name: str, entry: Any, path: Path) -> DataSet:
    where = f"[{name}] in {path}"
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is not a table; every data set needs one.")
    values = dict(entry)
    files = tuple(_data_file(file, where) for file in values.pop("files", ()))
    _check_keys(values, DataSet, where, given={"name", "files"})
    for key in ("mirrors", "markers"):
        values[key] = tuple(values.get(key, ()))
    if values["kind"] not in KINDS:
        raise DataError(f"{where} has kind {values['kind']!r}; it must be one of {', '.join(KINDS)}.")
    if values["kind"] != "embedded" and not (values.get("url") and files):
        raise DataError(f"{where} needs a url and at least one file.")
    values.setdefault("download_name", values.get("url", "").rsplit("/", 1)[-1])
    return DataSet(name=name, files=files, **values)


def _data_file(entry: Mapping[str, Any], where: str) -> DataFile:
    _check_keys(entry, DataFile, f"A file of {where}", given=set())
    values = dict(entry)
    values.setdefault("member", values["path"])
    return DataFile(**values)


def _check_keys(entry: Mapping[str, Any], kind: type, where: str, given: set[str]) -> None:
    """Refuse misspelt and missing keys, which would otherwise switch a check off in silence."""
    known = {field.name for field in fields(kind)} - given
    unknown = sorted(set(entry) - known)
    if unknown:
        raise DataError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}.")
    needed = {"path"} if kind is DataFile else {"title", "what", "kind", "licence", "citation", "home"}
    missing = sorted(needed - set(entry))
    if missing:
        raise DataError(f"{where} lacks the key {missing[0]!r}.")
