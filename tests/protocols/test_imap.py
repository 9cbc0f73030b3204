"""IMAP's front and upstream as playbooks: an input, and the actions. The wire itself is in `tests/dialogues`."""

from __future__ import annotations

import pytest

from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal
from proxy.protocols import PROTOCOLS
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
from proxy.protocols.imap import IDLE_LIMIT_S, IMAP
from proxy.protocols.imap_front import FrontState, ImapFront
from proxy.protocols.imap_upstream import MAX_CAPABILITIES, ImapUpstream, UpstreamState

BEARER = Bearer("u@example.com", "s3cret-token")


def front(*, offers_tls: bool = False) -> ImapFront:
    settings = FrontSettings(
        hostname="mail.test", offers_tls=offers_tls, tls_active=False, requires_tls=False, defers_failures=False
    )
    opened = ImapFront(settings)
    opened.opened()
    return opened


def upstream(*, starttls: bool = False) -> ImapUpstream:
    return ImapUpstream(UpstreamSettings(BEARER, starttls=starttls, hostname="mail.test"))


def authenticated() -> ImapUpstream:
    dialogue = upstream()
    dialogue.received(b"* OK ready\r\n")
    dialogue.received(b"F2 OK AUTHENTICATE completed.\r\n")
    return dialogue


def refused(refusal: Refusal, text: str = "Words.") -> LoginRefused:
    return LoginRefused(refusal, text, fault=Fault.MAILFERRY)


def test_the_record() -> None:
    assert PROTOCOLS["imap"] is IMAP
    assert IMAP.speaks_as == "mailbox"
    assert IDLE_LIMIT_S >= 31 * 60  # CLIENTS 4


# The front


def test_what_came_before_the_greeting_is_answered_behind_it() -> None:
    settings = FrontSettings("mail.test", offers_tls=False, tls_active=False, requires_tls=False, defers_failures=False)
    dialogue = ImapFront(settings)
    assert dialogue.received(b"a NOOP\r\n") == []
    greeting, reply = dialogue.opened()
    assert isinstance(greeting, Send)
    assert greeting.data.startswith(b"* OK [CAPABILITY IMAP4 IMAP4rev1 ")
    assert reply == Send(b"a OK NOOP completed\r\n")


def test_nothing_is_read_after_the_end() -> None:
    """Found by fuzzing: a ClientHello that came after `expired` closed once more."""
    dialogue = front()
    assert dialogue.expired()[-1] == Close("login_deadline")
    assert dialogue.received(b"\x16\x03\x01") == []
    assert dialogue.unread() == b""


def test_states_follow_a_login() -> None:
    dialogue = front()
    states = [dialogue.state]
    for line in (b"a AUTHENTICATE PLAIN\r\n", b"AHUAcA==\r\n"):
        dialogue.received(line)
        states.append(dialogue.state)
    dialogue.accept(Ready(""))
    assert [*states, dialogue.state] == [
        FrontState.AWAITING_COMMAND,
        FrontState.AWAITING_RESPONSE,
        FrontState.AWAITING_VERDICT,
        FrontState.ACCEPTED,
    ]


def test_nothing_is_read_while_the_verdict_is_awaited() -> None:
    dialogue = front()
    dialogue.received(b"a LOGIN u p\r\n")
    assert dialogue.received(b"b LOGIN u q\r\nc LOGOUT\r\n") == []
    assert dialogue.refuse(refused(Refusal.TRY_LATER)) == [
        Send(b"a NO [UNAVAILABLE] Words.\r\n"),
        Login(Credentials(b"u", b"q")),
    ]
    dialogue.accept(Ready(""))
    assert dialogue.unread() == b"c LOGOUT\r\n"
    assert dialogue.unread() == b""


def test_accept_without_capabilities_has_no_code() -> None:
    dialogue = front()
    dialogue.received(b"a LOGIN u p\r\n")
    assert dialogue.accept(Ready("In.", ("AUTH=PLAIN", "starttls"))) == [Send(b"a OK In.\r\n")]


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refusal.BAD_CREDENTIALS, b"AUTHENTICATIONFAILED"),
        (Refusal.SIGN_IN_NEEDED, b"UNAVAILABLE"),
        (Refusal.TRY_LATER, b"UNAVAILABLE"),
        (Refusal.REFUSED_UPSTREAM, b"UNAVAILABLE"),
        (Refusal.BUSY, b"UNAVAILABLE"),
        (Refusal.MISCONFIGURED, b"UNAVAILABLE"),
        (Refusal.TLS_NEEDED, b"PRIVACYREQUIRED"),
    ],
)
def test_refusals(refusal: Refusal, code: bytes) -> None:
    dialogue = front()
    dialogue.received(b"a LOGIN u p\r\n")
    assert dialogue.refuse(refused(refusal)) == [Send(b"a NO [" + code + b"] Words.\r\n")]
    assert dialogue.received(b"b NOOP\r\n") == [Send(b"b OK NOOP completed\r\n")]


def test_a_final_refusal_says_goodbye() -> None:
    dialogue = front()
    dialogue.received(b"a LOGIN u p\r\nb NOOP\r\n")
    assert dialogue.refuse(refused(Refusal.BUSY), final=True) == [
        Send(b"a NO [UNAVAILABLE] Words.\r\n"),
        Send(b"* BYE Words.\r\n"),
        Close("busy"),
    ]
    assert dialogue.received(b"c NOOP\r\n") == []


def test_text_of_a_refusal_stays_one_line_without_a_code() -> None:
    dialogue = front()
    dialogue.received(b"a LOGIN u p\r\n")
    assert dialogue.refuse(refused(Refusal.BUSY, "[ALERT] x\r\nb OK é")) == [
        Send(b"a NO [UNAVAILABLE] (ALERT) x b OK ?\r\n"),
    ]


def test_refused_in_place_of_the_greeting() -> None:
    settings = FrontSettings("mail.test", offers_tls=False, tls_active=False, requires_tls=False, defers_failures=False)
    assert ImapFront(settings).refuse(refused(Refusal.TRY_LATER)) == [Send(b"* BYE Words.\r\n"), Close("try_later")]


def test_starttls_forgets_and_plain_octets_behind_it_close() -> None:
    dialogue = front(offers_tls=True)
    assert dialogue.received(b"a STARTTLS\r\n") == [Send(b"a OK Begin TLS now\r\n"), StartTLS()]
    assert dialogue.state is FrontState.STARTING_TLS
    assert dialogue.received(b"") == []
    assert dialogue.received(b"b LOGIN u p\r\n") == [Close("starttls_injection")]


def test_half_a_command_before_starttls_does_not_outlive_it() -> None:
    dialogue = front(offers_tls=True)
    dialogue.received(b"\r\n\r\na STARTTLS\r\n")
    assert dialogue.tls_started() == []
    assert dialogue.received(b"\r\n\r\nb NOOP\r\n") == [Send(b"b OK NOOP completed\r\n")]


def test_case_37_ten_thousand_commands_in_one_piece() -> None:
    assert len(front().received(b"a NOOP\r\n" * 10_000)) == 10_000


# The upstream


def run(dialogue: ImapUpstream, *lines: bytes) -> list[Action]:
    actions: list[Action] = []
    for line in lines:
        actions += dialogue.received(line)
    return actions


def test_the_token_is_sent_as_a_secret() -> None:
    dialogue = upstream()
    assert dialogue.opened() == []
    (action,) = dialogue.received(b"* OK ready\r\n")
    assert isinstance(action, Send)
    assert action.secret
    assert action.data.startswith(b"F2 AUTHENTICATE XOAUTH2 ")
    assert dialogue.state is UpstreamState.TOKEN_SENT


def test_the_token_is_a_secret_on_its_own_line_too() -> None:
    first, second = run(upstream(), b"* OK [CAPABILITY IMAP4rev1] ready\r\n", b"+ \r\n")
    assert first == Send(b"F2 AUTHENTICATE XOAUTH2\r\n")
    assert isinstance(second, Send)
    assert second.secret


def test_a_list_with_sasl_ir_allows_one_line() -> None:
    (action,) = upstream().received(b"* OK [capability IMAP4rev1 sasl-ir] ready\r\n")
    assert isinstance(action, Send)
    assert action.secret


def test_only_both_answers_make_it_ready() -> None:
    dialogue = authenticated()
    assert dialogue.received(b"F4 OK\r\n* CAPABILITY IDLE\r\n") == []
    assert dialogue.received(b"F3 OK\r\nrest") == [Ready("AUTHENTICATE completed.", ("IDLE",))]
    assert dialogue.state is UpstreamState.DONE
    assert dialogue.received(b" more") == []
    assert dialogue.unread() == b"rest more"


def test_an_answer_counts_once() -> None:
    assert authenticated().received(b"F3 OK\r\nF3 OK\r\n") == [Failed(Refusal.TRY_LATER, "unexpected response: OK")]


def test_the_log_has_no_token_even_from_a_challenge() -> None:
    dialogue = upstream()
    dialogue.received(b"* OK ready\r\n")
    (_, failed) = run(dialogue, b"+ czNjcmV0LXRva2Vu\r\n", b"F2 NO s3cret-token\r\n")
    assert isinstance(failed, Failed)
    assert "s3cret" not in failed.detail


def test_capabilities_are_bounded_atoms() -> None:
    dialogue = authenticated()
    dialogue.received(b"* CAPABILITY A] B\xff [C " + b"D " * 1_000 + b"\r\n")
    (ready,) = dialogue.received(b"F3 OK\r\nF4 OK\r\n")
    assert isinstance(ready, Ready)
    assert ready.capabilities == ("D",) * MAX_CAPABILITIES


def test_untagged_data_is_bounded() -> None:
    (failed,) = authenticated().received(b"* 1 EXISTS\r\n" * 10_000)
    assert failed == Failed(Refusal.TRY_LATER, "upstream sent too much before the login was done")


def test_a_line_is_bounded() -> None:
    (failed,) = upstream().received(b"x" * 70_000)
    assert failed == Failed(Refusal.TRY_LATER, "upstream sent an over-long response")


def test_plain_octets_between_starttls_and_tls_are_an_injection() -> None:
    dialogue = upstream(starttls=True)
    assert run(dialogue, b"* OK ready\r\n", b"F1 OK go\r\n") == [Send(b"F1 STARTTLS\r\n"), StartTLS()]
    (failed,) = dialogue.received(b"* OK evil\r\n")
    assert isinstance(failed, Failed)
    assert failed.refusal is Refusal.TRY_LATER
    assert "STARTTLS" in failed.detail


@pytest.mark.parametrize("answer", [b"F1 NO no\r\n", b"* BYE\r\n", b"+ x\r\n"])
def test_without_tls_no_token(answer: bytes) -> None:
    (_, failed) = run(upstream(starttls=True), b"* OK ready\r\n", answer)
    assert isinstance(failed, Failed)
