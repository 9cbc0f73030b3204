"""GROUND: the nouns of a login, shared by every floor.

What they are: plain frozen values and one exception. What they are not: behaviour. Neither `Credentials` nor
`Bearer` nor `LoginRefused` prints its secret.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Refusal(enum.Enum):
    """Why a login is refused. Only a protocol's file knows how to say it (CLIENTS 3.1)."""

    BAD_CREDENTIALS = "bad_credentials"
    """The local login or password is wrong; decided before anything leaves this machine."""
    SIGN_IN_NEEDED = "sign_in_needed"
    """Microsoft holds no usable grant for this account; a person must sign in."""
    TRY_LATER = "try_later"
    """Sign-in service, network or upstream in trouble; nothing is wrong with the password."""
    REFUSED_UPSTREAM = "refused_upstream"
    """Exchange refused a fresh token: a protocol is switched off, or rights are missing."""
    BUSY = "busy"
    """Too many sessions for this account at once."""
    MISCONFIGURED = "misconfigured"
    """Our own configuration, or the app registration, cannot work."""
    TLS_NEEDED = "tls_needed"
    """This listener takes no password without TLS."""
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    """The connection used up its attempts and is closed."""


class Fault(enum.Enum):
    """Whose fault it is (PRODUCT section 4)."""

    CLIENT = "client"
    MAILFERRY = "mailferry"
    MICROSOFT_SIGN_IN = "microsoft_sign_in"
    EXCHANGE = "exchange"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a mail program sent, in its own bytes: the character set is not known on the wire."""

    login: bytes
    password: bytes = field(repr=False)
    authorization_id: bytes = b""
    """SASL's authzid (RFC 4616 §2): the mailbox to open, where it is not the login's own; empty otherwise."""
    verbatim: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """Login and password as sent, when unquoting changed them: programs send `DOMAIN\\user` unescaped."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """An access token, and the name that XOAUTH2 says with it."""

    user: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trace:
    """What an administrator needs to find an error in the directory's own sign-in log (FACTS 5); false if nothing."""

    code: str = ""
    """`AADSTS50105`; or the `error`, where there is no number."""
    correlation_id: str = ""
    at: str = ""
    """Microsoft's own time of it, as it was written."""

    def __bool__(self) -> bool:
        return bool(self.correlation_id) or self.code.startswith("AADSTS")

    def __str__(self) -> str:
        id, at = self.correlation_id, self.at
        return ", ".join(part for part in (self.code, id and f"correlation id {id}", at and f"time {at}") if part)

    @property
    def sentence(self) -> str:
        """To stand behind what a person is told; empty if there is nothing to find."""
        return f"For an administrator: {self}." if self else ""


class LoginRefused(Exception):
    """A login that ends in a refusal.

    `text` speaks to the person at the mail program: one line, what happened and what to do next.
    `detail` is for the log: the provider's own words. Neither may hold a secret.
    `again_in_s`: before that, another try would end in the same way; None where nobody knows.
    `cause` and `remedy` are the halves of `text` in full, for whoever has more room; by default `text` is the cause.
    `who` must act (`explanations.Who`), and `trace` is how they find it in Microsoft's log; empty where nobody knows.
    `invitation` is for the mail program alone, since it may hold a device code: it is said, and never logged or kept.
    """

    def __init__(
        self,
        refusal: Refusal,
        text: str,
        *,
        fault: Fault,
        detail: str = "",
        again_in_s: float | None = None,
        cause: str = "",
        remedy: str = "",
        who: str = "",
        trace: Trace | None = None,
        invitation: str = "",
    ) -> None:
        super().__init__(refusal, text)
        self.refusal = refusal
        self.text = text
        self.fault = fault
        self.detail = detail
        self.again_in_s = again_in_s
        self.cause = cause or text
        self.remedy = remedy
        self.who = who
        self.trace = trace or Trace()
        self.invitation = invitation

    @property
    def told(self) -> str:
        """What the mail program hears. It cuts what is long (CLIENTS 3.1), so the invitation stands first."""
        return f"{self.invitation} {self.text}".lstrip()

    @property
    def whole(self) -> str:
        """What a person at a terminal is told, who has more room."""
        return " ".join(part for part in (self.cause, self.remedy, self.trace.sentence) if part)
