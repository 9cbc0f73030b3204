"""What is overheard in the relayed stream, what is not, and when IMAP's goodbye may be said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocols import PROTOCOLS
from proxy.protocols.dialogue import PRINTABLE_TEXT_OCTETS, Overheard
from proxy.protocols.overheard import (
    DEFAULT_BACK_OFF_S,
    MAX_BACK_OFF_S,
    last_words,
    login_back_off_s,
    overhear_imap,
    overhear_pop3,
    overhear_smtp,
)

Reader = Callable[[bytes], Overheard | None]

THROTTLED = b"Request is throttled. Suggested Backoff Time: 89117 milliseconds"
EXPIRED = b"* BYE Session invalidated - AccessTokenExpired\r\n"
QUOTA = b"554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed\r\n"
CONCURRENT = (
    b"432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending [Hostname=A]\r\n"
)

KNOWN: list[tuple[Reader, bytes, float | None]] = [
    (overhear_imap, b"a5 BAD %b\r\n" % THROTTLED, 89.117),
    (overhear_imap, b"1070 NO %b\r\n" % THROTTLED, 89.117),
    (overhear_imap, b"5.1 no [LIMIT] request IS throttled.\r\n", DEFAULT_BACK_OFF_S),
    (overhear_imap, b"* BYE %b\r\n" % THROTTLED, 89.117),
    (overhear_imap, b"* BAD %b\r\n" % THROTTLED, 89.117),
    (overhear_imap, EXPIRED, None),
    (overhear_imap, b"A7 BAD Command received in Invalid state.\r\n", None),
    (overhear_pop3, b"-ERR %b\r\n" % THROTTLED, 89.117),
    (overhear_pop3, b"-ERR [SYS/TEMP] Request is throttled.\r\n", DEFAULT_BACK_OFF_S),
    (overhear_smtp, b"432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded\r\n", DEFAULT_BACK_OFF_S),
    (overhear_smtp, CONCURRENT, DEFAULT_BACK_OFF_S),
    (overhear_smtp, b"421 4.3.2 Too many concurrent connections\r\n", DEFAULT_BACK_OFF_S),
    (overhear_smtp, b"451 4.7.500 Server busy, throttling\r\n", DEFAULT_BACK_OFF_S),
    (overhear_smtp, QUOTA, None),
    (overhear_smtp, b"554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException\r\n", None),
    (overhear_smtp, b"554 5.2.252 SendAsDenied; alice not allowed to send as bob\r\n", None),
    (overhear_smtp, b"550 5.7.60 SMTP; Client does not have permissions to send as this sender\r\n", None),
    (overhear_smtp, b"554 5.2.2 mailbox full\r\n", None),
    (overhear_smtp, b"430 4.2.0 STOREDRV; mailbox logon failure; Cannot open mailbox\r\n", None),
    (overhear_imap, b"a9 BAD User is authenticated but not connected.\r\n", None),
]
each_known = pytest.mark.parametrize(("overhear", "piece", "back_off_s"), KNOWN, ids=[str(k[1][:24]) for k in KNOWN])
each_reader = pytest.mark.parametrize("overhear", [overhear_imap, overhear_pop3, overhear_smtp])


def test_the_records_name_them() -> None:
    assert [PROTOCOLS[name].overhear for name in ("imap", "pop3", "smtp")] == [
        overhear_imap,
        overhear_pop3,
        overhear_smtp,
    ]
    assert PROTOCOLS["imap"].last_words is last_words
    assert PROTOCOLS["pop3"].last_words(b"a IDLE\r\n", b"+ idling\r\n") == b""


@pytest.mark.parametrize(
    ("said", "back_off_s"),
    [
        ("NO Request is throttled. Suggested Backoff Time: 5000 milliseconds", 5.0),
        ("(IN-USE) Request is throttled", DEFAULT_BACK_OFF_S),
        ("432 4.3.2 Concurrent connections limit exceeded", DEFAULT_BACK_OFF_S),
        ("(IN-USE) the mailbox is locked by another session", None),
        ("NO AUTHENTICATE failed.", None),
        ("", None),
    ],
)
def test_a_refused_login_may_want_a_pause(said: str, back_off_s: float | None) -> None:
    assert login_back_off_s(said) == back_off_s


@each_known
def test_what_is_known_is_overheard(overhear: Reader, piece: bytes, back_off_s: float | None) -> None:
    text = piece.decode().strip().replace("[", "(").replace("]", ")")
    assert overhear(piece) == Overheard(text, back_off_s)


def test_the_goodbye_behind_a_throttled_command_changes_nothing() -> None:
    """As Exchange sends it (FACTS 3.2)."""
    heard = overhear_imap(b"a5 BAD %b\r\n* BYE Connection closed. 14\r\n" % THROTTLED)
    assert heard == Overheard("a5 BAD " + THROTTLED.decode(), 89.117)


def test_of_two_the_longer_pause_counts() -> None:
    lines = [b"a%d NO Request is throttled. Suggested Backoff Time: %d milliseconds\r\n" % (n, n) for n in (7, 9)]
    for piece in (lines[0] + lines[1], lines[1] + lines[0]):
        heard = overhear_imap(piece)
        assert heard is not None
        assert heard.back_off_s == 0.009


def test_both_lines_of_a_long_reply_are_read() -> None:
    assert overhear_smtp(b"451-4.7.500 Not now\r\n451 4.7.500 You are throttled\r\n") == Overheard(
        "451 4.7.500 You are throttled", DEFAULT_BACK_OFF_S
    )


@pytest.mark.parametrize(
    ("suggested", "back_off_s"),
    [
        (b"0 milliseconds", 0),
        (b"1500 milliseconds", 1.5),
        (b"299961 milliseconds", 299.961),
        (b"3000000 milliseconds", MAX_BACK_OFF_S),
        (b"9" * 400 + b" milliseconds", MAX_BACK_OFF_S),
        (b"soon", DEFAULT_BACK_OFF_S),
        (b"-5 milliseconds", DEFAULT_BACK_OFF_S),
    ],
)
def test_the_pause_is_what_was_suggested_within_bounds(suggested: bytes, back_off_s: float) -> None:
    heard = overhear_pop3(b"-ERR Request is throttled. Suggested Backoff Time: %b\r\n" % suggested)
    assert heard is not None
    assert heard.back_off_s == back_off_s


@pytest.mark.parametrize(
    ("overhear", "piece"),
    [
        (overhear_smtp, b"421 4.3.2 Service not active\r\n"),  # passes (FACTS 2.4), and limits nobody
        (overhear_imap, b"a5 OK NOOP completed.\r\n"),
        (overhear_imap, b"a5 OK %b\r\n" % THROTTLED),
        (overhear_imap, b"a5 NO Mailbox Request is throttled does not exist\r\n"),
        (overhear_imap, b"* BYE Connection closed. 14\r\n"),
        (overhear_imap, b"+ idling\r\n"),
        (overhear_pop3, b"-ERR no such message\r\n"),
        (overhear_pop3, b"+OK %b\r\n" % THROTTLED),
        (overhear_smtp, b"250 2.0.0 OK, throttled\r\n"),
        (overhear_smtp, b"451 4.3.2 Temporary server error\r\n"),
        (overhear_smtp, b"554 5.2.0 STOREDRV.Submission.Exception:AnotherException\r\n"),
        (overhear_smtp, b"550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found\r\n"),
    ],
)
def test_other_replies_are_not(overhear: Reader, piece: bytes) -> None:
    assert overhear(piece) is None


# --- a mail cannot easily pose as a reply


def others_than(excluded: str) -> st.SearchStrategy[bytes]:
    return st.integers(0, 255).map(lambda octet: bytes([octet])).filter(lambda octet: octet not in excluded.encode())


@each_known
@given(data=st.data())
def test_an_octet_of_a_mail_in_front_hides_it(
    overhear: Reader, piece: bytes, back_off_s: float | None, data: st.DataObject
) -> None:
    """A letter before an IMAP tag is another tag: only what no tag can hold is told from it."""
    tagged = overhear is overhear_imap and not piece.startswith(b"*")
    tag = "".join(chr(octet) for octet in range(0x21, 0x7F) if chr(octet) not in '"%()*+\\{') if tagged else ""
    assert overhear(data.draw(others_than(tag)) + piece) is None


@each_known
@given(more=st.binary(min_size=1, max_size=40))
def test_so_does_anything_behind_it_but_another_refusal(
    overhear: Reader, piece: bytes, back_off_s: float | None, more: bytes
) -> None:
    assert overhear(piece + more) is None
    assert overhear(piece + b"\r\n") is None


@each_known
def test_and_a_third_line_or_a_line_without_its_end(overhear: Reader, piece: bytes, back_off_s: float | None) -> None:
    assert overhear(piece * 2) == overhear(piece)
    assert overhear(piece * 3) is None
    assert overhear(piece[:-1]) is None
    assert overhear(piece[:-2]) is None
    assert overhear(piece[:-2] + b"\n") is None


@each_reader
@given(piece=st.binary(max_size=600))
def test_no_octets_break_it(overhear: Reader, piece: bytes) -> None:
    overhear(piece)


@given(junk=st.binary(max_size=300).filter(lambda junk: not set(junk) & set(b"\r\n\0")))
def test_what_upstream_said_is_told_in_printable_octets(junk: bytes) -> None:
    heard = overhear_pop3(b"-ERR %b %b\r\n" % (THROTTLED, junk))
    assert heard is not None
    assert heard.text.isascii()
    assert heard.text.isprintable()
    assert len(heard.text) <= PRINTABLE_TEXT_OCTETS
    assert heard.back_off_s == 89.117


# --- IMAP's goodbye

IDLE = b"a5 IDLE\r\n"


@pytest.mark.parametrize("to_upstream", [IDLE, b"3.14 idle\r\n", b"$ Idle\r\n"])
@pytest.mark.parametrize(
    "to_client", [b"+ idling\r\n", b"+\r\n", b"* 3 EXISTS\r\n", b"* 3 EXISTS\r\n* 1 RECENT\r\n", b"* OK Still here\r\n"]
)
def test_an_idle_program_is_told(to_upstream: bytes, to_client: bytes) -> None:
    words = last_words(to_upstream, to_client)
    assert words.startswith(b"* BYE ")
    assert words.endswith(b"\r\n")
    assert words.count(b"\r\n") == 1


@pytest.mark.parametrize(
    "to_upstream",
    [b"", b"DONE\r\n", b"a5 NOOP\r\n", b"a5 IDLE", b"a5 IDLE\r\nDONE\r\n", b"a4 NOOP\r\na5 IDLE\r\n", b"IDLE\r\n"],
)
def test_a_program_that_does_not_idle_is_not(to_upstream: bytes) -> None:
    assert last_words(to_upstream, b"+ idling\r\n") == b""


@pytest.mark.parametrize(
    "to_client",
    [
        b"",
        b"+ idl",
        b"* 3 EXISTS\r\n* 1 REC",
        b"* BYE Connection is closed. 13\r\n",
        b"* 3 EXISTS\r\n* bye Connection is closed. 13\r\n",
        b"* BYE\r\n",
        b"a5 BAD IDLE is off\r\n",
        b"* 1 FETCH (BODY[] {20}\r\n",
        b"* 1 FETCH (BODY[] {20}\r\n* one item\r\n",
        b"* one item of a list\r\nand the text goes on\r\n",
    ],
)
def test_nor_one_that_may_be_in_the_middle_of_a_response_or_knows(to_client: bytes) -> None:
    assert last_words(IDLE, to_client) == b""


@given(to_upstream=st.binary(max_size=600) | st.just(IDLE), to_client=st.binary(max_size=600))
def test_no_octets_break_the_goodbye(to_upstream: bytes, to_client: bytes) -> None:
    last_words(to_upstream, to_client)
