"""A tap in the wire between a mail program and the daemon: which security was used, and in which form it logged in.

It passes every octet on as it came, and keeps the shape of each login command alone: no name, no password. Behind TLS
it sees nothing more. Called by `berth.py`. Not a test.
"""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.end_to_end.programs import Security
from tests.servers.child import free_port

CHUNK_OCTETS = 65_536
TLS_HANDSHAKE = b"\x16"  # the type of the first record (RFC 8446 §5.1)

# A line of the mail program, by protocol: what it is called in the table.
_FORMS = {
    "imap": (
        (rb'\S+ login "(?:[^"\\]|\\.)*" ', "LOGIN, quoted"),
        (rb"\S+ login \{\d+\+\}", "LOGIN, literal without waiting"),
        (rb"\S+ login \{\d+\}", "LOGIN, literal"),
        (rb'\S+ login \S+ "', "LOGIN, password quoted"),
        (rb"\S+ login \S+ ", "LOGIN, bare"),
        (rb"\S+ authenticate (\w+) \S", "AUTHENTICATE %s, initial response"),
        (rb"\S+ authenticate (\w+)", "AUTHENTICATE %s"),
    ),
    "pop3": (
        (rb"user ", "USER and PASS"),
        (rb"auth (\w+) \S", "AUTH %s, initial response"),
        (rb"auth (\w+)", "AUTH %s"),
    ),
    "smtp": (
        (rb"auth (\w+) \S", "AUTH %s, initial response"),
        (rb"auth (\w+)", "AUTH %s"),
    ),
}
_START_TLS = rb"(?:\S+ starttls|starttls|stls)\r?\n"
_OVER = {
    "imap": rb"\S+ (?:select|examine|list|status|append) ",
    "pop3": rb"(?:stat|list|uidl|retr)\b",
    "smtp": b"mail ",
}
"""From here on no login follows."""


class Tap:
    """A context manager: listens on a port of its own, on both loopback addresses, in front of the daemon's port."""

    def __init__(self, protocol: str, port: int) -> None:
        self.port = free_port()
        self.securities: set[Security] = set()
        self.logins: set[str] = set()
        self._protocol = protocol
        self._behind = port
        self._listeners: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with suppress(OSError):  # a machine without IPv6
                listener = socket.create_server((address, self.port), family=family)
                self._listeners.append(listener)
                self._start(self._accept, listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (*self._listeners, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _start(self, run: object, *arguments: object) -> None:
        assert callable(run)
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed: the end
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("localhost", self._behind))
                self._open |= {client, server}
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._start(self._pump, client, server, _Ear(self, self._protocol))
                self._start(self._pump, server, client, None)

    def _pump(self, source: socket.socket, sink: socket.socket, ear: _Ear | None) -> None:
        with suppress(OSError):
            while octets := source.recv(CHUNK_OCTETS):
                if ear is not None:
                    ear.hear(octets)
                sink.sendall(octets)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class _Ear:
    """What one connection's mail program says until it is logged in."""

    def __init__(self, tap: Tap, protocol: str) -> None:
        self._tap = tap
        self._protocol = protocol
        self._line = b""
        self._start_tls = False
        self._listens = True

    def hear(self, octets: bytes) -> None:
        if not self._listens:
            return
        if not self._line and octets.startswith(TLS_HANDSHAKE):
            self._tap.securities.add(Security.STARTTLS if self._start_tls else Security.TLS)
            self._listens = False
            return
        *lines, self._line = (self._line + octets).splitlines(keepends=True) + [b""] * octets.endswith(b"\n")
        for line in lines:
            self._hear_line(line)

    def _hear_line(self, line: bytes) -> None:
        if re.match(_START_TLS, line, re.IGNORECASE):
            self._start_tls = True
        elif re.match(_OVER[self._protocol], line, re.IGNORECASE):
            self._listens = False
        for pattern, form in _FORMS[self._protocol]:
            if found := re.match(pattern, line, re.IGNORECASE):
                self._tap.logins.add(form % found[1].decode().upper() if found.groups() else form)
                self._tap.securities.add(Security.PLAIN)
                return
