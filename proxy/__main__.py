"""`python -m proxy` and the command `mailferry`: installs the asyncio reactor, then calls `app.cli`."""

from __future__ import annotations

import sys

from twisted.internet import asyncioreactor


def main() -> int:
    """Returns the exit code (PRODUCT section 2)."""
    asyncioreactor.install()  # before anything imports twisted.internet.reactor (FACTS 7.2)
    from proxy.app.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
