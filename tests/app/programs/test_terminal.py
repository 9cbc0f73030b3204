"""Files for programs of a terminal. Their own readers are in test_quoting.py; their logins in tests/end_to_end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from proxy.app.programs.connection import Connection, Security, Unreachable
from proxy.app.programs.guide import Guide
from proxy.app.programs.terminal import fetchmail, mbsync, msmtp, mutt
from tests.app.programs.facts import addresses, connection, printable

ALL_PROGRAMS = [mutt, msmtp, mbsync, fetchmail]
TLS_ONLY = connection(offers=(Security.TLS,))
Program = Callable[[Connection], Guide]


def text(guide: Guide) -> str:
    assert guide.plain
    (file,) = guide.files
    return file.text


@pytest.mark.parametrize(
    ("program", "facts", "lines"),
    [
        (
            mutt,
            connection(),
            ['set folder = "imap://127.0.0.1:1143/"', "set ssl_starttls = no", "set ssl_force_tls = no"],
        ),
        (mutt, connection(private=True), ['set folder = "imap://localhost:1143/"', "set ssl_starttls = yes"]),
        (
            mutt,
            TLS_ONLY,
            ['set folder = "imaps://localhost:1143/"', "set ssl_starttls = no", "set ssl_force_tls = yes"],
        ),
        (mutt, connection(protocols=("pop3",)), ['set spoolfile = "pop://127.0.0.1:1110/"', "set pop_delete = no"]),
        (msmtp, connection(), ["tls off", "tls_starttls off", "auth plain"]),
        (msmtp, connection(private=True), ["tls on", "tls_starttls on"]),
        (msmtp, TLS_ONLY, ["tls on", "tls_starttls off", 'tls_trust_file "/var/lib/mailferry/tls/ca.pem"']),
        (mbsync, connection(), ["SSLType None", "AuthMechs LOGIN", "Expunge None"]),
        (mbsync, connection(private=True), ["SSLType STARTTLS"]),
        (mbsync, TLS_ONLY, ["SSLType IMAPS", 'CertificateFile "/var/lib/mailferry/tls/ca.pem"']),
        (fetchmail, connection(), ['    sslproto ""', '    user "alice@contoso.com" keep']),
        (fetchmail, TLS_ONLY, ['    ssl sslproto "TLS1.2+" sslcertck sslcertfile "/var/lib/mailferry/tls/ca.pem"']),
        (fetchmail, connection(protocols=("pop3",)), ['poll "127.0.0.1" service 1110 protocol POP3 timeout 120']),
    ],
)
def test_lines(program: Program, facts: Connection, lines: list[str]) -> None:
    written = text(program(facts)).splitlines()
    assert [line for line in lines if line not in written] == []


@pytest.mark.parametrize("program", ALL_PROGRAMS)
def test_no_certificate_is_named_where_nothing_is_encrypted(program: Program) -> None:
    assert "ca.pem" not in text(program(connection()))


@pytest.mark.parametrize("program", ALL_PROGRAMS)
@given(login=printable, mailbox=addresses)
def test_a_login_never_makes_a_line(program: Program, login: str, mailbox: str) -> None:
    written = text(program(connection(login, mailbox))).splitlines()
    usual = text(program(connection())).splitlines()
    expected = [_word(line) for line in usual]
    found = [_word(line) for line in written]
    if program is fetchmail and '"' in login:  # another comment stands there
        expected, found = ([word for word in words if word != "#"] for words in (expected, found))
    assert found == expected


def _word(line: str) -> str:
    """The setting of a line; mutt's with the name of what is set."""
    words = line.split()
    return " ".join(words[:2]) if words[:1] == ["set"] else (words or [""])[0]


def test_what_they_cannot_do() -> None:
    reading, sending = connection(protocols=("imap",)), connection(protocols=("smtp",))
    with pytest.raises(Unreachable):
        msmtp(reading)
    with pytest.raises(Unreachable):
        mbsync(connection(protocols=("pop3",)))
    with pytest.raises(Unreachable):
        fetchmail(sending)
    with pytest.raises(Unreachable):
        mutt(connection(protocols=()))
    assert "smtp_url" not in text(mutt(reading))
    assert "spoolfile" not in text(mutt(sending))
