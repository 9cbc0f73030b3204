"""`python -m proxy` and the command `mailferry`."""

from __future__ import annotations

import sys

from proxy.app.cli import run


def main() -> int:
    """Returns the exit code (PRODUCT section 2)."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
