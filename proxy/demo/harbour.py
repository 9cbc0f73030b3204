"""The practice harbour: a stand-in sign-in service and mailbox in this process, the real daemon as its child.

What it is: a temporary folder, and the steps by which a user comes from nothing to a signed-in account, taken with the
real commands; the harbour plays the person at the browser. What it is not: part of the daemon, of which it knows only
what every user knows: commands, configuration, log. `journey.py` takes the steps and shows them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from proxy.demo import browser
from proxy.demo.certificates import local_certificate
from proxy.demo.departure import Departure
from proxy.demo.identity import IdentityProvider
from proxy.demo.mailbox import PracticeMailbox
from proxy.demo.program import HarbourFailed, Program, failure

LOGIN = "alice@practice.example"
ANYBODY = "anybody@example.com"
APP = "practice"
APPLICATION_ID = "11111111-1111-4111-8111-111111111111"
PROTOCOLS = ("imap", "pop3", "smtp")
TLS = {"imap": "implicit", "pop3": "implicit", "smtp": "starttls"}  # of the mailbox, as at Exchange (FACTS 1.1)
_LETTER = f"""From: {LOGIN}
To: {ANYBODY}
Subject: Ahoy from curl

Sent with a plain password, delivered with an OAuth2 token.
"""


class Harbour:
    """A context manager whose end removes everything. The steps, in their order, each say what came of it.

    A step that does not work raises HarbourFailed, or OSError.
    """

    login = LOGIN
    folder: Path
    ports: Mapping[str, int]
    """Where the daemon listens on localhost, by protocol; and its `page`."""
    password: str

    def __init__(self, departure: Departure) -> None:
        self._departure = departure
        self._end = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Signals are not heard yet, nor again in `__exit__`. Raises: HarbourFailed: no folder can be made."""
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="mailferry-demo-")).resolve()
        except OSError as error:
            raise HarbourFailed(f"No temporary folder can be made: {error}") from None
        self._end.callback(self._remove_folder)
        self._program = self._end.enter_context(
            contextlib.closing(Program(self.folder, self.config_file, self._departure))
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises: HarbourFailed: something is left of the folder."""
        self._end.close()

    def _remove_folder(self) -> None:
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise HarbourFailed(f"The temporary folder could not be removed: {error}") from None

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def letter_file(self) -> Path:
        """A message that is ready to be sent."""
        return self.folder / "letter.eml"

    @property
    def ca_file(self) -> Path:
        """The authority behind the certificate that the daemon shows to mail programs."""
        return self.folder / "state" / "tls" / "ca.pem"

    @property
    def log_file(self) -> Path:
        return self._program.log_file

    def log_tail(self) -> list[str]:
        return self._program.log_tail()

    def page_link(self) -> str:
        """A link that opens the daemon's page, once. Raises: HarbourFailed."""
        printed = self._program.run("page", "--json")
        return str(json.loads(printed)["address"])

    def wait(self) -> NoReturn:
        """Until the daemon ends, which it should not. Raises: HarbourFailed."""
        raise HarbourFailed(f"The daemon ended by itself, with exit code {self._daemon.wait()}.")

    # The steps

    def open_sign_in_service(self) -> str:
        (self.folder / "harbour").mkdir()
        self._identity = self._end.enter_context(IdentityProvider(self.folder / "harbour"))
        self._identity.add_app(APPLICATION_ID)
        self._identity.add_person(LOGIN)
        self._identity.sign_in_as(LOGIN)
        return f"{self._identity.base}, in Microsoft's place"

    def open_mailbox(self) -> str:
        certificate = local_certificate(self._identity.ca_file.parent)
        self._mailbox = self._end.enter_context(PracticeMailbox(certificate, self._identity))
        return "IMAP, POP3 and SMTP, in Exchange's place"

    def write_configuration(self) -> str:
        self.ports = free_ports((*PROTOCOLS, "page"))
        self.config_file.touch(mode=0o600)
        self.config_file.write_text(self._configuration(), encoding="utf-8")
        self.letter_file.write_text(_LETTER, encoding="ascii", newline="\r\n")
        return str(self.config_file)

    def start_daemon(self) -> str:
        self._daemon = self._program.serve()
        return "mailferry serve"

    def add_app(self) -> str:
        self._program.run(
            *("app", "add", APP, "--application-id", APPLICATION_ID),
            *("--authority", self._identity.authority, "--ca-file", str(self._identity.ca_file)),
        )
        return f"mailferry app add {APP}"

    def add_account(self) -> str:
        printed = self._program.run("account", "add", LOGIN)
        shown = re.search(r"^ +(\S+)$", printed, re.MULTILINE)
        if shown is None:
            raise HarbourFailed("`mailferry account add` printed no password.")
        self.password = shown[1]
        return f"mailferry account add {LOGIN}"

    def sign_in(self) -> str:
        words = ("sign-in", LOGIN, "--paste")
        with self._program.under_way(*words) as command:
            assert command.stdout is not None
            printed: list[str] = []
            for line in command.stdout:
                printed.append(line)
                if line.startswith("https://"):
                    break
            else:
                raise failure(words, printed)
            try:
                final = browser.sign_in(line.strip(), self._identity.ca_file).address
            except (browser.SignInPage, OSError) as error:
                raise HarbourFailed(f"The sign-in page could not be passed: {error}") from None
            rest, _ = command.communicate(f"{final}\n")
        if command.returncode != 0:
            raise failure(words, rest.splitlines())
        return "mailferry sign-in, as a person would"

    def check_connected(self) -> str:
        """After the first login: a token alone does not make an account `connected` (PRODUCT section 4)."""
        accounts = json.loads(self._program.run("account", "list", "--json"))
        state = next((account["state"] for account in accounts if account["login"] == LOGIN), "nothing of it")
        if state != "connected":
            raise HarbourFailed(f"The account should be connected, but `mailferry account list` says {state}.")
        return "mailferry account list"

    def _configuration(self) -> str:
        upstream, trust = self._mailbox.ports, json.dumps(str(self._identity.ca_file))
        return "\n".join(
            [
                "# The practice harbour's configuration; it goes away with its folder.",
                f"state_dir: {json.dumps(str(self.folder / 'state'))}",
                f"page: 127.0.0.1:{self.ports['page']}",
                "listeners:",
                *(f"  - {{protocol: {p}, address: localhost, port: {self.ports[p]}, tls: auto}}" for p in PROTOCOLS),
                "upstreams:",
                *(
                    f"  {p}: {{host: localhost, port: {upstream[p]}, tls: {TLS[p]}, ca_file: {trust}}}"
                    for p in PROTOCOLS
                ),
                "",
            ]
        )


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Ports that are free now on each loopback family that this machine has."""
    with contextlib.ExitStack() as held:
        found: dict[str, int] = {}
        while len(found) < len(names):
            port = int(held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])
            try:
                held.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
            found[names[len(found)]] = port
        return found
