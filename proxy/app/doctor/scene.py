"""What the checks look at: the configuration (as far as it can be read), the environment, the daemon, whom to ask.

What it is not: a check, or a place that is changed, but for one thing: checks note there which hosts are out of reach,
so that what depends on them is not told as a second trouble. `examination.py` sets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from proxy import config as configuration
from proxy.app.answers import Answer, DeskError
from proxy.app.asking import NoDaemon, ask_daemon
from proxy.config import Account, App, Config, ConfigurationError
from proxy.config.clouds import SIGN_IN_HOSTS
from proxy.config.findings import Finding as Fault
from proxy.config.findings import Report
from proxy.config.read import gather, interpret
from proxy.config.settings import Cloud, UpstreamTls

HTTPS_PORT = 443
MAX_ACCOUNTS = 20  # examined in full when nobody is named; each takes a token and up to three logins


class Ask(Protocol):
    """A desk, wherever it is (`Counter.ask`)."""

    def __call__(self, verb: str, **arguments: Any) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A host that mailferry talks to."""

    host: str
    port: int
    use: str
    """What for: `imap`, `pop3`, `smtp` or `sign-in`."""
    tls: UpstreamTls
    ca_file: Path | None
    microsoft: bool
    """One of Microsoft's own names."""
    key: str
    """The configuration's key for further trust."""

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(slots=True)
class Scene:
    file: Path | None
    """The main file; None when there is none."""
    config: Config
    """As it holds; or, when `broken`, as far as it could be understood."""
    faults: tuple[Fault, ...]
    """What reading the configuration found, warnings too."""
    broken: bool
    environ: Mapping[str, str]
    """Of the daemon where it runs, else ours."""
    login: str | None
    """Only this account; None: all."""
    about: Mapping[str, Any] | None
    """What the daemon says of itself; None: none runs."""
    ask: Ask
    out_of_reach: set[str] = field(default_factory=set)
    """Names of places (`Place.name`) that a check found closed."""

    @property
    def running(self) -> bool:
        return self.about is not None

    @property
    def accounts(self) -> Sequence[Account]:
        """Those to be examined."""
        if self.login is None:
            return self.config.accounts[:MAX_ACCOUNTS]
        account = self.config.account(self.login)
        return [account] if account else []

    @property
    def apps(self) -> Sequence[App]:
        """Those to be examined: all, or the one of the account that was named."""
        if self.login is None:
            return list(self.config.apps.values())
        return list({account.app.name: account.app for account in self.accounts}.values())

    @property
    def places(self) -> Sequence[Place]:
        """Every host in use, each once; the default ones while there is no account or app."""
        found: dict[tuple[str, int], Place] = {}
        for app in self.apps:
            place = sign_in_place(app)
            found.setdefault((place.host, place.port), place)
        if not found:
            found["", 0] = Place(
                SIGN_IN_HOSTS[Cloud.GLOBAL], HTTPS_PORT, "sign-in", UpstreamTls.IMPLICIT, None, True, "apps: ca_file"
            )
        clouds = {account.app.cloud for account in self.accounts} or {Cloud.GLOBAL}
        wanted = {protocol for account in self.accounts for protocol in account.protocols}
        for (cloud, protocol), upstream in self.config.upstreams.items():
            if cloud in clouds and (protocol in wanted or not wanted):
                key = f"upstreams.{protocol}.ca_file"
                place = Place(
                    upstream.host, upstream.port, protocol, upstream.tls, upstream.ca_file, upstream.exchange, key
                )
                found.setdefault((place.host, place.port), place)
        return list(found.values())


def sign_in_place(app: App) -> Place:
    """Where this app's people sign in."""
    parts = urlsplit(app.authority)
    host = parts.hostname or ""
    microsoft = host in SIGN_IN_HOSTS.values()
    key = f"apps.{app.name}.ca_file"
    return Place(host, parts.port or HTTPS_PORT, "sign-in", UpstreamTls.IMPLICIT, app.ca_file, microsoft, key)


class _Lenient(Report):
    """A report that lets the reading go on to its end, whatever was found."""

    @property
    def errors(self) -> list[Fault]:
        return []


def survey(file: Path | None, environ: Mapping[str, str], login: str | None, beside: Callable[[Config], Ask]) -> Scene:
    """Read the configuration, broken or not, and see whether a daemon runs.

    `beside` gives the desk to ask of a configuration that holds. Of a broken one, only a daemon that runs is asked:
    it still works with what it read before.
    """
    try:
        loaded = configuration.read(file, environ)
        config, faults, broken = loaded.config, loaded.findings, False
    except ConfigurationError as error:
        report = _Lenient()
        config = interpret(file, gather(file, report), environ, report).config
        faults, broken = error.findings, True
    about = _about(config.state_dir)
    seen = (_environment_of(about["pid"]) if about and "pid" in about else None) or environ
    return Scene(file, config, faults, broken, seen, login, about, daemon_only(config) if broken else beside(config))


def _about(state_dir: Path) -> dict[str, Any] | None:
    try:
        return ask_daemon(state_dir, "about", {})
    except NoDaemon:
        return None
    except DeskError as error:  # it runs, but cannot or may not say
        return {"trouble": error.text}


def _environment_of(pid: int) -> Mapping[str, str] | None:
    """What the daemon was started with, where the system lets us see it; it may hold a proxy's password."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return dict(pair.decode("utf-8", "replace").split("=", 1) for pair in pairs if b"=" in pair)


def daemon_only(config: Config) -> Ask:
    """Asks the daemon that runs, and never opens an office: of a broken configuration, and from within the daemon."""

    def ask(verb: str, **arguments: Any) -> Answer:
        try:
            return ask_daemon(config.state_dir, verb, arguments)
        except NoDaemon:
            raise DeskError("No daemon runs that could be asked.") from None

    return ask
