"""A CIFAR-10 of a few images, in the format of the real one, with a registry of its own."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def write_small_cifar10(root: Path, images: int = 12) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write six batches of `images` images each below `root`; return pixels (N, 3, 32, 32) and labels of each."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    contents = {}
    for name in BATCHES:
        data = numbers.integers(0, 256, (images, 3072), dtype=np.uint8)
        labels = numbers.integers(0, 10, images)
        batch = {"batch_label": name, "labels": labels.tolist(), "data": data, "filenames": []}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        contents[name] = (data.reshape(images, 3, 32, 32), labels)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES), "num_vis": 3072}, protocol=2))
    return contents


def pack(root: Path, archive: Path) -> bytes:
    """Pack the set below `root` as the publisher does, and return the bytes."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / FOLDER, FOLDER)
    return archive.read_bytes()


def write_registry(path: Path, root: Path, archive: bytes, urls: list[str], images: int = 12) -> Path:
    """Write a registry with this small set as ``cifar10`` and the embedded set."""
    lines = [
        "[cifar10]",
        'title = "CIFAR-10"',
        'kind = "archive"',
        'what = "a few images"',
        'licence = "none"',
        'citation = "nobody"',
        'home = "nowhere"',
        f'url = "{urls[0]}"',
        f"mirrors = {urls[1:]}",
        f'download_name = "{ARCHIVE}"',
        f"size = {len(archive)}",
        f'md5 = "{hashlib.md5(archive).hexdigest()}"',
        f'sha256 = "{hashlib.sha256(archive).hexdigest()}"',
    ]
    for name in (*BATCHES, "batches.meta"):
        content = (root / FOLDER / name).read_bytes()
        role = {"test_batch": "test", "batches.meta": "classes"}.get(name, "train")
        lines += [
            "[[cifar10.files]]",
            f'path = "{FOLDER}/{name}"',
            f'role = "{role}"',
            f"images = {images if role != 'classes' else 0}",
            f"size = {len(content)}",
            f'md5 = "{hashlib.md5(content).hexdigest()}"',
        ]
    lines += [
        "[digits_in_scenes]",
        'title = "Digits in scenes"',
        'kind = "embedded"',
        'what = "digits"',
        'licence = "free"',
        'citation = "nobody"',
        'home = "nowhere"',
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
