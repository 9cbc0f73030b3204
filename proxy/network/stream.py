"""A stream: a non-blocking socket that may speak TLS on the socket itself, as a Twisted descriptor.

It is a Twisted transport in every respect (write, producers, half-close, loseConnection), so an ordinary `Protocol`
sits on it during the login. It differs from Twisted's own in what touches the socket: TLS is the standard library's
`SSLSocket`, with no memory BIO between, because that halves the CPU of each relayed byte (SPEED.md). After the login
`relay.py` takes the reading side over with `read_with`, and writes past the buffer with `send_now`.

It does not know what the bytes mean, and no clock of its own closes it: deadlines belong to its owner.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from twisted.internet import error
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from proxy.network.reactor import Reactor

READ_OCTETS = 16_384  # one TLS record (RFC 8446 §5.1); a login's lines are far shorter
LINGER_S = 2.0  # a peer that still sends when we close gets this long to read our last words before a reset
DELIVERY_LIMIT_S = 180.0
KEEPALIVE_IDLE_S = 60  # NATs forget silent connections (CLIENTS 4)
KEEPALIVE_INTERVAL_S = 30
KEEPALIVE_PROBES = 4

WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class StreamProtocol(Protocol):
    """What sits on a stream."""

    def makeConnection(self, transport: Stream) -> None: ...
    def dataReceived(self, data: bytes) -> None: ...
    def readConnectionLost(self) -> None:
        """The peer will send nothing more; writing still works."""
        ...

    def connectionLost(self, reason: Failure) -> None: ...


class Stream(FileDescriptor):
    """One leg of a session. `socket` is connected and becomes non-blocking."""

    bufferSize = 0  # a single unsent octet pauses the producer: nothing queues up behind a slow reader

    def __init__(self, sock: socket.socket, reactor: Reactor) -> None:
        super().__init__(reactor)
        self._reactor: Reactor = reactor
        self._socket = sock
        self._protocol: StreamProtocol | None = None
        self._on_readable: Callable[[], Exception | None] = self._deliver
        self._tls_waiting: Callable[[], None] | None = None
        """Starts the handshake, once all that was written in plain text has left."""
        self._handshake: Deferred[None] | None = None
        self._write_wants_read = False
        self._read_wants_write = False
        self._linger: IDelayedCall | None = None
        self._reading = False
        self.at_eof = False
        """The peer will send nothing more."""
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        self.connected = 1

    def open(self, protocol: StreamProtocol) -> None:
        """Let the protocol begin, and read."""
        self._protocol = protocol
        if not self.connected:  # lost while it was looked at
            protocol.connectionLost(Failure(error.ConnectionLost()))
            return
        self.startReading()
        protocol.makeConnection(self)

    # --- what Twisted asks of a descriptor

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "stream"

    # --- reading

    def doRead(self) -> Exception | None:
        if self._handshake is not None:
            return self._shake_hands()
        if self._write_wants_read:
            self._write_wants_read = False
            self.startWriting()
        return self._on_readable()

    def read_with(self, on_readable: Callable[[], Exception | None], protocol: StreamProtocol) -> None:
        """Hand the reading side over: whenever the socket is readable `on_readable` is called, which uses `recv_into`.

        It returns None, or the error that the connection is lost with. `protocol` is told when the connection is lost.
        """
        self._on_readable, self._protocol = on_readable, protocol

    def recv_into(self, view: memoryview) -> int:
        """Read what is there; 0 at the end of the peer's data.

        Raises:
            WOULD_BLOCK: nothing is there now.
            OSError: the connection is lost.
        """
        return self._socket.recv_into(view)

    def startReading(self) -> None:
        if self.at_eof or not self.connected:
            return
        self._reading = True
        super().startReading()
        self.read_decrypted_soon()

    def stopReading(self) -> None:
        self._reading = False
        super().stopReading()

    def read_decrypted_soon(self) -> None:
        """Read on in the next turn of the reactor, if TLS holds octets of which no poll will tell."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._reactor.callLater(0, self._read_decrypted)

    def end_of_data(self) -> None:
        """The reading side has come to the peer's end: no further reads."""
        self.at_eof = True
        self.stopReading()

    def peek(self, wait_s: float) -> Deferred[bytes]:
        """The first octet, left where it is; empty if none came within `wait_s`. Called before `open`."""
        seen: Deferred[bytes] = Deferred()

        def finish(first: bytes) -> None:
            if timer.active():
                timer.cancel()
            self._on_readable = self._deliver
            self.stopReading()
            if not seen.called:
                seen.callback(first)

        def look() -> Exception | None:
            try:
                finish(self._socket.recv(1, socket.MSG_PEEK))
            except WOULD_BLOCK:
                return None
            except OSError as lost:
                finish(b"")
                return error.ConnectionLost(str(lost))
            return None

        timer = self._reactor.callLater(wait_s, finish, b"")
        self._on_readable = look
        self.startReading()
        return seen

    def _deliver(self) -> Exception | None:
        try:
            data = self._socket.recv(READ_OCTETS)
        except WOULD_BLOCK as wants:
            self.note(wants)
            return None
        except OSError as lost:
            return error.ConnectionLost(str(lost))
        assert self._protocol is not None
        if not data:
            self.end_of_data()
            self._protocol.readConnectionLost()
            return None
        self._protocol.dataReceived(data)
        self.read_decrypted_soon()
        return None

    def _read_decrypted(self) -> None:
        if self._reading:
            lost = self.doRead()
            if lost is not None:
                self._drop(lost)

    def note(self, wants: BaseException) -> None:
        """A read would block. If TLS must write before it can read, the next writable event tries it again."""
        if isinstance(wants, ssl.SSLWantWriteError):
            self._read_wants_write = True
            self.startWriting()

    # --- writing

    def doWrite(self) -> Exception | None:
        if self._handshake is not None:
            return self._shake_hands()
        if self._read_wants_write:
            self._read_wants_write = False
            self._reactor.callLater(0, self._read_decrypted)
        lost = cast("Exception | None", super().doWrite())
        if lost is None and self._tls_waiting is not None and not self.unsent():
            begin, self._tls_waiting = self._tls_waiting, None
            begin()
        return lost

    def write(self, data: bytes) -> None:
        """Twisted's promise, kept sooner: what the socket takes leaves now, without a turn of the reactor."""
        if self.connected and self._handshake is None and not self._writeDisconnected:
            sent = self.send_now(memoryview(data))
            data = data[sent:] if sent else data
        super().write(data)

    def writeSomeData(self, data: bytes | memoryview) -> int | Exception:
        if not data:
            return 0
        try:
            return self._socket.send(data)
        except ssl.SSLWantReadError:
            self._write_wants_read = True
            self.stopWriting()
            self.startReading()
            return 0
        except WOULD_BLOCK:
            return 0
        except OSError as lost:
            return error.ConnectionLost(str(lost))

    def send_now(self, view: memoryview) -> int:
        """Send at once what the socket takes and return its count; 0 while earlier data is still unsent.

        A failing socket takes nothing here; the buffered write that follows meets the same error and reports it.
        """
        if self.unsent():
            return 0
        sent = 0
        try:
            while sent < len(view):  # TLS takes one record a call
                sent += self._socket.send(view[sent:] if sent else view)
        except OSError:
            pass
        return sent

    def unsent(self) -> int:
        """Octets written and not yet taken by the socket."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    # --- TLS

    @property
    def tls(self) -> ssl.SSLSocket | None:
        """The TLS socket, once TLS was started."""
        return self._socket if isinstance(self._socket, ssl.SSLSocket) else None

    def start_tls(
        self, context: ssl.SSLContext, *, server_hostname: str | None = None, session: ssl.SSLSession | None = None
    ) -> Deferred[None]:
        """Wrap this same socket, after all that is written has left. A `server_hostname` makes us the client.

        The Deferred fails with `ssl.SSLError` (its subclass `SSLCertVerificationError` for a certificate that does not
        fit) or `OSError`; the stream is then of no further use and its owner aborts it.
        """
        done: Deferred[None] = Deferred()

        def begin() -> None:
            try:
                self._socket = context.wrap_socket(
                    self._socket,
                    server_side=server_hostname is None,
                    server_hostname=server_hostname,
                    session=session,
                    do_handshake_on_connect=False,
                )
            except OSError as lost:  # the peer left just now
                done.errback(lost)
                return
            self._handshake = done
            lost_now = self._shake_hands()
            if lost_now is not None:
                self._drop(lost_now)

        self.stopReading()
        if self.unsent():
            self._tls_waiting = begin
        else:
            begin()
        return done

    def _shake_hands(self) -> Exception | None:
        assert self._handshake is not None
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self.stopWriting()
            super().startReading()
        except ssl.SSLWantWriteError:
            self.startWriting()
        except (OSError, ValueError) as failed:  # ValueError: the peer's name cannot be checked at all
            done, self._handshake = self._handshake, None
            self.stopReading()
            self.stopWriting()
            done.errback(failed)
        else:
            done, self._handshake = self._handshake, None
            if not self.unsent():
                self.stopWriting()
            self.startReading()
            done.callback(None)
        return None

    # --- closing

    def _closeWriteConnection(self) -> None:
        """All is sent: tell the peer that nothing more will come; its own data still does."""
        try:
            if isinstance(self._socket, ssl.SSLSocket):
                _send_close_notify(self._socket)
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer is gone; reading will say so

    def _postLoseConnection(self) -> Exception | None:
        """All is sent: say so, and give a peer that is still sending time to read it.

        To close with its octets unread would reset the connection, and a reset may overtake our last words.
        """
        self._closeWriteConnection()
        if self.at_eof:
            return error.ConnectionDone()
        self._on_readable = self._discard
        super().startReading()
        self._linger = self._reactor.callLater(LINGER_S, self._drop, error.ConnectionDone())
        return None

    def _discard(self) -> Exception | None:
        try:
            if not socket.socket.recv(self._socket, READ_OCTETS):  # past TLS: nobody will read this
                return error.ConnectionDone()
        except WOULD_BLOCK:
            return None
        except OSError as lost:
            return error.ConnectionLost(str(lost))
        return None

    def abortConnection(self) -> None:
        """Close at once; what is unsent is lost."""
        if self.connected:
            self._drop(error.ConnectionAborted())

    def readConnectionLost(self, reason: Failure) -> None:
        self.connectionLost(reason)

    def _drop(self, why: Exception) -> None:
        if self.connected:
            self.connectionLost(Failure(why))

    def connectionLost(self, reason: Failure) -> None:
        if not self.connected:
            return
        super().connectionLost(reason)
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._socket.close()
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.errback(reason)
        if self._protocol is not None:
            self._protocol.connectionLost(reason)


def _send_close_notify(tls: ssl.SSLSocket) -> None:
    """Send TLS's close_notify, and stay able to read.

    `SSLSocket.unwrap` also waits for the peer's own close_notify, and if it meets mail instead, that mail is lost: this
    is how proxies come to deliver nothing after a half-close. So the descriptor is lent another socket for the moment:
    OpenSSL writes its alert there and finds nothing to read, and we pass the alert on.
    """
    lent, alert_side = socket.socketpair()
    with lent, alert_side:
        lent.setblocking(False)
        alert_side.setblocking(False)
        kept = os.dup(tls.fileno())
        try:
            os.dup2(lent.fileno(), tls.fileno(), inheritable=False)
            try:
                tls.unwrap()
            except (ssl.SSLError, OSError, ValueError):
                pass  # "nothing to read" is what we want
            finally:
                os.dup2(kept, tls.fileno(), inheritable=False)
        finally:
            os.close(kept)
        with suppress(OSError):
            os.write(tls.fileno(), alert_side.recv(READ_OCTETS))
