"""A connection with TLS to each host that mailferry talks to, as the daemon would make it; nobody logs in.

Where a certificate does not verify, the chain that was shown is told: on the way to Microsoft its issuer is the name of
whatever opens TLS in between. `examination.py` calls it.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator

from proxy.app.doctor.certificates import Shown, read_chain
from proxy.app.doctor.findings import Finding, fail, ok
from proxy.app.doctor.lines import LineTrouble, chain_of, secured, usable_way
from proxy.app.doctor.scene import Place, Scene
from proxy.config.settings import UpstreamTls
from proxy.login import Fault

CHECK = "tls"
PRIVATE_PORTS = {"imap": "outgoing TCP port 993", "pop3": "outgoing TCP port 995", "smtp": "outgoing TCP port 587"}


def check_place(scene: Scene, place: Place) -> Iterator[Finding]:
    """TCP and TLS to this host. What fails is noted, so that it is not told again."""
    if place.name in scene.out_of_reach:
        return
    title = f"{_NAMES[place.use]} at {place.name}"
    starttls = place.use if place.tls is UpstreamTls.STARTTLS else ""
    began = time.monotonic()
    try:
        way = usable_way(place.host, scene.environ) if place.use == "sign-in" else None
        with secured(place.host, place.port, ca_file=place.ca_file, starttls=starttls, way=way) as line:
            version = line.version() or "TLS"
            chain = read_chain(chain_of(line))
    except LineTrouble as trouble:
        scene.out_of_reach.add(place.name)
        yield _told(place, title, trouble)
        return
    took_ms = (time.monotonic() - began) * 1000
    issuer = [f"Its certificate is issued by {chain[0].issuer}, valid to {chain[0].ends:%Y-%m-%d}."] if chain else []
    how = "after STARTTLS" if starttls else "at once"
    yield ok(
        CHECK, title, f"It answers, with {version} {how}, and its certificate is good ({took_ms:.0f} ms).", *issuer
    )


_NAMES = {"imap": "IMAP", "pop3": "POP3", "smtp": "Sending", "sign-in": "Sign-in service"}


def _told(place: Place, title: str, trouble: LineTrouble) -> Finding:
    match trouble.kind:
        case "certificate":
            return _distrusted(place, title, trouble)
        case "refused":
            remedy = (
                "See what on the way refuses it: a firewall, a filter for spam (port 587), a VPN."
                if place.microsoft
                else f"See that the server runs there, and that host and port are right ({_section(place)})."
            )
        case "timeout" | "unreachable":
            port = PRIVATE_PORTS.get(place.use, "outgoing TCP port 443")
            remedy = f"Have the firewall let {port} out to {place.host}; check this machine's network."
        case "proxy":
            remedy = "See to the proxy, or to the variable that names it, where mailferry is started."
        case "starttls":
            remedy = (
                "Something on the way takes STARTTLS out of the conversation, as some firewalls and virus scanners do: "
                "have it leave this connection alone."
                if place.microsoft
                else f"Check port and tls ({_section(place)}): implicit for TLS from the first byte, else starttls."
            )
        case "tls":
            remedy = f"Check port and tls ({_section(place)}); if they are right, something on the way meddles with it."
        case "name":
            remedy = "See to this machine's DNS server."
        case _:
            remedy = f"Try again; if it stays, see what stands between this machine and {place.host}."
    fault = Fault.MAILFERRY if "readable PEM" in trouble.text else Fault.NETWORK
    if fault is Fault.MAILFERRY:
        remedy = f"Name a readable PEM file ({place.key})."
    return fail(CHECK, title, f"{place.host} {trouble.text}.", fault, remedy)


def _distrusted(place: Place, title: str, trouble: LineTrouble) -> Finding:
    chain = read_chain(trouble.chain)
    details = [f"Shown: {each}." for each in chain] or [f"OpenSSL says: {trouble.text}."]
    said, now = trouble.text.casefold(), datetime.datetime.now(datetime.UTC)
    own = chain[0] if chain else None
    if "mismatch" in said or "not valid for" in said:
        names = ", ".join(own.names) if own and own.names else "another name"
        cause = f"The certificate shown there is for {names}, not for {place.host}."
        remedy = (
            "Something answers in Microsoft's place: a network's log-in page or a filter. Open a web page and log in "
            "there, or ask who runs the network."
            if place.microsoft
            else f"Write the name that the certificate bears ({_section(place)}.host), or have it show this one."
        )
        return fail(CHECK, title, cause, Fault.NETWORK, remedy, details=details)
    if own and ("expired" in said or "not yet valid" in said):
        when = f"ended on {own.ends:%Y-%m-%d}" if own.ends < now else f"begins on {own.begins:%Y-%m-%d}"
        cause = f"Its certificate {when}, and this machine's clock says {now:%Y-%m-%d %H:%M} UTC."
        remedy = "Check this machine's clock (timedatectl); if it is right, whoever runs that server must renew it."
        return fail(CHECK, title, cause, Fault.NETWORK, remedy, details=details)
    return _unknown_issuer(place, title, trouble, own, details)


def _unknown_issuer(place: Place, title: str, trouble: LineTrouble, own: Shown | None, details: list[str]) -> Finding:
    who = own.issuer if own else "somebody unknown"
    if place.microsoft:
        cause = (
            f"Its certificate is issued by {who}, not by an authority that Microsoft uses: something between this "
            "machine and Microsoft opens the TLS (a virus scanner, a firewall that inspects TLS)."
        )
        remedy = (
            f"Have it leave {place.host} alone; or, if that is the organisation's will, write its authority's PEM file "
            f"into {place.key}."
        )
        return fail(CHECK, title, cause, Fault.NETWORK, remedy, "administrator", details)
    cause = f"Its certificate is issued by {who}, whom this machine does not trust ({trouble.text})."
    remedy = (
        f"If it is your own authority's, write its PEM file into {place.key}. If you do not know it, something opens "
        "the TLS on the way (a virus scanner, a firewall): have it leave this host alone."
    )
    return fail(CHECK, title, cause, Fault.NETWORK, remedy, details=details)


def _section(place: Place) -> str:
    return place.key.rpartition(".")[0] or "upstreams"
