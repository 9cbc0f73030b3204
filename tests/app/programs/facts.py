"""Connections to make settings of, for the tests of this folder. Not a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from proxy.app.programs.connection import ALL, Authority, Connection, Entrance, Security
from proxy.config.settings import ProtocolName

PEM = "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n"
AUTHORITY = Authority(Path("/var/lib/mailferry/tls/ca.pem"), PEM, "AB:CD", "2036-11-27")
PORTS: dict[ProtocolName, int] = {"imap": 1143, "pop3": 1110, "smtp": 1587}
ODD = r"""O'Brien "the \ one" 50%$HOME `id` <b>&amp; #; ]]> é"""

printable = st.text(
    st.one_of(st.sampled_from("\"'\\%$`<>&#;[]{}=é‘’ "), st.characters(codec="utf-8")), min_size=1, max_size=40
).filter(lambda text: text.isprintable() and bool(text.strip()))
"""What the configuration lets a login be."""
addresses = st.builds(
    lambda name: f"{name}@contoso.com",
    printable.map(lambda text: "".join(text.split()).replace("@", "")).filter(bool),
)


def entrance(protocol: ProtocolName, offers: tuple[Security, ...] = ALL, *, local: bool = True) -> Entrance:
    listens = f"localhost port {PORTS[protocol]}"
    host, tls_host = ("127.0.0.1", "localhost") if local else ("mail.lan", "mail.lan")
    return Entrance(protocol, host, tls_host, PORTS[protocol], offers, local, listens)


def connection(
    login: str = "alice@contoso.com",
    mailbox: str = "alice@contoso.com",
    *,
    offers: tuple[Security, ...] = ALL,
    protocols: tuple[ProtocolName, ...] = ("imap", "pop3", "smtp"),
    private: bool = False,
) -> Connection:
    return Connection(
        login=login,
        mailbox=mailbox,
        entrances={protocol: entrance(protocol, offers) for protocol in protocols},
        missing={protocol: f"{protocol} is switched off." for protocol in PORTS if protocol not in protocols},
        authority=AUTHORITY,
        private=private,
        page="http://127.0.0.1:8143",
    )


def with_device(device: Entrance | None) -> Connection:
    return replace(connection(), device=device)
