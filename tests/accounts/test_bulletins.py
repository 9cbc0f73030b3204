"""Bulletins: table and refused login say the same of a token, with fault, who must act and how to find it."""

from __future__ import annotations

import pytest

from proxy.accounts.bulletins import (
    awaits_sign_in,
    condition,
    nobody_signed_in,
    refusal,
    renewed_at_s,
    somebody_signs_in,
)
from proxy.accounts.grants import Active, Broken, SignedOut, SigningIn, TokenState
from proxy.accounts.outcomes import AdminMustAct, AppMisconfigured, SignInError, sort_error
from proxy.accounts.states import State
from proxy.login import Fault, Refusal, Trace
from tests.accounts.fakes import ALICE, APP, DAEMON, HOUR_S, NOW_S, again, granted, later

ACTIVE = Active(granted(1), NOW_S)
BLOCKED = AdminMustAct(SignInError("access_denied", (53003,), "", "", "c-1", "then", foreign=True))
MISTAKEN = AppMisconfigured(SignInError("invalid_client", (7000222,), foreign=True))


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (SignedOut(), State.SIGN_IN_NEEDED),
        (SigningIn(SignedOut(), "finish it in the browser"), State.SIGNING_IN),
        (Broken(granted(1), again(), 0, NOW_S), State.SIGN_IN_NEEDED),
        (Broken(granted(1), BLOCKED, 0, NOW_S), State.AUTHENTICATION_ERROR),
        (Broken(granted(1), MISTAKEN, 0, NOW_S), State.AUTHENTICATION_ERROR),
        (ACTIVE, None),
    ],
)
def test_each_state_has_its_word(state: TokenState, word: State | None) -> None:
    assert condition(APP, state, None, usable=True).state is word


@pytest.mark.parametrize(("usable", "word"), [(True, None), (False, State.CONNECT_ERROR)])
def test_an_outage_is_told_though_the_token_may_be_good(usable: bool, word: State | None) -> None:
    told = condition(APP, ACTIVE, later(), usable=usable)
    assert told.state is word
    assert told.expires_at_s == NOW_S + HOUR_S
    assert told.trouble is not None
    assert told.trouble.fault is Fault.NETWORK


def test_table_and_login_say_the_same() -> None:
    trouble = condition(APP, Broken(granted(1), BLOCKED, 0, NOW_S), None, usable=False).trouble
    login = refusal(ALICE, BLOCKED)
    assert trouble is not None
    assert (trouble.text, trouble.fault, trouble.who) == (login.cause, login.fault, login.who)
    assert trouble.trace == login.trace == Trace("AADSTS53003", "c-1", "then")
    assert login.who == "administrator"
    assert "correlation id c-1" in login.detail


@pytest.mark.parametrize(
    ("state", "renewed", "awaits"),
    [
        (SignedOut(), None, True),
        (ACTIVE, NOW_S, False),
        (Broken(granted(1), BLOCKED, 0, NOW_S), NOW_S, False),
        (Broken(granted(1), again(), 0, NOW_S), None, True),
        (Broken(granted(1), MISTAKEN, 0), None, False),  # stored by a version that did not know
    ],
)
def test_what_can_still_be_renewed_and_what_awaits_a_person(
    state: SignedOut | Active | Broken, renewed: float | None, awaits: bool
) -> None:
    assert renewed_at_s(APP, state) == renewed
    assert awaits_sign_in(state) is awaits
    assert condition(APP, state, None, usable=False).refreshed_at_s == renewed
    assert renewed_at_s(DAEMON, state) is None


def test_while_somebody_signs_in_again_the_old_grants_end_is_told() -> None:
    state = SigningIn(Broken(granted(1), BLOCKED, 0, NOW_S), "finish it in the browser")
    told = condition(APP, state, None, usable=False)
    assert (told.refreshed_at_s, told.remedy) == (NOW_S, "finish it in the browser")


def test_a_login_that_needs_a_sign_in_names_the_way() -> None:
    for refused in (nobody_signed_in(ALICE), refusal(ALICE, again())):
        assert refused.refusal is Refusal.SIGN_IN_NEEDED
        assert f"mailferry sign-in {ALICE.name}" in refused.text
    assert "in the browser" in somebody_signs_in("finish it in the browser").text


def test_a_login_hears_when_another_try_is_of_use() -> None:
    assert refusal(ALICE, later(), 7).again_in_s == 7
    assert refusal(ALICE, again()).again_in_s is None


def test_an_unknown_error_is_raw_and_said_to_be_unknown() -> None:
    odd = sort_error({"error": "odd", "error_description": "AADSTS424242: The moon."})
    assert "does not know" in refusal(ALICE, odd).cause
    assert "AADSTS424242: The moon." in refusal(ALICE, odd).cause
