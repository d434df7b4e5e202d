"""Frames: how judge and runner talk.

A frame is eight bytes (lengths of its two parts, big-endian), a JSON object, and the raw bytes of the tensors
that the object mentions.  Nothing is ever unpickled.  Whoever reads a frame checks every length, type and shape
before it makes a tensor, because the other side may be a student's code.

    4 bytes    4 bytes    length 1   length 2
    length 1 | length 2 | JSON     | tensor bytes
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Callable, Sequence
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
    """Turns a value into JSON and collects the bytes of its tensors.

    Parameters
    ----------
    reference : callable, optional
        `reference(value)` gives the JSON for what is not sent by value (functions, generators, handles); without
        it, or where it returns None, such a value is an error.
    """

    def __init__(self, reference: Callable[[Any], Any] | None = None) -> None:
        self._reference = reference
        self.chunks: list[bytes] = []
        self._at = 0

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
            return {"array": self._raw(np.ascontiguousarray(value).tobytes(), str(value.dtype), value.shape)}
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
        node = self._raw(as_numpy.numpy().tobytes(), name, value.shape)
        node["strided"] = not value.is_contiguous()
        return {"tensor": node}

    def _raw(self, raw: bytes, dtype: str, shape: Sequence[int]) -> dict[str, Any]:
        node = {"dtype": dtype, "shape": list(shape), "at": self._at, "size": len(raw)}
        self.chunks.append(raw)
        self._at += len(raw)
        return node


def readable(text: str) -> str:
    """Text that can be written as UTF-8: JSON can hold halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


class Decoder:
    """Turns JSON and bytes back into a value, trusting neither.

    Parameters
    ----------
    raw : bytes
        The frame's tensor bytes.
    resolve : callable, optional
        `resolve(node)` gives the value of a reference (callback, generator, handle); without it references are
        refused, except that a foreign object becomes a `Foreign` note.
    """

    def __init__(self, raw: bytes, resolve: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self._raw = raw
        self._resolve = resolve
        self._nodes = 0
        self._used = 0  # bytes; tensors that share bytes of the frame could otherwise fill the reader's memory

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
        if kind == "tensor" and isinstance(body, dict):
            return self._tensor(body)
        if kind == "array" and isinstance(body, dict):
            return self._array(body)
        if self._resolve is not None:
            return self._resolve(node)
        if kind == "foreign" and isinstance(body, str):
            handle = node.get("handle")
            name = "".join(c if c.isprintable() and c not in "\\$" else " " for c in body[:200])
            return Foreign(name, handle if isinstance(handle, int) else None)
        raise FrameError(f"A value of kind {kind[:30]!r} is not known.")

    def _tensor(self, body: dict[str, Any]) -> Tensor:
        piece, shape, name = self._piece(body, frozenset(DTYPES), lambda name: DTYPES[name].itemsize)
        dtype = DTYPES[name]
        flat = torch.frombuffer(piece, dtype=dtype) if piece else torch.empty(0, dtype=dtype)
        try:
            tensor = flat.reshape(shape)
            return strided(tensor) if body.get("strided") is True else tensor
        except RuntimeError:  # without entries, but with axes too long for torch
            raise FrameError("A tensor has no usable shape.") from None

    def _array(self, body: dict[str, Any]) -> np.ndarray:
        piece, shape, dtype = self._piece(body, ARRAY_DTYPES, lambda name: np.dtype(name).itemsize)
        try:
            return np.frombuffer(piece, dtype=dtype).reshape(shape)
        except ValueError:
            raise FrameError("An array has no usable shape.") from None

    def _piece(
        self, body: dict[str, Any], dtypes: frozenset[str], itemsize: Callable[[str], int]
    ) -> tuple[bytearray, list[int], str]:
        shape, name, at, size = body.get("shape"), body.get("dtype"), body.get("at"), body.get("size")
        if not isinstance(name, str) or name not in dtypes:
            raise FrameError("A tensor has no known dtype.")
        if not isinstance(shape, list) or len(shape) > 12:
            raise FrameError("A tensor has no usable shape.")
        for length in shape:
            if type(length) is not int or not 0 <= length < 2**40:
                raise FrameError("A tensor has no usable shape.")
        if type(at) is not int or type(size) is not int or at < 0 or size < 0 or at + size > len(self._raw):
            raise FrameError("A tensor lies outside its frame.")
        if math.prod(shape) * itemsize(name) != size:
            raise FrameError("A tensor's bytes do not fit its shape.")
        self._used += size
        if self._used > len(self._raw):
            raise FrameError("Tensors share the bytes of a frame.")
        piece = bytearray(memoryview(self._raw)[at : at + size])  # the one copy, which the tensor keeps
        if name == "bool" and piece.translate(None, b"\x00\x01"):
            raise FrameError("A boolean tensor holds something else.")
        return piece, shape, name


class Channel:
    """Sends and receives frames over a connected socket.

    Parameters
    ----------
    connection : socket.socket
        A stream socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = b""  # what came beyond the piece that was read

    def send(self, message: dict[str, Any], encoder: Encoder | None = None, deadline: float | None = None) -> None:
        """Send a message whose tensors `encoder` has collected.

        Raises
        ------
        Closed, TimeUp
            When the other side is gone, or does not read before `deadline` (of `time.monotonic`).
        """
        text = COMPACT(message).encode()
        chunks = encoder.chunks if encoder else []
        size = sum(len(c) for c in chunks)
        if len(text) > MAX_JSON or size > MAX_BYTES:
            raise FrameError(f"A frame of {len(text) + size} bytes is too large.")
        self._wait(deadline)
        try:
            self._socket.sendall(b"".join([HEADER.pack(len(text), size), text, *chunks]))
        except TimeoutError:
            raise TimeUp("The other side did not read in time.") from None
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next message and its tensor bytes.

        Raises
        ------
        Closed, TimeUp, FrameError
            When the other side is gone, nothing came before `deadline`, or it is no frame.
        """
        lengths = HEADER.unpack(self._read(HEADER.size, deadline))
        if lengths[0] > MAX_JSON or lengths[1] > MAX_BYTES:
            raise FrameError(f"A frame of {sum(lengths)} bytes is too large.")
        text, raw = self._read(lengths[0], deadline), self._read(lengths[1], deadline)
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise FrameError("A frame is not JSON.") from None
        if not isinstance(message, dict):
            raise FrameError("A frame is not a JSON object.")
        return message, raw

    def _read(self, size: int, deadline: float | None) -> bytes:
        if len(self._received) < size:
            # Most frames come whole: one call for the header, the text and the bytes of one, or of part of one.
            received = bytearray(self._received)
            while len(received) < size:
                self._wait(deadline)
                try:
                    part = self._socket.recv(max(RECEIVE, min(size - len(received), 1 << 20)))
                except TimeoutError:
                    raise TimeUp("No frame came in time.") from None
                except OSError as error:
                    raise Closed(str(error)) from None
                if not part:
                    raise Closed("The other side closed the connection.")
                received += part
            self._received = bytes(received)
        piece, self._received = self._received[:size], self._received[size:]
        return piece

    def _wait(self, deadline: float | None) -> None:
        if deadline is None:
            self._socket.settimeout(None)
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeUp("No frame came in time.")
        self._socket.settimeout(left)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
