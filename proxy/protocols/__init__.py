"""The three protocols by name. A fourth is one new file and one line here."""

from __future__ import annotations

from proxy.protocols.dialogue import MailProtocol
from proxy.protocols.imap import IMAP
from proxy.protocols.pop3 import POP3
from proxy.protocols.smtp import SMTP

PROTOCOLS: dict[str, MailProtocol] = {protocol.name: protocol for protocol in (IMAP, POP3, SMTP)}
