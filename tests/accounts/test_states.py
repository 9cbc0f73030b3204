"""Account states: which part decides, since when, and what is remembered of errors."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import pytest

from proxy.accounts.states import (
    IDLE_WARNING_S,
    REFRESH_IDLE_LIFE_S,
    AccountStates,
    State,
    TokenCondition,
    Trouble,
    secret_warning,
)
from proxy.login import Fault, LoginRefused, Refusal, Trace
from tests.accounts.fakes import ALICE, APP, NOW_S, WallClock, account

GOOD = TokenCondition(None, NOW_S + 3600)


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def states(clock: WallClock) -> AccountStates:
    return AccountStates(clock.seconds)


def refused(refusal: Refusal, fault: Fault = Fault.EXCHANGE) -> LoginRefused:
    return LoginRefused(refusal, f"because of {refusal.value}", fault=fault)


def test_the_words_are_those_that_people_script_against() -> None:
    """PRODUCT 4."""
    words = "sign_in_needed signing_in connecting connected authentication_error connect_error disabled"
    assert {state.value for state in State} == set(words.split())


def test_before_anything_is_known_an_account_is_connecting(states: AccountStates) -> None:
    assert states.report(ALICE) == {
        "state": "connecting",
        "since": "2027-01-15T08:00:00Z",
        "last_success": None,
        "last_error": None,
        "last_error_at": None,
        "fault": None,
        "who": None,
        "error_code": None,
        "correlation_id": None,
        "error_at": None,
        "remedy": None,
        "warning": None,
        "token_expires_at": None,
        "refresh_token_idle_expires_at": None,
        "client_secret_expires": None,
    }


def test_a_disabled_app_decides_above_all(states: AccountStates) -> None:
    off = replace(ALICE, app=replace(APP, enabled=False))
    states.token_changed(off.identity, TokenCondition(State.SIGN_IN_NEEDED))
    states.login_succeeded(off)
    assert states.state(off) is State.DISABLED
    assert "--enable" in str(states.report(off)["remedy"])


def test_the_token_decides_above_the_login(states: AccountStates) -> None:
    states.token_changed(ALICE.identity, GOOD)
    states.login_succeeded(ALICE)
    states.token_changed(ALICE.identity, TokenCondition(State.SIGN_IN_NEEDED))
    report = states.report(ALICE)
    assert report["state"] == "sign_in_needed"
    assert report["remedy"] == "Run: mailferry sign-in alice@contoso.com"
    states.token_changed(ALICE.identity, TokenCondition(State.SIGNING_IN, remedy="enter the code"))
    assert (states.report(ALICE)["state"], states.report(ALICE)["remedy"]) == ("signing_in", "enter the code")


def test_a_sign_in_makes_an_earlier_login_old_news(states: AccountStates, clock: WallClock) -> None:
    states.token_changed(ALICE.identity, GOOD)
    states.login_failed(ALICE, refused(Refusal.REFUSED_UPSTREAM))
    states.token_changed(ALICE.identity, TokenCondition(State.SIGN_IN_NEEDED))
    clock.advance(5)
    states.token_changed(ALICE.identity, GOOD)
    assert states.state(ALICE) is State.CONNECTING
    states.login_succeeded(ALICE)
    assert states.state(ALICE) is State.CONNECTED


def test_a_sign_in_anew_does_so_even_if_the_grant_was_never_refused(states: AccountStates, clock: WallClock) -> None:
    states.token_changed(ALICE.identity, GOOD)
    states.login_failed(ALICE, refused(Refusal.REFUSED_UPSTREAM))
    clock.advance(5)
    states.token_changed(ALICE.identity, GOOD)  # a mere refresh
    assert states.state(ALICE) is State.AUTHENTICATION_ERROR
    states.signed_in(ALICE.identity)
    assert states.state(ALICE) is State.CONNECTING
    assert states.report(ALICE)["since"] == "2027-01-15T08:00:05Z"
    assert states.report(ALICE)["last_error"] == "because of refused_upstream"


@pytest.mark.parametrize(
    ("refusal", "fault", "state"),
    [
        (Refusal.REFUSED_UPSTREAM, Fault.EXCHANGE, State.AUTHENTICATION_ERROR),
        (Refusal.MISCONFIGURED, Fault.MAILFERRY, State.AUTHENTICATION_ERROR),
        (Refusal.TRY_LATER, Fault.NETWORK, State.CONNECT_ERROR),
        (Refusal.BUSY, Fault.EXCHANGE, State.CONNECT_ERROR),
        (Refusal.BUSY, Fault.CLIENT, State.CONNECTED),
        (Refusal.BAD_CREDENTIALS, Fault.CLIENT, State.CONNECTED),
        (Refusal.SIGN_IN_NEEDED, Fault.CLIENT, State.CONNECTED),
    ],
)
def test_what_a_refused_login_says_of_the_account(
    states: AccountStates, refusal: Refusal, fault: Fault, state: State
) -> None:
    states.token_changed(ALICE.identity, GOOD)
    states.login_succeeded(ALICE)
    states.login_failed(ALICE, refused(refusal, fault))
    assert states.state(ALICE) is state


def test_a_wrong_password_is_remembered_though_no_login_has_worked_yet(states: AccountStates) -> None:
    states.login_failed(ALICE, refused(Refusal.BAD_CREDENTIALS, Fault.CLIENT))
    report = states.report(ALICE)
    assert (report["state"], report["fault"]) == ("connecting", "client")
    assert report["last_error"] == "because of bad_credentials"


def test_since_is_when_the_word_changed_and_the_last_error_outlives_it(states: AccountStates, clock: WallClock) -> None:
    states.token_changed(ALICE.identity, GOOD)
    states.login_failed(ALICE, refused(Refusal.TRY_LATER))
    clock.advance(60)
    states.login_failed(ALICE, refused(Refusal.TRY_LATER))
    failing = states.report(ALICE)
    clock.advance(60)
    states.login_succeeded(ALICE)
    clock.advance(60)
    states.login_succeeded(ALICE)
    working = states.report(ALICE)
    assert (failing["since"], failing["last_error_at"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:01:00Z")
    assert (working["since"], working["last_success"]) == ("2027-01-15T08:02:00Z", "2027-01-15T08:03:00Z")
    assert (working["last_error"], working["last_error_at"]) == ("because of try_later", "2027-01-15T08:01:00Z")


def test_the_newest_error_of_both_parts_is_told(states: AccountStates, clock: WallClock) -> None:
    states.login_failed(ALICE, refused(Refusal.TRY_LATER, Fault.NETWORK))
    clock.advance(1)
    trouble = Trouble("The secret has expired.", Fault.MAILFERRY)
    states.token_changed(ALICE.identity, TokenCondition(State.AUTHENTICATION_ERROR, None, trouble, "Make a new one."))
    report = states.report(ALICE)
    assert (report["last_error"], report["fault"]) == ("The secret has expired.", "mailferry")
    assert report["remedy"] == "Make a new one."
    clock.advance(1)
    states.login_failed(ALICE, refused(Refusal.TRY_LATER, Fault.NETWORK))
    assert states.report(ALICE)["fault"] == "network"


def test_an_error_is_told_with_what_an_administrator_needs(states: AccountStates, clock: WallClock) -> None:
    trace = Trace("AADSTS50105", "c-1", "2027-01-15 08:00:00Z")
    trouble = Trouble("Not assigned.", Fault.MICROSOFT_SIGN_IN, "Ask.", "administrator", trace)
    states.token_changed(ALICE.identity, TokenCondition(State.AUTHENTICATION_ERROR, None, trouble, "Ask."))
    expected = {
        "last_error": "Not assigned.",
        "who": "administrator",
        "error_code": "AADSTS50105",
        "correlation_id": "c-1",
        "error_at": "2027-01-15 08:00:00Z",
    }
    assert expected.items() <= states.report(ALICE).items()
    clock.advance(1)
    trace = Trace("odd", "c-2")
    refusal = LoginRefused(Refusal.MISCONFIGURED, "No.", fault=Fault.MAILFERRY, who="operator", trace=trace)
    states.login_failed(ALICE, refusal)
    report = states.report(ALICE)
    assert (report["who"], report["error_code"], report["correlation_id"]) == ("operator", "odd", "c-2")


def test_what_ends_by_itself_is_told(states: AccountStates, clock: WallClock) -> None:
    states.token_changed(ALICE.identity, TokenCondition(None, refreshed_at_s=NOW_S))
    report = states.report(ALICE)
    assert (report["refresh_token_idle_expires_at"], report["warning"]) == ("2027-04-15T08:00:00Z", None)
    clock.advance(REFRESH_IDLE_LIFE_S - IDLE_WARNING_S)
    assert "on 2027-04-15" in str(states.report(ALICE)["warning"])
    both = replace(ALICE, app=replace(APP, client_secret_expires=datetime.date(2027, 4, 2)))
    assert states.warnings(both) == [states.idle_warning(ALICE), secret_warning(both.app, clock.seconds())]
    assert states.report(both)["warning"] == " ".join(states.warnings(both))
    assert states.report(both)["client_secret_expires"] == "2027-04-02"


def test_accounts_of_one_identity_share_the_token_and_not_the_logins(states: AccountStates) -> None:
    sales = account("sales", mailbox="sales@contoso.com", sign_in=ALICE.name.upper())
    states.token_changed(ALICE.identity, GOOD)
    states.login_succeeded(sales)
    assert (states.state(ALICE), states.state(sales)) == (State.CONNECTING, State.CONNECTED)
    assert states.report(sales)["token_expires_at"] == "2027-01-15T09:00:00Z"
    assert json.loads(json.dumps(states.report(sales))) == states.report(sales)


def test_what_exchange_refuses_behind_a_login_is_told_until_the_next_one(
    states: AccountStates, clock: WallClock
) -> None:
    states.login_succeeded(ALICE)
    clock.advance(1)
    no = LoginRefused(Refusal.REFUSED_UPSTREAM, "No.", fault=Fault.EXCHANGE, remedy="Ask {login}.", who="administrator")
    states.session_troubled(ALICE, no)
    report = states.report(ALICE)
    assert (report["state"], report["last_error"], report["fault"]) == ("connected", "No.", "exchange")
    assert (report["who"], report["remedy"]) == ("administrator", f"Ask {ALICE.name}.")
    clock.advance(1)
    states.login_succeeded(ALICE)
    report = states.report(ALICE)
    assert (report["last_error"], report["remedy"]) == ("No.", None), "what to do is over, that it was is not"
