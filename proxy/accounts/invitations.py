"""Sign-in in band: a mail program whose account needs a sign-in is told a device code, in its refusal's own text.

What it is: for each identity the way to one device code, begun by a login and shared by all that follow, until it is
used or has expired. What it is not: the sign-in itself (`sign_in.py`), or the judge of who needs one (`tokens.py`).
Who calls it: the session, once a local password was right; nobody else may see a code.

A mail program tries again every minute, or every second: so a login asks for a code only where there is none, a
refused request is not repeated at once, and none waits long for an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime

from proxy.accounts.endings import Refused, SignedIn
from proxy.accounts.grants import SharedWork
from proxy.accounts.sign_in import DeviceSignIn, SignIns
from proxy.accounts.tokens import Tokens
from proxy.config.settings import Account, Flow
from proxy.log import Log

BEGIN_LIMIT_S = 5.0  # that a login waits for a code; the next one gets what came meanwhile (CLIENTS 3.1: 25 s in all)
BEGIN_AGAIN_S = 60.0  # after a code was refused for a passing reason
BLOCKED_AGAIN_S = 3600.0  # after it was refused for one that an administrator or operator must end
TOLD_FOR_S = 3600.0  # how the last sign-in by code ended; later it is nobody's news
MAX_OPEN = 50  # codes offered at once, each polled every five seconds (FACTS 3.3) by eight threads

log = Log("sign_in")


class _Guest:
    """An identity that was invited."""

    def __init__(self, account: Account, begin: Callable[[_Guest], SharedWork]) -> None:
        self.account = account
        self.beginning = begin(self)
        self.sign_in: DeviceSignIn | None = None
        """The last one."""
        self.again_at_s = 0.0
        """Before that, no code is asked for."""
        self.last: Refused | None = None
        """What came of the last one, if it was a no."""
        self.last_s = 0.0


class Invitations:
    """All of them. `now` gives seconds since 1970."""

    def __init__(
        self, sign_ins: SignIns, tokens: Tokens, clock: IReactorTime, *, now: Callable[[], float] = time.time
    ) -> None:
        self._sign_ins = sign_ins
        self._tokens = tokens
        self._clock = clock
        self._now = now
        self._guests: dict[str, _Guest] = {}

    async def invite(self, account: Account) -> str:
        """What to say first to the mail program of this account, whose login lacks a sign-in; often with a code.

        Empty where a code would not help, or none can be had in time: the refusal's own text says what does.
        """
        if not self._may_help(account):
            return ""
        guest = self._guest(account)
        if self._sign_ins.device(account) is None and self._may_begin(guest):
            try:
                await guest.beginning.join().addTimeout(BEGIN_LIMIT_S, self._clock)
            except TimeoutError:
                log.info("no device code in time", identity=account.identity, limit_s=BEGIN_LIMIT_S)
        sign_in = self._sign_ins.device(account)
        if sign_in is not None:
            self._follow(guest, sign_in)
            if self._now() >= sign_in.expires_at_s:  # its last poll is still under way
                return ""
        return _words(sign_in, self._news(guest))

    def _may_help(self, account: Account) -> bool:
        """Whether a device code could be the end of its trouble."""
        app = account.app
        public = app.flow is Flow.DELEGATED and app.client_secret is None and app.certificate is None
        in_browser = self._sign_ins.in_browser(account) and self._sign_ins.device(account) is None
        return public and app.enabled and self._tokens.awaits_sign_in(account) and not in_browser

    def _guest(self, account: Account) -> _Guest:
        guest = self._guests.get(account.identity)
        if guest is None or guest.account.app != account.app:  # a reload changed it, to mend it perhaps
            guest = self._guests[account.identity] = _Guest(account, lambda made: SharedWork(lambda: self._begin(made)))
        return guest

    def _may_begin(self, guest: _Guest) -> bool:
        if guest.beginning.running:
            return True
        taken = sum(other.beginning.running or _is_open(other.sign_in) for other in self._guests.values())
        return self._now() >= guest.again_at_s and taken < MAX_OPEN

    async def _begin(self, guest: _Guest) -> None:
        begun = await self._sign_ins.begin_device(guest.account, announced=False)
        if isinstance(begun, Refused):
            self._refused(guest, begun)
            guest.again_at_s = max(guest.again_at_s, self._now() + BEGIN_AGAIN_S)
        else:
            log.info("device code offered", identity=guest.account.identity, address=begun.address)
            self._follow(guest, begun)

    def _follow(self, guest: _Guest, sign_in: DeviceSignIn) -> None:
        if guest.sign_in is not sign_in:
            guest.sign_in = sign_in
            sign_in.result().addCallback(self._ended, guest)

    def _ended(self, end: SignedIn | Refused, guest: _Guest) -> None:
        if isinstance(end, SignedIn):
            guest.last = None
        elif not end.unfinished:
            self._refused(guest, end)

    def _refused(self, guest: _Guest, refused: Refused) -> None:
        guest.last, guest.last_s = refused, self._now()
        if refused.who in ("administrator", "operator"):
            guest.again_at_s = self._now() + BLOCKED_AGAIN_S

    def _news(self, guest: _Guest) -> str:
        return guest.last.text if guest.last and self._now() < guest.last_s + TOLD_FOR_S else ""


def _is_open(sign_in: DeviceSignIn | None) -> bool:
    return sign_in is not None and sign_in.end is None


def _words(sign_in: DeviceSignIn | None, news: str) -> str:
    """The code stands where no program cuts it off (CLIENTS 3.1: 160 characters)."""
    if sign_in is None:
        return f"No sign-in by code: {news}" if news else ""
    offer = f"Sign in at {sign_in.address} with code {sign_in.code}."
    return f"{offer} Last time: {news}" if news else offer
