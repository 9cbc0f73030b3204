"""The ferry: every listener, and a session for everyone who comes in.

It knows nothing of logins. The daemon starts and stops it with the rest.
"""

from __future__ import annotations

import itertools
import os
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from twisted.internet.defer import Deferred

from proxy.accounts.passdb import PassDb
from proxy.config.settings import Config, Listener
from proxy.log import Log
from proxy.network.handed import Handed
from proxy.network.limits import MAX_SESSIONS
from proxy.network.port import Port, bind
from proxy.network.session import Door, Services, Session
from proxy.network.stream import Stream
from proxy.protocols import PROTOCOLS

DRAIN_LIMIT_S = 10.0  # what is kept is delivered within this time when the daemon stops
LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")  # `localhost` means both: Windows and Java try ::1 first

_serial = itertools.count(1)


class CannotListen(Exception):
    """An address is taken, not ours, or needs more rights; the text says which and why."""


class Ferry:
    """All listeners, and the sessions that came through them."""

    def __init__(
        self,
        services: Services,
        listeners: Sequence[tuple[Listener, ssl.SSLContext | None]],
        handed: Handed | None = None,
    ) -> None:
        """`handed`: the sockets that systemd holds for us."""
        self._services = services
        self._handed = handed or Handed()
        self._doors = [Door(listener, PROTOCOLS[listener.protocol], context) for listener, context in listeners]
        self._ports: list[Port] = []
        self._sessions: set[Session] = set()
        self._log = Log("listener")
        self._drained: Deferred[None] | None = None

    def start(self) -> None:
        """Bind every listener.

        Raises:
            CannotListen: nothing stays bound.
        """
        try:
            for door in self._doors:
                self._bind(door)
        except CannotListen:
            self._close_ports()
            raise
        self._handed.close_rest()

    async def stop(self) -> None:
        """Accept no more, tell the sessions, and give them a moment to end."""
        self._close_ports()
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
        return [f"{port.address} {port.number}" for port in self._ports if not port.accepts]

    def begin_proof(self) -> None:
        """Have every port show that it accepts; `deaf` tells a moment later."""
        for port in self._ports:
            port.begin_proof()

    def deaf(self) -> list[str]:
        """The ports that did not accept, as address and number."""
        return [f"{port.address} {port.number}" for port in self._ports if not port.end_proof()]

    def _bind(self, door: Door) -> None:
        listener = door.listener
        if claimed := self._handed.claim(listener):
            for sock in claimed:
                self._open(door, sock, "systemd")
            return
        both = listener.address == "localhost"
        number = listener.port
        for address in LOOPBACK_ADDRESSES if both else (listener.address,):
            if address == "::1" and both and not _has_ipv6_loopback():
                self._log.info("this machine has no IPv6 loopback", listener=listener.protocol)
                continue
            try:
                sock = bind(address, number)
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                raise CannotListen(f"{listener.protocol} cannot listen on {address} port {number}: {why}") from None
            number = self._open(door, sock).number  # port 0: the second family takes the first one's

    def _open(self, door: Door, sock: socket.socket, held_by: str | None = None) -> Port:
        port = Port(sock, partial(self._accepted, door), self._services.reactor)
        self._ports.append(port)
        listener = door.listener
        self._log.info(
            "listening",
            listener=listener.protocol,
            address=port.address,
            port=port.number,
            tls=listener.tls.value,
            held_by=held_by,
        )
        return port

    def _close_ports(self) -> None:
        for port in self._ports:
            port.close()
        self._ports = []

    def _accepted(self, door: Door, sock: socket.socket, peer: IPv4Address | IPv6Address) -> None:
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


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
