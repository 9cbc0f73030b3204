"""A balancer's header is read off the stream, in time or not at all, and what stands behind it stays on the socket."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from proxy.demo.certificates import LocalCertificate
from proxy.network.balancer import HEADER_LIMIT_S, NoHeader, announced_peer
from proxy.network.stream import Stream
from tests.network.legs import Recorder, contexts
from tests.network.turning import Peer, TurningReactor, result, socket_pair, watch

Source = IPv4Address | IPv6Address | None

V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 49298 143\r\n"
V2_HEAD = b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
V2_BLOCK = b"\xc0\0\2\1\xc0\0\2\2\x30\x39\0\x8f"
V2 = V2_HEAD + b"\0\x0c" + V2_BLOCK
V2_TLVS = V2_HEAD + b"\x0f\xff" + V2_BLOCK + b"\4\x0f\xf0" + bytes(0xFF0)
CHECK = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
CLIENT = IPv4Address("192.0.2.1")

every_header = pytest.mark.parametrize("header", [V1, V2, V2_TLVS], ids=["v1", "v2", "v2-tlvs"])


def balanced(reactor: TurningReactor, kind: str = "tcp") -> tuple[Stream, Peer]:
    """A connection from a balancer, just accepted."""
    near, far = socket_pair(kind)
    stream, peer = Stream(near, reactor), Peer(far, reactor)
    reactor.at_end.append(stream.abortConnection)
    return stream, peer


def ask(stream: Stream, reactor: TurningReactor) -> Deferred[Source]:
    return Deferred.fromCoroutine(announced_peer(stream, reactor))


def refusal(outcome: list[Source | Failure], stream: Stream, reactor: TurningReactor) -> str:
    """The one reason, fit for the log; nothing goes on, and the stream can be aborted."""
    (failure,) = outcome
    assert isinstance(failure, Failure)
    assert failure.check(NoHeader)
    assert not reactor.getDelayedCalls()
    assert not reactor.is_reading(stream)
    stream.abortConnection()
    reactor.settle()
    assert stream.fileno() == -1
    reason = failure.getErrorMessage()
    assert reason.isprintable()
    return reason


# --- what stands behind the header


@every_header
def test_a_client_hello_in_the_same_segment_stays_on_the_socket(
    reactor: TurningReactor, certificate: LocalCertificate, header: bytes
) -> None:
    """The handshake runs on the socket itself: a single octet too much, and there is none."""
    server, client = contexts(certificate, None)
    stream, peer = balanced(reactor)
    peer.say_raw(header)
    peer.start_tls(client, server_side=False, server_hostname="localhost")
    peer.say(b"a NOOP\r\n")
    assert result(ask(stream, reactor), reactor) == CLIENT
    assert result(stream.peek(1), reactor) == b"\x16"
    recorder = Recorder()
    stream.open(recorder)
    result(stream.start_tls(server), reactor)
    reactor.turn_until(lambda: recorder.got)
    assert recorder.got == b"a NOOP\r\n"


@every_header
def test_afterwards_the_stream_is_as_before(reactor: TurningReactor, header: bytes) -> None:
    stream, peer = balanced(reactor)
    peer.say(header + b"a NOOP\r\n")
    assert result(ask(stream, reactor), reactor) == CLIENT
    assert not reactor.getDelayedCalls()
    assert not reactor.getReaders()
    assert result(stream.peek(1), reactor) == b"a"
    recorder = Recorder()
    stream.open(recorder)
    stream.write(b"* OK\r\n")
    peer.close_write()
    reactor.turn_until(lambda: recorder.ends)
    assert recorder.got == b"a NOOP\r\n"
    reactor.turn_until(lambda: peer.got)
    assert peer.got == b"* OK\r\n"


def test_the_stream_can_be_opened_at_once_without_a_peek(reactor: TurningReactor) -> None:
    stream, peer = balanced(reactor)
    recorder = Recorder()
    asked = ask(stream, reactor)
    asked.addCallback(lambda _: stream.open(recorder))
    peer.say(V1 + b"QUIT\r\n")
    reactor.turn_until(lambda: recorder.got)
    assert recorder.got == b"QUIT\r\n"


def test_a_balancer_that_speaks_for_itself_announces_nobody(reactor: TurningReactor) -> None:
    stream, peer = balanced(reactor)
    peer.say(CHECK)
    assert result(ask(stream, reactor), reactor) is None


@every_header
def test_a_header_may_come_in_pieces(reactor: TurningReactor, header: bytes) -> None:
    stream, peer = balanced(reactor, "unix")
    asked = watch(ask(stream, reactor))
    for position in range(len(header)):
        assert not asked
        peer.say(header[position : position + 1])
        reactor.turn(2)
    reactor.turn_until(lambda: asked)
    assert asked == [CLIENT]


# --- no header


@pytest.mark.parametrize("said", [b"", V1[:-1], V2[:-1], V2_TLVS[:-1]])
def test_a_header_that_does_not_come_in_time_is_none(reactor: TurningReactor, said: bytes) -> None:
    stream, peer = balanced(reactor)
    peer.say(said)
    asked = watch(ask(stream, reactor))
    reactor.pass_time(HEADER_LIMIT_S - 0.01)
    assert not asked
    reactor.pass_time(0.01)
    assert "within 5 seconds" in refusal(asked, stream, reactor)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3", "does not begin as one"),
        (b"a LOGIN u hunter2\r\n", "does not begin as one"),
        (b"PROXY TCP4 192.0.2.1\r\n", "line is malformed"),
        (V2_HEAD + b"\xff\xff", "announces 65535 octets"),
    ],
)
def test_garbage_is_no_header(reactor: TurningReactor, said: bytes, why: str) -> None:
    stream, peer = balanced(reactor)
    peer.say(said)
    asked = watch(ask(stream, reactor))
    reactor.turn_until(lambda: asked)
    reason = refusal(asked, stream, reactor)
    assert why in reason
    assert "hunter2" not in reason


@pytest.mark.parametrize("said", [b"", V1[:-1], V2[:-1]])
def test_a_balancer_that_leaves_gives_none(reactor: TurningReactor, said: bytes) -> None:
    stream, peer = balanced(reactor)
    peer.say(said)
    peer.close_write()
    asked = watch(ask(stream, reactor))
    reactor.turn_until(lambda: asked)
    assert "left before" in refusal(asked, stream, reactor)


def test_a_balancer_that_resets_gives_none(reactor: TurningReactor) -> None:
    """As a health check does that only connects."""
    stream, peer = balanced(reactor)
    asked = watch(ask(stream, reactor))
    peer.reset()
    reactor.turn_until(lambda: asked)
    assert "connection ended before" in refusal(asked, stream, reactor)


def test_a_stream_that_is_aborted_from_outside_gives_none(reactor: TurningReactor) -> None:
    stream, peer = balanced(reactor)
    peer.say(V1[:20])
    asked = watch(ask(stream, reactor))
    reactor.settle()
    stream.abortConnection()
    assert len(asked) == 1
    assert "connection ended before" in refusal(asked, stream, reactor)
    recorder = Recorder()
    stream.open(recorder)
    assert len(recorder.lost) == 1


def test_who_gives_up_waiting_leaves_nothing_behind(reactor: TurningReactor) -> None:
    stream, peer = balanced(reactor)
    peer.say(V1[:20])
    asked = ask(stream, reactor)
    outcome = watch(asked)
    reactor.settle()
    asked.cancel()
    (cancelled,) = outcome
    assert isinstance(cancelled, Failure)
    assert cancelled.check(CancelledError)
    assert not reactor.getDelayedCalls()
    assert not reactor.getReaders()
    peer.say(V1[20:])
    reactor.settle()
    stream.abortConnection()
    assert len(outcome) == 1


def test_a_socket_with_nothing_on_it_is_waited_for(reactor: TurningReactor) -> None:
    """Woken for nothing, as the kernel may."""
    near, far = socket.socketpair()
    stream, peer = Stream(near, reactor), Peer(far, reactor)
    asked = watch(ask(stream, reactor))
    assert stream.doRead() is None
    assert not asked
    peer.say(V2)
    reactor.turn_until(lambda: asked)
    assert asked == [CLIENT]
    stream.abortConnection()
