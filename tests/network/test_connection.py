"""The connection: dialogues on real sockets; what waits is not read, what is said is delivered, every end is told."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from proxy.demo.certificates import LocalCertificate
from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal
from proxy.network.connection import Connection, Lost, Outcome
from proxy.network.stream import DELIVERY_LIMIT_S, LINGER_S, Stream
from proxy.protocols import PROTOCOLS
from proxy.protocols.dialogue import (
    Action,
    Close,
    Dismissal,
    ExpireIn,
    Failed,
    Front,
    FrontSettings,
    Login,
    Ready,
    Send,
    StartTLS,
    Upstream,
    UpstreamSettings,
)
from tests.network.legs import contexts
from tests.network.turning import Peer, TurningReactor, result, socket_pair, watch

MIB = 1 << 20
SMALL_BUFFER = 65_536
LOGIN = Login(Credentials(b"u", b"p"))
REFUSED = LoginRefused(Refusal.BAD_CREDENTIALS, "Wrong login or password.", fault=Fault.CLIENT)


class Chapter(enum.Enum):
    ONLY = "only"


@dataclass
class Playbook:
    """A dialogue that answers what the test says; it keeps what it was told."""

    greeting: list[Action] = field(default_factory=list)
    answers: dict[bytes, list[Action]] = field(default_factory=dict)
    """To octets that end so."""
    after_tls: list[Action] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)
    told: list[str] = field(default_factory=list)
    raises: Exception | None = None
    state: enum.Enum = Chapter.ONLY

    def opened(self) -> list[Action]:
        self.told.append("opened")
        return self._answer(self.greeting)

    def received(self, data: bytes) -> list[Action]:
        self.heard += data
        for ending, actions in self.answers.items():
            if self.heard.endswith(ending):
                return self._answer(actions)
        return []

    def tls_started(self) -> list[Action]:
        self.told.append("tls_started")
        return self._answer(self.after_tls)

    def _answer(self, actions: list[Action]) -> list[Action]:
        if self.raises is not None:
            raise self.raises
        return actions

    def waiting(self) -> list[Action]:
        raise NotImplementedError

    def accept(self, ready: Ready) -> list[Action]:
        raise NotImplementedError

    def refuse(self, refused: LoginRefused, *, final: bool = False) -> list[Action]:
        raise NotImplementedError

    def expired(self) -> list[Action]:
        raise NotImplementedError

    def dismissed(self, why: Dismissal) -> list[Action]:
        raise NotImplementedError

    def unread(self) -> bytes:
        return b"pipelined"


@dataclass
class Talk:
    """A front's connection, and the mail program that the test plays."""

    connection: Connection[Front]
    stream: Stream
    program: Peer
    outcomes: list[Outcome | Failure]

    def next_outcome(self) -> None:
        self.outcomes.clear()
        self.connection.outcome().addBoth(self.outcomes.append)


def talk(
    reactor: TurningReactor,
    dialogue: Front,
    certificate: LocalCertificate | None = None,
    *,
    implicit_tls: bool = False,
    kind: str = "unix",
    buffer_octets: int | None = SMALL_BUFFER,
) -> Talk:
    near, far = socket_pair(kind, buffer_octets=buffer_octets)
    stream, program = Stream(near, reactor), Peer(far, reactor)

    def start_tls(stream: Stream) -> Deferred[None]:
        assert certificate is not None
        return stream.start_tls(certificate.server_context())

    connection: Connection[Front] = Connection(dialogue, start_tls, implicit_tls=implicit_tls)
    stream.open(connection)
    return Talk(connection, stream, program, watch(connection.outcome()))


def front(protocol: str, *, offers_tls: bool = False) -> Front:
    return PROTOCOLS[protocol].front(
        FrontSettings("mail.example", offers_tls, tls_active=False, requires_tls=False, defers_failures=False)
    )


# --- saying and hearing


def test_a_dialogue_greets_hears_and_answers(reactor: TurningReactor) -> None:
    playbook = Playbook([Send(b"hello\r\n")], {b"\r\n": [Send(b"one\r\n"), Send(b"two\r\n")]})
    way = talk(reactor, playbook)
    reactor.turn_until(lambda: way.program.got)
    assert way.program.take() == b"hello\r\n"
    way.program.say(b"any")
    reactor.settle()
    way.program.say(b"thing\r\n")
    reactor.turn_until(lambda: way.program.got)
    assert way.program.got == b"one\r\ntwo\r\n"
    assert playbook.heard == b"anything\r\n"
    assert not way.outcomes
    way.program.close()
    reactor.settle()
    assert way.outcomes == [Lost("peer left")]


def test_while_an_outcome_is_pending_nothing_is_read(reactor: TurningReactor) -> None:
    """TCP makes the program wait; nothing piles up here."""
    playbook = Playbook(answers={b"login\r\n": [LOGIN]})
    way = talk(reactor, playbook)
    way.program.say(b"login\r\n")
    reactor.turn_until(lambda: way.outcomes)
    assert way.outcomes == [LOGIN]
    more = random.Random(1).randbytes(4 * MIB)
    way.program.say(more)
    reactor.settle()
    assert playbook.heard == b"login\r\n"
    assert way.program.unsaid > len(more) - MIB
    way.next_outcome()
    assert way.outcomes == [LOGIN]
    way.connection.perform([Send(b"no\r\n")])
    way.next_outcome()
    reactor.turn_until(lambda: not way.program.unsaid)
    reactor.settle()
    assert playbook.heard == b"login\r\n" + more
    assert not way.outcomes


def test_an_outcome_of_the_answer_itself_is_the_next(reactor: TurningReactor) -> None:
    """A program that has sent its next attempt already."""
    way = talk(reactor, Playbook(answers={b"login\r\n": [LOGIN]}))
    way.program.say(b"login\r\n")
    reactor.turn_until(lambda: way.outcomes)
    again = Login(Credentials(b"u", b"q"))
    way.connection.perform([Send(b"no\r\n"), again])
    way.next_outcome()
    assert way.outcomes == [again]
    assert not reactor.is_reading(way.stream)
    way.connection.abort()


def test_a_goodbye_is_delivered_before_the_end(reactor: TurningReactor) -> None:
    farewell = random.Random(1).randbytes(MIB)
    way = talk(reactor, Playbook(answers={b"quit\r\n": [Send(farewell), Close("logout")]}))
    way.program.say(b"quit\r\n")
    reactor.turn_until(lambda: way.outcomes)
    assert way.outcomes == [Lost("logout")]
    assert way.connection.lost
    way.connection.perform([Send(b"nothing more")])
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == farewell


def test_the_outcome_of_an_upstream_keeps_what_follows_in_the_socket(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, server = Stream(near, reactor), Peer(far, reactor)
    settings = UpstreamSettings(Bearer("u@example.com", "a-token"), starttls=False, hostname="mail.example")
    dialogue = PROTOCOLS["pop3"].upstream(settings)
    connection: Connection[Upstream] = Connection(dialogue, lambda _: Deferred(), implicit_tls=False)
    stream.open(connection)
    outcomes = watch(connection.outcome())
    server.say(b"+OK ready\r\n")
    reactor.turn_until(lambda: server.got == b"AUTH XOAUTH2\r\n")
    server.say(b"+ \r\n")
    reactor.turn_until(lambda: server.got.count(b"\n") == 2)
    server.say(b"-ERR [AUTH] no\r\n")
    reactor.turn_until(lambda: outcomes)
    assert isinstance(outcomes[0], Failed)
    server.say(b"more")
    reactor.settle()
    assert not reactor.is_reading(stream)
    connection.abort()
    assert stream.fileno() == -1


def test_a_released_stream_is_the_relays_alone(reactor: TurningReactor) -> None:
    playbook = Playbook(answers={b"login\r\n": [LOGIN]})
    way = talk(reactor, playbook)
    way.program.say(b"login\r\n")
    reactor.turn_until(lambda: way.outcomes)
    stream, unread = way.connection.release()
    assert stream is way.stream
    assert unread == b"pipelined"
    way.program.say(b"mail")
    reactor.settle()
    assert playbook.heard == b"login\r\n"
    way.connection.abort()  # no longer its own
    assert stream.fileno() != -1
    stream.abortConnection()


# --- TLS


def test_starttls_leads_to_a_dialogue_in_tls(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    playbook = Playbook(answers={b"starttls\r\n": [Send(b"go\r\n"), StartTLS()]}, after_tls=[Send(b"secretly\r\n")])
    way = talk(reactor, playbook, certificate)
    way.program.say(b"starttls\r\n")
    reactor.turn_until(lambda: way.program.got == b"go\r\n")
    assert playbook.told == ["opened"]
    way.program.take()
    way.program.start_tls(certificate.client_context(), server_side=False, server_hostname="localhost")
    reactor.turn_until(lambda: way.program.got)
    assert playbook.told == ["opened", "tls_started"]
    assert way.program.got == b"secretly\r\n"
    way.program.say(b"more")
    reactor.turn_until(lambda: playbook.heard.endswith(b"more"))
    assert way.stream.tls is not None


@pytest.mark.parametrize(
    ("protocol", "octets"),
    [
        ("imap", b"a STARTTLS\r\nb LOGIN u p\r\n"),
        ("smtp", b"STARTTLS\r\nEHLO x\r\nAUTH PLAIN AHUAcA==\r\n"),
        ("pop3", b"STLS\r\nUSER u\r\nPASS p\r\n"),
    ],
)
def test_octets_behind_starttls_close_the_connection(
    reactor: TurningReactor, certificate: LocalCertificate, protocol: str, octets: bytes
) -> None:
    """CLIENTS cases 32, 51 and 63."""
    way = talk(reactor, front(protocol, offers_tls=True), certificate)
    reactor.turn_until(lambda: way.program.got)
    way.program.take()
    way.program.say(octets)
    reactor.turn_until(lambda: way.outcomes)
    assert way.outcomes == [Lost("starttls_injection")]
    reactor.turn_until(lambda: way.program.at_eof)
    assert not way.program.got
    assert way.stream.tls is None


@pytest.mark.parametrize(
    ("protocol", "command", "injected"),
    [
        ("imap", b"a STARTTLS\r\n", b"b LOGIN u p\r\n"),
        ("smtp", b"STARTTLS\r\n", b"EHLO x\r\nAUTH PLAIN AHUAcA==\r\n"),
        ("pop3", b"STLS\r\n", b"USER u\r\nPASS p\r\n"),
    ],
)
def test_octets_a_moment_behind_starttls_close_the_connection_too(
    reactor: TurningReactor, certificate: LocalCertificate, protocol: str, command: bytes, injected: bytes
) -> None:
    way = talk(reactor, front(protocol, offers_tls=True), certificate)
    reactor.turn_until(lambda: way.program.got)
    way.program.take()
    way.program.say(command)
    reactor.turn_until(lambda: way.program.got)
    way.program.take()
    way.program.say(injected)
    reactor.turn_until(lambda: way.outcomes)
    assert isinstance(way.outcomes[0], Lost)
    assert way.outcomes[0].reason.startswith("TLS failed")
    assert way.stream.fileno() == -1


def test_implicit_tls_comes_before_the_greeting(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    playbook = Playbook([Send(b"hello\r\n")])
    way = talk(reactor, playbook, certificate, implicit_tls=True)
    reactor.settle()
    assert not playbook.told
    way.program.start_tls(certificate.client_context(), server_side=False, server_hostname="localhost")
    reactor.turn_until(lambda: way.program.got)
    assert way.program.got == b"hello\r\n"
    way.program.close_write()
    reactor.turn_until(lambda: way.outcomes)
    assert way.outcomes == [Lost("peer left")]


def test_plain_text_on_an_implicit_tls_port_is_told_in_words(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    playbook = Playbook([Send(b"hello\r\n")])
    way = talk(reactor, playbook, certificate, implicit_tls=True)
    way.program.say(b"a LOGIN u p\r\n")
    reactor.turn_until(lambda: way.outcomes)
    assert isinstance(way.outcomes[0], Lost)
    assert way.outcomes[0].reason.startswith("TLS failed (")
    assert ".c:" not in way.outcomes[0].reason
    assert not playbook.told
    assert not playbook.heard
    assert way.stream.fileno() == -1


def test_a_certificate_that_is_not_trusted_is_told_in_words(
    reactor: TurningReactor, certificate: LocalCertificate, other_certificate: LocalCertificate
) -> None:
    near, far = socket_pair()
    stream, server = Stream(near, reactor), Peer(far, reactor)
    client = other_certificate.client_context()
    connection: Connection[Upstream] = Connection(
        Playbook(), lambda stream: stream.start_tls(client, server_hostname="localhost"), implicit_tls=True
    )
    stream.open(connection)
    server.start_tls(contexts(certificate, None)[0], server_side=True)
    outcome = result(connection.outcome(), reactor)
    assert isinstance(outcome, Lost)
    assert outcome.reason.startswith("its certificate is not trusted (")
    assert stream.fileno() == -1


def test_a_handshake_that_does_not_end_is_ended_by_the_deadline(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    """A program that connects to a TLS port and is silent."""
    way = talk(reactor, front("imap"), certificate, implicit_tls=True)
    way.connection.perform(way.connection.dialogue.expired())
    assert way.outcomes == [Lost("login_deadline")]
    reactor.settle()
    assert way.stream.fileno() == -1


# --- back-pressure


def test_ten_thousand_commands_of_a_program_that_does_not_read_stay_bounded(reactor: TurningReactor) -> None:
    """CLIENTS case 37."""
    way, other = talk(reactor, front("imap"), buffer_octets=4096), talk(reactor, front("imap"))
    reactor.settle()
    way.program.take()
    way.program.stalled = True
    count = 10_000
    way.program.say(b"".join(b"a%d NOOP\r\n" % n for n in range(count)))
    reactor.settle()
    assert 0 < way.stream.unsent() < 65_536
    assert way.program.unsaid
    assert not reactor.is_reading(way.stream)
    other.program.say(b"b NOOP\r\n")  # nobody else waits
    reactor.turn_until(lambda: b"b OK" in other.program.got)
    way.program.stalled = False
    reactor.turn_until(lambda: way.program.got.count(b"\r\n") == count)
    assert way.program.got == b"".join(b"a%d OK NOOP completed\r\n" % n for n in range(count))


def test_a_program_that_never_reads_is_given_up(reactor: TurningReactor) -> None:
    way = talk(reactor, front("imap"))
    way.program.stalled = True
    way.program.say(b"a NOOP\r\n" * 50_000)
    reactor.settle()
    way.connection.perform(way.connection.dialogue.expired())
    assert way.outcomes == [Lost("login_deadline")]
    reactor.pass_time(DELIVERY_LIMIT_S + LINGER_S)
    assert way.stream.fileno() == -1


# --- ends in the middle


def pending_login(reactor: TurningReactor, kind: str = "tcp") -> Talk:
    way = talk(reactor, front("imap"), kind=kind, buffer_octets=None)
    way.program.say(b"a LOGIN u p\r\nb SELECT INBOX\r\n")
    reactor.turn_until(lambda: way.outcomes)
    assert isinstance(way.outcomes[0], Login)
    way.program.take()
    return way


def test_the_deadline_ends_a_pending_login(reactor: TurningReactor) -> None:
    way = pending_login(reactor)
    way.connection.perform(way.connection.dialogue.expired())
    assert way.connection.lost
    way.connection.perform(way.connection.dialogue.accept(Ready("welcome")))  # which comes too late
    way.next_outcome()
    assert way.outcomes == [Lost("login_deadline")]
    reactor.turn_until(lambda: way.program.at_eof)
    assert way.program.got == b"* BYE The time for logging in is over\r\n"


@pytest.mark.parametrize("leaves", [Peer.close, Peer.reset], ids=["close", "reset"])
@pytest.mark.parametrize("answer", ["accept", "refuse"])
def test_a_program_that_left_during_its_login_ends_without_an_error(
    reactor: TurningReactor, leaves: Callable[[Peer], None], answer: str
) -> None:
    way = pending_login(reactor)
    leaves(way.program)
    reactor.settle()
    dialogue = way.connection.dialogue
    way.connection.perform(dialogue.accept(Ready("hi")) if answer == "accept" else dialogue.refuse(REFUSED))
    way.next_outcome()
    reactor.turn_until(lambda: way.outcomes)
    assert isinstance(way.outcomes[0], Lost)
    reactor.pass_time(LINGER_S)
    assert way.stream.fileno() == -1


def test_cancelling_the_wait_ends_the_connection_at_once(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, _ = Stream(near, reactor), Peer(far, reactor)
    connection: Connection[Front] = Connection(Playbook(), lambda _: Deferred(), implicit_tls=False)
    stream.open(connection)
    waiting = connection.outcome()
    outcome = watch(waiting)
    waiting.cancel()
    assert isinstance(outcome[0], Failure)
    assert outcome[0].check(CancelledError)
    assert stream.fileno() == -1
    assert connection.lost


def test_what_is_said_between_settles_nothing(reactor: TurningReactor) -> None:
    playbook = Playbook()
    playbook.answers[b"log in\r\n"] = [Login(None)]
    way = talk(reactor, playbook)
    way.program.say(b"log in\r\n")
    reactor.turn_until(lambda: way.outcomes)
    way.connection.interject([Send(b"* OK Still working\r\n")])
    way.program.say(b"more\r\n")
    reactor.settle()
    assert way.program.take().endswith(b"* OK Still working\r\n")
    assert playbook.heard == b"log in\r\n"  # it still waits for the session
    way.program.close()
    way.connection.abort()
    way.connection.interject([Send(b"* OK Still working\r\n")])  # to nobody: no harm


def test_another_greeting_in_place_of_the_dialogues_own(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, program = Stream(near, reactor), Peer(far, reactor)
    connection: Connection[Front] = Connection(
        Playbook(),
        lambda _: Deferred(),
        implicit_tls=False,
        greet=lambda: [Send(b"* BYE Not now\r\n"), Close("try_later")],
    )
    stream.open(connection)
    reactor.turn_until(lambda: program.at_eof)
    assert program.got == b"* BYE Not now\r\n"
    assert connection.lost


def test_a_limit_of_the_dialogue_is_told(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, program = Stream(near, reactor), Peer(far, reactor)
    limits: list[float] = []
    connection: Connection[Front] = Connection(
        Playbook(),
        lambda _: Deferred(),
        implicit_tls=False,
        greet=lambda: [ExpireIn(10.0), Send(b"a OK\r\n")],
        expire_in=limits.append,
    )
    stream.open(connection)
    reactor.turn_until(lambda: program.got == b"a OK\r\n")
    assert limits == [10.0]
    connection.abort()


def test_a_stream_lost_before_it_is_opened_is_an_outcome(reactor: TurningReactor) -> None:
    near, far = socket_pair()
    stream, _ = Stream(near, reactor), Peer(far, reactor)
    connection: Connection[Front] = Connection(Playbook(), lambda _: Deferred(), implicit_tls=False)
    stream.abortConnection()
    stream.open(connection)
    assert isinstance(result(connection.outcome(), reactor), Lost)


def test_an_error_of_the_dialogue_is_an_outcome(reactor: TurningReactor) -> None:
    playbook = Playbook()
    way = talk(reactor, playbook)
    playbook.raises = RuntimeError("unforeseen")
    playbook.answers[b"x"] = []
    way.program.say(b"x")
    reactor.turn_until(lambda: way.outcomes)
    assert way.outcomes == [Lost("unforeseen")]
    assert way.stream.fileno() == -1
    assert reactor.failures == [playbook.raises]
    reactor.failures.clear()


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "starttls"])
def test_an_error_of_the_dialogue_behind_its_handshake_is_an_outcome_and_logged(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    caplog: pytest.LogCaptureFixture,
    implicit: bool,
) -> None:
    playbook = Playbook(answers={b"starttls\r\n": [Send(b"go\r\n"), StartTLS()]})
    way = talk(reactor, playbook, certificate, implicit_tls=implicit)
    if not implicit:
        way.program.say(b"starttls\r\n")
        reactor.turn_until(lambda: way.program.got)
        way.program.take()
    playbook.raises = RuntimeError("unforeseen")
    way.program.start_tls(certificate.client_context(), server_side=False, server_hostname="localhost")
    reactor.turn_until(lambda: way.outcomes)
    assert isinstance(way.outcomes[0], Lost)
    assert way.stream.fileno() == -1
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is playbook.raises


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_tls_program_on_a_plain_port_is_closed_with_a_reason(
    reactor: TurningReactor, certificate: LocalCertificate, protocol: str
) -> None:
    """CLIENTS case 65."""
    way = talk(reactor, front(protocol))
    reactor.turn_until(lambda: way.program.got)
    way.program.take()
    way.program.start_tls(certificate.client_context(), server_side=False, server_hostname="localhost")
    reactor.turn_until(lambda: way.outcomes)
    assert way.outcomes == [Lost("tls_on_plain_port")]
