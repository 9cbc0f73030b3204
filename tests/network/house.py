"""The rest of the house, as a session meets it: passdb, tokens and states that a test commands, and a mailbox upstream.

The mailbox listens on loopback with real TLS and plays Exchange's part of each login; it answers as told.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal, cast

from twisted.internet.defer import Deferred

from proxy.accounts.invitations import Invitations
from proxy.accounts.passdb import PassDb
from proxy.accounts.states import AccountStates
from proxy.accounts.tokens import Tokens
from proxy.config.settings import (
    Account,
    AuthFailures,
    Cloud,
    Config,
    KeySource,
    Listener,
    ListenerTls,
    Log,
    Network,
    ProtocolName,
    Upstream,
    UpstreamTls,
)
from proxy.demo.certificates import LocalCertificate
from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal
from proxy.metrics import Metrics
from proxy.network.limits import Gate
from proxy.network.mailboxes import Mailboxes
from proxy.network.session import Services
from proxy.network.throttle import Throttle
from proxy.network.watches import Watches
from tests.accounts.fakes import APP
from tests.network.turning import Peer, TurningReactor

LOGIN, PASSWORD = b"alice", b"pass-word-of-alice"
TOKEN = "token-number-%d-of-alice"
PEER: IPv4Address | IPv6Address = ip_address("127.0.0.1")

ALICE = Account(
    logins=(LOGIN.decode(),),
    app=APP,
    passwords=(),
    mailbox="alice@contoso.example",
    sign_in="alice.signs.in@contoso.example",
    protocols=("imap", "pop3", "smtp"),
    imap_connections=16,
    smtp_connections=3,
    messages_per_minute=30,
)


def listener(
    protocol: ProtocolName = "imap",
    tls: ListenerTls = ListenerTls.OFF,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    auth_failures: AuthFailures = AuthFailures.HONEST,
    allow_from: tuple[Network, ...] = (),
    proxy_protocol: tuple[Network, ...] = (),
    implicit_account: str | None = None,
) -> Listener:
    return Listener(
        protocol=protocol,
        address=address,
        port=port,
        tls=tls,
        certificate=None,
        legacy_tls=False,
        require_tls=False,
        allow_from=allow_from,
        auth_failures=auth_failures,
        proxy_protocol=proxy_protocol,
        implicit_account=implicit_account,
    )


class FakePassDb:
    """Knows one account; `raises` is raised instead of an answer."""

    def __init__(self) -> None:
        self.account = ALICE
        self.asked: list[Credentials] = []
        self.peers: list[IPv4Address | IPv6Address | None] = []
        self.raises: Exception | None = None

    async def verify(
        self,
        credentials: Credentials,
        *,
        protocol: str,
        peer: IPv4Address | IPv6Address | None,
        before_hashing: Callable[[], None] | None = None,
    ) -> Account:
        self.asked.append(credentials)
        self.peers.append(peer)
        if self.raises is not None:
            raise self.raises
        if before_hashing is not None:
            before_hashing()
        if (credentials.login, credentials.password) != (LOGIN, PASSWORD):
            raise LoginRefused(Refusal.BAD_CREDENTIALS, "Wrong login or password.", fault=Fault.CLIENT)
        return self.account


class FakeTokens:
    """Gives TOKEN with a number that a forced refresh raises; `refuses` is raised, `holds` makes callers wait."""

    def __init__(self) -> None:
        self.number = 1
        self.asked: list[tuple[str, bool]] = []
        """Who the token is for, and whether it was to be a fresh one."""
        self.refuses: LoginRefused | None = None
        self.holds = False
        self.cancelled = 0
        self._waiting: list[Deferred[None]] = []

    async def access(self, account: Account, *, user: str, fresh: bool = False) -> Bearer:
        self.asked.append((user, fresh))
        if self.holds:
            waiting: Deferred[None] = Deferred(self._cancel)
            self._waiting.append(waiting)
            await waiting
        if self.refuses is not None:
            raise self.refuses
        self.number += fresh
        return Bearer(user, TOKEN % self.number)

    def go_on(self) -> None:
        self.holds = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def _cancel(self, waiting: Deferred[None]) -> None:
        self.cancelled += 1
        self._waiting.remove(waiting)


class FakeStates:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.raises: Exception | None = None

    def login_succeeded(self, account: Account) -> None:
        if self.raises is not None:
            raise self.raises
        self.told.append(f"{account.name} succeeded")

    def login_failed(self, account: Account, refused: LoginRefused) -> None:
        self.told.append(f"{account.name} {refused.refusal.value}")

    def session_troubled(self, account: Account, refused: LoginRefused) -> None:
        self.told.append(f"{account.name} in a session: {refused.cause}")


class FakeInvitations:
    """Invites with these words."""

    def __init__(self) -> None:
        self.words = ""
        self.asked: list[str] = []

    async def invite(self, account: Account) -> str:
        self.asked.append(account.name)
        return self.words


@dataclass
class Visit:
    """One session upstream, from the mailbox's side."""

    peer: Peer
    lines: list[bytes] = field(default_factory=list)
    """All that came, token and all."""
    logged_in: bool = False
    challenged: bool = False

    def after_login(self) -> bytes:
        """What the program said to the mailbox: all but our own part."""
        ours = (b"F2 ", b"F3 ", b"F4 ", b"AUTH ", b"EHLO ", b"dXNlcj")  # the last is `user=` in base64
        return b"".join(line for line in self.lines if not line.startswith(ours))


class Mailbox:
    """Exchange's part, over implicit TLS, in one protocol (POP3 and SMTP take the token on a line of its own)."""

    def __init__(
        self, reactor: TurningReactor, certificate: LocalCertificate, protocol: Literal["imap", "pop3", "smtp"] = "imap"
    ) -> None:
        self._reactor, self._certificate, self._protocol = reactor, certificate, protocol
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.visits: list[Visit] = []
        self.refused_tokens: set[int] = set()
        """Numbers of tokens that are not taken."""
        self.silent = False
        self.holds_verdict = False
        """Keep the answer to the token until it is False again."""
        self.verdict = b""
        """Instead of yes or no: this line, `%` being the tag and its space."""
        self.extensions = b"250-SIZE 157286400\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n"
        self._context = certificate.server_context()
        reactor.peers.append(cast("Peer", self))  # it takes part in each turn

    @property
    def upstream(self) -> Upstream:
        return Upstream("localhost", self.socket.getsockname()[1], UpstreamTls.IMPLICIT, self._certificate.ca_file)

    @property
    def visit(self) -> Visit:
        """The newest."""
        return self.visits[-1]

    def close(self) -> None:
        self.socket.close()

    def pump(self) -> bool:
        happened = self._accept()
        for visit in self.visits:
            happened = self._serve(visit) or happened
        return happened

    def _accept(self) -> bool:
        try:
            accepted, _ = self.socket.accept()
        except OSError:
            return False
        peer = Peer(accepted, self._reactor)
        visit = Visit(peer)
        self.visits.append(visit)
        if not self.silent:
            peer.start_tls(self._context, server_side=True)
            peer.say({"imap": b"* OK ready\r\n", "pop3": b"+OK ready\r\n", "smtp": b"220 mx ESMTP\r\n"}[self._protocol])
        return True

    def _serve(self, visit: Visit) -> bool:
        if self.silent or (self.holds_verdict and visit.lines and not visit.logged_in):
            return False
        line, end, rest = bytes(visit.peer.got).partition(b"\n")
        if not end:
            return False
        visit.peer.got[:] = rest
        visit.lines.append(line + end)
        visit.peer.say(getattr(self, f"_{self._protocol}")(visit, line.rstrip(b"\r")))
        return True

    def _takes(self, blob: bytes) -> bool:
        token = base64.b64decode(blob)
        return any(token.count((TOKEN % n).encode()) for n in range(1, 9) if n not in self.refused_tokens)

    def _imap(self, visit: Visit, line: bytes) -> bytes:
        tag, _, command = line.partition(b" ")
        name = command.upper()
        if visit.challenged:
            visit.challenged = False
            return b"F2 NO AUTHENTICATE failed.\r\n"
        if name.startswith(b"AUTHENTICATE"):
            if self.verdict:
                return self.verdict.replace(b"%", tag + b" ") + b"\r\n"
            visit.logged_in = self._takes(command.split()[2])
            visit.challenged = not visit.logged_in
            return b"F2 OK AUTHENTICATE completed.\r\n" if visit.logged_in else b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n"
        untagged = {
            b"CAPABILITY": b"* CAPABILITY IMAP4rev1 IDLE MOVE\r\n",
            b"NAMESPACE": b'* NAMESPACE (("" "/")) NIL NIL\r\n',
        }
        return untagged.get(name, b"") + tag + b" OK done\r\n"

    def _pop3(self, visit: Visit, line: bytes) -> bytes:
        if line == b"AUTH XOAUTH2":
            return b"+ \r\n"
        if not visit.logged_in:
            visit.logged_in = self._takes(line)
            return b"+OK User successfully authenticated\r\n" if visit.logged_in else b"-ERR Authentication failure\r\n"
        return b"+OK\r\n"

    def _smtp(self, visit: Visit, line: bytes) -> bytes:
        if line.startswith(b"EHLO"):
            return b"250-mx\r\n" + self.extensions + b"250 AUTH LOGIN XOAUTH2\r\n"
        if line == b"AUTH XOAUTH2":
            return b"334 \r\n"
        if not visit.logged_in:
            visit.logged_in = self._takes(line)
            return b"235 2.7.0 Authentication successful\r\n" if visit.logged_in else b"535 5.7.3 unsuccessful\r\n"
        return b"250 2.1.0 Sender OK\r\n"


@dataclass
class House:
    passdb: FakePassDb
    tokens: FakeTokens
    states: FakeStates
    invitations: FakeInvitations
    services: Services


def house(reactor: TurningReactor, mailbox: Mailbox | None = None, *, listeners: tuple[Listener, ...] = ()) -> House:
    nowhere = Upstream("nowhere.example", 993, UpstreamTls.IMPLICIT, None)
    upstream = mailbox.upstream if mailbox is not None else nowhere
    reactor.resolver.addresses["localhost"] = ("127.0.0.1",)
    protocols: tuple[ProtocolName, ...] = ("imap", "pop3", "smtp")
    config = Config(
        file=None,
        state_dir=Path("/nonexistent"),
        hostname="mail.example",
        listeners=listeners,
        apps={APP.name: APP},
        accounts=(ALICE,),
        upstreams={(Cloud.GLOBAL, protocol): upstream for protocol in protocols},
        key=KeySource(Path("/nonexistent/key"), created=True),
        log=Log("debug", "text"),
    )
    passdb, tokens, states, invitations = FakePassDb(), FakeTokens(), FakeStates(), FakeInvitations()
    metrics = Metrics()
    services = Services(
        config=config,
        passdb=cast("PassDb", passdb),
        throttle=Throttle(reactor.seconds),
        mailboxes=Mailboxes(config, cast("Tokens", tokens), reactor, metrics),
        invitations=cast("Invitations", invitations),
        states=cast("AccountStates", states),
        gate=Gate(reactor),
        reactor=reactor,
        metrics=metrics,
        watches=Watches(reactor.seconds),
    )
    return House(passdb, tokens, states, invitations, services)


def with_connections(account: Account, imap: int) -> Account:
    return replace(account, imap_connections=imap)
