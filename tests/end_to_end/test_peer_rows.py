"""PEERS section 3: the 25 rows in which the strongest rival fails its users. `pytest -k peer_row` runs what shows them.

Here are those of running the daemon: reload, the person's configuration, what watches it, and whom it trusts.
"""

from __future__ import annotations

import configparser
import imaplib
import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.exchange import Exchange
from tests.end_to_end.ferry import ROOT, Ferry
from tests.end_to_end.messages import AWKWARD_BODY, message
from tests.end_to_end.quay import (
    QuayFerry,
    SignInHost,
    announce,
    at_once,
    mailbox,
    own_mailbox,
    real_upstreams,
    scripted_upstream,
    sign_in_at_once,
    visit,
)
from tests.end_to_end.refused import TIMEOUT_S
from tests.servers.mailhost import MailHost, Person

ROWS = range(1, 26)
STRANGER = "127.0.0.61"  # whoever sends wrong passwords has an address of his own
HANG_UPS = 4
BY_HAND = "# Written by hand: keep the comments,\tthe blanks  and this: Grüße.\n"


def test_every_row_of_peers_has_a_test() -> None:
    """The numbers are read off the tests' source."""
    modules = [*Path(__file__).parent.glob("test_peer_rows*.py"), ROOT / "tests/network/test_peer_rows.py"]
    source = "".join(module.read_text() for module in modules)
    assert {int(row) for row in re.findall(r"^def test_peer_row_(\d\d)_", source, re.MULTILINE)} == set(ROWS)


@pytest.fixture(scope="module")
def ferry(mail_host: MailHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuayFerry]:
    """Two accounts at real servers; the second one is never signed in."""
    boxes = [own_mailbox(mail_host.new_person(), f"Password-of-number-{n}") for n in range(2)]
    with closing(QuayFerry(tmp_path_factory.mktemp("ferry"), mail_host, boxes, real_upstreams(mail_host))) as ferry:
        ferry.serve()
        ferry.sign_in_at_once(boxes[0])
        yield ferry


def test_peer_row_01_reload_after_reload(ferry: QuayFerry) -> None:
    """The rival: SIGHUP ends the daemon (address in use), 4 of 4 times."""
    box = ferry.mailboxes[0]
    stored = ferry.host.deliver(Person(box.address, ""), message(AWKWARD_BODY))
    with imaplib.IMAP4("localhost", ferry.ports["imap"], timeout=TIMEOUT_S) as before:
        before.login(box.address, box.passwords[0])
        before.select("INBOX", readonly=True)
        for _ in range(HANG_UPS):
            ferry.hang_up()
            [part, *_] = before.fetch("1", "(BODY.PEEK[])")[1]
            assert isinstance(part, tuple)
            assert part[1] == stored
            said = [ferry.says(protocol, box) for protocol in ("imap", "pop3", "smtp")]
            assert [reply[:4] for reply in said] == ["a OK", "+OK ", "235 "]
    assert ferry.daemon is not None
    assert ferry.daemon.process.poll() is None


def test_peer_row_14_what_a_person_wrote_stays_as_it_is(mail_host: MailHost, tmp_path: Path) -> None:
    """The rival: configuration edits are lost on restart; the file is truncated, then written."""
    with closing(Ferry(tmp_path, mail_host)) as ferry:
        ferry.config.write_text(BY_HAND + ferry.config.read_text() + "\n\n# The end.")
        written = _as_it_is(ferry.config)
        ferry.app_add()
        ferry.serve()
        person = mail_host.new_person()
        ferry.account_add(person)
        sign_in_at_once(ferry, own_mailbox(person, ferry.passwords[person.upn]))
        assert _as_it_is(ferry.config) == written

        text = ferry.config.read_text()
        ferry.config.write_text(
            text.replace("log: {level: debug", "hostname: by.hand.test  # changed\nlog: {level: debug")
        )
        edited = _as_it_is(ferry.config)
        (account,) = (tmp_path / "conf.d").glob("account-*.yaml")
        other_login = f"other.{person.upn}"
        account.write_text(account.read_text().replace(f"login: {person.upn}", f"login: [{person.upn}, {other_login}]"))
        assert other_login in account.read_text()
        ferry.new_password(person)  # which tells the daemon to reload
        assert _as_it_is(ferry.config) == edited
        assert ferry.stop() == 0
        assert _as_it_is(ferry.config) == edited

        ferry.serve()
        for login in (person.upn, other_login):
            with imaplib.IMAP4("localhost", ferry.ports["imap"], timeout=TIMEOUT_S) as client:
                assert b"by.hand.test" in client.welcome
                assert client.login(login, ferry.passwords[person.upn])[0] == "OK"
        assert _as_it_is(ferry.config) == edited
        assert other_login in account.read_text()


def _as_it_is(file: Path) -> tuple[bytes, int]:
    """Its content, and when it was written last."""
    return file.read_bytes(), file.stat().st_mtime_ns


def test_peer_row_18_what_fail2ban_and_monitoring_look_for(ferry: QuayFerry) -> None:
    """The rival: nothing for fail2ban or monitoring."""
    good, idle = ferry.mailboxes
    wrong = partial(ferry.says, box=good, source=STRANGER, password="not-the-password")
    said = at_once(*(partial(wrong, protocol) for protocol in ("imap", "pop3", "smtp")))
    assert [bool(re.match(r"a NO \[AUTH|-ERR \[AUTH\]|535 ", reply)) for reply in said] == [True] * 3
    assert ferry.says("imap", good, STRANGER).startswith("a OK")
    assert ferry.says("imap", idle).startswith("a NO [UNAVAILABLE]"), "a refusal that is nobody's attack"

    rules = configparser.ConfigParser(interpolation=None)
    rules.read(ROOT / "systemd" / "fail2ban" / "filter.conf")
    pattern = re.compile(rules["Definition"]["failregex"].replace("<HOST>", r"(?P<host>[0-9a-f.:]+)"))
    found = [match["host"] for line in ferry.log.splitlines() if (match := pattern.search(line))]
    assert found == [STRANGER] * 3

    told = {row["login"]: row for row in json.loads(ferry.run("account", "list", "--json").output)}
    assert told[good.address]["state"] == "connected"
    assert told[good.address]["last_success"] is not None
    assert told[idle.address]["state"] == "sign_in_needed"
    assert told[idle.address]["remedy"] == f"Run: mailferry sign-in {idle.address}"


def test_peer_row_19_whom_it_trusts_and_where_it_listens(tmp_path: Path) -> None:
    """The rival: missing CA roots; IPv6 and localhost."""
    box = mailbox(1, "Password-of-berth-one")
    with SignInHost() as host, SignInHost() as stranger:
        host.identity.add_person(box.holder)
        with Exchange(host.certificate, starttls=False) as exchange:
            imap, pop3, smtp = (scripted_upstream(exchange, host.certificate, p) for p in ("imap", "pop3", "smtp"))
            by_default = {key: value for key, value in imap.items() if key != "ca_file"}
            another = {**pop3, "ca_file": str(stranger.certificate.ca_file)}
            upstreams = {"imap": by_default, "pop3": another, "smtp": smtp}
            with closing(QuayFerry(tmp_path, host, [box], upstreams)) as ferry:
                ferry.serve()
                ferry.sign_in_at_once(box)
                for protocol, port in ferry.ports.items():
                    for address in ("127.0.0.1", "::1"):
                        with socket.create_connection((address, port), TIMEOUT_S) as program:
                            assert program.recv(1), f"{protocol} greets at {address}"
                announce(exchange, "smtp", visit("smtp"))
                assert " / 250 " in ferry.says("smtp", box), "ca_file vouches for it"
                for protocol, refused in (("imap", "a NO [UNAVAILABLE] "), ("pop3", "-ERR [SYS/TEMP] ")):
                    (session,) = announce(exchange, protocol, visit(protocol))
                    reply = ferry.says(protocol, box)
                    assert reply.startswith(refused)
                    assert "certificate is not trusted" in reply
                    assert isinstance(session.exception(TIMEOUT_S), ssl.SSLError), "no token came"
                ferry.stop()

                ferry.environment["SSL_CERT_FILE"] = str(host.certificate.ca_file)  # OpenSSL's name for the system's
                ferry.serve()
                announce(exchange, "imap", visit("imap"))
                assert ferry.says("imap", box).startswith("a OK"), "the system's roots are trusted"
                announce(exchange, "pop3", visit("pop3"))
                assert ferry.says("pop3", box).startswith("+OK"), "and ca_file adds to them"
