"""What check_gradients takes, what it refuses, and what it leaves behind."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from course_utils.gradients import GradientCheckError, check_gradients

N, D, K = 7, 6, 4
LAM = 0.1


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, W, b = draw(N, D, seed=1), draw(D, K, seed=2), draw(K, seed=3)
y = torch.tensor([0, 1, 2, 3, 0, 1, 1])


def cost(X: Tensor, y: Tensor, W: Tensor, b: Tensor, lam: float) -> Tensor:
    return F.cross_entropy(X @ W + b, y) + lam * (W**2).sum()


def cross_entropy_gradients(X: Tensor, y: Tensor, W: Tensor, b: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    G = torch.softmax(X @ W + b, 1)
    G[torch.arange(len(y)), y] -= 1
    G = G / len(y)
    return X.T @ G + 2 * lam * W, G.sum(0)


def of(W: Tensor, b: Tensor) -> Tensor:
    return cost(X, y, W, b, LAM)


grad_W, grad_b = cross_entropy_gradients(X, y, W, b, LAM)


class TestWaysToAsk:
    def test_dicts(self):
        report = check_gradients(of, {"W": W, "b": b}, {"W": grad_W, "b": grad_b})
        assert report.passed
        assert [p.name for p in report.parameters] == ["W", "b"]
        assert report.largest_error < 1e-6

    def test_a_dict_is_matched_by_name_not_by_order(self):
        assert check_gradients(of, {"b": b, "W": W}, {"W": grad_W, "b": grad_b}).passed

    def test_a_dict_whose_names_are_not_the_arguments(self):
        report = check_gradients(lambda w1, w2: of(w1, w2), {"W": W, "b": b}, {"W": grad_W, "b": grad_b})
        assert report.passed and report.parameters[0].name == "W"

    def test_a_dict_for_a_function_of_one_dict(self):
        assert check_gradients(lambda p: of(p["W"], p["b"]), {"W": W, "b": b}, {"W": grad_W, "b": grad_b}).passed

    def test_tuples_take_the_names_of_the_arguments(self):
        report = check_gradients(of, (W, b), (grad_W, grad_b))
        assert report.passed and [p.name for p in report.parameters] == ["W", "b"]

    def test_a_tuple_of_gradients_for_a_dict_of_parameters(self):
        assert check_gradients(of, {"W": W, "b": b}, cross_entropy_gradients(X, y, W, b, LAM)).passed

    def test_a_list_for_several_arguments(self):
        assert check_gradients(of, [W, b], [grad_W, grad_b]).passed

    def test_one_tensor(self):
        report = check_gradients(lambda W: of(W, b), W, grad_W)
        assert report.passed and report["W"].shape == (D, K)

    def test_gradients_as_a_function(self):
        grads = lambda W, b: cross_entropy_gradients(X, y, W, b, LAM)  # noqa: E731
        assert check_gradients(of, {"W": W, "b": b}, grads).passed

    def test_gradients_may_use_autograd(self):
        def grads(W: Tensor, b: Tensor) -> tuple[Tensor, ...]:
            W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
            return torch.autograd.grad(of(W, b), (W, b))

        assert check_gradients(of, (W, b), grads).passed

    def test_layers_as_a_list_of_dicts(self):
        layers = [{"W": draw(D, 5, seed=4), "b": draw(5, seed=5)}, {"W": draw(5, K, seed=6), "b": draw(K, seed=7)}]

        def f(layers: list[dict[str, Tensor]]) -> Tensor:
            H = torch.tanh(X @ layers[0]["W"] + layers[0]["b"])
            return F.cross_entropy(H @ layers[1]["W"] + layers[1]["b"], y)

        gradients = torch.func.grad(f)(layers)
        report = check_gradients(f, layers, gradients)
        assert report.passed and report.vectorised
        assert [p.name for p in report.parameters] == [f"layers[{k}].{n}" for k in (0, 1) for n in "Wb"]

        gradients[1]["b"] = -gradients[1]["b"]
        report = check_gradients(f, layers, gradients)
        assert [p.name for p in report.parameters if p.verdict == "fail"] == ["layers[1].b"]

    def test_a_function_without_arguments_reads_the_parameters_themselves(self):
        report = check_gradients(lambda: of(W, b), {"W": W, "b": b}, {"W": grad_W, "b": grad_b})
        assert report.passed and not report.vectorised
        assert not check_gradients(lambda: of(W, b), {"W": W, "b": b}, {"W": -grad_W, "b": grad_b}).passed

    def test_the_parameters_of_a_module(self):
        torch.manual_seed(0)
        module = torch.nn.Linear(D, K).double()
        F.cross_entropy(module(X), y).backward()
        parameters = dict(module.named_parameters())
        gradients = {name: p.grad for name, p in parameters.items()}
        assert check_gradients(lambda: F.cross_entropy(module(X), y), parameters, gradients).passed

    def test_names(self):
        report = check_gradients(lambda *p: of(*p), (W, b), (grad_W, grad_b), names=["weights", "bias"])
        assert report["weights"].verdict == "pass"
        with pytest.raises(KeyError, match="weights, bias"):
            report["W"]
        with pytest.raises(GradientCheckError, match="names has 1 entries and parameters 2 tensors"):
            check_gradients(of, (W, b), (grad_W, grad_b), names=["W"])

    def test_f_may_return_a_float(self):
        report = check_gradients(lambda W, b: float(of(W, b)), (W, b), (grad_W, grad_b))
        assert report.passed and not report.vectorised

    def test_f_may_be_numpy_inside(self):
        report = check_gradients(lambda W: float((W.numpy() ** 3).sum()), W, 3 * W**2)
        assert report.passed

    def test_a_0d_parameter_and_a_float_as_its_gradient(self):
        s = torch.tensor(1.5, dtype=torch.float64)
        report = check_gradients(lambda s: s**3, s, 3 * 1.5**2)
        assert report.passed and report.parameters[0].shape == ()

    def test_non_contiguous_parameters(self):
        V = W.T
        assert check_gradients(lambda V: of(V.T, b), V, grad_W.T).passed
        assert check_gradients(lambda V: of(V.T, b), V, grad_W.T, vectorised=False).passed

    def test_parameters_that_require_grad_keep_a_graph_that_is_still_valid(self):
        V = W.clone().requires_grad_()
        loss = of(V, b)
        assert check_gradients(of, (V, b), (grad_W, grad_b), vectorised=False).passed
        loss.backward()
        assert V.requires_grad and torch.allclose(V.grad, grad_W)


class TestUpstream:
    def scale(self, S: Tensor, gamma: Tensor) -> Tensor:
        Z = (S - S.mean(0)) / torch.sqrt(S.var(0, unbiased=False) + 1e-5)
        return gamma * Z

    def backward(self, G: Tensor, S: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        std = torch.sqrt(S.var(0, unbiased=False) + 1e-5)
        Z = (S - S.mean(0)) / std
        dZ = G * gamma
        return (dZ - dZ.mean(0) - Z * (dZ * Z).mean(0)) / std, (G * Z).sum(0)

    S, gamma = draw(N, 5, seed=8), draw(5, seed=9) + 2

    def test_random(self):
        report = check_gradients(
            self.scale, (self.S, self.gamma), lambda G: self.backward(G, self.S, self.gamma), upstream="random"
        )
        assert report.passed and {p.verdict for p in report.parameters} == {"pass"}

    def test_a_given_one(self):
        G = draw(N, 5, seed=10)
        gradients = self.backward(G, self.S, self.gamma)
        assert check_gradients(self.scale, (self.S, self.gamma), gradients, upstream=G).passed
        assert not check_gradients(self.scale, (self.S, self.gamma), gradients, upstream=G**2).passed

    def test_a_plain_sum_hides_what_a_random_upstream_shows(self):
        def wrong(G: Tensor) -> tuple[Tensor, Tensor]:  # both paths through the statistics are missing ...
            _, dgamma = self.backward(G, self.S, self.gamma)
            return torch.zeros_like(self.S), dgamma  # ... and so is everything else

        hidden = check_gradients(
            lambda S, gamma: self.scale(S, gamma).sum(), (self.S, self.gamma), wrong(torch.ones(N, 5).double())
        )
        assert hidden["S"].verdict != "fail"
        shown = check_gradients(self.scale, (self.S, self.gamma), wrong, upstream="random")
        assert shown["S"].verdict == "fail"

    def test_the_plain_sum_is_told_as_too_small(self):
        report = check_gradients(lambda S: self.scale(S, self.gamma).sum(), self.S, draw(N, 5) * 1e-14)
        assert report["S"].verdict == "too small to judge"
        assert not report.passed and "NOTHING JUDGED" in repr(report) and 'upstream="random"' in repr(report)

    def test_refused(self):
        with pytest.raises(GradientCheckError, match=r"shape \(7, 5\), and a gradient belongs to one number"):
            check_gradients(self.scale, (self.S, self.gamma), (self.S, self.gamma))
        with pytest.raises(GradientCheckError, match=r"float64 tensor of shape \(7, 5\)"):
            check_gradients(self.scale, (self.S, self.gamma), (self.S, self.gamma), upstream=torch.ones(7, 5))
        with pytest.raises(GradientCheckError, match="'ones'"):
            check_gradients(self.scale, (self.S, self.gamma), (self.S, self.gamma), upstream="ones")


class TestFloat32IsRefused:
    def test_parameters(self):
        with pytest.raises(GradientCheckError, match=r"W is a float32 tensor.*float64 only.*W\.double\(\)"):
            check_gradients(lambda W: (W**2).sum(), {"W": W.float()}, {"W": 2 * W.float()})

    def test_what_f_returns(self):
        with pytest.raises(GradientCheckError, match="it returned float32"):
            check_gradients(lambda W: (W**2).sum().float(), W, 2 * W)

    def test_an_operation_inside_f(self):
        X32 = X.float()
        with pytest.raises(GradientCheckError, match=r"inside it, (to|float) gives float32"):
            check_gradients(lambda W: F.cross_entropy((X32 @ W.float()).double(), y), W, W)

    def test_a_last_step_of_f(self):
        with pytest.raises(GradientCheckError, match="not computed in float64"):
            check_gradients(lambda W: of(W, b).float().double(), W, grad_W)

    def test_numpy_inside_f(self):
        with pytest.raises(GradientCheckError, match="every value it returns is a float32 number"):
            check_gradients(lambda W: float((W.numpy().astype(np.float32) ** 2).sum()), W, 2 * W)

    def test_a_float32_mask_does_no_harm(self):
        V = draw(9, seed=11)
        assert check_gradients(lambda V: ((V > 0).float() * V**2).sum(), V, 2 * V * (V > 0)).passed

    def test_whole_numbers_are_not_mistaken_for_float32(self):
        V = torch.arange(1, 500, dtype=torch.float64)
        assert check_gradients(lambda V: (V**2).sum(), V, 2 * V).passed

    def test_data_left_in_float32_gets_a_hint(self):
        with pytest.raises(RuntimeError) as caught:
            check_gradients(lambda W: (X.float() @ W).sum(), W, W)
        assert any("X = X.double()" in note for note in caught.value.__notes__)


class TestCallsThatCannotBeJudged:
    def test_random(self):
        with pytest.raises(GradientCheckError, match="draws random numbers"):
            check_gradients(lambda W: (torch.rand(3) * W[0, 0]).double().sum(), W, W)
        with pytest.raises(GradientCheckError, match="draws random numbers"):
            check_gradients(lambda W: np.random.rand() * W.sum(), W, W)
        with pytest.raises(GradientCheckError, match="draws random numbers"):
            check_gradients(lambda W: random.random() * W.sum(), W, W)

    def test_its_own_generator(self):
        generator = torch.Generator().manual_seed(0)
        noisy = lambda W: (W * torch.rand(W.shape, generator=generator, dtype=W.dtype)).sum()  # noqa: E731
        with pytest.raises(GradientCheckError, match=r"a hidden state or a generator of its own.*state="):
            check_gradients(noisy, W, W)
        before = generator.get_state()
        mask = torch.rand(W.shape, generator=torch.Generator().manual_seed(0), dtype=W.dtype)
        generator.manual_seed(0)
        before = generator.get_state()
        assert check_gradients(noisy, W, mask, state=generator, vectorised=False).passed
        assert torch.equal(generator.get_state(), before)

    def test_a_function_that_seeds_itself_can_be_judged(self):
        def f(W: Tensor) -> Tensor:
            torch.manual_seed(3)
            return (W**2 * (torch.rand(W.shape) > 0.5)).sum()

        torch.manual_seed(3)
        mask = torch.rand(W.shape) > 0.5
        assert check_gradients(f, W, 2 * W * mask).passed
        assert check_gradients(f, W, 2 * W * mask, vectorised=False).passed

    def test_a_function_that_draws_without_using_it(self):
        def f(W: Tensor) -> Tensor:
            torch.rand(1)
            return (W**2).sum()

        assert check_gradients(f, W, 2 * W).passed

    def test_changes_its_argument(self):
        V = W.clone()

        def f(V: Tensor) -> Tensor:
            V *= 2
            return (V**2).sum()

        with pytest.raises(GradientCheckError, match="f changes a parameter"):
            check_gradients(f, V, W)
        assert torch.equal(V, W)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_not_finite(self, bad: float):
        with pytest.raises(GradientCheckError, match=f"f returned {bad}"):
            check_gradients(lambda W: W.sum() * 0 + bad, W, W)

    @pytest.mark.parametrize("vectorised", [None, False])
    def test_not_finite_close_by(self, vectorised: bool | None):
        V = torch.tensor([1.0, 1e-7, 2.0], dtype=torch.float64)
        with pytest.raises(GradientCheckError, match=r"f is nan when V\[1\] changes by -1e-05"):
            check_gradients(lambda V: V.log().sum(), V, 1 / V, vectorised=vectorised)

    def test_returns_no_number(self):
        with pytest.raises(GradientCheckError, match=r"None \(is a return missing\?\)"):
            check_gradients(lambda W: None, W, W)
        with pytest.raises(GradientCheckError, match="a tuple, not a number"):
            check_gradients(lambda W: (W.sum(), 1), W, W)

    def test_cannot_be_called(self):
        with pytest.raises(GradientCheckError, match=r"f\(W, \*, key\) cannot be called with the 2 parameters"):
            check_gradients(lambda W, *, key: W.sum(), (W, b), (W, b))

    def test_is_no_function(self):
        with pytest.raises(GradientCheckError, match="f is a Tensor, not a function"):
            check_gradients(of(W, b), W, grad_W)

    def test_parameters(self):
        with pytest.raises(GradientCheckError, match="at least one float64 tensor"):
            check_gradients(lambda n: n, {"n": 3}, {"n": 1})
        with pytest.raises(GradientCheckError, match=r"expand.*b\.clone\(\)"):
            check_gradients(lambda b: (b**2).sum(), {"b": torch.ones((), dtype=torch.float64).expand(3)}, {"b": b})
        with pytest.raises(GradientCheckError, match=r"1 entry that is not finite, the first \(nan\) at \[1\]"):
            check_gradients(lambda b: (b**2).sum(), {"b": torch.tensor([1.0, float("nan")]).double()}, {"b": b})
        with pytest.raises(GradientCheckError, match="no entries"):
            check_gradients(lambda b: (b**2).sum(), {"b": b[:0]}, {"b": b[:0]})

    @pytest.mark.parametrize("options", [{"h": 0.0}, {"h": -1e-5}, {"tolerance": 0.0}, {"samples": 0}])
    def test_options(self, options: dict):
        with pytest.raises(GradientCheckError, match=next(iter(options))):
            check_gradients(of, (W, b), (grad_W, grad_b), **options)

    def test_an_error_inside_f_comes_through(self):
        with pytest.raises(ZeroDivisionError) as caught:
            check_gradients(lambda W: W.sum() * (1 / 0), W, W)
        assert "before any of them was changed" in caught.value.__notes__[0]


class TestFaultsOfTheGradientsStandInTheReport:
    def sentence(self, gradients: object, name: str = "W", **options: object) -> str:
        report = check_gradients(of, {"W": W, "b": b}, gradients, **options)
        assert not report.passed and report[name].verdict == "fail"
        sentence = report[name].cause.sentence
        assert sentence in " ".join(repr(report).split())  # it is shown, wrapped or not
        return sentence

    def test_missing(self):
        assert self.sentence({"b": grad_b}) == "no gradient is given for W."
        assert self.sentence(None, "b") == "no gradient is given for b."
        assert self.sentence((grad_W,), "W").startswith("no gradient is given")

    def test_the_others_are_still_judged(self):
        assert check_gradients(of, {"W": W, "b": b}, {"b": grad_b})["b"].verdict == "pass"

    def test_none(self):
        assert "is None" in self.sentence({"W": None, "b": grad_b})

    def test_a_name_too_many(self):
        report = check_gradients(of, {"W": W, "b": b}, {"W": grad_W, "b": grad_b, "c": grad_b})
        assert not report.passed
        assert report["c"].cause.sentence == "gradients has c, and parameters has nothing in that place."

    def test_too_many_in_a_tuple(self):
        report = check_gradients(of, (W, b), (grad_W, grad_b, grad_b))
        assert not report.passed and report["[2]"].cause.kind == "unknown parameter"

    def test_not_a_tensor(self):
        assert "is a str" in self.sentence({"W": "todo", "b": grad_b})
        assert "is a list" in self.sentence({"W": [grad_W], "b": grad_b})

    def test_float32(self):
        assert "float32 tensor" in self.sentence({"W": grad_W.float(), "b": grad_b})

    def test_not_finite(self):
        wrong = grad_W.clone()
        wrong[2, 1] = float("nan")
        wrong[3, 0] = float("inf")
        sentence = self.sentence({"W": wrong, "b": grad_b})
        assert sentence == "the gradient of W has 2 entries that are not finite, the first (nan) at [2, 1]."

    def test_transposed_shape(self):
        sentence = self.sentence({"W": grad_W.T, "b": grad_b})
        assert sentence == (
            "the gradient of W has shape (4, 6) and W has (6, 4). "
            "Your gradient is right at every entry once it is transposed."
        )

    def test_right_numbers_in_another_shape(self):
        assert "once it is reshaped to (4,)" in self.sentence({"W": grad_W, "b": grad_b[None]}, "b")

    def test_not_summed_over_the_examples(self):
        G = torch.softmax(X @ W + b, 1) - F.one_hot(y, K)
        assert "once it is averaged over axis 0" in self.sentence({"W": grad_W, "b": G}, "b")
        assert "once it is summed over axis 0" in self.sentence({"W": grad_W, "b": G / N}, "b")

    def test_a_wrong_shape_with_wrong_numbers(self):
        assert self.sentence({"W": grad_W[:3], "b": grad_b}).endswith("has shape (3, 4) and W has (6, 4).")

    def test_a_number_where_a_parameter_should_be(self):
        report = check_gradients(lambda W, c: (W**2).sum() * c, {"W": W, "c": 2.0}, {"W": 4 * W, "c": (W**2).sum()})
        assert report["W"].verdict == "pass"
        assert "make it a float64 tensor" in report["c"].cause.sentence

    def test_numbers_without_a_gradient_are_constants(self):
        assert check_gradients(lambda p: (p["W"] ** 2).sum() * p["c"], {"W": W, "c": 2.0}, {"W": 4 * W}).passed


class TestEverythingIsPutBack:
    def test_parameters_bit_for_bit(self):
        V, c = W.clone() * 1e-3, b.clone() * 1e9
        kept = V.clone(), c.clone()
        check_gradients(lambda V, c: (V**2).sum() + c.sin().sum(), (V, c), (2 * V, c.cos()), vectorised=False)
        assert torch.equal(V, kept[0]) and torch.equal(c, kept[1])

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_when_f_raises_in_the_middle(self, error: type[BaseException]):
        V, calls = W.clone(), 0

        def f(V: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > 30:
                assert not torch.equal(V, W)  # it is in the middle of a change
                raise error("stop")
            return (V**2).sum()

        with pytest.raises(error, match="stop"):
            check_gradients(f, V, 2 * V, vectorised=False)
        assert torch.equal(V, W)

    def test_random_states(self):
        def draws() -> tuple[float, float, float]:
            return torch.rand(1).item(), float(np.random.rand()), random.random()

        def f(W: Tensor) -> Tensor:
            draws()
            torch.manual_seed(1)
            np.random.seed(1)
            random.seed(1)
            return (W**2).sum()

        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        expected = draws()
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        check_gradients(f, W, lambda W: (torch.rand(2), 2 * W)[1])
        assert draws() == expected

    def test_running_statistics_changed_in_place(self):
        mean = torch.zeros(K, dtype=torch.float64)

        def f(W: Tensor) -> Tensor:
            S = X @ W
            mean.mul_(0.9).add_(0.1 * S.mean(0))
            return ((S - mean) ** 2).mean()

        with pytest.raises(GradientCheckError, match="state="):
            check_gradients(f, W, W)
        mean.zero_()
        gradient = torch.func.grad(lambda W: ((X @ W - 0.1 * (X @ W).mean(0)) ** 2).mean())(W)
        report = check_gradients(f, W, gradient, state=mean)
        assert report.passed and not bool(mean.any())

    def test_running_statistics_rebound_in_a_dict(self):
        statistics = {"mean": None}

        def f(W: Tensor) -> Tensor:
            S = X @ W
            old = statistics["mean"]
            statistics["mean"] = S.mean(0) if old is None else 0.9 * old + 0.1 * S.mean(0)
            return ((S - statistics["mean"]) ** 2).mean()

        gradient = torch.func.grad(lambda W: ((X @ W - (X @ W).mean(0)) ** 2).mean())(W)
        assert check_gradients(f, W, gradient, state=statistics).passed
        assert statistics == {"mean": None}

    def test_a_layer_object_and_a_module(self):
        class Layer:
            def __init__(self) -> None:
                self.mean = torch.zeros(K, dtype=torch.float64)
                self.calls = 0

            def __call__(self, S: Tensor) -> Tensor:
                self.mean = 0.9 * self.mean + 0.1 * S.mean(0)
                self.calls += 1
                return S - self.mean

        layer, norm = Layer(), torch.nn.BatchNorm1d(K).double()
        gradient = torch.func.grad(lambda W: ((X @ W - 0.1 * (X @ W).mean(0)) ** 3).mean())(W)
        assert check_gradients(lambda W: (layer(X @ W) ** 3).mean(), W, gradient, state=layer).passed
        assert layer.calls == 0 and not bool(layer.mean.any())

        leaf = W.clone().requires_grad_()
        (norm(X @ leaf) ** 3).mean().backward()
        norm.reset_running_stats()
        assert check_gradients(lambda W: (norm(X @ W) ** 3).mean(), W, leaf.grad, state=norm).passed
        assert not bool(norm.running_mean.any()) and int(norm.num_batches_tracked) == 0

    def test_constants_among_the_parameters(self):
        layer = {"W": W.clone(), "mean": torch.zeros(K, dtype=torch.float64)}

        def f(layer: dict[str, Tensor]) -> Tensor:
            S = X @ layer["W"]
            layer["mean"].mul_(0.5).add_(S.mean(0))
            return ((S - layer["mean"]) ** 2).mean()

        gradient = {"W": torch.func.grad(lambda W: ((X @ W - (X @ W).mean(0)) ** 2).mean())(W)}
        report = check_gradients(f, layer, gradient, constants=["mean"])
        assert report.passed and [p.name for p in report.parameters] == ["layer.W"]
        assert not bool(layer["mean"].any())

    def test_parameters_that_the_gradients_change(self):
        V = W.clone()

        def gradients(V: Tensor) -> Tensor:
            right = 2 * V
            V -= 0.1 * right
            return right

        report = check_gradients(lambda V: (V**2).sum(), V, gradients)
        assert report.passed and torch.equal(V, W)
        assert "changed the parameters" in repr(report)

    def test_a_cache_of_f_is_left_as_after_a_plain_call(self):
        cache: dict[str, Tensor] = {}

        def f(W: Tensor) -> Tensor:
            cache["S"] = X @ W
            return (cache["S"] ** 2).mean()

        report = check_gradients(f, W, torch.func.grad(lambda W: ((X @ W) ** 2).mean())(W))
        assert report.passed and report.vectorised
        assert cache["S"].shape == (N, K) and torch.equal(cache["S"], X @ W)

    def test_parameters_that_share_memory_are_told(self):
        V = W.clone()
        report = check_gradients(lambda A, B: (A**2).sum(), (V, V), (2 * V, 2 * V))
        assert any("A and B share memory" in note for note in report.notes)


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """A default device that is not the CPU, as a notebook with a GPU may have set."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("vectorised", [None, False])
def test_a_default_device_is_for_f_and_its_gradients_and_not_for_the_check(vectorised: bool | None) -> None:
    seen = set()
    W = torch.linspace(1, 2, 150, dtype=torch.float64, device="cpu")

    def f(W: Tensor) -> Tensor:
        seen.add(str(torch.get_default_device()))
        return W**3

    def gradients(upstream: Tensor) -> Tensor:
        seen.add(str(torch.get_default_device()))
        return 3 * W**2 * upstream

    report = check_gradients(f, {"W": W}, gradients, upstream="random", samples=40, vectorised=vectorised)
    assert report.passed and seen == {"meta"}
    wrong = check_gradients(f, {"W": W}, lambda upstream: -gradients(upstream), upstream="random", samples=40)
    assert not wrong.passed and "sign" in str(wrong)
    assert wrong.plot() is not None
    assert torch.ones(1).device.type == "meta"


@pytest.mark.parametrize("given", ["the parameters themselves", "detached"])
def test_a_module_that_is_the_state_may_hold_the_parameters(given: str) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    net = net.double()
    X, y = torch.randn(7, 4, dtype=torch.float64), torch.arange(7) % 2
    F.cross_entropy(net(X), y).backward()
    named = dict(net.named_parameters())
    right = [p.grad.clone() for p in named.values()]
    values = [p if given == "the parameters themselves" else p.detach() for p in named.values()]
    before = {k: v.clone() for k, v in net.state_dict().items()}

    def check(gradients: list[Tensor]) -> dict[str, str]:
        report = check_gradients(
            lambda: F.cross_entropy(net(X), y), values, gradients, state=net, names=list(named), tolerance=1e-5
        )
        return {p.name: p.verdict for p in report.parameters}

    assert "fail" not in check(right).values()
    assert [n for n, v in check([*right[:-1], 2 * right[-1]]).items() if v == "fail"] == ["3.bias"]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
