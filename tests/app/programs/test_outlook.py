"""Outlook: what its dialogs ask, and a profile file that Windows' own INI reader would take."""

from __future__ import annotations

import configparser

import pytest
from hypothesis import given

from proxy.app.programs.connection import Connection, Security, Unreachable
from proxy.app.programs.guide import File, Guide, Needs
from proxy.app.programs.outlook import outlook, outlook_prf
from tests.app.programs.facts import ODD, addresses, connection, printable


def values(guide: Guide) -> list[tuple[str, str]]:
    return [value for part in guide.parts for step in part.steps for value in step.values]


@pytest.mark.parametrize(
    ("facts", "word", "older"),
    [
        (connection(), "None", "no"),
        (connection(private=True), "TLS", "it cannot: it knows no STARTTLS"),
        (connection(offers=(Security.TLS,)), "SSL", "yes"),
    ],
)
def test_it_calls_encryption_by_its_own_names(facts: Connection, word: str, older: str) -> None:
    told = values(outlook(facts))
    assert ("Use the following type of encrypted connection", word) in told
    assert ("Use the following type of encrypted connection, below it", word) in told
    assert ("IMAP: requires an encrypted connection (SSL)", older) in told


def test_it_is_told_what_breaks_it() -> None:
    told = values(outlook(connection()))
    assert ("Require logon using Secure Password Authentication (SPA)", "no") in told
    assert ("Root folder path", "leave it empty") in told
    assert ("My outgoing server (SMTP) requires authentication", "yes") in told
    assert ("Server Timeouts", "two minutes or more") in told


def test_every_file_is_named_in_a_step() -> None:
    guide = outlook(connection())
    named = {step.file for part in guide.parts for step in part.steps if step.file}
    assert named == {file.name for file in guide.files}


def test_the_certificate_comes_first_where_it_is_needed() -> None:
    assert outlook(connection(private=True)).parts[0].steps[0].needs is Needs.CERTIFICATE
    assert outlook(connection()).parts[0].steps[0].needs is None


def test_pop3_alone_and_reading_alone() -> None:
    guide = outlook(connection(protocols=("pop3",)))
    assert ("Account Type", "POP3") in values(guide)
    assert ("Leave a copy of messages on the server", "yes") in values(guide)
    assert guide.notes == ("It can read, and not send. smtp is switched off.",)


# --- the profile file


def read_profile(file: File) -> configparser.ConfigParser:
    """As GetPrivateProfileString does: names in any case, `;` begins a comment, a value goes to the line's end."""
    text = file.octets[2:].decode("utf-16-le") if file.octets.startswith(b"\xff\xfe") else file.octets.decode("ascii")
    assert "\n" not in text.replace("\r\n", "")
    parser = configparser.ConfigParser(
        delimiters=("=",), comment_prefixes=(";",), inline_comment_prefixes=None, interpolation=None, strict=True
    )
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    ("facts", "incoming", "outgoing", "host"),
    [
        (connection(), "0", "0", "127.0.0.1"),
        (connection(private=True), "1", "2", "localhost"),
        (connection(offers=(Security.TLS,)), "1", "1", "localhost"),
    ],
)
def test_a_profile(facts: Connection, incoming: str, outgoing: str, host: str) -> None:
    (file,) = outlook_prf(facts).files
    profile = read_profile(file)
    assert profile["Internet Account List"]["Account1"] == "IMAP_I_Mail"
    account = profile["Account1"]
    assert (account["IMAPServer"], account["IMAPPort"], account["IMAPUseSSL"]) == (host, "1143", incoming)
    assert (account["SMTPServer"], account["SMTPPort"], account["SMTPSecureConnection"]) == (host, "1587", outgoing)
    assert (account["SMTPUseAuth"], account["IMAPUseSPA"], account["RootFolder"]) == ("1", "0", "")
    assert not any("password" in key for section in profile.values() for key in section)


def test_what_an_account_says_is_mapped_for_outlook() -> None:
    for protocols in (("imap", "pop3", "smtp"), ("pop3", "smtp"), ("imap",)):
        (file,) = outlook_prf(connection(protocols=protocols)).files
        profile = read_profile(file)
        kind = profile["Internet Account List"]["Account1"]
        assert set(profile["Account1"]) - {"uniqueservice"} <= set(profile[kind])
        service = profile["Service List"]["Service1"]
        assert set(profile["Service1"]) - {"uniqueservice"} <= set(profile[service])


@given(printable, addresses)
def test_a_profile_holds_the_login_or_says_that_it_cannot(login: str, mailbox: str) -> None:
    try:
        (file,) = outlook_prf(connection(login, mailbox)).files
    except Unreachable:
        assert "%" in login + mailbox or login != login.strip()
        return
    profile = read_profile(file)
    assert profile["Account1"]["IMAPUserName"] == login
    assert profile["Account1"]["EmailAddress"] == mailbox
    assert set(profile) == set(read_profile(outlook_prf(connection()).files[0]))


def test_a_percent_sign_is_refused_with_a_way_out() -> None:
    with pytest.raises(Unreachable, match="Type the values by hand"):
        outlook_prf(connection(ODD))
