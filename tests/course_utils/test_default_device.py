"""Where new tensors are made; the meta device stands for a GPU, which the machine that runs the tests need not have."""

from collections.abc import Iterator

import pytest
import torch

from course_utils.default_device import new_tensors_on, with_todays_default_device


@pytest.fixture
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_nothing_is_entered_where_new_tensors_are_there_already() -> None:
    with new_tensors_on("cpu") as entered:
        assert entered is None
    with new_tensors_on("meta"):
        assert torch.ones(1).device.type == "meta"
    assert torch.ones(1).device.type == "cpu"


@pytest.mark.usefixtures("elsewhere")
def test_a_notebooks_default_device_is_left_and_come_back_to() -> None:
    with new_tensors_on("cpu"):
        assert torch.ones(1).device.type == "cpu"
    assert torch.ones(1).device.type == "meta"


@pytest.mark.usefixtures("elsewhere")
def test_a_function_keeps_the_default_device_of_the_day() -> None:
    def ones(n: int = 1) -> torch.Tensor:
        return torch.ones(n)

    there = with_todays_default_device(ones)
    with new_tensors_on("cpu"):
        assert ones().device.type == "cpu" and with_todays_default_device(ones) is ones
        assert there(n=3).device.type == "meta" and there(2).shape == (2,)


def test_a_default_device_that_is_not_there_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> torch.device:
        raise RuntimeError("Found no NVIDIA driver on your system.")

    monkeypatch.setattr(torch, "get_default_device", missing)
    assert with_todays_default_device(torch.ones) is torch.ones
    with new_tensors_on("cpu"):
        assert torch.ones(1).device.type == "cpu"
