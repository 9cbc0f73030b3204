"""The practice mailbox: a stand-in for Exchange Online, enough for a mail program to feel at home.

What it is: three servers on loopback (IMAP, POP3, SMTP) that take XOAUTH2 alone and answer in Exchange's words
(FACTS 2.2-2.5). What is sent arrives in the sender's own inbox, so that it can be read back. What it is not: a test
oracle; tests use real Dovecot. The harbour calls it. Folders are in `post_office.py`, the conversations in
`imap_server.py`, `pop3_server.py` and `smtp_server.py`.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from proxy.demo.certificates import LocalCertificate
from proxy.demo.conversation import Doorkeeper, Listener
from proxy.demo.imap_server import ImapConversation
from proxy.demo.pop3_server import Pop3Conversation
from proxy.demo.post_office import PostOffice
from proxy.demo.smtp_server import SmtpConversation


class PracticeMailbox:
    """The three servers, on their own threads between `start` and `stop`, or as a context manager."""

    def __init__(self, certificate: LocalCertificate, doorkeeper: Doorkeeper) -> None:
        self.post_office = PostOffice()
        context = certificate.server_context()
        self._listeners = {
            name: Listener(kind, context, doorkeeper, self.post_office)
            for name, kind in (("imap", ImapConversation), ("pop3", Pop3Conversation), ("smtp", SmtpConversation))
        }

    @property
    def ports(self) -> dict[str, int]:
        """By protocol: `imap` and `pop3` are TLS at once, `smtp` is STARTTLS."""
        return {name: listener.server_address[1] for name, listener in self._listeners.items()}

    def start(self) -> None:
        for name, listener in self._listeners.items():
            threading.Thread(target=listener.serve_forever, args=(0.05,), name=f"mailbox-{name}", daemon=True).start()

    def stop(self) -> None:
        for listener in self._listeners.values():
            listener.shutdown()
            listener.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
