"""The verb `settings`."""

from __future__ import annotations

import json
import plistlib
import stat
import time
from pathlib import Path

import pytest

from proxy.app.certificates import note_shown
from proxy.app.programs.clients import CLIENTS
from tests.app.home import ALICE, Home
from tests.app.trusted import give

SMTP = "  - {protocol: smtp, address: localhost, port: 1587}\n"
NAMES = [client.name for client in CLIENTS]


@pytest.fixture
def desk(home: Home) -> Home:
    """With Alice's account, IMAP and SMTP."""
    home.write_main(SMTP)
    home.add_app()
    home.add_account()
    give(home, 0)
    return home


def test_the_programs_are_listed(desk: Home) -> None:
    told = desk.run("settings", ALICE)
    assert all(name in told.output for name in NAMES)
    assert f"mailferry settings {ALICE} --for thunderbird" in told.output
    assert [row["for"] for row in json.loads(desk.run("settings", ALICE, "--json").output)] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_program_by_text_file_and_json(desk: Home, name: str, tmp_path: Path) -> None:
    output = desk.run("settings", ALICE, "--for", name).output
    assert ALICE in output or name == "scanner"
    target = tmp_path / "out" / "settings"
    target.parent.mkdir()
    told = desk.run("settings", ALICE, "--for", name, "--output", str(target))
    assert target.stat().st_size
    for file in target.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f"Written: {file}" in told.output
    document = json.loads(desk.run("settings", ALICE, "--for", name, "--json").output)
    assert document["for"] == name
    assert len(document["files"]) in (0, len(list(target.parent.iterdir())))


def test_a_plain_file_is_printed_as_it_is(desk: Home, tmp_path: Path) -> None:
    target = tmp_path / "rc"
    told = desk.run("settings", ALICE, "--for", "msmtp")
    desk.run("settings", ALICE, "--for", "msmtp", "--output", str(target))
    assert told.output == target.read_text()
    assert told.errors == ""


def test_all_files_of_a_guide_are_written_and_named_in_its_steps(desk: Home, tmp_path: Path) -> None:
    told = desk.run("settings", ALICE, "--for", "outlook", "--output", str(tmp_path / "mine.xml"))
    names = {"mine.xml", "autodiscover.reg", "autodiscover-remove.reg"}
    assert names <= {file.name for file in tmp_path.iterdir()}
    assert all(f"The file is {name}." in told.output for name in names)


def test_a_configuration_profile(desk: Home, tmp_path: Path) -> None:
    target = tmp_path / "alice.mobileconfig"
    desk.run("settings", ALICE, "--for", "apple", "--output", str(target))
    kinds = [each["PayloadType"] for each in plistlib.loads(target.read_bytes())["PayloadContent"]]
    assert kinds == ["com.apple.mail.managed", "com.apple.security.root"]


def test_how_to_get_what_a_step_needs(desk: Home) -> None:
    encrypted = desk.run("settings", ALICE, "--for", "thunderbird", "--tls").output
    assert "mailferry ca --output mailferry-ca.crt" in encrypted
    assert "STARTTLS" in encrypted
    assert "thunderbird.xml is written by: mailferry settings" in encrypted
    assert "mailferry ca" not in desk.run("settings", ALICE, "--for", "thunderbird").output


def test_a_device_gets_a_password_of_its_own(desk: Home) -> None:
    lan = "  - {protocol: smtp, address: 192.168.1.10, port: 1588, require_tls: true, allow_from: [192.168.1.20/32]}\n"
    desk.write_main(lan)
    told = desk.run("settings", ALICE, "--for", "scanner")
    assert f"mailferry password {ALICE} --name scanner --protocols smtp --from ADDRESS-OF-THE-DEVICE" in told.output


def test_for_another_machine(desk: Home) -> None:
    told = desk.run("settings", ALICE, "--for", "mutt", "--host", "mail.lan")
    assert "mail.lan" in told.output
    assert "this machine alone" in told.errors


def test_what_cannot_be_told(desk: Home) -> None:
    assert "No listener serves SMTP" not in desk.run("settings", ALICE, "--for", "msmtp").errors
    desk.write_main()
    assert "No listener serves SMTP" in desk.run("settings", ALICE, "--for", "msmtp", exit_code=1).errors


def test_wrong_names(desk: Home) -> None:
    assert "outlook, outlook-prf" in desk.run("settings", ALICE, "--for", "eudora", exit_code=2).errors
    assert "There is no account" in desk.run("settings", "bob@contoso.com", exit_code=2).errors


def test_a_file_that_cannot_be_written(desk: Home, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "file"
    told = desk.run("settings", ALICE, "--for", "msmtp", "--output", str(target), exit_code=1)
    assert f"{target} cannot be written: no such file or directory" in told.errors


def test_a_changed_certificate_is_mentioned(desk: Home) -> None:
    note_shown(desk.config(), 0)
    give(desk, 1)
    note_shown(desk.config(), time.time())
    told = desk.run("settings", ALICE, "--for", "msmtp")
    assert "The local certificate authority changed" in told.errors
    assert "changed" not in told.output


def test_no_password_is_ever_in_it(desk: Home) -> None:
    secret = desk.add_account("bob@contoso.com")
    for name in NAMES:
        assert secret not in desk.run("settings", "bob@contoso.com", "--for", name).output
