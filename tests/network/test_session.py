"""The session: four steps from a password to a relayed mailbox, and a calm answer to all that can go wrong."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.config.settings import AuthFailures, ListenerTls, ProtocolName
from proxy.demo.certificates import LocalCertificate
from proxy.log import Log
from proxy.login import Fault, LoginRefused, Refusal
from proxy.network import lobby as lobby_module
from proxy.network.limits import QUEUE_LIMIT_S
from proxy.network.mailboxes import OPENING_LIMIT_S, REFUSED_PAUSES_S, UNHEARD_PAUSES_S
from proxy.network.outages import KNOWN_AFTER_S, PROBE_EVERY_S
from proxy.network.relay import QUIET_S
from proxy.network.session import (
    AUTO_TLS_WAIT_S,
    LOGIN_LIMIT_S,
    MAX_AUTO_TLS_WAIT_S,
    MAX_WRONG_ATTEMPTS,
    STILL_WORKING_S,
    WRONG_PASSWORD_DELAY_S,
    Door,
    Session,
)
from proxy.network.stream import DELIVERY_LIMIT_S, LINGER_S, Stream
from proxy.network.throttle import MAX_WRONG_PER_ADDRESS, WRONG_WINDOW_S
from proxy.protocols import PROTOCOLS
from proxy.protocols.dialogue import CROWDED_OUT, STOPPING
from tests.network.house import ALICE, LOGIN, PASSWORD, PEER, TOKEN, House, Mailbox, house, listener, with_connections
from tests.network.turning import Peer, TurningReactor, socket_pair, watch

IMAP_LOGIN = b"a LOGIN " + LOGIN + b" " + PASSWORD + b"\r\n"
POP3_LOGIN = b"USER " + LOGIN + b"\r\nPASS " + PASSWORD + b"\r\n"
PLAIN = base64.b64encode(b"\0" + LOGIN + b"\0" + PASSWORD)
SMTP_LOGIN = b"EHLO x\r\nAUTH PLAIN " + PLAIN + b"\r\n"
SIGN_IN = LoginRefused(Refusal.SIGN_IN_NEEDED, "Nobody has signed in: run mailferry sign-in alice", fault=Fault.CLIENT)


@dataclass
class Going:
    """A session, and the mail program that the test plays."""

    session: Session
    door: Door
    program: Peer
    stream: Stream
    ended: list[Failure | None]

    @property
    def over(self) -> bool:
        """It ended without an error."""
        assert self.ended in ([], [None])
        return bool(self.ended)


def door(
    certificate: LocalCertificate,
    protocol: ProtocolName = "imap",
    tls: ListenerTls = ListenerTls.OFF,
    **keys: Any,
) -> Door:
    """`keys` are the listener's."""
    context = None if tls is ListenerTls.OFF else certificate.server_context()
    return Door(listener(protocol, tls, **keys), PROTOCOLS[protocol], context)


def begin(reactor: TurningReactor, home: House, through: Door) -> Going:
    near, far = socket_pair("tcp")
    stream, program = Stream(near, reactor), Peer(far, reactor)
    session = Session(through, home.services, PEER, Log("session", session="1"))
    return Going(session, through, program, stream, watch(Deferred.fromCoroutine(session.run(stream))))


def greeted(reactor: TurningReactor, home: House, through: Door) -> Going:
    going = begin(reactor, home, through)
    reactor.turn_until(lambda: going.program.got.endswith(b"\r\n"), waiting_for="the greeting")
    going.program.take()
    return going


def hear(reactor: TurningReactor, going: Going, ending: bytes = b"\r\n") -> bytes:
    reactor.turn_until(lambda: going.program.got.endswith(ending), waiting_for=repr(ending))
    return going.program.take()


def answer(reactor: TurningReactor, going: Going) -> bytes:
    """The tagged one, without what is said untagged before it."""

    def tagged() -> list[bytes]:
        return [line for line in bytes(going.program.got).splitlines(keepends=True) if line.startswith(b"a ")]

    reactor.turn_until(lambda: tagged() and tagged()[-1].endswith(b"\n"), waiting_for="a tagged answer")
    return tagged()[-1]


@pytest.fixture
def mailbox(reactor: TurningReactor, certificate: LocalCertificate) -> Mailbox:
    return Mailbox(reactor, certificate)


@pytest.fixture
def home(reactor: TurningReactor, mailbox: Mailbox) -> House:
    return house(reactor, mailbox)


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """CLIENTS case 67: after every test here, the log at its most talkative is searched."""
    with caplog.at_level(logging.DEBUG):
        yield
    text = caplog.text + "".join(str(getattr(record, "fields", "")) for record in caplog.get_records("call"))
    secrets = [PASSWORD, base64.b64encode(PASSWORD)[:-4], PLAIN, b"token-number", b"wrong-", b"Bearer "]
    secrets += [base64.b64encode((TOKEN % n).encode())[:-4] for n in (1, 2)]
    assert [secret for secret in secrets if secret.decode() in text] == []


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    """The fields of each line of this event."""
    return [getattr(record, "fields", {}) for record in caplog.records if record.getMessage() == event]


# --- the four steps


def test_a_login_leads_to_the_mailbox(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    mailbox: Mailbox,
    home: House,
    caplog: pytest.LogCaptureFixture,
) -> None:
    going = begin(reactor, home, door(certificate))
    assert hear(reactor, going).startswith(b"* OK [CAPABILITY IMAP4 IMAP4rev1 ")
    assert not mailbox.visits  # nothing leaves this machine before a password is right
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going) == b"a OK [CAPABILITY IMAP4rev1 IDLE MOVE] AUTHENTICATE completed.\r\n"
    assert home.tokens.asked == [(ALICE.mailbox, False)]
    assert home.states.told == ["alice succeeded"]
    going.program.say(b"b SELECT INBOX\r\n")
    assert hear(reactor, going) == b"b OK done\r\n"
    assert mailbox.visit.after_login() == b"b SELECT INBOX\r\n"
    going.program.close_write()
    reactor.turn_until(lambda: mailbox.visit.peer.at_eof)
    mailbox.visit.peer.close_write()
    reactor.turn_until(lambda: going.over and going.program.at_eof)
    [line] = logged(caplog, "session closed")
    assert (line["login"], line["bytes_up"], line["bytes_down"]) == ("alice", 16, 11)


@pytest.mark.parametrize(
    ("protocol", "said", "answer", "name"),
    [
        ("pop3", POP3_LOGIN, b"+OK User successfully authenticated\r\n", ALICE.mailbox),
        ("smtp", SMTP_LOGIN, b"235 2.7.0 Authentication successful\r\n", ALICE.sign_in),
    ],
    ids=["pop3", "smtp"],
)
def test_the_other_protocols_lead_there_too(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    protocol: ProtocolName,
    said: bytes,
    answer: bytes,
    name: str,
) -> None:
    mailbox = Mailbox(reactor, certificate, protocol)
    home = house(reactor, mailbox)
    going = greeted(reactor, home, door(certificate, protocol))
    going.program.say(said)
    assert hear(reactor, going, answer).endswith(answer)
    assert home.tokens.asked == [(name, False)]
    going.program.say(b"NOOP\r\n")
    reactor.turn_until(lambda: going.program.got)
    assert mailbox.visit.after_login() == b"NOOP\r\n"


@pytest.mark.parametrize("tls", [ListenerTls.IMPLICIT, ListenerTls.AUTO, ListenerTls.STARTTLS])
def test_the_program_may_speak_tls(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House, tls: ListenerTls
) -> None:
    going = begin(reactor, home, door(certificate, tls=tls))
    client = certificate.client_context()
    if tls is ListenerTls.STARTTLS:
        hear(reactor, going)
        going.program.say(b"s STARTTLS\r\n")
        hear(reactor, going)
    going.program.start_tls(client, server_side=False, server_hostname="localhost")
    going.program.say(IMAP_LOGIN)
    assert b"a OK [CAPABILITY IMAP4rev1 IDLE MOVE]" in hear(reactor, going, b"completed.\r\n")
    assert mailbox.visit.logged_in
    assert going.program.tls is not None


# --- what is pipelined


def test_what_is_pipelined_behind_the_login_goes_upstream_after_it_in_order(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """CLIENTS case 28."""
    going = greeted(reactor, home, door(certificate))
    home.tokens.holds = True
    going.program.say(IMAP_LOGIN + b"b SELECT INBOX\r\nc IDL")
    reactor.pass_time(2)
    assert not mailbox.visits
    home.tokens.go_on()
    mailbox.holds_verdict = True
    reactor.turn_until(lambda: mailbox.visits and mailbox.visit.lines)
    going.program.say(b"E\r\n")
    reactor.settle()
    assert not mailbox.visit.after_login()
    assert not going.program.got
    mailbox.holds_verdict = False
    assert hear(reactor, going, b"c OK done\r\n").endswith(b"b OK done\r\nc OK done\r\n")
    assert mailbox.visit.after_login() == b"b SELECT INBOX\r\nc IDLE\r\n"


def test_what_is_pipelined_is_not_taken_for_the_answer_to_a_challenge(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """CLIENTS case 29: upstream says `+ eyJ...`, then NO."""
    mailbox.refused_tokens = {1, 2}
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN + b"b NOOP\r\n")
    answer = hear(reactor, going, b"b OK NOOP completed\r\n")
    assert answer.startswith(b"a NO [UNAVAILABLE] ")
    assert len(mailbox.visits) == 2
    for visit in mailbox.visits:
        assert visit.lines[1:] == [b"\r\n"]


# --- tokens


def test_a_refused_token_is_refreshed_once(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    mailbox.refused_tokens = {1}
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"a OK ")
    assert home.tokens.asked == [(ALICE.mailbox, False), (ALICE.mailbox, True)]
    assert [visit.logged_in for visit in mailbox.visits] == [False, True]
    reactor.turn_until(lambda: mailbox.visits[0].peer.at_eof)  # the first is not left open


@pytest.mark.parametrize(
    ("protocol", "said", "answer"),
    [
        ("imap", IMAP_LOGIN, b"a NO [UNAVAILABLE] "),
        ("pop3", POP3_LOGIN, b"-ERR [SYS/PERM] "),
        ("smtp", SMTP_LOGIN, b"454 4.7.0 "),
    ],
    ids=["imap", "pop3", "smtp"],
)
def test_a_token_refused_twice_is_told_as_upstreams_refusal(
    reactor: TurningReactor, certificate: LocalCertificate, protocol: ProtocolName, said: bytes, answer: bytes
) -> None:
    mailbox = Mailbox(reactor, certificate, protocol)
    mailbox.refused_tokens = {1, 2}
    home = house(reactor, mailbox)
    going = greeted(reactor, home, door(certificate, protocol))
    going.program.say(said)
    reactor.turn_until(lambda: b"\r\n" + answer in b"\r\n" + bytes(going.program.got))
    assert [fresh for _, fresh in home.tokens.asked] == [False, True]
    assert home.states.told == ["alice refused_upstream"]
    reactor.settle()
    assert all(visit.peer.at_eof for visit in mailbox.visits)


def test_what_the_tokens_refuse_is_told(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    home.tokens.refuses = SIGN_IN
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going) == b"a NO [UNAVAILABLE] Nobody has signed in: run mailferry sign-in alice\r\n"
    assert not mailbox.visits
    assert home.states.told == ["alice sign_in_needed"]
    home.tokens.refuses = None
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"a OK ")


def test_whose_password_was_right_is_invited_and_the_log_does_not_hear_it(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    home.tokens.refuses = LoginRefused(Refusal.SIGN_IN_NEEDED, "Nobody has signed in.", fault=Fault.CLIENT)
    home.invitations.words = "Sign in at https://there with code THECODE42."
    going = greeted(reactor, home, door(certificate))
    going.program.say(b"x LOGIN alice wrong-password\r\n")
    reactor.pass_time(WRONG_PASSWORD_DELAY_S)
    assert b"THECODE42" not in hear(reactor, going)
    assert home.invitations.asked == []
    going.program.got.clear()
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going) == (
        b"a NO [UNAVAILABLE] Sign in at https://there with code THECODE42. Nobody has signed in.\r\n"
    )
    assert home.invitations.asked == ["alice"]
    assert "Nobody has signed in." in str([record.__dict__ for record in caplog.records])
    assert "THECODE42" not in str([record.__dict__ for record in caplog.records])


def test_a_device_that_said_no_password_is_not_invited(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    home.tokens.refuses = LoginRefused(Refusal.SIGN_IN_NEEDED, "Nobody has signed in.", fault=Fault.CLIENT)
    through = door(certificate, "smtp", allow_from=(ip_network("127.0.0.0/8"),), implicit_account="ALICE")
    going = greeted(reactor, home, through)
    going.program.say(b"HELO scanner\r\nMAIL FROM:<a@b.example>\r\n")
    assert b" Nobody has signed in." in hear(reactor, going, b"Nobody has signed in.\r\n")
    assert home.invitations.asked == []


@pytest.mark.parametrize("refusal", [Refusal.TRY_LATER, Refusal.MISCONFIGURED])
def test_where_no_sign_in_helps_nobody_is_invited(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, refusal: Refusal
) -> None:
    home.tokens.refuses = LoginRefused(refusal, "Not now.", fault=Fault.NETWORK, again_in_s=600)
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going) == b"a NO [UNAVAILABLE] Not now.\r\n"
    assert home.invitations.asked == []


def test_authenticated_but_not_connected_is_no_success(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """CLIENTS case 30."""
    mailbox.verdict = b"%BAD User is authenticated but not connected."
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.pass_time(REFUSED_PAUSES_S[0])
    assert b"a NO [UNAVAILABLE] " in hear(reactor, going)
    assert len(mailbox.visits) == 2  # Exchange counts connections: once more, and no oftener
    assert home.states.told == ["alice try_later"]


def test_authenticated_but_not_connected_may_pass(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    mailbox.verdict = b"%BAD User is authenticated but not connected."
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.turn_until(lambda: mailbox.visits and mailbox.visit.lines)
    mailbox.verdict = b""
    reactor.pass_time(REFUSED_PAUSES_S[0])
    assert hear(reactor, going).startswith(b"a OK ")
    assert [fresh for _, fresh in home.tokens.asked] == [False, False]


# --- upstream in trouble


def test_an_upstream_that_does_not_answer_is_given_up_in_time(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    mailbox.silent = True
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.pass_time(STILL_WORKING_S - 0.1)
    assert not going.program.got
    reactor.pass_time(OPENING_LIMIT_S - STILL_WORKING_S)
    assert going.program.take() == 2 * b"* OK Still working\r\n"
    reactor.pass_time(0.1)
    answer = hear(reactor, going)
    assert answer.startswith(b"a NO [UNAVAILABLE] Not your password: localhost did not answer within 25 seconds")
    assert mailbox.visit.peer.got.startswith(b"\x16")  # a ClientHello
    assert mailbox.visit.peer.at_eof
    assert home.states.told == ["alice try_later"]


def test_a_sign_in_service_that_does_not_answer_is_given_up_in_time(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    home.tokens.holds = True
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.pass_time(OPENING_LIMIT_S)
    assert b"\r\na NO [UNAVAILABLE] " in hear(reactor, going)
    assert home.tokens.cancelled == 1


def test_no_connection_is_told(reactor: TurningReactor, certificate: LocalCertificate) -> None:
    home = house(reactor)
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.pass_time(sum(UNHEARD_PAUSES_S))
    answer = hear(reactor, going)
    assert b"a NO [UNAVAILABLE] Not your password: no connection to nowhere.example:993: " in answer
    assert len(reactor.resolver.asked) >= 1 + len(UNHEARD_PAUSES_S)


def test_an_upstream_that_comes_back_in_time_was_never_missed(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """CLIENTS 3.1: before a network error is told, wait and try again."""
    reactor.resolver.addresses.clear()
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.pass_time(UNHEARD_PAUSES_S[0] - 0.1)
    reactor.resolver.addresses["localhost"] = ("127.0.0.1",)
    reactor.pass_time(0.1)
    assert hear(reactor, going).startswith(b"a OK ")
    assert home.states.told == ["alice succeeded"]


def test_a_sign_in_service_that_comes_back_in_time_was_never_missed(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    home.tokens.refuses = LoginRefused(Refusal.TRY_LATER, "No answer.", fault=Fault.MICROSOFT_SIGN_IN)
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.settle()
    home.tokens.refuses = None
    reactor.pass_time(UNHEARD_PAUSES_S[0])
    assert hear(reactor, going).startswith(b"a OK ")


@pytest.mark.parametrize(
    ("protocol", "greeting"),
    [("imap", b"* BYE Not your"), ("pop3", b"-ERR [SYS/TEMP] Not your"), ("smtp", b"421 4.3.2 Not your")],
)
def test_a_known_outage_is_told_in_place_of_the_greeting(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, protocol: ProtocolName, greeting: bytes
) -> None:
    """CLIENTS decision 3: nobody has offered a password yet that could be taken for wrong."""
    home = house(reactor, mailbox)
    reactor.resolver.addresses.clear()
    home.services.mailboxes.outages.failed(mailbox.upstream, "localhost:993: no route")
    reactor.pass_time(KNOWN_AFTER_S)
    going = begin(reactor, home, door(certificate, protocol))
    assert hear(reactor, going).startswith(greeting)
    reactor.turn_until(lambda: going.over and going.program.at_eof)
    reactor.resolver.addresses["localhost"] = ("127.0.0.1",)
    reactor.pass_time(PROBE_EVERY_S)
    hear(reactor, begin(reactor, home, door(certificate, protocol)), b"ready\r\n")


def test_a_slow_login_is_told_that_it_goes_on(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """What was said behind the login waits all the same, and in order."""
    home.tokens.holds = True
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN + b"b SELECT INBOX\r\n")
    reactor.pass_time(STILL_WORKING_S)
    assert hear(reactor, going) == b"* OK Still working\r\n"
    home.tokens.go_on()
    assert b"a OK " in hear(reactor, going, b"b OK done\r\n")
    reactor.pass_time(STILL_WORKING_S)
    assert not going.program.got


def test_a_certificate_that_does_not_fit_is_told(
    reactor: TurningReactor, certificate: LocalCertificate, other_certificate: LocalCertificate
) -> None:
    mailbox = Mailbox(reactor, other_certificate)
    home = house(reactor, mailbox)
    going = greeted(reactor, home, door(certificate))
    mailbox._context = certificate.server_context()
    going.program.say(IMAP_LOGIN)
    assert b"its certificate is not trusted" in hear(reactor, going)
    assert not mailbox.visit.lines


def test_an_upstream_that_hangs_up_is_told(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    mailbox.silent = True
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    for pause_s in (0.0, *UNHEARD_PAUSES_S):
        reactor.pass_time(pause_s)
        mailbox.visit.peer.close()
    assert answer(reactor, going).startswith(
        b"a NO [UNAVAILABLE] Not your password: the connection to localhost failed"
    )
    assert len(mailbox.visits) == 1 + len(UNHEARD_PAUSES_S)


# --- wrong passwords


def wrong(number: int) -> bytes:
    return b"a LOGIN alice wrong-%d\r\n" % number


def test_wrong_passwords_cost_more_and_more_time_and_the_third_the_connection(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """CLIENTS case 39."""
    going = greeted(reactor, home, door(certificate))
    for number in (1, 2, 3):
        going.program.say(wrong(number))
        reactor.pass_time(WRONG_PASSWORD_DELAY_S * number - 0.1)
        assert not going.program.got
        reactor.pass_time(0.1)
        assert going.program.got.startswith(b"a NO [AUTHENTICATIONFAILED] ")
        assert going.program.at_eof == (number == 3)
        assert (b"* BYE" in going.program.take()) == (number == 3)
    assert going.over
    assert not mailbox.visits
    assert not home.tokens.asked
    assert not home.states.told


def test_one_typo_tried_in_three_ways_counts_once(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    """CLIENTS 0.10: Thunderbird tries PLAIN, then LOGIN, then the LOGIN command."""
    going = greeted(reactor, home, door(certificate))
    blob = base64.b64encode(b"\0alice\0wrong-1")
    ways = [
        b"a AUTHENTICATE PLAIN " + blob + b"\r\n",
        b"a AUTHENTICATE LOGIN YWxpY2U=\r\n" + base64.b64encode(b"wrong-1") + b"\r\n",
        wrong(1),
    ]
    for said in ways * (MAX_WRONG_ATTEMPTS // 3):
        assert not going.over
        going.program.say(said)
        reactor.pass_time(WRONG_PASSWORD_DELAY_S)
        assert b"a NO [AUTHENTICATIONFAILED] " in going.program.take()
    assert going.over  # but not for ever
    assert len(home.passdb.asked) == MAX_WRONG_ATTEMPTS


def test_the_right_password_may_follow_wrong_ones(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(wrong(1) + wrong(2) + IMAP_LOGIN)
    reactor.pass_time(3 * WRONG_PASSWORD_DELAY_S)
    reactor.turn_until(lambda: b"a OK " in going.program.got)
    assert going.program.got.count(b"a NO [AUTHENTICATIONFAILED]") == 2


def test_what_follows_a_wrong_password_waits_with_it(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    """Otherwise a guesser would not be slowed down at all."""
    going = greeted(reactor, home, door(certificate))
    going.program.say(wrong(1) + wrong(2))
    reactor.pass_time(WRONG_PASSWORD_DELAY_S - 0.1)
    assert len(home.passdb.asked) == 1


# --- limits


def test_a_login_beyond_the_accounts_share_waits_for_a_place(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """CLIENTS case 41."""
    home.passdb.account = with_connections(ALICE, imap=1)
    first, second, third = (greeted(reactor, home, door(certificate)) for _ in range(3))
    first.program.say(IMAP_LOGIN)
    hear(reactor, first)
    second.program.say(IMAP_LOGIN)
    third.program.say(IMAP_LOGIN)
    reactor.pass_time(QUEUE_LIMIT_S - 1)
    assert len(mailbox.visits) == 1
    first.program.close_write()
    reactor.turn_until(lambda: mailbox.visit.peer.at_eof)
    mailbox.visit.peer.close_write()
    assert answer(reactor, second).startswith(b"a OK ")
    reactor.pass_time(1)
    assert answer(reactor, third).startswith(b"a NO [UNAVAILABLE] Too many sessions")


def test_the_time_for_logging_in_is_bounded(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    """CLIENTS case 36: an octet now and then does not prolong it."""
    going = greeted(reactor, home, door(certificate))
    for _ in range(int(LOGIN_LIMIT_S / 10) - 1):
        going.program.say(b"x")
        reactor.pass_time(10)
    assert not going.over
    reactor.pass_time(10)
    assert hear(reactor, going) == b"* BYE The time for logging in is over\r\n"
    assert going.over


@pytest.mark.parametrize("tls", [ListenerTls.IMPLICIT, ListenerTls.AUTO, ListenerTls.STARTTLS])
def test_a_program_that_stays_in_its_handshake_is_left(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, tls: ListenerTls
) -> None:
    going = begin(reactor, home, door(certificate, tls=tls))
    if tls is ListenerTls.AUTO:
        going.program.say(b"\x16")
    if tls is ListenerTls.STARTTLS:
        hear(reactor, going)
        going.program.say(b"a STARTTLS\r\n")
    reactor.pass_time(LOGIN_LIMIT_S + LINGER_S)
    assert going.over
    assert going.stream.fileno() == -1


def test_a_relayed_session_has_no_login_limit(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    reactor.pass_time(2 * LOGIN_LIMIT_S)
    assert not going.over
    going.program.say(b"b NOOP\r\n")
    assert hear(reactor, going) == b"b OK done\r\n"


# --- what nobody foresaw


def test_an_unforeseen_error_is_told_as_try_later_and_logged(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, caplog: pytest.LogCaptureFixture
) -> None:
    home.passdb.raises = RuntimeError("unforeseen")
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"a NO [UNAVAILABLE] Not your password: mailferry met an error of its own")
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert record.exc_info[1] is home.passdb.raises
    home.passdb.raises = None
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"a OK ")


def test_an_unforeseen_error_behind_the_login_leaves_no_upstream(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    home.states.raises = RuntimeError("unforeseen")
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.turn_until(lambda: going.ended and going.program.at_eof)
    assert isinstance(going.ended[0], Failure)  # the listener logs it
    reactor.turn_until(lambda: mailbox.visit.peer.at_eof)


# --- auto TLS


def test_an_auto_listener_greets_a_plain_program_within_its_patience(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = begin(reactor, home, door(certificate, tls=ListenerTls.AUTO))
    reactor.pass_time(AUTO_TLS_WAIT_S)
    assert hear(reactor, going).startswith(b"* OK [CAPABILITY ")


def test_a_program_that_speaks_before_the_greeting_is_heard(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = begin(reactor, home, door(certificate, tls=ListenerTls.AUTO))
    going.program.say(b"a NOOP\r\n")
    reactor.turn_until(lambda: b"a OK" in going.program.got)
    assert going.program.got.startswith(b"* OK")
    assert reactor.seconds() == 0


def test_a_tls_program_that_came_late_doubles_the_patience(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    through = door(certificate, tls=ListenerTls.AUTO)
    expected = AUTO_TLS_WAIT_S
    while expected < MAX_AUTO_TLS_WAIT_S:
        going = begin(reactor, home, through)
        reactor.pass_time(through.auto_wait_s)
        going.program.start_tls(certificate.client_context(), server_side=False, server_hostname="localhost")
        reactor.turn_until(lambda going=going: going.over)  # type: ignore[misc]
        expected = min(2 * expected, MAX_AUTO_TLS_WAIT_S)
        assert through.auto_wait_s == expected
    again = begin(reactor, home, through)
    reactor.pass_time(MAX_AUTO_TLS_WAIT_S - 0.1)
    again.program.start_tls(certificate.client_context(), server_side=False, server_hostname="localhost")
    assert hear(reactor, again).startswith(b"* OK")


# --- deferred failures


def test_a_deferred_failure_says_yes_and_succeeds_at_mail(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    """CLIENTS 3.3, case 50."""
    mailbox = Mailbox(reactor, certificate, "smtp")
    home = house(reactor, mailbox)
    home.tokens.refuses = SIGN_IN
    going = greeted(reactor, home, door(certificate, "smtp", auth_failures=AuthFailures.DEFERRED))
    going.program.say(b"EHLO x\r\n")
    hear(reactor, going)
    going.program.say(b"AUTH PLAIN " + PLAIN + b"\r\n")
    assert hear(reactor, going) == b"235 2.7.0 Authentication successful\r\n"
    assert not mailbox.visits
    going.program.say(b"MAIL FROM:<a@b.example>\r\n")
    assert hear(reactor, going).startswith(b"451 4.7.0 Nobody has signed in")
    home.tokens.refuses = None
    going.program.say(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
    assert hear(reactor, going, b"OK\r\n250 2.1.0 Sender OK\r\n") == 2 * b"250 2.1.0 Sender OK\r\n"
    assert mailbox.visit.after_login() == b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


def test_a_wrong_password_is_never_deferred(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = greeted(reactor, home, door(certificate, "smtp", auth_failures=AuthFailures.DEFERRED))
    going.program.say(b"EHLO x\r\nAUTH PLAIN " + base64.b64encode(b"\0alice\0wrong-1") + b"\r\n")
    reactor.pass_time(WRONG_PASSWORD_DELAY_S)
    reactor.turn_until(lambda: b"535 5.7.8 " in going.program.got)


def test_an_upstream_that_offers_less_than_was_announced_ends_the_session(
    reactor: TurningReactor, certificate: LocalCertificate
) -> None:
    """CLIENTS case 56; the next EHLO then tells the truth."""
    mailbox = Mailbox(reactor, certificate, "smtp")
    mailbox.extensions = b"250-PIPELINING\r\n250-8BITMIME\r\n"
    home = house(reactor, mailbox)
    through = door(certificate, "smtp")
    home.services.mailboxes.announced[mailbox.upstream] = ("PIPELINING", "8BITMIME", "CHUNKING")
    going = greeted(reactor, home, through)
    going.program.say(SMTP_LOGIN)
    reactor.turn_until(lambda: going.over and going.program.at_eof)
    assert b"250-CHUNKING" in going.program.got
    assert b"\r\n454 4.7.0 " in going.program.got
    reactor.turn_until(lambda: mailbox.visit.peer.at_eof)
    assert home.states.told == []
    going = greeted(reactor, home, through)
    going.program.say(b"EHLO x\r\n")
    assert b"CHUNKING" not in hear(reactor, going, b"\r\n")


# --- a full lobby


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lobby of two."""
    monkeypatch.setattr(lobby_module, "MAX_IN_LOBBY", 2)


def test_who_has_waited_longest_makes_room(
    narrow: None, reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going, second, third = (greeted(reactor, home, door(certificate)) for _ in range(3))
    reactor.settle()
    assert going.over
    assert hear(reactor, going) == f"* BYE {CROWDED_OUT.text}\r\n".encode()
    assert (second.over, third.over) == (False, False)
    assert (
        home.services.metrics.registry.get_sample_value("mailferry_connections_refused_total", {"protocol": "imap"})
        == 1
    )


@pytest.mark.parametrize("tls", [ListenerTls.IMPLICIT, ListenerTls.AUTO])
def test_whoever_has_not_even_been_greeted_makes_room_too(
    narrow: None, reactor: TurningReactor, certificate: LocalCertificate, home: House, tls: ListenerTls
) -> None:
    going = begin(reactor, home, door(certificate, tls=tls))
    for _ in range(2):
        greeted(reactor, home, door(certificate))
    reactor.pass_time(MAX_AUTO_TLS_WAIT_S)
    assert going.over
    assert going.program.take() in (b"", f"* BYE {CROWDED_OUT.text}\r\n".encode())


def test_who_has_logged_in_is_out_of_the_lobby(
    narrow: None, reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    for _ in range(5):
        greeted(reactor, home, door(certificate))
    going.program.say(b"b NOOP\r\n")
    assert hear(reactor, going) == b"b OK done\r\n"
    assert len(home.services.lobby) == 2


def test_who_has_left_is_out_of_the_lobby(reactor: TurningReactor, certificate: LocalCertificate, home: House) -> None:
    going = greeted(reactor, home, door(certificate))
    assert len(home.services.lobby) == 1
    going.program.close()
    reactor.turn_until(lambda: going.over)
    assert len(home.services.lobby) == 0


def test_whom_a_balancer_brings_makes_room_for_others_of_his_own(
    narrow: None, reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    through = door(certificate, proxy_protocol=(ip_network("127.0.0.1"),))

    def brought(address: str) -> Going:
        going = begin(reactor, home, through)
        going.program.say(f"PROXY TCP4 {address} 198.51.100.1 40000 143\r\n".encode())
        reactor.turn_until(lambda: going.program.got.endswith(b"\r\n"))
        return going

    alice = brought("192.0.2.7")
    mob = [brought("203.0.113.1") for _ in range(3)]
    reactor.settle()
    assert [each.over for each in (alice, *mob)] == [False, True, True, False]


# --- the daemon stops


def test_stopping_before_the_greeting(reactor: TurningReactor, certificate: LocalCertificate, home: House) -> None:
    through = door(certificate, tls=ListenerTls.AUTO)
    through.auto_wait_s = MAX_AUTO_TLS_WAIT_S
    going = begin(reactor, home, through)
    going.session.stop()
    reactor.pass_time(MAX_AUTO_TLS_WAIT_S)
    assert going.over
    assert hear(reactor, going).startswith(b"* BYE"), "it was not refused, so it is told"


def test_stopping_a_program_that_has_not_logged_in(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.session.stop()
    assert going.over
    assert hear(reactor, going).startswith(b"* BYE")


@pytest.mark.parametrize("tls", [ListenerTls.IMPLICIT, ListenerTls.AUTO])
def test_stopping_in_the_middle_of_a_handshake(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, tls: ListenerTls
) -> None:
    going = begin(reactor, home, door(certificate, tls=tls))
    going.program.say(b"\x16")
    reactor.settle()
    going.session.stop()
    assert going.over
    assert going.stream.fileno() == -1


@pytest.mark.parametrize("stage", ["token", "upstream", "queue", "penalty"])
def test_stopping_in_the_middle_of_a_login(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House, stage: str
) -> None:
    home.passdb.account = with_connections(ALICE, imap=1)
    if stage == "queue":
        first = greeted(reactor, home, door(certificate))
        first.program.say(IMAP_LOGIN)
        hear(reactor, first)
    home.tokens.holds = stage == "token"
    mailbox.holds_verdict = stage == "upstream"
    going = greeted(reactor, home, door(certificate))
    going.program.say(wrong(1) if stage == "penalty" else IMAP_LOGIN)
    reactor.settle()
    going.session.stop()
    assert going.over  # at once: nothing of it is left behind
    reactor.settle()
    assert going.program.got.startswith(b"* BYE")
    assert going.program.at_eof
    assert not home.tokens.holds or home.tokens.cancelled == 1
    assert b"OK" not in going.program.got
    assert all(visit.peer.at_eof for visit in mailbox.visits[stage == "queue" :])


def test_stopping_a_relayed_session_lets_a_transfer_end(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    going.program.stalled = True
    mailbox.visit.peer.say(bytes(8 << 20))
    reactor.settle()
    going.session.stop()
    reactor.pass_time(QUIET_S)
    going.program.stalled = False
    reactor.turn_until(lambda: len(going.program.got) == 8 << 20)
    assert not going.program.at_eof
    reactor.pass_time(2 * QUIET_S)
    reactor.turn_until(lambda: going.program.at_eof)
    assert len(going.program.got) == 8 << 20, "nothing is added where a mail may not be over"
    reactor.pass_time(LINGER_S)
    assert going.over
    going.session.stop()  # once more does no harm


@pytest.mark.parametrize("protocol", ["imap", "pop3", "smtp"])
def test_stopping_a_relayed_session_at_rest_tells_the_program(
    reactor: TurningReactor, certificate: LocalCertificate, protocol: ProtocolName
) -> None:
    mailbox = Mailbox(reactor, certificate, protocol)
    home = house(reactor, mailbox)
    going = greeted(reactor, home, door(certificate, protocol))
    going.program.say({"imap": IMAP_LOGIN, "pop3": POP3_LOGIN, "smtp": SMTP_LOGIN}[protocol])
    reactor.turn_until(lambda: home.states.told)
    reactor.settle()
    going.program.take()
    going.session.stop()
    reactor.turn_until(lambda: going.program.at_eof)
    said = {"imap": f"* BYE {STOPPING.text}.\r\n", "pop3": "", "smtp": f"421 4.3.2 {STOPPING.text}.\r\n"}[protocol]
    assert going.program.got == said.encode()


# --- watches


def dialogue_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of the dialogues, each as `leg < heard` or `leg > told`."""
    lines = []
    for each in logged(caplog, "dialogue"):
        arrow, text = ("<", each["heard"]) if "heard" in each else (">", each["told"])
        lines.append(f"{each['leg']} {arrow} {text}")
    return lines


@pytest.fixture
def quiet() -> Iterator[None]:
    """The log as it is by default."""
    ours = logging.getLogger("mailferry")
    before = ours.level
    ours.setLevel(logging.INFO)
    yield
    ours.setLevel(before)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("whom", ["ALICE", str(PEER)])
def test_a_watch_tells_both_dialogues_from_the_greeting_on(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    mailbox: Mailbox,
    home: House,
    caplog: pytest.LogCaptureFixture,
    whom: str,
) -> None:
    home.services.watches.begin([whom], 60)
    going = begin(reactor, home, door(certificate))
    hear(reactor, going)
    assert bool(dialogue_lines(caplog)) == (whom == str(PEER)), "nobody knows yet whose it is"
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    going.program.say(b"b SELECT a-folder\r\n")
    hear(reactor, going)
    lines = dialogue_lines(caplog)
    assert lines[0].startswith("mail program > * OK (CAPABILITY") or lines[0].startswith("mail program > * OK [CAP")
    assert lines[1:4] == [
        "mail program < a LOGIN alice <secret>",
        "upstream < * OK ready",
        "upstream > F2 AUTHENTICATE XOAUTH2 <secret>",
    ]
    assert lines[-1].startswith("mail program > a OK [CAPABILITY")
    assert "a-folder" not in "".join(lines)
    assert logged(caplog, "token in hand"), "the other lines of debug level are there, too"


@pytest.mark.usefixtures("quiet")
def test_a_watch_tells_of_no_one_else_and_ends_by_itself(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, caplog: pytest.LogCaptureFixture
) -> None:
    home.services.watches.begin(["somebody.else"], 60)
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    assert dialogue_lines(caplog) == []
    home.services.watches.begin(["alice"], 60)
    reactor.pass_time(61)
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    assert dialogue_lines(caplog) == []
    assert not logged(caplog, "token in hand")


@pytest.mark.usefixtures("quiet")
def test_a_watch_shows_a_wrong_password_being_tried(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, caplog: pytest.LogCaptureFixture
) -> None:
    home.services.watches.begin(["alice"], 60)
    going = greeted(reactor, home, door(certificate))
    going.program.say(b"a LOGIN alice wrong-9\r\n")
    reactor.pass_time(WRONG_PASSWORD_DELAY_S)
    hear(reactor, going)
    first, second, third = dialogue_lines(caplog)
    assert (first[:16], second) == ("mail program > *", "mail program < a LOGIN alice <secret>")
    assert third.startswith("mail program > a NO [AUTHENTICATIONFAILED]")
    kept, _, _ = logged(caplog, "dialogue")
    assert kept["ago_s"] is not None


# --- the program leaves


@pytest.mark.parametrize("leaves", [Peer.close, Peer.reset], ids=["close", "reset"])
@pytest.mark.parametrize("stage", ["token", "upstream"])
def test_a_program_that_leaves_during_its_login_leaves_nothing(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    mailbox: Mailbox,
    home: House,
    leaves: Callable[[Peer], None],
    stage: str,
) -> None:
    home.tokens.holds = stage == "token"
    mailbox.holds_verdict = stage == "upstream"
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.settle()
    leaves(going.program)
    reactor.settle()
    home.tokens.go_on()
    mailbox.holds_verdict = False
    reactor.turn_until(lambda: mailbox.visits and mailbox.visit.peer.at_eof)
    mailbox.visit.peer.close()
    reactor.pass_time(DELIVERY_LIMIT_S)
    assert going.over


def test_a_program_that_half_closes_behind_its_login_gets_its_answers(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN + b"b FETCH 1 BODY[]\r\n")
    going.program.close_write()
    reactor.turn_until(lambda: mailbox.visits and mailbox.visit.peer.at_eof)
    assert mailbox.visit.after_login() == b"b FETCH 1 BODY[]\r\n"
    mailbox.visit.peer.say(bytes(1 << 20))
    mailbox.visit.peer.close_write()
    reactor.turn_until(lambda: going.program.at_eof)
    assert going.program.got.endswith(b"b OK done\r\n" + bytes(1 << 20))
    reactor.turn_until(lambda: going.over)


# --- what is remembered


def test_upstreams_list_is_learnt_and_promised_from_then_on(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    through = door(certificate)
    going = greeted(reactor, home, through)
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    assert home.services.mailboxes.announced == {mailbox.upstream: ("IMAP4rev1", "IDLE", "MOVE")}
    later = begin(reactor, home, through)
    assert b"IDLE MOVE" in hear(reactor, later).replace(b"]", b" ")


def test_a_second_login_resumes_the_first_ones_tls_session(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    reused = []
    for _ in range(2):
        going = greeted(reactor, home, door(certificate))
        going.program.say(IMAP_LOGIN)
        assert hear(reactor, going).startswith(b"a OK ")
        tls = mailbox.visit.peer.tls
        assert tls is not None
        reused.append(tls.session_reused)
    assert reused == [False, True]


# --- who may come in, and for whom


def test_case_57_a_device_without_login_sends_as_the_listeners_account(
    reactor: TurningReactor, certificate: LocalCertificate, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox = Mailbox(reactor, certificate, "smtp")
    home = house(reactor, mailbox)
    through = door(certificate, "smtp", allow_from=(ip_network("127.0.0.0/8"),), implicit_account="ALICE")
    going = greeted(reactor, home, through)
    going.program.say(b"HELO scanner\r\nMAIL FROM:<a@b.example>\r\n")
    assert hear(reactor, going, b"Sender OK\r\n").endswith(b"250 2.1.0 Sender OK\r\n")
    assert mailbox.visit.after_login() == b"MAIL FROM:<a@b.example>\r\n"
    assert not home.passdb.asked
    [line] = logged(caplog, "no login asked of this device")
    assert line["login"] == "alice"


def test_case_57_who_is_not_allowed_is_told_so_before_anything_else(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    through = door(certificate, "smtp", allow_from=(ip_network("192.0.2.0/24"),), implicit_account="alice")
    going = begin(reactor, home, through)
    going.program.say(b"MAIL FROM:<a@b.example>\r\n")
    reactor.turn_until(lambda: going.over and going.program.at_eof)
    assert going.program.got.startswith(b"421 4.3.2 Connections from 127.0.0.1 are not allowed here")
    assert going.program.got.count(b"\r\n") == 1


def test_an_implicit_account_that_is_gone_is_our_fault(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = greeted(reactor, home, door(certificate, "smtp", implicit_account="bob"))
    going.program.say(b"HELO scanner\r\nMAIL FROM:<a@b.example>\r\n")
    assert b"451 4.3.5 mailferry's configuration names bob" in hear(reactor, going, b"account.\r\n")


def test_whom_a_balancer_brings_is_who_is_asked_about(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, caplog: pytest.LogCaptureFixture
) -> None:
    through = door(certificate, proxy_protocol=(ip_network("127.0.0.1"),), allow_from=(ip_network("192.0.2.0/24"),))
    going = begin(reactor, home, through)
    going.program.say(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 143\r\n" + IMAP_LOGIN)
    assert b"a OK " in hear(reactor, going, b"completed.\r\n")
    assert home.passdb.peers == [ip_address("192.0.2.7")]
    assert logged(caplog, "login accepted")[0]["peer"] == "192.0.2.7"
    stranger = begin(reactor, home, through)
    stranger.program.say(b"PROXY TCP4 203.0.113.1 198.51.100.1 40000 143\r\n")
    assert hear(reactor, stranger).startswith(b"* BYE Connections from 203.0.113.1 ")


def test_a_balancer_that_says_nothing_is_left(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, caplog: pytest.LogCaptureFixture
) -> None:
    through = door(certificate, tls=ListenerTls.AUTO, proxy_protocol=(ip_network("127.0.0.1"),))
    going = begin(reactor, home, through)
    going.program.say(b"a LOGIN alice x\r\n")
    reactor.turn_until(lambda: going.over and (going.program.at_eof or going.program.lost))
    assert not going.program.got
    assert not home.passdb.asked
    assert logged(caplog, "connection refused")


def test_a_tls_program_behind_a_balancer(reactor: TurningReactor, certificate: LocalCertificate, home: House) -> None:
    through = door(certificate, tls=ListenerTls.AUTO, proxy_protocol=(ip_network("127.0.0.1"),))
    going = begin(reactor, home, through)
    going.program.say_raw(b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 993\r\n")
    going.program.start_tls(certificate.client_context(), server_side=False, server_hostname="localhost")
    assert hear(reactor, going).startswith(b"* OK ")


# --- deferred failures of IMAP and POP3


def test_a_deferred_imap_login_says_yes_then_no_then_goodbye(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    home.tokens.refuses = SIGN_IN
    going = greeted(reactor, home, door(certificate, auth_failures=AuthFailures.DEFERRED))
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"a OK ")
    going.program.say(b'b LIST "" *\r\n')
    assert hear(reactor, going).startswith(b"b NO [UNAVAILABLE] Nobody has signed in")
    assert home.states.told == ["alice sign_in_needed"]
    reactor.pass_time(9.9)
    assert not going.program.at_eof
    reactor.pass_time(0.1)
    assert hear(reactor, going).startswith(b"* BYE Nobody has signed in")
    assert going.over


# --- Exchange throttles


def test_throttling_in_the_stream_holds_new_logins_of_that_mailbox_back(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    mailbox: Mailbox,
    home: House,
    caplog: pytest.LogCaptureFixture,
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    said = b"b BAD Request is throttled. Suggested Backoff Time: 15000 milliseconds\r\n"
    mailbox.visit.peer.say(said)
    assert hear(reactor, going) == said
    assert home.states.told == ["alice succeeded", "alice busy"]
    [line] = logged(caplog, "upstream said")
    assert line["back_off_s"] == 15.0
    other = greeted(reactor, home, door(certificate))
    other.program.say(IMAP_LOGIN)
    reactor.pass_time(14.9)
    assert len(mailbox.visits) == 1
    reactor.pass_time(0.1)
    assert b"a OK " in hear(reactor, other, b"completed.\r\n")


def test_throttling_at_the_login_holds_the_next_one_back(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    mailbox.verdict = b"%NO Request is throttled. Suggested Backoff Time: 300000 milliseconds"
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"a NO [UNAVAILABLE] ")
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"a NO [UNAVAILABLE] ")
    assert len(mailbox.visits) == 1


def test_what_exchange_refuses_in_the_stream_is_told_to_the_log_and_of_the_account(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    mailbox: Mailbox,
    home: House,
    caplog: pytest.LogCaptureFixture,
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    said = b"b BAD User is authenticated but not connected.\r\n"
    mailbox.visit.peer.say(said)
    assert hear(reactor, going) == said
    succeeded, troubled = home.states.told
    assert (succeeded, troubled.partition(":")[0]) == ("alice succeeded", "alice in a session")
    [line] = logged(caplog, "upstream said")
    assert line["fault"] == "exchange"
    assert str(line["cause"]) in troubled
    assert "Full Access" in str(line["remedy"])
    other = greeted(reactor, home, door(certificate))
    other.program.say(IMAP_LOGIN)
    assert b"a OK " in hear(reactor, other, b"completed.\r\n"), "nobody waits for it"


def test_the_end_of_a_token_is_passed_on_at_once(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """FACTS 3.3: Exchange ends the session; the program must come again."""
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    mailbox.visit.peer.say(b"* BYE Session invalidated - AccessTokenExpired\r\n")
    mailbox.visit.peer.close_write()
    reactor.turn_until(lambda: going.program.at_eof)
    assert going.program.got == b"* BYE Session invalidated - AccessTokenExpired\r\n"


def test_an_idle_program_whose_upstream_is_lost_is_told(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    """CLIENTS 4: some Outlooks stop fetching otherwise."""
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    going.program.say(b"b IDLE\r\n")
    hear(reactor, going)
    mailbox.visit.peer.say(b"* 7 EXISTS\r\n")
    hear(reactor, going)
    mailbox.visit.peer.reset()
    reactor.turn_until(lambda: going.program.at_eof)
    assert going.program.got.startswith(b"* BYE ")


# --- wrong passwords, over all connections


def test_case_66_too_many_wrong_passwords_from_one_address_are_not_looked_at_any_more(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    for number in range(MAX_WRONG_PER_ADDRESS):
        going = greeted(reactor, home, door(certificate))
        going.program.say(b"a LOGIN user-%d wrong-%d\r\n" % (number, number))
        reactor.pass_time(WRONG_PASSWORD_DELAY_S)
        assert b"a NO [AUTHENTICATIONFAILED] " in going.program.got
        going.program.close()
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"* BYE Too many wrong passwords")
    assert not mailbox.visits
    reactor.pass_time(WRONG_WINDOW_S)
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert hear(reactor, going).startswith(b"a OK ")
