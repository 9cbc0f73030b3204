"""A stand-in for Exchange's IMAP server, made to be fast: the far end of every row of the benchmark.

What it is: one process, one blocking thread a session, TLS 1.3 from the first byte; literals are made up from memory
and thrown away on arrival, so that it never is the bottleneck. What it is not: a mailbox, or a test of correctness: it
believes every token. `__main__` starts it as a process of its own (`python upstream.py CERTIFICATE KEY`) and reads the
port from its first line of output.

Two requests steer it: `FETCH 1 BODY[]<0.N>` answers with a literal of N octets, and `APPEND STALL<S> {N}` waits
S seconds before it reads the literal. A client's half-close ends the session once everything owed is delivered.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import sys
import threading
import time
from io import BufferedReader
from typing import cast

PIECE_OCTETS = 262_144  # one write; OpenSSL cuts it into records of 16 KiB itself
RECORD_OCTETS = 16_384  # what one TLS record holds (RFC 8446 §5.1)
STACK_OCTETS = 262_144  # 5,000 threads stay small
BACKLOG = 4_096  # 5,000 sessions may come at once

_PIECE = memoryview((b"x" * 1022 + b"\r\n") * (PIECE_OCTETS // 1024))
_CAPABILITIES = (
    b"IMAP4 IMAP4rev1 AUTH=XOAUTH2 SASL-IR UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+"  # FACTS 2.2
)
_PARTIAL = re.compile(rb"<0\.(\d+)>")
_LITERAL = re.compile(rb"\{(\d+)(\+?)\}$")
_STALL = re.compile(rb"STALL(\d+)")


class _Gone(Exception):
    """The client sent its FIN or close_notify."""


class _Session:
    def __init__(self, stream: ssl.SSLSocket) -> None:
        self._stream = stream
        self._file = cast(BufferedReader, stream.makefile("rb", RECORD_OCTETS))

    def run(self) -> None:
        self._send(b"* OK The Microsoft Exchange IMAP4 service is ready.\r\n")
        while self._answer(*self._command()):
            pass

    def _send(self, data: bytes | memoryview) -> None:
        self._stream.sendall(data)

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise _Gone
        return line.rstrip(b"\r\n")

    def _command(self) -> tuple[bytes, bytes, bytes]:
        """Tag, verb in capitals, and the rest of the line."""
        tag, _, rest = self._line().partition(b" ")
        verb, _, arguments = rest.partition(b" ")
        return tag, verb.upper(), arguments

    def _answer(self, tag: bytes, verb: bytes, arguments: bytes) -> bool:
        """Answer one command, in one piece as Exchange does; False after LOGOUT."""
        untagged = b""
        match verb:
            case b"CAPABILITY":
                untagged = b"* CAPABILITY " + _CAPABILITIES + b"\r\n"
            case b"NAMESPACE":
                untagged = b'* NAMESPACE (("" "/")) NIL NIL\r\n'
            case b"AUTHENTICATE":
                if b" " not in arguments:
                    self._send(b"+ \r\n")
                    self._line()
                self._send(tag + b" OK [CAPABILITY " + _CAPABILITIES + b"] AUTHENTICATE completed.\r\n")
                return True
            case b"FETCH" | b"UID":
                self._fetch(arguments)
                untagged = b")\r\n"
            case b"APPEND":
                self._append(arguments)
            case b"IDLE":
                self._send(b"+ idling\r\n")
                self._line()
            case b"LOGOUT":
                untagged = b"* BYE\r\n"
            case _:
                pass
        self._send(untagged + tag + b" OK " + verb + b" completed.\r\n")
        return verb != b"LOGOUT"

    def _fetch(self, arguments: bytes) -> None:
        found = _PARTIAL.search(arguments)
        left = int(found[1]) if found else 0
        self._send(b"* 1 FETCH (BODY[]<0> {%d}\r\n" % left)
        while left > 0:
            self._send(_PIECE[:left])
            left -= PIECE_OCTETS

    def _append(self, arguments: bytes) -> None:
        found = _LITERAL.search(arguments)
        if not found:
            return
        if not found[2]:
            self._send(b"+ Ready for additional command text.\r\n")
        if stall := _STALL.search(arguments):
            time.sleep(int(stall[1]))
        left, buffer = int(found[1]), memoryview(bytearray(PIECE_OCTETS))
        while left > 0:
            if not (count := self._file.readinto(buffer[:left])):
                raise _Gone
            left -= count
        self._line()


def _serve(connection: socket.socket, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError, _Gone):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = context.wrap_socket(connection, server_side=True)
        with stream:
            with contextlib.suppress(_Gone):
                _Session(stream).run()
            stream.settimeout(5)
            with contextlib.suppress(OSError):
                stream.unwrap()


def main() -> None:
    certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # a bare FIN is a half-close too: what is owed is still delivered
    context.load_cert_chain(certificate, key)
    threading.stack_size(STACK_OCTETS)
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_serve, args=(connection, context), daemon=True).start()


if __name__ == "__main__":
    main()
