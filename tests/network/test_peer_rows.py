"""PEERS section 3, the rows that are a session's own; the others are in `tests/end_to_end/test_peer_rows.py`."""

from __future__ import annotations

import socket
from dataclasses import replace

from twisted.internet.defer import Deferred

from proxy.config.settings import Cloud, Upstream, UpstreamTls
from proxy.demo.certificates import LocalCertificate
from proxy.log import Log
from proxy.network.mailboxes import OPENING_LIMIT_S
from proxy.network.session import Door, Session
from proxy.network.stream import Stream
from proxy.protocols import PROTOCOLS
from tests.network.house import LOGIN, PASSWORD, PEER, House, Mailbox, house, listener
from tests.network.turning import Peer, TurningReactor, socket_pair

IMAP_LOGIN = b"a LOGIN " + LOGIN + b" " + PASSWORD + b"\r\n"
POP3_LOGIN = b"USER " + LOGIN + b"\r\nPASS " + PASSWORD + b"\r\n"


def _program(reactor: TurningReactor, home: House, protocol: str) -> Peer:
    """A mail program that has been greeted."""
    near, far = socket_pair("tcp")
    door = Door(listener(protocol), PROTOCOLS[protocol], None)  # type: ignore[arg-type]
    session, program = Session(door, home.services, PEER, Log("session")), Peer(far, reactor)
    Deferred.fromCoroutine(session.run(Stream(near, reactor)))
    reactor.turn_until(lambda: program.got.endswith(b"\r\n"), waiting_for="the greeting")
    program.take()
    return program


def test_peer_row_17_a_name_that_nobody_answers_keeps_no_other_session_waiting(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    """The rival: DNS on the accept thread."""
    mailbox = Mailbox(reactor, certificate, "pop3")
    home = house(reactor, mailbox)
    unknown = Upstream("nobody.answers.test", 993, UpstreamTls.IMPLICIT, None)
    known = replace(mailbox.upstream, host="127.0.0.1")  # an address, for which no resolver is asked
    mailboxes = home.services.mailboxes
    upstreams = {**mailboxes.config.upstreams, (Cloud.GLOBAL, "imap"): unknown, (Cloud.GLOBAL, "pop3"): known}
    mailboxes.use(replace(mailboxes.config, upstreams=upstreams))
    reactor.resolver.holds = True

    waiting = _program(reactor, home, "imap")
    waiting.say(IMAP_LOGIN)
    reactor.turn_until(lambda: (unknown.host, unknown.port) in reactor.resolver.asked, waiting_for="the question")
    other = _program(reactor, home, "pop3")
    other.say(POP3_LOGIN)
    reactor.turn_until(lambda: other.got.count(b"+OK") == 2, waiting_for="the other one's login")
    assert not waiting.got

    reactor.pass_time(OPENING_LIMIT_S)
    reactor.turn_until(lambda: b"a NO" in waiting.got, waiting_for="a refusal in time")
    assert b"a NO [UNAVAILABLE] " in waiting.got


def test_peer_row_24_nothing_is_held_back_on_either_leg(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    """The rival: no TCP_NODELAY; 40-90 ms more for an IMAP login."""
    home = house(reactor, Mailbox(reactor, certificate))
    program = _program(reactor, home, "imap")
    program.say(IMAP_LOGIN)
    reactor.turn_until(lambda: b"a OK" in program.got, waiting_for="the login")
    legs = [reader.fileno() for reader in reactor.getReaders() if isinstance(reader, Stream)]
    assert len(legs) == 2
    for leg in legs:
        with socket.socket(fileno=socket.dup(leg)) as same:
            assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
