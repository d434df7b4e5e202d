"""A submission's receipt: what it states, and how each change to it or to the files is told."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime, timedelta, timezone

import pytest

from course_utils.receipt import MAX_RECEIPT, RECEIPT, Receipt, ReceiptError, make_receipt, pack, read_receipt, verify

FILES = {"a1.ipynb": b'{"cells": []}', "figures/loss.png": b"\x89PNG"}
TIME = datetime(2026, 11, 20, 22, 4, 10, 123, timezone(timedelta(hours=1)))


def receipt() -> Receipt:
    return make_receipt("a1", "anna", FILES, TIME)


def test_what_is_packed_is_read_and_holds() -> None:
    archive = zipfile.ZipFile(io.BytesIO(pack(receipt(), FILES)))
    assert archive.namelist() == [RECEIPT, "a1.ipynb", "figures/loss.png"]
    read = read_receipt(archive.read(RECEIPT))
    assert read == receipt() and read.student == "anna" and read.time == TIME.replace(microsecond=0)
    assert verify(read, {n: archive.read(n) for n in archive.namelist() if n != RECEIPT}) == []
    assert pack(receipt(), FILES) == pack(receipt(), FILES)


def test_the_time_is_now_with_its_zone_when_none_is_given() -> None:
    made = make_receipt("a1", "anna", FILES)
    assert abs(datetime.now(UTC) - made.time) < timedelta(seconds=10)
    with pytest.raises(ReceiptError, match="needs a time zone"):
        make_receipt("a1", "anna", FILES, datetime(2026, 11, 20))


@pytest.mark.parametrize("key", ["assignment", "student", "time"])
def test_a_receipt_that_was_changed_is_told(key: str) -> None:
    stated = json.loads(receipt().to_json())
    stated[key] = "2026-11-20T20:00:00+01:00" if key == "time" else "b"
    assert verify(read_receipt(json.dumps(stated).encode()), FILES) == [
        "The receipt was changed after it was made: its digest is not that of what it states."
    ]


def test_files_that_are_missing_exchanged_or_added_are_told() -> None:
    exchanged = verify(receipt(), {**FILES, "a1.ipynb": b"other"})
    assert len(exchanged) == 1 and "a1.ipynb is not the one that was handed in" in exchanged[0]
    assert verify(receipt(), {"a1.ipynb": FILES["a1.ipynb"]}) == [
        "The file figures/loss.png is missing; the receipt lists it."
    ]
    assert verify(receipt(), {**FILES, "x.txt": b""}) == ["The file x.txt is not on the receipt."]
    with pytest.raises(ReceiptError, match="is missing"):
        pack(receipt(), {"a1.ipynb": FILES["a1.ipynb"]})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no JSON", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 50_000, "not valid JSON"),
        (b"[]", "not one of format 1"),
        (b'{"format": 2}', "not one of format 1"),
        (b'{"format": 1, "student": "anna"}', "does not state its assignment, time, digest"),
        (b" " * (MAX_RECEIPT + 1), "more than"),
    ],
)
def test_what_is_no_receipt_is_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(ReceiptError, match=says):
        read_receipt(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"files": {}}, "does not state its files"),
        ({"files": {"a1.ipynb": "abc"}}, "something else than a SHA-256"),
        ({"files": {"../a1.ipynb": "0" * 64}}, r"cannot hold a file named \.\./a1"),
        ({"time": "yesterday"}, "no time"),
        ({"time": "2026-11-20T20:00:00"}, "no time zone"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "no time"),
        ({"student": ""}, "student's name is empty"),
        ({"student": "a\x1b[31m"}, "not printable"),
        ({"assignment": "a" * 201}, "assignment's name is empty, longer"),
    ],
)
def test_a_receipt_that_states_nonsense_is_one_sentence(change: dict[str, object], says: str) -> None:
    with pytest.raises(ReceiptError, match=says):
        read_receipt(json.dumps(json.loads(receipt().to_json()) | change).encode())


@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../b", "a\\b", RECEIPT, " "])
def test_names_that_lead_out_are_refused_when_it_is_made(name: str) -> None:
    with pytest.raises(ReceiptError):
        make_receipt("a1", "anna", {name: b""})


def test_the_code_to_quote_is_short_and_of_this_receipt() -> None:
    assert receipt().code == f"{receipt().digest[:4]}-{receipt().digest[4:8]}-{receipt().digest[8:12]}"
    assert make_receipt("a1", "ben", FILES, TIME).code != receipt().code
