"""A device in the corridor: the listener that the network reaches, or what to write for one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.app.programs.connection import Security, Unreachable
from proxy.app.programs.guide import Guide, Needs
from proxy.app.programs.scanner import scanner
from proxy.config import read
from tests.app.home import Home
from tests.app.programs.facts import connection, entrance, with_device

DEVICE = replace(entrance("smtp", local=False), port=1588)


def values(guide: Guide) -> dict[str, str]:
    return {name: value for part in guide.parts for step in part.steps for name, value in step.values}


def test_a_device_with_a_login() -> None:
    guide = scanner(with_device(DEVICE))
    told = values(guide)
    assert (told["SMTP server"], told["Port"]) == ("mail.lan", "1588")
    assert told["Encryption"].startswith("STARTTLS")
    assert told["SMTP authentication"] == "on, LOGIN or PLAIN"
    assert told["User name"] == told["From (sender address)"] == "alice@contoso.com"
    needs = [step.needs for part in guide.parts for step in part.steps]
    assert needs[0] is Needs.DEVICE_PASSWORD
    assert needs[-1] is Needs.CERTIFICATE


def test_a_device_without_a_login() -> None:
    guide = scanner(with_device(replace(DEVICE, login_needed=False, offers=(Security.PLAIN,))))
    told = values(guide)
    assert told["SMTP authentication"] == "off"
    assert told["Encryption"] == "none"
    assert "Password" not in told
    assert {step.needs for part in guide.parts for step in part.steps} == {None}


def test_without_a_listener_it_says_what_to_write(home: Home) -> None:
    """And what it says loads, once it is there."""
    (part,) = scanner(connection()).parts
    (step,) = part.steps
    home.file.write_text(f"state_dir: {home.state_dir}\npage: off\n{step.code}\n")
    (listener,) = read(home.file, {}).config.listeners
    assert listener.require_tls
    assert listener.allow_from


def test_what_cannot_be() -> None:
    with pytest.raises(Unreachable, match="smtp is switched off"):
        scanner(connection(protocols=("imap",)))
    with pytest.raises(Unreachable, match="nothing that a device could use"):
        scanner(with_device(replace(DEVICE, offers=())))
