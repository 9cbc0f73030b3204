"""PURE: POP3 as a record. The two dialogues stand beside: `pop3_front.py`, `pop3_upstream.py`.

Called by `protocols/__init__.py`; what happens after the login is no matter of this floor.
"""

from __future__ import annotations

from proxy.protocols import parting
from proxy.protocols.dialogue import MailProtocol
from proxy.protocols.overheard import overhear_pop3
from proxy.protocols.pop3_front import Pop3Front
from proxy.protocols.pop3_upstream import Pop3Upstream

__all__ = ["POP3", "Pop3Front", "Pop3Upstream"]

IDLE_LIMIT_S = 600  # RFC 1939 §3: at least ten minutes

POP3 = MailProtocol(
    name="pop3",
    front=Pop3Front,
    upstream=Pop3Upstream,
    speaks_as="mailbox",
    idle_limit_s=IDLE_LIMIT_S,
    overhear=overhear_pop3,
    parting=parting.pop3,
)
