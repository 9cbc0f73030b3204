"""Upkeep: what nobody uses is renewed in time, one after the other, and what ends soon is told before."""

from __future__ import annotations

import datetime
import logging
from dataclasses import replace

import pytest

from proxy.accounts.outcomes import AdminMustAct, SignInError
from proxy.accounts.states import IDLE_WARNING_S, REFRESH_IDLE_LIFE_S, AccountStates
from proxy.accounts.tokens import Tokens
from proxy.accounts.upkeep import (
    DAY_S,
    FIRST_LOOK_S,
    IDLE_RENEWAL_S,
    LOOK_EVERY_S,
    PAUSE_S,
    Upkeep,
)
from proxy.config.settings import Account, App, Secret
from tests.accounts.fakes import (
    ALICE,
    APP,
    DAEMON,
    FakeMicrosoft,
    MemoryStore,
    WallClock,
    account,
    again,
    done,
    granted,
    later,
    running,
)

BOB = account("bob@contoso.com")
TODAY = datetime.date(2027, 1, 15)  # NOW_S


class House:
    """Upkeep with everything around it; both people are signed in."""

    def __init__(self) -> None:
        self.clock = WallClock()
        self.store = MemoryStore()
        self.microsoft = FakeMicrosoft()
        self.restart()
        self.sign_in(1)
        self.sign_in(2, BOB)

    def restart(self) -> None:
        now = self.clock.seconds
        self.states = AccountStates(now)
        self.tokens = Tokens(self.store, self.microsoft, self.clock, self.states, now=now)
        self.upkeep = Upkeep(self.tokens, self.states, self.clock, now=now)
        self.use(ALICE, BOB)
        done(self.tokens.start([ALICE, BOB]))

    def use(self, *accounts: Account, apps: tuple[App, ...] = (APP,)) -> None:
        self.upkeep.use(accounts, {app.name: app for app in apps})

    def sign_in(self, number: int, who: Account = ALICE) -> None:
        done(self.tokens.adopt(who, granted(number, at_s=self.clock.seconds(), username=who.name)))

    def renewed(self) -> int:
        return self.microsoft.count("refresh")

    def answer(self, number: int) -> None:
        self.microsoft.answer(granted(number, at_s=self.clock.seconds()))

    def look(self) -> None:
        """One look, all of whose renewals fail for the network's sake."""
        ended = running(self.upkeep.renew_idle())
        while self.microsoft.waiting:
            self.microsoft.answer(later())
            self.clock.advance(PAUSE_S)
        assert ended.called


@pytest.fixture
def house() -> House:
    return House()


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [getattr(record, "fields", {}) for record in caplog.records if record.getMessage() == event]


def test_what_is_used_is_left_alone(house: House) -> None:
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    house.clock.advance(IDLE_RENEWAL_S - FIRST_LOOK_S - DAY_S)
    assert house.renewed() == 0


def test_idle_sign_ins_are_renewed_one_after_the_other(house: House) -> None:
    house.clock.advance(IDLE_RENEWAL_S)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S - 1)
    assert house.renewed() == 0, "mail programs come first after a start"
    house.clock.advance(1)
    assert house.microsoft.asked == [("refresh", "cache-1")]
    house.clock.advance(PAUSE_S)
    assert house.renewed() == 1, "the next waits for the first"
    house.answer(3)
    house.clock.advance(PAUSE_S - 1)
    assert house.renewed() == 1
    house.clock.advance(1)
    assert house.microsoft.asked[1:] == [("refresh", "cache-2")]
    house.answer(4)
    house.clock.advance(LOOK_EVERY_S)
    assert house.renewed() == 2, "they are fresh now"
    assert house.store.holds("grant/work/alice@contoso.com", "cache-3")
    house.upkeep.stop()
    assert house.clock.getDelayedCalls() == []


def test_many_are_renewed_within_half_a_day(house: House) -> None:
    many = [account(f"person{number}@contoso.com") for number in range(1000)]
    for number, one in enumerate(many):
        house.sign_in(number, one)
    house.use(*many)
    house.clock.advance(IDLE_RENEWAL_S)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    for number in range(len(many)):
        house.answer(number)
        house.clock.advance(DAY_S / 2 / len(many))
    assert house.renewed() == len(many)


def test_a_renewal_that_fails_is_tried_at_the_next_look(house: House) -> None:
    house.use(ALICE)
    house.clock.advance(IDLE_RENEWAL_S)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    house.microsoft.answer(later())
    house.clock.advance(LOOK_EVERY_S - 1)
    assert house.renewed() == 1
    house.clock.advance(1)
    assert house.renewed() == 2
    house.answer(3)
    assert house.states.report(ALICE)["warning"] is None


def test_what_an_administrator_forbade_is_tried_too_and_keeps_its_end(house: House) -> None:
    house.use(ALICE)
    end = house.states.report(ALICE)["refresh_token_idle_expires_at"]
    house.clock.advance(IDLE_RENEWAL_S)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    house.microsoft.answer(AdminMustAct(SignInError("invalid_grant", (53003,))))
    house.upkeep.stop()
    house.restart()
    house.use(ALICE)
    assert house.states.report(ALICE)["refresh_token_idle_expires_at"] == end == "2027-04-15T08:00:00Z"
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    assert house.renewed() == 2


def test_a_sign_in_that_is_over_is_not_renewed(house: House) -> None:
    house.use(ALICE)
    house.clock.advance(IDLE_RENEWAL_S)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    house.microsoft.answer(again())
    house.clock.advance(LOOK_EVERY_S)
    assert house.renewed() == 1
    report = house.states.report(ALICE)
    assert (report["state"], report["refresh_token_idle_expires_at"]) == ("sign_in_needed", None)


def test_accounts_of_one_sign_in_are_renewed_once_and_apps_own_never(house: House) -> None:
    robot, off = account(app=DAEMON), account("carol@contoso.com", app=replace(APP, enabled=False))
    sales = account("sales", mailbox="sales@contoso.com", sign_in=ALICE.name)
    house.use(ALICE, sales, robot, off)
    house.clock.advance(IDLE_RENEWAL_S)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    house.answer(3)
    house.clock.advance(PAUSE_S)
    assert house.microsoft.asked == [("refresh", "cache-1")]


def test_a_store_in_trouble_stops_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.clock.advance(IDLE_RENEWAL_S)
    house.restart()
    house.store.failing = True
    unread = Tokens(house.store, house.microsoft, house.clock, house.states, now=house.clock.seconds)
    house.upkeep = Upkeep(unread, house.states, house.clock, now=house.clock.seconds)
    house.use(ALICE)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    assert logged(caplog, "grant not read")
    house.store.failing = False
    house.clock.advance(LOOK_EVERY_S)
    assert house.renewed() == 1


def test_two_weeks_before_its_end_a_sign_in_is_told_of(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.use(ALICE)
    house.clock.advance(REFRESH_IDLE_LIFE_S - IDLE_WARNING_S - DAY_S)
    house.look()
    assert logged(caplog, "sign-in ends") == []
    assert house.states.report(ALICE)["warning"] is None
    house.clock.advance(DAY_S)
    house.look()
    (told,) = logged(caplog, "sign-in ends")
    assert told["text"] == house.states.report(ALICE)["warning"]
    assert "2027-04-15" in str(told["text"])
    assert "mailferry sign-in alice@contoso.com" in str(told["text"])
    house.sign_in(5)
    assert house.states.report(ALICE)["warning"] is None


@pytest.mark.parametrize(
    ("left", "word"),
    [(31, ""), (30, "ends in 30 days"), (1, "ends in a day"), (0, "ended"), (-20, "ended")],
)
def test_a_client_secret_is_told_of_for_a_month(
    left: int, word: str, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    ends = TODAY + datetime.timedelta(days=left)
    app = replace(APP, client_secret=Secret("s3cret"), client_secret_expires=ends)
    mine = account(app=app)
    house.clock.rightNow = datetime.datetime.combine(TODAY, datetime.time(), datetime.UTC).timestamp()
    house.use(mine, apps=(app, DAEMON))
    house.upkeep.start()
    told = [str(each["text"]) for each in logged(caplog, "client secret ends")]
    report = house.states.report(mine)
    assert report["client_secret_expires"] == ends.isoformat()
    assert told == ([report["warning"]] if word else [])
    assert all(f"The client secret of app work {word} ({ends})." in text for text in told)
    assert "s3cret" not in f"{told} {report}"


def test_it_ends_when_it_is_stopped_in_the_middle(house: House) -> None:
    house.upkeep.stop()  # it was never started
    house.clock.advance(IDLE_RENEWAL_S)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    house.upkeep.stop()
    house.answer(3)
    assert house.store.holds("grant/work/alice@contoso.com", "cache-3"), "what was on its way is kept"
    house.clock.advance(10 * LOOK_EVERY_S)
    assert house.renewed() == 1


def test_a_mistake_of_ours_is_logged(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(house.tokens, "renewed_at_s", lambda account: 1 / 0)
    house.upkeep.start()
    house.clock.advance(FIRST_LOOK_S)
    assert "upkeep ended by a mistake" in caplog.text
