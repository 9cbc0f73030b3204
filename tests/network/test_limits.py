"""The gate: so many at once, the others in turn, none for ever, and nothing kept of those who left."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxy.login import Fault, LoginRefused, Refusal
from proxy.network.limits import MAX_QUEUED, PACE_S, QUEUE_LIMIT_S, Gate
from tests.network.turning import watch


class Visitor:
    """One who wants a place, and keeps it until told to leave."""

    def __init__(
        self,
        gate: Gate,
        kind: str = "imap alice",
        limit: int = 1,
        error: Exception | None = None,
        per_minute: int | None = None,
    ) -> None:
        self.inside = False
        self._leave: Deferred[None] = Deferred()
        self._error = error
        self.visit: Deferred[None] = Deferred.fromCoroutine(self._run(gate, kind, limit, per_minute))
        self.outcome = watch(self.visit)

    async def _run(self, gate: Gate, kind: str, limit: int, per_minute: int | None) -> None:
        async with gate.place(kind, limit, per_minute):
            self.inside = True
            try:
                await self._leave
                if self._error is not None:
                    raise self._error
            finally:
                self.inside = False

    def leave(self) -> None:
        self._leave.callback(None)

    @property
    def refused(self) -> LoginRefused:
        assert isinstance(self.outcome[0], Failure)
        assert isinstance(self.outcome[0].value, LoginRefused)
        return self.outcome[0].value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(clock)


def test_as_many_as_allowed_are_inside_at_once(gate: Gate) -> None:
    visitors = [Visitor(gate, limit=3) for _ in range(5)]
    assert [visitor.inside for visitor in visitors] == [True, True, True, False, False]


def test_places_are_handed_over_in_the_order_of_arrival(gate: Gate, clock: Clock) -> None:
    first, second, third = (Visitor(gate) for _ in range(3))
    first.leave()
    assert (second.inside, third.inside) == (True, False)
    second.leave()
    assert third.inside
    third.leave()
    assert not clock.getDelayedCalls()


def test_a_place_that_is_handed_on_is_not_free_for_another(gate: Gate) -> None:
    first, second = Visitor(gate), Visitor(gate)
    first.leave()
    assert second.inside
    assert not Visitor(gate).inside


def test_who_got_a_place_keeps_it_beyond_the_queues_limit(gate: Gate, clock: Clock) -> None:
    first, second = Visitor(gate), Visitor(gate)
    first.leave()
    clock.advance(2 * QUEUE_LIMIT_S)
    assert second.inside
    assert not clock.getDelayedCalls()


def test_kinds_do_not_wait_for_each_other(gate: Gate) -> None:
    visitors = [Visitor(gate, kind) for kind in ("imap alice", "smtp alice", "imap bob")]  # who is forgotten leaves
    assert all(visitor.inside for visitor in visitors)
    assert not Visitor(gate, "imap alice").inside


def test_who_waits_too_long_is_told_that_the_account_is_busy(gate: Gate, clock: Clock) -> None:
    inside, waiting = Visitor(gate), Visitor(gate)
    clock.advance(QUEUE_LIMIT_S - 0.1)
    assert not waiting.outcome
    clock.advance(0.1)
    assert waiting.refused.refusal is Refusal.BUSY
    assert waiting.refused.fault is Fault.CLIENT
    assert "1" in waiting.refused.text
    later = Visitor(gate)
    inside.leave()
    assert later.inside  # the place goes to who still waits


def test_a_queue_without_end_is_refused_at_once(gate: Gate) -> None:
    inside, *queued = [Visitor(gate) for _ in range(1 + MAX_QUEUED)]
    assert inside.inside
    assert not any(visitor.outcome for visitor in queued)
    assert Visitor(gate).refused.refusal is Refusal.BUSY
    assert Visitor(gate, "imap bob").inside
    another = Visitor(gate, "imap bob")
    assert not another.outcome, "his queue is his own"
    inside.leave()
    assert queued[0].inside
    last = Visitor(gate)
    assert not last.outcome, "there is room again"


def test_an_error_inside_frees_the_place(gate: Gate) -> None:
    first, second = Visitor(gate, error=RuntimeError()), Visitor(gate)
    first.leave()
    assert isinstance(first.outcome[0], Failure)
    assert first.outcome[0].check(RuntimeError)
    assert second.inside


def test_who_is_cancelled_in_the_queue_takes_no_place(gate: Gate, clock: Clock) -> None:
    first, second, third = (Visitor(gate) for _ in range(3))
    second.visit.cancel()
    assert isinstance(second.outcome[0], Failure)
    assert second.outcome[0].check(CancelledError)
    first.leave()
    assert third.inside
    third.leave()
    assert not clock.getDelayedCalls()


def test_who_is_cancelled_inside_frees_the_place(gate: Gate) -> None:
    first, second = Visitor(gate), Visitor(gate)
    first.visit.cancel()
    assert second.inside


def test_nothing_is_kept_of_those_who_left(gate: Gate) -> None:
    visitors = [Visitor(gate, f"imap {n % 10}") for n in range(30)]
    while any(not visitor.outcome for visitor in visitors):
        next(visitor for visitor in visitors if visitor.inside).leave()
    assert not gate._places
    assert Visitor(gate, "imap 1").inside


def test_a_smaller_limit_holds_for_the_next_ones_only(gate: Gate) -> None:
    """As after a reload of the configuration."""
    before = [Visitor(gate, limit=3) for _ in range(3)]
    after = Visitor(gate, limit=1)
    assert not after.inside
    before[0].leave()
    assert after.inside


def paced(gate: Gate, per_minute: int = 3) -> Visitor:
    """One who comes and goes at once, where so many may begin in a minute."""
    visitor = Visitor(gate, kind="smtp alice", limit=100, per_minute=per_minute)
    visitor.leave()
    return visitor


def test_as_many_as_the_minute_allows_begin_at_once(gate: Gate, clock: Clock) -> None:
    assert all(paced(gate).outcome for _ in range(3))
    clock.advance(PACE_S - QUEUE_LIMIT_S)
    late = paced(gate)
    assert not late.outcome
    clock.advance(QUEUE_LIMIT_S)
    assert late.outcome == [None]


def test_who_waits_for_the_minute_counts_for_the_next_one(gate: Gate, clock: Clock) -> None:
    for _ in range(3):
        paced(gate)
    clock.advance(PACE_S - QUEUE_LIMIT_S)
    waiting = [paced(gate) for _ in range(3)]
    clock.advance(QUEUE_LIMIT_S)
    assert all(visitor.outcome == [None] for visitor in waiting)
    assert paced(gate).refused.refusal is Refusal.BUSY


def test_who_would_wait_too_long_for_the_minute_is_busy_at_once(gate: Gate) -> None:
    for _ in range(3):
        paced(gate)
    refused = paced(gate).refused
    assert refused.refusal is Refusal.BUSY
    assert refused.text == "Too many messages at once for this account; 3 a minute are allowed."


def test_a_minute_later_all_is_forgotten(gate: Gate, clock: Clock) -> None:
    for _ in range(3):
        paced(gate)
    clock.advance(PACE_S)
    assert all(paced(gate).outcome == [None] for _ in range(3))


def test_each_start_is_forgotten_after_its_own_minute(gate: Gate, clock: Clock) -> None:
    paced(gate, 2)
    clock.advance(PACE_S - 10)
    paced(gate, 2)
    clock.advance(10)
    assert paced(gate, 2).outcome == [None], "the first is forgotten"
    assert paced(gate, 2).refused.refusal is Refusal.BUSY, "the second is not"


# --- on hold, while Exchange throttles


def test_a_short_hold_is_waited_out(gate: Gate, clock: Clock) -> None:
    gate.hold("imap alice", QUEUE_LIMIT_S)
    held, other = Visitor(gate), Visitor(gate, "imap bob")
    clock.advance(QUEUE_LIMIT_S - 1)
    assert (held.inside, other.inside) == (False, True)
    clock.advance(1)
    assert (held.inside, other.inside) == (True, True)
    assert not clock.getDelayedCalls()


def test_a_long_hold_is_told_at_once(gate: Gate, clock: Clock) -> None:
    gate.hold("imap alice", 300)
    clock.advance(60.5)
    refused = Visitor(gate).refused
    assert refused.refusal is Refusal.BUSY
    assert refused.fault is Fault.EXCHANGE
    assert refused.text == "Not your password: Microsoft throttles this mailbox. It goes on in 240 s."
    clock.advance(300 - 60.5 - QUEUE_LIMIT_S)
    waiting = Visitor(gate)
    assert not waiting.outcome
    clock.advance(QUEUE_LIMIT_S)
    assert waiting.inside


@pytest.mark.parametrize("holds_s", [(10, 15), (15, 10)])
def test_the_longest_hold_counts(gate: Gate, clock: Clock, holds_s: tuple[float, float]) -> None:
    for hold_s in holds_s:
        gate.hold("imap alice", hold_s)
    held = Visitor(gate)
    clock.advance(14)
    assert not held.inside
    clock.advance(1)
    assert held.inside


def test_a_hold_that_grows_turns_away_who_would_wait_too_long_in_all(gate: Gate, clock: Clock) -> None:
    gate.hold("imap alice", QUEUE_LIMIT_S)
    visitor = Visitor(gate)
    clock.advance(1)
    gate.hold("imap alice", QUEUE_LIMIT_S)
    clock.advance(QUEUE_LIMIT_S - 1)
    assert visitor.refused.text.endswith("It goes on in 1 s.")


def test_who_is_inside_stays_and_keeps_no_place_for_who_is_held(gate: Gate, clock: Clock) -> None:
    inside = Visitor(gate)
    gate.hold("imap alice", 10)
    held = Visitor(gate)
    assert inside.inside
    inside.leave()
    assert not held.inside
    assert not gate._places
    clock.advance(10)
    assert held.inside


def test_who_waits_for_a_place_does_not_begin_during_a_hold(gate: Gate, clock: Clock) -> None:
    """The session that heard of it ends, most often, and its place would be the next one's."""
    first, *others = (Visitor(gate, limit=1) for _ in range(3))
    gate.hold("imap alice", 10)
    first.leave()
    assert not any(visitor.inside or visitor.outcome for visitor in others)
    clock.advance(10)
    assert [visitor.inside for visitor in others] == [True, False]
    others[0].leave()
    assert others[1].inside


def test_who_waits_for_a_place_is_told_of_a_long_hold(gate: Gate) -> None:
    inside, waiting = Visitor(gate), Visitor(gate)
    gate.hold("imap alice", 300)
    assert "throttles" in waiting.refused.text
    assert inside.inside


def test_a_hold_of_no_time_holds_nobody(gate: Gate) -> None:
    first, second, third = (Visitor(gate) for _ in range(3))
    gate.hold("imap alice", 0)
    assert not second.outcome
    first.leave()
    assert (second.inside, third.inside) == (True, False)


def test_who_is_cancelled_on_hold_takes_no_place(gate: Gate, clock: Clock) -> None:
    gate.hold("imap alice", 10)
    visitor = Visitor(gate)
    visitor.visit.cancel()
    assert isinstance(visitor.outcome[0], Failure)
    assert visitor.outcome[0].check(CancelledError)
    assert not clock.getDelayedCalls()
    clock.advance(10)
    assert Visitor(gate).inside


def test_who_is_turned_away_by_a_hold_is_not_counted_in_the_minute(gate: Gate, clock: Clock) -> None:
    gate.hold("smtp alice", 30)
    assert all("throttles" in paced(gate).refused.text for _ in range(9))
    clock.advance(30)
    assert all(paced(gate).outcome == [None] for _ in range(3))


def test_a_hold_that_begins_while_the_minute_is_awaited_counts_too(gate: Gate, clock: Clock) -> None:
    for _ in range(3):
        paced(gate)
    clock.advance(PACE_S - 10)
    waiting = paced(gate)
    gate.hold("smtp alice", 15)
    clock.advance(10)
    assert not waiting.outcome
    clock.advance(5)
    assert waiting.outcome == [None]


def test_holds_that_are_over_are_forgotten(gate: Gate, clock: Clock) -> None:
    for name in ("alice", "bob"):
        gate.hold(f"imap {name}", 10)
    clock.advance(10)
    gate.hold("imap carol", 10)
    assert list(gate._holds) == ["imap carol"]


def test_places_are_counted(gate: Gate) -> None:
    assert gate.taken("imap alice") == 0
    first, second = Visitor(gate, limit=2), Visitor(gate, limit=2)
    assert (gate.taken("imap alice"), gate.taken("smtp alice")) == (2, 0)
    first.leave()
    second.leave()
    assert gate.taken("imap alice") == 0
