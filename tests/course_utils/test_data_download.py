"""Downloading from mirrors that work, break off, lie, are missing, slow or silent."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from local_mirror import Mirror, serving

from course_utils.data import DownloadError
from course_utils.data import download as module  # the module, for its limits
from course_utils.data.download import download, reachable

CONTENT = np.random.default_rng(1).bytes(100_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
CHECKS = {"size": len(CONTENT), "md5": MD5, "sha256": SHA256, "progress": False}


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "archive"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def test_a_good_mirror_delivers_and_nothing_else_is_left(mirror: Mirror, target: Path) -> None:
    url = mirror.serve("/good", CONTENT)
    assert download([url], target, **CHECKS) == url
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["archive"]


def test_the_next_mirror_is_tried_when_one_has_no_such_file(mirror: Mirror, target: Path) -> None:
    good = mirror.serve("/good", CONTENT)
    assert download([mirror.address + "/missing", good], target, **CHECKS) == good
    assert target.read_bytes() == CONTENT


def test_a_connection_that_breaks_off_is_resumed(mirror: Mirror, target: Path) -> None:
    url = mirror.serve("/breaks", CONTENT, breaks_after=[30_000, 20_000])
    download([url], target, **CHECKS)
    assert target.read_bytes() == CONTENT
    assert mirror.downloads("/breaks") == ["", "bytes=30000-", "bytes=50000-"]


def test_a_second_run_resumes_where_the_first_was_killed(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:60_000])
    url = mirror.serve("/good", CONTENT)
    download([url], target, **CHECKS)
    assert target.read_bytes() == CONTENT
    assert mirror.downloads("/good") == ["bytes=60000-"]


def test_another_mirror_continues_where_one_stopped_for_good(mirror: Mirror, target: Path) -> None:
    breaking = mirror.serve("/breaks", CONTENT, breaks_after=[40_000, 0, 0])
    good = mirror.serve("/good", CONTENT)
    assert download([breaking, good], target, **CHECKS) == good
    assert target.read_bytes() == CONTENT
    assert mirror.downloads("/good") == ["bytes=40000-"]


def test_a_mirror_that_cannot_serve_pieces_starts_again(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:60_000])
    download([mirror.serve("/whole", CONTENT, ranges=False)], target, **CHECKS)
    assert target.read_bytes() == CONTENT
    assert mirror.downloads("/whole") == ["bytes=60000-"]  # the answer was taken as the whole file, not thrown away


def test_a_wrong_beginning_is_thrown_away_and_the_same_mirror_gets_a_fair_start(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * 60_000)
    download([mirror.serve("/good", CONTENT)], target, **CHECKS)
    assert target.read_bytes() == CONTENT
    assert mirror.downloads("/good") == ["bytes=60000-", ""]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_as_long_as_the_file_or_longer_is_not_believed(
    mirror: Mirror, target: Path, length: int
) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * length)
    download([mirror.serve("/good", CONTENT)], target, **CHECKS)
    assert target.read_bytes() == CONTENT


def test_a_part_beyond_the_end_of_a_file_of_unknown_size_is_thrown_away(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * (len(CONTENT) + 5))
    download([mirror.serve("/good", CONTENT)], target, sha256=SHA256, progress=False)
    assert target.read_bytes() == CONTENT


def test_a_complete_part_needs_no_network(target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    download(["http://127.0.0.1:9/nobody"], target, **CHECKS)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("checks", [{"md5": MD5}, {"sha256": SHA256}, {"size": len(CONTENT), "md5": MD5}])
def test_a_corrupt_file_never_gets_the_name(mirror: Mirror, target: Path, checks: dict) -> None:
    corrupt = mirror.serve("/corrupt", CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(DownloadError, match=r"/corrupt delivered a file with another .* checksum"):
        download([corrupt], target, progress=False, **checks)
    assert not target.exists() and not part_of(target).exists()


def test_a_file_of_the_wrong_size_is_refused(mirror: Mirror, target: Path) -> None:
    short = mirror.serve("/short", CONTENT[:70_000])
    with pytest.raises(DownloadError, match="delivered 70,000 bytes instead of 100,000"):
        download([short], target, **CHECKS)


def test_the_error_says_what_each_mirror_did_and_that_it_will_resume(mirror: Mirror, target: Path) -> None:
    breaking = mirror.serve("/breaks", CONTENT, breaks_after=[40_000, 0, 0])
    with pytest.raises(DownloadError) as caught:
        download([breaking, mirror.address + "/missing"], target, **CHECKS)
    message = str(caught.value)
    assert "/breaks broke off after 40,000 of 100,000 bytes" in message
    assert "/missing answered 404 Not Found" in message
    assert "run the same again and it resumes" in message
    assert part_of(target).stat().st_size == 40_000
    download([mirror.serve("/breaks", CONTENT)], target, **CHECKS)
    assert target.read_bytes() == CONTENT


def test_a_file_without_checksum_is_never_pieced_together(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(b"old edition")
    url = mirror.serve("/text", b"*** START\nwords\n*** END\n", announce_length=False)
    download([url], target, markers=["*** START", "*** END"], progress=False)
    assert target.read_bytes() == b"*** START\nwords\n*** END\n"
    assert mirror.downloads("/text") == [""]


def test_a_text_without_its_last_marker_is_refused(mirror: Mirror, target: Path) -> None:
    url = mirror.serve("/text", b"*** START\nwor", announce_length=False)
    with pytest.raises(DownloadError, match=r"without the line '\*\*\* END'"):
        download([url], target, markers=["*** START", "*** END"], progress=False)
    assert not target.exists()


def test_a_slow_mirror_gives_way_but_the_last_one_may_be_slow(
    mirror: Mirror, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(module, "SLOW_BYTES_PER_SECOND", 1_000_000)
    slow = mirror.serve("/slow", CONTENT, pause=0.01)
    good = mirror.serve("/good", CONTENT)
    assert download([slow, good], target, **CHECKS) == good
    assert mirror.downloads("/good")[0].startswith("bytes=")
    target.unlink()
    assert download([mirror.serve("/slow", CONTENT, pause=0.002)], target, **CHECKS).endswith("/slow")
    assert target.read_bytes() == CONTENT


def test_a_silent_mirror_is_given_up(mirror: Mirror, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.2)
    silent = mirror.serve("/silent", CONTENT, silent=2.0)
    good = mirror.serve("/good", CONTENT)
    begin = time.monotonic()
    assert download([silent, good], target, **CHECKS) == good
    assert time.monotonic() - begin < 1.5


def test_reachable_keeps_the_order_and_leaves_out_what_does_not_answer(mirror: Mirror) -> None:
    first = mirror.serve("/first", CONTENT)
    refuses_the_question = mirror.serve("/get only", CONTENT, status=405).replace(" ", "%20")
    mirror.pages["/get%20only"] = mirror.pages["/get only"]
    silent = mirror.serve("/silent", CONTENT, silent=3.0)
    broken = mirror.serve("/broken", status=500)
    urls = [silent, refuses_the_question, mirror.address + "/missing", "http://127.0.0.1:9/", broken, first, "nonsense"]
    begin = time.monotonic()
    assert reachable(urls, 0.5) == [refuses_the_question, first]
    assert time.monotonic() - begin < 1.5


def test_the_progress_bar_counts_bytes(mirror: Mirror, target: Path, capsys: pytest.CaptureFixture) -> None:
    download([mirror.serve("/good", CONTENT)], target, **{**CHECKS, "progress": True})
    shown = capsys.readouterr().err
    assert "archive" in shown and "100k/100k" in shown
