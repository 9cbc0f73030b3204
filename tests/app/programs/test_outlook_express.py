"""The account file of Outlook Express, read back by its published structure: number, length, value."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given

from proxy.app.programs.connection import Connection, Security, Unreachable
from proxy.app.programs.guide import Needs
from proxy.app.programs.outlook_express import CODE_PAGE, HEADER, NUMBERS, outlook_express
from tests.app.programs.facts import connection, printable

NAMES = {number: name for name, number in NUMBERS.items()}
PASSWORD_FIELDS = {312083446, 331744246, 338297846}
TEXTS = {
    "AccountName",
    *(name for name in NUMBERS if name.endswith(("Server", "UserName", "Folder", "Name", "Address"))),
}
TEXTS.discard("POP3LeaveMailOnServer")


def read(octets: bytes) -> dict[str, str | int]:
    assert octets.startswith(HEADER)
    found: dict[str, str | int] = {}
    at = len(HEADER)
    while at < len(octets):
        number, length = struct.unpack_from("<II", octets, at)
        value = octets[at + 8 : at + 8 + length]
        assert len(value) == length
        assert number not in PASSWORD_FIELDS
        name = NAMES[number]
        assert name not in found
        if name in TEXTS:
            assert value.endswith(b"\0")
            assert b"\0" not in value[:-1]
            found[name] = value[:-1].decode(CODE_PAGE)
        else:
            (found[name],) = struct.unpack("<I", value)
        at += 8 + length
    return found


@pytest.mark.parametrize(("facts", "encrypted"), [(connection(), 0), (connection(private=True), 1)])
def test_an_account(facts: Connection, encrypted: int) -> None:
    (file,) = outlook_express(facts).files
    account = read(file.octets)
    assert account["IMAPServer"] == ("localhost" if encrypted else "127.0.0.1")
    assert (account["IMAPPort"], account["IMAPSecureConnection"], account["IMAPAuthUseSPA"]) == (1143, encrypted, 0)
    assert (account["SMTPPort"], account["SMTPSecureConnection"], account["SMTPAuthMethod"]) == (1587, encrypted, 2)
    assert (account["IMAPRootFolder"], account["IMAPStoreSpecialFolders"]) == ("", 0)
    assert account["IMAPTimeout"] == account["SMTPTimeout"] == 120


def test_the_type_of_each_field_stands_in_its_number() -> None:
    """The low half of a number tells text from number, in every file that Outlook Express writes."""
    kinds = {name: number & 0x1FF for name, number in NUMBERS.items()}
    assert len({NUMBERS[name] for name in NUMBERS}) == len(NUMBERS)
    assert {kinds[name] for name in TEXTS} & {kinds[name] for name in NUMBERS.keys() - TEXTS} == set()


def test_pop3_leaves_mail_on_the_server() -> None:
    (file,) = outlook_express(connection(protocols=("pop3", "smtp"))).files
    assert read(file.octets)["POP3LeaveMailOnServer"] == 1


def test_without_smtp_it_reads() -> None:
    guide = outlook_express(connection(protocols=("imap",)))
    assert "SMTPServer" not in read(guide.files[0].octets)
    assert guide.notes == ("smtp is switched off.",)


def test_it_knows_no_starttls() -> None:
    with pytest.raises(Unreachable, match="tls: auto"):
        outlook_express(connection(offers=(Security.STARTTLS,)))


def test_the_certificate_where_it_is_needed() -> None:
    assert outlook_express(connection(private=True)).parts[0].steps[0].needs is Needs.CERTIFICATE


@given(printable)
def test_it_holds_the_login_or_says_that_it_cannot(login: str) -> None:
    if login.encode(CODE_PAGE, errors="replace").decode(CODE_PAGE) != login:
        with pytest.raises(Unreachable, match="no letters"):
            outlook_express(connection(login))
        return
    (file,) = outlook_express(connection(login)).files
    assert read(file.octets)["IMAPUserName"] == login
