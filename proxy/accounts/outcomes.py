"""What a call to Microsoft's sign-in service comes to, as data, and how an error answer is sorted (FACTS 4.5).

What it is: the words between `microsoft.py`, which makes these outcomes, and `tokens.py` and `sign_in.py`, which act
on them. What it is not: I/O; msal is not known here. No outcome prints a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxy.explanations import Explanation, aadsts_codes, explain_sign_in
from proxy.login import Fault, Refusal, Trace

LOOP_WAIT_S = 300  # FACTS 5 row 19: after AADSTS50196
MAX_ERROR_TEXT_CHARACTERS = 300

_LOOP_DETECTED = 50196
# How Microsoft ends an `error_description`, and its error page; a redirect carries these nowhere else.
_TRAILER = re.compile(r"\b(?:Trace|Request|Correlation) ID:", re.IGNORECASE)
_CORRELATION_ID = re.compile(r"\bCorrelation ID: ?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b", re.IGNORECASE)
_TIMESTAMP = re.compile(r"\bTimestamp: ?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?)", re.IGNORECASE)
_LONG_WORD = re.compile(r"[\w~+=-]{37,}")  # longer than a GUID: it might be a secret


@dataclass(frozen=True, slots=True)
class SignInError:
    """What went wrong, for the log, for `explanations` and for the administrator. It holds no secret."""

    code: str
    """OAuth's `error`, or one of our own: network_error, service_unavailable, unreadable_answer, bad_authority, …"""
    codes: tuple[int, ...] = ()
    """Microsoft's AADSTS numbers."""
    text: str = ""
    suberror: str = ""
    correlation_id: str = ""
    timestamp: str = ""
    foreign: bool = False
    """It came from outside; else it is one of our own, and its text says all."""

    @property
    def trace(self) -> Trace:
        """What an administrator looks it up by."""
        code = f"AADSTS{self.codes[0]}" if self.codes else self.code
        return Trace(code, self.correlation_id, self.timestamp)

    def __str__(self) -> str:
        trace = f"(correlation id {self.correlation_id}, {self.timestamp})" if self.correlation_id else ""
        numbers = () if "AADSTS" in self.text else (f"AADSTS{code}" for code in self.codes)
        return " ".join(part for part in (self.code, *numbers, self.text, trace) if part)


@dataclass(frozen=True, slots=True)
class Granted:
    """An access token, and msal's cache with the refresh token behind it."""

    access_token: str = field(repr=False)
    expires_at_s: float
    """Seconds since 1970."""
    cache: str = field(repr=False)
    """To be kept, and given to the next refresh; empty for an app's own token."""
    username: str
    """Who signed in (UPN); empty for an app's own token."""
    home_account_id: str
    """The person, whatever the name becomes."""


@dataclass(frozen=True, slots=True)
class SignInAgain:
    """This grant is used up, or was never given: its person must sign in."""

    error: SignInError


@dataclass(frozen=True, slots=True)
class TryLater:
    """Network or service in trouble, or asked too often. The grant is as good as before."""

    error: SignInError
    retry_after_s: float | None = None
    cache: str | None = field(default=None, repr=False)
    """msal's cache, if it changed all the same: to be kept instead of the old one."""


@dataclass(frozen=True, slots=True)
class AppMisconfigured:
    """The app registration and our configuration do not fit: the operator must act."""

    error: SignInError


@dataclass(frozen=True, slots=True)
class AdminMustAct:
    """A policy, or a consent that only they can give: the organisation's administrator must act."""

    error: SignInError


NotGranted = SignInAgain | TryLater | AppMisconfigured | AdminMustAct
Outcome = Granted | NotGranted


@dataclass(frozen=True, slots=True)
class CodeFlow:
    """A sign-in in a browser that has begun."""

    state: str = field(repr=False)
    """Comes back with the answer, and so names this flow."""
    address: str = field(repr=False)
    """Where the person signs in."""
    secrets: Mapping[str, object] = field(repr=False)
    """msal's own: nonce and PKCE verifier."""


@dataclass(frozen=True, slots=True)
class DeviceFlow:
    """A sign-in by a code typed on another device."""

    user_code: str = field(repr=False)
    address: str
    message: str = field(repr=False)
    """Microsoft's own words, code and address included."""
    expires_at_s: float
    interval_s: int
    """The shortest time between two polls."""
    secrets: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StillPending:
    """The person has not finished; poll again after this time."""

    interval_s: int


def sort_error(answer: Mapping[str, object], retry_after_s: float | None = None) -> NotGranted:
    """The outcome of an error answer: RFC 6749 §5.2 with Microsoft's additions (FACTS 4.5).

    What `explanations` says of it decides. An error that nobody knows counts as temporary: later may go well.
    """
    error = _error(answer)
    row = explain_sign_in(error.code, error.codes, error.suberror, error.text)
    match row.refusal:
        case Refusal.MISCONFIGURED:
            return AppMisconfigured(error)
        case Refusal.SIGN_IN_NEEDED if row.who == "administrator":
            return AdminMustAct(error)
        case Refusal.SIGN_IN_NEEDED:
            return SignInAgain(error)
        case _:
            return TryLater(error, LOOP_WAIT_S if _LOOP_DETECTED in error.codes else retry_after_s)


def explain(refused: NotGranted) -> Explanation:
    """Cause, fault and remedy for a person. The texts may hold `{user}` and `{consent}`: see `Explanation.for_`."""
    error = refused.error
    row = explain_sign_in(error.code, error.codes, error.suberror, error.text)
    if row.known or not error.text or error.codes or error.foreign:
        return row
    row = replace(row, cause=error.text, known=True)  # one of our own errors
    match refused:
        case AppMisconfigured():
            remedy = "Mend the app's configuration; `mailferry doctor` looks at it."
            return replace(row, remedy=remedy, fault=Fault.MAILFERRY, refusal=Refusal.MISCONFIGURED)
        case SignInAgain():
            remedy = "Start the sign-in again."
            return replace(row, remedy=remedy, fault=Fault.CLIENT, who="user", refusal=Refusal.SIGN_IN_NEEDED)
        case _:
            fault = Fault.MICROSOFT_SIGN_IN if error.code == "service_unavailable" else Fault.NETWORK
            remedy = "Nothing is wrong with the password; mailferry tries again by itself."
            return replace(row, remedy=remedy, fault=fault, who="nobody")


def _error(answer: Mapping[str, object]) -> SignInError:
    def text(key: str) -> str:
        value = answer.get(key)
        return value if isinstance(value, str) else ""

    codes, description = answer.get("error_codes"), text("error_description")
    return SignInError(
        code=_harmless(text("error")),
        # A redirect carries the numbers in its text only.
        codes=tuple(c for c in codes if isinstance(c, int)) if isinstance(codes, list) else aadsts_codes(description),
        text=_harmless(_TRAILER.split(description, maxsplit=1)[0]),
        suberror=_harmless(text("suberror")),
        correlation_id=_harmless(text("correlation_id")) or _found(_CORRELATION_ID, description),
        timestamp=_harmless(text("timestamp")) or _found(_TIMESTAMP, description),
        foreign=True,
    )


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _harmless(text: str) -> str:
    """One bounded line: anybody may have written a redirect's error, and a text might quote a secret."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _LONG_WORD.sub("...", line)[:MAX_ERROR_TEXT_CHARACTERS]
