"""PURE: the words between a dialogue and the network that runs it.

A dialogue is a login conversation on one side of the proxy: a *front* speaks to the mail program, an *upstream*
to Exchange. Bytes go in, a list of actions comes out; no socket, clock or thread. `network/connection.py` runs
any dialogue on a stream, `network/session.py` joins a front and an upstream.

The rules of every dialogue:
- An input is a method; each returns the actions to perform, in order.
- After `Login` a front keeps further bytes until `accept` or `refuse`; after `refuse` it goes on with them by
  itself, after `accept` they are `unread` and belong to upstream. After `Ready` an upstream's rest is `unread`
  and belongs to the mail program. After `Close` or `Failed` nothing is read any more.
- `state` is an enum member; its name goes into the log.
- A dialogue that is `watched` also tells what it heard, before it acts on it, with every secret left out: it alone
  knows where they stand.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proxy.login import Bearer, Credentials, LoginRefused, Refusal

SECRET = b"<secret>"


@dataclass(frozen=True, slots=True)
class Dismissal:
    """Why a mail program is sent away, which has done nothing wrong: a word for the log, a sentence for the program."""

    reason: str
    text: str


STOPPING = Dismissal("stopping", "mailferry is stopping; your program will connect again by itself")
CROWDED_OUT = Dismissal("crowded_out", "Too many connections wait for a login here, and yours has waited longest")


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes. A secret (a token on its way to Exchange, a device code) is not printed."""

    data: bytes
    secret: bool = False
    shown: bytes = field(default=SECRET, compare=False)
    """What a log has in the place of a secret."""

    @property
    def legible(self) -> bytes:
        """What a log may have of it."""
        return self.shown if self.secret else self.data

    def __repr__(self) -> str:
        return f"Send({self.shown.decode()})" if self.secret else f"Send({self.data!r})"


@dataclass(frozen=True, slots=True)
class Heard:
    """Nothing to do: what the peer said, as a log may have it. Only a dialogue that is `watched` tells."""

    shown: str


@dataclass(frozen=True, slots=True)
class StartTLS:
    """Once all is sent, start TLS on this stream, then call `tls_started()`. Always the last action of its list."""


@dataclass(frozen=True, slots=True)
class Login:
    """The mail program wants to log in; answer with `accept` or `refuse`. Always the last action of its list."""

    credentials: Credentials | None
    """None: a device that never logs in wants the listener's own account (`FrontSettings.implicit_account`)."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Upstream let us in. Always the last action of its list."""

    text: str
    """What upstream said, without tag or code: printable ASCII, one line."""
    capabilities: tuple[str, ...] = ()
    """IMAP: upstream's capability atoms after login. SMTP: its EHLO keyword lines after TLS. POP3: empty."""
    untagged: bytes = b""
    """IMAP: whole untagged lines that came beside the probe's own answers, to be handed on after the OK."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Upstream did not let us in. Always the last action of its list."""

    refusal: Refusal
    detail: str
    """What upstream said: printable ASCII, one line, no secret. For the log and for `explanations`."""


@dataclass(frozen=True, slots=True)
class ExpireIn:
    """Call `expired()` after so long, if the dialogue still goes on then."""

    limit_s: float


@dataclass(frozen=True, slots=True)
class Close:
    """Deliver what is written, then close. `reason` is a word or two for the log."""

    reason: str


Action = Send | Heard | StartTLS | Login | Ready | Failed | ExpireIn | Close


class Front(Protocol):
    """The mail program's side: we are the server."""

    @property
    def state(self) -> enum.Enum: ...
    def opened(self) -> list[Action]:
        """The connection (and its TLS, if implicit) is up: greet."""
        ...

    def received(self, data: bytes) -> list[Action]: ...
    def tls_started(self) -> list[Action]: ...
    def waiting(self) -> list[Action]:
        """The login takes its time: say that we are still here, if the protocol has words for it."""
        ...

    def accept(self, ready: Ready) -> list[Action]:
        """Upstream is ready: tell the mail program. What it sent meanwhile is then `unread`."""
        ...

    def refuse(self, refused: LoginRefused, *, final: bool = False) -> list[Action]:
        """Say no in this protocol's language; if final, also say goodbye and close."""
        ...

    def expired(self) -> list[Action]:
        """The time for logging in, or the one that `ExpireIn` named, is over: say goodbye and close."""
        ...

    def dismissed(self, why: Dismissal) -> list[Action]:
        """Say why, and close."""
        ...

    def unread(self) -> bytes:
        """Hand over, once, the bytes received but not used."""
        ...


class Upstream(Protocol):
    """Exchange's side: we are the client."""

    @property
    def state(self) -> enum.Enum: ...
    def opened(self) -> list[Action]:
        """The connection (and its TLS, if implicit) is up: the greeting is awaited."""
        ...

    def received(self, data: bytes) -> list[Action]: ...
    def tls_started(self) -> list[Action]: ...
    def unread(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What a front must know of its listener and of this connection."""

    hostname: str
    """What greetings call us."""
    offers_tls: bool
    """STARTTLS or STLS may be offered, as long as TLS is not active."""
    tls_active: bool
    """TLS was there from the first byte."""
    requires_tls: bool
    """No password is taken without TLS."""
    defers_failures: bool
    """`auth_failures: deferred`: after a right password say yes, and fail at the first command (CLIENTS 3.3)."""
    learnt: tuple[str, ...] = ()
    """`Ready.capabilities` of this upstream's last login; empty: Exchange's own, as it is known."""
    implicit_account: bool = False
    """The listener has an account for devices that never log in: their first MAIL is its `Login(None)`."""
    watched: bool = False
    """Say what is heard, for a log (`Heard`)."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    bearer: Bearer
    starttls: bool
    """Ask for TLS in the dialogue; otherwise TLS was there from the first byte."""
    hostname: str
    """The name we introduce ourselves with (SMTP EHLO); an invalid one becomes `[127.0.0.1]`."""
    watched: bool = False
    """Say what is heard, for a log (`Heard`)."""


@dataclass(frozen=True, slots=True)
class Overheard:
    """What upstream said of the session itself, after the login; the octets go on to the mail program untouched."""

    text: str
    """Printable ASCII, one line."""
    back_off_s: float | None = None
    """It is throttling: how long it wants no new logins of this mailbox; None: it says something else."""


def _no_last_words(_to_upstream: bytes, _to_client: bytes) -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class MailProtocol:
    """A protocol as a record; each stands at the foot of its own file."""

    name: str
    front: Callable[[FrontSettings], Front]
    upstream: Callable[[UpstreamSettings], Upstream]
    speaks_as: Literal["mailbox", "sign_in"]
    """Which of an account's names XOAUTH2 says (FACTS 2.6)."""
    idle_limit_s: int
    """How long a relayed session may be silent both ways before it is closed."""
    overhear: Callable[[bytes], Overheard | None]
    """Reads one short piece of what upstream sends in the relayed session."""
    parting: Callable[[bytes, bytes], bytes | None]
    """Whether the relayed session is between two commands, given the last short piece that each side sent (empty: it
    was a long one): what is then said to a mail program when the daemon stops, or None if more may be to come."""
    least_offers: tuple[str, ...] = ()
    """What a front may promise for an upstream that is not Exchange and of which nothing is learnt."""
    last_words: Callable[[bytes, bytes], bytes] = _no_last_words
    """What may be said to the mail program for an upstream that is gone, given the last short piece that each side
    sent (empty: it was a long one); nothing where that could be taken for a part of something else."""


class LineTooLong(Exception):
    """A line outgrew its bound before its end was seen."""


@dataclass(slots=True)
class InputBuffer:
    """Bytes received and not yet used, taken line by line or by count.

    A line ends at LF; one CR before it is dropped (Dovecot and nginx take a bare LF too; CLIENTS 1.1).
    """

    _data: bytearray = field(default_factory=bytearray, repr=False)
    _scanned: int = 0
    """No LF stands before this offset, so that a line that drips in byte by byte is not searched again."""

    def feed(self, data: bytes) -> None:
        self._data += data

    def __len__(self) -> int:
        return len(self._data)

    def line(self, limit_octets: int) -> bytes | None:
        """The next line without its end, or None if it is not complete yet.

        Raises:
            LineTooLong: more than `limit_octets` stand before the line's end.
        """
        end = self._data.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._data)
        if (len(self._data) if end < 0 else end) > limit_octets:
            raise LineTooLong(limit_octets)
        if end < 0:
            return None
        line = bytes(self._data[: end - 1 if end and self._data[end - 1] == 0x0D else end])
        self._drop(end + 1)
        return line

    def take(self, count: int) -> bytes:
        """At most `count` octets, whatever they are."""
        piece = bytes(self._data[:count])
        self._drop(len(piece))
        return piece

    def drain(self) -> bytes:
        return self.take(len(self._data))

    def _drop(self, count: int) -> None:
        del self._data[:count]
        self._scanned = 0


PRINTABLE_TEXT_OCTETS = 160  # CLIENTS 3.1: upstream texts in a reply stay on one line


def printable(text: str | bytes, limit: int = PRINTABLE_TEXT_OCTETS) -> str:
    """One line of printable ASCII, at most `limit` long: safe to echo into a reply or a log.

    Square brackets become round ones, so that no text can be read as a response code (RFC 9051 §7.1).
    """
    decoded = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    kept = "".join(c if " " <= c <= "~" else " " if c.isspace() else "?" for c in decoded)
    return " ".join(kept.translate(str.maketrans("[]", "()")).split())[:limit]
