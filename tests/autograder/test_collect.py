"""Collecting what students handed in: notebooks, folders and zip files, honest ones and others."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from autograder import uploads as module
from autograder.collect import Collected, collect
from autograder.errors import CourseError

NAME = "tiny_doubling"


@pytest.fixture
def course(tmp_path: Path) -> Path:
    folder = tmp_path / "course"
    folder.mkdir()
    return folder


def handed_in(course: Path) -> dict[str, bytes]:
    """What lies in submitted/, by student."""
    return {p.parts[-3]: p.read_bytes() for p in sorted(course.glob(f"submitted/*/{NAME}/{NAME}.ipynb"))}


def stamp(course: Path, student: str) -> str:
    return (course / "submitted" / student / NAME / "timestamp.txt").read_text()


def put(path: Path, data: bytes = b"{}", when: int = 1_700_000_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (when, when))
    return path


def pack(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_a_notebook_is_named_after_its_student(tmp_path: Path, course: Path) -> None:
    done = collect([put(tmp_path / "anna.ipynb", b"1")], NAME, course)
    assert done == Collected(["anna"], [], []) and handed_in(course) == {"anna": b"1"}
    assert stamp(course, "anna") == "2023-11-14 22:13:20 UTC"


def test_folders_are_named_after_students(tmp_path: Path, course: Path) -> None:
    put(tmp_path / "in" / "anna" / "whatever.ipynb", b"a")
    put(tmp_path / "in" / "submitted" / "ben" / NAME / f"{NAME}.ipynb", b"b")
    put(tmp_path / "in" / "cleo.ipynb", b"c")
    put(tmp_path / "in" / "anna" / ".ipynb_checkpoints" / "whatever.ipynb", b"old")
    put(tmp_path / "in" / "anna" / "notes.txt", b"x")
    done = collect([tmp_path / "in"], NAME, course)
    assert done.refused == [] and handed_in(course) == {"anna": b"a", "ben": b"b", "cleo": b"c"}


def test_again_is_unchanged_and_a_new_version_replaces(tmp_path: Path, course: Path) -> None:
    path = put(tmp_path / "anna.ipynb", b"1")
    collect([path], NAME, course)
    assert collect([path], NAME, course) == Collected([], ["anna"], [])
    assert collect([put(path, b"2")], NAME, course).students == ["anna"] and handed_in(course) == {"anna": b"2"}


def test_of_several_the_latest_counts_and_it_is_said(tmp_path: Path, course: Path) -> None:
    late = put(tmp_path / "late" / "anna.ipynb", b"late", 2_000)
    early = put(tmp_path / "early" / "anna.ipynb", b"early", 1_000)
    for order in ([late, early], [early, late]):
        done = collect(order, NAME, course)
        assert handed_in(course) == {"anna": b"late"}
        assert done.refused == [] and len(done.superseded) == 1
        assert str(early) in done.superseded[0] and "later" in done.superseded[0]


def test_a_zip_file_is_read_with_its_dates(tmp_path: Path, course: Path) -> None:
    info = zipfile.ZipInfo("ben/work.ipynb", (2024, 2, 29, 12, 30, 0))
    done = collect([pack(tmp_path / "all.zip", ("anna.ipynb", b"a"), (info, b"b"), ("readme.txt", b""))], NAME, course)
    assert done.refused == [] and handed_in(course) == {"anna": b"a", "ben": b"b"}
    assert stamp(course, "ben") == "2024-02-29 12:30:00 UTC"


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("../evil.ipynb", "leads out"),
        ("anna/../../evil.ipynb", "leads out"),
        ("/etc/evil.ipynb", "leads out"),
        ("..\\evil.ipynb", "leads out"),
        (link("evil.ipynb"), "not an ordinary file"),
        ("-evil.ipynb", "neither its name nor its folder"),
        ("a b/evil.ipynb", "neither its name nor its folder"),
        (".ipynb/evil.ipynb", "neither its name nor its folder"),
        ("\x1b[31mred/evil.ipynb", "neither its name nor its folder"),
        (f"{NAME}.ipynb", "neither its name nor its folder"),
    ],
)
def test_a_hostile_member_is_refused_and_the_others_are_not(
    tmp_path: Path, course: Path, member: str | zipfile.ZipInfo, says: str
) -> None:
    done = collect([pack(tmp_path / "all.zip", (member, b"evil"), ("anna.ipynb", b"a"))], NAME, course)
    assert handed_in(course) == {"anna": b"a"} and done.students == ["anna"]
    assert len(done.refused) == 1 and says in done.refused[0] and done.refused[0].isprintable()
    assert not list(tmp_path.rglob("evil*"))


def test_a_bomb_is_refused_by_what_it_unpacks_to(tmp_path: Path, course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    done = collect([pack(tmp_path / "all.zip", ("ben.ipynb", bytes(2 << 20)), ("anna.ipynb", b"a"))], NAME, course)
    assert handed_in(course) == {"anna": b"a"} and "larger than 1 MiB" in done.refused[0]
    monkeypatch.setattr(module, "MAX_MEMBERS", 1)
    assert "2 members" in collect([tmp_path / "all.zip"], NAME, course).refused[0]


def test_a_broken_member_is_refused_and_the_others_are_not(tmp_path: Path, course: Path) -> None:
    noise = os.urandom(2000)
    path = pack(tmp_path / "all.zip", ("ben.ipynb", noise), ("anna.ipynb", b"a"), ("cleo.ipynb", b"c"))
    data = bytearray(path.read_bytes())
    start = data.index(noise[:50])
    data[start : start + 60] = bytes(60)
    path.write_bytes(data)
    done = collect([path], NAME, course)
    assert handed_in(course) == {"anna": b"a", "cleo": b"c"}
    assert len(done.refused) == 1 and "ben.ipynb: cannot be unpacked" in done.refused[0]


def test_a_member_without_a_date_is_taken(tmp_path: Path, course: Path) -> None:
    path = pack(tmp_path / "all.zip", (zipfile.ZipInfo("anna.ipynb", (1980, 1, 1, 0, 0, 0)), b"a"))
    data = path.read_bytes().replace(b"\x00\x00\x21\x00", b"\x00\x00\x00\x00")  # month 0, day 0
    path.write_bytes(data)
    assert zipfile.ZipFile(path).infolist()[0].date_time[1] == 0
    assert collect([path], NAME, course).students == ["anna"] and stamp(course, "anna").startswith("1980")


def test_an_encrypted_member_is_refused(tmp_path: Path, course: Path) -> None:
    path = pack(tmp_path / "all.zip", ("anna.ipynb", b"a"))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    assert "encrypted" in collect([path], NAME, course).refused[0]


def test_links_pipes_and_folders_named_as_notebooks_are_refused(tmp_path: Path, course: Path) -> None:
    secret = put(tmp_path / "secret.txt", b"secret")
    inside = tmp_path / "in"
    put(inside / "anna.ipynb", b"a")
    (inside / "ben.ipynb").symlink_to(secret)
    (inside / "cleo").symlink_to(tmp_path, target_is_directory=True)
    (inside / "dan.ipynb").mkdir()
    os.mkfifo(inside / "eva.ipynb")
    done = collect([inside], NAME, course)
    assert handed_in(course) == {"anna": b"a"}
    assert sorted(Path(r.split(":")[0]).name for r in done.refused) == ["ben.ipynb", "dan.ipynb", "eva.ipynb"]


def test_what_is_neither_is_one_sentence(tmp_path: Path, course: Path) -> None:
    with pytest.raises(CourseError, match="There is no"):
        collect([tmp_path / "nothing.ipynb"], NAME, course)
    with pytest.raises(CourseError, match="neither a notebook nor a folder nor a zip file"):
        collect([put(tmp_path / "notes.txt")], NAME, course)
