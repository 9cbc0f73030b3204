"""A reactor that tests turn by hand: real sockets, fake time; and peers, the far ends that a test plays.

What a descriptor's `doRead` and `doWrite` answer is treated as Twisted's asyncio reactor treats it: an exception, or a
returned reason, disconnects (`twisted.internet.asyncioreactor._readOrWrite`; the rest is Twisted's own mixin). What was
raised is kept in `failures`, and a test that expects it takes it from there.

What it is not: fast, or fair. Nothing here sleeps: a turn that finds nothing to do waits for the kernel, briefly.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReadDescriptor,
    IResolutionReceiver,
    IWriteDescriptor,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.network.reactor import Reactor

T = TypeVar("T")

MAX_IDLE_TURNS = 300  # in a row, each with a look at the kernel: something hangs
MAX_TURNS = 20_000  # far beyond what any test needs: something turns in circles
KERNEL_WAIT_S = 0.002  # one look at sockets when nothing was ready; loopback needs less
PEER_READ_OCTETS = 65_536
A_DAY_S = 86_400.0


class Hangs(AssertionError):
    """What was waited for did not come."""


@implementer(Reactor)
class TurningReactor(_DisconnectSelectableMixin, Clock):
    """Turned by `turn`, `turn_until` and `pass_time`."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()
        self._readers: dict[IReadDescriptor, int] = {}
        self._writers: dict[IWriteDescriptor, int] = {}
        self.resolver = FakeResolver()
        self.peers: list[Peer] = []
        self.at_end: list[Callable[[], None]] = []
        """What a test's own stand-ins do when it is over; what the program opens, it must close by itself."""
        self.failures: list[Exception] = []
        """What descriptors and delayed calls have raised; Twisted would log it."""

    # --- IReactorFDSet

    def addReader(self, reader: IReadDescriptor) -> None:
        if reader not in self._readers:
            self._readers[reader] = reader.fileno()
            self._watch(reader.fileno())

    def addWriter(self, writer: IWriteDescriptor) -> None:
        if writer not in self._writers:
            self._writers[writer] = writer.fileno()
            self._watch(writer.fileno())

    def removeReader(self, reader: IReadDescriptor) -> None:
        if reader in self._readers:
            self._watch(self._readers.pop(reader))

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        if writer in self._writers:
            self._watch(self._writers.pop(writer))

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        raise NotImplementedError

    def getReaders(self) -> list[IReadDescriptor]:
        return list(self._readers)

    def getWriters(self) -> list[IWriteDescriptor]:
        return list(self._writers)

    def is_reading(self, descriptor: object) -> bool:
        return descriptor in self._readers

    def is_writing(self, descriptor: object) -> bool:
        return descriptor in self._writers

    # --- IReactorPluggableNameResolver

    @property
    def nameResolver(self) -> IHostnameResolver:
        return cast("IHostnameResolver", self.resolver)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError

    # --- turning

    def turn(self, times: int = 1) -> None:
        """Look at the sockets once, then at the clock; each peer does what it can before."""
        for _ in range(times):
            self._turn(0)

    def turn_until(self, holds: Callable[[], object], *, waiting_for: str = "") -> None:
        """Turn until it holds.

        Raises:
            Hangs: it does not, and nothing else happens.
        """
        idle = 0
        while idle < MAX_IDLE_TURNS:
            if holds():
                return
            idle = 0 if self._turn(KERNEL_WAIT_S if idle else 0) else idle + 1
        raise Hangs(waiting_for or "what the test waits for does not happen")

    def settle(self, quiet_turns: int = 3) -> None:
        """Turn until nothing more happens by itself."""
        quiet = 0
        for _ in range(MAX_TURNS):
            quiet = 0 if self._turn(KERNEL_WAIT_S) else quiet + 1
            if quiet == quiet_turns:
                return
        raise Hangs("the reactor never comes to rest")

    def pass_time(self, seconds: float) -> None:
        """Let this much time pass, with every delayed call at its own moment, and the sockets looked at after each."""
        self.settle()
        end = self.rightNow + seconds
        while due := [call.getTime() for call in self.calls if call.getTime() <= end]:
            self.rightNow = max(self.rightNow, min(due))
            self._run_due()
            self.settle()
        self.rightNow = end
        self.settle()

    def close(self) -> None:
        """Let go of all that tests hold."""
        for peer in self.peers:
            peer.close()
        self._selector.close()

    def _turn(self, wait_s: float) -> bool:
        """Whether anything happened."""
        happened = sum(peer.pump() for peer in tuple(self.peers)) > 0  # each of them
        events = self._selector.select(wait_s) if self._selector.get_map() else []
        ready: list[tuple[bool, IReadDescriptor | IWriteDescriptor]] = []
        for key, mask in events:
            if mask & selectors.EVENT_READ:
                ready += [(True, reader) for reader, number in self._readers.items() if number == key.fd]
            if mask & selectors.EVENT_WRITE:
                ready += [(False, writer) for writer, number in self._writers.items() if number == key.fd]
        for is_read, descriptor in ready:
            if descriptor in (self._readers if is_read else self._writers):
                self._read_or_write(descriptor, is_read)
        return self._run_due() or bool(ready) or happened

    def _read_or_write(self, descriptor: IReadDescriptor | IWriteDescriptor, is_read: bool) -> None:
        descriptor.logPrefix()
        if descriptor.fileno() == -1:
            self._disconnectSelectable(descriptor, CONNECTION_LOST, is_read)
            return
        method = cast("IReadDescriptor", descriptor).doRead if is_read else cast("IWriteDescriptor", descriptor).doWrite
        why: Exception | Failure | None
        try:
            why = method()
        except Exception as error:
            why = error
            self.failures.append(error)
        if why:
            self._disconnectSelectable(descriptor, why, is_read)

    def _run_due(self) -> bool:
        """Run what is due now; what these calls add is for the next turn."""
        due = [call for call in self.calls if call.getTime() <= self.seconds()]
        for call in sorted(due, key=lambda call: call.getTime()):
            if call.active():
                self.calls.remove(call)
                call.called = 1
                try:
                    call.func(*call.args, **call.kw)
                except Exception as error:
                    self.failures.append(error)
        return bool(due)

    def _watch(self, number: int) -> None:
        """Tell the kernel who still waits for this descriptor."""
        events = selectors.EVENT_READ * (number in self._readers.values())
        events |= selectors.EVENT_WRITE * (number in self._writers.values())
        known = number in self._selector.get_map()
        if not events and known:
            self._selector.unregister(number)
        elif events and known:
            self._selector.modify(number, events)
        elif events:
            self._selector.register(number, events)


class FakeResolver:
    """Names that a test knows: `addresses[name]`; with `holds`, they are told when `tell` is called."""

    def __init__(self) -> None:
        self.addresses: dict[str, Sequence[str]] = {}
        self.holds = False
        self.asked: list[tuple[str, int]] = []
        self._waiting: list[tuple[IResolutionReceiver, str, int]] = []

    def resolveHostName(
        self, receiver: IResolutionReceiver, hostName: str, portNumber: int = 0, *_: object, **__: object
    ) -> IHostResolution:
        self.asked.append((hostName, portNumber))
        resolution = cast("IHostResolution", object())
        receiver.resolutionBegan(resolution)
        self._waiting.append((receiver, hostName, portNumber))
        if not self.holds:
            self.tell()
        return resolution

    def tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for receiver, name, port in waiting:
            for address in self.addresses.get(name, ()):
                kind = IPv6Address if ":" in address else IPv4Address
                receiver.addressResolved(kind("TCP", address, port))
            receiver.resolutionComplete()


class Peer:
    """The far end of a stream, played by the test: it sends, reads (unless `stalled`), speaks TLS, and leaves.

    Its TLS is OpenSSL over memory, so that nothing happens to the socket behind the test's back.
    """

    def __init__(self, sock: socket.socket, reactor: TurningReactor) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.got = bytearray()
        self.stalled = False
        self.record_octets = PEER_READ_OCTETS
        """TLS records are no larger than this."""
        self.at_eof = False
        self.truncated = False
        """TLS ended without close_notify."""
        self.lost: OSError | None = None
        self.tls: ssl.SSLObject | None = None
        self.tls_error: ssl.SSLError | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._shaking_hands = False
        self._unsaid = bytearray()
        self._raw = bytearray()
        self._to_shut_down = False
        self._fd_eof = False
        reactor.peers.append(self)

    # --- what the test has it do

    def say(self, data: bytes) -> None:
        """Send this, in TLS if it is active, as the stream takes it."""
        self._unsaid += data

    def say_raw(self, data: bytes) -> None:
        """Send this past TLS."""
        self._raw += data

    def start_tls(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None) -> None:
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._shaking_hands = True

    def sip(self, count: int) -> None:
        """Take a few octets off the wire though it is stalled."""
        with suppress(BlockingIOError):
            self._take(self.socket.recv(count))

    def close_write(self) -> None:
        """Half-close, once all is said: close_notify on TLS, then FIN."""
        self._to_shut_down = True

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave with a reset (TCP only)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    @property
    def unsaid(self) -> int:
        """What could not be sent yet."""
        return len(self._unsaid) + len(self._raw)

    def take(self) -> bytes:
        """What came since the last time."""
        got = bytes(self.got)
        self.got.clear()
        return got

    # --- its own turn

    def pump(self) -> bool:
        """Do what can be done without waiting. Whether anything was done."""
        if self.socket.fileno() < 0 or self.lost is not None:
            return False
        before = (len(self.got), self.unsaid, self.at_eof, self._shaking_hands, self._to_shut_down, self._fd_eof)
        try:
            self._pump()
        except (BlockingIOError, InterruptedError):
            pass
        except ssl.SSLError as error:
            self.tls_error = error
            self._raw += self._outgoing.read()
            with suppress(BlockingIOError, OSError):
                self._flush()
        except OSError as error:
            self.lost = error
        after = (len(self.got), self.unsaid, self.at_eof, self._shaking_hands, self._to_shut_down, self._fd_eof)
        return before != after

    def _pump(self) -> None:
        if self.tls is None:
            self._raw += self._unsaid
            self._unsaid.clear()
        elif self._shake_hands():
            self._encrypt()
        with suppress(BlockingIOError):
            self._flush()
        if self._to_shut_down and not self.unsaid:
            self._shut_down()
        if not self.stalled:
            self._read()

    def _shake_hands(self) -> bool:
        """Whether TLS is up."""
        if self._shaking_hands and self.tls is not None:
            try:
                self.tls.do_handshake()
                self._shaking_hands = False
            except ssl.SSLWantReadError:
                pass
            self._raw += self._outgoing.read()
        return not self._shaking_hands

    def _encrypt(self) -> None:
        assert self.tls is not None
        while self._unsaid and len(self._raw) < PEER_READ_OCTETS:
            del self._unsaid[: self.tls.write(self._unsaid[: self.record_octets])]
            self._raw += self._outgoing.read()

    def _flush(self) -> None:
        while self._raw:
            del self._raw[: self.socket.send(self._raw)]

    def _shut_down(self) -> None:
        self._to_shut_down = False
        if self.tls is not None:
            with suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
            self._raw += self._outgoing.read()
            self._flush()
        self.socket.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        try:
            data = b"" if self._fd_eof else self.socket.recv(PEER_READ_OCTETS)
        except BlockingIOError:
            data = None
        self._take(data)

    def _take(self, data: bytes | None) -> None:
        """What the wire gave: nothing (None), its end, or octets."""
        if data == b"":
            self._fd_eof = True
            self.at_eof = self.at_eof or self.tls is None
            self._incoming.write_eof()
        if self.tls is None:
            self.got += data or b""
            return
        if data:
            self._incoming.write(data)
        if not self._shake_hands() or self.at_eof:
            return
        try:
            while plain := self.tls.read(PEER_READ_OCTETS):
                self.got += plain
            self.at_eof = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.at_eof = True
        except ssl.SSLEOFError:
            self.at_eof = self.truncated = True
        self._raw += self._outgoing.read()


def socket_pair(kind: str = "unix", *, buffer_octets: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets: `unix` or `tcp`; small kernel buffers on request."""
    if kind == "unix":
        pair = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            near = socket.create_connection(listening.getsockname())
            pair = (near, listening.accept()[0])
    if buffer_octets is not None:
        for end in pair:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_octets)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_octets)
    return pair


def result(deferred: Deferred[T], reactor: TurningReactor) -> T:
    """What it comes to, in as many turns as it takes."""
    outcome = watch(deferred)
    reactor.turn_until(lambda: outcome, waiting_for="a Deferred")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


def watch(deferred: Deferred[T]) -> list[T | Failure]:
    """A list that gets its outcome; errors in it are handled."""
    outcome: list[T | Failure] = []

    def note(value: T | Failure) -> None:
        if isinstance(value, Failure):
            value.cleanFailure()
        outcome.append(value)

    deferred.addBoth(note)
    return outcome


def open_descriptors() -> set[str]:
    """What this process has open, by descriptor and kind."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return found


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Nothing that is opened within stays open."""
    before = open_descriptors()
    yield
    left = {one for one in open_descriptors() - before if "socket:" in one or "pipe:" in one}
    assert not left, f"descriptors left open: {left}"


@contextmanager
def turning_reactor() -> Iterator[TurningReactor]:
    """A reactor, and at its end a look at what is left.

    All peers leave and a day passes: whatever is open then is a leak, and whatever was raised is an error.
    """
    with no_descriptor_left():
        turning = TurningReactor()
        yield turning
        for end in turning.at_end:
            end()
        for peer in turning.peers:
            peer.close()
        turning.pass_time(A_DAY_S)
        left = [*turning.getReaders(), *turning.getWriters()]
        turning.close()
        assert not left, f"still watched: {left}"
    assert not turning.failures, f"raised in the reactor, and not expected by the test: {turning.failures}"
