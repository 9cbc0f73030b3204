"""Certificates that nobody verified, read: `certificates.py`."""

from __future__ import annotations

import ssl
from pathlib import Path

from proxy.app.doctor.certificates import MAX_CHAIN, read_chain
from tests.app.doctor.authorities import make_authority


def der(file: Path) -> list[bytes]:
    blocks = file.read_text().split("-----BEGIN ")[1:]
    return [ssl.PEM_cert_to_DER_cert(f"-----BEGIN {block}") for block in blocks]


def test_who_issued_it_for_whom_and_until_when(tmp_path: Path) -> None:
    chain = read_chain(der(make_authority(tmp_path, "Box CA", "Box Ltd", host="outlook.office365.com").file))
    assert len(chain) == 2
    leaf = chain[0]
    assert leaf.subject == '"outlook.office365.com"'
    assert leaf.issuer == '"Box CA" of Box Ltd'
    assert leaf.organisation == "Box Ltd"
    assert leaf.names == ("outlook.office365.com", "127.0.0.1")
    assert leaf.begins < leaf.ends
    assert "issued by" in str(leaf)
    assert f"to {leaf.ends:%Y-%m-%d}" in str(leaf)


def test_what_is_no_certificate_is_left_out(tmp_path: Path) -> None:
    good = der(make_authority(tmp_path, "Box CA", "").file)
    assert len(read_chain([b"", b"\x30\x03abc", *good])) == 2


def test_a_chain_without_an_end_is_cut(tmp_path: Path) -> None:
    good = der(make_authority(tmp_path, "Box CA", "").file)
    assert len(read_chain(good * 50)) == MAX_CHAIN


def test_names_are_shown_on_one_line(tmp_path: Path) -> None:
    chain = read_chain(der(make_authority(tmp_path, "Box\r\nCA\x1b[2J", "x" * 64).file))
    assert "\n" not in str(chain[0])
    assert "\x1b" not in str(chain[0])
