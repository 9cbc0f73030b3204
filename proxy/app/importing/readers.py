"""Which program's reader a file belongs to: by what stands in it, not by its name. Called by `gathering.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proxy.app.importing import davmail, email_oauth2_proxy, sasl_xoauth2
from proxy.app.importing.found import KINDS, Found, Text


@dataclass(frozen=True, slots=True)
class Reader:
    program: str
    recognises: Callable[[Text], bool]
    read: Callable[[Sequence[Text]], Found]
    refers_to: Callable[[Text], list[str]]
    """Paths of further files that a text names."""


def _names_none(_: Text) -> list[str]:
    return []


READERS: Mapping[str, Reader] = dict(
    zip(
        KINDS,
        (
            Reader(email_oauth2_proxy.PROGRAM, email_oauth2_proxy.recognises, email_oauth2_proxy.read, _names_none),
            Reader(sasl_xoauth2.PROGRAM, sasl_xoauth2.recognises, sasl_xoauth2.read, sasl_xoauth2.refers_to),
            Reader(davmail.PROGRAM, davmail.recognises, davmail.read, davmail.refers_to),
        ),
        strict=True,
    )
)


def reader_of(text: Text) -> Reader | None:
    return next((reader for reader in READERS.values() if reader.recognises(text)), None)
