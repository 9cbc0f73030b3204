"""GROUND: `listeners` and `page`: where mail programs and browsers reach us, and what is unsafe about it.

A listener that could take a password in plain text listens on loopback only, unless the person says in so many words
that it shall not, and to whom. Called by `read.py`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from proxy.config.document import Node, ScalarNode
from proxy.config.fields import Reading, Section, nearest
from proxy.config.findings import Place, quoted
from proxy.config.settings import (
    PROTOCOL_NAMES,
    Account,
    AuthFailures,
    Listener,
    ListenerTls,
    Network,
    ProtocolName,
)
from proxy.config.sources import certificate

DEFAULT_PORTS: Mapping[ProtocolName, int] = {"imap": 1143, "pop3": 1110, "smtp": 1587}
DEFAULT_PAGE = ("127.0.0.1", 8143)
DEFAULT_SOCKET = "mailferry"  # FileDescriptorName= in systemd/mailferry.socket
MAX_NETWORKS_SHOWN = 4  # a finding stays a line that a person reads
_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

Ip = IPv4Address | IPv6Address


def default_listeners() -> tuple[Listener, ...]:
    """PRODUCT section 3: one listener for each protocol, on loopback."""
    return tuple(
        Listener(
            protocol=protocol,
            address="localhost",
            port=DEFAULT_PORTS[protocol],
            tls=ListenerTls.AUTO,
            certificate=None,
            legacy_tls=False,
            require_tls=False,
            allow_from=(),
            auth_failures=_default_failures(protocol),
        )
        for protocol in PROTOCOL_NAMES
    )


def read_listener(node: Node, accounts: Mapping[str, Account], reading: Reading) -> Listener:
    """A listener; `accounts` by each login, case folded.

    Where something is wrong, a finding is told and the listener is only a stand-in.
    """
    names: Mapping[str, ProtocolName] = {name: name for name in PROTOCOL_NAMES}
    with Section(node, reading) as section:
        protocol = section.choice("protocol", names, "imap")
        if not section.has("protocol"):
            section.missing("protocol", f"write one of {', '.join(names)}")
        listener = Listener(
            protocol=protocol,
            address=_read_address(section),
            port=section.integer("port", DEFAULT_PORTS[protocol], 1, 65_535),
            tls=section.member("tls", ListenerTls, ListenerTls.AUTO),
            certificate=certificate(section, "certificate"),
            legacy_tls=section.flag("legacy_tls", False),
            require_tls=section.flag("require_tls", False),
            allow_from=section.networks("allow_from"),
            auth_failures=section.member("auth_failures", AuthFailures, _default_failures(protocol)),
            proxy_protocol=section.networks("proxy_protocol"),
            implicit_account=section.text("implicit_account") or None,
            socket=section.text("socket", DEFAULT_SOCKET),
        )
        _check_tls(section, listener)
        _check_balancers(section, listener)
        if listener.implicit_account:
            _check_implicit_account(section, listener, listener.implicit_account, accounts)
    return listener


def read_page(section: Section) -> tuple[str, int] | None:
    """Address and port of the set-up page, on loopback; None when it is off."""
    text = section.text("page", "{}:{}".format(*DEFAULT_PAGE))
    if text == "off":
        return None
    remedy = "write 127.0.0.1:PORT, localhost:PORT, [::1]:PORT or off"
    found = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})", text)
    if not found or not 1 <= int(found["port"]) <= 65_535:
        section.error(section.at("page"), f"{quoted(text)} is not host:port", remedy)
        return DEFAULT_PAGE
    host = found["v6"] or found["host"]
    if not all(ip.is_loopback for ip in _ips(host)):
        section.error(section.at("page"), f"{quoted(host)} is not loopback, and the page is for this machine", remedy)
    return host, int(found["port"])


def check_apart(claims: Iterable[tuple[str, int, Place]], reading: Reading) -> None:
    """Tell every address and port that an earlier one of these holds already."""
    held: list[tuple[str, int, Place]] = []
    for address, port, place in claims:
        for other, other_port, other_place in held:
            if port == other_port and _overlap(_ips(address), _ips(other)):
                reading.report.error(
                    place,
                    f"{address} port {port} is taken by {other_place.key} ({other_place})",
                    "choose another port",
                )
                break
        held.append((address, port, place))


def _default_failures(protocol: ProtocolName) -> AuthFailures:
    """CLIENTS 3.3."""
    return AuthFailures.DEFERRED if protocol == "smtp" else AuthFailures.HONEST


def _read_address(section: Section) -> str:
    node = section.node("address")
    text = section.text("address", "localhost")
    if isinstance(node, ScalarNode) and not _parsed(text) and text != "localhost":
        section.error(
            node.place, f"{quoted(text)} is no address", "write localhost or an IP address; 0.0.0.0 or :: for all"
        )
        return "localhost"
    return text


def _check_tls(section: Section, listener: Listener) -> None:
    local = all(ip.is_loopback for ip in _ips(listener.address))
    if listener.tls is ListenerTls.OFF and listener.require_tls:
        section.error(section.at("require_tls"), "contradicts tls: off", "write tls: starttls, auto or implicit")
    elif not local and listener.tls is not ListenerTls.IMPLICIT and not listener.require_tls:
        _check_plain(section, listener)
    if listener.legacy_tls:
        section.warning(
            section.at("legacy_tls"),
            "TLS 1.0 and 1.1 are spoken too, which are broken",
            "use it only for programs that know nothing newer",
        )


def _check_plain(section: Section, listener: Listener) -> None:
    """Plain text on a network: for devices that know no TLS (CLIENTS 5.2), if the person wants it and says for whom."""
    if section.has("require_tls") and _is_closed(section, listener):
        section.warning(
            section.at("require_tls"),
            f"passwords and mail can cross the network in plain text; who may connect: {_clients(listener)}",
            "keep it for devices that know no TLS, and give each a password of its own",
        )
    else:
        section.error(
            section.at("tls"),
            f"passwords could cross the network in plain text: tls is {listener.tls.value}, {listener.address} is not"
            " loopback",
            "write require_tls: true with tls: auto or starttls, or tls: implicit, or address: localhost; or, for"
            " devices without TLS: require_tls: false with allow_from, for less than everybody",
        )


def _check_balancers(section: Section, listener: Listener) -> None:
    for network in listener.proxy_protocol:
        if _is_everybody(network):
            section.error(
                section.at("proxy_protocol"),
                f"{network} is everybody, and whoever is believed can claim any address",
                "list the balancers alone, as in proxy_protocol: [192.168.1.5/32]",
            )


def _check_implicit_account(section: Section, listener: Listener, login: str, accounts: Mapping[str, Account]) -> None:
    """An account that sends without a password (CLIENTS 1.3): by smtp, for networks that are named."""
    place = section.at("implicit_account")
    if listener.protocol != "smtp":
        section.error(place, f"is for smtp, and this is {listener.protocol}", "remove it, or write protocol: smtp")
        return
    closed = _is_closed(section, listener)
    if not closed:
        section.error(
            place,
            "everybody who reaches this port could send mail without a password",
            "name the devices, as in allow_from: [192.168.1.20/32]",
        )
    account = accounts.get(login.casefold())
    if account is None:
        near = nearest(login.casefold(), list(accounts))
        remedy = f"did you mean {near}?" if near else "write a login of an account under `accounts`"
        section.error(place, f"there is no sound account {quoted(login)}", remedy)
    elif "smtp" not in account.protocols:
        remedy = "add smtp to the account's protocols, or name another"
        section.error(place, f"account {quoted(account.name)} may not use smtp", remedy)
    elif closed:
        section.warning(
            place,
            f"whoever reaches this port sends mail as {account.name} without a password; who may connect:"
            f" {_clients(listener)}",
            "name no more in allow_from than the devices themselves",
        )


def _is_closed(section: Section, listener: Listener) -> bool:
    """Whether `allow_from` stands there and keeps somebody out; one that cannot be read has been told already."""
    return section.has("allow_from") and not any(map(_is_everybody, listener.allow_from))


def _is_everybody(network: Network) -> bool:
    return network.prefixlen == 0


def _clients(listener: Listener) -> str:
    """Who may connect, as a finding shows it."""
    networks = [*map(str, listener.allow_from), *(f"{network} (balancer)" for network in listener.proxy_protocol)]
    more = len(networks) - MAX_NETWORKS_SHOWN
    return ", ".join(networks[:MAX_NETWORKS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _parsed(address: str) -> Ip | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _ips(address: str) -> tuple[Ip, ...]:
    """What stands behind an address; a name that we do not know counts as everywhere."""
    if address == "localhost":
        return _LOOPBACK
    ip = _parsed(address)
    return (ip,) if ip else (IPv4Address(0), IPv6Address(0))


def _overlap(left: tuple[Ip, ...], right: tuple[Ip, ...]) -> bool:
    """Whether two listeners would meet; an unspecified address (0.0.0.0, ::) holds all of its family."""
    return any(
        one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)
        for one in left
        for other in right
    )
