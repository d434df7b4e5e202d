"""The embedded image set: handwritten digits laid over photographs, made from what scikit-learn carries.

It stands in for CIFAR-10 where nothing can be downloaded: colour images of 32×32 pixels in ten classes, hard enough
for a linear classifier to do clearly better than chance and far from well, so that the figures of the assignments
teach the same lesson.

Nothing of the training images comes back in the others: the splits use disjoint original digits (blocks of the
original file, which also keeps most writers apart) and disjoint parts of the photographs.

All arithmetic is in integers and all chance comes from raw 64-bit words of PCG64, so the same digits and photographs
give the same bytes on any machine and with any version of NumPy.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from .array_cache import Arrays, read_arrays, write_arrays
from .image_data import ImageData, Split, checked_sizes
from .registry import registered

VERSION = 1
"""Part of every seed and of the cache's name: another recipe needs another number."""
MOST = 60_000
"""The most images of one split."""
CHUNK = 1_000
"""Images made, seeded and cached together, so that a smaller split is the beginning of a larger one."""
SIDE = 32
TILE = 80
"""Height and width, in pixels, of the pieces of a photograph that are given to one split as a whole."""
BLOCKS = {"train": (0, 1197), "validation": (1197, 1497), "test": (1497, 1797)}
"""Which of the 1,797 original digits each split uses, first and one past the last."""
SPLIT_OF_TILE = ("train", "train", "train", "validation", "test")
"""Tiles go round these, with a step between rows that keeps every split off the columns."""


def load_digits_in_scenes(train: int = 10_000, validation: int = 2_000, test: int = 2_000) -> ImageData:
    """Load digits in scenes, which needs no network.

    Parameters
    ----------
    train, validation, test : int
        Numbers of images, each at most 60,000. A smaller split is the beginning of a larger one.

    Returns
    -------
    ImageData
        Ten classes, equally frequent in every thousand images; images uint8 (N, 3, 32, 32), labels int64 (N,).

    Raises
    ------
    ValueError
        If a number of images cannot be had.

    Notes
    -----
    The first use makes the images, which takes some seconds, and keeps them in the data cache.

    References
    ----------
    The digits: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998; the photographs: "china.jpg" and "flower.jpg" of scikit-learn, both CC BY 2.0.
    """
    sizes = checked_sizes(
        "load_digits_in_scenes", train=(train, MOST), validation=(validation, MOST), test=(test, MOST)
    )
    dataset = registered("digits_in_scenes")
    chunks = sum(-(-size // CHUNK) for size in sizes)
    with tqdm(total=chunks * CHUNK, unit="image", desc=dataset.title, delay=1, leave=False) as bar:
        splits = {split: _split(split, size, bar) for split, size in zip(BLOCKS, sizes, strict=True)}
    return ImageData(name=dataset.name, classes=tuple("0123456789"), source=f"{dataset.title} (embedded)", **splits)


def make_chunk(split: str, number: int, originals: Originals | None = None) -> Arrays:
    """Make images number ``1000 * number`` to ``1000 * number + 999`` of one split, without the cache.

    Parameters
    ----------
    split : {"train", "validation", "test"}
    number : int
        Which thousand.
    originals : Originals, optional
        Other digits and photographs than scikit-learn's.

    Returns
    -------
    dict
        ``images`` uint8 (1000, 3, 32, 32) and ``labels`` int64 (1000,).
    """
    originals = scikit_learn_originals() if originals is None else originals
    chance = _Chance(VERSION, list(BLOCKS).index(split), number)
    first, last = BLOCKS[split]
    labels = (np.arange(CHUNK) % 10)[chance.order(CHUNK)]  # (N,)
    which = np.empty(CHUNK, np.int64)
    for digit in range(10):
        pool = first + np.flatnonzero(originals.labels[first:last] == digit)
        places = np.flatnonzero(labels == digit)
        which[places] = pool[chance.below(len(pool), len(places))]

    scenes = _scenes(chance, _tiles(split, originals.photographs))  # (N, 32, 32, 3)
    strokes = _strokes(chance, originals.digits[which])  # (N, 32, 32), 0 to 256
    colours = _colours(chance, scenes)  # (N, 3)
    opacity = strokes[..., None]
    images = (scenes * (256 - opacity) + colours[:, None, None, :] * opacity + 128) >> 8
    return {
        "images": np.ascontiguousarray(images.astype(np.uint8).transpose(0, 3, 1, 2)),
        "labels": labels.astype(np.int64),
    }


def fingerprint(originals: Originals | None = None) -> str:
    """SHA-256 of the first thousand training images, made anew, as 64 hexadecimal digits.

    The registry holds the value for scikit-learn's originals. Another value means that this machine's decoder of
    JPEG photographs rounds differently, so results differ a little from the published ones.
    """
    return hashlib.sha256(make_chunk("train", 0, originals)["images"].tobytes()).hexdigest()


class Originals(NamedTuple):
    """What the images are made of.

    Attributes
    ----------
    digits : ndarray, int32, (1797, 8, 8)
        Ink from 0 to 16.
    labels : ndarray, int64, (1797,)
        Which digit each is.
    photographs : tuple of ndarray, uint8, (427, 640, 3)
    """

    digits: np.ndarray
    labels: np.ndarray
    photographs: tuple[np.ndarray, ...]


@cache
def scikit_learn_originals() -> Originals:
    """The digits and photographs that every installation of scikit-learn carries."""
    from sklearn.datasets import load_digits, load_sample_images  # here, because importing it takes a second

    digits = load_digits()
    return Originals(digits.images.astype(np.int32), digits.target.astype(np.int64), tuple(load_sample_images().images))


def _split(split: str, size: int, bar: tqdm) -> Split:
    images = torch.empty(size, 3, SIDE, SIDE, dtype=torch.uint8)
    labels = torch.empty(size, dtype=torch.int64)
    for start in range(0, size, CHUNK):
        entry = f"digits_in_scenes-v{VERSION}/{split}-{start // CHUNK:02d}"
        arrays = read_arrays(entry)
        if arrays is None:
            arrays = make_chunk(split, start // CHUNK)
            write_arrays(entry, arrays)
        stop = min(start + CHUNK, size)
        images[start:stop] = torch.from_numpy(arrays["images"][: stop - start])
        labels[start:stop] = torch.from_numpy(arrays["labels"][: stop - start])
        bar.update(CHUNK)
    return Split(images, labels)


class _Chance:
    """Whole numbers by chance, from the raw words of PCG64, whose stream no version of NumPy changes."""

    def __init__(self, *seed: int) -> None:
        self._words = np.random.PCG64(np.random.SeedSequence(seed))

    def below(self, bound: int, count: int) -> np.ndarray:
        """`count` numbers from 0 to `bound` − 1, int32."""
        words = self._words.random_raw(count) >> np.uint64(32)
        return ((words * np.uint64(bound)) >> np.uint64(32)).astype(np.int32)

    def between(self, least: int, most: int, count: int) -> np.ndarray:
        """`count` numbers from `least` to `most`, both included, int32."""
        return least + self.below(most - least + 1, count)

    def order(self, count: int) -> np.ndarray:
        """A permutation of 0 to `count` − 1."""
        return np.argsort(self._words.random_raw(count), kind="stable")


def _tiles(split: str, photographs: tuple[np.ndarray, ...]) -> np.ndarray:
    """The tiles of all photographs that belong to one split, int32 (tiles, 80, 80, 3)."""
    tiles = []
    for photograph in photographs:
        rows, columns = photograph.shape[0] // TILE, photograph.shape[1] // TILE
        for i in range(rows):
            for j in range(columns):
                if SPLIT_OF_TILE[(3 * i + j) % len(SPLIT_OF_TILE)] == split:
                    tiles.append(photograph[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE])
    return np.stack(tiles).astype(np.int32)


def _scenes(chance: _Chance, tiles: np.ndarray) -> np.ndarray:
    """One crop of a tile for each image, mirrored or not, brighter or darker: int32 (N, 32, 32, 3), 0 to 255.

    Half of the crops take 32×32 pixels as they are, half take 64×64 and average every 2×2 of them.
    """
    n = CHUNK
    tile = chance.below(len(tiles), n)[:, None, None]
    halved = chance.below(2, n) == 1
    top, left = (
        np.where(halved, chance.below(TILE - 2 * SIDE + 1, n), chance.below(TILE - SIDE + 1, n)) for _ in range(2)
    )
    pixel = np.arange(SIDE, dtype=np.int32)
    columns = np.where(chance.below(2, n)[:, None] == 1, pixel[::-1], pixel)  # (N, 32)

    scenes = np.empty((n, SIDE, SIDE, 3), np.int32)
    whole = ~halved
    r = (top[whole, None] + pixel)[:, :, None]
    c = (left[whole, None] + columns[whole])[:, None, :]
    scenes[whole] = tiles[tile[whole], r, c]
    r = (top[halved, None] + 2 * pixel)[:, :, None]
    c = (left[halved, None] + 2 * columns[halved])[:, None, :]
    quarters = sum(tiles[tile[halved], r + i, c + j] for i in (0, 1) for j in (0, 1))
    scenes[halved] = (quarters + 2) >> 2

    contrast = chance.between(160, 256, n)[:, None, None, None]  # of 256
    brightness = chance.between(-30, 30, n)[:, None, None, None]
    return np.clip((((scenes - 128) * contrast) >> 8) + 128 + brightness, 0, 255)


def _strokes(chance: _Chance, digits: np.ndarray) -> np.ndarray:
    """Each digit scaled, shifted and slanted over 32×32 pixels: opacity, int32 (N, 32, 32), 0 to 256.

    Positions are counted in 1/256 of a pixel or of a cell of the 8×8 original; between cells the ink is interpolated
    linearly in both directions.
    """
    n = CHUNK
    height = chance.between(20, 28, n)  # pixels that the eight rows of cells cover
    width = (height * chance.between(160, 256, n)) >> 8
    slant = chance.between(-5, 5, n)  # sixteenths of a column per row
    middle = 256 * SIDE // 2
    across, down = (middle + chance.between(-3 * 256, 3 * 256, n) for _ in range(2))

    pixel = 256 * np.arange(SIDE, dtype=np.int32) + 128  # centres
    rows = (pixel[None, :] - down[:, None])[:, :, None]  # (N, 32, 1)
    columns = (pixel[None, :] - across[:, None])[:, None, :] + ((slant[:, None, None] * rows) >> 4)  # (N, 32, 32)
    inked = np.zeros((n, 10, 10), np.int32)  # a margin of one empty cell
    inked[:, 1:9, 1:9] = digits
    # The middle of the digit is the border between cells 4 and 5; a cell's ink sits at its centre.
    v = np.clip(rows * 8 // height[:, None, None] + 5 * 256 - 128, 0, 9 * 256 - 1)
    u = np.clip(columns * 8 // width[:, None, None] + 5 * 256 - 128, 0, 9 * 256 - 1)
    (i, p), (j, q) = (v >> 8, v & 255), (u >> 8, u & 255)
    k = np.arange(n)[:, None, None]
    upper = inked[k, i, j] * (256 - q) + inked[k, i, j + 1] * q
    lower = inked[k, i + 1, j] * (256 - q) + inked[k, i + 1, j + 1] * q
    ink = (upper * (256 - p) + lower * p) >> 12  # 0 to 256
    sharp = np.clip(2 * ink - 96, 0, 256)
    return (sharp * chance.between(160, 256, n)[:, None, None]) >> 8


def _colours(chance: _Chance, scenes: np.ndarray) -> np.ndarray:
    """A colour for each digit, int32 (N, 3): usually lighter than its scene, sometimes darker.

    How often it is darker sets how hard the set is for a linear classifier, for which a dark digit on a light ground
    is the opposite of a light one on a dark ground.
    """
    n = CHUNK
    mean = scenes.sum(axis=(1, 2, 3)) // (3 * SIDE * SIDE)
    sign = np.where(chance.below(100, n) < 88, 1, -1)
    lightness = mean + sign * chance.between(50, 140, n)
    tint = chance.between(-30, 30, 3 * n).reshape(n, 3)
    return np.clip(lightness[:, None] + tint, 0, 255)
