"""Local authorities, made once for all tests: keys take time. Not a test."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from proxy.network.tls import local_certificate
from tests.app.home import Home


@functools.cache
def authorities() -> tuple[Path, Path]:
    """Two folders, each with an authority and a certificate of it."""
    folders = (Path(tempfile.mkdtemp(prefix="mf-trusted-")), Path(tempfile.mkdtemp(prefix="mf-trusted-")))
    for folder in folders:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        local_certificate(folder, "localhost")
    return folders


def give(home: Home, which: int) -> None:
    """As if the daemon had made this authority there."""
    target = home.state_dir / "tls"
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in authorities()[which].iterdir():
        shutil.copy(file, target)
