"""PURE: SASL as three protocols need it: PLAIN and LOGIN (we are the server), XOAUTH2 (we are the client).

A mechanism is `start(initial_response)` and `next(response)` over decoded bytes. No initial response (None) differs
from an empty one (b""). Base64 and the protocol's own framing stay with the caller, but `decode` is the strict
reading that all of them share.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from proxy.login import Bearer, Credentials

MAX_RESPONSE_OCTETS = 12_288  # RFC 4954 §4: the longest base64 line a SASL exchange must carry

USERNAME_PROMPT = b"Username:"  # exactly these: Thunderbird compares their base64 literally (CLIENTS decision 6)
PASSWORD_PROMPT = b"Password:"

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class BadResponse(Exception):
    """The response cannot be read at all (not base64); the exchange ends with a protocol error."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this (base64 of it) and wait for a response."""

    data: bytes


Step = Challenge | Credentials
"""Credentials may be unfit (empty, with control characters): passdb refuses them as wrong."""


class Plain:
    """RFC 4616: one response, `authzid NUL authcid NUL passwd`."""

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.next(initial)

    def next(self, response: bytes) -> Step:
        match response.split(b"\0"):
            case [authorization_id, login, password]:
                return Credentials(login, password, b"" if authorization_id == login else authorization_id)
            case _:
                return Credentials(b"", b"")


class LoginMechanism:
    """LOGIN (draft-murchison-sasl-login): two prompts; a user name may come with the command."""

    def __init__(self) -> None:
        self._login: bytes | None = None

    def start(self, initial: bytes | None) -> Step:
        return Challenge(USERNAME_PROMPT) if initial is None else self.next(initial)

    def next(self, response: bytes) -> Step:
        if self._login is None:
            self._login = response
            return Challenge(PASSWORD_PROMPT)
        return Credentials(self._login, response)


Mechanism = Plain | LoginMechanism
MECHANISMS: dict[bytes, type[Plain] | type[LoginMechanism]] = {b"PLAIN": Plain, b"LOGIN": LoginMechanism}
"""By upper-case name, in the order in which they are announced."""


def decode(text: bytes) -> bytes:
    """Strict base64. Python skips what it does not know, and even its strict reading takes padding too many.

    Raises:
        BadResponse: not base64.
    """
    if not _BASE64.fullmatch(text):
        raise BadResponse
    return base64.b64decode(text)


def initial(argument: bytes) -> bytes:
    """The initial response of a command line: `=` stands for an empty one (RFC 4959 §3, RFC 4954 §4, RFC 5034 §4).

    Raises:
        BadResponse: not base64.
    """
    return b"" if argument == b"=" else decode(argument)


def xoauth2(bearer: Bearer) -> bytes:
    """The XOAUTH2 response, base64 on one line (FACTS 2.1)."""
    return base64.b64encode(f"user={bearer.user}\x01auth=Bearer {bearer.token}\x01\x01".encode())
