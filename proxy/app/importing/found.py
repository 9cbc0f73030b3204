"""What was found in another program's files, as values: apps, accounts, listeners, and a verdict for every line.

What it is not: how it is read (the readers beside it) or what becomes of it (`app/takeover.py`). No value prints a
secret.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proxy.config.settings import ProtocolName

KINDS = ("email-oauth2-proxy", "sasl-xoauth2", "davmail")
"""Whose files can be read, as `--kind` calls them; the first that recognises a text has it (`readers.py`)."""


class Verdict(enum.Enum):
    TAKEN = "taken"
    OTHERWISE = "taken otherwise"
    NOT_TAKEN = "not taken"


@dataclass(frozen=True, slots=True)
class Text:
    """A file's content."""

    file: Path
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of a line, or of a few that belong together."""

    file: Path
    line: int
    """From 1."""
    last_line: int
    subject: str
    """The section or key that stands there; never a value that may be secret."""
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """A text that its program stored: in clear, or sealed with a key that is made of a password (`seals.py`)."""

    form: Literal["clear", "fernet", "aes"]
    text: str = field(repr=False)
    salt: bytes = b""
    iterations: tuple[int, ...] = ()
    """Of the key's making; each is tried."""


@dataclass(frozen=True, slots=True)
class FoundApp:
    """An app registration as another program was told of it."""

    application_id: str
    account_types: str
    cloud: str = "global"
    authority: str = ""
    """The whole authority, of a private sign-in service alone."""
    flow: Literal["delegated", "app_only"] = "delegated"
    redirect_uri: str = ""
    client_secret: str = field(default="", repr=False)
    certificate: tuple[str, str] | None = None
    """Paths of the PEM certificate and its key."""
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """A login of the mail program, and what its program kept for it."""

    file: Path
    line: int
    login: str
    app: FoundApp | None
    """None: only an app that belongs to that program; another one is needed."""
    protocols: tuple[ProtocolName, ...] = ()
    """Empty: all."""
    refresh_token: Sealed | None = None
    proof: Sealed | None = None
    """Something else that is sealed with the same password; it tells whether a password is the right one."""
    client_secret: Sealed | None = None
    """The app's, sealed with this account's password."""

    @property
    def sealed(self) -> tuple[Sealed, ...]:
        """What a password is needed for."""
        kept = (self.refresh_token, self.client_secret, self.proof)
        return tuple(each for each in kept if each is not None and each.form != "clear")


@dataclass(frozen=True, slots=True)
class FoundListener:
    """Where mail programs have reached the old program, as lines of our configuration would say it."""

    protocol: ProtocolName
    address: str
    port: int
    certificate: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """All that one program's files say."""

    program: str
    judged: Sequence[Judged] = ()
    apps: Sequence[FoundApp] = ()
    """Those of no account that stands there by name, too."""
    accounts: Sequence[FoundAccount] = ()
    listeners: Sequence[FoundListener] = ()


class Bench:
    """Where a reader lays down what it finds, in the order it comes."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._judged: list[Judged] = []
        self.apps: dict[FoundApp, None] = {}
        self.accounts: list[FoundAccount] = []
        self.listeners: dict[FoundListener, None] = {}

    def taken(self, spot: Spot, text: str) -> None:
        self._judge(spot, Verdict.TAKEN, text)

    def otherwise(self, spot: Spot, text: str) -> None:
        self._judge(spot, Verdict.OTHERWISE, text)

    def not_taken(self, spot: Spot, text: str) -> None:
        self._judge(spot, Verdict.NOT_TAKEN, text)

    def found(self) -> Found:
        judged = sorted(self._judged, key=lambda each: (str(each.file), each.line))
        return Found(self._program, tuple(judged), tuple(self.apps), tuple(self.accounts), tuple(self.listeners))

    def _judge(self, spot: Spot, verdict: Verdict, text: str) -> None:
        self._judged.append(Judged(spot.file, spot.line, spot.last_line, spot.subject, verdict, text))


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something stands, and its name."""

    file: Path
    line: int
    last_line: int
    subject: str
