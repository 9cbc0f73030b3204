"""Certificates that nobody has verified, read for a person: whose, issued by whom, for which names, until when.

What it is not: trust. A certificate that does not verify is shown so that its issuer can be named. `transport.py`
calls it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

MAX_CHAIN = 10  # certificates shown; real chains have two to four
MAX_NAMES = 8  # of a certificate, shown


@dataclass(frozen=True, slots=True)
class Shown:
    """One certificate of a chain."""

    subject: str
    issuer: str
    organisation: str
    """Of the issuer; empty where it names none."""
    names: tuple[str, ...]
    begins: datetime.datetime
    ends: datetime.datetime

    def __str__(self) -> str:
        return f"{self.subject}, issued by {self.issuer}, valid from {self.begins:%Y-%m-%d} to {self.ends:%Y-%m-%d}"


def read_chain(chain: Sequence[bytes]) -> tuple[Shown, ...]:
    """The certificates of this chain (DER), the server's first; what cannot be read is left out."""
    shown = []
    for octets in chain[:MAX_CHAIN]:
        try:
            shown.append(_read(octets))
        except (ValueError, TypeError):
            continue
    return tuple(shown)


def _read(octets: bytes) -> Shown:
    certificate = x509.load_der_x509_certificate(octets)
    names: list[str] = []
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += [str(name.value) for name in extension.value if isinstance(name, x509.DNSName | x509.IPAddress)]
    return Shown(
        subject=_called(certificate.subject),
        issuer=_called(certificate.issuer),
        organisation=_first(certificate.issuer, NameOID.ORGANIZATION_NAME),
        names=tuple(_plain(name) for name in names[:MAX_NAMES]),
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
    )


def _called(name: x509.Name) -> str:
    """As a person would say it: the common name, and the organisation where it says more."""
    common = _first(name, NameOID.COMMON_NAME)
    organisation = _first(name, NameOID.ORGANIZATION_NAME)
    parts = [f'"{common}"' if common else "", f"of {organisation}" if organisation and organisation != common else ""]
    return " ".join(filter(None, parts)) or "somebody without a name"


def _first(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return next((_plain(str(each.value)) for each in name.get_attributes_for_oid(oid)), "")


def _plain(text: str) -> str:
    """Anybody may have written it: one line, bounded."""
    return "".join(c if c.isprintable() else "?" for c in text)[:100]
