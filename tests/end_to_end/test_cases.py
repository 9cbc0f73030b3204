"""The cases of CLIENTS section 6 that are no wire script, on the running daemon. `test_scripts.py` plays the others."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from proxy.network.throttle import MAX_AT_ONCE_PER_ADDRESS, MAX_WRONG_PER_ADDRESS
from tests.end_to_end.exchange import Exchange, Wire
from tests.end_to_end.ferry import Ferry
from tests.end_to_end.quay import QuayFerry, announce, at_once, let_in, log_in, mailbox, scripted_quay
from tests.protocols.scripts import scripts
from tests.servers.child import free_port, wait_until

CASES = range(1, 68)
PASSWORD = "Password-of-the-cases"
BOX = mailbox(1, PASSWORD)
LOGIN = BOX.logins[0]
NOOPS = 10_000
SMALL_BUFFER_OCTETS = 4_096
MESSAGE_OCTETS = 100_000_000
MAX_GROWTH_OCTETS = 24 << 20  # beside 100 MB that pass; one hash takes 16 MiB
GUESSES = 200
SESSIONS, PLACES = 20, 16
OPENSSL_LIMIT_S = 30.0


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """Of further listeners."""
    return {"legacy": free_port(), "plain": free_port()}


@pytest.fixture(scope="module")
def quay(
    ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[QuayFerry, Exchange, Exchange]]:
    listeners = [
        {"protocol": "imap", "address": "127.0.0.1", "port": ports["legacy"], "tls": "implicit", "legacy_tls": True},
        {"protocol": "imap", "address": "127.0.0.1", "port": ports["plain"], "tls": "off"},
    ]
    with scripted_quay(tmp_path_factory.mktemp("cases"), [BOX], listeners) as quay:
        yield quay


@pytest.fixture
def ferry_and_exchange(quay: tuple[QuayFerry, Exchange, Exchange]) -> tuple[QuayFerry, Exchange]:
    return quay[0], quay[1]


def keep(wire: Wire, protocol: str = "imap") -> bytes:
    """Let somebody in, and keep what is sent then."""
    let_in(wire, protocol)
    return wire.rest()


def test_every_case_is_on_the_daemon() -> None:
    played = {int(found[1]) for script in scripts() if (found := re.search(r"-case-(\d\d)-", script.name))}
    sources = [file.read_text() for file in Path(__file__).parent.glob("test_*.py")]
    written = {
        int(number) for source in sources for number in re.findall(r"^def test_case_(\d\d)_", source, re.MULTILINE)
    }
    assert sorted(played | written) == list(CASES)


def test_case_06_a_login_cut_at_every_octet(ferry_and_exchange: tuple[QuayFerry, Exchange]) -> None:
    ferry, exchange = ferry_and_exchange
    octets = f"a LOGIN {{{len(LOGIN)}+}}\r\n{LOGIN} {{{len(PASSWORD)}+}}\r\n{PASSWORD}\r\n".encode()
    for cut in range(1, len(octets)):
        (session,) = announce(exchange, "imap", keep)
        with closing(ferry.connect("imap")) as wire:
            wire.line()
            wire.send(octets[:cut])
            wire.send(octets[cut:])
            assert wire.line().startswith(b"a OK ")
            assert wire.goodbye() == b""
        assert session.result() == b""


def test_case_37_ten_thousand_commands_of_a_program_that_does_not_read(
    ferry_and_exchange: tuple[QuayFerry, Exchange],
) -> None:
    ferry, _ = ferry_and_exchange
    before = ferry.resident_octets()
    with closing(socket.socket()) as stalled, closing(ferry.connect("imap")) as other:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_OCTETS)
        stalled.connect(("127.0.0.1", ferry.ports["imap"]))
        stalled.setblocking(False)
        commands = memoryview(b"a NOOP\r\n" * NOOPS)
        sent = 0
        with suppress(BlockingIOError):
            while sent < len(commands):
                sent += stalled.send(commands[sent:])
        other.line()
        other.send(b"b NOOP\r\n")
        other.expect(b"b OK NOOP completed\r\n")  # nobody starves
        assert ferry.resident_octets() - before < MAX_GROWTH_OCTETS
        stalled.settimeout(OPENSSL_LIMIT_S)
        answers = stalled.makefile("rb")
        assert answers.readline().startswith(b"* OK")
        whole = sent // len(b"a NOOP\r\n")
        assert {answers.readline() for _ in range(whole)} == {b"a OK NOOP completed\r\n"}


def test_case_40_an_unknown_login_hears_what_a_wrong_password_hears(
    ferry_and_exchange: tuple[QuayFerry, Exchange],
) -> None:
    """That it takes the same work stands in `tests/network/test_throttle.py`; the time is measured in `tests/bench`."""
    ferry, _ = ferry_and_exchange

    def says(protocol: str, login: str, source: str) -> str:
        return ferry.says(protocol, BOX, source, login=login, password="a wrong one")

    protocols = ("imap", "pop3", "smtp")
    unknown = at_once(*(partial(says, protocol, "nobody@contoso.com", "127.0.0.40") for protocol in protocols))
    known = at_once(*(partial(says, protocol, LOGIN, "127.0.0.41") for protocol in protocols))
    assert unknown == known
    assert len(set(known)) == len(protocols)


def test_case_41_sessions_beyond_an_accounts_share(ferry: Ferry) -> None:
    """With real Dovecot, and the limits that an account has by itself."""
    person = ferry.ready_account()
    wires: list[Wire] = []

    def come() -> str:
        sock = socket.create_connection(("127.0.0.1", ferry.ports["imap"]))
        wires.append(Wire(sock, ferry.client_context(), server_name="localhost"))
        return log_in(wires[-1], "imap", person.upn, ferry.passwords[person.upn])

    replies = at_once(*[come] * SESSIONS)
    try:
        assert sum(reply.startswith("a OK") for reply in replies) == PLACES
        refused = [reply for reply in replies if not reply.startswith("a OK")]
        assert all(reply.startswith("a NO [UNAVAILABLE] Too many sessions at once") for reply in refused)
    finally:
        for wire in wires:
            wire.close()


def test_case_55_what_is_sent_after_the_login_arrives_octet_for_octet(
    ferry_and_exchange: tuple[QuayFerry, Exchange],
) -> None:
    ferry, exchange = ferry_and_exchange
    content = hashlib.shake_128(b"a message").digest(MESSAGE_OCTETS)
    odd = b"DATA\r\nbare\n.\nand\r.\rand NUL \0\r\n.\r\nBDAT %d LAST\r\n" % len(content)
    (session,) = announce(exchange, "smtp", partial(keep, protocol="smtp"))
    with closing(ferry.connect("smtp")) as wire:
        assert log_in(wire, "smtp", LOGIN, PASSWORD).startswith("235")
        before = ferry.resident_octets()
        wire.send(odd)
        for start in range(0, len(content), 1 << 20):
            wire.send(content[start : start + (1 << 20)])
        growth = ferry.resident_octets() - before
        assert wire.goodbye() == b""
    arrived = session.result()
    assert len(arrived) == len(odd) + len(content)
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(odd + content).digest()
    assert growth < MAX_GROWTH_OCTETS


def openssl(ferry: QuayFerry, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    """A TLS program of those days, which says LOGOUT."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", "-CAfile", str(ferry.ca_file), *options],
        input="a LOGOUT\r\n",
        capture_output=True,
        text=True,
        timeout=OPENSSL_LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_case_65_old_tls_is_spoken_by_a_legacy_listener_alone(
    ferry_and_exchange: tuple[QuayFerry, Exchange], ports: dict[str, int], version: str
) -> None:
    ferry, _ = ferry_and_exchange
    old = (version, "-cipher", "DEFAULT:@SECLEVEL=0")
    taken = openssl(ferry, ports["legacy"], *old)
    assert taken.stdout.startswith("* OK [CAPABILITY ")
    assert taken.stdout.splitlines()[-2:] == ["* BYE Logging out", "a OK LOGOUT completed"]
    assert "* OK" not in openssl(ferry, ferry.ports["imap"], *old).stdout
    assert openssl(ferry, ferry.ports["imap"]).stdout.startswith("* OK [CAPABILITY ")  # TLS on an `auto` listener


def test_case_65_tls_at_a_plain_port_is_closed_with_a_hint(
    ferry_and_exchange: tuple[QuayFerry, Exchange], ports: dict[str, int]
) -> None:
    ferry, _ = ferry_and_exchange
    told = openssl(ferry, ports["plain"])
    assert told.returncode != 0
    wait_until("the hint", lambda: ferry.log_lines("closed before login", "reason=tls_on_plain_port"))


def test_case_66_two_hundred_guesses_keep_nobody_else_waiting(
    ferry_and_exchange: tuple[QuayFerry, Exchange],
) -> None:
    ferry, exchange = ferry_and_exchange
    attacker = "127.0.0.66"
    announce(exchange, "imap", keep, keep)
    with closing(ferry.connect("imap")) as at_work:
        assert log_in(at_work, "imap", LOGIN, PASSWORD).startswith("a OK")

        def guess(number: int) -> str:
            with closing(ferry.connect("imap", attacker)) as wire:
                return log_in(wire, "imap", f"user-{number % 50}", f"wrong-{number}")

        replies = at_once(*(partial(guess, number) for number in range(GUESSES)))
        wrong = [reply for reply in replies if reply.startswith("a NO [AUTHENTICATIONFAILED]")]
        unseen = [reply for reply in replies if reply.startswith("* BYE Too many wrong passwords")]
        assert len(wrong) + len(unseen) == GUESSES
        assert MAX_WRONG_PER_ADDRESS <= len(wrong) <= MAX_WRONG_PER_ADDRESS + MAX_AT_ONCE_PER_ADDRESS
        # Who is known goes on, even from there; so does who is at work.
        assert ferry.says("imap", BOX, attacker).startswith("a OK")
        assert at_work.goodbye() == b""
