"""Where a command asks: the daemon if there is one, else an office of its own."""

from __future__ import annotations

from unittest import mock

import pytest
import twisted.internet

from proxy.accounts.store import lock_state_folder
from proxy.app.answers import DeskError
from proxy.app.asking import SOCKET_NAME
from proxy.app.counter import Counter, reload_daemon
from proxy.config import remove_account
from tests.app.home import ALICE, Beside, Home, new_reactor


@pytest.fixture
def inhabited(home: Home) -> Home:
    home.add_app()
    home.add_account()
    return home


def test_beside_a_daemon_it_asks_the_daemon(home: Home, beside: Beside) -> None:
    with mock.patch.object(twisted.internet, "reactor", None, create=True), Counter(home.config()) as counter:
        assert counter.ask("reload") == {"warnings": ["listeners changed"]}
        assert counter.ask("accounts") == {"accounts": []}
        with pytest.raises(DeskError, match="does not know the request"):
            counter.ask("nonsense")


def test_without_a_daemon_it_has_an_office_for_all_its_questions(inhabited: Home) -> None:
    with (
        new_reactor() as reactor,
        mock.patch.object(twisted.internet, "reactor", reactor, create=True),
        Counter(inhabited.config()) as counter,
    ):
        assert [row["login"] for row in counter.ask("accounts")["accounts"]] == [ALICE]
        assert counter.ask("sign_out", login=ALICE) == {"signed_out": ALICE}
        assert counter.ask("reload") == {"warnings": []}
        assert not (inhabited.state_dir / SOCKET_NAME).exists(), "nobody else can ask it"
    lock_state_folder(inhabited.state_dir).release()


def test_its_own_office_works_with_what_a_command_changed(inhabited: Home) -> None:
    with (
        new_reactor() as reactor,
        mock.patch.object(twisted.internet, "reactor", reactor, create=True),
        Counter(inhabited.config(), inhabited.config) as counter,
    ):
        assert counter.reload() == []
        assert not inhabited.state_dir.exists(), "for a reload alone no office is opened"
        counter.ask("accounts")
        remove_account(inhabited.file, ALICE, {})
        assert len(counter.ask("accounts")["accounts"]) == 1
        assert counter.reload() == []
        assert counter.ask("accounts") == {"accounts": []}
    lock_state_folder(inhabited.state_dir).release()


def test_reloading_without_a_daemon_is_nothing(home: Home) -> None:
    assert reload_daemon(home.config()) == []
    assert not home.state_dir.exists()


@pytest.mark.parametrize(
    "verb",
    ["account list", f"account show {ALICE}", f"account remove {ALICE}", f"sign-out {ALICE}"],
)
def test_a_state_folder_that_is_held(verb: str, inhabited: Home) -> None:
    before = inhabited.written(f"account-{ALICE}.yaml")
    folder = lock_state_folder(inhabited.state_dir)
    assert "state folder" in inhabited.run(*verb.split(), exit_code=5).errors
    assert inhabited.written(f"account-{ALICE}.yaml") == before
    folder.release()


def test_a_damaged_store(inhabited: Home) -> None:
    inhabited.run("account", "list")
    (inhabited.state_dir / "tokens.sqlite").write_bytes(b"nonsense" * 1000)
    assert "is damaged" in inhabited.run("account", "list", exit_code=1).errors
    lock_state_folder(inhabited.state_dir).release()


def test_another_key(inhabited: Home) -> None:
    inhabited.run("account", "list")
    (inhabited.state_dir / "mailferry.key").write_text("A" * 43 + "=\n")
    assert "another key" in inhabited.run("account", "list", exit_code=1).errors
    lock_state_folder(inhabited.state_dir).release()


def test_a_key_that_is_none(inhabited: Home) -> None:
    inhabited.run("account", "list")
    (inhabited.state_dir / "mailferry.key").write_text("nonsense\n")
    assert "does not hold a key" in inhabited.run("account", "list", exit_code=1).errors
    lock_state_folder(inhabited.state_dir).release()
