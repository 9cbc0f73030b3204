"""conf.d as a whole: what is put back loads, or nothing is written; what differs here is kept until it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.config import ConfigurationError, read
from proxy.config.bundle import Placed, put_files, read_files
from proxy.config.findings import Finding
from tests.config.conftest import GUID, HASH, Folder

APP = f"apps:\n  work: {{application_id: {GUID}, account_types: organizations}}\n"
ALICE = f"accounts:\n- {{login: alice@contoso.com, app: work, password: '{HASH}'}}\n"
FILES = {"account-alice@contoso.com.yaml": ALICE, "app-work.yaml": APP}


@pytest.fixture
def home(folder: Folder) -> Folder:
    folder.write("config.yaml", "page: off\n")
    return folder


def put(home: Folder, files: dict[str, str] | None = None, *, replace: bool = False, rehearse: bool = False) -> Placed:
    return put_files(home.main, FILES if files is None else files, home.environ, replace=replace, rehearse=rehearse)


def refused(home: Folder, files: dict[str, str], *, replace: bool = False) -> Finding:
    with pytest.raises(ConfigurationError) as told:
        put(home, files, replace=replace)
    return told.value.findings[0]


def written(home: Folder) -> list[str]:
    folder = home.path / "conf.d"
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_what_was_read_is_put_back(home: Folder) -> None:
    for name, text in FILES.items():
        home.write(f"conf.d/{name}", text)
    home.write("conf.d/notes.txt", "no part of it")
    found = read_files(home.main)
    assert found == FILES
    for name in FILES:
        (home.path / "conf.d" / name).unlink()
    assert put(home, found) == Placed(("app-work.yaml", "account-alice@contoso.com.yaml"), (), ())
    assert read_files(home.main) == FILES
    assert {(home.path / "conf.d" / name).stat().st_mode & 0o777 for name in FILES} == {0o600}


def test_without_a_main_file_or_folder_there_is_nothing(home: Folder) -> None:
    assert read_files(None) == read_files(home.main) == {}


def test_what_cannot_be_read_is_told(home: Folder) -> None:
    (home.path / "conf.d").mkdir()
    (home.path / "conf.d" / "bad.yaml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError):
        read_files(home.main)


def test_once_more_changes_nothing(home: Folder) -> None:
    put(home)
    before = {name: (home.path / "conf.d" / name).stat().st_ino for name in FILES}
    assert put(home) == Placed((), tuple(FILES), ())
    assert {name: (home.path / "conf.d" / name).stat().st_ino for name in FILES} == before


def test_a_file_that_differs_here_is_kept_unless_it_is_to_be_replaced(home: Folder) -> None:
    put(home)
    changed = {**FILES, "app-work.yaml": APP.replace("organizations", "consumers")}
    assert put(home, changed) == Placed((), ("account-alice@contoso.com.yaml",), ("app-work.yaml",))
    assert read_files(home.main) == FILES
    assert put(home, changed, replace=True).written == ("app-work.yaml",)
    assert read_files(home.main) == changed


def test_a_rehearsal_says_the_same_and_writes_nothing(home: Folder) -> None:
    told = put(home, rehearse=True)
    assert written(home) == []
    assert put(home) == told


def test_what_would_not_load_is_not_written(home: Folder) -> None:
    finding = refused(home, {"account-alice@contoso.com.yaml": ALICE, "app-work.yaml": "apps: {}\n"})
    assert "work" in finding.problem
    assert written(home) == []


def test_what_is_there_is_judged_with_it(home: Folder) -> None:
    home.write("config.yaml", f"page: off\n{APP}")
    finding = refused(home, {"app-work.yaml": APP})
    assert "defined twice" in finding.problem
    assert written(home) == []


@pytest.mark.parametrize("name", ["../config.yaml", "a/b.yaml", ".hidden.yaml", "config", "two\nlines.yaml"])
def test_a_strange_name_is_refused(home: Folder, name: str) -> None:
    assert "strange name" in refused(home, {name: "apps: {}\n"}).problem
    assert written(home) == []
    assert (home.main).read_text() == "page: off\n"


def test_an_app_comes_before_its_accounts(home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_after_the_first(folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(text)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("proxy.config.bundle.write_atomically", stop_after_the_first)
    assert refused(home, FILES).problem == "cannot be changed: no space left on device"
    assert written(home) == ["app-work.yaml"]
    read(home.main, home.environ)
    monkeypatch.undo()
    assert put(home).written == ("account-alice@contoso.com.yaml",)


def test_a_link_in_the_folders_place_is_not_followed(home: Folder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (home.path / "conf.d").symlink_to(tmp_path / "elsewhere")
    assert refused(home, FILES).problem.startswith("cannot be changed")
    assert os.listdir(tmp_path / "elsewhere") == []
