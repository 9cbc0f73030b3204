from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from proxy.config import Config, Listener
from proxy.config.settings import AuthFailures, Certificate, ListenerTls
from tests.config.conftest import Folder


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
        "     allow_from: [10.0.0.0/8, '::1'], certificate: {file: c.pem, key: k.pem}}\n"
    )
    assert config.listeners == (
        Listener(
            protocol="smtp",
            address="::",
            port=465,
            tls=ListenerTls.IMPLICIT,
            certificate=Certificate(folder.path / "c.pem", folder.path / "k.pem"),
            legacy_tls=False,
            require_tls=True,
            allow_from=(ip_network("10.0.0.0/8"), ip_network("::1/128")),
            auth_failures=AuthFailures.HONEST,
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
        "address: 127.8.9.1, tls: off",
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
    text = listener("protocol: imap, address: 0.0.0.0, tls: off, require_tls: true")
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
        ("protocol: imap, certificate: {file: nowhere.pem, key: k.pem}", "certificate.file"),
        ("protocol: imap, certificate: {key: k.pem}", "certificate.file"),
    ],
)
def test_wrong_values(folder: Folder, text: str, key: str) -> None:
    folder.write("k.pem", "")
    severity, line, at, _ = told(folder, listener(text))
    assert (severity, line, at) == ("error", 2, f"listeners[0].{key}")


@pytest.mark.parametrize("key", ["proxy_protocol: true", "implicit_account: a@b.c", "socket: imap"])
def test_what_a_later_version_will_serve(folder: Folder, key: str) -> None:
    problem = "not available in this version"
    assert told(folder, listener(f"protocol: imap, {key}")) == (
        "error",
        2,
        f"listeners[0].{key.split(':')[0]}",
        problem,
    )


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
