"""PURE: deferred failures, the words that IMAP's and POP3's fronts share (CLIENTS 3.3).

What they are: a login that fails though its password is right is answered yes, and what the mail program then asks of
the mailbox is answered with the reason. Some old programs forget a saved password after any no. What they are not:
SMTP's way, which tries again at MAIL and needs no limit.
"""

from __future__ import annotations

from proxy.login import Refusal

DEFERRABLE = frozenset(
    {
        Refusal.SIGN_IN_NEEDED,
        Refusal.TRY_LATER,
        Refusal.REFUSED_UPSTREAM,
        Refusal.BUSY,
        Refusal.MISCONFIGURED,
    }
)
"""What is known only once the password was found right. Were a wrong one among them, anyone would hear yes."""
DEFERRED_LIMIT_S = 10.0  # CLIENTS 3.3: then the program must come again, to a login that may hold
