"""What a certificate file says, compared with what openssl says of it."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest

from proxy.network.certificates import read_certificate
from proxy.network.tls import local_certificate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    local_certificate(folder, "mail.example.lan")
    return folder


def test_an_authority(folder: Path) -> None:
    shown = read_certificate(folder / "ca.pem")
    assert shown.name == "mailferry on this machine"
    assert shown.names == ()
    assert shown.self_signed
    assert (shown.expires - datetime.datetime.now(datetime.UTC)).days in (3649, 3650)
    assert shown.sha256 == openssl(folder / "ca.pem", "-fingerprint", "-sha256")
    assert shown.sha1 == openssl(folder / "ca.pem", "-fingerprint", "-sha1")


def test_a_machines_certificate(folder: Path) -> None:
    shown = read_certificate(folder / "server.pem")
    assert shown.names == ("mail.example.lan", "localhost", "127.0.0.1", "::1")
    assert not shown.self_signed


def test_the_first_of_a_chain_is_the_one_that_is_shown(folder: Path, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes((folder / "server.pem").read_bytes() + (folder / "ca.pem").read_bytes())
    assert read_certificate(chain) == read_certificate(folder / "server.pem")


def test_what_is_no_certificate(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PEM"):
        read_certificate(folder / "server.key")
    with pytest.raises(FileNotFoundError):
        read_certificate(tmp_path / "nothing.pem")


def openssl(file: Path, *options: str) -> str:
    command = ["openssl", "x509", "-in", str(file), "-noout", *options]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return said.strip().partition("=")[2]
