"""From a configuration to the facts: which listener serves a program here, elsewhere, and a device in the corridor."""

from __future__ import annotations

import pytest

from proxy.app.programs.connection import ALL, Connection, Security
from proxy.app.programs.reach import connect, connect_anybody
from proxy.config import Config, read
from tests.app.home import ALICE, APPLICATION_ID, Home
from tests.app.programs.facts import AUTHORITY

HASH = "$scrypt$ln=14,r=8,p=1$SYllsO5EfStcpu9dSsj8DQ$RSUcpKWQEz9kPsDdoVtou97y3Gy3fD5/b3+0aKCJCfE"
PLAIN, STARTTLS, TLS = Security.PLAIN, Security.STARTTLS, Security.TLS
LOCAL = "{protocol: imap, address: localhost, port: 1143}"
LAN = "{protocol: imap, address: 192.168.1.10, port: 1993, tls: implicit}"


def config(home: Home, *listeners: str, more: str = "", account: str = "") -> Config:
    listed = "".join(f"  - {each}\n" for each in listeners)
    home.file.write_text(
        f"state_dir: {home.state_dir}\n{more}\n"
        + (f"listeners:\n{listed}" if listeners else "")
        + f"apps:\n  work: {{application_id: {APPLICATION_ID}, account_types: organizations}}\n"
        f'accounts:\n  - {{login: [{ALICE}, al], app: work, password: "{HASH}"{account}}}\n'
    )
    return read(home.file, {}).config


def reached(config: Config, host: str = "", *, private: bool = False) -> Connection:
    return connect(config, config.accounts[0], AUTHORITY, host=host, private=private)


def test_the_defaults(home: Home) -> None:
    facts = reached(config(home))
    assert (facts.login, facts.mailbox, facts.authority) == (ALICE, ALICE, AUTHORITY)
    assert {name: each.port for name, each in facts.entrances.items()} == {"imap": 1143, "pop3": 1110, "smtp": 1587}
    for entrance in facts.entrances.values():
        assert (entrance.host, entrance.tls_host) == ("127.0.0.1", "localhost")
        assert entrance.local
        assert entrance.offers == ALL
    assert facts.page == "http://127.0.0.1:8143"
    assert (facts.missing, facts.notes, facts.device, facts.private) == ({}, (), None, False)


@pytest.mark.parametrize(
    ("tls", "offers"),
    [
        ("tls: off", (PLAIN,)),
        ("tls: starttls", (PLAIN, STARTTLS)),
        ("tls: implicit", (TLS,)),
        ("tls: auto", ALL),
        ("tls: auto, require_tls: true", (STARTTLS, TLS)),
    ],
)
def test_what_a_listener_offers(home: Home, tls: str, offers: tuple[Security, ...]) -> None:
    facts = reached(config(home, f"{{protocol: imap, address: localhost, port: 1143, {tls}}}"))
    assert facts.entrances["imap"].offers == offers


def test_what_is_missing_and_why(home: Home) -> None:
    facts = reached(config(home, LOCAL, account=", protocols: [imap, pop3]"))
    assert set(facts.entrances) == {"imap"}
    assert "No listener serves POP3" in facts.missing["pop3"]
    assert "its `protocols` are imap, pop3" in facts.missing["smtp"]


def test_on_this_machine_loopback_comes_first(home: Home) -> None:
    assert reached(config(home, LAN, LOCAL)).entrances["imap"].port == 1143
    assert reached(config(home, LAN)).entrances["imap"].port == 1993


def test_elsewhere_the_listener_that_the_network_reaches(home: Home) -> None:
    facts = reached(config(home, LOCAL, LAN), "mail.lan")
    entrance = facts.entrances["imap"]
    assert (entrance.host, entrance.tls_host, entrance.port) == ("mail.lan", "mail.lan", 1993)
    assert not entrance.local
    assert facts.private
    assert facts.notes == ()


def test_elsewhere_a_loopback_listener_is_not_reached(home: Home) -> None:
    (note,) = reached(config(home, LOCAL), "mail.lan").notes
    assert "this machine alone" in note
    assert reached(config(home, LOCAL), "localhost").notes == ()


@pytest.mark.parametrize(
    ("address", "hostname", "hosts"),
    [
        ("127.0.0.1", "localhost", ("127.0.0.1", "localhost")),
        ('"::1"', "localhost", ("::1", "localhost")),
        ("192.168.1.10", "localhost", ("192.168.1.10", "192.168.1.10")),
        ("192.168.1.10", "mail.lan", ("mail.lan", "mail.lan")),
        ("0.0.0.0", "localhost", ("127.0.0.1", "localhost")),
        ("0.0.0.0", "mail.lan", ("mail.lan", "mail.lan")),
        ("127.0.0.1", "mail.lan", ("127.0.0.1", "localhost")),
    ],
)
def test_by_which_name(home: Home, address: str, hostname: str, hosts: tuple[str, str]) -> None:
    listener = f"{{protocol: imap, address: {address}, port: 1993, tls: implicit}}"
    entrance = reached(config(home, listener, more=f"hostname: {hostname}")).entrances["imap"]
    assert (entrance.host, entrance.tls_host) == hosts


def test_a_certificate_that_does_not_name_the_address_is_noted(home: Home) -> None:
    (note,) = reached(config(home, LAN)).notes
    assert "`hostname:`" in note
    assert reached(config(home, LAN, more="hostname: mail.lan")).notes == ()


def test_for_all_addresses_the_note_tells_of_other_machines(home: Home) -> None:
    (note,) = reached(config(home, LAN.replace("192.168.1.10", "0.0.0.0"))).notes
    assert note.startswith("From another machine")


def test_behind_a_balancer_its_own_name_counts(home: Home) -> None:
    balanced = LAN.replace("}", ", proxy_protocol: [192.168.1.5/32]}")
    assert any("balancer" in note for note in reached(config(home, balanced)).notes)
    assert reached(config(home, balanced, LOCAL)).entrances["imap"].port == 1143


def test_private_on_this_machine(home: Home) -> None:
    assert reached(config(home), private=True).door("imap", "x").security is STARTTLS


# --- a device

DEVICE = "{protocol: smtp, address: 192.168.1.10, port: 1588, tls: auto, require_tls: true}"
SILENT = (
    "{protocol: smtp, address: 192.168.1.10, port: 1025, tls: off, require_tls: false, "
    "allow_from: [192.168.1.23/32], implicit_account: %s}"
)


def test_a_device_takes_the_listener_of_its_account(home: Home) -> None:
    silent = reached(config(home, DEVICE, SILENT % "al")).device
    assert silent is not None
    assert (silent.port, silent.login_needed, silent.host) == (1025, False, "192.168.1.10")


def test_a_device_takes_a_listener_with_logins_else(home: Home) -> None:
    facts = reached(config(home, DEVICE))
    assert facts.device is not None
    assert (facts.device.port, facts.device.login_needed) == (1588, True)


def test_a_device_is_never_sent_to_itself(home: Home) -> None:
    everywhere = DEVICE.replace("192.168.1.10", "0.0.0.0")
    for more, host, shown in (
        ("", "", "(this machine's address on the network)"),
        ("", "192.168.1.10", "192.168.1.10"),
        ("hostname: mail.lan", "", "mail.lan"),
    ):
        device = reached(config(home, everywhere, more=more), host).device
        assert device is not None
        assert (device.host, device.tls_host) == (shown, shown)


def test_a_program_never_takes_a_listener_without_logins(home: Home) -> None:
    facts = reached(config(home, SILENT % ALICE))
    assert "smtp" not in facts.entrances
    assert "No listener" in facts.missing["smtp"]


def test_an_account_that_may_not_send_has_no_device(home: Home) -> None:
    assert reached(config(home, DEVICE, account=", protocols: [imap]")).device is None


# --- whoever asks


def test_whoever_asks_learns_nothing_of_accounts(home: Home) -> None:
    with_account = config(home, account=", protocols: [imap]")
    facts = connect_anybody(with_account, AUTHORITY, "contoso.com")
    assert set(facts.entrances) == {"imap", "pop3", "smtp"}
    assert "alice" not in repr(facts)
