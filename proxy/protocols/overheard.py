"""PURE: what upstream says of the session itself after the login, read in passing; and the goodbye it left unsaid.

What it is: readers of one short piece of the relayed stream, one for each protocol, and IMAP's last words to an idle
program. What it is not: a parser of the stream. A piece counts only if it is nothing but one or two refusals, from its
first octet to its last, so that the text of a mail is not taken for one. The relay shows the pieces, the records of the
protocols name the reader, and `network/session.py` acts on what was overheard.
"""

from __future__ import annotations

import re

from proxy.protocols.dialogue import Overheard, printable

MAX_BACK_OFF_S = 300  # FACTS 3.2: Exchange names up to five minutes, and named fifty once
DEFAULT_BACK_OFF_S = 30  # throttled, and no time named (SMTP never does): half of Exchange's minute (FACTS 3.1)

_SUGGESTED = re.compile(rb"Suggested Backoff Time: (\d{1,9})\d* milliseconds", re.IGNORECASE)

_TAG = rb"[!#$&',-\[\]-z|}~]{1,64}+"  # RFC 9051 §9: 1*<any ASTRING-CHAR except "+">

# RFC 9051 §9: resp-cond-state = ("OK" / "NO" / "BAD") SP resp-text, tagged or not; resp-cond-bye = "BYE" SP resp-text
_IMAP_REFUSALS = re.compile(rb"(?:(?:%b|\*) (?i:NO|BAD|BYE) [^\r\n\0]+\r\n){1,2}" % _TAG)
_IMAP_KNOWN = re.compile(
    rb"(?P<throttled>\S+ \S+ (?:\[[^\]]*\] )?Request is throttled)"  # FACTS 3.2
    rb"|\* BYE Session invalidated\b.*AccessTokenExpired"  # FACTS 3.3, as the next
    rb"|\S+ BAD Command received in Invalid state"
    rb"|\S+ BAD User is authenticated but not connected",  # FACTS 2.3
    re.IGNORECASE,
)

# RFC 1939 §3: "-ERR" and, optionally, more
_POP3_REFUSALS = re.compile(rb"(?:(?i:-ERR) [^\r\n\0]+\r\n){1,2}")
_POP3_KNOWN = re.compile(rb"(?P<throttled>-ERR (?:\[[^\]]*\] )?Request is throttled)", re.IGNORECASE)  # FACTS 3.2

# RFC 5321 §4.2: Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
_SMTP_REFUSALS = re.compile(rb"(?:[45]\d\d[ -][^\r\n\0]+\r\n){1,2}")
_SMTP_KNOWN = re.compile(
    rb"(?P<throttled>432[ -]4\.3\.2\b|4\d\d[ -].*(?:throttl|concurrent))"  # FACTS 3.1, as the next
    rb"|554[ -]5\.2\.0\b.*(?:SubmissionQuotaExceeded|SendAsDenied)"  # FACTS 3.1, 2.4
    rb"|55\d[ -]5\.(?:2\.252|7\.60|2\.2)\b"  # FACTS 5 row 25; 3.1
    rb"|430[ -]4\.2\.0\b.*mailbox logon failure",  # FACTS 1.6
    re.IGNORECASE,
)

_LOGIN_THROTTLED = re.compile(rb"throttl|\b432 4\.3\.2\b", re.IGNORECASE)

_IDLE = re.compile(rb"%b (?i:IDLE)\r\n" % _TAG)  # RFC 2177 §3
# Whole responses as an idling program gets them, untagged or a continuation request; no BYE, and no literal begins
_BETWEEN_RESPONSES = re.compile(rb"(?:(?:\+|\* (?!(?i:BYE)\b))[^\r\n]*(?<!\})\r\n)+")
_LAST_WORDS = b"* BYE The mail server closed the connection; your program will connect again by itself.\r\n"


def overhear_imap(piece: bytes) -> Overheard | None:
    """Exchange throttles, the token of this session has expired, or it opens no mailbox (FACTS 3.2, 3.3, 2.3)."""
    return _overhear(piece, _IMAP_REFUSALS, _IMAP_KNOWN)


def overhear_pop3(piece: bytes) -> Overheard | None:
    """Exchange throttles (FACTS 3.2)."""
    return _overhear(piece, _POP3_REFUSALS, _POP3_KNOWN)


def overhear_smtp(piece: bytes) -> Overheard | None:
    """Exchange throttles, or takes no message of this sender, mailbox, or day (FACTS 3.1, 2.4, 1.6)."""
    return _overhear(piece, _SMTP_REFUSALS, _SMTP_KNOWN)


def login_back_off_s(said: str) -> float | None:
    """How long a refused login (`Failed.detail`) wants no further one of this mailbox; None if it is no throttling."""
    line = said.encode("ascii", "replace")
    return _back_off_s(line) if _LOGIN_THROTTLED.search(line) else None


def last_words(to_upstream: bytes, to_client: bytes) -> bytes:
    """IMAP's goodbye to a program that idles: some stop fetching if the connection just ends (CLIENTS 4).

    Nothing where it could be a part of something else, or where upstream has said its own.
    """
    return _LAST_WORDS if idles(to_upstream, to_client) else b""


def idles(to_upstream: bytes, to_client: bytes) -> bool:
    """Whether an IMAP program waits for news, and has whole ones only; by the last piece of each side."""
    return bool(_IDLE.fullmatch(to_upstream) and _BETWEEN_RESPONSES.fullmatch(to_client))


def _overhear(piece: bytes, refusals: re.Pattern[bytes], known: re.Pattern[bytes]) -> Overheard | None:
    """What one of the piece's lines is known to mean; of two, the one that asks for the longer pause."""
    if not refusals.fullmatch(piece):  # nearly always, and seen at the first octets
        return None
    said = [
        Overheard(printable(line), None if match["throttled"] is None else _back_off_s(line))
        for line in piece.splitlines()
        if (match := known.match(line))
    ]
    return max(said, key=lambda one: one.back_off_s or 0, default=None)


def _back_off_s(line: bytes) -> float:
    suggested = _SUGGESTED.search(line)
    return DEFAULT_BACK_OFF_S if suggested is None else min(int(suggested[1]) / 1000, MAX_BACK_OFF_S)
