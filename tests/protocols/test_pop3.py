"""What the scripts `tests/dialogues/pop3-*.txt` cannot say of POP3: settings, separate segments, secrets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal
from proxy.protocols import sasl
from proxy.protocols.dialogue import Close, Failed, FrontSettings, Login, Ready, Send, StartTLS, UpstreamSettings
from proxy.protocols.pop3 import POP3
from proxy.protocols.pop3_front import MAX_COMMAND_OCTETS, Pop3Front
from proxy.protocols.pop3_upstream import Pop3Upstream

FRONT = FrontSettings(
    hostname="mail.test", offers_tls=True, tls_active=False, requires_tls=False, defers_failures=False
)
UPSTREAM = UpstreamSettings(Bearer("u@example.com", "TOKEN"), starttls=False, hostname="mail.test")
LATER = LoginRefused(Refusal.TRY_LATER, "No connection.", fault=Fault.NETWORK)


def opened(settings: FrontSettings = FRONT) -> Pop3Front:
    front = Pop3Front(settings)
    front.opened()
    return front


def at_the_token(token: str) -> Pop3Upstream:
    upstream = Pop3Upstream(replace(UPSTREAM, bearer=Bearer("u@example.com", token)))
    assert upstream.opened() == []
    upstream.received(b"+OK\r\n+ \r\n")
    return upstream


def test_record() -> None:
    assert (POP3.name, POP3.speaks_as) == ("pop3", "mailbox")
    assert POP3.idle_limit_s >= 600  # RFC 1939 §3
    assert isinstance(POP3.front(FRONT), Pop3Front)
    assert isinstance(POP3.upstream(UPSTREAM), Pop3Upstream)


def test_commands_before_the_greeting_are_answered_behind_it() -> None:
    front = Pop3Front(FRONT)
    assert front.received(b"NOOP\r\n") == []
    assert front.opened() == [Send(b"+OK mail.test POP3 ready\r\n"), Send(b"-ERR Log in first\r\n")]


def test_refused_in_place_of_the_greeting() -> None:
    assert Pop3Front(FRONT).refuse(LATER) == [Send(b"-ERR [SYS/TEMP] No connection.\r\n"), Close("try_later")]


def test_octets_behind_stls_in_a_segment_of_their_own() -> None:
    front = opened()
    assert front.received(b"STLS\r\n") == [Send(b"+OK Begin TLS\r\n"), StartTLS()]
    assert front.received(b"USER u\r\n") == [Close("starttls_injection")]


def test_nothing_is_read_after_the_close() -> None:
    front = opened()
    front.received(b"QUIT\r\n")
    assert front.received(b"NOOP\r\n") == []


def test_tls_record_is_a_bad_command_later_and_within_tls() -> None:
    front = opened()
    front.received(b"NOOP\r\n")
    assert front.received(b"\x16\r\n") == [Send(b"-ERR Unknown command\r\n")]
    assert opened(replace(FRONT, tls_active=True)).received(b"\x16\r\n") == [Send(b"-ERR Unknown command\r\n")]


def test_octets_are_held_during_a_login_and_handed_over_once() -> None:
    front = opened()
    assert front.received(b"AUTH PLAIN AHUAcA==\r\nST") == [Login(Credentials(b"u", b"p"))]
    assert front.received(b"AT\r\n") == []
    assert front.accept(Ready("")) == [Send(b"+OK Logged in\r\n")]
    assert front.unread() == b"STAT\r\n"
    assert front.unread() == b""


def test_the_longest_command_is_taken() -> None:
    line = b"USER ".ljust(MAX_COMMAND_OCTETS - 1, b"a") + b"\r\n"
    assert opened().received(line) == [Send(b"+OK Now the password\r\n")]


@pytest.mark.parametrize(("length", "detail"), [(4_096, "No."), (4_097, "(a token of 4097 characters) No.")])
def test_long_tokens_are_told_by_their_length(length: int, detail: str) -> None:
    assert at_the_token("t" * length).received(b"-ERR No.\r\n") == [Failed(Refusal.REFUSED_UPSTREAM, detail)]


def test_the_token_is_sent_as_a_secret() -> None:
    upstream = Pop3Upstream(UPSTREAM)
    actions = upstream.received(b"+OK\r\n+ \r\n")
    assert actions == [Send(b"AUTH XOAUTH2\r\n"), Send(sasl.xoauth2(UPSTREAM.bearer) + b"\r\n", secret=True)]
    assert "TOKEN" not in repr(actions)


def test_upstream_octets_between_stls_and_tls() -> None:
    upstream = Pop3Upstream(replace(UPSTREAM, starttls=True))
    assert upstream.received(b"+OK\r\n") == [Send(b"STLS\r\n")]
    assert upstream.received(b"+OK\r\n") == [StartTLS()]
    failed = Failed(Refusal.TRY_LATER, "the server sent bytes between STLS and TLS")
    assert upstream.received(b"+OK injected\r\n") == [failed]
    assert upstream.received(b"+OK\r\n") == []
