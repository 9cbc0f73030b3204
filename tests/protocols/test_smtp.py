"""What the scripts `tests/dialogues/smtp-*.txt` cannot say of SMTP: settings, separate segments, secrets, case 56."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal
from proxy.protocols import sasl
from proxy.protocols.dialogue import (
    Action,
    Close,
    Failed,
    FrontSettings,
    Login,
    Ready,
    Send,
    StartTLS,
    UpstreamSettings,
)
from proxy.protocols.smtp import SMTP, SmtpFront, SmtpUpstream
from proxy.protocols.smtp_front import MAX_COMMAND_OCTETS

FRONT = FrontSettings(
    hostname="mail.test",
    offers_tls=True,
    tls_active=False,
    requires_tls=False,
    defers_failures=False,
    learnt=("SIZE 1000", "CHUNKING"),
)
DEFERRING = replace(FRONT, defers_failures=True)
IMPLICIT = replace(FRONT, implicit_account=True)
UPSTREAM = UpstreamSettings(Bearer("u@example.com", "TOKEN"), starttls=False, hostname="mail.test")
LATER = LoginRefused(Refusal.TRY_LATER, "No connection.", fault=Fault.NETWORK)
AUTH = b"AUTH PLAIN AHUAcA==\r\n"
YES = Send(b"235 2.7.0 Authentication successful\r\n")
GOODBYE = Send(b"421 4.3.2 mail.test closing the connection\r\n")
COME_AGAIN = Send(b"421 4.3.2 The mail server's features have changed; please connect again\r\n")


def opened(settings: FrontSettings = FRONT) -> SmtpFront:
    front = SmtpFront(settings)
    front.opened()
    return front


def test_record() -> None:
    assert (SMTP.name, SMTP.speaks_as) == ("smtp", "sign_in")
    assert SMTP.idle_limit_s >= 600  # RFC 5321 §4.5.3.2.6
    assert isinstance(SMTP.front(FRONT), SmtpFront)
    assert isinstance(SMTP.upstream(UPSTREAM), SmtpUpstream)


def test_commands_before_the_greeting_are_answered_behind_it() -> None:
    front = SmtpFront(FRONT)
    assert front.received(b"NOOP\r\n") == []
    assert front.opened() == [Send(b"220 mail.test ESMTP ready\r\n"), Send(b"250 2.0.0 OK\r\n")]


def test_refused_in_place_of_the_greeting() -> None:
    assert SmtpFront(DEFERRING).refuse(LATER) == [Send(b"421 4.3.2 No connection.\r\n"), Close("try_later")]


def test_octets_behind_starttls_in_a_segment_of_their_own() -> None:
    front = opened()
    assert front.received(b"STARTTLS\r\n") == [Send(b"220 2.0.0 Begin TLS\r\n"), StartTLS()]
    assert front.received(b"EHLO x\r\n") == [Close("starttls_injection")]


def test_nothing_is_read_after_the_close() -> None:
    front = opened()
    front.received(b"QUIT\r\n")
    assert front.received(b"NOOP\r\n") == []


def test_tls_record_is_a_bad_command_later_and_within_tls() -> None:
    front = opened()
    front.received(b"NOOP\r\n")
    assert front.received(b"\x16\r\n") == [Send(b"500 5.5.2 Unknown command\r\n")]
    assert opened(replace(FRONT, tls_active=True)).received(b"\x16\r\n") == [Send(b"500 5.5.2 Unknown command\r\n")]


def test_the_longest_command_is_taken() -> None:
    line = b"NOOP ".ljust(MAX_COMMAND_OCTETS - 1, b"a") + b"\r\n"
    assert opened().received(line) == [Send(b"250 2.0.0 OK\r\n")]


def test_octets_are_held_during_a_login_and_handed_over_once() -> None:
    front = opened()
    assert front.received(AUTH + b"MAIL F") == [Login(Credentials(b"u", b"p"))]
    assert front.received(b"ROM:<>\r\n") == []
    assert front.accept(Ready("")) == [YES]
    assert front.unread() == b"MAIL FROM:<>\r\n"
    assert front.unread() == b""


@pytest.mark.parametrize("lacking", [("SIZE 1000", "DSN"), ("SIZE 999", "CHUNKING"), ("CHUNKING",)])
def test_case_56_upstream_offers_less_than_announced(lacking: tuple[str, ...]) -> None:
    front = opened()
    front.received(b"EHLO x\r\n" + AUTH)
    changed = Send(b"454 4.7.0 The mail server's features have changed; please connect again\r\n")
    assert front.accept(Ready("", lacking)) == [changed, COME_AGAIN, Close("upstream_offers_less")]


def test_case_56_deferred_says_yes_and_closes() -> None:
    front = opened(DEFERRING)
    front.received(b"EHLO x\r\n" + AUTH)
    assert front.accept(Ready("", ("DSN",))) == [YES, COME_AGAIN, Close("upstream_offers_less")]


def test_case_56_at_mail() -> None:
    front = opened(DEFERRING)
    front.received(b"EHLO x\r\n" + AUTH)
    assert front.refuse(LATER) == [YES]
    assert front.received(b"MAIL FROM:<>\r\n") == [Login(Credentials(b"u", b"p"))]
    changed = Send(b"451 4.4.1 The mail server's features have changed; please connect again\r\n")
    assert front.accept(Ready("", ("DSN",))) == [changed, COME_AGAIN, Close("upstream_offers_less")]


def test_case_56_at_the_mail_of_a_device() -> None:
    front = opened(IMPLICIT)
    assert front.received(b"EHLO x\r\nMAIL FROM:<>\r\n")[1:] == [Login(None)]
    changed = Send(b"451 4.4.1 The mail server's features have changed; please connect again\r\n")
    assert front.accept(Ready("", ("DSN",))) == [changed, COME_AGAIN, Close("upstream_offers_less")]


def test_case_56_a_device_that_said_helo_was_told_nothing() -> None:
    front = opened(IMPLICIT)
    front.received(b"HELO x\r\nMAIL FROM:<>\r\n")
    assert front.accept(Ready("", ("DSN",))) == []
    assert front.unread() == b"MAIL FROM:<>\r\n"


@pytest.mark.parametrize("before", [b"", b"HELO x\r\n", b"EHLO x\r\nHELO x\r\n"])
def test_case_56_without_ehlo_nothing_was_announced(before: bytes) -> None:
    front = opened()
    front.received(before + AUTH)
    assert front.accept(Ready("", ("DSN",))) == [YES]


def test_case_56_tls_forgets_what_was_announced() -> None:
    front = opened()
    front.received(b"EHLO x\r\nSTARTTLS\r\n")
    front.tls_started()
    front.received(AUTH)
    assert front.accept(Ready("", ("DSN",))) == [YES]


def test_an_upstream_that_says_nothing_of_extensions_breaks_no_promise() -> None:
    front = opened()
    front.received(b"EHLO x\r\n" + AUTH)
    assert front.accept(Ready("")) == [YES]


def test_case_57_a_login_of_its_own_counts_for_a_device_too() -> None:
    front = opened(IMPLICIT)
    assert front.received(b"HELO x\r\n" + AUTH)[1:] == [Login(Credentials(b"u", b"p"))]
    assert front.accept(Ready("")) == [YES]
    assert front.received(b"MAIL FROM:<>\r\n") == []
    assert front.unread() == b"MAIL FROM:<>\r\n"


def test_a_long_chunk_is_swallowed_without_being_kept() -> None:
    front = opened()
    assert front.received(b"BDAT 3000000 LAST\r\n") == []
    for _ in range(3):
        assert front.received(bytes(999_999)) == []
    assert front.unread() == b""
    assert front.received(b"123NOOP\r\n") == [Send(b"503 5.5.1 MAIL comes first\r\n"), Send(b"250 2.0.0 OK\r\n")]


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("localhost", "localhost"),
        ("a-1.Example.com", "a-1.Example.com"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("my_pc", "[127.0.0.1]"),
        ("-pc", "[127.0.0.1]"),
        ("pc.", "[127.0.0.1]"),
        ("Büro", "[127.0.0.1]"),
        ("pc\r\nRSET", "[127.0.0.1]"),
        ("pc\n", "[127.0.0.1]"),
        ("", "[127.0.0.1]"),
        ("a" * 255, "a" * 255),
        ("a" * 256, "[127.0.0.1]"),
    ],
)
def test_only_a_valid_name_is_said_upstream(hostname: str, name: str) -> None:
    upstream = SmtpUpstream(replace(UPSTREAM, hostname=hostname))
    assert upstream.opened() == []
    assert upstream.received(b"220 ready\r\n") == [Send(f"EHLO {name}\r\n".encode())]


def test_the_token_is_sent_as_a_secret() -> None:
    upstream = SmtpUpstream(UPSTREAM)
    actions: list[Action] = upstream.received(b"220 ready\r\n250-hi\r\n250 AUTH XOAUTH2\r\n334 \r\n")
    assert actions[1:] == [Send(b"AUTH XOAUTH2\r\n"), Send(sasl.xoauth2(UPSTREAM.bearer) + b"\r\n", secret=True)]
    assert "TOKEN" not in repr(actions)


def test_upstream_octets_between_starttls_and_tls() -> None:
    upstream = SmtpUpstream(replace(UPSTREAM, starttls=True))
    assert upstream.received(b"220 ready\r\n") == [Send(b"EHLO mail.test\r\n")]
    assert upstream.received(b"250-hi\r\n250 STARTTLS\r\n") == [Send(b"STARTTLS\r\n")]
    assert upstream.received(b"220 go\r\n") == [StartTLS()]
    failed = Failed(Refusal.TRY_LATER, "the server sent bytes between STARTTLS and TLS")
    assert upstream.received(b"250 injected\r\n") == [failed]
    assert upstream.received(b"250 more\r\n") == []
