"""Images to rows and back."""

import pytest
import torch

from course_utils.data import flatten_images, unflatten_images


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_holds_the_channels_one_after_the_other(images: torch.Tensor, dtype: torch.dtype) -> None:
    X = flatten_images(images, dtype)
    assert X.shape == (5, 3072) and X.dtype == dtype
    for n, channel, row, column in ((0, 0, 0, 0), (4, 2, 31, 31), (3, 1, 7, 20)):
        assert X[n, 1024 * channel + 32 * row + column] == pytest.approx(images[n, channel, row, column].item() / 255)
    assert flatten_images(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)).unique().tolist() == [1.0]


def test_unflattening_undoes_flattening(images: torch.Tensor) -> None:
    X = flatten_images(images, torch.float64)
    assert torch.equal((unflatten_images(X) * 255).round().to(torch.uint8), images)
    assert unflatten_images(X[:0]).shape == (0, 3, 32, 32)


def test_floating_point_images_keep_their_values_and_are_not_changed(images: torch.Tensor) -> None:
    floats = images / 255
    before = floats.clone()
    assert torch.equal(flatten_images(floats), flatten_images(images))
    assert flatten_images(floats, torch.float64).dtype == torch.float64
    assert torch.equal(floats, before)


def test_images_that_are_not_contiguous(images: torch.Tensor) -> None:
    channels_last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not channels_last.is_contiguous()
    assert torch.equal(flatten_images(channels_last), flatten_images(images))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: flatten_images(torch.zeros(3, 32, 32)), r"\(N, 3, 32, 32\), not \(3, 32, 32\)"),
        (lambda: flatten_images(torch.zeros(2, 32, 32, 3)), r"not \(2, 32, 32, 3\)"),
        (lambda: flatten_images([1]), "not a list"),
        (lambda: flatten_images(torch.zeros(2, 3, 32, 32, dtype=torch.int64)), "not torch.int64"),
        (lambda: flatten_images(torch.zeros(2, 3, 32, 32), torch.int32), "dtype cannot be torch.int32"),
        (lambda: unflatten_images(torch.zeros(2, 3071)), r"\(N, 3072\), not \(2, 3071\)"),
        (lambda: unflatten_images(torch.zeros(3072)), r"not \(3072,\)"),
    ],
)
def test_wrong_input_gets_a_sentence(call, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=sentence):
        call()
