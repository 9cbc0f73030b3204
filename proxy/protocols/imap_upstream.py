"""PURE: IMAP's upstream, the login at Exchange with XOAUTH2 (FACTS 2.2, 2.3; RFC 9051, RFC 4959).

What it is: a client from the greeting to a probed login. Exchange may accept a token and then refuse every command
that needs the mailbox, so `Ready` comes only after CAPABILITY and NAMESPACE have been answered (CLIENTS decision 4).
What it is not: it chooses no token, retries nothing and reads no mail. `network/session.py` calls it, as
`imap.IMAP.upstream`.
"""

from __future__ import annotations

import enum
import re

from proxy.login import Refusal
from proxy.protocols import sasl
from proxy.protocols.dialogue import (
    SECRET,
    Action,
    Failed,
    InputBuffer,
    LineTooLong,
    Ready,
    Send,
    StartTLS,
    UpstreamSettings,
)
from proxy.protocols.imap_grammar import Response, ResponseReader
from proxy.protocols.server_text import challenge_text, heard, holds_token, without_token

MAX_UNTAGGED_OCTETS = 65_536  # what may be kept for the mail program during the probe; Exchange sends nothing
MAX_CAPABILITIES = 128  # Exchange has some 20 (CLIENTS 2.2)

_STARTTLS = b"F1"  # our tags; the mail program's own come only after us
_AUTHENTICATE = b"F2"
_CAPABILITY = b"F3"
_NAMESPACE = b"F4"
_TAGS = frozenset({b"*", _STARTTLS, _AUTHENTICATE, _CAPABILITY, _NAMESPACE})

_CODE = re.compile(rb"\A\[([^\]]*)\] ?")
_CAPABILITY_ATOM = re.compile(r"[A-Za-z0-9=+._/:-]{1,64}")

_BUSY = ("throttled", "[limit]", "[inuse]", "too many")  # FACTS 3.2, RFC 5530 §3
_LATER = (
    *("unavailable", "[serverbug]", "temporar", "try again"),  # RFC 5530 §3
    "not connected",  # "User is authenticated but not connected.": the token is right (FACTS 2.3; CLIENTS 3.1, class G)
)


class UpstreamState(enum.Enum):
    GREETING_AWAITED = "greeting awaited"
    STARTTLS_SENT = "starttls sent"
    STARTING_TLS = "starting tls"
    MECHANISM_SENT = "mechanism sent"
    TOKEN_SENT = "token sent"  # noqa: S105 - a state's name
    ERROR_ACKNOWLEDGED = "error acknowledged"
    PROBE_SENT = "probe sent"
    DONE = "done"


class ImapUpstream:
    """One connection's upstream. `Upstream` in `dialogue.py` tells what each input means."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._state = UpstreamState.GREETING_AWAITED
        self._start_over()

    def _start_over(self) -> None:
        """Nothing was heard yet; what was heard before TLS is forgotten (RFC 9051 §6.2.1)."""
        self._input = InputBuffer()
        self._responses = ResponseReader(self._input)
        self._untagged = bytearray()
        self._challenge = ""
        self._welcome = ""
        self._capabilities: tuple[str, ...] = ()
        self._probes_open = {_CAPABILITY, _NAMESPACE}

    @property
    def state(self) -> UpstreamState:
        return self._state

    def opened(self) -> list[Action]:
        return []

    def received(self, data: bytes) -> list[Action]:
        if self._state is UpstreamState.STARTING_TLS and data:
            return self._injected()
        self._input.feed(data)
        actions: list[Action] = []
        while self._state not in (UpstreamState.STARTING_TLS, UpstreamState.DONE):
            try:
                response = self._responses.next()
            except LineTooLong:
                return [*actions, *self._fail(Refusal.TRY_LATER, "upstream sent an over-long response")]
            if response is None:
                break
            if self._settings.watched:
                actions.append(heard(response.octets, self._settings.bearer))
            actions += self._hear(response)
        return actions

    def tls_started(self) -> list[Action]:
        self._start_over()
        return self._authenticate(one_line=True)

    def unread(self) -> bytes:
        return self._input.drain()

    def _hear(self, response: Response) -> list[Action]:
        match self._state, response.tag:
            case UpstreamState.GREETING_AWAITED, _:
                return self._greeted(response)
            case _, b"*":
                return self._informed(response)
            case UpstreamState.STARTTLS_SENT, tag if tag == _STARTTLS:
                return self._start_tls(response)
            case UpstreamState.MECHANISM_SENT, b"+":
                self._state = UpstreamState.TOKEN_SENT
                return [Send(sasl.xoauth2(self._settings.bearer) + b"\r\n", secret=True)]
            case UpstreamState.TOKEN_SENT, b"+":
                self._state = UpstreamState.ERROR_ACKNOWLEDGED
                self._challenge = challenge_text(response.argument)
                return [Send(b"\r\n")]  # an error; the tagged NO follows our empty answer (FACTS 2.3)
            case (
                UpstreamState.MECHANISM_SENT | UpstreamState.TOKEN_SENT | UpstreamState.ERROR_ACKNOWLEDGED,
                tag,
            ) if tag == _AUTHENTICATE:
                return self._authenticated(response)
            case UpstreamState.PROBE_SENT, tag if tag in self._probes_open:
                return self._probed(response)
            case _:
                return self._fail(Refusal.TRY_LATER, f"unexpected response: {self._said(response)}")

    def _greeted(self, response: Response) -> list[Action]:
        match response.tag, response.word:
            case b"*", b"OK":
                if self._settings.starttls:
                    self._state = UpstreamState.STARTTLS_SENT
                    return [Send(_STARTTLS + b" STARTTLS\r\n")]
                code = _CODE.match(response.text)
                known = code[1].upper().split() if code else []
                return self._authenticate(one_line=b"CAPABILITY" not in known or b"SASL-IR" in known)
            case b"*", b"BYE":
                return self._refused(response, Refusal.TRY_LATER)
            case b"*", b"PREAUTH":
                return self._fail(Refusal.MISCONFIGURED, "upstream claims that somebody is logged in already (PREAUTH)")
            case _:
                return self._fail(Refusal.MISCONFIGURED, f"not an IMAP greeting: {self._said(response)}")

    def _start_tls(self, response: Response) -> list[Action]:
        if response.word != b"OK":
            return self._refused(response, Refusal.MISCONFIGURED)
        if len(self._input):
            return self._injected()
        self._state = UpstreamState.STARTING_TLS
        return [StartTLS()]

    def _authenticate(self, *, one_line: bool) -> list[Action]:
        """The token goes with the command (RFC 4959), unless upstream is known not to take it so."""
        command = _AUTHENTICATE + b" AUTHENTICATE XOAUTH2"
        shown = command + b" " + SECRET + b"\r\n"
        if not one_line:
            self._state = UpstreamState.MECHANISM_SENT
            return [Send(command + b"\r\n")]
        self._state = UpstreamState.TOKEN_SENT
        return [Send(command + b" " + sasl.xoauth2(self._settings.bearer) + b"\r\n", secret=True, shown=shown)]

    def _authenticated(self, response: Response) -> list[Action]:
        if response.word != b"OK":
            return self._refused(response, Refusal.REFUSED_UPSTREAM)
        text = _CODE.sub(b"", response.text, count=1).decode("ascii", "replace")
        self._welcome = without_token(text, self._settings.bearer)
        self._state = UpstreamState.PROBE_SENT
        return [Send(_CAPABILITY + b" CAPABILITY\r\n" + _NAMESPACE + b" NAMESPACE\r\n")]

    def _probed(self, response: Response) -> list[Action]:
        """An upstream without NAMESPACE refuses it for itself; any other refusal is of the mailbox."""
        if response.word != b"OK" and (response.tag == _CAPABILITY or _verdict(response) is not None):
            return self._refused(response, Refusal.TRY_LATER)
        self._probes_open.remove(response.tag)
        if self._probes_open:
            return []
        self._state = UpstreamState.DONE
        return [Ready(self._welcome, self._capabilities, bytes(self._untagged))]

    def _informed(self, response: Response) -> list[Action]:
        """An untagged response: the probe's own answers are ours, the others the mail program's, but not our token."""
        if response.word == b"BYE":
            return self._refused(response, Refusal.TRY_LATER)
        if response.word == b"CAPABILITY":
            atoms = response.text.decode("ascii", "replace").split()
            self._capabilities = tuple(a for a in atoms if _CAPABILITY_ATOM.fullmatch(a))[:MAX_CAPABILITIES]
        elif response.word != b"NAMESPACE" and not holds_token(response.octets, self._settings.bearer):
            self._untagged += response.octets
            if len(self._untagged) > MAX_UNTAGGED_OCTETS:
                return self._fail(Refusal.TRY_LATER, "upstream sent too much before the login was done")
        return []

    def _refused(self, response: Response, otherwise: Refusal) -> list[Action]:
        return self._fail(_verdict(response) or otherwise, self._said(response, self._challenge))

    def _injected(self) -> list[Action]:
        return self._fail(Refusal.TRY_LATER, "octets behind the answer to STARTTLS: somebody injects plain text")

    def _fail(self, refusal: Refusal, detail: str) -> list[Action]:
        self._state = UpstreamState.DONE
        return [Failed(refusal, detail)]

    def _said(self, response: Response, challenge: str = "") -> str:
        """Upstream's words for the log, without the tag, and what its error challenge said before."""
        words = response.argument if response.tag in _TAGS else response.octets
        return without_token(f"{words.decode('ascii', 'replace')} {challenge}", self._settings.bearer)


def _verdict(response: Response) -> Refusal | None:
    """What a refusal's own words say; None if they say nothing that we know."""
    text = response.text.decode("ascii", "replace").lower()
    if any(word in text for word in _BUSY):
        return Refusal.BUSY
    if any(word in text for word in _LATER):
        return Refusal.TRY_LATER
    return None
