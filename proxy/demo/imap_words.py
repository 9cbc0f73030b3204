"""The words of an IMAP command (RFC 9051 §9), as far as the practice mailbox reads them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

FLAGS = r"\Seen \Answered \Flagged \Deleted \Draft"
_TOKEN = re.compile(rb'[()]|"(?:[^"\\]|\\.)*"|[^\s()"\[]*\[[^\]]*\](?:<[\d.]+>)?|[^\s()"]+')

Argument = str | bytes | list["Argument"]
"""An atom or quoted text, a literal, a list."""


class Bad(Exception):
    """The command cannot be understood; a tagged BAD."""


def parse(pieces: Sequence[bytes]) -> list[Argument]:
    """The words of a command that came as text, literal, text, literal, …, text. Raises: Bad."""
    arguments: list[Argument] = []
    open_lists = [arguments]
    for n, piece in enumerate(pieces):
        if n % 2:
            open_lists[-1].append(piece)
            continue
        for token in _TOKEN.findall(piece):
            if token == b"(":
                inner: list[Argument] = []
                open_lists[-1].append(inner)
                open_lists.append(inner)
            elif token == b")":
                open_lists.pop()
                if not open_lists:
                    raise Bad
            elif token.startswith(b'"'):
                open_lists[-1].append(re.sub(rb"\\(.)", rb"\1", token[1:-1]).decode("utf-8", "replace"))
            else:
                open_lists[-1].append(token.decode("utf-8", "replace"))
    return arguments


def text(argument: Argument) -> str:
    """Raises: Bad: a list stands where a text should."""
    if isinstance(argument, list):
        raise Bad
    return argument.decode("utf-8", "replace") if isinstance(argument, bytes) else argument


def listed(argument: Argument) -> list[str]:
    """The texts of a list; of a single text, that text. Raises: Bad."""
    return [text(item) for item in argument] if isinstance(argument, list) else [text(argument)]


def flag(argument: Argument) -> str:
    """A flag in its usual spelling. Raises: Bad."""
    name = text(argument)
    return next((known for known in FLAGS.split() if known.casefold() == name.casefold()), name)


def spans(argument: Argument, last: int) -> list[tuple[int, int]]:
    """A sequence set as (lowest, highest); `*` is `last`. Raises: Bad, ValueError."""
    ends = [[last if end == "*" else int(end) for end in span.split(":")] for span in text(argument).split(",")]
    return [(min(span), max(span)) for span in ends]
