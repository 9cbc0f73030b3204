"""An identity's grant and its record: saved by compare-and-swap, whoever else writes, and whatever the store does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred

from proxy.accounts.grants import (
    ERASE_ATTEMPTS,
    MIN_LIFE_S,
    SAVE_RETRY_S,
    Active,
    Broken,
    Identity,
    SharedWork,
    SignedOut,
    SigningIn,
    TokenState,
)
from proxy.accounts.outcomes import AdminMustAct, AppMisconfigured, SignInAgain, SignInError
from proxy.accounts.store import Record, StoreDamaged, StoreError, StoreUnavailable
from tests.accounts.fakes import NOW_S, MemoryStore, WallClock, done, granted, result

RECORD = "grant/work/alice"


def active(number: int) -> Active:
    return Active(granted(number), NOW_S)


class HeldStore(MemoryStore):
    """Its loads can be held back too."""

    def __init__(self) -> None:
        super().__init__()
        self.holding_loads = False
        self.loads: list[Callable[[], None]] = []

    def load(self, name: str) -> Deferred[Record | None]:
        if not self.holding_loads:
            return super().load(name)
        loaded: Deferred[Record | None] = Deferred()

        def load() -> None:
            super(HeldStore, self).load(name).chainDeferred(loaded)

        self.loads.append(load)
        return loaded

    def let_load(self) -> None:
        self.holding_loads = False
        loads, self.loads = self.loads, []
        for load in loads:
            load()


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def store() -> HeldStore:
    return HeldStore()


def identity_of(store: MemoryStore | None, clock: WallClock, told: list[TokenState] | None = None) -> Identity:
    return Identity("work/alice", store, clock, (told if told is not None else []).append)


@pytest.fixture
def identity(store: HeldStore, clock: WallClock) -> Identity:
    return identity_of(store, clock)


@pytest.fixture
def other(store: HeldStore, clock: WallClock) -> Identity:
    """The same identity in another process."""
    return identity_of(store, clock)


# --- shared work


class Work:
    def __init__(self) -> None:
        self.started = 0
        self.end: Deferred[None] = Deferred()
        self.shared = SharedWork(self._run)

    async def _run(self) -> None:
        self.started += 1
        await self.end


def test_work_is_started_once_and_ends_for_all() -> None:
    work = Work()
    waiters = [work.shared.join() for _ in range(3)]
    assert (work.started, work.shared.running) == (1, True)
    work.end.callback(None)
    assert [result(waiter) for waiter in waiters] == [None] * 3
    assert not work.shared.running


def test_who_is_cancelled_leaves_and_the_first_one_too() -> None:
    work = Work()
    first, second = work.shared.join(), work.shared.join()
    first.cancel()
    with pytest.raises(CancelledError):
        result(first)
    assert not work.end.called
    work.end.callback(None)
    assert result(second) is None


def test_who_is_told_may_start_it_anew() -> None:
    work = Work()
    again: list[Deferred[None]] = []
    work.shared.join().addCallback(lambda _: again.append(work.shared.join()))
    work.end.callback(None)
    assert work.started == 2
    assert result(again[0]) is None


def test_a_failure_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    work.shared.join().addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    work.end.errback(ZeroDivisionError())
    assert "ZeroDivisionError" in caplog.text


# --- how long a token will do


@pytest.mark.parametrize(
    ("issued_for_s", "left_s", "short"),
    [
        (4500, MIN_LIFE_S + 1, False),
        (4500, MIN_LIFE_S, True),
        (86_400, MIN_LIFE_S, True),
        (2 * MIN_LIFE_S, MIN_LIFE_S + 1, False),
        (600, 301, False),
        (600, 300, True),
        (0, 0, True),
    ],
)
def test_half_an_hour_is_wanted_or_half_of_what_was_issued(issued_for_s: float, left_s: float, short: bool) -> None:
    token = Active(granted(1, life_s=issued_for_s), NOW_S)
    assert token.is_short(NOW_S + issued_for_s - left_s) is short


# --- a record and back


@pytest.mark.parametrize("kind", [SignInAgain, AppMisconfigured, AdminMustAct])
def test_a_refused_grant_comes_back_as_it_was_and_may_be_tried_at_once(
    kind: type[SignInAgain | AppMisconfigured | AdminMustAct], identity: Identity, other: Identity
) -> None:
    error = SignInError("invalid_grant", (70008, 50173), "AADSTS70008: x", "bad_token", "c-1", "2026-11-24")
    identity.put(Broken(granted(1), kind(error), NOW_S + 600, NOW_S - 60))
    result(other.load())
    assert other.state == Broken(granted(1), kind(error), 0, NOW_S - 60)


def test_a_good_grant_comes_back_with_its_time_of_issue(identity: Identity, other: Identity) -> None:
    identity.put(Active(granted(1), NOW_S - 5, forced=True))
    result(other.load())
    assert other.state == Active(granted(1), NOW_S - 5)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"granted": {"access_token": "secret-1"}, "refused": null, "issued_at_s": 0}',
        '{"granted": 7, "refused": null, "issued_at_s": 0}',
    ],
)
def test_a_record_of_another_form_is_named_and_left_alone(store: HeldStore, identity: Identity, text: str) -> None:
    store.records[RECORD] = (3, text)
    with pytest.raises(StoreDamaged) as caught:
        result(identity.load())
    assert "secret-1" not in f"{caught.value!r} {caught.value.text}"
    assert not identity.known
    identity.put(active(1), overrides=True)  # a new sign-in mends it
    assert store.holds(RECORD, "cache-1")


def test_a_sign_in_is_not_a_state_to_store(store: HeldStore, identity: Identity) -> None:
    identity.put(SigningIn(SignedOut(), "soon"))
    assert identity.settled == SignedOut()
    assert store.records == {}


# --- loading


def test_loading_asks_the_store_once(store: HeldStore, clock: WallClock) -> None:
    told: list[TokenState] = []
    identity = identity_of(store, clock, told)
    store.holding_loads = True
    loads = [identity.load(), identity.load()]
    assert len(store.loads) == 1
    store.let_load()
    assert [result(load) for load in [*loads, identity.load()]] == [None] * 3
    assert told == [SignedOut()]


def test_a_sign_in_during_the_load_is_not_undone(store: HeldStore, identity: Identity, other: Identity) -> None:
    other.put(active(1))
    store.holding_loads = True
    loading = identity.load()
    identity.put(active(2), overrides=True)
    store.let_load()
    result(loading)
    assert identity.state == active(2)
    result(identity.saved())
    assert store.holds(RECORD, "cache-2")


# --- saving


def test_a_save_that_fails_is_tried_again_until_it_is_done(
    store: HeldStore, identity: Identity, clock: WallClock
) -> None:
    store.failing = True
    identity.put(active(1))
    clock.advance(SAVE_RETRY_S)
    assert store.saves == 2
    store.failing = False
    clock.advance(SAVE_RETRY_S)
    assert store.holds(RECORD, "cache-1")
    assert clock.getDelayedCalls() == []


def test_only_the_last_of_several_states_need_be_stored(store: HeldStore, identity: Identity) -> None:
    store.holding = True
    for number in (1, 2, 3):
        identity.put(active(number))
    store.holding = False
    store.let_go()
    assert store.holds(RECORD, "cache-3")
    assert store.saves == 2
    assert identity.saved().called


def test_a_save_asked_for_during_another_covers_it(store: HeldStore, identity: Identity) -> None:
    store.holding = True
    identity.put(active(1))
    identity.put(active(2))
    saved = identity.saved()
    store.let_go()
    assert not saved.called
    store.let_go()
    assert saved.called


def test_another_writer_wins_over_a_refresh(store: HeldStore, clock: WallClock, other: Identity) -> None:
    told: list[TokenState] = []
    identity = identity_of(store, clock, told)
    identity.put(active(1))
    result(other.load())
    other.put(active(2))
    identity.put(active(3))
    assert identity.state == active(2)
    assert told[-1] == active(2)
    identity.put(active(4))
    assert store.holds(RECORD, "cache-4")


def test_a_sign_in_wins_over_another_writer_though_its_first_save_failed(
    store: HeldStore, identity: Identity, other: Identity, clock: WallClock
) -> None:
    store.failing = True
    identity.put(active(1), overrides=True)
    store.failing = False
    result(other.load())
    other.put(active(2))
    clock.advance(SAVE_RETRY_S)
    assert store.holds(RECORD, "cache-1")


def test_a_sign_in_during_a_lost_race_wins_it(store: HeldStore, identity: Identity, other: Identity) -> None:
    identity.put(active(1))
    result(other.load())
    other.put(active(2))
    store.holding_loads = True
    identity.put(active(3))  # superseded: it looks what the other wrote
    identity.put(active(4), overrides=True)
    store.let_load()
    assert identity.state == active(4)
    assert store.holds(RECORD, "cache-4")


def test_another_writers_record_of_another_form_stops_nobody(
    store: HeldStore, identity: Identity, clock: WallClock
) -> None:
    identity.put(active(1))
    store.records[RECORD] = (7, "{}")
    identity.put(active(2))
    assert identity.state == active(2)
    assert store.records[RECORD] == (7, "{}")
    assert (store.saves, len(clock.getDelayedCalls())) == (2, 1)  # it looks again, and not at once


def test_a_store_that_fails_in_the_middle_of_a_race_is_tried_again(
    store: HeldStore, identity: Identity, other: Identity, clock: WallClock
) -> None:
    identity.put(active(1))
    result(other.load())
    other.put(active(2))
    store.holding_loads = True
    identity.put(active(3))
    store.failing = True
    store.let_load()
    store.failing = False
    clock.advance(SAVE_RETRY_S)
    assert identity.state == active(2)


# --- erasing


def test_what_is_erased_is_gone_here_and_there(store: HeldStore, identity: Identity) -> None:
    identity.put(active(1))
    done(identity.erase())
    assert identity.state == SignedOut()
    assert store.records == {}
    identity.put(active(2))
    assert store.holds(RECORD, "cache-2")


def test_what_was_never_read_is_erased_too(store: HeldStore, identity: Identity, other: Identity) -> None:
    other.put(active(1))
    done(identity.erase())
    assert store.records == {}


def test_a_save_under_way_does_not_survive_an_erasure(store: HeldStore, identity: Identity, clock: WallClock) -> None:
    store.holding = True
    identity.put(active(1))
    erasing = Deferred.fromCoroutine(identity.erase())
    store.let_go()
    result(erasing)
    clock.advance(SAVE_RETRY_S)
    assert store.records == {}
    assert clock.getDelayedCalls() == []


def test_a_save_that_waits_for_a_better_time_is_called_off(
    store: HeldStore, identity: Identity, clock: WallClock
) -> None:
    store.failing = True
    identity.put(active(1))
    with pytest.raises(StoreUnavailable):
        done(identity.erase())
    store.failing = False
    clock.advance(SAVE_RETRY_S)
    assert store.records == {}
    assert identity.state == SignedOut()


def test_a_sign_in_during_an_erasure_stays(store: HeldStore, identity: Identity) -> None:
    identity.put(active(1))
    store.holding_loads = True
    erasing = Deferred.fromCoroutine(identity.erase())
    identity.put(active(2), overrides=True)
    store.let_load()
    result(erasing)
    assert store.holds(RECORD, "cache-2")
    assert identity.state == active(2)


def test_an_erasure_gives_up_against_a_busy_writer(
    store: HeldStore, identity: Identity, other: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.put(active(1))
    rounds = 0
    delete = store.delete

    def rewritten(name: str, expected_version: int) -> Deferred[None]:
        nonlocal rounds
        rounds += 1
        other.put(active(rounds + 1))
        return delete(name, expected_version)

    monkeypatch.setattr(store, "delete", rewritten)
    with pytest.raises(StoreError):
        done(identity.erase())
    assert rounds == ERASE_ATTEMPTS
    assert store.holds(RECORD, f"cache-{ERASE_ATTEMPTS + 1}")


# --- without a store, and the end


def test_without_a_store_nothing_is_read_or_saved(clock: WallClock) -> None:
    identity = identity_of(None, clock)
    assert result(identity.load()) is None
    identity.put(active(1))
    assert result(identity.saved()) is None
    assert identity.state == active(1)
    done(identity.erase())
    assert isinstance(identity.state, Active)  # it may ask anew
    assert identity.state.is_short(clock.seconds())


def test_after_the_last_save_no_timer_is_left(store: HeldStore, identity: Identity, clock: WallClock) -> None:
    store.failing = True
    identity.put(active(1))
    assert result(identity.close()) is None
    assert clock.getDelayedCalls() == []
    identity.put(active(2))
    assert clock.getDelayedCalls() == []


def test_no_state_prints_a_token() -> None:
    broken = Broken(granted(1), SignInAgain(SignInError("invalid_grant")), 0)
    for state in (active(1), broken, SigningIn(broken, "soon")):
        assert "access-1" not in repr(state)
        assert "cache-1" not in repr(state)
