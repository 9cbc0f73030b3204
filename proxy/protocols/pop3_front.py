"""PURE: POP3 until the login, the mail program's side (RFC 1939, 2449, 2595, 5034, 3206; CLIENTS 1.4).

What it is: the dialogue that a mail program holds with us until its login is settled. What it is not: a mailbox; after
the login both streams are relayed and nobody reads them here. Called through the record in `pop3.py`.

With `defers_failures` (`deferral.py`) a login that fails though its password is right gets its +OK. The front is then
`DEFERRED`: what asks for the mailbox gets the reason, never an empty listing: a program would fetch all mail anew.
"""

from __future__ import annotations

import base64
import enum

from proxy.login import Credentials, LoginRefused, Refusal
from proxy.protocols import legible, sasl
from proxy.protocols.deferral import DEFERRABLE, DEFERRED_LIMIT_S
from proxy.protocols.dialogue import (
    Action,
    Close,
    Dismissal,
    ExpireIn,
    FrontSettings,
    InputBuffer,
    LineTooLong,
    Login,
    Ready,
    Send,
    StartTLS,
    printable,
)
from proxy.protocols.strangers import TLS_CLIENT_HELLO, TLS_ON_PLAIN_PORT, stranger

MAX_COMMAND_OCTETS = 512  # Exchange's own limit (FACTS 2.5); RFC 2449 §4 asks for 255
BAD_COMMANDS_ALLOWED = 3  # the third one closes, as Dovecot does (CLIENTS 1.1)


class FrontState(enum.Enum):
    CONNECTED = "connected"
    """Not greeted yet."""
    COMMAND = "command"
    CHALLENGED = "challenged"
    """A SASL response is awaited."""
    AUTHENTICATING = "authenticating"
    """A `Login` is out; `accept` or `refuse` is awaited."""
    STARTING_TLS = "starting_tls"
    DEFERRED = "deferred"
    """The mail program thinks that it is logged in, and hears at each command why it is not."""
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
        self._why = ""
        """The reply that a deferred login did not get."""
        self._why_shown = ""
        """The same as a log may have it."""

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

    def waiting(self) -> list[Action]:
        """A reply is said once, so nothing can be said before it."""
        return []

    def accept(self, ready: Ready) -> list[Action]:
        self.state = FrontState.ACCEPTED
        return [_reply(f"+OK {printable(ready.text) or 'Logged in'}")]

    def refuse(self, refused: LoginRefused, *, final: bool = False) -> list[Action]:
        code = f"-ERR {_RESPONSE_CODES[refused.refusal]}"
        reply, shown = f"{code}{printable(refused.told)}", f"{code}{legible.told(refused)}"
        unasked = self.state is not FrontState.AUTHENTICATING  # as in place of the greeting (CLIENTS decision 3)
        if final or unasked or refused.refusal is Refusal.TOO_MANY_ATTEMPTS:
            return self._close(refused.refusal.value, _reply(reply, shown))
        if self._settings.defers_failures and refused.refusal in DEFERRABLE:
            self.state, self._why, self._why_shown = FrontState.DEFERRED, reply, shown
            return [_reply("+OK Logged in"), ExpireIn(DEFERRED_LIMIT_S), *self._read()]
        self.state = FrontState.COMMAND
        return [_reply(reply, shown), *self._read()]

    def expired(self) -> list[Action]:
        """A program that thinks it is logged in awaits nothing that it did not ask for."""
        if self.state is FrontState.DEFERRED:
            return self._close("deferred_failure")
        return self._close("login_deadline", _reply("-ERR [SYS/TEMP] No login in time, closing the connection"))

    def dismissed(self, why: Dismissal) -> list[Action]:
        if self.state is FrontState.DEFERRED:
            return self._close(why.reason)
        return self._close(why.reason, _reply(f"-ERR [SYS/TEMP] {why.text}"))

    def unread(self) -> bytes:
        return self._input.drain()

    def _read(self) -> list[Action]:
        actions: list[Action] = []
        try:
            while (limit := self._line_limit_octets()) and (line := self._input.line(limit)) is not None:
                challenged = self.state is FrontState.CHALLENGED
                if self._settings.watched:
                    actions.append(legible.response(line) if challenged else legible.pop3(line))
                actions += self._respond(line) if challenged else self._obey(line)
        except LineTooLong:
            actions += self._close("line_too_long", _reply("-ERR Line too long, closing the connection"))
        return actions

    def _line_limit_octets(self) -> int:
        """How long the next line may be; 0 if none is to be read in this state."""
        match self.state:
            case FrontState.COMMAND | FrontState.DEFERRED:
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
                return self._close("logout", _reply("+OK Goodbye"))
            case b"CAPA":
                return [_listing("Capabilities follow", self._capabilities())]
            case b"NOOP" if self.state is FrontState.DEFERRED:
                return [_reply("+OK")]
            case b"USER" | b"PASS" | b"AUTH" | b"APOP" | b"STLS" if self.state is FrontState.DEFERRED:
                return [_reply("-ERR Logged in already")]
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
                return [_reply(self._why or "-ERR Log in first", self._why_shown)]
            case _:
                return self._bad("Unknown command")

    def _capabilities(self) -> list[str]:
        """RFC 2449 §5: after the login too, less STLS. Upstream has TOP and UIDL (FACTS 2.2), and takes pipelining."""
        logins = ["USER", f"SASL {' '.join(_mechanisms())}"]
        stls = ["STLS"] if self._settings.offers_tls and self.state is not FrontState.DEFERRED else []
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
            return self._close("bad_commands", _reply("-ERR Too many bad commands, closing the connection"))
        return [_reply(f"-ERR {complaint}")]

    def _close(self, reason: str, *replies: Send) -> list[Action]:
        self.state = FrontState.CLOSED
        return [*replies, Close(reason)]


def _mechanisms() -> list[str]:
    return [name.decode() for name in sasl.MECHANISMS]


def _reply(text: str, shown: str = "") -> Send:
    """`shown` is what a log may have of it, if that is less."""
    return legible.send(f"{text}\r\n", f"{shown or text}\r\n")


def _listing(title: str, lines: list[str]) -> Send:
    return _reply("\r\n".join([f"+OK {title}", *lines, "."]))
