"""Which door a program is shown: the simplest on this machine, an encrypted one elsewhere, none that it cannot use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.app.programs.connection import ALL, Connection, Security, Unreachable
from tests.app.programs.facts import AUTHORITY, connection, entrance

PLAIN, STARTTLS, TLS = Security.PLAIN, Security.STARTTLS, Security.TLS


@pytest.mark.parametrize(
    ("offers", "knows", "local", "private", "chosen"),
    [
        (ALL, ALL, True, False, PLAIN),
        (ALL, ALL, True, True, STARTTLS),
        (ALL, ALL, False, False, STARTTLS),
        ((TLS,), ALL, True, False, TLS),
        (ALL, (PLAIN, TLS), True, True, TLS),
        (ALL, (PLAIN, TLS), False, False, TLS),
        ((PLAIN,), ALL, False, True, PLAIN),  # the person said so in so many words
        ((STARTTLS,), (PLAIN, TLS), True, False, None),
        ((), ALL, True, False, None),
    ],
)
def test_a_door(
    offers: tuple[Security, ...], knows: tuple[Security, ...], local: bool, private: bool, chosen: Security | None
) -> None:
    door = entrance("imap", offers, local=local).door(knows, private=private)
    assert (door.security if door else None) is chosen


def test_a_plain_door_is_the_address_and_an_encrypted_one_the_certificates_name() -> None:
    assert connection().door("imap", "x").host == "127.0.0.1"
    assert connection(private=True).door("imap", "x").host == "localhost"


def test_a_door_of_ipv6_stands_in_brackets_in_an_address() -> None:
    door = connection().door("imap", "x")
    assert door.url_host == "127.0.0.1"
    assert replace(door, host="::1").url_host == "[::1]"


def test_what_is_not_there_says_why() -> None:
    with pytest.raises(Unreachable, match="smtp is switched off"):
        connection(protocols=("imap",)).door("smtp", "x")
    with pytest.raises(Unreachable, match=r"takes STARTTLS, which Outlook Express cannot use there.*tls: auto"):
        connection(offers=(STARTTLS,)).door("imap", "Outlook Express", (PLAIN, TLS))
    assert connection(protocols=()).find("imap", "x") is None


def test_incoming_is_imap_else_pop3() -> None:
    assert connection().incoming("x").protocol == "imap"
    assert connection(protocols=("pop3",)).incoming("x").protocol == "pop3"
    with pytest.raises(Unreachable):
        connection(protocols=("smtp",)).incoming("x")


def test_the_authority_is_needed_where_its_certificate_is_shown() -> None:
    private = connection(private=True)
    own = replace(private, entrances={"imap": replace(entrance("imap"), local_authority=False)})
    assert private.trusts(private.door("imap", "x")) == AUTHORITY
    assert private.trusts(None) is None
    assert own.trusts(own.door("imap", "x")) is None
    assert connection().trusts(connection().door("imap", "x")) is None


@pytest.mark.parametrize(
    ("login", "stem"),
    [
        ("alice@contoso.com", "alice@contoso.com"),
        ("../../etc/passwd", "etc-passwd"),
        ('a "b" $(id)', "a-b-id"),
        ("日本", "mail"),
        ("...", "mail"),
    ],
)
def test_a_file_is_named_after_the_login(login: str, stem: str) -> None:
    made: Connection = connection(login)
    assert made.file_stem == stem
    assert made.password_file == f".mailferry/{stem}"
