"""What the README says of mail programs is what the tests of this folder prove."""

from __future__ import annotations

import importlib
import re

from tests.clients.berth import HERE
from tests.clients.table import HEAD, table
from tests.end_to_end.ferry import ROOT


def test_the_readme_quotes_the_table() -> None:
    for file in HERE.glob("test_*.py"):
        importlib.import_module(f"tests.clients.{file.stem}")  # each enters its claims
    readme = (ROOT / "README.md").read_text()
    quoted = re.search(r"<!-- clients -->\n(.*?)<!-- /clients -->", readme, re.DOTALL)
    if quoted is not None:
        assert _without_versions(quoted[1].strip()) == _without_versions(table(lambda _: "?").strip())


def _without_versions(text: str) -> list[list[str]]:
    """Versions are those of the machine that wrote the table."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    at = HEAD.index("Version")
    return [row[:at] + row[at + 1 :] for row in rows]
