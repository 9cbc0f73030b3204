"""An hour in no time, by a fake clock: the sign-in service is down for so long, or the machine's clock jumps by it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxy.accounts.outcomes import Granted
from proxy.accounts.states import AccountStates
from proxy.accounts.tokens import BACK_OFF_S, BROKEN_RETRY_S, FORCED_AGAIN_S, Tokens
from proxy.login import Bearer, LoginRefused, Refusal
from tests.accounts.fakes import (
    ALICE,
    HOUR_S,
    NOW_S,
    FakeMicrosoft,
    MemoryStore,
    again,
    done,
    granted,
    later,
    result,
    running,
)

MINUTE_S = 60


class Machine:
    """Tokens on a machine whose wall clock can jump; its steady clock cannot."""

    def __init__(self) -> None:
        self.steady = Clock()
        self.off_s = 0.0
        self.microsoft = FakeMicrosoft()
        self.store = MemoryStore()
        states = AccountStates(self.now)
        self.tokens = Tokens(self.store, self.microsoft, self.steady, states, now=self.now)
        self.refusals: list[Refusal] = []
        self.numbers = iter(range(1, 10_000))
        done(self.tokens.adopt(ALICE, self.grant()))

    def now(self) -> float:
        return NOW_S + self.steady.seconds() + self.off_s

    def grant(self) -> Granted:
        return granted(next(self.numbers), at_s=self.now())

    def login(self, *, fresh: bool = False) -> Deferred[Bearer]:
        return running(self.tokens.access(ALICE, user=ALICE.mailbox, fresh=fresh))

    def logs_in(self, *, up: bool = True, fresh: bool = False) -> bool:
        """Whether a login gets a token; the sign-in service, if it is asked, answers rightly or not at all."""
        login = self.login(fresh=fresh)
        if self.microsoft.waiting:
            self.microsoft.answer(self.grant() if up else later())
        try:
            return bool(result(login).token)
        except LoginRefused as refused:
            self.refusals.append(refused.refusal)
            return False


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_an_hour_without_the_sign_in_service_costs_nothing_but_that_hour(machine: Machine) -> None:
    """Somebody logs in each minute. The old token serves to its last minute; then he is told to try again later."""
    served = []
    for _ in range(3 * 60):
        machine.steady.advance(MINUTE_S)
        minute = int(machine.steady.seconds() / MINUTE_S)
        served.append(machine.logs_in(up=not 30 <= minute < 90))
    down = served[29:89]
    assert all(served[:29]), "before"
    assert down[:29] == [True] * 29, "the token that was there lives for an hour"
    assert down[30:] == [False] * 30, "then there is none"
    assert served.index(True, 89) - 89 <= BACK_OFF_S[-1] / MINUTE_S, "back within the longest pause"
    assert all(served[served.index(True, 89) :]), "after"
    assert set(machine.refusals) == {Refusal.TRY_LATER}
    asked = machine.microsoft.count()
    assert asked <= len(BACK_OFF_S) + 60 * MINUTE_S / BACK_OFF_S[-1] + 6, "the service that is down is left in peace"


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_jump_while_all_is_well_refuses_no_login(machine: Machine, jump_s: float) -> None:
    machine.off_s = jump_s
    assert machine.logs_in()
    machine.off_s = 0
    assert machine.logs_in()


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_jump_does_not_lengthen_the_pause_after_a_failure(machine: Machine, jump_s: float) -> None:
    machine.steady.advance(HOUR_S)
    assert not machine.logs_in(up=False)
    machine.off_s = jump_s
    machine.steady.advance(BACK_OFF_S[0])
    login = machine.login(fresh=True)
    assert machine.microsoft.waiting, "the sign-in service is asked again"
    machine.microsoft.answer(machine.grant())
    assert result(login).token


def test_a_jump_back_does_not_lengthen_the_pause_after_a_refusal(machine: Machine) -> None:
    machine.steady.advance(HOUR_S)
    login = machine.login()
    machine.microsoft.answer(again())
    with pytest.raises(LoginRefused):
        result(login)
    machine.off_s = -HOUR_S
    machine.steady.advance(BROKEN_RETRY_S)
    assert machine.logs_in()


def test_after_a_jump_back_a_token_that_exchange_refuses_is_renewed(machine: Machine) -> None:
    """It ended, though by the wrong clock it has an hour left; the one before was asked for in the same way."""
    assert machine.logs_in(fresh=True)
    machine.off_s = -2 * HOUR_S
    machine.steady.advance(HOUR_S + FORCED_AGAIN_S)
    before = machine.microsoft.count()
    assert machine.logs_in(fresh=True)
    assert machine.microsoft.count() == before + 1
