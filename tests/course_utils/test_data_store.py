"""Finding, verifying and fetching sets: what counts as being there, and what replaces what is damaged."""

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from local_mirror import Mirror, serving
from small_cifar10 import ARCHIVE, BATCHES, FOLDER, pack, write_registry, write_small_cifar10

from course_utils.data import DamagedDataError, DataError, DownloadError, MissingDataError, roots, store
from course_utils.data.registry import DataSet, read_registry


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as server:
        yield server


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(roots, "user_root", lambda: tmp_path / "user")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "chosen"))
    return tmp_path / "user"


@pytest.fixture
def chosen(tmp_path: Path, user: Path) -> Path:
    return tmp_path / "chosen"


@pytest.fixture
def cifar10(tmp_path: Path, mirror: Mirror) -> DataSet:
    """A small CIFAR-10 that one mirror has."""
    write_small_cifar10(tmp_path / "publisher")
    archive = pack(tmp_path / "publisher", tmp_path / "publisher" / ARCHIVE)
    url = mirror.serve("/good.tar.gz", archive)
    return read_registry(write_registry(tmp_path / "registry.toml", tmp_path / "publisher", archive, [url]))["cifar10"]


Texts = Callable[..., DataSet]


@pytest.fixture
def a_text(tmp_path: Path) -> Texts:
    """Makes a set of one text whose publisher revises it."""

    def make(url: str, measured: bytes) -> DataSet:
        path = tmp_path / "texts.toml"
        path.write_text(
            f'[novel]\ntitle = "A novel"\nkind = "file"\nwhat = "words"\nlicence = "none"\ncitation = "nobody"\n'
            f'home = "nowhere"\nurl = "{url}"\nmarkers = ["*** START", "*** END"]\n'
            f'files = [{{ path = "text/novel.txt", measured_md5 = "{hashlib.md5(measured).hexdigest()}" }}]\n'
        )
        return read_registry(path)["novel"]

    return make


def test_a_set_is_fetched_unpacked_and_verified(cifar10: DataSet, chosen: Path, tmp_path: Path) -> None:
    assert store.inspect(cifar10).root is None and store.find(cifar10) is None
    assert store.fetch(cifar10, progress=False) == chosen
    assert store.inspect(cifar10).sound
    for name in (*BATCHES, "batches.meta"):
        assert (chosen / FOLDER / name).read_bytes() == (tmp_path / "publisher" / FOLDER / name).read_bytes()
    assert not (chosen / ARCHIVE).exists() and not list(chosen.rglob("*.part"))


def test_a_set_that_is_there_is_not_downloaded(cifar10: DataSet, chosen: Path, mirror: Mirror) -> None:
    write_small_cifar10(chosen)
    assert store.fetch(cifar10, progress=False) == chosen
    assert mirror.requests == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "delete"])
def test_damage_is_named_and_repaired(cifar10: DataSet, chosen: Path, damage: str) -> None:
    write_small_cifar10(chosen)
    victim = chosen / FOLDER / "data_batch_3"
    content = victim.read_bytes()
    victim.write_bytes({"truncate": content[:100], "flip": content[:-1] + b"!", "empty": b"", "delete": b""}[damage])
    if damage == "delete":
        victim.unlink()
    holding = store.inspect(cifar10)
    expected = {"truncate": "has 100 bytes instead of", "flip": "its checksum is not", "empty": "has 0 bytes", "delete":
                "is missing"}[damage]  # fmt: skip
    assert not holding.sound and f"{victim} " in holding.fault and expected in holding.fault
    assert holding.damaged == (damage != "delete")
    assert (store.find(cifar10) is None) == (damage != "flip")  # finding looks at sizes only
    store.fetch(cifar10, progress=False)
    assert victim.read_bytes() == content and store.inspect(cifar10).sound


def test_a_sound_copy_wins_over_a_damaged_one_that_cannot_be_replaced(
    cifar10: DataSet, chosen: Path, user: Path
) -> None:
    write_small_cifar10(chosen)
    (chosen / FOLDER / "test_batch").write_bytes(b"")
    chosen.chmod(0o555)
    assert store.fetch(cifar10, progress=False) == user
    holding = store.inspect(cifar10)
    assert holding.sound and holding.root == user
    assert (chosen / FOLDER / "test_batch").read_bytes() == b""


def test_an_archive_that_somebody_brought_is_unpacked_without_a_network(
    cifar10: DataSet, chosen: Path, user: Path, tmp_path: Path, mirror: Mirror
) -> None:
    chosen.mkdir()
    archive = chosen / ARCHIVE
    archive.write_bytes((tmp_path / "publisher" / ARCHIVE).read_bytes())
    chosen.chmod(0o555)  # a memory stick
    assert store.fetch(cifar10, progress=False) == user
    assert mirror.requests == [] and archive.exists() and store.inspect(cifar10).sound


def test_a_damaged_archive_that_somebody_brought_is_not_used(
    cifar10: DataSet, chosen: Path, tmp_path: Path, mirror: Mirror
) -> None:
    chosen.mkdir()
    content = (tmp_path / "publisher" / ARCHIVE).read_bytes()
    (chosen / ARCHIVE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    store.fetch(cifar10, progress=False)
    assert len(mirror.downloads("/good.tar.gz")) == 1 and store.inspect(cifar10).sound


def test_out_of_reach_says_what_to_do(cifar10: DataSet, chosen: Path, mirror: Mirror) -> None:
    mirror.pages.clear()
    with pytest.raises(MissingDataError) as caught:
        store.fetch(cifar10, progress=False)
    for part in (f"looked in {chosen}", "none of its 1 mirrors", "set COURSE_DATA", "`course data cifar10`"):
        assert part in str(caught.value)
    assert "load_images('digits_in_scenes')" in str(caught.value)


def test_no_room_is_said_before_anything_is_downloaded(
    cifar10: DataSet, user: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DataError, match="make room or set COURSE_DATA to another folder"):
        store.fetch(cifar10, progress=False)
    assert mirror.requests == []


def test_two_at_once_download_once(cifar10: DataSet, chosen: Path, mirror: Mirror) -> None:
    mirror.pages["/good.tar.gz"].pause = 0.002
    threads = [threading.Thread(target=store.fetch, args=(cifar10,), kwargs={"progress": False}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mirror.downloads("/good.tar.gz")) == 1 and store.inspect(cifar10).sound


def test_the_error_for_damage_names_the_command(cifar10: DataSet) -> None:
    error = store.damaged(cifar10, "data_batch_1 is damaged")
    assert isinstance(error, DamagedDataError) and "run `course data cifar10`" in str(error)


def test_an_embedded_set_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to download"):
        store.fetch(read_registry()["digits_in_scenes"])


@pytest.mark.parametrize("fault", ["missing member", "not an archive", "wrong member"])
def test_an_archive_with_the_right_checksum_and_wrong_contents_is_refused(
    tmp_path: Path, chosen: Path, mirror: Mirror, fault: str
) -> None:
    publisher = tmp_path / "publisher"
    write_small_cifar10(publisher)
    registry = tmp_path / "registry.toml"
    listed = write_registry(registry, publisher, b"", ["http://x/"]).read_text()
    if fault == "missing member":
        (publisher / FOLDER / "test_batch").unlink()
    elif fault == "wrong member":
        (publisher / FOLDER / "test_batch").write_bytes(b"something else")
    archive = b"no archive" if fault == "not an archive" else pack(publisher, publisher / ARCHIVE)
    for pattern, value in (("size = 0", f"size = {len(archive)}"),
                           (hashlib.md5(b"").hexdigest(), hashlib.md5(archive).hexdigest()),
                           (hashlib.sha256(b"").hexdigest(), hashlib.sha256(archive).hexdigest()),
                           ("http://x/", mirror.serve("/archive", archive))):  # fmt: skip
        listed = listed.replace(pattern, value, 1)
    registry.write_text(listed)
    with pytest.raises(DownloadError, match=r"delete .* and run `course data cifar10`"):
        store.fetch(read_registry(registry)["cifar10"], progress=False)
    assert not store.inspect(read_registry(registry)["cifar10"]).sound


def test_members_of_a_zip_archive_get_the_names_of_the_registry(tmp_path: Path, chosen: Path, mirror: Mirror) -> None:
    with zipfile.ZipFile(tmp_path / "names.zip", "w") as archive:
        archive.writestr("data/names/Greek.txt", "Adamidis\n")
        archive.writestr("data/other.txt", "unwanted")
    url = mirror.serve("/names.zip", (tmp_path / "names.zip").read_bytes())
    registry = tmp_path / "registry.toml"
    registry.write_text(
        f'[names]\ntitle = "Names"\nkind = "archive"\nwhat = "names"\nlicence = "none"\ncitation = "nobody"\n'
        f'home = "nowhere"\nurl = "{url}"\n'
        'files = [{ path = "names/Greek.txt", member = "data/names/Greek.txt", measured_md5 = "0" }]\n'
    )
    names = read_registry(registry)["names"]
    store.fetch(names, progress=False)
    assert (chosen / "names" / "Greek.txt").read_text() == "Adamidis\n"
    assert not list(chosen.rglob("other.txt"))
    assert store.inspect(names).note == "1 of its files differ from the measured edition"


def test_a_text_is_sound_as_measured_or_as_a_whole_other_edition(a_text: Texts, chosen: Path, mirror: Mirror) -> None:
    novel = a_text(mirror.serve("/novel", b"*** START\nnew\n*** END\n", announce_length=False), measured=b"old")
    path = chosen / "text" / "novel.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    assert store.inspect(novel) == store.Holding(chosen)
    path.write_bytes(b"*** START\nnew")
    assert "neither the measured edition nor a whole text" in store.inspect(novel).fault
    store.fetch(novel, progress=False)
    assert path.read_bytes() == b"*** START\nnew\n*** END\n"
    assert store.inspect(novel).sound and "differ from the measured edition" in store.inspect(novel).note
