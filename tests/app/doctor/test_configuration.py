"""The files: `configuration.py`. That secrets and keys are private, the configuration itself sees to."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from proxy.app.doctor import configuration
from proxy.app.doctor.configuration import check_configuration, check_files
from proxy.app.doctor.findings import Verdict
from proxy.login import Fault
from tests.app.doctor.scenes import only, scene_of, words
from tests.app.home import ALICE, Home


def test_one_that_holds_is_counted(furnished: Home) -> None:
    finding = only(check_configuration(scene_of(furnished)))
    assert finding.verdict is Verdict.OK
    assert f"{furnished.file} holds: 1 listener, 2 apps, 2 accounts." in finding.cause


def test_every_mistake_with_file_line_and_remedy(furnished: Home) -> None:
    furnished.file.write_text(furnished.file.read_text().replace("page: off", "pgae: off\nhostname: 'no host'"))
    first, second = (each for each in check_configuration(scene_of(furnished)) if each.verdict is Verdict.FAIL)
    assert f"{furnished.file}, line 2, pgae" in first.title
    assert "page" in first.remedy
    assert first.fault is Fault.MAILFERRY
    assert first.who == "operator"
    assert "hostname" in second.cause


def test_a_warning_stays_one(furnished: Home) -> None:
    furnished.file.chmod(0o644)
    (furnished.folder / "conf.d" / "account-alice@contoso.com.yaml").chmod(0o644)
    warnings = [each for each in check_configuration(scene_of(furnished)) if each.verdict is Verdict.WARN]
    assert len(warnings) == 1
    assert "password hashes" in words(warnings[0])
    assert "Run: chmod 600" in warnings[0].remedy


def test_no_file_no_account_no_such_account(home: Home, furnished: Home) -> None:
    scene = scene_of(home)
    scene.file = None
    assert (
        "mailferry app add" in only(each for each in check_configuration(scene) if each.title == "Configuration").remedy
    )
    finding = next(each for each in check_configuration(scene_of(furnished, "nobody")) if each.verdict is Verdict.FAIL)
    assert "mailferry account add nobody" in finding.remedy


def test_an_empty_house(home: Home) -> None:
    found = list(check_configuration(scene_of(home)))
    assert [each.verdict for each in found] == [Verdict.OK, Verdict.WARN]
    assert "mailferry app add" in found[1].remedy


def test_many_accounts_are_not_all_examined(furnished: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "MAX_ACCOUNTS", 1)
    assert "Of 2 accounts the first 1" in words(list(check_configuration(scene_of(furnished)))[-1])


def test_a_state_folder_to_be_made(furnished: Home) -> None:
    missing = furnished.folder / "missing" / "deeper"
    finding = only(configuration._state_folder(missing, os.geteuid()))
    assert finding.verdict is Verdict.OK
    assert not missing.exists(), "to look changes nothing"


@pytest.mark.parametrize(
    ("mode", "verdict", "said"),
    [(0o700, None, ""), (0o750, Verdict.WARN, "look into it"), (0o777, Verdict.FAIL, "may write in it")],
)
def test_the_state_folders_mode(tmp_path: Path, mode: int, verdict: Verdict | None, said: str) -> None:
    tmp_path.chmod(mode)
    found = list(configuration._state_folder(tmp_path, os.geteuid()))
    assert [each.verdict for each in found] == ([verdict] if verdict else [])
    assert all(said in each.cause and f"chmod 700 {tmp_path}" in each.remedy for each in found)
    assert list(tmp_path.iterdir()) == [], "what was tried is gone"


def test_a_state_folder_that_is_none_or_not_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a folder" in only(configuration._state_folder(tmp_path / "file", os.geteuid())).cause
    assert "cannot make it" in only(configuration._state_folder(Path("/proc/mailferry"), os.geteuid())).cause
    stranger = tmp_path.stat().st_uid + 1
    assert "belongs to another user" in only(configuration._state_folder(tmp_path, stranger)).cause


def test_nothing_can_be_written(tmp_path: Path) -> None:
    with mock.patch("tempfile.NamedTemporaryFile", side_effect=OSError(28, "No space left on device")):
        finding = only(configuration._state_folder(tmp_path, os.geteuid()))
    assert (finding.verdict, finding.fault) == (Verdict.FAIL, Fault.MAILFERRY)
    assert "no space left on device" in finding.cause


def test_files_that_others_can_read(furnished: Home) -> None:
    furnished.run("account", "list")  # makes the state folder, key and store
    assert [each.verdict for each in check_files(scene_of(furnished))] == [Verdict.OK]
    store = furnished.state_dir / "tokens.sqlite"
    store.chmod(0o644)
    finding = only(each for each in check_files(scene_of(furnished)) if each.verdict is Verdict.FAIL)
    assert "the tokens" in finding.cause
    assert finding.remedy == f"Run: chmod 600 {store}"
    assert finding.fault is Fault.MAILFERRY


def test_a_key_that_others_can_read_is_told_once(furnished: Home) -> None:
    furnished.run("account", "list")
    (furnished.state_dir / "mailferry.key").chmod(0o644)
    scene = scene_of(furnished, ALICE)
    told = [each for each in (*check_configuration(scene), *check_files(scene)) if "mailferry.key" in words(each)]
    assert len(told) == 1
    assert told[0].verdict is Verdict.FAIL


def test_root_may_look_at_what_is_the_daemons(furnished: Home) -> None:
    furnished.run("account", "list")
    about = {"pid": os.getpid(), "version": "1"}
    with mock.patch("os.geteuid", return_value=os.geteuid() + 1):
        assert configuration._user(scene_of(furnished)) == os.geteuid()
        assert configuration._user(scene_of(furnished, about=about)) == os.stat("/proc/self").st_uid
        assert configuration._user(scene_of(furnished, about={"pid": 2**30})) == os.geteuid()
