from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from proxy.config import Config, Listener
from proxy.config.settings import AuthFailures, Certificate, ListenerTls
from tests.config.conftest import GUID, HASH, Folder

ACCOUNTS = f"""\
apps: {{work: {{application_id: {GUID}}}}}
accounts:
- {{login: [desk@contoso.com, Scan], app: work, password: '{HASH}'}}
- {{login: reader@contoso.com, app: work, password: '{HASH}', protocols: [imap, pop3]}}
"""


def listener(text: str) -> str:
    return f"listeners:\n  - {{{text}}}\n"


def told(folder: Folder, text: str) -> tuple[str, int, str, str]:
    finding = folder.finding(text)
    return finding.severity, finding.line, finding.key, finding.problem


def test_the_defaults(folder: Folder) -> None:
    config: Config = folder.config("")
    imap = Listener(
        protocol="imap",
        address="localhost",
        port=1143,
        tls=ListenerTls.AUTO,
        certificate=None,
        legacy_tls=False,
        require_tls=False,
        allow_from=(),
        auth_failures=AuthFailures.HONEST,
    )
    assert config.listeners == (
        imap,
        replace(imap, protocol="pop3", port=1110),
        replace(imap, protocol="smtp", port=1587, auth_failures=AuthFailures.DEFERRED),
    )
    assert config.page == ("127.0.0.1", 8143)


def test_every_key(folder: Folder) -> None:
    folder.write("c.pem", "", 0o644)
    folder.write("k.pem", "")
    config = folder.config(
        "listeners:\n"
        "  - {protocol: smtp, address: '::', port: 465, tls: implicit, require_tls: true, auth_failures: honest,\n"
        "     allow_from: [10.0.0.0/8, '::1'], certificate: {file: c.pem, key: k.pem}, legacy_tls: true,\n"
        "     proxy_protocol: [10.0.0.5, 'fd00::/64'], implicit_account: SCAN}\n" + ACCOUNTS
    )
    assert config.listeners == (
        Listener(
            protocol="smtp",
            address="::",
            port=465,
            tls=ListenerTls.IMPLICIT,
            certificate=Certificate(folder.path / "c.pem", folder.path / "k.pem"),
            legacy_tls=True,
            require_tls=True,
            allow_from=(ip_network("10.0.0.0/8"), ip_network("::1/128")),
            auth_failures=AuthFailures.HONEST,
            proxy_protocol=(ip_network("10.0.0.5/32"), ip_network("fd00::/64")),
            implicit_account="SCAN",
        ),
    )


@pytest.mark.parametrize("tls", ["off", "starttls", "auto"])
@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.2", "'::'"])
def test_plain_text_off_loopback_is_refused(folder: Folder, tls: str, address: str) -> None:
    severity, line, key, problem = told(folder, listener(f"protocol: imap, address: {address}, tls: {tls}"))
    assert (severity, line, key) == ("error", 2, "listeners[0].tls")
    assert problem.startswith("passwords could cross the network in plain text")


@pytest.mark.parametrize(
    "text",
    [
        "allow_from: 192.168.1.0/24",
        "require_tls: false",
        "require_tls: false, allow_from: [192.168.1.0/24, 0.0.0.0/0]",
        "require_tls: false, allow_from: '::/0'",
        "require_tls: false, proxy_protocol: 192.168.1.5",
        "require_tls: , allow_from: 192.168.1.0/24",
        "tls: off, allow_from: 192.168.1.0/24",
        "tls: off, require_tls: false",
    ],
)
def test_plain_text_off_loopback_takes_two_keys_and_not_everybody(folder: Folder, text: str) -> None:
    finding = folder.finding(listener(f"protocol: smtp, address: 192.168.1.2, {text}"))
    assert (finding.severity, finding.line, finding.key) == ("error", 2, "listeners[0].tls")
    assert finding.problem.startswith("passwords could cross the network in plain text")
    assert "for devices without TLS: require_tls: false with allow_from" in finding.remedy


@pytest.mark.parametrize("tls", ["off", "starttls", "auto"])
@pytest.mark.parametrize("protocol", ["imap", "pop3", "smtp"])
def test_plain_text_off_loopback_for_those_who_are_named_is_a_warning(folder: Folder, protocol: str, tls: str) -> None:
    row = f"protocol: {protocol}, address: 0.0.0.0, tls: {tls}, require_tls: false"
    assert told(folder, listener(f"{row}, allow_from: [192.168.1.20, 10.0.0.0/8], proxy_protocol: 10.1.1.1")) == (
        "warning",
        2,
        "listeners[0].require_tls",
        "passwords and mail can cross the network in plain text; who may connect: 192.168.1.20/32, 10.0.0.0/8,"
        " 10.1.1.1/32 (balancer)",
    )


def test_a_warning_does_not_show_every_network(folder: Folder) -> None:
    networks = ", ".join(f"10.0.0.{last}" for last in range(1, 8))
    row = f"protocol: smtp, address: 0.0.0.0, require_tls: false, allow_from: [{networks}]"
    assert told(folder, listener(row))[3].endswith(": 10.0.0.1/32, 10.0.0.2/32, 10.0.0.3/32, 10.0.0.4/32 and 3 more")


def test_networks_that_cannot_be_read_are_told_once(folder: Folder) -> None:
    row = "protocol: smtp, address: 0.0.0.0, require_tls: false, allow_from: [192.168.1.20/24]"
    errors = [each for each in folder.findings(listener(row)) if each.severity == "error"]
    assert [each.key for each in errors] == ["listeners[0].allow_from[0]"]


@pytest.mark.parametrize(
    "text",
    [
        "address: 127.8.9.1, tls: off",
        "address: localhost, require_tls: false",
        "address: 0.0.0.0, tls: implicit, require_tls: false",
        "address: localhost, proxy_protocol: [127.0.0.1, '::1']",
        "address: 0.0.0.0, tls: implicit, proxy_protocol: 10.0.0.5",
        "address: '::1', tls: starttls",
        "address: localhost, tls: auto",
        "address: 0.0.0.0, tls: implicit",
        "address: 0.0.0.0, tls: auto, require_tls: true",
        "address: '::', tls: starttls, require_tls: true",
    ],
)
def test_what_keeps_passwords_safe_is_taken(folder: Folder, text: str) -> None:
    assert folder.findings(listener(f"protocol: imap, {text}")) == []


def test_tls_cannot_be_required_and_off(folder: Folder) -> None:
    text = listener("protocol: imap, address: 0.0.0.0, tls: off, require_tls: true, allow_from: 10.0.0.0/8")
    assert told(folder, text) == ("error", 2, "listeners[0].require_tls", "contradicts tls: off")


def test_old_tls_is_a_warning(folder: Folder) -> None:
    severity, line, key, _ = told(folder, listener("protocol: imap, legacy_tls: true"))
    assert (severity, line, key) == ("warning", 2, "listeners[0].legacy_tls")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("port: 1143", "protocol"),
        ("protocol: nntp", "protocol"),
        ("protocol: imap, address: mail.example.com", "address"),
        ("protocol: imap, address: '[::1]'", "address"),
        ("protocol: imap, port: 65536", "port"),
        ("protocol: imap, port: 0", "port"),
        ("protocol: imap, tls: ssl", "tls"),
        ("protocol: imap, auth_failures: never", "auth_failures"),
        ("protocol: imap, allow_from: everywhere", "allow_from"),
        ("protocol: imap, proxy_protocol: true", "proxy_protocol"),
        ("protocol: imap, proxy_protocol: haproxy.lan", "proxy_protocol"),
        ("protocol: imap, proxy_protocol: []", "proxy_protocol"),
        ("protocol: smtp, allow_from: 10.0.0.1, implicit_account: [a@b.c]", "implicit_account"),
        ("protocol: imap, certificate: {file: nowhere.pem, key: k.pem}", "certificate.file"),
        ("protocol: imap, certificate: {key: k.pem}", "certificate.file"),
    ],
)
def test_wrong_values(folder: Folder, text: str, key: str) -> None:
    folder.write("k.pem", "")
    severity, line, at, _ = told(folder, listener(text))
    assert (severity, line, at) == ("error", 2, f"listeners[0].{key}")


def test_balancers_are_a_list_of_networks(folder: Folder) -> None:
    finding = folder.finding(listener("protocol: imap, proxy_protocol: true"))
    assert finding.problem == "is 'true'"
    assert "proxy_protocol: [192.168.1.0/24]" in finding.remedy


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_not_everybody_is_a_balancer(folder: Folder, network: str) -> None:
    assert told(folder, listener(f"protocol: imap, proxy_protocol: [127.0.0.1, '{network}']")) == (
        "error",
        2,
        "listeners[0].proxy_protocol",
        f"{network} is everybody, and whoever is believed can claim any address",
    )


@pytest.mark.parametrize("login", ["desk@contoso.com", "Desk@Contoso.com", "scan"])
def test_an_account_for_devices_that_never_log_in_is_a_warning(folder: Folder, login: str) -> None:
    row = f"protocol: smtp, implicit_account: {login}, allow_from: [127.0.0.1, '::1'], proxy_protocol: 127.0.0.2"
    assert told(folder, listener(row) + ACCOUNTS) == (
        "warning",
        2,
        "listeners[0].implicit_account",
        "whoever reaches this port sends mail as desk@contoso.com without a password; who may connect: 127.0.0.1/32,"
        " ::1/128, 127.0.0.2/32 (balancer)",
    )


def test_the_account_for_devices_may_stand_in_conf_d(folder: Folder) -> None:
    folder.write("conf.d/desk.yaml", ACCOUNTS)
    [served] = folder.config(listener("protocol: smtp, implicit_account: scan, allow_from: 10.0.0.1")).listeners
    assert served.implicit_account == "scan"


def test_a_scanner_that_knows_neither_tls_nor_auth(folder: Folder) -> None:
    row = (
        "protocol: smtp, address: 192.168.1.2, tls: off, require_tls: false, allow_from: 192.168.1.20,"
        " implicit_account: scan"
    )
    assert [(each.severity, each.key) for each in folder.findings(listener(row) + ACCOUNTS)] == [
        ("warning", "listeners[0].require_tls"),
        ("warning", "listeners[0].implicit_account"),
    ]


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        (
            "protocol: imap, implicit_account: scan, allow_from: 10.0.0.1",
            "is for smtp, and this is imap",
            "remove it, or write protocol: smtp",
        ),
        (
            "protocol: smtp, implicit_account: scan",
            "everybody who reaches this port could send mail without a password",
            "name the devices, as in allow_from: [192.168.1.20/32]",
        ),
        (
            "protocol: smtp, implicit_account: scan, allow_from: [10.0.0.1, '::/0'], proxy_protocol: 10.0.0.2",
            "everybody who reaches this port could send mail without a password",
            "name the devices, as in allow_from: [192.168.1.20/32]",
        ),
        (
            "protocol: smtp, implicit_account: DESKS@contoso.com, allow_from: 10.0.0.1",
            "there is no sound account 'DESKS@contoso.com'",
            "did you mean desk@contoso.com?",
        ),
        (
            "protocol: smtp, implicit_account: x, allow_from: 10.0.0.1",
            "there is no sound account 'x'",
            "write a login of an account under `accounts`",
        ),
        (
            "protocol: smtp, implicit_account: reader@contoso.com, allow_from: 10.0.0.1",
            "account 'reader@contoso.com' may not use smtp",
            "add smtp to the account's protocols, or name another",
        ),
    ],
)
def test_who_cannot_send_without_a_password(folder: Folder, text: str, problem: str, remedy: str) -> None:
    finding = folder.finding(listener(text) + ACCOUNTS)
    assert (finding.severity, finding.line, finding.key) == ("error", 2, "listeners[0].implicit_account")
    assert (finding.problem, finding.remedy) == (problem, remedy)


def test_sockets_of_systemds_have_a_name(folder: Folder) -> None:
    assert folder.config("").listeners[0].socket == "mailferry"
    assert folder.config(listener("protocol: imap, socket: doors")).listeners[0].socket == "doors"


def test_a_certificate_that_systemd_hands_over(folder: Folder) -> None:
    text = listener("protocol: imap, certificate: {credential: mail}")
    assert told(folder, text)[2:] == (
        "listeners[0].certificate.credential",
        "there are no credentials: $CREDENTIALS_DIRECTORY is not set",
    )
    folder.environ["CREDENTIALS_DIRECTORY"] = str(folder.path / "given")
    folder.write("given/mail.pem", "", 0o440)
    assert "no credential 'mail.key'" in told(folder, text)[3]
    folder.write("given/mail.key", "", 0o440)  # as systemd does it: an access list says who may
    own = Certificate(folder.path / "given/mail.pem", folder.path / "given/mail.key")
    assert folder.config(text).listeners[0].certificate == own
    both = listener("protocol: imap, certificate: {credential: mail, key: k.pem}")
    assert told(folder, both)[2:] == ("listeners[0].certificate.key", "stands beside a credential")


def test_a_key_that_others_can_read(folder: Folder) -> None:
    folder.write("c.pem", "")
    key = folder.write("k.pem", "", 0o644)
    severity, line, at, problem = told(folder, listener("protocol: imap, certificate: {file: c.pem, key: k.pem}"))
    assert (severity, line, at) == ("error", 2, "listeners[0].certificate.key")
    assert problem == f"{key} is not private: others on this machine can read or change it (mode 0644)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("localhost", "127.0.0.1"),
        ("localhost", "'::1'"),
        ("localhost", "localhost"),
        ("0.0.0.0", "10.0.0.1"),
        ("'::'", "localhost"),
    ],
)
def test_two_listeners_cannot_share_a_port(folder: Folder, one: str, other: str) -> None:
    tls = "port: 2000, tls: implicit"
    found = told(
        folder,
        f"listeners:\n- {{protocol: imap, address: {one}, {tls}}}\n- {{protocol: pop3, address: {other}, {tls}}}\n",
    )
    address = other.strip("'")
    assert found == (
        "error",
        3,
        "listeners[1]",
        f"{address} port 2000 is taken by listeners[0] ({folder.main}:2)",
    )


def test_other_addresses_or_ports_are_apart(folder: Folder) -> None:
    rows = ["127.0.0.1, port: 1", "127.0.0.2, port: 1", "'::1', port: 1", "127.0.0.1, port: 2"]
    text = "listeners:\n" + "".join(f"- {{protocol: imap, address: {row}}}\n" for row in rows)
    assert [(each.address, each.port) for each in folder.config(text).listeners] == [
        ("127.0.0.1", 1),
        ("127.0.0.2", 1),
        ("::1", 1),
        ("127.0.0.1", 2),
    ]


def test_the_page_cannot_share_a_port_either(folder: Folder) -> None:
    found = told(folder, "page: localhost:1587\n")
    assert found == ("error", 1, "page", f"localhost port 1587 is taken by listeners ({folder.main}:1)")


@pytest.mark.parametrize(
    ("text", "page"),
    [("off", None), ("localhost:1", ("localhost", 1)), ("'[::1]:80'", ("::1", 80)), ("127.0.0.2:9", ("127.0.0.2", 9))],
)
def test_where_the_page_is(folder: Folder, text: str, page: tuple[str, int] | None) -> None:
    assert folder.config(f"page: {text}\n").page == page


@pytest.mark.parametrize(
    "text", ["0.0.0.0:80", "example.com:80", "'[::]:80'", "80", "localhost:0", "localhost:99999", "'::1:80'"]
)
def test_where_the_page_cannot_be(folder: Folder, text: str) -> None:
    assert told(folder, f"hostname: x\npage: {text}\n")[:3] == ("error", 2, "page")


def test_no_listener_at_all_is_a_warning(folder: Folder) -> None:
    assert told(folder, "listeners: []\n") == ("warning", 1, "listeners", "there is no listener")
