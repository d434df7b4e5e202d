"""Images for a notebook: CIFAR-10 where it can be had, else the embedded set."""

from __future__ import annotations

import os
from collections.abc import Callable

from .cifar10 import cifar10_on_this_machine, load_cifar10
from .digits_in_scenes import load_digits_in_scenes
from .download import PROBE_SECONDS, reachable
from .errors import DownloadError
from .image_data import ImageData
from .registry import registered

ENVIRONMENT_VARIABLE = "COURSE_DATA_SET"
LOADERS: dict[str, Callable[..., ImageData]] = {"cifar10": load_cifar10, "digits_in_scenes": load_digits_in_scenes}


def load_images(
    name: str = "auto", *, train: int | None = None, validation: int | None = None, test: int | None = None
) -> ImageData:
    """Load an image set and say in one sentence which one and why.

    Parameters
    ----------
    name : {"auto", "cifar10", "digits_in_scenes"}
        ``"auto"`` takes what the environment variable ``COURSE_DATA_SET`` names; without it CIFAR-10 if this machine
        has it or can download it, and else digits in scenes.
    train, validation, test : int, optional
        Numbers of images; by default what the set's own loader takes.

    Returns
    -------
    ImageData
        Ten classes; images uint8 (N, 3, 32, 32), labels int64 (N,).

    Raises
    ------
    ValueError
        If there is no such set, or a number of images cannot be had.
    DataError
        If the set that was named is missing, damaged or out of reach.
    """
    sizes = {
        split: size
        for split, size in (("train", train), ("validation", validation), ("test", test))
        if size is not None
    }
    if name != "auto":
        return _loader(name, "name")(**sizes)
    chosen = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if chosen and chosen != "auto":
        loader = _loader(chosen, ENVIRONMENT_VARIABLE)
        print(f"Taking {registered(chosen).title}, because {ENVIRONMENT_VARIABLE} says so.")
        return loader(**sizes)

    cifar10 = registered("cifar10")
    where = cifar10_on_this_machine()
    if where:
        print(f"Taking {cifar10.title}, which is on this machine ({where}).")
        return LOADERS[cifar10.name](**sizes)
    reason = "is neither on this machine nor within reach"
    if reachable(cifar10.urls, PROBE_SECONDS):
        print(f"Taking {cifar10.title}, which is downloaded once ({(cifar10.size or 0) / 1e6:.0f} MB).")
        try:
            return LOADERS[cifar10.name](**sizes)
        except DownloadError as error:
            reason = f"could not be downloaded ({error})"
    print(
        f"Taking digits in scenes, the embedded set, because {cifar10.title} {reason}; "
        "`course data --help` says how to get it."
    )
    return LOADERS["digits_in_scenes"](**sizes)


def _loader(name: str, argument: str) -> Callable[..., ImageData]:
    if name not in LOADERS:
        raise ValueError(f"load_images: {argument} is one of auto, {', '.join(LOADERS)}, not {name!r}.")
    return LOADERS[name]
