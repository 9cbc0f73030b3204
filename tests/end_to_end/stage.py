"""Where the wire scripts are played: a daemon, the scripted Exchange behind it, and whose turn it is. Not a test.

Scripts are played at once in many threads. What they share at Exchange is a protocol's port, and what the daemon
learnt there at the last login; whoever needs one of these takes the protocol's turn for as long.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

from proxy.demo.certificates import local_certificate
from proxy.login import Bearer
from proxy.protocols.dialogue import FrontSettings, Ready
from tests.end_to_end.exchange import OFFERS, Exchange, Part, Verdict, Wire, masked, part
from tests.end_to_end.ferry import APP, Ferry
from tests.servers.child import free_port, open_folder
from tests.servers.mailhost import MailHost, Person, RememberingIdentity

PROTOCOLS = tuple(OFFERS)
PROGRAM = "127.0.0.1"  # whence plain right logins come
LOOPBACK = IPv4Address("127.0.1.0")  # each script has an address of its own behind this one
MANY = 10_000  # no limit of an account is in the way
SCRYPT = {"n": 1 << 10, "r": 1, "p": 1}  # as cheap as the configuration allows
TLS: dict[str, dict[str, object]] = {
    "off": {"tls": "off"},
    "offered": {"tls": "starttls"},
    "required": {"tls": "starttls", "require_tls": True},
    "active": {"tls": "implicit"},
}
"""A listener's keys for each word of a script's `tls`."""


@dataclass(frozen=True, slots=True)
class Door:
    """What a listener of the daemon is like."""

    protocol: str
    tls: str = "off"
    deferred: bool = False
    implicit_account: bool = False

    @classmethod
    def of(cls, protocol: str, front: FrontSettings) -> Self:
        tls = "active" if front.tls_active else "required" if front.requires_tls else "offered"
        plain = not (front.tls_active or front.offers_tls)
        return cls(protocol, "off" if plain else tls, front.defers_failures, front.implicit_account)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An account: its logins, its passwords, and its two names at Microsoft."""

    logins: tuple[str, ...]
    passwords: tuple[str, ...]
    address: str
    holder: str
    """Who signs in for it."""

    def speaks_as(self, protocol: str) -> str:
        """Its name in XOAUTH2 (FACTS 2.6)."""
        return self.holder if protocol == "smtp" else self.address


class SignInService(RememberingIdentity):
    """The stand-in, which also knows everybody's last token."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, access_token_lifetime_s=3600)
        self.last_token: dict[str, str] = {}

    def token(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        answer = super().token(tenant, form)
        self.last_token[self.user_of(answer["access_token"]) or ""] = answer["access_token"]
        return answer


class SignInHost(MailHost):
    """A mail host without its mail servers."""

    identity: SignInService

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.certificate = local_certificate(stack.enter_context(open_folder("mf-ca-")))
            self.identity = stack.enter_context(SignInService(self.certificate.file.parent))
            self._stack = stack.pop_all()
        return self


class ScriptedFerry(Ferry):
    """A daemon with these doors and mailboxes, all at the scripted Exchange."""

    def __init__(
        self, folder: Path, host: MailHost, exchange: Exchange, doors: Iterable[Door], mailboxes: Sequence[Mailbox]
    ) -> None:
        self.mailboxes = mailboxes
        self._exchange = exchange
        self.doors = {door: _new_port() for door in {*doors, *map(Door, PROTOCOLS)}}
        super().__init__(folder, host)
        self.config.chmod(0o600)  # hashes stand there

    def configuration(self, upstreams: Mapping[str, str]) -> str:
        self.ports = {protocol: self.doors[Door(protocol)] for protocol in PROTOCOLS}
        identity = self.host.identity
        identity.add_app(self.application_id)
        app = {"application_id": self.application_id, "authority": identity.authority, "ca_file": str(identity.ca_file)}
        tls = "starttls" if self._exchange.starttls else "implicit"
        upstream = {"host": "127.0.0.1", "tls": tls, "ca_file": str(self.host.certificate.ca_file)}
        document = {
            "state_dir": str(self.state_dir),
            "hostname": "mail.test",
            "page": "off",
            "log": {"level": "debug", "format": "text"},
            "apps": {APP: app},
            "accounts": [_account(mailbox) for mailbox in self.mailboxes],
            "listeners": [_listener(door, port, self.mailboxes[0].logins[0]) for door, port in self.doors.items()],
            "upstreams": {protocol: {**upstream, "port": self._exchange.port(protocol)} for protocol in PROTOCOLS},
        }
        return json.dumps(document)  # which is YAML


_ports: set[int] = set()
_choosing = threading.Lock()


def _new_port() -> int:
    """A free one that no other stage is about to take."""
    with _choosing:
        while (port := free_port()) in _ports:
            pass
        _ports.add(port)
        return port


def _account(mailbox: Mailbox) -> dict[str, object]:
    return {
        "login": list(mailbox.logins),
        "app": APP,
        "password": [{"name": f"p{n}", "hash": _hash(password)} for n, password in enumerate(mailbox.passwords)],
        "mailbox": mailbox.address,
        "sign_in": mailbox.holder,
        **dict.fromkeys(("imap_connections", "smtp_connections", "messages_per_minute"), MANY),
    }


def _listener(door: Door, port: int, login: str) -> dict[str, object]:
    listener = {"protocol": door.protocol, "address": "127.0.0.1", "port": port, **TLS[door.tls]}
    listener["auth_failures"] = "deferred" if door.deferred else "honest"
    if door.implicit_account:
        listener |= {"implicit_account": login, "allow_from": ["127.0.0.0/8"]}
    return listener


def _hash(password: str) -> str:
    salt = secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, dklen=32, **SCRYPT)
    salt_text, digest_text = (base64.b64encode(octets).decode().rstrip("=") for octets in (salt, digest))
    return f"$scrypt$ln=10,r=1,p=1${salt_text}${digest_text}"


class Stage:
    """A context manager: the daemon serves inside the `with`, and every mailbox is signed in."""

    def __init__(self, folder: Path, doors: Iterable[Door], mailboxes: Sequence[Mailbox], *, starttls: bool) -> None:
        self._folder = folder
        self._doors = doors
        self._mailboxes = mailboxes
        self._starttls = starttls
        self._stack = ExitStack()
        self._turns = {protocol: threading.Lock() for protocol in sorted(PROTOCOLS)}
        self._learnt: dict[str, tuple[str, ...] | None] = dict.fromkeys(PROTOCOLS)
        """What Exchange announced at the last login; None: nobody knows."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._host = stack.enter_context(SignInHost())
            for holder in {mailbox.holder for mailbox in self._mailboxes}:
                shared = [mailbox.address for mailbox in self._mailboxes if mailbox.holder == holder]
                self._host.identity.add_person(holder, also_may_open=shared)
            self.exchange = stack.enter_context(Exchange(self._host.certificate, starttls=self._starttls))
            self._folder.mkdir()
            self.ferry = ScriptedFerry(self._folder, self._host, self.exchange, self._doors, self._mailboxes)
            stack.callback(self.ferry.close)
            self.ferry.serve()
            for mailbox in {mailbox.holder: mailbox for mailbox in self._mailboxes}.values():
                self.sign_in(mailbox)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # The person

    def sign_in(self, mailbox: Mailbox) -> None:
        self.ferry.sign_in(Person(mailbox.logins[0], ""), as_=Person(mailbox.holder, ""))

    def sign_out(self, mailbox: Mailbox) -> None:
        self.ferry.run("sign-out", mailbox.logins[0])

    def bearer(self, mailbox: Mailbox, protocol: str) -> Bearer:
        """What the daemon says for this mailbox now."""
        return Bearer(mailbox.speaks_as(protocol), self._host.identity.last_token[mailbox.holder])

    # Exchange

    @contextmanager
    def turn(self, *protocols: str) -> Iterator[None]:
        """These protocols at Exchange are ours alone. A part that nobody has come for by the end has failed."""
        with ExitStack() as stack:
            for protocol in self._turns:
                if protocol in protocols:
                    stack.enter_context(self._turns[protocol])
                    stack.callback(self.exchange.forget, protocol)
            yield

    def part(self, protocol: str, verdict: Verdict) -> Part:
        """Exchange's usual words for this verdict. (In the protocol's turn.)"""
        if isinstance(verdict, Ready):
            self._learnt[protocol] = verdict.capabilities or (OFFERS["smtp"] if protocol == "smtp" else ())
        return part(protocol, verdict, starttls=self._starttls, admits=self._admits)

    def unknown(self, protocol: str) -> None:
        """What the daemon learns now is the script's affair. (In the protocol's turn.)"""
        self._learnt[protocol] = None

    def teach(self, protocol: str, announced: tuple[str, ...]) -> None:
        """Let the daemon learn that Exchange announces this: by a login, if need be. (In the protocol's turn.)"""
        announced = announced or OFFERS[protocol]
        if self._learnt[protocol] == announced:
            return
        (session,) = self.exchange.perform(protocol, [self.part(protocol, Ready("", announced))])
        wire = self.connect(Door(protocol), PROGRAM)
        wire.line()
        log_in(wire, protocol, self._mailboxes[0])
        wire.goodbye()
        wire.close()
        assert session.result() == b""

    def _admits(self, user: str, token: str) -> bool:
        return self._host.identity.may_open(token, user)

    # The mail program

    def connect(self, door: Door, address: str) -> Wire:
        """A mail program's connection, from this address; with TLS if the door wants it at once."""
        sock = socket.create_connection(("127.0.0.1", self.ferry.doors[door]), source_address=(address, 0))
        context = None if door.tls == "off" else self.ferry.client_context()
        wire = Wire(sock, context, server_name="mail.test")
        if door.tls == "active":
            wire.start_tls()
        return wire

    # The log

    def upstream_refusals(self, address: str) -> list[str]:
        """What the log says of the refusals that logins from this address met at Exchange: the lines' ends."""
        lines = self.ferry.log_lines("upstream said no", f"peer={address} ")
        return [masked(line.partition(" refusal=")[2].encode()).decode() for line in lines]


def log_in(wire: Wire, protocol: str, mailbox: Mailbox) -> bytes:
    """A plain right login: what was sent. The reply is not read."""
    response = base64.b64encode(f"\0{mailbox.logins[0]}\0{mailbox.passwords[0]}".encode())
    command = {"imap": b"a AUTHENTICATE PLAIN ", "pop3": b"AUTH PLAIN ", "smtp": b"AUTH PLAIN "}[protocol]
    line = command + response + b"\r\n"
    wire.send(line)
    return line
