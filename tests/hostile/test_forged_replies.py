"""Frames that a student's code sends itself: forged, oversized, early, to another call; and calls of its own."""

from __future__ import annotations

import pytest
from classroom import Classroom

# Finds the channel among the open descriptors and writes to it whatever it likes.
FORGE = """
import json, os, socket, struct, torch
def channel():
    for fd in range(3, 64):
        try:
            s = socket.socket(fileno=os.dup(fd))
            s.getpeername()
            return s
        except OSError:
            continue
def send(message, raw=b"", lengths=None):
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    channel().sendall(struct.pack(">II", *(lengths or (len(text), len(raw)))) + text + raw)
def right(x):
    return {"op": "result", "error": None, "changed": [], "generators": [], "remarks": [],
            "result": {"tensor": ["float64", [len(x)], False]}}
"""
FORGED = {
    "all is well": ("send({'op': 'result', 'error': None, 'result': True})", "double"),
    "the criterion is met": ("send({'op': 'verdict', 'passed': True, 'points': 100})", "cannot be read"),
    "a pickle": ("send(b'\\x80\\x04N.')", "cannot be read"),
    "no object": ("send([1, 2])", "cannot be read"),
    "no operation": ("send({})", "cannot be read"),
    "an operation of the judge's": ("send({'op': 'call', 'function': 'double', 'arguments': []})", "cannot be read"),
    "the answer to another question": ("send({'op': 'ran', 'error': None})", "cannot be read"),
    "it has ended well": ("send({'op': 'ended', 'status': 0})", "ended"),
    "a call back that nobody gave": ("send({'op': 'callback', 'name': 'double', 'arguments': {'list': []}})", "cannot"),
    "a reference": ("send({'op': 'result', 'error': None, 'result': {'callback': 'eval'}})", "cannot be read"),
    "a handle of nobody's": ("send({'op': 'result', 'error': None, 'result': {'foreign': 'x', 'handle': 10**9}})", "x"),
    "a frame of 8 GiB": ("send(b'', lengths=(2**32 - 1, 2**32 - 1))", "too large"),
    "a frame that never ends": ("send(b'{', lengths=(1000, 1000))", "did not finish"),
    "one byte at a time": (
        "c = channel(); [(c.sendall(b'\\0'), __import__('time').sleep(0.2)) for _ in range(100)]",
        "double",
    ),
    "half a header": ("channel().sendall(b'\\0\\0\\0'); os._exit(0)", "double"),
    "noise": ("channel().sendall(os.urandom(1000)); os._exit(0)", "double"),
    "deep JSON": ("send(b'{\"op\":' + b'[' * 100_000 + b'}')", "cannot be read"),
    "a number of a million digits": ("send(b'{\"op\": ' + b'1' * 1_000_000 + b'}')", "cannot be read"),
    "the same bytes for a hundred tensors": (
        "t = {'tensor': ['uint8', [8], False]}; "
        "send({'op': 'result', 'error': None, 'result': {'list': [t] * 100}}, b'\\1' * 8)",
        "cannot be read",
    ),
    "200 MiB": (
        "t = {'tensor': ['int8', [200 << 20], False]}; "
        "send({'op': 'result', 'error': None, 'result': t}, bytes(200 << 20))",
        "double",
    ),
    "an error that is none": ("send({'op': 'result', 'error': {'type': {}, 'text': []}})", "double raised"),
    "not defined, it says": ("send({'op': 'result', 'missing': True})", "not defined"),
    "halves of characters": ("send({'op': 'result', 'error': {'type': '\\ud800', 'text': '\\udfff'}})", "raised"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_reply_earns_nothing(classroom: Classroom, what: str) -> None:
    body, says = FORGED[what]
    code = f"{FORGE}def double(x):\n    {body}\n    os._exit(0)\n"
    classroom.attack({"double": code}, lost=["double"], says=says)


def test_replies_that_are_sent_ahead_answer_nothing_else(classroom: Classroom) -> None:
    """Two replies to one call: the second one lies in the pipe when the next criterion asks."""
    code = (
        f"{FORGE}def double(x):\n    raw = (x * 2).numpy().tobytes()\n    send(right(x), raw)\n"
        "    send(right(x), raw)\n    return x * 3\n"
    )
    report = classroom.harm({"double": code})
    assert report.scores["double"] <= 1.0  # the first criterion got what is right; its points are earned
    assert all(report.scores[e] == classroom.honest.scores[e] for e in ("halve", "share", "descend"))


@pytest.mark.parametrize("times", [1, 3, 1000])
def test_frames_of_a_cell_are_the_notebooks_own_loss(classroom: Classroom, times: int) -> None:
    code = f"{FORGE}for _ in range({times}):\n    send({{'op': 'ran', 'error': None, 'printed': 0}})\n"
    report = classroom.harm({"double": code + "def double(x):\n    return x * 3\n"})
    assert report.scores["double"] == 0


def test_a_given_function_is_called_as_it_should_be_or_not_at_all(classroom: Classroom) -> None:
    """`descend` is handed the criterion's own gradient; what else is asked of it through the channel is refused."""
    names = ["__class__", "__globals__", "<lambda>.__globals__", "exit", "descend", "double"]
    for name in names:
        message = {"op": "callback", "name": name, "arguments": {"list": [{"list": []}, {"dict": []}]}}
        code = f"{FORGE}def descend(gradient, w, steps):\n    send({message!r})\n    os._exit(0)\n"
        classroom.attack({"descend": code}, lost=["descend"], says="a function was called that was not given")


@pytest.mark.parametrize(
    "arguments",
    [
        "'x'",
        "",
        "w, w, w",
        "None",
        "[1] * 30_000",
        "torch.zeros(30_000)",
        "w.to(torch.complex64)",
        "w[:0]",
        "w * 1e308",
    ],
)
def test_a_given_function_called_with_anything_harms_nobody(classroom: Classroom, arguments: str) -> None:
    code = f"def descend(gradient, w, steps):\n    gradient({arguments})\n    return w\n"
    classroom.attack({"descend": code}, lost=["descend"])


def test_a_given_function_called_for_ever(classroom: Classroom) -> None:
    code = "def descend(gradient, w, steps):\n    while True:\n        gradient(w)\n"
    classroom.attack({"descend": code}, lost=["descend"], says="did not finish")
