"""Where data is looked for and where it may be written."""

from pathlib import Path

import pytest

from course_utils.data import DataError, roots


@pytest.fixture(autouse=True)
def user_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(roots, "user_root", lambda: tmp_path / "user")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return tmp_path / "user"


def test_the_chosen_folder_comes_before_the_users(
    tmp_path: Path, user_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert roots.data_roots() == [user_root]
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "chosen"))
    assert roots.data_roots() == [tmp_path / "chosen", user_root]
    monkeypatch.setenv("COURSE_DATA", "  ")
    assert roots.data_roots() == [user_root]


def test_a_tilde_means_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COURSE_DATA", "~/data")
    assert roots.data_roots()[0] == Path("~/data").expanduser()


def test_a_file_is_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"COURSE_DATA is .*file, which is not a folder"):
        roots.data_roots()


def test_a_read_only_folder_is_left_alone_even_by_the_superuser(
    tmp_path: Path, user_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tmp_path / "chosen"
    monkeypatch.setenv("COURSE_DATA", str(chosen))
    assert roots.writable_root() == chosen  # made on the way
    chosen.chmod(0o555)
    assert roots.writable_root() == user_root
    assert list(chosen.iterdir()) == []


def test_without_any_writable_folder_there_is_a_sentence(
    tmp_path: Path, user_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_root.touch()  # a file where the folder should be
    with pytest.raises(DataError, match=r"No folder for data can be written to .* set COURSE_DATA to one that can"):
        roots.writable_root()
