# %% [markdown]
# # Assignment 2: k-layer networks with batch normalisation
#
# A linear classifier has one template for each class, and a car from the left must share it with a car from the right.
# Put a layer in front, and a class can be a *combination* of templates. Put eight in front, and at first nothing works
# at all: the network sits at its first cost and does not move. This assignment is about why, and about what makes deep
# networks train.
#
# You will write it all yourself, without automatic differentiation: the network, its gradients, how it starts, how
# large its steps are, and the layer that keeps its signals in shape. At the end you can say, from your own figures:
#
# - how a gradient travels back through any number of layers, and why it can die on the way;
# - why the *variance* of the first weights decides whether a deep network learns;
# - what a learning rate that goes up and down buys, and how to find its range in one epoch;
# - what momentum, RMSprop and Adam change, and what they do not;
# - what batch normalisation does in training, what else it does in use, and what it saves you from;
# - how to search for hyper-parameters without fooling yourself.

# %% [markdown]
# ## How this notebook works
#
# - **Exercises** are functions that you write. Replace the lines `# YOUR CODE HERE` and `raise NotImplementedError()`.
#   Keep the name of the function and the names of its arguments.
# - **Checks** (`check("forward")`) run your function on small random inputs and show what is met and what is not.
#   Run them as often as you like. Grading runs the same checks on other numbers, and a few more.
# - **Experiments** use your functions to train and to draw. They are complete: run them from top to bottom, and look.
#   They are not rerun for grading, but their figures are read together with your answers.
# - **Predict first.** Write your guess on paper *before* you run the cell.
# - **Written questions** are answered in words and formulas. A person marks them.
# - **Points.** The exercises bring 121.25 points, the written questions 13, and the bonus exercises up to 19.5 on top.
#
# With all exercises solved and CIFAR-10 the notebook runs in about seven minutes on one processor core, and in less
# than one minute on the small embedded set.

# %% [markdown]
# ## The rules that hold for every exercise
#
# **Names and shapes.** $N$ examples, $d$ features, $K$ classes, $k$ layers. Layer $l$ turns $m_{l-1}$ numbers into
# $m_l$ numbers, with $m_0 = d$ and $m_k = K$. Formulas count layers from 1 and lists from 0: $W^{(1)}$ is
# `layers[0]["W"]`. The checks name places as lists do.
#
# | name | shape | what |
# |---|---|---|
# | `X`, `y` | $(N, d)$, $(N,)$ | examples, one in each row; their labels, `int64` from $0$ to $K-1$ |
# | `layers` | list of $k$ dicts | `{"W": (d_in, d_out), "b": (d_out,)}` for each layer, the first one first |
# | `gradients` | the same | the same list of dicts with the same keys and shapes, gradients in place of parameters |
# | `scores` | $(N, K)$ | one row of scores for each example |
# | `cache` | anything | what a forward function keeps for its backward function: a tuple, a dict, … as you like |
# | `lam`, `lr` | Python floats | $\lambda$, the strength of the regulariser, and $\eta$, the learning rate |
#
# **What every function keeps to.** It is what Assignment 1 asked for, and two things more (7 and 8).
#
# 1. It takes `float32` and `float64`, and its results have the dtype of its float arguments. Where no float tensor
#    comes in, `float32` comes out. Integer labels never decide a dtype.
# 2. It does not change its arguments, nor the tensors and dicts inside them. `W -= step` writes into the memory of
#    whoever called you; `W = W - step` makes a new tensor. In-place work on tensors of your own is fine. A result, or a
#    state, may share memory with an argument: nobody who calls you writes into it either.
# 3. It works for $N \ge 1$, $d \ge 1$, $K \ge 2$ and $k \ge 1$ (so also for a single layer, without any hidden one),
#    when some class does not occur in `y`, and for tensors that are not contiguous in memory.
# 4. Where chance is needed it comes from the argument `generator` and from nowhere else: `torch.randn(…,
#    generator=generator)`. The same state of the generator gives the same result. Every draw moves it on, and the
#    next call with it gives something new: draw from `generator` itself, not from a copy.
# 5. Several results are returned as a tuple, `return scores, cache`. A shape `()` is a 0-d tensor; a Python float is
#    accepted in its place.
# 6. It uses its arguments, imports and functions. Variables of the experiments do not exist when your work is graded.
#    Helper functions of your own are welcome, in the cell of an exercise that needs them or in a cell of their own.
#    Several exercises may use the same one.
# 7. **A cache stays valid.** It may be used long after the call that made it, after other calls with other data and
#    other parameters, and more than once. So nothing may be kept in global variables, and a backward function may not
#    use its cache up.
# 8. **A state is a value.** A function that takes a state (running statistics, the memory of an update rule) returns
#    the new one and leaves the old one as it was. Somebody may go back to the old one.
#
# An exercise may call the functions of earlier ones, and should where that is natural. If an earlier one is wrong,
# grading judges the later one again with a right one in its place, so you lose the points only once. The checks here
# do not: with a wrong `forward`, `cost` and `train` fail too. Mend the earliest first.
#
# **What you may not call in an exercise**, because it is what you learn here: automatic differentiation
# (`torch.autograd`, `.backward()`, `requires_grad`, `torch.func`), `torch.optim`, `torch.nn.init`, and the library's
# batch normalisation, dropout and label smoothing, under whatever name; nor what hides which function is called
# (`eval`, `getattr` with a computed name, `__dict__`, files). **What you may call now**, because you have written it in
# Assignment 1: `torch.relu`, `torch.softmax`, `torch.log_softmax`, `torch.logsumexp`, `F.cross_entropy`, `F.one_hot`.
# Everything else is allowed, loops and NumPy included. The checks and grading both look for forbidden calls; an
# exercise with one gets no points.

# %% setup="install"
# On Google Colab this cell installs what the notebook needs; everywhere else it only looks whether it is there.
import glob
import importlib.util
import os
import shutil
import sys
import zipfile

if "google.colab" in sys.modules and not os.path.exists("checks.py"):
    wanted = "*/assignments/a2_k_layer_networks"
    if not glob.glob(wanted):
        for archive in filter(zipfile.is_zipfile, glob.glob("*.zip")):
            shutil.unpack_archive(archive, format="zip")
    if not glob.glob(wanted):
        print("Choose the assignment's zip file, as your course gave it to you.")
        from google.colab import files

        for archive in filter(zipfile.is_zipfile, files.upload()):
            shutil.unpack_archive(archive, format="zip")
    if not glob.glob(wanted):
        raise FileNotFoundError("No zip file here holds a2_k_layer_networks; run this cell again and choose it.")
    bundle = glob.glob(wanted)[0].split(os.sep)[0]
    sys.path.insert(0, os.path.abspath(bundle))
    from course_utils.colab import install

    install(bundle, "a2_k_layer_networks")
elif importlib.util.find_spec("course_utils") is None:
    raise ModuleNotFoundError(
        f"The course's package is not in {sys.prefix}: choose the kernel of the environment in which you ran "
        "`pip install .` (in VS Code at the top right), or run that in the folder of the bundle."
    )

# %% setup
import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from course_utils.data import flatten_images, load_images, unflatten_images
from course_utils.gradients import check_gradients
from course_utils.plots import (
    BLUE,
    GREEN,
    PALETTE,
    SPLIT_STYLES,
    VERMILLION,
    course_style,
    plot_curves,
    plot_layer_histograms,
    plot_search,
    plot_weight_templates,
)

torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it gains
numbers = {}  # what each experiment measured, by the name of the experiment

# %% setup="check"
import checks

from course_utils.checking import checker

check = checker(checks)

# %% [markdown]
# # 0. The images
#
# As in Assignment 1: CIFAR-10 where this machine has it or can download it, and otherwise *digits in scenes*. With
# CIFAR-10 all experiments have their full size, 45,000 images to train on. With the small set they are shorter, and
# the images have half the height and width. Every feature gets mean 0 and standard deviation 1 over the **training**
# images.

# %% experiment="images"
torch.set_flush_denormal(True)  # take numbers below 1e-38 for 0: a processor computes with them many times slower
name = load_images("auto", train=100, validation=100, test=100).name  # says which set it takes
full_size = name == "cifar10"
sizes = {"train": 45_000, "validation": 5_000} if full_size else {"train": 5_000, "validation": 1_000}
data = load_images(name, **sizes, test=10_000 if full_size else 2_000)
shape = (3, 32, 32) if full_size else (3, 16, 16)
N, K = len(data.train.labels), len(data.classes)


def rows_of(images):
    """One row of d numbers from 0 to 1 for each image; the small set at half the height and width."""
    X = flatten_images(images)
    return X if full_size else F.avg_pool2d(unflatten_images(X), 2).flatten(1)


X_all = rows_of(torch.cat([data.train.images, data.validation.images]))
y_all = torch.cat([data.train.labels, data.validation.labels])
mean, std = X_all[:N].mean(0), X_all[:N].std(0, unbiased=False)
X_all.sub_(mean).div_(std)  # in place: half a gigabyte need not be copied
X_train, y_train, X_validation, y_validation = X_all[:N], y_all[:N], X_all[N:], y_all[N:]
X_test, y_test = (rows_of(data.test.images) - mean) / std, data.test.labels
d = X_train.shape[1]
print(data)
print(f"d = {d:,} features, K = {K} classes; a cost of ln K = {math.log(K):.3f} is what knowing nothing costs")
numbers["images"] = {"set": data.name, "training images": N}

# %% [markdown]
# # 1. A network, and how it starts
#
# ## 1.1 Layers
#
# A layer is what you know already, a matrix product and a bias. A network is a chain of them. With
# $H^{(0)} = X$ and $l = 1, \dots, k$,
#
# $$
# S^{(l)} = H^{(l-1)} W^{(l)} + \mathbf{1} \mathbf{b}^{(l)\top}, \qquad
# H^{(l)} = \max\bigl(0, S^{(l)}\bigr) \ \text{ for } l < k, \qquad \text{scores} = S^{(k)} .
# $$
#
# The $m_l$ columns of $H^{(l)}$ are the **hidden units** of layer $l$. The function $\max(0, s)$, taken entry by
# entry, is the *rectified linear unit*, ReLU. It looks too simple to matter, but without it there is no network. Two
# layers without it are
#
# $$
# (X W^{(1)} + \mathbf{1}\mathbf{b}^{(1)\top})\, W^{(2)} + \mathbf{1}\mathbf{b}^{(2)\top}
# = X \underbrace{W^{(1)} W^{(2)}}_{\text{one matrix}}
# + \mathbf{1} \underbrace{(\mathbf{b}^{(1)\top} W^{(2)} + \mathbf{b}^{(2)\top})}_{\text{one bias}},
# $$
#
# one layer again. The bend is what makes the second layer worth its parameters. The *last* layer has no ReLU: scores
# may be negative.
#
# ## 1.2 Why not start at zero, and why variance is what counts
#
# Assignment 1 could start from $W = 0$. Here all hidden units would then be equal, get equal gradients, and stay equal
# for ever. So the weights are drawn at random, $W_{ij} \sim \mathcal{N}(0, \sigma^2)$, and $\mathbf{b} = 0$. Only:
# with which $\sigma$?
#
# Follow the size of the signal through one layer. In $S_{nj} = \sum_i H_{ni} W_{ij}$ the $m_{l-1}$ weights are
# independent with mean 0. So the mean of $S$ is 0, products of different weights cancel on average, and what is left
# is a sum of squares:
#
# $$
# \operatorname{Var}\bigl(S^{(l)}_{nj}\bigr) = \sum_{i=1}^{m_{l-1}} \bigl(H^{(l-1)}_{ni}\bigr)^2 \sigma^2
# \approx m_{l-1}\, \sigma^2 \cdot \text{(mean square of } H^{(l-1)}\text{)} .
# $$
#
# $S$ is symmetric about 0, and ReLU throws its negative half away. So the mean square of $H = \max(0, S)$ is *half*
# the variance of $S$. Together, from one hidden layer to the next,
#
# $$
# \operatorname{Var}\bigl(S^{(l)}\bigr) \approx \underbrace{\tfrac12\, m_{l-1}\, \sigma^2}_{c}
# \ \operatorname{Var}\bigl(S^{(l-1)}\bigr).
# $$
#
# One factor $c$ for **each** layer after the first, so with equal factors $c^{k-1}$ from $S^{(1)}$ to the scores. That
# is why variance decides: if $c$ is a little too small, the signal vanishes exponentially with depth, and if it is too
# large it explodes. Only $c = 1$ keeps it:
#
# $$
# \sigma = \sqrt{\frac{2}{m_{l-1}}} \qquad \text{(K. He et al., 2015).}
# $$
#
# Back-propagation multiplies by $W^{(l)\top}$, a sum over $m_l$ terms in place of $m_{l-1}$. By the same argument the
# *gradients* keep their size for $\sigma^2 = 2 / m_l$. One cannot have both. X. Glorot and Y. Bengio (2010) looked at
# units without the factor ½ (near 0 a tanh is the identity), found $1/m_{l-1}$ forwards and $1/m_l$ backwards, and
# took the value between them:
#
# $$
# \sigma = \sqrt{\frac{2}{m_{l-1} + m_l}} \qquad \text{("Xavier").}
# $$
#
# For ReLU, He's forward choice is enough. What is wrong backwards is a factor $m_l / m_{l-1}$ of the variance for each
# layer from $k$ down to 2, and the product of all these is $m_k / m_1$, whatever the depth.
#
# **By hand first.** Eight hidden layers of 100 units with $\sigma = 0.01$: $c = \frac12 \cdot 100 \cdot 0.0001 =
# 0.005$, so each layer multiplies the standard deviation by $\sqrt{0.005} = 0.071$, and seven steps from layer 1 to
# layer 8 by $0.071^7 = 9 \cdot 10^{-9}$.
#
# ### Exercise `initialize`
#
# The list of layers for `sizes` $= [d, m_1, \dots, K]$.
#
# - `scheme="he"`: standard deviation $\sqrt{2 / d_\text{in}}$. `scheme="xavier"`: $\sqrt{2 / (d_\text{in} +
#   d_\text{out})}$. `scheme="normal"`: `sigma`, a float, which is `None` for the other two. All three are Gaussian with
#   mean 0. `torch.randn` draws with standard deviation 1: multiply. Mind that these are *standard deviations*, not
#   variances.
# - $\mathbf{b} = 0$. Everything in `float32`.
# - Each layer has tensors of its own, also where two layers have the same shape: the same object twice would be one
#   layer used twice.
# - Any other scheme: raise a `ValueError` whose message contains the name that was given.
#
# `initialize([3072, 50, 10], "he", generator=g)` is a list of two dicts, with `W` of shape $(3072, 50)$ and spread
# $0.026$, and of shape $(50, 10)$ and spread $0.2$.


# %% exercise="initialize"
def initialize(sizes, scheme, *, sigma=None, generator):
    """Random parameters of a network, in float32.

    sizes [d, m1, …, K], scheme "he", "xavier" or "normal" (which needs sigma, a float), generator a torch.Generator
    ->  list of dicts {"W": (d_in, d_out), "b": (d_out,)}, one for each layer
    """
    ### BEGIN SOLUTION
    layers = []
    for d_in, d_out in pairwise(sizes):
        if scheme == "he":
            std = math.sqrt(2 / d_in)
        elif scheme == "xavier":
            std = math.sqrt(2 / (d_in + d_out))
        elif scheme == "normal":
            std = sigma
        else:
            raise ValueError(f"There is no scheme {scheme!r}; choose he, xavier or normal.")
        layers.append({"W": std * torch.randn(d_in, d_out, generator=generator), "b": torch.zeros(d_out)})
    return layers
    ### END SOLUTION


# %% check="initialize"
check("initialize")

# %% [markdown]
# # 2. Forwards and backwards
#
# ## 2.1 Forwards
#
# One small network will be with us through this section. It has $d = 2$ features, $m = 2$ hidden units, $K = 2$
# classes, and one example $\mathbf{x} = (1, 2)$ with $y = 0$:
#
# $$
# W^{(1)} = \begin{pmatrix} 1 & -1 \\ 1 & 1 \end{pmatrix}, \quad \mathbf{b}^{(1)} = (-1, -2), \qquad
# W^{(2)} = \begin{pmatrix} 1 & 0 \\ 1 & -1 \end{pmatrix}, \quad \mathbf{b}^{(2)} = (0, 2), \qquad \lambda = 0.1 .
# $$
#
# **By hand first.** $\mathbf{s}^{(1)} = \mathbf{x} W^{(1)} + \mathbf{b}^{(1)} = (3, 1) + (-1, -2) = (2, -1)$. ReLU
# makes it $\mathbf{h} = (2, 0)$. The scores are $\mathbf{h} W^{(2)} + \mathbf{b}^{(2)} = (2, 0) + (0, 2) = (2, 2)$.
#
# ### Exercise `forward`
#
# Return the scores and a cache.
#
# - ReLU after every layer except the last. With one layer the scores are $X W + \mathbf{b}$.
# - The cache is your own business: read Section 2.3 and put into it what `backward` will need.
# - `forward` may be called for other data and other layers before the cache is used (rule 7).


# %% exercise="forward"
def forward(X, layers):
    """The scores of a network with ReLU on its hidden layers.

    X (N, d), layers a list of dicts {"W", "b"}  ->  scores (N, K), cache (whatever `backward` needs)
    """
    ### BEGIN SOLUTION
    inputs = [X]  # of each layer
    for layer in layers[:-1]:
        inputs.append(torch.relu(inputs[-1] @ layer["W"] + layer["b"]))
    scores = inputs[-1] @ layers[-1]["W"] + layers[-1]["b"]
    return scores, (inputs, scores)
    ### END SOLUTION


# %% check="forward"
check("forward")

# %% [markdown]
# ## 2.2 The cost
#
# The mean cross-entropy of the scores, plus $\lambda$ times the sum of the squares of **all** weight matrices. Biases
# are not regularised.
#
# $$
# J = \frac1N \sum_{n=1}^{N} -\ln P_{n y_n} + \lambda \sum_{l=1}^{k} \sum_{i,j} \bigl(W^{(l)}_{ij}\bigr)^2 .
# $$
#
# As in Assignment 1 the first part is called the *loss* and the sum of both the *cost*.
#
# ### Exercise `cost`
#
# No factor ½. Finite for scores of $\pm 1000$, which `F.cross_entropy(scores, y)` is.
#
# **By hand first.** Both scores are equal, so the loss is $\ln 2 = 0.6931$. The squares sum to $4 + 3 = 7$, and the
# cost is $0.6931 + 0.7 = 1.3931$.


# %% exercise="cost"
def cost(X, y, layers, lam):
    """Mean cross-entropy plus lam times the sum of the squares of all W.

    X (N, d), y (N,) int64, layers a list of dicts {"W", "b"}, lam a float  ->  ()
    """
    ### BEGIN SOLUTION
    scores, _ = forward(X, layers)
    return F.cross_entropy(scores, y) + lam * sum((layer["W"] ** 2).sum() for layer in layers)
    ### END SOLUTION


# %% check="cost"
check("cost")

# %% [markdown]
# ## 2.3 Backwards
#
# We need $\partial J / \partial W^{(l)}$ and $\partial J / \partial \mathbf{b}^{(l)}$ for every layer. The chain rule
# gives them one after the other, from the last layer to the first. That is all *back-propagation* is. Let $L$ be the
# loss and
#
# $$G^{(l)} = \frac{\partial L}{\partial S^{(l)}} \qquad (N, m_l)$$
#
# the gradient at the sums of layer $l$. Three facts are needed.
#
# **1. At the top** it is the one from Assignment 1: $G^{(k)} = \frac1N (P - Y)$, with the softmax probabilities $P$
# and the one-hot labels $Y$.
#
# **2. Inside a layer**, $S_{nj} = \sum_i H_{ni} W_{ij} + b_j$, where $H$ stands for what goes *into* the layer:
#
# $$
# \frac{\partial L}{\partial W} = H^\top G, \qquad
# \frac{\partial L}{\partial \mathbf{b}} = \sum_n G_{n \cdot}, \qquad
# \frac{\partial L}{\partial H} = G\, W^\top .
# $$
#
# The first two are Assignment 1 with $H$ for $X$. The third is new: $H_{ni}$ enters all sums of its row, $S_{nj}$ with
# the factor $W_{ij}$, and so $\partial L / \partial H_{ni} = \sum_j G_{nj} W_{ij}$. Write down the shapes: $(N,
# m_l)(m_l, m_{l-1}) \to (N, m_{l-1})$.
#
# **3. Through a ReLU**, $H = \max(0, S)$ entry by entry. Its slope is 1 where $S > 0$ and 0 elsewhere, for which we
# write $[S > 0]$. With $\odot$ for the product entry by entry,
#
# $$
# G^{(l-1)} = \Bigl( G^{(l)}\, W^{(l)\top} \Bigr) \odot \bigl[ S^{(l-1)} > 0 \bigr] .
# $$
#
# At $S = 0$ exactly there is a kink, and **we take the slope 0**, as PyTorch does. This is not a quibble here: where
# all units of a layer are off and the next bias is 0, the next sums *are* exactly 0.
#
# Finally add $2 \lambda W^{(l)}$ to the gradient of **each** $W^{(l)}$.
#
# Read fact 3 once more. To travel one layer down, the gradient is multiplied by $W^\top$ and loses about half of its
# entries. Where $m_l = m_{l-1}$ that is the same factor as in Section 1.2, and everywhere it is the same danger.
#
# **By hand first.** $P = (\frac12, \frac12)$, so $G^{(2)} = (-\frac12, \frac12)$. Then, without the regulariser,
#
# $$
# \frac{\partial L}{\partial W^{(2)}} = \mathbf{h}^\top G^{(2)} = \begin{pmatrix} -1 & 1 \\ 0 & 0 \end{pmatrix}, \qquad
# G^{(2)} W^{(2)\top} = \bigl(-\tfrac12,\ -1\bigr), \qquad
# G^{(1)} = \bigl(-\tfrac12,\ -1\bigr) \odot (1, 0) = \bigl(-\tfrac12,\ 0\bigr),
# $$
#
# $$
# \frac{\partial L}{\partial W^{(1)}} = \mathbf{x}^\top G^{(1)}
# = \begin{pmatrix} -\frac12 & 0 \\ -1 & 0 \end{pmatrix} .
# $$
#
# The gradients of the biases are $G^{(2)}$ and $G^{(1)}$. With $2 \lambda W = 0.2\, W$ added the weights have
# $\begin{pmatrix} -0.8 & 1 \\ 0.2 & -0.2 \end{pmatrix}$ and
# $\begin{pmatrix} -0.3 & -0.2 \\ -0.8 & 0.2 \end{pmatrix}$.
#
# ### Exercise `backward`
#
# The gradients of `cost`, as a list of dicts with the keys `"W"` and `"b"`, the first layer first.
#
# - `cache` comes from `forward(X, layers)` with the same `layers`. `X` itself is not an argument.
# - The $1/N$ is in $G^{(k)}$ already. All other sums over $n$ are sums.
# - Each $G^{(l-1)}$ has its own mask, that of *its* layer. The last layer has no ReLU, so there is no mask at the top.
# - Works for one layer, too, and any number of times with the same cache.


# %% exercise="backward"
def backward(y, layers, cache, lam):
    """The gradients of `cost`, from the cache of a forward pass.

    y (N,) int64, layers a list of dicts {"W", "b"}, cache from `forward`, lam a float
    ->  list of dicts {"W", "b"} with the shapes of the layers'
    """
    ### BEGIN SOLUTION
    inputs, scores = cache
    G = torch.softmax(scores, 1)  # (N, K)
    G[torch.arange(len(y)), y] -= 1
    G /= len(y)  # gradient of the loss with respect to what the last layer gives
    gradients = []
    for H, layer in zip(reversed(inputs), reversed(layers), strict=True):  # H is what went into the layer
        gradients.append({"W": H.T @ G + 2 * lam * layer["W"], "b": G.sum(0)})
        if len(gradients) < len(layers):
            G = G @ layer["W"].T * (H > 0)  # through the layer, then through the ReLU before it
    return gradients[::-1]
    ### END SOLUTION


# %% check="backward"
check("backward")

# %% [markdown] written="pen_and_paper" points=4
# ### Written question 1: with pen and paper
#
# Two examples, $d = 2$, $m = 2$, $K = 2$:
#
# $$
# X = \begin{pmatrix} 1 & 1 \\ -2 & 0 \end{pmatrix}, \quad y = (0, 1), \qquad
# W^{(1)} = \begin{pmatrix} 1 & -1 \\ 1 & 1 \end{pmatrix}, \quad \mathbf{b}^{(1)} = (0, -1), \qquad
# W^{(2)} = \begin{pmatrix} 1 & -1 \\ 4 & \ln 3 \end{pmatrix}, \quad \mathbf{b}^{(2)} = (-4, 0) .
# $$
#
# Do not use your code until the end. ($\ln 3 = 1.0986$, $\ln 2 = 0.6931$, and all probabilities are simple fractions.)
#
# - (a) Forwards: $S^{(1)}$, $H^{(1)}$, the scores, $P$, and the loss.
# - (b) The second layer: $G^{(2)}$, $\partial L/\partial W^{(2)}$, $\partial L/\partial \mathbf{b}^{(2)}$.
# - (c) The first layer: $G^{(2)} W^{(2)\top}$, $G^{(1)}$, $\partial L/\partial W^{(1)}$,
#   $\partial L/\partial \mathbf{b}^{(1)}$.
# - (d) Which example moves which hidden unit's weights, and why only that one? What becomes of
#   $\partial J/\partial W^{(1)}$ with $\lambda = 0.1$?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** $X W^{(1)} = \begin{pmatrix} 2 & 0 \\ -2 & 2 \end{pmatrix}$, so
# $S^{(1)} = \begin{pmatrix} 2 & -1 \\ -2 & 1 \end{pmatrix}$ and
# $H^{(1)} = \begin{pmatrix} 2 & 0 \\ 0 & 1 \end{pmatrix}$. Scores
# $\begin{pmatrix} 2 & -2 \\ 4 & \ln 3 \end{pmatrix} + \begin{pmatrix} -4 & 0 \\ -4 & 0 \end{pmatrix}
# = \begin{pmatrix} -2 & -2 \\ 0 & \ln 3 \end{pmatrix}$,
# $P = \begin{pmatrix} \frac12 & \frac12 \\ \frac14 & \frac34 \end{pmatrix}$, loss
# $\frac12 (\ln 2 + \ln \frac43) = \frac12 (0.6931 + 0.2877) = 0.4904$.
#
# **(b)** $G^{(2)} = \frac12 (P - Y) = \begin{pmatrix} -\frac14 & \frac14 \\ \frac18 & -\frac18 \end{pmatrix}$,
# $\partial L / \partial W^{(2)} = H^{(1)\top} G^{(2)} = \begin{pmatrix} -\frac12 & \frac12 \\ \frac18 & -\frac18
# \end{pmatrix}$, $\partial L / \partial \mathbf{b}^{(2)} = (-\frac18, \frac18)$.
#
# **(c)** $G^{(2)} W^{(2)\top} = \begin{pmatrix} -\frac14 - \frac14 & -1 + \frac14 \ln 3 \\ \frac18 + \frac18 & \frac12
# - \frac18 \ln 3 \end{pmatrix} = \begin{pmatrix} -0.5 & -0.7253 \\ 0.25 & 0.3627 \end{pmatrix}$. The mask is
# $\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}$, so $G^{(1)} = \begin{pmatrix} -0.5 & 0 \\ 0 & 0.3627 \end{pmatrix}$,
# $\partial L / \partial W^{(1)} = X^\top G^{(1)} = \begin{pmatrix} -0.5 & -0.7253 \\ -0.5 & 0 \end{pmatrix}$,
# $\partial L / \partial \mathbf{b}^{(1)} = (-0.5, 0.3627)$.
#
# **(d)** Example 1 moves unit 1 only and example 2 moves unit 2 only: for the other unit the sum is negative, ReLU is
# flat there, and a small change of that unit's weights changes nothing. With $\lambda = 0.1$ add $0.2\, W^{(1)}$:
# $\begin{pmatrix} -0.3 & -0.9253 \\ -0.3 & 0.2 \end{pmatrix}$.
#
# *Marking guide.* One point for each part. An arithmetical slip costs half a point where it is made; what follows
# correctly from a slip is right. (c) needs the mask of $S^{(1)}$ (half). (d) needs the reason and the factor 2 in
# $2 \lambda W$ (half each).
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## 2.4 The gradient report
#
# The report compares each entry with a centred difference of your `cost`, in `float64`. First $\lambda = 0$, then
# $\lambda = 0.1$: if only the second fails, the mistake is in the regulariser. Three layers, twenty images, about
# thirty of the features.

# %% experiment="gradient_report"
generator = torch.Generator().manual_seed(0)
X_few, y_few = X_train[:20, :: d // 30].double(), y_train[:20]
sizes_few = [X_few.shape[1], 12, 9, K]


def in_float64(layers):
    """The same parameters in float64, with biases that are not zero: zeros would hide mistakes."""
    return [
        {
            name: (value if name == "W" else value + 0.3 * torch.randn(value.shape, generator=generator)).double()
            for name, value in layer.items()
        }
        for layer in layers
    ]


layers_few = in_float64(initialize(sizes_few, "he", generator=generator))


def report_gradients(gradients, lam):
    """Hold a list of gradients against the numerical gradient of `cost`, on twenty images."""
    return check_gradients(
        lambda layers: cost(X_few, y_few, layers, lam),
        layers_few,
        gradients,
        sizes={"N": len(y_few), "K": K},
        lam=lam,
    )


_, cache_few = forward(X_few, layers_few)
reports = {f"λ = {lam}": report_gradients(backward(y_few, layers_few, cache_few, lam), lam) for lam in (0.0, 0.1)}
numbers["gradient_report"] = {name: bool(report.passed) for name, report in reports.items()}
reports["λ = 0.0"]

# %% experiment="gradient_report_regularised"
reports["λ = 0.1"]

# %% [markdown]
# Now three patients. Each spoils your gradients, which are right by now, as students' solutions often are.
#
# - Patient 1 regularises the last layer only.
# - Patient 2 lets the gradient pass through the **first** ReLU everywhere, also where that ReLU is off.
# - Patient 3 kept its cache in a global variable, and somebody called `forward` on other images in between.
#
# **Predict first.** Which parameters of which *layers* will be red in each of the three reports? That is how you find
# a mistake in a long chain: where it makes one $G^{(l)}$ wrong, the layers above $l$ are right, and $l$ and all below
# are wrong. A mistake that touches no $G^{(l)}$ is wrong in its own place only.

# %% experiment="patients"
right, loss_only = (backward(y_few, layers_few, cache_few, lam) for lam in (0.1, 0.0))
patient_1 = [*loss_only[:-1], right[-1]]

# With a single image the gradient of a bias *is* that image's row of G.
rows = [backward(y_few[[n]], layers_few, forward(X_few[[n]], layers_few)[1], 0.0)[1]["b"] for n in range(len(y_few))]
unmasked = torch.stack(rows) / len(y_few) @ layers_few[1]["W"].T  # (N, m1)
patient_2 = [{"W": X_few.T @ unmasked + 0.2 * layers_few[0]["W"], "b": unmasked.sum(0)}, *right[1:]]

_, cache_of_others = forward(X_train[20:40, :: d // 30].double(), layers_few)
patient_3 = backward(y_few, layers_few, cache_of_others, 0.1)

patients = {f"patient {n}": report_gradients(p, 0.1) for n, p in enumerate((patient_1, patient_2, patient_3), 1)}
numbers["patients"] = {name: bool(report.passed) for name, report in patients.items()}
patients["patient 1"]

# %% experiment="patient_2"
patients["patient 2"]

# %% experiment="patient_3"
patients["patient 3"]

# %% [markdown]
# ## 2.5 The picture that explains why deep networks did not learn
#
# Nine layers, eight of them hidden with 100 units each, 500 images, no training yet. Four starts: $\sigma = 0.01$ for
# all weights, which was the usual choice once; Xavier; He; and $\sigma = 0.3$. First the sums $S^{(l)}$, layer by
# layer.
#
# **Predict first.** Section 1.2 gives the factor by which the standard deviation changes from one hidden layer to the
# next. (a) Compute it for all four. (b) The gradients travel from the right to the left. In which layer are they
# smallest? Careful: $\partial L / \partial W^{(l)} = H^{(l-1)\top} G^{(l)}$ has *two* factors.

# %% experiment="signal_by_layer"
sizes_deep = [d, *[100] * 8, K]
starts = {"σ = 0.01": ("normal", 0.01), "Xavier": ("xavier", None), "He": ("he", None), "σ = 0.3": ("normal", 0.3)}
sums, norms, numbers["signal_by_layer"] = {}, {}, {}
print("           standard deviation of the sums              size of the gradient of W")
print("             layer 1    layer 4    layer 8    layer 9    layer 1    layer 4    layer 8    layer 9      cost")
for name, (scheme, sigma) in starts.items():
    layers = initialize(sizes_deep, scheme, sigma=sigma, generator=torch.Generator().manual_seed(0))
    # The last layer has no ReLU, so the "scores" of the first l layers are the sums of layer l.
    sums[name] = [forward(X_train[:500], layers[:l])[0] for l in range(1, 10)]
    _, cache = forward(X_train[:500], layers)
    gradients = backward(y_train[:500], layers, cache, 0.0)
    norms[name] = {key: [layer[key].norm().item() for layer in gradients] for key in ("W", "b")}
    spread = [S.std().item() for S in sums[name]]
    first_cost = cost(X_train[:500], y_train[:500], layers, 0.0).item()
    line = "  ".join(f"{values[l]:9.2g}" for values in (spread, norms[name]["W"]) for l in (0, 3, 7, 8))
    print(f"{name:9} {line}  {first_cost:8.3g}")
    numbers["signal_by_layer"][name] = {"spread": spread, "gradient norms": norms[name], "cost": first_cost}
plot_layer_histograms(
    {name: values[:8] for name, values in sums.items()},
    limit=5.0,
    unit="sums S of 500 images before training",
    title="What arrives in each hidden layer, for four starts",
)

# %% [markdown]
# He's network looks the same in layer 8 as in layer 1. With $\sigma = 0.01$ nothing arrives: what layer 8 sees of an
# image is a hundred-millionth of what layer 1 sees. And now what comes back, with logarithmic axes.

# %% experiment="gradient_by_layer"
layer_numbers = list(range(1, 10))
plot_curves(
    {
        "spread of the sums": {name: (layer_numbers, [S.std().item() for S in sums[name]]) for name in starts},
        "size of the gradient of b": {name: (layer_numbers, norms[name]["b"]) for name in starts},
        "size of the gradient of W": {name: (layer_numbers, norms[name]["W"]) for name in starts},
    },
    step="layer",
    log=("spread of the sums", "size of the gradient of b", "size of the gradient of W"),
    title="What goes forwards (left), what comes back (middle), and what a weight gets (right), before training",
)

# %% [markdown]
# The left and the middle panel are as foreseen: from one hidden layer to the next one factor, and from the right to the
# left the same factor again, since the hidden layers are equally wide. Surprised by the right one? The gradient of a
# *weight* has nearly the same size in all layers. It is a product of what came forwards, $H^{(l-1)}$, and of what comes
# back, $G^{(l)}$, and together they contain the factors of *all* layers, whichever $l$ is. So with $\sigma = 0.01$ it
# is not only the first layers that do not learn. No weight does. The bias of the last layer alone gets a gradient of
# ordinary size, and all it can learn is how frequent the classes are. The cost stays at $\ln 10 = 2.303$.
#
# At the other end, $\sigma = 0.3$ has a first cost of thousands, and gradients to match: any step is too large.
# Xavier's factor is $\sqrt{\frac12}$ from one hidden layer to the next. That is a mild disease at nine layers and a
# deadly one at fifty.

# %% [markdown]
# # 3. Training
#
# ## 3.1 A learning rate that goes up and down
#
# Assignment 1 had one $\eta$ for all. Too large, and the noise of the batches never settles; too small, and nothing
# moves. L. N. Smith (2017) lets it do both in turn. It rises on a straight line from $\eta_{\min}$ to
# $\eta_{\max}$ within $n_s$ updates, falls back in the next $n_s$, and starts again. While it is high the network
# travels fast and far, over small bumps; while it falls it settles. A full **cycle** has $2 n_s$ updates.
#
# With $p = t \bmod 2 n_s$, the position in the cycle,
#
# $$
# \eta_t = \eta_{\min} + (\eta_{\max} - \eta_{\min}) \cdot
# \begin{cases} p / n_s & p \le n_s \\ 2 - p / n_s & p \ge n_s . \end{cases}
# $$
#
# ### Exercise `cyclical_lr`
#
# For any integer $t \ge 0$, as a Python float.
#
# **By hand first.** $n_s = 4$, from $0.1$ to $0.5$: for $t = 0, 1, \dots, 9$ it is $0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3,
# 0.2, 0.1, 0.2$.


# %% exercise="cyclical_lr"
def cyclical_lr(t, n_s, lr_min, lr_max):
    """The triangular learning rate: lr_min at t = 0, lr_max at n_s, lr_min again at 2 n_s, and so on.

    t an int >= 0, n_s an int >= 1, lr_min and lr_max floats  ->  float
    """
    ### BEGIN SOLUTION
    position = t % (2 * n_s)
    from_the_end = min(position, 2 * n_s - position)  # 0 … n_s
    return lr_min + (lr_max - lr_min) * from_the_end / n_s
    ### END SOLUTION


# %% check="cyclical_lr"
check("cyclical_lr")

# %% [markdown]
# ## 3.2 The loop
#
# ### Exercise `train`
#
# Plain mini-batch gradient descent on `cost`, with the cyclical learning rate.
#
# - Exactly $2 \cdot n_s \cdot$ `cycles` updates, counted $t = 0, 1, 2, \dots$ Update $t$ uses `cyclical_lr(t, n_s,
#   lr_min, lr_max)`. The count runs on from epoch to epoch and from cycle to cycle.
# - In each epoch every example is used once, in a new order drawn from `generator`, in batches of `batch_size`. The
#   last batch of an epoch takes what is left. Batches never mix two epochs.
# - Cycles and epochs know nothing of each other. The *last* epoch ends where the updates end, perhaps in its
#   middle.
# - An update subtracts $\eta_t$ times the gradient of the batch's cost (with `lam`) from every parameter.
# - If `on_step` is not `None`, call `on_step(t, lr, value)` after every update. `lr` is the learning rate of this
#   update, and `value` is the `cost` of this mini-batch *with the parameters before the update*, as a Python float
#   (`.item()`).
# - Return the layers after the last update, whether or not others before had a lower cost, as new ones. Those that were
#   given keep their values.
#
# With $N = 10$, `batch_size=4`, $n_s = 2$ and two cycles there are 8 updates. One possible run:
#
# ```
# order     7 2 9 0 | 5 1 8 3 | 6 4 || 3 8 1 6 | 0 9 4 7 | 2 5 || 8 0 3 5 | 7 1 9 2
# t               0         1     2          3         4     5          6         7
# η             min       mid   max        mid       min   mid        max       mid
# ```


# %% exercise="train"
def train(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    """Mini-batch gradient descent with a cyclical learning rate: 2 · n_s · cycles updates.

    X (N, d), y (N,) int64, layers a list of dicts {"W", "b"}; lam, lr_min, lr_max floats; batch_size, n_s, cycles ints;
    generator a torch.Generator; on_step None or a function, called as on_step(t, lr, cost)  ->  new layers
    """
    ### BEGIN SOLUTION
    batches = []
    for t in range(2 * n_s * cycles):
        if not batches:  # a new epoch, in a new order
            batches = list(torch.randperm(len(X), generator=generator).split(batch_size))
        batch = batches.pop(0)
        X_batch, y_batch = X[batch], y[batch]
        lr = cyclical_lr(t, n_s, lr_min, lr_max)
        before = layers
        _, cache = forward(X_batch, layers)
        gradients = backward(y_batch, layers, cache, lam)
        layers = [
            {name: value - lr * gradient[name] for name, value in layer.items()}
            for layer, gradient in zip(layers, gradients, strict=True)
        ]
        if on_step is not None:
            on_step(t, lr, float(cost(X_batch, y_batch, before, lam)))
    return layers
    ### END SOLUTION


# %% check="train"
check("train")

# %% [markdown]
# ### First test: overfit 100 images
#
# 100 images, no regulariser, a network with one hidden layer. If the loss does not go to nearly zero with enough
# hidden units, the code is broken.
#
# **Predict first.** How many hidden units does it take to learn 100 images of 10 classes by heart: 2, 10 or 50? And
# what will the accuracy on the validation images be?


# %% experiment="overfit"
def accuracy(scores, y):
    """The fraction of examples whose largest score is that of their class."""
    return (scores.argmax(1) == y).double().mean().item()


curves, numbers["overfit"] = {}, {}
for m in (2, 10, 50):
    generator = torch.Generator().manual_seed(0)
    layers = initialize([d, m, K], "he", generator=generator)
    losses = []
    layers = train(
        X_train[:100], y_train[:100], layers,
        lam=0.0, batch_size=20, n_s=300, cycles=2, lr_min=1e-5, lr_max=0.05,
        generator=generator, on_step=lambda t, lr, value, losses=losses: losses.append(value),
    )  # fmt: skip
    epochs = np.array(losses).reshape(-1, 5).mean(1)  # five batches are an epoch
    curves[f"m = {m}"] = (np.arange(5, len(losses) + 1, 5), epochs)
    reached = {
        "training": accuracy(forward(X_train[:100], layers)[0], y_train[:100]),
        "validation": accuracy(forward(X_validation, layers)[0], y_validation),
    }
    print(
        f"m = {m:2}: first cost {losses[0]:.2f}, last epoch's {epochs[-1]:.4f}; accuracy on the 100 images "
        f"{reached['training']:.0%}, on the validation images {reached['validation']:.1%}"
    )
    numbers["overfit"][f"m = {m}"] = {"loss": epochs[-1], **reached}
plot_curves(
    {"loss": curves}, step="update step", units={"loss": "nats"}, log=("loss",), title="100 images, learnt by heart"
)

# %% [markdown]
# Two hidden units are too few, and ten take their time. Around update 600 both losses that fall make a pause: there
# $\eta$ is at its lowest. As in Assignment 1 this proves that the code works, and nothing else: on new images the same
# network is hardly better than guessing.

# %% [markdown]
# ## 3.3 Which learning rates? The range test
#
# Smith's test finds $\eta_{\min}$ and $\eta_{\max}$ in an epoch or two: let $\eta$ rise from nearly nothing to far too
# much and watch the cost. Where it begins to fall is $\eta_{\min}$; where it becomes ragged or turns up is
# $\eta_{\max}$.
#
# You have the tool already: the rising half of a cycle *is* a range test, and `on_step` listens. We do it for the
# two-layer network and, from He's start, for nine layers.
#
# **Predict first.** Which of the two tolerates the larger learning rate?

# %% experiment="range_test"
updates = 900 if full_size else 500
lr_min, lr_max = 1e-5, 0.1  # for all that follows; the reason is given below the figure
curves, numbers["range_test"] = {}, {}
for name, hidden in (("2 layers", [50]), ("9 layers", [50, 30, 20, 20, 10, 10, 10, 10])):
    generator = torch.Generator().manual_seed(0)
    layers = initialize([d, *hidden, K], "he", generator=generator)
    steps = []
    train(
        X_train, y_train, layers,
        lam=0.0, batch_size=100, n_s=updates, cycles=1, lr_min=1e-5, lr_max=0.3,
        generator=generator, on_step=lambda *step, steps=steps: steps.append(step),
    )  # fmt: skip
    _, rates, costs = np.array(steps[: updates + 1]).T  # the falling half is of no interest here
    costs = np.where(np.isfinite(costs), costs, 1e6)
    smooth = np.convolve(costs, np.ones(15) / 15, mode="valid")  # means of 15 batches
    middle = rates[7:-7]
    curves[name] = (middle, np.minimum(smooth, 4.0))
    numbers["range_test"][name] = {"η of the lowest cost": middle[smooth.argmin()], "lowest cost": smooth.min()}
    print(f"{name}: lowest mean cost of 15 batches {smooth.min():.2f} at η = {middle[smooth.argmin()]:.2f}")
with course_style():
    fig, ax = plt.subplots(figsize=(7, 4))
    for (name, (rates, smooth)), colour, style in zip(curves.items(), (BLUE, VERMILLION), ("-", "--"), strict=True):
        ax.plot(rates, smooth, style, color=colour, label=name)
    ax.axhline(math.log(K), color="black", linestyle=":", label="ln K")
    ax.axvspan(lr_min, lr_max, color=GREEN, alpha=0.12, label="the range used below")
    ax.set(xlabel="learning rate η (it rises with every update)", ylabel="cost of a mini-batch (nats)", xlim=(0, 0.3))
    ax.set_title("Learning-rate range test")
    ax.legend()

# %% [markdown]
# With two layers the cost falls at once, stumbles somewhere between 0.03 and 0.1, recovers, and breaks out in the end
# (on CIFAR-10 at 0.18 for the first time). By Smith's rule $\eta_{\max}$ is the first stumble, and a *constant* rate
# should stay below it. A cycle is at its top for a moment only and has time to repair the damage on its way down, so we
# go a little beyond and let it rise to 0.1, as the course does from which this assignment comes. The cost falls from
# the first steps on, so $\eta_{\min}$ can be as small as one likes: $10^{-5}$.
#
# The nine layers bear more. But look how long their curve stays at $\ln K$, on the small set for ever. They are not
# robust, they are hard to move: where the first steps have driven most units of a layer below zero, hardly any
# gradient gets through, and a network without gradients bears every learning rate. Section 6 has a remedy.

# %% [markdown]
# ## 3.4 Watching a network learn
#
# `train` tells you the cost of each mini-batch, but a mini-batch says little, and validation images it does not know.
# So the cell below holds a loop that looks at the network on its way. It trains with your `forward`, `backward` and
# `cyclical_lr`, and later, unchanged, networks with batch normalisation and dropout. It is short because it is
# careless: it draws each batch anew, so that an epoch may show one image twice and another not at all.


# %% experiment="fit"
class Network:
    """What `fit` can train: parameters, their gradients on a batch, and scores."""

    def __init__(self, layers):
        self.layers = layers

    def gradients(self, X, y, lam):
        _, cache = forward(X, self.layers)
        return backward(y, self.layers, cache, lam)

    def scores(self, X):
        return forward(X, self.layers)[0]


def fit(network, X, y, *, lam, n_s, cycles, batch_size=100, seed=0, looks=20, prepare=None):
    """Train with the cyclical learning rate, and measure `looks` times on the way.

    `prepare`, if given, is applied to each batch of X before it is used.
    """
    generator = torch.Generator().manual_seed(seed)
    updates = 2 * n_s * cycles
    history = {"step": []}
    for quantity in ("loss", "cost", "accuracy"):
        history[quantity] = {"training": [], "validation": []}
    for t in range(updates + 1):
        if t % max(1, updates // looks) == 0:
            look(network, X, y, lam, t, history)
        if t < updates:
            batch = torch.randint(0, len(X), (batch_size,), generator=generator)
            X_batch = X[batch] if prepare is None else prepare(X[batch])
            lr = cyclical_lr(t, n_s, lr_min, lr_max)
            for layer, gradient in zip(network.layers, network.gradients(X_batch, y[batch], lam), strict=True):
                for name in layer:
                    layer[name] = layer[name] - lr * gradient[name]
    return history


def look(network, X, y, lam, t, history):
    """Note loss, cost and accuracy, on the validation images and on at most 5,000 training images."""
    history["step"].append(t)
    price = lam * sum((layer["W"] ** 2).sum() for layer in network.layers).item()
    splits = {"training": (X[:5000], y[:5000]), "validation": (X_validation, y_validation)}
    for split, (X_split, y_split) in splits.items():
        scores = network.scores(X_split)
        loss = F.cross_entropy(scores, y_split).item()
        history["loss"][split].append(loss)
        history["cost"][split].append(loss + price)
        history["accuracy"][split].append(accuracy(scores, y_split))


def he_network(hidden, seed=0):
    """Layers from He's start."""
    return initialize([d, *hidden, K], "he", generator=torch.Generator().manual_seed(seed))


# %% [markdown]
# ### One cycle, and three longer ones
#
# The first figures of every report on this assignment: $m = 50$, $\lambda = 0.01$, 10,000 images, first one cycle with
# $n_s = 500$ and then three with $n_s = 800$. (The small set: $n_s = 200$ and $320$.)
#
# **Predict first.** Sketch the validation accuracy over three cycles. Where are its highest points, at the tops of
# $\eta$ or at its bottoms?

# %% experiment="cycles"
shown, numbers["cycles"] = {}, {}
for n_s, cycles in ((500, 1), (800, 3)) if full_size else ((200, 1), (320, 3)):
    network = Network(he_network([50]))
    history = fit(network, X_train[:10_000], y_train[:10_000], lam=0.01, n_s=n_s, cycles=cycles, looks=12 * cycles)
    shown[n_s, cycles] = history
    reached = {split: history["accuracy"][split][-1] for split in ("training", "validation")}
    print(f"n_s = {n_s}, cycles: {cycles}; accuracy: " + ", ".join(f"{s} {value:.1%}" for s, value in reached.items()))
    reached["test"] = accuracy(network.scores(X_test), y_test)
    numbers["cycles"][f"n_s = {n_s}, {cycles} cycles"] = reached

with course_style():
    fig, axes = plt.subplots(2, 3, figsize=(13.5, 6.4))
    for row, ((n_s, cycles), history) in zip(axes, shown.items(), strict=True):
        for ax, quantity in zip(row, ("cost", "loss", "accuracy"), strict=True):
            scale, unit = (100, "%") if quantity == "accuracy" else (1, "nats")
            for split in ("training", "validation"):
                values = scale * np.array(history[quantity][split])
                ax.plot(history["step"], values, label=split, **SPLIT_STYLES[split])
            for bottom in range(0, 2 * n_s * cycles + 1, 2 * n_s):
                ax.axvline(bottom, color="grey", linewidth=0.8, label="η at its lowest" if bottom == 0 else None)
            ax.set(xlabel="update step", ylabel=f"{quantity} ({unit})", title=f"{quantity.capitalize()}, n_s = {n_s}")
    axes[0, 0].legend()

# %% [markdown]
# The highest points are at the *bottoms* of $\eta$. Half-way through a cycle, at the top of $\eta$, the accuracy drops
# by several points, and on the way down it comes back and is higher than before. So compare networks only at the end
# of a cycle, and never stop in the middle of one. Three cycles on these few images also open a gap between training
# and validation. That calls for more images or a larger $\lambda$, and for a way to choose it.

# %% [markdown]
# # 4. An honest search
#
# ## 4.1 Coarse to fine
#
# Nobody can derive the best $\lambda$. One has to try. What to try, how to compare, and what to believe in the end is
# a craft with few rules:
#
# 1. **On a logarithmic scale.** From $\lambda = 0.001$ to $0.002$ is a step of the same weight as from $0.01$ to
#    $0.02$. Drawn uniformly between $10^{-5}$ and $10^{-1}$, nine of ten values would lie above $0.01$, and the three
#    decades below would share the tenth.
# 2. **At random** rather than on a grid, so that no value is tried twice when a second hyper-parameter is searched
#    along.
# 3. **Coarse, then fine.** First short trainings over a wide range; then longer ones where it went well.
# 4. **The validation set decides.** The test set is not looked at before everything is decided.
#
# ### Exercise `log_uniform`
#
# `n` numbers $\lambda_i = 10^{u_i}$, where the $u_i$ are uniformly distributed between $\log_{10}$ `low` and
# $\log_{10}$ `high`. (Any other base gives the same.) `float32`, all chance from `generator`, all between the bounds up
# to rounding.
#
# **By hand first.** Between $10^{-5}$ and $10^{-1}$ half of all draws lie below $10^{-3}$, and a quarter below
# $10^{-4}$.


# %% exercise="log_uniform"
def log_uniform(low, high, n, generator):
    """n random numbers between low and high whose logarithms are uniformly distributed.

    low and high floats, 0 < low < high, n an int, generator a torch.Generator  ->  (n,) float32
    """
    ### BEGIN SOLUTION
    u = torch.rand(n, generator=generator)
    return (low * (high / low) ** u).clamp(low, high)  # rounding may step over a bound
    ### END SOLUTION


# %% check="log_uniform"
check("log_uniform")

# %% [markdown]
# Now the search, with your `train`: two layers, $m = 50$, a short coarse round over four orders of magnitude, and a
# fine one around the three best.
#
# **Predict first.** Where is the best $\lambda$? How much of the accuracy does it decide: half a point, or five
# points? And for two values whose results differ by 0.3 points, does the better result mean the better $\lambda$?
#
# This takes about one and a half minutes with CIFAR-10.

# %% experiment="search"
tries, n_s = (10, 900) if full_size else (8, 200)
generator = torch.Generator().manual_seed(0)
bounds, rounds, trained = (1e-5, 1e-1), {}, []
with tqdm(total=3 * tries, desc="search", unit="cycle") as bar:
    for name, cycles in (("coarse", 1), ("fine", 2)):
        lams = log_uniform(*bounds, tries, generator).tolist()
        reached = []
        for lam in lams:
            layers = train(
                X_train, y_train, he_network([50], seed=len(trained)),
                lam=lam, batch_size=100, n_s=n_s, cycles=cycles, lr_min=lr_min, lr_max=lr_max, generator=generator,
            )  # fmt: skip
            right = forward(X_validation, layers)[0].argmax(1) == y_validation  # (N,) bool
            reached.append(right.double().mean().item())
            trained.append((lam, right))
            bar.set_postfix_str(f"{name}, λ = {lam:.1e}: {reached[-1]:.1%}")
            bar.update(cycles)
        rounds[name] = (lams, reached)
        best_three = sorted(zip(reached, lams, strict=True))[-3:]
        bounds = min(lam for _, lam in best_three) / 1.5, max(lam for _, lam in best_three) * 1.5
for name, (lams, reached) in rounds.items():
    order = np.argsort(reached)[::-1]
    print(f"{name:6} best: " + ", ".join(f"λ = {lams[i]:.1e} {reached[i]:.1%}" for i in order[:3]))
best_lam = rounds["fine"][0][int(np.argmax(rounds["fine"][1]))]
numbers["search"] = {"best λ": best_lam, "validation accuracy": max(rounds["fine"][1])}
plot_search(rounds, parameter="λ", quantity="accuracy", title="Validation accuracy, two layers with m = 50")

# %% [markdown]
# Over two orders of magnitude $\lambda$ hardly matters, and beyond $10^{-2}$ it costs dearly. (On CIFAR-10 everything
# between $10^{-5}$ and $10^{-3}$ lies within a point and a half in the same round, and $4 \cdot 10^{-2}$ costs six
# points.) Whether we train for one cycle or two matters more than whether we take the best $\lambda$ or the second
# best. And are differences of 0.3 points real? The next experiment asks.

# %% [markdown]
# ## 4.2 The price of choosing
#
# The best of many results is a *chosen* number, and chosen numbers are too good. By how much? We can measure it
# without touching the test set. All networks of the search are still there, with their answers to every validation
# image. Draw a random part of these images, and call it the jury. Let the jury choose the network that does best **on
# the jury's images**. Then look how that network does on all *other* validation images. Repeat with 2,000 random
# juries.
#
# **Predict first.** The jury has 200 images. By how many points is the winner's accuracy on the jury too good?

# %% experiment="optimism"
all_right = torch.stack([right for _, right in trained]).double()  # (networks, images)
generator = torch.Generator().manual_seed(0)
promised, numbers["optimism"] = {}, {}
jury_sizes = (100, 200, 500, 1000, 2500) if full_size else (50, 100, 200, 500)
for size in jury_sizes:
    gaps = []
    for _ in range(2000):
        order = torch.randperm(all_right.shape[1], generator=generator)
        on_jury, on_others = (all_right[:, part].mean(1) for part in (order[:size], order[size:]))
        winner = on_jury.argmax()
        gaps.append(100 * (on_jury[winner] - on_others[winner]).item())
    promised[size] = np.array(gaps)
    numbers["optimism"][f"jury of {size}"] = float(np.mean(gaps))
    print(f"jury of {size:5,} images: the winner's accuracy is too good by {np.mean(gaps):.2f} points on average")
with course_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9))
    shown_size = jury_sizes[1]
    left.hist(promised[shown_size], bins=40, color=BLUE)
    left.axvline(0, color="black", linestyle=":", label="honest")
    left.axvline(promised[shown_size].mean(), color=VERMILLION, label=f"mean {promised[shown_size].mean():.1f}")
    left.set(xlabel="winner's accuracy on the jury less that on all other images (points)", ylabel="juries")
    left.set_title(f"{len(trained)} networks, juries of {shown_size} images")
    left.legend()
    right.semilogx(jury_sizes, [promised[size].mean() for size in jury_sizes], "o-", color=VERMILLION)
    right.axhline(0, color="black", linestyle=":")
    right.set(xlabel="images in the jury", ylabel="too good by (points)", title="The price of choosing")
    right.set_xticks(jury_sizes, [f"{size:,}" for size in jury_sizes])
    right.minorticks_off()

# %% [markdown]
# Nobody cheated, and yet the number is wrong in one direction. Every network's accuracy on 200 images is its true
# accuracy plus luck, and the winner is likely to be one who had luck. Once it has chosen, a set of images has nothing
# honest left to say about the chosen one. That is what the *test* set is for: it chooses nothing, so it can still
# measure.

# %% [markdown] written="why_not_the_test_set" points=2
# ### Written question 2: why the test set may not choose λ
#
# A classmate says: "I chose $\lambda$ by the test accuracy. That cannot be wrong: I report the accuracy on exactly the
# images by which everyone is compared, and I have never trained on them."
#
# - (a) What exactly is wrong with the number that your classmate reports? In which direction is it wrong, and what
#   makes the error larger or smaller? Use your figure from Section 4.2.
# - (b) You retrain with the chosen $\lambda$ on training and validation images together. Why is this allowed, and what
#   can you no longer do afterwards?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** It is no estimate of the accuracy on new images any more. Among several networks the one that is best on the
# test images was chosen, and it is best partly by luck on these very images: the maximum of several noisy numbers is
# on average larger than the true accuracy of the network that attains it. So the reported number is too **high**. That
# none of the images was trained on does not help: they decided between parameters all the same. The error grows with
# the number of networks compared, with their likeness (when all are about equally good, luck alone decides), and with
# the noise, that is with fewer images: about 1/√(images), in the figure (on CIFAR-10) about 4 points at 200 images and
# 1 point at 2,500. It also compares unfairly with others who chose by a validation set.
#
# **(b)** It is allowed because the validation images have done their work: the choice is made, and nothing more is to
# be decided with them. More images train a better network, and the test images are still untouched. Afterwards nothing
# can be decided or measured with the validation images: no further choice of λ, no early stopping, no estimate. If the
# result disappoints one may not go back and search on by looking at the test accuracy.
#
# *Marking guide.* (a) 1 point: "too high, because the best of several was chosen by these images" (half), one thing on
# which the size depends with a reference to the figure (half). (b) 1 point: choice already made (half), no more choice
# or measurement with those images (half).
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## 4.3 The best network
#
# $\lambda$ is chosen, so the validation images have done most of their work. We train once more, longer and with more
# images, all but a thousand that stay behind to warn us of a disaster. Then, once, the test images.
#
# **Predict first.** What will the hidden units look for? In Assignment 1 there was one template for each class; now
# there are 50 for all of them.

# %% experiment="best_network"
n_s, cycles = (980, 3) if full_size else (300, 3)
most = len(X_all) - (1_000 if full_size else 500)
generator = torch.Generator().manual_seed(0)
costs = []
best_layers = train(
    X_all[:most], y_all[:most], he_network([50]),
    lam=best_lam, batch_size=100, n_s=n_s, cycles=cycles, lr_min=lr_min, lr_max=lr_max,
    generator=generator, on_step=lambda t, lr, value: costs.append(value),
)  # fmt: skip
reached = {
    "training": accuracy(forward(X_all[:5000], best_layers)[0], y_all[:5000]),
    "test": accuracy(forward(X_test, best_layers)[0], y_test),
}
print(f"λ = {best_lam:.2e}, {most:,} images, {cycles} cycles of {2 * n_s:,} updates")
print(f"training accuracy {reached['training']:.1%}, test accuracy {reached['test']:.1%}")
numbers["best_network"] = {"λ": best_lam, **reached}
first = best_layers[0]["W"]  # (d, 50)
strongest = (first.norm(dim=0) * best_layers[1]["W"].norm(dim=1)).argsort(descending=True)[:20]
likes = [data.classes[best_layers[1]["W"][unit].argmax()] for unit in strongest]
plot_weight_templates(
    first[:, strongest], [f"for {name}" for name in likes], shape=shape,
    title="Twenty hidden units, and the class for which each speaks loudest",
)  # fmt: skip

# %% [markdown]
# Some units are blobs of a colour, others are edges, wheels, legs or strokes in one place. No unit stands for a class:
# the word above it only says in which class's favour it counts most, and each class is a sum of many. That is what the
# layer in front has bought.

# %% [markdown]
# # 5. Update rules
#
# Gradient descent takes the gradient as it comes. In a long valley, steep across and flat along, that is a poor idea:
# the steep direction limits $\eta$ (Assignment 1, Section 4.2) and along the valley one crawls. Four remedies follow.
# Each works on **one tensor** $\theta$ with its gradient $g_t$ and a memory, the **state**. Everything is done entry
# by entry. $g_1$ is the gradient at the first call, and the formulas are those of `torch.optim`, exactly.
#
# What all four exercises have in common:
#
# - They take `theta`, `grad`, `state` and their constants (by name), and return the pair *new theta, new state*.
# - `state` is `None` at the first call, and then whatever your last call returned. What it is, is your own business: a
#   tensor, a tuple, a dict.
# - `theta`, `grad` and the old state keep their values (rule 8): calling twice with the same state gives the same
#   result twice. So no `velocity *= momentum` on a state that was handed to you.
# - `theta` may have any shape. No weight decay, no damping, none of the other options of `torch.optim`.
#
# **By hand first,** for all four: $\theta = 1$, $\eta = 0.1$, and the gradient is 1 in the first two steps.
#
# | | after step 1 | after step 2 |
# |---|---|---|
# | plain gradient descent | 0.9 | 0.8 |
# | momentum, $\mu = 0.9$ | 0.9 | 0.71 |
# | Nesterov, $\mu = 0.9$ | 0.81 | 0.539 |
# | RMSprop, $\alpha = 0.9$, $\varepsilon = 0$ | 0.6838 | 0.4544 |
# | Adam, $\beta = (0.9, 0.999)$, $\varepsilon = 0$ | 0.9 | 0.8 |
#
# ## 5.1 Momentum
#
# Let a ball roll. The velocity keeps a part $\mu$ of itself and gains the gradient:
#
# $$
# v_1 = g_1, \qquad v_t = \mu\, v_{t-1} + g_t, \qquad \theta_t = \theta_{t-1} - \eta\, v_t .
# $$
#
# Directions that keep changing sign cancel. A direction that stays the same adds up to
# $1 + \mu + \mu^2 + \dots = 1/(1-\mu)$ gradients: ten times the step for $\mu = 0.9$. (Some books write $(1 - \mu)
# g_t$, and their $\eta$ is another one. Here $g_t$ comes without a factor.)
#
# ### Exercise `momentum_step`
#
# `lr` is $\eta$ and `momentum` is $\mu$.


# %% exercise="momentum_step"
def momentum_step(theta, grad, state, *, lr, momentum):
    """One step of gradient descent with momentum.

    theta and grad of one shape; state None at first, then what the last step returned; lr and momentum floats
    ->  new theta, new state
    """
    ### BEGIN SOLUTION
    velocity = grad if state is None else momentum * state + grad
    return theta - lr * velocity, velocity
    ### END SOLUTION


# %% check="momentum_step"
check("momentum_step")

# %% [markdown]
# ## 5.2 Nesterov's momentum
#
# The ball looks ahead: it takes the step with the velocity that it *will* have. In the form that `torch.optim` uses,
# with the same $v_t$ as above,
#
# $$
# v_1 = g_1, \qquad v_t = \mu\, v_{t-1} + g_t, \qquad
# \theta_t = \theta_{t-1} - \eta\, (g_t + \mu\, v_t) .
# $$
#
# ### Exercise `nesterov_step`
#
# Only the last formula differs from `momentum_step`. The state is $v_t$, not the step that was taken.


# %% exercise="nesterov_step"
def nesterov_step(theta, grad, state, *, lr, momentum):
    """One step of gradient descent with Nesterov's momentum.

    theta and grad of one shape; state None at first, then what the last step returned; lr and momentum floats
    ->  new theta, new state
    """
    ### BEGIN SOLUTION
    velocity = grad if state is None else momentum * state + grad
    return theta - lr * (grad + momentum * velocity), velocity
    ### END SOLUTION


# %% check="nesterov_step"
check("nesterov_step")

# %% [markdown]
# ## 5.3 RMSprop
#
# Give each entry its own learning rate: divide by the size that its gradients have had lately, the root of a running
# mean of squares (G. Hinton, 2012):
#
# $$
# a_0 = 0, \qquad a_t = \alpha\, a_{t-1} + (1 - \alpha)\, g_t^2, \qquad
# \theta_t = \theta_{t-1} - \eta\, \frac{g_t}{\sqrt{a_t} + \varepsilon} .
# $$
#
# Mind where $\varepsilon$ stands: **outside** the root.
#
# ### Exercise `rmsprop_step`
#
# `alpha` is $\alpha$, `eps` is $\varepsilon$. Where a gradient has always been exactly 0 the entry does not move (and
# does not become `nan`, as long as $\varepsilon > 0$).


# %% exercise="rmsprop_step"
def rmsprop_step(theta, grad, state, *, lr, alpha, eps):
    """One step of RMSprop.

    theta and grad of one shape; state None at first, then what the last step returned; lr, alpha, eps floats
    ->  new theta, new state
    """
    ### BEGIN SOLUTION
    mean_square = (1 - alpha) * grad**2
    if state is not None:
        mean_square = alpha * state + mean_square
    return theta - lr * grad / (mean_square.sqrt() + eps), mean_square
    ### END SOLUTION


# %% check="rmsprop_step"
check("rmsprop_step")

# %% [markdown]
# ## 5.4 Adam
#
# Both at once (D. Kingma and J. Ba, 2015): a running mean of the gradients and one of their squares,
#
# $$
# m_0 = 0, \quad m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad
# a_0 = 0, \quad a_t = \beta_2 a_{t-1} + (1 - \beta_2)\, g_t^2 .
# $$
#
# Both start at 0 and are too small at first: after one step $m_1 = (1 - \beta_1) g_1$, a tenth of $g_1$. In general
# the weights of all gradients so far sum to $1 - \beta^t$. The **bias correction** divides by that:
#
# $$
# \hat m_t = \frac{m_t}{1 - \beta_1^t}, \qquad \hat a_t = \frac{a_t}{1 - \beta_2^t}, \qquad
# \theta_t = \theta_{t-1} - \eta\, \frac{\hat m_t}{\sqrt{\hat a_t} + \varepsilon} .
# $$
#
# So the state must also know $t$, which is 1 in the first step. Look at the table: with a constant gradient Adam moves
# by $\eta$ in each step (exactly so for $\varepsilon = 0$), *however large the gradient is*. Its $\eta$ is a step
# length, not a factor.
#
# ### Exercise `adam_step`
#
# `betas` is the pair $(\beta_1, \beta_2)$, `eps` is $\varepsilon$, outside the root of the corrected $\hat a_t$.


# %% exercise="adam_step"
def adam_step(theta, grad, state, *, lr, betas, eps):
    """One step of Adam.

    theta and grad of one shape; state None at first, then what the last step returned; lr and eps floats,
    betas a pair of floats  ->  new theta, new state
    """
    ### BEGIN SOLUTION
    beta1, beta2 = betas
    mean, mean_square, t = state or (torch.zeros_like(theta), torch.zeros_like(theta), 0)
    mean = beta1 * mean + (1 - beta1) * grad
    mean_square = beta2 * mean_square + (1 - beta2) * grad**2
    t += 1
    corrected = mean / (1 - beta1**t)
    corrected_square = mean_square / (1 - beta2**t)
    return theta - lr * corrected / (corrected_square.sqrt() + eps), (mean, mean_square, t)
    ### END SOLUTION


# %% check="adam_step"
check("adam_step")

# %% [markdown]
# ## 5.5 Which one is best?
#
# Three layers, [50, 50], 10,000 images, a constant $\eta$ for each rule, all from the same start and with the same
# batches. A comparison at *one* $\eta$ would be a comparison of nothing, since the rules mean different things by it.
# So each rule gets several learning rates, and its best is chosen by the validation images.
#
# **Predict first.** (a) Which rule has the lowest training cost in the end, each at its own best $\eta$? (b) Momentum
# with $\mu = 0.9$ adds up ten gradients. Where will its best $\eta$ be, compared with plain gradient descent? (c)
# Which rule has the widest range of $\eta$ in which it works?
#
# This takes about half a minute.

# %% experiment="update_rules"
updates, tries = (400, 7) if full_size else (150, 6)
rules = {
    "gradient descent": (momentum_step, {"momentum": 0.0}, -0.5),
    "momentum": (momentum_step, {"momentum": 0.9}, -1.5),
    "Nesterov": (nesterov_step, {"momentum": 0.9}, -1.5),
    "RMSprop": (rmsprop_step, {"alpha": 0.99, "eps": 1e-8}, -3.0),
    "Adam": (adam_step, {"betas": (0.9, 0.999), "eps": 1e-8}, -2.5),
}


def train_with(rule, constants, lr, updates):
    """Train three layers with an update rule and a constant learning rate.  ->  layers, cost of every mini-batch"""
    layers, generator, costs = he_network([50, 50]), torch.Generator().manual_seed(1), []
    states = [dict.fromkeys(layer) for layer in layers]
    for _ in range(updates):
        batch = torch.randint(0, min(N, 10_000), (100,), generator=generator)
        scores, cache = forward(X_train[batch], layers)
        costs.append(F.cross_entropy(scores, y_train[batch]).item())
        gradients = backward(y_train[batch], layers, cache, 0.0)
        for layer, state, gradient in zip(layers, states, gradients, strict=True):
            for name in layer:
                layer[name], state[name] = rule(layer[name], gradient[name], state[name], lr=lr, **constants)
    return layers, costs


found, numbers["update_rules"] = {}, {}
for name, (rule, constants, largest) in tqdm(rules.items(), desc="rules"):
    found[name] = {}
    for lr in np.logspace(largest - (tries - 1) / 2, largest, tries).tolist():
        layers, costs = train_with(rule, constants, lr, updates)
        found[name][lr] = accuracy(forward(X_validation, layers)[0], y_validation), costs
    best = max(found[name], key=lambda lr: found[name][lr][0])
    reached, costs = found[name][best]
    print(f"{name:17} best η = {best:.1e}: validation accuracy {reached:.1%}, last losses {np.mean(costs[-20:]):.2f}")
    numbers["update_rules"][name] = {"best η": best, "validation accuracy": reached}

with course_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.3))
    for (name, tried), colour, marker in zip(found.items(), PALETTE, "os^Dv", strict=False):
        best = max(tried, key=lambda lr: tried[lr][0])
        smooth = np.convolve(tried[best][1], np.ones(20) / 20, mode="valid")
        left.plot(np.arange(20, updates + 1), smooth, color=colour, label=f"{name}, η = {best:.1e}")
        left.plot(updates, smooth[-1], marker, color=colour)
        reached = [100 * of_this for of_this, _ in tried.values()]
        right.semilogx(list(tried), reached, f"{marker}-", color=colour, label=name)
    left.set(xlabel="update step", ylabel="loss, mean of 20 mini-batches (nats)", title="Each rule at its best η")
    right.set(xlabel="learning rate η", ylabel="validation accuracy (%)", title=f"After {updates} updates")
    right.axhline(100 / K, color="black", linestyle=":", linewidth=1)
    left.legend()
    right.legend(fontsize=9, loc="upper left")

# %% [markdown]
# At their own best rates all five come out nearly alike on CIFAR-10, within a point or so. What differs is *where* the
# best rate lies: momentum's a factor of ten or more below that of plain gradient descent, because it adds up ten
# gradients, and that of Adam and RMSprop somewhere else entirely, because it is a step length. Had we compared all at
# $\eta = 0.001$, plain gradient descent would have come last, a dozen points behind the others. Papers have been
# written about less. (On the small set, after only 150 updates, the rules with momentum are ahead: they get going
# sooner.)

# %% [markdown]
# # 6. Batch normalisation
#
# ## 6.1 The idea
#
# Section 1.2 chose the first weights so that the signal keeps its size through all layers. That is one promise, made
# before the first update, and training breaks it. S. Ioffe and C. Szegedy (2015) keep it in force: let *every layer
# itself* give its sums mean 0 and standard deviation 1, in every update, over the images of the batch. It is the
# standardising of Assignment 1, in the middle of the network.
#
# For each column (unit) of $S$, with $N$ the size of the batch,
#
# $$
# \mu = \frac1N \sum_n s_n, \qquad v = \frac1N \sum_n (s_n - \mu)^2, \qquad
# \hat s_n = \frac{s_n - \mu}{\sqrt{v + \varepsilon}}, \qquad o_n = \gamma\, \hat s_n + \beta .
# $$
#
# $\gamma$ and $\beta$, one of each for each unit, are parameters and are learnt: if a unit is better off with another
# mean and another spread, it can have them back.
#
# There is a catch. In training, what the network says about one image depends on which other images are in the batch.
# In use that will not do: one image, one answer. So during training we also keep **running statistics**, an average
# over the batches gone by,
#
# $$
# \text{new running} = \text{decay} \cdot \text{old running} + (1 - \text{decay}) \cdot \text{batch's} ,
# $$
#
# one for $\mu$ and one for $v$, and in use (*evaluation*) these take the place of the batch's. The first batch has no
# old ones: its own statistics *are* the running ones after it.
#
# ### Exercise `batch_norm_forward`
#
# Return three things: `out`, a cache, and the running statistics.
#
# - With `training=True` normalise by the statistics of `S` itself. The variance is the *biased* one (divide by $N$),
#   in the normaliser and in the running statistics. `eps` stands inside the root. Return the updated running
#   statistics: a **new** dict `{"mean": (m,), "var": (m,)}`, the variance and not its root.
# - `running` is `None` before the first training batch.
# - With `training=False` normalise by `running` and return `running` as it was. (Then it is never `None`.) It works
#   for a single image.
# - With `training=True` and $N = 1$ the variance is 0, $\hat s = 0$, and the output is $\beta$. No `nan`, as long as
#   $\varepsilon > 0$.
# - `decay` and `eps` are arguments, use them.
#
# **By hand first.** The column $(0, 0, 2, 2)$ with $\varepsilon = 0$: $\mu = 1$, $v = 1$, $\hat{\mathbf{s}} = (-1, -1,
# 1, 1)$. With $\gamma = 2$ and $\beta = 1$ the output is $(-1, -1, 3, 3)$. Running statistics of mean 0 and variance 2
# become, with decay 0.9, mean $0.1$ and variance $1.9$. Without any before, mean 1 and variance 1.


# %% exercise="batch_norm_forward"
def batch_norm_forward(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    """Normalise every column of S, then scale it by gamma and shift it by beta.

    S (N, m), gamma (m,), beta (m,), running {"mean": (m,), "var": (m,)} or None; training a bool, decay and eps floats
    ->  out (N, m), cache (whatever `batch_norm_backward` needs), running {"mean": (m,), "var": (m,)}
    """
    ### BEGIN SOLUTION
    if training:
        mean, var = S.mean(0), S.var(0, unbiased=False)
        if running is None:
            running = {"mean": mean, "var": var}
        else:
            running = {
                "mean": decay * running["mean"] + (1 - decay) * mean,
                "var": decay * running["var"] + (1 - decay) * var,
            }
    else:
        mean, var = running["mean"], running["var"]
    inverse_std = 1 / torch.sqrt(var + eps)  # (m,)
    S_hat = (S - mean) * inverse_std  # (N, m)
    return gamma * S_hat + beta, (S_hat, gamma, inverse_std), running
    ### END SOLUTION


# %% check="batch_norm_forward"
check("batch_norm_forward")

# %% [markdown]
# ## 6.2 Its gradient
#
# One column again. Let $q_n = \partial L / \partial o_n$ be what comes from above. Two gradients are quick, since
# $o_n = \gamma \hat s_n + \beta$:
#
# $$
# \frac{\partial L}{\partial \beta} = \sum_n q_n, \qquad
# \frac{\partial L}{\partial \gamma} = \sum_n q_n\, \hat s_n, \qquad \text{and}\qquad
# D_n = \frac{\partial L}{\partial \hat s_n} = \gamma\, q_n .
# $$
#
# The third is the hard one. A sum $s_n$ reaches the loss on **three paths**: straight through its own $\hat s_n$;
# through the mean $\mu$, which changes *all* $\hat s_i$; and through the variance $v$, which does so, too:
#
# $$
# \frac{\partial L}{\partial s_n} = D_n\, \frac{\partial \hat s_n}{\partial s_n}
# + \frac{\partial L}{\partial v}\, \frac{\partial v}{\partial s_n}
# + \frac{\partial L}{\partial \mu}\, \frac{\partial \mu}{\partial s_n} .
# $$
#
# You derive it in the written question below. It comes out as
#
# $$
# \frac{\partial L}{\partial s_n} = \frac{1}{\sqrt{v + \varepsilon}}
# \Bigl( D_n - \frac1N \sum_{i} D_i - \hat s_n\, \frac1N \sum_{i} D_i\, \hat s_i \Bigr) .
# $$
#
# Read it before you program it. Whoever forgets that $\mu$ and $v$ depend on $S$ gets $D_n / \sqrt{v + \varepsilon}$.
# The two terms behind it *take something away*: the mean of $D$, and the part of $D$ that points along
# $\hat{\mathbf{s}}$. It must be so. Add a constant to the whole column, or stretch it (with $\varepsilon = 0$), and
# batch normalisation undoes it. What changes nothing has no gradient.
#
# **By hand first.** The column from above, $\hat{\mathbf{s}} = (-1, -1, 1, 1)$, $v = 1$, $\gamma = 2$, with
# $\mathbf{q} = (1, 0, 0, 0)$. Then $\partial L/\partial \beta = 1$, $\partial L/\partial\gamma = -1$, $\mathbf{D} =
# (2, 0, 0, 0)$ with mean $\frac12$, and the mean of $D_i \hat s_i$ is $-\frac12$. So $\partial L/\partial\mathbf{s} =
# (2, 0, 0, 0) - \frac12 + \frac12 \hat{\mathbf{s}} = (1, -1, 0, 0)$. It sums to 0, and its inner product with
# $\hat{\mathbf{s}}$ is 0.
#
# ### Exercise `batch_norm_backward`
#
# Return $\partial L/\partial S$, $\partial L/\partial\boldsymbol\gamma$, $\partial L/\partial\boldsymbol\beta$ for the
# cache of a `batch_norm_forward` with `training=True`. The means are over the $N$ rows, one for each column. With $N =
# 1$ the gradient of $S$ is 0.


# %% exercise="batch_norm_backward"
def batch_norm_backward(grad_out, cache):
    """The gradients of the training-mode `batch_norm_forward`.

    grad_out (N, m), cache from `batch_norm_forward`  ->  grad_S (N, m), grad_gamma (m,), grad_beta (m,)
    """
    ### BEGIN SOLUTION
    S_hat, gamma, inverse_std = cache
    N = len(grad_out)
    grad_beta = grad_out.sum(0)
    grad_gamma = (grad_out * S_hat).sum(0)
    grad_S = gamma * inverse_std * (grad_out - grad_beta / N - S_hat * (grad_gamma / N))
    return grad_S, grad_gamma, grad_beta
    ### END SOLUTION


# %% check="batch_norm_backward"
check("batch_norm_backward")

# %% [markdown] written="batch_norm_gradient" points=4
# ### Written question 3: the gradient of batch normalisation
#
# One column, as in Section 6.2. Abbreviate $r = 1 / \sqrt{v + \varepsilon}$, so that $\hat s_n = (s_n - \mu)\, r$.
#
# - (a) Derive $\partial L / \partial v$ from the $D_i$. ($v$ enters every $\hat s_i$ through $r$.)
# - (b) Derive $\partial L / \partial \mu$. ($\mu$ enters every $\hat s_i$, and it enters $v$. Show that the second
#   path contributes nothing.)
# - (c) Put the three paths together and obtain the formula of Section 6.2.
# - (d) Show that $\sum_n \partial L/\partial s_n = 0$. What does this say about the gradient of the bias $\mathbf{b}$
#   in $S = HW + \mathbf{1}\mathbf{b}^\top$, and why is that no surprise?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** $\frac{\partial r}{\partial v} = -\frac12 (v + \varepsilon)^{-3/2} = -\frac12 r^3$, so $\frac{\partial \hat
# s_i}{\partial v} = -\frac12 r^3 (s_i - \mu) = -\frac12 r^2 \hat s_i$ and $\frac{\partial L}{\partial v} = \sum_i D_i
# \frac{\partial \hat s_i}{\partial v} = -\frac{r^2}{2} \sum_i D_i \hat s_i$.
#
# **(b)** Directly $\frac{\partial \hat s_i}{\partial \mu} = -r$, which gives $-r \sum_i D_i$. Through $v$:
# $\frac{\partial v}{\partial \mu} = -\frac2N \sum_i (s_i - \mu) = 0$, since the deviations from a mean sum to 0. So
# $\frac{\partial L}{\partial \mu} = -r \sum_i D_i$.
#
# **(c)** $\frac{\partial \hat s_n}{\partial s_n} = r$ with $\mu$ and $v$ held, $\frac{\partial v}{\partial s_n} =
# \frac2N (s_n - \mu) = \frac{2}{N} \frac{\hat s_n}{r}$ (with $\mu$ held; its own path is the third term), and
# $\frac{\partial \mu}{\partial s_n} = \frac1N$. Hence $\frac{\partial L}{\partial s_n} = r D_n - \frac{r^2}{2} \sum_i
# D_i \hat s_i \cdot \frac{2 \hat s_n}{N r} - \frac rN \sum_i D_i = r \bigl( D_n - \frac1N \sum_i D_i - \hat s_n
# \frac1N \sum_i D_i \hat s_i \bigr)$.
#
# **(d)** $\sum_n$ of the bracket is $\sum_n D_n - \sum_i D_i - \bigl(\sum_n \hat s_n\bigr) \frac1N \sum_i D_i \hat s_i
# = 0$, because $\sum_n \hat s_n = 0$. $\partial L / \partial b_j$ is the sum of column $j$ of $\partial L / \partial
# S$, so it is 0 (in floating point: rounding). No surprise: $b_j$ is added to a whole column, and subtracting $\mu$
# takes it away again. The cost does not depend on it. $\beta_j$ has taken over its task.
#
# *Marking guide.* One point for each part. (a) half for $\partial r / \partial v$, half for the sum over all $i$. (b)
# half for each path. (c) needs all three partial derivatives and the cancelling of $r$; another correct way (through
# the matrix $\partial \hat s_i / \partial s_n$) is as good. (d) half for the sum, half for the bias.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## 6.3 Checking it, and how not to
#
# A formula with three terms wants a check. Here is one that many have used: take the sum of all outputs for the loss,
# and compare with a numerical gradient. We hold two formulas against the numerical gradient: yours, and one that
# forgets the path through the variance, and so the last term of the bracket. Once the loss is the plain sum, and once
# it is a sum with random weights, so that $q_n$ is random.
#
# **Predict first.** What is the gradient of $\sum_n o_n$ with respect to $S$? So does the plain sum expose the wrong
# formula?

# %% experiment="batch_norm_report"
generator = torch.Generator().manual_seed(1)
S_few = 2 + 3 * torch.randn(12, 5, generator=generator, dtype=torch.float64)
gamma_few, beta_few = 0.5 + torch.rand(2, 5, generator=generator, dtype=torch.float64)


def normalised(S, gamma, beta):
    return batch_norm_forward(S, gamma, beta, None, training=True)[0]


def full_formula(upstream):
    _, cache, _ = batch_norm_forward(S_few, gamma_few, beta_few, None, training=True)
    return batch_norm_backward(upstream, cache)


def forgetful_formula(upstream):
    _, grad_gamma, grad_beta = full_formula(upstream)
    D = gamma_few * upstream
    return (D - D.mean(0)) / torch.sqrt(S_few.var(0, unbiased=False) + 1e-5), grad_gamma, grad_beta


parameters_few = {"S": S_few, "gamma": gamma_few, "beta": beta_few}
for formula in (full_formula, forgetful_formula):
    largest = formula(torch.ones_like(S_few))[0].abs().max()
    print(f"{formula.__name__:18} largest entry of its gradient of the plain sum: {largest:.1e}")
verdicts = {
    (formula.__name__, name): check_gradients(normalised, parameters_few, formula, upstream=upstream)
    for formula in (full_formula, forgetful_formula)
    for name, upstream in (("plain sum", torch.ones_like(S_few)), ("random weights", "random"))
}
for (formula, name), report in verdicts.items():
    print(f"{formula:18} {name:15} {'passes' if report.passed else 'does not pass'}")
numbers["batch_norm_report"] = {f"{f}, {name}": bool(report.passed) for (f, name), report in verdicts.items()}
verdicts["full_formula", "random weights"]

# %% experiment="batch_norm_report_forgetful"
verdicts["forgetful_formula", "random weights"]

# %% [markdown]
# The plain sum passes the wrong formula. Its gradient with respect to $S$ is exactly zero: the normalised column sums
# to 0, so $\sum_n o_n = N \beta$ whatever $S$ is. And the wrong formula gives 0, too, as many wrong formulas do. **A
# check whose true answer is zero checks nothing.** With random weights the report even says what is missing. Keep this
# in mind whenever something is normalised: behind a softmax it is the same.

# %% [markdown]
# ## 6.4 A network with batch normalisation
#
# In every hidden layer batch normalisation stands between the sums and the ReLU:
#
# $$
# S^{(l)} = H^{(l-1)} W^{(l)} + \mathbf{1} \mathbf{b}^{(l)\top}, \qquad
# O^{(l)} = \text{batch norm}\bigl(S^{(l)};\ \boldsymbol\gamma^{(l)}, \boldsymbol\beta^{(l)}\bigr), \qquad
# H^{(l)} = \max\bigl(0, O^{(l)}\bigr) .
# $$
#
# The last layer has none: its scores come straight out. So the dicts of the hidden layers have four keys, `"W"`,
# `"b"`, `"gamma"`, `"beta"`, and the last one has two, `"W"` and `"b"`.
#
# ### Exercise `forward_bn`
#
# Return scores, cache and the new running statistics.
#
# - `running` is `None`, or a list with one `{"mean", "var"}` for each **hidden** layer, the first one first. What you
#   return is such a list (an empty one, if there is only one layer).
# - Call your own `batch_norm_forward` with its default `decay` and `eps`, and hand `training` on.
# - With `training=False` the running statistics come back as they were. (Then `running` is never `None`; for a single
#   layer it is an empty list.) The scores of an image do not depend on the other images.
# - Neither the list `running` nor its dicts are changed.


# %% exercise="forward_bn"
def forward_bn(X, layers, running, *, training):
    """The scores of a network with batch normalisation before each ReLU.

    X (N, d), layers a list of dicts {"W", "b", "gamma", "beta"} (the last one without gamma and beta),
    running None or a list of {"mean", "var"}, one for each hidden layer, training a bool
    ->  scores (N, K), cache (whatever `backward_bn` needs), running
    """
    ### BEGIN SOLUTION
    *hidden, last = layers
    inputs, caches, new_running = [X], [], []
    for layer, statistics in zip(hidden, running or [None] * len(hidden), strict=True):
        S = inputs[-1] @ layer["W"] + layer["b"]
        out, cache, statistics = batch_norm_forward(S, layer["gamma"], layer["beta"], statistics, training=training)
        inputs.append(torch.relu(out))
        caches.append(cache)
        new_running.append(statistics)
    scores = inputs[-1] @ last["W"] + last["b"]
    return scores, (inputs, caches, scores), new_running
    ### END SOLUTION


# %% check="forward_bn"
check("forward_bn")

# %% [markdown]
# ### Exercise `backward_bn`
#
# The gradients of cross-entropy plus $\lambda \sum (W^{(l)})^2$ with respect to **all** parameters, for a cache of
# `forward_bn` with `training=True`. A list of dicts with the same keys as `layers`.
#
# - From the top: $G^{(k)}$ as in `backward`; then for each hidden layer the ReLU, *then* `batch_norm_backward`, and
#   the gradient that comes out of it is $\partial L/\partial S^{(l)}$. The ReLU's mask is now $[O^{(l)} > 0]$.
# - $\boldsymbol\gamma$ and $\boldsymbol\beta$ are not regularised.
# - The gradient of a hidden $\mathbf{b}$ is 0, or what rounding leaves of it. Return it all the same (computed or
#   zeros). The last layer's $\mathbf{b}$ has an ordinary gradient.


# %% exercise="backward_bn"
def backward_bn(y, layers, cache, lam):
    """The gradients of the cost of a network with batch normalisation, from the cache of a training-mode forward pass.

    y (N,) int64, layers a list of dicts {"W", "b", "gamma", "beta"} (the last one without gamma and beta),
    cache from `forward_bn`, lam a float  ->  list of dicts with the keys and the shapes of the layers'
    """
    ### BEGIN SOLUTION
    inputs, caches, scores = cache
    G = torch.softmax(scores, 1)  # (N, K)
    G[torch.arange(len(y)), y] -= 1
    G /= len(y)
    last = layers[-1]
    gradients = [{"W": inputs[-1].T @ G + 2 * lam * last["W"], "b": G.sum(0)}]
    for l in reversed(range(len(layers) - 1)):
        G = G @ layers[l + 1]["W"].T * (inputs[l + 1] > 0)  # with respect to what batch normalisation gave
        G, grad_gamma, grad_beta = batch_norm_backward(G, caches[l])
        grad_W = inputs[l].T @ G + 2 * lam * layers[l]["W"]
        gradients.append({"W": grad_W, "b": G.sum(0), "gamma": grad_gamma, "beta": grad_beta})
    return gradients[::-1]
    ### END SOLUTION


# %% check="backward_bn"
check("backward_bn")


# %% experiment="gradient_report_bn"
def with_batch_norm(layers):
    """The same layers with γ = 1 and β = 0 in each hidden one."""
    *hidden, last = layers
    return [*({**layer, "gamma": layer["b"] + 1, "beta": layer["b"] + 0} for layer in hidden), {**last}]  # b is 0


generator = torch.Generator().manual_seed(0)
layers_bn = in_float64(with_batch_norm(initialize(sizes_few, "he", generator=generator)))
_, cache_bn, _ = forward_bn(X_few, layers_bn, None, training=True)


def cost_bn(layers):
    scores, _, _ = forward_bn(X_few, layers, None, training=True)
    return F.cross_entropy(scores, y_few) + 0.1 * sum((layer["W"] ** 2).sum() for layer in layers)


report_bn = check_gradients(
    cost_bn, layers_bn, backward_bn(y_few, layers_bn, cache_bn, 0.1), sizes={"N": len(y_few), "K": K}, lam=0.1
)
numbers["gradient_report_bn"] = {"passed": bool(report_bn.passed)}
report_bn

# %% [markdown]
# The biases of the hidden layers: both derivatives are 0 up to rounding. Batch normalisation subtracts the mean, and
# with it whatever `b` has added. $\beta$ has taken its place.

# %% [markdown]
# ## 6.5 Three layers and nine
#
# Networks with hidden layers [50, 50] and [50, 30, 20, 20, 10, 10, 10, 10], each without and with batch
# normalisation, all from He's start. $\lambda = 0.005$, two cycles, on CIFAR-10 of ten epochs each.
#
# **Predict first.** (a) What does batch normalisation gain at three layers, and what at nine? (b) Nine layers have
# more than three, so they can represent more. Is the nine-layer network without batch normalisation the better one, or
# at least not worse? (c) If it is worse: is that overfitting? Which number would tell?
#
# This takes about one and a half minutes with CIFAR-10.


# %% experiment="depth"
class BatchNormNetwork(Network):
    """A network with batch normalisation: it carries its running statistics."""

    running = None

    def gradients(self, X, y, lam):
        _, cache, self.running = forward_bn(X, self.layers, self.running, training=True)
        return backward_bn(y, self.layers, cache, lam)

    def scores(self, X):
        if self.running is None:  # not trained yet: let these images be the first batch
            return forward_bn(X, self.layers, None, training=True)[0]
        return forward_bn(X, self.layers, self.running, training=False)[0]


n_s = 2250 if full_size else 400
deep, numbers["depth"] = {}, {}
for name, hidden in (("3 layers", [50, 50]), ("9 layers", [50, 30, 20, 20, 10, 10, 10, 10])):
    for kind, make in (("", Network), (" with BN", lambda layers: BatchNormNetwork(with_batch_norm(layers)))):
        network = make(he_network(hidden))
        history = fit(network, X_train, y_train, lam=0.005, n_s=n_s, cycles=2)
        deep[name + kind] = history
        measured = {split: history["accuracy"][split][-1] for split in ("training", "validation")}
        measured["test"] = accuracy(network.scores(X_test), y_test)
        numbers["depth"][name + kind] = measured
        print(
            f"{name + kind:17} cost {history['cost']['training'][-1]:.3f}   accuracy: training "
            f"{measured['training']:.1%}, validation {measured['validation']:.1%}"
        )
plot_curves(
    {
        "cost": {name: (h["step"], h["cost"]["training"]) for name, h in deep.items()},
        "accuracy": {name: (h["step"], h["accuracy"]["validation"]) for name, h in deep.items()},
    },
    step="update step",
    units={"cost": "nats"},
    title="Training cost (left) and validation accuracy (right), without and with batch normalisation",
)

# %% [markdown]
# At three layers He's start does its work, and batch normalisation gains next to nothing. At nine it gains a lot (on
# CIFAR-10 about three points in validation, on the small set more than ten).
#
# And the deep network without it is *worse* than the shallow one, although it could represent whatever the shallow one
# does. Overfitting? No: its **training** cost is the higher one, too. It does not generalise badly, it trains badly.
# Batch normalisation does not make the network more powerful, it makes it trainable. Even so, these nine narrow layers
# do not beat three. Depth pays when layers are wide enough, or when they know that images have two dimensions.

# %% [markdown]
# ## 6.6 What if the start is wrong?
#
# Forget He. Three layers, [50, 50], and *all* weights start from $\mathcal{N}(0, \sigma^2)$ with the same $\sigma$,
# from $10^{-4}$ to 1. (He has $\sqrt{2/d}$ for the first layer, 0.026 on CIFAR-10 and 0.051 on the small set, and 0.2
# for the others.) One cycle, $\lambda = 0.005$.
#
# **Predict first.** Draw both curves, validation accuracy over $\sigma$, without and with batch normalisation. Use
# Section 2.5 for the first. For the second: what does $\hat{S}$ become when all weights of a layer are multiplied by
# 10?

# %% experiment="sigma"
n_s = 900 if full_size else 200
sigmas = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
reached, first_gradient, final_loss = {}, {}, {}
for kind in ("without batch normalisation", "with batch normalisation"):
    reached[kind], first_gradient[kind], final_loss[kind] = [], [], []
    for sigma in tqdm(sigmas, desc=kind):
        layers = initialize([d, 50, 50, K], "normal", sigma=sigma, generator=torch.Generator().manual_seed(0))
        network = Network(layers) if kind.startswith("without") else BatchNormNetwork(with_batch_norm(layers))
        gradients = network.gradients(X_train[:500], y_train[:500], 0.0)
        first_gradient[kind].append(gradients[0]["W"].norm().item())
        network.running = None
        history = fit(network, X_train, y_train, lam=0.005, n_s=n_s, cycles=1, looks=2)
        reached[kind].append(history["accuracy"]["validation"][-1])
        final_loss[kind].append(history["loss"]["validation"][-1])
print("validation accuracy (and loss)" + "".join(f"     σ = {sigma:<7g}" for sigma in sigmas))
for kind in reached:
    cells = (f"{value:7.1%} ({loss:.3f})" for value, loss in zip(reached[kind], final_loss[kind], strict=True))
    print(f"{kind:28}  " + "".join(f"{cell:>16}" for cell in cells))
numbers["sigma"] = {kind: dict(zip(map(str, sigmas), values, strict=True)) for kind, values in reached.items()}
with course_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4))
    for kind, colour, line in zip(reached, (VERMILLION, BLUE), ("s--", "o-"), strict=True):
        left.loglog(sigmas, first_gradient[kind], line, color=colour, label=kind)
        right.semilogx(sigmas, 100 * np.array(reached[kind]), line, color=colour, label=kind)
    right.axhline(100 / K, color="black", linestyle=":")
    right.text(sigmas[2], 100 / K + 1, "guessing", horizontalalignment="center")
    left.set(xlabel="σ of all initial weights", ylabel="size of the gradient of W, layer 1", title="Before training")
    right.set(
        xlabel="σ of all initial weights", ylabel="validation accuracy (%)", title="After one cycle", ylim=(0, None)
    )
    left.legend()

# %% [markdown] written="sigma_figure" points=3
# ### Written question 4: read the σ figure
#
# Answer from *your* figure, with its numbers.
#
# - (a) Without batch normalisation and with $\sigma = 10^{-4}$: which accuracy and which loss does the network have
#   after training, and with which two numbers should they be compared? What has this network learnt? Explain from the
#   left panel and Section 2.5 why it has learnt no more.
# - (b) Why does the curve with batch normalisation depend so much less on $\sigma$? Give the reason in a formula: what
#   does $\hat S$ become when $W$ is replaced by $cW$ and $\mathbf{b}$ by $c\,\mathbf{b}$ (with $c > 0$ and
#   $\varepsilon = 0$)?
# - (c) With batch normalisation the gradient of $W^{(1)}$ in the left panel is nearly the same for all larger
#   $\sigma$. Compare one step at $\eta = 0.1$ with the norm of $W^{(1)}$ itself, for $\sigma = 0.01$ and for $\sigma =
#   1$. (A $d \times m$ matrix of such numbers has a norm of about $\sigma\sqrt{d\,m}$.) Why, by (b), is that the
#   comparison that matters, and what does it say about the right end of your figure?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** The accuracy is about 10 %, that of guessing ($1/K$; on CIFAR-10 10.6 %, the share of the class that it names
# for every image), and the loss is 2.303 = $\ln K$. The network has learnt how frequent the classes are and nothing
# else. At the start its sums shrink by a factor of about $\sigma \sqrt{m/2} = 10^{-4} \cdot 5$ from one layer to the
# next, so the scores do not depend on the image, and the gradient of each weight is a product that contains the small
# factors of the other layers: in the left panel it is about $10^{-6}$, more than five orders of magnitude below that
# of a good start. With $\eta \le 0.1$ a weight moves by less than $10^{-7}$ in an update, and meanwhile $\lambda$
# pulls it to 0: it shrinks by the factor $1 - 2 \eta \lambda$. Only the last bias learns.
#
# **(b)** With $c > 0$, $W \to cW$ (and $\mathbf{b} = 0$, or $\mathbf{b} \to c\mathbf{b}$) we get $S \to cS$, $\mu \to
# c\mu$, $\sqrt v \to c \sqrt v$, so $\hat S = (S - \mu)/\sqrt v$ stays the same. What the next layer sees does not
# depend on $\sigma$ at all: batch normalisation chooses the scale of every layer itself. (At $10^{-4}$ the curve begins
# to fall: there $v$ is no longer large against $\varepsilon = 10^{-5}$, in the second layer $v \approx 50 \cdot 10^{-8}
# / 2$, and $\hat S$ does become smaller.)
#
# **(c)** A step moves $W^{(1)}$ by $\eta$ times the gradient, in the figure about 0.5 for every $\sigma$ (the last
# layer passes back a gradient proportional to $\sigma$, each normalised layer divides by its spread, also proportional
# to $\sigma$, and $W^{(2)\top}$ multiplies by $\sigma$ again). At $\eta = 0.1$ that is 0.05. The norm of $W^{(1)}$ is
# $\sigma \sqrt{d\,m}$, with $d = 3072$ and $m = 50$ about $392\,\sigma$: 3.9 for $\sigma = 0.01$ and 392 for $\sigma =
# 1$. So a step changes the weights by about 1 % in the first case and by 0.01 % in the second. By (b) the length of a
# column of $W$ has no effect and only its *direction* counts, and this ratio is how far the direction turns. With
# $\sigma = 1$ it hardly turns at all within one cycle. (Besides, its last layer starts with large random scores, which
# it has to unlearn.)
#
# *Marking guide.* One point for each part. (a) needs both numbers and both comparisons (half) and the reason (half).
# (b) needs $\hat S$ unchanged with its derivation; the remark on $\varepsilon$ is not required. (c) needs the
# comparison of step and weights (half) and that only the direction counts (half).
# <!-- ### END SOLUTION -->

# %% [markdown]
# # 7. Dropout
#
# N. Srivastava et al. (2014): in each training step, switch off every hidden unit of every example with probability
# $p$. No unit can then rely on another to be there, and the network learns as if it were a crowd of thinned networks
# that share their weights. In use all units are on. Then each unit would send on average $1/(1-p)$ times as much as the
# next layer is used to, so *in training* what survives is multiplied by $1/(1-p)$ (**inverted** dropout), and use needs
# no change at all:
#
# $$
# O_{nj} = \frac{M_{nj}}{1 - p}\, H_{nj}, \qquad M_{nj} = \begin{cases} 0 & \text{with probability } p \\ 1 & \text{with
# probability } 1 - p , \end{cases} \qquad
# \mathbb{E}[O_{nj}] = H_{nj}, \qquad
# \frac{\partial L}{\partial H_{nj}} = \frac{M_{nj}}{1 - p} \frac{\partial L}{\partial O_{nj}} .
# $$
#
# ### Exercise `dropout_forward`
#
# - $0 \le p < 1$ is the probability of **dropping**. Each entry has its own draw, from `generator`.
# - With `training=False`, and with $p = 0$, every entry comes out as it went in. `generator` is given even then;
#   whether it is drawn from is left to you.
# - The cache must hold what `dropout_backward` needs; see there.
#
# **By hand first.** $(3, 5, 7, 9)$ with $p = \frac12$ becomes, for one draw, $(6, 0, 0, 18)$.


# %% exercise="dropout_forward"
def dropout_forward(H, p, *, training, generator):
    """Inverted dropout: in training each entry becomes 0 with probability p, and is divided by 1 − p otherwise.

    H (N, m), p a float with 0 <= p < 1, training a bool, generator a torch.Generator
    ->  out (N, m), cache (whatever `dropout_backward` needs)
    """
    ### BEGIN SOLUTION
    if not training:
        return H, None
    keep = torch.rand(H.shape, generator=generator) >= p  # rand is at least 0: with p = 0 nothing is dropped
    mask = keep.to(H.dtype) / (1 - p)
    return H * mask, mask
    ### END SOLUTION


# %% check="dropout_forward"
check("dropout_forward")

# %% [markdown]
# ### Exercise `dropout_backward`
#
# The gradient with respect to $H$. It goes through the **same** units as the signal did: no new draw. For a cache of
# an evaluation (`training=False`) it is `grad_out`.


# %% exercise="dropout_backward"
def dropout_backward(grad_out, cache):
    """The gradient with respect to what went into `dropout_forward`.

    grad_out (N, m), cache from `dropout_forward`  ->  (N, m)
    """
    ### BEGIN SOLUTION
    return grad_out if cache is None else grad_out * cache
    ### END SOLUTION


# %% check="dropout_backward"
check("dropout_backward")

# %% [markdown]
# ## 7.1 What it does to a wide network
#
# Few images, many units: 200 hidden units and 5,000 training images (2,000 of the small set), no other regulariser.
# Without dropout and with $p = 0.2$ and $0.5$ on the hidden layer.
#
# **Predict first.** (a) Order the three by training accuracy, and by validation accuracy. (b) The validation *loss* of
# the network without dropout: how does it move while its accuracy no longer changes?
#
# This takes about 40 seconds with CIFAR-10.


# %% experiment="dropout"
class DropoutNetwork(Network):
    """Two layers, with dropout on the hidden one while it trains."""

    def __init__(self, layers, p):
        super().__init__(layers)
        self.p, self.generator = p, torch.Generator().manual_seed(2)

    def gradients(self, X, y, lam):
        hidden, last = self.layers
        H = torch.relu(forward(X, [hidden])[0])  # one layer alone gives its sums
        dropped, mask = dropout_forward(H, self.p, training=True, generator=self.generator)
        scores, cache = forward(dropped, [last])
        G = (torch.softmax(scores, 1) - F.one_hot(y, K)) / len(X)  # (N, K), fact 1 of Section 2.3
        back = dropout_backward(G @ last["W"].T, mask) * (H > 0)
        [of_last] = backward(y, [last], cache, lam)
        return [{"W": X.T @ back + 2 * lam * hidden["W"], "b": back.sum(0)}, of_last]


few = 5_000 if full_size else 2_000
m, n_s = (200, 1000) if full_size else (100, 400)
dropped, numbers["dropout"] = {}, {}
for p in (0.0, 0.2, 0.5):
    network = DropoutNetwork(he_network([m]), p)
    history = fit(network, X_train[:few], y_train[:few], lam=0.0, n_s=n_s, cycles=1)
    dropped[f"p = {p}"] = history
    measured = {split: history["accuracy"][split][-1] for split in ("training", "validation")}
    losses = history["loss"]["validation"]
    print(
        f"p = {p}: accuracy: training {measured['training']:.1%}, validation {measured['validation']:.1%}; "
        f"validation loss {losses[-1]:.2f}, lowest on the way {min(losses):.2f}"
    )
    numbers["dropout"][f"p = {p}"] = {**measured, "validation loss": losses[-1]}
plot_curves(
    {
        "training loss": {name: (h["step"], h["loss"]["training"]) for name, h in dropped.items()},
        "validation loss": {name: (h["step"], h["loss"]["validation"]) for name, h in dropped.items()},
        "accuracy": {f"{name}, validation": (h["step"], h["accuracy"]["validation"]) for name, h in dropped.items()},
    },
    step="update step",
    units={"training loss": "nats", "validation loss": "nats"},
    title=f"{m} hidden units, {few:,} images, with dropout",
)

# %% [markdown]
# Without dropout the network learns its few images by heart. Its validation accuracy has settled long since, but on
# CIFAR-10 its validation *loss* turns and climbs to about $\ln K$, as if it knew nothing, at more than 40 % accuracy.
# The answers stay the same and become more and more certain, the wrong ones too. With dropout the training accuracy is
# lower, the validation accuracy a little higher, and the loss stays down. Dropout cannot replace the images that are
# missing, but it keeps the network from believing that it has seen them all. (On the small set training is too short
# for the loss to turn, and the curves lie close together.)

# %% [markdown]
# # 8. Bonus
#
# The exercises of 8.1, 8.4 and 8.5 bring points on top. 8.2 and 8.3 are experiments only.
#
# ## 8.1 Several networks
#
# ### Exercise `ensemble` (bonus)
#
# Several networks, each with its probabilities for the same $N$ examples. The ensemble's probabilities are their mean,
# entry by entry. The list has one network or more.
#
# **By hand first.** $(0.9, 0.1)$, $(0.4, 0.6)$ and $(0.2, 0.8)$ make $(0.5, 0.5)$. Mind that two of three networks
# would have voted for class 1.


# %% exercise="ensemble"
def ensemble(probabilities):
    """The mean of what several networks say.

    probabilities a list of (N, K)  ->  (N, K)
    """
    ### BEGIN SOLUTION
    return torch.stack(list(probabilities)).mean(0)
    ### END SOLUTION


# %% check="ensemble"
check("ensemble")

# %% [markdown]
# ### Exercise `train_snapshots` (bonus)
#
# Where do several networks come from? At the end of each cycle $\eta$ is at its lowest, and the network has settled in
# a valley. Then $\eta$ rises, throws it out again, and the next cycle ends in another valley. So one training gives
# several networks for nothing (G. Huang et al., 2017): keep a snapshot at the end of every cycle.
#
# Everything is as in `train`, `on_step` included, but return a list of `cycles` lists of layers: the parameters after
# the last update of cycle 1, of cycle 2, and so on. A snapshot does not change when training goes on. Whether an epoch
# runs on across the end of a cycle, so that the last snapshot is what `train` returns, or a new epoch begins there is
# left to you.


# %% exercise="train_snapshots"
def train_snapshots(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    """As `train`, and returns the layers at the end of every cycle.

    Arguments as those of `train`  ->  list of `cycles` lists of layers
    """
    ### BEGIN SOLUTION
    batches, snapshots = [], []
    for t in range(2 * n_s * cycles):
        if not batches:
            batches = list(torch.randperm(len(X), generator=generator).split(batch_size))
        batch = batches.pop(0)
        X_batch, y_batch = X[batch], y[batch]
        lr = cyclical_lr(t, n_s, lr_min, lr_max)
        before = layers
        _, cache = forward(X_batch, layers)
        gradients = backward(y_batch, layers, cache, lam)
        layers = [
            {name: value - lr * gradient[name] for name, value in layer.items()}
            for layer, gradient in zip(layers, gradients, strict=True)
        ]
        if on_step is not None:
            on_step(t, lr, float(cost(X_batch, y_batch, before, lam)))
        if (t + 1) % (2 * n_s) == 0:
            snapshots.append(layers)  # the next update makes new tensors
    return snapshots
    ### END SOLUTION


# %% check="train_snapshots"
check("train_snapshots")

# %% [markdown]
# **Predict first.** Five snapshots of one training, one better than the other. Is their mean better than the best of
# them?
#
# This takes about 20 seconds.

# %% experiment="snapshots"
n_s, cycles = (900, 5) if full_size else (250, 5)
snapshots = train_snapshots(
    X_train, y_train, he_network([50]),
    lam=best_lam, batch_size=100, n_s=n_s, cycles=cycles, lr_min=lr_min, lr_max=lr_max,
    generator=torch.Generator().manual_seed(0),
)  # fmt: skip
P_validation = [torch.softmax(forward(X_validation, layers)[0], 1) for layers in snapshots]
alone = [accuracy(P, y_validation) for P in P_validation]
together = [accuracy(ensemble(P_validation[-number:]), y_validation) for number in range(1, cycles + 1)]
same = [(a.argmax(1) == b.argmax(1)).double().mean().item() for a, b in pairwise(P_validation)]
print("validation accuracy of each snapshot:", ", ".join(f"{value:.1%}" for value in alone))
print("of the ensemble of the last 1, 2, …: ", ", ".join(f"{value:.1%}" for value in together))
print("neighbours in the list agree on", ", ".join(f"{value:.0%}" for value in same), "of the images")
P_test = ensemble([torch.softmax(forward(X_test, layers)[0], 1) for layers in snapshots])
numbers["snapshots"] = {"alone": alone, "together": together, "test accuracy": accuracy(P_test, y_test)}
with course_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
    left.plot(range(1, cycles + 1), 100 * np.array(alone), "s--", color=VERMILLION)
    left.set(xlabel="cycle", ylabel="validation accuracy (%)", title="Each snapshot alone", xticks=range(1, cycles + 1))
    right.plot(range(1, cycles + 1), 100 * np.array(together), "o-", color=BLUE)
    right.set(xlabel="how many of the last snapshots", title="Ensembles", xticks=range(1, cycles + 1))

# %% [markdown]
# A mean gains when its members are about equally good and are wrong in *different* places. On CIFAR-10 all snapshots
# but the first are about equally good, neighbours disagree on more than one image in ten, and the ensemble is nearly a
# point better than any of them, for no training at all. On the small set the network is still getting better from
# cycle to cycle; there older snapshots only drag the mean down. An ensemble is not magic.

# %% [markdown]
# ## 8.2 Wider
#
# **Predict first.** Ten times as many hidden units, ten times as many parameters. Does the network overfit more, and
# is it worse for it?
#
# This takes about one minute with CIFAR-10.

# %% experiment="width"
widths = (10, 30, 100, 300) if full_size else (10, 30, 100)
n_s = 900 if full_size else 300
wide, numbers["width"] = {}, {}
for m in tqdm(widths, desc="widths"):
    layers = train(
        X_train, y_train, he_network([m]),
        lam=0.003, batch_size=100, n_s=n_s, cycles=1, lr_min=lr_min, lr_max=lr_max,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    wide[m] = [
        accuracy(forward(X, layers)[0], y) for X, y in ((X_train[:5000], y_train[:5000]), (X_validation, y_validation))
    ]
    size = d * m + m + m * K + K
    print(f"m = {m:3}: {size:9,} parameters, accuracy: training {wide[m][0]:.1%}, validation {wide[m][1]:.1%}")
    numbers["width"][f"m = {m}"] = {"training": wide[m][0], "validation": wide[m][1]}
with course_style():
    fig, ax = plt.subplots(figsize=(6.5, 4))
    for column, (split, marker) in enumerate((("training", "o"), ("validation", "s"))):
        ax.plot(widths, [100 * wide[m][column] for m in widths], marker=marker, label=split, **SPLIT_STYLES[split])
    ax.set(xscale="log", xlabel="hidden units m", ylabel="accuracy (%)", title="One cycle, λ = 0.003")
    ax.set_xticks(widths, map(str, widths))
    ax.minorticks_off()
    ax.legend()

# %% [markdown]
# Both accuracies grow, and so does the gap between them. Textbooks once taught that a model with more parameters
# than examples must fail. Here the widest network has more than fifteen for each image and is the best of all, as long
# as a regulariser holds it. With 500 units and three cycles one gets beyond 55 % on CIFAR-10.

# %% [markdown]
# ## 8.3 More images for nothing
#
# A picture moved by two pixels shows the same thing. Each time an image is used, move it by up to a tenth of its
# height and width; photographs (not digits) are also mirrored, half of the time.
#
# **Predict first.** The training accuracy is measured on images that are not moved. Will it be higher or lower with
# augmentation? And the validation accuracy?
#
# This takes about half a minute with CIFAR-10.

# %% experiment="augmentation"
coin = torch.Generator().manual_seed(3)


def moved(X):
    """Each image moved by up to a tenth of its side in both directions; photographs are mirrored half of the time."""
    most = shape[2] // 10
    images, n = X.reshape(-1, *shape), len(X)
    if full_size:
        mirror = torch.rand(n, generator=coin) < 0.5
        images = torch.where(mirror[:, None, None, None], images.flip(-1), images)
    padded = F.pad(images, [most] * 4)  # with 0, the mean of every feature
    row, column = torch.randint(0, 2 * most + 1, (2, n, 1), generator=coin) + torch.arange(shape[2])
    cut = padded[torch.arange(n)[:, None, None], :, row[:, :, None], column[:, None, :]]  # (n, height, width, 3)
    return cut.permute(0, 3, 1, 2).flatten(1)


few = 10_000 if full_size else 2_000
m, n_s = (100, 1500) if full_size else (60, 400)
augmented, numbers["augmentation"] = {}, {}
for name, prepare in (("as they are", None), ("moved", moved)):
    network = Network(he_network([m]))
    augmented[name] = fit(network, X_train[:few], y_train[:few], lam=0.001, n_s=n_s, cycles=1, prepare=prepare)
    measured = {split: augmented[name]["accuracy"][split][-1] for split in ("training", "validation")}
    print(f"{name:12} training accuracy {measured['training']:.1%}, validation accuracy {measured['validation']:.1%}")
    numbers["augmentation"][name] = measured
plot_curves(
    {
        quantity: {
            f"{name}, {split}": (h["step"], h[quantity][split])
            for split in ("training", "validation")
            for name, h in augmented.items()
        }
        for quantity in ("loss", "accuracy")
    },
    step="update step",
    units={"loss": "nats"},
    title=f"{few:,} images, as they are and moved",
)

# %% [markdown]
# With augmentation the network seldom sees exactly the same picture twice: on CIFAR-10 each image is used about 30
# times and has 98 variants. It learns more slowly, and its training accuracy stays far below that of the other. Its
# validation accuracy ends six points higher on CIFAR-10: learning by heart has become hard, and what is learnt must be
# true of all the moved images. (On the small set an image has nine variants only, and in its short training there was
# nothing to be gained yet. Augmentation pays in long ones.)

# %% [markdown]
# ## 8.4 Never be certain: label smoothing
#
# Cross-entropy is never satisfied: every bit of certainty more makes the loss a bit smaller, without end. Label
# smoothing (C. Szegedy et al., 2016) asks for a little doubt. The target is not the one-hot label but
#
# $$
# T_{nk} = (1 - \epsilon)\, Y_{nk} + \frac{\epsilon}{K}, \qquad
# L = -\frac1N \sum_{n,k} T_{nk} \ln P_{nk} .
# $$
#
# The $\epsilon / K$ goes to **every** class, the true one included.
#
# ### Exercise `label_smoothing_cross_entropy` (bonus)
#
# From scores, the mean over the examples, finite for scores of $\pm 1000$, $0 \le \epsilon \le 1$.
#
# **By hand first.** $K = 2$, scores $(0, \ln 3)$, so $\mathbf{p} = (\frac14, \frac34)$. With $y = 1$ and $\epsilon =
# 0.2$ the target is $(0.1, 0.9)$ and the loss is $0.1 \ln 4 + 0.9 \ln \frac43 = 0.3975$.


# %% exercise="label_smoothing_cross_entropy"
def label_smoothing_cross_entropy(scores, y, epsilon):
    """Mean cross-entropy against (1 − epsilon) · one-hot + epsilon / K.

    scores (N, K), y (N,) int64, epsilon a float with 0 <= epsilon <= 1  ->  ()
    """
    ### BEGIN SOLUTION
    log_p = torch.log_softmax(scores, 1)  # (N, K)
    of_the_class = log_p[torch.arange(len(y)), y]  # (N,)
    return -((1 - epsilon) * of_the_class + epsilon * log_p.mean(1)).mean()
    ### END SOLUTION


# %% check="label_smoothing_cross_entropy"
check("label_smoothing_cross_entropy")

# %% [markdown]
# **Predict first.** All scores are 0 but the true class's. Sketch the loss over that score, without and with
# smoothing.

# %% experiment="smoothing"
gaps = torch.linspace(-2, 14, 200)
scores = torch.zeros(200, K)
scores[:, 0] = gaps
numbers["smoothing"] = {}
with course_style():
    fig, ax = plt.subplots(figsize=(6.5, 4))
    for epsilon, colour, style in ((0.0, BLUE, "-"), (0.1, VERMILLION, "--"), (0.3, GREEN, ":")):
        losses = [label_smoothing_cross_entropy(row[None], torch.tensor([0]), epsilon).item() for row in scores]
        lowest = int(np.argmin(losses))
        ax.plot(gaps, losses, style, color=colour, label=f"ε = {epsilon}")
        ax.plot(gaps[lowest], losses[lowest], "o", color=colour)
        probability = torch.softmax(scores[lowest], 0)[0].item()
        print(f"ε = {epsilon}: lowest loss {losses[lowest]:.2f} where the true class has probability {probability:.3f}")
        numbers["smoothing"][f"ε = {epsilon}"] = probability
    ax.set(
        xlabel="score of the true class (all others are 0)",
        ylabel="loss of one example (nats)",
        title="Label smoothing",
    )
    ax.legend()

# %% [markdown]
# With smoothing the loss has a lowest point at $p_y = 1 - \epsilon + \epsilon / K$, and to be surer than that *costs*.
# A network trained with it knows what it does not know, a little better.

# %% [markdown]
# ## 8.5 When to stop
#
# ### Exercise `early_stopping` (bonus)
#
# After every epoch the validation cost is noted. Training stops as soon as `patience` epochs **in a row** were not
# *strictly* below the best cost so far. Return the index of the best cost seen until then (the first, if it was
# reached more than once). If training never stops in this way, it is the best of all. `costs` has one entry or more,
# and `patience` is at least 1.
#
# **By hand first.** The costs $5, 4, 4, 4.5, 3$ with `patience=2`: the best is 4 at index 1; index 2 is not strictly
# below it, index 3 is not either, that makes two, and training stops there. The result is 1, and the 3 is never seen.
# With `patience=3` it is seen, and the result is 4.


# %% exercise="early_stopping"
def early_stopping(costs, patience):
    """The epoch whose parameters are kept when training stops after `patience` epochs in a row without a new best.

    costs a list of floats, one for each epoch, patience an int >= 1  ->  int, an index of costs
    """
    ### BEGIN SOLUTION
    best = 0
    for epoch, value in enumerate(costs):
        if value < costs[best]:
            best = epoch
        elif epoch - best >= patience:
            break
    return best
    ### END SOLUTION


# %% check="early_stopping"
check("early_stopping")

# %% experiment="stopping"
with course_style():
    fig, ax = plt.subplots(figsize=(6.5, 4))
    numbers["stopping"] = {}
    looks = zip(dropped.items(), (BLUE, VERMILLION, GREEN), ("-", "--", ":"), strict=True)
    for (name, history), colour, style in looks:
        losses = history["loss"]["validation"]
        stop = early_stopping(losses, 3)
        ax.plot(history["step"], losses, style, color=colour, label=name)
        ax.plot(history["step"][stop], losses[stop], "o", color=colour)
        accuracies = history["accuracy"]["validation"]
        print(
            f"{name}: kept from update {history['step'][stop]:,} of {history['step'][-1]:,}; loss there "
            f"{losses[stop]:.2f} (last {losses[-1]:.2f}), accuracy {accuracies[stop]:.1%} (last {accuracies[-1]:.1%})"
        )
        numbers["stopping"][name] = {"kept": accuracies[stop], "last": accuracies[-1]}
    ax.set(xlabel="update step", ylabel="validation loss (nats)", title="Early stopping with patience 3 (dots)")
    ax.legend()

# %% [markdown]
# Early stopping saves the time in which the loss only climbs. But mind what it looks at: one curve, noisy, with a
# learning rate that goes up and down. A bump on the way can stop a network that would have become much better. And
# note the accuracies: where the *loss* is lowest, the accuracy need not be highest.

# %% [markdown]
# # What to take along
#
# - Back-propagation is the chain rule, once for each layer, from the top. Write the shapes down.
# - Every layer multiplies the signal, and the gradient, by a factor. $c^{k-1}$ is small or large unless $c = 1$: choose
#   the variance of the first weights accordingly, or let batch normalisation see to it.
# - Overfit a few images, test the range of the learning rate, and only then train.
# - Compare update rules each at its own best learning rate, or not at all.
# - Check a gradient with *random* upstream gradients. A plain sum proves nothing behind a normalisation.
# - Training and use are different for batch normalisation and for dropout. Most mistakes live in that difference.
# - Search on a logarithmic scale, choose by the validation set, and touch the test set once.
# - All of this treats an image as a row of numbers in no particular order. The next assignment tells the network
#   that pixels have neighbours.
#
# Before you hand in: restart the kernel and run all cells, top to bottom. Then call `check()`, which runs all
# checks at once. Hand in the notebook, with its figures.
