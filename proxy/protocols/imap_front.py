"""PURE: IMAP's front, the conversation with the mail program until its login is decided (RFC 9051, CLIENTS 1.2).

What it is: a server that greets at once from its own knowledge, answers what may be asked before login, and turns
LOGIN and AUTHENTICATE into `Login`. What it is not: it knows no password and no mailbox; after `accept` the octets
are upstream's. `network/session.py` calls it, as `imap.IMAP.front`.

With `defers_failures` (`deferral.py`) a login that fails though its password is right gets its OK. The front is then
`DEFERRED`: what it can answer itself it answers, and what only the mailbox could gets the reason in a NO, never an
empty success: a program would take its folders for gone.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Iterable
from typing import assert_never

from proxy.login import Credentials, LoginRefused, Refusal
from proxy.protocols import imap_capabilities, legible, sasl
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
from proxy.protocols.imap_grammar import (
    Argument,
    Command,
    CommandReader,
    Empty,
    Foreign,
    LiteralAwaited,
    LiteralTooLong,
    Malformed,
    Reading,
    is_id_parameters,
)
from proxy.protocols.strangers import TLS_CLIENT_HELLO, TLS_ON_PLAIN_PORT

MAX_JUNK_IN_A_ROW = 3  # Dovecot's budget (CLIENTS 1.1)

_BEFORE_LOGIN = frozenset({b"CAPABILITY", b"NOOP", b"ID", b"ENABLE", b"STARTTLS", b"LOGIN", b"AUTHENTICATE", b"LOGOUT"})
_AFTER_LOGIN = frozenset(
    b"SELECT EXAMINE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB XLIST NAMESPACE STATUS APPEND IDLE CHECK"
    b" CLOSE UNSELECT EXPUNGE SEARCH SORT THREAD FETCH STORE COPY MOVE UID GETQUOTA GETQUOTAROOT GETACL".split()
)
_KNOWN = _BEFORE_LOGIN | _AFTER_LOGIN
_LOGS_IN = frozenset({b"LOGIN", b"AUTHENTICATE", b"STARTTLS"})

_CODES = {
    Refusal.BAD_CREDENTIALS: "AUTHENTICATIONFAILED",
    Refusal.SIGN_IN_NEEDED: "UNAVAILABLE",
    Refusal.TRY_LATER: "UNAVAILABLE",
    Refusal.REFUSED_UPSTREAM: "UNAVAILABLE",
    Refusal.BUSY: "UNAVAILABLE",
    Refusal.MISCONFIGURED: "UNAVAILABLE",
    Refusal.TLS_NEEDED: "PRIVACYREQUIRED",
}
"""RFC 5530 §3. Thunderbird asks for no new password after [UNAVAILABLE]. TOO_MANY_ATTEMPTS is a BYE alone."""


class FrontState(enum.Enum):
    CONNECTED = "connected"
    AWAITING_COMMAND = "awaiting command"
    AWAITING_RESPONSE = "awaiting sasl response"
    AWAITING_VERDICT = "awaiting verdict"
    STARTING_TLS = "starting tls"
    DEFERRED = "deferred"
    """The mail program thinks that it is logged in, and hears at each command why it is not."""
    ACCEPTED = "accepted"
    CLOSED = "closed"


class ImapFront:
    """One connection's front. `Front` in `dialogue.py` tells what each input means."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._state = FrontState.CONNECTED
        self._tls_active = settings.tls_active
        self._anything_received = False
        self._why = ""
        """What a deferred login failed of."""
        self._why_shown = ""
        """The same as a log may have it."""
        self._start_over()

    def _start_over(self) -> None:
        """Nothing was said yet; after STARTTLS all that was is forgotten (RFC 9051 §6.2.1)."""
        self._input = InputBuffer()
        self._commands = CommandReader(self._input)
        self._capability_asked = False
        self._junk_in_a_row = 0
        self._tag = b""
        """Of the login under way."""
        self._mechanism: sasl.Mechanism | None = None

    @property
    def state(self) -> FrontState:
        return self._state

    def opened(self) -> list[Action]:
        self._state = FrontState.AWAITING_COMMAND
        capabilities = " ".join(self._capabilities())
        return [_line(f"* OK [CAPABILITY {capabilities}] {self._settings.hostname} ready"), *self._proceed()]

    def received(self, data: bytes) -> list[Action]:
        if self._state is FrontState.CLOSED:
            return []
        if self._state is FrontState.STARTING_TLS and data:
            return self._close("starttls_injection")
        if data and not self._anything_received:
            self._anything_received = True
            if data.startswith(TLS_CLIENT_HELLO) and not self._tls_active:
                return self._close(TLS_ON_PLAIN_PORT)
        self._input.feed(data)
        return self._proceed()

    def tls_started(self) -> list[Action]:
        self._tls_active = True
        self._start_over()
        self._state = FrontState.AWAITING_COMMAND
        return []

    def waiting(self) -> list[Action]:
        """An untagged OK may come at any time (RFC 9051 §7.1.1); it keeps a program's own clock from running out."""
        return [_line("* OK Still working")]

    def accept(self, ready: Ready) -> list[Action]:
        """Tagged OK with upstream's capabilities, then what upstream said beside them."""
        self._state = FrontState.ACCEPTED
        return [Send(self._logged_in(ready.capabilities, printable(ready.text)) + ready.untagged)]

    def refuse(self, refused: LoginRefused, *, final: bool = False) -> list[Action]:
        """A tagged NO; if final, BYE behind it. Without a login under way, as in place of the greeting, BYE alone."""
        text = printable(refused.told)
        if refused.refusal is Refusal.TOO_MANY_ATTEMPTS or self._state is not FrontState.AWAITING_VERDICT:
            return self._bye(text, refused.refusal.value, legible.told(refused))
        code = f"{self._tag.decode()} NO [{_CODES[refused.refusal]}]"
        reply = _line(f"{code} {text}", f"{code} {legible.told(refused)}")
        if final:
            return [reply, *self._bye(text, refused.refusal.value, legible.told(refused))]
        if self._settings.defers_failures and refused.refusal in DEFERRABLE:
            self._state, self._why, self._why_shown = FrontState.DEFERRED, text, legible.told(refused)
            return [Send(self._logged_in(self._capabilities())), ExpireIn(DEFERRED_LIMIT_S), *self._proceed()]
        self._state = FrontState.AWAITING_COMMAND
        return [reply, *self._proceed()]

    def expired(self) -> list[Action]:
        if self._deferred:
            return self._bye(self._why, "deferred_failure", self._why_shown)
        return self._bye("The time for logging in is over", "login_deadline")

    def dismissed(self, why: Dismissal) -> list[Action]:
        if self._deferred:
            return self._bye(self._why, why.reason, self._why_shown)
        return self._bye(why.text, why.reason)

    def unread(self) -> bytes:
        return self._input.drain()

    def _proceed(self) -> list[Action]:
        """Take what the buffer holds, step by step, until it holds nothing whole or somebody else must act."""
        actions: list[Action] = []
        step: list[Action] | None = []
        while step is not None:
            actions += step
            try:
                step = self._step()
            except LineTooLong:
                step = [_line("* BAD Line too long"), *self._bye("Line too long", "line_too_long")]
        return actions

    def _step(self) -> list[Action] | None:
        if self._state is FrontState.AWAITING_COMMAND or self._deferred:
            return self._read_command()
        if self._state is FrontState.AWAITING_RESPONSE:
            line = self._input.line(sasl.MAX_RESPONSE_OCTETS)
            if line is None:
                return None
            heard = [legible.response(line)] if self._settings.watched else []
            return [*heard, *self._respond(line)]
        return None

    def _read_command(self) -> list[Action] | None:
        reading = self._commands.next()
        if reading is None:
            return None
        heard = [legible.imap(reading, _KNOWN)] if self._settings.watched else []
        return [*heard, *self._answer(reading)]

    def _answer(self, reading: Reading) -> list[Action]:
        if self._deferred and (tag := _for_the_mailbox(reading)) is not None:
            self._commands.abandon()
            refusal = f"{tag.decode()} NO [UNAVAILABLE]"
            return [_line(f"{refusal} {self._why}", f"{refusal} {self._why_shown}")]
        match reading:
            case Command() as command:
                return self._obey(command)
            case LiteralAwaited(tag, name):
                if name == b"ID" or (name == b"LOGIN" and not self._needs_tls() and not self._deferred):
                    return [_line("+ ")]
                self._commands.abandon()
                return self._obey(Command(tag, name))
            case LiteralTooLong(tag, synchronizing):
                if synchronizing:
                    return [_tagged(tag, "NO [TOOBIG] Literal too long")]
                return self._bye(self._why or "Literal too long", "literal_too_long", self._why_shown)
            case Empty():
                return self._junk([])
            case Malformed(tag, in_step):
                if not in_step:
                    return self._bye(self._why or "Not a command", "literal_out_of_step", self._why_shown)
                return self._junk([_line("* BAD Not a command") if tag is None else _tagged(tag, _complaint(tag))])
            case Foreign(protocol):
                return self._close(protocol)
            case never:  # pragma: no cover
                assert_never(never)

    def _obey(self, command: Command) -> list[Action]:
        tag = command.tag
        if command.name in _BEFORE_LOGIN or command.name in _AFTER_LOGIN:
            self._junk_in_a_row = 0
        match command.name, command.arguments:
            case name, _ if name in _LOGS_IN and self._deferred:
                return [_tagged(tag, "BAD Logged in already")]
            case ((b"LOGIN" | b"AUTHENTICATE"), _) if self._needs_tls():
                return [_tagged(tag, "NO [PRIVACYREQUIRED] Switch on STARTTLS or SSL/TLS first")]
            case b"LOGIN", (login, password):
                return self._log_in(tag, _credentials(login, password))
            case b"AUTHENTICATE", (mechanism,):
                return self._authenticate(tag, mechanism.octets, None)
            case b"AUTHENTICATE", (mechanism, initial):
                return self._authenticate(tag, mechanism.octets, initial.octets)
            case b"CAPABILITY", ():
                self._capability_asked = True
                capabilities = " ".join(self._capabilities())
                return [_line(f"* CAPABILITY {capabilities}"), _tagged(tag, "OK CAPABILITY completed")]
            case b"NOOP", ():
                return [_tagged(tag, "OK NOOP completed")]
            case b"ID", parameters if is_id_parameters(parameters):
                return [_line('* ID ("name" "mailferry")'), _tagged(tag, "OK ID completed")]
            case b"ENABLE", (_, *_):  # RFC 5161 wants it after login, but programs send it early
                return [_line("* ENABLED"), _tagged(tag, "OK ENABLE completed")]
            case b"STARTTLS", ():
                return self._start_tls(tag)
            case b"LOGOUT", ():
                return [_line("* BYE Logging out"), _tagged(tag, "OK LOGOUT completed"), *self._close("logout")]
            case name, _ if name in _BEFORE_LOGIN:
                return [_tagged(tag, f"BAD Wrong arguments for {name.decode()}")]
            case name, _ if name in _AFTER_LOGIN:
                return [_tagged(tag, "BAD Log in first")]
            case _:
                return self._junk([_tagged(tag, _complaint(tag))])

    def _start_tls(self, tag: bytes) -> list[Action]:
        if self._tls_active:
            return [_tagged(tag, "BAD TLS is active already")]
        if not self._settings.offers_tls:
            return [_tagged(tag, "BAD STARTTLS is not offered here")]
        if len(self._input):
            return self._close("starttls_injection")
        self._state = FrontState.STARTING_TLS
        return [_tagged(tag, "OK Begin TLS now"), StartTLS()]

    def _authenticate(self, tag: bytes, name: bytes, initial: bytes | None) -> list[Action]:
        mechanism = sasl.MECHANISMS.get(name.upper())
        if mechanism is None:
            return [_tagged(tag, "NO This authentication mechanism is not offered")]
        self._tag, self._mechanism = tag, mechanism()
        try:
            return self._follow(self._mechanism.start(None if initial is None else sasl.initial(initial)))
        except sasl.BadResponse:
            return self._cancel("BAD Not base64")

    def _respond(self, line: bytes) -> list[Action]:
        assert self._mechanism is not None
        if line == b"*":
            return self._cancel("BAD Authentication cancelled")
        try:
            return self._follow(self._mechanism.next(sasl.decode(line)))
        except sasl.BadResponse:
            return self._cancel("BAD Not base64")

    def _follow(self, step: sasl.Step) -> list[Action]:
        if isinstance(step, Credentials):
            return self._log_in(self._tag, step)
        self._state = FrontState.AWAITING_RESPONSE
        return [Send(b"+ " + base64.b64encode(step.data) + b"\r\n")]

    def _cancel(self, text: str) -> list[Action]:
        self._state = FrontState.AWAITING_COMMAND
        return [_tagged(self._tag, text)]

    def _log_in(self, tag: bytes, credentials: Credentials) -> list[Action]:
        self._tag = tag
        self._state = FrontState.AWAITING_VERDICT
        return [Login(credentials)]

    def _junk(self, reply: list[Action]) -> list[Action]:
        self._junk_in_a_row += 1
        if self._junk_in_a_row < MAX_JUNK_IN_A_ROW:
            return reply
        return [*reply, *self._bye("Too many bad commands", "bad_commands")]

    def _bye(self, text: str, reason: str, shown: str = "") -> list[Action]:
        return [_line(f"* BYE {text}", f"* BYE {shown or text}"), *self._close(reason)]

    def _close(self, reason: str) -> list[Action]:
        self._state = FrontState.CLOSED
        return [Close(reason)]

    @property
    def _deferred(self) -> bool:
        return self._state is FrontState.DEFERRED

    def _needs_tls(self) -> bool:
        return self._settings.requires_tls and not self._tls_active

    def _capabilities(self) -> list[str]:
        """What we name of our own knowledge; after a deferred login no way to log in is among it."""
        offers_tls = self._settings.offers_tls and not self._tls_active
        named = imap_capabilities.before_login(
            self._settings.learnt, offers_tls=offers_tls, needs_tls=self._needs_tls()
        )
        return imap_capabilities.after_login(named) if self._deferred else named

    def _logged_in(self, capabilities: Iterable[str], text: str = "") -> bytes:
        """The tagged OK with these capabilities, as the program will not always ask again.

        A program that asked for them before ignores the code, so it gets them as a response (Dovecot; CLIENTS 2.1).
        """
        named = " ".join(imap_capabilities.after_login(capabilities))
        untagged = code = ""
        if named and self._capability_asked:
            untagged = f"* CAPABILITY {named}\r\n"
        elif named:
            code = f"[CAPABILITY {named}] "
        return f"{untagged}{self._tag.decode()} OK {code}{text or 'Logged in'}\r\n".encode()


def _line(text: str, shown: str = "") -> Send:
    """`shown` is what a log may have of it, if that is less."""
    return legible.send(f"{text}\r\n", f"{shown or text}\r\n")


def _tagged(tag: bytes, text: str) -> Send:
    return _line(f"{tag.decode()} {text}")


def _complaint(tag: bytes) -> str:
    if tag.upper() == b"LOGIN":
        return "BAD Put a tag before the command: a LOGIN user password"
    return "BAD Not a command"


def _credentials(login: Argument, password: Argument) -> Credentials:
    """Where a lone backslash stood, what was sent goes along: the login or the password may be meant so."""
    if login.verbatim is None and password.verbatim is None:
        return Credentials(login.octets, password.octets)
    sent = tuple(a.octets if a.verbatim is None else a.verbatim for a in (login, password))
    return Credentials(login.octets, password.octets, verbatim=(sent[0], sent[1]))


def _for_the_mailbox(reading: Reading | None) -> bytes | None:
    """The tag of what only a mailbox could answer; None where the front answers, or closes, whatever the state."""
    match reading:
        case Command(tag, name) | LiteralAwaited(tag, name):
            return None if name in _BEFORE_LOGIN else tag
        case LiteralTooLong(tag, synchronizing=True) | Malformed(tag, in_step=True):  # a message, or a search
            return tag
        case _:
            return None
