"""Thunderbird, the program most people have: its own account, folder and sending code, without a window."""

from __future__ import annotations

import base64

from tests.clients.berth import HERE, Berth, driven, same_body
from tests.clients.marionette import thunderbird

SCRIPT = HERE / "scripts" / "thunderbird.js"


def _run(berth: Berth, letter: str = "") -> bytes:
    certificate = "".join(berth.ca_file.read_text().splitlines()[1:-1])
    with thunderbird(berth) as marionette:
        given = marionette.run(
            SCRIPT.read_text(),
            *(berth.entry.protocol, berth.port, berth.security.value, berth.login, berth.password, certificate, letter),
        )
    assert isinstance(given, str), given
    return base64.b64decode(given)


@driven("Thunderbird", "imap", "reads every byte", "AUTHENTICATE PLAIN", package="thunderbird")
def test_thunderbird_imap(berth: Berth) -> None:
    stored = berth.deliver()
    same_body(_run(berth), stored)


@driven("Thunderbird", "pop3", "reads every byte", "AUTH PLAIN", package="thunderbird")
def test_thunderbird_pop3(berth: Berth) -> None:
    stored = berth.deliver()
    same_body(_run(berth), stored)


@driven("Thunderbird", "smtp", "sends", "AUTH PLAIN, initial response", package="thunderbird")
def test_thunderbird_smtp(berth: Berth) -> None:
    letter = berth.letter()
    file = berth.home / "letter"
    file.write_bytes(letter)
    _run(berth, str(file))
    same_body(berth.arrived(), letter)
