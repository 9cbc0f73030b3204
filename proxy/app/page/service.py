"""The page's sockets: where it listens, and the bounds of every connection. Each carries one request.

A page that cannot listen does not keep the mail service from running: it is said in the log, and to whoever asks for a
link. Called by the daemon.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory
from twisted.internet.threads import deferToThreadPool
from twisted.web.http import HTTPChannel, Request

from proxy.app.answers import DeskError
from proxy.app.page.guard import Guard
from proxy.app.page.metrics import look
from proxy.app.page.returning import Returns
from proxy.app.page.site import Site
from proxy.app.page.wire import MAX_BODY_OCTETS, Received, Sent, Works, headers_for
from proxy.config.settings import LOOPBACK_ADDRESSES
from proxy.log import Log

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IListeningPort
    from twisted.python.failure import Failure

    from proxy.app.desk import Desk
    from proxy.app.office import Office
    from proxy.app.registry import Registry

MAX_CONNECTIONS = 64  # a browser opens six at once
MAX_HEADERS = 64  # browsers send some twenty
MAX_HEADER_OCTETS = 16_384  # all of a request's headers and its first line; cookies of other local programs come along
READ_LIMIT_S = 10.0  # from the connection to the whole request; browsers send theirs at once
ANSWER_LIMIT_S = 180.0  # doctor's slowest look at a network that swallows everything
WRITE_LIMIT_S = 30.0  # to take the answer; it fits into the system's buffers
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_REASONS = {400: b"Bad Request", 413: b"Content Too Large"}

log = Log("page")


def make_page(at: tuple[str, int], desk: Desk, registry: Registry, office: Office, reactor: Any) -> PageService:
    """The page of a daemon, which listens at this address and port once it is started."""

    def in_thread(job: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), job)

    address, port = at
    guard = Guard(address, port, reactor.seconds)
    returns = Returns(port, reactor.seconds)
    works = Works(desk, registry, returns, lambda: office.config, in_thread, office.metrics, partial(look, office))
    return PageService(Site(works, guard), guard, address, port, reactor)


class PageService:
    """Listens from `start` to `stop`."""

    def __init__(self, site: Site, guard: Guard, address: str, port: int, reactor: Any) -> None:
        self._guard = guard
        self._address = address
        self._port = port
        self._reactor = reactor
        self._factory = _Channels(site, reactor)
        self._ports: list[IListeningPort] = []
        self._trouble = "The page is not started yet."
        self._host = ""

    def start(self) -> None:
        """Listen; where that cannot be, say so and go on without the page."""
        everywhere = self._address in (*LOOPBACK_ADDRESSES, "localhost")
        if not everywhere:
            addresses: tuple[str, ...] = (self._address,)
        else:  # Microsoft sends the browser back to `localhost`, which is either of the two (FACTS 1.3)
            addresses = LOOPBACK_ADDRESSES if self._address != "::1" else LOOPBACK_ADDRESSES[::-1]
        try:
            self._listen(addresses[0])
        except CannotListenError as error:
            why = os.strerror(error.socketError.errno or 0)
            self._trouble = f"The page cannot listen on {self._address} port {self._port}: {why}."
            log.error("page cannot listen", address=self._address, port=self._port, reason=why, next="free the port")
            return
        alone = any(not self._listen_too(address) for address in addresses[1:])
        plain = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
        self._host = f"{plain if alone or not everywhere else 'localhost'}:{self._port}"
        self._trouble = ""
        log.info("page listening", address=f"http://{self._host}/", next="mailferry page prints a link that opens it")

    async def stop(self) -> None:
        self._trouble = "The page is stopping."
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        self._factory.abort()

    def link(self) -> str:
        """An address that opens the page, once. Raises: DeskError: the page does not listen."""
        if self._trouble:
            raise DeskError(f"{self._trouble} Choose another `page:` in the configuration, then: mailferry reload")
        return f"http://{self._host}/open/{self._guard.invite()}"

    def _listen(self, address: str) -> None:
        self._ports.append(self._reactor.listenTCP(self._port, self._factory, interface=address))

    def _listen_too(self, address: str) -> bool:
        """Also on the other loopback family. False: somebody else sits there, whom `localhost` may lead to."""
        try:
            self._listen(address)
        except CannotListenError as error:
            if error.socketError.errno not in _NO_IPV6:
                why = os.strerror(error.socketError.errno or 0)
                log.warning("page listens on one loopback only", missing=address, port=self._port, reason=why)
                return False
        return True


class _Request(Request):
    """One request: its body is bounded while it comes."""

    channel: _Channel

    def __init__(self, channel: _Channel, queued: object) -> None:
        super().__init__(channel, queued, parsePOSTFormSubmission=False)
        self._octets = 0

    def gotLength(self, length: int | None) -> None:
        Request.gotLength(self, min(length or 0, MAX_BODY_OCTETS))
        if (length or 0) > MAX_BODY_OCTETS:
            self.channel.refuse(413)

    def handleContentChunk(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > MAX_BODY_OCTETS:
            self.channel.refuse(413)
        else:
            Request.handleContentChunk(self, data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The whole request is here; what Twisted would parse of it, `wire.py` does."""
        assert self.content is not None
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, path, version
        headers = {
            name.decode("latin-1").lower(): [value.decode("latin-1") for value in values]
            for name, values in self.requestHeaders.getAllRawHeaders()
        }
        received = Received(command.decode("latin-1"), path, headers, self.content.read())
        factory = self.channel.factory
        work = Deferred.fromCoroutine(factory.site.respond(received))
        work.addTimeout(ANSWER_LIMIT_S, factory.clock)
        work.addCallbacks(self._answer, self._give_up)
        work.addErrback(_tell)

    def _answer(self, sent: Sent) -> None:
        if self._disconnected or self.finished:
            return
        self.setResponseCode(sent.status)
        for name, value in sent.headers:
            self.responseHeaders.addRawHeader(name, value)
        Request.write(self, sent.octets)
        Request.finish(self)

    def _give_up(self, failure: Failure) -> None:
        if not failure.check(CancelledError) and failure.value is not None:
            log.warning("page gave up", reason=type(failure.value).__name__)
        self._answer(Sent(504, (*headers_for("text/plain; charset=utf-8"), ("Content-Length", "0"))))


def _tell(failure: Failure) -> None:
    """An answer that could not be sent."""
    if failure.value is not None:
        log.failure("page not sent", failure.value)


class _Channel(HTTPChannel):
    """One connection, for one request, in bounded time."""

    maxHeaders = MAX_HEADERS
    totalHeadersSize = MAX_HEADER_OCTETS
    MAX_LENGTH = MAX_HEADER_OCTETS
    timeOut = None  # an idle limit would let a slow sender go on for ever; ours is for the whole request
    factory: _Channels
    transport: Any
    requestFactory: Any = _Request
    _limit: Any = None
    _refused = False

    def connectionMade(self) -> None:
        self._limit_to(READ_LIMIT_S)
        HTTPChannel.connectionMade(self)

    def dataReceived(self, data: bytes) -> None:
        if not self._refused:
            HTTPChannel.dataReceived(self, data)

    def allContentReceived(self) -> None:
        if self._refused:
            return
        self._limit_to(None)
        HTTPChannel.allContentReceived(self)

    def checkPersistence(self, request: Request, version: bytes) -> bool:  # noqa: ARG002
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def loseConnection(self) -> None:
        self._limit_to(WRITE_LIMIT_S)
        HTTPChannel.loseConnection(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._limit_to(None)
        self.factory.channels.discard(self)
        HTTPChannel.connectionLost(self, reason)

    def refuse(self, status: int) -> None:
        """Say no, and read no more."""
        if self._refused:
            return
        self._refused = True
        head = "".join(f"{name}: {value}\r\n" for name, value in headers_for("text/plain; charset=utf-8"))
        line = b"HTTP/1.1 %d %s\r\n" % (status, _REASONS[status])
        self.transport.write(line + head.encode() + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002
        self.refuse(400)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(400)

    def _send100Continue(self) -> None:
        if not self._refused:
            HTTPChannel._send100Continue(self)

    def _limit_to(self, limit_s: float | None) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        self._limit = None if limit_s is None else self.factory.clock.callLater(limit_s, self._expire)

    def _expire(self) -> None:
        self.transport.abortConnection()


class _Channels(ServerFactory):
    """Makes a channel for each connection, as many as there may be."""

    noisy = False
    protocol: Any = _Channel

    def __init__(self, site: Site, clock: Any) -> None:
        self.site = site
        self.clock = clock
        self.channels: set[_Channel] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if len(self.channels) >= MAX_CONNECTIONS:
            return None  # the transport is closed
        channel: Any = super().buildProtocol(addr)
        self.channels.add(channel)
        return channel

    def log(self, request: Request) -> None:
        """Not at all: an address may hold a link's token or a code."""

    def abort(self) -> None:
        """The daemon stops; nobody waits for a page."""
        for channel in tuple(self.channels):
            channel.transport.abortConnection()
