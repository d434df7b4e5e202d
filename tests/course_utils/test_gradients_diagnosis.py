"""Each known cause is named where it is planted, and none is where nothing fits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from course_utils.gradients import Cause, check_gradients

N, D, K, LAM = 12, 9, 5, 0.05


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, W, b = draw(N, D, seed=1), draw(D, K, seed=2), draw(K, seed=3)
y = torch.arange(N) % K


def classify(W: Tensor, b: Tensor) -> Tensor:
    return F.cross_entropy(X @ W + b, y)


def cost(W: Tensor, b: Tensor) -> Tensor:
    lam = LAM
    return classify(W, b) + lam * (W**2).sum()


DATA_W, DATA_b = torch.func.grad(classify, argnums=(0, 1))(W, b)
NAMED = {"N": N, "K": K}


def cause(gradient: Tensor, **options: object) -> Cause | None:
    """Why the gradient of W is wrong, in the cost without a regulariser."""
    report = check_gradients(lambda W: classify(W, b), {"W": W}, {"W": gradient}, **{"sizes": NAMED, **options})
    assert report["W"].verdict == "fail"
    return report["W"].cause


def cause_with_regulariser(W_gradient: Tensor, b_gradient: Tensor = DATA_b, **options: object) -> dict[str, Cause]:
    report = check_gradients(cost, (W, b), (W_gradient, b_gradient), **{"sizes": NAMED, "lam": LAM, **options})
    assert not report.passed
    return report.causes


class TestConstantRatio:
    def test_sign(self):
        assert cause(-DATA_W).kind == "sign"

    @pytest.mark.parametrize(
        ("factor", "words"),
        [
            (2, "2 times the numerical one: a factor 2 too many"),
            (0.5, "1/2 times the numerical one: the factor 2 of a differentiated square is missing"),
            (N, "N = 12 times the numerical one: the mean over N is missing"),
            (1 / N, "1/N = 0.08333 times the numerical one: divided by N once too often"),
            (K, "K = 5 times the numerical one: the mean over K is missing"),
            (1 / K, "1/K = 0.2 times"),
            (-N, "−N = 12 times the numerical one: the mean over N is missing, divide by N once; the sign is wrong"),
            (N * K, "N·K = 60 times"),
            (2 * N, "2N = 24 times"),
            (N**-2, "1/N² = 0.006944 times"),
            ((N - 1) / N, "(N−1)/N = 0.9167 times"),
            (1.37, "1.37 times the numerical one: a constant factor is wrong"),
        ],
    )
    @pytest.mark.parametrize("samples", [None, 20])
    def test_factor(self, factor: float, words: str, samples: int | None):
        found = cause(DATA_W * factor, samples=samples)
        assert found.kind == "factor" and words in found.sentence
        assert found.sentence.startswith("every sampled entry" if samples else "every entry")

    def test_time_steps_are_named_too(self):
        assert "T = 25 times" in cause(25 * DATA_W, sizes={"T": 25}).sentence

    def test_sizes_are_read_from_what_f_uses(self):
        assert "N = 12 times" in cause(N * DATA_W, sizes=None).sentence
        assert "1/N = 0.08333 times" in cause(DATA_W / N, sizes=None).sentence
        assert "X.shape[1] = 9 times" in cause(D * DATA_W, sizes=None).sentence

    def test_sizes_of_a_parameter(self):
        V = draw(7, 3, seed=4)
        report = check_gradients(lambda V: (V**2).sum(), {"V": V}, {"V": 2 * V / 7})
        assert "1/V.shape[0] = 0.1429 times" in report["V"].cause.sentence

    def test_two_names_of_one_number(self):
        sentence = cause(5 * DATA_W, sizes={"K": 5, "T": 5}).sentence
        assert "5 times" in sentence and "K = 5 (" in sentence and "T = 5 (" in sentence

    def test_one_number_alone_is_named_only_where_the_factor_has_a_name(self):
        s = torch.tensor(1.3).double()
        assert check_gradients(lambda s: s**2, s, 4 * s).causes["s"].kind == "factor"
        assert not check_gradients(lambda s: s**2, s, 2.6 * s).causes


class TestRegulariser:
    @pytest.mark.parametrize(
        ("times", "words"),
        [
            (0, "the regulariser's 2λW is missing (λ = 0.05)"),
            (1, "λW stands where 2λW is meant (λ = 0.05)"),
            (4, "the regulariser counts twice (4λW)"),
            (-2, "the regulariser has the wrong sign"),
            (2 / N, "λ is divided by N = 12"),
            (2 * N, "λ is multiplied by N = 12"),
        ],
    )
    def test_on_the_weights(self, times: float, words: str):
        found = cause_with_regulariser(DATA_W + times * LAM * W)
        assert set(found) == {"W"} and found["W"].kind == "regulariser" and words in found["W"].sentence

    def test_on_the_bias(self):
        found = cause_with_regulariser(DATA_W + 2 * LAM * W, DATA_b + 2 * LAM * b)
        assert set(found) == {"b"} and "2λb was added though f does not regularise b" in found["b"].sentence

    def test_without_knowing_lambda(self):
        f = lambda W, b: classify(W, b) + LAM * (W**2).sum()  # noqa: E731
        missing = check_gradients(f, (W, b), (DATA_W, DATA_b + 2 * LAM * b)).causes
        assert "λ = 0.05 is missing" in missing["W"].sentence
        assert "b is regularised in the gradient (λ = 0.05) and not in f" in missing["b"].sentence

    def test_lambda_is_read_from_what_f_uses(self):
        lam = LAM
        f = lambda W: classify(W, b) + lam * (W**2).sum()  # noqa: E731
        assert "2λW is missing (λ = 0.05)" in check_gradients(f, {"W": W}, {"W": DATA_W}).causes["W"].sentence

    @pytest.mark.parametrize(
        ("gradient", "words"),
        [
            (N * DATA_W + 2 * LAM * W, ["N = 12 times what it should be", "the regulariser's 2λW is right"]),
            (-DATA_W + 2 * LAM * W, ["of the opposite sign", "2λW is right"]),
            (DATA_W / N + LAM * W, ["1/N = 0.08333 times", "λW stands where 2λW is meant"]),
            (1.7 * DATA_W + 2 * LAM * W, ["1.7 times what it should be", "2λW is right"]),
        ],
    )
    def test_together_with_a_factor(self, gradient: Tensor, words: list[str]):
        found = cause_with_regulariser(gradient)["W"]
        assert found.kind == "factor and regulariser" and all(word in found.sentence for word in words)

    def test_missing_together_with_a_factor(self):
        sentence = cause_with_regulariser(N * DATA_W)["W"].sentence
        assert "N = 12 times what it should be" in sentence and "2λW (λ = 0.05) is missing" in sentence

    def test_a_factor_on_both_is_just_a_factor(self):
        assert cause_with_regulariser(2 * (DATA_W + 2 * LAM * W))["W"].kind == "factor"


class TestOrder:
    square = draw(6, 6, seed=5)

    def of_square(self, gradient: Callable[[Tensor], Tensor], samples: int | None = None) -> Cause | None:
        c = draw(6, 6, seed=6)
        f = lambda V: (c * V**2).sum()  # noqa: E731
        return check_gradients(f, {"V": self.square}, {"V": gradient(2 * c * self.square)}, samples=samples)["V"].cause

    @pytest.mark.parametrize("samples", [None, 15])
    def test_transposed(self, samples: int | None):
        found = self.of_square(lambda g: g.T, samples)
        assert found.kind == "transposed" and "once it is transposed" in found.sentence

    @pytest.mark.parametrize(("axes", "words"), [((0,), "axis 0"), ((1,), "axis 1"), ((0, 1), "axes 0, 1")])
    def test_flipped(self, axes: tuple[int, ...], words: str):
        found = self.of_square(lambda g: g.flip(axes))
        assert found.kind == "flipped" and words in found.sentence

    def test_a_convolution_kernel(self):
        image, G, kernel = draw(2, 2, 8, 7, seed=7), draw(2, 4, 6, 5, seed=8), draw(4, 2, 3, 3, seed=9)
        f = lambda w: (F.conv2d(image, w) * G).sum()  # noqa: E731
        right = torch.func.grad(f)(kernel)
        why = lambda g: check_gradients(f, {"w": kernel}, {"w": g}, samples=40)["w"].cause  # noqa: E731
        assert "reversed along axes 2, 3" in why(right.flip(2, 3)).sentence
        assert why(right.transpose(2, 3)).kind == "transposed"
        patches = right.permute(0, 2, 3, 1).reshape(4, 2, 3, 3)  # height, width, channel read as c, h, w
        assert "reshape where .T or permute is meant" in why(patches).sentence

    def test_reshaped_where_transposed_is_meant(self):
        found = cause(DATA_W.T.reshape(D, K))
        assert found.kind == "transposed" and "reshape" in found.sentence

    def test_two_that_changed_places(self):
        gamma, beta, Z = draw(K, seed=10), draw(K, seed=11), draw(N, K, seed=12)
        f = lambda gamma, beta: ((gamma * Z + beta) ** 3).mean()  # noqa: E731
        dgamma, dbeta = torch.func.grad(f, argnums=(0, 1))(gamma, beta)
        found = check_gradients(f, (gamma, beta), (dbeta, dgamma)).causes
        assert found["gamma"].kind == found["beta"].kind == "swapped"
        assert "what you give for beta is the gradient of gamma" in found["gamma"].sentence


class TestPartsThatAreWrong:
    @pytest.mark.parametrize("samples", [None, 25])
    @pytest.mark.parametrize("zero", [True, False])
    def test_the_last_class(self, samples: int | None, zero: bool):
        wrong = DATA_W.clone()
        wrong[:, -1] = 0.0 if zero else wrong[:, -1] * 3 + 0.1
        found = cause(wrong, samples=samples)
        assert found.kind == "one slice" and "only column 4 is wrong, the last" in found.sentence
        assert ("zero there" in found.sentence) == zero

    def test_the_first_step_of_a_sequence(self):
        S = draw(6, 4, 3, seed=13)
        right = 3 * S**2
        right[0] += 0.5
        found = check_gradients(lambda S: (S**3).sum(), {"S": S}, {"S": right})["S"].cause
        assert "only index 0 of axis 0 is wrong, the first" in found.sentence

    def test_the_last_bias(self):
        wrong = DATA_b.clone()
        wrong[-1] = 0
        found = check_gradients(lambda b: classify(W, b), {"b": b}, {"b": wrong})["b"].cause
        assert "only entry 4 is wrong, the last" in found.sentence

    def test_zero_everywhere(self):
        assert "zero everywhere" in cause(torch.zeros_like(DATA_W)).sentence

    def test_zero_where_the_numerical_one_is_not(self):
        wrong = DATA_W.clone()
        wrong[[0, 3, 5, 6]] = 0.0
        wrong[2, 3] = 0.0
        found = cause(wrong)
        assert found.kind == "zeros" and "`=` where `+=` was needed" in found.sentence

    @pytest.mark.parametrize("samples", [None, 40])
    def test_rows_that_occur_twice_were_assigned(self, samples: int | None):
        table, ids, G = draw(15, 4, seed=22), torch.tensor([0, 3, 5, 3, 9, 9, 14, 0, 7]), draw(9, 4, seed=23)
        f = lambda table: (table[ids] ** 2 * G).sum()  # noqa: E731
        wrong = torch.zeros_like(table)
        wrong[ids] = 2 * table[ids] * G
        found = check_gradients(f, {"table": table}, {"table": wrong}, samples=samples)["table"].cause
        assert found.kind == "some slices" and "only rows 0, 3, 9 are wrong" in found.sentence

    def test_clipped(self):
        found = cause(DATA_W.clamp(-0.03, 0.03))
        assert found.kind == "clipped" and "±0.03" in found.sentence


class TestMissingTerms:
    S, G, gamma = draw(N, 6, seed=14), draw(N, 6, seed=15), draw(6, seed=16) + 2

    def normalise(self, S: Tensor, gamma: Tensor) -> Tensor:
        return gamma * (S - S.mean(0)) / torch.sqrt(S.var(0, unbiased=False) + 1e-5)

    def found(
        self,
        gradient: Callable[[Tensor, Tensor, Tensor], Tensor],
        samples: int | None = 60,
        verdict: str = "fail",
    ) -> Cause | None:
        std = torch.sqrt(self.S.var(0, unbiased=False) + 1e-5)
        Z = (self.S - self.S.mean(0)) / std
        wrong = gradient(self.G * self.gamma, Z, std)
        report = check_gradients(
            self.normalise,
            {"S": self.S, "gamma": self.gamma},
            {"S": wrong, "gamma": (self.G * Z).sum(0)},
            upstream=self.G,
            samples=samples,
        )
        assert report["gamma"].verdict == "pass" and report["S"].verdict == verdict
        return report["S"].cause

    def test_the_right_one_has_none(self):
        assert self.found(lambda g, Z, s: (g - g.mean(0) - Z * (g * Z).mean(0)) / s, verdict="pass") is None

    @pytest.mark.parametrize("samples", [None, 40])
    def test_mean(self, samples: int | None):
        found = self.found(lambda g, Z, s: (g - Z * (g * Z).mean(0)) / s, samples)
        assert found.kind == "mean term" and "mean over axis 0 is missing" in found.sentence

    @pytest.mark.parametrize("samples", [None, 40])
    def test_variance(self, samples: int | None):
        found = self.found(lambda g, Z, s: (g - g.mean(0)) / s, samples)
        assert found.kind == "variance term" and "variance over axis 0" in found.sentence

    def test_gamma_left_out(self):
        found = self.found(lambda g, Z, s: (g - g.mean(0) - Z * (g * Z).mean(0)) / s / self.gamma)
        assert found.kind == "factor per slice" and "1/gamma: gamma was left out" in found.sentence

    def test_gamma_twice(self):
        found = self.found(lambda g, Z, s: (g - g.mean(0) - Z * (g * Z).mean(0)) / s * self.gamma)
        assert "the factor is gamma: it counts twice" in found.sentence

    def test_standard_deviation_left_out(self):
        found = self.found(lambda g, Z, s: g - g.mean(0) - Z * (g * Z).mean(0))
        assert found.kind == "factor per slice" and "standard deviation" in found.sentence

    def test_eps_outside_the_root(self):
        def gradient(g: Tensor, Z: Tensor, s: Tensor) -> Tensor:
            return (g - g.mean(0) - Z * (g * Z).mean(0)) / (self.S.std(0, unbiased=False) + 1e-5)

        assert self.found(gradient).kind == "nearly"

    def test_constant_offset(self):
        found = cause(DATA_W + 0.25)
        assert found.kind == "offset" and "0.25" in found.sentence


class TestPrecision:
    def test_float32_on_the_way(self):
        S, V = draw(30, 200, seed=20), draw(200, 3, seed=21)
        f = lambda V: torch.tanh(S @ V).sum()  # noqa: E731
        single = S.float().T @ (1 - torch.tanh(S.float() @ V.float()) ** 2)
        found = check_gradients(f, {"V": V}, {"V": single.double()})["V"].cause
        assert found.kind == "float32" and "7 digits" in found.sentence

    def test_nearly_right(self):
        found = cause(DATA_W * (1 + 1e-5 * draw(D, K, seed=17)))
        assert found.kind == "nearly"


class TestNothingIsToldWithoutProof:
    def test_one_entry_that_is_nearly_right(self):
        wrong = DATA_W.clone()
        wrong[2, 3] *= 1 + 1e-5
        assert cause(wrong) is None

    def test_noise(self):
        assert cause(DATA_W + 0.1 * draw(D, K, seed=18)) is None

    @pytest.mark.parametrize("samples", [None, 20])
    def test_a_factor_that_holds_for_all_but_one(self, samples: int | None):
        wrong = N * DATA_W
        wrong[0, 0] += 1e-3  # the first entry is always sampled
        assert cause(wrong, samples=samples) is None

    def test_a_regulariser_that_misses_one_entry(self):
        wrong = DATA_W + LAM * W
        wrong[-1, -1] += 1e-3
        assert "W" not in cause_with_regulariser(wrong)

    def test_a_transpose_that_misses_one_entry(self):
        V = draw(6, 6, seed=19)
        wrong = 2 * V.T
        wrong[0, 0] += 1e-3
        assert check_gradients(lambda V: (V**2).sum(), {"V": V}, {"V": wrong})["V"].cause is None

    def test_two_wrong_entries_are_no_pattern(self):
        wrong = DATA_W.clone()
        wrong[1, 2] += 0.5
        wrong[4, 0] -= 0.3
        assert cause(wrong) is None

    def test_the_report_says_so(self):
        wrong = DATA_W + 0.1 * draw(D, K, seed=18)
        report = check_gradients(lambda W: classify(W, b), {"W": W}, {"W": wrong})
        assert "No known cause explains every entry" in repr(report)

    @pytest.mark.parametrize("seed", range(8))
    def test_random_gradients_have_no_cause(self, seed: int):
        assert cause(draw(D, K, seed=100 + seed), samples=[None, 25][seed % 2]) is None
