"""The terminal: questions, secrets, tables. What a command says it says through here or by print."""

from __future__ import annotations

import contextlib
import getpass
import sys
from collections.abc import Mapping, Sequence


class UsageError(Exception):
    """The command cannot be carried out as it was given; the text says what to give."""


def ask(question: str, option: str, default: str = "") -> str:
    """The answer of a person at the terminal, who is asked until there is one.

    Raises:
        UsageError: there is no terminal; `option` says the same.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"Give {option}: {question}.")
    answer = ""
    while not answer:
        answer = read_line(f"{question}{f' [{default}]' if default else ''}: ").strip() or default
    return answer


def read_line(prompt: str, *, hidden: bool = False) -> str:
    """A line from the terminal, or from what is piped in; `hidden` does not show it.

    Raises:
        UsageError: it is no text.
        EOFError: the person at the terminal ended the input.
    """
    try:
        if not sys.stdin.isatty():
            line = sys.stdin.readline().rstrip("\r\n")
        elif hidden:
            line = getpass.getpass(prompt)
        else:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - a terminal's own lines end at 4,095 octets; a pasted address may be longer
            line = input(prompt)
        line.encode()  # else what was no text is told only where it is used
    except UnicodeError:  # its own words show a part of what may be a secret
        raise UsageError("What was typed or piped in is not UTF-8 text.") from None
    return line


def shown(value: object) -> str:
    """A value as a person reads it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def print_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str], empty: str) -> None:
    """The columns' names are those of the rows' keys; `empty` is said where there is no row."""
    if not rows:
        print(empty)
        return
    cells = [[column.replace("_", " ").upper() for column in columns]]
    cells += [[shown(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
