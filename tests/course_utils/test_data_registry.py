"""The registry: the real one is complete, and a wrong one is refused with a sentence."""

import string
from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10

from course_utils.data import DataError
from course_utils.data import registry as module
from course_utils.data.registry import read_registry, registered, registry_path

MINIMAL = """
[words]
title = "Words"
kind = "file"
what = "words"
licence = "none"
citation = "nobody"
home = "nowhere"
url = "http://127.0.0.1/words.txt"
files = [{ path = "text/words.txt" }]
"""


def test_the_registry_has_every_set_of_the_course() -> None:
    assert set(read_registry()) == {
        "cifar10", "tinyshakespeare", "alice", "sherlock_holmes", "moby_dick", "surnames", "digits_in_scenes",
        "python_topics",
    }  # fmt: skip


def test_every_entry_says_what_a_reader_needs_and_is_verifiable() -> None:
    for dataset in read_registry().values():
        assert all((dataset.title, dataset.what, dataset.licence, dataset.citation, dataset.home)), dataset.name
        if dataset.kind == "embedded":
            assert not dataset.urls
            continue
        assert all(url.startswith("https://") for url in dataset.urls), dataset.name
        assert len(set(dataset.urls)) == len(dataset.urls), dataset.name
        # A fixed checksum, markers of a whole text, or an archive whose members carry checksums of their own.
        assert dataset.sha256 or dataset.markers or dataset.url.endswith(".zip"), dataset.name
        for file in dataset.files:
            assert file.md5 or file.measured_md5, file.path
            assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts
        for digest, length in ((dataset.md5, 32), (dataset.sha256, 64)):
            assert digest is None or (len(digest) == length and set(digest) <= set(string.hexdigits.lower()))


def test_cifar10_is_the_one_that_torchvision_knows() -> None:
    dataset = registered("cifar10")
    assert dataset.url == CIFAR10.url
    assert dataset.md5 == CIFAR10.tgz_md5
    for role, theirs in (("train", CIFAR10.train_list), ("test", CIFAR10.test_list)):
        ours = [[file.path, file.md5] for file in dataset.files_with_role(role)]
        assert ours == [[f"{CIFAR10.base_folder}/{name}", md5] for name, md5 in theirs]
    (classes,) = dataset.files_with_role("classes")
    assert (classes.path, classes.md5) == (f"{CIFAR10.base_folder}/{CIFAR10.meta['filename']}", CIFAR10.meta["md5"])
    assert [file.images for file in dataset.files_with_role("train")] == [10_000] * 5


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="no data set called 'cifar100'; choose from cifar10, "):
        registered("cifar100")


def test_names_that_follow_from_others_are_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(MINIMAL)
    words = read_registry(path)["words"]
    assert words.download_name == "words.txt"
    assert words.files[0].member == "text/words.txt"
    assert words.urls == ("http://127.0.0.1/words.txt",)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('licence = "none"', "", r"\[words\] in .* lacks the key 'licence'"),
        ('licence = "none"', 'license = "none"', "has the unknown key 'license'"),
        ('"file"', '"flie"', "has kind 'flie'; it must be one of archive, file, embedded"),
        ('url = "http://127.0.0.1/words.txt"', "", "needs a url and at least one file"),
        ('path = "text/words.txt"', 'path = "a", sise = 3', "unknown key 'sise'"),
        ('path = "text/words.txt"', "size = 3", "lacks the key 'path'"),
        ("[words]", "[words", "cannot be read"),
        (MINIMAL, "words = 1", "is not a table"),
    ],
)
def test_a_wrong_registry_is_refused_with_the_place(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(MINIMAL.replace(old, new))
    with pytest.raises(DataError, match=sentence):
        read_registry(path)


def test_the_registry_is_found_in_a_checkout_and_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "course_utils" / "data" / "registry.py"))
    with pytest.raises(DataError, match="registry of data sets is missing"):
        registry_path()
    for place in ("datasets", "course_utils"):  # in a wheel both could exist: another project's folder is not ours
        (tmp_path / place).mkdir()
        (tmp_path / place / "registry.toml").touch()
        assert registry_path() == tmp_path / place / "registry.toml"
