"""Answer the judge: run a cell, fork for an exercise, call a function.

The process that ran the notebook's cells forks a child for every exercise and waits for it, so a changed global,
a broken seed or a crash in one exercise costs nothing in another.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import linecache
import os
import random
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import torch

from autograder.runner import cheap_forks
from autograder.runner.frames import Channel, Closed, Decoder, Encoder, FrameError
from course_utils.checking.student import builtin_base, changed_arguments, entered_by
from course_utils.checking.unmet import Unmet
from course_utils.checking.values import (
    Foreign,
    carries_graph,
    plain,
    plain_result,
    shared_memory,
    snapshot,
    type_name,
)
from course_utils.default_device import new_tensors_on

WRITABLE = ("/tmp", "/dev/shm")
MAX_HANDLES = 10_000  # of one criterion


class BoundedText(io.TextIOBase):
    """A text stream that keeps the first `limit` characters and counts the rest."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._parts: list[str] = []
        self.written = 0

    def writable(self) -> bool:
        """True: this stream is for writing."""
        return True

    def write(self, text: str) -> int:
        """Keep what still fits."""
        room = self._limit - self.written
        if room > 0:
            self._parts.append(text[:room])
        self.written += len(text)
        return len(text)

    def getvalue(self) -> str:
        """What was kept."""
        return "".join(self._parts)


class Server:
    """Runs cells and answers calls over a channel.

    Parameters
    ----------
    channel : Channel
        To the judge.
    shell : IPython shell
        Where the cells run; its user namespace holds the student's functions.
    output : int
        Characters that a cell or a call may print; the rest is dropped.
    """

    def __init__(self, channel: Channel, shell: Any, output: int) -> None:
        self._output = output
        self._channel = channel
        self._shell = shell
        self._namespace: dict[str, Any] = shell.user_ns
        self._seed = 0
        self._arguments = Decoder(b"")
        self._handles: list[Any] = []
        self._ahead: deque[tuple[dict[str, Any], memoryview]] = deque()  # what the judge sent before it answered
        self._noted: list[list[Any]] = []  # the calls of given functions, in a call of the student's
        self._callbacks: dict[int, tuple[str, Callable[..., Any]]] = {}  # functions of the judge's, by their id

    def serve(self) -> None:
        """Answer until the judge says "end"."""
        while True:
            message, raw = self._ahead.popleft() if self._ahead else self._channel.receive()
            operation = message["op"]
            if operation == "end":
                return
            if operation == "begin":
                self._begin()
            elif operation == "cell":
                self._channel.send(self._run_cell(message["source"], message["name"]))
            elif operation == "fork":
                self._fork(message["seed"])
            elif operation == "ping":
                self._channel.send({"op": "pong"})
            elif operation == "replace":
                for name in message["names"]:
                    self._namespace[name] = self._callback(name)
                self._channel.send({"op": "replaced"})
            elif operation in ("call", "prop"):
                self._answer([message], raw)
            elif operation == "calls":
                self._answer(message["calls"], raw)
            else:
                raise FrameError(f"Operation {operation!r} is not known.")

    def _run_cell(self, source: str, name: str) -> dict[str, Any]:
        out, err = BoundedText(self._output), BoundedText(self._output)
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = self._shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        reply: dict[str, Any] = {"op": "ran", "printed": out.written + err.written, "error": None}
        if error is not None:
            reply["error"] = _error(error)
        return reply

    def _fork(self, seed: int) -> None:
        cheap_forks.freeze()
        alone = os.getpid() == 1  # of a process table that is this submission's own
        if alone:
            end_others()
            before = files_left()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                self._seed = seed
                self._channel.send({"op": "forked"})
                self.serve()
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        if alone:
            end_others()
            remove_changed(before)
        self._channel.send({"op": "ended", "status": os.waitstatus_to_exitcode(status)})

    def _callback(self, name: str) -> Callable[..., Any]:
        def call_back(*args: Any, **kwargs: Any) -> Any:
            encoder = Encoder(lambda value: self._reference_to(value, encoder))
            node = encoder.encode(plain([list(args), kwargs], wrap=self._wrap_argument))
            self._channel.send({"op": "callback", "name": name, "arguments": node}, encoder.chunks)
            while True:
                message, raw = self._channel.receive()
                if message["op"] == "callback result":
                    break
                self._ahead.append((message, raw))
            decoder = Decoder(raw, self._resolve)
            result = decoder.decode(message["result"])
            generators = [a for a in [*args, *kwargs.values()] if isinstance(a, torch.Generator)]
            for generator, state in zip(generators, message["generators"], strict=False):
                generator.set_state(decoder.decode(state))
            if message["error"] is not None:
                raise RuntimeError(message["error"])
            return result

        call_back.__name__ = call_back.__qualname__ = name
        self._callbacks[id(call_back)] = name, call_back
        return call_back

    def _given(self, name: str, maker: str, bound: Any) -> Callable[..., Any]:
        """A function that a prop makes; the judge's function of that name hears of its calls afterwards."""
        answer = self._props()[maker](*self._arguments.decode(bound))

        def call_here(*args: Any, **kwargs: Any) -> Any:
            self._noted.append([name, plain([list(args), kwargs], wrap=self._wrap)])
            try:
                return answer(*args, **kwargs)
            except Unmet as unmet:  # as the judge's own function answers
                raise RuntimeError(unmet.message) from None
            except Exception as error:
                raise RuntimeError(f"{name} raised {type(error).__name__}: {error}"[:500]) from None

        call_here.__name__ = call_here.__qualname__ = name
        return call_here

    def _reference_to(self, value: Any, encoder: Encoder) -> Any:
        """What the judge can make of a value that it has itself: its own function, a generator's state."""
        if isinstance(value, torch.Generator):
            return {"generator": encoder.encode(value.get_state())}
        return {"callback": self._callbacks[id(value)][0]} if id(value) in self._callbacks else None

    def _wrap_argument(self, value: Any) -> Any:
        own = isinstance(value, torch.Generator) or id(value) in self._callbacks
        return value if own else self._wrap(value)

    def _resolve(self, node: dict[str, Any]) -> Any:
        if "callback" in node:
            return self._callback(node["callback"])
        if "given" in node:
            return self._given(*node["given"])
        if "prop" in node:
            return self._props()[node["prop"]]
        if "generator" in node:
            generator = torch.Generator()
            generator.set_state(self._arguments.decode(node["generator"]))
            return generator
        if "handle" in node:
            return self._handles[node["handle"]]
        raise FrameError("A reference is not known.")

    def _props(self) -> dict[str, Any]:
        return vars(importlib.import_module("checks"))

    def _wrap(self, value: Any) -> Foreign:
        if len(self._handles) >= MAX_HANDLES:
            raise FrameError("Too many objects were returned.")
        self._handles.append(value)
        return Foreign(type_name(value), len(self._handles) - 1)

    def _begin(self) -> None:
        """Let nothing be left of the calls of other criteria."""
        seed_everything(self._seed)
        self._handles = []
        self._callbacks = {k: v for k, v in self._callbacks.items() if self._namespace.get(v[0]) is v[1]}

    def _answer(self, calls: list[dict[str, Any]], raw: memoryview) -> None:
        with new_tensors_on("cpu"):  # as in a notebook's check: the cells may have set a GPU, which is not here
            for call in calls:
                self._call(call, raw[: call["size"]])
                raw = raw[call["size"] :]

    def _call(self, message: dict[str, Any], raw: memoryview) -> None:
        if message["first"]:
            self._begin()
        self._noted = []
        self._arguments = Decoder(raw, self._resolve)
        args, kwargs = self._arguments.decode(message["arguments"])
        name, is_call = message["function"], message["op"] == "call"
        namespace = self._namespace if is_call else self._props()
        if name not in namespace:
            self._channel.send({"op": "result", "missing": True}, hold=True)
            return
        function = namespace[name]
        own = {id(o) for o in self._handles}
        before = snapshot(tuple(args), own), snapshot(kwargs, own)
        errors, printed = BoundedText(self._output), BoundedText(self._output)
        reply: dict[str, Any] = {"op": "result", "error": None}
        encoder = Encoder()
        with warnings.catch_warnings(record=True) as caught, redirect_stderr(errors), redirect_stdout(printed):
            warnings.simplefilter("always")
            try:
                result = function(*args, **kwargs)
                reply["result"] = encoder.encode(plain_result(result, message["opaque"], self._wrap))
                reply["shared"] = shared_memory(result)[:10]
                reply["graph"] = carries_graph(result)
                reply["changed"] = changed_arguments(function, before, (tuple(args), kwargs)) if is_call else []
            except (KeyboardInterrupt, SystemExit, Exception) as error:
                reply["error"] = _error(error)
                encoder = Encoder()
        reply["generators"] = [
            encoder.encode(value.get_state())
            for value in [*args, *kwargs.values()]
            if isinstance(value, torch.Generator)
        ]
        if self._noted:
            reply["noted"] = encoder.encode(self._noted)
        seen = dict.fromkeys(f"{w.category.__name__}: {w.message}"[:300] for w in caught)
        lines = [line[:300] for line in errors.getvalue().splitlines()[:20] if line.strip()]
        reply["remarks"] = [*list(seen)[:5], *lines[:5]]
        try:
            self._channel.send(reply, encoder.chunks, hold=True)
        except Closed:
            raise
        except (FrameError, ValueError) as error:  # more than a frame holds, or an integer of too many digits
            self._channel.send({"op": "result", "error": _error(error)}, hold=True)


def _error(error: BaseException) -> dict[str, Any]:
    where, line, function, entered = 0, "", "", ""
    if isinstance(error, SyntaxError):
        where, line = error.lineno or 0, (error.text or "").strip()
    else:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            # IPython compiles a cell under a name that it enters into linecache.
            if _is_cell(frame.filename):
                where, function, entered = frame.lineno or 0, frame.name, entered_by(error, _is_cell)
                line = (frame.line or linecache.getline(frame.filename, where)).strip()
                break
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be read)"
    name = getattr(error, "name", None)
    return {
        "type": type(error).__name__[:100],
        "base": builtin_base(error)[:100],
        "text": text[:1000],
        "line": where,
        "code": line[:200],
        "function": function[:100],
        "entered": entered[:100],
        "name": name[:100] if isinstance(name, str) else None,
    }


def _is_cell(filename: str) -> bool:
    return "ipython-input" in filename or "ipykernel" in filename


def seed_everything(seed: int) -> None:
    """Let every source of random numbers start anew: what one criterion draws is nothing to the next."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed looks for accelerators, which the jail has none of
    np.random.seed(seed % 2**32)
    random.seed(seed)


def end_others() -> None:
    """End every other process of this submission: an exercise must find none that another one left."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def files_left() -> dict[str, tuple[int, int]]:
    """What lies in the places where a submission can write; its inode and the time of its last change."""
    found = {}
    for place in WRITABLE:
        for folder, folders, files in os.walk(place):
            for path in (os.path.join(folder, name) for name in (*folders, *files)):
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    found[path] = status.st_ino, status.st_ctime_ns
    return found


def remove_changed(before: dict[str, tuple[int, int]]) -> None:
    """Remove what was made or changed since, so that no exercise finds what another one wrote."""
    now = files_left()
    for path in reversed(list(now)):  # what is in a folder before the folder
        if now[path] != before.get(path):
            with contextlib.suppress(OSError):  # a folder that holds older files stays
                (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)


def make_shell() -> Any:
    """An IPython shell without history, terminal or colours."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Minimal"
    config.MagicsManager.auto_magic = False  # a line is what it says, as it was read
    shell = InteractiveShell.instance(config=config)
    for show in ("showtraceback", "showsyntaxerror"):  # the error is reported, not printed
        setattr(shell, show, lambda *args, **kwargs: None)
    # What is run is what was read: IPython's own would take prompts (`>>> `) out of strings.
    shell.transform_cell = lambda raw_cell: raw_cell  # type: ignore[method-assign]
    shell.user_ns.update(exit=sys.exit, quit=sys.exit)  # IPython's own lead to the shell
    # What a notebook's kernel has: a module __main__ whose globals are the user's.
    sys.modules["__main__"] = shell.user_module
    return shell
