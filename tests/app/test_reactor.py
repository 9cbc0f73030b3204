"""The reactor: the asyncio one, before anything else could take another; and not for a command that needs none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.home import APPLICATION_ID

ROOT = Path(__file__).parents[2]
FIRST = """
from proxy.app.reactor import the_reactor
reactor = the_reactor()
print(type(reactor).__name__, reactor.seconds.__name__, the_reactor() is reactor)
from twisted.internet import reactor as theirs
print(theirs is reactor)
"""
LOADED = """
import sys
from proxy.app.cli import run
try:
    run({arguments})
except SystemExit:
    pass
print(*(name for name in ("twisted", "msal", "cryptography", "jinja2") if name in sys.modules), file=sys.stderr)
"""


def python(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_it_is_asyncios_with_a_clock_that_does_not_jump() -> None:
    done = python(FIRST)
    assert (done.stdout, done.stderr) == ("AsyncioSelectorReactor monotonic True\nTrue\n", "")


@pytest.mark.parametrize("arguments", ["--version", "app list", "reload", "page", "account add x@y.example"])
def test_what_only_asks_loads_little(arguments: str, tmp_path: Path) -> None:
    """Twisted, msal and cryptography take most of a second on an old machine; these work without."""
    config = tmp_path / "config.yaml"
    app = f"{{application_id: {APPLICATION_ID}, account_types: common}}"
    config.write_text(f"state_dir: {tmp_path}\napps: {{work: {app}}}\n")
    done = python(LOADED.format(arguments=["--config", str(config), *arguments.split()]))
    assert done.stderr.splitlines()[-1] == ""
