"""Certificate authorities of a test's own: what a box that opens TLS shows. Not a test."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.demo.certificates import LocalCertificate

DAY = datetime.timedelta(days=1)


def make_authority(
    folder: Path,
    common_name: str,
    organisation: str,
    *,
    host: str = "localhost",
    begins: datetime.timedelta = -DAY,
    ends: datetime.timedelta = 30 * DAY,
) -> LocalCertificate:
    """An authority of this name, and its certificate for this host, valid from and until so long from now."""
    now = datetime.datetime.now(datetime.UTC)
    files = LocalCertificate(folder / "box-ca.pem", folder / "box.pem", folder / "box.key")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
        ]
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]

    def builder(name: x509.Name, public: ec.EllipticCurvePublicKey, *, is_ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + (-400 * DAY if is_ca else begins))
            .not_valid_after(now + (400 * DAY if is_ca else ends))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )

    authority = builder(issuer, ca_key.public_key(), is_ca=True).sign(ca_key, hashes.SHA256())
    leaf = builder(subject, key.public_key(), is_ca=False)
    leaf_signed = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    files.ca_file.write_bytes(authority.public_bytes(pem))
    files.file.write_bytes(leaf_signed.public_bytes(pem) + authority.public_bytes(pem))
    files.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files
