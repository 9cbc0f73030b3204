"""The facts as JSON and as a sheet."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given

from proxy.app.programs.connection import Security, Unreachable
from proxy.app.programs.facts import as_json, facts, sheet
from tests.app.programs.facts import addresses, connection, printable


def test_json() -> None:
    (file,) = as_json(connection(protocols=("imap", "smtp"))).files
    read = json.loads(file.octets)
    assert read["login"] == read["mailbox"] == "alice@contoso.com"
    assert (read["imap"]["host"], read["imap"]["port"], read["imap"]["security"]) == ("127.0.0.1", 1143, "none")
    assert {"security": "tls", "host": "localhost"} in read["imap"]["offers"]
    assert read["pop3"] is None
    assert read["missing"] == {"pop3": "pop3 is switched off."}
    assert read["certificate"]["sha256"] == "AB:CD"


def test_json_without_page_and_authority() -> None:
    read = facts(replace(connection(), page="", authority=None))
    assert (read["page"], read["certificate"]) == (None, None)


@given(printable, addresses)
def test_json_holds_the_login(login: str, mailbox: str) -> None:
    (file,) = as_json(connection(login, mailbox)).files
    read = json.loads(file.octets)
    assert (read["login"], read["mailbox"]) == (login, mailbox)


def test_a_sheet() -> None:
    guide = sheet(connection())
    told = [value for part in guide.parts for step in part.steps for value in step.values]
    assert [value for name, value in told if name == "Port"] == ["1143", "1110", "1587"]
    assert ("SHA-256", "AB:CD") in told
    assert ("SHA-256", "AB:CD") not in [
        value
        for part in sheet(replace(connection(), authority=None)).parts
        for step in part.steps
        for value in step.values
    ]
    assert not any(name == "Password" and "local password" not in value for name, value in told)


@pytest.mark.parametrize("security", Security)
def test_a_sheet_says_the_encryption(security: Security) -> None:
    told = [
        value for part in sheet(connection(offers=(security,))).parts for step in part.steps for value in step.values
    ]
    word = {Security.PLAIN: "none", Security.STARTTLS: "STARTTLS", Security.TLS: "SSL/TLS"}[security]
    assert [value.split()[0] for name, value in told if name == "Encryption"] == [word] * 3


def test_a_sheet_without_anything() -> None:
    with pytest.raises(Unreachable):
        sheet(connection(protocols=()))
