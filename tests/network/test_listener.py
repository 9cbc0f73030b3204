"""The ferry: where it listens, who may come in, and how it stops. What sessions do is `test_session.py`'s."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from proxy.accounts.passdb import PassDb
from proxy.config.settings import Account, Listener, ListenerTls
from proxy.login import Credentials, Fault, LoginRefused, Refusal
from proxy.network import listener as listener_module
from proxy.network.listener import DRAIN_LIMIT_S, Ferry
from proxy.network.port import Port, bind
from proxy.network.session import Services
from tests.network.house import house, listener
from tests.network.turning import Peer, TurningReactor, result, watch

CROWD = 300
A_MOMENT_S = 0.01
IMAP, POP3, SMTP = b"* OK", b"+OK", b"220 "


class Doorman:
    """A passdb that lets nobody in, in words by which it is known; while it `holds`, all wait for `answer_one`."""

    def __init__(self, words: str = "the first passdb") -> None:
        self._words = words
        self.holds = False
        self._waiting: list[Deferred[None]] = []
        self.peers: list[IPv4Address | IPv6Address] = []

    async def verify(
        self, credentials: Credentials, *, protocol: str, peer: IPv4Address | IPv6Address, before_hashing: object
    ) -> Account:
        self.peers.append(peer)
        if self.holds:
            await self._hold()
        raise LoginRefused(Refusal.TRY_LATER, self._words, fault=Fault.MAILFERRY)

    async def _hold(self) -> None:
        """It does not let go, though the login be given up."""
        turn: Deferred[None] = Deferred()
        self._waiting.append(turn)
        with suppress(CancelledError):
            await turn
            return
        self._waiting[self._waiting.index(turn)] = again = Deferred[None]()
        await again

    def answer_one(self) -> None:
        self._waiting.pop(0).callback(None)

    def as_passdb(self) -> PassDb:
        return cast("PassDb", self)


class Program:
    """A mail program at one of the ferry's ports."""

    def __init__(self, peer: Peer, reactor: TurningReactor) -> None:
        self.peer, self._reactor = peer, reactor

    def hears(self, words: bytes) -> bool:
        self._reactor.turn_until(lambda: words in self.peer.got, waiting_for=words.decode())
        self.peer.take()
        return True

    def is_turned_away(self) -> bool:
        self._reactor.turn_until(lambda: self.peer.at_eof or self.peer.lost, waiting_for="the ferry to close")
        return not self.peer.got

    def is_told(self, words: bytes) -> bool:
        """These, and then the end."""
        self._reactor.turn_until(lambda: self.peer.at_eof, waiting_for="the ferry to close")
        self.leave()
        return self.peer.take().startswith(words)

    def log_in(self) -> None:
        """In POP3."""
        self.peer.say(b"USER alice\r\nPASS secret\r\n")

    def leave(self) -> None:
        self.peer.close()


class Harbour:
    """Ferries, and mail programs that come to them."""

    def __init__(self, reactor: TurningReactor, services: Services) -> None:
        self._reactor, self.services = reactor, services

    def ferry(self) -> Ferry:
        ferry = Ferry(self.services)
        self._reactor.at_end.append(lambda: self._stop(ferry))
        return ferry

    def started(self, *listeners: Listener) -> Ferry:
        ferry = self.ferry()
        ferry.listen([(each, None) for each in listeners])
        return ferry

    def ports(self) -> list[Port]:
        return [port for port in self._reactor.getReaders() if isinstance(port, Port)]

    def come(self, port: Port | None = None, *, source: str = "") -> Program:
        """To this port, or to the only one."""
        (port,) = [port] if port else self.ports()
        origin = (source, 0) if source else None
        return self.at(socket.create_connection((port.address, port.number), source_address=origin))

    def at(self, sock: socket.socket) -> Program:
        return Program(Peer(sock, self._reactor), self._reactor)

    def _stop(self, ferry: Ferry) -> None:
        for peer in self._reactor.peers:
            peer.close()
        result(Deferred.fromCoroutine(ferry.stop()), self._reactor)


@pytest.fixture
def doorman() -> Doorman:
    return Doorman()


@pytest.fixture
def harbour(reactor: TurningReactor, doorman: Doorman) -> Harbour:
    return Harbour(reactor, replace(house(reactor).services, passdb=doorman.as_passdb()))


@pytest.fixture
def other_programs() -> Iterator[ExitStack]:
    """They hold what the ferry wants."""
    with ExitStack() as stack:
        yield stack


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    """What was logged, and the reason where there is one."""
    return [(record.getMessage(), vars(record)["fields"].get("reason")) for record in caplog.records]


def bound_anew(address: str, number: int) -> bool:
    with bind(address, number):
        return True


# --- listening


def test_every_listener_speaks_its_protocol(harbour: Harbour) -> None:
    harbour.started(listener("imap"), listener("pop3"), listener("smtp"))
    for port, greeting in zip(harbour.ports(), (IMAP, POP3, SMTP), strict=True):
        assert harbour.come(port).hears(greeting)


def test_localhost_is_both_families_and_port_0_the_same_port(harbour: Harbour) -> None:
    harbour.started(listener("imap", address="localhost"))
    four, six = harbour.ports()
    assert (four.address, six.address) == ("127.0.0.1", "::1")
    assert four.number == six.number != 0
    assert harbour.come(four).hears(IMAP)
    assert harbour.come(six).hears(IMAP)


def test_every_port_proves_that_it_accepts_and_no_session_comes_of_it(
    harbour: Harbour, reactor: TurningReactor
) -> None:
    ferry = harbour.started(listener("imap", address="localhost"), listener("smtp"))
    ferry.begin_proof()
    reactor.settle()
    assert (ferry.deaf(), ferry.shut(), ferry.sessions) == ([], [], 0)
    port = harbour.ports()[-1]
    reactor.removeReader(port)
    ferry.begin_proof()
    reactor.settle()
    assert ferry.deaf() == [f"127.0.0.1 {port.number}"]
    name = f"127.0.0.1 {port.number}"
    port.close()
    assert ferry.shut() == [name]


# --- who may come in


@pytest.mark.parametrize(
    ("allow_from", "welcome", "unwelcome"),
    [
        (["127.0.0.1/32"], ["127.0.0.1"], ["127.0.0.2"]),
        (["2001:db8::/32", "127.0.0.2/31"], ["127.0.0.2", "127.0.0.3"], ["127.0.0.1"]),
        (["::/0"], [], ["127.0.0.1"]),
        ([], ["127.0.0.1", "127.0.0.2"], []),
    ],
)
def test_allow_from_says_who_may_come_in(
    harbour: Harbour,
    reactor: TurningReactor,
    caplog: pytest.LogCaptureFixture,
    allow_from: Sequence[str],
    welcome: Sequence[str],
    unwelcome: Sequence[str],
) -> None:
    ferry = harbour.started(listener("imap", allow_from=tuple(map(ip_network, allow_from))))
    for source in unwelcome:
        assert harbour.come(source=source).is_told(b"* BYE Connections from %s are not allowed " % source.encode())
        refused = next(record for record in caplog.records if record.getMessage() == "connection refused")
        assert vars(refused)["fields"]["peer"] == source
    for source in welcome:
        assert harbour.come(source=source).hears(IMAP)
    reactor.turn_until(lambda: ferry.sessions == len(welcome))


def test_allow_from_is_of_its_own_listener(harbour: Harbour) -> None:
    harbour.started(listener("pop3", allow_from=(ip_network("192.0.2.0/24"),)), listener("smtp"))
    pop3, smtp = harbour.ports()
    assert harbour.come(pop3).is_told(b"-ERR [SYS/PERM] Connections from 127.0.0.1 ")
    assert harbour.come(smtp).hears(SMTP)


def test_sessions_are_told_who_came(harbour: Harbour, doorman: Doorman) -> None:
    harbour.started(listener("pop3"))
    program = harbour.come(source="127.0.0.7")
    program.log_in()
    assert program.hears(b"the first passdb")
    assert doorman.peers == [IPv4Address("127.0.0.7")]


# --- how many


def test_a_crowd_that_comes_at_once_is_served(harbour: Harbour, reactor: TurningReactor) -> None:
    ferry = harbour.started(listener("imap"))
    crowd = [harbour.come() for _ in range(CROWD)]
    assert all(program.hears(IMAP) for program in crowd)
    assert ferry.sessions == CROWD
    for program in crowd:
        program.leave()
    reactor.turn_until(lambda: not ferry.sessions)


def test_beyond_so_many_sessions_the_next_is_turned_away(
    harbour: Harbour, reactor: TurningReactor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "MAX_SESSIONS", 2)
    ferry = harbour.started(listener("imap"), listener("pop3"))
    imap, pop3 = harbour.ports()
    first = harbour.come(imap)
    assert first.hears(IMAP)
    assert harbour.come(pop3).hears(POP3)
    assert harbour.come(imap).is_turned_away()
    assert events(caplog) == [("connection refused", "too many sessions")]
    assert ferry.connections == {"imap": 1, "pop3": 1}
    first.leave()
    reactor.turn_until(lambda: ferry.sessions == 1)
    assert harbour.come(imap).hears(IMAP)


def test_a_session_that_fails_is_closed_and_logged_and_harms_no_other(
    harbour: Harbour, reactor: TurningReactor, caplog: pytest.LogCaptureFixture
) -> None:
    ferry = harbour.started(listener("imap"), listener("pop3", ListenerTls.IMPLICIT))  # with nothing to show
    imap, pop3 = harbour.ports()
    other = harbour.come(imap)
    assert other.hears(IMAP)
    assert harbour.come(pop3).is_turned_away()
    (failed,) = [record for record in caplog.records if record.getMessage() == "session failed"]
    assert failed.exc_info is not None
    assert ferry.sessions == 1
    other.peer.say(b"a1 NOOP\r\n")
    assert other.hears(b"a1 OK")
    assert harbour.come(imap).hears(IMAP)


# --- another configuration


def test_a_new_passdb_is_for_new_sessions(harbour: Harbour) -> None:
    ferry = harbour.started(listener("pop3"))
    early = harbour.come()
    assert early.hears(POP3)
    ferry.use(harbour.services.config, Doorman("the second passdb").as_passdb())
    late = harbour.come()
    for program in (late, early):
        program.log_in()
    assert late.hears(b"the second passdb")
    assert early.hears(b"the first passdb")


def test_a_new_configuration_is_for_new_sessions(harbour: Harbour, doorman: Doorman) -> None:
    ferry = harbour.started(listener("smtp"))
    assert harbour.come().hears(b"220 mail.example ")
    ferry.use(replace(harbour.services.config, hostname="other.example"), doorman.as_passdb())
    assert harbour.come().hears(b"220 other.example ")


def test_what_is_promised_is_the_new_upstreams(harbour: Harbour, doorman: Doorman) -> None:
    config = harbour.services.config
    old = config.only_upstream("imap")
    assert old is not None
    new = replace(old, host="new.example")
    harbour.services.mailboxes.announced[old] = ("IMAP4REV1", "IDLE")
    harbour.services.mailboxes.announced[new] = ("IMAP4REV1", "UNSELECT")
    ferry = harbour.started(listener("imap"))
    ferry.use(replace(config, upstreams=dict.fromkeys(config.upstreams, new)), doorman.as_passdb())
    program = harbour.come()
    program.peer.say(b"a1 CAPABILITY\r\n")
    assert program.hears(b"UNSELECT")


def test_other_listeners_are_for_new_sessions(harbour: Harbour, reactor: TurningReactor) -> None:
    ferry = harbour.started(listener("imap"))
    early = harbour.come()
    assert early.hears(IMAP)
    ferry.listen([(listener("pop3"), None)])
    assert harbour.come().hears(POP3)
    early.peer.say(b"a1 NOOP\r\n")
    assert early.hears(b"a1 OK")
    reactor.turn_until(lambda: ferry.connections == {"imap": 1, "pop3": 1})


# --- stopping


def test_with_nobody_there_it_stops_at_once(harbour: Harbour, reactor: TurningReactor) -> None:
    ferry = harbour.started(listener("imap", address="localhost"), listener("smtp"))
    addresses = [(port.address, port.number) for port in harbour.ports()]
    assert watch(Deferred.fromCoroutine(ferry.stop())) == [None]
    assert harbour.ports() == []
    assert all(bound_anew(*address) for address in addresses)
    assert not reactor.getDelayedCalls()


def test_sessions_are_told_that_it_stops(harbour: Harbour, reactor: TurningReactor) -> None:
    ferry = harbour.started(listener("imap"))
    programs = [harbour.come() for _ in range(3)]
    assert all(program.hears(IMAP) for program in programs)
    stopped = watch(Deferred.fromCoroutine(ferry.stop()))
    assert all(program.hears(b"* BYE") for program in programs)
    reactor.turn_until(lambda: all(program.peer.at_eof for program in programs))
    for program in programs:
        program.leave()
    reactor.turn_until(lambda: stopped)
    assert (stopped, ferry.sessions, reactor.seconds()) == ([None], 0, 0)


def test_no_new_session_begins_while_it_stops(harbour: Harbour, doorman: Doorman, reactor: TurningReactor) -> None:
    doorman.holds = True
    ferry = harbour.started(listener("pop3"))
    (port,) = harbour.ports()
    harbour.come().log_in()
    reactor.turn_until(lambda: doorman.peers)
    stopped = watch(Deferred.fromCoroutine(ferry.stop()))
    with pytest.raises(ConnectionRefusedError):
        harbour.come(port)
    assert not stopped
    doorman.answer_one()


def test_it_waits_for_the_last_session_that_needs_a_while(
    harbour: Harbour, doorman: Doorman, reactor: TurningReactor
) -> None:
    doorman.holds = True
    ferry = harbour.started(listener("pop3"))
    for _ in range(2):
        harbour.come().log_in()
    reactor.turn_until(lambda: len(doorman.peers) == 2)
    stopped = watch(Deferred.fromCoroutine(ferry.stop()))
    doorman.answer_one()
    reactor.pass_time(DRAIN_LIMIT_S - A_MOMENT_S)
    assert (stopped, ferry.sessions) == ([], 1)
    doorman.answer_one()
    reactor.settle()
    assert (stopped, ferry.sessions) == ([None], 0)


def test_it_waits_no_longer_than_its_limit(harbour: Harbour, doorman: Doorman, reactor: TurningReactor) -> None:
    doorman.holds = True
    ferry = harbour.started(listener("pop3"))
    harbour.come().log_in()
    reactor.turn_until(lambda: doorman.peers)
    stopped = watch(Deferred.fromCoroutine(ferry.stop()))
    reactor.pass_time(DRAIN_LIMIT_S - A_MOMENT_S)
    assert not stopped
    reactor.pass_time(A_MOMENT_S)
    assert stopped == [None]
    with capturedLogs() as unhandled:
        doorman.answer_one()  # and who ends later disturbs nobody
        reactor.settle()
        gc.collect()
    assert ferry.sessions == 0
    assert not unhandled
