"""PURE: POP3 until the login, on both sides (RFC 1939, 2449, 2595, 5034, 3206; CLIENTS 1.4).

What it is: the dialogue with a mail program (`Pop3Front`), the dialogue with Exchange (`Pop3Upstream`) and the record
`POP3` that joins them. What it is not: a mailbox. After the login both streams are relayed and nobody reads them here.
Called by `network/connection.py`, which runs a dialogue on a stream, and by `network/session.py`.
"""

from __future__ import annotations

import base64
import enum
import re

from proxy.login import Credentials, LoginRefused, Refusal
from proxy.protocols import sasl
from proxy.protocols.dialogue import (
    Action,
    Close,
    Failed,
    FrontSettings,
    InputBuffer,
    LineTooLong,
    Login,
    MailProtocol,
    Ready,
    Send,
    StartTLS,
    UpstreamSettings,
    printable,
)
from proxy.protocols.server_text import challenge_text, without_token
from proxy.protocols.strangers import TLS_CLIENT_HELLO, TLS_ON_PLAIN_PORT, stranger

MAX_COMMAND_OCTETS = 512  # Exchange's own limit (FACTS 2.5); RFC 2449 §4 asks for 255
MAX_REPLY_OCTETS = sasl.MAX_RESPONSE_OCTETS  # RFC 2449 §4 says 512; an XOAUTH2 error challenge may be longer
BAD_COMMANDS_ALLOWED = 3  # the third one closes, as Dovecot does (CLIENTS 1.1)
TRUSTED_TOKEN_CHARACTERS = 4_096  # longer tokens end in a protocol error at Exchange since July 2025 (FACTS 2.5)
IDLE_LIMIT_S = 600  # RFC 1939 §3: at least ten minutes


class FrontState(enum.Enum):
    CONNECTED = "connected"
    """Not greeted yet."""
    COMMAND = "command"
    CHALLENGED = "challenged"
    """A SASL response is awaited."""
    AUTHENTICATING = "authenticating"
    """A `Login` is out; `accept` or `refuse` is awaited."""
    STARTING_TLS = "starting_tls"
    ACCEPTED = "accepted"
    CLOSED = "closed"


_RESPONSE_CODES = {
    Refusal.BAD_CREDENTIALS: "[AUTH] ",
    Refusal.SIGN_IN_NEEDED: "[SYS/TEMP] ",
    Refusal.TRY_LATER: "[SYS/TEMP] ",
    Refusal.REFUSED_UPSTREAM: "[SYS/PERM] ",
    Refusal.BUSY: "[IN-USE] ",
    Refusal.MISCONFIGURED: "[SYS/PERM] ",
    Refusal.TLS_NEEDED: "",
    Refusal.TOO_MANY_ATTEMPTS: "",
}
"""RFC 3206 §4 and RFC 2449 §8.1; old Thunderbird keeps its saved password only when it reads one (CLIENTS 3.2)."""


class Pop3Front:
    """The mail program's side. Implements `dialogue.Front`."""

    _mechanism: sasl.Mechanism  # set by AUTH, read while CHALLENGED

    def __init__(self, settings: FrontSettings) -> None:
        self.state = FrontState.CONNECTED
        self._settings = settings
        self._tls_active = settings.tls_active
        self._input = InputBuffer()
        self._heard = False
        self._bad_commands = 0
        self._login: bytes | None = None

    def opened(self) -> list[Action]:
        """Greet, without a `<timestamp>`: it would invite APOP (CLIENTS 1.4)."""
        self.state = FrontState.COMMAND
        return [_reply(f"+OK {printable(self._settings.hostname)} POP3 ready"), *self._read()]

    def received(self, data: bytes) -> list[Action]:
        if self.state is FrontState.CLOSED:
            return []
        if not self._heard and not self._tls_active and data.startswith(TLS_CLIENT_HELLO):
            return self._close(TLS_ON_PLAIN_PORT)
        self._heard = self._heard or bool(data)
        self._input.feed(data)
        if self.state is FrontState.STARTING_TLS:
            return self._close("starttls_injection")
        return self._read()

    def tls_started(self) -> list[Action]:
        """Forget the half of a login that came without TLS (RFC 2595 §4)."""
        self.state = FrontState.COMMAND
        self._tls_active = True
        self._login = None
        return []

    def accept(self, ready: Ready) -> list[Action]:
        self.state = FrontState.ACCEPTED
        return [_reply(f"+OK {printable(ready.text) or 'Logged in'}")]

    def refuse(self, refused: LoginRefused, *, final: bool = False) -> list[Action]:
        reply = f"-ERR {_RESPONSE_CODES[refused.refusal]}{printable(refused.text)}"
        unasked = self.state is not FrontState.AUTHENTICATING  # as in place of the greeting (CLIENTS decision 3)
        if final or unasked or refused.refusal is Refusal.TOO_MANY_ATTEMPTS:
            return self._close(refused.refusal.value, reply)
        self.state = FrontState.COMMAND
        return [_reply(reply), *self._read()]

    def expired(self) -> list[Action]:
        return self._close("login_deadline", "-ERR [SYS/TEMP] No login in time, closing the connection")

    def unread(self) -> bytes:
        return self._input.drain()

    def _read(self) -> list[Action]:
        actions: list[Action] = []
        try:
            while (limit := self._line_limit_octets()) and (line := self._input.line(limit)) is not None:
                actions += self._respond(line) if self.state is FrontState.CHALLENGED else self._obey(line)
        except LineTooLong:
            actions += self._close("line_too_long", "-ERR Line too long, closing the connection")
        return actions

    def _line_limit_octets(self) -> int:
        """How long the next line may be; 0 if none is to be read in this state."""
        match self.state:
            case FrontState.COMMAND:
                return MAX_COMMAND_OCTETS
            case FrontState.CHALLENGED:
                return sasl.MAX_RESPONSE_OCTETS
            case _:
                return 0

    def _obey(self, line: bytes) -> list[Action]:
        verb, _, argument = line.partition(b" ")
        if reason := stranger(verb.upper()):
            return self._close(reason)
        match verb.upper():
            case _ if b"\0" in line or b"\r" in line:
                return self._bad("NUL or CR in a command")
            case b"QUIT":
                return self._close("logout", "+OK Goodbye")
            case b"CAPA":
                return [_listing("Capabilities follow", self._capabilities())]
            case b"STLS":
                return self._stls()
            case b"USER" | b"PASS" | b"AUTH" if self._settings.requires_tls and not self._tls_active:
                return [_reply("-ERR Passwords are taken over TLS only; turn on TLS in your mail program")]
            case b"USER":
                self._login = argument
                return [_reply("+OK Now the password")]
            case b"PASS":
                return self._pass(argument)
            case b"AUTH":
                return self._auth(argument.split())
            case b"APOP":
                return [_reply("-ERR APOP is not offered; use USER and PASS")]
            case b"STAT" | b"LIST" | b"RETR" | b"DELE" | b"NOOP" | b"RSET" | b"TOP" | b"UIDL" | b"LAST":
                return [_reply("-ERR Log in first")]
            case _:
                return self._bad("Unknown command")

    def _capabilities(self) -> list[str]:
        """RFC 2449 §5. Upstream has TOP and UIDL too (FACTS 2.2); pipelined commands are handed on in order."""
        logins = ["USER", f"SASL {' '.join(_mechanisms())}"]
        stls = ["STLS"] if self._settings.offers_tls else []
        capabilities = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]
        if self._tls_active:
            return capabilities + logins
        return capabilities + ([] if self._settings.requires_tls else logins) + stls

    def _stls(self) -> list[Action]:
        """RFC 2595 §4. What stands behind the command already was put there by someone else (CVE-2011-0411)."""
        if self._tls_active or not self._settings.offers_tls:
            return [_reply("-ERR TLS is active already" if self._tls_active else "-ERR TLS is not offered here")]
        if self._input:
            return self._close("starttls_injection")
        self.state = FrontState.STARTING_TLS
        return [_reply("+OK Begin TLS"), StartTLS()]

    def _pass(self, password: bytes) -> list[Action]:
        """RFC 1939 §7: all that follows is the password, spaces too."""
        login, self._login = self._login, None
        if login is None:
            return [_reply("-ERR USER comes first")]
        return self._take(Credentials(login, password))

    def _auth(self, arguments: list[bytes]) -> list[Action]:
        """RFC 5034 §4; a bare AUTH asks for the mechanisms (CLIENTS 1.4)."""
        match arguments:
            case []:
                return [_listing("Mechanisms follow", _mechanisms())]
            case [name, *initial] if len(initial) < 2:
                mechanism = sasl.MECHANISMS.get(name.upper())
            case _:
                return self._bad("AUTH takes a mechanism and one response")
        if mechanism is None:
            return [_reply(f"-ERR Use one of {' '.join(_mechanisms())}")]
        self._mechanism = mechanism()
        try:
            return self._take(self._mechanism.start(sasl.initial(initial[0]) if initial else None))
        except sasl.BadResponse:
            return self._bad("The response is not base64")

    def _respond(self, line: bytes) -> list[Action]:
        self.state = FrontState.COMMAND
        if line == b"*":
            return [_reply("-ERR Cancelled")]
        try:
            return self._take(self._mechanism.next(sasl.decode(line)))
        except sasl.BadResponse:
            return self._bad("The response is not base64")

    def _take(self, step: sasl.Step) -> list[Action]:
        if isinstance(step, Credentials):
            self.state = FrontState.AUTHENTICATING
            return [Login(step)]
        self.state = FrontState.CHALLENGED
        return [Send(b"+ " + base64.b64encode(step.data) + b"\r\n")]

    def _bad(self, complaint: str) -> list[Action]:
        self._bad_commands += 1
        if self._bad_commands == BAD_COMMANDS_ALLOWED:
            return self._close("bad_commands", "-ERR Too many bad commands, closing the connection")
        return [_reply(f"-ERR {complaint}")]

    def _close(self, reason: str, *replies: str) -> list[Action]:
        self.state = FrontState.CLOSED
        return [*map(_reply, replies), Close(reason)]


def _mechanisms() -> list[str]:
    return [name.decode() for name in sasl.MECHANISMS]


def _reply(text: str) -> Send:
    return Send(text.encode("ascii") + b"\r\n")


def _listing(title: str, lines: list[str]) -> Send:
    return _reply("\r\n".join([f"+OK {title}", *lines, "."]))


class UpstreamState(enum.Enum):
    GREETING = "greeting"
    STLS_SENT = "stls_sent"
    STARTING_TLS = "starting_tls"
    AUTH_SENT = "auth_sent"
    TOKEN_SENT = "token_sent"  # noqa: S105 - a state's name
    CHALLENGE_ANSWERED = "challenge_answered"
    READY = "ready"
    FAILED = "failed"


_BUSY = re.compile(r"\[IN-USE\]|too many|\blocked\b", re.IGNORECASE)
_LATER = re.compile(r"\[SYS/TEMP\]|\[LOGIN-DELAY\]", re.IGNORECASE)


class Pop3Upstream:
    """Exchange's side: `AUTH XOAUTH2` and the token on two lines (FACTS 2.5). Implements `dialogue.Upstream`."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self.state = UpstreamState.GREETING
        self._starttls = settings.starttls
        self._bearer = settings.bearer
        self._input = InputBuffer()
        self._challenge = ""

    def opened(self) -> list[Action]:
        return []

    def received(self, data: bytes) -> list[Action]:
        if self.state is UpstreamState.FAILED:
            return []
        self._input.feed(data)
        if self.state is UpstreamState.STARTING_TLS:
            return self._fail(Refusal.TRY_LATER, "the server sent bytes between STLS and TLS")
        actions: list[Action] = []
        try:
            while self._reading() and (line := self._input.line(MAX_REPLY_OCTETS)) is not None:
                actions += self._answer(line)
        except LineTooLong:
            actions += self._fail(Refusal.TRY_LATER, "the server sent an endless line")
        return actions

    def tls_started(self) -> list[Action]:
        return self._authenticate()

    def unread(self) -> bytes:
        return self._input.drain()

    def _reading(self) -> bool:
        return self.state not in (UpstreamState.STARTING_TLS, UpstreamState.READY, UpstreamState.FAILED)

    def _answer(self, line: bytes) -> list[Action]:
        status, _, rest = line.partition(b" ")
        match self.state, status:
            case _, b"-ERR":
                return self._refused(rest)
            case UpstreamState.GREETING, b"+OK" if not self._starttls:
                return self._authenticate()
            case UpstreamState.GREETING, b"+OK":
                self.state = UpstreamState.STLS_SENT
                return [Send(b"STLS\r\n")]
            case UpstreamState.STLS_SENT, b"+OK" if self._input:
                return self._fail(Refusal.TRY_LATER, "the server sent bytes between STLS and TLS")
            case UpstreamState.STLS_SENT, b"+OK":
                self.state = UpstreamState.STARTING_TLS
                return [StartTLS()]
            case UpstreamState.AUTH_SENT, b"+":
                self.state = UpstreamState.TOKEN_SENT
                return [Send(sasl.xoauth2(self._bearer) + b"\r\n", secret=True)]
            case UpstreamState.TOKEN_SENT, b"+":  # the reason as base64 JSON; an empty line fetches the verdict
                self.state = UpstreamState.CHALLENGE_ANSWERED
                self._challenge = challenge_text(rest)
                return [Send(b"\r\n")]
            case UpstreamState.TOKEN_SENT, b"+OK":
                self.state = UpstreamState.READY
                return [Ready(without_token(rest.decode("ascii", "replace"), self._bearer))]
            case _:
                said = line.decode("ascii", "replace")
                return self._fail(Refusal.TRY_LATER, f"unexpected in state {self.state.value}: {said}")

    def _authenticate(self) -> list[Action]:
        self.state = UpstreamState.AUTH_SENT
        return [Send(b"AUTH XOAUTH2\r\n")]

    def _refused(self, rest: bytes) -> list[Action]:
        said = " ".join(filter(None, [rest.decode("ascii", "replace"), self._challenge]))
        if _BUSY.search(said):
            return self._fail(Refusal.BUSY, said)
        if _LATER.search(said) or self.state is UpstreamState.GREETING:
            return self._fail(Refusal.TRY_LATER, said)
        if self.state is UpstreamState.STLS_SENT:
            return self._fail(Refusal.MISCONFIGURED, f"STLS refused: {said}")
        if (length := len(self._bearer.token)) > TRUSTED_TOKEN_CHARACTERS:
            said = f"(a token of {length} characters) {said}"
        return self._fail(Refusal.REFUSED_UPSTREAM, said)

    def _fail(self, refusal: Refusal, detail: str) -> list[Action]:
        self.state = UpstreamState.FAILED
        return [Failed(refusal, without_token(detail, self._bearer))]


POP3 = MailProtocol(name="pop3", front=Pop3Front, upstream=Pop3Upstream, speaks_as="mailbox", idle_limit_s=IDLE_LIMIT_S)
