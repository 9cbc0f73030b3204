"""How each account is, in the words of PRODUCT section 4: one table, written as things happen, read by commands.

Two parts make a state: what `tokens.py` knows of an identity's token, and how the last login at Exchange ended, which
`network/session.py` tells. What it is not: a cause of anything; no login is decided here. Nothing is stored: after a
restart `Tokens.start` tells the token part again, and the next login the other.
"""

from __future__ import annotations

import datetime
import enum
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from proxy.config.settings import Account, App
from proxy.login import Fault, LoginRefused, Refusal, Trace

Report = dict[str, str | None]
"""state, since, last_success, last_error and what is known of it (last_error_at, fault, who must act, error_code,
correlation_id, error_at), remedy, warning, and what ends when. Times are as RFC 3339 has them, in UTC; error_at is
Microsoft's own."""

REFRESH_IDLE_LIFE_S = 90 * 86_400  # FACTS 3.3: so long Microsoft keeps a refresh token that nobody uses
IDLE_WARNING_S = 14 * 86_400  # before that ends: time for a person to sign in
SECRET_WARNING_S = 30 * 86_400  # before a client secret ends: time for an operator, and an administrator behind them


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
    remedy: str = ""
    """What to do; `{login}` in it is filled by `report`, since an identity may stand behind several accounts."""
    who: str = ""
    """Who must act: `proxy.explanations.Who`."""
    trace: Trace = Trace()  # noqa: RUF009 - frozen


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
    refreshed_at_s: float | None = None
    """When Microsoft last renewed the grant; None without one that a person gave."""


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
        self.now_s = now
        self.stirred: Callable[[], None] = lambda: None
        """Called when a state may be another from now on. Whoever listens looks later, not now."""
        self._began_s = now()
        self._tokens: dict[str, _Part] = {}
        self._expiries: dict[str, float | None] = {}
        self._refreshed: dict[str, float | None] = {}
        self._logins: dict[str, _Part] = {}
        self._successes: dict[str, float] = {}

    def token_changed(self, identity: str, condition: TokenCondition) -> None:
        """`tokens.py`: this is how the token of `Account.identity` is now."""
        self._expiries[identity] = condition.expires_at_s
        self._refreshed[identity] = condition.refreshed_at_s
        part = self._next(self._tokens.get(identity), condition.state, condition.trouble)
        self._tokens[identity] = replace(part, remedy=condition.remedy)

    def signed_in(self, identity: str) -> None:
        """`tokens.py`: a person has signed in. What logins met before that is old news."""
        self._tokens[identity] = replace(self._tokens[identity], since_s=self.now_s())

    def login_succeeded(self, account: Account) -> None:
        """A login reached the mailbox."""
        self._successes[account.name] = self.now_s()
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
        self._logins[account.name] = self._next(before, state, _trouble(refused))

    def session_troubled(self, account: Account, refused: LoginRefused) -> None:
        """Exchange said no to what a mail program asked behind its login, which holds all the same."""
        before = self._logins.get(account.name)
        self._logins[account.name] = self._next(before, before.state if before else None, _trouble(refused))

    def state(self, account: Account) -> State:
        return self._deciding(account)[0]

    def report(self, account: Account) -> Report:
        """Everything, ready for JSON."""
        state, since_s, remedy = self._deciding(account)
        parts = (self._tokens.get(account.identity), self._logins.get(account.name))
        newest = max((p for p in parts if p and p.trouble), key=lambda part: part.trouble_s, default=None)
        trouble = newest.trouble if newest else None
        success_s = self._successes.get(account.name)
        if newest and trouble and newest.trouble_s >= (success_s or 0):  # else it is over
            remedy = remedy or trouble.remedy
        return {
            "state": state.value,
            "since": _moment(since_s),
            "last_success": _moment(success_s),
            "last_error": trouble.text if trouble else None,
            "last_error_at": _moment(newest.trouble_s) if newest else None,
            "fault": trouble.fault.value if trouble else None,
            "who": trouble.who or None if trouble else None,
            "error_code": trouble.trace.code or None if trouble else None,
            "correlation_id": trouble.trace.correlation_id or None if trouble else None,
            "error_at": trouble.trace.at or None if trouble else None,
            "remedy": remedy.replace("{login}", account.name) if remedy else None,
            "warning": " ".join(self.warnings(account)) or None,
            "token_expires_at": _moment(self._expiries.get(account.identity)),
            "refresh_token_idle_expires_at": _moment(self.idle_end_s(account)),
            "client_secret_expires": expires.isoformat() if (expires := account.app.client_secret_expires) else None,
        }

    def token_end_s(self, account: Account) -> float | None:
        """When the access token in hand ends; None if there is none."""
        return self._expiries.get(account.identity)

    def idle_end_s(self, account: Account) -> float | None:
        """When Microsoft forgets the grant, if nobody uses it until then."""
        refreshed_s = self._refreshed.get(account.identity)
        return None if refreshed_s is None else refreshed_s + REFRESH_IDLE_LIFE_S

    def warnings(self, account: Account) -> list[str]:
        """What will end soon, in sentences for a person."""
        return [text for text in (self.idle_warning(account), secret_warning(account.app, self.now_s())) if text]

    def idle_warning(self, account: Account) -> str:
        """What to say of a sign-in that nobody used for long, and that could not be renewed; empty if nothing."""
        end_s = self.idle_end_s(account)
        if end_s is None or end_s - self.now_s() > IDLE_WARNING_S:
            return ""
        text = f"Microsoft forgets the sign-in of {account.sign_in} on {_day(end_s)}, unless it is renewed before."
        return f"{text} mailferry tries that daily; if this stays, run: mailferry sign-in {account.name}"

    def _deciding(self, account: Account) -> tuple[State, float, str | None]:
        """State, since when, and the remedy, if the state needs one."""
        token, login = self._tokens.get(account.identity), self._logins.get(account.name)
        if not account.app.enabled:
            return State.DISABLED, self._began_s, f"Switch it on: mailferry app change {account.app.name} --enable"
        if token and token.state is State.SIGN_IN_NEEDED:
            return token.state, token.since_s, token.remedy or f"Run: mailferry sign-in {account.name}"
        if token and token.state:
            return token.state, token.since_s, token.remedy
        token_since_s = token.since_s if token else self._began_s
        if login and login.state and login.told_s >= token_since_s:
            return login.state, login.since_s, None  # what to do stands with the error
        return State.CONNECTING, token_since_s, None

    def _next(self, before: _Part | None, state: State | None, trouble: Trouble | None) -> _Part:
        now = self.now_s()
        same = before is not None and before.state is state
        if not same:
            self.stirred()
        part = _Part(state, before.since_s if before and same else now, now)
        if trouble:
            return replace(part, trouble=trouble, trouble_s=now)
        return replace(part, trouble=before.trouble, trouble_s=before.trouble_s) if before else part


def secret_warning(app: App, now_s: float) -> str:
    """What to say of a client secret that ends soon, or has ended; empty if there is nothing to say."""
    if app.client_secret_expires is None:
        return ""
    end = datetime.datetime.combine(app.client_secret_expires, datetime.time(), datetime.UTC)
    left_s = end.timestamp() - now_s
    if left_s > SECRET_WARNING_S:
        return ""
    when = "ended" if left_s <= 0 else f"ends in {_days(left_s)}"
    remedy = "Make a new one in the app registration, and put its Value into client_secret and its end beside it."
    return f"The client secret of app {app.name} {when} ({app.client_secret_expires}). {remedy}"


def _days(seconds: float) -> str:
    days = math.ceil(seconds / 86_400)
    return "a day" if days == 1 else f"{days} days"


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


def _trouble(refused: LoginRefused) -> Trouble:
    return Trouble(refused.cause, refused.fault, refused.remedy, refused.who, refused.trace)


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat().replace("+00:00", "Z")
