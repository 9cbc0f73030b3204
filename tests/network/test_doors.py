"""The listening sockets: where they are, whose, and how one set of them becomes another, wholly or not at all."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from proxy.config.settings import Listener, ListenerTls
from proxy.network import doors as doors_module
from proxy.network.doors import CannotListen, Doors
from proxy.network.handed import Handed
from proxy.network.port import Port, bind
from proxy.network.session import Door
from proxy.protocols import PROTOCOLS
from tests.network.house import listener
from tests.network.turning import TurningReactor, open_descriptors


class Quay:
    """Doors, and who came in by them: the listener of each connection."""

    def __init__(self, reactor: TurningReactor) -> None:
        self._reactor = reactor
        self.came: list[Listener] = []

    def doors(self, handed: Handed = ()) -> Doors:
        doors = Doors(self._came_in, self._reactor, handed)
        self._reactor.at_end.append(doors.close)
        return doors

    def open(self, *listeners: Listener, handed: Handed = ()) -> Doors:
        doors = self.doors(handed)
        doors.become([door(each) for each in listeners])
        return doors

    def come(self, port: Port) -> Listener | None:
        """By this port: the listener that served it; None: turned away at once."""
        before = len(self.came)
        with socket.create_connection((port.address, port.number)) as program:
            program.settimeout(0)
            self._reactor.turn_until(lambda: len(self.came) > before or _at_end(program))
        return self.came[-1] if len(self.came) > before else None

    def _came_in(self, door: Door, sock: socket.socket, peer: object) -> None:
        sock.close()
        self.came.append(door.listener)


def _at_end(program: socket.socket) -> bool:
    try:
        return program.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def door(listener: Listener) -> Door:
    return Door(listener, PROTOCOLS[listener.protocol], None)


@pytest.fixture
def quay(reactor: TurningReactor) -> Quay:
    return Quay(reactor)


@pytest.fixture
def others() -> Iterator[ExitStack]:
    """Other programs, and systemd; they hold sockets."""
    with ExitStack() as stack:
        yield stack


def free_number() -> int:
    with bind("127.0.0.1", 0) as probe:
        return int(probe.getsockname()[1])


def bound_anew(address: str, number: int) -> bool:
    with bind(address, number):
        return True


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# --- binding


def test_each_connection_comes_with_its_door(quay: Quay) -> None:
    places = listener("imap"), listener("smtp")
    doors = quay.open(*places)
    assert [quay.come(port) for port in doors.ports] == list(places)


def test_localhost_without_ipv6_is_ipv4(
    quay: Quay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mailferry")
    bind = socket.socket.bind

    def without_ipv6(sock: socket.socket, address: tuple[str, int]) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        bind(sock, address)

    with monkeypatch.context() as old_machine:
        old_machine.setattr(socket.socket, "bind", without_ipv6)
        doors = quay.open(listener("imap", address="localhost"))
    assert [port.address for port in doors.ports] == ["127.0.0.1"]
    assert "this machine has no IPv6 loopback" in messages(caplog)
    assert quay.come(doors.ports[0])


def test_what_is_listened_on_is_logged(quay: Quay, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mailferry")
    (port,) = quay.open(listener("pop3")).ports
    assert vars(caplog.records[0])["fields"] == {
        "listener": "pop3",
        "address": "127.0.0.1",
        "port": port.number,
        "tls": "off",
        "held_by": None,
    }


@pytest.mark.parametrize(
    ("wanted", "taken"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("localhost", "::1")]
)
def test_an_address_that_is_taken_leaves_nothing_bound(quay: Quay, others: ExitStack, wanted: str, taken: str) -> None:
    number = others.enter_context(bind(taken, 0)).getsockname()[1]
    free = free_number()
    before = open_descriptors()
    doors = quay.doors()
    with pytest.raises(CannotListen, match=rf"^smtp cannot listen on {taken} port {number}: Address already in use$"):
        doors.become([door(listener("imap", port=free)), door(listener("smtp", address=wanted, port=number))])
    assert doors.ports == []
    assert open_descriptors() == before
    assert bound_anew("127.0.0.1", free)


def test_an_address_of_another_machine_cannot_be_had(quay: Quay) -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1 port 1143: Cannot assign requested address$"):
        quay.open(listener("imap", address="192.0.2.1", port=1143))


# --- becoming others


def test_what_stays_is_not_touched_what_comes_is_bound_what_goes_is_closed(quay: Quay) -> None:
    stays, goes, comes = listener("imap"), listener("pop3"), listener("smtp")
    doors = quay.open(stays, goes)
    imap, pop3 = doors.ports
    doors.become([door(comes), door(stays)])
    assert doors.ports[0] is imap, "the very socket: who waits in its queue is served"
    assert bound_anew(pop3.address, pop3.number)
    assert [quay.come(port) for port in doors.ports] == [stays, comes]


def test_an_open_socket_takes_the_new_settings(quay: Quay, caplog: pytest.LogCaptureFixture) -> None:
    number = free_number()
    doors = quay.open(listener("imap", port=number))
    caplog.set_level("INFO", "mailferry")
    (port,) = doors.ports
    changed = listener("imap", ListenerTls.IMPLICIT, port=number)
    doors.become([door(changed)])
    assert doors.ports == [port]
    assert quay.come(port) is changed
    assert [vars(record)["fields"]["tls"] for record in caplog.records] == ["implicit"], "and it is said"


def test_the_same_again_is_silent(quay: Quay, caplog: pytest.LogCaptureFixture) -> None:
    place = listener("imap", address="localhost")
    doors = quay.open(place)
    before = doors.ports
    caplog.set_level("INFO", "mailferry")
    doors.become([door(place)])
    assert doors.ports == before
    assert messages(caplog) == []


def test_two_that_take_any_port_keep_their_own(quay: Quay) -> None:
    imap, pop3 = listener("imap"), listener("pop3")
    doors = quay.open(imap, pop3)
    first, second = doors.ports
    doors.become([door(pop3), door(imap)])
    assert (quay.come(first), quay.come(second)) == (imap, pop3)


@pytest.mark.parametrize(("before", "after"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "localhost")])
def test_the_same_port_at_another_address(quay: Quay, before: str, after: str) -> None:
    """Both at once cannot be bound: the one is closed just before the other opens."""
    number = free_number()
    doors = quay.open(listener("imap", address=before, port=number))
    new = listener("imap", address=after, port=number)
    doors.become([door(new)])
    assert {port.address for port in doors.ports} >= {"127.0.0.1" if after == "localhost" else after}
    assert all(quay.come(port) is new for port in doors.ports if port.address != "0.0.0.0")


def test_ports_may_be_exchanged(quay: Quay) -> None:
    one, two = free_number(), free_number()
    doors = quay.open(listener("imap", port=one), listener("pop3", port=two))
    doors.become([door(listener("imap", port=two)), door(listener("pop3", port=one))])
    served = {port.number: quay.come(port) for port in doors.ports}
    assert {number: each.protocol for number, each in served.items() if each} == {one: "pop3", two: "imap"}


def test_one_that_cannot_be_had_leaves_all_as_it_was(quay: Quay, others: ExitStack) -> None:
    taken = others.enter_context(bind("127.0.0.1", 0)).getsockname()[1]
    number, free = free_number(), free_number()
    moved = listener("imap", address="127.0.0.1", port=number)
    stays = listener("pop3")
    doors = quay.open(moved, stays)
    numbers = [port.number for port in doors.ports]
    before = len(open_descriptors())
    with pytest.raises(CannotListen, match=f"smtp cannot listen on 127.0.0.1 port {taken}: Address already in use"):
        doors.become(
            [
                door(listener("imap", address="0.0.0.0", port=number)),
                door(listener("pop3", ListenerTls.IMPLICIT)),
                door(listener("imap", port=free)),
                door(listener("smtp", port=taken)),
            ]
        )
    assert [port.number for port in doors.ports] == numbers
    assert [quay.come(port) for port in doors.ports] == [moved, stays], "with the settings of before"
    assert len(open_descriptors()) == before
    assert bound_anew("127.0.0.1", free)


def test_a_port_that_is_snatched_away_while_it_was_closed_is_told(
    quay: Quay, others: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    number = free_number()
    doors = quay.open(listener("imap", port=number))

    def snatched(address: str, number: int) -> socket.socket:
        if address != "127.0.0.1":
            others.enter_context(bind("127.0.0.1", number))
        return bind(address, number)

    monkeypatch.setattr(doors_module, "bind", snatched)
    with pytest.raises(CannotListen):
        doors.become([door(listener("imap", address="0.0.0.0", port=number))])
    assert messages(caplog) == ["port lost"]
    assert not doors.ports[0].accepts, "which the watchdog sees"


# --- systemd's sockets


def held(others: ExitStack, address: str = "127.0.0.1", number: int = 0) -> socket.socket:
    """A socket that systemd listens on too."""
    return others.enter_context(bind(address, number))


def test_a_socket_of_systemds_is_listened_on(quay: Quay, others: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mailferry")
    its = held(others)
    place = listener("imap", address="localhost", port=its.getsockname()[1])
    (port,) = quay.open(place, handed=[("mailferry", its.dup())]).ports
    assert vars(caplog.records[0])["fields"]["held_by"] == "systemd"
    assert quay.come(port) is place


def test_both_families_of_systemds(quay: Quay, others: ExitStack) -> None:
    four = held(others)
    six = held(others, "::1", four.getsockname()[1])
    place = listener("imap", address="localhost", port=four.getsockname()[1])
    doors = quay.open(place, handed=[("mailferry", four.dup()), ("mailferry", six.dup())])
    assert [quay.come(port) for port in doors.ports] == [place, place]


def test_who_comes_while_nobody_listens_is_served_by_the_next(
    quay: Quay, others: ExitStack, reactor: TurningReactor
) -> None:
    its = held(others)
    place = listener("imap", port=its.getsockname()[1])
    quay.open(place, handed=[("mailferry", its.dup())]).close()
    others.enter_context(socket.create_connection(its.getsockname()))
    quay.open(place, handed=[("mailferry", its.dup())])
    reactor.turn_until(lambda: quay.came == [place])


@pytest.mark.parametrize(
    ("name", "address", "step"),
    [("doors", "127.0.0.1", 0), ("mailferry", "127.0.0.1", 1), ("mailferry", "0.0.0.0", 0)],
)
def test_a_socket_is_a_listeners_by_name_address_and_port(
    quay: Quay, others: ExitStack, caplog: pytest.LogCaptureFixture, name: str, address: str, step: int
) -> None:
    its = held(others)
    number = its.getsockname()[1]
    sockets = [(name, its.dup())]
    its.close()
    doors = quay.doors(sockets)
    elsewhere = listener("imap", address=address, port=number + step)
    if step:
        doors.become([door(elsewhere)])
        assert quay.come(doors.ports[0]) is elsewhere
    else:
        with pytest.raises(CannotListen, match="Address already in use"):
            doors.become([door(elsewhere)])
        doors.become([])
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.getMessage() == "no listener for a socket of systemd's"
    assert vars(record)["fields"]["port"] == number
    assert vars(record)["fields"]["socket"] == name
    assert quay.come(doors.ports[-1]) is None, "at once, where in a queue that nobody reads it would wait"


def test_a_socket_of_systemds_may_be_wanted_again(quay: Quay, others: ExitStack) -> None:
    its = held(others)
    place = listener("imap", port=its.getsockname()[1])
    doors = quay.open(place, handed=[("mailferry", its.dup())])
    (port,) = doors.ports
    doors.become([])
    assert quay.come(port) is None
    doors.become([door(place)])
    assert doors.ports == [port]
    assert quay.come(port) is place
