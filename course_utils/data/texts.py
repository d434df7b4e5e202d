"""Texts for the character models: found or downloaded, verified, and as plain characters with one kind of line end."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from . import store
from .download import PROBE_SECONDS, reachable
from .errors import DataError, DownloadError, MissingDataError
from .images import ENVIRONMENT_VARIABLE
from .registry import DataSet, read_registry, registered

EMBEDDED = "python_topics"
TEXTS = ("tinyshakespeare", "alice", "sherlock_holmes", "moby_dick", EMBEDDED)
"""The texts of the registry; the first is the one that ``"auto"`` prefers."""
FRAME = ("*** START OF TH", "*** END OF TH")
"""How the lines begin that frame a text of Project Gutenberg."""


@dataclass(frozen=True, repr=False)
class TextData:
    """A text.

    Attributes
    ----------
    name : str
        Its name in the registry, or the name of its file.
    source : str
        What it is, for the caption of a figure.
    text : str
        Its characters. Lines end with a newline, characters with accents are single characters (NFC).
    """

    name: str
    source: str
    text: str

    def __len__(self) -> int:
        """The number of characters."""
        return len(self.text)

    def __repr__(self) -> str:
        return f"TextData({self.name}: {len(self):,} characters, {len(set(self.text))} of them distinct)"


def load_text(name: str | Path = "auto", *, chunk: int = 25) -> TextData:
    """Load a text and say in one sentence which one and why.

    Parameters
    ----------
    name : str or Path
        A text of the registry (``"tinyshakespeare"``, ``"alice"``, ``"sherlock_holmes"``, ``"moby_dick"``,
        ``"python_topics"``), the path of a file of your own, or ``"auto"``: what the environment variable
        ``COURSE_DATA_SET`` names; without it Tiny Shakespeare if this machine has it or can download it, and else
        the embedded text, the sentences of Python's built-in help.
    chunk : int
        How many characters a training step reads; a text must have at least one more.

    Returns
    -------
    TextData

    Raises
    ------
    ValueError
        If there is no such text, or it is shorter than one chunk and the character after it.
    DataError
        If a text cannot be had or its file cannot be read.

    Notes
    -----
    UTF-8 and UTF-16 with a byte-order mark are recognised, everything else is read as UTF-8 or, where that fails, as
    Windows-1252. Line ends of all systems become newlines. The frame that Project Gutenberg puts around a text is
    dropped.
    """
    if name != "auto":
        return _long_enough(_load(str(name), "name"), chunk)
    chosen = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if chosen in read_registry() and chosen not in TEXTS:
        chosen = ""  # the variable names images for the other assignments
    if chosen and chosen != "auto":
        data = _load(chosen, ENVIRONMENT_VARIABLE)
        print(f"Taking {data.source}, because {ENVIRONMENT_VARIABLE} says so.")
        return _long_enough(data, chunk)

    preferred = registered(TEXTS[0])
    root = store.find(preferred)
    if root is not None:
        print(f"Taking {preferred.title}, which is on this machine ({root}).")
        return _long_enough(_registered_text(preferred), chunk)
    reason = "is neither on this machine nor within reach"
    if reachable(preferred.urls, PROBE_SECONDS):
        print(f"Taking {preferred.title}, which is downloaded once ({(preferred.size or 0) / 1e6:.1f} MB).")
        try:
            return _long_enough(_registered_text(preferred), chunk)
        except DownloadError as error:
            reason = f"could not be downloaded ({error})"
    embedded = registered(EMBEDDED)
    print(f"Taking {embedded.title}, the embedded text, because {preferred.title} {reason}.")
    return _long_enough(_registered_text(embedded), chunk)


def plain_text(data: bytes) -> str:
    """The characters of a text file: decoded, with newlines for all line ends, accents composed, unframed.

    Raises
    ------
    ValueError
        If it holds zero characters, as pictures, programs and word processors' files do.
    """
    text = unicodedata.normalize("NFC", _decoded(data))
    if "\0" in text:
        raise ValueError("it is no plain text: it holds zero characters")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _unframed(text)


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _unframed(text: str) -> str:
    """What stands between the lines of `FRAME`, or everything where one of them is missing."""
    first, last = (text.find(f"\n{mark}") if not text.startswith(mark) else 0 for mark in FRAME)
    if first < 0 or last <= first:
        return text
    start = text.find("\n", first + 1)
    return text[start:last].strip("\n") + "\n"


def _load(name: str, argument: str) -> TextData:
    if name in TEXTS:
        return _registered_text(registered(name))
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"load_text: {argument} is one of auto, {', '.join(TEXTS)}, or a file; {name!r} is neither.")
    return _read(path, path.name, f"{path.name}, a file of your own")


def _registered_text(dataset: DataSet) -> TextData:
    if dataset.name == EMBEDDED:
        # Imported when wanted: it is half a megabyte, and some systems ship Python without it.
        try:
            topics: dict[str, str] = import_module("pydoc_data.topics").topics
        except ImportError as error:
            raise MissingDataError(
                f"This Python was installed without {dataset.citation.split(', ')[-1]}; give load_text the path of a "
                "text file of your own."
            ) from error
        text = "\n\n".join(paragraph for title in sorted(topics) for paragraph in _prose(topics[title])) + "\n"
        return TextData(dataset.name, dataset.title, plain_text(text.encode()))
    holding = store.inspect(dataset)
    if holding.damaged:
        raise store.damaged(dataset, holding.fault)
    try:
        root = store.fetch(dataset)
    except MissingDataError as error:
        raise MissingDataError(f"{str(error).rstrip('.')}, or use load_text({EMBEDDED!r}).") from error
    return _read(root / dataset.files[0].path, dataset.name, dataset.title)


def _prose(topic: str) -> list[str]:
    """The paragraphs of a topic that are sentences: no headings, grammars, tables, nor code, which is indented."""
    return [
        paragraph
        for paragraph in re.split(r"\n\s*\n", topic.strip())
        if paragraph.endswith(".") and not re.search(r"^[ |+]|\*{4}|={4}|-{4}", paragraph, re.MULTILINE)
    ]


def _read(path: Path, name: str, source: str) -> TextData:
    try:
        return TextData(name, source, plain_text(path.read_bytes()))
    except OSError as error:
        raise DataError(f"The text {path} cannot be read: {error.strerror}; give another file.") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise DataError(f"The text {path} cannot be used: {error}; save it as plain text in UTF-8.") from error


def _long_enough(data: TextData, chunk: int) -> TextData:
    if len(data) <= chunk:
        raise ValueError(
            f"load_text: {data.source} has {len(data):,} characters, but one chunk of {chunk} and the character after "
            f"it are {chunk + 1}; give a longer text or a smaller chunk."
        )
    return data
