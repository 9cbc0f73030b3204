"""`__main__.py`: the reactor is the asyncio one before anything else could take another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
from unittest import mock
from proxy.__main__ import main
with mock.patch("proxy.app.cli.run", return_value=7) as run, mock.patch("sys.argv", ["mailferry", "app", "list"]):
    print(main(), run.call_args.args)
from twisted.internet import reactor
print(type(reactor).__name__, reactor.seconds.__name__)
"""


def test_main_installs_the_reactor_and_gives_the_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("7 (['app', 'list'],)\nAsyncioSelectorReactor monotonic\n", "")


def test_as_a_module_it_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "nonsense"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: mailferry ")
