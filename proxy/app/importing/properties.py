"""Java properties, with line numbers: `key=value`, `key: value` or `key value`, with backslash escapes.

Called by `davmail.py`. The last of two equal keys counts, as in Java.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from proxy.app.importing.ini import lines_of

_BLANKS = " \t\f"
_SETTING = re.compile(r"(?P<key>(?:\\.|[^\\=: \t\f])*)[ \t\f]*(?:[=:][ \t\f]*)?(?P<value>.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Property:
    key: str
    value: str = field(repr=False)
    line: int
    last_line: int


def read_properties(text: str) -> list[Property]:
    """All of them, in their order."""
    properties: list[Property] = []
    lines = lines_of(text)
    at = 0
    while at < len(lines):
        first, line = at, lines[at].lstrip(_BLANKS)
        at += 1
        if not line or line[0] in "#!":
            continue
        while _goes_on(line) and at < len(lines):
            line = line[:-1] + lines[at].lstrip(_BLANKS)
            at += 1
        if _goes_on(line):
            line = line[:-1]
        if found := _SETTING.fullmatch(line):
            properties.append(Property(_plain(found["key"]), _plain(found["value"]), first + 1, at))
    return properties


def _goes_on(line: str) -> bool:
    """Whether it ends in a backslash that is not itself escaped."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _plain(escaped: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else _CONTROLS.get(found[2], found[2]), escaped)
