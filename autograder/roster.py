"""Who takes the course: a roster in CSV, one's own or as Canvas and Moodle write it."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from autograder.atomic_write import atomic_write
from autograder.course import Course
from autograder.csv_table import csv_table
from autograder.errors import CourseError
from autograder.gradebook import open_gradebook

STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")  # an id that may name a folder
ROSTER = "roster.csv"  # in the course folder
NO_TAGS = str.maketrans("<>", "‹›")
# Moodle's grading worksheet in English: "Friday, 20 November 2026, 9:04 PM" and "20/11/26, 21:04"
MOODLE_TIMES = ("%A, %d %B %Y, %I:%M %p", "%A, %d %B %Y, %H:%M", "%d %B %Y, %I:%M %p", "%d/%m/%y, %H:%M")


@dataclass(frozen=True)
class Person:
    """One student.

    Attributes
    ----------
    student : str
        The id by which the course folder and the gradebook know the student.
    name, email : str
        As a page or a message shows them.
    canvas_id, sis_id, login, section : str
        As in Canvas's gradebook.
    moodle_id : str
        The participant's number in Moodle's downloads, another one for each assignment.
    extra_days : float
        By how many days this student's deadlines are later.
    handed_in : str
        When, as Moodle's grading worksheet says; ISO 8601.
    """

    student: str
    name: str = ""
    email: str = ""
    canvas_id: str = ""
    sis_id: str = ""
    login: str = ""
    section: str = ""
    moodle_id: str = ""
    extra_days: float = 0.0
    handed_in: str = ""


class Roster:
    """The students of a course.

    Parameters
    ----------
    people : iterable of Person
        Each with an id of its own.
    """

    def __init__(self, people: Iterable[Person]) -> None:
        self.people = {p.student: p for p in people}

    def __iter__(self) -> Iterator[Person]:
        return iter(self.people.values())

    def __len__(self) -> int:
        return len(self.people)

    def of_id(self, text: str) -> Person | None:
        """Whose id, login or address this is."""
        wanted = text.casefold()
        found = [p for p in self if wanted in (p.student.casefold(), p.login.casefold(), p.email.casefold())]
        return found[0] if len(found) == 1 and wanted else None

    def of_canvas(self, number: str, name: str) -> Person | None:
        """Who has this number in Canvas, else this name, as the download's file names have it."""
        return self._one(lambda p: p.canvas_id == number) or self._named(name, lambda p: not p.canvas_id)

    def of_moodle(self, number: str, name: str) -> Person | None:
        """Who is this participant in Moodle, else has this name."""
        return self._one(lambda p: p.moodle_id == number) or self._named(name, lambda p: not p.moodle_id)

    def _named(self, name: str, free: Callable[[Person], bool]) -> Person | None:
        letters = _letters(name)
        return self._one(lambda p: free(p) and bool(letters) and letters in _spellings(p.name))

    def _one(self, fits: Callable[[Person], bool]) -> Person | None:
        found = [p for p in self if fits(p)]
        return found[0] if len(found) == 1 else None

    def to_csv(self) -> str:
        """The roster as one's own CSV."""
        columns = [f.name for f in fields(Person)]
        return csv_table(columns, ([getattr(p, c) for c in columns] for p in self))


def read_roster(path: Path, zone: ZoneInfo) -> Roster:
    """Read a roster: one's own CSV, Canvas's exported gradebook, or a grading worksheet of Moodle.

    One's own has a column ``student`` and may have the others of `Person`.

    Parameters
    ----------
    path : Path
        The file.
    zone : ZoneInfo
        In which Moodle's times are meant.

    Raises
    ------
    CourseError
        When it cannot be read, has none of the columns that tell students apart, or names one twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"The roster {path} cannot be read as UTF-8 text: {error}.") from None
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    columns = {c.strip().casefold(): c for c in (rows[0] if rows else {}) if c}
    if {"student", "id"} <= columns.keys():
        read: Callable[[dict[str, str]], Person | None] = _of_canvas
    elif "identifier" in columns:
        read = lambda row: _of_moodle(row, zone)  # noqa: E731
    elif "student" in columns:
        read = _of_ours
    else:
        raise CourseError(
            f"The roster {path} has none of the columns student (one's own), Student and ID (Canvas's gradebook), "
            f"Identifier (Moodle's grading worksheet)."
        )
    people: dict[str, Person] = {}
    for number, row in enumerate(rows, 2):
        cells = {c: (row.get(own) or "").strip() for c, own in columns.items()}
        try:
            person = read(cells)
        except ValueError as error:
            raise CourseError(f"{path}, line {number}: {error}") from None
        if person is None:
            continue
        if not STUDENT.fullmatch(person.student):
            raise CourseError(
                f"{path}, line {number}: {person.student!r} cannot be a student's id; letters, digits and _ . @ - can."
            )
        if person.student in people:
            raise CourseError(f"{path}, line {number}: {person.student} is there twice.")
        people[person.student] = person
    return Roster(people.values())


def kept_roster(course: Course, given: Path | None, zone: ZoneInfo) -> Roster | None:
    """The roster that is given, kept in the course folder and told to the gradebook; else the one kept there, if any.

    Raises
    ------
    CourseError
        As `read_roster`.
    """
    kept = course.folder / ROSTER
    if given is None:
        return read_roster(kept, zone) if kept.is_file() else None
    roster = read_roster(given, zone)
    if not len(roster):
        raise CourseError(f"The roster {given} names nobody.")
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        known = {s.id: (s.first_name, s.last_name, s.email) for s in gradebook.students}
        for person in roster:
            wanted = (*_first_and_last(person.name), person.email or None)
            if known.get(person.student) != wanted:
                first, last, email = wanted
                gradebook.update_or_create_student(person.student, first_name=first, last_name=last, email=email)
    if not kept.is_file() or kept.read_text(encoding="utf-8") != roster.to_csv():
        atomic_write(kept, roster.to_csv())
    return roster


def _first_and_last(name: str) -> tuple[str | None, str | None]:
    """First and last names of "Anna Berg" or "Berg, Anna", as nbgrader keeps them.

    Students may choose how Canvas names them, and formgrader would take a tag in a name for one of its page's.
    """
    name = name.translate(NO_TAGS)
    last, comma, first = name.partition(",")
    if not comma:
        first, _, last = name.strip().rpartition(" ")
    return first.strip() or None, last.strip() or None


def _of_ours(row: dict[str, str]) -> Person | None:
    known = {f.name for f in fields(Person)} - {"extra_days"}
    if not any(row.values()):
        return None
    return Person(**{k: v for k, v in row.items() if k in known}, extra_days=_days(row.get("extra_days", "")))


def _of_canvas(row: dict[str, str]) -> Person | None:
    if not row["id"].isdigit() or row["student"] == "Student, Test":  # points possible; Canvas's own test student
        return None
    login, sis = row.get("sis login id", ""), row.get("sis user id", "")
    ids = [i for i in (login, sis) if STUDENT.fullmatch(i)]
    student = ids[0] if ids else plain_id(row["student"], row["id"])
    email = login if "@" in login else ""
    return Person(student, row["student"], email, row["id"], sis, login, row.get("section", ""))


def _of_moodle(row: dict[str, str], zone: ZoneInfo) -> Person | None:
    number = re.search(r"\d+", row["identifier"])
    if number is None:
        return None
    name, email = row.get("full name", ""), row.get("email address", "")
    ids = [i for i in (row.get("username", ""), row.get("id number", ""), email) if STUDENT.fullmatch(i)]
    student = ids[0] if ids else plain_id(name, number[0])
    return Person(
        student,
        name,
        email,
        moodle_id=number[0],
        handed_in=_moodle_time(row.get("last modified (submission)", ""), zone),
    )


def _days(text: str) -> float:
    try:
        days = float(text or 0)
    except ValueError:
        raise ValueError(f"extra_days is {text!r}, not a number of days.") from None
    if not 0 <= days < 1000:
        raise ValueError(f"extra_days is {text!r}; it must lie between 0 and 999.")
    return days


def _moodle_time(text: str, zone: ZoneInfo) -> str:
    for form in MOODLE_TIMES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=zone).isoformat()
        except ValueError:
            pass
    return ""


def plain_id(name: str, number: str) -> str:
    """An id made of a name and a number: "Åsa Öberg", "12" is "Asa_Oberg_12"."""
    decomposed = unicodedata.normalize("NFKD", name)
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return "_".join([*re.findall(r"[A-Za-z0-9]+", letters), number])[-64:].lstrip("_")


def _letters(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return "".join(c for c in decomposed if c.isalnum())


def _spellings(name: str) -> set[str]:
    """How downloads write a name: as it is, and with the last name first."""
    words = name.replace(",", " ").split()
    turned = [[*words[k:], *words[:k]] for k in range(max(1, len(words)))]
    return {_letters("".join(t)) for t in turned} - {""}
