"""mailferry as a person runs it: its command line, and its daemon as a child process. Not a test.

Everything goes through `python -m proxy`; nothing of mailferry is imported. The daemon logs at debug level, and what
the commands say is kept beside its log, so that `secrets_seen` can look for secrets in all of it.
"""

from __future__ import annotations

import base64
import imaplib
import itertools
import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from proxy.demo.browser import sign_in
from tests.servers.child import Child, free_port, tail, wait_until
from tests.servers.mailhost import MailHost, Person

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "proxy")
COMMAND_DEADLINE_S = 60.0
PROBE_TIMEOUT_S = 2.0
APP = "work"
GENERATED_PASSWORD = r"(?<![^\s\"'`])[A-Za-z2-9]{20,24}(?![^\s\"'`])"  # CLIENTS decision 7
AUTHORIZE_ADDRESS = r"https://\S+/authorize\?\S+"
USER_CODE = r"\b[B-DF-HJ-NP-TV-Z2-9]{9}\b"  # the stand-in's, as at Microsoft nine characters
PIECE_OCTETS = 16  # of a secret: by chance none is found
Way = Literal["browser", "device", "paste"]


@dataclass(frozen=True, slots=True)
class Told:
    """What a finished command said."""

    exit_code: int
    output: str = field(repr=False)
    errors: str = field(repr=False)


class Command:
    """A command under way; what it says goes to files, which may be read meanwhile."""

    def __init__(self, said: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.name = f"mailferry {shlex.join(arguments)}"
        self._output, self._errors = said.with_suffix(".out"), said.with_suffix(".err")
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, **environment},
            )

    def read(self, pattern: str) -> str:
        """Wait until this stands in what it said."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(pattern, self._output.read_text() + self._errors.read_text()))
            return bool(found) or self._process.poll() is not None

        wait_until(f"`{self.name}` says {pattern}", look, COMMAND_DEADLINE_S)
        assert found, f"`{self.name}` ended without saying {pattern}:\n{tail(self._output)}\n{tail(self._errors)}"
        return found[0][0]

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def end(self, exit_code: int, *, forget: bool = False) -> Told:
        """Wait for its end, which must have this exit code. `forget` removes its output, which shows a secret."""
        try:
            self._process.communicate(timeout=COMMAND_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise AssertionError(f"`{self.name}` hangs:\n{tail(self._output)}\n{tail(self._errors)}") from None
        told = Told(self._process.returncode, self._output.read_text(), self._errors.read_text())
        shown = "" if forget else f"\n{told.output}"
        assert told.exit_code == exit_code, f"`{self.name}` gave {told.exit_code}:{shown}\n{told.errors}"
        assert "Traceback" not in told.output + told.errors
        if forget:
            self._output.unlink()
        return told


class Ferry:
    """A configuration, its state, and the daemon on them. `folder` is a temporary one; `host` is what stands behind.

    `upstreams` replaces upstreams of the configuration, by protocol.
    """

    def __init__(self, folder: Path, host: MailHost, upstreams: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.host = host
        self.config = folder / "config.yaml"
        self.state_dir = folder / "state"
        self.log_file = folder / "serve.log"
        self.ports = {name: free_port() for name in ("imap", "pop3", "smtp")}
        self.passwords: dict[str, str] = {}
        """By login: what `account add` printed."""
        self.environment = {"HOME": str(folder), "PYTHONUNBUFFERED": "1", "NO_PROXY": "*"}
        self.application_id = str(uuid.uuid4())
        self.daemon: Child | None = None
        self._numbers = itertools.count(1)
        self.config.write_text(self.configuration(upstreams or {}))

    def configuration(self, upstreams: Mapping[str, str]) -> str:
        dovecot, postfix, ca = self.host.dovecot, self.host.postfix, self.host.certificate.ca_file
        upstreams = {
            "imap": f"{{host: localhost, port: {dovecot.imap_port}, tls: implicit, ca_file: {ca}}}",
            "pop3": f"{{host: localhost, port: {dovecot.pop3_port}, tls: implicit, ca_file: {ca}}}",
            "smtp": f"{{host: localhost, port: {postfix.port}, tls: starttls, ca_file: {ca}}}",
            **upstreams,
        }
        lines = [
            f"state_dir: {self.state_dir}",
            "page: off",
            "listeners:",
            *(f"  - {{protocol: {p}, address: localhost, port: {n}, tls: auto}}" for p, n in self.ports.items()),
            "upstreams:",
            *(f"  {protocol}: {upstream}" for protocol, upstream in upstreams.items()),
            "log: {level: debug, format: text}",
        ]
        return "".join(f"{line}\n" for line in lines)

    # Commands

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Command:
        said = self.folder / f"said-{next(self._numbers)}"
        return Command(said, ("--config", str(self.config), *arguments), {**self.environment, **(environment or {})})

    def run(self, *arguments: str, exit_code: int = 0) -> Told:
        """A command from start to end; it must end with this exit code."""
        return self.start(*arguments).end(exit_code)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").output)

    def app_add(self) -> None:
        """The app, which the sign-in service knows too."""
        identity = self.host.identity
        identity.add_app(self.application_id)
        self.run(
            *("app", "add", APP, "--application-id", self.application_id),
            *("--authority", identity.authority, "--ca-file", str(identity.ca_file)),
        )

    def account_add(self, person: Person) -> str:
        """The generated password, which is printed this once."""
        return self._printed_password(person, "account", "add", person.upn, "--app", APP)

    def new_password(self, person: Person) -> str:
        """Another one in place of the first."""
        return self._printed_password(person, "password", person.upn)

    def sign_in(self, person: Person, way: Way = "paste", *, as_: Person | None = None, exit_code: int = 0) -> Told:
        """Sign this person in by the command line, playing the person's part at the sign-in service.

        `as_` is who signs in there in this person's place.
        """
        identity = self.host.identity
        identity.sign_in_as((as_ or person).upn)
        command = self.start("sign-in", person.upn, f"--{way}", environment={"BROWSER": str(self._fake_browser())})
        match way:
            case "paste":
                command.write(sign_in(command.read(AUTHORIZE_ADDRESS), identity.ca_file).address)
            case "device":
                identity.approve_device(command.read(USER_CODE), person.upn)
            case "browser":
                pass  # the fake one does it
        return command.end(exit_code)

    def account(self, person: Person) -> dict[str, Any]:
        """This account's entry of `account list --json`."""
        entries: list[dict[str, Any]] = self.json("account", "list")
        (entry,) = [entry for entry in entries if entry["login"] == person.upn]
        return entry

    def state(self, person: Person) -> str:
        return str(self.account(person)["state"])

    def ready_account(self) -> Person:
        """A new person whose account is signed in."""
        person = self.host.new_person()
        self.account_add(person)
        self.sign_in(person)
        return person

    def logs_in(self, person: Person) -> bool:
        """Whether an IMAP login with the right password comes through."""
        with imaplib.IMAP4("localhost", self.ports["imap"], timeout=COMMAND_DEADLINE_S) as client:
            try:
                return client.login(person.upn, self.passwords[person.upn])[0] == "OK"
            except imaplib.IMAP4.error:
                return False

    # The daemon

    def serve(self) -> None:
        """Start the daemon and wait until it greets on every port."""
        command = [*COMMAND, "--config", str(self.config), "serve"]
        self.daemon = Child("mailferry", command, self.log_file, environment=self.environment, folder=ROOT)
        self.daemon.wait_ready(lambda: all(map(_answers, self.ports.values())))

    def stop(self) -> int:
        """SIGTERM, and the exit code; the end of the log is shown with a failing test."""
        assert self.daemon is not None
        daemon, self.daemon = self.daemon, None
        try:
            return daemon.stop()
        finally:
            print(tail(self.log_file))

    def kill(self) -> None:
        """SIGKILL."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon = None

    def close(self) -> None:
        """Stop the daemon if it runs, and make sure that no secret of this ferry was written down."""
        if self.daemon is not None:
            self.stop()
        seen = self.secrets_seen()
        assert not seen, f"secrets were written down: {seen}"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_lines(self, *parts: str) -> list[str]:
        """The lines of the log that hold all these parts."""
        return [line for line in self.log.splitlines() if all(part in line for part in parts)]

    @property
    def ca_file(self) -> Path:
        """The local authority that mail programs are told to trust."""
        return next(self.state_dir.rglob("ca.pem"))

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    # Secrets

    def secrets_seen(self) -> list[str]:
        """Where a password, token or code stands in clear or in base64: file and form, never the secret itself.

        A fragment is enough: a log may cut a long token short.
        """
        secrets = {*self.passwords.values(), *self.host.identity.secrets}
        pieces = {piece: kind for secret in secrets for kind, form in _forms(secret) for piece in _pieces(form)}
        seen = set()
        for file in self.folder.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                found = {content[at : at + PIECE_OCTETS] for at in range(len(content))} & pieces.keys()
                seen |= {f"{file.relative_to(self.folder)}: {pieces[piece]}" for piece in found}
        return sorted(seen)

    def _printed_password(self, person: Person, *arguments: str) -> str:
        told = self.start(*arguments).end(0, forget=True)
        passwords = set(re.findall(GENERATED_PASSWORD, told.output))
        assert len(passwords) == 1, f"one generated password is printed; here it was {len(passwords)}"
        self.passwords[person.upn] = passwords.pop()
        return self.passwords[person.upn]

    def _fake_browser(self) -> Path:
        """A browser that goes where it is sent, the whole way back to mailferry's own loopback address.

        It returns at once, as real ones do.
        """
        script = self.folder / "browser"
        script.write_text(
            f"#!/bin/sh\ncd {shlex.quote(str(ROOT))}\n"
            f"{shlex.quote(sys.executable)} -c '"
            "import sys; from pathlib import Path; from proxy.demo.browser import sign_in;"
            'sign_in(sys.argv[1], Path(sys.argv[2])).deliver()\' "$1" '
            f"{shlex.quote(str(self.host.identity.ca_file))} &\n"
        )
        script.chmod(0o755)
        return script


def _forms(secret: str) -> Iterator[tuple[str, bytes]]:
    """The secret itself, and what is in every base64 of a text that holds it, at each of three offsets."""
    octets = secret.encode()
    assert len(octets) >= PIECE_OCTETS
    yield "in clear", octets
    for offset in range(3):
        whole = octets[: len(octets) - (len(octets) + offset) % 3]
        yield "in base64", base64.b64encode(bytes(offset) + whole)[4 if offset else 0 :]


def _pieces(form: bytes) -> Iterator[bytes]:
    """Cut into pieces, of which a fragment twice as long holds one whole."""
    return (form[at : at + PIECE_OCTETS] for at in range(0, len(form) - PIECE_OCTETS + 1, PIECE_OCTETS))


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT_S) as client:
        return bool(client.recv(1))
    return False
