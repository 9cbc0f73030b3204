"""GROUND: the configuration as frozen values (PRODUCT section 3); the rest of the program sees no raw YAML."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, cast

Network = IPv4Network | IPv6Network
ProtocolName = Literal["imap", "pop3", "smtp"]
PROTOCOL_NAMES: tuple[ProtocolName, ...] = ("imap", "pop3", "smtp")
LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")  # `localhost` means both: Windows and Java try ::1 first
LOOPBACK_NAMES = ("localhost", *LOOPBACK_ADDRESSES)


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that is never printed."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: a certificate chain and its private key."""

    file: Path
    key: Path


class ListenerTls(enum.Enum):
    OFF = "off"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    AUTO = "auto"
    """Plain, STARTTLS and TLS on one port: the first bytes decide."""


class UpstreamTls(enum.Enum):
    IMPLICIT = "implicit"
    STARTTLS = "starttls"


class AuthFailures(enum.Enum):
    HONEST = "honest"
    DEFERRED = "deferred"


class Flow(enum.Enum):
    DELEGATED = "delegated"
    APP_ONLY = "app_only"


class Cloud(enum.Enum):
    GLOBAL = "global"
    GCC_HIGH = "gcc_high"
    DOD = "dod"
    CHINA = "china"


@dataclass(frozen=True, slots=True)
class Listener:
    protocol: ProtocolName
    address: str
    """An IP address, or `localhost` for both loopback families."""
    port: int
    tls: ListenerTls
    certificate: Certificate | None
    """None: the one that our local CA made."""
    legacy_tls: bool
    """TLS 1.0 and 1.1 are spoken too."""
    require_tls: bool
    allow_from: tuple[Network, ...]
    """Empty: from anywhere that reaches the address."""
    auth_failures: AuthFailures
    proxy_protocol: tuple[Network, ...] = ()
    """Balancers: whoever connects from here says a PROXY header first, and is believed."""
    implicit_account: str | None = None
    """SMTP: the login of the account that sends for devices which never log in; only with `allow_from`."""
    socket: str = "mailferry"
    """The name of the sockets that systemd may hold for us at this address and port."""


@dataclass(frozen=True, slots=True)
class App:
    """An Entra app registration."""

    name: str
    application_id: str
    account_types: str
    authority: str
    """The whole authority address, e.g. `https://login.microsoftonline.com/organizations`."""
    own_authority: bool
    """The authority was given by the person: msal must not ask Microsoft whether it is one of theirs."""
    client_secret: Secret | None
    certificate: Certificate | None
    flow: Flow
    cloud: Cloud
    redirect_uri: str
    enabled: bool
    ca_file: Path | None
    """Further trust for the sign-in service's certificate; None: the system's."""
    client_secret_expires: datetime.date | None = None
    """The day that the portal shows beside the secret; None: nobody told."""


@dataclass(frozen=True, slots=True)
class LocalPassword:
    """One password of an account, as a scrypt PHC string."""

    hash: str = field(repr=False)
    name: str
    """The device it was made for; `main` for the account's first."""
    protocols: tuple[ProtocolName, ...]
    networks: tuple[Network, ...]
    """Empty: from anywhere."""


@dataclass(frozen=True, slots=True)
class Account:
    logins: tuple[str, ...]
    """What mail programs send, in any case; the first is the account's name everywhere."""
    app: App
    passwords: tuple[LocalPassword, ...]
    mailbox: str
    sign_in: str
    protocols: tuple[ProtocolName, ...]
    imap_connections: int
    smtp_connections: int
    messages_per_minute: int

    @property
    def name(self) -> str:
        return self.logins[0]

    @property
    def identity(self) -> str:
        """Whose grant this is: accounts of one app and one sign-in share their token (case folded)."""
        who = "" if self.app.flow is Flow.APP_ONLY else self.sign_in.casefold()
        return f"{self.app.name}/{who}"

    def connections(self, protocol: str) -> int:
        """How many sessions this account may have upstream at once (CLIENTS 4: POP3 locks the mailbox)."""
        return {"imap": self.imap_connections, "smtp": self.smtp_connections}.get(protocol, 1)

    def sessions_per_minute(self, protocol: str) -> int | None:
        """How many may begin in a minute; None: as many as like (FACTS 3.1: Exchange counts messages alone)."""
        return {"smtp": self.messages_per_minute}.get(protocol)


@dataclass(frozen=True, slots=True)
class Upstream:
    host: str
    port: int
    tls: UpstreamTls
    ca_file: Path | None
    exchange: bool = False
    """One of Microsoft's own hosts: what it offers is known before the first login."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the store's key is: a file (made on first start when `created`), or a systemd credential's file."""

    file: Path
    created: bool
    keyring: bool = False
    """It is in the desktop's keyring, and `file` is only its name there."""


@dataclass(frozen=True, slots=True)
class Log:
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class Notify:
    """Who is told when an account needs somebody."""

    command: tuple[str, ...] = ()
    """A program and its arguments; empty: none."""
    webhook: Secret | None = None
    """An address that a note is posted to; whoever knows it can post there too."""


@dataclass(frozen=True, slots=True)
class Config:
    file: Path | None
    """The main file; None when there is none and defaults hold."""
    state_dir: Path
    hostname: str
    listeners: tuple[Listener, ...]
    apps: Mapping[str, App]
    accounts: tuple[Account, ...]
    upstreams: Mapping[tuple[Cloud, ProtocolName], Upstream]
    """One for every cloud and protocol; what the person wrote under `upstreams` stands for all clouds."""
    key: KeySource
    log: Log
    page: tuple[str, int] | None = None
    """Loopback address and port of the set-up page, /health and /metrics; None: off."""
    notify: Notify = Notify()

    def account(self, login: str) -> Account | None:
        """Whose login this is, in any case."""
        wanted = login.casefold()
        return next((one for one in self.accounts if wanted in map(str.casefold, one.logins)), None)

    def upstream(self, account: Account, protocol: str) -> Upstream:
        """The upstream of this account's protocol."""
        return self._upstream(account.app.cloud, protocol)

    def only_upstream(self, protocol: str) -> Upstream | None:
        """The upstream that every account has for this protocol; None if they differ."""
        clouds = {account.app.cloud for account in self.accounts} or {Cloud.GLOBAL}
        upstreams = {self._upstream(cloud, protocol) for cloud in clouds}
        return upstreams.pop() if len(upstreams) == 1 else None

    def _upstream(self, cloud: Cloud, protocol: str) -> Upstream:
        return self.upstreams[cloud, cast("ProtocolName", protocol)]
