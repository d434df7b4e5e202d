"""What a loader of images returns."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import NamedTuple, SupportsIndex

from torch import Tensor


class Split(NamedTuple):
    """One split, which unpacks: ``images, labels = data.train``.

    Attributes
    ----------
    images : Tensor, uint8, (N, 3, 32, 32)
        Channels are red, green, blue; values 0 to 255.
    labels : Tensor, int64, (N,)
        Class indices.
    """

    images: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.images.shape[1:]))
        return f"Split({len(self.images):,} images of {shape}, {self.images.dtype})"


@dataclass(frozen=True, repr=False)
class ImageData:
    """Images and labels in three splits.

    Attributes
    ----------
    name : str
        The name of the set in the registry.
    classes : tuple of str
        The K class names; label k means ``classes[k]``.
    source : str
        Where the images come from, for the caption of a figure.
    train, validation, test : Split
        Each has `images`, uint8 (N, 3, 32, 32), and `labels`, int64 (N,).
    """

    name: str
    classes: tuple[str, ...]
    source: str
    train: Split
    validation: Split
    test: Split

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split).images):,}" for split in ("train", "validation", "test"))
        return f"ImageData({self.name} from {self.source}: {sizes}; {len(self.classes)} classes)"


def checked_sizes(loader: str, **sizes: tuple[SupportsIndex, int]) -> tuple[int, ...]:
    """The numbers of images asked for, as ints.

    Parameters
    ----------
    loader : str
        The function that was called, for the message.
    **sizes : (number, int)
        For each argument what was given and the most there is.

    Raises
    ------
    ValueError
        If one is not a whole number from 0 to the most there is, or all are 0.
    """
    checked = []
    for name, (size, most) in sizes.items():
        try:
            number = -1 if isinstance(size, bool) else operator.index(size)
        except TypeError:
            number = -1
        if not 0 <= number <= most:
            raise ValueError(f"{loader}: {name} is a number of images from 0 to {most:,}, not {size!r}.")
        checked.append(number)
    if not any(checked):
        raise ValueError(f"{loader}: {', '.join(sizes)} are all 0; ask for at least one image.")
    return tuple(checked)
