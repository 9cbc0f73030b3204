"""Real mail programs against the running daemon: each reads and sends plain, with STARTTLS and with TLS on one port."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.ferry import Ferry
from tests.end_to_end.messages import AWKWARD_BODY, large_body, message
from tests.end_to_end.programs import Curl, Security, swaks
from tests.servers.mailhost import MailHost, Person

TIMEOUT_S = 60.0
LARGE_OCTETS = 20_000_000
securities = pytest.mark.parametrize("security", Security, ids=lambda security: security.value)


@pytest.fixture(scope="module")
def same_person(ferry: Ferry) -> Person:
    """One account is enough for this module."""
    return ferry.ready_account()


@pytest.fixture
def person(ferry: Ferry, same_person: Person) -> Person:
    """The module's person, with an empty inbox."""
    ferry.host.dovecot.empty(same_person.upn)
    return same_person


def _imap(ferry: Ferry, security: Security) -> imaplib.IMAP4:
    port = ferry.ports["imap"]
    if security is Security.TLS:
        return imaplib.IMAP4_SSL("localhost", port, ssl_context=ferry.client_context(), timeout=TIMEOUT_S)
    client = imaplib.IMAP4("localhost", port, timeout=TIMEOUT_S)
    if security is Security.STARTTLS:
        client.starttls(ferry.client_context())
    return client


def _pop3(ferry: Ferry, security: Security) -> poplib.POP3:
    port = ferry.ports["pop3"]
    if security is Security.TLS:
        return poplib.POP3_SSL("localhost", port, context=ferry.client_context(), timeout=TIMEOUT_S)
    client = poplib.POP3("localhost", port, timeout=TIMEOUT_S)
    if security is Security.STARTTLS:
        client.stls(ferry.client_context())
    return client


def _smtp(ferry: Ferry, security: Security) -> smtplib.SMTP:
    port = ferry.ports["smtp"]
    if security is Security.TLS:
        return smtplib.SMTP_SSL("localhost", port, context=ferry.client_context(), timeout=TIMEOUT_S)
    client = smtplib.SMTP("localhost", port, timeout=TIMEOUT_S)
    if security is Security.STARTTLS:
        client.starttls(context=ferry.client_context())
    return client


def _curl(ferry: Ferry, person: Person) -> Curl:
    return Curl(ferry, person.upn, ferry.passwords[person.upn])


def _fetch(client: imaplib.IMAP4, number: int = 1) -> bytes:
    data = client.fetch(str(number), "(BODY.PEEK[])")[1]
    assert isinstance(data[0], tuple)
    return bytes(data[0][1])


# curl


@securities
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_curl_reads_every_byte(ferry: Ferry, person: Person, protocol: str, security: Security) -> None:
    stored = ferry.host.deliver(person, message(AWKWARD_BODY))
    ended = _curl(ferry, person).read(protocol, security)
    assert (ended.exit_code, ended.errors) == (0, "")
    assert ended.output == stored


@securities
def test_curl_sends_every_byte(ferry: Ferry, person: Person, security: Security) -> None:
    sent = message(AWKWARD_BODY)
    ended = _curl(ferry, person).send(security, person.upn, sent)
    assert (ended.exit_code, ended.errors) == (0, "")
    (stored,) = ferry.host.delivered(person)
    assert stored.endswith(b"\r\n" + sent)


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_curl_reads_20_megabytes(ferry: Ferry, person: Person, protocol: str) -> None:
    stored = ferry.host.deliver(person, message(large_body(LARGE_OCTETS)))
    ended = _curl(ferry, person).read(protocol, Security.PLAIN)
    assert (ended.exit_code, ended.errors, len(ended.output)) == (0, "", len(stored))
    assert ended.output == stored


@pytest.mark.parametrize("security", [Security.PLAIN, Security.TLS], ids=lambda security: security.value)
def test_curl_sends_20_megabytes(ferry: Ferry, person: Person, security: Security) -> None:
    sent = message(large_body(LARGE_OCTETS))
    assert _curl(ferry, person).send(security, person.upn, sent).exit_code == 0
    (stored,) = ferry.host.delivered(person)
    assert stored.endswith(b"\r\n" + sent)


def test_tls_shows_a_certificate_that_only_the_local_authority_vouches_for(ferry: Ferry, person: Person) -> None:
    curl = _curl(ferry, person)
    ended = curl.run("imap", Security.TLS, "INBOX", "--cacert", "/etc/ssl/certs/ca-certificates.crt")
    assert ended.exit_code == 60, ended.errors  # curl: the peer's certificate is not known
    for name in ("127.0.0.1", "[::1]"):
        ended = curl.run("imap", Security.TLS, "INBOX", "--connect-to", f"::{name}:")
        assert ended.exit_code == 0, ended.errors


def test_an_upstream_may_speak_starttls(mail_host: MailHost, tmp_path: Path) -> None:
    dovecot, ca = mail_host.dovecot, mail_host.certificate.ca_file
    ports = {"imap": dovecot.imap_starttls_port, "pop3": dovecot.pop3_starttls_port}
    upstreams = {
        name: f"{{host: localhost, port: {port}, tls: starttls, ca_file: {ca}}}" for name, port in ports.items()
    }
    with closing(Ferry(tmp_path, mail_host, upstreams)) as ferry:
        ferry.app_add()
        person = ferry.ready_account()
        ferry.serve()
        stored = mail_host.deliver(person, message(AWKWARD_BODY))
        for protocol in ports:
            assert _curl(ferry, person).read(protocol, Security.PLAIN).output == stored


# Python's own


@securities
def test_imaplib_reads_and_stores_every_byte(ferry: Ferry, person: Person, security: Security) -> None:
    original = message(AWKWARD_BODY)
    with _imap(ferry, security) as client:
        client.login(person.upn, ferry.passwords[person.upn])
        assert client.append("INBOX", r"\Seen", "", original)[0] == "OK"
        assert client.select("INBOX") == ("OK", [b"1"])
        assert _fetch(client) == original


def test_imaplib_stores_and_reads_20_megabytes(ferry: Ferry, person: Person) -> None:
    original = message(large_body(LARGE_OCTETS))
    with _imap(ferry, Security.TLS) as client:
        client.login(person.upn, ferry.passwords[person.upn])
        assert client.append("INBOX", "", "", original)[0] == "OK"
        client.select("INBOX")
        assert _fetch(client) == original


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_imaplib_authenticates_with(ferry: Ferry, person: Person, mechanism: str) -> None:
    password = ferry.passwords[person.upn]
    answers = iter([f"\0{person.upn}\0{password}"] if mechanism == "PLAIN" else [person.upn, password])
    with _imap(ferry, Security.PLAIN) as client:
        assert f"AUTH={mechanism}" in client.capabilities
        assert client.authenticate(mechanism, lambda _: next(answers).encode())[0] == "OK"
        assert client.select("INBOX") == ("OK", [b"0"])


def test_imap_login_name_is_taken_in_any_case(ferry: Ferry, person: Person) -> None:
    with _imap(ferry, Security.PLAIN) as client:
        assert client.login(person.upn.upper(), ferry.passwords[person.upn])[0] == "OK"


def test_imap_offers_after_the_login_what_upstream_offers(ferry: Ferry, person: Person) -> None:
    with _imap(ferry, Security.PLAIN) as client:
        before = set(client.capabilities)
        client.login(person.upn, ferry.passwords[person.upn])
        after = set(client.capability()[1][0].decode().upper().split())
    assert "UIDPLUS" in after, "Dovecot's own, which it offers after a login only"
    assert {c for c in after if c.startswith("AUTH=") or c in ("STARTTLS", "LOGINDISABLED")} == set()
    # IMAP4 is the name that Exchange has beside IMAP4rev1, and Dovecot has not.
    assert {c for c in before if not c.startswith("AUTH=")} - {"STARTTLS", "LOGINDISABLED", "IMAP4"} <= after


@securities
def test_poplib_reads_every_byte(ferry: Ferry, person: Person, security: Security) -> None:
    # A line of at most 2048 octets: poplib takes no longer ones.
    stored = ferry.host.deliver(person, message(b".\r\n..\r\n" + bytes(range(128, 256)) + b"\r\n"))
    client = _pop3(ferry, security)
    client.user(person.upn)
    client.pass_(ferry.passwords[person.upn])
    assert client.stat() == (1, len(stored))
    assert b"\r\n".join(client.retr(1)[1]) + b"\r\n" == stored
    client.dele(1)
    client.quit()
    assert ferry.host.dovecot.messages(person.upn) == []


@securities
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_smtplib_sends(ferry: Ferry, person: Person, security: Security, mechanism: str) -> None:
    sent = message(b".\r\n..\r\n" + bytes(range(128, 256)) + b"\r\n")
    with _smtp(ferry, security) as client:
        client.ehlo()
        assert mechanism in client.esmtp_features["auth"].split()
        client.user, client.password = person.upn, ferry.passwords[person.upn]
        step = client.auth_plain if mechanism == "PLAIN" else client.auth_login
        assert client.auth(mechanism, step)[0] == 235
        client.sendmail(person.upn, [person.upn], sent, mail_options=["BODY=8BITMIME"])
    (stored,) = ferry.host.delivered(person)
    assert stored.endswith(b"\r\n" + sent)


def test_smtplib_sends_several_messages_in_one_session(ferry: Ferry, person: Person) -> None:
    sent = [message(b"the same session\r\n", f"number {n}") for n in range(3)]
    with _smtp(ferry, Security.STARTTLS) as client:
        client.login(person.upn, ferry.passwords[person.upn])
        for each in sent:
            client.sendmail(person.upn, [person.upn], each)
    stored = ferry.host.delivered(person, 3)
    assert sorted(each for one in stored for each in sent if one.endswith(each)) == sorted(sent)


# swaks


@securities
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_sends(ferry: Ferry, person: Person, tmp_path: Path, security: Security, mechanism: str) -> None:
    sent = message(b".dotted\r\nGr\xfc\xdfe\r\n", f"{security.value} {mechanism}")
    data = tmp_path / "message"
    data.write_bytes(sent.replace(b"\r\n", b"\n"))  # swaks makes CRLF of it
    ended = swaks(ferry, person.upn, ferry.passwords[person.upn], security, mechanism, data)
    assert ended.exit_code == 0, ended.errors
    (stored,) = ferry.host.delivered(person)
    assert sent.rstrip() in stored
