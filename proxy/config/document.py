"""GROUND: YAML text -> a tree of nodes that know where they are written; and plain values -> YAML text.

What it is: the only door to yaml. What it is not: a judge of keys and values; `read.py` and its readers are. Scalars
stay text: the key that is read decides what the text means, so `tls: off` is the word "off" and not the number of a
truth value. No tag is ever executed, and none is accepted. Size, depth and aliases are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from proxy.config.findings import Place, Report, quoted

MAX_DEPTH = 12  # mappings and lists within each other; PRODUCT section 3 needs 6
MAX_NODES = 400_000  # aliases counted as what they stand for; some 20,000 accounts
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, ten times as fast, where the package has it
_YAML_REMEDY = "mend the YAML: indent with spaces, put a space after each colon, quote texts with special characters"

Value = str | int | bool | None | Sequence["Value"] | Mapping[str, "Value"]
"""What can be written: the plain values of JSON, without fractions."""


@dataclass(frozen=True, slots=True)
class ScalarNode:
    place: Place
    text: str = field(repr=False)
    plain: bool
    """Written without quotes: only then can it be a number, a truth value or nothing."""

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class SequenceNode:
    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MappingNode:
    place: Place
    entries: Mapping[str, Node]


Node = ScalarNode | SequenceNode | MappingNode


def parse(file: Path, text: str, report: Report) -> MappingNode:
    """The one document of this text, which stands in `file`; an empty one, and findings, when it is no YAML mapping."""
    top = Place(file, 1)
    try:
        root = _Composer(top, text, report).document()
    except _NotReadable as stop:
        report.error(stop.place, stop.problem, stop.remedy)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # The parser's words may quote what is written there, which may be a secret.
        problem = re.sub(r"'[^']{2,}'", "something else", error.problem or "something is wrong")
        report.error(Place(file, mark.line + 1 if mark else 1), f"this is not YAML: {problem}", _YAML_REMEDY)
    except (yaml.YAMLError, ValueError, OverflowError):
        # A character that YAML does not allow, or an escape that is no character.
        report.error(top, "this is not YAML: it holds characters that YAML does not allow", _YAML_REMEDY)
    else:
        if isinstance(root, MappingNode):
            return root
        if root is not None and not (isinstance(root, ScalarNode) and root.is_null):
            report.error(top, "this is not a list of keys", "write keys and values, as in config.example.yaml")
    return MappingNode(top, {})


def plain(node: Node) -> Value:
    """The values of a node, to be changed and written again."""
    match node:
        case MappingNode(entries=entries):
            return {key: plain(value) for key, value in entries.items()}
        case SequenceNode(items=items):
            return [plain(item) for item in items]
    if node.is_null:
        return None
    if node.plain and re.fullmatch(r"[0-9]{1,9}", node.text):
        return int(node.text)
    return node.text == "true" if node.plain and node.text in ("true", "false") else node.text


def render(value: Value) -> str:
    """These values as YAML text, keys in their order; keys without a value are left out."""
    text: str = yaml.dump(_bare(value), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=1_000)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes the same value out each time: an anchor is hard to read."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _bare(value: Value) -> Value:
    if isinstance(value, Mapping):
        return {key: _bare(item) for key, item in value.items() if item is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_bare(item) for item in value]
    return value


class _NotReadable(Exception):
    """The document is given up at this place."""

    def __init__(self, place: Place, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.place = place
        self.problem = problem
        self.remedy = remedy


class _Composer:
    """Makes nodes of the parser's events. It reads them one by one, so that a bound stops the parser as well."""

    def __init__(self, top: Place, text: str, report: Report) -> None:
        self._top = top
        self._report = report
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0

    def document(self) -> Node | None:
        """The root node, or None for an empty text."""
        root = None
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            if root is not None:
                place = Place(self._top.file, _line(event))
                raise _NotReadable(place, "a second YAML document begins here", "keep one document in each file")
            root = self._node(next(self._events), self._top, 0)
        return root

    def _node(self, event: yaml.Event, place: Place, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise _NotReadable(place, f"nested deeper than {MAX_DEPTH} levels", "no key needs that; write it flat")
        before = self._count
        self._grow(1, place)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, place)
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in (None, "!"):
            self._report.error(place, "YAML tags are not accepted", "remove what begins with '!', or quote the text")
        node: Node
        if isinstance(event, yaml.MappingStartEvent):
            node = MappingNode(place, self._entries(place, depth))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = SequenceNode(place, tuple(self._items(place, depth)))
        elif isinstance(event, yaml.ScalarEvent):
            node = ScalarNode(place, event.value, event.style in (None, ""))
        else:
            raise _NotReadable(place, "this is not YAML: a value is missing", _YAML_REMEDY)
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = (node, self._count - before)
        return node

    def _items(self, place: Place, depth: int) -> Iterator[Node]:
        index = 0
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, place.item(_line(event), index), depth + 1)
            index += 1

    def _entries(self, place: Place, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line(event)
            key = self._node(event, place.at(line, "key"), depth + 1)
            named = key.text if isinstance(key, ScalarNode) else None
            at = place.at(line, named if named is not None else "key")
            value = self._node(next(self._events), at, depth + 1)
            if named is None:
                self._report.error(at, "a list or mapping cannot be a key", "write a name before the colon")
            elif named in entries:
                self._report.error(
                    at, f"{quoted(named)} is defined twice, first in line {lines[named]}", "keep one of the two"
                )
            else:
                entries[named] = value
                lines[named] = line
        return entries

    def _alias(self, anchor: str | None, place: Place) -> Node:
        if anchor is None or anchor not in self._anchors:
            raise _NotReadable(place, "an alias ('*') that names no anchor before it", "quote the text if '*' is meant")
        node, size = self._anchors[anchor]
        self._grow(size, place)
        return node

    def _grow(self, size: int, place: Place) -> None:
        self._count += size
        if self._count > MAX_NODES:
            raise _NotReadable(place, f"more than {MAX_NODES} values in one file", "spread the accounts over conf.d")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
