"""The embedded image set: the same everywhere, nothing leaks, and hard enough."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from course_utils.data import digits_in_scenes as module
from course_utils.data import flatten_images, load_digits_in_scenes, roots
from course_utils.data.digits_in_scenes import (
    BLOCKS,
    TILE,
    Originals,
    _tiles,
    fingerprint,
    make_chunk,
    scikit_learn_originals,
)
from course_utils.data.registry import registered

SYNTHETIC = "2f4a42cdf74c8c38ae1294f82106a02efc5c255ca004cc54aa2626b7c666cb7c"
SYNTHETIC_VALIDATION = "6d401ed640b2c64eac1986d7cdf6c4e516b644221f7856d111510b7cfaee90b7"
DECODED = "99310b92a8963a4b9118f3a93695bf9d2f7c20a03361f1962972901ccd5560da"
"""SHA-256 of the two photographs as the decoder that made the registry's fingerprint decodes them."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root that the tests of this module share, so that the images are made once."""
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roots, "user_root", lambda: folder)
        patch.delenv("COURSE_DATA", raising=False)
        yield folder


@pytest.fixture(scope="module")
def synthetic() -> Originals:
    """Digits and photographs that no decoder of JPEG has a part in."""
    numbers = np.random.RandomState(0)  # its streams are frozen
    return Originals(
        digits=numbers.randint(0, 17, (1797, 8, 8)).astype(np.int32),
        labels=np.arange(1797) % 10,
        photographs=tuple(numbers.randint(0, 256, (427, 640, 3)).astype(np.uint8) for _ in range(2)),
    )


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make fewer images at once where the number does not matter."""
    monkeypatch.setattr(module, "CHUNK", 200)


def test_what_is_returned(cache: Path) -> None:
    data = load_digits_in_scenes(1500, 300, 1000)
    for split, size in ((data.train, 1500), (data.validation, 300), (data.test, 1000)):
        assert split.images.shape == (size, 3, 32, 32) and split.images.dtype == torch.uint8
        assert split.labels.shape == (size,) and split.labels.dtype == torch.int64
    assert data.classes == tuple("0123456789") and data.name == "digits_in_scenes"
    assert data.test.labels.bincount().tolist() == [100] * 10
    assert "embedded" in data.source


def test_a_smaller_split_is_the_beginning_of_a_larger_one(cache: Path) -> None:
    large, small = load_digits_in_scenes(1500, 300, 1000), load_digits_in_scenes(1001, 0, 7)
    assert torch.equal(small.train.images, large.train.images[:1001])
    assert torch.equal(small.test.labels, large.test.labels[:7])


def test_every_thousand_and_every_split_is_different(synthetic: Originals) -> None:
    chunks = [make_chunk("train", 0, synthetic), make_chunk("train", 1, synthetic), make_chunk("test", 0, synthetic)]
    pictures = {image.tobytes() for chunk in chunks for image in chunk["images"]}
    assert len(pictures) == 3000


def test_the_bytes_are_the_same_on_every_machine(synthetic: Originals) -> None:
    assert fingerprint(synthetic) == SYNTHETIC
    chunk = make_chunk("validation", 2, synthetic)
    assert hashlib.sha256(chunk["images"].tobytes() + chunk["labels"].tobytes()).hexdigest() == SYNTHETIC_VALIDATION


def test_the_registry_has_the_fingerprint_of_the_real_set() -> None:
    decoded = hashlib.sha256(b"".join(p.tobytes() for p in scikit_learn_originals().photographs)).hexdigest()
    assert (fingerprint() == registered("digits_in_scenes").sha256) == (decoded == DECODED)


def test_no_original_digit_is_in_two_splits() -> None:
    originals = scikit_learn_originals()
    blocks = [originals.digits[first:last] for first, last in BLOCKS.values()]
    assert sum(map(len, blocks)) == len(originals.digits) == 1797
    sets = [{digit.tobytes() for digit in block} for block in blocks]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    for first, last in BLOCKS.values():
        assert np.bincount(originals.labels[first:last], minlength=10).min() >= 25


@pytest.mark.usefixtures("small_chunks")
def test_no_split_sees_the_digits_of_another(synthetic: Originals) -> None:
    """Wiping out the digits of the other splits changes nothing."""
    for split, (first, last) in BLOCKS.items():
        wiped = synthetic.digits.copy()
        wiped[:first] = wiped[last:] = 0
        images = make_chunk(split, 0, synthetic._replace(digits=wiped))["images"]
        assert np.array_equal(images, make_chunk(split, 0, synthetic)["images"])


@pytest.mark.usefixtures("small_chunks")
def test_no_pixel_of_a_photograph_is_in_two_splits(synthetic: Originals) -> None:
    numbered = np.arange(427 * 640 * 3).reshape(427, 640, 3)
    pixels = [set(_tiles(split, (numbered,)).ravel().tolist()) for split in BLOCKS]
    assert not pixels[0] & pixels[1] and not pixels[0] & pixels[2] and not pixels[1] & pixels[2]
    assert sum(map(len, pixels)) == (427 // TILE) * (640 // TILE) * TILE * TILE * 3
    # And an image shows nothing but its own split's tiles, even at the edges of a crop.
    for split in BLOCKS:
        allowed = np.isin(numbered, _tiles(split, (numbered,)))
        masked = tuple(np.where(allowed, photograph, 0).astype(np.uint8) for photograph in synthetic.photographs)
        images = make_chunk(split, 1, synthetic._replace(photographs=masked))["images"]
        assert np.array_equal(images, make_chunk(split, 1, synthetic)["images"])


def test_images_are_kept_and_a_damaged_copy_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_digits_in_scenes(0, 50, 0)
    (entry,) = cache.rglob("validation-00.npz")
    made = []
    monkeypatch.setattr(module, "make_chunk", lambda *a: made.append(a) or make_chunk(*a))
    assert torch.equal(load_digits_in_scenes(0, 50, 0).validation.images, first.validation.images) and not made
    entry.write_bytes(entry.read_bytes()[:1000])
    assert torch.equal(load_digits_in_scenes(0, 50, 0).validation.images, first.validation.images)
    assert made == [("validation", 0)]


@pytest.mark.parametrize("size", [-1, 60_001, 2.5, True])
def test_wrong_numbers_get_a_sentence(size: object) -> None:
    with pytest.raises(ValueError, match="validation is a number of images from 0 to 60,000, not"):
        load_digits_in_scenes(1, size, 1)  # type: ignore[arg-type]


def test_a_linear_classifier_does_better_than_chance_and_far_from_well(cache: Path) -> None:
    data = load_digits_in_scenes(4000, 0, 1000)
    X, X_test = flatten_images(data.train.images), flatten_images(data.test.images)
    mean, std = X.mean(0), X.std(0)
    X, X_test = (X - mean) / std, (X_test - mean) / std
    W = torch.zeros(3072, 10, requires_grad=True)
    optimiser = torch.optim.SGD([W], lr=0.001)
    order = torch.Generator().manual_seed(0)
    for _ in range(15):
        for batch in torch.randperm(4000, generator=order).split(100):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(X[batch] @ W, data.train.labels[batch]).backward()
            optimiser.step()
    accuracy = (X_test @ W).argmax(1).eq(data.test.labels).float().mean().item()
    assert 0.2 < accuracy < 0.5
