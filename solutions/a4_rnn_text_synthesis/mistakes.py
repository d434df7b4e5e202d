"""Wrong solutions of Assignment 4 that students really write.

Each is complete in itself, but for the functions above it that have no decorator.  `caught_by` lists every criterion
of the exercise that it fails; `says` is what the student is told where the same results come back.  Those of
`rnn_backward` and `lstm_backward_step` read the caches of the reference.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.checking import mistake

# --- From characters to numbers --------------------------------------------------------------------------------------


@mistake(
    "build_vocabulary",
    caught_by="sorted_characters",
    says="The characters are not numbered in sorted order. A set has another order in every run of Python, and with "
    "other indices a trained network writes nonsense: `sorted(set(text))`.",
)
def unsorted_set(text):
    characters = list(set(text))
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


@mistake(
    "build_vocabulary",
    caught_by="sorted_characters",
    says="The characters are numbered in the order in which the text first has them, so another text of the same "
    "characters has other indices. Sort them.",
)
def numbered_as_they_come(text):
    characters = list(dict.fromkeys(text))
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


@mistake(
    "build_vocabulary",
    caught_by="sorted_characters",
    says="The characters are numbered by how often they occur. The order of the characters themselves is asked for.",
)
def numbered_by_frequency(text):
    characters = sorted(set(text), key=lambda c: (-text.count(c), c))
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


@mistake(
    "build_vocabulary",
    caught_by=("one_index_for_every_character", "a_single_character"),
    says="Indices start at 1. They are to start at 0, because they name rows and columns of tensors.",
)
def numbered_from_one(text):
    characters = sorted(set(text))
    return {c: i for i, c in enumerate(characters, 1)}, dict(enumerate(characters, 1))


@mistake(
    "build_vocabulary",
    caught_by=("one_index_for_every_character", "every_kind_of_character"),
    says="Blanks and line ends are left out. They are characters as all others: a text is mostly made legible by them.",
)
def blanks_left_out(text):
    characters = sorted(c for c in set(text) if not c.isspace())
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


@mistake(
    "build_vocabulary",
    caught_by=("one_index_for_every_character", "every_kind_of_character"),
    says="The text is put into lower case first, so capitals are lost: they are characters of their own.",
)
def lower_case_only(text):
    characters = sorted(set(text.lower()))
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


@mistake(
    "build_vocabulary",
    caught_by=("one_index_for_every_character", "inverse_of_each_other", "a_single_character"),
    says="Every place of the text gets an index, so a character that comes again has only its last. Take each "
    "character once: `set(text)`.",
)
def an_index_for_every_place(text):
    places = sorted(text)
    return {c: i for i, c in enumerate(places)}, dict(enumerate(places))


@mistake(
    "build_vocabulary",
    caught_by="every_kind_of_character",
    says="Characters that are not printable are left out, as the tabulator is. Every character of the text counts.",
)
def printable_characters_only(text):
    characters = sorted(c for c in set(text) if c.isprintable() or c == "\n")
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


@mistake(
    "build_vocabulary",
    caught_by="keeps_form",
    says="index_to_char is a list. It works until an index is negative, which then silently counts from the end; a "
    "dict from int to str is asked for.",
)
def list_for_the_second_dict(text):
    characters = sorted(set(text))
    return {c: i for i, c in enumerate(characters)}, characters


@mistake(
    "encode",
    caught_by="unknown_character",
    says="A character that is not in the vocabulary gets index 0 without a word, so the text is changed. Let "
    "`char_to_index[c]` raise its KeyError.",
)
def unknown_becomes_zero(text, char_to_index):
    return torch.tensor([char_to_index.get(c, 0) for c in text], dtype=torch.int64)


@mistake(
    "encode",
    caught_by="unknown_character",
    says="A character that is not in the vocabulary is left out without a word. Let `char_to_index[c]` raise its "
    "KeyError.",
)
def unknown_left_out(text, char_to_index):
    return torch.tensor([char_to_index[c] for c in text if c in char_to_index], dtype=torch.int64)


@mistake(
    "encode",
    caught_by=("index_of_every_character", "one_character_is_a_text"),
    says="Characters are numbered anew, in sorted order, instead of by the char_to_index that is given. A text of "
    "other characters then has other indices than the network was trained with.",
)
def own_numbering(text, char_to_index):
    known = sorted(char_to_index)
    for c in text:
        if c not in char_to_index:
            raise KeyError(c)
    return torch.tensor([known.index(c) for c in text], dtype=torch.int64)


@mistake(
    "encode",
    caught_by="keeps_form",
    says="The indices come back as floats (`torch.Tensor` makes floats, whatever is put in). Indices are int64: "
    "`torch.tensor`.",
)
def indices_as_floats(text, char_to_index):
    return torch.Tensor([char_to_index[c] for c in text])


@mistake(
    "encode",
    caught_by="unknown_character",
    says="A ValueError is raised for an unknown character; a KeyError is asked for, as dicts raise it.",
)
def value_error_for_unknown(text, char_to_index):
    for c in text:
        if c not in char_to_index:
            raise ValueError(f"unknown character {c!r}")
    return torch.tensor([char_to_index[c] for c in text], dtype=torch.int64)


@mistake(
    "encode",
    caught_by=("index_of_every_character", "one_character_is_a_text"),
    says="Code points (`ord`) are used as indices, not those of char_to_index.",
)
def code_points(text, char_to_index):
    for c in text:
        char_to_index[c]
    return torch.tensor([ord(c) for c in text], dtype=torch.int64)


@mistake(
    "encode",
    caught_by="no_character_is_a_text",
    says="`torch.tensor([])` is float32, since nothing in an empty list says what it holds. Name the dtype, so "
    "that the empty text has int64 indices too.",
)
def empty_text_as_floats(text, char_to_index):
    return torch.tensor([char_to_index[c] for c in text])


@mistake(
    "decode",
    caught_by=("character_of_every_index", "one_index_is_a_text"),
    says="The characters come back as a list. Join them into one str: `''.join(…)`.",
)
def list_of_characters(indices, index_to_char):
    return [index_to_char[i] for i in indices.tolist()]


@mistake(
    "decode",
    caught_by="character_of_every_index",
    says="The characters are joined with blanks between them. Blanks are characters of the vocabulary already: "
    "`''.join(…)`.",
)
def joined_with_blanks(indices, index_to_char):
    return " ".join(index_to_char[i] for i in indices.tolist())


@mistake(
    "decode",
    caught_by="character_of_every_index",
    says="The dict's values are taken by their place in the dict, not by their key.",
)
def values_by_place(indices, index_to_char):
    characters = list(index_to_char.values())
    for i in indices.tolist():
        index_to_char[i]
    return "".join(characters[i] for i in indices.tolist())


@mistake(
    "decode",
    caught_by="unknown_index",
    says="An index that is not in the vocabulary becomes a question mark without a word. Let `index_to_char[i]` raise "
    "its KeyError.",
)
def unknown_becomes_question_mark(indices, index_to_char):
    return "".join(index_to_char.get(i, "?") for i in indices.tolist())


@mistake(
    "decode",
    caught_by="unknown_index",
    says="The characters are put into a list first, in which −1 is the last one and what is too large an IndexError. "
    "A dict raises KeyError for both: `index_to_char[i]`.",
)
def list_indexed_from_the_end(indices, index_to_char):
    characters = [index_to_char[i] for i in range(len(index_to_char))]
    return "".join(characters[i] for i in indices.tolist())


@mistake(
    "decode",
    caught_by=("character_of_every_index", "unknown_index", "one_index_is_a_text"),
    says="The dict is asked for tensors: iterating over a tensor gives 0-d tensors, which are no keys of it. "
    "`indices.tolist()` gives ints.",
)
def tensors_as_keys(indices, index_to_char):
    return "".join(index_to_char[i] for i in indices)


@mistake(
    "one_hot",
    caught_by=("one_in_the_column_of_the_index", "keeps_form"),
    says="The matrix is transposed: rows are steps and columns are characters, (T, K).",
)
def one_hot_transposed(indices, K):
    return torch.eye(K)[indices].T


@mistake(
    "one_hot",
    caught_by=("a_column_for_every_character", "a_single_index"),
    says="The number of columns is guessed from the largest index. A chunk need not hold the last character: use K.",
)
def columns_guessed(indices, K):
    return F.one_hot(indices).float()


@mistake(
    "one_hot",
    caught_by="keeps_form",
    says="The result is of integers, as F.one_hot gives it. It is to be multiplied with float matrices: `.float()`.",
)
def integers_left(indices, K):
    return F.one_hot(indices, K)


@mistake(
    "one_hot",
    caught_by=("one_in_the_column_of_the_index", "zeros_and_ones"),
    says="All rows have the ones of all indices: `rows[:, indices] = 1` sets whole columns. Pair each row with its "
    "index: `rows[torch.arange(T), indices] = 1`.",
)
def whole_columns_of_ones(indices, K):
    rows = torch.zeros(len(indices), K)
    rows[:, indices] = 1
    return rows


@mistake(
    "one_hot",
    caught_by="one_in_the_column_of_the_index",
    says="The 1 stands one column too far to the right (and the last character's wraps around): indices start at 0.",
)
def one_column_too_far(indices, K):
    return torch.eye(K)[(indices + 1) % K]


@mistake(
    "chunks",
    caught_by="targets_one_ahead",
    says="The targets are the inputs themselves. The network then learns to repeat its input, with a loss near 0; the "
    "target is the next character.",
)
def targets_not_ahead(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    return [(x, x) for x in indices[:-1].split(T)]


@mistake(
    "chunks",
    caught_by="targets_one_ahead",
    says="The targets are two characters ahead. The target of an input is the very next character.",
)
def targets_two_ahead(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    wrapped = torch.cat([indices[2:], indices[:1]])
    return list(zip(indices[:-1].split(T), wrapped.split(T), strict=True))


@mistake(
    "chunks",
    caught_by=("shorter_tail_is_kept", "shortest_texts"),
    says="The last characters are dropped where T does not divide the text. Keep the shorter chunk.",
)
def tail_dropped(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    n = len(indices) - 1
    found = [(indices[s : s + T], indices[s + 1 : s + T + 1]) for s in range(0, n - T + 1, T)]
    return found or [(indices[:-1], indices[1:])]


@mistake(
    "chunks",
    caught_by=("every_character_once", "shorter_tail_is_kept", "shortest_texts"),
    says="Chunks start anew at every character, so they overlap. The next chunk starts where the last one ended.",
)
def overlapping_chunks(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    n = len(indices) - 1
    return [(indices[s : s + T], indices[s + 1 : s + T + 1]) for s in range(max(1, n - T + 1))]


@mistake(
    "chunks",
    caught_by=("targets_one_ahead", "chunks_have_length_T", "shorter_tail_is_kept", "shortest_texts"),
    says="The inputs run to the very last character, which has no target, so the last chunk has one input more than "
    "targets. There are N − 1 predictions.",
)
def position_overruns(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    return [(indices[s : s + T], indices[s + 1 : s + T + 1]) for s in range(0, len(indices), T)]


@mistake(
    "chunks",
    caught_by=("every_character_once", "chunks_have_length_T", "shortest_texts"),
    says="Each chunk is cut first and its targets within it, so the character between two chunks is never a target "
    "and each chunk has T − 1 inputs.",
)
def shifted_within_the_chunk(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    if T == 1:
        return [(indices[s : s + 1], indices[s + 1 : s + 2]) for s in range(len(indices) - 1)]
    return [(part[:-1], part[1:]) for part in indices.split(T) if len(part) > 1]


@mistake(
    "chunks",
    caught_by=("every_character_once", "shorter_tail_is_kept", "shortest_texts"),
    says="The last chunk is dropped: `range` ends one chunk too early.",
)
def last_chunk_dropped(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    n = len(indices) - 1
    found = [(indices[s : s + T], indices[s + 1 : s + T + 1]) for s in range(0, n, T)]
    return [(x, y[: len(x)]) for x, y in (found[:-1] or found)]


@mistake(
    "chunks",
    caught_by="too_short_a_text",
    says="A text without anything to predict gives an empty list without a word. Raise a ValueError that says so.",
)
def nothing_said_of_a_short_text(indices, T):
    return list(zip(indices[:-1].split(T), indices[1:].split(T), strict=True)) if len(indices) > 1 else []


@mistake(
    "chunks",
    caught_by="keeps_form_of_chunks",
    says="The indices are turned into floats. They stay int64: they name rows of U.",
)
def chunks_as_floats(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    return list(zip(indices[:-1].float().split(T), indices[1:].float().split(T), strict=True))


# --- The recurrent network -------------------------------------------------------------------------------------------


def _rnn(shapes, numbers):
    return {name: numbers(shape) if len(shape) == 2 else torch.zeros(shape) for name, shape in shapes.items()}


def _rnn_shapes(K, m):
    return {"U": (K, m), "W": (m, m), "V": (m, K), "b": (m,), "c": (K,)}


@mistake(
    "init_rnn",
    caught_by="standard_deviation_sigma",
    says="sigma is taken for the variance: its root is the standard deviation of the numbers. N(0, sigma²) has the "
    "standard deviation sigma.",
)
def sigma_as_variance(K, m, *, sigma, generator):
    return _rnn(_rnn_shapes(K, m), lambda shape: math.sqrt(sigma) * torch.randn(shape, generator=generator))


@mistake(
    "init_rnn",
    caught_by="standard_deviation_sigma",
    says="sigma² is used as the standard deviation. N(0, sigma²) names the variance; `sigma * torch.randn(…)`.",
)
def variance_as_std(K, m, *, sigma, generator):
    return _rnn(_rnn_shapes(K, m), lambda shape: sigma**2 * torch.randn(shape, generator=generator))


@mistake(
    "init_rnn",
    caught_by="gaussian",
    says="The numbers are uniform (`torch.rand`) and not Gaussian (`torch.randn`).",
)
def uniform_numbers(K, m, *, sigma, generator):
    return _rnn(_rnn_shapes(K, m), lambda shape: sigma * math.sqrt(12) * (torch.rand(shape, generator=generator) - 0.5))


@mistake(
    "init_rnn",
    caught_by="generator_decides",
    says="The generator is not used, so the numbers come from PyTorch's global state and no result can be repeated.",
)
def generator_ignored(K, m, *, sigma, generator):
    return _rnn(_rnn_shapes(K, m), lambda shape: sigma * torch.randn(shape))


@mistake(
    "init_rnn",
    caught_by="generator_decides",
    says="The generator is seeded inside, so every call gives the same numbers, whatever state it is in.",
)
def seeded_inside(K, m, *, sigma, generator):
    generator.manual_seed(400)
    return _rnn(_rnn_shapes(K, m), lambda shape: sigma * torch.randn(shape, generator=generator))


@mistake(
    "init_rnn",
    caught_by="generator_goes_on",
    says="Only the generator's seed is read, and the numbers come from elsewhere: asked a second time the generator "
    "gives the same parameters. Draw with `generator=generator`.",
)
def seed_of_the_generator_read(K, m, *, sigma, generator):
    own = torch.Generator().manual_seed(generator.initial_seed())
    return _rnn(_rnn_shapes(K, m), lambda shape: sigma * torch.randn(shape, generator=own))


@mistake("init_rnn", caught_by="biases_are_zero", says="The biases are random. They start at 0.")
def random_biases(K, m, *, sigma, generator):
    return {name: sigma * torch.randn(s, generator=generator) for name, s in _rnn_shapes(K, m).items()}


@mistake(
    "init_rnn",
    caught_by="keeps_form",
    says="The shapes are those of the column convention, (m, K) for U. Rows are examples here: x U needs U of shape "
    "(K, m), and h V needs V of shape (m, K).",
)
def column_shapes(K, m, *, sigma, generator):
    shapes = {"U": (m, K), "W": (m, m), "V": (K, m), "b": (m,), "c": (K,)}
    return _rnn(shapes, lambda shape: sigma * torch.randn(shape, generator=generator))


@mistake(
    "init_rnn",
    caught_by="numbers_of_their_own",
    says="All matrices are parts of the same random numbers, so they start out alike. Draw each by itself.",
)
def the_same_numbers(K, m, *, sigma, generator):
    numbers = sigma * torch.randn(max(K, m) * m, generator=generator)
    return _rnn(_rnn_shapes(K, m), lambda shape: numbers[: shape[0] * shape[1]].reshape(shape).clone())


@mistake(
    "init_rnn",
    caught_by="numbers_of_their_own",
    says="W is made symmetric, so every entry but those of the diagonal comes twice. Draw every entry by itself.",
)
def symmetric_recurrence(K, m, *, sigma, generator):
    params = _rnn(_rnn_shapes(K, m), lambda shape: sigma * torch.randn(shape, generator=generator))
    return params | {"W": (params["W"] + params["W"].T) / math.sqrt(2)}


@mistake(
    "init_rnn",
    caught_by="keeps_form",
    says="The parameters are float64. float32 is asked for, which is twice as fast here.",
)
def double_precision(K, m, *, sigma, generator):
    params = _rnn(_rnn_shapes(K, m), lambda shape: sigma * torch.randn(shape, generator=generator))
    return {name: p.double() for name, p in params.items()}


def _embedded(params, inputs):
    return params["U"][inputs] if inputs.ndim == 1 else inputs.to(params["U"].dtype) @ params["U"]


def _forward(params, inputs, targets, h0, *, W=None, b=True, c=True, f=torch.tanh):
    """A forward pass with the cache of the reference."""
    a = _embedded(params, inputs) + (params["b"] if b else 0)
    h, states = h0, [h0]
    for a_t in a:
        h = f(a_t + h @ (params["W"] if W is None else W))
        states.append(h)
    H = torch.stack(states)
    logits = H[1:] @ params["V"] + (params["c"] if c else 0)
    return F.cross_entropy(logits, targets), h, (inputs, targets, H, logits)


@mistake(
    "rnn_forward",
    caught_by=("state_after_many_steps", "loss_of_many_steps"),
    says="The state is multiplied with Wᵀ. Rows are states here: h W.",
)
def forward_with_transposed_W(params, inputs, targets, h0):
    return _forward(params, inputs, targets, h0, W=params["W"].T)


@mistake("rnn_forward", caught_by="bias_of_the_state", says="b is forgotten: a_t = x_t U + h_{t−1} W + b.")
def forward_without_b(params, inputs, targets, h0):
    return _forward(params, inputs, targets, h0, b=False)


@mistake("rnn_forward", caught_by="bias_of_the_logits", says="c is forgotten: the logits are h_t V + c.")
def forward_without_c(params, inputs, targets, h0):
    return _forward(params, inputs, targets, h0, c=False)


@mistake(
    "rnn_forward",
    caught_by="initial_state_counts",
    says="The sequence starts from zeros, though h0 is given. Between chunks the state is what the network remembers.",
)
def forward_from_zeros(params, inputs, targets, h0):
    return _forward(params, inputs, targets, torch.zeros_like(h0))


@mistake(
    "rnn_forward",
    caught_by="mean_over_time",
    says="The loss is summed over time. The mean is asked for, so that chunks of any length weigh alike.",
)
def forward_summed(params, inputs, targets, h0):
    loss, h, cache = _forward(params, inputs, targets, h0)
    return loss * len(targets), h, cache


@mistake(
    "rnn_forward",
    caught_by=("loss_of_many_steps", "mean_over_time"),
    says="Only the last step's prediction counts in the loss. Every state predicts its next character.",
)
def loss_of_the_last_step(params, inputs, targets, h0):
    _, h, cache = _forward(params, inputs, targets, h0)
    return F.cross_entropy(cache[3][-1:], targets[-1:]), h, cache


@mistake(
    "rnn_forward",
    caught_by="state_after_many_steps",
    says="h_last is the state after the first step. The next chunk goes on from the last one.",
)
def first_state_returned(params, inputs, targets, h0):
    loss, _, cache = _forward(params, inputs, targets, h0)
    return loss, cache[2][1], cache


@mistake(
    "rnn_forward",
    caught_by="keeps_form",
    says="All states come back, (T, m); h_last is the last of them, (m,).",
)
def all_states_returned(params, inputs, targets, h0):
    loss, _, cache = _forward(params, inputs, targets, h0)
    return loss, cache[2][1:], cache


@mistake(
    "rnn_forward",
    caught_by=(
        "initial_state_counts",
        "loss_of_one_step",
        "loss_of_many_steps",
        "bias_of_the_logits",
        "mean_over_time",
        "large_logits",
    ),
    says="The logits come from the state before each step, which has not seen the input yet: use h_t, not h_{t−1}.",
)
def logits_of_the_state_before(params, inputs, targets, h0):
    _, h, (_, _, H, _) = _forward(params, inputs, targets, h0)
    logits = H[:-1] @ params["V"] + params["c"]
    return F.cross_entropy(logits, targets), h, (inputs, targets, H, logits)


@mistake(
    "rnn_forward",
    caught_by="state_after_one_step",
    says="tanh is missing: h_t = tanh(a_t).",
)
def forward_without_tanh(params, inputs, targets, h0):
    return _forward(params, inputs, targets, h0, f=lambda a: a)


@mistake(
    "rnn_forward",
    caught_by="state_after_one_step",
    says="The state is squashed by a sigmoid; this network uses tanh.",
)
def forward_with_sigmoid(params, inputs, targets, h0):
    return _forward(params, inputs, targets, h0, f=torch.sigmoid)


@mistake(
    "rnn_forward",
    caught_by=("state_after_many_steps", "loss_of_many_steps"),
    says="The state is never carried from step to step: each step starts from h0 again, so it is not recurrent.",
)
def every_step_from_h0(params, inputs, targets, h0):
    H = torch.tanh(_embedded(params, inputs) + params["b"] + h0 @ params["W"])
    logits = H @ params["V"] + params["c"]
    return F.cross_entropy(logits, targets), H[-1], (inputs, targets, torch.cat([h0[None], H]), logits)


@mistake(
    "rnn_forward",
    caught_by="indices_or_one_hot_rows",
    says="One-hot rows are not understood: the inputs may be one-hot rows (T, K) too. Look at `inputs.ndim`.",
)
def only_indices(params, inputs, targets, h0):
    if inputs.ndim == 2:
        inputs = inputs[:, 0].long()
    return _forward(params, inputs, targets, h0)


@mistake(
    "rnn_forward",
    caught_by="large_logits",
    says="−log(softmax) overflows: exp of a logit of thousands is infinite, and log of a probability of 0 too. Use "
    "log_softmax or F.cross_entropy.",
)
def forward_overflows(params, inputs, targets, h0):
    _, h, cache = _forward(params, inputs, targets, h0)
    e = torch.exp(cache[3])
    p = e / e.sum(1, keepdim=True)
    return -torch.log(p[torch.arange(len(targets)), targets]).mean(), h, cache


@mistake(
    "rnn_forward",
    caught_by="large_logits",
    says="The largest logit of all steps is subtracted, so that at a step whose logits are all thousands below "
    "it every exp is 0 and the logarithm −∞. Each step has its own largest: `amax(1, keepdim=True)`, or "
    "F.cross_entropy.",
)
def largest_of_all_steps(params, inputs, targets, h0):
    _, h, cache = _forward(params, inputs, targets, h0)
    shifted = cache[3] - cache[3].max()
    log_p = shifted - torch.log(torch.exp(shifted).sum(1, keepdim=True))
    return -log_p[torch.arange(len(targets)), targets].mean(), h, cache


@mistake(
    "rnn_forward",
    caught_by=("indices_or_one_hot_rows", "keeps_form", "leaves_arguments_alone", "takes_any_layout"),
    says="Indices are not understood, only one-hot rows: the inputs may be indices (T,) too. Look at `inputs.ndim`.",
)
def only_one_hot_rows(params, inputs, targets, h0):
    inputs.to(h0.dtype) @ params["U"]
    return _forward(params, inputs, targets, h0)


@mistake(
    "rnn_forward",
    caught_by="one_hot_rows_of_another_dtype",
    says="One-hot rows are multiplied as they come, which fails where they are float32 and the parameters "
    "float64 (or the other way round): `inputs.to(U.dtype)`.",
)
def rows_as_they_come(params, inputs, targets, h0):
    if inputs.ndim == 2:
        inputs @ params["U"]
    return _forward(params, inputs, targets, h0)


@mistake(
    "rnn_forward",
    caught_by="indices_or_one_hot_rows",
    says="Which axis of the one-hot rows is time is guessed from their size. With as many steps as characters that "
    "goes wrong: they are always (T, K).",
)
def rows_turned_by_their_size(params, inputs, targets, h0):
    K = len(params["c"])
    return _forward(params, inputs.T if inputs.ndim == 2 and len(inputs) == K else inputs, targets, h0)


@mistake(
    "rnn_forward",
    caught_by="one_hot_rows_of_another_dtype",
    says="U is converted to the dtype of the one-hot rows. The parameters decide the dtype: `inputs.to(U.dtype)`.",
)
def parameters_follow_the_rows(params, inputs, targets, h0):
    if inputs.ndim == 2:
        a = inputs @ params["U"].to(inputs.dtype)
        torch.tanh(a[0] + h0 @ params["W"]) @ params["W"]
        params = {**params, "U": params["U"].to(inputs.dtype).to(params["U"].dtype)}
    return _forward(params, inputs, targets, h0)


@mistake(
    "rnn_forward",
    caught_by=("loss_of_one_step", "loss_of_many_steps", "large_logits"),
    says="F.cross_entropy is given probabilities. It takes logits and applies the softmax itself, so here it is "
    "applied twice.",
)
def softmax_twice(params, inputs, targets, h0):
    _, h, cache = _forward(params, inputs, targets, h0)
    return F.cross_entropy(torch.softmax(cache[3], 1), targets), h, cache


@mistake(
    "rnn_forward",
    caught_by="leaves_arguments_alone",
    says="h0 is changed: `h += …` or `h.copy_(…)` writes into the caller's state. Make a new tensor at each step.",
)
def state_changed_in_place(params, inputs, targets, h0):
    loss, h, cache = _forward(params, inputs, targets, h0.clone())
    h0.copy_(h)
    return loss, h, cache


@mistake(
    "rnn_forward",
    caught_by="keeps_form",
    says="The loss is a Python float. A 0-d tensor is asked for.",
)
def forward_loss_as_float(params, inputs, targets, h0):
    loss, h, cache = _forward(params, inputs, targets, h0)
    return loss.item(), h, cache


@mistake(
    "rnn_forward",
    caught_by="smallest_sizes",
    says="`squeeze()` removes every axis of length 1, also that of a single unit. Name the axis, or do without.",
)
def states_squeezed(params, inputs, targets, h0):
    _, h, (_, _, H, _) = _forward(params, inputs, targets, h0)
    H = H.squeeze()
    logits = H[1:] @ params["V"] + params["c"]
    return F.cross_entropy(logits, targets), h, (inputs, targets, H, logits)


def _backward(params, cache, *, W=None, slope=None, reach=None, H_before=None, divide=True):
    """A backward pass; `reach(grad_a, t)` is what comes back from step t + 1 before the multiplication with W."""
    inputs, targets, H, logits = cache
    T = len(targets)
    G = torch.softmax(logits, 1) - F.one_hot(targets, logits.shape[1])
    G = G / T if divide else G
    W = params["W"].T if W is None else W
    slope = 1 - H[1:] ** 2 if slope is None else slope
    grad_a, A = torch.zeros_like(H[0]), torch.zeros_like(H[1:])
    for t in reversed(range(T)):
        back = grad_a if reach is None else reach(grad_a, t)
        grad_a = (G[t] @ params["V"].T + back @ W) * slope[t]
        A[t] = grad_a
    X = F.one_hot(inputs, logits.shape[1]).to(A.dtype) if inputs.ndim == 1 else inputs.to(A.dtype)
    before = H[:-1] if H_before is None else H_before
    return {"U": X.T @ A, "W": before.T @ A, "V": H[1:].T @ G, "b": A.sum(0), "c": G.sum(0)}


@mistake(
    "rnn_backward",
    caught_by=("b_through_time", "W_through_time", "U_through_time", "long_sequences"),
    says="The gradient goes back through one step only: what later steps owe to a state is left out. Go through the "
    "steps from the last to the first, and add what comes from step t + 1 through W. (The loss may even be lower "
    "without, and yet the network cannot learn what it should remember.)",
)
def one_step_only(params, cache):
    return _backward(params, cache, reach=lambda grad_a, t: torch.zeros_like(grad_a))


@mistake(
    "rnn_backward",
    caught_by="b_through_time",
    says="What comes back from the next step is added after the multiplication with tanh′. It reaches the state h_t, "
    "so it has to pass tanh′ too: (∂L/∂h_t from the logits + from step t + 1) · (1 − h_t²).",
)
def added_after_the_slope(params, cache):
    inputs, targets, H, logits = cache
    G = (torch.softmax(logits, 1) - F.one_hot(targets, logits.shape[1])) / len(targets)
    grad_a, A = torch.zeros_like(H[0]), torch.zeros_like(H[1:])
    for t in reversed(range(len(targets))):
        grad_a = (G[t] @ params["V"].T) * (1 - H[t + 1] ** 2) + grad_a @ params["W"].T
        A[t] = grad_a
    X = F.one_hot(inputs, logits.shape[1]).to(A.dtype) if inputs.ndim == 1 else inputs.to(A.dtype)
    return {"U": X.T @ A, "W": H[:-1].T @ A, "V": H[1:].T @ G, "b": A.sum(0), "c": G.sum(0)}


@mistake(
    "rnn_backward",
    caught_by=("gradient_of_V", "b_through_time", "U_through_time", "mean_over_time", "long_sequences"),
    says="The gradients are assigned at every step, so only those of the first step remain. Every step uses the same "
    "parameters: add up (`+=`).",
)
def assigned_not_added(params, cache):
    inputs, targets, H, logits = cache
    full = _backward(params, cache)
    G = (torch.softmax(logits, 1) - F.one_hot(targets, logits.shape[1])) / len(targets)
    first = _backward_rows(params, cache, G)[0]
    x = F.one_hot(inputs, logits.shape[1]).to(H.dtype)[0] if inputs.ndim == 1 else inputs[0]
    outer = {"U": torch.outer(x, first), "W": torch.outer(H[0], first), "V": torch.outer(H[1], G[0])}
    return {**full, **outer, "b": first, "c": G[0]}


def _backward_rows(params, cache, G):
    """The gradients with respect to a_1 … a_T, (T, m)."""
    _, _, H, _ = cache
    grad_a, rows = torch.zeros_like(H[0]), []
    for t in reversed(range(len(G))):
        grad_a = (G[t] @ params["V"].T + grad_a @ params["W"].T) * (1 - H[t + 1] ** 2)
        rows.append(grad_a)
    return torch.stack(rows[::-1])


@mistake(
    "rnn_backward",
    caught_by=("b_through_time", "mean_over_time"),
    says="The gradient of b is assigned at every step, so only that of the first step remains: add up (`+=`).",
)
def b_assigned(params, cache):
    _, targets, _, logits = cache
    G = (torch.softmax(logits, 1) - F.one_hot(targets, logits.shape[1])) / len(targets)
    return {**_backward(params, cache), "b": _backward_rows(params, cache, G)[0]}


@mistake(
    "rnn_backward",
    caught_by=("one_step_back", "b_through_time"),
    says="tanh′ is computed from a, as 1 − a². In terms of the state it is 1 − h²; in terms of a, 1 − tanh²(a).",
)
def slope_of_a(params, cache):
    _, _, H, _ = cache
    return _backward(params, cache, slope=1 - torch.atanh(H[1:].clamp(-1 + 1e-12, 1 - 1e-12)) ** 2)


@mistake(
    "rnn_backward",
    caught_by=("one_step_back", "b_through_time"),
    says="tanh′ is missing: the gradient with respect to a_t is that with respect to h_t times 1 − h_t².",
)
def slope_missing(params, cache):
    return _backward(params, cache, slope=torch.ones_like(cache[2][1:]))


@mistake(
    "rnn_backward",
    caught_by=("one_step_back", "b_through_time", "W_through_time", "U_through_time", "long_sequences"),
    says="tanh′ is taken as h (1 − h), which is the sigmoid's. That of tanh is 1 − h².",
)
def slope_of_a_sigmoid(params, cache):
    H = cache[2][1:]
    return _backward(params, cache, slope=H * (1 - H))


@mistake(
    "rnn_backward",
    caught_by=("one_step_back", "b_through_time", "mean_over_time"),
    says="tanh′ is taken at the state before, 1 − h_{t−1}²; a_t led to h_t.",
)
def slope_of_the_step_before(params, cache):
    return _backward(params, cache, slope=1 - cache[2][:-1] ** 2)


@mistake(
    "rnn_backward",
    caught_by=("b_through_time", "W_through_time", "U_through_time", "long_sequences"),
    says="W is used where Wᵀ is needed: forward the state was multiplied with W, so back the gradient is with Wᵀ.",
)
def W_for_its_transpose(params, cache):
    return _backward(params, cache, W=params["W"])


@mistake(
    "rnn_backward",
    caught_by=("initial_state_in_the_gradient_of_W", "W_through_time", "long_sequences"),
    says="The gradient of W is built with h_t. W met the state before the step, h_{t−1}, and at the first step h0.",
)
def state_after_for_state_before(params, cache):
    return _backward(params, cache, H_before=cache[2][1:])


@mistake(
    "rnn_backward",
    caught_by="initial_state_in_the_gradient_of_W",
    says="The first step's part of the gradient of W uses zeros for the state before it. That state is h0, which a "
    "chunk takes over from the one before.",
)
def zeros_for_h0(params, cache):
    H = cache[2]
    return _backward(params, cache, H_before=torch.cat([torch.zeros_like(H[:1]), H[1:-1]]))


@mistake(
    "rnn_backward",
    caught_by="mean_over_time",
    says="The gradients are those of the sum over time. The loss is a mean: divide p − y by T.",
)
def gradients_of_the_sum(params, cache):
    return _backward(params, cache, divide=False)


@mistake(
    "rnn_backward",
    caught_by="gradient_of_V",
    says="The sign is flipped: the gradient of the cross-entropy with respect to the logits is p − y, not y − p.",
)
def sign_flipped(params, cache):
    return {name: -grad for name, grad in _backward(params, cache).items()}


@mistake(
    "rnn_backward",
    caught_by="long_sequences",
    says="The gradient goes back through the last few steps only. All T steps of the sequence are asked for.",
)
def truncated_after_ten_steps(params, cache):
    inputs, targets, H, logits = cache
    T = len(targets)
    G = (torch.softmax(logits, 1) - F.one_hot(targets, logits.shape[1])) / T
    A = torch.zeros_like(H[1:])
    for t in range(T):
        grad_a = (G[t] @ params["V"].T) * (1 - H[t + 1] ** 2)
        for s in range(t, max(-1, t - 10), -1):
            A[s] += grad_a
            if s > 0:
                grad_a = (grad_a @ params["W"].T) * (1 - H[s] ** 2)
    X = F.one_hot(inputs, logits.shape[1]).to(A.dtype) if inputs.ndim == 1 else inputs.to(A.dtype)
    return {"U": X.T @ A, "W": H[:-1].T @ A, "V": H[1:].T @ G, "b": A.sum(0), "c": G.sum(0)}


@mistake(
    "rnn_backward",
    caught_by="not_clipped",
    says="The gradients are clipped here already. They are to come back as they are: `clip_gradients` clips them.",
)
def clipped_inside(params, cache):
    return {name: grad.clamp(-5, 5) for name, grad in _backward(params, cache).items()}


@mistake(
    "rnn_backward",
    caught_by=("gradient_of_V", "mean_over_time"),
    says="The gradient of V is built with h_{t−1}. The logits of step t came from h_t.",
)
def V_from_the_state_before(params, cache):
    _, targets, H, logits = cache
    G = (torch.softmax(logits, 1) - F.one_hot(targets, logits.shape[1])) / len(targets)
    return {**_backward(params, cache), "V": H[:-1].T @ G}


@mistake(
    "rnn_backward",
    caught_by=("U_through_time", "mean_over_time", "long_sequences"),
    says="A character that occurs several times in the sequence has only one step's gradient: `grad_U[inputs] = …` "
    "overwrites. Add up with `index_add_`, or multiply with the one-hot rows.",
)
def repeated_characters_overwritten(params, cache):
    inputs, targets, _H, logits = cache
    G = (torch.softmax(logits, 1) - F.one_hot(targets, logits.shape[1])) / len(targets)
    rows = _backward_rows(params, cache, G)
    grad_U = torch.zeros_like(params["U"])
    for t, index in enumerate(inputs.tolist() if inputs.ndim == 1 else inputs.argmax(1).tolist()):
        grad_U[index] = rows[t]
    return {**_backward(params, cache), "U": grad_U}


@mistake(
    "rnn_backward",
    caught_by=("gradient_of_c", "one_step_back", "b_through_time"),
    says="The gradients of the biases are forgotten: they are the sums over time of those with respect to a_t and to "
    "the logits.",
)
def biases_without_gradient(params, cache):
    grads = _backward(params, cache)
    return {**grads, "b": torch.zeros_like(grads["b"]), "c": torch.zeros_like(grads["c"])}


@mistake(
    "rnn_backward",
    caught_by=("gradient_of_c", "b_through_time", "mean_over_time"),
    says="The biases' gradients are means over time. They are sums: every step added the same b and c, and the "
    "division by T is in p − y already.",
)
def biases_as_means(params, cache):
    grads, T = _backward(params, cache), len(cache[1])
    return {**grads, "b": grads["b"] / T, "c": grads["c"] / T}


@mistake(
    "rnn_backward",
    caught_by=("gradient_of_V", "mean_over_time", "long_sequences"),
    says="The last step is left out: `range(T − 1)` ends at T − 2.",
)
def last_step_left_out(params, cache):
    inputs, targets, H, logits = cache
    if len(targets) == 1:
        return _backward(params, cache)
    grads = _backward(params, (inputs[:-1], targets[:-1], H[:-1], logits[:-1]))
    scale = (len(targets) - 1) / len(targets)
    return {name: scale * grad for name, grad in grads.items()}


@mistake(
    "rnn_backward",
    caught_by="every_pass_has_its_own_cache",
    says="The cache is emptied while it is read (`pop`), so it serves only once.",
)
def cache_used_up(params, cache):
    grads = _backward(params, cache)
    cache[3].zero_()
    return grads


@mistake(
    "rnn_backward",
    caught_by=("inputs_of_one_step", "U_through_time", "long_sequences"),
    says="The gradient of U stands in the rows of the targets. A row of U was picked by the input.",
)
def rows_of_the_targets(params, cache):
    _inputs, targets, H, logits = cache
    return {**_backward(params, cache), "U": _backward(params, (targets, targets, H, logits))["U"]}


@mistake(
    "rnn_backward",
    caught_by="indices_or_one_hot_rows",
    says="For inputs given as one-hot rows the gradient of U is left 0. It is Xᵀ times the gradients of the a_t.",
)
def no_U_for_one_hot_rows(params, cache):
    grads = _backward(params, cache)
    return grads if cache[0].ndim == 1 else {**grads, "U": torch.zeros_like(grads["U"])}


@mistake(
    "rnn_backward",
    caught_by="one_hot_rows_of_another_dtype",
    says="One-hot rows are multiplied as they came, which fails where they are float32 and the rest float64 (or the "
    "other way round): `inputs.to(Delta.dtype)`.",
)
def rows_as_they_came(params, cache):
    if cache[0].ndim == 2:
        cache[0].T @ cache[2][1:]
    return _backward(params, cache)


# --- Training --------------------------------------------------------------------------------------------------------


@mistake(
    "clip_gradients",
    caught_by=("beyond_the_limit", "within_the_limit", "any_size_of_gradient"),
    says="The gradients are scaled by their norm, so entries within the limit shrink as well. Clip every entry by "
    "itself.",
)
def clipped_by_norm(grads, limit):
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads.values()))
    return {name: g * min(1.0, limit / norm) for name, g in grads.items()}


@mistake(
    "clip_gradients",
    caught_by=("beyond_the_limit", "within_the_limit"),
    says="Negative entries are cut off at 0: clip to [−limit, limit].",
)
def clipped_from_zero(grads, limit):
    return {name: g.clamp(0, limit) for name, g in grads.items()}


@mistake(
    "clip_gradients",
    caught_by=("beyond_the_limit", "every_gradient_is_clipped", "any_size_of_gradient"),
    says="Entries below −limit are left as they are: clip on both sides.",
)
def clipped_from_above_only(grads, limit):
    return {name: g.clamp(max=limit) for name, g in grads.items()}


@mistake(
    "clip_gradients",
    caught_by="every_gradient_is_clipped",
    says="Only the gradient of W is clipped. Every tensor's entries are.",
)
def only_W_clipped(grads, limit):
    return {name: g.clamp(-limit, limit) if name == "W" else g for name, g in grads.items()}


@mistake(
    "clip_gradients",
    caught_by="leaves_arguments_alone",
    says="The gradients are clipped in place, in the caller's dict. Return a new dict of new tensors.",
)
def clipped_in_place(grads, limit):
    for g in grads.values():
        g.clamp_(-limit, limit)
    return grads


@mistake(
    "clip_gradients",
    caught_by=("beyond_the_limit", "every_gradient_is_clipped"),
    says="Entries beyond the limit are set to 0. They are to become ±limit, which keeps their direction.",
)
def large_entries_set_to_zero(grads, limit):
    return {name: torch.where(g.abs() > limit, torch.zeros_like(g), g) for name, g in grads.items()}


@mistake(
    "clip_by_norm",
    caught_by=("norm_of_all_together", "one_factor_for_all"),
    says="Every tensor is scaled by a norm of its own, so they no longer point where they did. One factor for all.",
)
def every_tensor_by_its_own_norm(grads, max_norm):
    return {name: g * min(1.0, max_norm / max(float(g.norm()), 1e-300)) for name, g in grads.items()}


@mistake(
    "clip_by_norm",
    caught_by=("small_gradients_stay", "just_below_max_norm"),
    says="The gradients are always scaled to max_norm, small ones blown up: the factor is min(1, max_norm / norm).",
)
def always_scaled(grads, max_norm):
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads.values()))
    return {name: g * (max_norm / norm if norm else 1.0) for name, g in grads.items()}


@mistake(
    "clip_by_norm",
    caught_by="zero_stays_zero",
    says="A norm of 0 is divided by, which makes NaN of gradients that are all zero.",
)
def zero_divided_by_zero(grads, max_norm):
    norm = torch.sqrt(sum((g.double() ** 2).sum() for g in grads.values()))
    factor = torch.where(norm >= max_norm, max_norm / norm, norm / norm)
    return {name: (g * factor).to(g.dtype) for name, g in grads.items()}


@mistake(
    "clip_by_norm",
    caught_by="norm_of_all_together",
    says="The norms of the tensors are added. The norm of all together is the root of the sum of their squares.",
)
def norms_added(grads, max_norm):
    norm = sum(float(g.double().norm()) for g in grads.values())
    return {name: g * (max_norm / norm if norm > max_norm else 1.0) for name, g in grads.items()}


@mistake(
    "clip_by_norm",
    caught_by=("norm_of_all_together", "tiny_gradients", "just_below_max_norm"),
    says="The root is missing: the sum of squares is the square of the norm.",
)
def root_missing(grads, max_norm):
    norm = sum(float((g.double() ** 2).sum()) for g in grads.values())
    return {name: g * (max_norm / norm if norm > max_norm else 1.0) for name, g in grads.items()}


@mistake(
    "clip_by_norm",
    caught_by="tiny_gradients",
    says="A small number is added to the norm, which shrinks gradients too much where the norm is small itself. Ask "
    "whether the norm exceeds max_norm instead.",
)
def epsilon_in_the_norm(grads, max_norm):
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads.values()))
    return {name: g * min(1.0, max_norm / (norm + 1e-6)) for name, g in grads.items()}


@mistake(
    "clip_by_norm",
    caught_by=("norm_of_all_together", "one_factor_for_all", "tiny_gradients"),
    says="Every entry is clipped by itself, which turns the direction. One factor for all keeps it.",
)
def clipped_by_value(grads, max_norm):
    return {name: g.clamp(-max_norm, max_norm) for name, g in grads.items()}


@mistake(
    "clip_by_norm",
    caught_by="leaves_arguments_alone",
    says="The gradients are scaled in place, in the caller's dict. Return a new dict of new tensors.",
)
def scaled_in_place(grads, max_norm):
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads.values()))
    for g in grads.values():
        g.mul_(max_norm / norm if norm > max_norm else 1.0)
    return grads


@mistake(
    "adagrad_step",
    caught_by="eps_outside_the_root",
    says="eps stands under the root. torch.optim.Adagrad adds it outside: √m + eps.",
)
def eps_under_the_root(theta, grad, state, *, lr, eps):
    m = grad**2 if state is None else state + grad**2
    return theta - lr * grad / torch.sqrt(m + eps), m


@mistake(
    "adagrad_step",
    caught_by="squares_add_up",
    says="The sum of squares starts anew at every step, so all steps have the same size. Return it as the state and "
    "add to the one you are given.",
)
def sum_starts_anew(theta, grad, state, *, lr, eps):
    m = grad**2
    return theta - lr * grad / (m.sqrt() + eps), m


@mistake(
    "adagrad_step",
    caught_by="squares_add_up",
    says="The gradients are added up, not their squares, so that they cancel.",
)
def gradients_added(theta, grad, state, *, lr, eps):
    m = grad.abs() if state is None else (state + grad).abs()
    return theta - lr * grad / (m + eps), m


@mistake(
    "adagrad_step",
    caught_by=("first_step", "squares_add_up", "eps_outside_the_root"),
    says="The root is missing: the gradient is divided by the root of the sum of the squares.",
)
def division_by_the_sum(theta, grad, state, *, lr, eps):
    m = grad**2 if state is None else state + grad**2
    return theta - lr * grad / (m + eps), m


@mistake(
    "adagrad_step",
    caught_by=("first_step", "squares_add_up", "eps_outside_the_root"),
    says="The step divides by the sum before this gradient is added to it, which at the first step is 0.",
)
def step_before_the_sum(theta, grad, state, *, lr, eps):
    m = torch.zeros_like(grad) if state is None else state
    return theta - lr * grad / (m.sqrt() + eps), m + grad**2


@mistake(
    "adagrad_step",
    caught_by=("first_step", "squares_add_up", "eps_outside_the_root"),
    says="The squares are averaged with weights .9 and .1, which is RMSProp. AdaGrad adds them up.",
)
def averaged_squares(theta, grad, state, *, lr, eps):
    m = 0.1 * grad**2 if state is None else 0.9 * state + 0.1 * grad**2
    return theta - lr * grad / (m.sqrt() + eps), m


@mistake("adagrad_step", caught_by="first_step", says="The step goes up the gradient: theta − lr · …, not +.")
def step_upwards(theta, grad, state, *, lr, eps):
    m = grad**2 if state is None else state + grad**2
    return theta + lr * grad / (m.sqrt() + eps), m


@mistake(
    "adagrad_step",
    caught_by="states_are_values",
    says="The state is changed in place (`state += …`), so the one that the caller still holds is another now. Make "
    "a new one.",
)
def sum_changed_in_place(theta, grad, state, *, lr, eps):
    if state is None:
        state = torch.zeros_like(grad)
    state += grad**2
    return theta - lr * grad / (state.sqrt() + eps), state


@mistake(
    "adagrad_step",
    caught_by="leaves_arguments_alone",
    says="theta is changed in place (`theta -= …`): the caller's parameters change. Return a new tensor.",
)
def theta_changed_in_place(theta, grad, state, *, lr, eps):
    m = grad**2 if state is None else state + grad**2
    theta -= lr * grad / (m.sqrt() + eps)
    return theta, m


@mistake(
    "adagrad_step",
    caught_by=("first_step", "squares_add_up", "eps_outside_the_root"),
    says="One sum is kept for the whole tensor. Every entry has a sum of its own, and so a step size of its own.",
)
def one_sum_for_all(theta, grad, state, *, lr, eps):
    m = (grad**2).sum() if state is None else state + (grad**2).sum()
    return theta - lr * grad / (m.sqrt() + eps), m


@mistake(
    "adagrad_step",
    caught_by=("eps_outside_the_root", "no_gradient_no_step"),
    says="eps is forgotten, so an entry whose gradient has always been 0 is divided by 0 and becomes NaN.",
)
def eps_forgotten(theta, grad, state, *, lr, eps):
    m = grad**2 if state is None else state + grad**2
    return theta - lr * grad / m.sqrt(), m


@mistake(
    "adagrad_step",
    caught_by="any_shape",
    says="The rows of the tensor are gone through in a loop, which a single number has not. Whole tensors need none.",
)
def row_by_row(theta, grad, state, *, lr, eps):
    m = grad**2 if state is None else state + grad**2
    return torch.stack([t - lr * g / (r.sqrt() + eps) for t, g, r in zip(theta, grad, m, strict=True)]), m


@mistake(
    "smooth_loss",
    caught_by="mostly_the_previous",
    says="The weights are swapped: .999 belongs to the previous value, so that the curve is smooth.",
)
def weights_swapped(previous, loss):
    return loss if previous is None else 0.001 * previous + 0.999 * loss


@mistake(
    "smooth_loss",
    caught_by="first_loss_as_it_is",
    says="The smoothed loss starts at 0, so for thousands of updates it only shows how it climbs from there. Start at "
    "the first loss.",
)
def started_at_zero(previous, loss):
    return 0.999 * (previous or 0.0) + 0.001 * loss


@mistake(
    "smooth_loss",
    caught_by="zero_is_a_value",
    says="`if not previous` takes a previous value of 0 for none at all. Ask `previous is None`.",
)
def zero_taken_for_none(previous, loss):
    if not previous:
        return loss
    return 0.999 * previous + 0.001 * loss


@mistake(
    "smooth_loss",
    caught_by="loss_of_zero",
    says="A loss of 0 is taken for none, and the previous value is returned as it was. 0 is a loss like any other.",
)
def loss_of_zero_ignored(previous, loss):
    if previous is None:
        return loss
    return 0.999 * previous + 0.001 * loss if loss else previous


@mistake(
    "smooth_loss", caught_by="mostly_the_previous", says="The weights are .99 and .01; .999 and .001 are asked for."
)
def weights_of_a_hundred(previous, loss):
    return loss if previous is None else 0.99 * previous + 0.01 * loss


@mistake(
    "smooth_loss",
    caught_by="mostly_the_previous",
    says="The weights do not sum to 1: the previous value keeps all of its own.",
)
def weights_above_one(previous, loss):
    return loss if previous is None else previous + 0.001 * loss


# --- Synthesis -------------------------------------------------------------------------------------------------------


def _drawn(p, generator):
    return int(torch.multinomial(p, 1, generator=generator))


def _nucleus(p, top_p):
    """The probabilities with all outside the nucleus set to 0, renormalised."""
    if top_p >= 1:
        return p
    values, order = p.sort(descending=True)
    keep = values.cumsum(0) - values < top_p
    keep[0] = True
    q = torch.zeros_like(p)
    q[order[keep]] = values[keep]
    return q / q.sum()


def _sample(logits, temperature=1.0, top_p=1.0, generator=None, nucleus=_nucleus):
    """A right solution but for what is replaced."""
    if temperature < 1e-20:
        return int(logits.argmax())
    p = torch.softmax((logits.double() - logits.max()) / temperature, 0)
    return _drawn(nucleus(p, top_p), generator)


@mistake(
    "sample",
    caught_by=(
        "as_often_as_the_probability_says",
        "temperature_divides",
        "the_one_that_crosses_belongs",
        "temperature_before_top_p",
        "cold_and_hot",
    ),
    says="The most probable index is always taken. A text written so runs in circles: draw from the probabilities.",
)
def always_argmax(logits, *, temperature=1.0, top_p=1.0, generator):
    return int(logits.argmax())


@mistake(
    "sample",
    caught_by="nothing_outside_the_nucleus",
    says="top_p is taken for a share of the characters, not of the probability: how many are kept does not depend on "
    "how likely they are.",
)
def share_of_the_characters(logits, *, temperature=1.0, top_p=1.0, generator):
    def kept(p, top_p):
        values, order = p.sort(descending=True)
        q = torch.zeros_like(p)
        q[order[: max(1, int(top_p * len(p)))]] = values[: max(1, int(top_p * len(p)))]
        return q / q.sum()

    return _sample(logits, temperature, top_p, generator, kept)


@mistake(
    "sample",
    caught_by=("temperature_divides", "temperature_before_top_p", "cold_and_hot"),
    says="The logits are multiplied by the temperature. They are divided by it: heat evens out, cold sharpens.",
)
def temperature_multiplied(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    return _sample(logits * temperature, 1.0, top_p, generator)


@mistake(
    "sample",
    caught_by=("temperature_divides", "temperature_before_top_p"),
    says="The probabilities are divided by the temperature, and normalised again: it cancels. Divide the logits.",
)
def probabilities_divided(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    return _sample(logits, 1.0, top_p, generator)


@mistake(
    "sample",
    caught_by=("temperature_zero_is_argmax", "cold_and_hot"),
    says="A temperature of 0 is divided by. It means the most probable index: treat it by itself.",
)
def zero_temperature_divided_by(logits, *, temperature=1.0, top_p=1.0, generator):
    p = torch.softmax((logits.double() - logits.max()) / temperature, 0)
    return _drawn(_nucleus(p, top_p), generator)


@mistake(
    "sample",
    caught_by=("temperature_zero_is_argmax", "cold_and_hot"),
    says="Only a temperature of exactly 0 is treated by itself, and one of 1e-30 makes logits infinite: subtract the "
    "largest logit before dividing, or treat all tiny temperatures as 0.",
)
def tiny_temperature_overflows(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature == 0:
        return int(logits.argmax())
    e = torch.exp(logits.double() / temperature - 0 * logits.max())
    shifted = e if bool(torch.isfinite(e).all()) and temperature > 1e-3 else torch.exp(logits.float() / temperature)
    if temperature > 1e-3:
        shifted = torch.softmax(logits.double() / temperature, 0)
    return _drawn(_nucleus(shifted / shifted.sum(), top_p), generator)


@mistake(
    "sample",
    caught_by="logits_of_thousands",
    says="exp overflows for logits of thousands. Subtract the largest logit first, as softmax does.",
)
def logits_overflow(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    e = torch.exp(logits / temperature)
    return _drawn(_nucleus(e / e.sum(), top_p), generator)


@mistake(
    "sample",
    caught_by="the_one_that_crosses_belongs",
    says="The index with which the sum of probabilities crosses top_p is dropped. It belongs: without it the nucleus "
    "does not reach top_p.",
)
def crossing_index_dropped(logits, *, temperature=1.0, top_p=1.0, generator):
    def nucleus(p, top_p):
        if top_p >= 1:
            return p
        values, order = p.sort(descending=True)
        keep = values.cumsum(0) <= top_p
        keep[0] = True
        q = torch.zeros_like(p)
        q[order[keep]] = values[keep]
        return q

    return _sample(logits, temperature, top_p, generator, nucleus)


@mistake(
    "sample",
    caught_by=("nothing_outside_the_nucleus", "never_empty"),
    says="One index too many is kept: the nucleus ends with the index that reaches top_p.",
)
def one_index_too_many(logits, *, temperature=1.0, top_p=1.0, generator):
    def nucleus(p, top_p):
        if top_p >= 1:
            return p
        values, order = p.sort(descending=True)
        count = int((values.cumsum(0) < top_p).sum()) + 2
        q = torch.zeros_like(p)
        q[order[:count]] = values[:count]
        return q

    return _sample(logits, temperature, top_p, generator, nucleus)


@mistake(
    "sample",
    caught_by=("nothing_outside_the_nucleus", "never_empty"),
    says="All indices of a probability below top_p are kept. top_p bounds the sum of the largest probabilities, not "
    "each of them.",
)
def those_below_top_p(logits, *, temperature=1.0, top_p=1.0, generator):
    def nucleus(p, top_p):
        q = torch.where(p <= top_p, p, torch.zeros_like(p))
        return q if bool(q.sum() > 0) else p

    return _sample(logits, temperature, top_p, generator, nucleus)


@mistake(
    "sample",
    caught_by=("nothing_outside_the_nucleus", "the_one_that_crosses_belongs", "never_empty"),
    says="The probabilities are added up in the order of the indices. Sort them first: the nucleus is the smallest "
    "set, so it takes the largest.",
)
def nucleus_unsorted(logits, *, temperature=1.0, top_p=1.0, generator):
    def nucleus(p, top_p):
        if top_p >= 1:
            return p
        q = torch.where(p.cumsum(0) - p < top_p, p, torch.zeros_like(p))
        return q

    return _sample(logits, temperature, top_p, generator, nucleus)


@mistake(
    "sample",
    caught_by=(
        "as_often_as_the_probability_says",
        "temperature_divides",
        "nothing_outside_the_nucleus",
        "the_one_that_crosses_belongs",
        "never_empty",
        "logits_of_thousands",
        "as_often_in_float32",
    ),
    says="The place in the sorted order is returned, not the index that stands there: `order[place]`.",
)
def place_for_index(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    p = torch.softmax((logits.double() - logits.max()) / temperature, 0).sort(descending=True).values
    return _drawn(_nucleus(p, top_p), generator)


@mistake(
    "sample",
    caught_by="the_one_that_crosses_belongs",
    says="The nucleus is not renormalised: its probabilities sum to less than 1, and what is missing all goes to one "
    "index.",
)
def nucleus_not_renormalised(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    p = torch.softmax((logits.double() - logits.max()) / temperature, 0)
    values, order = p.sort(descending=True)
    keep = values.cumsum(0) - values < top_p
    u = torch.rand((), generator=generator, dtype=torch.float64)
    place = int((values[keep].cumsum(0) < u).sum())
    return int(order[min(place, max(int(keep.sum()) - 1, 0))])


@mistake(
    "sample",
    caught_by="temperature_before_top_p",
    says="The nucleus is found before the temperature is applied. First the logits are divided by the temperature.",
)
def nucleus_before_temperature(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    inside = _nucleus(torch.softmax(logits.double() - logits.max(), 0), top_p) > 0
    scaled = ((logits.double() - logits.max()) / temperature).masked_fill(~inside, -math.inf)
    return _drawn(torch.softmax(scaled, 0), generator)


@mistake(
    "sample",
    caught_by="never_empty",
    says="For a small top_p nothing is left, since not even the most probable index is below it. It always stays.",
)
def nucleus_empty(logits, *, temperature=1.0, top_p=1.0, generator):
    def nucleus(p, top_p):
        if top_p >= 1:
            return p
        values, order = p.sort(descending=True)
        count = int((values.cumsum(0) < top_p).sum())
        count += count > 0
        q = torch.zeros_like(p)
        q[order[:count]] = values[:count]
        return q

    return _sample(logits, temperature, top_p, generator, nucleus)


@mistake(
    "sample",
    caught_by="never_empty",
    says="top_p = 0 is taken for no top_p at all, and everything is kept. The nucleus of 0 is the most "
    "probable index alone.",
)
def no_nucleus_for_zero(logits, *, temperature=1.0, top_p=1.0, generator):
    return _sample(logits, temperature, top_p or 1.0, generator)


@mistake(
    "sample",
    caught_by="many_rare_ones",
    says="Characters of a probability below 0.02 are left out. With top_p = 1 all are kept: many rare ones together "
    "may be as likely as a common one.",
)
def rare_ones_dropped(logits, *, temperature=1.0, top_p=1.0, generator):
    def nucleus(p, top_p):
        p = _nucleus(p, top_p)
        return torch.where(p < 0.02, torch.zeros_like(p), p)

    return _sample(logits, temperature, top_p, generator, nucleus)


@mistake(
    "sample",
    caught_by="characters_that_never_come",
    says="The smallest logit is subtracted. Where one is −∞ that makes all others infinite, and then NaN: "
    "subtract the largest.",
)
def smallest_subtracted(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    return _drawn(_nucleus(torch.softmax((logits.double() - logits.double().min()) / temperature, 0), top_p), generator)


@mistake(
    "sample",
    caught_by=(
        "as_often_as_the_probability_says",
        "temperature_divides",
        "nothing_outside_the_nucleus",
        "the_one_that_crosses_belongs",
        "never_empty",
        "temperature_before_top_p",
        "logits_of_thousands",
        "cold_and_hot",
    ),
    says="The cumulative sum is searched with the comparison the wrong way round (`cdf <= u`), which takes the first "
    "index that is below the random number, not the first above it.",
)
def cumulative_sum_the_wrong_way(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    p = _nucleus(torch.softmax((logits.double() - logits.max()) / temperature, 0), top_p)
    u = torch.rand((), generator=generator, dtype=torch.float64)
    return int((p.cumsum(0) <= u).long().argmax())


@mistake(
    "sample",
    caught_by="generator_decides",
    says="The generator is not used, so the draws come from PyTorch's global state and no text can be repeated.",
)
def draws_without_the_generator(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    p = torch.softmax((logits.double() - logits.max()) / temperature, 0)
    return int(torch.multinomial(_nucleus(p, top_p), 1))


@mistake(
    "sample",
    caught_by="an_int_of_python",
    says="The result is a tensor. A Python int is asked for: `.item()`.",
)
def a_tensor_drawn(logits, *, temperature=1.0, top_p=1.0, generator):
    return torch.tensor(_sample(logits, temperature, top_p, generator))


@mistake(
    "sample",
    caught_by="leaves_arguments_alone",
    says="The logits are changed in place (`logits /= temperature`): the caller's tensor changes.",
)
def logits_divided_in_place(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-20:
        return int(logits.argmax())
    logits /= temperature
    return _sample(logits, 1.0, top_p, generator)


def _written(params, h0, start, n, temperature, top_p, generator, *, feed=True, carry=True):
    h, x, text = h0, start, []
    for _ in range(n):
        new = torch.tanh(params["U"][x] + h @ params["W"] + params["b"])
        text.append(_sample(new @ params["V"] + params["c"], temperature, top_p, generator))
        h, x = new if carry else h, text[-1] if feed else x
    return torch.tensor(text, dtype=torch.int64)


@mistake(
    "synthesize",
    caught_by="every_character_is_fed_back",
    says="Every step gets `start` as its input. What was written last is the next input.",
)
def always_feeds_start(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written(params, h0, start, n, temperature, top_p, generator, feed=False)


@mistake(
    "synthesize",
    caught_by="every_character_is_fed_back",
    says="Only the first step has an input; later ones get none (zeros). What was written last is the next input.",
)
def feeds_nothing_back(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    h, text, a = h0, [], params["U"][start]
    for _ in range(n):
        h = torch.tanh(a + h @ params["W"] + params["b"])
        text.append(_sample(h @ params["V"] + params["c"], temperature, top_p, generator))
        a = torch.zeros_like(a)
    return torch.tensor(text, dtype=torch.int64)


@mistake(
    "synthesize",
    caught_by="every_character_is_fed_back",
    says="What is fed back is the most probable character, not the one that was drawn and written.",
)
def feeds_the_argmax_back(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    h, x, text = h0, start, []
    for _ in range(n):
        h = torch.tanh(params["U"][x] + h @ params["W"] + params["b"])
        logits = h @ params["V"] + params["c"]
        text.append(_sample(logits, temperature, top_p, generator))
        x = int(logits.argmax())
    return torch.tensor(text, dtype=torch.int64)


@mistake(
    "synthesize",
    caught_by="the_state_is_carried",
    says="Every step starts from h0. The state of a step is where the next one starts.",
)
def every_character_from_h0(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written(params, h0, start, n, temperature, top_p, generator, carry=False)


@mistake(
    "synthesize",
    caught_by="the_state_is_carried",
    says="The text is written from a state of zeros, though h0 is given.",
)
def written_from_zeros(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written(params, torch.zeros_like(h0), start, n, temperature, top_p, generator)


@mistake(
    "synthesize",
    caught_by="start_is_no_part",
    says="`start` is the first character of the result. It is only the first input; the text begins with the answer.",
)
def start_included(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    text = _written(params, h0, start, n, temperature, top_p, generator)
    return torch.cat([torch.tensor([start]), text])[:n]


@mistake(
    "synthesize",
    caught_by=("start_is_no_part", "keeps_form"),
    says="The result is one character too long: `start` comes first, and n more follow.",
)
def start_and_n_more(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    text = _written(params, h0, start, n, temperature, top_p, generator)
    return torch.cat([torch.tensor([start]), text])


@mistake("synthesize", caught_by="temperature_is_handed_on", says="The temperature is not handed on to `sample`.")
def temperature_forgotten(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written(params, h0, start, n, 1.0, top_p, generator)


@mistake(
    "synthesize",
    caught_by="temperature_is_handed_on",
    says="The logits are divided by the temperature before `sample`, which divides them again.",
)
def temperature_twice(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    if temperature == 0:
        return _written(params, h0, start, n, temperature, top_p, generator)
    hotter = {**params, "V": params["V"] / temperature, "c": params["c"] / temperature}
    return _written(hotter, h0, start, n, temperature, top_p, generator)


@mistake(
    "synthesize",
    caught_by="no_characters",
    says="`torch.tensor([])` is float32, since nothing in an empty list says what it holds. Name the dtype, so that a "
    "text of no characters is int64 too.",
)
def text_of_nothing_as_floats(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return torch.tensor(_written(params, h0, start, n, temperature, top_p, generator).tolist())


@mistake("synthesize", caught_by="top_p_is_handed_on", says="top_p is not handed on to `sample`.")
def top_p_forgotten(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written(params, h0, start, n, temperature, 1.0, generator)


@mistake(
    "synthesize",
    caught_by=("characters_are_drawn", "temperature_is_handed_on"),
    says="The most probable character is always written. Draw from the probabilities.",
)
def writes_the_argmax(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written(params, h0, start, n, 0.0, top_p, generator)


@mistake(
    "synthesize",
    caught_by=("same_state_same_text", "generator_moves_on"),
    says="A generator of its own is made inside, so the text does not depend on the one that is given.",
)
def generator_of_its_own(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written(params, h0, start, n, temperature, top_p, torch.Generator().manual_seed(400))


@mistake(
    "synthesize",
    caught_by="leaves_arguments_alone",
    says="h0 is changed in place: writing a text must not change the state that training carries on.",
)
def h0_changed(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    text = _written(params, h0, start, n, temperature, top_p, generator)
    h0.copy_(torch.tanh(params["U"][start] + h0 @ params["W"] + params["b"]))
    return text


@mistake("synthesize", caught_by="keeps_form", says="The result is a list. An int64 tensor (n,) is asked for.")
def a_list_of_indices(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written(params, h0, start, n, temperature, top_p, generator).float()


@mistake(
    "synthesize",
    caught_by="the_state_is_carried",
    says="b is forgotten: h = tanh(x U + h W + b).",
)
def written_without_b(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    return _written({**params, "b": 0 * params["b"]}, h0, start, n, temperature, top_p, generator)


@mistake(
    "synthesize",
    caught_by=("keeps_form", "sure_networks"),
    says="The one-hot input is float64 whatever the parameters are, and with float32 ones nothing fits. Give new "
    "tensors the dtype of the parameters, or pick the row of U by its index.",
)
def double_rows(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    eye = torch.eye(len(params["c"]), dtype=torch.float64)
    eye @ params["U"]
    return _written(params, h0, start, n, temperature, top_p, generator)


def _clipped(grads, clip):
    return {name: g.clamp(-clip, clip) for name, g in grads.items()}


def _scaled(grads, clip):
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads.values()))
    return {name: g * min(1.0, clip / norm) for name, g in grads.items()}


def _only_W(grads, clip):
    return {name: g.clamp(-clip, clip) if name == "W" else g for name, g in grads.items()}


def _trained(params, indices, T, lr, clip, updates, on_update, **other):
    """A right solution but for what is replaced."""
    n = len(indices) - 1
    starts = list(range(0, n, T))
    starts = starts[: other.get("chunks", len)(starts)]
    clipped, eps, carry = other.get("clipped", _clipped), other.get("eps", 1e-10), other.get("carry", "last")
    params = dict(params)
    sums = {k: torch.zeros_like(v) for k, v in params.items()}
    h = torch.zeros_like(params["b"])
    for step in range(updates):
        s = starts[step % len(starts)]
        if step % other.get("reset_every", len(starts)) == 0 and other.get("reset", True):
            h = torch.zeros_like(h)
        if step % len(starts) == 0 and other.get("anew", False):
            sums = {k: torch.zeros_like(v) for k, v in params.items()}
        ahead = other.get("ahead", 1)
        inputs, targets = (
            indices[:-1][s : s + T],
            torch.cat([indices[ahead:], indices[:ahead]])[: len(indices) - 1][s : s + T],
        )
        h_before = h
        loss, h_last, cache = _forward(params, inputs, targets, h)
        h = {"last": h_last, "first": cache[2][1], "none": torch.zeros_like(h)}[carry]
        grads = clipped(_backward(params, cache), clip)
        new = {}
        for k, g in grads.items():
            sums[k] = sums[k] + g**2
            move = lr * (g / (sums[k].sqrt() + eps) if other.get("adaptive", True) else g)
            new[k] = params[k] - (move.clamp(-clip, clip) if other.get("clip_steps") else move)
        params = new
        if other.get("loss_after"):
            loss, _, _ = _forward(params, inputs, targets, h_before)
        if on_update is not None:
            on_update(step + other.get("first", 0), loss.item(), h_before if other.get("state_before") else h_last)
    return params


@mistake(
    "train_rnn",
    caught_by="state_is_carried_inside_a_pass",
    says="The state is not carried from chunk to chunk, so the network never remembers more than T characters.",
)
def state_not_carried(params, indices, *, T, lr, clip, updates, on_update=None):
    n, sums = len(indices) - 1, {k: torch.zeros_like(v) for k, v in params.items()}
    starts, params = list(range(0, n, T)), dict(params)
    for step in range(updates):
        s = starts[step % len(starts)]
        chunk = indices[:-1][s : s + T], indices[1:][s : s + T]
        loss, h, cache = _forward(params, *chunk, torch.zeros_like(params["b"]))
        for k, g in _clipped(_backward(params, cache), clip).items():
            sums[k] = sums[k] + g**2
            params[k] = params[k] - lr * g / (sums[k].sqrt() + 1e-10)
        if on_update is not None:
            on_update(step, loss.item(), h)
    return params


@mistake(
    "train_rnn",
    caught_by="zero_state_at_each_pass",
    says="The state goes on from the end of the text to its beginning. Every pass starts from zeros.",
)
def state_not_reset(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, reset=False)


@mistake(
    "train_rnn",
    caught_by="state_is_carried_inside_a_pass",
    says="The first state of a chunk is carried to the next. It goes on from the last one.",
)
def first_state_carried(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, carry="first")


@mistake(
    "train_rnn",
    caught_by="sums_of_squares_are_kept",
    says="AdaGrad's sums of squares start anew at each pass, which makes its steps large again. They are kept.",
)
def sums_anew_each_pass(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, anew=True)


@mistake(
    "train_rnn",
    caught_by="gradients_are_clipped_by_value",
    says="The gradients are scaled by their norm. They are clipped by value here, each entry to ±clip.",
)
def trained_with_clip_by_norm(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, clipped=_scaled)


@mistake("train_rnn", caught_by="gradients_are_clipped_by_value", says="The gradients are not clipped.")
def trained_without_clipping(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, clipped=lambda grads, clip: grads)


@mistake(
    "train_rnn",
    caught_by="gradients_are_clipped_by_value",
    says="The step is clipped, not the gradient: the large gradient has gone into AdaGrad's sums by then.",
)
def steps_clipped(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(
        params, indices, T, lr, clip, updates, on_update, clipped=lambda grads, clip: grads, clip_steps=True
    )


@mistake(
    "train_rnn",
    caught_by="gradients_are_clipped_by_value",
    says="Only the gradient of W is clipped. Every entry of every gradient is.",
)
def trained_with_only_W_clipped(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, clipped=_only_W)


@mistake(
    "train_rnn",
    caught_by=("tail_is_included", "one_chunk_is_a_text"),
    says="The shorter chunk at the end of the text is left out.",
)
def trained_without_the_tail(params, indices, *, T, lr, clip, updates, on_update=None):
    whole = (len(indices) - 1) // T
    return _trained(params, indices, T, lr, clip, updates, on_update, chunks=lambda starts: whole)


@mistake(
    "train_rnn",
    caught_by="tail_is_a_chunk_like_others",
    says="The state is set to zero after the last whole chunk, so before the shorter one at the end: a pass "
    "has one chunk more than (N − 1) // T where T does not divide N − 1. Count the chunks.",
)
def state_lost_before_the_tail(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, reset_every=max((len(indices) - 1) // T, 1))


@mistake(
    "train_rnn",
    caught_by="loss_before_the_update",
    says="The loss reported is that after the update. Report the one that the update was computed from.",
)
def loss_after_the_update(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, loss_after=True)


@mistake(
    "train_rnn",
    caught_by="as_many_updates_as_asked_for",
    says="Steps are counted from 1. The first update is number 0.",
)
def steps_from_one(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, first=1)


@mistake(
    "train_rnn",
    caught_by="state_is_carried_inside_a_pass",
    says="The h reported is the state before the chunk. It is the chunk's last state.",
)
def state_before_the_chunk_reported(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, state_before=True)


@mistake(
    "train_rnn",
    caught_by=("adagrad", "sums_of_squares_are_kept", "small_eps"),
    says="Plain gradient descent is used. AdaGrad divides by the root of the sum of the squared gradients.",
)
def trained_without_adagrad(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, adaptive=False)


@mistake(
    "train_rnn",
    caught_by="as_many_updates_as_asked_for",
    says="One update too many is made: `updates` is their number, so the last is number updates − 1.",
)
def one_update_too_many(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates + 1, on_update)


@mistake(
    "train_rnn",
    caught_by="as_many_updates_as_asked_for",
    says="`updates` is taken for a number of passes over the text. It counts updates, one for each chunk.",
)
def updates_as_passes(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates * -(-(len(indices) - 1) // T), on_update)


@mistake(
    "train_rnn",
    caught_by=("chunks_in_order", "state_is_carried_inside_a_pass", "zero_state_at_each_pass", "tail_is_included"),
    says="Every update is about the first chunk of the text. Go on to the next one.",
)
def always_the_first_chunk(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, chunks=lambda starts: 1)


@mistake(
    "train_rnn",
    caught_by=("chunks_in_order", "tail_is_included"),
    says="The targets are the inputs themselves, so the network learns to repeat what it is given. The target is the "
    "next character.",
)
def trained_to_repeat(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, ahead=0)


@mistake(
    "train_rnn", caught_by="small_eps", says="eps is 1e-8 and not 1e-10, which shortens steps along tiny gradients."
)
def larger_eps(params, indices, *, T, lr, clip, updates, on_update=None):
    return _trained(params, indices, T, lr, clip, updates, on_update, eps=1e-8)


@mistake(
    "train_rnn",
    caught_by="leaves_arguments_alone",
    says="The parameters that were given are changed in place. Return new ones, so that a training can be repeated.",
)
def trained_in_place(params, indices, *, T, lr, clip, updates, on_update=None):
    new = _trained(params, indices, T, lr, clip, updates, on_update)
    for name, value in new.items():
        params[name].copy_(value)
    return params


@mistake(
    "train_rnn",
    caught_by="reports_of_plain_values",
    says="The loss reported is a tensor. Report a Python float: `loss.item()`.",
)
def loss_reported_as_tensor(params, indices, *, T, lr, clip, updates, on_update=None):
    report = None if on_update is None else lambda step, loss, h: on_update(step, torch.tensor(loss, dtype=h.dtype), h)
    return _trained(params, indices, T, lr, clip, updates, report)


# --- Gates: LSTM and GRU ---------------------------------------------------------------------------------------------


def _lstm(params, x, h, c, *, order="ifgo", g_of=torch.tanh, o_of=torch.sigmoid, add=0.0, squash=torch.tanh, b=True):
    """A step with the cache of the reference, right but for what is replaced."""
    z = x @ params["U"] + h @ params["W"] + (params["b"] if b else 0)
    parts = dict(zip(order, z.chunk(4), strict=True))
    i, f = torch.sigmoid(parts["i"]), torch.sigmoid(parts["f"] + add)
    g, o = g_of(parts["g"]), o_of(parts["o"])
    new = f * c + i * g
    s = squash(new)
    return o * s, new, (params, x, h, c, i, f, g, o, s)


@mistake(
    "lstm_step",
    caught_by=("input_and_candidate", "forget_gate"),
    says="The input and the forget gate are swapped: the blocks of z are i, f, g, o.",
)
def input_and_forget_swapped(params, x, h, c):
    return _lstm(params, x, h, c, order="figo")


@mistake(
    "lstm_step",
    caught_by=("input_and_candidate", "output_gate"),
    says="The candidate and the output gate are swapped: the blocks of z are i, f, g, o.",
)
def candidate_and_output_swapped(params, x, h, c):
    return _lstm(params, x, h, c, order="ifog")


@mistake("lstm_step", caught_by="output_gate", says="tanh is missing on the cell: h = o · tanh(c).")
def cell_not_squashed(params, x, h, c):
    return _lstm(params, x, h, c, squash=lambda c: c)


@mistake("lstm_step", caught_by="forget_gate", says="The cell state is not carried: c = f · c + i · g.")
def cell_not_carried(params, x, h, c):
    return _lstm(params, x, h, torch.zeros_like(c))


@mistake(
    "lstm_step", caught_by="forget_gate", says="The old cell state is added as a whole: the forget gate is missing."
)
def nothing_is_forgotten(params, x, h, c):
    _new_h, new, cache = _lstm(params, x, h, c)
    f = cache[5]
    new = new + (1 - f) * c
    return cache[7] * torch.tanh(new), new, (*cache[:-1], torch.tanh(new))


@mistake(
    "lstm_step", caught_by="input_and_candidate", says="The candidate g is squashed by a sigmoid. It goes through tanh."
)
def candidate_through_sigmoid(params, x, h, c):
    return _lstm(params, x, h, c, g_of=torch.sigmoid)


@mistake("lstm_step", caught_by="output_gate", says="The output gate goes through tanh. Gates are sigmoids.")
def output_gate_through_tanh(params, x, h, c):
    return _lstm(params, x, h, c, o_of=torch.tanh)


@mistake(
    "lstm_step",
    caught_by="forget_gate",
    says="1 is added to the forget gate's input. Some initialise its bias so; the step itself adds nothing.",
)
def forget_bias_added(params, x, h, c):
    return _lstm(params, x, h, c, add=1.0)


@mistake("lstm_step", caught_by="bias_takes_part", says="b is forgotten: z = x U + h W + b.")
def lstm_without_b(params, x, h, c):
    return _lstm(params, x, h, c, b=False)


@mistake("lstm_step", caught_by="state_takes_part", says="h is forgotten: z = x U + h W + b.")
def lstm_without_h(params, x, h, c):
    return _lstm({**params, "W": 0 * params["W"]}, x, h, c)


@mistake("lstm_step", caught_by="output_gate", says="The new h is made of the old cell state: h = o · tanh(new c).")
def output_of_the_old_cell(params, x, h, c):
    _, new, cache = _lstm(params, x, h, c)
    return cache[7] * torch.tanh(c), new, cache


@mistake(
    "lstm_step",
    caught_by="leaves_arguments_alone",
    says="c is changed in place (`c *= f`): the caller's state changes.",
)
def cell_changed_in_place(params, x, h, c):
    result = _lstm(params, x, h, c.clone())
    c.copy_(result[1])
    return result


@mistake(
    "lstm_step",
    caught_by=("input_and_candidate", "forget_gate", "output_gate", "saturated_gates"),
    says="c and h come back in the wrong order: h, c, cache.",
)
def cell_and_state_swapped(params, x, h, c):
    new_h, new, cache = _lstm(params, x, h, c)
    return new, new_h, cache


def _lstm_back(grad_h, grad_c, cache, **other):
    """A step back, right but for what is replaced."""
    params, x, h, c, i, f, g, o, s = cache
    through = grad_h * o * (1 - s**2) if other.get("through", True) else 0
    total = through + (grad_c if other.get("direct", True) else 0)
    slope = {"i": i * (1 - i), "f": f * (1 - f), "g": 1 - g**2, "o": o * (1 - o)} | other.get("slopes", {})
    z = {"i": total * g, "f": total * c, "g": total * i, "o": grad_h * s} | other.get("reach", lambda t: {})(total)
    grad_z = torch.cat([z[k] * slope[k] for k in other.get("order", "ifgo")])
    grads = {"U": torch.outer(x, grad_z), "W": torch.outer(h, grad_z), "b": grad_z}
    return grads, params["U"] @ grad_z, params["W"] @ grad_z, (total if other.get("old", True) else grad_c) * f


@mistake(
    "lstm_backward_step",
    caught_by=("gates_from_the_new_h", "gradient_of_the_old_c"),
    says="What reaches c through the new h is left out: h = o · tanh(c), so grad_h · o · (1 − tanh²c) is added to "
    "grad_c.",
)
def path_through_h_missing(grad_h, grad_c, cache):
    return _lstm_back(grad_h, grad_c, cache, through=False)


@mistake(
    "lstm_backward_step",
    caught_by=("gates_from_the_new_c", "gradient_of_the_old_c"),
    says="grad_c is left out: the new c also goes to the next step, and what comes back from there is added.",
)
def grad_c_left_out(grad_h, grad_c, cache):
    return _lstm_back(grad_h, grad_c, cache, direct=False)


@mistake(
    "lstm_backward_step",
    caught_by="gradient_of_the_old_c",
    says="The gradient of the old c is made of grad_c alone. It is that of the new c, with what comes from grad_h, "
    "times f.",
)
def old_c_from_grad_c_alone(grad_h, grad_c, cache):
    return _lstm_back(grad_h, grad_c, cache, old=False)


@mistake(
    "lstm_backward_step",
    caught_by=("gates_from_the_new_c", "gates_from_the_new_h"),
    says="The forget gate's gradient uses the new c. It multiplied the old one.",
)
def forget_gate_from_the_new_c(grad_h, grad_c, cache):
    _, _, _, c, i, f, g, _, _ = cache
    return _lstm_back(grad_h, grad_c, cache, reach=lambda total: {"f": total * (f * c + i * g)})


@mistake(
    "lstm_backward_step",
    caught_by=("gates_from_the_new_c", "gates_from_the_new_h"),
    says="i and g are mixed up: the gradient of i has the factor g, and that of g the factor i.",
)
def factors_mixed_up(grad_h, grad_c, cache):
    _, _, _, _, i, _, g, _, _ = cache
    return _lstm_back(grad_h, grad_c, cache, reach=lambda total: {"i": total * i, "g": total * g})


@mistake(
    "lstm_backward_step",
    caught_by=("gates_from_the_new_c", "gates_from_the_new_h"),
    says="The candidate's derivative is taken as a sigmoid's, g (1 − g). That of tanh is 1 − g².",
)
def sigmoid_slope_of_the_candidate(grad_h, grad_c, cache):
    g = cache[6]
    return _lstm_back(grad_h, grad_c, cache, slopes={"g": g * (1 - g)})


@mistake(
    "lstm_backward_step",
    caught_by=("gates_from_the_new_c", "gates_from_the_new_h"),
    says="The derivatives of the gates are missing: the gradient of z has σ (1 − σ) for i, f and o.",
)
def slopes_of_the_gates_missing(grad_h, grad_c, cache):
    return _lstm_back(grad_h, grad_c, cache, slopes=dict.fromkeys("ifo", 1.0))


@mistake(
    "lstm_backward_step",
    caught_by="gates_from_the_new_h",
    says="The output gate's gradient has the factor c instead of tanh(c).",
)
def output_gate_without_tanh(grad_h, grad_c, cache):
    _, _, _, c, i, f, g, _, _ = cache
    return _lstm_back(grad_h, grad_c, cache, reach=lambda total: {"o": grad_h * (f * c + i * g)})


@mistake(
    "lstm_backward_step",
    caught_by=("gates_from_the_new_c", "gates_from_the_new_h"),
    says="The blocks are in another order: the gradient of z is i, f, g, o.",
)
def blocks_in_another_order(grad_h, grad_c, cache):
    return _lstm_back(grad_h, grad_c, cache, order="ifog")


@mistake(
    "lstm_backward_step",
    caught_by="parameters_from_the_gates",
    says="The gradient of W is built with the new h. W met the old one.",
)
def W_from_the_new_h(grad_h, grad_c, cache):
    grads, grad_x, old_h, old_c = _lstm_back(grad_h, grad_c, cache)
    return {**grads, "W": torch.outer(cache[7] * cache[8], grads["b"])}, grad_x, old_h, old_c


@mistake(
    "lstm_backward_step",
    caught_by="inputs_from_the_gates",
    says="grad_h is added to the gradient of the old h. The new h is made of o and c alone; the old one counts only "
    "through z.",
)
def grad_h_passed_on(grad_h, grad_c, cache):
    grads, grad_x, old_h, old_c = _lstm_back(grad_h, grad_c, cache)
    return grads, grad_x, old_h + grad_h, old_c


@mistake(
    "lstm_backward_step",
    caught_by=("gates_from_the_new_h", "gradient_of_the_old_c"),
    says="The derivative of tanh at the cell is missing: grad_h · o · (1 − tanh²c).",
)
def slope_at_the_cell_missing(grad_h, grad_c, cache):
    return _lstm_back(grad_h, grad_c + grad_h * cache[7] * cache[8] ** 2, cache)


@mistake(
    "lstm_backward_step",
    caught_by="caches_of_their_own",
    says="The cache is changed while it is read (in place), so it serves only once.",
)
def lstm_cache_used_up(grad_h, grad_c, cache):
    result = _lstm_back(grad_h, grad_c, cache)
    cache[7].mul_(0.5)
    return result


@mistake(
    "lstm_backward_step",
    caught_by="not_clipped",
    says="The gradients are clipped on the way back. Clipping belongs to the update; here it makes the gradient wrong.",
)
def lstm_gradients_clipped(grad_h, grad_c, cache):
    grads, *rest = _lstm_back(grad_h, grad_c, cache)
    return {name: grad.clamp(-5, 5) for name, grad in grads.items()}, *rest


def _gru(params, x, h, *, order="rzn", swap=False, before=False, outside=False, b_h=True, f=torch.tanh):
    m = len(h)
    a, b = x @ params["U"] + params["b"], h @ params["W"]
    bias = params["b_h"] if b_h else torch.zeros_like(params["b_h"])
    at = {k: slice(j * m, (j + 1) * m) for j, k in enumerate(order)}
    r, z = (torch.sigmoid(a[at[k]] + b[at[k]] + bias[at[k]]) for k in "rz")
    k = at["n"]
    if before:
        n = f(a[k] + (r * h) @ params["W"][:, k] + bias[k])
    elif outside:
        n = f(a[k] + r * b[k] + bias[k])
    else:
        n = f(a[k] + r * (b[k] + bias[k]))
    z = 1 - z if swap else z
    return (1 - z) * n + z * h


@mistake(
    "gru_step",
    caught_by="update_gate",
    says="z and 1 − z are swapped: h = (1 − z) · n + z · h. (Books differ; torch's GRUCell is meant.)",
)
def update_gate_turned_round(params, x, h):
    return _gru(params, x, h, swap=True)


@mistake(
    "gru_step",
    caught_by=("reset_gate", "hidden_bias"),
    says="The reset gate multiplies h before the product with W_n, as in the first paper. As in torch's GRUCell, it "
    "multiplies the product: r · (h W_n + b_h,n).",
)
def reset_before_the_product(params, x, h):
    return _gru(params, x, h, before=True)


@mistake(
    "gru_step",
    caught_by="hidden_bias",
    says="b_h,n stands outside the reset gate: n = tanh(x U_n + b_n + r · (h W_n + b_h,n)).",
)
def hidden_bias_outside_the_gate(params, x, h):
    return _gru(params, x, h, outside=True)


@mistake("gru_step", caught_by="hidden_bias", says="b_h is forgotten: it is added to h W, in all three blocks.")
def hidden_bias_forgotten(params, x, h):
    return _gru(params, x, h, b_h=False)


@mistake(
    "gru_step",
    caught_by="bias_of_the_inputs",
    says="b is forgotten: it is added to x U, in all three blocks.",
)
def bias_of_the_inputs_forgotten(params, x, h):
    return _gru({**params, "b": 0 * params["b"]}, x, h)


@mistake(
    "gru_step",
    caught_by="saturated_gates_of_a_gru",
    says="σ(a) = e^a / (1 + e^a) is ∞ / ∞ for an a of thousands. torch.sigmoid manages.",
)
def gates_overflow(params, x, h):
    m = len(h)
    a, b = x @ params["U"] + params["b"], h @ params["W"] + params["b_h"]
    e = torch.exp(a[: 2 * m] + b[: 2 * m])
    r, z = (e / (1 + e)).chunk(2)
    return (1 - z) * torch.tanh(a[2 * m :] + r * b[2 * m :]) + z * h


@mistake(
    "gru_step",
    caught_by=("update_gate", "reset_gate", "hidden_bias"),
    says="The reset and the update gate are swapped: the blocks are r, z, n.",
)
def reset_and_update_swapped(params, x, h):
    return _gru(params, x, h, order="zrn")


@mistake(
    "gru_step",
    caught_by=("candidate", "reset_gate", "hidden_bias", "saturated_gates_of_a_gru"),
    says="The candidate goes through a sigmoid. n = tanh(…).",
)
def candidate_of_a_gru_through_sigmoid(params, x, h):
    return _gru(params, x, h, f=torch.sigmoid)


@mistake(
    "gru_step",
    caught_by=("reset_gate", "hidden_bias"),
    says="The reset gate is missing: n = tanh(x U_n + b_n + r · (h W_n + b_h,n)).",
)
def reset_gate_missing(params, x, h):
    m = len(h)
    a, b = x @ params["U"] + params["b"], h @ params["W"] + params["b_h"]
    z = torch.sigmoid(a[m : 2 * m] + b[m : 2 * m])
    return (1 - z) * torch.tanh(a[2 * m :] + b[2 * m :]) + z * h


@mistake(
    "gru_step", caught_by=("update_gate", "reset_gate"), says="The old state is left out: h = (1 − z) · n + z · h."
)
def old_state_left_out(params, x, h):
    z = torch.sigmoid((x @ params["U"] + params["b"] + h @ params["W"] + params["b_h"])[len(h) : 2 * len(h)])
    return _gru(params, x, h) - z * h


@mistake(
    "gru_step",
    caught_by="leaves_arguments_alone",
    says="h is changed in place: the caller's state changes. Make a new tensor.",
)
def gru_state_changed_in_place(params, x, h):
    new = _gru(params, x, h)
    h.copy_(new)
    return h


@mistake(
    "gru_step",
    caught_by="state_moves_the_gates",
    says="h W is left out of the gates r and z. All three blocks have it.",
)
def gates_without_the_state(params, x, h):
    m = len(h)
    gates = (torch.arange(3 * m) >= 2 * m).to(h.dtype)
    return _gru({**params, "W": params["W"] * gates}, x, h)


# --- Modules ---------------------------------------------------------------------------------------------------------


class _Model(nn.Module):
    """A right CharLSTM to be made wrong."""

    def __init__(self, K, m, layers):
        super().__init__()
        self.embed = nn.Embedding(K, m)
        self.lstm = nn.LSTM(m, m, layers, batch_first=True)
        self.out = nn.Linear(m, K)

    def forward(self, x, state=None):
        hidden, state = self.lstm(self.embed(x), state)
        return self.out(hidden), state


@mistake(
    "CharLSTM",
    caught_by="rows_are_independent",
    says="There is dropout between the layers, so in training mode the logits depend on chance. This model has none.",
)
class DropoutBetweenLayers(nn.Module):
    def __init__(self, K, m, layers):
        super().__init__()
        self.embed = nn.Embedding(K, m)
        self.lstm = nn.LSTM(m, m, layers, batch_first=True, dropout=0.2)
        self.out = nn.Linear(m, K)

    def forward(self, x, state=None):
        hidden, state = self.lstm(self.embed(x), state)
        return self.out(hidden), state


@mistake(
    "CharLSTM",
    caught_by=(
        "state_of_every_layer",
        "past_but_not_future",
        "state_goes_on",
        "none_means_zeros",
        "rows_are_independent",
        "every_layer_counts",
        "keeps_form",
    ),
    says="nn.LSTM reads (T, N, …) unless it is told `batch_first=True`: rows of the batch are taken for steps in time.",
)
class BatchTakenForTime(_Model):
    def __init__(self, K, m, layers):
        super().__init__(K, m, layers)
        self.lstm = nn.LSTM(m, m, layers)


@mistake(
    "CharLSTM",
    caught_by=("state_goes_on", "every_layer_counts"),
    says="The state that is given is not used, so every call starts from zeros.",
)
class StateIgnored(_Model):
    def forward(self, x, state=None):
        return super().forward(x)


@mistake(
    "CharLSTM",
    caught_by=("state_goes_on", "none_means_zeros"),
    says="The state is remembered from call to call, as an attribute. None means zeros; who wants the state to go on "
    "hands it over.",
)
class StateRemembered(_Model):
    kept = None

    def forward(self, x, state=None):
        handed_over = state is not None
        if state is None and self.kept is not None and self.kept[0].shape[1] == len(x):
            state = self.kept
        logits, state = super().forward(x, state)
        if handed_over:
            self.kept = tuple(s.detach() for s in state)
        return logits, state


@mistake(
    "CharLSTM",
    caught_by=("past_but_not_future", "state_goes_on"),
    says="The LSTM is bidirectional: it reads the text backwards too, and so sees the characters it is to predict.",
)
class BothDirections(_Model):
    def __init__(self, K, m, layers):
        super().__init__(K, m, layers)
        self.lstm = nn.LSTM(m, m, layers, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * m, K)

    def forward(self, x, state=None):
        if state is not None:
            state = tuple(torch.cat([s, torch.zeros_like(s)]) for s in state)
        hidden, (h, c) = self.lstm(self.embed(x), state)
        layers = self.lstm.num_layers
        return self.out(hidden), (h[:layers], c[:layers])


@mistake(
    "CharLSTM",
    caught_by=("state_of_every_layer", "state_goes_on", "none_means_zeros", "every_layer_counts", "keeps_form"),
    says="`layers` is not used: there is one layer, whatever is asked for.",
)
class OneLayerOnly(_Model):
    def __init__(self, K, m, layers):
        super().__init__(K, m, 1)


@mistake(
    "CharLSTM",
    caught_by="logits_not_probabilities",
    says="A softmax is applied. The results are logits: the loss applies its own softmax, and `sample` too.",
)
class ProbabilitiesReturned(_Model):
    def forward(self, x, state=None):
        logits, state = super().forward(x, state)
        return torch.softmax(logits, -1), state


@mistake(
    "CharLSTM",
    caught_by="logits_not_probabilities",
    says="The logits go through a sigmoid, so all are between 0 and 1, and no character can be more than e times as "
    "likely as another. The last layer is linear.",
)
class LogitsThroughSigmoid(_Model):
    def forward(self, x, state=None):
        logits, state = super().forward(x, state)
        return torch.sigmoid(logits), state


@mistake(
    "CharLSTM",
    caught_by=(
        "logits_for_every_place",
        "past_but_not_future",
        "state_goes_on",
        "none_means_zeros",
        "rows_are_independent",
        "every_layer_counts",
        "logits_not_probabilities",
        "keeps_form",
        "one_of_everything",
        "models_are_apart",
    ),
    says="Only the last step's logits come back, (N, K). Every place predicts its next character: (N, T, K).",
)
class LastLogitsOnly(_Model):
    def forward(self, x, state=None):
        logits, state = super().forward(x, state)
        return logits[:, -1], state


@mistake(
    "CharLSTM",
    caught_by="gradients_through_time",
    says="The state is detached at every step in time, so no gradient flows through time. Between chunks it is the "
    "trainer who detaches it.",
)
class DetachedAtEveryStep(_Model):
    def forward(self, x, state=None):
        logits = []
        for t in range(x.shape[1]):
            one, state = super().forward(x[:, t : t + 1], state)
            state = tuple(s.detach() for s in state)
            logits.append(one)
        return torch.cat(logits, 1), state


@mistake(
    "CharLSTM",
    caught_by="every_layer_counts",
    says="The layers stand in a plain Python list, so their parameters are not registered: no optimiser sees them. Use "
    "nn.ModuleList.",
)
class LayersInAList(_Model):
    def __init__(self, K, m, layers):
        super().__init__(K, m, layers)
        self.hidden = [self.lstm]
        del self.lstm

    def forward(self, x, state=None):
        hidden, state = self.hidden[0](self.embed(x), state)
        return self.out(hidden), state


@mistake(
    "CharLSTM",
    caught_by=("state_of_every_layer", "state_goes_on", "none_means_zeros", "every_layer_counts", "keeps_form"),
    says="Only h comes back as the state. An LSTM's state is the pair (h, c).",
)
class OnlyHReturned(_Model):
    def forward(self, x, state=None):
        logits, (h, _) = super().forward(x, state)
        return logits, h


@mistake(
    "CharLSTM",
    caught_by=("state_goes_on", "none_means_zeros", "keeps_form"),
    says="The state comes back with the batch first, (N, layers, m). Each of h and c is (layers, N, m).",
)
class StateWithBatchFirst(_Model):
    def forward(self, x, state=None):
        if state is not None:
            state = tuple(s.transpose(0, 1).contiguous() for s in state)
        logits, state = super().forward(x, state)
        return logits, tuple(s.transpose(0, 1) for s in state)


@mistake(
    "CharLSTM",
    caught_by=(
        "past_but_not_future",
        "state_goes_on",
        "none_means_zeros",
        "rows_are_independent",
        "gradients_through_time",
        "models_are_apart",
    ),
    says="Without a state the model starts from random numbers. None means zeros.",
)
class RandomFirstState(_Model):
    def forward(self, x, state=None):
        if state is None:
            shape = self.lstm.num_layers, len(x), self.lstm.hidden_size
            state = torch.randn(shape), torch.randn(shape)
        return super().forward(x, state)


@mistake(
    "CharLSTM",
    caught_by="every_layer_counts",
    says="The layers are one and the same module used several times. Every layer has parameters of its own.",
)
class OneLayerUsedAgain(_Model):
    def __init__(self, K, m, layers):
        super().__init__(K, m, 1)
        self.layers = layers

    def forward(self, x, state=None):
        hidden, states = self.embed(x), []
        for k in range(self.layers):
            given = None if state is None else tuple(s[k : k + 1].contiguous() for s in state)
            hidden, new = self.lstm(hidden, given)
            states.append(new)
        return self.out(hidden), tuple(torch.cat(parts) for parts in zip(*states, strict=True))


@mistake(
    "CharLSTM",
    caught_by=("state_of_every_layer", "every_layer_counts"),
    says="A GRU or a plain RNN stands in the LSTM's place: its c is made of its h.",
)
class GruInside(_Model):
    def __init__(self, K, m, layers):
        super().__init__(K, m, layers)
        self.lstm = nn.GRU(m, m, layers, batch_first=True)

    def forward(self, x, state=None):
        hidden, h = self.lstm(self.embed(x), None if state is None else state[0])
        return self.out(hidden), (h, h)


def _train(model, batches, optimizer, **other):
    losses, state = [], None
    for inputs, targets in batches:
        logits, new = model(inputs, state) if state is not None else model(inputs)
        if other.get("last_only"):
            logits, targets = logits[:, -1:], targets[:, -1:]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=other.get("reduction", "mean"))
        if other.get("zero", True):
            optimizer.zero_grad()
        loss.backward(retain_graph=other.get("retain", False))
        if other.get("step", True):
            optimizer.step()
        state = other.get("carry", lambda state: tuple(s.detach() for s in state))(new)
        losses.append(loss.item() if other.get("item", True) else loss.detach())
    return losses


@mistake(
    "train_truncated",
    caught_by="state_is_detached",
    says="The state is handed on with its graph. The next backward then goes through the batch before again, whose "
    "graph is gone: `tuple(s.detach() for s in state)`.",
)
def state_not_detached(model, batches, optimizer):
    return _train(model, batches, optimizer, carry=lambda state: state)


@mistake(
    "train_truncated",
    caught_by="state_is_detached",
    says="`retain_graph=True` silences the error, and every backward goes through all batches before: ever slower, "
    "and with the parameters of then. Detach the state.",
)
def graph_kept(model, batches, optimizer):
    return _train(model, batches, optimizer, carry=lambda state: state, retain=True)


@mistake(
    "train_truncated",
    caught_by="state_is_detached",
    says="Only h is detached. c hangs on the graph of the batch before as well.",
)
def only_h_detached(model, batches, optimizer):
    return _train(model, batches, optimizer, carry=lambda state: (state[0].detach(), state[1]), retain=True)


@mistake(
    "train_truncated",
    caught_by="state_is_handed_on",
    says="Every batch starts without a state, so the model never sees further back than one chunk.",
)
def state_dropped(model, batches, optimizer):
    return _train(model, batches, optimizer, carry=lambda state: None)


@mistake(
    "train_truncated",
    caught_by="gradients_start_anew",
    says="The gradients are not set to zero, so they pile up from batch to batch: `optimizer.zero_grad()`.",
)
def gradients_pile_up(model, batches, optimizer):
    return _train(model, batches, optimizer, zero=False)


@mistake(
    "train_truncated",
    caught_by=("one_step_for_each_batch", "gradient_of_the_mean", "gradients_start_anew"),
    says="The optimiser's step is missing: gradients alone change nothing.",
)
def no_step(model, batches, optimizer):
    return _train(model, batches, optimizer, step=False)


@mistake(
    "train_truncated",
    caught_by=("gradient_of_the_mean", "losses_of_all_batches"),
    says="The loss is summed over the batch. The mean over all N·T predictions is asked for.",
)
def loss_summed(model, batches, optimizer):
    return _train(model, batches, optimizer, reduction="sum")


@mistake(
    "train_truncated",
    caught_by=("gradient_of_the_mean", "losses_of_all_batches"),
    says="Only the last step of each row counts in the loss. All N·T do.",
)
def loss_of_last_steps(model, batches, optimizer):
    return _train(model, batches, optimizer, last_only=True)


@mistake(
    "train_truncated",
    caught_by="list_of_floats",
    says="The losses are tensors. Python floats are asked for: `loss.item()`, which also lets go of the graph.",
)
def losses_as_tensors(model, batches, optimizer):
    return _train(model, batches, optimizer, item=False)


@mistake(
    "train_truncated",
    caught_by=(
        "one_step_for_each_batch",
        "gradients_start_anew",
        "state_is_handed_on",
        "losses_of_all_batches",
        "any_size_of_batch",
    ),
    says="The batches are shuffled. They are consecutive in time: the state of one belongs to the next.",
)
def batches_in_reverse(model, batches, optimizer):
    return _train(model, list(batches)[::-1], optimizer)


@mistake(
    "train_truncated",
    caught_by="any_size_of_batch",
    says="The state is dropped where a batch has another T than the one before. Its shape does not depend on T: hand "
    "it on.",
)
def state_dropped_at_another_length(model, batches, optimizer):
    losses, state, length = [], None, None
    for inputs, targets in batches:
        logits, state = model(inputs, state if inputs.shape[1] == length else None)
        state, length = tuple(s.detach() for s in state), inputs.shape[1]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@mistake(
    "train_truncated",
    caught_by=("one_step_for_each_batch", "gradients_start_anew"),
    says="The losses of all batches are added and one step is made at the end. Each batch has a step of its own.",
)
def one_step_at_the_end(model, batches, optimizer):
    losses, state, total = [], None, 0.0
    for inputs, targets in batches:
        logits, state = model(inputs, state)
        state = tuple(s.detach() for s in state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        total = total + loss
        losses.append(loss.item())
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return losses


@mistake(
    "train_truncated",
    caught_by="batches_read_once",
    says="`batches` is indexed and asked for its length. It may be a generator: go through it with `for`.",
)
def batches_as_a_list(model, batches, optimizer):
    return _train(model, [batches[k] for k in range(len(batches))], optimizer)


@mistake(
    "train_truncated",
    caught_by=("gradient_of_the_mean", "losses_of_all_batches"),
    says="logits (N, T, K) are put into shape (N, K, T) with `reshape`, which mixes steps and characters up. Flatten "
    "N and T, or `transpose(1, 2)`.",
)
def logits_reshaped(model, batches, optimizer):
    losses, state = [], None
    for inputs, targets in batches:
        logits, state = model(inputs, state)
        N, T, K = logits.shape
        loss = F.cross_entropy(logits.reshape(N, K, T), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = tuple(s.detach() for s in state)
        losses.append(loss.item())
    return losses


def _nats(model, indices, *, state=True, T=None):
    """The sum of −ln p over the predictions."""
    inputs, targets = indices[:-1], indices[1:]
    T = T or len(inputs)
    total, carried = 0.0, None
    for x, y in zip(inputs.split(T), targets.split(T), strict=True):
        if isinstance(model, dict):
            h = torch.zeros_like(model["b"]) if carried is None else carried
            loss, carried, _ = _forward(model, x, y, h)
            total += loss.item() * len(y)
        else:
            with torch.no_grad():
                logits, carried = model(x[None], carried) if carried is not None else model(x[None])
            total += F.cross_entropy(logits[0], y, reduction="sum").item()
        carried = carried if state else None
    return total


@mistake("perplexity", caught_by="as_many_as_equally_likely", says="The mean is over N. There are N − 1 predictions.")
def mean_over_N(model, indices):
    return math.exp(_nats(model, indices) / len(indices))


@mistake(
    "perplexity",
    caught_by="model_is_left_as_it_was",
    says="`torch.set_grad_enabled(False)` holds from there on, and nothing can be trained any more. `with "
    "torch.no_grad():` ends with its block.",
)
def gradients_left_switched_off(model, indices):
    inputs, targets = indices[:-1], indices[1:]
    if isinstance(model, dict):
        return math.exp(_forward(model, inputs, targets, torch.zeros_like(model["b"]))[0])
    torch.set_grad_enabled(False)
    return math.exp(F.cross_entropy(model(inputs[None])[0][0], targets))


@mistake(
    "perplexity", caught_by="as_many_as_equally_likely", says="The exponential is missing: this is the mean of −ln p."
)
def exponential_missing(model, indices):
    return _nats(model, indices) / (len(indices) - 1)


@mistake(
    "perplexity",
    caught_by="as_many_as_equally_likely",
    says="The base is 2 but the logarithms are natural. exp belongs to ln.",
)
def base_two(model, indices):
    return 2.0 ** (_nats(model, indices) / (len(indices) - 1))


@mistake(
    "perplexity",
    caught_by="state_carried_through_a_long_text",
    says="The state starts anew at every chunk of the text. Carry it through from beginning to end.",
)
def state_anew_at_every_chunk(model, indices):
    return math.exp(_nats(model, indices, state=False, T=50) / (len(indices) - 1))


@mistake(
    "perplexity",
    caught_by=(
        "perplexity_of_an_rnn",
        "perplexity_of_a_module",
        "state_carried_through_a_long_text",
        "any_callable_of_that_form",
    ),
    says="Every character is predicted from the one before it alone: the state is not carried.",
)
def no_state_at_all(model, indices):
    return math.exp(_nats(model, indices, state=False, T=1) / (len(indices) - 1))


@mistake(
    "perplexity",
    caught_by=(
        "perplexity_of_an_rnn",
        "perplexity_of_a_module",
        "state_carried_through_a_long_text",
        "any_callable_of_that_form",
        "rare_characters",
    ),
    says="The mean of the probabilities is inverted. The perplexity is exp of the mean of −ln p (the geometric mean).",
)
def arithmetic_mean(model, indices):
    pieces = [_nats_of_each(model, indices)]
    return float(1 / torch.exp(-torch.cat(pieces)).mean())


def _nats_of_each(model, indices):
    inputs, targets = indices[:-1], indices[1:]
    if isinstance(model, dict):
        logits = _forward(model, inputs, targets, torch.zeros_like(model["b"]))[2][3]
    else:
        with torch.no_grad():
            logits = model(inputs[None])[0][0]
    return F.cross_entropy(logits, targets, reduction="none")


@mistake(
    "perplexity",
    caught_by=("state_carried_through_a_long_text", "rare_characters"),
    says="The probability of the whole text is multiplied up, which underflows to 0 in a long text. Add logarithms.",
)
def product_of_probabilities(model, indices):
    p = torch.exp(-_nats_of_each(model, indices).float()).prod()
    return float(p ** (-1 / (len(indices) - 1)))


@mistake("perplexity", caught_by="keeps_form", says="The result is a tensor. A Python float is asked for: `.item()`.")
def perplexity_as_tensor(model, indices):
    like = model["b"] if isinstance(model, dict) else torch.zeros(())
    return torch.tensor(math.exp(_nats(model, indices) / (len(indices) - 1)), dtype=like.dtype)


@mistake(
    "perplexity",
    caught_by="any_callable_of_that_form",
    says="`model.eval()` is called, but the model may be any callable of CharLSTM's form.",
)
def only_for_modules(model, indices):
    if not isinstance(model, dict):
        mode = model.training
        model.eval()
        model.train(mode)
    return math.exp(_nats(model, indices) / (len(indices) - 1))


@mistake(
    "perplexity", caught_by="rare_characters", says="−log(softmax) is infinite where a probability underflows to 0."
)
def log_of_zero(model, indices):
    p = torch.exp(-_nats_of_each(model, indices))
    return float(torch.exp(-torch.log(p).mean()))


@mistake(
    "perplexity",
    caught_by="model_is_left_as_it_was",
    says="The model is left in evaluation mode, whatever mode it came in. Put the mode back: "
    "`model.train(was_training)`.",
)
def left_in_evaluation_mode(model, indices):
    if isinstance(model, nn.Module):
        model.eval()
    return math.exp(_nats(model, indices) / (len(indices) - 1))


# --- Bonus -----------------------------------------------------------------------------------------------------------


def _scores(Q, K, scale=True):
    return Q @ K.transpose(-2, -1) / (math.sqrt(Q.shape[-1]) if scale else 1.0)


def _future(scores, diagonal=1):
    return torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal)


@mistake(
    "attention",
    caught_by="scaled_by_the_root_of_d",
    says="The products are not divided by √d, so with large d the softmax is all but a maximum.",
)
def not_scaled(Q, K, V, *, causal):
    scores = _scores(Q, K, scale=False)
    scores = scores.masked_fill(_future(scores), -math.inf) if causal else scores
    return torch.softmax(scores, -1) @ V


@mistake("attention", caught_by="scaled_by_the_root_of_d", says="The products are divided by d. It is its root.")
def scaled_by_d(Q, K, V, *, causal):
    scores = _scores(Q, K) / math.sqrt(Q.shape[-1])
    scores = scores.masked_fill(_future(scores), -math.inf) if causal else scores
    return torch.softmax(scores, -1) @ V


@mistake(
    "attention",
    caught_by=(
        "weighted_mean_of_the_values",
        "scaled_by_the_root_of_d",
        "weights_sum_to_one",
        "causal_sees_no_future",
        "large_products",
    ),
    says="The softmax goes over the queries. Each query shares its attention among the keys: the last axis.",
)
def softmax_over_queries(Q, K, V, *, causal):
    scores = _scores(Q, K)
    scores = scores.masked_fill(_future(scores), -1e30) if causal else scores
    return torch.softmax(scores, -2) @ V


@mistake(
    "attention",
    caught_by=("weights_sum_to_one", "causal_sees_no_future"),
    says="The future is set to 0 after the softmax, so the weights no longer sum to 1. Set the scores to −∞ before it.",
)
def masked_after_the_softmax(Q, K, V, *, causal):
    weights = torch.softmax(_scores(Q, K), -1)
    weights = weights.masked_fill(_future(weights), 0.0) if causal else weights
    return weights @ V


@mistake(
    "attention",
    caught_by="causal_sees_no_future",
    says="The future's scores are set to 0, and e⁰ = 1 is no zero weight. Set them to −∞.",
)
def future_scores_of_zero(Q, K, V, *, causal):
    scores = _scores(Q, K)
    scores = scores.masked_fill(_future(scores), 0.0) if causal else scores
    return torch.softmax(scores, -1) @ V


@mistake(
    "attention",
    caught_by="causal_sees_no_future",
    says="A query may not even see its own place, and the first sees nothing (NaN, or all alike). The mask starts "
    "above the diagonal: `triu(1)`.",
)
def own_place_hidden(Q, K, V, *, causal):
    scores = _scores(Q, K)
    scores = scores.masked_fill(_future(scores, 0), -1e9) if causal else scores
    return torch.softmax(scores, -1) @ V


@mistake(
    "attention",
    caught_by="causal_sees_no_future",
    says="One place of the future is seen: the mask starts at `triu(1)`, not (2).",
)
def one_place_ahead_seen(Q, K, V, *, causal):
    scores = _scores(Q, K)
    scores = scores.masked_fill(_future(scores, 2), -math.inf) if causal else scores
    return torch.softmax(scores, -1) @ V


@mistake(
    "attention",
    caught_by="causal_sees_no_future",
    says="The past is masked, not the future: `triu(1)` is to be hidden, not `tril`.",
)
def past_hidden(Q, K, V, *, causal):
    scores = _scores(Q, K)
    scores = scores.masked_fill(_future(scores).mT, -math.inf) if causal else scores
    return torch.softmax(scores, -1) @ V


@mistake(
    "attention",
    caught_by=("weighted_mean_of_the_values", "scaled_by_the_root_of_d", "large_products"),
    says="`causal` is not looked at: the future is always hidden.",
)
def always_causal(Q, K, V, *, causal):
    scores = _scores(Q, K)
    return torch.softmax(scores.masked_fill(_future(scores), -math.inf), -1) @ V


@mistake("attention", caught_by="causal_sees_no_future", says="`causal` is not looked at: the future is always seen.")
def never_causal(Q, K, V, *, causal):
    return torch.softmax(_scores(Q, K), -1) @ V


@mistake(
    "attention",
    caught_by="large_products",
    says="exp overflows for large products. Subtract the largest of a row first, as softmax does.",
)
def attention_overflows(Q, K, V, *, causal):
    e = torch.exp(_scores(Q, K))
    e = e.masked_fill(_future(e), 0.0) if causal else e
    return e / e.sum(-1, keepdim=True) @ V


@mistake(
    "attention",
    caught_by="hidden_however_low_the_scores",
    says="What is hidden gets a score of −1e4, which is not below all others: where a query's scores are "
    "lower, it sees the future. −∞ is lower than all.",
)
def hidden_scores_not_low_enough(Q, K, V, *, causal):
    scores = _scores(Q, K)
    return torch.softmax(scores.masked_fill(_future(scores), -1e4) if causal else scores, -1) @ V


@mistake(
    "attention",
    caught_by="hidden_however_low_the_scores",
    says="Scores that are exactly 0 are hidden, since `tril` has put zeros in the future's place; but a score "
    "may be 0, and then a query sees nothing. Mask by place, not by value.",
)
def scores_of_zero_hidden(Q, K, V, *, causal):
    scores = _scores(Q, K)
    if causal:
        scores = scores.tril()
        scores = scores.masked_fill(scores == 0, -math.inf)
    return torch.softmax(scores, -1) @ V


@mistake(
    "attention",
    caught_by="any_leading_axes",
    says="The softmax goes over axis 1, which is that of the keys only where no axes lead. Use the last one, −1.",
)
def softmax_over_axis_one(Q, K, V, *, causal):
    scores = _scores(Q, K)
    scores = scores.masked_fill(_future(scores), -1e30) if causal else scores
    return torch.softmax(scores, 1) @ V


class _Mixer(nn.Module):
    """A right CausalSelfAttention to be made wrong."""

    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)

    def weights(self, scores):
        return torch.softmax(scores.masked_fill(_future(scores), -math.inf), -1)

    def split(self, t):
        N, T, d = t.shape
        return t.reshape(N, T, self.heads, d // self.heads).transpose(1, 2)

    def forward(self, x):
        q, k, v = (self.split(t) for t in self.qkv(x).chunk(3, -1))
        mixed = self.weights(_scores(q, k)) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


@mistake("CausalSelfAttention", caught_by="sees_no_future", says="The future is not hidden: the mask is missing.")
class FutureSeen(_Mixer):
    def weights(self, scores):
        return torch.softmax(scores, -1)


@mistake(
    "CausalSelfAttention",
    caught_by="heads_attend_apart",
    says="There is one head only, whatever `heads` says: split d into parts, each with weights of its own.",
)
class OneHeadOnly(_Mixer):
    def split(self, t):
        return t[:, None]


@mistake(
    "CausalSelfAttention",
    caught_by="gradients_reach_the_parameters",
    says="The keys are taken for the queries too, and the weights made for the queries have no effect: whom a "
    "place asks and how it answers are different questions.",
)
class KeysForQueries(_Mixer):
    def forward(self, x):
        _, k, v = (self.split(t) for t in self.qkv(x).chunk(3, -1))
        mixed = self.weights(_scores(k, k)) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


@mistake(
    "CausalSelfAttention",
    caught_by=("sees_no_future", "no_positions"),
    says="Time and heads are mixed up by `reshape(N, heads, T, …)`. Split the last axis first, then transpose: "
    "`reshape(N, T, heads, …).transpose(1, 2)`.",
)
class HeadsSplitByReshape(_Mixer):
    def split(self, t):
        N, T, d = t.shape
        return t.reshape(N, self.heads, T, d // self.heads)

    def forward(self, x):
        q, k, v = (self.split(t) for t in self.qkv(x).chunk(3, -1))
        return self.out((self.weights(_scores(q, k)) @ v).reshape(x.shape))


@mistake(
    "CausalSelfAttention",
    caught_by=("heads_attend_apart", "no_positions"),
    says="Positions are added. This module has none: they belong to what stands before it.",
)
class PositionsAdded(_Mixer):
    def forward(self, x):
        place = torch.arange(x.shape[1], dtype=x.dtype)[:, None] / 3
        return super().forward(x + torch.sin(place + torch.arange(x.shape[2])))


@mistake(
    "CausalSelfAttention",
    caught_by="sequences_of_any_length",
    says="The mask is made for a longest T in __init__, and longer sequences fail. Make it as large as x is.",
)
class MaskOfFixedSize(_Mixer):
    def weights(self, scores):
        T = scores.shape[-1]
        mask = torch.ones(128, 128, dtype=torch.bool).triu(1)
        return torch.softmax(scores.masked_fill(mask[:T, :T], -math.inf), -1)


@mistake(
    "CausalSelfAttention",
    caught_by="every_row_by_itself",
    says="Dropout is applied to the weights. None is asked for.",
)
class DropoutOnWeights(_Mixer):
    def weights(self, scores):
        return F.dropout(super().weights(scores), 0.2, self.training)


@mistake(
    "CausalSelfAttention",
    caught_by="gradients_reach_the_parameters",
    says="The layers are made in `forward`, anew at every call: nothing is learnt. Make them in __init__.",
)
class LayersMadeInForward(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.inner = [_Mixer(d, heads)]

    def forward(self, x):
        return self.inner[0](x)


@mistake(
    "CausalSelfAttention",
    caught_by="heads_attend_apart",
    says="The products are divided by the root of d. Each head has d / heads features: its own size is meant.",
)
class DividedByTheRootOfD(_Mixer):
    def weights(self, scores):
        return super().weights(scores / math.sqrt(self.heads))


@mistake(
    "CausalSelfAttention",
    caught_by="heads_attend_apart",
    says="The input is normalised here. A layer normalisation belongs to the block around this module.",
)
class NormalisedInside(_Mixer):
    def forward(self, x):
        return super().forward(F.layer_norm(x, x.shape[-1:]))


@mistake(
    "CausalSelfAttention",
    caught_by="sequences_of_any_length",
    says="Long sequences are cut into blocks, each of which sees nothing of those before it. Every place sees all "
    "earlier ones.",
)
class CutIntoBlocks(_Mixer):
    def forward(self, x):
        return torch.cat([super(CutIntoBlocks, self).forward(part) for part in x.split(64, 1)], 1)


@mistake("CausalSelfAttention", caught_by="sees_no_future", says="The future's weights are set to 0 after the softmax.")
class MaskedLate(_Mixer):
    def weights(self, scores):
        return torch.softmax(scores, -1).masked_fill(_future(scores), 0.0)


@mistake(
    "CausalSelfAttention",
    caught_by="heads_attend_apart",
    says="x is added to the result. The residual connection belongs to the block around this module.",
)
class ResidualInside(_Mixer):
    def forward(self, x):
        return x + super().forward(x)


@mistake(
    "CausalSelfAttention",
    caught_by=("sees_no_future", "heads_attend_apart", "no_positions"),
    says="The softmax goes over the queries. Each query shares its attention among the keys: the last axis.",
)
class SoftmaxOverQueries(_Mixer):
    def weights(self, scores):
        return torch.softmax(scores.masked_fill(_future(scores), -1e30), -2)


@mistake(
    "CausalSelfAttention",
    caught_by="result_for_every_place",
    says="`squeeze()` removes the axis of time where there is a single place: (N, T, d) for every T.",
)
class ResultSqueezed(_Mixer):
    def forward(self, x):
        return super().forward(x).squeeze()


def _searched(step, start, width, n, *, score=None, per_beam=None, first=None):
    beams = [(0.0, [], None)]
    for t in range(n):
        longer = []
        for total, sequence, state in beams:
            log_p, new = step(state, sequence[-1] if sequence else start)
            values, indices = log_p.topk(min(per_beam or width, len(log_p)))
            for value, index in zip(values.tolist(), indices.tolist(), strict=True):
                longer.append(((score or (lambda total, value: total + value))(total, value), [*sequence, index], new))
        beams = sorted(longer, key=lambda beam: beam[0], reverse=True)[: first if first and t == 0 else width]
    return beams


@mistake(
    "beam_search",
    caught_by=("wide_enough_finds_the_best", "the_best_beginnings_are_kept"),
    says="This is greedy search: one beginning is kept, whatever `width` says.",
)
def greedy_search(step, start, width, n):
    return torch.tensor(_searched(step, start, 1, n)[0][1])


@mistake(
    "beam_search",
    caught_by=("wide_enough_finds_the_best", "sequences_of_one"),
    says="`topk(width)` fails where width exceeds K: take min(width, K) continuations.",
)
def width_above_K_fails(step, start, width, n):
    beams = [(0.0, [], None)]
    for _ in range(n):
        longer = []
        for total, sequence, state in beams:
            log_p, new = step(state, sequence[-1] if sequence else start)
            values, indices = log_p.topk(width)
            for value, index in zip(values.tolist(), indices.tolist(), strict=True):
                longer.append((total + value, [*sequence, index], new))
        beams = sorted(longer, key=lambda beam: beam[0], reverse=True)[:width]
    return torch.tensor(beams[0][1])


@mistake(
    "beam_search",
    caught_by="wide_enough_finds_the_best",
    says="No more than K beginnings are kept, however wide the beam is: `min(width, K)` is right for the "
    "continuations of one beginning, not for all of them together.",
)
def beam_no_wider_than_K(step, start, width, n):
    K = len(step(None, start)[0])
    return torch.tensor(_searched(step, start, min(width, K), n)[0][1])


@mistake(
    "beam_search",
    caught_by=("wide_enough_finds_the_best", "the_best_beginnings_are_kept"),
    says="Only the last step's log-probability is compared. The sum over the whole sequence decides.",
)
def only_the_last_step_counts(step, start, width, n):
    return torch.tensor(_searched(step, start, width, n, score=lambda total, value: value)[0][1])


@mistake(
    "beam_search",
    caught_by=("start_is_the_first_input", "form_of_the_sequence"),
    says="`start` is part of the result. It is only the first input.",
)
def start_in_the_sequence(step, start, width, n):
    return torch.tensor([start, *_searched(step, start, width, n)[0][1]])


@mistake(
    "beam_search",
    caught_by=("wide_enough_finds_the_best", "the_best_beginnings_are_kept"),
    says="Each beginning keeps only its best continuation, so the beams never meet and only the first step branches.",
)
def one_continuation_each(step, start, width, n):
    beams = [(0.0, [], None)]
    for t in range(n):
        longer = []
        for total, sequence, state in beams:
            log_p, new = step(state, sequence[-1] if sequence else start)
            values, indices = log_p.topk(min(width if t == 0 else 1, len(log_p)))
            for value, index in zip(values.tolist(), indices.tolist(), strict=True):
                longer.append((total + value, [*sequence, index], new))
        beams = sorted(longer, key=lambda beam: beam[0], reverse=True)[:width]
    return torch.tensor(beams[0][1])


@mistake(
    "beam_search",
    caught_by=(
        "wide_enough_finds_the_best",
        "the_best_beginnings_are_kept",
        "sequences_of_one",
        "impossible_characters",
    ),
    says="The worst sequence of the beam comes back: sort with the largest first.",
)
def worst_of_the_beam(step, start, width, n):
    return torch.tensor(_searched(step, start, width, n)[-1][1])


@mistake(
    "beam_search",
    caught_by=("wide_enough_finds_the_best", "the_best_beginnings_are_kept"),
    says="All beams go on from one state, the last one computed. Each beginning has a state of its own.",
)
def one_state_for_all(step, start, width, n):
    beams, state = [(0.0, [])], None
    for _ in range(n):
        longer, given = [], state
        for total, sequence in beams:
            log_p, state = step(given, sequence[-1] if sequence else start)
            values, indices = log_p.topk(min(width, len(log_p)))
            for value, index in zip(values.tolist(), indices.tolist(), strict=True):
                longer.append((total + value, [*sequence, index]))
        beams = sorted(longer, key=lambda beam: beam[0], reverse=True)[:width]
    return torch.tensor(beams[0][1])


@mistake(
    "beam_search",
    caught_by=("wide_enough_finds_the_best", "the_best_beginnings_are_kept", "impossible_characters"),
    says="Log-probabilities are multiplied. They add up.",
)
def logarithms_multiplied(step, start, width, n):
    beams = [(1.0, [], None)]
    for _ in range(n):
        longer = []
        for total, sequence, state in beams:
            log_p, new = step(state, sequence[-1] if sequence else start)
            values, indices = log_p.topk(min(width, len(log_p)))
            for value, index in zip(values.tolist(), indices.tolist(), strict=True):
                longer.append((total * value, [*sequence, index], new))
        beams = sorted(longer, key=lambda beam: beam[0], reverse=True)[:width]
    return torch.tensor(beams[0][1])


@mistake(
    "beam_search", caught_by="form_of_the_sequence", says="The result is a list. An int64 tensor (n,) is asked for."
)
def sequence_as_floats(step, start, width, n):
    return torch.tensor(_searched(step, start, width, n)[0][1], dtype=torch.float32)


@mistake(
    "beam_search",
    caught_by="width_one_is_greedy",
    says="Two beginnings are kept even with width 1, which is greedy search.",
)
def never_greedy(step, start, width, n):
    return torch.tensor(_searched(step, start, max(width, 2), n)[0][1])
