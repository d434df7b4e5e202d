"""Tables as CSV that spreadsheet programs open without running anything in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

ACTS = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins a formula


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV.

    Parameters
    ----------
    header : sequence of str
        The columns' names.
    rows : iterable of sequences
        One value a column; None is left empty.  Text that a spreadsheet would take for a formula gets an apostrophe in
        front, for it may be a student's; numbers stay as they are.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(value) for value in row] for row in rows)
    return stream.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.10g}"
    return f"'{value}" if isinstance(value, str) and value.startswith(ACTS) else value
