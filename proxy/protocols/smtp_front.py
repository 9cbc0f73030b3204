"""PURE: SMTP submission until the login, the mail program's side (RFC 5321, 4954, 3207, 3030; CLIENTS 1.3).

What it is: the dialogue that a mail program holds with us until its AUTH is settled. What it is not: a mail server; no
message is ever taken here. Called through the record in `smtp.py`.

A right password never makes the program ask for it again. So, with `defers_failures` (CLIENTS 3.3), a login that fails
for any other reason is answered 235 all the same. The front is then `DEFERRED`: it keeps the credentials, and each
MAIL tries the login anew and is refused with 451 if that fails too. When it succeeds, the MAIL line and all behind it
are `unread` and go upstream as if nothing had happened.

With `implicit_account` a MAIL before AUTH is itself a login, `Login(None)`, of a device that has no words for one
(CLIENTS 1.3). It goes the same way: upstream answers the MAIL, or we do, and the next MAIL tries again.
"""

from __future__ import annotations

import base64
import enum
import re

from proxy.login import Credentials, LoginRefused, Refusal
from proxy.protocols import legible, sasl, smtp_extensions
from proxy.protocols.dialogue import (
    Action,
    Close,
    Dismissal,
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

MAX_COMMAND_OCTETS = 8_192  # RFC 5321 §4.5.3.1.4 says 512; Dovecot takes as much as this (CLIENTS 1.1)
BAD_COMMANDS_ALLOWED = 10  # the tenth one closes, as Dovecot does (CLIENTS 1.1)


class State(enum.Enum):
    CONNECTED = "connected"
    """Not greeted yet."""
    COMMAND = "command"
    CHALLENGED = "challenged"
    """A SASL response is awaited."""
    AUTHENTICATING = "authenticating"
    """A `Login` is out; `accept` or `refuse` is awaited."""
    DEFERRED = "deferred"
    """The mail program thinks that it is logged in; the next MAIL tries again."""
    SWALLOWING = "swallowing"
    """Octets of a refused BDAT are coming in."""
    STARTING_TLS = "starting_tls"
    ACCEPTED = "accepted"
    CLOSED = "closed"


_HONEST = {
    Refusal.BAD_CREDENTIALS: "535 5.7.8",
    Refusal.SIGN_IN_NEEDED: "454 4.7.0",
    Refusal.TRY_LATER: "454 4.7.0",
    Refusal.REFUSED_UPSTREAM: "454 4.7.0",
    Refusal.BUSY: "421 4.3.2",
    Refusal.MISCONFIGURED: "454 4.7.0",
    Refusal.TLS_NEEDED: "538 5.7.11",
    Refusal.TOO_MANY_ATTEMPTS: "421 4.7.0",
}
"""RFC 4954 §6; ARCHITECTURE, "One refusal, three languages"."""
_DEFERRED = {
    Refusal.SIGN_IN_NEEDED: "451 4.7.0",
    Refusal.TRY_LATER: "451 4.4.1",
    Refusal.REFUSED_UPSTREAM: "451 4.7.0",
    Refusal.BUSY: "451 4.3.2",
    Refusal.MISCONFIGURED: "451 4.3.5",
}
"""The same at MAIL. What does not stand here is never deferred."""

_CHUNK = re.compile(rb"([0-9]{1,20})(?: +LAST)?", re.IGNORECASE)  # RFC 3030 §2: chunk-size [SP "LAST"]


class SmtpFront:
    """The mail program's side. Implements `dialogue.Front`."""

    _mechanism: sasl.Mechanism  # set by AUTH, read while CHALLENGED

    def __init__(self, settings: FrontSettings) -> None:
        self.state = State.CONNECTED
        self._settings = settings
        self._hostname = printable(settings.hostname)
        self._tls_active = settings.tls_active
        self._input = InputBuffer()
        self._heard = False
        self._bad_commands = 0
        self._introduced = False
        """EHLO or HELO was said."""
        self._announced: smtp_extensions.Extensions = {}
        """The extensions that the last EHLO was told, by keyword."""
        self._credentials: Credentials | None = None
        """Of the login that is being tried, or that was deferred."""
        self._mail = b""
        """The MAIL line that is itself a login: of a device without one, or deferred and tried again."""
        self._unswallowed_octets = 0

    def opened(self) -> list[Action]:
        """Greet; without the word ESMTP some programs never say EHLO (CLIENTS 1.3)."""
        self.state = State.COMMAND
        return [_reply(f"220 {self._hostname} ESMTP ready"), *self._read()]

    def received(self, data: bytes) -> list[Action]:
        if self.state is State.CLOSED:
            return []
        if not self._heard and not self._tls_active and data.startswith(TLS_CLIENT_HELLO):
            return self._close(TLS_ON_PLAIN_PORT)
        self._heard = self._heard or bool(data)
        self._input.feed(data)
        if self.state is State.STARTING_TLS:
            return self._close("starttls_injection")
        return self._read()

    def tls_started(self) -> list[Action]:
        """Forget the EHLO that came without TLS (RFC 3207 §4.2)."""
        self.state = State.COMMAND
        self._tls_active = True
        self._introduced = False
        self._announced = {}
        return []

    def waiting(self) -> list[Action]:
        """A reply is said once, so nothing can be said before it."""
        return []

    def accept(self, ready: Ready) -> list[Action]:
        """Nothing is said to a MAIL that was the login: upstream answers it.

        If upstream offers less than EHLO announced, the mail program must come again and see the new list; an empty
        list of capabilities says nothing.
        """
        offered = smtp_extensions.read(ready.capabilities)
        if offered and smtp_extensions.offers_less(offered, self._announced):
            changed = "The mail server's features have changed; please connect again"
            reply = self._say_no(Refusal.TRY_LATER, changed, changed)
            return [reply, *self._close("upstream_offers_less", _reply(f"421 4.3.2 {changed}"))]
        self.state = State.ACCEPTED
        self._credentials = None
        return [] if self._mail else [_AUTHENTICATED]

    def refuse(self, refused: LoginRefused, *, final: bool = False) -> list[Action]:
        text, shown = printable(refused.told), legible.told(refused)
        if self.state is not State.AUTHENTICATING:  # as in place of the greeting (CLIENTS decision 3)
            return self._close(refused.refusal.value, _reply(f"421 4.3.2 {text}", f"421 4.3.2 {shown}"))
        reply = self._say_no(refused.refusal, text, shown)
        if reply.data.startswith(b"421"):
            return [reply, *self._close(refused.refusal.value)]
        if final:
            return [reply, *self._goodbye(refused.refusal.value)]
        self.state = self._resting()
        return [reply, *self._read()]

    def expired(self) -> list[Action]:
        reply = f"421 4.4.2 {self._hostname} No login in time, closing the connection"
        return self._close("login_deadline", _reply(reply))

    def dismissed(self, why: Dismissal) -> list[Action]:
        return self._close(why.reason, _reply(f"421 4.3.2 {self._hostname} {why.text}"))

    def unread(self) -> bytes:
        mail, self._mail = self._mail, b""
        return mail + self._input.drain()

    def _say_no(self, refusal: Refusal, text: str, shown: str) -> Send:
        """The reply to AUTH, or to the MAIL that was the login; one that is not deferred is forgotten."""
        mail, self._mail = self._mail, b""
        if (self._settings.defers_failures or self._credentials is None) and refusal in _DEFERRED:
            code = _DEFERRED[refusal]
            return _reply(f"{code} {text}", f"{code} {shown}") if mail else _AUTHENTICATED
        self._credentials = None
        return _reply(f"{_HONEST[refusal]} {text}", f"{_HONEST[refusal]} {shown}")

    def _resting(self) -> State:
        """Where commands are awaited."""
        return State.COMMAND if self._credentials is None else State.DEFERRED

    def _read(self) -> list[Action]:
        actions: list[Action] = []
        try:
            while (reply := self._next()) is not None:
                actions += reply
        except LineTooLong:
            code = "500 5.5.6" if self.state is State.CHALLENGED else "500 5.5.2"
            actions += self._close("line_too_long", _reply(f"{code} Line too long, closing the connection"))
        return actions

    def _next(self) -> list[Action] | None:
        """Answer the next whole thing received; None if there is none, or nothing is to be read now."""
        match self.state:
            case State.COMMAND | State.DEFERRED:
                line = self._input.line(MAX_COMMAND_OCTETS)
                if line is None:
                    return None
                heard = [legible.smtp(line, introduces=self.state is State.COMMAND)] if self._settings.watched else []
                return [*heard, *self._obey(line)]
            case State.CHALLENGED:
                line = self._input.line(sasl.MAX_RESPONSE_OCTETS)
                if line is None:
                    return None
                heard = [legible.response(line)] if self._settings.watched else []
                return [*heard, *self._respond(line)]
            case State.SWALLOWING:
                return self._swallow()
            case _:
                return None

    def _obey(self, line: bytes) -> list[Action]:
        verb, _, argument = line.partition(b" ")
        if reason := stranger(verb.upper()):
            return self._close(reason)
        match verb.upper():
            case _ if b"\0" in line or b"\r" in line:
                return self._bad("500 5.5.2 NUL or CR in a command")
            case b"EHLO":
                return self._ehlo()
            case b"HELO":
                self._introduced = True
                self._announced = {}
                return [_reply(f"250 {self._hostname}")]
            case b"NOOP" | b"RSET":
                return [_reply("250 2.0.0 OK")]
            case b"HELP":
                return [_reply("214 2.0.0 Log in, and the mail server behind will help")]
            case b"VRFY":
                return [_reply("252 2.5.0 Send it and see")]
            case b"EXPN":
                return [_reply("502 5.5.1 Not implemented")]
            case b"STARTTLS":
                return self._starttls(argument.strip())
            case b"AUTH":
                return self._auth(argument.split())
            case b"MAIL":
                return self._mail_from(line)
            case b"RCPT" | b"DATA":
                return [_NO_TRANSACTION]
            case b"BDAT":
                return self._bdat(argument.strip())
            case b"QUIT":
                return self._close("logout", _reply(f"221 2.0.0 {self._hostname} closing the connection"))
            case _:
                return self._bad("500 5.5.2 Unknown command")

    def _ehlo(self) -> list[Action]:
        """RFC 5321 §4.1.1.1. Nothing is promised that upstream does not keep (CLIENTS 2.3)."""
        extensions = smtp_extensions.read(self._settings.learnt or smtp_extensions.EXCHANGE)
        lines = [self._hostname, *(f"{keyword} {argument}".rstrip() for keyword, argument in extensions.items())]
        if not self._tls_needed():
            mechanisms = " ".join(name.decode() for name in sasl.MECHANISMS)
            lines += [f"AUTH {mechanisms}", f"AUTH={mechanisms}"]  # Outlook Express 4 looks for AUTH= only
        if self._settings.offers_tls and not self._tls_active:
            lines.append("STARTTLS")
        self._introduced = True
        self._announced = extensions
        return [_reply("\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))]

    def _tls_needed(self) -> bool:
        return self._settings.requires_tls and not self._tls_active

    def _starttls(self, argument: bytes) -> list[Action]:
        """RFC 3207 §4. What stands behind the command already was put there by someone else (CVE-2011-0411)."""
        if self._tls_active or self.state is State.DEFERRED:
            return [_reply("503 5.5.1 It is too late for STARTTLS")]
        if argument:
            return self._bad("501 5.5.4 STARTTLS takes no argument")
        if not self._settings.offers_tls:
            return [_reply("502 5.5.1 TLS is not offered here")]
        if self._input:
            return self._close("starttls_injection")
        self.state = State.STARTING_TLS
        return [_reply("220 2.0.0 Begin TLS"), StartTLS()]

    def _auth(self, arguments: list[bytes]) -> list[Action]:
        """RFC 4954 §4. LOGIN may bring the user name along, which .NET and copiers do (CLIENTS 1.3)."""
        if self.state is State.DEFERRED:
            return [_reply("503 5.5.1 Authenticated already")]
        if self._tls_needed():
            return [_reply("538 5.7.11 Passwords are taken over TLS only; turn on TLS in your mail program")]
        if not 1 <= len(arguments) <= 2:
            return self._bad("501 5.5.4 AUTH takes a mechanism and one response")
        name, *initial = arguments
        mechanism = sasl.MECHANISMS.get(name.upper())
        if mechanism is None:
            return [_reply("504 5.5.4 Mechanism not offered")]
        self._mechanism = mechanism()
        try:
            return self._take(self._mechanism.start(sasl.initial(initial[0]) if initial else None))
        except sasl.BadResponse:
            return self._bad("501 5.5.2 The response is not base64")

    def _respond(self, line: bytes) -> list[Action]:
        self.state = State.COMMAND
        if line == b"*":
            return [_reply("501 5.5.2 Cancelled")]
        try:
            return self._take(self._mechanism.next(sasl.decode(line)))
        except sasl.BadResponse:
            return self._bad("501 5.5.2 The response is not base64")

    def _take(self, step: sasl.Step) -> list[Action]:
        if isinstance(step, Credentials):
            return self._log_in(step)
        self.state = State.CHALLENGED
        return [Send(b"334 " + base64.b64encode(step.data) + b"\r\n")]

    def _log_in(self, credentials: Credentials | None) -> list[Action]:
        self.state = State.AUTHENTICATING
        self._credentials = credentials
        return [Login(credentials)]

    def _mail_from(self, line: bytes) -> list[Action]:
        """Log in with it, or say why not; a 503 after EHLO breaks some programs (CLIENTS 1.3)."""
        if self._credentials is None:
            if not self._introduced:
                return [_reply("503 5.5.1 EHLO comes first")]
            if self._tls_needed():
                return [_reply("530 5.7.0 Turn on TLS in your mail program, then log in")]
            if not self._settings.implicit_account:
                return [_reply("530 5.7.0 Authentication required")]
        self._mail = line + b"\r\n"
        return self._log_in(self._credentials)

    def _bdat(self, argument: bytes) -> list[Action]:
        """RFC 3030 §2: the octets come whatever we answer, and must not be read as commands."""
        chunk = _CHUNK.fullmatch(argument)
        if chunk is None:
            return self._close("bad_commands", _reply("501 5.5.4 BDAT takes a size; closing the connection"))
        self._unswallowed_octets = int(chunk[1])
        self.state = State.SWALLOWING
        return []

    def _swallow(self) -> list[Action] | None:
        self._unswallowed_octets -= len(self._input.take(self._unswallowed_octets))
        if self._unswallowed_octets:
            return None
        self.state = self._resting()
        return [_NO_TRANSACTION]

    def _bad(self, complaint: str) -> list[Action]:
        self._bad_commands += 1
        if self._bad_commands == BAD_COMMANDS_ALLOWED:
            return self._close("bad_commands", _reply(f"421 4.7.0 {self._hostname} Too many bad commands, closing"))
        return [_reply(complaint)]

    def _goodbye(self, reason: str) -> list[Action]:
        """RFC 5321 §3.8: the reply to whatever the program says next."""
        return self._close(reason, _reply(f"421 4.3.2 {self._hostname} closing the connection"))

    def _close(self, reason: str, *replies: Send) -> list[Action]:
        self.state = State.CLOSED
        return [*replies, Close(reason)]


def _reply(text: str, shown: str = "") -> Send:
    """`shown` is what a log may have of it, if that is less."""
    return legible.send(f"{text}\r\n", f"{shown or text}\r\n")


_AUTHENTICATED = _reply("235 2.7.0 Authentication successful")
_NO_TRANSACTION = _reply("503 5.5.1 MAIL comes first")
