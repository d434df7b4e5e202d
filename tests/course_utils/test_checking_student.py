"""A student's functions called in the same process, as in a notebook."""

from __future__ import annotations

import sys
import warnings
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch

from course_utils.checking import Given, LocalStudent, Unmet, prop, unchanged_arguments
from course_utils.checking.student import Raised, exception_verdict
from course_utils.checking.values import Foreign


def student(**functions: Any) -> LocalStudent:
    return LocalStudent(functions)


def refusal(make: Callable[[], Any]) -> Unmet:
    with pytest.raises(Unmet) as caught:
        make()
    return caught.value


def test_a_call_gives_the_result_and_is_kept() -> None:
    one = student(double=lambda x: 2 * x)
    assert one.double(torch.ones(2)).tolist() == [2, 2]
    assert [c.function for c in one.calls] == ["double"] and one.calls[0].changed == []


def test_the_function_gets_copies_and_what_it_changes_is_noted() -> None:
    def spoil(W: torch.Tensor, state: dict[str, Any], *, b: torch.Tensor) -> None:
        W += 1
        state["mean"][0] = 5
        b.zero_()

    W, state, b = torch.ones(2), {"mean": [torch.ones(1)]}, torch.ones(1)
    one = student(spoil=spoil)
    one.spoil(W, state, b=b)
    assert one.calls[0].changed == ["W", "state['mean'][0]", "b"]
    assert W.tolist() == [1, 1] and state["mean"][0].item() == 1 and b.item() == 1


def test_arguments_without_names_are_numbered() -> None:
    def spoil(*arguments: torch.Tensor) -> None:
        other = arguments[1]
        other += 1

    one = student(spoil=spoil)
    one.spoil(torch.ones(1), torch.ones(1))
    assert one.calls[0].changed == ["argument 2"]


def test_a_generator_moves_on_and_is_no_changed_argument() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    one = student(draw=lambda g: torch.rand(2, generator=g))
    one.draw(generator)
    assert one.calls[0].changed == [] and not torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("function", "kind", "says"),
    [
        (None, "not defined", "f is not defined"),
        (lambda: (_ for _ in ()).throw(NotImplementedError), "nothing written", "Nothing is written in f yet"),
        (lambda: (_ for _ in ()).throw(ValueError("no")), "exception", "f raised ValueError"),
        (lambda: torch.ones(2) - (torch.ones(2) > 0), "exception", "f raised NotImplementedError"),
        (lambda a, b: a, "exception", "f raised TypeError"),
        (5, "exception", "f raised TypeError"),
        (lambda: torch.ones(2, 3) @ torch.ones(2, 3), "exception", "f raised RuntimeError"),
    ],
)
def test_what_goes_wrong_is_told_as_what_it_is(function: Any, kind: str, says: str) -> None:
    one = student(**({} if function is None else {"f": function}))
    unmet = refusal(one.f)
    assert unmet.kind == kind and says in unmet.message
    assert one.calls[0].result == Raised(kind, unmet.exception)


CAUSES = {
    "def f(): return W": "`W` is made by another cell",
    "def f(): return torch.ones(2, 3) @ torch.ones(2, 3)": "Two shapes do not fit",
    "def f(): return torch.ones(2, 3) - torch.ones(2, 3).max(1)": "take `.values`",
    "def f():\n    a = torch.ones(3)\n    a += torch.ones(2, 3)": "keeps its shape",
    "def f(): return torch.ones(2, 3).T.view(6)": "`reshape` works on every tensor",
    "def f(): return torch.ones(2) @ torch.ones(2).double()": "give new tensors the input's dtype",
    "def f(): return torch.ones(2) - (torch.ones(2) > 0)": "`.to(X.dtype)` makes numbers",
    "def f(a): return a": "compare its signature",
    "def f(): return f()": "calls itself without end",
}


class Unknown(ValueError):
    """As a student may derive it."""


def test_an_exception_of_ones_own_counts_as_the_one_it_is_derived_from() -> None:
    unmet = refusal(student(f=lambda: (_ for _ in ()).throw(Unknown("no"))).f)
    assert unmet.exception == "ValueError" and "f raised Unknown" in unmet.message


DEVICES = {  # what PyTorch says, on machines with a GPU and without
    "Expected all tensors to be on the same device, but got mat1 is on cpu, different from other tensors on cuda:0": (
        "RuntimeError",
        "another device than the arguments",
    ),
    "Expected a 'cuda' device type for generator but found 'cpu'": (
        "RuntimeError",
        "another device than the arguments",
    ),
    "Input type (torch.FloatTensor) and weight type (torch.cuda.FloatTensor) should be the same": (
        "RuntimeError",
        "another device than the arguments",
    ),
    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.": (
        "TypeError",
        "another device than the arguments",
    ),
    "Torch not compiled with CUDA enabled": ("AssertionError", "no GPU under grading"),
    "No CUDA GPUs are available": ("RuntimeError", "no GPU under grading"),
    "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False.": (
        "RuntimeError",
        "no GPU under grading",
    ),
    "Input type (torch.DoubleTensor) and weight type (torch.FloatTensor) should be the same": ("RuntimeError", ""),
}


@pytest.mark.parametrize("text", DEVICES)
def test_devices_that_differ_or_are_not_there_are_told(text: str) -> None:
    kind, says = DEVICES[text]
    causes = exception_verdict("f", kind, text, "").causes
    assert says in " ".join(causes) and bool(says) == bool(causes)


def test_an_argument_that_is_moved_is_a_changed_one() -> None:
    def moves(params: dict[str, torch.Tensor]) -> None:
        params["W"] = params["W"].to("meta")

    one = student(moves=moves)
    one.moves({"W": torch.ones(2), "b": torch.ones(2)})
    assert one.calls[0].changed == ["params['W'] (moved to meta)"]
    unmet = refusal(lambda: unchanged_arguments(one.calls[0]))
    assert "a variable of your own" in unmet.causes[0]


@pytest.mark.parametrize("code", CAUSES)
def test_exceptions_come_with_their_usual_cause(code: str) -> None:
    namespace: dict[str, Any] = {"torch": torch}
    exec(compile(code, "<cell>", "exec"), namespace)
    unmet = refusal(LocalStudent(namespace).f)
    assert CAUSES[code] in " ".join(unmet.causes)


def test_the_line_of_the_students_code_is_named() -> None:
    namespace: dict[str, Any] = {}
    exec(compile("def f():\n    a = 1\n    return a / 0\n", "<cell>", "exec"), namespace)
    assert "in line 3 of its cell" in refusal(LocalStudent(namespace).f).message


CELLS = (
    "def helper(x):\n    return x / 0\ndef col2im(x):\n    return helper(x)\n",
    "class Block:\n    def forward(self, x):\n        return x / 0\n",
    "def again(f, x):\n    return f(x)\n",
    "nameless = lambda x: x / 0\n",
)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("return helper(x)", "f raised ZeroDivisionError in line 2 of the cell of helper: "),
        ("return col2im(x)", "f raised ZeroDivisionError in line 2 of the cell of col2im: "),
        ("return Block().forward(x)", "f raised ZeroDivisionError in line 3 of the cell of Block: "),
        ("return own(x)", "f raised ZeroDivisionError in line 4 of its cell: "),
        ("return again(f, 0) if x else x / 0", "f raised ZeroDivisionError in line 2 of its cell: "),
        ("return nameless(x)", "f raised ZeroDivisionError in line 1 of its cell: "),  # nobody knows better
    ],
)
def test_the_cell_of_the_line_is_named_where_it_is_another_ones(body: str, where: str) -> None:
    namespace: dict[str, Any] = {}
    for k, code in enumerate([*CELLS, f"def f(x):\n    {body}\ndef own(x):\n    return x / 0\n"]):
        exec(compile(code, f"<cell {k}>", "exec"), namespace)
    message = refusal(lambda: LocalStudent(namespace).f(1)).message
    assert message.startswith(where)


def test_warnings_and_lines_on_stderr_are_remarks() -> None:
    def loud() -> int:
        warnings.warn("dividing by zero", RuntimeWarning, stacklevel=1)
        print("careful", file=sys.stderr)
        return 1

    one = student(loud=loud)
    one.loud()
    assert one.calls[0].remarks == ["RuntimeWarning: dividing by zero", "careful"]


def test_a_callback_gets_plain_copies_and_its_verdict_cannot_be_swallowed() -> None:
    seen: list[torch.Tensor] = []

    def gradients(W: torch.Tensor) -> torch.Tensor:
        seen.append(W)
        if len(seen) == 2:
            raise Unmet("the second batch is empty")
        return W

    def train(W: torch.Tensor, gradients: Callable[[torch.Tensor], torch.Tensor]) -> int:
        gradients(W)
        W += 1
        try:
            gradients(W)
        except Exception:
            return 0
        return 1

    unmet = refusal(lambda: student(train=train).train(torch.zeros(1), gradients))
    assert unmet.message == "the second batch is empty"
    assert seen[0].item() == 0


def test_private_names_are_no_functions() -> None:
    with pytest.raises(AttributeError):
        student()._f  # noqa: B018


def test_an_opaque_result_comes_back_as_the_object_it_was() -> None:
    Cache = namedtuple("Cache", "x calls")

    def forward(x):
        return x * 2, Cache(x, [])

    def backward(grad, cache):
        cache.calls.append(1)  # its own business
        return grad * cache.x * len(cache.calls)

    one = LocalStudent({"forward": forward, "backward": backward}, {"forward": (1,)})
    out, cache = one.forward(torch.ones(2))
    assert torch.equal(out, torch.full((2,), 2.0)) and isinstance(cache, Foreign)
    assert torch.equal(one.backward(torch.ones(2), cache), torch.ones(2))
    assert torch.equal(one.backward(torch.ones(2), cache), torch.full((2,), 2.0))
    assert one.calls[-1].changed == []
    one.begin_criterion()
    with pytest.raises(IndexError):
        one.backward(torch.ones(2), cache)


def test_what_is_no_pair_has_no_opaque_part() -> None:
    one = LocalStudent({"forward": lambda x: x, "other": lambda: (1, 2)}, {"forward": (1,)})
    assert torch.equal(one.forward(torch.ones(3)), torch.ones(3))
    assert one.other() == (1, 2)


@prop
def make_probe(size):
    """Making a probe model."""
    return torch.nn.Linear(size, 1)


@prop
def weights_of(model, scale=1.0):
    """Reading the model's weights."""
    return model.weight.detach() * scale


def test_props_make_objects_and_read_them() -> None:
    one = LocalStudent({"double_weights": lambda model: model.weight.data.mul_(2).sum()})
    model = one.prop(make_probe, 3)
    before = one.prop(weights_of, model)
    one.double_weights(model)
    assert torch.equal(one.prop(weights_of, model, scale=0.5), before)
    assert "Reading the model's weights raised AttributeError" in refusal(lambda: one.prop(weights_of, 5)).message
    with pytest.raises(TypeError, match="not a prop"):
        one.prop(len, [])


def test_what_raised_inside_a_prop_is_named_after_what_the_prop_does() -> None:
    @prop
    def runs(*arguments):
        """Running the model on images."""
        return namespace["Block"]().run(1)

    namespace: dict[str, Any] = {}
    code = "class Block:\n    def run(self, x):\n        return self.half(x)\n"
    code += "    def half(self, x):\n        return x / 0\n"
    exec(compile(code, "<cell>", "exec"), namespace)
    message = refusal(lambda: LocalStudent(namespace).prop(runs)).message
    assert message.startswith("Running the model on images: Block.run raised ZeroDivisionError in line 5 of its cell: ")


def test_a_callback_gets_and_returns_handles() -> None:
    seen = []

    def transform(batch, generator):
        seen.append(generator)
        return batch

    one = LocalStudent({"run": lambda f, g: f(torch.ones(1), g)})
    one.run(transform, torch.Generator())
    assert isinstance(seen[0], Foreign) and seen[0].handle is not None


def test_gradients_that_stay_behind_are_seen() -> None:
    def marks(x: torch.Tensor) -> torch.Tensor:
        return x.requires_grad_()

    def differentiates(x: torch.Tensor) -> torch.Tensor:
        (x.requires_grad_() ** 2).sum().backward()
        return x.detach()

    one = LocalStudent({"marks": marks, "differentiates": differentiates})
    one.marks(torch.ones(3))
    assert one.calls[-1].changed == ["x (requires_grad)"] and one.calls[-1].graph
    one.differentiates(torch.ones(3))
    assert one.calls[-1].changed == ["x (.grad)"] and not one.calls[-1].graph


def test_the_function_in_which_nothing_is_written_is_named() -> None:
    namespace: dict[str, Any] = {}
    code = "def forward(x):\n    raise NotImplementedError()\ndef train(x):\n    return forward(x)\n"
    exec(compile(code, "<cell>", "exec"), namespace)
    unmet = refusal(lambda: LocalStudent(namespace).train(1))
    assert unmet.kind == "nothing written"
    assert unmet.message.startswith("Nothing is written in forward yet, which train calls")


def test_a_given_function_is_the_argument_itself() -> None:
    heard: list[Any] = []

    def g(x: int) -> int:
        heard.append(x)
        return 2 * x

    def maker() -> Callable[[int], int]:
        raise AssertionError("this is for the other side of a pipe")

    one = student(f=lambda g: (g(1), g(2)))
    assert one.f(Given(g, prop(maker))) == (2, 4) and heard == [1, 2]


def test_what_a_given_function_finds_wrong_counts() -> None:
    def g(x: int) -> int:
        raise Unmet("the batch is empty")

    def swallows(g: Callable[[int], int]) -> int:
        try:
            return g(1)
        except Unmet:
            return 3

    assert refusal(lambda: student(f=swallows).f(Given(g, prop(lambda: None)))).message == "the batch is empty"
