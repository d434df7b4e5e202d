# %% [markdown]
# # Assignment 3: ConvNets
#
# In the first two assignments an image was a row of 3,072 numbers. Shuffle the pixels of *all* images in the same way,
# and those nets would learn exactly as well as before. They do not know that two pixels are neighbours, and they learn
# what a wheel looks like once for every place where a wheel can be.
#
# A convolution knows two things beforehand: what belongs together lies close together, and what is useful in one place
# is useful in every other. It looks at a small window and slides it over the image, with the same weights everywhere.
# That is all it is. It is linear, it has fewer weights than what it replaces, and it has changed everything.
#
# You will first write it by hand: the forward pass, the gradient, pooling, and a whole net that trains with them.
# Then you change to the framework and build with its layers, and by then you know what is inside. At the end you
# can say, from your own figures:
#
# - why a convolution is a matrix product, and what its gradient has to do with itself;
# - how far one unit of a deep net can see, and how far it really looks;
# - why a deeper net can be *worse on its own training images*, and what a shortcut does about it;
# - what a trained net looks at, what it confuses, and how little it takes to fool it;
# - what is left of its knowledge when the classes change.

# %% [markdown]
# ## How this notebook works
#
# - **Exercises** are functions and classes that you write. Replace the lines `# YOUR CODE HERE` and
#   `raise NotImplementedError()`. Keep the names and the order of the arguments.
# - **Checks** (`check("im2col")`) run your function on small random inputs, show what is met and what is not, and tell
#   the likeliest cause. Run them as often as you like. Grading runs the same checks on other numbers, and a few more:
#   tensors that are not contiguous (rule 3), one image or one channel, stride and padding at once, classes that do not
#   occur, very large scores. What only grading tries is written in the rules or in the exercise.
# - **Experiments** use your functions to train and to draw. They are complete: run them, from top to bottom, and
#   look. They are not rerun for grading, but their figures are read together with your answers.
# - **Predict first.** Write your guess on paper *before* you run the cell. A wrong guess is worth more than a figure
#   you only looked at.
# - **Written questions** are answered in words and formulas. A person marks them.
#
# With all exercises solved the notebook takes about 20 minutes with CIFAR-10 on two processor cores (half of it in
# the one cell of Section 4.7), and a good minute with the smaller set that is used where CIFAR-10 cannot be had.

# %% [markdown]
# ## The rules that hold for every exercise
#
# **Names and shapes.** $N$ images, $C$ channels, $H$ rows, $W$ columns, $K$ classes, $n_f$ filters.
#
# | name | shape | what |
# |---|---|---|
# | `images`, `X` | $(N, C, H, W)$ | channels come before rows, rows before columns |
# | `F` | $(n_f, C, k_h, k_w)$ | $n_f$ filters; each one sees all channels |
# | `b` | $(n_f,)$ | one bias for each filter |
# | `y`, `labels` | $(N,)$ | `int64`, from $0$ to $K-1$ |
# | `scores` | $(N, K)$ | not probabilities: the softmax belongs to the loss |
# | `stride`, `padding`, `k`, … | Python ints | the same for both axes |
#
# The letter `F` is taken by the filters, so `torch.nn.functional` is imported as `functional`.
#
# **What every function keeps to.**
#
# 1. It takes `float32` and `float64`, and its results have the dtype of its float arguments. Integer labels never
#    decide a dtype. Where no float tensor comes in, `float32` comes out, unless the exercise says otherwise (`int64`,
#    or the dtype of the images).
# 2. It does not change its arguments. In-place work on a tensor that you made yourself is fine. A result may share
#    memory with an argument.
# 3. It works for $N \ge 1$, for $H \ne W$ and $k_h \ne k_w$, where nothing divides evenly, and for tensors that are
#    not contiguous in memory (where `reshape` works and `view` does not).
# 4. Where chance is needed it comes from the argument `generator` and from nowhere else: `torch.randperm(n,
#    generator=generator)`, `torch.randint(0, 9, (n,), generator=generator)`. The same state of the generator must
#    give the same result.
# 5. Several results are returned as a tuple, in the order given.
# 6. A **cache** is whatever your forward function hands to your backward function: a tuple, a dict, what you like.
#    Nobody else looks into it. Every call returns its own, and it stays valid: the backward function may be called
#    twice with the same cache, and after other forward calls. So keep nothing in global variables.
# 7. It uses its arguments, imports and functions. Variables of the experiments do not exist when your work is graded.
#    Helper functions of your own are welcome; put them into the cell of the exercise that needs them.
#
# An exercise may call the functions of earlier ones, and should where that is natural. If an earlier one is wrong,
# grading judges the later one again with a right one in its place, so you lose the points only once. Here in the
# notebook it fails together with the earlier one, and the check says which one to repair first.
#
# **What you may not call in Sections 1 to 3** (and in `dilated_conv2d`), because it is what they ask for:
# `functional.unfold` and `functional.fold`, `functional.conv…`, `functional.max_pool…`, `functional.avg_pool…`, the
# same under the names of `torch`, the layers of `torch.nn`, and automatic differentiation (`torch.autograd`,
# `backward`, `requires_grad`, `torch.func`); nor what hides which function is called (`eval`, `getattr` with a
# computed name, `__dict__`, files). Allowed is everything else, loops and NumPy included: `functional.pad`,
# `Tensor.unfold`, `as_strided`, `einsum`, `index_add`, `scatter_add`, `@`, slicing … From Section 4 on you may use all
# of PyTorch.

# %% setup="install"
# On Google Colab this cell installs what the notebook needs; everywhere else it only looks whether it is there.
import glob
import importlib.util
import os
import shutil
import sys
import zipfile

if "google.colab" in sys.modules and not os.path.exists("checks.py"):
    wanted = "*/assignments/a3_convnets"
    if not glob.glob(wanted):
        for archive in filter(zipfile.is_zipfile, glob.glob("*.zip")):
            shutil.unpack_archive(archive, format="zip")
    if not glob.glob(wanted):
        print("Choose the assignment's zip file, as your course gave it to you.")
        from google.colab import files

        for archive in filter(zipfile.is_zipfile, files.upload()):
            shutil.unpack_archive(archive, format="zip")
    if not glob.glob(wanted):
        raise FileNotFoundError("No zip file here holds a3_convnets; run this cell again and choose it.")
    bundle = glob.glob(wanted)[0].split(os.sep)[0]
    sys.path.insert(0, os.path.abspath(bundle))
    from course_utils.colab import install

    install(bundle, "a3_convnets")
elif importlib.util.find_spec("course_utils") is None:
    raise ModuleNotFoundError(
        f"The course's package is not in {sys.prefix}: choose the kernel of the environment in which you ran "
        "`pip install .` (in VS Code at the top right), or run that in the folder of the bundle."
    )

# %% setup
import math
import os
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from course_utils.data import DataError, load_images, load_surnames
from course_utils.gradients import check_gradients
from course_utils.plots import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SPLIT_STYLES,
    VERMILLION,
    course_style,
    plot_confusion_matrix,
    plot_curves,
    plot_filters,
    plot_images,
)

torch.set_num_threads(1)  # Sections 1 to 3 work on small matrices: a second thread costs more than it gains
numbers = {}  # what each experiment measured, by the name of the experiment

# %% setup="check"
import checks

from course_utils.checking import checker

check = checker(checks)

# %% [markdown]
# # 0. The images
#
# The cell below loads CIFAR-10 where this machine has it or can download it, and otherwise *digits in scenes*, a set
# that is made on the spot. It prints which one you have. All exercises and all questions are the same for both. The
# experiments are smaller with the second set, and only the numbers differ.
#
# Images stay as they are stored, in `uint8` from 0 to 255, which takes a quarter of the memory. They become floats
# in $[0, 1]$ when they are used.

# %% experiment="images"
data = load_images("auto")
full = data.name == "cifar10"  # the experiments have two sizes
sizes = (45_000, 5_000, 10_000) if full else (5_000, 1_000, 1_000)
data = load_images(data.name, train=sizes[0], validation=sizes[1], test=sizes[2])
images_train, y_train = data.train
images_validation, y_validation = data.validation
images_test, y_test = data.test
K = len(data.classes)
print(data)
numbers["images"] = {"set": data.name, "training images": len(images_train)}

first_of_each = torch.stack([torch.nonzero(y_train == k)[:4, 0] for k in range(K)], dim=1).flatten()
plot_images(
    images_train[first_of_each],
    y_train[first_of_each],
    data.classes,
    title=f"{data.source}: four training images of each class",
)

# %% [markdown]
# # 1. Convolution, by hand
#
# ## 1.1 Patches
#
# Begin with the simplest case: windows that do not overlap. Cut the image into squares of $f \times f$ pixels and lay
# each of them out as a vector of $C f^2$ numbers. Then a layer that treats all patches alike, with the same weights,
# is one matrix product: $(N, P, C f^2)$ times $(C f^2, n_f)$ gives $n_f$ numbers for every patch. Such a layer is
# called *patchify*. It is the first layer of this assignment's first net, and of most transformers that look at images.
#
# ### Exercise `patchify`
#
# - $f$ divides $H$ and $W$. There are $P = \frac{H}{f} \cdot \frac{W}{f}$ patches.
# - The patches come **row by row**: first all patches of the top row, from left to right.
# - Inside a patch the order is $(C, f, f)$: first the whole first channel, row by row, then the second one, …
# - Any dtype is kept, also `uint8`.
#
# `reshape` splits an axis into two, as in $H \to (\frac{H}{f}, f)$, and joins neighbouring ones; `permute` changes
# their order. A reshape alone cannot do it: it would cut rows, not squares.
#
# **By hand first.** One image with one channel and $f = 2$:
#
# $$
# \begin{pmatrix} 1 & 2 & 3 & 4 \\ 5 & 6 & 7 & 8 \end{pmatrix}
# \;\to\; (1, 2, 5, 6),\ (3, 4, 7, 8) .
# $$


# %% exercise="patchify"
def patchify(images, f):
    """Cut each image into squares of f × f pixels, row by row, and lay each square out as a vector.

    images (N, C, H, W), f an int that divides H and W  ->  (N, P, C·f·f) with P = (H/f)·(W/f)
    """
    ### BEGIN SOLUTION
    N, C, H, W = images.shape
    squares = images.reshape(N, C, H // f, f, W // f, f)  # (N, C, row of the patch, i, column of the patch, j)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(N, (H // f) * (W // f), C * f * f)
    ### END SOLUTION


# %% check="patchify"
check("patchify")

# %% [markdown]
# ## 1.2 Windows that overlap
#
# A convolution wants a window at *every* place, not only at every $f$-th. Four numbers describe the windows:
#
# - their height $k_h$ and width $k_w$;
# - the **stride** $s$: how many pixels the window moves from one place to the next, down as well as to the right;
# - the **padding** $p$: how many rows and columns of zeros are put around the image first, on each of the four sides.
#   The channels are not padded.
#
# A window that would stick out of the padded image is left out, so along the rows there are
#
# $$
# H_{\text{out}} = \left\lfloor \frac{H + 2p - k_h}{s} \right\rfloor + 1
# $$
#
# places, and $W_{\text{out}}$ likewise with $W$ and $k_w$. The number is rounded **down**: with $H = 6$, $k_h = 3$,
# $s = 2$, $p = 0$ the windows start in rows 0 and 2, and the last row is never seen.
#
# ### Exercise `im2col`
#
# Lay every window out as a **column**: the result has shape $(N,\ C k_h k_w,\ L)$ with
# $L = H_{\text{out}} W_{\text{out}}$.
#
# - The order inside a column is $(C, k_h, k_w)$, as in a patch. The order of the columns is row by row.
# - So row $c\, k_h k_w + i\, k_w + j$ of the result holds channel $c$, shifted by $(i, j)$: what the filter's entry
#   $(c, i, j)$ gets to see, at all places.
# - Sizes are such that at least one window fits.
#
# Ways to write it: two loops over $(i, j)$, each taking a slice `padded[:, :, i : … : stride, j : … : stride]`; or
# `Tensor.unfold(dimension, size, step)`, which makes windows along *one* axis and appends them as a new last axis; or
# index arithmetic. Loops over all places are right too, and slow.
#
# **By hand first.** $k_h = k_w = 2$, $s = 1$, $p = 0$, one channel:
#
# $$
# \begin{pmatrix} 1 & 2 & 3 \\ 4 & 5 & 6 \end{pmatrix}
# \;\to\;
# \begin{pmatrix} 1 & 2 \\ 2 & 3 \\ 4 & 5 \\ 5 & 6 \end{pmatrix} .
# $$


# %% exercise="im2col"
def im2col(images, kh, kw, stride, padding):
    """Every window of kh × kw pixels that a filter sees, each as a column.

    images (N, C, H, W), kh, kw, stride and padding ints  ->  (N, C·kh·kw, L)
    with L = H_out·W_out, H_out = ⌊(H + 2·padding − kh) / stride⌋ + 1 and W_out likewise
    """
    ### BEGIN SOLUTION
    padded = functional.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, kh, stride).unfold(3, kw, stride)  # (N, C, H_out, W_out, kh, kw), a view
    N, C, H_out, W_out = windows.shape[:4]
    return windows.permute(0, 1, 4, 5, 2, 3).reshape(N, C * kh * kw, H_out * W_out)
    ### END SOLUTION


# %% check="im2col"
check("im2col")

# %% [markdown]
# ### … and back
#
# `im2col` copies pixels, so it is linear: there is a matrix $A$ of zeros and ones with `im2col(x)` $= A \mathbf{x}$.
# Its transpose $A^\top$ takes columns and gives an image. Row $r$ of $A$ has a single 1, at the pixel that entry $r$
# is a copy of, or only zeros where the entry comes from the padding. So $A^\top$ sends every entry back to its pixel,
# and a pixel that had been copied into several windows gets their **sum**. What came from the padding is dropped. We
# need it for the gradient: whoever has been copied five times has influence in five places.
#
# ### Exercise `col2im`
#
# - `shape` is the shape $(N, C, H, W)$ of the image that comes out; the other arguments are those of `im2col`.
# - Overlaps **add**. (`image[..., index] += values` with an index tensor adds only once where an index occurs twice.
#   Slices, `index_add` and `scatter_add` do what you want.)
# - Pixels that no window has seen get 0.
#
# It is the transpose and not the inverse: `col2im(im2col(x))` is $\mathbf{x}$ times the number of windows that saw each
# pixel.
#
# **By hand first.** The four-by-two matrix above, put back: pixels 2 and 5 were in both windows, and
#
# $$
# \begin{pmatrix} 1 & 2 \\ 2 & 3 \\ 4 & 5 \\ 5 & 6 \end{pmatrix}
# \;\to\;
# \begin{pmatrix} 1 & 2 + 2 & 3 \\ 4 & 5 + 5 & 6 \end{pmatrix} .
# $$


# %% exercise="col2im"
def col2im(cols, shape, kh, kw, stride, padding):
    """The transpose of im2col: every entry is added to the pixel that im2col would have taken it from.

    cols (N, C·kh·kw, L), shape = (N, C, H, W), kh, kw, stride and padding ints  ->  (N, C, H, W)
    """
    ### BEGIN SOLUTION
    N, C, H, W = shape
    H_out = (H + 2 * padding - kh) // stride + 1
    W_out = (W + 2 * padding - kw) // stride + 1
    cols = cols.reshape(N, C, kh, kw, H_out, W_out)
    padded = cols.new_zeros(N, C, H + 2 * padding, W + 2 * padding)
    for i in range(kh):
        for j in range(kw):  # within one (i, j) no two windows share a pixel
            rows = slice(i, i + stride * H_out, stride)
            columns = slice(j, j + stride * W_out, stride)
            padded[:, :, rows, columns] += cols[:, :, i, j]
    return padded[:, :, padding : padding + H, padding : padding + W]
    ### END SOLUTION


# %% check="col2im"
check("col2im")

# %% [markdown]
# ## 1.3 The convolution
#
# At every place, multiply the window with the filter entry by entry, sum, add the bias:
#
# $$
# \text{out}_{n f u v} = b_f + \sum_{c=0}^{C-1} \sum_{i=0}^{k_h-1} \sum_{j=0}^{k_w-1}
# F_{f c i j}\; \tilde X_{n,\, c,\, s u + i,\, s v + j},
# $$
#
# where $\tilde X$ is the padded image. A mathematician calls this *cross-correlation* and would turn the filter by 180°
# for a convolution. Nobody in deep learning does, since the filter is learnt anyway: do **not** turn it.
#
# Write each filter as a row of $C k_h k_w$ numbers, in the order of the columns of `im2col`. Then all filters at all
# places are one matrix product for each image:
#
# $$
# \underset{(n_f,\ L)}{\text{Out}_n} =
# \underset{(n_f,\ C k_h k_w)}{\hat F} \;\; \underset{(C k_h k_w,\ L)}{M_n} + \mathbf{b}\, \mathbf{1}^\top,
# \qquad M = \texttt{im2col}(X).
# $$
#
# This is how it was done on the first graphics cards, and often still is. The price is memory: each pixel is copied up
# to $k_h k_w$ times. In return a matrix product runs near the peak speed of the processor, and the loops run nowhere
# near it. You will measure it in Section 1.5.
#
# ### Exercise `conv2d_forward`
#
# Return the pair `out`, `cache`. Every filter sees **all** channels. What does the backward function need? You will
# know after Section 1.4; come back then.
#
# **By hand first.** The image of Section 1.2 with the filter $\begin{pmatrix} 1 & 0 \\ 0 & -1 \end{pmatrix}$, $b = 0$,
# $s = 1$, $p = 0$: $\text{out} = (1 - 5,\ 2 - 6) = (-4, -4)$. With the filter turned around it would be $(4, 4)$. With
# $p = 1$ the output has 3 × 4 entries, and the first one is $-1$.


# %% exercise="conv2d_forward"
def conv2d_forward(X, F, b, stride, padding):
    """Cross-correlate every image with every filter.

    X (N, C, H, W), F (n_f, C, kh, kw), b (n_f,), stride and padding ints  ->  out (N, n_f, H_out, W_out), cache
    """
    ### BEGIN SOLUTION
    n_filters, _, kh, kw = F.shape
    cols = im2col(X, kh, kw, stride, padding)  # (N, C·kh·kw, L)
    out = F.reshape(n_filters, -1) @ cols + b[:, None]  # (N, F, L)
    H_out = (X.shape[2] + 2 * padding - kh) // stride + 1
    return out.reshape(len(X), n_filters, H_out, -1), (cols, X.shape, F, stride, padding)
    ### END SOLUTION


# %% check="conv2d_forward"
check("conv2d_forward")

# %% [markdown]
# ### A filter by hand
#
# Before a net learns filters, choose some yourself. The first two below are Sobel's, from 1968: the difference of two
# columns, smoothed along them, and the same for rows. The blur is a mean of 9 × 9 pixels. The last one is no
# formula: it is a **piece of the photograph itself**, the framed 16 × 16 pixels $\mathbf{q}$. What is shown is its
# *correlation* with every window $\mathbf{w}$ of the same size,
#
# $$
# \frac{(\mathbf{q} - \bar q) \cdot (\mathbf{w} - \bar w)}{\|\mathbf{q} - \bar q\|\, \|\mathbf{w} - \bar w\|}
# = \frac{(\mathbf{q} - \bar q) \cdot \mathbf{w}}{\|\mathbf{q} - \bar q\|\, \|\mathbf{w} - \bar w\|},
# $$
#
# which lies between −1 and 1. The numerator is one convolution: the mean has to be subtracted from the piece only,
# since $\mathbf{q} - \bar q$ sums to 0. The contrast $\|\mathbf{w} - \bar w\|$ of the windows takes two more.
#
# **Predict first.** (a) Which of the two edge filters lights up at the edges of the roofs, which one at the pillars?
# (b) Where is the correlation with the piece largest? Where else is it large, above 0.7?

# %% experiment="photograph"
from sklearn.datasets import load_sample_image

photo = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1) / 255  # (3, 427, 640), comes with scikit-learn
photo = photo[:, ::2, ::2]
grey = photo.mean(0)[None, None]  # (1, 1, 214, 320)


def filtered(image, kernel):
    """One image through one filter, without padding.  (1, 1, H, W), (kh, kw)  ->  (H_out, W_out)"""
    return conv2d_forward(image, kernel[None, None], torch.zeros(1), 1, 0)[0][0, 0]


sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
across, down = filtered(grey, sobel), filtered(grey, sobel.T)
blurred = filtered(grey, torch.full((9, 9), 1 / 81))

top, left, size = 80, 152, 16  # the tip of the middle roof
piece = grey[0, 0, top : top + size, left : left + size]
piece = piece - piece.mean()
ones = torch.ones(size, size)
contrast = filtered(grey**2, ones) - filtered(grey, ones) ** 2 / size**2  # size² · variance of each window
correlation = filtered(grey, piece) / (piece.norm() * contrast.clamp(min=1e-6).sqrt())
best_row, best_column = divmod(int(correlation.argmax()), correlation.shape[1])
peak = correlation == functional.max_pool2d(correlation[None, None], 11, stride=1, padding=5)[0, 0]  # local maxima
others = torch.nonzero(peak & (correlation > 0.7))
others = others[(others != torch.tensor([top, left])).any(1)]
print(f"largest correlation {correlation.max():.3f} at ({best_row}, {best_column}); the piece is from ({top}, {left})")
print(f"other places with a correlation above 0.7: {len(others)}")
numbers["photograph"] = {"largest correlation": correlation.max().item(), "other places": len(others)}

with course_style():
    fig, axes = plt.subplots(2, 3, figsize=(13, 6.2))
    panels = (
        ("the photograph, and the piece", photo.permute(1, 2, 0).contiguous(), {}),
        ("Sobel, across: columns", across, {"cmap": "RdBu_r", "vmin": -1.5, "vmax": 1.5}),
        ("Sobel, down: rows", down, {"cmap": "RdBu_r", "vmin": -1.5, "vmax": 1.5}),
        ("both: length of the gradient", (across**2 + down**2).sqrt(), {"cmap": "gray_r", "vmin": 0, "vmax": 2}),
        ("blur: mean of 9 × 9 pixels", blurred, {"cmap": "gray", "vmin": 0, "vmax": 1}),
        ("correlation with the piece", correlation, {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}),
    )
    for ax, (title, picture, colours) in zip(axes.flat, panels, strict=True):
        shown = ax.imshow(picture.numpy(), **colours)
        ax.set_title(title)
        ax.axis("off")
        if colours:
            fig.colorbar(shown, ax=ax, shrink=0.65)
    for colour, width in (("black", 4.0), ("yellow", 1.8)):
        axes[0, 0].add_patch(plt.Rectangle((left, top), size, size, fill=False, edgecolor=colour, linewidth=width))
    axes[1, 2].scatter(
        [left], [top], s=110, facecolor="none", edgecolor="black", linewidth=1.8, label="the piece itself"
    )
    if len(others):
        where = {"s": 90, "marker": "s", "facecolor": "none", "edgecolor": GREEN, "linewidth": 1.8}
        axes[1, 2].scatter(others[:, 1], others[:, 0], label="above 0.7", **where)
    axes[1, 2].legend(loc="lower right", frameon=True)

# %% [markdown]
# The filter for differences *across* answers to columns and other upright edges, the one for differences *down* to the
# edges of the roofs. The piece is the tip of a roof, and it finds the tips of the two other roofs, which differ in
# size, light and detail. A filter is a question: "how much does it look like this, here?" The answer is large where the
# window looks like the filter itself, so a piece of an image finds its own place, and everything that looks the same. A
# linear classifier did that with one template as large as the image. A convolution asks with a small one, at every
# place. What is left to learn is which questions to ask.

# %% [markdown]
# ## 1.4 Its gradient
#
# Let $\mathcal L$ be a number that is computed from `out`, such as a loss, and let
# $G = \partial \mathcal L / \partial\, \text{out}$ be given, with the shape of `out`. We want
# $\partial \mathcal L / \partial X$, $\partial \mathcal L / \partial F$ and
# $\partial \mathcal L / \partial \mathbf{b}$. With the matrices of Section 1.3 there is nothing new. For each image,
# $\text{Out} = \hat F M + \mathbf{b} \mathbf{1}^\top$ is a linear layer, so with $\hat G_n$, the $(n_f, L)$ matrix of
# image $n$,
#
# $$
# \frac{\partial \mathcal L}{\partial \hat F} = \sum_n \hat G_n M_n^\top, \qquad
# \frac{\partial \mathcal L}{\partial M_n} = \hat F^\top \hat G_n, \qquad
# \frac{\partial \mathcal L}{\partial b_f} = \sum_{n, u, v} G_{n f u v} .
# $$
#
# One step is left, from the columns to the image. $M = A\, \mathbf{x}$, so the gradient of $\mathbf{x}$ is
# $A^\top$ times the gradient of $M$, and you have written $A^\top$ already:
#
# $$
# \frac{\partial \mathcal L}{\partial X} = \texttt{col2im}\bigl(\hat F^\top \hat G\bigr).
# $$
#
# Nothing is averaged: the loss above has done that, if anybody has.
#
# Read without matrices, the second formula says: every output pixel stamps the filter, multiplied by its gradient, onto
# the place that it had looked at, and stamps add. The first one says something that you derive yourself.

# %% [markdown] written="filter_gradient" points=3
# ### Written question 1 (3 points)
#
# Take one image with one channel, one filter, stride 1, no padding and no bias:
# $\text{out}_{uv} = \sum_{i,j} F_{ij} X_{u+i,\, v+j}$, and let
# $G_{uv} = \partial \mathcal L / \partial\, \text{out}_{uv}$.
#
# - (a) Derive $\partial \mathcal L / \partial F_{ij}$ from the chain rule, and show that it is again a
#   cross-correlation. Of what with what? What is its size?
# - (b) How does the formula change with stride $s$ and padding $p$?
# - (c) For a layer with $C$ channels, $n_f$ filters and $N$ images give $\partial \mathcal L / \partial F_{fcij}$ and
#   $\partial \mathcal L / \partial b_f$. How many terms has the sum for one entry of each, and how many has it in a
#   fully connected layer? With entries of $G$ of the same size in both layers, how much larger than in the fully
#   connected one are the convolution's sums if their terms agree in sign, and if their signs are random?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** $F_{ij}$ enters every output pixel, with the factor
# $\partial\, \text{out}_{uv} / \partial F_{ij} = X_{u+i,\, v+j}$. The chain rule sums over everything that it
# influences: $\frac{\partial \mathcal L}{\partial F_{ij}} = \sum_{u,v} G_{uv}\, X_{u+i,\, v+j}$. This is the formula of
# the forward pass with $G$ in the place of the filter: the cross-correlation of the image $X$ with the "filter" $G$,
# and not the other way round. Sizes: $X$ is $H \times W$, $G$ is $(H - k_h + 1) \times (W - k_w + 1)$, so the result is
# $H - (H - k_h + 1) + 1 = k_h$ rows by $k_w$ columns, as it must be.
#
# **(b)** $\text{out}_{uv} = \sum_{ij} F_{ij} \tilde X_{su+i,\, sv+j}$ with the padded image $\tilde X$. So
# $\frac{\partial \mathcal L}{\partial F_{ij}} = \sum_{uv} G_{uv}\, \tilde X_{su+i,\, sv+j}$: the padded image is used,
# and the entries of $G$ are $s$ pixels apart, which is a cross-correlation with $G$ *dilated* by $s$.
#
# **(c)** $\frac{\partial \mathcal L}{\partial F_{fcij}} = \sum_{n,u,v} G_{nfuv}\, \tilde X_{n,c,su+i,sv+j}$ and
# $\frac{\partial \mathcal L}{\partial b_f} = \sum_{n,u,v} G_{nfuv}$, with $N H_{\text{out}} W_{\text{out}}$ terms each,
# because the same weight is used at every place. In a fully connected layer it is $N$ terms. So with upstream gradients
# of the same size these sums have $H_{\text{out}} W_{\text{out}}$ times as many terms and are larger (up to that factor
# if the terms agree in sign, by its root if their signs are random).
#
# *Marking guide.* 1 point: (a) with the sum over all places and the reason for it (half), and the roles and sizes
# (half). 1 point: (b), half for the stride in the index of $X$, half for the padded image. 1 point: (c), both formulas
# with the sum over $n$, $u$ and $v$ (half), the count and what it means (half). "A convolution of $G$ with $X$"
# without saying which one slides over which: half of that part.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ### Exercise `conv2d_backward`
#
# Return `grad_X`, `grad_F`, `grad_b`, with the shapes of $X$, $F$ and $\mathbf{b}$. `grad_out` is any tensor with the
# shape of `out`: do not assume that it is all ones.
#
# **By hand first.** The example of Section 1.3 with $G = (1, 10)$. The filter has seen $(1, 2, 4, 5)$ and
# $(2, 3, 5, 6)$:
#
# $$
# \frac{\partial \mathcal L}{\partial F} = 1 \begin{pmatrix} 1 & 2 \\ 4 & 5 \end{pmatrix} + 10
# \begin{pmatrix} 2 & 3 \\ 5 & 6 \end{pmatrix} = \begin{pmatrix} 21 & 32 \\ 54 & 65 \end{pmatrix}, \qquad
# \frac{\partial \mathcal L}{\partial X} = \begin{pmatrix} 1 & 10 & 0 \\ 0 & -1 & -10 \end{pmatrix}, \qquad
# \frac{\partial \mathcal L}{\partial b} = 11 .
# $$


# %% exercise="conv2d_backward"
def conv2d_backward(grad_out, cache):
    """The gradients of a scalar with respect to the arguments of conv2d_forward.

    grad_out (N, n_f, H_out, W_out), cache of conv2d_forward
    ->  grad_X (N, C, H, W), grad_F (n_f, C, kh, kw), grad_b (n_f,)
    """
    ### BEGIN SOLUTION
    cols, shape, F, stride, padding = cache
    n_filters, _, kh, kw = F.shape
    G = grad_out.reshape(len(grad_out), n_filters, -1)  # (N, F, L)
    grad_F = (G @ cols.transpose(1, 2)).sum(0).reshape(F.shape)
    grad_cols = F.reshape(n_filters, -1).T @ G  # (N, C·kh·kw, L)
    return col2im(grad_cols, shape, kh, kw, stride, padding), grad_F, G.sum((0, 2))
    ### END SOLUTION


# %% check="conv2d_backward"
check("conv2d_backward")

# %% [markdown]
# The gradient report, as in the first assignment: your gradients against centred differences, in `float64`. As the
# number to differentiate we take $\sum G \odot \text{out}$ with a random $G$, so that no two places weigh the same.
# Stride 2, padding 1, a filter of 3 × 2: nothing is square, and nothing divides evenly.

# %% experiment="gradient_report"
generator = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


X_few, F_few, b_few = normal(2, 3, 8, 9), normal(4, 3, 3, 2), normal(4)
out_few, cache_few = conv2d_forward(X_few, F_few, b_few, 2, 1)
G_few = normal(*out_few.shape)


def report_conv(gradients):
    """Hold grad_X, grad_F and grad_b against the numerical gradients."""
    return check_gradients(
        lambda X, F, b: (G_few * conv2d_forward(X, F, b, 2, 1)[0]).sum(),
        {"X": X_few, "F": F_few, "b": b_few},
        gradients,
        sizes={"N": 2},
    )


gradient_report = report_conv(conv2d_backward(G_few, cache_few))
numbers["gradient_report"] = {"passed": bool(gradient_report.passed)}
gradient_report

# %% [markdown]
# ### Two patients
#
# Both functions below compute `grad_X` in a way that is often seen. Patient 1 *writes* where it should add: the last
# window to see a pixel wins. Patient 2 forgets that the image had been padded, and takes the top left corner of the
# padded gradient. The picture shows, for every pixel of an 11 × 15 image, how large the error of its gradient is
# compared with a typical gradient, averaged over many random examples.
#
# **Predict first.** (a) Where is the error of patient 1 with stride 1, where with stride 2 (filter 3 × 3, padding 1)?
# (b) With which stride is patient 1 healthy? (c) Patient 2 still trains. How could that be?


# %% experiment="patients"
def patient_1(grad_cols, shape, k, stride, padding):
    N, C, H, W = shape
    padded = grad_cols.new_zeros(N, C, H + 2 * padding, W + 2 * padding)
    H_out, W_out = (H + 2 * padding - k) // stride + 1, (W + 2 * padding - k) // stride + 1
    cols = grad_cols.reshape(N, C, k, k, H_out, W_out)
    for u in range(H_out):
        for v in range(W_out):
            padded[:, :, u * stride : u * stride + k, v * stride : v * stride + k] = cols[:, :, :, :, u, v]
    return padded[:, :, padding : padding + H, padding : padding + W]


def patient_2(grad_cols, shape, k, stride, padding):
    N, C, H, W = shape
    return col2im(grad_cols, (N, C, H + 2 * padding, W + 2 * padding), k, k, stride, 0)[:, :, :H, :W]


shape, k, padding = (200, 3, 11, 15), 3, 1
with course_style():
    fig, axes = plt.subplots(2, 3, figsize=(11, 5.2))
    numbers["patients"] = {}
    for row, patient in zip(axes, (patient_1, patient_2), strict=True):
        for ax, stride in zip(row, (1, 2, 3), strict=True):
            L = ((shape[2] + 2 * padding - k) // stride + 1) * ((shape[3] + 2 * padding - k) // stride + 1)
            grad_cols = normal(shape[0], shape[1] * k * k, L)
            right = col2im(grad_cols, shape, k, k, stride, padding)
            wrong = patient(grad_cols, shape, k, stride, padding)
            error = (wrong - right).square().mean((0, 1)).sqrt() / right.square().mean().sqrt()
            shown = ax.imshow(error.numpy(), cmap="magma", vmin=0, vmax=2)
            ax.set(title=f"{patient.__name__}, stride {stride}", xticks=[], yticks=[])
            numbers["patients"][f"{patient.__name__}, stride {stride}"] = error.mean().item()
    fig.colorbar(shown, ax=axes, label="error / typical gradient", shrink=0.8)

# %% [markdown]
# <details><summary><b>Open only after you have looked</b></summary>
#
# **Patient 1** is right exactly where a single window has seen the pixel. With stride 1 and padding 1 even a corner
# pixel has been seen by four windows, so it is wrong everywhere, a little less at the border. With stride 2 there is a
# regular pattern: right is the middle of every window. With stride 3 the windows of 3 × 3 do not overlap, and there it
# is healthy. A test with stride = size alone would have found nothing. That is why the checks also use smaller and
# larger strides.
#
# **Patient 2** has the right numbers in the wrong pixels, shifted by one. What is wrong with it never shows in its own
# `grad_F` and `grad_b`, so the *first* layer of a net learns as it should, since nobody needs its `grad_X`. In any
# later layer the wrong `grad_X` is passed on, and all layers before that one are told lies. The net trains, only worse.
#
# </details>

# %% [markdown]
# ## 1.5 What it costs
#
# Three ways to the same numbers: four nested loops, one for each index of `out`; your `im2col` and a matrix product;
# the framework's own. All on one thread, on the same images of 3 × 32 × 32 pixels, with 8 filters of $k \times k$ and
# enough padding to keep 32 × 32 places. We first make sure that they agree.
#
# **Predict first.** (a) By which factor do the loops lose against `im2col`? (b) Against the framework, by how much does
# *your* code lose? (c) A filter of 9 × 9 needs 81 times the multiplications of a filter of 1 × 1. How much longer does
# it take in each of the three?

# %% experiment="time_of_convolutions"
batch, kernels = images_train[:50] / 255, (1, 3, 5, 7, 9)  # (50, 3, 32, 32)


def conv2d_loops(X, F, b):
    """One output at a time; stride 1, and so much padding that rows and columns stay."""
    N, _, H, W = X.shape
    n_filters, _, k, _ = F.shape
    padded = functional.pad(X, (k // 2,) * 4)
    out = X.new_empty(N, n_filters, H, W)
    for n in range(N):
        for f in range(n_filters):
            for u in range(H):
                for v in range(W):
                    out[n, f, u, v] = (padded[n, :, u : u + k, v : v + k] * F[f]).sum() + b[f]
    return out


def seconds(function, at_least=0.05):
    """Processor time of one call: the fastest of some repetitions, because other programs only ever add to it."""
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < at_least:
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


milliseconds = {name: [] for name in ("four loops", "im2col, forward", "framework, forward",
                                      "im2col, forward + backward", "framework, forward + backward")}  # fmt: skip
generator = torch.Generator().manual_seed(0)
for k in kernels:
    F, b = torch.randn(8, 3, k, k, generator=generator), torch.randn(8, generator=generator)
    G = torch.randn(50, 8, 32, 32, generator=generator)
    start = time.process_time()
    by_loops = conv2d_loops(batch[:1], F, b)
    milliseconds["four loops"].append(1000 * (time.process_time() - start))
    assert torch.allclose(by_loops, conv2d_forward(batch[:1], F, b, 1, k // 2)[0], rtol=1e-3, atol=1e-4)
    assert torch.allclose(by_loops, functional.conv2d(batch[:1], F, b, padding=k // 2), rtol=1e-3, atol=1e-4)
    leaves = [t.clone().requires_grad_() for t in (batch, F, b)]

    def ours(F=F, b=b, k=k):
        return conv2d_forward(batch, F, b, 1, k // 2)

    def ours_and_back(F=F, b=b, k=k, G=G):
        return conv2d_backward(G, conv2d_forward(batch, F, b, 1, k // 2)[1])

    def theirs(F=F, b=b, k=k):
        return functional.conv2d(batch, F, b, padding=k // 2)

    def theirs_and_back(leaves=leaves, k=k, G=G):
        return torch.autograd.grad(functional.conv2d(*leaves, padding=k // 2), leaves, G)

    for name, function in zip(list(milliseconds)[1:], (ours, theirs, ours_and_back, theirs_and_back), strict=True):
        milliseconds[name].append(1000 * seconds(function) / len(batch))
numbers["time_of_convolutions"] = milliseconds
for name, values in milliseconds.items():
    print(f"{name:30} " + "  ".join(f"{k} × {k}: {v:8.3f} ms" for k, v in zip(kernels, values, strict=True)))

with course_style():
    fig, ax = plt.subplots(figsize=(8, 4.6))
    styles = ((VERMILLION, "^-"), (BLUE, "o-"), (GREEN, "s-"), (BLUE, "o--"), (GREEN, "s--"))
    for (name, values), (colour, line) in zip(milliseconds.items(), styles, strict=True):
        ax.semilogy(kernels, values, line, color=colour, label=name)
    ax.set(xlabel="k, side of the filter", ylabel="milliseconds for one image", xticks=kernels,
           title="8 filters of k × k on an image of 3 × 32 × 32")  # fmt: skip
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))

# %% [markdown]
# The loops spend their time on *talking*: each of the 8,192 outputs is a handful of calls from Python, and whether
# such a call multiplies 3 or 243 numbers hardly matters: from 1 × 1 to 9 × 9 their time stays about the same. `im2col`
# talks once. At 1 × 1 it may even beat the framework, since nothing is copied twice. At 9 × 9 it copies each pixel 81
# times, so its time grows about as fast as the multiplications, while the framework, which copies little or nothing,
# needs only several times as long as for 1 × 1. In between your code loses by a small factor, which is the price of
# the copies. It is good enough to train with, and the next sections do.

# %% [markdown]
# # 2. Smaller, larger, wider
#
# ## 2.1 Max pooling
#
# Whether a wheel is at pixel 14 or at pixel 15 does not matter. *Pooling* keeps the strongest answer of a
# neighbourhood and forgets where exactly it came from:
#
# $$
# \text{out}_{n c u v} = \max_{0 \le i, j < k} X_{n,\, c,\, s u + i,\, s v + j} .
# $$
#
# Channel by channel, without weights, and here without padding, so $H_{\text{out}} = \lfloor (H - k) / s \rfloor + 1$.
#
# Its gradient: out of the window only the winner had influence. A small change of any other pixel changes nothing. So
# the whole gradient goes to the pixel that was largest, and the others get 0. If several pixels share the maximum,
# there is a kink as in the hinge: send the gradient to **one** of them, whichever you like. (Sending it to all of them
# would make it larger than it was.)
#
# ### Exercise `max_pool2d_forward`
#
# - `stride` need not be equal to `k`. If it is smaller, windows overlap; if it is larger, pixels are skipped.
# - Windows that would stick out are left out. Values may all be negative.
#
# ### Exercise `max_pool2d_backward`
#
# Where windows overlap, one pixel may have won several of them: its gradients **add**.
#
# **By hand first.** $k = 2$, $s = 1$, and the gradient of the output is $(1, 10)$:
#
# $$
# \begin{pmatrix} 1 & 3 & 2 \\ 4 & 0 & 5 \end{pmatrix} \to (4, 5), \quad
# \begin{pmatrix} 0 & 0 & 0 \\ 1 & 0 & 10 \end{pmatrix};
# \qquad
# \begin{pmatrix} 1 & 7 & 2 \\ 4 & 0 & 5 \end{pmatrix} \to (7, 7), \quad
# \begin{pmatrix} 0 & 11 & 0 \\ 0 & 0 & 0 \end{pmatrix}.
# $$


# %% exercise="max_pool2d_forward"
def max_pool2d_forward(X, k, stride):
    """The largest value of every window of k × k pixels, channel by channel, without padding.

    X (N, C, H, W), k and stride ints  ->  out (N, C, H_out, W_out) with H_out = ⌊(H − k) / stride⌋ + 1, cache
    """
    ### BEGIN SOLUTION
    windows = X.unfold(2, k, stride).unfold(3, k, stride)  # (N, C, H_out, W_out, k, k), a view
    out, where = windows.flatten(-2).max(-1)  # where: i·k + j of one largest pixel of each window
    return out, (X, where, k, stride)
    ### END SOLUTION


# %% check="max_pool2d_forward"
check("max_pool2d_forward")


# %% exercise="max_pool2d_backward"
def max_pool2d_backward(grad_out, cache):
    """The gradient of a scalar with respect to X of max_pool2d_forward.

    grad_out (N, C, H_out, W_out), cache of max_pool2d_forward  ->  grad_X (N, C, H, W)
    """
    ### BEGIN SOLUTION
    X, where, k, stride = cache
    H_out, W_out = grad_out.shape[2:]
    grad_X = torch.zeros_like(X)
    for i in range(k):
        for j in range(k):
            rows = slice(i, i + stride * H_out, stride)
            columns = slice(j, j + stride * W_out, stride)
            grad_X[:, :, rows, columns] += grad_out * (where == i * k + j)
    return grad_X
    ### END SOLUTION


# %% check="max_pool2d_backward"
check("max_pool2d_backward")

# %% [markdown]
# ## 2.2 Back to a larger image: transposed convolution
#
# Nets that draw, and nets that give each pixel a class, have to make small maps large again. The convolution with
# stride 2 halves an image; the transpose of its matrix doubles one. That is no new operation: it is the one that
# carried the gradient back in Section 1.4. Every pixel stamps the filter, multiplied by the pixel's value; stamps are
# $s$ pixels apart, and where they overlap they add. Then $p$ rows and columns are cut off on each side (the padding of
# the convolution that this one reverses).
#
# ### Exercise `conv_transpose2d`
#
# - `F` has shape $(C_{\text{in}}, C_{\text{out}}, k_h, k_w)$: input channels first, as in the framework, because it is
#   the filter of the convolution that is transposed.
# - $H_{\text{out}} = (H - 1)\, s - 2p + k_h$, and $W_{\text{out}}$ likewise.
# - The bias is added once to every output pixel, also where no stamp has been.
#
# **By hand first.** One row $X = (1, 2)$, the filter $(1, 1, 1)$, $s = 2$, $b = 0$: the stamps are $(1, 1, 1, 0, 0)$
# and $(0, 0, 2, 2, 2)$, together $(1, 1, 3, 2, 2)$. With a filter of 3 × 3 ones the same $X$ gives three such rows, and
# $p = 1$ leaves the inner part of the middle one: $(1, 3, 2)$. A test for sizes: `im2col` of the result, with the same
# kernel, stride and padding, has $H \cdot W$ columns again.


# %% exercise="conv_transpose2d"
def conv_transpose2d(X, F, b, stride, padding):
    """Transposed convolution: every pixel stamps the filters, scaled, into a larger image.

    X (N, C_in, H, W), F (C_in, C_out, kh, kw), b (C_out,), stride and padding ints
    ->  (N, C_out, H_out, W_out) with H_out = (H − 1)·stride − 2·padding + kh and W_out likewise
    """
    ### BEGIN SOLUTION
    N, C_in, H, W = X.shape
    _, C_out, kh, kw = F.shape
    stamps = F.reshape(C_in, -1).T @ X.reshape(N, C_in, H * W)  # (N, C_out·kh·kw, H·W)
    H_out = (H - 1) * stride - 2 * padding + kh
    W_out = (W - 1) * stride - 2 * padding + kw
    return col2im(stamps, (N, C_out, H_out, W_out), kh, kw, stride, padding) + b[:, None, None]
    ### END SOLUTION


# %% check="conv_transpose2d"
check("conv_transpose2d")

# %% [markdown]
# ## 2.3 How far can a unit see?
#
# The **receptive field** of a unit is the set of pixels of the *image* that its value depends on. Count along one axis.
# One pixel of the image sees itself: size 1. Neighbours are 1 pixel apart: *jump* 1. Each layer does two things:
#
# - a kernel of $k$ taps, $d$ positions apart (the **dilation**; $d = 1$ for an ordinary one), reaches over
#   $(k - 1)\, d$ more steps of its input, each of them *jump* pixels long:
#   $\text{size} \leftarrow \text{size} + (k - 1)\, d \cdot \text{jump}$;
# - its stride $s$ moves neighbours apart, for all layers that follow: $\text{jump} \leftarrow \text{jump} \cdot s$.
#
# Pooling counts as a layer with its own kernel and stride.
#
# ### Exercise `receptive_field`
#
# The list begins with the layer next to the image. Return a Python `int`; for an empty list it is 1. Padding plays no
# part, and neither does the border of the image.
#
# **By hand first.** Two layers of 3: $1 \to 3 \to 5$. The first with stride 2: $1 \to 3 \to 3 + 2 \cdot 2 = 7$. The
# second with stride 2 instead: 5, because its stride comes too late.


# %% exercise="receptive_field"
def receptive_field(layers):
    """How many input pixels, along one axis, one output of a stack of layers can see.

    layers: a list of (kernel, stride, dilation), the layer next to the image first  ->  int
    """
    ### BEGIN SOLUTION
    size, jump = 1, 1  # jump: how many input pixels lie between neighbouring outputs
    for kernel, stride, dilation in layers:
        size += (kernel - 1) * dilation * jump
        jump *= stride
    return size
    ### END SOLUTION


# %% check="receptive_field"
check("receptive_field")

# %% [markdown]
# ### … and how far does it look?
#
# *Can* see is not *does* see. Put a single 1 at one output of a stack of layers and send it backwards: that is the
# gradient of this output with respect to every pixel. Backwards through a convolution means a transposed convolution,
# so we can use yours, and the image that comes out must have exactly the size that you have computed. There is one
# channel and no ReLU; the filters are random, 200 different draws; pooling is by the mean. The picture shows the root
# mean square of the gradient.
#
# **Predict first.** (a) A pixel in the middle of the field, one in the middle of its edge and one in its corner: by
# which factors do their influences differ in the first stack? (b) Which share of the field, by area, has 90 % of the
# influence? (c) With dilations 1, 2, 4, 8, in how many ways does the pixel in the very middle reach the output?

# %% experiment="receptive_fields"
stacks = {
    "8 layers of 3 × 3": [(3, 1, 1)] * 8,
    "three times: 3 × 3, mean of 2 × 2": [(3, 1, 1), (2, 2, 1)] * 3,
    "3 × 3, dilated 1, 2, 4, 8": [(3, 1, 1), (3, 1, 2), (3, 1, 4), (3, 1, 8)],
}
generator = torch.Generator().manual_seed(0)
draws = 200


def influence(layers):
    """Root mean square over random filters of the gradient of one output with respect to the pixels."""
    total = 0
    for _ in range(draws):
        gradient = torch.ones(1, 1, 1, 1)
        for kernel, stride, dilation in reversed(layers):
            reach = (kernel - 1) * dilation + 1
            F = torch.zeros(1, 1, reach, reach)  # taps `dilation` apart, with zeros between them
            taps = torch.randn(kernel, kernel, generator=generator) / kernel
            F[0, 0, ::dilation, ::dilation] = 1 / kernel**2 if kernel == 2 else taps
            gradient = conv_transpose2d(gradient, F, torch.zeros(1), stride, 0)
        total = total + gradient[0, 0] ** 2
    return (total / draws).sqrt()


with course_style():
    fig, axes = plt.subplots(1, 4, figsize=(15, 3.7), width_ratios=(1, 1, 1, 1.35))
    numbers["receptive_fields"] = {}
    lines = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, ":"))
    for ax, (colour, line), (name, layers) in zip(axes[:3], lines, stacks.items(), strict=True):
        field = influence(layers)
        size = len(field)
        assert size == receptive_field(layers), (size, receptive_field(layers))
        energy = field.flatten().square().sort(descending=True).values
        share = (int((energy.cumsum(0) < 0.9 * energy.sum()).sum()) + 1) / size**2
        ax.imshow((field / field.max()).numpy(), cmap="magma", vmin=0, vmax=1, extent=(-size / 2, size / 2) * 2)
        ax.set(title=f"{name}\nfield {size} × {size}", xlim=(-16, 16), ylim=(-16, 16), xlabel="pixels from the middle")
        ax.set_facecolor("#DDDDDD")
        ax.grid(False)
        profile = field.square().mean(0).sqrt()  # over the rows
        axes[3].step(np.arange(size) - (size - 1) / 2, profile / profile.max(), line, color=colour, where="mid",
                     label=f"{name}, field {size}")  # fmt: skip
        middle = field[(size - 1) // 2 : size // 2 + 1, (size - 1) // 2 : size // 2 + 1].mean().item()
        edge, corner = field[0, size // 2].item(), field[0, 0].item()
        print(f"{name:34} receptive field {size:2}: 90 % of the influence comes from {share:.0%} of its area; "
              f"middle / edge {middle / edge:.3g}, middle / corner {middle / corner:.3g}")  # fmt: skip
        numbers["receptive_fields"][name] = {"field": size, "share of the area with 90 %": share}
        numbers["receptive_fields"][name] |= {"middle / edge": middle / edge, "middle / corner": middle / corner}
    axes[0].set_ylabel("pixels from the middle")
    axes[3].set(xlabel="pixels from the middle", ylabel="influence (largest = 1)", title="averaged over the rows")
    axes[3].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=9)

# %% [markdown]
# In the first two stacks there are many ways from the middle of the field to the output and only one from its corner,
# so the influence is bell-shaped: the more layers, the more so. With eight layers the middle counts some twenty times
# as much as the middle of an edge, and hundreds of times as much as a corner: the edge of the field exists on paper.
# Pooling and stride get as wide with three layers of 3 × 3, so their field is used more evenly. They pay with
# resolution.
#
# Dilation pays with irregularity. Along one axis a tap lies at −1, 0 or 1 times 1, 2, 4 or 8, and a distance is a sum
# of four of them. 0 is such a sum in one way only, 1 in four ($1$, $2 - 1$, $4 - 2 - 1$, $8 - 4 - 2 - 1$), 2 in three,
# 3 in five. So every pixel is reached, but by one to five ways along each axis: hence the plaid, and the dark cross in
# its middle. Far pixels count nearly as much as near ones.

# %% [markdown] written="pooling_and_receptive_field" points=2
# ### Written question 2 (2 points)
#
# - (a) Explain in your own words why a stride (or a pooling layer) widens the receptive field of the layers *after* it
#   and not that of the layer itself. Use the last two examples by hand of Section 2.3.
# - (b) A 32 × 32 image is to be seen as a whole by one unit. How many layers of 3 × 3 does it take without stride? How
#   many if a pooling of 2 × 2, stride 2, follows after every second layer (count the layers of 3 × 3)? Give the
#   sequence of sizes. What does pooling cost that the other way does not?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** The receptive field of a unit depends on which inputs its own kernel touches, and the kernel touches the same
# ones whatever the stride: the stride only decides at which places there *are* outputs. So the size grows by
# $(k - 1) \cdot \text{jump}$ with the jump from *before* the layer. After it, neighbouring outputs are $s$ times as
# far apart in the image, so each further tap of a later kernel reaches $s$ times as far. In the example: stride in the
# first layer, 3 then $3 + 2 \cdot 2 = 7$; stride in the second and last layer, $3 + 2 \cdot 1 = 5$, since nothing
# comes after it.
#
# **(b)** Without stride each layer adds 2: $1 + 2n \ge 32$ for $n = 16$ (33). With pooling, sizes after each layer
# (jump in brackets): 3, 5 (1); pool: 6 (2); 10, 14 (2); pool: 16 (4); 24, 32 (4). So 6 layers of 3 × 3 and two
# poolings are enough. The price is resolution: after two poolings there are 8 × 8 places instead of 32 × 32, and where
# exactly something was is lost (which is no loss for classification and a large one for segmentation).
#
# *Marking guide.* 1 point for (a): that the kernel's own reach does not depend on its stride (half), and that the
# distance of neighbours does, and multiplies all that comes later (half). 1 point for (b): 16 and 6 with the sequence
# (half), the loss of resolution (half). A count off by one with a right sequence is right.
# <!-- ### END SOLUTION -->

# %% [markdown]
# # 3. A first ConvNet, all by hand
#
# ## 3.1 The net, forward
#
# Three layers, from KTH's course DD2424. The first is a patchify convolution, with filters as large as their stride.
# On patches it is a matrix product, so here the filters are the columns of a matrix $F$ of shape $(C f^2, n_f)$.
#
# | step | result | shape |
# |---|---|---|
# | patches of the image | `patches` | $(N, P, C f^2)$ |
# | convolution and ReLU | $\max(0,\ \text{patches}\; F + \mathbf{b})$ | $(N, P, n_f)$ |
# | flattened **patch by patch** | the $n_f$ values of patch 0, then those of patch 1, … | $(N, P n_f)$ |
# | fully connected and ReLU | $\max(0,\ \cdot\; W_1 + \mathbf{b}_1)$ | $(N, m)$ |
# | fully connected | $\cdot\; W_2 + \mathbf{b}_2$ | $(N, K)$ |
#
# The three biases are added, to every patch, unit and class.
#
# ### Exercise `patchify_net_forward`
#
# `params` is a dict with the keys `"F"`, `"b"`, `"W1"`, `"b1"`, `"W2"`, `"b2"`. Return `scores` (no softmax: that is
# part of the loss) and a cache.


# %% exercise="patchify_net_forward"
def patchify_net_forward(patches, params):
    """Scores of a net of three layers: convolution of patches, ReLU, fully connected, ReLU, fully connected.

    patches (N, P, C·f·f); params: F (C·f·f, n_f), b (n_f,), W1 (P·n_f, m), b1 (m,), W2 (m, K), b2 (K,)
    ->  scores (N, K), cache
    """
    ### BEGIN SOLUTION
    maps = torch.clamp(patches @ params["F"] + params["b"], min=0)  # (N, P, n_f)
    flat = maps.reshape(len(patches), -1)  # (N, P·n_f), patch by patch
    hidden = torch.clamp(flat @ params["W1"] + params["b1"], min=0)  # (N, m)
    scores = hidden @ params["W2"] + params["b2"]  # (N, K)
    return scores, (patches, maps, hidden, scores)
    ### END SOLUTION


# %% check="patchify_net_forward"
check("patchify_net_forward")

# %% [markdown]
# ## 3.2 … and backward
#
# The cost is the mean cross-entropy and a price on the weights, not on the biases:
#
# $$
# J = \frac1N \sum_n -\ln \operatorname{softmax}(\text{scores}_n)_{y_n}
# + \lambda \Bigl( \sum F^2 + \sum W_1^2 + \sum W_2^2 \Bigr) .
# $$
#
# You have derived everything you need. From the first assignment: the gradient of the loss with respect to the scores
# is $G = \frac1N \bigl(\operatorname{softmax}(\text{scores}) - Y\bigr)$ with the one-hot labels $Y$. From the second:
# through a layer $Z = A W + \mathbf{b}$ goes $\partial W = A^\top G$, $\partial \mathbf{b} = \sum_n G_n$,
# $\partial A = G W^\top$, and through a ReLU only what had a positive input. And from Section 1.4: in the convolution
# every patch of every image uses the same weights, so its gradient sums over images *and* patches, as if there were
# $N P$ examples.
#
# ### Exercise `patchify_net_backward`
#
# - Return a dict with the same keys and shapes as `params`.
# - The gradient of $\lambda \sum W^2$ is $2 \lambda W$.
# - Scores may be large, up to ±1000: subtract each row's maximum before the exponential.
# - `params` are those that the forward pass used; neither they nor the cache may be changed.


# %% exercise="patchify_net_backward"
def patchify_net_backward(y, params, cache, lam):
    """The gradients of mean cross-entropy plus lam times the sums of the squares of F, W1 and W2.

    y (N,) int64, params and cache as in patchify_net_forward, lam a float  ->  dict with the names and shapes of params
    """
    ### BEGIN SOLUTION
    patches, maps, hidden, scores = cache
    e = torch.exp(scores - scores.amax(1, keepdim=True))
    G = e / e.sum(1, keepdim=True)  # (N, K)
    G[torch.arange(len(y)), y] -= 1
    G /= len(y)
    grads = {"W2": hidden.T @ G + 2 * lam * params["W2"], "b2": G.sum(0)}
    G = (G @ params["W2"].T) * (hidden > 0)  # (N, m)
    flat = maps.reshape(len(y), -1)
    grads |= {"W1": flat.T @ G + 2 * lam * params["W1"], "b1": G.sum(0)}
    G = (G @ params["W1"].T).reshape(maps.shape) * (maps > 0)  # (N, P, n_f)
    G = G.reshape(-1, maps.shape[-1])  # (N·P, n_f): every patch of every image is one example
    grads |= {"F": patches.reshape(len(G), -1).T @ G + 2 * lam * params["F"], "b": G.sum(0)}
    return grads
    ### END SOLUTION


# %% check="patchify_net_backward"
check("patchify_net_backward")

# %% [markdown]
# The gradient report of the whole net, on ten random images of 8 × 12 pixels, first without and then with the
# regulariser. ReLU has a kink at 0, so an entry whose difference quotient steps over one may look wrong; the report
# looks at many entries.

# %% experiment="net_report"
patches_few, y_few = patchify(normal(10, 3, 8, 12), 4), torch.arange(10) % K  # (10, 6, 48)
params_few = {"F": normal(48, 5) / 7, "b": normal(5) / 10, "W1": normal(30, 8) / 5, "b1": normal(8) / 10,
              "W2": normal(8, K) / 3, "b2": normal(K) / 10}  # fmt: skip


def net_cost(lam):
    def cost(**params):
        scores, _ = patchify_net_forward(patches_few, params)
        squares = sum((params[name] ** 2).sum() for name in ("F", "W1", "W2"))
        return functional.cross_entropy(scores, y_few) + lam * squares

    return cost


_, cache_few = patchify_net_forward(patches_few, params_few)
net_reports = {
    lam: check_gradients(net_cost(lam), params_few, patchify_net_backward(y_few, params_few, cache_few, lam),
                         sizes={"N": 10, "K": K}, lam=lam)
    for lam in (0.0, 0.1)
}  # fmt: skip
numbers["net_report"] = {f"λ = {lam}": bool(report.passed) for lam, report in net_reports.items()}
print({f"λ = {lam}": "passed" if report.passed else "not passed" for lam, report in net_reports.items()})
net_reports[0.1]

# %% [markdown]
# ## 3.3 Two tools for training
#
# **Label smoothing.** Cross-entropy is never content: even an image that is classified with $p_y = 0.99$ asks for
# larger scores. Smoothed labels set a goal that can be reached. With probability $1 - \varepsilon$ the label is what
# it says, otherwise it is any of the $K$ classes, **the true one included**, all equally likely.
#
# ### Exercise `smooth_labels`
#
# $(1 - \varepsilon)\, Y + \varepsilon / K$, with the one-hot matrix $Y$; shape $(N, K)$, `float32`, on the device of
# `y`. So the entry of the true class is $1 - \varepsilon + \varepsilon / K$ and every other one $\varepsilon / K$, and
# each row sums to one. $0 \le \varepsilon \le 1$.
#
# **By hand first.** $y = 2$, $K = 4$, $\varepsilon = 0.1$: $(0.025, 0.025, 0.925, 0.025)$.


# %% exercise="smooth_labels"
def smooth_labels(y, K, epsilon):
    """One-hot labels mixed with the uniform distribution.

    y (N,) int64, K an int, epsilon a float  ->  (N, K) float32, each row with sum 1
    """
    ### BEGIN SOLUTION
    targets = torch.full((len(y), K), epsilon / K, device=y.device)
    targets[torch.arange(len(y)), y] += 1 - epsilon
    return targets
    ### END SOLUTION


# %% check="smooth_labels"
check("smooth_labels")

# %% [markdown]
# **Cycles that double.** In the second assignment the learning rate went up and down in triangles. Late in training a
# longer cycle is worth more than a second short one, so here each cycle is twice as long as the one before:
#
# ```
# update      0        2·n_1              6·n_1                              14·n_1
# cycle       |   first  |      second      |              third               |
# ```
#
# ### Exercise `cyclical_lr_doubling`
#
# The learning rate of update $t = 0, 1, 2, \dots$ as a Python float: `lr_min` at the beginning of each cycle, `lr_max`
# in its middle, straight lines between. The first cycle is $2 n_1$ updates long, the next ones $4 n_1$, $8 n_1$ and so
# on, without end.
#
# **By hand first.** $n_1 = 2$, from 0 to 1: the first cycle is $0, ½, 1, ½$, the second
# $0, ¼, ½, ¾, 1, ¾, ½, ¼$, and at $t = 12$ the third begins with $0, ⅛, \dots$


# %% exercise="cyclical_lr_doubling"
def cyclical_lr_doubling(t, n_1, lr_min, lr_max):
    """The learning rate of update t in triangular cycles that are 2·n_1, 4·n_1, 8·n_1, … updates long.

    t an int from 0 on, n_1 an int, lr_min and lr_max floats  ->  Python float
    """
    ### BEGIN SOLUTION
    half = n_1  # of the cycle that t lies in
    while t >= 2 * half:
        t -= 2 * half
        half *= 2
    height = 1 - abs(t / half - 1)  # 0 at the start, 1 in the middle
    return lr_min + height * (lr_max - lr_min)
    ### END SOLUTION


# %% check="cyclical_lr_doubling"
check("cyclical_lr_doubling")

# %% [markdown]
# ## 3.4 How large should a patch be?
#
# Now the net learns, with nothing but your functions. Four nets, each with another patch size $f$, and with so many
# filters $n_f$ that the flattened vector keeps about the same length (768, 640, 640, 640). So $W_1$ and $W_2$ are
# nearly the same in all four, with 50 hidden units. Each pixel is standardised with the training images' numbers,
# $\lambda = 0.003$, batches of 100, two cycles up to $\eta = 0.1$.
#
# **Predict first.** (a) Which patch size wins, 2, 4, 8 or 16? (b) Which has the most weights in the convolution?
# (c) A patch of 16 × 16 is a quarter of the image. What do you expect its filters to look like?
#
# This takes about a minute with CIFAR-10, and five seconds with the small set.


# %% experiment="patchify_nets"
def mean_and_std(images):
    """Mean and standard deviation of every pixel in [0, 1], a few thousand images at a time.  -> (3, 32, 32) each"""
    total, squares = torch.zeros(3, 32, 32, dtype=torch.float64), torch.zeros(3, 32, 32, dtype=torch.float64)
    for part in images.split(2500):
        part = part.double() / 255
        total += part.sum(0)
        squares += (part**2).sum(0)
    mean = total / len(images)
    return mean.float(), (squares / len(images) - mean**2).sqrt().float()


pixel_mean, pixel_std = mean_and_std(images_train)


def standardised_patches(images, f):
    return patchify((images / 255 - pixel_mean) / pixel_std, f)


def initial_params(f, n_f, m, generator):
    """Weights after He (standard deviation √(2 / number of inputs)), biases 0."""
    P, inputs = (32 // f) ** 2, 3 * f * f
    params = {}
    for weight, bias, rows, columns in (("F", "b", inputs, n_f), ("W1", "b1", P * n_f, m), ("W2", "b2", m, K)):
        params[weight] = math.sqrt(2 / rows) * torch.randn(rows, columns, generator=generator)
        params[bias] = torch.zeros(columns)
    return params


def accuracy_by_hand(images, y, f, params):
    """The fraction of images that the net classifies correctly."""
    right = 0
    for part, labels in zip(images.split(500), y.split(500), strict=True):
        scores, _ = patchify_net_forward(standardised_patches(part, f), params)
        right += (scores.argmax(1) == labels).sum().item()
    return right / len(images)


def train_by_hand(f, n_f, m=50, *, lam=0.003, n_1, cycles, every, seed=0):
    """Train with cycles that double in length.  -> params, updates at which it was measured, validation accuracies"""
    generator = torch.Generator().manual_seed(seed)
    params = initial_params(f, n_f, m, generator)
    updates = 2 * n_1 * (2**cycles - 1)
    when, measured, t = [], [], 0
    while t < updates:
        for batch in torch.randperm(len(images_train), generator=generator).split(100):
            if t % every == 0:
                when.append(t)
                measured.append(accuracy_by_hand(images_validation[:1000], y_validation[:1000], f, params))
            _, cache = patchify_net_forward(standardised_patches(images_train[batch], f), params)
            grads = patchify_net_backward(y_train[batch], params, cache, lam)
            lr = cyclical_lr_doubling(t, n_1, 1e-5, 0.1)
            params = {name: value - lr * grads[name] for name, value in params.items()}
            t += 1
            if t == updates:
                break
    when.append(t)
    measured.append(accuracy_by_hand(images_validation[:1000], y_validation[:1000], f, params))
    return params, when, measured


n_1 = 800 if full else 50
by_hand, numbers["patchify_nets"] = {}, {}
print(" f  n_f  weights of F  of all layers  test accuracy")
for f, n_f in ((2, 3), (4, 10), (8, 40), (16, 160)):
    params, when, measured = train_by_hand(f, n_f, n_1=n_1, cycles=2, every=n_1 // 2)
    by_hand[f] = params, when, measured
    weights = sum(params[name].numel() for name in ("F", "W1", "W2"))
    reached = accuracy_by_hand(images_test, y_test, f, params)
    print(f"{f:2}  {n_f:3}  {params['F'].numel():12,}  {weights:13,}  {reached:13.1%}")
    numbers["patchify_nets"][f"f = {f}, n_f = {n_f}"] = {"weights": weights, "test accuracy": reached}

with course_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4))
    for (f, (_, when, measured)), colour, line in zip(
        by_hand.items(), (ORANGE, BLUE, GREEN, PURPLE), ("^:", "o-", "s--", "d-."), strict=True
    ):
        left.plot(when, 100 * np.array(measured), line, color=colour, markersize=4, label=f"patches of {f} × {f}")
    updates = by_hand[4][1][-1]
    right.plot([cyclical_lr_doubling(t, n_1, 1e-5, 0.1) for t in range(updates)], color=BLACK)
    left.set(xlabel="update", ylabel="validation accuracy (%)", title="Four patch sizes")
    right.set(xlabel="update", ylabel="learning rate η", title="Two cycles, the second twice as long")
    left.legend()

# %% [markdown]
# And what has the first layer learnt? The filters for $f = 8$ and the 40 longest for $f = 16$: each column of $F$ laid
# out as a patch again, sorted by length. Grey is 0.

# %% experiment="patch_filters"
for f in (8, 16):
    F = by_hand[f][0]["F"]  # (3·f·f, n_f)
    strongest = F.norm(dim=0).argsort(descending=True)[:40]
    plot_filters(
        F.T[strongest].reshape(-1, 3, f, f), columns=20, title=f"Filters for patches of {f} × {f}, the longest"
    )
    plt.show()

# %% [markdown]
# Too small a patch sees nothing but a colour and a slope, and three filters cannot say much about it. Too large a
# patch sees a lot, but there are few of them, and each filter has to be right about the position again, as the linear
# classifier had to. (For *digits in scenes* that is no drawback: a digit fills the image and stands in its middle, and
# the largest patch may win.) The convolution of $f = 16$ has by far the most weights, the other layers are alike. Look
# at the filters: on CIFAR-10 blobs of colour and stripes in several directions for 8 × 8, blurred blobs half as large
# as the patch for 16 × 16. Nobody has told the net about Sobel. With the small set and its few updates most of them are
# still the noise that they began with.

# %% [markdown]
# # 4. The framework
#
# ## 4.1 The same net, by the framework
#
# You have written a convolution, its gradient, and a net around it. From now on others do it for you. An `nn.Module`
# holds **parameters** (tensors that are learnt), **buffers** (tensors that are only kept, such as running means) and
# **other modules**, and finds them all when you assign them to attributes in `__init__`. It is called like a
# function, and autograd walks backwards through whatever `forward` has done.
#
# Trust, but check. The net of Section 3 is `Conv2d` with kernel and stride $f$, ReLU, `Flatten`, `Linear`, ReLU,
# `Linear`. We copy your parameters into it and compare all gradients, in `float64`. **Predict first:** `Flatten` lays
# the maps out channel by channel, your net patch by patch. Which parameter must have its rows reordered?

# %% experiment="the_same_net"
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
threads = int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1))
torch.set_num_threads(threads)  # larger layers, where a second thread pays
where = torch.cuda.get_device_name() if device.type == "cuda" else f"the processor, {threads} thread(s)"
print(f"From here on the nets run on {where}.")


def patchify_sequential(f, n_f, m):
    P = (32 // f) ** 2
    return nn.Sequential(
        nn.Conv2d(3, n_f, f, stride=f), nn.ReLU(), nn.Flatten(),
        nn.Linear(P * n_f, m), nn.ReLU(), nn.Linear(m, K),
    )  # fmt: skip


f, n_f, m = 4, 10, 50
params = {name: value.double() for name, value in by_hand[f][0].items()}
same = patchify_sequential(f, n_f, m).double()


def framework_layout(p):
    """The parameters of the hand-written net in the shapes and orders of the framework's."""
    W1 = p["W1"].reshape(-1, n_f, m).permute(2, 1, 0).reshape(m, -1)  # patch by patch -> channel by channel
    return p["F"].T.reshape(n_f, 3, f, f), p["b"], W1, p["b1"], p["W2"].T, p["b2"]


with torch.no_grad():
    for parameter, value in zip(same.parameters(), framework_layout(params), strict=True):
        parameter.copy_(value)
few = (images_train[:100].double() / 255 - pixel_mean.double()) / pixel_std.double()
functional.cross_entropy(same(few), y_train[:100]).backward()
_, cache = patchify_net_forward(patchify(few, f), params)
ours = framework_layout(patchify_net_backward(y_train[:100], params, cache, 0.0))
numbers["the_same_net"] = {"device": where}
for (name, parameter), gradient in zip(same.named_parameters(), ours, strict=True):
    difference = ((parameter.grad - gradient).norm() / gradient.norm()).item()
    print(f"gradient of {name:10} {tuple(parameter.shape)!s:16} relative difference {difference:.1e}")
    numbers["the_same_net"][name] = difference

# %% [markdown]
# What is left is rounding. It was $W_1$ whose rows had to be reordered: each of them belongs to one number of the
# flattened maps.
#
# ## 4.2 A larger one, with smoothed labels
#
# Then let us use the speed: 40 filters, 300 hidden units, three cycles of which each is twice as long as the last, once
# with one-hot and once with smoothed labels ($\varepsilon = 0.1$). `functional.cross_entropy` takes a matrix of
# probabilities in place of the class indices.
#
# **Predict first.** What does smoothing change more: the accuracy, or how sure the net is of what it says? And how
# small can the training loss become with $\varepsilon = 0.1$ and $K = 10$?
#
# This takes about three minutes with CIFAR-10 on one processor core.


# %% experiment="larger_net"
class Standardise(nn.Module):
    """First layer of a net: takes uint8 images, or floats in [0, 1], and standardises them."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images):
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return (images - self.mean) / self.std


def scores_of(net, images, batch_size=500):
    """Scores of all images, in evaluation mode, without a graph.  -> (N, K) on the CPU"""
    net.eval()
    with torch.no_grad():
        return torch.cat([net(part.to(device)).cpu() for part in images.split(batch_size)])


def train_with_cycles(net, epsilon, *, lam, n_1, cycles, seed=0):
    """Train with smoothed labels and doubling cycles; accuracies at the end of each cycle and in its middle."""
    generator = torch.Generator().manual_seed(seed)
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD([{"params": weights, "weight_decay": 2 * lam}, {"params": biases}], lr=0.1)
    ends = [2 * n_1 * (2**c - 1) for c in range(1, cycles + 1)]
    look = {*ends, *((a + b) // 2 for a, b in zip([0, *ends], ends, strict=False))}
    history, t = {"training": ([], []), "validation": ([], [])}, 0
    while t < ends[-1]:
        net.train()
        for batch in torch.randperm(len(images_train), generator=generator).split(100):
            for group in optimizer.param_groups:
                group["lr"] = cyclical_lr_doubling(t, n_1, 1e-5, 0.1)
            targets = smooth_labels(y_train[batch], K, epsilon).to(device)
            loss = functional.cross_entropy(net(images_train[batch].to(device)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            t += 1
            if t in look:
                for split, images, y in (("training", images_train, y_train), ("validation", *data.validation)):
                    n = 5000 if full else 500
                    right = (scores_of(net, images[:n]).argmax(1) == y[:n]).double().mean().item()
                    history[split][0].append(t)
                    history[split][1].append(right)
                net.train()
            if t == ends[-1]:
                break
    return history


numbers["larger_net"], histories, p_true = {}, {}, {}
for epsilon in (0.0, 0.1):
    torch.manual_seed(0)
    larger = nn.Sequential(Standardise(pixel_mean, pixel_std), patchify_sequential(4, 40, 300)).to(device)
    histories[epsilon] = train_with_cycles(larger, epsilon, lam=0.0025, n_1=800 if full else 20, cycles=3)
    scores = scores_of(larger, images_test)
    p = torch.softmax(scores, 1)
    right = scores.argmax(1) == y_test
    p_true[epsilon] = p.amax(1), right
    reached, sure = right.double().mean().item(), p.amax(1).mean().item()
    print(f"ε = {epsilon}: test accuracy {reached:.1%}, mean probability of the answers {sure:.1%}")
    numbers["larger_net"][f"ε = {epsilon}"] = {"test accuracy": reached, "mean confidence": sure}

with course_style():
    fig, (left, right_ax) = plt.subplots(1, 2, figsize=(12, 4.2))
    for (epsilon, history), marker in zip(histories.items(), ("o", "s"), strict=True):
        for split, (when, values) in history.items():
            style = SPLIT_STYLES[split] | ({"alpha": 0.45} if epsilon == 0 else {})
            left.plot(when, 100 * np.array(values), marker=marker, label=f"ε = {epsilon}, {split}", **style)
    left.set(xlabel="update", ylabel="accuracy (%)", title="In the middle and at the end of each cycle")
    left.legend()
    edges = np.linspace(0.1, 1, 10)
    for epsilon, colour, marker in ((0.0, VERMILLION, "o"), (0.1, BLUE, "s")):
        p, correct = p_true[epsilon]
        bin_of = np.digitize(p.numpy(), edges) - 1
        points = [(p[bin_of == i].mean(), correct[bin_of == i].double().mean())
                  for i in range(9) if (bin_of == i).sum() >= 20]  # fmt: skip
        right_ax.plot(*(100 * np.array(points).T), marker=marker, color=colour, label=f"ε = {epsilon}")
    right_ax.plot([0, 100], [0, 100], ":", color=BLACK, label="as sure as right")
    right_ax.set(xlabel="probability of the answer (%)", ylabel="answers that are right (%)",
                 title="Can it be believed? (test images)", xlim=(10, 100), ylim=(10, 100))  # fmt: skip
    right_ax.legend()

# %% [markdown]
# Left: in the middle of a cycle η is largest and the weights are shaken most, so the accuracy is low there and high at
# the end of each cycle. The points of the right-hand figure are answers of about the same probability. On the dotted
# line a net is right as often as it says. Below the line it is too sure of itself, above it is modest. Cross-entropy
# with one-hot labels wants certainty; smoothed labels never reward a probability above 0.91, and the smallest loss that
# they allow is their own entropy, $-0.91 \ln 0.91 - 9 \cdot 0.01 \ln 0.01 = 0.50$. The accuracy changes little, the
# certainty a lot. (With the small set and its few updates both nets are far from certain yet, and lie above the line.)

# %% [markdown]
# ## 4.3 A block
#
# Most ConvNets are the same few layers over and over, so one writes them once, as a module.
#
# ### Exercise `ConvBlock`
#
# Convolution 3 × 3 with padding 1 and stride 1 from `c_in` to `c_out` channels, then `nn.BatchNorm2d`, then ReLU. The
# number of rows and columns stays the same.
#
# - The convolution may have a bias or not. (Batch normalisation subtracts the mean of every channel, and the bias
#   with it. So it is usually left out.)
# - Names of attributes are yours. Every layer must be an attribute (or inside an `nn.Sequential` or `nn.ModuleList`
#   that is one), or the optimiser will not find its parameters: a Python list hides them.
# - Begin with `super().__init__()`.
# - Batch normalisation of images is per **channel**: mean and variance over $N$, $H$ and $W$. That is what
#   `BatchNorm2d` does.


# %% exercise="ConvBlock"
class ConvBlock(nn.Module):
    """Convolution 3 × 3 with padding 1, batch normalisation, ReLU.

    (N, c_in, H, W)  ->  (N, c_out, H, W)
    """

    def __init__(self, c_in, c_out):
        ### BEGIN SOLUTION
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)  # the bias is in the normalisation
        self.norm = nn.BatchNorm2d(c_out)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return torch.relu(self.norm(self.conv(x)))
        ### END SOLUTION


# %% check="ConvBlock"
check("ConvBlock")

# %% [markdown]
# ## 4.4 A block with a shortcut
#
# Each layer has to pass on everything that later layers need. A layer at its random start passes on a scrambled
# version, and thirty of them scramble thoroughly. A *residual block* passes on its input as it is, and learns only what
# to **add**:
#
# $$
# \text{out} = \operatorname{ReLU}\bigl(\, r(x) + \text{shortcut}(x)\, \bigr), \qquad
# r = \text{conv}_{3 \times 3, s} \to \text{BN} \to \text{ReLU} \to \text{conv}_{3 \times 3} \to \text{BN}.
# $$
#
# Backwards, the gradient has a way past the block on which it is multiplied with nothing but the 0 or 1 of the last
# ReLU (K. He and others, 2016). Section 4.8 shows what that is worth.
#
# ### Exercise `ResidualBlock`
#
# - The first convolution has the given `stride`, from `c_in` to `c_out`; the second one stride 1, from `c_out` to
#   `c_out`. Both are 3 × 3 with padding 1, with or without bias.
# - There is **no** ReLU between the last batch normalisation and the sum. It comes after the sum.
# - Where the shape stays (`c_in == c_out` and `stride == 1`) the shortcut is the identity, without any parameter. Else
#   it is a convolution 1 × 1 with the `stride` and without padding, followed by a batch normalisation.


# %% exercise="ResidualBlock"
class ResidualBlock(nn.Module):
    """Two convolutions 3 × 3 with batch normalisation, beside a shortcut; ReLU after their sum.

    (N, c_in, H, W)  ->  (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)
    """

    def __init__(self, c_in, c_out, stride):
        ### BEGIN SOLUTION
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut = nn.Identity()
        if c_in != c_out or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return torch.relu(self.residual(x) + self.shortcut(x))
        ### END SOLUTION


# %% check="ResidualBlock"
check("ResidualBlock")

# %% [markdown]
# ## 4.5 A net
#
# ### Exercise `ConvNet`
#
# Now design one, with at least one convolution whose filters are larger than 1 × 1. Only this is binding besides:
#
# - It takes $(N, 3, 32, 32)$ and returns $(N, \texttt{n\_classes})$ scores, without softmax, also for $N = 1$.
# - In evaluation mode the scores of an image do not depend on the other images of the batch.
# - Every layer that is used is registered. (One that is registered and never used counts, and learns nothing.)
# - At most 300,000 parameters in all, for ten classes.
#
# What has proved itself: at first few channels and many pixels, later many channels and few pixels, twice as many
# channels whenever rows and columns are halved. At the end the mean over all places that are left (*global average
# pooling*), so that one `nn.Linear` from the channels to the classes is enough, instead of a giant one. Use your two
# blocks. Count before you train: a convolution has $c_{\text{out}} (c_{\text{in}} k^2 + 1)$ parameters.
#
# On a processor time is what hurts, and the cost of a layer is its parameters times its *places*. A first layer with
# stride 2 leaves a quarter of the places to all others. The reference takes 5 × 5 with stride 2 there, then three
# residual blocks of 32, 64 and 120 channels (128 would be too many). It needs about a minute for an epoch of CIFAR-10
# on one core.


# %% exercise="ConvNet"
class ConvNet(nn.Module):
    """A ConvNet for images of 32 × 32 pixels, with at most 300,000 parameters.

    (N, 3, 32, 32)  ->  (N, n_classes) scores
    """

    def __init__(self, n_classes):
        ### BEGIN SOLUTION
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2, bias=False),  # 16 × 16 from here on: a quarter of the places
            nn.BatchNorm2d(32),
            nn.ReLU(),
            ResidualBlock(32, 32, 1),
            ResidualBlock(32, 64, 2),  # 8 × 8
            ResidualBlock(64, 120, 2),  # 4 × 4
        )
        self.classifier = nn.Linear(120, n_classes)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return self.classifier(self.features(x).mean((2, 3)))
        ### END SOLUTION


# %% check="ConvNet"
check("ConvNet")

# %% [markdown] written="parameters_and_multiplications" points=2
# ### Written question 3 (2 points)
#
# - (a) Count, for an image of 32 × 32, the parameters and the multiplications of `ConvBlock(32, 64)` (with biases, and
#   without its batch normalisation), and of a *fully connected* layer between the same two sets of numbers. Give the
#   formulas first.
# - (b) The same for a 3 × 3 convolution with padding 1 at 8 × 8 from 128 to 256 channels. Compare the two convolutions:
#   their parameters, and their multiplications (products with zeros of the padding count). What follows for where to
#   save when a net is too slow, and when it is too large?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** Convolution: $c_{\text{out}} c_{\text{in}} k^2$ weights (plus $c_{\text{out}}$ biases if there are any), each
# of them used once at each of the $H_{\text{out}} W_{\text{out}}$ places. $64 \cdot 32 \cdot 9 = 18{,}432$ parameters
# (18,496 with biases) and $18{,}432 \cdot 1024 = 18{,}874{,}368$, about 19 million multiplications. Fully connected:
# one weight for every pair, $(32 \cdot 1024) \cdot (64 \cdot 1024) = 2{,}147{,}483{,}648$ parameters (plus 65,536
# biases) and as many multiplications: 116,508 times the parameters, $H W H W / 9$, and 114 times the multiplications,
# $H W / 9$.
#
# **(b)** $256 \cdot 128 \cdot 9 = 294{,}912$ parameters (295,168 with biases), 16 times as many;
# $294{,}912 \cdot 64 = 18{,}874{,}368$ multiplications, exactly as many as before: channels twice as many twice (times
# 16), places 16 times fewer. So parameters are in the last layers, and the time is spread over all of them, or rather
# sits in the first ones, where in addition the maps are large and have to be moved through memory. Too large: fewer
# channels at the end, or no large fully connected layer. Too slow: fewer pixels early (stride, pooling), fewer
# channels there.
#
# *Marking guide.* 1 point: (a), the two numbers of the convolution (half) and those of the fully connected layer
# (half); with or without biases. 1 point: (b), numbers (half) and a conclusion that tells parameters from
# multiplications (half). Multiplications at the border that meet the padding may be counted or not.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## 4.6 Three tools
#
# **Augmentation.** A horse that stands four pixels further to the left is still a horse, and so is its mirror image. So
# each time an image is used, it is shifted and perhaps flipped, with new draws.
#
# ### Exercise `augment`
#
# - Put 4 pixels of zeros around each image (40 × 40), and cut out 32 × 32 pixels. The top left corner of the cut is at
#   one of $0, 1, \dots, 8$ in each direction, all nine equally likely (4, 4 gives the image back).
# - Flip left to right with probability ½.
# - **Each image has its own** two offsets and its own coin. Flipping before or after the cut makes no difference to
#   what can come out, so the order is free, and so is the order of the draws.
# - Any number of channels, any dtype, which is kept: `uint8` images come out as `uint8`. The pixels are moved and not
#   computed with.
# - All chance comes from `generator`; the given images are not changed. On a GPU the images are there, while the
#   generator draws on the processor: `.to(images.device)` takes its numbers over.


# %% exercise="augment"
def augment(images, generator):
    """Shift each image by up to 4 pixels and mirror it half of the time.

    images (N, C, 32, 32) of any dtype, generator a torch.Generator  ->  (N, C, 32, 32), same dtype
    """
    ### BEGIN SOLUTION
    N, C, H, W = images.shape
    padded = images.new_zeros(N, C, H + 8, W + 8)
    padded[:, :, 4:-4, 4:-4] = images
    top, left = torch.randint(0, 9, (2, N, 1), generator=generator, device=generator.device).to(images.device)
    flip = torch.randint(0, 2, (N, 1), generator=generator, device=generator.device).bool().to(images.device)
    along = torch.arange(W, device=images.device)
    rows = top + torch.arange(H, device=images.device)  # (N, H) which row of the padded image comes where
    columns = left + torch.where(flip, along.flip(0), along)  # (N, W)
    n = torch.arange(N, device=images.device)[:, None, None]
    cropped = padded[n, :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C): the channels come last here
    return cropped.permute(0, 3, 1, 2)
    ### END SOLUTION


# %% check="augment"
check("augment")

# %% [markdown]
# **One pass over the images.**
#
# ### Exercise `train_epoch`
#
# Each image is used exactly **once**, in a random order from `generator`, in batches of `batch_size`; the last batch
# may be short. For every batch:
#
# 1. if there is a `transform`, `batch = transform(batch, generator)`: it returns the new batch. Images only, not
#    labels;
# 2. scores, then the **mean** cross-entropy over the batch (`functional.cross_entropy`);
# 3. the gradients of the batch before away, backward, one step of the `optimizer`.
#
# Moreover:
#
# - During the pass the model is in training mode (`model.train()`); afterwards it is in the mode in which it came.
#   The flag is `model.training`.
# - Return the mean loss over all **images**, as a Python float: every image counts the same, also those of a short last
#   batch, each with the loss it had when its batch was used. (The mean of the batches' means would not do that.)
# - Use `.item()` to take a number out of the graph. If you sum the loss tensors themselves, every graph stays in
#   memory.
# - The model, and `transform` before it, get the images in the dtype in which they come: what makes floats of `uint8`
#   is a layer of the model.
# - Images, labels and model are on the same device; the generator may be on the processor.


# %% exercise="train_epoch"
def train_epoch(model, images, labels, optimizer, *, batch_size, generator, transform=None):
    """Train for one pass over the images.

    model an nn.Module, images (N, C, H, W), labels (N,) int64, optimizer a torch.optim.Optimizer of the model's
    parameters, batch_size an int, generator a torch.Generator, transform(batch, generator) -> batch
    ->  mean cross-entropy over all images, a Python float
    """
    ### BEGIN SOLUTION
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    total = 0.0
    try:
        order = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
        for indices in order.split(batch_size):
            batch = images[indices]
            if transform is not None:
                batch = transform(batch, generator)
            loss = functional.cross_entropy(model(batch), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(indices)  # the last batch may be short
    finally:
        for module, training in modes:
            module.training = training
    return total / len(images)
    ### END SOLUTION


# %% check="train_epoch"
check("train_epoch")

# %% [markdown]
# **How good is it?**
#
# ### Exercise `evaluate`
#
# The fraction of images whose largest score is that of their class, as a Python float, computed in batches so that
# memory suffices.
#
# - In evaluation mode (`model.eval()`): batch normalisation takes its running means, dropout does nothing. Afterwards
#   the model is in the mode in which it came.
# - Without a graph (`torch.no_grad()` as a `with` block, which puts the grad mode back by itself).
# - Nothing of the model changes: no parameter, no gradient, no running mean.
# - The last batch may be short, and every image counts the same.


# %% exercise="evaluate"
def evaluate(model, images, labels, *, batch_size):
    """The fraction of images whose largest score is that of their class.

    model an nn.Module, images (N, C, H, W), labels (N,) int64, batch_size an int  ->  Python float in [0, 1]
    """
    ### BEGIN SOLUTION
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    right = 0
    try:
        with torch.no_grad():
            for batch, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
                right += (model(batch).argmax(1) == y).sum().item()
    finally:
        for module, training in modes:
            module.training = training
    return right / len(images)
    ### END SOLUTION


# %% check="evaluate"
check("evaluate")

# %% [markdown]
# ## 4.7 Train it
#
# Stochastic gradient descent with Nesterov's momentum 0.9, weight decay 0.0005, batches of 100, augmentation, and a
# single cycle of the learning rate over the whole training: up to 0.1 and down to 0.0001. (*Nesterov* means that the
# step is taken with the momentum as it will be after this gradient. The small set gets batches of 25, so that its few
# images make enough steps, and lower rates.) `train_epoch` knows nothing of the learning rate, so the optimiser gets a
# *hook*, a function that it calls before each of its steps.
#
# First the small question, on a small part of the images: once as they are, once augmented.
#
# **Predict first.** (a) Which of the two has the lower training loss? (b) Which the higher validation accuracy? (c) On
# *digits in scenes* one part of the augmentation does harm. Which one, and to which digits?


# %% experiment="augmentation"
channel_mean, channel_std = pixel_mean.mean((1, 2)), (pixel_std**2 + pixel_mean**2).mean((1, 2)).sqrt()
channel_std = (channel_std**2 - channel_mean**2).sqrt()  # over all pixels of a channel
channel_mean, channel_std = channel_mean[:, None, None], channel_std[:, None, None]


def follow(optimizer, lr_at):
    """From now on `optimizer` makes its step number t = 0, 1, 2, … with the learning rate lr_at(t)."""
    step = iter(range(10**9))

    def set_lr(optimizer, args, kwargs):
        lr = lr_at(next(step))
        for group in optimizer.param_groups:
            group["lr"] = lr

    optimizer.register_step_pre_hook(set_lr)


batch_of, lr_top = (100, 0.1) if full else (25, 0.02)  # few images: smaller batches, so that there are enough steps


def fit(
    net, images, y, *, epochs, batch_size=batch_of, transform=None, lr_max=lr_top, seed=0, measure=None, quiet=True
):
    """Train with one cycle of the learning rate.  -> {"loss": per epoch, name of each measure: per epoch}"""
    images, y = images.to(device), y.to(device)
    net.to(memory_format=torch.channels_last)  # changes where its numbers lie, not what they are; faster
    optimizer = torch.optim.SGD(net.parameters(), lr=lr_max, momentum=0.9, nesterov=True, weight_decay=5e-4)
    half = math.ceil(epochs * math.ceil(len(images) / batch_size) / 2)
    follow(optimizer, lambda t: cyclical_lr_doubling(t, half, 1e-4, lr_max))
    generator = torch.Generator().manual_seed(seed)
    history = {"loss": []} | {name: [] for name in measure or {}}
    for epoch in range(epochs):
        history["loss"].append(
            train_epoch(net, images, y, optimizer, batch_size=batch_size, generator=generator, transform=transform)
        )
        for name, (images_measured, y_measured) in (measure or {}).items():
            reached = evaluate(net, images_measured.to(device), y_measured.to(device), batch_size=500)
            history[name].append(reached)
        if not quiet:
            print(f"epoch {epoch + 1:2}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in history.items()))
    return history


n, n_held, epochs = (4000, 1000, 12) if full else (200, 100, 10)
few_train, few_labels = images_train[:n], y_train[:n]
few_splits = {"training": (few_train[:n_held], few_labels[:n_held]),
              "validation": (images_validation[:n_held], y_validation[:n_held])}  # fmt: skip
runs, numbers["augmentation"] = {}, {}
for name, transform in (("as they are", None), ("augmented", augment)):
    torch.manual_seed(0)
    net = nn.Sequential(Standardise(channel_mean, channel_std), ConvNet(K)).to(device)
    runs[name] = fit(net, few_train, few_labels, epochs=epochs, transform=transform, measure=few_splits)
    last = {key: values[-1] for key, values in runs[name].items()}
    print(f"{n:,} images, {name:11}: training loss {last['loss']:.3f}, accuracy on these images (not augmented) "
          f"{last['training']:.1%}, on validation images {last['validation']:.1%}")  # fmt: skip
    numbers["augmentation"][name] = last
with course_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4))
    for (name, run), colour, marker in zip(runs.items(), (BLUE, ORANGE), "os", strict=True):
        steps = range(1, epochs + 1)
        left.plot(steps, run["loss"], marker=marker, color=colour, label=name)
        for split, line in (("training", "-"), ("validation", "--")):
            values = 100 * np.array(run[split])
            right.plot(steps, values, line, marker=marker, color=colour, label=f"{name}, {split} images")
    left.set(xlabel="epoch", ylabel="training loss (nats)", title=f"ConvNet on {n:,} images")
    right.set(xlabel="epoch", ylabel="accuracy (%)", title="None of these images is augmented")
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend()

# %% [markdown]
# The training loss of the augmented run is *higher*: it never sees the same image twice, so there is nothing to learn
# by heart. The gap between training and validation closes. Whether the validation accuracy gains depends on the number
# of epochs: a net that has not even learnt the images themselves has no use for variations of them. (With the small set
# and its few updates the augmented net has hardly begun: what closes the gap there is that it has learnt little yet.
# Give it more epochs.)
#
# **Now all images.** This is the longest cell of the notebook: about eight minutes on a processor with CIFAR-10, twenty
# seconds with the small set, which has a ninth of the images, sees them three times, and is not augmented (a mirrored 2
# is no 2). Later sections look into the net that comes out.

# %% experiment="conv_net"
torch.manual_seed(0)
conv_net = nn.Sequential(Standardise(channel_mean, channel_std), ConvNet(K)).to(device)
parameters = sum(p.numel() for p in conv_net.parameters())
start = time.perf_counter()
history = fit(
    conv_net, images_train, y_train, epochs=10 if full else 3, transform=augment if full else None, quiet=False,
    measure={"training": (images_train[: 1000 if full else 500], y_train[: 1000 if full else 500]),
             "validation": data.validation},
)  # fmt: skip
minutes = (time.perf_counter() - start) / 60
reached = evaluate(conv_net, images_test.to(device), y_test.to(device), batch_size=500)
print(f"{parameters:,} parameters, {minutes:.1f} minutes on {where}: test accuracy {reached:.1%}")
numbers["conv_net"] = {"parameters": parameters, "minutes": minutes, "test accuracy": reached}
plot_curves(
    {"loss": {"training": history["loss"]}, "accuracy": {s: history[s] for s in ("training", "validation")}},
    units={"loss": "nats"},
    title=f"ConvNet {'with' if full else 'without'} augmentation: {reached:.1%} of the test images",
)

# %% [markdown]
# ## 4.8 Deeper
#
# More layers can compute more. So a deeper net should fit its **training** images at least as well: if it had nothing
# to add, the further layers could pass on what they get. We compare chains of `ConvBlock`s with chains of
# `ResidualBlock`s that have the same number of convolutions 3 × 3, all with 16 channels on maps of 8 × 8.
#
# **Predict first.** (a) In which order do the three depths end, in *training* loss, for each of the two? (b) The second
# figure shows, **before** training, the length of the gradient of the first layer. Does it grow or shrink with depth?
# (c) Two images that hardly differ, one being the other with a little noise: how alike are the gradients of their
# losses with respect to the images? The third figure shows the cosine between them, 1 where they point the same way.

# %% experiment="depth"
depths, n, epochs = ((4, 16, 48), 10_000, 3) if full else ((4, 12, 36), 100, 20)


class MeanOverPlaces(nn.Module):
    def forward(self, maps):
        return maps.mean((2, 3))


def tower(kind, depth, width=16):
    """A first layer to maps of 8 × 8, `depth` convolutions 3 × 3, and a last layer."""
    if kind == "plain":
        blocks = [ConvBlock(width, width) for _ in range(depth)]
    else:
        blocks = [ResidualBlock(width, width, 1) for _ in range(depth // 2)]
    first = nn.Conv2d(3, width, 4, stride=4)
    return nn.Sequential(Standardise(channel_mean, channel_std), first, *blocks, MeanOverPlaces(), nn.Linear(width, K))


losses, numbers["depth"] = {}, {}
for kind in ("plain", "residual"):
    for depth in depths:
        torch.manual_seed(0)
        net = tower(kind, depth).to(device)
        losses[kind, depth] = fit(net, images_train[:n], y_train[:n], epochs=epochs)["loss"]
        numbers["depth"][f"{kind}, {depth}"] = losses[kind, depth][-1]


def image_gradients(net, images, y):
    """The gradient of each image's loss with respect to its pixels, in training mode.  -> (N, d)"""
    images = images.clone().requires_grad_()
    loss = functional.cross_entropy(net(images), y, reduction="sum")
    return torch.autograd.grad(loss, images)[0].flatten(1)


few, few_y = (images_train[:100] / 255).to(device), y_train[:100].to(device)
noise = torch.randn(few.shape, generator=torch.Generator().manual_seed(0)).to(device)
gradient_lengths, cosines = {}, {}
for kind in ("plain", "residual"):
    for depth in (2, 4, 8, 16, 32, 64):
        torch.manual_seed(0)
        net = tower(kind, depth).to(device)
        functional.cross_entropy(net(few), few_y).backward()
        gradient_lengths[kind, depth] = net[1].weight.grad.norm().item()
        pair = (image_gradients(net, pictures[:50], few_y[:50]) for pictures in (few, few + 0.05 * noise))
        cosines[kind, depth] = functional.cosine_similarity(*pair).mean().item()
        numbers["depth"][f"cosine of gradients, {kind}, {depth}"] = cosines[kind, depth]
numbers["depth"]["gradient at depth 64 / at depth 2, plain"] = (
    gradient_lengths["plain", 64] / gradient_lengths["plain", 2]
)

with course_style():
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.6), width_ratios=(1.2, 1, 1))
    for kind, line in (("plain", "--"), ("residual", "-")):
        for depth, colour, marker in zip(depths, (ORANGE, BLUE, BLACK), "os^", strict=True):
            values = losses[kind, depth]
            left.plot(range(1, epochs + 1), values, line, marker=marker, color=colour, label=f"{kind}, {depth} layers")
            print(f"{kind:8} {depth:2} layers: training loss {values[-1]:.3f}")
        xs = [depth for k, depth in gradient_lengths if k == kind]
        colour = VERMILLION if kind == "plain" else GREEN
        middle.loglog(xs, [gradient_lengths[kind, d] for d in xs], line, marker="o", label=kind, color=colour)
        right.semilogx(xs, [cosines[kind, d] for d in xs], line, marker="o", label=kind, color=colour)
        print(f"{kind:8} gradient of the first layer: " +
              "  ".join(f"{d}: {gradient_lengths[kind, d]:.3g}" for d in xs) +
              "; cosine: " + "  ".join(f"{d}: {cosines[kind, d]:.2f}" for d in xs))  # fmt: skip
    left.set(xlabel="epoch", ylabel="training loss (nats)", title=f"Training loss, {n:,} images")
    middle.set(ylabel="length of the gradient", title="First layer's gradient, before training")
    right.set(ylabel="cosine", title="Gradients of an image and its noisy copy", ylim=(-0.05, 1))
    for ax in (middle, right):
        ax.set(xlabel="convolutions 3 × 3", xticks=xs, xticklabels=xs)
        ax.minorticks_off()
        ax.legend()
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, handlelength=3.5)

# %% [markdown]
# Of the plain nets the deepest is the worst *on the images it is trained on*. That is not overfitting: it cannot find
# what it could compute. With shortcuts depth does no harm, and often the deepest is the best. And the reason is not the
# one that most people name. The gradient of the plain net does not vanish: batch normalisation keeps the activations at
# one size, and from some ten layers on, going *backwards* makes the gradient larger with every layer (the first few may
# shrink it). It does not fade, it explodes. And it means little any more: the third figure shows that in the deep plain
# net the gradients of two nearly equal images have nothing in common. A step that is right for one image is then a
# random step for its neighbour. With shortcuts more of the likeness is left. (D. Balduzzi and others, 2017, call these
# *shattered gradients*.)

# %% [markdown]
# # 5. Looking inside
#
# ## 5.1 What does it confuse?
#
# ### Exercise `confusion_matrix`
#
# Count: entry $(i, j)$ is the number of examples of class $i$ that were taken for class $j$. Rows are **true** classes,
# columns predicted ones. The shape is $(K, K)$ also where a class does not occur, and the dtype `int64`.
#
# **By hand first.** True $(0, 0, 2)$, predicted $(0, 1, 0)$, $K = 3$: the rows are $(1, 1, 0)$, $(0, 0, 0)$,
# $(1, 0, 0)$.


# %% exercise="confusion_matrix"
def confusion_matrix(y_true, y_pred, K):
    """How often each class was taken for each class.

    y_true (N,) int64, y_pred (N,) int64, K an int  ->  (K, K) int64, rows are true classes, columns predicted ones
    """
    ### BEGIN SOLUTION
    return torch.bincount(y_true * K + y_pred, minlength=K * K).reshape(K, K)
    ### END SOLUTION


# %% check="confusion_matrix"
check("confusion_matrix")

# %% experiment="confusion"
scores_validation = scores_of(conv_net, images_validation)
counts = confusion_matrix(y_validation, scores_validation.argmax(1), K)
wrong = counts - torch.diag(counts.diagonal())
i, j = divmod(int(wrong.argmax()), K)
print(f"most frequent mistake: {data.classes[i]} taken for {data.classes[j]} ({wrong[i, j]} times)")
numbers["confusion"] = {"most frequent mistake": f"{data.classes[i]} taken for {data.classes[j]}"}
right = counts.diagonal().sum().item() / counts.sum().item()
plot_confusion_matrix(counts, data.classes, title=f"ConvNet, validation images ({right:.1%} right)")

# %% [markdown]
# Read the matrix along a row: where do the images of one class end up? Is the mistake mutual, or does one class swallow
# the other? With CIFAR-10 cats and dogs are confused most, animals hardly ever with vehicles.
#
# The next cell shows the twenty mistakes that it was surest of, without names. **Predict first:** name all of them
# before you run the cell below it. How many do *you* get right?

# %% experiment="worst_mistakes"
p = torch.softmax(scores_validation, 1)
sure, answer = p.max(1)
worst = torch.where(answer != y_validation, sure, -1.0).argsort(descending=True)[:20]
plot_images(images_validation[worst], captions=[str(i + 1) for i in range(len(worst))], title="What do you see?")

# %% experiment="worst_mistakes_named"
plot_images(
    images_validation[worst],
    captions=[f"{data.classes[y_validation[i]]}\n→ {data.classes[answer[i]]} {sure[i]:.0%}" for i in worst],
    title="Wrong, and sure of it: true class → answer",
)

# %% [markdown]
# Are there any whose label you would dispute? Some labels of such sets are wrong, and some pictures are cut so that
# nobody could tell. The rest is what the net has still to learn.
#
# ## 5.2 The first layer
#
# The filters of the first convolution, whatever your net calls it: the first `nn.Conv2d` that is among its modules.
# Look for edges between two brightnesses (grey filters), and for blobs of one colour beside its opposite. The two
# counts say how many filters hardly look at colour, and how many at hardly anything else. With CIFAR-10 a net finds
# both kinds, as our own eyes do; with the small set and its short training most are still the noise that they began
# with.

# %% experiment="first_layer"
first_conv = next(module for module in conv_net.modules() if isinstance(module, nn.Conv2d))
filters = first_conv.weight.detach().cpu()  # (F, 3, kh, kw)
strongest = filters.flatten(1).norm(dim=1).argsort(descending=True)
grey_part = filters.mean(1, keepdim=True).expand_as(filters)  # what does not care about colour
share = (grey_part.square().sum((1, 2, 3)) / filters.square().sum((1, 2, 3)).clamp(min=1e-12))[strongest]
grey_only, colour_only = int((share > 0.75).sum()), int((share < 0.25).sum())
print(f"{len(filters)} filters: {grey_only} hardly care about colour, {colour_only} hardly about anything else")
numbers["first_layer"] = {"filters": len(filters), "grey": grey_only, "colour": colour_only}
plot_filters(filters[strongest], columns=16, title="Filters of the ConvNet's first layer, the longest first")

# %% [markdown]
# ## 5.3 What does it look at?
#
# Which pixels decide? Ask the derivative: by how much does the score of class $y$ change if a pixel does? The
# **saliency** of a pixel is the largest magnitude over its channels of
# $\partial\, \text{score}_y / \partial\, \text{pixel}$ (K. Simonyan and others, 2013).
#
# ### Exercise `saliency_map`
#
# - $(N, H, W)$, one map for every image, for *its* class in `y`. The derivative of the **score**, not of the softmax
#   nor of the loss. Absolute value first, then the maximum over the channels.
# - One backward pass is enough for all images: the sum of their scores has, with respect to image $n$, the derivative
#   of score $n$, because in evaluation mode no image influences another one's score.
# - The model comes in evaluation mode. Afterwards everything is as it was: the parameters' `.grad` (which may hold
#   something or be `None`) and `requires_grad`, the buffers, and the caller's images. `torch.autograd.grad(score, x)`
#   returns a gradient without writing it anywhere; `backward()` would add to the `.grad` of all parameters.
# - The result carries no graph: `requires_grad` is `False`.


# %% exercise="saliency_map"
def saliency_map(model, images, y):
    """How strongly each pixel moves the score of class y: the largest magnitude over the channels of its derivative.

    model an nn.Module in eval mode, images (N, C, H, W), y (N,) int64  ->  (N, H, W)
    """
    ### BEGIN SOLUTION
    x = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        picked = model(x).gather(1, y[:, None]).sum()  # no image's score depends on another image
        (grad,) = torch.autograd.grad(picked, x)  # leaves the parameters' .grad alone
    return grad.abs().amax(1)
    ### END SOLUTION


# %% check="saliency_map"
check("saliency_map")

# %% [markdown]
# Does the map mean anything? A test: take the most salient fifth of the pixels of every image, put in the place of each
# the mean of the 7 × 7 pixels around it, and see what is left of the accuracy. Then the same with a fifth chosen at
# random, and with the *least* salient one.
#
# **Predict first.** (a) Order the three accuracies. How much does a random fifth do? (b) Why not simply paint these
# pixels grey?

# %% experiment="saliency"
conv_net.eval()
chosen = torch.nonzero(answer == y_validation)[:8, 0]
shown = images_validation[chosen] / 255
maps = saliency_map(conv_net, shown.to(device), y_validation[chosen].to(device)).cpu()

probe, probe_y = images_validation[: 1000 if full else 400] / 255, y_validation[: 1000 if full else 400]
saliency = torch.cat([saliency_map(conv_net, a.to(device), b.to(device)).cpu()
                      for a, b in zip(probe.split(250), probe_y.split(250), strict=True)])  # fmt: skip
random_map = torch.rand(saliency.shape, generator=torch.Generator().manual_seed(0))
around = functional.avg_pool2d(probe, 7, stride=1, padding=3, count_include_pad=False)
numbers["saliency"] = {"nothing": evaluate(conv_net, probe.to(device), probe_y.to(device), batch_size=500)}
for name, order in (("the least salient", -saliency), ("random", random_map), ("the most salient", saliency)):
    flat = order.flatten(1)
    hidden = (flat >= flat.quantile(0.8, dim=1, keepdim=True)).reshape(-1, 1, 32, 32)
    masked = torch.where(hidden, around, probe)
    numbers["saliency"][name] = evaluate(conv_net, masked.to(device), probe_y.to(device), batch_size=500)
for name, reached in numbers["saliency"].items():
    what = "nothing blurred" if name == "nothing" else f"{name} fifth of the pixels blurred"
    print(f"{what:45}: accuracy {reached:.1%}")

with course_style():
    fig, axes = plt.subplots(2, 8, figsize=(13, 3.7))
    for column, (image, saliency_of_one, i) in enumerate(zip(shown, maps, chosen, strict=True)):
        axes[0, column].imshow(image.permute(1, 2, 0).numpy())
        axes[0, column].set_title(data.classes[y_validation[i]])
        axes[1, column].imshow((saliency_of_one / saliency_of_one.max()).numpy(), cmap="inferno")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("saliency")
    fig.suptitle("Which pixels move the score of the true class (each map scaled on its own)")

# %% [markdown]
# (a) If a map means anything, blurring the most salient fifth hurts most and blurring the least salient one nearly
# nothing. A random fifth does little too: what is lost of one pixel, its neighbours still tell. (b) Scattered pixels of
# one flat colour are edges that no training image had, and these alone can cost more than what they hide. Whoever
# removes something to see whether it mattered has to ask what was put in its place. And the maps are speckled: the
# derivative tells where a small change would matter, and not where the object is.
#
# ## 5.4 Pictures made to fool it
#
# The same derivative can be put to another use. Move *every* pixel a tiny step into the direction in which the loss
# grows. In 3,072 dimensions, 3,072 tiny steps that all agree add up: the loss grows by about
# $\varepsilon \sum_i |\partial \mathcal L / \partial x_i|$ (I. Goodfellow and others, 2014: the *fast gradient sign
# method*).
#
# $$
# x' = \operatorname{clip}_{[0, 1]} \bigl( x + \varepsilon\, \operatorname{sign} \nabla_{x} \mathcal L(x, y) \bigr)
# $$
#
# ### Exercise `fgsm`
#
# - $\mathcal L$ is the **cross-entropy** of class $y$: the right class goes down *and* the others come up. The step is
#   **up** the loss.
# - Every pixel moves by $\varepsilon$ exactly (or not at all where the gradient is exactly 0), and is clipped to
#   $[0, 1]$ afterwards.
# - Everything is left as it was, as in `saliency_map`, and the result carries no graph.
# - Whether you take the mean or the sum of the loss over the images makes no difference to the sign.


# %% exercise="fgsm"
def fgsm(model, images, y, epsilon):
    """Move every pixel by epsilon into the direction in which the cross-entropy of class y grows; clip to [0, 1].

    model an nn.Module in eval mode, images (N, C, H, W) in [0, 1], y (N,) int64, epsilon a float  ->  (N, C, H, W)
    """
    ### BEGIN SOLUTION
    x = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = functional.cross_entropy(model(x), y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, x)
    return (x.detach() + epsilon * grad.sign()).clamp(0, 1)
    ### END SOLUTION


# %% check="fgsm"
check("fgsm")

# %% [markdown]
# **Predict first.** (a) $\varepsilon = 2/255$ changes no pixel by more than two of its 255 levels. How much of the
# accuracy is left? (b) And if every pixel is moved by as much in a *random* direction? (c) Pictures made to fool this
# net are shown to another one, the patchify net of Section 4.2, which has never been asked. What happens to it?

# %% experiment="adversarial"
n = 1000 if full else 200
clean, clean_y = images_test[:n] / 255, y_test[:n]
steps = [0, 1, 2, 3, 4, 6, 8, 12, 16]
curves = {
    "gradient's sign, ConvNet": [],
    "random sign, ConvNet": [],
    "made for the ConvNet, shown to the patchify net": [],
}
coin = torch.Generator().manual_seed(0)
random_sign = torch.randint(0, 2, clean.shape, generator=coin) * 2.0 - 1
larger.eval()
for step in steps:
    epsilon = step / 255
    fooled = torch.cat([fgsm(conv_net, a.to(device), b.to(device), epsilon).cpu()
                        for a, b in zip(clean.split(250), clean_y.split(250), strict=True)])  # fmt: skip
    noisy = (clean + epsilon * random_sign).clamp(0, 1)
    for name, net, pictures in zip(curves, (conv_net, conv_net, larger), (fooled, noisy, fooled), strict=True):
        curves[name].append(evaluate(net, pictures.to(device), clean_y.to(device), batch_size=500))
numbers["adversarial"] = {name: dict(zip(map(str, steps), values, strict=True)) for name, values in curves.items()}
print("ε · 255:" + " " * 42 + "  ".join(f"{s:5}" for s in steps))
for name, values in curves.items():
    print(f"{name:48}  " + "  ".join(f"{v:5.1%}" for v in values))

with course_style():
    fig, ax = plt.subplots(figsize=(8, 4.2))
    for (name, values), colour, line in zip(
        curves.items(), (VERMILLION, BLUE, ORANGE), ("o-", "s--", "^-."), strict=True
    ):
        ax.plot(steps, 100 * np.array(values), line, color=colour, label=name)
    ax.axhline(100 / K, color=BLACK, linestyle=":", label="guessing")
    ax.set(xlabel="ε · 255 (levels by which each pixel is moved)", ylabel="accuracy (%)", title="How little it takes",
           ylim=(0, 100), xticks=steps)  # fmt: skip
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))

# %% [markdown]
# (a) A step that no eye can see takes most of the accuracy. (b) Random signs of the same size do nearly nothing.
# (c) The other net loses too, though it was never asked, but more slowly. Below the dotted line a net is worse than
# guessing: the step is made *against* the right class.
#
# Now three images, those that the net is surest about after the step, and what it says about each: as it is, with the
# adversarial step, and with a random step of the same size. In the second picture, which shows what is added, white is
# $+\varepsilon$ in all three channels, black $-\varepsilon$, and a colour a mixture of both.

# %% experiment="adversarial_pictures"
epsilon = 4 / 255
right_ones = torch.nonzero(torch.softmax(scores_of(conv_net, clean), 1).max(1).indices == clean_y)[:60, 0]
pictures, labels_of = clean[right_ones], clean_y[right_ones]
fooled = fgsm(conv_net, pictures.to(device), labels_of.to(device), epsilon).cpu()
after = torch.softmax(scores_of(conv_net, fooled), 1)
was_fooled = torch.nonzero(after.argmax(1) != labels_of)[:, 0]
picked = was_fooled if len(was_fooled) else torch.arange(len(fooled))
picked = picked[after[picked].amax(1).argsort(descending=True)][:3]
with course_style():
    fig, axes = plt.subplots(len(picked), 4, figsize=(9.5, 2.6 * len(picked)), squeeze=False)
    for row, i in zip(axes, picked, strict=True):
        noisy = (pictures[i] + epsilon * random_sign[right_ones[i]]).clamp(0, 1)
        columns = (("as it is", pictures[i]), ("adversarial, ε = 4/255", fooled[i]), ("random, ε = 4/255", noisy))
        for ax, (name, picture) in zip(row[[0, 2, 3]], columns, strict=True):
            p = torch.softmax(scores_of(conv_net, picture[None]), 1)[0]
            ax.imshow(picture.permute(1, 2, 0).numpy())
            ax.set_title(f"{name}\n{data.classes[p.argmax()]}, {p.max():.0%}", fontsize=10)
        row[1].imshow((0.5 + (fooled[i] - pictures[i]) / epsilon / 2).clamp(0, 1).permute(1, 2, 0).numpy())
        row[1].set_title("what is added\n(scaled up)", fontsize=10)
        for ax in row:
            ax.set(xticks=[], yticks=[])

# %% [markdown] written="adversarial_picture" points=3
# ### Written question 4 (3 points)
#
# Answer from *your* figures: name the numbers you rely on.
#
# - (a) Why does a step of $\varepsilon$ along the sign of the gradient do so much more than a random step of the same
#   size? Estimate both changes of a linear score $s = \mathbf{w} \cdot \mathbf{x}$ with $d = 3072$ weights of typical
#   size $w$, as a stand-in for the loss.
# - (b) What do the adversarial pictures say about what the net has learnt, and what do they *not* say? Use the saliency
#   maps, the picture of what is added (is there anything of the other class to be seen in it?), and the curve of the
#   other net.
# - (c) Somebody proposes to defend the net by adding random noise to the training images. Somebody else proposes to add
#   pictures from `fgsm`, made anew in every epoch. Which of the two do you expect to help, and against what?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** Along the sign of the gradient:
# $\mathbf{w} \cdot \varepsilon \operatorname{sign}(\mathbf{w}) = \varepsilon \sum_i |w_i| \approx \varepsilon\, d\, w$,
# since all $d$ contributions have one sign. Random signs: a sum of $d$ terms $\pm \varepsilon w_i$, with mean 0 and
# standard deviation $\varepsilon \sqrt{d}\, w$. The ratio is about $\sqrt{d} = 55$. So the random step would need an
# $\varepsilon$ some fifty times larger for the same effect; in the figure the random curve is as good as flat up to
# 16/255, while the other has fallen below half at 2 to 4/255.
#
# **(b)** They say that the decision hangs on many faint patterns that agree with the class *on average* in the
# training images, and that we do not see or do not use. The score is locally close to linear, with a large slope in
# directions in which natural images hardly vary; nothing in the training ever asked for small slopes there. What is
# added looks like noise and not like the other class: no concept has been moved, a great many small contributions
# have. They do not say that the net has learnt nothing (the accuracy on natural and on randomly disturbed images is
# what it is), nor that the saliency maps are wrong: these are the same derivative, and tell where a small change would
# matter, not why. The other net loses accuracy too, more slowly: part of the direction is a property of the data and
# of what nets of this kind pick up from it, and not of this net's weights.
#
# **(c)** Random noise helps against random noise. It hardly covers the one direction (out of 3,072) in which the loss
# grows fastest: the net is trained for the average disturbance, and not for the worst. Pictures from `fgsm` are near
# the worst ones for the present weights, so training with them (adversarial training) does make such a step less
# harmful. It costs accuracy on clean images and twice the time, and it protects against steps of that size and kind;
# stronger attacks with several steps find others.
#
# *Marking guide.* One point for each part. (a): $\varepsilon d w$ against $\varepsilon \sqrt{d} w$ (half), and the link
# with the curves, with numbers (half). (b): one sound statement about what is learnt (half) and one about what does not
# follow, from a figure (half). (c): the choice with a reason. A student on digits in scenes is marked by what
# that set shows.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## 5.5 What remains when the classes change
#
# A net that tells eight classes apart has never seen the other two. Are its features worth anything for *them*? We
# train a ConvNet on eight classes and freeze it. What enters its last layer are the **features** of an image. With a
# few labelled images of the two new classes we then learn a new last layer only, a linear classifier on the features.
# For comparison: the same linear classifier on the features of a net with **random** weights (only its running means
# have seen images: it was run with a vanishing learning rate), on raw pixels, and a whole ConvNet trained from scratch
# on the few images.
#
# **Predict first.** (a) With 5 labelled images of each new class, in which order do the four come? (b) Is there a
# number of labels, up to 200 a class, at which training from scratch catches up? (c) How good are features of a net
# that has learnt nothing at all?


# %% experiment="transfer"
def features_of(net, images):
    """What enters the last layer with weights, whatever the net calls it.  -> (N, d) on the CPU"""
    seen = []
    layers = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach())) for layer in layers]
    rows = []
    try:
        net.eval()
        with torch.no_grad():
            for part in images.split(500):
                seen.clear()
                net(part.to(device))
                rows.append(seen[-1].flatten(1).cpu())  # the last layer to be reached
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(rows)


def learn_last_layer(X, y, steps=300):
    """A linear classifier on standardised features, with a little weight decay.  -> function from features to labels"""
    mean, std = X.mean(0), X.std(0, unbiased=False).clamp(min=1e-3)
    layer = nn.Linear(X.shape[1], 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(layer((X - mean) / std), y).backward()
        optimizer.step()
    return lambda features: layer((features - mean) / std).argmax(1)


new = (4, 7)  # deer and horse, or the digits 4 and 7
is_new = (y_train == new[0]) | (y_train == new[1])
old_labels = torch.cumsum(torch.tensor([k not in new for k in range(K)]), 0) - 1  # the eight others, numbered anew
torch.manual_seed(0)
eight = nn.Sequential(Standardise(channel_mean, channel_std), ConvNet(K - 2)).to(device)
n, epochs = (20_000, 4) if full else (3000, 3)
transform = augment if full else None
fit(eight, images_train[~is_new][:n], old_labels[y_train[~is_new]][:n], epochs=epochs, transform=transform)
torch.manual_seed(1)
untrained = nn.Sequential(Standardise(channel_mean, channel_std), ConvNet(K - 2)).to(device)
fit(
    untrained, images_train[~is_new][:500], old_labels[y_train[~is_new]][:500], epochs=1, lr_max=1e-4
)  # so small a learning rate that only the running means move

held = (y_test == new[0]) | (y_test == new[1])
X_new, labels_new = images_train[is_new], (y_train[is_new] == new[1]).long()
X_held, labels_held = images_test[held], (y_test[held] == new[1]).long()
kinds = {
    "features learnt on eight classes": lambda images: features_of(eight, images),
    "features of random weights": lambda images: features_of(untrained, images),
    "raw pixels": lambda images: (images / 255 - pixel_mean).flatten(1),
}
held_features = {name: kind(X_held) for name, kind in kinds.items()}
label_counts = (5, 10, 25, 50, 100, 200) if full else (5, 15, 50)
repeats = 5 if full else 3
results = {name: [] for name in (*kinds, "from scratch")}
for n in label_counts:
    measured = {name: [] for name in results}
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(repeat)
        chosen = torch.cat([torch.nonzero(labels_new == k)[:, 0][torch.randperm(int((labels_new == k).sum()),
                            generator=generator)[:n]] for k in (0, 1)])  # fmt: skip
        for name, kind in kinds.items():
            classify = learn_last_layer(kind(X_new[chosen]), labels_new[chosen])
            right = (classify(held_features[name]) == labels_held).double().mean().item()
            measured[name].append(right)
        if repeat < 3 and (full or repeat == 0):
            torch.manual_seed(repeat)
            scratch = nn.Sequential(Standardise(channel_mean, channel_std), ConvNet(2)).to(device)
            fit(scratch, X_new[chosen], labels_new[chosen], epochs=20 if full else 12, batch_size=25,
                transform=transform, lr_max=0.05, seed=repeat)  # fmt: skip
            right = evaluate(scratch, X_held.to(device), labels_held.to(device), batch_size=500)
            measured["from scratch"].append(right)
    for name, values in measured.items():
        results[name].append((np.mean(values), np.std(values)))
numbers["transfer"] = {name: {str(n): float(mean) for n, (mean, _) in zip(label_counts, values, strict=True)}
                       for name, values in results.items()}  # fmt: skip
print("labels of each class:            " + "  ".join(f"{n:5}" for n in label_counts))
for name, values in results.items():
    print(f"{name:33}" + "  ".join(f"{mean:5.1%}" for mean, _ in values))

with course_style():
    fig, ax = plt.subplots(figsize=(8.5, 4.4))
    for (name, values), colour, line in zip(
        results.items(), (GREEN, ORANGE, PURPLE, VERMILLION), ("o-", "s--", "d-.", "^:"), strict=True
    ):
        mean, spread = 100 * np.array(values).T
        ax.errorbar(label_counts, mean, spread, fmt=line, color=colour, capsize=3, label=name)
    ax.set(xscale="log", xlabel="labelled images of each new class", ylabel="test accuracy, two classes (%)",
           title=f"{data.classes[new[0]]} or {data.classes[new[1]]}?")  # fmt: skip
    ax.set_xticks(label_counts, label_counts)
    ax.minorticks_off()
    ax.axhline(50, color=BLACK, linestyle=":", label="guessing")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))

# %% [markdown]
# What the net has learnt about eight classes is not about these eight only: edges, textures and parts serve the other
# two as well. That is why hardly anybody trains from scratch where labels are few. (b) From scratch the net needs
# hundreds of labels, if that is enough, to come near the learnt features. (c) Hold the random features against the raw
# pixels: a random filter keeps some of what is in the image, but it has sorted nothing, so there is no reason why they
# should do much better. Error bars are the standard deviation over different choices of the labelled images, for "from
# scratch" over at most three of them (over one with the small set, so there it has no bar). With five labels the choice
# of the images alone moves the accuracy by several per cent.

# %% [markdown]
# # 6. Bonus
#
# The exercises of this section bring points on top.
#
# ## 6.1 A filter with holes
#
# Dilation pulls the taps of a filter $d$ pixels apart: the same number of weights sees $d$ times as far.
#
# $$
# \text{out}_{n f u v} = b_f + \sum_{c, i, j} F_{f c i j}\; X_{n,\, c,\, u + d i,\, v + d j}
# $$
#
# ### Exercise `dilated_conv2d` (bonus)
#
# By hand, with the same things allowed as in Sections 1 to 3. Stride 1, no padding, so
# $H_{\text{out}} = H - d\,(k_h - 1)$. With $d = 1$ it is an ordinary convolution.
#
# **By hand first.** One row $X = (1, 2, 3, 4)$, $F = (1, -1)$, $d = 2$, $b = 0$: $(1 - 3,\ 2 - 4) = (-2, -2)$.


# %% exercise="dilated_conv2d"
def dilated_conv2d(X, F, b, dilation):
    """Cross-correlation with filters whose taps lie `dilation` pixels apart; stride 1, no padding.

    X (N, C, H, W), F (n_f, C, kh, kw), b (n_f,), dilation an int
    ->  (N, n_f, H − dilation·(kh − 1), W − dilation·(kw − 1))
    """
    ### BEGIN SOLUTION
    kh, kw = F.shape[2:]
    H_out = X.shape[2] - dilation * (kh - 1)
    W_out = X.shape[3] - dilation * (kw - 1)
    out = b[:, None, None]
    for i in range(kh):
        for j in range(kw):
            seen = X[:, :, i * dilation : i * dilation + H_out, j * dilation : j * dilation + W_out]
            out = out + torch.einsum("nchw,fc->nfhw", seen, F[:, :, i, j])
    return out
    ### END SOLUTION


# %% check="dilated_conv2d"
check("dilated_conv2d")

# %% [markdown]
# ## 6.2 Side by side
#
# Which size of filter is right for the next layer? GoogLeNet (C. Szegedy and others, 2014) does not choose.
#
# ### Exercise `InceptionBlock` (bonus)
#
# Four branches see the same input, all with stride 1 and so much padding that rows and columns stay:
#
# | branch | layers | channels |
# |---|---|---|
# | 1 | convolution 1 × 1 | `c_1` |
# | 2 | convolution 3 × 3, padding 1 | `c_3` |
# | 3 | convolution 5 × 5, padding 2 | `c_5` |
# | 4 | max pooling 3 × 3, stride 1, padding 1, then convolution 1 × 1 | `c_pool` |
#
# Each branch ends with a ReLU (a batch normalisation before it is allowed). The result has the branches' channels one
# after the other, in this order: $c_1 + c_3 + c_5 + c_{pool}$ of them.


# %% exercise="InceptionBlock"
class InceptionBlock(nn.Module):
    """Four branches side by side: 1 × 1, 3 × 3, 5 × 5, and 3 × 3 max pooling followed by 1 × 1; ReLU after each.

    (N, c_in, H, W)  ->  (N, c_1 + c_3 + c_5 + c_pool, H, W), the branches' channels in this order
    """

    def __init__(self, c_in, c_1, c_3, c_5, c_pool):
        ### BEGIN SOLUTION
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Conv2d(c_in, c_1, 1),
                nn.Conv2d(c_in, c_3, 3, padding=1),
                nn.Conv2d(c_in, c_5, 5, padding=2),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(c_in, c_pool, 1)),
            ]
        )
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return torch.relu(torch.cat([branch(x) for branch in self.branches], dim=1))
        ### END SOLUTION


# %% check="InceptionBlock"
check("InceptionBlock")

# %% [markdown]
# ## 6.3 Taken apart
#
# A 3 × 3 convolution mixes places and channels at once. Do one after the other: first each channel is filtered on its
# own (*depthwise*), then channels are mixed at each place on its own (*pointwise*). MobileNets (A. Howard and others,
# 2017) are made of it.
#
# ### Exercise `SeparableConvBlock` (bonus)
#
# Depthwise: 3 × 3, padding 1, one filter for each of the `c_in` channels (`nn.Conv2d` with `groups=c_in`). Pointwise:
# 1 × 1 from `c_in` to `c_out`. Then batch normalisation and ReLU, **once**, at the end. Biases as you like.


# %% exercise="SeparableConvBlock"
class SeparableConvBlock(nn.Module):
    """A 3 × 3 filter for each channel on its own, then 1 × 1 across channels, batch normalisation, ReLU.

    (N, c_in, H, W)  ->  (N, c_out, H, W)
    """

    def __init__(self, c_in, c_out):
        ### BEGIN SOLUTION
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return torch.relu(self.norm(self.pointwise(self.depthwise(x))))
        ### END SOLUTION


# %% check="SeparableConvBlock"
check("SeparableConvBlock")

# %% [markdown]
# What do the four blocks cost? From 64 to 64 channels, on maps of 16 × 16. **Predict first:** the separable block has
# an eighth of the parameters. Is it eight times as fast?

# %% experiment="blocks_compared"
blocks = {
    "ConvBlock": ConvBlock(64, 64),
    "ResidualBlock": ResidualBlock(64, 64, 1),
    "InceptionBlock": InceptionBlock(64, 16, 24, 8, 16),
    "SeparableConvBlock": SeparableConvBlock(64, 64),
}
maps = torch.randn(50, 64, 16, 16, generator=torch.Generator().manual_seed(0))


def multiplications(block, x):
    """Multiplications of all convolutions for one image."""
    total = 0

    def count(layer, inputs, out):
        nonlocal total
        total += layer.weight.numel() * out.shape[2] * out.shape[3]

    hooks = [m.register_forward_hook(count) for m in block.modules() if isinstance(m, nn.Conv2d)]
    block(x[:2])
    for hook in hooks:
        hook.remove()
    return total


table = {}
for name, block in blocks.items():
    weights = sum(p.numel() for p in block.parameters())
    ms = 1000 * seconds(lambda block=block: block(maps).sum().backward(), at_least=0.2) / len(maps)
    table[name] = weights, multiplications(block, maps), ms
    print(f"{name:20} {weights:7,} parameters, {table[name][1]:11,} multiplications, {ms:.3f} ms for one image")
numbers["blocks_compared"] = {name: dict(zip(("parameters", "multiplications", "ms"), row, strict=True))
                              for name, row in table.items()}  # fmt: skip
with course_style():
    fig, axes = plt.subplots(1, 3, figsize=(12, 2.9), sharey=True)
    units = ("parameters", "multiplications for one image", "ms for one image, forward + backward")
    for ax, column, unit in zip(axes, range(3), units, strict=True):
        values = [row[column] / table["ConvBlock"][column] for row in table.values()]
        bars = ax.barh(list(table), values, color=[BLUE, GREEN, ORANGE, PURPLE], height=0.6)
        ax.bar_label(bars, fmt="%.2f", padding=3)
        ax.set(xlabel="ConvBlock = 1", title=unit, xlim=(0, 1.25 * max(values)))
        ax.invert_yaxis()

# %% [markdown]
# Multiplications are not time. A depthwise filter does very little with each number that it fetches, so it waits for
# memory most of the time. And the inception block has fewer multiplications than the plain one and takes longer: four
# small convolutions and a pooling, none of which fills the processor.

# %% [markdown]
# ## 6.4 Names: a convolution along one axis
#
# Nothing about a convolution asks for images. A surname is a sequence of letters, and a filter that slides over it
# finds *-ski*, *Mac-* or *-opoulos* wherever it stands. Which of 18 languages does a name come from?
#
# The difficulty is in the counts: of some 17,800 names to train with, 9,300 are Russian and 57 Vietnamese. A net that
# always says "Russian" is right more than half of the time. There are two cures. **Weigh**: let every example of a
# rare class count more in the loss. **Draw**: make each epoch of as many examples of each class.
#
# ### Exercise `class_weights` (bonus)
#
# $w_k = \frac{N}{K\, n_k}$ with the number $n_k$ of examples of class $k$, and 0 where $n_k = 0$; shape $(K,)$,
# `float32`. So all classes that occur weigh the same together, $n_k w_k = N / K$.
#
# **By hand first.** $y = (0, 0, 2)$, $K = 4$: $(0.375, 0, 0.75, 0)$.
#
# ### Exercise `balanced_batches` (bonus)
#
# Return one epoch: an iterable (a list, say, or a generator) of `int64` tensors of indices into `y`, for `y[indices]`.
#
# - Let $m$ be the size of the rarest class that occurs in `y`. Of **every** class that occurs, exactly $m$ examples
#   come in the epoch, drawn **without replacement**: no index comes twice.
# - All of them together are mixed, and cut into batches of `batch_size`, of which the last may be short. (Not one class
#   after the other.)
# - Each call draws anew, so that over many epochs all examples of the frequent classes are used. All chance comes from
#   `generator`.


# %% exercise="class_weights"
def class_weights(y, K):
    """Weights that give every class the same total: N / (K·n_k) for a class with n_k examples, 0 for one without.

    y (N,) int64, K an int  ->  (K,) float32
    """
    ### BEGIN SOLUTION
    counts = torch.bincount(y, minlength=K)  # (K,)
    return torch.where(counts > 0, len(y) / (K * counts.clamp(min=1)), 0.0)
    ### END SOLUTION


# %% check="class_weights"
check("class_weights")


# %% exercise="balanced_batches"
def balanced_batches(y, batch_size, generator):
    """One epoch in which every class that occurs in y comes as often as the rarest of them.

    y (N,) int64, batch_size an int, generator a torch.Generator
    ->  an iterable of int64 tensors of indices into y, each of at most batch_size
    """
    ### BEGIN SOLUTION
    members = [torch.nonzero(y == k)[:, 0] for k in y.unique()]
    smallest = min(len(indices) for indices in members)
    drawn = [indices[torch.randperm(len(indices), generator=generator)[:smallest]] for indices in members]
    chosen = torch.cat(drawn)
    return chosen[torch.randperm(len(chosen), generator=generator)].split(batch_size)
    ### END SOLUTION


# %% check="balanced_batches"
check("balanced_batches")

# %% [markdown]
# The net sees a name as a one-hot matrix, one row for each letter of the alphabet, one column for each position,
# filled up with blanks to 20 positions. Two layers of 1-D convolution find pieces of five and seven letters, the
# maximum over all positions asks whether a piece occurs anywhere, and a linear layer decides. 14 names of each
# language are set aside for validation, so there every language counts the same.
#
# The names are downloaded once (a few megabytes). No embedded set can stand in for them. Where they cannot be had, the
# cell says so, and the exercises above are judged all the same.
#
# **Predict first.** (a) Which accuracy on *balanced* validation names does the first net reach, the one that is trained
# without any cure? (b) Which languages will be confused?

# %% experiment="surnames"
try:
    surnames = load_surnames()
except DataError as error:
    surnames = None
    print(f"This experiment needs the surnames, and they cannot be had: {error}")

LETTERS = 20
if surnames is not None:
    print(surnames)
    alphabet = sorted(set("".join(surnames.train.names).lower()))
    L = len(surnames.classes)

    def one_hot(names):
        """(N, letters of the alphabet + 1, positions): letters that no training name has are blanks."""
        codes = torch.zeros(len(names), LETTERS, dtype=torch.int64)
        for row, name in zip(codes, names, strict=True):
            known = [alphabet.index(c) + 1 if c in alphabet else 0 for c in name.lower()[:LETTERS]]
            row[: len(known)] = torch.tensor(known, dtype=torch.int64)
        return functional.one_hot(codes, len(alphabet) + 1).float().transpose(1, 2)

    class MaxOverPositions(nn.Module):
        def forward(self, maps):
            return maps.amax(2)

    def surname_net(width=64):
        return nn.Sequential(
            nn.Conv1d(len(alphabet) + 1, width, 5, padding=2), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
            MaxOverPositions(), nn.Dropout(0.3), nn.Linear(width, L),
        )  # fmt: skip

    X_names, y_names = one_hot(surnames.train.names), surnames.train.labels
    X_held, y_held = one_hot(surnames.validation.names), surnames.validation.labels

    def train_names(batches, weights=None, *, updates):
        """Train until `updates` updates are made; `batches(generator)` gives the batches of one epoch."""
        torch.manual_seed(0)
        net, generator, t = surname_net(), torch.Generator().manual_seed(0), 0
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
        follow(optimizer, lambda t: cyclical_lr_doubling(t, math.ceil(updates / 2), 1e-5, 3e-3))
        while t < updates:
            for batch in batches(generator):
                optimizer.zero_grad()
                functional.cross_entropy(net(X_names[batch]), y_names[batch], weight=weights).backward()
                optimizer.step()
                t += 1
                if t == updates:
                    break
        net.eval()
        return net

    def shuffled(generator):
        return torch.randperm(len(y_names), generator=generator).split(100)

    updates = 1000 if full else 250
    surname_nets = {
        "no cure": train_names(shuffled, updates=updates),
        "class_weights": train_names(shuffled, class_weights(y_names, L), updates=updates),
        "balanced_batches": train_names(lambda g: balanced_batches(y_names, 100, g), updates=updates),
    }
    numbers["surnames"] = {}
    for name, net in surname_nets.items():
        with torch.no_grad():
            predicted = net(X_held).argmax(1)
        reached = (predicted == y_held).double().mean().item()
        russian = (predicted == surnames.classes.index("Russian")).double().mean().item()
        print(f"{name:17} accuracy on balanced validation names {reached:.1%}; {russian:.1%} are taken for Russian")
        numbers["surnames"][name] = reached

# %% experiment="surname_confusion"
if surnames is not None:
    best_names = max(("class_weights", "balanced_batches"), key=numbers["surnames"].get)
    with torch.no_grad():
        predicted = surname_nets[best_names](X_held).argmax(1)
    counts = confusion_matrix(y_held, predicted, L)
    plot_confusion_matrix(counts, surnames.classes,
                          title=f"Surnames, {best_names} ({numbers['surnames'][best_names]:.1%} right)")  # fmt: skip
    plt.show()
    wrong = counts - torch.diag(counts.diagonal())
    for pair in wrong.flatten().argsort(descending=True)[:4].tolist():
        i, j = divmod(pair, L)
        print(f"{surnames.classes[i]} taken for {surnames.classes[j]}: {wrong[i, j]} of {counts[i].sum()}")

# %% [markdown]
# (a) Without a cure the net says "Russian" too often and the accuracy on balanced names is well below what it would be
# on names as they come; both cures bring it up, and the share of "Russian" down towards 1 in 18. (b) Confused are
# languages that share their names or their spelling: Portuguese is taken for Spanish, Scottish for English, Korean and
# Vietnamese for Chinese. Many of these names occur in both languages, so no net can tell them apart.
#
# **Try your own name.** Put it into the list.

# %% experiment="your_own_name"
if surnames is not None:
    for name in ("Nakamura", "Kowalczyk", "MacLeod", "Papadopoulos", "Lindqvist", "Nguyen", "Turing", "Noether"):
        with torch.no_grad():
            p = torch.softmax(surname_nets[best_names](one_hot([name])), 1)[0]
        top = p.argsort(descending=True)[:3]
        print(f"{name:14} " + ", ".join(f"{surnames.classes[k]} {p[k]:.0%}" for k in top))

# %% [markdown]
# # What to take along
#
# - A convolution is a matrix product with shared weights. Its gradient is a convolution again, and the gradient of its
#   input is the transposed one: what was copied comes back as a sum.
# - Test with stride ≠ size, H ≠ W, and random gradients. Square tests find only square mistakes.
# - Stride and pooling multiply the reach of all that comes later. The reach on paper is not where the net looks.
# - Parameters are in the last layers. Time is where many places and many channels meet: with twice the channels at half
#   the height and width every stage costs the same (question 3).
# - A shortcut does not make a net more powerful. It makes it trainable.
# - Augment with what leaves the class as it is, in training and never at evaluation.
# - High accuracy and a fooled net go together: the training images say nothing about directions in which they do not
#   vary.
# - Features outlive the classes that they were learnt for.
#
# Before you hand in: restart the kernel and run all cells, top to bottom. Then call `check()`, which runs all
# checks at once. Hand in the notebook, with its figures.
