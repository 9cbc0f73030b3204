"""Names: whether each host has an address, and whether IPv6 leads anywhere.

What it is not: TLS or anything said over a connection (`transport.py`). `examination.py` calls it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from proxy.app.doctor.findings import Finding, fail, ok, warn
from proxy.app.doctor.lines import LineTrouble, connect, usable_way
from proxy.app.doctor.scene import Place, Scene
from proxy.login import Fault

MAX_ADDRESSES = 6  # shown of a host


def check_names(scene: Scene) -> Iterator[Finding]:
    """Every host that is asked directly: what is behind a proxy, the proxy looks up."""
    found: dict[str, list[str]] = {}
    nameless: list[Place] = []
    for place in scene.places:
        if place.host in found or _literal(place.host) or behind_proxy(scene, place):
            continue
        found[place.host] = _addresses(place.host)
        if not found[place.host]:
            scene.out_of_reach |= {each.name for each in scene.places if each.host == place.host}
            nameless.append(place)
    yield from _nameless(nameless)
    known = [host for host, addresses in found.items() if addresses]
    if known:
        details = [f"{host}: {', '.join(found[host][:MAX_ADDRESSES])}" for host in known]
        yield ok("dns", "Names", f"{_listed(known)} {'has' if len(known) == 1 else 'have'} addresses.", *details)
    yield from _check_ipv6([place for place in scene.places if any(":" in each for each in found.get(place.host, ()))])


def behind_proxy(scene: Scene, place: Place) -> bool:
    """Whether this host is asked through the environment's proxy."""
    try:
        return place.use == "sign-in" and usable_way(place.host, scene.environ) is not None
    except LineTrouble:
        return True


def _nameless(places: list[Place]) -> Iterator[Finding]:
    """Microsoft's names have addresses, so they are told as one trouble of this machine; others may be misspelt."""
    if theirs := [place.host for place in places if place.microsoft]:
        yield fail(
            "dns",
            "Names",
            f"This machine finds no address for {_listed(theirs)}; they are Microsoft's, and have many.",
            Fault.NETWORK,
            f"See that this machine is online, and to its DNS server (resolvectl query {theirs[0]}).",
        )
    for place in places:
        if not place.microsoft:
            section = place.key.rpartition(".")[0]
            key = f"{section}.{'authority' if place.use == 'sign-in' else 'host'}"
            yield fail(
                "dns",
                f"Name {place.host}",
                f"There is no address for {place.host}.",
                Fault.NETWORK,
                f"Check the spelling of {key} in the configuration; if it is right, see to this machine's DNS server.",
            )


def _check_ipv6(places: list[Place]) -> Iterator[Finding]:
    """IPv6 that is announced but leads nowhere: FACTS 2.3 knows it as a cause of odd refusals."""
    broken, good = [], []
    for place in places:
        try:
            connect(place.host, place.port, socket.AF_INET6).close()
        except LineTrouble as trouble:
            if _by_ipv4(place):
                broken.append((place, trouble))
        else:
            good.append(place)
    if broken and not good and any(each.kind == "timeout" for _, each in broken):
        place, kept = broken[0]
        yield warn(
            "ipv6",
            "IPv6",
            f"{place.host} has IPv6 addresses, but by them it {kept.text}; IPv4 works. Each login loses a moment.",
            Fault.NETWORK,
            "Mend this machine's IPv6, or switch it off: sysctl net.ipv6.conf.all.disable_ipv6=1",
        )
    elif good:
        yield ok("ipv6", "IPv6", f"It leads to {_listed([place.host for place in good])}.")
    elif broken:
        yield ok("ipv6", "IPv6", "This machine has none that leads out; IPv4 is used.")


def _by_ipv4(place: Place) -> bool:
    try:
        connect(place.host, place.port, socket.AF_INET).close()
    except LineTrouble:
        return False
    return True


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _listed(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
