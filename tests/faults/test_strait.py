"""The strait by itself: it changes nothing, and strikes at the octet it was told."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.faults.strait import How, Storm, Strait

SENT = os.urandom(100_000)
AFTER_OCTETS = 30_001
PATIENCE_S = 10.0
SILENCE_S = 0.3


class Echo:
    """Keeps what comes, and sends it back."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.came = b""
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            sock, _ = self._listening.accept()
            with sock:
                while data := sock.recv(65_536):
                    self.came += data
                    sock.sendall(data)
        self.ended.set()

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def strait(echo: Echo) -> Iterator[Strait]:
    with Strait(echo.port) as strait:
        yield strait


@pytest.fixture
def client(strait: Strait) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", strait.port), PATIENCE_S) as sock:
        yield sock


def _send(client: socket.socket) -> None:
    with suppress(OSError):
        client.sendall(SENT)
        client.shutdown(socket.SHUT_WR)


def _received(client: socket.socket) -> bytes:
    came = b""
    with suppress(OSError):
        while data := client.recv(65_536):
            came += data
    return came


def _exchange(client: socket.socket) -> bytes:
    threading.Thread(target=_send, args=(client,), daemon=True).start()
    return _received(client)


def test_in_calm_all_octets_pass_both_ways(echo: Echo, client: socket.socket) -> None:
    assert _exchange(client) == SENT
    assert echo.came == SENT


@pytest.mark.parametrize("how", [How.CLOSED, How.RESET])
def test_a_cut_delivers_what_was_before_it_and_no_more(
    how: How, echo: Echo, strait: Strait, client: socket.socket
) -> None:
    strait.strike(Storm(how, "server", AFTER_OCTETS))
    _exchange(client)
    assert echo.ended.wait(PATIENCE_S)
    assert SENT.startswith(echo.came)
    assert len(echo.came) <= AFTER_OCTETS
    assert strait.struck == 1
    if how is How.CLOSED:  # a reset may overtake what was sent
        assert len(echo.came) == AFTER_OCTETS


def test_what_is_swallowed_is_delivered_in_calm(echo: Echo, strait: Strait, client: socket.socket) -> None:
    strait.strike(Storm(How.BLACKHOLE, "server", AFTER_OCTETS))
    threading.Thread(target=_send, args=(client,), daemon=True).start()
    assert not echo.ended.wait(SILENCE_S)
    assert len(echo.came) == AFTER_OCTETS
    strait.calm()
    assert _received(client) == SENT


def test_a_trickle_loses_nothing(strait: Strait, client: socket.socket) -> None:
    strait.strike(Storm(How.TRICKLE, "client", AFTER_OCTETS))
    assert _exchange(client) == SENT
    assert strait.struck == 1
