"""GROUND: what is wrong with a configuration, said to a person: file, line, key, problem, remedy.

What it is: values, the list that collects them, and the one exception of this floor. What it is not: the rules
themselves, which stand in the readers beside it. A finding never quotes a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]
MAX_QUOTED_CHARACTERS = 60  # a finding stays a line that a person reads
_PLAIN_KEY = re.compile(r"[\w@.+-]{1,60}")


def quoted(text: str) -> str:
    """A value as a finding shows it: in quotes, on one line, cut when long."""
    return repr(text if len(text) <= MAX_QUOTED_CHARACTERS else text[:MAX_QUOTED_CHARACTERS] + "…")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written; `key` is its whole path, e.g. `accounts[0].login`, empty for the whole file."""

    file: Path
    line: int
    """From 1."""
    key: str = ""

    def at(self, line: int, key: str) -> Place:
        """The place of this key, which stands in the mapping that stands here."""
        step = key if _PLAIN_KEY.fullmatch(key) else quoted(key)
        return Place(self.file, line, f"{self.key}.{step}" if self.key else step)

    def item(self, line: int, index: int) -> Place:
        """The place of an item of the list that stands here."""
        return Place(self.file, line, f"{self.key}[{index}]")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (`error`: the configuration does not load) or unwise (`warning`)."""

    severity: Severity
    file: Path
    line: int
    key: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}{self.problem}; {self.remedy}"


class ConfigurationError(Exception):
    """The configuration does not load, or a change to it was not made. `findings` holds every reason."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(map(str, self.findings)))


def refusal(file: Path, problem: str, remedy: str, *, line: int = 1, key: str = "") -> ConfigurationError:
    """The error of a single reason."""
    return ConfigurationError([Finding("error", file, line, key, problem, remedy)])


@dataclass(slots=True)
class Report:
    """The findings of one reading, as they come."""

    findings: list[Finding] = field(default_factory=list)

    def error(self, place: Place, problem: str, remedy: str) -> None:
        self.findings.append(Finding("error", place.file, place.line, place.key, problem, remedy))

    def warning(self, place: Place, problem: str, remedy: str) -> None:
        self.findings.append(Finding("warning", place.file, place.line, place.key, problem, remedy))

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]
