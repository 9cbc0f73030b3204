"""The table: PRODUCT's names are a contract, and every program has an answer for every connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.app.programs.clients import CLIENTS, Client, find_client, guide
from proxy.app.programs.connection import ALL, Connection, Security, Unreachable
from tests.app.programs.facts import ODD, connection

CONTRACT = (
    *("outlook", "outlook-prf", "outlook-express", "thunderbird", "apple", "mutt", "msmtp", "mbsync", "fetchmail"),
    *("scanner", "json"),
)
FACTS = [
    connection(protocols=protocols, offers=offers, private=private)
    for protocols in ((), ("imap",), ("pop3",), ("smtp",), ("imap", "pop3", "smtp"))
    for offers in (ALL, (Security.PLAIN,), (Security.STARTTLS,), (Security.TLS,))
    for private in (False, True)
] + [connection(ODD)]


def test_every_name_of_the_contract_is_there() -> None:
    assert set(CONTRACT) <= {client.name for client in CLIENTS}
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)
    assert find_client("mutt") in CLIENTS
    assert find_client("eudora") is None


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_it_is_told_its_settings_or_why_not(client: Client) -> None:
    made = 0
    for facts in FACTS:
        try:
            found = guide(client, facts)
        except Unreachable as error:
            _check(str(error).endswith("."), facts)
            continue
        made += 1
        _check(found.parts == () or not found.plain, facts)
        named = {step.file for part in found.parts for step in part.steps if step.file}
        _check(named <= {file.name for file in found.files}, facts)
        _check(all("/" not in file.name for file in found.files), facts)
    assert made


@pytest.mark.parametrize("name", ["outlook", "outlook-prf", "outlook-express", "thunderbird", "apple", "mutt", "msmtp"])
def test_a_certificate_that_is_not_at_hand_is_noted(name: str) -> None:
    client = find_client(name)
    assert client is not None
    notes = guide(client, replace(connection(private=True), authority=None)).notes
    assert [note for note in notes if "could not be read" in note] != []
    assert [note for note in guide(client, connection(private=True)).notes if "could not be read" in note] == []


def _check(holds: bool, facts: Connection) -> None:
    assert holds, facts
