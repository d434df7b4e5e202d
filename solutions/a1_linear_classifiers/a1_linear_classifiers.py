# %% [markdown]
# # Assignment 1: linear classifiers
#
# A linear classifier keeps one *template* for each class. An image gets a score for every class, which says how well
# it matches the template, and the largest score wins. That is all. It is the smallest model of this course, and
# yet everything the larger ones need is already here: scores, a loss, a gradient derived by hand, mini-batches,
# a learning rate, a regulariser. From the next assignment on only the middle changes: where one matrix stands now,
# a network will stand.
#
# You will write it all yourself, without automatic differentiation, and train it on real images. At the end you
# can say, from your own figures:
#
# - what a loss measures, and how large it must be **before** any training;
# - how to derive a gradient on paper, and how to find out whether it is right;
# - why one learning rate learns, another crawls and a third never settles;
# - what a regulariser does to the weights, and what it costs;
# - what a linear classifier can never do, however long it trains.

# %% [markdown]
# ## How this notebook works
#
# - **Exercises** are functions that you write. Replace the lines `# YOUR CODE HERE` and `raise NotImplementedError()`.
#   Keep the name of the function and the names of its arguments.
# - **Checks** (`check("softmax")`) run your function on small random inputs and show what is met and what is not.
#   They also tell the likeliest cause. Run them as often as you like. Grading runs the same checks on other numbers,
#   and a few more.
# - **Experiments** use your functions to train and to draw. They are complete: run them, from top to bottom, and
#   look. They are not rerun for grading, but their figures are read together with your answers.
# - **Predict first.** Many experiments begin with a question. Write your guess on paper *before* you run the cell. A
#   wrong guess is worth more than a figure you only looked at.
# - **Written questions** are answered in words and formulas. A person marks them.
#
# With all exercises solved the notebook runs in about two minutes on one processor core.

# %% [markdown]
# ## The rules that hold for every exercise
#
# **Names and shapes.** $N$ examples, $d$ features, $K$ classes.
#
# | name | shape | what |
# |---|---|---|
# | `X` | $(N, d)$ | one example in each row |
# | `y` | $(N,)$ | labels: `int64`, from $0$ to $K-1$ (only the binary SVM has others) |
# | `W`, `b` | $(d, K)$, $(K,)$ | one column of weights and one bias for each class |
# | `scores` | $(N, K)$ | one row of scores for each example |
# | `lam`, `lr` | Python floats | $\lambda$, the strength of the regulariser, and $\eta$, the learning rate |
#
# **What every function keeps to.**
#
# 1. It takes `float32` and `float64`, and its results have the dtype of its float arguments. Integer labels never
#    decide a dtype. A new tensor gets the right one from `torch.zeros_like(X)`, `X.new_zeros(…)` or `.to(X.dtype)`.
# 2. It does not change its arguments. `W -= step` writes into the memory of whoever called you; `W = W - step` makes
#    a new tensor. In-place work on a tensor that you made yourself is fine. A result may share memory with an argument.
# 3. It works for $N \ge 1$, $d \ge 1$ and $K \ge 2$, also when some class does not occur in `y`, and for tensors that
#    are not contiguous in memory (where `reshape` works and `view` does not).
# 4. Where chance is needed it comes from the argument `generator` and from nowhere else: `torch.randperm(n,
#    generator=generator)`, `torch.rand(n, generator=generator)`. The same state of the generator must give the same
#    result. Draw from `generator` itself, not from a copy: every draw moves it on, so that the next call with it gives
#    something new.
# 5. Two results are returned as a pair, `return grad_W, grad_b`. A shape `()` means a 0-d tensor, which is what
#    `.mean()` and `.sum()` return; a Python float is accepted in its place, unless the exercise says otherwise.
# 6. It uses its arguments, imports and functions. Variables of the experiments do not exist when your work is graded.
#    Helper functions of your own are welcome; put them into the cell of the exercise that needs them.
#
# An exercise may call the functions of earlier ones, and should where that is natural. If an earlier one is wrong, the
# later one is judged again with a right one in its place, so you lose the points only once.
#
# **What you may not call in an exercise**, because it is what the exercise asks for: `torch.softmax`, `log_softmax`,
# `logsumexp`, `torch.sigmoid`, `logsigmoid` (nor as methods of a tensor, nor by another way such as
# `torch.special.expit`, `torch.logcumsumexp` or `torch.distributions`), anything of `torch.nn` and `torch.optim` (nor
# the losses that `torch` has of `torch.nn`'s, such as `torch.hinge_embedding_loss`), automatic differentiation
# (`torch.autograd`, `backward`, `requires_grad`, `torch.func`), and torchvision's transforms, models and `ops`; nor
# what hides which function is called (`eval`, `getattr` with a computed name, `__dict__`, files).
# `one_hot` and `relu` live in `torch.nn` too; `torch.relu` does not.
# Everything else is allowed, loops and NumPy included: `exp`, `log`, `clamp`, `max`, `sum`, `argmax`, `flip`,
# `@`, indexing …

# %% setup="install"
# On Google Colab this cell installs what the notebook needs; everywhere else it only looks whether it is there.
import glob
import importlib.util
import os
import shutil
import sys
import zipfile

if "google.colab" in sys.modules and not os.path.exists("checks.py"):
    wanted = "*/assignments/a1_linear_classifiers"
    if not glob.glob(wanted):
        for archive in filter(zipfile.is_zipfile, glob.glob("*.zip")):
            shutil.unpack_archive(archive, format="zip")
    if not glob.glob(wanted):
        print("Choose the assignment's zip file, as your course gave it to you.")
        from google.colab import files

        for archive in filter(zipfile.is_zipfile, files.upload()):
            shutil.unpack_archive(archive, format="zip")
    if not glob.glob(wanted):
        raise FileNotFoundError("No zip file here holds a1_linear_classifiers; run this cell again and choose it.")
    bundle = glob.glob(wanted)[0].split(os.sep)[0]
    sys.path.insert(0, os.path.abspath(bundle))
    from course_utils.colab import install

    install(bundle, "a1_linear_classifiers")
elif importlib.util.find_spec("course_utils") is None:
    raise ModuleNotFoundError(
        f"The course's package is not in {sys.prefix}: choose the kernel of the environment in which you ran "
        "`pip install .` (in VS Code at the top right), or run that in the folder of the bundle."
    )

# %% setup
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from course_utils.data import flatten_images, load_images, unflatten_images
from course_utils.gradients import check_gradients
from course_utils.plots import (
    BLUE,
    GREEN,
    ORANGE,
    SPLIT_STYLES,
    VERMILLION,
    course_style,
    plot_confusion_matrix,
    plot_curves,
    plot_images,
    plot_probability_histograms,
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
# The cell below loads images to train on (10,000, or 5,000 of the second set), and others to validate and to test. It
# takes CIFAR-10 where this machine has it or can download it, and otherwise *digits in scenes*, a set that is made on
# the spot. It prints which one you have. All exercises and all questions are the same for both; only the numbers
# differ.
#
# - With the **training** set you fit $W$ and $b$.
# - With the **validation** set you choose everything else ($\lambda$, $\eta$, when to stop).
# - With the **test** set you measure, once, what you chose.

# %% experiment="images"
data = load_images("auto")
N = 10_000 if data.name == "cifar10" else 5_000  # images to train on
images_train, y_train = data.train.images[:N], data.train.labels[:N]
images_validation, y_validation = data.validation
images_test, y_test = data.test
K = len(data.classes)
print(data)
print(f"we train on {N:,}: {tuple(images_train.shape)}, {images_train.dtype}")
print("images of each class:", dict(zip(data.classes, torch.bincount(y_train, minlength=K).tolist(), strict=True)))
numbers["images"] = {"set": data.name, "training images": N}

first_of_each = [torch.nonzero(y_train == k)[:5, 0] for k in range(K)]
five_of_each = torch.stack(first_of_each, dim=1).flatten()  # one column for each class
plot_images(
    images_train[five_of_each],
    y_train[five_of_each],
    data.classes,
    title=f"{data.source}: five training images of each class",
)

# %% [markdown]
# ### From an image to a row
#
# A linear classifier knows nothing of rows, columns or neighbours. It sees an image as $d = 3 \cdot 32 \cdot 32 = 3072$
# numbers. `flatten_images` divides the pixels by 255, so that they lie in $[0, 1]$, and lays them out in the order
# *channel, row, column*: first the 1,024 red values, row by row, then the green, then the blue. `unflatten_images`
# undoes it. Any other order would do for the classifier, as long as it is always the same. It would not do for your
# eyes: a column of $W$ is a template, and you can look at it as an image only if you undo the very same order.

# %% experiment="rows"
X_raw = flatten_images(images_train)  # (N, d) float32 in [0, 1]
d = X_raw.shape[1]
print(f"N = {N:,} rows of d = {d:,} features, {X_raw.dtype}, from {X_raw.min():.0f} to {X_raw.max():.0f}")
print(f"feature 1000 is the red value in row {1000 // 32}, column {1000 % 32}")

# %% [markdown]
# ## 0.1 Why pixels are standardised
#
# Raw pixels are all positive and move together: a bright image is bright everywhere. So the largest thing that a
# gradient sees is *brightness*, which says nearly nothing about the class. We remove what all images share. Every
# feature $j$ gets mean 0 and standard deviation 1 over the training images:
#
# $$
# \mu_j = \frac1N \sum_{n=1}^{N} X_{nj}, \qquad
# \sigma_j = \sqrt{\frac1N \sum_{n=1}^{N} (X_{nj} - \mu_j)^2}, \qquad
# \tilde X_{nj} = \frac{X_{nj} - \mu_j}{\sigma_j}.
# $$
#
# Section 4.2 measures what this buys. The answer is not the one most people expect.
#
# ### Exercise `standardizer`
#
# Compute the two vectors $\mu$ and $\sigma$ from `X`.
#
# - One mean and one standard deviation for **every feature**, not one for the whole matrix.
# - The *population* standard deviation: divide by $N$. (`torch.std` divides by $N - 1$ unless told otherwise. With
#   $N = 1$ that is a division by zero.)
# - A feature whose $N$ entries are **all equal** has $\sigma_j = 0$, and dividing by it would give `nan`. Return 1
#   for it. With $N = 1$ this is every feature.
# - Any other feature keeps its own $\sigma_j$, **however small**: entries $0$ and $10^{-12}$ are not equal. So no
#   threshold and no `+ eps`.
#
# Careful: whether all entries are equal must be asked of the entries. The mean of seven times 0.1 is rounded, so the
# *computed* $\sigma_j$ of a constant feature is often $10^{-17}$ (in `float32` $10^{-8}$) rather than 0.
#
# **By hand first.** For two examples, the rows $(1, 5)$ and $(3, 5)$ of $X$: $\mu = (2, 5)$ and $\sigma = (1, 1)$,
# the first 1 computed, the second one by the rule.


# %% exercise="standardizer"
def standardizer(X):
    """Mean and population standard deviation of every feature; 1 where all entries of a feature are equal.

    X (N, d)  ->  mean (d,), std (d,)
    """
    ### BEGIN SOLUTION
    mean = X.mean(0)
    std = X.std(0, unbiased=False)
    constant = (X[0] == X).all(0)  # asking std instead would miss what rounding leaves of a zero
    return mean, torch.where(constant, torch.ones_like(std), std)
    ### END SOLUTION


# %% check="standardizer"
check("standardizer")

# %% [markdown]
# ### Exercise `standardize`
#
# Shift and scale every feature of `X` by a `mean` and a `std` that are **given**. They need not be those of this `X`:
# validation and test images are standardised with the numbers of the *training* images.
#
# Why? The classifier has to be one fixed function of an image. If the test images were standardised with their own
# mean, the class of one image would depend on which other images are in the test set. A single image would be all
# zeros.


# %% exercise="standardize"
def standardize(X, mean, std):
    """Subtract `mean` from every row and divide by `std`.

    X (N, d), mean (d,), std (d,)  ->  (N, d)
    """
    ### BEGIN SOLUTION
    return (X - mean) / std
    ### END SOLUTION


# %% check="standardize"
check("standardize")

# %% [markdown]
# **Predict first.** (a) What does the mean of all training images look like? (b) In which part of the image do pixels
# vary most, in the middle or in the corners? (c) Standardised with the training images' numbers, are the mean and the
# standard deviation of the *validation* features exactly 0 and 1?

# %% experiment="standardised"
mean, std = standardizer(X_raw)
X_train = standardize(X_raw, mean, std)
X_validation = standardize(flatten_images(images_validation), mean, std)
X_test = standardize(flatten_images(images_test), mean, std)
numbers["standardised"] = {}
for name, X in (("training", X_train), ("validation", X_validation)):
    means, stds = standardizer(X)
    print(
        f"{name:10}  N = {len(X):6,}   means of the features from {means.min():+.3f} to {means.max():+.3f}"
        f"   standard deviations from {stds.min():.3f} to {stds.max():.3f}"
    )
    numbers["standardised"][f"largest |mean|, {name}"] = means.abs().max().item()

one = int(X_validation.std(1).argmax())  # a validation image with strong contrasts
with course_style():
    fig, axes = plt.subplots(1, 4, figsize=(13, 3.2))
    for ax, row, title in (
        (axes[0], mean, "mean of the training images"),
        (axes[2], flatten_images(images_validation)[one], "one validation image"),
        (
            axes[3],
            (0.5 + X_validation[one] / 6).clamp(0, 1),
            "the same, standardised\n(grey: 0, white: +3)",
        ),
    ):
        ax.imshow(unflatten_images(row[None])[0].permute(1, 2, 0).numpy())
        ax.set_title(title)
    spread = axes[1].imshow(unflatten_images(std[None])[0].mean(0).numpy(), cmap="cividis")
    axes[1].set_title("standard deviation\n(mean of the three channels)")
    fig.colorbar(spread, ax=axes[1], label="standard deviation", shrink=0.8)
    for ax in axes:
        ax.axis("off")

# %% [markdown]
# The mean of thousands of images is a fog: what they have in common is hardly more than a brightness. And the
# validation images do *not* get mean 0 and standard deviation 1 exactly. They must not, since nothing about them was
# used.

# %% [markdown]
# # 1. Two classes: the support vector machine
#
# ## 1.1 The cost: a street between the classes
#
# Begin with two classes, called $+1$ and $-1$, and one score $s = \mathbf{x} \cdot \mathbf{w} + b$. Its sign is the
# answer. The boundary $s = 0$ is a line (in $d$ dimensions a hyperplane), and $|s| / \lVert\mathbf{w}\rVert$ is the
# distance of a point from it.
#
# Multiply the score by the label: $m = y s$ is the **margin** of an example. It is positive when the answer is right.
# Counting the wrong answers would be the natural loss, but that count is flat almost everywhere: move $\mathbf{w}$ a
# little and nothing changes, so there is no slope to follow. The **hinge loss**
#
# $$\ell = \max(0,\ 1 - m)$$
#
# does have a slope wherever it matters. It also asks for more than being right: it is zero only for $m \ge 1$, right
# *with room to spare*. The lines $s = +1$ and $s = -1$ are the kerbs of a street whose middle is the boundary. Its
# width is $2 / \lVert\mathbf{w}\rVert$. The cost wants few points in the street, and a wide street:
#
# $$
# J(\mathbf{w}, b) = \frac1N \sum_{n=1}^{N} \max\bigl(0,\ 1 - y_n (\mathbf{x}_n \cdot \mathbf{w} + b)\bigr)
# + \lambda \lVert\mathbf{w}\rVert^2 .
# $$
#
# ### Exercise `binary_svm_cost`
#
# `y` holds $-1$ and $+1$ in the dtype of `X` (with labels 0 and 1 every example of class 0 would have margin 0 for
# ever). `b` is a 0-d tensor and is **not** regularised. The hinge is *averaged* over the examples; the regulariser is
# added once, as it stands, without a factor ½ and without division by $N$. The result is a 0-d tensor, not a Python
# float. Mind the order of the arguments: in this section, and only here, the parameters come first.
#
# **By hand first.** $\mathbf{w} = (1, -1)$, $b = 0.5$, $\lambda = 0.1$ and the examples $(1, 0)$, $(0, 2)$, $(-1, 1)$
# with labels $+1, -1, +1$. The scores are $1.5, -1.5, -1.5$, the margins $1.5, 1.5, -1.5$, so only the third example
# costs anything: $J = \frac{2.5}{3} + 0.1 \cdot 2 = 1.0333$.


# %% exercise="binary_svm_cost"
def binary_svm_cost(w, b, X, y, lam):
    """Mean hinge loss plus lam times the squared length of w.

    w (d,), b (), X (N, d), y (N,) of -1 and +1 in X's dtype, lam a float  ->  ()
    """
    ### BEGIN SOLUTION
    margins = y * (X @ w + b)  # (N,)
    return torch.clamp(1 - margins, min=0).mean() + lam * (w**2).sum()
    ### END SOLUTION


# %% check="binary_svm_cost"
check("binary_svm_cost")

# %% [markdown]
# ## 1.2 Its gradient, by hand
#
# One example first, as a function of its score. Where the margin is above 1 the hinge is flat; below 1 it is the
# straight line $1 - y s$. So
#
# $$
# \frac{\partial \ell}{\partial s} =
# \begin{cases} 0 & \text{if } y s > 1 \\ -y & \text{if } y s < 1 . \end{cases}
# $$
#
# At $y s = 1$ exactly there is a kink and no derivative. Every slope between the two sides is a **subgradient**, and
# each is as good as the others: take 0 or take $-y$, but the same for $\mathbf{w}$ and for $b$.
#
# Then the chain rule. From $s = \mathbf{x} \cdot \mathbf{w} + b$ we have $\partial s / \partial \mathbf{w} =
# \mathbf{x}$ and $\partial s / \partial b = 1$. With $g_n = \frac1N\, \partial \ell_n / \partial s_n$,
#
# $$
# \nabla_{\mathbf{w}} J = \sum_n g_n\, \mathbf{x}_n + 2 \lambda \mathbf{w} = X^\top \mathbf{g} + 2 \lambda \mathbf{w},
# \qquad \frac{\partial J}{\partial b} = \sum_n g_n .
# $$
#
# Read it as an instruction. Only examples in the street or on the wrong side of it have a say, and each of them pulls
# $\mathbf{w}$ towards (class $+1$) or away from (class $-1$) itself. Everyone else is ignored.
#
# ### Exercise `binary_svm_gradients`
#
# Return the pair `grad_w` $(d,)$ and `grad_b` $()$.
#
# - The derivative of $\lambda \lVert\mathbf{w}\rVert^2$ is $2 \lambda \mathbf{w}$. (Books that write $\frac\lambda2$
#   in the cost have $\lambda \mathbf{w}$ here. We do not.)
# - The $1/N$ is in $g_n$ already. So both results are **sums** over $n$; do not divide a second time.
#
# **By hand first.** In the example above only the third point is active, $\mathbf{g} = (0, 0, -\tfrac13)$. So
# $\nabla_{\mathbf{w}} J = -\tfrac13 (-1, 1) + 0.2\, (1, -1) = (0.533, -0.533)$ and $\partial J / \partial b =
# -\tfrac13$.


# %% exercise="binary_svm_gradients"
def binary_svm_gradients(w, b, X, y, lam):
    """A subgradient of `binary_svm_cost`.

    w (d,), b (), X (N, d), y (N,) of -1 and +1 in X's dtype, lam a float  ->  grad_w (d,), grad_b ()
    """
    ### BEGIN SOLUTION
    active = y * (X @ w + b) < 1  # (N,) in the street, or on the wrong side of it
    g = -y * active / len(y)  # (N,) derivative of the mean hinge with respect to each score
    return X.T @ g + 2 * lam * w, g.sum()
    ### END SOLUTION


# %% check="binary_svm_gradients"
check("binary_svm_gradients")

# %% [markdown]
# **Predict first.** The next cell trains on 80 points of the plane, some of them beyond repair.
#
# (a) From the first panel to the second, $\lambda$ grows by a factor of 100. Does the street become wider or narrower?
# Do more or fewer points have $m < 1$, which means that they lie in it or on the wrong side?
#
# (b) For the third panel every point that the second one has on the right side and outside the street ($m > 1$) is
# *thrown away* before training. ($\lambda$ grows as $N$ shrinks, so that each point weighs as much against the
# regulariser as before.) How far does the boundary move?

# %% experiment="svm_2d"
generator = torch.Generator().manual_seed(4)
half = 40
centres = torch.tensor([[1.4, 0.8], [-1.4, -0.8]], dtype=torch.float64).repeat_interleave(half, dim=0)
X_plane = centres + torch.randn(2 * half, 2, generator=generator, dtype=torch.float64)
y_plane = torch.cat([torch.ones(half), -torch.ones(half)]).double()


def fit_svm(X, y, lam, steps=4000):
    """Subgradient descent with steps that shrink: with a constant one a kink is crossed back and forth for ever."""
    w, b = torch.zeros(2, dtype=X.dtype), torch.zeros((), dtype=X.dtype)
    for t in range(steps):
        grad_w, grad_b = binary_svm_gradients(w, b, X, y, lam)
        eta = 1 / (1 + 0.02 * t)
        w, b = w - eta * grad_w, b - eta * grad_b
    return w, b


def draw_svm(ax, X, y, w, b, title):
    """Points, boundary, the two kerbs, and a ring around every support point."""
    supports = y * (X @ w + b) < 1.01  # 1 up to what the descent has not settled yet
    for sign, colour, marker in ((1, BLUE, "o"), (-1, VERMILLION, "s")):
        of_class = X[y == sign]
        ax.scatter(of_class[:, 0], of_class[:, 1], s=22, color=colour, marker=marker, label=f"class {sign:+d}")
    ax.scatter(*X[supports].T, s=90, facecolor="none", edgecolor="black", label="support point")
    along = torch.linspace(-5, 5, 2, dtype=X.dtype)
    for s, style in ((0, "-"), (1, "--"), (-1, "--")):
        kerb = "boundary" if s == 0 else "kerbs (s = ±1)" if s == 1 else None
        ax.plot(along, (s - b - w[0] * along) / w[1], style, color="black", linewidth=1.2, label=kerb)
    width = 2 / w.norm().item()
    ax.set(xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), aspect="equal", xlabel="feature 1", ylabel="feature 2")
    ax.set_title(f"{title}\nstreet {width:.2f} wide, {int(supports.sum())} of {len(X)} points support it")
    return supports, width


with course_style():
    fig, axes = plt.subplots(1, 3, figsize=(13, 5.3))
    narrow = fit_svm(X_plane, y_plane, 0.001)
    wide = fit_svm(X_plane, y_plane, 0.1)
    _, narrow_width = draw_svm(axes[0], X_plane, y_plane, *narrow, "λ = 0.001")
    kept, wide_width = draw_svm(axes[1], X_plane, y_plane, *wide, "λ = 0.1")
    # The hinge is a mean. Fewer points make each weigh more, and λ has to grow with them to keep the balance.
    again = fit_svm(X_plane[kept], y_plane[kept], 0.1 * len(X_plane) / int(kept.sum()))
    draw_svm(axes[2], X_plane[kept], y_plane[kept], *again, "trained on those support points only")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)

turned = math.degrees(math.acos(min(1.0, (wide[0] @ again[0] / wide[0].norm() / again[0].norm()).item())))
print(f"all points:           w = ({wide[0][0]:.3f}, {wide[0][1]:.3f}), b = {wide[1]:.3f}")
print(f"support points only:  w = ({again[0][0]:.3f}, {again[0][1]:.3f}), b = {again[1]:.3f}, turned by {turned:.1f}°")
numbers["svm_2d"] = {
    "street width at λ = 0.001": narrow_width,
    "street width at λ = 0.1": wide_width,
    "support points at λ = 0.1": int(kept.sum()),
    "turned without the others (degrees)": turned,
}

# %% [markdown]
# The points with $m > 1$ could be anywhere outside the street on their own side, or not exist: their gradient is zero,
# so they never had a say. That is where the name *support* vector machine comes from. Keep the picture in
# mind. Cross-entropy, which comes next, never ignores anyone, and Section 5 compares the two.

# %% [markdown]
# # 2. Many classes: softmax and cross-entropy
#
# ## 2.1 Scores
#
# With $K$ classes there is one weight vector for each, side by side as the columns of $W$. All scores of all examples
# are one matrix product:
#
# $$
# S = X W + \mathbf{1} \mathbf{b}^\top, \qquad S_{nk} = \sum_{j=1}^{d} X_{nj} W_{jk} + b_k .
# $$
#
# $S_{nk}$ is the inner product of image $n$ with template $k$. It is large when they are bright in the same places and
# dark in the same places.
#
# ### Exercise `linear_scores`
#
# Write the shapes beside the formula first: $(N, d) (d, K) + (K,) \to (N, K)$. Broadcasting adds `b` to every row.


# %% exercise="linear_scores"
def linear_scores(X, W, b):
    """The score of every example for every class.

    X (N, d), W (d, K), b (K,)  ->  (N, K)
    """
    ### BEGIN SOLUTION
    return X @ W + b
    ### END SOLUTION


# %% check="linear_scores"
check("linear_scores")

# %% [markdown]
# ## 2.2 From scores to probabilities
#
# Scores are any real numbers. To say how *likely* each class is we make them positive with the exponential and let
# each row sum to one:
#
# $$
# P_{nk} = \frac{e^{S_{nk}}}{\sum_{j=1}^{K} e^{S_{nj}}} .
# $$
#
# Only differences of scores matter. Add any constant $c$ to a row, and $e^c$ cancels:
#
# $$
# \frac{e^{s_k + c}}{\sum_j e^{s_j + c}} = \frac{e^c\, e^{s_k}}{e^c \sum_j e^{s_j}} = \frac{e^{s_k}}{\sum_j e^{s_j}} .
# $$
#
# On paper this is a remark. In floating point it decides whether the formula works at all.
#
# **Predict first.** What is $e^{100}$ in `float32`? What is $e^{-200}$? And what is a softmax row made of three of
# each?

# %% experiment="overflow"
for s in (10.0, 100.0, -200.0):
    print(f"exp({s:6}) = {torch.tensor(s).exp().item():.4g} in float32")
for row in ([100.0, 100.0, 100.0], [-200.0, -200.0, -200.0]):
    e = torch.tensor(row).exp()
    print(f"softmax of {row}, straight from the formula: {(e / e.sum()).tolist()}")

# %% [markdown]
# Both rows should be $(\frac13, \frac13, \frac13)$. Instead we get $\infty / \infty$ and $0 / 0$, which are `nan`.
# The cure is the shift from above with $c = -\max_j s_j$, **for each row its own**. Then the largest exponent is
# $e^0 = 1$: nothing can overflow, and the sum is never below 1. (One shift for the whole matrix would save the first
# row only by ruining the second.)
#
# ### Exercise `softmax`
#
# - Row by row, over the classes.
# - No `nan` and no `inf` for scores of $\pm 1000$, and rows may be far from one another, one near $-1000$ and the next
#   near $+1000$.
#
# **By hand first.** $\operatorname{softmax}(0, \ln 2, \ln 3) = (\frac16, \frac26, \frac36)$. Adding 1000 to all three
# scores must not change that.


# %% exercise="softmax"
def softmax(scores):
    """The softmax of every row.

    scores (N, K)  ->  (N, K), each row positive or zero and with sum 1
    """
    ### BEGIN SOLUTION
    e = torch.exp(scores - scores.amax(1, keepdim=True))  # each row has its own shift
    return e / e.sum(1, keepdim=True)
    ### END SOLUTION


# %% check="softmax"
check("softmax")

# %% [markdown]
# ## 2.3 Cross-entropy
#
# How good are the probabilities $\mathbf{p}$ for an image whose true class is $y$? The loss is the surprise
#
# $$\ell = -\ln p_y .$$
#
# It is 0 when the model is certain and right, $\ln 2 = 0.69$ at fifty-fifty, $\ln K$ when it has no idea, and it grows
# without bound as the model becomes certain *and wrong*. We always average over the examples.
#
# Taking the logarithm of `softmax` works until $p_y$ is rounded to 0, and then the loss is $-\ln 0 = \infty$ although
# the true value is an ordinary number. So put the logarithm into the formula *before* computing:
#
# $$
# -\ln p_y = -\ln \frac{e^{s_y}}{\sum_j e^{s_j}} = \ln \sum_j e^{s_j} - s_y
# = \underbrace{a + \ln \sum_j e^{s_j - a}}_{\text{the same for every } a} - s_y .
# $$
#
# With $a = \max_j s_j$ the sum contains $e^0 = 1$, so its logarithm is at least 0. Nothing overflows and no logarithm
# of zero is taken.
#
# ### Exercise `cross_entropy`
#
# - From **scores**, not from probabilities. The mean over the $N$ examples, as a 0-d tensor.
# - Finite whenever the true value is finite: the scores $(0, 0, 1000)$ with $y = 0$ have the loss $1000$.
#
# To pick one entry from each row, index with two vectors: `scores[torch.arange(len(y)), y]` has shape $(N,)$.
#
# **By hand first.** The scores $(0, \ln 2, \ln 3)$ with $y = 2$ have the loss $-\ln \frac36 = 0.6931$.


# %% exercise="cross_entropy"
def cross_entropy(scores, y):
    """The mean over the examples of −ln softmax(scores)[n, y[n]].

    scores (N, K), y (N,) int64  ->  ()
    """
    ### BEGIN SOLUTION
    shifted = scores - scores.amax(1, keepdim=True)  # (N, K), at most 0, and 0 somewhere in each row
    log_sum = torch.exp(shifted).sum(1).log()  # (N,), at least ln 1
    return (log_sum - shifted[torch.arange(len(y)), y]).mean()
    ### END SOLUTION


# %% check="cross_entropy"
check("cross_entropy")

# %% [markdown]
# ## 2.4 The cost
#
# What we minimise is the loss plus a price on large weights:
#
# $$
# J(W, \mathbf{b}) = \frac1N \sum_{n=1}^{N} -\ln P_{n y_n} + \lambda \sum_{j,k} W_{jk}^2 .
# $$
#
# We say *loss* for the first part and *cost* for the sum of both. The bias is left out of the regulariser. Weights
# decide how strongly the scores react to the image, and that is what we want to keep small. The bias only says how
# frequent a class is, and there is no reason to pull that towards "all equally frequent".
#
# ### Exercise `cost`
#
# Call your own `cross_entropy` and `linear_scores`. The regulariser stands as written: the sum of the squares, times
# $\lambda$; no ½, no division by $N$.


# %% exercise="cost"
def cost(X, y, W, b, lam):
    """Cross-entropy of the linear scores plus lam times the sum of the squares of W.

    X (N, d), y (N,) int64, W (d, K), b (K,), lam a float  ->  ()
    """
    ### BEGIN SOLUTION
    return cross_entropy(linear_scores(X, W, b), y) + lam * (W**2).sum()
    ### END SOLUTION


# %% check="cost"
check("cost")

# %% [markdown]
# ## 2.5 Accuracy
#
# In the end we want to know how often the largest score is the right one. The accuracy cannot be trained on directly,
# it is as flat as the count in Section 1.1, but it is what people understand.
#
# ### Exercise `accuracy`
#
# The fraction of examples whose largest score is that of their class, as a **Python float** between 0 and 1.
# (`.item()` turns a 0-d tensor into one.)


# %% exercise="accuracy"
def accuracy(X, y, W, b):
    """The fraction of examples whose largest score is that of their class.

    X (N, d), y (N,) int64, W (d, K), b (K,)  ->  Python float in [0, 1]
    """
    ### BEGIN SOLUTION
    right = linear_scores(X, W, b).argmax(1) == y  # (N,)
    return right.sum().item() / len(y)
    ### END SOLUTION


# %% check="accuracy"
check("accuracy")

# %% [markdown]
# ## 2.6 What to expect before training
#
# Draw the weights at random, $W_{jk} \sim \mathcal{N}(0, \sigma^2)$ with $\sigma = 0.01$, and set $\mathbf{b} = 0$.
# Nothing has been learnt, so the accuracy should be near $1/K$. What about the loss? If all classes are about equally
# likely, $p_y \approx 1/K$ and
#
# $$\ell \approx -\ln \frac1K = \ln K = 2.303 \quad\text{for } K = 10 .$$
#
# This is the cheapest test there is of a new piece of code. A first loss of 6, of 23 or of `nan` says that something is
# wrong before you have wasted an hour of training.
#
# **Predict first.** Now multiply these weights, so that $\sigma$ runs from $10^{-4}$ to 10. All these classifiers
# know nothing. (a) How does the accuracy change? (b) How does the loss change?


# %% experiment="before_training"
def initial_parameters(seed, sigma=0.01):
    """W from N(0, sigma²), b = 0, and the generator that has drawn them."""
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(d, K, generator=generator), torch.zeros(K), generator


W, b, _ = initial_parameters(seed=0)
first_loss = cross_entropy(linear_scores(X_train, W, b), y_train).item()
print(f"loss before training {first_loss:.3f}, ln K = {math.log(K):.3f}")
print(f"accuracy before training {accuracy(X_train, y_train, W, b):.3f}, 1/K = {1 / K:.3f}")
print(f"cost with λ = 0.1 before training {cost(X_train, y_train, W, b, 0.1):.3f}: know which of the two you look at!")

sigmas = np.logspace(-4, 1, 11)
losses, accuracies = [], []
for sigma in sigmas:
    W_scaled = W * (sigma / 0.01)
    losses.append(cross_entropy(linear_scores(X_train, W_scaled, b), y_train).item())
    accuracies.append(accuracy(X_train, y_train, W_scaled, b))
numbers["before_training"] = {"loss": first_loss, "ln K": math.log(K), "loss at σ = 10": losses[-1]}

with course_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8))
    left.loglog(sigmas, losses, "o-", color=BLUE, label="loss on the training images")
    left.axhline(math.log(K), color="black", linestyle=":", label="ln K")
    left.axvline(1 / math.sqrt(d), color=ORANGE, linestyle="--", label="σ = 1/√d")
    left.set(xlabel="σ of the initial weights", ylabel="loss (nats)", title="Loss before training")
    right.semilogx(sigmas, 100 * np.array(accuracies), "s-", color=GREEN, label="accuracy on the training images")
    right.axhline(100 / K, color="black", linestyle=":", label="1/K")
    right.set(xlabel="σ of the initial weights", ylabel="accuracy (%)", ylim=(0, 100), title="Accuracy before training")
    left.legend(frameon=True, framealpha=1, edgecolor="none")
    right.legend()

# %% [markdown]
# Not one decision changes: multiplying all scores by the same number leaves the largest one the largest. Yet the loss
# grows by a factor of several hundred. A score is a sum of $d$ terms, each about $\sigma$ in size, so scores have a
# size of about $\sigma \sqrt d$. As soon as that exceeds 1 the model is *confident*, and confidence without knowledge
# is what cross-entropy punishes. This is also why the first loss lies a little above $\ln K$: at $\sigma = 0.01$ the
# scores have a spread of $0.01 \sqrt{3072} = 0.55$, and half its square, 0.15, is added.
#
# The accuracy is not exactly $1/K$: ten random templates do not share the images out evenly among them.
#
# If your loss is not finite at the right end of the figure, your `cross_entropy` is not stable yet.

# %% [markdown]
# # 3. The gradient, by hand
#
# ## 3.1 Backwards through the chain
#
# The cost is a chain of two steps, $(W, \mathbf{b}) \to S \to J$. We walk it backwards, and we write the shape beside
# every object.
#
# **Step 1, from the loss to the scores.** Let $Y$ be the $(N, K)$ matrix with $Y_{n y_n} = 1$ and zeros elsewhere (the
# *one-hot* labels), and let $L$ be the mean cross-entropy. Then
#
# $$
# G = \frac{\partial L}{\partial S} = \frac1N (P - Y) \qquad (N, K).
# $$
#
# You derive this yourself, in the written question below. Before you do, see what it says. In each row the entry of the
# true class is $p_y - 1$, negative: raise that score. All others are $p_k$, positive: lower those scores, the likelier
# the more. And each row sums to zero.
#
# **Step 2, from the scores to the parameters.** $W_{jk}$ enters only column $k$ of the scores, $S_{nk} = \sum_j X_{nj}
# W_{jk} + b_k$, and there with the factor $X_{nj}$. Sum over everything it influences:
#
# $$
# \frac{\partial L}{\partial W_{jk}} = \sum_{n} G_{nk} X_{nj} = (X^\top G)_{jk}, \qquad
# \frac{\partial L}{\partial b_k} = \sum_n G_{nk} .
# $$
#
# The shapes leave hardly another choice: from $(N, d)$ and $(N, K)$ only $X^\top G$ gives $(d, K)$.
#
# **Step 3, the regulariser.** Add $2 \lambda W$ to the first. The bias has none.
#
# Column $k$ of the gradient is $\frac1N \sum_n (P_{nk} - Y_{nk})\, \mathbf{x}_n$. A step *against* it adds to
# template $k$ the images of class $k$ that it does not recognise yet, and subtracts the images it takes for class $k$
# by mistake. Training is nothing but adding and subtracting training images. That is why templates will look like
# images.

# %% [markdown] written="scores_gradient" points=3
# ### Written question 1 (3 points)
#
# Take one example with scores $\mathbf{s} \in \mathbb{R}^K$, true class $y$ and loss $\ell = -\ln
# \operatorname{softmax}(\mathbf{s})_y$.
#
# - (a) Derive $\partial \ell / \partial s_k$, for $k = y$ and for $k \ne y$.
# - (b) Put the $N$ examples together: show that $\partial L / \partial S = \frac1N (P - Y)$.
# - (c) Each row of $P - Y$ sums to zero. Explain why this *had* to be so, from what the loss does when the same
#   constant is added to all scores of a row.
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** Write the loss as $\ell = \ln Z - s_y$ with $Z = \sum_j e^{s_j}$. Then
# $\frac{\partial \ln Z}{\partial s_k} = \frac{1}{Z} \frac{\partial Z}{\partial s_k} = \frac{e^{s_k}}{Z} = p_k$
# for every $k$, and $\frac{\partial s_y}{\partial s_k}$ is 1 if $k = y$ and 0 otherwise. So
# $\frac{\partial \ell}{\partial s_y} = p_y - 1$ and $\frac{\partial \ell}{\partial s_k} = p_k$ for $k \ne y$.
#
# **(b)** $L = \frac1N \sum_n \ell_n$, and $\ell_n$ depends on row $n$ of $S$ only. So
# $\frac{\partial L}{\partial S_{nk}} = \frac1N \frac{\partial \ell_n}{\partial S_{nk}} = \frac1N (P_{nk} - Y_{nk})$,
# because $Y_{nk}$ is 1 exactly for $k = y_n$.
#
# **(c)** Adding $c$ to all scores of a row leaves its softmax, and so its loss, unchanged. The derivative of $\ell$
# along the direction $(1, \dots, 1)$ is therefore 0, and that derivative is $\sum_k \partial \ell / \partial s_k$.
#
# *Marking guide.* 1 point: the loss as $\ln Z - s_y$, or the quotient rule applied correctly, and the case $k = y$. 1
# point: the case $k \ne y$ and the step to the matrix with its $1/N$, with the remark that $\ell_n$ depends on row
# $n$ only. 1 point: (c) with the reason; "because $\sum_k p_k = 1$ and $\sum_k y_k = 1$" alone shows it but does not
# explain it: half a point.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ### Exercise `cross_entropy_gradients`
#
# The gradients of `cost` with respect to `W` and `b`. Call your own `softmax` and `linear_scores`.
#
# - You never need the matrix $Y$: subtract 1 at `[torch.arange(len(y)), y]`. (That is in-place work on a tensor of
#   your own, so it is allowed.)
# - The $1/N$ is in $G$. So `grad_b` is the **sum** of its rows.
# - Neither `W` nor `b` may be changed.
#
# **By hand first.** One example $\mathbf{x} = (1, 2)$ with $y = 1$, three classes, $W = 0$, $\mathbf{b} = 0$,
# $\lambda = 0$. All probabilities are $\frac13$, so $G = (\frac13, -\frac23, \frac13)$. That is also the gradient of
# $\mathbf{b}$, and the gradient of $W$ has the rows $(\frac13, -\frac23, \frac13)$ and
# $(\frac23, -\frac43, \frac23)$.


# %% exercise="cross_entropy_gradients"
def cross_entropy_gradients(X, y, W, b, lam):
    """The gradients of `cost` with respect to W and b.

    X (N, d), y (N,) int64, W (d, K), b (K,), lam a float  ->  grad_W (d, K), grad_b (K,)
    """
    ### BEGIN SOLUTION
    G = softmax(linear_scores(X, W, b))  # (N, K)
    G[torch.arange(len(y)), y] -= 1  # P − Y
    G /= len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)
    ### END SOLUTION


# %% check="cross_entropy_gradients"
check("cross_entropy_gradients")

# %% [markdown]
# ## 3.2 Is it right? The gradient report
#
# A wrong gradient rarely crashes. It trains, only worse, and you would blame the learning rate. So every gradient
# derived by hand is compared with one that needs no derivation, the *centred difference*
#
# $$
# \frac{\partial J}{\partial \theta} \approx \frac{J(\theta + h) - J(\theta - h)}{2 h}, \qquad h = 10^{-5} .
# $$
#
# It is far too slow to train with (two evaluations for *each* of the 30,730 parameters) but fast enough to check. It
# needs `float64`: in `float32` the difference of two nearly equal costs is mostly rounding. For each checked entry
# the report compares the analytic value $a$ with the numerical value $n$ through the relative error
# $|a - n| / (|a| + |n|)$.
#
# `check_gradients(f, parameters, gradients)` takes the cost as a function of the parameters, the parameters, and your
# gradients. We check twice, first with $\lambda = 0$ and then with $\lambda = 0.1$. If the first passes and the second
# does not, the mistake is in the regulariser. If we only checked with $\lambda = 0.1$, we could not tell.

# %% experiment="gradient_report"
generator = torch.Generator().manual_seed(0)
X_few, y_few = X_train[:20, ::100].double(), y_train[:20]  # 20 images, every hundredth feature: quick, and not square
W_few = 0.1 * torch.randn(X_few.shape[1], K, generator=generator, dtype=torch.float64)
b_few = 0.1 * torch.randn(K, generator=generator, dtype=torch.float64)


def report_gradients(gradients, lam):
    """Hold `gradients` against the numerical gradient of `cost`, on twenty images."""
    return check_gradients(
        lambda W, b: cost(X_few, y_few, W, b, lam),
        {"W": W_few, "b": b_few},
        gradients(X_few, y_few, W_few, b_few, lam),
        sizes={"N": len(y_few), "K": K},
        lam=lam,
    )


reports = {f"λ = {lam}": report_gradients(cross_entropy_gradients, lam) for lam in (0.0, 0.1)}
numbers["gradient_report"] = {name: bool(report.passed) for name, report in reports.items()}
reports["λ = 0.0"]

# %% experiment="gradient_report_regularised"
reports["λ = 0.1"]

# %% [markdown]
# ## 3.3 Learn to read it: three patients
#
# A report that passes teaches nothing. The three functions below take your gradient, which is right by now, and spoil
# it in ways in which students' solutions often are wrong. The report of each follows.
#
# **Predict first.** Which of the three would pass with $\lambda = 0$? Which would still train, and only seem to have
# another learning rate? Then read the reports: could you name each mistake without having seen the code?


# %% experiment="patients"
def patient_1(X, y, W, b, lam):
    grad_W, grad_b = cross_entropy_gradients(X, y, W, b, lam)
    return grad_W - lam * W, grad_b


def patient_2(X, y, W, b, lam):
    grad_W, grad_b = cross_entropy_gradients(X, y, W, b, 0.0)
    return len(y) * grad_W + 2 * lam * W, len(y) * grad_b


def patient_3(X, y, W, b, lam):
    grad_W, grad_b = cross_entropy_gradients(X, y, W, b, lam)
    return grad_W, grad_b / len(y)


patients = {f.__name__: report_gradients(f, lam=0.1) for f in (patient_1, patient_2, patient_3)}
numbers["patients"] = {name: bool(report.passed) for name, report in patients.items()}
patients["patient_1"]

# %% [markdown]
# A report can also draw itself. On the left the analytic against the numerical derivative: would you have seen
# anything? In the middle the relative error of every entry that was checked, on the right what it becomes with other
# steps $h$. For a right gradient (bottom) that is a valley: with large $h$ the difference quotient is inaccurate, with
# small $h$ rounding takes over, and $10^{-5}$ lies near the lowest point. The error of a wrong gradient (top) does not
# care about $h$ at all.

# %% experiment="patient_1_drawn"
patients["patient_1"].plot()

# %% experiment="patient_2"
patients["patient_2"]

# %% experiment="patient_3"
patients["patient_3"]

# %% [markdown]
# <details><summary><b>Open only after you have read the three reports</b></summary>
#
# **Patient 1** has $\lambda W$ for $2 \lambda W$. The bias passes, the weights do not. With $\lambda = 0$ everything
# would pass. It would train without a complaint, with half the regulariser you believe you have.
#
# **Patient 2** forgot the $1/N$. With $\lambda = 0$ both gradients are exactly $N$ times too large, the same as a
# learning rate $N$ times larger. With $\lambda = 0.1$ the factor is no longer the same everywhere, because the
# regulariser is not multiplied.
#
# **Patient 3** averages where it should sum: the $1/N$ has been applied twice, but only to the bias. The weights pass.
# The bias learns $N$ times too slowly, and no training curve would ever tell you.
#
# </details>

# %% [markdown]
# # 4. Training: mini-batch gradient descent
#
# ## 4.1 The loop
#
# The gradient points uphill, so we step against it:
#
# $$W \leftarrow W - \eta\, \nabla_W J, \qquad \mathbf{b} \leftarrow \mathbf{b} - \eta\, \nabla_{\mathbf{b}} J .$$
#
# All $N$ examples for one step would be a waste: a mean over 100 of them points in about the same direction, and costs
# a hundredth of a mean over 10,000. So the examples are put into a **random order**, cut into batches, and every batch
# gives one step. One pass over all examples is an **epoch**. Each epoch has a new order, so that the same
# examples do not keep sharing a batch.
#
# With $N = 10$ and `batch_size=4` one epoch may look like this. Note the short batch at the end.
#
# ```
# order   7 2 9 0 | 5 1 8 3 | 6 4
# step        1         2      3
# ```
#
# ### Exercise `minibatch_gd`
#
# Return new `W` and `b` after `epochs` epochs, starting from the given ones.
#
# - The argument `gradients` is a function. Call it **once for each batch**, with five positional arguments:
#   `gradients(X_batch, y_batch, W, b, lam)`, with the current `W` and `b` and with `lam` as it was given to you. It
#   returns the pair of gradients. Later it will be the hinge's gradient instead. You neither need nor want to know.
# - In every epoch each example is used exactly **once**, and the order is **new**. All of it comes from `generator`.
# - `X` and `y` are permuted *together*.
# - Each batch has exactly `batch_size` examples, except the last one, which takes what is left (also when there are
#   fewer than `batch_size` examples in all).
# - The `W` and `b` given to you keep their values. With `epochs=0` you return equal ones.
# - Everything after `*` in the signature is passed by name.


# %% exercise="minibatch_gd"
def minibatch_gd(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    """Mini-batch gradient descent.

    X (N, d), y (N,) int64, W (d, K), b (K,), gradients(X, y, W, b, lam) -> (d, K), (K,);
    lam and lr floats, batch_size and epochs ints, generator a torch.Generator  ->  new W (d, K), new b (K,)
    """
    ### BEGIN SOLUTION
    W, b = W.clone(), b.clone()
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):  # the last one may be short
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W = W - lr * grad_W
            b = b - lr * grad_b
    return W, b
    ### END SOLUTION


# %% check="minibatch_gd"
check("minibatch_gd")

# %% [markdown]
# The next cell wraps your function to record curves. Nothing but $W$, $\mathbf{b}$ and the generator's state is
# carried from one epoch to the next. So calling `minibatch_gd` 40 times for one epoch is the same as calling it once
# for 40, and in between we can measure.

# %% experiment="train"
torch.set_flush_denormal(True)  # take numbers below 1e-38 for 0: a processor computes with them many times slower


def train(X, y, gradients, loss, *, lam, lr, epochs, every=1, batch_size=100, seed=0):
    """Train from random weights; record loss, cost and accuracy before training and after `every` epochs."""
    W, b, generator = initial_parameters(seed)
    splits = {"training": (X, y), "validation": (X_validation, y_validation)}
    history = {quantity: {split: [] for split in splits} for quantity in ("loss", "cost", "accuracy")}
    for epoch in range(0, epochs + 1, every):
        if epoch > 0:
            W, b = minibatch_gd(
                X, y, W, b, gradients, lam=lam, lr=lr, batch_size=batch_size, epochs=every, generator=generator
            )
        for split, (X_split, y_split) in splits.items():
            scores = linear_scores(X_split, W, b)
            value = loss(scores, y_split).item()
            history["loss"][split].append(value)
            history["cost"][split].append(value + lam * (W**2).sum().item())
            # an identity matrix for the weights: the scores need not be computed a second time
            history["accuracy"][split].append(accuracy(scores, y_split, torch.eye(K), torch.zeros(K)))
    return W, b, history


# %% [markdown]
# ### First test of any training loop: overfit a few images
#
# Before training on everything, train on 100 images without a regulariser. If the loss does not go to nearly zero, the
# code is broken, and you have found out in a second.
#
# **Predict first.** The second run uses the same 100 images with **random labels**: a horse may be called a ship. (a)
# What accuracy does a linear classifier reach on 100 images whose labels mean nothing? (b) And on the validation
# images?

# %% experiment="overfit"
few_images, few_labels = X_train[:100], y_train[:100]
random_labels = torch.randint(0, K, (100,), generator=torch.Generator().manual_seed(1))
epochs, every = 1400, 50
histories = {}
for name, labels in (("true labels", few_labels), ("random labels", random_labels)):
    *_, histories[name] = train(
        few_images, labels, cross_entropy_gradients, cross_entropy, lam=0.0, lr=0.01, epochs=epochs, every=every
    )
    last = {split: values[-1] for split, values in histories[name]["accuracy"].items()}
    print(
        f"{name:13}  loss {histories[name]['loss']['training'][-1]:.3f}   accuracy on the 100 training images "
        f"{last['training']:.0%}, on the validation images {last['validation']:.1%}"
    )
    numbers.setdefault("overfit", {})[name] = last
steps = range(0, epochs + 1, every)
plot_curves(
    {
        "loss": {f"{name}, training": (steps, h["loss"]["training"]) for name, h in histories.items()},
        "accuracy": {
            f"{name}, {split}": (steps, h["accuracy"][split])
            for split in ("training", "validation")
            for name, h in histories.items()
        },
    },
    units={"loss": "nats"},
    log=("loss",),
    title="100 images: learnt by heart, whatever the labels say",
)

# %% [markdown]
# With more features ($d = 3072$) than examples ($N = 100$) a hyperplane can separate *any* labelling of them: there are
# more unknowns than conditions. So a perfect training accuracy proves that your loop works. It proves nothing about
# learning. Only the validation curve can tell memory from understanding.

# %% [markdown]
# ## 4.2 How large may a step be?
#
# Look at one dimension. Near its minimum every smooth cost is a parabola $J = \frac12 c\, w^2$ with curvature $c$. A
# step gives $w \leftarrow w - \eta c\, w = (1 - \eta c)\, w$. So $|1 - \eta c| < 1$ is needed, which is
#
# $$\eta < \frac{2}{c},$$
#
# or every step makes things worse than they were. In many dimensions each direction has its own curvature, and the
# **steepest one** sets the limit for all. For softmax cross-entropy with about equal probabilities the largest
# curvature is $\lambda_1 / K$, where $\lambda_1$ (no relation of the regulariser's $\lambda$) is the largest eigenvalue
# of $\frac1N X^\top X$. Hence a limit that we can compute *before* training:
#
# $$\eta_{\max} = \frac{2 K}{\lambda_1} .$$
#
# The flat directions pay for it: where the curvature is 1,000 times smaller than in the steepest direction, each step
# makes 1,000 times less progress.
#
# **Predict first.** We compare raw pixels (in $[0, 1]$) with standardised ones, each with a number of learning rates.
# (a) Does standardising allow *larger* steps? (b) If not, what is it good for?

# %% experiment="learning_rates"
etas = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
inputs = {
    "raw pixels": (X_raw, flatten_images(images_validation), ORANGE, "s--"),
    "standardised": (X_train, X_validation, BLUE, "o-"),
}
with course_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.2))
    for name, (X, X_val, colour, line) in inputs.items():
        eigenvalues = torch.linalg.eigvalsh(X.T @ X / len(X)).flip(0)  # (d,), largest first
        eta_max = 2 * K / eigenvalues[0].item()
        reached = []
        for lr in etas:
            W, b, generator = initial_parameters(seed=0)
            W, b = minibatch_gd(
                X, y_train, W, b, cross_entropy_gradients,
                lam=0.0, lr=lr, batch_size=100, epochs=3, generator=generator,
            )  # fmt: skip
            reached.append(accuracy(X_val, y_validation, W, b))
        left.loglog(range(1, 201), eigenvalues[:200], line, color=colour, markevery=[0], label=name)
        right.semilogx(etas, 100 * np.array(reached), line, color=colour, label=name)
        right.axvline(eta_max, color=colour, linestyle=":", label=f"2K/λ₁ = {eta_max:.3f}, {name}")
        print(
            f"{name:13} λ₁ = {eigenvalues[0]:7.1f}, λ₂ = {eigenvalues[1]:6.1f}, λ₁₀ = {eigenvalues[9]:5.1f}"
            f"   limit {eta_max:.3f}   best of these η: {etas[int(np.argmax(reached))]:g} with {max(reached):.1%}"
        )
        numbers.setdefault("learning_rates", {})[name] = {"limit": eta_max, "best accuracy": max(reached)}
    left.set(xlabel="rank of the direction", ylabel="eigenvalue of XᵀX / N", title="How steep the directions are")
    right.set(xlabel="learning rate η", ylabel="validation accuracy (%)", title="After 3 epochs, λ = 0")
    left.legend()
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9)

# %% [markdown]
# Standardising does *not* allow larger steps. Each curve breaks near the limit that was computed beforehand, and the
# limit of the standardised pixels is, if anything, the lower one. The steepest direction is brightness, and
# standardising does not flatten it. It lifts all the *other* directions, those that tell the classes apart, by a factor
# of ten or more. With the same step they learn ten times faster.

# %% [markdown]
# ## 4.3 The noise in a batch
#
# How well does a batch of $B$ images know the direction? Compare its gradient $\mathbf{g}_B$ with the gradient
# $\mathbf{g}$ of all images, by the relative error
# $\lVert \mathbf{g}_B - \mathbf{g} \rVert / \lVert \mathbf{g} \rVert$. As for every mean of random draws it should
# fall like $1/\sqrt{B}$.
#
# **Predict first.** We measure it twice: at the random weights, and after 6 epochs. Does a batch know the direction
# better before or after training? How large is the error at $B = 100$?

# %% experiment="batch_noise"
generator = torch.Generator().manual_seed(0)
batch_sizes = [10, 30, 100, 300, 1000, 3000]
W_start, b_start, _ = initial_parameters(seed=0)
W_end, b_end = minibatch_gd(
    X_train, y_train, W_start, b_start, cross_entropy_gradients,
    lam=0.0, lr=0.003, batch_size=100, epochs=6, generator=generator,
)  # fmt: skip
with course_style():
    fig, ax = plt.subplots(figsize=(6.5, 4.2))
    for name, W, b, colour, line in (
        ("before training", W_start, b_start, BLUE, "o-"),
        ("after 6 epochs", W_end, b_end, VERMILLION, "s--"),
    ):
        exact, _ = cross_entropy_gradients(X_train, y_train, W, b, 0.0)
        errors = []
        for B in batch_sizes:
            batches = torch.randint(0, N, (10, B), generator=generator)
            estimates = [cross_entropy_gradients(X_train[i], y_train[i], W, b, 0.0)[0] for i in batches]
            errors.append(np.mean([((g - exact).norm() / exact.norm()).item() for g in estimates]))
        ax.loglog(batch_sizes, errors, line, color=colour, label=name)
        print(f"{name}: relative error {errors[batch_sizes.index(100)]:.2f} at B = 100")
        numbers.setdefault("batch_noise", {})[name] = float(errors[batch_sizes.index(100)])
    ax.loglog(batch_sizes, 5 / np.sqrt(batch_sizes), ":", color="black", label="slope of 1/√B")
    ax.axhline(1, color="grey", linewidth=1, label="error as large as the gradient")
    ax.set(xlabel="batch size B", ylabel="relative error of the gradient", title="What a batch knows of the gradient")
    ax.legend()

# %% [markdown]
# After training, a batch of 100 is mostly *noise*: its error is larger than the gradient itself, on CIFAR-10 about
# five times. Near a minimum the gradients of single images no longer agree. They cancel in the mean, and what is left
# is small. Training still works, because the noise has mean zero and averages out over many **small** steps. With a
# large $\eta$ it does not: the weights jump about for ever. Keep this in mind for the next figure.

# %% [markdown]
# ## 4.4 Four settings
#
# Now the main experiment: 40 epochs with batches of 100, for four pairs of regulariser and learning rate.
#
# | setting | $\lambda$ | $\eta$ |
# |---|---|---|
# | 1 | 0 | 0.1 |
# | 2 | 0 | 0.001 |
# | 3 | 0.1 | 0.001 |
# | 4 | 1 | 0.001 |
#
# **Predict first.** Compare $\eta = 0.1$ with the limit of Section 4.2. (a) What will the loss of setting 1 look
# like? (b) Which setting has the largest gap between training and validation accuracy, and which the smallest? (c) In
# which order do the four end, by validation accuracy? (d) What will the templates of setting 4 look like, compared
# with those of setting 1?
#
# This takes about 40 seconds.

# %% experiment="four_settings"
settings = ((0.0, 0.1), (0.0, 0.001), (0.1, 0.001), (1.0, 0.001))
trained, numbers["four_settings"] = {}, {}
print("   λ      η    training loss  training cost   accuracy: training  validation")
for lam, lr in settings:
    W, b, history = train(X_train, y_train, cross_entropy_gradients, cross_entropy, lam=lam, lr=lr, epochs=40)
    trained[lam, lr] = W, b, history
    measured = {
        "training loss": history["loss"]["training"][-1],
        "training cost": history["cost"]["training"][-1],
        "training accuracy": history["accuracy"]["training"][-1],
        "validation accuracy": history["accuracy"]["validation"][-1],
        "test accuracy": accuracy(X_test, y_test, W, b),
    }
    numbers["four_settings"][f"λ={lam:g}, η={lr:g}"] = measured
    print(
        f"{lam:4g}  {lr:5g}  {measured['training loss']:13.3f}  {measured['training cost']:13.3f}"
        f"  {measured['training accuracy']:18.1%}  {measured['validation accuracy']:10.1%}"
    )

with course_style():
    fig, axes = plt.subplots(2, 4, figsize=(14, 6.2), sharex=True)
    for column, ((lam, lr), (_, _, history)) in enumerate(trained.items()):
        loss_ax, accuracy_ax = axes[:, column]
        for split in ("training", "validation"):
            loss_ax.plot(history["loss"][split], label=f"loss, {split}", **SPLIT_STYLES[split])
            accuracy_ax.plot(100 * np.array(history["accuracy"][split]), label=split, **SPLIT_STYLES[split])
        loss_ax.plot(history["cost"]["training"], color="black", linewidth=1.2, linestyle=":", label="cost, training")
        loss_ax.set(title=f"λ = {lam:g}, η = {lr:g}", ylim=(1.5, 3) if column else (0, None))
        accuracy_ax.set(xlabel="epoch", ylim=(5, 50))
    axes[0, 0].set(title="λ = 0, η = 0.1 (mind the scale!)", ylabel="loss and cost (nats)")
    axes[1, 0].set_ylabel("accuracy (%)")
    axes[0, 1].legend()
    axes[1, 1].legend(loc="lower right")

# %% [markdown]
# The test accuracies are recorded but not printed. Choose a setting from the validation column first (that is part of
# the written question); then run the next cell.

# %% experiment="four_settings_test"
for name, measured in numbers["four_settings"].items():
    print(f"{name:15}  test accuracy {measured['test accuracy']:.1%}")

# %% [markdown]
# The columns of the four matrices $W$, as images. A fifth row shows setting 2 once more, with its *initial* weights
# subtracted: what 40 epochs have added.
#
# **Predict first.** Without a regulariser templates are grainy. What is the grain made of? Has the classifier learnt
# it?


# %% experiment="templates"
def draw_templates(matrices, title):
    """One row of images for each matrix W (d, K): its columns, as images."""
    with course_style():
        fig, axes = plt.subplots(len(matrices), K, figsize=(1.25 * K, 1.3 * len(matrices) + 0.5))
        for row, (name, W) in enumerate(matrices.items()):
            for k, image in enumerate(unflatten_images(W.T)):  # (K, 3, 32, 32)
                axes[row, k].imshow((0.5 + 0.5 * image / image.abs().max()).permute(1, 2, 0).numpy())
                axes[row, k].set(xticks=[], yticks=[])
                axes[0, k].set_title(data.classes[k])
            axes[row, 0].set_ylabel(name, fontsize=9)
        fig.suptitle(f"{title} (grey is 0, each scaled on its own)")


matrices = {f"λ = {lam:g}\nη = {lr:g}": W for (lam, lr), (W, _, _) in trained.items()}
matrices["λ = 0, η = 0.001\nminus the start"] = trained[0.0, 0.001][0] - initial_parameters(seed=0)[0]
draw_templates(matrices, "Templates: the weights of each class")
numbers["templates"] = {}
print("initial weights:  root mean square 0.0100")
for (lam, lr), (W, _, _) in trained.items():
    size = W.square().mean().sqrt().item()
    print(f"λ = {lam:3g}, η = {lr:5g}:  root mean square of the weights {size:.4f}, largest {W.abs().max():.3f}")
    numbers["templates"][f"root mean square, λ={lam:g}, η={lr:g}"] = size

# %% [markdown]
# Much of the grain is the random start. Where the images have no say, the gradient of the loss is nearly zero, and
# without a regulariser nothing ever removes what was there in the beginning. With $\lambda > 0$ every step multiplies
# a weight by $1 - 2 \eta \lambda$. What no image asks for fades away.

# %% [markdown]
# And where does the best of them go wrong? One template for each class is all a linear classifier has. A car from the
# left and a car from the right, a red one and a white one, must share it.

# %% experiment="confusion"
best = max(trained, key=lambda setting: trained[setting][2]["accuracy"]["validation"][-1])
W, b, _ = trained[best]
predicted = linear_scores(X_validation, W, b).argmax(1)
counts = torch.bincount(y_validation * K + predicted, minlength=K * K).reshape(K, K)
each = counts.diagonal() / counts.sum(1)
print(f"best on the validation images: λ = {best[0]:g}, η = {best[1]:g}")
print(f"easiest class: {data.classes[each.argmax()]} ({each.max():.0%})")
print(f"hardest class: {data.classes[each.argmin()]} ({each.min():.0%})")
numbers["confusion"] = {"easiest": data.classes[each.argmax()], "hardest": data.classes[each.argmin()]}
right = accuracy(X_validation, y_validation, W, b)
plot_confusion_matrix(
    counts, data.classes, title=f"Validation images, λ = {best[0]:g}, η = {best[1]:g} ({right:.1%} right)"
)

# %% [markdown] written="effect_of_lambda_and_eta" points=4
# ### Written question 2 (4 points)
#
# Answer from *your* four settings: name the numbers and the features of the figures that you rely on.
#
# - (a) What does $\eta = 0.1$ do to the curves, compared with $\eta = 0.001$, and why? Use Sections 4.2 and 4.3.
# - (b) What happens to the gap between training and validation, and to both accuracies, as $\lambda$ goes from 0 over
#   0.1 to 1? Why?
# - (c) How do the templates change with $\lambda$? For $\lambda = 0.1$ and $\lambda = 1$ compute by which factor 40
#   epochs shrink a weight that no image asks for. Compare with the figure and with the printed sizes.
# - (d) Which setting do you choose, and on which evidence? Why may the test accuracies not be that evidence?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** $\eta = 0.1$ lies above the limit $2K/\lambda_1$ (about 0.02 on CIFAR-10, 0.01 on digits in scenes). In the
# steepest direction, brightness, each step overshoots by more than it corrects. The loss jumps to a multiple of
# $\ln K$ and stays there, up and down from epoch to epoch. It does not run off to infinity because cross-entropy
# grows only linearly for large scores. The noise of the batches comes on top: it is multiplied by an $\eta$ one
# hundred times larger and never averages out. So the loss is high and ragged (about 6 in training, more in
# validation), and the accuracy is about ten points lower than with $\eta = 0.001$, where all curves are smooth.
#
# **(b)** With $\lambda = 0$ the gap is largest (on CIFAR-10 about 46 % against 39 %) and still growing at epoch 40,
# because the loss in training can always be lowered by larger weights. $\lambda = 0.1$ costs a point in training and
# nothing, or even a gain, in validation (39 %): weights that only fit single images are no longer worth their price.
# At $\lambda = 1$ the gap is half as large, but both accuracies are lower (40 and 36 %) and the curves are flat after
# ten epochs: the regulariser now forbids weights that would be useful. This is underfitting. (On digits in scenes the
# gap is about three points, one at $\lambda = 1$, and $\lambda = 1$ costs four points in validation.)
#
# **(c)** They become smooth: blurred means of what the images of a class have in common, blue around a ship, a dark
# middle in a 0. $\lambda \sum W^2$ charges for every weight, and a weight survives only where many images ask for it.
# Without such a request a step multiplies it by $1 - 2 \eta \lambda$. After 40 epochs of 100 steps that is
# $(1 - 0.0002)^{4000} = 0.45$ for $\lambda = 0.1$ and $(1 - 0.002)^{4000} = 0.0003$ for $\lambda = 1$. So with
# $\lambda = 0$ the random start (root mean square 0.0100) is still there in full and makes up most of the 0.0111
# printed; with 0.1 about half of it is left, and with 1 nothing: all that is seen there has been learnt. (With 5,000
# images there are 50 steps in an epoch, and the factors are 0.67 and 0.018.) At $\eta = 0.1$ the weights are ten
# times larger than the start, so that grain *has* been learnt: it is the noise of single batches.
#
# **(d)** The one with the best validation accuracy, on CIFAR-10 $\lambda = 0.1$, $\eta = 0.001$ (its lead over
# $\lambda = 0$ is within what another seed changes, and saying so is better than overstating it). A number by which
# something was chosen is no longer an honest estimate of how it will do on new images, since the maximum of several
# noisy numbers is too high on average. If the test set had been used to choose, nothing would be left to measure
# with.
#
# *Marking guide.* One point for each part. (a) needs overshooting *or* noise as the reason, and a reference to the
# curves; "too large" alone is half a point. (b) needs numbers, the direction of both changes and the words over- and
# underfitting or their meaning. (c) needs both factors (half) and what they say about the grain (half). (d) needs the
# validation set and a reason why the test set is not used. A student on digits in scenes must be marked by what that
# set shows.
# <!-- ### END SOLUTION -->

# %% [markdown]
# # 5. Another loss: the multi-class SVM
#
# ## 5.1 The hinge for many classes
#
# In Section 1 a right answer had to be right with a margin of 1. With $K$ classes the score of the true class has to
# exceed **every other** score by 1, and each class that comes too close is charged by how much (J. Weston and C.
# Watkins, 1999):
#
# $$
# \ell = \sum_{k \ne y} \max\bigl(0,\ s_k - s_y + 1\bigr), \qquad L = \frac1N \sum_n \ell_n .
# $$
#
# Mind $k \ne y$. The true class has the difference $0$ to itself, and would add $1$ to every loss.
#
# **Predict first.** What is this loss before training, when all scores are about equal? What is it if somebody forgets
# $k \ne y$?
#
# ### Exercise `multiclass_hinge`
#
# The mean over the $N$ examples of the sum over the wrong classes. Margin 1, no regulariser.
#
# **By hand first.** The scores $(0, 1.5, 2)$ with $y = 1$: class 0 would need $0 - 1.5 + 1 = -0.5$, no charge; class 2
# costs $2 - 1.5 + 1 = 1.5$. With $y = 2$ the charges are $0$ and $0.5$.


# %% exercise="multiclass_hinge"
def multiclass_hinge(scores, y):
    """The mean over the examples of the multi-class hinge loss (Weston and Watkins), margin 1.

    scores (N, K), y (N,) int64  ->  ()
    """
    ### BEGIN SOLUTION
    n = torch.arange(len(y))
    violations = torch.clamp(scores - scores[n, y][:, None] + 1, min=0)  # (N, K)
    violations[n, y] = 0  # no margin is asked of the true class over itself
    return violations.sum(1).mean()
    ### END SOLUTION


# %% check="multiclass_hinge"
check("multiclass_hinge")

# %% [markdown]
# ## 5.2 Its gradient
#
# Call a class $k \ne y$ *active* when $s_k - s_y + 1 > 0$. Each active class contributes the straight line
# $s_k - s_y + 1$, with slope $+1$ in $s_k$ and slope $-1$ in $s_y$. So for one example
#
# $$
# \frac{\partial \ell}{\partial s_k} = \begin{cases} 1 & k \text{ active} \\ 0 & k \text{ not active} \end{cases}
# \quad (k \ne y), \qquad
# \frac{\partial \ell}{\partial s_y} = -\,(\text{number of active classes}) .
# $$
#
# The true class is pushed up **once for every** class that comes too close. At a kink, $s_k - s_y + 1 = 0$, you may
# count the class as active or not, as long as its own entry and the count agree.
#
# With $G$ made of these rows, divided by $N$, everything else is as in Section 3: $X^\top G + 2 \lambda W$, and the
# sum of the rows of $G$.
#
# ### Exercise `multiclass_hinge_gradients`
#
# The (sub)gradients of `multiclass_hinge(linear_scores(X, W, b), y)` $+\ \lambda \sum W^2$.
#
# **By hand first.** For the scores $(0, 1.5, 2)$ with $y = 1$ and $N = 1$ only class 2 is active: the row of $G$ is
# $(0, -1, 1)$. Where all three scores are equal it is $(1, -2, 1)$.


# %% exercise="multiclass_hinge_gradients"
def multiclass_hinge_gradients(X, y, W, b, lam):
    """A subgradient of the mean multi-class hinge loss plus lam times the sum of the squares of W.

    X (N, d), y (N,) int64, W (d, K), b (K,), lam a float  ->  grad_W (d, K), grad_b (K,)
    """
    ### BEGIN SOLUTION
    n = torch.arange(len(y))
    scores = linear_scores(X, W, b)  # (N, K)
    G = (scores - scores[n, y][:, None] + 1 > 0).to(scores.dtype)  # (N, K), 1 where a class is active
    G[n, y] = 0
    G[n, y] = -G.sum(1)  # once for every active class
    G /= len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)
    ### END SOLUTION


# %% check="multiclass_hinge_gradients"
check("multiclass_hinge_gradients")

# %% [markdown] written="hinge_subgradient" points=2
# ### Written question 3 (2 points)
#
# - (a) Why has the hinge loss $\max(0, 1 - m)$ no gradient at $m = 1$? Which slopes are subgradients there, and what
#   must a slope satisfy to be one?
# - (b) Why does it hardly ever matter which of them the code takes? Name one place where it *does* matter.
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** At $m = 1$ the slope from the left is $-1$ and from the right $0$. A derivative would have to be both. A
# number $g$ is a subgradient of a convex function $f$ at $m_0$ if the line with slope $g$ through that point stays
# below the function, $f(m) \ge f(m_0) + g\,(m - m_0)$ for all $m$. Here this holds exactly for $g \in [-1, 0]$.
#
# **(b)** The kinks are a set of measure zero: with real-valued data a margin of exactly 1 practically never occurs,
# so the code's choice is practically never used; and where it is, one example of $N$ changes one step a little. It
# matters when margins *are* exactly 1 by construction (small integers, weights such that $s_k - s_y = -1$); in a
# numerical gradient check, where a step of $h$ across a kink gives a difference quotient between the two slopes that
# agrees with neither; and for the end of training: a constant step keeps crossing the kink, and $g \ne 0$ although
# the point is a minimum (so the step must shrink, and "gradient = 0" is no test for being done).
#
# *Marking guide.* 1 point for (a): both one-sided slopes (half), and $[-1, 0]$ with the supporting line or an
# equivalent drawing (half). 1 point for (b): rarely met (half), one sensible place (half).
# <!-- ### END SOLUTION -->

# %% [markdown]
# The gradient report for the hinge, at random weights:

# %% experiment="hinge_report"
hinge_report = check_gradients(
    lambda W, b: multiclass_hinge(linear_scores(X_few, W, b), y_few) + 0.1 * (W**2).sum(),
    {"W": W_few, "b": b_few},
    multiclass_hinge_gradients(X_few, y_few, W_few, b_few, 0.1),
    sizes={"N": len(y_few), "K": K},
    lam=0.1,
)
numbers["hinge_report"] = {"passed": bool(hinge_report.passed)}
hinge_report

# %% [markdown]
# Now on purpose *at* a kink. With $W = 0$ all scores are equal to the bias. Give one class the bias 1 and all others
# 0: every image of that class has all its charges exactly at the kink, $s_k - s_y + 1 = 0$. **Predict
# first:** what will the report say?

# %% experiment="hinge_report_at_a_kink"
W_zero, b_kink = torch.zeros_like(W_few), torch.zeros_like(b_few)
b_kink[y_few[0]] = 1
check_gradients(
    lambda W, b: multiclass_hinge(linear_scores(X_few, W, b), y_few) + 0.1 * (W**2).sum(),
    {"W": W_zero, "b": b_kink},
    multiclass_hinge_gradients(X_few, y_few, W_zero, b_kink, 0.1),
    lam=0.1,
)

# %% [markdown]
# ## 5.3 Cross-entropy against SVM
#
# Same images, same starting weights, same order of the batches; only the function handed to `minibatch_gd` differs.
# To compare them fairly, look at the first step. With all scores equal, the entry of the true class is $-0.9$ in a
# row of cross-entropy's $G$ (times $1/N$) and $-9$ in a row of the hinge's. So the hinge gets a learning rate ten
# times smaller.
#
# After training we ask **who is still pushing**. The strength with which an example pulls at its own class's template
# is the size of its entry $-N\,G_{n y_n}$: it is $1 - p_y$, between 0 and 1, for cross-entropy, and the number of
# active classes, 0 to $K - 1$, for the hinge.
#
# **Predict first.** (a) Which of the two has the better validation accuracy? (b) What share of the training images does
# each of them as good as ignore (they push on the weights with less than 0.01)? (c) Which images push
# hardest in each of the two?
#
# This takes about 10 seconds.

# %% experiment="cross_entropy_against_svm"
lam = 0.1
W_ce, b_ce, history_ce = trained[lam, 0.001]
W_svm, b_svm, history_svm = train(
    X_train, y_train, multiclass_hinge_gradients, multiclass_hinge, lam=lam, lr=0.0001, epochs=40
)
print(f"hinge before training: {history_svm['loss']['training'][0]:.2f} (all scores equal: K − 1 = {K - 1})")


def pushes(gradients, W, b):
    """How hard each training image pulls at the template of its own class.  -> (N,)

    With an identity matrix for X, and the scores for W, a gradient XᵀG is G itself.
    """
    strengths = []
    for scores, y in zip(linear_scores(X_train, W, b).split(500), y_train.split(500), strict=True):
        G, _ = gradients(torch.eye(500), y, scores, torch.zeros(K), 0.0)  # (500, K)
        strengths.append(-500 * G[torch.arange(500), y])
    return torch.cat(strengths)


pushes_ce = pushes(cross_entropy_gradients, W_ce, b_ce)  # between 0 and 1
pushes_svm = pushes(multiclass_hinge_gradients, W_svm, b_svm).round()  # 0, 1, … K − 1
comparison = {
    "cross-entropy": (history_ce, (pushes_ce < 0.01).double().mean().item(), (pushes_ce > 0.99).double().mean().item()),
    "SVM": (history_svm, (pushes_svm == 0).double().mean().item(), (pushes_svm == K - 1).double().mean().item()),
}
numbers["cross_entropy_against_svm"] = {}
print("               accuracy: training  validation   images ignored  images at full strength")
for name, (history, ignored, full) in comparison.items():
    train_accuracy, validation_accuracy = (history["accuracy"][s][-1] for s in ("training", "validation"))
    print(f"{name:13}  {train_accuracy:18.1%}  {validation_accuracy:10.1%}   {ignored:14.1%}  {full:23.1%}")
    numbers["cross_entropy_against_svm"][name] = {
        "training accuracy": train_accuracy,
        "validation accuracy": validation_accuracy,
        "ignored": ignored,
        "full strength": full,
    }

with course_style():
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4))
    for name, history, colour in (("cross-entropy", history_ce, BLUE), ("SVM", history_svm, VERMILLION)):
        left.plot(100 * np.array(history["accuracy"]["training"]), color=colour, label=f"{name}, training")
        left.plot(100 * np.array(history["accuracy"]["validation"]), "--", color=colour, label=f"{name}, validation")
    left.set(xlabel="epoch", ylabel="accuracy (%)", title=f"Learning, λ = {lam:g}")
    left.legend()
    middle.hist(pushes_ce, bins=np.linspace(0, 1, 21), color=BLUE)
    middle.set(xlabel="1 − p of the true class", ylabel="training images", title="Cross-entropy: who pushes")
    right.hist(pushes_svm, bins=np.arange(K + 1) - 0.5, color=VERMILLION, rwidth=0.9)
    right.set(xlabel="number of active classes", ylabel="training images", title="SVM: who pushes", xticks=range(K))

# %% [markdown]
# Cross-entropy never ignores an image: $1 - p_y$ is small but not zero. The SVM drops those it gets right with room
# to spare. And it counts every violated margin fully, however it comes about. The images at the far right, with all
# nine margins violated, push nine times as hard as those that just miss one, and hardly any weights will ever please
# them. Cross-entropy limits what one image can demand.

# %% [markdown]
# # 6. Bonus
#
# The exercises of this section bring points on top.
#
# ## 6.1 K yes-or-no questions: binary cross-entropy
#
# Softmax lets the classes compete: the probabilities sum to one, so one class can gain only if others lose. Instead we
# can ask each class on its own "is it you?", with the **sigmoid** $\sigma(s) = 1 / (1 + e^{-s})$ as the probability of
# "yes". With the one-hot labels $Y$ as the right answers, the loss is a mean over examples **and classes**:
#
# $$
# L = -\frac{1}{N K} \sum_{n,k}
# \Bigl[ Y_{nk} \ln \sigma(S_{nk}) + (1 - Y_{nk}) \ln \bigl(1 - \sigma(S_{nk})\bigr) \Bigr].
# $$
#
# Stability again. From $-\ln \sigma(s) = \ln(1 + e^{-s})$ and $-\ln(1 - \sigma(s)) = \ln(1 + e^{s})$, both terms are
# the same function, $\ln(1 + e^{z})$, with $z = -s$ for the true class and $z = s$ for the others. And
#
# $$\ln(1 + e^{z}) = \max(0, z) + \ln\bigl(1 + e^{-|z|}\bigr)$$
#
# never takes the exponential of a positive number. (`torch.log1p(x)` is an accurate $\ln(1 + x)$.) The sigmoid needs
# the same care: $1 / (1 + e^{-s})$ for $s \ge 0$, and $e^{s} / (1 + e^{s})$ for $s < 0$.
#
# ### Exercise `binary_cross_entropy` (bonus)
#
# From scores; `y` holds class indices, as everywhere. Mean over $N$ and over $K$. Stable at $\pm 1000$. No regulariser.
#
# **By hand first.** Scores $(0, 0, 0, 0)$ cost $\ln 2$ whatever $y$ is.


# %% exercise="binary_cross_entropy"
def binary_cross_entropy(scores, y):
    """The mean over examples and classes of the binary cross-entropy of sigmoid(scores) against one-hot labels.

    scores (N, K), y (N,) int64  ->  ()
    """
    ### BEGIN SOLUTION
    z = scores.clone()  # (N, K)
    z[torch.arange(len(y)), y] *= -1  # each term is ln(1 + e^z)
    return (torch.clamp(z, min=0) + torch.log1p(torch.exp(-z.abs()))).mean()
    ### END SOLUTION


# %% check="binary_cross_entropy"
check("binary_cross_entropy")

# %% [markdown]
# ### Exercise `binary_cross_entropy_gradients` (bonus)
#
# The gradients of `binary_cross_entropy(linear_scores(X, W, b), y)` $+\ \lambda \sum W^2$. Derive
# $\partial L / \partial S$ yourself; $\frac{d\sigma}{ds} = \sigma (1 - \sigma)$ makes it short. The result has the same
# form as in Section 3, with another $P$ and another constant in front. Stable at scores of $\pm 1000$.


# %% exercise="binary_cross_entropy_gradients"
def binary_cross_entropy_gradients(X, y, W, b, lam):
    """The gradients of binary cross-entropy plus lam times the sum of the squares of W.

    X (N, d), y (N,) int64, W (d, K), b (K,), lam a float  ->  grad_W (d, K), grad_b (K,)
    """
    ### BEGIN SOLUTION
    scores = linear_scores(X, W, b)  # (N, K)
    e = torch.exp(-scores.abs())  # in [0, 1]
    G = torch.where(scores >= 0, torch.ones_like(e), e) / (1 + e)  # sigmoid(scores)
    G[torch.arange(len(y)), y] -= 1
    G /= G.numel()  # N K
    return X.T @ G + 2 * lam * W, G.sum(0)
    ### END SOLUTION


# %% check="binary_cross_entropy_gradients"
check("binary_cross_entropy_gradients")

# %% [markdown]
# The mean over $K$ makes this loss and its gradient about $K$ times smaller. So $\eta$ is ten times larger here, and
# $\lambda$ ten times smaller, than in setting 3.
#
# **Predict first.** For the validation images we look at the probability given to the true class, among those
# classified right and those classified wrong. (a) Which of the two models gives the true class the higher probability
# where it is *wrong*? (b) What do the $K$ probabilities of one image sum to in the binary model?
#
# This takes about 10 seconds.

# %% experiment="binary_against_softmax"
W_bce, b_bce, history_bce = train(
    X_train, y_train, binary_cross_entropy_gradients, binary_cross_entropy, lam=0.01, lr=0.01, epochs=40
)
print(f"binary cross-entropy before training {history_bce['loss']['training'][0]:.3f}, ln 2 = {math.log(2):.3f}")
W_ce, b_ce, history_ce = trained[0.1, 0.001]
scores_bce = linear_scores(X_validation, W_bce, b_bce)
probabilities = {
    "softmax, cross-entropy": softmax(linear_scores(X_validation, W_ce, b_ce)),
    "sigmoid, binary cross-entropy": 1 / (1 + torch.exp(-scores_bce)),
}
p_right, p_wrong, numbers["binary_against_softmax"] = {}, {}, {}
for (name, P), history in zip(probabilities.items(), (history_ce, history_bce), strict=True):
    p_true = P[torch.arange(len(P)), y_validation]  # (N,)
    right = P.argmax(1) == y_validation
    p_right[name], p_wrong[name] = p_true[right], p_true[~right]
    sums = P.sum(1)
    print(
        f"{name:30} accuracy: training {history['accuracy']['training'][-1]:.1%}, validation "
        f"{right.double().mean():.1%}   probabilities of an image sum to {sums.min():.2f} … {sums.max():.2f}"
    )
    numbers["binary_against_softmax"][name] = {
        "validation accuracy": right.double().mean().item(),
        "median p of the true class, right": p_right[name].median().item(),
        "median p of the true class, wrong": p_wrong[name].median().item(),
    }
plot_probability_histograms(p_right, p_wrong, title="Validation images: probability of the true class")

# %% [markdown]
# Nothing makes $K$ separate answers sum to one. All of them start at $\sigma(0) = \frac12$, so the sum starts at
# $K/2 = 5$. In the end it should be 1 on average, one "yes" for each image. What has to move there is the bias, down
# to about $\ln \frac19 = -2.2$, and the mean over $K$ has made its gradient small: 40 epochs are not enough. The
# *order* of the classes, which is all that accuracy asks for, is learnt much sooner than the probabilities. So do not
# read these as "30 % sure".

# %% [markdown]
# ## 6.2 More images for nothing: flipping
#
# A cat seen in a mirror is a cat. So each training image can be shown in a mirror half of the time, with a new throw of
# the coin each time it is used: that is *data augmentation*.
#
# ### Exercise `random_horizontal_flip` (bonus)
#
# Flip each image from left to right with probability `p`, **each with its own draw**.
#
# - `images` has shape $(N, 3, 32, 32)$, so left to right is the *last* axis. Any dtype is kept, `uint8` too.
# - $0 \le p \le 1$. With $p = 0$ no image is flipped and with $p = 1$ every one, without exception.
# - The given images are not changed. All chance comes from `generator`.


# %% exercise="random_horizontal_flip"
def random_horizontal_flip(images, p, generator):
    """Flip each image from left to right with probability p.

    images (N, 3, 32, 32) of any dtype, p a float, generator a torch.Generator  ->  (N, 3, 32, 32), same dtype
    """
    ### BEGIN SOLUTION
    flip = torch.rand(len(images), generator=generator) < p  # (N,); rand is always below 1
    return torch.where(flip[:, None, None, None], images.flip(-1), images)
    ### END SOLUTION


# %% check="random_horizontal_flip"
check("random_horizontal_flip")

# %% [markdown]
# ## 6.3 As good as it gets
#
# The best that this classifier can do, with everything you have: (nearly) all images, a little regulariser, a
# learning rate that falls when progress ends, once without and once with flips.
#
# Note how augmentation comes in. `minibatch_gd` is handed a *function* for the gradients. We hand it one that flips
# and standardises its batch before it calls yours. So `X` can stay in `uint8`, at a quarter of the memory, and
# `minibatch_gd` need not know.
#
# The cost is *convex*: it is a bowl without other valleys, so any start leads to the same bottom. This time we start
# from $W = 0$, and no random grain hides the templates. (Do not try this with networks: a start at zero would keep
# all their units alike.)
#
# **Predict first.** (a) Does flipping help on *your* images? Is a mirrored 3 a 3? (b) What will each template look
# like after training with flips? Think of a horse that looks to the left in half of the images and to the right in
# the others.
#
# This takes about half a minute with CIFAR-10.

# %% experiment="best_effort"
most = load_images(data.name, train=49_000 if data.name == "cifar10" else 10_000, validation=1_000, test=1_000)
rows_most, y_most = most.train.images.flatten(1), most.train.labels  # (N, d) uint8, (N,)
schedule = ((0.003, 6), (0.001, 2), (0.0003, 2))  # learning rate, epochs
numbers["best_effort"] = {"training images": len(rows_most)}
templates = {}
for p in (0.0, 0.5):
    W, b = torch.zeros(d, K), torch.zeros(K)
    order, coin = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)

    def augmented_gradients(rows, y, W, b, lam, p=p, coin=coin):
        images = random_horizontal_flip(unflatten_images(rows), p, coin)
        return cross_entropy_gradients(standardize(flatten_images(images), mean, std), y, W, b, lam)

    for lr, epochs in schedule:
        W, b = minibatch_gd(
            rows_most, y_most, W, b, augmented_gradients,
            lam=0.01, lr=lr, batch_size=100, epochs=epochs, generator=order,
        )  # fmt: skip
    reached = accuracy(X_test, y_test, W, b)
    mirrored = random_horizontal_flip(unflatten_images(W.T), 1.0, coin).flatten(1).T  # (d, K)
    likeness = torch.corrcoef(torch.stack([W.flatten(), mirrored.flatten()]))[0, 1].item()
    print(
        f"{len(rows_most):,} training images, flipped with probability {p}: test accuracy {reached:.1%}, "
        f"correlation of the templates with their mirror images {likeness:.2f}"
    )
    numbers["best_effort"][f"p = {p}"] = {"test accuracy": reached, "correlation with the mirror image": likeness}
    templates[f"p = {p}"] = W

draw_templates(templates, "Templates without and with flips")

# %% [markdown]
# With flips every template becomes its own mirror image, and the horse gets two heads. (In CIFAR-10 it had them
# nearly before: there are photographs from both sides.) On photographs this costs nothing and gains a little. On
# digits it costs a lot, because a mirrored 2 is not a 2 any more: augmentation is only free when it leaves the class
# what it is.
#
# And about 41 % is the end of the road for CIFAR-10. More images, more epochs, another loss or another $\lambda$ move
# it by a point at most. What is missing is not training.

# %% [markdown]
# # What to take along
#
# - Know the loss before training. It is $\ln K$ for cross-entropy, $K - 1$ for the hinge, $\ln 2$ for binary
#   cross-entropy.
# - Compute losses from scores. A probability that has been rounded to 0 cannot be repaired.
# - Check a gradient before you trust it, first without the regulariser.
# - Overfit a few examples before you train on many.
# - The steepest direction limits the learning rate; preparing the inputs decides how much the others get out of it.
# - A regulariser buys simplicity with training accuracy. The validation set tells whether it was worth the price.
# - One template for each class is not enough for horses that look both ways. The next assignment puts a layer in
#   front, so that a class can have several.
#
# Before you hand in: restart the kernel and run all cells, top to bottom. Then call `check()`, which runs all
# checks at once. Hand in the notebook, with its figures.
