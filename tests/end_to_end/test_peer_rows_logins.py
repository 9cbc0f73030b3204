"""PEERS section 3, the rows of logins: passwords, names, character sets, odd lines, and devices that never log in.

Behind the daemon are real servers.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from tests.end_to_end.exchange import Wire
from tests.end_to_end.messages import AWKWARD_BODY, message
from tests.end_to_end.quay import QuayFerry, at_once, own_mailbox, plain, real_upstreams, smtp_reply
from tests.end_to_end.stage import Mailbox
from tests.servers.child import free_port
from tests.servers.mailhost import MailHost, Person

STRANGER = "127.0.0.41"  # whoever sends wrong passwords has an address of his own
SCANNER = "127.0.0.42"
ORDINARY, UMLAUTS, QUOTED = "Password-of-somebody-1", "Grüße-aus-Würzburg-42", r'back\slash and "quotes"'


@pytest.fixture(scope="module")
def scanner_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def boxes(mail_host: MailHost) -> dict[str, Mailbox]:
    """By password."""
    return {word: own_mailbox(mail_host.new_person(), word) for word in (ORDINARY, UMLAUTS, QUOTED)}


@pytest.fixture(scope="module")
def ferry(
    mail_host: MailHost, boxes: dict[str, Mailbox], scanner_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[QuayFerry]:
    listener = {
        "protocol": "smtp",
        "address": "127.0.0.1",
        "port": scanner_port,
        "tls": "off",
        "implicit_account": boxes[ORDINARY].logins[0],
        "allow_from": [f"{SCANNER}/32"],
    }
    folder, upstreams = tmp_path_factory.mktemp("ferry"), real_upstreams(mail_host)
    with closing(QuayFerry(folder, mail_host, list(boxes.values()), upstreams, [listener])) as ferry:
        ferry.serve()
        ferry.sign_everybody_in()
        yield ferry


def test_peer_row_10_passwords_may_differ_and_a_wrong_one_spoils_nothing(ferry: QuayFerry) -> None:
    """The rival: IMAP and SMTP passwords that differ loop for ever; one for each account; the first one sent wins."""
    person = ferry.host.new_person()
    ferry.account_add(person)
    first = own_mailbox(person, ferry.passwords[person.upn])
    assert "[AUTHENTICATIONFAILED]" in ferry.says("imap", first, STRANGER, password="the first that was ever sent")
    ferry.sign_in_at_once(first)
    told = len(ferry.host.identity.requests)

    reader = ferry.device_password(person, "reader", "pop3")
    printer = ferry.device_password(person, "printer", "smtp")
    said = at_once(
        partial(ferry.says, "imap", first),
        partial(ferry.says, "pop3", first, password=reader),
        partial(ferry.says, "smtp", first, password=printer),
        partial(ferry.says, "imap", first, STRANGER, password=printer),
        partial(ferry.says, "smtp", first, STRANGER, password=reader),
    )
    assert [reply.partition(" ")[0] for reply in said] == ["a", "+OK", "235", "a", "535"]
    assert said[0].startswith("a OK")
    assert said[2].partition(" / ")[2].startswith("250")
    assert said[3].startswith("a NO [AUTHENTICATIONFAILED]")

    second = own_mailbox(person, ferry.new_password(person))
    said = at_once(
        partial(ferry.says, "imap", first, STRANGER),
        partial(ferry.says, "imap", second),
        partial(ferry.says, "pop3", first, password=reader),
        partial(ferry.says, "smtp", first, password=printer),
    )
    assert "[AUTHENTICATIONFAILED]" in said[0]
    assert [reply.partition(" ")[0] for reply in said[1:]] == ["a", "+OK", "235"]
    assert said[1].startswith("a OK")
    assert {kind for kind, _ in ferry.host.identity.requests[told:]} == {"introspect"}, "the tokens stayed"


def test_peer_row_11_a_login_may_be_written_in_any_case(ferry: QuayFerry, boxes: dict[str, Mailbox]) -> None:
    """The rival: user names are case-sensitive."""
    box = boxes[ORDINARY]
    for login in (box.address.upper(), box.address.title()):
        said = [ferry.says(protocol, box, login=login) for protocol in ("imap", "pop3", "smtp")]
        assert [reply[:4] for reply in said] == ["a OK", "+OK ", "235 "]


def test_peer_row_13_a_device_that_never_logs_in_can_send(
    ferry: QuayFerry, boxes: dict[str, Mailbox], scanner_port: int
) -> None:
    """The rival: devices that never send AUTH."""
    box = boxes[ORDINARY]
    scan = message(AWKWARD_BODY, "scan")
    with closing(ferry.connect(scanner_port, SCANNER)) as wire:
        assert wire.line().startswith(b"220 ")
        for command, code in (
            (b"HELO scanner", b"250"),
            (f"MAIL FROM:<{box.address}>".encode(), b"250"),
            (f"RCPT TO:<{box.address}>".encode(), b"250"),
            (b"DATA", b"354"),
            (scan.replace(b"\r\n.", b"\r\n..") + b".", b"250"),
            (b"QUIT", b"221"),
        ):
            wire.send(command + b"\r\n")
            assert wire.line()[:3] == code
    (stored,) = ferry.host.delivered(Person(box.address, ""))
    assert stored.endswith(b"\r\n" + scan)
    with closing(ferry.connect(scanner_port)) as wire:
        assert wire.line().startswith(b"421 "), "from any other address nobody sends"


def test_peer_row_20_a_password_is_taken_in_either_character_set(ferry: QuayFerry, boxes: dict[str, Mailbox]) -> None:
    """The rival: a Latin-1 password in AUTH LOGIN drops the connection."""
    login = boxes[UMLAUTS].address
    words = [base64.b64encode(word) + b"\r\n" for word in (login.encode(), UMLAUTS.encode("latin-1"))]
    for protocol, ask, accepted in (
        ("imap", b"a AUTHENTICATE", b"a OK"),
        ("pop3", b"AUTH", b"+OK"),
        ("smtp", b"AUTH", b"235"),
    ):
        with closing(_greeted(ferry, protocol)) as wire:
            wire.send(ask + b" LOGIN\r\n")
            for prompt, word in zip((b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6"), words, strict=True):
                assert wire.line().endswith(b" " + prompt)
                wire.send(word)
            assert wire.line().startswith(accepted)
        with closing(_greeted(ferry, protocol)) as wire:
            wire.send(ask + b" PLAIN " + plain(login, UMLAUTS) + b"\r\n")
            assert wire.line().startswith(accepted)
    with closing(_greeted(ferry, "imap")) as wire:
        wire.send(f'a LOGIN {login} "{UMLAUTS}"\r\n'.encode("latin-1"))
        assert wire.line().startswith(b"a OK")


def test_peer_row_23_odd_lines_are_understood(ferry: QuayFerry, boxes: dict[str, Mailbox]) -> None:
    r"""The rival: two spaces in LOGIN, `\\` in a quoted string, bare LF, `*` to cancel: all mishandled."""
    box = boxes[QUOTED]
    quoted = QUOTED.replace("\\", "\\\\").replace('"', '\\"')
    response = plain(box.address, QUOTED)
    with closing(_greeted(ferry, "imap")) as wire:
        wire.send(b"a AUTHENTICATE PLAIN\r\n")
        assert wire.line() == b"+ "
        wire.send(b"*\r\n")
        assert wire.line().startswith(b"a BAD")
        wire.send(b"b NOOP\n")
        assert wire.line().startswith(b"b OK")
        wire.send(f'c LOGIN  {box.address}  "{quoted}"\r\n'.encode())
        assert wire.line().startswith(b"c OK")
        wire.send(b"d SELECT INBOX\r\n")
        while (line := wire.line()).startswith(b"* "):
            pass
        assert line.startswith(b"d OK")
    with closing(_greeted(ferry, "pop3")) as wire:
        wire.send(b"AUTH PLAIN\n")
        assert wire.line() == b"+ "
        wire.send(b"*\n")
        assert wire.line().startswith(b"-ERR")
        wire.send(f"USER {box.address}\nPASS {QUOTED}\n".encode())
        assert [wire.line()[:3] for _ in range(2)] == [b"+OK", b"+OK"]
    with closing(_greeted(ferry, "smtp")) as wire:
        wire.send(b"AUTH PLAIN\n")
        assert wire.line() == b"334 "
        wire.send(b"*\n")
        assert wire.line().startswith(b"501 5.5.2")
        wire.send(b"AUTH PLAIN " + response + b"\n")
        assert wire.line().startswith(b"235")


def _greeted(ferry: QuayFerry, protocol: str) -> Wire:
    """A connection where a login is awaited."""
    wire = ferry.connect(protocol)
    wire.line()
    if protocol == "smtp":
        wire.send(b"EHLO client.test\r\n")
        smtp_reply(wire)
    return wire
