"""GROUND: reading one mapping key by key, with every finding told and none raised.

`Section` gives each value in its type. A value that is wrong becomes a finding, and the default takes its place, so
that reading goes on and all findings come at once. A key that nobody asked for is unknown. Called by the readers
beside it; what the values mean is theirs.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from proxy.config.document import MappingNode, Node, ScalarNode, SequenceNode
from proxy.config.findings import Place, Report, quoted
from proxy.config.settings import PROTOCOL_NAMES, Network, ProtocolName

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)

_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_ELSEWHERE = {  # what other programs call our keys: too far from them to be the nearest by letters
    "authority_url": "authority",
    "client_id": "application_id",
    "directory_id": "account_types",
    "email": "login",
    "permissions": "scopes",
    "secret": "client_secret",
    "tenant": "account_types",
    "tenant_id": "account_types",
    "user": "login",
    "username": "login",
}
HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the configuration: where findings go, and what is around the files."""

    report: Report
    environ: Mapping[str, str] = field(repr=False)
    exposed: Mapping[Path, str]
    """Configuration files that others can read, and how so (`files.exposure`)."""

    @property
    def home(self) -> Path:
        return Path(self.environ.get("HOME") or os.path.expanduser("~"))

    def resolved(self, text: str, place: Place) -> Path:
        """A path as written: `~` is the home folder, a relative one is relative to the file it stands in."""
        if text == "~" or text.startswith("~/"):
            return self.home / text[2:]
        return place.file.absolute().parent / text


class Section:
    """The keys of one mapping. Use it in a `with` statement: leaving it tells the keys that nobody asked for."""

    def __init__(self, node: Node, reading: Reading) -> None:
        self.place = node.place
        self.reading = reading
        self._report = reading.report
        self._asked: list[str] = []
        self._entries: Mapping[str, Node] = {}
        self.sound = isinstance(node, MappingNode) or (isinstance(node, ScalarNode) and node.is_null)
        if isinstance(node, MappingNode):
            self._entries = node.entries
        elif not self.sound:
            self.error(node.place, f"is {_kind(node)}", "write keys and values here, as in config.example.yaml")

    def __enter__(self) -> Section:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for key, node in self._entries.items():
            if key not in self._asked:
                near = nearest(_ELSEWHERE.get(key, key), self._asked)
                remedy = f"did you mean {near}?" if near else f"known here: {', '.join(sorted(self._asked))}"
                self.error(node.place, "unknown key", remedy)

    def error(self, place: Place, problem: str, remedy: str) -> None:
        self._report.error(place, problem, remedy)

    def warning(self, place: Place, problem: str, remedy: str) -> None:
        self._report.warning(place, problem, remedy)

    def at(self, key: str) -> Place:
        """Where this key is written; where it would be, when it is not."""
        return self._entries[key].place if key in self._entries else self.place.at(self.place.line, key)

    def node(self, key: str) -> Node | None:
        """The node of this key; None when it is missing or empty."""
        if key not in self._asked:
            self._asked.append(key)
        node = self._entries.get(key)
        return None if isinstance(node, ScalarNode) and node.is_null else node

    def has(self, key: str) -> bool:
        return self.node(key) is not None

    def missing(self, key: str, remedy: str) -> None:
        """Tell that a key is needed and not there (a mapping that is none has been told already)."""
        if self.sound:
            self.error(self.at(key), "is missing", remedy)

    def forbidden(self, key: str, problem: str, remedy: str) -> None:
        """A key that is known and may not stand here."""
        if self.has(key):
            self.error(self.at(key), problem, remedy)

    def unserved(self, key: str) -> None:
        """A key that a later version will serve."""
        self.forbidden(key, "not available in this version", "remove it")

    def text(self, key: str, default: str = "") -> str:
        node = self.node(key)
        return default if node is None else self.text_of(node, default)

    def text_of(self, node: Node, default: str = "") -> str:
        """The text of a node: printable, not empty."""
        if not isinstance(node, ScalarNode):
            self.error(node.place, f"is {_kind(node)}", "write one text")
        elif not node.text.strip() or not node.text.isprintable():
            self.error(node.place, "is empty or holds characters that cannot be printed", "write one line of text")
        else:
            return node.text
        return default

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        node = self.node(key)
        if node is None:
            return default
        remedy = f"write a whole number from {low} to {high}"
        if not isinstance(node, ScalarNode):
            self.error(node.place, f"is {_kind(node)}", remedy)
        elif not node.plain or not re.fullmatch(r"[+-]?[0-9]{1,18}", node.text):
            self.error(node.place, f"{quoted(node.text)} is not a whole number", f"{remedy}, without quotes")
        elif not low <= int(node.text) <= high:
            self.error(node.place, f"{node.text} is out of range", remedy)
        else:
            return int(node.text)
        return default

    def flag(self, key: str, default: bool) -> bool:
        node = self.node(key)
        if node is None:
            return default
        if isinstance(node, ScalarNode) and _is_flag(node):
            return _FLAGS[node.text.lower()]
        self.error(node.place, f"is {_shown(node)}", "write true or false, without quotes")
        return default

    def choice(self, key: str, choices: Mapping[str, T], default: T, remedy: str = "") -> T:
        node = self.node(key)
        if node is None:
            return default
        if isinstance(node, ScalarNode) and node.text in choices:
            return choices[node.text]
        self.error(node.place, f"is {_shown(node)}", remedy or f"write one of {', '.join(choices)}")
        return default

    def member(self, key: str, kind: type[E], default: E, remedy: str = "") -> E:
        """A member of this enum, by its value."""
        return self.choice(key, {member.value: member for member in kind}, default, remedy)

    def items(self, key: str) -> tuple[Node, ...]:
        """The items of a list; a single value stands for a list of one."""
        node = self.node(key)
        if node is None:
            return ()
        return node.items if isinstance(node, SequenceNode) else (node,)

    def named(self, key: str) -> Mapping[str, Node]:
        """The entries of a mapping whose keys are names."""
        node = self.node(key)
        if isinstance(node, MappingNode):
            return node.entries
        if node is not None:
            self.error(node.place, f"is {_kind(node)}", "write a name before each entry, as in config.example.yaml")
        return {}

    def path(self, key: str) -> Path | None:
        text = self.text(key)
        return self.reading.resolved(text, self.at(key)) if text else None

    def host(self, key: str, default: str) -> str:
        text = self.text(key, default)
        if HOST.fullmatch(text) or _ip(text):
            return text
        self.error(self.at(key), f"{quoted(text)} is not a host name", "write a name such as mail.example.com")
        return default

    def networks(self, key: str) -> tuple[Network, ...]:
        """CIDR networks; empty when the key is missing. An empty list would open what it seems to close."""
        written = self.node(key)
        if isinstance(written, ScalarNode) and _is_flag(written):
            remedy = f"write a list of networks, as in {key}: [192.168.1.0/24], or remove the key"
            self.error(written.place, f"is {_shown(written)}", remedy)
            return ()
        if written is not None and not self.items(key):
            self.error(self.at(key), "is an empty list", "write networks such as 192.168.1.0/24, or remove the key")
        return tuple(network for node in self.items(key) if (network := self._network(node)))

    def protocols(self, key: str) -> tuple[ProtocolName, ...]:
        """Protocol names in the order of `PROTOCOL_NAMES`; all of them when the key is missing."""
        given = {self.text_of(node): node.place for node in self.items(key)}
        for name, place in given.items():
            if name and name not in PROTOCOL_NAMES:
                self.error(place, f"{quoted(name)} is not a protocol", f"write some of {', '.join(PROTOCOL_NAMES)}")
        if self.has(key) and not given:
            self.error(self.at(key), "is an empty list", f"write some of {', '.join(PROTOCOL_NAMES)}")
        return tuple(name for name in PROTOCOL_NAMES if name in given) or PROTOCOL_NAMES

    def _network(self, node: Node) -> Network | None:
        text = self.text_of(node)
        if not text:
            return None
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            pass
        try:
            meant = str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            meant = "an address or network such as 192.168.1.0/24"
        self.error(node.place, f"{quoted(text)} is not a network in CIDR form", f"write {meant}")
        return None


def nearest(name: str, names: list[str]) -> str | None:
    """The name that was probably meant."""
    close = difflib.get_close_matches(name[:64], names, 1)
    return close[0] if close else None


def _ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_flag(node: ScalarNode) -> bool:
    return node.plain and node.text.lower() in _FLAGS


def _kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping (keys and values)"
    return "a list" if isinstance(node, SequenceNode) else "a single value"


def _shown(node: Node) -> str:
    return quoted(node.text) if isinstance(node, ScalarNode) else _kind(node)
