"""PEERS section 3, the rows of load: many at once, the price of a login, and big messages to slow readers.

IMAP leads to a real Dovecot; POP3 to the scripted Exchange, which sends what a test wants.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest

from proxy.accounts.passwords import hash_password, verify_hash
from tests.end_to_end.exchange import PATIENCE_S, Exchange, Wire
from tests.end_to_end.messages import message
from tests.end_to_end.quay import (
    QuayFerry,
    announce,
    at_once,
    let_in,
    log_in,
    many_descriptors,
    own_mailbox,
    real_upstreams,
    scripted_upstream,
)
from tests.servers.child import wait_until
from tests.servers.mailhost import MailHost, Person

PEOPLE = 5
LOGINS = 50
PROGRAMS = 1_100  # with the daemon's own descriptors well beyond the 1,024 that select() takes
WARM_LOGINS = 30
MIB = 1 << 20
BIG_PIECES = 96  # of a MiB each
PIECE = hashlib.shake_128(b"a piece of a big message").digest(MIB)
SMALL_READ_OCTETS = 4_096
SETTLED_POLLS = 50  # so often the same is seen where nothing moves
STALLED_S = 3.0  # how long the daemon is watched while a client takes nothing
MAX_IDLE_CPU = 0.2  # of a core, while nothing moves; the rival took more than one
MAX_GROWTH_OCTETS = 24 * MIB  # beside 96 MiB that wait; a relay keeps half a MiB, and one hash takes 16


@pytest.fixture(scope="module")
def exchange(mail_host: MailHost) -> Iterator[Exchange]:
    with Exchange(mail_host.certificate, starttls=False) as exchange:
        yield exchange


@pytest.fixture(scope="module")
def ferry(mail_host: MailHost, exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuayFerry]:
    boxes = [own_mailbox(mail_host.new_person(), f"Password-of-number-{n}") for n in range(PEOPLE)]
    upstreams = real_upstreams(mail_host) | {"pop3": scripted_upstream(exchange, mail_host.certificate, "pop3")}
    with closing(QuayFerry(tmp_path_factory.mktemp("ferry"), mail_host, boxes, upstreams)) as ferry:
        ferry.serve()
        ferry.sign_everybody_in()
        yield ferry


def test_peer_row_02_fifty_logins_at_once_are_all_answered(ferry: QuayFerry) -> None:
    """The rival: `listen(5)`; of 50 logins at once 35 got no answer in 60 s."""
    for box in ferry.mailboxes:
        ferry.host.dovecot.empty(box.address)
        ferry.host.deliver(Person(box.address, ""), message(b"whose is this?\r\n", box.address))
    everybody_is_there = threading.Barrier(LOGINS)

    def read(number: int) -> bool:
        """Whether this program found its own person's message."""
        box = ferry.mailboxes[number % PEOPLE]
        everybody_is_there.wait(PATIENCE_S)
        with closing(ferry.connect("imap")) as wire:
            assert log_in(wire, "imap", box.logins[0], box.passwords[0]).startswith("a OK")
            wire.send(b"b EXAMINE INBOX\r\nc FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]\r\nd LOGOUT\r\n")
            return f"Subject: {box.address}\r\n".encode() in wire.rest()

    assert at_once(*(partial(read, number) for number in range(LOGINS))) == [True] * LOGINS


def test_peer_row_03_more_than_a_thousand_programs_at_once(ferry: QuayFerry) -> None:
    """The rival: a ceiling of 507 sessions, then `select()` fails and clients hang."""
    with many_descriptors(), ExitStack() as stack:
        programs = [_program(stack, ferry.ports["imap"]) for _ in range(PROGRAMS)]
        greetings = [program.recv(SMALL_READ_OCTETS) for program in programs]
        assert sum(greeting.startswith(b"* OK [CAPABILITY IMAP4 ") for greeting in greetings) == PROGRAMS
        assert ferry.says("imap", ferry.mailboxes[0]).startswith("a OK")
        for program in programs:
            program.sendall(b"x NOOP\r\n")
        answers = [program.recv(SMALL_READ_OCTETS) for program in programs]
        assert sum(answer.startswith(b"x OK") for answer in answers) == PROGRAMS


def test_peer_row_04_key_stretching_is_paid_once(ferry: QuayFerry) -> None:
    """The rival: about 0.2 CPU-s of key stretching for each login; about 10 logins a second."""
    box = ferry.mailboxes[0]
    phc = hash_password(box.passwords[0])
    before_s = time.process_time()
    assert verify_hash(box.passwords[0].encode(), phc)
    a_hash_s = time.process_time() - before_s
    assert ferry.says("imap", box).startswith("a OK")  # pays for all that follow

    before_s = ferry.cpu_s()
    for _ in range(WARM_LOGINS):
        assert ferry.says("imap", box).startswith("a OK")
    paid_s = ferry.cpu_s() - before_s
    assert paid_s < WARM_LOGINS * a_hash_s / 2


def test_peer_row_07_a_stalled_client_costs_neither_memory_nor_processor(ferry: QuayFerry, exchange: Exchange) -> None:
    """The rival: no back-pressure; a client stalled for 30 s on 512 MB costs 38 CPU-s, and memory grows."""
    passed_on = 0

    def part(wire: Wire) -> bytes:
        nonlocal passed_on
        let_in(wire, "pop3")
        wire.expect(b"RETR 1\r\n")
        for _ in range(BIG_PIECES):
            wire.send(PIECE)
            passed_on += 1
        return b""

    (session,) = announce(exchange, "pop3", part)
    with socket.create_connection(("127.0.0.1", ferry.ports["pop3"]), PATIENCE_S) as program:
        _log_in_by_pop3(program, ferry)
        before_octets = ferry.resident_octets()
        program.sendall(b"RETR 1\r\n")
        _wait_until_settled("Exchange can send no more", lambda: passed_on)
        assert 0 < passed_on < BIG_PIECES / 2, "the most of it waits at Exchange"

        before_s = ferry.cpu_s()
        threading.Event().wait(STALLED_S)  # a span that is watched, not a wait for something
        assert ferry.cpu_s() - before_s < MAX_IDLE_CPU * STALLED_S
        assert ferry.resident_octets() - before_octets < MAX_GROWTH_OCTETS

        came, octets = hashlib.sha256(), 0
        while piece := program.recv(MIB):
            came.update(piece)
            octets += len(piece)
        assert ferry.resident_octets() - before_octets < MAX_GROWTH_OCTETS
    assert octets == BIG_PIECES * MIB
    assert came.digest() == hashlib.sha256(PIECE * BIG_PIECES).digest()
    assert session.result(PATIENCE_S) == b""


def test_peer_row_08_what_upstream_said_before_it_closed_is_delivered(ferry: QuayFerry, exchange: Exchange) -> None:
    """The rival: upstream's close drops unsent data; 17 of 32 MB delivered."""
    pieces = 32

    def part(wire: Wire) -> bytes:
        let_in(wire, "pop3")
        wire.expect(b"RETR 1\r\n")
        wire.send(PIECE * pieces)
        return b""  # and closes

    (session,) = announce(exchange, "pop3", part)
    with socket.create_connection(("127.0.0.1", ferry.ports["pop3"]), PATIENCE_S) as program:
        _log_in_by_pop3(program, ferry)
        program.sendall(b"RETR 1\r\n")
        came = bytearray()
        while not session.done():  # slowly, until Exchange has sent its last octet and closes
            came += program.recv(SMALL_READ_OCTETS)
        assert len(came) < pieces * MIB, "the rest is on its way"
        while piece := program.recv(SMALL_READ_OCTETS):
            came += piece
    assert len(came) == pieces * MIB
    assert hashlib.sha256(came).digest() == hashlib.sha256(PIECE * pieces).digest()


def _program(stack: ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))


def _log_in_by_pop3(program: socket.socket, ferry: QuayFerry) -> None:
    box = ferry.mailboxes[0]
    lines = program.makefile("rb", buffering=0)  # reads no octet beyond the line
    for said in (b"", f"USER {box.logins[0]}\r\n".encode(), f"PASS {box.passwords[0]}\r\n".encode()):
        program.sendall(said)
        assert lines.readline().startswith(b"+OK")


def _wait_until_settled(what: str, value: Callable[[], int]) -> None:
    """Until the same value is seen again and again, and is not 0."""
    seen: list[int] = []

    def settled() -> bool:
        seen.append(value())
        return seen[-1] > 0 and seen[-SETTLED_POLLS:] == [seen[-1]] * SETTLED_POLLS

    wait_until(what, settled)
