"""What `mailferry settings` prints for programs of a terminal, used as it is: each logs in through the real daemon.

The login is one that no format can hold without care. The password is given in the way that the printed file says.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.clients.berth import Berth, Entry, installed, only_file, same_body, same_lines, sent_whole
from tests.clients.marionette import thunderbird
from tests.end_to_end.ferry import APP, GENERATED_PASSWORD, Ferry
from tests.end_to_end.programs import Security
from tests.servers.mailhost import Person

PLAIN_LOGIN = "office"
ODD_LOGIN = r"""O'Brien "the \ one" 50%$HOME `id` #; é"""
SCRIPTS = Path(__file__).parents[1] / "clients" / "scripts"
PATIENCE_S = 60
PASSWORD_LINE = re.compile(r"^#   (\(umask 077; .*\))$", re.MULTILINE)
PASSWORD_WORD = re.compile(r'^#   (password "PASSWORD")$', re.MULTILINE)
NETRC_LINE = re.compile(r"^#   (machine .* password )PASSWORD$", re.MULTILINE)

by_login = pytest.mark.parametrize("login", [PLAIN_LOGIN, ODD_LOGIN], ids=["plain", "odd"])
by_security = pytest.mark.parametrize("tls", [False, True], ids=["plain", "encrypted"])


@dataclass(frozen=True)
class Desk:
    """A person's machine: a home folder, and the account's login and password."""

    ferry: Ferry
    person: Person
    login: str
    home: Path
    password: str = field(repr=False)

    @property
    def environment(self) -> Mapping[str, str]:
        return Berth.environment(cast("Berth", self))

    def settings(self, program: str, *options: str) -> str:
        return self.ferry.run("settings", self.login, "--for", program, *options).output

    def keep(self, name: str, text: str) -> Path:
        file = self.home / name
        file.write_text(text)
        file.chmod(0o600)
        return file

    def give_password(self, printed: str) -> None:
        """By the line of the shell that stands in the file."""
        found = PASSWORD_LINE.search(printed)
        assert found is not None, printed
        self.run("sh", "-c", found[1], given=f"{self.password}\n".encode())
        (made,) = (self.home / ".mailferry").iterdir()
        assert made.stat().st_mode & 0o777 == 0o600

    def run(self, *command: str, given: bytes = b"") -> bytes:
        done = subprocess.run(
            [installed(command[0]), *command[1:]],
            input=given,
            capture_output=True,
            cwd=self.home,
            env={**self.environment},
            timeout=PATIENCE_S,
            check=False,
        )
        said = (done.stdout + done.stderr)[-2000:].decode(errors="replace")
        assert done.returncode == 0, f"{command[0]} gave {done.returncode}: {said}"
        return done.stdout

    def berth(self, program: str) -> Berth:
        """For what is driven by keys or by Marionette."""
        entry = Entry(program, program, "imap", "", "", tuple(Security))
        return Berth(entry, Security.PLAIN, self.ferry, self.person, cast("Any", None), self.home, self.password)

    def letter(self) -> bytes:
        return Berth.letter(cast("Berth", LetterBy(self.person.upn)))

    def deliver(self) -> bytes:
        return self.ferry.host.deliver(self.person, self.letter())

    def arrived(self) -> bytes:
        (stored,) = self.ferry.host.delivered(self.person, 1)
        return stored


@dataclass(frozen=True)
class LetterBy:
    login: str


@dataclass(frozen=True)
class Account:
    """One whose login is not its mailbox."""

    person: Person
    login: str
    password: str = field(repr=False)


@pytest.fixture(scope="module")
def accounts(ferry: Ferry) -> Mapping[str, Account]:
    return {login: _account(ferry, login) for login in (PLAIN_LOGIN, ODD_LOGIN)}


def _account(ferry: Ferry, login: str) -> Account:
    person = ferry.ready_account()
    whose = ("--app", APP, "--mailbox", person.upn, "--sign-in", person.upn)
    said = ferry.start("account", "add", login, *whose).end(0, forget=True)
    (password,) = set(re.findall(GENERATED_PASSWORD, said.output))
    ferry.passwords[login] = password
    return Account(person, login, password)


@pytest.fixture
def desk(ferry: Ferry, accounts: Mapping[str, Account], login: str, tmp_path: Path) -> Desk:
    """With an empty mailbox."""
    account = accounts[login]
    ferry.host.dovecot.empty(account.person.upn)
    return Desk(ferry, account.person, login, tmp_path, account.password)


@by_security
@by_login
def test_msmtp_sends(desk: Desk, tls: bool) -> None:
    printed = desk.settings("msmtp", *_options(tls))
    desk.give_password(printed)
    letter = desk.letter()
    config = desk.keep(".msmtprc", printed)
    desk.run("msmtp", f"--file={config}", desk.person.upn, given=letter.replace(b"\r\n", b"\n"))
    sent_whole(desk.arrived(), letter)


@by_security
@by_login
def test_mbsync_copies(desk: Desk, tls: bool) -> None:
    printed = desk.settings("mbsync", *_options(tls))
    desk.give_password(printed)
    stored = desk.deliver()
    made = re.search(r"First: (mkdir -p .*)$", printed, re.MULTILINE)
    asked = re.search(r"start `(mbsync) --config THIS-FILE (\S+)`", printed)
    assert made is not None
    assert asked is not None
    desk.run("sh", "-c", made[1])
    desk.run("mbsync", "--config", str(desk.keep(".mbsyncrc", printed)), asked[2])
    same_body(only_file(desk.home / "Mail" / asked[2] / "INBOX"), stored)  # it adds X-TUID


@by_security
@by_login
def test_fetchmail_fetches(desk: Desk, tls: bool) -> None:
    printed = desk.settings("fetchmail", *_options(tls))
    if line := NETRC_LINE.search(printed):
        desk.keep(".netrc", f"{line[1]}{desk.password}\n")
    else:  # a .netrc cannot hold this login, so the file says what to write into itself
        (line,) = PASSWORD_WORD.finditer(printed)
        printed = printed.replace(" keep\n", f" {line[1].replace('PASSWORD', desk.password)} keep\n")
    stored = desk.deliver()
    config = desk.keep(".fetchmailrc", printed)
    kept = desk.home / "kept"
    desk.run("fetchmail", "--fetchmailrc", str(config), "--nosyslog", "--mda", f"cat > {shlex.quote(str(kept))}")
    same_lines(kept.read_bytes(), stored)
    assert desk.ferry.host.dovecot.messages(desk.person.upn) != [], "it keeps what it fetched"


@pytest.mark.parametrize("program", ["mutt", "neomutt"])
@by_security
@by_login
def test_mutt_sends_with_a_password_file(desk: Desk, tls: bool, program: str) -> None:
    printed = desk.settings("mutt", *_options(tls))
    desk.give_password(printed)
    config = desk.keep(".muttrc", printed.replace("#set smtp_pass", "set smtp_pass"))
    letter = desk.letter()
    body = letter.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
    desk.run(program, "-n", "-F", str(config), "-s", "by ferry", desk.person.upn, given=body)
    same_lines(desk.arrived(), letter)


@pytest.mark.parametrize("program", ["mutt", "neomutt"])
@by_security
@by_login
def test_mutt_reads_and_asks_for_the_password(desk: Desk, tls: bool, program: str) -> None:
    stored = desk.deliver()
    config = desk.keep(".muttrc", desk.settings("mutt", *_options(tls)))
    kept = desk.home / "kept"
    push = f"push '<copy-message><kill-line>{kept}<enter><exit>'"
    quiet = "set mbox_type=Maildir wait_key=no confirmappend=no confirmcreate=no sleep_time=0 quit=yes delete=no"
    command = [program, "-n", "-F", str(config), "-e", quiet, "-e", push]
    desk.berth(program).type_into(command, keys=[("Password for", f"{desk.password}\r")])
    same_body(only_file(kept), stored)


@by_security
@pytest.mark.parametrize("login", [ODD_LOGIN], ids=["odd"])
def test_thunderbird_reads_its_file(desk: Desk, tls: bool) -> None:
    """As its set-up reads what lies in its folder `isp`."""
    file = desk.home / "config.xml"
    desk.settings("thunderbird", "--output", str(file), *_options(tls))
    with thunderbird(desk.berth("thunderbird")) as marionette:
        servers = marionette.run((SCRIPTS / "autoconfig.js").read_text(), "", file.read_text(), "")
    usual = {
        "hostname": "localhost" if tls else "127.0.0.1",
        "security": "starttls" if tls else "plain",
        "password": True,
        "username": ODD_LOGIN,
    }
    ports = desk.ferry.ports
    assert servers == [{"type": name, "port": ports[name], **usual} for name in ("imap", "pop3", "smtp")]


def test_the_certificate_is_exported_for_programs(ferry: Ferry, tmp_path: Path) -> None:
    copy = tmp_path / "ca.crt"
    said = ferry.run("ca", "--output", str(copy)).output
    assert copy.read_bytes() == ferry.ca_file.read_bytes()
    fingerprint = subprocess.run(
        ["openssl", "x509", "-in", str(copy), "-noout", "-fingerprint", "-sha256"], capture_output=True, check=True
    )
    assert fingerprint.stdout.decode().strip().partition("=")[2] in said


def test_a_certificate_that_changed_is_announced(new_ferry: Ferry) -> None:
    new_ferry.serve()
    assert new_ferry.json("ca")["changes"] == []
    new_ferry.stop()
    for name in ("ca.pem", "ca.key"):
        (new_ferry.state_dir / "tls" / name).unlink()
    new_ferry.serve()
    (change,) = new_ferry.json("ca")["changes"]
    assert change["what"] == "authority"
    assert change["new"] == new_ferry.json("ca")["authority"]["sha256"] != change["old"]
    assert new_ferry.log_lines("a certificate changed", "authority")
    new_ferry.run("ca", "--acknowledge")
    assert new_ferry.json("ca")["changes"] == []


def _options(tls: bool) -> tuple[str, ...]:
    return ("--tls",) if tls else ()
