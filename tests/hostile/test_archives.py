"""What is handed in: links, devices, pipes, names that lead elsewhere, and archives that are bombs.

`tests/autograder/test_collect.py` has each kind of refusal by itself; here they come all at once, with an honest one.
"""

from __future__ import annotations

import os
import socket
import stat
import zipfile
from pathlib import Path

import pytest
from classroom import CANARIES, NAME, notebook

from autograder import uploads as module
from autograder.collect import collect
from autograder.grade import submissions_of
from autograder.submission import read_notebook

HONEST = notebook(["x = 1"])


def member(name: str, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    """A member of an archive that says that it is of some kind."""
    info = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
    info.external_attr = (kind | 0o777) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


HOSTILE = [
    member("../evil.ipynb"),
    member("anna/../../evil.ipynb"),
    member("/etc/evil.ipynb"),
    member("C:\\evil.ipynb"),
    member("..\\..\\evil.ipynb"),
    member("evil.ipynb", stat.S_IFLNK),
    member("evil.ipynb", stat.S_IFCHR),
    member("evil.ipynb", stat.S_IFBLK),
    member("evil.ipynb", stat.S_IFIFO),
    member("evil.ipynb", stat.S_IFSOCK),
    member("-rf.ipynb"),
    member("\x1b[2Jevil/evil.ipynb"),
    member("$(reboot)/evil.ipynb"),
    member(".evil/evil.ipynb"),
    member("evil\u202e/evil.ipynb"),
    member("a" * 300 + "/evil.ipynb"),
]


def test_an_archive_of_attacks_gives_the_honest_notebook_only(tmp_path: Path) -> None:
    course = tmp_path / "course"
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for info in HOSTILE:
            archive.writestr(info, b"/etc/passwd")
        archive.writestr(member("anna.ipynb"), HONEST)
    done = collect([tmp_path / "all.zip"], NAME, course)
    assert done.students == ["anna"] and len(done.refused) == len(HOSTILE)
    assert all(line.isprintable() for line in done.refused)
    files = [p for p in course.rglob("*") if not p.is_dir()]
    assert {p.name for p in files} == {f"{NAME}.ipynb", "timestamp.txt", f"{NAME}.csv"} and len(files) == 3


def test_a_folder_of_attacks_gives_the_honest_notebook_only(tmp_path: Path) -> None:
    course, secret, inside = tmp_path / "course", tmp_path / "secret.txt", tmp_path / "in"
    secret.write_text(CANARIES["a file under /tmp"])
    inside.mkdir()
    (inside / "anna.ipynb").write_bytes(HONEST)
    (inside / "link.ipynb").symlink_to(secret)
    (inside / "loop.ipynb").symlink_to("loop.ipynb")
    (inside / "zero.ipynb").symlink_to("/dev/zero")
    (inside / "ben").symlink_to(tmp_path, target_is_directory=True)
    (inside / "cleo").mkdir()
    (inside / "cleo" / "up").symlink_to(inside, target_is_directory=True)
    os.mkfifo(inside / "pipe.ipynb")
    (inside / "folder.ipynb").mkdir()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(inside / "s.ipynb"))
    Path(os.fsdecode(os.fsencode(inside) + b"/\xff\x1b[2J.ipynb")).write_bytes(b"{}")
    done = collect([inside], NAME, course)
    assert done.students == ["anna"]
    assert len(done.refused) >= 6 and all(line.isprintable() for line in done.refused)
    "\n".join(done.refused).encode()  # no halves of characters, which no terminal can show
    for path in course.rglob("*.ipynb"):
        assert CANARIES["a file under /tmp"] not in path.read_text()


def test_bombs_are_refused_by_what_they_unpack_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member("bomb.ipynb"), bytes(50 << 20))
        archive.writestr(member("anna.ipynb"), HONEST)
    done = collect([tmp_path / "bomb.zip"], NAME, tmp_path / "course")
    assert done.students == ["anna"] and "larger than 1 MiB" in done.refused[0]


def test_many_small_bombs_are_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is small enough; all of them would fill the memory."""
    monkeypatch.setattr(module, "MAX_UNPACKED", 4 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member("anna.ipynb"), HONEST)
        for k in range(50):
            archive.writestr(member(f"bomb{k}.ipynb"), bytes(1 << 20))
    done = collect([tmp_path / "bomb.zip"], NAME, tmp_path / "course")
    assert "anna" in done.students and len(done.students) < 10
    assert "unpacks to more than" in done.refused[-1]


def test_a_submission_that_is_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    course, secret = tmp_path / "course", tmp_path / "secret.txt"
    secret.write_text(CANARIES["a file under /tmp"])
    for student in ("link", "pipe", "loop", "folder", "hard"):
        (course / "submitted" / student / NAME).mkdir(parents=True)
    name = f"{NAME}.ipynb"
    (course / "submitted" / "link" / NAME / name).symlink_to(secret)
    os.mkfifo(course / "submitted" / "pipe" / NAME / name)
    (course / "submitted" / "loop" / NAME / name).symlink_to(name)
    (course / "submitted" / "folder" / NAME / name).mkdir()
    os.link(secret, course / "submitted" / "hard" / NAME / name)
    (course / "submitted" / "away").symlink_to(tmp_path, target_is_directory=True)
    found = submissions_of(course, NAME)
    assert "away" not in found
    for student, path in found.items():
        submission = read_notebook(path, ("double",))
        assert submission.cells == [] and len(submission.oddities) == 1, student
        assert CANARIES["a file under /tmp"] not in submission.oddities[0]
