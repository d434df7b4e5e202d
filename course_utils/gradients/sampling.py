"""Which entries of a parameter to check."""

import torch
from torch import Tensor


def _latin_hypercube(shape: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Entries spread evenly over every axis at once.  -> (count,) flat indices, repeats possible

    Each axis is cut into `count` equal strata, one draw falls into each, and the axes are shuffled
    independently (McKay, Beckman and Conover, Technometrics 21(2), 1979): an axis shorter than `count`
    has each of its rows met about equally often, so that no class, time step or channel is left out.
    """
    flat = torch.zeros(count, dtype=torch.int64)
    for length in shape:
        strata = torch.randperm(count, generator=generator).double()
        position = (strata + torch.rand(count, generator=generator, dtype=torch.float64)) / count
        flat = flat * length + (position * length).long().clamp_(max=length - 1)
    return flat


def sample_entries(analytic: Tensor, count: int | None, generator: torch.Generator) -> Tensor:
    """A seeded, stratified sample of a parameter's entries.

    Always has the first, the last and the one whose analytic derivative is the largest in magnitude.
    Three quarters of the rest are spread over the positions, one quarter over the magnitudes of the
    non-zero derivatives, so that a sparse gradient is not judged by its zeros alone.

    Parameters
    ----------
    analytic : Tensor
        The gradient to be judged, any shape.
    count : int or None
        How many entries; all of them where None or where there are no more than that.
    generator : torch.Generator
        Where the draws come from.

    Returns
    -------
    Tensor
        (m,) int64, sorted flat indices without repeats, m ≤ max(count, 3).
    """
    size = analytic.numel()
    if count is None or size <= max(count, 3):
        return torch.arange(size)
    magnitude = analytic.detach().abs().flatten()
    always = torch.tensor([0, size - 1, int(magnitude.argmax())])

    chosen = set(always.tolist())
    ranked = magnitude.argsort(descending=True)[: int((magnitude > 0).sum())]
    if len(ranked):
        quarter = min(count // 4, len(ranked))
        strata = torch.arange(quarter, dtype=torch.float64)
        draws = torch.rand(quarter, generator=generator, dtype=torch.float64)
        picks = ranked[((strata + draws) / max(quarter, 1) * len(ranked)).long()]
        for flat in picks.tolist():
            if len(chosen) < count:
                chosen.add(flat)
    while len(chosen) < count:
        for flat in _latin_hypercube(tuple(analytic.shape), count - len(chosen), generator).tolist():
            chosen.add(flat)
    return torch.tensor(sorted(chosen))


def lines_and_grid(
    shape: tuple[int, ...], through: tuple[int, ...], generator: torch.Generator, limit: int = 200
) -> Tensor:
    """Further entries that show how a fault is laid out: lines along each axis, and a sub-grid.

    Parameters
    ----------
    shape : tuple of int
        The parameter's shape.
    through : tuple of int
        The entry the lines go through: the worst one.
    generator : torch.Generator
        Where the draws come from.
    limit : int
        About how many entries at most.

    Returns
    -------
    Tensor
        (m,) int64 sorted flat indices.
    """
    if not shape:
        return torch.zeros(1, dtype=torch.int64)

    def along(axis: int, count: int) -> list[int]:
        length = shape[axis]
        drawn = torch.randperm(length, generator=generator)[:count].tolist()
        return sorted({0, length - 1, through[axis], *drawn})

    grid_side = max(2, round((limit / 2) ** (1 / len(shape))) - 2)
    flat = torch.zeros(1, dtype=torch.int64)
    for axis in range(len(shape)):
        flat = (flat[:, None] * shape[axis] + torch.tensor(along(axis, grid_side))).flatten()
    found = set(flat.tolist())
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    here = sum(i * s for i, s in zip(through, strides, strict=True))
    for axis in range(len(shape)):
        for index in along(axis, limit // (4 * len(shape))):
            found.add(here + (index - through[axis]) * strides[axis])
    return torch.tensor(sorted(found))
