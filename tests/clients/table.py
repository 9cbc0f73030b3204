"""The table of mail programs: `table.md`, written when all of them were driven in one run; the README quotes it.

Not a test: `test_table.py` compares both.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Callable

from tests.clients.berth import DRIVEN, ENTRIES, HERE, Entry
from tests.end_to_end.programs import Security

TABLE = HERE / "table.md"
HEAD = ("Program", "Version", "Protocol", "What it did", "Login", "plain", "STARTTLS", "TLS")
PROTOCOLS = {"imap": "IMAP", "pop3": "POP3", "smtp": "SMTP"}


def write_table() -> None:
    """If a program was not driven, or only with `-k`, the table stays as it is."""
    if {(entry, security) for entry in ENTRIES for security in entry.securities} == DRIVEN:
        TABLE.write_text(table(version))


def table(version_of: Callable[[Entry], str]) -> str:
    """Markdown; a line for each program and protocol, by name."""
    rows = [HEAD, ("---",) * len(HEAD), *(_row(entry, version_of(entry)) for entry in sorted(ENTRIES, key=_order))]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def version(entry: Entry) -> str:
    """Of the program as installed."""
    source, _, name = entry.package.partition(":")
    match source:
        case "python":
            return platform.python_version()
        case "npm":
            return str(json.loads((HERE / "node" / "package.json").read_text())["dependencies"][name])
    command = ["dpkg-query", "-W", "-f", "${Version}", entry.package]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"^\d+:|[-+~].*$", "", told)  # upstream's version without Debian's epoch and revision


def _row(entry: Entry, version: str) -> tuple[str, ...]:
    used = ("yes" if security in entry.securities else "-" for security in Security)
    return (entry.program, version, PROTOCOLS[entry.protocol], entry.does, entry.login, *used)


def _order(entry: Entry) -> tuple[str, str]:
    return entry.program.lower(), entry.protocol
