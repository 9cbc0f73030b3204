"""INI files as Python's configparser reads them (no interpolation), but with line numbers, and without giving up.

What configparser refuses (a line that is no setting, a name that stands twice) is a `Stray` here: a person is told of
it. Called by `email_oauth2_proxy.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

DEFAULT = "DEFAULT"  # configparser's name for the section that stands behind all others
_HEADER = re.compile(r"\[(?P<name>.+)\]")
_DELIMITER = re.compile("[=:]")


@dataclass(slots=True)
class Setting:
    key: str
    """In lower case."""
    line: int
    parts: list[str] = field(repr=False)
    """The value's lines."""
    last_line: int

    @property
    def value(self) -> str:
        return "\n".join(self.parts).rstrip()


@dataclass(slots=True)
class Section:
    name: str
    line: int
    settings: dict[str, Setting] = field(default_factory=dict)


@dataclass(slots=True)
class Stray:
    """A line that configparser would not take, and those that go on from it."""

    line: int
    problem: str
    last_line: int


@dataclass(slots=True)
class Ini:
    sections: dict[str, Section] = field(default_factory=dict)
    strays: list[Stray] = field(default_factory=list)


def lines_of(text: str) -> list[str]:
    """As an open text file gives them; `splitlines` would cut at further characters."""
    return re.split(r"\r\n|\r|\n", text)


def read_ini(text: str) -> Ini:
    return _Reading().read(lines_of(text))


class _Reading:
    def __init__(self) -> None:
        self._ini = Ini()
        self._section: Section | None = None
        self._setting: Setting | None = None
        self._strayed: Stray | None = None
        """What the setting is, if it does not count."""
        self._indent = 0

    def read(self, lines: Iterable[str]) -> Ini:
        for number, line in enumerate(lines, 1):
            stripped = line.strip()
            if stripped.startswith(("#", ";")):
                continue
            if not stripped:
                if self._setting is not None:
                    self._setting.parts.append("")
                continue
            indent = len(line) - len(line.lstrip())
            if self._setting is not None and indent > self._indent:
                self._setting.parts.append(stripped)
                self._setting.last_line = number
                if self._strayed is not None:
                    self._strayed.last_line = number
                continue
            self._indent = indent
            self._open(number, stripped)
        return self._ini

    def _open(self, number: int, line: str) -> None:
        """A new section or setting."""
        self._setting = self._strayed = None
        if header := _HEADER.match(line):
            name = header["name"]
            self._section = Section(name, number)
            if name in self._ini.sections:
                self._stray(number, f"section [{name}] stands twice, and the first one counts")
            else:
                self._ini.sections[name] = self._section
            return
        delimiter = _DELIMITER.search(line)
        if self._section is None:
            self._stray(number, "stands before the first [section]")
        elif delimiter is None or not line[: delimiter.start()]:
            self._stray(number, "is neither a [section] nor NAME = VALUE")
        else:
            key, value = line[: delimiter.start()].rstrip().lower(), line[delimiter.end() :].strip()
            setting = Setting(key, number, [value], number)
            self._setting = setting
            if self._ini.sections[self._section.name] is not self._section:
                self._stray(number, "stands in a section that stands twice")
            elif setting.key in self._section.settings:
                self._stray(number, f"{setting.key} stands twice, and the first one counts")
            else:
                self._section.settings[setting.key] = setting

    def _stray(self, number: int, problem: str) -> None:
        self._strayed = Stray(number, problem, number)
        self._ini.strays.append(self._strayed)
