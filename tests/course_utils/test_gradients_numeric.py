"""Sampling, differences, kinks, rounding and vectorisation."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_utils.gradients import GradientCheckError, check_gradients
from course_utils.gradients.judgement import Status, relative_error
from course_utils.gradients.sampling import lines_and_grid, sample_entries


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSample:
    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda s: torch.Size(s).numel() > 60),
        st.integers(3, 60),
        st.integers(0, 5),
    )
    def test_has_first_last_and_largest_and_the_right_number(self, shape: list[int], count: int, seed: int):
        gradient = draw(*shape, seed=seed)
        flat = sample_entries(gradient, count, seeded(seed))
        assert {0, gradient.numel() - 1, int(gradient.abs().argmax())} <= set(flat.tolist())
        assert len(flat) == len(flat.unique()) == count
        assert int(flat.min()) >= 0 and int(flat.max()) < gradient.numel()

    def test_is_full_where_small(self):
        assert sample_entries(draw(4, 5), 20, seeded()).tolist() == list(range(20))
        assert len(sample_entries(draw(40, 50), None, seeded())) == 2000
        assert sample_entries(torch.tensor(1.0), 100, seeded()).tolist() == [0]

    def test_the_seed_decides(self):
        gradient = draw(50, 20)
        a, b, c = (sample_entries(gradient, 30, seeded(s)) for s in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c)

    @pytest.mark.parametrize("shape", [(3072, 10), (10, 3072), (64, 3, 5, 5), (25, 83)])
    def test_meets_every_index_of_a_short_axis(self, shape: tuple[int, ...]):
        flat = sample_entries(torch.zeros(shape), 100, seeded())
        for axis, index in enumerate(torch.unravel_index(flat, shape)):
            if shape[axis] <= 64:
                assert len(index.unique()) == shape[axis]

    def test_a_sparse_gradient_is_not_judged_by_its_zeros_alone(self):
        gradient = torch.zeros(1000, 20).double()
        gradient[torch.arange(0, 1000, 50), 3] = draw(20)
        flat = sample_entries(gradient, 60, seeded())
        assert int((gradient.flatten()[flat] != 0).sum()) >= 10

    def test_lines_and_grid(self):
        flat = lines_and_grid((40, 50), (7, 9), seeded())
        rows, columns = torch.unravel_index(flat, (40, 50))
        assert len(flat) == len(flat.unique()) <= 220
        assert int((rows == 7).sum()) > 15 and int((columns == 9).sum()) > 15
        assert {0, 39} <= set(rows.tolist()) and {0, 49} <= set(columns.tolist())


class TestErrors:
    def test_formula(self):
        a, n = torch.tensor([1.0, 2.0, 0.0, 1e-9]).double(), torch.tensor([-1.0, 6.0, 0.0, 3e-9]).double()
        assert relative_error(a, n, 1e-6).tolist() == pytest.approx([1.0, 0.5, 0.0, 2e-3])

    @pytest.mark.parametrize("h", [1e-3, 1e-5, 1e-6])
    def test_centred_differences_of_a_smooth_net_are_as_exact_as_h_allows(self, h: float):
        X, y, W = draw(9, 5, seed=1), draw(9, seed=2), draw(5, 3, seed=3)

        def f(W: Tensor) -> Tensor:
            return ((torch.tanh(X @ W).sum(1) - y) ** 2).mean()

        report = check_gradients(f, W, torch.func.grad(f)(W), h=h, tolerance=1e-3)
        assert report.passed
        assert report["W"].largest_error < {1e-3: 1e-3, 1e-5: 1e-6, 1e-6: 1e-6}[h]

    def test_large_and_small_parameters(self):
        for scale in (1e-6, 1e6):
            V = draw(30, seed=4) * scale
            f = lambda V, scale=scale: torch.sin(V / scale).sum() * scale  # noqa: E731
            assert check_gradients(f, V, torch.cos(V / scale), h=1e-5 * scale if scale < 1 else 1e-5).passed

    def test_pixels_from_0_to_255(self):
        X = (draw(20, 40, seed=5).abs() * 100).clamp(max=255)
        W, y = draw(40, 3, seed=6) * 0.01, torch.arange(20) % 3
        f = lambda W: torch.nn.functional.cross_entropy(X @ W, y)  # noqa: E731
        assert check_gradients(f, W, torch.func.grad(f)(W)).passed

    def test_one_tiny_wrong_entry_among_large_ones(self):
        V = draw(20, seed=7)
        c = torch.full((20,), 1e4).double()
        c[13] = 1e-2
        wrong = c.clone()
        wrong[13] *= 1.001
        report = check_gradients(lambda V: (c * V).sum(), V, wrong)
        assert not report.passed and report["V"].worst.index == (13,) and report["V"].wrong == 1
        norm = ((wrong - c).norm() / (wrong.norm() + c.norm())).item()
        assert norm < 1e-9  # one global number would have passed

    def test_worst_has_the_index_and_both_values(self):
        V = draw(6, 5, seed=8)
        wrong = 2 * V
        wrong[4, 2] = 7.0
        worst = check_gradients(lambda V: (V**2).sum(), V, wrong)["V"].worst
        assert worst.index == (4, 2) and worst.analytic == 7.0
        assert worst.numeric == pytest.approx(2 * V[4, 2].item(), rel=1e-6)

    def test_both_zero_passes(self):
        report = check_gradients(lambda A, B: (A**2).sum(), (draw(4), draw(5)), (2 * draw(4), torch.zeros(5).double()))
        assert report["B"].verdict == "pass" and report["B"].largest_error == 0.0
        assert "does not depend on it" in repr(report)

    def test_zeros_among_what_is_lost_in_rounding_are_no_pass(self):
        S = draw(30, 4, seed=50)
        f = lambda S: ((S - S.mean(0)) / S.std(0)).sum()  # noqa: E731
        report = check_gradients(f, S, torch.zeros_like(S))
        assert report["S"].verdict == "too small to judge" and not report.passed

    def test_too_small_is_no_failure_of_the_whole(self):
        X, W, c = draw(30, 4, seed=9), draw(4, 3, seed=10), draw(3, seed=11)

        def f(W: Tensor, c: Tensor) -> Tensor:  # c is taken out by the mean
            S = X @ W + c
            return (torch.tanh(S - S.mean(0)) ** 2).mean()

        gW = torch.func.grad(f)(W, c)
        report = check_gradients(f, (W, c), (gW, torch.full((3,), 3e-18).double()))
        assert report.passed and report["c"].verdict == "too small to judge"
        assert not check_gradients(f, (W, c), (gW, torch.full((3,), 1e-6).double())).passed


class TestKinks:
    @pytest.mark.parametrize("vectorised", [True, False])
    def test_at_the_entry_itself(self, vectorised: bool):
        V = draw(9, seed=12)
        V[[2, 5]] = 0.0
        report = check_gradients(lambda V: V.abs().sum(), V, V.sign() + (V == 0), vectorised=vectorised)
        assert report.passed and report["V"].kinks == 2
        assert report["V"].entries.status[[2, 5]].tolist() == [Status.KINK] * 2
        assert "2 of 9 entries lie on a kink" in repr(report)

    @pytest.mark.parametrize("distance", [9e-6, 5e-6, 2e-6, 1.01e-6, 9.9e-7, 9e-7, 8.8e-7, 7e-7, 5e-7, 1e-7, 1e-9])
    @pytest.mark.parametrize("side", [1, -1])
    def test_close_to_the_entry_never_fails_a_right_gradient(self, distance: float, side: int):
        V = draw(9, seed=13) + 3
        V[4] = side * distance
        f = lambda V: (torch.relu(V) * draw(9, seed=14)).sum()  # noqa: E731
        report = check_gradients(f, V, torch.func.grad(f)(V))
        assert report.passed
        assert report["V"].kinks <= 1 and (report["V"].kinks == 0 or distance < 1e-6)

    def test_a_subgradient_between_the_two_sides_passes(self):
        V = torch.tensor([0.0, 1.0]).double()
        report = check_gradients(lambda V: V.abs().sum(), V, torch.tensor([0.0, 1.0]).double())
        assert report.passed and report["V"].kinks == 0

    def test_curvature_is_not_mistaken_for_a_kink(self):
        V = draw(9, seed=15)
        f = lambda V: (1e4 * V**2 + V).sum()  # noqa: E731
        wrong = 2e4 * V + 3
        assert check_gradients(f, V, 2e4 * V + 1).passed
        report = check_gradients(f, V, wrong)
        assert report["V"].wrong == 9 and report["V"].kinks == 0

    def test_a_wrong_relu_net_still_fails(self):
        X, W = draw(40, 6, seed=16), draw(6, 5, seed=17)
        f = lambda W: torch.relu(X @ W).pow(2).mean()  # noqa: E731
        right = torch.func.grad(f)(W)
        assert check_gradients(f, W, right).passed
        assert check_gradients(f, W, right * 1.001)["W"].wrong == 30

    def test_nothing_but_kinks(self):
        V = torch.zeros(4).double()
        report = check_gradients(lambda V: V.abs().sum(), V, torch.ones(4).double())
        assert report["V"].verdict == "on kinks" and not report.passed
        assert report["V"].worst is None and report["V"].median_error != report["V"].median_error


class TestSearch:
    """What the sample leaves out is moved all at once."""

    def report(self, wrong: list[tuple[int, int]], **options: object):
        V = draw(300, 40, seed=40)
        c = draw(300, 40, seed=41).exp()
        gradient = c * torch.cos(V)
        for i, j in wrong:
            gradient[i, j] *= 1.01
        return check_gradients(lambda V: (c * torch.sin(V)).sum(), V, gradient, **options)

    def test_a_right_gradient_costs_four_evaluations_more(self, monkeypatch: pytest.MonkeyPatch):
        with_search = self.report([]).evaluations
        monkeypatch.setattr(
            "course_utils.gradients.check.suspects", lambda *a, **k: torch.tensor([], dtype=torch.int64)
        )
        assert with_search - self.report([]).evaluations == 4

    @pytest.mark.parametrize("seed", range(5))
    def test_one_wrong_entry_in_12000_is_found_and_judged(self, seed: int):
        report = self.report([(123, 17)], seed=seed, samples=30)
        assert not report.passed
        assert report["V"].worst.index == (123, 17) and report["V"].wrong == 1
        assert report.evaluations < 600

    def test_three_of_them(self):
        places = [(3, 39), (150, 0), (299, 1)]
        entries = self.report(places)["V"].entries
        found = entries.flat[entries.status == Status.FAIL].tolist()
        assert found == [i * 40 + j for i, j in places]

    def test_everything_is_put_back(self):
        V = draw(300, 40, seed=40)
        before = V.clone()
        wrong = torch.cos(V)
        wrong[200, 20] += 0.1
        assert not check_gradients(lambda V: torch.sin(V).sum(), V, wrong, vectorised=False).passed
        assert torch.equal(V, before)

    def test_kinks_outside_the_sample_raise_no_alarm(self):
        V = draw(300, 40, seed=42)
        V[draw(300, 40, seed=43) > 1] = 0.0
        gradient = V.sign() + (V == 0)
        assert check_gradients(lambda V: V.abs().sum(), V, gradient).passed

    def test_no_alarm_for_a_right_relu_net(self):
        X, y, W1, W2 = draw(30, 50, seed=44), torch.arange(30) % 5, draw(50, 60, seed=45), draw(60, 5, seed=46)
        f = lambda W1, W2: torch.nn.functional.cross_entropy(torch.relu(X @ W1) @ W2, y)  # noqa: E731
        gradients = torch.func.grad(f, argnums=(0, 1))(W1, W2)
        for seed in range(4):
            assert check_gradients(f, (W1, W2), gradients, samples=20, seed=seed).passed


class TestVectorised:
    X, y = draw(12, 7, seed=20), torch.arange(12) % 4

    def f(self, W1: Tensor, b1: Tensor, W2: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(torch.tanh(self.X @ W1 + b1) @ W2, self.y)

    parameters = (draw(7, 5, seed=21), draw(5, seed=22), draw(5, 4, seed=23))

    def test_gives_the_same_as_the_loop(self):
        gradients = torch.func.grad(self.f, argnums=(0, 1, 2))(*self.parameters)
        many = check_gradients(self.f, self.parameters, gradients)
        loop = check_gradients(self.f, self.parameters, gradients, vectorised=False)
        assert many.vectorised and not loop.vectorised and many.passed and loop.passed
        for a, b in zip(many.parameters, loop.parameters, strict=True):
            assert torch.equal(a.entries.flat, b.entries.flat)
            assert torch.allclose(a.entries.numeric, b.entries.numeric, rtol=1e-7, atol=1e-9)

    def test_is_called_far_less_often(self):
        calls = 0

        def f(W: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return (W**3).sum()

        W = draw(30, 30, seed=24)
        report = check_gradients(f, W, 3 * W**2, samples=None)
        assert report.passed and report.evaluations > 1800 and calls < 60

    @pytest.mark.parametrize(
        "body",
        [
            lambda W: float((W**3).sum()),
            lambda W: torch.from_numpy(W.numpy() ** 3).sum(),
            lambda W: (W**3).sum() if W[0, 0] > 9 else (W * W**2).sum(),
            lambda W: torch.zeros(1, dtype=W.dtype).copy_((W**3).sum())[0],
            lambda W: sum((x**3 for row in W.tolist() for x in row), start=torch.zeros((), dtype=W.dtype)),
        ],
        ids=["float", "numpy", "branch", "in place", "tolist"],
    )
    def test_falls_back_silently_to_the_loop(self, body, capsys):
        W = draw(5, 4, seed=25)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report = check_gradients(body, W, 3 * W**2)
        assert report.passed and not report.vectorised
        assert capsys.readouterr() == ("", "")

    def test_says_why_not_where_it_was_demanded(self):
        W = draw(5, 4, seed=25)
        with pytest.raises(GradientCheckError, match=r"cannot be vectorised: .*\.item\(\)"):
            check_gradients(lambda W: float((W**3).sum()), W, 3 * W**2, vectorised=True)
        with pytest.raises(GradientCheckError, match="cannot be vectorised: it takes no arguments"):
            check_gradients(lambda: (W**3).sum(), W, 3 * W**2, vectorised=True)

    def test_a_function_that_reads_a_global_in_place_of_its_argument(self):
        W, V = draw(5, 4, seed=26), draw(6, seed=27)
        report = check_gradients(lambda w, v: (W**3).sum() + (v**2).sum(), (W, V), (3 * W**2, 2 * V))
        assert report.passed
        with pytest.raises(GradientCheckError, match="gives other values when it is vectorised"):
            check_gradients(lambda w, v: (W**3).sum() + (v**2).sum(), (W, V), (3 * W**2, 2 * V), vectorised=True)

    @pytest.mark.parametrize(("budget", "most"), [(1 << 22, 41), (2400, 30), (1600, 0)])
    def test_the_memory_of_a_batch_is_bounded(self, budget: int, most: int, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("course_utils.gradients.numeric.BATCH_ELEMENTS", budget)
        copies = []

        def f(W: Tensor) -> Tensor:  # with W itself, 80 numbers for each copy
            if torch._C._functorch.is_batchedtensor(W):
                copies.append(len(torch._C._functorch.get_unwrapped(W)))
            return (W**3).sum()

        W = draw(5, 4, seed=28)
        report = check_gradients(f, W, 3 * W**2)
        assert report.passed and report.vectorised == (most > 0)
        assert max(copies, default=0) <= most

    def test_the_same_seed_gives_the_same_report(self):
        gradients = torch.func.grad(self.f, argnums=(0, 1, 2))(*self.parameters)
        a, b, c = (check_gradients(self.f, self.parameters, gradients, samples=8, seed=s) for s in (3, 3, 4))
        assert repr(a) == repr(b)
        assert not torch.equal(a.parameters[0].entries.flat, c.parameters[0].entries.flat)

    @pytest.mark.parametrize(
        ("wrap", "unwrap"),
        [
            (lambda v: {"a": [v]}, lambda s: s["a"][0]),
            (lambda v: [(v,)], lambda s: s[0][0]),
            (lambda v: ({"x": {"y": v}},), lambda s: s[0]["x"]["y"]),
        ],
    )
    def test_on_every_kind_of_nesting(self, wrap, unwrap):
        W = draw(4, 3, seed=30)
        report = check_gradients(lambda s: (unwrap(s) ** 3).sum(), (wrap(W),), (wrap(3 * W**2),))
        assert report.passed and report.vectorised
