"""Frames: what is sent arrives, and what is forged is refused."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.runner.frames import DTYPES, Channel, Closed, Decoder, Encoder, FrameError, TimeUp


def through(value: Any) -> Any:
    encoder = Encoder()
    node = json.loads(json.dumps(encoder.encode(value)))
    return Decoder(b"".join(encoder.chunks)).decode(node)


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=list(DTYPES))
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 4), (2, 1, 5)])
def test_tensor_arrives(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    sent = (torch.rand(shape) * 3).to(dtype)
    got = through(sent)
    assert got.dtype == dtype and got.shape == sent.shape and torch.equal(got, sent)


def test_strided_tensor_arrives_strided() -> None:
    sent = torch.arange(12.0).reshape(3, 4)[:, ::2]
    got = through(sent)
    assert torch.equal(got, sent) and not got.is_contiguous()


def test_single_entry_of_a_matrix_arrives() -> None:
    assert through(torch.arange(12).reshape(3, 4)[:1, -1]).tolist() == [3]


@pytest.mark.parametrize(
    "value", [None, True, 3, 2.5, "text", (1, 2), [1, (2.0, None)], {"a": [1], "b": {"c": ()}}, float("inf")]
)
def test_plain_value_arrives_with_its_type(value: object) -> None:
    got = through(value)
    assert got == value and type(got) is type(value)


def test_array_arrives_as_an_array() -> None:
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = through(sent)
    assert isinstance(got, np.ndarray) and got.dtype == sent.dtype and (got == sent).all()


@pytest.mark.parametrize(
    "node",
    [
        {"tensor": {"dtype": "float64", "shape": [2], "at": 0, "size": 8}},
        {"tensor": {"dtype": "float64", "shape": [-1], "at": 0, "size": 8}},
        {"tensor": {"dtype": "float64", "shape": [1], "at": 8, "size": 8}},
        {"tensor": {"dtype": "float64", "shape": [1], "at": -8, "size": 8}},
        {"tensor": {"dtype": "float64", "shape": [True], "at": 0, "size": 8}},
        {"tensor": {"dtype": "object", "shape": [1], "at": 0, "size": 8}},
        {"tensor": {"dtype": "bool", "shape": [8], "at": 0, "size": 8}},
        {"tensor": {"dtype": "float64", "shape": [0, 2**50], "at": 0, "size": 0}},
        {"array": {"dtype": "O", "shape": [1], "at": 0, "size": 8}},
        {"list": {"a": 1}},
        {"dict": [[1]]},
        {"dict": [[[1], 2]]},
        {"callback": "x"},
        {"generator": None},
        {},
        [1],
    ],
)
def test_forged_value_is_refused(node: object) -> None:
    with pytest.raises(FrameError):
        Decoder(b"\x02" * 8).decode(node)


def test_nesting_is_bounded() -> None:
    node: Any = 1
    for _ in range(100):
        node = {"list": [node]}
    with pytest.raises(FrameError):
        Decoder(b"").decode(node)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["tensor", "array", "list", "tuple", "dict", "shape", "dtype", "at", "size", "foreign"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_gives_a_value_or_a_frame_error(node: object) -> None:
    with contextlib.suppress(FrameError):
        Decoder(b"\x00" * 64).decode(node)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_give_a_message_or_a_frame_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    theirs.close()
    try:
        message, _ = Channel(ours).receive(time.monotonic() + 1)
        assert isinstance(message, dict)
    except FrameError:
        pass
    finally:
        ours.close()


def test_channel_gives_up_in_time() -> None:
    ours, theirs = socket.socketpair()
    with pytest.raises(TimeUp):
        Channel(ours).receive(time.monotonic() + 0.05)
    theirs.close()
    with pytest.raises(Closed):
        Channel(ours).receive(time.monotonic() + 1)
    ours.close()


def test_oversized_frame_is_refused_before_it_is_read() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(struct.pack(">II", 2**32 - 1, 2**32 - 1))
    with pytest.raises(FrameError, match="too large"):
        Channel(ours).receive(time.monotonic() + 1)
    ours.close(), theirs.close()
