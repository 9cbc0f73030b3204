"""How each account is, in the words of PRODUCT section 4: one table, written as things happen, read by commands.

Two parts make a state: what `tokens.py` knows of an identity's token, and how the last login at Exchange ended, which
`network/session.py` tells. What it is not: a cause of anything; no login is decided here. Nothing is stored: after a
restart `Tokens.start` tells the token part again, and the next login the other.
"""

from __future__ import annotations

import datetime
import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from proxy.config.settings import Account
from proxy.login import Fault, LoginRefused, Refusal

Report = dict[str, str | None]
"""state, since, last_success, last_error, last_error_at, fault, remedy, token_expires_at; times as RFC 3339 in UTC."""


class State(enum.Enum):
    SIGN_IN_NEEDED = "sign_in_needed"
    SIGNING_IN = "signing_in"
    CONNECTING = "connecting"
    """A token can be had; no login since has reached Exchange."""
    CONNECTED = "connected"
    """A token is good, and the last login reached the mailbox."""
    AUTHENTICATION_ERROR = "authentication_error"
    """Microsoft or Exchange said no; somebody must act."""
    CONNECT_ERROR = "connect_error"
    """Network, TLS, throttling: it is tried again."""
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error in plain words."""

    text: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class TokenCondition:
    """What `tokens.py` tells of an identity."""

    state: State | None
    """None: nothing stands in a login's way."""
    expires_at_s: float | None = None
    """When the access token in hand ends; seconds since 1970."""
    trouble: Trouble | None = None
    remedy: str | None = None
    """What to do about a state that is not good; a sign-in's is known here."""


@dataclass(frozen=True, slots=True)
class _Part:
    state: State | None
    since_s: float
    told_s: float
    remedy: str | None = None
    trouble: Trouble | None = None
    """The last one; it stays as history when it is over."""
    trouble_s: float = 0.0


class AccountStates:
    """The table. `now` gives seconds since 1970."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._began_s = now()
        self._tokens: dict[str, _Part] = {}
        self._expiries: dict[str, float | None] = {}
        self._logins: dict[str, _Part] = {}
        self._successes: dict[str, float] = {}

    def token_changed(self, identity: str, condition: TokenCondition) -> None:
        """`tokens.py`: this is how the token of `Account.identity` is now."""
        self._expiries[identity] = condition.expires_at_s
        part = self._next(self._tokens.get(identity), condition.state, condition.trouble)
        self._tokens[identity] = replace(part, remedy=condition.remedy)

    def signed_in(self, identity: str) -> None:
        """`tokens.py`: a person has signed in. What logins met before that is old news."""
        self._tokens[identity] = replace(self._tokens[identity], since_s=self._now())

    def login_succeeded(self, account: Account) -> None:
        """A login reached the mailbox."""
        self._successes[account.name] = self._now()
        self._logins[account.name] = self._next(self._logins.get(account.name), State.CONNECTED, None)

    def login_failed(self, account: Account, refused: LoginRefused) -> None:
        """A login of this account was refused; not every reason says something about the account itself."""
        before = self._logins.get(account.name)
        match refused.refusal:
            case Refusal.REFUSED_UPSTREAM | Refusal.MISCONFIGURED:
                state: State | None = State.AUTHENTICATION_ERROR
            case Refusal.TRY_LATER:
                state = State.CONNECT_ERROR
            case Refusal.BUSY if refused.fault is Fault.EXCHANGE:
                state = State.CONNECT_ERROR
            case Refusal.SIGN_IN_NEEDED:
                return  # the token part says it better
            case _:
                state = before.state if before else None
        self._logins[account.name] = self._next(before, state, Trouble(refused.text, refused.fault))

    def state(self, account: Account) -> State:
        return self._deciding(account)[0]

    def report(self, account: Account) -> Report:
        """Everything, ready for JSON."""
        state, since_s, remedy = self._deciding(account)
        parts = (self._tokens.get(account.identity), self._logins.get(account.name))
        newest = max((p for p in parts if p and p.trouble), key=lambda part: part.trouble_s, default=None)
        trouble = newest.trouble if newest else None
        success_s = self._successes.get(account.name)
        return {
            "state": state.value,
            "since": _moment(since_s),
            "last_success": _moment(success_s),
            "last_error": trouble.text if trouble else None,
            "last_error_at": _moment(newest.trouble_s) if newest else None,
            "fault": trouble.fault.value if trouble else None,
            "remedy": remedy,
            "token_expires_at": _moment(self._expiries.get(account.identity)),
        }

    def _deciding(self, account: Account) -> tuple[State, float, str | None]:
        """State, since when, and the remedy, if the state needs one."""
        token, login = self._tokens.get(account.identity), self._logins.get(account.name)
        if not account.app.enabled:
            return State.DISABLED, self._began_s, f"Set `enabled: true` for the app {account.app.name}."
        if token and token.state is State.SIGN_IN_NEEDED:
            return token.state, token.since_s, f"Run: mailferry sign-in {account.name}"
        if token and token.state:
            return token.state, token.since_s, token.remedy
        token_since_s = token.since_s if token else self._began_s
        if login and login.state and login.told_s >= token_since_s:
            return login.state, login.since_s, None  # what to do stands in the error's text
        return State.CONNECTING, token_since_s, None

    def _next(self, before: _Part | None, state: State | None, trouble: Trouble | None) -> _Part:
        now = self._now()
        same = before is not None and before.state is state
        part = _Part(state, before.since_s if before and same else now, now)
        if trouble:
            return replace(part, trouble=trouble, trouble_s=now)
        return replace(part, trouble=before.trouble, trouble_s=before.trouble_s) if before else part


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat().replace("+00:00", "Z")
