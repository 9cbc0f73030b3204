"""Mailboxes: what is promised of which upstream, and when another try is made. The rest is in `test_session.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.config.settings import Cloud
from proxy.demo.certificates import LocalCertificate
from proxy.log import Log
from proxy.login import Fault, LoginRefused, Refusal
from proxy.network.mailboxes import UNHEARD_PAUSES_S
from proxy.network.outages import KNOWN_AFTER_S
from proxy.protocols import PROTOCOLS
from tests.network.house import ALICE, House, Mailbox, house
from tests.network.turning import TurningReactor, watch

LOG = Log("test")


@pytest.fixture
def mailbox(reactor: TurningReactor, certificate: LocalCertificate) -> Mailbox:
    return Mailbox(reactor, certificate)


@pytest.fixture
def home(reactor: TurningReactor, mailbox: Mailbox) -> House:
    return house(reactor, mailbox)


def test_of_exchange_all_is_promised_until_it_says_otherwise(home: House) -> None:
    mailboxes, smtp = home.services.mailboxes, PROTOCOLS["smtp"]
    upstream = mailboxes.config.only_upstream("smtp")
    assert upstream is not None
    assert mailboxes.offers(smtp) == smtp.least_offers
    exchange = replace(upstream, exchange=True)
    mailboxes.use(replace(mailboxes.config, upstreams=dict.fromkeys(mailboxes.config.upstreams, exchange)))
    assert mailboxes.offers(smtp) == ()
    mailboxes.announced[exchange] = ("8BITMIME",)
    assert mailboxes.offers(smtp) == ("8BITMIME",)


def test_where_accounts_lead_to_different_upstreams_the_least_is_promised(home: House) -> None:
    mailboxes, smtp = home.services.mailboxes, PROTOCOLS["smtp"]
    config = mailboxes.config
    elsewhere = replace(ALICE, logins=("bob",), app=replace(ALICE.app, cloud=Cloud.CHINA))
    upstreams = {**config.upstreams}
    for (_, protocol), upstream in config.upstreams.items():
        upstreams[Cloud.CHINA, protocol] = replace(upstream, host="partner.example")
        mailboxes.announced[upstream] = ("CHUNKING",)
    mailboxes.use(replace(config, accounts=(ALICE, elsewhere), upstreams=upstreams))
    assert mailboxes.offers(smtp) == smtp.least_offers
    assert mailboxes.outage(smtp) is None


@pytest.mark.parametrize(
    "refused",
    [
        LoginRefused(Refusal.SIGN_IN_NEEDED, "Nobody signed in.", fault=Fault.MICROSOFT_SIGN_IN),
        LoginRefused(Refusal.MISCONFIGURED, "The secret is wrong.", fault=Fault.MAILFERRY),
    ],
    ids=lambda refused: refused.refusal.value,
)
def test_what_will_not_pass_is_told_at_once(reactor: TurningReactor, home: House, refused: LoginRefused) -> None:
    home.tokens.refuses = refused
    told = watch(Deferred.fromCoroutine(home.services.mailboxes.open(PROTOCOLS["imap"], ALICE, LOG)))
    [failure] = told
    assert isinstance(failure, Failure)
    assert failure.value is refused
    assert len(home.tokens.asked) == 1
    assert not reactor.getDelayedCalls()


def test_a_certificate_that_is_not_trusted_is_not_asked_for_again(
    reactor: TurningReactor, certificate: LocalCertificate, other_certificate: LocalCertificate
) -> None:
    mailbox = Mailbox(reactor, other_certificate)
    mailbox._context = certificate.server_context()
    home = house(reactor, mailbox)
    told = watch(Deferred.fromCoroutine(home.services.mailboxes.open(PROTOCOLS["imap"], ALICE, LOG)))
    reactor.turn_until(lambda: told)
    assert isinstance(told[0], Failure)
    assert "not trusted" in str(told[0].value)
    assert len(mailbox.visits) == 1


def test_the_last_try_comes_after_the_last_pause(reactor: TurningReactor, home: House) -> None:
    home.tokens.refuses = LoginRefused(Refusal.TRY_LATER, "No answer.", fault=Fault.NETWORK)
    told = watch(Deferred.fromCoroutine(home.services.mailboxes.open(PROTOCOLS["imap"], ALICE, LOG)))
    for tries, pause_s in enumerate(UNHEARD_PAUSES_S, 1):
        reactor.pass_time(pause_s - 0.1)
        assert (len(home.tokens.asked), told) == (tries, [])
        reactor.pass_time(0.1)
    assert len(home.tokens.asked) == 1 + len(UNHEARD_PAUSES_S)
    assert len(told) == 1


def test_who_knows_when_it_may_be_over_is_asked_again_then(reactor: TurningReactor, home: House) -> None:
    """The sign-in service is left alone for a while after a failure; longer than this login may wait, after some."""
    home.tokens.refuses = LoginRefused(Refusal.TRY_LATER, "No answer.", fault=Fault.NETWORK, again_in_s=5.0)
    told = watch(Deferred.fromCoroutine(home.services.mailboxes.open(PROTOCOLS["imap"], ALICE, LOG)))
    reactor.pass_time(4.9)
    assert len(home.tokens.asked) == 1
    home.tokens.refuses.again_in_s = 15.0
    reactor.pass_time(0.1)
    assert len(home.tokens.asked) == 2
    assert len(told) == 1


def test_in_a_known_outage_nobody_waits(reactor: TurningReactor, mailbox: Mailbox, home: House) -> None:
    reactor.resolver.addresses.clear()
    home.services.mailboxes.outages.failed(mailbox.upstream, "localhost: no route")
    reactor.pass_time(KNOWN_AFTER_S)
    told = watch(Deferred.fromCoroutine(home.services.mailboxes.open(PROTOCOLS["imap"], ALICE, LOG)))
    reactor.settle()
    assert len(told) == 1
    home.services.mailboxes.outages.stop()
