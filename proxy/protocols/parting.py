"""PURE: when a relayed session may be ended without harm, and what is said then: the daemon stops.

What it is: for each protocol a reading of the last short piece that each side sent. Where upstream has answered all
that was asked, nothing is half written, and IMAP and SMTP have words for a goodbye (RFC 9051 §7.1.5, RFC 5321 §3.8).
What it is not: a parser of the stream. It says None wherever more could be to come, and wherever it cannot know; a
session is then left to go on for a while. The records of the protocols name the reader, and `network/relay.py` asks it.
"""

from __future__ import annotations

import re

from proxy.protocols.dialogue import STOPPING
from proxy.protocols.overheard import idles

_IMAP_BYE = f"* BYE {STOPPING.text}.\r\n".encode()
_SMTP_BYE = f"421 4.3.2 {STOPPING.text}.\r\n".encode()

# One whole command, or the DONE that ends IDLE and has no tag of its own (RFC 2177 §3); no literal begins
_IMAP_COMMAND = re.compile(rb"(?:(?i:DONE)|(?P<tag>[^ \r\n*+]+) [A-Za-z]+(?: [^\r\n]*)?)(?<!\})\r\n")
_IMAP_COMPLETION = re.compile(rb"(?:\A|\n)(?P<tag>[^ \r\n*+]+) (?i:OK|NO|BAD)(?: [^\r\n]*)?\r\n\Z")

_POP3_COMMAND = re.compile(rb"(?P<verb>[A-Za-z]{3,4})(?P<argument> [^\r\n]*)?\r\n")
_POP3_LISTS = (b"RETR", b"TOP", b"CAPA")  # and LIST and UIDL without a number (RFC 1939 §5, RFC 2449 §5)
_POP3_MAY_LIST = (b"LIST", b"UIDL")

# RFC 5321 §4.2: whole replies; 354 asks for a message, and 334 for a response
_SMTP_REPLIES = re.compile(rb"(?:(?:\d{3}-[^\r\n]*\r\n)*(?!354|334)\d{3}(?: [^\r\n]*)?\r\n)+")
_SMTP_LAST_LINES = re.compile(rb"^\d{3}(?: |\r)", re.MULTILINE)


def imap(to_upstream: bytes, to_client: bytes) -> bytes | None:
    """The one command was completed, or the program idles."""
    if not to_upstream and not to_client:  # nothing was asked yet
        return _IMAP_BYE
    if idles(to_upstream, to_client):
        return _IMAP_BYE
    command, completion = _IMAP_COMMAND.fullmatch(to_upstream), _IMAP_COMPLETION.search(to_client)
    if command is None or completion is None:
        return None
    return _IMAP_BYE if command["tag"] in (None, completion["tag"]) else None


def pop3(to_upstream: bytes, to_client: bytes) -> bytes | None:
    """The one command was answered. POP3 has no words for a goodbye: they would be taken for the next answer."""
    if not to_upstream and not to_client:
        return b""
    command = _POP3_COMMAND.fullmatch(to_upstream)
    if command is None or not to_client.endswith(b"\r\n"):
        return None
    verb = command["verb"].upper()
    lists = verb in _POP3_LISTS or (verb in _POP3_MAY_LIST and not (command["argument"] or b"").strip())
    answered = to_client.startswith(b"-ERR") or not lists or to_client.endswith(b"\r\n.\r\n")
    return b"" if answered else None


def smtp(to_upstream: bytes, to_client: bytes) -> bytes | None:
    """As many replies as there were commands; or one, for a message that was long, or its end."""
    if not to_upstream and not to_client:
        return _SMTP_BYE
    if not _SMTP_REPLIES.fullmatch(to_client):
        return None
    replies = len(_SMTP_LAST_LINES.findall(to_client))
    is_message = not to_upstream or to_upstream.endswith(b"\r\n.\r\n") or to_upstream == b".\r\n"
    return _SMTP_BYE if replies == (1 if is_message else to_upstream.count(b"\n")) else None
