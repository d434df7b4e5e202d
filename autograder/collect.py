"""Collect what students handed in into nbgrader's ``submitted`` folder, and tell who is late and who is missing."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autograder.atomic_write import atomic_write
from autograder.course_settings import CourseSettings
from autograder.csv_table import csv_table
from autograder.harmless import harmless_line
from autograder.roster import STUDENT, Person, Roster, plain_id
from autograder.uploads import Upload, uploads_in

COLLECTED = "collected"  # folder of the course: for each assignment a table of what was collected
COLUMNS = (
    "student",
    "name",
    "handed_in",
    "clock",
    "extra_days",
    "days_late",
    "late_by",
    "file",
    "sha256",
    "receipt",
    "remarks",
)
FIRST = datetime(1, 1, 1, tzinfo=UTC)
MAX_NAME = 200  # characters that are shown of a name in a download


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
    superseded : list of str
        Which earlier version of whom does not count, a sentence each.
    late : list of str
        Who is late and by how much, a sentence each.
    alike : list of str
        Which students handed in the same file, a sentence each.
    remarks : list of str
        What else a person should know, a sentence each.
    missing : list of str
        Who of the roster has not handed in, in this collection or before.
    """

    students: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    alike: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class HandedIn:
    """What is known of how one student handed in, as the table in ``course/collected`` has it.

    Attributes
    ----------
    student, name : str
        Who.
    handed_in : str
        When, in ISO 8601; "" where that is not known.
    clock : str
        What says so: "file date", "archive date", "receipt" or "Moodle".
    extra_days : str
        By how many days the student's deadline was later.
    days_late : int
        Days begun after the deadline.
    late_by : str
        Who says whether it is late: "Canvas" or "deadline".
    file, sha256, receipt : str
        Where it was found, the file's SHA-256, and the code of its receipt.
    remarks : str
        Sentences.
    """

    student: str
    name: str
    handed_in: str
    clock: str
    extra_days: str
    days_late: int
    late_by: str
    file: str
    sha256: str
    receipt: str
    remarks: str


def collect(
    files: Iterable[Path],
    assignment: str,
    course: Path,
    settings: CourseSettings | None = None,
    roster: Roster | None = None,
    released: bytes = b"",
) -> Collected:
    """Put notebooks into ``course/submitted/STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb``.

    Whose a notebook is say, in this order: Canvas's or Moodle's name for it in their downloads; the folder it lies in;
    its receipt; its own name.  Of several by one student the latest counts.  Nothing but the notebook is taken; links,
    absolute names and names with ``..`` are refused.

    Parameters
    ----------
    files : iterable of Path
        Notebooks, folders and zip files; downloads of Canvas and Moodle, packed or not; zip files of `course submit`.
    assignment : str
        Name of the assignment.
    course : Path
        nbgrader's course folder.
    settings : CourseSettings, optional
        Deadlines; defaults when not given.
    roster : Roster, optional
        Who takes the course; what belongs to nobody on it is refused.
    released : bytes
        The notebook as it was handed out, which several students may hand in without having copied.

    Raises
    ------
    CourseError
        When a file does not exist or is none of these.
    """
    settings = settings or CourseSettings()
    done = Collected()
    latest: dict[str, Upload] = {}
    people: dict[str, Person] = {}
    for path in files:
        for upload in uploads_in(path, assignment, done.refused, settings.zone):
            person = _person(upload, roster, done)
            if person is None:
                continue
            people[person.student] = person
            older = latest.get(person.student)
            if older is not None:
                kept, dropped = _later(older, upload, assignment)
                why = "the same file" if kept.data == dropped.data else "which is later and counts"
                done.superseded.append(f"{dropped.where}: {person.student} also handed in {kept.where}, {why}.")
                latest[person.student] = kept
            else:
                latest[person.student] = upload
    known = read_collected(course, assignment)
    for student, upload in sorted(latest.items()):
        entry = _entry(_first_seen(upload, known.get(student)), people[student], assignment, settings)
        _put(course, assignment, student, upload, entry, done)
        known[student] = entry
        if entry.days_late:
            told = "" if entry.handed_in else " (Canvas says so; by how much is not in its download)"
            done.late.append(f"{student}: {entry.days_late} day{'s' * (entry.days_late > 1)} late{told}.")
        if entry.remarks:
            done.remarks.append(f"{student}: {entry.remarks}")
    if latest:
        atomic_write(collected_table(course, assignment), _table(known))
    done.remarks += _one_or_two(known)
    done.alike = _alike(known, hashlib.sha256(released).hexdigest())
    if roster is not None:
        done.missing = [p.student for p in roster if p.student not in handed_in_by(course, assignment)]
    return done


def collected_table(course: Path, assignment: str) -> Path:
    """Where the table of an assignment's collected notebooks is."""
    return course / COLLECTED / f"{assignment}.csv"


def read_collected(course: Path, assignment: str) -> dict[str, HandedIn]:
    """How each student handed in, by student; empty where nothing was collected yet."""
    path = collected_table(course, assignment)
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    made = {}
    for row in rows:
        texts = {c: row.get(c) or "" for c in COLUMNS if c != "days_late"}
        days = (row.get("days_late") or "").strip()
        made[texts["student"]] = HandedIn(**texts, days_late=int(days) if days.isdigit() else 0)
    return made


def handed_in_by(course: Path, assignment: str) -> set[str]:
    """The students with a notebook in ``course/submitted``."""
    return {p.parent.parent.name for p in course.glob(f"submitted/*/{assignment}/*.ipynb")}


def _person(upload: Upload, roster: Roster | None, done: Collected) -> Person | None:
    """Who handed it in; None, with a sentence in `refused`, where that is not known."""
    owner = upload.owner
    person: Person | None = None
    if owner.told_by in ("Canvas", "Moodle"):
        if roster is not None:
            find = roster.of_canvas if owner.told_by == "Canvas" else roster.of_moodle
            person = find(owner.id, owner.name)
            other = roster.of_id(owner.folder)
            if person is not None and other not in (None, person):
                done.refused.append(
                    f"{upload.where}: its name says {person.student} and its folder {owner.folder}; rename one of them."
                )
                return None
        else:
            person = Person(plain_id(owner.name, owner.id), harmless_line(owner.name, MAX_NAME))
    elif roster is not None:
        person = roster.of_id(owner.id)
    elif STUDENT.fullmatch(owner.id):
        person = Person(owner.id)
    if person is None:
        who = f"{owner.id!r}, whom {owner.told_by} names,"
        if owner.name:
            who = f"{harmless_line(owner.name, MAX_NAME)} ({owner.told_by} {owner.id})"
        fault = "is not on the roster" if roster is not None else "cannot be a student's id"
        done.refused.append(f"{upload.where}: {who} {fault}.")
        return None
    stated = upload.receipt.student if upload.receipt else ""
    if stated and owner.told_by != "a receipt":
        meant = roster.of_id(stated) if roster is not None else None
        ids = {i.casefold() for i in (person.student, person.login, person.email)}
        same = meant == person if meant else stated.casefold() in ids | {i.partition("@")[0] for i in ids}
        if roster is not None and not same:
            done.remarks.append(f"{upload.where}: its receipt names {stated}, and it is counted as {person.student}'s.")
    return person


def _later(one: Upload, other: Upload, assignment: str) -> tuple[Upload, Upload]:
    """Which of two by one student counts, and the other: the later one; of equal ones the one seen last."""

    def order(upload: Upload) -> tuple[bool, datetime, int]:
        by_download = upload.owner.told_by in ("Canvas", "Moodle")
        named = by_download and assignment in upload.file  # a download may hold several files of one submission
        return named, upload.when or FIRST, upload.owner.upload

    return (other, one) if order(other) >= order(one) else (one, other)


def _first_seen(upload: Upload, before: HandedIn | None) -> Upload:
    """The same upload with the earliest date that was seen of this file: a copy of it has the date of copying."""
    same = before is not None and before.sha256 == hashlib.sha256(upload.data).hexdigest()
    if before is None or not same or not upload.clock.endswith("date") or before.clock != upload.clock:
        return upload
    first = datetime.fromisoformat(before.handed_in)
    return upload if upload.when is None or upload.when <= first else replace(upload, when=first)


def days_late(entry: HandedIn, assignment: str, settings: CourseSettings) -> int:
    """Days begun after the deadline as the settings have it now; what Canvas said stays."""
    deadline = settings.deadlines.get(assignment)
    if entry.late_by == "Canvas":
        return entry.days_late
    if deadline is None or not entry.handed_in:
        return 0
    extra = timedelta(days=float(entry.extra_days or 0))
    return settings.late.days(datetime.fromisoformat(entry.handed_in) - deadline - extra)


def _entry(upload: Upload, person: Person, assignment: str, settings: CourseSettings) -> HandedIn:
    when, clock = upload.when, upload.clock
    if upload.owner.told_by == "Moodle" and person.handed_in:
        when, clock = datetime.fromisoformat(person.handed_in), "Moodle"
    deadline = settings.deadlines.get(assignment)
    if deadline is not None:
        deadline += timedelta(days=person.extra_days)
    days, remarks = 0, []
    if upload.owner.late is not None:  # Canvas knows of extensions, and its clock is nobody's own
        if upload.owner.late:
            days = settings.late.days(when - deadline) if when and deadline and when > deadline else 1
        if when and not upload.owner.late and deadline and settings.late.days(when - deadline):
            remarks.append("Its receipt's time is after the deadline, but Canvas took it as in time, which counts.")
    elif deadline is not None and when is None:
        remarks.append("When it was handed in is not known; it counts as in time.")
    elif deadline is not None and when is not None:
        days = settings.late.days(when - deadline)
    return HandedIn(
        person.student,
        person.name,
        when.astimezone(settings.zone).isoformat() if when else "",
        clock if when else "",
        f"{person.extra_days:g}" if person.extra_days else "",
        days,
        "deadline" if upload.owner.late is None else "Canvas",
        upload.where,
        hashlib.sha256(upload.data).hexdigest(),
        upload.receipt.code if upload.receipt else "",
        " ".join(remarks),
    )


def _put(course: Path, assignment: str, student: str, upload: Upload, entry: HandedIn, done: Collected) -> None:
    folder = course / "submitted" / student / assignment
    notebook, stamp = folder / f"{assignment}.ipynb", folder / "timestamp.txt"
    time = ""
    if entry.handed_in:
        time = datetime.fromisoformat(entry.handed_in).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    same = notebook.is_file() and notebook.read_bytes() == upload.data
    if same and (entry.clock not in ("receipt", "Moodle") or _text(stamp) == time):
        done.unchanged.append(student)
        return
    if time:
        atomic_write(stamp, time)
    else:
        stamp.unlink(missing_ok=True)
    if not same:
        atomic_write(notebook, upload.data)
    done.students.append(student)


def _text(path: Path) -> str:
    return path.read_text(errors="replace").strip() if path.is_file() else ""


def _alike(known: dict[str, HandedIn], released: str) -> list[str]:
    by_file: dict[str, list[str]] = {}
    for student, entry in known.items():
        by_file.setdefault(entry.sha256, []).append(student)
    return [
        f"{', '.join(sorted(students))} handed in the same file."
        for digest, students in sorted(by_file.items(), key=lambda item: sorted(item[1]))
        if len(students) > 1 and digest not in (released, "")
    ]


def _one_or_two(students: Iterable[str]) -> list[str]:
    by_letters: dict[str, list[str]] = {}
    for student in sorted(students):
        by_letters.setdefault(student.casefold(), []).append(student)
    return [
        f"{' and '.join(same)} differ in capitals only; if they are one student, remove one of their folders."
        for same in by_letters.values()
        if len(same) > 1
    ]


def _table(known: dict[str, HandedIn]) -> str:
    return csv_table(COLUMNS, ([getattr(known[s], c) for c in COLUMNS] for s in sorted(known)))
