"""The relay: every octet arrives unaltered and in order, memory stays flat, and every end is passed on."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from proxy.demo.certificates import LocalCertificate
from proxy.network.relay import (
    BUFFER_OCTETS,
    FINISH_LIMIT_S,
    HALF_CLOSED_LIMIT_S,
    NOTICED_OCTETS,
    QUIET_S,
    Relay,
    Relayed,
)
from proxy.network.stream import DELIVERY_LIMIT_S, LINGER_S, READ_OCTETS
from proxy.protocols import parting
from proxy.protocols.overheard import last_words, overhear_imap
from tests.network.legs import FRONT_TLS, PLAIN, TLS_MODES, UPSTREAM_TLS, Leg, Mode, leg
from tests.network.turning import Peer, TurningReactor, turning_reactor, watch

MIB = 1 << 20
SMALL_BUFFER = 65_536
IDLE_LIMIT_S = 1860

LEGS = [(PLAIN, PLAIN), (PLAIN, UPSTREAM_TLS), (FRONT_TLS, UPSTREAM_TLS), (TLS_MODES[0], TLS_MODES[1])]
every_pair = pytest.mark.parametrize("modes", LEGS, ids=lambda pair: f"{pair[0]}-{pair[1]}")


def octets(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


@dataclass
class Relaying:
    """A relay between a mail program and a server, both played by the test."""

    client: Leg
    upstream: Leg
    relay: Relay
    done: Deferred[Relayed]
    outcome: list[Relayed | Failure]
    heard: list[bytes] = field(default_factory=list)
    """The pieces that were overheard."""

    @property
    def program(self) -> Peer:
        return self.client.peer

    @property
    def server(self) -> Peer:
        return self.upstream.peer

    @property
    def relayed(self) -> Relayed:
        assert len(self.outcome) == 1
        assert isinstance(self.outcome[0], Relayed)
        return self.outcome[0]


def legs(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    modes: tuple[Mode, Mode],
    buffer_octets: int | None = SMALL_BUFFER,
) -> tuple[Leg, Leg]:
    client, upstream = (leg(reactor, certificate, mode, buffer_octets=buffer_octets) for mode in modes)
    reactor.at_end.clear()  # the relay must end them by itself
    return client, upstream


def join(
    reactor: TurningReactor,
    client: Leg,
    upstream: Leg,
    *,
    to_upstream: bytes = b"",
    to_client: bytes = b"",
    overhear: Callable[[bytes], None] | None = None,
) -> Relaying:
    heard: list[bytes] = []
    relay = Relay(
        client.stream,
        upstream.stream,
        idle_limit_s=IDLE_LIMIT_S,
        clock=reactor,
        overhear=overhear or heard.append,
        last_words=last_words,
        parting=parting.imap,
    )
    done = relay.run(to_upstream=to_upstream, to_client=to_client)
    return Relaying(client, upstream, relay, done, watch(done), heard)


def relaying(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    modes: tuple[Mode, Mode] = (PLAIN, UPSTREAM_TLS),
    buffer_octets: int | None = SMALL_BUFFER,
) -> Relaying:
    return join(reactor, *legs(reactor, certificate, modes, buffer_octets))


# --- unaltered


@every_pair
def test_octets_pass_both_ways_at_once(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = relaying(reactor, certificate, modes)
    up, down = octets(2 * MIB), octets(3 * MIB, 2)
    way.program.say(up)
    way.server.say(down)
    reactor.turn_until(lambda: len(way.server.got) == len(up) and len(way.program.got) == len(down))
    assert way.server.got == up
    assert way.program.got == down
    way.program.close_write()
    way.server.close_write()
    reactor.turn_until(lambda: way.outcome)
    assert (way.relayed.octets_up, way.relayed.octets_down) == (len(up), len(down))


SIZES = st.one_of(st.integers(1, 200), st.integers(16_000, 17_000), st.integers(1, 400_000))
STEPS = st.lists(
    st.tuples(st.sampled_from(["up", "down", "stall program", "stall server", "go on", "turn"]), SIZES), max_size=25
)


@settings(max_examples=30, deadline=None)
@given(modes=st.sampled_from(LEGS), steps=STEPS, ending=st.sampled_from(["program", "server"]))
def test_whatever_is_said_in_whatever_pieces_arrives(
    certificate: LocalCertificate, modes: tuple[Mode, Mode], steps: list[tuple[str, int]], ending: str
) -> None:
    source = random.Random(1)
    up, down = bytearray(), bytearray()
    with turning_reactor() as reactor:
        way = relaying(reactor, certificate, modes, buffer_octets=None)
        for what, size in steps:
            match what:
                case "up":
                    up += (said := source.randbytes(size))
                    way.program.say(said)
                case "down":
                    down += (said := source.randbytes(size))
                    way.server.say(said)
                case "stall program":
                    way.program.stalled = True
                case "stall server":
                    way.server.stalled = True
                case "go on":
                    way.program.stalled = way.server.stalled = False
                case _:
                    reactor.turn(size % 20)
            assert way.client.stream.unsent() <= BUFFER_OCTETS
            assert way.upstream.stream.unsent() <= BUFFER_OCTETS
        way.program.stalled = way.server.stalled = False
        if ending == "server":
            reactor.turn_until(lambda: len(way.server.got) == len(up))
            way.server.close_write()
        else:
            way.program.close_write()
            reactor.turn_until(lambda: way.server.at_eof)
            way.server.close_write()
        reactor.turn_until(lambda: way.program.at_eof)
        reactor.pass_time(LINGER_S)
        assert way.server.got == up
        assert way.program.got == down
        assert not way.server.truncated
        assert not way.program.truncated
        assert (way.relayed.octets_up, way.relayed.octets_down) == (len(up), len(down))


@every_pair
def test_what_was_read_behind_the_login_goes_first(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    client, upstream = legs(reactor, certificate, modes)
    client.stream.pauseProducing()
    upstream.stream.pauseProducing()
    client.peer.say(b"c IDLE\r\n")
    upstream.peer.say(b"* 2 EXISTS\r\n")
    reactor.settle()
    way = join(reactor, client, upstream, to_upstream=b"b SELECT INBOX\r\n", to_client=b"* 1 EXISTS\r\n")
    reactor.settle()
    assert way.server.got == b"b SELECT INBOX\r\nc IDLE\r\n"
    assert way.program.got == b"* 1 EXISTS\r\n* 2 EXISTS\r\n"
    way.server.close_write()
    reactor.pass_time(LINGER_S)
    assert (way.relayed.octets_up, way.relayed.octets_down) == (24, 24)


def test_early_octets_wait_behind_what_the_login_has_not_delivered_yet(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    client, upstream = legs(reactor, certificate, (PLAIN, PLAIN))
    client.peer.stalled = True
    greetings = octets(MIB)
    client.stream.write(greetings)
    assert client.stream.unsent()
    way = join(reactor, client, upstream, to_client=b"early")
    way.server.say(b" late")
    reactor.settle()
    way.program.stalled = False
    reactor.turn_until(lambda: way.program.got.endswith(b"late"))
    assert way.program.got == greetings + b"early late"


# --- memory and fairness


@every_pair
def test_a_stalled_program_keeps_one_buffer_of_an_eager_upstream(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = relaying(reactor, certificate, modes)
    answer = octets(8 * MIB)
    way.program.stalled = True
    way.server.say(answer)
    reactor.settle()
    assert 0 < way.client.stream.unsent() <= BUFFER_OCTETS
    assert len(answer) - way.server.unsaid < BUFFER_OCTETS + MIB  # the rest is in the kernel's hands
    assert not reactor.is_reading(way.upstream.stream)
    assert reactor.is_writing(way.client.stream)
    way.program.stalled = False
    reactor.turn_until(lambda: len(way.program.got) == len(answer))
    assert way.program.got == answer


@every_pair
def test_a_stalled_upstream_keeps_one_buffer_of_an_eager_program(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = relaying(reactor, certificate, modes)
    message = octets(8 * MIB)
    way.server.stalled = True
    way.program.say(message)
    reactor.settle()
    assert 0 < way.upstream.stream.unsent() <= BUFFER_OCTETS
    assert len(message) - way.program.unsaid < BUFFER_OCTETS + MIB
    way.server.say(b"* OK still here\r\n")  # the other direction goes on
    reactor.turn_until(lambda: way.program.got)
    way.server.stalled = False
    reactor.turn_until(lambda: len(way.server.got) == len(message))
    assert way.server.got == message


@pytest.mark.parametrize("record_octets", [10_000, 1_500])
def test_what_a_full_buffer_leaves_of_a_record_comes_without_a_new_octet(
    reactor: TurningReactor, certificate: LocalCertificate, record_octets: int
) -> None:
    """No poll tells of what OpenSSL holds (SPEED trap 3)."""
    way = relaying(reactor, certificate, buffer_octets=4 * BUFFER_OCTETS)
    way.upstream.stream.pauseProducing()
    way.server.record_octets = record_octets
    answer = octets((BUFFER_OCTETS // record_octets + 1) * record_octets)
    way.server.say(answer)
    reactor.settle()
    way.upstream.stream.resumeProducing()
    reactor.turn_until(lambda: len(way.program.got) == len(answer))
    assert way.program.got == answer


def test_a_stalled_relay_costs_no_turns(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = relaying(reactor, certificate)
    way.program.stalled = True
    way.server.say(octets(4 * MIB))
    reactor.settle()  # would not come to rest if a socket were looked at for nothing
    assert way.client.stream.unsent()


@pytest.mark.parametrize("modes", [(PLAIN, PLAIN), (PLAIN, UPSTREAM_TLS)], ids=["plain", "tls"])
def test_a_turn_moves_one_buffer_at_most(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    """So that a fast session does not starve the others."""
    way = relaying(reactor, certificate, modes, buffer_octets=4 * MIB)
    way.server.say(octets(8 * MIB))
    largest = 0
    while way.relay._down.octets < 8 * MIB:
        before = way.relay._down.octets
        reactor.turn()
        largest = max(largest, way.relay._down.octets - before)
    assert READ_OCTETS < largest <= BUFFER_OCTETS


# --- ends


@every_pair
def test_after_the_programs_half_close_the_whole_answer_is_delivered(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = relaying(reactor, certificate, modes)
    way.program.say(b"a FETCH 1:* BODY[]\r\n")
    way.program.close_write()
    reactor.turn_until(lambda: way.server.at_eof)
    assert way.server.got == b"a FETCH 1:* BODY[]\r\n"
    assert not way.server.truncated
    answer = octets(4 * MIB)
    way.server.say(answer)
    way.server.close_write()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == answer
    assert not way.program.truncated
    reactor.turn_until(lambda: way.outcome)
    assert way.relayed == Relayed(20, len(answer), "client closed")


@every_pair
def test_a_half_close_in_the_middle_of_the_answer_loses_nothing(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = relaying(reactor, certificate, modes)
    answer = octets(4 * MIB)
    way.server.say(answer)
    reactor.turn_until(lambda: len(way.program.got) > MIB)
    way.program.stalled = True
    reactor.settle()
    way.program.close_write()
    reactor.turn_until(lambda: way.server.at_eof)
    way.program.stalled = False
    way.server.close_write()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == answer


def test_a_half_close_in_the_middle_of_a_record_loses_nothing(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    """A full buffer ends there, mostly, and OpenSSL holds the rest."""
    way = relaying(reactor, certificate, buffer_octets=4 * BUFFER_OCTETS)
    way.server.record_octets = 10_000
    answer = octets(8 * MIB)
    way.program.stalled = True
    way.server.say(answer)
    reactor.settle()
    tls = way.upstream.stream.tls
    assert tls is not None
    while not tls.pending():
        way.program.sip(MIB)
        reactor.turn()
    way.program.close_write()
    reactor.turn_until(lambda: way.server.at_eof)
    way.program.stalled = False
    way.server.close_write()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == answer


@every_pair
def test_a_program_that_half_closed_before_the_relay_gets_its_answer(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    client, upstream = legs(reactor, certificate, modes)
    client.peer.say(b"b NOOP\r\n")
    client.peer.close_write()
    reactor.turn_until(lambda: client.recorder.ends)
    way = join(reactor, client, upstream, to_upstream=bytes(client.recorder.got))
    reactor.turn_until(lambda: way.server.at_eof)
    assert way.server.got == b"b NOOP\r\n"
    way.server.say(b"b OK\r\n")
    way.server.close_write()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b"b OK\r\n"
    reactor.turn_until(lambda: way.outcome)
    assert way.relayed == Relayed(8, 6, "client closed")


@every_pair
def test_an_upstream_that_ended_before_the_relay_is_passed_on(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    client, upstream = legs(reactor, certificate, modes)
    upstream.peer.close_write()
    reactor.turn_until(lambda: upstream.recorder.ends)
    way = join(reactor, client, upstream, to_upstream=octets(MIB), to_client=b"* BYE\r\n")
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b"* BYE\r\n"
    reactor.turn_until(lambda: len(way.server.got) == MIB)
    way.program.close()
    reactor.pass_time(LINGER_S)
    assert way.relayed.reason == "upstream closed"


@every_pair
def test_upstreams_end_reaches_a_slow_program_behind_all_that_was_said(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = relaying(reactor, certificate, modes)
    way.program.stalled = True
    answer = octets(700_000)
    way.server.say(answer)
    way.server.close_write()
    reactor.settle()
    assert not way.outcome
    way.program.stalled = False
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == answer
    assert not way.program.truncated
    way.program.close()
    reactor.turn_until(lambda: way.outcome)
    assert way.relayed == Relayed(0, len(answer), "upstream closed")


@pytest.mark.parametrize("leaves", [Peer.close, Peer.reset], ids=["close", "reset"])
@pytest.mark.parametrize("modes", LEGS[:3], ids=str)
def test_a_program_that_is_gone_ends_upstream(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode], leaves: Callable[[Peer], None]
) -> None:
    way = relaying(reactor, certificate, modes, buffer_octets=None)
    way.program.stalled = True
    way.server.say(octets(16 * MIB))
    reactor.settle()
    leaves(way.program)
    reactor.pass_time(LINGER_S)
    assert way.relayed.reason in ("client lost", "client closed")  # TLS cut off is an end too
    assert way.upstream.stream.fileno() == way.client.stream.fileno() == -1


def test_an_upstream_that_resets_still_leaves_what_it_said(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = relaying(reactor, certificate, (PLAIN, PLAIN), buffer_octets=None)
    way.program.stalled = True
    way.server.say(bytes(16 * MIB))
    reactor.settle()
    came = way.client.stream.unsent()
    assert came
    way.server.reset()
    reactor.settle()
    way.program.say(b"x")
    reactor.settle()
    way.program.stalled = False
    reactor.turn_until(lambda: way.program.at_eof)
    assert len(way.program.got) >= came
    assert way.program.lost is None
    reactor.pass_time(LINGER_S)
    assert way.relayed.octets_down == len(way.program.got)


def test_an_upstream_that_leaves_while_the_program_speaks_has_its_last_words_delivered(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = relaying(reactor, certificate, (PLAIN, PLAIN), buffer_octets=None)
    way.server.say(b"* BYE Session closed\r\n")
    way.server.pump()
    way.server.close()
    way.program.say(b"a NOOP\r\n")
    way.program.pump()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b"* BYE Session closed\r\n"
    assert way.program.lost is None


# --- what is overheard

THROTTLED = (
    b"a5 BAD Request is throttled. Suggested Backoff Time: 89117 milliseconds\r\n* BYE Connection closed. 14\r\n"
)


def say(reactor: TurningReactor, speaker: Peer, *pieces: bytes) -> None:
    """Each in a turn of its own, or several."""
    for piece in pieces:
        speaker.say(piece)
        reactor.settle()


@every_pair
def test_a_short_turn_of_upstreams_is_told_and_passed_on_unaltered(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = relaying(reactor, certificate, modes)
    say(reactor, way.program, b"a5 NOOP\r\n")
    say(reactor, way.server, THROTTLED, b"* 1 EXISTS\r\n")
    assert way.program.got == THROTTLED + b"* 1 EXISTS\r\n"
    assert way.heard == [THROTTLED, b"* 1 EXISTS\r\n"]


def test_it_is_passed_on_before_it_is_told(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    client, upstream = legs(reactor, certificate, (PLAIN, PLAIN))
    seen: list[bytes] = []
    way = join(
        reactor,
        client,
        upstream,
        overhear=lambda piece: seen.append(client.peer.socket.recv(len(piece), socket.MSG_PEEK)),
    )
    say(reactor, way.server, THROTTLED)
    assert seen == [THROTTLED]


def test_only_a_short_turn_is_told(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = relaying(reactor, certificate)
    short = octets(NOTICED_OCTETS)
    say(reactor, way.server, short, short + b"x")
    assert way.heard == [short]
    assert way.program.got == short * 2 + b"x"


def test_what_comes_behind_a_long_turn_is_not_told_until_the_program_speaks(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    """It may be the rest of a mail, whose writer chose the words and where they stand."""
    way = relaying(reactor, certificate)
    say(reactor, way.program, b"a4 FETCH 1 BODY[]\r\n")
    mail = octets(100_000)
    say(reactor, way.server, mail, THROTTLED, THROTTLED)
    assert not way.heard
    say(reactor, way.program, b"a5 NOOP\r\n")
    say(reactor, way.server, THROTTLED)
    assert way.heard == [THROTTLED]
    assert way.program.got == mail + 3 * THROTTLED


def test_the_reply_to_a_long_message_of_the_programs_is_told(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = relaying(reactor, certificate)
    say(reactor, way.server, octets(100_000))
    say(reactor, way.program, octets(100_000, 2))
    say(reactor, way.server, THROTTLED)
    assert way.heard == [THROTTLED]


@pytest.mark.parametrize("before", [b"and it said:\r\n", b"* 1 FETCH (BODY[] {200}\r\n"])
def test_a_turn_is_told_whole_so_that_text_of_a_mail_is_not_overheard(
    reactor: TurningReactor, certificate: LocalCertificate, before: bytes
) -> None:
    way = relaying(reactor, certificate)
    say(reactor, way.server, before + THROTTLED, THROTTLED + b")\r\na5 OK FETCH completed.\r\n")
    assert len(way.heard) == 2
    assert not any(map(overhear_imap, way.heard))


def test_what_was_read_behind_the_login_is_told(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = join(reactor, *legs(reactor, certificate, (PLAIN, PLAIN)), to_client=THROTTLED)
    assert way.heard == [THROTTLED]
    later = join(reactor, *legs(reactor, certificate, (PLAIN, PLAIN)), to_client=octets(NOTICED_OCTETS + 1))
    nothing = join(reactor, *legs(reactor, certificate, (PLAIN, PLAIN)))
    assert not later.heard
    assert not nothing.heard


def test_a_listener_that_fails_is_logged_and_the_session_goes_on(
    reactor: TurningReactor, certificate: LocalCertificate, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    way = join(reactor, *legs(reactor, certificate, (PLAIN, UPSTREAM_TLS)), overhear=fail)
    say(reactor, way.server, THROTTLED, THROTTLED)
    assert way.program.got == THROTTLED * 2
    assert not way.outcome
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError] * 2


# --- the last words for an upstream that is gone

GOODBYE = last_words(b"a5 IDLE\r\n", b"+ idling\r\n")


def idling(reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]) -> Relaying:
    """Both have said their word, and the program has read it."""
    way = relaying(reactor, certificate, modes, buffer_octets=None)
    say(reactor, way.program, b"a5 IDLE\r\n")
    say(reactor, way.server, b"+ idling\r\n")
    assert way.program.take() == b"+ idling\r\n"
    return way


@pytest.mark.parametrize("leaves", [Peer.close_write, Peer.close, Peer.reset], ids=["end", "close", "reset"])
@every_pair
def test_an_idle_program_reads_a_goodbye_for_an_upstream_that_is_gone(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode], leaves: Callable[[Peer], None]
) -> None:
    way = idling(reactor, certificate, modes)
    leaves(way.server)
    reactor.turn_until(lambda: way.program.at_eof)
    assert GOODBYE.startswith(b"* BYE ")
    assert way.program.got == GOODBYE
    assert not way.program.truncated
    way.program.close()
    reactor.pass_time(LINGER_S)
    assert way.relayed.octets_down == len(b"+ idling\r\n"), "only upstream's own are counted"
    assert way.relayed.reason in ("upstream closed", "upstream lost")


@every_pair
def test_upstreams_own_goodbye_stands_alone(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = idling(reactor, certificate, modes)
    way.server.say(b"* BYE Connection is closed. 13\r\n")
    way.server.close_write()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b"* BYE Connection is closed. 13\r\n"


@pytest.mark.parametrize(
    "began",
    [
        b"* 1 FETCH (BODY[] {90000}\r\n",
        b"* 1 FETCH (BODY[] {90000}\r\n" + b"text " * 1000,
        b"* 1 FETCH (BODY[] {90000}\r\n" + b"* text\r\n" * 1000,
    ],
    ids=["announced", "text", "lines"],
)
def test_nothing_is_added_in_the_middle_of_a_message(
    reactor: TurningReactor, certificate: LocalCertificate, began: bytes
) -> None:
    way = relaying(reactor, certificate)
    say(reactor, way.program, b"a4 FETCH 1 BODY[]\r\n", b"a5 IDLE\r\n")
    say(reactor, way.server, b"* 9 EXISTS\r\n", began)
    if len(began) > NOTICED_OCTETS:
        say(reactor, way.server, b"* a short rest\r\n")
    way.server.close()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got.startswith(b"* 9 EXISTS\r\n" + began)
    assert GOODBYE not in way.program.got


def test_nothing_is_added_when_the_program_has_closed_its_side(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = idling(reactor, certificate, (PLAIN, UPSTREAM_TLS))
    way.program.close_write()
    reactor.turn_until(lambda: way.server.at_eof)
    way.server.close_write()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b""


def test_nothing_is_added_when_the_relay_is_closing_already(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = idling(reactor, certificate, (PLAIN, PLAIN))
    way.relay.close("stopping")
    way.server.reset()
    reactor.pass_time(LINGER_S)
    assert way.program.got == b""
    assert way.relayed.reason == "stopping"


@pytest.mark.parametrize("then", [b"DONE\r\n", octets(NOTICED_OCTETS + 1)], ids=["done", "long"])
def test_nothing_is_added_where_the_program_does_not_idle(
    reactor: TurningReactor, certificate: LocalCertificate, then: bytes
) -> None:
    way = idling(reactor, certificate, (PLAIN, PLAIN))
    say(reactor, way.program, then)
    way.server.reset()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b""


def test_words_behind_the_login_count_for_the_goodbye(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    client, upstream = legs(reactor, certificate, (PLAIN, PLAIN))
    way = join(reactor, client, upstream, to_upstream=b"b IDLE\r\n", to_client=b"* 1 EXISTS\r\n")
    way.server.close_write()
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b"* 1 EXISTS\r\n" + GOODBYE


# --- the daemon stops


BYE = parting.imap(b"", b"") or b""


def begun(reactor: TurningReactor, certificate: LocalCertificate, up: bytes, down: bytes) -> Relaying:
    """A session in which each side has said this."""
    way = relaying(reactor, certificate, (PLAIN, PLAIN), buffer_octets=None)
    say(reactor, way.program, up)
    say(reactor, way.server, down)
    way.program.take()
    return way


@every_pair
def test_who_idles_is_told_and_both_ends_close(
    reactor: TurningReactor, certificate: LocalCertificate, modes: tuple[Mode, Mode]
) -> None:
    way = idling(reactor, certificate, modes)
    way.relay.part()
    reactor.turn_until(lambda: way.program.at_eof and way.server.at_eof)
    assert way.program.got == BYE
    way.program.close()
    way.server.close()
    reactor.turn_until(lambda: way.outcome)
    assert way.relayed.reason == "stopping"
    assert reactor.seconds() == 0


def test_a_command_under_way_is_answered_first(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = begun(reactor, certificate, b"a APPEND x {4}\r\n", b"+ go on\r\n")
    way.relay.part()
    say(reactor, way.program, b"mail\r\n")
    reactor.pass_time(3 * QUIET_S)
    assert way.server.got.endswith(b"mail\r\n")
    assert not way.program.at_eof, "upstream owes an answer"
    say(reactor, way.server, b"a OK done\r\n")
    reactor.pass_time(2 * QUIET_S)
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b"a OK done\r\n", "which is the end of what we do not know"


def test_who_asked_something_is_told_behind_the_answer(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = begun(reactor, certificate, b"a NOOP\r\n", b"* 3 EXISTS\r\n")
    way.relay.part()
    say(reactor, way.server, b"a OK done\r\n")
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b"a OK done\r\n" + BYE


def test_nothing_is_added_to_a_mail_that_is_being_read(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = begun(reactor, certificate, b"a FETCH 1 BODY[]\r\n", octets(NOTICED_OCTETS + 1))
    way.relay.part()
    for _ in range(3):
        say(reactor, way.server, b"a OK is written in this mail\r\n")
        reactor.pass_time(QUIET_S / 2)
    assert not way.program.at_eof
    reactor.pass_time(2 * QUIET_S)
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == 3 * b"a OK is written in this mail\r\n"


@pytest.mark.parametrize("goes_on", [True, False], ids=["busy", "owed"])
def test_no_session_holds_up_a_stop(reactor: TurningReactor, certificate: LocalCertificate, goes_on: bool) -> None:
    way = begun(reactor, certificate, b"a APPEND x {99999}\r\n", b"+ go on\r\n")
    way.relay.part()
    say(reactor, way.program, b"mail")
    for _ in range(int(FINISH_LIMIT_S / QUIET_S) - 1):
        reactor.pass_time(QUIET_S)
        if goes_on:
            say(reactor, way.program, b"mail")
    assert not way.program.at_eof
    reactor.pass_time(2 * QUIET_S)
    reactor.turn_until(lambda: way.program.at_eof)
    reactor.pass_time(LINGER_S)
    assert way.relayed.reason == "stopping, unfinished"
    assert not reactor.getDelayedCalls()


def test_a_program_that_closed_its_side_gets_the_rest_and_no_words(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = idling(reactor, certificate, (PLAIN, PLAIN))
    way.program.close_write()
    reactor.turn_until(lambda: way.server.at_eof)
    way.relay.part()
    way.relay.part()  # twice does no harm
    say(reactor, way.server, b"* 1 EXISTS\r\n")
    reactor.pass_time(3 * QUIET_S)
    assert way.program.got == b"* 1 EXISTS\r\n"
    assert way.program.at_eof


def test_who_half_closes_while_we_stop_is_not_waited_for_longer(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = begun(reactor, certificate, b"a FETCH 1 BODY[]\r\n", octets(NOTICED_OCTETS + 1))
    way.relay.part()
    way.program.close_write()
    reactor.turn_until(lambda: way.server.at_eof)
    reactor.pass_time(3 * QUIET_S)
    assert way.program.at_eof


# --- limits


def test_silence_both_ways_ends_the_session(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = relaying(reactor, certificate)
    reactor.pass_time(IDLE_LIMIT_S - 1)
    assert not way.outcome
    reactor.pass_time(1 + LINGER_S)
    assert way.program.at_eof
    assert way.server.at_eof
    assert way.relayed.reason == "idle"


@pytest.mark.parametrize("speaker", ["program", "server"])
def test_an_octet_either_way_keeps_the_session(
    reactor: TurningReactor, certificate: LocalCertificate, speaker: str
) -> None:
    way = relaying(reactor, certificate)
    for _ in range(5):
        reactor.pass_time(IDLE_LIMIT_S - 1)
        getattr(way, speaker).say(b"x")
        reactor.settle()
    assert not way.outcome
    reactor.pass_time(2 * IDLE_LIMIT_S + LINGER_S)
    assert way.relayed.reason == "idle"


def test_an_idle_session_whose_program_takes_nothing_is_cut(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = relaying(reactor, certificate)
    way.program.stalled = True
    way.server.say(octets(4 * MIB))
    reactor.settle()
    reactor.pass_time(2 * IDLE_LIMIT_S)
    assert way.relayed.reason == "idle"


def test_after_a_half_close_silence_ends_sooner(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = relaying(reactor, certificate)
    way.program.close_write()
    reactor.turn_until(lambda: way.server.at_eof)
    for _ in range(4):
        reactor.pass_time(HALF_CLOSED_LIMIT_S - 1)
        way.server.say(b"x")
        reactor.settle()
    assert not way.outcome
    reactor.pass_time(2 * HALF_CLOSED_LIMIT_S + LINGER_S)
    assert way.relayed == Relayed(0, 4, "client closed")
    assert way.program.got == b"xxxx"


def test_closing_delivers_what_is_kept(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    way = relaying(reactor, certificate)
    way.program.stalled = True
    way.server.say(octets(4 * MIB))
    reactor.settle()
    way.relay.close("stopping")
    reactor.settle()
    way.program.stalled = False
    reactor.turn_until(lambda: way.program.at_eof)
    way.program.close()
    way.server.close()
    reactor.turn_until(lambda: way.outcome)
    assert way.relayed.reason == "stopping"
    assert len(way.program.got) == way.relayed.octets_down


def test_closing_ends_though_nobody_takes_or_says_anything(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    way = relaying(reactor, certificate)
    way.program.stalled = way.server.stalled = True
    way.server.say(octets(4 * MIB))
    way.program.say(octets(4 * MIB))
    reactor.settle()
    way.relay.close("stopping")
    reactor.pass_time(2 * DELIVERY_LIMIT_S)
    assert way.relayed.reason == "stopping"
    assert not reactor.getDelayedCalls()


def test_cancelling_ends_both_at_once(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    client, upstream = legs(reactor, certificate, (PLAIN, UPSTREAM_TLS))
    way = join(reactor, client, upstream)
    way.done.cancel()
    assert client.stream.fileno() == upstream.stream.fileno() == -1
    assert isinstance(way.outcome[0], Relayed | Failure)
    if isinstance(way.outcome[0], Failure):
        assert way.outcome[0].check(CancelledError)
    assert not reactor.getDelayedCalls()
