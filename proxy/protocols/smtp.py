"""PURE: SMTP submission as a record. The two dialogues stand beside: `smtp_front.py`, `smtp_upstream.py`.

Called by `protocols/__init__.py`; what happens after the login is no matter of this floor.
"""

from __future__ import annotations

from proxy.protocols import parting
from proxy.protocols.dialogue import MailProtocol
from proxy.protocols.overheard import overhear_smtp
from proxy.protocols.smtp_front import SmtpFront
from proxy.protocols.smtp_upstream import SmtpUpstream

__all__ = ["SMTP", "SmtpFront", "SmtpUpstream"]

IDLE_LIMIT_S = 660  # RFC 5321 §4.5.3.2.6: a program waits ten minutes for the reply to DATA; a minute to spare

SMTP = MailProtocol(
    name="smtp",
    front=SmtpFront,
    upstream=SmtpUpstream,
    speaks_as="sign_in",  # Exchange compares with the token's own name (FACTS 2.6)
    idle_limit_s=IDLE_LIMIT_S,
    least_offers=("8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING"),  # every submission server of the last decade
    overhear=overhear_smtp,
    parting=parting.smtp,
)
