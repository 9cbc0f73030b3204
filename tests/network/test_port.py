"""The listening socket: it takes whoever waits, rests when nothing can be opened, and says who came."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from proxy.network import port as port_module
from proxy.network.port import PAUSE_WITHOUT_DESCRIPTORS_S, Port, bind
from tests.network.scarcity import no_descriptors
from tests.network.turning import TurningReactor

A_MOMENT_S = 0.01

Knock = Callable[[Port], socket.socket]


class Hall:
    """Where the accepted sockets go, and whence the ports come."""

    def __init__(self, reactor: TurningReactor) -> None:
        self._reactor = reactor
        self.guests: list[tuple[socket.socket, IPv4Address | IPv6Address]] = []

    def open(self, address: str = "127.0.0.1", number: int = 0) -> Port:
        port = Port(bind(address, number), lambda sock, peer: self.guests.append((sock, peer)), self._reactor)
        self._reactor.at_end += [port.close, self._send_home]
        return port

    @property
    def peers(self) -> list[IPv4Address | IPv6Address]:
        return [peer for _, peer in self.guests]

    def _send_home(self) -> None:
        for guest, _ in self.guests:
            guest.close()


@pytest.fixture
def hall(reactor: TurningReactor) -> Hall:
    return Hall(reactor)


@pytest.fixture
def knock(reactor: TurningReactor) -> Knock:
    def connect(port: Port) -> socket.socket:
        client = socket.create_connection((port.address, port.number))
        reactor.at_end.append(client.close)
        return client

    return connect


# --- binding


def test_it_is_bound_where_it_says(hall: Hall, knock: Knock, reactor: TurningReactor) -> None:
    port = hall.open()
    assert port.address == "127.0.0.1"
    client = knock(port)
    reactor.settle()
    (accepted, peer), *others = hall.guests
    assert others == []
    assert peer == ip_address("127.0.0.1")
    assert accepted.getpeername() == client.getsockname()


def test_it_listens_on_ipv6(hall: Hall, knock: Knock, reactor: TurningReactor) -> None:
    knock(hall.open("::1"))
    reactor.settle()
    assert hall.peers == [ip_address("::1")]


@pytest.mark.parametrize(
    ("address", "why"), [("127.0.0.1", "Address already in use"), ("192.0.2.1", "Cannot assign requested address")]
)
def test_an_address_that_cannot_be_had(hall: Hall, reactor: TurningReactor, address: str, why: str) -> None:
    taken = hall.open()
    with pytest.raises(OSError, match=why):
        hall.open(address, taken.number)
    assert reactor.getReaders() == [taken]


def test_all_of_ipv6_leaves_ipv4_to_another(hall: Hall) -> None:
    six = hall.open("::")
    assert hall.open("0.0.0.0", six.number).number == six.number


# --- accepting


def test_it_accepts_several_a_turn_and_the_rest_in_the_next(
    hall: Hall, knock: Knock, reactor: TurningReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_module, "ACCEPTS_A_TURN", 3)
    port = hall.open()
    for _ in range(5):
        knock(port)
    reactor.turn()
    assert len(hall.guests) == 3
    reactor.turn()
    assert len(hall.guests) == 5


def test_one_who_left_while_he_waited_costs_nobody_else_the_door(
    hall: Hall, knock: Knock, reactor: TurningReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = hall.open()
    knock(port)

    def aborted(_: socket.socket) -> None:
        monkeypatch.undo()
        raise ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")

    monkeypatch.setattr(socket.socket, "accept", aborted)
    reactor.turn()
    assert not hall.guests
    assert not reactor.getDelayedCalls(), "no reason to rest"
    reactor.settle()
    assert len(hall.guests) == 1


# --- proving that it accepts


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_connection_of_its_own_is_accepted_and_is_nobody(hall: Hall, reactor: TurningReactor, address: str) -> None:
    port = hall.open(address)
    for _ in range(2):
        port.begin_proof()
        reactor.settle()
        assert port.end_proof()
    assert hall.guests == []


def test_who_comes_meanwhile_is_somebody(hall: Hall, knock: Knock, reactor: TurningReactor) -> None:
    port = hall.open()
    port.begin_proof()
    knock(port)
    reactor.settle()
    assert port.end_proof()
    assert len(hall.guests) == 1


def test_a_port_that_does_not_accept(hall: Hall, reactor: TurningReactor) -> None:
    port = hall.open()
    port.begin_proof()
    assert not port.end_proof(), "the reactor has not turned"
    reactor.removeReader(port)
    port.begin_proof()
    reactor.settle()
    assert not port.end_proof(), "nobody looks at the socket"


def test_a_port_that_was_lost(hall: Hall, reactor: TurningReactor) -> None:
    port = hall.open()
    port.connectionLost(Failure(ConnectionLost()))
    port.begin_proof()
    reactor.settle()
    assert not port.end_proof()


def test_a_socket_that_no_longer_listens(hall: Hall, reactor: TurningReactor) -> None:
    listening = bind("127.0.0.1", 0)
    port = Port(listening, lambda *_: None, reactor)
    reactor.at_end.append(port.close)
    listening.shutdown(socket.SHUT_RDWR)
    reactor.removeReader(port)
    port.begin_proof()
    reactor.settle()
    assert not port.end_proof()


def test_what_a_restart_would_not_mend_counts_as_accepting(
    hall: Hall, reactor: TurningReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = hall.open()
    with monkeypatch.context() as without_way:
        without_way.setattr(port_module, "_ANY", {"127.0.0.1": "255.255.255.255"})  # as when an interface is down
        port.begin_proof()
        reactor.settle()
        assert port.end_proof()
    monkeypatch.setattr(port, "_resting", True)
    port.begin_proof()
    assert port.end_proof(), "it rests, and knows why"
    assert not port.accepts, "but nobody comes in"


# --- out of descriptors


def test_without_descriptors_it_rests_and_resumes(
    hall: Hall, knock: Knock, reactor: TurningReactor, caplog: pytest.LogCaptureFixture
) -> None:
    port = hall.open()
    for _ in range(2):
        knock(port)
    with no_descriptors():
        reactor.settle()
        assert reactor.getReaders() == []
        reactor.pass_time(PAUSE_WITHOUT_DESCRIPTORS_S)
        assert reactor.getReaders() == [], "it looked again, and there were none"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("ERROR", "cannot accept")] * 2
    reactor.pass_time(PAUSE_WITHOUT_DESCRIPTORS_S - A_MOMENT_S)
    assert not hall.guests
    reactor.pass_time(A_MOMENT_S)
    assert len(hall.guests) == 2, "who waited is let in"


def test_closed_while_it_rests_it_stays_closed(hall: Hall, knock: Knock, reactor: TurningReactor) -> None:
    port = hall.open()
    knock(port)
    with no_descriptors():
        reactor.settle()
    port.close()
    reactor.pass_time(PAUSE_WITHOUT_DESCRIPTORS_S)
    assert reactor.getReaders() == []
    assert not hall.guests


# --- who came


def test_a_mapped_ipv4_peer_is_an_ipv4_peer(
    hall: Hall, reactor: TurningReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_server", partial(socket.create_server, dualstack_ipv6=True))
    port = hall.open("::")
    client = socket.create_connection(("127.0.0.1", port.number))
    reactor.settle()
    assert hall.guests[0][0].getpeername()[0] == "::ffff:127.0.0.1"
    assert hall.peers == [IPv4Address("127.0.0.1")]
    client.close()


def test_a_link_local_peer_has_no_zone(
    hall: Hall, knock: Knock, reactor: TurningReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = hall.open("::1")
    knock(port)
    accept = socket.socket.accept

    def from_the_link(listening: socket.socket) -> tuple[socket.socket, tuple[str, int, int, int]]:
        return accept(listening)[0], ("fe80::1%eth0", 50_000, 0, 2)

    monkeypatch.setattr(socket.socket, "accept", from_the_link)
    reactor.settle()
    assert hall.peers == [IPv6Address("fe80::1")]


# --- closing


def test_closed_it_refuses_and_frees_its_address(hall: Hall, knock: Knock, reactor: TurningReactor) -> None:
    port = hall.open()
    knock(port)
    reactor.settle()
    port.close()
    port.close()
    assert reactor.getReaders() == []
    with pytest.raises(ConnectionRefusedError):
        knock(port)
    again = hall.open(number=port.number)  # while a guest of the first is still here
    knock(again)
    reactor.settle()
    assert len(hall.guests) == 2


def test_lost_it_says_so_and_closes(
    hall: Hall, knock: Knock, reactor: TurningReactor, caplog: pytest.LogCaptureFixture
) -> None:
    port = hall.open()
    port.connectionLost(Failure(ConnectionLost()))
    assert [record.getMessage() for record in caplog.records] == ["listening socket lost"]
    assert reactor.getReaders() == []
    with pytest.raises(ConnectionRefusedError):
        knock(port)
