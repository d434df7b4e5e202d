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
    forward,
    gradients_of_size,
    gru,
    gru_step,
    init_rnn,
    logits_of,
    loss_and_state,
    loss_of,
    lstm,
    lstm_backward_step,
    lstm_of,
    lstm_step,
    made,
    matrices,
    nats,
    norm_of,
    one_hot,
    perplexity,
    problem,
    rnn,
    rnn_backward,
    rnn_forward,
    run,
    run_model,
    sample,
    scaled,
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
    inner = ["a", "A", *(pool[i] for i in 4 + draw.permutation(len(pool) - 4)[:6])]
    some = [" ", *inner, "\n"]
    to_index, to_char = vocabulary(student, " " + "".join(inner) * 3 + "\n")
    missing, extra = set(some) - set(to_index), set(to_index) - set(some)
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
    """Logits of thousands give a large loss, which is finite and right (one step, b = c = 0 here)."""
    p = problem(draw, 1, bias=False, h0=False)
    p = p.with_params(V=3000 * p.params["V"])
    logits = states_of(p.params, p.inputs, p.h0) @ p.params["V"]
    for targets in (logits.argmin(1), logits.argmax(1)):
        q = replace(p, targets=targets)
        loss = forward(student, q)[0]
        expect(loss, "the loss").close_to(loss_of(q.params, q.inputs, q.targets, q.h0), atol=1e-6)


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


add_precision(rnn_forward, lambda student, draw: loss_and_state(student, small(draw)))


@rnn_backward.criterion(points=1)
def long_sequences(student: Student, draw: Draw) -> None:
    """The gradients go back through all steps of a long sequence, not only through the last few."""
    p = problem(draw, 40, shape=(4, 6), h0=False)
    Q, _ = torch.linalg.qr(draw.normal(6, 6))
    # An orthogonal W and small inputs: what reaches back does not fade.
    p = p.with_params(W=Q, U=0.05 * p.params["U"], b=0.05 * p.params["b"])
    Passes(student, p).check("W", "U")


def gradients_of_small(student: Student, draw: Draw) -> list[Tensor]:
    """The student's gradients of a small problem."""
    passes = Passes(student, small(draw))
    return [passes.got(k) for k in "UWVbc"]


add_precision(rnn_backward, gradients_of_small)


# --- Training --------------------------------------------------------------------------------------------------------


@clip_gradients.criterion(points=0.5, contract=True)
def any_size_of_gradient(student: Student, draw: Draw) -> None:
    """Infinite entries become ±limit as others do; tensors of any number of axes are clipped."""
    grads = {"W": torch.tensor([torch.inf, -torch.inf, 1e30, 0.5]), "b": draw.normal(2, 3, 4), "c": draw.normal()}
    result = student.clip_gradients(grads, 2.0)
    got = entry(result, "W", (4,), "the result")
    expect(got[-1:], "an entry beside infinite ones").close_to(torch.tensor([0.5]))
    expect(got).all(bool(got.abs().max() <= 2), "an infinite entry is not clipped")
    for name in ("b", "c"):
        entry(result, name, grads[name].shape, "the result")


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
    """A T beyond the length of the text gives one chunk a pass (lr = 0 here)."""
    training = Training(draw, chunks=1, updates=3)
    training.indices, training.T = training.indices[: training.T], training.T + 20
    training.run(student)
    _, losses, _ = training.expected()
    _, unshifted, _ = training.expected(ahead=0)  # the targets are the business of chunks_in_order
    first = apart_from_factor(training.reported("loss", 0), losses[0], 1 / (len(training.indices) - 1))
    right = unshifted[0] if bool((first - unshifted[0]).abs() <= 1e-6 * unshifted[0]) else losses[0]
    expect(first, "the loss").close_to(right)


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
    """Gates may be shut or wide open, by inputs of thousands, without overflow (c = 0 and h = 0 here)."""
    p = cell(draw, 4)
    p = replace(p, h=0 * p.h, c=0 * p.c)
    for size in (-3000.0, 3000.0):
        q = replace(p.with_params(b=0 * p.params["b"], U=p.params["U"].abs()), x=size * p.x.abs())
        _, c, _ = lstm(student, q)
        expect(c, "c with all of z far from 0").close_to(lstm_of(q.params, q.x, q.h, q.c)[1], atol=1e-9)


add_precision(lstm_step, lambda student, draw: lstm(student, cell(draw, 4))[:2])


@lstm_backward_step.criterion(points=0.5, contract=True)
def caches_of_their_own(student: Student, draw: Draw) -> None:
    """A cache holds what belongs to its step, however many came since, and may be used twice."""
    p, q = cell(draw, 4, (5, 3)), cell(draw, 4, (5, 3))
    up_h, up_c = draw.normal(3), draw.normal(3)
    _, _, cache = lstm(student, p)
    at_once = expect(student.lstm_backward_step(up_h, up_c, cache)).parts(*BACKWARD)
    _, _, cache = lstm(student, p)
    _, _, other = lstm(student, q)
    for one in (other, cache, cache):
        later = expect(student.lstm_backward_step(up_h, up_c, one)).parts(*BACKWARD)
    for name, shape, one, two in zip(BACKWARD[1:], ((5,), (3,), (3,)), at_once[1:], later[1:], strict=True):
        expected = finite(one, *shape, name=name)
        expect(expected).all(bool((expected != 0).any()), f"{name} is 0")
        expect(two, f"{name} from the same cache later").close_to(expected)


def lstm_gradients(student: Student, draw: Draw) -> list[Tensor]:
    """The student's gradients of one step."""
    passes = CellPasses(student, draw)
    return [passes.got(k) for k in ("U", "W", "b", "grad_x", "grad_h", "grad_c")]


add_precision(lstm_backward_step, lstm_gradients)


@gru_step.criterion(points=0.5)
def saturated_gates_of_a_gru(student: Student, draw: Draw) -> None:
    """Gates may be shut or wide open, by inputs of thousands, without overflow (h = 0 and b_h = 0 here)."""
    p = cell(draw, 3)
    zero = {k: 0 * v for k, v in p.params.items()}
    for n in (-3000.0, 3000.0):
        b = torch.zeros(3, p.m, dtype=torch.float64)
        b[2] = n  # z is ½
        h = gru(student, replace(p, params={**zero, "b": b.flatten()}, h=0 * p.h))
        expect(h, "h where n is at its bound").close_to(torch.full_like(p.h, 0.5 if n > 0 else -0.5), atol=1e-9)


@gru_step.criterion(points=0.5)
def state_moves_the_gates(student: Student, draw: Draw) -> None:
    """h W counts in r and z: there it is as good as a part of b."""
    p = cell(draw, 3)
    gates = (torch.arange(3 * p.m) < 2 * p.m).double()
    plain = p.with_params(W=(1 - gates) * p.params["W"])
    expected = gru(student, plain.with_params(b=p.params["b"] + gates * (p.h @ p.params["W"])))
    differs(gru(student, plain), expected, "h is the same whatever b is")
    expect(gru(student, p), "h").close_to(expected, because="that of h W among the biases of r and z")


add_precision(gru_step, lambda student, draw: [gru(student, cell(draw, 3))])


# --- Modules ---------------------------------------------------------------------------------------------------------


@CharLSTM.criterion(points=0.5, contract=True)
def one_of_everything(student: Student, draw: Draw) -> None:
    """One row, one step and one layer are no special cases, nor is a long text."""
    reader = Reader(student, draw, layers=1, N=1, T=1)
    logits = reader.logits()
    differs(logits, reader.logits((reader.x + 1) % reader.K), "the logits are the same whatever x is")
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
        expect(training.given[k]["x"], f"the inputs of call {k} of the model").equal(inputs)


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


# --- Bonus -----------------------------------------------------------------------------------------------------------


@attention.criterion(points=0.5)
def large_products(student: Student, draw: Draw) -> None:
    """Products of thousands do not overflow (d = 1, not causal here)."""
    for scale in (5000.0, 50.0):
        lookup = Lookup(draw, scale=scale)
        expect(lookup.run(student)).close_to(lookup.expected(), atol=1e-6)


add_precision(attention, lambda student, draw: [Lookup(draw, d=4, causal=True).run(student)])


@CausalSelfAttention.criterion(points=0.5, contract=True)
def sequences_of_any_length(student: Student, draw: Draw) -> None:
    """A long sequence after a short one, and a short one after that, are no special cases."""
    mixer = Mixer(student, draw)
    before = mixer.run()
    for T in (300, 2):
        x = 3 * draw.normal(1, T, mixer.d).float()
        differs(run(student, mixer.module, x, *x.shape), run(student, mixer.module, -x, *x.shape), "x does not matter")
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
