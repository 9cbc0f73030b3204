"""A watch on the running daemon: one account's dialogues in the log for a while, and no secret, clear or base64."""

from __future__ import annotations

import imaplib
import re
from pathlib import Path

import pytest

from tests.end_to_end import refused
from tests.end_to_end.ferry import USER_CODE, Ferry
from tests.end_to_end.programs import Curl, Security, swaks
from tests.end_to_end.refused import TIMEOUT_S
from tests.servers.child import wait_until

SUBJECT, FOLDER = "A-subject-nobody-logs", "A-folder-nobody-logs"


@pytest.fixture
def sober(new_ferry: Ferry) -> Ferry:
    """A daemon that logs as it does by default."""
    text = new_ferry.config.read_text()
    new_ferry.config.write_text(text.replace("level: debug", "level: info"))
    new_ferry.serve()
    return new_ferry


def dialogue(ferry: Ferry, *parts: str) -> list[str]:
    return ferry.log_lines(" debug ", " dialogue ", *parts)


def test_one_account_is_watched_for_a_while(sober: Ferry, tmp_path: Path) -> None:
    watched, other = sober.ready_account(), sober.ready_account()
    password = sober.passwords[watched.upn]
    sober.passwords["a wrong one"] = wrong = "Wrong-but-secret-all-the-same"
    assert sober.logs_in(watched)
    assert dialogue(sober) == []

    assert "10 more minutes" in sober.run("log", watched.upn).output
    (each,) = sober.json("log")["watched"]
    assert each["whom"] == watched.upn.casefold()
    assert 500 < each["left_s"] <= 600
    message = tmp_path / "message"
    message.write_text(f"Subject: {SUBJECT}\n\nx\n")
    for mechanism in ("PLAIN", "LOGIN"):
        assert swaks(sober, watched.upn, password, Security.PLAIN, mechanism, message).exit_code == 0
        assert swaks(sober, watched.upn, wrong, Security.PLAIN, mechanism, message).exit_code != 0
    assert Curl(sober, watched.upn, password).read("pop3", Security.TLS).exit_code == 0
    refused.imap(sober, watched.upn, wrong)
    refused.pop3(sober, watched.upn, wrong)
    with imaplib.IMAP4("localhost", sober.ports["imap"], timeout=TIMEOUT_S) as client:
        client.login(watched.upn, password)
        client.create(FOLDER)
    assert sober.logs_in(other)

    assert dialogue(sober, "listener=imap", 'leg="mail program"', f"LOGIN {watched.upn} <secret>")
    assert dialogue(sober, "listener=pop3", "PASS <secret>")
    assert dialogue(sober, "listener=smtp", "AUTH PLAIN")
    assert dialogue(sober, "leg=upstream", "AUTHENTICATE XOAUTH2 <secret>")
    assert dialogue(sober, "leg=upstream", "listener=smtp", "told=<secret>")
    assert dialogue(sober, "leg=upstream", "listener=smtp", "heard=", "235 2.7.0")
    assert dialogue(sober, "ago_s="), "what was said before the login tells whose it is, is there, too"
    ours = {line.split(" session=")[1].split()[0] for line in sober.log_lines("login accepted", other.upn)}
    assert not [line for line in dialogue(sober) if line.split(" session=")[1].split()[0] in ours]
    assert SUBJECT not in sober.log
    assert FOLDER not in sober.log

    assert "Nobody is watched" in sober.run("log", watched.upn, "--stop").output
    told = len(dialogue(sober))
    assert sober.logs_in(watched)
    assert len(dialogue(sober)) == told
    assert sober.secrets_seen() == []


def test_a_watch_ends_by_itself_and_an_address_can_be_watched(sober: Ferry) -> None:
    person = sober.ready_account()
    sober.run("log", "127.0.0.1", "--for", "12s")
    assert "12 more seconds" in sober.run("log", "::1", "--for", "12s").output
    assert sober.logs_in(person)
    assert dialogue(sober, f"LOGIN {person.upn} <secret>")
    wait_until("the watch is over", lambda: sober.json("log") == {"watched": []})
    told = len(dialogue(sober))
    assert sober.logs_in(person)
    assert len(dialogue(sober)) == told
    assert len(sober.log_lines("watch begun", "for_s=12.000")) == 2


def test_a_device_code_is_said_and_not_logged(sober: Ferry) -> None:
    person = sober.host.new_person()
    sober.account_add(person)
    sober.run("log", person.upn, "--for", "5m")
    said = refused.imap(sober, person.upn, sober.passwords[person.upn])
    assert "with code" in said
    assert dialogue(sober, "NO [UNAVAILABLE] <secret> ")
    (code,) = set(re.findall(USER_CODE, said))
    assert code not in sober.log


def test_who_cannot_be_watched(sober: Ferry) -> None:
    assert "no account" in sober.run("log", "nobody@contoso.example", exit_code=2).errors
    assert "an hour is the longest" in sober.run("log", "::1", "--for", "2h", exit_code=2).errors
    sober.stop()
    assert "mailferry serve" in sober.run("log", exit_code=4).errors
