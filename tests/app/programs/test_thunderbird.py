"""Thunderbird: the steps name what its dialogs ask, and its file is what its reader takes."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given

from proxy.app.programs.connection import Connection, Security, Unreachable
from proxy.app.programs.guide import Needs
from proxy.app.programs.thunderbird import autoconfig, thunderbird
from tests.app.programs.facts import ODD, addresses, connection, printable
from tests.app.programs.schemas import judge


@pytest.mark.parametrize(
    "facts",
    [
        connection(),
        connection(private=True),
        connection(offers=(Security.TLS,)),
        connection(ODD, ODD.replace(" ", "") + "@contoso.com"),
        connection(protocols=("pop3",)),
    ],
    ids=["plain", "starttls", "tls", "odd", "pop3"],
)
def test_its_file_is_valid(facts: Connection) -> None:
    (file,) = thunderbird(facts).files
    judge(file.octets, "autoconfig")


@given(printable, addresses)
def test_its_file_holds_the_login(login: str, mailbox: str) -> None:
    (file,) = thunderbird(connection(login, mailbox)).files
    root = ElementTree.fromstring(file.octets)
    assert {element.text for element in root.iter("username")} == {login}
    assert [element.text for element in root.iter("domain")] == ["contoso.com"]
    assert [element.get("type") for element in root.iter("incomingServer")] == ["imap", "pop3"]


def test_for_whoever_asks_the_name_is_left_to_thunderbird() -> None:
    text = autoconfig(connection(), "contoso.com")
    assert "<username>%EMAILADDRESS%</username>" in text
    assert "alice" not in text
    judge(text.encode(), "autoconfig")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (connection(), "None"),
        (connection(private=True), "STARTTLS"),
        (connection(offers=(Security.TLS,)), "SSL/TLS"),
    ],
)
def test_the_steps_say_it_in_its_own_words(facts: Connection, words: str) -> None:
    values = [value for part in thunderbird(facts).parts for step in part.steps for value in step.values]
    assert values.count(("Connection security", words)) == 2
    assert ("Port", "1143") in values
    assert ("Port", "1587") in values
    assert values.count(("Authentication method", "Normal password")) == 2


def test_the_certificate_is_trusted_first_where_there_is_one_to_trust() -> None:
    encrypted = thunderbird(connection(private=True))
    assert encrypted.parts[0].steps[0].needs is Needs.CERTIFICATE
    assert all(step.needs is None for part in thunderbird(connection()).parts for step in part.steps)


def test_the_pages_address_is_told_where_there_is_a_page() -> None:
    address = ("mailnews.auto_config_url", "http://127.0.0.1:8143/mail/config-v1.1.xml?emailaddress=")
    with_page, without = thunderbird(connection()), thunderbird(replace(connection(), page=""))
    assert address in [value for part in with_page.parts for step in part.steps for value in step.values]
    assert address not in [value for part in without.parts for step in part.steps for value in step.values]


def test_what_it_cannot_do_is_said() -> None:
    assert "smtp is switched off." in thunderbird(connection(protocols=("imap",))).notes
    with pytest.raises(Unreachable):
        thunderbird(connection(protocols=("smtp",)))
    with pytest.raises(Unreachable):
        autoconfig(connection(protocols=()), "contoso.com")
