"""The real servers by themselves: what the end-to-end tests lean on must hold without the proxy."""

from __future__ import annotations

import base64
import imaplib
import os
import poplib
import smtplib
import ssl
from pathlib import Path

import pytest

from tests.servers.child import ServerFailed, open_folder, program
from tests.servers.dovecot import Dovecot
from tests.servers.mailhost import MailHost, Person

TIMEOUT_S = 10.0
WRONG_TOKEN = "not-a-token"
MESSAGE = b"From: a@contoso.com\r\nTo: b@contoso.com\r\nSubject: straight\r\nMessage-ID: <1@x>\r\nDate: \
Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\n\xe4 and a dot:\r\n.\r\n..two\r\n"


def _imap(host: MailHost) -> imaplib.IMAP4_SSL:
    context = host.certificate.client_context()
    return imaplib.IMAP4_SSL("localhost", host.dovecot.imap_port, ssl_context=context, timeout=TIMEOUT_S)


def _pop3(host: MailHost) -> poplib.POP3_SSL:
    context = host.certificate.client_context()
    return poplib.POP3_SSL("localhost", host.dovecot.pop3_port, context=context, timeout=TIMEOUT_S)


def _smtp(host: MailHost) -> smtplib.SMTP:
    client = smtplib.SMTP("localhost", host.postfix.port, timeout=TIMEOUT_S)
    client.starttls(context=host.certificate.client_context())
    client.ehlo()
    return client


def _response(person: Person, token: str) -> bytes:
    """FACTS 2.1, written out once more: the servers are proven without the proxy's own code."""
    return f"user={person.upn}\x01auth=Bearer {token}\x01\x01".encode()


def _imap_login(client: imaplib.IMAP4, person: Person, token: str) -> str:
    # An error comes as a challenge, to be answered with nothing.
    return client.authenticate("XOAUTH2", lambda challenge: b"" if challenge else _response(person, token))[0]


def _pop3_login(client: poplib.POP3, person: Person, token: str) -> bytes:
    sock = client.sock
    sock.sendall(b"AUTH XOAUTH2\r\n")
    assert client.file.readline() == b"+ \r\n"
    sock.sendall(base64.b64encode(_response(person, token)) + b"\r\n")
    answer: bytes = client.file.readline()
    if answer.startswith(b"+ "):
        sock.sendall(b"\r\n")
        answer = client.file.readline()
    return answer


def _smtp_login(client: smtplib.SMTP, person: Person, token: str) -> int:
    assert client.docmd("AUTH", "XOAUTH2")[0] == 334
    code, _ = client.docmd(base64.b64encode(_response(person, token)).decode())
    return client.docmd("")[0] if code == 334 else code


def test_imap_takes_a_good_token_and_offers_nothing_else(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    client = _imap(mail_host)
    assert {c for c in client.capabilities if c.startswith(("AUTH=", "LOGIN"))} == {
        "AUTH=XOAUTH2",
        "LOGINDISABLED",
        "LOGIN-REFERRALS",
    }
    assert _imap_login(client, person, mail_host.identity.issue(person.upn)) == "OK"
    assert client.append("INBOX", "", "", MESSAGE)[0] == "OK"
    client.select()
    data = client.fetch("1", "(BODY.PEEK[])")[1]
    assert isinstance(data[0], tuple)
    assert data[0][1] == MESSAGE
    client.logout()


def test_imap_refuses_a_wrong_token(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        _imap_login(_imap(mail_host), person, WRONG_TOKEN)


def test_imap_refuses_the_token_of_another_person(mail_host: MailHost) -> None:
    person, other = mail_host.new_person(), mail_host.new_person()
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        _imap_login(_imap(mail_host), person, mail_host.identity.issue(other.upn))


def test_imap_speaks_starttls_on_its_other_port(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    client = imaplib.IMAP4("localhost", mail_host.dovecot.imap_starttls_port, timeout=TIMEOUT_S)
    client.starttls(mail_host.certificate.client_context())
    assert _imap_login(client, person, mail_host.identity.issue(person.upn)) == "OK"


def test_pop3_takes_a_good_token_in_two_lines(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    client = _pop3(mail_host)
    assert _pop3_login(client, person, mail_host.identity.issue(person.upn)).startswith(b"+OK")
    assert client.stat() == (0, 0)


def test_pop3_speaks_starttls_on_its_other_port(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    client = poplib.POP3("localhost", mail_host.dovecot.pop3_starttls_port, timeout=TIMEOUT_S)
    client.stls(mail_host.certificate.client_context())
    assert _pop3_login(client, person, mail_host.identity.issue(person.upn)).startswith(b"+OK")


def test_pop3_refuses_a_wrong_token(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    assert _pop3_login(_pop3(mail_host), person, WRONG_TOKEN).startswith(b"-ERR [AUTH]")


def test_submission_delivers_what_was_sent_byte_for_byte(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    client = _smtp(mail_host)
    assert client.esmtp_features["auth"].split() == ["XOAUTH2"]
    assert _smtp_login(client, person, mail_host.identity.issue(person.upn)) == 235
    client.sendmail(person.upn, [person.upn], MESSAGE)
    client.quit()
    (message,) = mail_host.delivered(person)
    assert message.endswith(b"\r\n" + MESSAGE)


def test_submission_refuses_a_wrong_token(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    assert _smtp_login(_smtp(mail_host), person, WRONG_TOKEN) == 535


def test_submission_offers_no_login_and_takes_no_mail_without_tls(mail_host: MailHost) -> None:
    with smtplib.SMTP("localhost", mail_host.postfix.port, timeout=TIMEOUT_S) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("MAIL FROM:<a@contoso.com>")[0] == 530


def test_submission_takes_no_mail_without_a_login(mail_host: MailHost) -> None:
    person = mail_host.new_person()
    with _smtp(mail_host) as client:
        client.docmd(f"MAIL FROM:<{person.upn}>")
        assert client.docmd(f"RCPT TO:<{person.upn}>")[0] == 554


def test_the_servers_show_a_certificate_that_only_our_authority_vouches_for(mail_host: MailHost) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        imaplib.IMAP4_SSL("localhost", mail_host.dovecot.imap_port, ssl_context=ssl.create_default_context())


def test_a_missing_program_is_a_failure_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", "")
    with pytest.raises(ServerFailed, match=r"no-such-server is not installed; run: apt-get install .*dovecot-imapd"):
        program("no-such-server")


def test_a_server_that_cannot_start_fails_at_once_and_shows_why(mail_host: MailHost) -> None:
    with open_folder("mf-no-") as folder:
        dovecot = Dovecot(folder, mail_host.certificate, mail_host.identity.introspection_url)
        configuration: Path = folder / "dovecot.conf"
        configuration.write_text(configuration.read_text() + "no_such_setting = 1\n")
        with pytest.raises(ServerFailed, match=r"(?s)exit code 89.*[Uu]nknown setting: no_such_setting"), dovecot:
            pass


def test_lmtp_delivers_straight_into_the_mailbox(mail_host: MailHost) -> None:
    assert mail_host.deliver(mail_host.new_person(), MESSAGE).endswith(b"\r\n" + MESSAGE)
