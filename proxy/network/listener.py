"""The ferry: every listener, and a session for everyone who comes in.

It knows nothing of logins. The daemon starts and stops it with the rest.
"""

from __future__ import annotations

import itertools
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred

from proxy.accounts.passdb import PassDb
from proxy.config.settings import Config, Listener
from proxy.log import Log
from proxy.network.doors import Doors
from proxy.network.handed import Handed
from proxy.network.limits import MAX_SESSIONS
from proxy.network.port import Peer
from proxy.network.session import Door, Services, Session
from proxy.network.stream import Stream
from proxy.protocols import PROTOCOLS

DRAIN_LIMIT_S = 10.0  # what is kept is delivered within this time when the daemon stops

Listeners = Sequence[tuple[Listener, ssl.SSLContext | None]]
"""Each with what it shows for TLS; None with `tls: off`."""

_serial = itertools.count(1)


class Ferry:
    """All listeners, and the sessions that came through them."""

    def __init__(self, services: Services, handed: Handed = ()) -> None:
        """`handed`: the sockets that systemd holds for us."""
        self._services = services
        self._doors = Doors(self._accepted, services.reactor, handed)
        self._sessions: set[Session] = set()
        self._log = Log("listener")
        self._drained: Deferred[None] | None = None

    def listen(self, listeners: Listeners) -> None:
        """Listen there and nowhere else, from now on; the sessions that run go on, wherever they came in.

        Raises:
            CannotListen: all is as it was.
        """
        self._doors.become([Door(listener, PROTOCOLS[listener.protocol], context) for listener, context in listeners])

    async def stop(self) -> None:
        """Accept no more, tell the sessions, and give them a moment to end."""
        self._doors.close()
        for session in tuple(self._sessions):
            session.stop()
        self._services.mailboxes.outages.stop()
        if self._sessions:
            self._drained = Deferred()
            await self._drained.addTimeout(DRAIN_LIMIT_S, self._services.reactor, onTimeoutCancel=lambda *_: None)

    def use(self, config: Config, passdb: PassDb) -> None:
        """For all sessions from now on; those that run keep what they began with."""
        self._services = replace(self._services, config=config, passdb=passdb)
        self._services.mailboxes.use(config)
        self._services.throttle.forget()

    @property
    def sessions(self) -> int:
        """How many there are now."""
        return len(self._sessions)

    @property
    def connections(self) -> Counter[str]:
        """The same by protocol."""
        return Counter(session.protocol for session in self._sessions)

    def shut(self) -> list[str]:
        """The ports through which nobody comes in now, as address and number; `deaf` proves more, and takes longer."""
        return [f"{port.address} {port.number}" for port in self._doors.ports if not port.accepts]

    def begin_proof(self) -> None:
        """Have every port show that it accepts; `deaf` tells a moment later."""
        for port in self._doors.ports:
            port.begin_proof()

    def deaf(self) -> list[str]:
        """The ports that did not accept, as address and number."""
        return [f"{port.address} {port.number}" for port in self._doors.ports if not port.end_proof()]

    def _accepted(self, door: Door, sock: socket.socket, peer: Peer) -> None:
        """A session for this connection, if there is room."""
        log = self._log.bind(session=f"{next(_serial):x}", listener=door.protocol.name, peer=str(peer))
        if len(self._sessions) >= MAX_SESSIONS:
            log.warning("connection refused", reason="too many sessions")
            self._services.metrics.connection_refused(door.protocol.name)
            sock.close()
        else:
            session = Session(door, self._services, peer, log)
            self._sessions.add(session)
            Deferred.fromCoroutine(self._serve(session, Stream(sock, self._services.reactor), log))

    async def _serve(self, session: Session, stream: Stream, log: Log) -> None:
        try:
            await session.run(stream)
        except Exception as error:
            log.failure("session failed", error)
            stream.abortConnection()
        finally:
            self._sessions.discard(session)
            if self._drained is not None and not self._sessions and not self._drained.called:
                self._drained.callback(None)
