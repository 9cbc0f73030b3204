"""What comes out for a program: steps for a person, and files. The page shows them as HTML; here they become text.

A step never names a command or a link for what it needs; it says *what* it needs (`Needs`), so that the command line
names the command and the page has the link.
"""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

WIDTH = 100  # characters of a line on a terminal


class Needs(enum.Enum):
    """What a person must get first."""

    CERTIFICATE = "certificate"
    """The local authority's certificate, as a file."""
    DEVICE_PASSWORD = "device_password"  # noqa: S105 - a name
    """A further password, for one device."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `values` are what is typed or chosen, with the name of the field; `code` is to copy whole."""

    text: str
    values: tuple[tuple[str, str], ...] = ()
    code: str = field(default="", repr=False)
    needs: Needs | None = None
    file: str = ""
    """The name of a file of this guide, which is needed here."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some steps that belong together, in their order."""

    title: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A file for the program."""

    name: str
    media_type: str
    content: str | bytes = field(repr=False)
    encoding: str = "utf-8"
    newline: str = "\n"

    @property
    def text(self) -> str:
        """To look at; empty for what is no text."""
        return self.content if isinstance(self.content, str) else ""

    @property
    def octets(self) -> bytes:
        if isinstance(self.content, bytes):
            return self.content
        text = self.content.replace("\r\n", "\n").replace("\n", self.newline)
        bom = b"\xff\xfe" if self.encoding == "utf-16-le" else b""
        return bom + text.encode(self.encoding)


@dataclass(frozen=True, slots=True)
class Guide:
    """All about one program. A plain one is its file: printed as it is, it works."""

    title: str
    parts: tuple[Part, ...] = ()
    files: tuple[File, ...] = ()
    notes: tuple[str, ...] = ()
    plain: bool = False
    """The first file is what a person wants to see; it says in comments where the password goes."""

    def file(self, name: str) -> File | None:
        return next((each for each in self.files if each.name == name), None)


def as_text(guide: Guide, way: Callable[[Needs], str], file_way: Callable[[File], str]) -> str:
    """The guide for a terminal or a sheet of paper. `way`, `file_way` say how to get what a step needs."""
    lines = [guide.title, "=" * len(guide.title), ""]
    for part in guide.parts:
        lines += [part.title, "-" * len(part.title)]
        for number, step in enumerate(part.steps, 1):
            lines += _step_lines(number, step, guide, way, file_way)
        lines.append("")
    for note in guide.notes:
        lines += [*_wrapped(note, "Note: "), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _wrapped(text: str, head: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _step_lines(
    number: int, step: Step, guide: Guide, way: Callable[[Needs], str], file_way: Callable[[File], str]
) -> list[str]:
    indent = " " * 4
    lines = _wrapped(step.text, f"{number:2}. ")
    width = max((len(name) for name, _ in step.values), default=0)
    lines += [f"{indent}  {name:{width}}  {value}" for name, value in step.values]
    if step.code:
        lines += ["", *(f"{indent}  {line}" for line in step.code.splitlines()), ""]
    if step.needs is not None:
        lines.append(f"{indent}  {way(step.needs)}")
    file = guide.file(step.file)
    if file is not None:
        lines.append(f"{indent}  {file_way(file)}")
    return lines
