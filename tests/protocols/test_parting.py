"""Parting: a session is only called at rest where upstream owes nothing, and what is then said cannot be mistaken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocols import PROTOCOLS, parting
from proxy.protocols.dialogue import STOPPING

BYE = f"* BYE {STOPPING.text}.\r\n".encode()
SEE_YOU = f"421 4.3.2 {STOPPING.text}.\r\n".encode()

AT_REST = [
    ("imap", b"", b""),
    ("imap", b"a5 NOOP\r\n", b"a5 OK done\r\n"),
    ("imap", b"a5 SELECT inbox\r\n", b"* 3 EXISTS\r\n* 0 RECENT\r\na5 OK [READ-WRITE] done\r\n"),
    ("imap", b"a5 IDLE\r\n", b"+ idling\r\n"),
    ("imap", b"a5 IDLE\r\n", b"* 4 EXISTS\r\n"),
    ("imap", b"DONE\r\n", b"a5 OK IDLE completed\r\n"),
    ("imap", b"a5 FETCH 9 FLAGS\r\n", b"a5 NO\r\n"),
    ("pop3", b"", b""),
    ("pop3", b"STAT\r\n", b"+OK 2 320\r\n"),
    ("pop3", b"LIST 2\r\n", b"+OK 2 200\r\n"),
    ("pop3", b"LIST\r\n", b"+OK\r\n1 120\r\n.\r\n"),
    ("pop3", b"RETR 7\r\n", b"-ERR no such message\r\n"),
    ("smtp", b"", b""),
    ("smtp", b"MAIL FROM:<a@b>\r\n", b"250 2.1.0 Ok\r\n"),
    ("smtp", b"EHLO x\r\n", b"250-mx\r\n250 SIZE\r\n"),
    ("smtp", b"", b"250 2.0.0 queued\r\n"),
    ("smtp", b"the end\r\n.\r\n", b"250 2.0.0 queued\r\n"),
    ("smtp", b".\r\n", b"554 no\r\n"),
    ("smtp", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", b"250 Ok\r\n250\r\n"),
]
UNDER_WAY = [
    ("imap", b"a5 NOOP\r\n", b"a4 OK done\r\n"),
    ("imap", b"a5 NOOP\r\n", b"* 3 EXISTS\r\n"),
    ("imap", b"a5 NOOP\r\na6 NOOP\r\n", b"a5 OK done\r\n"),
    ("imap", b"a5 APPEND inbox {310}\r\n", b"+ go on\r\n"),
    ("imap", b"a5 APPEND inbox {310+}\r\n", b"a5 OK\r\n"),
    ("imap", b"a5 APPEND inbox {310}\r\n", b"a5 OK\r\n"),
    ("imap", b"a5 FETCH 1 BODY[]\r\n", b"* 1 FETCH (BODY[] {20}\r\n"),
    ("imap", b"a5 FETCH 1 BODY[]\r\n", b"a5 OK half a li"),
    ("imap", b"the rest of a mail\r\n", b"* 1 EXISTS\r\n"),
    ("imap", b"a5 FETCH 1 (FLAGS)\r\n", b""),
    ("imap", b"", b"x5 OK done\r\n"),
    ("pop3", b"RETR 7\r\n", b"+OK 120 octets\r\n"),
    ("pop3", b"LIST\r\n", b"+OK 2 messages\r\n"),
    ("pop3", b"UIDL \r\n", b"+OK\r\n1 abc\r\n"),
    ("pop3", b"STAT\r\nLIST\r\n", b"+OK 2 320\r\n"),
    ("pop3", b"STAT\r\n", b"+OK 2 3"),
    ("pop3", b"", b"+OK\r\n"),
    ("smtp", b"DATA\r\n", b"354 go on\r\n"),
    ("smtp", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", b"250 Ok\r\n250 Ok\r\n354 go on\r\n"),
    ("smtp", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", b"250 Ok\r\n"),
    ("smtp", b"EHLO x\r\n", b"250-mx\r\n"),
    ("smtp", b"MAIL FROM:<a@b>\r\n", b""),
    ("smtp", b"a line of a mail", b"250 Ok\r\n"),
]
WORDS = {"imap": BYE, "pop3": b"", "smtp": SEE_YOU}


@pytest.mark.parametrize(("protocol", "up", "down"), AT_REST)
def test_at_rest(protocol: str, up: bytes, down: bytes) -> None:
    assert PROTOCOLS[protocol].parting(up, down) == WORDS[protocol]


@pytest.mark.parametrize(("protocol", "up", "down"), UNDER_WAY)
def test_under_way(protocol: str, up: bytes, down: bytes) -> None:
    assert PROTOCOLS[protocol].parting(up, down) is None


@given(up=st.binary(), down=st.binary(min_size=1))
def test_only_whole_lines_of_upstreams_end_a_session(up: bytes, down: bytes) -> None:
    for read in (parting.imap, parting.pop3, parting.smtp):
        assert read(up, down) is None or down.endswith(b"\r\n")
