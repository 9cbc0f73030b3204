"""What the desk does with the store as a whole, while an office works on it (`custody.py`)."""

from __future__ import annotations

import base64
import sqlite3
from typing import Any

import pytest

from proxy.accounts.backup import Head, open_records
from proxy.accounts.sealed import SealedTable
from proxy.app.answers import DeskError
from proxy.app.custody import SPOOL
from proxy.config.files import write_atomically
from proxy.demo import browser
from proxy.demo.identity import IdentityProvider
from tests.app.home import ALICE, DESK, Beside

BACK = "http://localhost:51234"
GRANT = f"grant/work/{ALICE}"
KEY = bytes(range(32))
HEAD = Head("2026-10-17T08:00:00Z", bytes(16)).text


class Asking:
    """The desk of an office where Alice has signed in, asked from the test's thread."""

    def __init__(self, beside: Beside, identity: IdentityProvider) -> None:
        self.beside = beside
        self.identity = identity
        self.sign_in()

    def __call__(self, verb: str, **arguments: Any) -> Any:
        return self.beside.turning.wait(lambda: self.beside.desk.ask(verb, arguments))

    def sign_in(self) -> None:
        begun = self("begin_code", login=ALICE, redirect_uri=BACK)
        self("finish_code", id=begun["id"], query=browser.sign_in(begun["address"], self.identity.ca_file).fields)

    def state(self, login: str = ALICE) -> dict[str, Any]:
        (row,) = [row for row in self("accounts")["accounts"] if row["login"] == login]
        return dict(row)

    def token(self) -> str:
        """As a login gets it."""
        (alice,) = [each for each in self.beside.office.config.accounts if each.name == ALICE]
        return self.beside.turning.wait(lambda: self.beside.office.tokens.access(alice, user=ALICE)).token

    def stand_at(self, sql: str) -> None:
        """Said to SQLite, past the store."""
        table = self.beside.office.store._table
        assert isinstance(table, SealedTable)
        table._rows.conn.select_one(sql)

    def back_up(self) -> str:
        return str(self("back_up", key=base64.b64encode(KEY).decode(), head=HEAD)["box"])

    def restore(self, box: str, *, key: bytes = KEY, replace: bool = False, rehearse: bool = False) -> Any:
        write_atomically(self.beside.office.state_dir, SPOOL, box)
        return self("restore", key=base64.b64encode(key).decode(), head=HEAD, replace=replace, rehearse=rehearse)


@pytest.fixture
def ask(beside_furnished: Beside, identity: IdentityProvider) -> Asking:
    return Asking(beside_furnished, identity)


def test_a_store_that_is_well(ask: Asking) -> None:
    assert ask("store") == {"records": 1, "trouble": None, "trouble_since": None}


def test_a_store_that_takes_no_write_is_told_by_the_states_too_and_logins_go_on(ask: Asking) -> None:
    ask.stand_at("PRAGMA query_only=1")
    told = ask("store")
    assert "readonly database" in told["trouble"]
    assert told["trouble_since"].endswith("Z")
    assert f"since {told['trouble_since']}" in ask.state()["warning"]
    assert ask.state(DESK)["warning"] is None, "an app's own tokens are never stored"
    assert ask.token()
    ask.stand_at("PRAGMA query_only=0")
    assert ask("store")["trouble"] is None
    assert ask.state()["warning"] is None


def test_a_sign_in_on_a_full_disk_holds_in_memory(ask: Asking) -> None:
    ask("sign_out", login=ALICE)
    ask.stand_at("PRAGMA query_only=1")
    ask.sign_in()
    assert ask.state()["state"] == "connecting"
    assert "kept in memory only" in ask.state()["warning"]
    assert ask.token()
    assert ask("store")["records"] == 0
    ask.stand_at("PRAGMA query_only=0")


def test_a_new_key_while_logins_go_on(ask: Asking) -> None:
    key = ask.beside.office.state_dir / "mailferry.key"
    before, token = key.read_text(), ask.token()
    assert ask("rotate_key") == {"records": 1, "left_to_do": ""}
    assert key.read_text() != before
    assert ask.token() == token
    assert ask("sign_out", login=ALICE), "what is written now is sealed with it"
    ask.sign_in()
    assert ask("store")["records"] == 1


def test_a_key_that_cannot_be_made_is_told(ask: Asking) -> None:
    strange = ask.beside.office.state_dir / "mailferry.key.next"
    strange.write_text("my notes")
    strange.chmod(0o600)
    with pytest.raises(DeskError, match="does not hold a key"):
        ask("rotate_key")
    assert ask.token()


def test_tokens_leave_sealed_only(ask: Asking) -> None:
    box = ask.back_up()
    snapshot = open_records(KEY, HEAD, box)
    assert list(snapshot.records) == [GRANT]
    assert ask.token() in str(snapshot.records[GRANT].data)
    assert ask.token() not in str(base64.b64decode(box))


def test_a_restored_grant_is_used_at_once(ask: Asking) -> None:
    box, token = ask.back_up(), ask.token()
    ask("sign_out", login=ALICE)
    assert ask.restore(box) == {"written": [], "same": [], "kept": [GRANT]}, "signed out is newer"
    assert ask.state()["state"] == "sign_in_needed"
    assert ask.restore(box, replace=True, rehearse=True)["written"] == [GRANT]
    assert ask.state()["state"] == "sign_in_needed"
    assert ask.restore(box, replace=True)["written"] == [GRANT]
    assert ask.state()["state"] == "connecting"
    assert ask.token() == token
    assert ask.restore(box, replace=True) == {"written": [], "same": [GRANT], "kept": []}


def test_the_grant_that_a_login_uses_now_is_replaced_too(ask: Asking) -> None:
    box, old = ask.back_up(), ask.token()
    ask.sign_in()
    assert ask.token() != old
    assert ask.restore(box)["kept"] == [GRANT]
    assert ask.token() != old
    assert ask.restore(box, replace=True)["written"] == [GRANT]
    assert ask.token() == old
    ask.sign_in()  # whose save must not be superseded by what memory thinks is there
    assert ask.token() != old
    assert ask.token() in str(open_records(KEY, HEAD, ask.back_up()).records[GRANT].data)


def test_what_was_not_saved_yet_does_not_undo_a_restore(ask: Asking) -> None:
    box, old = ask.back_up(), ask.token()
    ask.stand_at("PRAGMA query_only=1")
    ask.sign_in()
    ask.stand_at("PRAGMA query_only=0")
    assert ask.restore(box, replace=True)["same"] == [GRANT], "nothing else was ever stored"
    assert ask.token() != old, "the sign-in that a person made stands, and is saved when that is tried again"


@pytest.mark.parametrize(("key", "told"), [(bytes(32), "passphrase is not the one"), (KEY, "not whole")])
def test_what_does_not_open_changes_nothing(ask: Asking, key: bytes, told: str) -> None:
    box = ask.back_up() if key != KEY else "nonsense"
    with pytest.raises(DeskError, match=told):
        ask.restore(box, key=key)
    assert ask("store")["records"] == 1


def test_without_the_file_nothing_is_restored(ask: Asking) -> None:
    with pytest.raises(DeskError, match=f"{SPOOL} cannot be opened: no such file or directory"):
        ask("restore", key=base64.b64encode(KEY).decode(), head=HEAD)


def test_the_file_of_the_store_stays_whole(ask: Asking) -> None:
    ask("rotate_key")
    ask.restore(ask.back_up(), replace=True)
    copy = ask.beside.office.state_dir / "copy.sqlite"
    for end in ("", "-wal"):
        source = ask.beside.office.state_dir / f"tokens.sqlite{end}"
        copy.with_name(f"copy.sqlite{end}").write_bytes(source.read_bytes())
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
