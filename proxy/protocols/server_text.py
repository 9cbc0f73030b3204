"""PURE: what a server said about our token, made fit for the log.

What it is: three readings of a server's words that the upstream dialogues share. What it is not: the meaning of those
words; `explanations` knows that. Called by `pop3.py`, `smtp_upstream.py` and `imap_upstream.py`.
"""

from __future__ import annotations

import re

from proxy.login import Bearer
from proxy.protocols import sasl
from proxy.protocols.dialogue import PRINTABLE_TEXT_OCTETS, Heard, printable

# No server writes such words, but one that echoes half a token would: 37 is longer than a GUID.
_LONG_WORD = re.compile(r"\S{100,}|[\w~+=-]{37,}")


HEARD_OCTETS = 500  # of a line, in the log of what was said: Exchange's capabilities are below (FACTS 2.2)


def without_token(text: str, bearer: Bearer, limit: int = PRINTABLE_TEXT_OCTETS) -> str:
    """One line of printable ASCII, at most `limit` long, without the token even where the server echoes it."""
    for spelling in _spellings(bearer):
        text = text.replace(spelling, "...")
    return printable(_LONG_WORD.sub("...", text), limit)


def heard(line: bytes, bearer: Bearer) -> Heard:
    """What a server said, as a log may have it."""
    return Heard(without_token(line.decode("ascii", "replace"), bearer, HEARD_OCTETS))


def holds_token(octets: bytes, bearer: Bearer) -> bool:
    """Whether the server says our token back: such octets are not handed on."""
    return any(spelling.encode() in octets for spelling in _spellings(bearer))


def challenge_text(challenge: bytes) -> str:
    """What an XOAUTH2 error challenge says: base64 JSON (FACTS 2.3), or else the challenge itself."""
    try:
        return sasl.decode(challenge).decode("ascii", "replace")
    except sasl.BadResponse:
        return challenge.decode("ascii", "replace")


def _spellings(bearer: Bearer) -> tuple[str, str]:
    """The token as it is, and as we say it."""
    return bearer.token, sasl.xoauth2(bearer).decode()
