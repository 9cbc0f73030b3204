"""Sign-in in band: one code for all logins of an identity, asked for seldom, waited for briefly, shown to no other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from twisted.internet.defer import CancelledError, Deferred

from proxy.accounts.endings import SignedIn
from proxy.accounts.invitations import BEGIN_AGAIN_S, BEGIN_LIMIT_S, BLOCKED_AGAIN_S, MAX_OPEN, TOLD_FOR_S, Invitations
from proxy.accounts.outcomes import (
    AdminMustAct,
    AppMisconfigured,
    DeviceFlow,
    NotGranted,
    Outcome,
    SignInAgain,
    SignInError,
    StillPending,
)
from proxy.accounts.sign_in import CodeSignIn, DeviceSignIn
from proxy.config.settings import Account, App, Certificate, Secret
from tests.accounts.fakes import ALICE, APP, DAEMON, account, again, done, granted, later, result, running
from tests.accounts.test_sign_in import BACK, BOB, INTERVAL_S, LIFE_S, Desk, device_flow

OFFER = "Sign in at https://microsoft.com/devicelogin with code USERCODE{}."
BLOCKED = AdminMustAct(SignInError("access_denied", (53003,)))


class Hall(Desk):
    """What a session asks."""

    def __init__(self) -> None:
        super().__init__()
        self.invitations = Invitations(self.sign_ins, self.tokens, self.clock, now=self.clock.seconds)
        self.codes = 0

    def invited(self, who: Account = ALICE) -> str:
        """What a login of this account hears first; Microsoft answers at once, if it is asked."""
        self.codes += 1
        self.microsoft.device_flows[:] = [replace(device_flow(self.codes), expires_at_s=self.clock.seconds() + LIFE_S)]
        return done(self.invitations.invite(who))

    def ends(self, outcome: Outcome | StillPending) -> None:
        """The code under way comes to this."""
        self.clock.advance(INTERVAL_S)
        self.microsoft.polls[-1].callback(outcome)

    def nobody_comes(self) -> None:
        """The code under way expires."""
        self.ends(StillPending(LIFE_S))
        self.clock.advance(LIFE_S - INTERVAL_S)
        self.microsoft.polls[-1].callback(StillPending(LIFE_S))

    @property
    def asked(self) -> int:
        return self.microsoft.count("begin_device")


@pytest.fixture
def hall() -> Hall:
    return Hall()


def test_the_first_login_gets_a_code_and_the_next_ones_the_same(hall: Hall) -> None:
    sales = account("sales", mailbox="sales@contoso.com", sign_in=ALICE.name)
    told = [hall.invited(), hall.invited(), hall.invited(sales), hall.invited()]
    assert told == [OFFER.format(1)] * 4
    assert hall.asked == 1
    assert hall.invited(BOB) == OFFER.format(5)


def test_an_offer_is_not_yet_somebody_who_signs_in(hall: Hall) -> None:
    """The account's state still says that somebody must come; a person who asks for the code changes that."""
    hall.invited()
    assert hall.state() == "sign_in_needed"
    assert "mailferry sign-in alice@contoso.com" in hall.refusal()
    same = done(hall.sign_ins.begin_device(ALICE))
    assert isinstance(same, DeviceSignIn)
    assert same.code == "USERCODE1"
    assert hall.state() == "signing_in"
    assert hall.invited() == OFFER.format(1)


def test_whoever_signs_in_by_that_code_is_signed_in(hall: Hall) -> None:
    hall.invited()
    hall.ends(granted(1))
    assert hall.token() == "access-1"
    assert hall.state() == "connecting"
    assert hall.invited() == "", "nobody needs to come any more"


def test_a_code_that_a_command_began_is_told_too(hall: Hall) -> None:
    begun = hall.begin_device()
    assert hall.invited() == OFFER.format(1)
    assert begun.code in hall.invited()
    assert hall.asked == 1


def test_after_a_code_has_expired_the_next_login_gets_another(hall: Hall) -> None:
    hall.invited()
    hall.nobody_comes()
    assert hall.invited() == OFFER.format(2)
    assert hall.asked == 2


def test_a_code_that_is_over_is_not_offered_though_microsoft_does_not_answer(hall: Hall) -> None:
    hall.invited()
    hall.clock.advance(LIFE_S)
    assert hall.invited() == ""


def test_a_revoked_sign_in_is_invited_again(hall: Hall) -> None:
    hall.finish_code(hall.begin_code(), granted(1, life_s=60))
    hall.clock.advance(60)
    login = running(hall.tokens.access(ALICE, user=ALICE.name))
    hall.microsoft.answer(again())
    with pytest.raises(Exception, match=r"Sign in to Microsoft again"):
        result(login)
    assert hall.invited() == OFFER.format(1)


@pytest.mark.parametrize(
    "app",
    [
        DAEMON,
        replace(APP, enabled=False),
        replace(APP, client_secret=Secret("s3cret")),
        replace(APP, certificate=Certificate(BACK, BACK)),  # type: ignore[arg-type]  # nobody reads it
    ],
    ids=["signs in by itself", "switched off", "secret", "certificate"],
)
def test_an_app_that_takes_no_device_codes_is_not_asked(hall: Hall, app: App) -> None:
    assert hall.invited(account(app=app)) == ""
    assert hall.asked == 0


def test_where_no_sign_in_is_needed_nobody_is_invited(hall: Hall) -> None:
    hall.finish_code(hall.begin_code(), granted(1))
    assert hall.invited() == ""
    assert hall.asked == 0


def test_who_signs_in_in_a_browser_gets_no_code_beside_it(hall: Hall) -> None:
    hall.begin_code()
    assert hall.invited() == ""
    hall.begin_device()
    assert hall.invited() == OFFER.format(1)


# --- Microsoft is slow, or says no


def slow(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> list[Deferred[DeviceFlow | NotGranted]]:
    asked: list[Deferred[DeviceFlow | NotGranted]] = []

    def begin_device(app: App) -> Deferred[DeviceFlow | NotGranted]:
        asked.append(Deferred())
        return asked[-1]

    monkeypatch.setattr(hall.microsoft, "begin_device", begin_device)
    return asked


def test_no_login_waits_long_and_the_next_gets_what_came_meanwhile(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = slow(hall, monkeypatch)
    first = running(hall.invitations.invite(ALICE))
    hall.clock.advance(BEGIN_LIMIT_S - 1)
    second = running(hall.invitations.invite(ALICE))
    assert not first.called
    hall.clock.advance(1)
    assert result(first) == ""
    asked[0].callback(device_flow(7))
    assert result(second) == OFFER.format(7)
    assert result(running(hall.invitations.invite(ALICE))) == OFFER.format(7)
    assert len(asked) == 1


def test_a_program_that_leaves_ends_it_for_nobody(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = slow(hall, monkeypatch)
    leaving, staying = running(hall.invitations.invite(ALICE)), running(hall.invitations.invite(ALICE))
    leaving.cancel()
    with pytest.raises(CancelledError):
        result(leaving)
    asked[0].callback(device_flow(7))
    assert result(staying) == OFFER.format(7)


def test_after_a_failure_microsoft_is_left_alone_for_a_while(hall: Hall) -> None:
    for _ in range(3):
        hall.microsoft.device_flows[:] = [later()]
        assert "cannot be reached" in done(hall.invitations.invite(ALICE))
        hall.clock.advance(1)
    assert hall.asked == 1
    hall.clock.advance(BEGIN_AGAIN_S)
    assert hall.invited().startswith(OFFER.format(1))
    assert hall.asked == 2


@pytest.mark.parametrize(
    ("ends", "word"),
    [
        (lambda hall: hall.ends(BLOCKED), "rules"),
        (lambda hall: hall.ends(AppMisconfigured(SignInError("invalid_client", (7000218,)))), "client secret"),
    ],
    ids=["blocked by a rule", "no public client"],
)
def test_what_only_others_can_mend_is_said_in_place_of_further_codes(
    hall: Hall, ends: Callable[[Hall], None], word: str
) -> None:
    hall.invited()
    ends(hall)
    for _ in range(3):
        told = hall.invited()
        assert told.startswith("No sign-in by code: ")
        assert word in told
        assert "USERCODE" not in told
    assert hall.asked == 1
    hall.clock.advance(BLOCKED_AGAIN_S)
    assert hall.invited() == OFFER.format(5)


def test_an_app_that_was_mended_is_asked_at_once(hall: Hall) -> None:
    hall.invited()
    hall.ends(BLOCKED)
    assert hall.invited().startswith("No sign-in by code")
    mended = account(app=replace(APP, application_id="22222222-2222-4222-8222-222222222222"))
    assert hall.invited(mended) == OFFER.format(3)


def test_another_person_at_the_code_is_told_with_the_next_one(hall: Hall) -> None:
    hall.invited()
    hall.ends(granted(1, username=BOB.name))
    told = hall.invited()
    assert told.startswith(OFFER.format(2))
    assert "You signed in to Microsoft as bob@contoso.com, but the account is for alice" in told[:160]
    for _ in range(int(TOLD_FOR_S / LIFE_S)):
        hall.nobody_comes()
        told = hall.invited()
    assert told == OFFER.format(6), "that is old news"


def test_who_said_no_is_asked_again(hall: Hall) -> None:
    hall.invited()
    hall.ends(SignInAgain(SignInError("authorization_declined", (65004,))))
    assert "Last time: " in hall.invited()
    hall.ends(granted(1))
    hall.clock.advance(1)
    done(hall.tokens.sign_out(ALICE))
    assert hall.invited() == OFFER.format(3), "that is over"


def test_so_many_codes_are_offered_at_once_and_no_more(hall: Hall) -> None:
    people = [account(f"person{number}@contoso.com") for number in range(MAX_OPEN + 1)]
    told = [hall.invited(person) for person in people]
    assert all(told[:-1])
    assert told[-1] == ""
    assert hall.asked == MAX_OPEN
    hall.nobody_comes()
    assert hall.invited(people[-1])


# --- secrets


def test_the_code_is_neither_logged_nor_printed_nor_in_any_state(hall: Hall, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert "USERCODE1" in hall.invited()
    begun = done(hall.sign_ins.begin_device(ALICE))
    text = hall.refusal()
    report = hall.states.report(ALICE)
    hall.ends(granted(1, username=BOB.name))
    assert "USERCODE2" in hall.invited()
    records = " ".join(f"{record.getMessage()} {getattr(record, 'fields', '')}" for record in caplog.records)
    assert "device code offered" in records
    assert "USERCODE" not in f"{records} {text} {report} {begun!r} {hall.invitations!r}"


def test_begun_by_address_or_code_both_kinds_are_known(hall: Hall) -> None:
    begun = done(hall.sign_ins.begin_code(ALICE, BACK))
    assert isinstance(begun, CodeSignIn)
    assert hall.sign_ins.in_browser(ALICE)
    assert hall.sign_ins.device(ALICE) is None
    assert isinstance(hall.finish_code(begun, granted(1)), SignedIn)
    assert not hall.sign_ins.in_browser(ALICE)
