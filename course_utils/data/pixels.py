"""Images as rows of a matrix, and back."""

from __future__ import annotations

import torch
from torch import Tensor

SHAPE = (3, 32, 32)
"""Channels, height and width of every image of the course."""
FEATURES = 3 * 32 * 32


def flatten_images(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """One row for each image, with values in [0, 1].

    Parameters
    ----------
    images : Tensor, (N, 3, 32, 32)
        uint8 with values 0 to 255, or floating point with values in [0, 1] already.
    dtype : torch.dtype
        A floating-point type.

    Returns
    -------
    Tensor, `dtype`, (N, 3072)
        The 1,024 red values of an image, row by row, then the green and the blue ones.

    Raises
    ------
    ValueError
        If the shape or a type is another.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1:] != SHAPE:
        raise ValueError(f"flatten_images takes images of shape (N, 3, 32, 32), not {_described(images)}.")
    if not dtype.is_floating_point:
        raise ValueError(f"flatten_images makes floating-point rows, so dtype cannot be {dtype}.")
    rows = images.reshape(len(images), FEATURES).to(dtype)  # (N, 3072), a copy unless images has dtype already
    if images.dtype == torch.uint8:
        return rows.div_(255)
    if images.is_floating_point():
        return rows
    raise ValueError(f"flatten_images takes uint8 or floating-point images, not {images.dtype}.")


def unflatten_images(X: Tensor) -> Tensor:
    """The images that `flatten_images` made rows of.

    Parameters
    ----------
    X : Tensor, (N, 3072)
        Of any type, which is kept.

    Returns
    -------
    Tensor, (N, 3, 32, 32)

    Raises
    ------
    ValueError
        If the shape is another.
    """
    if not isinstance(X, Tensor) or X.ndim != 2 or X.shape[1] != FEATURES:
        raise ValueError(f"unflatten_images takes rows of shape (N, 3072), not {_described(X)}.")
    return X.reshape(len(X), *SHAPE)


def _described(given: object) -> str:
    return f"{tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
