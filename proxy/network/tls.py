"""TLS on both sides: what listeners show, and how upstream is verified.

Upstream there is one client context for each set of trusted roots, made once (it costs 20-40 ms to load them, SPEED
trap 4); it always verifies chain and host name. The newest session of each host is resumed. Listeners show the
certificate that the configuration names, or one that a local certificate authority made on first start: the authority
can be trusted in a mail program once and for all, and signs nothing but names of this machine.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.defer import Deferred

from proxy.config.settings import Certificate, Upstream
from proxy.network.stream import Stream

RSA_BITS = 2048  # old SChannel takes no elliptic curve and no larger hash than SHA-256 (CLIENTS 4)
AUTHORITY_LIFE = datetime.timedelta(days=3650)
CERTIFICATE_LIFE = datetime.timedelta(days=825)  # the longest that Apple's programs take, even from a private authority
RENEW_BEFORE = datetime.timedelta(days=30)
LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


class ClientTls:
    """Starts TLS towards upstream."""

    def __init__(self) -> None:
        self._contexts: dict[Path | None, ssl.SSLContext] = {}
        self._sessions: dict[Upstream, ssl.SSLSession] = {}

    def start(self, stream: Stream, upstream: Upstream) -> Deferred[None]:
        """Fails as `Stream.start_tls` does: `ssl.SSLCertVerificationError` for a certificate that does not fit."""
        return stream.start_tls(
            self._context(upstream.ca_file), server_hostname=upstream.host, session=self._sessions.get(upstream)
        )

    def remember_session(self, stream: Stream, upstream: Upstream) -> None:
        """Keep this stream's session for the next one; TLS 1.3 tells it behind the first data (RFC 8446 §4.6.1).

        One that was resumed just now stays: to copy its successor would cost a third of the handshake.
        """
        if stream.tls is None or stream.tls.session_reused:
            return
        session = stream.tls.session
        if session is not None:
            self._sessions[upstream] = session

    def _context(self, ca_file: Path | None) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            context.minimum_version = ssl.TLSVersion.TLSv1_2  # Exchange takes no less (FACTS 1.1)
            self._contexts[ca_file] = context
        return context


def server_context(certificate: Certificate, *, legacy: bool) -> ssl.SSLContext:
    """What a listener shows.

    `legacy` lets TLS 1.0 and 1.1 in, for programs on old Windows; both the version and the security level must come
    down for that (FACTS 7.3).

    Raises:
        OSError, ssl.SSLError: a file is missing, unreadable or no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if legacy:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.file, certificate.key)
    return context


def local_certificate(folder: Path, hostname: str) -> Certificate:
    """The local authority's certificate for this machine; both are made when missing, the certificate also when old.

    `folder` holds `ca.pem` (to be trusted by mail programs), `ca.key`, `server.pem` and `server.key`; keys are 0600.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, server = folder / "ca.pem", Certificate(folder / "server.pem", folder / "server.key")
    if not authority.exists():
        _make_authority(authority, folder / "ca.key", hostname)
        server.file.unlink(missing_ok=True)
    if not _is_good(server, hostname):
        _make_certificate(server, authority, folder / "ca.key", hostname)
    return server


def _is_good(certificate: Certificate, hostname: str) -> bool:
    if not (certificate.file.exists() and certificate.key.exists()):
        return False
    leaf = x509.load_pem_x509_certificate(certificate.file.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    lasts = leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > RENEW_BEFORE
    return lasts and hostname in names.get_values_for_type(x509.DNSName)


def _make_authority(file: Path, key_file: Path, hostname: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mailferry on this machine")])
    only_here = x509.NameConstraints(
        permitted_subtrees=[
            *(x509.DNSName(dns) for dns in _names(hostname)),
            *(x509.IPAddress(ipaddress.ip_network(address)) for address in LOOPBACK),
        ],
        excluded_subtrees=None,
    )
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(only_here, critical=False)  # a program that knows no constraints must still take it
        .sign(key, hashes.SHA256())
    )
    _write_key(key_file, key)
    _write(file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _make_certificate(certificate: Certificate, authority_file: Path, authority_key: Path, hostname: str) -> None:
    authority = x509.load_pem_x509_certificate(authority_file.read_bytes())
    signer = serialization.load_pem_private_key(authority_key.read_bytes(), password=None)
    assert isinstance(signer, rsa.RSAPrivateKey)
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    names = [*(x509.DNSName(dns) for dns in _names(hostname)), *(x509.IPAddress(address) for address in LOOPBACK)]
    leaf = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)]),  # old SChannel reads the CN
            authority.subject,
            key.public_key(),
            CERTIFICATE_LIFE,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write_key(certificate.key, key)
    _write(certificate.file, leaf.public_bytes(serialization.Encoding.PEM), 0o644)


def _names(hostname: str) -> list[str]:
    return list(dict.fromkeys([hostname, "localhost"]))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(file: Path, key: rsa.RSAPrivateKey) -> None:
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(file, key.private_bytes(*encoding), 0o600)


def _write(file: Path, content: bytes, mode: int) -> None:
    """Atomically: a half-written certificate would stop the next start."""
    draft = file.with_suffix(file.suffix + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(file)
