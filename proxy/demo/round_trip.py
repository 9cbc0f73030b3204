"""What a mail program does in the practice harbour: reads by IMAP and POP3, sends by SMTP, and finds what it sent.

What it is: steps that say what came of them, made with Python's own mail clients and the local login. What it is not:
the harbour. `journey.py` takes the steps and shows them.
"""

from __future__ import annotations

import imaplib
import poplib
import smtplib
import ssl
import uuid
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage

from proxy.demo.harbour import ANYBODY, Harbour
from proxy.demo.post_office import WELCOME
from proxy.demo.program import HarbourFailed

PATIENCE_S = 30.0  # for one answer of the daemon


class RoundTrip:
    """Each step raises HarbourFailed, or what the mail client raises, when it does not work."""

    def __init__(self, harbour: Harbour) -> None:
        self._harbour = harbour
        self._subject = f"Round trip {uuid.uuid4().hex[:8]}"

    def read_imap(self) -> str:
        with self._imap_plain() as client:
            return _read_welcome(client)

    def read_imap_tls(self) -> str:
        with self._imap_tls() as client:
            return f"{_read_welcome(client)}; same port, certificate verified"

    def read_pop3(self) -> str:
        client = poplib.POP3("localhost", self._harbour.ports["pop3"], timeout=PATIENCE_S)
        try:
            client.user(self._harbour.login)
            client.pass_(self._harbour.password)
            count, _ = client.stat()
            _expect_subject(b"\r\n".join(client.retr(1)[1]), WELCOME)
            client.quit()
        finally:
            client.close()
        return f"{count} messages"

    def send_smtp(self) -> str:
        message = EmailMessage()
        message["From"], message["To"] = self._harbour.login, ANYBODY
        message["Subject"] = self._subject
        message.set_content("Sent with a plain password, delivered with an OAuth2 token.\n")
        with smtplib.SMTP("localhost", self._harbour.ports["smtp"], timeout=PATIENCE_S) as client:
            client.starttls(context=self._trust())
            client.login(self._harbour.login, self._harbour.password)
            client.send_message(message)
        return f'"{self._subject}"; certificate verified'

    def read_back(self) -> str:
        with self._imap_plain() as client:
            client.select("INBOX")
            _, (found,) = client.search(None, "SUBJECT", f'"{self._subject}"')
            numbers = (found or b"").split()
            if len(numbers) != 1:
                raise HarbourFailed(f"The message was sent once, and is {len(numbers)} times in the inbox.")
            _expect_subject(_fetch(client, numbers[0].decode()), self._subject)
        return f'"{self._subject}"'

    def _imap_plain(self) -> imaplib.IMAP4:
        return self._logged_in(lambda port: imaplib.IMAP4("localhost", port, timeout=PATIENCE_S))

    def _imap_tls(self) -> imaplib.IMAP4:
        trust = self._trust()
        return self._logged_in(lambda port: imaplib.IMAP4_SSL("localhost", port, ssl_context=trust, timeout=PATIENCE_S))

    def _logged_in(self, connect: Callable[[int], imaplib.IMAP4]) -> imaplib.IMAP4:
        client = connect(self._harbour.ports["imap"])
        try:
            client.login(self._harbour.login, self._harbour.password)
        except BaseException:
            client.shutdown()
            raise
        return client

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._harbour.ca_file))


def _read_welcome(client: imaplib.IMAP4) -> str:
    _, (count,) = client.select("INBOX")
    _expect_subject(_fetch(client, "1"), WELCOME)
    return f"{int(count or 0)} messages"


def _fetch(client: imaplib.IMAP4, number: str) -> bytes:
    _, fetched = client.fetch(number, "(BODY.PEEK[])")
    for part in fetched:
        if isinstance(part, tuple):
            return part[1]
    raise HarbourFailed("The server sent no message.")


def _expect_subject(data: bytes, expected: str) -> None:
    subject = message_from_bytes(data, policy=policy.default)["Subject"]
    if subject != expected:
        raise HarbourFailed(f"The message read has the subject {subject!r}, not {expected!r}.")
