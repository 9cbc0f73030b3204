"""Who only wants to be in the way: thousands of silent or slow connections, and the right owner among them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from proxy.network.lobby import MAX_IN_LOBBY
from proxy.protocols.dialogue import CROWDED_OUT
from tests.end_to_end.exchange import PATIENCE_S
from tests.end_to_end.quay import QuayFerry, announce, mailbox, many_descriptors, scripted_quay, visit

BOX = mailbox(1, "Password-of-berth-1")
CONNECTIONS = 2_600
LINE_OCTETS = 8_000
"""Of a line that does not end; one octet more in 8,192 would be told."""
ENEMY = "127.0.0.2"
MAX_EACH_OCTETS = 64 * 1024
"""What a connection may cost that has not logged in; its line is 8 KiB of it."""
LOGINS = 10


@pytest.fixture(scope="module")
def ferry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuayFerry]:
    with scripted_quay(tmp_path_factory.mktemp("ferry"), [BOX]) as (ferry, exchange, _):
        announce(exchange, "imap", *[visit("imap")] * (LOGINS + 2))
        yield ferry


def test_a_siege_costs_little_memory_and_keeps_nobody_out(ferry: QuayFerry) -> None:
    assert ferry.says("imap", BOX).startswith("a OK"), "what is loaded at the first login is loaded now"
    with many_descriptors(), ExitStack() as stack:
        early = stack.enter_context(closing(ferry.connect("imap")))
        assert early.line().startswith(b"* OK")
        before_octets = ferry.resident_octets()
        enemies = []
        for number in range(CONNECTIONS):
            enemy = socket.create_connection(("127.0.0.1", ferry.ports["imap"]), PATIENCE_S, (ENEMY, 0))
            enemies.append(stack.enter_context(enemy))
            with suppress(ConnectionError):  # it may have had to make room already
                enemy.sendall(b"x" * LINE_OCTETS)
            if number % (CONNECTIONS // LOGINS) == 0:
                assert ferry.says("imap", BOX).startswith("a OK"), f"at {number} hostile connections"
        began_s = time.monotonic()
        assert ferry.says("imap", BOX).startswith("a OK")
        assert time.monotonic() - began_s < PATIENCE_S / 2
        grown_octets = ferry.resident_octets() - before_octets
        assert grown_octets < MAX_IN_LOBBY * MAX_EACH_OCTETS
        early.send(b"a NOOP\r\n")
        assert early.line() == b"a OK NOOP completed", "another address was there first, and is there still"

        told = [_all(enemy) for enemy in enemies[: CONNECTIONS - MAX_IN_LOBBY]]
        assert all(CROWDED_OUT.text.encode() in each or not each for each in told), "the oldest had to go"
        assert sum(CROWDED_OUT.text.encode() in each for each in told) > len(told) / 2, "and most could be told"
        youngest = enemies[-1].makefile("rb")
        assert youngest.readline().startswith(b"* OK")
        enemies[-1].sendall(b"\r\n")
        assert b"BAD" in youngest.readline()


def _all(program: socket.socket) -> bytes:
    heard = b""
    with suppress(ConnectionError):
        while piece := program.recv(65_536):
            heard += piece
    return heard
