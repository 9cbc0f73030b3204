"""A server as a throw-away child process: how it starts, becomes ready, stops, and shows its log.

Called by `dovecot.py`, `postfix.py` and the end-to-end tests. Not a test, and nothing of mailferry is in it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

READY_DEADLINE_S = 20.0  # a start takes well under 5 s; two busy cores in CI may need more
STOP_DEADLINE_S = 20.0  # the ferry drains for up to ten
POLL_S = 0.02
LOG_TAIL_LINES = 60
PORTS = range(20_000, 32_000)  # below Linux's ephemeral range: no outgoing connection takes one meanwhile
PACKAGES = "dovecot-imapd dovecot-pop3d dovecot-lmtpd postfix swaks curl"


class ServerFailed(Exception):
    """A server did not start, did not become ready, or died; the message ends with its log."""


def program(name: str, *folders: str) -> str:
    """The path of an installed program.

    Raises:
        ServerFailed: it is not installed. A missing server is a failure, never a skip.
    """
    path = shutil.which(name, path=os.pathsep.join((*folders, os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if path is None:
        raise ServerFailed(f"{name} is not installed; run: apt-get install -y --no-install-recommends {PACKAGES}")
    return path


def _own_ports() -> Iterator[int]:
    """This process's share of the ports, shuffled: of two workers (pytest-xdist) none takes what is the other's.

    None comes twice before all came once. Else a port would be given to a second server while the first one starts.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        yield from random.sample(PORTS[worker::workers], len(PORTS[worker::workers]))


_ports = _own_ports()


def free_port() -> int:
    """A loopback port that nothing listens on, of either family, and that nobody here was given before."""
    while True:
        port = next(_ports)
        with suppress(OSError):
            for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                try:
                    probe = socket.socket(family)
                except OSError:  # a machine without IPv6
                    continue
                with probe:
                    probe.bind((address, port))
            return port


@contextmanager
def open_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that other system users may enter (pytest's own is closed to them).

    Its path is short: a Unix socket's is limited to 107 octets.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(what: str, holds: Callable[[], object], deadline_s: float = READY_DEADLINE_S) -> None:
    """Look again and again until it holds.

    Raises:
        ServerFailed: it does not hold within the deadline.
    """
    end = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > end:
            raise ServerFailed(f"not within {deadline_s:.0f} s: {what}")
        time.sleep(POLL_S)


def tail(log: Path) -> str:
    """The last lines of a log, under its name."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else ["(there is none)"]
    return "\n".join([f"--- {log}", *lines[-LOG_TAIL_LINES:]])


class Child:
    """A process in the foreground, in a session of its own; its standard output and error go to a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        output: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.output = output
        with output.open("ab") as stream:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                cwd=folder,
                env=None if environment is None else {**os.environ, **environment},
            )

    def wait_ready(self, ready: Callable[[], bool], *logs: Path) -> None:
        """Wait until the server answers.

        Raises:
            ServerFailed: it ended, or it does not answer in time; with the tails of its logs.
        """

        def answers() -> bool:
            if self.process.poll() is not None:
                raise ServerFailed(f"{self.name} ended with exit code {self.process.returncode}")
            return ready()

        try:
            wait_until(f"{self.name} answers", answers)
        except ServerFailed as failure:
            self.kill()
            raise ServerFailed("\n".join([str(failure), *map(tail, (self.output, *logs))])) from None

    def stop(self) -> int:
        """Ask it to end (SIGTERM), wait, and give its exit code.

        Raises:
            ServerFailed: it does not end in time; it is killed then.
        """
        self.process.terminate()
        try:
            return self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"{self.name} ignores SIGTERM\n{tail(self.output)}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and what it started, at once (SIGKILL)."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
