"""Seeded random inputs for criteria."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draw:
    """A source of random inputs; the same seed gives the same inputs.

    Every criterion gets a `Draw` of its own.  In a student's notebook the seed follows from the criterion's
    name, so a failure can be looked at again; under grading it also depends on a secret.

    Parameters
    ----------
    seed : int
        Seed of the stream, 0 ≤ seed < 2⁶³.
    dtype : torch.dtype
        Float type of what is drawn where a method is not told otherwise.
    """

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        self.seed = seed
        self.dtype = dtype
        self._stream = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """Gaussian numbers of mean `shift` and standard deviation `scale`, of the given shape (() gives 0-d)."""
        sample = (
            torch.randn(*shape, generator=self._stream, dtype=torch.float64)
            if shape
            else torch.randn((), generator=self._stream, dtype=torch.float64)
        )
        return (sample * scale + shift).to(self.dtype)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers uniform on [low, high), of the given shape."""
        sample = torch.rand(shape, generator=self._stream, dtype=torch.float64)
        return (low + (high - low) * sample).to(self.dtype)

    def number(self, low: float, high: float) -> float:
        """One Python float uniform on [low, high)."""
        return low + (high - low) * torch.rand((), generator=self._stream, dtype=torch.float64).item()

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Integers from low to high − 1, of the given shape."""
        return torch.randint(low, high, shape, generator=self._stream).to(dtype)

    def integer(self, low: int, high: int) -> int:
        """One Python int from low to high − 1."""
        return int(self.integers(low, high))

    def labels(self, n: int, k: int) -> Tensor:
        """n class labels, int64, from 0 to k − 1; with n ≥ 2 at least two classes occur."""
        y = self.integers(0, k, n)
        if n >= 2 and bool((y == y[0]).all()):
            y[-1] = (y[0] + 1) % k
        return y

    def signs(self, n: int) -> Tensor:
        """n labels from {−1, +1} in the draw's float type; with n ≥ 2 both occur."""
        y = self.integers(0, 2, n) * 2 - 1
        if n >= 2 and bool((y == y[0]).all()):
            y[-1] = -y[0]
        return y.to(self.dtype)

    def permutation(self, n: int) -> Tensor:
        """The integers 0 … n − 1 in random order."""
        return torch.randperm(n, generator=self._stream)

    def generator(self) -> torch.Generator:
        """A fresh generator to hand to a student's function."""
        return torch.Generator().manual_seed(self.integer(0, 2**31))


def away_from_zero(draw: Draw, *shape: int) -> Tensor:
    """Numbers of random sign and of magnitude 0.5 to 2, which cannot be overlooked."""
    return draw.uniform(0.5, 2.0, *shape) * (draw.integers(0, 2, *shape) * 2 - 1)


def strided(tensor: Tensor) -> Tensor:
    """The same values in memory that is not contiguous: a view of every second column of a larger tensor."""
    if tensor.ndim == 0:
        return tensor
    columns = tensor.shape[-1]
    spread = torch.full((*tensor.shape[:-1], 2 * columns + 1), 7, dtype=tensor.dtype)  # no `view` joins its rows
    view = spread[..., : 2 * columns : 2]
    view.copy_(tensor)
    return view


def as_dtype(values: Sequence[object], dtype: torch.dtype) -> tuple[object, ...]:
    """The same arguments with every float tensor among them cast to `dtype`."""
    return tuple(v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for v in values)
