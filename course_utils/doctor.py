"""Whether this machine is ready for the course: one finding for each thing an assignment needs."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .data import store
from .data.cifar10 import cifar10_on_this_machine
from .data.digits_in_scenes import fingerprint
from .data.errors import DataError
from .data.registry import registered
from .data.roots import ENVIRONMENT_VARIABLE, data_roots, writable_root
from .report.printing import find_browser

OLDEST_PYTHON = (3, 11)
ROOM_NEEDED = 1_000_000_000
"""Bytes: CIFAR-10 while it is unpacked, its cache, and some to spare."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    subject : str
        What was looked at.
    state : {"good", "note", "bad"}
        Whether it is as it should be, is worth knowing, or stands in the way.
    found : str
        What was found.
    advice : str
        What to do, or that there is nothing to do.
    """

    subject: str
    state: str
    found: str
    advice: str


def examine() -> Iterator[Finding]:
    """Look at Python, PyTorch, device, disk, data and browser, in that order.

    Yields
    ------
    Finding
        At least one for each; an examination that itself fails is a finding too.
    """
    examinations: dict[str, Callable[[], Finding]] = {
        "Python": _python,
        "PyTorch": _torch,
        "device": _device,
        "disk": _disk,
        "CIFAR-10": _cifar10,
        "digits in scenes": _digits_in_scenes,
        "browser": _browser,
    }
    for subject, examination in examinations.items():
        try:
            yield examination()
        except (DataError, OSError) as error:
            yield Finding(subject, "bad", str(error), "Do what the sentence says and run `course doctor` again.")


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", "bad", found, f"Install Python {wanted} or newer and make the environment again.")
    return Finding("Python", "good", found, "Nothing to do.")


def _torch() -> Finding:
    found = f"{torch.__version__}, {torch.get_num_threads()} threads"
    try:
        torchvision = importlib.import_module("torchvision")
    except Exception as error:  # a torchvision built for another PyTorch fails in many ways
        advice = (
            "Install the torchvision that belongs to this PyTorch: pip install --force-reinstall torch torchvision."
        )
        return Finding("PyTorch", "bad", f"{found}; torchvision cannot be loaded ({error})", advice)
    return Finding("PyTorch", "good", f"{found}, torchvision {torchvision.__version__}", "Nothing to do.")


def _device() -> Finding:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return Finding("device", "good", "CPU", "Nothing to do: every assignment runs on a CPU.")
    name = torch.cuda.get_device_name() if accelerator.type == "cuda" else accelerator.type
    advice = "Nothing to do: experiments use it where it pays; exercises are checked and graded on the CPU."
    return Finding("device", "good", f"CPU and {name}", advice)


def _disk() -> Finding:
    root = writable_root()
    free = shutil.disk_usage(root).free
    found = f"{free / 1e9:.1f} GB free in {root}, where downloads and caches go"
    if free < ROOM_NEEDED:
        advice = f"Make room, or set {ENVIRONMENT_VARIABLE} to a folder with {ROOM_NEEDED / 1e9:.0f} GB free."
        return Finding("disk", "bad", found, advice)
    return Finding("disk", "good", found, "Nothing to do.")


def _cifar10() -> Finding:
    dataset = registered("cifar10")
    holding = store.inspect(dataset)
    fetch = f"Run `course data {dataset.name}`"
    if holding.sound:
        return Finding(dataset.title, "good", f"complete and verified in {holding.root}", "Nothing to do.")
    where = cifar10_on_this_machine()
    if where:
        return Finding(dataset.title, "good", f"verified in {where}", "Nothing to do.")
    if holding.fault:
        return Finding(dataset.title, "bad", holding.fault, f"{fetch}, which fetches it again.")
    looked = ", ".join(map(str, data_roots()))
    advice = (
        f"{fetch} ({(dataset.size or 0) / 1e6:.0f} MB), or set {ENVIRONMENT_VARIABLE} to a folder that has it; "
        "until then notebooks take digits in scenes."
    )
    return Finding(dataset.title, "note", f"not on this machine (looked in {looked})", advice)


def _digits_in_scenes() -> Finding:
    dataset = registered("digits_in_scenes")
    if fingerprint() == dataset.sha256:
        return Finding("digits in scenes", "good", "made here exactly as everywhere", "Nothing to do.")
    return Finding(
        "digits in scenes",
        "note",
        "made here with slightly other colours, because JPEG photographs are decoded differently",
        "Nothing to do: your numbers may differ a little from published ones.",
    )


def _browser() -> Finding:
    found = find_browser()
    if found is not None:
        return Finding("browser", "good", f"{found} prints reports to PDF", "Nothing to do.")
    advice = "Nothing to do: `course report` makes a page that any browser prints to PDF."
    return Finding("browser", "note", "no Chrome, Chromium or Edge", advice)
