"""Mail programs of the command line, run as a person runs them: curl and swaks. Not a test."""

from __future__ import annotations

import enum
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end.ferry import Ferry
from tests.servers.child import program

PATIENCE_S = 60


class Security(enum.Enum):
    """How a program speaks to an `auto` listener; all three come to the same port."""

    PLAIN = "plain"
    STARTTLS = "starttls"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended; `output` is what it fetched."""

    exit_code: int
    output: bytes = field(repr=False)
    errors: str


@dataclass(frozen=True, slots=True)
class Curl:
    """curl, as this person and with this password."""

    ferry: Ferry
    login: str
    password: str = field(repr=False)

    def run(self, protocol: str, security: Security, path: str, *options: str, upload: bytes = b"") -> Ended:
        scheme = protocol + ("s" if security is Security.TLS else "")
        command = [
            *(program("curl"), "-sS", "--max-time", str(PATIENCE_S), "--noproxy", "*"),
            *("--cacert", str(self.ferry.ca_file), "--user", f"{self.login}:{self.password}"),
            *(("--ssl-reqd",) if security is Security.STARTTLS else ()),
            *options,
            f"{scheme}://localhost:{self.ferry.ports[protocol.removesuffix('s')]}/{path}",
        ]
        return _run(command, upload)

    def read(self, protocol: str, security: Security, number: int = 1) -> Ended:
        """The message with this number in the inbox."""
        path = f"INBOX;MAILINDEX={number}" if protocol == "imap" else str(number)
        return self.run(protocol, security, path)

    def send(self, security: Security, recipient: str, message: bytes) -> Ended:
        options = ("--mail-from", self.login, "--mail-rcpt", recipient, "--upload-file", "-")
        return self.run("smtp", security, "client.example", *options, upload=message)


def swaks(ferry: Ferry, login: str, password: str, security: Security, mechanism: str, data: Path) -> Ended:
    """Send the message in this file with swaks, from and to this login."""
    tls = {Security.PLAIN: (), Security.STARTTLS: ("--tls",), Security.TLS: ("--tls-on-connect",)}[security]
    verify = () if security is Security.PLAIN else ("--tls-verify", "--tls-ca-path", str(ferry.ca_file))
    command = [
        *(program("swaks"), "--server", "localhost", "--port", str(ferry.ports["smtp"])),
        *("--auth", mechanism, "--auth-user", login, "--auth-password", password),
        *("--from", login, "--to", login, "--data", f"@{data}", "--timeout", f"{PATIENCE_S}s"),
        *tls,
        *verify,
    ]
    return _run(command, b"")


def _run(command: list[str], upload: bytes) -> Ended:
    done = subprocess.run(command, input=upload, capture_output=True, timeout=PATIENCE_S + 10, check=False)
    return Ended(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
