"""A scripted Exchange on loopback: IMAP, POP3 and SMTP, each connection told by a test what to answer. Not a test.

What it is: blocking sockets, a thread for each connection, and for each connection one `Part`, in the order in which
they were announced. What it is not: a mail server; after a login it only keeps what it is sent. `stage.py` starts it.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Self

from proxy.demo.certificates import LocalCertificate
from proxy.login import Refusal
from proxy.protocols.dialogue import Ready

PATIENCE_S = 40.0  # a login may take the daemon 25 s, and IMAP's BYE behind a deferred one comes after 10
BIG_READ_OCTETS = 65_536
OFFERS: dict[str, tuple[str, ...]] = {
    "imap": (
        *("IMAP4", "IMAP4rev1", "AUTH=PLAIN", "AUTH=XOAUTH2", "SASL-IR", "UIDPLUS", "MOVE", "ID", "UNSELECT"),
        *("CHILDREN", "IDLE", "NAMESPACE", "LITERAL+"),
    ),
    "pop3": (),
    "smtp": (
        *("SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "AUTH LOGIN XOAUTH2"),
        *("8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"),
    ),
}
"""What Exchange announces (CLIENTS 2.2, 2.3)."""

_LONG_WORD = re.compile(rb"[A-Za-z0-9+/=._~-]{60,}")


class Wire:
    """One end of a connection. What does not come, or comes otherwise, is an AssertionError that shows no token."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None, server_name: str | None = None) -> None:
        """`context` is for `start_tls`; without `server_name` we are the server."""
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._context = context
        self._server_name = server_name
        self._unread = bytearray()

    def start_tls(self) -> None:
        assert self._context is not None
        assert not self._unread, f"in plain text, before TLS: {_shown(self._unread)}"
        as_server = self._server_name is None
        self._socket = self._context.wrap_socket(self._socket, server_side=as_server, server_hostname=self._server_name)

    def send(self, octets: bytes) -> None:
        with suppress(ConnectionError):  # who has gone meanwhile is noticed by what does not come
            self._socket.sendall(octets)

    def lines(self, count: int) -> bytes:
        """So many lines, with their ends; fewer if the peer closes before that."""
        while self._unread.count(b"\n") < count and self._fill():
            pass
        end = 0
        for _ in range(count):
            end = self._unread.find(b"\n", end) + 1 or len(self._unread)
        return self._take(end)

    def line(self) -> bytes:
        """A line without its end."""
        return self.lines(1).rstrip(b"\r\n")

    def expect(self, expected: bytes, *, free: Sequence[str] = ()) -> None:
        """Exactly these lines come next; where a text of `free` stands in them, any printable one may."""
        pattern = re.escape(expected)
        for text in free:
            pattern = pattern.replace(re.escape(text.encode()), rb"[ -~]+")
        came = self.lines(expected.count(b"\n"))
        assert re.fullmatch(pattern, came), f"expected {_shown(expected)}, and {_shown(came)} came"

    def rest(self) -> bytes:
        """All that still comes, until the peer closes."""
        while self._fill():
            pass
        return self._take(len(self._unread))

    def goodbye(self) -> bytes:
        """Say that nothing more will be sent; what comes until the peer closes too."""
        if not isinstance(self._socket, ssl.SSLSocket):
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            return self.rest()
        try:
            self._socket.unwrap()
        except ssl.SSLError as error:
            if error.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
                return self.rest() or b"(something)"
        except OSError:
            pass  # closed without a word
        return self._take(len(self._unread))

    def close(self) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                self._socket.unwrap()
        self._socket.close()

    def _fill(self) -> bool:
        try:
            octets = self._socket.recv(BIG_READ_OCTETS)
        except TimeoutError:
            raise AssertionError(f"nothing more came for {PATIENCE_S:g} s behind {_shown(self._unread)}") from None
        except (ConnectionError, ssl.SSLError):
            return False
        self._unread += octets
        return bool(octets)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken


def masked(octets: bytes | bytearray) -> bytes:
    """Without long words: a token may be among them."""
    return _LONG_WORD.sub(b"<long>", octets)


def _shown(octets: bytes | bytearray) -> str:
    return repr(masked(octets))


Part = Callable[[Wire], bytes]
"""What Exchange does on one connection, from the greeting on; the result is what it was sent behind the login."""


class Exchange:
    """A port for each protocol. With `starttls` they begin in plain text, otherwise with TLS."""

    def __init__(self, certificate: LocalCertificate, *, starttls: bool) -> None:
        self.starttls = starttls
        self._context = certificate.server_context()
        self._listening = {protocol: socket.create_server(("127.0.0.1", 0)) for protocol in OFFERS}
        self._due: dict[str, deque[tuple[Part, Future[bytes]]]] = {protocol: deque() for protocol in OFFERS}

    def __enter__(self) -> Self:
        for protocol in OFFERS:
            threading.Thread(target=self._listen, args=(protocol,), name=f"exchange {protocol}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for listening in self._listening.values():
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listening.close()

    def port(self, protocol: str) -> int:
        return int(self._listening[protocol].getsockname()[1])

    def perform(self, protocol: str, parts: Sequence[Part]) -> list[Future[bytes]]:
        """The next connections at this port play these parts, in this order. Whoever calls has the port for himself."""
        due = [(part, Future[bytes]()) for part in parts]
        self._due[protocol].extend(due)
        return [future for _, future in due]

    def forget(self, protocol: str) -> None:
        """The parts that nobody came for have failed."""
        while self._due[protocol]:
            _, future = self._due[protocol].popleft()
            future.set_exception(AssertionError("Exchange waited for another connection"))

    def _listen(self, protocol: str) -> None:
        while True:
            try:
                sock, _ = self._listening[protocol].accept()
            except OSError:
                return
            threading.Thread(target=self._play, args=(protocol, sock), daemon=True).start()

    def _play(self, protocol: str, sock: socket.socket) -> None:
        """One connection. Nobody is expected: it is closed, and the login behind it fails."""
        if not self._due[protocol]:
            sock.close()
            return
        part, future = self._due[protocol].popleft()
        wire = Wire(sock, self._context)
        try:
            if not self.starttls:
                wire.start_tls()
            result = part(wire)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            wire.close()


# The plain parts: Exchange lets in, or refuses, as FACTS 2 tells

Verdict = Ready | Refusal
Admits = Callable[[str, str], bool]
"""Whether Exchange knows this token, and opens this mailbox for it."""

_NO = {
    ("imap", Refusal.TRY_LATER): b"NO [UNAVAILABLE] Server busy",
    ("imap", Refusal.REFUSED_UPSTREAM): b"NO AUTHENTICATE failed.",
    ("imap", Refusal.BUSY): b"BAD Request is throttled. Suggested Backoff Time: 1 milliseconds",
    ("imap", Refusal.MISCONFIGURED): b"BAD Command received in Invalid state.",
    ("pop3", Refusal.TRY_LATER): b"-ERR [SYS/TEMP] Server error, your account is not blocked",
    ("pop3", Refusal.REFUSED_UPSTREAM): b"-ERR Authentication failure: unknown user name or bad password.",
    ("pop3", Refusal.BUSY): b"-ERR [IN-USE] Mailbox in use",
    ("pop3", Refusal.MISCONFIGURED): b"-ERR Command is not valid in this state.",
    ("smtp", Refusal.TRY_LATER): b"454 4.7.0 Temporary authentication failure",
    ("smtp", Refusal.REFUSED_UPSTREAM): b"535 5.7.3 Authentication unsuccessful",
    ("smtp", Refusal.BUSY): b"421 4.3.2 Too many connections",
    ("smtp", Refusal.MISCONFIGURED): b"502 5.5.1 Command not implemented",
}
"""MISCONFIGURED is said to STARTTLS, the others to the token. BUSY names no pause, which later scripts would feel."""


def part(protocol: str, verdict: Verdict, *, starttls: bool, admits: Admits) -> Part:
    """One login in Exchange's usual words. A refusal other than MISCONFIGURED comes only after a good token."""
    return partial(_PARTS[protocol], verdict=verdict, starttls=starttls, admits=admits)


def _imap(wire: Wire, *, verdict: Verdict, starttls: bool, admits: Admits) -> bytes:
    wire.send(b"* OK The Microsoft Exchange IMAP4 service is ready. [SABFADEAUAA=]\r\n")
    if starttls:
        tag = _tag(wire, rb"STARTTLS")
        if verdict is Refusal.MISCONFIGURED:
            return _refuse(wire, tag + _NO["imap", verdict])
        wire.send(tag + b"OK Begin TLS negotiation now.\r\n")
        wire.start_tls()
    tag, token = _tag_and_argument(wire, rb"AUTHENTICATE XOAUTH2 (\S+)")
    _admit(token, admits)
    if isinstance(verdict, Refusal):
        return _refuse(wire, tag + _NO["imap", verdict])
    wire.send(tag + f"OK {verdict.text}".rstrip().encode() + b"\r\n")
    capability, namespace = _tag(wire, rb"CAPABILITY"), _tag(wire, rb"NAMESPACE")
    if verdict.capabilities:
        wire.send(f"* CAPABILITY {' '.join(verdict.capabilities)}\r\n".encode())
    wire.send(capability + b'OK CAPABILITY completed.\r\n* NAMESPACE (("" "/")) NIL NIL\r\n' + verdict.untagged)
    wire.send(namespace + b"OK NAMESPACE completed.\r\n")
    return wire.rest()


def _pop3(wire: Wire, *, verdict: Verdict, starttls: bool, admits: Admits) -> bytes:
    wire.send(b"+OK The Microsoft Exchange POP3 service is ready. [TABPADYAUAAyADYANQA=]\r\n")
    if starttls:
        wire.expect(b"STLS\r\n")
        if verdict is Refusal.MISCONFIGURED:
            return _refuse(wire, _NO["pop3", verdict])
        wire.send(b"+OK Begin TLS\r\n")
        wire.start_tls()
    wire.expect(b"AUTH XOAUTH2\r\n")
    wire.send(b"+ \r\n")
    _admit(wire.line(), admits)
    if isinstance(verdict, Refusal):
        return _refuse(wire, _NO["pop3", verdict])
    wire.send(f"+OK {verdict.text}".rstrip().encode() + b"\r\n")
    return wire.rest()


def _smtp(wire: Wire, *, verdict: Verdict, starttls: bool, admits: Admits) -> bytes:
    wire.send(b"220 AM0PR01CA0001.outlook.office365.com Microsoft ESMTP MAIL Service ready\r\n")
    if starttls:
        wire.expect(b"EHLO mail.test\r\n")
        wire.send(b"250-AM0PR01CA0001.outlook.office365.com Hello\r\n250 STARTTLS\r\n")
        wire.expect(b"STARTTLS\r\n")
        if verdict is Refusal.MISCONFIGURED:
            return _refuse(wire, _NO["smtp", verdict])
        wire.send(b"220 2.0.0 SMTP server ready\r\n")
        wire.start_tls()
    wire.expect(b"EHLO mail.test\r\n")
    keywords = list(verdict.capabilities if isinstance(verdict, Ready) and verdict.capabilities else OFFERS["smtp"])
    if not any("XOAUTH2" in keyword.upper() for keyword in keywords):
        keywords.append("AUTH LOGIN XOAUTH2")
    wire.send("".join(f"250-{line}\r\n" for line in ["Hello", *keywords[:-1]]).encode())
    wire.send(f"250 {keywords[-1]}\r\n".encode())
    wire.expect(b"AUTH XOAUTH2\r\n")
    wire.send(b"334 \r\n")
    _admit(wire.line(), admits)
    if isinstance(verdict, Refusal):
        return _refuse(wire, _NO["smtp", verdict])
    wire.send(b"235 2.7.0 Authentication successful\r\n")
    return wire.rest()


_PARTS = {"imap": _imap, "pop3": _pop3, "smtp": _smtp}


def _refuse(wire: Wire, reply: bytes) -> bytes:
    wire.send(reply + b"\r\n")
    return wire.rest()


def _tag(wire: Wire, command: bytes) -> bytes:
    return _tag_and_argument(wire, command + b"()")[0]


def _tag_and_argument(wire: Wire, pattern: bytes) -> tuple[bytes, bytes]:
    """The tag, with the space behind it, and what is in the pattern's brackets."""
    line = wire.line()
    found = re.fullmatch(rb"(\S+ )" + pattern, line)
    assert found, f"expected {pattern!r}, and {_shown(line)} came"
    return found[1], found[2]


def _admit(response: bytes, admits: Admits) -> None:
    """Is it XOAUTH2 (FACTS 2.1), with a token that opens the mailbox?"""
    found = re.fullmatch(rb"user=([^\x01]+)\x01auth=Bearer ([^\x01]+)\x01\x01", base64.b64decode(response))
    assert found, "this is no XOAUTH2 response"
    assert admits(found[1].decode(), found[2].decode()), f"the token does not open {found[1].decode()}"
