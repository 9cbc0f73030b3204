"""A person's way from nothing to a connected account, by the command line alone (PRODUCT 2 and 3)."""

from __future__ import annotations

import re
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.ferry import COMMAND, ROOT, Ferry, Way
from tests.end_to_end.programs import Curl, Security
from tests.servers.child import Child, free_port
from tests.servers.mailhost import MailHost, Person

ways = pytest.mark.parametrize("way", ["paste", "browser", "device"])


def start_with_nothing(ferry: Ferry) -> Path:
    """`serve` with no configuration; then its starter with other ports and our upstreams: it is the person's now."""
    ferry.config.unlink()
    starter = ferry.folder / ".config/mailferry/config.yaml"
    log = ferry.folder / "first.log"
    first = Child("mailferry", [*COMMAND, "serve"], log, environment=ferry.environment, folder=ROOT)
    first.wait_ready(lambda: str(starter) in log.read_text())
    first.stop()
    assert stat.S_IMODE(starter.stat().st_mode) == 0o600
    text = starter.read_text()
    for usual, ours in ((1143, "imap"), (1110, "pop3"), (1587, "smtp")):
        assert f"port: {usual}," in text
        text = text.replace(f"port: {usual},", f"port: {ferry.ports[ours]},")
    text = text.replace("page: 127.0.0.1:8143", f"page: 127.0.0.1:{free_port()}")
    _, _, rest = ferry.configuration({}).partition("upstreams:")
    starter.write_text(f"{text}\nstate_dir: {ferry.state_dir}\nupstreams:{rest}")
    ferry.config = starter
    return starter


def test_the_first_start_writes_a_starter_that_a_person_goes_on_with(mail_host: MailHost, tmp_path: Path) -> None:
    with closing(Ferry(tmp_path, mail_host)) as ferry:
        starter = start_with_nothing(ferry)
        ferry.app_add()
        person = ferry.ready_account()
        ferry.serve()
        assert ferry.logs_in(person)
        assert ferry.state(person) == "connected"
        written = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (starter.parent / "conf.d").glob("*.yaml")}
        assert written == {"app-work.yaml": 0o600, f"account-{person.upn}.yaml": 0o600}


@pytest.mark.timeout(300)  # some thirty commands, each of which takes a second to start on a busy machine
def test_from_nothing_to_mail(mail_host: MailHost, tmp_path: Path) -> None:
    """The whole journey by the command line alone, on a machine without a screen, beside the running daemon."""
    with closing(Ferry(tmp_path, mail_host)) as ferry:
        start_with_nothing(ferry)
        ferry.serve()
        assert "the configuration holds" in ferry.run("check").output
        assert "No apps yet." in ferry.run("app", "list").output
        ferry.app_add()
        assert ferry.json("app", "list")[0]["application_id"] == ferry.application_id

        people: dict[Way, Person] = {"paste": mail_host.new_person(), "device": mail_host.new_person()}
        for way, person in people.items():
            ferry.account_add(person)
            assert ferry.state(person) == "sign_in_needed"
            told = ferry.run("account", "test", person.upn, exit_code=3)
            assert f"mailferry sign-in {person.upn}" in told.output + told.errors
            assert f"Signed in as {person.upn}." in ferry.sign_in(person, way).output
            assert ferry.state(person) == "connecting"

        ferry.run("ca", "--output", str(tmp_path / "trusted.pem"))
        assert (tmp_path / "trusted.pem").read_text() == ferry.ca_file.read_text()
        for person in people.values():
            stored = mail_host.deliver(person, b"Subject: Land in sight\r\n\r\nThe harbour lies ahead.\r\n")
            curl = Curl(ferry, person.upn, ferry.passwords[person.upn])
            read = curl.read("imap", Security.TLS)
            assert (read.exit_code, read.output) == (0, stored), read.errors
            letter = b"Subject: Ahoy\r\n\r\nSent with a plain password.\r\n"
            assert curl.send(Security.STARTTLS, person.upn, letter).exit_code == 0
            arrived = mail_host.delivered(person, 2)[-1]
            assert b"Subject: Ahoy" in arrived
            assert arrived.endswith(b"Sent with a plain password.\r\n")
        shown = ferry.run("account", "list").output
        assert [row["state"] for row in ferry.json("account", "list")] == ["connected", "connected"]
        assert shown.count("connected") == 2

        login = people["paste"].upn
        assert ferry.json("account", "test", login)["verdict"] == "ok"
        settings = ferry.run("settings", login, "--for", "thunderbird").output
        assert str(ferry.ports["imap"]) in settings
        assert str(ferry.ports["smtp"]) in settings
        assert login in settings
        asked = ferry.run("administrator", login).output
        assert ferry.application_id in asked
        assert re.search(rf"Set-CASMailbox -Identity '?{re.escape(login)}\b", asked)
        assert ferry.json("doctor", login)["verdict"] in ("ok", "warn")


@ways
def test_sign_in_beside_the_running_daemon(ferry: Ferry, way: Way) -> None:
    person = ferry.host.new_person()
    ferry.account_add(person)
    assert ferry.state(person) == "sign_in_needed"
    ferry.sign_in(person, way)
    assert ferry.state(person) == "connecting"
    assert ferry.logs_in(person)
    assert ferry.state(person) == "connected"


@ways
def test_sign_in_without_a_daemon(new_ferry: Ferry, way: Way) -> None:
    person = new_ferry.host.new_person()
    new_ferry.account_add(person)
    assert new_ferry.state(person) == "sign_in_needed"
    new_ferry.sign_in(person, way)
    new_ferry.serve()
    assert new_ferry.logs_in(person)
    assert new_ferry.state(person) == "connected"


def test_signing_in_as_somebody_else_is_noticed(ferry: Ferry) -> None:
    person, other = ferry.host.new_person(), ferry.host.new_person()
    ferry.account_add(person)
    told = ferry.sign_in(person, as_=other, exit_code=1)
    assert other.upn in told.output + told.errors
    assert ferry.state(person) == "sign_in_needed"


def test_an_account_may_be_signed_out_and_in_again(ferry: Ferry) -> None:
    person = ferry.ready_account()
    assert ferry.logs_in(person)
    ferry.run("sign-out", person.upn)
    assert ferry.state(person) == "sign_in_needed"
    assert not ferry.logs_in(person)
    ferry.sign_in(person)
    assert ferry.logs_in(person)


def test_a_new_password_takes_the_old_ones_place(ferry: Ferry) -> None:
    person = ferry.ready_account()
    before = ferry.passwords[person.upn]
    after = ferry.new_password(person)
    assert after != before
    assert ferry.logs_in(person)
    ferry.passwords[person.upn] = before
    assert not ferry.logs_in(person)


def test_a_removed_account_is_gone_at_once(ferry: Ferry) -> None:
    person = ferry.ready_account()
    assert ferry.logs_in(person)
    ferry.run("account", "remove", person.upn)
    assert not ferry.logs_in(person)
    assert person.upn not in [account["login"] for account in ferry.json("account", "list")]


def test_what_the_person_must_mend_is_said_with_file_line_and_key(new_ferry: Ferry) -> None:
    new_ferry.config.write_text(new_ferry.config.read_text().replace("state_dir:", "state_dri:"))
    told = new_ferry.run("check", exit_code=2)
    said = told.output + told.errors
    assert f"{new_ferry.config}:1" in said
    assert "state_dri" in said
    assert "state_dir" in said, "the nearest known key"
