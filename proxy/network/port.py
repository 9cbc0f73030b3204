"""A listening socket, as a descriptor of the reactor: it accepts, hands each socket on, and can prove that it does.

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

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a socket on all addresses is reached

Peer = ipaddress.IPv4Address | ipaddress.IPv6Address
Accepted = Callable[[socket.socket, Peer], None]


def bind(address: str, number: int) -> socket.socket:
    """A socket that listens there. Raises: OSError: the address is taken, not ours, or needs more rights."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, number), family=family, backlog=BACKLOG)


@implementer(IReadDescriptor)
class Port:
    """On a socket that listens; `accepted` is called with each connected socket and its peer."""

    def __init__(self, listening: socket.socket, accepted: Accepted, reactor: Reactor) -> None:
        self._socket = listening
        self._socket.setblocking(False)
        self._resting = False
        self._knock: socket.socket | None = None
        self._knock_name: tuple[object, ...] = ()
        self._heard = False
        self.accepted = accepted
        """May change at any time."""
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
            if self._knock and address[:2] == self._knock_name:
                self._heard = True
                accepted.close()
            else:
                self.accepted(accepted, _peer(address[0]))

    @property
    def accepts(self) -> bool:
        """Whether it listens, and has descriptors left for those who come."""
        return self.fileno() >= 0 and not self._resting

    def begin_proof(self) -> None:
        """Connect to ourselves, the way that everybody comes in; `end_proof` tells whether that was accepted."""
        self._forget_knock()
        if self.fileno() < 0 or self._resting:
            return
        host, *rest = self._socket.getsockname()
        try:
            knock = socket.socket(self._socket.family, socket.SOCK_STREAM)
        except OSError:
            return  # no descriptor left: nothing is proved, and it has been told at the last accept
        knock.setblocking(False)
        knock.connect_ex((_ANY.get(host, host), *rest))
        self._knock, self._knock_name = knock, knock.getsockname()[:2]

    def end_proof(self) -> bool:
        """Whether the connection was accepted; also true where none can be made, which a restart would not mend."""
        if self.fileno() < 0:
            return False
        accepts = self._heard or self._resting or self._knock is None or not _waits_in_vain(self._knock)
        self._forget_knock()
        return accepts

    def _forget_knock(self) -> None:
        if self._knock:
            self._knock.close()
        self._knock, self._heard = None, False

    def close(self) -> None:
        self._forget_knock()
        if self.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()

    def connectionLost(self, reason: Failure) -> None:
        self._log.error("listening socket lost", reason=reason.getErrorMessage())
        self.close()

    def _pause(self, error: OSError) -> None:
        """Out of descriptors: those who wait stay in the backlog, and the processor stays cool."""
        self._log.error("cannot accept", reason=str(error), port=self.number)
        self._resting = True
        self._reactor.removeReader(self)
        self._reactor.callLater(PAUSE_WITHOUT_DESCRIPTORS_S, self._resume)

    def _resume(self) -> None:
        self._resting = False
        if self.fileno() >= 0:
            self._reactor.addReader(self)


def _waits_in_vain(knock: socket.socket) -> bool:
    """Whether this connection stands, accepted by the kernel alone, or is refused.

    One that is still on its way, or for which there is no way (an interface is down), says nothing about us.
    """
    try:
        knock.getpeername()
    except OSError:
        return knock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    return True


def _peer(host: str) -> Peer:
    """Without the zone of a link-local address, and plain IPv4 where it is only mapped."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
