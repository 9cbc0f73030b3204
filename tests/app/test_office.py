"""The office: what it gives back, what it keeps over a reload, and that it ends whatever hangs."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from proxy.accounts import tokens
from proxy.accounts.keys import KeyUnusable, key_place
from proxy.accounts.store import StateFolderHeld, StoreDamaged, lock_state_folder
from proxy.app.office import Office, OfficeReactor
from proxy.demo.doors import DISCOVERY
from proxy.demo.identity import Failure, IdentityProvider
from proxy.login import Credentials, LoginRefused
from tests.app.home import ALICE, Beside, Home, Turning
from tests.servers.child import wait_until


def office(home: Home, turning: Turning) -> Office:
    return Office(home.config(), cast("OfficeReactor", turning.reactor))


def test_one_office_at_a_time(home: Home, beside: Beside) -> None:
    with pytest.raises(StateFolderHeld):
        office(home, beside.turning)


def test_the_folder_is_given_back(home: Home, turning_reactor: Turning) -> None:
    with closing(Beside(home, turning_reactor)):
        pass
    lock_state_folder(home.state_dir).release()


def test_the_folder_is_given_back_without_a_key(home: Home, turning_reactor: Turning) -> None:
    home.state_dir.mkdir(mode=0o700)
    config = home.config()
    config.key.file.write_text("nonsense")
    with pytest.raises(KeyUnusable):
        turning_reactor.wait(Office(config, cast("OfficeReactor", turning_reactor.reactor)).open)
    lock_state_folder(home.state_dir).release()


def test_the_folder_is_given_back_without_a_store(home: Home, turning_reactor: Turning) -> None:
    home.state_dir.mkdir(mode=0o700)
    key_place(home.config().key).read(make=True)
    (home.state_dir / "tokens.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreDamaged):
        turning_reactor.wait(office(home, turning_reactor).open)
    lock_state_folder(home.state_dir).release()


def test_a_new_configuration_is_used_at_once(home: Home, beside: Beside) -> None:
    home.add_app()
    password = home.add_account().encode()
    new = Credentials(ALICE.encode(), password)

    async def verify() -> Any:
        return await beside.office.passdb.verify(new, protocol="imap", peer=None)

    assert beside.turning.wait(verify).name == ALICE, "the command told the desk to reload"
    home.run("account", "remove", ALICE)
    with pytest.raises(LoginRefused):
        beside.turning.wait(verify)


def test_what_hangs_at_microsoft_does_not_hold_up_the_end(
    furnished: Home, turning_reactor: Turning, identity: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CLOSE_S", 0.1)
    identity.fail(Failure.HANGS, at=(DISCOVERY,))
    begun: list[Deferred[Any]] = []
    with closing(Beside(furnished, turning_reactor)) as beside:
        (alice, _) = beside.office.config.accounts

        def begin() -> None:
            coroutine = beside.office.sign_ins.begin_code(alice, "http://localhost:1")
            begun.append(Deferred.fromCoroutine(coroutine))

        turning_reactor.call(begin)
        wait_until("it is on its way", lambda: identity.requests)
    at_microsoft = [thread for thread in threading.enumerate() if "microsoft" in thread.name]
    assert [thread.daemon for thread in at_microsoft] == [True], "it hangs still, and keeps no process alive"
    lock_state_folder(furnished.state_dir).release()
    identity.heal()
