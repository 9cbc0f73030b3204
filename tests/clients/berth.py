"""Where a mail program lies while it is driven: a home folder, a person's login, and a port that leads to the daemon.

Every test of this folder is one program and one protocol, and is `driven`: the decorator runs it once for each
security, proves by a tap that the program used that one and logged in in the form that is claimed, and enters the
claim in the table. Not a test.
"""

from __future__ import annotations

import functools
import os
import pty
import re
import select
import shutil
import subprocess
import termios
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

import pytest

from tests.clients.tap import Tap
from tests.end_to_end.ferry import Ferry
from tests.end_to_end.programs import Security
from tests.servers.mailhost import Person

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE_S = 60.0  # two busy cores, and a login that may take 25 s
LOG_LINES = 40  # of the daemon's, where a program hangs
HERE = Path(__file__).parent
PACKAGES = HERE / "packages.txt"
SHOWN_OCTETS = 4_000  # of what a program said, with a failing test
LINES = (
    b"ferry, what came is what is kept.",
    b".",  # dots, which SMTP and POP3 stuff
    b"..",
    b"...three",
    b"From the start of a line",
    b")",
    b"a1 OK not a reply",
    "Grüße, €, 日本語".encode(),
    b"two blanks  within, and one tab\there",
    b"the end",
)
"""No blanks at a line's end: some programs cut them, which is not our doing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table: what is claimed of a program, and proven by its test."""

    program: str
    package: str
    """Debian's, by which the version is known; or another source of it, see `table.py`."""
    protocol: str
    does: str
    login: str
    """How it logs in over a plain connection, in the tap's words."""
    securities: tuple[Security, ...]


ENTRIES: dict[Entry, None] = {}
"""All that is claimed, in the order of the tests."""
DRIVEN: set[tuple[Entry, Security]] = set()
"""What has been proven in this run."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended."""

    exit_code: int
    output: bytes
    errors: bytes


@dataclass(frozen=True, slots=True)
class Berth:
    """What the test of one program and one security works with."""

    entry: Entry
    security: Security
    ferry: Ferry
    person: Person
    tap: Tap
    home: Path
    password: str = field(repr=False)

    @property
    def login(self) -> str:
        return self.person.upn

    @property
    def port(self) -> int:
        return self.tap.port

    @property
    def ca_file(self) -> Path:
        """What the program is told to trust."""
        return self.ferry.ca_file

    def choose(self, plain: T, starttls: T, tls: T) -> T:
        """What this security is called in the program's own configuration."""
        return {Security.PLAIN: plain, Security.STARTTLS: starttls, Security.TLS: tls}[self.security]

    # Mail

    def letter(self) -> bytes:
        """A message with CRLF line ends; every one is different."""
        head = (
            f"From: {self.login}\r\nTo: {self.login}\r\nSubject: by ferry\r\n"
            f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{uuid.uuid4()}@contoso.com>\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        )
        return head.encode() + b"\r\n".join((uuid.uuid4().hex.encode(), *LINES, b""))

    def deliver(self) -> bytes:
        """A letter in the person's inbox, as it lies there."""
        return self.ferry.host.deliver(self.person, self.letter())

    def arrived(self, count: int = 1) -> bytes:
        """The last of so many messages in the inbox."""
        stored = self.ferry.host.delivered(self.person, count)
        assert len(stored) == count
        return stored[-1]

    # Programs

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file in the program's home; its folders are made."""
        file = self.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def maildir(self, name: str = "kept") -> Path:
        for part in ("cur", "new", "tmp"):
            (self.home / name / part).mkdir(parents=True)
        return self.home / name

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        usual = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MAIL"))}
        return {**usual, "HOME": str(self.home), "LC_ALL": "C.UTF-8", "NO_PROXY": "*", **(more or {})}

    def run(
        self,
        *command: str,
        given: bytes = b"",
        environment: Mapping[str, str] | None = None,
        exit_code: int = 0,
    ) -> Said:
        """A program from start to end, in its home folder; it must end with this exit code."""
        try:
            done = subprocess.run(
                [installed(command[0]), *command[1:]],
                input=given,
                capture_output=True,
                cwd=self.home,
                env=self.environment(environment),
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as hung:
            log = "\n".join(self.ferry.log.splitlines()[-LOG_LINES:])
            raise AssertionError(f"{command[0]} hangs:\n{_shown(hung.stdout, hung.stderr)}\n{log}") from None
        said = Said(done.returncode, done.stdout, done.stderr)
        assert said.exit_code == exit_code, f"{command[0]} gave {said.exit_code}:\n{_shown(done.stdout, done.stderr)}"
        return said

    def script(
        self, interpreter: Sequence[str], *, given: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Said:
        """A small program of `scripts/`, which finds all it needs in its environment."""
        values = {
            "MF_PORT": str(self.port),
            "MF_SECURITY": self.security.value,
            "MF_LOGIN": self.login,
            "MF_PASSWORD": self.password,
            "MF_CA_FILE": str(self.ca_file),
        }
        return self.run(*interpreter, given=given, environment={**values, **(environment or {})})

    def type_into(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, keys: Sequence[tuple[str, str]] = ()
    ) -> None:
        """A program that wants a terminal; for each pair, waits until the first is shown, then types the second."""
        name, waiting = installed(command[0]), list(keys)
        terminal, end = pty.openpty()
        termios.tcsetwinsize(end, (40, 120))
        try:
            process = subprocess.Popen(
                command,
                stdin=end,
                stdout=end,
                stderr=end,
                cwd=self.home,
                env=self.environment({"TERM": "xterm", **(environment or {})}),
                start_new_session=True,
            )
        finally:
            os.close(end)
        shown, read_to, deadline = b"", 0, time.monotonic() + PATIENCE_S
        try:
            while octets := _read(terminal, deadline - time.monotonic()):
                shown += octets
                if waiting and re.search(waiting[0][0].encode(), _bare(shown[read_to:])):
                    read_to = len(shown)
                    os.write(terminal, waiting.pop(0)[1].encode())
            hangs = time.monotonic() >= deadline
        finally:
            process.kill()
            process.wait()
            os.close(terminal)
        awaited = [pattern for pattern, _ in waiting[:1]]  # what would be typed may be a password
        assert not hangs, f"{name} hangs; awaited {awaited}:\n{_shown(_bare(shown))}"
        assert not waiting, f"{name} ended; awaited {awaited}:\n{_shown(_bare(shown))}"


def driven(
    program: str,
    protocol: str,
    does: str,
    login: str,
    *,
    package: str | None = None,
    securities: Sequence[Security] = tuple(Security),
) -> Callable[[Callable[Concatenate[Berth, P], None]], Callable[Concatenate[Berth, P], None]]:
    """The test of a program: run once for each security, and entered in the table with what it claims."""
    entry = Entry(program, package or program, protocol, does, login, tuple(securities))
    ENTRIES[entry] = None

    def decorate(test: Callable[Concatenate[Berth, P], None]) -> Callable[Concatenate[Berth, P], None]:
        @pytest.mark.parametrize("berth", [pytest.param((entry, s), id=s.value) for s in securities], indirect=True)
        @functools.wraps(test)
        def run(berth: Berth, *fixtures: P.args, **named: P.kwargs) -> None:
            test(berth, *fixtures, **named)
            used = berth.tap.securities
            assert used == {berth.security}, f"it used {used}"
            if berth.security is Security.PLAIN:
                assert berth.tap.logins == {entry.login}, f"it logged in by {berth.tap.logins}"
            DRIVEN.add((entry, berth.security))

        return cast("Callable[Concatenate[Berth, P], None]", run)

    return decorate


def installed(name: str) -> str:
    """The path of a program; a missing one is a failure, never a skip."""
    path = shutil.which(name)
    packages = " ".join(PACKAGES.read_text().split())
    assert path is not None, f"{name} is not installed; run: apt-get install -y --no-install-recommends {packages}"
    return path


def same(kept: bytes, stored: bytes) -> None:
    """A program kept the whole message; it may have made LF of CRLF."""
    assert _lines(kept) == _lines(stored), f"not as it was:\n{_shown(kept)}"


def same_body(kept: bytes, stored: bytes) -> None:
    """A program added header lines of its own, and kept the rest."""
    head, _, body = _lines(kept).partition(b"\n\n")
    stored_head, _, stored_body = _lines(stored).partition(b"\n\n")
    assert body == stored_body, f"another body:\n{_shown(kept)}"
    identity = re.search(rb"^Message-ID: .*$", stored_head, re.MULTILINE | re.IGNORECASE)
    assert identity is not None
    assert identity[0].lower() in head.lower(), f"another message:\n{_shown(kept)}"


def same_lines(shown: bytes, stored: bytes) -> None:
    """A program showed the message to a person: every line of the body is there."""
    missing = [line for line in _lines(stored).partition(b"\n\n")[2].split(b"\n") if line not in shown]
    assert missing == [], f"not all lines:\n{_shown(shown)}"


def sent_whole(stored: bytes, letter: bytes) -> None:
    """As it was given to the program, below the trace headers of the servers."""
    at = stored.find(letter.partition(b"\r\n")[0])
    assert at > 0, f"another message:\n{_shown(stored)}"
    same(stored[at:], letter)


def only_file(folder: Path) -> bytes:
    """The one message in a Maildir."""
    files = [file for part in ("new", "cur") for file in (folder / part).glob("*")]
    assert len(files) == 1, f"{len(files)} messages were kept"
    return files[0].read_bytes()


def _read(terminal: int, limit_s: float) -> bytes:
    """What the program shows next; nothing once it has ended, or shows nothing in time."""
    poll = select.poll()  # `select` itself knows no descriptor above 1,023, and a long test run has them
    poll.register(terminal, select.POLLIN)
    if limit_s <= 0 or not poll.poll(limit_s * 1_000):
        return b""
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux: nobody has the other end open any more
        return b""


def _lines(octets: bytes) -> bytes:
    return octets.replace(b"\r\n", b"\n").rstrip(b"\n")


def _bare(shown: bytes) -> bytes:
    """Without the terminal's control sequences."""
    return re.sub(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78]|\][^\x07\x1b]*(?:\x07|\x1b\\))|\x0f", b"", shown)


def _shown(*said: bytes | None) -> str:
    return b"\n".join(part or b"" for part in said)[-SHOWN_OCTETS:].decode(errors="replace")
