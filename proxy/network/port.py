"""A listening socket, as a descriptor of the reactor: it accepts, and hands each socket on.

It knows nothing of who may come in or what they want; `listener.py` does.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from proxy.log import Log

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from proxy.network.reactor import Reactor

BACKLOG = 1024  # hundreds of programs that start at nine o'clock; the kernel may cap it (net.core.somaxconn)
ACCEPTS_A_TURN = 64  # between two looks at the sessions that already run
PAUSE_WITHOUT_DESCRIPTORS_S = 1.0
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Accepted = Callable[[socket.socket, ipaddress.IPv4Address | ipaddress.IPv6Address], None]


@implementer(IReadDescriptor)
class Port:
    """Bound and listening from the start; `accepted` is called with each connected socket and its peer.

    Raises:
        OSError: the address is taken, not ours, or needs more rights.
    """

    def __init__(self, address: str, number: int, accepted: Accepted, reactor: Reactor) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, number), family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._accepted = accepted
        self._reactor = reactor
        self._log = Log("listener")
        self.address: str = self._socket.getsockname()[0]
        self.number: int = self._socket.getsockname()[1]
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "port"

    def doRead(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                accepted, address = self._socket.accept()
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._pause(error)
                return  # nobody is waiting, or somebody left again
            self._accepted(accepted, _peer(address[0]))

    def close(self) -> None:
        if self.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()

    def connectionLost(self, reason: Failure) -> None:
        self._log.error("listening socket lost", reason=reason.getErrorMessage())
        self.close()

    def _pause(self, error: OSError) -> None:
        """Out of descriptors: those who wait stay in the backlog, and the processor stays cool."""
        self._log.error("cannot accept", reason=str(error), port=self.number)
        self._reactor.removeReader(self)
        self._reactor.callLater(PAUSE_WITHOUT_DESCRIPTORS_S, self._resume)

    def _resume(self) -> None:
        if self.fileno() >= 0:
            self._reactor.addReader(self)


def _peer(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Without the zone of a link-local address, and plain IPv4 where it is only mapped."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
