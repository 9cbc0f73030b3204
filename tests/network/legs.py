"""A stream with a peer at its other end, plain or TLS in either role: what most tests of this folder begin with."""

from __future__ import annotations

import ssl
import warnings
from dataclasses import dataclass, field
from typing import cast

from twisted.python.failure import Failure

from proxy.demo.certificates import LocalCertificate
from proxy.network.stream import Stream
from tests.network.turning import Peer, TurningReactor, result, socket_pair


@dataclass(frozen=True)
class Mode:
    """How a leg speaks: `version` None is plain; `role` is the stream's own in TLS."""

    version: ssl.TLSVersion | None = None
    role: str = "server"

    def __str__(self) -> str:
        return "plain" if self.version is None else f"{self.version.name}-{self.role}"


PLAIN = Mode()
TLS_MODES = [Mode(v, role) for v in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3) for role in ("server", "client")]
FRONT_TLS, UPSTREAM_TLS = TLS_MODES[2], TLS_MODES[3]
MODES = [PLAIN, *TLS_MODES]


@dataclass
class Recorder:
    """What sits on a stream in tests; `raises` is raised at the first data, `closes` closes at the first end."""

    raises: Exception | None = None
    closes: bool = False
    stream: Stream | None = None
    got: bytearray = field(default_factory=bytearray)
    ends: int = 0
    lost: list[Failure] = field(default_factory=list)

    def makeConnection(self, transport: Stream) -> None:
        self.stream = transport
        cast("TurningReactor", transport.reactor).at_end.append(transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        assert not self.lost
        self.got += data
        if self.raises is not None:
            raise self.raises

    def readConnectionLost(self) -> None:
        assert not self.lost
        self.ends += 1
        if self.closes and self.stream is not None:
            self.stream.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        reason.cleanFailure()
        self.lost.append(reason)


@dataclass
class Leg:
    stream: Stream
    peer: Peer
    recorder: Recorder


def contexts(certificate: LocalCertificate, version: ssl.TLSVersion | None) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's, for this version alone (or any, with None)."""
    pair = certificate.server_context(), certificate.client_context()
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for context in pair:
                context.minimum_version = context.maximum_version = version
    return pair


def leg(
    reactor: TurningReactor,
    certificate: LocalCertificate,
    mode: Mode = PLAIN,
    *,
    kind: str = "",
    buffer_octets: int | None = None,
    recorder: Recorder | None = None,
) -> Leg:
    """Connected, the handshake done, the recorder on it.

    Small buffers come with Unix sockets: TCP with them waits for its timers, in real time.
    """
    near, far = socket_pair(kind or ("unix" if buffer_octets else "tcp"), buffer_octets=buffer_octets)
    stream, peer = Stream(near, reactor), Peer(far, reactor)
    recorder = recorder or Recorder()
    stream.open(recorder)
    if mode.version is not None:
        server, client = contexts(certificate, mode.version)
        if mode.role == "server":
            peer.start_tls(client, server_side=False, server_hostname="localhost")
            up = stream.start_tls(server)
        else:
            peer.start_tls(server, server_side=True)
            up = stream.start_tls(client, server_hostname="localhost")
        result(up, reactor)
        reactor.settle()
    return Leg(stream, peer, recorder)
