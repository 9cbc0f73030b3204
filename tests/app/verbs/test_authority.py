"""The verb `ca`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from proxy.app.certificates import note_shown
from proxy.app.programs.trusting import SYSTEMS
from proxy.network.certificates import read_certificate
from tests.app.home import Home
from tests.app.trusted import authorities, give


@pytest.fixture
def trusted(home: Home) -> Home:
    give(home, 0)
    note_shown(home.config(), time.time())
    return home


def test_it_is_shown(trusted: Home) -> None:
    shown = read_certificate(authorities()[0] / "ca.pem")
    output = trusted.run("ca").output
    assert shown.sha256 in output
    assert shown.sha1 in output
    assert f"expires  {shown.expires.date()}" in output
    assert str(trusted.state_dir / "tls" / "ca.pem") in output
    assert "imap localhost:1143 shows a certificate of it" in output
    assert "CHANGED" not in output


def test_as_json(trusted: Home) -> None:
    document = json.loads(trusted.run("ca", "--json").output)
    assert document["authority"]["sha256"] == read_certificate(authorities()[0] / "ca.pem").sha256
    assert document["listeners"][0]["listener"] == "imap localhost:1143"
    assert document["changes"] == []


def test_a_copy(trusted: Home, tmp_path: Path) -> None:
    target = tmp_path / "copy.crt"
    told = trusted.run("ca", "--output", str(target))
    assert target.read_bytes() == (authorities()[0] / "ca.pem").read_bytes()
    assert read_certificate(target).sha256 in told.output
    assert "PRIVATE KEY" not in target.read_text()
    nowhere = tmp_path / "nowhere" / "copy.crt"
    assert "no such file" in trusted.run("ca", "--output", str(nowhere), exit_code=1).errors


@pytest.mark.parametrize("name", [system.name for system in SYSTEMS])
def test_the_steps_of_each_system(trusted: Home, name: str) -> None:
    assert "mailferry ca --output mailferry-ca.crt" in trusted.run("ca", "--steps", name).output


def test_an_unknown_system(trusted: Home) -> None:
    assert "windows, macos" in trusted.run("ca", "--steps", "amiga", exit_code=2).errors


def test_a_change_is_announced_until_it_was_read(trusted: Home) -> None:
    give(trusted, 1)
    note_shown(trusted.config(), time.time())
    output = trusted.run("ca").output
    assert "CHANGED: The local certificate authority changed on" in output
    assert "mailferry ca --acknowledge" in output
    (change,) = json.loads(trusted.run("ca", "--json").output)["changes"]
    assert change["what"] == "authority"
    assert "announced any more" in trusted.run("ca", "--acknowledge").output
    assert "CHANGED" not in trusted.run("ca").output
    assert "Nothing has changed." in trusted.run("ca", "--acknowledge").output


def test_before_the_first_start(home: Home) -> None:
    told = home.run("ca", exit_code=1)
    assert "it is made when the daemon first starts" in told.errors


def test_a_damaged_one(trusted: Home) -> None:
    (trusted.state_dir / "tls" / "ca.pem").write_text("no certificate")
    assert "Restart the daemon" in trusted.run("ca", exit_code=1).errors


def test_where_no_listener_shows_it(trusted: Home) -> None:
    trusted.write_main(certificate=", tls: off")
    assert "nothing to install" in trusted.run("ca", "--output", "x", exit_code=1).errors
    trusted.run("ca")
