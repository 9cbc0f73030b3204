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
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.defer import Deferred

from proxy.config.settings import LOOPBACK_NAMES, Certificate, Upstream
from proxy.log import Log
from proxy.network.stream import Stream

RSA_BITS = 2048  # old SChannel takes no elliptic curve and no larger hash than SHA-256 (CLIENTS 4)
AUTHORITY_LIFE = datetime.timedelta(days=3650)
CERTIFICATE_LIFE = datetime.timedelta(days=825)  # the longest that Apple's programs take, even from a private authority
RENEW_BEFORE = datetime.timedelta(days=365)  # looked at when the daemon starts, which then may run for a year
CLOCKS_DIFFER = datetime.timedelta(days=1)
SESSIONS_A_DAY = 24  # taken from each upstream: Python loses 6 KB each time (python/cpython#116810, 3.10 to 3.12.7)
DAY_S = 86_400.0
MAX_COMMON_NAME = 64  # X.520's upper bound, in characters

ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)
log = Log("tls")


class ClientTls:
    """Starts TLS towards upstream. `now` gives seconds of a clock that does not jump."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._contexts: dict[Path | None, ssl.SSLContext] = {}
        self._sessions: dict[Upstream, ssl.SSLSession] = {}
        self._taken_at_s: dict[Upstream, deque[float]] = {}
        """When sessions were taken lately; at most `SESSIONS_A_DAY` of each upstream."""

    def start(self, stream: Stream, upstream: Upstream) -> Deferred[None]:
        """Fails as `Stream.start_tls` does: `ssl.SSLCertVerificationError` for a certificate that does not fit."""
        return stream.start_tls(
            self._context(upstream.ca_file), server_hostname=upstream.host, session=self._sessions.get(upstream)
        )

    def remember_session(self, stream: Stream, upstream: Upstream) -> None:
        """Keep this stream's session for the next one; TLS 1.3 tells it behind the first data (RFC 8446 §4.6.1).

        One that was resumed just now stays: to copy its successor would cost a third of the handshake. So does the old
        one where upstream forgets them all the time; full handshakes cost less than the memory would.
        """
        if stream.tls is None or stream.tls.session_reused:
            return
        taken_at_s = self._taken_at_s.setdefault(upstream, deque(maxlen=SESSIONS_A_DAY))
        if len(taken_at_s) == SESSIONS_A_DAY and self._now() - taken_at_s[0] < DAY_S:
            return
        taken_at_s.append(self._now())
        session = stream.tls.session
        if session is not None:
            self._sessions[upstream] = session

    def _context(self, ca_file: Path | None) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            context = ssl.create_default_context()
            if ca_file is not None:  # beside the system's roots
                context.load_verify_locations(ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2  # Exchange takes no less (FACTS 1.1)
            self._contexts[ca_file] = context
        return context


def server_context(certificate: Certificate, *, legacy: bool) -> ssl.SSLContext:
    """What a listener shows.

    `legacy` lets TLS 1.0 and 1.1 in, for programs on old Windows; both the version and the security level must come
    down for that (FACTS 7.3).

    Raises:
        OSError, ssl.SSLError: a file is missing, unreadable or no certificate; or its key is encrypted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # A ticket arrives before the program has said a word. libesmtp (and others that know TLS 1.3 through OpenSSL alone)
    # then waits for more, and never speaks.
    context.num_tickets = 0
    if legacy:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.file, certificate.key, password="")  # nobody is asked for one
    return context


def local_certificate(folder: Path, hostname: str) -> Certificate:
    """The local authority's certificate for this machine; each is made when it is missing, damaged or old.

    `folder` holds `ca.pem` (to be trusted by mail programs), `ca.key`, `server.pem` and `server.key`; keys are 0600.
    `hostname` may be an address. A name that the authority may not sign for makes a new authority, to be trusted anew.

    Raises:
        OSError: the folder cannot be read or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = _names(hostname)
    files = Certificate(folder / "ca.pem", folder / "ca.key")
    authority = _read(files)
    if authority is None or not _permits(authority, names):
        authority = _make_authority(names)
        _keep(authority, files)
        log.info("made the local certificate authority", file=str(files.file))
    files = Certificate(folder / "server.pem", folder / "server.key")
    server = _read(files, authority)
    if server is None or x509.SubjectAlternativeName(names) not in _extensions(server, x509.SubjectAlternativeName):
        _keep(_make_certificate(hostname, names, authority), files)
    return files


@dataclass(frozen=True, slots=True)
class _Signed:
    """A certificate and its own key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey


def _read(files: Certificate, authority: _Signed | None = None) -> _Signed | None:
    """What the files hold; without an authority, one that signed itself.

    None if a file is missing or damaged, if they do not belong together or to the authority, or if the end is near.
    """
    try:
        certificate = x509.load_pem_x509_certificate(files.file.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        certificate.verify_directly_issued_by(authority.certificate if authority else certificate)
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature):  # TypeError: somebody encrypted the key
        return None
    lasts = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > RENEW_BEFORE
    if lasts and isinstance(key, rsa.RSAPrivateKey) and key.public_key() == certificate.public_key():
        return _Signed(certificate, key)
    return None


def _permits(authority: _Signed, names: Sequence[x509.GeneralName]) -> bool:
    constraints = _extensions(authority, x509.NameConstraints)
    return all(any(subtree in (each.permitted_subtrees or ()) for each in constraints) for subtree in _subtrees(names))


def _extensions(signed: _Signed, kind: type[ExtensionT]) -> list[ExtensionT]:
    return [each.value for each in signed.certificate.extensions if isinstance(each.value, kind)]


def _make_authority(names: Sequence[x509.GeneralName]) -> _Signed:
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mailferry on this machine")])
    only_here = x509.NameConstraints(permitted_subtrees=_subtrees(names), excluded_subtrees=None)
    certificate = (
        _builder(name, name, key.public_key(), _from_now(AUTHORITY_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(only_here, critical=False)  # a program that knows no constraints must still take it
        .sign(key, hashes.SHA256())
    )
    return _Signed(certificate, key)


def _make_certificate(hostname: str, names: Sequence[x509.GeneralName], authority: _Signed) -> _Signed:
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    common_name = hostname if len(hostname) <= MAX_COMMON_NAME else "localhost"  # old SChannel reads it
    certificate = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
            authority.certificate.subject,
            key.public_key(),
            min(_from_now(CERTIFICATE_LIFE), authority.certificate.not_valid_after_utc),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _Signed(certificate, key)


def _names(hostname: str) -> list[x509.GeneralName]:
    """What this machine is called: its configured name or address, and loopback's."""
    return [_name(each) for each in dict.fromkeys((hostname, *LOOPBACK_NAMES))]


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _subtrees(names: Sequence[x509.GeneralName]) -> list[x509.GeneralName]:
    """The same as constraints know them: an address is a network of one."""
    return [
        x509.IPAddress(ipaddress.ip_network(name.value)) if isinstance(name, x509.IPAddress) else name for name in names
    ]


def _from_now(life: datetime.timedelta) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + life


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, last: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_from_now(-CLOCKS_DIFFER))
        .not_valid_after(last)
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


def _keep(signed: _Signed, files: Certificate) -> None:
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(files.key, signed.key.private_bytes(*encoding), 0o600)
    _write(files.file, signed.certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write(file: Path, content: bytes, mode: int) -> None:
    """Atomically: a half-written certificate would stop the next start."""
    draft = file.with_suffix(file.suffix + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(file)
