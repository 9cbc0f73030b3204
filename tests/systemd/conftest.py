"""A real installation below a folder, once for all; and a machine booted from it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.servers.child import open_folder
from tests.systemd.machine import Machine

SYSTEMD = Path(__file__).parents[2] / "systemd"
INSTALL_DEADLINE_S = 400


def install(root: Path, *more: str) -> str:
    """What `systemd/install --root` says."""
    done = subprocess.run(
        [SYSTEMD / "install", "--root", root, *more],
        capture_output=True,
        text=True,
        timeout=INSTALL_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    with open_folder("mf-install-") as folder:
        (folder / "etc/fail2ban").mkdir(parents=True)
        install(folder)
        yield folder


@pytest.fixture(scope="module")
def machine(installed: Path) -> Iterator[Machine]:
    with open_folder("mf-machine-") as folder, closing(Machine(folder, installed)) as machine:
        yield machine
