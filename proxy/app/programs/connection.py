"""The facts about one account that every mail program must be told: who logs in, and how each protocol is reached.

Plain frozen values. `reach.py` makes them from the configuration; the programs beside it only read them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy.config.settings import ProtocolName

NAMES: Mapping[str, str] = {"imap": "IMAP", "pop3": "POP3", "smtp": "SMTP"}
_UNFIT_IN_A_FILE_NAME = re.compile(r"[^A-Za-z0-9@._+-]+")


class Security(enum.Enum):
    """How a connection is encrypted. Programs call these by many names; each module says its own."""

    PLAIN = "none"
    STARTTLS = "starttls"
    TLS = "tls"


ALL = (Security.PLAIN, Security.STARTTLS, Security.TLS)


class Unreachable(Exception):
    """This program cannot be told anything that would work; the text says why and what to change."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The local certificate authority, which programs are told to trust."""

    file: Path
    pem: str = field(repr=False)
    sha256: str
    """`AB:CD:…`, as programs show it."""
    expires: str
    """The date, as YYYY-MM-DD."""


@dataclass(frozen=True, slots=True)
class Door:
    """One protocol, as one program reaches it."""

    protocol: ProtocolName
    host: str
    port: int
    security: Security

    @property
    def url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True)
class Entrance:
    """A listener, as mail programs see it."""

    protocol: ProtocolName
    host: str
    tls_host: str
    """The name that the certificate holds; plain connections do better with the address (no time lost on ::1)."""
    port: int
    offers: tuple[Security, ...]
    local: bool
    """It is reached from this machine alone, where plain text harms nobody (CLIENTS 4)."""
    listens: str
    """Address and port, as a message names the listener."""
    local_authority: bool = True
    """Its certificate comes from our authority, not from the person's own files."""
    login_needed: bool = True

    def door(self, knows: Sequence[Security], *, private: bool) -> Door | None:
        """The simplest security that both know; with `private`, or over a network, an encrypted one if there is any."""
        order = ALL if self.local and not private else (Security.STARTTLS, Security.TLS, Security.PLAIN)
        if not self.offers:
            return None
        for security in order:
            if security in self.offers and security in knows:
                host = self.host if security is Security.PLAIN else self.tls_host
                return Door(self.protocol, host, self.port, security)
        return None


@dataclass(frozen=True, slots=True)
class Connection:
    """All that programs are told of one account."""

    login: str
    mailbox: str
    """The address that mail comes from."""
    entrances: Mapping[str, Entrance]
    """By protocol; what is missing stands in `missing`."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a protocol is not there, in a sentence; by protocol."""
    authority: Authority | None = None
    private: bool = False
    """The person wants encryption on this machine, too."""
    device: Entrance | None = None
    """Where a device in the corridor sends mail: a listener that the network reaches."""
    page: str = ""
    """`http://127.0.0.1:8143`; empty when the page is off."""
    notes: tuple[str, ...] = ()

    @property
    def domain(self) -> str:
        return self.mailbox.rpartition("@")[2]

    @property
    def file_stem(self) -> str:
        """The login, as far as a file's name may hold it."""
        return _UNFIT_IN_A_FILE_NAME.sub("-", self.login).strip(".-") or "mail"

    @property
    def password_file(self) -> str:
        """Where programs of a terminal may read the password, below the home folder; a person makes it."""
        return f".mailferry/{self.file_stem}"

    def door(self, protocol: str, program: str, knows: Sequence[Security] = ALL) -> Door:
        """How this program reaches the protocol.

        Raises: Unreachable: it does not; the text says why.
        """
        entrance = self.entrances.get(protocol)
        if entrance is None:
            raise Unreachable(self.missing.get(protocol) or f"No listener serves {NAMES[protocol]}.")
        door = entrance.door(knows, private=self.private)
        if door is None:
            offers = " and ".join(_WORDS[each] for each in entrance.offers)
            raise Unreachable(
                f"The {NAMES[protocol]} listener on {entrance.listens} takes {offers}, which {program} cannot use "
                "there. Give that listener `tls: auto` in the configuration."
            )
        return door

    def find(self, protocol: str, program: str, knows: Sequence[Security] = ALL) -> Door | None:
        """The same, for a protocol that the program can do without."""
        try:
            return self.door(protocol, program, knows)
        except Unreachable:
            return None

    def incoming(self, program: str, knows: Sequence[Security] = ALL) -> Door:
        """IMAP where it is allowed, else POP3. Raises: Unreachable: neither."""
        found = self.find("imap", program, knows) or self.find("pop3", program, knows)
        return found or self.door("imap", program, knows)

    def trusts(self, *doors: Door | None) -> Authority | None:
        """The authority that must be trusted for these; None where nothing is encrypted with its certificate."""
        return self.authority if self._shows_ours(doors) else None

    def trust_notes(self, *doors: Door | None) -> tuple[str, ...]:
        """A word where an authority must be trusted, and its certificate is not at hand."""
        if self.authority is not None or not self._shows_ours(doors):
            return ()
        return (
            "The program must trust the local authority, whose certificate could not be read: it is made when the "
            "daemon first starts, and only its user and root read it (`mailferry ca`).",
        )

    def _shows_ours(self, doors: Sequence[Door | None]) -> bool:
        return any(
            door is not None
            and door.security is not Security.PLAIN
            and door.protocol in self.entrances
            and self.entrances[door.protocol].local_authority
            for door in doors
        )


_WORDS = {Security.PLAIN: "no encryption", Security.STARTTLS: "STARTTLS", Security.TLS: "TLS from the start"}
