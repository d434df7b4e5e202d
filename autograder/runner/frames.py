"""Frames: how judge and runner talk.

A frame is eight bytes (lengths of its two parts, big-endian), a JSON object, and the raw bytes of the tensors
that the object mentions.  Nothing is ever unpickled.  Whoever reads a frame checks every length, type and shape
before it makes a tensor, because the other side may be a student's code.

    4 bytes    4 bytes    length 1   length 2
    length 1 | length 2 | JSON     | tensor bytes
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.checking.draw import strided
from course_utils.checking.values import Foreign

MAX_JSON = 4 << 20  # bytes
MAX_BYTES = 256 << 20
MAX_NODES = 200_000
MAX_DEPTH = 16
MAX_TEXT = 1 << 16  # characters of one string
HEADER = struct.Struct(">II")
SIMPLE = frozenset({type(None), bool, int, float})
COMPACT = json.JSONEncoder(separators=(",", ":")).encode
RECEIVE = 1 << 16  # bytes to ask for at least
ROOM = 1 << 20  # bytes that may wait for the other side to read them; the kernel may allow fewer
LARGE = 1 << 16  # bytes that are not copied on their way
Buffer = bytes | memoryview

DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
        torch.complex128,
    )
}
NAMES = {d: name for name, d in DTYPES.items()}
ARRAY_DTYPES = frozenset(DTYPES) - {"bfloat16"} | {"uint16", "uint32", "uint64"}


class FrameError(Exception):
    """The bytes are not a frame, or it holds something that a frame may not hold."""


class Closed(FrameError):
    """The other side is gone."""


class TimeUp(FrameError):
    """Nothing came in time."""


class Encoder:
    """Turns a value into JSON and collects the bytes of its tensors, in order.

    Parameters
    ----------
    reference : callable, optional
        `reference(value)` gives the JSON for what is not sent by value (functions, generators, handles); without
        it, or where it returns None, such a value is an error.

    Attributes
    ----------
    chunks : list of buffers
        The bytes of the tensors and arrays.  Those of large ones are their own memory: they are to be sent before
        anything is changed.
    """

    def __init__(self, reference: Callable[[Any], Any] | None = None) -> None:
        self._reference = reference
        self.chunks: list[Buffer] = []

    def encode(self, value: Any, depth: int = 0) -> Any:
        """The JSON that stands for `value`."""
        if depth > MAX_DEPTH:
            raise FrameError("The value is nested too deeply.")
        kind = type(value)
        if kind in SIMPLE:
            return value
        if kind is Tensor:  # most often, and `isinstance` takes its time
            return self._tensor(value)
        if isinstance(value, int | float):
            return value
        if isinstance(value, str):
            return value[:MAX_TEXT]
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray):
            self._collect(value)
            return {"array": [str(value.dtype), list(value.shape)]}
        if isinstance(value, tuple):
            return {"tuple": [self.encode(v, depth + 1) for v in value]}
        if isinstance(value, list):
            return {"list": [self.encode(v, depth + 1) for v in value]}
        if isinstance(value, dict):
            return {"dict": [[k, self.encode(v, depth + 1)] for k, v in value.items()]}
        if isinstance(value, Foreign):
            return {"foreign": value.type_name[:200], "handle": value.handle}
        referred = self._reference(value) if self._reference else None
        if referred is None:
            raise FrameError(f"A {type(value).__name__} cannot be sent.")
        return referred

    def _tensor(self, value: Tensor) -> Any:
        name = NAMES.get(value.dtype)
        if name is None:
            raise FrameError(f"A tensor of dtype {value.dtype} cannot be sent.")
        as_numpy = value.detach().resolve_conj().resolve_neg()
        if name == "bfloat16":  # which NumPy has not
            as_numpy = as_numpy.view(torch.int16)
        self._collect(as_numpy.numpy())
        return {"tensor": [name, list(value.shape), not value.is_contiguous()]}

    def _collect(self, array: np.ndarray) -> None:
        if array.nbytes < LARGE:
            self.chunks.append(array.tobytes())
        else:  # copying it would take longer than sending it
            self.chunks.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def readable(text: str) -> str:
    """Text that can be written as UTF-8: JSON can hold halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


class Decoder:
    """Turns JSON and bytes back into a value, trusting neither.

    Values are decoded in the order in which they were encoded: each tensor takes the bytes that follow.

    Parameters
    ----------
    raw : bytes or memoryview
        The frame's tensor bytes.
    resolve : callable, optional
        `resolve(node)` gives the value of a reference (callback, generator, handle); without it references are
        refused, except that a foreign object becomes a `Foreign` note.
    """

    def __init__(self, raw: Buffer, resolve: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self._raw = raw
        self._resolve = resolve
        self._nodes = 0
        self._at = 0  # where the next tensor's bytes are

    def decode(self, node: Any, depth: int = 0) -> Any:
        """The value that a piece of JSON stands for.

        Raises
        ------
        FrameError
            When it stands for nothing that may be sent.
        """
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise FrameError("A value is nested too deeply or has too many parts.")
        if type(node) in SIMPLE:
            return node
        if isinstance(node, str):
            return readable(node)
        if not isinstance(node, dict) or not node:
            raise FrameError("A value has no known kind.")
        kind = next(iter(node))
        body = node[kind]
        if kind in ("tuple", "list") and isinstance(body, list):
            values = [self.decode(v, depth + 1) for v in body]
            return tuple(values) if kind == "tuple" else values
        if kind == "dict" and isinstance(body, list):
            if not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str | int) for p in body):
                raise FrameError("A dict is not made of pairs.")
            return {readable(k) if isinstance(k, str) else k: self.decode(v, depth + 1) for k, v in body}
        if kind == "tensor" and isinstance(body, list) and len(body) == 3:
            return self._tensor(*body)
        if kind == "array" and isinstance(body, list) and len(body) == 2:
            return self._array(*body)
        if self._resolve is not None:
            return self._resolve(node)
        if kind == "foreign" and isinstance(body, str):
            handle = node.get("handle")
            name = "".join(c if c.isprintable() and c not in "\\$" else " " for c in body[:200])
            return Foreign(name, handle if isinstance(handle, int) else None)
        raise FrameError(f"A value of kind {kind[:30]!r} is not known.")

    def _tensor(self, name: Any, shape: Any, gapped: Any) -> Tensor:
        dtype = DTYPES.get(name) if isinstance(name, str) else None
        if dtype is None:
            raise FrameError("A tensor has no known dtype.")
        piece = self._piece(shape, dtype.itemsize)
        if dtype == torch.bool and piece.translate(None, b"\x00\x01"):
            raise FrameError("A boolean tensor holds something else.")
        flat = torch.frombuffer(piece, dtype=dtype) if piece else torch.empty(0, dtype=dtype)
        try:
            tensor = flat.reshape(shape)
            return strided(tensor) if gapped is True else tensor
        except RuntimeError:  # without entries, but with axes too long for torch
            raise FrameError("A tensor has no usable shape.") from None

    def _array(self, name: Any, shape: Any) -> np.ndarray:
        if not isinstance(name, str) or name not in ARRAY_DTYPES:
            raise FrameError("An array has no known dtype.")
        piece = self._piece(shape, np.dtype(name).itemsize)
        if name == "bool" and piece.translate(None, b"\x00\x01"):
            raise FrameError("A boolean array holds something else.")
        try:
            return np.frombuffer(piece, dtype=name).reshape(shape)
        except ValueError:
            raise FrameError("An array has no usable shape.") from None

    def _piece(self, shape: Any, itemsize: int) -> bytearray:
        """The bytes of the next tensor, which keeps them: the one copy of what came."""
        if not isinstance(shape, list) or len(shape) > 12:
            raise FrameError("A tensor has no usable shape.")
        size = itemsize
        for length in shape:
            if type(length) is not int or not 0 <= length < 2**40:
                raise FrameError("A tensor has no usable shape.")
            size *= length
        start, self._at = self._at, self._at + size
        if self._at > len(self._raw):
            raise FrameError("A tensor has more entries than its frame has bytes for.")
        return bytearray(self._raw[start : self._at])


class Channel:
    """Sends and receives frames over a connected socket.

    Parameters
    ----------
    connection : socket.socket
        A stream socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        self._received = memoryview(b"")  # what came beyond the piece that was read
        self._unsent: deque[memoryview] = deque()  # what goes with the next message, or while this side listens

    def send(self, message: dict[str, Any], chunks: Sequence[Buffer] = (), *, hold: bool = False) -> None:
        """Send a message and the bytes of its tensors, which an encoder has collected.

        What the other side has no room for yet goes while this side listens: so neither waits for the other to read.
        With `hold` all of it does: to wake the other side takes longer than to write a small frame.

        Raises
        ------
        Closed
            When the other side is gone.
        """
        text = COMPACT(message).encode()
        size = sum(map(len, chunks))
        if len(text) > MAX_JSON or size > MAX_BYTES:
            raise FrameError(f"A frame of {len(text) + size} bytes is too large.")
        pieces = [HEADER.pack(len(text), size), text, *chunks]
        self._unsent.extend(map(memoryview, pieces if size >= LARGE else [b"".join(pieces)]))
        if not hold:
            self._write()

    def _write(self) -> None:
        if len(self._unsent) > 1 and sum(map(len, self._unsent)) < LARGE:
            self._unsent = deque([memoryview(b"".join(self._unsent))])
        try:
            while self._unsent:
                self._unsent[0] = self._unsent[0][self._socket.send(self._unsent[0]) :]
                if not self._unsent[0]:
                    self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], memoryview]:
        """The next message and its tensor bytes.

        Raises
        ------
        Closed, TimeUp, FrameError
            When the other side is gone, nothing came before `deadline`, or it is no frame.
        """
        self._write()
        lengths = HEADER.unpack(self._read(HEADER.size, deadline))
        if lengths[0] > MAX_JSON or lengths[1] > MAX_BYTES:
            raise FrameError(f"A frame of {sum(lengths)} bytes is too large.")
        text, raw = self._read(lengths[0], deadline), self._read(lengths[1], deadline)
        try:
            message = json.loads(str(text, "utf-8"))
        except (ValueError, RecursionError):
            raise FrameError("A frame is not JSON.") from None
        if not isinstance(message, dict):
            raise FrameError("A frame is not a JSON object.")
        return message, raw

    def _read(self, size: int, deadline: float | None) -> memoryview:
        came = len(self._received)
        if came + RECEIVE < size:  # most of it is still to come, straight to where it will stay
            piece = np.empty(size, np.uint8).data
            piece[:came], self._received = self._received, self._received[:0]
            while came < size:
                came += self._listen(partial(self._socket.recv_into, piece[came:]), deadline)
            return piece
        if came < size:
            # Most frames come whole: one call for the header, the text and the bytes of one, or of several.
            parts = [bytes(self._received)]
            while came < size:
                parts.append(self._listen(partial(self._socket.recv, RECEIVE), deadline))
                came += len(parts[-1])
            self._received = memoryview(b"".join(parts))
        piece, self._received = self._received[:size], self._received[size:]
        return piece

    def _listen(self, listen: Callable[[], Any], deadline: float | None) -> Any:
        while True:
            left = None if deadline is None else 1000 * (deadline - time.monotonic())  # milliseconds
            if left is not None and left <= 0:
                raise TimeUp("No frame came in time.")
            try:
                came = listen()
            except BlockingIOError:
                self._wait(left)
                continue
            except OSError as error:
                raise Closed(str(error)) from None
            if not came:
                raise Closed("The other side closed the connection.")
            return came

    def _wait(self, milliseconds: float | None) -> None:
        """Wait until something has come; what is unsent goes meanwhile."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        for _, event in poll.poll(milliseconds):
            if event & select.POLLOUT:
                self._write()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
