"""Mail programs that keep account of every octet: sent, acknowledged, lying in the mailbox. Not a test.

A message is *lost* when a server's yes reached the program and the message is not in the mailbox; *altered* when
something lies there that was never sent so; *doubled* when it lies there more often than programs sent it. Of a message
without a yes, whole or not at all is right.
"""

from __future__ import annotations

import imaplib
import itertools
import os
import poplib
import random
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.faults.fleet import PASSWORD
from tests.servers.child import wait_until
from tests.servers.dovecot import Dovecot
from tests.servers.mailhost import DOMAIN, Person

TIMEOUT_S = 60.0
LINE_OCTETS = 78
DELIVERY_S = 30.0
STRANGER_WAITS_S = 1.0  # a no comes later, a yes sooner

_numbers = itertools.count(1)


class Refused(Exception):
    """A login was refused, or the connection was lost before it was accepted."""


Trouble = (Refused, OSError, EOFError, imaplib.IMAP4.error, poplib.error_proto, smtplib.SMTPException)
"""All that a program may meet when the sea is rough."""

BLAMES_PASSWORD = re.compile(r"AUTHENTICATIONFAILED|\[AUTH\]|\b535\b")


@dataclass(frozen=True, slots=True)
class Mail:
    marker: bytes
    octets: bytes = field(repr=False)


def new_mail(size_octets: int = 4_000) -> Mail:
    """A message that nobody sent before: text with 8-bit octets, and lines that begin with dots."""
    marker = b"m%d-%d-%s" % (os.getpid(), next(_numbers), os.urandom(6).hex().encode())
    head = _HEAD % {b"marker": marker, b"domain": DOMAIN.encode()}
    letters = random.Random(marker).randbytes(size_octets).translate(_PRINTABLE)
    lines = [letters[at : at + LINE_OCTETS] for at in range(0, size_octets, LINE_OCTETS)]
    return Mail(marker, head + b"".join(line + b"\r\n" for line in lines) + b"..\r\n.dot\r\n")


# With all that Postfix would else add.
_HEAD = b"""\
From: a@%(domain)s\r
To: b@%(domain)s\r
Subject: %(marker)s\r
Date: Mon, 30 Nov 2026 10:00:00 +0000\r
Message-ID: <%(marker)s@%(domain)s>\r
\r
"""
_PRINTABLE = bytes((octet % 94) + 33 if octet < 188 else 0xE4 if octet < 220 else 0x2E for octet in range(256))


class Ledger:
    """Who sent what to whom, and what the servers said. All methods may be called from any thread."""

    def __init__(self, dovecot: Dovecot) -> None:
        self._dovecot = dovecot
        self._lock = threading.Lock()
        self._sent: dict[str, dict[bytes, tuple[Mail, int, bool]]] = {}

    def sent(self, person: Person, mail: Mail, *, acknowledged: bool) -> None:
        with self._lock:
            mails = self._sent.setdefault(person.upn, {})
            _, times, before = mails.get(mail.marker, (mail, 0, False))
            mails[mail.marker] = (mail, times + 1, acknowledged or before)

    @contextmanager
    def sending(self, person: Person, mail: Mail) -> Iterator[None]:
        """Leaving without an exception means that the server said yes."""
        try:
            yield
        except BaseException:
            self.sent(person, mail, acknowledged=False)
            raise
        self.sent(person, mail, acknowledged=True)

    def deliver(self, person: Person, mail: Mail) -> None:
        """Put it into the mailbox past mailferry."""
        with smtplib.LMTP(str(self._dovecot.lmtp_socket)) as client:
            client.sendmail(f"sender@{DOMAIN}", [person.upn], mail.octets)
        self.sent(person, mail, acknowledged=True)

    def forget(self, person: Person, mail: Mail) -> None:
        """It was removed on purpose."""
        with self._lock:
            del self._sent[person.upn][mail.marker]

    @property
    def acknowledged(self) -> int:
        return sum(yes for mails in self._sent.values() for _, _, yes in mails.values())

    @property
    def unacknowledged(self) -> int:
        return sum(not yes for mails in self._sent.values() for _, _, yes in mails.values())

    def wait_delivered(self) -> None:
        """Postfix hands on what it said yes to a moment later."""
        wait_until("what was acknowledged is delivered", lambda: not self.lost(), DELIVERY_S)

    def lost(self) -> list[bytes]:
        found = {upn: self._found(upn) for upn in self._sent}
        return [
            marker
            for upn, mails in self._sent.items()
            for marker, (mail, _, yes) in mails.items()
            if yes and not any(_holds(each, mail) for each in found[upn])
        ]

    def altered(self) -> list[bytes]:
        """What lies in a mailbox and is not exactly something that was sent; by its first octets."""
        wrong = []
        for upn, mails in self._sent.items():
            for each in self._found(upn):
                if not any(_holds(each, mail) for mail, _, _ in mails.values()):
                    wrong.append(each[:80])
        return wrong

    def doubled(self) -> list[bytes]:
        wrong = []
        for upn, mails in self._sent.items():
            found = self._found(upn)
            for marker, (mail, times, _) in mails.items():
                if sum(_holds(each, mail) for each in found) > times:
                    wrong.append(marker)
        return wrong

    def holds(self, person: Person, mail: Mail) -> bool:
        """Whether it lies in this person's mailbox, octet for octet."""
        return any(_holds(each, mail) for each in self._found(person.upn))

    def lies(self, person: Person, octets: bytes) -> bool:
        """Whether exactly this lies there."""
        return octets in self._found(person.upn)

    def _found(self, upn: str) -> list[bytes]:
        while True:
            try:
                return self._dovecot.messages(upn)
            except FileNotFoundError:  # Dovecot renames what is seen
                continue


def _holds(lying: bytes, mail: Mail) -> bool:
    """Exactly as sent; below the trace lines that a delivery puts on top."""
    return lying == mail.octets or lying.endswith(b"\r\n" + mail.octets)


class Programs:
    """Real clients of one daemon; `tls`: by TLS at once, else in clear."""

    def __init__(self, ports: dict[str, int], context: ssl.SSLContext | None = None) -> None:
        self.ports = ports
        self._context = context
        self._counting = threading.Lock()
        self.logins = 0
        """That came through."""
        self.blamed: list[str] = []
        """What was said where a right password was called wrong: the program would ask its person for it."""

    def imap(self, person: Person, *, tls: bool = False, timeout_s: float = TIMEOUT_S) -> imaplib.IMAP4:
        """Raises: Refused."""
        with self._login():
            port = self.ports["imap"]
            client = (
                imaplib.IMAP4_SSL("localhost", port, ssl_context=self._context, timeout=timeout_s)
                if tls
                else imaplib.IMAP4("localhost", port, timeout=timeout_s)
            )
            try:
                client.login(person.upn, PASSWORD)
            except BaseException:
                client.shutdown()
                raise
            return client

    def pop3(self, person: Person, *, tls: bool = False) -> poplib.POP3:
        """Raises: Refused."""
        with self._login():
            port = self.ports["pop3"]
            client = (
                poplib.POP3_SSL("localhost", port, context=self._context, timeout=TIMEOUT_S)
                if tls
                else poplib.POP3("localhost", port, timeout=TIMEOUT_S)
            )
            try:
                client.user(person.upn)
                client.pass_(PASSWORD)
            except BaseException:
                client.close()
                raise
            return client

    def smtp(self, person: Person, *, tls: bool = False) -> smtplib.SMTP:
        """Raises: Refused."""
        with self._login():
            client = smtplib.SMTP("localhost", self.ports["smtp"], timeout=TIMEOUT_S)
            try:
                if tls:
                    client.starttls(context=self._context)
                client.login(person.upn, PASSWORD)
            except BaseException:
                client.close()
                raise
            return client

    @contextmanager
    def _login(self) -> Iterator[None]:
        try:
            yield
        except Trouble as error:
            text = f"{type(error).__name__}: {error}"
            if BLAMES_PASSWORD.search(text):
                self.blamed.append(text)
            raise Refused(text) from error
        with self._counting:
            self.logins += 1

    def append(self, ledger: Ledger, person: Person, mail: Mail, *, tls: bool = False) -> None:
        client = self.imap(person, tls=tls)
        try:
            with ledger.sending(person, mail):
                kind, said = client.append("INBOX", "", "", mail.octets)
                if kind != "OK":
                    raise Refused(repr(said))
        finally:
            leave_imap(client)

    def send(self, ledger: Ledger, person: Person, mail: Mail, *, tls: bool = False) -> None:
        """To himself."""
        client = self.smtp(person, tls=tls)
        try:
            with ledger.sending(person, mail):
                client.sendmail(person.upn, [person.upn], mail.octets)
        finally:
            with suppress(OSError, smtplib.SMTPException):
                client.quit()

    def turned_away(self, person: Person, source: str) -> bool:
        """A stranger tries a wrong password, from this address: whether he stays outside."""
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.ports["imap"]), STRANGER_WAITS_S, (source, 0)) as client,
        ):
            stream = client.makefile("rb")
            stream.readline()
            client.sendall(b'x LOGIN "%s" "%s"\r\n' % (person.upn.encode(), os.urandom(6).hex().encode()))
            while line := stream.readline():
                if line.startswith(b"x "):
                    return not line.startswith(b"x OK")
        return True


def fetched(client: imaplib.IMAP4, mail: Mail) -> bool:
    """Whether the mailbox holds this message, and gives it octet for octet."""
    client.select("INBOX")
    _, found = client.uid("SEARCH", "SUBJECT", mail.marker.decode())
    numbers = found[0].split() if found and found[0] else []
    for number in numbers:
        _, data = client.uid("FETCH", number.decode(), "(BODY.PEEK[])")
        if data and isinstance(data[0], tuple) and _holds(data[0][1], mail):
            return True
    return False


def leave_imap(client: imaplib.IMAP4) -> None:
    try:
        client.logout()
    except (OSError, imaplib.IMAP4.error):
        with suppress(OSError):
            client.shutdown()
