"""One login as one coroutine; the only file that knows both sides.

It joins a front (the mail program) and a mailbox upstream (Exchange): who is this, which mailbox is theirs, open it,
relay. It knows no protocol's words: those stand in `protocols/`.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from proxy.accounts.invitations import Invitations
from proxy.accounts.passdb import PassDb
from proxy.accounts.states import AccountStates
from proxy.config.settings import Account, AuthFailures, Config, Listener, ListenerTls
from proxy.explanations import explain_exchange
from proxy.log import Log
from proxy.login import Credentials, Fault, LoginRefused, Refusal
from proxy.metrics import Metrics, Stopwatch
from proxy.network.balancer import NoHeader, announced_peer
from proxy.network.connection import Connection, Lost
from proxy.network.limits import Gate
from proxy.network.lobby import Lobby
from proxy.network.mailboxes import Mailboxes, OpenMailbox
from proxy.network.reactor import Reactor
from proxy.network.relay import Relay
from proxy.network.stream import Stream
from proxy.network.throttle import Throttle
from proxy.network.watches import Transcript, Watches
from proxy.protocols.dialogue import (
    CROWDED_OUT,
    STOPPING,
    Action,
    Dismissal,
    Front,
    FrontSettings,
    Login,
    MailProtocol,
    printable,
)
from proxy.protocols.overheard import login_back_off_s
from proxy.protocols.strangers import TLS_CLIENT_HELLO, TLS_ON_PLAIN_PORT

LOGIN_LIMIT_S = 180.0  # from the first octet to a login that holds; Dovecot's three minutes (CLIENTS 1.1)
STILL_WORKING_S = 10.0  # a login that takes longer is told so, where the protocol has words for it (CLIENTS 3.1)
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


@dataclass(frozen=True, slots=True)
class Services:
    """All that sessions share."""

    config: Config
    passdb: PassDb
    throttle: Throttle
    mailboxes: Mailboxes
    invitations: Invitations
    states: AccountStates
    gate: Gate
    reactor: Reactor
    metrics: Metrics = field(default_factory=Metrics)
    watches: Watches = field(default_factory=lambda: Watches(time.monotonic))
    lobby: Lobby = field(default_factory=Lobby)


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
        self._front: Connection[Front] | None = None
        self._login: Deferred[_Joined | None] | None = None
        """Under way, or the last one."""
        self._relay: Relay | None = None
        self._peeking = False
        self._dismissed: Dismissal | None = None
        self._transcript: Transcript | None = None
        """Of the dialogue with the mail program, while the log or a watch wants it."""

    async def run(self, stream: Stream) -> None:
        """Greet, log in, relay; returns when both legs are closed, or the only one."""
        self._stream = stream
        self._limit = self._services.reactor.callLater(LOGIN_LIMIT_S, self._expire)
        try:
            self._front = await self._greet(stream)
            joined = await self._log_in(self._front)
        except NoHeader as none:
            self._log.info("connection refused", reason=str(none))  # a balancer may only look whether we live
            stream.abortConnection()
            return
        finally:
            self._services.lobby.leave(self)
            if self._limit.active():
                self._limit.cancel()
        if joined is not None:
            async with joined.place:
                try:
                    await self._relay_all(joined)
                finally:  # whatever happened, no leg stays open
                    joined.client.abortConnection()
                    joined.upstream.abortConnection()

    @property
    def protocol(self) -> str:
        return self._protocol.name

    def stop(self) -> None:
        """The daemon stops: end what is under way, within the relay's bound, say so, and close."""
        if self._relay is not None:
            self._relay.part()
        else:
            self._dismiss(STOPPING)

    def make_room(self) -> None:
        """The lobby is full, and this session has been there longest."""
        self._services.metrics.connection_refused(self._protocol.name)
        self._dismiss(CROWDED_OUT)

    # --- the steps

    async def _log_in(self, front: Connection[Front]) -> _Joined | None:
        """Both legs, logged in; None if the mail program left, or was sent away, before that.

        What it knew of password and token ends with it: a relayed session holds neither.
        """
        while isinstance(outcome := await front.outcome(), Login):
            self._login = Deferred.fromCoroutine(self._admit(front, outcome.credentials))
            try:
                joined = await self._login
            except CancelledError:  # the time is over, or we stop: the front has said goodbye
                continue
            if joined is not None:
                return joined
        assert isinstance(outcome, Lost)
        if outcome.reason == TLS_ON_PLAIN_PORT:
            self._door.auto_wait_s = min(2 * self._door.auto_wait_s, MAX_AUTO_TLS_WAIT_S)
        self._log.info("closed before login", reason=outcome.reason, state=front.dialogue.state.name)
        return None

    async def _admit(self, front: Connection[Front], credentials: Credentials | None) -> _Joined | None:
        """One login of the front's: its mailbox, or a refusal, and then None."""
        account = None
        metrics, protocol = self._services.metrics, self._protocol.name
        watch = Stopwatch(metrics, self._services.reactor.seconds)
        self._watch_if_meant(self._services.config.account(printable(credentials.login)) if credentials else None)
        try:
            with self._still_working(front):
                account = await self._verify(credentials)
                self._watch_if_meant(account)
                watch.finished("password")
                async with AsyncExitStack() as place:
                    await place.enter_async_context(self._place(account))
                    watch.finished("queue")
                    mailbox = await self._open(account, invites=credentials is not None)
                    try:
                        front.perform(front.dialogue.accept(mailbox.ready))
                        if not front.lost:
                            metrics.login_accepted(protocol, watch.whole_s)
                            legs = (*front.release(), *mailbox.connection.release())
                            return _Joined(account, *legs, place.pop_all())
                        metrics.login_abandoned(protocol)
                    finally:
                        mailbox.connection.abort()  # unless it was released
        except LoginRefused as refused:
            await self._refuse(front, credentials, account, refused)
        except CancelledError:
            metrics.login_abandoned(protocol)
            raise
        except Exception as error:  # the only place: whatever we did not foresee ends as "try later"
            self._log.failure("login failed unexpectedly", error)
            await self._refuse(front, credentials, account, _our_fault())
        return None

    async def _greet(self, stream: Stream) -> Connection[Front]:
        """Learn who is there, and speak first; TLS if they do, or must.

        Raises:
            NoHeader: a balancer did not say whom it brings.
        """
        door, tls = self._door, self._door.listener.tls
        if any(self._peer in network for network in door.listener.proxy_protocol):
            self._peer = await announced_peer(stream, self._services.reactor) or self._peer
            self._log = self._log.bind(peer=str(self._peer))
        self._services.lobby.enter(self, self._peer)
        implicit = tls is ListenerTls.IMPLICIT
        if tls is ListenerTls.AUTO:
            self._peeking = True
            implicit = await stream.peek(door.auto_wait_s) == TLS_CLIENT_HELLO
            self._peeking = False
        watches = self._services.watches
        if watches.on(str(self._peer)):
            self._log = self._log.aloud(lambda: watches.on(str(self._peer)))
        if self._log.debugs or watches.any:
            self._transcript = Transcript("mail program", self._log, self._services.reactor.seconds)
        settings = FrontSettings(
            hostname=self._services.config.hostname,
            offers_tls=tls in (ListenerTls.AUTO, ListenerTls.STARTTLS),
            tls_active=implicit,
            requires_tls=door.listener.require_tls,
            defers_failures=door.listener.auth_failures is AuthFailures.DEFERRED,
            implicit_account=door.listener.implicit_account is not None,
            learnt=self._services.mailboxes.offers(self._protocol),
            watched=self._transcript is not None,
        )
        dialogue = self._protocol.front(settings)

        def greet() -> list[Action]:
            if self._dismissed is not None:
                return dialogue.dismissed(self._dismissed)
            refused = self._turned_away()
            if refused is None:
                return dialogue.opened()
            self._log.warning("connection refused", reason=refused.text)
            self._services.metrics.connection_refused(self._protocol.name)
            return dialogue.refuse(refused)

        front = Connection(
            dialogue,
            self._start_front_tls,
            implicit_tls=implicit,
            greet=greet,
            expire_in=self._limit_to,
            transcript=self._transcript,
        )
        stream.open(front)
        self._log.debug("greeted", tls=implicit)
        return front

    def _watch_if_meant(self, account: Account | None) -> None:
        """Say everything from now on, and what was kept, if this account is watched."""
        watches = self._services.watches
        if account is not None and watches.on(account.name) and not self._log.debugs:
            self._log = self._log.aloud(lambda: watches.on(account.name))
            if self._transcript is not None:
                self._transcript.use(self._log)

    def _turned_away(self) -> LoginRefused | None:
        """Why nobody may log in on this connection, whatever the password; None if they may."""
        allowed = self._door.listener.allow_from
        if allowed and not any(self._peer in network for network in allowed):
            text = f"Connections from {self._peer} are not allowed here (allow_from in mailferry's configuration)."
            return LoginRefused(Refusal.MISCONFIGURED, text, fault=Fault.CLIENT)
        return self._services.mailboxes.outage(self._protocol)

    async def _verify(self, credentials: Credentials | None) -> Account:
        """Whose login this is."""
        if credentials is None:
            return self._implicit_account()
        services, protocol = self._services, self._protocol.name
        account = await services.throttle.verify(services.passdb, credentials, protocol=protocol, peer=self._peer)
        self._log.debug("password accepted", login=account.name)
        return account

    def _implicit_account(self) -> Account:
        """For a device that never logs in; the configuration may have lost the account since the listener was made."""
        login = self._door.listener.implicit_account
        account = self._services.config.account(login) if login is not None else None
        if account is None:
            text = f"mailferry's configuration names {login} for this port (implicit_account), but has no such account."
            raise LoginRefused(Refusal.MISCONFIGURED, text, fault=Fault.MAILFERRY)
        self._log.info("no login asked of this device", login=account.name)
        return account

    def _place(self, account: Account) -> AbstractAsyncContextManager[None]:
        """Among the sessions that Exchange counts together."""
        protocol = self._protocol.name
        return self._services.gate.place(
            self._kind(account), account.connections(protocol), account.sessions_per_minute(protocol)
        )

    async def _open(self, account: Account, *, invites: bool) -> OpenMailbox:
        """The account's mailbox; if Exchange throttles it, the next ones wait as well.

        `invites`: whose password was right may hear how to sign in, if that is all that lacks.
        """
        try:
            return await self._services.mailboxes.open(self._protocol, account, self._log)
        except LoginRefused as refused:
            if (back_off_s := login_back_off_s(refused.detail)) is not None:
                self._services.gate.hold(self._kind(account), back_off_s)
            if invites and refused.refusal is Refusal.SIGN_IN_NEEDED:
                refused.invitation = await self._services.invitations.invite(account)
            raise

    def _kind(self, account: Account) -> str:
        return kind_of(self._protocol, account)

    async def _relay_all(self, joined: _Joined) -> None:
        """Relay until both sides are closed."""
        reactor, account = self._services.reactor, joined.account
        self._services.states.login_succeeded(account)
        self._log.info("login accepted", login=account.name, mailbox=account.mailbox)
        relay = Relay(
            joined.client,
            joined.upstream,
            idle_limit_s=self._protocol.idle_limit_s,
            clock=reactor,
            overhear=lambda piece: self._overhear(account, piece),
            last_words=self._protocol.last_words,
            parting=self._protocol.parting,
        )
        self._relay, self._front = relay, None
        started_s = reactor.seconds()
        with self._services.metrics.relaying(self._protocol.name, relay.octets):
            relayed = await relay.run(to_upstream=joined.to_upstream, to_client=joined.to_client)
        self._log.info(
            "session closed",
            login=account.name,
            bytes_up=relayed.octets_up,
            bytes_down=relayed.octets_down,
            duration_s=reactor.seconds() - started_s,
            reason=relayed.reason,
        )

    def _overhear(self, account: Account, piece: bytes) -> None:
        """Exchange may say in passing that it throttles this mailbox: no new sessions of it for a while.

        What else it says is for the log and the account's page; the mail program has heard it itself.
        """
        heard = self._protocol.overhear(piece)
        if heard is None:
            return
        explained = explain_exchange(self._protocol.name, heard.text)
        explained = explained.for_(
            mailbox=account.mailbox, user=account.sign_in, app=account.app.name, login=account.name
        )
        self._log.warning(
            "upstream said",
            login=account.name,
            text=heard.text,
            fault=explained.fault.value,
            cause=explained.cause,
            remedy=explained.remedy,
            back_off_s=heard.back_off_s,
        )
        if heard.back_off_s is not None:
            refused = explained.refuse(account.name, refusal=Refusal.BUSY, detail=heard.text)
            self._services.states.login_failed(account, refused)
            self._services.gate.hold(self._kind(account), heard.back_off_s)
            self._services.metrics.throttled("exchange")
        elif explained.who != "nobody":
            self._services.states.session_troubled(account, explained.refuse(account.name, detail=heard.text))

    # --- saying no

    async def _refuse(
        self, front: Connection[Front], credentials: Credentials | None, account: Account | None, refused: LoginRefused
    ) -> None:
        """Tell the mail program; a wrong password costs it a pause, and the third closes the connection."""
        login = account.name if account else printable(credentials.login) if credentials else None
        self._log.warning(
            "login refused",
            login=login,
            peer=str(self._peer),
            reason=refused.refusal.value,
            fault=refused.fault.value,
            text=refused.cause,
            remedy=refused.remedy or None,
            detail=refused.detail or None,
        )
        final = False
        self._services.metrics.login_refused(self._protocol.name, refused)
        if account is not None:
            self._services.states.login_failed(account, refused)
        if refused.refusal is Refusal.BAD_CREDENTIALS:
            self._wrong.add(hash(credentials))
            self._wrong_attempts += 1
            final = len(self._wrong) >= MAX_WRONG_PAIRS or self._wrong_attempts >= MAX_WRONG_ATTEMPTS
            await deferLater(self._services.reactor, WRONG_PASSWORD_DELAY_S * len(self._wrong))
        front.perform(front.dialogue.refuse(refused, final=final))

    @contextmanager
    def _still_working(self, front: Connection[Front]) -> Iterator[None]:
        """Every now and then, as long as the mail program waits for its login."""
        saying = Deferred.fromCoroutine(self._say_still_working(front))
        saying.addErrback(lambda failure: failure.trap(CancelledError) and None)
        try:
            yield
        finally:
            saying.cancel()

    async def _say_still_working(self, front: Connection[Front]) -> None:
        while True:
            await deferLater(self._services.reactor, STILL_WORKING_S)
            front.interject(front.dialogue.waiting())

    def _limit_to(self, limit_s: float) -> None:
        self._limit.reset(limit_s)

    def _dismiss(self, why: Dismissal) -> None:
        self._dismissed = why
        if not self._peeking:  # else `_greet` knows in a moment how to say it
            self._end(lambda front: front.dismissed(why))

    def _expire(self) -> None:
        self._end(lambda front: front.expired())

    def _end(self, goodbye: Callable[[Front], list[Action]]) -> None:
        """Say goodbye, and take no login any further."""
        if self._front is None:
            self._stream.abortConnection()
            return
        self._front.perform(goodbye(self._front.dialogue))
        if self._login is not None:
            self._login.cancel()

    def _start_front_tls(self, stream: Stream) -> Deferred[None]:
        assert self._door.context is not None
        return stream.start_tls(self._door.context)


def kind_of(protocol: MailProtocol, account: Account) -> str:
    """The sessions that Exchange counts together, as `Gate` names them."""
    return f"{protocol.name} {getattr(account, protocol.speaks_as).casefold()}"


def _our_fault() -> LoginRefused:
    return LoginRefused(
        Refusal.TRY_LATER,
        "Not your password: mailferry met an error of its own. Its log has the details.",
        fault=Fault.MAILFERRY,
    )
