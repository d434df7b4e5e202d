"""Which images a notebook gets, and that it says so."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_mirror import Mirror, serving
from small_cifar10 import ARCHIVE, FOLDER, pack, write_registry, write_small_cifar10

from course_utils.data import DataError, digits_in_scenes, images, load_images, registry, roots

SIZES = {"train": 10, "validation": 5, "test": 3}


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def publisher(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 that lies on a mirror and nowhere else."""
    write_small_cifar10(tmp_path / "publisher")
    archive = pack(tmp_path / "publisher", tmp_path / ARCHIVE)
    url = mirror.serve("/cifar.tar.gz", archive)
    path = write_registry(tmp_path / "registry.toml", tmp_path / "publisher", archive, [url])
    monkeypatch.setattr(registry, "registry_path", lambda: path)
    monkeypatch.setattr(digits_in_scenes, "CHUNK", 50)  # which digits they are does not matter here
    monkeypatch.setattr(roots, "user_root", lambda: tmp_path / "user")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.delenv("COURSE_DATA_SET", raising=False)
    return tmp_path / "publisher"


def test_cifar10_is_taken_where_it_is(
    publisher: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COURSE_DATA", str(publisher))
    data = load_images(**SIZES)
    assert data.name == "cifar10" and [len(split.images) for split in (data.train, data.test)] == [10, 3]
    assert capsys.readouterr().out == f"Taking CIFAR-10, which is on this machine ({publisher}).\n"
    assert mirror.requests == []


def test_cifar10_is_downloaded_where_it_can_be(mirror: Mirror, capsys: pytest.CaptureFixture) -> None:
    assert load_images(**SIZES).name == "cifar10"
    assert capsys.readouterr().out == "Taking CIFAR-10, which is downloaded once (0 MB).\n"
    assert load_images(**SIZES).name == "cifar10"
    assert "which is on this machine" in capsys.readouterr().out
    assert len(mirror.downloads("/cifar.tar.gz")) == 1


def test_the_embedded_set_is_taken_without_a_network(mirror: Mirror, capsys: pytest.CaptureFixture) -> None:
    mirror.pages.clear()
    data = load_images(**SIZES)
    assert data.name == "digits_in_scenes" and len(data.validation.images) == 5
    out = capsys.readouterr().out
    assert out.startswith("Taking digits in scenes, the embedded set, because CIFAR-10 is neither on this machine nor")
    assert out.count("\n") == 1


def test_a_network_that_swallows_everything_does_not_hang(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    mirror.pages["/cifar.tar.gz"].silent = 5.0
    monkeypatch.setattr(images, "PROBE_SECONDS", 0.3)
    begin = time.monotonic()
    assert load_images(**SIZES).name == "digits_in_scenes"
    assert time.monotonic() - begin < 4.5


def test_a_download_that_fails_gives_way_to_the_embedded_set(mirror: Mirror, capsys: pytest.CaptureFixture) -> None:
    mirror.pages["/cifar.tar.gz"].content = b"wrong"
    assert load_images(**SIZES).name == "digits_in_scenes"
    assert "because CIFAR-10 could not be downloaded" in capsys.readouterr().out


def test_a_damaged_set_is_an_error_and_not_silently_replaced(publisher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_DATA", str(publisher))
    path = publisher / FOLDER / "test_batch"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DataError, match=r"test_batch is damaged .* run `course data cifar10`"):
        load_images(**SIZES)


@pytest.mark.parametrize("name", ["cifar10", "digits_in_scenes"])
def test_the_environment_variable_decides_instead_of_auto(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COURSE_DATA_SET", name)
    assert load_images(**SIZES).name == name
    assert "because COURSE_DATA_SET says so" in capsys.readouterr().out
    assert load_images("digits_in_scenes", **SIZES).name == "digits_in_scenes"  # a name in the call wins


def test_a_named_set_is_taken_or_an_error(mirror: Mirror, capsys: pytest.CaptureFixture) -> None:
    assert load_images("cifar10", **SIZES).name == "cifar10"
    assert capsys.readouterr().out == ""


def test_defaults_are_those_of_the_set() -> None:
    data = load_images("digits_in_scenes", train=10, test=3)
    assert len(data.validation.images) == 2000


def test_unknown_names_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="name is one of auto, cifar10, digits_in_scenes, not 'mnist'"):
        load_images("mnist")
    monkeypatch.setenv("COURSE_DATA_SET", "cifar")
    with pytest.raises(ValueError, match="COURSE_DATA_SET is one of auto, cifar10, digits_in_scenes, not 'cifar'"):
        load_images()
