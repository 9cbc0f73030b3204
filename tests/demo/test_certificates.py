"""The practice harbour's certificates: trusted under their own authority, and by nobody else."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from proxy.demo.certificates import local_certificate


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Both sides in memory. Raises: ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done: set[ssl.SSLObject] = set()
    while len(done) < len(sides):
        for side in sides:
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_it_is_trusted_on_this_machine(tmp_path: Path, name: str) -> None:
    made = local_certificate(tmp_path)
    handshake(made.client_context(), made.server_context(), name)


def test_it_is_good_for_no_other_name(tmp_path: Path) -> None:
    made = local_certificate(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(made.client_context(), made.server_context(), "outlook.office365.com")


def test_another_folders_authority_does_not_vouch_for_it(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    ours, theirs = map(local_certificate, folders)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(theirs.client_context(), ours.server_context(), "localhost")


def test_it_is_made_once(tmp_path: Path) -> None:
    made = local_certificate(tmp_path)
    before = made.file.read_bytes()
    assert local_certificate(tmp_path) == made
    assert made.file.read_bytes() == before
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
