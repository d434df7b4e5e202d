"""The judge's side of one submission's runner: run the cells, fork, call, and start anew after a crash."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from autograder.bounded import Overrun, bounded
from autograder.errors import CourseError
from autograder.harmless import harmless_line
from autograder.jail import Sandbox, Zygote
from autograder.runner.frames import Buffer, Closed, Decoder, Encoder, FrameError, TimeUp
from autograder.submission import StudentCell
from course_utils.checking import CriterionFault, Student, Unmet
from course_utils.checking.props import Given, is_prop, prop_title
from course_utils.checking.student import Call, exception_verdict, not_defined, nothing_written, who_and_where

MAX_CALLBACK_NUMBERS = 60_000  # entries of all arguments with which a student may call a function of the judge's
IMPATIENCE = 5  # after a stall the exercise's other criteria get a limit this many times shorter
MAX_CRITERION_NUMBERS = 20_000_000  # of all such calls of one criterion, which may keep them


@dataclass(frozen=True)
class TimeLimits:
    """Seconds for a cell, for a criterion, and for a submission as a whole."""

    cell: float = 30.0
    criterion: float = 10.0
    submission: float = 300.0


class Session:
    """A submission in its sandbox; when the sandbox dies, the next call starts another.

    Parameters
    ----------
    zygote : Zygote
        Forks the sandboxes.
    cells : list of StudentCell
        What to run, in order.
    limits : TimeLimits
        How long things may take.
    seed : int
        For the random state of every fork.

    Attributes
    ----------
    oddities : list of str
        What went wrong with cells, a sentence each.
    cell_errors : dict
        The error of each cell that raised one, by cell name.
    ran : bool
        Whether the cells were run at all; nothing may have asked for it.
    interrupted : bool
        Whether calls that were asked together have stalled or ended the process.
    """

    def __init__(self, zygote: Zygote, cells: list[StudentCell], limits: TimeLimits, seed: int) -> None:
        self._zygote = zygote
        self._cells = cells
        self._limits = limits
        self._seed = seed
        self._sandbox: Sandbox | None = None
        self._common_fork = False  # whether a fork goes on for the exercises that need none of their own
        self._left_out: set[int] = set()
        self._deadline = time.monotonic() + limits.submission
        self.oddities: list[str] = []
        self.cell_errors: dict[str, str] = {}
        self.ran = False
        self.interrupted = False
        for cell in cells:
            if cell.error:
                self.cell_errors[cell.name] = f"its cell {cell.error}"
                self.oddities.append(f"{cell.title} {cell.error}; it was not run.")

    @property
    def limits(self) -> TimeLimits:
        """How long things may take."""
        return self._limits

    def deadline(self, seconds: float) -> float:
        """The point of `time.monotonic` at which `seconds` from now, or the submission's time, is over."""
        return min(time.monotonic() + seconds, self._deadline)

    @property
    def out_of_time(self) -> bool:
        """Whether the submission has used up its time."""
        return time.monotonic() >= self._deadline

    def close(self) -> str:
        """Kill the sandbox; returns what its processes had used too much of, as the end of a sentence, as a rule ""."""
        self._common_fork = False
        if self._sandbox is None:
            return ""
        sandbox, self._sandbox = self._sandbox, None
        return {
            "": "",
            "memory": f"used more than {sandbox.limits.memory / 2**30:.3g} GiB of memory together",
            "processes": f"were more than {sandbox.limits.processes} processes and threads",
        }[sandbox.close()]

    def fork(self, alone: bool = True) -> Sandbox:
        """A sandbox whose runner has run the cells and forked for one exercise.

        Parameters
        ----------
        alone : bool
            Whether the exercise needs a fork of its own.  Else it may get the one of the last exercise that did not.

        Raises
        ------
        Unmet
            When the submission's time is over.
        """
        if self._common_fork and self._sandbox is not None:
            if alone:
                self.end_fork()
            elif self._is_there(self._sandbox):
                return self._sandbox
        for _ in range(3):
            if self.out_of_time:
                raise Unmet(self._no_time_left(), "time")
            sandbox = self._sandbox or self._run_cells()
            try:
                sandbox.channel.send({"op": "fork", "seed": self._seed})
                if sandbox.channel.receive(self.deadline(5))[0].get("op") == "forked":
                    self._common_fork = not alone
                    return sandbox
            except FrameError:
                pass
            self.close()
        raise Unmet("The notebook's cells leave a process in which nothing more can be run.", "crash")

    def _is_there(self, sandbox: Sandbox) -> bool:
        """Whether the fork still answers; where the last exercise has ended it after its last call, it is closed."""
        try:
            sandbox.channel.send({"op": "ping"})
            if sandbox.channel.receive(self.deadline(5))[0].get("op") == "pong":
                return True
        except FrameError:
            pass
        self.close()
        return False

    def end_fork(self) -> None:
        """Let the fork end; where it does not, kill the sandbox."""
        self._common_fork = False
        if self._sandbox is None:
            return
        try:
            self._sandbox.channel.send({"op": "end"})
            if self._sandbox.channel.receive(self.deadline(2))[0].get("op") != "ended":
                self.close()
        except FrameError:
            self.close()

    def _no_time_left(self) -> str:
        return f"The submission used up its {self._limits.submission:g} seconds; this was not judged."

    def _run_cells(self) -> Sandbox:
        self.ran = True
        while True:
            sandbox = self._sandbox = self._zygote.start()
            broken = None
            for number, cell in enumerate(self._cells):
                if cell.error or number in self._left_out:
                    continue
                try:
                    sandbox.channel.send({"op": "cell", "source": cell.source, "name": cell.name})
                    reply = sandbox.channel.receive(self.deadline(self._limits.cell))[0]
                    if reply.get("op") != "ran":
                        raise FrameError("The runner answered something else.")
                    self._note_error(cell, reply.get("error"))
                except FrameError as error:
                    if self.out_of_time:
                        self.close()
                        raise Unmet(self._no_time_left(), "time") from None
                    late = isinstance(error, TimeUp)
                    broken = number, f"ran longer than {self._limits.cell:g} s" if late else "ended the process"
                    break
            if broken is None:
                return sandbox
            number, what = broken
            if spent := self.close():
                what = f"started processes that {spent}"
            self._left_out.add(number)
            self.oddities.append(f"{self._cells[number].title} {what}; it was left out.")
            self.cell_errors[self._cells[number].name] = f"its cell {what}"

    def _note_error(self, cell: StudentCell, error: object) -> None:
        if not isinstance(error, dict) or cell.name in self.cell_errors:
            return
        text = f"{harmless_line(error.get('type'), 60)}: {harmless_line(error.get('text'), 200)}"
        line = error.get("line")
        where = f" in line {line}" if type(line) is int and line > 0 else ""
        self.cell_errors[cell.name] = f"its cell raised {text}{where}"
        self.oddities.append(f"{cell.title} raised {text}{where}.")


@dataclass(frozen=True)
class Request:
    """A call that is to cross the pipe, and what is needed to understand its reply.

    Attributes
    ----------
    function, what : str
        The function's name, and what to call it in a message.
    message : dict
        What is sent.
    chunks : list of buffers
        The bytes of the tensors that the message mentions.
    callbacks : dict
        The judge's own functions that the student's may call, by name.
    generators : list of torch.Generator
        Those among the arguments, which the call moves on.
    held : list of Unmet
        What the judge's own functions were not content with.
    """

    function: str
    what: str
    message: dict[str, Any]
    chunks: list[Buffer]
    callbacks: dict[str, Callable[..., Any]]
    generators: list[torch.Generator]
    held: list[Unmet] = field(default_factory=list)


class JailedStudent(Student):
    """Calls a student's functions in the jail.

    Parameters
    ----------
    session : Session
        The submission's runner.
    replaced : mapping
        Functions of the reference that stand in for the student's, by name; they run here, in the judge.
    opaque : mapping
        By function, the positions in its result of what stays in the jail (`opaque_results`).
    alone : bool
        Whether the exercise needs a fork of its own, because it may leave something behind.
    """

    def __init__(
        self,
        session: Session,
        replaced: Mapping[str, Callable[..., Any]] | None = None,
        opaque: Mapping[str, Sequence[int]] | None = None,
        alone: bool = True,
    ) -> None:
        super().__init__()
        self._session = session
        self._replaced = dict(replaced or {})
        self._opaque = opaque or {}
        self._alone = alone or bool(self._replaced)
        self._first = True  # of the criterion's calls
        self._sandbox: Sandbox | None = None
        self._failed: Unmet | None = None
        self._deadline = 0.0
        self._limit = session.limits.criterion  # seconds
        self._numbers = 0  # with which the judge's functions were called

    def begin_criterion(self) -> None:
        """Start a criterion's time; after a crash in the last one this one gets a fork of its own."""
        self._failed = None
        self._first = True
        self._numbers = 0
        self._deadline = self._session.deadline(self._limit)

    def close(self) -> None:
        """Let the fork end, if it is the exercise's own."""
        if self._sandbox is not None:
            self._sandbox = None
            if self._alone:
                self._session.end_fork()

    def _start(self) -> Sandbox:
        sandbox = self._session.fork(self._alone)
        self._deadline = self._session.deadline(self._limit)  # cells have a time of their own
        if self._replaced:
            sandbox.channel.send({"op": "replace", "names": list(self._replaced)})
            if sandbox.channel.receive(self._deadline)[0].get("op") != "replaced":
                raise FrameError("The runner answered something else.")
        return sandbox

    def _call(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], prop: Callable[..., Any] | None
    ) -> Call:
        if self._failed is not None:
            raise self._failed
        try:
            if self._sandbox is None:
                self._sandbox = self._start()
            return self._exchange(self._sandbox, function, args, kwargs, prop)
        except FrameError as error:
            self._sandbox = None
            spent = self._session.close()
            self._failed = self._broken(prop_title(prop) if prop else function, error, spent)
            raise self._failed from None
        except Unmet as unmet:
            if self._sandbox is None:
                self._failed = unmet
            raise
        except (CriterionFault, CourseError):
            raise
        except Exception as error:  # a reply that trips the judge's own code is the student's, never the batch's
            self._sandbox = None
            self._session.close()
            text = f"{function} returned something that cannot be read ({type(error).__name__})."
            self._failed = Unmet(text, "type")
            raise self._failed from None

    def _broken(self, function: str, error: FrameError, spent: str) -> Unmet:
        if spent:
            return Unmet(f"The process was ended while {function} ran: its processes {spent}.", "crash")
        if isinstance(error, TimeUp):
            if self._session.out_of_time:
                return Unmet(
                    f"The submission used up its {self._session.limits.submission:g} seconds in {function}.", "time"
                )
            seconds, self._limit = self._limit, self._session.limits.criterion / IMPATIENCE
            return Unmet(
                f"{function} did not finish within {seconds:g} seconds.",
                "time",
                ["A loop that does not end, or Python loops where one tensor operation would do."],
            )
        if isinstance(error, Closed):
            return Unmet(f"The process ended while {function} ran.", "crash")
        return Unmet(f"{function} returned something that cannot be read: {error}", "type")

    def _exchange(
        self,
        sandbox: Sandbox,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prop: Callable[..., Any] | None,
    ) -> Call:
        request = self._request(function, args, kwargs, prop)
        request.message["first"], self._first = self._first, False
        sandbox.channel.send(request.message, request.chunks)
        return self.result(request, *self.reply(sandbox, request))

    def _request(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], prop: Callable[..., Any] | None
    ) -> Request:
        callbacks: dict[str, Callable[..., Any]] = dict(self._replaced)
        generators = [a for a in [*args, *kwargs.values()] if isinstance(a, torch.Generator)]

        def reference(value: Any) -> Any:
            if isinstance(value, torch.Generator):
                return {"generator": encoder.encode(value.get_state())}
            if is_prop(value):  # it runs where the student's functions run
                return {"prop": value.__name__}
            if callable(value):
                name = str(getattr(value, "__name__", "function"))
                if callbacks.get(name, value) is not value:
                    name = f"{name}_{len(callbacks)}"
                callbacks[name] = value
                if isinstance(value, Given):
                    return {"given": [name, value.maker.__name__, encoder.encode(list(value.bound))]}
                return {"callback": name}
            return None

        encoder = Encoder(reference)
        try:
            node = encoder.encode([list(args), kwargs])
        except FrameError as error:
            raise CriterionFault(f"{function} cannot be called with these arguments: {error}") from None
        message = {
            "op": "prop" if prop else "call",
            "function": function,
            "arguments": node,
            "opaque": list(() if prop else self._opaque.get(function, ())),
            "first": False,
            "size": sum(map(len, encoder.chunks)),
        }
        return Request(function, prop_title(prop) if prop else function, message, encoder.chunks, callbacks, generators)

    def reply(self, sandbox: Sandbox, request: Request) -> tuple[dict[str, Any], memoryview]:
        """The reply to a request that was sent; what the student's function asks of ours before is answered."""
        while True:
            message, raw = sandbox.channel.receive(self._deadline)
            kind = message.get("op")
            if kind == "callback":
                self._answer(sandbox, request, message, raw)
            elif kind == "ended":
                raise Closed("The fork ended.")
            elif kind == "result":
                return message, raw
            else:
                raise FrameError("the reply is not one to this call.")

    def _answer(self, sandbox: Sandbox, request: Request, message: dict[str, Any], raw: memoryview) -> None:
        name, callbacks = message.get("name"), request.callbacks
        if not isinstance(name, str) or name not in callbacks:
            raise FrameError("a function was called that was not given.")
        decoder = Decoder(raw, lambda node: self._own(node, decoder, callbacks))
        positional, named = self._arguments(decoder.decode(message.get("arguments")))
        encoder = Encoder()
        reply: dict[str, Any] = {"op": "callback result", "result": None, "error": None, "generators": []}
        try:
            with bounded(self._deadline):
                reply["result"] = encoder.encode(callbacks[name](*positional, **named))
        except CriterionFault:
            raise
        except Overrun:
            raise TimeUp("A given function did not come back in time.") from None
        except Unmet as unmet:
            request.held.append(unmet)
            reply["error"] = unmet.message
        except Exception as error:
            encoder = Encoder()
            reply["error"] = f"{name} raised {type(error).__name__}: {error}"[:500]
        generators = [a for a in [*positional, *named.values()] if isinstance(a, torch.Generator)]
        reply["generators"] = [encoder.encode(g.get_state()) for g in generators]
        sandbox.channel.send(reply, encoder.chunks)

    def _arguments(self, decoded: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with which the student called a function of ours."""
        if not (isinstance(decoded, list) and len(decoded) == 2 and isinstance(decoded[0], list)):
            raise FrameError("a call back has no arguments.")
        positional, named = decoded
        if not isinstance(named, dict) or not all(isinstance(k, str) for k in named):
            raise FrameError("a call back has no arguments.")
        count = _numbers(decoded)
        self._numbers += count
        if count > MAX_CALLBACK_NUMBERS or self._numbers > MAX_CRITERION_NUMBERS:  # an outer product fills the memory
            raise FrameError("a given function was called with more numbers than any exercise needs.")
        return positional, named

    def _hear(self, request: Request, noted: Any) -> None:
        """Make the calls of given functions here that were answered in the jail (`Given`)."""
        if not isinstance(noted, list) or not all(isinstance(call, list) and len(call) == 2 for call in noted):
            raise FrameError("the calls of a given function cannot be read.")
        try:
            with bounded(self._deadline):
                for name, arguments in noted:
                    given = request.callbacks.get(name) if isinstance(name, str) else None
                    if not isinstance(given, Given):
                        raise FrameError("a function was called that was not given.")
                    positional, named = self._arguments(arguments)
                    try:
                        given(*positional, **named)
                    except (CriterionFault, Overrun):
                        raise
                    except Unmet as unmet:
                        request.held.append(unmet)
                    except Exception:  # it was answered with the same error, of which the reply tells
                        continue
        except Overrun:
            raise TimeUp("A given function did not come back in time.") from None

    def _own(self, node: dict[str, Any], decoder: Decoder, callbacks: Mapping[str, Callable[..., Any]]) -> Any:
        """What a student hands to a function of ours besides data: another one of ours, a generator, their object."""
        kind, body = next(iter(node.items()))
        if kind == "callback" and isinstance(body, str) and body in callbacks:
            return callbacks[body]
        if kind == "foreign":
            return Decoder(b"").decode(node)
        if kind == "generator":
            generator = torch.Generator()
            try:
                generator.set_state(decoder.decode(body))
            except (RuntimeError, TypeError) as error:
                raise FrameError("a generator has no readable state.") from error
            return generator
        raise FrameError("a reference is not known.")

    def result(self, request: Request, message: dict[str, Any], raw: memoryview) -> Call:
        """What a reply says.

        Raises
        ------
        Unmet
            When the function is not there or raised an exception, or one of the criterion's own was not content.
        FrameError
            When it says nothing that can be read.
        """
        held, function = request.held, request.function
        if message.get("missing") is True:
            verdict = not_defined(function)
            detail = next((e for n, e in self._session.cell_errors.items() if function in n.split(" and ")), None)
            if detail:
                verdict = Unmet(f"{function} is not defined: {detail}.", "not defined")
            raise held[0] if held else verdict
        decoder, error = Decoder(raw), message.get("error")
        result = None if error is not None else decoder.decode(message.get("result"))
        self._move_generators(message, decoder, request.generators)
        if "noted" in message:
            self._hear(request, decoder.decode(message["noted"]))
        if held:
            raise held[0]
        if error is not None:
            raise _raised(request.what, error, prop=request.what != request.function)
        record = Call(function, result)
        record.changed = [harmless_line(c, 80) for c in _texts(message.get("changed"))][:10]
        record.shared = [harmless_line(t, 80) for t in _texts(message.get("shared"))][:10]
        record.graph = message.get("graph") is True
        record.remarks = [harmless_line(r, 300) for r in _texts(message.get("remarks"))][:10]
        return record

    @staticmethod
    def _move_generators(message: dict[str, Any], decoder: Decoder, generators: list[torch.Generator]) -> None:
        states = message.get("generators")
        if generators and isinstance(states, list) and len(states) == len(generators):
            for generator, state in zip(generators, states, strict=True):
                value = decoder.decode(state)
                with contextlib.suppress(RuntimeError, TypeError):  # a forged state is the student's own loss
                    generator.set_state(value)


def _raised(function: str, error: object, prop: bool) -> Unmet:
    if not isinstance(error, dict):
        raise FrameError("the reply has no readable error.")
    kind, text = harmless_line(error.get("type"), 60), harmless_line(error.get("text"), 300)
    if kind == "NotImplementedError" and not text:
        return nothing_written(function, harmless_line(error.get("function"), 60))
    line, code = error.get("line"), harmless_line(error.get("code"), 120)
    where = ""
    if type(line) is int and line > 0:
        function, where = who_and_where(function, prop, line, code, _identifier(error.get("entered")))
    base = harmless_line(error.get("base"), 60)
    return exception_verdict(function, kind or "an exception", text, where, _identifier(error.get("name")), base)


def _identifier(value: object) -> str:
    """A name, with dots or without, that the runner sent; "" for anything else: it is quoted as Markdown."""
    if not isinstance(value, str) or len(value) > 60:
        return ""
    return value if all(part.isidentifier() for part in value.split(".")) else ""


def _numbers(value: object) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(_numbers(v) for v in value.values())
    return sum(_numbers(v) for v in value) if isinstance(value, list | tuple) else 1


def _texts(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
