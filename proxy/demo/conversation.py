"""What the practice mailbox's three conversations share: lines over a socket that may be TLS, and reading XOAUTH2.

What it is not: a protocol; those are in `imap_server.py`, `pop3_server.py` and `smtp_server.py`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import socket
import socketserver
import ssl
from typing import Any, Protocol

from proxy.demo.post_office import PostOffice

MAX_LINE_OCTETS = 65_536  # a token is the longest thing on a line; RFC 4954 §4 asks for 12,288
IDLE_LIMIT_S = 1_800  # FACTS 3.2
PIECE_OCTETS = 65_536


class Doorkeeper(Protocol):
    """Who may come in; `identity.IdentityProvider` is one."""

    def user_of(self, token: str) -> str | None:
        """The UPN behind a token that is good for Exchange."""
        ...

    def may_open(self, token: str, mailbox: str) -> bool: ...


class Over(Exception):
    """The conversation ends here, by nobody's mistake worth telling."""


class Listener(socketserver.ThreadingTCPServer):
    """One protocol's port on 127.0.0.1; one thread a connection."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, kind: type[Conversation], context: ssl.SSLContext, doorkeeper: Doorkeeper, post_office: PostOffice
    ) -> None:
        self.context = context
        self.doorkeeper = doorkeeper
        self.post_office = post_office
        self.streams: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), kind)

    def server_close(self) -> None:
        super().server_close()
        for stream in list(self.streams):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


class Conversation(socketserver.BaseRequestHandler):
    """One connection. A protocol fills in `converse`."""

    implicit_tls = True
    server: Listener

    def converse(self) -> None:
        """Greet, then serve until `Over` or the peer is gone."""
        raise NotImplementedError

    def handle(self) -> None:
        self._buffer = bytearray()
        self.stream: Any = self.request
        self.tls_active = False
        with contextlib.suppress(OSError, Over):
            self.stream.settimeout(IDLE_LIMIT_S)
            self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.server.streams.add(self.stream)
            if self.implicit_tls:
                self.start_tls()
            self.converse()

    def finish(self) -> None:
        self.server.streams.discard(self.stream)
        with contextlib.suppress(OSError):
            self.stream.close()

    def start_tls(self) -> None:
        """What was sent in clear behind the command is dropped: it is an injection (RFC 3207 §4.2)."""
        self._buffer.clear()
        self.server.streams.discard(self.stream)
        self.stream = self.server.context.wrap_socket(self.stream, server_side=True)
        self.server.streams.add(self.stream)
        self.tls_active = True

    def say(self, *lines: str | bytes) -> None:
        self.stream.sendall(b"".join((one.encode() if isinstance(one, str) else one) + b"\r\n" for one in lines))

    def line(self) -> bytes:
        """The next line, without its end. Raises: Over, OSError."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE_OCTETS:
                raise Over
            self._receive()
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        return line

    def line_within(self, seconds: float) -> bytes | None:
        """The same, or None if it is not there in this time; what came of it is kept."""
        self.stream.settimeout(seconds)
        try:
            return self.line()
        except TimeoutError:
            return None
        finally:
            self.stream.settimeout(IDLE_LIMIT_S)

    def octets(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._receive()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _receive(self) -> None:
        piece = self.stream.recv(PIECE_OCTETS)
        if not piece:
            raise Over
        self._buffer += piece

    def mailbox_of(self, response: bytes) -> str | None:
        """The mailbox that this XOAUTH2 response (base64) opens, or None."""
        user, token = xoauth2(response)
        return user if token and self.server.doorkeeper.may_open(token, user) else None


def xoauth2(response: bytes) -> tuple[str, str]:
    """User and token of a response (FACTS 2.1); two empty texts if it is none."""
    try:
        text = base64.b64decode(response, validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    match = re.fullmatch("user=([^\x01]+)\x01auth=Bearer ([^\x01]+)\x01\x01", text)
    return (match[1], match[2]) if match else ("", "")
