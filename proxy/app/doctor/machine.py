"""This machine: its clock, the proxy and trust variables of the environment, descriptors, and whether a daemon runs.

What it is not: the network beyond it (`names.py`, `transport.py`). `examination.py` calls it.
"""

from __future__ import annotations

import email.utils
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from proxy.app.doctor.findings import Finding, fail, ok, warn
from proxy.app.doctor.lines import LineTrouble, Way, ask, connect, usable_way
from proxy.app.doctor.scene import Scene
from proxy.config.clouds import SIGN_IN_HOSTS
from proxy.config.settings import Cloud
from proxy.login import Fault

UNEASY_SKEW_S = 60.0
FATAL_SKEW_S = 300.0  # Entra takes no assertion further off, and a token seems to live longer or shorter than it does
DESCRIPTORS_A_SESSION = 2
FEW_DESCRIPTORS = 1024
_TRUST_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def check_daemon(scene: Scene) -> Iterator[Finding]:
    """Whether there is one, and whether it may be asked."""
    title = "Daemon"
    if scene.about is None:
        yield warn(
            "daemon",
            title,
            "No daemon runs on this state folder, so no mail program can connect.",
            Fault.MAILFERRY,
            "Start it: mailferry serve, or: systemctl start mailferry",
        )
    elif trouble := scene.about.get("trouble"):
        yield warn(
            "daemon",
            title,
            f"It runs, but cannot be asked: {trouble}",
            Fault.MAILFERRY,
            "Run this as the daemon's user; if mailferry was updated, restart the daemon.",
        )
    else:
        yield ok("daemon", title, f"It runs (process {scene.about['pid']}, version {scene.about['version']}).")


def check_clock(scene: Scene, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Against the Date header of each sign-in service; nothing is said where none answers."""
    for address, ca_file in _clocks(scene):
        host = urlsplit(address).hostname
        try:
            answer = ask(address, ca_file=ca_file, environ=scene.environ)
        except LineTrouble:
            continue  # `transport` tells why
        date = email.utils.parsedate_tz(answer.headers.get("date", ""))
        if date is None:
            continue
        skew_s = now() - email.utils.mktime_tz(date)
        if abs(skew_s) < UNEASY_SKEW_S:
            yield ok("clock", "Clock", f"It agrees with {host} ({abs(skew_s):.0f} s apart).")
        else:
            tell = fail if abs(skew_s) >= FATAL_SKEW_S else warn
            side = "ahead of" if skew_s > 0 else "behind"
            yield tell(
                "clock",
                "Clock",
                f"This machine's clock is {_span(abs(skew_s))} {side} that of {host}. "
                "Tokens and certificates then seem to be over, or not valid yet.",
                Fault.MAILFERRY,
                "Set the clock and keep it right: timedatectl set-ntp true",
            )
        return


def check_variables(scene: Scene) -> Iterator[Finding]:
    """Proxy variables, as they matter for the sign-in service; files that are to be trusted."""
    hosts = {place.host for place in scene.places if place.use == "sign-in"}
    seen: set[str] = set()
    for host in sorted(hosts):
        try:
            way = usable_way(host, scene.environ)
        except LineTrouble as trouble:
            seen.add(host)
            yield fail(
                "proxy",
                "Proxy variables",
                f"{host} {trouble.text}.",
                Fault.MAILFERRY,
                "Write http://HOST:PORT, or unset it, where mailferry is started (its systemd unit has its own).",
            )
            continue
        if way is not None and way.variable not in seen:
            seen.add(way.variable)
            yield _reached(way, host)
    if not seen and hosts:
        yield ok("proxy", "Proxy variables", "None is in the way: the sign-in service is asked directly.")
    for variable in _TRUST_VARIABLES:
        path = scene.environ.get(variable)
        if path and not os.path.exists(path):
            yield fail(
                "trust",
                f"Environment variable {variable}",
                f"It names {path}, which is not there, so no certificate can be verified.",
                Fault.MAILFERRY,
                f"Unset {variable} where mailferry is started, or name the right file.",
            )


def check_descriptors(scene: Scene) -> Iterator[Finding]:
    """How many sessions the system lets us hold."""
    told = scene.about.get("descriptors") if scene.about else None
    limit = told["limit"] if isinstance(told, dict) else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        limit = 1 << 20
    wanted = DESCRIPTORS_A_SESSION * sum(
        account.imap_connections + account.smtp_connections + 1 for account in scene.config.accounts
    )
    if limit < min(wanted, FEW_DESCRIPTORS):
        yield warn(
            "descriptors",
            "Descriptors",
            f"mailferry may hold {limit} descriptors, enough for {limit // DESCRIPTORS_A_SESSION} sessions; "
            f"its accounts may open {wanted // DESCRIPTORS_A_SESSION}.",
            Fault.MAILFERRY,
            "Raise the limit: LimitNOFILE=65536 in the systemd unit, or ulimit -Hn.",
        )
    else:
        in_use = f", {told['used']} in use" if isinstance(told, dict) else ""
        yield ok("descriptors", "Descriptors", f"{limit} allowed{in_use}; each session takes two.")


def _clocks(scene: Scene) -> Iterator[tuple[str, Path | None]]:
    yield from ((app.authority, app.ca_file) for app in scene.apps)
    if not scene.apps:
        yield f"https://{SIGN_IN_HOSTS[Cloud.GLOBAL]}/common/v2.0/.well-known/openid-configuration", None


def _reached(way: Way, host: str) -> Finding:
    title = f"Proxy variable {way.variable}"
    proxy = f"{way.host}:{way.port}"
    note = "Only the sign-in service is asked through it; mail goes to Exchange directly."
    try:
        connect(way.host, way.port).close()
    except LineTrouble as trouble:
        return fail(
            "proxy",
            title,
            f"It sends what is for {host} through the proxy {proxy}, which {trouble.text}.",
            Fault.NETWORK,
            f"Unset {way.variable} where mailferry is started, or name a proxy that answers; "
            f"NO_PROXY={host} goes around it.",
            details=[note],
        )
    return ok("proxy", title, f"{host} is asked through the proxy {proxy}, which answers.", note)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
