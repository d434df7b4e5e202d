"""Which text a notebook gets, that it says so, and that its characters are plain."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_mirror import Mirror, serving

from course_utils.data import DataError, MissingDataError, load_text, registry, roots, texts
from course_utils.data.texts import plain_text

PLAY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"
NOVEL = (
    b"\xef\xbb\xbfThe Project Gutenberg eBook\r\n\r\n*** START OF THE PROJECT GUTENBERG EBOOK ***\r\n\r\n\r\n"
    b"CHAPTER I.\r\nDown the Rabbit-Hole, down and down\r\n\r\n*** END OF THE PROJECT GUTENBERG EBOOK ***\r\nfoot\r\n"
)
REGISTRY = """
[cifar10]
title = "CIFAR-10"
kind = "embedded"
what = "images"
licence = "none"
citation = "A. Krizhevsky"
home = "here"

[tinyshakespeare]
title = "Tiny Shakespeare"
kind = "file"
what = "plays"
licence = "public domain"
citation = "A. Karpathy"
home = "here"
url = "{url}/play.txt"
size = {size}
md5 = "{md5}"
files = [{{ path = "text/play.txt", size = {size}, md5 = "{md5}" }}]

[alice]
title = "Alice"
kind = "file"
what = "a novel"
licence = "public domain"
citation = "L. Carroll"
home = "here"
url = "{url}/novel.txt"
markers = ["*** START OF TH", "*** END OF TH"]
files = [{{ path = "text/novel.txt" }}]

[python_topics]
title = "Python topics"
kind = "embedded"
what = "help"
licence = "PSF"
citation = "Python Software Foundation, pydoc_data.topics"
home = "here"
"""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def publisher(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short play and a short novel that lie on a mirror and nowhere else."""
    url = ""
    for name, content in (("play.txt", PLAY), ("novel.txt", NOVEL)):
        file = tmp_path / "publisher" / "text" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        url = mirror.serve(f"/{name}", content).rsplit("/", 1)[0]
    path = tmp_path / "registry.toml"
    path.write_text(REGISTRY.format(url=url, size=len(PLAY), md5=hashlib.md5(PLAY).hexdigest()))
    monkeypatch.setattr(registry, "registry_path", lambda: path)
    monkeypatch.setattr(roots, "user_root", lambda: tmp_path / "user")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.delenv("COURSE_DATA_SET", raising=False)
    return tmp_path / "publisher"


def test_the_play_is_taken_where_it_is(
    publisher: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COURSE_DATA", str(publisher))
    data = load_text()
    assert (data.name, data.text) == ("tinyshakespeare", PLAY.decode())
    assert capsys.readouterr().out == f"Taking Tiny Shakespeare, which is on this machine ({publisher}).\n"
    assert mirror.requests == []


def test_the_play_is_downloaded_once(mirror: Mirror, capsys: pytest.CaptureFixture) -> None:
    assert load_text().text == load_text().text == PLAY.decode()
    assert capsys.readouterr().out.startswith("Taking Tiny Shakespeare, which is downloaded once")
    assert len(mirror.downloads("/play.txt")) == 1


def test_the_embedded_text_is_taken_without_a_network(mirror: Mirror, capsys: pytest.CaptureFixture) -> None:
    mirror.pages.clear()
    data = load_text()
    out = capsys.readouterr().out
    assert out.startswith(
        "Taking Python topics, the embedded text, because Tiny Shakespeare is neither on this machine"
    )
    assert data.name == "python_topics" and len(data) > 100_000 and "::=" not in data.text  # prose, no grammar
    assert "code block" in data.text and data.text == load_text("python_topics").text


def test_a_python_without_topics_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(MissingDataError, match=r"without pydoc_data\.topics; give load_text the path"):
        load_text("python_topics")


def test_a_damaged_text_is_an_error_and_not_silently_replaced(publisher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_DATA", str(publisher))
    (publisher / "text" / "play.txt").write_bytes(PLAY[::-1])
    with pytest.raises(DataError, match=r"play\.txt is damaged .* run `course data tinyshakespeare`"):
        load_text()


def test_a_named_text_out_of_reach_names_the_embedded_one(mirror: Mirror) -> None:
    mirror.pages.clear()
    with pytest.raises(
        MissingDataError, match=r"Alice is not on this machine .*, or use load_text\('python_topics'\)\."
    ):
        load_text("alice")


def test_the_frame_and_the_line_ends_of_a_novel_are_gone(capsys: pytest.CaptureFixture) -> None:
    assert load_text("alice").text == "CHAPTER I.\nDown the Rabbit-Hole, down and down\n"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["alice", "file"])
def test_the_environment_variable_decides_instead_of_auto(
    name: str, publisher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COURSE_DATA_SET", name if name == "alice" else str(publisher / "text" / "novel.txt"))
    assert load_text().text.startswith("CHAPTER I.")
    assert "because COURSE_DATA_SET says so" in capsys.readouterr().out
    monkeypatch.setenv("COURSE_DATA_SET", "cifar10")  # meant for the other assignments
    assert load_text().name == "tinyshakespeare"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "essay.txt"
    path.write_text("my own words, and enough of them\n")
    data = load_text(path)
    assert data.name == "essay.txt" and data.text == load_text(str(path)).text == "my own words, and enough of them\n"
    assert repr(data) == "TextData(essay.txt: 33 characters, 18 of them distinct)"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
        ("naïve — “so”".encode(), "naïve — “so”"),
        ("\ufeffnaïve".encode(), "naïve"),
        ("naïve".encode("utf-16"), "naïve"),
        ("naïve “so”".encode("cp1252"), "naïve “so”"),
        ("nai\u0308ve".encode(), "na\u00efve"),
        (b"*** START OF THIS\nx\n*** END OF THIS\n", "x\n"),
        (b"before\n*** START OF THIS\nx\n", "before\n*** START OF THIS\nx\n"),  # cut short: nothing is dropped
    ],
)
def test_encodings_line_ends_and_frames(data: bytes, text: str) -> None:
    assert plain_text(data) == text


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" * 10)
    with pytest.raises(DataError, match=r"picture\.png cannot be used: it is no plain text"):
        load_text(path)


def test_a_text_shorter_than_a_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("x" * 25)
    with pytest.raises(
        ValueError, match=r"short\.txt, a file of your own has 25 characters, but one chunk of 25 .* 26"
    ):
        load_text(path)
    assert len(load_text(path, chunk=24)) == 25


def test_unknown_names_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"name is one of auto, tinyshakespeare, .*, or a file; 'hamlet' is neither"):
        load_text("hamlet")
    monkeypatch.setenv("COURSE_DATA_SET", "hamlet")
    with pytest.raises(ValueError, match="COURSE_DATA_SET is one of"):
        load_text()


def test_every_text_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the course's own registry
    assert set(texts.TEXTS) <= set(registry.read_registry())
