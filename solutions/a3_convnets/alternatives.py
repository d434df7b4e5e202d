"""Right solutions of Assignment 3 written in unusual ways; each must get full marks."""

from __future__ import annotations

import copy
import math
from collections import Counter, OrderedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from course_utils.checking import alternative

# --- Patches and columns ---------------------------------------------------------------------------------------------


@alternative(
    "patchify",
    unusual="unfold along both axes",
)
def patches_by_unfold(images, f):
    return images.unfold(2, f, f).unfold(3, f, f).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


@alternative(
    "patchify",
    unusual="loops over images and patches, with slices",
)
def patches_in_loops(images, f):
    found = []
    for image in images:
        rows = range(0, image.shape[1], f)
        columns = range(0, image.shape[2], f)
        found.append(torch.stack([image[:, i : i + f, j : j + f].reshape(-1) for i in rows for j in columns]))
    return torch.stack(found)


@alternative(
    "patchify",
    unusual="as_strided on a contiguous copy",
)
def patches_by_strides(images, f):
    images = images.contiguous()
    N, C, H, W = images.shape
    size, stride = (N, H // f, W // f, C, f, f), (C * H * W, f * W, f, H * W, W, 1)
    return images.as_strided(size, stride).reshape(N, -1, C * f * f)


@alternative(
    "patchify",
    unusual="NumPy inside",
)
def patches_in_numpy(images, f):
    a = images.numpy()
    N, C, H, W = a.shape
    a = a.reshape(N, C, H // f, f, W // f, f).transpose(0, 2, 4, 1, 3, 5)
    return torch.from_numpy(np.ascontiguousarray(a.reshape(N, -1, C * f * f)))


@alternative(
    "im2col",
    unusual="one place of the kernel at a time",
)
def columns_by_place(images, kh, kw, stride, padding):
    padded = functional.pad(images, (padding, padding, padding, padding))
    N, C, H, W = padded.shape
    H_out, W_out = (H - kh) // stride + 1, (W - kw) // stride + 1
    cols = images.new_empty(N, C, kh, kw, H_out, W_out)
    for i in range(kh):
        for j in range(kw):
            cols[:, :, i, j] = padded[:, :, i : i + stride * H_out : stride, j : j + stride * W_out : stride]
    return cols.reshape(N, C * kh * kw, -1)


@alternative(
    "im2col",
    unusual="index arithmetic into the flattened images",
)
def columns_by_indices(images, kh, kw, stride, padding):
    N, C, H, W = images.shape
    padded = images.new_zeros(N, C, H + 2 * padding, W + 2 * padding)
    padded[:, :, padding : padding + H, padding : padding + W] = images
    H, W = padded.shape[2:]
    rows = torch.arange(kh)[:, None] + stride * torch.arange((H - kh) // stride + 1)  # (kh, H_out)
    columns = torch.arange(kw)[:, None] + stride * torch.arange((W - kw) // stride + 1)
    place = rows[:, None, :, None] * W + columns[None, :, None, :]
    return padded.flatten(2)[:, :, place.reshape(kh * kw, -1)].flatten(1, 2)


@alternative(
    "im2col",
    unusual="a loop over windows",
)
def columns_window_by_window(images, kh, kw, stride, padding):
    padded = torch.zeros(*images.shape[:2], *(n + 2 * padding for n in images.shape[2:]), dtype=images.dtype)
    padded[..., padding : padding + images.shape[2], padding : padding + images.shape[3]] = images
    starts = [
        (i, j) for i in range(0, padded.shape[2] - kh + 1, stride) for j in range(0, padded.shape[3] - kw + 1, stride)
    ]
    return torch.stack([padded[:, :, i : i + kh, j : j + kw].flatten(1) for i, j in starts], dim=-1)


@alternative(
    "im2col",
    unusual="products with matrices of ones and zeros that select rows and columns",
)
def columns_by_selection(images, kh, kw, stride, padding):
    wide = functional.pad(images, (padding,) * 4)
    rows, columns = (
        torch.stack([torch.eye(n, dtype=images.dtype)[i : n - k + i + 1 : stride] for i in range(k)])
        for n, k in zip(wide.shape[2:], (kh, kw), strict=True)
    )  # each (k, H_out, H)
    return torch.einsum("iah,jbw,nchw->ncijab", rows, columns, wide).flatten(4).flatten(1, 3)


@alternative(
    "col2im",
    unusual="index_add along the flattened pixels",
)
def folded_by_index_add(cols, shape, kh, kw, stride, padding):
    N, C, H, W = shape
    Hp, Wp = H + 2 * padding, W + 2 * padding
    rows = torch.arange(kh)[:, None] + stride * torch.arange((Hp - kh) // stride + 1)
    columns = torch.arange(kw)[:, None] + stride * torch.arange((Wp - kw) // stride + 1)
    place = (rows[:, None, :, None] * Wp + columns[None, :, None, :]).reshape(-1)
    padded = cols.new_zeros(N, C, Hp * Wp).index_add(2, place, cols.reshape(N, C, -1))
    return padded.reshape(N, C, Hp, Wp)[:, :, padding : Hp - padding, padding : Wp - padding]


@alternative(
    "col2im",
    unusual="scatter_add, window by window",
)
def folded_by_scatter(cols, shape, kh, kw, stride, padding):
    N, C, H, W = shape
    Hp, Wp = H + 2 * padding, W + 2 * padding
    flat = cols.new_zeros(N, C, Hp * Wp)
    pixel = torch.arange(Hp * Wp).reshape(Hp, Wp)
    windows = pixel.unfold(0, kh, stride).unfold(1, kw, stride).reshape(-1, kh * kw)  # (L, kh·kw)
    for k, window in enumerate(windows):
        flat.scatter_add_(2, window.expand(N, C, -1), cols[:, :, k].reshape(N, C, -1))
    return flat.reshape(N, C, Hp, Wp)[:, :, padding : padding + H, padding : padding + W].clone()


@alternative(
    "col2im",
    unusual="adds into a view that unfold gave, one place of the kernel at a time",
)
def folded_into_a_view(cols, shape, kh, kw, stride, padding):
    N, C, H, W = shape
    padded = torch.zeros(N, C, H + 2 * padding, W + 2 * padding, dtype=cols.dtype)
    windows = padded.unfold(2, kh, stride).unfold(3, kw, stride)
    cols = cols.reshape(N, C, kh, kw, *windows.shape[2:4])
    for i in range(kh):
        for j in range(kw):
            windows[..., i, j] += cols[:, :, i, j]
    return padded if padding == 0 else padded[:, :, padding:-padding, padding:-padding]


# --- Convolution -----------------------------------------------------------------------------------------------------


def notebook_cache(X, F, stride, padding):
    """What the notebook's conv2d_backward finds in its cache."""
    windows = functional.pad(X, (padding,) * 4).unfold(2, F.shape[2], stride).unfold(3, F.shape[3], stride)
    cols = windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)
    return cols, X.shape, F, stride, padding


def largest(X, k, stride):
    """Where in each window its largest pixel is, as the notebook's max_pool2d_backward finds it in its cache."""
    return X.unfold(2, k, stride).unfold(3, k, stride).flatten(-2).argmax(-1)


@alternative(
    "conv2d_forward",
    unusual="one output pixel and one filter at a time, a list returned",
)
def convolution_in_loops(X, F, b, stride, padding):
    padded = functional.pad(X, (padding,) * 4)
    kh, kw = F.shape[2:]
    H, W = (padded.shape[2] - kh) // stride + 1, (padded.shape[3] - kw) // stride + 1
    out = X.new_empty(len(X), len(F), H, W)
    for i in range(H):
        for j in range(W):
            window = padded[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
            for k in range(len(F)):
                out[:, k, i, j] = (window * F[k]).sum((1, 2, 3)) + b[k]
    return [out, notebook_cache(X, F, stride, padding)]


@alternative(
    "conv2d_forward",
    unusual="einsum over a strided view of the padded images",
)
def convolution_by_strides(X, F, b, stride, padding):
    padded = functional.pad(X, (padding,) * 4).contiguous()
    N, C, H, W = padded.shape
    kh, kw = F.shape[2:]
    s = padded.stride()
    windows = padded.as_strided(
        (N, C, (H - kh) // stride + 1, (W - kw) // stride + 1, kh, kw),
        (s[0], s[1], s[2] * stride, s[3] * stride, s[2], s[3]),
    )
    out = torch.einsum("nchwij,fcij->nfhw", windows, F) + b.view(1, -1, 1, 1)
    return out, notebook_cache(X, F, stride, padding)


@alternative(
    "conv2d_forward",
    unusual="by the Fourier transform; stride by leaving out",
)
def convolution_by_fourier(X, F, b, stride, padding):
    padded = functional.pad(X, (padding,) * 4)
    H, W = padded.shape[2:]
    kh, kw = F.shape[2:]
    product = torch.fft.rfft2(padded)[:, None] * torch.fft.rfft2(F, s=(H, W)).conj()[None]
    whole = torch.fft.irfft2(product.sum(2), s=(H, W))[:, :, : H - kh + 1, : W - kw + 1]
    return whole[:, :, ::stride, ::stride].to(X.dtype) + b[:, None, None], notebook_cache(X, F, stride, padding)


@alternative(
    "conv2d_forward",
    unusual="a sum of shifted images, as matrix products over the channels",
)
def convolution_by_shifts(X, F, b, stride, padding):
    N, C, H, W = X.shape
    n_filters, _, kh, kw = F.shape
    padded = X.new_zeros(N, C, H + 2 * padding, W + 2 * padding)
    padded[:, :, padding : padding + H, padding : padding + W] = X
    rows, columns = (H + 2 * padding - kh) // stride + 1, (W + 2 * padding - kw) // stride + 1
    out = b.reshape(1, -1, 1).expand(N, n_filters, rows * columns)
    for i in range(kh):
        for j in range(kw):
            seen = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            out = out + F[:, :, i, j] @ seen.reshape(N, C, -1)
    return out.reshape(N, n_filters, rows, columns), notebook_cache(X, F, stride, padding)


@alternative(
    "conv2d_backward",
    unusual="one place of the kernel at a time, on the cache of the notebook",
)
def gradients_by_place(grad_out, cache):
    cols, shape, F, stride, padding = cache
    N, C, H, W = shape
    _, _, kh, kw = F.shape
    rows, columns = grad_out.shape[2:]
    windows = cols.reshape(N, C, kh, kw, rows, columns)
    padded, grad_F = grad_out.new_zeros(N, C, H + 2 * padding, W + 2 * padding), torch.zeros_like(F)
    for i in range(kh):
        for j in range(kw):
            grad_F[:, :, i, j] = torch.einsum("nfhw,nchw->fc", grad_out, windows[:, :, i, j])
            place = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            place += torch.einsum("nfhw,fc->nchw", grad_out, F[:, :, i, j])
    grad_X = padded[:, :, padding : padding + H, padding : padding + W]
    return [grad_X, grad_F, torch.stack([g.sum() for g in grad_out.transpose(0, 1)])]


@alternative(
    "conv2d_backward",
    unusual="full correlation of a spread-out gradient with the turned filters",
)
def gradients_by_full_correlation(grad_out, cache):
    cols, shape, F, stride, padding = cache
    N, _, H, W = shape
    n_filters, _, kh, kw = F.shape
    rows, columns = grad_out.shape[2:]
    spread = grad_out.new_zeros(N, n_filters, H + 2 * padding - kh + 1, W + 2 * padding - kw + 1)
    spread[:, :, : rows * stride : stride, : columns * stride : stride] = grad_out
    wide = functional.pad(spread, (kw - 1, kw - 1, kh - 1, kh - 1))
    windows = wide.unfold(2, kh, 1).unfold(3, kw, 1)
    whole = torch.einsum("nfhwij,fcij->nchw", windows, F.flip(2, 3))
    flat = grad_out.permute(1, 0, 2, 3).reshape(n_filters, -1)
    grad_F = flat @ cols.permute(0, 2, 1).reshape(-1, cols.shape[1])
    return whole[:, :, padding : padding + H, padding : padding + W], grad_F.reshape(F.shape), flat.sum(1)


@alternative(
    "max_pool2d_forward",
    unusual="the maximum of shifted images",
)
def pooled_by_shifts(X, k, stride):
    rows, columns = ((n - k) // stride + 1 for n in X.shape[2:])
    pieces = [
        X[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride] for i in range(k) for j in range(k)
    ]
    out = pieces[0]
    for piece in pieces[1:]:
        out = torch.maximum(out, piece)
    return out.clone(), (X, largest(X, k, stride), k, stride)


@alternative(
    "max_pool2d_forward",
    unusual="one window at a time",
)
def pooled_in_loops(X, k, stride):
    rows, columns = ((n - k) // stride + 1 for n in X.shape[2:])
    out = torch.empty(*X.shape[:2], rows, columns, dtype=X.dtype)
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = X[:, :, i * stride : i * stride + k, j * stride : j * stride + k].amax((2, 3))
    return out, (X, largest(X, k, stride), k, stride)


@alternative(
    "max_pool2d_forward",
    unusual="first along the rows, then along the columns",
)
def pooled_along_each_axis(X, k, stride):
    out = X.unfold(3, k, stride).amax(-1).unfold(2, k, stride).amax(-1)
    return out, (X, largest(X, k, stride), k, stride)


@alternative(
    "max_pool2d_backward",
    unusual="the last of several largest pixels, by scatter_add on flat indices",
)
def last_of_the_ties(grad_out, cache):
    X, _, k, stride = cache
    N, C, H, W = X.shape
    windows = X.unfold(2, k, stride).unfold(3, k, stride).flatten(-2)
    where = k * k - 1 - windows.flip(-1).argmax(-1)
    rows = torch.arange(where.shape[2])[:, None] * stride + where // k
    columns = torch.arange(where.shape[3]) * stride + where % k
    flat = torch.zeros(N, C, H * W, dtype=grad_out.dtype)
    return flat.scatter_add_(2, (rows * W + columns).flatten(2), grad_out.flatten(2)).reshape(X.shape)


@alternative(
    "max_pool2d_backward",
    unusual="one window at a time, the first of several largest pixels down the columns",
)
def first_down_the_columns(grad_out, cache):
    X, _, k, stride = cache
    N, C = X.shape[:2]
    grad_X = torch.zeros_like(X)
    for i in range(grad_out.shape[2]):
        for j in range(grad_out.shape[3]):
            rows, columns = slice(i * stride, i * stride + k), slice(j * stride, j * stride + k)
            window = X[:, :, rows, columns].transpose(2, 3).reshape(N, C, k * k)
            chosen = functional.one_hot(window.argmax(-1), k * k).to(X.dtype) * grad_out[:, :, i, j, None]
            grad_X[:, :, rows, columns] += chosen.reshape(N, C, k, k).transpose(2, 3)
    return grad_X


@alternative(
    "conv_transpose2d",
    unusual="one stamp at a time",
)
def stamped_in_loops(X, F, b, stride, padding):
    N, _, H, W = X.shape
    _, C_out, kh, kw = F.shape
    out = X.new_zeros(N, C_out, (H - 1) * stride + kh, (W - 1) * stride + kw)
    for i in range(H):
        for j in range(W):
            stamp = torch.tensordot(X[:, :, i, j], F, 1)
            out[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw] += stamp
    return out[:, :, padding : out.shape[2] - padding, padding : out.shape[3] - padding] + b.reshape(-1, 1, 1)


@alternative(
    "conv_transpose2d",
    unusual="a convolution with turned filters of the spread-out images",
)
def stamped_by_convolution(X, F, b, stride, padding):
    N, C, H, W = X.shape
    kh, kw = F.shape[2:]
    spread = X.new_zeros(N, C, (H - 1) * stride + 1, (W - 1) * stride + 1)
    spread[:, :, ::stride, ::stride] = X
    wide = functional.pad(spread, (kw - 1, kw - 1, kh - 1, kh - 1))
    windows = wide.unfold(2, kh, 1).unfold(3, kw, 1)
    out = torch.einsum("nchwij,cfij->nfhw", windows, F.flip((2, 3))) + b[None, :, None, None]
    return functional.pad(out, (-padding,) * 4)


@alternative(
    "conv_transpose2d",
    unusual="one place of the kernel at a time, straight into the cropped result",
)
def stamped_by_place(X, F, b, stride, padding):
    N, _, H, W = X.shape
    _, C_out, kh, kw = F.shape
    out = torch.zeros(N, C_out, (H - 1) * stride + kh, (W - 1) * stride + kw, dtype=X.dtype)
    for i in range(kh):
        for j in range(kw):
            place = out[:, :, i : i + stride * (H - 1) + 1 : stride, j : j + stride * (W - 1) + 1 : stride]
            place += torch.einsum("nchw,cf->nfhw", X, F[:, :, i, j])
    return (
        (out + b.view(-1, 1, 1))
        .narrow(2, padding, out.shape[2] - 2 * padding)
        .narrow(3, padding, out.shape[3] - 2 * padding)
    )


@alternative(
    "receptive_field",
    unusual="from the last layer to the first",
)
def field_backwards(layers):
    size = 1
    for kernel, stride, dilation in reversed(layers):
        size = (size - 1) * stride + (kernel - 1) * dilation + 1
    return size


@alternative(
    "receptive_field",
    unusual="one sum of products; an integer tensor",
)
def field_as_one_sum(layers):
    steps = [math.prod(s for _, s, _ in layers[:k]) for k in range(len(layers))]
    return torch.tensor(1 + sum((k - 1) * d * step for (k, _, d), step in zip(layers, steps, strict=True)))


# --- The patchify net ------------------------------------------------------------------------------------------------


@alternative(
    "patchify_net_forward",
    unusual="einsum, one patch at a time through its rows of W1",
)
def net_by_einsum(patches, params):
    maps = functional.relu(torch.einsum("npd,df->npf", patches, params["F"]) + params["b"])
    P, n_f = maps.shape[1:]
    weights = params["W1"].reshape(P, n_f, -1)
    hidden = functional.relu(torch.einsum("npf,pfm->nm", maps, weights) + params["b1"])
    scores = hidden.mm(params["W2"]).add(params["b2"])
    return scores, (patches, maps, hidden, scores)


@alternative(
    "patchify_net_forward",
    unusual="one image at a time",
)
def net_image_by_image(patches, params):
    scores, kept = [], []
    for image in patches:
        maps = (image @ params["F"] + params["b"]).clamp(min=0)
        hidden = (maps.reshape(-1) @ params["W1"] + params["b1"]).clamp(min=0)
        scores.append(hidden @ params["W2"] + params["b2"])
        kept.append((maps, hidden))
    maps, hidden = (torch.stack(parts) for parts in zip(*kept, strict=True))
    return [torch.stack(scores), (patches, maps, hidden, torch.stack(scores))]


@alternative(
    "patchify_net_backward",
    unusual="one image and one patch at a time, with Python's sums",
)
def net_gradients_in_loops(y, params, cache, lam):
    patches, maps, hidden, scores = cache
    grads = {k: torch.zeros_like(v) for k, v in params.items()}
    P, n_f = maps.shape[1:]
    for n in range(len(y)):
        g = torch.softmax(scores[n], 0)
        g[y[n]] -= 1
        g = g / len(y)
        grads["W2"] += torch.outer(hidden[n], g)
        grads["b2"] += g
        g = (params["W2"] @ g) * (hidden[n] > 0)
        grads["W1"] += torch.outer(maps[n].reshape(-1), g)
        grads["b1"] += g
        g = (params["W1"] @ g).reshape(P, n_f) * (maps[n] > 0)
        for p in range(P):
            grads["F"] += torch.outer(patches[n, p], g[p])
            grads["b"] += g[p]
    for k in ("F", "W1", "W2"):
        grads[k] += 2 * lam * params[k]
    return grads


@alternative(
    "patchify_net_backward",
    unusual="keys in another order, log-sum-exp by hand, an OrderedDict",
)
def net_gradients_in_another_order(y, params, cache, lam):
    patches, maps, hidden, scores = cache
    K = scores.shape[1]
    log_p = scores - scores.logsumexp(1, keepdim=True)
    G2 = (log_p.exp() - functional.one_hot(y, K).to(scores.dtype)) / y.numel()
    G1 = torch.where(hidden > 0, G2 @ params["W2"].mT, 0.0)
    G0 = torch.where(maps > 0, (G1 @ params["W1"].mT).view_as(maps), 0.0)
    found = OrderedDict(b2=G2.sum(0), W2=hidden.mT @ G2, b1=G1.sum(0), W1=maps.flatten(1).mT @ G1)
    found["b"] = G0.sum((0, 1))
    found["F"] = torch.tensordot(patches, G0, ([0, 1], [0, 1]))
    return {k: g.add(params[k], alpha=2 * lam) if params[k].ndim == 2 else g for k, g in found.items()}


# --- Labels and learning rates ---------------------------------------------------------------------------------------


@alternative(
    "smooth_labels",
    unusual="rows of a smoothed identity matrix",
)
def smoothed_rows_of_the_identity(y, K, epsilon):
    return ((1 - epsilon) * torch.eye(K) + epsilon / K)[y]


@alternative(
    "smooth_labels",
    unusual="a Python list, in double precision until the end",
)
def smoothed_in_a_list(y, K, epsilon):
    rows = [[epsilon / K + (1 - epsilon) * (k == label) for k in range(K)] for label in y.tolist()]
    return torch.tensor(rows, dtype=torch.float32)


@alternative(
    "cyclical_lr_doubling",
    unusual="the number of the cycle by a logarithm",
)
def cycle_by_logarithm(t, n_1, lr_min, lr_max):
    cycle = int(math.log2(t / (2 * n_1) + 1))
    half = n_1 * 2**cycle
    position = (t - 2 * n_1 * (2**cycle - 1)) / half
    return lr_min + (lr_max - lr_min) * (1 - abs(1 - position))


@alternative(
    "cyclical_lr_doubling",
    unusual="the number of the cycle by bit_length, two branches; a NumPy float",
)
def cycle_by_bits(t, n_1, lr_min, lr_max):
    cycle = (t // (2 * n_1) + 1).bit_length() - 1
    length = 2 * n_1 << cycle
    t -= length - 2 * n_1
    if 2 * t <= length:
        return np.float64(lr_min + (lr_max - lr_min) * 2 * t / length)
    return np.float64(lr_max - (lr_max - lr_min) * (2 * t - length) / length)


@alternative(
    "cyclical_lr_doubling",
    unusual="calls itself for the next cycle, with the time that is left and twice the length",
)
def cycles_by_recursion(t, n_1, lr_min, lr_max):
    if t >= 2 * n_1:
        return cycles_by_recursion(t - 2 * n_1, 2 * n_1, lr_min, lr_max)
    return lr_min + (lr_max - lr_min) * min(t, 2 * n_1 - t) / n_1


# --- Modules ---------------------------------------------------------------------------------------------------------


@alternative(
    "ConvBlock",
    unusual="a Sequential by inheritance, with a bias and an in-place ReLU",
)
class BlockAsSequential(nn.Sequential):
    def __init__(self, c_in, c_out):
        super().__init__(nn.Conv2d(c_in, c_out, 3, padding="same"), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


@alternative(
    "ConvBlock",
    unusual="filters as a bare parameter, functional convolution and ReLU, norm made first",
)
class BlockOfBareFilters(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.second = nn.BatchNorm2d(c_out)
        self.offset = nn.Parameter(torch.zeros(c_out))
        self.first = nn.Parameter(torch.randn(c_out, c_in, 3, 3) * math.sqrt(2 / (9 * c_in)))

    def forward(self, x):
        return functional.relu(self.second(functional.conv2d(x, self.first, self.offset, padding=1)))


@alternative(
    "ConvBlock",
    unusual="lazy layers that learn their channels from the first images",
)
class LazyBlock(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.steps = nn.ModuleDict({"n": nn.LazyBatchNorm2d(), "c": nn.LazyConv2d(c_out, (3, 3), padding=(1, 1))})

    def forward(self, x):
        return self.steps["n"](self.steps["c"](x)).clamp_min(0)


@alternative(
    "ConvBlock",
    unusual="functional batch normalisation with the parameters of a BatchNorm2d, max with 0",
)
class BlockOfFunctions(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c_in, c_out, 3, 1, 1, bias=True), nn.BatchNorm2d(c_out)

    def forward(self, x):
        bn, z = self.bn, functional.pad(x, (1, 1, 1, 1))
        z = functional.conv2d(z, self.conv.weight, self.conv.bias)
        z = functional.batch_norm(z, bn.running_mean, bn.running_var, bn.weight, bn.bias, self.training, 0.1, bn.eps)
        return torch.maximum(z, torch.zeros_like(z))


@alternative(
    "ConvBlock",
    unusual="zeros padded by a layer of their own, weight normalisation, another eps and momentum",
)
class BlockWithNormedWeights(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(c_in, c_out, 3))
        norm = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.3)
        self.add_module("all of it", nn.Sequential(nn.ZeroPad2d(1), conv, norm, nn.ReLU()))

    def forward(self, x):
        (layers,) = self.children()
        return layers(x)


@alternative(
    "ConvBlock",
    unusual="the convolution as a matrix product of unfolded images",
)
class BlockByUnfold(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out)

    def forward(self, x):
        cols = functional.unfold(x, 3, padding=1)
        z = (self.conv.weight.flatten(1) @ cols).unflatten(2, x.shape[2:])
        return torch.relu(self.norm(z + self.conv.bias[:, None, None]))


@alternative(
    "ResidualBlock",
    unusual="layers named and made in the reverse order, an Identity-free shortcut",
)
class ReversedResidual(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.z = nn.BatchNorm2d(c_out)
        self.y = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.x = nn.BatchNorm2d(c_out)
        self.w = nn.Conv2d(c_in, c_out, 3, stride, 1)
        self.skip = None
        if (c_in, 1) != (c_out, stride):
            self.skip = nn.ModuleList([nn.BatchNorm2d(c_out), nn.Conv2d(c_in, c_out, 1, stride)])

    def forward(self, x):
        out = self.z(self.y(functional.relu(self.x(self.w(x)), inplace=True)))
        if self.skip is not None:
            x = self.skip[0](self.skip[1](x))
        out += x
        return out.relu_()


@alternative(
    "ResidualBlock",
    unusual="the projection is always made and only used where the shape changes",
)
class ResidualWithAnIdleProjection(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.same = c_in == c_out and stride == 1
        self.projection = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))
        self.body = nn.Sequential(
            OrderedDict(
                c1=nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False),
                b1=nn.BatchNorm2d(c_out),
                r=nn.ReLU(),
                c2=nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
                b2=nn.BatchNorm2d(c_out),
            )
        )

    def forward(self, x):
        return torch.relu(torch.add(x if self.same else self.projection(x), self.body(x)))


@alternative(
    "ResidualBlock",
    unusual="the 1×1 convolution as slicing with the stride and a stride of 1",
)
class ResidualBySlicing(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.stride = stride
        self.convs = nn.ModuleList([nn.Conv2d(c_in, c_out, 3, stride, 1), nn.Conv2d(c_out, c_out, 3, 1, 1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(c_out), nn.BatchNorm2d(c_out)])
        if stride > 1 or c_in != c_out:
            self.convs.append(nn.Conv2d(c_in, c_out, 1))
            self.norms.append(nn.BatchNorm2d(c_out))

    def forward(self, x):
        out = self.norms[1](self.convs[1](functional.relu(self.norms[0](self.convs[0](x)))))
        if len(self.convs) == 3:
            x = self.norms[2](self.convs[2](x[:, :, :: self.stride, :: self.stride]))
        return functional.relu(out + x)


@alternative(
    "ResidualBlock",
    unusual="the 1×1 convolution as a linear layer over the channels of every stride-th pixel",
)
class ResidualByLinearLayer(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.stride = stride
        self.first = nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1), nn.BatchNorm2d(c_out), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(c_out, c_out, 3, 1, 1), nn.BatchNorm2d(c_out))
        self.mix = nn.Linear(c_in, c_out, bias=False) if c_in != c_out or stride > 1 else None
        self.norm = nn.BatchNorm2d(c_out) if self.mix else None

    def forward(self, x):
        out = self.second(self.first(x))
        if self.mix is not None:
            x = self.norm(self.mix(x[:, :, :: self.stride, :: self.stride].movedim(1, 3)).movedim(3, 1))
        return torch.relu(out + x)


@alternative(
    "ConvNet",
    unusual="plain convolutions with strides, no normalisation, dropout, a 1×1 convolution as classifier",
)
class AllConvolutions(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(
            nn.Conv2d(3, 12, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(12, 16, 5, stride=2),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Conv2d(16, n_classes, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


@alternative(
    "ConvNet",
    unusual="depthwise convolutions, group normalisation, tanh, its own blocks inside",
)
class SmallDepthwiseNet(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.depthwise = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1, groups=16) for _ in range(2)])
        self.norms = nn.ModuleList([nn.GroupNorm(4, 16) for _ in range(2)])
        self.head = nn.Linear(16 * 4, n_classes)

    def forward(self, x):
        x = self.stem(x)
        for conv, norm in zip(self.depthwise, self.norms, strict=True):
            x = x + torch.tanh(norm(conv(x)))
        return self.head(functional.adaptive_avg_pool2d(x, 2).view(x.size(0), -1))


@alternative(
    "ConvNet",
    unusual="batch normalisation of the features before the last layer, max pooling over the whole map",
)
class NetWithNormedFeatures(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 10, (5, 3), stride=(2, 1))
        self.norm = nn.BatchNorm1d(10)
        self.last = nn.Linear(10, n_classes, bias=False)

    def forward(self, x):
        return self.last(self.norm(functional.elu(self.conv(x)).amax(dim=(-2, -1))))


# --- Augmentation ----------------------------------------------------------------------------------------------------


@alternative(
    "ConvNet",
    unusual="lazy layers, normalisation, SiLU, flattened maps",
)
class LazyNet(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        convolution = [nn.LazyConv2d(8, 3, stride=2), nn.LazyBatchNorm2d(), nn.SiLU(), nn.AvgPool2d(3)]
        self.layers = nn.Sequential(*convolution, nn.Flatten(), nn.Dropout(), nn.LazyLinear(n_classes))

    def forward(self, x):
        return self.layers(x)


@alternative(
    "ConvNet",
    unusual="instance normalisation after convolutions with biases, which it makes idle; a learnt scale of the scores",
)
class InstanceNormalisedNet(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 16, 3, stride=2)
        self.out, self.scale = nn.Linear(16, n_classes, bias=False), nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = functional.leaky_relu(functional.instance_norm(self.one(x)), 0.1)
        x = functional.leaky_relu(functional.instance_norm(self.two(x)), 0.1)
        return self.scale * self.out(x.amax((2, 3)))


@alternative(
    "augment",
    unusual="mirrors first, then shifts; one image at a time, one number at a time",
)
def augmented_in_loops(images, generator):
    out = torch.zeros_like(images)
    for n in range(len(images)):
        image = images[n]
        if torch.rand((), generator=generator) >= 0.5:
            image = torch.flip(image, (-1,))
        i, j = (int(torch.randint(9, (1,), generator=generator)) - 4 for _ in range(2))
        height, width = 32 - abs(i), 32 - abs(j)
        there = image[:, max(i, 0) : max(i, 0) + height, max(j, 0) : max(j, 0) + width]
        out[n, :, max(-i, 0) : max(-i, 0) + height, max(-j, 0) : max(-j, 0) + width] = there
    return out


@alternative(
    "augment",
    unusual="one draw of 0 … 161 for all three, gathered from a padded copy",
)
def augmented_by_one_draw(images, generator):
    N, C = images.shape[:2]
    padded = torch.zeros(N, C, 40, 40, dtype=images.dtype)
    padded[:, :, 4:36, 4:36] = images
    code = torch.randint(0, 162, (N,), generator=generator)
    views = padded.unfold(2, 32, 1).unfold(3, 32, 1)  # (N, C, 9, 9, 32, 32)
    found = views[torch.arange(N), :, code // 18, code // 2 % 9]
    return torch.where((code % 2 == 1)[:, None, None, None], found.flip(-1), found)


@alternative(
    "augment",
    unusual="NumPy inside, its random numbers seeded by the generator",
)
def augmented_in_numpy(images, generator):
    chance = np.random.default_rng(int(torch.randint(0, 2**62, (), generator=generator)))
    a = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    out = np.empty(images.shape, dtype=a.dtype)
    for n, (i, j) in enumerate(chance.integers(0, 9, (len(images), 2))):
        piece = a[n, :, i : i + 32, j : j + 32]
        out[n] = piece[:, :, ::-1] if chance.random() < 0.5 else piece
    return torch.from_numpy(out)


@alternative(
    "augment",
    unusual="one of all 81 windows that unfold gives",
)
def augmented_by_unfold(images, generator):
    N = len(images)
    windows = functional.pad(images, (4, 4, 4, 4)).unfold(2, 32, 1).unfold(3, 32, 1)  # a view, nothing is copied
    which = torch.randint(81, (N,), generator=generator)
    pieces = windows[torch.arange(N), :, which // 9, which % 9]
    mirrored = torch.rand(N, generator=generator) >= 0.5
    return torch.where(mirrored[:, None, None, None], pieces.flip(3), pieces)


# --- Training and evaluation -----------------------------------------------------------------------------------------


@alternative(
    "train_epoch",
    unusual="a DataLoader with the given generator; gradients set to None by hand",
)
def trained_with_a_loader(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    mode = model.training
    model.train(True)
    losses = []
    loader = DataLoader(TensorDataset(images, labels), batch_size, shuffle=True, generator=generator)
    for x, y in loader:
        x = x if transform is None else transform(x, generator)
        loss = nn.CrossEntropyLoss(reduction="none")(model(x), y)
        for p in model.parameters():
            p.grad = None
        loss.mean().backward()
        optimizer.step()
        losses += loss.detach().tolist()
    model.train(mode)
    return math.fsum(losses) / len(losses)


@alternative(
    "train_epoch",
    unusual="a closure for the optimiser, zero_grad after the step, NumPy's order seeded by the generator",
)
def trained_by_closures(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    before, N = model.training, len(images)
    seed = int(torch.randint(0, 2**31, (1,), generator=generator))
    order = np.random.default_rng(seed).permutation(N)
    total = 0.0
    model.train()
    optimizer.zero_grad(set_to_none=False)
    try:
        for start in range(0, N, batch_size):
            which = torch.from_numpy(order[start : start + batch_size])
            x = images.index_select(0, which)
            if transform:
                x = transform(x, generator)
            y = labels.index_select(0, which)

            def closure(x=x, y=y):
                loss = functional.nll_loss(functional.log_softmax(model(x), 1), y)
                loss.backward()
                return loss

            total += float(optimizer.step(closure)) * len(y)
            optimizer.zero_grad()
    finally:
        model.train(before)
    return total / N


@alternative(
    "train_epoch",
    unusual="torch.autograd.grad, the gradients put into .grad by hand",
)
def trained_with_autograd_grad(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, done, total = model.training, 0, torch.zeros((), dtype=torch.float64)
    model.train()
    keys = torch.rand(len(images), generator=generator).argsort()
    params = [p for p in model.parameters() if p.requires_grad]
    while done < len(images):
        part = keys[done : done + batch_size]
        batch = images[part] if transform is None else transform(images[part], generator)
        loss = functional.cross_entropy(model(batch), labels[part], reduction="sum")
        for p, g in zip(params, torch.autograd.grad(loss / len(part), params, allow_unused=True), strict=True):
            p.grad = g
        optimizer.step()
        total += loss.detach().double()
        done += len(part)
    model.train(was)
    return total.item() / len(images)


@alternative(
    "train_epoch",
    unusual="the accuracy on the way by a second pass without a graph; batches cut off a list",
)
def epoch_with_accuracy(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    was, losses, right = model.training, [], 0
    left = torch.rand(len(images), generator=generator).argsort().tolist()
    model.train()
    while left:
        part, left = torch.tensor(left[:batch_size]), left[batch_size:]
        x = images[part] if transform is None else transform(images[part], generator)
        loss = -torch.log_softmax(model(x), 1).gather(1, labels[part, None]).mean()
        model.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        losses += [float(loss)] * len(part)
        with torch.no_grad():
            right += int((model(x).argmax(1) == labels[part]).sum())
    model.train(was)
    return math.fsum(losses) / len(losses)


@alternative(
    "evaluate",
    unusual="inference mode, and the share of each batch weighted by its size",
)
def evaluated_in_inference_mode(model, images, labels, *, batch_size):
    mode = model.training
    model.train(False)
    shares, sizes = [], []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            scores = model(images[start : start + batch_size])
            hit = scores.max(dim=1).indices.eq(labels[start : start + batch_size])
            shares.append(hit.double().mean().item())
            sizes.append(len(hit))
    if mode:
        model.train()
    return float(np.average(shares, weights=sizes))


@alternative(
    "evaluate",
    unusual="a decorated inner function, all predictions collected first",
)
def evaluated_by_an_inner_function(model, images, labels, *, batch_size):
    @torch.no_grad()
    def predictions():
        return torch.cat([model(part).topk(1).indices[:, 0] for part in torch.split(images, batch_size)])

    mode = model.training
    try:
        model.eval()
        return predictions().eq(labels).sum().item() / len(labels)
    finally:
        model.train(mode)


@alternative(
    "evaluate",
    unusual="a deep copy of the model runs, so that the model itself cannot change",
)
def evaluated_on_a_copy(model, images, labels, *, batch_size):
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        answers = torch.cat([twin(part).argmax(1) for part in images.split(batch_size)])
    return (answers == labels).double().mean().item()


@alternative(
    "evaluate",
    unusual="counts images of which no class has a larger score; one at a time",
)
def accuracy_by_ranks(model, images, labels, *, batch_size):
    was = model.training
    model.eval()
    with torch.inference_mode():
        scores = [model(image[None])[0] for image in images]
        right = [not bool((s > s[y]).any()) for s, y in zip(scores, labels.tolist(), strict=True)]
    model.train(was)
    return sum(right) / len(right)


@alternative(
    "confusion_matrix",
    unusual="a Counter of pairs",
)
def confusion_by_counter(y_true, y_pred, K):
    pairs = Counter(zip(y_true.tolist(), y_pred.tolist(), strict=True))
    return torch.tensor([[pairs[i, j] for j in range(K)] for i in range(K)])


@alternative(
    "confusion_matrix",
    unusual="a product of one-hot matrices",
)
def confusion_by_one_hot(y_true, y_pred, K):
    return functional.one_hot(y_true, K).T @ functional.one_hot(y_pred, K)


@alternative(
    "confusion_matrix",
    unusual="index_put_ that accumulates",
)
def confusion_by_index_put(y_true, y_pred, K):
    return torch.zeros(K, K, dtype=torch.long).index_put_((y_true, y_pred), torch.ones_like(y_true), accumulate=True)


# --- What the network looks at ---------------------------------------------------------------------------------------


@alternative(
    "saliency_map",
    unusual="one image at a time, torch.max with indices",
)
def saliency_image_by_image(model, images, y):
    maps = []
    for image, label in zip(images, y, strict=True):
        leaf = image.detach().clone().unsqueeze(0).requires_grad_(True)
        gradient = torch.autograd.grad(model(leaf)[0, label], leaf)[0]
        maps.append(gradient[0].abs().max(dim=0)[0])
    return torch.stack(maps)


@alternative(
    "saliency_map",
    unusual="backward, with every parameter's .grad put back afterwards",
)
def saliency_by_backward(model, images, y):
    kept = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    x = images.detach().clone()
    x.requires_grad = True
    one_hot = functional.one_hot(y, model(x[:1]).shape[1])
    (model(x) * one_hot).sum().backward()
    for p, grad in zip(model.parameters(), kept, strict=True):
        p.grad = grad
    return torch.linalg.vector_norm(x.grad, ord=math.inf, dim=1)


@alternative(
    "saliency_map",
    unusual="backward with the parameters frozen for the time being",
)
def saliency_with_frozen_parameters(model, images, y):
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    x = torch.tensor(images.tolist(), dtype=images.dtype, requires_grad=True)
    model(x)[range(len(y)), y].backward(torch.ones(len(y), dtype=x.dtype))
    for p, flag in zip(model.parameters(), flags, strict=True):
        p.requires_grad_(flag)
    return torch.maximum(x.grad.amax(1), -x.grad.amin(1))


@alternative(
    "saliency_map",
    unusual="a vector-Jacobian product by torch.func",
)
def saliency_by_vjp(model, images, y):
    scores, pull_back = torch.func.vjp(model, images)
    return pull_back(functional.one_hot(y, scores.shape[1]).to(scores.dtype))[0].abs().max(1).values.detach()


@alternative(
    "saliency_map",
    unusual="backward on a deep copy of the model, which is thrown away",
)
def saliency_of_a_copy(model, images, y):
    x = nn.Parameter(images.clone())
    scores = copy.deepcopy(model)(x)
    (scores * functional.one_hot(y, scores.shape[1])).sum().backward()
    return torch.maximum(x.grad.amax(1), -x.grad.amin(1))


@alternative(
    "fgsm",
    unusual="backward(inputs=…), the loss summed, clipping by minimum and maximum",
)
def attack_by_backward_to_inputs(model, images, y, epsilon):
    x = images.detach().clone().requires_grad_()
    loss = -functional.log_softmax(model(x), 1)[torch.arange(len(y)), y].sum()
    loss.backward(inputs=[x])
    with torch.no_grad():
        out = x + epsilon * torch.sign(x.grad)
        return torch.minimum(torch.maximum(out, torch.zeros_like(out)), torch.ones_like(out))


@alternative(
    "fgsm",
    unusual="one image at a time, in place on an own copy",
)
def attack_image_by_image(model, images, y, epsilon):
    out = images.clone()
    for n in range(len(images)):
        x = images[n : n + 1].clone().requires_grad_()
        gradient = torch.autograd.grad(functional.cross_entropy(model(x), y[n : n + 1]), x)[0]
        out[n] += epsilon * ((gradient > 0).to(out.dtype) - (gradient < 0).to(out.dtype))[0]
    return out.clamp_(0, 1)


@alternative(
    "fgsm",
    unusual="torch.func.grad of a function of the images",
)
def attack_by_a_functional_gradient(model, images, y, epsilon):
    gradient = torch.func.grad(lambda x: functional.cross_entropy(model(x), y))(images)
    return torch.clip(images + epsilon * gradient.sign(), 0.0, 1.0).detach()


# --- Bonus -----------------------------------------------------------------------------------------------------------


@alternative(
    "dilated_conv2d",
    unusual="filters with zeros between the taps, as a matrix product",
)
def dilated_by_spread_filters(X, F, b, dilation):
    kh, kw = ((k - 1) * dilation + 1 for k in F.shape[2:])
    spread = F.new_zeros(*F.shape[:2], kh, kw)
    spread[:, :, ::dilation, ::dilation] = F
    windows = X.unfold(2, kh, 1).unfold(3, kw, 1)
    return torch.tensordot(windows, spread, ([1, 4, 5], [1, 2, 3])).permute(0, 3, 1, 2) + b[:, None, None]


@alternative(
    "dilated_conv2d",
    unusual="every d-th pixel of larger windows",
)
def dilated_by_thinned_windows(X, F, b, dilation):
    kh, kw = ((k - 1) * dilation + 1 for k in F.shape[2:])
    windows = X.unfold(2, kh, 1).unfold(3, kw, 1)[..., ::dilation, ::dilation]
    return torch.einsum("nchwij,fcij->nfhw", windows, F) + b.reshape(1, -1, 1, 1)


@alternative(
    "InceptionBlock",
    unusual="branches of their own made in reverse, ReLU by clamp, padding by name",
)
class InceptionInReverse(nn.Module):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__()
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(c_in, c_pool, 1))
        self.wide = nn.Conv2d(c_in, c_5, 5, padding="same")
        self.middle = nn.Conv2d(c_in, c_3, 3, padding="same")
        self.narrow = nn.Conv2d(c_in, c_1, 1)

    def forward(self, x):
        return torch.cat((self.narrow(x), self.middle(x), self.wide(x), self.pooled(x)), dim=1).clamp(min=0)


@alternative(
    "InceptionBlock",
    unusual="batch normalisation and ReLU in every branch, 1×1 reductions before 3×3 and 5×5",
)
class InceptionWithReductions(nn.Module):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__()

        def unit(a, b, k):
            return nn.Sequential(nn.Conv2d(a, b, k, padding=k // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU())

        self.a = unit(c_in, c_1, 1)
        self.b = nn.Sequential(unit(c_in, c_in, 1), unit(c_in, c_3, 3))
        self.c = nn.Sequential(unit(c_in, c_in, 1), unit(c_in, c_5, 5))
        self.d = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(c_in, c_pool, 1))

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], 1)


@alternative(
    "InceptionBlock",
    unusual="two 3×3 convolutions in a row see 5×5 pixels; one ReLU for all",
)
class InceptionOfThrees(nn.Module):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__()
        five = nn.Sequential(nn.Conv2d(c_in, c_5, 3, 1, 1), nn.Conv2d(c_5, c_5, 3, 1, 1))
        pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(c_in, c_pool, 1))
        self.branches = nn.ModuleList([nn.Conv2d(c_in, c_1, 1), nn.Conv2d(c_in, c_3, 3, 1, 1), five, pooled])

    def forward(self, x):
        return functional.relu(torch.cat([branch(x) for branch in self.branches], -3))


@alternative(
    "InceptionBlock",
    unusual="dilation of a sliding maximum by unfold, bias of its own, pooled branch first and put back",
)
class InceptionByUnfold(nn.Module):
    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        super().__init__()
        self.mix = nn.Conv2d(c_in, c_pool, 1, bias=False)
        self.shift = nn.Parameter(torch.zeros(c_pool))
        self.rest = nn.ModuleList(nn.Conv2d(c_in, c, k, 1, k // 2) for c, k in ((c_1, 1), (c_3, 3), (c_5, 5)))

    def forward(self, x):
        padded = functional.pad(x, (1, 1, 1, 1), value=-math.inf)
        pooled = padded.unfold(2, 3, 1).unfold(3, 3, 1).amax((-1, -2))
        last = self.mix(pooled) + self.shift[:, None, None]
        return torch.cat([*(layer(x) for layer in self.rest), last], 1).relu()


@alternative(
    "InceptionBlock",
    unusual="one batch normalisation for the channels of all branches",
)
class NormalisedTogether(nn.Module):
    def __init__(self, c_in, *widths):
        super().__init__()
        kernels = zip(widths, (1, 3, 5, 1), strict=True)
        self.layers = nn.ModuleDict(
            {f"b{k}": nn.Conv2d(c_in, c, n, padding="same") for k, (c, n) in enumerate(kernels)}
        )
        self.norm = nn.BatchNorm2d(sum(widths))

    def forward(self, x):
        inputs = (x, x, x, functional.max_pool2d(x, 3, 1, 1))
        parts = [layer(z) for layer, z in zip(self.layers.values(), inputs, strict=True)]
        return self.norm(torch.cat(parts, 1)).clamp(min=0)


@alternative(
    "SeparableConvBlock",
    unusual="a Sequential with biases; layers made in another order",
)
class SeparableAsSequential(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        norm, point = nn.BatchNorm2d(c_out), nn.Conv2d(c_in, c_out, 1)
        self.parts = nn.ModuleList([norm, point, nn.Conv2d(c_in, c_in, 3, 1, 1, groups=c_in)])

    def forward(self, x):
        for layer in reversed(self.parts):
            x = layer(x)
        return functional.relu(x)


@alternative(
    "SeparableConvBlock",
    unusual="pointwise by einsum with a bare parameter",
)
class SeparableByEinsum(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.depth = nn.Parameter(torch.randn(c_in, 1, 3, 3) / 3)
        self.point = nn.Parameter(torch.randn(c_out, c_in, 1, 1) / math.sqrt(c_in))
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x):
        x = functional.conv2d(x, self.depth, padding=1, groups=x.shape[1])
        return torch.relu(self.norm(torch.einsum("nchw,fcij->nfhw", x, self.point)))


@alternative(
    "SeparableConvBlock",
    unusual="both convolutions multiplied out into one ordinary kernel",
)
class SeparableInOneKernel(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x):
        kernel = self.pointwise.weight * self.depthwise.weight[:, 0]  # (c_out, c_in, 1, 1) · (c_in, 3, 3)
        return self.norm(functional.conv2d(x, kernel, padding=1)).relu()


@alternative(
    "SeparableConvBlock",
    unusual="parameters of its own: windows, one filter for each channel and a matrix in one einsum",
)
class SeparableByEinsum(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.filters = nn.Parameter(torch.randn(c_in, 3, 3) / 3)
        self.mix = nn.Parameter(torch.randn(c_in, c_out) / c_in**0.5)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x):
        windows = functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        return torch.relu(self.norm(torch.einsum("nchwij,cij,cf->nfhw", windows, self.filters, self.mix)))


@alternative(
    "SeparableConvBlock",
    unusual="a layer of its own for each channel, and a linear layer over the channels",
)
class SeparableByChannels(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.norm = nn.BatchNorm2d(c_out)
        self.mix = nn.Linear(c_in, c_out)
        self.each = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in range(c_in))

    def forward(self, x):
        maps = torch.cat([conv(channel) for conv, channel in zip(self.each, x.split(1, 1), strict=True)], 1)
        return self.norm(self.mix(maps.movedim(1, 3)).movedim(3, 1)).relu()


@alternative(
    "class_weights",
    unusual="Python's own arithmetic",
)
def weights_in_python(y, K):
    counts = Counter(y.tolist())
    return torch.tensor([len(y) / (K * counts[k]) if k in counts else 0.0 for k in range(K)], dtype=torch.float32)


@alternative(
    "class_weights",
    unusual="a sum of one-hot rows, infinities replaced",
)
def weights_by_one_hot(y, K):
    counts = functional.one_hot(y, K).sum(0).float()
    weights = y.numel() / (K * counts)
    weights[counts == 0] = 0
    return weights


@alternative(
    "balanced_batches",
    unusual="a generator function that draws while it is iterated",
)
def batches_one_by_one(y, batch_size, generator):
    classes = torch.unique(y)
    least = int(torch.stack([(y == k).sum() for k in classes]).min())
    keys = torch.rand(len(y), generator=generator)
    chosen = torch.zeros(len(y), dtype=torch.bool)
    for k in classes:
        among = torch.where(y == k, keys, 2.0)
        chosen[among.argsort()[:least]] = True
    indices = chosen.nonzero()[:, 0]
    indices = indices[torch.rand(len(indices), generator=generator).argsort()]
    for start in range(0, len(indices), batch_size):
        yield indices[start : start + batch_size]


@alternative(
    "balanced_batches",
    unusual="an object with __iter__, Python lists inside, batches of even classes",
)
def batches_as_an_object(y, batch_size, generator):
    class Epoch:
        def __init__(self):
            groups = {}
            for i in torch.randperm(len(y), generator=generator).tolist():
                groups.setdefault(int(y[i]), []).append(i)
            least = min(len(g) for g in groups.values())
            joined = [i for g in groups.values() for i in g[:least]]
            order = torch.randperm(len(joined), generator=generator).tolist()
            self.indices = torch.tensor([joined[k] for k in order])

        def __len__(self):
            return math.ceil(len(self.indices) / batch_size)

        def __iter__(self):
            return iter(self.indices.split(batch_size))

    return Epoch()


@alternative(
    "balanced_batches",
    unusual="a DataLoader over the chosen indices",
)
def batches_as_a_loader(y, batch_size, generator):
    members = [(y == k).nonzero()[:, 0] for k in y.unique()]
    least = min(map(len, members))
    chosen = torch.cat([m[torch.multinomial(torch.ones(len(m)), least, generator=generator)] for m in members])
    return DataLoader(chosen, batch_size=batch_size, shuffle=True, generator=generator)


@alternative(
    "balanced_batches",
    unusual="one permutation of all examples, of which each class keeps its first ones; drawn as they are asked for",
)
def first_of_each_class(y, batch_size, generator):
    least, seen, chosen = int(torch.unique(y, return_counts=True)[1].min()), Counter(), []
    for index in torch.randperm(len(y), generator=generator).tolist():
        seen[int(y[index])] += 1
        if seen[int(y[index])] <= least:
            chosen.append(index)
    return map(torch.tensor, [chosen[k : k + batch_size] for k in range(0, len(chosen), batch_size)])
