"""A round of peer review by its commands: packets, forms that come back, and the term."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tiny_assignment import NAME
from typer.testing import CliRunner, Result

from autograder.assignment import load_assignment
from autograder.cli import app
from autograder.course import create_course
from autograder.peer_form import QUESTIONS, empty_form, read_form
from autograder.peer_packets import anonymous_report
from autograder.peer_round import HandedReview, Round, read_round, round_folder
from autograder.peer_term import standings
from autograder.roster import Person

PEOPLE = ["anna", "berta", "carl", "dora", "emil", "frida", "georg"]


def notebook(author: str) -> bytes:
    """A notebook that says its author's name in several places, and more than a report may show."""
    script = new_output("display_data", data={"text/html": "<script>alert(1)</script>", "text/plain": "plain result"})
    said = new_output("stream", text=f"made by {author.title()} Berg <{author}@kth.se>\n")
    answer = f"Because two is more than one, says {author}. <img src=x onerror=alert(1)> [x](javascript:alert(1))"
    cells = [
        new_markdown_cell("# Tiny: doubling", metadata={"course": {"role": "text", "name": "tiny"}}),
        new_code_cell("def double(x): return secret_code", metadata={"course": {"role": "exercise", "name": "double"}}),
        new_code_cell("plot()", outputs=[said, script], metadata={"course": {"role": "experiment", "name": "growth"}}),
        new_markdown_cell(answer, metadata={"course": {"role": "written", "name": "why_double"}}),
    ]
    return nbformat.writes(new_notebook(cells=cells)).encode()


def hand_in(course: Path, *authors: str) -> None:
    for author in authors:
        path = course / "submitted" / author / NAME / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(notebook(author))


@pytest.fixture(scope="module")
def made_course(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course folder; making one takes seconds, so tests take copies."""
    return create_course(tmp_path_factory.mktemp("made") / "course", [load_assignment(NAME, tiny_root)]).folder


@pytest.fixture
def course(made_course: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made_course, tmp_path / "course")
    roster = "student,name,email\n" + "".join(f"{p},{p.title()} Berg,{p}@kth.se\n" for p in PEOPLE)
    (tmp_path / "course" / "roster.csv").write_text(roster)
    config = tmp_path / "course" / "nbgrader_config.py"
    config.write_text(config.read_text().replace(str(made_course), str(tmp_path / "course")))
    monkeypatch.chdir(tiny_root)
    return tmp_path / "course"


def peer(course: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["peer", *arguments, "--course", str(course)])


def assigned(course: Path) -> Round:
    made = read_round(course, NAME)
    assert made is not None
    return made


def filled_form(course: Path, reviewer: str, score: int = 4, comment: str = "Well done.") -> str:
    text = (round_folder(course, NAME) / "packets" / reviewer / "review.toml").read_text()
    return text.replace(" = 0 ", f" = {score} ").replace("'''\n\n'''", f"'''\n{comment}\n'''")


def table(course: Path, name: str) -> list[dict[str, str]]:
    with (round_folder(course, NAME) / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_packets_hold_anonymous_reports_and_a_form(course: Path) -> None:
    hand_in(course, *PEOPLE)
    done = peer(course, "assign", "tiny", "--reviews", "4")
    assert done.exit_code == 0, done.output
    assert "7 reviewers, 4 to 4 for each report" in done.output and "7 packets" in done.output
    for reviewer in PEOPLE:
        folder = round_folder(course, NAME) / "packets" / reviewer
        reports = sorted(folder.glob("report_*.html"))
        assert len(reports) == 4 and len(list(folder.iterdir())) == 5
        for report in reports:
            text = report.read_text()
            assert "plain result" in text and "Because two is more than one, says [author]" in text
            assert "secret_code" not in text
            body = text[text.index("</head>") :]
            for person in PEOPLE:
                assert not re.search(person, body, re.I), (person, report)
            assert "<script" not in body and "<img src=x" not in body and 'href="javascript' not in body
            assert "default-src 'none'" in text
        form = (folder / "review.toml").read_text()
        assert all(report.name in form for report in reports)
        assert not any(person in form for person in PEOPLE)


@pytest.mark.parametrize(("written", "known"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_a_name_is_hidden_however_its_letters_are_composed(
    tmp_path: Path, written: Literal["NFC", "NFD"], known: Literal["NFC", "NFD"]
) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text(normalize(written, notebook("åsa").decode()))
    report = anonymous_report(path, "Tiny", "C", Person("s1", normalize(known, "Åsa Öberg")))
    assert "made by [author] Berg" in report and "Åsa" not in normalize("NFC", report)


def test_the_same_again_changes_nothing_and_a_changed_notebook_changes_no_packet(course: Path) -> None:
    hand_in(course, *PEOPLE)
    peer(course, "assign", "tiny")
    packets = round_folder(course, NAME) / "packets"
    before = {p: p.read_bytes() for p in packets.rglob("*") if p.is_file()}
    (course / "submitted" / "anna" / NAME / f"{NAME}.ipynb").write_bytes(notebook("anna").replace(b"plain", b"other"))
    again = peer(course, "assign", "tiny", "--seed", "another", "--reviews", "2", "--days", "30")
    assert again.exit_code == 0 and " 0 packets new or changed" in again.output
    assert {p: p.read_bytes() for p in packets.rglob("*") if p.is_file()} == before


def test_late_ones_and_drop_outs(course: Path) -> None:
    hand_in(course, *PEOPLE[:6])
    peer(course, "assign", "tiny")
    first = assigned(course).pairs
    hand_in(course, "georg")
    done = peer(course, "assign", "tiny", "--without", "anna")
    assert done.exit_code == 0, done.output
    assert "Late, added: georg" in done.output and "Taken out: anna" in done.output
    made = assigned(course)
    assert made.pairs["anna"] == [] and made.dropped == ["anna"] and len(made.pairs["georg"]) == 4
    for reviewer in PEOPLE[1:6]:
        assert set(first[reviewer]) <= set(made.pairs[reviewer])
    counts = {a: sum(a in reviewed for reviewed in made.pairs.values()) for a in PEOPLE[1:]}
    assert min(counts.values()) >= 4
    unknown = peer(course, "assign", "tiny", "--without", "nobody")
    assert unknown.exit_code == 2 and "nobody: not in this round" in unknown.output
    assert " 0 packets" in peer(course, "assign", "tiny").output  # anna does not come back


def test_bad_input_gets_one_sentence(course: Path) -> None:
    assert "run `autograder collect` first" in peer(course, "assign", "tiny").output
    assert "run `autograder peer assign tiny` first" in peer(course, "collect", "tiny").output
    assert "has no round" in peer(course, "status").output
    hand_in(course, *PEOPLE[:4])
    few = peer(course, "assign", "tiny")
    assert few.exit_code == 2 and "4 reviews for each report need at least 5 authors, and there are 4" in few.output
    assert read_round(course, NAME) is None
    empty = course / "submitted" / "zoe" / NAME / f"{NAME}.ipynb"
    empty.parent.mkdir(parents=True)
    empty.write_text("{}")
    hand_in(course, *PEOPLE)
    assert "Not in the round: zoe: The file is no notebook." in peer(course, "assign", "tiny").output


def test_reviews_are_read_weighed_and_told(course: Path, tmp_path: Path) -> None:
    hand_in(course, *PEOPLE)
    peer(course, "assign", "tiny")
    made = assigned(course)
    handed = tmp_path / "download"
    for k, reviewer in enumerate(PEOPLE[:5]):  # frida and georg hand in nothing
        (handed / f"student_{k}").mkdir(parents=True)
        (handed / f"student_{k}" / "review.toml").write_text(
            filled_form(course, reviewer, score=1 if reviewer == "emil" else 4, comment="<b>Good</b> & clear.")
        )
    done = peer(course, "collect", "tiny", str(handed))
    assert done.exit_code == 0, done.output
    assert "Missing: frida, georg" in done.output and "5 new or changed" in done.output
    people = {row["reviewer"]: row for row in table(course, "reviewers.csv")}
    assert people["anna"]["handed_in"] == "4" and people["frida"]["handed_in"] == "0"
    assert float(people["emil"]["weight"]) < float(people["anna"]["weight"])
    assert float(people["emil"]["leniency"]) < -1
    reports = {row["author"]: row for row in table(course, "reports.csv")}
    for author in made.pairs["emil"]:
        if int(reports[author]["reviews"]) > 1:
            assert float(reports[author]["weighted"]) > float(reports[author]["mean"])
    pairs = table(course, "who_reviewed_whom.csv")
    assert len(pairs) == 28 and sum(row["state"] == "done" for row in pairs) == 20
    author = made.pairs["anna"][0]
    page = (round_folder(course, NAME) / "feedback" / f"{author}.html").read_text()
    assert "&lt;b&gt;Good&lt;/b&gt; &amp; clear." in page and "4 of 5" in page
    assert not any(person in page for person in PEOPLE)
    again = peer(course, "collect", "tiny", str(handed))
    assert "0 new or changed, 5 unchanged" in again.output
    assert peer(course, "collect", "tiny").exit_code == 0  # the tables alone


def test_what_is_wrong_with_a_form_is_told_and_the_rest_counts(course: Path, tmp_path: Path) -> None:
    hand_in(course, *PEOPLE)
    peer(course, "assign", "tiny")
    made = assigned(course)
    good = filled_form(course, "anna")
    halves = filled_form(course, "berta").split("[report.")
    partly = "[report.".join([*halves[:-1], halves[-1].replace(" = 4 ", " = 9 ", 1)])
    foreign = filled_form(course, "carl")
    wrong_report = re.findall(r"\[report\.([\w-]+)\]", good)
    own = set(re.findall(r"\[report\.([\w-]+)\]", foreign))
    foreign = foreign.replace(sorted(own)[0], next(c for c in wrong_report if c not in own))
    files = {
        "a.toml": good,
        "b.toml": partly,
        "c.toml": foreign,
        "d.toml": filled_form(course, "dora").replace("packet = ", "packet = 'x' # "),
        "e.toml": "no toml at all '''",
        "f.toml": "",
    }
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, datetime.now().timetuple()[:6]), text)
        archive.writestr("inner/notes.txt", "not a form")
    done = peer(course, "collect", "tiny", str(tmp_path / "all.zip"))
    assert done.exit_code == 1
    assert "b.toml" not in done.output and "berta: Report" in done.output and "is 9, not a whole number" in done.output
    assert "carl: Report" in done.output and "is not in this packet" in done.output
    assert "d.toml: Its packet is not one of this round." in done.output
    assert "e.toml: The form cannot be read as TOML" in done.output and "f.toml: The form has no [report" in done.output
    given = {row["reviewer"]: row["handed_in"] for row in table(course, "reviewers.csv")}
    assert (given["anna"], given["berta"], given["carl"], given["dora"]) == ("4", "3", "3", "0")
    assert len(made.pairs["anna"]) == 4


def test_the_latest_form_counts_and_late_ones_are_told(course: Path, tmp_path: Path) -> None:
    hand_in(course, *PEOPLE)
    peer(course, "assign", "tiny")
    made = assigned(course)
    early, later, too_late = (tmp_path / f"{n}.toml" for n in ("early", "later", "too_late"))
    early.write_text(filled_form(course, "anna", score=2))
    later.write_text(filled_form(course, "anna", score=3))
    too_late.write_text(filled_form(course, "berta"))
    for path, when in ((early, -2), (later, -1), (too_late, 1)):
        stamp = (made.due + timedelta(days=when)).timestamp()
        os.utime(path, (stamp, stamp))
    done = peer(course, "collect", "tiny", *map(str, (later, early, too_late)))
    assert done.exit_code == 1 and "anna handed in another form, which is later" in done.output
    assert "Late: berta" in done.output
    kept = json.loads((round_folder(course, NAME) / "reviews" / "anna.json").read_text())
    assert {s for r in kept["reviews"].values() for s in r["scores"].values()} == {3}
    again = peer(course, "collect", "tiny", str(early))
    assert "a later form was collected before; it stays" in again.output
    status = peer(course, "status", "--need", "1", "--of", "1")
    assert status.exit_code == 0, status.output
    rows = {row["student"]: row for row in csv.DictReader((course / "peer" / "term.csv").open(newline=""))}
    assert (rows["anna"][NAME], rows["anna"]["verdict"]) == ("done", "passed")
    assert (rows["berta"][NAME], rows["berta"]["verdict"]) == ("late", "cannot pass")
    assert (rows["carl"][NAME], rows["carl"]["verdict"]) == ("open", "can pass")


def packed(path: Path, files: dict[str, str | bytes], when: datetime) -> bytes:
    """A zip file, and its bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, when.timetuple()[:6]), text)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        ("0x" + "f" * 6_000, "experiments is a very large number"),
        ("inf", "experiments is inf, not a whole number from 1 to 5"),
        ("nan", "experiments is nan"),
        ("1e308", "experiments is 1e+308"),
        ("-5", "experiments is -5"),
        ("6", "experiments is 6"),
        ("4.5", "experiments is 4.5"),
        ("true", "experiments is True"),
        ("'5'", "experiments is 5"),
        ("[5]", "experiments is a list"),
        ("{a.a" + ".a" * 3_000 + " = 5}", "experiments is a table"),
        ("4\na" + ".a" * 60_000 + " = 5", "takes more time or memory than any needs"),
        ("[" * 5_000, "cannot be read as TOML"),
        ("4\nexperiments = 5", "cannot be read as TOML"),
    ],
)
def test_a_form_that_would_stop_the_reading_of_all_is_told(
    course: Path, tmp_path: Path, attack: str, says: str
) -> None:
    hand_in(course, *PEOPLE)
    peer(course, "assign", "tiny")
    hostile = re.sub(
        r"experiments( +)= 4", lambda m: f"experiments{m[1]}= {attack}", filled_form(course, "anna"), count=1
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.toml").write_text(hostile)
    (tmp_path / "in" / "b.toml").write_text(filled_form(course, "berta"))
    done = peer(course, "collect", "tiny", str(tmp_path / "in"))
    assert done.exit_code in (0, 1) and says in done.output, done.output
    given = {row["reviewer"]: row["handed_in"] for row in table(course, "reviewers.csv")}
    assert given["anna"] in ("3", "0") and given["berta"] == "4"


def test_an_invisible_comment_is_none_and_a_flood_of_faults_is_cut(course: Path, tmp_path: Path) -> None:
    hand_in(course, *PEOPLE)
    peer(course, "assign", "tiny")
    flood = "".join(f"[report.x{k}]\n" for k in range(5_000))
    (tmp_path / "a.toml").write_text(filled_form(course, "anna", comment="\u200b\u2060 .\u00ad") + flood)
    done = peer(course, "collect", "tiny", str(tmp_path / "a.toml"))
    assert done.output.count("the comment has no word in it") == 4 and "more faults of the same form" in done.output
    assert len(done.output.splitlines()) < 40
    assert {row["handed_in"] for row in table(course, "reviewers.csv")} == {"0"}


def test_names_of_files_and_broken_members_do_no_harm(course: Path, tmp_path: Path) -> None:
    hand_in(course, *PEOPLE)
    peer(course, "assign", "tiny")
    folder = tmp_path / "in"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\x1b[2J\n.toml")).write_text("packet = 'x'")
    (folder / "link.toml").symlink_to("/etc/passwd")
    (folder / "no.zip").write_bytes(b"PK")
    data = packed(tmp_path / "all.zip", {"a.toml": "#" * 999, "b.toml": filled_form(course, "berta")}, datetime.now())
    (folder / "all.zip").write_bytes(data.replace(b"a.toml", b"a.toml", 1)[:40] + b"\xff\xff" + data[42:])
    done = peer(course, "collect", "tiny", str(folder))
    assert done.exit_code == 1 and "all.zip: a.toml: cannot be unpacked" in done.output, done.output
    assert "\x1b" not in done.output and "link.toml: not an ordinary file" in done.output
    assert {r["reviewer"]: r["handed_in"] for r in table(course, "reviewers.csv")}["berta"] == "4"


def test_a_students_zip_file_has_few_forms_and_no_date_of_its_own(course: Path, tmp_path: Path) -> None:
    hand_in(course, *PEOPLE)
    peer(course, "assign", "tiny")
    due = assigned(course).due
    form, much = filled_form(course, "anna"), dict.fromkeys((f"{k}.toml" for k in range(30)), "")
    early = packed(tmp_path / "own.zip", {"review.toml": form, **much}, due - timedelta(days=3))
    packed(tmp_path / "all.zip", {"bergannna_11_1_mine.zip": early}, due + timedelta(days=2))
    done = peer(course, "collect", "tiny", str(tmp_path / "all.zip"))
    assert "Late: anna" in done.output and "more than 20 forms; the others were not read" in done.output


def test_nobody_hands_in_the_form_of_another(course: Path, tmp_path: Path) -> None:
    """Who has seen another's packet could take the place of their reviews."""
    hand_in(course, *PEOPLE)
    roster = (course / "roster.csv").read_text().replace("email\n", "email,canvas_id\n")
    numbers = iter(range(11, 20))
    (course / "roster.csv").write_text(re.sub(r"@kth.se\n", lambda _: f"@kth.se,{next(numbers)}\n", roster))
    peer(course, "assign", "tiny")
    now = datetime.now()
    theirs = filled_form(course, "anna", score=1, comment="by berta")
    own = packed(tmp_path / "z.zip", {"anna.toml": theirs}, now)
    packed(
        tmp_path / "canvas.zip",
        {
            "annaberg_11_1_review.toml": filled_form(course, "anna"),
            "bertaberg_12_2_review.toml": theirs,
            "bertaberg_12_3_review.zip": own,
            "carl/review.toml": theirs,
            "unknown_99_4_review.toml": filled_form(course, "dora"),
        },
        now,
    )
    done = peer(course, "collect", "tiny", str(tmp_path / "canvas.zip"))
    assert done.output.count("berta handed in the form of anna") == 2
    assert done.output.count("carl handed in the form of anna; if that is right, collect this form by itself") == 1
    kept = (round_folder(course, NAME) / "reviews" / "anna.json").read_text()
    assert "by berta" not in kept and "Well done." in kept
    assert (round_folder(course, NAME) / "reviews" / "dora.json").is_file()


def test_five_of_six_over_a_term() -> None:
    now = datetime(2026, 12, 1, tzinfo=UTC)
    six = [
        Round(f"a{k}", 1, "0", now - timedelta(days=7 * (6 - k)), {"q": "?"}, {"x": ["y"], "y": ["x"], "z": ["x"]})
        for k in range(1, 7)
    ]
    six[5].due = now + timedelta(days=1)
    six[2].dropped = ["z"]
    del six[0].pairs["y"]

    def gave(*authors: str, late: bool = False) -> HandedReview:
        return HandedReview(now, late, dict.fromkeys(authors))  # type: ignore[arg-type]

    handed = {
        r.assignment: {"x": gave("y"), "y": gave("x"), "z": gave("x", late=r.assignment == "a2")} for r in six[:5]
    }
    found = standings(["x", "y", "z", "w"], six, handed, need=5, of=6, now=now)
    assert (found["x"].done, found["x"].verdict) == (5, "passed") and found["x"].rounds["a6"] == "open"
    assert (found["y"].done, found["y"].verdict, found["y"].rounds["a1"]) == (4, "can pass", "no report")
    assert (found["z"].done, found["z"].verdict) == (3, "cannot pass")
    assert (found["z"].rounds["a2"], found["z"].rounds["a3"]) == ("late", "dropped")
    assert (found["w"].done, found["w"].verdict) == (0, "cannot pass")
    lenient = standings(["z"], six, handed, need=5, of=6, now=now, late_counts=True)
    assert (lenient["z"].done, lenient["z"].verdict) == (4, "can pass")
    after = standings(["y"], six, handed, need=5, of=6, now=now + timedelta(days=2))
    assert (after["y"].rounds["a6"], after["y"].verdict) == ("0 of 1", "cannot pass")


def test_a_form_survives_what_editors_do_to_it() -> None:
    text = empty_form("Tiny", "P", ["R-1"], QUESTIONS, "tomorrow").replace(" = 0 ", " = 5 ")
    text = text.replace("'''\n\n'''", "'''\nSchön.\n'''")
    for data in (text.encode(), b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), text.encode("utf-16")):
        filled = read_form(data, list(QUESTIONS))
        assert filled.faults == [] and filled.packet == "P"
        assert filled.reviews["R-1"].comment == "Schön." and filled.reviews["R-1"].score == 5
    empty = read_form(empty_form("Tiny", "P", ["R-1"], QUESTIONS, "x").encode(), list(QUESTIONS))
    assert empty.reviews == {} and len(empty.faults) == len(QUESTIONS) + 1
    assert "more than" in read_form(b"#" * 300_000, list(QUESTIONS)).faults[0]
    assert "cannot be read" in read_form(b"a = " + b"[" * 50_000, list(QUESTIONS)).faults[0]


def test_other_questions_can_be_asked(course: Path, tmp_path: Path) -> None:
    hand_in(course, *PEOPLE)
    (tmp_path / "form.toml").write_text('depth = "How deep?"\n')
    assert peer(course, "assign", "tiny", "--form", str(tmp_path / "form.toml")).exit_code == 0
    assert "\ndepth = 0  # How deep?\n" in (round_folder(course, NAME) / "packets" / "anna" / "review.toml").read_text()
    (tmp_path / "form.toml").write_text("comment = 3\n")
    bad = peer(course, "assign", "tiny", "--form", str(tmp_path / "form.toml"))
    assert bad.exit_code == 2 and "comment is no question" in bad.output
