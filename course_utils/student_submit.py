"""`course submit`: the notebook in one zip file with a receipt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from course_utils.atomic_write import atomic_write
from course_utils.checking.fresh_process import Checked
from course_utils.errors import InputError
from course_utils.handed_out import HandedOut
from course_utils.receipt import Receipt, ReceiptError, make_receipt, pack

STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")  # what collecting takes for a student's id
STUDENT_FILE = "student.txt"  # in the bundle's folder: the id that was given the last time


@dataclass(frozen=True)
class Handed:
    """What is to be handed in.

    Attributes
    ----------
    archive : Path
        The zip file.
    receipt : Receipt
        What it states.
    size : int
        Bytes.
    """

    archive: Path
    receipt: Receipt
    size: int


def known_student(assignment: HandedOut) -> str:
    """The id that was given the last time; "" where there was none."""
    path = assignment.home / STUDENT_FILE
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def check_student(student: str) -> str:
    """The id without spaces around it.

    Raises
    ------
    InputError
        Where it is none.
    """
    student = student.strip()
    if not STUDENT.fullmatch(student):
        raise InputError(
            f"{student!r} is no id to hand in under: it has letters without accents, digits and . _ @ - only, at most "
            "64, and begins with a letter or digit. Take the one that your course lists you under."
        )
    return student


def submit(assignment: HandedOut, checked: Checked, student: str, folder: Path | None = None) -> Handed:
    """Write the zip file of a checked notebook; one of an earlier time is replaced in one step.

    Parameters
    ----------
    assignment : HandedOut
        What is handed in.
    checked : Checked
        What the check read: these bytes are handed in, even where the file changed meanwhile.
    student : str
        The id to hand in under; it is kept for the next time.
    folder : Path, optional
        Where to write; the bundle's folder when not given.

    Raises
    ------
    InputError
        Where the file cannot be written.
    """
    home = assignment.home
    archive = (folder or home) / f"{assignment.name}_{student}.zip"
    files = {f"{assignment.name}.ipynb": checked.data}
    try:
        receipt = make_receipt(assignment.name, student, files)
        data = pack(receipt, files)
    except ReceiptError as error:
        raise InputError(str(error)) from None
    try:
        atomic_write(archive, data)
        if known_student(assignment) != student:
            atomic_write(home / STUDENT_FILE, student + "\n")
    except OSError as error:
        raise InputError(f"{archive} cannot be written ({error.strerror}); name a folder with --output.") from None
    return Handed(archive.resolve(), receipt, len(data))
