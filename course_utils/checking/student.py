"""The object through which a criterion calls the student's functions."""

from __future__ import annotations

import contextlib
import io
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from course_utils.checking.props import is_prop, prop_title
from course_utils.checking.unmet import Unmet
from course_utils.checking.values import (
    Foreign,
    carries_graph,
    changes,
    device_elsewhere,
    plain,
    plain_result,
    resolved,
    shared_memory,
    snapshot,
    type_name,
)

MAX_REMARK = 300
TWO_DEVICES = ("on the same device", "device type for generator", "(torch.cuda.", "device type tensor to numpy")
NO_GPU = ("Torch not compiled with CUDA", "No CUDA GPUs", "no NVIDIA driver", "no CUDA-capable", "on a CUDA device but")


@dataclass
class Call:
    """What one call of a student's function did besides returning a result.

    Attributes
    ----------
    function : str
        Name of the exercise called.
    result : object
        What came back, as plain values (`course_utils.checking.values`).
    changed : list of str
        The arguments that were changed, for example "argument 1 (y)" or "argument W".
    remarks : list of str
        Warnings and lines on stderr, at most a few hundred characters each.
    shared : list of str
        Arrays of the result that are the same memory, for example "[0]['b'] and [1]['b']".
    graph : bool
        Whether a tensor of the result requires a gradient, and so keeps the graph that made it.
    device : str
        Where a tensor of the result is that is not on the CPU, as the arguments are: "cuda:0".
    """

    function: str
    result: Any = None
    changed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    graph: bool = False
    device: str = ""


@dataclass(frozen=True)
class Raised:
    """Stands for the result of a call that gave none: why, and the exception's type where there was one.

    Where a function of the criterion's own was not content with what it was given, `verdict` is what it said.
    """

    kind: str
    exception: str = ""
    verdict: str = ""


class Student:
    """Calls the functions that a student wrote: `student.softmax(scores)`.

    A subclass says where the function runs: in this process (`LocalStudent`) or in the autograder's jailed runner.

    Attributes
    ----------
    calls : list of Call
        Every call so far, in order.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def begin_criterion(self) -> None:
        """Forget what the last criterion left: the objects that it had handles to."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.call(name, *args, **kwargs)

    def call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """Call the student's `function`; returns plain values, or raises `Unmet` where it raised an exception.

        What cannot be sent by value comes back as a handle (`course_utils.checking.values.Foreign`), which may be
        an argument of later calls of the same criterion.
        """
        return self._record(function, args, kwargs, None)

    def prop(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a prop (`course_utils.checking.prop`) on the student's side; handles arrive there as their objects."""
        if not is_prop(function):
            raise TypeError(f"{function.__name__} is not a prop: decorate it with @prop.")
        return self._record(function.__name__, args, kwargs, function)

    def _record(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], prop: Callable[..., Any] | None) -> Any:
        try:
            record = self._call(name, args, kwargs, prop)
        except Unmet as unmet:
            verdict = unmet.message if unmet.kind in ("value", "shape", "dtype") else ""
            self.calls.append(Call(name, Raised(unmet.kind, unmet.exception, verdict)))
            raise
        self.calls.append(record)
        return record.result

    def _call(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], prop: Callable[..., Any] | None
    ) -> Call:
        raise NotImplementedError


class LocalStudent(Student):
    """The functions of a namespace of this process: a notebook's, a reference solution's, or a mistake's.

    Parameters
    ----------
    namespace : mapping
        Where the functions are looked up by name.
    opaque : mapping
        By function, the positions in its result of what stays the student's own (`opaque_results`).
    """

    def __init__(self, namespace: Mapping[str, Any], opaque: Mapping[str, Sequence[int]] | None = None) -> None:
        super().__init__()
        self._namespace = namespace
        self._opaque = opaque or {}
        self._objects: list[Any] = []  # those that the criterion has handles to

    def begin_criterion(self) -> None:
        """Forget the objects that the last criterion had handles to."""
        self._objects = []

    def _keep(self, value: Any) -> Foreign:
        self._objects.append(value)
        return Foreign(type_name(value), len(self._objects) - 1)

    def _call(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], prop: Callable[..., Any] | None
    ) -> Call:
        if prop is None and function not in self._namespace:
            raise not_defined(function)
        code, what = (prop, prop_title(prop)) if prop else (self._namespace[function], function)
        record = Call(function)
        held: list[Unmet] = []

        def received(callback: Callable[..., Any]) -> Callable[..., Any]:
            def call_back(*a: Any, **k: Any) -> Any:
                try:
                    given = plain([list(a), k], wrap=self._keep)
                    return resolved(callback(*given[0], **given[1]), self._objects)
                except Unmet as unmet:  # the student's code may swallow it; the criterion still has to know
                    held.append(unmet)
                    raise

            return call_back

        given = tuple(received(a) if callable(a) else resolved(a, self._objects) for a in snapshot(args))
        given_by_name = {
            k: received(v) if callable(v) else resolved(v, self._objects) for k, v in snapshot(kwargs).items()
        }
        # A generator is the one argument that a call is meant to change: the criterion's own one moves on.
        given = tuple(a if isinstance(a, torch.Generator) else g for a, g in zip(args, given, strict=True))
        own = {id(o) for o in self._objects}
        before = snapshot(given, own), snapshot(given_by_name, own)
        errors = io.StringIO()
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(errors):
            warnings.simplefilter("always")
            try:
                result = code(*given, **given_by_name)
            except Unmet as unmet:
                raise (held or [unmet])[0] from None
            except Exception as error:
                raise (held or [raised_exception(what, error, prop is not None)])[0] from None
        if held:
            raise held[0]
        record.changed = [] if prop else changed_arguments(code, before, (given, given_by_name))
        record.shared, record.graph = shared_memory(result), carries_graph(result)
        record.device = device_elsewhere(result)
        record.result = plain_result(result, () if prop else self._opaque.get(function, ()), self._keep)
        seen = dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught)
        record.remarks = [r[:MAX_REMARK] for r in [*seen, *errors.getvalue().splitlines()] if r.strip()]
        return record


def changed_arguments(
    code: Callable[..., Any],
    before: tuple[tuple[Any, ...], dict[str, Any]],
    after: tuple[tuple[Any, ...], dict[str, Any]],
) -> list[str]:
    """Which arguments a call changed, named as the student named them."""
    written = getattr(code, "__code__", None)
    names = list(getattr(written, "co_varnames", ()))[: getattr(written, "co_argcount", 0)]
    found = []
    for i, (b, a) in enumerate(zip(before[0], after[0], strict=True)):
        found += changes(b, a, names[i] if i < len(names) else f"argument {i + 1}")
    for k in before[1]:
        found += changes(before[1][k], after[1][k], k)
    return found


def not_defined(function: str) -> Unmet:
    """The verdict where the student's notebook defines no such function."""
    return Unmet(f"{function} is not defined. Run the cell that defines it, and keep its name.", "not defined")


def nothing_written(function: str, inside: str = "") -> Unmet:
    """The verdict where the function, or one `inside` it that it calls, still raises the hand-out's exception."""
    if inside.isidentifier() and not inside.startswith("__") and inside != function:
        message = f"Nothing is written in {inside} yet, which {function} calls: it raised NotImplementedError."
    else:
        message = f"Nothing is written in {function} yet: it raised NotImplementedError."
    return Unmet(message, "nothing written")


def raised_exception(function: str, error: BaseException, prop: bool = False) -> Unmet:
    """The verdict where the student's function, or one that a prop called, raised an exception: what, and where."""
    where, text = "", str(error)
    if isinstance(error, NotImplementedError) and not text:  # PyTorch raises it too, with a text, for what it cannot do
        frames = [f for f in traceback.extract_tb(error.__traceback__) if is_student_frame(f.filename)]
        return nothing_written(function, frames[-1].name if frames else "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_student_frame(frame.filename):
            entered, line = entered_by(error, is_student_frame), (frame.line or "").strip()
            function, where = who_and_where(function, prop, frame.lineno or 0, line, entered)
            break
    name, base = getattr(error, "name", None), builtin_base(error)
    return exception_verdict(function, type(error).__name__, text, where, name, base)


def entered_by(error: BaseException, is_cell: Callable[[str], bool]) -> str:
    """Through what the calls came into the cell in which an exception was raised: "col2im", or "ConvBlock.forward".

    What that calls in the same cell is its own affair.  For a function inside another one it is the outer one, and ""
    for what has no name.
    """
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__) if is_cell(frame.f_code.co_filename)]
    name = ""
    for code in reversed(codes):
        if code.co_filename != codes[-1].co_filename:
            break
        name = code.co_qualname.partition(".<locals>")[0]
    return name if all(part.isidentifier() for part in name.split(".")) else ""


def who_and_where(what: str, prop: bool, line: int, code: str, entered: str) -> tuple[str, str]:
    """Who raised an exception, and in which line of whose cell, as parts of a sentence.

    Parameters
    ----------
    what : str
        The function that was called, or the title of a prop.
    prop : bool
        Whether it was a prop; then who raised is what it called.
    line, code : int, str
        The student's line.
    entered : str
        As `entered_by` gives it.
    """
    cell = entered.partition(".")[0]
    who = f"{what}: {entered}" if prop and entered else what
    whose = "its cell" if prop or cell in ("", what) else f"the cell of {cell}"
    return who, f" in line {line} of {whose}" + (f": `{code}`" if code else "")


def builtin_base(error: BaseException) -> str:
    """The name of the exception of Python that an exception is, or that its class is derived from."""
    return next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")


def is_student_frame(filename: str) -> bool:
    """Whether a traceback's frame belongs to a notebook cell rather than to a library."""
    return filename.startswith("<") or "ipykernel" in filename or filename.startswith("/submission")


def exception_verdict(
    function: str, kind: str, text: str, where: str, name: str | None = None, base: str = ""
) -> Unmet:
    """The verdict for an exception, with the causes that its type suggests; `base` as `builtin_base` gives it."""
    causes = []
    if kind == "NameError" and name:
        causes.append(
            f"`{name}` is made by another cell. A function may use only its arguments, imports and functions of "
            "yours: pass what it needs as an argument, or make it inside."
        )
    elif kind == "RuntimeError" and "through the graph a second time" in text:
        causes.append(
            "`backward` came to a graph that an earlier `backward` has used up: what is carried from one step to the "
            "next (a state, a loss) still hangs on it. `.detach()` keeps the values and cuts the graph."
        )
    elif any(part in text for part in TWO_DEVICES):
        causes.append(
            "A tensor is on another device than the arguments, which are on the CPU here and under grading: give new "
            "tensors the device of an argument (`device=X.device`), and move nothing elsewhere."
        )
    elif any(part in text for part in NO_GPU):
        causes.append(
            "There is no GPU under grading. Write `device=X.device`, with an argument X, in place of a device's name."
        )
    elif "torch.return_types" in text:
        causes.append(
            "`max`, `min` and `median` along an axis give a pair, the values and where they are: take `.values`."
        )
    elif kind == "RuntimeError" and "doesn't match the broadcast shape" in text:
        causes.append("What is changed in place (`+=`) keeps its shape. Write `a = a + b`, which makes a new tensor.")
    elif kind == "RuntimeError" and ("must match" in text or "shapes cannot be multiplied" in text):
        causes.append("Two shapes do not fit. Write the shape of every tensor beside its line and compare.")
    elif kind == "RuntimeError" and "view" in text:
        causes.append("`view` needs contiguous memory; `reshape` works on every tensor.")
    elif kind == "RuntimeError" and ("dtype" in text or "scalar type" in text):
        causes.append("A tensor of another dtype was made inside; give new tensors the input's dtype.")
    elif kind == "NotImplementedError" and ("not implemented for" in text or "bool tensor" in text):
        causes.append(
            "PyTorch does not do this with that dtype; `.to(X.dtype)` makes numbers of what a comparison gave."
        )
    elif kind == "TypeError" and "argument" in text:
        causes.append("The function is called with the arguments of the exercise's text; compare its signature.")
    elif kind == "RecursionError":
        causes.append("The function calls itself without end.")
    text = text if len(text) <= MAX_REMARK else f"{text[:MAX_REMARK].rsplit(' ', 1)[0]} …"
    return Unmet(f"{function} raised {kind}{where}: {text}", "exception", causes, exception=base or kind)
