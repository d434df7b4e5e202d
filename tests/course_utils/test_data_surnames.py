"""Surnames: what counts as a name, which are set aside, and what is said when they are not here."""

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from local_mirror import Mirror, serving

from course_utils.data import MissingDataError, SurnameData, load_surnames, registry, roots
from course_utils.data.registry import read_registry

FILES = {
    "Greek": "Adamidis\nKouros\nAdamidis\n\nPapas\n  De  Vita \n",
    "Czech": "Dvořák\nNovák\nsomebody@nowhere.cz\nČapek\nPapas\n",
}
REGISTRY = """
[surnames]
title = "Surnames"
kind = "archive"
what = "a few names"
licence = "none"
citation = "nobody"
home = "nowhere"
url = "{url}"
download_name = "names.zip"
files = [
    {{ path = "names/by_language/Greek.txt", member = "data/names/Greek.txt" }},
    {{ path = "names/by_language/Czech.txt", member = "data/names/Czech.txt" }},
]
"""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as server:
        yield server


@pytest.fixture
def url(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> str:
    """A mirror that serves a few names in two languages, which are nowhere else."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for language, text in FILES.items():
            archive.writestr(f"data/names/{language}.txt", text)
    url = mirror.serve("/names.zip", packed.getvalue())
    path = tmp_path / "registry.toml"
    path.write_text(REGISTRY.format(url=url))
    monkeypatch.setattr(registry, "registry_path", lambda: path)
    monkeypatch.setattr(roots, "user_root", lambda: tmp_path / "user")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return url


def test_each_name_counts_once_and_what_is_no_name_does_not(url: str) -> None:
    data = load_surnames(1)
    assert data.classes == ("Czech", "Greek")
    both = [(*data.train.names, *data.validation.names), torch.cat([data.train.labels, data.validation.labels])]
    of_language = {
        language: sorted(name for name, label in zip(*both, strict=True) if label == k)
        for k, language in enumerate(data.classes)
    }
    assert of_language == {
        "Czech": ["Dvořák", "Novák", "Papas", "Čapek"],
        "Greek": ["Adamidis", "De Vita", "Kouros", "Papas"],
    }
    assert repr(data) == "SurnameData(surnames: train 6, validation 2; 2 languages)"


def test_the_seed_decides_what_is_set_aside(url: str) -> None:
    first, again = load_surnames(2, seed=3), load_surnames(2, seed=3)
    assert first.validation.names == again.validation.names
    assert torch.equal(first.validation.labels, torch.tensor([0, 0, 1, 1]))
    assert len({load_surnames(2, seed=seed).validation.names for seed in range(10)}) > 1
    torch.set_default_device("meta")  # as a notebook with a GPU may set another one
    try:
        assert load_surnames(2, seed=3).validation.names == first.validation.names
    finally:
        torch.set_default_device(None)


def test_every_language_keeps_names_to_train_with(url: str) -> None:
    with pytest.raises(ValueError, match="validation=4, but there are only 4 Czech names"):
        load_surnames(4)


@pytest.mark.parametrize("validation", [0, -1, True, 2.5, "14"])
def test_a_number_of_names_is_a_number_of_names(url: str, validation: object) -> None:
    with pytest.raises(ValueError, match="validation is a number of names from 1 on"):
        load_surnames(validation)  # type: ignore[arg-type]


def test_without_the_set_it_is_said_what_to_do(url: str) -> None:
    with pytest.raises(MissingDataError, match="set COURSE_DATA to a folder that holds names, or run `course data"):
        load_surnames(download=False)


needs_the_set = pytest.mark.skipif(
    not (Path(os.environ.get("COURSE_DATA", "/nowhere")) / "names").is_dir(), reason="COURSE_DATA has no surnames"
)


@pytest.fixture(scope="module")
def surnames() -> SurnameData:
    return load_surnames()


@needs_the_set
def test_the_real_set_has_eighteen_languages(surnames: SurnameData) -> None:
    assert len(surnames.classes) == 18 == len(read_registry()["surnames"].files)
    assert surnames.classes[0] == "Arabic" and surnames.classes[-1] == "Vietnamese"
    assert torch.bincount(surnames.validation.labels).tolist() == [14] * 18
    assert torch.bincount(surnames.train.labels).min() > 50
    assert len(surnames.train.names) == len(surnames.train.labels) > 17_000


@needs_the_set
def test_no_name_is_on_both_sides_of_the_real_split(surnames: SurnameData) -> None:
    train, validation = (set(zip(names, labels.tolist(), strict=True)) for names, labels in
                         (surnames.train, surnames.validation))  # fmt: skip
    assert not train & validation
