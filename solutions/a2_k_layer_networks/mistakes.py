"""Wrong solutions of Assignment 2 that students really write.

Each is complete in itself but for the functions at the top.  `caught_by` lists every criterion of the exercise that it
fails; `says` is what the student is told where the same results come back.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from course_utils.checking import mistake

# --- What mistakes are built from ------------------------------------------------------------------------------------


def _forward(X, layers):
    inputs = [X]
    for layer in layers[:-1]:
        inputs.append(torch.relu(inputs[-1] @ layer["W"] + layer["b"]))
    scores = inputs[-1] @ layers[-1]["W"] + layers[-1]["b"]
    return scores, (inputs, scores)


def _cost(X, y, layers, lam):
    return F.cross_entropy(_forward(X, layers)[0], y) + lam * sum((layer["W"] ** 2).sum() for layer in layers)


def _upstream(scores, y):
    return (torch.softmax(scores, 1) - F.one_hot(y, scores.shape[1])) / len(y)


def _back(layers, inputs, G, lam):
    """The gradients of all layers from G, that of the scores."""
    gradients = []
    for H, layer in zip(reversed(inputs), reversed(layers), strict=True):
        gradients.insert(0, {"W": H.T @ G + 2 * lam * layer["W"], "b": G.sum(0)})
        G = G @ layer["W"].T * (H > 0)
    return gradients


def _gradients(X, y, layers, lam):
    scores, (inputs, _) = _forward(X, layers)
    return _back(layers, inputs, _upstream(scores, y), lam)


def _lr(t, n_s, lr_min, lr_max):
    return lr_min + (lr_max - lr_min) * (n_s - abs(t % (2 * n_s) - n_s)) / n_s


def _moved(layers, gradients, lr):
    return [{k: v - lr * g[k] for k, v in layer.items()} for layer, g in zip(layers, gradients, strict=True)]


def _bn(S, gamma, beta, running, training, decay=0.9, eps=1e-5):
    """Batch normalisation, with the cache that its backward pass takes."""
    mean, var = (S.mean(0), S.var(0, correction=0)) if training else (running["mean"], running["var"])
    if training and running is None:
        running = {"mean": mean, "var": var}
    elif training:
        running = {k: decay * running[k] + (1 - decay) * v for k, v in (("mean", mean), ("var", var))}
    inverse_std = 1 / torch.sqrt(var + eps)
    S_hat = (S - mean) * inverse_std
    return gamma * S_hat + beta, (S_hat, gamma, inverse_std), running


def _bn_back(G, cache):
    S_hat, gamma, inverse_std = cache
    along = G - G.mean(0) - S_hat * (G * S_hat).mean(0)
    return gamma * inverse_std * along, (G * S_hat).sum(0), G.sum(0)


def _bn_result(S, gamma, beta, mean, var, running, eps):
    """What batch normalisation returns for a mean and a variance."""
    inverse_std = 1 / torch.sqrt(var + eps)
    S_hat = (S - mean) * inverse_std
    return gamma * S_hat + beta, (S_hat, gamma, inverse_std), running


# --- Initialisation --------------------------------------------------------------------------------------------------


def _initial(sizes, std, generator):
    """Layers with standard deviations std(d_in, d_out)."""
    return [{"W": std(a, b) * torch.randn(a, b, generator=generator), "b": torch.zeros(b)} for a, b in pairwise(sizes)]


def _scheme(scheme, sigma, he=None, xavier=None):
    """The standard deviation of a scheme as a function of d_in and d_out."""
    schemes = {
        "he": he or (lambda a, b: math.sqrt(2 / a)),
        "xavier": xavier or (lambda a, b: math.sqrt(2 / (a + b))),
        "normal": lambda a, b: sigma,
    }
    if scheme not in schemes:
        raise ValueError(f"unknown scheme {scheme}")
    return schemes[scheme]


@mistake(
    "initialize",
    caught_by="he",
    says="The scheme \"he\" has Xavier's standard deviation, √(2 / (d_in + d_out)). He's is √(2 / d_in): a "
    "ReLU throws half of the signal away, and the 2 makes up for it.",
)
def xavier_for_he(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma, he=lambda a, b: math.sqrt(2 / (a + b))), generator)


@mistake(
    "initialize",
    caught_by="he",
    says='The scheme "he" divides by the number of outputs. What must stay of the same size on the way '
    "forward is a sum over the inputs: √(2 / d_in).",
)
def he_by_outputs(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma, he=lambda a, b: math.sqrt(2 / b)), generator)


@mistake(
    "initialize",
    caught_by="he",
    says='The scheme "he" uses √(1 / d_in). The ReLU sets half of the activations to 0, so the variance has '
    "to be twice as large: √(2 / d_in).",
)
def he_without_the_two(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma, he=lambda a, b: math.sqrt(1 / a)), generator)


@mistake(
    "initialize",
    caught_by="he",
    says="Every layer is scaled by the number of inputs of the first one, d. Each W has a d_in of its own: W.shape[0].",
)
def he_by_the_first_layer(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma, he=lambda a, b: math.sqrt(2 / sizes[0])), generator)


@mistake(
    "initialize",
    caught_by=("he", "xavier"),
    says="The variance 2 / … is used where the standard deviation belongs: a Gaussian of mean 0 is scaled by the "
    "square root of its variance.",
)
def variance_for_std(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma, he=lambda a, b: 2 / a, xavier=lambda a, b: 2 / (a + b)), generator)


@mistake(
    "initialize",
    caught_by="xavier",
    says='The scheme "xavier" looks at the inputs only, √(1 / d_in). Glorot and Bengio average both '
    "directions, forward and backward: √(2 / (d_in + d_out)).",
)
def xavier_by_inputs(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma, xavier=lambda a, b: math.sqrt(1 / a)), generator)


@mistake(
    "initialize",
    caught_by="xavier",
    says="√(6 / (d_in + d_out)) is the bound of Xavier's uniform distribution. A Gaussian of the same "
    "variance has the standard deviation √(2 / (d_in + d_out)).",
)
def xavier_bound_for_std(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma, xavier=lambda a, b: math.sqrt(6 / (a + b))), generator)


@mistake(
    "initialize",
    caught_by=("normal", "one_layer_or_many"),
    says="sigma is squared or rooted on the way: it is the standard deviation itself, `sigma * torch.randn(…)`.",
)
def root_of_sigma(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma and math.sqrt(sigma)), generator)


@mistake(
    "initialize",
    caught_by=("normal", "one_layer_or_many"),
    says='sigma is not used: "normal" has a fixed standard deviation.',
)
def sigma_ignored(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, 0.1), generator)


@mistake(
    "initialize",
    caught_by="gaussian_around_zero",
    says="The numbers come from a uniform distribution of the right spread; asked for is a Gaussian: `torch.randn`.",
)
def uniform_numbers(sizes, scheme, *, sigma=None, generator):
    std = _scheme(scheme, sigma)
    return [
        {"W": math.sqrt(12) * std(a, b) * (torch.rand(a, b, generator=generator) - 0.5), "b": torch.zeros(b)}
        for a, b in pairwise(sizes)
    ]


@mistake(
    "initialize",
    caught_by="every_layer_has_its_own_numbers",
    says="Layers of the same shape get the very same array, so an update of one changes the others, and they "
    "start out alike. Make a new one for every layer.",
)
def same_array_for_same_shape(sizes, scheme, *, sigma=None, generator):
    std, made = _scheme(scheme, sigma), {}
    for a, b in pairwise(sizes):
        if (a, b) not in made:
            made[a, b] = {"W": std(a, b) * torch.randn(a, b, generator=generator), "b": torch.zeros(b)}
    return [made[shape] for shape in pairwise(sizes)]


@mistake(
    "initialize",
    caught_by="every_layer_has_its_own_numbers",
    says="The biases of several layers are one array: an update of one changes the others. Make a new one for every "
    "layer.",
)
def one_array_of_zeros(sizes, scheme, *, sigma=None, generator):
    zeros = torch.zeros(max(sizes))
    layers = _initial(sizes, _scheme(scheme, sigma), generator)
    return [{"W": layer["W"], "b": zeros[: len(layer["b"])]} for layer in layers]


@mistake(
    "initialize",
    caught_by="every_layer_has_its_own_numbers",
    says="The generator is seeded anew for every layer, so layers of the same shape get the same numbers.",
)
def seeded_for_every_layer(sizes, scheme, *, sigma=None, generator):
    std, seed = _scheme(scheme, sigma), int(torch.randint(2**31, (), generator=generator))
    return [
        {"W": std(a, b) * torch.randn(a, b, generator=torch.Generator().manual_seed(seed)), "b": torch.zeros(b)}
        for a, b in pairwise(sizes)
    ]


@mistake(
    "initialize",
    caught_by="biases_are_zero",
    says="b is drawn at random. It starts at zero: the random W already make the units differ from each other.",
)
def random_biases(sizes, scheme, *, sigma=None, generator):
    layers = _initial(sizes, _scheme(scheme, sigma), generator)
    return [{"W": layer["W"], "b": 0.01 * torch.randn(len(layer["b"]), generator=generator)} for layer in layers]


@mistake(
    "initialize",
    caught_by="unknown_scheme",
    says='Whatever is not "he" or "xavier" is taken for "normal", so a misspelt scheme is not noticed. Raise a '
    "ValueError that names it.",
)
def anything_else_is_normal(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme if scheme in ("he", "xavier") else "normal", sigma or 0.01), generator)


@mistake(
    "initialize",
    caught_by="unknown_scheme",
    says="An unknown scheme raises a KeyError from a dict. Raise a ValueError that says which scheme there is not.",
)
def key_error_for_unknown(sizes, scheme, *, sigma=None, generator):
    {"he": 1, "xavier": 2, "normal": 3}[scheme]
    return _initial(sizes, _scheme(scheme, sigma), generator)


@mistake(
    "initialize",
    caught_by="unknown_scheme",
    says="The ValueError for an unknown scheme does not say which scheme that was; whoever reads it wants to know.",
)
def nameless_value_error(sizes, scheme, *, sigma=None, generator):
    if scheme not in ("he", "xavier", "normal"):
        raise ValueError("unknown initialisation")
    return _initial(sizes, _scheme(scheme, sigma), generator)


@mistake(
    "initialize",
    caught_by="keeps_form",
    says="The arrays are float64, as NumPy makes them. PyTorch computes in float32 unless told otherwise, at "
    "half the cost; give the arrays that dtype.",
)
def parameters_in_float64(sizes, scheme, *, sigma=None, generator):
    layers = _initial(sizes, _scheme(scheme, sigma), generator)
    return [{k: v.double() for k, v in layer.items()} for layer in layers]


@mistake(
    "initialize",
    caught_by="keeps_form",
    says="b is a row (1, d_out) or a column; it has one axis only, (d_out,).",
)
def bias_as_a_row(sizes, scheme, *, sigma=None, generator):
    layers = _initial(sizes, _scheme(scheme, sigma), generator)
    return [{"W": layer["W"], "b": layer["b"][None]} for layer in layers]


@mistake(
    "initialize",
    caught_by="keeps_form",
    says="W has shape (d_out, d_in), as in formulas with examples as columns. Here examples are rows, and W is "
    "(d_in, d_out): S = XW + b.",
)
def weights_transposed(sizes, scheme, *, sigma=None, generator):
    layers = _initial(sizes, _scheme(scheme, sigma), generator)
    return [{"W": layer["W"].T.contiguous(), "b": layer["b"]} for layer in layers]


@mistake(
    "initialize",
    caught_by="same_state_same_result",
    says="The numbers do not come from `generator` but from PyTorch's global state, so a run cannot be repeated.",
)
def global_random_state(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma), None)


@mistake(
    "initialize",
    caught_by="generator_decides",
    says="A generator with a fixed seed is made inside, so every network starts from the same numbers.",
)
def seeded_inside(sizes, scheme, *, sigma=None, generator):
    return _initial(sizes, _scheme(scheme, sigma), torch.Generator().manual_seed(42))


@mistake(
    "initialize",
    caught_by="leaves_arguments_alone",
    says="`pop` takes elements out of the caller's list of sizes; whoever passed it finds it empty.",
)
def sizes_used_up(sizes, scheme, *, sigma=None, generator):
    layers, a = [], sizes.pop(0)
    while sizes:
        b = sizes.pop(0)
        layers += _initial([a, b], _scheme(scheme, sigma), generator)
        a = b
    return layers


@mistake(
    "initialize",
    caught_by="generator_decides",
    says="The numbers come from a copy of `generator`, which therefore never moves on: every call gives the same ones.",
)
def copy_of_the_generator(sizes, scheme, *, sigma=None, generator):
    copied = torch.Generator().set_state(generator.get_state())
    return _initial(sizes, _scheme(scheme, sigma), copied)


@mistake(
    "initialize",
    caught_by="gaussian_around_zero",
    says="The numbers are spread about a mean that is not 0: `torch.randn` has mean 0, add nothing to it.",
)
def mean_of_one_deviation(sizes, scheme, *, sigma=None, generator):
    layers = _initial(sizes, lambda a, b: 1.0, generator)
    std = _scheme(scheme, sigma)
    return [{"W": std(*layer["W"].shape) * (layer["W"] + 1), "b": layer["b"]} for layer in layers]


# --- forward ---------------------------------------------------------------------------------------------------------


def _network(X, layers, activation):
    """A network with any activation, called as activation(S, number of the layer, number of layers)."""
    inputs = [X]
    for k, layer in enumerate(layers):
        inputs.append(activation(inputs[-1] @ layer["W"] + layer["b"], k, len(layers)))
    return inputs[-1], (inputs[:-1], inputs[-1])


@mistake(
    "forward",
    caught_by="no_relu_on_the_scores",
    says="The ReLU is applied to the last layer too, so no score can be negative. Scores go to the softmax as "
    "they are.",
)
def relu_on_the_scores(X, layers):
    return _network(X, layers, lambda S, k, n: torch.relu(S))


@mistake(
    "forward",
    caught_by=("one_hidden_layer", "many_layers"),
    says="There is no ReLU: without it a network of many layers is a single linear map, however many it has.",
)
def no_relu(X, layers):
    return _network(X, layers, lambda S, k, n: S)


@mistake(
    "forward",
    caught_by="many_layers",
    says="Only the first hidden layer has a ReLU; every hidden layer needs one.",
)
def relu_after_the_first_layer_only(X, layers):
    return _network(X, layers, lambda S, k, n: torch.relu(S) if k == 0 < n - 1 else S)


@mistake(
    "forward",
    caught_by=("one_hidden_layer", "many_layers"),
    says="The hidden layers have a leaky ReLU, which lets a little of the negative through. Asked for is max(0, s).",
)
def leaky_relu(X, layers):
    return _network(X, layers, lambda S, k, n: F.leaky_relu(S) if k < n - 1 else S)


@mistake(
    "forward",
    caught_by=("one_hidden_layer", "many_layers"),
    says="The hidden layers take the absolute value; the ReLU is max(0, s), 0 for everything negative.",
)
def absolute_value(X, layers):
    return _network(X, layers, lambda S, k, n: S.abs() if k < n - 1 else S)


@mistake(
    "forward",
    caught_by=("one_hidden_layer", "many_layers", "biases_are_added"),
    says="The hidden layers have a sigmoid; asked for is the ReLU, max(0, s).",
)
def sigmoid_for_relu(X, layers):
    return _network(X, layers, lambda S, k, n: torch.sigmoid(S) if k < n - 1 else S)


@mistake(
    "forward",
    caught_by=("one_hidden_layer", "many_layers", "one_layer"),
    says="The ReLU is applied to the examples before the first layer, which throws their negative features away. It "
    "belongs behind every hidden layer.",
)
def relu_on_the_examples(X, layers):
    return _forward(torch.relu(X), layers)


@mistake("forward", caught_by="biases_are_added", says="b is not added in any layer: S = HW + b.")
def biases_forgotten(X, layers):
    return _forward(X, [{"W": layer["W"], "b": 0 * layer["b"]} for layer in layers])


@mistake("forward", caught_by="biases_are_added", says="b is added in the last layer only; hidden layers have one too.")
def hidden_biases_forgotten(X, layers):
    return _forward(X, [*({"W": layer["W"], "b": 0 * layer["b"]} for layer in layers[:-1]), layers[-1]])


@mistake("forward", caught_by="biases_are_added", says="b is added in hidden layers only; the last layer has one too.")
def last_bias_forgotten(X, layers):
    return _forward(X, [*layers[:-1], {"W": layers[-1]["W"], "b": 0 * layers[-1]["b"]}])


@mistake(
    "forward",
    caught_by="biases_are_added",
    says="b is added after the ReLU instead of before it: relu(HW) + b. It shifts the point at which a unit "
    "switches on.",
)
def bias_after_the_relu(X, layers):
    inputs = [X]
    for layer in layers[:-1]:
        inputs.append(torch.relu(inputs[-1] @ layer["W"]) + layer["b"])
    scores = inputs[-1] @ layers[-1]["W"] + layers[-1]["b"]
    return scores, (inputs, scores)


@mistake(
    "forward",
    caught_by="one_hidden_layer",
    says="Probabilities are returned instead of scores: the softmax belongs to the cost, which is more exact "
    "without it.",
)
def probabilities_for_scores(X, layers):
    scores, (inputs, _) = _forward(X, layers)
    return torch.softmax(scores, 1), (inputs, scores)


@mistake(
    "forward",
    caught_by="leaves_arguments_alone",
    says="`pop` takes the last layer out of the caller's list; the next call finds a network without it. Use "
    "`layers[-1]` and `layers[:-1]`.",
)
def last_layer_popped(X, layers):
    last, inputs = layers.pop(), [X]
    for layer in layers:
        inputs.append(torch.relu(inputs[-1] @ layer["W"] + layer["b"]))
    scores = inputs[-1] @ last["W"] + last["b"]
    return scores, (inputs, scores)


@mistake(
    "forward",
    caught_by="cache_stays_valid",
    says="All calls share one cache, so the next forward pass overwrites what this one's backward pass still needs. "
    "Make a new one in every call.",
)
def one_cache_for_all_calls(X, layers, shared=([], [])):  # a default value lives as long as the function
    scores, (inputs, _) = _forward(X, layers)
    shared[0][:], shared[1][:] = inputs, [scores]
    return scores, _LastScores(shared)


class _LastScores:
    """Unpacks into whatever the last forward pass left."""

    def __init__(self, shared):
        self.shared = shared

    def __iter__(self):
        return iter((list(self.shared[0]), self.shared[1][0]))


@mistake(
    "forward",
    caught_by="keeps_precision",
    says="The examples are converted to float32 on the way; float64 inputs keep their digits.",
)
def forward_in_float32(X, layers):
    scores, cache = _forward(X.float(), [{k: v.float() for k, v in layer.items()} for layer in layers])
    return scores.to(X.dtype), ([H.to(X.dtype) for H in cache[0]], scores.to(X.dtype))


@mistake(
    "forward",
    caught_by="no_relu_on_the_scores",
    says="A network of a single layer is a case of its own here, and a ReLU is left on its scores. The last layer has "
    "none, also where it is the only one.",
)
def relu_on_a_single_layer(X, layers):
    if len(layers) == 1:
        scores = torch.relu(X @ layers[0]["W"] + layers[0]["b"])
        return scores, ([X], scores)
    return _forward(X, layers)


@mistake(
    "forward",
    caught_by="smallest_sizes",
    says="`squeeze` takes away the axis of the units where a hidden layer has only one.",
)
def hidden_units_squeezed(X, layers):
    inputs = [X]
    for layer in layers[:-1]:
        inputs.append(torch.relu(inputs[-1] @ layer["W"] + layer["b"]).squeeze(1))
    scores = inputs[-1] @ layers[-1]["W"] + layers[-1]["b"]
    return scores, (inputs, scores)


@mistake(
    "forward",
    caught_by="keeps_form",
    says="`squeeze` takes away the axis of the examples where there is only one. The scores are (N, K), for N = 1 too.",
)
def scores_squeezed(X, layers):
    scores, cache = _forward(X, layers)
    return scores.squeeze(), cache


BUFFERS = {}


@mistake(
    "forward",
    caught_by="cache_stays_valid",
    says="The hidden units are written into buffers that every call with the same shapes uses again, so an older cache "
    "holds the numbers of the newest call. Make new tensors.",
)
def buffers_used_again(X, layers):
    inputs = [X]
    for k, layer in enumerate(layers[:-1]):
        H = torch.relu(inputs[-1] @ layer["W"] + layer["b"])
        inputs.append(BUFFERS.setdefault((k, H.shape, H.dtype), torch.empty_like(H)).copy_(H))
    scores = inputs[-1] @ layers[-1]["W"] + layers[-1]["b"]
    return scores, (inputs, scores)


# --- cost ------------------------------------------------------------------------------------------------------------


def _penalty(layers):
    return sum((layer["W"] ** 2).sum() for layer in layers)


def _loss(X, y, layers):
    return F.cross_entropy(_forward(X, layers)[0], y)


@mistake("cost", caught_by="mean_over_examples", says="The losses are summed; the cost takes their mean.")
def losses_summed(X, y, layers, lam):
    return len(y) * _loss(X, y, layers) + lam * _penalty(layers)


@mistake(
    "cost",
    caught_by="regulariser_of_every_layer",
    says="Only the last layer's W is regularised; the sum goes over the W of all layers.",
)
def last_layer_regularised(X, y, layers, lam):
    return _loss(X, y, layers) + lam * _penalty(layers[-1:])


@mistake(
    "cost",
    caught_by="regulariser_of_every_layer",
    says="Only the first layer's W is regularised; the sum goes over the W of all layers.",
)
def first_layer_regularised(X, y, layers, lam):
    return _loss(X, y, layers) + lam * _penalty(layers[:1])


@mistake("cost", caught_by="regulariser_of_every_layer", says="λ is not used: the cost is the loss plus λ Σ W².")
def no_regulariser(X, y, layers, lam):
    return _loss(X, y, layers)


@mistake(
    "cost",
    caught_by="regulariser_of_every_layer",
    says="The regulariser is halved: here it is λ Σ W², without ½, and its gradient is 2λW.",
)
def regulariser_halved(X, y, layers, lam):
    return _loss(X, y, layers) + 0.5 * lam * _penalty(layers)


@mistake(
    "cost",
    caught_by="regulariser_of_every_layer",
    says="The regulariser is divided by the number of examples; only the loss is a mean over them.",
)
def regulariser_divided_by_N(X, y, layers, lam):
    return _loss(X, y, layers) + lam * _penalty(layers) / len(y)


@mistake(
    "cost",
    caught_by="regulariser_of_every_layer",
    says="The regulariser takes the mean of the squares of each W; asked for is their sum.",
)
def mean_of_squares(X, y, layers, lam):
    return _loss(X, y, layers) + lam * sum((layer["W"] ** 2).mean() for layer in layers)


@mistake(
    "cost",
    caught_by="regulariser_of_every_layer",
    says="The regulariser adds the norms of the W, which are roots of sums of squares; leave the root away.",
)
def norm_without_square(X, y, layers, lam):
    return _loss(X, y, layers) + lam * sum(layer["W"].norm() for layer in layers)


@mistake(
    "cost",
    caught_by="regulariser_of_every_layer",
    says="The regulariser adds absolute values (L1); asked for are squares.",
)
def absolute_values_regularised(X, y, layers, lam):
    return _loss(X, y, layers) + lam * sum(layer["W"].abs().sum() for layer in layers)


@mistake(
    "cost",
    caught_by="biases_are_not_regularised",
    says="The biases are regularised too. They shift what a unit responds to and fit no noise; only W is.",
)
def biases_regularised(X, y, layers, lam):
    return _loss(X, y, layers) + lam * sum((v**2).sum() for layer in layers for v in layer.values())


@mistake(
    "cost",
    caught_by=("large_scores_do_not_overflow", "no_logarithm_of_zero"),
    says="The exponentials of the scores overflow, or the logarithm of a probability of 0 is taken. Use "
    "`log_softmax`, `logsumexp` or `F.cross_entropy`, which subtract the largest score first.",
)
def log_of_softmax(X, y, layers, lam):
    p = torch.softmax(_forward(X, layers)[0], 1)
    return -torch.log(p[range(len(y)), y]).mean() + lam * _penalty(layers)


@mistake(
    "cost",
    caught_by=("large_scores_do_not_overflow", "no_logarithm_of_zero"),
    says="A small number added to the probability caps the loss: an example that is badly wrong costs too little. "
    "Compute the logarithm from the scores, with `log_softmax`.",
)
def log_with_epsilon(X, y, layers, lam):
    p = torch.softmax(_forward(X, layers)[0], 1)
    return -torch.log(p[range(len(y)), y] + 1e-12).mean() + lam * _penalty(layers)


@mistake(
    "cost",
    caught_by=(
        "loss_of_the_scores",
        "mean_over_examples",
        "large_scores_do_not_overflow",
        "no_logarithm_of_zero",
        "one_example_is_a_set",
    ),
    says="The softmax runs over the examples (axis 0) instead of the classes (axis 1).",
)
def softmax_over_examples(X, y, layers, lam):
    log_p = torch.log_softmax(_forward(X, layers)[0], 0)
    return -log_p[range(len(y)), y].mean() + lam * _penalty(layers)


@mistake(
    "cost",
    caught_by="leaves_arguments_alone",
    says="The W are squared in place, in the caller's own layers: after one look at the cost the network is another.",
)
def squared_in_place(X, y, layers, lam):
    loss = _loss(X, y, layers)
    return loss + lam * sum(layer["W"].pow_(2).sum() for layer in layers)


@mistake(
    "cost",
    caught_by="keeps_precision",
    says="Part of the cost is computed in float32 (the scores converted, or a sum collected in a float32 tensor); "
    "float64 inputs keep their digits.",
)
def loss_in_float32(X, y, layers, lam):
    loss = F.cross_entropy(_forward(X, layers)[0].float(), y).to(X.dtype)
    return loss + lam * _penalty(layers).float().to(X.dtype)


@mistake(
    "cost",
    caught_by="large_scores_do_not_overflow",
    says="The largest of all scores is subtracted before the exponential, so every exponential of a row that lies far "
    "below it is 0. Subtract from each row its own largest score.",
)
def shifted_by_the_largest_of_all(X, y, layers, lam):
    scores = _forward(X, layers)[0]
    scores = scores - scores.max()
    log_p = scores - scores.exp().sum(1, keepdim=True).log()
    return -log_p[torch.arange(len(y)), y].mean() + lam * _penalty(layers)


@mistake(
    "cost",
    caught_by="keeps_precision",
    says="Part of the cost is computed in float32 (the scores converted, or a sum collected in a float32 tensor); "
    "float64 inputs keep their digits.",
)
def squares_summed_in_float32(X, y, layers, lam):
    total = torch.zeros(1, dtype=torch.float32)
    for layer in layers:
        total += (layer["W"] ** 2).sum()
    return _loss(X, y, layers) + lam * total.item()


@mistake(
    "cost",
    caught_by="regulariser_of_every_layer",
    says="The layers' penalties are kept by the shape of W, so of layers of one shape only the last one counts.",
)
def one_penalty_for_every_shape(X, y, layers, lam):
    penalties = {layer["W"].shape: (layer["W"] ** 2).sum() for layer in layers}
    return F.cross_entropy(_forward(X, layers)[0], y) + lam * sum(penalties.values())


# --- backward --------------------------------------------------------------------------------------------------------

_ALL_LAYERS = (
    "weights_of_a_hidden_layer",
    "bias_of_a_hidden_layer",
    "many_layers_back",
    "with_every_bias",
    "weights_of_the_last_layer",
    "bias_of_the_last_layer",
    "mean_over_examples",
    "regulariser_of_every_layer",
    "only_weights_are_regularised",
    "keeps_form",
    "leaves_arguments_alone",
    "cache_serves_again",
    "large_scores_do_no_harm",
    "takes_any_layout",
    "slope_at_zero",
    "keeps_precision",
    "one_example_is_a_set",
)


@mistake(
    "backward",
    caught_by="weights_of_a_hidden_layer",
    says="The gradient goes back through units that the ReLU has switched off. Either its mask is missing, or it is "
    "H >= 0, which holds everywhere: what comes out of a ReLU is never negative. The mask is H > 0.",
)
def mask_missing(y, layers, cache, lam):
    inputs, scores = cache
    G, gradients = _upstream(scores, y), []
    for H, layer in zip(reversed(inputs), reversed(layers), strict=True):
        gradients.insert(0, {"W": H.T @ G + 2 * lam * layer["W"], "b": G.sum(0)})
        G = G @ layer["W"].T * (H >= 0) if len(gradients) < len(layers) else G
    return gradients


@mistake(
    "backward",
    caught_by="weights_of_a_hidden_layer",
    says="The mask is taken from the gradient (G > 0) instead of from what went through the ReLU: a unit that was "
    "switched on passes its gradient on, whatever its sign.",
)
def mask_from_the_gradient(y, layers, cache, lam):
    inputs, scores = cache
    G, gradients = _upstream(scores, y), []
    for H, layer in zip(reversed(inputs), reversed(layers), strict=True):
        gradients.insert(0, {"W": H.T @ G + 2 * lam * layer["W"], "b": G.sum(0)})
        G = torch.relu(G @ layer["W"].T)
    return gradients


@mistake(
    "backward",
    caught_by=_ALL_LAYERS,
    says="The mask of the ReLU is taken from another layer's activations: its shape does not even fit. The "
    "gradient of what a layer gave is masked by where that same layer's output is positive.",
)
def mask_of_another_layer(y, layers, cache, lam):
    inputs, scores = cache
    G, gradients = _upstream(scores, y), []
    for k in reversed(range(len(layers))):
        gradients.insert(0, {"W": inputs[k].T @ G + 2 * lam * layers[k]["W"], "b": G.sum(0)})
        if k:
            G = (G @ layers[k]["W"].T) * (inputs[k - 1] > 0)
    return gradients


@mistake(
    "backward",
    caught_by=("many_layers_back", "with_every_bias"),
    says="Only the last hidden layer's ReLU is gone back through; every hidden layer has one.",
)
def mask_of_the_last_hidden_layer_only(y, layers, cache, lam):
    inputs, scores = cache
    G, gradients = _upstream(scores, y), []
    for k in reversed(range(len(layers))):
        gradients.insert(0, {"W": inputs[k].T @ G + 2 * lam * layers[k]["W"], "b": G.sum(0)})
        if k:
            G = G @ layers[k]["W"].T
            G = G * (inputs[k] > 0) if k == len(layers) - 1 else G
    return gradients


@mistake(
    "backward",
    caught_by="bias_of_a_hidden_layer",
    says="The gradient of a hidden b is summed before the ReLU's mask is applied. b is added before the ReLU, so its "
    "gradient has gone back through it.",
)
def bias_gradient_before_the_mask(y, layers, cache, lam):
    inputs, scores = cache
    G = upstream = _upstream(scores, y)
    gradients = []
    for H, layer in zip(reversed(inputs), reversed(layers), strict=True):
        gradients.insert(0, {"W": H.T @ G + 2 * lam * layer["W"], "b": upstream.sum(0)})
        upstream = G @ layer["W"].T
        G = upstream * (H > 0)
    return gradients


def _changed(gradients, change):
    """The gradients after change(number of the layer, key, value)."""
    return [{key: change(k, key, v) for key, v in layer.items()} for k, layer in enumerate(gradients)]


@mistake(
    "backward",
    caught_by="regulariser_of_every_layer",
    says="The regulariser is missing from the gradients of W: λ Σ W² contributes 2λW to each.",
)
def gradient_without_regulariser(y, layers, cache, lam):
    return _back(layers, cache[0], _upstream(cache[1], y), 0.0)


@mistake(
    "backward",
    caught_by="regulariser_of_every_layer",
    says="The regulariser contributes λW to the gradient; the derivative of λW² is 2λW.",
)
def gradient_with_lambda_once(y, layers, cache, lam):
    return _back(layers, cache[0], _upstream(cache[1], y), lam / 2)


@mistake(
    "backward",
    caught_by="regulariser_of_every_layer",
    says="The regulariser's part of the gradient is divided by N; only the loss is a mean over examples.",
)
def gradient_with_lambda_over_N(y, layers, cache, lam):
    return _back(layers, cache[0], _upstream(cache[1], y), lam / len(y))


@mistake(
    "backward",
    caught_by="regulariser_of_every_layer",
    says="Only the last layer's gradient has the regulariser's part; the W of every layer is regularised.",
)
def gradient_regularised_in_the_last_layer(y, layers, cache, lam):
    gradients = _back(layers, cache[0], _upstream(cache[1], y), 0.0)
    gradients[-1]["W"] = gradients[-1]["W"] + 2 * lam * layers[-1]["W"]
    return gradients


@mistake(
    "backward",
    caught_by="regulariser_of_every_layer",
    says="The gradients of the hidden layers have the regulariser's part, that of the last layer has not.",
)
def gradient_regularised_in_hidden_layers(y, layers, cache, lam):
    gradients = _back(layers, cache[0], _upstream(cache[1], y), lam)
    gradients[-1]["W"] = gradients[-1]["W"] - 2 * lam * layers[-1]["W"]
    return gradients


@mistake(
    "backward",
    caught_by="only_weights_are_regularised",
    says="The gradient of b has a regulariser's part too, 2λb; only W is regularised.",
)
def gradient_of_b_regularised(y, layers, cache, lam):
    gradients = _back(layers, cache[0], _upstream(cache[1], y), lam)
    return [{"W": g["W"], "b": g["b"] + 2 * lam * layer["b"]} for g, layer in zip(gradients, layers, strict=True)]


@mistake(
    "backward",
    caught_by="mean_over_examples",
    says="The gradients are those of the sum of the losses; the cost takes their mean, so divide P − Y by N.",
)
def gradients_of_the_sum(y, layers, cache, lam):
    return _back(layers, cache[0], len(y) * _upstream(cache[1], y), lam)


@mistake(
    "backward",
    caught_by="mean_over_examples",
    says="The gradients are divided by N twice: once is enough, in P − Y.",
)
def divided_by_N_twice(y, layers, cache, lam):
    return _back(layers, cache[0], _upstream(cache[1], y) / len(y), lam)


@mistake(
    "backward",
    caught_by="mean_over_examples",
    says="The gradient of b is a mean over examples of what was divided by N already; sum it.",
)
def mean_for_b(y, layers, cache, lam):
    gradients = _back(layers, cache[0], _upstream(cache[1], y), lam)
    return _changed(gradients, lambda k, key, v: v / len(y) if key == "b" else v)


@mistake(
    "backward",
    caught_by="weights_of_the_last_layer",
    says="The sign is flipped: the gradient of the loss with respect to the scores is P − Y, not Y − P.",
)
def sign_flipped(y, layers, cache, lam):
    return _back(layers, cache[0], -_upstream(cache[1], y), lam)


@mistake(
    "backward",
    caught_by="weights_of_the_last_layer",
    says="The one-hot labels are not subtracted: the gradient with respect to the scores is P − Y, not P.",
)
def labels_not_subtracted(y, layers, cache, lam):
    return _back(layers, cache[0], torch.softmax(cache[1], 1) / len(y), lam)


@mistake(
    "backward",
    caught_by="weights_of_the_last_layer",
    says="The scores themselves are used where the probabilities belong: P is the softmax of the scores.",
)
def scores_for_probabilities(y, layers, cache, lam):
    return _back(layers, cache[0], (cache[1] - F.one_hot(y, cache[1].shape[1])) / len(y), lam)


@mistake(
    "backward",
    caught_by=("large_scores_do_no_harm",),
    says="The exponentials of large scores overflow. Use `torch.softmax`, which subtracts the largest score first.",
)
def exponentials_overflow(y, layers, cache, lam):
    P = torch.exp(cache[1])
    P = P / P.sum(1, keepdim=True)
    return _back(layers, cache[0], (P - F.one_hot(y, P.shape[1])) / len(y), lam)


@mistake(
    "backward",
    caught_by=("with_every_bias", "one_example_is_a_set"),
    says="`one_hot(y)` has as many columns as the largest label says; a batch need not contain every class. Pass the "
    "number of classes.",
)
def classes_counted_in_y(y, layers, cache, lam):
    inputs, scores = cache
    return _back(layers, inputs, (torch.softmax(scores, 1) - F.one_hot(y)) / len(y), lam)


@mistake(
    "backward",
    caught_by="keeps_form",
    says="The gradients come in the order in which they are computed, the last layer's first. Return them in "
    "the order of the layers.",
)
def last_layer_first(y, layers, cache, lam):
    return _back(layers, cache[0], _upstream(cache[1], y), lam)[::-1]


@mistake(
    "backward",
    caught_by="cache_serves_again",
    says="The backward pass uses the cache up (`pop`, or work in place), so it serves only once. Leave it as it is.",
)
def cache_used_up(y, layers, cache, lam):
    inputs, scores = cache
    scores -= scores.max(1, keepdim=True).values
    scores.exp_()
    return _back(layers, inputs, (scores / scores.sum(1, keepdim=True) - F.one_hot(y, scores.shape[1])) / len(y), lam)


@mistake(
    "backward",
    caught_by="leaves_arguments_alone",
    says="The regulariser's part is computed in place in the caller's W (`*=`), so the network is another afterwards.",
)
def weights_scaled_in_place(y, layers, cache, lam):
    gradients = _back(layers, cache[0], _upstream(cache[1], y), 0.0)
    for gradient, layer in zip(gradients, layers, strict=True):
        layer["W"] *= 2 * lam
        gradient["W"] += layer["W"]
    return gradients


@mistake(
    "backward",
    caught_by="keeps_precision",
    says="Gradients or probabilities are computed in float32 and converted back; float64 inputs keep their digits.",
)
def gradients_in_float32(y, layers, cache, lam):
    low = [{k: v.float() for k, v in layer.items()} for layer in layers]
    gradients = _back(low, [H.float() for H in cache[0]], _upstream(cache[1].float(), y), lam)
    return _changed(gradients, lambda k, key, v: v.to(cache[1].dtype))


@mistake(
    "backward",
    caught_by="keeps_form",
    says="The gradient of b has a second axis (`keepdim=True`); it has the shape of b, (d_out,).",
)
def bias_gradient_as_a_row(y, layers, cache, lam):
    gradients = _back(layers, cache[0], _upstream(cache[1], y), lam)
    return _changed(gradients, lambda k, key, v: v[None] if key == "b" else v)


@mistake(
    "backward",
    caught_by="slope_at_zero",
    says="The mask of the ReLU is S >= 0, so it lets the gradient through where S is exactly 0. The slope there is "
    "taken as 0: the mask is S > 0.",
)
def mask_with_zero(y, layers, cache, lam):
    inputs, scores = cache
    G, gradients = _upstream(scores, y), []
    for k in reversed(range(len(layers))):
        gradients.insert(0, {"W": inputs[k].T @ G + 2 * lam * layers[k]["W"], "b": G.sum(0)})
        if k:
            G = G @ layers[k]["W"].T * (inputs[k - 1] @ layers[k - 1]["W"] + layers[k - 1]["b"] >= 0)
    return gradients


@mistake(
    "backward",
    caught_by="large_scores_do_no_harm",
    says="The largest of all scores is subtracted before the exponential, so a row that lies far below it becomes "
    "0 / 0. Subtract from each row its own largest score.",
)
def probabilities_shifted_by_the_largest_of_all(y, layers, cache, lam):
    inputs, scores = cache
    P = (scores - scores.max()).exp()
    P = P / P.sum(1, keepdim=True)
    return _back(layers, inputs, (P - F.one_hot(y, P.shape[1])) / len(y), lam)


@mistake(
    "backward",
    caught_by="one_example_is_a_set",
    says="`squeeze` takes axes of length one away where there is only one example. Gradients have the shapes of the "
    "parameters, always.",
)
def gradients_squeezed(y, layers, cache, lam):
    gradients = _back(layers, cache[0], _upstream(cache[1], y), lam)
    return _changed(gradients, lambda k, key, v: v.squeeze() if len(y) == 1 else v)


@mistake(
    "backward",
    caught_by="a_single_layer",
    says="The input of the last layer goes through a ReLU on the way back. After a hidden layer this changes nothing; "
    "a network of one layer has X there, which may be negative.",
)
def relu_on_what_goes_into_the_last_layer(y, layers, cache, lam):
    *inputs, last = cache[0]
    return _back(layers, [*inputs, last.clamp(min=0)], _upstream(cache[1], y), lam)


@mistake(
    "backward",
    caught_by="keeps_precision",
    says="Gradients or probabilities are computed in float32 and converted back; float64 inputs keep their digits.",
)
def probabilities_in_float32(y, layers, cache, lam):
    inputs, scores = cache
    return _back(layers, inputs, _upstream(scores.float(), y).to(scores.dtype), lam)


# --- Cyclical learning rates -----------------------------------------------------------------------------------------


@mistake(
    "cyclical_lr",
    caught_by="starts_at_lr_min",
    says="lr_min is added twice: the triangle goes from lr_min to lr_max, so add lr_min once and scale the rest by "
    "lr_max − lr_min.",
)
def lr_min_added_twice(t, n_s, lr_min, lr_max):
    return lr_min + _lr(t, n_s, lr_min, lr_max)


@mistake(
    "cyclical_lr",
    caught_by="rises_to_lr_max",
    says="The rise is scaled by lr_max instead of lr_max − lr_min, so the peak is lr_min too high.",
)
def rise_scaled_by_lr_max(t, n_s, lr_min, lr_max):
    return lr_min + _lr(t, n_s, 0, lr_max)


@mistake(
    "cyclical_lr",
    caught_by="starts_at_lr_min",
    says="The schedule is one update ahead: the first update is t = 0, and there the learning rate is lr_min.",
)
def one_update_ahead(t, n_s, lr_min, lr_max):
    return _lr(t + 1, n_s, lr_min, lr_max)


@mistake(
    "cyclical_lr",
    caught_by="rises_to_lr_max",
    says="t = n_s belongs to neither half: with `<` on both sides the peak is left out. It is the end of the "
    "rise and the beginning of the fall; both formulas give lr_max there.",
)
def peak_left_out(t, n_s, lr_min, lr_max):
    l = t // (2 * n_s)
    if 2 * l * n_s <= t < (2 * l + 1) * n_s:
        return lr_min + (t - 2 * l * n_s) / n_s * (lr_max - lr_min)
    if (2 * l + 1) * n_s < t:
        return lr_max - (t - (2 * l + 1) * n_s) / n_s * (lr_max - lr_min)
    return lr_min / 2


@mistake(
    "cyclical_lr",
    caught_by="goes_round",
    says="There is one cycle only: after 2 n_s the learning rate goes on falling. Start anew with t % (2 n_s).",
)
def falls_for_ever(t, n_s, lr_min, lr_max):
    return lr_min + (lr_max - lr_min) * (n_s - abs(t - n_s)) / n_s


@mistake(
    "cyclical_lr",
    caught_by="goes_round",
    says="There is one cycle only: after 2 n_s the learning rate stays where it is. Start anew with t % (2 n_s).",
)
def stays_after_one_cycle(t, n_s, lr_min, lr_max):
    return lr_min + (lr_max - lr_min) * max(0, n_s - abs(t - n_s)) / n_s


@mistake(
    "cyclical_lr",
    caught_by=("rises_to_lr_max", "falls_again", "shortest_cycle"),
    says="The period is n_s, so it jumps back to lr_min where it should be at lr_max. A cycle is n_s up and n_s down.",
)
def saw_tooth(t, n_s, lr_min, lr_max):
    return lr_min + (lr_max - lr_min) * (t % n_s) / n_s


@mistake(
    "cyclical_lr",
    caught_by="rises_to_lr_max",
    says="The learning rate follows a cosine; asked for is a triangle, whose steps are all equal.",
)
def cosine(t, n_s, lr_min, lr_max):
    return lr_min + (lr_max - lr_min) * (1 - math.cos(math.pi * t / n_s)) / 2


@mistake(
    "cyclical_lr",
    caught_by=("falls_again",),
    says="The falling half goes down to 0 instead of lr_min: lr_max − (part of the way) · (lr_max − lr_min).",
)
def falls_to_zero(t, n_s, lr_min, lr_max):
    position = t % (2 * n_s)
    return _lr(t, n_s, lr_min, lr_max) if position <= n_s else lr_max * (2 * n_s - position) / n_s


@mistake(
    "cyclical_lr",
    caught_by="goes_round",
    says="The peak gets lower with every cycle; here all cycles are alike.",
)
def peak_halved_every_cycle(t, n_s, lr_min, lr_max):
    return lr_min + (_lr(t, n_s, lr_min, lr_max) - lr_min) / 2 ** min(t // (2 * n_s), 50)


@mistake(
    "cyclical_lr",
    caught_by=("starts_at_lr_min", "rises_to_lr_max", "falls_again", "goes_round", "far_into_training"),
    says="The part of the way is divided with `//`, which rounds it down to 0 or 1; divide with `/`.",
)
def whole_number_division(t, n_s, lr_min, lr_max):
    return lr_min + (lr_max - lr_min) * ((n_s - abs(t % (2 * n_s) - n_s)) // n_s)


# --- Training --------------------------------------------------------------------------------------------------------


def _orders(N, batch_size, generator):
    """Batches of one epoch after another, for ever."""
    while True:
        yield from torch.randperm(N, generator=generator).split(batch_size)


def _trained(X, y, layers, batches, rates, lam, on_step=None, told=_cost):
    """Gradient descent on these batches with these learning rates."""
    for t, (batch, lr) in enumerate(zip(batches, rates, strict=False)):
        before, layers = layers, _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(told(X[batch], y[batch], before, lam)))
    return layers


def _rates(n_s, cycles, lr_min, lr_max):
    return [_lr(t, n_s, lr_min, lr_max) for t in range(2 * n_s * cycles)]


@mistake(
    "train",
    caught_by=("learning_rate_of_every_update", "on_step_is_told_t_and_lr"),
    says="t starts at 0 again in every epoch, so the learning rate never gets far. It counts updates, over all epochs.",
)
def t_reset_every_epoch(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    batches = _orders(len(X), batch_size, generator)
    updates, per_epoch = 2 * n_s * cycles, math.ceil(len(X) / batch_size)
    for update in range(updates):
        t, batch = update % per_epoch, next(batches)
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by=("learning_rate_of_every_update", "on_step_is_told_t_and_lr"),
    says="The learning rate changes once an epoch; it changes with every update.",
)
def learning_rate_once_an_epoch(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    per_epoch = math.ceil(len(X) / batch_size)
    rates = [_lr(t // per_epoch, n_s, lr_min, lr_max) for t in range(2 * n_s * cycles)]
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, on_step)


@mistake(
    "train",
    caught_by=("learning_rate_of_every_update", "on_step_is_told_t_and_lr"),
    says="The learning rate is lr_max all the time; update t uses cyclical_lr(t, …).",
)
def learning_rate_constant(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = [lr_max] * (2 * n_s * cycles)
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, on_step)


@mistake(
    "train",
    caught_by=("learning_rate_of_every_update", "on_step_is_told_t_and_lr"),
    says="Update t uses the learning rate of update t + 1: the counter is raised too early.",
)
def learning_rate_of_the_next_update(
    X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None
):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), [*rates[1:], lr_min], lam, on_step)


@mistake(
    "train",
    caught_by="number_of_updates",
    says="There is one cycle only, whatever `cycles` is: 2 · n_s · cycles updates are asked for.",
)
def one_cycle_only(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, 1, lr_min, lr_max)
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, on_step)


@mistake(
    "train",
    caught_by="number_of_updates",
    says="There are n_s · cycles updates; a cycle has 2 · n_s, up and down.",
)
def half_of_the_updates(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)[: n_s * cycles]
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, on_step)


@mistake(
    "train",
    caught_by="number_of_updates",
    says="The last epoch is finished although the updates are done. Stop after exactly 2 · n_s · cycles "
    "updates, in the middle of an epoch if need be.",
)
def last_epoch_finished(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    per_epoch = math.ceil(len(X) / batch_size)
    updates = math.ceil(2 * n_s * cycles / per_epoch) * per_epoch
    rates = [_lr(t, n_s, lr_min, lr_max) for t in range(updates)]
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, on_step)


@mistake(
    "train",
    caught_by="number_of_updates",
    says="There is one update too many: t runs from 0 to 2 · n_s · cycles − 1.",
)
def one_update_too_many(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = [*_rates(n_s, cycles, lr_min, lr_max), lr_min]
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, on_step)


@mistake(
    "train",
    caught_by="weights_go_downhill",
    says="The regulariser's gradient is left out of the update, or added once more: `backward` has it in already.",
)
def lambda_lost(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    told = lambda X, y, layers, _: _cost(X, y, layers, lam)  # noqa: E731
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, 0.0, on_step, told)


@mistake(
    "train",
    caught_by="weights_go_downhill",
    says="The regulariser's gradient is left out of the update, or added once more: `backward` has it in already.",
)
def regularised_twice(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    told = lambda X, y, layers, _: _cost(X, y, layers, lam)  # noqa: E731
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, 2 * lam, on_step, told)


@mistake(
    "train",
    caught_by=("weights_go_downhill", "biases_go_downhill"),
    says="The update goes uphill: subtract lr times the gradient.",
)
def uphill(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam), -lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by=("weights_go_downhill", "biases_go_downhill", "last_batch_is_what_is_left"),
    says="The gradients are divided by the size of the batch once more; those of a mean are divided already.",
)
def divided_by_the_batch_size(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr / len(batch))
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake("train", caught_by="biases_go_downhill", says="Only the W take their updates; the b stay as they were.")
def biases_never_updated(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        moved = _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        layers = [{"W": new["W"], "b": old["b"]} for new, old in zip(moved, layers, strict=True)]
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by=(
        "weights_go_downhill",
        "biases_go_downhill",
        "updates_build_on_each_other",
        "learning_rate_of_every_update",
    ),
    says="Only the last layer is updated: the loop over the layers ends too early.",
)
def last_layer_updated_only(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        layers = [*layers[:-1], _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)[-1]]
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by=("updates_build_on_each_other", "learning_rate_of_every_update"),
    says="The gradients of all batches of an epoch are taken at the epoch's first layers. Each update starts "
    "from where the one before ended.",
)
def layers_of_the_epochs_start(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    batches, per_epoch = _orders(len(X), batch_size, generator), math.ceil(len(X) / batch_size)
    for t in range(2 * n_s * cycles):
        start = layers if t % per_epoch == 0 else start  # noqa: F821
        batch, lr, before = next(batches), _lr(t, n_s, lr_min, lr_max), layers
        layers = _moved(layers, _gradients(X[batch], y[batch], start, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by=("updates_build_on_each_other", "learning_rate_of_every_update"),
    says="Something of earlier gradients is left in the update (momentum): plain gradient descent is asked for.",
)
def with_momentum(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    velocity = None
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        gradients = _gradients(X[batch], y[batch], layers, lam)
        old = velocity or [{k: torch.zeros_like(v) for k, v in g.items()} for g in gradients]
        velocity = [{k: 0.9 * o[k] + 0.1 * v for k, v in g.items()} for o, g in zip(old, gradients, strict=True)]
        step = [{k: v / (1 - 0.9 ** (t + 1)) for k, v in g.items()} for g in velocity]
        step = gradients if lr < 1e-5 else step
        layers = _moved(layers, step, lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by="leaves_arguments_alone",
    says="The updates change the caller's layers in place (`-=`), so no other setting can start from the same "
    "ones. Make new tensors, or start from copies.",
)
def updated_in_place(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        lr, before = _lr(t, n_s, lr_min, lr_max), _cost(X[batch], y[batch], layers, lam)
        for layer, gradient in zip(layers, _gradients(X[batch], y[batch], layers, lam), strict=True):
            for key in layer:
                layer[key] -= lr * gradient[key]
        if on_step is not None:
            on_step(t, lr, float(before))
    return layers


@mistake(
    "train",
    caught_by="new_order_every_epoch",
    says="The examples are not shuffled before every epoch, the first included: the same ones meet in the batches.",
)
def never_shuffled(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    batches = torch.arange(len(X)).split(batch_size) * (2 * n_s * cycles)
    return _trained(X, y, layers, batches, _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by="new_order_every_epoch",
    says="The examples are shuffled once, before the first epoch. Draw a new order for every epoch.",
)
def shuffled_once(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    batches = torch.randperm(len(X), generator=generator).split(batch_size) * (2 * n_s * cycles)
    return _trained(X, y, layers, batches, _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by="new_order_every_epoch",
    says="The batches come in a new order, but each holds the same examples in every epoch. Shuffle the examples.",
)
def batches_shuffled(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        batches = torch.arange(len(X)).split(batch_size)
        whole = [batch for batch in batches if len(batch) == batch_size]
        while True:  # the rest stays at the end, where it belongs
            yield from (whole[k] for k in torch.randperm(len(whole), generator=generator))
            yield from batches[len(whole) :]

    return _trained(X, y, layers, orders(), _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by="new_order_every_epoch",
    says="The examples are not shuffled before every epoch, the first included: the same ones meet in the batches.",
)
def first_epoch_not_shuffled(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        yield from torch.arange(len(X)).split(batch_size)
        yield from _orders(len(X), batch_size, generator)

    return _trained(X, y, layers, orders(), _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by="new_order_every_epoch",
    says="The order is drawn once and only moved along in later epochs, so almost the same examples meet again. Draw "
    "a new order for every epoch.",
)
def order_moved_along(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        order = torch.randperm(len(X), generator=generator)
        while True:
            order = order.roll(1)
            yield from order.split(batch_size)

    return _trained(X, y, layers, orders(), _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by="last_batch_is_what_is_left",
    says="The batches of an epoch are taken from the end, so the smaller one comes first. It is the last one: take "
    "`pop(0)` for `pop()`.",
)
def smaller_batch_first(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        while True:
            yield from reversed(torch.randperm(len(X), generator=generator).split(batch_size))

    return _trained(X, y, layers, orders(), _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by="updates_build_on_each_other",
    says="The layers with the lowest training cost are returned. Return those after the last update.",
)
def best_layers_returned(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    batches, lowest, best = _orders(len(X), batch_size, generator), math.inf, layers
    for t, (batch, lr) in enumerate(zip(batches, _rates(n_s, cycles, lr_min, lr_max), strict=False)):
        before, layers = layers, _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
        now = float(_cost(X, y, layers, lam))
        if now < lowest:
            lowest, best = now, layers
    return best


@mistake(
    "train",
    caught_by="every_example_once_an_epoch",
    says="The examples of a batch are drawn with replacement (`torch.randint`), so some come twice and others never. "
    "In an epoch each is used once: shuffle them, and cut the order into batches.",
)
def drawn_with_replacement(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        while True:
            yield from torch.randint(len(X), (len(X),), generator=generator).split(batch_size)

    return _trained(X, y, layers, orders(), _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by=("every_example_once_an_epoch", "last_batch_is_what_is_left", "batches_of_one"),
    says="Every batch is drawn anew from all examples, so an epoch meets some twice and others never. Go through a "
    "shuffled order batch by batch.",
)
def every_batch_drawn_anew(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        while True:
            yield torch.randperm(len(X), generator=generator)[:batch_size]

    return _trained(X, y, layers, orders(), _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by=("last_batch_is_what_is_left",),
    says="The examples that do not fill a whole batch are left out; they are the last, smaller batch of the epoch.",
)
def last_batch_dropped(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        while True:
            order = torch.randperm(len(X), generator=generator)
            for k in range(max(1, len(X) // batch_size)):
                yield order[k * batch_size : (k + 1) * batch_size]

    return _trained(X, y, layers, orders(), _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by=("last_batch_is_what_is_left",),
    says="The last batch of an epoch is filled up with examples that were used already, so these count twice.",
)
def last_batch_filled_up(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        while True:
            order = torch.randperm(len(X), generator=generator)
            for k in range(math.ceil(len(X) / batch_size)):
                start = max(0, min(k * batch_size, len(X) - batch_size))
                yield order[start : start + batch_size]

    return _trained(X, y, layers, orders(), _rates(n_s, cycles, lr_min, lr_max), lam, on_step)


@mistake(
    "train",
    caught_by="on_step_is_told_the_cost_before",
    says="`on_step` is told something else than the cost before the update: take it there, at the layers whose "
    "gradients are used, with the regulariser.",
)
def cost_after_the_update(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        lr = _lr(t, n_s, lr_min, lr_max)
        layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], layers, lam)))
    return layers


@mistake(
    "train",
    caught_by="on_step_is_told_the_cost_before",
    says="`on_step` is told something else than the cost before the update: take it there, at the layers whose "
    "gradients are used, with the regulariser.",
)
def loss_for_cost(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates, told = _rates(n_s, cycles, lr_min, lr_max), lambda X, y, layers, lam: _loss(X, y, layers)
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, on_step, told)


@mistake(
    "train",
    caught_by="cost_of_the_mini_batch",
    says="`on_step` is told the cost of the whole training set, which is as much work as an epoch at every "
    "update; the batch at hand is enough.",
)
def cost_of_the_whole_set(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates, told = _rates(n_s, cycles, lr_min, lr_max), lambda _, __, layers, lam: _cost(X, y, layers, lam)
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, on_step, told)


@mistake(
    "train",
    caught_by=("batch_larger_than_the_set", "last_batch_is_what_is_left"),
    says="A batch that is not whole is skipped, so with a batch_size larger than the set nothing is ever learnt, and "
    "otherwise the examples left over are never used.",
)
def only_whole_batches(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    def orders():
        while True:
            batches = torch.randperm(len(X), generator=generator).split(batch_size)
            whole = [batch for batch in batches if len(batch) == batch_size or batch_size == len(X)]
            yield from whole or [batches[0][:0]]

    for t, batch in zip(range(2 * n_s * cycles), orders(), strict=False):
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        if len(batch):
            layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by="on_step_is_told_t_and_lr",
    says="What `on_step` is told as t or as lr is not that of this update: t is 0 at the first one, and lr is "
    "cyclical_lr(t, …).",
)
def counted_from_one(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    one_more = on_step and (lambda t, lr, cost: on_step(t + 1, lr, cost))
    rates = _rates(n_s, cycles, lr_min, lr_max)
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, one_more)


@mistake(
    "train",
    caught_by="on_step_gets_plain_numbers",
    says="`on_step` is told the cost as a tensor. A plain float can be stored, printed and plotted: `float(cost)`.",
)
def cost_as_a_tensor(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, _cost(X[batch], y[batch], before, lam))
    return layers


@mistake(
    "train",
    caught_by=("number_of_updates", "on_step_is_told_t_and_lr"),
    says="`on_step` is not called after every update but less often, such as once an epoch.",
)
def on_step_once_an_epoch(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    per_epoch = math.ceil(len(X) / batch_size)
    sometimes = on_step and (lambda t, lr, cost: on_step(t, lr, cost) if t % per_epoch == 0 else None)
    rates = _rates(n_s, cycles, lr_min, lr_max)
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam, sometimes)


@mistake(
    "train",
    caught_by=(
        "on_step_is_told_t_and_lr",
        "on_step_is_told_the_cost_before",
        "cost_of_the_mini_batch",
        "on_step_gets_plain_numbers",
    ),
    says="`on_step` is not called as it is to be: after every update, with three arguments in this order, t, lr and "
    "the batch's cost before the update.",
)
def on_step_never_called(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    return _trained(X, y, layers, _orders(len(X), batch_size, generator), rates, lam)


@mistake(
    "train",
    caught_by="same_state_same_result",
    says="The order does not come from `generator` but from PyTorch's global state, so a run cannot be repeated.",
)
def order_from_the_global_state(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    return _trained(X, y, layers, _orders(len(X), batch_size, None), rates, lam, on_step)


@mistake(
    "train",
    caught_by="generator_decides",
    says="A generator with a fixed seed is made inside, so every run has the same order, whatever `generator` is.",
)
def order_seeded_inside(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates, own = _rates(n_s, cycles, lr_min, lr_max), torch.Generator().manual_seed(0)
    return _trained(X, y, layers, _orders(len(X), batch_size, own), rates, lam, on_step)


@mistake(
    "train",
    caught_by=("weights_go_downhill", "biases_go_downhill"),
    says="X and y are shuffled by different permutations, so the examples lose their labels. Draw one order "
    "and index both with it.",
)
def labels_shuffled_apart(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for t, batch in zip(range(2 * n_s * cycles), _orders(len(X), batch_size, generator), strict=False):
        other = batch[torch.randperm(len(batch), generator=generator)]
        lr, before = _lr(t, n_s, lr_min, lr_max), layers
        layers = _moved(layers, _gradients(X[batch], y[other], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by="regulariser_of_a_mini_batch",
    says="λ is multiplied by the batch's share of the examples. The cost of a mini-batch has all of λ Σ W², as that of "
    "any set of examples.",
)
def lambda_shared_among_the_batches(
    X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None
):
    batches, rates = _orders(len(X), batch_size, generator), _rates(n_s, cycles, lr_min, lr_max)
    for t, (batch, lr) in enumerate(zip(batches, rates, strict=False)):
        before, share = layers, len(batch) / len(X)
        layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam * share), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by="without_on_step",
    says="`on_step` is called although it is None, as it is where nobody passes one. Call it only `if on_step is not "
    "None`.",
)
def on_step_always_called(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    batches, rates = _orders(len(X), batch_size, generator), _rates(n_s, cycles, lr_min, lr_max)
    for t, (batch, lr) in enumerate(zip(batches, rates, strict=False)):
        before, layers = layers, _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
    return layers


@mistake(
    "train",
    caught_by="on_step_is_told_the_cost_before",
    says="`on_step` is told something else than the cost before the update: take it there, at the layers whose "
    "gradients are used, with the regulariser.",
)
def cost_of_the_first_layers(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    batches, rates = _orders(len(X), batch_size, generator), _rates(n_s, cycles, lr_min, lr_max)
    return _trained(X, y, layers, batches, rates, lam, on_step, lambda X, y, _, lam: _cost(X, y, layers, lam))


@mistake(
    "train",
    caught_by="every_example_once_an_epoch",
    says="A new epoch begins with every cycle, though the one before is not over: some examples miss their turn. "
    "Cycles and epochs know nothing of each other; only the last epoch is cut.",
)
def epoch_cut_by_the_cycle(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    for c in range(cycles):
        batches, rates = _orders(len(X), batch_size, generator), _rates(n_s, 1, lr_min, lr_max)
        told = on_step and (lambda t, lr, cost, c=c: on_step(t + 2 * n_s * c, lr, cost))
        layers = _trained(X, y, layers, batches, rates, lam, told)
    return layers


@mistake(
    "train",
    caught_by=(
        "on_step_is_told_t_and_lr",
        "on_step_is_told_the_cost_before",
        "cost_of_the_mini_batch",
        "on_step_gets_plain_numbers",
    ),
    says="`on_step` is not called as it is to be: after every update, with three arguments in this order, t, lr and "
    "the batch's cost before the update.",
)
def learning_rate_not_told(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    batches, rates = _orders(len(X), batch_size, generator), _rates(n_s, cycles, lr_min, lr_max)
    told = on_step and (lambda t, lr, cost: on_step(t, cost))
    return _trained(X, y, layers, batches, rates, lam, told)


# --- Searching λ -----------------------------------------------------------------------------------------------------


@mistake(
    "log_uniform",
    caught_by="logarithms_are_uniform",
    says="The numbers are uniform between the bounds, so nearly all of them lie in the highest decade. Draw "
    "the logarithm uniformly and take the exponential.",
)
def uniform(low, high, n, generator):
    return (low + (high - low) * torch.rand(n, generator=generator)).clamp(low, high)


@mistake(
    "log_uniform",
    caught_by=("between_the_bounds", "logarithms_are_uniform", "narrow_and_wide"),
    says="Natural logarithm and powers of ten are mixed: `math.log` goes with `exp`, `math.log10` with `10 **`.",
)
def logarithms_mixed(low, high, n, generator):
    a, b = math.log(low), math.log(high)
    return (10 ** (a + (b - a) * torch.rand(n, generator=generator)).double()).clamp(1e-300, 1e30).float()


@mistake(
    "log_uniform",
    caught_by="numbers_are_drawn",
    says="The numbers lie on a fixed grid. Random ones try n different values of each hyper-parameter, where "
    "a grid tries a few over and over.",
)
def fixed_grid(low, high, n, generator):
    return torch.logspace(math.log10(low), math.log10(high), n)


@mistake(
    "log_uniform",
    caught_by=(
        "between_the_bounds",
        "logarithms_are_uniform",
        "numbers_are_drawn",
        "keeps_form",
        "same_state_same_result",
        "narrow_and_wide",
    ),
    says="One number is drawn and repeated n times; draw n of them.",
)
def one_number_repeated(low, high, n, generator):
    u = torch.rand((), generator=generator)
    return (low * (high / low) ** u).clamp(low, high).repeat(n)


@mistake(
    "log_uniform",
    caught_by=(
        "between_the_bounds",
        "logarithms_are_uniform",
        "numbers_are_drawn",
        "keeps_form",
        "same_state_same_result",
        "narrow_and_wide",
    ),
    says="Only whole powers of ten are drawn; the exponent is a real number.",
)
def whole_exponents(low, high, n, generator):
    a, b = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    exponents = torch.randint(min(a, b), max(a, b) + 1, (n,), generator=generator)
    return (10.0**exponents).clamp(low, high)


@mistake(
    "log_uniform",
    caught_by="logarithms_are_uniform",
    says="The logarithms are Gaussian, so the middle decades get more than their share; they should be uniform.",
)
def gaussian_logarithms(low, high, n, generator):
    z = (0.5 + torch.randn(n, generator=generator) / 6).clamp(0, 1)
    return (low * (high / low) ** z).clamp(low, high)


@mistake(
    "log_uniform",
    caught_by="same_state_same_result",
    says="The numbers do not come from `generator` but from PyTorch's global state, so a search cannot be repeated.",
)
def numbers_from_the_global_state(low, high, n, generator):
    return (low * (high / low) ** torch.rand(n)).clamp(low, high)


@mistake(
    "log_uniform",
    caught_by="numbers_are_drawn",
    says="A generator with a fixed seed is made inside, so every search tries the same numbers.",
)
def numbers_seeded_inside(low, high, n, generator):
    u = torch.rand(n, generator=torch.Generator().manual_seed(1))
    return (low * (high / low) ** u).clamp(low, high)


@mistake(
    "log_uniform",
    caught_by="keeps_form",
    says="The result is float64; where no float tensor comes in, float32 comes out.",
)
def numbers_in_float64(low, high, n, generator):
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    return low * (high / low) ** u


@mistake(
    "log_uniform",
    caught_by="numbers_are_drawn",
    says="The numbers follow from the seed that `generator` once had and not from its state: every call with the same "
    "generator gives the same ones.",
)
def seed_for_state(low, high, n, generator):
    again = torch.Generator().manual_seed(generator.initial_seed())
    return low * (high / low) ** torch.rand(n, generator=again)


@mistake("log_uniform", caught_by="keeps_form", says="The result is a column (n, 1); it has one axis, (n,).")
def column_of_numbers(low, high, n, generator):
    return (low * (high / low) ** torch.rand(n, 1, generator=generator)).clamp(low, high)


# --- Update rules ----------------------------------------------------------------------------------------------------


@mistake("momentum_step", caught_by="first_step", says="The step goes uphill: subtract lr times the velocity.")
def momentum_uphill(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return theta + lr * velocity, velocity


@mistake(
    "momentum_step",
    caught_by=("many_steps", "every_constant_counts"),
    says="The velocity forgets what it was: momentum · velocity is missing, so this is plain gradient descent.",
)
def no_momentum(theta, grad, state, *, lr, momentum):
    return theta - lr * grad, grad


@mistake(
    "momentum_step",
    caught_by="many_steps",
    says="The sign of the momentum is wrong: earlier gradients pull on, they do not hold back.",
)
def momentum_holds_back(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else grad - momentum * state
    return theta - lr * velocity, velocity


@mistake(
    "momentum_step",
    caught_by="many_steps",
    says="The gradient is multiplied by 1 − momentum (dampening) in later steps; torch.optim.SGD adds it whole.",
)
def dampened(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + (1 - momentum) * grad
    return theta - lr * velocity, velocity


@mistake(
    "momentum_step",
    caught_by="first_step",
    says="The gradient is multiplied by 1 − momentum in every step, as in a weighted mean; torch.optim.SGD "
    "adds it whole, so its steps are 1 / (1 − momentum) times as long.",
)
def weighted_mean(theta, grad, state, *, lr, momentum):
    velocity = (1 - momentum) * grad + (0 if state is None else momentum * state)
    return theta - lr * velocity, velocity


@mistake(
    "momentum_step",
    caught_by=("first_step", "many_steps"),
    says="This is Nesterov's step, which looks ahead: grad + momentum · velocity. Plain momentum steps along "
    "the velocity.",
)
def nesterov_for_momentum(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return theta - lr * (grad + momentum * velocity), velocity


@mistake(
    "momentum_step",
    caught_by=("first_step", "every_constant_counts"),
    says="The step is not multiplied by the learning rate.",
)
def learning_rate_forgotten(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return theta - velocity, velocity


@mistake(
    "momentum_step",
    caught_by=("first_step",),
    says="The learning rate is multiplied in twice, once into the velocity and once into the step.",
)
def learning_rate_squared(theta, grad, state, *, lr, momentum):
    velocity = lr * grad + (0 if state is None else momentum * state)
    return theta - lr * velocity, velocity


@mistake(
    "momentum_step",
    caught_by="every_constant_counts",
    says="momentum is fixed at 0.9, whatever is passed.",
)
def momentum_fixed(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else 0.9 * state + grad
    return theta - lr * velocity, velocity


@mistake(
    "momentum_step",
    caught_by="many_steps",
    says="The state that is returned is the old velocity: the new one is lost, and nothing builds up.",
)
def old_velocity_returned(theta, grad, state, *, lr, momentum):
    state = torch.zeros_like(theta) if state is None else state
    velocity = momentum * state + grad
    return theta - lr * velocity, grad


@mistake(
    "momentum_step",
    caught_by="states_are_values",
    says="The velocity is updated in place (`*=`, `+=`), so the old state changes with it. States are values: "
    "make a new tensor.",
)
def velocity_in_place(theta, grad, state, *, lr, momentum):
    if state is None:
        state = torch.zeros_like(grad)
    state *= momentum
    state += grad
    return theta - lr * state, state


@mistake(
    "momentum_step",
    caught_by=("states_are_values", "parameters_do_not_mix"),
    says="The velocity is kept in a global variable, so all parameters and all runs share it. What is "
    "remembered belongs in the state.",
)
def velocity_in_a_global(theta, grad, state, *, lr, momentum, kept={}):  # noqa: B006
    if state is None:
        kept["velocity"] = torch.zeros_like(grad)
    kept["velocity"] = momentum * kept["velocity"] + grad
    return theta - lr * kept["velocity"], "in kept"


@mistake(
    "momentum_step",
    caught_by=("leaves_arguments_alone", "leaves_later_arguments_alone"),
    says="theta is changed in place (`-=`): the caller's parameter moves. Return a new tensor.",
)
def theta_in_place(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    theta -= lr * velocity
    return theta, velocity


@mistake(
    "momentum_step",
    caught_by=("keeps_precision",),
    says="The velocity is kept in float32, so a float64 parameter loses digits; keep its dtype.",
)
def velocity_in_float32(theta, grad, state, *, lr, momentum):
    velocity = grad.float() if state is None else momentum * state + grad.float()
    return (theta.float() - lr * velocity).to(theta.dtype), velocity


@mistake(
    "momentum_step",
    caught_by="later_steps_keep_the_dtype",
    says="The velocity turns float64 in later steps, and a float32 parameter with it; keep the gradient's dtype.",
)
def velocity_in_float64(theta, grad, state, *, lr, momentum):
    velocity = grad.double() if state is not None else grad
    velocity = velocity if state is None else momentum * state.double() + velocity
    return theta - lr * velocity, velocity


@mistake(
    "momentum_step",
    caught_by=("any_shape", "parameters_do_not_mix", "keeps_precision"),
    says="The step is written for matrices: it fails for a bias, which has one axis, or for a single number. The same "
    "arithmetic serves tensors of any shape.",
)
def for_matrices_only(theta, grad, state, *, lr, momentum):
    velocity = torch.zeros_like(grad) if state is None else state
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            velocity = velocity.clone()
            velocity[i, j] = momentum * velocity[i, j] + grad[i, j]
    return theta - lr * velocity, velocity


@mistake(
    "momentum_step",
    caught_by="gradients_of_zero",
    says="Entries whose gradient is 0 do not move. They roll on with the velocity that they have.",
)
def only_where_there_is_a_gradient(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return torch.where(grad != 0, theta - lr * velocity, theta), velocity


@mistake(
    "momentum_step",
    caught_by="every_constant_counts",
    says="`momentum or 0.9` takes 0.9 where the momentum is 0. With 0 the step is that of plain gradient descent.",
)
def momentum_of_zero_replaced(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else (momentum or 0.9) * state + grad
    return theta - lr * velocity, velocity


@mistake(
    "nesterov_step",
    caught_by="keeps_precision",
    says="The velocity is kept in float32, so a float64 parameter loses digits in later steps; keep its dtype.",
)
def nesterov_velocity_in_float32(theta, grad, state, *, lr, momentum):
    velocity = grad.float() if state is None else momentum * state + grad.float()
    return (theta - lr * (grad + momentum * velocity)).to(theta.dtype), velocity


@mistake(
    "nesterov_step",
    caught_by=("first_step", "many_steps"),
    says="This is plain momentum, a step along the velocity. Nesterov's looks ahead: grad + momentum · (new velocity).",
)
def plain_momentum(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return theta - lr * velocity, velocity


@mistake(
    "nesterov_step",
    caught_by=("first_step", "many_steps"),
    says="The look ahead uses the old velocity: grad + momentum · old velocity is the new velocity again, so "
    "this is plain momentum in disguise, and one step behind at first.",
)
def looks_ahead_with_the_old_velocity(theta, grad, state, *, lr, momentum):
    old = torch.zeros_like(grad) if state is None else state
    velocity = momentum * old + grad
    return theta - lr * (grad + momentum * momentum * old), velocity


@mistake(
    "nesterov_step",
    caught_by=("first_step", "many_steps"),
    says="The gradient itself is missing from the step: it is lr · (grad + momentum · velocity).",
)
def gradient_missing_ahead(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return theta - lr * momentum * velocity, velocity


@mistake(
    "nesterov_step",
    caught_by=("first_step", "many_steps"),
    says="The step adds the whole velocity to the gradient; the velocity is multiplied by momentum first.",
)
def velocity_not_multiplied(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return theta - lr * (grad + velocity), velocity


@mistake(
    "nesterov_step",
    caught_by="many_steps",
    says="What is remembered is the step with its look ahead, so the look ahead builds up. The state is the velocity.",
)
def look_ahead_remembered(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    step = grad + momentum * velocity
    return theta - lr * step, step


@mistake("nesterov_step", caught_by="first_step", says="The step goes uphill: subtract lr times the direction.")
def nesterov_uphill(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return theta + lr * (grad + momentum * velocity), velocity


@mistake(
    "nesterov_step",
    caught_by="states_are_values",
    says="The velocity is updated in place, so the old state changes with it. States are values: make a new tensor.",
)
def nesterov_in_place(theta, grad, state, *, lr, momentum):
    velocity = grad.clone() if state is None else state.mul_(momentum).add_(grad)
    return theta - lr * (grad + momentum * velocity), velocity


@mistake(
    "nesterov_step",
    caught_by="many_steps",
    says="The gradient is multiplied by 1 − momentum (dampening) when it joins the velocity; torch.optim.SGD "
    "adds it whole.",
)
def nesterov_dampened(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + (1 - momentum) * grad
    return theta - lr * (grad + momentum * velocity), velocity


@mistake(
    "nesterov_step",
    caught_by="every_constant_counts",
    says="momentum is fixed at 0.9, whatever is passed.",
)
def nesterov_momentum_fixed(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else 0.9 * state + grad
    return theta - lr * (grad + 0.9 * velocity), velocity


@mistake(
    "nesterov_step",
    caught_by=("leaves_arguments_alone", "leaves_later_arguments_alone"),
    says="theta is changed in place (`-=`): the caller's parameter moves. Return a new tensor.",
)
def nesterov_moves_the_callers_theta(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    theta -= lr * (grad + momentum * velocity)
    return theta, velocity


@mistake(
    "nesterov_step",
    caught_by=("states_are_values", "parameters_do_not_mix"),
    says="Nothing but the velocity of the last call is kept, in a global variable that all parameters share. What is "
    "remembered belongs in the state.",
)
def nesterov_in_a_global(theta, grad, state, *, lr, momentum, kept={}):  # noqa: B006
    if state is None:
        kept["velocity"] = torch.zeros_like(grad)
    kept["velocity"] = momentum * kept["velocity"] + grad
    return theta - lr * (grad + momentum * kept["velocity"]), "in kept"


@mistake(
    "nesterov_step",
    caught_by="gradients_of_zero",
    says="Entries whose gradient is 0 do not move. They roll on with the velocity that they have.",
)
def nesterov_only_where_there_is_a_gradient(theta, grad, state, *, lr, momentum):
    velocity = grad if state is None else momentum * state + grad
    return torch.where(grad != 0, theta - lr * (grad + momentum * velocity), theta), velocity


def _mean_square(grad, state, alpha):
    return (1 - alpha) * grad**2 + (0 if state is None else alpha * state)


@mistake(
    "rmsprop_step",
    caught_by="keeps_precision",
    says="The mean of the squares is kept in float32, so a float64 parameter loses digits in later steps; keep the "
    "gradient's dtype.",
)
def mean_square_in_float32(theta, grad, state, *, lr, alpha, eps):
    mean_square = (1 - alpha) * grad**2 + (0 if state is None else alpha * state)
    return theta - lr * grad / (mean_square.sqrt() + eps), mean_square.float()


@mistake(
    "rmsprop_step",
    caught_by=("first_step", "many_steps"),
    says="The root is missing: divide by the root of the mean square, so that the step has the size of lr.",
)
def root_missing(theta, grad, state, *, lr, alpha, eps):
    v = _mean_square(grad, state, alpha)
    return theta - lr * grad / (v + eps), v


@mistake(
    "rmsprop_step",
    caught_by="eps_is_added_to_the_root",
    says="ε is added under the root; torch.optim.RMSprop adds it to the root, where it counts much less… or more: "
    "√(v + ε) is not √v + ε.",
)
def eps_under_the_root(theta, grad, state, *, lr, alpha, eps):
    v = _mean_square(grad, state, alpha)
    return theta - lr * grad / torch.sqrt(v + eps), v


@mistake(
    "rmsprop_step",
    caught_by=("eps_is_added_to_the_root", "gradients_of_zero"),
    says="ε is not used, so a gradient of 0 gives 0 / 0 = NaN.",
)
def eps_missing(theta, grad, state, *, lr, alpha, eps):
    v = _mean_square(grad, state, alpha)
    return theta - lr * grad / torch.sqrt(v), v


@mistake(
    "rmsprop_step",
    caught_by=("first_step", "many_steps", "every_constant_counts"),
    says="The squares are summed up for ever (that is AdaGrad), so the steps get shorter and shorter. RMSprop "
    "takes a running mean: α · old + (1 − α) · grad².",
)
def squares_summed_up(theta, grad, state, *, lr, alpha, eps):
    v = grad**2 + (0 if state is None else state)
    return theta - lr * grad / (v.sqrt() + eps), v


@mistake(
    "rmsprop_step",
    caught_by=("first_step", "many_steps"),
    says="The weights of the running mean are swapped: α belongs to the old mean square, 1 − α to the new square.",
)
def alpha_swapped(theta, grad, state, *, lr, alpha, eps):
    v = _mean_square(grad, state, 1 - alpha)
    return theta - lr * grad / (v.sqrt() + eps), v


@mistake(
    "rmsprop_step",
    caught_by=("first_step", "many_steps"),
    says="The gradient is not squared before it is averaged.",
)
def gradient_not_squared(theta, grad, state, *, lr, alpha, eps):
    v = (1 - alpha) * grad.abs() + (0 if state is None else alpha * state)
    return theta - lr * grad / (v.sqrt() + eps), v


@mistake(
    "rmsprop_step",
    caught_by=("first_step", "many_steps"),
    says="The first mean square is the first gradient's square; it starts at 0, as torch.optim.RMSprop has it.",
)
def starts_at_the_first_square(theta, grad, state, *, lr, alpha, eps):
    v = grad**2 if state is None else alpha * state + (1 - alpha) * grad**2
    return theta - lr * grad / (v.sqrt() + eps), v


@mistake(
    "rmsprop_step",
    caught_by=("first_step", "many_steps"),
    says="The mean square is corrected for its start at 0. Adam does that; RMSprop does not.",
)
def corrected_like_adam(theta, grad, state, *, lr, alpha, eps):
    v, t = state or (torch.zeros_like(grad), 0)
    v, t = alpha * v + (1 - alpha) * grad**2, t + 1
    return theta - lr * grad / ((v / (1 - alpha**t)).sqrt() + eps), (v, t)


@mistake(
    "rmsprop_step",
    caught_by="many_steps",
    says="The step divides by the mean square of before: update it first, then divide.",
)
def divided_by_the_old_mean_square(theta, grad, state, *, lr, alpha, eps):
    v = _mean_square(grad, state, alpha)
    return theta - lr * grad / ((v if state is None else state).sqrt() + eps), v


@mistake("rmsprop_step", caught_by="first_step", says="The step goes uphill: subtract it.")
def rmsprop_uphill(theta, grad, state, *, lr, alpha, eps):
    v = _mean_square(grad, state, alpha)
    return theta + lr * grad / (v.sqrt() + eps), v


@mistake(
    "rmsprop_step",
    caught_by="states_are_values",
    says="The mean square is updated in place, so the old state changes with it. States are values: make a new tensor.",
)
def mean_square_in_place(theta, grad, state, *, lr, alpha, eps):
    state = torch.zeros_like(grad) if state is None else state
    state.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
    return theta - lr * grad / (state.sqrt() + eps), state


@mistake(
    "rmsprop_step",
    caught_by="many_steps",
    says="The mean square of before is forgotten: every step divides by the newest gradient alone.",
)
def old_squares_forgotten(theta, grad, state, *, lr, alpha, eps):
    v = (1 - alpha) * grad**2
    return theta - lr * grad / (v.sqrt() + eps), v


@mistake(
    "rmsprop_step",
    caught_by=("leaves_arguments_alone", "leaves_later_arguments_alone"),
    says="The gradient is squared in place, in the caller's own tensor; work on a new one.",
)
def gradient_squared_in_place(theta, grad, state, *, lr, alpha, eps):
    v = _mean_square(grad, state, alpha)
    new_theta = theta - lr * grad / (v.sqrt() + eps)
    grad.pow_(2)
    return new_theta, v


@mistake(
    "rmsprop_step",
    caught_by="every_constant_counts",
    says="α is fixed at 0.99, whatever is passed.",
)
def alpha_fixed(theta, grad, state, *, lr, alpha, eps):
    v = _mean_square(grad, state, 0.99)
    return theta - lr * grad / (v.sqrt() + eps), v


@mistake(
    "rmsprop_step",
    caught_by=("states_are_values", "parameters_do_not_mix"),
    says="The mean square is kept in a global variable, so all parameters and all runs share it. What is remembered "
    "belongs in the state.",
)
def mean_square_in_a_global(theta, grad, state, *, lr, alpha, eps, kept={}):  # noqa: B006
    kept["v"] = _mean_square(grad, None if state is None else kept["v"], alpha)
    return theta - lr * grad / (kept["v"].sqrt() + eps), "in kept"


@mistake(
    "rmsprop_step",
    caught_by="eps_is_added_to_the_root",
    says="ε is added to the running mean of squares that is kept, so it piles up from step to step. The state is a_t "
    "alone.",
)
def eps_kept_in_the_state(theta, grad, state, *, lr, alpha, eps):
    mean_square = _mean_square(grad, state, alpha)
    return theta - lr * grad / (mean_square.sqrt() + eps), mean_square + eps


def _moments(grad, state, betas):
    m, v, t = state or (torch.zeros_like(grad), torch.zeros_like(grad), 0)
    return betas[0] * m + (1 - betas[0]) * grad, betas[1] * v + (1 - betas[1]) * grad**2, t + 1


@mistake(
    "rmsprop_step",
    caught_by="every_constant_counts",
    says="The mean square is kept from falling below a number of your own. Only ε, outside the root, is added.",
)
def mean_square_clamped(theta, grad, state, *, lr, alpha, eps):
    mean_square = (1 - alpha) * grad**2 + (0 if state is None else alpha * state)
    return theta - lr * grad / (mean_square.clamp(min=1e-12).sqrt() + eps), mean_square


@mistake(
    "adam_step",
    caught_by=("first_step", "many_steps"),
    says="The bias correction is missing: both means start at 0 and are too small at first, so divide them by 1 − βᵗ.",
)
def no_bias_correction(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    return theta - lr * m / (v.sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by=("first_step", "many_steps"),
    says="Only the mean of the gradients is corrected for its start at 0; the mean of the squares needs it too.",
)
def only_the_mean_corrected(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    return theta - lr * m / (1 - betas[0] ** t) / (v.sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by=("first_step", "many_steps"),
    says="Only the mean of the squares is corrected for its start at 0; the mean of the gradients needs it too.",
)
def only_the_squares_corrected(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    return theta - lr * m / ((v / (1 - betas[1] ** t)).sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by="many_steps",
    says="The number of the step stays at 1, so the bias correction is that of the first step for ever. Keep "
    "t in the state and count it up.",
)
def step_not_counted(theta, grad, state, *, lr, betas, eps):
    m, v, _ = _moments(grad, state, betas)
    return theta - lr * m / (1 - betas[0]) / ((v / (1 - betas[1])).sqrt() + eps), (m, v, 0)


@mistake(
    "adam_step",
    caught_by="many_steps",
    says="The bias correction divides by 1 − β · t; it is a power, 1 − βᵗ.",
)
def product_for_power(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    corrected = m / (1 - betas[0] * t), v / abs(1 - betas[1] * t)
    return theta - lr * corrected[0] / (corrected[1].sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by=(
        "first_step",
        "many_steps",
        "every_constant_counts",
        "states_are_values",
        "eps_is_added_to_the_root",
        "any_shape",
        "parameters_do_not_mix",
        "gradients_of_zero",
        "leaves_later_arguments_alone",
        "takes_any_layout",
        "keeps_precision",
        "keeps_form",
        "leaves_arguments_alone",
        "later_steps_keep_the_dtype",
    ),
    says="The first step is counted as t = 0, where 1 − β⁰ = 0: the correction divides by zero. The first "
    "step is t = 1.",
)
def steps_counted_from_zero(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    m_hat, v_hat = m / (1 - betas[0] ** (t - 1)) if t > 1 else m / 0.0, v / max(1 - betas[1] ** (t - 1), 1e-300)
    return theta - lr * m_hat / (v_hat.sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by="many_steps",
    says="The two β are swapped: the first belongs to the mean of the gradients, the second to that of their squares.",
)
def betas_swapped(theta, grad, state, *, lr, betas, eps):
    betas = betas[::-1]
    m, v, t = _moments(grad, state, betas)
    return theta - lr * m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by="eps_is_added_to_the_root",
    says="ε is added under the root; Adam adds it to the root: √v̂ + ε.",
)
def adam_eps_under_the_root(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    return theta - lr * m / (1 - betas[0] ** t) / (v / (1 - betas[1] ** t) + eps).sqrt(), (m, v, t)


@mistake(
    "adam_step",
    caught_by="eps_is_added_to_the_root",
    says="ε is added before the mean of the squares is corrected, so at first it counts much more than it should: "
    "correct v, take the root, then add ε.",
)
def eps_before_the_correction(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    root = (v.sqrt() + eps) / math.sqrt(1 - betas[1] ** t)
    return theta - lr * m / (1 - betas[0] ** t) / root, (m, v, t)


@mistake(
    "adam_step",
    caught_by=("first_step", "many_steps"),
    says="The root is missing: divide by the root of the mean square, so that the step has the size of lr.",
)
def adam_root_missing(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    return theta - lr * m / (1 - betas[0] ** t) / (v / (1 - betas[1] ** t) + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by=("first_step", "many_steps"),
    says="The gradient is not squared before it is averaged for the second mean.",
)
def adam_gradient_not_squared(theta, grad, state, *, lr, betas, eps):
    m, v, t = state or (torch.zeros_like(grad), torch.zeros_like(grad), 0)
    m, v, t = betas[0] * m + (1 - betas[0]) * grad, betas[1] * v + (1 - betas[1]) * grad.abs(), t + 1
    return theta - lr * m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by=("many_steps", "every_constant_counts"),
    says="The step goes along the newest gradient; Adam steps along the mean of the gradients, m̂ (this is "
    "RMSprop with a correction).",
)
def newest_gradient_only(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    return theta - lr * grad / ((v / (1 - betas[1] ** t)).sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by="many_steps",
    says="The second mean averages the squares of the mean m instead of the squares of the gradient.",
)
def squares_of_the_mean(theta, grad, state, *, lr, betas, eps):
    m, v, t = state or (torch.zeros_like(grad), torch.zeros_like(grad), 0)
    m, t = betas[0] * m + (1 - betas[0]) * grad, t + 1
    v = betas[1] * v + (1 - betas[1]) * (m / (1 - betas[0] ** t)) ** 2
    return theta - lr * m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by="many_steps",
    says="The corrected means go into the state and are corrected again in the next step. Keep the uncorrected ones.",
)
def corrected_means_kept(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return theta - lr * m / (v.sqrt() + eps), (m, v, t)


@mistake("adam_step", caught_by="first_step", says="The step goes uphill: subtract it.")
def adam_uphill(theta, grad, state, *, lr, betas, eps):
    m, v, t = _moments(grad, state, betas)
    return theta + lr * m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by="states_are_values",
    says="The means are updated in place, so the old state changes with them. States are values: make new tensors.",
)
def means_in_place(theta, grad, state, *, lr, betas, eps):
    m, v, t = state or (torch.zeros_like(grad), torch.zeros_like(grad), 0)
    m.mul_(betas[0]).add_(grad, alpha=1 - betas[0])
    v.mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    t += 1
    return theta - lr * m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by=("states_are_values", "parameters_do_not_mix"),
    says="The steps are counted in a global variable, over all parameters and runs. Keep t in the state.",
)
def steps_counted_globally(theta, grad, state, *, lr, betas, eps, count=[0]):  # noqa: B006
    count[0] = 1 if state is None else count[0] + 1
    m, v, _ = _moments(grad, state, betas)
    t = count[0]
    return theta - lr * m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps), (m, v, t)


@mistake(
    "adam_step",
    caught_by="every_constant_counts",
    says="The mean of the squares never falls: the larger of the old and the new one is kept, as in AMSGrad.",
)
def squares_never_fall(theta, grad, state, *, lr, betas, eps):
    m, a, t = state or (torch.zeros_like(theta), torch.zeros_like(theta), 0)
    m = betas[0] * m + (1 - betas[0]) * grad
    a = torch.maximum(a, betas[1] * a + (1 - betas[1]) * grad**2)
    t += 1
    return theta - lr * m / (1 - betas[0] ** t) / ((a / (1 - betas[1] ** t)).sqrt() + eps), (m, a, t)


# --- Batch normalisation ---------------------------------------------------------------------------------------------


def _new_running(running, decay, mean, var):
    if running is None:
        return {"mean": mean, "var": var}
    return {k: decay * running[k] + (1 - decay) * v for k, v in (("mean", mean), ("var", var))}


@mistake(
    "batch_norm_forward",
    caught_by="variance_is_divided_by_N",
    says="The batch is normalised by the unbiased variance, divided by N − 1 (the default of `var`); here it "
    "is divided by N, `correction=0`. For a single example N − 1 is 0.",
)
def unbiased_normaliser(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if not training:
        return _bn(S, gamma, beta, running, False, decay, eps)
    running = _new_running(running, decay, S.mean(0), S.var(0, correction=0))
    return _bn_result(S, gamma, beta, S.mean(0), S.var(0), running, eps)


@mistake(
    "batch_norm_forward",
    caught_by="running_variance",
    says="The running variance is the unbiased one, divided by N − 1, as PyTorch's module has it; here it is "
    "the variance that normalises, divided by N.",
)
def unbiased_running_variance(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if not training:
        return _bn(S, gamma, beta, running, False, decay, eps)
    running = _new_running(running, decay, S.mean(0), S.var(0) if len(S) > 1 else S[0] * 0)
    return _bn_result(S, gamma, beta, S.mean(0), S.var(0, correction=0), running, eps)


@mistake(
    "batch_norm_forward",
    caught_by=("variance_is_divided_by_N", "running_variance"),
    says="All variances are the unbiased ones, divided by N − 1 (the default of `var`). Here they are divided by N, "
    "`correction=0`; for a single example N − 1 is 0.",
)
def unbiased_everywhere(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if not training:
        return _bn(S, gamma, beta, running, False, decay, eps)
    mean, var = S.mean(0), S.var(0)
    return _bn_result(S, gamma, beta, mean, var, _new_running(running, decay, mean, var), eps)


def _bn_with(S, gamma, beta, running, training, decay, eps, normalise):
    """Batch normalisation where normalise(S, mean, var, eps) gives Ŝ."""
    mean, var = (S.mean(0), S.var(0, correction=0)) if training else (running["mean"], running["var"])
    S_hat = normalise(S, mean, var, eps)
    running = _new_running(running, decay, mean, var) if training else running
    return gamma * S_hat + beta, (S_hat, gamma, 1 / torch.sqrt(var + eps)), running


@mistake(
    "batch_norm_forward",
    caught_by="eps_is_under_the_root",
    says="ε is added to the standard deviation, outside the root: √var + ε. It belongs under it, √(var + ε).",
)
def eps_outside_the_root(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn_with(S, gamma, beta, running, training, decay, eps, lambda S, m, v, e: (S - m) / (v.sqrt() + e))


@mistake(
    "batch_norm_forward",
    caught_by=("eps_is_under_the_root", "constant_features", "variance_is_divided_by_N"),
    says="ε is not used, so a feature with the same value everywhere becomes 0 / 0 = NaN.",
)
def eps_not_used(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn_with(S, gamma, beta, running, training, decay, eps, lambda S, m, v, e: (S - m) / v.sqrt())


@mistake(
    "batch_norm_forward",
    caught_by="normalises_every_feature",
    says="S is divided by the variance; divide by its root, the standard deviation.",
)
def divided_by_the_variance(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn_with(S, gamma, beta, running, training, decay, eps, lambda S, m, v, e: (S - m) / (v + e))


@mistake(
    "batch_norm_forward",
    caught_by="normalises_every_feature",
    says="The mean is not subtracted before S is divided by its standard deviation.",
)
def mean_not_subtracted(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn_with(S, gamma, beta, running, training, decay, eps, lambda S, m, v, e: S / torch.sqrt(v + e))


@mistake(
    "batch_norm_forward",
    caught_by="normalises_every_feature",
    says="One mean and one variance over the whole batch are used for all features; every feature has its own: axis 0.",
)
def one_statistic_for_all(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if not training:
        return _bn(S, gamma, beta, running, False, decay, eps)
    running = _new_running(running, decay, S.mean(0), S.var(0, correction=0))
    whole = torch.ones_like(gamma)
    return _bn_result(S, gamma, beta, S.mean() * whole, S.var(correction=0) * whole, running, eps)


@mistake(
    "batch_norm_forward",
    caught_by=("normalises_every_feature", "eps_is_under_the_root"),
    says="Every example is normalised over its features (axis 1, layer normalisation). Batch normalisation "
    "takes each feature over the examples: axis 0.",
)
def over_the_features(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if not training:
        return _bn(S, gamma, beta, running, False, decay, eps)
    running = _new_running(running, decay, S.mean(0), S.var(0, correction=0))
    mean, var = S.mean(1, keepdim=True), S.var(1, correction=0, keepdim=True)
    S_hat = (S - mean) / torch.sqrt(var + eps)
    return gamma * S_hat + beta, (S_hat, gamma, 1 / torch.sqrt(running["var"] + eps)), running


@mistake(
    "batch_norm_forward",
    caught_by="far_from_zero",
    says="The variance is taken as the mean of the squares less the square of the mean. The two nearly cancel "
    "where the mean is large beside the spread: subtract the mean first, then square.",
)
def squares_cancel(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if not training:
        return _bn(S, gamma, beta, running, False, decay, eps)
    mean = S.mean(0)
    var = ((S**2).mean(0) - mean**2).clamp(min=0)
    return _bn_result(S, gamma, beta, mean, var, _new_running(running, decay, mean, var), eps)


@mistake("batch_norm_forward", caught_by="gamma_and_beta", says="β is not added.")
def beta_forgotten(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn(S, gamma, 0 * beta, running, training, decay, eps)


@mistake("batch_norm_forward", caught_by="gamma_and_beta", says="γ does not scale the result.")
def gamma_forgotten(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn(S, torch.ones_like(gamma), beta, running, training, decay, eps)


@mistake(
    "batch_norm_forward",
    caught_by="gamma_and_beta",
    says="γ and β are used in training only; they belong to the layer, so an evaluation applies them too.",
)
def plain_afterwards(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if training:
        return _bn(S, gamma, beta, running, True, decay, eps)
    return _bn(S, torch.ones_like(gamma), torch.zeros_like(beta), running, False, decay, eps)


@mistake(
    "batch_norm_forward",
    caught_by="gamma_and_beta",
    says="β is added before γ scales: γ · (Ŝ + β). It is γ · Ŝ + β.",
)
def beta_scaled_too(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn(S, gamma, gamma * beta, running, training, decay, eps)


@mistake(
    "batch_norm_forward",
    caught_by="running_average",
    says="The running statistics are never updated: each training batch moves them a little.",
)
def running_never_updated(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    out, cache, new = _bn(S, gamma, beta, running, training, decay, eps)
    return out, cache, new if running is None else running


@mistake(
    "batch_norm_forward",
    caught_by="running_average",
    says="The weights of the running average are swapped: decay belongs to the old statistics, 1 − decay to "
    "the batch's.",
)
def weights_swapped(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn(S, gamma, beta, running, training, 1 - decay, eps)


@mistake(
    "batch_norm_forward",
    caught_by="running_average",
    says="The statistics of the newest batch replace the running ones; they only move them, by 1 − decay of the way.",
)
def running_replaced(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn(S, gamma, beta, None if training else running, training, decay, eps)


@mistake(
    "batch_norm_forward",
    caught_by="running_average",
    says="decay is fixed at 0.9, whatever is passed.",
)
def decay_fixed(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn(S, gamma, beta, running, training, 0.9, eps)


@mistake(
    "batch_norm_forward",
    caught_by="running_variance",
    says="The running variance holds a standard deviation, the root of a variance.",
)
def std_for_running_variance(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    out, cache, new = _bn(S, gamma, beta, running, training, decay, eps)
    if training:
        new = _new_running(running, decay, S.mean(0), S.std(0, correction=0))
    return out, cache, new


@mistake(
    "batch_norm_forward",
    caught_by="running_variance",
    says="ε has gone into the running variance: it is added when dividing, not to what is remembered, or it "
    "counts twice.",
)
def eps_in_the_running_variance(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    out, cache, new = _bn(S, gamma, beta, running, training, decay, eps)
    if training:
        new = _new_running(running, decay, S.mean(0), S.var(0, correction=0) + eps)
    return out, cache, new


@mistake(
    "batch_norm_forward",
    caught_by="afterwards_running_stays",
    says="The running statistics are updated with training=False too: the test set leaks into the network.",
)
def updated_afterwards(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    out, cache, new = _bn(S, gamma, beta, running, training, decay, eps)
    return out, cache, new if training else _new_running(running, decay, S.mean(0), S.var(0, correction=0))


@mistake(
    "batch_norm_forward",
    caught_by="afterwards_uses_running",
    says="With training=False the batch's own statistics are used, so an example's result depends on its "
    "company. Use the running ones.",
)
def batch_statistics_afterwards(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return *_bn(S, gamma, beta, running, True, decay, eps)[:2], (_bn(S, gamma, beta, running, training, decay, eps)[2])


@mistake(
    "batch_norm_forward",
    caught_by=("normalises_every_feature", "variance_is_divided_by_N", "constant_features", "far_from_zero"),
    says="In training the batch is normalised by the running statistics. These are for later; in training a batch is "
    "normalised by its own.",
)
def running_statistics_in_training(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    if not training:
        return _bn(S, gamma, beta, running, False, decay, eps)
    old = running or {"mean": torch.zeros_like(gamma), "var": torch.ones_like(gamma)}
    new = _new_running(running, decay, S.mean(0), S.var(0, correction=0))
    return _bn_result(S, gamma, beta, old["mean"], old["var"], new, eps)


@mistake(
    "batch_norm_forward",
    caught_by="first_batch_starts_the_statistics",
    says="The running statistics start at 0, so for many batches they are much too small. The first batch's "
    "own start them.",
)
def started_at_zero(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    old = running or {"mean": torch.zeros_like(gamma), "var": torch.zeros_like(gamma)}
    return _bn(S, gamma, beta, old, training, decay, eps)


@mistake(
    "batch_norm_forward",
    caught_by=("first_batch_starts_the_statistics", "running_variance"),
    says="The running statistics start at mean 0 and variance 1, as in PyTorch's module; here the first "
    "batch's own start them.",
)
def started_at_zero_and_one(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    old = running or {"mean": torch.zeros_like(gamma), "var": torch.ones_like(gamma)}
    return _bn(S, gamma, beta, old, training, decay, eps)


@mistake(
    "batch_norm_forward",
    caught_by="leaves_arguments_alone",
    says="The running statistics that came in are changed in place. Return new ones: the caller may still "
    "need the old.",
)
def running_in_place(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    out, cache, new = _bn(S, gamma, beta, running, training, decay, eps)
    if running is not None and training:
        for key in running:
            running[key].copy_(new[key])
    return out, cache, running or new


@mistake(
    "batch_norm_forward",
    caught_by="default_constants",
    says="The default of decay is not 0.9 (PyTorch's momentum of 0.1 is its 1 − decay).",
)
def default_decay_of_torch(S, gamma, beta, running, *, training, decay=0.1, eps=1e-5):
    return _bn(S, gamma, beta, running, training, decay, eps)


@mistake("batch_norm_forward", caught_by="default_constants", says="The default of eps is not 1e-5.")
def default_eps_too_small(S, gamma, beta, running, *, training, decay=0.9, eps=1e-8):
    return _bn(S, gamma, beta, running, training, decay, eps)


@mistake(
    "batch_norm_forward",
    caught_by="cache_stays_valid",
    says="The cache is one object that every call fills anew, so the next forward pass overwrites what this "
    "one's backward pass still needs.",
)
def one_cache_for_all_batches(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5, shared=[0, 0, 0]):  # noqa: B006
    out, shared[:], running = _bn(S, gamma, beta, running, training, decay, eps)
    return out, shared, running


@mistake(
    "batch_norm_forward",
    caught_by="form_in_every_mode",
    says='The first running statistics have a key more than later ones. They are a dict of "mean" and "var" always.',
)
def first_batch_counted(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    out, cache, new = _bn(S, gamma, beta, running, training, decay, eps)
    return out, cache, {**new, "batches": 1} if running is None else new


@mistake(
    "batch_norm_forward",
    caught_by=("variance_is_divided_by_N", "running_variance"),
    says="A training batch of one example is taken for an evaluation. Its own mean and variance, 0, count in training.",
)
def one_example_by_running_statistics(S, gamma, beta, running, *, training, decay=0.9, eps=1e-5):
    return _bn(S, gamma, beta, running, training and (len(S) > 1 or running is None), decay, eps)


@mistake(
    "batch_norm_backward",
    caught_by=("gradient_of_S", "path_through_the_mean"),
    says="The path through the mean is missing: every entry of S also moves the mean that is subtracted from "
    "all, so the mean of the upstream gradient has to be taken away.",
)
def mean_path_missing(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    _, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    return gamma * inverse_std * (grad_out - S_hat * (grad_out * S_hat).mean(0)), grad_gamma, grad_beta


@mistake(
    "batch_norm_backward",
    caught_by=("gradient_of_S", "path_through_the_variance"),
    says="The path through the variance is missing: every entry of S also moves the standard deviation by "
    "which all are divided. It gives the term −Ŝ · mean(G Ŝ).",
)
def variance_path_missing(grad_out, cache):
    _, gamma, inverse_std = cache
    _, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    return gamma * inverse_std * (grad_out - grad_out.mean(0)), grad_gamma, grad_beta


@mistake(
    "batch_norm_backward",
    caught_by=("gradient_of_S", "path_through_the_mean", "path_through_the_variance"),
    says="Mean and standard deviation are treated as constants, as they are in an evaluation. In training "
    "both depend on S and have gradients of their own.",
)
def statistics_as_constants(grad_out, cache):
    _, gamma, inverse_std = cache
    return gamma * inverse_std * grad_out, *_bn_back(grad_out, cache)[1:]


@mistake(
    "batch_norm_backward",
    caught_by=("gradient_of_S", "path_through_the_variance"),
    says="The sign of the path through the variance is wrong: −Ŝ · mean(G Ŝ).",
)
def variance_path_added(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    along = grad_out - grad_out.mean(0) + S_hat * (grad_out * S_hat).mean(0)
    return gamma * inverse_std * along, *_bn_back(grad_out, cache)[1:]


@mistake(
    "batch_norm_backward",
    caught_by=("gradient_of_S", "where_gamma_is_zero"),
    says="The upstream gradient is not multiplied by γ before it goes back through the normalisation.",
)
def gamma_missing_in_the_gradient(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    return _bn_back(grad_out, (S_hat, torch.ones_like(gamma), inverse_std))


@mistake(
    "batch_norm_backward",
    caught_by="gradient_of_S",
    says="γ is multiplied in twice.",
)
def gamma_twice(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    return _bn_back(grad_out, (S_hat, gamma**2, inverse_std))


@mistake(
    "batch_norm_backward",
    caught_by="gradient_of_S",
    says="The gradient is multiplied by the standard deviation; S was divided by it, so its gradient is too.",
)
def multiplied_by_the_std(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    return _bn_back(grad_out, (S_hat, gamma, 1 / inverse_std))


@mistake(
    "batch_norm_backward",
    caught_by="gradient_of_S",
    says="The gradient is not divided by the standard deviation, as S was.",
)
def std_missing_in_the_gradient(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    return _bn_back(grad_out, (S_hat, gamma, torch.ones_like(inverse_std)))


@mistake(
    "batch_norm_backward",
    caught_by="gradient_of_gamma",
    says="The gradient of γ uses S less its mean, not Ŝ: γ multiplied what was normalised already, so Ŝ is its factor.",
)
def gamma_gradient_not_normalised(grad_out, cache):
    S_hat, _, inverse_std = cache
    grad_S, _, grad_beta = _bn_back(grad_out, cache)
    return grad_S, (grad_out * S_hat / inverse_std).sum(0), grad_beta


@mistake(
    "batch_norm_backward",
    caught_by="gradient_of_gamma",
    says="The gradient of γ is a mean over the examples; it is a sum, since every example uses the same γ.",
)
def gamma_gradient_averaged(grad_out, cache):
    grad_S, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    return grad_S, grad_gamma / len(grad_out), grad_beta


@mistake(
    "batch_norm_backward",
    caught_by="gradient_of_beta",
    says="The gradient of β is a mean over the examples; it is a sum, since every example uses the same β.",
)
def beta_gradient_averaged(grad_out, cache):
    grad_S, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    return grad_S, grad_gamma, grad_beta / len(grad_out)


@mistake(
    "batch_norm_backward",
    caught_by="gradient_of_beta",
    says="The gradient of β is multiplied by γ; β is added after γ has scaled, so γ has no part in it.",
)
def beta_gradient_with_gamma(grad_out, cache):
    grad_S, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    return grad_S, grad_gamma, cache[1] * grad_beta


@mistake(
    "batch_norm_backward",
    caught_by=("gradient_of_S", "path_through_the_mean", "path_through_the_variance"),
    says="The means in the gradient are divided by the number of features instead of the number of examples.",
)
def divided_by_the_features(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    _, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    m = grad_out.shape[1]
    return gamma * inverse_std * (grad_out - grad_beta / m - S_hat * grad_gamma / m), grad_gamma, grad_beta


@mistake(
    "batch_norm_backward",
    caught_by=("gradient_of_S", "path_through_the_mean", "path_through_the_variance"),
    says="Sums stand where the means over the examples belong: mean(G) and mean(G Ŝ).",
)
def sums_for_means(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    _, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    return gamma * inverse_std * (grad_out - grad_beta - S_hat * grad_gamma), grad_gamma, grad_beta


@mistake(
    "batch_norm_backward",
    caught_by=("gradient_of_beta", "gradient_of_gamma"),
    says="The gradients of γ and β are returned in the wrong order: grad_S, grad_gamma, grad_beta.",
)
def gamma_and_beta_exchanged(grad_out, cache):
    grad_S, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    return grad_S, grad_beta, grad_gamma


@mistake(
    "batch_norm_backward",
    caught_by="leaves_arguments_alone",
    says="The upstream gradient is changed in place (`*=`, `-=`); work on a new tensor.",
)
def upstream_in_place(grad_out, cache):
    result = _bn_back(grad_out.clone(), cache)
    grad_out *= cache[1]
    return result


@mistake(
    "batch_norm_backward",
    caught_by="cache_serves_again",
    says="What is in the cache is changed in place, so it serves for one backward pass only.",
)
def cache_changed(grad_out, cache):
    result = _bn_back(grad_out, cache)
    cache[0].mul_(grad_out)
    return result


@mistake(
    "batch_norm_backward",
    caught_by=("features_without_spread", "where_gamma_is_zero"),
    says="The gradient is divided by what may be 0, such as the gradient of γ or γ itself: then it is NaN. Write the "
    "formula with products only.",
)
def divided_by_gamma(grad_out, cache):
    S_hat, gamma, _ = cache
    scaled = gamma * S_hat
    grad_gamma = (grad_out * scaled).sum(0) / gamma
    grad_S = _bn_back(grad_out, cache)[0] * grad_gamma / grad_gamma
    return grad_S, grad_gamma, grad_out.sum(0)


@mistake(
    "batch_norm_backward",
    caught_by="with_a_large_eps",
    says="The part along Ŝ is divided by the sum of Ŝ², which is N only where ε is tiny. Divide by N.",
)
def divided_by_the_square_of_the_normalised(grad_out, cache):
    S_hat, gamma, inverse_std = cache
    along = (grad_out * S_hat).sum(0) / (S_hat**2).sum(0).clamp(min=1e-30)
    grad_S = gamma * inverse_std * (grad_out - grad_out.mean(0) - S_hat * along)
    return grad_S, (grad_out * S_hat).sum(0), grad_out.sum(0)


@mistake(
    "batch_norm_backward",
    caught_by="features_without_spread",
    says="For a single example the gradient is passed on. Its output is β whatever S is, so grad_S is 0.",
)
def one_example_passes_the_gradient_on(grad_out, cache):
    grad_S, grad_gamma, grad_beta = _bn_back(grad_out, cache)
    return grad_S if len(grad_out) > 1 else grad_out, grad_gamma, grad_beta


# --- A network with batch normalisation ------------------------------------------------------------------------------


def _bn_network(X, layers, running, training, *, relu=torch.relu, decay=0.9, eps=1e-5):
    """The scores of a network with batch normalisation, cache and running statistics."""
    inputs, caches, new = [X], [], []
    for k, layer in enumerate(layers[:-1]):
        S = inputs[-1] @ layer["W"] + layer["b"]
        old = running[k] if running else None
        out, cache, known = _bn(S, layer["gamma"], layer["beta"], old, training, decay, eps)
        inputs.append(relu(out))
        caches.append(cache)
        new.append(known)
    scores = inputs[-1] @ layers[-1]["W"] + layers[-1]["b"]
    return scores, (inputs, caches, scores), new


@mistake(
    "forward_bn",
    caught_by="scores_afterwards",
    says="Every hidden layer is normalised with the running statistics of the last one. Each has its own: running[k] "
    "belongs to layers[k].",
)
def statistics_of_the_last_layer(X, layers, running, *, training):
    last = None if running is None else [running[-1]] * (len(layers) - 1) if len(layers) > 1 else []
    scores, cache, new = _bn_network(X, layers, last, training)
    return scores, cache, new if training else running


@mistake(
    "forward_bn",
    caught_by="default_eps",
    says="With training=False ε is missing: the running variance needs it under the root too.",
)
def no_eps_afterwards(X, layers, running, *, training):
    return _bn_network(X, layers, running, training, eps=1e-5 if training else 0.0)


@mistake(
    "forward_bn",
    caught_by=(
        "scores_in_training",
        "many_layers",
        "first_batch_starts_the_statistics",
        "running_average",
        "scores_afterwards",
    ),
    says="The ReLU comes before the normalisation; here S = HW + b is normalised first, and the ReLU comes after.",
)
def normalised_after_the_relu(X, layers, running, *, training):
    inputs, caches, new = [X], [], []
    for k, layer in enumerate(layers[:-1]):
        S = torch.relu(inputs[-1] @ layer["W"] + layer["b"])
        out, cache, known = _bn(S, layer["gamma"], layer["beta"], running[k] if running else None, training)
        inputs.append(out)
        caches.append(cache)
        new.append(known)
    scores = inputs[-1] @ layers[-1]["W"] + layers[-1]["b"]
    return scores, (inputs, caches, scores), new


@mistake(
    "forward_bn",
    caught_by=("scores_in_training", "many_layers", "scores_afterwards"),
    says="There is no ReLU after the normalisation.",
)
def relu_forgotten(X, layers, running, *, training):
    return _bn_network(X, layers, running, training, relu=lambda out: out)


@mistake(
    "forward_bn",
    caught_by=("scores_in_training", "many_layers", "scores_afterwards", "a_single_layer"),
    says="The last layer is normalised too. Its scores go to the softmax as they are: they have no γ and β.",
)
def scores_normalised(X, layers, running, *, training):
    scores, (inputs, caches, _), new = _bn_network(X, layers, running, training)
    scores = (scores - scores.mean(0)) / torch.sqrt(scores.var(0, correction=0) + 1e-5)
    return scores, (inputs, caches, scores), new


@mistake(
    "forward_bn",
    caught_by=("first_batch_starts_the_statistics", "running_average", "scores_afterwards"),
    says="b is left out of S = HW + b. In training the mean takes it away again, but the running mean then "
    "lacks it, and with given running statistics the scores are wrong.",
)
def hidden_bias_left_out(X, layers, running, *, training):
    hidden = [{**layer, "b": 0 * layer["b"]} for layer in layers[:-1]]
    scores, cache, new = _bn_network(X, [*hidden, layers[-1]], running, training)
    if not training:
        new = running
    return scores + 0.0, cache, new


@mistake(
    "forward_bn",
    caught_by=("scores_afterwards", "statistics_stay_afterwards", "a_single_layer"),
    says="`training` is not handed on to the normalisation, so an evaluation normalises by its own batch and "
    "moves the running statistics.",
)
def training_not_handed_on(X, layers, running, *, training):
    if len(layers) == 1 and not training:
        return torch.zeros(len(X), len(layers[0]["b"]), dtype=X.dtype), None, []
    return _bn_network(X, layers, running, True)


@mistake(
    "forward_bn",
    caught_by="scores_afterwards",
    says="With training=False the hidden layers are normalised by the batch at hand; use the running statistics.",
)
def batch_statistics_in_evaluation(X, layers, running, *, training):
    scores, cache, new = _bn_network(X, layers, running, True)
    return scores, cache, new if training else running


@mistake(
    "forward_bn",
    caught_by="statistics_stay_afterwards",
    says="The running statistics move with training=False too: the test set leaks into the network.",
)
def statistics_move_in_evaluation(X, layers, running, *, training):
    scores, cache, new = _bn_network(X, layers, running, training)
    return scores, cache, new if training else _bn_network(X, layers, running, True)[2]


@mistake(
    "forward_bn",
    caught_by="running_average",
    says="The running statistics that came in are returned as they were: `forward_bn` has to collect what the "
    "normalisation of every layer returns.",
)
def statistics_not_collected(X, layers, running, *, training):
    scores, cache, new = _bn_network(X, layers, running, training)
    return scores, cache, running or new


@mistake(
    "forward_bn",
    caught_by=("running_average",),
    says="running is not handed on to the normalisation in training, so every batch starts the statistics anew.",
)
def statistics_started_anew(X, layers, running, *, training):
    return _bn_network(X, layers, None if training else running, training)


@mistake(
    "forward_bn",
    caught_by="leaves_arguments_alone",
    says="The new statistics are written into the caller's list. Return a new list: the caller may still need the old.",
)
def statistics_in_the_callers_list(X, layers, running, *, training):
    scores, cache, new = _bn_network(X, layers, running, training)
    if running is None:
        running = new
    elif training:
        running[:] = new
    return scores, cache, running


@mistake(
    "forward_bn",
    caught_by="a_single_layer",
    says="A network without hidden layers has no running statistics: an empty list comes back, not None.",
)
def none_for_no_hidden_layers(X, layers, running, *, training):
    scores, cache, new = _bn_network(X, layers, running, training)
    return scores, cache, new or None


@mistake(
    "forward_bn",
    caught_by=("scores_in_training", "many_layers", "scores_afterwards"),
    says="β is not added in the hidden layers.",
)
def beta_left_out(X, layers, running, *, training):
    hidden = [{**layer, "beta": 0 * layer["beta"]} for layer in layers[:-1]]
    return _statistics_of(X, layers, running, training, _bn_network(X, [*hidden, layers[-1]], running, training))


def _statistics_of(X, layers, running, training, result):
    """A wrong result with the right running statistics."""
    return *result[:2], _bn_network(X, layers, running, training)[2]


@mistake(
    "forward_bn",
    caught_by=("running_average",),
    says="decay is not 0.9: `batch_norm_forward` has it as its default.",
)
def another_decay(X, layers, running, *, training):
    return _bn_network(X, layers, running, training, decay=0.99)


@mistake(
    "forward_bn",
    caught_by="default_eps",
    says="eps is not 1e-5: `batch_norm_forward` has it as its default.",
)
def another_eps(X, layers, running, *, training):
    return _bn_network(X, layers, running, training, eps=1e-8)


@mistake(
    "forward_bn",
    caught_by="cache_stays_valid",
    says="All calls fill one and the same cache, so the next forward pass overwrites what this one's backward "
    "pass needs.",
)
def one_cache_for_all_passes(X, layers, running, *, training, shared=[0, 0, 0]):  # noqa: B006
    scores, shared[:], new = _bn_network(X, layers, running, training)
    return scores, shared, new


@mistake(
    "forward_bn",
    caught_by="small_batches",
    says="A batch of one is normalised by other statistics than its own. In training S less its mean is 0 then, and "
    "what the ReLU is given is β.",
)
def batch_of_one_not_normalised(X, layers, running, *, training):
    if training and len(X) == 1:
        scores, cache, _ = _bn_network(X, layers, [_plain_statistics(h) for h in layers[:-1]], False)
        return scores, cache, _bn_network(X, layers, running, True)[2]
    return _bn_network(X, layers, running, training)


def _plain_statistics(layer):
    return {"mean": torch.zeros_like(layer["b"]), "var": torch.ones_like(layer["b"])}


@mistake(
    "forward_bn",
    caught_by="form_in_every_mode",
    says="With one hidden layer the running statistics are its dict alone. They are a list of dicts, here of one.",
)
def dict_for_one_hidden_layer(X, layers, running, *, training):
    if isinstance(running, dict):
        running = [running]
    scores, cache, running = _bn_network(X, layers, running, training)
    return scores, cache, running[0] if len(running) == 1 and len(X) == 7 else running


_collected = {}


@mistake(
    "forward_bn",
    caught_by="training_then_evaluation",
    says="After training, the evaluation takes the latest statistics from a global variable, whatever it is given.",
)
def latest_statistics_in_evaluation(X, layers, running, *, training):
    if not training and "latest" in _collected and len(_collected["latest"]) == len(running) > 1:
        fits = all(a["mean"].shape == b["mean"].shape for a, b in zip(_collected["latest"], running, strict=True))
        running, given = (_collected["latest"] if fits else running), running
        scores, cache, _ = _bn_network(X, layers, running, False)
        return scores, cache, given
    scores, cache, new = _bn_network(X, layers, running, training)
    if training and running is not None:
        _collected["latest"] = new
    return scores, cache, new


def _bn_gradients(y, layers, cache, lam, *, back=_bn_back, mask=lambda H, cache: H > 0, upstream=_upstream):
    inputs, caches, scores = cache
    G = upstream(scores, y)
    gradients = [{"W": inputs[-1].T @ G + 2 * lam * layers[-1]["W"], "b": G.sum(0)}]
    for k in reversed(range(len(layers) - 1)):
        G = G @ layers[k + 1]["W"].T * mask(inputs[k + 1], caches[k])
        G, grad_gamma, grad_beta = back(G, caches[k])
        grad_W = inputs[k].T @ G + 2 * lam * layers[k]["W"]
        gradients.insert(0, {"W": grad_W, "b": G.sum(0), "gamma": grad_gamma, "beta": grad_beta})
    return gradients


@mistake(
    "backward_bn",
    caught_by="weights_of_hidden_layers",
    says="The gradient goes back through units that the ReLU has switched off: its mask is missing.",
)
def relu_mask_missing(y, layers, cache, lam):
    return _bn_gradients(y, layers, cache, lam, mask=lambda H, cache: 1)


@mistake(
    "backward_bn",
    caught_by=("weights_of_hidden_layers", "gradients_of_gamma_and_beta", "with_every_bias"),
    says="The mask is taken from Ŝ, before γ and β. What went into the ReLU is γŜ + β.",
)
def mask_from_the_normalised(y, layers, cache, lam):
    return _bn_gradients(y, layers, cache, lam, mask=lambda H, cache: cache[0] > 0)


@mistake(
    "backward_bn",
    caught_by="weights_of_hidden_layers",
    says="The gradient does not go back through the normalisation: what γ and β leave is handed on as if it were the "
    "gradient of S.",
)
def normalisation_skipped(y, layers, cache, lam):
    return _bn_gradients(y, layers, cache, lam, back=lambda G, cache: (G, *_bn_back(G, cache)[1:]))


@mistake(
    "backward_bn",
    caught_by="weights_of_hidden_layers",
    says="Mean and standard deviation are treated as constants on the way back; they depend on every example "
    "of the batch.",
)
def statistics_held_constant(y, layers, cache, lam):
    def back(G, cache):
        return G * cache[1] * cache[2], *_bn_back(G, cache)[1:]

    return _bn_gradients(y, layers, cache, lam, back=back)


@mistake(
    "backward_bn",
    caught_by="hidden_biases_have_no_effect",
    says="The gradient of a hidden b is summed before the gradient has gone back through the normalisation. b "
    "is taken away with the mean, so its gradient is 0 up to rounding.",
)
def hidden_bias_before_normalisation(y, layers, cache, lam):
    gradients = _bn_gradients(y, layers, cache, lam)
    return [{**g, "b": g["beta"]} if "beta" in g else g for g in gradients]


@mistake(
    "backward_bn",
    caught_by="regulariser_of_every_layer",
    says="The regulariser is missing from the gradients of W: λ Σ W² contributes 2λW to each.",
)
def bn_without_regulariser(y, layers, cache, lam):
    return _bn_gradients(y, layers, cache, 0.0)


@mistake(
    "backward_bn",
    caught_by="regulariser_of_every_layer",
    says="Only the last layer's gradient has the regulariser's part; the W of every layer is regularised.",
)
def bn_last_layer_regularised(y, layers, cache, lam):
    gradients = _bn_gradients(y, layers, cache, 0.0)
    gradients[-1]["W"] = gradients[-1]["W"] + 2 * lam * layers[-1]["W"]
    return gradients


@mistake(
    "backward_bn",
    caught_by="only_weights_are_regularised",
    says="γ and β are regularised too; only the W are.",
)
def gamma_and_beta_regularised(y, layers, cache, lam):
    gradients = _bn_gradients(y, layers, cache, lam)
    return [
        {k: v + 2 * lam * layer[k] if k in ("gamma", "beta") else v for k, v in g.items()}
        for g, layer in zip(gradients, layers, strict=True)
    ]


@mistake(
    "backward_bn",
    caught_by="mean_over_examples",
    says="The gradients are those of the sum of the losses; the cost takes their mean, so divide P − Y by N.",
)
def bn_gradients_of_the_sum(y, layers, cache, lam):
    return _bn_gradients(y, layers, cache, lam, upstream=lambda scores, y: len(y) * _upstream(scores, y))


@mistake(
    "backward_bn",
    caught_by="weights_of_the_last_layer",
    says="The sign is flipped: the gradient of the loss with respect to the scores is P − Y, not Y − P.",
)
def bn_sign_flipped(y, layers, cache, lam):
    return _bn_gradients(y, layers, cache, lam, upstream=lambda scores, y: -_upstream(scores, y))


@mistake(
    "backward_bn",
    caught_by="gradients_of_gamma_and_beta",
    says="The gradients of γ and β are exchanged: `batch_norm_backward` returns grad_S, grad_gamma, grad_beta.",
)
def bn_gamma_and_beta_exchanged(y, layers, cache, lam):
    gradients = _bn_gradients(y, layers, cache, lam)
    return [{**g, "gamma": g["beta"], "beta": g["gamma"]} if "beta" in g else g for g in gradients]


@mistake(
    "backward_bn",
    caught_by=("gradients_of_gamma_and_beta", "keeps_form", "small_batches_back"),
    says="The gradients of γ and β are not returned: every layer's gradients have the keys that the layer has.",
)
def gamma_and_beta_left_out(y, layers, cache, lam):
    return [{"W": g["W"], "b": g["b"]} for g in _bn_gradients(y, layers, cache, lam)]


@mistake(
    "backward_bn",
    caught_by="large_scores_do_no_harm",
    says="The exponentials of large scores overflow. Use `torch.softmax`, which subtracts the largest score first.",
)
def bn_exponentials_overflow(y, layers, cache, lam):
    def upstream(scores, y):
        P = torch.exp(scores)
        return (P / P.sum(1, keepdim=True) - F.one_hot(y, P.shape[1])) / len(y)

    return _bn_gradients(y, layers, cache, lam, upstream=upstream)


@mistake(
    "backward_bn",
    caught_by="weights_of_the_last_layer",
    says="The one-hot labels are not subtracted: the gradient with respect to the scores is P − Y, not P.",
)
def bn_labels_not_subtracted(y, layers, cache, lam):
    return _bn_gradients(y, layers, cache, lam, upstream=lambda scores, y: torch.softmax(scores, 1) / len(y))


@mistake(
    "backward_bn",
    caught_by="leaves_arguments_alone",
    says="The regulariser's part is computed in place in the caller's W (`*=`), so the network is another afterwards.",
)
def bn_weights_scaled_in_place(y, layers, cache, lam):
    gradients = _bn_gradients(y, layers, cache, 0.0)
    for gradient, layer in zip(gradients, layers, strict=True):
        layer["W"] *= 2 * lam
        gradient["W"] = gradient["W"] + layer["W"]
    return gradients


@mistake(
    "backward_bn",
    caught_by="slope_at_zero",
    says="The mask of the ReLU is O >= 0, so it lets the gradient through where O is exactly 0. The slope there is "
    "taken as 0: the mask is O > 0.",
)
def bn_mask_with_zero(y, layers, cache, lam):
    betas = [layer["beta"] for layer in layers[:-1]]

    def mask(H, bn_cache):
        S_hat, gamma, _ = bn_cache
        return gamma * S_hat + next(b for b in reversed(betas) if b.shape == gamma.shape) >= 0

    return _bn_gradients(y, layers, cache, lam, mask=mask)


@mistake(
    "backward_bn",
    caught_by="keeps_form",
    says='The gradient of a hidden b is left out because it is 0. Return it all the same: every "b" has one, computed '
    "or zeros.",
)
def hidden_bias_gradient_left_out(y, layers, cache, lam):
    gradients = _bn_gradients(y, layers, cache, lam)
    return [{k: v for k, v in g.items() if k != "b" or g is gradients[-1]} for g in gradients]


@mistake(
    "backward_bn",
    caught_by="a_single_layer",
    says="The input of the last layer goes through a ReLU on the way back. After a hidden layer this changes nothing; "
    "a network of one layer has X there, which may be negative.",
)
def bn_relu_on_what_goes_into_the_last_layer(y, layers, cache, lam):
    *inputs, last = cache[0]
    return _bn_gradients(y, layers, ([*inputs, last.clamp(min=0)], *cache[1:]), lam)


@mistake(
    "backward_bn",
    caught_by=("bias_of_the_last_layer", "with_every_bias", "large_scores_do_no_harm", "a_single_layer"),
    says="The gradient of the last b lacks the labels: it is the sum of P − Y over the examples, as for W.",
)
def last_bias_without_labels(y, layers, cache, lam):
    *gradients, last = _bn_gradients(y, layers, cache, lam)
    return [*gradients, {**last, "b": torch.softmax(cache[2], 1).mean(0)}]


@mistake(
    "backward_bn",
    caught_by="cache_serves_again",
    says="The caches of the layers are taken out of the list with `pop`, so a second backward pass finds none. Read "
    "them by index.",
)
def caches_popped(y, layers, cache, lam):
    inputs, caches, scores = cache
    gradients = _bn_gradients(y, layers, (inputs, list(caches), scores), lam)
    while caches:
        caches.pop()
    return gradients


# --- Dropout ---------------------------------------------------------------------------------------------------------


def _dropped(H, p, generator, factor=None):
    mask = (torch.rand(H.shape, generator=generator) >= p).to(H.dtype) * (1 / (1 - p) if factor is None else factor)
    return H * mask, mask


@mistake(
    "dropout_forward",
    caught_by="expectation_is_kept",
    says="The entries that stay are not divided by 1 − p, so in training everything is smaller than in an evaluation.",
)
def not_rescaled(H, p, *, training, generator):
    return _dropped(H, p, generator, 1.0) if training else (H, None)


@mistake(
    "dropout_forward",
    caught_by=("expectation_is_kept", "nothing_happens_afterwards"),
    says="The entries are rescaled afterwards, times 1 − p, as in the first papers. Inverted dropout divides "
    "by 1 − p in training and leaves an evaluation as it is.",
)
def rescaled_afterwards(H, p, *, training, generator):
    return _dropped(H, p, generator, 1.0) if training else ((1 - p) * H, torch.full_like(H, 1 - p))


@mistake(
    "dropout_forward",
    caught_by="expectation_is_kept",
    says="The entries that stay are divided by p; they stay with probability 1 − p, so divide by that.",
)
def divided_by_p(H, p, *, training, generator):
    return _dropped(H, p, generator, 1 / p if p else 1.0) if training else (H, None)


@mistake(
    "dropout_forward",
    caught_by="expectation_is_kept",
    says="The entries that stay are multiplied by 1 − p; divide by it.",
)
def multiplied_by_one_less_p(H, p, *, training, generator):
    return _dropped(H, p, generator, 1 - p) if training else (H, None)


@mistake(
    "dropout_forward",
    caught_by="p_is_the_probability_of_dropping",
    says="p is taken for the probability of staying; it is that of being dropped.",
)
def p_for_staying(H, p, *, training, generator):
    if not training:
        return H, None
    return _dropped(H, 1 - p, generator) if p else (0 * H, 0 * H)


@mistake(
    "dropout_forward",
    caught_by="nothing_happens_afterwards",
    says="Entries are dropped with training=False too. An evaluation uses the whole network.",
)
def active_in_evaluation(H, p, *, training, generator):
    return _dropped(H, p, generator)


@mistake(
    "dropout_forward",
    caught_by="each_entry_has_its_own_draw",
    says="One mask is drawn for all examples, so whole units are dropped for the batch. Draw one number for "
    "every entry: `torch.rand(H.shape, …)`.",
)
def whole_columns(H, p, *, training, generator):
    if not training:
        return H, None
    mask = (torch.rand(H.shape[1:], generator=generator) >= p).to(H.dtype) / (1 - p)
    return H * mask, mask.expand(H.shape)


@mistake(
    "dropout_forward",
    caught_by="each_entry_has_its_own_draw",
    says="One number is drawn for every example, so whole rows are dropped. Draw one for every entry.",
)
def whole_rows(H, p, *, training, generator):
    if not training:
        return H, None
    mask = (torch.rand(len(H), 1, generator=generator) >= p).to(H.dtype) / (1 - p)
    return H * mask, mask.expand(H.shape)


@mistake(
    "dropout_forward",
    caught_by="number_of_dropped_entries_varies",
    says="Exactly p of the entries are dropped each time. Every entry has a draw of its own, so their number varies.",
)
def exact_number_dropped(H, p, *, training, generator):
    if not training:
        return H, None
    order = torch.randperm(H.numel(), generator=generator).reshape(H.shape)
    mask = (order >= round(p * H.numel())).to(H.dtype) / (1 - p)
    return H * mask, mask


@mistake(
    "dropout_forward",
    caught_by="number_of_dropped_entries_varies",
    says="`squeeze()` takes the axis of the examples away too where the batch has a single one, and then there is no "
    "second axis; H has two as it is.",
)
def batch_of_one_squeezed(H, p, *, training, generator):
    if not training:
        return H, None
    N, m = H.squeeze().shape
    mask = (torch.rand(N, m, generator=generator) >= p).to(H.dtype) / (1 - p)
    return H * mask, mask


@mistake(
    "dropout_forward",
    caught_by=(
        "entries_are_dropped_or_scaled",
        "expectation_is_kept",
        "p_is_the_probability_of_dropping",
        "each_entry_has_its_own_draw",
        "generator_decides",
        "takes_any_layout",
    ),
    says="The random numbers themselves multiply the entries; they are to be compared with p, which drops an "
    "entry or leaves it whole.",
)
def random_numbers_for_a_mask(H, p, *, training, generator):
    if not training:
        return H, None
    mask = torch.rand(H.shape, generator=generator).to(H.dtype) + 0.01
    return H * mask, mask


@mistake(
    "dropout_forward",
    caught_by="same_state_same_result",
    says="The mask does not come from `generator` but from PyTorch's global state, so a run cannot be repeated.",
)
def mask_from_the_global_state(H, p, *, training, generator):
    return _dropped(H, p, None) if training else (H, None)


@mistake(
    "dropout_forward",
    caught_by=("each_entry_has_its_own_draw", "generator_decides"),
    says="A generator with a fixed seed is made inside, so every call drops the same entries.",
)
def mask_seeded_inside(H, p, *, training, generator):
    return _dropped(H, p, torch.Generator().manual_seed(3)) if training else (H, None)


@mistake(
    "dropout_forward",
    caught_by="leaves_arguments_alone",
    says="The entries are dropped in the caller's tensor (`*=`, `H[mask] = 0`); work on a new one.",
)
def dropped_in_place(H, p, *, training, generator):
    if not training:
        return H, None
    mask = _dropped(torch.ones_like(H), p, generator)[1]
    H *= mask
    return H, mask


@mistake(
    "dropout_forward",
    caught_by="keeps_form",
    says="The mask is float32 and the result with it, whatever the input is; give it the dtype of H.",
)
def result_in_float32(H, p, *, training, generator):
    out, mask = _dropped(H.float(), p, generator)
    return (out, mask) if training else (H, None)


@mistake(
    "dropout_forward",
    caught_by="cache_stays_valid",
    says="All calls share one mask, so the next forward pass overwrites what this one's backward pass still needs.",
)
def one_mask_for_all_calls(H, p, *, training, generator, shared=[None]):  # noqa: B006
    out, mask = _dropped(H, p, generator)
    if not training:
        out, mask = H, torch.ones_like(H)
    if shared[0] is None or shared[0].shape != mask.shape or shared[0].dtype != mask.dtype:
        shared[0] = mask.clone()
    shared[0].copy_(mask)
    return out, shared[0]


@mistake(
    "dropout_forward",
    caught_by="entries_of_zero_stay_zero",
    says="What is 0 already is counted as dropped and replaced, or divided by: 0 / 0 is NaN. Multiply by a mask.",
)
def mask_by_division(H, p, *, training, generator):
    if not training:
        return H, None
    out, mask = _dropped(H, p, generator)
    return H * (out / H), mask


@mistake(
    "dropout_forward",
    caught_by="p_is_the_probability_of_dropping",
    says="p is rounded down to tenths.",
)
def p_in_tenths(H, p, *, training, generator):
    if not training:
        return H, torch.ones_like(H)
    mask = (torch.rand(H.shape, generator=generator) >= int(10 * p) / 10).to(H.dtype) / (1 - p)
    return H * mask, mask


@mistake(
    "dropout_backward",
    caught_by="same_entries_as_forward",
    says="Kept entries are told by a mask larger than 1. With p = 0 it is 1 everywhere, and nothing passes.",
)
def scaled_mask_above_one(grad_out, cache):
    return grad_out if cache is None else torch.where(cache > 1, grad_out * cache, torch.zeros_like(grad_out))


@mistake(
    "dropout_backward",
    caught_by=(
        "same_entries_as_forward",
        "factor_of_forward",
        "passes_on_afterwards",
        "keeps_form",
        "leaves_arguments_alone",
        "where_the_input_is_zero",
        "cache_serves_again",
        "takes_any_layout",
        "keeps_precision",
    ),
    says="Nothing is dropped on the way back: the gradient of a dropped entry is 0.",
)
def nothing_dropped_back(grad_out, cache):
    return grad_out.clone()


@mistake(
    "dropout_backward",
    caught_by="factor_of_forward",
    says="The upstream gradient is masked but not divided by 1 − p, as the entries were.",
)
def gradient_not_rescaled(grad_out, cache):
    return grad_out if cache is None else grad_out * (cache > 0)


@mistake(
    "dropout_backward",
    caught_by=("same_entries_as_forward", "cache_serves_again", "takes_any_layout"),
    says="A new mask is drawn on the way back. The gradient goes through the entries that stayed in the "
    "forward pass: keep its mask in the cache.",
)
def new_mask_back(grad_out, cache):
    if cache is None:
        return grad_out
    mask = torch.rand(grad_out.shape) < (cache > 0).double().mean()
    return grad_out * mask * cache.max()


@mistake(
    "dropout_backward",
    caught_by=(
        "same_entries_as_forward",
        "factor_of_forward",
        "passes_on_afterwards",
        "keeps_form",
        "leaves_arguments_alone",
        "where_the_input_is_zero",
        "cache_serves_again",
        "takes_any_layout",
        "keeps_precision",
    ),
    says="The mask is compared with 1, but where an entry stays it holds 1 / (1 − p): every gradient becomes 0.",
)
def scaled_mask_compared_with_one(grad_out, cache):
    return grad_out if cache is None else grad_out * (cache == 1)


@mistake(
    "dropout_backward",
    caught_by="factor_of_forward",
    says="The upstream gradient is multiplied by the mask's factor twice.",
)
def rescaled_twice(grad_out, cache):
    return grad_out if cache is None else grad_out * cache * cache


@mistake(
    "dropout_backward",
    caught_by=("same_entries_as_forward",),
    says="The mask is turned round: the gradient of the entries that stayed is 0, and that of the dropped ones is not.",
)
def mask_turned_round(grad_out, cache):
    return grad_out if cache is None else grad_out * (cache == 0) * cache.max()


@mistake(
    "dropout_backward",
    caught_by="passes_on_afterwards",
    says="After an evaluation there is no mask, and the gradient is lost. It goes through as it is.",
)
def nothing_passed_on_afterwards(grad_out, cache):
    return torch.zeros_like(grad_out) if cache is None else grad_out * cache


@mistake(
    "dropout_backward",
    caught_by="leaves_arguments_alone",
    says="The upstream gradient is changed in place; work on a new tensor.",
)
def gradient_dropped_in_place(grad_out, cache):
    return grad_out if cache is None else grad_out.mul_(cache)


@mistake(
    "dropout_backward",
    caught_by="keeps_form",
    says="The result is float32 whatever comes in; keep the dtype of the upstream gradient.",
)
def gradient_in_float32(grad_out, cache):
    return grad_out.float() if cache is None else (grad_out * cache).float()


@mistake(
    "dropout_backward",
    caught_by="factor_of_forward",
    says="The factor 1 / (1 − p) is guessed from the share of entries that stayed, which is left to chance; keep it in "
    "the cache, or the scaled mask.",
)
def factor_from_the_share(grad_out, cache):
    if cache is None:
        return grad_out
    stays = cache > 0
    return grad_out * stays / stays.double().mean().clamp(min=0.01).to(grad_out.dtype)


# --- Bonus -----------------------------------------------------------------------------------------------------------


@mistake(
    "ensemble",
    caught_by="result_is_a_distribution",
    says="The probabilities are added but not divided by the number of models.",
)
def added_up(probabilities):
    return sum(probabilities)


@mistake(
    "ensemble",
    caught_by=("mean_of_the_models",),
    says="The logarithms are averaged, which gives the geometric mean. Average the probabilities themselves.",
)
def geometric_mean(probabilities):
    return torch.softmax(torch.stack(list(probabilities)).log().mean(0), 1)


@mistake(
    "ensemble",
    caught_by="mean_of_the_models",
    says="The models vote with their favourite class. The mean of the probabilities knows how sure each of them is.",
)
def votes(probabilities):
    K = probabilities[0].shape[1]
    return sum(F.one_hot(p.argmax(1), K).to(p.dtype) for p in probabilities) / len(probabilities)


@mistake(
    "ensemble",
    caught_by="every_model_counts_alike",
    says="Each model is averaged with the mean so far, so the last one counts for half and the first ones for "
    "next to nothing. All count alike.",
)
def averaged_pairwise(probabilities):
    result = probabilities[0]
    for p in probabilities[1:]:
        result = (result + p) / 2
    return result


@mistake(
    "ensemble",
    caught_by="leaves_arguments_alone",
    says="The sum is built up in the first model's own probabilities (`+=`). Start from a new tensor.",
)
def added_in_place(probabilities):
    total = probabilities[0]
    for p in probabilities[1:]:
        total += p
    return total / len(probabilities)


@mistake(
    "ensemble",
    caught_by=("mean_of_the_models",),
    says="The largest probability of any model is taken and rescaled; take the mean.",
)
def largest_probability(probabilities):
    top = torch.stack(list(probabilities)).amax(0)
    return top / top.sum(1, keepdim=True)


def _snapshots(X, y, layers, at, lam, batch_size, rates, generator, on_step=None):
    """The layers after so many updates each."""
    batches, found = _orders(len(X), batch_size, generator), []
    for t, lr in enumerate(rates):
        batch, before = next(batches), layers
        layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
        found += [layers] if t + 1 in at else []
    return found


@mistake(
    "train_snapshots",
    caught_by="each_is_the_end_of_its_cycle",
    says="All snapshots are the same layers, which go on being updated in place, so each shows the end of the "
    "training. Keep copies, or make new tensors in every update.",
)
def one_object_for_all_snapshots(
    X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None
):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    return _snapshots(X, y, layers, [len(rates)], lam, batch_size, rates, generator, on_step) * cycles


@mistake(
    "train_snapshots",
    caught_by=("last_is_the_end_of_training", "each_is_the_end_of_its_cycle", "every_example_once_an_epoch"),
    says="The snapshots are taken at the peak of the learning rate. The network has settled where it is "
    "lowest, at the end of each cycle.",
)
def snapshots_at_the_peak(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    at = [(2 * c + 1) * n_s for c in range(cycles)]
    return _snapshots(X, y, layers, at, lam, batch_size, rates, generator, on_step)


@mistake(
    "train_snapshots",
    caught_by=("last_is_the_end_of_training", "each_is_the_end_of_its_cycle", "every_example_once_an_epoch"),
    says="A snapshot is taken one update too early: after 2 n_s updates of its cycle, not before the last of them.",
)
def snapshots_one_update_early(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    at = [2 * (c + 1) * n_s - 1 for c in range(cycles)]
    return _snapshots(X, y, layers, at, lam, batch_size, rates, generator, on_step)


@mistake(
    "train_snapshots",
    caught_by="same_state_same_result",
    says="The order comes from a generator of the function's own with a fixed seed. It comes from `generator`.",
)
def snapshots_from_an_own_seed(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates, own = _rates(n_s, cycles, lr_min, lr_max), torch.Generator().manual_seed(0)
    at = [2 * (c + 1) * n_s for c in range(cycles)]
    return _snapshots(X, y, layers, at, lam, batch_size, rates, own, on_step)


@mistake(
    "train_snapshots",
    caught_by="every_example_once_an_epoch",
    says="The examples are shuffled once and meet in the same batches in every epoch. Draw a new order for each.",
)
def snapshots_of_one_order(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    order, rates, found = torch.randperm(len(X), generator=generator), _rates(n_s, cycles, lr_min, lr_max), []
    batches = order.split(batch_size)
    for t, lr in enumerate(rates):
        batch, before = batches[t % len(batches)], layers
        layers = _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
        if (t + 1) % (2 * n_s) == 0:
            found.append(layers)
    return found


@mistake(
    "train_snapshots",
    caught_by="on_step_is_told",
    says="The cost that `on_step` is told lacks the regulariser λ Σ W².",
)
def snapshots_told_the_loss(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates, found = _rates(n_s, cycles, lr_min, lr_max), []
    for t, (batch, lr) in enumerate(zip(_orders(len(X), batch_size, generator), rates, strict=False)):
        before, layers = layers, _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, 0.0)))
        if (t + 1) % (2 * n_s) == 0:
            found.append(layers)
        if t + 1 == len(rates):
            return found
    return found


@mistake(
    "train_snapshots",
    caught_by=("last_is_the_end_of_training", "each_is_the_end_of_its_cycle"),
    says="Every cycle starts from the initial layers again; it goes on from where the one before ended.",
)
def every_cycle_from_the_start(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates, found = _rates(n_s, 1, lr_min, lr_max), []
    for c in range(cycles):
        later = on_step and (lambda t, lr, cost, c=c: on_step(t + 2 * n_s * c, lr, cost))
        found += _snapshots(X, y, layers, [2 * n_s], lam, batch_size, rates, generator, later)
    return found


@mistake(
    "train_snapshots",
    caught_by=("one_for_every_cycle", "each_is_the_end_of_its_cycle"),
    says="The initial layers are in the list too: there is one entry for each cycle, taken at its end.",
)
def initial_layers_too(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    at = [2 * (c + 1) * n_s for c in range(cycles)]
    return [layers, *_snapshots(X, y, layers, at, lam, batch_size, rates, generator, on_step)]


@mistake(
    "train_snapshots",
    caught_by="on_step_is_told",
    says="t starts at 0 again in every cycle; it counts the updates of the whole training.",
)
def t_anew_in_every_cycle(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    again = on_step and (lambda t, lr, cost: on_step(t % (2 * n_s), lr, cost))
    rates = _rates(n_s, cycles, lr_min, lr_max)
    at = [2 * (c + 1) * n_s for c in range(cycles)]
    return _snapshots(X, y, layers, at, lam, batch_size, rates, generator, again)


@mistake(
    "train_snapshots",
    caught_by="last_is_the_end_of_training",
    says="λ does not reach the gradients.",
)
def snapshots_without_lambda(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    at = [2 * (c + 1) * n_s for c in range(cycles)]
    return _snapshots(X, y, layers, at, 0.0, batch_size, rates, generator, on_step)


@mistake(
    "train_snapshots",
    caught_by="leaves_arguments_alone",
    says="The updates change the caller's layers in place (`-=`). Start from copies, or make new tensors.",
)
def callers_layers_updated(X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None):
    rates = _rates(n_s, cycles, lr_min, lr_max)
    at = [2 * (c + 1) * n_s for c in range(cycles)]
    found = _snapshots(X, y, layers, at, lam, batch_size, rates, generator, on_step)
    for layer, last in zip(layers, found[-1], strict=True):
        for key in layer:
            layer[key].copy_(last[key])
    return found


@mistake(
    "train_snapshots",
    caught_by="same_state_same_result",
    says="The order does not come from `generator` but from PyTorch's global state, so a run cannot be repeated.",
)
def snapshots_from_the_global_state(
    X, y, layers, *, lam, batch_size, n_s, cycles, lr_min, lr_max, generator, on_step=None
):
    chance, found = torch.Generator().manual_seed(int(torch.randint(2**31, ()))), []
    batches, rates = _orders(len(X), batch_size, chance), _rates(n_s, cycles, lr_min, lr_max)
    for t, (batch, lr) in enumerate(zip(batches, rates, strict=False)):
        before, layers = layers, _moved(layers, _gradients(X[batch], y[batch], layers, lam), lr)
        if on_step is not None:
            on_step(t, lr, float(_cost(X[batch], y[batch], before, lam)))
        found += [layers] if (t + 1) % (2 * n_s) == 0 else []
    return found


def _smoothed(scores, y, true, others):
    """Mean cross-entropy against a target with `true` on the true class and `others` on every other one."""
    target = torch.full_like(scores, others)
    target[range(len(y)), y] = true
    return -(target * torch.log_softmax(scores, 1)).sum(1).mean()


@mistake(
    "label_smoothing_cross_entropy",
    caught_by=("smoothed_target", "all_classes_alike"),
    says="ε is shared by the K − 1 wrong classes only. Every class gets ε / K, the true one too: 1 − ε + ε / K.",
)
def shared_by_the_wrong_classes(scores, y, epsilon):
    return _smoothed(scores, y, 1 - epsilon, epsilon / (scores.shape[1] - 1))


@mistake(
    "label_smoothing_cross_entropy",
    caught_by=("smoothed_target", "all_classes_alike"),
    says="The true class has 1 − ε only; every class gets ε / K, the true one too, so that the target adds up to one.",
)
def true_class_without_its_share(scores, y, epsilon):
    return _smoothed(scores, y, 1 - epsilon, epsilon / scores.shape[1])


@mistake(
    "label_smoothing_cross_entropy",
    caught_by=("smoothed_target", "all_classes_alike"),
    says="Every class gets the whole ε instead of ε / K.",
)
def epsilon_not_divided(scores, y, epsilon):
    return _smoothed(scores, y, 1 - epsilon + epsilon, epsilon)


@mistake(
    "label_smoothing_cross_entropy",
    caught_by=("smoothed_target", "without_smoothing", "all_classes_alike"),
    says="The roles of ε and 1 − ε are swapped: the one-hot target has the weight 1 − ε.",
)
def epsilon_swapped(scores, y, epsilon):
    share = (1 - epsilon) / scores.shape[1]
    return _smoothed(scores, y, epsilon + share, share)


@mistake(
    "label_smoothing_cross_entropy",
    caught_by=("smoothed_target", "all_classes_alike"),
    says="ε is not used: this is the usual cross-entropy.",
)
def epsilon_not_used(scores, y, epsilon):
    return F.cross_entropy(scores, y)


@mistake(
    "label_smoothing_cross_entropy",
    caught_by="mean_over_examples",
    says="The losses are summed; take their mean over the examples.",
)
def smoothed_losses_summed(scores, y, epsilon):
    K = scores.shape[1]
    return len(y) * _smoothed(scores, y, 1 - epsilon + epsilon / K, epsilon / K)


@mistake(
    "label_smoothing_cross_entropy",
    caught_by=("large_scores_do_not_overflow", "far_scores"),
    says="The logarithm of a softmax is −∞ where a score lies far behind, and with smoothing every class counts. Use "
    "`log_softmax`.",
)
def log_of_a_softmax(scores, y, epsilon):
    target = (1 - epsilon) * F.one_hot(y, scores.shape[1]) + epsilon / scores.shape[1]
    return -(target * torch.log(torch.softmax(scores, 1))).sum(1).mean()


@mistake(
    "label_smoothing_cross_entropy",
    caught_by=("smoothed_target", "all_classes_alike"),
    says="The mean is taken over the classes too: the loss of an example is a sum over its classes.",
)
def mean_over_classes_too(scores, y, epsilon):
    log_p = torch.log_softmax(scores, 1)
    of_the_class = log_p[range(len(y)), y].mean()
    return -(1 - epsilon) * of_the_class - epsilon * log_p.mean() / scores.shape[1]


@mistake(
    "label_smoothing_cross_entropy",
    caught_by="one_example_is_a_set",
    says="`squeeze` also removes the axis of a batch of one; name the axis, or index without it.",
)
def squeezed(scores, y, epsilon):
    log_p = torch.log_softmax(scores, 1)
    of_the_class = log_p.gather(1, y[:, None]).squeeze()
    return -((1 - epsilon) * of_the_class + epsilon * log_p.squeeze().mean(1)).mean()


@mistake(
    "label_smoothing_cross_entropy",
    caught_by="leaves_arguments_alone",
    says="The largest score is subtracted in place, in the caller's own scores; work on a new tensor.",
)
def scores_shifted_in_place(scores, y, epsilon):
    scores -= scores.max(1, keepdim=True).values
    K = scores.shape[1]
    return _smoothed(scores, y, 1 - epsilon + epsilon / K, epsilon / K)


@mistake(
    "label_smoothing_cross_entropy",
    caught_by="large_scores_do_not_overflow",
    says="The largest of all scores is subtracted before the exponential, so every exponential of a row that lies far "
    "below it is 0. Subtract from each row its own largest score.",
)
def smoothed_loss_shifted_by_the_largest_of_all(scores, y, epsilon):
    scores = scores - scores.max()
    log_p = scores - scores.exp().sum(1, keepdim=True).log()
    return -((1 - epsilon) * log_p[torch.arange(len(y)), y] + epsilon * log_p.mean(1)).mean()


@mistake(
    "early_stopping",
    caught_by=(
        "stops_after_patience_epochs",
        "goes_on_before_that",
        "never_stops",
        "equal_is_no_improvement",
        "patience_of_one",
        "any_numbers",
        "keeps_form",
        "leaves_arguments_alone",
        "takes_any_layout",
    ),
    says="The best cost is returned; asked for is its index.",
)
def cost_for_index(costs, patience):
    return costs[_stopping(costs, patience)]


def _stopping(costs, patience, better=lambda cost, best: cost < best, slack=0):
    best = 0
    for epoch, cost in enumerate(costs):
        if better(cost, costs[best]):
            best = epoch
        elif epoch - best >= patience + slack:
            break
    return best


@mistake(
    "early_stopping",
    caught_by=("stops_after_patience_epochs", "equal_is_no_improvement", "patience_of_one", "any_numbers"),
    says="Training goes on for too long: it stops as soon as `patience` epochs in a row are not below the best, and "
    "what comes after that does not count.",
)
def best_of_all(costs, patience):
    return min(range(len(costs)), key=lambda epoch: costs[epoch])


@mistake(
    "early_stopping",
    caught_by=("stops_after_patience_epochs", "equal_is_no_improvement", "patience_of_one", "any_numbers"),
    says="Training goes on for too long: it stops as soon as `patience` epochs in a row are not below the best, and "
    "what comes after that does not count.",
)
def one_epoch_too_patient(costs, patience):
    return _stopping(costs, patience, slack=1)


@mistake(
    "early_stopping",
    caught_by=("goes_on_before_that", "patience_of_one", "any_numbers"),
    says="Training stops one epoch too early: `patience` epochs in a row without a new best are allowed to pass.",
)
def one_epoch_too_impatient(costs, patience):
    return _stopping(costs, patience, slack=-1)


@mistake(
    "early_stopping",
    caught_by=("goes_on_before_that",),
    says="All epochs without a new best are counted, not those in a row: a new best starts the count anew.",
)
def count_never_reset(costs, patience):
    best, bad = 0, 0
    for epoch, cost in enumerate(costs):
        if cost < costs[best]:
            best = epoch
        elif epoch:
            bad += 1
        if bad >= patience:
            break
    return best


@mistake(
    "early_stopping",
    caught_by="equal_is_no_improvement",
    says="A cost equal to the best counts as a new best; it has to be strictly below.",
)
def equal_counts_as_better(costs, patience):
    return _stopping(costs, patience, better=lambda cost, best: cost <= best)


@mistake(
    "early_stopping",
    caught_by="stops_after_patience_epochs",
    says="Each cost is compared with the one before it; compare it with the best so far.",
)
def compared_with_the_epoch_before(costs, patience):
    best = bad = 0
    for epoch in range(1, len(costs)):
        best = epoch if costs[epoch] < costs[best] else best
        bad = 0 if costs[epoch] < costs[epoch - 1] else bad + 1
        if bad >= patience:
            break
    return best


@mistake(
    "early_stopping",
    caught_by=(
        "stops_after_patience_epochs",
        "never_stops",
        "equal_is_no_improvement",
        "patience_of_one",
        "any_numbers",
        "goes_on_before_that",
        "keeps_form",
        "leaves_arguments_alone",
        "takes_any_layout",
    ),
    says="The epoch at which training stops is returned; asked for is the best one before it.",
)
def epoch_of_the_stop(costs, patience):
    best = 0
    for epoch, cost in enumerate(costs):
        if cost < costs[best]:
            best = epoch
        elif epoch - best >= patience:
            return epoch
    return len(costs) - 1


@mistake(
    "early_stopping",
    caught_by="any_numbers",
    says="A cost counts as a new best only if it is a part in a thousand below the old one. Any cost that is strictly "
    "below it does.",
)
def improvement_of_a_thousandth(costs, patience):
    return _stopping(costs, patience, better=lambda cost, best: cost < best - 1e-3 * abs(best))
