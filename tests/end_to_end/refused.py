"""A login that is to be refused, in each protocol's own language. Not a test."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
from dataclasses import dataclass

import pytest

from tests.end_to_end.ferry import Ferry
from tests.servers.mailhost import Person

TIMEOUT_S = 60.0  # old mail programs wait as long (CLIENTS 0.1)


@dataclass(frozen=True, slots=True)
class Said:
    """What the mail program was told: the reply as it stood on the wire, and for SMTP the one to MAIL."""

    imap: str
    pop3: str
    smtp: str


def imap(ferry: Ferry, login: str, password: str) -> str:
    """The tagged NO's text, with its code."""
    client = imaplib.IMAP4("localhost", ferry.ports["imap"], timeout=TIMEOUT_S)
    try:
        with pytest.raises(imaplib.IMAP4.error) as refused:
            client.login(login, password)
        assert client.noop()[0] == "OK", "a refusal leaves the connection open"
    finally:
        client.shutdown()
    return bytes(refused.value.args[0]).decode()


def pop3(ferry: Ferry, login: str, password: str) -> str:
    client = poplib.POP3("localhost", ferry.ports["pop3"], timeout=TIMEOUT_S)
    try:
        client.user(login)
        with pytest.raises(poplib.error_proto) as refused:
            client.pass_(password)
    finally:
        client.close()
    return bytes(refused.value.args[0]).decode()


def smtp(ferry: Ferry, login: str, password: str) -> str:
    """The reply to AUTH when it is a refusal; otherwise the one to MAIL, as `deferred` tells it (CLIENTS 3.3)."""
    client = smtplib.SMTP("localhost", ferry.ports["smtp"], timeout=TIMEOUT_S)
    try:
        client.ehlo()
        client.user, client.password = login, password
        try:
            code, text = client.auth("PLAIN", client.auth_plain)
        except smtplib.SMTPAuthenticationError as refused:
            return f"{refused.smtp_code} {_text(refused.smtp_error)}"
        assert code == 235
        code, text = client.mail(login)
        return f"{code} {_text(text)}"
    finally:
        client.close()


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply


def in_all_protocols(ferry: Ferry, person: Person) -> Said:
    """The right password is refused; what each protocol says."""
    login, password = person.upn, ferry.passwords[person.upn]
    return Said(imap(ferry, login, password), pop3(ferry, login, password), smtp(ferry, login, password))
