"""PURE: what a server said about our token, made fit for the log.

What it is: two readings of a server's words that the upstream dialogues share. What it is not: the meaning of those
words; `explanations` knows that. Called by `pop3.py`, `smtp_upstream.py` and `imap_upstream.py`.
"""

from __future__ import annotations

import re

from proxy.login import Bearer
from proxy.protocols import sasl
from proxy.protocols.dialogue import printable

_LONG_WORD = re.compile(r"\S{100,}")  # no server writes such a word, but one that echoes half a token would


def without_token(text: str, bearer: Bearer) -> str:
    """One line of printable ASCII, without the token even where the server echoes it."""
    for secret in (bearer.token, sasl.xoauth2(bearer).decode()):
        text = text.replace(secret, "...")
    return printable(_LONG_WORD.sub("...", text))


def challenge_text(challenge: bytes) -> str:
    """What an XOAUTH2 error challenge says: base64 JSON (FACTS 2.3), or else the challenge itself."""
    try:
        return sasl.decode(challenge).decode("ascii", "replace")
    except sasl.BadResponse:
        return challenge.decode("ascii", "replace")
