"""What `check("rnn_forward")` and the like hold your functions of Assignment 4 against.

Read it when a message is not enough.  Each exercise is a list of criteria; the first line of a criterion says what
is asked.  `student.rnn_forward(...)` calls your function, `draw` makes random inputs, `expect` compares.  Grading
uses these criteria with other random inputs, and adds more: other sizes, extreme values, traps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.checking import (
    Draw,
    Exercise,
    Form,
    Nested,
    Opaque,
    Student,
    Unmet,
    add_contract,
    apart_from_factor,
    away_from_zero,
    expect,
    finite,
    prop,
    scalar,
    unchanged_arguments,
)

Params = dict[str, Tensor]
Slips = dict[str, Tensor]
"""What usual slips give, each under the sentence that explains it; computed only where something differs."""
Leaves = list[tuple[Form, Any]]


def ready_made(*words: str) -> list[str]:
    """Whatever PyTorch offers whose name holds one of the words: functions, layers, their variants."""
    places = {"torch": torch, "torch.nn": nn, "torch.nn.modules": nn.modules, "torch.nn.functional": F}
    places |= {"torch.nn.utils": nn.utils, "torch.nn.utils.clip_grad": nn.utils.clip_grad}
    names = {f"{place}.{n}" for place, module in places.items() for n in dir(module) if not n.startswith("_")}
    return sorted(n for n in names if any(w in n.split(".")[-1].replace("_", "").lower() for w in words))


COPIES = ("torch.ao.*", "torch.nn.quantizable.*", "torch.nn.quantized.*", "torch.nn.qat.*", "torchvision.*")

# What the exercises written by hand ask you to write, and what would do it for you.  All else of torch.nn is free.
FORBIDDEN = (
    "torch.autograd.*",
    "torch.func.*",
    "torch.optim.*",
    "torch.nn.modules.rnn.*",
    "torch.nn.modules.transformer.*",
    "torch.nn.modules.activation.MultiheadAttention",
    "torch.nn.attention.*",
    *COPIES,
    *ready_made("rnn", "lstm", "gru", "clipgrad", "multihead", "transformer", "scaleddotproduct"),
)

# What the modules may not be made of; all else of torch.nn is free.
FORBIDDEN_IN_MODULES = (
    "torch.nn.modules.transformer.*",
    "torch.nn.modules.activation.MultiheadAttention",
    *COPIES,
    *ready_made("multihead", "transformer"),
)


# --- Random problems -------------------------------------------------------------------------------------------------


def sizes(draw: Draw) -> tuple[int, int, int]:
    """Numbers of steps T, characters K and units m, from 3 to 9; they always differ, so a mixed-up axis shows."""
    T, K, m = (3 + size for size in draw.permutation(7)[:3].tolist())
    return T, K, m


def letters(draw: Draw, count: int) -> list[str]:
    """So many different characters in random order: letters, digits, signs, blanks, none of them ASCII alone."""
    pool = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'-()&$äöüßéèñçøåœ€"
    return [pool[i] for i in draw.permutation(len(pool))[:count].tolist()]


def text_of(draw: Draw, characters: Sequence[str], length: int) -> str:
    """A text of these characters, in which every one occurs."""
    more = draw.integers(0, len(characters), length - len(characters)).tolist()
    all_of_them = [*characters, *(characters[i] for i in more)]
    return "".join(all_of_them[i] for i in draw.permutation(length).tolist())


def rnn(draw: Draw, K: int, m: int, *, bias: bool = True) -> Params:
    """The parameters of a vanilla RNN; without `bias` b and c are 0."""
    params = {
        "U": draw.normal(K, m, scale=0.8),
        "W": draw.normal(m, m, scale=0.9 / math.sqrt(m)),
        "V": draw.normal(m, K, scale=0.8),
        "b": 0.5 * away_from_zero(draw, m),
        "c": 0.5 * away_from_zero(draw, K),
    }
    return params if bias else {**params, "b": 0 * params["b"], "c": 0 * params["c"]}


@dataclass(frozen=True)
class Problem:
    """A vanilla RNN, a sequence for it and the state that it starts from."""

    params: Params
    inputs: Tensor
    targets: Tensor
    h0: Tensor

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.inputs)

    @property
    def K(self) -> int:
        """The number of characters."""
        return len(self.params["c"])

    @property
    def m(self) -> int:
        """The number of units of the state."""
        return len(self.params["b"])

    @property
    def one_hot(self) -> Tensor:
        """The inputs as one-hot rows (T, K), in the parameters' dtype."""
        return F.one_hot(self.inputs, self.K).to(self.params["U"].dtype)

    def with_params(self, **changed: Tensor) -> Problem:
        """The same problem with some of the parameters replaced."""
        return replace(self, params={**self.params, **changed})

    def gentle(self) -> Problem:
        """The same problem with states so small that the tanh hardly bends: slopes are 1, up to rtol = 1e-3."""
        small = {name: 1e-4 * self.params[name] for name in ("U", "b")}
        return replace(self.with_params(**small), h0=1e-4 * self.h0)

    def step(self, t: int) -> Problem:
        """The problem of one step of the sequence, from the state h0."""
        return replace(self, inputs=self.inputs[t : t + 1], targets=self.targets[t : t + 1])


def problem(
    draw: Draw, T: int | None = None, *, shape: tuple[int, int] | None = None, bias: bool = True, h0: bool = True
) -> Problem:
    """A random problem of T steps, K characters and m units; without `h0` it starts from zeros."""
    steps, K, m = sizes(draw)
    K, m = shape or (K, m)
    T = T or steps
    start = draw.normal(m, scale=0.7) if h0 else torch.zeros(m, dtype=draw.dtype)
    return Problem(rnn(draw, K, m, bias=bias), draw.integers(0, K, T), draw.integers(0, K, T), start)


def states_of(params: Params, inputs: Tensor, h0: Tensor) -> Tensor:
    """The states h_1 … h_T of a vanilla RNN, (T, m)."""
    h, states = h0, []
    for x in F.one_hot(inputs, len(params["c"])).to(h0.dtype):
        h = torch.tanh(F.linear(x, params["U"].T, params["b"]) + F.linear(h, params["W"].T))
        states.append(h)
    return torch.stack(states)


def loss_of(params: Params, inputs: Tensor, targets: Tensor, h0: Tensor) -> Tensor:
    """The mean cross-entropy of a vanilla RNN over a sequence, by PyTorch."""
    return F.cross_entropy(F.linear(states_of(params, inputs, h0), params["V"].T, params["c"]), targets)


def gradients_by_autograd(loss: Callable[[Params], Tensor], params: Params) -> Params:
    """The gradients of loss(params)."""
    leaves = {k: v.detach().clone().requires_grad_() for k, v in params.items()}
    found = torch.autograd.grad(loss(leaves), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


# --- Results ---------------------------------------------------------------------------------------------------------


def entry(result: Any, key: str, shape: Sequence[int], name: str) -> Tensor:
    """The tensor `key` of a dict, finite and of this shape."""
    expect(result, name).all(result is not None, f"{name} is None: nothing is returned")
    if not isinstance(result, dict):
        raise Unmet(f"Expected {name} as a dict with keys such as {key!r}.", "type")
    if key not in result:
        raise Unmet(f"There is no {key!r} in {name}.", "type", ["The keys are those of the argument."])
    return finite(result[key], *shape, name=f"{name}[{key!r}]")


def shapes_of(params: Params) -> dict[str, tuple[int, ...]]:
    """The shapes of a dict of tensors, as `Nested` takes them."""
    return {k: tuple(v.shape) for k, v in params.items()}


def differs(a: Any, b: Any, otherwise: str) -> None:
    """Two results are not the same; without this a function that computes nothing would pass as well-behaved."""
    expect(a).all(bool((expect(a).tensor() != expect(b).tensor()).any()), otherwise)


def raises(call: Callable[[], Any], exception: str, what: str, *, names: Sequence[str] = ()) -> None:
    """`call` raises the exception, and its text names one of `names`."""
    try:
        result = call()
    except Unmet as raised:
        if raised.kind != "exception":
            raise
        if raised.exception != exception:
            raise Unmet(f"Expected {exception} for {what}. {raised.message}", "exception") from None
        if names and not any(name in raised.message.split(": ", 1)[-1].split("`: ")[-1] for name in names):
            raise Unmet(f"The {exception} for {what}, does not name it: {raised.message}", "exception") from None
        return
    raise Unmet(
        f"Expected {exception} for {what}, but a result came back: {str(result)[:60]!r}.",
        causes=[f"What is not right is to be refused where it happens, by a {exception}: later it is hard to find."],
    )


def add_contract_of(exercise: Exercise, call: Callable[[Student, Draw], Leaves]) -> None:
    """Form of the results and arguments left alone, where a cache has to be made first.

    `call(student, draw)` makes one call of the exercise's function, the last of all, and gives its results as
    pairs of a form and a value.
    """

    @exercise.criterion(points=0.5, contract=True)
    def keeps_form(student: Student, draw: Draw) -> None:
        """Results have the documented shapes and types, and the dtype of the float inputs (float32 and float64)."""
        for dtype in (torch.float64, torch.float32):
            draw.dtype = dtype
            for form, value in call(student, draw):
                form.check(value, dtype)

    @exercise.criterion(points=0.5, contract=True)
    def leaves_arguments_alone(student: Student, draw: Draw) -> None:
        """The function does not change the arguments it is given."""
        for _ in range(3):  # a change may happen to leave the numbers as they were
            call(student, draw)
            unchanged_arguments(student.calls[-1])


# --- From characters to numbers --------------------------------------------------------------------------------------

build_vocabulary = Exercise("build_vocabulary", forbidden=FORBIDDEN)

UNSORTED = (
    "The characters are not numbered in sorted order. A set has another order in every run of Python, and with other "
    "indices a trained network writes nonsense: `sorted(set(text))`."
)


def vocabulary(student: Student, text: str) -> tuple[dict[str, int], dict[int, str]]:
    """The student's two dicts; a list in place of the second is the business of the criterion on form."""
    to_index, to_char = expect(student.build_vocabulary(text)).parts("char_to_index", "index_to_char")
    if not isinstance(to_index, dict) or not all(type(k) is str and type(v) is int for k, v in to_index.items()):
        cause = ["char_to_index is {'a': 0, …}, index_to_char is {0: 'a', …}, in this order."]
        raise Unmet("Expected char_to_index as a dict from str to int.", "type", cause)
    to_char = dict(enumerate(to_char)) if isinstance(to_char, list | tuple | str) else to_char
    return to_index, to_char if isinstance(to_char, dict) else {}


@build_vocabulary.criterion(points=1)
def one_index_for_every_character(student: Student, draw: Draw) -> None:
    """char_to_index gives each of the K characters of the text an index of its own, from 0 to K − 1."""
    characters = [" ", "\n", *letters(draw, 28)]
    to_index, _ = vocabulary(student, text_of(draw, characters, 80))
    missing, extra = set(characters) - set(to_index), set(to_index) - set(characters)
    expect(to_index).all(
        not missing, f"{len(missing)} characters of the text have no index, such as {min(missing, default='')!r}"
    )
    expect(to_index).all(
        not extra, f"characters have an index that the text does not have, such as {min(extra, default='')!r}"
    )
    right = sorted(to_index.values()) == list(range(30))
    expect(to_index).all(right, f"the 30 indices are {sorted(to_index.values())[:4]} …, not 0, 1, … 29, each once")


@build_vocabulary.criterion(points=1)
def sorted_characters(student: Student, draw: Draw) -> None:
    """The indices follow the characters' order, so every run numbers them alike."""
    characters = letters(draw, 30)
    to_index, _ = vocabulary(student, text_of(draw, characters, 80))
    order = sorted(to_index, key=lambda c: to_index[c])
    for before, after in pairwise(order):
        if before > after:
            text = f"{before!r} has the index {to_index[before]} and {after!r} the index {to_index[after]}."
            raise Unmet(text, causes=[UNSORTED])


@build_vocabulary.criterion(points=0.5)
def inverse_of_each_other(student: Student, draw: Draw) -> None:
    """index_to_char leads back from every index to its character."""
    to_index, to_char = vocabulary(student, text_of(draw, letters(draw, 25), 60))
    expect(to_index).all(bool(to_index), "there is no character")
    for c, i in to_index.items():
        expect(to_char).all(to_char.get(i) == c, f"{c!r} has the index {i}, but that leads to {to_char.get(i)!r}")
    expect(to_char).all(len(to_char) == len(to_index), "there are more indices than characters")


@build_vocabulary.criterion(points=0.25, contract=True, name="keeps_form")
def form_of_a_vocabulary(student: Student, draw: Draw) -> None:
    """The results are two dicts, from str to int and from int to str."""
    found = expect(student.build_vocabulary("to be or not to be")).parts("char_to_index", "index_to_char")
    for name, value, of, to in zip(("char_to_index", "index_to_char"), found, (str, int), (int, str), strict=True):
        right = isinstance(value, dict) and all(type(k) is of and type(v) is to for k, v in value.items())
        if not right:
            raise Unmet(f"Expected {name} as a dict from {of.__name__} to {to.__name__}.", "type")


encode = Exercise("encode", forbidden=FORBIDDEN)


def random_table(draw: Draw, count: int = 20) -> dict[str, int]:
    """A vocabulary whose indices are in no order."""
    return dict(zip(letters(draw, count), draw.permutation(count).tolist(), strict=True))


STRANGERS = "ЖЩЮЯЭЫЧШФД"  # characters that no text here has


@encode.criterion(points=1)
def index_of_every_character(student: Student, draw: Draw) -> None:
    """Every character is replaced by the index that char_to_index gives it."""
    table = random_table(draw)
    text = text_of(draw, list(table), 40)
    expected = torch.tensor([table[c] for c in text])
    expect(student.encode(text, table), "the indices").equal(expected)


@encode.criterion(points=0.5)
def unknown_character(student: Student, draw: Draw) -> None:
    """A character that is not in the vocabulary raises a KeyError that names it."""
    table = random_table(draw)
    stranger, text = STRANGERS[draw.integer(0, len(STRANGERS))], text_of(draw, list(table), 40)
    at = draw.integer(0, 40)
    names = [stranger, ascii(stranger)[1:-1], f"{ord(stranger)}", f"{ord(stranger):x}", f"{ord(stranger):X}"]
    what = f"the character {stranger!r}, which is not in char_to_index"
    raises(lambda: student.encode(text[:at] + stranger + text[at:], table), "KeyError", what, names=names)


add_contract(
    encode,
    lambda draw: (("abca", {"b": 2, "a": 0, "c": 1}), {}),
    [Form("the indices", (4,), dtype=torch.int64)],
    points=0.25,
)


decode = Exercise("decode", forbidden=FORBIDDEN)


@decode.criterion(points=1)
def character_of_every_index(student: Student, draw: Draw) -> None:
    """Every index is replaced by the character that index_to_char gives it, and all make one str."""
    table = {i: c for c, i in random_table(draw).items()}
    indices = draw.integers(0, 20, 40)
    expected = "".join(table[i] for i in indices.tolist())
    got = student.decode(indices, table)
    if not isinstance(got, str):
        expect(got, "the text").equal(expected)
    wrong = next((t for t in range(min(len(got), 40)) if got[t] != expected[t]), None)
    if wrong is not None:
        raise Unmet(f"Character {wrong} is {got[wrong]!r}; the index there stands for {expected[wrong]!r}.")
    expect(got).all(len(got) == 40, f"the text has {len(got)} characters for 40 indices")


@decode.criterion(points=0.5)
def unknown_index(student: Student, draw: Draw) -> None:
    """An index that is not in the vocabulary raises a KeyError that names it."""
    table = {i: c for c, i in random_table(draw).items()}
    for stranger in (draw.integer(1000, 9999), -1):
        indices = draw.integers(0, 20, 12)
        indices[draw.integer(0, 12)] = stranger
        what = f"the index {stranger}, which is not in index_to_char"
        raises(lambda given=indices: student.decode(given, table), "KeyError", what, names=[str(stranger)])


one_hot = Exercise("one_hot", forbidden=FORBIDDEN)


@one_hot.criterion(points=1)
def one_in_the_column_of_the_index(student: Student, draw: Draw) -> None:
    """Row t has its 1 in the column of index t."""
    T, K, _ = sizes(draw)
    indices = torch.cat([draw.integers(0, K, T - 1), torch.tensor([K - 1])])  # a guess of K from the data is right here
    rows = expect(student.one_hot(indices, K)).shape(T, K).tensor()
    for t, index in enumerate(indices.tolist()):
        expect(rows).all(bool(rows[t, index] == rows[t].max()), f"row {t} has no 1 in column {index}, its index")
    expected = torch.tensor([[float(k == i) for k in range(K)] for i in indices.tolist()])
    expect(rows).equal(expected)


@one_hot.criterion(points=0.5)
def zeros_and_ones(student: Student, draw: Draw) -> None:
    """There is one 1 for each index, and every other entry is 0."""
    T, K, _ = sizes(draw)
    indices = torch.cat([draw.integers(0, K, T - 1), torch.tensor([K - 1])])
    got = expect(student.one_hot(indices, K)).tensor()
    expect(got).all((got == 0) | (got == 1), "an entry is neither 0 nor 1")
    expect(got).all(bool((got == 1).sum() == T), f"there are {int((got == 1).sum())} ones for {T} indices")
    expect(got).all(got.numel() == T * K, f"there are {got.numel()} entries, not T·K = {T * K}")


@one_hot.criterion(points=0.5)
def a_column_for_every_character(student: Student, draw: Draw) -> None:
    """There are K columns, also where the last characters do not occur."""
    T, K, _ = sizes(draw)
    K = K + 2 if K + 2 != T else K + 3
    got = expect(student.one_hot(draw.integers(0, 3, T), K)).finite().tensor()
    expect(got).all(got.ndim == 2 and K in got.shape, f"the result is of shape {tuple(got.shape)} for K = {K}")
    differs(got, got.flatten()[:1], "every entry is the same")


add_contract(
    one_hot,
    lambda draw: (torch.cat([draw.integers(0, 5, 6), torch.tensor([4])]), 5),
    [Form("the result", (7, 5), dtype=torch.float32)],
    points=0.25,
)


chunks = Exercise("chunks", forbidden=FORBIDDEN)


@dataclass
class Cut:
    """A text whose characters all differ, and the pairs that the student cut it into."""

    student: Student
    N: int
    T: int
    draw: Draw
    indices: Tensor = field(init=False)
    pairs: list[tuple[Tensor, Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.indices = self.draw.permutation(self.N) + 10
        result = self.student.chunks(self.indices, self.T)
        expect(result).all(result is not None, "the result is None")
        if not isinstance(result, list | tuple) or not result:
            raise Unmet("Expected a list of pairs (inputs, targets), and at least one.", "type")
        self.pairs = []
        for pair in result:
            inputs, targets = (expect(part, "a chunk").tensor() for part in expect(pair).parts("inputs", "targets"))
            expect(inputs).all(inputs.ndim == 1 and targets.ndim == 1, "inputs or targets are not of shape (T,)")
            self.pairs.append((inputs, targets))

    def place(self, values: Tensor, name: str) -> Tensor:
        """Where in the text each value stands."""
        same = values[:, None] == self.indices
        expect(values).all(same.any(1), f"{name} has values that the text has not")
        return same.long().argmax(1)

    @property
    def inputs(self) -> Tensor:
        """The places in the text of all inputs, in order."""
        return torch.cat([self.place(x, "inputs") for x, _ in self.pairs])

    @property
    def lengths(self) -> list[int]:
        """The number of inputs of every chunk."""
        return [len(x) for x, _ in self.pairs]


@chunks.criterion(points=1)
def targets_one_ahead(student: Student, draw: Draw) -> None:
    """The target of every input is the character that follows it in the text."""
    T = draw.integer(4, 8)
    cut = Cut(student, 5 * T + 1, T, draw)
    for inputs, targets in cut.pairs:
        n = min(len(inputs), len(targets))
        ahead = cut.place(targets[:n], "targets") - cut.place(inputs[:n], "inputs")
        wrong = [a for a in ahead.tolist() if a != 1]
        expect(ahead).all(not wrong, f"a target stands {wrong[0] if wrong else 1} characters after its input, not 1")
        expect(inputs).all(len(inputs) == len(targets), f"a chunk has {len(inputs)} inputs and {len(targets)} targets")


@chunks.criterion(points=1)
def every_character_once(student: Student, draw: Draw) -> None:
    """The chunks follow each other without gap or overlap, to the end of the text (T divides N − 1 here)."""
    T = draw.integer(4, 8)
    cut = Cut(student, 5 * T + 1, T, draw)
    expected, places = torch.arange(5 * T), cut.inputs
    missing = len(set(expected.tolist()) - set(places.tolist()))
    expect(places).all(missing == 0, f"{missing} of {5 * T} characters that have a successor are no input")
    twice = len(places) - len(set(places.tolist()))
    expect(places).all(twice == 0, f"{twice} characters are inputs of more than one chunk")
    in_order = all(bool(b == a + 1) for a, b in pairwise(places.tolist()) if b < 5 * T)
    expect(places).all(in_order, "the inputs are not in the order of the text")


@chunks.criterion(points=0.5)
def chunks_have_length_T(student: Student, draw: Draw) -> None:
    """All chunks have T inputs (T divides N − 1 here)."""
    T = draw.integer(4, 8)
    cut = Cut(student, 3 * T + 1, T, draw)
    right = all(length == T for length in cut.lengths)
    expect(cut.lengths).all(right, f"T = {T} and {3 * T + 1} characters give chunks of {cut.lengths} inputs")


@chunks.criterion(points=0.5)
def shorter_tail_is_kept(student: Student, draw: Draw) -> None:
    """Where T does not divide N − 1, the last chunk has what is left."""
    T = draw.integer(5, 9)
    for left in (1, T - 2):
        cut = Cut(student, 2 * T + left + 1, T, draw)
        text = f"T = {T} and {2 * T + left + 1} characters end with a chunk of {cut.lengths[-1]} inputs, not {left}"
        text += ": nothing follows the last character, so it is no input" if cut.N - 1 in cut.inputs.tolist() else ""
        expect(cut.lengths).all(cut.lengths[-1] == left, text)


@chunks.criterion(points=0.5)
def too_short_a_text(student: Student, draw: Draw) -> None:
    """A text of fewer than 2 characters has nothing to predict: a ValueError."""
    for N, what in ((1, "a text of one character"), (0, "an empty text")):
        raises(lambda N=N: student.chunks(draw.integers(0, 9, N), 5), "ValueError", what)


@chunks.criterion(points=0.25, contract=True)
def keeps_form_of_chunks(student: Student, draw: Draw) -> None:
    """Every chunk is a pair of int64 tensors."""
    for inputs, targets in Cut(student, 12, 4, draw).pairs:
        expect(inputs, "inputs").dtype(torch.int64)
        expect(targets, "targets").dtype(torch.int64)


# --- The recurrent network -------------------------------------------------------------------------------------------

init_rnn = Exercise("init_rnn", forbidden=FORBIDDEN)

# So many entries that chance alone takes a right solution's spread 7 % off once in 10¹² times.
WIDE = (70, 90)
MATRICES = ("U", "W", "V")


def matrices(student: Student, K: int, m: int, sigma: float, generator: torch.Generator) -> Params:
    """The student's three matrices, of whatever shape."""
    result = student.init_rnn(K, m, sigma=sigma, generator=generator)
    if not isinstance(result, dict):
        raise Unmet("Expected the parameters as a dict with the keys U, W, V, b and c.", "type")
    for name in MATRICES:
        expect(result).all(name in result, f"the parameters have no {name!r}")
    return {name: expect(result[name], name).finite().tensor() for name in MATRICES}


@init_rnn.criterion(points=1)
def standard_deviation_sigma(student: Student, draw: Draw) -> None:
    """The entries of U, W and V have mean 0 and standard deviation sigma."""
    for sigma in (draw.number(0.005, 0.02), draw.number(2, 4)):
        for name, M in matrices(student, *WIDE, sigma, draw.generator()).items():
            spread, mean = M.double().pow(2).mean().sqrt().item(), M.double().mean().item()
            expect(M).all(abs(mean) < 0.09 * spread or mean == 0, f"the mean of {name} is {mean:.3g}, not about 0")
            text = f"the standard deviation of {name} is {spread:.4g}, expected {sigma:.4g}"
            expect(M).all(abs(spread - sigma) <= 0.07 * sigma, text)


@init_rnn.criterion(points=0.5)
def gaussian(student: Student, draw: Draw) -> None:
    """The entries of U, W and V are Gaussian."""
    for name, M in matrices(student, *WIDE, 0.3, draw.generator()).items():
        z = (M.double() - M.double().mean()) / M.double().std().clamp(min=1e-30)
        # Of a Gaussian 3, of a uniform distribution 1.8; chance takes a right one 0.7 off less than once in 10⁹ times.
        kurtosis = z.pow(4).mean().item()
        expect(z).all(abs(kurtosis - 3) < 0.7, f"the fourth moment of {name} is {kurtosis:.2f}, not about 3")


@init_rnn.criterion(points=0.5)
def numbers_of_their_own(student: Student, draw: Draw) -> None:
    """Every entry of U, W and V is drawn by itself, also where two have the same shape; no two share memory."""
    found = matrices(student, 6, 6, 0.3, draw.generator())
    shared = student.calls[-1].shared
    for one, other in (("U", "W"), ("U", "V"), ("W", "V")):
        same = bool((found[one].flatten() == found[other].flatten()).any())
        expect(found).all(not same, f"{one} and {other} have the same entries: draw each by itself")
    for name, M in found.items():
        for kind, lines in (("rows", M), ("columns", M.T)):
            alike = bool((lines[0] == lines[1]).all())
            expect(M).all(not alike, f"{kind} of {name} have the same entries: draw every entry by itself")
        expect(M).all(not torch.equal(M, M.T), f"{name} is symmetric: draw every entry by itself")
    expect(found).all(not shared, f"arrays share memory, so changing one changes the other: {', '.join(shared[:2])}")


@init_rnn.criterion(points=0.5, contract=True)
def generator_decides(student: Student, draw: Draw) -> None:
    """The same state of `generator` gives the same parameters, another state others."""
    seed = draw.integer(0, 2**31)
    first, again, other = (
        matrices(student, 5, 4, 0.3, torch.Generator().manual_seed(s)) for s in (seed, seed, seed + 1)
    )
    for name, M in first.items():
        expect(again[name], f"{name} for the same state of the generator").equal(M)
        expect(M).all(bool((other[name] != M).any()), f"{name} is the same for generators of different states")


@init_rnn.criterion(points=0.5, contract=True)
def biases_are_zero(student: Student, draw: Draw) -> None:
    """b and c are zero."""
    result = student.init_rnn(7, 4, sigma=0.3, generator=draw.generator())
    for name, length in (("b", 4), ("c", 7)):
        expect(entry(result, name, (length,), "the parameters"), name).equal(torch.zeros(length))


@init_rnn.criterion(points=0.5, contract=True, name="keeps_form")
def keeps_form_of_parameters(student: Student, draw: Draw) -> None:
    """The result is {"U": (K, m), "W": (m, m), "V": (m, K), "b": (m,), "c": (K,)} of float32 tensors."""
    _, K, m = sizes(draw)
    form = Nested("the parameters", {"U": (K, m), "W": (m, m), "V": (m, K), "b": (m,), "c": (K,)})
    for part, value in form.leaves(student.init_rnn(K, m, sigma=0.3, generator=draw.generator())):
        part.check(value, torch.float32)


rnn_forward = Exercise("rnn_forward", forbidden=FORBIDDEN, opaque=(2,))


def forward(student: Student, p: Problem, inputs: Tensor | None = None) -> tuple[Any, Any, Any]:
    """The student's loss, last state and cache; `inputs` in place of the problem's.

    Without `inputs` one-hot rows have their turn where indices raise an error: that both are understood is the
    business of indices_or_one_hot_rows.
    """
    given = p.inputs if inputs is None else inputs
    try:
        result = student.rnn_forward(p.params, given, p.targets, p.h0)
    except Unmet as raised:
        if inputs is not None or raised.kind != "exception":
            raise
        try:
            result = student.rnn_forward(p.params, p.one_hot, p.targets, p.h0)
        except Unmet:
            raise raised from None
    return expect(result).parts("loss", "h_last", "cache")


def last_of(h_last: Any, p: Problem) -> Any:
    """The last state, where all of them came back: that is the business of the criterion on form."""
    return h_last[-1] if isinstance(h_last, Tensor) and h_last.shape == (p.T, p.m) else h_last


def loss_and_state(student: Student, p: Problem, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The student's loss and last state, finite and of the right shapes."""
    loss, h_last, _ = forward(student, p, inputs)
    return scalar(loss), finite(last_of(h_last, p), p.m, name="h_last")


def last_state(student: Student, p: Problem) -> Tensor:
    """The student's last state, finite and of the right shape, whatever the loss is."""
    return finite(last_of(forward(student, p)[1], p), p.m, name="h_last")


def close(got: Tensor, right: Tensor) -> bool:
    """Whether two tensors of the same shape differ by no more than rounding."""
    return bool((got - right).norm() <= 1e-6 * right.norm())


def steps_otherwise(student: Student, p: Problem) -> bool:
    """Whether a step gives another function of x U + h W than tanh, which state_after_one_step says.

    Then other criteria ask of states and losses whether they follow from the student's own steps.
    """
    p = replace(p.with_params(b=0 * p.params["b"]), h0=0 * p.h0).step(0)
    U, W, h0 = p.params["U"], p.params["W"], torch.linspace(0.2, 0.7, p.m, dtype=p.h0.dtype)
    from_zeros, doubled = last_state(student, p), last_state(student, p.with_params(U=2 * U))
    if close(from_zeros, states_of(p.params, p.inputs, p.h0)[-1]) or close(doubled, from_zeros):
        return False
    return close(last_state(student, replace(p, h0=h0)), last_state(student, p.with_params(U=U + h0 @ W)))


def own_states(student: Student, p: Problem) -> Tensor:
    """The states that the student's steps go through when taken one at a time, (T, m)."""
    states = [p.h0]
    for t in range(p.T):
        states.append(last_state(student, replace(p.step(t), h0=states[-1])))
    return torch.stack(states[1:])


def expected_state(student: Student, p: Problem, got: Tensor) -> Tensor:
    """The right last state, or that of the student's own steps where those are others."""
    right = states_of(p.params, p.inputs, p.h0)[-1]
    return right if close(got, right) or not steps_otherwise(student, p) else own_states(student, p)[-1]


def expected_loss(student: Student, p: Problem, got: Tensor) -> Tensor:
    """The right loss, or that of the states of the student's own steps where those are others."""
    right = loss_of(p.params, p.inputs, p.targets, p.h0)
    if close(got, right) or not steps_otherwise(student, p):
        return right
    return F.cross_entropy(F.linear(own_states(student, p), p.params["V"].T, p.params["c"]), p.targets)


def first_state_slips(p: Problem) -> Slips:
    a = p.params["U"][p.inputs[0]]
    return {"The tanh is missing.": a, "The sigmoid stands where tanh is meant.": torch.sigmoid(a)}


def last_state_slips(p: Problem) -> Slips:
    W, H = p.params["W"], states_of(p.params, p.inputs, p.h0)
    return {
        "Every step starts from h0: the state of the step before is not carried on.": states_of(
            p.with_params(W=0 * W).params, p.inputs, p.h0
        )[-1],
        "W is transposed: the state is a row, h W.": states_of(p.with_params(W=W.T).params, p.inputs, p.h0)[-1],
        "This is the state before the last step.": H[-2],
    }


def loss_slips(p: Problem) -> Slips:
    """From a state of zeros, with b = c = 0."""
    V, W, H = p.params["V"], p.params["W"], states_of(p.params, p.inputs, p.h0)
    before = torch.cat([p.h0[None], H[:-1]])
    slips = {
        "The softmax is taken twice: `F.cross_entropy` takes logits.": F.cross_entropy((H @ V).softmax(1), p.targets),
        "The logits are made from the states before the steps; they are h_t V with the new h_t.": F.cross_entropy(
            before @ V, p.targets
        ),
        "The logarithm has base 2; the loss is in nats.": F.cross_entropy(H @ V, p.targets) / math.log(2),
    }
    if p.T > 1:
        alone, turned = (states_of(p.with_params(W=other).params, p.inputs, p.h0) @ V for other in (0 * W, W.T))
        slips |= {
            "Only the last step's loss counts.": F.cross_entropy(H[-1:] @ V, p.targets[-1:]),
            "Every step starts from h0: the state of the step before is not carried on.": F.cross_entropy(
                alone, p.targets
            ),
            "W is transposed: the state is a row, h W.": F.cross_entropy(turned, p.targets),
        }
    return slips


@rnn_forward.criterion(points=1)
def state_after_one_step(student: Student, draw: Draw) -> None:
    """One step: h = tanh(x U), from a state of zeros (b = 0 here)."""
    for _ in range(2):
        p = problem(draw, 1, bias=False, h0=False)
        _, h_last, _ = forward(student, p)
        expect(last_of(h_last, p), "h_last").close_to(
            states_of(p.params, p.inputs, p.h0)[-1],
            because="tanh of a row of U",
            slips=partial(first_state_slips, p),
        )


@rnn_forward.criterion(points=1)
def state_after_many_steps(student: Student, draw: Draw) -> None:
    """h_last is the last of the states h_t = tanh(x_t U + h_{t−1} W), from a state of zeros (b = 0 here)."""
    for T in (2, None):
        p = problem(draw, T, bias=False, h0=False)
        h_last = last_state(student, p)
        expect(h_last, "h_last").close_to(expected_state(student, p, h_last), slips=partial(last_state_slips, p))


@rnn_forward.criterion(points=0.5)
def initial_state_counts(student: Student, draw: Draw) -> None:
    """h0 takes part in the first step: it is as good as adding h0 W to every row of U."""
    p = problem(draw, 1, bias=False)
    p = p.with_params(W=p.params["W"] + p.params["W"].T)
    expected = loss_and_state(student, replace(p.with_params(U=p.params["U"] + p.h0 @ p.params["W"]), h0=0 * p.h0))
    from_zeros = loss_and_state(student, replace(p, h0=0 * p.h0))
    differs(expected[1], from_zeros[1], "h_last is the same whatever U is")
    results = zip(("the loss", "h_last"), loss_and_state(student, p), expected, from_zeros, strict=True)
    for name, got, right, wrong in results:
        expect(got, name).close_to(
            right,
            because="that of a state of zeros with h0 W added to every row of U",
            slips=lambda wrong=wrong: {"h0 is not used: the first step starts from zeros.": wrong},
        )


@rnn_forward.criterion(points=0.5)
def bias_of_the_state(student: Student, draw: Draw) -> None:
    """b takes part in every step: it is as good as adding b to every row of U."""
    p = problem(draw, h0=False)
    without = p.with_params(b=0 * p.params["b"])
    expected = loss_and_state(student, without.with_params(U=p.params["U"] + p.params["b"]))
    differs(expected[1], loss_and_state(student, without)[1], "h_last is the same whatever U is")
    for name, got, right in zip(("the loss", "h_last"), loss_and_state(student, p), expected, strict=True):
        expect(got, name).close_to(right, because="that of b = 0 with b added to every row of U")


@rnn_forward.criterion(points=1)
def loss_of_one_step(student: Student, draw: Draw) -> None:
    """The loss of one step is the cross-entropy of the logits h V, with the state after the step (b = c = 0 here)."""
    for _ in range(2):
        p = problem(draw, 1, bias=False, h0=False)
        loss = scalar(forward(student, p)[0])
        expect(loss, "the loss").close_to(
            expected_loss(student, p, loss), sizes={"K": p.K}, slips=partial(loss_slips, p)
        )


@rnn_forward.criterion(points=1)
def loss_of_many_steps(student: Student, draw: Draw) -> None:
    """Every state makes a prediction, and the loss is about all of them (as a mean or as a sum; b = c = 0 here)."""
    for T in (2, None):
        p = problem(draw, T, bias=False, h0=False)
        loss = scalar(forward(student, p)[0])
        expected = expected_loss(student, p, loss)
        loss = apart_from_factor(loss, expected, 1 / p.T, name="the loss")
        expect(loss, "the loss").close_to(expected, slips=partial(loss_slips, p))


@rnn_forward.criterion(points=0.5)
def bias_of_the_logits(student: Student, draw: Draw) -> None:
    """c is added to the logits of every step: it is as good as a larger V where all states are the same."""
    p = problem(draw, bias=False, h0=False)
    U = p.params["U"][:1].abs().expand(p.K, -1).clone()
    p = p.with_params(U=U, W=0 * p.params["W"])  # every state is tanh(U[0])
    c, h, plain = away_from_zero(draw, p.K), torch.tanh(U[0]), loss_and_state(student, p)[0]
    if not close(plain, loss_of(p.params, p.inputs, p.targets, p.h0)):  # perhaps all states are another function of it
        h = expected_state(student, p, last_state(student, p))
    expected, _ = loss_and_state(student, p.with_params(V=p.params["V"] + torch.outer(h, c) / h.dot(h)))
    differs(expected, plain, "the loss is the same whatever V is")
    loss, _ = loss_and_state(student, p.with_params(c=c))
    expect(loss, "the loss").close_to(expected, because="that of c = 0 with a V that adds c to every logit")


@rnn_forward.criterion(points=0.5)
def mean_over_time(student: Student, draw: Draw) -> None:
    """The loss is a mean over the T steps: the mean of the losses of one step each (W = 0 here)."""
    p = problem(draw, bias=False, h0=False)
    p = p.with_params(W=0 * p.params["W"])
    single = torch.stack([loss_and_state(student, p.step(t))[0] for t in range(p.T)])
    expect(single).all(bool((single != single[0]).any()), "the loss is the same whatever the inputs are")
    loss, _ = loss_and_state(student, p)
    expect(loss, "the loss of T steps").close_to(single.mean(), sizes={"T": p.T})


@rnn_forward.criterion(points=1)
def indices_or_one_hot_rows(student: Student, draw: Draw) -> None:
    """Inputs may be indices (T,) or one-hot rows (T, K), with the same results."""
    # As many steps as characters: the shape of the rows must not tell which axis is time.
    for p in (problem(draw), problem(draw, 1), problem(draw, 5, shape=(5, 4))):
        expected = loss_and_state(student, p, p.inputs)
        other = replace(p, inputs=(p.inputs + 1) % p.K)
        differs(expected[1], loss_and_state(student, other)[1], "h_last is the same whatever the inputs are")
        for name, got, right in zip(
            ("the loss", "h_last"), loss_and_state(student, p, p.one_hot), expected, strict=True
        ):
            expect(got, f"{name} for one-hot rows").close_to(right, because="that for indices")


SMALL = (5, 3)  # characters and units for criteria on form


def small_arguments(draw: Draw) -> tuple[Any, ...]:
    """Arguments of `rnn_forward` for criteria on form."""
    p = problem(draw, 4, shape=SMALL)
    return p.params, p.inputs, p.targets, p.h0


add_contract(rnn_forward, small_arguments, [Form("the loss", scalar="tensor"), Form("h_last", (3,)), Opaque("cache")])


# A cache is made by the student's own rnn_forward and only rnn_backward can read it.
rnn_backward = Exercise("rnn_backward", forbidden=FORBIDDEN, leans_on=("rnn_forward",))


class OwnSlopes:
    """Whether a gradient is that of what the student's own forward function computes, found out by small steps.

    Where that function is wrong it has cost its points already; a gradient that follows it is right.
    """

    def __init__(self, loss: Callable[[str, Tensor], Tensor]) -> None:
        self.loss = loss  # loss(key, step): the student's own, with the step added to one argument

    def fit(self, key: str, got: Tensor, factors: Sequence[float] = (), h: float = 1e-6) -> bool:
        """Whether the slopes in four directions are the gradient's."""
        directions = [torch.sin(torch.arange(got.numel()) * 1.7 + j).reshape(got.shape).double() for j in range(4)]
        slopes = [(self.loss(key, h * d) - self.loss(key, -h * d)) / (2 * h) for d in directions]
        slope, product_ = torch.stack(slopes), torch.stack([(got.double() * d).sum() for d in directions])
        return any(bool((f * product_ - slope).abs().max() <= 1e-5 * slope.abs().max()) for f in (1.0, *factors))


class Passes:
    """A forward and a backward pass of the student's, and the gradients that they should give.

    The cache comes from the student's own forward pass; see `OwnSlopes` for what that means where it is wrong.
    """

    def __init__(self, student: Student, p: Problem, inputs: Tensor | None = None) -> None:
        self.student, self.problem = student, p
        self.loss, _, cache = forward(student, p, inputs)
        self.gradients = student.rnn_backward(p.params, cache)
        self.expected = gradients_by_autograd(lambda q: loss_of(q, p.inputs, p.targets, p.h0), p.params)

    def got(self, key: str) -> Tensor:
        """The student's gradient of one parameter."""
        return entry(self.gradients, key, self.problem.params[key].shape, "the gradients")

    def factor(self) -> float:
        """By how much the gradient of V is too large, or 1 where it is no mere factor."""
        got, expected = self.got("V"), self.expected["V"]
        ratio = float((got * expected).sum() / (expected * expected).sum())
        return ratio if ratio and bool((got - ratio * expected).norm() <= 1e-3 * abs(ratio) * expected.norm()) else 1.0

    def from_own_logits(self, key: str) -> Tensor | None:
        """What the gradient should be, given the gradients of the logits that stand in the student's of V.

        They can be read from there where there are no more steps than units.  Without them it is None.
        """
        p = self.problem
        H, grad_V = states_of(p.params, p.inputs, p.h0), self.got("V").double()
        if p.m < p.T or not bool(grad_V.any()):
            return None
        G = torch.linalg.lstsq(H.T, grad_V).solution  # (T, K)
        if not bool((H.T @ G - grad_V).norm() <= 1e-6 * grad_V.norm()):
            return None
        return gradients_by_autograd(lambda q: ((states_of(q, p.inputs, p.h0) @ q["V"] + q["c"]) * G).sum(), p.params)[
            key
        ]

    def check(
        self, *keys: str, as_of_V: bool = True, rtol: float | None = None, slips: Callable[[], Slips] = dict
    ) -> None:
        """The gradients of these parameters are right (as a mean or as a sum).

        With `as_of_V` they may also be those that follow from what V's tells of the gradients of the logits.
        """
        for key in keys:
            name, expected, T = f"gradients[{key!r}]", self.expected[key], self.problem.T
            factors = (1 / T, 1 / self.factor()) if as_of_V else (1 / T,)
            got = apart_from_factor(self.got(key), expected, *factors, name=name)
            try:
                atol = rtol and rtol * float(expected.abs().max())
                expect(got, name).close_to(
                    expected, because="autograd's result", sizes={"T": T}, rtol=rtol, atol=atol, slips=slips
                )
            except Unmet:
                own_logits = self.from_own_logits(key) if as_of_V else None
                if own_logits is not None and bool(
                    (self.got(key) - own_logits).norm() <= (rtol or 1e-5) * own_logits.norm() + 1e-9 * expected.norm()
                ):
                    continue
                right = loss_of(*(getattr(self.problem, n) for n in ("params", "inputs", "targets", "h0")))
                own = expect(self.loss, "the loss").tensor().double()
                if bool((own - right).abs() <= 1e-6 * right) or not OwnSlopes(self._loss).fit(
                    key, self.got(key), factors
                ):
                    raise

    def check_outer(self, key: str, column: Tensor, because: str, wrong: Mapping[str, Tensor] | None = None) -> None:
        """The gradient of U or W is an outer product with that of b: with the student's own, or with the right one.

        `wrong` has columns that usual slips put in the place of the right one.
        """
        got, b = self.got(key), self.expected["b"]
        expected = torch.outer(column, b)
        if bool((got - expected).norm() <= 1e-6 * expected.norm()):
            return
        b = self.got("b")
        expect(b).all(bool((b != 0).any()), "the gradient of b is 0")
        expect(got, f"gradients[{key!r}]").close_to(
            torch.outer(column, b),
            because=because,
            slips=lambda: {text: torch.outer(other, b) for text, other in (wrong or {}).items()},
        )

    def _loss(self, key: str, step: Tensor) -> Tensor:
        p = self.problem
        return scalar(forward(self.student, p.with_params(**{key: p.params[key] + step}))[0]).double()


def deltas_of(p: Problem) -> Tensor:
    """The gradient of the loss with respect to what is added to x_t U at every step, (T, m)."""
    rows = p.params["U"][p.inputs].detach().requires_grad_()
    h, states = p.h0, []
    for row in rows:
        h = torch.tanh(row + h @ p.params["W"] + p.params["b"])
        states.append(h)
    loss = F.cross_entropy(torch.stack(states) @ p.params["V"] + p.params["c"], p.targets)
    return torch.autograd.grad(loss, rows)[0]


def V_slips(p: Problem) -> Slips:
    H = states_of(p.params, p.inputs, p.h0)
    logits, Y = H @ p.params["V"] + p.params["c"], F.one_hot(p.targets, p.K)
    P, before = logits.softmax(1), torch.cat([p.h0[None], H[:-1]])
    return {
        "V met the state after the step, h_t; this is h_{t−1}.": before.T @ (P - Y) / p.T,
        "y is not subtracted: the gradient of the logits is p − y.": H.T @ P / p.T,
        "y is added: the gradient of the logits is p − y.": H.T @ (P + Y) / p.T,
        "The softmax is over the steps; it is over the K characters.": H.T @ (logits.softmax(0) - Y) / p.T,
        "1 is subtracted in the target columns of every step; it is one entry of each row.": H.T
        @ (P - Y.amax(0))
        / p.T,
    }


def one_step_slips(p: Problem) -> Slips:
    h = states_of(p.params, p.inputs, p.h0)[0]
    back = (torch.softmax(h @ p.params["V"] + p.params["c"], 0) - F.one_hot(p.targets[0], p.K)) @ p.params["V"].T
    return {
        "The slope of the tanh is missing.": back,
        "The slope of the tanh is 1 − h², not 1 − h.": back * (1 - h),
        "The slope of the tanh is taken at the state before the step.": back * (1 - p.h0**2),
    }


def W_slips(p: Problem) -> Slips:
    after = states_of(p.params, p.inputs, p.h0)
    return {"W met the state before the step, h_{t−1}; this is h_t.": after.T @ deltas_of(p)}


def U_slips(p: Problem) -> Slips:
    deltas, kept = deltas_of(p), torch.zeros_like(p.params["U"])
    for index, delta in zip(p.inputs.tolist(), deltas, strict=True):
        kept[index] = delta
    return {
        "Of a character that comes again only one step is kept: `grad_U[inputs] += Delta` does not add; "
        "`index_add_` does.": kept
    }


@rnn_backward.criterion(points=1)
def gradient_of_V(student: Student, draw: Draw) -> None:
    """The gradient of V sums over all steps: Σ h_tᵀ (p_t − y_t) / T (as a mean or as a sum)."""
    for T in (None, 1):
        p = problem(draw, T)
        Passes(student, p).check("V", as_of_V=False, slips=partial(V_slips, p))


@rnn_backward.criterion(points=0.5)
def gradient_of_c(student: Student, draw: Draw) -> None:
    """The gradient of c sums over all steps: Σ (p_t − y_t) / T (with the p_t − y_t that V's has)."""
    for T in (5, 1):
        Passes(student, problem(draw, T, shape=(6, 9))).check("c")


@rnn_backward.criterion(points=1)
def one_step_back(student: Student, draw: Draw) -> None:
    """Back through V and tanh in one step: the gradient of b for T = 1 (with the p − y that V's has)."""
    for _ in range(2):
        p = problem(draw, 1)
        Passes(student, p).check("b", slips=partial(one_step_slips, p))


@rnn_backward.criterion(points=0.5)
def inputs_of_one_step(student: Student, draw: Draw) -> None:
    """For T = 1 the gradient of U has that of b in the row of the input, and zeros elsewhere."""
    p = problem(draw, 1)
    passes = Passes(student, replace(p, targets=(p.inputs + 1) % p.K))  # the row of the target is another one
    passes.check_outer("U", passes.problem.one_hot[0], "xᵀ times your gradient of b")


@rnn_backward.criterion(points=1)
def initial_state_in_the_gradient_of_W(student: Student, draw: Draw) -> None:
    """For T = 1 the gradient of W is h0ᵀ times that of b: W met the state before the step, and h0 is not zero."""
    p = problem(draw, 1)
    wrong = {
        "W met the state before the step, h_{t−1}; this is h_t.": states_of(p.params, p.inputs, p.h0)[0],
        "The state before the first step is taken for zeros; it is h0.": 0 * p.h0,
    }
    Passes(student, p).check_outer("W", p.h0, "h0ᵀ times your gradient of b", wrong)


def ways_through_two_steps(p: Problem, got: Tensor) -> list[str]:
    """What was done on the way from the second step to the first, where it explains the gradient of b for T = 2."""
    H = states_of(p.params, p.inputs, p.h0)
    G = torch.softmax(H @ p.params["V"] + p.params["c"], 1) - F.one_hot(p.targets, p.K)
    slope, W = 1 - H**2, p.params["W"]
    own = G @ p.params["V"].T
    first, second = own * slope  # what each step has from its own loss
    candidates = {
        "Nothing comes back from the second step to the first.": first + second,
        "W stands where Wᵀ is meant, on the way from the second step to the first.": first
        + second @ W * slope[0]
        + second,
        "What comes from the second step is added after the slope of the tanh; it has to go through it too.": first
        + second @ W.T
        + second,
        "What comes from the second step has not been through the slope of its own tanh.": first
        + own[1] @ W.T * slope[0]
        + second,
        "Only the last step counts; every step adds its part.": second,
        "The steps are gone through forwards; what a step needs comes from the one after it.": first
        + first @ W.T * slope[1]
        + second,
    }
    for text, sum_ in candidates.items():
        for factor in (1, 1 / p.T):
            if bool((got.double() - factor * sum_).norm() <= 1e-5 * (factor * sum_).norm()):
                return [text]
    return []


@rnn_backward.criterion(points=1.5)
def b_through_time(student: Student, draw: Draw) -> None:
    """The gradient of b over many steps: every step also reaches the loss of all later ones, through W."""
    for T in (2, draw.integer(5, 9)):
        p = problem(draw, T, shape=(6, 10))
        passes = Passes(student, p)
        try:
            passes.check("b")
        except Unmet as unmet:
            unmet.causes += ways_through_two_steps(p, passes.got("b")) if T == 2 else []
            raise


@rnn_backward.criterion(points=1.5)
def W_through_time(student: Student, draw: Draw) -> None:
    """The gradient of W over many steps (from zeros here, and with states so small that the slopes of tanh are 1)."""
    for T in (2, draw.integer(5, 9)):
        p = problem(draw, T, shape=(6, 10), h0=False).gentle()
        Passes(student, p).check("W", rtol=2e-3, slips=partial(W_slips, p))


@rnn_backward.criterion(points=1.5)
def U_through_time(student: Student, draw: Draw) -> None:
    """The gradient of U over many steps, in which characters come again (states are small here, slopes 1)."""
    for T in (9, 2):  # with many steps first: there more causes can be told apart
        p = problem(draw, T, shape=(5, 10)).gentle()
        Passes(student, p).check("U", rtol=2e-3, slips=partial(U_slips, p))


@rnn_backward.criterion(points=0.5, contract=True, name="mean_over_time")
def gradient_is_a_mean_over_time(student: Student, draw: Draw) -> None:
    """The gradients are those of a mean over time: the same step four times gives what it gives once (W = 0 here)."""
    p = problem(draw, 1, h0=False)
    p = p.with_params(W=0 * p.params["W"])
    again = replace(p, inputs=p.inputs.repeat(4), targets=p.targets.repeat(4))
    once, often = Passes(student, p), Passes(student, again)
    keys = ("V", "c", "b", "U")
    a, b = (torch.cat([passes.got(k).flatten() for k in keys]) for passes in (once, often))
    expect(a).all(bool((a != 0).any()), "every gradient is 0")
    name = "the vector of the gradients of V, c, b and U, with the same step four times,"
    expect(b, name).close_to(a, because="the gradients with it once", sizes={"T": 4})


@rnn_backward.criterion(points=0.5, contract=True, name="indices_or_one_hot_rows")
def gradients_of_one_hot_rows(student: Student, draw: Draw) -> None:
    """Inputs given to rnn_forward as one-hot rows (T, K) have the same gradients as indices (T,)."""
    p = problem(draw)
    as_indices, as_rows = Passes(student, p), Passes(student, p, p.one_hot)
    for key in p.params:
        expected = as_indices.got(key)
        expect(expected).all(key != "U" or bool((expected != 0).any()), "the gradient of U is 0")
        expect(as_rows.got(key), f"gradients[{key!r}] for one-hot rows").close_to(expected, because="that for indices")


@rnn_backward.criterion(points=0.5, contract=True)
def not_clipped(student: Student, draw: Draw) -> None:
    """Large gradients come back as large as they are: clipping is a function of its own."""
    p = problem(draw, 1, bias=False)
    p = replace(p, targets=(states_of(p.params, p.inputs, p.h0) @ p.params["V"]).argmin(1))
    first, second = (Passes(student, p.with_params(V=scale * p.params["V"])).got("U").abs() for scale in (1e3, 1e4))
    expect(first).all(
        bool(second.max() > 5 * first.max()),
        f"the largest entry is {first.max():.3g}, and {second.max():.3g} where V is ten times as large",
    )


@rnn_backward.criterion(points=0.5, contract=True)
def every_pass_has_its_own_cache(student: Student, draw: Draw) -> None:
    """A cache holds what belongs to its forward pass, however many came since, and may be used twice."""
    p, other = (problem(draw, 4, shape=SMALL) for _ in range(2))
    at_once = Passes(student, p)
    expect(at_once.got("V")).all(bool((at_once.got("V") != 0).any()), "the gradient of V is 0")
    first, second = (forward(student, q)[2] for q in (p, other))
    student.rnn_backward(other.params, second)
    for _ in range(2):
        later = student.rnn_backward(p.params, first)
        for key, value in p.params.items():
            got = entry(later, key, value.shape, "the gradients")
            expect(got, f"gradients[{key!r}] of an earlier pass").close_to(at_once.got(key), because="those at once")


def small_gradients(student: Student, draw: Draw) -> Leaves:
    """The leaves of the student's gradients of a small problem."""
    p = problem(draw, 4, shape=SMALL)
    return Nested("the gradients", shapes_of(p.params)).leaves(Passes(student, p).gradients)


add_contract_of(rnn_backward, small_gradients)


# --- Training --------------------------------------------------------------------------------------------------------

clip_gradients = Exercise("clip_gradients", forbidden=FORBIDDEN)


def gradients_of_size(draw: Draw, size: float) -> Params:
    """Gradients of five shapes whose entries are of magnitude 0.5·size to 2·size."""
    shapes = {"U": (5, 3), "W": (3, 3), "V": (3, 5), "b": (3,), "c": (5,)}
    return {name: size * away_from_zero(draw, *shape) for name, shape in shapes.items()}


def small_gradient_dict(draw: Draw) -> Params:
    """Gradients for criteria on form, some entries of which are beyond ±1."""
    return gradients_of_size(draw, 1.0)


GRADIENTS = Nested("the gradients", {"U": (5, 3), "W": (3, 3), "V": (3, 5), "b": (3,), "c": (5,)})


@clip_gradients.criterion(points=1)
def beyond_the_limit(student: Student, draw: Draw) -> None:
    """Entries above limit become limit, entries below −limit become −limit."""
    limit = draw.number(0.5, 3)
    for sign in (1, -1):
        grads = {"W": sign * limit * draw.uniform(1.2, 9, 4, 6)}
        got = entry(student.clip_gradients(grads, limit), "W", (4, 6), "the result")
        expect(got, "the result for entries " + ("above limit" if sign > 0 else "below −limit")).close_to(
            torch.full((4, 6), sign * limit, dtype=torch.float64)
        )


@clip_gradients.criterion(points=1)
def within_the_limit(student: Student, draw: Draw) -> None:
    """Entries between −limit and limit stay as they are, whatever others there are."""
    limit = draw.number(0.5, 3)
    small = draw.uniform(-0.95, 0.95, 4, 6) * limit
    which = draw.integers(0, 2, 4, 6).bool()
    which[0, :2] = torch.tensor([True, False])
    grads = {"W": torch.where(which, small, 20 * limit * draw.uniform(0.5, 1, 4, 6))}
    got = entry(student.clip_gradients(grads, limit), "W", (4, 6), "the result")
    expect(got[which], "the entries that were within the limit").close_to(small[which])


@clip_gradients.criterion(points=0.5)
def every_gradient_is_clipped(student: Student, draw: Draw) -> None:
    """No tensor of the dict is left out, whatever its key; all keys come back."""
    grads = {**gradients_of_size(draw, 10.0), "b_h": 10 * away_from_zero(draw, 4)}
    one = torch.arange(5) == draw.integer(0, 5)
    grads["c"] = torch.where(one, 2 * grads["c"].sign(), 0.01 * grads["c"])  # a single entry is beyond the limit
    result = student.clip_gradients(grads, 1.5)
    for name, grad in grads.items():
        largest = entry(result, name, grad.shape, "the result").abs().max()
        expect(largest).all(bool(largest <= 1.5 + 1e-9), f"the gradient of {name} has entries beyond ±limit still")
    first = entry(result, "U", grads["U"].shape, "the result")
    differs(first, first.flatten()[:1], "every entry of the gradient of U is the same, though their signs differ")


add_contract(clip_gradients, lambda draw: (small_gradient_dict(draw), 1.0), [GRADIENTS])


clip_by_norm = Exercise("clip_by_norm", forbidden=FORBIDDEN)


def norm_of(grads: Params) -> float:
    """The norm of the vector of all entries of all tensors."""
    return math.sqrt(sum(float(v) ** 2 for g in grads.values() for v in g.flatten()))


def scaled(student: Student, grads: Params, max_norm: float) -> Params:
    """The student's result, with the keys and shapes of `grads`."""
    result = student.clip_by_norm(grads, max_norm)
    return {name: entry(result, name, grad.shape, "the result") for name, grad in grads.items()}


def other_factors(grads: Params, result: Params, max_norm: float) -> list[str]:
    """Why the norm of all together is not max_norm, where a usual slip explains it."""
    own, norm, before = [norm_of({"": g}) for g in grads.values()], norm_of(result), norm_of(grads)
    if all(abs(norm_of({"": g}) - max_norm) <= 1e-5 * max_norm for g in result.values()):
        return ["Every tensor is scaled by its own norm; there is one norm, of all of them together."]
    factors = {
        "The norms of the tensors are added. Add their squares, and take the root of the sum.": max_norm / sum(own),
        "The root is missing: this divides by the square of the norm.": max_norm / before**2,
        "The factor is upside down; it is max_norm / norm.": before / max_norm,
        "The largest entry is taken for the norm.": max_norm / max(float(g.abs().max()) for g in grads.values()),
        "The sum of the entries' sizes is taken for the norm.": max_norm
        / sum(float(g.abs().sum()) for g in grads.values()),
    }
    return [text for text, factor in factors.items() if abs(norm - factor * before) <= 1e-5 * norm]


@clip_by_norm.criterion(points=1)
def norm_of_all_together(student: Student, draw: Draw) -> None:
    """Gradients that are too large are multiplied so that the norm of all of them together is max_norm."""
    for others in ({}, {"b_h": 9 * away_from_zero(draw, 4)}):  # the keys are whatever they are
        grads, max_norm = {**gradients_of_size(draw, 3.0), **others}, draw.number(1, 4)
        result = scaled(student, grads, max_norm)
        norm, before = norm_of(result), norm_of(grads)
        if abs(norm - max_norm) > 1e-5 * max_norm:
            text = (
                f"The norm of all together was {before:.6g} and is {norm:.6g}; it should be max_norm = {max_norm:.6g}."
            )
            raise Unmet(text, causes=other_factors(grads, result, max_norm))


@clip_by_norm.criterion(points=1)
def one_factor_for_all(student: Student, draw: Draw) -> None:
    """All entries of all tensors are multiplied by the same factor, so the direction stays."""
    grads = gradients_of_size(draw, 3.0)
    result = scaled(student, grads, draw.number(1, 4))
    factor = result["U"][0, 0] / grads["U"][0, 0]
    expect(factor).all(bool(factor > 0), "the direction is not kept: the factor is not positive")
    for name, grad in grads.items():
        own = norm_of({name: result[name]}) / norm_of({name: grad}) * grad
        expect(result[name], f"the gradient of {name}").close_to(
            factor * grad,
            because="the factor of U's first entry",
            slips=lambda own=own: {"This tensor has a factor of its own; there is one for all of them.": own},
        )


@clip_by_norm.criterion(points=0.5)
def small_gradients_stay(student: Student, draw: Draw) -> None:
    """Where the norm is max_norm or less, everything stays as it is."""
    grads = gradients_of_size(draw, 0.1)
    max_norm = norm_of(grads) * draw.number(3, 20)
    for name, got in scaled(student, grads, max_norm).items():
        expect(got, f"the gradient of {name}").close_to(grads[name], because="the norm is less than max_norm")


@clip_by_norm.criterion(points=0.5)
def zero_stays_zero(student: Student, draw: Draw) -> None:
    """Gradients that are all zero stay zero: nothing is divided by their norm."""
    grads = gradients_of_size(draw, 0.0)
    large = gradients_of_size(draw, 3.0)
    differs(scaled(student, large, 1.0)["W"], 0 * large["W"], "every entry is 0 whatever the gradients are")
    for name, got in scaled(student, grads, 1.0).items():
        expect(got, f"the gradient of {name}").close_to(0 * grads[name], atol=1e-12)


add_contract(clip_by_norm, lambda draw: (small_gradient_dict(draw), 1.0), [GRADIENTS])


adagrad_step = Exercise("adagrad_step", forbidden=FORBIDDEN, opaque=(1,))


@dataclass
class Steps:
    """Some steps of AdaGrad for one tensor: the student's and torch.optim.Adagrad's."""

    draw: Draw
    eps: float = 1e-14
    shape: tuple[int, ...] = (4, 6)

    def __post_init__(self) -> None:
        self.lr, self.theta = self.draw.number(0.05, 0.5), self.draw.normal(*self.shape)

    def gradient(self, size: float = 1.0) -> Tensor:
        """A random gradient without zeros."""
        return size * away_from_zero(self.draw, *self.shape)

    def take(self, student: Student, theta: Tensor, grad: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step of the student's."""
        result = student.adagrad_step(theta, grad, state, lr=self.lr, eps=self.eps)
        theta, state = expect(result).parts("theta", "state")
        return finite(theta, *self.shape, name="theta"), state

    def student_thetas(self, student: Student, grads: Sequence[Tensor]) -> list[Tensor]:
        """The student's parameters after each step."""
        theta, state, found = self.theta, None, []
        for grad in grads:
            theta, state = self.take(student, theta, grad, state)
            found.append(theta)
        return found

    def expected(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The parameters after each step, by torch.optim."""
        theta = self.theta.clone()
        optimizer = torch.optim.Adagrad([theta], lr=self.lr, eps=self.eps)
        found = []
        for grad in grads:
            theta.grad = grad
            optimizer.step()
            found.append(theta.detach().clone())
        return found


def first_step_slips(steps: Steps, grad: Tensor) -> Slips:
    theta, lr, size = steps.theta, steps.lr, grad.abs()
    return {
        "The step is added; it is subtracted.": theta + lr * grad / size,
        "The learning rate is missing.": theta - grad / size,
        "The root of M is missing.": theta - lr * grad / size**2,
        "This divides by the root of M as it was before; first add to M, then step.": theta - lr * grad / steps.eps,
        "This is a step of plain gradient descent.": theta - lr * grad,
        "Theta has not moved.": theta,
        "The sizes of the gradients are added to M, not their squares.": theta - lr * grad / size**0.5,
        "M is one number for the whole tensor; every entry has its own.": theta - lr * grad / grad.norm(),
    }


@adagrad_step.criterion(points=1)
def first_step(student: Student, draw: Draw) -> None:
    """With state None, the first step is lr·g / (√g² + eps): its size is lr whatever that of the gradient."""
    steps = Steps(draw)
    for size in (1.0, 0.01):
        grads = [steps.gradient(size)]
        expect(steps.student_thetas(student, grads)[0], "theta").close_to(
            steps.expected(grads)[0], slips=partial(first_step_slips, steps, grads[0])
        )


@adagrad_step.criterion(points=1.5)
def squares_add_up(student: Student, draw: Draw) -> None:
    """Later steps divide by the root of the sum of the squares of all gradients so far."""
    steps = Steps(draw)
    grads = [steps.gradient(size) for size in (1.0, 0.5, 2.0, 1.0)]
    moved = [b - a for a, b in pairwise([steps.theta, *steps.student_thetas(student, grads)])]
    expected = [b - a for a, b in pairwise([steps.theta, *steps.expected(grads)])]
    ratio = moved[0] / expected[0]  # a first step of another size or sign is the business of first_step
    ratio = ratio if bool((ratio - ratio.mean()).abs().max() <= 1e-3 * ratio.mean().abs()) else torch.ones_like(ratio)
    alone = "Only the last gradient's square is in M; those of the steps before are lost."
    for k in range(1, 4):
        text = f"torch.optim.Adagrad's step {k + 1}"
        expect(moved[k], f"what step {k + 1} adds to theta").close_to(
            ratio.mean() * expected[k],
            because=text,
            slips=lambda k=k: {alone: -ratio.mean() * steps.lr * grads[k].sign()},
        )


@adagrad_step.criterion(points=0.5)
def eps_outside_the_root(student: Student, draw: Draw) -> None:
    """eps is added to the root, as torch.optim.Adagrad adds it, not under it."""
    steps = Steps(draw, eps=draw.number(0.2, 0.5))
    grads = [steps.gradient()]
    moved, expected = steps.student_thetas(student, grads)[0] - steps.theta, steps.expected(grads)[0] - steps.theta
    eps, size = steps.eps, grads[0].abs()
    steps.eps = 1e-14
    plain = steps.student_thetas(student, grads)[0] - steps.theta, steps.expected(grads)[0] - steps.theta
    expect(plain[0]).all(bool((plain[0] != 0).all()), "an entry of theta stands still though its gradient is not 0")
    expect(moved / plain[0], "by how much eps shortens the step").close_to(
        expected / plain[1],
        because="|g| / (|g| + eps)",
        slips=lambda: {
            "eps is not used.": torch.ones_like(size),
            "eps stands under the root.": size / (size**2 + eps) ** 0.5,
        },
    )


@adagrad_step.criterion(points=0.5)
def no_gradient_no_step(student: Student, draw: Draw) -> None:
    """Where the gradient has always been 0, theta stays as it is."""
    steps = Steps(draw)
    grads = [steps.gradient() for _ in range(2)]
    for grad in grads:
        grad[:, ::2] = 0
    for theta in steps.student_thetas(student, grads):
        expect(theta[:, ::2], "theta where the gradient is 0").close_to(steps.theta[:, ::2])
        differs(theta[:, 1::2], steps.theta[:, 1::2], "theta stands still where the gradient is not 0")


@adagrad_step.criterion(points=0.5, contract=True)
def states_are_values(student: Student, draw: Draw) -> None:
    """A state belongs to its tensor and its step: a step from an earlier state gives what it gave then."""
    steps, other = Steps(draw), Steps(draw)
    first, second, third = (steps.gradient(size) for size in (1.0, 2.0, 0.5))
    theta, state = steps.take(student, steps.theta, first, None)
    expected, _ = steps.take(student, theta, second, state)
    differs(expected, theta, "theta stands still")
    _, other_state = other.take(student, other.theta, 5 * third, None)
    other.take(student, other.theta, third, other_state)
    again, _ = steps.take(student, theta, second, state)
    twice = theta - steps.lr * second / (first**2 + 2 * second**2).sqrt()
    changed = "The state that came in was changed, as by `state += …`; make a new one: `state = state + …`."
    expect(again, "theta after a step from an earlier state").close_to(expected, slips=lambda: {changed: twice})


add_contract(
    adagrad_step,
    lambda draw: ((draw.normal(4, 6), draw.normal(4, 6), None), {"lr": 0.1, "eps": 1e-8}),
    [Form("theta", (4, 6)), Opaque("state")],
    alone="The function does not change theta and grad (its state is the business of another criterion).",
)


smooth_loss = Exercise("smooth_loss", forbidden=FORBIDDEN)


@smooth_loss.criterion(points=0.5)
def first_loss_as_it_is(student: Student, draw: Draw) -> None:
    """The first call, with previous None, gives the loss itself."""
    for _ in range(2):
        loss = draw.number(1, 5)
        expect(student.smooth_loss(None, loss), "the smoothed loss").close_to(loss, because="the first loss")


@smooth_loss.criterion(points=1)
def mostly_the_previous(student: Student, draw: Draw) -> None:
    """Later calls give .999 times the previous value plus .001 times the loss."""
    for _ in range(3):
        previous, loss = draw.number(1, 5), draw.number(6, 20)
        got = student.smooth_loss(previous, loss)
        slips = {
            "The weights are exchanged: .999 belongs to the previous value.": 0.001 * previous + 0.999 * loss,
            "The weights are .999 and .001, not .99 and .01.": 0.99 * previous + 0.01 * loss,
            "The weight .001 of the loss is missing.": 0.999 * previous + loss,
        }
        expect(got, "the smoothed loss").close_to(
            0.999 * previous + 0.001 * loss,
            slips=lambda slips=slips: {text: torch.tensor(value, dtype=torch.float64) for text, value in slips.items()},
        )


@smooth_loss.criterion(points=0.5)
def zero_is_a_value(student: Student, draw: Draw) -> None:
    """A previous value of 0 is a value: only None means the first call."""
    loss = draw.number(2, 5)
    with_zero = scalar(student.smooth_loss(0.0, loss), "the smoothed loss")
    nearly_zero = scalar(student.smooth_loss(1e-9, loss), "the smoothed loss")
    differs(
        nearly_zero, scalar(student.smooth_loss(9.0, loss), "the smoothed loss"), "the previous value does not count"
    )
    expect(with_zero, "the smoothed loss for previous = 0.0").close_to(nearly_zero, rtol=1e-3, because="as for 1e-9")


# --- Synthesis -------------------------------------------------------------------------------------------------------

sample = Exercise("sample", forbidden=FORBIDDEN)


def draws(student: Student, n: int, logits: Tensor, generator: torch.Generator, **named: float) -> Tensor:
    """n indices that the student drew one after the other, (n,)."""
    K, found = len(logits), []
    for _ in range(n):
        drawn = student.sample(logits, **named, generator=generator)
        expect(drawn).all(not isinstance(drawn, bool), "the result is a bool, not an index")
        index = int(scalar(drawn, "the index"))
        expect(index).all(0 <= index < K, f"the index {index} is none of the {K} that there are")
        found.append(index)
    return torch.tensor(found)


def plausible(count: int, n: int, p: float) -> bool:
    """Whether something of probability p happens `count` times in n draws; chance refuses once in 10⁹ times."""
    if p <= 0 or p >= 1:
        return count == round(n * p)

    def probability(k: int) -> float:
        return math.comb(n, k) * p**k * (1 - p) ** (n - k)

    return min(sum(map(probability, range(count + 1))), sum(map(probability, range(count, n + 1)))) > 0.5e-9


def expect_shares(drawn: Tensor, probs: Tensor, what: str) -> None:
    """Every index was drawn about as often as its probability says."""
    n = len(drawn)
    for k, p in enumerate(probs.tolist()):
        count = int((drawn == k).sum())
        text = f"{what}: index {k} has the probability {p:.3f} and came {count} times in {n}"
        text += ", as one index came every time" if n > 1 and len(set(drawn.tolist())) == 1 else ""
        expect(drawn).all(plausible(count, n, p), text)


def logits_of(draw: Draw, probs: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Logits of these probabilities, the smallest first and the largest last; and the probabilities in that order."""
    p = torch.tensor(sorted(probs), dtype=draw.dtype)
    p[1:-1] = p[1:-1][draw.permutation(len(p) - 2)]
    return p.log() + draw.normal(), p


@sample.criterion(points=1)
def as_often_as_the_probability_says(student: Student, draw: Draw) -> None:
    """Index k comes as often as softmax(logits) says, also the rare ones."""
    logits, probs = logits_of(draw, [0.5, 0.27, 0.15, 0.08])
    expect_shares(draws(student, 400, logits, draw.generator()), probs, "temperature 1")


@sample.criterion(points=1)
def temperature_divides(student: Student, draw: Draw) -> None:
    """The logits are divided by the temperature: a low one makes the likely likelier, a high one evens out."""
    for temperature, lead, n in ((0.1, 0.2, 240), (6.0, 3.0, 160)):
        logits = torch.tensor([0.0, lead], dtype=torch.float64) + draw.normal()
        drawn = draws(student, n, logits, draw.generator(), temperature=temperature)
        expect_shares(drawn, torch.softmax(logits / temperature, 0), f"temperature {temperature:g}")


@sample.criterion(points=0.5)
def temperature_zero_is_argmax(student: Student, draw: Draw) -> None:
    """With temperature 0 the most probable index comes every time, and with one of 1e-30."""
    for temperature in (0.0, 0, 1e-30):
        for _ in range(6):
            logits = 0.002 * draw.permutation(7) + draw.normal()  # close together: chance would show
            index = int(draws(student, 1, logits, draw.generator(), temperature=temperature))
            expect(index).all(
                index == int(logits.argmax()),
                f"temperature {temperature!r} gave an index that is not the most probable",
            )


@sample.criterion(points=1, contract=True)
def nothing_outside_the_nucleus(student: Student, draw: Draw) -> None:
    """top_p leaves only the smallest set of most probable indices whose probabilities together reach it."""
    for top_p, size, shares in ((0.6, 2, [0.45, 0.3, *[0.05] * 5]), (0.85, 3, [0.45, 0.3, 0.17, 0.08])):
        logits, probs = logits_of(draw, shares)
        outside = set(probs.argsort(descending=True)[size:].tolist())
        drawn = draws(student, 120, logits, draw.generator(), top_p=top_p)
        got = [probs[k].item() for k in outside if bool((drawn == k).any())]
        text = f"top_p = {top_p:g}: an index came though those more probable reach {top_p:g} without it"
        expect(drawn).all(not got, text)


@sample.criterion(points=1)
def the_one_that_crosses_belongs(student: Student, draw: Draw) -> None:
    """The nucleus reaches top_p: the index with which the sum crosses it belongs, and shares are renormalised."""
    # Two belong to it: one of them far more likely than the other, or both alike and much left outside.
    for top_p, shares in ((0.53, [0.5, 0.07, 0.065, *[0.061] * 5, 0.06]), (0.4, [0.25, 0.2, *[0.11] * 5])):
        logits, probs = logits_of(draw, shares)
        last = int(probs.argsort(descending=True)[1])
        drawn = draws(student, 200, logits, draw.generator(), top_p=top_p)
        came = bool((drawn == last).any())
        expect(drawn).all(came, f"top_p = {top_p:g}: the index with which the sum reaches top_p never came")
        nucleus = probs * (probs >= probs[last])
        inside = drawn[nucleus[drawn] > 0]  # what is outside is the business of another criterion
        expect_shares(inside, nucleus / nucleus.sum(), f"top_p = {top_p:g}, within the nucleus")


@sample.criterion(points=0.5)
def never_empty(student: Student, draw: Draw) -> None:
    """However small top_p is, the most probable index remains; also with 0."""
    logits, probs = logits_of(draw, [0.35, 0.3, 0.2, 0.15])
    for top_p in (1e-9, 0.01, 0.0):
        drawn = draws(student, 40, logits, draw.generator(), top_p=top_p)
        expect(drawn).all(
            bool((drawn == int(probs.argmax())).all()), f"top_p = {top_p:g} gave an index that is not the most probable"
        )


@sample.criterion(points=0.5)
def temperature_before_top_p(student: Student, draw: Draw) -> None:
    """The nucleus is that of the probabilities after the division by the temperature."""
    logits, _ = logits_of(draw, [0.9, 0.05, 0.03, 0.02])
    drawn = draws(
        student, 150, logits, draw.generator(), temperature=20.0, top_p=0.8
    )  # nearly even: all four are needed
    expect(drawn).all(len(set(drawn.tolist())) > 1, "temperature 20 and top_p = 0.8: always the same index came")


@sample.criterion(points=0.5)
def logits_of_thousands(student: Student, draw: Draw) -> None:
    """Logits of thousands do not overflow; only their differences count."""
    for shift in (5000.0, -5000.0):
        logits, probs = logits_of(draw, [0.7, 0.2, 0.1])
        drawn = draws(student, 60, logits + shift, draw.generator())
        expect_shares(drawn, probs, f"logits around {shift:g}")
    apart = 3000 * (torch.arange(5, dtype=torch.float64) - 2)[draw.permutation(5)]
    for named in ({}, {"temperature": 0.5}):
        index = int(draws(student, 1, apart, draw.generator(), **named))
        expect(index).all(
            index == int(apart.argmax()), "logits thousands apart gave an index that is not the largest's"
        )


@sample.criterion(points=0.5, contract=True, name="generator_decides")
def generator_decides_on_draws(student: Student, draw: Draw) -> None:
    """The same state of `generator` gives the same draws, and another state others."""
    logits, _ = logits_of(draw, [0.3, 0.26, 0.23, 0.21])
    for named in ({}, {"top_p": 0.95, "temperature": 1.5}):
        seed = draw.integer(0, 2**31)
        first, again, other = (
            draws(student, 50, logits, torch.Generator().manual_seed(s), **named) for s in (seed, seed, seed + 1)
        )
        expect(again, "the draws for the same state of the generator").equal(first)
        no_chance = len(set(first.tolist())) == 1  # that is asked by another criterion
        text = "the draws are the same for generators of different states"
        expect(first).all(no_chance or bool((first != other).any()), text)


@sample.criterion(points=0.5, contract=True)
def an_int_of_python(student: Student, draw: Draw) -> None:
    """The result is a Python int, for float32 and float64 logits."""
    for dtype in (torch.float64, torch.float32):
        draw.dtype = dtype
        for named in ({}, {"temperature": 0.5}, {"temperature": 2.0, "top_p": 0.8}, {"temperature": 0.0}):
            try:
                index = student.sample(draw.normal(6), **named, generator=draw.generator())
            except Unmet as raised:
                if raised.kind == "exception" and named.get("temperature") == 0:
                    continue  # which is the business of temperature_zero_is_argmax
                raise
            if type(index) is not int:
                kind = f"a tensor of dtype {index.dtype}" if isinstance(index, Tensor) else f"a {type(index).__name__}"
                raise Unmet(
                    f"Expected a Python int, got {kind}.", "type", ["`.item()` turns a 0-d tensor into an int."]
                )


@sample.criterion(points=0.5, contract=True, name="leaves_arguments_alone")
def leaves_logits_alone(student: Student, draw: Draw) -> None:
    """The function does not change the logits it is given."""
    for named in ({}, {"temperature": 0.5}, {"temperature": 2.0, "top_p": 0.5}):
        draws(student, 1, draw.normal(6), draw.generator(), **named)
        unchanged_arguments(student.calls[-1])


synthesize = Exercise("synthesize", forbidden=FORBIDDEN)


def as_text(result: Any, name: str = "the text") -> Tensor:
    """The student's indices in one row; a list of them, or one axis too many, is the business of keeps_form."""
    if isinstance(result, list) and all(type(i) is int for i in result):
        return torch.tensor(result, dtype=torch.int64)
    indices = expect(result, name).tensor()
    right = indices.numel() == max(indices.shape, default=1)
    expect(indices).all(right, f"{name} is of shape {tuple(indices.shape)}, not (n,)")
    return indices.flatten()


@dataclass
class Writing:
    """An RNN that is sure of every character: its text follows from the start, whatever the random numbers.

    V is so large that at every step one logit leads all others by 60 or more.
    """

    draw: Draw
    n: int = 12
    fed_back: bool = True  # whether U is not 0: the input of a step matters
    carried: bool = True  # whether W is not 0: the state before a step matters
    start_state: bool = True  # whether h0 is not 0
    bias: bool = True  # whether b and c are not 0
    named: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        while True:
            _, self.K, self.m = sizes(self.draw)
            self.params = rnn(self.draw, self.K, self.m, bias=self.bias)
            self.params["V"] *= 1000
            self.params["W"] *= 3 if self.carried else 0
            self.params["U"] *= 2 if self.fed_back else 0
            self.h0 = self.draw.normal(self.m) * self.start_state
            self.start = self.draw.integer(0, self.K)
            self.text, lead = self.right_text()
            if lead > 60 and len(set(self.text)) > 2 and (self.n == 1 or not self.follows_otherwise()):
                return

    def right_text(self, feed: bool = True, carry: bool = True, start: int | None = None) -> tuple[list[int], float]:
        """The text, and by how much the largest logit of a step leads at least."""
        h, x, text, lead = self.h0, self.start if start is None else start, [], math.inf
        for _ in range(self.n if self.n > 1 else 6):
            states = states_of(self.params, torch.tensor([x]), h)
            logits = states[0] @ self.params["V"] + self.params["c"]
            first, second = logits.topk(2).values.tolist()
            lead = min(lead, first - second)
            text.append(int(logits.argmax()))
            h, x = states[0] if carry else h, text[-1] if feed else x
        return text[: self.n] if self.n > 1 else text, lead

    def follows_otherwise(self) -> bool:
        """Whether the text would be the same without feeding back, from the likeliest start, or without the state."""
        without_feeding = self.fed_back and self.right_text(feed=False)[0] == self.text
        likeliest = int((self.h0 @ self.params["V"] + self.params["c"]).argmax())
        if self.fed_back and self.right_text(start=likeliest)[0] == self.text:
            return True
        return without_feeding or (self.carried and self.right_text(carry=False)[0] == self.text)

    def run(self, student: Student) -> list[int]:
        """The student's text."""
        generator = self.draw.generator()
        result = student.synthesize(self.params, self.h0, self.start, self.n, **self.named, generator=generator)
        return [int(i) for i in as_text(result).tolist()]

    def check(self, student: Student, why: str) -> None:
        """The student's text is the right one; whether it begins with `start` is the business of another criterion."""
        got = self.run(student)
        if got and got[0] == self.start and got[1:] == self.text[: len(got) - 1]:
            return
        wrong = next((t for t, (a, b) in enumerate(zip(got, self.text, strict=False)) if a != b), None)
        if wrong is not None:
            raise Unmet(f"Character {wrong} is {got[wrong]}; this network writes {self.text[wrong]} there. {why}")
        if not got:
            raise Unmet("The text is empty.")


@synthesize.criterion(points=1, contract=True)
def start_is_no_part(student: Student, draw: Draw) -> None:
    """The text is n characters long, and its first is the network's answer to `start`, not `start` itself."""
    for n in (3, 8):
        writing = Writing(draw, n=n, carried=False, start_state=False)
        while writing.text[0] == writing.start:
            writing = Writing(draw, n=n, carried=False, start_state=False)
        got = writing.run(student)
        expect(got).all(len(got) == n, f"the text has {len(got)} characters, not n = {n}")
        begins = got[0] == writing.start and got[1:] == writing.text[: n - 1]
        expect(got).all(not begins, "the text begins with `start`, which is the input of the first step only")


@synthesize.criterion(points=1)
def every_character_is_fed_back(student: Student, draw: Draw) -> None:
    """Every character written is the input of the next step (the state does not matter here: W = b = c = 0)."""
    for _ in range(2):
        writing = Writing(draw, carried=False, start_state=False, bias=False)
        writing.check(student, "The input of a step is what was written last.")
    params, following = chain(draw)
    for a, b in pairwise(written(student, params, torch.zeros(5, dtype=torch.float64), 80, draw.generator()).tolist()):
        text = f"{b} came after {a}, which this network never writes there: what was drawn is fed back"
        expect(b).all(b in following[a], text)


@synthesize.criterion(points=1)
def the_state_is_carried(student: Student, draw: Draw) -> None:
    """The state goes on from step to step, h = tanh(h W + b), from h0 on (the input does not matter here: U = 0)."""
    for _ in range(2):
        Writing(draw, fed_back=False).check(student, "The state goes on from step to step, from h0 on.")


def chain(draw: Draw) -> tuple[Params, dict[int, set[int]]]:
    """An RNN without memory: one character has two that may follow, almost alike, each other one has one."""
    fork, left, right, after_left, after_right = draw.permutation(5).tolist()
    following = {fork: {left, right}, left: {after_left}, right: {after_right}, after_left: {fork}, after_right: {fork}}
    logits = torch.full((5, 5), -500.0, dtype=torch.float64)
    for a, b in ((a, b) for a, several in following.items() for b in several):
        logits[a, b] = 0.0
    logits[fork, left] = 0.1
    U = 40 * torch.eye(5, dtype=torch.float64) - 20  # every state is +1 for its character and −1 for all others
    none = torch.zeros(5, dtype=torch.float64)
    return {"U": U, "W": torch.diag(none), "V": logits / 2, "b": none, "c": logits.sum(0) / 2}, following


def answers(draw: Draw, probs: Sequence[float]) -> tuple[Params, Tensor, Tensor]:
    """An RNN whose probabilities are the same at every step (V = 0), its h0, and the probabilities."""
    K, m = len(probs), 3
    params = rnn(draw, K, m)
    c, p = logits_of(draw, probs)
    return {**params, "V": 0 * params["V"], "c": c}, draw.normal(m), p


def written(student: Student, params: Params, h0: Tensor, n: int, generator: torch.Generator, **named: float) -> Tensor:
    """The student's text, n indices that exist."""
    # Two more, since whether `start` comes first, or a character is missing, is the business of another criterion.
    result = student.synthesize(params, h0, 0, n + 2, **named, generator=generator)
    text = as_text(result)
    expect(text).all(len(text) > n, f"the text has {len(text)} characters, not {n + 2}")
    expect(text).all((text >= 0) & (text < len(params["c"])), "the text has an index that does not exist")
    return text[-n:].long()


@synthesize.criterion(points=1)
def characters_are_drawn(student: Student, draw: Draw) -> None:
    """Characters come as often as their probabilities say (the same at every step here)."""
    params, h0, probs = answers(draw, [0.5, 0.27, 0.15, 0.08])
    expect_shares(written(student, params, h0, 500, draw.generator()), probs, "temperature 1")


@synthesize.criterion(points=0.5)
def temperature_is_handed_on(student: Student, draw: Draw) -> None:
    """`temperature` reaches every draw: 0 always writes the most probable."""
    params, h0, probs = answers(draw, [0.4, 0.3, 0.2, 0.1])
    text = written(student, params, h0, 60, draw.generator(), temperature=0.0)
    expect(text).all(bool((text == int(probs.argmax())).all()), "temperature 0 writes what is not the most probable")
    params, h0, probs = answers(draw, [0.97, 0.01, 0.01, 0.01])
    text = written(student, params, h0, 300, draw.generator(), temperature=3.0, top_p=0.95)  # which cuts nothing
    expect_shares(text, torch.softmax(params["c"] / 3, 0), "temperature 3")


@synthesize.criterion(points=0.5)
def top_p_is_handed_on(student: Student, draw: Draw) -> None:
    """`top_p` reaches every draw: nothing outside the nucleus is written."""
    params, h0, probs = answers(draw, [0.4, 0.3, 0.2, 0.1])
    text = written(student, params, h0, 200, draw.generator(), top_p=0.55)
    outside = probs[text] < 0.25
    expect(text).all(
        not bool(outside.any()), f"top_p = 0.55: {int(outside.sum())} of 200 characters are from outside the nucleus"
    )
    expect(text).all(bool((probs[text] > 0.35).any()), "the most probable character is never written")


@synthesize.criterion(points=0.5, contract=True)
def same_state_same_text(student: Student, draw: Draw) -> None:
    """The same state of `generator` gives the same text, and another state another text."""
    params, h0, _ = answers(draw, [0.3, 0.26, 0.23, 0.21])
    seed = draw.integer(0, 2**31)
    first, second, other = (
        written(student, params, h0, 60, torch.Generator().manual_seed(s)) for s in (seed, seed, seed + 1)
    )
    expect(second, "the text for the same state of the generator").equal(first)
    varies = len(set(first.tolist())) == 1 or bool((first != other).any())  # no chance at all: another criterion's
    expect(first).all(varies, "the text is the same for generators of different states")


def writing_arguments(draw: Draw) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of `synthesize` for criteria on form."""
    params = rnn(draw, 6, 4)
    return (params, draw.normal(4), 2, 9), {"temperature": 0.8, "top_p": 0.9, "generator": draw.generator()}


add_contract(synthesize, writing_arguments, [Form("the text", (9,), dtype=torch.int64)])


train_rnn = Exercise("train_rnn", forbidden=FORBIDDEN)


@dataclass
class Training:
    """One call of `train_rnn`, what it reported after each update, and what it should have.

    With lr = 0 the parameters stay as they are, so reports are those of a network that only reads.
    """

    draw: Draw
    chunks: int  # whole ones
    tail: int = 0  # characters of a shorter one at the end
    updates: int = 1
    lr: float = 0.0
    clip: float = 1000.0
    size: float = 1.0  # of V
    reports: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        T, self.K, self.m = sizes(self.draw)
        self.T = max(T, self.tail + 1)
        self.params = rnn(self.draw, self.K, self.m)
        self.params["V"] *= self.size
        self.indices = self.draw.integers(0, self.K, self.T * self.chunks + self.tail + 1)

    def run(self, student: Student, on_update: bool = True) -> Params:
        """Call the student's function; returns its parameters."""
        self.reports = []
        named = {"T": self.T, "lr": self.lr, "clip": self.clip, "updates": self.updates}
        if on_update:
            named["on_update"] = self._report
        result = student.train_rnn(self.params, self.indices, **named)
        return {k: entry(result, k, v.shape, "the parameters") for k, v in self.params.items()}

    def _report(self, *positional: Any, **named: Any) -> None:
        self.reports.append(dict(zip(("step", "loss", "h"), positional, strict=False)) | named)

    def reported(self, name: str, k: int) -> Tensor:
        """What was reported after update k."""
        expect(self.reports).all(
            k < len(self.reports), f"on_update was called {len(self.reports)} times in {self.updates} updates"
        )
        if name not in self.reports[k]:
            raise Unmet(f"on_update was called without {name}: it is on_update(step, loss, h).", "type")
        shape = (self.m,) if name == "h" else ()
        return finite(self.reports[k][name], *shape, name=f"the {name} of on_update after update {k}")

    def expected(
        self,
        *,
        carry: str = "last",
        reset: bool = True,
        keep: bool = True,
        ahead: int = 1,
        adaptive: bool = True,
        clipped: str = "value",
        updates: int | None = None,
        only: int | None = None,
    ) -> tuple[Params, list[Tensor], list[Tensor]]:
        """The parameters, and the loss and the state after each update, worked out here.

        As it should be: the last state of a chunk is carried, each pass starts from zeros (`reset`), the sums of
        squares are kept from pass to pass, gradients are clipped by value, targets are one ahead, and all chunks are
        used (or the first `only`).
        """
        params, zeros = dict(self.params), {k: torch.zeros_like(v) for k, v in self.params.items()}
        starts, sums = range(0, len(self.indices) - 1, self.T)[:only], zeros
        losses, states = [], []
        h = torch.zeros(self.m, dtype=torch.float64)
        for step in range(self.updates if updates is None else updates):
            s = starts[step % len(starts)]
            if s == 0:
                h, sums = torch.zeros_like(h) if reset else h, sums if keep else zeros
            inputs = self.indices[:-1][s : s + self.T]
            targets = self.indices[s + ahead :][: len(inputs)]
            losses.append(loss_of(params, inputs, targets, h))
            within = states_of(params, inputs, h)
            grads = gradients_by_autograd(lambda q, x=inputs, y=targets, h=h: loss_of(q, x, y, h), params)
            states.append(within[-1])
            h = {"last": within[-1], "first": within[0], "none": torch.zeros_like(h)}[carry]
            squares, share = {}, min(1.0, self.clip / norm_of(grads))
            for k, grad in grads.items():
                g = {"value": torch.clamp(grad, -self.clip, self.clip), "norm": share * grad, "": grad}[clipped]
                squares[k] = sums[k] + g * g
                params[k] = params[k] - self.lr * (g / (torch.sqrt(squares[k]) + 1e-10) if adaptive else g)
            sums = squares
        return params, losses, states

    def check(
        self, student: Student, why: str, *others: dict[str, Any], slips: dict[str, dict[str, Any]] | None = None
    ) -> None:
        """The parameters are the expected ones, or what comes of a mistake that other criteria are about.

        `slips` has the arguments of `expected` under the sentences that explain them.
        """
        got = self.run(student)
        for other in others:
            wrong, _, _ = self.expected(**other)
            if all(bool(torch.allclose(got[k].double(), v, rtol=1e-4, atol=1e-4)) for k, v in wrong.items()):
                return
        for key, value in self.expected()[0].items():
            name = f"params[{key!r}] after {self.updates} updates"
            expect(got[key], name).close_to(
                value,
                rtol=1e-4,
                atol=1e-4,
                because=why,
                slips=lambda key=key: {text: self.expected(**named)[0][key] for text, named in (slips or {}).items()},
            )


@train_rnn.criterion(points=1)
def as_many_updates_as_asked_for(student: Student, draw: Draw) -> None:
    """There are exactly `updates` updates, be it more or less than a pass, each reported with its number from 0."""
    for updates in (2, 7):
        training = Training(draw, chunks=4, updates=updates, lr=0.1)
        training.run(student)
        steps = [int(training.reported("step", k)) for k in range(len(training.reports))]
        expect(steps).all(len(steps) == updates, f"updates = {updates}, but on_update was called {len(steps)} times")
        expect(steps).all(steps == list(range(updates)), f"the steps reported are {steps[:4]} …, not 0, 1, 2, …")
    training = Training(draw, chunks=2, updates=0, lr=0.1)
    for key, value in training.run(student).items():
        expect(value, f"params[{key!r}] after no update").close_to(training.params[key])


@train_rnn.criterion(points=1)
def chunks_in_order(student: Student, draw: Draw) -> None:
    """Each update is about the next chunk, targets one ahead (W = 0 here: the state before does not matter)."""
    training = Training(draw, chunks=4, updates=4)
    training.params["W"] = 0 * training.params["W"]
    training.run(student)
    _, losses, _ = training.expected()
    for k, expected in enumerate(losses):
        loss = apart_from_factor(training.reported("loss", k), expected, 1 / training.T)
        expect(loss, f"the loss of update {k}").close_to(expected, because=f"that of chunk {k}, with lr = 0")


@train_rnn.criterion(points=1)
def state_is_carried_inside_a_pass(student: Student, draw: Draw) -> None:
    """A chunk starts from the last state of the one before; h is the chunk's last state (lr = 0 here)."""
    training = Training(draw, chunks=4, updates=4, lr=0.1)
    training.run(student)  # what comes of it tells mistakes apart
    training.lr = 0.0
    training.run(student)
    _, _, states = training.expected()
    begun = [torch.zeros_like(states[0]), *states]
    for k, expected in enumerate(states):
        expect(training.reported("h", k), f"the state after chunk {k}").close_to(
            expected,
            slips=lambda k=k: {
                "Every chunk starts from zeros: the last state of the chunk before is not carried on.": (
                    training.expected(carry="none")[2][k]
                ),
                "The first state of a chunk is carried on, not its last.": training.expected(carry="first")[2][k],
                "This is the state that the chunk started from, not its last.": begun[k],
            },
        )


@train_rnn.criterion(points=1)
def zero_state_at_each_pass(student: Student, draw: Draw) -> None:
    """Every pass over the text starts from a state of zeros, so with lr = 0 every pass is like the first."""
    training = Training(draw, chunks=3, updates=9)
    training.run(student)
    losses = torch.stack([training.reported("loss", k) for k in range(len(training.reports))])
    expect(losses).all(len(losses) >= 9, f"on_update was called {len(losses)} times in 9 updates")
    expect(losses).all(bool(losses[0] != losses[1]), "the loss is the same for every chunk")
    on = "The state goes on into the second pass; every pass starts from zeros."
    expect(losses[3:6], "the list of the losses of the second pass").close_to(
        losses[:3],
        because="those of the first pass, with lr = 0",
        slips=lambda: {on: torch.stack(training.expected(reset=False)[1][3:6])},
    )
    expect(losses[6:9], "the list of the losses of the third pass").close_to(
        losses[:3], because="those of the first pass, with lr = 0"
    )


@train_rnn.criterion(points=1)
def tail_is_included(student: Student, draw: Draw) -> None:
    """The shorter chunk at the end is trained on too (lr and W are 0 here)."""
    training = Training(draw, chunks=2, tail=2, updates=6)
    training.params["W"] = 0 * training.params["W"]
    training.run(student)
    _, losses, _ = training.expected()
    for k in (2, 3):
        loss = apart_from_factor(training.reported("loss", k), losses[k], 1 / training.T, 1 / training.tail)
        which = "the shorter chunk" if k == 2 else "the first chunk of the second pass"
        expect(loss, f"the loss of update {k}").close_to(losses[k], because=f"{which}; the text has two whole chunks")


@train_rnn.criterion(points=1)
def loss_before_the_update(student: Student, draw: Draw) -> None:
    """The loss reported is that of the parameters before the update, as a mean over time."""
    training = Training(draw, chunks=1, updates=1, lr=0.3)
    training.run(student)
    _, (right,), _ = training.expected()
    _, (unshifted,), _ = training.expected(ahead=0)  # the targets are the business of chunks_in_order
    loss = training.reported("loss", 0)
    right = unshifted if bool((loss - unshifted).abs() <= 1e-6 * unshifted) else right
    expect(loss, "the loss of the first update").close_to(right, sizes={"T": training.T})


@train_rnn.criterion(points=1.5)
def adagrad(student: Student, draw: Draw) -> None:
    """Every update is a step of AdaGrad, each from the parameters after the one before (one pass, nothing clipped)."""
    others = ({"carry": "none"}, {"carry": "first"}, {"ahead": 0}, {"updates": 4}, {"updates": 9}, {"only": 1})
    slips = {"These are steps of plain gradient descent, without AdaGrad.": {"adaptive": False}}
    Training(draw, chunks=3, updates=3, lr=0.1).check(student, "three steps of AdaGrad", *others, slips=slips)


@train_rnn.criterion(points=1)
def sums_of_squares_are_kept(student: Student, draw: Draw) -> None:
    """AdaGrad's sums of squares go on from pass to pass (passes of one chunk)."""
    others = ({"reset": False}, {"ahead": 0}, {"updates": 5})
    slips = {
        "AdaGrad starts anew: its sums are lost from one pass to the next.": {"keep": False},
        "These are steps of plain gradient descent, without AdaGrad.": {"adaptive": False},
    }
    training = Training(draw, chunks=1, updates=4, lr=0.1)
    training.check(student, "four passes, with sums that go on", *others, slips=slips)


@train_rnn.criterion(points=1)
def gradients_are_clipped_by_value(student: Student, draw: Draw) -> None:
    """Every entry of every gradient is clipped to ±clip before AdaGrad sees it."""
    training = Training(draw, chunks=1, updates=3, lr=0.1, clip=0.02)
    others = ({"reset": False}, {"keep": False}, {"ahead": 0}, {"updates": 4}, {"adaptive": False})
    slips = {
        "The gradients are not clipped, or at another limit than `clip`.": {"clipped": ""},
        "The gradients are clipped by their norm; here every entry is clipped by itself.": {"clipped": "norm"},
    }
    training.check(student, "three steps of AdaGrad with gradients within ±clip", *others, slips=slips)


@train_rnn.criterion(points=0.5, contract=True)
def reports_of_plain_values(student: Student, draw: Draw) -> None:
    """on_update(step, loss, h) gets an int, a Python float and a tensor (m,); without on_update nothing is reported."""
    training = Training(draw, chunks=2, updates=3, lr=0.1)
    with_reports = training.run(student)
    expect(training.reports).all(bool(training.reports), "on_update was never called")
    for report in training.reports:
        if type(report.get("step")) is not int or type(report.get("loss")) is not float:
            kinds = ", ".join(f"{n} of type {type(report.get(n)).__name__}" for n in ("step", "loss"))
            raise Unmet(f"on_update got {kinds}; expected an int and a float.", "type", ["`loss.item()` is a float."])
        Form("h", (training.m,)).check(report.get("h"), torch.float64)
    for key, value in training.run(student, on_update=False).items():
        expect(value, f"params[{key!r}] without on_update").close_to(with_reports[key])


def training_arguments(draw: Draw) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of `train_rnn` for criteria on form."""
    return (rnn(draw, *SMALL), draw.integers(0, 5, 14)), {"T": 4, "lr": 0.1, "clip": 5.0, "updates": 5}


add_contract(
    train_rnn,
    training_arguments,
    [Nested("the parameters", {"U": (5, 3), "W": (3, 3), "V": (3, 5), "b": (3,), "c": (5,)})],
)


# --- Gates: LSTM and GRU ---------------------------------------------------------------------------------------------

lstm_step = Exercise("lstm_step", forbidden=FORBIDDEN, opaque=(2,))


@dataclass(frozen=True)
class Cell:
    """A gated cell, an input, and the states that it starts from."""

    params: Params
    x: Tensor
    h: Tensor
    c: Tensor

    @property
    def m(self) -> int:
        """The number of units."""
        return len(self.h)

    def with_params(self, **changed: Tensor) -> Cell:
        """The same cell with some of the parameters replaced."""
        return replace(self, params={**self.params, **changed})


def cell(draw: Draw, gates: int, shape: tuple[int, int] | None = None) -> Cell:
    """A random cell of so many gates, with K inputs and m units."""
    _, K, m = sizes(draw)
    K, m = shape or (K, m)
    params = {
        "U": draw.normal(K, gates * m, scale=0.6),
        "W": draw.normal(m, gates * m, scale=0.6),
        "b": 0.4 * away_from_zero(draw, gates * m),
    }
    if gates == 3:
        params["b_h"] = 0.4 * away_from_zero(draw, gates * m)
    return Cell(params, draw.normal(K), 0.6 * away_from_zero(draw, m), away_from_zero(draw, m))


def lstm_of(params: Params, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The new h and c of an LSTM, by PyTorch."""
    U, W, b = params["U"], params["W"], params["b"]
    h, c = torch.lstm_cell(x[None], [h[None], c[None]], U.T, W.T, b, torch.zeros_like(b))
    return h[0], c[0]


def lstm(student: Student, p: Cell) -> tuple[Tensor, Tensor, Any]:
    """The student's h and c, finite and of the right shape, and the cache."""
    h, c, cache = expect(student.lstm_step(p.params, p.x, p.h, p.c)).parts("h", "c", "cache")
    return finite(h, p.m, name="h"), finite(c, p.m, name="c"), cache


def unbiased(p: Cell) -> Cell:
    """The same cell with b = 0."""
    return p.with_params(b=0 * p.params["b"])


ANOTHER_ORDER = "The blocks of z are taken in another order than i, f, g, o."
INTERLEAVED = "The blocks of z lie one after the other, m entries each; here their entries are taken in turn."
SWAPPED = "h and c are returned in the wrong order."


def lstm_blocks(p: Cell) -> Tensor:
    """The four blocks of z, (4, m), where h and b are 0."""
    return (p.x @ p.params["U"]).reshape(4, p.m)


def candidate_slips(p: Cell) -> Slips:
    z = lstm_blocks(p)
    i, f, g, o = z
    taken = z.flatten().reshape(p.m, 4).T
    gates = {(a, b): torch.sigmoid(z[a]) * torch.tanh(z[b]) for a in range(4) for b in range(4) if (a, b) != (0, 2)}
    return {
        "g goes through tanh, not through the sigmoid.": torch.sigmoid(i) * torch.sigmoid(g),
        "The new content is let in by i, not by 1 − f.": (1 - torch.sigmoid(f)) * torch.tanh(g),
        INTERLEAVED: torch.sigmoid(taken[0]) * torch.tanh(taken[2]),
        SWAPPED: torch.sigmoid(o) * torch.tanh(torch.sigmoid(i) * torch.tanh(g)),
        **{f"{ANOTHER_ORDER[:-1]}: block {a + 1} is i and block {b + 1} is g.": v for (a, b), v in gates.items()},
    }


def forget_slips(p: Cell) -> Slips:
    z = lstm_blocks(p)
    i, f, g, o = z
    new = torch.sigmoid(i) * torch.tanh(g)
    taken = z.flatten().reshape(p.m, 4).T
    return {
        "1 is added to the forget gate; here nothing is.": torch.sigmoid(f + 1) * p.c,
        "The old c is kept by f, not by 1 − f.": (1 - torch.sigmoid(f)) * p.c,
        INTERLEAVED: torch.sigmoid(taken[1]) * p.c,
        SWAPPED: torch.sigmoid(o) * (torch.tanh(torch.sigmoid(f) * p.c + new) - torch.tanh(new)),
        **{f"{ANOTHER_ORDER[:-1]}: block {k + 1} is f.": torch.sigmoid(z[k]) * p.c for k in (0, 2, 3)},
    }


def output_slips(p: Cell, c: Tensor) -> Slips:
    z = lstm_blocks(p)
    taken = z.flatten().reshape(p.m, 4).T
    return {
        "The tanh is missing: h = o ⊙ tanh(c).": torch.sigmoid(z[3]) * c,
        "This is the old c's tanh; h shows the new c.": torch.sigmoid(z[3]) * torch.tanh(p.c),
        "The sigmoid of o is missing.": z[3] * torch.tanh(c),
        INTERLEAVED: torch.sigmoid(taken[3]) * torch.tanh(c),
        SWAPPED: lstm_of(p.params, p.x, p.h, p.c)[1],
        **{f"{ANOTHER_ORDER[:-1]}: block {k + 1} is o.": torch.sigmoid(z[k]) * torch.tanh(c) for k in (0, 1, 2)},
    }


@lstm_step.criterion(points=1)
def input_and_candidate(student: Student, draw: Draw) -> None:
    """From c = 0, the new c is σ(i) tanh(g), i and g the first and the third block of z (h = b = 0 here)."""
    for _ in range(2):
        p = unbiased(cell(draw, 4))
        p = replace(p, h=0 * p.h, c=0 * p.c)
        _, c, _ = lstm(student, p)
        expect(c, "c").close_to(lstm_of(p.params, p.x, p.h, p.c)[1], slips=partial(candidate_slips, p))


@lstm_step.criterion(points=1)
def forget_gate(student: Student, draw: Draw) -> None:
    """The old c adds σ(f) c to the new one, f the second block of z and nothing added to it (h = b = 0 here)."""
    for _ in range(2):
        p = unbiased(cell(draw, 4))
        p = replace(p, h=0 * p.h)
        empty = replace(p, c=0 * p.c)
        added = lstm(student, p)[1] - lstm(student, empty)[1]
        expected = lstm_of(p.params, p.x, p.h, p.c)[1] - lstm_of(p.params, p.x, p.h, empty.c)[1]
        expect(added, "what the old c adds to the new one").close_to(expected, slips=partial(forget_slips, p))


@lstm_step.criterion(points=1)
def output_gate(student: Student, draw: Draw) -> None:
    """The new h is σ(o) tanh(c), o the fourth block of z and c your new c (h = b = 0 here)."""
    for _ in range(2):
        p = unbiased(cell(draw, 4))
        p = replace(p, h=0 * p.h)
        h, c, _ = lstm(student, p)
        expect(c).all(bool((c != 0).any()), "c is 0")
        o = p.x @ p.params["U"][:, -p.m :]
        expect(h, "h").close_to(
            torch.tanh(c) / (1 + torch.exp(-o)), because="σ(o) tanh of your new c", slips=partial(output_slips, p, c)
        )


@lstm_step.criterion(points=0.5)
def state_takes_part(student: Student, draw: Draw) -> None:
    """h W counts as x U does: h is as good as m more inputs, whose weights are W."""
    p = cell(draw, 4)
    longer = torch.cat([p.params["U"], p.params["W"]]), torch.cat([p.x, p.h])
    expected = lstm(student, replace(p.with_params(U=longer[0]), x=longer[1], h=0 * p.h))
    differs(expected[0], lstm(student, replace(p, h=0 * p.h))[0], "h is the same whatever the inputs are")
    for name, got, right in zip("hc", lstm(student, p), expected, strict=False):
        expect(got, name).close_to(right, because="that of h = 0, with h among the inputs")


@lstm_step.criterion(points=0.5)
def bias_takes_part(student: Student, draw: Draw) -> None:
    """b counts: it is as good as the weights of one more input that is always 1."""
    p = cell(draw, 4)
    longer = torch.cat([p.params["U"], p.params["b"][None]]), torch.cat([p.x, torch.ones_like(p.x[:1])])
    without = p.with_params(b=0 * p.params["b"])
    expected = lstm(student, replace(without.with_params(U=longer[0]), x=longer[1]))
    differs(expected[0], lstm(student, without)[0], "h is the same whatever the inputs are")
    for name, got, right in zip("hc", lstm(student, p), expected, strict=False):
        expect(got, name).close_to(right, because="that of b = 0, with b among the weights")


def cell_arguments(draw: Draw, gates: int) -> Cell:
    """A small cell for criteria on form."""
    return cell(draw, gates, SMALL)


def lstm_arguments(draw: Draw) -> tuple[Any, ...]:
    """Arguments of `lstm_step` for criteria on form."""
    p = cell_arguments(draw, 4)
    return p.params, p.x, p.h, p.c


add_contract(lstm_step, lstm_arguments, [Form("h", (3,)), Form("c", (3,)), Opaque("cache")])


lstm_backward_step = Exercise("lstm_backward_step", forbidden=FORBIDDEN, leans_on=("lstm_step",))
BACKWARD = ("grads", "grad_x", "grad_h", "grad_c")


class CellPasses:
    """A step of the student's LSTM and back, and the gradients that they should give.

    The cache comes from the student's own lstm_step; see `OwnSlopes` for what that means where it is wrong.
    """

    def __init__(self, student: Student, draw: Draw, *, from_h: bool = True, from_c: bool = True) -> None:
        self.student, self.cell = student, cell(draw, 4)
        p = self.cell
        self.up_h, self.up_c = away_from_zero(draw, p.m) * from_h, away_from_zero(draw, p.m) * from_c
        h, c, cache = lstm(student, p)
        right_h, right_c = lstm_of(p.params, p.x, p.h, p.c)
        near = [bool((a - b).norm() <= 1e-6 * b.norm()) for a, b in ((h, right_h), (c, right_c))]
        self.forward_is_right = all(near)
        self.result = student.lstm_backward_step(self.up_h, self.up_c, cache)
        self.grads, *rest = expect(self.result).parts(*BACKWARD)
        self.rest = dict(zip(BACKWARD[1:], rest, strict=True))
        self.arguments = {**p.params, "grad_x": p.x, "grad_h": p.h, "grad_c": p.c}
        self.expected = gradients_by_autograd(lambda q: self._score(*self._right(q)), self.arguments)

    @staticmethod
    def _right(q: Params) -> tuple[Tensor, Tensor]:
        return lstm_of(q, q["grad_x"], q["grad_h"], q["grad_c"])

    def _score(self, h: Tensor, c: Tensor) -> Tensor:
        return h.double() @ self.up_h + c.double() @ self.up_c

    def got(self, key: str) -> Tensor:
        """The student's gradient of a parameter, or of x, h or c."""
        if key in self.rest:
            return finite(self.rest[key], *self.arguments[key].shape, name=key)
        return entry(self.grads, key, self.arguments[key].shape, "grads")

    def check(self, key: str, part: slice = slice(None), slips: Callable[[], Slips] = dict) -> None:
        """A gradient, or a part of it, is right."""
        name = key if key in self.rest else f"grads[{key!r}]"
        try:
            expect(self.got(key)[part], name).close_to(
                self.expected[key][part], because="autograd's result", atol=1e-10, slips=slips
            )
        except Unmet as unmet:
            if self.forward_is_right or not OwnSlopes(self._loss).fit(key, self.got(key)):
                unmet.causes += self._wrong_blocks() if key == "b" else []
                raise

    def _wrong_blocks(self) -> list[str]:
        """Which of the four blocks of z are wrong, if not all that are not 0 anyway."""
        got, right = (t.double().reshape(4, -1) for t in (self.got("b"), self.expected["b"]))
        near = 1e-6 * right.abs().max()
        wrong = [k for k in range(4) if (got[k] - right[k]).abs().max() > near]
        if not wrong or len(wrong) == sum(bool(block.any()) for block in right):
            return []
        names = ", ".join("ifgo"[k] for k in wrong[:-1]) + " and " * (len(wrong) > 1) + "ifgo"[wrong[-1]]
        if len(wrong) == 2 and bool((got[wrong] - right[wrong[::-1]]).abs().max() <= near):
            return [f"The blocks {names} are exchanged; the order is i, f, g, o."]
        if wrong == [0, 1, 2] and not bool(got[:3].any()):
            return ["Nothing goes back through tanh(c_t) to i, f and g."]
        return [f"Of the blocks i, f, g, o only {names} {'is' if len(wrong) == 1 else 'are'} wrong."]

    def _loss(self, key: str, step: Tensor) -> Tensor:
        q = {**self.arguments, key: self.arguments[key] + step}
        params = {k: q[k] for k in self.cell.params}
        h, c, _ = lstm(self.student, Cell(params, q["grad_x"], q["grad_h"], q["grad_c"]))
        return self._score(h, c)


@lstm_backward_step.criterion(points=1.5)
def gates_from_the_new_c(student: Student, draw: Draw) -> None:
    """What comes from grad_c reaches z through i, f and g: the gradient of b (grad_h = 0 here)."""
    for _ in range(2):
        CellPasses(student, draw, from_h=False).check("b")


@lstm_backward_step.criterion(points=1.5)
def gates_from_the_new_h(student: Student, draw: Draw) -> None:
    """What comes from grad_h reaches z through o, and through tanh(c) also i, f and g (grad_c = 0 here)."""
    for _ in range(2):
        CellPasses(student, draw, from_c=False).check("b")


def old_c_slips(passes: CellPasses) -> Slips:
    p = passes.cell
    _, f, _, o = torch.sigmoid(p.x @ p.params["U"] + p.h @ p.params["W"] + p.params["b"]).reshape(4, p.m)
    _, c = lstm_of(p.params, p.x, p.h, p.c)
    slope, up_h, up_c = 1 - torch.tanh(c) ** 2, passes.up_h, passes.up_c
    return {
        "The way through the new h is missing.": up_c * f,
        "The factor f is missing.": up_c + up_h * o * slope,
        "The slope of tanh(c_t) is missing.": (up_c + up_h * o) * f,
        "The factor o is missing on the way through the new h.": (up_c + up_h * slope) * f,
        "The slope is that of tanh at the old c; it is tanh(c_t) of the new one.": (
            up_c + up_h * o * (1 - torch.tanh(p.c) ** 2)
        )
        * f,
    }


@lstm_backward_step.criterion(points=1)
def gradient_of_the_old_c(student: Student, draw: Draw) -> None:
    """The gradient of the old c comes from grad_c and, through the new h, from grad_h."""
    for from_h in (False, True):
        passes = CellPasses(student, draw, from_h=from_h)
        passes.check("grad_c", slips=partial(old_c_slips, passes))


@lstm_backward_step.criterion(points=1)
def parameters_from_the_gates(student: Student, draw: Draw) -> None:
    """The gradients of U and W are xᵀ and hᵀ times that of b."""
    passes = CellPasses(student, draw)
    b = passes.got("b")
    expect(b).all(bool((b != 0).any()), "the gradient of b is 0")
    for key, value in (("U", passes.cell.x), ("W", passes.cell.h)):
        p, new = passes.cell, "This has the new h; W met the old one."
        after, _ = lstm_of(p.params, p.x, p.h, p.c)
        expect(passes.got(key), f"grads[{key!r}]").close_to(
            torch.outer(value, b),
            because="from your gradient of b",
            slips=lambda key=key, after=after, new=new: {new: torch.outer(after, b)} if key == "W" else {},
        )


@lstm_backward_step.criterion(points=1)
def inputs_from_the_gates(student: Student, draw: Draw) -> None:
    """The gradients of x and of the old h are U and W times that of b."""
    passes = CellPasses(student, draw)
    b = passes.got("b")
    expect(b).all(bool((b != 0).any()), "the gradient of b is 0")
    for key, weights in (("grad_x", "U"), ("grad_h", "W")):
        expect(passes.got(key), key).close_to(passes.cell.params[weights] @ b, because="from your gradient of b")


def lstm_backward_leaves(student: Student, draw: Draw) -> Leaves:
    """The leaves of the student's gradients of a small cell."""
    p = cell_arguments(draw, 4)
    _, _, cache = lstm(student, p)
    result = student.lstm_backward_step(draw.normal(p.m), draw.normal(p.m), cache)
    grads, *rest = expect(result).parts(*BACKWARD)
    forms = [Form("grad_x", p.x.shape), Form("grad_h", p.h.shape), Form("grad_c", p.c.shape)]
    return [*Nested("grads", shapes_of(p.params)).leaves(grads), *zip(forms, rest, strict=True)]


add_contract_of(lstm_backward_step, lstm_backward_leaves)


gru_step = Exercise("gru_step", forbidden=FORBIDDEN)


def gru_of(p: Cell) -> Tensor:
    """The new h of a GRU, by PyTorch."""
    U, W, b, b_h = (p.params[name] for name in ("U", "W", "b", "b_h"))
    return torch.gru_cell(p.x[None], p.h[None], U.T, W.T, b, b_h)[0]


def gru(student: Student, p: Cell) -> Tensor:
    """The student's h, finite and of the right shape."""
    return finite(student.gru_step(p.params, p.x, p.h), p.m, name="h")


def blocks(values: Tensor, **kept: bool) -> Tensor:
    """A parameter with the blocks r, z or n set to zero that are not to be kept."""
    parts = values.chunk(3, -1)
    return torch.cat([part * kept.get(name, False) for name, part in zip("rzn", parts, strict=True)], -1)


def with_blocks(p: Cell, **kept: bool) -> Cell:
    """A cell of which only some blocks of U are not zero, and only n's of W; b and b_h are 0."""
    zero = {name: 0 * p.params[name] for name in ("b", "b_h")}
    return p.with_params(U=blocks(p.params["U"], **kept), W=blocks(p.params["W"], n=True), **zero)


def into_U(p: Cell, values: Tensor) -> Tensor:
    """U with these values added to x U."""
    return p.params["U"] + torch.outer(p.x, values) / p.x.dot(p.x)


GRU_ORDER = "The blocks r and z are exchanged; the order is r, z, n."


def gru_blocks(p: Cell) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """x U and h W in their blocks r, z, n."""
    return (p.x @ p.params["U"]).chunk(3), (p.h @ p.params["W"]).chunk(3)


def new_content_slips(p: Cell) -> Slips:
    n = gru_blocks(p)[0][2]
    return {
        "1 − z is missing: h' = (1 − z) ⊙ n + z ⊙ h.": torch.tanh(n),
        "n goes through tanh, not through the sigmoid.": torch.sigmoid(n) / 2,
        "r multiplies x U_n too; it multiplies h W_n and its bias only.": torch.tanh(n / 2) / 2,
    }


def update_slips(p: Cell) -> Slips:
    r, z, _ = (torch.sigmoid(block) for block in gru_blocks(p)[0])
    return {"z and 1 − z are exchanged: where z = 1 the old h stays.": (1 - z) * p.h, GRU_ORDER: r * p.h}


def reset_slips(p: Cell) -> Slips:
    (x_r, _, x_n), (_, _, h_n) = gru_blocks(p)
    r, W_n = torch.sigmoid(x_r), p.params["W"].chunk(3, 1)[2]

    def mixed(inside: Tensor) -> Tensor:
        return (torch.tanh(inside) + p.h) / 2

    return {
        "r multiplies h before the product with W_n; here it multiplies h W_n.": mixed(x_n + (r * p.h) @ W_n),
        "r is not used.": mixed(x_n + h_n),
        "r multiplies x U_n too; it multiplies h W_n and its bias only.": mixed(r * (x_n + h_n)),
        "r multiplies x U_n; it multiplies h W_n and its bias.": mixed(r * x_n + h_n),
        "z stands where r is meant.": mixed(x_n + h_n / 2),
        GRU_ORDER: (1 - r) * torch.tanh(x_n + h_n / 2) + r * p.h,
    }


def hidden_bias_slips(p: Cell) -> Slips:
    (_, _, x_n), bias = gru_blocks(p)[0], p.params["b_h"].chunk(3)[2]
    return {
        "r does not multiply b_h in n; it multiplies h W_n together with its bias.": torch.tanh(x_n + bias) / 2,
        "b_h is not used in n.": torch.tanh(x_n) / 2,
    }


@gru_step.criterion(points=1)
def candidate(student: Student, draw: Draw) -> None:
    """From h = 0, and with z = ½, the new h is n / 2: n = tanh(x U_n), U_n the third block (b = b_h = 0 here)."""
    for _ in range(2):
        p = with_blocks(cell(draw, 3), n=True)
        p = replace(p, h=0 * p.h)
        expect(gru(student, p), "h").close_to(gru_of(p), slips=partial(new_content_slips, p))


@gru_step.criterion(points=1)
def update_gate(student: Student, draw: Draw) -> None:
    """z, the second block, is how much of the old h stays: it adds z · h (W = 0 and b = b_h = 0 here)."""
    for _ in range(2):
        p = with_blocks(cell(draw, 3), r=True, z=True, n=True)
        p = p.with_params(W=0 * p.params["W"])
        empty = replace(p, h=0 * p.h)
        added, expected = gru(student, p) - gru(student, empty), gru_of(p) - gru_of(empty)
        expect(added, "what the old h adds to the new one").close_to(
            expected, because="z · h", slips=partial(update_slips, p)
        )


@gru_step.criterion(points=1.5)
def reset_gate(student: Student, draw: Draw) -> None:
    """In n, the reset gate multiplies h W_n, so after the product with W (z = ½, W_r = 0 and b = b_h = 0 here)."""
    for _ in range(2):
        p = with_blocks(cell(draw, 3), r=True, n=True)
        expect(gru(student, p), "h").close_to(gru_of(p), slips=partial(reset_slips, p))


@gru_step.criterion(points=1)
def hidden_bias(student: Student, draw: Draw) -> None:
    """b_h goes with h W, in every block: in n the reset gate multiplies both (h = 0 and b = 0 here)."""
    p = cell(draw, 3)
    b_h = p.params["b_h"]
    p = replace(with_blocks(p, r=True, n=True), h=0 * p.h)
    with_n = p.with_params(b_h=blocks(b_h, n=True))
    expect(gru(student, with_n), "h").close_to(gru_of(with_n), slips=partial(hidden_bias_slips, with_n))
    for block in "rz":
        part = blocks(b_h, **{block: True})
        expected = gru(student, with_n.with_params(U=into_U(p, part)))
        got = gru(student, with_n.with_params(b_h=with_n.params["b_h"] + part))
        expect(got, f"h with b_h in the block {block}").close_to(
            expected, because="that of x U with as much added to it"
        )


@gru_step.criterion(points=0.5)
def bias_of_the_inputs(student: Student, draw: Draw) -> None:
    """b goes with x U, in every block: it is as good as the weights of one more input that is always 1."""
    p = cell(draw, 3)
    longer = torch.cat([p.params["U"], p.params["b"][None]]), torch.cat([p.x, torch.ones_like(p.x[:1])])
    without = p.with_params(b=0 * p.params["b"])
    expected = gru(student, replace(without.with_params(U=longer[0]), x=longer[1]))
    differs(expected, gru(student, without), "h is the same whatever the inputs are")
    expect(gru(student, p), "h").close_to(expected, because="that of b = 0, with b among the weights")


def gru_arguments(draw: Draw) -> tuple[Any, ...]:
    """Arguments of `gru_step` for criteria on form."""
    p = cell_arguments(draw, 3)
    return p.params, p.x, p.h


add_contract(gru_step, gru_arguments, [Form("h", (3,))])


# --- Modules ---------------------------------------------------------------------------------------------------------

# Modules are judged by what they compute.  They live on your side: what follows, marked as props, runs there.


@prop
def seeded(seed: int) -> Tensor:
    """Seeding PyTorch; gives the random state that was."""
    before = torch.get_rng_state()
    torch.manual_seed(seed)
    return before


@prop
def restored(state: Tensor) -> None:
    """Putting PyTorch's random state back."""
    torch.set_rng_state(state)


def made(student: Student, name: str, seed: int, *arguments: int) -> Any:
    """A handle to a new module of the student's in evaluation mode, whose random numbers follow from the seed.

    That it has no dropout is the business of one criterion for each module, which sets it to training mode.
    """
    before = student.prop(seeded, seed)
    try:
        module = student.call(name, *arguments)
    finally:
        student.prop(restored, before)
    student.prop(set_mode, module, False)
    return module


@prop
def run_model(model: Any, x: Tensor, state: Any = None) -> Any:
    """Running the model"""
    with torch.no_grad():
        return model(x) if state is None else model(x, state)


@prop
def with_identities(model: nn.Module, x: Tensor) -> Any:
    """Running the model with identities in the place of its maps, side by side where a map makes several things"""
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
            side = min(p.shape, default=0)
            if p.ndim == 2 and max(p.shape) % side == 0:
                several = [torch.eye(side, dtype=p.dtype)] * (max(p.shape) // side)
                p.copy_(torch.cat(several, 0 if p.shape[1] == side else 1))
        return model(x)


@prop
def parameter_counts(model: nn.Module) -> list[int]:
    """Counting the model's parameters"""
    return [p.numel() for p in model.parameters()]


def _random_like(p: Tensor, k: int) -> Tensor:
    return torch.randn(p.shape, generator=torch.Generator().manual_seed(k), dtype=p.dtype)


@prop
def slopes(model: nn.Module, x: Tensor, weights: Tensor, h: float = 3e-3) -> list[list[list[float]]]:
    """Going back through the model

    For every parameter and three directions: the slope of the last step's results, weighted and summed, from
    autograd, and from two small steps.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]

    def score() -> Tensor:
        result = model(x)
        result = result[0] if isinstance(result, tuple | list) else result
        return ((result[:, -1] if result.ndim == 3 else result) * weights).sum()

    with torch.enable_grad():
        grads = torch.autograd.grad(score(), parameters, allow_unused=True)
    found = []
    with torch.no_grad():
        for j, (p, grad) in enumerate(zip(parameters, grads, strict=True)):
            before, pairs = p.detach().clone(), []
            for k in range(3):
                direction = _random_like(p, 100 * k + j)
                values = [float(score()) for step in (h, -h) if p.copy_(before + step * direction) is not None]
                along = 0.0 if grad is None else float((grad * direction).sum())
                pairs.append([along, (values[0] - values[1]) / (2 * h)])
            p.copy_(before)
            found.append(pairs)
    return found


@prop
def idle_entries(model: nn.Module, x: Tensor, weights: Tensor) -> list[list[int]]:
    """Going back through the model

    For each of its matrices how many entries have a gradient of exactly 0, all results weighted and summed, and the
    row of the first one; then its shape.
    """
    matrices_ = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    with torch.enable_grad():
        grads = torch.autograd.grad((model(x) * weights).sum(), matrices_, allow_unused=True)
    idle = [
        torch.nonzero((torch.zeros_like(p) if g is None else g) == 0) for p, g in zip(matrices_, grads, strict=True)
    ]
    return [
        [len(where), int(where[0, 0]) if len(where) else -1, *p.shape] for where, p in zip(idle, matrices_, strict=True)
    ]


def expect_gradients(student: Student, model: Any, x: Tensor, weights: Tensor) -> None:
    """The gradients of the model's parameters are those that small steps show."""
    slopes_ = student.prop(slopes, model, x, weights)
    expect(slopes_).all(isinstance(slopes_, list) and bool(slopes_), "the model has no parameters to be trained")
    found = torch.tensor(slopes_)
    by_autograd, by_steps = finite(found, len(slopes_), 3, 2, name="the slopes").unbind(-1)
    expect(found).all(bool((by_steps != 0).any()), "the results do not depend on the model's parameters")
    off, size = (by_autograd - by_steps).norm(dim=1), by_steps.norm(dim=1)
    text = (
        "the gradients of the last step's results are not what small steps of the parameters show: somewhere the "
        "graph is cut (`detach`, `.data`, `no_grad`, `.item()`), parameters are made anew in `forward`, or something "
        "with kinks (a ReLU) stands in the way"
    )
    expect(found).all(bool((off <= 0.03 * size + 0.004 * size.max()).all()), text)


def run(student: Student, model: Any, x: Tensor, *shape: int) -> Tensor:
    """The module's result, finite and of this shape."""
    return finite(student.prop(run_model, model, x), *shape)


CharLSTM = Exercise("CharLSTM", forbidden=FORBIDDEN_IN_MODULES)


@dataclass
class Reader:
    """A character model of the student's and a batch for it."""

    student: Student
    draw: Draw
    layers: int = 2
    N: int = 3
    T: int = 6
    m: int = 0
    training: bool = False

    def __post_init__(self) -> None:
        _, self.K, m = sizes(self.draw)
        self.m = self.m or m
        self.seed = self.draw.integer(0, 2**31)
        self.model = self.another()
        self.x = self.draw.integers(0, self.K, self.N, self.T)
        # The last characters of two rows differ, as do the first of a row, whatever comes.
        self.x[:, 0], self.x[:, -1] = torch.arange(self.N) % self.K, (torch.arange(self.N) + 1) % self.K

    def another(self) -> Any:
        """A model of the same random numbers that has read nothing yet."""
        model = made(self.student, "CharLSTM", self.seed, self.K, self.m, self.layers)
        self.student.prop(set_mode, model, self.training)
        return model

    def random_state(self) -> tuple[Tensor, Tensor]:
        """A state as an LSTM may have it."""
        h, c = (self.draw.uniform(-0.9, 0.9, self.layers, self.N, self.m).float() for _ in range(2))
        return h, 2 * c

    def read(self, x: Tensor | None = None, state: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The model's logits and state, finite and of the right shapes."""
        x = self.x if x is None else x
        logits, state = expect(self.student.prop(run_model, self.model, x, state)).parts("logits", "state")
        return finite(logits, *x.shape, self.K, name="the logits"), self.state_in(state, len(x))

    def state_in(self, state: Any, N: int) -> tuple[Tensor, Tensor]:
        """h and c, finite and of the right shapes."""
        h, c = expect(state, "the state").parts("h", "c")
        shape = self.layers, N, self.m
        if isinstance(h, Tensor) and h.shape == (self.layers, self.T, self.m) != shape:
            cause = "`nn.LSTM` takes the first axis for time, unless it is made with `batch_first=True`."
            raise Unmet(f"Expected h of shape {shape}, got shape {tuple(h.shape)}.", "shape", [cause])
        return finite(h, *shape, name="h"), finite(c, *shape, name="c")

    def logits(self, x: Tensor | None = None) -> Tensor:
        """The logits of a model that has read nothing before, finite and of the right shape."""
        x = self.x if x is None else x
        logits, _ = expect(self.student.prop(run_model, self.another(), x)).parts("logits", "state")
        return finite(logits, *x.shape, self.K, name="the logits")


SINGLE = {"rtol": 1e-3, "atol": 2e-5}  # what float32 gives


@CharLSTM.criterion(points=1)
def logits_for_every_place(student: Student, draw: Draw) -> None:
    """x (N, T) gives logits (N, T, K), which depend on x."""
    for layers, N, T in ((2, 3, 6), (1, 2, 4)):
        reader = Reader(student, draw, layers, N, T)
        logits = reader.logits()
        differs(logits, reader.logits((reader.x + 1) % reader.K), "the logits are the same whatever x is")


@CharLSTM.criterion(points=1)
def state_of_every_layer(student: Student, draw: Draw) -> None:
    """The state is (h, c), each (layers, N, m), of every layer of LSTM units after the last step."""
    for layers in (1, 3):
        reader = Reader(student, draw, layers)
        _, state = expect(student.prop(run_model, reader.model, reader.x)).parts("logits", "state")
        h, c = reader.state_in(state, reader.N)
        expect(h).all(bool((h != 0).all() and (c != 0).all()), "an entry of the state is 0")
        gate = h / torch.tanh(c)  # the output gate, if this is an LSTM
        expect(h).all((gate > 0) & (gate < 1 + 1e-5), "h is not a part of tanh(c), as an LSTM's is")
        for k in range(1, layers):
            expect(h).all(bool((h[k] - h[0]).abs().max() > 1e-6), f"layers 0 and {k} have the same state")


@CharLSTM.criterion(points=1)
def past_but_not_future(student: Student, draw: Draw) -> None:
    """The logits at a place depend on all characters up to it, and on none after it."""
    reader = Reader(student, draw)
    logits, t = reader.logits(), 3
    changed = reader.x.clone()
    changed[:, t:] = (changed[:, t:] + 1) % reader.K
    other = reader.logits(changed)
    expect(other[:, :t], "the logits before a changed character").close_to(logits[:, :t], **SINGLE)
    changed = reader.x.clone()
    changed[:, 0] = (changed[:, 0] + 1) % reader.K
    moved = (reader.logits(changed)[:, -1] - logits[:, -1]).abs().amax(-1)
    expect(moved).all(
        moved > 1e-7, "the last logits do not depend on the first character: no state goes through the steps"
    )


@CharLSTM.criterion(points=1)
def state_goes_on(student: Student, draw: Draw) -> None:
    """A text read in two parts, with the state handed from one to the other, gives the logits of the whole."""
    reader = Reader(student, draw)
    whole, whole_state = reader.read()
    for s in (2, 5):
        first, state = reader.read(reader.x[:, :s])
        second, last_state = reader.read(reader.x[:, s:], state)
        expect(torch.cat([first, second], 1), "the logits of two parts").close_to(whole, **SINGLE)
        for name, got, expected in zip("hc", last_state, whole_state, strict=True):
            expect(got, f"{name} after two parts").close_to(expected, **SINGLE)
    differs(whole[:, 0], reader.read(state=whole_state)[0][:, 0], "the logits are the same whatever the state is")


@CharLSTM.criterion(points=0.5)
def none_means_zeros(student: Student, draw: Draw) -> None:
    """Without a state the model starts from zeros, whatever it read before: nothing is remembered between calls."""
    reader = Reader(student, draw)
    first, _ = reader.read()
    zeros = torch.zeros(reader.layers, reader.N, reader.m)
    reader.read(state=reader.random_state())
    expect(reader.read(state=(zeros, zeros))[0], "the logits for a state of zeros").close_to(first, **SINGLE)
    reader.read(reader.x.flip(1))
    expect(reader.read()[0], "the logits of the same text later").close_to(first, **SINGLE)
    differs(first[:, -1], reader.read(reader.x.flip(1))[0][:, -1], "the logits do not depend on the order in time")


@CharLSTM.criterion(points=0.5)
def rows_are_independent(student: Student, draw: Draw) -> None:
    """Every row of a batch is a text of its own: others beside it change nothing, nor does chance (no dropout)."""
    reader = Reader(student, draw, training=True)
    together = reader.logits()
    same = bool(torch.isclose(reader.logits(), together, rtol=1e-3, atol=1e-5).all())
    expect(together).all(same, "in training mode the same characters give other logits when they are read again")
    for i in range(reader.N):
        alone = reader.logits(reader.x[i : i + 1].clone())
        expect(together[i : i + 1], f"the logits of row {i} among others").close_to(alone, because="alone", **SINGLE)


@CharLSTM.criterion(points=0.5)
def every_layer_counts(student: Student, draw: Draw) -> None:
    """Every layer's h and c take part in what comes out, and every layer has parameters of its own."""
    reader = Reader(student, draw, layers=3, m=16)
    counts = student.prop(parameter_counts, reader.model)
    expect(counts).all(
        isinstance(counts, list) and bool(counts), "the model has no parameters: assign them in __init__"
    )
    least = 4 * reader.m * reader.m * (2 * reader.layers - 1)  # the first layer may have other inputs
    text = (
        f"the model's parameters have {sum(counts)} entries; {reader.layers} layers of m = {reader.m} have over {least}"
    )
    expect(counts).all(sum(counts) > least, f"{text}: a plain list of layers is not registered")
    state = reader.random_state()
    logits, _ = reader.read(state=state)
    for name, part in zip("hc", (0, 1), strict=True):
        for layer in range(3):
            changed = [s.clone() for s in state]
            changed[part][layer] = -changed[part][layer]
            other, _ = reader.read(state=tuple(changed))
            differs(other, logits, f"the logits do not depend on the {name} of layer {layer}")


@CharLSTM.criterion(points=1)
def gradients_through_time(student: Student, draw: Draw) -> None:
    """Gradients of the last logits reach the parameters through every step."""
    reader = Reader(student, draw, T=7)
    expect_gradients(student, reader.model, reader.x, draw.normal(reader.N, reader.K).float())


@CharLSTM.criterion(points=0.5, contract=True)
def logits_not_probabilities(student: Student, draw: Draw) -> None:
    """The results are logits: no softmax, logarithm of one, sigmoid or ReLU has been taken."""
    reader = Reader(student, draw, N=4)
    logits = reader.logits().double()
    sums, logs = logits.sum(-1), torch.logsumexp(logits, -1)
    expect(logits).all(bool((sums - 1).abs().max() > 1e-4), "the results of a place sum to 1, as probabilities do")
    expect(logits).all(bool(logs.abs().max() > 1e-4), "the results are logarithms of probabilities")
    # Of five models one has a negative logit: chance alone leaves all of them positive once in 10⁷ times.
    negative = [bool((Reader(student, draw).logits() < 0).any()) for _ in range(5)]
    expect(negative).all(any(negative), "no result is ever negative, as after a sigmoid or a ReLU; logits may be")


@CharLSTM.criterion(points=0.5, contract=True, name="keeps_form")
def form_of_a_reading(student: Student, draw: Draw) -> None:
    """The logits are float32 of shape (N, T, K), h and c float32 of shape (layers, N, m); x stays as it is."""
    reader = Reader(student, draw)
    for _ in range(2):
        logits, state = expect(student.prop(run_model, reader.model, reader.x)).parts("logits", "state")
        Form("the logits", (reader.N, reader.T, reader.K)).check(logits, torch.float32)
        for name, part in zip("hc", expect(state, "the state").parts("h", "c"), strict=True):
            Form(name, (2, reader.N, reader.m)).check(part, torch.float32)


train_truncated = Exercise("train_truncated")


class Probe(nn.Module):
    """A small recurrent model of CharLSTM's form that notes how it is called.

    With `cut` the states that it gives are off the graph already, so that a student who forgets to detach them fails
    where that is asked only; with `forgetful` it makes no use of the state it is given.
    """

    def __init__(self, E: Tensor, W: Tensor, V: Tensor, *, cut: bool = False, forgetful: bool = False) -> None:
        super().__init__()
        self.cut, self.forgetful = cut, forgetful
        self.E, self.W, self.V = (nn.Parameter(p.clone()) for p in (E, W, V))
        self.events: list[str] = []
        self.given: list[dict[str, Any]] = []

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (N, T), state (h, c) each (1, N, m) -> (N, T, K), (h, c)."""
        self.events.append("forward")
        parts = [] if state is None else [s.detach().clone() for s in state]
        self.given.append({"x": x.clone(), "state": parts, "attached": [s.grad_fn is not None for s in state or ()]})
        h = c = torch.zeros(len(x), len(self.W), dtype=self.W.dtype)
        if state is not None and not self.forgetful:
            h, c = state[0][0], state[1][0]
        logits = []
        for x_t in x.T:
            h, c = torch.tanh(self.E[x_t] + h @ self.W), 0.7 * c + 0.3 * h
            logits.append((h + c) @ self.V)
        h, c = (h.detach(), c.detach()) if self.cut else (h, c)
        return torch.stack(logits, 1), (torch.stack([h]), torch.stack([c]))  # no views: they may be detached in place


class ProbeSGD:
    """Plain gradient descent, used as torch.optim.SGD is, that notes its steps."""

    def __init__(self, model: Probe, lr: float) -> None:
        self.param_groups = [{"params": list(model.parameters()), "lr": lr}]
        self.events = model.events

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for p in self.param_groups[0]["params"]:
            p.grad = None if set_to_none or p.grad is None else torch.zeros_like(p)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Note the step and take it; a closure is called first, and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.events.append("step")
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.data -= self.param_groups[0]["lr"] * p.grad  # unseen by autograd, so that a kept graph is found out
        return loss


@prop
def probe_model(E: Tensor, W: Tensor, V: Tensor, cut: bool = False, forgetful: bool = False) -> Probe:
    """Making a small recurrent model"""
    return Probe(E, W, V, cut=cut, forgetful=forgetful)


@prop
def probe_optimizer(model: Probe, lr: float) -> ProbeSGD:
    """Making an optimiser"""
    return ProbeSGD(model, lr)


@prop
def probe_report(model: Probe) -> dict[str, Any]:
    """Reading the model's notes"""
    parameters = {"E": model.E.detach(), "W": model.W.detach(), "V": model.V.detach()}
    return {"events": list(model.events), "given": list(model.given), "parameters": parameters}


@prop
def set_mode(model: nn.Module, training: bool) -> None:
    """Setting the model's mode"""
    if isinstance(model, nn.Module):
        model.train(training)


@prop
def mode_of(model: nn.Module) -> tuple[bool, bool, bool]:
    """Reading the model's mode, whether all of its parameters can be trained, and whether gradients are recorded"""
    recording = torch.is_grad_enabled()
    torch.set_grad_enabled(True)  # what one function left must not spoil the next one's marks
    return model.training, all(p.requires_grad for p in model.parameters()), recording


@prop
def one_pass_only(batches: list[Any]) -> Any:
    """Making batches that can be read once"""
    return (tuple(batch) for batch in batches)


@dataclass
class Truncated:
    """One call of `train_truncated` with a probe model, and what should come of it."""

    draw: Draw
    count: int = 3
    lr: float = 0.0
    shapes: Sequence[tuple[int, int]] | None = None
    iterator: bool = False
    cut: bool = True
    forgetful: bool = False

    def __post_init__(self) -> None:
        _, K, m = sizes(self.draw)
        self.start = {
            "E": self.draw.normal(K, m),
            "W": self.draw.normal(m, m, scale=1.2 / math.sqrt(m)),
            "V": 1.5 * self.draw.normal(m, K),
        }
        shapes = self.shapes or [(3, 4)] * self.count
        self.batches = [(self.draw.integers(0, K, *shape), self.draw.integers(0, K, *shape)) for shape in shapes]

    def run(self, student: Student) -> None:
        """Call the student's function."""
        model = student.prop(probe_model, *self.start.values(), self.cut, self.forgetful)
        optimizer = student.prop(probe_optimizer, model, self.lr)
        batches = student.prop(one_pass_only, self.batches) if self.iterator else self.batches
        self.losses = student.train_truncated(model, batches, optimizer)
        report = student.prop(probe_report, model)
        self.events, self.given, self.parameters = (report[k] for k in ("events", "given", "parameters"))

    def expected(self, *, carry: bool = True) -> tuple[Params, list[Tensor], list[list[Tensor]]]:
        """The parameters at the end, the losses, and the states after each batch, worked out here."""
        model = Probe(*self.start.values(), cut=True)
        losses, states, state = [], [], None
        for inputs, targets in self.batches:
            logits, state = model(inputs, state)
            loss = F.cross_entropy(logits.transpose(1, 2), targets)
            grads = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for p, grad in zip(model.parameters(), grads, strict=True):
                    p -= self.lr * grad
            losses.append(loss.detach())
            states.append(list(state))
            state = state if carry else None
        return {k: getattr(model, k).detach() for k in self.start}, losses, states

    def moved(self, student: Student) -> Params:
        """What the student's function added to the parameters."""
        self.run(student)
        return {key: self.parameters[key] - value for key, value in self.start.items()}


@train_truncated.criterion(points=1)
def one_step_for_each_batch(student: Student, draw: Draw) -> None:
    """Every batch is read once, in order, and followed by one step of the optimiser."""
    training = Truncated(draw, count=4)
    training.run(student)
    read, steps = (training.events.count(kind) for kind in ("forward", "step"))
    expect(read).all(read == 4, f"the model was called {read} times for 4 batches")
    expect(steps).all(steps == 4, f"the optimiser took {steps} steps for 4 batches")
    expect(steps).all(training.events == ["forward", "step"] * 4, "a step is missing between two batches")
    for k, (inputs, _) in enumerate(training.batches):
        expect(training.given[k]["x"], f"what the model got to read in batch {k}, counted from 0,").equal(inputs)


@train_truncated.criterion(points=1)
def gradient_of_the_mean(student: Student, draw: Draw) -> None:
    """The step is along the gradient of the mean cross-entropy over all N·T predictions (one batch here)."""
    training = Truncated(draw, count=1, lr=0.5)
    moved, sizes_ = training.moved(student), {"N·T": 12, "N": 3, "T": 4}
    for key, value in training.expected()[0].items():
        right, because = value - training.start[key], "one step along the gradient of the mean cross-entropy"
        expect(moved[key], f"what was added to the model's {key}").close_to(right, because=because, sizes=sizes_)


@train_truncated.criterion(points=1)
def gradients_start_anew(student: Student, draw: Draw) -> None:
    """Three batches do what each does alone, one after the other: no gradient is left over (states do not count)."""
    training = Truncated(draw, count=3, lr=0.5, forgetful=True)
    training.run(student)
    together, batches = training.parameters, training.batches
    for batch in batches:
        training.batches = [batch]
        moved = training.moved(student)
        expect(moved["V"]).all(bool((moved["V"] != 0).any()), "one batch changes nothing in the model")
        training.start = training.parameters
    for key, value in training.start.items():
        because = "three calls with one batch each"
        expect(together[key], f"the model's {key} after three batches").close_to(value, because=because)


@train_truncated.criterion(points=1)
def state_is_handed_on(student: Student, draw: Draw) -> None:
    """The first call gets no state, each later one both parts of the state that came out of the one before."""
    training = Truncated(draw, count=3)
    training.run(student)
    _, _, states = training.expected()
    expect(training.given).all(
        len(training.given) > 2, f"the model was called {len(training.given)} times for 3 batches"
    )
    expect(training.given).all(not training.given[0]["state"], "the first call got a state; it starts from None")
    for k in (1, 2):
        text = f"for batch {k}, counted from 0, the model got no state (h, c)"
        expect(training.given).all(len(training.given[k]["state"]) == 2, text)
        for name, got, expected in zip("hc", training.given[k]["state"], states[k - 1], strict=True):
            expect(got, f"the {name} that the model got for batch {k}, counted from 0,").close_to(expected)


@train_truncated.criterion(points=1)
def state_is_detached(student: Student, draw: Draw) -> None:
    """The state handed on is cut from the graph, h and c both, so that a step goes back through its own batch only."""
    training = Truncated(draw, count=3, cut=False)
    training.run(student)
    attached = [k for k, given in enumerate(training.given) if any(given["attached"])]
    first = attached[0] if attached else 0
    text = f"the state given for batch {first}, counted from 0, still hangs on the graph of the batch before"
    expect(training.given).all(not attached, text)
    expect(training.given).all(
        len(training.given) == 3, f"the model was called {len(training.given)} times for 3 batches"
    )


@train_truncated.criterion(points=1)
def losses_of_all_batches(student: Student, draw: Draw) -> None:
    """The result is the mean cross-entropy of every batch over its N·T predictions (lr = 0 here)."""
    training = Truncated(draw, count=3)
    training.run(student)
    without_state, (_, expected, _) = training.expected(carry=False)[1], training.expected()
    if not isinstance(training.losses, list | tuple) or len(training.losses) != 3:
        raise Unmet("Expected a list of 3 losses for 3 batches.", "type")
    for k, loss in enumerate(training.losses):
        loss = apart_from_factor(loss, without_state[k], name="the loss")
        right = without_state[k] if bool((loss - without_state[k]).abs() < 1e-6) else expected[k]
        expect(loss, f"the loss of batch {k}").close_to(right, sizes={"N·T": 12, "N": 3, "T": 4})


@train_truncated.criterion(points=0.5, contract=True)
def list_of_floats(student: Student, draw: Draw) -> None:
    """The losses are a list of Python floats, which hold on to no graph."""
    training = Truncated(draw, count=2)
    training.run(student)
    if not isinstance(training.losses, list):
        raise Unmet(f"Expected a list, got something of type {type(training.losses).__name__}.", "type")
    for loss in training.losses:
        Form("a loss", scalar="float").check(loss, torch.float64)


perplexity = Exercise("perplexity", forbidden=FORBIDDEN_IN_MODULES)


@dataclass
class Held:
    """A text held out, and a vanilla RNN or a probe model to be judged by it."""

    draw: Draw
    N: int = 30

    def __post_init__(self) -> None:
        _, self.K, self.m = sizes(self.draw)
        self.rnn = rnn(self.draw, self.K, self.m)
        self.indices = self.draw.integers(0, self.K, self.N)
        E, W = self.draw.normal(self.K, self.m), self.draw.normal(self.m, self.m, scale=1.2 / math.sqrt(self.m))
        self.probe = {"E": E, "W": W, "V": self.draw.normal(self.m, self.K)}

    def expected(self) -> tuple[Tensor, Tensor]:
        """The perplexities of the RNN and of the probe model."""
        inputs, targets = self.indices[:-1], self.indices[1:]
        loss = loss_of(self.rnn, inputs, targets, torch.zeros(self.m, dtype=torch.float64))
        with torch.no_grad():
            logits, _ = Probe(*self.probe.values())(inputs[None])
        return torch.exp(loss), torch.exp(F.cross_entropy(logits[0], targets))


def nats(got: Any, expected: Tensor, N: int) -> Tensor:
    """The mean of −ln p that a student's perplexity stands for.

    Another base, a missing exponential, a lost sign and a mean over N are the business of as_many_as_equally_likely.
    """
    value = scalar(got, "the perplexity").double()
    logarithm = value.abs().log()
    for mean in (logarithm, -logarithm, logarithm / math.log(2), value, -value, value / math.log(2)):
        for factor in (1.0, N / (N - 1)):
            if bool((mean * factor - expected).abs() <= 1e-5 * expected):
                return mean * factor
    return value.log()  # nan where the value is negative


@perplexity.criterion(points=1)
def perplexity_of_an_rnn(student: Student, draw: Draw) -> None:
    """For the params of a vanilla RNN: exp of the mean of −ln p over the N − 1 predictions."""
    for N in (12, 7, 2):
        held = Held(draw, N)
        expected = held.expected()[0].log()
        mean = nats(student.perplexity(held.rnn, held.indices), expected, N)
        expect(mean, "the logarithm of the perplexity").close_to(expected, rtol=1e-5)


@perplexity.criterion(points=1)
def perplexity_of_a_module(student: Student, draw: Draw) -> None:
    """For a model of CharLSTM's form, which takes (1, T) indices and a state: the same."""
    for N in (12, 7, 2):
        held = Held(draw, N)
        model = student.prop(probe_model, *held.probe.values())
        expected = held.expected()[1].log()
        mean = nats(student.perplexity(model, held.indices), expected, N)
        expect(mean, "the logarithm of the perplexity").close_to(expected, rtol=1e-5)


@perplexity.criterion(points=0.5)
def state_carried_through_a_long_text(student: Student, draw: Draw) -> None:
    """However long the text is, the state goes through from its beginning to its end."""
    held = Held(draw, 400)
    model = student.prop(probe_model, *held.probe.values())
    for one, right in zip((held.rnn, model), held.expected(), strict=True):
        mean = nats(student.perplexity(one, held.indices), right.log(), 400)
        expect(mean, "the logarithm of the perplexity").close_to(right.log(), rtol=1e-5)


@perplexity.criterion(points=1)
def as_many_as_equally_likely(student: Student, draw: Draw) -> None:
    """A model that knows nothing has the perplexity K: as many equally likely characters."""
    held = Held(draw)
    blank = {name: 0 * value for name, value in held.rnn.items()}
    K, N = torch.tensor(held.K, dtype=torch.float64), held.N
    expect(student.perplexity(blank, held.indices), "the perplexity").close_to(
        K,
        because="K, for equal logits",
        slips=lambda: {
            "The exponential is missing: this is the mean of −ln p.": K.log(),
            "2 is raised to a mean of natural logarithms; that wants e.": 2 ** K.log(),
            "The logarithms have base 2; e wants natural ones.": torch.exp(K.log2()),
            "The sign is lost: the mean is of −ln p.": 1 / K,
            "The sum is divided by N; a text of N characters has N − 1 predictions.": K ** ((N - 1) / N),
            "The sum is not divided by the number of predictions.": K ** (N - 1),
        },
    )


@perplexity.criterion(points=0.5)
def any_callable_of_that_form(student: Student, draw: Draw) -> None:
    """A callable model(x, state=None) need not be an nn.Module."""
    held = Held(draw, 12)
    probe = Probe(*held.probe.values())

    def model(x: Tensor, state: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[0] != 1 or x.dtype != torch.int64:
            raise Unmet("The model was called with something else than int64 indices x of shape (1, T).", "shape")
        with torch.no_grad():
            return probe(x, state)

    expected = held.expected()[1].log()
    mean = nats(student.perplexity(model, held.indices), expected, 12)
    expect(mean, "the logarithm of the perplexity").close_to(expected, rtol=1e-5)


def perplexity_arguments(draw: Draw) -> tuple[Any, ...]:
    """Arguments of `perplexity` for criteria on form."""
    return rnn(draw, *SMALL), draw.integers(0, 5, 12)


add_contract(perplexity, perplexity_arguments, [Form("the perplexity", scalar="float")])


# --- Bonus: attention ------------------------------------------------------------------------------------------------

attention = Exercise("attention", bonus=True, forbidden=FORBIDDEN)


def only_output(result: Any) -> Any:
    """The output, where the weights came too: that is the business of the criterion on form."""
    return result[0] if isinstance(result, tuple | list) and len(result) == 2 else result


@dataclass
class Lookup:
    """Queries, keys and values; with d = 1 the factor 1/√d is 1."""

    draw: Draw
    d: int = 1
    batch: tuple[int, ...] = ()
    causal: bool = False
    scale: float = 1.0
    square: bool = False  # as many keys as queries, as with causal

    def __post_init__(self) -> None:
        T, S, e = sizes(self.draw)
        S = T if self.causal or self.square else S
        self.Q = self.scale * self.draw.normal(*self.batch, T, self.d)
        self.K, self.V = self.draw.normal(*self.batch, S, self.d), self.draw.normal(*self.batch, S, e)

    def run(self, student: Student) -> Tensor:
        """The student's output."""
        shape = (*self.Q.shape[:-1], self.V.shape[-1])
        return finite(only_output(student.attention(self.Q, self.K, self.V, causal=self.causal)), *shape)

    def expected(self) -> Tensor:
        """PyTorch's output."""
        return F.scaled_dot_product_attention(self.Q, self.K, self.V, is_causal=self.causal)


def softmax_slips(lookup: Lookup) -> Slips:
    scores = lookup.Q @ lookup.K.mT
    return {
        "The softmax is over the queries; it is over the keys.": scores.softmax(-2) @ lookup.V,
        "The softmax is missing.": scores @ lookup.V,
    }


def scale_slips(lookup: Lookup) -> Slips:
    scores, d = lookup.Q @ lookup.K.mT, lookup.d
    divisors = {"The products are not divided.": 1.0, "The products are divided by d, not by its root.": float(d)}
    for name, size in (("queries", scores.shape[0]), ("keys", scores.shape[1]), ("features of V", lookup.V.shape[1])):
        divisors[f"This is the root of the number of {name}; d is the number of features of a query."] = size**0.5
    return {text: (scores / divisor).softmax(-1) @ lookup.V for text, divisor in divisors.items()}


def causal_slips(lookup: Lookup) -> Slips:
    scores, V = lookup.Q @ lookup.K.mT, lookup.V
    later = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return {
        "Nothing is hidden.": scores.softmax(-1) @ V,
        "The wrong side is hidden: query t sees the keys from t on.": scores.masked_fill(later.T, -torch.inf).softmax(
            -1
        )
        @ V,
        "Hidden scores are set to 0, which is a score like others; set them to −∞.": scores.masked_fill(
            later, 0
        ).softmax(-1)
        @ V,
        "The weights are set to 0 after the softmax; hide the scores before it.": scores.softmax(-1).tril() @ V,
    }


@attention.criterion(points=1)
def weighted_mean_of_the_values(student: Student, draw: Draw) -> None:
    """Every query gets the mean of the values, weighted by the softmax of its products with the keys (d = 1 here)."""
    for square in (False, True):
        lookup = Lookup(draw, square=square)
        expect(lookup.run(student)).close_to(lookup.expected(), slips=partial(softmax_slips, lookup))


@attention.criterion(points=1)
def scaled_by_the_root_of_d(student: Student, draw: Draw) -> None:
    """The products are divided by √d before the softmax."""
    lookup = Lookup(draw, d=draw.integer(8, 15))
    expect(lookup.run(student)).close_to(
        lookup.expected(), because=f"with d = {lookup.d}", slips=partial(scale_slips, lookup)
    )


@attention.criterion(points=0.5)
def weights_sum_to_one(student: Student, draw: Draw) -> None:
    """The weights of a query, over the keys it may see, sum to 1: values that are all 1 stay 1."""
    for causal in (False, True):
        lookup = Lookup(draw, causal=causal)
        other = lookup.run(student)
        differs(other, other * 0 + other.flatten()[0], "every entry is the same whatever the values are")
        lookup.V = torch.ones_like(lookup.V)
        sums = lookup.run(student)  # with values of 1, the sums of the weights
        off = (sums.double() - 1).abs().amax(-1)
        worst = int(off.argmax())
        text = f"the weights of query {worst} sum to {float(sums[worst].double().mean()):.4g}, not to 1"
        expect(sums).all(bool(off.max() <= 1e-6), text + (" (causal)" if causal else ""))


@attention.criterion(points=1)
def causal_sees_no_future(student: Student, draw: Draw) -> None:
    """With causal, query t sees the keys 0 … t, its own included, and no later one (d = 1 here)."""
    for _ in range(2):
        lookup = Lookup(draw, causal=True)
        expect(lookup.run(student)).close_to(lookup.expected(), slips=partial(causal_slips, lookup))


@attention.criterion(points=0.5)
def any_leading_axes(student: Student, draw: Draw) -> None:
    """Leading axes (batch, heads) are independent problems."""
    for batch, causal in (((2,), True), ((2, 3), False), ((2, 3), True)):
        lookup = Lookup(draw, batch=batch, causal=causal)
        Q, K, V = (t.flatten(0, -3) for t in (lookup.Q, lookup.K, lookup.V))
        single = [only_output(student.attention(q, k, v, causal=causal)) for q, k, v in zip(Q, K, V, strict=True)]
        shape = lookup.expected().shape
        expected = torch.stack([finite(one, *shape[-2:]) for one in single]).reshape(shape)
        differs(expected, expected.flatten()[:1], "every entry is the same")
        expect(lookup.run(student)).close_to(expected, because="the results of the problems one by one")


add_contract(
    attention,
    lambda draw: ((draw.normal(2, 5, 4), draw.normal(2, 5, 4), draw.normal(2, 5, 3)), {"causal": True}),
    [Form("the result", (2, 5, 3))],
)


CausalSelfAttention = Exercise("CausalSelfAttention", bonus=True, forbidden=FORBIDDEN_IN_MODULES)


@dataclass
class Mixer:
    """A self-attention module of the student's and a batch for it."""

    student: Student
    draw: Draw
    heads: int = 3
    N: int = 2
    T: int = 5

    def __post_init__(self) -> None:
        self.d = 12
        self.module = made(self.student, "CausalSelfAttention", self.draw.integer(0, 2**31), self.d, self.heads)
        self.x = 3 * self.draw.normal(self.N, self.T, self.d).float()

    def run(self, x: Tensor | None = None) -> Tensor:
        """The module's result, finite and of x's shape."""
        x = self.x if x is None else x
        return run(self.student, self.module, x, *x.shape)


@CausalSelfAttention.criterion(points=0.5)
def result_for_every_place(student: Student, draw: Draw) -> None:
    """x (N, T, d) gives (N, T, d), float32, for any T, and depends on x."""
    mixer = Mixer(student, draw)
    for T in (5, 1, 40):
        x = draw.normal(2, T, mixer.d).float()
        result = mixer.run(x)
        Form("the result", (2, T, mixer.d)).check(student.prop(run_model, mixer.module, x), torch.float32)
        differs(result, mixer.run(-x), "the result is the same whatever x is")


@CausalSelfAttention.criterion(points=1.5)
def sees_no_future(student: Student, draw: Draw) -> None:
    """A place depends on itself and all earlier places, and on no later one."""
    mixer = Mixer(student, draw)
    result = mixer.run()
    for t in range(mixer.T):
        changed = mixer.x.clone()
        changed[:, t] = -changed[:, t]
        moved = (mixer.run(changed) - result).abs().amax((0, 2))
        expect(moved).all(moved[:t] < 1e-5, f"a change at place {t} shows at an earlier one: the future is seen")
        expect(moved).all(moved[t] > 1e-4, f"a change at place {t} does not show there")
        late = [s for s in range(t + 1, mixer.T) if moved[s] < 1e-7]
        expect(moved).all(not late, f"a change at place {t} does not show at a later one")


@CausalSelfAttention.criterion(points=1)
def heads_attend_apart(student: Student, draw: Draw) -> None:
    """One head gives a place one weight for each earlier place; several heads give several."""
    # With two places, the second result is that of the first place alone and that of the second alone, mixed:
    # on the line between them with one head, off it where every head mixes its own part by weights of its own.
    for heads in (1, 3):
        mixer = Mixer(student, draw, heads=heads, N=6, T=2)
        first, second = mixer.run(mixer.x[:, :1]), mixer.run(mixer.x[:, 1:])
        a, b, mixed = first[:, 0].double(), second[:, 0].double(), mixer.run()[:, 1].double()
        share = ((mixed - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1)
        off = (mixed - a - share[:, None] * (b - a)).norm(dim=1) / (b - a).norm(dim=1)
        if heads == 1:
            expect(off).all(off < 1e-4, "with one head, a result is no weighted mean of what two places give alone")
            expect(share).all((share > -1e-4) & (share < 1 + 1e-4), "with one head, a weight is not between 0 and 1")
        else:
            expect(off).all(bool(off.max() > 1e-3), "three heads mix two places as one head would: by a single weight")
    mixer = Mixer(student, draw, N=4, T=1)
    zeros = mixer.run(torch.zeros(1, 1, mixer.d))[0, 0]
    first, second, both = (mixer.run(x)[:, 0] - zeros for x in (mixer.x, mixer.x.flip(0), mixer.x + mixer.x.flip(0)))
    linear = (both - first - second).abs().amax() < 1e-3 * first.abs().amax()
    expect(both).all(bool(linear), "a place alone is not mapped linearly: there is more than linear maps and weights")
    scaled_by_the_root_of_a_head(student, draw)


def scaled_by_the_root_of_a_head(student: Student, draw: Draw) -> None:
    """Products are divided by the root of a head's size, as far as modules can be read that have identities for maps.

    All names and orders inside are free, so what is not known is let pass.
    """
    mixer = Mixer(student, draw)
    x, size = mixer.x / 3, mixer.d // mixer.heads
    try:
        got = finite(student.prop(with_identities, mixer.module, x), *x.shape)
    except Unmet:
        return

    def attended(root: int, apart: bool) -> Tensor:
        """What comes out with q = k = v = x, where the features of a head lie side by side or are spread."""
        parts = x.unflatten(-1, (size, mixer.heads) if apart else (mixer.heads, size))
        parts = parts.movedim(-1 if apart else -2, 1)
        out = F.scaled_dot_product_attention(parts, parts, parts, is_causal=True, scale=1 / math.sqrt(root))
        return out.movedim(1, -1 if apart else -2).flatten(-2)

    for root, what in ((mixer.d, "by the root of d"), (1, "by nothing"), (size**2, "by its size itself")):
        close = any(torch.allclose(got, attended(root, apart), rtol=1e-3, atol=1e-4) for apart in (False, True))
        text = f"the products of a head are divided {what}, not by the root of the {size} features that a head has"
        expect(got).all(not close, text)


@CausalSelfAttention.criterion(points=0.5)
def no_positions(student: Student, draw: Draw) -> None:
    """The order of the earlier places does not matter to the last one: there are no positions."""
    mixer = Mixer(student, draw, T=6)
    order = torch.tensor([3, 0, 4, 2, 1, 5])
    expected = mixer.run()[:, -1]
    differs(expected, mixer.run(mixer.x.flip(1))[:, -1], "the result is the same whatever x is")
    expect(mixer.run(mixer.x[:, order])[:, -1], "the last place, with the others in another order").close_to(
        expected, **SINGLE
    )


@CausalSelfAttention.criterion(points=0.5)
def every_row_by_itself(student: Student, draw: Draw) -> None:
    """Every row of a batch is by itself, and the same input gives the same result again (no dropout)."""
    mixer = Mixer(student, draw, N=3)
    student.prop(set_mode, mixer.module, True)
    together = mixer.run()
    same = bool(torch.isclose(mixer.run(), together, rtol=1e-3, atol=1e-5).all())
    expect(together).all(same, "in training mode the same input gives another result when run again, as with dropout")
    differs(together[0], together[1], "every row has the same result")
    for i in range(3):
        alone = mixer.run(mixer.x[i : i + 1].clone())
        expect(together[i : i + 1], f"row {i} among others").close_to(alone, because="the row alone", **SINGLE)


@CausalSelfAttention.criterion(points=0.5)
def gradients_reach_the_parameters(student: Student, draw: Draw) -> None:
    """The parameters are registered, and gradients reach them."""
    mixer = Mixer(student, draw)
    counts = student.prop(parameter_counts, mixer.module)
    expect(counts).all(
        isinstance(counts, list) and bool(counts), "the module has no parameters: assign them in __init__"
    )
    text = f"the parameters have {sum(counts)} entries; four maps of {mixer.d} features have {4 * mixer.d**2} or more"
    expect(counts).all(sum(counts) >= 4 * mixer.d**2, f"{text}; one is missing, or not registered")
    idle = student.prop(idle_entries, mixer.module, mixer.x / 3, draw.normal(mixer.N, mixer.T, mixer.d).float())
    share = sum(count for count, *_ in idle) / max(sum(math.prod(shape) for _, _, *shape in idle), 1)
    which = ", ".join(
        f"from row {row} on {count} of the {math.prod(shape)} in the matrix of shape {tuple(shape)}"
        for count, row, *shape in idle
        if count
    )
    text = f"{100 * share:.0f} % of the weights have no effect ({which}); every map is to be used, by all heads"
    expect(idle).all(share < 0.2, text)
    expect_gradients(student, mixer.module, mixer.x / 3, draw.normal(mixer.N, mixer.d).float())


# --- Bonus: beam search ----------------------------------------------------------------------------------------------

beam_search = Exercise("beam_search", bonus=True, forbidden=FORBIDDEN)


@dataclass
class Tree:
    """A random model of sequences: log-probabilities for every history of up to n characters.

    A state is the history as a tensor, so that a state handed to the wrong continuation shows.
    """

    draw: Draw
    K: int
    n: int
    calls: list[tuple[Any, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start = self.draw.integer(0, self.K)
        self.table = {
            history: torch.log_softmax(1.5 * self.draw.normal(self.K), 0)
            for length in range(self.n)
            for history in product(range(self.K), repeat=length)
        }

    def step(self, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """What the student's function is given as `step`."""
        state, index = [*given, *(named[k] for k in ("state", "index") if k in named)][:2]
        index = int(expect(index, "the index that step got").tensor())
        self.calls.append((state, index))
        if state is None:
            if index != self.start:
                raise Unmet(f"step(None, {index}) was called; without a state the index is `start`, {self.start}.")
            return self.table[()].clone(), torch.zeros(0, dtype=torch.int64)
        history = (*expect(state, "the state that step got").tensor().long().flatten().tolist(), index)
        if history not in self.table:
            raise Unmet(f"step was called with a state and an index after {len(history)} characters; n is {self.n}.")
        return self.table[history].clone(), torch.tensor(history, dtype=torch.int64)

    def total(self, sequence: Sequence[int]) -> float:
        """The sum of the log-probabilities of a sequence."""
        return sum(float(self.table[tuple(sequence[:t])][k]) for t, k in enumerate(sequence))

    def best(self, width: int) -> list[int]:
        """The best sequence that keeps `width` beginnings at every length."""
        kept: list[tuple[int, ...]] = [()]
        for _ in range(self.n):
            longer = [(*s, k) for s in kept for k in range(self.K)]
            kept = sorted(longer, key=self.total, reverse=True)[:width]
        return list(kept[0])

    def best_by_the_last(self, width: int) -> list[int]:
        """As `best`, but with beginnings compared by their last log-probability alone."""
        kept: list[tuple[int, ...]] = [()]
        for t in range(self.n):
            longer = [(*s, k) for s in kept for k in range(self.K)]
            kept = sorted(longer, key=lambda s, t=t: float(self.table[s[:t]][s[t]]), reverse=True)[:width]
        return list(kept[0])

    def best_of_greedy(self, width: int) -> list[int]:
        """The best of the `width` best first characters, each continued greedily."""
        kept = sorted(((k,) for k in range(self.K)), key=self.total, reverse=True)[:width]
        for _ in range(self.n - 1):
            kept = [(*s, int(self.table[s].argmax())) for s in kept]
        return list(max(kept, key=self.total))

    def run(self, student: Student, width: int) -> list[int]:
        """The student's sequence."""
        self.calls = []
        found = expect(student.beam_search(self.step, self.start, width, self.n), "the sequence").tensor()
        expect(found).all(found.ndim == 1, f"the sequence is of shape {tuple(found.shape)}, not (n,)")
        sequence = [int(k) for k in found.tolist()]
        if len(sequence) == self.n + 1 and sequence[0] == self.start:
            sequence = sequence[1:]  # that `start` is no part is the business of another criterion
        expect(found).all(len(sequence) == self.n, f"the sequence has {len(sequence)} characters, not n = {self.n}")
        expect(found).all(all(0 <= k < self.K for k in sequence), "the sequence has an index that does not exist")
        return sequence

    def check(self, student: Student, width: int) -> None:
        """The student's sequence is the best one."""
        got, expected = self.run(student, width), self.best(width)
        if got != expected:
            sums = f"{self.total(got):.4g}; {expected} has {self.total(expected):.4g}"
            text = f"With width {width}, the sequence {got} came, whose log-probabilities sum to {sums}."
            if self.total(got) > self.total(expected):
                text += f" The first is likelier, but its beginnings are not among the best {width} at every length."
            raise Unmet(text)


def tree_where(draw: Draw, K: int, n: int, condition: Callable[[Tree], bool]) -> Tree:
    """A random model for which something holds."""
    while not condition(tree := Tree(draw, K, n)):
        continue
    return tree


@beam_search.criterion(points=1)
def width_one_is_greedy(student: Student, draw: Draw) -> None:
    """With width 1 every character is the most probable one after those before it."""
    for K, n in ((4, 4), (3, 5)):
        tree_where(draw, K, n, lambda t: t.best(1) != t.best(2)).check(student, 1)


@beam_search.criterion(points=1)
def wide_enough_finds_the_best(student: Student, draw: Draw) -> None:
    """With a width that keeps everything, also one above K, the sequence of the highest sum of all is found."""
    for _ in range(2):
        tree = tree_where(
            draw, 3, 4, lambda t: len({str(s) for s in (t.best(1), t.best_of_greedy(3), t.best(81))}) == 3
        )
        tree.check(student, 81)
    tree_where(draw, 3, 4, lambda t: t.best(3) != t.best(81)).check(student, 81)


@beam_search.criterion(points=1)
def the_best_beginnings_are_kept(student: Student, draw: Draw) -> None:
    """At every length the `width` best beginnings are kept, where greedy search goes wrong."""
    for K, n, width in ((5, 3, 2), (4, 4, 3), (4, 3, 2)):
        others = (
            lambda t: t.best(1),
            lambda t, w=width: t.best(w + 1),
            lambda t, w=width: t.best_by_the_last(w),
            lambda t, w=width: t.best_of_greedy(w),
        )
        for other in others:
            tree_where(draw, K, n, lambda t, other=other, w=width: other(t) != t.best(w)).check(student, width)


@beam_search.criterion(points=0.5, contract=True)
def start_is_the_first_input(student: Student, draw: Draw) -> None:
    """The first call is step(None, start), and `start` is no part of the sequence."""
    tree = Tree(draw, 4, 3)
    found = student.beam_search(tree.step, tree.start, 2, 3)
    expect(tree.calls).all(bool(tree.calls), "step was never called")
    expect(tree.calls).all(tree.calls[0][0] is None, "the first call of step got a state; it starts from None")
    length = expect(found, "the sequence").tensor().numel()
    expect(found).all(length == 3, f"the sequence has {length} characters, not n = 3")


@beam_search.criterion(points=0.5, contract=True)
def form_of_the_sequence(student: Student, draw: Draw) -> None:
    """The result is an int64 tensor (n,)."""
    for width in (1, 3):
        tree = Tree(draw, 4, 3)
        Form("the sequence", (3,), dtype=torch.int64).check(
            student.beam_search(tree.step, tree.start, width, 3), draw.dtype
        )
