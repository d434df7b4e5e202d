"""CIFAR-10, through torchvision, verified once and then read from an array cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from . import store
from .array_cache import Arrays, has_arrays, read_arrays, write_arrays
from .image_data import ImageData, Split, checked_sizes
from .registry import DataFile, DataSet, registered


def load_cifar10(
    train: int = 10_000, validation: int = 10_000, test: int = 10_000, *, download: bool = True
) -> ImageData:
    """Load CIFAR-10.

    The training images come in the order of the files: `train` takes the first ones of the 50,000 and
    `validation` those that follow. So the default is the division of the course's first assignment
    (``data_batch_1`` to train, ``data_batch_2`` to validate), and ``train=45_000, validation=5_000`` or
    ``train=49_000, validation=1_000`` use all five files. The order of the files is random already; nothing is
    shuffled here.

    Parameters
    ----------
    train, validation : int
        Numbers of images; at most 50,000 together.
    test : int
        Number of images; the first ones of the 10,000 test images.
    download : bool
        Download the set if this machine lacks it.

    Returns
    -------
    ImageData
        Ten classes; images uint8 (N, 3, 32, 32), labels int64 (N,).

    Raises
    ------
    ValueError
        If a number of images cannot be had.
    DataError
        If the set is missing, damaged or out of reach; the message says what to do.

    Notes
    -----
    The set is looked for in ``$COURSE_DATA`` and then in this user's cache. Its first use verifies every file
    against the registry's checksums and writes the arrays to a cache, from which later loads read.

    References
    ----------
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, chapter 3.
    """
    dataset = registered("cifar10")
    training_files, test_files = dataset.files_with_role("train"), dataset.files_with_role("test")
    in_training = sum(file.images for file in training_files)
    in_test = sum(file.images for file in test_files)
    train, validation, test = checked_sizes(
        "load_cifar10", train=(train, in_training), validation=(validation, in_training), test=(test, in_test)
    )
    if train + validation > in_training:
        raise ValueError(
            f"load_cifar10: train={train} and validation={validation} are {train + validation:,} images together, "
            f"but there are {in_training:,} training images; ask for fewer."
        )

    batches = _Batches(dataset, download)
    splits = {
        "train": batches.examples(training_files, 0, train),
        "validation": batches.examples(training_files, train, train + validation),
        "test": batches.examples(test_files, 0, test),
    }
    return ImageData(name=dataset.name, classes=batches.classes, source=dataset.title, **splits)


def cifar10_on_this_machine() -> str:
    """Where this machine has CIFAR-10, in words, or nothing; the sizes of the files are looked at, not their bytes."""
    dataset = registered("cifar10")
    root = store.find(dataset)
    if root is not None:
        return str(root)
    if all(has_arrays(_entry(dataset, file.path)) for file in dataset.files if file.images):
        return "the cache of an earlier load"
    return ""


class _Batches:
    """The files of the set as arrays, from the cache where it has them, else from torchvision."""

    def __init__(self, dataset: DataSet, download: bool) -> None:
        self.dataset = dataset
        self.download = download
        self.classes: tuple[str, ...] = ()
        self._read: dict[str, Arrays] = {}

    def examples(self, files: Sequence[DataFile], start: int, stop: int) -> Split:
        """Images number `start` to `stop` − 1 of `files` laid end to end."""
        images = torch.empty(stop - start, 3, 32, 32, dtype=torch.uint8)
        labels = torch.empty(stop - start, dtype=torch.int64)
        offset = -start  # where the file's first image would go
        for file in files:
            first, last = max(offset, 0), min(offset + file.images, stop - start)
            if first < last:
                arrays = self._arrays(file)
                self.classes = tuple(arrays["classes"].tolist())
                images[first:last] = torch.from_numpy(arrays["images"][first - offset : last - offset])
                labels[first:last] = torch.from_numpy(arrays["labels"][first - offset : last - offset])
            offset += file.images
        return Split(images, labels)

    def _arrays(self, file: DataFile) -> Arrays:
        if file.path not in self._read:
            cached = read_arrays(_entry(self.dataset, file.path))
            if cached is not None:
                self._read = {file.path: cached}  # the next split may begin in the middle of this file
            else:
                self._read = _unpickled(self.dataset, self._root())
                for path, arrays in self._read.items():
                    write_arrays(_entry(self.dataset, path), arrays)
        return self._read[file.path]

    def _root(self) -> Path:
        holding = store.inspect(self.dataset)
        if holding.root is not None and holding.sound:
            return holding.root
        if holding.damaged:
            raise store.damaged(self.dataset, holding.fault)
        if not self.download:
            raise store.missing(self.dataset)
        return store.fetch(self.dataset)


def _entry(dataset: DataSet, path: str) -> str:
    """The cache entry of one file. Its name holds the checksum, so an entry can only be of verified bytes."""
    key = hashlib.sha256("".join(f"{f.path}:{f.md5};" for f in dataset.files).encode()).hexdigest()[:8]
    return f"{dataset.name}-{key}/{Path(path).name}"


def _unpickled(dataset: DataSet, root: Path) -> dict[str, Arrays]:
    """All images and labels by file, read and verified by torchvision."""
    from torchvision.datasets import CIFAR10  # here, because importing it takes longer than a load from the cache

    class Registered(CIFAR10):
        """torchvision's class with the file names and checksums of our registry."""

        base_folder = str(Path(dataset.files[0].path).parent)
        train_list = [[Path(f.path).name, f.md5] for f in dataset.files_with_role("train")]  # noqa: RUF012
        test_list = [[Path(f.path).name, f.md5] for f in dataset.files_with_role("test")]  # noqa: RUF012
        meta = {  # noqa: RUF012
            "filename": Path(dataset.files_with_role("classes")[0].path).name,
            "key": "label_names",
            "md5": dataset.files_with_role("classes")[0].md5,
        }

    unpickled: dict[str, Arrays] = {}
    for role in ("train", "test"):
        try:
            part = Registered(root, train=role == "train")
        except RuntimeError as error:  # torchvision does not say which file it is
            fault = store.inspect(dataset).fault or f"{root} changed while it was read"
            raise store.damaged(dataset, fault) from error
        # torchvision shows the images as (N, 32, 32, 3); this turns them back without moving a byte.
        images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))  # (N, 3, 32, 32)
        labels = np.asarray(part.targets, dtype=np.int64)  # (N,)
        start = 0
        for file in dataset.files_with_role(role):
            stop = start + file.images
            unpickled[file.path] = {
                "images": images[start:stop],
                "labels": labels[start:stop],
                "classes": np.array(part.classes),
            }
            start = stop
    return unpickled
