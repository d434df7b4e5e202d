"""The criteria of Assignment 4 that only grading adds: other sizes, extreme values, traps.

Coding to the visible criteria must not be enough.  Messages say what went wrong, never the inputs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from assignments.a4_rnn_text_synthesis.checks import (
    BACKWARD,
    CausalSelfAttention,
    CellPasses,
    CharLSTM,
    Cut,
    Held,
    Lookup,
    Mixer,
    Passes,
    Problem,
    Reader,
    Steps,
    Training,
    Tree,
    Truncated,
    Writing,
    adagrad_step,
    as_text,
    attention,
    beam_search,
    build_vocabulary,
    cell,
    chunks,
    clip_by_norm,
    clip_gradients,
    decode,
    differs,
    draws,
    encode,
    entry,
    expect_shares,
    expected_loss,
    forward,
    gradients_of_size,
    gru,
    gru_step,
    init_rnn,
    into_U,
    logits_of,
    loss_and_state,
    loss_of,
    lstm,
    lstm_backward_step,
    lstm_of,
    lstm_step,
    made,
    matrices,
    mode_of,
    nats,
    norm_of,
    one_hot,
    only_output,
    perplexity,
    plausible,
    probe_model,
    problem,
    random_table,
    rnn,
    rnn_backward,
    rnn_forward,
    run,
    run_model,
    sample,
    scaled,
    set_mode,
    smooth_loss,
    states_of,
    synthesize,
    train_rnn,
    train_truncated,
    training_arguments,
    vocabulary,
    written,
)
from course_utils.checking import (
    Draw,
    Student,
    Unmet,
    add_precision,
    apart_from_factor,
    away_from_zero,
    expect,
    finite,
    scalar,
)

# --- From characters to numbers --------------------------------------------------------------------------------------


@build_vocabulary.criterion(points=0.5)
def every_kind_of_character(student: Student, draw: Draw) -> None:
    """Line ends, blanks, upper and lower case and characters beyond ASCII are characters like all others."""
    pool = ["\n", " ", "\t", "\r", "a", "A", "é", "\u0301", "“", "😀", "\u3042", "'", "\\", "0"]
    # An accent after a letter is a character of its own, as the text has it.
    inner = ["A", "a", "\u0301", "\t", "\r", *(pool[i] for i in 4 + draw.permutation(len(pool) - 4)[:6])]
    some = {" ", *inner, "\n"}
    to_index, to_char = vocabulary(student, " " + "".join(inner) * 3 + "\n")
    missing, extra = some - set(to_index), set(to_index) - some
    expect(to_index).all(not missing and not extra, "the characters of the vocabulary are not those of the text")
    expect(to_char).all(set(to_char.values()) == set(to_index), "the two dicts are about different characters")


@build_vocabulary.criterion(points=0.25, contract=True)
def a_single_character(student: Student, draw: Draw) -> None:
    """A text of one character, or of one character again and again, has one index, 0."""
    for text in ("x", "zzzz"):
        to_index, to_char = vocabulary(student, text)
        expect(to_index).all(to_index == {text[0]: 0} and to_char == {0: text[0]}, "one character has not the index 0")


@encode.criterion(points=0.25, contract=True)
def one_character_is_a_text(student: Student, draw: Draw) -> None:
    """A text of one character has one index; line ends and blanks are characters like all others."""
    table = {"\n": 3, " ": 1, "x": 0, "\t": 2}
    for character, index in table.items():
        indices = expect(student.encode(character, table), "the indices").tensor()
        expect(indices).all(indices.flatten().tolist() == [index], "a text of one character does not give its index")
        expect(indices).all(indices.ndim > 0, "a text of one character gives a 0-d tensor, not one of shape (1,)")


@encode.criterion(points=0.25, contract=True)
def no_character_is_a_text(student: Student, draw: Draw) -> None:
    """The empty text has an empty tensor of indices, int64 as any other."""
    table = random_table(draw)
    one = expect(student.encode(min(table), table), "the indices").tensor()
    indices = expect(student.encode("", table), "the indices of the empty text").tensor()
    expect(indices).all(indices.numel() == 0, f"the empty text has {indices.numel()} indices")
    if indices.dtype != one.dtype:  # which dtype it is where there are characters is asked by another criterion
        causes = ["`torch.tensor([])` is float32, since nothing in the list says otherwise: name the dtype."]
        raise Unmet("The indices of the empty text have another dtype than others.", "dtype", causes)


@decode.criterion(points=0.25, contract=True)
def one_index_is_a_text(student: Student, draw: Draw) -> None:
    """A single index is a text of one character; line ends and blanks are characters like all others."""
    table = {0: "\n", 1: " ", 2: "x", 3: "\t"}
    for index, character in table.items():
        got = student.decode(torch.tensor([index]), table)
        expect(got).all(isinstance(got, str) and got == character, "a single index does not give its character")


@one_hot.criterion(points=0.25, contract=True)
def a_single_index(student: Student, draw: Draw) -> None:
    """A single index is a matrix of one row, whose place of the 1 moves with the index."""
    rows = [expect(student.one_hot(torch.tensor([k]), 4)).tensor() for k in range(4)]
    for row in rows:
        expect(row).all(row.numel() == 4, f"one index of K = 4 gives {row.numel()} numbers")
        expect(row).all(row.ndim > 1, "one index gives a vector, not a matrix of one row")
    expect(rows).all(len({tuple(row.flatten().tolist()) for row in rows}) == 4, "different indices give the same row")


@chunks.criterion(points=0.5)
def shortest_texts(student: Student, draw: Draw) -> None:
    """Two characters are a chunk; a T beyond the text's length gives one chunk, T = 1 one for each prediction."""
    for N, T in ((2, 1), (2, 9), (7, 30), (6, 1), (6, 5), (6, 4)):
        cut = Cut(student, N, T, draw)
        expected = [min(T, N - 1 - s) for s in range(0, N - 1, T)]
        text = f"{N} characters with T = {T} give chunks of {cut.lengths[:4]} inputs"
        expect(cut.lengths).all(cut.lengths == expected, text)


# --- The recurrent network -------------------------------------------------------------------------------------------


@init_rnn.criterion(points=0.25, contract=True)
def generator_goes_on(student: Student, draw: Draw) -> None:
    """Parameters drawn from the same generator a second time are others: it is drawn from, not only its seed read."""
    generator = draw.generator()
    first, second, other = (matrices(student, 5, 4, 0.3, g) for g in (generator, generator, draw.generator()))
    if all(bool((other[name] == M).all()) for name, M in first.items()):
        return  # whether the numbers come from the generator at all is asked by another criterion
    for name, M in first.items():
        expect(M).all(bool((second[name] != M).any()), f"{name} is the same when drawn again from the same generator")


def small(draw: Draw, T: int = 4) -> Problem:
    """A problem of few characters and units."""
    return problem(draw, T, shape=(5, 3))


@rnn_forward.criterion(points=0.5)
def large_logits(student: Student, draw: Draw) -> None:
    """Logits of thousands give a large loss, finite and, for one step, right (b = c = 0 here)."""
    p = problem(draw, 1, bias=False, h0=False)
    p = p.with_params(V=3000 * p.params["V"])
    logits = states_of(p.params, p.inputs, p.h0) @ p.params["V"]
    for targets in (logits.argmin(1), logits.argmax(1)):
        q = replace(p, targets=targets)
        loss = scalar(forward(student, q)[0])
        expect(loss, "the loss").close_to(expected_loss(student, q, loss), atol=1e-6)
    # Of two steps the logits of one are thousands above all of the other's: each has its own largest.
    p = problem(draw, 2, bias=False, h0=False)
    p = replace(p, inputs=torch.tensor([0, 1]), targets=torch.tensor([0, 1]))
    U = torch.cat([1 + p.params["U"][:1].abs(), -1 - p.params["U"][1:].abs()])
    p = p.with_params(U=U, W=0 * p.params["W"], V=3000 * (1 + p.params["V"].abs()))
    expect(forward(student, p)[0], "the loss of two steps").finite()


@rnn_forward.criterion(points=0.25, contract=True)
def smallest_sizes(student: Student, draw: Draw) -> None:
    """One unit, two characters and one step are no special cases: more units, of zeros, change nothing."""
    for T in (1, 3):
        p = problem(draw, T, shape=(2, 1))
        zeros = {"U": (2, 3), "W": (3, 3), "V": (3, 2), "b": (3,), "c": (2,)}
        wide = {k: torch.zeros(shape, dtype=torch.float64) for k, shape in zeros.items()}
        for k, v in p.params.items():
            wide[k][tuple(slice(0, s) for s in v.shape)] = v
        q = replace(p, params=wide, h0=torch.cat([p.h0, torch.zeros(2, dtype=torch.float64)]))
        (loss, h_last), (expected, state) = loss_and_state(student, p), loss_and_state(student, q)
        differs(state[:1], p.h0, "h_last is h0")
        one = expect(forward(student, p)[1], "h_last").tensor()
        expect(one).all(one.ndim > 0, "h_last of one unit is a 0-d tensor, not one of shape (1,)")
        expect(loss, "the loss of one unit").close_to(expected)
        expect(h_last, "h_last of one unit").close_to(state[:1])


@rnn_forward.criterion(points=0.25, contract=True)
def nothing_is_remembered(student: Student, draw: Draw) -> None:
    """A call gives the same whatever was called before."""
    p, other = small(draw), small(draw)
    first = loss_and_state(student, p)
    differs(first[0], loss_and_state(student, other)[0], "the loss is the same whatever the arguments are")
    for name, got, expected in zip(("the loss", "h_last"), loss_and_state(student, p), first, strict=True):
        expect(got, f"{name} of the same call again").close_to(expected)


@rnn_forward.criterion(points=0.25, contract=True)
def one_hot_rows_of_another_dtype(student: Student, draw: Draw) -> None:
    """One-hot rows may have another float dtype than the parameters, which decide that of the results."""
    for dtype, other in ((torch.float64, torch.float32), (torch.float32, torch.float64)):
        p = small(draw)
        p = replace(p.with_params(**{name: v.to(dtype) for name, v in p.params.items()}), h0=p.h0.to(dtype))
        try:
            expected = loss_and_state(student, p, p.one_hot)
        except Unmet:
            return  # whether one-hot rows are understood at all is asked by another criterion
        found = loss_and_state(student, p, p.one_hot.to(other))
        for name, got, right in zip(("the loss", "h_last"), found, expected, strict=True):
            text = f"{name} for one-hot rows of {other} and parameters of {dtype}".replace("torch.", "")
            expect(got, text).close_to(right, because="that for rows of the parameters' dtype")


add_precision(rnn_forward, lambda student, draw: loss_and_state(student, small(draw)))


@rnn_backward.criterion(points=1)
def long_sequences(student: Student, draw: Draw) -> None:
    """The gradients go back through all steps of a long sequence, also for a single unit (slopes are 1)."""
    for m in (6, 1):
        p = problem(draw, 40, shape=(4, m), h0=False)
        Q, _ = torch.linalg.qr(draw.normal(m, m))
        p = p.with_params(W=Q).gentle()  # an orthogonal W and small states: what reaches back does not fade
        Passes(student, p).check("W", "U", rtol=2e-3)


@rnn_backward.criterion(points=0.25, contract=True, name="one_hot_rows_of_another_dtype")
def gradients_of_other_one_hot_rows(student: Student, draw: Draw) -> None:
    """One-hot rows of another float dtype than the parameters have the same gradients."""
    p = small(draw)
    try:
        expected = Passes(student, p, p.one_hot).got("U")
        forward(student, p, p.one_hot.float())
    except Unmet:
        return  # whether one-hot rows are understood at all is asked by another criterion
    got = Passes(student, p, p.one_hot.float()).got("U")
    expect(got, "gradients['U'] for one-hot rows of float32").close_to(expected, because="that for rows of float64")


def gradients_of_small(student: Student, draw: Draw) -> list[Tensor]:
    """The student's gradients of a small problem."""
    passes = Passes(student, small(draw))
    return [passes.got(k) for k in "UWVbc"]


add_precision(rnn_backward, gradients_of_small)


# --- Training --------------------------------------------------------------------------------------------------------


@clip_gradients.criterion(points=0.5, contract=True)
def any_size_of_gradient(student: Student, draw: Draw) -> None:
    """Infinite entries become ±limit as others do; tensors of any number of axes are clipped."""
    grads = {"W": torch.tensor([torch.inf, -torch.inf, 1e30, -1e30, 0.5]), "b": draw.normal(2, 3, 4)}
    result = student.clip_gradients(grads, 2.0)
    got = entry(result, "W", (5,), "the result")
    expect(got[-1:], "an entry beside infinite ones").close_to(torch.tensor([0.5]))
    expect(got).all(bool(got.abs().max() <= 2), "an infinite entry is not clipped")
    expect(got).all(bool((got[:2] == got[2:4]).all()), "an infinite entry does not become what one of ±1e30 becomes")
    entry(result, "b", (2, 3, 4), "the result")


@clip_by_norm.criterion(points=0.5)
def tiny_gradients(student: Student, draw: Draw) -> None:
    """The factor is max_norm / norm and nothing else, also where both are tiny (a single tensor here)."""
    grads = {"W": 1e-7 * away_from_zero(draw, 4, 3)}
    for share in (0.3, 0.6):
        max_norm = share * norm_of(grads)
        norm = norm_of(scaled(student, grads, max_norm))
        text = f"the norm after clipping is {norm / max_norm:.4f} times max_norm"
        expect(norm).all(abs(norm - max_norm) <= 1e-4 * max_norm, text)


@clip_by_norm.criterion(points=0.25, contract=True)
def just_below_max_norm(student: Student, draw: Draw) -> None:
    """A norm just below max_norm changes nothing."""
    grads = {"W": away_from_zero(draw, 4, 3)}
    for factor in (1.001, 1e6):
        result = student.clip_by_norm(grads, factor * norm_of(grads))
        expect(entry(result, "W", (4, 3), "the result"), "the gradient of W").close_to(grads["W"])


add_precision(clip_by_norm, lambda student, draw: list(scaled(student, gradients_of_size(draw, 3.0), 1.3).values()))


def adagrad_results(student: Student, draw: Draw) -> list[Tensor]:
    """The student's parameters after two steps."""
    steps = Steps(draw)
    return steps.student_thetas(student, [steps.gradient() for _ in range(2)])


add_precision(adagrad_step, adagrad_results)


@adagrad_step.criterion(points=0.25, contract=True)
def any_shape(student: Student, draw: Draw) -> None:
    """Tensors of any shape are stepped alike: a bias (m,), a single number."""
    for shape in ((5,), (1,), ()):
        steps = Steps(draw, shape=shape)
        before = steps.theta
        for theta in steps.student_thetas(student, [steps.gradient(), steps.gradient()]):
            expect(theta).all(bool((theta != before).all()), "theta stands still though its gradient is not 0")
            before = theta


@smooth_loss.criterion(points=0.25, contract=True)
def loss_of_zero(student: Student, draw: Draw) -> None:
    """A loss of 0 is a loss like any other, at the first call and later."""
    previous = draw.number(2, 5)
    with_zero, nearly = (scalar(student.smooth_loss(previous, loss), "the smoothed loss") for loss in (0.0, 1e-9))
    expect(with_zero, "the smoothed loss for loss = 0.0").close_to(nearly, rtol=1e-6, because="as for 1e-9")
    first = scalar(student.smooth_loss(None, 0.0), "the smoothed loss")
    nearly = scalar(student.smooth_loss(None, 1e-9), "the smoothed loss")
    expect(first, "the first smoothed loss for loss = 0.0").close_to(nearly, atol=1e-6, because="as for 1e-9")


# --- Synthesis -------------------------------------------------------------------------------------------------------


@sample.criterion(points=0.5, contract=True)
def as_often_in_float32(student: Student, draw: Draw) -> None:
    """float32 logits, top_p = 1 given, and two characters are no special cases."""
    for probs in ([0.75, 0.25], [0.3, 0.25, 0.2, 0.15, 0.1]):
        logits, p = logits_of(draw, probs)
        drawn = draws(student, 150, logits.float(), draw.generator(), top_p=1.0)
        if len(set(drawn.tolist())) > 1:  # no chance at all is the business of another criterion
            expect_shares(drawn, p, "float32 logits, top_p = 1")


@sample.criterion(points=0.5)
def cold_and_hot(student: Student, draw: Draw) -> None:
    """Temperatures of 1e-30 and 1e6 are temperatures too, in float32, with logits of thousands and with top_p."""
    for dtype in (torch.float32, torch.float64):
        apart = (1000 * (torch.arange(5) - 2)[draw.permutation(5)]).to(dtype)
        for named in ({"temperature": 1e-30}, {"temperature": 1e-30, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}):
            index = int(draws(student, 1, apart, draw.generator(), **named))
            expect(index).all(index == int(apart.argmax()), "a cold draw is not the most probable")
    even = draws(student, 150, torch.tensor([0.0, 1.0], dtype=torch.float64), draw.generator(), temperature=1e6)
    expect_shares(even, torch.tensor([0.5, 0.5], dtype=torch.float64), "a very high temperature")


def rounded_below_one(draw: Draw, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of one likely index and 60 rare ones whose probabilities, added up in turn, end just below 1."""
    p = torch.tensor([0.5, *[0.5 / 60] * 60], dtype=torch.float64)
    while True:
        logits = (p.log() + 0.02 * draw.normal(61)).to(dtype)
        probs = torch.softmax(logits, 0)
        if probs.sort(descending=True).values.cumsum(0)[-1] < 1:
            return logits, probs.double()


@sample.criterion(points=0.5, contract=True)
def many_rare_ones(student: Student, draw: Draw) -> None:
    """Many rare characters are together as likely as the one likely one, and top_p = 1 keeps them all.

    A sum of probabilities that ends at 0.9999999, for rounding, never reaches 1.
    """
    for dtype in (torch.float32, torch.float64):
        logits, probs = rounded_below_one(draw, dtype)
        if len(set(draws(student, 20, torch.zeros(4, dtype=dtype), draw.generator()).tolist())) == 1:
            return  # no chance at all is the business of another criterion
        drawn = draws(student, 60, logits, draw.generator())
        for named in ({}, {"top_p": 1.0}):
            drawn = draws(student, 80, logits, draw.generator(), **named) if named else drawn
            likely, expected = int((drawn == 0).sum()), float(probs[0])
            text = f"61 characters: one of probability {expected:.2f} came {likely} times in {len(drawn)}"
            if not plausible(likely, len(drawn), expected):
                causes = ["Rounded probabilities may add up to 0.9999999: with top_p = 1 nothing is to be left out."]
                raise Unmet(text + ".", causes=causes)


@sample.criterion(points=0.5, contract=True)
def characters_that_never_come(student: Student, draw: Draw) -> None:
    """A logit may be −∞: that character is never drawn, and nothing becomes NaN."""
    logits, _ = logits_of(draw, [0.75, 0.25])
    apart = torch.cat([logits, torch.full((3,), -torch.inf, dtype=torch.float64)])
    # The others may be far below 0 too: a logit of −10 in the place of −∞ would be the largest.
    for shift, named in ((0.0, {}), (-30.0, {"top_p": 0.9}), (0.0, {"temperature": 0.5})):
        drawn = draws(student, 40, apart + shift, draw.generator(), **named)
        expect(drawn).all(drawn < 2, "a character whose logit is −∞ was drawn")


@synthesize.criterion(points=0.25, contract=True)
def no_characters(student: Student, draw: Draw) -> None:
    """With n = 0 the text is an empty int64 tensor."""
    params = rnn(draw, 6, 4)
    text, one = (
        as_text(student.synthesize(params, draw.normal(4), 2, n, generator=draw.generator()), f"the text of n = {n}")
        for n in (0, 3)
    )
    if text.numel() == 0 and text.dtype != one.dtype:  # `start` in the text, and its dtype else, are others' business
        causes = ["`torch.tensor([])` is float32, since nothing in the list says otherwise: name the dtype."]
        raise Unmet("The text of n = 0 characters has another dtype than others.", "dtype", causes)


@synthesize.criterion(points=0.25, contract=True, name="nothing_is_remembered")
def every_text_from_its_own_h0(student: Student, draw: Draw) -> None:
    """A text begins at the h0 it is given, whatever was written before."""
    writing = Writing(draw, fed_back=False)
    other = Writing(draw, fed_back=False)
    other.params, other.h0, other.start = writing.params, draw.normal(writing.m), writing.start
    first = writing.run(student)
    other.run(student)
    expect(torch.tensor(writing.run(student)), "the text written once more").equal(torch.tensor(first))


@synthesize.criterion(points=0.5, contract=True)
def generator_moves_on(student: Student, draw: Draw) -> None:
    """A second text from the same generator is another one."""
    params = rnn(draw, 7, 4)
    params["V"], params["c"] = 0 * params["V"], 0.2 * params["c"]
    generator, h0 = draw.generator(), draw.normal(4)
    first, second = (written(student, params, h0, 60, generator) for _ in range(2))
    moved = len(set(first.tolist())) == 1 or bool((first != second).any())  # no chance at all: another criterion's
    expect(first).all(moved, "the generator gives the same text twice: it does not move on")


@synthesize.criterion(points=0.5, contract=True)
def sure_networks(student: Student, draw: Draw) -> None:
    """float32 parameters, cold temperatures and nuclei change nothing where all is sure (W = b = c = 0 here)."""
    for named in ({"temperature": 1e-30}, {"top_p": 0.3}, {"temperature": 0.0, "top_p": 0.5}):
        writing = Writing(draw, n=1, carried=False, start_state=False, bias=False, named=named)
        writing.params = {k: v.float() for k, v in writing.params.items()}
        writing.h0 = writing.h0.float()
        writing.check(student, "Every character is sure here.")


@train_rnn.criterion(points=0.5)
def one_chunk_is_a_text(student: Student, draw: Draw) -> None:
    """A T beyond the length of the text gives one chunk a pass; two characters are a text (lr = 0 here)."""
    for length in (None, 2):
        training = Training(draw, chunks=1, updates=3)
        training.indices, training.T = training.indices[: length or training.T], training.T + 20
        training.run(student)
        _, losses, _ = training.expected()
        _, unshifted, _ = training.expected(ahead=0)  # the targets are the business of chunks_in_order
        first = apart_from_factor(training.reported("loss", 0), losses[0], 1 / (len(training.indices) - 1))
        right = unshifted[0] if bool((first - unshifted[0]).abs() <= 1e-6 * unshifted[0]) else losses[0]
        expect(first, "the loss").close_to(right)


@train_rnn.criterion(points=0.5)
def tail_is_a_chunk_like_others(student: Student, draw: Draw) -> None:
    """The shorter chunk takes over the state and is stepped on, and the pass ends after it, not before."""
    training = Training(draw, chunks=1, updates=9)
    training.indices = draw.integers(0, training.K, 6)

    def states(T: int) -> Tensor:
        training.T = T
        training.run(student)
        return torch.stack([training.reported("h", k) for k in range(9)])

    # With lr = 0, chunks of 2, 2 and 1 characters go through the same states as five of 1 character each.
    tail, single = states(2), states(1)
    if bool((tail[1] - single[3]).abs().max() > 1e-9) or bool((tail[2] == tail[0]).all()):
        return  # whether the state is carried, and the tail there at all, is asked by others
    expect(tail[2], "the state after the shorter chunk").close_to(single[4], because="that of chunks of 1 character")
    for k, j, after in ((3, 6, "chunk"), (4, 8, "two chunks")):
        expect(tail[k], f"the state after the first {after} of the second pass").close_to(
            single[j], because="that of chunks of 1 character"
        )
    training.T, training.lr, after = 2, 0.1, []
    for training.updates in (2, 3):
        after.append(training.run(student)["V"])
    differs(*after, "the update with the shorter chunk changes nothing")


@train_rnn.criterion(points=0.5, contract=True)
def small_eps(student: Student, draw: Draw) -> None:
    """AdaGrad's eps is 1e-10: gradients of 1e-9 still make steps of nearly lr."""
    training = Training(draw, chunks=1, updates=1, lr=0.1, size=1e-9)
    got = training.run(student)
    moved = got["b"] - training.params["b"]
    expect(moved).all(bool((moved != 0).any()), "b stands still")
    found = []
    for updates in (1, 2):  # one too many is the business of another criterion
        right, _, _ = training.expected(updates=updates)
        # Only the size matters here; steps of another size along large gradients too are no matter of eps.
        plain, ratio = (
            float((got[k] - training.params[k]).abs().mean() / (right[k] - training.params[k]).abs().mean())
            for k in ("c", "b")
        )
        found.append(ratio / max(plain, 1e-30))
    text = f"steps for tiny gradients are {found[0]:.2g} times as long as they should be"
    expect(moved).all(any(0.4 < ratio < 2.5 for ratio in found), text)


@train_rnn.criterion(points=0.5, contract=True)
def same_call_same_result(student: Student, draw: Draw) -> None:
    """The same call gives the same parameters again: nothing is left over from the call before."""
    training = Training(draw, chunks=2, updates=7, lr=0.1, clip=5.0)
    first = training.run(student)
    expect(first).all(bool((first["V"] != training.params["V"]).any()), "V stands still")
    for key, value in training.run(student, on_update=False).items():
        expect(value, f"params[{key!r}] of the same training again").close_to(first[key], rtol=1e-5)


def trained(student: Student, draw: Draw) -> list[Tensor]:
    """The student's parameters after a few updates."""
    positional, named = training_arguments(draw)
    result = student.train_rnn(*positional, **named)
    return [entry(result, k, v.shape, "the parameters") for k, v in positional[0].items()]


add_precision(train_rnn, trained)


# --- Gates: LSTM and GRU ---------------------------------------------------------------------------------------------


@lstm_step.criterion(points=0.5)
def saturated_gates(student: Student, draw: Draw) -> None:
    """Gates may be shut or wide open, by inputs of thousands, without overflow (c = 0 and h = 0 here); or one unit."""
    for size, shape in ((-3000.0, None), (3000.0, None), (3000.0, (2, 1))):
        p = cell(draw, 4, shape)
        p = replace(p, h=0 * p.h, c=0 * p.c)
        q = replace(p.with_params(b=0 * p.params["b"], U=p.params["U"].abs()), x=size * p.x.abs())
        _, c, _ = lstm(student, q)
        expect(c, "c with all of z far from 0").close_to(lstm_of(q.params, q.x, q.h, q.c)[1], atol=1e-9)


add_precision(lstm_step, lambda student, draw: lstm(student, cell(draw, 4))[:2])


@lstm_backward_step.criterion(points=0.5, contract=True)
def caches_of_their_own(student: Student, draw: Draw) -> None:
    """A cache holds what belongs to its step, however many came since, and may be used twice."""
    for K, m in ((5, 3), (2, 1)):  # a single unit is no special case
        p, q = cell(draw, 4, (K, m)), cell(draw, 4, (K, m))
        up_h, up_c = draw.normal(m), draw.normal(m)
        _, _, cache = lstm(student, p)
        at_once = expect(student.lstm_backward_step(up_h, up_c, cache)).parts(*BACKWARD)
        _, _, cache = lstm(student, p)
        _, _, other = lstm(student, q)
        for one in (other, cache, cache):
            later = expect(student.lstm_backward_step(up_h, up_c, one)).parts(*BACKWARD)
        for name, size, one, two in zip(BACKWARD[1:], (K, m, m), at_once[1:], later[1:], strict=True):
            expected = finite(one, size, name=name)
            expect(expected).all(bool((expected != 0).any()), f"{name} is 0")
            expect(two, f"{name} from the same cache later").close_to(expected)


@lstm_backward_step.criterion(points=0.25, contract=True, name="not_clipped")
def lstm_gradients_not_clipped(student: Student, draw: Draw) -> None:
    """The gradients are in proportion to those that come in, however large: nothing is clipped on the way."""
    p = cell(draw, 4, (5, 3))
    up_h, up_c = away_from_zero(draw, 3), away_from_zero(draw, 3)
    found = []
    for size in (1.0, 1e4):
        _, _, cache = lstm(student, p)
        result = expect(student.lstm_backward_step(size * up_h, size * up_c, cache)).parts(*BACKWARD)
        found.append(entry(result[0], "b", (12,), "grads"))
    expect(found[0]).all(bool((found[0] != 0).any()), "the gradient of b is 0")
    expect(found[1], "grads['b'] for a gradient 10,000 times as large").close_to(1e4 * found[0])


def lstm_gradients(student: Student, draw: Draw) -> list[Tensor]:
    """The student's gradients of one step."""
    passes = CellPasses(student, draw)
    return [passes.got(k) for k in ("U", "W", "b", "grad_x", "grad_h", "grad_c")]


add_precision(lstm_backward_step, lstm_gradients)


@gru_step.criterion(points=0.5)
def saturated_gates_of_a_gru(student: Student, draw: Draw) -> None:
    """Gates may be shut or wide open, by inputs of thousands, without overflow (h = 0 and b = b_h = 0 here)."""
    p = cell(draw, 3)
    zero = p.with_params(**{k: 0 * v for k, v in p.params.items()})
    for size in (-3000.0, 3000.0):
        values = torch.zeros(3, p.m, dtype=torch.float64)
        values[2] = size  # z is ½
        h = gru(student, replace(zero, h=0 * p.h).with_params(U=into_U(zero, values.flatten())))
        expect(h, "h where n is at its bound").close_to(torch.full_like(p.h, 0.5 if size > 0 else -0.5), atol=1e-9)
        for gate in (0, 1):
            values = torch.zeros(3, p.m, dtype=torch.float64)
            values[gate] = size
            gru(student, p.with_params(U=into_U(zero, values.flatten())))  # which has to be finite


@gru_step.criterion(points=0.5)
def state_moves_the_gates(student: Student, draw: Draw) -> None:
    """h W counts in r and z: there it is as good as a part of x U."""
    for shape in (None, (2, 1)):  # a single unit is no special case
        p = cell(draw, 3, shape)
        gates = (torch.arange(3 * p.m) < 2 * p.m).double()
        plain = p.with_params(W=(1 - gates) * p.params["W"])
        expected = gru(student, plain.with_params(U=into_U(p, gates * (p.h @ p.params["W"]))))
        differs(gru(student, plain), expected, "h is the same whatever x U is")
        expect(gru(student, p), "h").close_to(expected, because="that of x U with h W added to it in r and z")


add_precision(gru_step, lambda student, draw: [gru(student, cell(draw, 3))])


# --- Modules ---------------------------------------------------------------------------------------------------------


@CharLSTM.criterion(points=0.5, contract=True)
def one_of_everything(student: Student, draw: Draw) -> None:
    """One row, one step and one layer are no special cases, nor is a long text."""
    reader = Reader(student, draw, layers=1, N=1, T=1)
    logits = reader.logits()
    differs(logits, reader.logits((reader.x + 1) % reader.K), "the logits are the same whatever x is")
    raw, _ = expect(student.prop(run_model, reader.model, reader.x)).parts("logits", "state")
    axes = expect(raw, "the logits").tensor().ndim
    expect(raw).all(axes == 3, f"the logits of one row and one step have {axes} axes, not 3")
    reader.logits(draw.integers(0, reader.K, 1, 150))


@CharLSTM.criterion(points=0.5, contract=True)
def models_are_apart(student: Student, draw: Draw) -> None:
    """Two models have parameters of their own."""
    first = Reader(student, draw)
    logits = first.logits()
    other = made(student, "CharLSTM", first.seed + 1, first.K, first.m, 2)
    expect(first.logits(), "the logits after another model was made").close_to(logits, rtol=1e-3, atol=1e-5)
    result = student.prop(run_model, other, first.x)
    differs(expect(result).parts("logits", "state")[0], logits, "two models with other random numbers are the same")


@train_truncated.criterion(points=0.5)
def batches_read_once(student: Student, draw: Draw) -> None:
    """`batches` may be a generator, which can be read only once and has no length."""
    training = Truncated(draw, count=3, iterator=True)
    training.run(student)
    calls = len(training.given)
    expect(calls).all(calls >= 3, f"the model was called {calls} times for 3 batches from a generator")


@train_truncated.criterion(points=0.25, contract=True)
def any_size_of_batch(student: Student, draw: Draw) -> None:
    """One row, one step, and a last batch that is shorter are no special cases."""
    training = Truncated(draw, lr=0.1, shapes=[(1, 5), (1, 5), (1, 1)])
    training.run(student)
    expect(training.given).all(len(training.given) == 3, "the model was not called once for each of 3 batches")
    for k, (inputs, _) in enumerate(training.batches):
        expect(training.given[k]["x"], f"what the model got to read in batch {k}, counted from 0,").equal(inputs)
    # Whether a state is handed on at all is asked by another criterion.
    handed_on = bool(training.given[2]["state"]) or not training.given[1]["state"]
    expect(handed_on).all(handed_on, "a last batch that is shorter was read without the state of the one before")


@perplexity.criterion(points=0.5)
def rare_characters(student: Student, draw: Draw) -> None:
    """A character that was nearly impossible makes the perplexity large, not infinite."""
    held = Held(draw, 300)
    held.indices[:] = 0
    held.indices[150] = 1
    params = {name: 0 * value for name, value in held.rnn.items()}
    params["c"][0] = 900.0
    zeros = torch.zeros(held.m, dtype=torch.float64)
    expected = loss_of(params, held.indices[:-1], held.indices[1:], zeros)
    mean = nats(student.perplexity(params, held.indices), expected, 300)
    expect(mean, "the logarithm of the perplexity").close_to(expected, rtol=1e-5)
    plain = held.expected()[1].log()
    model = student.prop(probe_model, *held.probe.values())
    if bool((nats(student.perplexity(model, held.indices), plain, 300) - plain).abs() > 1e-4):
        return  # the perplexity of a module is the business of others
    held.probe = {name: 0 * value for name, value in held.probe.items()}
    held.probe["E"] += 20.0  # every state is 1
    held.probe["V"][:, 0] = 900.0 / held.m
    expected = held.expected()[1].log()
    mean = nats(student.perplexity(student.prop(probe_model, *held.probe.values()), held.indices), expected, 300)
    expect(mean, "the logarithm of the perplexity").close_to(expected, rtol=1e-5)


@perplexity.criterion(points=0.25, contract=True)
def model_is_left_as_it_was(student: Student, draw: Draw) -> None:
    """The model is in the same mode afterwards, and its parameters can still be trained."""
    held = Held(draw, 6)
    for mode in (True, False):
        model = student.prop(probe_model, *held.probe.values())
        student.prop(set_mode, model, mode)
        student.perplexity(model, held.indices)
        after, trainable, recording = student.prop(mode_of, model)
        kinds = {True: "training mode", False: "evaluation mode"}
        expect(after).all(after == mode, f"a model that came in {kinds[mode]} is left in {kinds[not mode]}")
        expect(trainable).all(trainable is True, "requires_grad of the model's parameters was switched off")
        text = "the recording of gradients is left switched off: `with torch.no_grad():` puts it back"
        expect(recording).all(recording is True, text)


# --- Bonus -----------------------------------------------------------------------------------------------------------


@attention.criterion(points=0.5)
def large_products(student: Student, draw: Draw) -> None:
    """Products of thousands do not overflow, nor does a single one (d = 1, not causal here)."""
    for scale, one in ((5000.0, False), (50.0, False), (50.0, True)):
        lookup = Lookup(draw, scale=scale)
        if one:  # one query, one key and a value of one number
            lookup.Q, lookup.K, lookup.V = lookup.Q[:1], lookup.K[:1], lookup.V[:1, :1].clone()
        expect(lookup.run(student)).close_to(lookup.expected(), atol=1e-6)


@attention.criterion(points=0.5, contract=True)
def hidden_however_low_the_scores(student: Student, draw: Draw) -> None:
    """With causal, scores far below 0 hide nothing and show nothing, and a score of exactly 0 is a score (d = 2)."""
    lookup = Lookup(draw, d=2, causal=True)
    lookup.Q[:, 1], lookup.K[:, 1] = 1.0, 0.0
    plain = lookup.run(student)
    if bool((plain - lookup.expected()).norm() > 1e-6 * plain.norm()):
        return  # what the mask hides, and the scale, are the business of others
    for shift in (-1e5, 1e5):
        lookup.K[:, 1] = shift  # which adds the same to all scores of a query
        because = "that without it: only differences count"
        whole = only_output(student.attention(lookup.Q, lookup.K, lookup.V, causal=False))
        if not bool(torch.isfinite(expect(whole).tensor()).all()):
            return  # what overflows without a mask too is the business of large_products
        expect(lookup.run(student), f"the result with {shift:g} added to all products").close_to(
            plain, rtol=1e-5, because=because
        )
    lookup.Q = 0 * lookup.Q
    expect(lookup.run(student), "the result for queries of zeros").close_to(
        lookup.expected(), because="the mean of the values seen so far"
    )
    # Of the keys a query sees, the best is thousands below one that it does not see.
    lookup.Q, lookup.K = torch.ones_like(lookup.Q), 0 * lookup.K
    lookup.K[-1] = 3000.0
    expect(lookup.run(student), "the result with a large score that is hidden").close_to(lookup.expected())


add_precision(attention, lambda student, draw: [Lookup(draw, d=4, causal=True).run(student)])


@CausalSelfAttention.criterion(points=0.5, contract=True)
def sequences_of_any_length(student: Student, draw: Draw) -> None:
    """A long sequence after a short one, and a short one after that, are no special cases."""
    mixer = Mixer(student, draw)
    before = mixer.run()
    for T, late in ((300, 90), (2, 1)):
        x = 3 * draw.normal(1, T, mixer.d).float()
        result = run(student, mixer.module, x, *x.shape)
        differs(result, run(student, mixer.module, -x, *x.shape), "x does not matter")
        early = x.clone()
        early[:, :-late] *= -1
        moved = (run(student, mixer.module, early, *x.shape) - result)[:, -1].abs().max()
        expect(moved).all(bool(moved > 1e-6), f"of {T} places the last one sees none but the last {late}")
    expect(mixer.run(), "the result of the same input later").close_to(before, rtol=1e-3, atol=1e-5)


@beam_search.criterion(points=0.5)
def sequences_of_one(student: Student, draw: Draw) -> None:
    """One character is the most probable one, however wide the beam is."""
    for width in (1, 3, 20):
        Tree(draw, 5, 1).check(student, width)


@beam_search.criterion(points=0.5)
def impossible_characters(student: Student, draw: Draw) -> None:
    """A log-probability may be −∞: what is impossible is never chosen (one character is possible at each place)."""
    tree = Tree(draw, 3, 4)
    possible = draw.integers(0, 3, 4).tolist()
    for history, values in tree.table.items():
        values[:] = -torch.inf
        values[possible[len(history)]] = -0.5
    tree.check(student, 2)
