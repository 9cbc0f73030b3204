"""TLS on both sides: what the local authority signs and how it lasts, what listeners show, whom upstream we trust."""

from __future__ import annotations

import datetime
import os
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.config.settings import Certificate, Upstream, UpstreamTls
from proxy.demo.certificates import LocalCertificate
from proxy.network import tls as tls_module
from proxy.network.stream import Stream
from proxy.network.tls import (
    AUTHORITY_LIFE,
    CERTIFICATE_LIFE,
    DAY_S,
    RENEW_BEFORE,
    RSA_BITS,
    SESSIONS_A_DAY,
    ClientTls,
    local_certificate,
    server_context,
)
from tests.network.legs import Leg, Recorder, contexts
from tests.network.turning import Peer, TurningReactor, result, socket_pair, watch

NAME = "mail.example.lan"
NAMES = [NAME, "localhost", "127.0.0.1", "::1"]
LONG_NAME = ".".join(["a-very-long-label-for-a-machine"] * 3)  # too long for a common name
KEYS_A_TEST = 6
A_DAY = datetime.timedelta(days=1)
OLD_VERSIONS = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]
NEW_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

by_version = pytest.mark.parametrize("version", NEW_VERSIONS, ids=lambda version: str(version.name))


# --- the local authority's folder


@dataclass(frozen=True)
class Folder:
    """Where the local authority lives."""

    path: Path

    def made(self, hostname: str = NAME) -> Certificate:
        return local_certificate(self.path, hostname)

    @property
    def ca_file(self) -> Path:
        return self.path / "ca.pem"

    def authority(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.ca_file.read_bytes())

    def server(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.path / "server.pem").read_bytes())

    def contents(self) -> dict[str, tuple[bytes, int]]:
        """All files, and when they were written."""
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in self.path.iterdir()}

    def verify(self, name: str, file: Path | None = None) -> str:
        """What OpenSSL says of our certificate (or this one) for this name, if only our authority is trusted."""
        which = "-verify_ip" if _is_address(name) else "-verify_hostname"
        trust = ["-no-CAfile", "-no-CApath", "-no-CAstore", "-CAfile", str(self.ca_file)]
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", which, name, *trust]
        done = subprocess.run(
            [*command, str(file or self.path / "server.pem")], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 or done.stderr
        return "OK" if done.returncode == 0 else done.stderr


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def made_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Only looked at."""
    folder = Folder(tmp_path_factory.mktemp("state") / "tls")
    folder.made()
    return folder


@pytest.fixture(scope="module")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Another machine's, for the same names."""
    folder = Folder(tmp_path_factory.mktemp("foreign-state") / "tls")
    folder.made()
    return folder


@pytest.fixture(scope="module")
def keys() -> list[rsa.RSAPrivateKey]:
    """As many as one test needs; to make them anew for each would take most of the time."""
    return [rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS) for _ in range(KEYS_A_TEST)]


@pytest.fixture
def quick_keys(keys: list[rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key of a test is another one, and made already."""
    unused = iter(keys)
    monkeypatch.setattr(rsa, "generate_private_key", lambda **_: next(unused))


@pytest.fixture
def folder(made_folder: Folder, tmp_path: Path, quick_keys: None) -> Folder:
    """One that stands already, to be changed."""
    shutil.copytree(made_folder.path, tmp_path / "tls")
    return Folder(tmp_path / "tls")


@pytest.fixture
def fresh_folder(tmp_path: Path, quick_keys: None) -> Folder:
    return Folder(tmp_path / "tls")


def leaf_of(folder: Folder, name: x509.GeneralName, path: Path) -> Path:
    """A server's certificate for this name, from the folder's authority: what a thief of its key would make."""
    signer = serialization.load_pem_private_key((folder.path / "ca.key").read_bytes(), password=None)
    assert isinstance(signer, rsa.RSAPrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(folder.authority().subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - A_DAY)
        .not_valid_after(now + A_DAY)
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    file = path / "leaf.pem"
    file.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    return file


# --- handshakes


def shake_hands(
    reactor: TurningReactor, server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost"
) -> tuple[Leg, list[Failure | None]]:
    """A listener's stream and a mail program, and how TLS between them has gone for the stream."""
    near, far = socket_pair("tcp")
    stream, peer, recorder = Stream(near, reactor), Peer(far, reactor), Recorder()
    stream.open(recorder)
    peer.start_tls(client, server_side=False, server_hostname=name)
    up = watch(stream.start_tls(server))
    reactor.turn_until(lambda: up)
    reactor.settle()
    return Leg(stream, peer, recorder), up


def old_program(version: ssl.TLSVersion) -> ssl.SSLContext:
    """It speaks this version only, and checks nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def deprecated_tls() -> Iterator[None]:
    """Python warns of TLS 1.0 and 1.1; `server_context` means them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


# --- the local certificate: who takes it


@pytest.mark.parametrize("name", NAMES)
def test_a_program_that_trusts_the_authority_takes_the_certificate(
    reactor: TurningReactor, made_folder: Folder, name: str
) -> None:
    client = ssl.create_default_context(cafile=str(made_folder.ca_file))
    way, up = shake_hands(reactor, server_context(made_folder.made(), legacy=False), client, name)
    assert up == [None]
    assert way.peer.tls_error is None
    way.stream.write(b"* OK\r\n")
    reactor.turn_until(lambda: way.peer.got)
    assert way.peer.got == b"* OK\r\n"


@pytest.mark.parametrize("name", NAMES)
def test_openssl_takes_the_certificate(made_folder: Folder, name: str) -> None:
    assert made_folder.verify(name) == "OK"


def test_another_name_is_not_in_it(reactor: TurningReactor, made_folder: Folder) -> None:
    assert "hostname mismatch" in made_folder.verify("other.example.lan")
    client = ssl.create_default_context(cafile=str(made_folder.ca_file))
    _, up = shake_hands(reactor, server_context(made_folder.made(), legacy=False), client, "other.example.lan")
    assert isinstance(up[0], Failure)
    assert isinstance(up[0].value, ssl.SSLError)
    assert up[0].value.reason == "SSLV3_ALERT_BAD_CERTIFICATE"


def test_another_machines_authority_has_not_signed_it(made_folder: Folder, foreign_folder: Folder) -> None:
    assert foreign_folder.verify(NAME, made_folder.path / "server.pem") != "OK"


@pytest.mark.parametrize("hostname", ["192.0.2.7", "2001:db8::7", LONG_NAME])
def test_a_machine_may_be_called_by_address_or_by_a_long_name(
    reactor: TurningReactor, fresh_folder: Folder, hostname: str
) -> None:
    made = fresh_folder.made(hostname)
    assert fresh_folder.verify(hostname) == "OK"
    client = ssl.create_default_context(cafile=str(fresh_folder.ca_file))
    way, _ = shake_hands(reactor, server_context(made, legacy=False), client, hostname)
    assert way.peer.tls_error is None


def test_old_programs_find_what_they_know(made_folder: Folder) -> None:
    """RSA of 2048 bits, SHA-256, and the name as common name (CLIENTS 4)."""
    for certificate in (made_folder.authority(), made_folder.server()):
        key = certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 2048
        assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert made_folder.server().subject.rfc4514_string() == f"CN={NAME}"


# --- the authority signs nothing but names of this machine


@pytest.mark.parametrize("name", [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
def test_a_forged_certificate_passes_for_its_own_names(
    made_folder: Folder, tmp_path: Path, name: x509.DNSName | x509.IPAddress
) -> None:
    """So that the next test fails for the name alone."""
    assert made_folder.verify(str(name.value), leaf_of(made_folder, name, tmp_path)) == "OK"


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("outlook.office365.com"),
        x509.DNSName("example.lan"),
        x509.IPAddress(ip_address("192.0.2.1")),
        x509.IPAddress(ip_address("127.0.0.2")),
        x509.IPAddress(ip_address("2001:db8::1")),
    ],
    ids=lambda name: str(name.value),
)
def test_the_authority_cannot_speak_for_others(
    made_folder: Folder, tmp_path: Path, name: x509.DNSName | x509.IPAddress
) -> None:
    forged = leaf_of(made_folder, name, tmp_path)
    assert "permitted subtree violation" in made_folder.verify(str(name.value), forged)


def test_neither_can_the_certificate_itself_sign(made_folder: Folder) -> None:
    constraints = made_folder.server().extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    constraints = made_folder.authority().extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)


# --- how they last


def test_what_is_there_is_used_again(folder: Folder) -> None:
    before = folder.contents()
    assert folder.made() == Certificate(folder.path / "server.pem", folder.path / "server.key")
    assert folder.contents() == before
    assert set(before) == {"ca.pem", "ca.key", "server.pem", "server.key"}


def test_only_the_owner_reads_the_keys(fresh_folder: Folder) -> None:
    wide_open = os.umask(0)
    try:
        fresh_folder.made()
    finally:
        os.umask(wide_open)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (fresh_folder.path, *fresh_folder.path.iterdir())}
    assert modes == {"tls": 0o700, "ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o644, "server.key": 0o600}


def test_they_last_as_long_as_they_should(made_folder: Folder) -> None:
    now = datetime.datetime.now(datetime.UTC)
    for certificate, life in ((made_folder.authority(), AUTHORITY_LIFE), (made_folder.server(), CERTIFICATE_LIFE)):
        assert A_DAY * -1 < certificate.not_valid_after_utc - (now + life) <= datetime.timedelta()
        assert certificate.not_valid_before_utc < now - A_DAY / 2, "clocks differ"


@pytest.mark.parametrize(("left", "renewed"), [(RENEW_BEFORE - A_DAY, True), (RENEW_BEFORE + A_DAY, False)])
def test_a_certificate_is_renewed_before_its_end(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, left: datetime.timedelta, renewed: bool
) -> None:
    (folder.path / "server.pem").unlink()
    with monkeypatch.context() as earlier:
        earlier.setattr(tls_module, "CERTIFICATE_LIFE", left)
        folder.made()
    authority, old = folder.authority(), folder.server()
    folder.made()
    assert (folder.server() != old) is renewed
    assert folder.authority() == authority
    assert folder.verify(NAME) == "OK"


@pytest.mark.parametrize(("left", "renewed"), [(RENEW_BEFORE - A_DAY, True), (RENEW_BEFORE + A_DAY, False)])
def test_the_authority_is_renewed_before_its_end(
    fresh_folder: Folder, monkeypatch: pytest.MonkeyPatch, left: datetime.timedelta, renewed: bool
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(tls_module, "AUTHORITY_LIFE", left)
        fresh_folder.made()
    authority, server = fresh_folder.authority(), fresh_folder.server()
    assert server.not_valid_after_utc == authority.not_valid_after_utc, "none outlives its authority"
    fresh_folder.made()
    assert (fresh_folder.authority() != authority) is renewed
    assert (fresh_folder.server() != server) is renewed
    assert fresh_folder.verify(NAME) == "OK"


# --- another host name


@pytest.mark.parametrize("hostname", ["other.example.lan", "example.lan", "192.0.2.7"])
def test_a_name_that_the_authority_may_not_sign_makes_a_new_one(
    reactor: TurningReactor, folder: Folder, hostname: str
) -> None:
    old = folder.authority()
    made = folder.made(hostname)
    assert folder.authority() != old
    for name in (hostname, "localhost", "127.0.0.1"):
        assert folder.verify(name) == "OK"
    assert folder.verify(NAME) != "OK"
    client = ssl.create_default_context(cafile=str(folder.ca_file))
    way, up = shake_hands(reactor, server_context(made, legacy=False), client, hostname)
    assert up == [None]
    assert way.peer.tls_error is None


def test_a_name_that_the_authority_may_sign_leaves_it_as_it_is(folder: Folder) -> None:
    authority, server = folder.authority(), folder.server()
    folder.made("localhost")
    assert folder.authority() == authority
    assert folder.server() != server
    assert folder.verify("localhost") == "OK"
    assert "hostname mismatch" in folder.verify(NAME)


def test_a_new_authority_is_told_of(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mailferry")
    folder.made()
    folder.made("localhost")
    assert not caplog.records
    folder.made("other.example.lan")
    assert [record.getMessage() for record in caplog.records] == ["made the local certificate authority"]
    assert vars(caplog.records[0])["fields"] == {"file": str(folder.ca_file)}


# --- damage


def emptied(file: Path, foreign: Path) -> None:
    file.write_bytes(b"")


def cut_off(file: Path, foreign: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def overwritten(file: Path, foreign: Path) -> None:
    file.write_bytes(os.urandom(500))


def removed(file: Path, foreign: Path) -> None:
    file.unlink()


def exchanged(file: Path, foreign: Path) -> None:
    shutil.copy(foreign / file.name, file)


def one_octet_off(file: Path, foreign: Path) -> None:
    """In the signature, or in what the key's last number is."""
    lines = file.read_text().splitlines()
    lines[-2] = ("B" if lines[-2][0] == "A" else "A") + lines[-2][1:]
    file.write_text("\n".join(lines) + "\n")


Damage = Callable[[Path, Path], None]
every_damage = pytest.mark.parametrize("damage", [emptied, cut_off, overwritten, removed, exchanged, one_octet_off])


@every_damage
@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_a_damaged_certificate_is_made_anew(folder: Folder, foreign_folder: Folder, name: str, damage: Damage) -> None:
    authority = folder.authority()
    damage(folder.path / name, foreign_folder.path)
    server_context(folder.made(), legacy=False)
    assert folder.verify(NAME) == "OK"
    assert folder.authority() == authority


@every_damage
@pytest.mark.parametrize("name", ["ca.pem", "ca.key"])
def test_a_damaged_authority_is_made_anew(folder: Folder, foreign_folder: Folder, name: str, damage: Damage) -> None:
    damage(folder.path / name, foreign_folder.path)
    folder.made()
    folder.made("localhost")  # the authority's key must be its own, to sign again
    server_context(folder.made(), legacy=False)
    assert folder.verify(NAME) == "OK"


def test_an_encrypted_key_is_of_no_use(folder: Folder) -> None:
    file = folder.path / "server.key"
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    server_context(folder.made(), legacy=False)


@pytest.mark.parametrize("written", range(4))
def test_a_start_that_breaks_off_is_made_good_by_the_next(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """A new name has all four files written: here only so many of them."""
    rename, left = Path.rename, [None] * written

    def full_disk(self: Path, target: Path) -> Path:
        if not left:
            raise OSError("No space left on device")
        left.pop()
        return rename(self, target)

    with monkeypatch.context() as breaking:
        breaking.setattr(Path, "rename", full_disk)
        with pytest.raises(OSError, match="No space left"):
            folder.made("other.example.lan")
    server_context(folder.made("other.example.lan"), legacy=False)
    assert folder.verify("other.example.lan") == "OK"


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file")
    with pytest.raises(OSError, match="File exists"):
        local_certificate(tmp_path / "tls", NAME)


# --- what listeners show


@pytest.mark.parametrize("legacy", [False, True])
@by_version
def test_every_listener_speaks_todays_tls(
    reactor: TurningReactor, made_folder: Folder, version: ssl.TLSVersion, legacy: bool, deprecated_tls: None
) -> None:
    context = server_context(made_folder.made(), legacy=legacy)
    way, up = shake_hands(reactor, context, old_program(version))
    assert up == [None]
    assert way.stream.tls is not None
    assert way.stream.tls.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", OLD_VERSIONS, ids=lambda version: str(version.name))
def test_a_legacy_listener_speaks_old_tls_too(
    reactor: TurningReactor, made_folder: Folder, version: ssl.TLSVersion, deprecated_tls: None
) -> None:
    way, up = shake_hands(reactor, server_context(made_folder.made(), legacy=True), old_program(version))
    assert up == [None]
    assert way.stream.tls is not None
    assert way.stream.tls.version() == {"TLSv1": "TLSv1", "TLSv1_1": "TLSv1.1"}[version.name]
    way.peer.say(b"a1 LOGIN")
    reactor.turn_until(lambda: way.recorder.got)
    assert way.recorder.got == b"a1 LOGIN"


@pytest.mark.parametrize("version", OLD_VERSIONS, ids=lambda version: str(version.name))
def test_any_other_listener_refuses_old_tls(
    reactor: TurningReactor, made_folder: Folder, version: ssl.TLSVersion
) -> None:
    way, up = shake_hands(reactor, server_context(made_folder.made(), legacy=False), old_program(version))
    assert isinstance(up[0], Failure)
    assert isinstance(up[0].value, ssl.SSLError)
    assert up[0].value.reason == "UNSUPPORTED_PROTOCOL"
    assert way.peer.tls_error is not None


def test_one_handshake_is_enough(made_folder: Folder) -> None:
    """A renegotiation is the peer's to begin, and ours to pay for."""
    assert server_context(made_folder.made(), legacy=False).options & ssl.OP_NO_RENEGOTIATION


def test_nothing_is_sent_before_the_program_speaks(made_folder: Folder) -> None:
    """No session tickets: libesmtp, for one, takes them for the answer that it has not asked for yet, and hangs."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context(made_folder.made(), legacy=False).wrap_bio(incoming, outgoing, server_side=True)
    back, forth = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cafile=str(made_folder.ca_file))
    program = client.wrap_bio(back, forth, server_hostname=NAME)
    for side in (program, server, program):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
        incoming.write(forth.read())
        back.write(outgoing.read())
    server.do_handshake()
    assert program.version() == "TLSv1.3"
    assert not outgoing.pending


def test_a_certificate_that_cannot_be_shown(made_folder: Folder, foreign_folder: Folder, tmp_path: Path) -> None:
    good = made_folder.made()
    with pytest.raises(FileNotFoundError):
        server_context(replace(good, file=tmp_path / "none.pem"), legacy=False)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        server_context(replace(good, key=foreign_folder.path / "server.key"), legacy=False)
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        server_context(replace(good, file=tmp_path / "text.pem"), legacy=False)


# --- upstream


GREETING = b"* OK The Microsoft Exchange IMAP4 service is ready.\r\n"


def upstream(certificate: LocalCertificate, *, host: str = "localhost", port: int = 993) -> Upstream:
    return Upstream(host, port, UpstreamTls.IMPLICIT, certificate.ca_file)


@pytest.fixture
def client_tls() -> ClientTls:
    return ClientTls()


class Ferryman:
    """Opens streams to a server that shows this context, and closes them at the test's end."""

    def __init__(self, reactor: TurningReactor, client_tls: ClientTls) -> None:
        self._reactor, self._client_tls = reactor, client_tls

    def start(self, to: Upstream, context: ssl.SSLContext) -> tuple[Leg, Deferred[None]]:
        near, far = socket_pair("tcp")
        stream, peer, recorder = Stream(near, self._reactor), Peer(far, self._reactor), Recorder()
        stream.open(recorder)
        peer.start_tls(context, server_side=True)
        return Leg(stream, peer, recorder), self._client_tls.start(stream, to)

    def log_in(self, to: Upstream, context: ssl.SSLContext) -> ssl.SSLSocket:
        """The server has spoken, and the session is remembered, as after a login."""
        way, up = self.start(to, context)
        result(up, self._reactor)
        way.peer.say(GREETING)
        self._reactor.turn_until(lambda: way.recorder.got == GREETING)
        self._client_tls.remember_session(way.stream, to)
        assert way.stream.tls is not None
        return way.stream.tls


@pytest.fixture
def ferryman(reactor: TurningReactor, client_tls: ClientTls) -> Ferryman:
    return Ferryman(reactor, client_tls)


@by_version
def test_upstream_is_asked_for_by_its_name(
    ferryman: Ferryman, certificate: LocalCertificate, version: ssl.TLSVersion
) -> None:
    asked: list[str | None] = []
    server, _ = contexts(certificate, version)
    server.sni_callback = lambda tls, name, context: asked.append(name)
    assert ferryman.log_in(upstream(certificate), server).version() == version.name.replace("_", ".")
    assert asked == ["localhost"]


@pytest.mark.parametrize("host", ["outlook.office365.com", "127.0.0.2"])
def test_a_certificate_for_another_name_is_refused(
    reactor: TurningReactor, ferryman: Ferryman, certificate: LocalCertificate, host: str
) -> None:
    way, up = ferryman.start(upstream(certificate, host=host), certificate.server_context())
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        result(up, reactor)
    reactor.settle()
    assert way.peer.tls_error is not None


def test_a_foreign_authoritys_certificate_is_refused(
    reactor: TurningReactor, ferryman: Ferryman, certificate: LocalCertificate, other_certificate: LocalCertificate
) -> None:
    _, up = ferryman.start(upstream(certificate), other_certificate.server_context())
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        result(up, reactor)


def test_without_a_ca_file_the_systems_roots_decide(
    reactor: TurningReactor, ferryman: Ferryman, certificate: LocalCertificate
) -> None:
    _, up = ferryman.start(replace(upstream(certificate), ca_file=None), certificate.server_context())
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        result(up, reactor)


@pytest.mark.parametrize("version", OLD_VERSIONS, ids=lambda version: str(version.name))
def test_old_tls_is_not_spoken_upstream(
    reactor: TurningReactor,
    ferryman: Ferryman,
    certificate: LocalCertificate,
    version: ssl.TLSVersion,
    deprecated_tls: None,
) -> None:
    server = certificate.server_context()
    server.set_ciphers("DEFAULT:@SECLEVEL=0")
    server.minimum_version = server.maximum_version = version
    way, up = ferryman.start(upstream(certificate), server)
    with pytest.raises(ssl.SSLError):
        result(up, reactor)
    assert way.peer.tls_error is not None
    assert way.peer.tls_error.reason == "UNSUPPORTED_PROTOCOL"
    assert way.stream.tls is not None
    assert way.stream.tls.context.minimum_version is ssl.TLSVersion.TLSv1_2, "not only OpenSSL's own level forbids it"


def test_roots_are_read_once_for_each_file(
    ferryman: Ferryman, certificate: LocalCertificate, other_certificate: LocalCertificate
) -> None:
    first = ferryman.log_in(upstream(certificate), certificate.server_context())
    second = ferryman.log_in(upstream(certificate, port=995), certificate.server_context())
    other = ferryman.log_in(upstream(other_certificate), other_certificate.server_context())
    assert second.context is first.context
    assert other.context is not first.context


# --- sessions upstream


@by_version
def test_the_next_login_resumes_the_session(
    ferryman: Ferryman, certificate: LocalCertificate, version: ssl.TLSVersion
) -> None:
    server, _ = contexts(certificate, version)
    logins = [ferryman.log_in(upstream(certificate), server).session_reused for _ in range(4)]
    assert logins == [False, True, True, True]
    assert (server.session_stats()["accept"], server.session_stats()["hits"]) == (4, 3)


def test_a_resumed_session_is_not_copied_again(client_tls: ClientTls, certificate: LocalCertificate) -> None:
    """To ask for `session` copies it: a third of the handshake's cost."""

    class Resumed:
        session_reused = True

        @property
        def session(self) -> ssl.SSLSession:
            raise AssertionError("copied")

    class Leg:
        tls = Resumed()

    client_tls.remember_session(cast("Stream", Leg()), upstream(certificate))


@by_version
def test_a_session_that_the_server_has_forgotten_is_replaced(
    ferryman: Ferryman, certificate: LocalCertificate, version: ssl.TLSVersion
) -> None:
    before, _ = contexts(certificate, version)
    after, _ = contexts(certificate, version)  # restarted: it cannot read its old tickets
    assert not ferryman.log_in(upstream(certificate), before).session_reused
    assert not ferryman.log_in(upstream(certificate), after).session_reused
    assert ferryman.log_in(upstream(certificate), after).session_reused


def test_an_upstream_that_forgets_sessions_is_asked_for_few(certificate: LocalCertificate) -> None:
    """CPython before 3.12.8 loses 6 KB each time that `session` is read."""
    read, now_s = [], [0.0]

    class Full:
        session_reused = False

        @property
        def session(self) -> None:
            read.append(now_s[0])

    class Leg:
        tls = Full()

    client_tls = ClientTls(lambda: now_s[0])
    for _ in range(3 * SESSIONS_A_DAY):
        client_tls.remember_session(cast("Stream", Leg()), upstream(certificate))
    assert len(read) == SESSIONS_A_DAY
    now_s[0] = DAY_S
    client_tls.remember_session(cast("Stream", Leg()), upstream(certificate))
    assert len(read) == SESSIONS_A_DAY + 1


def test_each_upstream_has_its_own_session(ferryman: Ferryman, certificate: LocalCertificate) -> None:
    server = certificate.server_context()
    ferryman.log_in(upstream(certificate), server)
    assert not ferryman.log_in(upstream(certificate, port=995), server).session_reused
    assert ferryman.log_in(upstream(certificate), server).session_reused


def test_without_tls_there_is_no_session(
    reactor: TurningReactor, client_tls: ClientTls, certificate: LocalCertificate
) -> None:
    near, far = socket_pair()
    stream, _ = Stream(near, reactor), Peer(far, reactor)
    stream.open(Recorder())
    client_tls.remember_session(stream, upstream(certificate))
    assert stream.tls is None
