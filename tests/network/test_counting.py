"""What logins and sessions tell the metrics (`session.py`, `mailboxes.py`): each end once, each step with its time."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from proxy.demo.certificates import LocalCertificate
from proxy.login import Fault, LoginRefused, Refusal
from proxy.network.session import LOGIN_LIMIT_S, STILL_WORKING_S
from proxy.network.stream import DELIVERY_LIMIT_S
from tests.network.house import House, Mailbox, house
from tests.network.test_session import IMAP_LOGIN, SIGN_IN, answer, begin, door, greeted, hear, wrong
from tests.network.turning import TurningReactor

STEPS = ("password", "queue", "token", "connect", "upstream_login")


@pytest.fixture
def mailbox(reactor: TurningReactor, certificate: LocalCertificate) -> Mailbox:
    return Mailbox(reactor, certificate)


@pytest.fixture
def home(reactor: TurningReactor, mailbox: Mailbox) -> House:
    return house(reactor, mailbox)


def sample(home: House, name: str, **labels: str) -> float:
    value = home.services.metrics.registry.get_sample_value(f"mailferry_{name}", labels)
    assert value is not None, (name, labels)
    return value


def outcomes(home: House) -> dict[str, float]:
    """Of all logins; those that there were."""
    (family,) = [each for each in home.services.metrics.registry.collect() if each.name == "mailferry_logins"]
    return {each.labels["outcome"]: each.value for each in family.samples if each.value}


def timed(home: House) -> dict[str, float]:
    """How often each step was timed."""
    return {step: sample(home, "login_step_seconds_count", step=step) for step in STEPS}


def test_a_login_is_accepted_timed_and_its_session_weighed(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    assert outcomes(home) == {"accepted": 1}
    assert timed(home) == dict.fromkeys(STEPS, 1)
    assert sample(home, "login_seconds_count", protocol="imap") == 1
    assert sample(home, "sessions", protocol="imap") == 1
    going.program.say(b"b SELECT INBOX\r\n")
    hear(reactor, going)
    up, down = ({"protocol": "imap", "direction": way} for way in ("up", "down"))
    assert (sample(home, "relayed_bytes_total", **up), sample(home, "relayed_bytes_total", **down)) == (16, 11)
    going.program.close_write()
    reactor.turn_until(lambda: mailbox.visit.peer.at_eof)
    mailbox.visit.peer.close_write()
    reactor.turn_until(lambda: going.over and going.program.at_eof)
    assert sample(home, "sessions", protocol="imap") == 0
    assert (sample(home, "relayed_bytes_total", **up), sample(home, "relayed_bytes_total", **down)) == (16, 11)


def test_each_step_has_its_own_time(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    home.tokens.holds = mailbox.holds_verdict = True
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.settle()
    reactor.pass_time(3)
    home.tokens.go_on()
    reactor.turn_until(lambda: mailbox.visits and mailbox.visit.lines)
    reactor.pass_time(2)
    mailbox.holds_verdict = False
    assert answer(reactor, going).startswith(b"a OK ")
    times = {step: sample(home, "login_step_seconds_sum", step=step) for step in STEPS}
    assert times == {"password": 0, "queue": 0, "token": 3, "connect": 0, "upstream_login": 2}
    assert sample(home, "login_seconds_sum", protocol="imap") == 5


def test_a_wrong_password(reactor: TurningReactor, certificate: LocalCertificate, home: House) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(wrong(1))
    reactor.pass_time(10)
    assert b"a NO [AUTHENTICATIONFAILED]" in going.program.take()
    assert outcomes(home) == {"bad_credentials": 1}
    assert timed(home) == dict.fromkeys(STEPS, 0)
    assert sample(home, "login_seconds_count", protocol="imap") == 0


@pytest.mark.parametrize(
    ("refuses", "outcome"),
    [
        (SIGN_IN, "sign_in_needed"),
        (LoginRefused(Refusal.MISCONFIGURED, "No.", fault=Fault.MAILFERRY), "misconfigured"),
    ],
)
def test_what_the_tokens_refuse(
    reactor: TurningReactor, certificate: LocalCertificate, home: House, refuses: LoginRefused, outcome: str
) -> None:
    home.tokens.refuses = refuses
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert answer(reactor, going).startswith(b"a NO ")
    assert outcomes(home) == {outcome: 1}
    assert timed(home) == {**dict.fromkeys(STEPS, 0), "password": 1, "queue": 1}


def test_what_exchange_refuses(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    mailbox.refused_tokens = {1, 2}
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert answer(reactor, going).startswith(b"a NO ")
    assert outcomes(home) == {"refused_upstream": 1}
    assert sample(home, "login_step_seconds_count", step="upstream_login") == 2, "with a fresh token once more"


def test_an_unforeseen_error_is_counted_as_it_is_told(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    home.passdb.raises = ZeroDivisionError("unforeseen")
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    assert answer(reactor, going).startswith(b"a NO ")
    assert outcomes(home) == {"try_later": 1}


def test_a_program_that_leaves_has_abandoned_its_login(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    mailbox.holds_verdict = True
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    reactor.settle()
    going.program.reset()
    reactor.pass_time(STILL_WORKING_S)  # it is told to be patient, and is not there to hear it
    reactor.settle()
    mailbox.holds_verdict = False
    reactor.turn_until(lambda: mailbox.visits and mailbox.visit.peer.at_eof)
    mailbox.visit.peer.close()
    reactor.pass_time(DELIVERY_LIMIT_S)
    assert going.over
    assert outcomes(home) == {"abandoned": 1}
    assert sample(home, "sessions", protocol="imap") == 0


def test_a_login_whose_time_is_over_is_abandoned(
    reactor: TurningReactor, certificate: LocalCertificate, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    reactor.pass_time(LOGIN_LIMIT_S - 1)
    home.tokens.holds = True
    going.program.say(IMAP_LOGIN)
    reactor.settle()
    reactor.pass_time(1)
    reactor.turn_until(lambda: going.over)
    assert outcomes(home) == {"abandoned": 1}


def test_exchanges_throttling(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    mailbox.verdict = b"%NO Request is throttled. Suggested Backoff Time: 300000 milliseconds"
    going = greeted(reactor, home, door(certificate))
    for number in (1, 2):
        going.program.say(IMAP_LOGIN)
        assert hear(reactor, going).startswith(b"a NO [UNAVAILABLE] ")
        assert outcomes(home) == {"busy": number}
        assert sample(home, "throttles_total", by="exchange") == number


def test_throttling_in_a_session(
    reactor: TurningReactor, certificate: LocalCertificate, mailbox: Mailbox, home: House
) -> None:
    going = greeted(reactor, home, door(certificate))
    going.program.say(IMAP_LOGIN)
    hear(reactor, going)
    mailbox.visit.peer.say(b"b BAD Request is throttled. Suggested Backoff Time: 15000 milliseconds\r\n")
    hear(reactor, going)
    assert sample(home, "throttles_total", by="exchange") == 1
    assert outcomes(home) == {"accepted": 1}


def test_who_is_not_allowed_in_is_no_login(reactor: TurningReactor, certificate: LocalCertificate, home: House) -> None:
    going = begin(reactor, home, door(certificate, allow_from=(ip_network("192.0.2.0/24"),)))
    reactor.turn_until(lambda: going.over and going.program.at_eof)
    assert sample(home, "connections_refused_total", protocol="imap") == 1
    assert outcomes(home) == {}
