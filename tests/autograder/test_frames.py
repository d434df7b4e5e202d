"""Frames: what is sent arrives, and what is forged is refused."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.runner.frames import DTYPES, HEADER, MAX_JSON, Channel, Closed, Decoder, Encoder, FrameError, TimeUp


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
        {"tensor": ["float64", [2], False]},
        {"tensor": ["float64", [-1], False]},
        {"tensor": ["float64", [True], False]},
        {"tensor": ["object", [1], False]},
        {"tensor": ["bool", [8], False]},
        {"tensor": ["float64", [0, 2**50], False]},
        {"tensor": ["float64", [1]]},
        {"tensor": {"dtype": "float64", "shape": [1]}},
        {"array": ["O", [1]]},
        {"array": ["float64", [1], False]},
        {"list": {"a": 1}},
        {"dict": [[1]]},
        {"dict": [[[1], 2]]},
        {"callback": "x"},
        {"generator": None},
        {"tensor": ["float64", [2**39] * 11 + [0], False]},
        {"tensor": ["uint8", [2**39, 2**39, 0], True]},
        {"tensor": [["float64"], [1], False]},
        {"tensor": ["float64", "1", False]},
        {"tensor": ["float64", [1] * 40, False]},
        {"array": ["float64", [2**39] * 11 + [0]]},
        {"array": ["bool", [8]]},
        {"array": ["bfloat16", [4]]},
        {"list": [{"tensor": ["uint8", [8], False]}] * 2},
        {"foreign": 5},
        {},
        [1],
    ],
)
def test_forged_value_is_refused(node: object) -> None:
    with pytest.raises(FrameError):
        Decoder(b"\x02" * 8).decode(node)


def test_forged_text_can_be_written_and_shown() -> None:
    got = Decoder(b"").decode({"dict": [["\ud800", "half \udfff"], ["f", {"foreign": "\x1b[31m\n<b>" + "a" * 999}]]})
    assert next(iter(got.values())) == "half ?" and str(got).encode()
    assert len(got["f"].type_name) <= 200 and got["f"].type_name.isprintable()


def test_parts_are_bounded() -> None:
    with pytest.raises(FrameError, match="too many parts"):
        Decoder(b"").decode({"list": [{"list": [0] * 1000}] * 300})


def test_what_cannot_be_sent_is_refused() -> None:
    for value in (object(), {1, 2}, torch.zeros(2).to(torch.float8_e4m3fn)):
        with pytest.raises(FrameError, match="cannot be sent"):
            Encoder().encode(value)


def test_references_are_resolved_by_whoever_receives() -> None:
    encoder = Encoder(lambda value: {"callback": value.__name__} if callable(value) else None)
    node = json.loads(json.dumps(encoder.encode([len, {"a": (max,)}])))
    assert Decoder(b"", lambda n: n["callback"].upper()).decode(node) == ["LEN", {"a": ("MAX",)}]


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
                st.sampled_from(["tensor", "array", "list", "tuple", "dict", "foreign"]),
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


def test_messages_cross_with_their_tensors() -> None:
    ours, theirs = socket.socketpair()
    encoder = Encoder()
    node = encoder.encode([torch.arange(3), "text"])
    Channel(theirs).send({"op": "result", "result": node}, encoder.chunks)
    message, raw = Channel(ours).receive(time.monotonic() + 1)
    tensor, text = Decoder(raw).decode(message["result"])
    assert tensor.tolist() == [0, 1, 2] and text == "text"
    ours.close(), theirs.close()


@pytest.mark.parametrize("text", [b"", b"[1]", b"nothing", b"[" * 100_000, b"\xff", b"1" * 5000])
def test_what_is_no_message_is_refused(text: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(struct.pack(">II", len(text), 0) + text)
    with pytest.raises(FrameError, match=r"not JSON|JSON object"):
        Channel(ours).receive(time.monotonic() + 1)
    ours.close(), theirs.close()


def test_a_message_that_trickles_in_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(struct.pack(">II", 10, 0) + b"{")
    start = time.monotonic()
    with pytest.raises(TimeUp):
        Channel(ours).receive(start + 0.1)
    assert time.monotonic() - start < 5
    ours.close(), theirs.close()


def test_who_does_not_read_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.send({"text": "a" * (3 << 20)})
    with pytest.raises(TimeUp):
        channel.receive(time.monotonic() + 0.1)
    ours.close(), theirs.close()


def test_two_that_write_at_once_both_get_through() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    text = "a" * (3 << 20)
    for channel in (ours, theirs):
        channel.send({"text": text})
        channel.send({"more": text}, [b"b" * (1 << 20)])

    def read(channel: Channel) -> None:
        got.append([channel.receive(time.monotonic() + 10) for _ in range(2)])
        channel.send({"op": "done"})
        assert channel.receive(time.monotonic() + 10)[0] == {"op": "done"}

    got: list[list[Any]] = []
    other = threading.Thread(target=read, args=(theirs,))
    other.start()
    read(ours)
    other.join()
    assert len(got) == 2
    for first, second in got:
        assert first[0] == {"text": text} and second[0] == {"more": text} and bytes(second[1]) == b"b" * (1 << 20)
    ours.close(), theirs.close()


def test_what_is_held_goes_with_what_comes_after_it() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    ours.send({"op": 1}, hold=True)
    with pytest.raises(TimeUp):
        theirs.receive(time.monotonic() + 0.05)
    ours.send({"op": 2})
    assert [theirs.receive(time.monotonic() + 1)[0]["op"] for _ in range(2)] == [1, 2]
    ours.close(), theirs.close()


def test_a_trickle_does_not_put_off_the_deadline() -> None:
    """Something has always come, but never all."""
    ours, theirs = socket.socketpair()
    theirs.sendall(HEADER.pack(MAX_JSON, 0))

    def trickle() -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs.sendall(b" ")

    other = threading.Thread(target=trickle)
    other.start()
    start = time.monotonic()
    with pytest.raises(TimeUp):
        Channel(ours).receive(start + 0.2)
    ours.close()
    other.join()
    assert time.monotonic() - start < 5
    theirs.close()


def test_a_message_that_is_too_large_is_not_sent() -> None:
    ours, theirs = socket.socketpair()
    with pytest.raises(FrameError, match="too large"):
        Channel(ours).send({"text": "a" * (5 << 20)})
    ours.close(), theirs.close()


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
