"""PURE: POP3 until the login, Exchange's side (RFC 1939, 2595, 5034; FACTS 2.5).

What it is: a client from the greeting to the verdict on our token. What it is not: it chooses no token, retries nothing
and reads no mail. Called through the record in `pop3.py`.
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

MAX_REPLY_OCTETS = sasl.MAX_RESPONSE_OCTETS  # RFC 2449 §4 says 512; an XOAUTH2 error challenge may be longer
TRUSTED_TOKEN_CHARACTERS = 4_096  # longer tokens end in a protocol error at Exchange since July 2025 (FACTS 2.5)


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
        self._watched = settings.watched
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
                if self._watched:
                    actions.append(heard(line, self._bearer))
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
