"""Deferred failures: the three fronts defer the same ones, and none that a wrong password could bring about."""

from __future__ import annotations

import pytest

from proxy.login import Fault, LoginRefused, Refusal
from proxy.protocols import PROTOCOLS
from proxy.protocols.deferral import DEFERRABLE, DEFERRED_LIMIT_S
from proxy.protocols.dialogue import Action, ExpireIn, Front, FrontSettings, Send

SETTINGS = FrontSettings(
    hostname="mail.test", offers_tls=False, tls_active=False, requires_tls=False, defers_failures=True
)
LOGINS = {"imap": b"a LOGIN u p\r\n", "pop3": b"USER u\r\nPASS p\r\n", "smtp": b"AUTH PLAIN AHUAcA==\r\n"}
YES = {"imap": b"a OK ", "pop3": b"+OK ", "smtp": b"235 "}


def refused(protocol: str, refusal: Refusal, *, final: bool = False) -> tuple[Front, list[Action]]:
    front = PROTOCOLS[protocol].front(SETTINGS)
    front.opened()
    front.received(LOGINS[protocol])
    return front, front.refuse(LoginRefused(refusal, "Words.", fault=Fault.MAILFERRY), final=final)


@pytest.mark.parametrize("protocol", LOGINS)
@pytest.mark.parametrize("refusal", Refusal)
def test_only_what_a_right_password_meets_is_deferred(protocol: str, refusal: Refusal) -> None:
    _, (reply, *_) = refused(protocol, refusal)
    assert isinstance(reply, Send)
    assert reply.data.startswith(YES[protocol]) == (refusal in DEFERRABLE)
    assert (b"Words." in reply.data) == (refusal not in DEFERRABLE)


def test_a_wrong_password_is_never_deferred() -> None:
    assert {Refusal.BAD_CREDENTIALS, Refusal.TLS_NEEDED, Refusal.TOO_MANY_ATTEMPTS} == set(Refusal) - DEFERRABLE


@pytest.mark.parametrize(("protocol", "limit"), [("imap", [ExpireIn(10.0)]), ("pop3", [ExpireIn(10.0)]), ("smtp", [])])
def test_the_end_is_in_sight_where_no_command_tries_again(protocol: str, limit: list[Action]) -> None:
    front, (_, *rest) = refused(protocol, Refusal.TRY_LATER)
    assert DEFERRED_LIMIT_S == 10.0  # CLIENTS 3.3
    assert rest == limit
    assert front.state.name == "DEFERRED"


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_a_final_refusal_is_said_at_once(protocol: str) -> None:
    front, (reply, *_) = refused(protocol, Refusal.BUSY, final=True)
    assert isinstance(reply, Send)
    assert b"Words." in reply.data
    assert front.state.name == "CLOSED"
