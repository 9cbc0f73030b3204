"""What is known of one identity's grant: its state as data, and keeping the store in step with it.

What it is: the token union, a record's form, and an `Identity` that saves each new state by compare-and-swap. What it
is not: a decision when to refresh or whom to refuse; `tokens.py` decides, and is the only caller.

A store that fails stops nobody: the state stands in memory, the save is tried again. A record that somebody else wrote
meanwhile wins over a refresh, and loses to a sign-in, which a person has just made.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from proxy.accounts.outcomes import AdminMustAct, AppMisconfigured, Granted, SignInAgain, SignInError
from proxy.accounts.store import JSON, Record, StoreDamaged, StoreError, StoreUnavailable, Superseded, TokenStore
from proxy.log import Log

MIN_LIFE_S = 30 * 60  # FACTS 3.3: Exchange ends a session when the token it began with expires
SAVE_RETRY_S = 30
ERASE_ATTEMPTS = 3  # against other writers

log = Log("tokens")


@dataclass(frozen=True, slots=True)
class SignedOut:
    """No grant is stored."""


@dataclass(frozen=True, slots=True)
class Active:
    """There is a grant. Its access token may be due for a refresh; an app's first one is yet to be asked for."""

    granted: Granted
    issued_at_s: float
    forced: bool = False
    """It was asked for because somebody complained of the one before."""

    def is_short(self, now_s: float) -> bool:
        """Too short-lived for a new session. Of a token issued for less than twice `MIN_LIFE_S`, half will do."""
        issued_for_s = self.granted.expires_at_s - self.issued_at_s
        return self.granted.expires_at_s - now_s <= min(MIN_LIFE_S, issued_for_s / 2)


@dataclass(frozen=True, slots=True)
class Broken:
    """Microsoft refused the grant or the app, and not for a passing reason. The grant is kept."""

    granted: Granted
    refused: SignInAgain | AppMisconfigured | AdminMustAct
    retry_at_s: float
    issued_at_s: float = 0
    """When Microsoft last renewed the grant; 0 if that is not known."""


@dataclass(frozen=True, slots=True)
class SigningIn:
    """A person is signing in where no grant is good. `hint` says how, in one line."""

    before: SignedOut | Broken
    hint: str


TokenState = SignedOut | SigningIn | Active | Broken

NOTHING_ISSUED = Active(Granted(access_token="", expires_at_s=0, cache="", username="", home_account_id=""), 0)


class SharedWork:
    """One piece of work at a time, awaited by many. Who is cancelled leaves; the work goes on for the others."""

    def __init__(self, work: Callable[[], Coroutine[Deferred[object], object, None]]) -> None:
        self._work = work
        self._waiters: list[Deferred[None]] | None = None

    @property
    def running(self) -> bool:
        return self._waiters is not None

    def join(self) -> Deferred[None]:
        """Await the work under way, or start it."""
        waiter: Deferred[None] = Deferred(self._leave)
        if self._waiters is not None:
            self._waiters.append(waiter)
        else:
            self._waiters = [waiter]
            Deferred.fromCoroutine(self._work()).addBoth(self._ended)
        return waiter

    def _leave(self, waiter: Deferred[None]) -> None:
        if self._waiters and waiter in self._waiters:
            self._waiters.remove(waiter)

    def _ended(self, result: Failure | None) -> None:
        waiters, self._waiters = self._waiters or [], None
        if result is not None and result.value is not None and not waiters:
            log.failure("work failed that nobody waits for", result.value)
        for waiter in waiters:
            waiter.callback(result)


class Identity:
    """One identity's state, and its record in the store. Without a store, for an app's own tokens, nothing is kept."""

    def __init__(
        self, key: str, store: TokenStore | None, clock: IReactorTime, changed: Callable[[TokenState], object]
    ) -> None:
        """`changed` hears of every new state."""
        self.key = key
        self._empty = SignedOut() if store else NOTHING_ISSUED
        self.state: TokenState = self._empty
        self.known = store is None
        """The store has been read, or need not be."""
        self._store = store
        self._clock = clock
        self._changed = changed
        self._version = 0
        self._unsaved = False
        self._overrides = False
        """What is unsaved is a sign-in."""
        self._retry: IDelayedCall | None = None
        self._closing = False
        self._loading = SharedWork(self._load)
        self._saving = SharedWork(self._save)

    @property
    def record_name(self) -> str:
        return f"grant/{self.key}"

    @property
    def settled(self) -> SignedOut | Active | Broken:
        """The state, were nobody signing in."""
        return self.state.before if isinstance(self.state, SigningIn) else self.state

    def load(self) -> Deferred[None]:
        """Read the record, unless it is known.

        Raises:
            StoreError: it cannot be read now.
        """
        return succeed(None) if self.known else self._loading.join()

    def put(self, state: TokenState, *, overrides: bool = False) -> None:
        """This is the state from now on; a grant in it is saved. `overrides`: a person brought it."""
        self.state = state
        self.known = True
        self._changed(state)
        if self._store is not None and isinstance(state, Active | Broken):
            self._want_saved(overrides)
            self._start_saving()

    def saved(self) -> Deferred[None]:
        """Fires when the last state is stored, or its save has failed once more; which is logged."""
        return self._start_saving() if self._unsaved or self._saving.running else succeed(None)

    async def erase(self) -> None:
        """Forget the grant, here and in the store.

        Raises:
            StoreError: it is still stored.
        """
        self._unsaved = self._overrides = False
        self.put(self._empty)
        if self._store is None:
            return
        await self.saved()
        for _ in range(ERASE_ATTEMPTS):
            record = await self._store.load(self.record_name)
            if record is None or self.state is not self._empty:  # somebody signed in meanwhile
                return
            try:
                await self._store.delete(self.record_name, record.version)
            except Superseded:
                continue
            if self.state is self._empty:
                self._version = 0
            return
        raise StoreUnavailable("The grant is being rewritten by another process. Sign out again.")

    def close(self) -> Deferred[None]:
        """Try no save again after this one. Fires as `saved` does."""
        self._closing = True
        last = self.saved()
        self._cancel_retry()
        return last

    async def _load(self) -> None:
        assert self._store is not None
        record = await self._store.load(self.record_name)
        if not self.known:  # else a sign-in came first
            self._take(record)
            self.known = True

    def _take(self, record: Record | None) -> None:
        self.state = _state_in(record) if record else SignedOut()
        self._version = record.version if record else 0
        self._changed(self.state)

    def _start_saving(self) -> Deferred[None]:
        self._cancel_retry()
        return self._saving.join()

    def _cancel_retry(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None

    def _want_saved(self, overrides: bool) -> None:
        self._unsaved = True
        self._overrides = self._overrides or overrides

    async def _save(self) -> None:
        assert self._store is not None
        while self._unsaved and isinstance(self.state, Active | Broken):
            state, overrides = self.state, self._overrides
            self._unsaved = self._overrides = False
            try:
                try:
                    self._version = await self._store.save(self.record_name, _record_of(state), self._version)
                except Superseded:
                    await self._meet_other_writer(state, overrides)
            except StoreError as error:
                log.error("grant not saved", identity=self.key, reason=error.text, retry_s=SAVE_RETRY_S)
                self._want_saved(overrides)
                if not self._closing:
                    self._retry = self._clock.callLater(SAVE_RETRY_S, self._start_saving)
                return

    async def _meet_other_writer(self, ours: TokenState, overrides: bool) -> None:
        """Take what somebody else wrote, or be ready to write over it. Raises: StoreError."""
        assert self._store is not None
        record = await self._store.load(self.record_name)
        if not overrides and self.state is ours:
            log.info("grant superseded by another writer", identity=self.key)
            self._take(record)
        else:
            self._version = record.version if record else 0
            self._want_saved(overrides)


_KINDS = {kind.__name__: kind for kind in (SignInAgain, AppMisconfigured, AdminMustAct)}


def _record_of(state: Active | Broken) -> dict[str, JSON]:
    refused = state.refused if isinstance(state, Broken) else None
    return {
        "granted": asdict(state.granted),
        "issued_at_s": state.issued_at_s,
        "refused": {
            "kind": type(refused).__name__,
            **asdict(refused.error),
            "codes": list(refused.error.codes),
        }
        if refused
        else None,
    }


def _state_in(record: Record) -> Active | Broken:
    """Raises: StoreDamaged: the record has another form."""
    try:
        granted = Granted(**cast("dict[str, str]", record.data["granted"]))  # type: ignore[arg-type]
        refused = cast("dict[str, str] | None", record.data["refused"])
        issued_at_s = float(cast("float", record.data["issued_at_s"]))
        if refused is None:
            return Active(granted, issued_at_s)
        kind = _KINDS[refused.pop("kind")]
        error = SignInError(**{**refused, "codes": tuple(refused["codes"])})  # type: ignore[arg-type]
        return Broken(granted, kind(error), 0, issued_at_s)
    except (KeyError, TypeError) as error:
        raise StoreDamaged("A stored grant has a form that this version of mailferry does not know.") from error
