"""PURE: who speaks something else at a mail port: TLS where none was asked for, HTTP, a balancer's PROXY header.

What it is: the words by which POP3's and SMTP's fronts know them, and the octet by which all three do. What it is not:
an answer; a stranger is closed upon without an echo (CLIENTS 1.1). IMAP's grammar knows its own, since a tag may be
any word.
"""

from __future__ import annotations

TLS_CLIENT_HELLO = b"\x16"  # RFC 8446 §5.1: the first octet of a handshake record
TLS_ON_PLAIN_PORT = "tls_on_plain_port"
"""The `Close` reason for it: a TLS program spoke after our greeting; an `auto` listener learns from that."""

_PROXY_WORDS = (b"\0", b"PROXY")  # the end of a binary PROXY header, or the whole of a written one
_HTTP_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT")


def stranger(verb: bytes) -> str | None:
    """The `Close` reason for a command with this upper-case verb; None if it may be mail."""
    if verb in _PROXY_WORDS:
        return "proxy_header"
    return "http" if verb in _HTTP_METHODS else None
