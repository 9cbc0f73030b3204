"""The faults, one command: `tests/faults/run [--short] [--only NAMES] [--list]`.

Each is injected again and again into a running daemon with real mail programs' sessions before real Dovecot and
Postfix; then every message that a server said yes to is looked for, octet for octet. It prints a table for the README.
The exit code is 0 if nothing was lost.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from tests.faults.catalogue import FAULTS, run, table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests/faults/run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="as often as within tests/run")
    parser.add_argument("--only", default="", help="names, with commas between them")
    parser.add_argument("--list", action="store_true", help="the names")
    asked = parser.parse_args(arguments)
    if asked.list:
        print("\n".join(fault.name for fault in FAULTS))
        return 0
    names = [name for name in asked.only.split(",") if name]
    unknown = set(names) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no server is left behind
    started_s = time.monotonic()
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    findings = run(chosen, short=asked.short, told=lambda line: print(line, file=sys.stderr, flush=True))
    print(table(findings))
    injected, wrong = sum(one.injected for one in findings), sum(len(one.wrong) for one in findings)
    minutes = (time.monotonic() - started_s) / 60
    print(f"\n{injected:,} injections in {minutes:.0f} minutes; lost: {wrong or 'nothing'}.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
