"""Right solutions of Assignment 4 written in unusual ways; each must get full marks.

Those of `rnn_forward` and `lstm_step` keep the cache of the reference, and those of their backward functions read it,
since the rest of the notebook is the reference's.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.checking import alternative

# --- From characters to numbers --------------------------------------------------------------------------------------


@alternative("build_vocabulary", unusual="a loop that finds the smallest character left; a list of both dicts")
def smallest_first(text):
    left, to_index = set(text), {}
    while left:
        c = min(left)
        to_index[c] = len(to_index)
        left.remove(c)
    return [to_index, {i: c for c, i in to_index.items()}]


@alternative("build_vocabulary", unusual="a defaultdict, filled in another order; groupby over the sorted text")
def default_dicts(text):
    to_index, to_char = defaultdict(int), defaultdict(str)
    for i, (c, _) in reversed(list(enumerate(itertools.groupby(sorted(text))))):
        to_index[c], to_char[i] = i, c
    return to_index, to_char


@alternative("encode", unusual="map and NumPy, turned into a tensor")
def encode_in_numpy(text, char_to_index):
    return torch.from_numpy(np.fromiter(map(char_to_index.__getitem__, text), dtype=np.int64, count=len(text)))


@alternative("encode", unusual="a tensor filled place by place, and an error message of its own")
def encode_place_by_place(text, char_to_index):
    indices = torch.empty(len(text), dtype=torch.long)
    for t, c in enumerate(text):
        if c not in char_to_index:
            raise KeyError(f"the character {c!r} at place {t} is not in the vocabulary")
        indices[t] = char_to_index[c]
    return indices


@alternative("decode", unusual="a string that grows, and 0-d tensors turned into ints")
def growing_string(indices, index_to_char):
    text = ""
    for i in indices:
        if int(i) not in index_to_char:
            raise KeyError(f"index {int(i)} is unknown")
        text += index_to_char[int(i)]
    return text


@alternative("decode", unusual="NumPy's integers as keys, which hash as ints do")
def numpy_keys(indices, index_to_char):
    return "".join([index_to_char[i] for i in indices.numpy()])


@alternative("one_hot", unusual="a comparison with all columns")
def one_hot_by_comparison(indices, K):
    return (indices[:, None] == torch.arange(K)).to(torch.get_default_dtype())


@alternative("one_hot", unusual="scatter_ into zeros")
def one_hot_by_scatter(indices, K):
    return torch.zeros(indices.numel(), K).scatter_(1, indices.reshape(-1, 1), 1.0)


@alternative("one_hot", unusual="F.one_hot, and rows of an identity by NumPy")
def one_hot_by_torch(indices, K):
    return F.one_hot(indices, K).float() * torch.from_numpy(np.ones((1, K), dtype=np.float32))


@alternative("chunks", unusual="a while loop over places, pairs as lists, copies")
def chunks_by_places(indices, T):
    n = indices.numel()
    if n <= 1:
        raise ValueError("nothing to predict")
    found, s = [], 0
    while s + 1 < n:
        e = min(s + T, n - 1)
        found.append([indices[s:e].clone(), indices[s + 1 : e + 1].clone()])
        s = e
    return found


@alternative("chunks", unusual="overlapping windows, the shorter of the two cut by zip")
def chunks_by_windows(indices, T):
    if len(indices) < 2:
        raise ValueError("too short")
    windows = [indices[s : s + T + 1] for s in range(0, len(indices) - 1, T)]
    return tuple((w[:-1], w[1:]) for w in windows)


# --- The recurrent network -------------------------------------------------------------------------------------------


@alternative("init_rnn", unusual="normal_ in place, drawn in another order, the biases by new_zeros")
def normal_in_place(K, m, *, sigma, generator):
    V, W, U = (torch.empty(*shape).normal_(0, sigma, generator=generator) for shape in ((m, K), (m, m), (K, m)))
    return {"b": U.new_zeros(m), "c": U.new_zeros(K), "U": U, "W": W, "V": V}


@alternative("init_rnn", unusual="drawn in float64 by torch.normal from one long vector and cut up")
def one_long_vector(K, m, *, sigma, generator):
    numbers = torch.normal(0.0, sigma, (2 * K * m + m * m,), generator=generator, dtype=torch.float64).float()
    U, W, V = numbers.split([K * m, m * m, m * K])
    return {
        "U": U.reshape(K, m).clone(),
        "W": W.reshape(m, m).clone(),
        "V": V.reshape(m, K).clone(),
        "b": torch.zeros(m),
        "c": torch.zeros(K),
    }


@alternative("init_rnn", unusual="NumPy's generator, seeded from PyTorch's")
def seeded_numpy(K, m, *, sigma, generator):
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    shapes = {"U": (K, m), "W": (m, m), "V": (m, K)}
    params = {k: torch.from_numpy(rng.normal(0, sigma, s).astype(np.float32)) for k, s in shapes.items()}
    return {**params, "b": torch.zeros(m), "c": torch.zeros(K)}


@alternative("rnn_forward", unusual="column vectors inside, as the lectures write it, one step at a time")
def forward_in_columns(params, inputs, targets, h0):
    K = params["c"].numel()
    X = F.one_hot(inputs, K).to(h0.dtype).T if inputs.ndim == 1 else inputs.to(h0.dtype).T  # (K, T)
    h, columns, logits = h0[:, None], [h0[:, None]], []
    for t in range(X.shape[1]):
        h = torch.tanh(params["U"].T @ X[:, t : t + 1] + params["W"].T @ h + params["b"][:, None])
        columns.append(h)
        logits.append(params["V"].T @ h + params["c"][:, None])
    H, L = torch.cat(columns, 1).T, torch.cat(logits, 1).T
    loss = -torch.log_softmax(L, 1)[range(len(targets)), targets].mean()
    return loss, h[:, 0], (inputs, targets, H, L)


@alternative("rnn_forward", unusual="NumPy inside, the loss one step at a time by logsumexp; a list returned")
def forward_in_numpy(params, inputs, targets, h0):
    U, W, V, b, c = (params[k].numpy() for k in "UWVbc")
    rows = U[inputs.numpy()] if inputs.ndim == 1 else inputs.numpy().astype(U.dtype) @ U
    h, H, L, loss = h0.numpy(), [h0.numpy()], [], 0.0
    for row, y in zip(rows, targets.tolist(), strict=True):
        h = np.tanh(row + h @ W + b)
        logits = h @ V + c
        top = logits.max()
        loss += top + np.log(np.exp(logits - top).sum()) - logits[y]
        H.append(h)
        L.append(logits)
    H, L = torch.from_numpy(np.stack(H)), torch.from_numpy(np.stack(L))
    return [torch.tensor(loss / len(targets), dtype=h0.dtype), H[-1].clone(), (inputs, targets, H, L)]


@alternative("rnn_forward", unusual="one stacked matrix [U; W; b] times [x, h, 1]; indices found by argmax")
def forward_with_one_matrix(params, inputs, targets, h0):
    indices = inputs if inputs.ndim == 1 else inputs.argmax(1)
    M = torch.cat([params["U"], params["W"], params["b"][None]])
    eye, one = torch.eye(len(params["c"]), dtype=h0.dtype), torch.ones(1, dtype=h0.dtype)
    H = h0.new_empty(len(indices) + 1, len(h0))
    H[0] = h0
    for t, index in enumerate(indices.tolist()):
        torch.tanh(torch.cat([eye[index], H[t], one]) @ M, out=H[t + 1])
    L = torch.addmm(params["c"], H[1:], params["V"])
    return F.nll_loss(F.log_softmax(L, -1), targets), H[-1], (indices, targets, H, L)


@alternative("rnn_forward", unusual="layers of torch.nn with the given weights put in: Linear, Tanh, CrossEntropyLoss")
def forward_with_layers(params, inputs, targets, h0):
    K, m = params["U"].shape
    into, around, out = nn.Linear(K, m), nn.Linear(m, m, bias=False), nn.Linear(m, K)
    into.weight.data, into.bias.data = params["U"].T, params["b"]
    around.weight.data = params["W"].T
    out.weight.data, out.bias.data = params["V"].T, params["c"]
    squash, criterion = nn.Tanh(), nn.CrossEntropyLoss(reduction="mean")
    with torch.no_grad():
        x = F.one_hot(inputs, K) if inputs.ndim == 1 else inputs
        states = [h0]
        for a in into(x.to(params["U"].dtype)):
            states.append(squash(a + around(states[-1])))
        H = torch.stack(states)
        logits = out(H[1:])
        return criterion(logits, targets), H[-1], (inputs, targets, H, logits)


@alternative("rnn_forward", unusual="a module of its own for the step, U as an embedding")
def forward_with_a_module(params, inputs, targets, h0):
    class Step(nn.Module):
        def __init__(self, W, b):
            super().__init__()
            self.register_buffer("W", W)
            self.register_buffer("b", b)

        def forward(self, a, h):
            return torch.tanh(a + h @ self.W + self.b)

    step, h = Step(params["W"], params["b"]), h0
    indices = inputs if inputs.ndim == 1 else inputs.argmax(-1)
    H = [h0]
    for a in F.embedding(indices, params["U"]):
        h = step(a, h)
        H.append(h)
    H = torch.stack(H)
    logits = H[1:] @ params["V"] + params["c"]
    return nn.NLLLoss()(nn.LogSoftmax(dim=-1)(logits), targets), h, (inputs, targets, H, logits)


@alternative("rnn_backward", unusual="one step at a time with +=, column vectors inside")
def backward_in_columns(params, cache):
    inputs, targets, H, logits = cache
    grads = {k: torch.zeros_like(v) for k, v in params.items()}
    K, T = logits.shape[1], len(targets)
    from_later = torch.zeros_like(H[0])[:, None]
    for t in range(T - 1, -1, -1):
        g = torch.softmax(logits[t], 0)
        g = torch.where(torch.arange(K) == targets[t], g - 1, g)[:, None] / T
        x = torch.eye(K, dtype=H.dtype)[inputs[t]] if inputs.ndim == 1 else inputs[t].to(H.dtype)
        h, before = H[t + 1][:, None], H[t][:, None]
        grads["V"] += h @ g.T
        grads["c"] += g[:, 0]
        a = (params["V"] @ g + params["W"] @ from_later) * (1 - h * h)
        grads["W"] += before @ a.T
        grads["U"] += x[:, None] @ a.T
        grads["b"] += a[:, 0]
        from_later = a
    return grads


@alternative("rnn_backward", unusual="for every step's loss a walk back of its own: T²/2 steps; NumPy; float64 inside")
def a_walk_for_every_loss(params, cache):
    inputs, targets, H, logits = cache
    dtype, T = H.dtype, len(targets)
    H, P = H.double().numpy(), torch.softmax(logits.double(), 1).numpy()
    W, V = params["W"].double().numpy(), params["V"].double().numpy()
    G = (P - np.eye(P.shape[1])[targets.numpy()]) / T
    A = np.zeros((T, H.shape[1]))
    for t in range(T):
        a = (V @ G[t]) * (1 - H[t + 1] ** 2)
        for s in range(t, -1, -1):
            A[s] += a
            a = (W @ a) * (1 - H[s] ** 2)
    X = np.eye(P.shape[1])[inputs.numpy()] if inputs.ndim == 1 else inputs.double().numpy()
    grads = {"c": G.sum(0), "b": A.sum(0), "V": H[1:].T @ G, "W": H[:-1].T @ A, "U": X.T @ A}
    return {k: torch.from_numpy(grads[k]).to(dtype) for k in params}


@alternative("rnn_backward", unusual="the whole recurrence as one triangular system of T·m equations")
def backward_by_a_linear_system(params, cache):
    inputs, targets, H, logits = cache
    T, m = len(targets), H.shape[1]
    G = (torch.softmax(logits, 1) - F.one_hot(targets, logits.shape[1])) / T
    D = 1 - H[1:] ** 2
    system = torch.eye(T * m, dtype=torch.float64)
    for t in range(T - 1):
        rows, later = slice(t * m, (t + 1) * m), slice((t + 1) * m, (t + 2) * m)
        system[rows, later] = -(D[t][:, None] * params["W"]).double()
    A = torch.linalg.solve(system, ((G @ params["V"].T) * D).double().flatten()).reshape(T, m).to(H.dtype)
    X = F.one_hot(inputs, logits.shape[1]).to(H.dtype) if inputs.ndim == 1 else inputs.to(H.dtype)
    ones = torch.ones(T, dtype=H.dtype)
    return {"U": X.T @ A, "W": H[:-1].T @ A, "V": H[1:].T @ G, "b": ones @ A, "c": ones @ G}


@alternative("rnn_backward", unusual="all steps at once, once for every distance in time; no loop over the steps")
def backward_by_distances(params, cache):
    inputs, targets, H, logits = cache
    T, K = logits.shape
    G = (torch.softmax(logits, 1) - F.one_hot(targets, K)) / T
    D = 1 - H[1:] ** 2
    term = (G @ params["V"].T) * D
    A = term
    for _ in range(T - 1):  # what has come back over one step more
        term = torch.cat([(term[1:] @ params["W"].T) * D[:-1], torch.zeros_like(term[:1])])
        A = A + term
    X = F.one_hot(inputs, K).to(H.dtype) if inputs.ndim == 1 else inputs.to(H.dtype)
    return {"U": X.T @ A, "W": H[:-1].T @ A, "V": H[1:].T @ G, "b": A.sum(0), "c": G.sum(0)}


# --- Training --------------------------------------------------------------------------------------------------------


@alternative("clip_gradients", unusual="maximum and minimum")
def clip_by_minimum(grads, limit):
    bound = {k: torch.full_like(g, limit) for k, g in grads.items()}
    return {k: torch.minimum(torch.maximum(g, -bound[k]), bound[k]) for k, g in grads.items()}


@alternative("clip_gradients", unusual="own copies clipped in place, by masks")
def clip_own_copies(grads, limit):
    new = {}
    for k, g in grads.items():
        new[k] = g.clone()
        new[k][g > limit] = limit
        new[k][g < -limit] = -limit
    return new


@alternative("clip_by_norm", unusual="one long vector and its norm; a comparison instead of the minimum")
def norm_of_one_vector(grads, max_norm):
    norm = torch.cat([g.flatten() for g in grads.values()]).norm().item()
    return {k: g.clone() if norm <= max_norm else g / norm * max_norm for k, g in grads.items()}


@alternative("clip_by_norm", unusual="math.hypot over the norms, and a factor bounded below 1")
def norm_by_hypot(grads, max_norm):
    norm = math.hypot(*(float(torch.linalg.vector_norm(g)) for g in grads.values()))
    return {k: g * min(1.0, max_norm / max(norm, 1e-300)) for k, g in grads.items()}


@alternative("clip_by_norm", unusual="PyTorch's norm of a list of tensors, a factor that is a tensor")
def norm_by_torch(grads, max_norm):
    norm = nn.utils.get_total_norm(list(grads.values()))
    factor = torch.where(norm > max_norm, max_norm / norm.clamp(min=1e-300), torch.ones_like(norm))
    return {k: g.mul(factor) for k, g in grads.items()}


@alternative("adagrad_step", unusual="the roots as the state, put together by hypot; a list returned")
def adagrad_by_hypot(theta, grad, state, *, lr, eps):
    root = grad.abs() if state is None else torch.hypot(state["root"], grad)
    return [theta.addcdiv(grad, root + eps, value=-lr), {"root": root}]


@alternative("adagrad_step", unusual="all gradients so far as the state")
def adagrad_with_a_history(theta, grad, state, *, lr, eps):
    history = (*(state or ()), grad.clone())
    return theta - lr * grad / (torch.linalg.vector_norm(torch.stack(history), dim=0) + eps), history


@alternative("adagrad_step", unusual="an object with __call__, NumPy inside, a closure as the state")
class AdagradInNumpy:
    def __call__(self, theta, grad, state, *, lr, eps):
        before = 0.0 if state is None else state()
        m = before + grad.numpy() ** 2
        step = lr * grad.numpy() / (np.sqrt(m) + eps)
        return torch.from_numpy(np.asarray(theta.numpy() - step)), lambda: m


@alternative("smooth_loss", unusual="a step towards the loss")
def smooth_loss_by_a_step(previous, loss):
    if previous is None:
        previous = loss
    return previous + (loss - previous) / 1000


@alternative("smooth_loss", unusual="a 0-d tensor as the result")
def smooth_loss_as_tensor(previous, loss):
    loss = torch.as_tensor(loss, dtype=torch.float64)
    return loss if previous is None else torch.lerp(torch.as_tensor(previous, dtype=torch.float64), loss, 1e-3)


# --- Synthesis -------------------------------------------------------------------------------------------------------


@alternative("sample", unusual="Gumbel noise and argmax; the nucleus by a loop in Python")
def sample_by_gumbel(logits, *, temperature=1.0, top_p=1.0, generator):
    if temperature < 1e-12:
        return max(range(len(logits)), key=logits.tolist().__getitem__)
    scaled = (logits.double() - logits.double().max()) / temperature
    p = torch.exp(scaled - torch.logsumexp(scaled, 0)).tolist()
    kept, total = [], 0.0
    for k in sorted(range(len(p)), key=lambda k: -p[k]):
        kept.append(k)
        total += p[k]
        if total >= top_p and top_p < 1:
            break
    noise = -torch.log(-torch.log(torch.rand(len(kept), generator=generator, dtype=torch.float64).clamp(1e-300)))
    return kept[int((scaled[kept] + noise).argmax())]


@alternative("sample", unusual="a random number and the cumulative sum, searched; in place on own copies")
def sample_by_search(logits, *, temperature=1.0, top_p=1.0, generator):
    scaled = logits.double().clone()
    scaled -= scaled.max()
    if temperature == 0:
        return int(torch.nonzero(scaled == 0)[0])
    scaled /= temperature
    p, order = torch.softmax(scaled, 0).sort(descending=True)
    cdf = p.cumsum(0)
    count = min(int((cdf < top_p).sum()) + 1, len(p))
    u = torch.rand(1, generator=generator, dtype=torch.float64) * cdf[count - 1]
    return int(order[min(int(torch.searchsorted(cdf[:count], u, right=True)), count - 1)])


@alternative("sample", unusual="draws again and again until the index is inside the nucleus; float32; top-p by masking")
def sample_by_rejection(logits, *, temperature=1.0, top_p=1.0, generator):
    best = int(torch.argmax(logits))
    if temperature <= 1e-9:
        return best
    p = torch.softmax((logits - logits.max()) / temperature, -1)
    inside = [k for k in range(len(p)) if float(p[p > p[k]].sum()) < top_p]
    while True:
        k = torch.multinomial(p, 1, generator=generator).item()
        if k in inside or top_p <= float(p.max()):
            return k if k in inside else best


@alternative("sample", unusual="NumPy's choice, seeded from the generator")
def sample_in_numpy(logits, *, temperature=1.0, top_p=1.0, generator):
    a = logits.numpy().astype(np.float64)
    if temperature < 1e-20:
        return int(a.argmax())
    e = np.exp((a - a.max()) / temperature)
    p = e / e.sum()
    order = np.argsort(-p)
    keep = order[: np.searchsorted(np.cumsum(p[order]), top_p) + 1] if top_p < 1 else order
    rng = np.random.default_rng(torch.randint(2**31, (4,), generator=generator).tolist())
    return int(rng.choice(keep, p=p[keep] / p[keep].sum()))


@alternative("sample", unusual="a race: exponential waiting times divided by the probabilities, the shortest wins")
def sample_by_a_race(logits, *, temperature=1.0, top_p=1.0, generator):
    shifted = logits.double() - logits.double().max()
    p = torch.softmax(shifted / max(temperature, 1e-30), 0)
    if top_p < 1:
        more_likely = p[None, :] > p[:, None]
        p = torch.where((more_likely * p).sum(1) < max(top_p, 1e-300), p, torch.zeros_like(p))
    waiting = torch.empty_like(p).exponential_(generator=generator)
    return int((p / waiting).argmax())


@alternative("sample", unusual="Python's floats from the first to the last line, walked through until u is used up")
def sample_by_walking(logits, *, temperature=1.0, top_p=1.0, generator):
    values = logits.tolist()
    top = max(values)
    if temperature == 0:
        return values.index(top)
    weights = [math.exp((v - top) / temperature) for v in values]
    order, kept, total = sorted(range(len(values)), key=weights.__getitem__, reverse=True), [], 0.0
    for k in order:
        kept.append(k)
        total += weights[k]
        if top_p < 1 and total >= top_p * sum(weights):
            break
    u = float(torch.rand((), generator=generator, dtype=torch.float64)) * total
    for k in kept:
        u -= weights[k]
        if u <= 0:
            break
    return k


def _drawn(logits, temperature, top_p, generator):
    """Sampling for the variants below, which stand alone."""
    scaled = logits.double() - logits.double().max()
    if temperature == 0:
        return int(scaled.argmax())
    p, order = torch.softmax(scaled / temperature, 0).sort(descending=True)
    cdf = p.cumsum(0)
    count = min(int((cdf < top_p).sum()) + 1, len(p))
    u = torch.rand(1, generator=generator, dtype=torch.float64) * cdf[count - 1]
    return int(order[min(int(torch.searchsorted(cdf[:count], u, right=True)), count - 1)])


@alternative("synthesize", unusual="one-hot rows, a tensor filled place by place, and a draw written out")
def synthesize_with_one_hot_rows(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    text = torch.zeros(n, dtype=torch.long)
    h = h0.clone()
    x = torch.zeros(len(params["c"]), dtype=h.dtype)
    x[start] = 1
    for t in range(n):
        h = torch.tanh(x @ params["U"] + torch.mv(params["W"].T, h) + params["b"])
        text[t] = _drawn(h @ params["V"] + params["c"], temperature, top_p, generator)
        x = torch.zeros_like(x)
        x[text[t]] = 1
    return text


@alternative("synthesize", unusual="a generator function, read to its n-th character; float64 inside")
def synthesize_by_a_generator(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    p = {k: v.double() for k, v in params.items()}

    def characters(h, x):
        while True:
            h = torch.tanh(p["U"][x] + h @ p["W"] + p["b"])
            x = _drawn(p["c"] + h @ p["V"], temperature, top_p, generator)
            yield x

    return torch.as_tensor(list(itertools.islice(characters(h0.double(), start), n)), dtype=torch.int64)


@alternative("synthesize", unusual="recursion")
def synthesize_by_recursion(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    def rest(h, x, left):
        if left == 0:
            return [], (h, x)
        h = torch.tanh(params["U"][x] + h @ params["W"] + params["b"])
        x = _drawn(h @ params["V"] + params["c"], temperature, top_p, generator)
        following, end = rest(h, x, left - 1)
        return [x, *following], end

    limit = 100  # of Python's stack: a text is written in pieces
    text, state = [], (h0, start)
    while len(text) < n:
        piece, state = rest(*state, min(limit, n - len(text)))
        text += piece
    return torch.tensor(text, dtype=torch.int64)


def _gradients(p, x, y, h):
    """The loss, the gradients and the last state of one chunk, written out."""
    H, before = [], h
    for i in x.tolist():
        before = torch.tanh(p["U"][i] + before @ p["W"] + p["b"])
        H.append(before)
    H = torch.stack(H)
    L = H @ p["V"] + p["c"]
    G = (torch.softmax(L, 1) - torch.eye(L.shape[1], dtype=L.dtype)[y]) / len(y)
    A, later = torch.zeros_like(H), torch.zeros_like(h)
    for t in range(len(y) - 1, -1, -1):
        A[t] = later = (p["V"] @ G[t] + p["W"] @ later) * (1 - H[t] ** 2)
    X = torch.eye(L.shape[1], dtype=L.dtype)[x]
    earlier = torch.cat([h[None], H[:-1]])
    grads = {"U": X.T @ A, "W": earlier.T @ A, "V": H.T @ G, "b": A.sum(0), "c": G.sum(0)}
    return F.cross_entropy(L, y), grads, H[-1]


@alternative("train_rnn", unusual="everything written out in one function; own copies changed in place; a while loop")
def train_written_out(params, indices, *, T, lr, clip, updates, on_update=None):
    p = {k: v.clone() for k, v in params.items()}
    sums = {k: torch.zeros_like(v) for k, v in params.items()}
    step, e, h = 0, 0, torch.zeros_like(p["b"])
    while step < updates:
        if e >= len(indices) - 1:
            e, h = 0, torch.zeros_like(h)
        y = indices[e + 1 : e + 1 + T]
        x = indices[e : e + len(y)]
        loss, grads, h = _gradients(p, x, y, h)
        for k, g in grads.items():
            g = torch.clamp(g, min=-clip, max=clip)
            sums[k] += g * g
            p[k] -= lr * g / (torch.sqrt(sums[k]) + 1e-10)
        if on_update is not None:
            on_update(step, float(loss), h)
        step, e = step + 1, e + T
    return p


@alternative("train_rnn", unusual="itertools.cycle over numbered chunks, on_update by keyword, float64 sums")
def train_by_cycle(params, indices, *, T, lr, clip, updates, on_update=None):
    pairs = list(zip(indices[:-1].split(T), indices[1:].split(T), strict=True))
    sums, h = {}, None
    for step, (k, (x, y)) in zip(range(updates), itertools.cycle(enumerate(pairs)), strict=False):
        h = params["b"].new_zeros(params["b"].shape) if k == 0 else h
        loss, grads, h = _gradients(params, x, y, h)
        grads = {name: g.clip(-clip, clip) for name, g in grads.items()}
        sums = {name: sums.get(name, 0) + g.double() ** 2 for name, g in grads.items()}
        params = {name: (v - lr * grads[name] / (sums[name].sqrt() + 1e-10)).to(v.dtype) for name, v in params.items()}
        (on_update or (lambda **named: None))(step=step, loss=loss.item(), h=h)
    return dict(params)


@alternative("train_rnn", unusual="a loop over passes with one over chunks inside, left when enough updates are done")
def train_pass_by_pass(params, indices, *, T, lr, clip, updates, on_update=None):
    p, sums, done = {k: v.clone() for k, v in params.items()}, {}, 0
    while done < updates:
        h = torch.zeros_like(p["b"])
        for s in range(0, len(indices) - 1, T):
            if done == updates:
                break
            y = indices[s + 1 : s + 1 + T]
            loss, grads, h = _gradients(p, indices[s : s + len(y)], y, h)
            for k, g in grads.items():
                g = torch.maximum(torch.minimum(g, torch.full_like(g, clip)), torch.full_like(g, -clip))
                sums[k] = torch.addcmul(sums.get(k, torch.zeros_like(g)), g, g)
                p[k] = torch.addcdiv(p[k], g, sums[k].sqrt() + 1e-10, value=-lr)
            if on_update:
                on_update(done, loss.item(), h.clone())
            done += 1
    return p


# --- Gates: LSTM and GRU ---------------------------------------------------------------------------------------------


@alternative("lstm_step", unusual="one matrix times [x, h, 1], the sigmoid by tanh, gates one by one")
def lstm_by_tanh(params, x, h, c):
    M = torch.cat([params["U"], params["W"], params["b"][None]])
    z = torch.cat([x, h, x.new_ones(1)]) @ M
    m = len(h)
    i, f, g, o = (z[k * m : (k + 1) * m] for k in range(4))
    i, f, o = ((1 + torch.tanh(v / 2)) / 2 for v in (i, f, o))
    g = torch.tanh(g)
    new = torch.addcmul(f * c, i, g)
    return [o * torch.tanh(new), new, (params, x, h, c, i, f, g, o, torch.tanh(new))]


@alternative("lstm_step", unusual="(4, m) blocks, NumPy inside")
def lstm_in_numpy(params, x, h, c):
    z = (x.numpy() @ params["U"].numpy() + h.numpy() @ params["W"].numpy() + params["b"].numpy()).reshape(4, -1)
    with np.errstate(over="ignore"):
        s = 1 / (1 + np.exp(-z))
    i, f, o, g = s[0], s[1], s[3], np.tanh(z[2])
    new = f * c.numpy() + i * g
    i, f, g, o, new = (torch.from_numpy(v) for v in (i, f, g, o, new))
    return o * torch.tanh(new), new, (params, x, h, c, i, f, g, o, torch.tanh(new))


@alternative("lstm_step", unusual="activation layers of torch.nn, unflatten")
def lstm_with_activation_layers(params, x, h, c):
    sigmoid, tanh = nn.Sigmoid(), nn.Tanh()
    z = F.linear(x, params["U"].T, params["b"]) + F.linear(h, params["W"].T)
    i, f, g, o = nn.Unflatten(0, (4, -1))(z).unbind()
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    new = f * c + i * g
    return o * tanh(new), new, (params, x, h, c, i, f, g, o, tanh(new))


@alternative("lstm_backward_step", unusual="one unit at a time, the gradients of U and W by einsum")
def lstm_back_in_loops(grad_h, grad_c, cache):
    params, x, h, c, i, f, g, o, s = cache
    m = len(h)
    z, old_c = torch.zeros(4 * m, dtype=h.dtype), torch.zeros_like(c)
    for j in range(m):
        d = grad_c[j] + grad_h[j] * o[j] * (1 - s[j] * s[j])
        z[j] = d * g[j] * i[j] * (1 - i[j])
        z[m + j] = d * c[j] * f[j] * (1 - f[j])
        z[2 * m + j] = d * i[j] * (1 - g[j] ** 2)
        z[3 * m + j] = grad_h[j] * s[j] * o[j] * (1 - o[j])
        old_c[j] = d * f[j]
    grads = {"b": z, "W": torch.einsum("i,j->ij", h, z), "U": torch.einsum("i,j->ij", x, z)}
    return [grads, params["U"].mv(z), z @ params["W"].T, old_c]


@alternative("gru_step", unusual="the mix as a step from n towards h; blocks cut from the parameters first")
def gru_by_lerp(params, x, h):
    U, W, b, b_h = ([*params[k].chunk(3, -1)] for k in ("U", "W", "b", "b_h"))
    r = torch.sigmoid(x @ U[0] + b[0] + h @ W[0] + b_h[0])
    z = torch.sigmoid(x @ U[1] + b[1] + h @ W[1] + b_h[1])
    n = torch.tanh(x @ U[2] + b[2] + r * (h @ W[2] + b_h[2]))
    return torch.lerp(n, h, z)


@alternative("gru_step", unusual="a module of its own, with activation layers")
def gru_with_a_module(params, x, h):
    class Gate(nn.Module):
        def __init__(self, k, squash):
            super().__init__()
            self.U, self.W, self.b, self.b_h = (params[n].chunk(3, -1)[k] for n in ("U", "W", "b", "b_h"))
            self.squash = squash

        def forward(self, x, h, r=1.0):
            return self.squash(x @ self.U + self.b + r * (h @ self.W + self.b_h))

    r, z = Gate(0, nn.Sigmoid())(x, h), Gate(1, nn.Sigmoid())(x, h)
    return z * h + (1 - z) * Gate(2, nn.Tanh())(x, h, r)


@alternative("gru_step", unusual="a batch of one row, float64 inside")
def gru_in_a_batch(params, x, h):
    p = {k: v.double() for k, v in params.items()}
    X, H = x.double()[None], h.double()[None]
    a, b = torch.addmm(p["b"], X, p["U"]), torch.addmm(p["b_h"], H, p["W"])
    m = H.shape[1]
    gates = torch.sigmoid(a[:, : 2 * m] + b[:, : 2 * m])
    n = torch.tanh(a[:, 2 * m :] + gates[:, :m] * b[:, 2 * m :])
    return (n + gates[:, m:] * (H - n))[0].to(h.dtype)


@alternative("gru_step", unusual="gates as one stacked sigmoid by tanh, the biases as rows of longer matrices")
def gru_with_longer_matrices(params, x, h):
    one = x.new_ones(1)
    a = torch.cat([x, one]) @ torch.cat([params["U"], params["b"][None]])
    b = torch.cat([h, one]) @ torch.cat([params["W"], params["b_h"][None]])
    a, b = a.view(3, -1), b.view(3, -1)
    r, z = (1 + torch.tanh((a[:2] + b[:2]) / 2)) / 2
    return h + (1 - z) * (torch.tanh(torch.addcmul(a[2], r, b[2])) - h)


@alternative("lstm_backward_step", unusual="everything but the first four of the cache computed anew; blocks as rows")
def lstm_back_from_the_inputs(grad_h, grad_c, cache):
    params, x, h, c = cache[:4]
    i, f, g, o = (x @ params["U"] + h @ params["W"] + params["b"]).view(4, -1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    s = torch.tanh(f * c + i * g)
    d = torch.addcmul(grad_c, grad_h * o, (1 - s) * (1 + s))
    slopes = torch.stack([g * i * (1 - i), c * f * (1 - f), i * (1 - g) * (1 + g), s * o * (1 - o)])
    z = (torch.stack([d, d, d, grad_h]) * slopes).flatten()
    grads = {"b": z, "U": x.unsqueeze(1) @ z.unsqueeze(0), "W": h.unsqueeze(1) @ z.unsqueeze(0)}
    return grads, z @ params["U"].T, z @ params["W"].T, d * f


# --- Modules ---------------------------------------------------------------------------------------------------------


@alternative(
    "CharLSTM", unusual="cells of its own and a loop over time; one-hot rows; other names; a list as the state"
)
class CellsOfItsOwn(nn.Module):
    def __init__(self, K, m, layers):
        super().__init__()
        self.K, self.m = K, m
        self.gates = nn.ModuleList([nn.Linear((K if k == 0 else m) + m, 4 * m) for k in range(layers)])
        self.readout = nn.Linear(m, K)

    def forward(self, x, state=None):
        if state is None:
            zeros = torch.zeros(len(self.gates), len(x), self.m)
            state = zeros, zeros
        h, c = list(state[0]), list(state[1])
        logits = []
        for x_t in F.one_hot(x, self.K).float().unbind(1):
            below = x_t
            for k, layer in enumerate(self.gates):
                i, f, g, o = layer(torch.cat([below, h[k]], 1)).chunk(4, 1)
                c[k] = f.sigmoid() * c[k] + i.sigmoid() * g.tanh()
                h[k] = below = o.sigmoid() * c[k].tanh()
            logits.append(self.readout(below))
        return torch.stack(logits, 1), [torch.stack(h), torch.stack(c)]


@alternative("CharLSTM", unusual="time first inside, an embedding of another size, two layers at the end")
class TimeFirst(nn.Module):
    def __init__(self, K, m, layers):
        super().__init__()
        self.table = nn.Parameter(0.5 * torch.randn(K, 11))
        self.rnn = nn.LSTM(11, m, num_layers=layers)
        self.head = nn.Sequential(nn.Linear(m, m), nn.Tanh(), nn.Linear(m, K))

    def forward(self, x, state=None):
        out, state = self.rnn(self.table[x.T], state)
        return self.head(out).transpose(0, 1), state


@alternative("CharLSTM", unusual="nn.LSTMCell in a loop over layers, then over time; the embedding tied to the output")
class CellByCell(nn.Module):
    def __init__(self, K, m, layers):
        super().__init__()
        self.embedding = nn.Embedding(K, m)
        self.cells = nn.ModuleList(nn.LSTMCell(m, m) for _ in range(layers))

    def forward(self, x, state=None):
        inputs, hs, cs = list(self.embedding(x).unbind(1)), [], []
        for k, one in enumerate(self.cells):
            hc = None if state is None else (state[0][k], state[1][k])
            outputs = []
            for row in inputs:
                hc = one(row, hc)
                outputs.append(hc[0])
            inputs = outputs
            hs.append(hc[0])
            cs.append(hc[1])
        return torch.stack(inputs, 1) @ self.embedding.weight.T, (torch.stack(hs), torch.stack(cs))


@alternative("CharLSTM", unusual="one-hot rows into nn.LSTM, forget biases of 1, small weights to the logits, no bias")
class OneHotRows(nn.Module):
    def __init__(self, K, m, layers):
        super().__init__()
        self.lstm = nn.LSTM(K, m, layers, batch_first=True)
        self.register_buffer("eye", torch.eye(K))
        self.out = nn.Linear(m, K, bias=False)
        nn.init.normal_(self.out.weight, std=0.02)
        for name, values in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.ones_(values.data[m : 2 * m])

    def forward(self, x, state=None):
        hidden, state = self.lstm(self.eye[x], state)
        return self.out(hidden), state


@alternative("train_truncated", unusual="F.cross_entropy on (N, K, T); zero_grad after the step; state by .data")
def train_with_data(model, batches, optimizer):
    losses, state = [], None
    for inputs, targets in batches:
        logits, (h, c) = model(inputs, state)
        loss = F.cross_entropy(logits.permute(0, 2, 1), targets)
        loss.backward()
        losses += [float(loss)]
        optimizer.step()
        optimizer.zero_grad()
        state = h.data, c.data
    return losses


@alternative(
    "train_truncated", unusual="autograd.grad and gradients set by hand; the mean as a sum over N·T; state a list"
)
def train_with_grad(model, batches, optimizer):
    parameters = list(model.parameters())
    losses, state = [], None
    for pair in batches:
        inputs, targets = pair
        if state is None:
            logits, state = model(inputs)
        else:
            logits, state = model(inputs, state)
        log_p = torch.log_softmax(logits, -1).gather(2, targets.unsqueeze(2))
        loss = -log_p.sum() / targets.numel()
        for p, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = grad
        optimizer.step()
        with torch.no_grad():
            state = [s.clone().detach() for s in state]
        losses.append(loss.detach().tolist())
    return losses


@alternative("train_truncated", unusual="optimizer.step(closure), which PyTorch's optimisers call; classes on axis 1")
def train_by_closures(model, batches, optimizer):
    losses, state, after = [], None, {}

    for inputs, targets in batches:

        def closure(inputs=inputs, targets=targets, state=state):
            optimizer.zero_grad(set_to_none=False)
            logits, after["state"] = model(inputs, state)
            loss = F.cross_entropy(logits.transpose(1, 2), targets)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
        state = tuple(part.detach() for part in after["state"])
    return losses


@alternative("perplexity", unusual="one character at a time, in Python floats; the geometric mean of 1/p")
def perplexity_step_by_step(model, indices):
    total, state = 0.0, None
    text = indices.tolist()
    for now, following in itertools.pairwise(text):
        if isinstance(model, dict):
            state = torch.zeros_like(model["b"]) if state is None else state
            state = torch.tanh(model["U"][now] + state @ model["W"] + model["b"])
            logits = state @ model["V"] + model["c"]
        else:
            x = torch.tensor([[now]])
            with torch.inference_mode():
                logits, state = model(x) if state is None else model(x, state)
            logits = logits[0, -1]
        logits = logits.double()
        total += float(torch.logsumexp(logits, 0) - logits[following])
    return math.e ** (total / (len(text) - 1))


@alternative("perplexity", unusual="isinstance of nn.Module, eval and back, nn.CrossEntropyLoss, autograd.no_grad")
def perplexity_in_eval_mode(model, indices):
    inputs, targets = indices[:-1], indices[1:]
    if isinstance(model, nn.Module):
        mode = model.training
        model.eval()
        with torch.autograd.no_grad():
            logits = model(inputs.unsqueeze(0), None)[0].squeeze(0)
        model.train(mode)
    elif isinstance(model, dict):
        h, states = model["b"].new_zeros(len(model["b"])), []
        for i in inputs:
            h = torch.tanh(model["U"][i] + h @ model["W"] + model["b"])
            states.append(h)
        logits = torch.stack(states) @ model["V"] + model["c"]
    else:
        logits = model(inputs.unsqueeze(0))[0].squeeze(0)
    return nn.CrossEntropyLoss()(logits, targets).exp().item()


@alternative("perplexity", unusual="nn.RNN with the dict's numbers put in")
def perplexity_by_nn_rnn(model, indices):
    with torch.no_grad():
        if isinstance(model, dict):
            K, m = model["U"].shape
            cell = nn.RNN(K, m, batch_first=True, dtype=model["b"].dtype)
            cell.weight_ih_l0.copy_(model["U"].T)
            cell.weight_hh_l0.copy_(model["W"].T)
            cell.bias_ih_l0.copy_(model["b"])
            cell.bias_hh_l0.zero_()
            H, _ = cell(F.one_hot(indices[None, :-1], K).to(model["b"].dtype))
            logits = H @ model["V"] + model["c"]
        else:
            logits, _ = model(indices[None, :-1])
        return math.exp(F.cross_entropy(logits[0], indices[1:]))


@alternative("perplexity", unusual="chunks with the state handed on; the weighted mean of the chunks' means")
def perplexity_in_chunks(model, indices):
    T, nats, state = 13, [], None
    for s in range(0, len(indices) - 1, T):
        y = indices[s + 1 : s + T + 1]
        x = indices[s : s + len(y)]
        if isinstance(model, dict):
            h = torch.zeros_like(model["b"]) if state is None else state
            states = []
            for row in model["U"][x]:
                h = torch.tanh(row + h @ model["W"] + model["b"])
                states.append(h)
            logits, state = torch.stack(states) @ model["V"] + model["c"], h
        else:
            logits, state = model(x.reshape(1, -1), state)
            logits, state = logits.squeeze(0).detach(), tuple(part.detach() for part in state)
        nats.append(F.cross_entropy(logits, y, reduction="none"))
    return torch.cat(nats).mean().exp().item()


# --- Bonus -----------------------------------------------------------------------------------------------------------


@alternative("attention", unusual="einsum, and a mask added: 0 or −∞")
def attention_by_einsum(Q, K, V, *, causal):
    scores = torch.einsum("...td,...sd->...ts", Q, K) * Q.shape[-1] ** -0.5
    if causal:
        T = scores.shape[-1]
        scores = scores + torch.full((T, T), -torch.inf, dtype=scores.dtype).triu(1)
    return torch.einsum("...ts,...se->...te", scores.softmax(-1), V)


@alternative("attention", unusual="the softmax as a layer of torch.nn, the mask as a buffer of ones")
def attention_with_a_layer(Q, K, V, *, causal):
    scores = torch.matmul(Q, K.transpose(-1, -2)).div(math.sqrt(K.size(-1)))
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores[..., :, :]).tril() == 0, float("-inf"))
    return torch.matmul(nn.Softmax(dim=-1)(scores), V)


@alternative("attention", unusual="one query at a time, over the keys that it may see")
def attention_query_by_query(Q, K, V, *, causal):
    rows = []
    for t in range(Q.shape[-2]):
        end = t + 1 if causal else K.shape[-2]
        scores = (K[..., :end, :] * Q[..., t : t + 1, :]).sum(-1) / math.sqrt(Q.shape[-1])
        rows.append((torch.softmax(scores, -1)[..., None] * V[..., :end, :]).sum(-2))
    return torch.stack(rows, -2)


@alternative("attention", unusual="exp and a mask of ones and zeros, the largest score of a row subtracted first")
def attention_by_exp(Q, K, V, *, causal):
    scores = (Q / math.sqrt(Q.shape[-1])) @ K.mT
    seen = torch.ones_like(scores).tril() if causal else torch.ones_like(scores)
    top = torch.where(seen > 0, scores, scores.new_tensor(-torch.inf)).amax(-1, keepdim=True)
    weights = torch.exp((scores - top).clamp(max=0)) * seen
    return weights @ V / weights.sum(-1, keepdim=True)


@alternative("CausalSelfAttention", unusual="a list of heads, each with its layers; no biases; PyTorch's own function")
class ListOfHeads(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.parts = nn.ModuleList(
            [nn.ModuleDict({k: nn.Linear(d, d // heads, bias=False) for k in "qkv"}) for _ in range(heads)]
        )
        self.join = nn.Linear(d, d, bias=False)

    def forward(self, x):
        mixed = [F.scaled_dot_product_attention(p["q"](x), p["k"](x), p["v"](x), is_causal=True) for p in self.parts]
        return self.join(torch.cat(mixed, -1))


@alternative("CausalSelfAttention", unusual="parameters as plain tensors and einsum; heads as an axis of the weights")
class WeightsByHead(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        size = d // heads
        self.inward = nn.Parameter(torch.randn(3, heads, d, size) / math.sqrt(d))
        self.outward = nn.Parameter(torch.randn(heads, size, d) / math.sqrt(d))

    def forward(self, x):
        q, k, v = torch.einsum("ntd,chds->cnhts", x, self.inward)
        scores = torch.einsum("nhts,nhus->nhtu", q, k) / q.shape[-1] ** 0.5
        later = torch.arange(x.shape[1])[:, None] < torch.arange(x.shape[1])
        weights = scores.masked_fill(later, torch.finfo(scores.dtype).min).softmax(-1)
        return torch.einsum("nhtu,nhus,hsd->ntd", weights, v, self.outward)


@alternative("beam_search", unusual="all continuations of all beginnings in one tensor, the best by one topk")
def beam_by_tensors(step, start, width, n):
    totals, sequences, states = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 0, dtype=torch.int64), [None]
    for _ in range(n):
        rows = [step(s, int(q[-1]) if len(q) else start) for s, q in zip(states, sequences, strict=True)]
        scores = totals[:, None] + torch.stack([r[0] for r in rows]).double()
        K = scores.shape[1]
        totals, flat = scores.flatten().topk(min(width, scores.numel()))
        sequences = torch.cat([sequences[flat // K], (flat % K)[:, None]], 1)
        states = [rows[b][1] for b in (flat // K).tolist()]
    return sequences[0]


@alternative(
    "beam_search", unusual="the first step by itself; the beginnings as chains of pairs, walked back at the end"
)
def beam_by_chains(step, start, width, n):
    log_p, state = step(None, start)
    beams = [(float(v), (k, None), state) for k, v in enumerate(log_p)]
    for _ in range(n - 1):
        beams = sorted(beams, key=lambda beam: -beam[0])[:width]
        grown = []
        for total, chain, state in beams:
            log_p, after = step(state, chain[0])
            grown += [(total + float(v), (k, chain), after) for k, v in enumerate(log_p)]
        beams = grown
    chain, text = max(beams, key=lambda beam: beam[0])[1], []
    while chain is not None:
        text.insert(0, chain[0])
        chain = chain[1]
    return torch.tensor(text)


@alternative("beam_search", unusual="the start kept in the beginnings until the end; a heap; keyword arguments of step")
def beam_by_heap(step, start, width, n):
    import heapq

    beams = [(0.0, (start,), None)]
    for _ in range(n):
        grown = []
        for total, sequence, state in beams:
            log_p, after = step(state=state, index=sequence[-1])
            grown += [(total + float(v), (*sequence, k), after) for k, v in enumerate(log_p)]
        beams = heapq.nlargest(width, grown, key=lambda beam: beam[0])
    return torch.tensor(beams[0][1][1:], dtype=torch.long)
