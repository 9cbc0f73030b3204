"""What systemd hands over: read once, and believed only if it is for us."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from proxy.network.handed import Handed, take
from proxy.network.port import bind
from tests.network.turning import open_descriptors


class Manager:
    """systemd's side: sockets at descriptors in a row, and the variables that tell of them."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.first = 900  # in a test's own process the descriptors from 3 on are taken

    def environ(self, *sockets: socket.socket, names: str = "", pid: int = 0) -> dict[str, str]:
        for index, sock in enumerate(sockets):
            os.dup2(self._open.enter_context(sock).fileno(), self.first + index)
        return {
            "LISTEN_PID": str(pid or os.getpid()),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": names,
            "LANG": "C",
        }

    def close(self, count: int = 0) -> None:
        self._open.close()
        for index in range(count):
            os.close(self.first + index)


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    yield manager
    manager.close()


def test_sockets_come_with_their_names(manager: Manager) -> None:
    four = bind("127.0.0.1", 0)
    six = bind("::1", four.getsockname()[1])
    expected = [("mailferry", four.getsockname()), ("doors", six.getsockname())]
    environ = manager.environ(four, six, names="mailferry:doors")
    handed = take(environ, manager.first)
    assert [(name, sock.getsockname()) for name, sock in handed] == expected
    assert not any(sock.get_inheritable() for _, sock in handed)
    assert environ == {"LANG": "C"}, "no child believes that they are for it"
    close(handed)


def close(handed: Handed) -> None:
    for _, sock in handed:
        sock.close()


@pytest.mark.parametrize(
    "change",
    [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": "x"}, {"LISTEN_FDS": "99999999"}, {"LISTEN_FDS": "-1"}],
)
def test_what_is_not_for_us_is_let_be(manager: Manager, change: dict[str, str]) -> None:
    environ = {**manager.environ(bind("127.0.0.1", 0)), **change}
    before = open_descriptors()
    assert take(environ, manager.first) == []
    assert open_descriptors() == before
    assert not [name for name in environ if name.startswith("LISTEN")]
    manager.close(1)


def test_without_systemd_there_is_nothing() -> None:
    assert take({}) == []


def test_what_does_not_listen_for_tcp_is_told_and_closed(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    before = open_descriptors()
    datagrams, unbound = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    environ = manager.environ(datagrams, unbound) | {"LISTEN_FDS": "3"}
    assert take(environ, manager.first) == []
    assert [record.getMessage() for record in caplog.records] == [
        *["systemd handed over a socket that does not listen for TCP"] * 2,
        "systemd handed over what is no socket",
    ]
    manager.close()
    assert open_descriptors() == before


def test_a_socket_without_a_name(manager: Manager) -> None:
    handed = take(manager.environ(bind("127.0.0.1", 0)), manager.first)
    assert [name for name, _ in handed] == ["unknown"]
    close(handed)
