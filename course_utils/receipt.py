"""The receipt of a submission: who handed in what and when, written by `course submit`, verified when collected.

A submission is a zip file that holds the files and beside them ``receipt.json``:

.. code-block:: json

    {"format": 1, "assignment": "a1_linear_classifiers", "student": "anna", "time": "2026-11-20T21:04:10+00:00",
     "files": {"a1_linear_classifiers.ipynb": "<sha256>"}, "digest": "<sha256 of all the above>"}

A receipt shows that nothing was damaged or exchanged on the way, and gives the student a code to quote.  It has no
secret in it, so whoever can make one can make another: its time is the word of the student's clock, and whether a
submission is late is told by whoever received it where they know.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

RECEIPT = "receipt.json"  # the member of a submission's zip file that holds it
FORMAT = 1
MAX_RECEIPT = 64 << 10  # bytes; a receipt of a hundred files has a tenth of this
MAX_NAME = 200  # characters of a student's id or a file's name
FIRST_YEAR, LAST_YEAR = 1970, 9998  # which are years in every time zone, too
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ReceiptError(ValueError):
    """A receipt that cannot be read or made; says why in one sentence."""


@dataclass(frozen=True)
class Receipt:
    """Who handed in what, and when.

    Attributes
    ----------
    assignment, student : str
        Name of the assignment, and the id under which the student hands in.
    time : datetime
        When the zip file was made, by the student's clock; with its time zone.
    files : dict of str to str
        The SHA-256 of each file in hexadecimal, by its name in the zip file.
    digest : str
        What the receipt states as the SHA-256 of all the above; `verify` says whether that holds.
    """

    assignment: str
    student: str
    time: datetime
    files: Mapping[str, str]
    digest: str

    @property
    def code(self) -> str:
        """The digest's first digits, to be read by people: "3f2a-91c0-77be"."""
        return "-".join(self.digest[k : k + 4] for k in (0, 4, 8))

    def to_json(self) -> str:
        """What stands in ``receipt.json``."""
        stated = _content(self.assignment, self.student, self.time, self.files) | {"digest": self.digest}
        return json.dumps(stated, indent=1, ensure_ascii=False) + "\n"


def make_receipt(assignment: str, student: str, files: Mapping[str, bytes], time: datetime | None = None) -> Receipt:
    """Make the receipt of some files.

    Parameters
    ----------
    assignment, student : str
        What is handed in, and under which id.
    files : mapping of str to bytes
        Each file by its name in the zip file; "/" separates folders.
    time : datetime, optional
        When; with a time zone.  Now, when not given.

    Raises
    ------
    ReceiptError
        Where a name is empty, too long, or leads out of the zip file.
    """
    time = (time or datetime.now(UTC)).replace(microsecond=0)
    if time.tzinfo is None:
        raise ReceiptError(f"The time {time} of a receipt needs a time zone.")
    if not files:
        raise ReceiptError("A submission needs at least one file.")
    _check_names(assignment, student, files)
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    return Receipt(assignment, student, time, hashes, _digest(assignment, student, time, hashes))


def pack(receipt: Receipt, files: Mapping[str, bytes]) -> bytes:
    """The bytes of a submission's zip file: the receipt and the files that it was made of.

    The same receipt and files give the same bytes.

    Raises
    ------
    ReceiptError
        Where the files are others than those of the receipt.
    """
    differing = verify(receipt, files)
    if differing:
        raise ReceiptError(differing[0])
    data = io.BytesIO()
    date = max(receipt.time.astimezone(UTC).timetuple()[:6], (1980, 1, 1, 0, 0, 0))  # the earliest that a zip can hold
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [(RECEIPT, receipt.to_json().encode()), *sorted(files.items())]:
            entry = zipfile.ZipInfo(name, date)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return data.getvalue()


def read_receipt(data: bytes) -> Receipt:
    """Read what stands in a ``receipt.json``; `verify` then says whether it is true.

    Raises
    ------
    ReceiptError
        Where it is no receipt; says why.
    """
    if len(data) > MAX_RECEIPT:
        raise ReceiptError(f"The receipt has {len(data)} bytes, more than {MAX_RECEIPT}.")
    try:
        stated = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise ReceiptError("The receipt is not valid JSON.") from None
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise ReceiptError(f"The receipt is not one of format {FORMAT}.")
    texts = {key: stated.get(key) for key in ("assignment", "student", "time", "digest")}
    missing = [key for key, value in texts.items() if not isinstance(value, str)]
    files = stated.get("files")
    if missing or not isinstance(files, dict) or not files:
        raise ReceiptError(f"The receipt does not state its {', '.join(missing) or 'files'}.")
    if not all(isinstance(h, str) and _SHA256.fullmatch(h) for h in files.values()):
        raise ReceiptError("The receipt states something else than a SHA-256 for a file.")
    try:
        time = datetime.fromisoformat(str(texts["time"]))
        time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ReceiptError("The receipt's time is no time as ISO 8601 writes it.") from None
    if time.tzinfo is None:
        raise ReceiptError("The receipt's time has no time zone.")
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise ReceiptError(f"The receipt's time lies in the year {time.year}; set the clock and make it again.")
    assignment, student = str(texts["assignment"]), str(texts["student"])
    _check_names(assignment, student, files)
    return Receipt(assignment, student, time, dict(files), str(texts["digest"]))


def verify(receipt: Receipt, files: Mapping[str, bytes]) -> list[str]:
    """What differs between a receipt and the files beside it, a sentence each; nothing where all is as stated.

    Parameters
    ----------
    receipt : Receipt
        As read.
    files : mapping of str to bytes
        Each file beside the receipt by its name.
    """
    found = []
    if receipt.digest != _digest(receipt.assignment, receipt.student, receipt.time, receipt.files):
        found.append("The receipt was changed after it was made: its digest is not that of what it states.")
    for name, stated in sorted(receipt.files.items()):
        if name not in files:
            found.append(f"The file {name} is missing; the receipt lists it.")
        elif hashlib.sha256(files[name]).hexdigest() != stated:
            found.append(f"The file {name} is not the one that was handed in: its SHA-256 differs from the receipt's.")
    found += [f"The file {name} is not on the receipt." for name in sorted(set(files) - set(receipt.files))]
    return found


def _content(assignment: str, student: str, time: datetime, files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "assignment": assignment,
        "student": student,
        "time": time.isoformat(),
        "files": dict(sorted(files.items())),
    }


def _digest(assignment: str, student: str, time: datetime, files: Mapping[str, str]) -> str:
    content = _content(assignment, student, time, files)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_names(assignment: str, student: str, files: Mapping[str, Any]) -> None:
    for what, name in (("assignment", assignment), ("student", student), *(("file", n) for n in files)):
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            raise ReceiptError(f"The {what}'s name is empty, longer than {MAX_NAME} characters, or not printable.")
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or name == RECEIPT:
            raise ReceiptError(f"A submission cannot hold a file named {name}.")
