"""Twisted's reactor, installed when the first one wants it: most commands only ask the daemon, and do without."""

from __future__ import annotations

import time
from typing import Any


def the_reactor() -> Any:
    """The asyncio reactor, the same at each call. Nothing else imports `twisted.internet.reactor` (FACTS 7.2)."""
    import twisted.internet

    if not hasattr(twisted.internet, "reactor"):
        from twisted.internet.asyncioreactor import AsyncioSelectorReactor
        from twisted.internet.main import installReactor

        ours = AsyncioSelectorReactor()
        ours.seconds = time.monotonic  # Twisted's own jumps with the machine's clock, and so would every timer
        installReactor(ours)
    from twisted.internet import reactor

    return reactor
