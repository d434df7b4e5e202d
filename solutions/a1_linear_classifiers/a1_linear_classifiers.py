# %% [markdown]
# # Assignment 1: linear classifiers

# %% setup
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

torch.set_num_threads(1)
numbers = {}  # what the experiments measure, by experiment

# %% setup="check"
import checks
from course_utils.checking import checker

check = checker(checks)


# %% exercise="standardizer"
def standardizer(X):
    """Mean and population standard deviation of every feature.

    X (N, d) -> mean (d,), std (d,); a feature whose N entries are all equal gets std 1.
    """
    ### BEGIN SOLUTION
    mean = X.mean(0)
    std = X.std(0, unbiased=False)
    constant = (X == X[0]).all(0)  # a test on std itself would miss what rounding leaves of it
    return mean, torch.where(constant, torch.ones_like(std), std)
    ### END SOLUTION


# %% check="standardizer"
check("standardizer")


# %% exercise="standardize"
def standardize(X, mean, std):
    """Shift and scale every feature.  X (N, d), mean (d,), std (d,) -> (N, d)"""
    ### BEGIN SOLUTION
    return (X - mean) / std
    ### END SOLUTION


# %% check="standardize"
check("standardize")


# %% exercise="binary_svm_cost"
def binary_svm_cost(w, b, X, y, lam):
    """Mean hinge loss plus lam * ||w||^2.

    w (d,), b (), X (N, d), y (N,) of -1 and +1 in X's dtype, lam float -> () tensor
    """
    ### BEGIN SOLUTION
    hinge = torch.clamp(1 - y * (X @ w + b), min=0)  # (N,)
    return hinge.mean() + lam * (w**2).sum()
    ### END SOLUTION


# %% check="binary_svm_cost"
check("binary_svm_cost")


# %% exercise="binary_svm_gradients"
def binary_svm_gradients(w, b, X, y, lam):
    """A subgradient of `binary_svm_cost`.

    w (d,), b (), X (N, d), y (N,) of -1 and +1 in X's dtype, lam float -> grad_w (d,), grad_b ()
    """
    ### BEGIN SOLUTION
    active = y * (X @ w + b) < 1  # (N,)
    g = -(active * y) / len(y)  # (N,): derivative with respect to each score
    return X.T @ g + 2 * lam * w, g.sum()
    ### END SOLUTION


# %% check="binary_svm_gradients"
check("binary_svm_gradients")


# %% exercise="linear_scores"
def linear_scores(X, W, b):
    """The scores of every class.  X (N, d), W (d, K), b (K,) -> (N, K)"""
    ### BEGIN SOLUTION
    return X @ W + b
    ### END SOLUTION


# %% check="linear_scores"
check("linear_scores")


# %% exercise="softmax"
def softmax(scores):
    """Row-wise softmax.  scores (N, K) -> (N, K)"""
    ### BEGIN SOLUTION
    e = torch.exp(scores - scores.amax(1, keepdim=True))  # every row has its own shift
    return e / e.sum(1, keepdim=True)
    ### END SOLUTION


# %% check="softmax"
check("softmax")


# %% exercise="cross_entropy"
def cross_entropy(scores, y):
    """Mean cross-entropy of the softmax of `scores`.  scores (N, K), y (N,) int64 -> () tensor"""
    ### BEGIN SOLUTION
    shifted = scores - scores.amax(1, keepdim=True)
    log_normaliser = torch.exp(shifted).sum(1).log()  # (N,): at least log 1, since one entry is exp(0)
    return (log_normaliser - shifted[torch.arange(len(y)), y]).mean()
    ### END SOLUTION


# %% check="cross_entropy"
check("cross_entropy")


# %% exercise="cost"
def cost(X, y, W, b, lam):
    """Cross-entropy plus lam times the sum of the squares of W.

    X (N, d), y (N,) int64, W (d, K), b (K,), lam float -> () tensor
    """
    ### BEGIN SOLUTION
    return cross_entropy(linear_scores(X, W, b), y) + lam * (W**2).sum()
    ### END SOLUTION


# %% check="cost"
check("cost")


# %% exercise="accuracy"
def accuracy(X, y, W, b):
    """The share of examples whose largest score is that of their class.

    X (N, d), y (N,) int64, W (d, K), b (K,) -> Python float in [0, 1]
    """
    ### BEGIN SOLUTION
    right = linear_scores(X, W, b).argmax(1) == y  # (N,)
    return right.sum().item() / len(y)
    ### END SOLUTION


# %% check="accuracy"
check("accuracy")


# %% exercise="cross_entropy_gradients"
def cross_entropy_gradients(X, y, W, b, lam):
    """The gradients of `cost`.

    X (N, d), y (N,) int64, W (d, K), b (K,), lam float -> grad_W (d, K), grad_b (K,)
    """
    ### BEGIN SOLUTION
    G = softmax(linear_scores(X, W, b))  # (N, K)
    G[torch.arange(len(y)), y] -= 1  # P - Y
    G /= len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)
    ### END SOLUTION


# %% check="cross_entropy_gradients"
check("cross_entropy_gradients")


# %% exercise="minibatch_gd"
def minibatch_gd(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    """Mini-batch gradient descent from (W, b).

    X (N, d), y (N,) int64, W (d, K), b (K,); gradients(X, y, W, b, lam) -> grad_W (d, K), grad_b (K,)
    -> W (d, K), b (K,) after `epochs` epochs; the given W and b are not changed
    """
    ### BEGIN SOLUTION
    W, b = W.clone(), b.clone()
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W = W - lr * grad_W
            b = b - lr * grad_b
    return W, b
    ### END SOLUTION


# %% check="minibatch_gd"
check("minibatch_gd")


# %% exercise="multiclass_hinge"
def multiclass_hinge(scores, y):
    """Mean multi-class hinge loss (Weston and Watkins), margin 1.  scores (N, K), y (N,) int64 -> () tensor"""
    ### BEGIN SOLUTION
    n = torch.arange(len(y))
    violations = torch.clamp(scores - scores[n, y][:, None] + 1, min=0)  # (N, K)
    violations[n, y] = 0  # the true class has no margin to itself
    return violations.sum(1).mean()
    ### END SOLUTION


# %% check="multiclass_hinge"
check("multiclass_hinge")


# %% exercise="multiclass_hinge_gradients"
def multiclass_hinge_gradients(X, y, W, b, lam):
    """A subgradient of multi-class hinge plus lam times the sum of the squares of W.

    X (N, d), y (N,) int64, W (d, K), b (K,), lam float -> grad_W (d, K), grad_b (K,)
    """
    ### BEGIN SOLUTION
    n = torch.arange(len(y))
    scores = linear_scores(X, W, b)  # (N, K)
    G = (scores - scores[n, y][:, None] + 1 > 0).to(scores.dtype)  # (N, K): 1 where the margin is violated
    G[n, y] = 0
    G[n, y] = -G.sum(1)  # the true class is pushed once for every violation
    G /= len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)
    ### END SOLUTION


# %% check="multiclass_hinge_gradients"
check("multiclass_hinge_gradients")


# %% exercise="binary_cross_entropy"
def binary_cross_entropy(scores, y):
    """Mean over examples and classes of the binary cross-entropy of sigmoid(scores) against one-hot targets.

    scores (N, K), y (N,) int64 -> () tensor
    """
    ### BEGIN SOLUTION
    s = scores.clone()  # (N, K)
    s[torch.arange(len(y)), y] *= -1  # log(1 + e^s) for a wrong class, log(1 + e^-s) for the true one
    return (torch.clamp(s, min=0) + torch.log1p(torch.exp(-s.abs()))).mean()
    ### END SOLUTION


# %% check="binary_cross_entropy"
check("binary_cross_entropy")


# %% exercise="binary_cross_entropy_gradients"
def binary_cross_entropy_gradients(X, y, W, b, lam):
    """The gradients of binary cross-entropy plus lam times the sum of the squares of W.

    X (N, d), y (N,) int64, W (d, K), b (K,), lam float -> grad_W (d, K), grad_b (K,)
    """
    ### BEGIN SOLUTION
    scores = linear_scores(X, W, b)  # (N, K)
    e = torch.exp(-scores.abs())  # in (0, 1]: no overflow on either side
    G = torch.where(scores >= 0, torch.ones_like(e), e) / (1 + e)  # sigmoid(scores)
    G[torch.arange(len(y)), y] -= 1
    G /= G.numel()
    return X.T @ G + 2 * lam * W, G.sum(0)
    ### END SOLUTION


# %% check="binary_cross_entropy_gradients"
check("binary_cross_entropy_gradients")


# %% exercise="random_horizontal_flip"
def random_horizontal_flip(images, p, generator):
    """Flip every image from left to right with probability p, each with its own draw.

    images (N, C, H, W) of any dtype, p float in [0, 1] -> (N, C, H, W), a new tensor of the same dtype
    """
    ### BEGIN SOLUTION
    flip = torch.rand(len(images), generator=generator) < p  # (N,); rand is below 1, so p = 1 flips all
    return torch.where(flip[:, None, None, None], images.flip(-1), images)
    ### END SOLUTION


# %% check="random_horizontal_flip"
check("random_horizontal_flip")
