"""PEERS section 3, the rows of the wire: names, STARTTLS, PROXY headers, throttling, and what a refusal sounds like.

Behind the daemon is the scripted Exchange: SMTP with STARTTLS, IMAP and POP3 with TLS at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from proxy.login import Refusal
from tests.end_to_end.exchange import OFFERS, PATIENCE_S, Exchange, Wire
from tests.end_to_end.exchange import part as login_part
from tests.end_to_end.quay import (
    EHLO,
    NAMESPACE,
    SMTP_GREETING,
    QuayFerry,
    SignInHost,
    announce,
    at_once,
    ehlo_answer,
    let_in,
    log_in,
    mailbox,
    offer_login,
    plain,
    scripted_quay,
    secure,
    smtp_reply,
    visit,
    xoauth2_user,
)
from tests.servers.child import free_port, wait_until

OWN = mailbox(1, "Password-of-berth-one")
SHARED = mailbox(2, "Password-of-the-shared-berth", shared_by=OWN.address)
SOON, LATE = mailbox(3, "Password-of-berth-three"), mailbox(4, "Password-of-berth-four")
PLAIN_PORTS = {protocol: free_port() for protocol in ("imap", "pop3", "smtp")}
BALANCED_PORT = free_port()
BALANCER, BEHIND_BALANCER = "127.0.0.51", "192.0.2.7"
BACK_OFF_S = 2
PROXY_V1 = f"PROXY TCP4 {BEHIND_BALANCER} 127.0.0.1 40000 143\r\n".encode()
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x9c\x40\x00\x8f"
KNOWN_OUTAGE_WITHIN_S = 20.0  # it counts as known after ten


@dataclass(frozen=True, slots=True)
class Quay:
    ferry: QuayFerry
    exchange: Exchange
    smtp: Exchange
    """Where STARTTLS is asked for."""


@pytest.fixture(scope="module")
def quay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quay]:
    listeners = [
        *({"protocol": p, "address": "127.0.0.1", "port": n, "tls": "off"} for p, n in PLAIN_PORTS.items()),
        {"protocol": "imap", "address": "127.0.0.1", "port": BALANCED_PORT, "proxy_protocol": [f"{BALANCER}/32"]},
    ]
    boxes = [OWN, SHARED, SOON, LATE]
    with scripted_quay(tmp_path_factory.mktemp("ferry"), boxes, listeners, starttls="smtp") as scene:
        yield Quay(*scene)


def test_peer_row_12_a_shared_mailbox_is_opened_by_its_name_and_sent_from_by_the_delegates(quay: Quay) -> None:
    """The rival: IMAP wants the shared address, SMTP the delegate."""
    sessions = {
        "imap": announce(quay.exchange, "imap", visit("imap")),
        "pop3": announce(quay.exchange, "pop3", visit("pop3")),
        "smtp": announce(quay.smtp, "smtp", visit("smtp", starttls=True)),
    }
    for protocol, accepted in (("imap", "a OK"), ("pop3", "+OK"), ("smtp", "235")):
        assert quay.ferry.says(protocol, SHARED).startswith(accepted)
    said = {protocol: session.result(PATIENCE_S).decode() for protocol, (session,) in sessions.items()}
    assert said == {"imap": SHARED.address, "pop3": SHARED.address, "smtp": OWN.address}


def test_peer_row_15_upstreams_starttls_and_auth_lines_stay_upstream(quay: Quay) -> None:
    """The rival: STARTTLS is forwarded upstream; legacy `250-AUTH=` lines are not rewritten."""
    offers = ["AUTH=LOGIN XOAUTH2" if line.startswith("AUTH") else line for line in OFFERS["smtp"]]
    offers += ["AUTH LOGIN XOAUTH2", "STARTTLS"]  # both forms, and STARTTLS where TLS is there already

    def part(wire: Wire) -> bytes:
        """The daemon's own STARTTLS and no other; every line is accounted for."""
        wire.send(SMTP_GREETING)
        secure(wire, *offers)
        wire.expect(EHLO)
        wire.send(ehlo_answer(*offers))
        wire.expect(b"AUTH XOAUTH2\r\n")
        wire.send(b"334 \r\n")
        xoauth2_user(wire.line())
        wire.send(b"235 2.7.0 Authentication successful\r\n")
        return wire.rest()

    (session,) = announce(quay.smtp, "smtp", part)
    with closing(quay.ferry.connect("smtp")) as wire:
        wire.line()
        wire.send(b"EHLO client.test\r\n")
        assert b"STARTTLS" in [line[4:] for line in smtp_reply(wire)], "ours"
        wire.send(b"STARTTLS\r\n")
        assert wire.line().startswith(b"220")
        wire.start_tls()
        _logs_in_by_smtp(wire)
        wire.send(b"NOOP\r\n")
    assert session.result(PATIENCE_S) == b"NOOP\r\n"

    with closing(quay.ferry.connect(PLAIN_PORTS["smtp"])) as wire:
        wire.line()
        wire.send(b"EHLO client.test\r\n")
        offered = [line[4:].decode() for line in smtp_reply(wire)[1:]]
    assert sorted(line for line in offered if "AUTH" in line) == ["AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN"]
    assert "STARTTLS" not in offered
    assert "SIZE 157286400" in offered, "learnt from upstream, as the rest"

    (session,) = announce(quay.exchange, "imap", _imap_that_offers_starttls)
    with closing(quay.ferry.connect(PLAIN_PORTS["imap"])) as wire:
        after = log_in(wire, "imap", OWN.address, OWN.passwords[0])
    assert session.result(PATIENCE_S) == b""
    with closing(quay.ferry.connect(PLAIN_PORTS["imap"])) as wire:
        before = wire.line().decode()
    for word in ("STARTTLS", "LOGINDISABLED", "XOAUTH2"):
        assert word not in before + after
    assert "IDLE" in before + after


def _imap_that_offers_starttls(wire: Wire) -> bytes:
    wire.send(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=XOAUTH2 SASL-IR] ready\r\n")
    tag, _, _ = wire.line().partition(b" AUTHENTICATE XOAUTH2 ")
    wire.send(tag + b" OK AUTHENTICATE completed.\r\n")
    capability, namespace = (wire.line().partition(b" ")[0] for _ in range(2))
    wire.send(b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=XOAUTH2 IDLE NAMESPACE\r\n")
    wire.send(capability + b" OK completed.\r\n" + NAMESPACE + namespace + b" OK completed.\r\n")
    return wire.rest()


def _logs_in_by_smtp(wire: Wire) -> None:
    """From EHLO on."""
    wire.send(b"EHLO client.test\r\n")
    smtp_reply(wire)
    wire.send(b"AUTH PLAIN " + plain(OWN.address, OWN.passwords[0]) + b"\r\n")
    assert wire.line().startswith(b"235")


def test_peer_row_16_a_proxy_header_is_read_where_it_is_awaited_and_nowhere_else(quay: Quay) -> None:
    """The rival: the PROXY header reaches Exchange."""
    (session,) = announce(quay.exchange, "imap", _imap_that_keeps_what_comes)
    for header in (PROXY_V1, PROXY_V2):
        for protocol in ("imap", "pop3", "smtp"):
            with closing(quay.ferry.connect(PLAIN_PORTS[protocol])) as wire:
                wire.line()
                wire.send(header + b"a LOGIN x y\r\n")
                said = wire.rest()
                assert b"PROXY" not in said, "nothing of it is echoed"
                assert b"a NO" not in said, "what stands behind it is no command"
    assert not session.done()

    with closing(quay.ferry.connect(BALANCED_PORT, BALANCER)) as wire:
        wire.send(PROXY_V2)
        assert log_in(wire, "imap", OWN.address, OWN.passwords[0]).startswith("a OK")
        wire.send(b"b NOOP\r\n")
    assert session.result(PATIENCE_S) == b"b NOOP\r\n", "the first who came to Exchange, and no header before it"
    assert quay.ferry.log_lines("login accepted", f"peer={BEHIND_BALANCER} ")


def _imap_that_keeps_what_comes(wire: Wire) -> bytes:
    let_in(wire, "imap")
    return wire.rest()


def test_peer_row_17_throttling_is_passed_on_noticed_and_obeyed(quay: Quay) -> None:
    """The rival: Exchange's throttling is ignored."""
    ferry = quay.ferry

    def throttled(back_off_ms: int, wire: Wire) -> bytes:
        let_in(wire, "imap")
        wire.expect(b"b SELECT INBOX\r\n")
        wire.send(b"b BAD Request is throttled. Suggested Backoff Time: %d milliseconds\r\n" % back_off_ms)
        return wire.rest()

    for box, back_off_s in ((SOON, BACK_OFF_S), (LATE, 300)):
        (session, _) = announce(quay.exchange, "imap", partial(throttled, 1000 * back_off_s), visit("imap"))
        with closing(ferry.connect("imap")) as wire:
            assert log_in(wire, "imap", *box.logins, *box.passwords).startswith("a OK")
            before_s = time.monotonic()
            wire.send(b"b SELECT INBOX\r\n")
            assert wire.line() == (
                b"b BAD Request is throttled. Suggested Backoff Time: %d milliseconds" % (1000 * back_off_s)
            )
            wait_until("it is noticed", partial(ferry.log_lines, "upstream said", f"login={box.address} ", "throttled"))
            row = ferry.rows()[box.address]
            assert (row["state"], row["fault"]) == ("connect_error", "exchange")
        assert session.result(PATIENCE_S) == b""

        reply = ferry.says("imap", box)
        if box is SOON:
            assert reply.startswith("a OK"), "it has waited"
            assert time.monotonic() - before_s >= BACK_OFF_S
            assert ferry.rows()[box.address]["state"] == "connected"
        else:
            assert reply.startswith("a NO [UNAVAILABLE] Not your password: Microsoft throttles this mailbox.")


def test_peer_row_21_upstreams_error_challenge_stays_upstream(quay: Quay) -> None:
    """The rival: the XOAUTH2 error challenge is relayed to a LOGIN client, which waits for ever."""

    def part(wire: Wire) -> bytes:
        wire.send(b"* OK ready\r\n")
        tag, _, response = wire.line().partition(b" AUTHENTICATE XOAUTH2 ")
        xoauth2_user(response)
        wire.send(b"+ eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIn0=\r\n")
        wire.expect(b"\r\n")
        wire.send(tag + b" NO AUTHENTICATE failed.\r\n")
        return wire.rest()

    sessions = announce(quay.exchange, "imap", part, part)  # once more with a fresh token
    with closing(quay.ferry.connect("imap")) as wire:
        reply = log_in(wire, "imap", OWN.address, OWN.passwords[0])
        assert reply.startswith("a NO [UNAVAILABLE] ")
        assert "eyJ" not in reply
        wire.send(b"b NOOP\r\n")
        assert wire.line().startswith(b"b OK"), "the very next line: nothing came between"
    assert [session.result(PATIENCE_S) for session in sessions] == [b"", b""]


def test_peer_row_22_no_token_leaves_without_tls_and_nothing_crosses_starttls(quay: Quay) -> None:
    """The rival: SMTP AUTH before EHLO sends the token without TLS; receive buffers survive STARTTLS."""

    def without_starttls(wire: Wire) -> bytes:
        wire.send(SMTP_GREETING)
        wire.expect(EHLO)
        wire.send(ehlo_answer(*OFFERS["smtp"]))
        return wire.rest()

    sessions = announce(quay.smtp, "smtp", without_starttls, without_starttls)  # at AUTH, and again at MAIL
    assert " / 451 4.3.5 " in quay.ferry.says("smtp", OWN)
    assert [session.result(PATIENCE_S) for session in sessions] == [b"", b""], "nothing was said behind EHLO"

    (session,) = announce(quay.smtp, "smtp", visit("smtp", starttls=True))
    with closing(quay.ferry.connect("smtp")) as wire:
        wire.line()
        wire.send(b"AUTH PLAIN " + plain(OWN.address, OWN.passwords[0]) + b"\r\n")
        if wire.line().startswith(b"503"):  # EHLO comes first; else its own EHLO came
            _logs_in_by_smtp(wire)
        wire.send(b"MAIL FROM:<a@b.test>\r\n")
        assert wire.line().startswith(b"250")
    assert session.result(PATIENCE_S) == OWN.address.encode(), "EHLO, STARTTLS, EHLO and AUTH, in this order"

    for protocol, command, behind in (
        ("imap", b"a STARTTLS\r\n", b"b LOGIN x y\r\n"),
        ("pop3", b"STLS\r\n", b"USER x\r\n"),
        ("smtp", b"STARTTLS\r\n", b"EHLO evil.test\r\n"),
    ):
        with closing(quay.ferry.connect(protocol)) as wire:
            wire.line()
            if protocol == "smtp":
                wire.send(b"EHLO client.test\r\n")
                smtp_reply(wire)
            wire.send(command + behind)
            assert wire.rest() == b"", "closed, without TLS"


def test_peer_row_25_a_temporary_failure_never_looks_like_a_wrong_password(quay: Quay, tmp_path: Path) -> None:
    """The rival: Outlook 2010 asks for the password in a loop on a temporary failure."""
    imap, pop3, smtp, goodbyes = at_once(
        *(partial(_told_while_exchange_fails, quay, protocol) for protocol in ("imap", "pop3", "smtp")),
        partial(_greeted_while_exchange_is_out_of_reach, tmp_path),
    )
    assert imap.startswith("a NO [UNAVAILABLE] ")
    assert pop3.startswith("-ERR [SYS/TEMP] ")
    accepted, _, at_mail = smtp.partition(" / ")
    assert accepted.startswith("235 ")
    assert at_mail.startswith("451 4.4.1 ")
    assert [goodbye.partition("Not your password")[0] for goodbye in goodbyes] == [
        "* BYE ",
        "-ERR [SYS/TEMP] ",
        "421 4.3.2 ",
    ]


def _told_while_exchange_fails(quay: Quay, protocol: str) -> str:
    exchange = quay.smtp if protocol == "smtp" else quay.exchange
    busy = login_part(protocol, Refusal.TRY_LATER, starttls=exchange.starttls, admits=lambda user, token: True)
    announce(exchange, protocol, *[busy] * 4)  # each is tried twice, and SMTP's at AUTH and at MAIL
    return quay.ferry.says(protocol, OWN)


def _greeted_while_exchange_is_out_of_reach(folder: Path) -> list[str]:
    """What stands in place of the greeting, once it is known; a login finds it out."""
    protocols = ("imap", "pop3", "smtp")
    nowhere = {protocol: {"host": "127.0.0.1", "port": free_port(), "tls": "implicit"} for protocol in protocols}
    with SignInHost() as host, closing(QuayFerry(folder, host, [OWN], nowhere)) as ferry, ExitStack() as stack:
        host.identity.add_person(OWN.holder)
        ferry.serve()
        ferry.sign_in_at_once(OWN)
        for protocol in protocols:
            waiting = stack.enter_context(closing(ferry.connect(protocol)))
            offer_login(waiting, protocol, OWN.address, OWN.passwords[0])

        def greeting(protocol: str) -> str:
            with closing(ferry.connect(protocol)) as wire:
                return wire.line().decode()

        def nobody_is_let_in() -> bool:
            return not any(greeting(protocol).startswith(("* OK", "+OK", "220")) for protocol in protocols)

        wait_until("the outage is known", nobody_is_let_in, KNOWN_OUTAGE_WITHIN_S)
        goodbyes = [greeting(protocol) for protocol in protocols]
        ferry.kill()  # the logins would hold up its end for some seconds more
        return goodbyes
