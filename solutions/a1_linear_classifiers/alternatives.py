"""Right solutions of Assignment 1 written in unusual ways; each must get full marks."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import torch

from course_utils.checking import alternative

# --- Standardising ---------------------------------------------------------------------------------------------------


@alternative("standardizer", unusual="loops over features and entries, with Python's own sums")
def standardizer_in_loops(X):
    mean, std = [], []
    for column in X.T.tolist():
        m = math.fsum(column) / len(column)
        spread = math.sqrt(math.fsum((x - m) ** 2 for x in column) / len(column))
        mean.append(m)
        std.append(1.0 if all(x == column[0] for x in column) else spread)
    return [torch.tensor(mean, dtype=X.dtype), torch.tensor(std, dtype=X.dtype)]


@alternative("standardizer", unusual="NumPy inside, the smallest and the largest entry compared, a list returned")
def standardizer_in_numpy(X):
    a = X.numpy()
    std = np.where(a.min(0) == a.max(0), 1, a.std(0)).astype(a.dtype)
    return [torch.from_numpy(a.mean(0)), torch.from_numpy(std)]


@alternative("standardizer", unusual="a view of the input as the mean where there is one example; float64 inside")
def standardizer_sharing_memory(X):
    if len(X) == 1:
        return X[0], torch.ones_like(X[0])
    deviations = X.double() - X.double().mean(0)
    std = deviations.square().mean(0).sqrt()
    return X.mean(0), torch.where(X.amax(0) == X.amin(0), 1.0, std).to(X.dtype)


@alternative("standardize", unusual="in place on an own copy")
def standardize_own_copy(X, mean, std):
    X = X.clone()
    X -= mean
    X /= std
    return X


@alternative("standardize", unusual="transposed, one feature at a time")
def standardize_by_feature(X, mean, std):
    return torch.stack([(X[:, j] - mean[j]) / std[j] for j in range(X.shape[1])]).T


# --- Binary SVM ------------------------------------------------------------------------------------------------------


@alternative("binary_svm_cost", unusual="one example at a time")
def svm_cost_in_loops(w, b, X, y, lam):
    total = torch.zeros((), dtype=X.dtype)
    for x, label in zip(X, y, strict=True):
        margin = label * (sum(x * w) + b)
        if margin < 1:
            total = total + (1 - margin)
    return total / len(X) + lam * w.dot(w)


@alternative("binary_svm_cost", unusual="the bias as a weight of one more feature; the hinge as a mean of two terms")
def svm_cost_by_absolute_value(w, b, X, y, lam):
    longer = torch.cat([X, torch.ones_like(X[:, :1])], 1)
    slack = 1 - y * longer.mv(torch.cat([w, b.reshape(1)]))
    return ((slack + slack.abs()) / 2).mean() + lam * torch.linalg.vector_norm(w) ** 2


@alternative("binary_svm_gradients", unusual="half of the slope at the kink, from the sign function")
def svm_gradients_with_half_a_slope(w, b, X, y, lam):
    slope = (1 + torch.sign(1 - y * (X @ w + b))) / 2
    g = -y * slope / len(y)
    return X.T @ g + 2 * lam * w, g.sum()


@alternative("binary_svm_gradients", unusual="one example at a time, and −y x at the kink")
def svm_gradients_in_loops(w, b, X, y, lam):
    grad_w, grad_b = torch.zeros_like(w), torch.zeros_like(b)
    for x, label in zip(X, y, strict=True):
        if label * (w @ x + b) <= 1:
            grad_w -= label * x
            grad_b -= label
    return grad_w / len(y) + 2 * lam * w, grad_b / len(y)


@alternative("binary_svm_gradients", unusual="half of −y x at the kink, by the sign function")
def svm_gradients_by_sign(w, b, X, y, lam):
    active = (torch.sign(1 - y * (X @ w + b)) + 1) / 2  # 1, ½ or 0
    return [2 * lam * w - torch.einsum("n,nd->d", active * y, X) / len(y), -(active * y).sum() / len(y)]


# --- Scores, softmax, cross-entropy ----------------------------------------------------------------------------------


@alternative("linear_scores", unusual="einsum")
def scores_by_einsum(X, W, b):
    return torch.einsum("nd,dk->nk", X, W) + b[None]


@alternative("linear_scores", unusual="one class at a time, written into a new tensor")
def scores_by_class(X, W, b):
    scores = X.new_empty(len(X), len(b))
    for k in range(len(b)):
        scores[:, k] = X.mv(W[:, k]) + b[k]
    return scores


@alternative("linear_scores", unusual="every entry of an own tensor by itself")
def scores_entry_by_entry(X, W, b):
    scores = X.new_zeros(X.shape[0], W.shape[1])
    for n in range(X.shape[0]):
        for k in range(W.shape[1]):
            scores[n, k] = torch.dot(X[n], W[:, k]) + b[k]
    return scores


@alternative("linear_scores", unusual="one example at a time, vectorised by vmap")
def scores_by_vmap(X, W, b):
    return torch.vmap(lambda x: x @ W + b)(X)


@alternative("softmax", unusual="NumPy inside")
def softmax_in_numpy(scores):
    a = scores.numpy()
    e = np.exp(a - a.max(axis=1, keepdims=True))
    return torch.from_numpy(e / e.sum(axis=1, keepdims=True))


@alternative("softmax", unusual="an object with __call__, one row at a time, in float64")
class RowByRow:
    def __init__(self):
        self.rows = 0

    def __call__(self, scores):
        self.rows += len(scores)
        return torch.stack([self._row(s.double()) for s in scores]).to(scores.dtype)

    @staticmethod
    def _row(s):
        e = torch.exp(s - max(s.tolist()))
        return e / sum(e)


@alternative("softmax", unusual="from the logarithms, and with a power of e")
def softmax_from_logarithms(scores):
    shifted = scores - scores.sort(1).values[:, -1:]
    return math.e ** (shifted - torch.log((math.e**shifted).sum(1, keepdim=True)))


@alternative("softmax", unusual="1 / Σ exp(s_j − s_k): no shift is needed, an overflow to infinity gives 0")
def softmax_by_differences(scores):
    return 1 / torch.exp(scores[:, :, None] - scores[:, None, :]).sum(1)


@alternative("cross_entropy", unusual="logaddexp over the classes, and a Python float as the result")
def cross_entropy_by_logaddexp(scores, y):
    log_sum = reduce(torch.logaddexp, scores.unbind(1))
    return (log_sum - scores.gather(1, y[:, None]).squeeze(1)).mean().item()


@alternative("cross_entropy", unusual="one example at a time in Python floats, without tensors")
def cross_entropy_in_python(scores, y):
    total = 0.0
    for row, label in zip(scores.tolist(), y.tolist(), strict=True):
        top = max(row)
        total += top + math.log(math.fsum(math.exp(s - top) for s in row)) - row[label]
    return torch.tensor(total / len(y), dtype=scores.dtype)


@alternative("cross_entropy", unusual="a one-hot mask and a product with −∞ avoided by where")
def cross_entropy_by_mask(scores, y):
    mask = y[:, None] == torch.arange(scores.shape[1])
    differences = scores - scores[mask][:, None]  # (N, K): s_k − s_y
    top = differences.amax(1)
    return (top + torch.exp(differences - top[:, None]).sum(1).log()).sum() / mask.shape[0]


# --- The classifier: cost, accuracy, gradients -----------------------------------------------------------------------


def _log_softmax(scores):
    shifted = scores - scores.amax(1, keepdim=True)
    return shifted - torch.exp(shifted).sum(1, keepdim=True).log()


@alternative("cost", unusual="everything written out, the regulariser as a trace")
def cost_written_out(X, y, W, b, lam):
    log_p = _log_softmax(torch.addmm(b, X, W))
    return lam * torch.trace(W.T @ W) - log_p[range(len(y)), y].mean()


@alternative("cost", unusual="a Python float, summed one example at a time")
def cost_in_loops(X, y, W, b, lam):
    total = 0.0
    for x, label in zip(X, y.tolist(), strict=True):
        total -= _log_softmax((x @ W + b)[None])[0, label].item()
    return total / len(y) + lam * sum(v * v for v in W.flatten().tolist())


@alternative("accuracy", unusual="counted one example at a time")
def accuracy_in_loops(X, y, W, b):
    right = 0
    for x, label in zip(X, y.tolist(), strict=True):
        scores = (x @ W + b).tolist()
        right += scores.index(max(scores)) == label
    return right / len(y)


@alternative("accuracy", unusual="a float32 mean, by sorting")
def accuracy_by_sorting(X, y, W, b):
    predicted = (X @ W + b).argsort(1, descending=True)[:, 0]
    return float((predicted == y).float().mean())


@alternative("cross_entropy_gradients", unusual="one outer product for each example")
def gradients_by_outer_products(X, y, W, b, lam):
    grad_W, grad_b = 2 * lam * W, torch.zeros_like(b)
    for x, label in zip(X, y.tolist(), strict=True):
        g = torch.exp(_log_softmax((x @ W + b)[None])[0])
        g[label] -= 1
        grad_W = grad_W + torch.outer(x, g) / len(y)
        grad_b += g / len(y)
    return [grad_W, grad_b]


@alternative(
    "cross_entropy_gradients", unusual="transposed: examples as columns, as the lectures write it; float64 inside"
)
def gradients_transposed(X, y, W, b, lam):
    dtype = X.dtype
    X, V, c = X.T.double(), W.T.double(), b.double()[:, None]  # (d, N), (K, d), (K, 1)
    S = V @ X + c
    P = torch.exp(S - S.amax(0))
    P /= P.sum(0)
    Y = torch.zeros_like(P)
    Y[y, torch.arange(X.shape[1])] = 1
    G = P - Y  # (K, N)
    return (G @ X.T / X.shape[1] + 2 * lam * V).T.to(dtype), G.mean(1).to(dtype)


@alternative("cross_entropy_gradients", unusual="the bias trick, and an integer one-hot matrix")
def gradients_by_bias_trick(X, y, W, b, lam):
    longer = torch.cat([X, torch.ones_like(X[:, :1])], 1)
    P = torch.exp(_log_softmax(longer @ torch.vstack([W, b])))
    both = longer.T @ ((P - torch.eye(len(b), dtype=torch.int64)[y]) / len(y))
    return both[:-1] + 2 * lam * W, both[-1]


# --- Multi-class hinge loss ------------------------------------------------------------------------------------------


@alternative("cross_entropy_gradients", unusual="sums of examples class by class, in place of one-hot labels")
def gradients_by_index_add(X, y, W, b, lam):
    N, (d, K) = len(y), W.shape
    P = torch.exp(_log_softmax(X @ W + b))
    own = torch.zeros(K, d, dtype=X.dtype).index_add_(0, y, X)
    return (X.T @ P - own.T) / N + 2 * lam * W, (P.sum(0) - torch.bincount(y, minlength=K)) / N


@alternative("multiclass_hinge", unusual="two loops, and a Python float as the result")
def hinge_in_loops(scores, y):
    total = 0.0
    for row, label in zip(scores.tolist(), y.tolist(), strict=True):
        for k, s in enumerate(row):
            if k != label:
                total += max(0.0, s - row[label] + 1)
    return total / len(y)


@alternative("multiclass_hinge", unusual="the true class is counted and its 1 subtracted again")
def hinge_less_one(scores, y):
    return torch.relu(1 + scores - scores.gather(1, y.unsqueeze(1))).sum() / len(y) - 1


@alternative("multiclass_hinge_gradients", unusual="two loops, with the violated side's subgradient at the kink")
def hinge_gradients_in_loops(X, y, W, b, lam):
    grad_W, grad_b = torch.zeros_like(W), torch.zeros_like(b)
    for x, label in zip(X, y.tolist(), strict=True):
        scores = x @ W + b
        for k in range(len(b)):
            if k != label and scores[k] - scores[label] + 1 >= 0:
                grad_W[:, k] += x
                grad_W[:, label] -= x
                grad_b[k] += 1
                grad_b[label] -= 1
    return grad_W / len(y) + 2 * lam * W, grad_b / len(y)


@alternative("multiclass_hinge_gradients", unusual="a one-hot product, with half a step at the kink")
def hinge_gradients_by_heaviside(X, y, W, b, lam):
    Y = torch.eye(W.shape[1], dtype=X.dtype)[y]
    scores = X @ W + b
    margins = scores - (scores * Y).sum(1, keepdim=True) + 1
    active = torch.heaviside(margins, torch.tensor(0.5, dtype=X.dtype)) * (1 - Y)
    G = (active - active.sum(1, keepdim=True) * Y) / len(y)
    return X.T.mm(G) + lam * W + lam * W, torch.ones_like(y, dtype=X.dtype) @ G


# --- Mini-batch gradient descent -------------------------------------------------------------------------------------


@alternative("minibatch_gd", unusual="recursive, the order by a draw without replacement, steps in place")
def descent_by_recursion(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    if epochs == 0:
        return [W, b]
    W, b = W.clone(), b.clone()
    order = torch.multinomial(torch.ones(len(X)), len(X), generator=generator)
    for batch in torch.tensor_split(order, list(range(batch_size, len(X), batch_size))):
        for parameter, gradient in zip((W, b), gradients(X[batch], y[batch], W, b, lam), strict=True):
            parameter.sub_(lr * gradient)
    rest = {"lam": lam, "lr": lr, "batch_size": batch_size, "epochs": epochs - 1, "generator": generator}
    return descent_by_recursion(X, y, W, b, gradients, **rest)


@alternative("minibatch_gd", unusual="the order by sorting random numbers; all batches of all epochs drawn beforehand")
def batches_drawn_beforehand(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    orders = torch.rand(epochs, len(X), generator=generator).argsort(1)
    batches = [batch for order in orders for batch in order.split(batch_size)]
    for batch in batches:
        grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
        W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@alternative("minibatch_gd", unusual="shuffles its own copies in place by swaps, and steps in place on own copies")
def shuffled_by_swaps(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    X, y, W, b = X.clone(), y.clone(), W.clone(), b.clone()
    for _ in range(epochs):
        for i in range(len(X) - 1, 0, -1):
            j = int(torch.randint(i + 1, (1,), generator=generator))
            X[[i, j]] = X[[j, i]]
            y[[i, j]] = y[[j, i]]
        for j in range(math.ceil(len(X) / batch_size)):
            part = slice(j * batch_size, (j + 1) * batch_size)
            grad_W, grad_b = gradients(X[part], y[part], W, b, lam)
            W.sub_(grad_W, alpha=lr)
            b.sub_(lr * grad_b)
    return [W, b]


@alternative("minibatch_gd", unusual="PyTorch's DataLoader, seeded from the generator; the gradients changed in place")
def data_loader(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    examples = torch.utils.data.TensorDataset(X, y)
    loader = torch.utils.data.DataLoader(examples, batch_size, shuffle=True, generator=own)
    for _ in range(epochs):
        for batch_X, batch_y in loader:
            step_W, step_b = gradients(batch_X, batch_y, W, b, lam)
            step_W *= lr
            step_b *= lr
            W, b = W - step_W, b - step_b
    return W, b


@alternative("minibatch_gd", unusual="NumPy's permutation, seeded from the generator; a recursive helper")
def numpy_permutations(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    rng = np.random.default_rng(torch.randint(2**31, (4,), generator=generator).tolist())

    def epoch(order, W, b):
        if len(order) == 0:
            return W, b
        batch, rest = order[:batch_size], order[batch_size:]
        grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
        return epoch(rest, W - lr * grad_W, b - lr * grad_b)

    for _ in range(epochs):
        W, b = epoch(torch.from_numpy(rng.permutation(len(X))), W, b)
    return W, b


# --- Bonus -----------------------------------------------------------------------------------------------------------


@alternative("binary_cross_entropy", unusual="logaddexp with 0")
def bce_by_logaddexp(scores, y):
    Y = torch.zeros_like(scores).scatter_(1, y[:, None], 1.0)
    return (torch.logaddexp(scores, torch.zeros_like(scores)) - Y * scores).mean()


@alternative("binary_cross_entropy", unusual="one score at a time in Python floats")
def bce_in_python(scores, y):
    total = 0.0
    for row, label in zip(scores.tolist(), y.tolist(), strict=True):
        for k, s in enumerate(row):
            s = -s if k == label else s
            total += max(s, 0.0) + math.log1p(math.exp(-abs(s)))
    return total / scores.numel()


@alternative("binary_cross_entropy_gradients", unusual="the sigmoid by tanh")
def bce_gradients_by_tanh(X, y, W, b, lam):
    sigmoid = (1 + torch.tanh((X @ W + b) / 2)) / 2
    G = (sigmoid - torch.eye(len(b), dtype=X.dtype)[y]) / sigmoid.numel()
    return X.T @ G + 2 * lam * W, G.sum(0)


@alternative(
    "binary_cross_entropy_gradients", unusual="1 / (1 + e^−s), whose overflow to infinity gives 0 as it should"
)
def bce_gradients_by_infinity(X, y, W, b, lam):
    N, K = len(y), len(b)
    G = 1 / (1 + torch.exp(-(X @ W) - b))
    for i in range(N):
        G[i, y[i]] -= 1
    return torch.einsum("nd,nk->dk", X, G) / (N * K) + 2 * lam * W, G.mean(0) / K


@alternative("random_horizontal_flip", unusual="one draw after the other, on an own copy")
def flips_in_loops(images, p, generator):
    result = images.clone()
    for i in range(len(images)):
        if torch.rand(1, generator=generator).item() < p:
            result[i] = torch.fliplr(images[i].permute(1, 2, 0)).permute(2, 0, 1)
    return result


@alternative("random_horizontal_flip", unusual="Bernoulli draws, and gathered columns")
def flips_by_gather(images, p, generator):
    flip = torch.bernoulli(torch.full((len(images),), p, dtype=torch.float64), generator=generator).bool()
    columns = torch.arange(images.shape[-1])
    index = torch.where(flip[:, None], columns.flip(0), columns)[:, None, None, :].expand(images.shape)
    return images.gather(3, index)


@alternative("random_horizontal_flip", unusual="NumPy's draws, seeded from the generator; the input itself when p is 0")
def flips_in_numpy(images, p, generator):
    if p == 0:
        return images
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    a = images.numpy().copy()
    flip = rng.random(len(a)) < p
    a[flip] = a[flip][..., ::-1]
    return torch.from_numpy(a)
