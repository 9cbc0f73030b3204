"""Messages that show whether a byte was changed on the way. Not a test."""

from __future__ import annotations

import random
import uuid

# Complete, so that no server adds a header of its own in between.
_HEAD = """\
From: Sender <sender@contoso.com>\r
To: Reader <reader@contoso.com>\r
Subject: {subject}\r
Date: Tue, 24 Nov 2026 10:00:00 +0000\r
Message-ID: <{identity}@contoso.com>\r
MIME-Version: 1.0\r
Content-Type: application/octet-stream\r
Content-Transfer-Encoding: 8bit\r
\r
"""

_ALL_OCTETS = bytes(octet for octet in range(1, 256) if octet not in b"\r\n")
AWKWARD_BODY = b"\r\n".join(
    [
        b".",  # dots, which SMTP and POP3 stuff
        b"..",
        b"...three",
        b". ",
        b"",
        _ALL_OCTETS,  # eight bits and control characters
        "Grüße, €, 日本語".encode(),
        "Grüße in Latin-1".encode("latin-1"),
        b"x" * 997,  # just within RFC 5321 §4.5.3.1.6
        b"y" * 70_000,  # far beyond it, and longer than any buffer of ours
        b"From the start of a line, and trailing blanks \t ",
        b"a1 OK not a reply",
        b"-ERR not one either",
        b"535 5.7.8 nor this",
        b".",
        b"",
    ]
)


def message(body: bytes, subject: str = "awkward") -> bytes:
    """A message with CRLF line ends; every one is different."""
    return _HEAD.format(subject=subject, identity=uuid.uuid4()).encode() + body


def large_body(octets: int) -> bytes:
    """Lines of random octets, some with dots in front; the same ones in every run."""
    noise = random.Random(20).randbytes(octets).translate(None, b"\r\n\0")
    lines = (noise[start : start + 800] for start in range(0, len(noise), 800))
    return b"\r\n".join(lines) + b"\r\n"
