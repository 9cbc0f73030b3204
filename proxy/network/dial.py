"""Connecting to upstream: names to addresses, addresses to a connected socket.

Addresses are tried as RFC 8305 says ("happy eyeballs"): IPv6 and IPv4 in turn, the next one a moment after the last,
and the first to answer wins. So a broken IPv6 path costs a quarter of a second, not a login.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from itertools import chain, zip_longest

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHostResolution, IResolutionReceiver, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.network.reactor import Reactor

NEXT_ADDRESS_AFTER_S = 0.25  # RFC 8305 §5
MAX_ADDRESSES = 8  # Exchange has a dozen; eight dead ones mean that the network is

Address = tuple[socket.AddressFamily, str, int]


class DialFailed(Exception):
    """No connection to upstream; the text says why."""


async def dial(host: str, port: int, *, limit_s: float, reactor: Reactor) -> socket.socket:
    """A connected, non-blocking TCP socket.

    Raises:
        DialFailed: the name has no address, or none answered within `limit_s`.
    """
    attempt = _Attempt(host, port, reactor)
    timer = reactor.callLater(limit_s, attempt.give_up, f"no answer within {limit_s:g} s")
    try:
        return await attempt.socket
    finally:
        if timer.active():
            timer.cancel()


def interleaved(addresses: list[Address]) -> list[Address]:
    """IPv6 and IPv4 in turn, in the resolver's order otherwise (RFC 8305 §4)."""
    six = [address for address in addresses if address[0] == socket.AF_INET6]
    four = [address for address in addresses if address[0] == socket.AF_INET]
    return [address for address in chain.from_iterable(zip_longest(six, four)) if address][:MAX_ADDRESSES]


def _literal(host: str) -> tuple[socket.AddressFamily, str] | None:
    """An address that stands in a name's place."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (socket.AF_INET if address.version == 4 else socket.AF_INET6), host


@implementer(IResolutionReceiver)
class _Attempt:
    """All that runs until the first socket is connected. It is its own receiver of the name's addresses."""

    def __init__(self, host: str, port: int, reactor: Reactor) -> None:
        self.socket: Deferred[socket.socket] = Deferred(lambda _: self._stop())
        self._host, self._port, self._reactor = host, port, reactor
        self._addresses: list[Address] = []
        self._connecting: set[_Connecting] = set()
        self._next: IDelayedCall | None = None
        self._last_error = "the name has no address"
        if address := _literal(host):  # nothing to ask a resolver's thread about
            self._addresses.append((*address, port))
            self.resolutionComplete()
        else:
            reactor.nameResolver.resolveHostName(self, host, port)

    # IResolutionReceiver

    def resolutionBegan(self, resolution: IHostResolution) -> None: ...

    def addressResolved(self, address: object) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
            self._addresses.append((family, address.host, self._port))

    def resolutionComplete(self) -> None:
        self._addresses = interleaved(self._addresses)
        self._try_next()

    # one address after the other

    def _try_next(self) -> None:
        if self.socket.called:
            return
        if self._next is not None and self._next.active():
            self._next.cancel()
        if not self._addresses:
            if not self._connecting:
                self.give_up(self._last_error)
            return
        try:
            self._connecting.add(_Connecting(self._addresses.pop(0), self, self._reactor))
        except OSError as error:  # no descriptor is left, or this machine lacks the family
            self._last_error = str(error.strerror)
            self._try_next()
            return
        if self._addresses:
            self._next = self._reactor.callLater(NEXT_ADDRESS_AFTER_S, self._try_next)

    def connected(self, connecting: _Connecting) -> None:
        self._connecting.discard(connecting)
        self._stop()
        if self.socket.called:
            connecting.close()
        else:
            self.socket.callback(connecting.socket)

    def failed(self, connecting: _Connecting, why: str) -> None:
        self._connecting.discard(connecting)
        self._last_error = why
        self._try_next()

    def give_up(self, why: str) -> None:
        self._stop()
        if not self.socket.called:
            self.socket.errback(Failure(DialFailed(f"{self._host}:{self._port}: {why}")))

    def _stop(self) -> None:
        self._addresses = []
        if self._next is not None and self._next.active():
            self._next.cancel()
        for connecting in tuple(self._connecting):
            connecting.close()
        self._connecting.clear()


@implementer(IWriteDescriptor)
class _Connecting:
    """A connect under way, as a descriptor of the reactor: writable means that it ended."""

    def __init__(self, address: Address, attempt: _Attempt, reactor: Reactor) -> None:
        family, host, port = address
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self._attempt, self._reactor = attempt, reactor
        status = self.socket.connect_ex((host, port))
        if status in (0, errno.EINPROGRESS):
            reactor.addWriter(self)
        else:  # at once: told in the next turn, like the rest
            reactor.callLater(0, self._failed, status)

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "dial"

    def doWrite(self) -> None:
        self._reactor.removeWriter(self)
        status = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            self._failed(status)
        else:
            self._attempt.connected(self)

    def connectionLost(self, reason: Failure) -> None:
        self.close()
        self._attempt.failed(self, reason.getErrorMessage())

    def _failed(self, status: int) -> None:
        self.close()
        self._attempt.failed(self, os.strerror(status))

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self._reactor.removeWriter(self)
            self.socket.close()
