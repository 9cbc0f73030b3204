"""Upkeep: a daily look at what would end by itself: sign-ins that nobody uses, and client secrets.

Microsoft forgets a refresh token that was not used for 90 days (FACTS 3.3). So a sign-in that is idle for a month is
renewed, one after the other and spread out, and those that cannot be are told of two weeks before their end. What it
is not: the refresh itself (`tokens.py`), or the table that shows the same warnings at any time (`states.py`). Who calls
it: the daemon starts and stops it; a command's own office has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from proxy.accounts.states import AccountStates, secret_warning
from proxy.accounts.store import StoreError
from proxy.accounts.tokens import Tokens
from proxy.config.settings import Account, App, Flow
from proxy.log import Log

DAY_S = 86_400.0
FIRST_LOOK_S = 300.0  # after the start: mail programs come first
LOOK_EVERY_S = DAY_S
IDLE_RENEWAL_S = 30 * DAY_S  # so that two months are left in which it may fail (FACTS 3.3: 90 days)
PAUSE_S = 60.0  # between two renewals; less where there are so many that they would fill more than half a day

log = Log("upkeep")


class Upkeep:
    """Looks after these accounts and apps, from `start` to `stop`. `now` gives seconds since 1970."""

    def __init__(
        self,
        tokens: Tokens,
        states: AccountStates,
        clock: IReactorTime,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._states = states
        self._clock = clock
        self._now = now
        self._accounts: dict[str, Account] = {}
        self._apps: tuple[App, ...] = ()
        self._looking: Deferred[None] | None = None

    def use(self, accounts: Iterable[Account], apps: Mapping[str, App]) -> None:
        """These are to be looked after, from the next look on."""
        # One for each identity: accounts that share a sign-in share its end.
        self._accounts = {one.identity: one for one in accounts if one.app.flow is Flow.DELEGATED and one.app.enabled}
        self._apps = tuple(app for app in apps.values() if app.enabled)

    def start(self) -> None:
        """Look at secrets now, at sign-ins soon, and then at both every day."""
        self._looking = Deferred.fromCoroutine(self._look_daily())
        self._looking.addErrback(_stopped)

    def stop(self) -> None:
        """Look no more. What is on its way to Microsoft goes on; `Tokens.close` waits for it."""
        if self._looking is not None:
            self._looking.cancel()

    def tell_secrets(self) -> None:
        """Warn of client secrets that end soon."""
        for app in self._apps:
            if text := secret_warning(app, self._now()):
                log.warning("client secret ends", app=app.name, expires=str(app.client_secret_expires), text=text)

    async def renew_idle(self) -> None:
        """Renew sign-ins that nobody used for long, and warn of those that end soon all the same."""
        idle = [account for account in self._accounts.values() if await self._is_idle(account)]
        renewed = 0
        for number, account in enumerate(idle):
            if number:
                await deferLater(self._clock, min(PAUSE_S, DAY_S / 2 / len(idle)))
            renewed += await self._renew(account)
        if idle:
            log.info("idle sign-ins renewed", renewed=renewed, failed=len(idle) - renewed)

    async def _look_daily(self) -> None:
        pause_s = FIRST_LOOK_S
        while True:
            self.tell_secrets()
            await deferLater(self._clock, pause_s)
            await self.renew_idle()
            pause_s = LOOK_EVERY_S

    async def _is_idle(self, account: Account) -> bool:
        try:
            renewed_at_s = await self._tokens.renewed_at_s(account)
        except StoreError as error:
            log.error("grant not read", identity=account.identity, reason=error.text)
            return False
        return renewed_at_s is not None and self._now() - renewed_at_s >= IDLE_RENEWAL_S

    async def _renew(self, account: Account) -> bool:
        """Whether it was done; else the next look tries again."""
        try:
            renewed = await self._tokens.renew(account)
        except StoreError as error:
            log.error("grant not read", identity=account.identity, reason=error.text)
            renewed = False
        text = self._states.idle_warning(account)
        if text:
            log.warning("sign-in ends", identity=account.identity, text=text)
        return renewed


def _stopped(failure: Failure) -> None:
    if not failure.check(CancelledError) and failure.value is not None:
        log.failure("upkeep ended by a mistake", failure.value)
