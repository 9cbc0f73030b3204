"""The practice mailbox's folders, in memory: letters to begin with, delivery, and nothing kept at the end.

What it is not: a protocol. `mailbox.py` makes one `PostOffice`; the conversations read and change it.
"""

from __future__ import annotations

import datetime
import threading
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid

INBOX, SENT, DRAFTS, DELETED = "INBOX", "Sent Items", "Drafts", "Deleted Items"
SPECIAL_USE = {SENT: r"\Sent", DRAFTS: r"\Drafts", DELETED: r"\Trash"}
WELCOME = "Welcome to the practice harbour"
"""The subject of the first letter in every inbox."""
MAX_MESSAGE_OCTETS = 10 << 20  # memory is all there is
MAX_FOLDER_MESSAGES = 10_000  # memory again


class Full(Exception):
    """A folder or mailbox takes no more."""


@dataclass(slots=True, eq=False)
class Message:
    uid: int
    data: bytes
    received: datetime.datetime
    flags: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Folder:
    """Messages in the order of their UIDs. `messages` is replaced, never changed, so that readers need no lock."""

    name: str
    uid_validity: int = field(default_factory=lambda: int(datetime.datetime.now(datetime.UTC).timestamp()))
    next_uid: int = 1
    messages: tuple[Message, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: bytes, flags: set[str], received: datetime.datetime | None = None) -> Message:
        """Raises: Full."""
        with self._lock:
            if len(self.messages) >= MAX_FOLDER_MESSAGES:
                raise Full
            message = Message(self.next_uid, data, received or datetime.datetime.now(datetime.UTC), flags)
            self.next_uid += 1
            self.messages = (*self.messages, message)
        return message

    def remove(self, gone: set[Message]) -> None:
        with self._lock:
            self.messages = tuple(message for message in self.messages if message not in gone)


class PostOffice:
    """The mailboxes by name, in any case; each comes into being, with a few letters in it, when first opened."""

    def __init__(self) -> None:
        self._mailboxes: dict[str, dict[str, Folder]] = {}
        self._lock = threading.Lock()

    def open(self, mailbox: str) -> dict[str, Folder]:
        with self._lock:
            folders = self._mailboxes.setdefault(mailbox.casefold(), {})
            if not folders:
                folders.update({name: Folder(name) for name in (INBOX, SENT, DRAFTS, DELETED)})
                for letter in _first_letters(mailbox):
                    folders[INBOX].add(letter, set())
            return folders

    def deliver(self, mailbox: str, data: bytes) -> None:
        """Into its inbox; and a copy into Sent Items, as Exchange keeps it by itself (FACTS 3.1)."""
        folders = self.open(mailbox)
        folders[INBOX].add(data, set())
        folders[SENT].add(data, {r"\Seen"})


def _first_letters(mailbox: str) -> list[bytes]:
    now = datetime.datetime.now(datetime.UTC)
    letters = (
        (
            WELCOME,
            "You are reading this through mailferry.\n\n"
            "Your mail program logged in with a plain name and password. mailferry\n"
            "checked them, took an OAuth2 access token from the sign-in service, and\n"
            "opened this mailbox with it, as it does at Exchange Online.\n\n"
            "Service and mailbox are stand-ins on your own machine. Nothing leaves it;\n"
            "all is forgotten at the end.\n",
        ),
        (
            "Write to anybody",
            "Send a message to any address: nothing is sent anywhere. It arrives in\n"
            "this inbox, and a copy lies in Sent Items, since Exchange files what you\n"
            "send by itself.\n",
        ),
        (
            "Grüße aus Kiel ⚓",
            "This letter is not ASCII: fünf Schiffe, drei Möwen, ein Leuchtturm.\n"
            "If you can read it, so can your program.\n",
        ),
    )
    return [_letter(mailbox, subject, text, now - datetime.timedelta(minutes=5)) for subject, text in letters]


def _letter(mailbox: str, subject: str, text: str, date: datetime.datetime) -> bytes:
    message = EmailMessage()
    message["From"] = "The harbour master <harbour@localhost>"
    message["To"] = mailbox
    message["Subject"] = subject
    message["Date"] = format_datetime(date)
    message["Message-ID"] = make_msgid(domain="practice.localhost")
    message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
