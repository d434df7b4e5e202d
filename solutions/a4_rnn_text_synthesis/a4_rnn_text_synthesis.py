# %% [markdown]
# # Assignment 4: RNN text synthesis
#
# A network that has read a book, one character after the other, and then writes on. It knows no words and no grammar.
# All it ever learns is *which character comes next*, and all it has to answer with is a hundred numbers that it
# carries from one character to the next: its **state**. That is a recurrent neural network (RNN).
#
# You will train it by hand, with a gradient that runs *backwards through time*; let it write; replace it by an LSTM, a
# GRU and (as a bonus) a transformer; and look inside. At the end you can say, from your own figures:
#
# - how to derive a gradient through a loop, and why a power of one matrix decides how far it reaches;
# - why a **lower** training loss can come from a **wrong** gradient, and which experiment tells the difference;
# - what temperature and nucleus do to a text, and what is lost at either end;
# - what gates are for;
# - what single numbers inside a network have come to stand for.

# %% [markdown]
# ## How this notebook works
#
# - **Exercises** are functions (and two classes) that you write. Replace the lines `# YOUR CODE HERE` and `raise
#   NotImplementedError()`. Keep the names of functions and arguments.
# - **Checks** (`check("sample")`) run your function on small random inputs and show what is met and what is not. Run
#   them as often as you like. Grading runs the same checks on other numbers, and a few more.
# - **Experiments** use your functions to train and to draw. They are complete: run them from top to bottom, and look.
#   They are not rerun for grading, but their figures are read together with your answers.
# - **Predict first.** Many experiments begin with a question. Write your guess on paper *before* you run the cell.
# - **Written questions** are answered in words and formulas. A person marks them.
#
# With all exercises solved the notebook runs in about ten minutes on one processor core, or in one to three minutes
# in its short version. `check()` without a name runs all checks and adds up the points.

# %% [markdown]
# ## The rules that hold for every exercise
#
# **Names and shapes.** $K$ characters in the vocabulary, $m$ units in the state, $T$ steps in a sequence. A vector is a
# *row*, as in the other assignments: $\mathbf{h}\, W$, not $W \mathbf{h}$.
#
# | name | shape | what |
# |---|---|---|
# | `indices` | $(N,)$ | a text: `int64`, from $0$ to $K-1$ |
# | `inputs`, `targets` | $(T,)$ | a piece of it, and the same piece one character later |
# | one-hot `inputs` | $(T, K)$ | a row for each character, with a single 1 |
# | `h` | $(m,)$ | the state |
# | `logits` | $(K,)$ | one score for each character that might come next |
# | `params` | dict | $U$ $(K, m)$, $W$ $(m, m)$, $V$ $(m, K)$, $b$ $(m,)$, $c$ $(K,)$, under these names |
#
# **What every function keeps to.**
#
# 1. It takes `float32` and `float64`, and its results have the dtype of the parameters. Indices never decide a dtype.
#    A new tensor gets the right one from `torch.zeros_like(…)` or `x.new_zeros(…)`. Where nothing float comes in,
#    torch's default comes out.
# 2. It does not change its arguments, nor a tensor inside them: a dict of parameters comes back as a **new** dict, and
#    the old tensors keep their values. In-place work on tensors that you made yourself is fine.
# 3. It works for any $T \ge 1$, $K \ge 2$ and $m \ge 1$, and for tensors that are not contiguous in memory.
# 4. It remembers nothing between two calls. What belongs together is passed on: a state, a cache.
# 5. Chance comes from the argument `generator` and from nowhere else; the same state of the generator gives the same
#    result.
# 6. Several results are returned as a tuple, `return loss, h, cache`. A shape `()` means a 0-d tensor. A `cache` is
#    yours: put into it whatever your backward function needs, in any form. Nobody else looks inside.
# 7. It uses its arguments, imports and functions. Variables of the experiments do not exist when your work is graded.
#    Helper functions of your own are welcome; put them into the cell of the exercise that needs them.
#
# An exercise may call the functions of earlier ones, and should where that is natural. If an earlier one is wrong, the
# later one is judged again with a right one in its place, so you lose the points only once.
#
# **What you may not call**, because it is what the exercises ask for: automatic differentiation (`torch.autograd`,
# `backward`, `requires_grad`, `torch.func`), the recurrent modules and cells of `torch.nn` (`nn.RNN`, `nn.LSTMCell`,
# …), `torch.optim`, `torch.nn.utils.clip_grad_…`, `F.scaled_dot_product_attention`, `nn.MultiheadAttention` and
# `nn.Transformer…`; nor what hides which function is called (`eval`, `getattr` with a computed name, `__dict__`,
# files).
# **Everything else you may call**, because you have earned it in Assignment 1 or because it is not what is asked for:
# softmax, `log_softmax`, `logsumexp`, `F.cross_entropy`, `F.one_hot`, `torch.sigmoid`, `torch.multinomial`, the other
# layers of `torch.nn` (`nn.Module`, `nn.CrossEntropyLoss`, `nn.Softmax`, `nn.Linear` …), loops and NumPy. The exercises
# from `CharLSTM` on may use more, and say what. The checks here refuse what they see called by its name. Grading reads
# all of your code, and also sees what hides a call.
#
# **Letters.** There are fewer letters than things. From Section 5 on $\mathbf{c}$, $\mathbf{g}$ and $\mathbf{z}$ stand
# for parts of a gated cell, in Section 6 $N$ is a number of streams, and in Section 7 $K$ and $V$ are keys and values.

# %% setup="install"
# On Google Colab this cell installs what the notebook needs; everywhere else it only looks whether it is there.
import glob
import importlib.util
import os
import shutil
import sys
import zipfile

if "google.colab" in sys.modules and not os.path.exists("checks.py"):
    wanted = "*/assignments/a4_rnn_text_synthesis"
    if not glob.glob(wanted):
        for archive in filter(zipfile.is_zipfile, glob.glob("*.zip")):
            shutil.unpack_archive(archive, format="zip")
    if not glob.glob(wanted):
        print("Choose the assignment's zip file, as your course gave it to you.")
        from google.colab import files

        for archive in filter(zipfile.is_zipfile, files.upload()):
            shutil.unpack_archive(archive, format="zip")
    if not glob.glob(wanted):
        raise FileNotFoundError("No zip file here holds a4_rnn_text_synthesis; run this cell again and choose it.")
    bundle = glob.glob(wanted)[0].split(os.sep)[0]
    sys.path.insert(0, os.path.abspath(bundle))
    from course_utils.colab import install

    install(bundle, "a4_rnn_text_synthesis")
elif importlib.util.find_spec("course_utils") is None:
    raise ModuleNotFoundError(
        f"The course's package is not in {sys.prefix}: choose the kernel of the environment in which you ran "
        "`pip install .` (in VS Code at the top right), or run that in the folder of the bundle."
    )

# %% setup
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.data import load_text
from course_utils.gradients import check_gradients
from course_utils.plots import BLUE, GREEN, ORANGE, PURPLE, VERMILLION, course_style, plot_coloured_text

torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it gains
numbers = {}  # what each experiment measured, by the name of the experiment

# %% setup="check"
import checks

from course_utils.checking import checker

check = checker(checks)

# %% [markdown]
# # 1. From characters to numbers
#
# ## 1.1 The text
#
# The cell below loads a text. It takes Shakespeare's plays where this machine has them or can download them, and
# otherwise the manual that comes with every Python. `load_text("moby_dick")` or `load_text("my_diary.txt")` take
# another one. All exercises and all questions are the same for every text; only the numbers differ.
#
# `full` says whether the experiments run at full length (about ten minutes) or short (one to three minutes; then the
# network has hardly learnt to spell, it is worse than the tables of Section 6.1, and Question 3 has little to look
# at). Set it as you like while you work, and to `True` before you answer the written questions.

# %% experiment="text"
T = 25  # characters in a chunk
data = load_text("auto", chunk=T)
full = data.name != "python_topics"
print(data, "\n")
print(data.text[:300])
numbers["text"] = {"text": data.name, "characters": len(data), "full length": full}

# %% [markdown]
# ## 1.2 A number for each character
#
# ### Exercise `build_vocabulary`
#
# Number the distinct characters of a text from 0 to $K - 1$ and return two dicts, one for each direction.
#
# - In **sorted** order (`sorted` compares characters by their code points). A Python `set` has no order that you can
#   rely on: from one start of Python to the next it may list the same letters differently, and then a network that was
#   trained and saved yesterday reads `e` as `q` today.
# - Every character counts, the newline and the space too.
#
# **By hand first.** For `"banana\n"`: `{"\n": 0, "a": 1, "b": 2, "n": 3}` and
# `{0: "\n", 1: "a", 2: "b", 3: "n"}`.


# %% exercise="build_vocabulary"
def build_vocabulary(text):
    """Number the distinct characters of a text, in sorted order.

    text a str  ->  char_to_index {str: int}, index_to_char {int: str}
    """
    ### BEGIN SOLUTION
    characters = sorted(set(text))
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))
    ### END SOLUTION


# %% check="build_vocabulary"
check("build_vocabulary")

# %% [markdown]
# ### Exercise `encode`
#
# The indices of a text's characters, as an `int64` tensor of shape $(N,)$ (also for the empty text, $N = 0$). A
# character that is not in the vocabulary raises a `KeyError` that names it. This is what `char_to_index[c]` does by
# itself; `char_to_index.get(c)` would hide the trouble.


# %% exercise="encode"
def encode(text, char_to_index):
    """The index of every character; KeyError, naming it, for a character that is not in the vocabulary.

    text a str of N characters, char_to_index {str: int}  ->  (N,) int64
    """
    ### BEGIN SOLUTION
    return torch.tensor([char_to_index[c] for c in text], dtype=torch.int64)
    ### END SOLUTION


# %% check="encode"
check("encode")

# %% [markdown]
# ### Exercise `decode`
#
# The way back, from a tensor of indices to a `str`. Mind that the elements of a tensor are tensors, and a tensor is
# never equal to a key of a dict: `.tolist()` gives Python ints. An index that is not in the vocabulary raises a
# `KeyError` that names it.


# %% exercise="decode"
def decode(indices, index_to_char):
    """The text that a sequence of indices stands for; KeyError, naming it, for an index that is not in the vocabulary.

    indices (N,) int64, index_to_char {int: str}  ->  a str of N characters
    """
    ### BEGIN SOLUTION
    return "".join(index_to_char[i] for i in indices.tolist())
    ### END SOLUTION


# %% check="decode"
check("decode")

# %% [markdown]
# ## 1.3 One-hot
#
# An index is a name, not a quantity: `e` is not larger than `d`. So a network must not compute with it. The honest
# vector for character number $k$ has $K$ entries, a 1 at place $k$ and 0 elsewhere: all characters are equally far
# from one another.
#
# What does a matrix do with it? If $\mathbf{x}$ is one-hot at $k$, then $\mathbf{x}\, U$ is **row $k$ of $U$**, nothing
# else. Multiplying is a waste; `U[k]` reads the row. Keep both views in mind: the formulas are written with
# $\mathbf{x}\, U$, and fast code indexes.
#
# ### Exercise `one_hot`
#
# The $(T, K)$ matrix with one row for each index, in torch's default float dtype (what `torch.zeros(…)` gives).
#
# **By hand first.** Indices $(2, 0)$ with $K = 3$: the rows $(0, 0, 1)$ and $(1, 0, 0)$.


# %% exercise="one_hot"
def one_hot(indices, K):
    """One row for each index: 1 in the column of that index, 0 elsewhere, in torch's default float dtype.

    indices (T,) int64, K an int  ->  (T, K)
    """
    ### BEGIN SOLUTION
    rows = torch.zeros(len(indices), K)
    rows[torch.arange(len(indices)), indices] = 1
    return rows
    ### END SOLUTION


# %% check="one_hot"
check("one_hot")

# %% [markdown]
# **Predict first.** The next figure shows a line of the text, one-hot. Time runs down. Where is the picture empty from
# top to bottom, and what do the space characters look like?

# %% experiment="one_hot_picture"
char_to_index, index_to_char = build_vocabulary(data.text)
K = len(char_to_index)
newline = char_to_index.get("\n", 0)
indices = encode(data.text, char_to_index)
training, held_out = indices[: int(0.9 * len(indices))], indices[int(0.9 * len(indices)) :]
print(f"K = {K} characters: {''.join(index_to_char.values())!r}")
print(f"{len(training):,} characters to train on, the last {len(held_out):,} are held out")
assert decode(indices, index_to_char) == data.text

line = next((row for row in data.text.split("\n") if 30 <= len(row) <= 60), data.text[:40])
with course_style():
    fig, ax = plt.subplots(figsize=(11, 0.16 * len(line) + 1))
    ax.imshow(one_hot(encode(line, char_to_index), K), cmap="Greys", aspect="auto")
    ax.set_xticks(range(K), [{" ": "space", "\n": "newline"}.get(c, c) for c in char_to_index], fontsize=7)
    ax.tick_params(axis="x", labelrotation=90)
    ax.set_yticks(range(len(line)), ["space" if c == " " else c for c in line], fontsize=7)
    ax.set(xlabel="index of the vocabulary", ylabel="time ↓", title="A line of the text, one-hot (black is 1)")
    ax.grid(alpha=0.4, linewidth=0.4)
numbers["one_hot_picture"] = {"K": K, "training": len(training), "held out": len(held_out)}

# %% [markdown]
# Empty from top to bottom are the columns of all characters that this line does not have: most capitals, digits and
# signs. The spaces stand below one another in a single column, one after each word. Nothing in the picture says that
# `e` and `E` are related, or that `a` and `o` are both vowels: if that is worth knowing, the network has to find it
# out.

# %% [markdown]
# ## 1.4 Chunks
#
# The task is always the same: having read up to here, what comes next? So **the target of every character is its
# successor**, and a text of $N$ characters holds $N - 1$ tasks. A training step takes $T$ of them. The chunks are
# consecutive: each begins where the last one ended, so that the state can be carried across.
#
# ```
# text            0 1 2 3 4 5 6 7           T = 3
# inputs          0 1 2 | 3 4 5 | 6
# targets         1 2 3 | 4 5 6 | 7
# ```
#
# ### Exercise `chunks`
#
# A list of pairs `(inputs, targets)`.
#
# - Every one of the $N - 1$ tasks occurs exactly once, in order. The first character is never a target, the last one
#   never an input.
# - The last pair is shorter when $T$ does not divide $N - 1$; it is kept. A pair is never empty (when $T$ *does*
#   divide $N - 1$, there is no rest).
# - With fewer than 2 characters there is nothing to predict: raise a `ValueError` that says so.
#
# The mistake to fear is a shift of zero, where the network is asked for the character it has just been given. It trains
# wonderfully. Section 4.3 shows how well.


# %% exercise="chunks"
def chunks(indices, T):
    """Cut a text into consecutive pairs of inputs and targets, the targets one character ahead.

    indices (N,) int64, T an int  ->  list of (inputs (T,), targets (T,)), the last ones maybe shorter;
    ValueError for fewer than 2 characters
    """
    ### BEGIN SOLUTION
    if len(indices) < 2:
        raise ValueError(f"a text of {len(indices)} characters has nothing to predict; it takes at least 2")
    return list(zip(indices[:-1].split(T), indices[1:].split(T), strict=True))
    ### END SOLUTION


# %% check="chunks"
check("chunks")

# %% [markdown]
# # 2. A network with a state
#
# ## 2.1 Forward
#
# At every step the network reads one character $\mathbf{x}_t$ and mixes it with what it remembers:
#
# $$
# \mathbf{a}_t = \mathbf{x}_t U + \mathbf{h}_{t-1} W + \mathbf{b}, \qquad
# \mathbf{h}_t = \tanh(\mathbf{a}_t), \qquad
# \mathbf{s}_t = \mathbf{h}_t V + \mathbf{c} .
# $$
#
# The state $\mathbf{h}_t$ is all that is left of everything read so far. $\mathbf{s}_t$ are the logits: the softmax of
# $\mathbf{s}_t$ is the probability of each character to come next. The same five parameters are used at every step. If
# you unroll the loop, you see a network with $T$ layers **that all share their weights**, with an input and a loss at
# each layer:
#
# ```
#             loss 1      loss 2      loss 3
#               ↑ V         ↑ V         ↑ V
#    h0 ──W──→ h1 ───W───→ h2 ───W───→ h3 ──→ to the next chunk
#               ↑ U         ↑ U         ↑ U
#              x1          x2          x3
# ```
#
# The loss of a chunk is the **mean** over its $T$ steps of the cross-entropy of Assignment 1:
#
# $$ L = \frac1T \sum_{t=1}^{T} \ell_t, \qquad \ell_t = -\ln \operatorname{softmax}(\mathbf{s}_t)_{y_t} . $$
#
# (The course's older material sums instead of averaging. A summed loss of 109.5 over 25 characters of an alphabet of 80
# is our $109.5 / 25 = 4.38 = \ln 80$.)
#
# ### Exercise `init_rnn`
#
# The dict with `"U"` $(K, m)$, `"W"` $(m, m)$, `"V"` $(m, K)$, `"b"` $(m,)$ and `"c"` $(K,)$, all `float32`. Every
# entry of the matrices is drawn from $\mathcal{N}(0, \sigma^2)$: `sigma` is the standard deviation, not the variance.
# The biases are 0.


# %% exercise="init_rnn"
def init_rnn(K, m, *, sigma, generator):
    """Random parameters: the matrices from N(0, sigma²), the biases 0.

    K, m ints, sigma a float, generator a torch.Generator
    ->  {"U": (K, m), "W": (m, m), "V": (m, K), "b": (m,), "c": (K,)}, float32
    """
    ### BEGIN SOLUTION
    shapes = {"U": (K, m), "W": (m, m), "V": (m, K)}
    params = {
        name: sigma * torch.randn(shape, generator=generator, dtype=torch.float32) for name, shape in shapes.items()
    }
    return params | {"b": torch.zeros(m, dtype=torch.float32), "c": torch.zeros(K, dtype=torch.float32)}
    ### END SOLUTION


# %% check="init_rnn"
check("init_rnn")

# %% [markdown]
# ### Exercise `rnn_forward`
#
# Return the loss (a 0-d tensor), the last state $\mathbf{h}_T$, and a cache for `rnn_backward`.
#
# - `inputs` comes in **two forms**: $(T,)$ indices or $(T, K)$ one-hot rows. `inputs.ndim` tells them apart, and both
#   give the same result. One-hot rows may have another float dtype than the parameters; the result has the parameters'.
# - `targets` is always $(T,)$ indices.
# - `h0` is any state, not only zero. It must be used at the first step, and the cache must remember it.
# - The mean over the $T$ steps, not the sum.
# - Only the states need a loop over time. $\mathbf{x}_t U$ for all $t$, and $\mathbf{h}_t V$ for all $t$, are one
#   operation each, before and after the loop.
#
# **By hand first.** $K = 2$, $m = 1$, $U = (1, -1)^\top$, $W = (2)$, $V = (1, 0)$, no biases, $h_0 = 0.5$, and one step
# from character 0 to character 1. Then $a_1 = 1 + 0.5 \cdot 2 = 2$, $h_1 = \tanh 2 = 0.9640$, the logits are $(0.9640,
# 0)$, and $L = \ln(1 + e^{0.9640}) = 1.2871$. With $h_0 = 0$ it would be $1.1448$.


# %% exercise="rnn_forward"
def rnn_forward(params, inputs, targets, h0):
    """The mean cross-entropy of a vanilla RNN over a sequence, its last state, and what backward needs.

    params as of init_rnn, inputs (T,) int64 or (T, K) one-hot, targets (T,) int64, h0 (m,)  ->  (), (m,), cache
    """
    ### BEGIN SOLUTION
    U, W, V, b, c = (params[name] for name in "UWVbc")
    a = U[inputs] if inputs.ndim == 1 else inputs.to(U.dtype) @ U  # (T, m): a one-hot row picks a row of U
    a = a + b
    h = h0
    states = [h0]
    for a_t in a.unbind():
        h = torch.tanh(a_t + h @ W)
        states.append(h)
    H = torch.stack(states)  # (T + 1, m), h_0 … h_T
    logits = H[1:] @ V + c  # (T, K)
    return F.cross_entropy(logits, targets), h, (inputs, targets, H, logits)
    ### END SOLUTION


# %% check="rnn_forward"
check("rnn_forward")

# %% [markdown]
# **Predict first.** Before training: what is the loss with $\sigma = 0.01$? What is it with $\sigma = 1$: smaller,
# larger, the same? (Section 2.6 of Assignment 1 knows.) The unit of a loss with the natural logarithm is the **nat**;
# 0.69 nats are a bit.

# %% experiment="before_training"
m = 100
numbers["before_training"] = {"ln K": math.log(K)}
for sigma in (0.01, 0.1, 1.0):
    params = init_rnn(K, m, sigma=sigma, generator=torch.Generator().manual_seed(0))
    loss, _, _ = rnn_forward(params, training[:1000], training[1:1001], torch.zeros(m))
    print(f"σ = {sigma:4}: loss {loss:.3f}   ln K = {math.log(K):.3f}   summed over 25 characters {25 * loss:.1f}")
    numbers["before_training"][f"σ = {sigma}"] = loss.item()

# %% [markdown]
# With a small σ all logits are nearly 0 and all characters equally likely: $\ln K$, the loss of somebody who knows
# nothing and admits it. With $\sigma = 1$ it is several times worse. The entries of the state are near $\pm 1$ then, so
# every logit is a sum of a hundred numbers of size 1, which is of size 10. The largest of $K$ such logits is above 20,
# while that of the target is 0 on average: the network is certain, and of the wrong character. The cross-entropy
# charges the difference. Knowing nothing is cheap; being sure of something false is expensive. That is why we start
# small.

# %% [markdown]
# ## 2.2 Backwards through time
#
# The unrolled network is a chain, and the chain rule walks it backwards. Four steps; write the shapes beside them.
#
# **Step 1, the logits.** As in Assignment 1, with the one-hot target $\mathbf{y}_t$ and the mean over $T$:
#
# $$ \mathbf{g}_t = \frac{\partial L}{\partial \mathbf{s}_t} = \frac1T (\mathbf{p}_t - \mathbf{y}_t) \qquad (K,) . $$
#
# **Step 2, the states.** Whom does $\mathbf{h}_t$ influence? Follow the arrows that leave it in the drawing: its own
# prediction through $V$, *and the next state through $W$*. Two ways out, so two terms:
#
# $$
# \frac{\partial L}{\partial \mathbf{h}_t} =
# \underbrace{\mathbf{g}_t V^\top}_{\text{from its own loss}} +
# \underbrace{\frac{\partial L}{\partial \mathbf{a}_{t+1}} W^\top}_{\text{from the future}} \qquad (m,) .
# $$
#
# At the last step nothing comes from the future (the chunk ends there; Section 2.5 asks what that costs), so the second
# term is zero at $t = T$.
#
# **Step 3, through the tanh.** $\tanh' = 1 - \tanh^2$, and $\tanh(\mathbf{a}_t)$ is $\mathbf{h}_t$:
#
# $$
# \boldsymbol\delta_t = \frac{\partial L}{\partial \mathbf{a}_t} =
# \bigl( \mathbf{g}_t V^\top + \boldsymbol\delta_{t+1} W^\top \bigr) \odot (1 - \mathbf{h}_t^2),
# \qquad \boldsymbol\delta_{T+1} = \mathbf{0} .
# $$
#
# The whole sum goes through the tanh, the part from the future too. This recursion *is* back-propagation through time:
# it starts at $t = T$ and counts down.
#
# **Step 4, the parameters.** Each is used at *every* step, so its gradient is a **sum over time**:
#
# $$
# \frac{\partial L}{\partial V} = \sum_t \mathbf{h}_t^\top \mathbf{g}_t, \quad
# \frac{\partial L}{\partial \mathbf{c}} = \sum_t \mathbf{g}_t, \quad
# \frac{\partial L}{\partial W} = \sum_t \mathbf{h}_{t-1}^\top \boldsymbol\delta_t, \quad
# \frac{\partial L}{\partial U} = \sum_t \mathbf{x}_t^\top \boldsymbol\delta_t, \quad
# \frac{\partial L}{\partial \mathbf{b}} = \sum_t \boldsymbol\delta_t .
# $$
#
# Mind the $t - 1$: $W$ multiplies the *previous* state, and at $t = 1$ that is $\mathbf{h}_0$, which need not be zero.
#
# Put rows below one another, and each sum is one matrix product: with $\Delta$ $(T, m)$ the rows
# $\boldsymbol\delta_t$, $\partial L/\partial W = H_{0 \dots T-1}^\top\, \Delta$.
#
# ### Exercise `rnn_backward`
#
# The gradients of the loss of `rnn_forward`, in a dict with exactly the keys of `params`, each of the shape of its
# parameter. Not clipped. From a `cache` that your own `rnn_forward` has made, with inputs of either form.
#
# - With indices, $\sum_t \mathbf{x}_t^\top \boldsymbol\delta_t$ means: *add* row $t$ of $\Delta$ to row
#   `inputs[t]` of the result. A character that occurs twice gets both. `grad_U[inputs] += Delta` keeps only one of
#   them; `index_add_` (or a product with one-hot rows) adds.
# - Calling it twice with the same cache gives the same result twice.
#
# **By hand first.** In the example above $\mathbf{p} = (0.7239, 0.2761)$ and $\mathbf{g} = (0.7239, -0.7239)$. So
# $\partial L / \partial h = 0.7239$, $\delta = 0.7239 \cdot (1 - 0.9640^2) = 0.0511$, and the gradients are: $V$
# $(0.6979, -0.6979)$, $c$ $(0.7239, -0.7239)$, $b$ $0.0511$, $U$ $(0.0511, 0)^\top$, $W$ $0.5 \cdot 0.0511 = 0.0256$.


# %% exercise="rnn_backward"
def rnn_backward(params, cache):
    """The gradients of the loss of `rnn_forward` through all T steps, not clipped.

    params as of init_rnn, cache as of rnn_forward  ->  a dict with the keys and shapes of params
    """
    ### BEGIN SOLUTION
    inputs, targets, H, logits = cache
    T = len(targets)
    G = torch.softmax(logits, 1)  # (T, K), becomes the gradient with respect to the logits
    G[torch.arange(T), targets] -= 1
    G /= T
    from_logits = G @ params["V"].T  # (T, m), what reaches h_t from its own prediction
    slope = 1 - H[1:] ** 2  # (T, m), tanh′
    delta = torch.zeros_like(H[0])  # what comes back from beyond the end
    backwards = []
    for g_t, slope_t in zip(reversed(from_logits.unbind()), reversed(slope.unbind()), strict=True):
        delta = (g_t + params["W"] @ delta) * slope_t
        backwards.append(delta)
    D = torch.stack(backwards[::-1])  # (T, m), the gradient with respect to each a_t
    grad_U = torch.zeros_like(params["U"]).index_add_(0, inputs, D) if inputs.ndim == 1 else inputs.to(D.dtype).T @ D
    return {"U": grad_U, "W": H[:-1].T @ D, "V": H[1:].T @ G, "b": D.sum(0), "c": G.sum(0)}
    ### END SOLUTION


# %% check="rnn_backward"
check("rnn_backward")

# %% [markdown] written="gradient_of_W" points=4
# ### Written question 1 (4 points)
#
# Take a network that, for its prediction, looks at its last *two* states: $\mathbf{s}_t = \mathbf{h}_t V +
# \mathbf{h}_{t-1} R + \mathbf{c}$, with one more matrix $R$ $(m, K)$. Everything else is as above.
#
# - (a) Derive $\partial L / \partial W$ for it, and $\partial L / \partial R$ and $\partial L / \partial \mathbf{h}_0$.
#   Begin with everything that $\mathbf{h}_t$ influences; say where sums over $t$ come from, what the recursion for
#   $\boldsymbol\delta_t$ is, and what stands at its end, $t = T$.
# - (b) Back to the network of the text. Let no slope of the tanh be larger than $\gamma$, and let $W^\top$ make no
#   vector longer than $s$ times what it was. Bound the length of the part of $\boldsymbol\delta_t$ that comes from the
#   loss $k$ steps later. When is that part sure to vanish for large $k$? Is it sure to explode otherwise?
# - (c) What do you leave out when you set $\boldsymbol\delta_{t+1} W^\top$ to zero everywhere? Of what is the result
#   still a gradient, and for which parameters is it right all the same?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** $\mathbf{h}_t$ enters three things: $\mathbf{s}_t$ through $V$, $\mathbf{s}_{t+1}$ through $R$ and
# $\mathbf{a}_{t+1}$ through $W$. So, with $\mathbf{g}_t = \partial L / \partial \mathbf{s}_t = \frac1T (\mathbf{p}_t -
# \mathbf{y}_t)$ as before,
#
# $$
# \boldsymbol\delta_t = \bigl( \mathbf{g}_t V^\top + \mathbf{g}_{t+1} R^\top + \boldsymbol\delta_{t+1} W^\top \bigr)
# \odot (1 - \mathbf{h}_t^2), \qquad \mathbf{g}_{T+1} = \mathbf{0}, \quad \boldsymbol\delta_{T+1} = \mathbf{0},
# $$
#
# because there is no step $T + 1$. For the parameters think of a copy $W_t$ of $W$ for each step: $L$ depends on $W$
# through all of them, and the chain rule for several arguments gives $\frac{\partial L}{\partial W} = \sum_t
# \frac{\partial L}{\partial W_t}$. $W_t$ enters only $a_{t,j} = \dots + \sum_i h_{t-1,i} (W_t)_{ij}$, so its gradient
# is $\mathbf{h}_{t-1}^\top \boldsymbol\delta_t$, and $\frac{\partial L}{\partial W} = \sum_t \mathbf{h}_{t-1}^\top
# \boldsymbol\delta_t$: the formula of the text, with another $\boldsymbol\delta_t$. In the same way $\frac{\partial
# L}{\partial R} = \sum_t \mathbf{h}_{t-1}^\top \mathbf{g}_t$. $\mathbf{h}_0$ enters $\mathbf{s}_1$ and $\mathbf{a}_1$
# and comes out of no tanh of ours: $\frac{\partial L}{\partial \mathbf{h}_0} = \mathbf{g}_1 R^\top +
# \boldsymbol\delta_1 W^\top$.
#
# **(b)** That part is $\mathbf{g}_{t+k} V^\top D_{t+k}\, W^\top D_{t+k-1}\, W^\top \cdots W^\top D_t$ with $D_t =
# \operatorname{diag}(1 - \mathbf{h}_t^2)$: $k$ factors $W^\top$ and $k + 1$ factors $D$. A factor $D$ makes no vector
# longer than $\gamma$ times what it was, so its length is at most $\lVert \mathbf{g}_{t+k} V^\top \rVert\, \gamma^{k+1}
# s^k$. With $\gamma s < 1$ it vanishes, at least as fast as a geometric sequence. With $\gamma s > 1$ nothing is sure:
# this is a bound from above. The vector may lie where $W^\top$ shortens it, and the slopes may be far below their
# maximum (large states flatten the tanh).
#
# **(c)** Every influence of a state on *later* losses. What remains is the gradient of the loss in which every
# $\mathbf{h}_{t-1}$ is taken for a given constant, as if the state were an input that somebody else supplies: it learns
# to *use* the state it finds, never to *write* into the state what will be needed later. As a gradient of $L$ it is
# wrong, except where $W = 0$ or $T = 1$. The gradients of $V$ and $\mathbf{c}$ stay right, since they need no
# $\boldsymbol\delta$.
#
# *Marking guide.* (a) 2 points: the sum over uses of $W$ (half), the factor $\mathbf{h}_{t-1}$ in both gradients
# (half), all three ways out of $\mathbf{h}_t$, through the tanh and with zeros at the end (half), $\mathbf{h}_0$
# without a tanh (half). (b) 1 point: the bound (half; $\gamma^k$ for $\gamma^{k+1}$ is no loss), and that it proves
# vanishing but no explosion (half). (c) 1 point: later losses (half), and the state as a constant or an input, or
# "reads but does not write" (half; $V$ and $\mathbf{c}$ alone earn a quarter).
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## 2.3 The gradient report
#
# As in Assignment 1, the analytic gradient is held against centred differences, in `float64`, over $T = 25$ steps and
# from a state that is not zero. The parameters are larger than at the start of training, so that the states matter.


# %% experiment="gradient_report"
def random_problem(seed, K=9, m=6, T=25, scale=0.6):
    """Parameters in float64 with biases, inputs, targets and a state, none of them zero."""
    generator = torch.Generator().manual_seed(seed)
    params = init_rnn(K, m, sigma=scale, generator=generator)
    params = {name: (p + 0.1 * torch.randn(p.shape, generator=generator)).double() for name, p in params.items()}
    inputs, targets = torch.randint(0, K, (2, T), generator=generator)
    return params, inputs, targets, torch.randn(m, generator=generator, dtype=torch.float64).tanh()


def report(gradients):
    """Hold the gradients of a function of params, inputs, targets, h0 against the numerical ones of `rnn_forward`."""
    params, inputs, targets, h0 = random_problem(seed=0)
    return check_gradients(
        lambda U, W, V, b, c: rnn_forward(dict(U=U, W=W, V=V, b=b, c=c), inputs, targets, h0)[0],
        params,
        gradients(params, inputs, targets, h0),
        sizes={"T": len(inputs), "K": 9},
    )


def healthy(params, inputs, targets, h0):
    """Your own gradients."""
    _, _, cache = rnn_forward(params, inputs, targets, h0)
    return rnn_backward(params, cache)


report_healthy = report(healthy)
numbers["gradient_report"] = {"passed": bool(report_healthy.passed)}
report_healthy

# %% [markdown]
# ### Learn to read it: three patients
#
# The functions below use your gradient, which is right by now, and spoil it in ways in which students' solutions often
# are wrong. **Predict first**: which parameters fail in which report? Then read the three.


# %% experiment="patients"
def patient_1(params, inputs, targets, h):
    """Cuts the sequence into pieces of one character, so that nothing flows from one step to another."""
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for t in range(len(inputs)):
        _, h, cache = rnn_forward(params, inputs[t : t + 1], targets[t : t + 1], h)
        for name, grad in rnn_backward(params, cache).items():
            total[name] = total[name] + grad / len(inputs)
    return total


def patient_2(params, inputs, targets, h0):
    """Believes that every text begins with the state zero."""
    _, _, cache = rnn_forward(params, inputs, targets, torch.zeros_like(h0))
    return rnn_backward(params, cache)


def patient_3(params, inputs, targets, h0):
    """Sums the losses where their mean is asked for."""
    _, _, cache = rnn_forward(params, inputs, targets, h0)
    return {name: len(inputs) * grad for name, grad in rnn_backward(params, cache).items()}


patients = {f.__name__: report(f) for f in (patient_1, patient_2, patient_3)}
numbers["patients"] = {name: bool(r.passed) for name, r in patients.items()}
patients["patient_1"]

# %% experiment="patient_2"
patients["patient_2"]

# %% experiment="patient_3"
patients["patient_3"]

# %% [markdown]
# <details><summary><b>Open only after you have read the three reports</b></summary>
#
# **Patient 1** has the gradients of $V$ and $\mathbf{c}$ right, and those of $U$, $W$ and $\mathbf{b}$ wrong, by
# nothing that a constant could mend. It is the most instructive mistake of this assignment, and we shall meet it again:
# back-propagation through *one* step. **Patient 2** is wrong everywhere, and most of all in $W$, which meets the state
# $\mathbf{h}_0$ itself. With a test that starts from the state zero, as most tests do, it would pass. **Patient 3** is
# 25 times too large in every entry. AdaGrad (Section 3.2) would not even notice.
#
# </details>

# %% [markdown]
# ## 2.4 How far does the gradient reach?
#
# Unroll the recursion for the loss $\ell_t$ of one step (so without the $\frac1T$ of the mean). What it tells
# $\mathbf{a}_{t-k}$, $k$ steps earlier, has passed $k$ times through $W^\top$ and $k + 1$ times through a slope of the
# tanh:
#
# $$
# \frac{\partial \ell_t}{\partial \mathbf{a}_{t-k}} =
# (\mathbf{p}_t - \mathbf{y}_t)\, V^\top D_t\, W^\top D_{t-1}\, W^\top \cdots W^\top D_{t-k},
# \qquad D_s = \operatorname{diag}(1 - \mathbf{h}_s^2) .
# $$
#
# A product of $k$ similar matrices behaves like a power: it shrinks or grows like $\rho^k$. Shrinking, the gradient
# **vanishes**, and what happened twenty characters ago cannot be learnt. Growing, it **explodes**, and one step throws
# the parameters away. For a matrix with independent entries of standard deviation $\rho / \sqrt m$ the largest
# eigenvalue has about the size $\rho$. The slopes are at most 1.
#
# We measure it with your functions. Two tricks. The gradient of the *last* loss alone is $T\, \nabla L_{1 \dots T} -
# (T - 1)\, \nabla L_{1 \dots T-1}$, because $L$ is a mean. And when all $T$ characters are different, row `inputs[t]`
# of the gradient of $U$ *is* $\boldsymbol\delta_t$.
#
# **Predict first.** (a) $\rho = 0.5$, $1$ and $2$: how large is the gradient 40 steps back, relative to now, in each?
# (b) For $\rho = 2$ will it grow like $2^{40} = 10^{12}$? What could hold it back?

# %% experiment="gradient_through_time"
steps, units = 50, 100
scales = {0.5: BLUE, 1.0: GREEN, 2.0: VERMILLION}
numbers["gradient_through_time"] = {}


def last_loss_gradients(params, inputs, targets, h0):
    """The gradients of the loss of the last step alone."""
    T = len(inputs)
    whole = rnn_backward(params, rnn_forward(params, inputs, targets, h0)[2])
    before = rnn_backward(params, rnn_forward(params, inputs[:-1], targets[:-1], h0)[2])
    return {name: T * whole[name] - (T - 1) * before[name] for name in params}


with course_style():
    fig, ax = plt.subplots(figsize=(8, 4.4))
    for rho, colour in scales.items():
        curves = []
        for seed in range(5):
            generator = torch.Generator().manual_seed(seed)
            params = {n: p.double() for n, p in init_rnn(steps, units, sigma=0.1, generator=generator).items()}
            params["W"] *= rho / math.sqrt(units) / 0.1
            inputs = torch.randperm(steps, generator=generator)  # all different
            targets = torch.randint(0, steps, (steps,), generator=generator)
            grad_U = last_loss_gradients(params, inputs, targets, torch.zeros(units).double())["U"]
            norms = grad_U[inputs].norm(dim=1).flip(0)  # (T,), by distance from the last step
            curves.append(norms / norms[0])
        curves = torch.stack(curves)
        mean = curves.log().mean(0).exp()
        ax.semilogy(mean, color=colour, label=f"ρ = {rho:g}")
        ax.fill_between(range(steps), curves.amin(0), curves.amax(0), color=colour, alpha=0.15, linewidth=0)
        ax.semilogy(rho ** torch.arange(steps).double(), ":", color=colour, linewidth=1)
        largest = torch.linalg.eigvals(params["W"]).abs().max().item()
        numbers["gradient_through_time"][f"ρ = {rho:g}, 40 steps back"] = mean[40].item()
        print(
            f"ρ = {rho:3g}: largest |eigenvalue| of W {largest:.2f}; 40 steps back the gradient is {mean[40]:.1e} times"
        )
    ax.plot([], [], ":", color="black", linewidth=1, label="ρᵏ")
    ax.set(
        xlabel="distance in time k (steps)",
        ylabel="gradient, relative to k = 0",
        title="How much of the last loss reaches the state k steps earlier (5 draws)",
        ylim=(1e-14, 1e14),
    )
    ax.legend()

# %% [markdown]
# Both plagues, from one number. With $\rho = 0.5$ ten steps are as far as anything is ever learnt. With $\rho = 2$ the
# gradient explodes, but far more slowly than $2^k$: large states flatten the tanh, the slopes $1 - h^2$ fall, and the
# product is held back. (At its far end the red curve bends upwards. That is the beginning of the text, where the states
# are still near their zero start and the slopes near 1.) Even at $\rho = 1$ the slopes make it shrink. There is no
# scale that is right for every distance. Two remedies follow: *clipping* against the explosion, in Section 3, and
# *gates* against the vanishing, in Section 5.

# %% [markdown]
# ## 2.5 Where a chunk ends
#
# A book is one sequence of a million steps, and the right gradient would go back through all of them, with all states
# in memory, for a single update. Nobody does that. We cut the book into chunks, and two things part at every cut:
#
# ```
#             chunk 1         │         chunk 2
#   state     h0 → h1 → h2 → h3 ─────→ h3 → h4 → h5 → h6      crosses, as numbers
#   gradient     ← δ1 ← δ2 ← δ3    ✗      ← δ4 ← δ5 ← δ6      does not cross
# ```
#
# The **state** goes on: $\mathbf{h}_3$ is the `h0` of the second chunk, and through it the predictions there depend on
# everything ever read. The **gradient** stops: for `rnn_backward` the `h0` that it finds is a given constant, and no
# loss of chunk 2 ever reaches a step of chunk 1. This is **truncated back-propagation through time**, and every
# recurrent network that reads texts is trained by it.
#
# What is lost? Let a character matter for a prediction $d$ steps later. Of the $T$ places of a chunk only the last $T -
# d$ have a character $d$ steps back *inside* the chunk; for the first $d$ the cause lies beyond the cut, and nobody is
# told to have kept it. With $d \ge T$ no place is left. Two things soften this. The cut falls elsewhere for every pair,
# so what is often needed is sometimes taught. And what the network has learnt to keep for twenty steps may well last
# for sixty: only the *teaching* stops at the cut, the state does not.
#
# **By hand.** The example of Section 2.1 with a second step, from character 1 to character 0: $h_2 = \tanh(-1 + 2 \cdot
# 0.9640) = 0.7297$. With the mean over two steps, step 1 gets $\mathbf{g}_1 V^\top = 0.7239 / 2 = 0.3620$ from its own
# loss. As one chunk of two steps, $\delta_2 = -0.0760$, and $\delta_1 = (0.3620 + 2 \delta_2) \cdot (1 -
# 0.9640^2) = 0.0148$. As two chunks of one step (whose mean is the same loss), $\delta_2$ stays, and $\delta_1 = 0.3620
# \cdot (1 - 0.9640^2) = 0.0256$: too large by what step 2 would have told step 1.
#
# The next cell cuts a text of 120 steps into chunks of length $T$ with your functions, carries the state, takes the
# mean of the gradients of all chunks, and measures by how many degrees the gradient of $W$ is turned away from that of
# the uncut text. At $T = 1$ you meet patient 1 again.
#
# **Predict first.** For which of the three networks of Section 2.4 does the cut cost least, and why?

# %% experiment="truncation"
lengths = (1, 2, 3, 5, 8, 12, 20, 30, 60, 120)
numbers["truncation"] = {}


def cut_gradient(params, inputs, targets, T):
    """The mean gradient of W over chunks of T steps, the state carried from chunk to chunk."""
    h, total = torch.zeros_like(params["b"]), torch.zeros_like(params["W"])
    for x, y in zip(inputs.split(T), targets.split(T), strict=True):
        _, h, cache = rnn_forward(params, x, y, h)
        total = total + rnn_backward(params, cache)["W"] * len(x) / len(inputs)
    return total.flatten()


with course_style():
    fig, ax = plt.subplots(figsize=(8, 4))
    for rho, colour in scales.items():
        angles = []
        for seed in range(5):
            generator = torch.Generator().manual_seed(seed)
            params = {n: p.double() for n, p in init_rnn(steps, units, sigma=0.1, generator=generator).items()}
            params["W"] *= rho / math.sqrt(units) / 0.1
            inputs, targets = torch.randint(0, steps, (2, lengths[-1]), generator=generator)
            whole = cut_gradient(params, inputs, targets, lengths[-1])
            cosines = [F.cosine_similarity(cut_gradient(params, inputs, targets, n), whole, dim=0) for n in lengths]
            angles.append([math.degrees(math.acos(min(1, cosine.item()))) for cosine in cosines])
        mean = np.mean(angles, 0)
        ax.plot(lengths, mean, "o-", color=colour, label=f"ρ = {rho:g}")
        numbers["truncation"][f"ρ = {rho:g}"] = dict(zip(lengths, mean.tolist(), strict=True))
        print(f"ρ = {rho:3g}: " + "   ".join(f"T = {n}: {a:.0f}°" for n, a in zip(lengths, mean, strict=True)))
    ax.set(
        xscale="log",
        xlabel="length T of a chunk",
        ylabel="angle to the uncut gradient (degrees)",
        xticks=lengths,
        xticklabels=lengths,
        title="What truncation does to the gradient of W, a text of 120 steps (5 draws)",
    )
    ax.minorticks_off()
    ax.legend()

# %% [markdown]
# The shorter the memory, the cheaper the cut. With $\rho = 0.5$ the gradient fades within a few steps, so only the
# places just behind a cut miss anything: a few degrees at $T = 25$. With $\rho = 1$ it reaches dozens of steps back,
# and a cut every 25 takes a third of a right angle. With $\rho = 2$ nearly all of the uncut gradient has come over the
# *longest* way, exploding, and no chunk has a part in it: a right angle or more at any length. (Nothing is lost there:
# a step along that gradient is what clipping has to save us from.) The dearest place to cut is where memory is long and
# useful, which is where training would like to take us.

# %% [markdown]
# # 3. Taking a step
#
# ## 3.1 Clipping
#
# A gradient that explodes once a thousand steps undoes the other 999. Clipping limits what one step can do. There are
# two ways, and they are not the same.
#
# ### Exercise `clip_gradients`
#
# **By value**: every entry below $-$`limit` becomes $-$`limit`, every entry above `limit` becomes `limit`, all others
# stay. (So an infinite entry becomes finite; `nan` has no side and is left.) A new dict with the same keys; the given
# tensors keep their values.
#
# **By hand first.** $(-7, 0.5, 6)$ with limit 5 becomes $(-5, 0.5, 5)$.


# %% exercise="clip_gradients"
def clip_gradients(grads, limit):
    """Every entry of every gradient, moved into [−limit, limit] if it lies outside.

    grads a dict of tensors, limit a float  ->  a new dict with the same keys and shapes
    """
    ### BEGIN SOLUTION
    return {name: grad.clamp(-limit, limit) for name, grad in grads.items()}
    ### END SOLUTION


# %% check="clip_gradients"
check("clip_gradients")

# %% [markdown]
# ### Exercise `clip_by_norm`
#
# **By norm**: take all tensors of the dict together as one long vector $\mathbf{v}$, and multiply all of them by the
# *same* factor $\min(1,\ \text{max\_norm} / \lVert \mathbf{v} \rVert)$. So a short gradient is left as it is (it is
# never made longer), a long one gets the length `max_norm`, and its direction stays.
#
# - One norm for the whole dict, not one for each tensor.
# - Gradients that are all zero stay zero: mind the division.
#
# **By hand first.** $\{a: (3, 0),\ b: (4)\}$ has the norm 5. With `max_norm=1` it becomes $\{(0.6, 0),\ (0.8)\}$; with
# `max_norm=10` it stays.


# %% exercise="clip_by_norm"
def clip_by_norm(grads, max_norm):
    """All gradients times one factor, so that the norm of all of them together is at most max_norm.

    grads a dict of tensors, max_norm a float  ->  a new dict with the same keys and shapes
    """
    ### BEGIN SOLUTION
    norm = math.sqrt(sum(grad.double().square().sum().item() for grad in grads.values()))
    factor = max_norm / norm if norm > max_norm else 1.0
    return {name: grad * factor for name, grad in grads.items()}
    ### END SOLUTION


# %% check="clip_by_norm"
check("clip_by_norm")

# %% [markdown]
# **Predict first.** An exploding network, all of its matrices twice as large as at $\rho = 1$. We clip by value, at a
# thousandth of the largest entry, so that many entries are cut as in a real explosion; and by norm, to the length that
# the first way has left. By how many degrees does each turn the gradient?

# %% experiment="clipping"
generator = torch.Generator().manual_seed(1)
params = {n: p.double() for n, p in init_rnn(steps, units, sigma=0.2, generator=generator).items()}
inputs, targets = torch.randint(0, steps, (2, steps), generator=generator)
raw = last_loss_gradients(params, inputs, targets, torch.zeros(units).double())


def flat(grads):
    return torch.cat([grads[name].flatten() for name in sorted(grads)])


largest = flat(raw).abs().max().item()
by_value = clip_gradients(raw, largest / 1000)
by_norm = clip_by_norm(raw, flat(by_value).norm().item())
numbers["clipping"] = {}
print(f"raw      norm {flat(raw).norm():9.3f}   largest entry {largest:.3f}")
for name, clipped in (("by value", by_value), ("by norm", by_norm)):
    cosine = (flat(raw) @ flat(clipped) / flat(raw).norm() / flat(clipped).norm()).clamp(-1, 1).item()
    angle = math.degrees(math.acos(cosine))
    print(f"{name:8} norm {flat(clipped).norm():9.3f}   turned by {angle:.1f}°")
    numbers["clipping"][name] = angle

# %% [markdown]
# Clipping by value turns the gradient: the large entries are cut, the small ones are not. (How far depends on the
# limit. The lower it is, the nearer the result comes to the mere signs of the entries.) It is still downhill (no entry
# changes its sign), and it limits each parameter on its own, which suits AdaGrad. We train with it, as the course
# always has. Large language models clip by norm.

# %% [markdown]
# ## 3.2 AdaGrad
#
# A rare character has a gradient once in a thousand steps, the space in every one. One learning rate for both is a bad
# compromise. AdaGrad (J. Duchi, E. Hazan, Y. Singer, 2011) gives every single parameter its own: it collects the
# squares of all gradients that this parameter has seen, and divides by their root.
#
# $$
# M \leftarrow M + G \odot G, \qquad
# \theta \leftarrow \theta - \eta\, \frac{G}{\sqrt{M} + \varepsilon}, \qquad M = 0 \text{ at first.}
# $$
#
# Two consequences. The first step is $\eta$ times the *sign* of the gradient, since $\sqrt{G^2} = |G|$. And a loss
# multiplied by 25 gives the same steps, because $\sqrt M$ grows with $G$: whether the loss is summed or averaged hardly
# matters here (only to the clipping, and to $\varepsilon$).
#
# ### Exercise `adagrad_step`
#
# One step for **one** tensor: return the new $\theta$ and the new state $M$.
#
# - `state` is `None` at the first call, which means $M = 0$. Afterwards it is what you returned.
# - First add to $M$, then step.
# - $\varepsilon$ stands **outside** the root, as in `torch.optim.Adagrad`.
# - Neither `theta` nor `grad` nor `state` is changed.
#
# **By hand first.** $\theta = 1$, $G = 3$, $\eta = 0.1$, $\varepsilon \approx 0$: $M = 9$, $\theta = 1 - 0.1 \cdot
# 3/3 = 0.9$. Then $G = 4$: $M = 25$, $\theta = 0.9 - 0.1 \cdot 4/5 = 0.82$.


# %% exercise="adagrad_step"
def adagrad_step(theta, grad, state, *, lr, eps):
    """One step of AdaGrad for one tensor.

    theta and grad of one shape, state the sum of the squares of all earlier gradients or None at first, lr and eps
    floats  ->  new theta, new state
    """
    ### BEGIN SOLUTION
    squares = grad**2
    state = squares if state is None else state + squares
    return theta - lr * grad / (state.sqrt() + eps), state
    ### END SOLUTION


# %% check="adagrad_step"
check("adagrad_step")

# %% [markdown]
# ## 3.3 A loss that can be read
#
# The loss of a single chunk jumps up and down: some 25 characters are easier than others. What we plot is a running
# mean,
#
# $$ \tilde L \leftarrow 0.999\, \tilde L + 0.001\, L . $$
#
# ### Exercise `smooth_loss`
#
# Return the new smoothed loss. At the first call `previous` is `None` and the result is the loss itself; 0.0 is a value
# like any other, so ask for `None`. (A running mean that starts at 0 would take thousands of steps to climb to the
# truth, and the curve would *rise* from 0 all that time.)
#
# **By hand first.** `smooth_loss(None, 4.0)` is 4; `smooth_loss(4.0, 2.0)` is $0.999 \cdot 4 + 0.001 \cdot 2 = 3.998$.


# %% exercise="smooth_loss"
def smooth_loss(previous, loss):
    """.999 previous + .001 loss; the loss itself at the first call, when previous is None.

    previous a float or None, loss a float  ->  a float
    """
    ### BEGIN SOLUTION
    return loss if previous is None else 0.999 * previous + 0.001 * loss
    ### END SOLUTION


# %% check="smooth_loss"
check("smooth_loss")

# %% [markdown]
# ## 3.4 From logits to a character
#
# The network gives probabilities; a text needs *one* character. Always taking the likeliest is the worst of all
# choices, as Section 4.5 shows. So we draw. Two knobs change what is drawn:
#
# - The **temperature** $\tau$ divides the logits before the softmax, $\mathbf{p} = \operatorname{softmax}(\mathbf{s} /
#   \tau)$. Below 1 the likely become likelier; towards 0 only the likeliest is left; above 1 all become more alike.
# - The **nucleus** (A. Holtzman and others, 2020; `top_p`) sorts the characters by probability and keeps the likeliest
#   ones, just as many as are needed to reach a total of `top_p`. The rest can never be drawn, and the probabilities of
#   those that are kept are scaled up to sum to one.
#
# ### Exercise `sample`
#
# Draw one index; return it as a **Python int**.
#
# - First the temperature, then the nucleus, on the probabilities that the temperature has made.
# - `temperature=0` means the index of the largest logit. Nothing can be divided by 0: treat it apart. `1e-30` means the
#   same in effect, and *is* divided by. Subtract the maximum of the logits first, then divide: the largest stays $0 /
#   \tau = 0$, and the others go towards $-\infty$. The other way round, $s / \tau$ may overflow to $\infty$, and
#   $\infty - \infty$ is `nan`.
# - The nucleus is the **smallest** set of likeliest characters whose probabilities sum to `top_p` or more. The
#   character with which the sum crosses `top_p` belongs to it. It is never empty: `top_p=0` keeps the likeliest one.
#   `top_p=1` keeps all, also those of probability $10^{-9}$. (Where a sum equals `top_p` up to rounding, or two
#   characters are equally likely, either choice is right.)
# - Logits may be thousands, and $-\infty$ for a character that must never come.
# - `torch.multinomial(p, 1, generator=generator)` draws an index with the probabilities `p`.
#
# **By hand first.** Probabilities $(0.1, 0.5, 0.3, 0.1)$: `top_p=0.6` keeps characters 1 and 2 (0.5 alone is not
# enough, $0.8$ is), with probabilities $\frac58$ and $\frac38$. `top_p=0.4` keeps only character 1.


# %% exercise="sample"
def sample(logits, *, temperature=1.0, top_p=1.0, generator):
    """Draw an index from softmax(logits / temperature), cut down to its nucleus.

    logits (K,), temperature and top_p floats, generator a torch.Generator  ->  a Python int
    """
    ### BEGIN SOLUTION
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double()
    p = torch.softmax((logits - logits.max()) / temperature, 0)  # (K,); the shift first: 0/temperature is 0
    if top_p < 1:
        p_sorted, order = p.sort(descending=True)
        before = p_sorted.cumsum(0) - p_sorted  # the mass of all that are likelier
        outside = before >= top_p
        outside[0] = False
        p[order[outside]] = 0
        p = p / p.sum()
    return int(torch.multinomial(p, 1, generator=generator))
    ### END SOLUTION


# %% check="sample"
check("sample")

# %% [markdown]
# ### Exercise `synthesize`
#
# Let the network write. Beginning with the state `h0` and the character `start` as first input: update the state,
# compute the logits, draw a character with your `sample`, **feed it back as the next input**, and so on, $n$ times.
# Return the $n$ drawn characters as an `int64` tensor. `start` was given, not written, so it is not among them.
#
# - `temperature` and `top_p` are passed on.
# - Everything of one text comes from the one `generator`: the same state of the generator writes the same text.
# - `h0` keeps its values: writing a sample in the middle of training must not disturb the state that is carried on.
# - `n=0` gives an empty tensor.


# %% exercise="synthesize"
def synthesize(params, h0, start, n, *, temperature=1.0, top_p=1.0, generator):
    """Let an RNN write n characters, each fed back as the next input.

    params as of init_rnn, h0 (m,), start an index, n an int, temperature and top_p as of sample, generator a
    torch.Generator  ->  (n,) int64, without start
    """
    ### BEGIN SOLUTION
    U, W, V, b, c = (params[name] for name in "UWVbc")
    h, x = h0, start
    written = []
    for _ in range(n):
        h = torch.tanh(U[x] + h @ W + b)
        x = sample(h @ V + c, temperature=temperature, top_p=top_p, generator=generator)
        written.append(x)
    return torch.tensor(written, dtype=torch.int64)
    ### END SOLUTION


# %% check="synthesize"
check("synthesize")

# %% [markdown]
# # 4. Training on a book
#
# ## 4.1 The loop
#
# ### Exercise `train_rnn`
#
# Put it together. Exactly `updates` updates, each with the next chunk of the text:
#
# 1. `rnn_forward` on the chunk, from the state that the last chunk ended with;
# 2. `rnn_backward`, then `clip_gradients(grads, clip)`, then one `adagrad_step` for each parameter, with
#    $\varepsilon = 10^{-10}$;
# 3. `on_update(step, loss, h)` if it is given: `step` counts from 0, `loss` is a Python float, computed *before* this
#    update, and `h` is the last state of the chunk.
#
# The details that decide:
#
# - The chunks are those of your `chunks(indices, T)`, the short one at the end included. After the last one comes the
#   first one again: a new **pass** over the text.
# - The state is **zero at the start of every pass**, where nothing has been read yet, and **carried** from chunk to
#   chunk inside it: the last state, not the first. Nothing else crosses a chunk's end: each `rnn_backward` works on its
#   own chunk (Section 2.5).
# - AdaGrad's sums are kept for the whole training, across passes.
# - Return a new dict of parameters. Those that were given keep their values. (With `updates=0` the new dict may hold
#   the old tensors.)


# %% exercise="train_rnn"
def train_rnn(params, indices, *, T, lr, clip, updates, on_update=None):
    """Train an RNN with AdaGrad (eps = 1e-10) on consecutive chunks of a text.

    params as of init_rnn, indices (N,) int64, T and updates ints, lr and clip floats,
    on_update(step, loss, h) called after each update  ->  new params
    """
    ### BEGIN SOLUTION
    pairs = chunks(indices, T)
    params, squares = dict(params), dict.fromkeys(params)
    for step in range(updates):
        position = step % len(pairs)
        if position == 0:  # a new pass over the text
            h = torch.zeros_like(params["b"])
        loss, h, cache = rnn_forward(params, *pairs[position], h)
        grads = clip_gradients(rnn_backward(params, cache), clip)
        for name, grad in grads.items():
            params[name], squares[name] = adagrad_step(params[name], grad, squares[name], lr=lr, eps=1e-10)
        if on_update is not None:
            on_update(step, loss.item(), h)
    return params
    ### END SOLUTION


# %% check="train_rnn"
check("train_rnn")

# %% [markdown]
# ## 4.2 Watch it learn
#
# $m = 100$ units, $T = 25$, $\eta = 0.1$, $\sigma = 0.01$. (Clipping at $\pm 5$ of the summed loss is clipping at $\pm
# 5 / 25 = 0.2$ of ours.) After 0, 1,000, 10,000 … updates the network writes a passage. Since nothing in the training
# is random, the first 1,000 updates of a long training are the same as a short training of 1,000 updates: that is how
# we get the network of that moment.
#
# **Predict first.** What is learnt first: words, the lengths of words, the frequencies of the letters, line breaks,
# names, spelling? Write down an order.
#
# This takes about two minutes at full length.


# %% experiment="synthesis"
def train_and_record(training, updates, seed=0):
    """Train from random weights; the parameters, and the smoothed loss after every update."""
    history = []
    params = init_rnn(K, m, sigma=0.01, generator=torch.Generator().manual_seed(seed))
    params = train_rnn(
        params, training, T=T, lr=0.1, clip=0.2, updates=updates,
        on_update=lambda step, loss, h: history.append(smooth_loss(history[-1] if history else None, loss)),
    )  # fmt: skip
    return params, history


def passage(params, n=240, seed=1, **knobs):
    """A synthesised passage, started from a newline and the state zero."""
    h0 = torch.zeros_like(params["b"])
    generator = torch.Generator().manual_seed(seed)
    return decode(synthesize(params, h0, newline, n, generator=generator, **knobs), index_to_char)


milestones = (0, 1_000, 10_000, 100_000) if full else (0, 300, 1_000, 4_000)
numbers["synthesis"] = {}
for updates in milestones:
    trained, history = train_and_record(training, updates)
    reached = history[-1] if history else math.log(K)
    numbers["synthesis"][f"smoothed loss after {updates}"] = reached
    print(f"━━━ after {updates:,} updates, smoothed loss {reached:.2f} nats per character (× 25 = {25 * reached:.1f})")
    print(passage(trained), "\n")

frequencies = torch.bincount(training, minlength=K) / len(training)
by_frequency = -(frequencies[held_out].clamp(min=1 / len(training)).log().mean().item())
with course_style():
    fig, ax = plt.subplots(figsize=(8.5, 4.2))
    ax.plot(range(1, len(history) + 1), history, color=BLUE, label="smoothed training loss")
    ax.axhline(math.log(K), color="black", linestyle=":", label=f"ln K = {math.log(K):.2f}: no idea")
    ax.axhline(by_frequency, color=ORANGE, linestyle="--", label=f"{by_frequency:.2f}: knows how frequent each is")
    for updates in milestones[1:]:
        ax.plot(updates, history[updates - 1], "o", color=BLUE)
    ax.set(
        xscale="log", xlabel="update", ylabel="loss (nats per character)", title=f"A character RNN reads {data.source}"
    )
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.legend()

# %% [markdown]
# The curve begins by *rising*, above $\ln K$. That is no mistake of yours. AdaGrad's first steps have the size $\eta =
# 0.1$ in every entry that has a gradient (Section 3.2), ten times as much as the parameters at the start, $\sigma =
# 0.01$: after a few of them the network is certain of whatever the first chunks happened to hold, and wrong about the
# next one. Single losses may reach 10 there. Each step is shorter than the one before, and soon the curve turns.
#
# First it learns how frequent the characters are, and that takes hundreds of updates; then which follow which, and
# words get their lengths; then common words; layout and names (a speaker's name in capitals, a colon, a new line) come
# with them. Meaning never comes. The smoothed loss lags behind: a running mean with weight $0.001$ remembers about a
# thousand updates.

# %% [markdown]
# ## 4.3 Three losses, two of them lies
#
# Is the loss that low because the network is good? We train two wrong ones beside yours.
#
# - **One step**: the gradient of patient 1, which does not flow through time: truncated after a single step.
# - **Shift 0**: the target of each character is the character itself, because somebody forgot the $+1$.
#
# **Predict first.** Rank the three training losses at the end, lowest first.
#
# At full length this takes about two minutes.


# %% experiment="three_losses"
def one_step_gradients(params, inputs, targets, h):
    """Loss, last state and the gradients that come from taking every earlier state for a constant."""
    with torch.no_grad():
        states = [h]
        for x in inputs.tolist():
            states.append(torch.tanh(params["U"][x] + states[-1] @ params["W"] + params["b"]))
    p = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
    given = torch.stack(states[:-1])  # (T, m), constants: no gradient goes through them
    logits = torch.tanh(p["U"][inputs] + given @ p["W"] + p["b"]) @ p["V"] + p["c"]
    loss = F.cross_entropy(logits, targets)
    return loss.item(), states[-1], dict(zip(p, torch.autograd.grad(loss, list(p.values())), strict=True))


def all_steps_gradients(params, inputs, targets, h):
    """Loss, last state and the right gradients, by your own functions."""
    loss, h, cache = rnn_forward(params, inputs, targets, h)
    return loss.item(), h, rnn_backward(params, cache)


def train_with(gradients, params, pairs, *, lr, clip, updates):
    """AdaGrad as in train_rnn over pairs of inputs and targets, with any function for the gradients.

    Returns the parameters and the smoothed losses.
    """
    params, squares, smoothed = dict(params), dict.fromkeys(params), []
    for step in range(updates):
        if step % len(pairs) == 0:  # a new pass
            h = torch.zeros_like(params["b"])
        inputs, targets = pairs[step % len(pairs)]
        loss, h, grads = gradients(params, inputs, targets, h)
        for name, grad in clip_gradients(grads, clip).items():
            params[name], squares[name] = adagrad_step(params[name], grad, squares[name], lr=lr, eps=1e-10)
        smoothed.append(smooth_loss(smoothed[-1] if smoothed else None, loss))
    return params, smoothed


start_params = init_rnn(K, m, sigma=0.01, generator=torch.Generator().manual_seed(0))
pairs = chunks(training, T)
params_one_step, history_one_step = train_with(
    one_step_gradients, start_params, pairs, lr=0.1, clip=0.2, updates=milestones[-1]
)
shifted = [(inputs, inputs) for inputs, _ in pairs]
params_shift, history_shift = train_with(
    all_steps_gradients, start_params, shifted, lr=0.1, clip=0.2, updates=min(milestones[-1], 10_000)
)  # more are not needed

contestants = {
    "all steps (right)": (trained, history, BLUE, "-"),
    "one step (wrong gradient)": (params_one_step, history_one_step, VERMILLION, "--"),
    "shift 0 (wrong target)": (params_shift, history_shift, PURPLE, ":"),
}
numbers["three_losses"] = {}
with course_style():
    fig, ax = plt.subplots(figsize=(8.5, 4.2))
    for name, (_, curve, colour, line) in contestants.items():
        ax.plot(range(1, len(curve) + 1), curve, line, color=colour, label=name)
        numbers["three_losses"][name] = curve[-1]
        print(f"{name:26} smoothed loss {curve[-1]:.3f} after {len(curve):,} updates (× 25 = {25 * curve[-1]:.1f})")
    ax.set(
        xscale="log", xlabel="update", ylabel="loss (nats per character)", title="Training loss: which one is right?"
    )
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.legend()
print("\n━━━ shift 0 writes:", repr(passage(params_shift, 60)))
print("\n━━━ one step writes:")
print(passage(params_one_step, 240))

# %% [markdown]
# The lowest loss belongs to the network that has learnt to repeat what it was told. And the *wrong gradient* ends
# **below** the right one, after a few thousand updates and still after a hundred thousand, on plays, novels and
# manuals. In the short version it may even write the better-looking passage. How can that be? Much of a text can be
# predicted from the last few characters, and something of those is in the state whether anybody has trained it to keep
# them or not. (How it got there is for Written question 2.) That explains "as good". A likely reason for "better": what
# comes back through many factors of $W$ is noisy and at times large, and AdaGrad never forgets a large gradient but
# takes shorter steps ever after. The one-step gradient is spared that.
#
# So the loss on a text is no proof of a right gradient. That is why no points in this assignment are given for a loss,
# and why the next experiment exists.

# %% [markdown]
# ## 4.4 The memory probe
#
# If a gradient does not flow through time, there must be a task on which this shows: one in which something has to be
# **kept**. The copy task: read a stream of random symbols, four of them, and say at each step which symbol came $d$
# steps earlier. Nothing can be predicted from frequencies or habits. We measure the **perplexity** $e^L$: a loss of $L$
# nats is that of somebody who guesses among $e^L$ equally likely symbols. Who does not remember has a perplexity of 4
# (a throw of a four-sided die), who remembers has 1.
#
# Both networks have the same start, the same data and the same number of updates. Only the gradients differ. The start
# is small ($\sigma = 0.01$), so that an untrained state holds, in small numbers, the symbol that it has just read, and
# next to nothing of older ones.
#
# **Predict first.** Up to which delay $d$ does each of them get?

# %% experiment="memory_probe"
delays, updates = ((1, 2, 3, 4, 6, 8, 12, 16, 20), 4_000) if full else ((1, 2, 4, 8), 800)
symbols = 4


def copy_task(delay, updates, seed):
    """Chunks of a random stream whose target is the symbol `delay` steps back, and 1,000 more symbols to test on."""
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randint(0, symbols, (delay + updates * T + 1_000,), generator=generator)
    x, y = stream[delay:], stream[:-delay]
    train = list(zip(x[: updates * T].split(T), y[: updates * T].split(T), strict=True))
    return train, x[updates * T :], y[updates * T :]


reached = {"all steps (right)": [], "one step (wrong gradient)": []}
for delay in delays:
    train, x_test, y_test = copy_task(delay, updates, seed=delay)
    start_probe = init_rnn(symbols, 64, sigma=0.01, generator=torch.Generator().manual_seed(0))
    for name, gradients in zip(reached, (all_steps_gradients, one_step_gradients), strict=True):
        probed, _ = train_with(gradients, start_probe, train, lr=0.03, clip=1.0, updates=updates)
        loss, _, _ = rnn_forward(probed, x_test, y_test, torch.zeros(64))
        reached[name].append(math.exp(loss))
    print(f"delay {delay}: perplexity " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in reached.items()))
numbers["memory_probe"] = {name: dict(zip(delays, values, strict=True)) for name, values in reached.items()}

with course_style():
    fig, ax = plt.subplots(figsize=(8, 4))
    for (name, values), colour, line in zip(reached.items(), (BLUE, VERMILLION), ("o-", "s--"), strict=True):
        ax.plot(delays, values, line, color=colour, label=name)
    ax.axhline(symbols, color="black", linestyle=":", label="a guess")
    ax.axhline(1, color="grey", linewidth=1, label="perfect memory")
    ax.set(
        xlabel="delay d (steps)",
        ylabel="perplexity on new symbols",
        xticks=delays,
        title=f"Copy task after {updates:,} updates: which symbol came d steps earlier?",
    )
    ax.legend()

# %% [markdown] written="memory_probe" points=4
# ### Written question 2 (4 points)
#
# Answer from *your* figures: name the numbers that you rely on.
#
# - (a) Why does the one-step gradient fail at long delays, although its loss on the text was as good as the right
#   one's? Use Written question 1 (c).
# - (b) It does not fail at $d = 1$, and only partly at $d = 2$. How can a network keep a symbol for one step, although
#   no gradient has ever asked it to?
# - (c) The right gradient fails as well, at longer delays. Name two reasons that have nothing to do with a mistake in
#   the code, each with the experiment of this notebook that shows it.
# - (d) A fellow student, whose RNN reaches a lower smoothed loss on the text than yours, concludes that your gradient
#   is wrong. What do you answer, and which two tests do you suggest?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** To answer at step $t + d$ the symbol must be *written* into the state at step $t$ and preserved until it is
# asked for. That this was useful shows only in the loss $d$ steps later, and the way from there back to step $t$ is
# $\boldsymbol\delta_{t+1} W^\top$, which the one-step gradient leaves out. It learns to read the state, not to write
# it. On a text reading is nearly enough, because most of what decides the next character lies a few characters back and
# is in the state anyway; on random symbols nothing else helps. (Typical numbers: at $d = 4$ a perplexity of
# 3 to 4 against 1.0.)
#
# **(b)** At $d = 1$ the loss at $t$ needs the symbol of $t - 1$. The one-step gradient trains $U$ and $W$ as the way
# from *inputs and a given* $\mathbf{h}_{t-1}$ to the loss at $t$. $\mathbf{h}_{t-1}$ holds an echo of
# $\mathbf{x}_{t-1}$ already: $U$ puts it there, and $W$, which is trained,
# learns to pass it on. For $d = 2$ the echo must survive twice, which happens only by chance and by habit: the $W$ that
# was trained to read one step back also carries something two steps on.
#
# **(c)** *The gradient vanishes*: $d$ factors $W^\top D$, with $W$ small at the start ($\sigma = 0.01$, so a largest
# eigenvalue of about $0.01 \sqrt{64} = 0.08$). At first the gradient from $d$ steps later is of order $0.08^d$ and
# drowns in noise: the figure of Section 2.4, left of $\rho = 0.5$. *It is truncated*: only $T - d$ of the $T = 25$
# targets of a chunk have their symbol inside the same chunk, 5 of 25 at $d = 20$, and with $d \ge 25$ none would:
# Section 2.5. (Also true, but shown by no experiment here: too few updates, $d$ symbols at once to be kept in 64 units,
# $\eta$.)
#
# **(d)** That a training loss says nothing about the gradient: a wrong one reaches an equal or lower loss (Section
# 4.3), and a shift of zero a loss near 0. Tests: the numerical gradient check, in float64, over many steps and from
# $\mathbf{h}_0 \ne 0$; a task that cannot be solved without memory, such as the copy task. (Or held-out behaviour that
# needs it, such as closing a bracket.)
#
# *Marking guide.* One point each. (a) needs "written earlier, rewarded later" and the term that is missing. (b) needs
# the echo, or that $W$ and $U$ are trained for the present step; "by chance" alone is half a point. (c) half a point
# for each reason, a quarter where the experiment or the number of factors, or of targets, is missing. (d) needs both
# tests.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## 4.5 Temperature and nucleus
#
# Now turn the knobs. For every setting the network of Section 4.2 writes a passage, and we measure two things. **Real
# words**: the share of its words that occur in the training text, which says how well it spells. **Variety**: the
# number of distinct words divided by the number of words, which says how much it repeats itself. The text itself
# repeats its words too: the dotted line is its own variety. (In the short version hardly a quarter of the words are
# real at any setting. The shapes of the curves show there already; whether spelling and variety go together does not.)
#
# **Predict first.** (a) What does the network write at $\tau = 0$? (b) Sketch both curves over $\tau$ from 0 to 2. (c)
# Can `top_p` have what temperature cannot: good spelling *and* variety?


# %% experiment="knobs"
def words_of(text):
    return ["".join(filter(str.isalpha, word)).lower() for word in text.split() if any(map(str.isalpha, word))]


known_words = set(words_of(decode(training, index_to_char)))


def measure(written):
    """The share of real words, and the number of distinct words over the number of words."""
    words = words_of(written)
    if not words:
        return math.nan, math.nan
    return sum(word in known_words for word in words) / len(words), len(set(words)) / len(words)


n = 3_000 if full else 1_500
settings = {
    "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0),
    "top_p": (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0),
}
real_text = measure(decode(training[:n], index_to_char))
numbers["knobs"] = {"the text itself": real_text}
with course_style():
    fig, axes = plt.subplots(1, 2, figsize=(11.5, 4), sharey=True)
    for ax, (knob, values) in zip(axes, settings.items(), strict=True):
        measured = []
        for value in values:
            written = passage(trained, n, **{knob: value})
            measured.append(measure(written))
            numbers["knobs"][f"{knob} = {value}"] = measured[-1]
            print(f"{knob:>11} = {value:<4}  real words {measured[-1][0]:4.0%}  variety {measured[-1][1]:4.0%}   "
                  f"{written[:90]!r}")  # fmt: skip
        spelling, variety = 100 * np.array(measured).T
        ax.plot(values, spelling, "o-", color=BLUE, label="real words")
        ax.plot(values, variety, "s--", color=VERMILLION, label="variety")
        ax.axhline(100 * real_text[1], color=VERMILLION, linewidth=1, linestyle=":", label="variety of the text itself")
        ax.set(xlabel="temperature τ" if knob == "temperature" else "top_p", ylim=(0, 105))
        ax.set_title("Temperature, top_p = 1" if knob == "temperature" else "Nucleus, τ = 1")
    axes[0].set_ylabel("share of the words (%)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

# %% [markdown] written="temperature_figure" points=3
# ### Written question 3 (3 points)
#
# Read the figure of the temperature and of the nucleus.
#
# - (a) What happens at the left end, $\tau \to 0$, to both curves, and why does the network behave so there? Would a
#   better network escape it?
# - (b) What happens at the right end, and what would both curves approach as $\tau \to \infty$?
# - (c) At which $\tau$ and which `top_p` would you let it write, and why? What does `top_p` do to the tail of the
#   distribution that a low temperature does not?
#
# <!-- ### BEGIN SOLUTION -->
# **(a)** Real words rise (to 90 % on Shakespeare), variety collapses to a few per cent. At $\tau = 0$ real words may be
# anything, 100 % or 50 %: it depends on whether the few words that it repeats happen to be spelt right ("the sarding
# the sarding"). Without chance the network is a fixed function of its state: it falls into a cycle for ever. The
# likeliest *next* character, again and again, does not make a likely text. A better network has longer cycles; large
# language models at $\tau = 0$ repeat themselves too.
#
# **(b)** Real words fall: above 1 the many unlikely characters, each rightly rare, are drawn too often, and one wrong
# letter spoils a word and leads the state to where it has never been in training. Variety rises towards 100 %, because
# hardly any invented word comes twice. As $\tau \to \infty$ all characters become equally likely: real words approach
# the few short ones that chance hits, variety nearly 1.
#
# **(c)** Something like $\tau = 0.6 \dots 0.8$ or `top_p` $= 0.8 \dots 0.9$: most words are right and variety is near
# that of the text. A low temperature makes *all* unlikely things less likely, also the second best among good
# alternatives (so it gets dull), and leaves the far tail a little mass. The nucleus cuts the tail off altogether, where
# the mistakes are, and leaves the proportions among the likely ones as they are; and it adapts: where one character is
# certain it keeps one, at the beginning of a word it keeps many. In this figure the two knobs are nearly alike: at the
# same variety they spell about equally well.
#
# *Marking guide.* One point each. (a) both curves (half), the cycle (half). (b) both curves and the uniform limit. (c)
# a choice with a reason from the figure (half), the cut tail or the adaptive size (half). Short runs on the embedded
# text have fewer real words everywhere; mark by what the student's own figure shows.
# <!-- ### END SOLUTION -->

# %% [markdown]
# # 5. Gates
#
# ## 5.1 The LSTM
#
# In the vanilla RNN everything in the state is multiplied by $W$ and squashed at *every* step. Nothing can simply stay.
# The long short-term memory (S. Hochreiter and J. Schmidhuber, 1997) adds a second state, the **cell** $\mathbf{c}$
# (not the output bias any more), which is only multiplied entry by entry and added to:
#
# $$
# \mathbf{c}_t = \mathbf{f} \odot \mathbf{c}_{t-1} + \mathbf{i} \odot \mathbf{g}, \qquad
# \mathbf{h}_t = \mathbf{o} \odot \tanh(\mathbf{c}_t) .
# $$
#
# $\mathbf{g}$ is the new content (no gradient any more). Three **gates**, each between 0 and 1, decide entry by entry:
# $\mathbf{i}$ how much of it gets in, $\mathbf{f}$ how much of the old is kept, $\mathbf{o}$ how much is shown. All
# four are computed from the input and the last $\mathbf{h}$, side by side in one vector:
#
# $$
# \mathbf{z} = \mathbf{x} U + \mathbf{h}_{t-1} W + \mathbf{b} \quad (4m,), \qquad
# \mathbf{i} = \sigma(\mathbf{z}_{1 \dots m}),\;
# \mathbf{f} = \sigma(\mathbf{z}_{m+1 \dots 2m}),\;
# \mathbf{g} = \tanh(\mathbf{z}_{2m+1 \dots 3m}),\;
# \mathbf{o} = \sigma(\mathbf{z}_{3m+1 \dots 4m}) .
# $$
#
# On the *direct* way from $\mathbf{c}_t$ to $\mathbf{c}_{t-1}$ the gradient is multiplied by $\mathbf{f}$, and by no
# matrix. Where $f = 1$ it arrives on this way unharmed, also a hundred steps back. A second way leads through
# $\mathbf{h}_{t-1}$ and $W$, as in the vanilla RNN. What comes that way is added, and may still vanish or grow.
#
# ### Exercise `lstm_step`
#
# One step: return the new `h`, the new `c` and a cache. The blocks of $\mathbf{z}$ come in the order **i, f, g, o**
# (that of PyTorch). `params` has `"U"` $(K, 4m)$, `"W"` $(m, 4m)$ and `"b"` $(4m,)$. `x` $(K,)$ is any vector, not only
# a one-hot one. Some books add 1 to the forget gate's bias; here nothing is added. Gates may be wide open or shut, with
# $\mathbf{z}$ in the thousands: `torch.sigmoid` and `torch.tanh` manage, $e^{-z}$ does not.
#
# **By hand first.** $m = 1$, all weights 0, $\mathbf{b} = 0$, $c = 1$: all gates are $\frac12$ and $g = 0$. So the new
# $c$ is $\frac12 \cdot 1 + \frac12 \cdot 0 = 0.5$ and the new $h$ is $\frac12 \tanh 0.5 = 0.2311$.


# %% exercise="lstm_step"
def lstm_step(params, x, h, c):
    """One step of an LSTM.

    params {"U": (K, 4m), "W": (m, 4m), "b": (4m,)} in blocks i, f, g, o; x (K,), h (m,), c (m,)
    ->  new h (m,), new c (m,), cache
    """
    ### BEGIN SOLUTION
    z = x @ params["U"] + h @ params["W"] + params["b"]  # (4m,)
    i, f, g, o = z.chunk(4)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    c_new = f * c + i * g
    s = torch.tanh(c_new)
    return o * s, c_new, (params, x, h, c, i, f, g, o, s)
    ### END SOLUTION


# %% check="lstm_step"
check("lstm_step")

# %% [markdown]
# ### Exercise `lstm_backward_step`
#
# The step back. Given are the gradients of some loss with respect to the two results, `grad_h` $= \partial L / \partial
# \mathbf{h}_t$ and `grad_c` $= \partial L / \partial \mathbf{c}_t$. The second is what comes back through
# $\mathbf{c}_t$ *from the next step*; the way from $\mathbf{c}_t$ through $\mathbf{h}_t$ is not in it yet. Walk
# backwards through the formulas:
#
# 1. $\mathbf{h}_t = \mathbf{o} \odot \tanh(\mathbf{c}_t)$ gives a gradient for $\mathbf{o}$, and **adds** one to that
#    of $\mathbf{c}_t$: two ways out of $\mathbf{c}_t$, two terms.
# 2. $\mathbf{c}_t = \mathbf{f} \odot \mathbf{c}_{t-1} + \mathbf{i} \odot \mathbf{g}$, with the *sum* of both, gives
#    those of $\mathbf{f}$, $\mathbf{i}$, $\mathbf{g}$ and $\mathbf{c}_{t-1}$.
# 3. Through the sigmoids, $\sigma' = \sigma (1 - \sigma)$, and the tanh, $\tanh' = 1 - \tanh^2$, to $\mathbf{z}$, in
#    the order i, f, g, o.
# 4. From $\mathbf{z} = \mathbf{x} U + \mathbf{h}_{t-1} W + \mathbf{b}$ to everything else: $\partial L/\partial U =
#    \mathbf{x}^\top \frac{\partial L}{\partial \mathbf{z}}$ (an outer product), $\partial L / \partial \mathbf{x} =
#    \frac{\partial L}{\partial \mathbf{z}} U^\top$, and so on.
#
# Return four things: `grads` (a dict with the keys of `params`), and the gradients with respect to `x`, to the **old**
# `h` and to the **old** `c`. The function gets no `params`, so put what it needs into the cache.


# %% exercise="lstm_backward_step"
def lstm_backward_step(grad_h, grad_c, cache):
    """The gradients of one step of an LSTM, given those with respect to its two results.

    grad_h (m,), grad_c (m,), cache as of lstm_step
    ->  grads (a dict with the keys and shapes of params), grad_x (K,), grad_h (m,), grad_c (m,)
    """
    ### BEGIN SOLUTION
    params, x, h, c, i, f, g, o, s = cache
    grad_c = grad_c + grad_h * o * (1 - s**2)  # c_new is used twice: in h_new, and in the next step
    grad_z = torch.cat([
        grad_c * g * i * (1 - i),
        grad_c * c * f * (1 - f),
        grad_c * i * (1 - g**2),
        grad_h * s * o * (1 - o),
    ])  # fmt: skip
    grads = {"U": torch.outer(x, grad_z), "W": torch.outer(h, grad_z), "b": grad_z}
    return grads, params["U"] @ grad_z, params["W"] @ grad_z, grad_c * f
    ### END SOLUTION


# %% check="lstm_backward_step"
check("lstm_backward_step")

# %% [markdown]
# **Predict first.** The same question as in Section 2.4, for the LSTM: a gradient enters at the last cell, and we
# follow it back with your `lstm_backward_step`. What does the bias of the forget gate do to its reach? (With bias
# $\beta$ the gate stands at about $\sigma(\beta)$: $\sigma(0) = 0.5$, $\sigma(2) = 0.88$, $\sigma(5) = 0.993$.) The
# dotted lines are the direct way alone, the product of all $\mathbf{f}$. What makes the difference, and can a full line
# *rise*?

# %% experiment="lstm_through_time"
numbers["lstm_through_time"] = {}
with course_style():
    fig, ax = plt.subplots(figsize=(8, 4.2))
    for bias, colour in ((0.0, BLUE), (2.0, GREEN), (5.0, VERMILLION)):
        generator = torch.Generator().manual_seed(0)
        shapes = {"U": (20, 4 * units), "W": (units, 4 * units), "b": (4 * units,)}
        lstm = {n: 0.05 * torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
        lstm["b"][units : 2 * units] += bias
        h, c, caches, forget = torch.zeros(units).double(), torch.zeros(units).double(), [], []
        for k in torch.randint(0, 20, (steps,), generator=generator):
            forget.append(torch.sigmoid(lstm["U"][k] + h @ lstm["W"] + lstm["b"])[units : 2 * units])
            h, c, cache = lstm_step(lstm, one_hot(k[None], 20)[0].double(), h, c)
            caches.append(cache)
        grad_h = torch.zeros(units).double()
        grad_c = torch.randn(units, generator=generator, dtype=torch.float64)
        direct, norms = grad_c, [[grad_c.norm().item()] * 2]
        for cache, f in zip(reversed(caches), reversed(forget), strict=True):
            _, _, grad_h, grad_c = lstm_backward_step(grad_h, grad_c, cache)
            direct = direct * f
            norms.append([grad_c.norm().item(), direct.norm().item()])
        relative = np.array(norms) / norms[0]
        ax.semilogy(
            relative[:, 0], color=colour, label=f"forget gate's bias {bias:g}, σ = {1 / (1 + math.exp(-bias)):.3f}"
        )
        ax.semilogy(relative[:, 1], ":", color=colour, linewidth=1)
        numbers["lstm_through_time"][f"bias {bias:g}, 40 steps back"] = relative[40].tolist()
        print(f"bias {bias:g}: 40 steps back {relative[40, 0]:.1e}, on the direct way alone {relative[40, 1]:.1e}")
    ax.plot([], [], ":", color="black", linewidth=1, label="the direct way alone, the product of all f")
    ax.set(
        xlabel="distance in time k (steps)",
        ylabel="gradient of the cell, relative to k = 0",
        title="An open forget gate lets the gradient through",
    )
    ax.legend()

# %% [markdown]
# With bias 0 the forget gate halves the direct way at every step, and the LSTM forgets faster than a vanilla RNN with
# $\rho = 1$ does. The gate has to be *opened*: by a bias at the start, or by learning. With bias 5 the direct way alone
# keeps 0.7 of the gradient over fifty steps, whatever $W$ is. Everything between a full line and its dotted one has
# come the other way, through $\mathbf{h}$ and $W$. It is more than the direct way wherever the two are far apart, and
# it can grow: the full line of bias 5 *rises*, to about 8. So an open gate is a cure for vanishing, not for exploding;
# LSTMs are clipped too.

# %% [markdown]
# ## 5.2 The GRU
#
# The gated recurrent unit (K. Cho and others, 2014) does with one state and two gates what the LSTM does with two and
# three. In PyTorch's form:
#
# $$
# \mathbf{r} = \sigma(\mathbf{x} U_r + \mathbf{b}_r + \mathbf{h} W_r + \mathbf{b}_{h,r}), \qquad
# \mathbf{z} = \sigma(\mathbf{x} U_z + \mathbf{b}_z + \mathbf{h} W_z + \mathbf{b}_{h,z}),
# $$
# $$
# \mathbf{n} = \tanh\bigl(\mathbf{x} U_n + \mathbf{b}_n + \mathbf{r} \odot (\mathbf{h} W_n + \mathbf{b}_{h,n})\bigr),
# \qquad \mathbf{h}' = (1 - \mathbf{z}) \odot \mathbf{n} + \mathbf{z} \odot \mathbf{h} .
# $$
#
# ($\mathbf{z}$ is a gate here.) Where $\mathbf{z}$ is near 1 the old state passes by as it is: the direct way of the
# LSTM's cell, with $\mathbf{z}$ in the place of the forget gate. This one gate decides both what is kept and what is
# let in, and there is no second state: a quarter fewer parameters and less work in each step, for nearly the same
# memory.
#
# ### Exercise `gru_step`
#
# Return the new `h`. `params` has `"U"` $(K, 3m)$, `"W"` $(m, 3m)$, `"b"` $(3m,)$ and `"b_h"` $(3m,)$, in blocks **r,
# z, n**. Two things to watch: where $\mathbf{z} = 1$ the *old* state is kept (the original article has it the other way
# round); and $\mathbf{r}$ multiplies $\mathbf{h} W_n$ *together with its bias*. For that reason there are two bias
# vectors.
#
# **By hand first.** $m = 1$, all weights and biases 0, $h = 1$: $r = z = \frac12$, $n = 0$, and $h' = \frac12$.


# %% exercise="gru_step"
def gru_step(params, x, h):
    """One step of a GRU.

    params {"U": (K, 3m), "W": (m, 3m), "b": (3m,), "b_h": (3m,)} in blocks r, z, n; x (K,), h (m,)  ->  new h (m,)
    """
    ### BEGIN SOLUTION
    r_x, z_x, n_x = (x @ params["U"] + params["b"]).chunk(3)
    r_h, z_h, n_h = (h @ params["W"] + params["b_h"]).chunk(3)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h
    ### END SOLUTION


# %% check="gru_step"
check("gru_step")

# %% [markdown]
# How far does a state reach *forwards*? Two copies of a network read the same text, from two states that differ by a
# thousandth. If they have become the same after $k$ steps, nothing of the beginning is left; if they drift apart, the
# smallest difference decides everything. (It is the same product of matrices as in the gradient, in the other
# direction.)
#
# **Predict first.** Draw the difference over $k$ for a vanilla RNN with $\rho = 1$, and for your GRU whose update gate
# has a bias of 0 and of 4 ($\sigma(4) = 0.982$).

# %% experiment="forgetting"
numbers["forgetting"] = {}


def differences(step, size, generator):
    """By how much two states differ after each of 100 steps that read the same text, relative to the start."""
    h = torch.tanh(torch.randn(units, generator=generator, dtype=torch.float64))
    nudge = torch.randn(units, generator=generator, dtype=torch.float64)
    other = h + 1e-3 * nudge / nudge.norm()
    found = [1.0]
    for k in torch.randint(0, size, (100,), generator=generator):
        x = one_hot(k[None], size)[0].double()
        h, other = step(x, h), step(x, other)
        found.append(1e3 * (other - h).norm().item())
    return found


def gru_with_bias(bias, generator):
    shapes = {"U": (20, 3 * units), "W": (units, 3 * units), "b": (3 * units,), "b_h": (3 * units,)}
    gru = {n: torch.randn(s, generator=generator, dtype=torch.float64) / math.sqrt(units) for n, s in shapes.items()}
    gru["b"][units : 2 * units] += bias
    return lambda x, h: gru_step(gru, x, h)


def vanilla(generator):
    W = torch.randn(units, units, generator=generator, dtype=torch.float64) / math.sqrt(units)  # ρ = 1
    U = torch.randn(20, units, generator=generator, dtype=torch.float64) / math.sqrt(units)
    return lambda x, h: torch.tanh(x @ U + h @ W)


readers = {
    "vanilla RNN, ρ = 1": (vanilla, BLUE, "-"),
    "GRU, update gate's bias 0": (lambda generator: gru_with_bias(0.0, generator), GREEN, "--"),
    "GRU, update gate's bias 4": (lambda generator: gru_with_bias(4.0, generator), VERMILLION, "-."),
}
with course_style():
    fig, ax = plt.subplots(figsize=(8, 4))
    for name, (make, colour, line) in readers.items():
        generator = torch.Generator().manual_seed(0)
        curve = differences(make(generator), 20, generator)
        ax.semilogy(curve, line, color=colour, label=name)
        numbers["forgetting"][name] = curve[100]
        print(f"{name:26} after 10 steps {curve[10]:.1e}, after 100 steps {curve[100]:.1e}")
    ax.set(
        xlabel="steps k since the start",
        ylabel="difference of the states, relative to k = 0",
        title="How long does a state remember where it began?",
    )
    ax.legend()

# %% [markdown]
# The GRU whose gates stand half open ($\sigma(0) = \frac12$) keeps only half of its old state at every step, and
# forgets faster than the vanilla RNN. With the update gate open a third of the difference is left after a hundred
# steps. As with the LSTM, the architecture only *offers* the direct way; what is kept, and for how long, is for the
# biases and weights of the gates to say, and those are learnt.

# %% [markdown]
# # 6. With the framework
#
# By now you know what is inside. From here on PyTorch does it: modules, autograd, optimisers. Text is read in $N$
# streams at once, so that a step is a few large matrix products: an array of indices has shape $(N, T)$.
#
# **What these three exercises may use:** everything of PyTorch except `nn.MultiheadAttention` and `nn.Transformer…`:
# `nn.LSTM`, `nn.Embedding`, `nn.Linear`, `nn.CrossEntropyLoss` …, autograd, `backward` and optimisers.
#
# ### Exercise `CharLSTM`
#
# An `nn.Module` made by `CharLSTM(K, m, layers)`: an LSTM of `layers` layers with `m` units each, from characters to
# logits.
#
# - `forward(x, state=None)`: `x` $(N, T)$ `int64` → `logits` $(N, T, K)$ and the `state` after the last character, a
#   pair `(h, c)`, each of shape `(layers, N, m)`. (That is what `nn.LSTM(…, batch_first=True)` returns.)
# - `state=None` means zeros. A state that is given is where the LSTM goes on: reading a text in two halves, with the
#   state handed over, gives the same logits as reading it at once.
# - The logits at place $t$ depend on `x[:, :t + 1]` only, and on no other stream of the batch.
# - The module remembers nothing between two calls. No state in `self`. No dropout either: the same characters give the
#   same logits, in training mode too.
# - Logits, no softmax.
# - How a character enters is yours: an `nn.Embedding` of any size, or one-hot rows.


# %% exercise="CharLSTM"
class CharLSTM(nn.Module):
    """A character model: an LSTM of `layers` layers with m units each, and a linear layer to K logits."""

    def __init__(self, K, m, layers):
        ### BEGIN SOLUTION
        super().__init__()
        self.embed = nn.Embedding(K, m)
        self.lstm = nn.LSTM(m, m, layers, batch_first=True)
        self.out = nn.Linear(m, K)
        ### END SOLUTION

    def forward(self, x, state=None):
        """The logits of the next character at every place, and the state after the last one.

        x (N, T) int64, state None (zeros) or (h, c), each (layers, N, m)  ->  (N, T, K), (h, c)
        """
        ### BEGIN SOLUTION
        hidden, state = self.lstm(self.embed(x), state)  # (N, T, m)
        return self.out(hidden), state
        ### END SOLUTION


# %% check="CharLSTM"
check("CharLSTM")

# %% [markdown]
# ### Exercise `train_truncated`
#
# Truncated back-propagation (Section 2.5), with autograd: training in chunks with a state that is carried on, for any
# model of `CharLSTM`'s form: `model(x, state)` → `logits, state`, where `state` is a **tuple of tensors**. `batches`
# yields pairs `(inputs, targets)`, both $(N, T)$, each the continuation of the one before. For every batch: forward,
# the mean cross-entropy over all $N T$ predictions, backward, one step of the optimiser. Return the losses as a list of
# floats.
#
# - The state is `None` at the first batch and carried afterwards.
# - It is **detached** between batches: the values go on, the graph does not. Otherwise the second `backward` would run
#   through the first chunk again, whose graph is gone, and raise an error; or, if you kept the graphs, each step would
#   take longer than the one before and use more memory.
# - Old gradients are cleared before each `backward`.
# - `batches` may be a generator: go through it once, and do not ask for its length. The last batch may be shorter in
#   $T$.
# - `F.cross_entropy` wants the classes in dimension 1: flatten $(N, T, K)$ to $(NT, K)$ first.


# %% exercise="train_truncated"
def train_truncated(model, batches, optimizer):
    """One optimiser step for each batch, with the state carried on and the graph cut between them.

    model of CharLSTM's form, batches yields (inputs (N, T), targets (N, T)), optimizer of the model's parameters
    ->  list of floats, the mean cross-entropy of each batch before its step
    """
    ### BEGIN SOLUTION
    losses, state = [], None
    for inputs, targets in batches:
        logits, state = model(inputs, state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = tuple(part.detach() for part in state)
        losses.append(loss.item())
    return losses
    ### END SOLUTION


# %% check="train_truncated"
check("train_truncated")

# %% [markdown]
# ### Exercise `perplexity`
#
# How to compare models? By the mean $-\ln p$ that they give to a text they have not seen, made tangible as in Section
# 4.4 ($N$ is the length of the text here, not a number of streams):
#
# $$ \text{perplexity} = \exp\Bigl( \frac{1}{N-1} \sum_{n=1}^{N-1} -\ln p(x_{n+1} \mid x_1, \dots, x_n) \Bigr) . $$
#
# A perplexity of 5 means: on average as unsure as if it had to choose among 5 equally likely characters. The best there
# is is 1; a model without any idea has $K$.
#
# - `indices` is $(N,)$ with $N \ge 2$. There are $N - 1$ predictions; the first character is only read.
# - The state starts at zero and is carried through the whole text.
# - `model` is **either** the dict of parameters of a vanilla RNN (use your `rnn_forward`) **or** a callable of
#   `CharLSTM`'s form, which wants $(1, T)$ and returns $(1, T, K)$. `isinstance(model, dict)` tells them apart.
# - Take $\ln p$ from the logits (`F.cross_entropy`, `log_softmax`): a $p$ that was rounded to 0 cannot be repaired.
# - Return a Python float. No gradients are needed.
# - The model is left as it was, also in the mode in which it came, and gradients are recorded again afterwards:
#   `with torch.no_grad():` sees to that. (None of ours has dropout, so `eval()` is not needed. If you call it all the
#   same: a callable need not have it, and the mode is put back by `model.train(was_training)`.)
#
# **By hand first.** A model that always gives the right character probability ½ has perplexity 2.


# %% exercise="perplexity"
def perplexity(model, indices):
    """exp of the mean −ln p over the N − 1 predictions of a text.

    model a vanilla RNN's params or a callable of CharLSTM's form, indices (N,) int64  ->  a float
    """
    ### BEGIN SOLUTION
    inputs, targets = indices[:-1], indices[1:]
    if isinstance(model, dict):
        loss, _, _ = rnn_forward(model, inputs, targets, torch.zeros_like(model["b"]))
    else:
        with torch.no_grad():
            logits, _ = model(inputs[None])  # (1, N − 1, K)
        loss = F.cross_entropy(logits[0], targets)
    return math.exp(loss)
    ### END SOLUTION


# %% check="perplexity"
check("perplexity")

# %% [markdown]
# ## 6.1 A race
#
# RNN, GRU and LSTM with the same number of units, trained with Adam on 32 streams, each for the **same processor
# time**. The fair question in practice is not who is best after equally many steps, but who is best when the time is
# up. Two lines show what counting alone achieves: a table of how often each character follows each other one, and one
# of how often each follows each pair of characters.
#
# **Predict first.** (a) In which order do the three finish? (b) Which of them makes the most steps per second, and does
# that decide? (c) Does a network beat the table of pairs, which has counted the whole training text? Does your RNN of
# Section 4.2?
#
# At full length this takes three to four minutes.

# %% experiment="race"
seconds, streams, length = (60.0, 32, 64) if full else (3.0, 32, 32)
checkpoints = [seconds * share for share in (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)]
test_text = held_out[: 20_000 if full else 4_000]


class CharRecurrent(nn.Module):
    """CharLSTM's form around nn.RNN or nn.GRU, whose state is one tensor."""

    def __init__(self, kind, K, m):
        super().__init__()
        self.embed, self.cell, self.out = nn.Embedding(K, m), kind(m, m, batch_first=True), nn.Linear(m, K)

    def forward(self, x, state=None):
        hidden, h = self.cell(self.embed(x), state[0] if state else None)
        return self.out(hidden), (h,)


def timed_batches(model, curve):
    """Batches of consecutive text until the time is up; at every checkpoint the held-out perplexity goes to `curve`."""
    rows = training[: len(training) // streams * streams].reshape(streams, -1)  # (N, L)
    started, step = time.process_time(), 0
    remaining = list(checkpoints)
    while remaining:
        left = (step * length) % (rows.shape[1] - length - 1)
        yield rows[:, left : left + length], rows[:, left + 1 : left + length + 1]
        step += 1
        used = time.process_time() - started
        while remaining and used >= remaining[0]:
            remaining.pop(0)
            before = time.process_time()
            curve.append((used, perplexity(model, test_text)))
            started += time.process_time() - before  # measuring does not count


def race(name, make):
    """Train a new model for the given time; the model and its curve of (seconds, held-out perplexity)."""
    torch.manual_seed(0)
    model, curve = make(), []
    losses = train_truncated(model, timed_batches(model, curve), torch.optim.Adam(model.parameters(), lr=3e-3))
    size = sum(p.numel() for p in model.parameters())
    print(f"{name:12} {size:9,} parameters  {len(losses):6,} steps   held-out perplexity {curve[-1][1]:.2f}")
    return model, curve


def table_perplexity(order):
    """What a table of counts achieves: the next character after the last `order` ones, each count raised by 0.1."""
    counts, context, test_context = torch.full((K**order, K), 0.1), training[order - 1 : -1], test_text[order - 1 : -1]
    for back in range(1, order):
        context = context + K**back * training[order - 1 - back : -1 - back]
        test_context = test_context + K**back * test_text[order - 1 - back : -1 - back]
    counts.index_put_((context, training[order:]), torch.ones(()), accumulate=True)
    p = counts[test_context, test_text[order:]] / counts[test_context].sum(1)
    return p.log().mean().neg().exp().item()


makers = {
    "vanilla RNN": lambda: CharRecurrent(nn.RNN, K, 128),
    "GRU": lambda: CharRecurrent(nn.GRU, K, 128),
    "LSTM": lambda: CharLSTM(K, 128, 1),
}
raced = {name: race(name, make) for name, make in makers.items()}
tables = {"table after 1 character": table_perplexity(1), "table after 2 characters": table_perplexity(2)}
by_hand = perplexity(trained, test_text)
just_read = perplexity(trained, training[: milestones[-1] * T][-len(test_text) :])  # of the last pass
print(f"your RNN of Section 4.2: {by_hand:.2f}; on training text that it has read lately {just_read:.2f}")
print("   ".join(f"{name}: {value:.2f}" for name, value in tables.items()))
numbers["race"] = {
    "seconds": seconds, "your RNN": by_hand, "your RNN, read lately": just_read, **tables,
    **{name: curve[-1][1] for name, (_, curve) in raced.items()},
}  # fmt: skip


def draw_race(raced):
    """Held-out perplexity over training time."""
    styles = zip((BLUE, GREEN, VERMILLION, PURPLE), ("o-", "s--", "^-.", "d:"), strict=True)
    with course_style():
        _, ax = plt.subplots(figsize=(8.5, 4.4))
        for (name, (_, curve)), (colour, line) in zip(raced.items(), styles, strict=False):
            ax.plot(*zip(*curve, strict=True), line, color=colour, label=name)
        for (name, value), line in zip(tables.items(), (":", "--"), strict=True):
            ax.axhline(value, color="black", linewidth=1, linestyle=line, label=name)
        ax.set(xscale="log", yscale="log", xlabel="training time (processor seconds)", ylabel="held-out perplexity")
        ax.set_title(f"Held-out perplexity at equal training time, {data.source}")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")
        ax.legend(fontsize=9)


draw_race(raced)

# %% [markdown]
# (b) The vanilla RNN makes the most steps: its cell is one matrix product where the GRU's has three and the LSTM's
# four. (On a processor PyTorch's LSTM may be faster than its GRU all the same.) In the first seconds that decides, and
# it leads, in the short version to the end. (a) The longer the race, the less do steps count and the more does what a
# step can learn: after a minute for each, on Shakespeare, GRU and LSTM have overtaken it. Where the curves cross, your
# time stops being short. (c) The table of pairs is a strong opponent: it is finished after one look at the text, while
# a network has to learn from examples that there are words at all. To beat it one has to use more than two characters.
# Your RNN of Section 4.2 had one stream where these have 32. At full length it just about reaches the table of pairs;
# in the short version it has read a tenth of the text, once, and predicts what it has read lately better than text from
# other plays.

# %% [markdown]
# ## 6.2 What single units respond to
#
# 128 numbers, and nobody has told any of them what to stand for. Do some stand for something? We walk the LSTM of the
# race through held-out text, record its cells $\mathbf{c}$, and hold each of them against a few questions that a reader
# could answer: how far is the line along? Is this inside a word, and how far? Is it a capital? For each question we
# take the unit that correlates most.
#
# The best of 128 units correlates with *something* even where nobody has learnt anything: by chance, and because the
# character just read is in the cell at once. So every question is also put to an **untrained** LSTM of the same form.
# What the trained one has above that, it has learnt.
#
# **Predict first.** For which of the questions is there a unit with a correlation above 0.8? For which will the
# untrained network do nearly as well?
#
# Purple is above the unit's mean in the coloured text, orange below it. Three of the five units are shown.

# %% experiment="hidden_units"
stretch = held_out[: 6_000 if full else 3_000]
characters = decode(stretch, index_to_char)


def recorded_cells(model, indices):
    """The cells of the last layer after every character.  -> (T, m)"""
    cells, state = [], None
    with torch.no_grad():
        for index in indices:
            _, state = model(index.reshape(1, 1), state)
            cells.append(state[1][-1, 0])
    return torch.stack(cells)


def since(is_boundary):
    """How many characters ago the last boundary was."""
    counted, count = [], 0
    for boundary in is_boundary:
        count = 0 if boundary else count + 1
        counted.append(count)
    return counted


questions = {
    "place in the line": since(c == "\n" for c in characters),
    "place in the word": since(not c.isalpha() for c in characters),
    "capital letter": [c.isupper() for c in characters],
    "vowel": [c.lower() in "aeiou" for c in characters],
    "end of a word (space or mark)": [not c.isalnum() for c in characters],
}


def correlations(cells, answers):
    """The correlation of every cell with the answers to a question.  (T, m), (T,) -> (m,)"""
    return torch.corrcoef(torch.cat([torch.tensor(answers)[None].float(), cells.T]))[0, 1:].nan_to_num()


torch.manual_seed(1)
untrained = recorded_cells(CharLSTM(K, 128, 1), stretch)
cells = recorded_cells(raced["LSTM"][0], stretch)  # (T, m)
cells = (cells - cells.mean(0)) / cells.std(0)
shown, numbers["hidden_units"] = {}, {}
opening = slice(200, 200 + 300)
print(f"{'':30}  trained                   untrained")
for question, answers in questions.items():
    correlation, chance = correlations(cells, answers), correlations(untrained, answers).abs().max()
    unit = int(correlation.abs().argmax())
    print(f"{question:30}  {correlation[unit]:+.2f} (unit {unit:3})          {chance:.2f}")
    numbers["hidden_units"][question] = {"trained": correlation[unit].item(), "untrained": chance.item()}
    if question in ("place in the line", "place in the word", "vowel"):
        name = f"{question}: unit {unit}, correlation {correlation[unit]:+.2f} (untrained {chance:.2f})"
        shown[name] = cells[opening, unit]
plot_coloured_text(
    characters[opening],
    shown,
    columns=75,
    limit=3,
    label="deviations",
    title="Three cells of the LSTM, on text it has never seen (from their means, in standard deviations)",
)

# %% [markdown]
# At *place in the line* the trained network is far ahead. No character tells the place; it has to be counted, over
# dozens of steps, and nobody has asked for that: the only wish ever expressed is to guess the next character, and the
# count is worth something because a newline has to come some time. At *end of a word* the untrained network does about
# as well. The answer is in the character just read, and that is in every cell. A high correlation by itself is no
# discovery. Look for a control first, here and in what others publish about what is inside a network.

# %% [markdown]
# # 7. Bonus
#
# The exercises of this section bring points on top.
#
# ## 7.1 Attention
#
# A recurrent network squeezes the past into one vector. Attention keeps all of it and *looks things up*. Every place
# sends out a **query** $\mathbf{q}_t$, offers a **key** $\mathbf{k}_t$, and holds a **value** $\mathbf{v}_t$. A query
# is compared with all keys, and the answer is a mean of the values, weighted by how well the keys fit:
#
# $$
# \operatorname{attention}(Q, K, V) = \operatorname{softmax}\Bigl( \frac{Q K^\top}{\sqrt d} \Bigr) V .
# $$
#
# The softmax is over the **keys**: each query's weights sum to 1. The $\sqrt d$ keeps the scores at a size of 1 (a sum
# of $d$ products of independent numbers of mean 0 and variance 1 has variance $d$), so that the softmax is not
# saturated from the start. There is no recursion: no state, no powers of a matrix, and any two places are one step
# apart.
#
# When the next character is to be predicted, a place may not look into the future: with `causal=True` query $t$ sees
# keys $1 \dots t$ only. That is done **before** the softmax, by setting the other scores to $-\infty$. Zeroing weights
# *after* the softmax leaves rows that no longer sum to 1.
#
# ### Exercise `attention` (bonus)
#
# `Q` $(\dots, T, d)$, `K` $(\dots, S, d)$, `V` $(\dots, S, e)$ → $(\dots, T, e)$, with any number of leading dimensions
# (batch, heads). With `causal=True` there are as many queries as keys, $T = S$. Only the output is returned.
#
# **By hand first.** One query, two equal keys: both weights are ½, and the result is the mean of the two values.


# %% exercise="attention"
def attention(Q, K, V, *, causal):
    """Scaled dot-product attention.

    Q (…, T, d), K (…, S, d), V (…, S, e), causal a bool (then S = T)  ->  (…, T, e)
    """
    ### BEGIN SOLUTION
    scores = Q @ K.transpose(-2, -1) / math.sqrt(Q.shape[-1])  # (…, T, S)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    return torch.softmax(scores, -1) @ V
    ### END SOLUTION


# %% check="attention"
check("attention")

# %% [markdown]
# ### Exercise `CausalSelfAttention` (bonus)
#
# A layer whose queries, keys and values are all made from the same sequence: `CausalSelfAttention(d, heads)` maps $(N,
# T, d)$ to $(N, T, d)$.
#
# - Three linear maps make $Q$, $K$ and $V$ from the input. Each is cut into `heads` parts of $d / \text{heads}$
#   features; every head attends on its own (scaled by the root of *its* size), causally; their results are laid side by
#   side again, and a last linear map mixes them. (`heads` divides $d$.)
# - The result at place $t$ depends on places $1 \dots t$ of the same sequence only. Any $T \ge 1$.
# - No positions (they are added outside), no dropout, no residual connection. The names of the parts are yours.
# - Call your own `attention`. `nn.Linear` and the like may be used; `nn.MultiheadAttention` and `nn.Transformer…` may
#   not.


# %% exercise="CausalSelfAttention"
class CausalSelfAttention(nn.Module):
    """Causal self-attention with several heads: (N, T, d) -> (N, T, d) for any T; no positions, no dropout."""

    def __init__(self, d, heads):
        ### BEGIN SOLUTION
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        ### END SOLUTION

    def forward(self, x):
        """x (N, T, d)  ->  (N, T, d)"""
        ### BEGIN SOLUTION
        N, T, d = x.shape
        parts = self.qkv(x).reshape(N, T, 3, self.heads, d // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (N, heads, T, d / heads)
        mixed = attention(q, k, v, causal=True)  # (N, heads, T, d / heads)
        return self.out(mixed.transpose(1, 2).reshape(N, T, d))
        ### END SOLUTION


# %% check="CausalSelfAttention"
check("CausalSelfAttention")

# %% [markdown]
# ## 7.2 A transformer enters the race
#
# One block is enough: attention and a small two-layer network, each with a residual connection, and a vector for each
# *place*, because attention alone does not know the order of what it sees. It has no state. For a text longer than its
# window it reads overlapping windows.
#
# **Predict first.** Where does it finish? What does it have to learn that the recurrent ones are given for nothing?

# %% experiment="transformer"
window = length  # places beyond it would never be trained


class CharTransformer(nn.Module):
    """One transformer block in CharLSTM's form; its state is empty."""

    def __init__(self, K, d, heads):
        super().__init__()
        self.embed, self.place = nn.Embedding(K, d), nn.Embedding(window, d)
        self.attend, self.norm_1, self.norm_2 = CausalSelfAttention(d, heads), nn.LayerNorm(d), nn.LayerNorm(d)
        self.think = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.out = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, K))

    def forward(self, x, state=None):
        if x.shape[1] > window:
            return self.in_windows(x), ()
        y = self.embed(x) + self.place.weight[: x.shape[1]]
        y = y + self.attend(self.norm_1(y))
        y = y + self.think(self.norm_2(y))
        return self.out(y), ()

    def in_windows(self, x):
        """The logits of a longer text: each place sees between half a window and a window of what precedes it."""
        half, T = window // 2, x.shape[1]
        padded = F.pad(x, (half, -T % half))  # half a window in front; its logits are not used
        windows = padded.unfold(1, window, half)[:, 1:].flatten(0, 1)  # each begins half a window after the last
        first = self(x[:, :half])[0]  # nothing precedes these
        later = self(windows)[0][:, half:].reshape(x.shape[0], -1, first.shape[2])
        return torch.cat([first, later], 1)[:, :T]


raced["transformer"] = race("transformer", lambda: CharTransformer(K, 128, 4))
numbers["transformer"] = raced["transformer"][1][-1][1]
draw_race(raced)

# %% [markdown]
# What a recurrent network is given for nothing is *order*: the last character is the last one, because it came last. To
# attention the past is a heap; which vector belongs to which place, and that the near places matter most, it must learn
# from the text. Its steps are the dearest too. In a race of seconds, or of a minute, with one block, it pays for that.
# It has its day where there is more of everything: blocks, text, and processors, for it can read all places at once,
# while a recurrent network waits for every single step.

# %% [markdown]
# ## 7.3 The likeliest text
#
# Sampling draws characters one by one. What if we want the *likeliest* sequence of $n$ characters? Trying all $K^n$ is
# out of the question, and taking the likeliest character at each step (`greedy`) is short-sighted: a good beginning may
# lead nowhere. **Beam search** keeps the `width` best beginnings. Each is prolonged by every character, and of all
# those the best `width` stay, by the **sum of the log-probabilities**. A width of 1 is greedy.
#
# ### Exercise `beam_search` (bonus)
#
# - `step(state, index)` → `(log_p, state)`: the log-probabilities $(K,)$ of what follows after `index` has been read in
#   `state`, and the state afterwards. The first call is `step(None, start)`. A state may be anything; do not look
#   inside, do not change it, and remember that each beginning has its own.
# - Return the $n$ characters of the best sequence found, `(n,)` `int64`, without `start`.
# - `width` may be larger than $K$ (and larger than the number of sequences there are).
# - A log-probability may be $-\infty$: such a character is impossible.
#
# **By hand first.** Two characters A and B: after the start $p(A) = 0.6$; after A both are equally likely; after B, B
# has probability 0.9. Greedy takes A and ends with $0.6 \cdot 0.5 = 0.3$. Width 2 finds B B with $0.4 \cdot 0.9 =
# 0.36$.


# %% exercise="beam_search"
def beam_search(step, start, width, n):
    """Search the likeliest sequence of n characters, with the `width` best beginnings kept.

    step(state, index) -> log-probabilities (K,), state; first called as step(None, start); start an index,
    width and n ints  ->  (n,) int64, without start
    """
    ### BEGIN SOLUTION
    beams = [(0.0, [], None)]  # sum of log-probabilities, the sequence so far, the state before its last index
    for _ in range(n):
        longer = []
        for total, sequence, state in beams:
            log_p, new_state = step(state, sequence[-1] if sequence else start)
            best = log_p.topk(min(width, len(log_p)))
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                longer.append((total + value, [*sequence, index], new_state))
        beams = sorted(longer, key=lambda beam: beam[0], reverse=True)[:width]
    return torch.tensor(beams[0][1], dtype=torch.int64)
    ### END SOLUTION


# %% check="beam_search"
check("beam_search")

# %% [markdown]
# **Predict first.** The LSTM of the race writes 120 characters: drawn at random, greedy, and with beams of 5 and 25.
# Which is the likeliest? Which would you rather read?

# %% experiment="beams"
writer = raced["LSTM"][0]


def writer_step(state, index):
    with torch.no_grad():
        logits, state = writer(torch.tensor([[index]]), state)
    return torch.log_softmax(logits[0, 0], 0), state


def drawn(start, n, generator):
    written, state, index = [], None, start
    for _ in range(n):
        log_p, state = writer_step(state, index)
        index = sample(log_p, generator=generator)
        written.append(index)
    return torch.tensor(written)


def log_probability(start, written):
    total, state, index = 0.0, None, start
    for following in written.tolist():
        log_p, state = writer_step(state, index)
        total, index = total + log_p[following].item(), following
    return total


start = newline
texts = {"drawn": drawn(start, 120, torch.Generator().manual_seed(0))}
texts |= {f"beams: {width}": beam_search(writer_step, start, width, 120) for width in (1, 5, 25)}
numbers["beams"] = {}
for name, written in texts.items():
    numbers["beams"][name] = log_probability(start, written)
    print(f"━━━ {name}: ln p = {numbers['beams'][name]:.1f}")
    print(decode(written, index_to_char), "\n")

# %% [markdown]
# The likeliest text is the dullest. People do not write the most probable thing either: what everybody expects need not
# be said. That is why translation uses beams and story-telling uses a nucleus.

# %% [markdown]
# # What to take along
#
# - A gradient through a loop is a loop in the other direction. Where something is used twice, gradients add.
# - How far it reaches is decided by a power of one matrix. Clipping cures the explosion; only gates, or attention, cure
#   the vanishing.
# - A low training loss proves nothing about a gradient. Check it numerically, from a state that is not zero, over many
#   steps; and test what it is *for*: memory.
# - A model is a distribution. What you get to see of it depends on how you draw.
# - Compare models on text they have not seen, at equal cost, and against a table of counts.
#
# Before you hand in: restart the kernel and run all cells, top to bottom. Then call `check()`, which runs all checks at
# once. Hand in the notebook, with its figures.
