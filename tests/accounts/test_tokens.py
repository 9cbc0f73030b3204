"""Tokens: kept alive, renewed once for all who ask, and never lost to a passing failure."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from twisted.internet.defer import CancelledError, Deferred

from proxy.accounts.outcomes import (
    LOOP_WAIT_S,
    AdminMustAct,
    AppMisconfigured,
    Granted,
    Outcome,
    SignInError,
    sort_error,
)
from proxy.accounts.states import AccountStates
from proxy.accounts.tokens import (
    BACK_OFF_S,
    BROKEN_RETRY_S,
    CLOSE_S,
    FORCED_AGAIN_S,
    LAST_RESORT_LIFE_S,
    MAX_RETRY_AFTER_S,
    Holder,
    Tokens,
)
from proxy.config.settings import Account, Flow
from proxy.login import Bearer, Fault, LoginRefused, Refusal, Trace
from tests.accounts.fakes import (
    ALICE,
    APP,
    DAEMON,
    HOUR_S,
    FakeMicrosoft,
    MemoryStore,
    WallClock,
    account,
    again,
    done,
    granted,
    later,
    result,
    running,
)

RECORD = "grant/work/alice@contoso.com"


class Office:
    """Tokens with everything around them, and a second life after a restart."""

    def __init__(self) -> None:
        self.clock = WallClock()
        self.store = MemoryStore()
        self.restart()

    def restart(self) -> None:
        self.microsoft = FakeMicrosoft()
        self.states = AccountStates(self.clock.seconds)
        self.tokens = Tokens(self.store, self.microsoft, self.clock, self.states, now=self.clock.seconds)

    def access(self, who: Account = ALICE, *, fresh: bool = False) -> Deferred[Bearer]:
        return running(self.tokens.access(who, user=who.mailbox, fresh=fresh))

    def token(self, who: Account = ALICE, *, fresh: bool = False) -> str:
        return result(self.access(who, fresh=fresh)).token

    def refused(self, who: Account = ALICE, *, fresh: bool = False) -> LoginRefused:
        return refusal_of(self.access(who, fresh=fresh))

    def sign_in(self, number: int = 1, who: Account = ALICE, *, life_s: float = HOUR_S) -> None:
        done(self.tokens.adopt(who, self.granted(number, life_s=life_s)))

    def granted(self, number: int, *, life_s: float = HOUR_S) -> Granted:
        return granted(number, at_s=self.clock.seconds(), life_s=life_s)

    def state(self, who: Account = ALICE) -> str | None:
        return self.states.report(who)["state"]


def refusal_of(login: Deferred[Bearer]) -> LoginRefused:
    with pytest.raises(LoginRefused) as caught:
        result(login)
    return caught.value


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def old(office: Office) -> Office:
    """Signed in, and the token has 29 minutes left: too few for a new session, but still good."""
    office.sign_in(1)
    office.clock.advance(HOUR_S - 29 * 60)
    return office


@pytest.fixture
def expired(office: Office) -> Office:
    office.sign_in(1)
    office.clock.advance(HOUR_S)
    return office


# --- the token in hand


def test_a_token_long_enough_is_handed_out_without_asking(office: Office) -> None:
    office.sign_in(1)
    office.clock.advance(29 * 60)
    assert done(office.tokens.access(ALICE, user="sales@contoso.com")) == Bearer("sales@contoso.com", "access-1")
    assert office.microsoft.asked == []


def test_a_session_starts_with_half_an_hour_at_least(old: Office) -> None:
    login = old.access()
    assert old.microsoft.asked == [("refresh", "cache-1")]
    old.microsoft.answer(old.granted(2))
    assert result(login).token == "access-2"
    assert old.token() == "access-2"
    assert old.microsoft.count() == 1


def test_a_provider_of_short_tokens_is_not_asked_for_ever(expired: Office) -> None:
    login = expired.access()
    expired.microsoft.answer(expired.granted(2, life_s=600))
    assert result(login).token == "access-2"
    expired.clock.advance(299)
    assert expired.token() == "access-2"
    expired.clock.advance(1)
    expired.access()
    assert expired.microsoft.count() == 2


def test_a_token_that_is_issued_nearly_over_is_taken_all_the_same(expired: Office) -> None:
    login = expired.access()
    expired.microsoft.answer(expired.granted(2, life_s=1))
    assert result(login).token == "access-2"


def test_a_token_that_is_issued_over_is_not(expired: Office) -> None:
    login = expired.access()
    expired.microsoft.answer(expired.granted(2, life_s=0))
    assert refusal_of(login).refusal is Refusal.TRY_LATER


def test_accounts_of_one_identity_share_the_token(office: Office) -> None:
    sales = account("sales", mailbox="sales@contoso.com", sign_in="Alice@Contoso.com")
    office.sign_in(1)
    assert office.token(sales) == "access-1"


# --- one refresh at a time


def test_fifty_logins_make_one_request(expired: Office) -> None:
    logins = [expired.access() for _ in range(50)]
    assert expired.microsoft.count() == 1
    expired.microsoft.answer(expired.granted(2))
    assert {result(login).token for login in logins} == {"access-2"}


def test_fifty_logins_hear_one_failure(expired: Office) -> None:
    logins = [expired.access() for _ in range(50)]
    expired.microsoft.answer(again())
    assert {refusal_of(login).refusal for login in logins} == {Refusal.SIGN_IN_NEEDED}
    assert expired.microsoft.count() == 1


def test_identities_do_not_wait_for_each_other(expired: Office) -> None:
    bob = account("bob@contoso.com")
    expired.sign_in(7, bob, life_s=1)
    expired.clock.advance(1)
    alices, bobs = expired.access(), expired.access(bob)
    assert expired.microsoft.asked == [("refresh", "cache-1"), ("refresh", "cache-7")]
    expired.microsoft.waiting[1].callback(expired.granted(8))
    assert result(bobs).token == "access-8"
    assert not alices.called


def test_who_leaves_does_not_end_the_refresh_for_the_others(expired: Office) -> None:
    first, second, third = (expired.access() for _ in range(3))
    for leaving in (first, third):
        leaving.cancel()
        with pytest.raises(CancelledError):
            result(leaving)
    expired.microsoft.answer(expired.granted(2))
    assert result(second).token == "access-2"


def test_a_refresh_that_all_have_left_is_still_kept(expired: Office) -> None:
    login = expired.access()
    login.cancel()
    login.addErrback(lambda failure: failure.trap(CancelledError))
    expired.microsoft.answer(expired.granted(2))
    assert expired.token() == "access-2"
    assert expired.store.holds(RECORD, "cache-2")


def test_a_mistake_of_ours_reaches_every_waiter_and_the_next_login_tries_anew(expired: Office) -> None:
    logins = [expired.access(), expired.access()]
    expired.microsoft.waiting.pop().errback(ZeroDivisionError())
    for login in logins:
        with pytest.raises(ZeroDivisionError):
            result(login)
    login = expired.access()
    expired.microsoft.answer(expired.granted(2))
    assert result(login).token == "access-2"


# --- Exchange refused the token


def test_a_refused_token_is_refreshed_once_for_all_who_complain(office: Office) -> None:
    office.sign_in(1)
    complaints = [office.access(fresh=True) for _ in range(5)]
    assert office.token() == "access-1"  # who does not complain goes on with it
    office.microsoft.answer(office.granted(2))
    assert {result(complaint).token for complaint in complaints} == {"access-2"}
    assert office.microsoft.count() == 1


def test_a_complaint_about_an_older_token_gets_the_newer_one(office: Office) -> None:
    office.sign_in(1)
    first = office.access(fresh=True)
    office.microsoft.answer(office.granted(2))
    assert result(first).token == "access-2"
    office.clock.advance(FORCED_AGAIN_S - 1)
    assert office.token(fresh=True) == "access-2"
    assert office.microsoft.count() == 1
    office.clock.advance(1)
    office.access(fresh=True)
    assert office.microsoft.count() == 2


def test_a_complaint_is_not_answered_with_the_refused_token_in_an_outage(office: Office) -> None:
    office.sign_in(1)
    complaint = office.access(fresh=True)
    office.microsoft.answer(later())
    assert refusal_of(complaint).refusal is Refusal.TRY_LATER
    assert office.refused(fresh=True).refusal is Refusal.TRY_LATER
    assert office.token() == "access-1"
    assert office.microsoft.count() == 1


# --- outages


def test_a_token_that_is_still_good_survives_an_outage(old: Office) -> None:
    login = old.access()
    old.microsoft.answer(later())
    assert result(login).token == "access-1"
    old.clock.advance(29 * 60 - LAST_RESORT_LIFE_S)
    last = old.access()
    old.microsoft.answer(later())
    assert result(last).token == "access-1"
    assert old.state() == "connecting"
    old.clock.advance(1)
    assert old.refused().refusal is Refusal.TRY_LATER


def test_while_it_backs_off_microsoft_is_left_alone(expired: Office) -> None:
    for wait_s in (*BACK_OFF_S, BACK_OFF_S[-1]):
        login = expired.access()
        expired.microsoft.answer(later())
        refused = refusal_of(login)
        asked = expired.microsoft.count()
        assert refused.again_in_s == wait_s
        expired.clock.advance(wait_s - 1)
        assert expired.refused().refusal is Refusal.TRY_LATER
        assert expired.refused().again_in_s == 1
        assert expired.microsoft.count() == asked
        expired.clock.advance(1)
    assert "Nothing is wrong with the password" in refused.text
    assert refused.fault.value == "network"
    assert expired.state() == "connect_error"
    login = expired.access()
    expired.microsoft.answer(expired.granted(2))
    assert result(login).token == "access-2"
    assert expired.microsoft.asked[-1] == ("refresh", "cache-1")  # the refresh token was kept all the time
    assert expired.state() == "connecting"


@pytest.mark.parametrize(("asked_s", "waits_s"), [(120, 120), (2, BACK_OFF_S[0]), (1e9, MAX_RETRY_AFTER_S)])
def test_retry_after_is_honoured_within_bounds(expired: Office, asked_s: float, waits_s: float) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(later(asked_s))
    expired.clock.advance(waits_s - 1)
    expired.refused()
    assert expired.microsoft.count() == 1
    expired.clock.advance(1)
    expired.access()
    assert expired.microsoft.count() == 2


def test_a_cache_that_changed_in_a_failure_is_kept(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(replace(later(), cache="cache-1b"))
    assert expired.store.holds(RECORD, "cache-1b")
    expired.clock.advance(BACK_OFF_S[0])
    expired.access()
    assert expired.microsoft.asked[-1] == ("refresh", "cache-1b")


def test_too_many_requests_are_no_revocation(expired: Office) -> None:
    login = expired.access()
    expired.microsoft.answer(sort_error({"error": "invalid_grant", "error_codes": [50196]}, 2))
    assert refusal_of(login).refusal is Refusal.TRY_LATER
    assert expired.state() == "connect_error"
    expired.clock.advance(LOOP_WAIT_S - 1)
    expired.refused()
    assert expired.microsoft.count() == 1
    expired.clock.advance(1)
    login = expired.access()
    expired.microsoft.answer(expired.granted(2))
    assert result(login).token == "access-2"


def test_a_failed_refresh_leaves_the_stored_grant_as_it_was(expired: Office) -> None:
    before = dict(expired.store.records)
    login = expired.access()
    expired.microsoft.answer(later())
    assert refusal_of(login).refusal is Refusal.TRY_LATER
    assert expired.store.records == before


def test_a_person_need_not_wait_out_the_back_off(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(later())
    expired.tokens.try_again(ALICE)
    expired.access()
    assert expired.microsoft.count() == 2


# --- refused for good


def test_a_revoked_grant_asks_for_a_sign_in_and_is_kept(expired: Office) -> None:
    login = expired.access()
    expired.microsoft.answer(again())
    refused = refusal_of(login)
    assert refused.refusal is Refusal.SIGN_IN_NEEDED
    assert "mailferry sign-in alice@contoso.com" in refused.text[:160]
    assert "AADSTS700082" in refused.detail
    assert "c-1" in refused.detail
    assert expired.state() == "sign_in_needed"
    assert expired.store.holds(RECORD, "cache-1")


def test_microsoft_is_not_asked_again_at_each_login_but_after_a_while(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(again())
    expired.clock.advance(BROKEN_RETRY_S - 1)
    assert expired.refused().refusal is Refusal.SIGN_IN_NEEDED
    assert expired.microsoft.count() == 1
    expired.clock.advance(1)
    login = expired.access()
    expired.microsoft.answer(later())
    assert refusal_of(login).refusal is Refusal.SIGN_IN_NEEDED
    assert expired.refused().refusal is Refusal.SIGN_IN_NEEDED
    assert expired.microsoft.count() == 2
    expired.clock.advance(BACK_OFF_S[0])
    healed = expired.access()
    expired.microsoft.answer(expired.granted(2))
    assert result(healed).token == "access-2"
    assert expired.state() == "connecting"


def test_a_sign_in_makes_what_logins_met_before_old_news(office: Office) -> None:
    office.sign_in(1)
    office.states.login_failed(ALICE, LoginRefused(Refusal.REFUSED_UPSTREAM, "no", fault=Fault.EXCHANGE))
    assert office.state() == "authentication_error"
    office.clock.advance(1)
    office.sign_in(2)
    assert office.state() == "connecting"


def test_a_sign_in_ends_an_outage(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(later())
    expired.sign_in(2)
    assert expired.token() == "access-2"
    complaint = expired.access(fresh=True)
    expired.microsoft.answer(expired.granted(3))
    assert result(complaint).token == "access-3"


def test_after_a_sign_in_logins_work_at_once(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(again())
    expired.sign_in(3)
    assert expired.token() == "access-3"
    assert expired.microsoft.count() == 1


def test_a_refusal_can_be_found_in_microsofts_log(expired: Office) -> None:
    login = expired.access()
    answer = {"error": "invalid_grant", "error_codes": [50105], "correlation_id": "c-1", "timestamp": "then"}
    expired.microsoft.answer(sort_error(answer))
    refused = refusal_of(login)
    assert refused.trace == Trace("AADSTS50105", "c-1", "then")
    assert "For an administrator: AADSTS50105, correlation id c-1, time then." in refused.whole
    assert "correlation id c-1" in refused.detail
    report = expired.states.report(ALICE)
    assert (report["error_code"], report["correlation_id"], report["error_at"]) == ("AADSTS50105", "c-1", "then")
    assert report["who"] == "administrator"


# --- upkeep: what nobody uses (the looks are in `test_upkeep.py`)


def test_when_a_grant_was_renewed_last_is_known_and_outlives_a_restart(office: Office) -> None:
    assert done(office.tokens.renewed_at_s(ALICE)) is None
    office.sign_in(1)
    began_s = office.clock.seconds()
    assert done(office.tokens.renewed_at_s(ALICE)) == began_s
    office.clock.advance(86_400)
    office.restart()
    assert done(office.tokens.renewed_at_s(ALICE)) == began_s
    assert done(office.tokens.renewed_at_s(account(app=DAEMON))) is None


def test_a_renewal_is_one_refresh_and_says_whether_it_went_well(office: Office) -> None:
    office.sign_in(1)
    office.clock.advance(86_400)
    renewing, login = running(office.tokens.renew(ALICE)), office.access()
    assert office.microsoft.count() == 1
    office.microsoft.answer(office.granted(2))
    assert result(renewing)
    assert result(login).token == "access-2"
    office.clock.advance(86_400)
    renewing = running(office.tokens.renew(ALICE))
    office.microsoft.answer(later())
    assert not result(renewing)
    assert not done(office.tokens.renew(ALICE)), "the service is left alone for a while"
    assert office.microsoft.count() == 2


def test_what_was_never_granted_or_is_used_up_is_not_renewed(office: Office) -> None:
    assert not done(office.tokens.renew(ALICE))
    office.sign_in(1)
    office.clock.advance(HOUR_S)
    login = office.access()
    office.microsoft.answer(again())
    refusal_of(login)
    assert not done(office.tokens.renew(ALICE))
    assert office.microsoft.count() == 1


def test_whether_a_person_must_sign_in_is_told(office: Office) -> None:
    assert office.tokens.awaits_sign_in(ALICE)
    office.tokens.signing_in(ALICE, "in the browser")
    assert office.tokens.awaits_sign_in(ALICE)
    office.sign_in(1)
    assert not office.tokens.awaits_sign_in(ALICE)
    for outcome, awaited in ((AdminMustAct(SignInError("x", (53003,))), False), (again(), True)):
        office.clock.advance(HOUR_S)
        login = office.access()
        office.microsoft.answer(outcome)
        refusal_of(login)
        assert office.tokens.awaits_sign_in(ALICE) is awaited


@pytest.mark.parametrize(
    ("outcome", "refusal", "word"),
    [
        (AppMisconfigured(SignInError("invalid_client", (7000222,))), Refusal.MISCONFIGURED, "secret"),
        (AppMisconfigured(SignInError("bad_authority", text="No directory.")), Refusal.MISCONFIGURED, "directory"),
        (AdminMustAct(SignInError("access_denied", (90094,))), Refusal.SIGN_IN_NEEDED, "administrator"),
        (AdminMustAct(SignInError("interaction_required", (53003,))), Refusal.SIGN_IN_NEEDED, "rules"),
    ],
)
def test_who_must_act_is_said_by_the_table(expired: Office, outcome: Outcome, refusal: Refusal, word: str) -> None:
    login = expired.access()
    expired.microsoft.answer(outcome)
    refused = refusal_of(login)
    assert refused.refusal is refusal
    assert word in refused.text
    report = expired.states.report(ALICE)
    assert report["state"] == "authentication_error"
    assert report["remedy"]
    assert report["last_error"]


def test_the_administrators_consent_address_is_in_the_report(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(AdminMustAct(SignInError("access_denied", (90094,))))
    assert f"{APP.authority}/v2.0/adminconsent?" in str(expired.states.report(ALICE)["remedy"])


def test_a_changed_app_is_tried_at_once(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(AppMisconfigured(SignInError("invalid_client", (7000222,))))
    mended = replace(ALICE, app=replace(APP, redirect_uri="http://localhost/other"))
    login = expired.access(mended)
    expired.microsoft.answer(expired.granted(2))
    assert result(login).token == "access-2"


def test_nobody_has_signed_in_yet(office: Office) -> None:
    refused = office.refused()
    assert refused.refusal is Refusal.SIGN_IN_NEEDED
    assert "mailferry sign-in alice@contoso.com" in refused.text
    assert office.microsoft.asked == []


def test_a_disabled_app_is_not_asked_for(office: Office) -> None:
    office.sign_in(1)
    refused = office.refused(replace(ALICE, app=replace(APP, enabled=False)))
    assert refused.refusal is Refusal.MISCONFIGURED
    assert "work" in refused.text


def test_an_accounts_life_in_the_words_of_its_state(office: Office) -> None:
    """PRODUCT 4, from one end to the other."""
    done(office.tokens.start([ALICE]))
    life = [office.state()]

    def then(what: Outcome | Refusal | None) -> None:
        """A login whose refresh, or whose session at Exchange, ends so."""
        office.clock.advance(HOUR_S)
        login = office.access()
        if isinstance(what, Refusal):
            office.microsoft.answer(office.granted(3))
            result(login)
            office.states.login_failed(ALICE, LoginRefused(what, "Exchange says no.", fault=Fault.EXCHANGE))
        elif what is not None:
            office.microsoft.answer(what)
            office.states.login_failed(ALICE, refusal_of(login))
        else:
            office.microsoft.answer(office.granted(2))
            result(login)
            office.states.login_succeeded(ALICE)
        life.append(office.state())

    office.tokens.signing_in(ALICE, "soon")
    life.append(office.state())
    office.sign_in(1)
    life.append(office.state())
    then(None)
    then(later())
    then(None)
    then(AppMisconfigured(SignInError("invalid_client", (7000222,))))
    then(None)
    then(Refusal.REFUSED_UPSTREAM)
    then(again())
    then(None)
    life.append(office.state(replace(ALICE, app=replace(APP, enabled=False))))
    assert life == [
        "sign_in_needed",
        "signing_in",
        "connecting",
        "connected",
        "connect_error",
        "connected",
        "authentication_error",
        "connected",
        "authentication_error",
        "sign_in_needed",
        "connected",
        "disabled",
    ]


# --- while a person signs in


def test_a_refused_login_says_how_to_finish_the_sign_in(office: Office) -> None:
    done(office.tokens.start([ALICE]))
    office.tokens.signing_in(ALICE, "enter ABC at https://x")
    refused = office.refused()
    assert refused.refusal is Refusal.SIGN_IN_NEEDED
    assert "enter ABC at https://x" in refused.text
    assert office.states.report(ALICE)["state"] == "signing_in"
    office.tokens.signing_in(ALICE, "another way")
    assert "another way" in office.refused().text
    office.tokens.signing_in(ALICE, None)
    assert "Nobody has signed in" in office.refused().text
    assert office.state() == "sign_in_needed"


def test_a_good_grant_goes_on_while_a_person_signs_in_anew(office: Office) -> None:
    office.sign_in(1)
    office.restart()
    office.tokens.signing_in(ALICE, "soon")  # before anything was read
    assert office.token() == "access-1"
    office.tokens.signing_in(ALICE, "soon")
    assert office.token() == "access-1"
    office.tokens.signing_in(ALICE, None)
    assert office.token() == "access-1"


def test_a_sign_in_given_up_leaves_the_broken_grant_as_it_was(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(again())
    expired.tokens.signing_in(ALICE, "soon")
    assert "soon" in expired.refused().text
    assert done(expired.tokens.holder(ALICE)) == Holder(ALICE.name, granted(1).home_account_id)
    expired.tokens.signing_in(ALICE, None)
    assert "Sign in to Microsoft again" in expired.refused().text


def test_a_slow_refresh_does_not_undo_a_newer_sign_in(expired: Office) -> None:
    login = expired.access()
    expired.sign_in(9)
    expired.microsoft.answer(expired.granted(2))
    assert result(login).token == "access-9"
    assert expired.store.holds(RECORD, "cache-9")


def test_a_slow_refusal_does_not_break_a_newer_sign_in(expired: Office) -> None:
    login = expired.access()
    expired.sign_in(9)
    expired.microsoft.answer(again())
    assert result(login).token == "access-9"


def test_a_slow_refresh_does_not_undo_a_sign_out(expired: Office) -> None:
    login = expired.access()
    done(expired.tokens.sign_out(ALICE))
    expired.microsoft.answer(expired.granted(2))
    assert refusal_of(login).refusal is Refusal.SIGN_IN_NEEDED
    assert expired.store.records == {}
    assert expired.state() == "sign_in_needed"
    assert done(expired.tokens.holder(ALICE)) is None


# --- restarts and the store


def test_a_token_outlives_a_restart(office: Office) -> None:
    office.sign_in(1)
    office.restart()
    done(office.tokens.start([ALICE, account("bob@contoso.com")]))
    assert office.states.report(ALICE)["token_expires_at"] == "2027-01-15T09:00:00Z"
    assert office.state(account("bob@contoso.com")) == "sign_in_needed"
    assert office.token() == "access-1"
    assert office.microsoft.asked == []


def test_a_refused_grant_is_known_after_a_restart_and_tried_once_more(expired: Office) -> None:
    expired.access().addErrback(lambda failure: failure.trap(LoginRefused))
    expired.microsoft.answer(again())
    before = expired.states.report(ALICE)
    expired.restart()
    done(expired.tokens.start([ALICE]))
    assert expired.states.report(ALICE) == before
    login = expired.access()
    expired.microsoft.answer(expired.granted(2))
    assert result(login).token == "access-2"


def test_each_refresh_is_stored_before_the_next(expired: Office) -> None:
    expired.store.holding = True
    login = expired.access()
    expired.microsoft.answer(expired.granted(2, life_s=60))
    assert result(login).token == "access-2"  # nobody waits for the store
    expired.clock.advance(60)
    expired.access()
    assert expired.microsoft.count() == 1
    expired.store.let_go()
    assert expired.store.holds(RECORD, "cache-2")
    assert expired.microsoft.asked[-1] == ("refresh", "cache-2")


def test_a_store_that_fails_fails_no_login(expired: Office) -> None:
    expired.store.failing = True
    for number in (2, 3):
        login = expired.access()
        expired.microsoft.answer(expired.granted(number))
        assert result(login).token == f"access-{number}"
        expired.clock.advance(HOUR_S)
    assert expired.microsoft.asked[-1] == ("refresh", "cache-2")
    expired.store.failing = False
    expired.clock.advance(30)
    assert expired.store.holds(RECORD, "cache-3")


def test_a_store_that_cannot_be_read_is_told_as_such_and_read_again(office: Office) -> None:
    office.sign_in(1)
    office.restart()
    office.store.failing = True
    done(office.tokens.start([ALICE]))
    refused = office.refused()
    assert (refused.refusal, refused.fault.value) == (Refusal.TRY_LATER, "mailferry")
    assert "The disk is full." in refused.text
    assert office.state() == "connecting"  # nobody knows whether a sign-in is needed
    office.store.failing = False
    assert office.token() == "access-1"


def test_a_damaged_record_is_not_taken_for_a_missing_one(office: Office) -> None:
    office.store.records[RECORD] = (1, '{"granted": {}}')
    assert office.refused().refusal is Refusal.MISCONFIGURED
    assert office.store.records[RECORD] == (1, '{"granted": {}}')


def test_another_process_that_refreshed_first_wins(expired: Office) -> None:
    other = Tokens(expired.store, expired.microsoft, expired.clock, expired.states, now=expired.clock.seconds)
    others = running(other.access(ALICE, user=ALICE.mailbox))
    ours = expired.access()
    expired.microsoft.answer(expired.granted(2))
    assert result(others).token == "access-2"
    expired.microsoft.answer(expired.granted(3))
    assert result(ours).token == "access-2"
    assert expired.token() == "access-2"
    assert expired.store.holds(RECORD, "cache-2")


def test_a_refusal_of_a_grant_that_another_process_has_renewed_is_none(expired: Office) -> None:
    """Where refresh tokens are good for one use, the slower of two processes is refused."""
    other = Tokens(expired.store, expired.microsoft, expired.clock, expired.states, now=expired.clock.seconds)
    others, ours = running(other.access(ALICE, user=ALICE.mailbox)), expired.access()
    expired.microsoft.answer(expired.granted(2))
    expired.store.holding = True
    expired.microsoft.answer(again())
    assert not ours.called
    expired.store.let_go()
    assert result(others).token == result(ours).token == "access-2"
    assert expired.state() == "connecting"


def test_a_sign_out_by_another_process_wins_over_a_refresh(expired: Office) -> None:
    other = Tokens(expired.store, expired.microsoft, expired.clock, expired.states, now=expired.clock.seconds)
    ours = expired.access()
    done(other.sign_out(ALICE))
    expired.microsoft.answer(expired.granted(2))
    assert refusal_of(ours).refusal is Refusal.SIGN_IN_NEEDED
    assert expired.store.records == {}


def test_a_sign_in_wins_over_what_another_process_wrote(office: Office) -> None:
    other = Tokens(office.store, office.microsoft, office.clock, office.states, now=office.clock.seconds)
    done(other.adopt(ALICE, office.granted(1)))
    done(other.adopt(ALICE, office.granted(2)))
    office.sign_in(3)
    assert office.store.holds(RECORD, "cache-3")
    office.sign_in(4)
    assert office.store.holds(RECORD, "cache-4")


# --- apps of their own right


def test_an_app_of_its_own_right_needs_no_person_and_no_store(office: Office) -> None:
    sales, info = account("sales@contoso.com", app=DAEMON), account("info@contoso.com", app=DAEMON)
    done(office.tokens.start([sales, info]))
    assert office.state(sales) == "connecting"
    logins = [office.access(sales), office.access(info)]
    assert office.microsoft.asked == [("client_token", "daemon")]
    office.microsoft.answer(office.granted(1))
    assert [result(login) for login in logins] == [
        Bearer("sales@contoso.com", "access-1"),
        Bearer("info@contoso.com", "access-1"),
    ]
    assert office.token(sales) == "access-1"
    office.clock.advance(HOUR_S)
    later_login = office.access(sales)
    office.microsoft.answer(office.granted(2))
    assert result(later_login).token == "access-2"
    assert office.store.saves == 0
    assert sales.app.flow is Flow.APP_ONLY


def test_a_signed_out_app_of_its_own_right_asks_for_a_new_token(office: Office) -> None:
    sales = account("sales@contoso.com", app=DAEMON)
    login = office.access(sales)
    office.microsoft.answer(office.granted(1))
    result(login)
    done(office.tokens.sign_out(sales))
    login = office.access(sales)
    office.microsoft.answer(office.granted(2))
    assert result(login).token == "access-2"


def test_an_app_whose_secret_has_expired_is_misconfigured(office: Office) -> None:
    sales = account("sales@contoso.com", app=DAEMON)
    login = office.access(sales)
    office.microsoft.answer(AppMisconfigured(SignInError("invalid_client", (7000222,))))
    assert refusal_of(login).refusal is Refusal.MISCONFIGURED
    assert office.state(sales) == "authentication_error"


# --- the end


def test_closing_waits_for_a_refresh_and_its_save(expired: Office) -> None:
    expired.store.holding = True
    login = expired.access()
    closing = running(expired.tokens.close())
    assert expired.refused().refusal is Refusal.TRY_LATER
    expired.microsoft.answer(expired.granted(2))
    assert result(login).token == "access-2"
    before = closing.called
    expired.store.let_go()
    assert (before, closing.called) == (False, True)
    assert expired.store.holds(RECORD, "cache-2")
    assert expired.clock.getDelayedCalls() == []


def test_closing_waits_no_longer_than_it_says(expired: Office) -> None:
    login = expired.access()
    closing = running(expired.tokens.close())
    expired.clock.advance(CLOSE_S - 1)
    before = closing.called
    expired.clock.advance(1)
    assert (before, closing.called) == (False, True)
    expired.microsoft.answer(expired.granted(2))
    assert result(login).token == "access-2"


def test_closing_does_not_wait_for_a_store_that_hangs(expired: Office) -> None:
    """Nor for one after the other: a refresh that waits for the store, then the store."""
    expired.store.holding = True
    login = expired.access()
    expired.microsoft.answer(expired.granted(2, life_s=60))
    result(login)
    expired.clock.advance(60)
    waiting = expired.access()
    closing = running(expired.tokens.close())
    expired.clock.advance(CLOSE_S)
    assert closing.called
    assert not waiting.called
    assert expired.clock.getDelayedCalls() == []


def test_closing_tries_an_unsaved_grant_once_more_and_leaves_no_timer(expired: Office) -> None:
    expired.store.failing = True
    login = expired.access()
    expired.microsoft.answer(expired.granted(2))
    result(login)
    expired.store.failing = False
    assert running(expired.tokens.close()).called
    assert expired.store.holds(RECORD, "cache-2")
    assert expired.clock.getDelayedCalls() == []


# --- secrets


def test_no_token_is_printed_or_logged(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    office.sign_in(1)
    office.clock.advance(HOUR_S)
    printed = [repr(office.store.load(RECORD))]

    def keep(end: object) -> None:
        printed.append(f"{end!r} {getattr(end, 'value', '')!r}")

    for outcome in (later(), office.granted(2), again()):
        office.access(fresh=True).addBoth(keep)
        office.microsoft.answer(outcome)
        office.clock.advance(HOUR_S)
        printed += [repr(ward.identity.state) for ward in office.tokens._wards.values()]
    text = " ".join(printed) + " ".join(f"{r.getMessage()} {getattr(r, 'fields', '')}" for r in caplog.records)
    assert "refresh refused" in text
    assert "Granted(" in text
    for secret in ("access-1", "access-2", "cache-1", "cache-2"):
        assert secret not in text
