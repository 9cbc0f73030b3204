"""The practice harbour: a stand-in sign-in service and mailbox in this process, the real daemon as its child.

What it is: a temporary folder with a configuration, the daemon that serves it, and one account that was added and
signed in by the real commands; the harbour plays the person at the browser. What it is not: part of the daemon, of
which it knows only what every user knows: commands, configuration, log. `journey.py` calls it, and shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from proxy.demo import browser
from proxy.demo.certificates import local_certificate
from proxy.demo.identity import IdentityProvider
from proxy.demo.mailbox import PracticeMailbox

LOGIN = "alice@practice.example"
APPLICATION_ID = "11111111-1111-4111-8111-111111111111"
PROTOCOLS = ("imap", "pop3", "smtp")
START_LIMIT_S = 60.0  # a slow machine with cold disks; the daemon itself needs a second or two
COMMAND_LIMIT_S = 60.0
STOP_LIMIT_S = 15.0  # the daemon drains its sessions; after this it is ended hard
TICK_S = 0.1  # how soon a daemon that died while starting is noticed
LOG_TAIL_LINES = 30
_OURS = ("MAILFERRY_CONFIG", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class HarbourFailed(Exception):
    """A step did not work; the text says which one and what it said."""


class Harbour:
    """A context manager: `with Harbour() as harbour` has everything running; its end removes everything.

    Raises (on entering): HarbourFailed, OSError.
    """

    login = LOGIN

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailferry-demo-")).resolve()
        self.config_file = self.folder / "config.yaml"
        self.log_file = self.folder / "daemon.log"
        self.ca_file = self.folder / "state" / "tls" / "ca.pem"
        """The authority behind the certificate that the daemon shows to mail programs."""
        self.ports: Mapping[str, int] = {}
        """By protocol, and `page`."""
        self.password = ""
        self._end = contextlib.ExitStack()
        self._end.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            certificate = local_certificate(self._made("harbour"))
            self.identity = self._end.enter_context(IdentityProvider(self.folder / "harbour"))
            self.identity.add_app(APPLICATION_ID)
            self.identity.add_person(LOGIN)
            self.identity.sign_in_as(LOGIN)
            self._mailbox = self._end.enter_context(PracticeMailbox(certificate, self.identity))
            self._start_daemon()
            self._add_account()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything and remove the folder."""
        self._end.close()

    def sign_in(self) -> None:
        """The command `sign-in --paste`, with its address opened and the final one pasted. Raises: HarbourFailed."""
        with self._command("sign-in", LOGIN, "--paste") as command:
            printed: list[str] = []
            for line in _lines(command):
                printed.append(line)
                if line.startswith("https://"):
                    break
            else:
                raise HarbourFailed(_told("sign-in", printed))
            try:
                final = browser.sign_in(line.strip(), self.identity.ca_file).address
            except (browser.SignInPage, OSError) as error:
                raise HarbourFailed(f"The sign-in page could not be passed: {error}") from None
            rest, _ = command.communicate(f"{final}\n")
        if command.returncode != 0:
            raise HarbourFailed(_told("sign-in", rest.splitlines()))

    def state(self) -> str:
        """The account's state, as `account list` tells it. Raises: HarbourFailed."""
        accounts = json.loads(self._run("account", "list", "--json"))
        return str(next(account["state"] for account in accounts if account["login"] == LOGIN))

    def log_tail(self) -> list[str]:
        """The last lines of the daemon's log."""
        try:
            return self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        except FileNotFoundError:
            return []

    def serves_page(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.ports["page"]), timeout=TICK_S).close()
        except OSError:
            return False
        return True

    def has_ended(self) -> bool:
        """The daemon died by itself."""
        return self._daemon.poll() is not None

    # The daemon

    def _start_daemon(self) -> None:
        self.ports = _free_ports((*PROTOCOLS, "page"))
        self.config_file.touch(mode=0o600)
        self.config_file.write_text(self._configuration(), encoding="utf-8")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, self.log_file.open("wb") as log:
            manager.bind(str(self.folder / "notify"))
            manager.settimeout(TICK_S)
            self._daemon = subprocess.Popen(
                self._words("serve"),
                cwd=_PACKAGE_PARENT,
                env={**self._environment(), "NOTIFY_SOCKET": str(self.folder / "notify")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for us; we then stop the daemon in order
            )
            self._end.callback(self._stop_daemon)
            deadline = time.monotonic() + START_LIMIT_S
            while True:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in manager.recv(4096).splitlines():
                        return
                if self.has_ended():
                    raise HarbourFailed(f"The daemon ended while starting, with exit code {self._daemon.returncode}.")
                if time.monotonic() > deadline:
                    raise HarbourFailed(f"The daemon was not ready within {START_LIMIT_S:.0f} s.")

    def _stop_daemon(self) -> None:
        self._daemon.terminate()
        try:
            self._daemon.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()

    def _configuration(self) -> str:
        mail, trust = self._mailbox.ports, json.dumps(str(self.identity.ca_file))
        tls = {"imap": "implicit", "pop3": "implicit", "smtp": "starttls"}
        return "\n".join(
            [
                "# The practice harbour's configuration; it goes away with its folder.",
                f"state_dir: {json.dumps(str(self._made('state')))}",
                f"page: 127.0.0.1:{self.ports['page']}",
                "listeners:",
                *(f"  - {{protocol: {p}, address: localhost, port: {self.ports[p]}, tls: auto}}" for p in PROTOCOLS),
                "apps:",
                "  practice:",
                f"    application_id: {APPLICATION_ID}",
                f"    authority: {self.identity.authority}",
                f"    ca_file: {trust}",
                "upstreams:",
                *(f"  {p}: {{host: localhost, port: {mail[p]}, tls: {tls[p]}, ca_file: {trust}}}" for p in PROTOCOLS),
                "",
            ]
        )

    def _add_account(self) -> None:
        printed = self._run("account", "add", LOGIN)
        shown = re.search(r"^ +(\S+)$", printed, re.MULTILINE)
        if shown is None:
            raise HarbourFailed("The command account add printed no password.")
        self.password = shown[1]

    # Commands

    def _run(self, *words: str) -> str:
        """What this command printed. Raises: HarbourFailed: it failed; with its own words."""
        with self._command(*words) as command:
            printed, _ = command.communicate()
        if command.returncode != 0:
            raise HarbourFailed(_told(" ".join(words[:2]), printed.splitlines()))
        return printed

    @contextlib.contextmanager
    def _command(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs; killed when it takes too long, or when we leave before it ends."""
        with subprocess.Popen(
            self._words(*words),
            cwd=_PACKAGE_PARENT,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        ) as command:
            timer = threading.Timer(COMMAND_LIMIT_S, command.kill)
            timer.start()
            try:
                yield command
            finally:
                timer.cancel()
                command.kill()

    def _words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "proxy", "--config", str(self.config_file), *words]

    def _environment(self) -> dict[str, str]:
        """Ours without what would lead the daemon elsewhere: another configuration, a proxy for loopback."""
        environment = {name: value for name, value in os.environ.items() if name not in _OURS}
        return {**environment, "HOME": str(self.folder), "NO_PROXY": "*", "no_proxy": "*", "PYTHONUTF8": "1"}

    def _made(self, name: str) -> Path:
        (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        return self.folder / name


_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def _free_ports(names: Sequence[str]) -> dict[str, int]:
    """Ports that are free on both loopback families now."""
    with contextlib.ExitStack() as held:
        found: dict[str, int] = {}
        while len(found) < len(names):
            first = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError):
                if socket.has_ipv6:
                    held.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
                found[names[len(found)]] = port
        return found


def _lines(command: subprocess.Popen[str]) -> IO[str]:
    assert command.stdout is not None  # noqa: S101 - it was opened as a pipe
    return command.stdout


def _told(command: str, printed: Sequence[str]) -> str:
    words = " ".join(" ".join(printed).split())
    return f"The command {command} failed: {words or 'it said nothing, or took too long.'}"
