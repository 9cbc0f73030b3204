from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.config import (
    ConfigurationError,
    Value,
    add_password,
    change_account,
    change_app,
    conf_d,
    is_ours,
    judge_app,
    read,
    remove_account,
    remove_app,
    remove_password,
    write_account,
    write_app,
)
from tests.config.conftest import GUID, HASH, Folder

OTHER_HASH = HASH.replace("ln=14", "ln=15")
APP: dict[str, Value] = {"application_id": GUID, "account_types": "organizations"}


def account(login: Value, app: str = "work") -> dict[str, Value]:
    return {"login": login, "app": app, "password": HASH}


@pytest.fixture
def made(folder: Folder) -> Folder:
    """A main file of defaults, and one app and one account that mailferry wrote."""
    folder.write("config.yaml", "hostname: localhost\n")
    write_app(folder.main, "work", APP, folder.environ)
    write_account(folder.main, account("alice@contoso.com"), folder.environ)
    return folder


def files(folder: Folder) -> dict[str, str]:
    """Everything in conf.d, with its content."""
    return {file.name: file.read_text(encoding="utf-8") for file in sorted((folder.path / "conf.d").iterdir())}


def logins(folder: Folder) -> list[str]:
    return [each.name for each in read(folder.main, folder.environ).config.accounts]


def told(error: pytest.ExceptionInfo[ConfigurationError]) -> tuple[str, int, str, str]:
    [finding] = error.value.findings
    return finding.file.name, finding.line, finding.key, finding.problem


def test_one_file_for_each_private_and_readable_by_people(made: Folder) -> None:
    assert files(made) == {
        "account-alice@contoso.com.yaml": (
            "# Written by mailferry, which rewrites and removes it by its commands and its page.\n"
            f"accounts:\n- login: alice@contoso.com\n  app: work\n  password: {HASH}\n"
        ),
        "app-work.yaml": (
            "# Written by mailferry, which rewrites and removes it by its commands and its page.\n"
            f"apps:\n  work:\n    application_id: {GUID}\n    account_types: organizations\n"
        ),
    }
    folder = made.path / "conf.d"
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert {file.stat().st_mode & 0o7777 for file in folder.iterdir()} == {0o600}
    assert logins(made) == ["alice@contoso.com"]


def test_writing_returns_the_file_and_replaces_what_mailferry_wrote(made: Folder) -> None:
    file = write_app(made.main, "work", {**APP, "enabled": False, "ca_file": None}, made.environ)
    assert file == made.path / "conf.d/app-work.yaml"
    assert read(made.main, made.environ).config.apps["work"].enabled is False
    assert "ca_file" not in file.read_text()
    other = write_account(made.main, {**account("alice@contoso.com"), "imap_connections": 4}, made.environ)
    assert other == made.path / "conf.d/account-alice@contoso.com.yaml"
    assert read(made.main, made.environ).config.accounts[0].imap_connections == 4
    assert len(files(made)) == 2


@pytest.mark.parametrize(
    ("login", "name"),
    [
        ("../../etc/passwd@x.y", "account-..%2F..%2Fetc%2Fpasswd@x.y.yaml"),
        ("a%2Fb@x.y", "account-a%252fb@x.y.yaml"),
        ("a b@x.y", "account-a%20b@x.y.yaml"),
        ("Ü@x.y", "account-%C3%BC@x.y.yaml"),
        ("BOB@X.y", "account-bob@x.y.yaml"),
        ("~bob+tag@x.y", "account-~bob+tag@x.y.yaml"),
    ],
)
def test_file_names_are_safe_and_never_the_same_for_two_logins(made: Folder, login: str, name: str) -> None:
    keys = {**account(login), "mailbox": "mailbox@x.y"}
    assert write_account(made.main, keys, made.environ).name == name
    assert sorted(logins(made)) == sorted(["alice@contoso.com", login])
    remove_account(made.main, login, made.environ)
    assert name not in files(made)


@pytest.mark.parametrize("login", ["", "a\0b", "a\nb", "ü" * 60 + "@x.y", "a\udcff"])
def test_what_cannot_be_a_files_name(made: Folder, login: str) -> None:
    before = files(made)
    with pytest.raises(ConfigurationError, match="no file can have this name"):
        write_account(made.main, account(login), made.environ)
    assert files(made) == before


def test_what_would_not_load_is_not_written(made: Folder) -> None:
    before = files(made)
    with pytest.raises(ConfigurationError) as error:
        write_account(made.main, {"login": "bob@x.y", "app": "wrk", "password": "plain"}, made.environ)
    assert [(each.file.name, each.line, each.key) for each in error.value.findings] == [
        ("account-bob@x.y.yaml", 4, "accounts[0].app"),
        ("account-bob@x.y.yaml", 5, "accounts[0].password"),
    ]
    with pytest.raises(ConfigurationError) as error:
        write_app(made.main, "work", {**APP, "application_id": "x"}, made.environ)
    assert told(error)[:3] == ("app-work.yaml", 4, "apps.work.application_id")
    assert files(made) == before


def test_a_name_that_stands_elsewhere_is_not_written_again(made: Folder) -> None:
    before = files(made)
    made.write("config.yaml", f"apps:\n  mine: {{application_id: {GUID}}}\n")
    with pytest.raises(ConfigurationError) as error:
        write_app(made.main, "Mine", APP, made.environ)
    problem = f"app 'Mine' is defined twice, first at {made.main}:2"
    assert told(error) == ("app-mine.yaml", 3, "apps.Mine", problem)
    with pytest.raises(ConfigurationError, match=r"login 'ALICE@contoso\.com' is defined twice"):
        write_account(made.main, account(["bob@x.y", "ALICE@contoso.com"]), made.environ)
    assert files(made) == before


def test_a_secret_may_be_written_and_stays_private(made: Folder) -> None:
    file = write_app(made.main, "web", {**APP, "client_secret": "Q~hunter2"}, made.environ)
    secret = read(made.main, made.environ).config.apps["web"].client_secret
    assert secret is not None
    assert secret.value == "Q~hunter2"
    assert file.stat().st_mode & 0o7777 == 0o600


def test_removing(made: Folder) -> None:
    assert remove_account(made.main, "ALICE@contoso.com", made.environ).name == "account-alice@contoso.com.yaml"
    assert remove_app(made.main, "work", made.environ).name == "app-work.yaml"
    assert files(made) == {}


def test_an_account_is_found_by_any_of_its_logins(made: Folder) -> None:
    write_account(made.main, account(["bob@x.y", "bobby"]), made.environ)
    remove_account(made.main, "Bobby", made.environ)
    assert logins(made) == ["alice@contoso.com"]


def test_an_app_that_accounts_use_stays(made: Folder) -> None:
    before = files(made)
    with pytest.raises(ConfigurationError) as error:
        remove_app(made.main, "work", made.environ)
    assert told(error) == ("account-alice@contoso.com.yaml", 4, "accounts[0].app", "there is no app 'work'")
    assert files(made) == before


def test_what_a_person_wrote_is_not_removed(made: Folder) -> None:
    main = f"accounts:\n- {{login: mine@x.y, app: work, password: '{HASH}'}}\n"
    made.write("config.yaml", main)
    team = f"# the team\naccounts:\n- {{login: team@x.y, app: work, password: '{HASH}'}}\n"
    made.write("conf.d/team.yaml", team)
    before = files(made)
    for login, file, line in (("mine@x.y", "config.yaml", 2), ("team@x.y", "team.yaml", 3)):
        with pytest.raises(ConfigurationError) as error:
            remove_account(made.main, login, made.environ)
        problem = f"account '{login}' stands in a file that you wrote, and mailferry does not change it"
        assert told(error) == (file, line, "accounts[0]", problem)
        with pytest.raises(ConfigurationError, match="stands in a file that you wrote"):
            add_password(made.main, login, {"hash": OTHER_HASH}, made.environ)
    assert made.main.read_text() == main
    assert files(made) == before


def test_a_file_of_ours_to_which_a_person_added_more_is_theirs(made: Folder) -> None:
    file = made.path / "conf.d/account-alice@contoso.com.yaml"
    with file.open("a") as opened:
        opened.write(f"- {{login: bob@x.y, app: work, password: '{HASH}'}}\n")
    before = files(made)
    changes: list[Callable[[], Path]] = [
        lambda: remove_account(made.main, "alice@contoso.com", made.environ),
        lambda: write_account(made.main, account("alice@contoso.com"), made.environ),
        lambda: add_password(made.main, "alice@contoso.com", {"hash": OTHER_HASH}, made.environ),
    ]
    for change in changes:
        with pytest.raises(ConfigurationError) as error:
            change()
        assert told(error)[:3] == (file.name, 6, "accounts[1]")
    assert files(made) == before


def test_what_is_not_there(made: Folder) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no account 'bob@x\.y'; see `mailferry account list`"):
        remove_account(made.main, "bob@x.y", made.environ)
    with pytest.raises(ConfigurationError, match="there is no app 'none'; see `mailferry app list`"):
        remove_app(made.main, "none", made.environ)
    with pytest.raises(ConfigurationError, match="there is no account"):
        add_password(made.main, "bob@x.y", {"hash": HASH}, made.environ)


def test_nothing_is_changed_beside_a_configuration_that_does_not_load(made: Folder) -> None:
    made.write("config.yaml", "hostnam: x\n")
    before = files(made)
    with pytest.raises(ConfigurationError) as error:
        remove_account(made.main, "alice@contoso.com", made.environ)
    assert told(error)[:3] == ("config.yaml", 1, "hostnam")
    made.main.unlink()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        write_app(made.main, "more", APP, made.environ)
    assert files(made) == before


def test_a_further_password_and_a_new_one_of_the_same_name(made: Folder) -> None:
    login = "Alice@contoso.com"
    scanner: dict[str, Value] = {"hash": HASH, "name": "scanner", "protocols": ["smtp"], "from": ["10.0.0.0/8"]}
    assert add_password(made.main, login, scanner, made.environ).name == "account-alice@contoso.com.yaml"
    add_password(made.main, login, {"hash": OTHER_HASH}, made.environ)
    add_password(made.main, login, {**scanner, "hash": OTHER_HASH, "from": None}, made.environ)
    [alice] = read(made.main, made.environ).config.accounts
    assert [(each.name, each.hash, each.protocols, each.networks) for each in alice.passwords] == [
        ("main", OTHER_HASH, ("imap", "pop3", "smtp"), ()),
        ("scanner", OTHER_HASH, ("smtp",), ()),
    ]
    assert alice.logins == ("alice@contoso.com",)


def test_a_password_keeps_the_accounts_other_keys(made: Folder) -> None:
    keys: dict[str, Value] = {
        **account(["bob@x.y", "123"]),
        "mailbox": "sales@x.y",
        "protocols": ["imap"],
        "imap_connections": 3,
    }
    write_account(made.main, keys, made.environ)
    before = read(made.main, made.environ).config.accounts[1]
    add_password(made.main, "bob@x.y", {"hash": HASH, "name": "pda"}, made.environ)
    after = read(made.main, made.environ).config.accounts[1]
    assert after.passwords[0] == before.passwords[0]
    assert [each.name for each in after.passwords] == ["main", "pda"]
    assert (after.logins, after.mailbox, after.protocols, after.imap_connections) == (
        ("bob@x.y", "123"),
        "sales@x.y",
        ("imap",),
        3,
    )


def test_a_hash_that_is_none_is_not_added(made: Folder) -> None:
    before = files(made)
    with pytest.raises(ConfigurationError, match="is not a scrypt hash") as error:
        add_password(made.main, "alice@contoso.com", {"hash": "hunter2", "name": "pda"}, made.environ)
    assert "hunter2" not in str(error.value)
    assert files(made) == before


def failing(*args: object, **named: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["fchmod", "fsync", "rename"])
def test_a_disk_that_fails_at_any_step_changes_nothing(
    made: Folder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = files(made)
    changes: list[Callable[[], Path]] = [
        lambda: write_app(made.main, "work", {**APP, "enabled": False}, made.environ),
        lambda: write_account(made.main, account("bob@x.y"), made.environ),
        lambda: add_password(made.main, "alice@contoso.com", {"hash": OTHER_HASH}, made.environ),
    ]
    for change in changes:
        monkeypatch.setattr(os, step, failing)
        with pytest.raises(ConfigurationError) as error:
            change()
        monkeypatch.undo()
        assert told(error)[3] == "cannot be written: no space left on device"
        assert files(made) == before


def test_an_account_that_sends_for_devices_is_not_removed(made: Folder) -> None:
    row = "{protocol: smtp, implicit_account: alice@contoso.com, allow_from: 10.0.0.1}"
    made.write("config.yaml", f"hostname: localhost\nlisteners:\n- {row}\n")
    before = files(made)
    with pytest.raises(ConfigurationError) as error:
        remove_account(made.main, "alice@contoso.com", made.environ)
    problem = "there is no sound account 'alice@contoso.com'"
    assert told(error) == ("config.yaml", 3, "listeners[0].implicit_account", problem)
    assert files(made) == before


def test_a_file_that_cannot_be_removed(made: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(made)
    monkeypatch.setattr(os, "unlink", failing)
    with pytest.raises(ConfigurationError, match="cannot be removed: no space left on device"):
        remove_account(made.main, "alice@contoso.com", made.environ)
    assert files(made) == before


def test_a_link_is_neither_followed_nor_replaced(made: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    file = made.path / "conf.d/app-work.yaml"
    file.rename(outside)
    file.symlink_to(outside)
    text = outside.read_text()
    changes: list[Callable[[], Path]] = [
        lambda: write_app(made.main, "work", {**APP, "enabled": False}, made.environ),
        lambda: remove_app(made.main, "work", made.environ),
    ]
    for change in changes:
        with pytest.raises(ConfigurationError, match="is a symbolic link or no file, and is not touched"):
            change()
    assert outside.read_text() == text
    assert file.is_symlink()


def test_a_conf_d_that_is_a_link_is_not_entered(folder: Folder, tmp_path: Path) -> None:
    folder.write("config.yaml", "")
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder.path / "conf.d").symlink_to(outside)
    with pytest.raises(ConfigurationError, match="must be no symbolic link"):
        write_app(folder.main, "work", APP, folder.environ)
    assert os.listdir(outside) == []


def test_changes_wait_for_each_other(made: Folder) -> None:
    """Each change reads what the one before it wrote: no password is lost."""
    names = [f"device{number}" for number in range(8)]
    failures: list[BaseException] = []

    def add(name: str) -> None:
        try:
            add_password(made.main, "alice@contoso.com", {"hash": HASH, "name": name}, made.environ)
        except ConfigurationError as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    [alice] = read(made.main, made.environ).config.accounts
    assert sorted(each.name for each in alice.passwords) == sorted(["main", *names])


def test_the_longest_name_leaves_room_for_the_temporary_file(made: Folder) -> None:
    login = "a" * (conf_d.MAX_FILE_NAME_OCTETS - 4) + "@x.y"
    assert write_account(made.main, account(login), made.environ).exists()


def test_a_change_keeps_the_other_keys(made: Folder) -> None:
    write_app(made.main, "work", {**APP, "client_secret": "old~secret"}, made.environ)
    change_app(made.main, "WORK", {"account_types": "consumers", "enabled": False}, made.environ)
    app = read(made.main, made.environ).config.apps["work"]
    assert (app.account_types, app.enabled) == ("consumers", False)
    assert app.client_secret is not None
    assert app.client_secret.value == "old~secret"
    change_app(made.main, "work", {"client_secret": None, "enabled": None}, made.environ)
    app = read(made.main, made.environ).config.apps["work"]
    assert (app.client_secret, app.enabled) == (None, True)
    change_account(made.main, "Alice@contoso.com", {"mailbox": "sales@contoso.com"}, made.environ)
    account = read(made.main, made.environ).config.accounts[0]
    assert (account.name, account.mailbox, account.passwords[0].hash) == (
        "alice@contoso.com",
        "sales@contoso.com",
        HASH,
    )
    change_account(made.main, "alice@contoso.com", {"mailbox": None}, made.environ)
    assert "mailbox" not in files(made)["account-alice@contoso.com.yaml"]


def test_a_change_that_would_not_load_is_not_made(made: Folder) -> None:
    before = files(made)
    with pytest.raises(ConfigurationError, match="account_types"):
        change_app(made.main, "work", {"account_types": "nonsense"}, made.environ)
    with pytest.raises(ConfigurationError, match="there is no app 'other'"):
        change_account(made.main, "alice@contoso.com", {"app": "other"}, made.environ)
    with pytest.raises(ConfigurationError, match="there is no app 'play'"):
        change_app(made.main, "play", {}, made.environ)
    assert files(made) == before


def test_judging_writes_nothing(made: Folder) -> None:
    before = files(made)
    judge_app(made.main, "play", APP, made.environ)
    with pytest.raises(ConfigurationError) as caught:
        judge_app(made.main, "play", {"application_id": "x", "account_types": "y"}, made.environ)
    assert [finding.key for finding in caught.value.findings] == ["apps.play.application_id", "apps.play.account_types"]
    assert files(made) == before


def test_taking_a_password_away(made: Folder) -> None:
    login = "alice@contoso.com"
    add_password(made.main, login, {"hash": OTHER_HASH, "name": "phone"}, made.environ)
    remove_password(made.main, login, "phone", made.environ)
    assert [local.name for local in read(made.main, made.environ).config.accounts[0].passwords] == ["main"]
    with pytest.raises(ConfigurationError, match="there is no password 'phone'"):
        remove_password(made.main, login, "phone", made.environ)
    with pytest.raises(ConfigurationError, match="'main' is its only password"):
        remove_password(made.main, login, "main", made.environ)


def test_what_is_ours(made: Folder) -> None:
    assert is_ours(made.main, "app", "Work")
    assert is_ours(made.main, "account", "alice@contoso.com")
    assert not is_ours(made.main, "app", "play")
