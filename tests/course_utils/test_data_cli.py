"""``course data`` and ``course doctor``."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from local_mirror import Mirror, serving
from small_cifar10 import ARCHIVE, FOLDER, pack, write_registry, write_small_cifar10
from typer.testing import CliRunner, Result

from course_utils import cli, doctor
from course_utils.cli import app
from course_utils.data import digits_in_scenes, registry, roots


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def user(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without data, and a mirror with a small CIFAR-10."""
    write_small_cifar10(tmp_path / "publisher")
    archive = pack(tmp_path / "publisher", tmp_path / ARCHIVE)
    url = mirror.serve("/cifar.tar.gz", archive)
    path = write_registry(tmp_path / "registry.toml", tmp_path / "publisher", archive, [url])
    monkeypatch.setattr(registry, "registry_path", lambda: path)
    monkeypatch.setattr(digits_in_scenes, "CHUNK", 50)
    monkeypatch.setattr(roots, "user_root", lambda: tmp_path / "user")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return tmp_path / "user"


def course(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_data_without_names_fetches_cifar10_once(user: Path, mirror: Mirror) -> None:
    for _ in range(2):
        result = course("data")
        assert result.exit_code == 0 and result.stdout == f"CIFAR-10: complete and verified in {user}.\n"
    assert len(mirror.downloads("/cifar.tar.gz")) == 1


def test_data_resumes_what_was_broken_off(user: Path, mirror: Mirror) -> None:
    mirror.pages["/cifar.tar.gz"].breaks_after = [1000, 0]
    broken = course("data", "cifar10")
    assert broken.exit_code == 1 and "broke off after 1,000" in broken.stderr and "resumes" in broken.stderr
    assert course("data", "cifar10").exit_code == 0
    assert mirror.downloads("/cifar.tar.gz")[-1] == "bytes=1000-"


def test_data_repairs_a_damaged_set(user: Path) -> None:
    write_small_cifar10(user)
    (user / FOLDER / "data_batch_5").write_bytes(b"half")
    assert "damaged: " in course("data", "--list").stdout
    assert course("data").exit_code == 0
    assert "damaged: " not in course("data", "--list").stdout


def test_data_lists_what_there_is(user: Path) -> None:
    before = course("data", "--list").stdout
    assert "cifar10  not on this machine; 0.3 MB to download" in before
    assert "digits_in_scenes  always here" in before and "Licence: none." in before and "Cite: nobody." in before
    write_small_cifar10(user)
    assert f"cifar10  in {user}" in course("data", "--list").stdout
    assert "digits" not in course("data", "--list", "cifar10").stdout


def test_data_says_so_without_a_network(mirror: Mirror) -> None:
    mirror.pages.clear()
    result = course("data")
    assert result.exit_code == 1 and result.stdout == ""
    assert "CIFAR-10 is not on this machine" in result.stderr and "set COURSE_DATA" in result.stderr


def test_data_knows_its_names() -> None:
    result = course("data", "cifar11")
    assert result.exit_code == 1 and "choose from cifar10, digits_in_scenes" in result.stderr


def test_data_makes_the_embedded_set(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load_digits_in_scenes", lambda: digits_in_scenes.load_digits_in_scenes(50, 50, 50))
    result = course("data", "digits_in_scenes")
    assert result.exit_code == 0 and "train 50, validation 50, test 50; 10 classes" in result.stdout
    assert len(list(user.rglob("*.npz"))) == 3


@pytest.mark.parametrize("arguments", [[], ["data"], ["doctor"]])
def test_every_command_has_help(arguments: list[str]) -> None:
    result = course(*arguments, "--help")
    assert result.exit_code == 0 and "Usage:" in result.stdout


def test_doctor_on_a_machine_without_data_is_content_and_says_what_is_missing(user: Path) -> None:
    result = course("doctor")
    assert result.exit_code == 0
    for line, mark in (("Python", "✓"), ("PyTorch", "✓"), ("device", "✓"), ("disk", "✓"), ("CIFAR-10", "!")):
        assert f"{mark} {line}: " in result.stdout
    assert "Run `course data cifar10`" in result.stdout and str(user) in result.stdout
    assert torch.__version__ in result.stdout


def test_doctor_sees_data_and_damage(user: Path) -> None:
    write_small_cifar10(user)
    assert f"✓ CIFAR-10: complete and verified in {user}" in course("doctor").stdout
    (user / FOLDER / "data_batch_5").write_bytes(b"half")
    result = course("doctor")
    assert result.exit_code == 1
    assert "✗ CIFAR-10: " in result.stdout and "data_batch_5 has 4 bytes" in result.stdout


def test_doctor_sees_an_old_python_a_full_disk_and_a_foreign_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))

    def cannot_load(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", cannot_load)
    result = course("doctor")
    assert result.exit_code == 1
    for sentence in ("Install Python 99.0 or newer", "Make room", "nms does not exist", "--force-reinstall"):
        assert sentence in result.stdout


def test_doctor_reports_an_examination_that_fails(user: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "file"))
    result = course("doctor")
    assert result.exit_code == 1 and "✗ disk: COURSE_DATA is" in result.stdout


def test_doctor_tells_that_photographs_are_decoded_differently() -> None:
    assert "! digits in scenes: made here with slightly other colours" in course("doctor").stdout  # no fingerprint here


def test_doctor_tells_whether_a_report_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_browser", lambda: "/opt/chrome")
    assert "✓ browser: /opt/chrome prints reports to PDF." in course("doctor").stdout
    monkeypatch.setattr(doctor, "find_browser", lambda: None)
    assert "! browser: no Chrome, Chromium or Edge. Nothing to do" in course("doctor").stdout
