"""Collecting downloads of Canvas and Moodle and receipts: whose they are, who is late, who is missing."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from test_collect import NAME, handed_in, pack, put, stamp

from autograder.assignment import load_assignment
from autograder.collect import collect, collected_table, read_collected
from autograder.course import create_course
from autograder.course_settings import CourseSettings, LatePolicy
from autograder.errors import CourseError
from autograder.gradebook import open_gradebook
from autograder.roster import Person, Roster, kept_roster, plain_id, read_roster
from course_utils import receipt
from course_utils.receipt import RECEIPT, make_receipt

DEADLINE = datetime(2026, 11, 20, 23, 0, tzinfo=UTC)
SETTINGS = CourseSettings(deadlines={NAME: DEADLINE}, late=LatePolicy(grace_minutes=15))
ROSTER = Roster(
    [
        Person("anna", "Andersson, Anna", "anna@kth.se", canvas_id="11", moodle_id="901"),
        Person("ben", "Ben Öberg", canvas_id="12"),
        Person("cleo", "Cleo C", canvas_id="13", extra_days=2),
    ]
)


@pytest.fixture
def course(tmp_path: Path) -> Path:
    folder = tmp_path / "course"
    folder.mkdir()
    return folder


def with_receipt(student: str, data: bytes = b"{}", when: datetime = DEADLINE, assignment: str = NAME) -> bytes:
    files = {f"{assignment}.ipynb": data, "report.html": b"<p>"}
    return receipt.pack(make_receipt(assignment, student, files, when), files)


def members(data: bytes) -> dict[str, bytes]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    return {n: archive.read(n) for n in archive.namelist()}


def test_a_canvas_download_is_told_apart_by_canvas_numbers(tmp_path: Path, course: Path) -> None:
    path = pack(
        tmp_path / "submissions.zip",
        ("anderssonanna_11_5001_a1.ipynb", b"a"),
        ("obergben_LATE_12_5002_my work-1.ipynb", b"b"),
        ("cleoc_13_5003_hand in.zip", with_receipt("cleo", b"c")),
        ("stranger_99_5004_a1.ipynb", b"s"),
        ("anderssonanna_11_5001_report.pdf", b"pdf"),
    )
    done = collect([path], NAME, course, SETTINGS, ROSTER)
    assert handed_in(course) == {"anna": b"a", "ben": b"b", "cleo": b"c"}
    assert done.late == ["ben: 1 day late (Canvas says so; by how much is not in its download)."]
    assert len(done.refused) == 1 and "stranger (Canvas 99) is not on the roster" in done.refused[0]
    assert done.missing == [] and done.remarks == []
    assert not (course / "submitted" / "anna" / NAME / "timestamp.txt").exists()  # the download's dates are its own
    entries = read_collected(course, NAME)
    assert (entries["ben"].days_late, entries["ben"].late_by, entries["anna"].days_late) == (1, "Canvas", 0)
    assert entries["cleo"].clock == "receipt" and len(entries["cleo"].receipt) == 14


def test_canvas_knows_better_than_a_students_clock(tmp_path: Path, course: Path) -> None:
    late = datetime(2026, 11, 23, 12, tzinfo=UTC)
    path = pack(
        tmp_path / "submissions.zip",
        ("a_11_1_x.zip", with_receipt("anna", when=late)),  # in time, by an extension that Canvas knows of
        ("b_LATE_12_2_x.zip", with_receipt("ben", when=late)),
        ("c_LATE_13_3_x.zip", with_receipt("cleo", when=DEADLINE.replace(year=2020))),  # a clock that is wrong
    )
    collect([path], NAME, course, SETTINGS, ROSTER)
    assert {s: e.days_late for s, e in read_collected(course, NAME).items()} == {"anna": 0, "ben": 3, "cleo": 1}


def test_a_canvas_download_packed_again_in_a_folder(tmp_path: Path, course: Path) -> None:
    members = (
        ("submissions/a_11_1_x.ipynb", b"a"),
        ("submissions/b_LATE_12_2_x.ipynb", b"b"),
        ("__MACOSX/._a_11_1_x.ipynb", b""),
    )
    done = collect([pack(tmp_path / "submissions.zip", *members)], NAME, course, SETTINGS, ROSTER)
    assert handed_in(course) == {"anna": b"a", "ben": b"b"} and done.refused == [] and len(done.late) == 1


def test_without_a_roster_canvas_names_are_ids(tmp_path: Path, course: Path) -> None:
    unpacked = tmp_path / "submissions"
    put(unpacked / "åberganna_11_5001_a1.ipynb", b"a")
    put(unpacked / "李_12_5002_a1.ipynb", b"b")
    done = collect([unpacked], NAME, course)
    assert done.refused == [] and handed_in(course) == {"12": b"b", "aberganna_11": b"a"}
    assert plain_id("Åsa Öberg-Ek", "7") == "Asa_Oberg_Ek_7"


def test_a_moodle_download_in_folders_and_without(tmp_path: Path, course: Path) -> None:
    path = pack(
        tmp_path / "moodle.zip",
        ("Anna Andersson_901_assignsubmission_file_/a1.ipynb", b"a"),
        ("Ben Öberg_902_assignsubmission_file_a1.ipynb", b"b"),
        ("Cleo C_903_assignsubmission_file/hand in.zip", with_receipt("cleo", b"c")),
        ("Cleo C_903_assignsubmission_onlinetext_/onlinetext.html", b"text"),
    )
    done = collect([path], NAME, course, SETTINGS, ROSTER)
    assert done.refused == [] and handed_in(course) == {"anna": b"a", "ben": b"b", "cleo": b"c"}
    assert done.remarks == [f"{s}: When it was handed in is not known; it counts as in time." for s in ("anna", "ben")]


def test_moodles_worksheet_is_a_roster_that_knows_times(tmp_path: Path, course: Path) -> None:
    sheet = tmp_path / "worksheet.csv"
    sheet.write_text(
        "Identifier,Full name,Email address,Status,Grade,Maximum Grade,Grade can be changed,"
        "Last modified (submission),Last modified (grade),Feedback comments\n"
        'Participant 901,"Anna Andersson",anna@kth.se,Submitted,,50,Yes,"Monday, 23 November 2026, 1:04 AM",-,\n'
        'Participant 902,"Ben Öberg",ben@kth.se,No submission,,50,Yes,-,-,\n',
        encoding="utf-8-sig",
    )
    roster = read_roster(sheet, ZoneInfo("Europe/Stockholm"))
    path = pack(tmp_path / "m.zip", ("Anna Andersson_901_assignsubmission_file_/a1.ipynb", b"a"))
    done = collect([path], NAME, course, SETTINGS, roster)
    assert done.late == ["anna@kth.se: 3 days late."] and done.missing == ["ben@kth.se"]
    assert stamp(course, "anna@kth.se") == "2026-11-23 00:04:00 UTC"


def test_canvas_gradebook_is_a_roster(tmp_path: Path) -> None:
    book = tmp_path / "grades.csv"
    book.write_text(
        "Student,ID,SIS User ID,SIS Login ID,Section,a1 (77)\n"
        "    Points Possible,,,,,50\n"
        '"Andersson, Anna",11,u1,anna@kth.se,S1,\n'
        '"Öberg, Ben",12,,,S1,\n'
        '"Student, Test",13,,abc,S1,\n'
    )
    roster = read_roster(book, ZoneInfo("UTC"))
    assert [(p.student, p.canvas_id, p.sis_id) for p in roster] == [
        ("anna@kth.se", "11", "u1"),
        ("Oberg_Ben_12", "12", ""),
    ]
    kept = tmp_path / "roster.csv"
    kept.write_text(roster.to_csv())
    assert list(read_roster(kept, ZoneInfo("UTC"))) == list(roster)


def test_a_given_roster_is_kept_and_told_to_the_gradebook(tiny_root: Path, tmp_path: Path) -> None:
    course = create_course(tmp_path / "course", [load_assignment(NAME, tiny_root)])
    assert kept_roster(course, None, ZoneInfo("UTC")) is None
    given = tmp_path / "mine.csv"
    given.write_text('student,name,email\nanna,"Andersson, Anna",a@kth.se\nben,Ben van Öberg,\ncleo,Cleo <b>,\n')
    for _ in range(2):
        made = kept_roster(course, given, ZoneInfo("UTC"))
        assert made is not None and len(made) == 3
    again = kept_roster(course, None, ZoneInfo("UTC"))
    assert again is not None and list(again) == list(made)
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        told = {s.id: (s.first_name, s.last_name, s.email) for s in gradebook.students}
    assert told == {
        "anna": ("Anna", "Andersson", "a@kth.se"),
        "ben": ("Ben van", "Öberg", None),
        "cleo": ("Cleo", "‹b›", None),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,mail\nanna,x\n", "none of the columns student"),
        ("", "none of the columns student"),
        ("student\nanna\nanna\n", "line 3: anna is there twice"),
        ("student\n../x\n", "line 2: '../x' cannot be a student's id"),
        ("student,extra_days\nanna,two\n", "line 2: extra_days is 'two'"),
        ("student;extra_days\nanna;-1\n", "line 2: extra_days is '-1'"),
    ],
)
def test_a_wrong_roster_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(CourseError, match=says):
        read_roster(path, ZoneInfo("UTC"))


def test_receipts_say_whose_and_when(tmp_path: Path, course: Path) -> None:
    for student, when in (
        ("anna", DEADLINE),
        ("ben", datetime(2026, 11, 20, 23, 16, tzinfo=UTC)),
        ("cleo", datetime(2026, 11, 22, 22, tzinfo=UTC)),
    ):
        put(tmp_path / "in" / f"submission {student}.zip", with_receipt(student, student.encode(), when))
    put(tmp_path / "in" / "dan.zip", with_receipt("dan"))
    done = collect([tmp_path / "in"], NAME, course, SETTINGS, ROSTER)
    assert handed_in(course) == {"anna": b"anna", "ben": b"ben", "cleo": b"cleo"}
    assert done.late == ["ben: 1 day late."]  # cleo has two days more
    assert len(done.refused) == 1 and "'dan', whom a receipt names, is not on the roster" in done.refused[0]
    assert stamp(course, "ben") == "2026-11-20 23:16:00 UTC"
    assert collect([tmp_path / "in" / "submission anna.zip"], NAME, course, SETTINGS, ROSTER).unchanged == ["anna"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({f"{NAME}.ipynb": b"other"}, "is not the one that was handed in"),
        ({"extra.txt": b""}, "extra.txt is not on the receipt"),
        ({RECEIPT: b"{}"}, "not one of format 1"),
        ({RECEIPT: b" " * 70_000}, "larger than 64 KiB"),
        ({"../evil.txt": b""}, "leads out of the archive"),
    ],
)
def test_a_receipt_that_does_not_hold_is_refused(
    tmp_path: Path, course: Path, change: dict[str, bytes], says: str
) -> None:
    path = pack(tmp_path / "anna.zip", *(members(with_receipt("anna")) | change).items())
    done = collect([path], NAME, course)
    assert handed_in(course) == {} and len(done.refused) == 1 and says in done.refused[0]


def test_a_receipt_packed_again_by_another_program_holds(tmp_path: Path, course: Path) -> None:
    again = {f"my work/{n}": d for n, d in members(with_receipt("anna", b"a")).items()}
    path = pack(
        tmp_path / "x.zip", *again.items(), ("__MACOSX/my work/._receipt.json", b"?"), ("my work/.DS_Store", b"?")
    )
    assert collect([path], NAME, course).refused == [] and handed_in(course) == {"anna": b"a"}


def test_a_receipt_for_another_assignment_is_refused(tmp_path: Path, course: Path) -> None:
    path = put(tmp_path / "anna.zip", with_receipt("anna", assignment="other"))
    assert "its receipt is for other" in collect([path], NAME, course).refused[0] and handed_in(course) == {}


def test_nobody_hands_in_for_another_through_canvas(tmp_path: Path, course: Path) -> None:
    path = pack(
        tmp_path / "submissions.zip",
        ("anderssonanna_11_1_x.zip", with_receipt("ben", b"by anna")),
        ("obergben_12_2_y.zip", pack(tmp_path / "y.zip", ("anna/a1.ipynb", b"by ben")).read_bytes()),
    )
    done = collect([path], NAME, course, SETTINGS, ROSTER)
    assert handed_in(course) == {"anna": b"by anna", "ben": b"by ben"}
    assert len(done.remarks) == 1 and "its receipt names ben, and it is counted as anna's" in done.remarks[0]
    by_address = Roster([Person("anna@kth.se", "Anna", "anna@kth.se", canvas_id="11")])
    path = pack(tmp_path / "again.zip", ("anderssonanna_11_1_x.zip", with_receipt("Anna", b"by anna")))
    assert collect([path], NAME, course, SETTINGS, by_address).remarks == []


def test_nobody_hands_in_for_another_by_a_files_name(tmp_path: Path, course: Path) -> None:
    """A download's name for a file ends in the student's own, and who has a folder names all files in it."""
    download = pack(
        tmp_path / "canvas.zip",
        ("obergben_12_1_Anna Andersson_901_assignsubmission_file_a1.ipynb", b"by ben"),
        ("submissions/c_13_2_Anna Andersson_901_assignsubmission_file_a1.ipynb", b"by cleo"),
    )
    assert collect([download], NAME, course, SETTINGS, ROSTER).refused == []
    assert handed_in(course) == {"ben": b"by ben", "cleo": b"by cleo"}
    folders = pack(
        tmp_path / "folders.zip",
        ("ben/anderssonanna_11_9_a1.ipynb", b"by ben"),
        ("ben/Anna Andersson_901_assignsubmission_file_a1.ipynb", b"by ben"),
        ("anna/a_11_3_a1.ipynb", b"by anna"),
    )
    done = collect([folders], NAME, course, SETTINGS, ROSTER)
    assert handed_in(course)["anna"] == b"by anna" and len(done.refused) == 2
    assert all("its name says anna and its folder ben; rename one of them" in line for line in done.refused)


def test_a_name_that_no_terminal_should_obey_is_told_in_plain_letters(tmp_path: Path, course: Path) -> None:
    member = "Anna\x1b]0;x\x07\u202e_77_assignsubmission_file/a1.ipynb"
    done = collect([pack(tmp_path / "m.zip", (member, b"a"))], NAME, course, SETTINGS, ROSTER)
    assert "(Moodle 77) is not on the roster" in done.refused[0] and done.refused[0].isprintable()
    collect([tmp_path / "m.zip"], NAME, course)
    assert "\x1b" not in collected_table(course, NAME).read_text()


@pytest.mark.parametrize(
    "place",
    [f".ipynb_checkpoints/{RECEIPT}", f"{RECEIPT}/", f"{RECEIPT}/."],
)
def test_a_receipt_that_is_no_file_of_the_submission_stops_nobody_else(
    tmp_path: Path, course: Path, place: str
) -> None:
    files = members(with_receipt("ben"))
    put(tmp_path / "in" / "ben.zip", pack(tmp_path / "b.zip", (place, files[RECEIPT]), ("a1.ipynb", b"")).read_bytes())
    put(tmp_path / "in" / "anna.ipynb", b"a")
    done = collect([tmp_path / "in"], NAME, course)
    assert handed_in(course) == {"anna": b"a"} and f"its {RECEIPT} is no file of the submission" in done.refused[0]


def test_a_member_without_a_name_stops_nobody_else(tmp_path: Path, course: Path) -> None:
    inner = pack(tmp_path / "b.zip", ("a1.ipynb", b"b"), ("QQQQ", b"")).read_bytes().replace(b"QQQQ", b"\0QQQ")
    whole = pack(tmp_path / "c.zip", *members(with_receipt("cleo")).items(), ("QQQQ", b"")).read_bytes()
    hostile = whole.replace(b"QQQQ", b"\0QQQ")
    put(tmp_path / "in" / "ben" / "ben.zip", inner)
    put(tmp_path / "in" / "cleo.zip", hostile)
    put(tmp_path / "in" / "anna.ipynb", b"a")
    done = collect([tmp_path / "in"], NAME, course)
    assert handed_in(course) == {"anna": b"a", "ben": b"b"} and "is not on the receipt" in done.refused[0]


def test_names_that_differ_in_capitals_are_told(tmp_path: Path, course: Path) -> None:
    done = collect([pack(tmp_path / "m.zip", ("Anna.ipynb", b"a"), ("anna.ipynb", b"b"))], NAME, course)
    assert done.remarks == [
        "Anna and anna differ in capitals only; if they are one student, remove one of their folders."
    ]


@pytest.mark.parametrize("zone", ["Europe/Stockholm", "America/New_York"])
@pytest.mark.parametrize("time", ["9999-12-31T23:30:00+00:00", "0001-01-01T00:30:00+00:00"])
def test_a_clock_at_the_end_of_the_calendar_stops_nobody_else(
    tmp_path: Path, course: Path, zone: str, time: str
) -> None:
    files = {f"{NAME}.ipynb": b"b"}
    stated = make_receipt(NAME, "ben", files, datetime.fromisoformat(time)).to_json().encode()
    put(tmp_path / "in" / "ben.zip", pack(tmp_path / "b.zip", (RECEIPT, stated), *files.items()).read_bytes())
    put(tmp_path / "in" / "anna.ipynb", b"a")
    done = collect([tmp_path / "in"], NAME, course, SETTINGS.model_copy(update={"timezone": zone}))
    assert handed_in(course) == {"anna": b"a"} and "set the clock and make it again" in done.refused[0]


def test_of_several_files_the_assignments_own_counts(tmp_path: Path, course: Path) -> None:
    path = pack(
        tmp_path / "submissions.zip",
        (f"a_11_7_{NAME}.ipynb", b"the one"),
        ("a_11_8_scratch.ipynb", b"another"),
        ("b_12_1_a1.ipynb", b"first"),
        ("b_12_2_a1-1.ipynb", b"second"),
        ("c_13_3_two.zip", pack(tmp_path / "t.zip", ("x.ipynb", b""), ("y.ipynb", b"")).read_bytes()),
    )
    done = collect([path], NAME, course, SETTINGS, ROSTER)
    assert handed_in(course) == {"anna": b"the one", "ben": b"second"} and len(done.superseded) == 2
    assert len(done.refused) == 1 and f"name one of them {NAME}.ipynb" in done.refused[0] and done.missing == ["cleo"]


def test_the_same_file_by_two_is_told_unless_it_is_the_released_one(tmp_path: Path, course: Path) -> None:
    for student, data in (("anna", b"x"), ("ben", b"x"), ("cleo", b"released"), ("dan", b"released")):
        put(tmp_path / "in" / f"{student}.ipynb", data)
    assert collect([tmp_path / "in"], NAME, course, released=b"released").alike == [
        "anna, ben handed in the same file."
    ]


def test_a_copy_of_a_file_has_the_date_of_the_first(tmp_path: Path, course: Path) -> None:
    in_time, late = (int(DEADLINE.timestamp()) + d for d in (-60, 86400 * 3))
    path = put(tmp_path / "anna.ipynb", b"1", in_time)
    assert collect([path], NAME, course, SETTINGS).late == []
    assert collect([put(path, b"1", late)], NAME, course, SETTINGS).late == []
    assert collect([put(path, b"2", late)], NAME, course, SETTINGS).late == ["anna: 3 days late."]


def test_a_bomb_within_a_students_zip_file_is_refused(
    tmp_path: Path, course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autograder import uploads

    monkeypatch.setattr(uploads, "MIN_UNPACKED", 1 << 20)
    inner = pack(tmp_path / "i.zip", (f"{NAME}.ipynb", bytes(30 << 20))).read_bytes()
    path = pack(tmp_path / "submissions.zip", ("a_11_1_x.zip", inner), ("b_12_2_a1.ipynb", b"b"))
    done = collect([path], NAME, course, SETTINGS, ROSTER)
    assert handed_in(course) == {} and "unpacks to more than" in done.refused[0]
    nested = pack(tmp_path / "n.zip", ("deep.zip", inner)).read_bytes()
    done = collect([pack(tmp_path / "s.zip", ("a_11_1_x.zip", nested))], NAME, course, SETTINGS, ROSTER)
    assert "it holds no notebook" in done.refused[0]


def test_names_that_a_spreadsheet_would_run_are_text(tmp_path: Path, course: Path) -> None:
    path = pack(tmp_path / "m.zip", ("=cmd()_901_assignsubmission_file_/a1.ipynb", b"a"))
    collect([path], NAME, course)
    assert ",'=cmd()," in collected_table(course, NAME).read_text()
