"""Which Microsoft token stands behind an account: kept alive, and renewed once for all who ask.

What it is: for each identity (`Account.identity`) one state, `SignedOut | SigningIn | Active | Broken`, changed here
alone. What it is not: talk with Microsoft (`microsoft.py`), with people (`sign_in.py`) or with the store (`grants.py`).
Who calls it: the session asks `access` at each login; `sign_in.py` brings new grants; commands sign out.

Three rules hold everywhere:
- A state is never changed, only replaced. So a slow refresh finds out that it is late: the state that it started from
  is no longer there, and its result is dropped. Across processes the store's version does the same.
- One refresh at a time for each identity. Who waits for it can leave without ending it for the others.
- Nothing but `sign_out` removes a grant: what Microsoft refuses today it may take tomorrow (FACTS 4.5).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredList, race
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from proxy.accounts.bulletins import (
    awaits_sign_in,
    condition,
    nobody_signed_in,
    refusal,
    renewed_at_s,
    somebody_signs_in,
)
from proxy.accounts.grants import Active, Broken, Identity, SharedWork, SignedOut, SigningIn
from proxy.accounts.outcomes import Granted, Outcome, TryLater
from proxy.accounts.states import AccountStates
from proxy.accounts.store import StoreError, StoreUnavailable, TokenStore
from proxy.config.settings import Account, App, Flow
from proxy.log import Log
from proxy.login import Bearer, Fault, LoginRefused, Refusal
from proxy.metrics import Metrics

LAST_RESORT_LIFE_S = 60  # while Microsoft cannot be asked: a shorter-lived token may end before Exchange has read it
FORCED_AGAIN_S = 60  # a token forced so lately is not forced again: Exchange refuses it for another reason
BACK_OFF_S = (5, 15, 60, 300)  # after the first, second, … temporary failure in a row
MAX_RETRY_AFTER_S = 3600  # of a Retry-After; msal would honour as much (FACTS 4.4)
BROKEN_RETRY_S = 600  # what is refused for good is asked for again at most this often: consent and policies change
CLOSE_S = 5  # for what is on its way to Microsoft or into the store when the daemon stops

log = Log("tokens")


class SignInService(Protocol):
    """What `Microsoft` is to this module."""

    def refresh(self, app: App, cache: str) -> Deferred[Outcome]: ...
    def client_token(self, app: App) -> Deferred[Outcome]: ...


@dataclass(frozen=True, slots=True)
class Holder:
    """Who granted."""

    username: str
    home_account_id: str


@dataclass(frozen=True, slots=True)
class _Outage:
    """Refreshes fail for a passing reason."""

    failures: int
    since_s: float
    retry_at_s: float
    refused: TryLater

    def is_over(self, now_s: float) -> bool:
        """It is time to ask again; also when the machine's clock went back meanwhile."""
        return not self.since_s <= now_s < self.retry_at_s


class _Ward:
    """An identity in our care: its grant, the refresh under way, and the outage, if there is one."""

    def __init__(self, app: App, identity: Identity, refresh: SharedWork) -> None:
        self.app = app
        self.identity = identity
        self.refresh = refresh
        self.outage: _Outage | None = None
        self.forced = False
        """The refresh under way was asked for with `fresh`."""


class Tokens:
    """The tokens of all identities. `now` gives seconds since 1970: tokens outlive a restart and a machine's sleep."""

    def __init__(
        self,
        store: TokenStore,
        microsoft: SignInService,
        clock: IReactorTime,
        states: AccountStates,
        *,
        now: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._metrics = metrics or Metrics()
        self._microsoft = microsoft
        self._clock = clock
        self._states = states
        self._now = now
        self._wards: dict[str, _Ward] = {}
        self._closed = False

    async def start(self, accounts: Iterable[Account]) -> None:
        """Read what is stored for these accounts, so that their states are right. Again after a reload."""
        for account in accounts:
            try:
                await self._ward(account).identity.load()
            except StoreError as error:
                log.error("grant not read", identity=account.identity, reason=error.text)

    def reread(self) -> None:
        """Grants are read from the store again when they are next wanted: somebody else has written there."""
        for ward in self._wards.values():
            if ward.app.flow is Flow.DELEGATED:
                ward.identity.known = False

    async def access(self, account: Account, *, user: str, fresh: bool = False) -> Bearer:
        """A token good for a new session as `user`, the name that XOAUTH2 says. `fresh`: Exchange refused the last one.

        Raises:
            LoginRefused: SIGN_IN_NEEDED, TRY_LATER or MISCONFIGURED.
        """
        if self._closed:
            raise _refused(Refusal.TRY_LATER, "mailferry is stopping; try again in a moment.")
        if not account.app.enabled:
            text = f"The app {account.app.name} is switched off in mailferry's configuration (enabled: false)."
            raise _refused(Refusal.MISCONFIGURED, text)
        ward = self._ward(account)
        try:
            await ward.identity.load()
        except StoreError as error:
            why = Refusal.TRY_LATER if isinstance(error, StoreUnavailable) else Refusal.MISCONFIGURED
            raise _refused(why, f"mailferry cannot read its own store. {error.text}") from error
        if self._may_refresh(ward, fresh):
            ward.forced = fresh or (ward.forced and ward.refresh.running)
            await ward.refresh.join()
        return Bearer(user, self._token_now(ward, account, fresh))

    async def adopt(self, account: Account, granted: Granted) -> None:
        """A person has signed in: from now on this grant holds, whatever was before.

        It is stored when this returns; or the store has failed, which is logged and tried again.
        """
        ward = self._ward(account)
        ward.outage = None
        log.info("signed in", identity=account.identity, user=granted.username)
        ward.identity.put(Active(granted, self._now()), overrides=True)
        self._states.signed_in(account.identity)
        await ward.identity.saved()

    async def sign_out(self, account: Account) -> None:
        """Forget the grant. Microsoft is not told: it has no call for that.

        Raises:
            StoreError: it is forgotten here, but still stored.
        """
        ward = self._ward(account)
        ward.outage = None
        log.info("signed out", identity=account.identity)
        await ward.identity.erase()

    async def holder(self, account: Account) -> Holder | None:
        """Who granted access for this account, if anybody did.

        Raises:
            StoreError: it cannot be read now.
        """
        identity = self._ward(account).identity
        await identity.load()
        state = identity.settled
        return None if isinstance(state, SignedOut) else Holder(state.granted.username, state.granted.home_account_id)

    def signing_in(self, account: Account, hint: str | None) -> None:
        """A person is about to sign in: where no grant is good, refused logins say `hint`. None: nobody is any more."""
        identity = self._ward(account).identity
        before = identity.settled
        if isinstance(before, Active) or not identity.known:
            return  # logins go on with the grant that is there, or may be
        state = SigningIn(before, hint) if hint else before
        if state != identity.state:
            identity.put(state)

    def try_again(self, account: Account) -> None:
        """A person asks for a new attempt: the next login asks Microsoft at once."""
        self._ask_again(self._ward(account))

    def awaits_sign_in(self, account: Account) -> bool:
        """Whether a person's sign-in is all that its logins lack."""
        return awaits_sign_in(self._ward(account).identity.settled)

    async def renewed_at_s(self, account: Account) -> float | None:
        """When Microsoft last renewed the grant; None if there is none that could be renewed.

        Raises:
            StoreError: it cannot be read now.
        """
        ward = self._ward(account)
        await ward.identity.load()
        return renewed_at_s(ward.app, ward.identity.settled)

    async def renew(self, account: Account) -> bool:
        """Have the grant renewed though nobody logs in: one that nobody uses dies. Whether that was done.

        What stands in its way is logged, told to the states, and tried again by logins as ever.

        Raises:
            StoreError: it cannot be read now.
        """
        before_s = await self.renewed_at_s(account)
        ward = self._ward(account)
        waiting = ward.outage is not None and not ward.outage.is_over(self._now())
        if before_s is None or self._closed or waiting:
            return False
        await ward.refresh.join()
        after_s = renewed_at_s(ward.app, ward.identity.settled)
        return after_s is not None and after_s > before_s

    async def close(self) -> None:
        """Refuse logins from now on, and wait a little for what is under way."""
        self._closed = True
        limit: Deferred[None] = deferLater(self._clock, CLOSE_S, lambda: None)
        first, _ = await race([Deferred.fromCoroutine(self._settle()), limit])
        if first == 1:
            log.warning("grants may not be stored", reason=f"not done within {CLOSE_S} s")

    async def _settle(self) -> None:
        wards = list(self._wards.values())
        await DeferredList([ward.refresh.join() for ward in wards if ward.refresh.running], consumeErrors=True)
        await DeferredList([ward.identity.close() for ward in wards], consumeErrors=True)

    def _ward(self, account: Account) -> _Ward:
        ward = self._wards.get(account.identity)
        if ward is None:
            store = self._store if account.app.flow is Flow.DELEGATED else None
            identity = Identity(account.identity, store, self._clock, lambda _: self._tell(made))
            made = ward = _Ward(account.app, identity, SharedWork(lambda: self._refresh(made)))
            self._wards[account.identity] = ward
        if ward.app != account.app:  # a reload changed it, to mend it perhaps
            ward.app = account.app
            self._ask_again(ward)
        return ward

    def _ask_again(self, ward: _Ward) -> None:
        ward.outage = None
        if isinstance(ward.identity.state, Broken) and not ward.refresh.running:
            ward.identity.put(replace(ward.identity.state, retry_at_s=0))

    def _may_refresh(self, ward: _Ward, fresh: bool) -> bool:
        now = self._now()
        if ward.outage is not None and not ward.outage.is_over(now):
            return False
        match ward.identity.state:
            case Active() as active:
                forced_lately = active.forced and 0 <= now - active.issued_at_s < FORCED_AGAIN_S
                return active.is_short(now) or (fresh and not forced_lately)
            case Broken(retry_at_s=retry_at_s):
                return not retry_at_s - BROKEN_RETRY_S <= now < retry_at_s  # before that, the clock went back
            case _:
                return False

    def _token_now(self, ward: _Ward, account: Account, fresh: bool) -> str:
        """What the state gives this caller. Raises: LoginRefused."""
        match ward.identity.state:
            case Active(granted):
                life_s = granted.expires_at_s - self._now()
                if life_s > 0 and ward.outage is None:
                    return granted.access_token  # just issued, it is accepted however short it is
                if life_s >= LAST_RESORT_LIFE_S and not fresh:
                    return granted.access_token
                if ward.outage is None:
                    raise _refused(Refusal.TRY_LATER, "Microsoft issued a token that has already ended; try again.")
                raise refusal(account, ward.outage.refused, ward.outage.retry_at_s - self._now())
            case Broken(_, refused):
                raise refusal(account, refused)
            case SigningIn(_, hint):
                raise somebody_signs_in(hint)
            case SignedOut():
                raise nobody_signed_in(account)

    async def _refresh(self, ward: _Ward) -> None:
        """One refresh, whatever comes of it. Never raises for what Microsoft, the network or the store do."""
        identity = ward.identity
        await identity.saved()  # no refresh token is used whose successor might be lost with the one before
        before = identity.state
        if not isinstance(before, Active | Broken):
            return
        if ward.app.flow is Flow.APP_ONLY:
            outcome = await self._microsoft.client_token(ward.app)
        else:
            outcome = await self._microsoft.refresh(ward.app, before.granted.cache)
        if identity.state is not before:
            log.info("late refresh dropped", identity=identity.key)
            self._metrics.refresh_ended("late")
            return
        match outcome:
            case Granted():
                ward.outage = None
                self._metrics.refresh_ended("refreshed")
                log.info("token refreshed", identity=identity.key, life_s=int(outcome.expires_at_s - self._now()))
                identity.put(Active(outcome, self._now(), ward.forced))
            case TryLater():
                self._metrics.refresh_ended("failed")
                self._fail_for_now(ward, before, outcome)
            case _:
                ward.outage = None
                self._metrics.refresh_ended("refused")
                log.warning("refresh refused", identity=identity.key, reason=str(outcome.error))
                identity.put(Broken(before.granted, outcome, self._now() + BROKEN_RETRY_S, before.issued_at_s))
                await identity.saved()  # if another process holds a newer grant, it is taken now

    def _fail_for_now(self, ward: _Ward, before: Active | Broken, outcome: TryLater) -> None:
        failures = ward.outage.failures if ward.outage else 0
        asked_s = min(outcome.retry_after_s or 0, MAX_RETRY_AFTER_S)
        wait_s = max(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)], asked_s)
        ward.outage = _Outage(failures + 1, self._now(), self._now() + wait_s, outcome)
        reason = str(outcome.error)
        log.warning("refresh failed", identity=ward.identity.key, reason=reason, retry_s=wait_s)
        if outcome.cache is not None:
            before = replace(before, granted=replace(before.granted, cache=outcome.cache))
        if isinstance(before, Broken):
            ward.identity.put(replace(before, retry_at_s=self._now() + wait_s))
        elif outcome.cache is not None:
            ward.identity.put(before)
        else:
            self._tell(ward)

    def _tell(self, ward: _Ward) -> None:
        state, outage = ward.identity.state, ward.outage.refused if ward.outage else None
        usable = isinstance(state, Active) and state.granted.expires_at_s - self._now() >= LAST_RESORT_LIFE_S
        self._states.token_changed(ward.identity.key, condition(ward.app, state, outage, usable=usable))


def _refused(why: Refusal, text: str) -> LoginRefused:
    return LoginRefused(why, text, fault=Fault.MAILFERRY)
