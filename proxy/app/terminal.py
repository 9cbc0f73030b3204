"""The terminal: questions, secrets, tables. What a command says it says through here or by print."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping, Sequence


class UsageError(Exception):
    """The command cannot be carried out as it was given; the text says what to give."""


def ask(question: str, option: str, default: str = "") -> str:
    if not sys.stdin.isatty():
        raise UsageError(f"Give {option}: {question}.")
    answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip() or default
    return answer or ask(question, option, default)


def read_line(prompt: str, *, hidden: bool = False) -> str:
    """A line from the terminal, or from what is piped in."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return getpass.getpass(prompt) if hidden else input(prompt)


def print_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str], empty: str) -> None:
    if not rows:
        print(empty)
        return
    cells = [[column.replace("_", " ").upper() for column in columns]]
    cells += [["-" if row[column] is None else str(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
