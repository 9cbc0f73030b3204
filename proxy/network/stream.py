"""A stream: a non-blocking socket that may speak TLS on the socket itself, as a Twisted descriptor.

It is a Twisted transport in every respect (write, producers, half-close, loseConnection), so an ordinary `Protocol`
sits on it during the login. It differs from Twisted's own in what touches the socket: TLS is the standard library's
`SSLSocket`, with no memory BIO between, because that halves the CPU of each relayed byte (SPEED.md). After the login
`relay.py` takes the reading side over with `read_with`, and writes past the buffer with `send_now`.

It does not know what the bytes mean, and no clock of its own closes it: deadlines belong to its owner.
"""

from __future__ import annotations

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

from proxy.network.farewell import close_notify
from proxy.network.reactor import Reactor

READ_OCTETS = 16_384  # one TLS record (RFC 8446 §5.1); a login's lines are far shorter
LINGER_S = 2.0  # a peer that still sends when we close gets this long to read our last words before a reset
DELIVERY_LIMIT_S = 180.0  # a peer that takes nothing of our last words for so long is left; as long as a login may take
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
        self._tls_started: Deferred[None] | None = None
        """Fires when TLS, which was asked for, is up or has failed."""
        self._shaking_hands = False
        self._write_wants_read = False
        self._read_wants_write = False
        self._reading = False
        self._read_due = False
        self._held = b""
        """Decrypted before our half-close, and not read yet."""
        self._farewell = b""
        """What is left of TLS's close_notify, encrypted already."""
        self._patience: IDelayedCall | None = None
        """Ends the closing of a stream whose peer does not do its part."""
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
        if self._shaking_hands:
            self._shake_hands()
            return None
        if self._write_wants_read:
            self._write_wants_read = False
            self.startWriting()
            if not self._reading:
                super().stopReading()
                return None
        return self._on_readable()

    def read_with(self, on_readable: Callable[[], Exception | None], protocol: StreamProtocol) -> None:
        """Hand the reading side over: whenever the socket is readable `on_readable` is called, which uses `recv_into`.

        It returns None, or the error that the connection is lost with. `protocol` is told when the connection is lost.
        """
        self._on_readable, self._protocol = on_readable, protocol

    def take_back(self) -> None:
        """End what `read_with` began before `open`: the stream does not read, and nobody sits on it."""
        self._on_readable, self._protocol = self._deliver, None
        self.stopReading()

    def recv_into(self, view: memoryview) -> int:
        """Read what is there; 0 at the end of the peer's data.

        Raises:
            WOULD_BLOCK: nothing is there now.
            OSError: the connection is lost.
        """
        if self._held:
            count = min(len(view), len(self._held))
            view[:count], self._held = self._held[:count], self._held[count:]
            return count
        try:
            return self._socket.recv_into(view)
        except ssl.SSLZeroReturnError:  # so `ssl` tells of the peer's close_notify after our own
            return 0

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
        if not self._read_due and (self._held or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending())):
            self._read_due = True
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
            data = self._held or self._socket.recv(READ_OCTETS)
        except ssl.SSLZeroReturnError:
            data = b""
        except WOULD_BLOCK as wants:
            self.note(wants)
            return None
        except OSError as lost:
            return error.ConnectionLost(str(lost))
        self._held = b""
        assert self._protocol is not None
        if not data:
            self.end_of_data()
            self._protocol.readConnectionLost()
            return None
        self._protocol.dataReceived(data)
        self.read_decrypted_soon()
        return None

    def _read_decrypted(self) -> None:
        self._read_due = False
        if not self._reading:
            return
        try:
            lost = self.doRead()
        except Exception as unforeseen:
            self._drop(unforeseen)  # as the reactor does with one in `doRead`
            raise
        if lost is not None:
            self._drop(lost)

    def note(self, wants: BaseException) -> None:
        """A read would block. If TLS must write before it can read, the next writable event tries it again."""
        if isinstance(wants, ssl.SSLWantWriteError):
            self._read_wants_write = True
            self.startWriting()

    # --- writing

    def doWrite(self) -> Exception | None:
        if self._shaking_hands:
            self._shake_hands()
            return None
        if self._farewell:
            return self._say_farewell()
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
        if self.connected and not self._shaking_hands and not self._writeDisconnected:
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
            super().startReading()  # for this only: who paused us is not asked to take data
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
            while sent < len(view):  # TLS takes all, or wants the same octets again
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
        fit), `OSError`, `ValueError` (no such host name can be), or the reason for which the connection was lost; the
        stream is then of no further use and its owner aborts it.
        """
        done: Deferred[None] = Deferred()
        self._tls_started = done

        def begin() -> None:
            try:
                self._socket = context.wrap_socket(
                    self._socket,
                    server_side=server_hostname is None,
                    server_hostname=server_hostname,
                    session=session,
                    do_handshake_on_connect=False,
                )
            except (OSError, ValueError) as failed:  # the peer left just now; or its name cannot be checked at all
                self._tls_ended(failed)
            else:
                self._shaking_hands = True
                self._shake_hands()

        self.stopReading()
        if self.unsent():
            self._tls_waiting = begin
        else:
            begin()
        return done

    def _shake_hands(self) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self.stopWriting()
            super().startReading()
        except ssl.SSLWantWriteError:
            self.startWriting()
        except (OSError, ValueError) as failed:
            self.stopReading()
            self.stopWriting()
            self._tls_ended(failed)
        else:
            if not self.unsent():
                self.stopWriting()
            self.startReading()
            self._tls_ended(None)

    def _tls_ended(self, failed: Exception | Failure | None) -> None:
        """The start of TLS, if one is under way, has come to this."""
        self._tls_waiting, self._shaking_hands = None, False
        started, self._tls_started = self._tls_started, None
        if started is None:
            return
        if failed is None:
            started.callback(None)
        else:
            started.errback(failed)

    # --- closing

    def loseConnection(self) -> None:
        """Close once all that was written has left, or the peer takes nothing more of it.

        Where TLS is about to start, only what was written in plain text can leave; in the middle of its handshake
        nothing can.
        """
        if self._shaking_hands:
            self.abortConnection()
        elif self.connected and not self.disconnecting:
            self._tls_waiting = None
            super().loseConnection()
            if self.connected:
                self._await_delivery(self.unsent())

    def _await_delivery(self, unsent_octets: int) -> None:
        """Look again after the limit: a peer that took nothing is left."""

        def look() -> None:
            if self.unsent() >= unsent_octets:
                self._drop(error.ConnectionLost("the peer takes nothing more"))
            else:
                self._await_delivery(self.unsent())

        self._be_patient(DELIVERY_LIMIT_S, look)

    def _closeWriteConnection(self) -> Exception | None:
        """All is sent: tell the peer that nothing more will come; its own data still does."""
        with suppress(OSError, ValueError):  # without a descriptor to lend, our end is told without TLS's own word
            if isinstance(self._socket, ssl.SSLSocket):
                if self.at_eof:
                    try:
                        self._socket.unwrap()  # nothing can come that it would lose
                    except ssl.SSLWantWriteError:  # no room now: what is left of it is kept
                        self._farewell = close_notify(self._socket)
                else:
                    self._hold_decrypted(self._socket)
                    self._farewell = close_notify(self._socket)
        return self._say_farewell()

    def _hold_decrypted(self, tls: ssl.SSLSocket) -> None:
        """OpenSSL throws a record away that it has decrypted, and nobody read, when it says close_notify."""
        if tls.pending():
            self._held = tls.recv(tls.pending())
            self.read_decrypted_soon()

    def _say_farewell(self) -> Exception | None:
        try:
            while self._farewell:
                self._farewell = self._farewell[socket.socket.send(self._socket, self._farewell) :]
            socket.socket.shutdown(self._socket, socket.SHUT_WR)  # `SSLSocket.shutdown` ends TLS for reading too
        except WOULD_BLOCK:
            self.startWriting()
            return None
        except OSError:
            self._farewell = b""  # the peer is gone; reading will say so
        self.stopWriting()
        return self._await_end() if self.disconnecting else None

    def _postLoseConnection(self) -> Exception | None:
        return self._closeWriteConnection()

    def _await_end(self) -> Exception | None:
        """All is said: give a peer that is still sending time to read it.

        To close with its octets unread would reset the connection, and a reset may overtake our last words.
        """
        if self.at_eof:
            return error.ConnectionDone()
        self._on_readable = self._discard
        super().startReading()
        self._be_patient(LINGER_S, lambda: self._drop(error.ConnectionDone()))
        return None

    def _be_patient(self, limit_s: float, then: Callable[[], None]) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._patience = self._reactor.callLater(limit_s, then)

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
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._socket.close()
        self._tls_ended(reason)
        if self._protocol is not None:
            self._protocol.connectionLost(reason)
