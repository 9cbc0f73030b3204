"""PURE: the extensions that EHLO announces, and whether upstream keeps the promise (CLIENTS 2.3).

What it is: the list as a mapping, keyword to argument. What it is not: AUTH and STARTTLS, which each side of the proxy
settles for itself. Called by `smtp_front.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Extensions = Mapping[str, str]
"""The argument (empty if there is none) by upper-case keyword, in the order of the list."""

EXCHANGE = (
    "SIZE 157286400",
    "PIPELINING",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "8BITMIME",
    "BINARYMIME",
    "CHUNKING",
    "SMTPUTF8",
)
"""What Exchange Online offers (FACTS 2.2), announced until its own list is learnt."""


def read(lines: Iterable[str]) -> Extensions:
    """EHLO keyword lines without AUTH, the old `AUTH=`, and STARTTLS."""
    words = (line.partition(" ") for line in lines)
    return {
        keyword.upper(): argument
        for keyword, _, argument in words
        if keyword.upper().partition("=")[0] not in ("AUTH", "STARTTLS")
    }


def offers_less(offered: Extensions, announced: Extensions) -> bool:
    """Whether `offered` lacks something that was `announced`, or takes smaller messages than were."""
    if not announced.keys() <= offered.keys():
        return True
    return "SIZE" in announced and _size_octets(offered) < _size_octets(announced)


def _size_octets(extensions: Extensions) -> float:
    """The largest message; RFC 1870 §4: none, or 0, stands for no fixed limit."""
    size = extensions.get("SIZE", "")
    return (int(size) if size.isdecimal() else 0) or math.inf
