"""Surnames of 18 languages, for nets that read a name letter by letter."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from . import store
from .registry import registered


class NameSplit(NamedTuple):
    """One split, which unpacks: ``names, labels = surnames.train``.

    Attributes
    ----------
    names : tuple of str
        N surnames as they are spelt in the files.
    labels : Tensor, int64, (N,)
        Indices of languages.
    """

    names: tuple[str, ...]
    labels: Tensor

    def __repr__(self) -> str:
        return f"NameSplit({len(self.names):,} names)"


@dataclass(frozen=True, repr=False)
class SurnameData:
    """Surnames and their languages in two splits.

    Attributes
    ----------
    name : str
        The name of the set in the registry.
    classes : tuple of str
        The K languages in alphabetical order; label k means ``classes[k]``.
    source : str
        Where the names come from, for the caption of a figure.
    train, validation : NameSplit
        Each has `names` and `labels`.
    """

    name: str
    classes: tuple[str, ...]
    source: str
    train: NameSplit
    validation: NameSplit

    def __repr__(self) -> str:
        sizes = f"train {len(self.train.names):,}, validation {len(self.validation.names):,}"
        return f"SurnameData({self.name}: {sizes}; {len(self.classes)} languages)"


def load_surnames(validation: int = 14, *, seed: int = 0, download: bool = True) -> SurnameData:
    """Load surnames in 18 languages.

    A name that stands several times in a language's file is taken once (2,000 lines of Arabic names are 108
    different ones), so that no name is both in the training and in the validation names of its language. The same
    name may well occur in several languages. Lines that are no names (empty ones, e-mail addresses) are dropped.

    Parameters
    ----------
    validation : int
        How many names of each language to set aside, 1 or more; the rarest language has some seventy names.
    seed : int
        Which ones: the same number sets the same names aside on every machine.
    download : bool
        Download the set if this machine lacks it.

    Returns
    -------
    SurnameData
        With as many validation names of each language, and all others to train.

    Raises
    ------
    ValueError
        If `validation` is not a number of names that every language can spare.
    DataError
        If the set is missing, damaged or out of reach; the message says what to do. No embedded set replaces it.
    """
    dataset = registered("surnames")
    try:
        spared = -1 if isinstance(validation, bool) else operator.index(validation)
    except TypeError:
        spared = -1
    if spared < 1:
        raise ValueError(f"load_surnames: validation is a number of names from 1 on, not {validation!r}.")

    root = _root(download)
    generator = torch.Generator("cpu").manual_seed(seed)
    languages = sorted(Path(file.path).stem for file in dataset.files)
    files = {Path(file.path).stem: root / file.path for file in dataset.files}
    train: list[tuple[str, int]] = []
    aside: list[tuple[str, int]] = []
    for k, language in enumerate(languages):
        names = _names(files[language])
        if spared >= len(names):
            raise ValueError(
                f"load_surnames: validation={spared}, but there are only {len(names)} {language} names, and some must "
                "be left to train."
            )
        for place, index in enumerate(torch.randperm(len(names), generator=generator, device="cpu").tolist()):
            (aside if place < spared else train).append((names[index], k))
    return SurnameData(dataset.name, tuple(languages), dataset.title, _split(train), _split(aside))


def _names(path: Path) -> list[str]:
    """The different names of one file, in the order of their first occurrence."""
    lines = (" ".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys(line for line in lines if line and "@" not in line))


def _split(examples: list[tuple[str, int]]) -> NameSplit:
    names = tuple(name for name, _ in examples)
    return NameSplit(names, torch.tensor([k for _, k in examples], dtype=torch.int64))


def _root(download: bool) -> Path:
    """The folder that holds the set, which is downloaded where this machine has it not."""
    dataset = registered("surnames")
    holding = store.inspect(dataset)
    if holding.root is not None and holding.sound:
        return holding.root
    if holding.damaged:
        raise store.damaged(dataset, holding.fault)
    if not download:
        raise store.missing(dataset)
    return store.fetch(dataset)
