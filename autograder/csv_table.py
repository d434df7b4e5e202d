"""Tables as CSV that spreadsheet programs open without running anything in them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

# With which a spreadsheet begins a formula, some also in their full width; it may read a separator of its own country's
# in a text, and see a cell begin after it.
_ACTS = re.compile(r"^(?=[\t\r\n])|(?:^|(?<=[;|\t\r\n]))(?=[=+\-@＝＋－＠])")


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
    return _ACTS.sub("'", value) if isinstance(value, str) else value
