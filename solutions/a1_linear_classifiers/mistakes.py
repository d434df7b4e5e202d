"""Wrong solutions of Assignment 1 that students really write.

Each is complete in itself.  `caught_by` lists every criterion of the exercise that it fails; `says` is what the
student is told where the same results come back.
"""

from __future__ import annotations

import torch

from course_utils.checking import mistake

# --- Standardising ---------------------------------------------------------------------------------------------------


@mistake(
    "standardizer",
    caught_by="mean_of_every_feature",
    says="One mean over all numbers is used for every feature. Each feature has a mean of its own: `X.mean(0)`, (d,).",
)
def one_mean_for_all_features(X):
    std = X.std(0, correction=0)
    return X.mean().expand(X.shape[1]), torch.where((X[0] == X).all(0), torch.ones_like(std), std)


@mistake(
    "standardizer",
    caught_by="population_std",
    says="This is the sample standard deviation, whose squares are divided by N − 1 (the default of torch.std). The "
    "population's is asked for, divided by N: `correction=0`.",
)
def sample_std(X):
    std = X.std(0)
    return X.mean(0), torch.where((X[0] == X).all(0), torch.ones_like(std), std)


@mistake(
    "standardizer",
    caught_by="population_std",
    says="This is the sample standard deviation, divided by N − 1, which for a single example is 0 / 0 = NaN. The "
    "population's is asked for, divided by N.",
)
def sample_std_nan_for_one(X):
    std = X.std(0)
    std[std == 0] = 1
    return X.mean(0), std


@mistake(
    "standardizer",
    caught_by=("population_std", "small_spread_is_kept"),
    says="This is the variance; the standard deviation is its square root.",
)
def variance_for_std(X):
    std = X.var(0, correction=0)
    return X.mean(0), torch.where((X[0] == X).all(0), torch.ones_like(std), std)


@mistake(
    "standardizer",
    caught_by="constant_features_get_one",
    says="A feature whose entries are all equal keeps std 0, and standardising divides by it. Give such features 1.",
)
def constant_features_keep_zero(X):
    return X.mean(0), X.std(0, correction=0)


@mistake(
    "standardizer",
    caught_by=("constant_features_get_one", "small_spread_is_kept"),
    says="A small number is added to every std. It makes a constant feature's std tiny instead of 1, and it "
    "swamps the spread of features that have little.",
)
def epsilon_added_to_std(X):
    return X.mean(0), X.std(0, correction=0) + 1e-8


@mistake(
    "standardizer",
    caught_by="small_spread_is_kept",
    says="A feature with little spread is taken for a constant one. Its own std is asked for, however small: "
    "look at whether the entries are equal, not at the size of the std.",
)
def little_spread_taken_for_none(X):
    std = X.std(0, correction=0)
    return X.mean(0), torch.where(std < 1e-8, torch.ones_like(std), std)


@mistake(
    "standardizer",
    caught_by="small_spread_is_kept",
    says="A feature whose spread is small beside its mean is taken for a constant one. Look at whether the entries are "
    "equal, not at the size of the std.",
)
def spread_small_beside_the_mean_taken_for_none(X):
    mean, std = X.mean(0), X.std(0, correction=0)
    return mean, torch.where(std <= 1e-12 * mean.abs(), torch.ones_like(std), std)


@mistake(
    "standardizer",
    caught_by="constant_features_get_one",
    says="The test `std == 0` misses constant features: the mean of N equal numbers is rounded, so their std comes "
    "out as something like 1e-17. Compare the entries themselves: `(X == X[0]).all(0)`.",
)
def rounded_zero_missed(X):
    mean = X.sum(0) / len(X)
    std = (((X - mean) ** 2).sum(0) / len(X)).sqrt()
    std[std == 0] = 1
    return mean, std


@mistake(
    "standardizer",
    caught_by="small_spread_is_kept",
    says="The mean of the squares less the square of the mean cancels where the spread is small beside the mean. "
    "Subtract the mean first, then square.",
)
def squares_cancel(X):
    mean = X.mean(0)
    std = ((X**2).mean(0) - mean**2).clamp(min=0).sqrt()
    return mean, torch.where((X[0] == X).all(0), torch.ones_like(std), std)


@mistake(
    "standardizer",
    caught_by=("small_spread_is_kept", "keeps_precision"),
    says="The std is computed from a float32 copy of X, which drops more than half of the digits.",
)
def std_in_float32(X):
    std = X.to(torch.float32).std(0, correction=0)
    return X.mean(0), torch.where((X[0] == X).all(0), torch.ones_like(std), std).to(X.dtype)


@mistake(
    "standardizer",
    caught_by="leaves_arguments_alone",
    says="Features without spread are set to 0 in the caller's X. Work on a `.clone()`, or leave X as it is.",
)
def constant_features_cleared(X):
    mean, std, constant = X.mean(0), X.std(0, correction=0), (X[0] == X).all(0)
    X[:, constant] = 0.0
    return mean, torch.where(constant, torch.ones_like(std), std)


@mistake(
    "standardize",
    caught_by="given_statistics",
    says="The set is standardised by its own statistics. Use the mean and std that are given: validation and test "
    "examples must be treated exactly as the training examples were.",
)
def own_statistics_for_every_set(X, mean, std):
    return (X - X.mean(0)) / X.std(0, correction=0)


@mistake(
    "standardize",
    caught_by="small_std_is_used_as_it_is",
    says="A small number is added to the std before dividing. `standardizer` has seen to constant features already; "
    "a feature with little spread is now scaled too little.",
)
def epsilon_in_the_divisor(X, mean, std):
    return (X - mean) / (std + 1e-8)


@mistake(
    "standardize",
    caught_by=("given_statistics", "small_std_is_used_as_it_is"),
    says="The difference is the wrong way round: it is X − mean, not mean − X.",
)
def difference_turned_round(X, mean, std):
    return (mean - X) / std


@mistake(
    "standardize",
    caught_by="leaves_arguments_alone",
    says="X itself is changed by `-=` and `/=`: the caller's data are standardised behind its back.",
)
def standardized_in_place(X, mean, std):
    X -= mean
    X /= std
    return X


# --- Binary SVM ------------------------------------------------------------------------------------------------------


@mistake(
    "standardize",
    caught_by="given_statistics",
    says="Features with std 1 are taken for constant ones and left as they are, so their mean stays.",
)
def features_of_std_one_skipped(X, mean, std):
    return torch.where(std == 1, X, (X - mean) / std)


@mistake(
    "standardize",
    caught_by="keeps_form",
    says="`squeeze()` drops the axis of a single example, or of a single feature.",
)
def standardised_and_squeezed(X, mean, std):
    return ((X - mean) / std).squeeze()


@mistake(
    "standardize",
    caught_by="small_std_is_used_as_it_is",
    says="A small number is added to std. Only features with std 0 would need it, and `standardizer` gives them 1.",
)
def hundred_thousandth_added_to_std(X, mean, std):
    return (X - mean) / (std + 1e-5)


@mistake(
    "binary_svm_cost",
    caught_by="hinge_loss",
    says="The labels are treated as 0 and 1 and mapped to −1 and +1, but they are −1 and +1 already: −1 becomes −3.",
)
def svm_labels_mapped_again(w, b, X, y, lam):
    return (1 - (2 * y - 1) * (X @ w + b)).clamp(min=0).mean() + lam * (w**2).sum()


@mistake(
    "binary_svm_cost",
    caught_by="mean_over_examples",
    says="The hinge losses are summed; the cost has their mean.",
)
def svm_loss_summed(w, b, X, y, lam):
    return (1 - y * (X @ w + b)).clamp(min=0).sum() + lam * (w**2).sum()


@mistake(
    "binary_svm_cost",
    caught_by="hinge_loss",
    says="The margin is missing: the hinge is max(0, 1 − y·s), not max(0, −y·s).",
)
def svm_without_margin(w, b, X, y, lam):
    return (-y * (X @ w + b)).clamp(min=0).mean() + lam * (w**2).sum()


@mistake(
    "binary_svm_cost",
    caught_by=("hinge_loss", "kept_margins_cost_nothing"),
    says="1 − y·s is not cut off at 0, so examples beyond the margin lower the cost.",
)
def svm_not_cut_off(w, b, X, y, lam):
    return (1 - y * (X @ w + b)).mean() + lam * (w**2).sum()


@mistake(
    "binary_svm_cost",
    caught_by="regulariser",
    says="The regulariser is λ‖w‖ here; λ‖w‖², the sum of the squares, is asked for.",
)
def svm_norm_not_squared(w, b, X, y, lam):
    return (1 - y * (X @ w + b)).clamp(min=0).mean() + lam * (w**2).sum().sqrt()


@mistake(
    "binary_svm_cost",
    caught_by="regulariser",
    says="The regulariser has a factor ½; this course writes λ‖w‖².",
)
def svm_regulariser_halved(w, b, X, y, lam):
    return (1 - y * (X @ w + b)).clamp(min=0).mean() + lam / 2 * (w**2).sum()


@mistake(
    "binary_svm_cost",
    caught_by="bias_is_not_regularised",
    says="b is regularised too. Only w is: b merely shifts the boundary.",
)
def svm_bias_regularised(w, b, X, y, lam):
    return (1 - y * (X @ w + b)).clamp(min=0).mean() + lam * ((w**2).sum() + b**2)


@mistake(
    "binary_svm_cost",
    caught_by="keeps_form",
    says="`.item()` makes a Python float; the cost is to be a 0-d tensor.",
)
def svm_cost_as_float(w, b, X, y, lam):
    return ((1 - y * (X @ w + b)).clamp(min=0).mean() + lam * (w**2).sum()).item()


@mistake(
    "binary_svm_gradients",
    caught_by="gradient_of_w",
    says="The labels are treated as 0 and 1, so negative examples contribute nothing. They are −1 and +1.",
)
def svm_gradients_labels_zero_and_one(w, b, X, y, lam):
    t = (y > 0).to(X.dtype)
    g = -t * (t * (X @ w + b) < 1) / len(y)
    return X.T @ g + 2 * lam * w, g.sum()


@mistake(
    "binary_svm_gradients",
    caught_by="mean_over_examples",
    says="The gradients are not divided by N, though the cost is a mean.",
)
def svm_gradients_summed(w, b, X, y, lam):
    g = -y * (y * (X @ w + b) < 1)
    return X.T @ g + 2 * lam * w, g.sum()


@mistake(
    "binary_svm_gradients",
    caught_by="gradient_of_w",
    says="Only misclassified examples contribute; those inside the margin, y·s < 1, do too.",
)
def svm_gradients_without_margin(w, b, X, y, lam):
    g = -y * (y * (X @ w + b) < 0) / len(y)
    return X.T @ g + 2 * lam * w, g.sum()


@mistake(
    "binary_svm_gradients",
    caught_by="gradient_of_w",
    says="Every example contributes; those beyond the margin, y·s > 1, have gradient 0.",
)
def svm_gradients_of_all(w, b, X, y, lam):
    g = -y / len(y)
    return X.T @ g + 2 * lam * w, g.sum()


@mistake(
    "binary_svm_gradients",
    caught_by="gradient_of_w",
    says="The sign of the hinge's gradient is flipped: where 1 − y·s > 0 its derivative by s is −y.",
)
def svm_gradients_sign_flipped(w, b, X, y, lam):
    g = y * (y * (X @ w + b) < 1) / len(y)
    return X.T @ g + 2 * lam * w, g.sum()


@mistake(
    "binary_svm_gradients",
    caught_by="regulariser",
    says="The derivative of λ‖w‖² is 2λw, not λw.",
)
def svm_gradients_regulariser_halved(w, b, X, y, lam):
    g = -y * (y * (X @ w + b) < 1) / len(y)
    return X.T @ g + lam * w, g.sum()


@mistake(
    "binary_svm_gradients",
    caught_by="bias_is_not_regularised",
    says="b's gradient has 2λb in it, but b is not regularised.",
)
def svm_gradients_bias_regularised(w, b, X, y, lam):
    g = -y * (y * (X @ w + b) < 1) / len(y)
    return X.T @ g + 2 * lam * w, g.sum() + 2 * lam * b


@mistake(
    "binary_svm_gradients",
    caught_by="gradient_of_b",
    says="The gradient of b has the wrong sign: as for w, its terms are −y.",
)
def svm_bias_upwards(w, b, X, y, lam):
    g = -y * (y * (X @ w + b) < 1) / len(y)
    return X.T @ g + 2 * lam * w, -g.sum()


@mistake(
    "binary_svm_gradients",
    caught_by="one_subgradient_at_the_kink",
    says="w's gradient counts an example exactly at the margin and b's does not (`<` in one, `<=` in the other): "
    "that is no subgradient of the cost.",
)
def svm_gradients_two_subgradients(w, b, X, y, lam):
    margin = y * (X @ w + b)
    grad_w = -(X * (y * (margin <= 1))[:, None]).mean(0)
    return grad_w + 2 * lam * w, -(y * (margin < 1)).mean()


# --- Scores, softmax, cross-entropy ----------------------------------------------------------------------------------


@mistake("linear_scores", caught_by="bias_is_added", says="b is not added to the scores.")
def scores_without_bias(X, W, b):
    return X @ W


@mistake(
    "linear_scores",
    caught_by="bias_is_added",
    says="b is subtracted from the scores; it is to be added.",
)
def bias_subtracted(X, W, b):
    return X @ W - b


@mistake(
    "linear_scores",
    caught_by=("keeps_form", "smallest_sizes"),
    says="`+=` adds b, but `squeeze()` drops the axis of a single example, a single feature or a single class.",
)
def scores_squeezed(X, W, b):
    return X.squeeze() @ W.squeeze() + b


@mistake(
    "softmax",
    caught_by="no_overflow",
    says="exp overflows for scores around 1000. Subtract the row's maximum first: the probabilities stay the same.",
)
def softmax_overflows(scores):
    e = torch.exp(scores)
    return e / e.sum(1, keepdim=True)


@mistake(
    "softmax",
    caught_by="rows_far_apart",
    says="The maximum of all scores is subtracted. In a row far below it every exponential becomes 0, and 0 / 0 is "
    "NaN. Each row needs its own maximum: `scores.amax(1, keepdim=True)`.",
)
def softmax_global_maximum(scores):
    e = torch.exp(scores - scores.max())
    return e / e.sum(1, keepdim=True)


@mistake(
    "softmax",
    caught_by="follows_the_exponentials",
    says="The probabilities sum to one over the examples (axis 0). Every example's own probabilities are to sum to "
    "one: axis 1.",
)
def softmax_over_examples(scores):
    e = torch.exp(scores - scores.amax(0, keepdim=True))
    return e / e.sum(0, keepdim=True)


@mistake(
    "softmax",
    caught_by="rows_sum_to_one",
    says="The exponentials are divided by the sum over the whole matrix. Each row is divided by its own sum.",
)
def softmax_over_everything(scores):
    e = torch.exp(scores - scores.amax(1, keepdim=True))
    return e / e.sum()


@mistake(
    "softmax",
    caught_by="no_overflow",
    says="The scores are cut off before exp. That prevents the overflow but makes all large scores equal; subtract "
    "the row's maximum instead.",
)
def softmax_clamped(scores):
    e = torch.exp(scores.clamp(-700, 700))
    return e / e.sum(1, keepdim=True)


@mistake(
    "softmax",
    caught_by=("no_overflow", "two_classes"),
    says="The row's mean is subtracted. A score far above the mean still overflows; subtract the row's maximum.",
)
def softmax_mean_subtracted(scores):
    e = torch.exp(scores - scores.mean(1, keepdim=True))
    return e / e.sum(1, keepdim=True)


@mistake(
    "softmax",
    caught_by="leaves_arguments_alone",
    says="`scores -= …` changes the caller's scores. Write `scores = scores - …`, which makes a new tensor.",
)
def softmax_in_place(scores):
    scores -= scores.amax(1, keepdim=True)
    e = torch.exp(scores)
    return e / e.sum(1, keepdim=True)


@mistake(
    "cross_entropy",
    caught_by="no_logarithm_of_zero",
    says="Where the probability of the true class underflows to 0, its logarithm is −∞. Take the logarithm before "
    "it does: log p = s_y − log Σ exp(s), from the scores.",
)
def logarithm_of_zero(scores, y):
    e = torch.exp(scores - scores.amax(1, keepdim=True))
    p = e / e.sum(1, keepdim=True)
    return -torch.log(p[torch.arange(len(y)), y]).mean()


@mistake(
    "cross_entropy",
    caught_by="no_logarithm_of_zero",
    says="A small number is added to p before the logarithm. That hides the infinity but caps the loss of one "
    "example at about 28; take log p from the scores instead.",
)
def epsilon_in_the_logarithm(scores, y):
    e = torch.exp(scores - scores.amax(1, keepdim=True))
    p = e / e.sum(1, keepdim=True)
    return -torch.log(p[torch.arange(len(y)), y] + 1e-12).mean()


@mistake(
    "cross_entropy",
    caught_by="large_scores_do_not_overflow",
    says="exp overflows for scores around 1000. Subtract the row's maximum before, and add it after the logarithm.",
)
def logsumexp_overflows(scores, y):
    return (torch.log(torch.exp(scores).sum(1)) - scores[torch.arange(len(y)), y]).mean()


@mistake(
    "cross_entropy",
    caught_by="rows_far_apart",
    says="The maximum of all scores is subtracted. In a row far below it every exponential becomes 0, and log 0 is "
    "−∞. Each row needs its own maximum.",
)
def logsumexp_global_maximum(scores, y):
    shifted = scores - scores.max()
    return (torch.log(torch.exp(shifted).sum(1)) - shifted[torch.arange(len(y)), y]).mean()


@mistake(
    "cross_entropy",
    caught_by="mean_over_examples",
    says="The losses are summed over the examples; their mean is asked for.",
)
def cross_entropy_summed(scores, y):
    shifted = scores - scores.amax(1, keepdim=True)
    return (torch.log(torch.exp(shifted).sum(1)) - shifted[torch.arange(len(y)), y]).sum()


@mistake(
    "cross_entropy",
    caught_by="mean_over_examples",
    says="The loss is divided by N twice: `mean` has done it already.",
)
def cross_entropy_divided_twice(scores, y):
    shifted = scores - scores.amax(1, keepdim=True)
    return (torch.log(torch.exp(shifted).sum(1)) - shifted[torch.arange(len(y)), y]).mean() / len(y)


@mistake(
    "cross_entropy",
    caught_by="minus_log_probability",
    says="The mean is taken over examples and classes (N·K numbers, most of them 0); the loss is a mean over the "
    "N examples.",
)
def cross_entropy_mean_over_classes(scores, y):
    shifted = scores - scores.amax(1, keepdim=True)
    log_p = shifted - torch.log(torch.exp(shifted).sum(1, keepdim=True))
    return -(torch.eye(scores.shape[1], dtype=scores.dtype)[y] * log_p).mean()


@mistake(
    "cross_entropy",
    caught_by="minus_log_probability",
    says="This is the logarithm to base 2; the natural one is asked for.",
)
def logarithm_to_base_two(scores, y):
    shifted = scores - scores.amax(1, keepdim=True)
    return (torch.log(torch.exp(shifted).sum(1)) - shifted[torch.arange(len(y)), y]).mean() / 0.6931471805599453


@mistake(
    "cross_entropy",
    caught_by="one_example_is_a_set",
    says="The number of classes is read from y, which need not contain every class. Read it from the scores: "
    "`scores.shape[1]`.",
)
def classes_counted_in_labels(scores, y):
    shifted = scores - scores.amax(1, keepdim=True)
    log_p = shifted - torch.log(torch.exp(shifted).sum(1, keepdim=True))
    return -(torch.eye(int(y.max()) + 1, dtype=scores.dtype)[y] * log_p).sum(1).mean()


@mistake(
    "cross_entropy",
    caught_by="keeps_form",
    says="The result is a float32 tensor whatever the scores are. New tensors are to get the scores' dtype.",
)
def cross_entropy_in_float32(scores, y):
    shifted = scores - scores.amax(1, keepdim=True)
    losses = torch.zeros(len(y))
    for i in range(len(y)):
        losses[i] = torch.log(torch.exp(shifted[i]).sum()) - shifted[i, y[i]]
    return losses.mean()


# --- The classifier: cost, accuracy, gradients -----------------------------------------------------------------------


def _log_probabilities(X, W, b):
    scores = X @ W + b
    shifted = scores - scores.amax(1, keepdim=True)
    return shifted - torch.log(torch.exp(shifted).sum(1, keepdim=True))


def _losses(X, y, W, b):
    return -_log_probabilities(X, W, b)[torch.arange(len(y)), y]


@mistake(
    "cost",
    caught_by="mean_over_examples",
    says="The losses are summed over the examples; the cost has their mean.",
)
def cost_summed(X, y, W, b, lam):
    return _losses(X, y, W, b).sum() + lam * (W**2).sum()


@mistake(
    "cost",
    caught_by="regulariser",
    says="The regulariser is divided by N. Only the loss is a mean over examples; λ ΣW² stays as it is.",
)
def cost_lambda_divided(X, y, W, b, lam):
    return (_losses(X, y, W, b).sum() + lam * (W**2).sum()) / len(y)


@mistake(
    "cost",
    caught_by="regulariser",
    says="The regulariser is missing: add λ ΣW².",
)
def cost_without_regulariser(X, y, W, b, lam):
    return _losses(X, y, W, b).mean()


@mistake(
    "cost",
    caught_by="regulariser",
    says="The regulariser has a factor ½; this course writes λ ΣW², whose gradient is 2λW.",
)
def cost_regulariser_halved(X, y, W, b, lam):
    return _losses(X, y, W, b).mean() + lam / 2 * (W**2).sum()


@mistake(
    "cost",
    caught_by="regulariser",
    says="The regulariser is λ‖W‖ here; λ ΣW², without the square root, is asked for.",
)
def cost_norm_not_squared(X, y, W, b, lam):
    return _losses(X, y, W, b).mean() + lam * (W**2).sum().sqrt()


@mistake(
    "cost",
    caught_by="regulariser",
    says="The regulariser has the mean of the squares of W; their sum is asked for.",
)
def cost_mean_of_squares(X, y, W, b, lam):
    return _losses(X, y, W, b).mean() + lam * (W**2).mean()


@mistake(
    "cost",
    caught_by="bias_is_not_regularised",
    says="b is regularised too. Only W is.",
)
def cost_bias_regularised(X, y, W, b, lam):
    return _losses(X, y, W, b).mean() + lam * ((W**2).sum() + (b**2).sum())


@mistake(
    "cost",
    caught_by="finite_for_large_scores",
    says="The cost takes the logarithm of probabilities, which are 0 for scores far below the largest. Use the "
    "cross-entropy that you wrote from the scores.",
)
def cost_logarithm_of_zero(X, y, W, b, lam):
    e = torch.exp(X @ W + b - (X @ W + b).amax(1, keepdim=True))
    p = e / e.sum(1, keepdim=True)
    return -torch.log(p[torch.arange(len(y)), y]).mean() + lam * (W**2).sum()


@mistake(
    "accuracy",
    caught_by=("share_of_correct_predictions", "all_right_and_none_right"),
    says="The class with the smallest score is predicted (argmin); it is the one with the largest.",
)
def smallest_score_predicted(X, y, W, b):
    return ((X @ W + b).argmin(1) == y).double().mean().item()


@mistake(
    "accuracy",
    caught_by=("share_of_correct_predictions", "all_right_and_none_right"),
    says="The number of correct predictions is divided by the number of classes instead of the number of examples.",
)
def divided_by_classes(X, y, W, b):
    return ((X @ W + b).argmax(1) == y).sum().item() / W.shape[1]


@mistake(
    "accuracy",
    caught_by=("share_of_correct_predictions", "all_right_and_none_right"),
    says="The accuracy is in per cent; a number between 0 and 1 is asked for.",
)
def accuracy_in_per_cent(X, y, W, b):
    return 100 * ((X @ W + b).argmax(1) == y).double().mean().item()


@mistake(
    "accuracy",
    caught_by=("share_of_correct_predictions", "all_right_and_none_right"),
    says="This is the share of wrong predictions.",
)
def error_rate(X, y, W, b):
    return ((X @ W + b).argmax(1) != y).double().mean().item()


@mistake("accuracy", caught_by="bias_takes_part", says="b is left out of the scores.")
def accuracy_without_bias(X, y, W, b):
    return ((X @ W).argmax(1) == y).double().mean().item()


@mistake("accuracy", caught_by="keeps_form", says="A tensor is returned; `.item()` makes it a Python float.")
def accuracy_as_tensor(X, y, W, b):
    return ((X @ W + b).argmax(1) == y).to(X.dtype).mean()


def _probabilities_minus_targets(X, y, W, b):
    G = torch.exp(_log_probabilities(X, W, b))
    G[torch.arange(len(y)), y] -= 1
    return G


@mistake(
    "accuracy",
    caught_by="all_right_and_none_right",
    says="The scores' exponentials are compared. Large ones overflow to the same infinity; the scores will do.",
)
def largest_exponential(X, y, W, b):
    return (torch.exp(X @ W + b).argmax(1) == y).double().mean().item()


@mistake(
    "cross_entropy_gradients",
    caught_by="mean_over_examples",
    says="The gradients are not divided by N, though the cost is a mean over the examples.",
)
def gradients_not_divided(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="mean_over_examples",
    says="The gradients are divided by N twice.",
)
def gradients_divided_twice(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b) / len(y)
    return X.T @ G / len(y) + 2 * lam * W, G.mean(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="regulariser",
    says="The derivative of λ ΣW² is 2λW, not λW.",
)
def gradients_regulariser_halved(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b) / len(y)
    return X.T @ G + lam * W, G.sum(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="regulariser",
    says="λ is divided by N together with the loss. Only the loss is a mean; the regulariser adds 2λW.",
)
def gradients_lambda_divided(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b)
    return (X.T @ G + 2 * lam * W) / len(y), G.mean(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="bias_is_not_regularised",
    says="b's gradient has 2λb in it, but b is not regularised.",
)
def gradients_bias_regularised(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b) / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0) + 2 * lam * b


@mistake(
    "cross_entropy_gradients",
    caught_by="regulariser",
    says="The regulariser is in the cost but not in the gradient: add 2λW.",
)
def gradients_without_regulariser(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b) / len(y)
    return X.T @ G, G.sum(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="gradient_of_W",
    says="The sign of the data term is flipped: the derivative by the scores is P − Y, not Y − P.",
)
def gradients_sign_flipped(X, y, W, b, lam):
    G = -_probabilities_minus_targets(X, y, W, b) / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="mean_over_examples",
    says="b's gradient is the mean of rows that have been divided by N already; it is their sum.",
)
def gradient_of_b_averaged(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b) / len(y)
    return X.T @ G + 2 * lam * W, G.mean(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="gradient_of_W",
    says="The derivative by the scores is P − Y: the one-hot targets are not subtracted here.",
)
def gradients_without_targets(X, y, W, b, lam):
    G = torch.exp(_log_probabilities(X, W, b)) / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="large_scores_do_not_overflow",
    says="exp overflows for scores around 1000, and inf / inf is NaN. Subtract the row's maximum before exp.",
)
def gradients_overflow(X, y, W, b, lam):
    e = torch.exp(X @ W + b)
    G = e / e.sum(1, keepdim=True)
    G[torch.arange(len(y)), y] -= 1
    G = G / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="one_example_is_a_set",
    says="The number of classes is read from y, which need not contain every class. Read it from W or b.",
)
def gradients_classes_counted_in_labels(X, y, W, b, lam):
    G = torch.exp(_log_probabilities(X, W, b)) - torch.eye(int(y.max()) + 1, dtype=X.dtype)[y]
    G = G / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="gradient_of_b",
    says="The gradient of b lacks the labels: it is the sum of P − Y over the examples, as for W.",
)
def bias_gradient_without_targets(X, y, W, b, lam):
    e = torch.exp(X @ W + b - (X @ W + b).amax(1, keepdim=True))
    P = e / e.sum(1, keepdim=True)
    Y = torch.eye(len(b), dtype=X.dtype)[y]
    return X.T @ (P - Y) / len(y) + 2 * lam * W, P.mean(0)


@mistake(
    "cross_entropy_gradients",
    caught_by="regulariser",
    says="λ is used twice: 2λW is added to the gradient that has it already.",
)
def gradients_regulariser_twice(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b) / len(y)
    return X.T @ G + 4 * lam * W, G.sum(0)


# --- Multi-class hinge loss ------------------------------------------------------------------------------------------


def _violations(scores, y, margin=1.0):
    n = torch.arange(len(y))
    violations = (scores - scores[n, y][:, None] + margin).clamp(min=0)
    violations[n, y] = 0
    return violations


@mistake(
    "multiclass_hinge",
    caught_by="kept_margins_cost_nothing",
    says="The true class is counted: s_y − s_y + 1 = 1 adds 1 to every loss (10 instead of 9 for equal scores of ten "
    "classes). Leave it out.",
)
def true_class_counted(scores, y):
    return (scores - scores[torch.arange(len(y)), y][:, None] + 1).clamp(min=0).sum(1).mean()


@mistake("multiclass_hinge", caught_by="violated_margins", says="The margin is missing: max(0, s_k − s_y + 1).")
def hinge_without_margin(scores, y):
    return _violations(scores, y, 0.0).sum(1).mean()


@mistake(
    "multiclass_hinge",
    caught_by="mean_over_examples",
    says="The losses are summed over the examples; their mean is asked for.",
)
def hinge_summed(scores, y):
    return _violations(scores, y).sum()


@mistake(
    "multiclass_hinge",
    caught_by="violated_margins",
    says="The mean is taken over the classes too; an example's loss is the sum over its wrong classes.",
)
def hinge_mean_over_classes(scores, y):
    return _violations(scores, y).mean()


@mistake(
    "multiclass_hinge",
    caught_by="violated_margins",
    says="Only the worst class counts here (the loss of Crammer and Singer). The loss of Weston and Watkins, which "
    "is asked for, adds up all wrong classes.",
)
def hinge_of_worst_class(scores, y):
    return _violations(scores, y).amax(1).mean()


@mistake(
    "multiclass_hinge",
    caught_by="violated_margins",
    says="The violations are squared; the loss is linear in them.",
)
def hinge_squared(scores, y):
    return (_violations(scores, y) ** 2).sum(1).mean()


@mistake(
    "multiclass_hinge",
    caught_by=("violated_margins", "kept_margins_cost_nothing"),
    says="The difference is the wrong way round: a wrong class adds max(0, s_k − s_y + 1).",
)
def hinge_turned_round(scores, y):
    return _violations(-scores, y).sum(1).mean()


def _hinge_gradient_of_scores(X, y, W, b, margin=1.0):
    n = torch.arange(len(y))
    scores = X @ W + b
    G = (scores - scores[n, y][:, None] + margin > 0).to(X.dtype)
    G[n, y] = 0
    G[n, y] = -G.sum(1)
    return G


@mistake(
    "multiclass_hinge",
    caught_by="violated_margins",
    says="The true class is left out by its violation of 1. A wrong class with the same score has 1 too, and counts.",
)
def violations_of_one_left_out(scores, y):
    violations = torch.clamp(scores - scores[torch.arange(len(y)), y][:, None] + 1, min=0)
    violations[violations == 1] = 0
    return violations.sum(1).mean()


@mistake(
    "multiclass_hinge_gradients",
    caught_by="column_of_the_true_class",
    says="The true class gets −1 for an example, whatever the number of violated margins; it gets −1 for each.",
)
def true_class_pushed_once(X, y, W, b, lam):
    G = _hinge_gradient_of_scores(X, y, W, b)
    n = torch.arange(len(y))
    G[n, y] = -(G[n, y] < 0).to(X.dtype)
    G = G / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "multiclass_hinge_gradients",
    caught_by=("column_of_the_true_class", "one_subgradient_at_the_kink"),
    says="The true class is counted among the violated margins (its own is s_y − s_y + 1 = 1 > 0).",
)
def true_class_among_the_violations(X, y, W, b, lam):
    G = _hinge_gradient_of_scores(X, y, W, b)
    G[torch.arange(len(y)), y] -= 1
    G = G / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "multiclass_hinge_gradients",
    caught_by=("column_of_the_true_class", "one_subgradient_at_the_kink"),
    says="The gradient of the true class's column is missing: it gets −1 for every violated margin.",
)
def true_class_not_pushed(X, y, W, b, lam):
    G = _hinge_gradient_of_scores(X, y, W, b).clamp(min=0) / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "multiclass_hinge_gradients",
    caught_by=("columns_of_wrong_classes", "column_of_the_true_class"),
    says="Only classes that score higher than the true one count; those within the margin, s_k > s_y − 1, do too.",
)
def hinge_gradients_without_margin(X, y, W, b, lam):
    G = _hinge_gradient_of_scores(X, y, W, b, 0.0) / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "multiclass_hinge_gradients",
    caught_by="mean_over_examples",
    says="The gradients are not divided by N, though the loss is a mean over the examples.",
)
def hinge_gradients_not_divided(X, y, W, b, lam):
    G = _hinge_gradient_of_scores(X, y, W, b)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "multiclass_hinge_gradients",
    caught_by="regulariser",
    says="The derivative of λ ΣW² is 2λW, not λW.",
)
def hinge_gradients_regulariser_halved(X, y, W, b, lam):
    G = _hinge_gradient_of_scores(X, y, W, b) / len(y)
    return X.T @ G + lam * W, G.sum(0)


@mistake(
    "multiclass_hinge_gradients",
    caught_by="bias_is_not_regularised",
    says="b's gradient has 2λb in it, but b is not regularised.",
)
def hinge_gradients_bias_regularised(X, y, W, b, lam):
    G = _hinge_gradient_of_scores(X, y, W, b) / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0) + 2 * lam * b


@mistake(
    "multiclass_hinge_gradients",
    caught_by="mean_over_examples",
    says="b's gradient is the mean of rows that have been divided by N already; it is their sum.",
)
def hinge_gradient_of_b_averaged(X, y, W, b, lam):
    G = _hinge_gradient_of_scores(X, y, W, b) / len(y)
    return X.T @ G + 2 * lam * W, G.mean(0)


@mistake(
    "multiclass_hinge_gradients",
    caught_by=("gradient_of_b", "one_subgradient_at_the_kink"),
    says="The gradient of b counts the violations and lets the true class be: it has minus their number, as in W.",
)
def hinge_bias_of_wrong_classes_only(X, y, W, b, lam):
    n, scores = torch.arange(len(y)), X @ W + b
    G = (scores - scores[n, y][:, None] + 1 > 0).to(X.dtype)
    G[n, y] = 0
    wrong = G.mean(0)
    G[n, y] = -G.sum(1)
    return X.T @ G / len(y) + 2 * lam * W, wrong


@mistake(
    "multiclass_hinge_gradients",
    caught_by=("columns_of_wrong_classes", "column_of_the_true_class"),
    says="The size of the violation is used as the gradient; the derivative of max(0, m) is 1 where m > 0.",
)
def violations_for_their_derivative(X, y, W, b, lam):
    G = _violations(X @ W + b, y)
    G[torch.arange(len(y)), y] = -G.sum(1)
    G = G / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


# --- Mini-batch gradient descent -------------------------------------------------------------------------------------


@mistake(
    "multiclass_hinge_gradients",
    caught_by="columns_of_wrong_classes",
    says="The true class is left out by its score. A wrong class with the same score, as before training, counts.",
)
def equal_scores_left_out(X, y, W, b, lam):
    n = torch.arange(len(y))
    scores = X @ W + b
    own = scores[n, y][:, None]
    G = ((scores - own + 1 > 0) & (scores != own)).to(scores.dtype)
    G[n, y] = -G.sum(1)
    G /= len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "minibatch_gd",
    caught_by="examples_keep_their_labels",
    says="X and y are shuffled by different permutations, so examples get the labels of others. Use one permutation "
    "for both.",
)
def labels_shuffled_apart(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        other = torch.randperm(len(X), generator=generator)
        for start in range(0, len(X), batch_size):
            xs, ys = order[start : start + batch_size], other[start : start + batch_size]
            grad_W, grad_b = gradients(X[xs], y[ys], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="examples_keep_their_labels",
    says="X is shuffled but y is not, so examples get the labels of others. Use one permutation for both.",
)
def labels_not_shuffled(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for start in range(0, len(X), batch_size):
            end = start + batch_size
            grad_W, grad_b = gradients(X[order[start:end]], y[start:end], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="last_batch_is_what_is_left",
    says="The last, smaller batch is dropped: `N // batch_size` rounds down.",
)
def last_batch_dropped(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for j in range(len(X) // batch_size):
            batch = order[j * batch_size : (j + 1) * batch_size]
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="last_batch_is_what_is_left",
    says="The last batch is filled up with examples that this epoch has used already.",
)
def last_batch_filled_up(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for start in range(0, len(X), batch_size):
            batch = order[(torch.arange(start, start + batch_size)) % len(X)]
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="leaves_arguments_alone",
    says="`W -= …` changes the caller's W and b, so the next training run does not start from the initial ones. "
    "Start with `W.clone()`, or write `W = W - …`.",
)
def parameters_changed_in_place(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W -= lr * grad_W
            b -= lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="new_order_every_epoch",
    says="The examples are never shuffled; every epoch takes a new random order.",
)
def never_shuffled(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        for start in range(0, len(X), batch_size):
            grad_W, grad_b = gradients(X[start : start + batch_size], y[start : start + batch_size], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="new_order_every_epoch",
    says="The examples are shuffled once, before the first epoch; every epoch takes a new random order.",
)
def shuffled_once(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    order = torch.randperm(len(X), generator=generator)
    for _ in range(epochs):
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="new_order_every_epoch",
    says="The batches are shuffled, but each holds the same examples in every epoch. Shuffle the examples.",
)
def batches_shuffled(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    *batches, last = torch.arange(len(X)).split(batch_size)
    for _ in range(epochs):
        for j in [*torch.randperm(len(batches), generator=generator).tolist(), -1]:
            batch = last if j < 0 else batches[j]
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="same_state_same_result",
    says="The order does not come from `generator` but from PyTorch's global state, so a run cannot be repeated.",
)
def global_random_state(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X))
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="generator_decides",
    says="A generator with a fixed seed is made inside, so every run has the same order, whatever `generator` is.",
)
def seeded_inside(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    own = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=own)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="every_example_once_an_epoch",
    says="Every batch is drawn anew from all examples, so an epoch meets some twice and others never.",
)
def drawn_with_replacement(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        for start in range(0, len(X), batch_size):
            size = min(batch_size, len(X) - start)
            batch = torch.randint(len(X), (size,), generator=generator)
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd", caught_by="lambda_is_handed_on", says="`gradients` is called with λ = 0 instead of the λ given."
)
def lambda_lost(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, 0.0)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="lambda_is_handed_on",
    says="`gradients` is called with λ by name. All five arguments go by position, since its parameters may have "
    "other names.",
)
def lambda_by_name(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam=lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by=("step_of_W", "step_of_b"),
    says="The step is divided by the batch size, but the gradients are those of a mean already.",
)
def step_divided_by_batch_size(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W / batch_size, b - lr * grad_b / batch_size
    return W, b


@mistake(
    "minibatch_gd", caught_by=("step_of_W", "step_of_b"), says="The step goes uphill: subtract lr times the gradient."
)
def uphill(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W + lr * grad_W, b + lr * grad_b
    return W, b


@mistake("minibatch_gd", caught_by="step_of_b", says="Only W takes the step; b stays as it was.")
def b_never_updated(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, _ = gradients(X[batch], y[batch], W, b, lam)
            W = W - lr * grad_W
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="steps_build_on_each_other",
    says="The gradients of all batches of an epoch are taken at the epoch's first parameters. Each step starts from "
    "where the one before ended.",
)
def parameters_of_the_epochs_start(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        start_W, start_b = W, b
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], start_W, start_b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="steps_build_on_each_other",
    says="Every step starts from the initial parameters, so only the last one has an effect.",
)
def every_step_from_the_start(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    new_W, new_b = W, b
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            new_W, new_b = W - lr * grad_W, b - lr * grad_b
    return new_W, new_b


@mistake(
    "minibatch_gd",
    caught_by="one_gradient_a_batch",
    says="`gradients` is called twice a batch, and the second call has the new b: W and b take their steps from "
    "different places. Call it once and use both results.",
)
def gradients_called_twice(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            b = b - lr * gradients(X[batch], y[batch], W, b, lam)[1]
            W = W - lr * gradients(X[batch], y[batch], W, b, lam)[0]
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="batches_have_the_given_size",
    says="`gradients` is called with all examples for every step instead of those of the batch.",
)
def whole_set_for_every_step(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=generator)
        for _batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[order], y[order], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="number_of_epochs",
    says="There is one epoch more than asked for.",
)
def one_epoch_too_many(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs + 1):
        order = torch.randperm(len(X), generator=generator)
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


# --- Bonus: binary cross-entropy -------------------------------------------------------------------------------------


def _bce_terms(scores, y):
    sign = torch.ones_like(scores)
    sign[torch.arange(len(y)), y] = -1
    s = sign * scores
    return s.clamp(min=0) + torch.log1p(torch.exp(-s.abs()))


@mistake(
    "minibatch_gd",
    caught_by="generator_decides",
    says="The generator is copied before it is drawn from, so it never moves on, and every further call has the same "
    "order. Draw from `generator` itself.",
)
def copied_generator(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    own = torch.Generator()
    own.set_state(generator.get_state())
    for _ in range(epochs):
        for batch in torch.randperm(len(X), generator=own).split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="steps_build_on_each_other",
    says="The step of a short batch is made shorter. Its gradient is a mean already, so every step has the same lr.",
)
def shorter_step_of_the_short_batch(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        for batch in torch.randperm(len(X), generator=generator).split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            step = lr * len(batch) / min(batch_size, len(X))
            W, b = W - step * grad_W, b - step * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="number_of_epochs",
    says="There is one epoch too few: `range(1, epochs)` has epochs − 1 numbers.",
)
def one_epoch_too_few(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(1, epochs):
        for batch in torch.randperm(len(X), generator=generator).split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "minibatch_gd",
    caught_by="batches_of_one",
    says="`squeeze()` takes the axis of the examples away too where the training set has a single one; name the axis "
    "that is to go: `squeeze(1)`.",
)
def order_of_one_squeezed(X, y, W, b, gradients, *, lam, lr, batch_size, epochs, generator):
    for _ in range(epochs):
        order = torch.rand(len(X), 1, generator=generator).argsort(0).squeeze()
        for batch in order.split(batch_size):
            grad_W, grad_b = gradients(X[batch], y[batch], W, b, lam)
            W, b = W - lr * grad_W, b - lr * grad_b
    return W, b


@mistake(
    "binary_cross_entropy",
    caught_by="mean_over_classes",
    says="The losses of an example's classes are summed; the mean over the K classes is asked for.",
)
def bce_not_divided_by_classes(scores, y):
    return _bce_terms(scores, y).sum(1).mean()


@mistake(
    "binary_cross_entropy",
    caught_by="mean_over_examples",
    says="The losses are summed over the examples; their mean is asked for.",
)
def bce_summed_over_examples(scores, y):
    return _bce_terms(scores, y).mean(1).sum()


@mistake(
    "binary_cross_entropy",
    caught_by="right_for_large_scores",
    says="For large scores the sigmoid is exactly 0 or 1, and the logarithm of 0 is −∞. Write log σ(s) from the score: "
    "−log(1 + exp(−s)), in the form whose exponential cannot overflow.",
)
def bce_logarithm_of_zero(scores, y):
    p = 1 / (1 + torch.exp(-scores))
    p_of_truth = torch.where(torch.eye(scores.shape[1])[y] > 0, p, 1 - p)
    return -torch.log(p_of_truth).mean()


@mistake(
    "binary_cross_entropy",
    caught_by="right_for_large_scores",
    says="exp(−s) overflows at s = −1000, so log(1 + exp(−s)) is infinite. Use |s|: "
    "log(1 + e^s) = max(s, 0) + log(1 + e^−|s|).",
)
def bce_overflows(scores, y):
    sign = torch.ones_like(scores)
    sign[torch.arange(len(y)), y] = -1
    return torch.log1p(torch.exp(sign * scores)).mean()


@mistake(
    "binary_cross_entropy",
    caught_by="both_outcomes_count",
    says="Only the true class adds to the loss; each of the other classes adds −log(1 − p).",
)
def bce_of_true_class_only(scores, y):
    return _bce_terms(scores, y)[torch.arange(len(y)), y].mean() / scores.shape[1]


@mistake(
    "binary_cross_entropy_gradients",
    caught_by="mean_over_classes",
    says="The gradients are not divided by K, though the loss is a mean over the classes too.",
)
def bce_gradients_not_divided_by_classes(X, y, W, b, lam):
    G = 1 / (1 + torch.exp(-(X @ W + b)))
    G[torch.arange(len(y)), y] -= 1
    G = G / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "binary_cross_entropy_gradients",
    caught_by="mean_over_examples",
    says="The gradients are not divided by N, though the loss is a mean over the examples.",
)
def bce_gradients_not_divided_by_examples(X, y, W, b, lam):
    G = 1 / (1 + torch.exp(-(X @ W + b)))
    G[torch.arange(len(y)), y] -= 1
    G = G / len(b)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "binary_cross_entropy_gradients",
    caught_by="large_scores_do_not_overflow",
    says="In e^s / (1 + e^s) the exponential overflows at s = 1000, and inf / inf is NaN. Use 1 / (1 + e^−s), or the "
    "form with |s|.",
)
def bce_gradients_overflow(X, y, W, b, lam):
    e = torch.exp(X @ W + b)
    G = e / (1 + e)
    G[torch.arange(len(y)), y] -= 1
    G = G / G.numel()
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "binary_cross_entropy_gradients",
    caught_by="gradient_of_W",
    says="The probabilities are those of softmax; binary cross-entropy takes the sigmoid of every score by itself.",
)
def bce_gradients_of_softmax(X, y, W, b, lam):
    G = _probabilities_minus_targets(X, y, W, b) / W.shape[1] / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "binary_cross_entropy_gradients",
    caught_by="gradient_of_W",
    says="The sign of the data term is flipped: the derivative by the scores is σ(s) − Y.",
)
def bce_gradients_sign_flipped(X, y, W, b, lam):
    G = -1 / (1 + torch.exp(-(X @ W + b)))
    G[torch.arange(len(y)), y] += 1
    G = G / G.numel()
    return X.T @ G + 2 * lam * W, G.sum(0)


@mistake(
    "binary_cross_entropy_gradients",
    caught_by="regulariser",
    says="The derivative of λ ΣW² is 2λW, not λW.",
)
def bce_gradients_regulariser_halved(X, y, W, b, lam):
    G = 1 / (1 + torch.exp(-(X @ W + b)))
    G[torch.arange(len(y)), y] -= 1
    G = G / G.numel()
    return X.T @ G + lam * W, G.sum(0)


@mistake(
    "binary_cross_entropy_gradients",
    caught_by="regulariser",
    says="The regulariser is divided by N·K together with the loss; it adds 2λW as it is.",
)
def bce_gradients_lambda_divided(X, y, W, b, lam):
    G = 1 / (1 + torch.exp(-(X @ W + b)))
    G[torch.arange(len(y)), y] -= 1
    return (X.T @ G + 2 * lam * W) / G.numel(), G.sum(0) / G.numel()


# --- Bonus: random flips ---------------------------------------------------------------------------------------------


@mistake(
    "random_horizontal_flip",
    caught_by="mirrors_left_and_right",
    says="The rows are reversed (axis 2), which turns images upside down. Left and right are the last axis.",
)
def flipped_upside_down(images, p, generator):
    flip = torch.rand(len(images), generator=generator) < p
    return torch.where(flip[:, None, None, None], images.flip(2), images)


@mistake(
    "random_horizontal_flip",
    caught_by="mirrors_left_and_right",
    says="`reshape(-1, 32, 32, 3)` does not move the channels to the end: it cuts the memory up differently and "
    "scrambles the image. The axes are (N, C, H, W); reverse the last one.",
)
def channels_reshaped_to_the_end(images, p, generator):
    flip = torch.rand(len(images), generator=generator) < p
    n, c, h, w = images.shape
    flipped = images.reshape(n, h, w, c).flip(2).reshape(n, c, h, w)
    return torch.where(flip[:, None, None, None], flipped, images)


@mistake(
    "random_horizontal_flip",
    caught_by="mirrors_left_and_right",
    says="The channels are reversed as well, so red and blue change places.",
)
def channels_flipped_too(images, p, generator):
    flip = torch.rand(len(images), generator=generator) < p
    return torch.where(flip[:, None, None, None], images.flip(1, 3), images)


@mistake(
    "random_horizontal_flip",
    caught_by="p_is_the_probability",
    says="p is the probability of keeping an image here; it is to be that of flipping it.",
)
def p_for_keeping(images, p, generator):
    flip = torch.rand(len(images), generator=generator) >= p
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


@mistake(
    "random_horizontal_flip",
    caught_by="each_image_has_its_own_draw",
    says="One draw decides for the whole batch; each image needs its own.",
)
def one_draw_for_the_batch(images, p, generator):
    return images.flip(-1) if torch.rand((), generator=generator) < p else images.clone()


@mistake(
    "random_horizontal_flip",
    caught_by="generator_decides",
    says="A generator with a fixed seed is made inside, so the same images are flipped in every call.",
)
def flips_seeded_inside(images, p, generator):
    flip = torch.rand(len(images), generator=torch.Generator().manual_seed(0)) < p
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


@mistake(
    "random_horizontal_flip",
    caught_by="number_of_flips_varies",
    says="Exactly p·N images are flipped. Each image is to have its own draw, so that their number varies.",
)
def exact_number_flipped(images, p, generator):
    flip = torch.zeros(len(images), dtype=torch.bool)
    flip[torch.randperm(len(images), generator=generator)[: round(p * len(images))]] = True
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


@mistake(
    "random_horizontal_flip",
    caught_by="leaves_arguments_alone",
    says="The images are flipped in the caller's tensor. Work on a `.clone()`.",
)
def flipped_in_place(images, p, generator):
    flip = torch.rand(len(images), generator=generator) < p
    images[flip] = images[flip].flip(-1)
    return images


@mistake(
    "random_horizontal_flip",
    caught_by=("keeps_form", "keeps_any_dtype"),
    says="The result is float32, whatever the images' dtype: the new tensor is made without it.",
)
def flips_to_float32(images, p, generator):
    flip = torch.rand(len(images), generator=generator) < p
    result = torch.zeros(images.shape)
    result[flip], result[~flip] = images[flip].flip(-1).float(), images[~flip].float()
    return result


@mistake(
    "random_horizontal_flip",
    caught_by="p_is_the_probability",
    says="p is not used: every image is flipped with probability ½.",
)
def p_not_used(images, p, generator):
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


@mistake(
    "random_horizontal_flip",
    caught_by="same_state_same_result",
    says="The draws do not come from `generator` but from PyTorch's global state, so a run cannot be repeated.",
)
def flips_from_the_global_state(images, p, generator):
    flip = torch.rand(len(images)) < p
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


@mistake(
    "random_horizontal_flip",
    caught_by="generator_decides",
    says="The generator is copied before it is drawn from, so it never moves on and every call flips the same images.",
)
def flips_from_a_copied_generator(images, p, generator):
    own = torch.Generator()
    own.set_state(generator.get_state())
    flip = torch.rand(len(images), generator=own) < p
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


@mistake(
    "random_horizontal_flip",
    caught_by="number_of_flips_varies",
    says="Two neighbours share a draw, so both are flipped or neither is; each image needs its own.",
)
def neighbours_share_a_draw(images, p, generator):
    flip = torch.rand((len(images) + 1) // 2, generator=generator).repeat_interleave(2)[: len(images)] < p
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


@mistake(
    "random_horizontal_flip",
    caught_by="p_is_the_probability",
    says="p is rounded down to tenths.",
)
def p_in_tenths(images, p, generator):
    flip = torch.rand(len(images), generator=generator) < int(10 * p) / 10
    return torch.where(flip[:, None, None, None], images.flip(-1), images)
