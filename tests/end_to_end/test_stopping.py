"""The daemon stops: every session is told, what is under way may end within a bound, nothing is half written."""

from __future__ import annotations

import imaplib
import signal
import smtplib
import socket
import threading
import time

import pytest

from tests.end_to_end.ferry import Ferry
from tests.end_to_end.refused import TIMEOUT_S
from tests.servers.child import wait_until
from tests.servers.mailhost import Person

MAIL = b"Subject: half\r\n\r\n" + b"a line of the mail\r\n" * 3_000
PIECES = 12
PIECE_PAUSE_S = 0.1  # the program is a slow one: the stop falls into the middle


@pytest.fixture
def person(new_ferry: Ferry) -> Person:
    person = new_ferry.ready_account()
    new_ferry.serve()
    return person


def dialled(ferry: Ferry, protocol: str) -> socket.socket:
    return socket.create_connection(("localhost", ferry.ports[protocol]), timeout=TIMEOUT_S)


def logged_in(ferry: Ferry, person: Person) -> imaplib.IMAP4:
    client = imaplib.IMAP4("localhost", ferry.ports["imap"], timeout=TIMEOUT_S)
    client.login(person.upn, ferry.passwords[person.upn])
    return client


def sending(ferry: Ferry, person: Person) -> smtplib.SMTP:
    client = smtplib.SMTP("localhost", ferry.ports["smtp"], timeout=TIMEOUT_S)
    client.login(person.upn, ferry.passwords[person.upn])
    return client


def rest_of(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    said = b""
    while piece := sock.recv(65_536):
        said += piece
    return said


def terminate(ferry: Ferry) -> None:
    """SIGTERM, and wait until the daemon takes nobody any more."""
    assert ferry.daemon is not None
    ferry.daemon.process.send_signal(signal.SIGTERM)
    wait_until("the daemon stops", lambda: ferry.log_lines("stopping", "sessions="))


def test_every_session_is_told(new_ferry: Ferry, person: Person) -> None:
    before = {protocol: dialled(new_ferry, protocol) for protocol in ("imap", "pop3", "smtp")}
    for sock in before.values():
        assert sock.recv(4_096)
    reader, idler, sender = logged_in(new_ferry, person), logged_in(new_ferry, person), sending(new_ferry, person)
    reader.select()
    idler.select()
    idler.send(b"x IDLE\r\n")
    assert idler.readline().startswith(b"+ ")
    sender.mail(person.upn)
    began_s = time.monotonic()
    assert new_ferry.stop() == 0
    assert time.monotonic() - began_s < 5.0, "nothing was under way"
    told = {protocol: rest_of(sock) for protocol, sock in before.items()}
    assert told["imap"].startswith(b"* BYE mailferry is stopping")
    assert told["pop3"].startswith(b"-ERR [SYS/TEMP] mailferry is stopping")
    assert told["smtp"].startswith(b"421 4.3.2 ")
    assert b"mailferry is stopping" in told["smtp"]
    for client in (reader, idler):
        assert rest_of(client.sock).startswith(b"* BYE mailferry is stopping")
        client.shutdown()
    assert sender.sock is not None
    assert rest_of(sender.sock).startswith(b"421 4.3.2 mailferry is stopping")
    sender.close()
    assert len(new_ferry.log_lines("session closed", "reason=stopping")) == 3


def slowly(sock: socket.socket, octets: bytes) -> None:
    size = -(-len(octets) // PIECES)
    for at in range(0, len(octets), size):
        sock.sendall(octets[at : at + size])
        threading.Event().wait(PIECE_PAUSE_S)  # the program's own slowness is what is tested


def test_a_message_that_is_being_sent_arrives_once_and_whole(new_ferry: Ferry, person: Person) -> None:
    sender = sending(new_ferry, person)
    sender.mail(person.upn)
    sender.rcpt(person.upn)
    assert sender.docmd("DATA")[0] == 354
    assert sender.sock is not None
    half = len(MAIL) // 2
    sender.sock.sendall(MAIL[:half])
    terminate(new_ferry)
    slowly(sender.sock, MAIL[half:] + b".\r\n")
    said = rest_of(sender.sock)
    assert said.startswith(b"250 ")
    assert b"\r\n421 4.3.2 mailferry is stopping" in said
    assert new_ferry.stop() == 0
    (message,) = new_ferry.host.delivered(person)
    assert message.replace(b"\r\n", b"\n").endswith(MAIL.replace(b"\r\n", b"\n").partition(b"\n\n")[2])


def test_a_message_that_is_being_stored_is_stored_once_and_whole(new_ferry: Ferry, person: Person) -> None:
    client = logged_in(new_ferry, person)
    client.send(b"x APPEND INBOX {%d}\r\n" % len(MAIL))
    assert client.readline().startswith(b"+ ")
    half = len(MAIL) // 2
    client.send(MAIL[:half])
    terminate(new_ferry)
    slowly(client.sock, MAIL[half:] + b"\r\n")
    said = rest_of(client.sock)
    assert b"x OK" in said
    assert new_ferry.stop() == 0
    (message,) = new_ferry.host.delivered(person)
    assert message.replace(b"\r\n", b"\n") == MAIL.replace(b"\r\n", b"\n")


def test_a_message_whose_program_stops_in_the_middle_is_not_half_written(new_ferry: Ferry, person: Person) -> None:
    """Nobody is waited for longer than the bound, and what is not whole is nothing."""
    client, sender = logged_in(new_ferry, person), sending(new_ferry, person)
    client.send(b"x APPEND INBOX {%d}\r\n" % len(MAIL))
    assert client.readline().startswith(b"+ ")
    client.send(MAIL[:1_000])
    sender.mail(person.upn)
    sender.rcpt(person.upn)
    assert sender.docmd("DATA")[0] == 354
    assert sender.sock is not None
    sender.sock.sendall(MAIL[:1_000])
    began_s = time.monotonic()
    assert new_ferry.stop() == 0
    assert 7.0 < time.monotonic() - began_s < 15.0
    assert rest_of(client.sock) == b""
    assert rest_of(sender.sock) == b""
    assert len(new_ferry.log_lines("session closed", 'reason="stopping, unfinished"')) == 2
    new_ferry.serve()
    with sending(new_ferry, person) as again:
        again.sendmail(person.upn, person.upn, b"Subject: whole\r\n\r\nx\r\n")
    (message,) = new_ferry.host.delivered(person)
    assert b"Subject: whole" in message
