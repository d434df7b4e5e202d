"""Arrays kept on disk, so that a set is verified and unpacked, or made, only once.

Each entry is an uncompressed ``.npz`` file. It carries a CRC-32 of every array, which reading checks, so an entry
that was cut short or changed is noticed and made again.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from .errors import DataError
from .roots import data_roots, writable_root

Arrays = dict[str, np.ndarray]


def read_arrays(entry: str) -> Arrays | None:
    """The arrays stored as `entry` under any data root, or None if no root has a sound copy."""
    for root in data_roots():
        try:
            with np.load(_path(root, entry), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            continue  # absent or damaged: another root may have it, else the caller makes it again
    return None


def has_arrays(entry: str) -> bool:
    """Whether some data root has a file for `entry`; whether it is sound only reading it tells."""
    return any(_path(root, entry).is_file() for root in data_roots())


def write_arrays(entry: str, arrays: Arrays) -> bool:
    """Store `arrays` as `entry`; False if no place can take them, which costs time later and nothing else.

    The file appears whole or not at all, whatever interrupts the writing.
    """
    try:
        path = _path(writable_root(), entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    except (OSError, DataError):
        return False
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        os.replace(name, path)
    except OSError:
        return False
    finally:
        Path(name).unlink(missing_ok=True)
    return True


def _path(root: Path, entry: str) -> Path:
    return root / "cache" / f"{entry}.npz"
