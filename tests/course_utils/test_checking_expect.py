"""Expectations: what passes, what is refused, and in which words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from course_utils.checking import CriterionFault, Form, Unmet, expect, unchanged_arguments
from course_utils.checking.student import Call

RIGHT = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], dtype=torch.float64)


def refusal(make: Any) -> Unmet:
    with pytest.raises(Unmet) as caught:
        make()
    return caught.value


@pytest.mark.parametrize(
    "value",
    [
        RIGHT,
        RIGHT.numpy(),
        RIGHT.float(),
        RIGHT.half(),
        RIGHT.bfloat16(),
        RIGHT[None],
        RIGHT.numpy()[:, :, None],
        RIGHT * (1 + 1e-8),
        RIGHT.long(),
    ],
)
def test_a_right_value_passes_in_every_form(value: object) -> None:
    expect(value).close_to(RIGHT)


@pytest.mark.parametrize("factor", [1.02, 0.98, 1.0 + 1 / 30, -1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_wrong_value_passes_in_no_precision(factor: float, dtype: torch.dtype) -> None:
    assert refusal(lambda: expect((factor * RIGHT).to(dtype)).close_to(RIGHT)).kind == "value"


def test_float64_is_held_to_more_than_float32() -> None:
    near = RIGHT * (1 + 1e-5)
    expect(near.float()).close_to(RIGHT)
    expect(near).close_to(RIGHT, single=True)
    refusal(lambda: expect(near).close_to(RIGHT))


def test_zero_has_an_absolute_floor_relative_to_the_rest() -> None:
    expected = torch.tensor([0.0, 100.0], dtype=torch.float64)
    expect(torch.tensor([1e-8, 100.0], dtype=torch.float64)).close_to(expected)
    refusal(lambda: expect(torch.tensor([1e-5, 100.0], dtype=torch.float64)).close_to(expected))


def test_the_message_says_where_what_and_how_many() -> None:
    got = RIGHT.clone()
    got[1, 2], got[0, 0] = 6.0, 1.5
    unmet = refusal(lambda: expect(got, "grad_W").close_to(RIGHT, because="of autograd"))
    assert unmet.message == (
        "grad_W differs from what is expected (of autograd): largest difference at index (1, 2), "
        "expected -6, got 6. 2 of 6 entries differ."
    )
    assert unmet.comparison is not None and unmet.comparison.worst == (1, 2)


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (None, "nothing written", "is None"),
        ("text", "type", "Expected a tensor as the result, got a str"),
        ([RIGHT], "type", "a list of 1"),
        (RIGHT.T.reshape(3, 2), "shape", "Expected the result of shape (2, 3), got shape (3, 2)"),
        (RIGHT[:1], "shape", "(1, 3)"),
        (torch.tensor(1.0), "shape", "()"),
        (RIGHT > 0, "dtype", "dtype bool"),
        (RIGHT.to(torch.complex128), "dtype", "complex128"),
        (RIGHT * float("nan"), "value", "nan at index (0, 0); 6 of 6 entries are not finite"),
        (RIGHT / 0.0, "value", "inf"),
        (torch.zeros(0), "shape", "(0,)"),
    ],
)
def test_each_failure_is_told_as_what_it_is(value: object, kind: str, says: str) -> None:
    unmet = refusal(lambda: expect(value).close_to(RIGHT))
    assert unmet.kind == kind and says in unmet.message


def test_a_single_number_is_compared_with_a_number() -> None:
    expect(2.0).close_to(2)
    expect(torch.tensor(2.0)).close_to(2.0)
    expect(np.array([2.0])).close_to(2.0)
    assert "expected 2, got 3" in refusal(lambda: expect(3).close_to(2)).message


def test_an_expected_value_that_is_not_finite_is_the_staffs_fault() -> None:
    with pytest.raises(CriterionFault, match=r"not finite\. Where it is a result of the student's function"):
        expect(RIGHT).close_to(RIGHT * float("inf"))


def test_a_number_too_large_for_a_float_is_refused() -> None:
    assert "too large" in refusal(lambda: expect(10**400).close_to(1.0)).message


def test_a_transposed_shape_is_called_transposed() -> None:
    assert refusal(lambda: expect(RIGHT.T).shape(2, 3)).causes == ["The result is transposed."]


def test_shape_lets_axes_of_length_one_pass() -> None:
    assert expect(RIGHT[:, None]).shape(2, 3).value.shape == (2, 3)


def test_parts_takes_a_tuple_or_a_list_of_the_right_length() -> None:
    assert expect((1, 2)).parts("a", "b") == expect([1, 2]).parts("a", "b") == (1, 2)
    assert "Expected 2 results (a, b), got 3" in refusal(lambda: expect((1, 2, 3)).parts("a", "b")).message
    assert refusal(lambda: expect(RIGHT).parts("a", "b")).causes == ["Return all of them: `return a, b`."]
    assert refusal(lambda: expect(None).parts("a", "b")).kind == "nothing written"


def test_all_says_where_a_condition_fails_first() -> None:
    expect(RIGHT).all(RIGHT < 7, "too large").all(True, "wrong")
    unmet = refusal(lambda: expect(RIGHT).all(RIGHT > 0, "an entry is negative"))
    assert unmet.message == "an entry is negative (first at index (0, 1), 2 of 6 entries)."
    assert refusal(lambda: expect(RIGHT).all(False, "this is wrong")).message == "this is wrong."
    assert "(0, 1)" in refusal(lambda: expect(RIGHT).all(RIGHT.numpy() > 0, "negative")).message  # NumPy's condition


def test_equal_compares_exactly() -> None:
    indices = torch.tensor([3, 1, 2])
    expect(indices).equal(indices.clone())
    expect("text").equal("text")
    unmet = refusal(lambda: expect(torch.tensor([3, 2, 2])).equal(indices))
    assert "differs at 1 of 3 entries, first at index (1,): expected 1, got 2" in unmet.message
    assert "Expected 3 as the result" in refusal(lambda: expect(4).equal(3)).message
    assert "got the bool True" in refusal(lambda: expect(True).equal(1)).message  # True == 1
    refusal(lambda: expect(None).equal("text"))


def test_dtype_is_exact() -> None:
    expect(RIGHT).dtype(torch.float64)
    assert refusal(lambda: expect(RIGHT).dtype(torch.float32)).kind == "dtype"
    assert refusal(lambda: expect(RIGHT.numpy()).dtype(torch.float64)).kind == "type"


@pytest.mark.parametrize(
    ("form", "value", "kind"),
    [
        (Form("W", (2, 3)), RIGHT, ""),
        (Form("W", (2, 3)), RIGHT[None], "shape"),
        (Form("W", (2, 3)), RIGHT.float(), "dtype"),
        (Form("W", (2, 3)), RIGHT.numpy(), "type"),
        (Form("W", (2, 3)), None, "nothing written"),
        (Form("loss"), 0.5, ""),
        (Form("loss"), torch.tensor(0.5, dtype=torch.float64), ""),
        (Form("loss"), 1, "type"),
        (Form("loss", scalar="tensor"), 0.5, "type"),
        (Form("loss", scalar="tensor"), torch.tensor(0.5, dtype=torch.float64), ""),
        (Form("accuracy", scalar="float"), 0.5, ""),
        (Form("accuracy", scalar="float"), torch.tensor(0.5, dtype=torch.float64), "type"),
        (Form("loss"), torch.ones(1, dtype=torch.float64), "shape"),
        (Form("y", (3,), dtype=torch.int64), torch.tensor([1, 2, 3]), ""),
        (Form("y", (3,), dtype=torch.int64), torch.tensor([1.0, 2, 3]), "dtype"),
    ],
)
def test_form(form: Form, value: object, kind: str) -> None:
    if kind:
        assert refusal(lambda: form.check(value, torch.float64)).kind == kind
    else:
        form.check(value, torch.float64)


def test_only_a_tensor_in_place_of_a_float_is_sent_to_item() -> None:
    form = Form("accuracy", scalar="float")
    assert "`.item()`" in refusal(lambda: form.check(torch.tensor(0.5), torch.float64)).causes[0]
    assert refusal(lambda: form.check(2, torch.float64)).causes == []


def test_form_knows_three_kinds_of_scalar() -> None:
    with pytest.raises(ValueError, match="scalar is"):
        Form("loss", scalar="int")


def test_unchanged_arguments_names_what_changed() -> None:
    unchanged_arguments(Call("f"))
    unmet = refusal(lambda: unchanged_arguments(Call("f", changed=["X", "y"])))
    assert unmet.message == "f changed its argument X and y." and unmet.kind == "changed argument"


def test_likely_causes_come_with_the_message() -> None:
    unmet = refusal(lambda: expect(-RIGHT).close_to(RIGHT))
    assert any(re.search("sign", cause) for cause in unmet.causes)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("the scores of image 3", "The scores of image 3 differ from"),
        ("the patches", "The patches differ from"),
        ("the columns, their entries sorted,", "The columns, their entries sorted, differ from"),
        ("the loss", "The loss differs from"),
        ("the result for filters of one pixel", "The result for filters of one pixel differs from"),
        ("the bias", "The bias differs from"),
        ("grads", "grads differs from"),
    ],
)
def test_one_thing_differs_and_several_differ(name: str, words: str) -> None:
    assert words in refusal(lambda: expect(RIGHT + 1, name).close_to(RIGHT)).message


def test_requires_grad_on_an_argument_is_no_work_in_place() -> None:
    unmet = refusal(lambda: unchanged_arguments(Call("fgsm", changed=["images (requires_grad)"])))
    assert "`requires_grad` is set" in unmet.causes[0]
    unmet = refusal(lambda: unchanged_arguments(Call("fgsm", changed=["images"])))
    assert "In-place" in unmet.causes[0]


def test_an_empty_result_is_told_from_a_wrong_size() -> None:
    with pytest.raises(Unmet, match="got shape") as caught:
        expect(torch.zeros(2, 0)).shape(2, 4)
    assert "`x[p:-p]` is empty" in caught.value.causes[0]


@pytest.mark.parametrize(("of_inputs", "says"), [(True, "float inputs"), (False, "the exercise asks for int64")])
def test_the_cause_of_a_wrong_dtype_is_that_of_the_dtype(of_inputs: bool, says: str) -> None:
    with pytest.raises(Unmet) as caught:
        expect(torch.zeros(2)).dtype(torch.int64, of_inputs=of_inputs)
    assert says in caught.value.causes[0]


def test_a_single_number_has_no_largest_difference() -> None:
    with pytest.raises(Unmet) as caught:
        expect(3.0).close_to(2.0)
    assert caught.value.message == "The result differs from what is expected: expected 2, got 3."
