"""Who stands behind a balancer: its PROXY header, read off a stream before anything else, and not an octet beyond it.

What it is: reading, with a time limit. What it is not: the header's grammar (`protocols/proxy_header.py`), nor the
decision who may send one. `session.py` calls it for connections from a listener's `proxy_protocol` networks.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from twisted.internet import error
from twisted.internet.defer import Deferred, TimeoutError
from twisted.python.failure import Failure

from proxy.network.reactor import Reactor
from proxy.network.stream import WOULD_BLOCK, Stream
from proxy.protocols.proxy_header import HeaderReader, NotAHeader

HEADER_LIMIT_S = 5.0  # it is sent at once; PROXY protocol §2 wants 3 s at least, for one retransmission by TCP


class NoHeader(Exception):
    """The balancer gave no PROXY header: abort the stream. The text, one printable line, is for the log."""


async def announced_peer(stream: Stream, reactor: Reactor) -> IPv4Address | IPv6Address | None:
    """Whom the balancer speaks for; None: the connection's own address stands. Called before `open` and `peek`.

    Afterwards the stream is as it was, with all that came behind the header still to be read.

    Raises:
        NoHeader: it is malformed, or did not come in time, or the connection ended.
    """
    header = _Header(stream)
    stream.read_with(header.read, header)
    stream.startReading()
    try:
        return await header.source.addTimeout(HEADER_LIMIT_S, reactor)
    except TimeoutError:
        raise NoHeader(
            f"no PROXY header came within {HEADER_LIMIT_S:g} seconds; is the balancer told to send it?"
        ) from None
    finally:
        stream.take_back()


class _Header:
    """What sits on the stream until the header is complete."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reader = HeaderReader()
        self.source: Deferred[IPv4Address | IPv6Address | None] = Deferred()
        """Fails with `NoHeader`."""

    def read(self) -> Exception | None:
        try:
            while self._reader.wanted:
                piece = bytearray(self._reader.wanted)
                count = self._stream.recv_into(memoryview(piece))
                if not count:
                    self._fail("the balancer left before its PROXY header was complete")
                    return None
                self._reader.feed(bytes(piece[:count]))
        except WOULD_BLOCK:
            return None
        except OSError as lost:
            return error.ConnectionLost(str(lost))
        except NotAHeader as wrong:
            self._fail(f"what came is no PROXY header: {wrong}")
            return None
        self.source.callback(self._reader.source)
        return None

    def _fail(self, why: str) -> None:
        self.source.errback(NoHeader(why))

    # StreamProtocol: only the loss of the stream is told; reading is ours

    def makeConnection(self, transport: Stream) -> None: ...
    def dataReceived(self, data: bytes) -> None: ...
    def readConnectionLost(self) -> None: ...
    def connectionLost(self, reason: Failure) -> None:
        self._fail(f"the connection ended before its PROXY header was complete: {reason.getErrorMessage()}")
