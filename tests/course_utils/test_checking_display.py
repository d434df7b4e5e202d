"""The table of a check: every text escaped, every verdict in words, a picture for matrices."""

from __future__ import annotations

import html.parser
import io
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console

from course_utils.checking import CriterionResult, Exercise, ExerciseResult, Unmet
from course_utils.checking.display import MAX_CELLS, CheckReport, exercise_html, headline, picture, untouched
from course_utils.checking.terminal import results_table
from course_utils.checking.unmet import Comparison

EVIL = "<script>alert('x')</script> & \"quotes\" <img src=x onerror=alert(1)>"


def result(*unmet: Unmet | None, remarks: tuple[str, ...] = (), title: str = "What is asked.") -> ExerciseResult:
    exercise = Exercise("double")
    for k in range(len(unmet)):

        def condition(student: Any, draw: Any) -> None: ...

        condition.__doc__ = title
        exercise.criterion(points=1.5, name=f"criterion_{k}")(condition)
    results = [CriterionResult(c, u, list(remarks)) for c, u in zip(exercise.criteria, unmet, strict=True)]
    return ExerciseResult(exercise, results)


class Tags(html.parser.HTMLParser):
    """Collects the tags and the event handlers of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.depth: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("br", "img", "rect"):
            self.depth.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.depth.pop() == tag


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.depth == []
    return tags


def test_every_text_is_escaped() -> None:
    unmet = Unmet(EVIL, causes=[EVIL], comparison=Comparison(torch.ones(2, 2), torch.zeros(2, 2), (0, 0)))
    page = exercise_html(result(unmet, remarks=(EVIL,), title=EVIL))
    tags = read(page)
    assert "script" not in tags.tags and "img" not in tags.tags and "onerror" not in tags.attributes
    assert page.count("&lt;script&gt;alert") == 4


def test_a_report_shows_itself_as_html_and_as_text() -> None:
    report = CheckReport([result(None, Unmet("It is wrong.", causes=["The sign is flipped."]), remarks=("careful",))])
    page, text = report._repr_html_(), repr(report)
    for shown in (page, text):
        assert "double: 1 of 2 criteria are met." in shown
        assert "1.5 of 3 points" in shown
        assert "It is wrong." in shown and "The sign is flipped." in shown and "careful" in shown
    read(page)


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        ((None, None), "all 2 criteria are met"),
        (("nothing written", "withheld"), "nothing is written yet"),
        (("not defined",), "is not defined yet"),
        ((None, "value"), "1 of 2 criteria are met"),
        ((None, "nothing written"), "1 of 2 criteria are met"),
    ],
)
def test_headline(kinds: tuple[str | None, ...], says: str) -> None:
    assert says in headline(result(*(Unmet("x", k) if k else None for k in kinds)))


def test_a_missing_return_is_not_called_an_empty_exercise() -> None:
    """All that is seen of it in a table of all exercises, where each has one line, is the headline."""
    missing = result(Unmet("The result is None.", "nothing written", ["It ends without `return`."]))
    assert "the result is None" in headline(missing) and not untouched(missing)
    assert untouched(result(Unmet("x", "nothing written"), Unmet("x", "withheld"))) and not untouched(result(None))


def test_a_warning_is_shown_once_and_without_pytorchs_source() -> None:
    warned = result(None, None, remarks=("UserWarning: careful (Triggered internally at /a/b.cpp:7.)", "again"))
    table = io.StringIO()
    Console(file=table, width=200).print(results_table([warned], brief=False))
    for shown in (exercise_html(warned), repr(CheckReport([warned])), table.getvalue()):
        assert shown.count("careful") == shown.count("again") == 1 and "Triggered" not in shown


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("value", "not met"),
        ("exception", "raised"),
        ("time", "too slow"),
        ("crash", "crashed"),
        ("forbidden", "not allowed"),
        ("nothing written", "to do"),
        ("withheld", "waits"),
        ("fault", "not judged"),
    ],
)
def test_every_kind_of_verdict_has_its_words(kind: str, says: str) -> None:
    shown = result(Unmet("x", kind))
    assert says in exercise_html(shown) and says in repr(CheckReport([shown]))


def svg(comparison: Comparison) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{picture(comparison)}</div>")


def test_the_picture_shows_expected_got_and_difference_with_their_values() -> None:
    expected = torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=torch.float64)
    got = expected.clone()
    got[1, 0] = -3.0
    drawing = svg(Comparison(expected, got, (1, 0)))
    titles = [t.text for t in drawing.iter("title")]
    assert len(titles) == 3 * 4
    assert {"[1, 0]: 0.5", "[1, 0]: -3", "[1, 0]: -3.5"} <= set(titles)
    fills = [r.get("fill") for r in drawing.iter("rect")]
    assert fills.count("none") == 3  # a frame around the worst entry of each panel
    words = " ".join(drawing.itertext())
    assert "expected" in words and "yours" in words and "difference" in words


def test_a_large_matrix_is_cut_out_around_the_worst_entry() -> None:
    expected = torch.zeros(100, 90, dtype=torch.float64)
    got = expected.clone()
    got[97, 3] = 1.0
    drawing = svg(Comparison(expected, got, (97, 3)))
    assert len(list(drawing.iter("title"))) == 3 * MAX_CELLS**2
    assert any((t.text or "").startswith("[97, 3]: 1") for t in drawing.iter("title"))
    words = " ".join(drawing.itertext())
    assert "rows 84 to 99 of 100, columns 0 to 15 of 90" in words


def test_what_is_not_finite_is_black() -> None:
    expected = torch.ones(2, 2, dtype=torch.float64)
    got = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]], dtype=torch.float64)
    fills = [r.get("fill") for r in svg(Comparison(expected, got, (0, 0))).iter("rect")]
    assert fills.count("#000") == 4  # in "yours" and in the difference


def test_a_vector_is_one_row_and_a_single_number_has_no_picture() -> None:
    vector = torch.arange(4.0, dtype=torch.float64)
    assert len(list(svg(Comparison(vector, vector + 1, (2,))).iter("title"))) == 12
    assert picture(Comparison(torch.ones(()), torch.zeros(()), ())) == ""
    assert picture(Comparison(torch.ones(2, 2, 2), torch.zeros(2, 2, 2), (0, 0, 0))) == ""


def test_what_an_earlier_criterion_has_said_word_for_word_is_not_said_again() -> None:
    raised = [Unmet("double raised TypeError: no.", "exception") for _ in range(3)]
    one = result(*raised, Unmet("Too large."), Unmet("Too large."))
    for shown in (exercise_html(one), repr(CheckReport([one]))):
        assert shown.count("double raised TypeError") == 1
        assert shown.count("The same as above.") == 2
        assert shown.count("Too large.") == 2


def test_advice_stands_above_the_criteria() -> None:
    one = result(Unmet("Too large."))
    one.advice = f"Repair halve first. {EVIL}"
    assert repr(CheckReport([one])).splitlines()[1].strip().startswith("Repair halve first.")
    assert "Repair halve first. &lt;script&gt;" in exercise_html(one)
