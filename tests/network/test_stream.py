"""The stream: every octet arrives, in plain text and in TLS, however it is written, paused, half-closed or closed."""

from __future__ import annotations

import gc
import random
import socket
import ssl
from collections.abc import Callable

import pytest
from twisted.internet import error
from twisted.python.failure import Failure

from proxy.demo.certificates import LocalCertificate
from proxy.network import stream as stream_module
from proxy.network.stream import DELIVERY_LIMIT_S, LINGER_S, READ_OCTETS, Stream
from tests.network.legs import (
    FRONT_TLS,
    MODES,
    PLAIN,
    TLS_MODES,
    UPSTREAM_TLS,
    Leg,
    Mode,
    Recorder,
    contexts,
    leg,
)
from tests.network.turning import Peer, TurningReactor, result, socket_pair, watch

MIB = 1 << 20
SMALL_BUFFER = 4096

every_mode = pytest.mark.parametrize("mode", MODES, ids=str)
every_tls = pytest.mark.parametrize("mode", TLS_MODES, ids=str)
plain_and_tls = pytest.mark.parametrize("mode", [PLAIN, FRONT_TLS, UPSTREAM_TLS], ids=str)


def octets(count: int, seed: int = 1) -> bytes:
    """Not to be mistaken for any other octets, and never equal to a shifted copy of themselves."""
    return random.Random(seed).randbytes(count)


# --- reading and writing


@every_mode
def test_octets_pass_both_ways(reactor: TurningReactor, certificate: LocalCertificate, mode: Mode) -> None:
    way = leg(reactor, certificate, mode)
    up, down = octets(MIB), octets(MIB, 2)
    way.peer.say(up)
    way.stream.write(down)
    reactor.turn_until(lambda: len(way.recorder.got) == MIB and len(way.peer.got) == MIB)
    assert way.recorder.got == up
    assert way.peer.got == down


@plain_and_tls
def test_a_paused_stream_reads_nothing_and_goes_on_where_it_stopped(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    way = leg(reactor, certificate, mode)
    way.stream.pauseProducing()
    said = octets(100_000)
    way.peer.say(said)
    reactor.settle()
    assert not way.recorder.got
    way.stream.resumeProducing()
    reactor.turn_until(lambda: len(way.recorder.got) == len(said))
    assert way.recorder.got == said


def test_a_single_unsent_octet_pauses_the_producer(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way, source = leg(reactor, certificate, buffer_octets=SMALL_BUFFER), leg(reactor, certificate)
    way.stream.registerProducer(source.stream, True)
    way.peer.stalled = True
    full = way.stream.send_now(memoryview(bytes(MIB)))
    way.stream.write(b"x")
    assert way.stream.unsent() == 1
    source.peer.say(b"more")
    reactor.settle()
    assert not source.recorder.got
    way.peer.stalled = False
    reactor.turn_until(lambda: source.recorder.got)
    assert way.peer.got == bytes(full) + b"x"
    way.stream.unregisterProducer()


def test_tcp_is_told_not_to_wait_and_to_look_after_silent_peers(reactor: TurningReactor) -> None:
    near, far = socket_pair("tcp")
    stream = Stream(near, reactor)
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    stream.abortConnection()
    far.close()


# --- looking at the first octet


def test_peek_leaves_the_octet(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, peer, recorder = Stream(near, reactor), Peer(far, reactor), Recorder()
    first = stream.peek(1)
    peer.say(b"\x16abc")
    assert result(first, reactor) == b"\x16"
    assert not reactor.getReaders()
    stream.open(recorder)
    reactor.turn_until(lambda: recorder.got)
    assert recorder.got == b"\x16abc"
    assert not reactor.getDelayedCalls()


def test_peek_gives_up_when_nobody_speaks(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, peer, recorder = Stream(near, reactor), Peer(far, reactor), Recorder()
    seen = watch(stream.peek(0.5))
    reactor.pass_time(0.49)
    assert not seen
    reactor.pass_time(0.01)
    assert seen == [b""]
    stream.open(recorder)
    peer.say(b"late")
    reactor.turn_until(lambda: recorder.got)
    assert recorder.got == b"late"


def test_peek_at_a_peer_that_leaves(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, recorder = Stream(near, reactor), Recorder(closes=True)
    first = stream.peek(1)
    far.close()
    assert result(first, reactor) == b""
    stream.open(recorder)
    reactor.turn_until(lambda: recorder.lost)
    assert recorder.ends == 1


def test_peek_at_a_peer_that_resets(reactor: TurningReactor) -> None:
    near, far = socket_pair("tcp")
    stream, peer, recorder = Stream(near, reactor), Peer(far, reactor), Recorder()
    first = stream.peek(1)
    peer.reset()
    assert result(first, reactor) == b""
    stream.open(recorder)
    reactor.settle()
    assert len(recorder.lost) == 1


def test_a_stream_that_is_aborted_while_it_is_looked_at_is_lost_at_open(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, recorder = Stream(near, reactor), Recorder()
    Peer(far, reactor)
    seen = watch(stream.peek(1))
    stream.abortConnection()
    reactor.pass_time(1)
    assert seen == [b""]
    stream.open(recorder)
    assert recorder.stream is None
    assert len(recorder.lost) == 1


def test_who_reads_before_the_protocol_gives_the_stream_back_as_it_was(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, peer, recorder, first = Stream(near, reactor), Peer(far, reactor), Recorder(), Recorder()
    taken = bytearray(2)

    def take() -> None:
        assert stream.recv_into(memoryview(taken)) == 2
        stream.take_back()

    stream.read_with(take, first)
    stream.startReading()
    peer.say(b"abcd")
    reactor.turn_until(lambda: any(taken))
    assert not reactor.getReaders()
    stream.open(recorder)
    reactor.turn_until(lambda: recorder.got)
    assert (bytes(taken), bytes(recorder.got)) == (b"ab", b"cd")
    stream.abortConnection()
    assert (len(recorder.lost), len(first.lost)) == (1, 0)


def test_a_stream_that_was_given_back_has_nobody_to_tell_that_it_is_lost(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, first = Stream(near, reactor), Recorder()
    Peer(far, reactor)
    stream.read_with(lambda: None, first)
    stream.startReading()
    stream.take_back()
    stream.abortConnection()
    assert not first.lost


# --- starting TLS


def test_tls_starts_when_all_plain_text_has_left(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = leg(reactor, certificate, buffer_octets=SMALL_BUFFER)
    server, client = contexts(certificate, None)
    plain = octets(MIB)
    way.peer.stalled = True
    way.stream.write(plain)
    reactor.settle()
    assert 0 < way.stream.unsent() < MIB
    up = watch(way.stream.start_tls(server))
    reactor.settle()
    assert way.stream.tls is None
    way.peer.stalled = False
    reactor.turn_until(lambda: len(way.peer.got) >= MIB)
    assert way.peer.take() == plain
    way.peer.start_tls(client, server_side=False, server_hostname="localhost")
    reactor.turn_until(lambda: up)
    assert up == [None]
    way.peer.say(b"secret")
    way.stream.write(b"answer")
    reactor.turn_until(lambda: way.recorder.got and way.peer.got)
    assert way.recorder.got == b"secret"
    assert way.peer.got == b"answer"


def test_what_is_said_between_starttls_and_tls_is_never_taken_as_plain_text(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    """CVE-2011-0411, on the network's side: the dialogue sees what came before, nobody what comes behind."""
    way = leg(reactor, certificate, buffer_octets=SMALL_BUFFER)
    way.peer.stalled = True
    way.stream.write(octets(MIB))
    up = watch(way.stream.start_tls(contexts(certificate, None)[0]))
    way.peer.say(b"b LOGIN u p\r\n")
    reactor.settle()
    way.peer.stalled = False
    reactor.turn_until(lambda: up)
    assert isinstance(up[0], Failure)
    assert up[0].check(ssl.SSLError)
    assert not way.recorder.got
    way.stream.abortConnection()


def refused_handshake(way: Leg, reactor: TurningReactor, up: list[Failure | None]) -> Failure:
    """It failed as the docstring says, the owner aborted, and all is over."""
    reactor.turn_until(lambda: up, waiting_for="the handshake's end")
    way.stream.abortConnection()
    reactor.settle()
    assert len(up) == 1
    failure = up[0]
    assert isinstance(failure, Failure)
    assert len(way.recorder.lost) == 1
    assert not way.recorder.got
    return failure


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("fault", ["name", "authority"])
def test_a_certificate_that_does_not_fit_is_an_error(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    other_certificate: LocalCertificate,
    version: ssl.TLSVersion,
    fault: str,
) -> None:
    way = leg(reactor, certificate)
    server, client = contexts(certificate, version)
    if fault == "authority":
        client = contexts(other_certificate, version)[1]
    way.peer.start_tls(server, server_side=True)
    name = "outlook.office365.com" if fault == "name" else "localhost"
    failure = refused_handshake(way, reactor, watch(way.stream.start_tls(client, server_hostname=name)))
    assert failure.check(ssl.SSLCertVerificationError)


@pytest.mark.parametrize("role", ["server", "client"])
def test_garbage_instead_of_a_handshake_is_an_error(
    reactor: TurningReactor, certificate: LocalCertificate, role: str
) -> None:
    way = leg(reactor, certificate)
    server, client = contexts(certificate, None)
    way.peer.say(b"GET / HTTP/1.0\r\n\r\n")
    up = way.stream.start_tls(server) if role == "server" else way.stream.start_tls(client, server_hostname="localhost")
    assert refused_handshake(way, reactor, watch(up)).check(ssl.SSLError)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before", "in the middle"])
def test_a_peer_that_leaves_its_handshake_is_an_error(
    reactor: TurningReactor, certificate: LocalCertificate, how: str, when: str
) -> None:
    way = leg(reactor, certificate)
    server, client = contexts(certificate, None)
    if when == "in the middle":
        way.peer.stalled = True
        way.peer.start_tls(client, server_side=False, server_hostname="localhost")
        up = watch(way.stream.start_tls(server))
        reactor.settle()
        assert not up
        getattr(way.peer, how)()
    else:
        getattr(way.peer, how)()
        up = watch(way.stream.start_tls(server))
    assert refused_handshake(way, reactor, up).check(OSError)
    up.clear()
    gc.collect()  # `ssl` leaves the socket to the exception's traceback


@pytest.mark.parametrize("name", ["", ".example.org", "a" * 64 + ".example.org"])
def test_a_name_that_cannot_be_a_server_is_an_error(
    reactor: TurningReactor, certificate: LocalCertificate, name: str
) -> None:
    way = leg(reactor, certificate)
    client = contexts(certificate, None)[1]
    up = watch(way.stream.start_tls(client, server_hostname=name))
    assert refused_handshake(way, reactor, up).check(ValueError, ssl.SSLError)
    up.clear()
    gc.collect()  # `ssl` leaves the socket to the exception's traceback


@pytest.mark.parametrize("ending", ["abortConnection", "loseConnection"])
@pytest.mark.parametrize("stage", ["plain text unsent", "handshake under way"])
def test_closing_before_tls_is_up_fails_the_start_and_holds_nothing(
    reactor: TurningReactor, certificate: LocalCertificate, ending: str, stage: str
) -> None:
    """A program that connects to a TLS port and says nothing must not hold a descriptor for ever."""
    way = leg(reactor, certificate, buffer_octets=SMALL_BUFFER)
    if stage == "plain text unsent":
        way.peer.stalled = True
        way.stream.write(octets(MIB))
        reactor.settle()
    up = watch(way.stream.start_tls(contexts(certificate, None)[0]))
    reactor.settle()
    way.stream.write(b"* BYE\r\n")
    getattr(way.stream, ending)()
    reactor.pass_time(DELIVERY_LIMIT_S + LINGER_S)
    assert [isinstance(one, Failure) for one in up] == [True]
    assert len(way.recorder.lost) == 1
    assert way.stream.fileno() == -1


def test_plain_text_is_delivered_when_closed_before_tls_began(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = leg(reactor, certificate, buffer_octets=SMALL_BUFFER)
    plain = octets(MIB)
    way.peer.stalled = True
    way.stream.write(plain)
    reactor.settle()
    up = watch(way.stream.start_tls(contexts(certificate, None)[0]))
    way.stream.loseConnection()
    way.peer.stalled = False
    reactor.turn_until(lambda: way.peer.at_eof)
    assert way.peer.got == plain
    assert way.stream.tls is None
    reactor.pass_time(LINGER_S)
    assert [isinstance(one, Failure) for one in up] == [True]


# --- decrypted octets that no poll reports


class SmallReader(Recorder):
    """Reads with a view much smaller than a record."""

    def read(self) -> Exception | None:
        assert self.stream is not None
        view = memoryview(bytearray(1000))
        try:
            count = self.stream.recv_into(view)
        except stream_module.WOULD_BLOCK as wants:
            self.stream.note(wants)
            return None
        self.got += view[:count]
        if not count:
            self.ends += 1
            self.stream.end_of_data()
        self.stream.read_decrypted_soon()
        return None


@every_tls
def test_a_record_larger_than_the_read_is_read_to_its_end(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    reader = SmallReader()
    way = leg(reactor, certificate, mode, recorder=reader)
    way.stream.read_with(reader.read, reader)
    record = octets(READ_OCTETS)
    way.peer.say(record)
    reactor.turn_until(lambda: len(reader.got) == len(record))
    assert reader.got == record


def test_decrypted_octets_wait_while_paused_and_come_when_resumed(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    reader = SmallReader()
    way = leg(reactor, certificate, UPSTREAM_TLS, recorder=reader)
    way.stream.read_with(reader.read, reader)
    record = octets(READ_OCTETS)
    way.peer.say(record)
    reactor.turn_until(lambda: reader.got)
    way.stream.pauseProducing()
    before = len(reader.got)
    reactor.settle()
    assert len(reader.got) == before < len(record)
    way.stream.resumeProducing()
    reactor.turn_until(lambda: len(reader.got) == len(record))
    assert reader.got == record


def test_only_one_more_read_is_due_however_often_it_is_asked_for(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    """Else each turn would read more than the last, and one session would starve the others."""
    reader = SmallReader()
    way = leg(reactor, certificate, UPSTREAM_TLS, recorder=reader)
    way.stream.read_with(reader.read, reader)
    way.peer.say(octets(4 * READ_OCTETS))
    reactor.turn_until(lambda: reader.got)
    for _ in range(40):
        before = len(reader.got)
        reactor.turn()
        assert len(reader.got) - before <= 2000  # one read that the kernel, one that OpenSSL has octets for
    reactor.turn_until(lambda: len(reader.got) == 4 * READ_OCTETS)


def test_the_protocol_gets_decrypted_octets_too(
    reactor: TurningReactor, certificate: LocalCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "READ_OCTETS", 100)
    way = leg(reactor, certificate, FRONT_TLS)
    said = octets(5000)
    way.peer.say(said)
    reactor.turn_until(lambda: len(way.recorder.got) == len(said))
    assert way.recorder.got == said


def test_an_exception_over_decrypted_octets_loses_the_connection(
    reactor: TurningReactor, certificate: LocalCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it is a delayed call that reads, of which Twisted would only log the exception."""
    monkeypatch.setattr(stream_module, "READ_OCTETS", 100)
    way = leg(reactor, certificate, FRONT_TLS)
    way.peer.say(octets(5000))
    reactor.turn_until(lambda: way.recorder.got)
    way.recorder.raises = RuntimeError("unforeseen")
    reactor.settle()
    assert [lost.value for lost in way.recorder.lost] == [way.recorder.raises]
    assert reactor.failures == [way.recorder.raises]
    reactor.failures.clear()


# --- TLS that wants the other direction


class Moody(socket.socket):
    """A socket whose next reads and writes fail as told, as OpenSSL's do in the middle of a key change."""

    read_moods: list[Exception]
    write_moods: list[Exception]

    @classmethod
    def of(cls, sock: socket.socket) -> Moody:
        moody = cls(fileno=sock.detach())
        moody.read_moods, moody.write_moods = [], []
        return moody

    def recv(self, *arguments: int) -> bytes:
        if self.read_moods:
            raise self.read_moods.pop(0)
        return super().recv(*arguments)

    def send(self, *arguments: object) -> int:
        if self.write_moods:
            raise self.write_moods.pop(0)
        return super().send(*arguments)  # type: ignore[arg-type]


def moody_leg(reactor: TurningReactor) -> tuple[Moody, Leg]:
    near, far = socket_pair()
    moody = Moody.of(near)
    way = Leg(Stream(moody, reactor), Peer(far, reactor), Recorder())
    way.stream.open(way.recorder)
    return moody, way


def test_a_read_that_wants_to_write_is_tried_again_when_writing_is_possible(reactor: TurningReactor) -> None:
    moody, way = moody_leg(reactor)
    moody.read_moods = [ssl.SSLWantWriteError()]
    way.peer.say(b"hello")
    reactor.turn()
    assert not way.recorder.got
    assert reactor.is_writing(way.stream)
    reactor.turn_until(lambda: way.recorder.got)
    reactor.settle()
    assert not reactor.is_writing(way.stream)


def test_a_write_that_wants_to_read_is_tried_again_when_something_came(reactor: TurningReactor) -> None:
    moody, way = moody_leg(reactor)
    moody.write_moods = [ssl.SSLWantReadError(), ssl.SSLWantReadError()]
    way.stream.write(b"answer")
    reactor.settle()
    assert not way.peer.got
    assert not reactor.is_writing(way.stream)  # it would turn for nothing
    way.peer.say(b"key update")
    reactor.turn_until(lambda: way.peer.got)
    assert way.peer.got == b"answer"
    reactor.turn_until(lambda: way.recorder.got)


def test_a_write_that_wants_to_read_does_not_make_a_paused_stream_read(reactor: TurningReactor) -> None:
    moody, way = moody_leg(reactor)
    way.stream.pauseProducing()
    moody.write_moods = [ssl.SSLWantReadError(), ssl.SSLWantReadError()]
    way.stream.write(b"answer")
    way.peer.say(b"mail")
    reactor.turn_until(lambda: way.peer.got)
    reactor.settle()
    assert not way.recorder.got
    assert not reactor.is_reading(way.stream)
    way.stream.resumeProducing()
    reactor.turn_until(lambda: way.recorder.got)


def test_a_write_that_wants_to_read_is_tried_again_after_the_peers_end(reactor: TurningReactor) -> None:
    moody, way = moody_leg(reactor)
    way.peer.close_write()
    reactor.turn_until(lambda: way.recorder.ends)
    moody.write_moods = [ssl.SSLWantReadError(), ssl.SSLWantReadError()]
    way.stream.write(b"answer")
    reactor.turn_until(lambda: way.peer.got)


@plain_and_tls
def test_a_send_now_that_would_block_leaves_the_rest_to_its_caller(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    """OpenSSL has sent many records then, and says so only when it is given the same octets again."""
    way = leg(reactor, certificate, mode, buffer_octets=4 * READ_OCTETS)
    way.peer.stalled = True
    data = octets(MIB)
    sent = way.stream.send_now(memoryview(data))
    assert sent < MIB
    assert way.stream.unsent() == 0
    way.stream.write(data[sent:])
    assert way.stream.send_now(memoryview(b"too early")) == 0
    way.peer.stalled = False
    reactor.turn_until(lambda: len(way.peer.got) == MIB)
    assert way.peer.got == data


# --- half-close


@every_mode
@pytest.mark.parametrize("buffer_octets", [None, SMALL_BUFFER])
def test_after_our_half_close_every_octet_still_comes(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode, buffer_octets: int | None
) -> None:
    """Where every proxy fails (SPEED trap 3): the answer is on its way, and partly read, as we half-close."""
    way = leg(reactor, certificate, mode, buffer_octets=buffer_octets)
    question, answer = octets(300_000), octets(2 * MIB, 2)
    way.stream.write(question)
    way.peer.say(answer)
    reactor.turn_until(lambda: len(way.recorder.got) > 100_000)
    way.stream.loseWriteConnection()
    reactor.turn_until(lambda: way.peer.at_eof)
    assert way.peer.got == question
    assert not way.peer.truncated
    assert not way.recorder.ends
    way.peer.say(b"and this, after it")
    way.peer.close_write()
    reactor.turn_until(lambda: way.recorder.ends)
    assert way.recorder.got == answer + b"and this, after it"
    assert not way.recorder.lost
    way.stream.loseConnection()
    assert len(way.recorder.lost) == 1


@every_tls
def test_a_half_close_keeps_what_was_read_off_the_wire_but_not_asked_for(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    """OpenSSL's second look for the peer's close_notify throws away a decrypted record."""
    reader = SmallReader()
    way = leg(reactor, certificate, mode, recorder=reader)
    way.stream.read_with(reader.read, reader)
    answer = octets(3 * READ_OCTETS)
    way.peer.say(answer)
    reactor.turn_until(lambda: reader.got)
    way.stream.pauseProducing()
    way.stream.loseWriteConnection()
    reactor.turn_until(lambda: way.peer.at_eof)
    way.stream.resumeProducing()
    way.peer.close_write()
    reactor.turn_until(lambda: reader.ends)
    assert reader.got == answer


@every_mode
def test_we_still_answer_after_the_peers_half_close(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    way = leg(reactor, certificate, mode, buffer_octets=SMALL_BUFFER)
    way.peer.say(b"question")
    way.peer.close_write()
    reactor.turn_until(lambda: way.recorder.ends)
    assert way.recorder.got == b"question"
    assert way.stream.at_eof
    answer = octets(MIB)
    way.stream.write(answer)
    way.stream.loseConnection()
    reactor.turn_until(lambda: way.peer.at_eof)
    assert way.peer.got == answer
    assert not way.peer.truncated
    reactor.turn_until(lambda: way.recorder.lost)
    assert way.recorder.ends == 1


@every_tls
@pytest.mark.parametrize("peer_ended", [False, True], ids=["", "peer ended"])
@pytest.mark.parametrize("ending", ["loseWriteConnection", "loseConnection"])
def test_close_notify_waits_for_a_full_kernel_buffer(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode, ending: str, peer_ended: bool
) -> None:
    """Else the peer takes what it got for cut off."""
    way = leg(reactor, certificate, mode, buffer_octets=SMALL_BUFFER)
    way.peer.stalled = True
    if peer_ended:
        way.peer.close_write()
        reactor.turn_until(lambda: way.recorder.ends)
    said = bytearray()
    while not way.stream.unsent():
        said += b"0123456789"
        way.stream.write(b"0123456789")
    last = octets(2 * SMALL_BUFFER - 292)  # a record in two pieces of the kernel, which is full then (Linux)
    said += last
    way.stream.write(last)
    getattr(way.stream, ending)()
    while way.stream.unsent():
        way.peer.sip(100)
        reactor.turn()
    assert reactor.is_writing(way.stream)  # the buffer is full again, and not all is said
    way.peer.stalled = False
    reactor.turn_until(lambda: way.peer.at_eof)
    assert way.peer.got == said
    assert not way.peer.truncated
    if ending == "loseWriteConnection" and not peer_ended:
        way.peer.say(b"answer")
        reactor.turn_until(lambda: way.recorder.got)
        assert way.recorder.got == b"answer"


def test_a_half_close_without_descriptors_still_ends_our_side(
    reactor: TurningReactor, certificate: LocalCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = leg(reactor, certificate, UPSTREAM_TLS)

    def none_left() -> tuple[socket.socket, socket.socket]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", none_left)
    way.stream.loseWriteConnection()
    reactor.turn_until(lambda: way.peer.at_eof)  # by FIN alone; Debian's Python 3.11.2 does not tell the difference
    assert not way.recorder.lost


# --- closing


@every_mode
def test_closing_delivers_all_to_a_slow_reader(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    way = leg(reactor, certificate, mode, buffer_octets=SMALL_BUFFER)
    said = octets(MIB)
    way.peer.stalled = True
    way.stream.write(said)
    way.stream.loseConnection()
    reactor.pass_time(DELIVERY_LIMIT_S * 0.9)
    assert not way.recorder.lost
    way.peer.stalled = False
    reactor.turn_until(lambda: way.peer.at_eof)
    assert way.peer.got == said
    assert not way.peer.truncated
    way.peer.close()
    reactor.turn_until(lambda: way.recorder.lost)
    assert way.recorder.lost[0].check(error.ConnectionDone)


@every_mode
def test_what_the_peer_still_sends_does_not_take_our_last_words_from_it(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    """A socket closed over unread octets resets the connection, and the reset overtakes what was sent before."""
    way = leg(reactor, certificate, mode)
    way.stream.pauseProducing()
    way.peer.stalled = True
    way.peer.say(octets(100_000))
    reactor.settle()
    way.stream.write(b"* BYE for a reason\r\n")
    way.stream.loseConnection()
    reactor.settle()
    way.peer.say(octets(100_000))
    reactor.settle()
    way.peer.stalled = False
    reactor.turn_until(lambda: way.peer.at_eof)
    assert way.peer.lost is None
    assert way.peer.got == b"* BYE for a reason\r\n"
    assert not way.recorder.got


@every_mode
def test_a_peer_that_never_leaves_is_left_after_a_while(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    way = leg(reactor, certificate, mode)
    way.stream.loseConnection()
    reactor.settle()
    reactor.pass_time(LINGER_S * 0.9)
    assert not way.recorder.lost
    reactor.pass_time(LINGER_S * 0.1)
    assert len(way.recorder.lost) == 1


@every_mode
def test_a_peer_that_never_reads_is_left_after_a_while(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    way = leg(reactor, certificate, mode, buffer_octets=SMALL_BUFFER)
    way.peer.stalled = True
    way.stream.write(octets(MIB))
    way.stream.loseConnection()
    reactor.pass_time(DELIVERY_LIMIT_S * 2)
    assert len(way.recorder.lost) == 1
    assert way.stream.fileno() == -1


@plain_and_tls
def test_an_abort_ends_at_once(reactor: TurningReactor, certificate: LocalCertificate, mode: Mode) -> None:
    way = leg(reactor, certificate, mode, buffer_octets=SMALL_BUFFER)
    way.peer.stalled = True
    way.stream.write(octets(MIB))
    reactor.settle()
    way.stream.abortConnection()
    assert len(way.recorder.lost) == 1
    assert way.recorder.lost[0].check(error.ConnectionAborted)
    assert way.stream.fileno() == -1
    way.stream.abortConnection()
    way.stream.loseConnection()
    way.stream.write(b"more")
    reactor.settle()
    assert len(way.recorder.lost) == 1


@every_mode
def test_an_exception_in_the_protocol_loses_the_connection_once(
    reactor: TurningReactor, certificate: LocalCertificate, mode: Mode
) -> None:
    unforeseen = RuntimeError("unforeseen")
    way = leg(reactor, certificate, mode, recorder=Recorder(raises=unforeseen))
    way.peer.say(b"anything")
    reactor.turn_until(lambda: way.recorder.lost)
    reactor.settle()
    assert [lost.value for lost in way.recorder.lost] == [unforeseen]
    assert reactor.failures == [unforeseen]
    reactor.failures.clear()


class Contrary(Recorder):
    def dataReceived(self, data: bytes) -> None:
        assert self.stream is not None
        self.stream.abortConnection()
        super().dataReceived(data)


def test_an_exception_after_an_abort_tells_nothing_twice(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = leg(reactor, certificate, recorder=Contrary())
    way.peer.say(b"anything")
    reactor.turn_until(lambda: reactor.failures)
    reactor.settle()
    assert len(way.recorder.lost) == 1
    reactor.failures.clear()


def close_peer(way: Leg) -> None:
    way.peer.close()


def reset_peer(way: Leg) -> None:
    way.peer.reset()


def cut_off_tls(way: Leg) -> None:
    way.peer.socket.shutdown(socket.SHUT_RDWR)


def send_garbage(way: Leg) -> None:
    way.peer.say_raw(b"not a record at all, whatever was agreed upon" * 1000)


@every_mode
@pytest.mark.parametrize("ends", [close_peer, reset_peer, cut_off_tls, send_garbage])
@pytest.mark.parametrize("unsent", [False, True], ids=["", "unsent"])
def test_the_protocol_is_told_once_however_the_peer_ends(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    mode: Mode,
    ends: Callable[[Leg], None],
    unsent: bool,
) -> None:
    way = leg(reactor, certificate, mode, recorder=Recorder(closes=True))
    if unsent:
        way.peer.stalled = True
        way.stream.write(bytes(16 * MIB))
        assert way.stream.unsent()
    ends(way)
    reactor.settle()
    if mode is PLAIN and ends is send_garbage:
        way.peer.close()
    reactor.pass_time(DELIVERY_LIMIT_S * 2)
    assert len(way.recorder.lost) == 1
    assert way.stream.fileno() == -1
