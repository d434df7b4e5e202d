"""Fuzzing, with a fixed budget and fixed seeds: the frame decoder and the notebook reader."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import struct
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from classroom import HONEST, notebook
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autograder.rebuild import rebuild
from autograder.runner.frames import DTYPES, Channel, Decoder, Encoder, FrameError
from autograder.submission import Submission, read_notebook, read_notebook_bytes
from course_utils.checking.values import Foreign, describe

FIXED = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
NUMBERS = st.integers() | st.sampled_from([0, 1, -1, 2**31, 2**39, 2**63, 10**40]) | st.floats()
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=12)
WORDS = ["tensor", "array", "list", "tuple", "dict", "foreign", "handle", "callback", "generator", "op", "result"]
WORDS += ["calls", "size", "error", "missing", "generators"]


def tensors(sizes: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    """JSON that is nearly that of a tensor."""
    body = st.tuples(
        st.sampled_from([*DTYPES, "object", "O", "uint64", "float128", ""]) | LEAVES,
        st.lists(sizes | LEAVES, max_size=14) | LEAVES,
        st.booleans() | LEAVES,
    )
    tensor, array = body.map(lambda parts: {"tensor": list(parts)}), body.map(lambda parts: {"array": list(parts[:2])})
    return tensor | array


NODES = st.recursive(
    LEAVES | tensors(st.sampled_from([0, 1, 2, 4, 8, 16, 64])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.builds(
            lambda kind, values: {kind: values}, st.sampled_from(["list", "tuple"]), st.lists(inner, max_size=4)
        )
        | st.builds(lambda pairs: {"dict": pairs}, st.lists(st.tuples(LEAVES, inner).map(list), max_size=3))
        | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=10,
)
PLAIN = (torch.Tensor, np.ndarray, Foreign, tuple, list, dict, str, bool, int, float, type(None))


def plain(value: Any) -> bool:
    """Whether a value holds nothing but what a criterion may hold."""
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and not value.requires_grad and value.layout == torch.strided
    if isinstance(value, np.ndarray):
        return type(value) is np.ndarray and value.dtype.kind in "fiub"
    if isinstance(value, tuple | list):
        return all(plain(v) for v in value)
    if isinstance(value, dict):
        return all(isinstance(k, str | int) and plain(v) for k, v in value.items())
    return isinstance(value, PLAIN)


@FIXED
@given(NODES, st.binary(max_size=64))
def test_any_node_gives_a_plain_value_or_a_frame_error(node: Any, raw: bytes) -> None:
    with contextlib.suppress(FrameError):
        value = Decoder(raw).decode(node)
        assert plain(value)
        describe(value).encode()


def received(data: bytes) -> None:
    """Receive bytes as the judge does, and decode what they say."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(FrameError):
            message, raw = Channel(ours).receive(time.monotonic() + 5)
            assert isinstance(message, dict)
            assert plain(Decoder(raw).decode(message.get("result")))


@FIXED
@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_frame_error(data: bytes) -> None:
    received(data)


@FIXED
@given(NODES, st.binary(max_size=64), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6))
def test_a_frame_with_bytes_changed_gives_a_message_or_a_frame_error(
    node: Any, raw: bytes, changes: list[tuple[int, int]]
) -> None:
    text = json.dumps({"op": "result", "result": node}).encode()
    frame = bytearray(struct.pack(">II", len(text), len(raw)) + text + raw)
    for at, value in changes:
        frame[at % len(frame)] = value
    received(bytes(frame[: 1 << 16]))


@FIXED
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_announced_lengths_take_no_memory(json_size: int, raw_size: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    received(struct.pack(">II", json_size, raw_size) + b"{}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@FIXED
@given(
    st.sampled_from(list(DTYPES.values())),
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(0, 2**31),
)
def test_what_is_encoded_is_decoded(dtype: torch.dtype, shape: list[int], seed: int) -> None:
    sent = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)
    encoder = Encoder()
    node = json.loads(json.dumps(encoder.encode([sent, {"a": sent.T if sent.ndim == 2 else sent}])))
    got = Decoder(b"".join(encoder.chunks)).decode(node)
    assert torch.equal(got[0], sent) and got[0].dtype == dtype


# --- The notebook reader ---------------------------------------------------------------------------------------------

EXERCISES = tuple(HONEST)
EXPERIMENTS = {"growth": "show(double(1))"}
SOURCE = st.lists(
    st.sampled_from(
        [
            *"()[]{}:=%!?\"'\\#\n\t ,;@",
            *HONEST.values(),
            "def double(x):",
            "return",
            "\ud800",
            "\0",
            "\r",
            "f'{",
            "%%bash\n",
        ]
    )
    | st.text(max_size=5),
    max_size=12,
).map("".join)
CELL = st.fixed_dictionaries(
    {
        "cell_type": st.sampled_from(["code", "markdown", "raw", "heading", 5]),
        "source": SOURCE | st.lists(SOURCE, max_size=3),
    },
    optional={
        "metadata": st.dictionaries(
            st.sampled_from(["course", "nbgrader"]),
            st.dictionaries(st.sampled_from(["role", "name", "grade_id", "points"]), SOURCE | LEAVES, max_size=4)
            | LEAVES,
        )
        | LEAVES,
        "outputs": st.lists(
            st.dictionaries(
                st.sampled_from(["output_type", "text", "data", "traceback", "name", "metadata"]),
                LEAVES
                | st.sampled_from(["stream", "display_data", "error"])
                | st.dictionaries(st.sampled_from(["text/html", "text/plain", "image/png", "image/svg+xml"]), LEAVES),
                max_size=4,
            )
            | LEAVES,
            max_size=4,
        )
        | LEAVES,
        "input": SOURCE,
    },
)


@pytest.fixture(scope="module")
def released() -> nbformat.NotebookNode:
    """A notebook as students get it."""
    cells = [
        nbformat.v4.new_code_cell(HONEST[e], metadata={"course": {"role": "exercise", "name": e}}) for e in EXERCISES
    ]
    cells.append(nbformat.v4.new_code_cell("x", metadata={"course": {"role": "experiment", "name": "growth"}}))
    cells.append(nbformat.v4.new_markdown_cell("?", metadata={"course": {"role": "written", "name": "why"}}))
    return nbformat.v4.new_notebook(cells=cells)


def check_submission(found: Submission, released: nbformat.NotebookNode) -> None:
    """Whatever was read can be shown, written to a file, and holds no surprise."""
    assert all(o.endswith(".") for o in found.oddities)
    assert found.defined <= set(EXERCISES)
    made = rebuild(released, found)
    nbformat.validate(made)
    json.dumps(made, ensure_ascii=False).encode()


@FIXED
@given(st.binary(max_size=300))
def test_any_bytes_give_a_submission(released: nbformat.NotebookNode, data: bytes) -> None:
    check_submission(read_notebook_bytes(data, EXERCISES, EXPERIMENTS), released)


@FIXED
@given(
    st.lists(CELL | LEAVES, max_size=6),
    st.dictionaries(st.sampled_from(["nbformat", "metadata", "worksheets"]), LEAVES),
)
def test_any_notebook_gives_a_submission(
    released: nbformat.NotebookNode, cells: list[Any], more: dict[str, Any]
) -> None:
    data = json.dumps({"cells": cells, **more}).encode()
    check_submission(read_notebook_bytes(data, EXERCISES, EXPERIMENTS), released)


@FIXED
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_notebook_with_bytes_changed_gives_a_submission(
    released: nbformat.NotebookNode, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(notebook(HONEST.values()))
    for at, value in changes:
        data[at % len(data)] = value
    check_submission(read_notebook_bytes(bytes(data), EXERCISES, EXPERIMENTS), released)


BOMBS = {
    "empty lines of text": [{"cell_type": "markdown", "source": "\n" * 5_000_000}],
    "empty lines of code": ["\n" * 99_000 + "("],
    "signs": ["x = " + "-" * 90_000 + "1"],
    "brackets": ["x = " + "(" * 90_000],
    "attributes": ["x = a" + ".b" * 40_000],
    "sums": ["x = " + "+".join(["1"] * 40_000)],
    "conditions": ["x = " + "1 if 1 else " * 8_000 + "1"],
    "strings in strings": ["x = f'" + "{f'" * 3_000],
    "a number": ["x = 1" + "0" * 90_000],
    "magics": ["%time x\n" * 10_000 + "("],
    "functions": ["\n".join(f"def f{k}():\n f{k + 1}()" for k in range(4000)), "def double(x):\n return f0()"],
    "assignments": ["x0 = x1; x1 = x0"] * 4_900 + ["def double(x):\n    return x0"],
    "cells": ["x = 1"] * 100_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_reading_takes_no_more_than_a_moment(released: nbformat.NotebookNode, bomb: str) -> None:
    data = notebook([*BOMBS[bomb], *HONEST.values()])
    start = time.process_time()
    check_submission(read_notebook_bytes(data, EXERCISES, EXPERIMENTS), released)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("data", [b'{"cells":[' + b"{}," * 3_000_000 + b"{}]}", b"[" * 5_000_000, b"{" * 5_000_000])
def test_a_file_of_many_parts_is_not_read(data: bytes) -> None:
    assert "more than 1000000 parts" in read_notebook_bytes(data, EXERCISES).oddities[0]


def test_a_file_of_100_mib_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.ipynb"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    assert "100 MiB, more than 32" in read_notebook(path, EXERCISES).oddities[0]
