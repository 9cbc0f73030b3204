"""The ways to sign in, as objects with a life: by browser, by a pasted address, by device code.

Browser and paste are one: a person opens an address, and whoever catches the answer at the redirect address hands it
over, as the query of a GET, the form of a POST, or the line that was pasted. What it is not: a web server, or a
keeper of tokens (`tokens.py`). Who calls it: the command line, through the control socket, and the set-up page.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from proxy.accounts.outcomes import (
    CodeFlow,
    DeviceFlow,
    Granted,
    NotGranted,
    Outcome,
    StillPending,
    TryLater,
    explain,
)
from proxy.accounts.permissions import consent_address
from proxy.accounts.store import StoreError
from proxy.accounts.tokens import Tokens
from proxy.config.settings import Account, App, Flow
from proxy.log import Log
from proxy.login import Fault

CODE_LIFE_S = 600  # FACTS 4.2: from the address shown to the answer handed over
MAX_OPEN_CODE_SIGN_INS = 100  # a page that is reloaded leaves one behind each time
MAX_POLL_INTERVAL_S = 60  # while polls fail (RFC 8628 §3.5: back off)

log = Log("sign_in")
T = TypeVar("T")


class SignInService(Protocol):
    """What `Microsoft` is to this module."""

    def begin_code(self, app: App, redirect_uri: str, login_hint: str) -> Deferred[CodeFlow | NotGranted]: ...
    def redeem_code(self, app: App, flow: CodeFlow, query: Mapping[str, str]) -> Deferred[Outcome]: ...
    def begin_device(self, app: App) -> Deferred[DeviceFlow | NotGranted]: ...
    def poll_device(self, app: App, flow: DeviceFlow) -> Deferred[Outcome | StillPending]: ...


@dataclass(frozen=True, slots=True)
class SignedIn:
    """It is done: this person's grant stands behind the account from now on."""

    account: str
    username: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It did not work, in words for a person; nothing was changed."""

    text: str
    remedy: str
    fault: Fault


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
        self._devices: dict[str, DeviceSignIn] = {}
        """By identity: one at a time."""

    async def begin_code(self, account: Account, redirect_uri: str) -> CodeSignIn | Refused:
        """Begin a sign-in by address. `redirect_uri` is registered with the app, but for a localhost's port."""
        unfit = _unfit(account)
        if unfit:
            return unfit
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
        """The answer came: `id` is its `state`. It works once, and within `CODE_LIFE_S` of the beginning."""
        opened = self._codes.get(id)
        if opened is None:
            text = (
                "This sign-in is not open: it was finished already, took longer than ten minutes, or began elsewhere."
            )
            return Refused(text, "Start the sign-in again.", Fault.CLIENT)
        self._forget_code(id)
        try:
            outcome = await self._microsoft.redeem_code(opened.account.app, opened.flow, query)
            return await self._finish(opened.account, outcome)
        finally:
            self._tell(opened.account)

    async def begin_device(self, account: Account) -> DeviceSignIn | Refused:
        """Begin a sign-in by device code, or give the one that is under way for this identity."""
        unfit = _unfit(account)
        if unfit:
            return unfit
        if account.identity in self._devices:
            return self._devices[account.identity]
        flow = await self._microsoft.begin_device(account.app)
        if not isinstance(flow, DeviceFlow):
            return _refused(account, flow)
        if account.identity in self._devices:  # somebody else was quicker
            return self._devices[account.identity]
        following = Deferred.fromCoroutine(self._follow(account, flow))
        following.addErrback(_stopped)
        following.addBoth(lambda end: self._close_device(account, end))
        sign_in = DeviceSignIn(flow, following)
        if not following.called:  # as it is with a code that had expired when it came
            self._devices[account.identity] = sign_in
            self._tell(account)
        return sign_in

    def close(self) -> None:
        """End them all: the daemon stops."""
        for id in list(self._codes):
            self._close_code(id)
        for sign_in in list(self._devices.values()):
            sign_in.cancel()

    def _forget_code(self, id: str) -> _OpenCode:
        opened = self._codes.pop(id)
        if opened.expiry.active():
            opened.expiry.cancel()
        return opened

    def _close_code(self, id: str) -> None:
        self._tell(self._forget_code(id).account)

    def _close_device(self, account: Account, end: T) -> T:
        self._devices.pop(account.identity, None)
        self._tell(account)
        return end

    def _tell(self, account: Account) -> None:
        """What a login refused now should say; without the code, since refusals stand in the log."""
        hint = None
        if account.identity in self._devices:
            hint = f"enter the code that mailferry showed, at {self._devices[account.identity].address}"
        elif any(opened.account.identity == account.identity for opened in self._codes.values()):
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
        return Refused("The device code has expired.", "Start the sign-in again.", Fault.CLIENT)

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
            return Refused(
                f"You signed in to Microsoft as {outcome.username}, but the account is for {account.sign_in}. "
                "Nothing was changed.",
                f"Sign in as {account.sign_in}, in a private window if need be; or, if {outcome.username} is meant, "
                f"write sign_in: {outcome.username} into the account's configuration.",
                Fault.CLIENT,
            )
        await self._tokens.adopt(account, outcome)
        return SignedIn(account.name, outcome.username)


def pasted(text: str) -> Mapping[str, str]:
    """The query in a pasted address, or in a part of one; empty if there is none. Its `state` is the sign-in's id."""
    line = text.strip().strip("<>\"'")
    query = line.partition("?")[2] or line
    return dict(parse_qsl(query.partition("#")[0]))


def _unfit(account: Account) -> Refused | None:
    app = account.app
    if not app.enabled:
        return Refused(
            f"The app {app.name} is switched off.", f"Set enabled: true for the app {app.name}.", Fault.MAILFERRY
        )
    if app.flow is Flow.APP_ONLY:
        return Refused(f"The app {app.name} signs in by itself.", "Nobody needs to sign in.", Fault.CLIENT)
    return None


def _refused(account: Account, refused: NotGranted) -> Refused:
    log.warning("sign-in refused", identity=account.identity, reason=str(refused.error))
    row = explain(refused).for_(mailbox=account.mailbox, user=account.sign_in, consent=consent_address(account.app))
    if isinstance(refused, TryLater):  # no login that is tried again by itself: a person waits
        return Refused(row.cause, "Start the sign-in again in a few minutes.", row.fault)
    return Refused(row.cause, row.remedy, row.fault)


def _stopped(failure: Failure) -> Refused:
    if not failure.check(CancelledError) and failure.value is not None:
        log.failure("device sign-in failed", failure.value)
        return Refused("mailferry made a mistake; it stands in the log.", "Start the sign-in again.", Fault.MAILFERRY)
    return Refused("The sign-in was given up.", "Start it again when you are ready.", Fault.CLIENT)
