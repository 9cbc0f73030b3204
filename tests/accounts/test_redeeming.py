"""Another program's refresh token: `microsoft.py` redeems it, `sign_in.py` adopts it if it is the right person's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.python.threadpool import ThreadPool

from proxy.accounts.endings import AnotherPerson, Refused, SignedIn
from proxy.accounts.microsoft import Microsoft
from proxy.accounts.outcomes import Granted, SignInAgain
from proxy.accounts.sign_in import SignIns
from proxy.accounts.states import AccountStates
from proxy.accounts.tokens import Holder, Tokens
from proxy.config.settings import App
from proxy.demo.identity import IdentityProvider
from tests.accounts.fakes import (
    ALICE,
    APP,
    DAEMON,
    FakeMicrosoft,
    Inbox,
    MemoryStore,
    WallClock,
    account,
    again,
    done,
    granted,
    result,
    running,
)
from tests.app.importing.granting import granted_elsewhere

BOB = "bob@contoso.com"


class Hall:
    def __init__(self) -> None:
        self.microsoft, clock = FakeMicrosoft(), WallClock()
        self.tokens = Tokens(MemoryStore(), self.microsoft, clock, AccountStates(), now=clock.seconds)
        self.sign_ins = SignIns(self.microsoft, self.tokens, clock, now=clock.seconds)


@pytest.fixture
def hall() -> Hall:
    return Hall()


def test_a_token_of_the_accounts_person_is_adopted(hall: Hall) -> None:
    redeeming = running(hall.sign_ins.redeem(ALICE, "old-token"))
    assert hall.microsoft.asked == [("redeem_refresh_token", "old-token")]
    hall.microsoft.answer(granted(1))
    assert result(redeeming) == SignedIn(ALICE.name, ALICE.name)
    assert isinstance(done(hall.tokens.holder(ALICE)), Holder)


def test_a_token_of_somebody_else_changes_nothing(hall: Hall) -> None:
    redeeming = running(hall.sign_ins.redeem(ALICE, "old-token"))
    hall.microsoft.answer(granted(1, username=BOB))
    assert result(redeeming) == AnotherPerson(BOB)
    assert done(hall.tokens.holder(ALICE)) is None


def test_where_microsoft_names_nobody_the_account_is_meant(hall: Hall) -> None:
    shared = account("sales@contoso.com", sign_in=BOB)
    redeeming = running(hall.sign_ins.redeem(shared, "old-token"))
    hall.microsoft.answer(granted(1, username=""))
    assert result(redeeming) == SignedIn(shared.name, BOB)


def test_a_token_that_is_refused(hall: Hall) -> None:
    redeeming = running(hall.sign_ins.redeem(ALICE, "old-token"))
    hall.microsoft.answer(again())
    assert isinstance(result(redeeming), Refused)


def test_an_app_that_signs_in_by_itself_takes_none(hall: Hall) -> None:
    assert isinstance(done(hall.sign_ins.redeem(account(app=DAEMON), "old-token")), Refused)
    assert hall.microsoft.asked == []


# --- at the stand-in


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[IdentityProvider]:
    with IdentityProvider(tmp_path) as provider:
        provider.add_person(ALICE.name)
        provider.add_app(APP.application_id)
        provider.sign_in_as(ALICE.name)
        yield provider


def redeem(app: App, token: str) -> object:
    inbox, pool = Inbox(), ThreadPool(0, 1)
    pool.start()
    try:
        return inbox.wait(Microsoft(pool, inbox).redeem_refresh_token(app, token))  # type: ignore[arg-type]
    finally:
        pool.stop()


@pytest.mark.parametrize("scopes", ["openid profile offline_access", "offline_access"])
def test_a_token_of_another_program_is_redeemed(identity: IdentityProvider, scopes: str) -> None:
    app = replace(APP, authority=identity.authority, own_authority=True, ca_file=identity.ca_file)
    outcome = redeem(app, granted_elsewhere(identity, APP.application_id, scopes))
    assert isinstance(outcome, Granted)
    assert outcome.cache
    assert outcome.username in (ALICE.name, "")


def test_what_is_no_token_is_refused(identity: IdentityProvider) -> None:
    app = replace(APP, authority=identity.authority, own_authority=True, ca_file=identity.ca_file)
    assert isinstance(redeem(app, "1.nonsense"), SignInAgain)
