"""Where torch makes new tensors: on the CPU for the course's own arithmetic, whatever a notebook has set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

Code = TypeVar("Code", bound=Callable[..., Any])


def new_tensors_on(device: str | torch.device) -> AbstractContextManager[Any]:
    """A context in which tensors made without a device are on this one.

    Nothing is entered where they are there already: inside such a context every call of torch takes longer.
    """
    device = torch.device(device)
    return nullcontext() if _default_device() == device else device


def with_todays_default_device(code: Code) -> Code:
    """The same function, which makes its new tensors where they are made now, wherever it is called."""
    device = _default_device()
    if device is None or device.type == "cpu":
        return code

    @functools.wraps(code)
    def call(*args: Any, **kwargs: Any) -> Any:
        with new_tensors_on(device):
            return code(*args, **kwargs)

    return call  # type: ignore[return-value]


def _default_device() -> torch.device | None:
    """The device where new tensors are made; None where that is one which this machine does not have."""
    try:
        return torch.get_default_device()
    except (RuntimeError, AssertionError):  # a torch that was built without it asserts
        return None
