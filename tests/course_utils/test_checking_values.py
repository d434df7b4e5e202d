"""What crosses between a student's function and a criterion: plain values only."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from course_utils.checking.values import Foreign, changes, describe, is_plain_tensor, plain, snapshot, type_name


class Lying(torch.Tensor):
    """A tensor that says yes to everything."""

    def __eq__(self, other: object) -> Any:
        return True

    __hash__ = torch.Tensor.__hash__


@pytest.mark.parametrize("value", [None, True, 3, -2.5, "text", (1, [2.0, None]), {"a": (1,), 2: "b"}])
def test_plain_values_stay_what_they_are(value: object) -> None:
    got = plain(value)
    assert got == value and type(got) is type(value)


def test_a_tensor_comes_out_detached_independent_and_without_its_class() -> None:
    given = torch.ones(3, requires_grad=True)
    got = plain(given.as_subclass(Lying))
    assert type(got) is torch.Tensor and not got.requires_grad
    got[0] = 7
    assert given[0].item() == 1


def test_numpys_numbers_and_arrays_become_arrays() -> None:
    assert type(plain(np.float32(2))) is np.ndarray
    assert plain(np.arange(3)).tolist() == [0, 1, 2]


def test_a_subclass_of_float_becomes_a_float() -> None:
    assert type(plain(np.float64(0.5))) is float


class Thing:
    """An object of no plain type."""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Thing(), "Thing"),
        (lambda: 0, "function"),
        ({(1, 2): 3}, "dict"),
        ({1.5}, "set"),
        (torch.eye(2).to_sparse(), "sparse_coo"),
        (torch.ones(2, device="meta"), "meta"),
        (np.array([Thing()]), "numpy.ndarray"),
        (3 + 4j, "complex"),
        (iter([1]), "list_iterator"),
    ],
)
def test_everything_else_becomes_a_note(value: object, name: str) -> None:
    got = plain(value)
    assert isinstance(got, Foreign) and name in got.type_name
    assert got.type_name in describe(got)


def test_what_is_not_plain_can_be_wrapped() -> None:
    got = plain([1, Thing()], wrap=lambda value: Foreign(type_name(value), 4))
    assert got[0] == 1 and got[1].handle == 4


def test_nesting_is_bounded() -> None:
    value: Any = 1
    for _ in range(50):
        value = [value]
    depth, got = 0, plain(value)
    while isinstance(got, list):
        got, depth = got[0], depth + 1
    assert isinstance(got, Foreign) and depth == 12


def test_is_plain_tensor() -> None:
    assert is_plain_tensor(torch.ones(2)) and is_plain_tensor(torch.ones(2)[::2])
    assert not is_plain_tensor(torch.eye(2).to_sparse()) and not is_plain_tensor(np.ones(2))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(2, 3), "a tensor of shape (2, 3) and dtype float32"),
        (np.ones(2), "a NumPy array of shape (2,) and dtype float64"),
        ((1, 2), "a tuple of 2"),
        ([], "a list of 0"),
        (0.5, "the float 0.5"),
        (True, "the bool True"),
        (None, "None"),
        ("x", "a str"),
    ],
)
def test_describe(value: object, words: str) -> None:
    assert describe(value) == words


def test_a_huge_number_is_described_in_a_few_characters() -> None:
    assert len(describe(10**4000)) < 80


def test_changes_names_the_place() -> None:
    before = {"W": [torch.zeros(2), 1.0], "b": (torch.ones(1), "x")}
    same = {"W": [torch.zeros(2), 1.0], "b": (torch.ones(1), "x")}
    assert changes(before, same, "state") == []
    other = {"W": [torch.tensor([0.0, 1.0]), 2.0], "b": (torch.ones(2), "y")}
    assert changes(before, other, "state") == ["state['W'][0]", "state['W'][1]", "state['b'][0]", "state['b'][1]"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (torch.ones(2), torch.ones(2).double()),
        (torch.ones(2), torch.ones(1, 2)),
        ([1, 2], [1, 2, 3]),
        ({"a": 1}, {"b": 1}),
        (1, 1.0),
        (None, 0),
    ],
)
def test_changes_of_kind_shape_and_length_are_seen(before: object, after: object) -> None:
    assert changes(before, after, "x") == ["x"]


def test_nan_that_stays_is_no_change() -> None:
    value = torch.tensor([float("nan"), 1.0])
    assert changes(value, value.clone(), "x") == []
    assert changes(float("nan"), float("nan"), "x") == []


def test_snapshot_is_independent_and_keeps_gaps() -> None:
    X = torch.arange(12.0).reshape(3, 4)
    kept = snapshot([X, X[:, ::2], {"X": X}])
    X += 1
    assert kept[0][0, 0] == 0 and kept[2]["X"][0, 0] == 0
    assert kept[1].stride(-1) == 2


def test_snapshot_keeps_what_has_no_value_of_its_own() -> None:
    generator = torch.Generator()
    assert snapshot(generator) is generator and snapshot(len) is len


def test_a_named_tuple_crosses_as_a_tuple() -> None:
    pair = namedtuple("pair", "mean std")(torch.ones(1), 2.0)
    assert type(plain(pair)) is tuple and plain(pair)[1] == 2.0
