"""The gate: so many at once, the rest in order, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxy.login import Fault, LoginRefused, Refusal
from proxy.network.limits import MAX_QUEUED, QUEUE_LIMIT_S, Gate

ALICE, BOB = "imap alice", "imap bob"


class Visitor:
    """Wants a place at once, and holds it until told to leave."""

    def __init__(self, gate: Gate, kind: str = ALICE, limit: int = 1) -> None:
        self.inside = False
        self.ended: BaseException | None = None
        self._stay: Deferred[None] = Deferred()
        self.visit = Deferred.fromCoroutine(self._visit(gate, kind, limit))
        self.visit.addErrback(self._note)

    def leave(self) -> None:
        self._stay.callback(None)

    def fail(self) -> None:
        self._stay.errback(ZeroDivisionError())

    def cancel(self) -> None:
        self.visit.cancel()

    @property
    def refusal(self) -> LoginRefused:
        assert isinstance(self.ended, LoginRefused)
        return self.ended

    async def _visit(self, gate: Gate, kind: str, limit: int) -> None:
        async with gate.place(kind, limit):
            self.inside = True
            try:
                await self._stay
            finally:
                self.inside = False

    def _note(self, failure: Failure) -> None:
        self.ended = failure.value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(clock)


def test_as_many_as_there_are_places_come_in_at_once(gate: Gate) -> None:
    visitors = [Visitor(gate, limit=3) for _ in range(5)]
    assert [visitor.inside for visitor in visitors] == [True, True, True, False, False]


def test_each_kind_has_places_of_its_own(gate: Gate) -> None:
    assert Visitor(gate, ALICE).inside
    assert Visitor(gate, BOB).inside
    assert not Visitor(gate, BOB).inside


def test_places_go_on_in_the_order_of_the_queue(gate: Gate) -> None:
    first, second, third = (Visitor(gate) for _ in range(3))
    first.leave()
    assert (second.inside, third.inside) == (True, False)
    second.leave()
    assert third.inside


def test_a_place_that_is_handed_on_is_not_free_for_another(gate: Gate) -> None:
    first, second = Visitor(gate), Visitor(gate)
    first.leave()
    assert second.inside
    assert not Visitor(gate).inside


def test_all_places_are_there_again_when_all_have_left(gate: Gate) -> None:
    for visitor in [Visitor(gate, limit=3) for _ in range(9)]:
        visitor.leave()
    assert [Visitor(gate, limit=3).inside for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("end", [Visitor.fail, Visitor.cancel])
def test_a_session_that_fails_gives_its_place_back(gate: Gate, end: Callable[[Visitor], None]) -> None:
    first, second = Visitor(gate), Visitor(gate)
    end(first)
    assert isinstance(first.ended, ZeroDivisionError | CancelledError)
    assert second.inside
    end(second)
    assert Visitor(gate).inside


def test_who_waits_too_long_is_told_that_the_account_is_busy(gate: Gate, clock: Clock) -> None:
    first, second = Visitor(gate), Visitor(gate)
    clock.advance(QUEUE_LIMIT_S - 0.01)
    assert second.ended is None
    clock.advance(0.01)
    assert (second.refusal.refusal, second.refusal.fault) == (Refusal.BUSY, Fault.CLIENT)
    assert "1 are allowed" in second.refusal.text
    assert first.inside


def test_a_place_is_not_handed_to_one_whose_time_is_over(gate: Gate, clock: Clock) -> None:
    first, late = Visitor(gate), Visitor(gate)
    clock.advance(QUEUE_LIMIT_S / 2)
    in_time = Visitor(gate)
    clock.advance(QUEUE_LIMIT_S / 2)
    first.leave()
    assert (late.inside, in_time.inside) == (False, True)


def test_who_got_a_place_keeps_it_beyond_the_queues_limit(gate: Gate, clock: Clock) -> None:
    first, second = Visitor(gate), Visitor(gate)
    first.leave()
    clock.advance(2 * QUEUE_LIMIT_S)
    assert second.inside
    assert not clock.getDelayedCalls()


def test_one_who_gives_up_leaves_the_queue(gate: Gate, clock: Clock) -> None:
    first, second, third = (Visitor(gate) for _ in range(3))
    second.cancel()
    assert isinstance(second.ended, CancelledError)
    assert len(clock.getDelayedCalls()) == 1, "only the third one's time runs"
    first.leave()
    assert third.inside
    third.leave()
    assert Visitor(gate).inside


def test_a_full_queue_refuses_at_once(gate: Gate) -> None:
    first, *waiting = [Visitor(gate) for _ in range(1 + MAX_QUEUED)]
    assert Visitor(gate).refusal.refusal is Refusal.BUSY
    assert [visitor.ended for visitor in waiting] == [None] * MAX_QUEUED
    first.leave()
    assert waiting[0].inside
    last = Visitor(gate)
    assert last.ended is None, "there is room in the queue again"


def test_a_full_queue_is_of_its_own_kind(gate: Gate) -> None:
    crowd = [Visitor(gate, ALICE) for _ in range(2 + MAX_QUEUED)]
    assert crowd[-1].ended is not None
    assert Visitor(gate, BOB).inside
    assert Visitor(gate, BOB).ended is None


def test_nothing_is_kept_of_those_who_left(gate: Gate) -> None:
    visitors = [Visitor(gate, f"imap {number % 10}") for number in range(30)]
    for visitor in visitors:
        visitor.leave()
    assert not gate._places, "or memory grows with every name that ever came"
