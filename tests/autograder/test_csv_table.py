"""Tables that a spreadsheet opens, with texts that a student chose."""

from __future__ import annotations

import csv
import io

import pytest

from autograder.csv_table import csv_table


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+1", "'+1"),
        ("-1+cmd|' /C calc'!A1", "'-1+cmd|' /C calc'!A1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("＝1", "'＝1"),
        ("a;=1", "a;'=1"),  # where a semicolon separates, as in much of Europe
        ("a\n=1", "a\n'=1"),
        ("expected 0.5, got -0.5; a = b", "expected 0.5, got -0.5; a = b"),
        ("Åsa Öberg-Lund", "Åsa Öberg-Lund"),
        ("", ""),
    ],
)
def test_no_text_becomes_a_formula(text: str, written: str) -> None:
    table = csv_table(["student", "text"], [["anna", text]])
    assert list(csv.reader(io.StringIO(table, newline="")))[1] == ["anna", written]


def test_numbers_stay_numbers() -> None:
    assert csv_table(["a", "b", "c"], [[-1.5, -2, None]]) == "a,b,c\n-1.5,-2,\n"
