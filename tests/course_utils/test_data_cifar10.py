"""CIFAR-10: order, numbers, verification, cache; on a small set of the same format, and on the real one where it is."""

import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from local_mirror import Mirror, serving
from small_cifar10 import ARCHIVE, BATCHES, CLASSES, FOLDER, pack, write_registry, write_small_cifar10

from course_utils.data import DamagedDataError, ImageData, MissingDataError, array_cache, load_cifar10, registry, roots
from course_utils.data.cifar10 import cifar10_on_this_machine
from course_utils.data.registry import read_registry

PER_BATCH = 12
Batches = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as server:
        yield server


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(roots, "user_root", lambda: tmp_path / "user")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return tmp_path / "user"


@pytest.fixture
def batches(tmp_path: Path, user: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Batches:
    """The contents of a small set that lies on a mirror and nowhere else."""
    contents = write_small_cifar10(tmp_path / "publisher", PER_BATCH)
    archive = pack(tmp_path / "publisher", tmp_path / ARCHIVE)
    url = mirror.serve("/cifar.tar.gz", archive)
    path = write_registry(tmp_path / "registry.toml", tmp_path / "publisher", archive, [url], PER_BATCH)
    monkeypatch.setattr(registry, "registry_path", lambda: path)
    return contents


@pytest.fixture
def chosen(tmp_path: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A COURSE_DATA folder that holds the small set."""
    write_small_cifar10(tmp_path / "chosen", PER_BATCH)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "chosen"))
    return tmp_path / "chosen"


def in_file_order(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    """All training images and labels, batch after batch."""
    parts = [batches[name] for name in BATCHES[:5]]
    return tuple(torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True))  # type: ignore


@pytest.mark.parametrize(
    ("train", "validation", "test"), [(12, 12, 12), (54, 6, 12), (49, 3, 0), (0, 5, 1), (20, 0, 7)]
)
def test_splits_follow_the_order_of_the_files(
    chosen: Path, batches: Batches, train: int, validation: int, test: int
) -> None:
    images, labels = in_file_order(batches)
    for _ in ("from the files", "from the cache"):
        data = load_cifar10(train, validation, test)
        assert torch.equal(data.train.images, images[:train]) and torch.equal(data.train.labels, labels[:train])
        after = slice(train, train + validation)
        assert torch.equal(data.validation.images, images[after])
        assert torch.equal(data.validation.labels, labels[after])
        assert torch.equal(data.test.images, torch.from_numpy(batches["test_batch"][0])[:test])
        assert torch.equal(data.test.labels, torch.from_numpy(batches["test_batch"][1])[:test])
        assert data.classes == CLASSES and data.name == "cifar10"


def test_what_is_returned(chosen: Path) -> None:
    data = load_cifar10(24, 12, 6)
    assert isinstance(data, ImageData)
    images, labels = data.train
    assert images.shape == (24, 3, 32, 32) and images.dtype == torch.uint8 and images.is_contiguous()
    assert labels.shape == (24,) and labels.dtype == torch.int64
    assert repr(data) == "ImageData(cifar10 from CIFAR-10: train 24, validation 12, test 6; 10 classes)"
    assert repr(data.train) == "Split(24 images of 3×32×32, torch.uint8)"
    data.train.images.zero_()  # each split has memory of its own
    assert data.validation.images.any()


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"train": 61}, r"train is a number of images from 0 to 60, not 61"),
        ({"train": -1}, "train is a number of images from 0 to 60, not -1"),
        ({"test": 13}, "test is a number of images from 0 to 12, not 13"),
        ({"train": 10.0}, "not 10.0"),
        ({"validation": True}, "not True"),
        ({"train": "all"}, "not 'all'"),
        ({"train": 50, "validation": 11}, "61 images together, but there are 60 training images; ask for fewer"),
        ({"train": 0, "validation": 0, "test": 0}, "train, validation, test are all 0"),
    ],
)
def test_wrong_numbers_get_a_sentence(chosen: Path, numbers: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_cifar10(**{"train": 12, "validation": 12, "test": 12, **numbers})


def test_numpys_whole_numbers_are_numbers(chosen: Path) -> None:
    assert len(load_cifar10(np.int64(3), np.int32(2), 1).train.images) == 3  # type: ignore[arg-type]


def test_a_missing_set_is_downloaded(batches: Batches, user: Path, mirror: Mirror) -> None:
    assert cifar10_on_this_machine() == ""
    data = load_cifar10(12, 12, 12)
    assert torch.equal(data.train.images, torch.from_numpy(batches["data_batch_1"][0]))
    assert cifar10_on_this_machine() == str(user)
    asked = len(mirror.requests)
    load_cifar10(12, 12, 12)
    assert len(mirror.requests) == asked


def test_without_a_network_the_message_says_what_to_do(batches: Batches, mirror: Mirror) -> None:
    with pytest.raises(MissingDataError, match="set COURSE_DATA to a folder that holds cifar-10-batches-py"):
        load_cifar10(12, 12, 12, download=False)
    assert mirror.requests == []
    mirror.pages.clear()
    with pytest.raises(MissingDataError, match="none of its 1 mirrors can be reached"):
        load_cifar10(12, 12, 12)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_damaged_file_is_named_with_the_remedy(chosen: Path, name: str, damage: str, mirror: Mirror) -> None:
    path = chosen / FOLDER / name
    content = path.read_bytes()
    path.write_bytes(content[:50] if damage == "truncated" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(DamagedDataError, match=f"{name} .*; run `course data cifar10`"):
        load_cifar10(12, 12, 12)
    assert mirror.requests == []  # 170 MB are not fetched without being asked for


def test_the_cache_lies_in_a_root_that_can_be_written_to(chosen: Path, user: Path) -> None:
    load_cifar10(12, 12, 12)
    assert len(list((chosen / "cache").rglob("*.npz"))) == 6 and not user.exists()


def test_a_read_only_root_is_left_as_it_is(chosen: Path, user: Path) -> None:
    (chosen / FOLDER).chmod(0o555)
    chosen.chmod(0o555)
    load_cifar10(12, 12, 12)
    assert [path.name for path in chosen.iterdir()] == [FOLDER]
    assert len(list((user / "cache").rglob("*.npz"))) == 6


def test_without_any_place_for_a_cache_it_still_loads(chosen: Path, user: Path) -> None:
    chosen.chmod(0o555)
    user.touch()  # a file where the folder should be
    assert len(load_cifar10(12, 12, 12).train.images) == 12


def test_the_cache_is_enough(chosen: Path, batches: Batches, mirror: Mirror) -> None:
    load_cifar10(12, 12, 12)
    for path in (chosen / FOLDER).iterdir():
        path.unlink()
    assert cifar10_on_this_machine() == "the cache of an earlier load"
    data = load_cifar10(54, 6, 12)
    assert torch.equal(data.train.images, in_file_order(batches)[0][:54]) and mirror.requests == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_cache_is_made_again(chosen: Path, batches: Batches, damage: str) -> None:
    load_cifar10(12, 12, 12)
    (entry,) = (chosen / "cache").rglob("data_batch_2.npz")
    good = entry.read_bytes()
    middle = len(good) // 2
    bad = {"truncated": good[:middle], "flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]}
    entry.write_bytes(bad.get(damage, b""))
    data = load_cifar10(12, 12, 12)
    assert torch.equal(data.validation.images, torch.from_numpy(batches["data_batch_2"][0]))
    assert entry.read_bytes()[:middle] == good[:middle] and len(entry.read_bytes()) == len(good)


def test_an_interrupted_write_leaves_no_entry(chosen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(stream, **arrays) -> None:  # type: ignore[no-untyped-def]
        stream.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(array_cache.np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_cifar10(12, 12, 12)
    assert not [path for path in (chosen / "cache").rglob("*") if path.is_file()]


def test_another_registry_has_another_cache(chosen: Path, tmp_path: Path) -> None:
    load_cifar10(12, 12, 12)
    path = registry.registry_path()
    changed = path.read_text().replace(read_registry(path)["cifar10"].files[0].md5 or "", "0" * 32)
    path.write_text(changed)
    with pytest.raises(DamagedDataError, match="data_batch_1"):  # not the bytes of the first registry's cache
        load_cifar10(12, 12, 12)


# The same checks on all images: of the real set where $COURSE_DATA holds it, else of the small one.


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The root of a set and the number of images in each of its batches; its cache is a new folder."""
    folder = tmp_path_factory.mktemp("whole set")
    root, per_batch = Path(os.environ.get("COURSE_DATA") or folder / "none"), 10_000
    with pytest.MonkeyPatch.context() as patch:
        if not (root / FOLDER / "data_batch_1").is_file():
            root, per_batch = folder / "small", PER_BATCH
            write_small_cifar10(root, per_batch)
            archive = pack(root, folder / ARCHIVE)
            path = write_registry(folder / "registry.toml", root, archive, ["http://127.0.0.1:9/"], per_batch)
            patch.setattr(registry, "registry_path", lambda: path)
        elif os.access(root, os.W_OK):  # leave the reader's own folder alone
            (folder / "link").mkdir()
            (folder / "link" / FOLDER).symlink_to(root / FOLDER)
            root = folder / "link"
        patch.setenv("COURSE_DATA", str(root))
        patch.setattr(roots, "user_root", lambda: folder / "user")
        yield root, per_batch


def test_all_images_are_the_files_images(whole_set: tuple[Path, int]) -> None:
    root, n = whole_set
    first = load_cifar10(n, n, n)
    all_five = load_cifar10(45 * n // 10, 5 * n // 10, n)
    for split, name in ((first.train, "data_batch_1"), (first.validation, "data_batch_2"), (first.test, "test_batch")):
        batch = pickle.loads((root / FOLDER / name).read_bytes(), encoding="latin1")
        assert np.array_equal(split.images.numpy().reshape(n, 3072), batch["data"])
        assert split.labels.tolist() == batch["labels"]
    assert torch.equal(all_five.train.images[: 2 * n], torch.cat((first.train.images, first.validation.images)))
    assert len(all_five.train.images) + len(all_five.validation.images) == 5 * n
    assert torch.equal(all_five.test.images, first.test.images)
    assert first.classes == CLASSES
    if n == 10_000:
        together = torch.cat((all_five.train.labels, all_five.validation.labels))
        assert together.bincount().tolist() == [5000] * 10 and first.test.labels.bincount().tolist() == [1000] * 10


def test_all_images_load_in_two_seconds_after_the_first_time(whole_set: tuple[Path, int]) -> None:
    n = whole_set[1]
    load_cifar10(4 * n, n, n)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        load_cifar10(4 * n, n, n)
        times.append(time.perf_counter() - begin)
    assert min(times) < 2
