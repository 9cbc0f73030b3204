"""The real mailferry as child processes: its daemon, and its commands beside it.

What it is: how the harbour runs what a user would run, and how every child ends. What it is not: knowledge of what the
commands do. `harbour.py` calls it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from proxy.demo.departure import Departure

COMMAND = (sys.executable, "-m", "proxy")
PACKAGE_PARENT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 60.0  # a slow machine with cold disks; the daemon itself needs a second or two
COMMAND_LIMIT_S = 60.0
STOP_LIMIT_S = 15.0  # the daemon drains its sessions for 10 s at most; after this it is ended hard
TICK_S = 0.1  # how soon a daemon that died while starting is noticed
LOG_TAIL_LINES = 30
_LEADS_ELSEWHERE = (
    "MAILFERRY_CONFIG", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"
)  # fmt: skip


class HarbourFailed(Exception):
    """Something did not work; the text says what, and what it said."""


class Program:
    """mailferry with this configuration. `folder` holds its log, and is its home. `close` ends all that was started."""

    def __init__(self, folder: Path, config_file: Path, departure: Departure) -> None:
        self.log_file = folder / "daemon.log"
        self._folder = folder
        self._config_file = config_file
        self._departure = departure
        self._children: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """The newest child first. A command under way is ended, the daemon drains and stops."""
        for child in reversed(self._children):
            with child:
                child.terminate()
                try:
                    child.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    child.kill()

    def serve(self) -> subprocess.Popen[str]:
        """Start the daemon, and wait until it says that it is ready (sd_notify(3)). Raises: HarbourFailed, OSError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, self.log_file.open("wb") as log:
            manager.bind(str(self._folder / "notify"))
            manager.settimeout(TICK_S)
            notify = {"NOTIFY_SOCKET": str(self._folder / "notify")}
            daemon = self._start(["serve"], subprocess.DEVNULL, log, **notify)
            deadline = time.monotonic() + START_LIMIT_S
            while True:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in manager.recv(4096).splitlines():
                        return daemon
                if daemon.poll() is not None:
                    raise HarbourFailed(f"The daemon ended while starting, with exit code {daemon.returncode}.")
                if time.monotonic() > deadline:
                    raise HarbourFailed(f"The daemon was not ready within {START_LIMIT_S:.0f} s.")

    def run(self, *words: str) -> str:
        """What this command printed. Raises: HarbourFailed: it failed; with its own words."""
        with self.under_way(*words) as command:
            printed, _ = command.communicate()
        if command.returncode != 0:
            raise failure(words, printed.splitlines())
        return printed

    @contextlib.contextmanager
    def under_way(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command with pipes to it; killed when it takes too long, or when we leave before it ends."""
        command = self._start(words, subprocess.PIPE, subprocess.PIPE)
        limit = threading.Timer(COMMAND_LIMIT_S, command.kill)
        limit.start()
        try:
            with command:
                try:
                    yield command
                except BaseException:
                    command.kill()
                    raise
        finally:
            limit.cancel()

    def log_tail(self) -> list[str]:
        """The last lines of the daemon's log."""
        try:
            return self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        except FileNotFoundError:
            return []

    def _start(
        self, words: Sequence[str], stdin: int, stdout: int | IO[bytes], **environment: str
    ) -> subprocess.Popen[str]:
        with self._departure.postponed():
            child = subprocess.Popen(  # noqa: S603 - our own program
                [*COMMAND, "--config", str(self._config_file), *words],
                cwd=PACKAGE_PARENT,
                env={**self._environment(), **environment},
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C in the terminal is for us; we then end the children in order
            )
            self._children.append(child)
        return child

    def _environment(self) -> dict[str, str]:
        """Ours without what leads elsewhere: another configuration, another home, a web proxy for loopback."""
        environment = {name: value for name, value in os.environ.items() if name not in _LEADS_ELSEWHERE}
        return {**environment, "HOME": str(self._folder), "NO_PROXY": "*", "no_proxy": "*", "PYTHONUTF8": "1"}


def failure(words: Sequence[str], printed: Sequence[str]) -> HarbourFailed:
    """This command failed, and what it printed."""
    said = " ".join(" ".join(printed).split())
    name = " ".join(words[:2])
    return HarbourFailed(f"`mailferry {name}` failed: {said or 'it said nothing, or took too long.'}")
