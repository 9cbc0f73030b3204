"""`python -m proxy` and the command `mailferry`: installs the asyncio reactor, then calls `app.cli`."""

from __future__ import annotations

import sys
import time

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.main import installReactor


def main() -> int:
    """Returns the exit code (PRODUCT section 2)."""
    reactor = AsyncioSelectorReactor()
    reactor.seconds = time.monotonic  # Twisted's own jumps with the machine's clock, and so would every timer
    installReactor(reactor)  # before anything imports twisted.internet.reactor (FACTS 7.2)
    from proxy.app.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
