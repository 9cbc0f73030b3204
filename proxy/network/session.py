"""One login as one coroutine; the only file that knows both sides.

It joins a front (the mail program) and an upstream (Exchange): who is this, which token stands behind the name, open
the mailbox, relay. It knows no protocol's words: those stand in `protocols/`.
"""

from __future__ import annotations

import ssl
from collections.abc import MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from proxy.accounts.passdb import PassDb
from proxy.accounts.states import AccountStates
from proxy.accounts.tokens import Tokens
from proxy.config.settings import Account, AuthFailures, Config, Listener, ListenerTls, UpstreamTls
from proxy.config.settings import Upstream as UpstreamServer
from proxy.explanations import explain_exchange
from proxy.log import Log
from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal
from proxy.network.connection import Connection, Lost, Outcome
from proxy.network.dial import DialFailed, dial
from proxy.network.limits import Gate
from proxy.network.reactor import Reactor
from proxy.network.relay import Relay
from proxy.network.stream import Stream
from proxy.network.tls import ClientTls
from proxy.protocols.dialogue import (
    Failed,
    Front,
    FrontSettings,
    Login,
    MailProtocol,
    Ready,
    Upstream,
    UpstreamSettings,
    printable,
)
from proxy.protocols.strangers import TLS_CLIENT_HELLO, TLS_ON_PLAIN_PORT

LOGIN_LIMIT_S = 180.0  # from the first octet to a login that holds; Dovecot's three minutes (CLIENTS 1.1)
UPSTREAM_LIMIT_S = 25.0  # token and upstream together: old programs give up after 60 s (CLIENTS 3.1, 4)
DIAL_LIMIT_S = 15.0
WRONG_PASSWORD_DELAY_S = 2.0  # CLIENTS 3.1, class A; grows with each wrong pair
MAX_WRONG_PAIRS = 3  # distinct (login, password): one typo is tried as PLAIN, LOGIN and LOGIN again (CLIENTS 0.10)
MAX_WRONG_ATTEMPTS = 9
AUTO_TLS_WAIT_S = 0.08  # CLIENTS case 1 wants the greeting within 100 ms; a TLS program speaks first, and sooner
MAX_AUTO_TLS_WAIT_S = 2.0


@dataclass(slots=True)
class Door:
    """A listener as its sessions see it."""

    listener: Listener
    protocol: MailProtocol
    context: ssl.SSLContext | None
    """What it shows for TLS; None with `tls: off`."""
    auto_wait_s: float = AUTO_TLS_WAIT_S
    """How long an `auto` listener waits for a TLS program's first octet; doubled when one came too late."""
    upstream: UpstreamServer | None = None
    """Where the logins here lead, if all lead to the same."""


@dataclass(frozen=True, slots=True)
class Services:
    """All that sessions share."""

    config: Config
    passdb: PassDb
    tokens: Tokens
    states: AccountStates
    gate: Gate
    client_tls: ClientTls
    learnt: MutableMapping[UpstreamServer, tuple[str, ...]]
    """What each upstream announced at its last login."""
    reactor: Reactor


@dataclass(frozen=True, slots=True)
class _Joined:
    """Both legs of a session, logged in, and what each side sent behind its login."""

    account: Account
    client: Stream
    to_upstream: bytes
    upstream: Stream
    to_client: bytes
    place: AsyncExitStack
    """The account's place among its sessions, held until this closes."""


class Session:
    """A mail program's connection, from accept to close."""

    def __init__(self, door: Door, services: Services, peer: IPv4Address | IPv6Address, log: Log) -> None:
        self._door = door
        self._protocol = door.protocol
        self._services = services
        self._peer = peer
        self._log = log
        self._wrong: set[int] = set()
        self._wrong_attempts = 0
        self._stream: Stream | None = None
        self._front: Connection[Front] | None = None
        self._relay: Relay | None = None

    async def run(self, stream: Stream) -> None:
        """Greet, log in, relay; returns when both legs are closed, or the only one."""
        self._stream = stream
        self._front = await self._greet(stream)
        joined = await self._log_in(self._front)
        if joined is not None:
            async with joined.place:
                try:
                    await self._relay_all(joined)
                finally:  # whatever happened, no leg stays open
                    joined.client.abortConnection()
                    joined.upstream.abortConnection()

    def stop(self) -> None:
        """The daemon stops: close, with what is kept delivered."""
        if self._relay is not None:
            self._relay.close("stopping")
        elif self._front is not None:
            self._expire(self._front)
        elif self._stream is not None:
            self._stream.abortConnection()

    # --- the steps

    async def _log_in(self, front: Connection[Front]) -> _Joined | None:
        """Both legs, logged in; None if the mail program left, or was sent away, before that.

        What it knew of password and token ends with it: a relayed session holds neither.
        """
        limit = self._services.reactor.callLater(LOGIN_LIMIT_S, self._expire, front)
        try:
            while isinstance(outcome := await front.outcome(), Login):
                account = None
                try:
                    account = await self._verify(outcome.credentials)
                    self._log.debug("password accepted", login=account.name)
                    async with AsyncExitStack() as place:
                        await place.enter_async_context(self._place(account))
                        upstream, ready = await self._open_upstream(account)
                        try:
                            front.perform(front.dialogue.accept(ready))
                            if not front.lost:
                                return _Joined(account, *front.release(), *upstream.release(), place.pop_all())
                        finally:
                            upstream.abort()  # unless it was released
                except LoginRefused as refused:
                    await self._refuse(front, outcome.credentials, account, refused)
                except Exception as error:  # the only place: whatever we did not foresee ends as "try later"
                    self._log.failure("login failed unexpectedly", error)
                    await self._refuse(front, outcome.credentials, account, _our_fault())
            assert isinstance(outcome, Lost)
            if outcome.reason == TLS_ON_PLAIN_PORT:
                self._door.auto_wait_s = min(2 * self._door.auto_wait_s, MAX_AUTO_TLS_WAIT_S)
            self._log.info("closed before login", reason=outcome.reason, state=front.dialogue.state.name)
            return None
        finally:
            if limit.active():
                limit.cancel()

    async def _greet(self, stream: Stream) -> Connection[Front]:
        door, tls = self._door, self._door.listener.tls
        implicit = tls is ListenerTls.IMPLICIT
        if tls is ListenerTls.AUTO:
            implicit = await stream.peek(door.auto_wait_s) == TLS_CLIENT_HELLO
        settings = FrontSettings(
            hostname=self._services.config.hostname,
            offers_tls=tls in (ListenerTls.AUTO, ListenerTls.STARTTLS),
            tls_active=implicit,
            requires_tls=door.listener.require_tls,
            defers_failures=door.listener.auth_failures is AuthFailures.DEFERRED,
            learnt=self._promises(),
        )
        front = Connection(self._protocol.front(settings), self._start_front_tls, implicit_tls=implicit)
        stream.open(front)
        self._log.debug("greeted", tls=implicit)
        return front

    def _promises(self) -> tuple[str, ...]:
        """What may be offered before the login: at most what upstream will offer after it."""
        upstream = self._door.upstream
        if upstream is None:
            return self._protocol.least_offers
        return self._services.learnt.get(upstream, () if upstream.exchange else self._protocol.least_offers)

    async def _verify(self, credentials: Credentials) -> Account:
        return await self._services.passdb.verify(credentials, protocol=self._protocol.name, peer=self._peer)

    def _place(self, account: Account) -> AbstractAsyncContextManager[None]:
        """Among the sessions that Exchange counts together."""
        protocol = self._protocol.name
        kind = f"{protocol} {getattr(account, self._protocol.speaks_as).casefold()}"
        return self._services.gate.place(kind, account.connections(protocol), account.sessions_per_minute(protocol))

    async def _open_upstream(self, account: Account) -> tuple[Connection[Upstream], Ready]:
        """A session upstream for this account, within the time that a mail program waits.

        A token that Exchange refuses is refreshed once, and tried once more.
        """
        upstream = self._services.config.upstream(account, self._protocol.name)
        attempts = Deferred.fromCoroutine(self._attempt(account, upstream))
        try:
            return await attempts.addTimeout(UPSTREAM_LIMIT_S, self._services.reactor)
        except TimeoutError:
            raise _try_later(f"{upstream.host} did not answer within {UPSTREAM_LIMIT_S:g} seconds") from None

    async def _attempt(self, account: Account, upstream: UpstreamServer) -> tuple[Connection[Upstream], Ready]:
        user = getattr(account, self._protocol.speaks_as)
        bearer = await self._services.tokens.access(account, user=user)
        self._log.debug("token in hand", user=bearer.user)
        connection, outcome = await self._log_in_upstream(bearer, upstream)
        if isinstance(outcome, Failed) and outcome.refusal is Refusal.REFUSED_UPSTREAM:
            self._log.info("upstream refused the token, which is refreshed once", detail=outcome.detail)
            connection.abort()
            bearer = await self._services.tokens.access(account, user=user, fresh=True)
            connection, outcome = await self._log_in_upstream(bearer, upstream)
        match outcome:
            case Ready():
                return connection, outcome
            case Failed(refusal=refusal, detail=detail):
                connection.abort()
                raise _refused_upstream(self._protocol, account, refusal, detail)
            case Lost(reason=reason):
                raise _try_later(f"the connection to {upstream.host} failed: {reason}")
            case Login():
                raise AssertionError("an upstream asks for no login")

    async def _log_in_upstream(self, bearer: Bearer, upstream: UpstreamServer) -> tuple[Connection[Upstream], Outcome]:
        services = self._services
        try:
            sock = await dial(upstream.host, upstream.port, limit_s=DIAL_LIMIT_S, reactor=services.reactor)
        except DialFailed as failed:
            raise _try_later(f"no connection to {failed}") from None
        starttls = upstream.tls is UpstreamTls.STARTTLS
        settings = UpstreamSettings(bearer=bearer, starttls=starttls, hostname=services.config.hostname)
        connection = Connection(
            self._protocol.upstream(settings),
            lambda stream: services.client_tls.start(stream, upstream),
            implicit_tls=not starttls,
        )
        stream = Stream(sock, services.reactor)
        stream.open(connection)
        outcome = await connection.outcome()
        self._log.debug("upstream answered", host=upstream.host, state=connection.dialogue.state.name)
        if isinstance(outcome, Ready):
            services.client_tls.remember_session(stream, upstream)
            services.learnt[upstream] = outcome.capabilities
        return connection, outcome

    async def _relay_all(self, joined: _Joined) -> None:
        """Relay until both sides are closed."""
        reactor, account = self._services.reactor, joined.account
        self._services.states.login_succeeded(account)
        self._log.info("login accepted", login=account.name, mailbox=account.mailbox)
        relay = Relay(joined.client, joined.upstream, idle_limit_s=self._protocol.idle_limit_s, clock=reactor)
        self._relay, self._front = relay, None
        started_s = reactor.seconds()
        relayed = await relay.run(to_upstream=joined.to_upstream, to_client=joined.to_client)
        self._log.info(
            "session closed",
            login=account.name,
            bytes_up=relayed.octets_up,
            bytes_down=relayed.octets_down,
            duration_s=reactor.seconds() - started_s,
            reason=relayed.reason,
        )

    # --- saying no

    async def _refuse(
        self, front: Connection[Front], credentials: Credentials, account: Account | None, refused: LoginRefused
    ) -> None:
        """Tell the mail program; a wrong password costs it a pause, and the third closes the connection."""
        self._log.warning(
            "login refused",
            login=account.name if account else printable(credentials.login),
            peer=str(self._peer),
            reason=refused.refusal.value,
            fault=refused.fault.value,
            text=refused.text,
            detail=refused.detail or None,
        )
        final = False
        if account is not None:
            self._services.states.login_failed(account, refused)
        if refused.refusal is Refusal.BAD_CREDENTIALS:
            self._wrong.add(hash(credentials))
            self._wrong_attempts += 1
            final = len(self._wrong) >= MAX_WRONG_PAIRS or self._wrong_attempts >= MAX_WRONG_ATTEMPTS
            await deferLater(self._services.reactor, WRONG_PASSWORD_DELAY_S * len(self._wrong))
        front.perform(front.dialogue.refuse(refused, final=final))

    def _expire(self, front: Connection[Front]) -> None:
        front.perform(front.dialogue.expired())

    def _start_front_tls(self, stream: Stream) -> Deferred[None]:
        assert self._door.context is not None
        return stream.start_tls(self._door.context)


def _try_later(what: str) -> LoginRefused:
    return LoginRefused(
        Refusal.TRY_LATER,
        f"Not your password: {what}. It is tried again at the next login.",
        fault=Fault.NETWORK,
    )


def _our_fault() -> LoginRefused:
    return LoginRefused(
        Refusal.TRY_LATER,
        "Not your password: mailferry met an error of its own. Its log has the details.",
        fault=Fault.MAILFERRY,
    )


def _refused_upstream(protocol: MailProtocol, account: Account, refusal: Refusal, detail: str) -> LoginRefused:
    explained = explain_exchange(protocol.name, detail).for_(mailbox=account.mailbox, user=account.sign_in)
    return LoginRefused(refusal, f"{explained.cause} {explained.remedy}", fault=explained.fault, detail=detail)
