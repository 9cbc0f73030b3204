"""`__main__.py`: the command, by its other name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import mock

from proxy.__main__ import main

ROOT = Path(__file__).parents[1]


def test_as_a_module_it_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "nonsense"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: mailferry ")


def test_the_exit_code_is_the_commands() -> None:
    with mock.patch("proxy.__main__.run", return_value=7) as run, mock.patch("sys.argv", ["mailferry", "app", "list"]):
        assert main() == 7
    run.assert_called_once_with(["app", "list"])
