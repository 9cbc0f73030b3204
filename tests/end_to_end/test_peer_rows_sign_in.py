"""PEERS section 3, the rows of tokens and sign-ins: one refresh for all, no grant thrown away, no browser needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest

from proxy.app.answers import DeskError
from proxy.demo.browser import Return, sign_in
from proxy.demo.identity import Failure
from tests.end_to_end.exchange import PATIENCE_S, Exchange
from tests.end_to_end.ferry import AUTHORIZE_ADDRESS, USER_CODE
from tests.end_to_end.quay import QuayFerry, StrictSignIn, announce, at_once, mailbox, scripted_quay, visit
from tests.end_to_end.stage import Mailbox
from tests.servers.child import wait_until

OWN, OTHER = mailbox(1, "Password-of-berth-one"), mailbox(2, "Password-of-berth-two")
SHARED = mailbox(3, "Password-of-the-shared-berth", shared_by=OWN.address)
TOKEN_LIFE_S = 2
HEADLESS = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}


@pytest.fixture(scope="module")
def quay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[QuayFerry, Exchange]]:
    with scripted_quay(tmp_path_factory.mktemp("ferry"), [OWN, OTHER, SHARED]) as (ferry, exchange, _):
        yield ferry, exchange


@pytest.fixture
def ferry(quay: tuple[QuayFerry, Exchange]) -> QuayFerry:
    return quay[0]


@pytest.fixture
def exchange(quay: tuple[QuayFerry, Exchange]) -> Exchange:
    return quay[1]


@pytest.fixture
def identity(ferry: QuayFerry) -> Iterator[StrictSignIn]:
    """The sign-in service, which is well again afterwards."""
    identity = ferry.host.identity
    assert isinstance(identity, StrictSignIn)
    yield identity
    identity.heal()
    identity.open.set()
    identity.let_tokens_live(3600)


def _reads(ferry: QuayFerry, exchange: Exchange, box: Mailbox) -> bool:
    """Whether an IMAP login reaches the mailbox."""
    (session,) = announce(exchange, "imap", visit("imap"))
    reply = ferry.says("imap", box)
    assert reply.startswith(("a OK", "a NO [UNAVAILABLE]"))
    return reply.startswith("a OK") and session.result(PATIENCE_S) == box.address.encode()


def _wait_for_expiry() -> None:
    end = time.time() + TOKEN_LIFE_S
    wait_until("the access token is over", lambda: time.time() > end)


def test_peer_row_05_eight_logins_at_expiry_make_one_token_request(
    ferry: QuayFerry, exchange: Exchange, identity: StrictSignIn
) -> None:
    """The rival: 8 logins at expiry made 15 token requests; with single-use refresh tokens 7 failed."""
    identity.let_tokens_live(TOKEN_LIFE_S)
    ferry.sign_in_at_once(OWN)
    _wait_for_expiry()
    identity.let_tokens_live(3600)
    logins = [(p, box) for p in ("imap", "imap", "pop3", "smtp") for box in (OWN, SHARED)]
    for protocol in ("imap", "pop3", "smtp"):
        announce(exchange, protocol, *(visit(protocol) for p, _ in logins if p == protocol))
    mark, accepted = len(identity.requests), len(ferry.log_lines("password accepted"))

    def open_when_all_wait() -> str:
        try:
            wait_until("eight right passwords", lambda: len(ferry.log_lines("password accepted")) == accepted + 8)
        finally:
            identity.open.set()
        return ""

    identity.open.clear()
    *said, _ = at_once(*(partial(ferry.says, protocol, box) for protocol, box in logins), open_when_all_wait)
    assert [reply for reply in said if not reply.startswith(("a OK", "+OK", "235"))] == []
    assert [reply for reply in said if reply.startswith("235") and "/ 250" not in reply] == []
    assert identity.grants_since(mark) == ["refresh_token"]


def test_peer_row_06_a_refused_refresh_does_not_cost_the_grant(
    ferry: QuayFerry, exchange: Exchange, identity: StrictSignIn
) -> None:
    """The rival: one 400 from the token endpoint deletes the refresh token.

    What Microsoft calls passing, the mail program does not even notice. About what it calls final, mailferry asks again
    every ten minutes, and at once after a restart.
    """
    identity.let_tokens_live(TOKEN_LIFE_S)
    ferry.sign_in_at_once(OTHER)
    mark = len(identity.requests)
    _wait_for_expiry()
    identity.fail(Failure.TEMPORARILY_UNAVAILABLE, times=1)
    assert _reads(ferry, exchange, OTHER), "the login waits, and is let in"

    _wait_for_expiry()
    identity.fail(Failure.INVALID_GRANT, times=1)
    assert not _reads(ferry, exchange, OTHER)
    assert ferry.rows()[OTHER.address]["state"] == "sign_in_needed"
    ferry.stop()
    ferry.serve()
    assert _reads(ferry, exchange, OTHER)
    assert ferry.rows()[OTHER.address]["state"] == "connected"
    assert identity.grants_since(mark) == ["refresh_token"] * 4, "nobody signed in again"


def test_peer_row_09_the_first_sign_in_needs_no_browser_here(
    ferry: QuayFerry, exchange: Exchange, identity: StrictSignIn
) -> None:
    """The rival: the first sign-in on a headless machine stalls or fails."""

    def nobody_else_waits() -> None:
        assert _reads(ferry, exchange, OTHER)
        assert "sign-in to Microsoft is under way" in ferry.says("imap", OWN), "told at once, and by the way"

    ferry.ask("sign_out", login=OWN.address)
    identity.sign_in_as(OWN.holder)
    command = ferry.start("sign-in", OWN.address, environment=HEADLESS)  # without a browser it is `--paste`
    address = command.read(AUTHORIZE_ADDRESS)
    nobody_else_waits()
    command.write(sign_in(address, identity.ca_file).address)
    assert OWN.address in command.end(0).output
    assert _reads(ferry, exchange, OWN)

    ferry.ask("sign_out", login=OWN.address)
    command = ferry.start("sign-in", OWN.address, "--device", environment=HEADLESS)
    code = command.read(USER_CODE)
    nobody_else_waits()
    identity.approve_device(code, OWN.holder)
    command.end(0)
    assert _reads(ferry, exchange, OWN)


def test_peer_row_22_the_state_of_the_redirect_is_checked(
    ferry: QuayFerry, exchange: Exchange, identity: StrictSignIn
) -> None:
    """The rival: `state` of the redirect unchecked."""

    def begun_by_somebody_else() -> Return:
        """Another's sign-in, as it would come back: its code is good, and so is its state, but not here."""
        identity.sign_in_as(OTHER.holder)
        begun = ferry.ask("begin_code", login=OTHER.address, redirect_uri="http://localhost")
        return sign_in(begun["address"], identity.ca_file)

    ferry.ask("sign_out", login=OWN.address)
    strange = begun_by_somebody_else()
    identity.sign_in_as(OWN.holder)
    with ExitStack() as stack:
        command = ferry.start("sign-in", OWN.address, "--browser", environment={"BROWSER": "/bin/true"})
        stack.callback(command.end, 0)
        own = sign_in(command.read(AUTHORIZE_ADDRESS), identity.ca_file)
        for fields in (strange.fields, {**own.fields, "state": "forged"}, {"code": own.fields["code"]}):
            replace(own, fields=fields).deliver()
        assert ferry.rows()[OWN.address]["state"] == "signing_in"
        own.deliver()
    assert _reads(ferry, exchange, OWN)

    begun = ferry.ask("begin_code", login=OWN.address, redirect_uri="http://localhost")
    own = sign_in(begun["address"], identity.ca_file)
    with pytest.raises(DeskError, match="does not belong to this sign-in"):
        ferry.ask("finish_code", id=begun["id"], query={**own.fields, "state": "forged"})
