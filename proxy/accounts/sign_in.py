"""The ways to sign in, as objects with a life: by browser, by a pasted address, by device code.

Browser and paste are one: a person opens an address, and whoever catches the answer at the redirect address hands it
over, as the query of a GET, the form of a POST, or the line that was pasted. What it is not: a web server, or a
keeper of tokens (`tokens.py`). Who calls it: the command line, through the control socket, the set-up page, and
`invitations.py` for a mail program's refused login.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from proxy.accounts.endings import (
    DEVICE_EXPIRED,
    GIVEN_UP,
    NOT_OPEN,
    OUR_MISTAKE,
    TOOK_TOO_LONG,
    AnotherPerson,
    Refused,
    SignedIn,
    another_person,
    no_answer,
    refused_by_microsoft,
    unfit,
)
from proxy.accounts.outcomes import (
    CodeFlow,
    DeviceFlow,
    Granted,
    NotGranted,
    Outcome,
    StillPending,
    TryLater,
    sort_error,
)
from proxy.accounts.store import StoreError
from proxy.accounts.tokens import Tokens
from proxy.config.settings import Account, App
from proxy.log import Log

CODE_LIFE_S = 600  # FACTS 4.2: from the address shown to the answer handed over
MAX_OPEN_CODE_SIGN_INS = 100  # a page that is reloaded leaves one behind each time
MAX_POLL_INTERVAL_S = 60  # while polls fail (RFC 8628 §3.5: back off)

log = Log("sign_in")
T = TypeVar("T")


class SignInService(Protocol):
    """What `Microsoft` is to this module."""

    def begin_code(self, app: App, redirect_uri: str, login_hint: str) -> Deferred[CodeFlow | NotGranted]: ...
    def redeem_code(self, app: App, flow: CodeFlow, query: Mapping[str, str]) -> Deferred[Outcome]: ...
    def redeem_refresh_token(self, app: App, refresh_token: str) -> Deferred[Outcome]: ...
    def begin_device(self, app: App) -> Deferred[DeviceFlow | NotGranted]: ...
    def poll_device(self, app: App, flow: DeviceFlow) -> Deferred[Outcome | StillPending]: ...


@dataclass(frozen=True, slots=True)
class CodeSignIn:
    """A sign-in by address. `id` is also the `state` that comes back with the answer."""

    id: str = field(repr=False)
    address: str = field(repr=False)


class DeviceSignIn:
    """A sign-in by device code, polled until it ends."""

    def __init__(self, flow: DeviceFlow, following: Deferred[SignedIn | Refused]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.address = flow.address
        self.code = flow.user_code
        self.message = flow.message
        self.expires_at_s = flow.expires_at_s
        self.announced = False
        """A person asked for it; else it is only offered to whoever may come."""
        self._following = following
        self._end: SignedIn | Refused | None = None
        self._waiters: list[Deferred[SignedIn | Refused]] = []
        following.addCallback(self._ended)

    def result(self) -> Deferred[SignedIn | Refused]:
        """How it ended, as soon as it has. Who stops waiting ends nothing."""
        if self._end is not None:
            return succeed(self._end)
        waiter: Deferred[SignedIn | Refused] = Deferred()
        self._waiters.append(waiter)
        return waiter

    @property
    def end(self) -> SignedIn | Refused | None:
        """How it ended; None: Microsoft still waits for the person."""
        return self._end

    def cancel(self) -> None:
        """The person gave up."""
        self._following.cancel()

    def _ended(self, end: SignedIn | Refused) -> None:
        self._end = end
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(end)


@dataclass(frozen=True, slots=True)
class _OpenCode:
    account: Account
    flow: CodeFlow = field(repr=False)
    expiry: IDelayedCall


class SignIns:
    """All sign-ins under way. `now` gives seconds since 1970."""

    def __init__(
        self, microsoft: SignInService, tokens: Tokens, clock: IReactorTime, *, now: Callable[[], float] = time.time
    ) -> None:
        self._microsoft = microsoft
        self._tokens = tokens
        self._clock = clock
        self._now = now
        self._codes: dict[str, _OpenCode] = {}
        self._expired: deque[str] = deque(maxlen=MAX_OPEN_CODE_SIGN_INS)
        self._devices: dict[str, DeviceSignIn] = {}
        """By identity: one at a time."""

    async def begin_code(self, account: Account, redirect_uri: str) -> CodeSignIn | Refused:
        """Begin a sign-in by address. `redirect_uri` is registered with the app, but for a localhost's port."""
        if refused := unfit(account):
            return refused
        flow = await self._microsoft.begin_code(account.app, redirect_uri, account.sign_in)
        if not isinstance(flow, CodeFlow):
            return _refused(account, flow)
        if len(self._codes) >= MAX_OPEN_CODE_SIGN_INS:
            self._close_code(next(iter(self._codes)))  # the oldest
        expiry = self._clock.callLater(CODE_LIFE_S, self._close_code, flow.state)
        self._codes[flow.state] = _OpenCode(account, flow, expiry)
        self._tell(account)
        return CodeSignIn(flow.state, flow.address)

    async def finish_code(self, id: str, query: Mapping[str, str]) -> SignedIn | Refused:
        """The answer came: `id` is its `state`. It works once, and within `CODE_LIFE_S` of the beginning.

        An error is explained without a look at its `state`: it grants nothing, and a pasted one may have none.
        """
        opened = self._codes.get(id)
        if opened is None:
            return TOOK_TOO_LONG if id in self._expired else NOT_OPEN
        self._forget_code(id)
        try:
            if "code" not in query:
                return _refused(opened.account, sort_error(query)) if "error" in query else no_answer(opened.account)
            outcome = await self._microsoft.redeem_code(opened.account.app, opened.flow, query)
            return await self._finish(opened.account, outcome)
        finally:
            self._tell(opened.account)

    async def redeem(self, account: Account, refresh_token: str) -> SignedIn | Refused | AnotherPerson:
        """Take over what another program was granted, as if its person had signed in here.

        Where Microsoft does not say whose it is, it is taken for the account's: Exchange looks at each login.
        """
        if refused := unfit(account):
            return refused
        outcome = await self._microsoft.redeem_refresh_token(account.app, refresh_token)
        if isinstance(outcome, Granted):
            outcome = replace(outcome, username=outcome.username or account.sign_in)
            if outcome.username.casefold() != account.sign_in.casefold():
                return AnotherPerson(outcome.username)
        return await self._finish(account, outcome)

    async def begin_device(self, account: Account, *, announced: bool = True) -> DeviceSignIn | Refused:
        """Begin a sign-in by device code, or give the one that is under way for this identity.

        With `announced` a person asked for it, and the account is signing in from now on.
        """
        if refused := unfit(account):
            return refused
        sign_in = self.device(account)
        if sign_in is None:
            flow = await self._microsoft.begin_device(account.app)
            if not isinstance(flow, DeviceFlow):
                return _refused(account, flow)
            sign_in = self.device(account) or self._open_device(account, flow)  # if somebody else was quicker
        sign_in.announced |= announced
        self._tell(account)
        return sign_in

    def device(self, account: Account) -> DeviceSignIn | None:
        """The sign-in by device code that is under way for this identity."""
        return self._devices.get(account.identity)

    def in_browser(self, account: Account) -> bool:
        """Whether somebody began to sign in by address for this identity."""
        return any(opened.account.identity == account.identity for opened in self._codes.values())

    def close(self) -> None:
        """End them all: the daemon stops."""
        for id in list(self._codes):
            self._close_code(id)
        for sign_in in list(self._devices.values()):
            sign_in.cancel()

    def _open_device(self, account: Account, flow: DeviceFlow) -> DeviceSignIn:
        following = Deferred.fromCoroutine(self._follow(account, flow))
        following.addErrback(_stopped)
        following.addBoth(lambda end: self._close_device(account, end))
        sign_in = DeviceSignIn(flow, following)
        if not following.called:  # as it is with a code that had expired when it came
            self._devices[account.identity] = sign_in
        return sign_in

    def _forget_code(self, id: str) -> _OpenCode:
        opened = self._codes.pop(id)
        if opened.expiry.active():
            opened.expiry.cancel()
        return opened

    def _close_code(self, id: str) -> None:
        self._expired.append(id)
        self._tell(self._forget_code(id).account)

    def _close_device(self, account: Account, end: T) -> T:
        self._devices.pop(account.identity, None)
        self._tell(account)
        return end

    def _tell(self, account: Account) -> None:
        """What a login refused now should say; without the code, since refusals stand in the log."""
        hint, device = None, self.device(account)
        if device is not None and device.announced:
            hint = f"enter the code that mailferry showed, at {device.address}"
        elif self.in_browser(account):
            hint = "finish it in the browser"
        self._tokens.signing_in(account, hint)

    async def _follow(self, account: Account, flow: DeviceFlow) -> SignedIn | Refused:
        """Poll until the person has finished, or the code's time is over (RFC 8628 §3.5)."""
        wait_s = flow.interval_s
        while (remaining_s := flow.expires_at_s - self._now()) > 0:
            await deferLater(self._clock, min(wait_s, remaining_s))
            outcome = await self._microsoft.poll_device(account.app, flow)
            match outcome:
                case StillPending(interval_s):
                    wait_s = interval_s
                    flow = replace(flow, interval_s=interval_s)
                case TryLater():
                    log.info("device code poll failed", identity=account.identity, reason=str(outcome.error))
                    wait_s = min(2 * wait_s, MAX_POLL_INTERVAL_S)
                case _:
                    return await self._finish(account, outcome)
        return DEVICE_EXPIRED

    async def _finish(self, account: Account, outcome: Outcome) -> SignedIn | Refused:
        """Adopt what was granted, if the right person granted it: msal does not look (FACTS 4.2)."""
        if not isinstance(outcome, Granted):
            return _refused(account, outcome)
        try:
            holder = await self._tokens.holder(account)
        except StoreError as error:
            log.error("grant not read", identity=account.identity, reason=error.text)
            holder = None
        renamed = holder is not None and holder.home_account_id == outcome.home_account_id != ""
        if outcome.username.casefold() != account.sign_in.casefold() and not renamed:
            log.warning("another person signed in", identity=account.identity, user=outcome.username)
            return another_person(account, outcome.username)
        await self._tokens.adopt(account, outcome)
        return SignedIn(account.name, outcome.username)


def _refused(account: Account, refused: NotGranted) -> Refused:
    log.warning("sign-in refused", identity=account.identity, reason=str(refused.error))
    return refused_by_microsoft(account, refused)


def _stopped(failure: Failure) -> Refused:
    if not failure.check(CancelledError) and failure.value is not None:
        log.failure("device sign-in failed", failure.value)
        return OUR_MISTAKE
    return GIVEN_UP
