"""What a certificate file says, for a person: fingerprint, names, expiry. What it is not: a judgement (`tls.py`)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Shown:
    """One certificate, as programs show it."""

    name: str
    names: tuple[str, ...]
    """What it is good for; empty for an authority."""
    sha256: str
    """`AB:CD:…`."""
    sha1: str
    """The same in the form that old Windows shows."""
    expires: datetime.datetime
    self_signed: bool
    """It is trusted for itself, so that a change of it must be told to every program."""


def read_certificate(file: Path) -> Shown:
    """The first certificate of a PEM file, which is the one that is shown.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no certificate.
    """
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Shown(
        name=str(common[0].value) if common else certificate.subject.rfc4514_string(),
        names=_names(certificate),
        sha256=_fingerprint(certificate, hashes.SHA256()),
        sha1=_fingerprint(certificate, hashes.SHA1()),  # noqa: S303 - to compare with what Windows shows
        expires=certificate.not_valid_after_utc,
        self_signed=certificate.issuer == certificate.subject,
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(each.value) for each in found)


def _fingerprint(certificate: x509.Certificate, kind: hashes.HashAlgorithm) -> str:
    return certificate.fingerprint(kind).hex(":").upper()
