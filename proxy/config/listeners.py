"""GROUND: `listeners` and `page`: where mail programs and browsers reach us, and what is unsafe about it.

A listener that could take a password in plain text listens on loopback only. Called by `read.py`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from proxy.config.document import Node, ScalarNode
from proxy.config.fields import Reading, Section
from proxy.config.findings import Place, quoted
from proxy.config.settings import PROTOCOL_NAMES, AuthFailures, Listener, ListenerTls, ProtocolName
from proxy.config.sources import certificate

DEFAULT_PORTS: Mapping[ProtocolName, int] = {"imap": 1143, "pop3": 1110, "smtp": 1587}
DEFAULT_PAGE = ("127.0.0.1", 8143)
_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_NOT_SERVED = ("proxy_protocol", "implicit_account", "socket")

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


def read_listener(node: Node, reading: Reading) -> Listener:
    """A listener. Where something is wrong, a finding is told and the listener is only a stand-in."""
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
        )
        for key in _NOT_SERVED:
            section.unserved(key)
        _check_tls(section, listener)
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
        section.error(
            section.at("tls"),
            f"passwords could cross the network in plain text: tls is {listener.tls.value}, {listener.address} is not"
            " loopback",
            "write require_tls: true with tls: auto or starttls, or tls: implicit, or address: localhost",
        )
    if listener.legacy_tls:
        section.warning(
            section.at("legacy_tls"),
            "TLS 1.0 and 1.1 are spoken too, which are broken",
            "use it only for programs that know nothing newer",
        )


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
