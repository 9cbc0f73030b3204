"""Refusals by the running daemon: each fault has its words in each protocol, and its name in the log (CLIENTS 3.1).

The sign-in service's own host issues tokens that live for seconds, so that each login needs it.
"""

from __future__ import annotations

import poplib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from proxy.demo.certificates import local_certificate
from proxy.demo.identity import EVERYWHERE, Failure
from tests.end_to_end import refused
from tests.end_to_end.ferry import Ferry
from tests.end_to_end.refused import in_all_protocols
from tests.servers.child import free_port, wait_until
from tests.servers.mailhost import MailHost, Person

TOKEN_LIFE_S = 4  # long enough to be used at once on a busy machine, short enough to wait for its end
OTHER_LOOPBACK = "127.0.0.2"  # the same machine, but not a name in the servers' certificate
TESTS_WITH_EXPIRED = 11
BACK_OFF_S = 5.0  # after one failed refresh the sign-in service is left alone for so long (accounts/tokens.py)


@pytest.fixture(scope="module")
def hasty_host() -> Iterator[MailHost]:
    """A mail host whose access tokens live for seconds."""
    with MailHost(access_token_lifetime_s=TOKEN_LIFE_S) as host:
        yield host


@pytest.fixture(scope="module")
def hasty_ferry(hasty_host: MailHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ferry]:
    with closing(Ferry(tmp_path_factory.mktemp("ferry"), hasty_host)) as ferry:
        ferry.app_add()
        ferry.serve()
        yield ferry


@pytest.fixture(scope="module")
def expired_people(hasty_ferry: Ferry) -> Iterator[Person]:
    """People whose accounts are signed in, and whose access tokens are over: one for each test."""
    people = [hasty_ferry.ready_account() for _ in range(TESTS_WITH_EXPIRED)]
    end = time.time() + TOKEN_LIFE_S
    wait_until("the access tokens are over", lambda: time.time() > end)
    return iter(people)


@pytest.fixture
def expired(hasty_ferry: Ferry, expired_people: Iterator[Person]) -> Iterator[Person]:
    """One of them; afterwards the sign-in service is well again."""
    yield next(expired_people)
    hasty_ferry.host.identity.heal()


def _logged(ferry: Ferry, person: Person) -> set[tuple[str, str]]:
    """Reason and fault of every refused login of this person."""
    lines = ferry.log_lines("login refused", f"login={person.upn}")
    found = [re.search(r"reason=(\w+) fault=(\w+)", line) for line in lines]
    return {(match[1], match[2]) for match in found if match}


# The local password


def test_a_wrong_password_is_refused_here_and_nothing_leaves(new_ferry: Ferry) -> None:
    person = new_ferry.ready_account()
    new_ferry.serve()
    host = new_ferry.host
    before = (len(host.identity.requests), len(host.dovecot.log_lines()), len(host.postfix.log_lines()))
    assert refused.imap(new_ferry, person.upn, "wrong").startswith("[AUTHENTICATIONFAILED]")
    assert refused.pop3(new_ferry, person.upn, "wrong").startswith("-ERR [AUTH]")
    assert refused.smtp(new_ferry, person.upn, "wrong").startswith("535 5.7.8")
    assert refused.imap(new_ferry, "nobody@contoso.com", new_ferry.passwords[person.upn]).startswith(
        "[AUTHENTICATIONFAILED]"
    )
    # A right login behind them is the barrier: had one of them gone out, its traces would stand before this one's.
    assert new_ferry.logs_in(person)
    requests = host.identity.requests[before[0] :]
    assert [endpoint for endpoint, _ in requests] == ["introspect"], "Dovecot's own question about the right login"
    sessions = [line for line in host.dovecot.log_lines()[before[1] :] if "-login: " in line]
    assert len(sessions) == 1
    assert person.upn in sessions[0]
    assert host.postfix.log_lines()[before[2] :] == []
    refusals = new_ferry.log_lines("login refused", "reason=bad_credentials", "peer=")
    assert len(refusals) == 4


def test_an_unknown_login_and_a_wrong_password_sound_the_same(ferry: Ferry) -> None:
    person = ferry.ready_account()
    assert refused.imap(ferry, person.upn, "wrong") == refused.imap(ferry, "nobody@contoso.com", "wrong")


# The sign-in service


@pytest.mark.parametrize(
    ("failure", "fault"),
    [
        (Failure.UNAVAILABLE, "microsoft_sign_in"),
        (Failure.THROTTLED, "microsoft_sign_in"),
        (Failure.TEMPORARILY_UNAVAILABLE, "microsoft_sign_in"),
        (Failure.HTML_PAGE, "network"),
        (Failure.DISCONNECTS, "network"),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Failure) else "",
)
def test_while_the_sign_in_service_fails_programs_are_told_to_try_later(
    hasty_ferry: Ferry, expired: Person, failure: Failure, fault: str
) -> None:
    hasty_ferry.host.identity.fail(failure, at=EVERYWHERE)
    said = in_all_protocols(hasty_ferry, expired)
    assert said.imap.startswith("[UNAVAILABLE]")
    assert said.pop3.startswith("-ERR [SYS/TEMP]")
    assert said.smtp.startswith("451 4.4.1")
    assert _logged(hasty_ferry, expired) == {("try_later", fault)}
    assert hasty_ferry.state(expired) == "connect_error"


def test_an_account_heals_by_itself_when_the_sign_in_service_does(hasty_ferry: Ferry, expired: Person) -> None:
    hasty_ferry.host.identity.fail(Failure.UNAVAILABLE, at=EVERYWHERE)
    assert not hasty_ferry.logs_in(expired)
    hasty_ferry.host.identity.heal()
    wait_until("the account heals by itself", lambda: hasty_ferry.logs_in(expired), 4 * BACK_OFF_S)
    assert hasty_ferry.state(expired) == "connected"


def test_a_sign_in_service_that_does_not_answer_keeps_nobody_waiting_for_ever(
    hasty_ferry: Ferry, expired: Person
) -> None:
    hasty_ferry.host.identity.fail(Failure.HANGS, at=EVERYWHERE)
    text = refused.imap(hasty_ferry, expired.upn, hasty_ferry.passwords[expired.upn])  # within its time limit
    assert text.startswith("[UNAVAILABLE]")
    assert _logged(hasty_ferry, expired) == {("try_later", "network")}


def test_a_revoked_grant_asks_for_a_sign_in_and_says_how(hasty_ferry: Ferry, expired: Person) -> None:
    hasty_ferry.host.identity.revoke(expired.upn)
    said = in_all_protocols(hasty_ferry, expired)
    assert said.imap.startswith("[UNAVAILABLE]")
    assert said.pop3.startswith("-ERR [SYS/TEMP]")
    assert said.smtp.startswith("451 4.7.0")
    assert all(f"mailferry sign-in {expired.upn}" in text for text in (said.imap, said.pop3, said.smtp))
    assert _logged(hasty_ferry, expired) == {("sign_in_needed", "microsoft_sign_in")}
    assert hasty_ferry.state(expired) == "sign_in_needed"
    hasty_ferry.sign_in(expired)
    assert hasty_ferry.logs_in(expired)
    assert hasty_ferry.state(expired) == "connected"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Failure.INVALID_GRANT, "sign_in_needed"),
        (Failure.MFA_NEEDED, "sign_in_needed"),
        (Failure.SECRET_EXPIRED, "misconfigured"),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Failure) else "",
)
def test_a_refused_refresh_is_told_apart_from_an_outage(
    hasty_ferry: Ferry, expired: Person, failure: Failure, reason: str
) -> None:
    hasty_ferry.host.identity.fail(failure)
    said = in_all_protocols(hasty_ferry, expired)
    assert said.imap.startswith("[UNAVAILABLE]")
    assert said.pop3.startswith("-ERR [SYS/TEMP]" if reason == "sign_in_needed" else "-ERR [SYS/PERM]")
    assert said.smtp.startswith("451 4.7.0" if reason == "sign_in_needed" else "451 4.3.5")
    assert {logged for logged, _ in _logged(hasty_ferry, expired)} == {reason}


def test_an_account_that_was_never_signed_in_says_what_to_do(ferry: Ferry) -> None:
    person = ferry.host.new_person()
    ferry.account_add(person)
    assert ferry.state(person) == "sign_in_needed"
    said = in_all_protocols(ferry, person)
    assert said.imap.startswith("[UNAVAILABLE]")
    assert said.pop3.startswith("-ERR [SYS/TEMP]")
    assert said.smtp.startswith("451 4.7.0")
    assert all(f"mailferry sign-in {person.upn}" in text for text in (said.imap, said.pop3, said.smtp))


def test_a_good_token_survives_an_outage_of_the_sign_in_service(ferry: Ferry) -> None:
    person = ferry.ready_account()
    ferry.host.identity.fail(Failure.UNAVAILABLE, at=EVERYWHERE)
    try:
        assert ferry.logs_in(person)
    finally:
        ferry.host.identity.heal()


def test_a_good_token_survives_an_outage_and_a_restart(new_ferry: Ferry) -> None:
    person = new_ferry.ready_account()
    new_ferry.host.identity.fail(Failure.UNAVAILABLE, at=EVERYWHERE)
    try:
        new_ferry.serve()
        assert new_ferry.logs_in(person)
    finally:
        new_ferry.host.identity.heal()


# Upstream


@contextmanager
def _ferry_to(host: MailHost, folder: Path, upstream: str) -> Iterator[tuple[Ferry, Person]]:
    """A running ferry with this upstream for reading, and somebody who is signed in."""
    with closing(Ferry(folder, host, {"imap": upstream, "pop3": upstream})) as ferry:
        ferry.app_add()
        person = ferry.ready_account()
        ferry.serve()
        yield ferry, person


def _told_to_try_later(ferry: Ferry, person: Person) -> str:
    """What the log says of it."""
    password = ferry.passwords[person.upn]
    assert refused.imap(ferry, person.upn, password).startswith("[UNAVAILABLE]")
    assert refused.pop3(ferry, person.upn, password).startswith("-ERR [SYS/TEMP]")
    assert _logged(ferry, person) == {("try_later", "network")}
    assert ferry.state(person) == "connect_error"
    return " ".join(ferry.log_lines("login refused", person.upn))


def test_an_upstream_that_is_down_is_named(mail_host: MailHost, tmp_path: Path) -> None:
    upstream = f"{{host: localhost, port: {free_port()}, tls: implicit}}"
    with _ferry_to(mail_host, tmp_path, upstream) as (ferry, person):
        said = refused.imap(ferry, person.upn, ferry.passwords[person.upn])
        assert said.startswith("[UNAVAILABLE] Not your password: no connection to localhost:")
        assert _logged(ferry, person) == {("try_later", "network")}
        assert ferry.state(person) == "connect_error"
        # From now on it is known, and told before anybody offers a password (CLIENTS decision 3).
        with pytest.raises(
            poplib.error_proto, match=r"^b'-ERR \[SYS/TEMP\] Not your password: no connection to localhost:"
        ):
            poplib.POP3("localhost", ferry.ports["pop3"], timeout=refused.TIMEOUT_S)


def test_an_upstream_with_a_foreign_certificate_gets_no_token(mail_host: MailHost, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    ca = local_certificate(tmp_path / "foreign").ca_file
    seen = len(mail_host.identity.requests)
    upstream = f"{{host: localhost, port: {mail_host.dovecot.imap_port}, tls: implicit, ca_file: {ca}}}"
    with _ferry_to(mail_host, tmp_path, upstream) as (ferry, person):
        assert "certificate" in _told_to_try_later(ferry, person)
    assert "introspect" not in [endpoint for endpoint, _ in mail_host.identity.requests[seen:]]


def test_an_upstream_whose_certificate_is_for_another_name_gets_no_token(mail_host: MailHost, tmp_path: Path) -> None:
    with socket.create_server((OTHER_LOOPBACK, 0)) as listening:
        listening.settimeout(refused.TIMEOUT_S)
        received: list[bytes | None] = []

        def serve() -> None:
            for _ in range(2):  # IMAP, then POP3
                plain, _peer = listening.accept()
                with plain, suppress(ssl.SSLError, OSError):
                    received.append(None)
                    with mail_host.certificate.server_context().wrap_socket(plain, server_side=True) as secured:
                        received.append(secured.recv(1))

        decoy = threading.Thread(target=serve, daemon=True)
        decoy.start()
        ca, port = mail_host.certificate.ca_file, listening.getsockname()[1]
        upstream = f"{{host: {OTHER_LOOPBACK}, port: {port}, tls: implicit, ca_file: {ca}}}"
        with _ferry_to(mail_host, tmp_path, upstream) as (ferry, person):
            assert "certificate" in _told_to_try_later(ferry, person)
        decoy.join(refused.TIMEOUT_S)
    assert received == [None, None], "two connections, and not an octet through TLS"
