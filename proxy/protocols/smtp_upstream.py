"""PURE: SMTP submission until the login, Exchange's side (RFC 5321, 3207, 4954; FACTS 2.4).

What it is: EHLO, STARTTLS, EHLO again, `AUTH XOAUTH2` and the token, always on two lines. What it is not: the sending
of a message; after the login the stream is relayed. Called through the record in `smtp.py`.
"""

from __future__ import annotations

import enum
import re

from proxy.login import Refusal
from proxy.protocols import sasl
from proxy.protocols.dialogue import (
    Action,
    Failed,
    InputBuffer,
    LineTooLong,
    Ready,
    Send,
    StartTLS,
    UpstreamSettings,
)
from proxy.protocols.server_text import challenge_text, heard, without_token

MAX_REPLY_LINE_OCTETS = sasl.MAX_RESPONSE_OCTETS  # RFC 5321 §4.5.3.1.5 says 512; an XOAUTH2 error challenge is longer
MAX_REPLY_LINES = 64  # Exchange's longest, the EHLO list, has 10 (FACTS 2.2)
MAX_DOMAIN_OCTETS = 255  # RFC 5321 §4.5.3.1.2

_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)  # RFC 5321 §4.2: Reply-line
_DOMAIN = re.compile(r"(?i:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)")  # §4.1.2: Domain
_ADDRESS_LITERAL = re.compile(r"\[(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|IPv6:[0-9A-Fa-f:.]+)\]")  # §4.1.3
_BUSY = re.compile(r"432|.*(?:too many|concurrent|thread limit)", re.IGNORECASE)  # FACTS 3.1


class State(enum.Enum):
    GREETING = "greeting"
    EHLO_SENT = "ehlo_sent"
    """In plain text."""
    STARTTLS_SENT = "starttls_sent"
    STARTING_TLS = "starting_tls"
    SECURE_EHLO_SENT = "secure_ehlo_sent"
    """Over TLS: the only state that leads to the token."""
    AUTH_SENT = "auth_sent"
    TOKEN_SENT = "token_sent"  # noqa: S105 - a state's name
    CHALLENGE_ANSWERED = "challenge_answered"
    READY = "ready"
    FAILED = "failed"


class SmtpUpstream:
    """Exchange's side. Implements `dialogue.Upstream`."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self.state = State.GREETING
        self._settings = settings
        self._input = InputBuffer()
        self._code = b""
        self._lines: list[str] = []
        """The reply so far."""
        self._extensions: tuple[str, ...] = ()
        self._challenge = ""

    def opened(self) -> list[Action]:
        return []

    def received(self, data: bytes) -> list[Action]:
        if self.state is State.FAILED:
            return []
        self._input.feed(data)
        if self.state is State.STARTING_TLS:
            return self._fail(Refusal.TRY_LATER, "the server sent bytes between STARTTLS and TLS")
        actions: list[Action] = []
        try:
            while self._reading() and (line := self._input.line(MAX_REPLY_LINE_OCTETS)) is not None:
                if self._settings.watched:
                    actions.append(heard(line, self._settings.bearer))
                actions += self._collect(line)
        except LineTooLong:
            actions += self._fail(Refusal.TRY_LATER, "the server sent an endless line")
        return actions

    def tls_started(self) -> list[Action]:
        """What was said in plain text is forgotten: EHLO again (RFC 3207 §4.2)."""
        return self._ehlo(State.SECURE_EHLO_SENT)

    def unread(self) -> bytes:
        return self._input.drain()

    def _reading(self) -> bool:
        return self.state not in (State.STARTING_TLS, State.READY, State.FAILED)

    def _collect(self, line: bytes) -> list[Action]:
        """One line of a reply; the last one has no hyphen (RFC 5321 §4.2.1)."""
        reply_line = _REPLY_LINE.fullmatch(line)
        if reply_line is None or (self._lines and reply_line[1] != self._code):
            return self._fail(Refusal.TRY_LATER, f"not an SMTP reply: {line.decode('ascii', 'replace')}")
        self._code, hyphen, text = reply_line.groups(b"")
        self._lines.append(text.decode("ascii", "replace"))
        if len(self._lines) > MAX_REPLY_LINES:
            return self._fail(Refusal.TRY_LATER, "the server sent an endless reply")
        if hyphen == b"-":
            return []
        lines, self._lines = self._lines, []
        return self._answer(self._code.decode(), lines)

    def _answer(self, code: str, lines: list[str]) -> list[Action]:
        match self.state, code:
            case State.GREETING, "220":
                return self._ehlo(State.EHLO_SENT if self._settings.starttls else State.SECURE_EHLO_SENT)
            case State.EHLO_SENT, "250" if "STARTTLS" in (line.upper() for line in lines[1:]):
                self.state = State.STARTTLS_SENT
                return [Send(b"STARTTLS\r\n")]
            case State.EHLO_SENT, "250":
                return self._fail(Refusal.MISCONFIGURED, "the server offers no STARTTLS")
            case State.STARTTLS_SENT, "220" if self._input:
                return self._fail(Refusal.TRY_LATER, "the server sent bytes between STARTTLS and TLS")
            case State.STARTTLS_SENT, "220":
                self.state = State.STARTING_TLS
                return [StartTLS()]
            case State.SECURE_EHLO_SENT, "250":
                return self._authenticate(lines[1:])
            case State.AUTH_SENT, "334":
                self.state = State.TOKEN_SENT
                return [Send(sasl.xoauth2(self._settings.bearer) + b"\r\n", secret=True)]
            case State.TOKEN_SENT, "334":  # the reason as base64 JSON; an empty line fetches the verdict
                self.state = State.CHALLENGE_ANSWERED
                self._challenge = challenge_text(lines[0].encode())
                return [Send(b"\r\n")]
            case State.TOKEN_SENT, "235":
                self.state = State.READY
                return [Ready(without_token(" ".join(lines), self._settings.bearer), self._extensions)]
            case _:
                return self._refused(" ".join(filter(None, [code, *lines, self._challenge])))

    def _ehlo(self, sent: State) -> list[Action]:
        self.state = sent
        return [Send(f"EHLO {_ehlo_name(self._settings.hostname)}\r\n".encode("ascii"))]

    def _authenticate(self, extensions: list[str]) -> list[Action]:
        # They are promised to programs that did not log in yet.
        harmless = (without_token(line, self._settings.bearer) for line in extensions)
        self._extensions = tuple(filter(None, harmless))
        words = (line.upper().split() for line in self._extensions)
        if not any(keyword == "AUTH" and "XOAUTH2" in mechanisms for keyword, *mechanisms in words):
            return self._fail(Refusal.MISCONFIGURED, "the server offers no AUTH XOAUTH2")
        self.state = State.AUTH_SENT
        return [Send(b"AUTH XOAUTH2\r\n")]

    def _refused(self, said: str) -> list[Action]:
        """Sort a reply that leads nowhere by its code and state (FACTS 2.4, 3.1)."""
        match self.state, said[0]:
            case _, "4" if _BUSY.match(said):
                return self._fail(Refusal.BUSY, said)
            case _, "4":
                return self._fail(Refusal.TRY_LATER, said)
            case State.AUTH_SENT | State.TOKEN_SENT | State.CHALLENGE_ANSWERED, "5":
                return self._fail(Refusal.REFUSED_UPSTREAM, said)
            case State.STARTTLS_SENT, "5":
                return self._fail(Refusal.MISCONFIGURED, f"STARTTLS refused: {said}")
            case _:
                return self._fail(Refusal.TRY_LATER, f"unexpected in state {self.state.value}: {said}")

    def _fail(self, refusal: Refusal, detail: str) -> list[Action]:
        self.state = State.FAILED
        return [Failed(refusal, without_token(detail, self._settings.bearer))]


def _ehlo_name(hostname: str) -> str:
    """How we introduce ourselves (CLIENTS 1.3)."""
    fits = _DOMAIN.fullmatch(hostname) or _ADDRESS_LITERAL.fullmatch(hostname)
    return hostname if fits and len(hostname) <= MAX_DOMAIN_OCTETS else "[127.0.0.1]"
