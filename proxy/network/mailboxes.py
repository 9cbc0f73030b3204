"""Opening a mailbox at Exchange: a token, a connection, a login with XOAUTH2; and once more where that may help.

What it knows: which upstream an account has, what that announced last, and whether it can be reached at all. What it is
not: it sees no mail program and no password. `session.py` calls it for each login.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from proxy.accounts.tokens import Tokens
from proxy.config.settings import PROTOCOL_NAMES, Account, Config, UpstreamTls
from proxy.config.settings import Upstream as Server
from proxy.explanations import explain_exchange
from proxy.log import Log
from proxy.login import Bearer, Fault, LoginRefused, Refusal
from proxy.metrics import Metrics, Stopwatch
from proxy.network.connection import Connection, Lost, Outcome
from proxy.network.dial import DialFailed, dial
from proxy.network.outages import Outages
from proxy.network.reactor import Reactor
from proxy.network.stream import Stream
from proxy.network.tls import ClientTls
from proxy.network.watches import Transcript
from proxy.protocols.dialogue import Failed, Login, MailProtocol, Ready, Upstream, UpstreamSettings

OPENING_LIMIT_S = 25.0  # token and upstream, with all tries: old programs give up after 60 s (CLIENTS 3.1, 4)
DIAL_LIMIT_S = 15.0
UNHEARD_PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before the next try where nobody answered; Dovecot waits 1 s (CLIENTS 3.1)
LONGEST_PAUSE_S = UNHEARD_PAUSES_S[-1]
REFUSED_PAUSES_S = (2.0,)  # where Exchange said "not now": once more only, since it counts connections (FACTS 2.3)


@dataclass(frozen=True, slots=True)
class OpenMailbox:
    """A session upstream, logged in."""

    connection: Connection[Upstream]
    ready: Ready


class Mailboxes:
    """Sessions at Exchange, for one configuration after the other."""

    def __init__(self, config: Config, tokens: Tokens, reactor: Reactor, metrics: Metrics | None = None) -> None:
        self.tokens = tokens
        self.metrics = metrics or Metrics()
        self.reactor = reactor
        self.client_tls = ClientTls()
        self.outages = Outages(reactor)
        self.announced: dict[Server, tuple[str, ...]] = {}
        """By each upstream, at its last login."""
        self.use(config)

    def use(self, config: Config) -> None:
        """For all logins from now on."""
        self.config = config
        self._only: dict[str, Server | None] = {name: config.only_upstream(name) for name in PROTOCOL_NAMES}

    def offers(self, protocol: MailProtocol) -> tuple[str, ...]:
        """What may be promised to who has not logged in: at most what upstream will offer; empty: what Exchange does.

        Where the accounts have different upstreams, that is the least that any has.
        """
        server = self._only[protocol.name]
        if server is None:
            return protocol.least_offers
        return self.announced.get(server, () if server.exchange else protocol.least_offers)

    def outage(self, protocol: MailProtocol) -> LoginRefused | None:
        """Why no login could reach its mailbox now, whoever it is; None if it may."""
        server = self._only[protocol.name]
        return self.outages.refusal(server) if server else None

    async def open(self, protocol: MailProtocol, account: Account, log: Log) -> OpenMailbox:
        """The account's mailbox, within the time that a mail program waits.

        Raises:
            LoginRefused: SIGN_IN_NEEDED, TRY_LATER, REFUSED_UPSTREAM, BUSY or MISCONFIGURED.
        """
        opening = _Opening(self, protocol, account, log)
        tries = Deferred.fromCoroutine(opening.run())
        try:
            return await tries.addTimeout(OPENING_LIMIT_S, self.reactor)
        except TimeoutError:
            raise _unheard(f"{opening.server.host} did not answer within {OPENING_LIMIT_S:g} seconds") from None


class _Opening:
    """One account's way to its mailbox."""

    def __init__(self, house: Mailboxes, protocol: MailProtocol, account: Account, log: Log) -> None:
        self._house = house
        self._protocol = protocol
        self._account = account
        self._user: str = getattr(account, protocol.speaks_as)
        self.server = house.config.upstream(account, protocol.name)
        self._log = log

    async def run(self) -> OpenMailbox:
        """Try, and try again where that may help."""
        for tries in count():
            try:
                return await self._open()
            except LoginRefused as refused:
                pause_s = self._pause_s(refused, tries)
                if pause_s is None:
                    raise
                detail = refused.detail or None
                self._log.info("mailbox not opened yet", reason=refused.text, detail=detail, again_in_s=pause_s)
            await deferLater(self._house.reactor, pause_s)
        raise AssertionError  # `count` has no end

    def _pause_s(self, refused: LoginRefused, tries: int) -> float | None:
        """Before the next try; None where none would help, or the trouble is known to last."""
        if refused.refusal is not Refusal.TRY_LATER or self._house.outages.refusal(self.server) is not None:
            return None
        if refused.again_in_s is not None:
            return refused.again_in_s if refused.again_in_s <= LONGEST_PAUSE_S else None
        pauses_s = REFUSED_PAUSES_S if refused.fault is Fault.EXCHANGE else UNHEARD_PAUSES_S
        return pauses_s[tries] if tries < len(pauses_s) else None

    async def _open(self) -> OpenMailbox:
        """Once; a token that Exchange refuses is refreshed, and tried once more."""
        watch = Stopwatch(self._house.metrics, self._house.reactor.seconds)
        bearer = await self._house.tokens.access(self._account, user=self._user)
        watch.finished("token")
        self._log.debug("token in hand", user=bearer.user)
        connection, outcome = await self._log_in(bearer)
        if isinstance(outcome, Failed) and outcome.refusal is Refusal.REFUSED_UPSTREAM:
            connection.abort()
            bearer = await self._house.tokens.access(self._account, user=self._user, fresh=True)
            connection, outcome = await self._log_in(bearer)
        match outcome:
            case Ready():
                return OpenMailbox(connection, outcome)
            case Failed():
                connection.abort()
                raise self._refused(outcome)
            case Lost(reason=reason, lasting=lasting):
                raise _unheard(
                    f"the connection to {self.server.host} failed: {reason}", again_in_s=math.inf if lasting else None
                )
            case Login():
                raise AssertionError("an upstream asks for no login")

    async def _log_in(self, bearer: Bearer) -> tuple[Connection[Upstream], Outcome]:
        house, server = self._house, self.server
        watch = Stopwatch(house.metrics, house.reactor.seconds)
        try:
            sock = await dial(server.host, server.port, limit_s=DIAL_LIMIT_S, reactor=house.reactor)
        except DialFailed as failed:
            house.outages.failed(server, str(failed))
            raise _unheard(f"no connection to {failed}") from None
        house.outages.reached(server)
        starttls = server.tls is UpstreamTls.STARTTLS
        transcript = Transcript("upstream", self._log, house.reactor.seconds) if self._log.debugs else None
        settings = UpstreamSettings(
            bearer=bearer, starttls=starttls, hostname=house.config.hostname, watched=transcript is not None
        )
        connection = Connection(
            self._protocol.upstream(settings),
            lambda stream: house.client_tls.start(stream, server).addCallback(lambda _: watch.finished("connect")),
            implicit_tls=not starttls,
            transcript=transcript,
        )
        stream = Stream(sock, house.reactor)
        stream.open(connection)
        outcome = await connection.outcome()
        match outcome:
            case Ready():
                watch.finished("upstream_login")
                house.client_tls.remember_session(stream, server)
                house.announced[server] = outcome.capabilities
                self._log.debug("upstream said yes", host=server.host)
            case Failed(refusal=refusal, detail=detail):
                watch.finished("upstream_login")
                self._log.info("upstream said no", host=server.host, refusal=refusal.value, detail=detail)
            case _:
                self._log.debug("upstream lost", host=server.host, state=connection.dialogue.state.name)
        return connection, outcome

    def _refused(self, failed: Failed) -> LoginRefused:
        explained = explain_exchange(self._protocol.name, failed.detail)
        account = self._account
        explained = explained.for_(
            mailbox=account.mailbox, user=account.sign_in, app=account.app.name, login=account.name
        )
        return explained.refuse(account.name, refusal=failed.refusal, detail=failed.detail)


def _unheard(what: str, *, again_in_s: float | None = None) -> LoginRefused:
    text = f"Not your password: {what}. It is tried again at the next login."
    return LoginRefused(Refusal.TRY_LATER, text, fault=Fault.NETWORK, again_in_s=again_in_s)
