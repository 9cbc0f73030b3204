"""PURE: IMAP as a protocol of the house: its front, its upstream, and the record that joins them.

What it is not: the conversations themselves, which stand in `imap_front.py` and `imap_upstream.py` over
`imap_grammar.py`. `protocols/__init__.py` lists the record.
"""

from __future__ import annotations

from proxy.protocols import parting
from proxy.protocols.dialogue import MailProtocol
from proxy.protocols.imap_front import ImapFront
from proxy.protocols.imap_upstream import ImapUpstream
from proxy.protocols.overheard import last_words, overhear_imap

IDLE_LIMIT_S = 31 * 60  # programs renew IDLE within 29 minutes (RFC 2177 §3; CLIENTS 4); RFC 9051 §5.4 wants 30

IMAP = MailProtocol(
    name="imap",
    front=ImapFront,
    upstream=ImapUpstream,
    speaks_as="mailbox",
    idle_limit_s=IDLE_LIMIT_S,
    overhear=overhear_imap,
    parting=parting.imap,
    last_words=last_words,
)
