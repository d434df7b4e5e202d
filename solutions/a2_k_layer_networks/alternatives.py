"""Right but unusual solutions of Assignment 2, each of which must get full marks.

A forward pass and its backward pass agree on a cache, so those that stand here alone keep the reference's; pairs
with caches of their own are in the tests.
"""

from __future__ import annotations

import bisect
import math
from itertools import accumulate, chain, pairwise

import numpy as np
import torch
import torch.nn.functional as F

from course_utils.checking import alternative

# --- Initialisation --------------------------------------------------------------------------------------------------


@alternative("initialize", unusual="normal_ on empty arrays, the last layer drawn first, a dict of formulas")
def initialize_backwards(sizes, scheme, *, sigma=None, generator):
    formulas = {"he": lambda a, b: 2 / a, "xavier": lambda a, b: 2 / (a + b), "normal": lambda a, b: sigma**2}
    try:
        variance = formulas[scheme]
    except KeyError:
        raise ValueError(f"{scheme} is no scheme") from None
    layers = []
    for a, b in reversed(list(pairwise(sizes))):
        W = torch.empty(a, b).normal_(0, math.sqrt(variance(a, b)), generator=generator)
        layers.append({"b": W.new_zeros(b), "W": W})
    return tuple(reversed(layers))


@alternative("initialize", unusual="NumPy's numbers, seeded from the generator, then converted")
def initialize_in_numpy(sizes, scheme, *, sigma=None, generator):
    rng = np.random.default_rng(torch.randint(2**31, (4,), generator=generator).tolist())
    layers = []
    for i in range(len(sizes) - 1):
        match scheme:
            case "he":
                std = (2 / sizes[i]) ** 0.5
            case "xavier":
                std = (2 / (sizes[i] + sizes[i + 1])) ** 0.5
            case "normal":
                std = sigma
            case _:
                raise ValueError("unknown scheme: " + str(scheme))
        W = rng.normal(0, std, (sizes[i], sizes[i + 1])).astype(np.float32)
        layers.append({"W": torch.from_numpy(W), "b": torch.from_numpy(np.zeros(sizes[i + 1], np.float32))})
    return layers


@alternative("initialize", unusual="torch.normal, and one long vector of numbers cut into copies")
def initialize_from_one_vector(sizes, scheme, *, sigma=None, generator):
    if scheme not in ("he", "xavier", "normal"):
        raise ValueError(f"scheme={scheme!r}")
    counts = [a * b for a, b in pairwise(sizes)]
    numbers = torch.normal(0.0, 1.0, (sum(counts),), generator=generator).split(counts)
    layers = []
    for z, (a, b) in zip(numbers, pairwise(sizes), strict=True):
        std = {"he": (2 / a) ** 0.5, "xavier": (2 / (a + b)) ** 0.5, "normal": sigma}[scheme]
        layers.append(dict(W=std * z.reshape(a, b), b=torch.zeros(b)))
    return layers


# --- The network -----------------------------------------------------------------------------------------------------


@alternative("forward", unusual="F.linear on transposed weights, relu as where")
def forward_by_linear(X, layers):
    inputs = []
    for k, layer in enumerate(layers):
        inputs.append(X)
        X = F.linear(X, layer["W"].T, layer["b"])
        if k + 1 < len(layers):
            X = torch.where(X > 0, X, torch.zeros_like(X))
    return X, (inputs, X)


@alternative("forward", unusual="recursive, with einsum")
def forward_recursive(X, layers):
    first, *rest = layers
    S = torch.einsum("nd,dk->nk", X, first["W"]) + first["b"].unsqueeze(0)
    if not rest:
        return [S, ([X], S)]
    scores, (inputs, _) = forward_recursive(torch.maximum(S, S.new_zeros(())), rest)
    return [scores, ([X, *inputs], scores)]


@alternative("forward", unusual="an object with __call__, one example at a time, in-place on own copies")
class ForwardOneByOne:
    def __call__(self, X, layers):
        rows = [X[i].clone() for i in range(len(X))]
        inputs = [X]
        for layer in layers[:-1]:
            rows = [(row @ layer["W"]).add_(layer["b"]).clamp_(min=0) for row in rows]
            inputs.append(torch.stack(rows))
        scores = torch.stack([row @ layers[-1]["W"] + layers[-1]["b"] for row in rows])
        return scores, (inputs, scores)


@alternative("cost", unusual="a Python float, from logsumexp, the penalty as a product with itself")
def cost_as_a_float(X, y, layers, lam):
    for layer in layers[:-1]:
        X = torch.addmm(layer["b"], X, layer["W"]).relu()
    scores = torch.addmm(layers[-1]["b"], X, layers[-1]["W"])
    loss = scores.logsumexp(1) - scores.gather(1, y[:, None])[:, 0]
    flat = torch.cat([layer["W"].reshape(-1) for layer in layers])
    return loss.mean().item() + lam * flat.dot(flat).item()


@alternative("cost", unusual="the sum reduced by hand, a one-hot product, the Frobenius norm squared")
def cost_by_one_hot(X, y, layers, lam):
    H = X
    for k, layer in enumerate(layers):
        H = H @ layer["W"] + layer["b"]
        H = F.relu(H) if k < len(layers) - 1 else H
    Y = torch.eye(H.shape[1], dtype=H.dtype)[y]
    penalty = sum(torch.linalg.norm(layer["W"]) ** 2 for layer in layers)
    return -(Y * F.log_softmax(H, dim=1)).sum() / X.shape[0] + lam * penalty


@alternative("backward", unusual="one example at a time, outer products, gradients built up in place")
def backward_by_outer_products(y, layers, cache, lam):
    inputs, scores = cache
    gradients = [{"W": 2 * lam * layer["W"], "b": torch.zeros_like(layer["b"])} for layer in layers]
    for i, label in enumerate(y.tolist()):
        g = torch.softmax(scores[i], 0)
        g[label] -= 1
        g /= len(y)
        for k in range(len(layers) - 1, -1, -1):
            gradients[k]["W"] += torch.outer(inputs[k][i], g)
            gradients[k]["b"] += g
            if k > 0:
                g = layers[k]["W"] @ g
                g[inputs[k][i] <= 0] = 0
    return gradients


@alternative("backward", unusual="examples as columns, as the lectures write it; a tuple of dicts with b first")
def backward_transposed(y, layers, cache, lam):
    inputs, scores = cache
    Y = F.one_hot(y, scores.shape[1]).T.to(scores.dtype)
    G = (F.softmax(scores.T, dim=0) - Y) / Y.shape[1]  # (K, N)
    gradients = ()
    for k in range(len(layers) - 1, -1, -1):
        H, W = inputs[k].T, layers[k]["W"].T
        gradients = ({"b": G @ G.new_ones(G.shape[1]), "W": (G @ H.T + 2 * lam * W).T}, *gradients)
        G = (W.T @ G) * torch.sign(H)
    return gradients


@alternative("backward", unusual="probabilities by exp and logsumexp, a mask by where, float64 inside")
def backward_in_float64(y, layers, cache, lam):
    dtype = cache[1].dtype
    inputs, scores = [H.double() for H in cache[0]], cache[1].double()
    G = torch.exp(scores - scores.logsumexp(1, keepdim=True))
    G = torch.where(y[:, None] == torch.arange(G.shape[1]), G - 1, G).div(len(y))
    found = []
    for H, layer in zip(inputs[::-1], layers[::-1], strict=True):
        W = layer["W"].double()
        found.insert(0, {"W": torch.matmul(H.mT, G).add(W, alpha=2 * lam).to(dtype), "b": G.sum(dim=0).to(dtype)})
        G = torch.where(H > 0, G @ W.mT, 0.0)
    return found


# --- Learning rates and training -------------------------------------------------------------------------------------


@alternative("cyclical_lr", unusual="the formulas of the assignment with l, by cases")
def cyclical_by_cases(t, n_s, lr_min, lr_max):
    l = t // (2 * n_s)
    if t <= (2 * l + 1) * n_s:
        return lr_min + (t - 2 * l * n_s) / n_s * (lr_max - lr_min)
    return lr_max - (t - (2 * l + 1) * n_s) / n_s * (lr_max - lr_min)


@alternative("cyclical_lr", unusual="Smith's formula with floor and abs, as a 0-d tensor")
def cyclical_of_smith(t, n_s, lr_min, lr_max):
    cycle = math.floor(1 + t / (2 * n_s))
    x = abs(t / n_s - 2 * cycle + 1)
    return torch.tensor(lr_min + (lr_max - lr_min) * max(0.0, 1 - x), dtype=torch.float64)


@alternative("cyclical_lr", unusual="a weighted mean of the two, counted from the nearest peak")
def cyclical_from_the_peak(t, n_s, lr_min, lr_max):
    part = abs((t + n_s) % (2 * n_s) - n_s) / n_s
    return part * lr_max + (1 - part) * lr_min


def _net_forward(X, layers):
    inputs = [X]
    for layer in layers[:-1]:
        inputs.append(torch.relu(inputs[-1] @ layer["W"] + layer["b"]))
    return inputs[-1] @ layers[-1]["W"] + layers[-1]["b"], inputs


def _net_gradients(scores, inputs, y, layers, lam):
    G, found = (torch.softmax(scores, 1) - F.one_hot(y, scores.shape[1])) / len(y), []
    for H, layer in zip(inputs[::-1], layers[::-1], strict=True):
        found.insert(0, {"W": H.T @ G + 2 * lam * layer["W"], "b": G.sum(0)})
        G = G @ layer["W"].T * (H > 0)
    return found


def _triangle(t, n_s, lr_min, lr_max):
    return lr_min + (lr_max - lr_min) * (n_s - abs(t % (2 * n_s) - n_s)) / n_s


def _train_in_place(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    layers = [{k: v.clone() for k, v in layer.items()} for layer in layers]
    updates = 2 * n_s * cycles
    epochs = math.ceil(updates / math.ceil(len(X) / batch_size))
    orders = torch.rand(epochs, len(X), generator=generator).argsort(1)
    for t, batch in zip(range(updates), chain.from_iterable(order.split(batch_size) for order in orders), strict=False):
        scores, inputs = _net_forward(X[batch], layers)
        if on_step:
            penalty = sum(layer["W"].square().sum() for layer in layers)
            value = (F.cross_entropy(scores, y[batch]) + lam * penalty).item()
        lr = _triangle(t, n_s, lr_min, lr_max)
        for layer, gradient in zip(layers, _net_gradients(scores, inputs, y[batch], layers, lam), strict=True):
            for key in gradient:
                layer[key].sub_(gradient[key], alpha=lr)
        if on_step:
            on_step(t, lr, value)
    return layers


@alternative("train", unusual="in place on deep copies, the order by sorting random numbers, all drawn beforehand")
def train_in_place_on_copies(X, y, layers, **named):
    return _train_in_place(X, y, layers, **named)


@alternative("train", unusual="a shuffled copy of the set for every epoch, a while loop, NumPy's permutation")
def train_on_shuffled_copies(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rng = np.random.default_rng(torch.randint(2**31, (2,), generator=generator).tolist())
    t = start = 0
    while t < 2 * n_s * cycles:
        if start == 0:
            order = torch.from_numpy(rng.permutation(len(X)))
            own_X, own_y = X[order].clone(), y[order].clone()
        batch_X, batch_y = own_X[start : start + batch_size], own_y[start : start + batch_size]
        start = 0 if start + batch_size >= len(X) else start + batch_size
        lr = _triangle(t, n_s, lr_min, lr_max)
        scores, inputs = _net_forward(batch_X, layers)
        value = float(F.cross_entropy(scores, batch_y)) + lam * sum(float((h["W"] ** 2).sum()) for h in layers)
        found = _net_gradients(scores, inputs, batch_y, layers, lam)
        layers = [{"W": h["W"] - lr * g["W"], "b": h["b"] - lr * g["b"]} for h, g in zip(layers, found, strict=True)]
        on_step is None or on_step(t, lr, value)
        t += 1
    return tuple(layers)


@alternative("train", unusual="PyTorch's DataLoader, seeded from the generator; stops by an exception")
def train_with_a_data_loader(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    examples = torch.utils.data.TensorDataset(X, y)
    loader = torch.utils.data.DataLoader(examples, batch_size, shuffle=True, generator=own)
    rates = iter([(t, _triangle(t, n_s, lr_min, lr_max)) for t in range(2 * n_s * cycles)])
    try:
        while True:
            for batch_X, batch_y in loader:
                t, lr = next(rates)
                scores, inputs = _net_forward(batch_X, layers)
                loss = F.cross_entropy(scores, batch_y) + lam * sum((h["W"] ** 2).sum() for h in layers)
                found = _net_gradients(scores, inputs, batch_y, layers, lam)
                layers = [{k: v - lr * g[k] for k, v in h.items()} for h, g in zip(layers, found, strict=True)]
                if on_step is not None:
                    on_step(t, lr, loss.item())
    except StopIteration:
        return layers


@alternative("log_uniform", unusual="powers of ten of uniform exponents, sorted")
def log_uniform_sorted(low, high, n, generator):
    exponents = torch.empty(n).uniform_(math.log10(low), math.log10(high), generator=generator)
    return (10**exponents).sort().values.clamp(low, high)


@alternative("log_uniform", unusual="one number after the other in Python, on logarithms to base 2")
def log_uniform_in_a_loop(low, high, n, generator):
    a, b = math.log2(low), math.log2(high)
    draws = [torch.rand((), generator=generator, dtype=torch.float64).item() for _ in range(n)]
    return torch.tensor([min(max(2 ** (a + (b - a) * u), low), high) for u in draws], dtype=torch.float32)


@alternative("log_uniform", unusual="from exponentially distributed numbers")
def log_uniform_by_exponentials(low, high, n, generator):
    u = torch.exp(-torch.empty(n, dtype=torch.float64).exponential_(generator=generator))
    return torch.exp(math.log(high) + u * (math.log(low) - math.log(high))).float()


# --- Update rules ----------------------------------------------------------------------------------------------------


@alternative("momentum_step", unusual="the learning rate inside the velocity, which is a step already")
def momentum_of_steps(theta, grad, state, *, lr, momentum):
    step = -lr * grad if state is None else momentum * state - lr * grad
    return theta + step, step


@alternative("momentum_step", unusual="the whole past in the state: all gradients")
def momentum_of_all_gradients(theta, grad, state, *, lr, momentum):
    past = [*(state or []), grad.clone()]
    velocity = sum(momentum ** (len(past) - 1 - i) * g for i, g in enumerate(past))
    return theta - lr * velocity, past


@alternative("momentum_step", unusual="a closure as the state, in place on own copies")
def momentum_in_a_closure(theta, grad, state, *, lr, momentum):
    velocity = grad.clone()
    if state is not None:
        velocity.add_(state(), alpha=momentum)
    return [theta.clone().sub_(velocity, alpha=lr), lambda: velocity]


@alternative("nesterov_step", unusual="a dict as the state; the step by the old velocity and the gradient")
def nesterov_by_the_old_velocity(theta, grad, state, *, lr, momentum):
    old = torch.zeros_like(theta) if state is None else state["v"]
    return theta - lr * ((1 + momentum) * grad + momentum**2 * old), {"v": momentum * old + grad}


@alternative("nesterov_step", unusual="the shifted parameters of Nesterov's own form are kept in the state")
def nesterov_of_steps(theta, grad, state, *, lr, momentum):
    previous = torch.zeros_like(grad) if state is None else state
    step = momentum * previous - lr * grad
    return theta - momentum * previous + (1 + momentum) * step, step


@alternative("rmsprop_step", unusual="lerp, and addcdiv")
def rmsprop_by_lerp(theta, grad, state, *, lr, alpha, eps):
    old = torch.zeros_like(grad) if state is None else state[0]
    v = torch.lerp(grad * grad, old, alpha)
    return torch.addcdiv(theta, grad, v.sqrt() + eps, value=-lr), (v,)


@alternative("rmsprop_step", unusual="in NumPy")
def rmsprop_in_numpy(theta, grad, state, *, lr, alpha, eps):
    g = grad.numpy()
    v = (1 - alpha) * np.square(g) + (0 if state is None else alpha * state)
    step = (lr * g / (np.sqrt(v) + eps)).astype(g.dtype)
    return theta - torch.from_numpy(np.ascontiguousarray(step)).reshape(theta.shape), v


@alternative("adam_step", unusual="the corrections as running products in the state, folded into the step")
def adam_with_running_products(theta, grad, state, *, lr, betas, eps):
    b1, b2 = betas
    m, v, p1, p2 = state or (0.0, 0.0, 1.0, 1.0)
    m, v, p1, p2 = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad * grad, p1 * b1, p2 * b2
    return theta - lr / (1 - p1) * m / (v.sqrt() / math.sqrt(1 - p2) + eps), (m, v, p1, p2)


@alternative("adam_step", unusual="unnormalised sums, each divided by the sum of its weights")
def adam_by_weighted_sums(theta, grad, state, *, lr, betas, eps):
    m, v, wm, wv = state or (torch.zeros_like(grad), torch.zeros_like(grad), 0.0, 0.0)
    m, wm = betas[0] * m + grad, betas[0] * wm + 1
    v, wv = betas[1] * v + grad.square(), betas[1] * wv + 1
    return theta - lr * (m / wm) / ((v / wv).sqrt() + eps), (m, v, wm, wv)


@alternative("adam_step", unusual="the step's number as a tensor, an object as the state")
def adam_with_an_object(theta, grad, state, *, lr, betas, eps):
    new = _AdamState()
    old = state or new
    new.t = old.t + torch.ones((), dtype=torch.int64)
    new.m = old.m * betas[0] + grad * (1 - betas[0])
    new.v = old.v * betas[1] + grad**2 * (1 - betas[1])
    correction = [1 - beta ** int(new.t) for beta in betas]
    return theta - lr * (new.m / correction[0]) / (torch.sqrt(new.v / correction[1]) + eps), new


class _AdamState:
    """What Adam remembers."""

    t, m, v = torch.zeros((), dtype=torch.int64), 0.0, 0.0


# --- Batch normalisation ---------------------------------------------------------------------------------------------


@alternative("batch_norm_forward", unusual="var_mean, rsqrt, lerp for the running average")
def batch_norm_by_lerp(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if not training:
        rstd = torch.rsqrt(running["var"] + eps)
        S_hat = (S - running["mean"]) * rstd
        return torch.addcmul(beta, gamma, S_hat), (S_hat, gamma, rstd), running
    var, mean = torch.var_mean(S, 0, correction=0)
    now = {"var": var, "mean": mean}
    new = now if running is None else {k: torch.lerp(now[k], running[k], decay) for k in now}
    rstd = torch.rsqrt(var + eps)
    S_hat = (S - mean) * rstd
    return torch.addcmul(beta, gamma, S_hat), (S_hat, gamma, rstd), new


@alternative("batch_norm_forward", unusual="column by column, in an object with __call__")
class BatchNormByColumns:
    def __call__(self, S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
        out, S_hat, inverse = torch.empty_like(S), torch.empty_like(S), torch.empty_like(gamma)
        new = {k: torch.empty_like(gamma) for k in ("mean", "var")}
        for j in range(S.shape[1]):
            column = S[:, j]
            if training:
                mean = column.sum() / len(column)
                var = ((column - mean) ** 2).sum() / len(column)
                first = running is None
                new["mean"][j] = mean if first else running["mean"][j] * decay + mean * (1 - decay)
                new["var"][j] = var if first else running["var"][j] * decay + var * (1 - decay)
            else:
                mean, var = running["mean"][j], running["var"][j]
                new["mean"][j], new["var"][j] = mean, var
            inverse[j] = (var + eps) ** -0.5
            S_hat[:, j] = (column - mean) * inverse[j]
            out[:, j] = S_hat[:, j] * gamma[j] + beta[j]
        return out, (S_hat, gamma, inverse), new


@alternative("batch_norm_forward", unusual="the running average moves by a part of the difference; keepdim everywhere")
def batch_norm_by_difference(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if training:
        mean = S.mean(dim=0, keepdim=True)
        var = (S - mean).square().mean(dim=0, keepdim=True)
        old = {"mean": mean[0], "var": var[0]} if running is None else running
        running = {
            "mean": old["mean"] + (1 - decay) * (mean[0] - old["mean"]),
            "var": old["var"] + (1 - decay) * (var[0] - old["var"]),
        }
    else:
        mean, var = running["mean"][None], running["var"][None]
    inverse = 1 / (var + eps).sqrt()
    S_hat = (S - mean).mul_(inverse)
    return S_hat * gamma[None] + beta[None], (S_hat, gamma, inverse[0]), running


@alternative("batch_norm_backward", unusual="the three paths one by one, as the chain rule gives them")
def batch_norm_backward_by_paths(grad_out, cache):
    S_hat, gamma, inverse = cache
    N = grad_out.shape[0]
    centred = S_hat / inverse
    g = grad_out * gamma
    grad_var = -0.5 * (g * centred).sum(0) * inverse**3
    grad_mean = -(g * inverse).sum(0) - 2 * grad_var * centred.mean(0)
    grad_S = g * inverse + grad_var * 2 * centred / N + grad_mean / N
    return grad_S, (grad_out * S_hat).sum(0), grad_out.sum(0)


@alternative("batch_norm_backward", unusual="a Jacobian matrix for every feature")
def batch_norm_backward_by_jacobians(grad_out, cache):
    S_hat, gamma, inverse = cache
    N, columns = len(grad_out), []
    identity = torch.eye(N, dtype=grad_out.dtype)
    for j in range(S_hat.shape[1]):
        h = S_hat[:, j]
        jacobian = gamma[j] * inverse[j] * (identity - 1 / N - torch.outer(h, h) / N)
        columns.append(jacobian @ grad_out[:, j])
    ones = torch.ones(N, dtype=grad_out.dtype)
    return [torch.stack(columns, 1), torch.einsum("nm,nm->m", grad_out, S_hat), ones @ grad_out]


@alternative("batch_norm_backward", unusual="(N G − Σ G − Ŝ Σ G Ŝ) / N, in place on own copies")
def batch_norm_backward_over_N(grad_out, cache):
    S_hat, gamma, inverse = cache
    sums = grad_out.sum(0), (grad_out * S_hat).sum(0)
    grad_S = grad_out * len(grad_out)
    grad_S -= sums[0]
    grad_S -= S_hat * sums[1]
    grad_S *= gamma * inverse / len(grad_out)
    return grad_S, sums[1], sums[0]


def _normalised(S, layer, running, training):
    mean, var = (S.mean(0), S.var(0, correction=0)) if training else (running["mean"], running["var"])
    inverse = torch.rsqrt(var + 1e-5)
    S_hat = (S - mean) * inverse
    return layer["gamma"] * S_hat + layer["beta"], (S_hat, layer["gamma"], inverse), {"mean": mean, "var": var}


def _bn_in_one_loop(X, layers, running, *, training):
    inputs, caches, new = [], [], []
    for k, layer in enumerate(layers):
        inputs.append(X)
        X = X.matmul(layer["W"]).add(layer["b"])
        if "gamma" in layer:
            old = None if not running else running[k]
            X, cache, now = _normalised(X, layer, old, training)
            if training and old is not None:
                now = {name: 0.9 * old[name] + 0.1 * value for name, value in now.items()}
            caches.append(cache)
            new.append(now)
            X = X.clamp(min=0)
    return X, (inputs, caches, X), new


@alternative("forward_bn", unusual="everything inside one loop over all layers, gamma looked for in the dict")
def forward_bn_in_one_loop(X, layers, running, *, training):
    return _bn_in_one_loop(X, layers, running, training=training)


@alternative("forward_bn", unusual="an evaluation by layers into which the normalisation is folded")
def forward_bn_folded(X, layers, running, *, training):
    if training:
        return _bn_in_one_loop(X, layers, running, training=True)
    H = X
    for layer, known in zip(layers[:-1], running, strict=True):
        scale = layer["gamma"] / torch.sqrt(known["var"] + 1e-5)
        H = torch.relu(H @ (layer["W"] * scale) + (layer["b"] - known["mean"]) * scale + layer["beta"])
    return H @ layers[-1]["W"] + layers[-1]["b"], None, list(running)


@alternative("backward_bn", unusual="one loop over all layers; a hidden b's gradient is exactly zero")
def backward_bn_in_one_loop(y, layers, cache, lam):
    inputs, caches, scores = cache
    G, found = (torch.softmax(scores, 1) - F.one_hot(y, scores.shape[1])) / len(y), []
    for k in range(len(layers) - 1, -1, -1):
        gradients = {}
        if k < len(layers) - 1:
            S_hat, gamma, inverse = caches[k]
            G = torch.where(inputs[k + 1] > 0, G, 0.0)
            gradients = {"beta": G.sum(0), "gamma": (G * S_hat).sum(0), "b": torch.zeros_like(gamma)}
            G = gamma * inverse * (G - G.mean(0) - S_hat * gradients["gamma"] / len(y))
        gradients = {"b": G.sum(0)} | gradients | {"W": inputs[k].T @ G + lam * layers[k]["W"] * 2}
        found = [gradients, *found]
        G = G @ layers[k]["W"].T
    return found


# --- Dropout ---------------------------------------------------------------------------------------------------------


@alternative("dropout_forward", unusual="Bernoulli draws of what stays; ones as the mask of an evaluation")
def dropout_by_bernoulli(H, p, *, training, generator):
    if not training:
        return H.clone(), torch.ones_like(H)
    mask = torch.bernoulli(torch.full_like(H, 1 - p, memory_format=torch.contiguous_format), generator=generator)
    mask = mask.div(1 - p)
    return H.mul(mask), mask


@alternative("dropout_forward", unusual="one draw after the other, in NumPy seeded from the generator")
def dropout_in_numpy(H, p, *, training, generator):
    if not training or p == 0:
        return H, None
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    keep = torch.tensor([[rng.random() > p for _ in row] for row in H], dtype=H.dtype)
    return H * keep / (1 - p), keep / (1 - p)


@alternative("dropout_forward", unusual="masked_fill, and draws in another shape")
def dropout_by_masked_fill(H, p, *, training, generator):
    dropped = torch.rand(H.numel(), generator=generator, dtype=torch.float64).reshape(H.shape) < (p if training else 0)
    scale = 1 / (1 - p) if training else 1.0
    return (H * scale).masked_fill(dropped, 0.0), (~dropped).to(H.dtype) * scale


@alternative("dropout_backward", unusual="where, on an own copy")
def dropout_backward_by_where(grad_out, cache):
    if cache is None:
        return grad_out.clone()
    return torch.where(cache > 0, grad_out * cache.max(), torch.zeros_like(grad_out))


@alternative("dropout_backward", unusual="einsum of gradient and mask")
def dropout_backward_by_einsum(grad_out, cache):
    return grad_out if cache is None else torch.einsum("nm,nm->nm", grad_out, cache)


# --- Bonus -----------------------------------------------------------------------------------------------------------


@alternative("ensemble", unusual="a running mean, updated model by model")
def ensemble_by_running_mean(probabilities):
    mean = torch.zeros_like(probabilities[0])
    for k, p in enumerate(probabilities, 1):
        mean = mean + (p - mean) / k
    return mean


@alternative("ensemble", unusual="in NumPy")
def ensemble_in_numpy(probabilities):
    return torch.from_numpy(np.mean([p.numpy() for p in probabilities], axis=0))


@alternative("ensemble", unusual="a weighted sum by einsum, summed from the last to the first")
def ensemble_by_einsum(probabilities):
    stacked = torch.stack(probabilities[::-1])
    weights = stacked.new_full((len(stacked),), 1 / len(stacked))
    return torch.einsum("m,mnk->nk", weights, stacked)


@alternative("train_snapshots", unusual="train called once for each cycle, so that epochs begin anew with a cycle")
def snapshots_cycle_by_cycle(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    found = []
    for c in range(cycles):
        told = on_step and (lambda t, lr, cost, c=c: on_step(t + 2 * n_s * c, lr, cost))
        layers = _train_in_place(
            X,
            y,
            layers,
            lam=lam,
            batch_size=batch_size,
            n_s=n_s,
            cycles=1,
            lr_min=lr_min,
            lr_max=lr_max,
            generator=generator,
            on_step=told,
        )
        found.append(layers)
    return found


@alternative("train_snapshots", unusual="in place, with a deep copy at the end of every cycle")
def snapshots_as_copies(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    layers = [{k: v.clone() for k, v in layer.items()} for layer in layers]
    batches, found = [], []
    for t in range(2 * n_s * cycles):
        if not batches:
            batches = list(torch.randperm(len(X), generator=generator).split(batch_size))[::-1]
        batch = batches.pop()
        scores, inputs = _net_forward(X[batch], layers)
        value = F.cross_entropy(scores, y[batch]) + lam * sum((h["W"] ** 2).sum() for h in layers)
        lr = _triangle(t, n_s, lr_min, lr_max)
        for layer, gradient in zip(layers, _net_gradients(scores, inputs, y[batch], layers, lam), strict=True):
            layer["W"] -= lr * gradient["W"]
            layer["b"] -= lr * gradient["b"]
        if on_step is not None:
            on_step(t, lr, float(value))
        if (t + 1) % (2 * n_s) == 0:
            found.append([{k: v.clone() for k, v in layer.items()} for layer in layers])
    return tuple(found)


@alternative("label_smoothing_cross_entropy", unusual="F.cross_entropy with a soft target")
def smoothing_by_soft_targets(scores, y, epsilon):
    K = scores.shape[1]
    target = F.one_hot(y, K).to(scores.dtype) * (1 - epsilon) + epsilon / K
    return F.cross_entropy(scores, target)


@alternative("label_smoothing_cross_entropy", unusual="a mixture of two cross-entropies, logsumexp less a mean")
def smoothing_as_a_mixture(scores, y, epsilon):
    top = scores.logsumexp(1)
    hard = top - scores[torch.arange(len(y)), y]
    return (hard + epsilon * (top - scores.mean(1) - hard)).mean()


@alternative("label_smoothing_cross_entropy", unusual="a Python float, one example at a time")
def smoothing_in_loops(scores, y, epsilon):
    total, K = 0.0, scores.shape[1]
    for row, label in zip(scores.tolist(), y.tolist(), strict=True):
        top = max(row)
        log_sum = top + math.log(sum(math.exp(s - top) for s in row))
        for k, s in enumerate(row):
            total += ((1 - epsilon) * (k == label) + epsilon / K) * (log_sum - s)
    return total / len(y)


@alternative("early_stopping", unusual="a counter of epochs without a new best, and a NumPy integer")
def stopping_by_counter(costs, patience):
    best, found, waited = math.inf, 0, 0
    for epoch, value in enumerate(costs):
        if value < best:
            best, found, waited = value, epoch, 0
        else:
            waited += 1
            if waited >= patience:
                return np.int64(found)
    return np.int64(found)


@alternative("early_stopping", unusual="running minima, and a search for the first long gap between new bests")
def stopping_by_gaps(costs, patience):
    minima = list(accumulate(costs, min))
    news = [0, *(i for i in range(1, len(costs)) if minima[i] < minima[i - 1])]
    for new, later in pairwise([*news, 2 * len(costs) + patience]):
        if later - new > patience:
            return new
    return news[-1]


@alternative("early_stopping", unusual="a 0-d tensor, by bisection for the last epoch that is seen")
def stopping_as_a_tensor(costs, patience):
    values = torch.tensor(costs, dtype=torch.float64)
    seen = [0]
    for epoch in range(1, len(values)):
        so_far = values[:epoch]
        if epoch - 1 - int(so_far.argmin()) >= patience:
            break
        bisect.insort(seen, epoch)
    return values[: seen[-1] + 1].argmin()


@alternative("early_stopping", unusual="recursive, from the first best on")
def stopping_recursive(costs, patience, at=0):
    window = costs[at + 1 : at + 1 + patience]
    better = next((at + 1 + i for i, value in enumerate(window) if value < costs[at]), None)
    return at if better is None else stopping_recursive(costs, patience, better)
