"""Outlook's autodiscover file by Microsoft's schema, and registry files as Windows reads them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given

from proxy.app.programs.autodiscover import autodiscover, registry_lines, registry_removal
from proxy.app.programs.connection import Connection, Door, Security
from proxy.app.programs.guide import File
from tests.app.programs.facts import ODD, addresses, connection, printable
from tests.app.programs.schemas import judge

OUTLOOK = "{http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a}"


def doors(facts: Connection) -> list[Door]:
    return [door for name in ("imap", "smtp") if (door := facts.find(name, "Outlook"))]


@pytest.mark.parametrize(
    "facts",
    [connection(), connection(private=True), connection(offers=(Security.TLS,)), connection(ODD, "a&b@contoso.com")],
    ids=["plain", "starttls", "tls", "odd"],
)
def test_it_is_valid(facts: Connection) -> None:
    judge(autodiscover(facts, doors(facts)).octets, "autodiscover")


@given(printable, addresses)
def test_it_holds_the_login(login: str, mailbox: str) -> None:
    facts = connection(login, mailbox)
    root = ElementTree.fromstring(autodiscover(facts, doors(facts)).octets)
    assert [element.text for element in root.iter(f"{OUTLOOK}LoginName")] == [login, login]
    assert [element.text for element in root.iter(f"{OUTLOOK}DisplayName")] == [mailbox]


@pytest.mark.parametrize(
    ("facts", "ssl", "encryption"),
    [
        (connection(), "off", "None"),
        (connection(private=True), "on", "TLS"),
        (connection(offers=(Security.TLS,)), "on", "SSL"),
    ],
)
def test_it_says_the_encryption_in_outlooks_words(facts: Connection, ssl: str, encryption: str) -> None:
    root = ElementTree.fromstring(autodiscover(facts, doors(facts)).octets)
    assert {element.text for element in root.iter(f"{OUTLOOK}SSL")} == {ssl}
    assert {element.text for element in root.iter(f"{OUTLOOK}Encryption")} == {encryption}


def test_the_registry_points_at_the_file() -> None:
    keys = read_registry(registry_lines(connection()))
    assert [key.rsplit("\\", 3)[1] for key in keys] == ["12.0", "14.0", "15.0", "16.0"]
    for values in keys.values():
        assert values["contoso.com"] == r"C:\mailferry\autodiscover.xml"
        assert values["PreferLocalXML"] == 1
        assert values["ExcludeExplicitO365Endpoint"] == 1


def test_the_other_file_takes_all_of_it_away() -> None:
    made, taken = read_registry(registry_lines(connection())), read_registry(registry_removal(connection()))
    assert {key: set(values) for key, values in made.items()} == {key: set(values) for key, values in taken.items()}
    assert {value for values in taken.values() for value in values.values()} == {None}


@given(addresses)
def test_a_domain_stays_one_value(mailbox: str) -> None:
    odd = connection(mailbox=f'x@{mailbox.partition("@")[0]}"\\')
    (values, *_) = read_registry(registry_lines(odd)).values()
    assert values[odd.domain] == r"C:\mailferry\autodiscover.xml"
    assert len(values) == len(next(iter(read_registry(registry_lines(connection())).values())))


def read_registry(file: File) -> dict[str, dict[str, str | int | None]]:
    """By regedit's rules: UTF-16 with a mark, CRLF, sections, `"name"=value`; None for a value that is removed."""
    octets = file.octets
    assert octets.startswith(b"\xff\xfe")
    head, *lines = octets[2:].decode("utf-16-le").split("\r\n")
    assert head == "Windows Registry Editor Version 5.00"
    keys: dict[str, dict[str, str | int | None]] = {}
    values: dict[str, str | int | None] = {}
    for line in filter(None, lines):
        if section := re.fullmatch(r"\[(HKEY_CURRENT_USER\\.+)\]", line):
            values = keys.setdefault(section[1], {})
            continue
        found = re.fullmatch(r'"((?:[^"\\]|\\.)*)"=(?:"((?:[^"\\]|\\.)*)"|dword:([0-9a-f]{8})|-)', line)
        assert found is not None, line
        name, text, number = found.groups()
        values[_plain(name)] = _plain(text) if text is not None else int(number, 16) if number else None
    return keys


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
