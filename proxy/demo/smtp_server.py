"""The practice mailbox by SMTP (RFC 5321): STARTTLS, then XOAUTH2 as the person who signed in (FACTS 2.4, 2.6).

It offers what Exchange does (FACTS 2.2) but for DSN: delivery notifications are not written here.
"""

from __future__ import annotations

import email.utils
import re

from proxy.demo.conversation import PIECE_OCTETS, Conversation, Over, xoauth2
from proxy.demo.post_office import MAX_MESSAGE_OCTETS, Full

MAX_RECIPIENTS = 500  # Exchange Online's usual limit
BODY_TYPES = ("7BIT", "8BITMIME", "BINARYMIME")  # RFC 6152 §2, RFC 3030 §3


class SmtpConversation(Conversation):
    implicit_tls = False
    _token = ""
    _sign_in = ""
    _sender: str | None = None
    _binary = False
    """This message was announced as BINARYMIME, which comes by BDAT alone (RFC 3030 §3)."""

    def converse(self) -> None:
        self.say(f"220 localhost Microsoft ESMTP MAIL Service ready at {email.utils.formatdate()}")
        self._recipients: list[str] = []
        self._chunks = bytearray()
        while True:
            verb, _, rest = self.line().decode("utf-8", "replace").partition(" ")
            match verb.upper():
                case "EHLO" | "HELO":
                    self._greet(extended=verb.upper() == "EHLO")
                case "STARTTLS" if not self.tls_active:
                    self.say("220 2.0.0 SMTP server ready")
                    self.start_tls()
                    self._forget()
                case "AUTH":
                    self._authenticate(*rest.split(" ", 1))
                case "MAIL":
                    self._take_sender(rest)
                case "RCPT":
                    self._take_recipient(rest)
                case "DATA":
                    self._take_data()
                case "BDAT":
                    self._take_chunk(rest)
                case "RSET":
                    self._forget()
                    self.say("250 2.0.0 Resetting")
                case "NOOP":
                    self.say("250 2.0.0 OK")
                case "QUIT":
                    self.say("221 2.0.0 Service closing transmission channel")
                    raise Over
                case _:
                    self.say("500 5.3.3 Unrecognized command")

    def _greet(self, *, extended: bool) -> None:
        self._forget()
        lines = ["localhost Hello [127.0.0.1]"]
        if extended:
            lines += [f"SIZE {MAX_MESSAGE_OCTETS}", "PIPELINING", "ENHANCEDSTATUSCODES"]
            lines += ["AUTH XOAUTH2"] if self.tls_active else ["STARTTLS"]
            lines += ["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]
        self.say(*(f"250{'-' if n < len(lines) else ' '}{line}" for n, line in enumerate(lines, 1)))

    def _authenticate(self, mechanism: str, initial: str = "") -> None:
        if not self.tls_active or mechanism.upper() != "XOAUTH2":
            self.say("504 5.7.4 Unrecognized authentication type")
            return
        if not initial:
            self.say("334 ")
            initial = self.line().decode("ascii", "replace")
        user, token = xoauth2(initial.encode())
        upn = self.server.doorkeeper.user_of(token) if token else None
        if upn is None or upn.casefold() != user.casefold():
            self.say(f"535 5.7.3 Authentication unsuccessful [localhost {email.utils.formatdate()}]")
            return
        self._sign_in, self._token = upn, token
        self.say("235 2.7.0 Authentication successful")

    def _take_sender(self, rest: str) -> None:
        sender = _path(rest, "FROM")
        body = _parameter(rest, "BODY").upper() or BODY_TYPES[0]
        size = _parameter(rest, "SIZE") or "0"
        if not self._sign_in:
            self.say("530 5.7.57 Client not authenticated to send mail.")
        elif sender is None or body not in BODY_TYPES or not size.isdecimal():
            self.say("501 5.5.4 Invalid arguments")
        elif int(size) > MAX_MESSAGE_OCTETS:
            self.say("552 5.3.4 Message size exceeds fixed maximum message size")
        else:
            self._forget()
            self._sender, self._binary = sender, body == "BINARYMIME"
            self.say("250 2.1.0 Sender OK")

    def _take_recipient(self, rest: str) -> None:
        recipient = _path(rest, "TO")
        if self._sender is None:
            self.say("503 5.5.1 Bad sequence of commands")
        elif not recipient:
            self.say("501 5.1.3 Invalid address")
        elif len(self._recipients) >= MAX_RECIPIENTS:
            self.say("452 4.5.3 Too many recipients")
        else:
            self._recipients.append(recipient)
            self.say("250 2.1.5 Recipient OK")

    def _take_data(self) -> None:
        if not self._recipients or self._chunks or self._binary:
            self.say("503 5.5.1 Bad sequence of commands")
            return
        self.say("354 Start mail input; end with <CRLF>.<CRLF>")
        while (line := self.line()) != b".":
            if len(self._chunks) <= MAX_MESSAGE_OCTETS:
                self._chunks += line.removeprefix(b".") + b"\r\n"
        self._deliver()

    def _take_chunk(self, rest: str) -> None:
        """BDAT (RFC 3030 §2). Its octets come whatever we answer."""
        size, _, last = rest.strip().upper().partition(" ")
        if not size.isdecimal() or last not in ("", "LAST"):
            self.say("501 5.5.4 Invalid arguments")
            raise Over  # where the octets end, nobody knows
        left = int(size)
        while left:
            piece = self.octets(min(left, PIECE_OCTETS))
            left -= len(piece)
            if len(self._chunks) <= MAX_MESSAGE_OCTETS:
                self._chunks += piece
        if not self._recipients:
            self._forget()
            self.say("503 5.5.1 Bad sequence of commands")
        elif last:
            self._deliver()
        else:
            self.say(f"250 2.0.0 {size} octets received")

    def _deliver(self) -> None:
        """What lies in `_chunks`, into the inbox of who signed in."""
        if len(self._chunks) > MAX_MESSAGE_OCTETS:
            self.say("552 5.3.4 Message size exceeds fixed maximum message size")
        elif self._sender and not self.server.doorkeeper.may_open(self._token, self._sender):
            self.say(f"554 5.2.252 SendAsDenied; {self._sign_in} not allowed to send as {self._sender}")
        else:
            received = f"Received: from [127.0.0.1] by localhost (practice harbour); {email.utils.formatdate()}\r\n"
            try:
                self.server.post_office.deliver(self._sign_in, received.encode() + self._chunks)
            except Full:
                self.say("554 5.2.2 mailbox full")
            else:
                self.say("250 2.0.0 OK [practice harbour] Queued mail for delivery")
        self._forget()

    def _forget(self) -> None:
        self._sender, self._binary = None, False
        self._recipients.clear()
        self._chunks.clear()


def _path(text: str, word: str) -> str | None:
    """The address of `FROM:<…>` or `TO:<…>`; empty for the null path; None if it is not one."""
    match = re.match(rf"{word}:\s*<([^<>]*)>", text, re.IGNORECASE)
    return match[1] if match else None


def _parameter(text: str, keyword: str) -> str:
    """The value of `KEYWORD=…` behind a path (RFC 5321 §4.1.2); empty if it is not there."""
    match = re.search(rf">.*\s{keyword}=(\S*)", text, re.IGNORECASE)
    return match[1] if match else ""
